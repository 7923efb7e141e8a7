//! From logits to a token, exactly: the same logits, parameters and seed give the same token on every machine.
//!
//! The order of the pipeline is part of every engine's profile and never changes silently:
//!
//! 1. **Clean**: NaN counts as the lowest finite number, infinities as the lowest and the highest.
//! 2. **Penalties**: *repetition* divides a positive and multiplies a negative logit, once, of every token among
//!    the last [`REPEAT_WINDOW`] of prompt and answer together; *frequency* (times the count) and *presence*
//!    (once) are subtracted for tokens of the answer only.
//! 3. **Temperature**: logits are divided by it; zero means *greedy*: the highest logit, and steps 4–7 do nothing.
//! 4. **Top-k** keeps the k highest; 0 is off.
//! 5. **Top-p** keeps the shortest run of highest tokens whose probability, among those left, reaches p; 1 is off.
//! 6. **Min-p** keeps tokens at least p times as likely as the highest; 0 is off.
//! 7. **Gumbel-max**: the token with the highest `logit + noise` wins, which is sampling from the softmax.
//!
//! Ties, in every step, go to the lowest token id. Arithmetic is `f64` in a fixed order with [`math`](crate::math).

pub mod noise;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::math::exp;
use noise::{Noise, gumbel};

/// How a token is drawn, and when to stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// Flattens (above one) or sharpens the distribution; zero is greedy.
    pub temperature: f32,
    /// Probability that the kept tokens must reach; one is off.
    pub top_p: f32,
    /// How many tokens are kept; zero is off.
    pub top_k: u32,
    /// Least probability relative to the likeliest token; zero is off.
    pub min_p: f32,
    /// Makes recent tokens less likely; one is off.
    pub repeat_penalty: f32,
    /// Lowers a token's logit by this for each time the answer has it.
    pub frequency_penalty: f32,
    /// Lowers a token's logit by this once the answer has it.
    pub presence_penalty: f32,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// The requester's chance.
    pub seed: u64,
    /// Which of several answers to one request this is.
    pub choice: u32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            max_tokens: 512,
            temperature: 0.7,
            top_p: 0.95,
            top_k: 0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            stop: Vec::new(),
            seed: 0,
            choice: 0,
        }
    }
}

/// A parameter that no answer can be drawn with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// No token may be drawn.
    #[error("max_tokens is 0; ask for at least one token")]
    NoTokens,
    /// A number outside its range, or not a number.
    #[error("{name} is {value}; choose a value from {low} to {high}")]
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// What it was set to.
        value: f32,
        /// The least allowed value.
        low: f32,
        /// The greatest allowed value.
        high: f32,
    },
    /// A stop text that is empty or too long.
    #[error("a stop text has {bytes} bytes; give each between 1 and {MAX_STOP_BYTES}")]
    StopLength {
        /// Its length.
        bytes: usize,
    },
    /// Too many stop texts.
    #[error("{count} stop texts; give at most {MAX_STOPS}")]
    TooManyStops {
        /// How many there are.
        count: usize,
    },
}

