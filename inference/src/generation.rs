//! One answer in the making, pulled step by step.
//!
//! Each call computes at most one chunk of the prompt or one token of the answer, so whoever stops calling, or
//! drops the generation, has cancelled it. Its own sequence is freed with it.

use std::sync::Arc;

use crypto::Digest;
use serde::{Deserialize, Serialize};

use crate::commitment::Commitment;
use crate::constraint::Guide;
use crate::engine::{GenerateError, Position, Request, Span};
use crate::logprobs::{Logprobs, logprobs};
use crate::model::Description;
use crate::reading::{Reading, Task, step_alone};
use crate::sample::Sampling;
use crate::tokens::{Detokenizer, StopFilter, Vocabulary};

/// What one call brought.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The last step: why the answer ends.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Text that was held back because a stop text or a character might have gone on. It ends the answer.
        rest: String,
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens of the answer, with those answered before; a token that ends the text is not one of them.
        completion_tokens: u32,
    },
    /// A part of the prompt, or of what was answered before, has been read.
    Prefilled {
        /// Tokens read.
        done: u32,
        /// Tokens to read.
        of: u32,
    },
    /// The next token of the answer.
    Token {
        /// Its place in the answer, counted from zero.
        index: u64,
        /// Its id.
        id: u32,
        /// The text it completes: the texts of all tokens and `rest` are the answer. May be empty.
        text: String,
        /// With the last token of each segment, what an exact engine commits to; see [`commitment`](crate::commitment).
        activations: Option<Digest>,
        /// How likely it was, where that was asked for.
        logprobs: Option<Logprobs>,
    },
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model drew a token that ends its turn, or the answer is all that its constraint allows.
    EndOfText,
    /// As many tokens as were asked for, or as fit the context.
    Length,
    /// A stop text came.
    Stop,
}

/// An answer in the making: an iterator of [`Step`]s that ends after `Finished` or an error.
#[derive(Debug)]
pub struct Generation {
    reading: Reading,
    sampling: Sampling,
    vocabulary: Arc<Vocabulary>,
    text: AnswerText,
    /// How many tokens were answered before this generation.
    given: usize,
    /// Whether they must be those that are drawn here.
    check: bool,
    /// For how many tokens of the answer it is known what they were drawn from.
    sourced: usize,
    /// The most tokens that the answer may have.
    limit: usize,
    /// What the next token is drawn from.
    position: Option<Position>,
    commitment: Commitment,
    guide: Option<Guide>,
    logprobs: Option<usize>,
    /// How many known tokens were told to be read.
    told: usize,
    over: bool,
}

impl Generation {
    pub(crate) fn new(
        mut reading: Reading,
        request: &Request,
        description: &Description,
    ) -> Result<Self, GenerateError> {
        let vocabulary = &description.vocabulary;
        let limit = answer_limit(&request.sampling, request.prompt.len(), description.card.context);
        let guide = request.constraint.as_ref().map(|constraint| description.guide(constraint, limit));
        let mut guide = guide.transpose()?;
        for &id in &request.answered {
            reading.push(id);
            // What is checked is pushed when its turn comes.
            guide.as_mut().filter(|_| !request.check).map_or(Ok(()), |guide| guide.push(id))?;
        }
        Ok(Self {
            limit,
            reading,
            sampling: request.sampling.clone(),
            vocabulary: Arc::clone(vocabulary),
            text: AnswerText::new(vocabulary, &request.sampling),
            given: request.answered.len(),
            check: request.check,
            sourced: 0,
            position: None,
            commitment: Commitment::default(),
            guide,
            logprobs: request.logprobs,
            told: 0,
            over: false,
        })
    }

    /// How far the tokens are read.
    #[must_use]
    pub const fn reading(&self) -> &Reading {
        &self.reading
    }

    pub(crate) const fn reading_mut(&mut self) -> &mut Reading {
        &mut self.reading
    }

    /// The number of the first token after which a position is still needed.
    pub(crate) fn first_wanted(&self) -> usize {
        self.reading.prompt().len() - 1 + self.sourced
    }

    /// Why the answer ends before anything else is drawn.
    fn ending(&self) -> Option<FinishReason> {
        if self.sourced < self.given {
            return None;
        }
        if self.text.stopped() {
            return Some(FinishReason::Stop);
        }
        ended(self.guide.as_ref(), self.reading.answer().len() >= self.limit)
    }

    /// Takes what followed a token: for a token that is known already that is what it was drawn from.
    fn take(&mut self, mut position: Position) -> Result<(), GenerateError> {
        let Some(&id) = self.reading.answer().get(self.sourced) else {
            self.position = Some(position);
            return Ok(());
        };
        if self.check {
            self.check(&mut position.logits, id)?;
        }
        self.text.push(id);
        self.commitment.push(position.state.as_deref());
        self.sourced += 1;
        Ok(())
    }

