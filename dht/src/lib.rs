//! How a peer is found.
//!
//! ```text
//! capability ──key──▶ 32 bytes ──kademlia──▶ provider ids ──(node asks each)──▶ signed profiles ──▶ directory
//! ```
//!
//! The DHT holds provider records only: who, under which key. What a provider can do is asked of the provider itself
//! and signed by it, so nobody can plant a false description, and nothing stale outlives its minutes.
//!
//! | module | |
//! |---|---|
//! | [`key`] | under which keys a capability is found; pure |
//! | [`directory`] | the bounded, expiring memory of profiles; pure |
//! | `kademlia` | provide and find over libp2p's Kademlia; feature `net` |
//!
//! Invariant: without the feature `net` there is no libp2p, no IO and no clock here.

pub mod directory;
#[cfg(feature = "net")]
pub mod kademlia;
pub mod key;

pub use directory::Directory;
pub use key::Key;
