//! The addresses that a peer was given to find the mesh.
//!
//! Each is dialled until it leads to a peer of this network, with growing pauses, and dialled again when that peer is
//! lost and few others are left. The driver hears of the first failure and of the success, not of every attempt.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

use super::address::Address;
use super::event::{BootstrapFailure, NetEvent};

#[derive(Debug)]
pub(super) struct Bootstraps {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    address: Address,
    state: State,
    /// In a row.
    failures: u32,
    /// The driver knows how it went.
    told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A dial, or a connection whose peer has not said yet who it is.
    Trying(ConnectionId),
    /// It led to this peer.
    Up(PeerId),
    /// To be dialled then.
    Waiting(Instant),
}

impl Bootstraps {
    pub(super) fn new(addresses: Vec<Address>, now: Instant) -> Self {
        let entry = |address| Entry { address, state: State::Waiting(now), failures: 0, told: false };
        Self { entries: addresses.into_iter().map(entry).collect() }
    }

    /// The next address to dial, if one is due. Tell the result to [`dialling`](Self::dialling).
    pub(super) fn due(&self, members: usize, now: Instant) -> Option<(usize, Address)> {
        let due = |entry: &Entry| match entry.state {
            // The first time each address is tried, so that a typing error shows.
            State::Waiting(at) => at <= now && (members < ENOUGH || entry.failures == 0),
            State::Trying(_) | State::Up(_) => false,
        };
        self.entries.iter().position(due).map(|index| (index, self.entries[index].address.clone()))
    }

    pub(super) fn dialling(&mut self, index: usize, connection: ConnectionId) {
        self.entries[index].state = State::Trying(connection);
    }

    /// Not now: a connection to the peer is there or on its way, but it has not said yet who it is.
    pub(super) fn postpone(&mut self, index: usize, now: Instant) {
        self.entries[index].state = State::Waiting(now + FIRST_PAUSE);
    }

    /// Which address a dial belongs to.
    pub(super) fn address(&self, connection: ConnectionId) -> Option<Address> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.state == State::Trying(connection)).map(|entry| entry.address.clone())
    }

    /// A peer turned out to be of this mesh: every address that leads to it has done its work.
    pub(super) fn reached(&mut self, peer: PeerId, connection: Option<ConnectionId>) -> Vec<NetEvent> {
        let Some(name) = super::name(&peer) else { return Vec::new() };
        let leads = |entry: &&mut Entry| {
            let tried = connection.is_some_and(|connection| entry.state == State::Trying(connection));
            entry.state != State::Up(peer) && (tried || entry.address.peer() == Some(name))
        };
        let reached = self.entries.iter_mut().filter(leads).map(|entry| {
            (entry.state, entry.failures, entry.told) = (State::Up(peer), 0, true);
            NetEvent::BootstrapSucceeded { address: entry.address.clone(), peer: name }
        });
        reached.collect()
    }

    /// A dial did not lead into the mesh: told once, tried again later.
    pub(super) fn failed(
        &mut self,
        connection: ConnectionId,
        reason: BootstrapFailure,
        now: Instant,
    ) -> Option<NetEvent> {
        let entry = self.entries.iter_mut().find(|entry| entry.state == State::Trying(connection))?;
        entry.failures += 1;
        entry.state = State::Waiting(now + pause(entry.failures));
        if std::mem::replace(&mut entry.told, true) {
            return None;
        }
        Some(NetEvent::BootstrapFailed { address: entry.address.clone(), reason })
    }

    /// The last connection to a peer is gone.
    pub(super) fn lost(&mut self, peer: PeerId, now: Instant) {
        for entry in self.entries.iter_mut().filter(|entry| entry.state == State::Up(peer)) {
            entry.failures = 1;
            entry.state = State::Waiting(now + pause(1));
        }
    }

    /// True when the peer is one of those that we were given.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.entries.iter().any(|entry| entry.state == State::Up(*peer))
    }
}

/// Doubles with every failure.
fn pause(failures: u32) -> Duration {
    (FIRST_PAUSE * 2_u32.saturating_pow(failures.saturating_sub(1).min(10))).min(LONGEST_PAUSE)
}

/// With this many peers of the mesh around, lost bootstrap peers are not missed.
const ENOUGH: usize = 8;
/// A mesh that starts together needs a second attempt soon.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Bootstraps {
        Bootstraps::new(vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()], Instant::now())
    }

    fn connection(id: usize) -> ConnectionId {
        ConnectionId::new_unchecked(id)
    }

    #[test]
    fn failures_are_told_once_and_retried_with_growing_pauses() {
        let mut bootstraps = one();
        let mut now = Instant::now();
        for attempt in 0..12 {
            let (index, _) = bootstraps.due(0, now).unwrap();
            bootstraps.dialling(index, connection(attempt));
            assert!(bootstraps.due(0, now).is_none());
            let told = bootstraps.failed(connection(attempt), BootstrapFailure::Itself, now);
            assert_eq!(told.is_some(), attempt == 0);
            assert!(bootstraps.due(0, now).is_none());
            now += LONGEST_PAUSE;
        }
    }

    #[test]
    fn a_lost_bootstrap_peer_is_dialled_again_unless_there_are_enough_others() {
        let mut bootstraps = one();
        let (now, peer) =
            (Instant::now(), libp2p::identity::Keypair::generate_ed25519().public().to_peer_id());
        bootstraps.dialling(0, connection(1));
        assert_eq!(bootstraps.reached(peer, Some(connection(1))).len(), 1);
        assert!(bootstraps.contains(&peer));
        bootstraps.lost(peer, now);
        assert!(bootstraps.due(0, now + FIRST_PAUSE).is_some());
        assert!(bootstraps.due(ENOUGH, now + FIRST_PAUSE).is_none());
    }
}
