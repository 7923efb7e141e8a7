//! One key, one peer: ed25519 keys, the peer id that libp2p derives from them, and `did:key`.
//!
//! The three names of a peer are the same 32 bytes in three spellings, so no registrar is needed and no key has to
//! travel beside a signature. A [`PeerId`] is checked when it is made (RFC 8032 point, no small-order component):
//! with a weak key anybody could sign for everybody, so such a key never gets a name here.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Identity multihash of libp2p's protobuf-encoded ed25519 public key: everything before the 32 key bytes.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
/// Multicodec `ed25519-pub`, as `did:key` writes it.
const DID_KEY_PREFIX: [u8; 2] = [0xed, 0x01];
/// `did:key` text before the base58 part; `z` is multibase base58btc.
const DID_KEY_SCHEME: &str = "did:key:z";
/// No spelling of a peer is longer; longer text is refused before it is decoded.
const MAX_TEXT: usize = 80;

/// The secret half. It is wiped from memory when dropped and never printed.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Makes the key of a 32-byte seed. The seed must come from a good source of entropy.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for the file that keeps it and for the transport that shares the key.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public name of this key.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.peer_id())
    }
}

/// A peer: a valid, non-weak ed25519 public key. Prints and parses as libp2p's `12D3Koo…`.
///
/// Kept compressed: it is copied into every event and map, and decompressing costs a tenth of the verification that it
/// is needed for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Checks a public key.
    ///
    /// # Errors
    /// [`KeyError::NotAPoint`] and [`KeyError::Weak`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        point(bytes).map(|_| Self(*bytes))
    }

    /// The public key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes of libp2p's peer id (38 of them).
    pub fn to_multihash(&self) -> Vec<u8> {
        [PEER_ID_PREFIX.as_slice(), self.as_bytes()].concat()
    }

    /// Reads the bytes of a libp2p peer id.
    ///
    /// # Errors
    /// [`KeyError::NotEd25519`] for any other kind of key, and those of [`PeerId::from_bytes`].
    pub fn from_multihash(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::from_prefixed(&PEER_ID_PREFIX, bytes)
    }

    /// The W3C `did:key` of this peer.
    pub fn did_key(&self) -> String {
        let bytes = [DID_KEY_PREFIX.as_slice(), self.as_bytes()].concat();
        format!("{DID_KEY_SCHEME}{}", bs58::encode(bytes).into_string())
    }

    /// The last six characters, for people and logs; never for decisions.
    pub fn short(&self) -> String {
        let text = self.to_string();
        text[text.len() - 6..].to_owned()
    }

    /// True when `signature` is this peer's over exactly `message` (`verify_strict`: no malleable forms).
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        point(&self.0).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }

    fn from_prefixed(prefix: &[u8], bytes: &[u8]) -> Result<Self, KeyError> {
        let key = bytes.strip_prefix(prefix).ok_or(KeyError::NotEd25519)?;
        Self::from_bytes(key.try_into().map_err(|_| KeyError::NotEd25519)?)
    }
}

/// Keys whose points are remembered, in each thread.
const REMEMBERED: usize = 64;

thread_local! {
    static POINTS: RefCell<[Option<VerifyingKey>; REMEMBERED]> = const { RefCell::new([None; REMEMBERED]) };
}

/// The point of a key that is not weak.
///
/// To find and check it takes a tenth of a verification, and a job's statements name the same few keys again and again,
/// so the latest are remembered, each in the one place that its first byte gives it. Keys that were made to meet there cost
/// what every key would cost otherwise.
fn point(bytes: &[u8; 32]) -> Result<VerifyingKey, KeyError> {
    POINTS.with_borrow_mut(|points| {
        let remembered = &mut points[usize::from(bytes[0]) % REMEMBERED];
        if let Some(key) = remembered.filter(|key| key.as_bytes() == bytes) {
            return Ok(key);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        *remembered = Some(key);
        Ok(key)
    })
}

/// Why bytes or text are not a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The 32 bytes are no point of the curve.
    #[error("not an ed25519 public key")]
    NotAPoint,
    /// The text is neither a peer id nor a `did:key`.
    #[error("not a peer id: `12D3Koo…` or `did:key:z6Mk…` is expected")]
    NotAPeerId,
    /// Some other kind of key or hash.
    #[error("not the id of an ed25519 key: every peer of the mesh has one")]
    NotEd25519,
    /// Anybody can sign for this key.
    #[error("a weak key: everybody could sign in its name")]
    Weak,
}

impl FromStr for PeerId {
    type Err = KeyError;

    /// Takes either spelling: libp2p's peer id or `did:key`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_TEXT {
            return Err(KeyError::NotAPeerId);
        }
        let (prefix, body) = match text.strip_prefix(DID_KEY_SCHEME) {
            Some(body) => (DID_KEY_PREFIX.as_slice(), body),
            None => (PEER_ID_PREFIX.as_slice(), text),
        };
        let bytes = bs58::decode(body).into_vec().map_err(|_| KeyError::NotAPeerId)?;
        Self::from_prefixed(prefix, &bytes)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_multihash()).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId(…{})", self.short())
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.as_bytes().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            Self::from_bytes(&<[u8; 32]>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_peer() {
        let peer = SecretKey::from_seed(&[7; 32]).peer_id();
        assert_eq!(peer.to_string().parse(), Ok(peer));
        assert_eq!(peer.did_key().parse(), Ok(peer));
        assert_eq!(PeerId::from_multihash(&peer.to_multihash()), Ok(peer));
    }

    #[test]
    fn a_weak_key_never_becomes_a_peer() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PeerId::from_bytes(&identity), Err(KeyError::Weak));
    }

    #[test]
    fn a_key_is_checked_again_whatever_took_its_place() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let peers: Vec<_> = (0..=255).map(|seed| SecretKey::from_seed(&[seed; 32]).peer_id()).collect();
        for peer in peers.iter().chain(&peers) {
            assert_eq!(PeerId::from_bytes(peer.as_bytes()), Ok(*peer));
            assert_eq!(PeerId::from_bytes(&identity), Err(KeyError::Weak));
        }
        // 256 keys share 64 places: each signs for itself, whoever was asked before it.
        for seed in 0..=255 {
            let key = SecretKey::from_seed(&[seed; 32]);
            let signature = key.sign(b"message");
            let place = |peer: &PeerId| usize::from(peer.as_bytes()[0]) % REMEMBERED;
            let rivals = peers.iter().filter(|peer| place(peer) == place(&key.peer_id()));
            let signers: Vec<_> = rivals.filter(|peer| peer.verifies(b"message", &signature)).collect();
            assert_eq!(signers, [&key.peer_id()]);
        }
    }

    #[test]
    fn other_text_is_refused() {
        for bad in
            ["", "12D3KooW", "did:key:z", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", &"1".repeat(200)]
        {
            assert!(bad.parse::<PeerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_secret_stays_out_of_debug() {
        let key = SecretKey::from_seed(&[7; 32]);
        assert!(!format!("{key:?}").contains("07, 07"));
    }
}
