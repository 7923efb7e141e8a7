//! The jobs of this peer as people see them: what it ordered, what it does for others, whose parts they are, what they cost.
//!
//! A view that decides nothing. It is fed by the driver and bounded: what runs is bounded by the protocol, and of what is
//! over the latest are kept.

use std::collections::{BTreeMap, VecDeque};

use crypto::PeerId;
use protocol::approval::Rule;
use protocol::event::{JobEvent, Run, RunId};
use protocol::{Capability, Credits, JobId, JobSpec, Order, Timestamp};
use serde::{Deserialize, Serialize};

/// Jobs kept after their end.
const MAX_ENDED: usize = 256;

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Its name.
    pub job: JobId,
    /// The job that it is a part of.
    pub parent: Option<JobId>,
    /// Who wants it.
    pub requester: PeerId,
    /// Who does it; nobody yet where there is none.
    pub provider: Option<PeerId>,
    /// What is wanted.
    pub capability: Capability,
    /// Where it stands.
    pub state: State,
    /// Tokens of its answer so far.
    pub tokens: u64,
    /// How often another provider took over.
    pub takeovers: u32,
    /// What it may cost with all its parts.
    pub budget: Credits,
    /// What it has cost; known at the end.
    pub cost: Credits,
    /// When it came here.
    pub since: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for somebody to approve it, because this rule names it.
    Awaiting(Rule),
    /// Somebody works on it.
    Running,
    /// It looks for a provider.
    Seeking,
    /// It is done.
    Done,
    /// It was not done; why, as the code of an error.
    Failed(String),
    /// This peer does not work on it any more.
    Over,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    ordered: BTreeMap<JobId, JobView>,
    worked_on: BTreeMap<RunId, JobView>,
    ended: VecDeque<JobView>,
}

impl Jobs {
    /// A job of ours begins.
    pub(crate) fn on_submitted(&mut self, now: Timestamp, me: PeerId, job: JobId, spec: &JobSpec) {
        let view = JobView {
            job,
            parent: spec.parent,
            requester: me,
            provider: None,
            capability: spec.requirement.capability.clone(),
            state: State::Seeking,
            tokens: 0,
            takeovers: 0,
            budget: spec.limits.budget,
            cost: Credits::ZERO,
            since: now,
            ended: None,
        };
        self.ordered.insert(job, view);
    }

    /// Its submitter is told something.
    pub(crate) fn on_event(&mut self, now: Timestamp, job: JobId, event: &JobEvent) {
        let Some(view) = self.ordered.get_mut(&job) else { return };
        match event {
            JobEvent::Awaiting(rule) => view.state = State::Awaiting(rule.clone()),
            JobEvent::Started { provider, .. } => {
                view.takeovers += u32::from(view.provider.is_some());
                (view.provider, view.state) = (Some(*provider), State::Running);
            }
            JobEvent::Token { index, .. } => view.tokens = index + 1,
            JobEvent::Done(completion) => {
                view.cost = completion.receipt.cost;
                self.end(now, job, State::Done);
            }
            JobEvent::Failed(error) => self.end(now, job, State::Failed(error.code().to_owned())),
            JobEvent::Bid(..) | JobEvent::Progress { .. } => {}
        }
    }

    /// Somebody approved a job.
    pub(crate) fn on_approved(&mut self, job: JobId) {
        let held = |view: &&mut JobView| matches!(view.state, State::Awaiting(_));
        if let Some(view) = self.ordered.get_mut(&job).filter(held) {
            view.state = State::Seeking;
        }
    }

    /// An agent of ours begins. What we do for ourselves is in the list already.
    pub(crate) fn on_run(&mut self, now: Timestamp, me: PeerId, run: &Run) {
        let (requester, order): (_, &Order) = (run.order.signer(), run.order.value());
        if requester == me {
            return;
        }
        let view = JobView {
            job: order.job,
            parent: order.parent,
            requester,
            provider: Some(me),
            capability: order.capability.clone(),
            state: State::Running,
            tokens: order.inherited(),
            takeovers: 0,
            budget: order.limits.budget,
            cost: Credits::ZERO,
            since: now,
            ended: None,
        };
        self.worked_on.insert(run.run, view);
    }

