//! What an execution is told, and what it wants done.

use crypto::{Digest, PeerId};

use super::task::{Entry, Task, TaskId};
use crate::{Credits, JobError};

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The user has had enough.
    Cancel,
    /// A job was done, and its receipt is right.
    Done {
        /// Which.
        task: TaskId,
        /// By whom, where that is known.
        provider: Option<PeerId>,
        /// The answer.
        output: String,
        /// What it cost: at most the task's budget.
        cost: Credits,
        /// Its receipt.
        receipt: Digest,
    },
    /// A job was not done, and cost nothing.
    Failed {
        /// Which.
        task: TaskId,
        /// By whom, where that is known.
        provider: Option<PeerId>,
        /// Why.
        error: JobError,
    },
}

/// What to do, in order. The last one is `Done`, `Failed` or `Cancelled`, and there is exactly one of these.
#[derive(Clone, Debug)]
pub enum Output {
    /// Take this job back; nothing more about it is of interest.
    Cancel {
        /// Which.
        task: TaskId,
    },
    /// The plan was cancelled.
    Cancelled,
    /// A node got on.
    Changed {
        /// Which.
        node: String,
        /// Where it is now.
        state: NodeState,
    },
    /// The plan is done.
    Done(Box<Answer>),
    /// The plan has failed.
    Failed {
        /// In which node; `None` where it is the plan as a whole.
        node: Option<String>,
        /// Why.
        why: String,
    },
    /// Make this durable before anything that comes after it.
    Record(Box<Entry>),
    /// Submit this job.
    Submit(Box<Task>),
}

/// What a plan came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The value of its output node: a text as it is, anything else as JSON.
    pub output: String,
    /// What all jobs cost, failed tries and an earlier life included.
    pub cost: Credits,
    /// The receipts of all jobs.
    pub receipts: Vec<Digest>,
}

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Its jobs run. In a reduce tree, those of the level that it is at.
    Running {
        /// Jobs that have a value.
        done: u32,
        /// All its jobs.
        of: u32,
    },
    /// It has a value.
    Settled {
        /// Jobs whose value is `none`, because they failed.
        skipped: u32,
        /// Jobs whose value is a substitute, because they failed.
        substituted: u32,
    },
}
