//! Steps 1 to 3: what every token scores, computed only for those that are asked for.
//!
//! A vocabulary has fifty thousand tokens and more, and a draw decides among a few dozen. So the logits stay where and
//! what they are; beside them is the highest of each block of [`BLOCK`], and whoever wants the likeliest looks into
//! the few blocks that can hold them. Penalties change some dozen tokens: those lie beside the logits, where they can
//! be `f64`, and leave a hole, which no comparison ever finds.

use std::borrow::Cow;

use super::{Candidate, REPEAT_WINDOW, Sampling};
use crate::math::exp_each;

/// The scores of all tokens at one position.
pub(crate) struct Scores<'a> {
    /// Cleaned logits; [`HOLE`] where a penalty changed one.
    logits: Cow<'a, [f32]>,
    /// The logits that penalties changed, by ascending id.
    changed: Vec<(u32, f64)>,
    /// What makes scores of logits: the temperature, one for greedy.
    divisor: f64,
    /// The highest of each block of `logits`, `−∞` for a block of holes.
    blocks: Vec<f32>,
}

impl<'a> Scores<'a> {
    /// Cleaned logits and nothing else.
    pub(crate) fn raw(logits: &'a [f32]) -> Self {
        let logits = cleaned(logits);
        let blocks = logits.chunks(BLOCK).map(highest).collect();
        Self { logits, changed: Vec::new(), divisor: 1.0, blocks }
    }

    pub(super) fn new(sampling: &Sampling, logits: &'a [f32], prompt: &[u32], answer: &[u32]) -> Self {
        let changed = penalised(sampling, logits, prompt, answer);
        let mut logits = cleaned(logits);
        for &(id, _) in &changed {
            logits.to_mut()[id as usize] = HOLE;
        }
        let blocks = logits.chunks(BLOCK).map(highest).collect();
        let greedy = sampling.temperature == 0.0;
        let divisor = if greedy { 1.0 } else { f64::from(sampling.temperature) };
        Self { logits, changed, divisor, blocks }
    }

    pub(crate) fn len(&self) -> usize {
        self.logits.len()
    }

    /// The cleaned logits; those that penalties changed are no numbers here.
    pub(crate) fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// A token's score; none where there is no such token.
    pub(crate) fn get(&self, id: u32) -> Option<f64> {
        let logit = *self.logits.get(id as usize)?;
        let changed = self.changed.binary_search_by_key(&id, |&(id, _)| id);
        Some(changed.map_or_else(|_| f64::from(logit), |at| self.changed[at].1) / self.divisor)
    }

    /// The highest logit; `−∞` where there is no token.
    pub(crate) fn top(&self) -> f64 {
        let changed = self.changed.iter().map(|&(_, logit)| logit);
        changed.fold(f64::from(highest(&self.blocks)), f64::max)
    }

    /// What a logit scores: it is divided by the temperature.
    pub(super) fn score(&self, logit: f64) -> f64 {
        logit / self.divisor
    }

    /// The temperature.
    pub(super) fn divisor(&self) -> f64 {
        self.divisor
    }

    /// The token with the highest logit, of equals the lowest; zero where there is none.
    pub(super) fn likeliest(&self) -> u32 {
        let top = self.top();
        let equal = |&logit: &f32| f64::from(logit) == top;
        let unchanged = self.blocks.iter().position(equal).and_then(|block| {
            let at = self.logits[block * BLOCK..].iter().position(equal)?;
            Some((block * BLOCK + at) as u32)
        });
        let changed = self.changed.iter().find(|&&(_, logit)| logit == top).map(|&(id, _)| id);
        unchanged.into_iter().chain(changed).min().unwrap_or(0)
    }

    /// A logit that at least `count` tokens reach, not many more, and all tokens if there are fewer: the `count`th
    /// of the blocks' highest.
    pub(crate) fn reached_by(&self, count: usize) -> f64 {
        if count == 0 || count > self.blocks.len() {
            return f64::NEG_INFINITY;
        }
        let mut blocks = self.blocks.clone();
        f64::from(*blocks.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1)
    }

    /// All tokens with a logit of at least `floor`: the unchanged ones by ascending id, then the changed ones.
    pub(crate) fn at_least(&self, floor: f64) -> Vec<Candidate> {
        let mut found = Vec::new();
        self.visit(floor, |candidate| found.push(candidate));
        found
    }

    /// Shows all tokens with a logit of at least `floor`, in the order of [`at_least`](Self::at_least).
    pub(super) fn visit(&self, floor: f64, mut visitor: impl FnMut(Candidate)) {
        for (block, start) in self.high_blocks(floor) {
            for (&logit, id) in block.iter().zip(start..) {
                if f64::from(logit) >= floor {
                    visitor(Candidate { id, score: self.score(f64::from(logit)) });
                }
            }
        }
        self.changed_at_least(floor).for_each(visitor);
    }

    /// Shows the scores of all blocks that have a logit of at least `floor`, with the id of each block's first token.
    /// The score of a token that a penalty changed is no number here.
    pub(super) fn visit_blocks(&self, floor: f64, mut visitor: impl FnMut(&[f64], u32)) {
        let mut scores = [0.0; BLOCK];
        for (block, start) in self.high_blocks(floor) {
            let scores = &mut scores[..block.len()];
            scores.iter_mut().zip(block).for_each(|(score, &logit)| *score = self.score(f64::from(logit)));
            visitor(scores, start);
        }
    }

