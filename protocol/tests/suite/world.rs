//! A mesh on a table: peers, a first-in-first-out wire of encoded bytes, scripted agents, and a clock that only we move.
//!
//! Every message is encoded and decoded as on the real wire, so what a test sees is what a stranger could see. A
//! *bend* makes a peer dishonest: it rewrites the frames that the peer sends, with the peer's own key at hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crypto::{Network, PeerId, Signed};
use protocol::event::{Command, InboundId, Production, RequestId, Run, RunId, Side, Submission};
use protocol::{
    AgentOffer, Announcement, Event, Evidence, Frame, JobEvent, JobId, JobSpec, Message, Output, Peer,
    Profile, Request, Response, Timestamp, peer::Config,
};

use crate::values::{SALT, START, answer, key, peer};

/// Rewrites what a peer sends.
type Bend = Box<dyn FnMut(Frame) -> Vec<Frame>>;

/// One message as it crossed the wire.
pub(crate) struct Packet {
    pub(crate) to: Option<PeerId>,
    pub(crate) starts: bool,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) now: Timestamp,
    /// Everything that every peer wanted done, in order.
    pub(crate) journal: Vec<(PeerId, Output)>,
    pub(crate) wire: Vec<Packet>,
    peers: BTreeMap<PeerId, Peer>,
    scripts: BTreeMap<PeerId, Vec<Production>>,
    bends: BTreeMap<PeerId, Bend>,
    queue: VecDeque<(PeerId, Event)>,
    inbound: Vec<(PeerId, RequestId)>,
    gone: BTreeSet<PeerId>,
}

impl World {
    /// A mesh of peers with the seeds 1 to `peers`, none of whom offers anything yet.
    pub(crate) fn of(peers: u8) -> Self {
        Self::with(peers, Config::default())
    }

    pub(crate) fn with(peers: u8, config: Config) -> Self {
        let mut world = Self { now: START, ..Self::default() };
        for seed in 1..=peers {
            let network = world.network.clone();
            world.peers.insert(peer(seed), Peer::new(config.clone(), network, key(seed)));
        }
        world
    }

    pub(crate) fn peer(&self, id: PeerId) -> &Peer {
        &self.peers[&id]
    }

    /// From now on `id` hosts these agents; each run answers with eight tokens unless [`World::script`] says more.
    pub(crate) fn offer(&mut self, id: PeerId, offers: Vec<AgentOffer>) {
        self.scripts.entry(id).or_insert_with(|| answer(8));
        self.deliver(id, Event::Command(Command::Offer(offers)));
    }

    /// What the agents of `id` produce in every run; nothing at all leaves it to [`World::produce`].
    pub(crate) fn script(&mut self, id: PeerId, productions: Vec<Production>) {
        self.scripts.insert(id, productions);
    }

    /// From now on every frame that `from` sends is rewritten.
    pub(crate) fn bend(&mut self, from: PeerId, bend: impl FnMut(Frame) -> Vec<Frame> + 'static) {
        self.bends.insert(from, Box::new(bend));
    }

