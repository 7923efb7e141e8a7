//! Why a job did not get done: part of the grammar, not prose.
//!
//! A machine decides by the variant and by [`JobError::retryable`]; a person reads the sentence. The same enum
//! crosses the wire, reaches the local API as JSON (`code`, `message`, `retryable`; SPEC §9) and becomes an exit code.

use serde::{Deserialize, Serialize};

use crate::{Capability, Evidence};

/// What went wrong with a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobError {
    /// Every slot is taken; the provider is well and says when to come back.
    #[error("every slot is taken; try again in {retry_after_ms} ms")]
    Busy {
        /// When a slot is likely to be free.
        retry_after_ms: u64,
    },
    /// The requester, or somebody above it, took the job back.
    #[error("the job was cancelled")]
    Cancelled,
    /// The prompt and the answer do not fit the model's context.
    #[error(
        "the prompt has {tokens} tokens, the model's context {context}; shorten the prompt or ask for a model with a larger context"
    )]
    ContextExceeded {
        /// Tokens of the prompt.
        tokens: u32,
        /// What the model can hold.
        context: u32,
    },
    /// The job's time is over.
    #[error(
        "the job's deadline has passed; give it more time (`--timeout`, or `deadline` among the options of a request)"
    )]
    DeadlineExceeded,
    /// The agent failed while it worked.
    #[error("the provider's agent failed; another provider may succeed")]
    Engine,
    /// The answer that was to be continued is not what this provider's model gives.
    #[error(
        "the answer so far is not this model's from token {index} on: whoever gave it, or whoever says so, is wrong; submit the job again"
    )]
    Inherited {
        /// The first token that differs.
        index: u32,
    },
    /// Input or parameters that no provider could accept.
    #[error("invalid request: {field} {problem}")]
    Invalid {
        /// Which field.
        field: Text,
        /// What is wrong with it and what would be right.
        problem: Text,
    },
    /// Budget, depth or number of children of the mandate are used up.
    #[error("the job's {limit:?} limit does not allow this; raise it where the job was submitted")]
    Limit {
        /// Which one.
        limit: Limit,
    },
    /// The provider proved faulty or dishonest while the job ran.
    #[error("the provider broke the protocol ({evidence:?}); its answer was thrown away")]
    Misbehaved {
        /// What it did.
        evidence: Evidence,
    },
    /// Nobody offers what is asked for.
    #[error("nobody offers `{capability}`{}", offered(sample))]
    NothingOffered {
        /// What was asked for.
        capability: Capability,
        /// Some of what *is* on offer, found under the root key.
        sample: Vec<Capability>,
    },
    /// Nobody who offers it answered, or all refused.
    #[error("no provider took the job ({asked} asked); try again, or look at `llamesh find`")]
    NoTaker {
        /// How many were asked.
        asked: u32,
    },
    /// The order is not one that this provider made an offer for, or came too late.
    #[error("the order matches no offer that still stands; ask for a new one")]
    Order {
        /// Why.
        why: OrderFault,
    },
    /// The stream broke and the answer is incomplete.
    #[error("the provider was lost in the middle of the answer")]
    ProviderLost,
    /// A part of the protocol that this agent, or this build, does not do.
    #[error("unsupported: {feature:?}; this agent does not do it, another provider or model may")]
    Unsupported {
        /// Which one.
        feature: Feature,
    },
}

/// An error as JSON: what the local API answers and `--json` prints (SPEC §9, `schemas/error.json`).
///
/// Programs decide by `code` and `retryable`; `message` is for people and may change with any build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`JobError::code`].
    pub code: String,
    /// The sentence.
    pub message: String,
    /// [`JobError::retryable`].
    pub retryable: bool,
    /// The error itself, where it says more than its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<JobError>,
}

impl From<&JobError> for Report {
    fn from(error: &JobError) -> Self {
        let (code, message) = (error.code().to_owned(), error.to_string());
        let detail = (!error.is_bare()).then(|| error.clone());
        Self { code, message, retryable: error.retryable(), detail }
    }
}

/// A short text in an error: bounded where it is made, so that an error can always be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// Longest text in bytes.
    pub const MAX_LEN: usize = 240;

    /// Takes the beginning of `text`, up to the cap.
    pub fn new(text: &str) -> Self {
        Self(text[..text.floor_char_boundary(Self::MAX_LEN)].to_owned())
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A limit of a mandate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Credits.
    Budget,
    /// How many sub-jobs.
    Children,
    /// How deep sub-jobs may nest.
    Depth,
}

/// What is wrong with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderFault {
    /// The input is not the one that was committed to.
    Commitment,
    /// Issued too long ago, or in the future.
    Expired,
    /// No lease, or another one than the offer's.
    Lease,
    /// This order has been seen before.
    Replayed,
    /// Signature, signer or addressee are wrong.
    Signature,
}

/// What an agent cannot do, or the SPEC reserves: answered with `unsupported`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Feature {
    /// Answers of a form that was asked for.
    Constraint,
    /// Kinds of job that an agent, or this build, does not do.
    JobKind,
    /// Inputs that an agent, or this build, does not read.
    Input,
    /// More choices from one prompt than anybody needs.
    Choices,
    /// Log-probabilities of tokens.
    Logprobs,
    /// Tools that the model may call.
    Tools,
    /// Going on with another provider's answer.
    Continuation,
}

impl JobError {
    /// An [`JobError::Invalid`] with bounded texts.
    pub fn invalid(field: &str, problem: &str) -> Self {
        Self::Invalid { field: Text::new(field), problem: Text::new(problem) }
    }

    /// True when the same job may succeed with another provider or a little later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::Engine
            | Self::Inherited { .. }
            | Self::Misbehaved { .. }
            | Self::NoTaker { .. }
            | Self::Order { .. }
            | Self::ProviderLost => true,
            Self::Cancelled
            | Self::ContextExceeded { .. }
            | Self::DeadlineExceeded
            | Self::Invalid { .. }
            | Self::Limit { .. }
            | Self::NothingOffered { .. }
            | Self::Unsupported { .. } => false,
        }
    }

    /// True when the code says it all.
    fn is_bare(&self) -> bool {
        matches!(self, Self::Cancelled | Self::DeadlineExceeded | Self::Engine | Self::ProviderLost)
    }

    /// The stable name in JSON.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::Cancelled => "cancelled",
            Self::ContextExceeded { .. } => "context_exceeded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Engine => "engine",
            Self::Inherited { .. } => "inherited",
            Self::Invalid { .. } => "invalid",
            Self::Limit { .. } => "limit",
            Self::Misbehaved { .. } => "misbehaved",
            Self::NoTaker { .. } => "no_taker",
            Self::NothingOffered { .. } => "nothing_offered",
            Self::Order { .. } => "order",
            Self::ProviderLost => "provider_lost",
            Self::Unsupported { .. } => "unsupported",
        }
    }
}

fn offered(sample: &[Capability]) -> String {
    if sample.is_empty() {
        return "; no other peer with an agent is known: is this peer connected? (`llamesh doctor`)"
            .to_owned();
    }
    let names: Vec<_> = sample.iter().map(Capability::as_str).collect();
    format!("; on offer are: {}", names.join(", "))
}
