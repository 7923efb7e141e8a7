//! The driver of a plan: submits the jobs that [`protocol::plan`] wants, and keeps what came of them.
//!
//! ```text
//!   Execution ─ Record ─▶ journal (on disk) ─ Submit ─▶ a task for each job ─▶ Jobs: a peer here, or an API
//!       ▲                                                     │
//!       └──────────────── Done, Failed ◀── bounded queue ─────┘
//! ```
//!
//! Outputs are performed in their order, so an outcome is on disk before anything follows from it. Whoever calls
//! [`Driver::next`] drives; what it returns is for people and programs to read.
//!
//! | module | concern |
//! |---|---|
//! | [`journal`] | one run as a file: the plan, its inputs, and every outcome |
//! | [`planner`] | whom to ask for a plan, and how |

pub mod journal;
pub mod planner;

use std::collections::BTreeMap;
use std::sync::Arc;

use crypto::{Digest, PeerId};
use futures::StreamExt;
use futures::stream::{BoxStream, once, unfold};
use protocol::approval::Rule;
use protocol::plan::{self, Event, Execution, NodeState, Outcome, Output, Task, TaskId};
use protocol::{Capability, Credits, Input, JobError, JobId, Plan, Price, Trace};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, block_in_place};

use crate::api::control::{self, Found};
use crate::clock;
use crate::handle::NodeHandle;
use crate::request::form::Form;
use crate::request::{JobRequest, JobUpdate};
use crate::traces::Traces;
use crate::traces::plan::PlanSpans;
use journal::{Journal, JournalError};

/// News of running jobs that wait for the driver: a start and an end of each. Jobs with more to say wait.
const NEWS: usize = 2 * Plan::MAX_PARALLEL as usize;

/// The course of one job, to its last update.
pub type Updates = BoxStream<'static, JobUpdate>;

/// Whoever submits jobs: a peer in this process, or the API of one that runs.
pub trait Jobs: Send + Sync {
    /// Submits a job when it is first polled. Dropping it before the last update cancels the job.
    fn stream(&self, request: JobRequest) -> Updates;
}

impl Jobs for NodeHandle {
    fn stream(&self, request: JobRequest) -> Updates {
        let node = self.clone();
        let submitted = async move {
            let node = node.traced(request.trace);
            let submit = async { node.submit(control::spec(&node, &request).await?) };
            match submit.await {
                Ok(stream) => unfold(stream, |mut stream| async move {
                    let event = stream.next().await?;
                    Some((JobUpdate::of(stream.job(), event, None), stream))
                })
                .boxed(),
                Err(error) => once(async { JobUpdate::from(error) }).boxed(),
            }
        };
        once(submitted).flatten().boxed()
    }
}

/// The lowest price that anybody found asks for a capability.
pub fn lowest_price(capability: &Capability, found: &[Found]) -> Option<Price> {
    let offers = found.iter().flat_map(|found| &found.profile.agents);
    let offers = offers.filter(|offer| capability.covers(&offer.capability));
    offers.map(|offer| offer.price).reduce(Price::cheaper)
}

/// What happened to a plan: one line of `llamesh plan run --json`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PlanUpdate {
    /// The plan was taken back; its run can go on from where it is.
    Cancelled,
    /// The last line of a plan that was done.
    Done {
        /// The value of its output node.
        output: String,
        /// What all jobs cost, failed tries and an earlier life included.
        cost: Credits,
        /// The receipts of all jobs.
        receipts: Vec<Digest>,
    },
    /// The last line of a plan that was not.
    Failed {
        /// In which node; `None` where it is the plan as a whole.
        node: Option<String>,
        /// Why.
        message: String,
    },
    /// A job waits for somebody to approve it.
    JobAwaiting {
        /// Which.
        task: TaskId,
        /// Its name.
        job: JobId,
        /// What names it.
        rule: Rule,
    },
    /// A job is over, and on record.
    JobDone {
        /// Which.
        task: TaskId,
        /// By whom, where that is known.
        provider: Option<PeerId>,
        /// What it cost.
        cost: Credits,
        /// Its receipt, if it got that far.
        receipt: Option<Digest>,
        /// Why it failed, if it did.
        problem: Option<String>,
        /// What the plan has cost so far.
        spent: Credits,
        /// What is left of its budget.
        left: Credits,
    },
    /// A provider works on a job; again if another one takes over.
    JobStarted {
        /// Which.
        task: TaskId,
        /// Who.
        provider: PeerId,
        /// The model's name, where there is one.
        model: Option<String>,
    },
    /// A node got on.
    Node {
        /// Which.
        node: String,
        /// Jobs that have a value; absent once it is settled.
        #[serde(skip_serializing_if = "Option::is_none")]
        done: Option<u32>,
        /// All its jobs; absent once it is settled.
        #[serde(skip_serializing_if = "Option::is_none")]
        of: Option<u32>,
        /// Whether it has its value.
        settled: bool,
        /// Jobs without a value, because they failed.
        skipped: u32,
        /// Jobs whose value is a substitute, because they failed.
        substituted: u32,
    },
}

