//! The requester's side of the market: from a job to a provider that promised to do it.
//!
//! ```text
//!            ┌ direct: ask up to three ┐
//! discover ──┤                         ├─▶ collect bids ─▶ bargain ─▶ award ─▶ (refused: next bid, then discover again)
//!            └ auction: announce       ┘        │
//!      └ nothing found: sample the root key ────┴─▶ fail, and say what *is* on offer
//! ```
//!
//! When bids have stopped coming is the [`super::collecting`]'s to say, which of them wins the [`super::award`] rule's. A
//! bidder that breaks its promise is never asked again for that job.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crypto::{Digest, Hasher, PeerId, Verified};

use crate::error::{Feature, Limit};
use crate::job::Choosing;
use crate::message::{Announcement, Ask, Bid, Counter};
use crate::{
    AgentOffer, Capability, Evidence, JobError, JobId, JobSpec, Limits, Profile, Requirement, Timestamp,
};

use super::award::{self, Candidate, Known};
use super::collecting::Collecting;

/// What the auctions want done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Publish.
    Announce(Announcement),
    /// Ask one peer for a bid.
    Ask {
        /// Whom.
        to: PeerId,
        /// For what.
        ask: Ask,
    },
    /// This bid won.
    Award {
        /// The job.
        job: JobId,
        /// The winner.
        bid: Box<Verified<Bid>>,
    },
    /// Ask the best bidder once whether it would do it for less.
    Counter {
        /// Whom.
        to: PeerId,
        /// For what.
        counter: Counter,
    },
    /// Search for providers of the job, or, with `sample`, for anything that is on offer.
    Discover {
        /// The job.
        job: JobId,
        /// Anything at all.
        sample: bool,
    },
    /// The job found no provider.
    Fail {
        /// The job.
        job: JobId,
        /// Why.
        error: JobError,
    },
    /// A peer did something worth remembering.
    Observe {
        /// Who.
        peer: PeerId,
        /// What.
        evidence: Evidence,
    },
    /// A bid came in.
    Offer {
        /// The job.
        job: JobId,
        /// The bid.
        bid: Box<Verified<Bid>>,
    },
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// A search, in milliseconds. Longer than a lookup over a wide network takes.
    pub discovery: u64,
    /// Direct quotes at most, in milliseconds. Whoever is slower than this to quote would be slow to work.
    pub quotes: u64,
    /// Sealed bids at most, in milliseconds: gossip reaches a thousand peers in a fraction of it.
    pub bids: u64,
    /// For another bid at least, once one came, in milliseconds: less tells nothing on a busy machine.
    pub pause: u64,
    /// Sealed bids at least, in milliseconds: gossip takes a few hops to those who are not neighbours.
    pub least: u64,
    /// The answer to a counter-offer, in milliseconds. The bid stands much longer.
    pub counter: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { discovery: 6_000, quotes: 2_500, bids: 800, pause: 20, least: 40, counter: 500 }
    }
}

/// Peers asked for a quote at once: two or three random choices are nearly as good as asking all.
const QUOTES: usize = 3;
/// An auction is worth its time where more could do the job than are asked at once,
const FEW: usize = QUOTES;
/// where its answer is longer than this, in tokens: a short one is there sooner than bids are,
const SMALL: u32 = 32;
/// and where it has more time than this left, in milliseconds.
const URGENT: u64 = 10_000;
/// Bids kept per job. An announcement may reach thousands; the best of the first are enough.
const MAX_BIDS: usize = 64;
/// How long a losing bid may be fallen back on, in milliseconds from its arrival: a little less than a usual lease.
const STANDS: u64 = 4_000;
/// Rounds of discovery per job before giving up.
const MAX_ROUNDS: u32 = 3;
/// Names in the sample of what is on offer.
const SAMPLE: usize = 8;

