//! The float operations between linear layers: norms, activations, rotations, the exponential.
//!
//! They are few per token, but libraries differ in every one of them. Here each is a fixed sequence of `+ − × ÷ √`
//! over sixteen lanes; sums over a row go lane by lane first and across lanes by one tree at the end.

use super::lanes::{LANES, Lanes};

/// `e^x`, within two units in the last place between −87 and 88; beyond, the value at the nearer end.
///
/// Cody and Waite's reduction and the polynomial of Cephes' `expf`.
#[inline(always)]
pub(super) fn exp<L: Lanes>(lanes: L, x: L::Floats) -> L::Floats {
    let x = lanes.min(lanes.max(x, lanes.splat(EXP_LEAST)), lanes.splat(EXP_MOST));
    let power = lanes.to_ints(lanes.mul(x, lanes.splat(std::f32::consts::LOG2_E)));
    let n = lanes.to_floats(power);
    let r = lanes.sub(x, lanes.mul(n, lanes.splat(LN2_HIGH)));
    let r = lanes.sub(r, lanes.mul(n, lanes.splat(LN2_LOW)));
    let mut series = lanes.splat(EXP_SERIES[0]);
    for &term in &EXP_SERIES[1..] {
        series = lanes.add(lanes.mul(series, r), lanes.splat(term));
    }
    let fraction = lanes.add(lanes.add(lanes.mul(series, lanes.mul(r, r)), r), lanes.splat(1.0));
    let scale = lanes.floats(lanes.shift_left::<23>(lanes.add_int(power, lanes.splat_int(127))));
    lanes.mul(fraction, scale)
}

/// What a block's feed-forward layer does to its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// `x · tanh`-shaped Gaussian error unit (Gemma).
    Gelu,
    /// `x / (1 + e^−x)` (Llama, Qwen).
    Silu,
}

impl Gate {
    #[inline(always)]
    fn apply<L: Lanes>(self, lanes: L, x: L::Floats) -> L::Floats {
        let one = lanes.splat(1.0);
        // Both are x / (1 + e^−z).
        let z = match self {
            Self::Silu => x,
            Self::Gelu => {
                let cube = lanes.mul(lanes.mul(x, x), x);
                let inner = lanes.add(x, lanes.mul(cube, lanes.splat(GELU_CUBIC)));
                lanes.mul(inner, lanes.splat(GELU_SCALE))
            }
        };
        lanes.div(x, lanes.add(one, exp(lanes, lanes.sub(lanes.splat(0.0), z))))
    }
}

/// `to = gate(gates) · ups`, all of the same length.
#[inline(always)]
pub(super) fn gated<L: Lanes>(lanes: L, gate: Gate, gates: &[f32], ups: &[f32], to: &mut [f32]) {
    let rows = gates.as_chunks::<LANES>().0.iter().zip(ups.as_chunks::<LANES>().0);
    for ((gates, ups), to) in rows.zip(to.as_chunks_mut::<LANES>().0) {
        let opened = gate.apply(lanes, lanes.load(gates));
        lanes.store(lanes.mul(opened, lanes.load(ups)), to);
    }
}

/// `to += by`
#[inline(always)]
pub(super) fn add<L: Lanes>(lanes: L, to: &mut [f32], by: &[f32]) {
    for (to, by) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(by.as_chunks::<LANES>().0) {
        lanes.store(lanes.add(lanes.load(to), lanes.load(by)), to);
    }
}

/// Root mean square normalisation (Zhang and Sennrich 2019): `to = x · (1 / √(mean(x²) + ε)) · weight`.
#[inline(always)]
pub(super) fn rms_norm<L: Lanes>(lanes: L, x: &[f32], weight: &[f32], epsilon: f32, to: &mut [f32]) {
    let factor = lanes.splat(rms_factor(lanes, x, epsilon));
    let rows = x.as_chunks::<LANES>().0.iter().zip(weight.as_chunks::<LANES>().0);
    for ((x, weight), to) in rows.zip(to.as_chunks_mut::<LANES>().0) {
        lanes.store(lanes.mul(lanes.mul(lanes.load(x), factor), lanes.load(weight)), to);
    }
}

/// The same in place.
#[inline(always)]
pub(super) fn rms_norm_in_place<L: Lanes>(lanes: L, x: &mut [f32], weight: &[f32], epsilon: f32) {
    let factor = lanes.splat(rms_factor(lanes, x, epsilon));
    for (x, weight) in x.as_chunks_mut::<LANES>().0.iter_mut().zip(weight.as_chunks::<LANES>().0) {
        lanes.store(lanes.mul(lanes.mul(lanes.load(x), factor), lanes.load(weight)), x);
    }
}

