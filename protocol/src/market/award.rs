//! Which bid wins (SPEC §6.4): a sum of losses, each weighted by the job.
//!
//! A loss says by how many thousandths a bid is worse than the best of those that stand. Losses are integers, so two
//! peers that hold the same bids and know the same of the bidders choose the same winner on any machine.

#![deny(clippy::float_arithmetic)]

use std::collections::BTreeMap;

use crypto::{PeerId, Verified};

use crate::message::{Ask, Bid};
use crate::{Credits, Preference, Timestamp, Usage};

/// Beyond ten times the best a bid is hopeless, and by how much makes no difference.
const MAX_LOSS: u64 = 10_000;
/// What a rate of one is in thousandths.
const WHOLE: u64 = 1_000;

/// What this peer knows of a bidder from jobs of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Answers that it delivered.
    pub delivered: u32,
    /// Facts against it.
    pub faults: u32,
}

/// A bid, and what it means to the requester.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) bid: Verified<Bid>,
    pub(super) received: Timestamp,
    known: Known,
    /// Of the longest answer.
    cost: Credits,
    /// Milliseconds until the longest answer is there, as the bid says.
    time: u64,
    /// How many jobs its bidder had won from this peer when it came: the bid counts those.
    counted: u64,
}

impl Candidate {
    pub(super) fn new(
        ask: &Ask,
        bid: Verified<Bid>,
        known: Known,
        (received, counted): (Timestamp, u64),
    ) -> Self {
        // Four bytes a token is the usual rule of thumb; it is the same for all bids, so only the order matters.
        let usage = Usage { prompt_tokens: ask.input_len / 4, completion_tokens: ask.max_tokens };
        let cost = bid.price().cost(usage).unwrap_or(Credits(u64::MAX));
        Self { time: bid.time(usage), cost, bid, received, known, counted }
    }

    /// The same bidder's better offer.
    pub(super) fn lowered(&self, ask: &Ask, bid: Verified<Bid>) -> Self {
        Self::new(ask, bid, self.known, (self.received, self.counted))
    }

    /// The same after what this peer has given the bidder since.
    fn time(&self, load: &Load) -> u64 {
        let own = self.own(load).saturating_sub(self.counted);
        let alone = self.time / (u64::from(self.bid.queue) + 1);
        self.time.saturating_add(alone.saturating_mul(own))
    }

    /// How many jobs its bidder has from this peer.
    fn own(&self, load: &Load) -> u64 {
        load.get(&self.bid.signer()).copied().unwrap_or(0)
    }
}

/// How many jobs of this peer's each bidder has won that are not over. Bids do not tell: many that are made at once all
/// say that nobody waits.
pub(super) type Load = BTreeMap<PeerId, u64>;

/// The index of the bid that wins; none if there are none.
pub(super) fn best(bids: &[Candidate], preference: &Preference, load: &Load) -> Option<usize> {
    let cheapest = bids.iter().map(|bid| bid.cost.0).min()?;
    let times: Vec<u64> = bids.iter().map(|bid| bid.time(load)).collect();
    let soonest = times.iter().copied().min()?;
    let score = |i: usize| score(&bids[i], (times[i], bids[i].own(load)), preference, (cheapest, soonest));
    (0..bids.len()).min_by_key(|i| score(*i))
}

/// Less is better. Whatever weighs nothing, or too little to tell, still decides between equals.
fn score(
    bid: &Candidate,
    (time, own): (u64, u64),
    preference: &Preference,
    (cheapest, soonest): (u64, u64),
) -> (u64, Credits, u64, u64, u32, PeerId) {
    let weights = preference.weights;
    let far = preference.peer.is_some_and(|peer| peer != bid.bid.signer());
    let losses = [
        (weights.price, excess(bid.cost.0, cheapest)),
        (weights.latency, excess(time, soonest)),
        (weights.evidence, failures(bid.known)),
        (weights.locality, if far { WHOLE } else { 0 }),
    ];
    let score = losses.into_iter().map(|(weight, loss)| u64::from(weight) * loss).sum();
    (score, bid.cost, time, own, bid.known.faults, bid.bid.signer())
}

/// By how many thousandths of the best it is more. A best of zero counts as one.
fn excess(value: u64, best: u64) -> u64 {
    let more = u128::from(value.saturating_sub(best)) * u128::from(WHOLE) / u128::from(best.max(1));
    u64::try_from(more).map_or(MAX_LOSS, |more| more.min(MAX_LOSS))
}

/// How many of a thousand jobs would fail: Laplace's rule of succession, so a stranger stands in the middle.
fn failures(known: Known) -> u64 {
    let (delivered, faults) = (u64::from(known.delivered), u64::from(known.faults));
    (faults + 1) * WHOLE / (delivered + faults + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_thousandths_and_never_more_than_hopeless() {
        assert_eq!([excess(7, 7), excess(15, 10), excess(1, 0), excess(0, 0)], [0, 500, 1000, 0]);
        assert_eq!([excess(u64::MAX, 1), excess(u64::MAX, u64::MAX / 2)], [MAX_LOSS, 1000]);
    }

    #[test]
    fn a_stranger_stands_between_the_good_and_the_bad() {
        let of = |delivered, faults| failures(Known { delivered, faults });
        assert_eq!([of(0, 0), of(8, 0), of(0, 8)], [500, 100, 900]);
        assert_eq!(of(u32::MAX, u32::MAX), 500);
    }
}
