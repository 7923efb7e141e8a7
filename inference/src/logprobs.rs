//! How likely the model held a token, and which tokens it held likelier: what clients ask for as `logprobs`.
//!
//! These are natural logarithms of the softmax of the raw logits: temperature one, no penalty, no filter, whatever the
//! sampling was. As in [`sample`](crate::sample) a broken logit counts as the lowest, and arithmetic is `f64` in one
//! written order with [`math`](crate::math), so every peer reports the same bits.

use crate::math::{exp_each, ln};
use crate::sample::{Scores, likelier};

/// Logarithms of probabilities at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// The token's; `−∞` for an id that is not in the vocabulary.
    pub logprob: f32,
    /// The likeliest tokens with theirs, the likeliest first, of equals the lowest id first.
    pub top: Vec<(u32, f32)>,
}

/// The logarithm of the probability of `token`, and of the `top` likeliest tokens, of which there are at most
/// [`MAX_TOP`].
#[must_use]
pub fn logprobs(logits: &[f32], token: u32, top: usize) -> Logprobs {
    let scores = Scores::raw(logits);
    let highest = scores.top();
    let log_total = ln(total(&scores, highest));
    let logprob = |logit: f64| ((logit - highest) - log_total) as f32;
    let count = top.min(MAX_TOP).min(scores.len());
    let mut likeliest = if count == 0 { Vec::new() } else { scores.at_least(scores.reached_by(count)) };
    // Zeros of both signs are equally likely, so one sign is taken before they are put in order.
    likeliest.iter_mut().for_each(|candidate| candidate.score += 0.0);
    likeliest.sort_unstable_by(likelier);
    Logprobs {
        logprob: scores.get(token).map_or(f32::NEG_INFINITY, logprob),
        top: likeliest[..count].iter().map(|candidate| (candidate.id, logprob(candidate.score))).collect(),
    }
}

/// `Σ exp(logit − highest)`: a logit at index `i` is added to sum `i mod` [`SUMS`], in the order of ids, and the sums
/// are added in theirs.
fn total(scores: &Scores<'_>, highest: f64) -> f64 {
    let mut sums = [0.0; SUMS];
    let mut terms = [0.0; BATCH];
    for logits in scores.logits().chunks(BATCH) {
        let terms = &mut terms[..logits.len()];
        terms.iter_mut().zip(logits).for_each(|(term, &logit)| *term = f64::from(logit) - highest);
        exp_each(terms);
        for row in terms.chunks(SUMS) {
            sums.iter_mut().zip(row).for_each(|(sum, term)| *sum += term);
        }
    }
    sums.iter().sum()
}

/// As many as OpenAI's interface gives.
pub const MAX_TOP: usize = 20;
/// Side by side, as vectors have them.
const SUMS: usize = 8;
/// Terms that are computed before they are summed, a multiple of [`SUMS`]; they stay in the first cache.
const BATCH: usize = 512;

#[cfg(test)]
mod tests;
