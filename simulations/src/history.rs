//! What was said: a running digest over every message, and how much of each kind there was.
//!
//! Two histories with the same digest are the same, byte for byte and millisecond for millisecond. That is what makes
//! a failure found once a failure that can be looked at.

use std::collections::BTreeMap;

use crypto::{Digest, Hasher};
use protocol::{Announcement, Frame, Request, Response, Timestamp};
use serde::Serialize;

use crate::host::HostId;

/// Everything that was sent so far.
#[derive(Clone, Debug)]
pub struct History {
    digest: Digest,
    kinds: BTreeMap<&'static str, Traffic>,
}

/// How many messages, and how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// How many.
    pub messages: u64,
    /// How long in sum, without the transport's own overhead.
    pub bytes: u64,
}

/// A message that has a name in reports.
pub trait Named {
    /// Its kind.
    fn name(&self) -> &'static str;
}

impl History {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { digest: Digest::of("simulation/history", b""), kinds: BTreeMap::new() }
    }

    /// Takes note of a message that leaves now.
    pub fn note(&mut self, now: Timestamp, (from, to): (HostId, HostId), kind: &'static str, bytes: &[u8]) {
        let next = Hasher::new("simulation/history")
            .part(self.digest.as_bytes())
            .part(&now.0.to_le_bytes())
            .part(&from.to_le_bytes())
            .part(&to.to_le_bytes())
            .part(bytes);
        self.digest = next.finish();
        let traffic = self.kinds.entry(kind).or_default();
        traffic.messages += 1;
        traffic.bytes += bytes.len() as u64;
    }

    /// The digest of everything so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How much there was of each kind.
    #[must_use]
    pub fn kinds(&self) -> &BTreeMap<&'static str, Traffic> {
        &self.kinds
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl Named for Announcement {
    fn name(&self) -> &'static str {
        match self {
            Self::Job { .. } => "announcement",
        }
    }
}

impl Named for Request {
    fn name(&self) -> &'static str {
        match self {
            Self::Ask(_) => "ask",
            Self::Bid(_) => "sealed bid",
            Self::Profile => "who are you",
            Self::Counter(_) => "counter",
        }
    }
}

impl Named for Response {
    fn name(&self) -> &'static str {
        match self {
            Self::Bid(_) => "quote",
            Self::Decline(_) => "decline",
            Self::Profile(_) => "profile",
            Self::Received => "noted",
        }
    }
}

impl Named for Frame {
    fn name(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::Cancel { .. } => "cancel",
            Self::Acknowledge { .. } => "acknowledge",
            Self::Probe { .. } => "probe",
            Self::Prompt { .. } => "prompt",
            Self::Progress { .. } => "progress",
            Self::Token { .. } => "token",
            Self::Segment { .. } => "segment",
            Self::Finish { .. } => "finish",
            Self::Fail { .. } => "fail",
        }
    }
}
