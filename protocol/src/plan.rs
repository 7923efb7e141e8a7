//! Plans: one goal as a graph of jobs for many peers, and the rules that join their answers.
//!
//! ```text
//!   file (TOML, JSON) ─▶ Plan ─ check ─▶ Checked ─▶ Execution ◀─▶ driver: submit, record, tell
//!                                           └─▶ Estimate
//! ```
//!
//! A plan is data: it never goes over the wire, and whoever wrote it (a person, or a model under `schemas/plan.json`)
//! is not trusted. Few ideas make all of it:
//!
//! | idea | gives |
//! |---|---|
//! | a node does one [`Work`]: a job (`generate`, `call`) or a join of values that are there | the graph |
//! | templates name earlier values, and thereby order the nodes | dependencies; synthesis is a `generate` that names several |
//! | [`Node::for_each`] repeats a node for every element of a list | map |
//! | [`Generate::choices`] asks one prompt several times | candidates for `vote` and `pick` |
//! | `pick` takes the candidate with the highest number | by a field of it, or by a scorer: a `generate` for each candidate |
//! | `reduce` joins groups by a job until one is left | a reduce tree |
//!
//! Modules in reading order: here the file's types, then [`check`], [`estimate`], [`event`], [`execution`], and what they stand on.

pub mod check;
pub mod error;
pub mod estimate;
pub mod event;
pub mod execution;
pub mod expectation;
mod join;
mod purse;
mod run;
mod start;
pub mod task;
mod template;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Capability, Credits, Price};

pub use check::Checked;
pub use error::{Fault, Mistake, PlanError};
pub use estimate::{Estimate, Totals};
pub use event::{Answer, Event, NodeState, Output};
pub use execution::Execution;
pub use expectation::Expectation;
pub use task::{Entry, Outcome, Task, TaskId};

/// A plan as it stands in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it is for, in a sentence: for people, and for lists of plans.
    pub goal: String,
    /// What whoever runs it gives, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, PlanInput>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: PlanLimits,
    /// The node whose value is the plan's answer. Without it, the only node that no other one uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// What is to be done, by name.
    pub nodes: BTreeMap<String, Node>,
}

/// Something that whoever runs the plan gives: `inputs.NAME` in templates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanInput {
    /// What is expected here, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Taken when nothing is given; without it, the input must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

/// What a plan may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanLimits {
    /// Everything that its jobs may cost. 0 takes only what is free.
    pub budget: Credits,
    /// How many jobs run at once, up to [`Plan::MAX_PARALLEL`].
    pub parallel: u16,
    /// Milliseconds from its beginning until it has failed; without it, there is no hurry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

impl Default for PlanLimits {
    fn default() -> Self {
        Self { budget: Credits::ZERO, parallel: Plan::DEFAULT_PARALLEL, timeout: None }
    }
}

/// One step of a plan: what it does, how often, and what becomes of a failure. Its value is `nodes.NAME` in templates:
/// a text, the JSON that its schema describes, or a list with an element for each item or choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Spelling", into = "Spelling")]
pub struct Node {
    /// What it does.
    pub work: Work,
    /// An expression whose value is a list. The work is done for every `item` of it, at `index`; the value is a list, too.
    pub for_each: Option<String>,
    /// Most items, up to [`Plan::MAX_ITEMS`]; a longer list is a failure. Bounds what the plan can cost.
    pub max_items: u16,
    /// Nodes that must be settled before, though no template names them.
    pub after: Vec<String>,
    /// What every single answer must be. Failing that is a failure.
    pub expect: Option<Expectation>,
    /// How often a failed job is tried again, with other peers. Up to [`Plan::MAX_RETRIES`].
    pub retries: u8,
    /// What follows when all tries have failed.
    pub on_failure: OnFailure,
    /// Everything that this node may cost: set aside from the plan's budget for it alone.
    pub budget: Option<Credits>,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Asks a model.
    Generate(Generate),
    /// Calls a tool.
    Call(Call),
    /// Joins texts one after the other.
    Concatenate(Concatenate),
    /// Takes the candidate that most others equal.
    Vote(Vote),
    /// Takes the candidate with the highest score.
    Pick(Pick),
    /// Joins groups by a model until one is left.
    Reduce(Reduce),
}