    /// Draws a token that another peer has drawn before.
    fn check(&mut self, logits: &mut [f32], id: u32) -> Result<(), GenerateError> {
        let (prompt, before) = (self.reading.prompt(), &self.reading.answer()[..self.sourced]);
        let choose = |logits: &[f32]| self.sampling.choose(logits, prompt, before);
        let drawn = match &mut self.guide {
            Some(guide) => guide.settle(logits, self.limit.saturating_sub(before.len()), choose)?,
            None => choose(logits),
        };
        if drawn != id || self.vocabulary.is_end(id) {
            return Err(GenerateError::Inherited { index: self.sourced as u32 });
        }
        Ok(self.guide.as_mut().map_or(Ok(()), |guide| guide.push(id))?)
    }

    fn draw(&mut self) -> Result<Step, GenerateError> {
        let Position { mut logits, state } = self.position.take().unwrap_or_default();
        let (prompt, answer) = (self.reading.prompt(), self.reading.answer());
        let choose = |logits: &[f32]| self.sampling.choose(logits, prompt, answer);
        let raw = self.logprobs.filter(|_| self.guide.is_some()).map(|_| logits.clone());
        let id = match &mut self.guide {
            Some(guide) => guide.settle(&mut logits, self.limit - answer.len(), choose)?,
            None => choose(&logits),
        };
        if self.vocabulary.is_end(id) {
            return Ok(self.finished(FinishReason::EndOfText));
        }
        self.guide.as_mut().map_or(Ok(()), |guide| guide.push(id))?;
        let logprobs = self.logprobs.map(|top| logprobs(raw.as_deref().unwrap_or(&logits), id, top));
        let index = answer.len() as u64;
        self.reading.push(id);
        self.sourced += 1;
        let activations = self.commitment.push(state.as_deref());
        Ok(Step::Token { index, id, text: self.text.push(id), activations, logprobs })
    }

    /// How many tokens were known from the beginning.
    fn known(&self) -> usize {
        self.reading.prompt().len() + self.given
    }

    fn prefilled(&mut self) -> Step {
        let of = self.known();
        // What was read, then given up and is read again, is not told twice.
        self.told = self.told.max(self.reading.done().min(of));
        Step::Prefilled { done: self.told as u32, of: of as u32 }
    }

    fn finished(&mut self, reason: FinishReason) -> Step {
        self.over = true;
        Step::Finished {
            reason,
            rest: self.text.finish(),
            prompt_tokens: self.reading.prompt().len() as u32,
            completion_tokens: self.reading.answer().len() as u32,
        }
    }
}

impl Task for Generation {
    type Step = Step;

    fn needs(&self) -> usize {
        if self.over || self.position.is_some() || self.ending().is_some() { 0 } else { self.reading.left() }
    }

    fn span(&mut self, most: usize) -> Span<'_> {
        let wanted = self.first_wanted();
        self.reading.span(most, wanted)
    }

    fn advance(&mut self, positions: Vec<Position>) -> Result<Step, GenerateError> {
        let needed = self.needs();
        // One token is read between two draws; anything else was known before.
        let between = needed == 1 && self.reading.done() >= self.known();
        self.reading.finish_span();
        positions.into_iter().try_for_each(|position| self.take(position))?;
        if let Some(reason) = self.ending().filter(|_| needed == 0) {
            return Ok(self.finished(reason));
        }
        if needed == 0 || between { self.draw() } else { Ok(self.prefilled()) }
    }
}

impl Iterator for Generation {
    type Item = Result<Step, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let step = step_alone(self);
        self.over |= step.is_err();
        Some(step)
    }
}

/// The text that each token of an answer completes, as [`Step::Token`] tells it.
#[must_use]
pub fn texts(vocabulary: &Arc<Vocabulary>, sampling: &Sampling, answer: &[u32]) -> Vec<String> {
    let mut text = AnswerText::new(vocabulary, sampling);
    answer.iter().map(|&id| text.push(id)).collect()
}

/// The text of an answer as it grows: characters made whole, stop texts taken out.
#[derive(Debug)]
pub(crate) struct AnswerText {
    characters: Detokenizer,
    stops: StopFilter,
}

impl AnswerText {
    pub(crate) fn new(vocabulary: &Arc<Vocabulary>, sampling: &Sampling) -> Self {
        Self { characters: Detokenizer::new(Arc::clone(vocabulary)), stops: StopFilter::new(&sampling.stop) }
    }

    pub(crate) fn push(&mut self, id: u32) -> String {
        self.stops.push(&self.characters.push(id))
    }

    pub(crate) const fn stopped(&self) -> bool {
        self.stops.stopped()
    }

    fn finish(&mut self) -> String {
        let last = self.characters.finish();
        self.stops.push(&last) + &self.stops.finish()
    }
}

/// Why an answer ends that has no stop text: it is all that its constraint allows, or as long as it may be. What is
/// whole when its budget ends was not cut off.
pub(crate) fn ended(guide: Option<&Guide>, full: bool) -> Option<FinishReason> {
    match guide {
        Some(guide) if guide.is_over() || full && guide.is_complete() => Some(FinishReason::EndOfText),
        _ => full.then_some(FinishReason::Length),
    }
}

/// The most tokens that an answer may have.
pub(crate) fn answer_limit(sampling: &Sampling, prompt: usize, context: usize) -> usize {
    (sampling.max_tokens as usize).min(context.saturating_sub(prompt))
}
