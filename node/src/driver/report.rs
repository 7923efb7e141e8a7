//! What is told of a peer to whoever asks: whom it knows, and what its books say.

use std::collections::BTreeMap;

use crypto::PeerId;
use protocol::Timestamp;

use super::Driver;
use crate::handle::KnownPeer;
use crate::metrics::reading::Books;

impl Driver {
    pub(super) fn books(&self) -> Books {
        let runs = self.state.runs.values().filter(|run| !run.is_finished()).count();
        Books::of(&self.peer, self.agents.offers().len()).with(self.state.jobs.open(), runs)
    }

    pub(super) fn known(&self, now: Timestamp) -> Vec<KnownPeer> {
        let profiles: BTreeMap<_, _> =
            self.discovery.profiles(now).into_iter().map(|profile| (profile.signer(), profile)).collect();
        let reputation = self.peer.reputation();
        let accounts = self.peer.ledger().accounts().map(|(peer, _)| peer);
        let mut peers: Vec<PeerId> =
            reputation.peers().chain(accounts).chain(profiles.keys().copied()).collect();
        peers.sort_unstable();
        peers.dedup();
        let known = |peer| KnownPeer {
            peer,
            profile: profiles.get(&peer).cloned(),
            evidence: reputation.counts(&peer).collect(),
            account: self.peer.ledger().account(&peer),
        };
        peers.into_iter().map(known).collect()
    }
}
