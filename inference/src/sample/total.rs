//! The sum over the whole vocabulary that a nucleus is measured by: bounds at once, the bits only where they matter.
//!
//! Top-p asks at some dozen tokens whether what was kept reaches `p` times the total. Bounds of the total answer
//! nearly always, and are cheap: the sum in `f32`, with an exponential that is right to a millionth. Only where the
//! question falls between the bounds is the total computed as the definition has it; so the answer is the
//! definition's, whatever the bounds' rounding is.
//!
//! # Why the bounds hold
//!
//! Let `x ≤ 0` be a token's score below the top one, `ε = 2^−24`, `n ≤ 2^20` tokens. In `f32` the difference of two
//! logits, the reciprocal of the temperature and their product err by `ε` each, so a term errs by `3ε|x|` of itself; the
//! exponential adds less than `5ε`, a block's sum `7ε`. Over all terms `Σ p|x|` is the entropy less the logarithm of the
//! total, so at most `ln n < 14`. Together that is `(3 · 14 + 12) ε < 3.3e-6`; [`SLACK`] is more.

use super::scores::Scores;
use crate::math::exp;

/// The total, as far as it is known.
pub(super) struct Total<'a> {
    low: f64,
    high: f64,
    /// Where the exact total comes from, while it is not known.
    unsettled: Option<&'a Scores<'a>>,
}

impl<'a> Total<'a> {
    /// A total that is known.
    pub(super) fn exact(total: f64) -> Self {
        Self { low: total, high: total, unsettled: None }
    }

    /// The total of all tokens.
    pub(super) fn of(scores: &'a Scores<'a>) -> Self {
        if !ordinary(scores) {
            return Self::exact(scores.total());
        }
        let about = about(scores);
        Self { low: about * (1.0 - SLACK), high: about * (1.0 + SLACK), unsettled: Some(scores) }
    }

    /// At least this much.
    pub(super) fn low(&self) -> f64 {
        self.low
    }

    /// Whether a sum reaches the share `p` of the total.
    pub(super) fn reached(&mut self, sum: f64, p: f64) -> bool {
        let uncertain = sum >= p * self.low && sum < p * self.high;
        if uncertain && let Some(scores) = self.unsettled.take() {
            *self = Self::exact(scores.total());
        }
        sum >= p * self.high
    }
}

/// Whether numbers are of a size for which the bounds were reckoned, as those of models are.
pub(super) fn ordinary(scores: &Scores<'_>) -> bool {
    scores.len() <= MOST_TOKENS && scores.top().abs() <= HIGHEST && scores.divisor() >= COLDEST
}

/// The total, to within [`SLACK`] of itself.
fn about(scores: &Scores<'_>) -> f64 {
    let top = scores.top();
    let (near, sharpness) = (top as f32, (1.0 / scores.divisor()) as f32);
    let lowest = near - (-LEAST) * scores.divisor() as f32;
    let high = scores.blocks().filter(|&(_, highest)| highest >= lowest);
    let unchanged: f64 = high.map(|(block, _)| f64::from(sum(block, near, sharpness))).sum();
    let changed: f64 = scores.changed().map(|logit| exp((logit - top) / scores.divisor())).sum();
    unchanged * exp((f64::from(near) - top) / scores.divisor()) + changed
}

/// `Σ exp((logit − top) · sharpness)`, about, in lanes, which the compiler makes vectors of.
fn sum(logits: &[f32], top: f32, sharpness: f32) -> f32 {
    let (rows, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for row in rows {
        for (lane, logit) in lanes.iter_mut().zip(row) {
            *lane += about_exp((logit - top) * sharpness);
        }
    }
    let rest: f32 = rest.iter().map(|logit| about_exp((logit - top) * sharpness)).sum();
    let mut width = LANES / 2;
    while width > 0 {
        for at in 0..width {
            lanes[at] += lanes[at + width];
        }
        width /= 2;
    }
    lanes[0] + rest
}

/// The exponential of a number below eight to within three millionths of a tenth; next to nothing for less than
/// [`LEAST`] and for what is no number. Without a branch, so that the compiler can do many at once.
#[inline(always)]
fn about_exp(x: f32) -> f32 {
    let x = if x > LEAST { x } else { LEAST };
    // Adding so much leaves no room for a fraction: what is left in the last bits is the nearest integer.
    let shifted = x * std::f32::consts::LOG2_E + NO_FRACTION;
    let n = shifted - NO_FRACTION;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let series = INVERSE_FACTORIALS.iter().rev().fold(0.0, |sum, term| sum * r + term);
    series * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// How far, of itself, the total may be from what is found at once.
const SLACK: f64 = 4e-6;
/// Four times the largest vocabulary in use.
const MOST_TOKENS: usize = 1 << 20;
/// Logits of models are below a hundred.
const HIGHEST: f64 = 1e6;
/// Below this temperature a draw is greedy in all but name.
const COLDEST: f64 = 0.01;
/// The exponential of this is the least that is not subnormal.
const LEAST: f32 = -87.0;
/// One and a half times 2^23.
const NO_FRACTION: f32 = 12_582_912.0;
/// ln 2 in nine bits: a multiple of it by a small integer is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
/// What is missing from it.
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// `1 / k!`; r^8 / 8! is below 1e-8 for every r that occurs.
const INVERSE_FACTORIALS: [f32; 8] =
    [1.0, 1.0, 0.5, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
/// Side by side, as vectors have them.
const LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sampling;
    use proptest::prelude::*;

    #[test]
    fn the_quick_exponential_is_right_to_a_third_of_a_millionth() {
        for step in 0..900_000 {
            let x = -87.0 + step as f32 * 1e-4;
            let error = f64::from(about_exp(x)) / f64::from(x).exp() - 1.0;
            assert!(error.abs() < 3e-7, "{x}: {error:e}");
        }
        for nothing in [-88.0, -1e30, f32::NEG_INFINITY, f32::NAN] {
            assert!((0.0..1.7e-38).contains(&about_exp(nothing)), "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn the_total_is_between_its_bounds(
            spread in 0.0f32..40.0,
            units in prop::collection::vec(-1.0f32..1.0, 1..3000),
            offset in -1e3f32..1e3,
            temperature in 0.02f32..3.0,
            repeat_penalty in prop_oneof![Just(1.0f32), 0.5f32..2.0],
        ) {
            let logits: Vec<f32> = units.iter().map(|unit| unit * spread + offset).collect();
            let sampling = Sampling { temperature, repeat_penalty, ..Sampling::default() };
            let scores = Scores::new(&sampling, &logits, &[0, 1, 2, 5, 8], &[]);
            let (exact, bounds) = (scores.total(), Total::of(&scores));
            prop_assert!(bounds.unsettled.is_some());
            prop_assert!(bounds.low < exact && exact < bounds.high, "{exact} {}", about(&scores));
        }
    }
}