/// News of a running job.
enum News {
    Awaiting { task: TaskId, job: JobId, rule: Rule },
    Ended(Event),
    Started { task: TaskId, provider: PeerId, model: Option<String> },
}

/// A running plan.
pub struct Driver {
    execution: Execution,
    budget: Credits,
    /// Nowhere for a run that nobody could go on with.
    journal: Option<Journal>,
    jobs: Arc<dyn Jobs>,
    approval: Vec<Rule>,
    running: BTreeMap<TaskId, AbortHandle>,
    news: mpsc::Receiver<News>,
    tell: mpsc::Sender<News>,
    over: bool,
    spans: PlanSpans,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("execution", &self.execution).finish_non_exhaustive()
    }
}

impl Driver {
    /// Drives an execution that has just begun; `budget` is its plan's. Without a journal nothing is kept of it.
    pub fn new(
        execution: Execution,
        budget: Credits,
        journal: impl Into<Option<Journal>>,
        jobs: Arc<dyn Jobs>,
    ) -> Self {
        let (tell, news) = mpsc::channel(NEWS);
        let (journal, approval, running) = (journal.into(), Vec::new(), BTreeMap::new());
        let spans = PlanSpans::begin(&Traces::default(), None);
        Self { execution, budget, journal, jobs, approval, running, news, tell, over: false, spans }
    }

    /// Traced from here on, below `parent` or in a trace of its own.
    #[must_use]
    pub fn with_traces(mut self, traces: &Traces, parent: Option<Trace>) -> Self {
        self.spans = PlanSpans::begin(traces, parent);
        self
    }

    /// Of which jobs somebody is to be asked before they begin.
    #[must_use]
    pub fn with_approval(mut self, approval: Vec<Rule>) -> Self {
        self.approval = approval;
        self
    }

    /// Takes the plan back: its jobs are cancelled, and the last update says so.
    pub fn cancel(&mut self) {
        self.execution.handle(clock::now(), Event::Cancel);
    }

