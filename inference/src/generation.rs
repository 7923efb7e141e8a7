//! One answer in the making, pulled step by step.
//!
//! Each call computes at most one chunk of the prompt or one token of the answer, so whoever stops calling, or
//! drops the generation, has cancelled it. Its own sequence is freed with it.

use std::sync::Arc;

use crypto::Digest;
use serde::{Deserialize, Serialize};

use crate::commitment::Commitment;
use crate::engine::{GenerateError, Position, Reading, Request};
use crate::model::Description;
use crate::sample::Sampling;
use crate::tokens::{Detokenizer, StopFilter, Vocabulary};

/// What one call brought.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    },
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model drew a token that ends its turn.
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
    /// Tokens answered before this generation.
    given: Vec<u32>,
    answer: Vec<u32>,
    /// The most tokens that the answer may have.
    limit: usize,
    /// What the next token is drawn from.
    position: Option<Position>,
    commitment: Commitment,
    /// The answer's last token, drawn and not yet read.
    unread: Option<u32>,
    over: bool,
}

impl Generation {
    pub(crate) fn new(reading: Reading, request: &Request, description: &Description) -> Self {
        let vocabulary = &description.vocabulary;
        Self {
            limit: answer_limit(&request.sampling, request.prompt.len(), description.card.context),
            reading,
            sampling: request.sampling.clone(),
            vocabulary: Arc::clone(vocabulary),
            text: AnswerText::new(vocabulary, &request.sampling),
            given: request.answered.clone(),
            answer: Vec::new(),
            position: None,
            commitment: Commitment::default(),
            unread: None,
            over: false,
        }
    }

    fn step(&mut self) -> Result<Step, GenerateError> {
        if let Some(position) = self.reading.chunk() {
            self.position = Some(position?);
            return Ok(self.prefilled());
        }
        if self.answer.len() < self.given.len() {
            self.take_over()?;
            return Ok(self.prefilled());
        }
        if self.text.stopped() {
            return Ok(self.finished(FinishReason::Stop));
        }
        if self.answer.len() >= self.limit {
            return Ok(self.finished(FinishReason::Length));
        }
        self.draw()
    }

    /// Reads some of what was answered before.
    fn take_over(&mut self) -> Result<(), GenerateError> {
        let read = self.reading.tokens(&self.given[self.answer.len()..])?;
        for next in read {
            let id = self.given[self.answer.len()];
            self.text.push(id);
            self.answer.push(id);
            let drawn_from = self.position.replace(next).unwrap_or_default();
            self.commitment.push(drawn_from.state.as_deref());
        }
        Ok(())
    }

    fn draw(&mut self) -> Result<Step, GenerateError> {
        let position = match self.unread.take() {
            Some(id) => self.reading.token(id)?,
            None => self.position.take().unwrap_or_default(),
        };
        let id = self.sampling.choose(&position.logits, self.reading.prompt(), &self.answer);
        if self.vocabulary.is_end(id) {
            return Ok(self.finished(FinishReason::EndOfText));
        }
        let index = self.answer.len() as u64;
        self.answer.push(id);
        self.unread = Some(id);
        let activations = self.commitment.push(position.state.as_deref());
        Ok(Step::Token { index, id, text: self.text.push(id), activations })
    }

    fn prefilled(&self) -> Step {
        let of = self.reading.prompt().len() + self.given.len();
        Step::Prefilled { done: (self.reading.done() + self.answer.len()) as u32, of: of as u32 }
    }

    fn finished(&mut self, reason: FinishReason) -> Step {
        self.over = true;
        Step::Finished {
            reason,
            rest: self.text.finish(),
            prompt_tokens: self.reading.prompt().len() as u32,
            completion_tokens: self.answer.len() as u32,
        }
    }
}

impl Iterator for Generation {
    type Item = Result<Step, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let step = self.step();
        self.over |= step.is_err();
        Some(step)
    }
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

/// The most tokens that an answer may have.
pub(crate) fn answer_limit(sampling: &Sampling, prompt: usize, context: usize) -> usize {
    (sampling.max_tokens as usize).min(context.saturating_sub(prompt))
}
