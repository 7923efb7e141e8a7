//! The event loop: what happened goes into the [`Peer`], what it wants is done, in order.
//!
//! Everything effectful of a peer passes through here and nothing is decided here. The loop never waits for a peer:
//! the network takes commands or refuses them at once, agents run as tasks of their own. The one thing it waits for
//! is the disk, in [`Output::Record`], because what follows depends on it.

mod notice;
mod report;
mod witness;

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use crypto::{Network, PeerId, Verified};
use dht::Key;
use futures::FutureExt;
use protocol::error::Feature;
use protocol::event::{self, QueryId, RequestId, Run, RunId, Side};
use protocol::{
    Announcement, Capability, Event, Evidence, Frame, JobError, JobId, Message, Output, Peer, Profile,
    Request, Requirement, Response, Timestamp,
};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::{AbortHandle, block_in_place};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::affinity::Affinity;
use crate::agents::{Agents, Context, Job, Produced, Windows};
use crate::clock;
use crate::discovery::{self, Action, Asker, Discovery};
use crate::failure::{Class, Failure};
use crate::handle::{Command, Joining, NodeHandle, Subscriber};
use crate::jobs::Jobs;
use crate::journal::{Journal, JournalError};
use crate::metrics::Metrics;
use crate::net::{self, Events, GossipToken, Net, NetEvent, Role, Verdict};
use crate::traces::Traces;
use crate::translate;
use witness::Witness;

/// Productions taken in one turn: enough to amortise the turn, few enough that the network is heard in between.
const BATCH: usize = 64;
/// Requests of strangers that await our answer. The peer answers at once, so only a burst is ever open.
const MAX_INBOUND: usize = 1024;
/// Latest close of an announcement that is passed on, in milliseconds from now.
const MAX_AUCTION: u64 = 60_000;
/// What is said of a peer that ends by itself.
const NETWORK_ENDED: &str = "the peer's network has ended by itself: start the peer again";

/// One peer's loop and everything that it drives.
pub(crate) struct Driver {
    pub(crate) peer: Peer,
    pub(crate) network: Network,
    pub(crate) net: Net,
    pub(crate) events: Events,
    pub(crate) discovery: Discovery,
    pub(crate) agents: Agents,
    pub(crate) journal: Journal,
    /// Where receipts are kept; nowhere for peers without a folder.
    pub(crate) receipts: Option<PathBuf>,
    pub(crate) handle: NodeHandle,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) produced: mpsc::Receiver<Produced>,
    pub(crate) productions: mpsc::Sender<Produced>,
    pub(crate) joining: watch::Sender<Joining>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) state: State,
}

/// What the loop keeps for correlation.
#[derive(Debug)]
pub(crate) struct State {
    runs: BTreeMap<RunId, AbortHandle>,
    windows: Windows,
    subscribers: BTreeMap<JobId, Subscriber>,
    inbound: VecDeque<(event::InboundId, net::InboundId)>,
    next_inbound: u64,
    affinity: Affinity,
    jobs: Jobs,
    witness: Witness,
    /// Goes with the next frame to a requester: the window of the agent that produced it.
    permit: Option<OwnedSemaphorePermit>,
}

impl State {
    /// Nothing yet, and whatever comes is counted.
    pub(crate) fn watched(metrics: Metrics, traces: Traces) -> Self {
        Self {
            runs: BTreeMap::new(),
            windows: Windows::default(),
            subscribers: BTreeMap::new(),
            inbound: VecDeque::new(),
            next_inbound: 0,
            affinity: Affinity::default(),
            jobs: Jobs::default(),
            witness: Witness::new(metrics, traces),
            permit: None,
        }
    }
}

