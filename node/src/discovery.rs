//! From a requirement to profiles: the directory first, then the DHT, then the providers themselves.
//!
//! What the directory knows is answered at once and refreshed behind the answer's back; only a search that knows
//! nothing waits. Peers that we are connected to are asked as well: a young mesh's DHT may not have heard of them.
//! The driver owns this, tells it what came back, and performs what it [`Discovery::poll`]s.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crypto::{Network, PeerId, Signed, Verified};
use dht::{Directory, Key};
use protocol::event::QueryId;
use protocol::{Evidence, Profile, Requirement, Response, Timestamp};
use tokio::sync::oneshot;

/// Providers asked for in one search.
pub(crate) const WANT: usize = 20;
/// Connected peers asked in one search beside those that the DHT names.
const NEIGHBOURS: usize = 16;
/// Connected peers remembered.
const MAX_NEIGHBOURS: usize = 256;
/// Searches and questions under way; more are answered from the directory alone.
const MAX_SEARCHES: usize = 256;
/// How long a search that has found something waits for others, in milliseconds.
const LINGER: u64 = 250;
/// A search that has found nothing gives up after this, in milliseconds.
const PATIENCE: u64 = 5_500;
/// A capability is looked up again after this, in milliseconds, though the directory knows providers.
const REFRESH: u64 = 30_000;

/// To whom a search's answer goes.
#[derive(Debug)]
pub(crate) enum Asker {
    /// The peer machine.
    Peer(QueryId),
    /// The user.
    User(oneshot::Sender<Vec<Verified<Profile>>>),
}

/// What the driver is to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// A search is over.
    Answer(Asker, Vec<Verified<Profile>>),
    /// Ask a peer for its profile; the number comes back with the answer.
    Fetch(u64, PeerId),
    /// Look a key up; the number comes back with the answer.
    Lookup(u64, Key),
}

/// Searches under way, and what they found.
#[derive(Debug)]
pub(crate) struct Discovery {
    network: Network,
    directory: Directory,
    neighbours: BTreeSet<PeerId>,
    searches: BTreeMap<u64, Search>,
    /// Profile requests under way.
    fetching: BTreeMap<u64, PeerId>,
    /// When each key was last looked up; bounded by the capabilities that local users ask for.
    looked_up: BTreeMap<Key, Timestamp>,
    next: u64,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Search {
    /// `None` once answered: the rest only feeds the directory.
    asker: Option<Asker>,
    requirement: Option<Requirement>,
    looking: bool,
    /// Peers whose profiles are awaited.
    awaited: BTreeSet<PeerId>,
    due: Timestamp,
}

impl Discovery {
    pub(crate) fn new(network: Network) -> Self {
        Self {
            network,
            directory: Directory::default(),
            neighbours: BTreeSet::new(),
            searches: BTreeMap::new(),
            fetching: BTreeMap::new(),
            looked_up: BTreeMap::new(),
            next: 0,
            actions: VecDeque::new(),
        }
    }

    /// Begins a search; without a requirement, for anything on offer. Who could be served `here` does not wait long for
    /// others, and not at all where there are none.
    pub(crate) fn search(
        &mut self,
        now: Timestamp,
        asker: Asker,
        requirement: Option<Requirement>,
        here: bool,
    ) {
        let key = requirement.as_ref().map_or_else(Key::root, |r| Key::of(&r.capability));
        let known = self.directory.matching(now, requirement.as_ref());
        let recent = self.looked_up.get(&key).is_some_and(|at| now.since(*at) < REFRESH);
        let full = self.searches.len() >= MAX_SEARCHES;
        let alone = here && self.neighbours.is_empty();
        if full || alone || (!known.is_empty() && recent) {
            return self.actions.push_back(Action::Answer(asker, known));
        }
        // A sample of everything is worth waiting for; a provider that is known need not wait for others.
        let asker = if known.is_empty() || requirement.is_none() {
            Some(asker)
        } else {
            self.actions.push_back(Action::Answer(asker, known));
            None
        };
        let id = self.fresh();
        self.looked_up.insert(key, now);
        let due = now.after(if here { LINGER } else { PATIENCE });
        self.searches.insert(id, Search { asker, requirement, looking: true, awaited: BTreeSet::new(), due });
        self.actions.push_back(Action::Lookup(id, key));
        let neighbours: Vec<_> = self.neighbours.iter().copied().take(NEIGHBOURS).collect();
        self.fetch(now, Some(id), neighbours);
    }

