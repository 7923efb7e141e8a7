//! How much of this peer all clients together may take, each bound with its reason.

use std::time::Duration;

/// The bounds of the local API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once. More than requests, so that whoever is one too many is told so, and short of the 1024 files
    /// that a process has by default, of which the mesh needs some.
    pub connections: usize,
    /// Requests at work at once: what a few hundred streams need.
    pub requests: usize,
    /// Bytes of a body: the largest input as JSON, with every character escaped.
    pub body: usize,
    /// Bytes of all bodies that are being read. A body that does not say its length counts as a whole one.
    pub bodies: usize,
    /// How long the head of a request may take, and how long a connection may wait for its next one.
    pub head_time: Duration,
    /// How long a body may take.
    pub body_time: Duration,
    /// How long a client may leave what was written to it unread. Then its connection ends, and its jobs with it.
    pub stall: Duration,
    /// Bytes for a client that the system holds: what somebody who never reads costs.
    pub send_buffer: u32,
}

impl Bounds {
    /// Headers of a request.
    pub const HEADERS: usize = 64;
    /// Bytes of a request's head: a key, some dozens of a client's own headers, and a long path.
    pub const HEAD: usize = 32 << 10;
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 832,
            requests: 704,
            body: 8 << 20,
            bodies: 128 << 20,
            head_time: Duration::from_secs(30),
            body_time: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            send_buffer: 256 << 10,
        }
    }
}
