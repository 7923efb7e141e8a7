//! The provider's side of the market: what is on offer, and which promises stand.
//!
//! A bid is a lease: the place it promises is kept until the bid expires. So a provider never bids for more work
//! than it has places for, and a requester that collects quotes and does not come costs it seconds at most. `Busy`
//! is an answer; silence is not.

use std::collections::BTreeMap;

use crypto::{Digest, PeerId};

use crate::error::{Feature, OrderFault};
use crate::message::{Ask, Bid};
use crate::{AgentOffer, JobError, JobId, Order, Timestamp};

/// How much this peer takes on.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Jobs accepted at once, running and waiting. The engine's own queue is at least this long.
    pub places: usize,
    /// Of these, how many one requester may hold: one busy user must not lock out the others.
    pub places_per_requester: usize,
    /// How long a bid stands, in milliseconds. Long enough for an auction to close and the order to arrive.
    pub lease: u64,
    /// How many jobs run at the same time; those beyond wait and are counted in a bid's queue.
    pub slots: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { places: 64, places_per_requester: 32, lease: 5_000, slots: 2 }
    }
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
    /// The bid that promised it, and until when; `None` once the job has started.
    bid: Option<(Digest, Timestamp)>,
    offer: AgentOffer,
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

    /// Makes an offer for a job, and keeps a place for it once [`Bidder::promise`] has named the signed bid.
    ///
    /// # Errors
    /// [`JobError::NothingOffered`], [`JobError::Unsupported`] when no agent here takes such jobs, [`JobError::Busy`],
    /// [`JobError::DeadlineExceeded`], or [`JobError::Order`] when the job is running here already.
    pub fn bid(&mut self, now: Timestamp, from: PeerId, ask: &Ask) -> Result<Bid, JobError> {
        self.expire(now);
        if ask.deadline <= now {
            return Err(JobError::DeadlineExceeded);
        }
        let offer = self.choose(ask)?;
        if self.leases.get(&(from, ask.job)).is_some_and(|lease| lease.bid.is_none()) {
            // A new promise in the place of the running job would hide the job, and then expire under it.
            return Err(JobError::Order { why: OrderFault::Replayed });
        }
        let theirs = self.leases.keys().filter(|(requester, _)| *requester == from).count();
        if self.leases.len() >= self.config.places || theirs >= self.config.places_per_requester {
            return Err(JobError::Busy { retry_after_ms: self.config.lease });
        }
        let queue = self.leases.len().saturating_sub(self.config.slots.saturating_sub(1));
        let queue = u32::try_from(queue).unwrap_or(u32::MAX);
        let expires = now.after(self.config.lease);
        Ok(Bid { job: ask.job, requester: from, offer: offer.clone(), queue, expires })
    }

    /// Keeps the place that a signed bid promises.
    pub fn promise(&mut self, digest: Digest, bid: &Bid) {
        let lease = Lease { bid: Some((digest, bid.expires)), offer: bid.offer.clone() };
        self.leases.insert((bid.requester, bid.job), lease);
    }

    /// Turns the lease that `order` refers to into a running job. Returns the offer that was made.
    ///
    /// # Errors
    /// [`JobError::Order`] when no lease stands, or the order asks for something else than was offered;
    /// [`JobError::Unsupported`] when that is a kind of job.
    pub fn claim(&mut self, now: Timestamp, from: PeerId, order: &Order) -> Result<AgentOffer, JobError> {
        self.expire(now);
        let refuse = |why| JobError::Order { why };
        let lease = self.leases.get_mut(&(from, order.job)).ok_or_else(|| refuse(OrderFault::Lease))?;
        let Some((bid, _)) = lease.bid else { return Err(refuse(OrderFault::Replayed)) };
        let offer = &lease.offer;
        let same = bid == order.bid
            && offer.agent == order.agent
            && offer.price == order.price
            && order.capability.covers(&offer.capability)
            && offer.model.as_ref().map(|model| model.digest) == order.model;
        if !same {
            return Err(refuse(OrderFault::Lease));
        }
        if !offer.takes(order.kind) {
            return Err(JobError::Unsupported { feature: Feature::JobKind });
        }
        lease.bid = None;
        Ok(lease.offer.clone())
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
        self.leases.retain(|_, lease| lease.bid.is_none_or(|(_, expires)| expires > now));
    }
}
