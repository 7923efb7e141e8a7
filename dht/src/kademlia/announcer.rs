//! Which keys we announce, and when once more.
//!
//! The behaviour repeats announcements every few minutes, to the peers that it knows then. A peer that has just
//! started knows nobody: its first announcement reaches no one, and it would stay invisible until the next round.
//! So everything is announced again whenever the routing table has doubled since the last time, until it is as wide
//! as a key is replicated. Keys leave in small groups, so that a start does not flood the network.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::kad::{K_VALUE, QueryId, RecordKey};

use super::Kademlia;

/// The keys, and how far their current round has come.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    keys: BTreeSet<[u8; 32]>,
    /// Not announced yet in this round.
    queue: VecDeque<[u8; 32]>,
    running: HashSet<QueryId>,
    /// How many peers the table knew when the last round began.
    known: usize,
    due: Option<Instant>,
}

impl Announcer {
    /// Replaces the set. A key that left it is only forgotten here: on the wire it expires.
    pub(super) fn set(&mut self, kad: &mut Kademlia, keys: Vec<[u8; 32]>) {
        if keys.len() > MAX_KEYS {
            tracing::warn!(
                keys = keys.len(),
                kept = MAX_KEYS,
                "too many capability keys: the rest is not announced"
            );
        }
        let keys: BTreeSet<_> = keys.into_iter().take(MAX_KEYS).collect();
        for gone in self.keys.difference(&keys) {
            kad.stop_providing(&RecordKey::new(gone));
        }
        self.queue.retain(|key| keys.contains(key));
        self.queue.extend(keys.difference(&self.keys));
        self.keys = keys;
        self.known = self.known.max(super::table_size(kad));
        self.advance(kad);
    }

    /// A round is due soon. Several reasons within a moment make one round.
    pub(super) fn again(&mut self, now: Instant) {
        self.due = Some(self.due.unwrap_or(now + SETTLING));
    }

    /// The table knows `size` peers now.
    pub(super) fn table_grew(&mut self, size: usize, now: Instant) {
        if self.known < K_VALUE.get() && size >= (2 * self.known).max(1) {
            self.again(now);
        }
    }

    /// Begins the round that is due, once there is anybody to announce to.
    pub(super) fn handle_timeout(&mut self, kad: &mut Kademlia, now: Instant) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let table_size = super::table_size(kad);
        if table_size == 0 {
            return;
        }
        self.due = None;
        self.known = table_size;
        self.queue = self.keys.iter().copied().collect();
        self.advance(kad);
    }

    pub(super) fn finished(&mut self, kad: &mut Kademlia, query: QueryId) {
        self.running.remove(&query);
        self.advance(kad);
    }

    /// Keeps a few announcements on the way.
    fn advance(&mut self, kad: &mut Kademlia) {
        while self.running.len() < MAX_RUNNING
            && let Some(key) = self.queue.pop_front()
        {
            match kad.start_providing(RecordKey::new(&key)) {
                Ok(query) => _ = self.running.insert(query),
                Err(error) => tracing::warn!(%error, "a capability key could not be announced"),
            }
        }
    }
}

/// 16 capabilities × 4 levels × 16 depths of sharding fit twice.
const MAX_KEYS: usize = 2048;
/// Announcements on the way at once: each talks to some twenty peers.
const MAX_RUNNING: usize = 8;
/// Peers come in groups; one round serves all of them.
const SETTLING: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use libp2p::{PeerId, StreamProtocol};

    use super::*;

    fn kad() -> Kademlia {
        super::super::kademlia(PeerId::random(), StreamProtocol::new("/llamesh/test/kad/1"))
    }

    fn acquaint(kad: &mut Kademlia) {
        kad.add_address(&PeerId::random(), "/ip4/127.0.0.1/tcp/1".parse().unwrap());
    }

    #[test]
    fn announcements_leave_in_small_groups() {
        let (mut kad, mut announcer) = (kad(), Announcer::default());
        acquaint(&mut kad);
        announcer.set(&mut kad, (0..64).map(|n| [n; 32]).collect());
        assert_eq!(kad.iter_queries().count(), MAX_RUNNING);
        let first = *announcer.running.iter().next().unwrap();
        announcer.finished(&mut kad, first);
        assert_eq!(announcer.running.len(), MAX_RUNNING);
        assert_eq!(announcer.queue.len(), 64 - MAX_RUNNING - 1);
    }

    #[test]
    fn what_was_announced_to_nobody_is_announced_again() {
        let (mut kad, mut announcer) = (kad(), Announcer::default());
        let now = Instant::now();
        announcer.set(&mut kad, vec![[1; 32]]);
        let lonely: Vec<_> = announcer.running.iter().copied().collect();
        lonely.into_iter().for_each(|query| announcer.finished(&mut kad, query));
        acquaint(&mut kad);
        announcer.table_grew(1, now);
        announcer.handle_timeout(&mut kad, now + SETTLING);
        assert_eq!(announcer.running.len(), 1);
    }

    #[test]
    fn a_wide_table_causes_no_more_rounds() {
        let mut announcer = Announcer { known: K_VALUE.get(), ..Announcer::default() };
        announcer.table_grew(1000, Instant::now());
        assert_eq!(announcer.due, None);
    }

    #[test]
    fn a_key_that_left_the_set_is_no_longer_provided() {
        let (mut kad, mut announcer) = (kad(), Announcer::default());
        announcer.set(&mut kad, vec![[1; 32], [2; 32]]);
        announcer.set(&mut kad, vec![[2; 32]]);
        assert_eq!(kad.store_mut().own_keys(), vec![RecordKey::new(&[2; 32])]);
    }
}
