//! The world: hosts, wires, a clock that jumps from one thing to the next, and a queue of what is to come.
//!
//! Everything in the queue has a time and a sequence number, so what falls on the same millisecond happens in the
//! order in which it was caused, and a history is a function of scenario and seed. After each thing that happens to a
//! host, all that its peer wants done is done at once and in order, exactly as `node`'s driver does it (`perform`).

mod birth;
mod fault;
mod perform;

use std::collections::{BTreeMap, BTreeSet};

use crypto::{Network, PeerId};
use dht::Key;
use protocol::event::{Command, RequestId, Side, Submission};
use protocol::{Announcement, Event, Frame, Message, Request, Response, Timestamp};

use crate::chance::Chance;
use crate::history::History;
use crate::host::{CallId, Host, HostId};
use crate::invariant::{Violation, Watch};
use crate::job::{End, Job, Jobs};
use crate::link::Links;
use crate::report::{Measured, Report};
use crate::scenario::{Fault, Scenario};
use crate::stream::{StreamId, Streams};

/// When every world begins: an ordinary Tuesday, so that times look like times.
pub const BEGINNING: Timestamp = Timestamp(1_700_000_000_000);
/// Things that may happen in one history. Far more than any scenario has: a world that gets here is stuck.
const MAX_HAPPENINGS: u64 = 200_000_000;

/// One history in the making.
#[derive(Debug)]
pub struct World<'a> {
    scenario: &'a Scenario,
    seed: u64,
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    sequence: u64,
    happened: u64,
    hosts: Vec<Host>,
    names: BTreeMap<PeerId, HostId>,
    groups: BTreeMap<&'a str, Vec<HostId>>,
    links: Links,
    streams: Streams,
    fuses: BTreeMap<HostId, Fuse>,
    calls: BTreeMap<CallId, Call>,
    /// What the DHT knows: providers by key. Who dies stays in it, as provider records do.
    index: BTreeMap<Key, BTreeSet<HostId>>,
    jobs: Jobs,
    chance: Chance,
    watch: Watch,
    history: History,
}

/// What is to come.
#[derive(Debug)]
enum Happening {
    /// Gossip arrives.
    Announced { from: HostId, to: HostId, bytes: Vec<u8> },
    /// A question arrives.
    Asked { call: CallId, bytes: Vec<u8> },
    /// The answer to a question arrives, or the news that there is none.
    Answered { call: CallId, bytes: Option<Vec<u8>> },
    /// The submitter of a job gives up.
    Cancel { host: HostId, job: protocol::JobId },
    /// Something goes wrong.
    Fault(usize),
    /// A lookup comes back.
    Found { host: HostId, life: u64, search: u64, key: Key },
    /// A frame arrives at one end of a stream.
    Frame { stream: StreamId, to: Side, bytes: Vec<u8> },
    /// A cut is mended.
    Heal(usize),
    /// An end of a stream learns that the stream is broken.
    Lost { stream: StreamId, side: Side },
    /// The index learns what a host provides.
    Published { host: HostId, life: u64, keys: BTreeSet<Key> },
    /// A host comes up.
    Rise(HostId),
    /// A stream has been silent for as long as a transport waits.
    Silent(StreamId),
    /// A job of a batch is submitted.
    Submit(usize),
    /// A host has something to do by itself.
    Wake(HostId),
}

/// A host that is going to die in the middle of what it does.
#[derive(Clone, Copy, Debug)]
struct Fuse {
    /// Outputs that it will still perform.
    left: u64,
    back_after: Option<u64>,
}

/// A question under way.
#[derive(Debug)]
struct Call {
    asker: HostId,
    life: u64,
    to: HostId,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// The peer machine asked.
    Peer(RequestId),
    /// The searches want a profile.
    Profile,
}

