//! Under which keys a capability is found.
//!
//! A provider stands under its capability, under every ancestor of it, and under the root key that lists everybody
//! with anything on offer. A key that grows too popular will be split by provider id: its name already has a depth
//! and an index (`(capability, depth, index)`, today always `(…, 0, 0)`), so that splitting changes no key of today.

use std::collections::BTreeSet;

use crypto::{Digest, Hasher};
use protocol::Capability;

/// A key of the DHT: 32 bytes that say nothing about the capability to who does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Digest);

impl Key {
    /// The key of a capability, whole.
    pub fn of(capability: &Capability) -> Self {
        Self::shard(capability.as_str(), 0, 0)
    }

    /// The key under which every provider of anything stands.
    pub fn root() -> Self {
        // No capability has an empty name.
        Self::shard("", 0, 0)
    }

    /// Everything that a provider of `capabilities` stands under: at most `4 n + 1` keys.
    pub fn all<'a>(capabilities: impl IntoIterator<Item = &'a Capability>) -> BTreeSet<Self> {
        let mut keys: BTreeSet<Self> =
            capabilities.into_iter().flat_map(Capability::with_ancestors).map(|c| Self::of(&c)).collect();
        if !keys.is_empty() {
            keys.insert(Self::root());
        }
        keys
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; Digest::LEN] {
        self.0.as_bytes()
    }

    fn shard(capability: &str, depth: u8, index: u32) -> Self {
        let key =
            Hasher::new("capability").part(capability.as_bytes()).part(&[depth]).part(&index.to_le_bytes());
        Self(key.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(text: &str) -> Capability {
        text.parse().unwrap()
    }

    #[test]
    fn a_provider_stands_under_its_ancestors_and_the_root() {
        let keys = Key::all([&capability("code.generation.python"), &capability("code.review")]);
        let expected = ["code", "code.generation", "code.generation.python", "code.review"];
        let mut expected: BTreeSet<_> = expected.iter().map(|c| Key::of(&capability(c))).collect();
        expected.insert(Key::root());
        assert_eq!(keys, expected);
        assert!(Key::all([]).is_empty(), "who offers nothing is not to be found");
    }

    #[test]
    fn keys_never_drift() {
        let key = Key::of(&Capability::text_generation());
        assert_eq!(key.0.to_string(), "8de4f7419bf533d958fa7f1953779ca6bcf6e39649c6c6c81c257aea132fceae");
    }
}