    /// An agent of ours has produced a token.
    pub(crate) fn on_token(&mut self, run: RunId) {
        if let Some(view) = self.worked_on.get_mut(&run) {
            view.tokens += 1;
        }
    }

    /// An agent of ours is over.
    pub(crate) fn on_run_over(&mut self, now: Timestamp, run: RunId) {
        if let Some(view) = self.worked_on.remove(&run) {
            self.keep(JobView { state: State::Over, ended: Some(now), ..view });
        }
    }

    /// Those that run, and then the latest that are over.
    pub(crate) fn views(&self) -> Vec<JobView> {
        let running = self.ordered.values().chain(self.worked_on.values());
        running.chain(self.ended.iter().rev()).cloned().collect()
    }

    /// How many of this peer's jobs are not over, by where they stand.
    pub(crate) fn open(&self) -> [(&'static str, usize); 3] {
        let mut counts = [("awaiting", 0), ("seeking", 0), ("running", 0)];
        for view in self.ordered.values() {
            let at = match view.state {
                State::Awaiting(_) => 0,
                State::Running => 2,
                _ => 1,
            };
            counts[at].1 += 1;
        }
        counts
    }

    fn end(&mut self, now: Timestamp, job: JobId, state: State) {
        if let Some(view) = self.ordered.remove(&job) {
            self.keep(JobView { state, ended: Some(now), ..view });
        }
    }

    fn keep(&mut self, view: JobView) {
        if self.ended.len() >= MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(view);
    }
}

#[cfg(test)]
mod tests {
    use protocol::JobError;

    use super::*;
    use crate::request::JobRequest;

    fn peer(seed: u8) -> PeerId {
        crypto::SecretKey::from_seed(&[seed; 32]).peer_id()
    }

    fn submitted(jobs: &mut Jobs, number: u8) -> JobId {
        let request = JobRequest { prompt: Some("x".to_owned()), ..JobRequest::default() };
        let (job, spec) = (JobId([number; 16]), request.spec(Timestamp(0), None).unwrap());
        jobs.on_submitted(Timestamp(0), peer(1), job, &spec);
        job
    }

    #[test]
    fn a_job_is_followed_to_its_end() {
        let mut jobs = Jobs::default();
        let job = submitted(&mut jobs, 1);
        assert_eq!(jobs.views()[0].state, State::Seeking);
        let token = protocol::Token { id: None, text: "x".to_owned() };
        jobs.on_event(Timestamp(1), job, &JobEvent::Token { index: 4, token, logprobs: None });
        assert_eq!(jobs.views()[0].tokens, 5);
        jobs.on_event(Timestamp(2), job, &JobEvent::Failed(JobError::Cancelled));
        let view = &jobs.views()[0];
        assert_eq!((&view.state, view.ended), (&State::Failed("cancelled".to_owned()), Some(Timestamp(2))));
        jobs.on_event(Timestamp(3), job, &JobEvent::Failed(JobError::Engine));
        assert_eq!(jobs.views().len(), 1, "what is over changes no more");
    }

    #[test]
    fn what_is_over_is_forgotten_some_day() {
        let mut jobs = Jobs::default();
        for number in 0..=MAX_ENDED {
            let job = submitted(&mut jobs, number as u8);
            jobs.on_event(Timestamp(number as u64), job, &JobEvent::Failed(JobError::Engine));
        }
        assert_eq!(jobs.views().len(), MAX_ENDED);
        assert_eq!(jobs.views()[0].ended, Some(Timestamp(MAX_ENDED as u64)), "the latest first");
    }
}
