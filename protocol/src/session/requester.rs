//! The requester's side of a session: trust nothing, keep everything that proves it, and lose nothing with a provider.
//!
//! Each token frame carries its index and the running commitment; both are recomputed here, so a frame that was
//! skipped, repeated or changed is caught at that very token and none of it reaches the user. What the provider must have
//! signed in the end is known from the order and the transcript, so a receipt is either exactly right or evidence.
//!
//! A provider that is lost, silent (`rhythm`) or wrong ends its session, not the answer: what is known
//! of it waits here until the market has found a successor, which goes on with the next token. Each job has at most
//! [`MAX_TAKEOVERS`] of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crypto::{Network, PeerId, SecretKey, Signed, Verified};

use super::answer::Answer;
use super::rhythm::{Rhythm, Silence};
use crate::event::{Completion, JobEvent};
use crate::job::Salt;
use crate::message::{Brief, Frame, Start};
use crate::receipt::{
    Acknowledgement, Continuation, Inherited, Opening, Order, Receipt, Rendering, SEGMENT, Segment,
};
use crate::{Evidence, JobError, JobId, JobSpec, Timestamp, Trace};

/// What the sessions want done.
#[derive(Clone, Debug)]
pub enum Output {
    /// The provider failed, and nothing is lost: another one may try.
    Broken {
        /// The job.
        job: JobId,
        /// Why.
        error: JobError,
        /// Some of the answer is there: only who has the very same model and engine can go on with it.
        answered: bool,
    },
    /// The receipt is right: book it, then tell the provider and the user.
    Delivered {
        /// The job.
        job: JobId,
        /// By whom.
        provider: PeerId,
        /// Everything that proves it.
        completion: Box<Completion>,
    },
    /// The job failed for good.
    Failed {
        /// The job.
        job: JobId,
        /// Why.
        error: JobError,
    },
    /// A provider does not answer any more: whatever leads to it is of no use.
    HangUp {
        /// Who.
        peer: PeerId,
    },
    /// Tell the user.
    Notify {
        /// The job.
        job: JobId,
        /// What.
        event: JobEvent,
    },
    /// A peer did something worth remembering.
    Observe {
        /// Who.
        peer: PeerId,
        /// What.
        evidence: Evidence,
    },
    /// Send to the provider.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        frame: Frame,
    },
}

/// How patient we are.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The longest silence, in milliseconds. A provider that does not answer when it is asked is given up much sooner.
    pub patience: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { patience: 30_000 }
    }
}

/// Successors that one job may have. Each costs a prefill, and a job that kills its providers must not visit all of them.
pub const MAX_TAKEOVERS: u32 = 8;

/// How often an answer went on with another provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takeovers {
    /// In all.
    pub total: u64,
    /// Of providers that had only been slow: a token of theirs came later.
    pub hasty: u64,
}

