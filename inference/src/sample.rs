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

//!
//! That is the definition, and a test holds what is done against it, bit for bit. What is done looks at most logits
//! only to see that they are small: `scores` computes what is asked for, `filters` finds the few tokens that can
//! be kept, `total` bounds the sum over the vocabulary before it computes it.

mod filters;
pub mod noise;
mod scores;
mod total;

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use filters::Filters;
use noise::{Draw, Noise, WORD, gumbel};
use scores::BLOCK;
pub(crate) use scores::Scores;

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
        let scores = Scores::new(self, logits, prompt, answer);
        if self.temperature == 0.0 {
            return scores.likeliest();
        }
        self.draw(&scores, &mut self.noise(answer)).winner.id
    }

    /// Draws like [`choose`](Self::choose) and measures how far `claimed` was from being drawn.
    #[must_use]
    pub fn judge(&self, logits: &[f32], prompt: &[u32], answer: &[u32], claimed: u32) -> Judgement {
        let scores = Scores::new(self, logits, prompt, answer);
        let Some(claim) = scores.get(claimed) else {
            return Judgement { chosen: self.choose(logits, prompt, answer), margin: f64::INFINITY };
        };
        if self.temperature == 0.0 {
            return Judgement { chosen: scores.likeliest(), margin: scores.top() - claim };
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
    fn draw(&self, scores: &Scores<'_>, noise: &mut Noise) -> Drawn {
        let Some(filters) = Filters::of(self) else {
            return Drawn { winner: Contest::new(noise).among_all(scores), kept: None };
        };
        let kept = filters.keep(scores);
        Drawn { winner: Contest::new(noise).among(&kept), kept: Some(kept) }
    }

    fn noise(&self, answer: &[u32]) -> Noise {
        Noise::new(self.seed, self.choice, answer.len() as u64)
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

/// A token that may be drawn, and its score.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) id: u32,
    pub(crate) score: f64,
}

/// Likelier first, then the lower id: a total order, so that selection and sorting are deterministic.
pub(crate) fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.score.total_cmp(&a.score).then(a.id.cmp(&b.id))
}

/// What the last steps gave.
struct Drawn {
    winner: Candidate,
    /// What the filters left; none where there are no filters.
    kept: Option<Vec<Candidate>>,
}

/// Step 7: who has the highest noised score.
struct Contest<'a> {
    noise: &'a mut Noise,
    winner: Option<Candidate>,
}

impl<'a> Contest<'a> {
    fn new(noise: &'a mut Noise) -> Self {
        Self { noise, winner: None }
    }

    fn enter(&mut self, candidate: Candidate) {
        let draw = self.noise.draw(candidate.id);
        self.contend(candidate, draw);
    }

    /// A logarithm is taken only where the noise's ceiling leaves a chance to win.
    fn contend(&mut self, candidate: Candidate, draw: Draw) {
        if self.winner.is_some_and(|w| candidate.score + draw.ceiling() < w.score) {
            return;
        }
        let noised = Candidate { id: candidate.id, score: candidate.score + gumbel(draw) };
        if self.winner.is_none_or(|w| likelier(&noised, &w) == Ordering::Less) {
            self.winner = Some(noised);
        }
    }

    /// The best of some candidates.
    fn among(mut self, candidates: &[Candidate]) -> Candidate {
        candidates.iter().for_each(|&candidate| self.enter(candidate));
        self.winner.unwrap_or(NOBODY)
    }

    /// The best of all tokens. The likeliest come first: many others are then too far below to win whatever their
    /// noise is, and it is not even looked up.
    fn among_all(mut self, scores: &Scores<'_>) -> Candidate {
        scores.visit(scores.reached_by(FIRST), |candidate| self.enter(candidate));
        let Some(Candidate { score, .. }) = self.winner else { return NOBODY };
        // Where scores are so large that rounding is felt, all are looked at.
        let within = score.abs() < PRECISE;
        let floor = if within { (score - HIGHEST_NOISE) * scores.divisor() } else { f64::NEG_INFINITY };
        scores.visit_blocks(floor, |scores, first| self.enter_block(scores, first));
        scores.changed_at_least(floor).for_each(|candidate| self.enter(candidate));
        self.winner.unwrap_or(NOBODY)
    }

    /// Tokens in a row, of which hardly any has a chance.
    fn enter_block(&mut self, scores: &[f64], first: u32) {
        let mut words = [[0; WORD]; BLOCK];
        self.noise.read(first, &mut words[..scores.len()]);
        let mut to_beat = self.winner.map_or(f64::NEG_INFINITY, |w| w.score);
        for ((&score, &word), id) in scores.iter().zip(&words).zip(first..) {
            let draw = Draw::of(word);
            if score + draw.ceiling() >= to_beat {
                self.contend(Candidate { id, score }, draw);
                to_beat = self.winner.map_or(to_beat, |w| w.score);
            }
        }
    }
}

/// How far a token that a filter removed is below the weakest that it kept.
fn short_of(kept: &[Candidate], claim: Candidate) -> f64 {
    if kept.iter().any(|c| c.id == claim.id) {
        return 0.0;
    }
    let weakest = kept.iter().map(|c| c.score).fold(f64::INFINITY, f64::min);
    (weakest - claim.score).max(0.0)
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
/// Who wins where there is no token.
const NOBODY: Candidate = Candidate { id: 0, score: 0.0 };
/// How many likely tokens are noised before the rest.
const FIRST: usize = 16;
/// More than the noise of any draw: `−ln(−ln(1 − 2^−53))` is 36.74.
const HIGHEST_NOISE: f64 = 37.0;
/// Scores below this are exact to far less than what [`HIGHEST_NOISE`] is too much.
const PRECISE: f64 = 1e9;

#[cfg(test)]
mod tests;
