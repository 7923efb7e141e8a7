//! Sees what the driver hears and does, counts it, and tells it to whoever reads traces. It changes nothing but where a job
//! stands in a trace.
//!
//! For each job of this peer, and for each job that an agent of it works on, it keeps when things happened.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::event::{JobEvent, Production, Run, RunId, Submission};
use protocol::{JobError, JobId, Output, Request};

use crate::agents::Beginning;
use crate::metrics::Metrics;
use crate::net::{NetEvent, Verdict};
use crate::traces::Traces;
use crate::traces::job::JobSpans;
use crate::traces::run::RunSpans;

/// What was seen of jobs, and where it is counted.
#[derive(Debug)]
pub(super) struct Witness {
    metrics: Metrics,
    traces: Traces,
    ordered: BTreeMap<JobId, Ordered>,
    worked_on: BTreeMap<RunId, WorkedOn>,
}

/// A job of this peer.
#[derive(Debug)]
struct Ordered {
    since: Instant,
    /// Since when it seeks a provider.
    seeks: Instant,
    started: bool,
    /// Whether there was a token.
    answers: bool,
    spans: JobSpans,
}

/// An agent at work.
#[derive(Debug)]
struct WorkedOn {
    since: Instant,
    begun: Beginning,
    tokens: u64,
    spans: RunSpans,
}

impl WorkedOn {
    /// How long it waited for its turn.
    fn queue(&self) -> Duration {
        self.begun.at().map(|at| at.duration_since(self.since)).unwrap_or_default()
    }
}

impl Witness {
    pub(super) fn new(metrics: Metrics, traces: Traces) -> Self {
        Self { metrics, traces, ordered: BTreeMap::new(), worked_on: BTreeMap::new() }
    }

    /// Something came from the network.
    pub(super) fn heard(&self, event: &NetEvent) {
        self.metrics.network.heard(event);
    }

    /// A broadcast was judged. What is not rejected is an announcement.
    pub(super) fn judged(&self, verdict: Verdict) {
        self.metrics.network.judged(verdict);
        if verdict != Verdict::Reject {
            self.metrics.market.announced("received");
        }
    }

    /// A peer asks.
    pub(super) fn is_asked(&self, request: &Request) {
        self.metrics.network.is_asked(request);
        self.metrics.market.is_asked(request);
    }

    /// A frame goes out.
    pub(super) fn sends(&self, bytes: usize) {
        self.metrics.network.sent(bytes);
    }

    /// A receipt was to be kept.
    pub(super) fn receipt(&self, kept: bool) {
        self.metrics.jobs.receipt(kept);
    }

    /// The driver is about to do something.
    pub(super) fn does(&mut self, output: &Output) {
        match output {
            Output::Abort { run } => self.run_over(*run, "aborted"),
            Output::Announce { .. } => {
                self.metrics.market.announced("sent");
                self.metrics.network.published();
            }
            Output::Block { .. } => self.metrics.network.blocked(),
            Output::HangUp { .. } => self.metrics.network.hung_up(),
            Output::Notify { job, event } => self.told(*job, event),
            Output::Record(_) => self.metrics.jobs.booked(),
            Output::Request { request, .. } => {
                self.metrics.network.asks(request);
                self.metrics.market.asks(request);
            }
            Output::Respond { response, .. } => self.metrics.market.answers(response),
            Output::Discover { .. } | Output::Frame { .. } | Output::Provide { .. } | Output::Run(_) => {}
        }
    }

    /// A job of this peer begins. Whoever works on it is told of its span; of a sub-job without one, of its parent's.
    pub(super) fn submitted(&mut self, submission: &mut Submission) {
        self.metrics.jobs.submitted(submission.spec.kind);
        let run = submission.run.and_then(|run| self.worked_on.get(&run));
        let spans = JobSpans::begin(&self.traces, submission, run.and_then(|run| run.spans.trace()));
        submission.trace = spans.trace();
        let since = Instant::now();
        let ordered = Ordered { since, seeks: since, started: false, answers: false, spans };
        self.ordered.insert(submission.job, ordered);
    }

    /// Somebody approved a job.
    pub(super) fn approved(&mut self, job: JobId) {
        if let Some(ordered) = self.ordered.get_mut(&job) {
            ordered.seeks = Instant::now();
        }
    }

    /// Its submitter is told something.
    fn told(&mut self, job: JobId, event: &JobEvent) {
        let Some(ordered) = self.ordered.get_mut(&job) else { return };
        ordered.spans.told(event);
        match event {
            JobEvent::Bid(..) => self.metrics.market.bid_received(),
            JobEvent::Started { tokens, .. } => {
                let first = !std::mem::replace(&mut ordered.started, true);
                self.metrics.market.awarded(first.then(|| ordered.seeks.elapsed()));
                if !first {
                    self.metrics.jobs.taken_over(*tokens);
                }
            }
            JobEvent::Token { .. } => {
                if !std::mem::replace(&mut ordered.answers, true) {
                    self.metrics.jobs.first_token(ordered.since.elapsed());
                }
            }
            JobEvent::Done(completion) => {
                self.metrics.jobs.done(ordered.since.elapsed(), completion);
                self.over(job, "done");
            }
            JobEvent::Failed(error) => {
                self.metrics.jobs.failed(error);
                self.over(job, error.code());
            }
            JobEvent::Awaiting(_) | JobEvent::Progress { .. } => {}
        }
    }

    fn over(&mut self, job: JobId, outcome: &'static str) {
        if let Some(Ordered { spans, since, .. }) = self.ordered.remove(&job) {
            let milliseconds = since.elapsed().as_millis();
            spans.log().in_scope(|| tracing::info!(%job, outcome, milliseconds, "a job is over"));
        }
    }

    /// An agent begins. It says itself when its work does; what lines of the log say of it.
    pub(super) fn runs(&mut self, run: &Run) -> (Beginning, tracing::Span) {
        self.metrics.jobs.run(run.order.kind);
        let begun = Beginning::default();
        let spans = RunSpans::begin(&self.traces, run);
        let log = spans.log();
        let seen = WorkedOn { since: Instant::now(), begun: begun.clone(), tokens: 0, spans };
        self.worked_on.insert(run.run, seen);
        (begun, log)
    }

    /// An agent got on.
    pub(super) fn produced(&mut self, run: RunId, production: &Production) {
        let Some(seen) = self.worked_on.get_mut(&run) else { return };
        match production {
            Production::Token { .. } => {
                if seen.tokens == 0 {
                    let queue = seen.queue();
                    seen.spans.first_token(queue);
                    self.metrics.jobs.run_first_token(queue, seen.since.elapsed());
                }
                seen.tokens += 1;
            }
            Production::Prompt(rendering) => {
                seen.spans.read(rendering.tokens);
                self.metrics.jobs.run_read(rendering.tokens);
            }
            Production::Finished(_) => self.run_over(run, "done"),
            Production::Failed(error) => self.run_failed(run, error),
            Production::Progress { .. } => {}
        }
    }

    /// An agent could not begin, or failed.
    pub(super) fn run_failed(&mut self, run: RunId, error: &JobError) {
        self.run_over(run, error.code());
    }

    fn run_over(&mut self, run: RunId, outcome: &'static str) {
        if let Some(seen) = self.worked_on.remove(&run) {
            self.metrics.jobs.run_over(outcome, seen.since.elapsed(), seen.tokens);
            let queue = seen.queue();
            seen.spans.over(outcome, seen.tokens, queue);
        }
    }
}
