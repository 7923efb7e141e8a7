//! What is known of other peers: counts of facts, never opinions.
//!
//! Every machine reports what it saw as [`Evidence`]; here it is only counted. Two questions are answered: may this
//! peer still talk to us ([`Reputation::observe`] says when not), and how many faults does it have (the tie-breaker
//! between equal bids). Newcomers and strangers start at nothing, so a new key buys nothing but a new start.

#![deny(clippy::float_arithmetic)]

use std::collections::BTreeMap;

use crypto::PeerId;
use serde::{Deserialize, Serialize};

use crate::DecodeError;

/// One fact about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Evidence {
    /// A commitment that does not follow from the tokens.
    BadCommitment,
    /// A receipt that does not match the order or the stream.
    BadReceipt,
    /// A statement with a wrong signature, signer, kind or network.
    BadSignature,
    /// An order or bid that was no longer, or not yet, valid.
    Expired,
    /// A job done and receipted.
    Delivered,
    /// Bytes that do not decode.
    Malformed,
    /// A message over its cap.
    OverCap,
    /// A lease that was not honoured.
    BrokenLease,
    /// A statement that was presented twice.
    Replayed,
    /// A token index left out or repeated.
    SkippedIndex,
    /// Silence in mid-job.
    Stalled,
    /// A frame that makes no sense where it came.
    Unexpected,
    /// A version that we do not speak.
    UnknownVersion,
    /// No answer to a question.
    Unreachable,
    /// A stream that broke in mid-job.
    Vanished,
}

impl Evidence {
    /// How many of these are forgiven before the peer is blocked; `None`: any number, it may be the network's fault.
    ///
    /// One proof of dishonesty is too many; sloppiness is forgiven a little, as builds differ and packets get lost;
    /// what a slow clock, a full server or a bad line also cause only ranks a peer behind others.
    const fn tolerance(self) -> Option<u32> {
        match self {
            Self::BadCommitment | Self::BadReceipt | Self::BadSignature | Self::SkippedIndex => Some(0),
            Self::Malformed | Self::OverCap | Self::Replayed | Self::Unexpected | Self::UnknownVersion => {
                Some(7)
            }
            Self::BrokenLease
            | Self::Delivered
            | Self::Expired
            | Self::Stalled
            | Self::Unreachable
            | Self::Vanished => None,
        }
    }
}

impl From<DecodeError> for Evidence {
    /// What bytes that do not decode say of their sender.
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Malformed => Self::Malformed,
            DecodeError::OverCap => Self::OverCap,
            DecodeError::UnknownVersion(_) => Self::UnknownVersion,
        }
    }
}

/// Counts of evidence by peer, for a bounded number of peers.
#[derive(Clone, Debug, Default)]
pub struct Reputation {
    peers: BTreeMap<PeerId, BTreeMap<Evidence, u32>>,
}

impl Reputation {
    /// Most peers remembered. A stranger can make a key for nothing, so the map must not grow with strangers; the
    /// one with the fewest facts makes room.
    pub const MAX_PEERS: usize = 4096;

    /// Counts a fact. True when the peer has just used up its tolerance and is to be blocked.
    pub fn observe(&mut self, peer: PeerId, evidence: Evidence) -> bool {
        if !self.peers.contains_key(&peer) && self.peers.len() >= Self::MAX_PEERS {
            self.forget_least_known();
        }
        let count = self.peers.entry(peer).or_default().entry(evidence).or_default();
        *count = count.saturating_add(1);
        evidence.tolerance().is_some_and(|tolerance| *count == tolerance + 1)
    }

    /// Facts against a peer.
    pub fn faults(&self, peer: &PeerId) -> u32 {
        let counts = self.peers.get(peer).into_iter().flatten();
        counts.filter(|(e, _)| **e != Evidence::Delivered).fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }

    /// True when a peer has used up its tolerance for any kind of fault.
    pub fn is_blocked(&self, peer: &PeerId) -> bool {
        let mut counts = self.peers.get(peer).into_iter().flatten();
        counts.any(|(evidence, n)| evidence.tolerance().is_some_and(|tolerance| *n > tolerance))
    }

    /// All counts of one peer.
    pub fn counts(&self, peer: &PeerId) -> impl Iterator<Item = (Evidence, u32)> {
        self.peers.get(peer).into_iter().flatten().map(|(evidence, n)| (*evidence, *n))
    }

    /// Everybody of whom something is known.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys().copied()
    }

    fn forget_least_known(&mut self) {
        let weight = |counts: &BTreeMap<Evidence, u32>| counts.values().map(|n| u64::from(*n)).sum::<u64>();
        let blocked = |peer: &PeerId| self.is_blocked(peer);
        let least = self.peers.iter().min_by_key(|(peer, counts)| (blocked(peer), weight(counts)));
        if let Some(peer) = least.map(|(peer, _)| *peer) {
            self.peers.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(seed: u16) -> PeerId {
        let mut bytes = [9; 32];
        bytes[..2].copy_from_slice(&seed.to_le_bytes());
        crypto::SecretKey::from_seed(&bytes).peer_id()
    }

    #[test]
    fn one_forgery_blocks_and_sloppiness_is_forgiven_a_little() {
        let mut reputation = Reputation::default();
        assert!(reputation.observe(peer(1), Evidence::BadSignature));
        assert!(reputation.is_blocked(&peer(1)));
        let blocked: Vec<_> = (0..9).map(|_| reputation.observe(peer(2), Evidence::Malformed)).collect();
        assert_eq!(blocked.iter().filter(|b| **b).count(), 1, "blocked once, not again and again");
        assert!((0..1000).all(|_| !reputation.observe(peer(3), Evidence::Vanished)));
    }

    #[test]
    fn strangers_do_not_make_it_forget_who_was_blocked() {
        let mut reputation = Reputation::default();
        reputation.observe(peer(0), Evidence::BadReceipt);
        for seed in 1..=(Reputation::MAX_PEERS as u16 + 10) {
            reputation.observe(peer(seed), Evidence::Delivered);
        }
        assert!(reputation.peers().count() <= Reputation::MAX_PEERS);
        assert!(reputation.is_blocked(&peer(0)));
    }
}
