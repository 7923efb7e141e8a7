//! Several jobs at work for one reply: one for each choice, all at once, and their events as they come.

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all, unfold};
use protocol::event::{Completion, JobEvent};
use protocol::{JobError, JobId, JobSpec, Logprobs, Token};

use super::Error;
use crate::handle::{JobStream, NodeHandle};

/// Jobs at work. Dropping them cancels those that are not done.
pub(super) struct Course {
    jobs: Vec<JobId>,
    /// How many are not done.
    open: usize,
    events: SelectAll<BoxStream<'static, (usize, JobEvent)>>,
}

/// What a reply is made of.
pub(super) enum News {
    /// The next token of a job.
    Token(Token, Option<Logprobs>),
    /// Its end.
    Done(Box<Completion>),
}

/// A job that is done.
pub(super) struct Told {
    /// Its answer, with how likely each token was if that was asked for.
    pub(super) tokens: Vec<(Token, Option<Logprobs>)>,
    /// What proves it.
    pub(super) completion: Box<Completion>,
}

impl Course {
    /// Submits all of them; where one is refused, none is left.
    pub(super) fn start(node: &NodeHandle, specs: Vec<JobSpec>) -> Result<Self, JobError> {
        let streams = specs.into_iter().map(|spec| node.submit(spec)).collect::<Result<Vec<_>, _>>()?;
        let jobs: Vec<_> = streams.iter().map(JobStream::job).collect();
        let events = streams.into_iter().enumerate().map(|(index, stream)| {
            let next = move |mut stream: JobStream| async move {
                let event = stream.next().await?;
                Some(((index, event), stream))
            };
            unfold(stream, next).boxed()
        });
        Ok(Self { open: jobs.len(), jobs, events: select_all(events) })
    }

    /// The name of a job.
    pub(super) fn job(&self, index: usize) -> JobId {
        self.jobs[index]
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// True when all are done.
    pub(super) fn is_over(&self) -> bool {
        self.open == 0
    }

    /// What is next, and of which job; `None` when all are done. One that fails ends them all.
    pub(super) async fn next(&mut self) -> Option<Result<(usize, News), JobError>> {
        while let Some((index, event)) = self.events.next().await {
            match event {
                JobEvent::Token { token, logprobs, .. } => {
                    return Some(Ok((index, News::Token(token, logprobs))));
                }
                JobEvent::Done(completion) => {
                    self.open -= 1;
                    return Some(Ok((index, News::Done(completion))));
                }
                JobEvent::Failed(error) => {
                    self.events.clear();
                    return Some(Err(error));
                }
                JobEvent::Awaiting(_)
                | JobEvent::Bid(..)
                | JobEvent::Progress { .. }
                | JobEvent::Started { .. } => {}
            }
        }
        None
    }

    /// An error of one of them, with the name of the first.
    pub(super) fn error(&self, error: JobError) -> Error {
        let error = Error::from(error);
        match self.jobs.first() {
            Some(job) => error.of(*job),
            None => error,
        }
    }

    /// Waits for all of them; in the order in which they were submitted.
    pub(super) async fn all(mut self) -> Result<Vec<Told>, Error> {
        let mut tokens: Vec<Vec<_>> = self.jobs.iter().map(|_| Vec::new()).collect();
        let mut done: Vec<Option<Told>> = self.jobs.iter().map(|_| None).collect();
        while let Some(news) = self.next().await {
            match news.map_err(|error| self.error(error))? {
                (index, News::Token(token, logprobs)) => tokens[index].push((token, logprobs)),
                (index, News::Done(completion)) => {
                    done[index] = Some(Told { tokens: std::mem::take(&mut tokens[index]), completion });
                }
            }
        }
        done.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| self.error(JobError::Cancelled))
    }
}

impl Told {
    /// The whole answer.
    pub(super) fn text(&self) -> String {
        self.tokens.iter().map(|(token, _)| token.text.as_str()).collect()
    }
}