impl Sampling {
    /// Checks every parameter against its range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        if self.max_tokens == 0 {
            return Err(SamplingError::NoTokens);
        }
        in_range("temperature", self.temperature, 0.0, 10.0)?;
        in_range("top_p", self.top_p, 0.0, 1.0)?;
        in_range("min_p", self.min_p, 0.0, 1.0)?;
        in_range("repeat_penalty", self.repeat_penalty, 0.1, 10.0)?;
        in_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        in_range("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        self.validate_stops()
    }

    fn validate_stops(&self) -> Result<(), SamplingError> {
        if self.stop.len() > MAX_STOPS {
            return Err(SamplingError::TooManyStops { count: self.stop.len() });
        }
        match self.stop.iter().map(String::len).find(|bytes| !(1..=MAX_STOP_BYTES).contains(bytes)) {
            Some(bytes) => Err(SamplingError::StopLength { bytes }),
            None => Ok(()),
        }
    }

    /// Draws the token that follows `prompt` and `answer`; the output index is the answer's length.
    #[must_use]
    pub fn choose(&self, logits: &[f32], prompt: &[u32], answer: &[u32]) -> u32 {
        let scores = self.scores(logits, prompt, answer);
        if self.temperature == 0.0 {
            return highest(&scores);
        }
        self.draw(&scores, &mut self.noise(answer)).winner.id
    }

    /// Draws like [`choose`](Self::choose) and measures how far `claimed` was from being drawn.
    #[must_use]
    pub fn judge(&self, logits: &[f32], prompt: &[u32], answer: &[u32], claimed: u32) -> Judgement {
        let scores = self.scores(logits, prompt, answer);
        let Some(&claim) = scores.get(claimed as usize) else {
            return Judgement { chosen: self.choose(logits, prompt, answer), margin: f64::INFINITY };
        };
        if self.temperature == 0.0 {
            let chosen = highest(&scores);
            return Judgement { chosen, margin: scores[chosen as usize] - claim };
        }
        let mut noise = self.noise(answer);
        let Drawn { winner, kept } = self.draw(&scores, &mut noise);
        if winner.id == claimed {
            return Judgement { chosen: claimed, margin: 0.0 };
        }
        let lost_by = winner.score - (claim + noise.gumbel(claimed));
        let claim = Candidate { id: claimed, score: claim };
        let short_of = kept.map_or(0.0, |kept| short_of(&kept, claim));
        Judgement { chosen: winner.id, margin: lost_by.max(short_of) * f64::from(self.temperature) }
    }

    /// Steps 4 to 7.
    fn draw(&self, scores: &[f64], noise: &mut Noise) -> Drawn {
        let all = scores.iter().zip(0..).map(|(&score, id)| Candidate { id, score });
        if self.top_k == 0 && self.top_p >= 1.0 && self.min_p <= 0.0 {
            return Drawn { winner: best(all, noise), kept: None };
        }
        let mut kept: Vec<_> = all.collect();
        self.filter(&mut kept);
        // The noise is read in the order of ids.
        kept.sort_unstable_by_key(|candidate| candidate.id);
        Drawn { winner: best(kept.iter().copied(), noise), kept: Some(kept) }
    }

    fn noise(&self, answer: &[u32]) -> Noise {
        Noise::new(self.seed, self.choice, answer.len() as u64)
    }

    /// Steps 1 to 3, in the order of token ids.
    fn scores(&self, logits: &[f32], prompt: &[u32], answer: &[u32]) -> Vec<f64> {
        let mut scores: Vec<_> = logits.iter().map(|&logit| clean(logit)).collect();
        self.penalise(&mut scores, prompt, answer);
        if self.temperature != 0.0 {
            let divisor = f64::from(self.temperature);
            scores.iter_mut().for_each(|score| *score /= divisor);
        }
        scores
    }

    fn penalise(&self, scores: &mut [f64], prompt: &[u32], answer: &[u32]) {
        if self.repeat_penalty != 1.0 {
            let penalty = f64::from(self.repeat_penalty);
            for id in recent(prompt, answer) {
                if let Some(score) = scores.get_mut(id as usize) {
                    *score = if *score > 0.0 { *score / penalty } else { *score * penalty };
                }
            }
        }
        if self.frequency_penalty != 0.0 || self.presence_penalty != 0.0 {
            for (id, count) in counts(answer) {
                if let Some(score) = scores.get_mut(id as usize) {
                    *score -= f64::from(self.frequency_penalty) * f64::from(count);
                    *score -= f64::from(self.presence_penalty);
                }
            }
        }
    }

    /// Steps 4 to 6. What is left is never empty; its order does not matter.
    fn filter(&self, candidates: &mut Vec<Candidate>) {
        let k = self.top_k as usize;
        if k > 0 && k < candidates.len() {
            candidates.select_nth_unstable_by(k - 1, likelier);
            candidates.truncate(k);
        }
        let Some(top) = candidates.iter().copied().min_by(likelier) else { return };
        if self.top_p < 1.0 {
            keep_nucleus(candidates, f64::from(self.top_p), top.score);
        }
        if self.min_p > 0.0 {
            let least = f64::from(self.min_p);
            candidates.retain(|c| c.id == top.id || exp(c.score - top.score) >= least);
        }
    }
}