/// All jobs that others do for us.
#[derive(Debug)]
pub struct Requester {
    config: Config,
    network: Network,
    key: SecretKey,
    /// Boxed, because a map moves what it holds.
    sessions: BTreeMap<JobId, Box<Session>>,
    /// Answers that wait for a successor of their provider.
    interrupted: BTreeMap<JobId, Story>,
    takeovers: Takeovers,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Session {
    provider: PeerId,
    order: Verified<Order>,
    spec: Arc<JobSpec>,
    salt: Salt,
    story: Story,
    rhythm: Rhythm,
}

/// What a job has been through: more than one session may share it.
#[derive(Debug)]
struct Story {
    answer: Answer,
    takeovers: u32,
    /// Who was given up for silence, and has not been heard since.
    silent: Vec<PeerId>,
    /// How many of them spoke again.
    hasty: u32,
}

/// A wrong frame: what the provider did, which also decides what becomes of the job.
struct Fault(Evidence);

impl From<Evidence> for Fault {
    fn from(evidence: Evidence) -> Self {
        Self(evidence)
    }
}

impl Requester {
    /// No sessions yet; orders and countersignatures are signed with `key`.
    pub fn new(config: Config, network: Network, key: SecretKey) -> Self {
        Self {
            config,
            network,
            key,
            sessions: BTreeMap::new(),
            interrupted: BTreeMap::new(),
            takeovers: Takeovers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// How often an answer went on with another provider.
    pub fn takeovers(&self) -> Takeovers {
        self.takeovers
    }

    /// What a successor is to go on with, if the job's answer was interrupted.
    pub fn continuation(&self, job: JobId) -> Option<Continuation> {
        self.interrupted.get(&job).and_then(|story| story.answer.continuation())
    }

    /// Orders a job from a provider, which alone is shown the input of its description, its salt, the constraint, and
    /// what others have answered already.
    pub fn open(
        &mut self,
        now: Timestamp,
        order: Order,
        (spec, salt): (Arc<JobSpec>, Salt),
        trace: Option<Trace>,
    ) {
        let (job, provider) = (order.job, order.provider);
        let story = match self.interrupted.remove(&job).filter(|_| order.continues.is_some()) {
            Some(story) => Story { takeovers: story.takeovers + 1, ..story },
            None => Story { answer: Answer::new(&order), takeovers: 0, silent: Vec::new(), hasty: 0 },
        };
        self.takeovers.total += u64::from(order.continues.is_some());
        let inherited = order.continues.map_or_else(Inherited::default, |_| story.answer.inherited());
        let order = Signed::sign(&self.network, &self.key, order);
        let (input, constraint) = (spec.input.clone(), spec.constraint.clone());
        let brief = Brief { input, salt, constraint, inherited };
        let start = Start { order: order.signed().clone(), brief, trace };
        // The first question only measures how long an answer takes.
        let mut rhythm = Rhythm::new(now, self.config.patience, story.hasty);
        rhythm.probe(now);
        let session = Session { provider, order, spec, salt, story, rhythm };
        self.sessions.insert(job, Box::new(session));
        self.outputs.push_back(Output::Send { to: provider, frame: Frame::Start(Box::new(start)) });
        self.outputs.push_back(Output::Send { to: provider, frame: Frame::Probe { job } });
    }

    /// A frame from a provider.
    pub fn on_frame(&mut self, now: Timestamp, from: PeerId, frame: Frame) {
        let Some(session) = frame.job().and_then(|job| self.sessions.get_mut(&job)) else { return };
        // Frames of jobs that were cancelled or given up are still under way for a while; that is no fault.
        if session.provider != from {
            let hasty = session.story.hears_again(from, &frame);
            self.takeovers.hasty += u64::from(hasty);
            return;
        }
        session.rhythm.heard(now, matches!(frame, Frame::Token { .. }));
        let job = session.order.job;
        let outcome = match frame {
            // Only a sign of life, from an agent that waits for its turn or knows no prompt.
            Frame::Progress { of: 0, .. } => Ok(()),
            Frame::Progress { done, of, .. } => {
                self.outputs.push_back(Output::Notify { job, event: JobEvent::Progress { done, of } });
                Ok(())
            }
            Frame::Prompt { rendering, .. } => session.accept_rendering(rendering),
            Frame::Token { index, token, commitment, logprobs, .. } => {
                let (order, answer) = (&session.order, &mut session.story.answer);
                let accepted = answer.accept(order, (index, commitment), &token, logprobs.as_ref());
                accepted.map_err(Fault).map(|()| {
                    let event = JobEvent::Token { index, token, logprobs };
                    self.outputs.push_back(Output::Notify { job, event });
                })
            }
            Frame::Segment { segment, .. } => session.accept_segment(&self.network, segment),
            Frame::Finish { receipt, .. } => self.on_receipt(job, receipt),
            Frame::Fail { error, .. } => {
                self.on_failure(job, error);
                Ok(())
            }
            Frame::Start(_) | Frame::Cancel { .. } | Frame::Acknowledge { .. } | Frame::Probe { .. } => {
                Err(Fault(Evidence::Unexpected))
            }
        };
        if let Err(Fault(evidence)) = outcome {
            self.give_up(job, evidence, JobError::Misbehaved { evidence });
        }
    }

    /// The stream to a provider broke: all its sessions are over.
    pub fn on_lost(&mut self, peer: PeerId) {
        let jobs: Vec<_> =
            self.sessions.iter().filter(|(_, s)| s.provider == peer).map(|(job, _)| *job).collect();
        for job in jobs {
            self.give_up(job, Evidence::Vanished, JobError::ProviderLost);
        }
    }

    /// The user has had enough, or nobody was found who goes on.
    pub fn cancel(&mut self, job: JobId) {
        self.interrupted.remove(&job);
        if let Some(session) = self.sessions.remove(&job) {
            self.outputs.push_back(Output::Send { to: session.provider, frame: Frame::Cancel { job } });
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let due: Vec<_> = self.sessions.iter().filter(|(_, s)| s.due() <= now).map(|(job, _)| *job).collect();
        for job in due {
            let Some(session) = self.sessions.get_mut(&job) else { continue };
            match session.rhythm.silence(now) {
                _ if session.order.limits.deadline <= now => {
                    self.give_up(job, Evidence::Stalled, JobError::DeadlineExceeded);
                }
                Silence::Bearable => {}
                Silence::Suspicious => {
                    session.rhythm.probe(now);
                    let to = session.provider;
                    self.outputs.push_back(Output::Send { to, frame: Frame::Probe { job } });
                }
                silence @ (Silence::Dead | Silence::Stalled) => {
                    let peer = session.provider;
                    session.story.silent.push(peer);
                    self.give_up(job, Evidence::Stalled, JobError::ProviderLost);
                    // After the cancel, which may yet reach one that was only slow.
                    self.outputs.extend((silence == Silence::Dead).then_some(Output::HangUp { peer }));
                }
            }
        }
    }

    /// When [`Requester::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.sessions.values().map(|session| session.due()).min()
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn on_receipt(&mut self, job: JobId, receipt: Signed<Receipt>) -> Result<(), Fault> {
        let Some(session) = self.sessions.get(&job) else { return Ok(()) };
        let receipt = session.check_receipt(&self.network, receipt)?;
        let Some(session) = self.sessions.remove(&job) else { return Ok(()) };
        let acknowledgement = Acknowledgement { receipt: receipt.digest() };
        let acknowledgement = Signed::sign(&self.network, &self.key, acknowledgement).into_signed();
        let Session { spec, salt, story, provider, .. } = *session;
        let (input, constraint) = (spec.input.clone(), spec.constraint.clone());
        let Answer { output, activations, .. } = story.answer;
        let opening = Opening { input, salt, output, activations, constraint };
        let completion = Box::new(Completion { receipt, acknowledgement, opening });
        self.outputs.push_back(Output::Delivered { job, provider, completion });
        Ok(())
    }

    /// The provider itself says that it will not deliver.
    fn on_failure(&mut self, job: JobId, error: JobError) {
        let Some(session) = self.sessions.remove(&job) else { return };
        if matches!(error, JobError::Busy { .. } | JobError::Order { .. }) {
            let evidence = Evidence::BrokenLease;
            self.outputs.push_back(Output::Observe { peer: session.provider, evidence });
        }
        self.end(*session, error);
    }

    /// We say that the provider will not deliver.
    fn give_up(&mut self, job: JobId, evidence: Evidence, error: JobError) {
        let Some(session) = self.sessions.remove(&job) else { return };
        let to = session.provider;
        self.outputs.push_back(Output::Observe { peer: to, evidence });
        if evidence != Evidence::Vanished {
            self.outputs.push_back(Output::Send { to, frame: Frame::Cancel { job } });
        }
        self.end(*session, error);
    }

    /// One provider's refusal is not the mesh's: another one may try, whatever it was (a context too small, an input that
    /// this agent does not take), and go on where the answer stops, if anybody can. Only the job's own end is the end.
    fn end(&mut self, session: Session, error: JobError) {
        let Session { order, story, .. } = session;
        let (job, answered) = (order.job, !story.answer.output.is_empty());
        let over = matches!(error, JobError::Cancelled | JobError::DeadlineExceeded);
        let able = order.kind.has_ids(order.model)
            && story.takeovers < MAX_TAKEOVERS
            && story.answer.continuation().is_some();
        if over || answered && !able {
            return self.outputs.push_back(Output::Failed { job, error });
        }
        if answered {
            self.interrupted.insert(job, story);
        }
        self.outputs.push_back(Output::Broken { job, error, answered });
    }
}

impl Story {
    /// A frame of a provider that was given up; true when it had only been slow.
    fn hears_again(&mut self, from: PeerId, frame: &Frame) -> bool {
        let slow = matches!(frame, Frame::Token { .. }).then(|| self.silent.iter().position(|p| *p == from));
        let Some(at) = slow.flatten() else { return false };
        self.silent.swap_remove(at);
        self.hasty += 1;
        true
    }
}

impl Session {
    /// How the input was read is said once, before the first token; a successor reads it as its predecessor did.
    fn accept_rendering(&mut self, rendering: Rendering) -> Result<(), Fault> {
        let answer = &mut self.story.answer;
        let first = answer.rendering.is_none() && answer.output.is_empty();
        if first || self.order.continues.is_some_and(|continues| continues.rendering == rendering) {
            answer.rendering = Some(rendering);
            return Ok(());
        }
        Err(Fault(Evidence::Unexpected))
    }

    fn accept_segment(&mut self, network: &Network, segment: Signed<Segment>) -> Result<(), Fault> {
        if segment.signer() != self.provider {
            return Err(Fault(Evidence::BadSignature));
        }
        let order = self.order.digest();
        Ok(self.story.answer.sign((network, self.order.value()), segment, |answers| answers == order)?)
    }

    fn check_receipt(&self, network: &Network, receipt: Signed<Receipt>) -> Result<Verified<Receipt>, Fault> {
        let receipt = receipt.verify(network).map_err(|_| Fault(Evidence::BadSignature))?;
        let answer = &self.story.answer;
        let told = answer.rendering;
        let read = |told: Rendering| (Some(told.prompt), told.tokens, told.template_time);
        let reads = (receipt.prompt, receipt.prompt_tokens(), receipt.template_time);
        let right = receipt.signer() == self.provider
            && receipt.network == *network
            && receipt.requester == self.order.signer()
            && receipt.check_order(self.order.digest(), &self.order).is_ok()
            && receipt.check_output(&answer.transcript).is_ok()
            && told.is_none_or(|told| read(told) == reads)
            && receipt.segments == answer.stretches
            && answer.stretches.len() as u64 == answer.transcript.len() / SEGMENT;
        if right { Ok(receipt) } else { Err(Fault(Evidence::BadReceipt)) }
    }

    fn due(&self) -> Timestamp {
        self.rhythm.due().min(self.order.limits.deadline)
    }
}
