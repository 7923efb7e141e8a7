//! Digests with a domain: the same bytes under two names are two digests.
//!
//! BLAKE3's key-derivation mode gives every domain a hash function of its own, so that the digest of an order can
//! never be presented as the digest of a receipt. The one exception is [`Digest::of_content`], plain BLAKE3: it
//! names files, and anybody must be able to recompute it with a stock tool.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// 32 bytes of BLAKE3. Prints and parses as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; Self::LEN]);

impl Digest {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The digest of `bytes` in `domain`.
    pub fn of(domain: &'static str, bytes: &[u8]) -> Self {
        Hasher::new(domain).part(bytes).finish()
    }

    /// Plain BLAKE3 of a content, as `b3sum` prints it: the name of a file.
    pub fn of_content(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Takes 32 bytes that already are a digest.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The first eight hexadecimal digits, for people and logs; never for decisions.
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

/// A digest over several parts. Each part is preceded by its length, so that moving a byte from one part to the
/// next changes the digest.
///
/// The parts are put together first: most digests are over a few dozen bytes, and BLAKE3's state of two kilobytes would be moved
/// about with each part.
#[derive(Clone, Debug)]
pub struct Hasher {
    domain: ContextKey,
    bytes: Vec<u8>,
}

impl Hasher {
    /// Begins a digest in `domain`.
    pub fn new(domain: &'static str) -> Self {
        Self { domain: context_key(domain), bytes: Vec::with_capacity(USUAL) }
    }

    /// Adds one length-prefixed part.
    #[must_use]
    pub fn part(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The digest of all parts so far.
    pub fn finish(self) -> Digest {
        let mut hasher = blake3::Hasher::new_from_context_key(&self.domain);
        hasher.update(&self.bytes);
        Digest(hasher.finalize().into())
    }
}

/// Room that holds a token with what surrounds it.
const USUAL: usize = 128;

/// Domains whose keys are remembered, in each thread: several times as many as there are.
const REMEMBERED: usize = 64;

type Remembered = Option<(&'static str, ContextKey)>;

thread_local! {
    static CONTEXT_KEYS: RefCell<[Remembered; REMEMBERED]> = const { RefCell::new([None; REMEMBERED]) };
}

/// What a domain's hash function starts from. To find it takes as long as the digest of a token, so the latest are
/// remembered, each in the one place that its letters give it. Two that meet there cost what they would cost otherwise.
fn context_key(domain: &'static str) -> ContextKey {
    CONTEXT_KEYS.with_borrow_mut(|keys| {
        let place = domain.bytes().map(usize::from).sum::<usize>() % REMEMBERED;
        match keys[place] {
            Some((remembered, key)) if remembered == domain => key,
            _ => {
                let key = hash_derive_key_context(&format!("llamesh {domain} v1"));
                keys[place] = Some((domain, key));
                key
            }
        }
    })
}

/// What is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: 64 hexadecimal digits are expected")]
pub struct ParseDigestError(String);

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseDigestError(text.chars().take(80).collect());
        if text.len() != 2 * Self::LEN || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refuse());
        }
        let mut bytes = [0; Self::LEN];
        for (byte, pair) in bytes.iter_mut().zip(0..Self::LEN) {
            *byte = u8::from_str_radix(&text[2 * pair..2 * pair + 2], 16).map_err(|_| refuse())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({}…)", self.short())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; Self::LEN]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_and_a_boundary_change_the_digest() {
        assert_ne!(Digest::of("a", b"x"), Digest::of("b", b"x"));
        assert_ne!(Digest::of("a", b"x"), Digest::of_content(b"x"));
        let joined = Hasher::new("a").part(b"xy").part(b"z").finish();
        assert_ne!(joined, Hasher::new("a").part(b"x").part(b"yz").finish());
    }

    #[test]
    fn domains_that_share_a_place_are_told_apart() {
        let part = [7; 5000];
        let bytes = [&5000_u64.to_le_bytes()[..], &part].concat();
        for _ in 0..2 {
            for domain in ["ab", "ba"] {
                let expected = blake3::derive_key(&format!("llamesh {domain} v1"), &bytes);
                assert_eq!(Digest::of(domain, &part).as_bytes(), &expected);
            }
        }
    }

    #[test]
    fn text_form_round_trips_and_refuses_everything_else() {
        let digest = Digest::of("a", b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let text = digest.to_string();
        for bad in
            ["", "00", &text[1..], &text.to_uppercase(), &format!("{text}0"), &text.replace(&text[..1], "+")]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
