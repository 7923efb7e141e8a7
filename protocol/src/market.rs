//! How a job finds a provider: two sides, one market.
//!
//! | side | module | decides |
//! |---|---|---|
//! | requester | [`auction`] | discover, ask or announce, collect bids, bargain, award |
//! | | `collecting` | when bids have stopped coming |
//! | | [`award`] | which bid wins |
//! | provider | [`bidder`] | what is on offer, which leases stand |
//! | | [`strategy`] | what a bid asks |
//! | both | [`board`] | nothing; it remembers what was asked and offered, for people |
//!
//! The sides never meet in one process except through the wire; [`crate::Peer`] carries messages between them and the
//! rest.

pub mod auction;
pub mod award;
pub mod bidder;
pub mod board;
mod collecting;
pub mod strategy;

pub use auction::Auctions;
pub use award::Known;
pub use bidder::Bidder;
pub use board::Board;
pub use strategy::{Rule, Strategy};