    /// The tokens that a penalty changed to a logit of at least `floor`.
    pub(super) fn changed_at_least(&self, floor: f64) -> impl Iterator<Item = Candidate> {
        let high = self.changed.iter().filter(move |&&(_, logit)| logit >= floor);
        high.map(|&(id, logit)| Candidate { id, score: self.score(logit) })
    }

    fn high_blocks(&self, floor: f64) -> impl Iterator<Item = (&[f32], u32)> {
        let blocks = self.blocks().zip((0u32..).step_by(BLOCK));
        blocks
            .filter(move |&((_, highest), _)| f64::from(highest) >= floor)
            .map(|((block, _), start)| (block, start))
    }

    /// `Σ exp(score − top)` in the order of ids, each bit as the definition has it.
    pub(super) fn total(&self) -> f64 {
        let top = self.score(self.top());
        let mut sum = 0.0;
        let mut terms = [0.0; BATCH];
        for (logits, start) in self.logits.chunks(BATCH).zip((0..).step_by(BATCH)) {
            let terms = &mut terms[..logits.len()];
            for (term, &logit) in terms.iter_mut().zip(logits) {
                *term = f64::from(logit) / self.divisor - top;
            }
            for &(id, logit) in self.changed_within(start, logits.len()) {
                terms[id as usize - start] = logit / self.divisor - top;
            }
            exp_each(terms);
            sum = terms.iter().fold(sum, |sum, term| sum + term);
        }
        sum
    }

    fn changed_within(&self, start: usize, length: usize) -> &[(u32, f64)] {
        let before = |end: usize| self.changed.partition_point(|&(id, _)| (id as usize) < end);
        &self.changed[before(start)..before(start + length)]
    }

    /// The unchanged logits, block by block, with the highest of each. A hole is no number.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (&[f32], f32)> {
        self.logits.chunks(BLOCK).zip(self.blocks.iter().copied())
    }

    /// The logits that penalties changed.
    pub(super) fn changed(&self) -> impl Iterator<Item = f64> + '_ {
        self.changed.iter().map(|&(_, logit)| logit)
    }
}

/// Step 1: the logits themselves where all are finite, as they mostly are.
fn cleaned(logits: &[f32]) -> Cow<'_, [f32]> {
    let finite = |block: &[f32]| block.iter().fold(true, |all, logit| all & logit.is_finite());
    if logits.chunks(BLOCK).all(finite) {
        return Cow::Borrowed(logits);
    }
    Cow::Owned(logits.iter().map(|&logit| clean(logit)).collect())
}

fn clean(logit: f32) -> f32 {
    if logit.is_nan() { f32::MIN } else { logit.clamp(f32::MIN, f32::MAX) }
}

/// Step 2: the logits that change, by ascending id.
fn penalised(sampling: &Sampling, logits: &[f32], prompt: &[u32], answer: &[u32]) -> Vec<(u32, f64)> {
    let recent = if sampling.repeat_penalty == 1.0 { Vec::new() } else { recent(prompt, answer) };
    let counted = sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0;
    let counts = if counted { counts(answer) } else { Vec::new() };
    let mut ids: Vec<u32> = recent.iter().copied().chain(counts.iter().map(|&(id, _)| id)).collect();
    ids.sort_unstable();
    ids.dedup();
    let penalise = |id: u32| {
        let mut logit = f64::from(clean(*logits.get(id as usize)?));
        if recent.binary_search(&id).is_ok() {
            let penalty = f64::from(sampling.repeat_penalty);
            logit = if logit > 0.0 { logit / penalty } else { logit * penalty };
        }
        if let Ok(at) = counts.binary_search_by_key(&id, |&(id, _)| id) {
            logit -= f64::from(sampling.frequency_penalty) * f64::from(counts[at].1);
            logit -= f64::from(sampling.presence_penalty);
        }
        Some((id, logit))
    };
    ids.into_iter().filter_map(penalise).collect()
}

/// The tokens that the repetition penalty looks at, ascending.
fn recent(prompt: &[u32], answer: &[u32]) -> Vec<u32> {
    let last = answer.iter().rev().chain(prompt.iter().rev());
    let mut recent: Vec<u32> = last.take(REPEAT_WINDOW).copied().collect();
    recent.sort_unstable();
    recent.dedup();
    recent
}

/// How often the answer has each of its tokens, ascending.
fn counts(answer: &[u32]) -> Vec<(u32, u32)> {
    let mut ids = answer.to_vec();
    ids.sort_unstable();
    ids.chunk_by(|a, b| a == b).map(|equals| (equals[0], equals.len() as u32)).collect()
}

/// The highest of some logits; holes do not count. In lanes, which the compiler makes vectors of.
fn highest(logits: &[f32]) -> f32 {
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let (rows, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for row in rows {
        for (lane, &logit) in lanes.iter_mut().zip(row) {
            *lane = higher(*lane, logit);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| higher(a, b))
}

/// Stands in `logits` for a logit that lies among the changed ones: it is at least nothing, and equals nothing.
const HOLE: f32 = f32::NAN;
/// Logits that share a highest: few enough to look through, many enough that the blocks are few.
pub(super) const BLOCK: usize = 64;
/// Terms that are computed before they are summed; they stay in the first cache.
const BATCH: usize = 512;
/// Side by side, as vectors have them.
const LANES: usize = 16;
