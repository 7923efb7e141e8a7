//! The requester's side of the market: from a job to a provider that promised to do it.
//!
//! ```text
//!            ┌ direct: ask up to three ┐
//! discover ──┤                         ├─▶ collect bids ─▶ award ─▶ (refused: next bid, then discover again)
//!            └ auction: announce       ┘        │
//!      └ nothing found: sample the root key ────┴─▶ fail, and say what *is* on offer
//! ```
//!
//! Bids are compared by price for the whole job, then by expected time, then by faults, then by key; so two peers
//! that hold the same bids choose the same winner. A bidder that breaks its promise is never asked again for that job.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crypto::{Digest, Hasher, PeerId, Verified};

use crate::error::{Feature, Limit};
use crate::job::Choosing;
use crate::message::{Announcement, Ask, Bid};
use crate::{
    AgentOffer, Capability, Credits, Evidence, JobError, JobId, JobSpec, ModelOffer, Profile, Requirement,
    Timestamp, Usage,
};

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
    /// Direct quotes, in milliseconds. Whoever is slower than this to quote would be slow to work.
    pub quotes: u64,
    /// Sealed bids, in milliseconds: gossip reaches a thousand peers in a fraction of it.
    pub bids: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { discovery: 6_000, quotes: 2_500, bids: 800 }
    }
}

/// Peers asked for a quote at once: two or three random choices are nearly as good as asking all.
const QUOTES: usize = 3;
/// Bids kept per job. An announcement may reach thousands; the best of the first are enough.
const MAX_BIDS: usize = 64;
/// How long a losing bid may be fallen back on, in milliseconds from its arrival: a little less than a usual lease.
const STANDS: u64 = 4_000;
/// Rounds of discovery per job before giving up.
const MAX_ROUNDS: u32 = 3;
/// Names in the sample of what is on offer.
const SAMPLE: usize = 8;

