//! Which connections to give up when there are too many.
//!
//! gossipsub's streams keep every connection open for ever, and Kademlia meets everybody once. So above a high-water
//! mark the least useful connections are closed down to a low-water mark. Never those that carry a session, a request
//! or the broadcast mesh, those to our nearest neighbours in the table, and those that are still young: closing what
//! is about to be used again costs more than it saves.

use std::time::Duration;

use libp2p::PeerId;

/// A connected peer as the pruner sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) peer: PeerId,
    pub(super) connected_for: Duration,
    /// It carries something, or holds our table together.
    pub(super) needed: bool,
}

/// The peers to disconnect: none up to [`HIGH_WATER`], else the longest connected of those that are not needed, as
/// many as [`LOW_WATER`] asks for. Who is connected longest has had most time to become needed.
pub(super) fn surplus(mut candidates: Vec<Candidate>) -> Vec<PeerId> {
    if candidates.len() <= HIGH_WATER {
        return Vec::new();
    }
    let excess = candidates.len() - LOW_WATER;
    candidates.retain(|candidate| !candidate.needed && candidate.connected_for >= MIN_AGE);
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.connected_for));
    candidates.into_iter().take(excess).map(|candidate| candidate.peer).collect()
}

/// Connections cost some 80 KiB each: this many keep an idle peer small.
pub(super) const HIGH_WATER: usize = 96;
pub(super) const LOW_WATER: usize = 64;
/// Younger connections are left alone.
pub(super) const MIN_AGE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(count: usize, needed: bool, age: Duration) -> Vec<Candidate> {
        (0..count).map(|_| Candidate { peer: PeerId::random(), connected_for: age, needed }).collect()
    }

    #[test]
    fn nobody_leaves_below_the_high_water_mark() {
        assert!(surplus(crowd(HIGH_WATER, false, MIN_AGE)).is_empty());
        assert_eq!(surplus(crowd(HIGH_WATER + 1, false, MIN_AGE)).len(), HIGH_WATER + 1 - LOW_WATER);
    }

    #[test]
    fn needed_and_young_connections_stay() {
        let crowd =
            [crowd(90, true, MIN_AGE), crowd(20, false, Duration::ZERO), crowd(5, false, MIN_AGE)].concat();
        let leaving = surplus(crowd.clone());
        assert_eq!(leaving, crowd[110..].iter().map(|candidate| candidate.peer).collect::<Vec<_>>());
    }
}
