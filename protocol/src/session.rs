//! How an ordered job gets done: two sides of one long-lived stream.
//!
//! [`requester`] sends the order, checks every frame against its own transcript and countersigns the receipt.
//! [`provider`] checks the order, runs an agent, commits to every token and signs for the whole. Neither knows how
//! the other was chosen.

mod answer;
pub mod provider;
pub mod requester;
mod rhythm;

pub use provider::Provider;
pub use requester::Requester;