/// A job for a model. The job's whole input comes from its templates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// What the provider must offer.
    #[serde(default = "Capability::text_generation", skip_serializing_if = "is_text_generation")]
    pub capability: Capability,
    /// Exactly this model, by digest or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Tokens of context that the model must have.
    #[serde(default, skip_serializing_if = "is_default")]
    pub context: u32,
    /// The most that a provider may ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Price>,
    /// Template of the instructions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Template of the prompt.
    pub prompt: String,
    /// Longest answer in tokens.
    #[serde(default = "Generate::max_tokens", skip_serializing_if = "Generate::is_max_tokens")]
    pub max_tokens: u32,
    /// 0 is greedy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub temperature: f32,
    /// The noise of the sampling.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seed: u64,
    /// How many answers to one prompt. From two on, the value is a list of them.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub choices: u16,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// What the provider must offer.
    pub capability: Capability,
    /// Template of the arguments; rendered, it is a JSON object.
    pub arguments: String,
}

/// Texts one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concatenate {
    /// An expression whose value is a list; what was skipped is left out.
    pub of: String,
    /// What stands between them.
    #[serde(default = "newline", skip_serializing_if = "is_newline")]
    pub separator: String,
}

/// The majority. White space around a candidate does not count; of several with as many votes the earliest wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// An expression whose value is a list; what was skipped has no vote.
    pub of: String,
}

/// The best. Of several with the same score the earliest wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pick {
    /// An expression whose value is a list; what was skipped is no candidate.
    pub of: String,
    /// An expression of the candidate `item` at `index`: a number, or a text that is one. Without a number, it is no
    /// candidate.
    pub score: String,
}

/// A tree of jobs, each of which joins a group of neighbours. One element alone is the value, without a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reduce {
    /// An expression whose value is a list; what was skipped is left out.
    pub of: String,
    /// Elements in a group, from 2 to [`Plan::MAX_ARITY`].
    #[serde(default = "Reduce::arity", skip_serializing_if = "Reduce::is_arity")]
    pub arity: u16,
    /// The job that joins a group: `items` in its templates.
    pub by: Generate,
}

/// What follows when all tries of a job have failed, or a join has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The plan fails.
    #[default]
    Fail,
    /// The value (or the element of it) is `none`, and the plan goes on.
    Skip,
    /// The value (or the element of it) is what this template renders to. It must meet the expectation.
    Substitute(String),
}

impl Plan {
    /// Longest goal in bytes.
    pub const MAX_GOAL: usize = 4096;
    /// Most nodes: more is no plan that anybody reads.
    pub const MAX_NODES: usize = 256;
    /// Most inputs.
    pub const MAX_INPUTS: usize = 64;
    /// Longest name of a node or an input in bytes.
    pub const MAX_NAME: usize = 64;
    /// Longest template or expression in bytes. Long texts are inputs.
    pub const MAX_TEMPLATE: usize = 64 << 10;
    /// Most items of one map.
    pub const MAX_ITEMS: u16 = 1024;
    /// Items of one map, where the node does not say.
    pub const DEFAULT_ITEMS: u16 = 64;
    /// Most neighbours joined by one job of a reduce tree.
    pub const MAX_ARITY: u16 = 64;
    /// Most further tries of one job.
    pub const MAX_RETRIES: u8 = 8;
    /// Further tries of one job, where the node does not say.
    pub const DEFAULT_RETRIES: u8 = 1;
    /// Most jobs in one execution, all tries counted: a journal of them is read within a second.
    pub const MAX_JOBS: u32 = 8192;
    /// Most jobs at once: each is an auction and a stream.
    pub const MAX_PARALLEL: u16 = 64;
    /// Jobs at once, where the plan does not say.
    pub const DEFAULT_PARALLEL: u16 = 8;
}

impl Work {
    /// What its jobs ask for; `None` where it has none.
    pub fn capability(&self) -> Option<&Capability> {
        match self {
            Self::Generate(work) => Some(&work.capability),
            Self::Call(work) => Some(&work.capability),
            Self::Reduce(work) => Some(&work.by.capability),
            Self::Concatenate(_) | Self::Vote(_) | Self::Pick(_) => None,
        }
    }