#[inline(always)]
fn rms_factor<L: Lanes>(lanes: L, x: &[f32], epsilon: f32) -> f32 {
    let mut squares = lanes.splat(0.0);
    for x in x.as_chunks::<LANES>().0 {
        let x = lanes.load(x);
        squares = lanes.add(squares, lanes.mul(x, x));
    }
    1.0 / (lanes.sum(squares) / x.len() as f32 + epsilon).sqrt()
}

/// Rotates one head by the angles of its position (Su et al. 2021), channel `i` with channel `i + half`.
#[inline(always)]
pub(super) fn rotate<L: Lanes>(lanes: L, head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (low, high) = head.split_at_mut(cosines.len());
    let angles = cosines.as_chunks::<LANES>().0.iter().zip(sines.as_chunks::<LANES>().0);
    let pairs = low.as_chunks_mut::<LANES>().0.iter_mut().zip(high.as_chunks_mut::<LANES>().0);
    for ((low, high), (cosines, sines)) in pairs.zip(angles) {
        let (x, y) = (lanes.load(low), lanes.load(high));
        let (c, s) = (lanes.load(cosines), lanes.load(sines));
        lanes.store(lanes.sub(lanes.mul(x, c), lanes.mul(y, s)), low);
        lanes.store(lanes.add(lanes.mul(x, s), lanes.mul(y, c)), high);
    }
}

/// Turns scores into weights that sum to one: `e^(score − greatest) / Σ`. Only `scores[from..to]` count, the others
/// become zero; the length is a whole number of lanes. Returns `1 / Σ`, which the caller multiplies with.
#[inline(always)]
pub(super) fn softmax<L: Lanes>(lanes: L, scores: &mut [f32], from: usize, to: usize) -> f32 {
    scores[..from].fill(f32::NEG_INFINITY);
    scores[to..].fill(f32::NEG_INFINITY);
    let greatest = lanes.splat(greatest(lanes, scores));
    for scores in scores.as_chunks_mut::<LANES>().0 {
        lanes.store(exp(lanes, lanes.sub(lanes.load(scores), greatest)), scores);
    }
    scores[..from].fill(0.0);
    scores[to..].fill(0.0);
    let mut sum = lanes.splat(0.0);
    for scores in scores.as_chunks::<LANES>().0 {
        sum = lanes.add(sum, lanes.load(scores));
    }
    1.0 / lanes.sum(sum)
}

/// The greatest of some numbers; what is no number is passed over.
#[inline(always)]
fn greatest<L: Lanes>(lanes: L, numbers: &[f32]) -> f32 {
    let mut greatest = lanes.splat(f32::NEG_INFINITY);
    for numbers in numbers.as_chunks::<LANES>().0 {
        greatest = lanes.max(lanes.load(numbers), greatest);
    }
    let mut of_lanes = [0.0; LANES];
    lanes.store(greatest, &mut of_lanes);
    of_lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

/// `to[i] = x[i]`, for values that are to be half floats: limited to their range, no numbers being the least of it.
#[inline(always)]
pub(super) fn store_half<L: Lanes>(lanes: L, x: &[f32; LANES], to: &mut [u8; 2 * LANES]) {
    let x = lanes.min(lanes.max(lanes.load(x), lanes.splat(-HALF_MOST)), lanes.splat(HALF_MOST));
    lanes.store_half(x, to);
}

/// Below it results would be subnormal.
const EXP_LEAST: f32 = -87.0;
/// Above it results would overflow.
const EXP_MOST: f32 = 88.0;
/// ln 2 in nine bits: a multiple of it by a small integer is exact.
const LN2_HIGH: f32 = 355.0 / 512.0;
/// What is missing from it.
const LN2_LOW: f32 = -2.121_944_4e-4;
/// From the highest power down.
const EXP_SERIES: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
const GELU_CUBIC: f32 = 0.044_715;
/// 2 √(2/π): half of it, doubled because `(1 + tanh z) / 2 = 1 / (1 + e^−2z)`.
const GELU_SCALE: f32 = (std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::SQRT_2) as f32;
/// The greatest half float.
const HALF_MOST: f32 = 65_504.0;

#[cfg(test)]
mod tests;
