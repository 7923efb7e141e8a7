//! What a command can fail with: one exit code per class, and a next step in every message.
//!
//! | code | class |
//! |--:|---|
//! | 0 | success |
//! | 1 | the program itself failed |
//! | 2 | the command line is wrong |
//! | 3 | the request is wrong: input, parameters, a prompt that does not fit |
//! | 4 | nobody took the job |
//! | 5 | the network: no peer runs here, no bootstrap answers, an address is taken |
//! | 6 | the job failed on the way |
//! | 7 | a receipt was refuted |
//! | 8 | a receipt cannot be verified |
//! | 9 | the data directory: locked, or damaged |
//! | 10 | the model: not to be had, or damaged |

use std::path::Path;

use inference::LoadError;
use protocol::JobError;
use protocol::plan::{Fault, Mistake};

/// A failed command.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What became of it.
    pub class: Class,
    /// What happened and what to do next.
    pub message: String,
}

/// The class of a failure; its number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// The program itself failed.
    Internal = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The request is wrong.
    Request = 3,
    /// Nobody took the job.
    NoProvider = 4,
    /// The network.
    Network = 5,
    /// The job failed on the way.
    Job = 6,
    /// A receipt was refuted.
    Refuted = 7,
    /// A receipt cannot be verified.
    Unverifiable = 8,
    /// The data directory.
    Data = 9,
    /// The model.
    Model = 10,
}

impl Failure {
    /// A failure of a class.
    pub fn new(class: Class, message: impl std::fmt::Display) -> Self {
        Self { class, message: message.to_string() }
    }

    /// A model that was not loaded. A kernel that cannot be had is no fault of the file.
    pub fn of_load(path: &Path, error: &LoadError) -> Self {
        match error {
            LoadError::Kernel(_) => Self::new(Class::Usage, error),
            _ => Self::new(Class::Model, format!("{}: {error}", path.display())),
        }
    }

    /// For `map_err`.
    pub fn of<E: std::fmt::Display>(class: Class) -> impl Fn(E) -> Self {
        move |error| Self::new(class, error)
    }
}

impl Class {
    /// The class of a job's error, by its stable code (the same whether the job ran here or was told by the API).
    pub fn of_job(code: &str) -> Self {
        match code {
            "context_exceeded" | "invalid" | "limit" | "unsupported" => Self::Request,
            "busy" | "no_taker" | "nothing_offered" | "order" => Self::NoProvider,
            _ => Self::Job,
        }
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self::new(Class::of_job(error.code()), error)
    }
}

impl From<crate::datadir::DataDirError> for Failure {
    fn from(error: crate::datadir::DataDirError) -> Self {
        Self::new(Class::Data, error)
    }
}

impl From<crate::journal::JournalError> for Failure {
    fn from(error: crate::journal::JournalError) -> Self {
        Self::new(Class::Data, error)
    }
}

impl From<crate::api::keys::store::StoreError> for Failure {
    fn from(error: crate::api::keys::store::StoreError) -> Self {
        Self::new(Class::Data, error)
    }
}

impl From<crate::api::keys::KeysError> for Failure {
    fn from(error: crate::api::keys::KeysError) -> Self {
        use crate::api::keys::KeysError;
        let class = match &error {
            KeysError::Full | KeysError::Name | KeysError::Unknown(_) => Class::Usage,
            KeysError::Entropy(_) => Class::Internal,
            KeysError::Store(_) => Class::Data,
        };
        Self::new(class, error)
    }
}

impl From<crate::plans::journal::JournalError> for Failure {
    fn from(error: crate::plans::journal::JournalError) -> Self {
        let unknown = matches!(error, crate::plans::journal::JournalError::Unknown(_));
        Self::new(if unknown { Class::Request } else { Class::Data }, error)
    }
}

impl From<protocol::plan::PlanError> for Failure {
    fn from(error: protocol::plan::PlanError) -> Self {
        let unpriced = |mistake: &Mistake| matches!(mistake.fault, Fault::Unpriced { .. });
        let class = if error.mistakes.iter().any(unpriced) { Class::NoProvider } else { Class::Request };
        Self::new(class, error)
    }
}

impl From<crate::net::NetError> for Failure {
    fn from(error: crate::net::NetError) -> Self {
        Self::new(Class::Network, error)
    }
}
