//! What Llamesh signs, what it hashes, and under which name.
//!
//! One ed25519 key is everything a peer is: its transport identity, its `did:key`, the author of its jobs and
//! of its receipts. This crate turns bytes into claims that somebody can be held to, and it is pure: no IO, no
//! clock, no entropy. Keys come in as bytes; where they rest is the concern of `node`. What it remembers (of keys,
//! the points; of domains, their keys) saves time and changes no answer.
//!
//! | module | question it answers |
//! |---|---|
//! | [`digest`] | *which* bytes? BLAKE3, separated by domain |
//! | [`manifest`] | *which files?* one digest for a model of several |
//! | [`key`] | *who*? keys, peer ids, `did:key`; weak keys never become a [`PeerId`] |
//! | [`network`] | *where*? the name that keeps two meshes apart |
//! | [`signed`] | *who said it*? [`Signed`] → [`Verified`], the only door |
//! | [`transcript`] | *what was streamed so far*? the running commitment to an answer |
//!
//! Invariants:
//! 1. What is signed and hashed is always the bytes as received, never a re-encoding: two encodings of one value
//!    are two statements.
//! 2. A [`PeerId`] that exists is a valid, non-weak ed25519 key; a [`Verified`] that exists has a signature that
//!    `verify_strict` accepted for this network and this type.
//! 3. No two domains share a hash or a signature: every digest and every signed byte string begins with a name.

pub mod digest;
pub mod key;
pub mod manifest;
pub mod network;
pub mod signed;
pub mod transcript;

pub use digest::{Digest, Hasher};
pub use key::{PeerId, SecretKey};
pub use manifest::Manifest;
pub use network::Network;
pub use signed::{Payload, Signed, Verified};
pub use transcript::{Commitment, Transcript};
