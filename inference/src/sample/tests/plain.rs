//! The pipeline as its definition reads: every token's score, sorted where an order is asked for, summed one by one.
//!
//! It takes milliseconds for a real vocabulary and is what the quick way must agree with, to the last bit.

use std::collections::{BTreeMap, BTreeSet};

use super::super::noise::Noise;
use super::super::{Candidate, Judgement, REPEAT_WINDOW, Sampling, likelier};
use crate::math::exp;

/// What [`Sampling::choose`] must give.
pub(super) fn choose(sampling: &Sampling, logits: &[f32], prompt: &[u32], answer: &[u32]) -> u32 {
    let scores = scores(sampling, logits, prompt, answer);
    if sampling.temperature == 0.0 {
        return highest(&scores);
    }
    draw(sampling, &scores, answer).0.id
}

/// What [`Sampling::judge`] must give.
pub(super) fn judge(
    sampling: &Sampling,
    logits: &[f32],
    (prompt, answer): (&[u32], &[u32]),
    claimed: u32,
) -> Judgement {
    let scores = scores(sampling, logits, prompt, answer);
    let Some(&claim) = scores.get(claimed as usize) else {
        return Judgement { chosen: choose(sampling, logits, prompt, answer), margin: f64::INFINITY };
    };
    if sampling.temperature == 0.0 {
        let chosen = highest(&scores);
        return Judgement { chosen, margin: scores[chosen as usize] - claim };
    }
    let (winner, kept) = draw(sampling, &scores, answer);
    if winner.id == claimed {
        return Judgement { chosen: claimed, margin: 0.0 };
    }
    let noise = noise(sampling, answer).gumbel(claimed);
    let lost_by = winner.score - (claim + noise);
    let weakest = kept.iter().map(|c| c.score).fold(f64::INFINITY, f64::min);
    let kept = kept.iter().any(|c| c.id == claimed);
    let short_of = if kept { 0.0 } else { (weakest - claim).max(0.0) };
    Judgement { chosen: winner.id, margin: lost_by.max(short_of) * f64::from(sampling.temperature) }
}

/// The winner with its noise, and the candidates that the filters left, by ascending id.
fn draw(sampling: &Sampling, scores: &[f64], answer: &[u32]) -> (Candidate, Vec<Candidate>) {
    let kept = survivors(sampling, scores);
    let mut noise = noise(sampling, answer);
    let noised = kept.iter().map(|c| Candidate { id: c.id, score: c.score + noise.gumbel(c.id) });
    (noised.min_by(likelier).unwrap_or(Candidate { id: 0, score: 0.0 }), kept)
}

fn noise(sampling: &Sampling, answer: &[u32]) -> Noise {
    Noise::new(sampling.seed, sampling.choice, answer.len() as u64)
}

/// Steps 1 to 3.
pub(super) fn scores(sampling: &Sampling, logits: &[f32], prompt: &[u32], answer: &[u32]) -> Vec<f64> {
    let mut scores: Vec<f64> = logits.iter().map(|&logit| clean(logit)).collect();
    if sampling.repeat_penalty != 1.0 {
        let penalty = f64::from(sampling.repeat_penalty);
        let recent = answer.iter().rev().chain(prompt.iter().rev()).take(REPEAT_WINDOW);
        for id in recent.copied().collect::<BTreeSet<u32>>() {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = if *score > 0.0 { *score / penalty } else { *score * penalty };
            }
        }
    }
    if sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0 {
        let mut counts = BTreeMap::new();
        answer.iter().for_each(|&id| *counts.entry(id).or_insert(0u32) += 1);
        for (id, count) in counts {
            if let Some(score) = scores.get_mut(id as usize) {
                *score -= f64::from(sampling.frequency_penalty) * f64::from(count);
                *score -= f64::from(sampling.presence_penalty);
            }
        }
    }
    if sampling.temperature != 0.0 {
        let divisor = f64::from(sampling.temperature);
        scores.iter_mut().for_each(|score| *score /= divisor);
    }
    scores
}

/// Steps 4 to 6, by ascending id.
pub(super) fn survivors(sampling: &Sampling, scores: &[f64]) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> =
        scores.iter().zip(0..).map(|(&score, id)| Candidate { id, score }).collect();
    kept.sort_by(likelier);
    let Some(&top) = kept.first() else { return kept };
    if sampling.top_k > 0 {
        kept.truncate(sampling.top_k as usize);
    }
    if sampling.top_p < 1.0 {
        let mut by_id = kept.clone();
        by_id.sort_by_key(|c| c.id);
        let total: f64 = by_id.iter().map(|c| exp(c.score - top.score)).sum();
        let mut sum = 0.0;
        let reached = kept.iter().position(|c| {
            sum += exp(c.score - top.score);
            sum >= f64::from(sampling.top_p) * total
        });
        kept.truncate(reached.map_or(kept.len(), |at| at + 1));
    }
    if sampling.min_p > 0.0 {
        let least = f64::from(sampling.min_p);
        kept.retain(|c| c.id == top.id || exp(c.score - top.score) >= least);
    }
    kept.sort_by_key(|c| c.id);
    kept
}

fn clean(logit: f32) -> f64 {
    if logit.is_nan() { f64::from(f32::MIN) } else { f64::from(logit.clamp(f32::MIN, f32::MAX)) }
}

fn highest(scores: &[f64]) -> u32 {
    let mut highest = (0, f64::NEG_INFINITY);
    for (&score, id) in scores.iter().zip(0..) {
        if score > highest.1 {
            highest = (id, score);
        }
    }
    highest.0
}
