//! From outputs to entries of the queue: the other half of a driver, in order and without skipping.

use protocol::event::{JobEvent, Output, QueryId};
use protocol::{Capability, JobId, Profile};

use super::*;
use crate::history::Named;
use crate::search::Action;

/// An asker stops waiting after this, in milliseconds, as `node`'s request-response does.
const ANSWER_PATIENCE: u64 = 10_000;
/// A transport gives a silent connection up after this, in milliseconds.
const IDLE: u64 = 10_000;

impl World<'_> {
    // One match with a line for each output: what `node` does with packets and rows, done with a queue.

    /// Does all that a host wants done, and arms its next wake.
    pub(super) fn settle(&mut self, host: HostId) {
        loop {
            if let Some(output) = self.hosts[host.0].poll_output() {
                if self.burns(host) {
                    return self.watch.on_swallowed(&output);
                }
                self.perform(host, output);
            } else if let Some(action) = self.hosts[host.0].poll_action() {
                self.act(host, action);
            } else {
                break;
            }
        }
        if let Some(due) = self.hosts[host.0].poll_timeout() {
            // A clock that is ahead may show a deadline that has passed in the world's time.
            let due = due.max(self.now);
            if self.hosts[host.0].arm(due) {
                self.later(due, Happening::Wake(host));
            }
        }
    }

    fn perform(&mut self, host: HostId, output: Output) {
        let now = self.now;
        match output {
            Output::Abort { run } => self.hosts[host.0].abort(now, run),
            Output::Announce { root, announcement } => self.publish(host, &root, &announcement),
            Output::Block { peer } => self.on_blocked(host, peer),
            Output::Discover { query, requirement } => self.hosts[host.0].search(now, query, requirement),
            Output::Frame { to, side, frame } => self.send(host, to, side, &frame),
            // Links here have no state that could go stale.
            Output::HangUp { .. } => {}
            Output::Notify { job, event } => self.on_notice(host, job, event),
            Output::Provide { capabilities } => self.provide(host, &capabilities),
            Output::Record(entry) => self.hosts[host.0].record(entry),
            Output::Request { id, to, request } => self.ask(host, to, &request, Purpose::Peer(id)),
            Output::Respond { inbound, response } => {
                let call = self.hosts[host.0].take_call(inbound);
                let asker = call.and_then(|call| Some((call, self.calls.get(&call)?.asker)));
                if let Some((call, asker)) = asker {
                    let bytes = self.encode((host, asker), &response);
                    self.answer(call, host, asker, Some(bytes));
                }
            }
            Output::Run(run) => self.hosts[host.0].run(now, &run),
        }
    }

    fn act(&mut self, host: HostId, action: Action) {
        match action {
            Action::Answer(query, profiles) => self.on_discovered(host, query, profiles),
            Action::Fetch(peer) => self.ask(host, peer, &Request::Profile, Purpose::Profile),
            Action::Lookup(search, key) => {
                let (at, life) = (self.now.after(self.links.lookup()), self.hosts[host.0].life());
                self.later(at, Happening::Found { host, life, search, key });
            }
        }
    }

    fn on_discovered(&mut self, host: HostId, query: QueryId, profiles: Vec<crypto::Verified<Profile>>) {
        let now = self.now;
        self.hosts[host.0].handle(now, Event::Discovered { query, profiles });
    }

    /// Gossip reaches everybody who offers something under the topic's root and is not cut off.
    fn publish(&mut self, from: HostId, root: &Capability, announcement: &Announcement) {
        let subscribes = |host: &Host| host.offers().iter().any(|offer| offer.capability.root() == *root);
        let ids = (0..self.hosts.len()).map(HostId);
        let listeners: Vec<_> = ids.filter(|to| *to != from && subscribes(&self.hosts[to.0])).collect();
        for to in listeners {
            let bytes = self.encode((from, to), announcement);
            if let Some(delay) = self.links.gossip(from, to, self.hosts.len()) {
                self.later(self.now.after(delay), Happening::Announced { from, to, bytes });
            }
        }
    }

    fn provide(&mut self, host: HostId, capabilities: &[Capability]) {
        let (at, life) = (self.now.after(self.links.lookup()), self.hosts[host.0].life());
        self.later(at, Happening::Published { host, life, keys: Key::all(capabilities) });
    }

    fn on_blocked(&mut self, host: HostId, peer: PeerId) {
        let evidence =
            self.hosts[host.0].peer().map(|own| own.reputation().counts(&peer).collect::<Vec<_>>());
        let violation =
            Violation::Blocked(host, self.names[&peer], format!("{:?}", evidence.unwrap_or_default()));
        self.watch.report(self.now, violation);
    }

    fn on_notice(&mut self, host: HostId, name: JobId, event: JobEvent) {
        let Some(job) = self.jobs.get_mut(&name) else { return };
        // Watched first: what is told after the end must be seen to come after the end.
        self.watch.on_notice(self.now, (name, job), &self.hosts[host.0], &event);
        if let Some(end) = End::of(&event) {
            job.end = job.end.or(Some((self.now, end)));
        }
        match event {
            JobEvent::Started { .. } => job.started += 1,
            JobEvent::Token { token, .. } => {
                job.first_token = job.first_token.or(Some(self.now));
                job.output.push(token);
            }
            _ => {}
        }
    }

    // Questions and answers.

    fn ask(&mut self, from: HostId, to: PeerId, request: &Request, purpose: Purpose) {
        let to = self.names[&to];
        let bytes = self.encode((from, to), request);
        let life = self.hosts[from.0].life();
        self.sequence += 1;
        let call = CallId(self.sequence);
        self.calls.insert(call, Call { asker: from, life, to, purpose });
        if let Some(delay) = self.links.delay(from, to) {
            self.later(self.now.after(delay), Happening::Asked { call, bytes });
        }
        // Whichever comes first takes the call away, so every question has exactly one answer.
        self.later(self.now.after(ANSWER_PATIENCE), Happening::Answered { call, bytes: None });
    }

    pub(super) fn answer(&mut self, call: CallId, from: HostId, to: HostId, bytes: Option<Vec<u8>>) {
        if let Some(delay) = self.links.delay(from, to) {
            self.later(self.now.after(delay), Happening::Answered { call, bytes });
        }
    }

    // Streams.

    fn send(&mut self, from: HostId, to: PeerId, side: Side, frame: &Frame) {
        self.watch.on_frame(self.now, (from, &self.hosts[from.0]), to, frame);
        let to = self.names[&to];
        let bytes = self.encode((from, to), frame);
        let stream = match side {
            Side::Provider => self.streams.back(to, from),
            Side::Requester => {
                let (stream, opened) = self.streams.open(from, to);
                if opened && self.links.is_cut(from, to) {
                    self.later(self.now.after(IDLE), Happening::Silent(stream));
                }
                Some(stream)
            }
        };
        match stream {
            Some(stream) => self.carry(stream, side.opposite(), bytes),
            None => self.lose(&bytes),
        }
    }

    /// Brings a frame to an end of a stream, or keeps it while a cut lasts.
    pub(super) fn carry(&mut self, id: StreamId, to: Side, bytes: Vec<u8>) {
        let Some(stream) = self.streams.find(id) else { return self.lose(&bytes) };
        match self.links.delay(stream.requester, stream.provider) {
            Some(delay) => {
                let at = self.streams.queue(id, to, self.now.after(delay));
                self.later(at, Happening::Frame { stream: id, to, bytes });
            }
            None => self.streams.hold(id, to, bytes),
        }
    }

    /// An end will learn that its stream is broken: from the other machine, or by waiting in vain.
    pub(super) fn break_later(&mut self, id: StreamId, side: Side) {
        let Some(stream) = self.streams.find(id) else { return };
        let delay = self.links.delay(stream.requester, stream.provider).unwrap_or(IDLE);
        let at = self.streams.queue(id, side, self.now.after(delay));
        self.later(at, Happening::Lost { stream: id, side });
    }

    /// Streams across a new cut will break unless it is mended before the transport gives up.
    pub(super) fn doubt(&mut self) {
        let doubtful = self.streams.iter().filter(|(_, s)| self.links.is_cut(s.requester, s.provider));
        let doubtful: Vec<_> = doubtful.map(|(id, _)| id).collect();
        for stream in doubtful {
            self.later(self.now.after(IDLE), Happening::Silent(stream));
        }
    }

    /// Value → bytes, noted and watched.
    fn encode<M: Message + Named>(&mut self, (from, to): (HostId, HostId), message: &M) -> Vec<u8> {
        let (bytes, kind) = (message.to_bytes(), message.name());
        self.history.note(self.now, (from, to), kind, &bytes);
        self.watch.on_message(self.now, from, kind, &bytes);
        bytes
    }
}