    /// The peer is unplugged: everybody who talks with it finds out.
    pub(crate) fn unplug(&mut self, id: PeerId) {
        self.gone.insert(id);
        let others: Vec<_> = self.peers.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            for side in [Side::Provider, Side::Requester] {
                self.deliver(other, Event::Lost { peer: id, side });
            }
        }
    }

    /// It is there again; it has seen everybody go, too.
    pub(crate) fn plug_in(&mut self, id: PeerId) {
        self.gone.remove(&id);
        let others: Vec<_> = self.peers.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            for side in [Side::Provider, Side::Requester] {
                self.deliver(id, Event::Lost { peer: other, side });
            }
        }
    }

    pub(crate) fn submit(&mut self, id: PeerId, job: JobId, spec: JobSpec) {
        self.submit_for(id, job, spec, None);
    }

    pub(crate) fn submit_for(&mut self, id: PeerId, job: JobId, spec: JobSpec, run: Option<RunId>) {
        let submission = Submission { job, salt: SALT, spec, run, trace: None };
        self.deliver(id, Event::Command(Command::Submit(Box::new(submission))));
    }

    pub(crate) fn produce(&mut self, id: PeerId, run: RunId, production: Production) {
        self.deliver(id, Event::Produced { run, production });
    }

    /// Something happens to `to`, and everything that follows from it at this instant.
    pub(crate) fn deliver(&mut self, to: PeerId, event: Event) {
        self.queue.push_back((to, event));
        self.settle();
    }

    /// Bytes arrive on the stream from `from`, as a driver would translate them.
    pub(crate) fn deliver_bytes(&mut self, to: PeerId, from: PeerId, side: Side, bytes: &[u8]) {
        let event = match Frame::from_bytes(bytes) {
            Ok(frame) => Event::Frame { from, side, frame },
            Err(error) => Event::Misbehaved { peer: from, evidence: error.into() },
        };
        self.deliver(to, event);
    }

    /// A request arrives from a peer that is not simulated.
    pub(crate) fn request(&mut self, to: PeerId, from: PeerId, request: Request) {
        self.inbound.push((from, RequestId(0)));
        let inbound = InboundId(self.inbound.len() as u64 - 1);
        self.deliver(to, Event::Request { from, inbound, request });
    }

    /// Time passes, and everything that becomes due on the way is done when it is due.
    pub(crate) fn elapse(&mut self, millis: u64) {
        let end = self.now.after(millis);
        while let Some(due) = self.next_timeout().filter(|due| *due <= end) {
            self.fire(due);
        }
        self.now = end;
    }

    /// Time passes until the job is over, and says how it ended.
    pub(crate) fn finish(&mut self, job: JobId) -> JobEvent {
        for _ in 0..100 {
            if let Some(end) = self.outcome(job) {
                return end;
            }
            let due = self.next_timeout().expect("a job that is not over has a timeout");
            self.fire(due);
        }
        panic!("the job never ends");
    }

    /// How the job ended, if it has.
    pub(crate) fn outcome(&self, job: JobId) -> Option<JobEvent> {
        let over = |event: &&JobEvent| matches!(event, JobEvent::Done(_) | JobEvent::Failed(_));
        let mut ends = self.events(job).into_iter().filter(over);
        let end = ends.next().cloned();
        assert!(ends.next().is_none(), "a job ends once");
        end
    }

    /// What the job's submitter was told.
    pub(crate) fn events(&self, job: JobId) -> Vec<&JobEvent> {
        let of_job =
            |(_, output): &'_ (PeerId, Output)| matches!(output, Output::Notify { job: j, .. } if *j == job);
        let notices = self.journal.iter().filter(|entry| of_job(entry));
        notices
            .filter_map(|(_, o)| if let Output::Notify { event, .. } = o { Some(event) } else { None })
            .collect()
    }

    /// Who was started on the job, in order.
    pub(crate) fn started(&self, job: JobId) -> Vec<PeerId> {
        let events = self.events(job).into_iter();
        events
            .filter_map(|e| if let JobEvent::Started { provider, .. } = e { Some(*provider) } else { None })
            .collect()
    }

    /// How many tokens the job's submitter has seen.
    pub(crate) fn tokens(&self, job: JobId) -> usize {
        self.events(job).into_iter().filter(|event| matches!(event, JobEvent::Token { .. })).count()
    }

    /// Everything that the agents of `id` were ever started on.
    pub(crate) fn runs(&self, id: PeerId) -> Vec<&Run> {
        let own = self.journal.iter().filter(|(who, _)| *who == id);
        own.filter_map(|(_, o)| if let Output::Run(run) = o { Some(run.as_ref()) } else { None }).collect()
    }

    pub(crate) fn aborted(&self, id: PeerId, run: RunId) -> bool {
        self.journal.iter().any(|(who, o)| *who == id && matches!(o, Output::Abort { run: r } if *r == run))
    }

    /// What `at` holds against, and for, `of`.
    pub(crate) fn evidence(&self, at: PeerId, of: PeerId) -> Vec<(Evidence, u32)> {
        self.peer(at).reputation().counts(&of).collect()
    }

    /// True when `at` told its driver to have nothing more to do with `of`.
    pub(crate) fn blocked(&self, at: PeerId, of: PeerId) -> bool {
        self.journal.iter().any(|(who, o)| *who == at && matches!(o, Output::Block { peer } if *peer == of))
    }

    fn next_timeout(&self) -> Option<Timestamp> {
        self.peers.values().filter_map(Peer::poll_timeout).min()
    }

    fn fire(&mut self, due: Timestamp) {
        self.now = self.now.max(due);
        let ids: Vec<_> = self.peers.keys().copied().collect();
        for id in ids {
            let now = self.now;
            self.peers.get_mut(&id).unwrap().handle_timeout(now);
            self.drain(id);
        }
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((to, event)) = self.queue.pop_front() {
            let now = self.now;
            let Some(peer) = self.peers.get_mut(&to).filter(|_| !self.gone.contains(&to)) else { continue };
            peer.handle(now, event);
            self.drain(to);
        }
    }

    fn drain(&mut self, id: PeerId) {
        while let Some(output) = self.peers.get_mut(&id).unwrap().poll_output() {
            self.journal.push((id, output.clone()));
            self.perform(id, output);
        }
    }

    fn perform(&mut self, from: PeerId, output: Output) {
        match output {
            Output::Abort { run } => self
                .queue
                .retain(|(to, e)| *to != from || !matches!(e, Event::Produced { run: r, .. } if *r == run)),
            Output::Announce { announcement, .. } => self.publish(from, &announcement),
            Output::Discover { query, requirement } => {
                let wanted =
                    |p: &Profile| requirement.as_ref().is_none_or(|r| p.matching(r).next().is_some());
                let others = self.peers.iter().filter(|(id, _)| **id != from && !self.gone.contains(id));
                let profiles = others.map(|(_, peer)| peer.profile(self.now));
                let profiles = profiles.filter(|p| !p.agents.is_empty() && wanted(p)).collect();
                self.queue.push_back((from, Event::Discovered { query, profiles }));
            }
            Output::Frame { to, side, frame } => self.send(from, to, side, frame),
            Output::Request { id, to, request } => self.ask(from, to, id, &request),
            Output::Respond { inbound, response } => {
                let (to, id) = self.inbound[inbound.0 as usize];
                let response: Response = self.cross(Some(to), false, &response);
                self.queue.push_back((to, Event::Answer { id, from, answer: Some(response) }));
            }
            Output::Run(run) => {
                // An agent that goes on with an answer does not repeat it.
                let mut inherited = run.inherited.len();
                let mut script = self.scripts.get(&from).cloned().unwrap_or_default();
                script.retain(|production| {
                    let known = inherited > 0 && matches!(production, Production::Token { .. });
                    inherited -= usize::from(known);
                    !known
                });
                let produced = |production| (from, Event::Produced { run: run.run, production });
                self.queue.extend(script.into_iter().map(produced));
            }
            _ => {}
        }
    }

    fn publish(&mut self, from: PeerId, announcement: &Announcement) {
        let announcement: Announcement = self.cross(None, false, announcement);
        let listeners: Vec<_> = self.peers.keys().copied().filter(|id| *id != from).collect();
        for to in listeners {
            self.queue.push_back((to, Event::Announced { from, announcement: announcement.clone() }));
        }
    }

    fn send(&mut self, from: PeerId, to: PeerId, side: Side, frame: Frame) {
        let frames = match self.bends.get_mut(&from) {
            Some(bend) => bend(frame),
            None => vec![frame],
        };
        for frame in frames {
            let frame = self.cross(Some(to), matches!(frame, Frame::Start(_)), &frame);
            let lost = self.gone.contains(&to) || !self.peers.contains_key(&to);
            let event = match lost {
                true => Event::Lost { peer: to, side },
                false => Event::Frame { from, side: side.opposite(), frame },
            };
            self.queue.push_back((if lost { from } else { to }, event));
        }
    }

    fn ask(&mut self, from: PeerId, to: PeerId, id: RequestId, request: &Request) {
        let request: Request = self.cross(Some(to), false, request);
        if self.gone.contains(&to) || !self.peers.contains_key(&to) {
            return self.queue.push_back((from, Event::Answer { id, from: to, answer: None }));
        }
        self.inbound.push((from, id));
        let inbound = InboundId(self.inbound.len() as u64 - 1);
        self.queue.push_back((to, Event::Request { from, inbound, request }));
    }

    /// Value → bytes → value, with a copy for the eavesdropper.
    fn cross<M: Message>(&mut self, to: Option<PeerId>, starts: bool, message: &M) -> M {
        let bytes = message.to_bytes();
        let message = M::from_bytes(&bytes).expect("what a peer sends decodes");
        self.wire.push(Packet { to, starts, bytes });
        message
    }
}

/// The same statement with its value changed, signed again by its author.
pub(crate) fn resign<T: crypto::Payload>(
    signed: &Signed<T>,
    seed: u8,
    change: impl FnOnce(&mut T),
) -> Signed<T> {
    let network = Network::default();
    let mut value = T::decode(signed.payload()).expect("an honest payload");
    change(&mut value);
    Signed::sign(&network, &key(seed), value).into_signed()
}

/// The same statement with one bit of its signature changed.
pub(crate) fn forge<T: crypto::Payload>(signed: &Signed<T>) -> Signed<T> {
    let mut signature = *signed.signature();
    signature[5] ^= 1;
    Signed::from_parts(signed.signer(), signed.payload().to_vec(), signature)
}
