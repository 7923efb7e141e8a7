//! Every decision that a Llamesh peer makes, without IO.
//!
//! ```text
//!                       Event ─▶ ┌──────────── Peer ────────────┐ ─▶ Output
//!                                │  market        session       │
//!   what happened                │   auction       requester    │        what to do, in order
//!   (packets, tokens, time)      │   bidder        provider     │        (send, run, record, notify)
//!                                │  mandate  reputation  ledger │
//!                                └──────────────────────────────┘
//! ```
//!
//! Machines never meet except in [`Peer`], which only routes. Each has the same verbs:
//!
//! | verb | meaning |
//! |---|---|
//! | `handle(now, event)`, `on_*` | what happened |
//! | `handle_timeout(now)` | what is due |
//! | `poll_output()` | what to do, in order, until `None` |
//! | `poll_timeout()` | when to come back |
//!
//! Invariants:
//! 1. No IO, no clock, no entropy, no async, no hash-ordered collection: the same events at the same times give the
//!    same outputs. Time, chance and keys are inputs.
//! 2. A statement of a stranger is acted on only as [`crypto::Verified`].
//! 3. [`Output::Record`] precedes every output that depends on it.
//! 4. Everything that a stranger can fill is bounded by a named constant.
//! 5. `market` and `session` do not import each other; only [`peer`] names two machines.
//!
//! Modules in suggested reading order: [`event`], [`peer`], [`market`], [`session`], [`receipt`], then the small
//! ones. [`plan`] is a machine of its own with the same verbs: it submits jobs like any user of a peer. The wire is
//! written down in `SPEC.md`.

pub mod approval;
pub mod call;
pub mod capability;
pub mod chat;
pub mod codec;
pub mod constraint;
pub mod error;
pub mod event;
pub mod job;
pub mod ledger;
pub mod mandate;
pub mod market;
pub mod message;
pub mod peer;
pub mod plan;
pub mod profile;
pub mod receipt;
pub mod reputation;
pub mod score;
pub mod session;
pub mod trace;
pub mod units;

pub use capability::Capability;
pub use chat::{Chat, ChatMessage, Role, Tool, ToolCall, ToolChoice};
pub use codec::{DecodeError, Message};
pub use constraint::Constraint;
pub use error::JobError;
pub use event::{Event, JobEvent, Output};
pub use job::{Choosing, Input, JobId, JobKind, JobSpec, Limits, Preference, Requirement, Sampling, Weights};
pub use ledger::{Entry, Ledger};
pub use message::{Announcement, Ask, Bid, Frame, Request, Response};
pub use peer::Peer;
pub use plan::Plan;
pub use profile::{AgentOffer, ModelOffer, Profile, Speed};
pub use receipt::{
    Acknowledgement, Continuation, Finish, Inherited, Opening, Order, Receipt, Rendering, Segment, Token,
};
pub use reputation::{Evidence, Reputation};
pub use score::{Alternative, Logprobs, Scores};
pub use trace::Trace;
pub use units::{Credits, Price, Timestamp, Usage};
