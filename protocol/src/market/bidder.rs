//! The provider's side of the market: what is on offer, and which promises stand.
//!
//! A bid is a lease: the place it promises is kept until the bid expires. So a provider never bids for more work
//! than it has places for, and a requester that collects quotes and does not come costs it seconds at most. `Busy`
//! is an answer; silence is not.

use std::collections::BTreeMap;
use std::iter;

use crypto::{Digest, PeerId, Verified};

use crate::error::{Feature, Limit, OrderFault};
use crate::message::{Ask, Bid, Counter};
use crate::{AgentOffer, JobError, JobId, Order, Price, Timestamp};

use super::strategy::{Quote, Situation, Strategy};

/// How much this peer takes on, and for how much.
#[derive(Clone, Debug)]
pub struct Config {
    /// Jobs accepted at once, running and waiting. The engine's own queue is at least this long.
    pub places: usize,
    /// Of these, how many one requester may hold: one busy user must not lock out the others.
    pub places_per_requester: usize,
    /// How long a bid stands, in milliseconds. Long enough for an auction to close and the order to arrive.
    pub lease: u64,
    /// How many jobs run at the same time; those beyond wait and are counted in a bid's queue.
    pub slots: usize,
    /// What it asks.
    pub strategy: Strategy,
}

impl Default for Config {
    fn default() -> Self {
        let strategy = Strategy::default();
        Self { places: 64, places_per_requester: 32, lease: 5_000, slots: 2, strategy }
    }
}

/// A bid that is not signed yet, and what it could come down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// What will be promised.
    pub bid: Bid,
    /// The lowest price that a counter-offer can reach.
    pub floor: Price,
}

/// Offers and leases of this peer.
#[derive(Clone, Debug, Default)]
pub struct Bidder {
    config: Config,
    offers: Vec<AgentOffer>,
    leases: BTreeMap<(PeerId, JobId), Lease>,
}

#[derive(Clone, Debug)]
struct Lease {
    /// What was promised; `None` once the job has started.
    promise: Option<Promise>,
}

/// A bid that stands, and what became of it.
#[derive(Clone, Debug)]
struct Promise {
    bid: Verified<Bid>,
    /// What a counter-offer can bring the price down to.
    floor: Price,
    /// The bid that answered the counter-offer: one of the two will be ordered, and the other is void then.
    lowered: Option<Verified<Bid>>,
    /// Whether there was a counter-offer.
    countered: bool,
}

impl Bidder {
    /// A bidder with nothing on offer.
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Replaces what is on offer.
    pub fn offer(&mut self, offers: Vec<AgentOffer>) {
        self.offers = offers;
    }

    /// What is on offer.
    pub fn offers(&self) -> &[AgentOffer] {
        &self.offers
    }

    /// Makes an offer for a job. The place for it is kept once [`Bidder::promise`] has the signed bid.
    ///
    /// # Errors
    /// [`JobError::NothingOffered`], [`JobError::Unsupported`] when no agent here takes such jobs, [`JobError::Busy`],
    /// [`JobError::DeadlineExceeded`], [`JobError::Limit`] when the job pays too little, or [`JobError::Order`] when it
    /// is running here already.
    pub fn bid(&mut self, now: Timestamp, from: PeerId, ask: &Ask) -> Result<Quoted, JobError> {
        self.expire(now);
        if ask.deadline <= now {
            return Err(JobError::DeadlineExceeded);
        }
        let offer = self.choose(ask)?;
        if self.leases.get(&(from, ask.job)).is_some_and(|lease| lease.promise.is_none()) {
            // A new promise in the place of the running job would hide the job, and then expire under it.
            return Err(JobError::Order { why: OrderFault::Replayed });
        }
        // A promise for this very job is about to be replaced, and holds no place against itself.
        let others = || self.leases.keys().filter(|held| **held != (from, ask.job));
        let (held, theirs) = (others().count(), others().filter(|(requester, _)| *requester == from).count());
        let retry_after_ms = self.config.lease;
        if held >= self.config.places || theirs >= self.config.places_per_requester {
            return Err(JobError::Busy { retry_after_ms });
        }
        let situation = Situation { requester: from, ask, held, theirs, retry_after_ms };
        let Quote { price, floor } = self.config.strategy.quote(offer.price, &situation)?;
        // What was promised to the same peer and not ordered yet may go elsewhere: it asks several for each job, and
        // knows itself what it has given to whom.
        let unclaimed = |(requester, job): &(PeerId, JobId), lease: &Lease| {
            *requester == from && *job != ask.job && lease.promise.is_some()
        };
        let unclaimed = self.leases.iter().filter(|(held, lease)| unclaimed(held, lease)).count();
        let queue = (held - unclaimed).saturating_sub(self.config.slots.saturating_sub(1));
        let queue = u32::try_from(queue).unwrap_or(u32::MAX);
        let (offer, expires) = (AgentOffer { price, ..offer.clone() }, now.after(self.config.lease));
        Ok(Quoted { bid: Bid { job: ask.job, requester: from, offer, queue, expires }, floor })
    }