/// All auctions of this peer.
#[derive(Debug)]
pub struct Auctions {
    config: Config,
    me: PeerId,
    auctions: BTreeMap<JobId, Auction>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Auction {
    spec: JobSpec,
    ask: Ask,
    stage: Stage,
    rounds: u32,
    /// Whether this round collects sealed bids, and not quotes.
    sealed: bool,
    /// Whether the one counter-offer of this job has been made.
    countered: bool,
    /// Everybody who was ever asked or bid.
    asked: BTreeSet<PeerId>,
    /// Those who declined, kept silent or broke a promise: not asked again for this job, and no bid of theirs counts.
    excluded: BTreeSet<PeerId>,
    /// Those whose bid was taken in this round; nobody bids twice.
    spoke: BTreeSet<PeerId>,
    /// Those asked in this round, and silent so far.
    silent: BTreeSet<PeerId>,
    /// Who holds the award.
    winner: Option<PeerId>,
    bids: Vec<Candidate>,
    /// The best refusal so far, to be shown when nobody takes the job.
    refusal: Option<JobError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Awarded,
    Bargaining { with: PeerId, until: Timestamp },
    Collecting(Collecting),
    Discovering { until: Timestamp },
    Sampling { until: Timestamp },
}

impl Auctions {
    /// Auctions of the peer `me`, with their patience.
    pub fn new(config: Config, me: PeerId) -> Self {
        Self { config, me, auctions: BTreeMap::new(), outputs: VecDeque::new() }
    }

    /// A job looks for a provider. `input` is the salted commitment to its input.
    pub fn open(&mut self, now: Timestamp, job: JobId, spec: JobSpec, input: Digest) {
        let ask = Ask {
            job,
            kind: spec.kind,
            requirement: spec.requirement.clone(),
            input,
            input_len: u32::try_from(spec.input.len()).unwrap_or(u32::MAX),
            max_tokens: spec.sampling.max_tokens,
            deadline: spec.limits.deadline,
        };
        let auction = Auction {
            stage: Stage::Awarded,
            rounds: 0,
            sealed: false,
            countered: false,
            asked: BTreeSet::new(),
            excluded: BTreeSet::new(),
            winner: None,
            spoke: BTreeSet::new(),
            silent: BTreeSet::new(),
            bids: Vec::new(),
            refusal: None,
            spec,
            ask,
        };
        self.auctions.insert(job, auction);
        self.start_round(now, job);
    }

    /// A search came back. `profiles` are fresh, verified and not of blocked peers.
    pub fn on_discovered(
        &mut self,
        now: Timestamp,
        job: JobId,
        sample: bool,
        profiles: &[Verified<Profile>],
    ) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        match (auction.stage, sample) {
            (Stage::Discovering { .. }, false) => {
                let candidates = auction.candidates(profiles);
                auction.sealed = auction.is_worth_announcing(now, candidates.len());
                self.solicit(now, job, candidates);
            }
            (Stage::Sampling { .. }, true) => {
                let error = auction.nothing_offered(profiles);
                self.fail(job, error);
            }
            _ => {}
        }
    }

    /// A bid, by either way. `known` is what is known of its signer.
    pub fn on_bid(&mut self, now: Timestamp, from: PeerId, bid: Verified<Bid>, known: Known) {
        let Some(auction) = self.auctions.get_mut(&bid.job) else { return };
        let job = bid.job;
        auction.silent.remove(&from);
        match auction.admits(now, from, &bid) {
            Ok(()) => {
                auction.asked.insert(from);
                auction.spoke.insert(from);
                self.outputs.push_back(Output::Offer { job, bid: Box::new(bid.clone()) });
                auction.bids.push(Candidate::new(&auction.ask, bid, known, now));
                if let Stage::Collecting(collecting) = &mut auction.stage
                    && from != self.me
                {
                    collecting.on_bid(now);
                }
            }
            Err(Some(evidence)) => self.outputs.push_back(Output::Observe { peer: from, evidence }),
            Err(None) => {}
        }
        self.close_when_all_spoke(now, job);
    }

