//! Steps 4 to 6: which tokens a draw decides among.
//!
//! What is kept is a few dozen tokens of a vocabulary, so each filter first finds a logit below which nothing can be
//! kept, takes the tokens above it, and then does to those exactly what its definition says.

use super::scores::Scores;
use super::total::{Total, ordinary};
use super::{Candidate, Sampling, likelier};
use crate::math::{exp, exp_each, ln};

/// The filters of a request, where there are any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filters {
    top_k: usize,
    top_p: f64,
    min_p: f64,
}

impl Filters {
    pub(super) fn of(sampling: &Sampling) -> Option<Self> {
        let off = sampling.top_k == 0 && sampling.top_p >= 1.0 && sampling.min_p <= 0.0;
        (!off).then_some(Self {
            top_k: sampling.top_k as usize,
            top_p: f64::from(sampling.top_p),
            min_p: f64::from(sampling.min_p),
        })
    }

    /// What the filters leave, by ascending id: something, where there is any token.
    pub(super) fn keep(self, scores: &Scores<'_>) -> Vec<Candidate> {
        let top = scores.score(scores.top());
        let mut kept = if (1..scores.len()).contains(&self.top_k) {
            self.of_the_likeliest(scores, top)
        } else if self.top_p < 1.0 {
            self.nucleus(scores, top)
        } else {
            scores.at_least(self.min_p_floor(scores))
        };
        if self.min_p > 0.0 {
            // The exponential of zero is one, so the likeliest always stays.
            kept.retain(|candidate| exp(candidate.score - top) >= self.min_p);
        }
        kept.sort_unstable_by_key(|candidate| candidate.id);
        kept
    }

    /// Top-k, and top-p among those.
    fn of_the_likeliest(self, scores: &Scores<'_>, top: f64) -> Vec<Candidate> {
        let mut kept = scores.at_least(scores.reached_by(self.top_k));
        if self.top_k < kept.len() {
            kept.select_nth_unstable_by(self.top_k - 1, likelier);
            kept.truncate(self.top_k);
        }
        if self.top_p < 1.0 {
            kept.sort_unstable_by_key(|candidate| candidate.id);
            let total = kept.iter().map(|candidate| exp(candidate.score - top)).sum();
            cut(&mut kept, top, self.top_p, &mut Total::exact(total));
        }
        kept
    }

    /// Top-p of the whole vocabulary: of the likeliest tokens if they suffice, of all that matter, of all.
    fn nucleus(self, scores: &Scores<'_>, top: f64) -> Vec<Candidate> {
        let mut total = Total::of(scores);
        // What is less likely than this amounts, all together, to half of what may be missing.
        let negligible = (1.0 - self.top_p) / 2.0 * total.low() / scores.len() as f64;
        let matters = scores.top() + ln(negligible) * scores.divisor();
        for floor in [matters.max(scores.reached_by(FIRST)), matters] {
            let mut kept = scores.at_least(floor);
            if cut(&mut kept, top, self.top_p, &mut total) {
                return kept;
            }
        }
        let mut kept = scores.at_least(f64::NEG_INFINITY);
        cut(&mut kept, top, self.top_p, &mut total);
        kept
    }

    /// A logit below which min-p keeps nothing.
    fn min_p_floor(self, scores: &Scores<'_>) -> f64 {
        if self.min_p > 0.0 && ordinary(scores) {
            scores.top() + (ln(self.min_p) - MIN_P_SLACK) * scores.divisor()
        } else {
            f64::NEG_INFINITY
        }
    }
}

/// Keeps the shortest run of likeliest candidates that holds `p` of the total, and says whether there is one. Only
/// as much as the run needs is sorted, and it is summed from the likeliest on.
fn cut(candidates: &mut Vec<Candidate>, top: f64, p: f64, total: &mut Total<'_>) -> bool {
    let (mut sorted, mut sum, mut terms) = (0, 0.0, Vec::new());
    while sorted < candidates.len() {
        let end = (sorted.max(FIRST) * 2).min(candidates.len());
        if end < candidates.len() {
            candidates[sorted..].select_nth_unstable_by(end - sorted - 1, likelier);
        }
        candidates[sorted..end].sort_unstable_by(likelier);
        terms.clear();
        terms.extend(candidates[sorted..end].iter().map(|candidate| candidate.score - top));
        exp_each(&mut terms);
        let reached = terms.iter().position(|term| {
            sum += term;
            total.reached(sum, p)
        });
        if let Some(last) = reached {
            candidates.truncate(sorted + last + 1);
            return true;
        }
        sorted = end;
    }
    false
}

/// Half of the first run that is sorted for top-p; most nuclei are smaller.
const FIRST: usize = 64;
/// More, in scores, than rounding can be where numbers are ordinary.
const MIN_P_SLACK: f64 = 1e-6;
