//! How a job finds a provider: two sides, one market.
//!
//! [`auction`] is the requester's side: discover, ask or announce, collect bids, award. [`bidder`] is the provider's:
//! what is on offer, what an offer costs, which leases stand. They never meet in one process except through the
//! wire; [`crate::Peer`] carries messages between them and the rest.

pub mod auction;
pub mod bidder;

pub use auction::Auctions;
pub use bidder::Bidder;
