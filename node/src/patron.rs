//! Who pays for the jobs of a handle: asked before each, and told what it cost.
//!
//! A handle has none for the peer's owner, whose purse is the ledger. The local API gives one to everybody who comes
//! with a key, and so its limits hold wherever a job is submitted on the way.

use std::fmt::Debug;

use protocol::{Credits, JobError, JobSpec};

/// Whoever pays.
pub trait Patron: Debug + Send + Sync {
    /// Looks at a job before anybody hears of it, bounds its budget, and sets that aside.
    ///
    /// # Errors
    /// Why the job is not to be.
    fn admit(&self, spec: &mut JobSpec) -> Result<Box<dyn Hold>, JobError>;
}

/// What is set aside for one job. Dropped, it is free again.
pub trait Hold: Debug + Send + Sync {
    /// The job is done and has cost so much. What is spent is on disk when this returns.
    fn settle(self: Box<Self>, cost: Credits);
}
