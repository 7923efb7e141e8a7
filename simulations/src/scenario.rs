//! The TOML schema of a scenario: who is there, what they want, what goes wrong, what is expected.
//!
//! A scenario is data, so that a story can be told without touching code and run with any seed. Times are
//! milliseconds from the beginning of the world.

use protocol::{Capability, Choosing};
use serde::Deserialize;

use crate::link;

/// A story.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it is for, in a sentence.
    pub about: String,
    /// The histories that are worth running.
    pub seeds: Vec<u64>,
    /// The wires.
    pub network: link::Config,
    /// Who is there.
    pub peers: Vec<Group>,
    /// What is wanted.
    pub jobs: Vec<Batch>,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What must come out, whatever the seed.
    #[serde(default)]
    pub expect: Expectation,
}

/// Two numbers, or everything between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "[u64; 2]")]
pub struct Span {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

/// Peers that are alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What jobs and faults call them.
    pub name: String,
    /// How many.
    pub count: usize,
    /// What each of them offers; without one they only ask.
    pub offer: Option<Offer>,
}

/// What a peer offers; spans are drawn from for each peer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// What it does.
    pub capability: Capability,
    /// With which model.
    pub model: String,
    /// Tokens of prompt per second.
    pub prefill: Span,
    /// Tokens of answer per second.
    pub decode: Span,
    /// Runs at once.
    pub slots: usize,
    /// Micro-credits for 1000 tokens, of prompt and answer alike.
    pub price: Span,
}

/// Jobs that are alike, one after the other.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Which group asks; the peer is drawn.
    pub by: String,
    /// When the first one is submitted.
    pub at: u64,
    /// And each next one after so long.
    pub every: u64,
    /// How many.
    pub count: usize,
    /// What is wanted.
    pub capability: Capability,
    /// How a provider is chosen.
    pub choosing: Choosing,
    /// Bytes of the prompt.
    pub prompt: Span,
    /// Longest answer in tokens.
    pub tokens: Span,
    /// Time that a job has.
    pub deadline: u64,
    /// The user gives up after so long.
    pub cancel_after: Option<u64>,
}

/// Something that goes wrong.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The busiest peers of a group die. Their journals survive, everything else is gone.
    Kill {
        /// When.
        at: u64,
        /// Of which group.
        group: String,
        /// How many.
        count: usize,
        /// They come back after so long; never, without.
        back_after: Option<u64>,
        /// They die in the middle of things: after so many more outputs, wherever that may be.
        after_outputs: Option<u64>,
    },
    /// A part of the mesh is cut off: both sides work, nothing passes between them.
    Partition {
        /// When.
        at: u64,
        /// Of which group.
        group: String,
        /// How many of it.
        count: usize,
        /// For how long.
        lasts: u64,
    },
}

/// What must come out.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// At least so many jobs are done.
    #[serde(default)]
    pub done: usize,
    /// At most so many fail, if it is said.
    pub failed: Option<usize>,
}

/// Most peers, so that a typing error does not eat the machine: beyond it, quadratic tables hurt.
const MAX_PEERS: usize = 100_000;

/// Why a text is not a scenario.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// Nobody is there, or too many are.
    #[error("a scenario has between 1 and {MAX_PEERS} peers")]
    Peers,
    /// Numbers that make no sense.
    #[error("in `{place}`: spans are [least, most], chances at most 1000000, counts at least 1")]
    Numbers {
        /// Where.
        place: String,
    },
    /// Not the schema.
    #[error("not a scenario: {0}")]
    Schema(#[from] toml::de::Error),
    /// A name that no group has.
    #[error("no group of peers is called `{0}`")]
    UnknownGroup(String),
}

impl Scenario {
    /// Reads and checks a scenario.
    ///
    /// # Errors
    /// [`ScenarioError`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let peers: usize = self.peers.iter().map(|group| group.count).fold(0, usize::saturating_add);
        if !(1..=MAX_PEERS).contains(&peers) {
            return Err(ScenarioError::Peers);
        }
        sound("network", self.network.is_sound())?;
        for group in &self.peers {
            sound(&group.name, group.offer.as_ref().is_none_or(Offer::is_sound))?;
        }
        for batch in &self.jobs {
            self.knows(&batch.by)?;
            sound(&batch.by, batch.prompt.is_ordered() && batch.tokens.is_ordered() && batch.tokens.min > 0)?;
        }
        self.faults.iter().try_for_each(|fault| self.knows(fault.group()))
    }

    fn knows(&self, name: &str) -> Result<(), ScenarioError> {
        let known = self.peers.iter().any(|group| group.name == name && group.count > 0);
        known.then_some(()).ok_or_else(|| ScenarioError::UnknownGroup(name.to_owned()))
    }
}

impl Span {
    /// True when the least is not more than the most.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.min <= self.max
    }
}

impl From<[u64; 2]> for Span {
    fn from([min, max]: [u64; 2]) -> Self {
        Self { min, max }
    }
}

impl Offer {
    fn is_sound(&self) -> bool {
        let spans = [self.prefill, self.decode, self.price];
        spans.iter().all(Span::is_ordered) && self.slots > 0 && self.prefill.min > 0 && self.decode.min > 0
    }
}

impl Fault {
    /// When it happens.
    #[must_use]
    pub fn at(&self) -> u64 {
        match self {
            Self::Kill { at, .. } | Self::Partition { at, .. } => *at,
        }
    }

    fn group(&self) -> &str {
        match self {
            Self::Kill { group, .. } | Self::Partition { group, .. } => group,
        }
    }
}

fn sound(place: &str, is: bool) -> Result<(), ScenarioError> {
    is.then_some(()).ok_or_else(|| ScenarioError::Numbers { place: place.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HONEST: &str = include_str!("../scenarios/honest.toml");

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Scenario::parse(HONEST).is_ok());
        let unknown = HONEST.replace("by = \"user\"", "by = \"nobody\"");
        assert!(
            matches!(Scenario::parse(&unknown), Err(ScenarioError::UnknownGroup(name)) if name == "nobody")
        );
        let backwards =
            HONEST.replace("latency = [", "latency = [999999, ").replace("999999, 5, ", "999999, ");
        assert!(
            matches!(Scenario::parse(&backwards), Err(ScenarioError::Numbers { place }) if place == "network")
        );
        let extra = HONEST.replace("about =", "colour = 1\nabout =");
        assert!(matches!(Scenario::parse(&extra), Err(ScenarioError::Schema(_))));
    }
}