    /// The answer to a counter-offer: a bid for less, or `None` where the first one stands.
    pub fn on_countered(&mut self, now: Timestamp, job: JobId, from: PeerId, lower: Option<Verified<Bid>>) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        if !matches!(auction.stage, Stage::Bargaining { with, .. } if with == from) {
            return;
        }
        if let Some(lower) = lower {
            let evidence = Evidence::Unexpected;
            match auction.lower(from, &lower) {
                true => self.outputs.push_back(Output::Offer { job, bid: Box::new(lower) }),
                false => self.outputs.push_back(Output::Observe { peer: from, evidence }),
            }
        }
        self.award(now, job);
    }

    /// A peer that was asked said no, or nothing (`None`).
    pub fn on_refusal(&mut self, now: Timestamp, job: JobId, from: PeerId, error: Option<JobError>) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        auction.silent.remove(&from);
        auction.excluded.insert(from);
        match error {
            Some(error) => auction.refusal = Some(error),
            None => self.outputs.push_back(Output::Observe { peer: from, evidence: Evidence::Unreachable }),
        }
        self.close_when_all_spoke(now, job);
    }

    /// The winner failed before it delivered anything: on to the next bid, and then to the next round.
    pub fn on_broken(&mut self, now: Timestamp, job: JobId, error: JobError) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        auction.refusal = Some(error);
        auction.excluded.extend(auction.winner.take());
        auction.bids.retain(|scored| scored.received.after(STANDS) > now);
        self.award(now, job);
    }

    /// A peer was blocked: nothing that it offered counts any more.
    pub fn exclude(&mut self, peer: &PeerId) {
        for auction in self.auctions.values_mut() {
            auction.bids.retain(|scored| scored.bid.signer() != *peer);
        }
    }

    /// True while sealed bids for the job are welcome.
    pub fn is_sealed(&self, job: JobId) -> bool {
        let collects = |auction: &Auction| matches!(auction.stage, Stage::Collecting(_));
        self.auctions.get(&job).is_some_and(|auction| auction.sealed && collects(auction))
    }

    /// The job is over, one way or the other.
    pub fn close(&mut self, job: JobId) {
        self.auctions.remove(&job);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let late = |auction: &Auction| auction.stage != Stage::Awarded && auction.spec.limits.deadline <= now;
        let late: Vec<_> = self.auctions.iter().filter(|(_, a)| late(a)).map(|(job, _)| *job).collect();
        for job in late {
            self.fail(job, JobError::DeadlineExceeded);
        }
        let config = self.config;
        let due = |auction: &Auction| auction.due(&config).is_some_and(|due| due <= now);
        let jobs: Vec<_> =
            self.auctions.iter().filter(|(_, a)| due(a)).map(|(job, a)| (*job, a.stage)).collect();
        for (job, stage) in jobs {
            match stage {
                Stage::Awarded => {}
                Stage::Bargaining { .. } => self.award(now, job),
                Stage::Collecting(collecting) => self.close_collection(now, job, collecting.closes <= now),
                Stage::Discovering { .. } => self.on_discovered(now, job, false, &[]),
                Stage::Sampling { .. } => self.on_discovered(now, job, true, &[]),
            }
        }
    }

    /// When [`Auctions::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.auctions.values().filter_map(|auction| auction.due(&self.config)).min()
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn start_round(&mut self, now: Timestamp, job: JobId) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        auction.rounds += 1;
        // Bids of an earlier round have expired; whoever made one and lost may be asked again.
        auction.bids.clear();
        auction.spoke.clear();
        auction.sealed = false;
        match auction.spec.provider {
            Some(provider) if auction.rounds == 1 => self.solicit(now, job, vec![provider]),
            Some(_) => self.give_up(now, job),
            None if auction.rounds > MAX_ROUNDS => self.give_up(now, job),
            None => {
                auction.stage = Stage::Discovering { until: now.after(self.config.discovery) };
                self.outputs.push_back(Output::Discover { job, sample: false });
            }
        }
    }

    /// Asks, or announces to, those who were found.
    fn solicit(&mut self, now: Timestamp, job: JobId, candidates: Vec<PeerId>) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        if candidates.is_empty() {
            return self.give_up(now, job);
        }
        let collecting = Collecting::open(now, auction.sealed, &self.config);
        auction.stage = Stage::Collecting(collecting);
        let ask = auction.ask.clone();
        if auction.sealed {
            let closes = collecting.closes;
            return self.outputs.push_back(Output::Announce(Announcement::Job { ask, closes }));
        }
        for to in candidates.into_iter().take(QUOTES) {
            auction.asked.insert(to);
            auction.silent.insert(to);
            self.outputs.push_back(Output::Ask { to, ask: ask.clone() });
        }
    }

    /// There is nothing to wait for when everybody who was asked has answered, or no further bid would count.
    fn close_when_all_spoke(&mut self, now: Timestamp, job: JobId) {
        let Some(auction) = self.auctions.get(&job) else { return };
        let collecting = matches!(auction.stage, Stage::Collecting(_));
        let spoke = if auction.sealed { auction.bids.len() >= MAX_BIDS } else { auction.silent.is_empty() };
        if collecting && spoke {
            self.bargain(now, job);
        }
    }

    /// Who is silent at the end is held to be gone; who was only slower than others is not.
    fn close_collection(&mut self, now: Timestamp, job: JobId, at_the_end: bool) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        let silent = std::mem::take(&mut auction.silent);
        if at_the_end {
            auction.excluded.extend(&silent);
            let unreachable = |peer| Output::Observe { peer, evidence: Evidence::Unreachable };
            self.outputs.extend(silent.into_iter().map(unreachable));
        }
        self.bargain(now, job);
    }

    /// Once for a job, the best bidder that asks more than the requester wants to pay is told so.
    fn bargain(&mut self, now: Timestamp, job: JobId) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        let Some((to, counter)) = auction.counter() else { return self.award(now, job) };
        auction.countered = true;
        auction.stage = Stage::Bargaining { with: to, until: now.after(self.config.counter) };
        self.outputs.push_back(Output::Counter { to, counter });
    }

    fn award(&mut self, now: Timestamp, job: JobId) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        match auction.take_best() {
            Some(bid) => {
                auction.stage = Stage::Awarded;
                auction.winner = Some(bid.signer());
                self.outputs.push_back(Output::Award { job, bid: Box::new(bid) });
            }
            None => self.start_round(now, job),
        }
    }

    /// Nobody is left to ask. Without any refusal nobody offers this at all, and the user learns what is offered.
    fn give_up(&mut self, now: Timestamp, job: JobId) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        let asked = u32::try_from(auction.asked.len()).unwrap_or(u32::MAX);
        match auction.refusal.take() {
            Some(refusal) => self.fail(job, refusal),
            None if asked > 0 => self.fail(job, JobError::NoTaker { asked }),
            None => {
                auction.stage = Stage::Sampling { until: now.after(self.config.discovery) };
                self.outputs.push_back(Output::Discover { job, sample: true });
            }
        }
    }

    fn fail(&mut self, job: JobId, error: JobError) {
        self.auctions.remove(&job);
        self.outputs.push_back(Output::Fail { job, error });
    }
}

