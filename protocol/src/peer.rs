//! The peer: owns the machines and routes between them. It decides nothing itself.
//!
//! This is the only file that names two machines. Read it to learn who hears of what; read a machine to learn why.
//! A peer that works for itself is no special case: what it sends to its own id comes back to it as if by wire.

mod jobs;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crypto::{Digest, Network, PeerId, SecretKey, Signed, Verified};

use crate::approval::{Approvals, Rule};
use crate::codec::VERSION;
use crate::event::{Command, Event, JobEvent, Output, QueryId, RequestId, RunId, Side};
use crate::job::Salt;
use crate::ledger::{Entry, Ledger};
use crate::mandate::Mandates;
use crate::market::{Auctions, Bidder, Board, auction, bidder};
use crate::message::Frame;
use crate::profile::Versions;
use crate::session::{Provider, Requester, provider, requester};
use crate::{Evidence, JobError, JobId, JobSpec, Profile, Reputation, Timestamp, Trace};

/// The settings of every machine.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Of which jobs of its own a person is asked first.
    pub approval: Vec<Rule>,
    /// Of the requester's side of the market.
    pub auction: auction::Config,
    /// Of the provider's side of the market.
    pub bidder: bidder::Config,
    /// Of the requester's side of sessions.
    pub requester: requester::Config,
}

/// One peer of the mesh.
#[derive(Debug)]
pub struct Peer {
    network: Network,
    key: SecretKey,
    approvals: Approvals,
    auctions: Auctions,
    bidder: Bidder,
    board: Board,
    requester: Requester,
    provider: Provider,
    mandates: Mandates,
    reputation: Reputation,
    ledger: Ledger,
    jobs: BTreeMap<JobId, Job>,
    asked: BTreeMap<RequestId, Question>,
    queries: BTreeMap<QueryId, (JobId, bool)>,
    next: u64,
    looped: VecDeque<Event>,
    outputs: VecDeque<Output>,
}

/// A job of ours, from submission to its last event.
#[derive(Debug)]
struct Job {
    spec: Arc<JobSpec>,
    salt: Salt,
    /// The salted commitment to its input.
    input: Digest,
    /// The run of ours on whose behalf.
    run: Option<RunId>,
    /// How far it stands below a job of a user's, as far as this peer knows.
    depth: u8,
    trace: Option<Trace>,
}

/// What we asked of somebody about a job of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    job: JobId,
    to: PeerId,
    /// A counter-offer, and not the first ask.
    counter: bool,
}

/// Requests of our own to ourselves are numbered from here, away from the driver's.
const LOOPED: u64 = 1 << 63;
/// Jobs of ours at once. The local API refuses more, so that a runaway program cannot fill the mesh.
const MAX_JOBS: usize = 4096;

impl Peer {
    /// A peer with nothing on offer and no history; [`Peer::restore`] gives it back its books.
    pub fn new(config: Config, network: Network, key: SecretKey) -> Self {
        Self {
            approvals: Approvals::new(config.approval),
            auctions: Auctions::new(config.auction, key.peer_id()),
            bidder: Bidder::new(config.bidder),
            board: Board::default(),
            requester: Requester::new(config.requester, network.clone(), key.clone()),
            provider: Provider::new(network.clone(), key.clone()),
            mandates: Mandates::default(),
            reputation: Reputation::default(),
            ledger: Ledger::default(),
            jobs: BTreeMap::new(),
            asked: BTreeMap::new(),
            queries: BTreeMap::new(),
            next: 0,
            looped: VecDeque::new(),
            outputs: VecDeque::new(),
            network,
            key,
        }
    }

    /// Books an entry of the journal again after a restart. Entries that are known already change nothing.
    pub fn restore(&mut self, entry: &Entry) {
        // Both refusals mean that the books already say all they can.
        let _ = self.ledger.apply(entry);
    }

    /// Who this is.
    pub fn id(&self) -> PeerId {
        self.key.peer_id()
    }

    /// What is asked and offered around here.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The books.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What is known of others.
    pub fn reputation(&self) -> &Reputation {
        &self.reputation
    }

    /// How often an answer of ours went on with another provider.
    pub fn takeovers(&self) -> requester::Takeovers {
        self.requester.takeovers()
    }

    /// What this peer says of itself now.
    pub fn profile(&self, now: Timestamp) -> Verified<Profile> {
        let profile = Profile {
            versions: Versions { min: VERSION, max: VERSION },
            agents: self.bidder.offers().to_vec(),
            issued: now,
            expires: now.after(Profile::LIFETIME),
        };
        Signed::sign(&self.network, &self.key, profile)
    }

    /// Takes note of what happened.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        self.dispatch(now, event);
        self.route(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for job in self.approvals.late(now) {
            self.end(job, JobError::DeadlineExceeded);
        }
        self.auctions.handle_timeout(now);
        self.requester.handle_timeout(now);
        self.provider.handle_timeout(now);
        self.route(now);
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Peer::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let timeouts = [
            self.approvals.poll_timeout(),
            self.auctions.poll_timeout(),
            self.requester.poll_timeout(),
            self.provider.poll_timeout(),
        ];
        timeouts.into_iter().flatten().min()
    }

