//! What a peer can do, as a dotted path from general to special: `text.generation`, `code.generation.python`.
//!
//! A provider is found under its capability *and* under every ancestor of it, so a seeker of `code` finds the
//! Python expert. The path's first segment is its root; announcements of jobs go to the topic of the root.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A dotted path of 1 to 4 segments of `a-z 0-9 - _`, at most 64 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(String);

impl Capability {
    /// Longest path in bytes: it stands in DHT keys, topics and every bid.
    pub const MAX_LEN: usize = 64;
    /// Deepest path: each level is a DHT key that every provider has to keep alive.
    pub const MAX_DEPTH: usize = 4;

    /// What a language model does unless told otherwise.
    pub fn text_generation() -> Self {
        Self("text.generation".to_owned())
    }

    /// What a model does that makes vectors of texts.
    pub fn text_embedding() -> Self {
        Self("text.embedding".to_owned())
    }

    /// What tools do, whichever.
    pub fn tool() -> Self {
        Self("tool".to_owned())
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The most general segment.
    pub fn root(&self) -> Self {
        Self(self.0.split('.').next().unwrap_or_default().to_owned())
    }

    /// This capability and everything more general, from special to general.
    pub fn with_ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        std::iter::successors(Some(self.as_str()), |path| path.rsplit_once('.').map(|(parent, _)| parent))
            .map(|path| Self(path.to_owned()))
    }

    /// True when `other` is this capability or a more special one.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// What is not a capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a capability: 1 to 4 segments of `a-z`, `0-9`, `-`, `_` joined by dots, like text.generation"
)]
pub struct ParseCapabilityError(String);

impl FromStr for Capability {
    type Err = ParseCapabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let segment = |s: &str| {
            !s.is_empty() && s.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        let depth = text.split('.').count();
        if text.len() <= Self::MAX_LEN && depth <= Self::MAX_DEPTH && text.split('.').all(segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseCapabilityError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capability({})", self.0)
    }
}

impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(text: &str) -> Capability {
        text.parse().unwrap()
    }

    #[test]
    fn ancestors_go_from_special_to_general() {
        let python = capability("code.generation.python");
        let names: Vec<_> = python.with_ancestors().map(|c| c.to_string()).collect();
        assert_eq!(names, ["code.generation.python", "code.generation", "code"]);
        assert_eq!(python.root(), capability("code"));
    }

    #[test]
    fn a_prefix_covers_whole_segments_only() {
        assert!(capability("code").covers(&capability("code.generation")));
        assert!(capability("code").covers(&capability("code")));
        assert!(!capability("code").covers(&capability("codex")));
        assert!(!capability("code.generation").covers(&capability("code")));
    }

    #[test]
    fn malformed_paths_are_refused() {
        for bad in ["", ".", "a.", ".a", "a..b", "A", "a b", "a.b.c.d.e", &"a".repeat(65)] {
            assert!(bad.parse::<Capability>().is_err(), "{bad:?}");
        }
    }
}
