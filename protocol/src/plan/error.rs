//! What is wrong with a plan, before anything of it runs: all mistakes at once, each with its place and a next step.

use std::fmt;

use crate::{Capability, Credits};

/// A plan that must not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// Everything that is wrong, at least one thing.
    pub mistakes: Vec<Mistake>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// In which node; `None` where it is the plan as a whole.
    pub node: Option<String>,
    /// What.
    pub fault: Fault,
}

/// What can be wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Not known by this name.
    #[error("uses `{name}`, which templates do not know here; they know {known}")]
    Unknown {
        /// The variable.
        name: String,
        /// What may be used instead.
        known: String,
    },
    /// No such node.
    #[error("uses the node `{name}`, which is not there; add it, or correct the name")]
    UnknownNode {
        /// The name.
        name: String,
    },
    /// No such input.
    #[error("uses the input `{name}`, which is not declared; add it under `inputs`, or correct the name")]
    UnknownInput {
        /// The name.
        name: String,
    },
    /// Nodes that wait for each other.
    #[error("waits for itself: {}; take out one of these uses", cycle.join(" → "))]
    Cycle {
        /// Each one waits for the next; the last is the first.
        cycle: Vec<String>,
    },
    /// An input that has no default was not given.
    #[error("needs the input `{name}`; give it a value")]
    MissingInput {
        /// The name.
        name: String,
    },
    /// A template or an expression that cannot be read.
    #[error("`{field}`, line {line}: {problem}; see the syntax of Jinja templates")]
    Template {
        /// Which one.
        field: String,
        /// Counted from one.
        line: usize,
        /// What the reader says.
        problem: String,
    },
    /// A value that cannot be.
    #[error("`{field}` {problem}")]
    Invalid {
        /// Which one.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Nodes that may together cost more than the plan may.
    #[error("the budgets of its nodes make {sum}, its own is {budget}; raise it, or lower theirs")]
    Budget {
        /// Theirs.
        sum: Credits,
        /// The plan's.
        budget: Credits,
    },
    /// Prices that the budget cannot pay, even if nothing is tried twice.
    #[error("costs at least {least}, its budget is {budget}; raise `limits.budget`, or lower `max_tokens`")]
    Unaffordable {
        /// What it costs.
        least: Credits,
        /// The plan's.
        budget: Credits,
    },
    /// Nobody is known to do a part of it, so that its cost is not known.
    #[error("no price is known for `{capability}`; look at `llamesh find`")]
    Unpriced {
        /// What nobody offers.
        capability: Capability,
    },
    /// It is not clear which node is the answer.
    #[error("the answer could be any of {}; name one as `output`", sinks.join(", "))]
    Output {
        /// Nodes that no other one uses.
        sinks: Vec<String>,
    },
}

impl PlanError {
    pub(super) fn of(fault: Fault) -> Self {
        Self { mistakes: vec![Mistake { node: None, fault }] }
    }
}

impl Fault {
    pub(super) fn invalid(field: &str, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.to_owned(), problem: problem.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "node `{node}`: {}", self.fault),
            None => write!(f, "the plan: {}", self.fault),
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.mistakes.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            write!(f, "{line}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}
