//! How likely a model holds a given text: log-probabilities of its tokens, each after those before it.
//!
//! What a benchmark compares answers with, what a judge weighs candidates by, and what `echo` shows of a prompt. The
//! first token has nothing before it and so no number. On an exact engine the numbers are the same on every peer.

use crate::engine::{GenerateError, Position, Span};
use crate::logprobs::{Logprobs, logprobs};
use crate::reading::{Reading, Task, step_alone};

/// Tokens to be scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The tokens, from [`Engine::prompt`](crate::Engine::prompt).
    pub tokens: Vec<u32>,
    /// How many of the likeliest tokens are told beside each.
    pub top: usize,
}

/// What one call brought.
#[derive(Clone, Debug, PartialEq)]
pub enum ScoreStep {
    /// The last step: the numbers of every token but the first.
    Finished(Vec<Logprobs>),
    /// So much has been read.
    Read {
        /// Tokens read.
        done: u32,
        /// Tokens to read.
        of: u32,
    },
}

/// A scoring in progress, pulled step by step like a generation; dropping it cancels it.
#[derive(Debug)]
pub struct Scoring {
    /// Reads all but the last token, after which nothing is asked.
    reading: Reading,
    text: Text,
    found: Vec<Logprobs>,
    over: bool,
}

impl Scoring {
    pub(crate) const fn new(reading: Reading, text: Text) -> Self {
        Self { reading, text, found: Vec::new(), over: false }
    }

    pub(crate) const fn reading(&self) -> &Reading {
        &self.reading
    }

    pub(crate) const fn reading_mut(&mut self) -> &mut Reading {
        &mut self.reading
    }

    /// Runs to the end.
    pub fn complete(self) -> Result<Vec<Logprobs>, GenerateError> {
        for step in self {
            if let ScoreStep::Finished(found) = step? {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }
}

impl Task for Scoring {
    type Step = ScoreStep;

    fn needs(&self) -> usize {
        if self.over { 0 } else { self.reading.left() }
    }

    fn span(&mut self, most: usize) -> Span<'_> {
        let wanted = self.found.len();
        self.reading.span(most.min(SCORED), wanted)
    }

    fn advance(&mut self, positions: Vec<Position>) -> Result<ScoreStep, GenerateError> {
        if self.needs() == 0 {
            self.over = true;
            return Ok(ScoreStep::Finished(std::mem::take(&mut self.found)));
        }
        self.reading.finish_span();
        for position in positions {
            // There is a token after each that is read.
            let Some(&token) = self.text.tokens.get(self.found.len() + 1) else { break };
            self.found.push(logprobs(&position.logits, token, self.text.top));
        }
        let (done, of) = (self.reading.done(), self.reading.tokens().len());
        Ok(ScoreStep::Read { done: done as u32, of: of as u32 })
    }
}

impl Iterator for Scoring {
    type Item = Result<ScoreStep, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let step = step_alone(self);
        self.over |= step.is_err();
        Some(step)
    }
}

/// Positions in a step: the logits of all of them are held at once.
const SCORED: usize = 32;

#[cfg(test)]
mod tests;