    /// Keeps the place that a signed bid promises.
    pub fn promise(&mut self, bid: Verified<Bid>, floor: Price) {
        let key = (bid.requester, bid.job);
        let promise = Promise { bid, floor, lowered: None, countered: false };
        self.leases.insert(key, Lease { promise: Some(promise) });
    }

    /// What a counter-offer gets: the same bid for less, but for nothing under its floor. The first bid stands, and so does
    /// the second once [`Bidder::lower`] has it.
    ///
    /// # Errors
    /// [`JobError::Order`] when no such bid stands or it was countered before, [`JobError::Invalid`] when the price is no
    /// lower than the bid's, [`JobError::Limit`] when the bidder stays with its price.
    pub fn counter(&mut self, now: Timestamp, from: PeerId, counter: &Counter) -> Result<Bid, JobError> {
        self.expire(now);
        let refuse = |why| Err(JobError::Order { why });
        let Some(lease) = self.leases.get_mut(&(from, counter.job)) else { return refuse(OrderFault::Lease) };
        let Some(promise) = &mut lease.promise else { return refuse(OrderFault::Replayed) };
        if promise.countered {
            return refuse(OrderFault::Replayed);
        }
        if promise.bid.digest() != counter.bid {
            return refuse(OrderFault::Lease);
        }
        let asked = promise.bid.price();
        if counter.price == asked || !counter.price.within(&asked) {
            return Err(JobError::invalid("price", "must be lower than the bid's"));
        }
        promise.countered = true;
        let price = counter.price.dearer(promise.floor);
        if price == asked {
            return Err(JobError::Limit { limit: Limit::Budget });
        }
        let offer = AgentOffer { price, ..promise.bid.offer.clone() };
        Ok(Bid { offer, ..promise.bid.value().clone() })
    }

    /// Keeps the second promise beside the first.
    pub fn lower(&mut self, bid: Verified<Bid>) {
        let lease = self.leases.get_mut(&(bid.requester, bid.job));
        if let Some(promise) = lease.and_then(|lease| lease.promise.as_mut()) {
            promise.lowered = Some(bid);
        }
    }

    /// Turns the lease that `order` refers to into a running job. Returns the bid that is ordered.
    ///
    /// # Errors
    /// [`JobError::Order`] when no lease stands, or the order asks for something else than was offered;
    /// [`JobError::Unsupported`] when that is a kind of job.
    pub fn claim(&mut self, now: Timestamp, from: PeerId, order: &Order) -> Result<Verified<Bid>, JobError> {
        self.expire(now);
        let refuse = |why| JobError::Order { why };
        let lease = self.leases.get_mut(&(from, order.job)).ok_or_else(|| refuse(OrderFault::Lease))?;
        let promise = lease.promise.as_ref().ok_or_else(|| refuse(OrderFault::Replayed))?;
        let bid = promise.bid_of(order.bid).ok_or_else(|| refuse(OrderFault::Lease))?.clone();
        let offer = &bid.offer;
        let same = offer.agent == order.agent
            && offer.price == order.price
            && order.capability.covers(&offer.capability)
            && offer.model.as_ref().map(|model| model.digest) == order.model;
        if !same {
            return Err(refuse(OrderFault::Lease));
        }
        if !offer.takes(order.kind) {
            return Err(JobError::Unsupported { feature: Feature::JobKind });
        }
        lease.promise = None;
        Ok(bid)
    }

    /// The job is over; its place is free.
    pub fn release(&mut self, requester: PeerId, job: JobId) {
        self.leases.remove(&(requester, job));
    }

    /// The most general of the agents that could do it: the nearest to what was asked for.
    fn choose(&self, ask: &Ask) -> Result<&AgentOffer, JobError> {
        let mut able = self.offers.iter().filter(|offer| offer.meets(&ask.requirement)).peekable();
        if able.peek().is_none() {
            return Err(JobError::NothingOffered {
                capability: ask.requirement.capability.clone(),
                sample: self.offers.iter().map(|offer| offer.capability.clone()).collect(),
            });
        }
        let willing = able.filter(|offer| offer.takes(ask.kind));
        let nearest = willing.min_by_key(|offer| offer.capability.as_str().len());
        nearest.ok_or(JobError::Unsupported { feature: Feature::JobKind })
    }

    fn expire(&mut self, now: Timestamp) {
        self.leases.retain(|_, lease| lease.promise.as_ref().is_none_or(|promise| promise.bid.expires > now));
    }
}

impl Promise {
    /// The bid of that name, if it is one of this promise's.
    fn bid_of(&self, name: Digest) -> Option<&Verified<Bid>> {
        iter::once(&self.bid).chain(&self.lowered).find(|bid| bid.digest() == name)
    }
}