    /// Jobs of one item, before anything is known about lists.
    fn least_jobs(&self) -> u64 {
        match self {
            Self::Generate(work) => work.choices.into(),
            Self::Call(_) | Self::Reduce(_) => 1,
            Self::Concatenate(_) | Self::Vote(_) | Self::Pick(_) => 0,
        }
    }
}

impl Generate {
    const MAX_TOKENS: u32 = 512;

    const fn max_tokens() -> u32 {
        Self::MAX_TOKENS
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    const fn is_max_tokens(tokens: &u32) -> bool {
        *tokens == Self::MAX_TOKENS
    }
}

impl Reduce {
    const ARITY: u16 = 4;

    const fn arity() -> u16 {
        Self::ARITY
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    const fn is_arity(arity: &u16) -> bool {
        *arity == Self::ARITY
    }
}

/// A [`Node`] as it is written: the work stands under its own name, beside the rest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Spelling {
    #[serde(skip_serializing_if = "Option::is_none")]
    for_each: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_items: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generate: Option<Generate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<Call>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concatenate: Option<Concatenate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vote: Option<Vote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pick: Option<Pick>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reduce: Option<Reduce>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<Expectation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u8>,
    #[serde(skip_serializing_if = "is_default")]
    on_failure: OnFailure,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<Credits>,
}

/// A node does one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a node does {0} things instead of one; give it one of generate, call, concatenate, vote, pick, reduce"
)]
struct NotOneWork(usize);

impl TryFrom<Spelling> for Node {
    type Error = NotOneWork;

    fn try_from(spelled: Spelling) -> Result<Self, NotOneWork> {
        let work = [
            spelled.generate.map(Work::Generate),
            spelled.call.map(Work::Call),
            spelled.concatenate.map(Work::Concatenate),
            spelled.vote.map(Work::Vote),
            spelled.pick.map(Work::Pick),
            spelled.reduce.map(Work::Reduce),
        ];
        let mut work: Vec<_> = work.into_iter().flatten().collect();
        let count = work.len();
        let (Some(work), 1) = (work.pop(), count) else { return Err(NotOneWork(count)) };
        Ok(Self {
            work,
            for_each: spelled.for_each,
            max_items: spelled.max_items.unwrap_or(Plan::DEFAULT_ITEMS),
            after: spelled.after,
            expect: spelled.expect,
            retries: spelled.retries.unwrap_or(Plan::DEFAULT_RETRIES),
            on_failure: spelled.on_failure,
            budget: spelled.budget,
        })
    }
}

impl From<Node> for Spelling {
    fn from(node: Node) -> Self {
        let mut spelled = Self {
            for_each: node.for_each,
            max_items: Some(node.max_items).filter(|items| *items != Plan::DEFAULT_ITEMS),
            after: node.after,
            expect: node.expect,
            retries: Some(node.retries).filter(|retries| *retries != Plan::DEFAULT_RETRIES),
            on_failure: node.on_failure,
            budget: node.budget,
            ..Self::default()
        };
        match node.work {
            Work::Generate(work) => spelled.generate = Some(work),
            Work::Call(work) => spelled.call = Some(work),
            Work::Concatenate(work) => spelled.concatenate = Some(work),
            Work::Vote(work) => spelled.vote = Some(work),
            Work::Pick(work) => spelled.pick = Some(work),
            Work::Reduce(work) => spelled.reduce = Some(work),
        }
        spelled
    }
}

impl From<Work> for Node {
    /// A node that does this, once, and with nothing else said.
    fn from(work: Work) -> Self {
        Self {
            work,
            for_each: None,
            max_items: Plan::DEFAULT_ITEMS,
            after: Vec::new(),
            expect: None,
            retries: Plan::DEFAULT_RETRIES,
            on_failure: OnFailure::Fail,
            budget: None,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_text_generation(capability: &Capability) -> bool {
    *capability == Capability::text_generation()
}

const fn one() -> u16 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_one(choices: &u16) -> bool {
    *choices == 1
}

fn newline() -> String {
    "\n".to_owned()
}

fn is_newline(separator: &str) -> bool {
    separator == "\n"
}
