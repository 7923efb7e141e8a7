//! What is known of who can do what: verified profiles, as long as they are fresh, up to a bound.
//!
//! The directory answers a search at once when it already knows enough providers; otherwise it says whom to ask.
//! It is a cache and nothing more: losing an entry costs a question.

use std::collections::BTreeMap;

use crypto::{PeerId, Verified};
use protocol::{Profile, Requirement, Timestamp};

/// Profiles by peer.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    profiles: BTreeMap<PeerId, Verified<Profile>>,
}

impl Directory {
    /// Most profiles kept, at most 32 KiB each and a few hundred bytes as a rule. The one that expires first makes
    /// room, so a flood of newcomers cannot outlive its own lifetime.
    pub const CAPACITY: usize = 1024;

    /// Takes a profile in, unless it is stale or older than what is known. True when it was news.
    pub fn insert(&mut self, now: Timestamp, profile: Verified<Profile>) -> bool {
        let peer = profile.signer();
        let known = self.profiles.get(&peer);
        if !profile.is_fresh(now) || known.is_some_and(|known| known.issued >= profile.issued) {
            return false;
        }
        if known.is_none() && self.profiles.len() >= Self::CAPACITY {
            self.make_room();
        }
        self.profiles.insert(peer, profile);
        true
    }

    /// Fresh profiles that meet the requirement; all fresh ones where there is none.
    pub fn matching(&self, now: Timestamp, requirement: Option<&Requirement>) -> Vec<Verified<Profile>> {
        let meets = |p: &&Verified<Profile>| requirement.is_none_or(|r| p.matching(r).next().is_some());
        self.profiles.values().filter(|p| p.is_fresh(now)).filter(meets).cloned().collect()
    }

    /// True when nothing fresh is known of the peer, so it is worth asking.
    pub fn lacks(&self, now: Timestamp, peer: &PeerId) -> bool {
        !self.profiles.get(peer).is_some_and(|profile| profile.is_fresh(now))
    }

    /// Forgets a peer: it is gone, or has changed.
    pub fn remove(&mut self, peer: &PeerId) {
        self.profiles.remove(peer);
    }

    /// Forgets what has expired.
    pub fn expire(&mut self, now: Timestamp) {
        self.profiles.retain(|_, profile| profile.is_fresh(now));
    }

    fn make_room(&mut self) {
        let first = self.profiles.iter().min_by_key(|(_, p)| p.expires).map(|(peer, _)| *peer);
        if let Some(peer) = first {
            self.profiles.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use crypto::{Network, SecretKey, Signed};
    use protocol::profile::Versions;

    use super::*;

    fn profile(seed: u16, issued: u64, expires: u64) -> Verified<Profile> {
        let mut bytes = [3; 32];
        bytes[..2].copy_from_slice(&seed.to_le_bytes());
        let profile = Profile {
            versions: Versions { min: 1, max: 1 },
            agents: Vec::new(),
            issued: Timestamp(issued),
            expires: Timestamp(expires),
        };
        Signed::sign(&Network::default(), &SecretKey::from_seed(&bytes), profile)
    }

    #[test]
    fn the_newest_profile_counts_and_only_while_fresh() {
        let (mut directory, now) = (Directory::default(), Timestamp(1_000_000));
        assert!(directory.insert(now, profile(1, 1_000_000, 1_100_000)));
        assert!(!directory.insert(now, profile(1, 999_999, 1_200_000)), "older than what is known");
        assert!(!directory.insert(now, profile(2, 900_000, 999_000)), "expired");
        assert!(!directory.insert(now, profile(2, 2_000_000, 2_100_000)), "from the future");
        assert!(!directory.insert(now, profile(2, 1_000_000, 9_000_000)), "wants to live too long");
        assert_eq!(directory.matching(now, None).len(), 1);
        assert!(directory.matching(Timestamp(1_100_000), None).is_empty());
    }

    #[test]
    fn a_flood_is_bounded() {
        let (mut directory, now) = (Directory::default(), Timestamp(1_000_000));
        for seed in 0..=Directory::CAPACITY as u16 + 5 {
            directory.insert(now, profile(seed, 1_000_000, 1_000_001 + u64::from(seed)));
        }
        assert_eq!(directory.matching(now, None).len(), Directory::CAPACITY);
        assert!(directory.lacks(now, &profile(0, 0, 0).signer()), "the first to expire made room");
    }
}
