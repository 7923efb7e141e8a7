//! The second driver: many [`protocol::Peer`]s in one process, in virtual time.
//!
//! ```text
//! scenario.toml ──▶ World ──▶ queue of (time, sequence) ──▶ Host: Peer · Searches · Engine
//!                     │               ▲                        │
//!                     │               └── Links · Streams ◀────┘ outputs, in order, as real bytes
//!                     └─▶ Watch (invariants) · History (digest) ─▶ Report
//! ```
//!
//! What is simulated is the world around a peer: wires, clocks, crashes, a DHT and an engine's speed. What decides is
//! the shipped machine itself, and every message crosses [`protocol::Message::to_bytes`] and back, so sizes and caps
//! are real. A bug found here is a bug in the shipped code.
//!
//! Invariants:
//! 1. No clock, no entropy, no hash order: a scenario and a seed have one history, byte for byte.
//! 2. Nothing here depends on `node`.
//! 3. The [`invariant`]s are watched while the world runs, not sampled after it.
//!
//! Modules in suggested reading order: [`scenario`], [`world`], [`host`], [`link`], [`invariant`], [`report`].
//!
//! ```
//! let text = include_str!("../scenarios/honest.toml");
//! let scenario = simulations::Scenario::parse(text)?;
//! assert_eq!(scenario.name, "honest");
//! // `simulations::run(&scenario, 1)` gives the report of one history.
//! # Ok::<(), simulations::scenario::ScenarioError>(())
//! ```

pub mod chance;
pub mod engine;
pub mod history;
pub mod host;
pub mod invariant;
pub mod job;
pub mod link;
pub mod report;
pub mod scenario;
pub mod search;
pub mod stream;
pub mod world;

pub use report::Report;
pub use scenario::Scenario;
pub use world::World;

/// Lives through one history of a scenario, from the first peer's start until nothing is left to happen.
#[must_use]
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    World::new(scenario, seed).run()
}
