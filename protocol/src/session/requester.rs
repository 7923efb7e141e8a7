//! The requester's side of a session: trust nothing, keep everything that proves it.
//!
//! Each token frame carries its index and the running commitment; both are recomputed here, so a frame that was
//! skipped, repeated or changed is caught at that very token and none of it reaches the user. A provider that falls
//! silent is given up after [`Config::patience`]. What the provider must have signed in the end is known from the
//! order and the transcript, so a receipt is either exactly right or evidence.

use std::collections::{BTreeMap, VecDeque};

use crypto::{Digest, Network, PeerId, SecretKey, Signed, Transcript, Verified};

use crate::event::{Completion, JobEvent};
use crate::job::Salt;
use crate::message::{Frame, Start};
use crate::receipt::{Acknowledgement, Opening, Order, Receipt, SEGMENT, Segment, SignedStretch, Token};
use crate::{Constraint, Evidence, Input, JobError, JobId, Logprobs, Timestamp};

/// What the sessions want done.
#[derive(Clone, Debug)]
pub enum Output {
    /// The provider failed before the first token: nothing is lost, another one may try.
    Broken {
        /// The job.
        job: JobId,
        /// Why.
        error: JobError,
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
    /// Silence after which a provider is given up, in milliseconds. Providers say `Progress` while they read a
    /// prompt, so this has to cover one prefill chunk or a wait in the queue, not a whole prompt.
    pub patience: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { patience: 30_000 }
    }
}

/// All jobs that others do for us.
#[derive(Debug)]
pub struct Requester {
    config: Config,
    network: Network,
    key: SecretKey,
    sessions: BTreeMap<JobId, Session>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Session {
    provider: PeerId,
    order: Verified<Order>,
    input: Input,
    salt: Salt,
    constraint: Option<Constraint>,
    transcript: Transcript,
    output: Vec<Token>,
    /// Bytes of text in it.
    text_len: usize,
    segments: Vec<SignedStretch>,
    /// What was committed to with the full ones.
    activations: Vec<Digest>,
    heard: Timestamp,
}

/// A wrong frame: what the provider did, which also decides what becomes of the job.
struct Fault(Evidence);

impl Requester {
    /// No sessions yet; orders and countersignatures are signed with `key`.
    pub fn new(config: Config, network: Network, key: SecretKey) -> Self {
        Self { config, network, key, sessions: BTreeMap::new(), outputs: VecDeque::new() }
    }

    /// Orders a job from a provider, which alone is shown the input, its salt and the constraint.
    pub fn open(
        &mut self,
        now: Timestamp,
        order: Order,
        (input, salt, constraint): (Input, Salt, Option<Constraint>),
    ) {
        let (job, provider, transcript) = (order.job, order.provider, order.transcript());
        let order = Signed::sign(&self.network, &self.key, order);
        let signed = order.signed().clone();
        let start = Start { order: signed, input: input.clone(), salt, constraint: constraint.clone() };
        let session = Session {
            provider,
            order,
            input,
            salt,
            constraint,
            transcript,
            output: Vec::new(),
            text_len: 0,
            segments: Vec::new(),
            activations: Vec::new(),
            heard: now,
        };
        self.sessions.insert(job, session);
        self.outputs.push_back(Output::Send { to: provider, frame: Frame::Start(start) });
    }