impl Driver {
    /// Runs until shut down, or until the disk or the network fails.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let mut batch = Vec::with_capacity(BATCH);
        let ended = loop {
            let due = [self.peer.poll_timeout(), self.discovery.poll_timeout()].into_iter().flatten().min();
            tokio::select! {
                () = self.shutdown.cancelled() => break Ok(()),
                event = self.events.next() => match event {
                    Some(event) => self.on_net(event)?,
                    None => break Err(Failure::new(Class::Network, NETWORK_ENDED)),
                },
                Some(command) = self.commands.recv() => self.on_command(command)?,
                _ = self.produced.recv_many(&mut batch, BATCH) => self.on_produced(&mut batch)?,
                () = sleep_until(due.map(clock::instant).unwrap_or_else(far)), if due.is_some() => self.on_timeout()?,
            }
        };
        for (_, run) in std::mem::take(&mut self.state.runs) {
            run.abort();
        }
        self.net.clone().shutdown().await;
        ended
    }

    fn on_timeout(&mut self) -> Result<(), JournalError> {
        let now = clock::now();
        self.discovery.handle_timeout(now);
        self.peer.handle_timeout(now);
        self.perform(now)
    }

    fn on_produced(&mut self, batch: &mut Vec<Produced>) -> Result<(), JournalError> {
        let now = clock::now();
        for Produced { run, production, permit } in batch.drain(..) {
            self.state.permit = permit;
            self.state.witness.produced(run, &production);
            match production {
                event::Production::Token { .. } => self.state.jobs.on_token(run),
                event::Production::Failed(_) | event::Production::Finished(_) => {
                    self.state.jobs.on_run_over(now, run);
                }
                _ => {}
            }
            self.peer.handle(now, Event::Produced { run, production });
            self.perform(now)?;
            self.state.permit = None;
        }
        Ok(())
    }

    fn on_command(&mut self, command: Command) -> Result<(), JournalError> {
        let now = clock::now();
        match command {
            Command::Approve(job) => {
                self.state.jobs.on_approved(job);
                self.state.witness.approved(job);
                self.peer.handle(now, Event::Command(event::Command::Approve { job }));
            }
            Command::Cancel(job) => {
                self.state.subscribers.remove(&job);
                self.peer.handle(now, Event::Command(event::Command::Cancel { job }));
            }
            Command::Find(capability, reply) => {
                self.search(now, Asker::User(reply), capability.map(any));
            }
            Command::Known(reply) => {
                // An asker that is gone needs no answer.
                let _ = reply.send(self.known(now));
            }
            Command::Offer => {
                let offers = event::Command::Offer(self.agents.offers());
                self.peer.handle(now, Event::Command(offers));
            }
            Command::Jobs(reply) => {
                let _ = reply.send(self.state.jobs.views());
            }
            Command::Board(reply) => {
                let _ = reply.send(self.peer.board().clone());
            }
            Command::Books(reply) => {
                let _ = reply.send(self.books());
            }
            Command::Submit(mut submission, subscriber) => {
                self.state.witness.submitted(&mut submission);
                self.state.affinity.prefer(&mut submission.spec);
                self.state.jobs.on_submitted(now, self.peer.id(), submission.job, &submission.spec);
                self.state.subscribers.insert(submission.job, subscriber);
                self.peer.handle(now, Event::Command(event::Command::Submit(submission)));
            }
        }
        self.perform(now)
    }

    fn on_net(&mut self, event: NetEvent) -> Result<(), JournalError> {
        let now = clock::now();
        self.state.witness.heard(&event);
        match event {
            NetEvent::BadPeer { peer, what } => self.blame(now, peer, translate::misconduct(what)),
            NetEvent::BootstrapFailed { address, reason } => {
                tracing::warn!(%address, %reason, "bootstrap failed");
                self.joining.send_modify(|state| state.failures.push((address, reason)));
            }
            NetEvent::BootstrapSucceeded { address, .. } => tracing::info!(%address, "joined"),
            NetEvent::Connected(peer) => {
                self.joining.send_if_modified(|state| !std::mem::replace(&mut state.joined, true));
                self.discovery.on_connected(now, peer);
            }
            NetEvent::Disconnected(peer) => self.discovery.on_disconnected(&peer),
            NetEvent::Found { id, peers } => self.discovery.on_found(now, id, peers),
            NetEvent::Frames { from, role, frames } => return self.on_frames(now, from, role, frames),
            NetEvent::Gossip { from, topic, bytes, token } => {
                self.on_gossip(now, from, (&topic, &bytes), token)
            }
            NetEvent::Listening(address) => tracing::info!(%address, "listening"),
            NetEvent::Request { from, inbound, bytes } => self.on_request(now, from, inbound, &bytes),
            NetEvent::Response { id, from, result } => self.on_response(now, id, from, result.ok()),
            NetEvent::SessionClosed { peer, role, .. } => {
                self.peer.handle(now, Event::Lost { peer, side: translate::side(role) });
            }
        }
        self.perform(now)
    }

    fn on_frames(
        &mut self,
        now: Timestamp,
        from: PeerId,
        role: Role,
        frames: Vec<Vec<u8>>,
    ) -> Result<(), JournalError> {
        let side = translate::side(role);
        for bytes in frames {
            match Frame::from_bytes(&bytes) {
                Ok(frame) => self.peer.handle(now, Event::Frame { from, side, frame }),
                Err(error) => self.blame(now, from, error.into()),
            }
            self.perform(now)?;
        }
        Ok(())
    }

    fn on_gossip(&mut self, now: Timestamp, from: PeerId, (topic, bytes): (&str, &[u8]), token: GossipToken) {
        let verdict = match Announcement::from_bytes(bytes) {
            Ok(announcement) if translate::belongs(&self.network, topic, &announcement) => {
                let Announcement::Job { closes, .. } = announcement;
                let current = closes.after(Profile::CLOCK_SKEW) > now && closes <= now.after(MAX_AUCTION);
                self.peer.handle(now, Event::Announced { from, announcement });
                if current { Verdict::Accept } else { Verdict::Ignore }
            }
            Ok(_) => {
                self.blame(now, from, Evidence::Unexpected);
                Verdict::Reject
            }
            Err(error) => {
                self.blame(now, from, error.into());
                Verdict::Reject
            }
        };
        self.state.witness.judged(verdict);
        if self.net.judge(token, verdict).is_err() {
            tracing::debug!("an announcement was not judged: the network is overloaded");
        }
    }

    fn on_request(&mut self, now: Timestamp, from: PeerId, inbound: net::InboundId, bytes: &[u8]) {
        match Request::from_bytes(bytes) {
            Ok(request) => {
                self.state.witness.is_asked(&request);
                let id = event::InboundId(self.state.next_inbound);
                self.state.next_inbound += 1;
                if self.state.inbound.len() >= MAX_INBOUND {
                    self.state.inbound.pop_front();
                }
                self.state.inbound.push_back((id, inbound));
                self.peer.handle(now, Event::Request { from, inbound: id, request });
            }
            Err(error) => self.blame(now, from, error.into()),
        }
    }

    /// Odd numbers are the directory's questions, even ones the peer's.
    fn on_response(&mut self, now: Timestamp, id: u64, from: PeerId, bytes: Option<Vec<u8>>) {
        let answer = match bytes.map(|bytes| Response::from_bytes(&bytes)) {
            Some(Ok(response)) => Some(response),
            Some(Err(error)) => {
                self.blame(now, from, error.into());
                None
            }
            None => None,
        };
        if id % 2 == 1 {
            if let Some(evidence) = self.discovery.on_profile(now, id / 2, discovery::profile_of(answer)) {
                self.blame(now, from, evidence);
            }
        } else {
            self.peer.handle(now, Event::Answer { id: RequestId(id / 2), from, answer });
        }
    }

    fn blame(&mut self, now: Timestamp, peer: PeerId, evidence: Evidence) {
        // At debug level only: a stranger must not be able to fill the log.
        tracing::debug!(peer = %peer.short(), ?evidence, "misbehaved");
        self.peer.handle(now, Event::Misbehaved { peer, evidence });
    }

    /// Does everything that is to be done, in order.
    fn perform(&mut self, now: Timestamp) -> Result<(), JournalError> {
        loop {
            while let Some(action) = self.discovery.poll() {
                self.discover(now, action);
            }
            let Some(output) = self.peer.poll_output() else { return Ok(()) };
            self.perform_one(now, output)?;
        }
    }

    fn perform_one(&mut self, now: Timestamp, output: Output) -> Result<(), JournalError> {
        self.state.witness.does(&output);
        match output {
            Output::Abort { run } => self.abort(now, run),
            Output::Announce { root, announcement } => self.announce(&root, &announcement),
            Output::Block { peer } => self.block(peer),
            Output::Discover { query, requirement } => {
                self.search(now, Asker::Peer(query), requirement);
            }
            Output::Frame { to, side, frame } => self.send(now, to, side, &frame),
            Output::HangUp { peer } => self.hang_up(peer),
            Output::Notify { job, event } => self.notify(now, job, event),
            Output::Provide { capabilities } => self.provide(&capabilities),
            Output::Record(entry) => on_disk(|| self.journal.append(&entry))?,
            Output::Request { id, to, request } => self.request(now, id, to, &request),
            Output::Respond { inbound, response } => self.respond(inbound, &response),
            Output::Run(run) => self.start(now, *run),
        }
        Ok(())
    }

    fn search(&mut self, now: Timestamp, asker: Asker, requirement: Option<Requirement>) {
        let offers = self.agents.offers();
        let here = offers.iter().any(|offer| requirement.as_ref().is_none_or(|wanted| offer.meets(wanted)));
        self.discovery.search(now, asker, requirement, here);
    }

    fn discover(&mut self, now: Timestamp, action: Action) {
        match action {
            Action::Answer(Asker::Peer(query), profiles) => self.discovered(now, query, profiles),
            Action::Answer(Asker::User(reply), mut profiles) => {
                if !self.agents.offers().is_empty() {
                    profiles.push(self.peer.profile(now));
                }
                let _ = reply.send(profiles);
            }
            Action::Fetch(id, peer) => {
                if self.net.request(2 * id + 1, peer, Request::Profile.to_bytes()).is_err() {
                    self.discovery.on_profile(now, id, None);
                }
            }
            Action::Lookup(id, key) => {
                if self.net.find(id, *key.as_bytes(), discovery::WANT).is_err() {
                    self.discovery.on_found(now, id, Vec::new());
                }
            }
        }
    }

    fn discovered(&mut self, now: Timestamp, query: QueryId, profiles: Vec<Verified<Profile>>) {
        self.peer.handle(now, Event::Discovered { query, profiles });
    }

    fn send(&mut self, now: Timestamp, to: PeerId, side: Side, frame: &Frame) {
        let (permit, bytes) = (self.state.permit.take(), frame.to_bytes());
        self.state.witness.sends(bytes.len());
        if self.net.frame(to, translate::role(side), bytes, permit).is_err() {
            // Nobody reads fast enough on the other side, or the stream is gone: both end what was on it.
            self.net.close_session(to, translate::role(side));
            self.peer.handle(now, Event::Lost { peer: to, side });
        }
    }

    fn request(&mut self, now: Timestamp, id: RequestId, to: PeerId, request: &Request) {
        if self.net.request(2 * id.0, to, request.to_bytes()).is_err() {
            self.peer.handle(now, Event::Answer { id, from: to, answer: None });
        }
    }

    fn respond(&mut self, inbound: event::InboundId, response: &Response) {
        let open = self.state.inbound.iter().position(|(id, _)| *id == inbound);
        if let Some((_, inbound)) = open.and_then(|at| self.state.inbound.remove(at)) {
            // The asker's own timeout is the mend for an answer that cannot be sent.
            let _ = self.net.respond(inbound, response.to_bytes());
        }
    }

    fn announce(&mut self, root: &Capability, announcement: &Announcement) {
        let topic = translate::topic(&self.network, root);
        if self.net.publish(topic, announcement.to_bytes()).is_err() {
            tracing::warn!("a job was not announced: the network is overloaded");
        }
    }

    fn block(&mut self, peer: PeerId) {
        tracing::warn!(%peer, "blocked for breaking the protocol");
        self.discovery.on_disconnected(&peer);
        if self.net.block(peer).is_err() {
            tracing::warn!(%peer, "could not be disconnected: the network is overloaded");
        }
    }

    /// What is known of it goes with its connections: whoever comes back says it again.
    fn hang_up(&mut self, peer: PeerId) {
        tracing::info!(peer = %peer.short(), "does not answer any more");
        self.discovery.on_disconnected(&peer);
        if self.net.hang_up(peer).is_err() {
            tracing::warn!(%peer, "could not be disconnected: the network is overloaded");
        }
    }

    fn provide(&mut self, capabilities: &[Capability]) {
        let keys = Key::all(capabilities).iter().map(|key| *key.as_bytes()).collect();
        let roots = capabilities.iter().map(Capability::root);
        let subscribed = roots.map(|root| self.net.subscribe(translate::topic(&self.network, &root)));
        let provided = self.net.provide(keys);
        if subscribed.chain([provided]).any(|done| done.is_err()) {
            tracing::warn!("what this peer offers could not be announced: the network is overloaded");
        }
    }

    fn start(&mut self, now: Timestamp, run: Run) {
        self.state.jobs.on_run(now, self.peer.id(), &run);
        let (begun, log) = self.state.witness.runs(&run);
        let Run { run, order, input, constraint, inherited, .. } = run;
        let agent = match self.agents.named(&order.agent) {
            Some(agent) if agent.takes(order.kind) => Ok(agent),
            Some(_) => Err(JobError::Unsupported { feature: Feature::JobKind }),
            None => Err(JobError::Engine),
        };
        let agent = match agent {
            Ok(agent) => agent,
            Err(error) => {
                self.state.witness.run_failed(run, &error);
                let production = event::Production::Failed(error);
                return self.peer.handle(now, Event::Produced { run, production });
            }
        };
        let window = self.state.windows.of(order.signer());
        let context = Context::new(run, self.productions.clone(), window, self.handle.clone()).telling(begun);
        let work = async move {
            let job = Job { order, input, constraint, inherited };
            let work = AssertUnwindSafe(agent.run(job, context.clone())).catch_unwind();
            context.finish(work.await.unwrap_or(Err(JobError::Engine))).await;
        };
        let task = tokio::spawn(work.instrument(log));
        self.state.runs.retain(|_, running| !running.is_finished());
        self.state.runs.insert(run, task.abort_handle());
    }

    fn abort(&mut self, now: Timestamp, run: RunId) {
        self.state.jobs.on_run_over(now, run);
        if let Some(running) = self.state.runs.remove(&run) {
            running.abort();
        }
    }
}

/// Waits for the disk. The tasks that this thread would run next, above all whoever reads the answer that was just
/// delivered, are handed to another thread meanwhile; a runtime of one thread has no other.
fn on_disk<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => block_in_place(work),
    }
}

/// The weakest requirement: the capability alone.
fn any(capability: Capability) -> Requirement {
    Requirement { capability, model: None, context: 0, ceiling: None }
}

fn far() -> tokio::time::Instant {
    clock::instant(Timestamp(u64::MAX / 2))
}
