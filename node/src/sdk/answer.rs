//! An answer, piece by piece, and what proves it at the end.

use crypto::PeerId;
use protocol::event::{Completion, JobEvent};
use protocol::{Credits, JobError, JobId};

use crate::handle::JobStream;

/// An answer that is on its way. Dropping it before its end cancels the job.
#[derive(Debug)]
pub struct Answer {
    stream: JobStream,
    completion: Option<Box<Completion>>,
}

impl Answer {
    pub(super) fn of(stream: JobStream) -> Self {
        Self { stream, completion: None }
    }

    /// The next piece of text; `None` when it is whole. An error is the last that comes. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<String, JobError>> {
        loop {
            match self.stream.next().await? {
                JobEvent::Token { token, .. } if token.text.is_empty() => {}
                JobEvent::Token { token, .. } => return Some(Ok(token.text)),
                JobEvent::Failed(error) => return Some(Err(error)),
                JobEvent::Done(completion) => self.completion = Some(completion),
                JobEvent::Awaiting(_)
                | JobEvent::Bid(..)
                | JobEvent::Progress { .. }
                | JobEvent::Started { .. } => {}
            }
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// What the job failed with.
    pub async fn text(&mut self) -> Result<String, JobError> {
        let mut text = String::new();
        while let Some(piece) = self.next().await {
            text += &piece?;
        }
        Ok(text)
    }

    /// The job's name.
    pub fn job(&self) -> JobId {
        self.stream.job()
    }

    /// Who answered; known at the end.
    pub fn provider(&self) -> Option<PeerId> {
        self.completion.as_ref().map(|completion| completion.receipt.signer())
    }

    /// What it cost; known at the end.
    pub fn cost(&self) -> Option<Credits> {
        self.completion.as_ref().map(|completion| completion.receipt.cost)
    }

    /// The receipt with everything that it commits to; there at the end.
    pub fn completion(&self) -> Option<&Completion> {
        self.completion.as_deref()
    }
}