/// All auctions of this peer.
#[derive(Debug, Default)]
pub struct Auctions {
    config: Config,
    auctions: BTreeMap<JobId, Auction>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Auction {
    spec: JobSpec,
    ask: Ask,
    stage: Stage,
    rounds: u32,
    /// Everybody who was ever asked or bid.
    asked: BTreeSet<PeerId>,
    /// Those who declined, kept silent or broke a promise: not asked again for this job, and no bid of theirs counts.
    excluded: BTreeSet<PeerId>,
    /// Those whose bid was taken in this round; nobody bids twice.
    spoke: BTreeSet<PeerId>,
    /// Those asked in this round, and silent so far.
    silent: BTreeSet<PeerId>,
    /// Who holds the award.
    winner: Option<Verified<Bid>>,
    /// Part of an answer is there: only this engine, with the model that the requirement then names, can go on with it.
    engine: Option<String>,
    /// Who could do it when somebody last looked: asked again without a search when a provider is lost.
    able: Vec<PeerId>,
    bids: Vec<Scored>,
    /// The best refusal so far, to be shown when nobody takes the job.
    refusal: Option<JobError>,
}

#[derive(Debug)]
struct Scored {
    bid: Verified<Bid>,
    faults: u32,
    received: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Awarded,
    Collecting { closes: Timestamp },
    Discovering { until: Timestamp },
    Sampling { until: Timestamp },
}

impl Auctions {
    /// Auctions with their patience.
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
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
            asked: BTreeSet::new(),
            excluded: BTreeSet::new(),
            winner: None,
            engine: None,
            able: Vec::new(),
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
                auction.able = auction.candidates(profiles);
                let candidates = auction.able.iter().copied().take(QUOTES).collect();
                self.solicit(now, job, candidates);
            }
            (Stage::Sampling { .. }, true) => {
                let error = auction.nothing_offered(profiles);
                self.fail(job, error);
            }
            _ => {}
        }
    }

    /// A bid, by either way. `faults` is what is known against its signer.
    pub fn on_bid(&mut self, now: Timestamp, from: PeerId, bid: Verified<Bid>, faults: u32) {
        let Some(auction) = self.auctions.get_mut(&bid.job) else { return };
        let job = bid.job;
        auction.silent.remove(&from);
        match auction.admits(now, from, &bid) {
            Ok(()) => {
                auction.asked.insert(from);
                auction.spoke.insert(from);
                self.outputs.push_back(Output::Offer { job, bid: Box::new(bid.clone()) });
                auction.bids.push(Scored { bid, faults, received: now });
            }
            Err(Some(evidence)) => self.outputs.push_back(Output::Observe { peer: from, evidence }),
            Err(None) => {}
        }
        self.close_when_all_spoke(now, job);
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

    /// The winner failed: on to the next bid, and then to the next round. If some of the answer is there, only the same
    /// model and engine can go on with it, and whoever could do that when the job began is asked at once.
    pub fn on_broken(&mut self, now: Timestamp, job: JobId, error: JobError, answered: bool) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        auction.refusal = Some(error);
        let winner = auction.winner.take();
        auction.excluded.extend(winner.as_ref().map(|bid| bid.signer()));
        auction.bids.retain(|scored| scored.received.after(STANDS) > now);
        if answered {
            auction.pin(winner.as_ref().and_then(|bid| bid.offer.model.as_ref()));
        }
        let known: Vec<_> = auction.able.iter().filter(|p| !auction.excluded.contains(p)).copied().collect();
        if auction.bids.is_empty() && answered && !known.is_empty() && auction.spec.provider.is_none() {
            // The next round, without its search.
            auction.rounds += 1;
            auction.spoke.clear();
            auction.able.clear();
            return self.solicit(now, job, known.into_iter().take(QUOTES).collect());
        }
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
        let collects = |auction: &Auction| matches!(auction.stage, Stage::Collecting { .. });
        self.auctions.get(&job).is_some_and(|auction| auction.is_sealed() && collects(auction))
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
        let due = |auction: &Auction| auction.due().is_some_and(|due| due <= now);
        let jobs: Vec<_> =
            self.auctions.iter().filter(|(_, a)| due(a)).map(|(job, a)| (*job, a.stage)).collect();
        for (job, stage) in jobs {
            match stage {
                Stage::Awarded => {}
                Stage::Collecting { .. } => self.close_collection(now, job),
                Stage::Discovering { .. } => self.on_discovered(now, job, false, &[]),
                Stage::Sampling { .. } => self.on_discovered(now, job, true, &[]),
            }
        }
    }

    /// When [`Auctions::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.auctions.values().filter_map(Auction::due).min()
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
        if auction.is_sealed() {
            let closes = now.after(self.config.bids);
            auction.stage = Stage::Collecting { closes };
            self.outputs.push_back(Output::Announce(Announcement::Job { ask: auction.ask.clone(), closes }));
            return;
        }
        auction.stage = Stage::Collecting { closes: now.after(self.config.quotes) };
        for to in candidates {
            auction.asked.insert(to);
            auction.silent.insert(to);
            self.outputs.push_back(Output::Ask { to, ask: auction.ask.clone() });
        }
    }

    /// Direct quotes need not wait for the deadline when everybody has answered; sealed bids do.
    fn close_when_all_spoke(&mut self, now: Timestamp, job: JobId) {
        let Some(auction) = self.auctions.get(&job) else { return };
        let collecting = matches!(auction.stage, Stage::Collecting { .. });
        if collecting && auction.silent.is_empty() && !auction.is_sealed() {
            self.award(now, job);
        }
    }

    fn close_collection(&mut self, now: Timestamp, job: JobId) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        let silent = std::mem::take(&mut auction.silent);
        auction.excluded.extend(&silent);
        let unreachable = |peer| Output::Observe { peer, evidence: Evidence::Unreachable };
        self.outputs.extend(silent.into_iter().map(unreachable));
        self.award(now, job);
    }

    fn award(&mut self, now: Timestamp, job: JobId) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        match auction.take_best() {
            Some(bid) => {
                auction.stage = Stage::Awarded;
                auction.winner = Some(bid.clone());
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
    fn due(&self) -> Option<Timestamp> {
        self.stage.deadline().map(|deadline| deadline.min(self.spec.limits.deadline))
    }

    /// The first round of an auction collects sealed bids until its end; every other round asks for quotes.
    fn is_sealed(&self) -> bool {
        self.spec.choosing == Choosing::Auction && self.rounds == 1 && self.spec.provider.is_none()
    }

    /// Whom to ask: those who could do it and did not fail this job yet, in an order that differs from job to job.
    fn candidates(&self, profiles: &[Verified<Profile>]) -> Vec<PeerId> {
        let able = |p: &&Verified<Profile>| {
            p.matching(&self.spec.requirement).any(|offer| offer.takes(self.spec.kind) && self.goes_on(offer))
        };
        let new = |p: &&Verified<Profile>| !self.excluded.contains(&p.signer());
        let draw =
            |peer: PeerId| (Hasher::new("draw").part(&self.ask.job.0).part(peer.as_bytes()).finish(), peer);
        let drawn: BTreeSet<_> = profiles.iter().filter(able).filter(new).map(|p| draw(p.signer())).collect();
        drawn.into_iter().take(MAX_BIDS).map(|(_, peer)| peer).collect()
    }

    /// From now on nobody else counts than who has this model and engine.
    fn pin(&mut self, model: Option<&ModelOffer>) {
        let Some(ModelOffer { digest, engine, .. }) = model else { return };
        self.spec.requirement.model = Some(*digest);
        self.ask.requirement.model = Some(*digest);
        self.engine = Some(engine.clone());
        let bids = std::mem::take(&mut self.bids);
        self.bids = bids
            .into_iter()
            .filter(|scored| {
                scored.bid.offer.meets(&self.spec.requirement) && self.goes_on(&scored.bid.offer)
            })
            .collect();
        // However long the answer took until now, there are as many rounds to find who goes on with it.
        self.rounds = 1;
    }

    /// Whether this agent could go on with what is there of the answer.
    fn goes_on(&self, offer: &AgentOffer) -> bool {
        let same = |engine: &String| offer.model.as_ref().is_some_and(|model| model.engine == *engine);
        self.engine.as_ref().is_none_or(same)
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
        let Stage::Collecting { .. } = self.stage else { return Err(None) };
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
        // Nobody was told which engine is wanted.
        if self.bids.len() < MAX_BIDS && self.goes_on(&bid.offer) { Ok(()) } else { Err(None) }
    }

    fn take_best(&mut self) -> Option<Verified<Bid>> {
        let best = (0..self.bids.len()).min_by_key(|i| self.score(&self.bids[*i]))?;
        Some(self.bids.swap_remove(best).bid)
    }

    /// Less is better: price of the longest answer, milliseconds until it is done, faults, key.
    fn score(&self, scored: &Scored) -> (Credits, u64, u32, PeerId) {
        // Four bytes a token is the usual rule of thumb; it is the same for all bids, so only the order matters.
        let usage = Usage { prompt_tokens: self.ask.input_len / 4, completion_tokens: self.ask.max_tokens };
        let Bid { offer, queue, .. } = scored.bid.value();
        let speed = offer.speed;
        let millis = |tokens: u32, rate: u32| u64::from(tokens) * 1000 / u64::from(rate.max(1));
        let one = millis(usage.prompt_tokens, speed.prefill) + millis(usage.completion_tokens, speed.decode);
        let time = one.saturating_mul(u64::from(*queue) + 1);
        (offer.price.cost(usage).unwrap_or(Credits(u64::MAX)), time, scored.faults, scored.bid.signer())
    }
}

impl Stage {
    fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Awarded => None,
            Self::Collecting { closes } => Some(*closes),
            Self::Discovering { until } | Self::Sampling { until } => Some(*until),
        }
    }
}