    /// A frame from a provider.
    pub fn on_frame(&mut self, now: Timestamp, from: PeerId, frame: Frame) {
        let session = frame.job().and_then(|job| self.sessions.get_mut(&job));
        // Frames of jobs that were cancelled or given up are still under way for a while; that is no fault.
        let Some(session) = session.filter(|session| session.provider == from) else { return };
        session.heard = now;
        let job = session.order.job;
        let outcome = match frame {
            // Only a sign of life, from an agent that waits for its turn or knows no prompt.
            Frame::Progress { of: 0, .. } => Ok(()),
            Frame::Progress { done, of, .. } => {
                self.outputs.push_back(Output::Notify { job, event: JobEvent::Progress { done, of } });
                Ok(())
            }
            Frame::Token { index, token, commitment, logprobs, .. } => {
                session.accept(index, &token, commitment, logprobs.as_ref()).map(|()| {
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
            Frame::Start(_) | Frame::Cancel { .. } | Frame::Acknowledge { .. } => {
                Err(Fault(Evidence::Unexpected))
            }
        };
        if let Err(Fault(evidence)) = outcome {
            self.give_up(job, evidence, JobError::Misbehaved { evidence });
        }
    }

    /// The stream to a provider broke: all its jobs are lost.
    pub fn on_lost(&mut self, peer: PeerId) {
        let jobs: Vec<_> =
            self.sessions.iter().filter(|(_, s)| s.provider == peer).map(|(job, _)| *job).collect();
        for job in jobs {
            self.give_up(job, Evidence::Vanished, JobError::ProviderLost);
        }
    }

    /// The user has had enough.
    pub fn cancel(&mut self, job: JobId) {
        if let Some(session) = self.sessions.remove(&job) {
            self.outputs.push_back(Output::Send { to: session.provider, frame: Frame::Cancel { job } });
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let patience = self.config.patience;
        let jobs: Vec<_> =
            self.sessions.iter().filter(|(_, s)| s.due(patience) <= now).map(|(job, _)| *job).collect();
        for job in jobs {
            let late = self.sessions.get(&job).is_some_and(|s| s.order.limits.deadline <= now);
            let error = if late { JobError::DeadlineExceeded } else { JobError::ProviderLost };
            self.give_up(job, Evidence::Stalled, error);
        }
    }

    /// When [`Requester::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.sessions.values().map(|session| session.due(self.config.patience)).min()
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
        let Session { input, salt, constraint, output, activations, .. } = session;
        let opening = Opening { input, salt, output, activations, constraint };
        let completion = Box::new(Completion { receipt, acknowledgement, opening });
        self.outputs.push_back(Output::Delivered { job, provider: session.provider, completion });
        Ok(())
    }

    /// The provider itself says that it will not deliver.
    fn on_failure(&mut self, job: JobId, error: JobError) {
        let Some(session) = self.sessions.remove(&job) else { return };
        if matches!(error, JobError::Busy { .. } | JobError::Order { .. }) {
            let evidence = Evidence::BrokenLease;
            self.outputs.push_back(Output::Observe { peer: session.provider, evidence });
        }
        self.end(job, session.output.is_empty(), error);
    }

    /// We say that the provider will not deliver.
    fn give_up(&mut self, job: JobId, evidence: Evidence, error: JobError) {
        let Some(session) = self.sessions.remove(&job) else { return };
        let to = session.provider;
        self.outputs.push_back(Output::Observe { peer: to, evidence });
        if evidence != Evidence::Vanished {
            self.outputs.push_back(Output::Send { to, frame: Frame::Cancel { job } });
        }
        self.end(job, session.output.is_empty(), error);
    }

    /// One provider's refusal is not the mesh's: before the first token another one may try, whatever it was (a context
    /// too small, an input that this agent does not take). Only the job's own end is the end.
    fn end(&mut self, job: JobId, nothing_seen: bool, error: JobError) {
        let over = matches!(error, JobError::Cancelled | JobError::DeadlineExceeded);
        self.outputs.push_back(match nothing_seen && !over {
            true => Output::Broken { job, error },
            false => Output::Failed { job, error },
        });
    }
}

impl Session {
    fn accept(
        &mut self,
        index: u64,
        token: &Token,
        commitment: crypto::Commitment,
        logprobs: Option<&Logprobs>,
    ) -> Result<(), Fault> {
        if index != self.transcript.len() || index > u64::from(self.order.sampling.max_tokens) {
            return Err(Fault(Evidence::SkippedIndex));
        }
        if self.transcript.push(token.id, &token.text) != commitment {
            return Err(Fault(Evidence::BadCommitment));
        }
        let follows = token.may_follow(&self.output, self.order.kind.has_ids(self.order.model));
        if !follows || !Logprobs::may_come(logprobs, token, &self.order.sampling) {
            return Err(Fault(Evidence::Unexpected));
        }
        self.text_len += token.text.len();
        if self.text_len > Token::MAX_ANSWER {
            return Err(Fault(Evidence::OverCap));
        }
        self.output.push(token.clone());
        Ok(())
    }

    /// Takes the word for the tokens since the last one. There is one after every 32nd token, and no other.
    fn accept_segment(&mut self, network: &Network, segment: Signed<Segment>) -> Result<(), Fault> {
        let segment = segment.verify(network).map_err(|_| Fault(Evidence::BadSignature))?;
        if segment.signer() != self.provider {
            return Err(Fault(Evidence::BadSignature));
        }
        let ours = (self.order.job, self.order.digest(), self.transcript.len(), self.transcript.commitment());
        let theirs = (segment.job, segment.order, segment.end, segment.commitment);
        if ours != theirs || segment.end != (self.segments.len() as u64 + 1) * SEGMENT {
            return Err(Fault(Evidence::BadCommitment));
        }
        let before = (self.activations.len(), self.segments.len());
        if !self.output.last().is_some_and(|last| Segment::may_commit(segment.activations, last, before)) {
            return Err(Fault(Evidence::BadCommitment));
        }
        self.activations.extend(segment.activations);
        let stretch = SignedStretch { provider: self.provider, end: segment.end, segment: segment.digest() };
        self.segments.push(stretch);
        Ok(())
    }

    fn check_receipt(&self, network: &Network, receipt: Signed<Receipt>) -> Result<Verified<Receipt>, Fault> {
        let receipt = receipt.verify(network).map_err(|_| Fault(Evidence::BadSignature))?;
        let digest: Digest = self.order.digest();
        let right = receipt.signer() == self.provider
            && receipt.network == *network
            && receipt.requester == self.order.signer()
            && receipt.check_order(digest, &self.order).is_ok()
            && receipt.check_output(&self.transcript).is_ok()
            && receipt.segments == self.segments
            && self.segments.len() as u64 == self.transcript.len() / SEGMENT;
        if right { Ok(receipt) } else { Err(Fault(Evidence::BadReceipt)) }
    }

    fn due(&self, patience: u64) -> Timestamp {
        self.heard.after(patience).min(self.order.limits.deadline)
    }
}
