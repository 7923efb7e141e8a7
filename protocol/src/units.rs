//! Time and money: integers with names, so that neither is ever mistaken for a plain number or rounded.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC. Always an input; nothing in this crate asks a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// `millis` later; saturates at the end of time.
    #[must_use]
    pub const fn after(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` until here; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Micro-credits, the unit of every price and balance. A credit means what two peers agree that it means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credits(pub u64);

impl Credits {
    /// No money at all.
    pub const ZERO: Self = Self(0);

    /// The sum, or `None` where it would overflow.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// What is left, or `None` where `other` is more.
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} µcr", self.0)
    }
}

/// What a provider asks for 1000 tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Price {
    /// For 1000 tokens of the prompt.
    pub prompt: Credits,
    /// For 1000 tokens of the answer.
    pub completion: Credits,
}

impl Price {
    /// What `usage` costs, rounded up to a whole micro-credit; `None` where that is more than money can count.
    pub fn cost(&self, usage: Usage) -> Option<Credits> {
        let prompt = u128::from(self.prompt.0) * u128::from(usage.prompt_tokens);
        let completion = u128::from(self.completion.0) * u128::from(usage.completion_tokens);
        u64::try_from((prompt + completion).div_ceil(1000)).ok().map(Credits)
    }

    /// True when neither part asks more than `ceiling` does.
    pub fn within(&self, ceiling: &Self) -> bool {
        self.prompt <= ceiling.prompt && self.completion <= ceiling.completion
    }

    /// The lower of each part.
    #[must_use]
    pub fn cheaper(self, other: Self) -> Self {
        Self { prompt: self.prompt.min(other.prompt), completion: self.completion.min(other.completion) }
    }

    /// The higher of each part.
    #[must_use]
    pub fn dearer(self, other: Self) -> Self {
        Self { prompt: self.prompt.max(other.prompt), completion: self.completion.max(other.completion) }
    }

    /// More by so many hundredths, rounded up; saturates where money ends.
    #[must_use]
    pub fn raised(self, percent: u64) -> Self {
        let raised = |part: Credits| {
            let more = (u128::from(part.0) * u128::from(percent)).div_ceil(100);
            Credits(u64::try_from(u128::from(part.0) + more).unwrap_or(u64::MAX))
        };
        Self { prompt: raised(self.prompt), completion: raised(self.completion) }
    }
}

/// How much was read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the rendered prompt; 0 where the engine does not tell.
    pub prompt_tokens: u32,
    /// Tokens (or pieces of text) of the answer.
    pub completion_tokens: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_rounds_up_and_never_wraps() {
        let price = Price { prompt: Credits(1), completion: Credits(1500) };
        assert_eq!(price.cost(Usage { prompt_tokens: 1, completion_tokens: 0 }), Some(Credits(1)));
        assert_eq!(price.cost(Usage { prompt_tokens: 0, completion_tokens: 3 }), Some(Credits(5)));
        let dear = Price { prompt: Credits(u64::MAX), completion: Credits(u64::MAX) };
        assert_eq!(dear.cost(Usage { prompt_tokens: u32::MAX, completion_tokens: u32::MAX }), None);
    }
}
