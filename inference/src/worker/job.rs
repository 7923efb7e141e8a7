//! The kinds of jobs behind one face: what each needs read, and the event that its next step is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Event;
use crate::engine::{GenerateError, Position, Span};
use crate::generation::Generation;
use crate::model::panic_message;
use crate::reading::{Reading, Task};
use crate::replay::{ReplayStep, Replaying};
use crate::scoring::{ScoreStep, Scoring};

/// What a pass brought a job.
pub(super) type Read = Result<Vec<Position>, GenerateError>;

/// A job: begun by the engine, not yet computed. What can be refused was refused before.
#[derive(Debug)]
pub enum Job {
    /// Answers a request.
    Generate(Box<Generation>),
    /// Checks a claimed answer.
    Replay(Box<Replaying>),
    /// Says how likely a text is.
    Score(Box<Scoring>),
}

impl From<Generation> for Job {
    fn from(generation: Generation) -> Self {
        Self::Generate(Box::new(generation))
    }
}

impl From<Replaying> for Job {
    fn from(replaying: Replaying) -> Self {
        Self::Replay(Box::new(replaying))
    }
}

impl From<Scoring> for Job {
    fn from(scoring: Scoring) -> Self {
        Self::Score(Box::new(scoring))
    }
}

impl Job {
    /// How many tokens are to be read before the next step.
    pub(super) fn needs(&self) -> usize {
        match self {
            Self::Generate(generation) => generation.needs(),
            Self::Replay(replaying) => replaying.needs(),
            Self::Score(scoring) => scoring.needs(),
        }
    }

    pub(super) const fn reading(&self) -> &Reading {
        match self {
            Self::Generate(generation) => generation.reading(),
            Self::Replay(replaying) => replaying.reading(),
            Self::Score(scoring) => scoring.reading(),
        }
    }

    /// How much of what it reads may be taken from elsewhere: a check reads everything itself.
    pub(super) fn shareable(&self) -> usize {
        match self {
            Self::Generate(generation) => generation.first_wanted(),
            Self::Replay(_) | Self::Score(_) => 0,
        }
    }

    pub(super) const fn reading_mut(&mut self) -> &mut Reading {
        match self {
            Self::Generate(generation) => generation.reading_mut(),
            Self::Replay(replaying) => replaying.reading_mut(),
            Self::Score(scoring) => scoring.reading_mut(),
        }
    }

    pub(super) fn span(&mut self, most: usize) -> Span<'_> {
        match self {
            Self::Generate(generation) => generation.span(most),
            Self::Replay(replaying) => replaying.span(most),
            Self::Score(scoring) => scoring.span(most),
        }
    }

    /// The events that follow from what was read: of the step that it was read for, and of those that need no more.
    pub(super) fn advance(&mut self, read: Read) -> Vec<Event> {
        let mut events = Vec::new();
        let mut step = read.and_then(|positions| self.caught(positions));
        loop {
            let event = step.unwrap_or_else(Event::Failed);
            let over = event.is_last();
            events.push(event);
            if over || self.needs() > 0 {
                return events;
            }
            step = self.caught(Vec::new());
        }
    }

    fn caught(&mut self, positions: Vec<Position>) -> Result<Event, GenerateError> {
        catch_unwind(AssertUnwindSafe(|| self.step(positions))).unwrap_or_else(|panic| {
            let what = panic_message(&*panic);
            tracing::error!(what, "a step panicked; its job fails, the worker goes on");
            Err(GenerateError::Panicked { what })
        })
    }

    fn step(&mut self, positions: Vec<Position>) -> Result<Event, GenerateError> {
        match self {
            Self::Generate(generation) => generation.advance(positions).map(Event::Step),
            Self::Replay(replaying) => replaying.advance(positions).map(|step| match step {
                ReplayStep::Checked { done, of } => Event::Replaying { done, of },
                ReplayStep::Finished(replay) => Event::Replayed(replay),
            }),
            Self::Score(scoring) => scoring.advance(positions).map(|step| match step {
                ScoreStep::Read { done, of } => Event::Scoring { done, of },
                ScoreStep::Finished(found) => Event::Scored(found),
            }),
        }
    }
}