/// What the sampler drew, and how far a claimed token was from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// The token drawn here.
    pub chosen: u32,
    /// By how much, in logits, the claimed token would have to rise; zero when it was drawn.
    pub margin: f64,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    score: f64,
}

/// Likelier first, then the lower id: a total order, so that selection and sorting are deterministic.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.score.total_cmp(&a.score).then(a.id.cmp(&b.id))
}

/// What the last steps gave.
struct Drawn {
    winner: Candidate,
    /// What the filters left; none where there are no filters.
    kept: Option<Vec<Candidate>>,
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

/// Step 7. A logarithm is taken only where the noise's ceiling leaves a chance to win.
fn best(candidates: impl Iterator<Item = Candidate>, noise: &mut Noise) -> Candidate {
    let mut winner: Option<Candidate> = None;
    for candidate in candidates {
        let draw = noise.draw(candidate.id);
        if winner.is_some_and(|w| candidate.score + draw.ceiling() < w.score) {
            continue;
        }
        let noised = Candidate { id: candidate.id, score: candidate.score + gumbel(draw) };
        if winner.is_none_or(|w| likelier(&noised, &w) == Ordering::Less) {
            winner = Some(noised);
        }
    }
    winner.unwrap_or(Candidate { id: 0, score: 0.0 })
}

/// How far a token that a filter removed is below the weakest that it kept.
fn short_of(kept: &[Candidate], claim: Candidate) -> f64 {
    if kept.iter().any(|c| c.id == claim.id) {
        return 0.0;
    }
    let weakest = kept.iter().map(|c| c.score).fold(f64::INFINITY, f64::min);
    (weakest - claim.score).max(0.0)
}

/// Keeps the shortest run of likeliest candidates that holds `p` of the probability. Only as much as the run
/// needs is sorted; the total is summed in the order of token ids, the run from the likeliest on.
fn keep_nucleus(candidates: &mut Vec<Candidate>, p: f64, top: f64) {
    if !candidates.is_sorted_by_key(|c| c.id) {
        candidates.sort_unstable_by_key(|c| c.id);
    }
    let total: f64 = candidates.iter().map(|c| exp(c.score - top)).sum();
    let (mut sorted, mut sum) = (0, 0.0);
    while sorted < candidates.len() {
        let end = (sorted.max(NUCLEUS_STEP) * 2).min(candidates.len());
        if end < candidates.len() {
            candidates[sorted..].select_nth_unstable_by(end - sorted - 1, likelier);
        }
        candidates[sorted..end].sort_unstable_by(likelier);
        for at in sorted..end {
            sum += exp(candidates[at].score - top);
            if sum >= p * total {
                candidates.truncate(at + 1);
                return;
            }
        }
        sorted = end;
    }
}

fn clean(logit: f32) -> f64 {
    if logit.is_nan() { f64::from(f32::MIN) } else { f64::from(logit.clamp(f32::MIN, f32::MAX)) }
}

fn recent(prompt: &[u32], answer: &[u32]) -> BTreeSet<u32> {
    answer.iter().rev().chain(prompt.iter().rev()).take(REPEAT_WINDOW).copied().collect()
}

fn counts(answer: &[u32]) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for &id in answer {
        *counts.entry(id).or_insert(0) += 1;
    }
    counts
}

fn in_range(name: &'static str, value: f32, low: f32, high: f32) -> Result<(), SamplingError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(SamplingError::OutOfRange { name, value, low, high })
    }
}

/// How many of the last tokens the repetition penalty looks at.
pub const REPEAT_WINDOW: usize = 64;
/// More stop texts than any client sends; each is searched for at every token.
pub const MAX_STOPS: usize = 16;
/// A stop text is held back while it may be coming, so it must be short.
pub const MAX_STOP_BYTES: usize = 256;
/// Half of the first run that is sorted for top-p; most nuclei are smaller.
const NUCLEUS_STEP: usize = 64;

#[cfg(test)]
mod tests;
