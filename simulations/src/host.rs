//! One machine of the simulated mesh: a [`Peer`] and what a driver keeps beside it.
//!
//! A host can die and come back. Its key and its journal are on disk and survive; the peer, its searches, its engine
//! and everything under way are memory and do not. Its clock may be ahead of the world's.

use std::collections::BTreeMap;
use std::fmt;

use crypto::{Network, PeerId, SecretKey};
use protocol::event::{Command, InboundId, Production, QueryId, Run, RunId};
use protocol::peer::Config;
use protocol::{AgentOffer, Entry, Event, JobId, Output, Peer, Profile, Requirement, Timestamp};

use crate::engine::{Engine, Pace};
use crate::search::{Action, Searches};

/// Names a host: its place in the world's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub usize);

/// Names a question on the wire, in the whole world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What survives a crash, and what was planned for the host.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The mesh.
    pub network: Network,
    /// Who it is.
    pub key: SecretKey,
    /// What it offers when it is up.
    pub offers: Vec<AgentOffer>,
    /// How fast its engine is.
    pub pace: Pace,
    /// How far its clock is ahead, in milliseconds.
    pub skew: u64,
    /// Its journal.
    pub journal: Vec<Entry>,
}

/// A machine, up or down.
#[derive(Debug)]
pub struct Host {
    disk: Disk,
    id: PeerId,
    /// How many times it has come up: what was meant for an earlier life does not reach a later one.
    life: u64,
    memory: Option<Memory>,
    /// The earliest wake that is in the world's queue.
    wake: Option<Timestamp>,
}

/// What a crash takes.
#[derive(Debug)]
struct Memory {
    peer: Peer,
    searches: Searches,
    engine: Engine,
    inbound: BTreeMap<InboundId, CallId>,
    next: u64,
}

impl Host {
    /// A host that has not come up yet.
    #[must_use]
    pub fn new(disk: Disk) -> Self {
        Self { id: disk.key.peer_id(), disk, life: 0, memory: None, wake: None }
    }

    /// Comes up, reads its journal, and offers what it has.
    pub fn rise(&mut self, now: Timestamp) {
        let Disk { network, key, offers, pace, journal, .. } = self.disk.clone();
        let mut config = Config::default();
        config.bidder.slots = pace.slots;
        let mut peer = Peer::new(config, network, key);
        journal.iter().for_each(|entry| peer.restore(entry));
        self.life += 1;
        let (searches, engine) = (Searches::default(), Engine::new(pace));
        self.memory = Some(Memory { peer, searches, engine, inbound: BTreeMap::new(), next: 0 });
        if !offers.is_empty() {
            self.handle(now, Event::Command(Command::Offer(offers)));
        }
    }

    /// Dies on the spot.
    pub fn fall(&mut self) {
        self.memory = None;
        self.wake = None;
    }

