//! The requester's side of the market: from a job to a provider that promised to do it.
//!
//! ```text
//!            ┌ direct: ask up to three ┐
//! discover ──┤                         ├─▶ collect bids ─▶ bargain ─▶ award ─▶ (refused: next bid, then discover again)
//!            └ auction: announce       ┘        │
//!      └ nothing found: sample the root key ────┴─▶ fail, and say what *is* on offer
//! ```
//!
//! When bids have stopped coming is the `collecting`'s to say, which of them wins the `award` rule's. A
//! bidder that breaks its promise is never asked again for that job.

mod job;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crypto::{Digest, PeerId, Verified};

use crate::message::{Announcement, Ask, Bid, Counter};
use crate::{Evidence, JobError, JobId, JobSpec, Profile, Timestamp};

use self::job::{Auction, Stage};
use super::award::{Candidate, Known, Load};
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
        bid: Verified<Bid>,
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
        bid: Verified<Bid>,
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
    /// Until another search for a provider that was lost, where there is no other, in milliseconds: it may only have been slow.
    pub pause_for_the_lost: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            discovery: 6_000,
            quotes: 2_500,
            bids: 800,
            pause: 20,
            least: 40,
            counter: 500,
            pause_for_the_lost: 1_000,
        }
    }
}

/// Peers asked for a quote at once: two or three random choices are nearly as good as asking all.
const QUOTES: usize = 3;
/// Bids kept per job. An announcement may reach thousands; the best of the first are enough.
const MAX_BIDS: usize = 64;
/// How long a losing bid may be fallen back on, in milliseconds from its arrival: a little less than a usual lease.
const STANDS: u64 = 4_000;
/// Rounds of discovery per job before giving up,
const MAX_ROUNDS: u32 = 3;
/// and while there is part of an answer whose provider was lost.
const MAX_ROUNDS_FOR_THE_LOST: u32 = 6;

/// All auctions of this peer.
#[derive(Debug)]
pub struct Auctions {
    config: Config,
    me: PeerId,
    /// Boxed, because a map moves what it holds.
    auctions: BTreeMap<JobId, Box<Auction>>,
    load: Load,
    outputs: VecDeque<Output>,
}

impl Auctions {
    /// Auctions of the peer `me`, with their patience.
    pub fn new(config: Config, me: PeerId) -> Self {
        Self { config, me, auctions: BTreeMap::new(), load: Load::new(), outputs: VecDeque::new() }
    }

    /// A job looks for a provider. `input` is the salted commitment to its input.
    pub fn open(&mut self, now: Timestamp, job: JobId, spec: Arc<JobSpec>, input: Digest) {
        self.auctions.insert(job, Box::new(Auction::new(job, spec, input)));
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
                let candidates = auction.candidates(profiles, &self.load);
                auction.able = candidates.iter().copied().take(MAX_BIDS).collect();
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
        let counted = self.load.get(&from).copied().unwrap_or(0);
        let Some(auction) = self.auctions.get_mut(&bid.job) else { return };
        let job = bid.job;
        auction.silent.remove(&from);
        match auction.admits(now, from, &bid) {
            Ok(()) => {
                auction.asked.insert(from);
                auction.spoke.insert(from);
                self.outputs.push_back(Output::Offer { job, bid: bid.clone() });
                auction.bids.push(Candidate::new(&auction.ask, bid, known, (now, counted)));
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
                true => self.outputs.push_back(Output::Offer { job, bid: lower }),
                false => self.outputs.push_back(Output::Observe { peer: from, evidence }),
            }
        }
        self.award(now, job);
    }

    /// A peer that was asked said no, or nothing (`None`).
    pub fn on_refusal(&mut self, now: Timestamp, job: JobId, from: PeerId, error: Option<JobError>) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        auction.silent.remove(&from);
        // Who was lost may be back by the next search.
        if error.is_some() || !auction.may_find_the_lost() {
            auction.excluded.insert(from);
        }
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
        // Who was only out of reach may be back when nobody else is there: the next search may find it.
        let lost = error == JobError::ProviderLost;
        auction.refusal = Some(error);
        let winner = auction.winner.take();
        let signer = winner.as_ref().map(|bid| bid.signer());
        auction.excluded.extend(signer.filter(|_| !lost));
        auction.bids.retain(|known| known.received.after(STANDS) > now);
        if answered {
            auction.pin(winner.as_ref().and_then(|bid| bid.offer.model.as_ref()));
        }
        let others = |peer: &&PeerId| !auction.excluded.contains(peer) && Some(**peer) != signer;
        let known: Vec<_> = auction.able.iter().filter(others).copied().collect();
        let without_search =
            auction.bids.is_empty() && answered && !known.is_empty() && auction.spec.provider.is_none();
        if without_search {
            // The next round.
            auction.rounds += 1;
            auction.spoke.clear();
            auction.sealed = false;
        }
        self.unload(winner);
        match without_search {
            true => self.solicit(now, job, known),
            false => self.award(now, job),
        }
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
        let closed = self.auctions.remove(&job);
        self.unload(closed.and_then(|auction| auction.winner));
    }

    /// What a peer had won it has not to do any more.
    fn unload(&mut self, winner: Option<Verified<Bid>>) {
        let Some(peer) = winner.map(|bid| bid.signer()) else { return };
        if let Some(own) = self.load.get_mut(&peer) {
            *own -= 1;
            if *own == 0 {
                self.load.remove(&peer);
            }
        }
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
                Stage::Pausing { .. } => self.start_round(now, job),
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
            None if auction.rounds > auction.most_rounds() => self.give_up(now, job),
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
            return match auction.may_find_the_lost() {
                true => self.next_round(now, job),
                false => self.give_up(now, job),
            };
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
            // Who is silent while an answer waits to be gone on with may only be busy, and is asked again.
            let for_good = !auction.may_find_the_lost();
            auction.excluded.extend(silent.iter().filter(|_| for_good));
            let unreachable = |peer| Output::Observe { peer, evidence: Evidence::Unreachable };
            self.outputs.extend(silent.into_iter().map(unreachable));
        }
        self.bargain(now, job);
    }

    /// Once for a job, the best bidder that asks more than the requester wants to pay is told so.
    fn bargain(&mut self, now: Timestamp, job: JobId) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        let Some((to, counter)) = auction.counter(&self.load) else { return self.award(now, job) };
        auction.countered = true;
        auction.stage = Stage::Bargaining { with: to, until: now.after(self.config.counter) };
        self.outputs.push_back(Output::Counter { to, counter });
    }

    fn award(&mut self, now: Timestamp, job: JobId) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        match auction.take_best(&self.load) {
            Some(bid) => {
                *self.load.entry(bid.signer()).or_default() += 1;
                auction.stage = Stage::Awarded;
                auction.winner = Some(bid.clone());
                self.outputs.push_back(Output::Award { job, bid });
            }
            None => self.next_round(now, job),
        }
    }

    /// Another round; if the last search for somebody to go on with an answer was in vain, after a while.
    fn next_round(&mut self, now: Timestamp, job: JobId) {
        let Some(auction) = self.auctions.get_mut(&job) else { return };
        if auction.rounds > 1 && auction.may_find_the_lost() {
            return auction.stage = Stage::Pausing { until: now.after(self.config.pause_for_the_lost) };
        }
        self.start_round(now, job);
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
        self.close(job);
        self.outputs.push_back(Output::Fail { job, error });
    }
}
