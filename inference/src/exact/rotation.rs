//! Where a token stands: pairs of channels are turned by angles that grow with the position (Su et al., RoFormer).
//!
//! A model that was trained on short texts reads longer ones when its angles are made smaller: all of them (`linear`), or
//! only those of pairs that turn too slowly to have been all around in training (`yarn`: Peng et al., YaRN). Angles are computed
//! in 64 bits by functions of our own, so that every machine turns alike.

use crate::math;

/// Frequencies, in radians per position, and what turned channels are multiplied by.
#[derive(Debug)]
pub(super) struct Rotation {
    frequencies: Vec<f64>,
    magnitude: f64,
}

/// How positions beyond those of training are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scaling {
    /// All angles are divided by this; one where nothing is scaled.
    Linear(f64),
    /// Each pair by its own measure.
    Yarn(Yarn),
}

/// The numbers of YaRN, as files give them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Yarn {
    /// How many times longer texts may become.
    pub(super) factor: f64,
    /// Positions in training.
    pub(super) original: f64,
    /// A pair that turns more often than this in training stays as it is,
    pub(super) fast: f64,
    /// and one that turns less often than this is slowed by the whole factor.
    pub(super) slow: f64,
    /// What the magnitude is multiplied by beside YaRN's own measure.
    pub(super) attention: f64,
}

impl Rotation {
    /// Of heads of `width` channels; `factors` divide single pairs' frequencies.
    pub(super) fn new(base: f64, scaling: Scaling, width: usize, factors: Option<&[f32]>) -> Self {
        let log = math::ln(base);
        let frequency = |pair: usize| {
            let frequency = math::exp(-log * (2 * pair) as f64 / width as f64);
            let frequency = frequency / factors.map_or(1.0, |factors| f64::from(factors[pair]));
            match scaling {
                Scaling::Linear(stretch) => frequency / stretch,
                Scaling::Yarn(yarn) => {
                    let kept = yarn.kept(log, width, pair);
                    frequency * kept + frequency / yarn.factor * (1.0 - kept)
                }
            }
        };
        let frequencies = (0..width / 2).map(frequency).collect();
        let magnitude = match scaling {
            Scaling::Linear(_) => 1.0,
            Scaling::Yarn(yarn) => yarn.attention * (1.0 + 0.1 * math::ln(yarn.factor)),
        };
        Self { frequencies, magnitude }
    }

    /// Cosines, then sines, of a position's angles, times the magnitude.
    pub(super) fn angles(&self, position: usize, to: &mut [f32]) {
        let (cosines, sines) = to.split_at_mut(self.frequencies.len());
        for ((frequency, cosine), sine) in self.frequencies.iter().zip(cosines).zip(sines) {
            let (s, c) = math::sin_cos(frequency * position as f64);
            (*cosine, *sine) = ((c * self.magnitude) as f32, (s * self.magnitude) as f32);
        }
    }
}

impl Yarn {
    /// How much of a pair's frequency stays: one for fast pairs, none for slow ones, a ramp between them.
    fn kept(&self, log_base: f64, width: usize, pair: usize) -> f64 {
        // The pair that turns so often in training, as a fraction of pairs.
        let pair_of = |turns: f64| {
            width as f64 * math::ln(self.original / (turns * std::f64::consts::TAU)) / (2.0 * log_base)
        };
        let from = pair_of(self.fast).floor().max(0.0);
        let to = pair_of(self.slow).ceil().min(width as f64 - 1.0);
        1.0 - ((pair as f64 - from) / (to - from).max(0.001)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a long Qwen2.5 has; golden values by the formulas of YaRN's authors, in another language.
    #[test]
    fn yarn_slows_the_slow_pairs() {
        let yarn = Yarn { factor: 4.0, original: 32_768.0, fast: 32.0, slow: 1.0, attention: 1.0 };
        let rotation = Rotation::new(1e6, Scaling::Yarn(yarn), 128, None);
        for (pair, golden) in [
            (0, 1.0),
            (23, 0.006978305848598663),
            (30, 0.0010643609812470017),
            (36, 0.00017984115587395423),
            (40, 4.445698525097307e-05),
            (63, 3.102344401879299e-07),
        ] {
            let frequency = rotation.frequencies[pair];
            assert!((frequency / golden - 1.0).abs() < 1e-12, "pair {pair}: {frequency}");
        }
        let mut angles = [0.0; 128];
        rotation.angles(0, &mut angles);
        assert_eq!((angles[0], angles[64]), (1.138_629_4, 0.0), "cosines and sines carry the magnitude");
    }

    #[test]
    fn without_a_factor_yarn_changes_nothing() {
        let yarn = Yarn { factor: 1.0, original: 4096.0, fast: 32.0, slow: 1.0, attention: 1.0 };
        let (mut scaled, mut plain) = ([0.0; 64], [0.0; 64]);
        for position in [0, 1, 777, 100_000] {
            Rotation::new(1e4, Scaling::Yarn(yarn), 64, None).angles(position, &mut scaled);
            Rotation::new(1e4, Scaling::Linear(1.0), 64, None).angles(position, &mut plain);
            // A frequency is put together from two parts, so the last bit may differ before the angle is taken.
            let close = scaled.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(close, "at {position}");
        }
    }
}