impl World<'_> {
    /// Lets everything happen, and reports.
    #[must_use]
    pub fn run(mut self) -> Report {
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            self.now = at;
            self.happened += 1;
            if self.happened > MAX_HAPPENINGS {
                self.watch.report(at, Violation::Restless);
                break;
            }
            self.happen(happening);
        }
        self.watch.on_quiet(self.now, &self.hosts, &self.jobs);
        self.report()
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Announced { from, to, bytes } => self.on_announced(from, to, &bytes),
            Happening::Asked { call, bytes } => self.on_asked(call, &bytes),
            Happening::Answered { call, bytes } => self.on_answered(call, bytes),
            Happening::Cancel { host, job } => self.tell(host, Event::Command(Command::Cancel { job })),
            Happening::Fault(index) => self.on_fault(index),
            Happening::Found { host, life, search, key } => self.on_found(host, life, search, key),
            Happening::Frame { stream, to, bytes } => self.on_frame(stream, to, &bytes),
            Happening::Heal(index) => self.on_heal(index),
            Happening::Lost { stream, side } => self.on_lost(stream, side),
            Happening::Published { host, life, keys } => self.on_published(host, life, keys),
            Happening::Rise(host) => self.on_rise(host),
            Happening::Silent(stream) => self.on_silent(stream),
            Happening::Submit(batch) => self.on_submit(batch),
            Happening::Wake(host) => self.on_wake(host),
        }
    }

    /// Puts something in the queue.
    fn later(&mut self, at: Timestamp, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    /// Something happens to a host's peer, and all that follows from it here and now.
    fn tell(&mut self, host: HostId, event: Event) {
        let now = self.now;
        self.hosts[host.0].handle(now, event);
        self.settle(host);
    }

    fn on_announced(&mut self, from: HostId, to: HostId, bytes: &[u8]) {
        if let Some(announcement) = self.read::<Announcement>(from, bytes) {
            let from = self.hosts[from.0].peer_id();
            self.tell(to, Event::Announced { from, announcement });
        }
    }

    fn on_asked(&mut self, id: CallId, bytes: &[u8]) {
        let Some(Call { asker, to, .. }) = self.calls.get(&id) else { return };
        let (asker, to) = (*asker, *to);
        let Some(inbound) = self.hosts[to.0].on_call(id) else {
            // Nobody listens there: the asker's machine is told so.
            return self.answer(id, to, asker, None);
        };
        if let Some(request) = self.read::<Request>(asker, bytes) {
            let from = self.hosts[asker.0].peer_id();
            self.tell(to, Event::Request { from, inbound, request });
        }
    }

    fn on_answered(&mut self, id: CallId, bytes: Option<Vec<u8>>) {
        let Some(Call { asker, life, to, purpose }) = self.calls.remove(&id) else { return };
        if self.hosts[asker.0].life() != life || !self.hosts[asker.0].is_up() {
            return;
        }
        let answer = bytes.and_then(|bytes| self.read::<Response>(to, &bytes));
        let (now, from) = (self.now, self.hosts[to.0].peer_id());
        if answer.is_none() {
            self.hosts[asker.0].on_gone(&from);
        }
        match (purpose, answer) {
            (Purpose::Peer(id), answer) => self.tell(asker, Event::Answer { id, from, answer }),
            (Purpose::Profile, answer) => {
                let profile =
                    if let Some(Response::Profile(profile)) = answer { Some(profile) } else { None };
                self.hosts[asker.0].on_profile(now, from, profile);
                self.settle(asker);
            }
        }
    }

    fn on_found(&mut self, host: HostId, life: u64, search: u64, key: Key) {
        if self.hosts[host.0].life() != life {
            return;
        }
        let providers = self.index.get(&key).into_iter().flatten().copied();
        let providers: Vec<_> = providers.filter(|provider| *provider != host).collect();
        let drawn = self.chance.sample(providers, crate::search::WANT);
        let drawn = drawn.into_iter().map(|provider| self.hosts[provider.0].peer_id()).collect();
        let now = self.now;
        self.hosts[host.0].on_found(now, search, drawn);
        self.settle(host);
    }

    fn on_frame(&mut self, stream: StreamId, to: Side, bytes: &[u8]) {
        let Some(from) = self.streams.find(stream).map(|stream| stream.host(to.opposite())) else {
            return self.lose(bytes);
        };
        let Some(host) = self.streams.find(stream).map(|stream| stream.host(to)) else { return };
        if !self.streams.is_open(stream, to) {
            return self.lose(bytes);
        }
        if !self.hosts[host.0].is_up() {
            // Nobody listens there: the opener's machine is told so.
            self.lose(bytes);
            self.streams.close(stream, to);
            return self.break_later(stream, to.opposite());
        }
        if let Some(frame) = self.read::<Frame>(from, bytes) {
            let from = self.hosts[from.0].peer_id();
            let cancelled = if let Frame::Cancel { job } = frame { Some(job) } else { None };
            self.tell(host, Event::Frame { from, side: to, frame });
            if cancelled.is_some() {
                self.watch.on_released(self.now, (host, &self.hosts[host.0]), from, cancelled);
            }
        }
    }

    fn on_lost(&mut self, stream: StreamId, side: Side) {
        let ends = self.streams.find(stream).map(|stream| (stream.host(side), stream.host(side.opposite())));
        let Some((host, other)) = ends else { return };
        if self.streams.close(stream, side) {
            let peer = self.hosts[other.0].peer_id();
            self.hosts[host.0].on_gone(&peer);
            self.tell(host, Event::Lost { peer, side });
            if side == Side::Provider {
                self.watch.on_released(self.now, (host, &self.hosts[host.0]), peer, None);
            }
        }
    }

    fn on_published(&mut self, host: HostId, life: u64, keys: BTreeSet<Key>) {
        if self.hosts[host.0].life() == life {
            self.index.values_mut().for_each(|providers| {
                providers.remove(&host);
            });
            keys.into_iter().for_each(|key| {
                self.index.entry(key).or_default().insert(host);
            });
        }
    }

    fn on_rise(&mut self, host: HostId) {
        let now = self.now;
        self.hosts[host.0].rise(now);
        self.settle(host);
    }

    /// Whoever is up may be the one who asks; a batch whose group is down asks for nothing.
    fn on_submit(&mut self, index: usize) {
        let batch = &self.scenario.jobs[index];
        let up: Vec<_> = self.groups[batch.by.as_str()].clone();
        let up: Vec<_> = up.into_iter().filter(|host| self.hosts[host.0].is_up()).collect();
        let Some(host) = self.chance.sample(up, 1).pop() else { return };
        let clock = self.hosts[host.0].clock(self.now);
        let submission: Submission = batch.draw(&mut self.chance, clock);
        let job = submission.job;
        self.jobs.insert(job, Job::new(host, submission.spec.clone(), self.now));
        if let Some(after) = batch.cancel_after {
            self.later(self.now.after(after), Happening::Cancel { host, job });
        }
        self.tell(host, Event::Command(Command::Submit(Box::new(submission))));
    }

    /// The engine first: what it has ready may be what a deadline is waiting for.
    fn on_wake(&mut self, host: HostId) {
        let now = self.now;
        self.hosts[host.0].disarm(now);
        while let Some((run, production)) = self.hosts[host.0].advance(now) {
            self.tell(host, Event::Produced { run, production });
        }
        self.hosts[host.0].handle_timeout(now);
        self.settle(host);
    }

    /// What arrives is decoded as a driver decodes it. Everybody here is honest, so all of it must decode.
    fn read<M: Message>(&mut self, from: HostId, bytes: &[u8]) -> Option<M> {
        let read = M::from_bytes(bytes);
        if let Err(error) = &read {
            self.watch.report(self.now, Violation::Undecodable(from, error.to_string()));
        }
        read.ok()
    }

    /// A frame is gone. Its sender is not told; the watch is, as a debt may hang on it.
    fn lose(&mut self, bytes: &[u8]) {
        if let Ok(frame) = Frame::from_bytes(bytes) {
            self.watch.on_lost(&frame);
        }
    }

    fn report(self) -> Report {
        Report::new(
            self.scenario,
            &Measured {
                seed: self.seed,
                peers: self.hosts.len(),
                happened: self.happened,
                beginning: BEGINNING,
                end: self.now,
                jobs: &self.jobs,
                history: &self.history,
                found: self.watch.found(),
                unsettled: self.watch.unsettled(),
            },
        )
    }
}
