//! What `peers` and `doctor` show: the network at one moment, in plain data.

use std::time::Duration;

use crypto::PeerId;

use super::address::{Address, Transport};

/// The network at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Ourselves.
    pub me: PeerId,
    /// What we listen on.
    pub listening: Vec<Address>,
    /// What we tell others.
    pub advertised: Vec<Address>,
    /// True when we keep records for others; false when we only ask.
    pub serves_lookups: bool,
    /// How many peers the routing table knows, connected or not.
    pub routing_table: usize,
    /// Sessions, both ways.
    pub sessions: usize,
    /// Who is connected.
    pub peers: Vec<PeerInfo>,
    /// The last failed dials, the newest first.
    pub dial_errors: Vec<DialFailure>,
}

/// A connected peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Who.
    pub peer: PeerId,
    /// Where, as seen from here.
    pub address: Address,
    /// What carries the bytes.
    pub transport: Transport,
    /// Who dialled.
    pub direction: Direction,
    /// The last round trip, once measured.
    pub rtt: Option<Duration>,
    /// What it says it runs. Its own words, shortened and without control characters.
    pub agent: Option<String>,
    /// For how long.
    pub connected_for: Duration,
}

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// They.
    Inbound,
    /// We.
    Outbound,
}

/// A dial that failed.
#[derive(Clone, Debug)]
pub struct DialFailure {
    /// Whom we tried to reach, when known.
    pub peer: Option<PeerId>,
    /// Where, when an address was tried at all.
    pub address: Option<Address>,
    /// What went wrong.
    pub error: String,
    /// How long ago.
    pub age: Duration,
}
