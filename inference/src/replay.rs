//! Was this answer drawn from this model? The check that makes a receipt worth something.
//!
//! The claimed tokens are fed to the model, and before each one the sampler draws again. On an exact engine many
//! tokens are read in one pass, and every position agrees, bit for bit, or the answer was not drawn from this model.
//! Other engines read in the very shapes of generation (the prompt in chunks, then one token a step) and agree on the
//! build and instruction set that generated the answer. Elsewhere rounding may flip a near tie, and the margin says
//! how near: the sampling noise is known, so an honest flip is small and another model's token is not.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use crypto::Digest;

use crate::commitment::Commitment;
use crate::constraint::{Constraint, Guide};
use crate::engine::{GenerateError, Position, Span};
use crate::generation::{AnswerText, FinishReason, answer_limit, ended};
use crate::model::Description;
use crate::reading::{Reading, Task, step_alone};
use crate::sample::{Judgement, Sampling};
use crate::tokens::Vocabulary;

/// An answer that somebody says they drew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The answer's tokens, without one that ends the text.
    pub answer: Vec<u32>,
    /// The parameters.
    pub sampling: Sampling,
    /// Why the answer is said to end; none when it was broken off.
    pub finish: Option<FinishReason>,
    /// What was committed to with each full segment, in order; empty when nothing was.
    pub activations: Vec<Digest>,
    /// What the answer had to be.
    pub constraint: Option<Constraint>,
}

/// What a replay found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// Positions at which the sampler draws the claimed token.
    pub agree: u32,
    /// Positions in the answer.
    pub of: u32,
    /// The first position that differs.
    pub first: Option<u32>,
    /// The largest margin of any position and of the ending, in logits; infinite where no rounding could explain it.
    pub worst_margin: f32,
    /// The mean margin of all positions, in logits.
    pub mean_margin: f32,
    /// Whether the answer ends where and as claimed; none when nothing was claimed.
    pub finish_agrees: Option<bool>,
    /// The first segment whose hidden states are others than were committed to. The commitments must be as many as
    /// the answer has full segments, or the first that is missing or too many counts. None where nothing was claimed,
    /// or the engine does not commit.
    pub first_segment: Option<u32>,
    /// The positions that differ, at most [`MAX_DIFFERENCES`] of them.
    pub differences: Vec<Difference>,
}

impl Replay {
    /// Whether every position, the ending and the commitments agree.
    #[must_use]
    pub fn exact(&self) -> bool {
        self.agree == self.of && self.finish_agrees != Some(false) && self.first_segment.is_none()
    }
}

/// A position at which the sampler draws another token than was claimed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The position.
    pub index: u32,
    /// The token that was claimed.
    pub claimed: u32,
    /// The token drawn here.
    pub chosen: u32,
    /// By how much, in logits, the claimed token would have to rise.
    pub margin: f32,
}

/// What one call brought.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplayStep {
    /// Some tokens of prompt and answer have been checked.
    Checked {
        /// Tokens done.
        done: u32,
        /// Tokens to do.
        of: u32,
    },
    /// The last step: what was found.
    Finished(Replay),
}

/// A check in progress, pulled step by step like a generation; dropping it cancels it.
#[derive(Debug)]
pub struct Replaying {
    reading: Reading,
    claim: Claim,
    vocabulary: Arc<Vocabulary>,
    text: AnswerText,
    limit: usize,
    /// What the next tokens are drawn from, as far as it has been computed.
    ready: VecDeque<Position>,
    commitment: Commitment,
    /// None without a constraint, and after a token that breaks it.
    guide: Option<Guide>,
    segments: u32,
    /// Where a stop text was complete.
    stopped: Option<usize>,
    checked: usize,
    /// The margins of all positions so far, added up.
    margins: f64,
    found: Replay,
    over: bool,
}

impl Replaying {
    pub(crate) fn new(
        mut reading: Reading,
        claim: &Claim,
        description: &Description,
    ) -> Result<Self, GenerateError> {
        let vocabulary = &description.vocabulary;
        let limit = answer_limit(&claim.sampling, claim.prompt.len(), description.card.context);
        // The last token is read only if the claimed ending depends on what would follow it.
        let ends_by_token = claim.finish == Some(FinishReason::EndOfText) && claim.answer.len() < limit;
        let read = claim.answer.len().saturating_sub(usize::from(!ends_by_token));
        claim.answer[..read].iter().for_each(|&id| reading.push(id));
        let guide = claim.constraint.as_ref().map(|constraint| description.guide(constraint, limit));
        Ok(Self {
            guide: guide.transpose()?,
            limit,
            reading,
            claim: claim.clone(),
            vocabulary: Arc::clone(vocabulary),
            text: AnswerText::new(vocabulary, &claim.sampling),
            ready: VecDeque::new(),
            commitment: Commitment::default(),
            segments: 0,
            stopped: None,
            checked: 0,
            margins: 0.0,
            found: Replay { of: claim.answer.len() as u32, ..Replay::default() },
            over: false,
        })
    }

