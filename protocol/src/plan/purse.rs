//! The plan's money: what is spent, what is set aside for jobs that run, and the share of the next one.
//!
//! A job's share is what is free, divided among the jobs that are still to come in proportion to the tokens that they
//! may take. It is set aside before the job is submitted, and what the job did not cost comes back; so no order of
//! events spends more than the budget.

use std::collections::BTreeMap;

use crate::Credits;

/// Everything that a plan may spend: one pot for each node with a budget of its own, and one for all the others.
#[derive(Clone, Debug)]
pub(super) struct Purse {
    shared: Pot,
    own: BTreeMap<String, Pot>,
    spent: Credits,
}

/// Money that is neither spent nor set aside.
#[derive(Clone, Copy, Debug)]
struct Pot {
    free: u64,
}

impl Purse {
    /// A full one. `own` are the budgets of nodes; together they are not more than `budget`.
    pub(super) fn new(budget: Credits, own: BTreeMap<String, Credits>) -> Self {
        let shared = own.values().fold(budget.0, |left, own| left.saturating_sub(own.0));
        let own = own.into_iter().map(|(node, budget)| (node, Pot { free: budget.0 })).collect();
        Self { shared: Pot { free: shared }, own, spent: Credits::ZERO }
    }

    /// Whether a node has a pot for itself.
    pub(super) fn is_own(&self, node: &str) -> bool {
        self.own.contains_key(node)
    }

    /// Sets aside the share of a job of this weight, out of all that is `coming` from the node's pot, this one included.
    pub(super) fn reserve(&mut self, node: &str, weight: u64, coming: u64) -> Credits {
        let pot = self.pot(node);
        let share = u128::from(pot.free) * u128::from(weight) / u128::from(coming.max(weight).max(1));
        // At most what is free: the weight is at most what is coming.
        let share = u64::try_from(share).unwrap_or(pot.free);
        pot.free -= share;
        Credits(share)
    }

    /// A job is over: what it cost is spent, the rest of its share is free again. A job that costs more than its share,
    /// which no honest driver lets happen, takes the difference from what is free.
    pub(super) fn settle(&mut self, node: &str, share: Credits, cost: Credits) {
        let pot = self.pot(node);
        pot.free = pot.free.saturating_add(share.0).saturating_sub(cost.0);
        self.spent = Credits(self.spent.0.saturating_add(cost.0));
    }

    /// Everything that was spent.
    pub(super) fn spent(&self) -> Credits {
        self.spent
    }

    fn pot(&mut self, node: &str) -> &mut Pot {
        self.own.get_mut(node).unwrap_or(&mut self.shared)
    }
}