    /// A lookup came back.
    pub(crate) fn on_found(&mut self, now: Timestamp, id: u64, providers: Vec<PeerId>) {
        if let Some(search) = self.searches.get_mut(&id) {
            search.looking = false;
            self.fetch(now, Some(id), providers);
            self.settle(now);
        }
    }

    /// A peer told its profile, or did not. Returns what is to be held against it.
    pub(crate) fn on_profile(
        &mut self,
        now: Timestamp,
        id: u64,
        profile: Option<Signed<Profile>>,
    ) -> Option<Evidence> {
        let peer = self.fetching.remove(&id)?;
        let claimed =
            profile.map(|profile| profile.verify(&self.network).ok().filter(|p| p.signer() == peer));
        let forged = claimed == Some(None);
        if let Some(profile) = claimed.flatten() {
            self.directory.insert(now, profile);
        }
        for search in self.searches.values_mut() {
            search.awaited.remove(&peer);
        }
        self.settle(now);
        forged.then_some(Evidence::BadSignature)
    }

    pub(crate) fn on_connected(&mut self, now: Timestamp, peer: PeerId) {
        if self.neighbours.len() < MAX_NEIGHBOURS {
            self.neighbours.insert(peer);
        }
        self.fetch(now, None, vec![peer]);
    }

    /// A peer is gone; what it offered is not on offer any more.
    pub(crate) fn on_disconnected(&mut self, peer: &PeerId) {
        self.neighbours.remove(peer);
        self.directory.remove(peer);
    }

    /// Answers what has waited long enough.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        self.directory.expire(now);
        let due: Vec<_> = self.searches.iter().filter(|(_, s)| s.due <= now).map(|(id, _)| *id).collect();
        for id in due {
            self.answer(now, id);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.searches.values().map(|search| search.due).min()
    }

    pub(crate) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The fresh profile of one peer.
    pub(crate) fn profiles(&self, now: Timestamp) -> Vec<Verified<Profile>> {
        self.directory.matching(now, None)
    }

    fn fetch(&mut self, now: Timestamp, search: Option<u64>, peers: Vec<PeerId>) {
        for peer in peers {
            if !self.directory.lacks(now, &peer) {
                continue;
            }
            if let Some(search) = search.and_then(|id| self.searches.get_mut(&id)) {
                search.awaited.insert(peer);
            }
            let asked = self.fetching.values().any(|fetching| *fetching == peer);
            if !asked && self.fetching.len() < MAX_SEARCHES {
                let id = self.fresh();
                self.fetching.insert(id, peer);
                self.actions.push_back(Action::Fetch(id, peer));
            }
        }
    }

    /// Ends searches that have heard from everybody, and hurries those that have found something.
    fn settle(&mut self, now: Timestamp) {
        let mut over = Vec::new();
        for (id, search) in &mut self.searches {
            if !search.looking && search.awaited.is_empty() {
                over.push(*id);
            } else if !self.directory.matching(now, search.requirement.as_ref()).is_empty() {
                search.due = search.due.min(now.after(LINGER));
            }
        }
        for id in over {
            self.answer(now, id);
        }
    }

    fn answer(&mut self, now: Timestamp, id: u64) {
        let Some(search) = self.searches.remove(&id) else { return };
        let found = self.directory.matching(now, search.requirement.as_ref());
        if let Some(asker) = search.asker {
            self.actions.push_back(Action::Answer(asker, found));
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// The profile in a response, if that is what it is.
pub(crate) fn profile_of(response: Option<Response>) -> Option<Signed<Profile>> {
    match response {
        Some(Response::Profile(profile)) => Some(profile),
        _ => None,
    }
}