    /// Runs to the end.
    pub fn complete(self) -> Result<Replay, GenerateError> {
        for step in self {
            if let ReplayStep::Finished(replay) = step? {
                return Ok(replay);
            }
        }
        Ok(Replay::default())
    }

    pub(crate) const fn reading(&self) -> &Reading {
        &self.reading
    }

    pub(crate) const fn reading_mut(&mut self) -> &mut Reading {
        &mut self.reading
    }

    fn finish(&mut self) -> ReplayStep {
        self.check_segments();
        self.found.mean_margin = (self.margins / self.claim.answer.len().max(1) as f64) as f32;
        self.found.finish_agrees = self.claim.finish.map(|reason| self.check_ending(reason));
        self.over = true;
        ReplayStep::Finished(std::mem::take(&mut self.found))
    }

    /// Checks as far as it is known what tokens were drawn from; `ready` begins with that of the next one.
    fn check_ready(&mut self) {
        if self.claim.constraint.is_some() {
            return self.check_guided();
        }
        for judgement in self.judge_ready(self.ready.len().min(self.claim.answer.len() - self.checked)) {
            let Some(position) = self.ready.pop_front() else { break };
            self.check(&position, judgement);
            self.checked += 1;
        }
    }

    /// The same under a constraint: what may be drawn depends on all tokens before, so they are judged one by one.
    fn check_guided(&mut self) {
        while let Some(&claimed) = self.claim.answer.get(self.checked) {
            let Some(mut position) = self.ready.pop_front() else { return };
            let mut judgement = Judgement { chosen: claimed, margin: f64::INFINITY };
            if self.settle(&mut position) {
                judgement = self.judge(&position, self.checked, claimed);
            }
            self.guide = self.guide.take().filter(|_| judgement.margin < f64::INFINITY);
            if self.guide.as_mut().is_some_and(|guide| guide.push(claimed).is_err()) {
                self.guide = None;
                judgement.margin = f64::INFINITY;
            }
            self.check(&position, judgement);
            self.checked += 1;
        }
    }

    /// Bars what may not be drawn; false where nothing may, or the answer left its constraint before.
    fn settle(&mut self, position: &mut Position) -> bool {
        let (sampling, index) = (&self.claim.sampling, self.checked);
        let (prompt, before) = (self.reading.prompt(), &self.claim.answer[..index]);
        let choose = |logits: &[f32]| sampling.choose(logits, prompt, before);
        let left = self.limit.saturating_sub(index);
        self.guide.as_mut().is_some_and(|guide| guide.settle(&mut position.logits, left, choose).is_ok())
    }

