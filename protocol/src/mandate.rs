//! The right to spend and to spawn: it only shrinks on the way down.
//!
//! An agent that works on a job may submit sub-jobs, within what is left of that job's limits: one level less of
//! depth, one child less, a part of the budget, no more children of its own and no later deadline. What a child was given is taken from its
//! parent at once, so no number of children can together spend more than the root allowed.

use std::collections::BTreeMap;

use crypto::Digest;

use crate::error::Limit;
use crate::event::RunId;
use crate::{Credits, JobError, JobId, Limits};

/// What is left of the mandate of each run.
#[derive(Clone, Debug, Default)]
pub struct Mandates {
    runs: BTreeMap<RunId, Mandate>,
}

#[derive(Clone, Debug)]
struct Mandate {
    left: Limits,
    // Sub-jobs still under way, to be cancelled with their parent, and the receipts of those that are done. Both are
    // bounded by `Limits::children`.
    open: Vec<JobId>,
    receipts: Vec<Digest>,
}

impl Mandates {
    /// A run begins with the limits of its order, less what it may cost itself.
    pub fn grant(&mut self, run: RunId, limits: Limits, own_cost: Credits) {
        let budget = limits.budget.minus(own_cost).unwrap_or_default();
        let left = Limits { budget, ..limits };
        self.runs.insert(run, Mandate { left, open: Vec::new(), receipts: Vec::new() });
    }

    /// Takes a child's limits out of what is left of `run`'s: at most `wanted`, and never more than there is.
    ///
    /// # Errors
    /// [`JobError::Limit`] when depth, children or budget are used up; [`JobError::Cancelled`] when the run is over.
    pub fn spawn(&mut self, run: RunId, job: JobId, wanted: Limits) -> Result<Limits, JobError> {
        let mandate = self.runs.get_mut(&run).ok_or(JobError::Cancelled)?;
        let left = &mut mandate.left;
        let refuse = |limit| JobError::Limit { limit };
        let widest = left.children;
        let depth = left.depth.checked_sub(1).ok_or_else(|| refuse(Limit::Depth))?;
        let children = left.children.checked_sub(1).ok_or_else(|| refuse(Limit::Children))?;
        let budget = left.budget.minus(wanted.budget).ok_or_else(|| refuse(Limit::Budget))?;
        (left.children, left.budget) = (children, budget);
        mandate.open.push(job);
        Ok(Limits {
            budget: wanted.budget,
            depth: depth.min(wanted.depth),
            children: wanted.children.min(widest),
            deadline: wanted.deadline.min(left.deadline),
        })
    }

    /// A sub-job is over, with or without a receipt.
    pub fn close(&mut self, run: RunId, job: JobId, receipt: Option<Digest>) {
        if let Some(mandate) = self.runs.get_mut(&run) {
            mandate.open.retain(|open| *open != job);
            mandate.receipts.extend(receipt);
        }
    }

    /// Receipts of the sub-jobs that `run` had done.
    pub fn receipts(&self, run: RunId) -> Vec<Digest> {
        self.runs.get(&run).map(|mandate| mandate.receipts.clone()).unwrap_or_default()
    }

    /// The run is over; returns the sub-jobs that are to be cancelled.
    pub fn revoke(&mut self, run: RunId) -> Vec<JobId> {
        self.runs.remove(&run).map(|mandate| mandate.open).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Timestamp;

    fn limits(budget: u64, depth: u8, children: u16, deadline: u64) -> Limits {
        Limits { budget: Credits(budget), depth, children, deadline: Timestamp(deadline) }
    }

    proptest! {
        /// Whatever a tree of agents asks for, its leaves together never hold more than the root was given.
        #[test]
        fn a_tree_never_holds_more_than_its_root(
            root in (0u64..1000, 0u8..5, 0u16..5, 0u64..100),
            wishes in prop::collection::vec((0usize..40, 0u64..400, 0u8..9, 0u16..9, 0u64..200), 0..80),
        ) {
            let root = limits(root.0, root.1, root.2, root.3);
            let mut mandates = Mandates::default();
            mandates.grant(RunId(0), root, Credits::ZERO);
            let mut granted = vec![root];
            for (parent, budget, depth, children, deadline) in wishes {
                let parent = parent % granted.len();
                let wish = limits(budget, depth, children, deadline);
                let Ok(child) = mandates.spawn(RunId(parent as u64), JobId([0; 16]), wish) else { continue };
                prop_assert!(child.depth < granted[parent].depth);
                prop_assert!(child.deadline <= granted[parent].deadline);
                prop_assert!(child.children <= granted[parent].children);
                mandates.grant(RunId(granted.len() as u64), child, Credits::ZERO);
                granted.push(child);
            }
            let held: u64 = mandates.runs.values().map(|m| m.left.budget.0).sum();
            prop_assert!(held <= root.budget.0);
        }
    }
}
