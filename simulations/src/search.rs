//! From a requirement to profiles, as a driver does it: the directory first, then the index, then the providers.
//!
//! What the directory knows is answered at once; a search that knows nothing looks the key up and asks everybody it
//! finds. The patience is that of `node`, the [`Directory`] is the shipped one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crypto::{PeerId, Verified};
use dht::{Directory, Key};
use protocol::event::QueryId;
use protocol::{Profile, Requirement, Timestamp};

/// Providers taken from one lookup.
pub const WANT: usize = 20;
/// How long a search that has found something waits for others, in milliseconds.
const LINGER: u64 = 250;
/// A search that has found nothing gives up after this, in milliseconds.
const PATIENCE: u64 = 5_500;
/// A key is looked up again after this, in milliseconds, though the directory knows providers.
const REFRESH: u64 = 30_000;

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// A search is over.
    Answer(QueryId, Vec<Verified<Profile>>),
    /// Ask a peer for its profile.
    Fetch(PeerId),
    /// Look a key up; the search's number comes back with the answer.
    Lookup(u64, Key),
}

/// Searches of one host.
#[derive(Debug, Default)]
pub struct Searches {
    directory: Directory,
    open: BTreeMap<u64, Search>,
    looked_up: BTreeMap<Key, Timestamp>,
    fetching: BTreeSet<PeerId>,
    next: u64,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Search {
    /// `None` where the answer was given and the rest only feeds the directory.
    query: Option<QueryId>,
    requirement: Option<Requirement>,
    looking: bool,
    awaited: BTreeSet<PeerId>,
    due: Timestamp,
}

impl Searches {
    /// Begins a search; without a requirement, for anything on offer.
    pub fn begin(&mut self, now: Timestamp, query: QueryId, requirement: Option<Requirement>) {
        let key = requirement.as_ref().map_or_else(Key::root, |r| Key::of(&r.capability));
        let known = self.directory.matching(now, requirement.as_ref());
        let recent = self.looked_up.get(&key).is_some_and(|at| now.since(*at) < REFRESH);
        let answered = !known.is_empty() && (recent || requirement.is_some());
        if answered {
            self.actions.push_back(Action::Answer(query, known));
        }
        if answered && recent {
            return;
        }
        self.next += 1;
        self.looked_up.insert(key, now);
        let query = (!answered).then_some(query);
        let due = now.after(PATIENCE);
        self.open
            .insert(self.next, Search { query, requirement, looking: true, awaited: BTreeSet::new(), due });
        self.actions.push_back(Action::Lookup(self.next, key));
    }

    /// A lookup came back.
    pub fn on_found(&mut self, now: Timestamp, id: u64, providers: Vec<PeerId>) {
        let Some(search) = self.open.get_mut(&id) else { return };
        search.looking = false;
        for peer in providers.into_iter().filter(|peer| self.directory.lacks(now, peer)) {
            search.awaited.insert(peer);
            if self.fetching.insert(peer) {
                self.actions.push_back(Action::Fetch(peer));
            }
        }
        self.settle(now);
    }

    /// A peer told its profile, or did not.
    pub fn on_profile(&mut self, now: Timestamp, peer: PeerId, profile: Option<Verified<Profile>>) {
        self.fetching.remove(&peer);
        if let Some(profile) = profile.filter(|profile| profile.signer() == peer) {
            self.directory.insert(now, profile);
        }
        for search in self.open.values_mut() {
            search.awaited.remove(&peer);
        }
        self.settle(now);
    }

    /// A peer is gone; what it offered is not on offer any more.
    pub fn on_gone(&mut self, peer: &PeerId) {
        self.directory.remove(peer);
    }

    /// Answers what has waited long enough.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.directory.expire(now);
        let due: Vec<_> = self.open.iter().filter(|(_, s)| s.due <= now).map(|(id, _)| *id).collect();
        due.into_iter().for_each(|id| self.end(now, id));
    }

    /// When [`Searches::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.open.values().map(|search| search.due).min()
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Ends searches that have heard from everybody, and hurries those that have found something.
    fn settle(&mut self, now: Timestamp) {
        let mut over = Vec::new();
        for (id, search) in &mut self.open {
            if !search.looking && search.awaited.is_empty() {
                over.push(*id);
            } else if !self.directory.matching(now, search.requirement.as_ref()).is_empty() {
                search.due = search.due.min(now.after(LINGER));
            }
        }
        over.into_iter().for_each(|id| self.end(now, id));
    }

    fn end(&mut self, now: Timestamp, id: u64) {
        let Some(search) = self.open.remove(&id) else { return };
        let found = self.directory.matching(now, search.requirement.as_ref());
        if let Some(query) = search.query {
            self.actions.push_back(Action::Answer(query, found));
        }
    }
}
