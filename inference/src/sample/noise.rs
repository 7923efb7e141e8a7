//! Chance that anyone can recompute: the noise of one token at one output position.
//!
//! The noise is a function of the requester's seed, the choice number, the absolute output index and the token
//! id, and of nothing else: neither the peer nor the engine enters it. So another peer continues a broken stream
//! with the token the first would have drawn, and an auditor looks up the noise of a single token. BLAKE3's
//! extendable output gives random access: token `v` owns the eight bytes at offset `8·v`.

use crate::math::ln;

/// The noise of one output position, readable at any token id.
#[derive(Debug)]
pub struct Noise {
    stream: blake3::OutputReader,
    block: [[u8; WORD]; BLOCK],
    /// Which block of the stream is in `block`.
    loaded: Option<u32>,
}

impl Noise {
    /// The noise at output `index` of choice number `choice`.
    #[must_use]
    pub fn new(seed: u64, choice: u32, index: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&seed.to_le_bytes());
        hasher.update(&choice.to_le_bytes());
        hasher.update(&index.to_le_bytes());
        Self { stream: hasher.finalize_xof(), block: [[0; WORD]; BLOCK], loaded: None }
    }

    /// Gumbel noise of a token: `−ln(−ln u)` with `u` uniform in (0, 1).
    #[must_use]
    pub fn gumbel(&mut self, token: u32) -> f64 {
        gumbel(self.draw(token))
    }

    /// Fifty-two uniform bits for a token; the next few tokens' are then at hand.
    pub(super) fn draw(&mut self, token: u32) -> Draw {
        let (block, within) = (token / BLOCK as u32, token as usize % BLOCK);
        if self.loaded != Some(block) {
            let mut words = [[0; WORD]; BLOCK];
            self.read(block * BLOCK as u32, &mut words);
            (self.block, self.loaded) = (words, Some(block));
        }
        Draw::of(self.block[within])
    }

    /// The words of a run of tokens from `first` on, read at once: see [`Draw::of`].
    pub(super) fn read(&mut self, first: u32, words: &mut [[u8; WORD]]) {
        self.stream.set_position(u64::from(first) * WORD as u64);
        self.stream.fill(words.as_flattened_mut());
    }
}

/// A uniform 52-bit integer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    /// The draw of a token that owns this word of the stream.
    #[inline]
    pub(super) fn of(word: [u8; WORD]) -> Self {
        Self(u64::from_le_bytes(word) >> 12)
    }

    /// A bound that the noise cannot exceed, without a logarithm: with `n` leading ones `−ln u` is above
    /// `2^−(n+1)`. It lets the sampler skip tokens that cannot win.
    pub(super) fn ceiling(self) -> f64 {
        let ones = (self.0 << 12).leading_ones();
        f64::from(ones + 1) * LN_2_CEILING
    }
}

pub(super) fn gumbel(draw: Draw) -> f64 {
    // Half a step off the integers keeps u away from zero and one; the sum has 53 bits and is exact.
    let u = (draw.0 as f64 + 0.5) * STEP;
    -ln(-ln(u))
}

const CONTEXT: &str = "llamesh inference 1 sampling noise";
/// Bytes of the stream that a token owns.
pub(super) const WORD: usize = 8;
/// Tokens of 64 bytes, which is what BLAKE3 computes at least.
const BLOCK: usize = 8;
/// 2^−52.
const STEP: f64 = f64::EPSILON;
/// A little above ln 2, so that the bound holds whatever the last bit of a logarithm is.
const LN_2_CEILING: f64 = 0.693_148;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        let of =
            |seed, choice, index, token| format!("{:.12}", Noise::new(seed, choice, index).gumbel(token));
        let found = [
            of(0, 0, 0, 0),
            of(1, 0, 0, 0),
            of(0, 1, 0, 0),
            of(0, 0, 1, 0),
            of(0, 0, 0, 1),
            of(7, 2, 9, 49_151),
        ];
        assert_eq!(found, GOLDEN);
    }

    /// The definition in other words: another reader, the platform's logarithm.
    #[test]
    fn the_noise_is_what_it_is_said_to_be() {
        let mut input = Vec::new();
        input.extend(7u64.to_le_bytes());
        input.extend(2u32.to_le_bytes());
        input.extend(9u64.to_le_bytes());
        let mut bytes = vec![0; 8 * 100];
        blake3::Hasher::new_derive_key("llamesh inference 1 sampling noise")
            .update(&input)
            .finalize_xof()
            .fill(&mut bytes);
        let mut noise = Noise::new(7, 2, 9);
        for (token, bytes) in (0..).zip(bytes.chunks_exact(8)) {
            let bits = u64::from_le_bytes(bytes.try_into().unwrap()) >> 12;
            let u = (bits as f64 + 0.5) / 2.0f64.powi(52);
            assert!((noise.gumbel(token) - -(-u.ln()).ln()).abs() < 1e-13);
        }
    }

    #[test]
    fn order_of_reading_does_not_matter() {
        let mut forward = Noise::new(42, 0, 5);
        let ascending: Vec<_> = (0..200).map(|v| forward.gumbel(v)).collect();
        let mut backward = Noise::new(42, 0, 5);
        let descending: Vec<_> = (0..200).rev().map(|v| backward.gumbel(v)).collect();
        assert!(ascending.iter().eq(descending.iter().rev()));
    }

    #[test]
    fn the_ceiling_is_never_below_the_noise() {
        let extremes = [0, 1, (1 << 52) - 1, (1 << 52) - 2, 1 << 51, (1 << 51) - 1];
        let spread = (0..100_000u64).map(|k| k.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12);
        let edges = (0..52).map(|n| ((1u64 << 52) - 1) ^ (1 << n));
        for bits in extremes.into_iter().chain(spread).chain(edges) {
            let draw = Draw(bits);
            assert!(gumbel(draw).is_finite());
            assert!(gumbel(draw) <= draw.ceiling(), "{bits:x}");
        }
    }

    #[test]
    fn mean_and_variance_are_gumbels() {
        let mut noise = Noise::new(3, 0, 0);
        let values: Vec<_> = (0..100_000).map(|v| noise.gumbel(v)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|g| (g - mean) * (g - mean)).sum::<f64>() / values.len() as f64;
        assert!((mean - 0.577_216).abs() < 0.02, "{mean}");
        assert!((variance - 1.644_934).abs() < 0.05, "{variance}");
    }

    const GOLDEN: [&str; 6] = [
        "0.093378024850",
        "-0.450757895875",
        "1.572501492430",
        "1.023869460941",
        "-0.264457157510",
        "0.564483384326",
    ];
}