    /// Judges the first positions that are ready. Each is judged alone, so as many threads as the engine has may share
    /// them.
    fn judge_ready(&self, count: usize) -> Vec<Judgement> {
        let (claim, prompt, ready, checked) = (&self.claim, self.reading.prompt(), &self.ready, self.checked);
        let judge = |at: usize| {
            let (before, rest) = claim.answer.split_at(checked + at);
            claim.sampling.judge(&ready[at].logits, prompt, before, rest[0])
        };
        let share = count.div_ceil(self.reading.threads()).max(1);
        if share >= count {
            return (0..count).map(judge).collect();
        }
        thread::scope(|scope| {
            let judge = &judge;
            let shares = (0..count).step_by(share).map(|first| {
                scope.spawn(move || (first..count.min(first + share)).map(judge).collect::<Vec<_>>())
            });
            let shares: Vec<_> = shares.collect();
            shares
                .into_iter()
                .flat_map(|share| share.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        })
    }

    fn check(&mut self, position: &Position, mut judgement: Judgement) {
        let claimed = self.claim.answer[self.checked];
        if self.vocabulary.is_end(claimed) {
            // Drawn or not, an honest answer does not have it.
            judgement.margin = f64::INFINITY;
        }
        if let Some(digest) = self.commitment.push(position.state.as_deref()) {
            self.check_segment(digest);
        }
        self.margins += judgement.margin;
        self.text.push(claimed);
        if self.text.stopped() && self.stopped.is_none() {
            self.stopped = Some(self.checked);
        }
        if judgement.margin == 0.0 && judgement.chosen == claimed {
            self.found.agree += 1;
        } else {
            self.differs(claimed, judgement);
        }
    }

    fn check_segment(&mut self, digest: Digest) {
        let claimed = self.claim.activations.get(self.segments as usize);
        if !self.claim.activations.is_empty() && claimed != Some(&digest) {
            self.found.first_segment = self.found.first_segment.or(Some(self.segments));
        }
        self.segments += 1;
    }

    /// Commitments beyond the answer's segments are as wrong as others.
    fn check_segments(&mut self) {
        if self.commitment.is_made() && self.claim.activations.len() > self.segments as usize {
            self.found.first_segment = self.found.first_segment.or(Some(self.segments));
        }
    }

    fn differs(&mut self, claimed: u32, Judgement { chosen, margin }: Judgement) {
        let (index, margin) = (self.checked as u32, margin as f32);
        self.found.first = self.found.first.or(Some(index));
        self.found.worst_margin = self.found.worst_margin.max(margin);
        if self.found.differences.len() < MAX_DIFFERENCES {
            self.found.differences.push(Difference { index, claimed, chosen, margin });
        }
    }

    fn check_ending(&mut self, reason: FinishReason) -> bool {
        if self.claim.constraint.is_some() {
            return self.check_guided_ending(reason);
        }
        let (length, last) = (self.claim.answer.len(), self.claim.answer.len().checked_sub(1));
        let fits = length <= self.limit && (self.stopped.is_none() || self.stopped == last);
        let (agrees, margin) = match reason {
            FinishReason::EndOfText if fits && self.ends_by_token() => self.judge_end(),
            FinishReason::Length if fits && self.stopped.is_none() && length == self.limit => (true, 0.0),
            FinishReason::Stop if fits && self.stopped.is_some() => (true, 0.0),
            _ => (false, f64::INFINITY),
        };
        self.found.worst_margin = self.found.worst_margin.max(margin as f32);
        agrees
    }

    /// Under a constraint an answer also ends where nothing may follow, and is whole where its budget ends.
    fn check_guided_ending(&mut self, reason: FinishReason) -> bool {
        let (length, last) = (self.claim.answer.len(), self.claim.answer.len().checked_sub(1));
        let forced = ended(self.guide.as_ref(), length >= self.limit);
        let agrees = match (self.stopped, forced) {
            (Some(at), _) => reason == FinishReason::Stop && Some(at) == last,
            (None, Some(forced)) => reason == forced && length <= self.limit,
            (None, None) => reason == FinishReason::EndOfText && self.drew_end(),
        };
        if !agrees {
            self.found.worst_margin = f32::INFINITY;
        }
        agrees
    }

    fn drew_end(&mut self) -> bool {
        let Some(mut position) = self.ready.pop_front() else { return false };
        let settled = self.settle(&mut position);
        self.ready.push_front(position);
        settled && self.judge_end().0
    }

    /// Whether a token was drawn that ends the text, and by how much the likeliest of them lost otherwise. A margin of
    /// zero alone does not say that it was drawn: of two equal scores the lower id wins.
    fn judge_end(&self) -> (bool, f64) {
        let Some(position) = self.ready.front() else { return (false, f64::INFINITY) };
        let (mut drawn, mut least) = (false, f64::INFINITY);
        for end in self.vocabulary.ends() {
            let judgement = self.judge(position, self.checked, end);
            drawn |= judgement.chosen == end;
            least = least.min(judgement.margin);
        }
        (drawn, if drawn { 0.0 } else { least })
    }

    /// Whether the answer is said to end by a token, and there was room for one.
    fn ends_by_token(&self) -> bool {
        self.claim.finish == Some(FinishReason::EndOfText)
            && self.claim.answer.len() < self.limit
            && self.stopped.is_none()
    }

    fn judge(&self, position: &Position, index: usize, claimed: u32) -> Judgement {
        let before = &self.claim.answer[..index];
        self.claim.sampling.judge(&position.logits, self.reading.prompt(), before, claimed)
    }

    fn progress(&self) -> ReplayStep {
        let of = self.reading.prompt().len() + self.claim.answer.len();
        let read = self.reading.done().min(self.reading.prompt().len());
        ReplayStep::Checked { done: (read + self.checked) as u32, of: of as u32 }
    }
}

impl Task for Replaying {
    type Step = ReplayStep;

    fn needs(&self) -> usize {
        if self.over { 0 } else { self.reading.left() }
    }

    fn span(&mut self, most: usize) -> Span<'_> {
        // Who is set back reads again, but what was judged is not judged again.
        let wanted = self.reading.prompt().len() - 1 + self.checked + self.ready.len();
        self.reading.span(most, wanted)
    }

    fn advance(&mut self, positions: Vec<Position>) -> Result<ReplayStep, GenerateError> {
        if self.needs() == 0 {
            return Ok(self.finish());
        }
        self.reading.finish_span();
        self.ready.extend(positions);
        self.check_ready();
        Ok(self.progress())
    }
}

impl Iterator for Replaying {
    type Item = Result<ReplayStep, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let step = step_alone(self);
        self.over |= step.is_err();
        Some(step)
    }
}

/// Enough to show where and how an answer differs; the counts cover the rest.
pub const MAX_DIFFERENCES: usize = 64;

#[cfg(test)]
mod tests;
