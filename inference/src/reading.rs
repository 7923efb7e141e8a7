//! Known tokens on their way into a sequence, and the work that waits for what follows them.
//!
//! Whatever is computed of a sequence (an answer, a replay, log-probabilities) goes in steps, and before most steps
//! some tokens must be read. A task says which, and takes what followed them; who reads them, alone
//! or in one pass with those of other tasks, is not its business. A [`Reading`] keeps count, and cuts a prompt into
//! the shapes that an engine's bits depend on, unless it is exact.

use std::fmt;

use crate::engine::{ForwardError, GenerateError, Position, Sequence, Span};

/// The shapes in which an engine reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Whether any other shapes would do as well.
    pub(crate) exact: bool,
    /// Most tokens of a prompt in a step.
    pub(crate) chunk: usize,
    /// Most known tokens of an answer in a step.
    pub(crate) stride: usize,
}

/// A sequence, the tokens that it is to read, and how far it is.
pub struct Reading {
    sequence: Box<dyn Sequence>,
    tokens: Vec<u32>,
    /// How many of the tokens are the prompt.
    prompt: usize,
    done: usize,
    /// How many more are being read.
    under_way: usize,
    shape: Shape,
    threads: usize,
}

impl Reading {
    pub(crate) fn new(sequence: Box<dyn Sequence>, prompt: &[u32], shape: Shape, threads: usize) -> Self {
        let (tokens, prompt) = (prompt.to_vec(), prompt.len());
        Self { sequence, tokens, prompt, done: 0, under_way: 0, shape, threads }
    }

    /// The prompt.
    #[must_use]
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt]
    }

    /// What is known of the answer.
    #[must_use]
    pub fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// Prompt and answer, as far as they are known.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many tokens have been read.
    #[must_use]
    pub const fn done(&self) -> usize {
        self.done
    }

    /// How many known tokens have not been read.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.tokens.len() - self.done
    }

    /// How many threads the engine computes with.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.threads
    }

    /// A token of the answer that is to be read next.
    pub(crate) fn push(&mut self, id: u32) {
        self.tokens.push(id);
    }

    /// Goes on from a sequence that has read the first tokens already.
    pub(crate) fn adopt(&mut self, sequence: Box<dyn Sequence>, read: usize) {
        self.sequence = sequence;
        self.done = read.min(self.tokens.len());
    }

    /// A sequence of its own that has read the first `length` tokens that this one has.
    pub(crate) fn fork(&self, length: usize) -> Option<Box<dyn Sequence>> {
        self.sequence.fork(length)
    }

    /// The next tokens to be read: at most `most` where the engine is exact, and a step of its own otherwise; with
    /// positions after each from number `wanted` on.
    pub(crate) fn span(&mut self, most: usize, wanted: usize) -> Span<'_> {
        let in_prompt = self.prompt.saturating_sub(self.done);
        let step = if in_prompt > 0 { in_prompt.min(self.shape.chunk) } else { self.shape.stride };
        let step = if self.shape.exact { step.min(most.max(1)) } else { step };
        let end = self.tokens.len().min(self.done + step);
        self.under_way = end - self.done;
        let wanted = end.saturating_sub(wanted.max(self.done));
        Span { sequence: &mut *self.sequence, tokens: &self.tokens[self.done..end], wanted }
    }

    /// The span has been read.
    pub(crate) const fn finish_span(&mut self) {
        self.done += self.under_way;
        self.under_way = 0;
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.tokens.len();
        f.debug_struct("Reading").field("done", &self.done).field("of", &of).finish_non_exhaustive()
    }
}

/// Work on one sequence, step by step.
pub(crate) trait Task {
    /// What a step brings.
    type Step;

    /// How many tokens must be read before the next step, at most so many at once as a span gives; zero when it can
    /// be made at once.
    fn needs(&self) -> usize;

    /// Those tokens, or the first of them.
    fn span(&mut self, most: usize) -> Span<'_>;

    /// Makes the next step from the positions that the span brought (none when nothing was needed).
    fn advance(&mut self, positions: Vec<Position>) -> Result<Self::Step, GenerateError>;
}

/// Makes a task's next step without company.
pub(crate) fn step_alone<T: Task>(task: &mut T) -> Result<T::Step, GenerateError> {
    let positions = if task.needs() == 0 {
        Vec::new()
    } else {
        let Span { sequence, tokens, wanted } = task.span(usize::MAX);
        sequence.read(tokens, wanted).map_err(|error: ForwardError| GenerateError::from(error))?
    };
    task.advance(positions)
}
