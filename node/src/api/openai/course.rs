//! Several jobs at work for one reply: one for each choice, and their events as they come.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, unfold};
use protocol::event::{Completion, JobEvent};
use protocol::{JobError, JobId, JobSpec, Logprobs, Token};
use tokio::time::timeout;

use super::Error;
use crate::handle::{JobStream, NodeHandle};

/// How long a stream waits for its jobs before it begins: longer than it takes to find that nobody does them.
const BEGINNING: Duration = Duration::from_secs(15);

/// Jobs at work at once for one reply: a provider takes half of its places from one peer at most, and others ask through this
/// one, too.
const AT_ONCE: usize = 16;

/// Jobs at work, and those that follow them. Dropping them cancels those that are not done.
pub(super) struct Course {
    node: NodeHandle,
    jobs: Vec<JobId>,
    /// How many are not done.
    open: usize,
    waiting: VecDeque<JobSpec>,
    events: SelectAll<BoxStream<'static, (usize, JobEvent)>>,
    /// What came before anybody asked for news.
    ahead: Option<(usize, News)>,
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
    /// Its answer's tokens, with how likely each was if that was asked for; none where they have been passed on.
    pub(super) tokens: Vec<(Token, Option<Logprobs>)>,
    /// What proves it.
    pub(super) completion: Box<Completion>,
}

impl Course {
    /// Submits them, and some only when others are done; where one is refused, none is left.
    pub(super) fn start(node: &NodeHandle, specs: Vec<JobSpec>) -> Result<Self, JobError> {
        specs.iter().try_for_each(JobSpec::check)?;
        let (open, waiting) = (specs.len(), VecDeque::from(specs));
        let (jobs, events, ahead) = (Vec::new(), SelectAll::new(), None);
        let mut course = Self { node: node.clone(), jobs, open, waiting, events, ahead };
        (0..AT_ONCE).try_for_each(|_| course.submit())?;
        Ok(course)
    }

    /// Submits the next one, if there is one.
    fn submit(&mut self) -> Result<(), JobError> {
        let Some(spec) = self.waiting.pop_front() else { return Ok(()) };
        let (index, stream) = (self.jobs.len(), self.node.submit(spec)?);
        self.jobs.push(stream.job());
        let next = move |mut stream: JobStream| async move {
            let event = stream.next().await?;
            Some(((index, event), stream))
        };
        self.events.push(unfold(stream, next).boxed());
        Ok(())
    }

    /// Waits for the first sign that one of them is being done, or that its owner is asked whether it may be. What fails before is
    /// an error with a status, by which clients know what to do; in a stream they only find its words.
    pub(super) async fn begun(mut self) -> Result<Self, Error> {
        match timeout(BEGINNING, self.begin()).await {
            Ok(Err(error)) => Err(self.error(error)),
            Ok(Ok(())) | Err(_) => Ok(self),
        }
    }

    async fn begin(&mut self) -> Result<(), JobError> {
        while let Some((index, event)) = self.events.next().await {
            match event {
                // Who has the job may yet find that it is too long, or its form none.
                JobEvent::Bid(..) | JobEvent::Started { .. } => {}
                JobEvent::Awaiting(_) | JobEvent::Progress { .. } => break,
                event => {
                    self.ahead = self.news(index, event)?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// The name of a job.
    pub(super) fn job(&self, index: usize) -> JobId {
        self.jobs[index]
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.jobs.len() + self.waiting.len()
    }

    /// True when all are done.
    pub(super) fn is_over(&self) -> bool {
        self.open == 0
    }

    /// What is next, and of which job; `None` when all are done. One that fails ends them all.
    pub(super) async fn next(&mut self) -> Option<Result<(usize, News), JobError>> {
        if let Some(news) = self.ahead.take() {
            return Some(Ok(news));
        }
        while let Some((index, event)) = self.events.next().await {
            if let Some(news) = self.news(index, event).transpose() {
                return Some(news);
            }
        }
        None
    }

    /// What an event is to a reply.
    fn news(&mut self, index: usize, event: JobEvent) -> Result<Option<(usize, News)>, JobError> {
        match event {
            JobEvent::Token { token, logprobs, .. } => Ok(Some((index, News::Token(token, logprobs)))),
            JobEvent::Done(completion) => {
                self.open -= 1;
                if let Err(error) = self.submit() {
                    self.events.clear();
                    return Err(error);
                }
                Ok(Some((index, News::Done(completion))))
            }
            JobEvent::Failed(error) => {
                self.events.clear();
                Err(error)
            }
            JobEvent::Awaiting(_)
            | JobEvent::Bid(..)
            | JobEvent::Progress { .. }
            | JobEvent::Started { .. } => Ok(None),
        }
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
        let mut tokens: Vec<Vec<_>> = (0..self.len()).map(|_| Vec::new()).collect();
        let mut done: Vec<Option<Told>> = (0..self.len()).map(|_| None).collect();
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
        self.completion.opening.output.iter().map(|token| token.text.as_str()).collect()
    }
}
