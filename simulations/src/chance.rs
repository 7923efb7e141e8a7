//! Chance as an input: a stream of bytes that follows from a seed and a purpose.
//!
//! BLAKE3 in counter mode through [`crypto::Hasher`]. Each purpose (keys, wires, jobs) draws from a stream of its
//! own, so that one more draw in one place does not reshuffle every other.

use crypto::{Digest, Hasher};

/// A generator. The same seed and purpose give the same draws, everywhere and for ever.
#[derive(Clone, Debug)]
pub struct Chance {
    root: Hasher,
    block: Digest,
    used: usize,
    counter: u64,
}

/// Chances are given in parts per million: integers, so that no platform rounds differently.
pub const MILLION: u64 = 1_000_000;

impl Chance {
    /// The stream for one purpose.
    #[must_use]
    pub fn of(seed: u64, purpose: &str) -> Self {
        let root = Hasher::new("simulation/chance").part(&seed.to_le_bytes()).part(purpose.as_bytes());
        Self { block: root.clone().finish(), root, used: Digest::LEN, counter: 0 }
    }

    /// The next bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte();
        }
        bytes
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// A number below `bound`; 0 when there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply and shift: the bias is below 2^-40 for every bound in use.
        let wide = u128::from(self.number()) * u128::from(bound);
        (wide >> 64) as u64
    }

    /// A number between two, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True in so many cases of a million.
    pub fn happens(&mut self, per_million: u64) -> bool {
        self.below(MILLION) < per_million
    }

    /// Up to `count` of the items, in drawn order.
    pub fn sample<T>(&mut self, mut items: Vec<T>, count: usize) -> Vec<T> {
        let mut drawn = Vec::new();
        while drawn.len() < count && !items.is_empty() {
            let index = self.below(items.len() as u64) as usize;
            drawn.push(items.swap_remove(index));
        }
        drawn
    }

    fn byte(&mut self) -> u8 {
        if self.used == Digest::LEN {
            self.block = self.root.clone().part(&self.counter.to_le_bytes()).finish();
            self.counter += 1;
            self.used = 0;
        }
        self.used += 1;
        self.block.as_bytes()[self.used - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_purpose_decide_everything() {
        let draw = |seed, purpose| Chance::of(seed, purpose).bytes::<64>();
        assert_eq!(draw(1, "keys"), draw(1, "keys"));
        assert_ne!(draw(1, "keys"), draw(2, "keys"));
        assert_ne!(draw(1, "keys"), draw(1, "jobs"));
    }

    #[test]
    fn draws_stay_in_range_and_reach_its_ends() {
        let mut chance = Chance::of(7, "test");
        let drawn: std::collections::BTreeSet<_> = (0..200).map(|_| chance.between(3, 6)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
        let mut all = chance.sample((0..10).collect(), 20);
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert!((0..100).all(|_| !chance.happens(0) && chance.happens(MILLION)));
    }
}