    fn dispatch(&mut self, now: Timestamp, event: Event) {
        if let Some(peer) = self.blocked_sender(&event) {
            // The driver may have failed to block it, or forgotten that it did.
            return self.outputs.push_back(Output::Block { peer });
        }
        match event {
            Event::Answer { id, from, answer } => self.on_answer(now, id, from, answer),
            Event::Announced { from, announcement } => self.on_announcement(now, from, &announcement),
            Event::Command(Command::Approve { job }) => self.on_approval(now, job),
            Event::Command(Command::Cancel { job }) => self.end(job, JobError::Cancelled),
            Event::Command(Command::Offer(offers)) => self.on_offers(offers),
            Event::Command(Command::Submit(submission)) => self.on_submission(now, *submission),
            Event::Discovered { query, profiles } => self.on_discovered(now, query, profiles),
            Event::Frame { from, side: Side::Provider, frame } => self.on_order(now, from, frame),
            Event::Frame { from, side: Side::Requester, frame } => self.requester.on_frame(now, from, frame),
            Event::Lost { peer, side: Side::Provider } => self.provider.on_lost(peer),
            Event::Lost { peer, side: Side::Requester } => self.requester.on_lost(peer),
            Event::Misbehaved { peer, evidence } => self.observe(peer, evidence),
            Event::Produced { run, production } => {
                let receipts = self.mandates.receipts(run);
                self.provider.on_production(now, run, production, receipts);
            }
            Event::Request { from, inbound, request } => self.on_request(now, from, inbound, request),
        }
    }

    fn blocked_sender(&self, event: &Event) -> Option<PeerId> {
        match event {
            Event::Frame { from, .. } | Event::Request { from, .. } if self.is_blocked(from) => Some(*from),
            _ => None,
        }
    }

    /// Nobody is cut off from itself.
    fn is_blocked(&self, peer: &PeerId) -> bool {
        *peer != self.id() && self.reputation.is_blocked(peer)
    }

    /// Drains each machine before the next, until all are quiet.
    fn route(&mut self, now: Timestamp) {
        loop {
            if let Some(output) = self.auctions.poll_output() {
                self.on_auction(now, output);
            } else if let Some(output) = self.requester.poll_output() {
                self.on_requester(now, output);
            } else if let Some(output) = self.provider.poll_output() {
                self.on_provider(output);
            } else if let Some(event) = self.looped.pop_front() {
                self.dispatch(now, event);
            } else {
                return;
            }
        }
    }

    fn on_auction(&mut self, now: Timestamp, output: auction::Output) {
        match output {
            auction::Output::Announce(announcement) => self.announce(announcement),
            auction::Output::Ask { to, ask } => self.ask(to, ask),
            auction::Output::Award { job, bid } => self.order(now, job, &bid),
            auction::Output::Counter { to, counter } => self.counter(to, counter),
            auction::Output::Discover { job, sample } => self.discover(job, sample),
            auction::Output::Fail { job, error } => self.end(job, error),
            auction::Output::Observe { peer, evidence } => self.observe(peer, evidence),
            auction::Output::Offer { job, bid } => {
                self.board.on_bid(now, bid.signer(), &bid);
                self.notify(job, JobEvent::Bid(bid));
            }
        }
    }

    fn on_requester(&mut self, now: Timestamp, output: requester::Output) {
        match output {
            requester::Output::Broken { job, error, answered } => {
                self.auctions.on_broken(now, job, error, answered);
            }
            requester::Output::Delivered { job, provider, completion } => {
                self.deliver(job, provider, completion)
            }
            requester::Output::Failed { job, error } => self.end(job, error),
            requester::Output::HangUp { peer } if peer != self.id() => {
                self.outputs.push_back(Output::HangUp { peer });
            }
            requester::Output::HangUp { .. } => {}
            requester::Output::Notify { job, event } => self.notify(job, event),
            requester::Output::Observe { peer, evidence } => self.observe(peer, evidence),
            requester::Output::Send { to, frame } => self.send(to, Side::Requester, frame),
        }
    }

    fn on_provider(&mut self, output: provider::Output) {
        match output {
            provider::Output::Abort { run } => self.outputs.push_back(Output::Abort { run }),
            provider::Output::Close { run, requester, job } => self.on_closed(run, requester, job),
            provider::Output::Observe { peer, evidence } => self.observe(peer, evidence),
            provider::Output::Run(run) => self.outputs.push_back(Output::Run(run)),
            provider::Output::Send { to, frame } => self.send(to, Side::Provider, frame),
            provider::Output::Settled { receipt } => self.settle(&receipt),
        }
    }

    // What both sides share.

    /// True when the entry is in the books now, and will be on disk before anything that follows.
    fn book(&mut self, entry: Entry) -> bool {
        let booked = self.ledger.apply(&entry).is_ok();
        if booked {
            self.outputs.push_back(Output::Record(entry));
        }
        booked
    }

    fn send(&mut self, to: PeerId, side: Side, frame: Frame) {
        if to == self.id() {
            self.looped.push_back(Event::Frame { from: to, side: side.opposite(), frame });
        } else {
            self.outputs.push_back(Output::Frame { to, side, frame });
        }
    }

    fn notify(&mut self, job: JobId, event: JobEvent) {
        self.outputs.push_back(Output::Notify { job, event });
    }

    fn observe(&mut self, peer: PeerId, evidence: Evidence) {
        if self.reputation.observe(peer, evidence) && peer != self.id() {
            self.auctions.exclude(&peer);
            self.outputs.push_back(Output::Block { peer });
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
