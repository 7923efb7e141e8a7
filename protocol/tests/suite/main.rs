//! The protocol as stories: two to four peers, a wire of real bytes, and time that moves only when told.
//!
//! | module | tells |
//! |---|---|
//! | [`honest`] | what happens when everybody keeps the rules |
//! | [`awards`], [`closing`], [`bargains`] | which bid wins, when bids have stopped coming, how a price comes down |
//! | [`strategies`], [`board`] | what providers ask, and what can be seen of it |
//! | [`leases`] | which places are promised, and when they are free again |
//! | [`market`], [`orders`], [`faults`] | who breaks which rule as bidder, as requester, as provider, and what it costs them |
//! | [`answers`] | what may be an answer, and what only lengthens the bill |
//! | [`commitments`] | how an exact engine's digests get into an opening, and stay there |
//! | [`constraints`], [`chats`], [`scores`] | forms of answers, tools, and how likely tokens are |
//! | [`calls`] | what tools are given, and what their receipts name |
//! | [`plans`], [`plans_at_random`], [`plans_hostile`] | plans of many agents: as people write them, in any order of events, and from those who wish us ill |
//! | [`limits`] | how sub-jobs share what their root was given |
//! | [`codec`], [`hostile`] | properties: bytes and events from a generator that wishes us ill |
//! | [`strangers`], [`mutation`] | thousands of broken inputs for everything that a stranger's bytes reach |
//! | [`wire`], [`schemas`], [`spec`] | the written contract: golden vectors, JSON Schemas, the tables of `SPEC.md` |
//!
//! [`world`] drives the peers, [`values`], [`samples`] and [`any`] make what they talk about.

#![expect(clippy::unwrap_used, reason = "tests say by failing")]

mod answers;
mod any;
mod approvals;
mod awards;
mod bargains;
mod board;
mod calls;
mod chats;
mod closing;
mod codec;
mod commitments;
mod constraints;
mod failover;
mod faults;
mod honest;
mod hostile;
mod leases;
mod limits;
mod market;
mod mutation;
mod orders;
mod plans;
mod plans_at_random;
mod plans_hostile;
mod samples;
mod schemas;
mod scores;
mod spec;
mod strangers;
mod strategies;
mod traces;
mod values;
mod wire;
mod world;