impl Auction {
    /// When something is to be done: the stage's end, or the job's if that is sooner. A job that is awarded is watched by
    /// its session.
    fn due(&self, config: &Config) -> Option<Timestamp> {
        self.stage.due(config).map(|due| due.min(self.spec.limits.deadline))
    }

    /// The first round of an auction collects sealed bids; every other round asks for quotes.
    fn is_worth_announcing(&self, now: Timestamp, able: usize) -> bool {
        let worth = match self.spec.choosing {
            Choosing::Auction => true,
            Choosing::Auto => {
                let Limits { deadline, .. } = self.spec.limits;
                // A preferred peer is asked by name: what it has ahead of others is worth more than a lower price.
                self.spec.preference.peer.is_none()
                    && able > FEW
                    && self.ask.max_tokens > SMALL
                    && deadline.since(now) > URGENT
            }
            Choosing::Direct => false,
        };
        worth && self.rounds == 1
    }

    /// Whom to ask: those who could do it and did not fail this job yet, in an order that differs from job to job. A
    /// preferred peer comes first, whether the search has found it or not.
    fn candidates(&self, profiles: &[Verified<Profile>]) -> Vec<PeerId> {
        let able =
            |p: &&Verified<Profile>| p.matching(&self.spec.requirement).any(|o| o.takes(self.spec.kind));
        let new = |p: &&Verified<Profile>| !self.excluded.contains(&p.signer());
        let draw =
            |peer: PeerId| (Hasher::new("draw").part(&self.ask.job.0).part(peer.as_bytes()).finish(), peer);
        let drawn: BTreeSet<_> = profiles.iter().filter(able).filter(new).map(|p| draw(p.signer())).collect();
        let preferred = self.spec.preference.peer.filter(|peer| !self.excluded.contains(peer));
        let others = drawn.into_iter().map(|(_, peer)| peer).filter(|peer| Some(*peer) != preferred);
        preferred.into_iter().chain(others).collect()
    }

