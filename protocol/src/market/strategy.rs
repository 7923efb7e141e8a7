//! What a provider asks: small rules, applied in order to what its offer says.
//!
//! A quote has a price and a floor. Both begin at the offer's price, and no rule lowers either; so a bid never asks less
//! than the profile says. The price is what a bid asks at first, the floor what a counter-offer can bring it down to.

#![deny(clippy::float_arithmetic)]

use std::collections::BTreeSet;

use crypto::PeerId;
use serde::{Deserialize, Serialize};

use crate::error::Limit;
use crate::message::Ask;
use crate::{Credits, JobError, Price, Usage};

/// One rule. In `llamesh.toml` each is a table with its name as `rule`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// Work for nobody else.
    Allow {
        /// Than these.
        peers: BTreeSet<PeerId>,
    },
    /// Never ask less than this in either part.
    Floor {
        /// Micro-credits for 1000 tokens.
        price: Price,
    },
    /// Ask more the more there is to do. Raises the floor, too: whoever is busy need not bargain.
    Load {
        /// Hundredths of the price, for each job that holds a place.
        percent: u16,
    },
    /// Ask more at first than it will be done for.
    Margin {
        /// Hundredths of the price.
        percent: u16,
    },
    /// Give one requester no more places than this; the bidder's own limit holds besides.
    Places {
        /// Running and promised together.
        per_requester: usize,
    },
    /// Take no job whose longest answer brings less than this.
    Worth {
        /// At the price so far.
        least: Credits,
    },
}

/// Rules in the order in which they apply. Without any, a bid asks what the offer says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Strategy(pub Vec<Rule>);

/// What a strategy may look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation<'a> {
    pub(super) requester: PeerId,
    pub(super) ask: &'a Ask,
    /// Places held by anybody but this job.
    pub(super) held: usize,
    /// Of these, the requester's.
    pub(super) theirs: usize,
    /// When a place is free again, in milliseconds.
    pub(super) retry_after_ms: u64,
}

/// What is asked, and what would do. The floor is never above the price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quote {
    pub(super) price: Price,
    pub(super) floor: Price,
}

impl Strategy {
    /// What to ask for a job that an offer at `price` could do.
    ///
    /// # Errors
    /// Why there is no bid: [`JobError::NothingOffered`] for whoever is not allowed, [`JobError::Busy`],
    /// [`JobError::Limit`] where the job pays too little.
    pub(super) fn quote(&self, price: Price, situation: &Situation<'_>) -> Result<Quote, JobError> {
        let mut quote = Quote { price, floor: price };
        for rule in &self.0 {
            rule.apply(&mut quote, situation)?;
        }
        let Some(ceiling) = situation.ask.requirement.ceiling else { return Ok(quote) };
        // Rather the requester's ceiling than no job; but nothing under the floor.
        match quote.floor.within(&ceiling) {
            true => Ok(Quote { price: quote.price.cheaper(ceiling), ..quote }),
            false => Err(JobError::Limit { limit: Limit::Budget }),
        }
    }
}

impl Rule {
    fn apply(&self, quote: &mut Quote, situation: &Situation<'_>) -> Result<(), JobError> {
        let ask = situation.ask;
        match self {
            Self::Allow { peers } if !peers.contains(&situation.requester) => {
                let capability = ask.requirement.capability.clone();
                return Err(JobError::NothingOffered { capability, sample: Vec::new() });
            }
            Self::Places { per_requester } if situation.theirs >= *per_requester => {
                return Err(JobError::Busy { retry_after_ms: situation.retry_after_ms });
            }
            Self::Worth { least } if earns(quote.price, ask) < *least => {
                return Err(JobError::Limit { limit: Limit::Budget });
            }
            Self::Allow { .. } | Self::Places { .. } | Self::Worth { .. } => {}
            Self::Floor { price } => {
                *quote = Quote { price: quote.price.dearer(*price), floor: quote.floor.dearer(*price) };
            }
            Self::Load { percent } => {
                let held = u64::try_from(situation.held).unwrap_or(u64::MAX);
                let percent = u64::from(*percent).saturating_mul(held);
                *quote = Quote { price: quote.price.raised(percent), floor: quote.floor.raised(percent) };
            }
            Self::Margin { percent } => quote.price = quote.price.raised(u64::from(*percent)),
        }
        Ok(())
    }
}

/// What the longest answer brings. The prompt's length in tokens is not known yet; four bytes a token is usual.
fn earns(price: Price, ask: &Ask) -> Credits {
    let usage = Usage { prompt_tokens: ask.input_len / 4, completion_tokens: ask.max_tokens };
    price.cost(usage).unwrap_or(Credits(u64::MAX))
}
