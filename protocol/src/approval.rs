//! When a person is asked before a job begins.
//!
//! A rule names what makes a job worth a question: what it may cost, how far below a user's own job it stands, that it calls a
//! tool. Rules are those of a peer, whose owner pays for what its agents delegate, or come with a job from whoever submits
//! it; they never go over the wire. A job that one of them names is held: nobody hears of it until it is approved. Whoever
//! does not want it cancels it, and its deadline runs meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Capability, Credits, JobId, JobKind, JobSpec, Timestamp};

/// What makes a job worth a question. Text forms: `cost:N`, `depth:N`, `tool`, `tool:CAPABILITY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It may cost more than this, in micro-credits, with all its parts.
    Cost(Credits),
    /// It is a part of another job, at least so many levels below the one that a user submitted; 0 is every job.
    Depth(u8),
    /// It calls a tool, of this capability or one below where there is one.
    Tool(Option<Capability>),
}

impl Rule {
    /// Most rules of a job or a peer.
    pub const MAX: usize = 16;

    /// Whether the rule names a job that stands so many levels below a user's.
    #[must_use]
    pub fn names(&self, spec: &JobSpec, depth: u8) -> bool {
        match self {
            Self::Cost(most) => spec.limits.budget > *most,
            Self::Depth(least) => depth >= *least,
            Self::Tool(None) => spec.kind == JobKind::Call,
            // A call of `tool` may be answered by any tool, so also by the one that is meant.
            Self::Tool(Some(tool)) => {
                let wanted = &spec.requirement.capability;
                spec.kind == JobKind::Call && (tool.covers(wanted) || wanted.covers(tool))
            }
        }
    }
}

/// A text that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no rule: give cost:MICRO-CREDITS, depth:LEVELS, tool or tool:CAPABILITY")]
pub struct NoRule(String);

impl FromStr for Rule {
    type Err = NoRule;

    fn from_str(text: &str) -> Result<Self, NoRule> {
        let no_rule = || NoRule(text.chars().take(40).collect());
        let rule = match text.split_once(':') {
            Some(("cost", most)) => most.parse().ok().map(|most| Self::Cost(Credits(most))),
            Some(("depth", least)) => least.parse().ok().map(Self::Depth),
            Some(("tool", capability)) => capability.parse().ok().map(|tool| Self::Tool(Some(tool))),
            None if text == "tool" => Some(Self::Tool(None)),
            _ => None,
        };
        rule.ok_or_else(no_rule)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cost(Credits(most)) => write!(f, "cost:{most}"),
            Self::Depth(least) => write!(f, "depth:{least}"),
            Self::Tool(None) => write!(f, "tool"),
            Self::Tool(Some(capability)) => write!(f, "tool:{capability}"),
        }
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The jobs that are held, and until when somebody may approve them.
#[derive(Clone, Debug, Default)]
pub struct Approvals {
    rules: Vec<Rule>,
    held: BTreeMap<JobId, Timestamp>,
}

impl Approvals {
    /// Nothing is held; these are the peer's own rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, held: BTreeMap::new() }
    }

    /// Holds a job that a rule names, its own or the peer's, and says which.
    pub fn hold(&mut self, job: JobId, spec: &JobSpec, depth: u8) -> Option<Rule> {
        let mut rules = self.rules.iter().chain(&spec.approval);
        let rule = rules.find(|rule| rule.names(spec, depth))?.clone();
        self.held.insert(job, spec.limits.deadline);
        Some(rule)
    }

    /// Somebody approved: the job is held no more. False where it was not.
    pub fn approve(&mut self, job: JobId) -> bool {
        self.held.remove(&job).is_some()
    }

    /// The job is over.
    pub fn close(&mut self, job: JobId) {
        self.held.remove(&job);
    }

    /// Those that nobody approved in time. They are held until they are closed.
    #[must_use]
    pub fn late(&self, now: Timestamp) -> Vec<JobId> {
        self.held.iter().filter(|(_, deadline)| **deadline <= now).map(|(job, _)| *job).collect()
    }

    /// When the next of them is late.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.held.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_written() {
        for text in ["cost:0", "cost:18446744073709551615", "depth:1", "tool", "tool:tool.arithmetic"] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        for text in
            ["", "cost", "cost:", "cost:-1", "depth:256", "tool:", "tool:No Capability", "TOOL", "x:1"]
        {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }
}