    /// Why nobody could be asked: what is wanted costs more than the job may spend, is done by nobody who offers the
    /// capability, or is not on offer at all.
    fn nothing_offered(&self, profiles: &[Verified<Profile>]) -> JobError {
        let at_any_price = Requirement { ceiling: None, ..self.spec.requirement.clone() };
        let mut able = profiles.iter().flat_map(|profile| profile.matching(&at_any_price)).peekable();
        if able.peek().is_some() {
            return match able.any(|offer| offer.takes(self.spec.kind)) {
                true => JobError::Limit { limit: Limit::Budget },
                false => JobError::Unsupported { feature: Feature::JobKind },
            };
        }
        let names: BTreeSet<Capability> =
            profiles.iter().flat_map(|p| p.agents.iter().map(|a| a.capability.clone())).collect();
        JobError::NothingOffered {
            capability: self.spec.requirement.capability.clone(),
            sample: names.into_iter().take(SAMPLE).collect(),
        }
    }

    /// Whether a bid counts; if not, what is to be held against its signer, if anything.
    fn admits(&self, now: Timestamp, from: PeerId, bid: &Verified<Bid>) -> Result<(), Option<Evidence>> {
        let Stage::Collecting(_) = self.stage else { return Err(None) };
        if bid.signer() != from {
            return Err(Some(Evidence::BadSignature));
        }
        // Expiry is by the bidder's clock, which may differ from ours.
        if bid.expires.after(Profile::CLOCK_SKEW) <= now {
            return Err(Some(Evidence::Expired));
        }
        if self.spoke.contains(&from) {
            return Err(Some(Evidence::Replayed));
        }
        if self.excluded.contains(&from) {
            return Err(None);
        }
        let wrong_peer = self.spec.provider.is_some_and(|provider| provider != from);
        let able = bid.offer.meets(&self.spec.requirement) && bid.offer.takes(self.spec.kind);
        if wrong_peer || !able {
            return Err(Some(Evidence::Unexpected));
        }
        if self.bids.len() < MAX_BIDS { Ok(()) } else { Err(None) }
    }

    fn take_best(&mut self) -> Option<Verified<Bid>> {
        let best = award::best(&self.bids, &self.spec.preference)?;
        Some(self.bids.swap_remove(best).bid)
    }

    /// The counter-offer to the best bid, if it is the first of this job and the bid asks more than is wanted.
    fn counter(&self) -> Option<(PeerId, Counter)> {
        let target = self.spec.preference.target.filter(|_| !self.countered)?;
        let best = &self.bids[award::best(&self.bids, &self.spec.preference)?].bid;
        let price = best.price().cheaper(target);
        let counter = Counter { job: best.job, bid: best.digest(), price };
        (price != best.price()).then(|| (best.signer(), counter))
    }

    /// Puts a bid for less in the place of the bidder's first. False if it is anything else than that.
    fn lower(&mut self, from: PeerId, lower: &Verified<Bid>) -> bool {
        let Some(first) = self.bids.iter_mut().find(|first| first.bid.signer() == from) else { return false };
        let (price, asked) = (lower.price(), first.bid.price());
        let offer = AgentOffer { price, ..first.bid.offer.clone() };
        let same = Bid { offer, ..first.bid.value().clone() } == *lower.value();
        let less = price.within(&asked) && price != asked;
        if same && less {
            *first = first.lowered(&self.ask, lower.clone());
        }
        same && less
    }
}

impl Stage {
    fn due(&self, config: &Config) -> Option<Timestamp> {
        match self {
            Self::Awarded => None,
            Self::Bargaining { until, .. } => Some(*until),
            Self::Collecting(collecting) => Some(collecting.due(config)),
            Self::Discovering { until } | Self::Sampling { until } => Some(*until),
        }
    }
}