    /// Who it is.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.id
    }

    /// How many times it has come up.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// True while it is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.memory.is_some()
    }

    /// What it wrote down.
    #[must_use]
    pub fn journal(&self) -> &[Entry] {
        &self.disk.journal
    }

    /// What is on offer here when it is up.
    #[must_use]
    pub fn offers(&self) -> &[AgentOffer] {
        &self.disk.offers
    }

    /// The peer, while it is up.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.memory.as_ref().map(|memory| &memory.peer)
    }

    /// Runs under way or waiting.
    #[must_use]
    pub fn load(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.engine.load())
    }

    /// True while its engine works for this peer: for one job of it, or for any.
    #[must_use]
    pub fn serves(&self, client: PeerId, job: Option<JobId>) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.engine.serves(client, job))
    }

    /// What its clock shows.
    #[must_use]
    pub fn clock(&self, now: Timestamp) -> Timestamp {
        now.after(self.disk.skew)
    }

    /// Something happened to its peer.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        let now = self.clock(now);
        if let Some(memory) = &mut self.memory {
            memory.peer.handle(now, event);
        }
    }

    /// Something that its engine has ready, for its peer to be told. Called until there is nothing more.
    pub fn advance(&mut self, now: Timestamp) -> Option<(RunId, Production)> {
        let now = self.clock(now);
        self.memory.as_mut()?.engine.advance(now)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let now = self.clock(now);
        let Some(memory) = &mut self.memory else { return };
        memory.searches.handle_timeout(now);
        if memory.peer.poll_timeout().is_some_and(|due| due <= now) {
            memory.peer.handle_timeout(now);
        }
    }

    /// When it has something to do by itself, in the world's time.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let memory = self.memory.as_ref()?;
        let due = [memory.peer.poll_timeout(), memory.searches.poll_timeout(), memory.engine.poll_timeout()];
        let due = due.into_iter().flatten().min()?;
        Some(Timestamp(due.0.saturating_sub(self.disk.skew)))
    }

    /// What its peer wants done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.memory.as_mut()?.peer.poll_output()
    }

    /// What its searches want done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.memory.as_mut()?.searches.poll_action()
    }

    /// True when `due` is earlier than any wake in the queue; it is in the queue from now on.
    pub fn arm(&mut self, due: Timestamp) -> bool {
        let earlier = self.wake.is_none_or(|armed| due < armed);
        if earlier {
            self.wake = Some(due);
        }
        earlier
    }

    /// A wake has come; later ones may be armed again.
    pub fn disarm(&mut self, now: Timestamp) {
        if self.wake.is_some_and(|armed| armed <= now) {
            self.wake = None;
        }
    }

    // What its outputs do to itself.

    /// Writes a line of the journal.
    pub fn record(&mut self, entry: Entry) {
        self.disk.journal.push(entry);
    }

    /// Starts an agent.
    pub fn run(&mut self, now: Timestamp, run: &Run) {
        let now = self.clock(now);
        if let Some(memory) = &mut self.memory {
            memory.engine.start(now, run);
        }
    }

    /// Stops an agent.
    pub fn abort(&mut self, now: Timestamp, run: RunId) {
        let now = self.clock(now);
        if let Some(memory) = &mut self.memory {
            memory.engine.abort(now, run);
        }
    }

    /// Begins a search.
    pub fn search(&mut self, now: Timestamp, query: QueryId, requirement: Option<Requirement>) {
        let now = self.clock(now);
        if let Some(memory) = &mut self.memory {
            memory.searches.begin(now, query, requirement);
        }
    }

    /// A lookup came back.
    pub fn on_found(&mut self, now: Timestamp, search: u64, providers: Vec<PeerId>) {
        let now = self.clock(now);
        if let Some(memory) = &mut self.memory {
            memory.searches.on_found(now, search, providers);
        }
    }

    /// A peer told its profile, or did not.
    pub fn on_profile(&mut self, now: Timestamp, peer: PeerId, profile: Option<crypto::Signed<Profile>>) {
        let now = self.clock(now);
        let profile = profile.and_then(|profile| profile.verify(&self.disk.network).ok());
        if let Some(memory) = &mut self.memory {
            memory.searches.on_profile(now, peer, profile);
        }
    }

    /// A peer is out of reach.
    pub fn on_gone(&mut self, peer: &PeerId) {
        if let Some(memory) = &mut self.memory {
            memory.searches.on_gone(peer);
        }
    }

    /// A question came in; names it for the peer.
    pub fn on_call(&mut self, call: CallId) -> Option<InboundId> {
        let memory = self.memory.as_mut()?;
        memory.next += 1;
        memory.inbound.insert(InboundId(memory.next), call);
        Some(InboundId(memory.next))
    }

    /// The question that an answer belongs to.
    pub fn take_call(&mut self, inbound: InboundId) -> Option<CallId> {
        self.memory.as_mut()?.inbound.remove(&inbound)
    }
}

impl HostId {
    /// Its bytes in the history.
    #[must_use]
    pub fn to_le_bytes(self) -> [u8; 8] {
        (self.0 as u64).to_le_bytes()
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h{}", self.0)
    }
}
