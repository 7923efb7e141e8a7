//! Where a job stands in somebody's trace of what happened: W3C Trace Context, carried along and never looked at.
//!
//! Nothing is decided by it and nothing signs it: whoever passes it on may leave it out or put in another one. It lets
//! tools that watch several peers show the parts of one request together.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of somebody's trace. Prints as the value of the header `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trace {
    /// The trace.
    pub id: [u8; 16],
    /// The span in it.
    pub span: [u8; 8],
    /// 1: it is being recorded.
    pub flags: u8,
}

/// What is no trace's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a trace's span is written 00-TRACE-SPAN-FLAGS with 32, 16 and 2 small hexadecimal digits, not all zero"
)]
pub struct ParseTraceError;

impl Trace {
    /// Whether it names a trace and a span. One of zeros names none.
    pub fn is_valid(&self) -> bool {
        self.id != [0; 16] && self.span != [0; 8]
    }

    /// Whether somebody records it.
    pub const fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, span) = (u128::from_be_bytes(self.id), u64::from_be_bytes(self.span));
        write!(f, "00-{id:032x}-{span:016x}-{:02x}", self.flags)
    }
}

impl FromStr for Trace {
    type Err = ParseTraceError;

    /// Later versions of the header begin with the same fields, and are read as far as that.
    fn from_str(text: &str) -> Result<Self, ParseTraceError> {
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let small = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(small));
            u128::from_str_radix(part.ok_or(ParseTraceError)?, 16).map_err(|_| ParseTraceError)
        };
        let (version, id, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let narrow = |number: u128| u64::try_from(number).map_err(|_| ParseTraceError);
        let flags = u8::try_from(flags).map_err(|_| ParseTraceError)?;
        let trace = Self { id: id.to_be_bytes(), span: narrow(span)?.to_be_bytes(), flags };
        let over = parts.next().is_none();
        let known = version == 0 && over || (1..0xff).contains(&version);
        if known && trace.is_valid() { Ok(trace) } else { Err(ParseTraceError) }
    }
}

impl Serialize for Trace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            (self.id, self.span, self.flags).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Trace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom);
        }
        let (id, span, flags) = Deserialize::deserialize(deserializer)?;
        Ok(Self { id, span, flags })
    }
}