    /// The next update; `None` after the last one. Cancel-safe.
    ///
    /// # Errors
    /// When an outcome cannot be kept. Nothing has followed from it then.
    pub async fn next(&mut self) -> Result<Option<PlanUpdate>, JournalError> {
        loop {
            while let Some(output) = self.execution.poll_output() {
                if let Some(update) = self.perform(output)? {
                    return Ok(Some(update));
                }
            }
            if self.over {
                return Ok(None);
            }
            let due = self.execution.poll_timeout();
            let late = async {
                match due {
                    Some(due) => tokio::time::sleep_until(clock::instant(due)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                news = self.news.recv() => match news {
                    Some(News::Ended(event)) => self.execution.handle(clock::now(), event),
                    Some(News::Awaiting { task, job, rule }) => {
                        return Ok(Some(PlanUpdate::JobAwaiting { task, job, rule }));
                    }
                    Some(News::Started { task, provider, model }) => {
                        return Ok(Some(PlanUpdate::JobStarted { task, provider, model }));
                    }
                    // It holds a sender itself.
                    None => return Ok(None),
                },
                () = late => self.execution.handle_timeout(clock::now()),
            }
        }
    }

    fn perform(&mut self, output: Output) -> Result<Option<PlanUpdate>, JournalError> {
        match output {
            Output::Cancel { task } => {
                if let Some(job) = self.running.remove(&task) {
                    job.abort();
                }
                Ok(None)
            }
            Output::Submit(task) => {
                let id = task.id.clone();
                let (jobs, approval) = (Arc::clone(&self.jobs), self.approval.clone());
                let trace = self.spans.submitted(&id);
                let job = tokio::spawn(work(jobs, *task, (approval, trace), self.tell.clone()));
                self.running.insert(id, job.abort_handle());
                Ok(None)
            }
            Output::Record(entry) => {
                if let Some(journal) = &mut self.journal {
                    // Waits for the disk; other tasks of this thread need not.
                    block_in_place(|| journal.append(&entry))?;
                }
                self.running.remove(&entry.task);
                Ok(Some(self.told(*entry)))
            }
            Output::Changed { node, state } => {
                if let NodeState::Settled { skipped, substituted } = state {
                    self.spans.settled(&node, skipped + substituted);
                }
                Ok(Some(changed(node, state)))
            }
            Output::Cancelled => Ok(self.last(PlanUpdate::Cancelled)),
            Output::Done(answer) => {
                let plan::Answer { output, cost, receipts } = *answer;
                Ok(self.last(PlanUpdate::Done { output, cost, receipts }))
            }
            Output::Failed { node, why } => Ok(self.last(PlanUpdate::Failed { node, message: why })),
        }
    }

    fn told(&self, entry: plan::Entry) -> PlanUpdate {
        let plan::Entry { task, outcome, cost, provider, receipt, .. } = entry;
        let problem = match outcome {
            Outcome::Done { .. } => None,
            Outcome::Failed { why, .. } => Some(why),
        };
        let spent = self.execution.spent();
        let left = self.budget.minus(spent).unwrap_or_default();
        PlanUpdate::JobDone { task, provider, cost, receipt, problem, spent, left }
    }

    fn last(&mut self, update: PlanUpdate) -> Option<PlanUpdate> {
        self.over = true;
        match &update {
            PlanUpdate::Cancelled => self.spans.failed("cancelled", None),
            PlanUpdate::Failed { node, .. } => self.spans.failed("failed", node.as_deref()),
            _ => {}
        }
        self.spans.over();
        Some(update)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

fn changed(node: String, state: NodeState) -> PlanUpdate {
    match state {
        NodeState::Running { done, of } => {
            let (done, of) = (Some(done), Some(of));
            PlanUpdate::Node { node, done, of, settled: false, skipped: 0, substituted: 0 }
        }
        NodeState::Settled { skipped, substituted } => {
            PlanUpdate::Node { node, done: None, of: None, settled: true, skipped, substituted }
        }
    }
}

/// One job, from submission to end.
async fn work(
    jobs: Arc<dyn Jobs>,
    task: Task,
    (approval, trace): (Vec<Rule>, Option<Trace>),
    tell: mpsc::Sender<News>,
) {
    let id = task.id.clone();
    let (provider, ended) = match request(task) {
        Ok(request) => follow(&*jobs, JobRequest { approval, trace, ..request }, &id, &tell).await,
        Err(error) => (None, Err(error)),
    };
    let event = match ended {
        Ok((output, cost, receipt)) => Event::Done { task: id, provider, output, cost, receipt },
        Err(error) => Event::Failed { task: id, provider, error },
    };
    // Without a driver nobody wants to know.
    let _ = tell.send(News::Ended(event)).await;
}

type Ended = Result<(String, Credits, Digest), JobError>;

async fn follow(
    jobs: &dyn Jobs,
    mut request: JobRequest,
    task: &TaskId,
    tell: &mpsc::Sender<News>,
) -> (Option<PeerId>, Ended) {
    let mut updates = jobs.stream(request.clone());
    let mut who = None;
    while let Some(update) = updates.next().await {
        match update {
            JobUpdate::Awaiting { job, rule } => {
                // Without a driver nobody wants to know.
                let _ = tell.send(News::Awaiting { task: task.clone(), job, rule }).await;
            }
            JobUpdate::Started { provider, model, .. } => {
                who = Some(provider);
                // Without a driver nobody wants to know.
                let _ = tell.send(News::Started { task: task.clone(), provider, model }).await;
            }
            JobUpdate::Done { text, provider, receipt, cost, .. } => {
                return (Some(provider), Ok((text, cost, receipt)));
            }
            JobUpdate::Failed { code, detail, .. } => {
                let error = detail.unwrap_or_else(|| bare(&code));
                let waits = matches!(error, JobError::Busy { .. });
                if who.is_some() || waits || request.avoid.is_empty() {
                    return (who, Err(error));
                }
                // Nobody is left but those who failed at it: another seed may do better there, too.
                request.avoid.clear();
                updates = jobs.stream(request.clone());
            }
            JobUpdate::Bid { .. } | JobUpdate::Progress { .. } | JobUpdate::Token { .. } => {}
        }
    }
    (who, Err(JobError::ProviderLost))
}

/// The errors that are nothing but their code.
fn bare(code: &str) -> JobError {
    match code {
        "cancelled" => JobError::Cancelled,
        "deadline_exceeded" => JobError::DeadlineExceeded,
        "engine" => JobError::Engine,
        _ => JobError::ProviderLost,
    }
}

/// A task as whoever submits jobs reads it.
fn request(task: Task) -> Result<JobRequest, JobError> {
    let Task { kind, requirement, model, input, sampling, constraint, budget, avoid, .. } = task;
    let unread = |error: serde_json::Error| JobError::invalid("constraint", &error.to_string());
    let mut request = JobRequest {
        kind: Some(kind),
        capability: Some(requirement.capability),
        model,
        context: requirement.context,
        ceiling: requirement.ceiling,
        avoid,
        max_tokens: Some(sampling.max_tokens),
        temperature: Some(sampling.temperature),
        seed: Some(sampling.seed),
        choice: Some(sampling.choice),
        constraint: constraint.map(Form::try_from).transpose().map_err(unread)?,
        budget: Some(budget.0),
        ..JobRequest::default()
    };
    match input {
        Input::Chat(chat) => request.messages = chat.messages,
        Input::Json(text) => request.call = Some(RawValue::from_string(text).map_err(unread)?),
        Input::Text(text) => request.text = Some(text),
        Input::Tokens(ids) => request.tokens = ids,
    }
    Ok(request)
}
