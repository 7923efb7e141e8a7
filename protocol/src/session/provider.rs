//! The provider's side of a session: check the order, run the agent, answer for every token.
//!
//! An order starts work only if it is signed by the peer that sent it, addressed to this one, fresh, never seen
//! before, backed by a lease, and if its input is the one it committed to. From then on each token extends the
//! transcript, every 32nd is signed for, and the receipt speaks for the whole. A run ends early when it is
//! cancelled, when its stream breaks or when its deadline passes; nothing is ever computed for nobody.

use std::collections::{BTreeMap, VecDeque};

use crypto::{Digest, Network, PeerId, SecretKey, Signed, Transcript, Verified};

use super::answer::Answer;
use crate::error::{Feature, Limit, OrderFault};
use crate::event::{Production, Run, RunId};
use crate::message::{Bid, Brief, Frame};
use crate::receipt::{
    self, Acknowledgement, Finish, Inherited, Order, Receipt, Rendering, Segment, SignedStretch, Token,
};
use crate::{Constraint, Credits, Evidence, JobError, JobId, Logprobs, Timestamp, Trace, Usage, codec};

/// What the sessions want done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Stop the agent.
    Abort {
        /// Which run.
        run: RunId,
    },
    /// The run is over; free its place.
    Close {
        /// Which run.
        run: RunId,
        /// For whom it was.
        requester: PeerId,
        /// Which job.
        job: JobId,
    },
    /// A peer did something worth remembering.
    Observe {
        /// Who.
        peer: PeerId,
        /// What.
        evidence: Evidence,
    },
    /// Start the agent.
    Run(Box<Run>),
    /// Send to the requester.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        frame: Frame,
    },
    /// The requester countersigned: book it.
    Settled {
        /// The receipt.
        receipt: Verified<Receipt>,
    },
}

/// Receipts waiting for their countersignature. A requester that never acknowledges costs one entry here and is
/// forgotten with the oldest; at 64 running jobs this is a few minutes of patience.
const MAX_UNACKNOWLEDGED: usize = 1024;

/// All jobs that we do for others.
#[derive(Debug)]
pub struct Provider {
    network: Network,
    key: SecretKey,
    /// Boxed, because a map moves what it holds.
    runs: BTreeMap<RunId, Box<Work>>,
    by_job: BTreeMap<(PeerId, JobId), RunId>,
    next: u64,
    unacknowledged: VecDeque<Verified<Receipt>>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Work {
    order: Verified<Order>,
    bid: Verified<Bid>,
    transcript: Transcript,
    segments: Vec<SignedStretch>,
    /// How many of them have activations.
    committed: usize,
    /// Whether none may have any, because whoever began the answer committed to nothing.
    silent: bool,
    prompt: Option<Rendering>,
    started: Timestamp,
    /// The last token of the answer so far, whoever gave it, and the bytes of text in all of it.
    last: Option<Token>,
    text_len: usize,
}

impl Provider {
    /// No work yet; segments and receipts are signed with `key`.
    pub fn new(network: Network, key: SecretKey) -> Self {
        Self {
            network,
            key,
            runs: BTreeMap::new(),
            by_job: BTreeMap::new(),
            next: 0,
            unacknowledged: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Lets an order in, or says why not. Freshness and addressee are checked here, the lease by the bidder, and what is
    /// inherited at the start: its signatures take a while, and nobody without a lease may ask for that.
    ///
    /// # Errors
    /// [`JobError::Order`], what [`crate::JobSpec::check`] would say of such a job, or [`JobError::Limit`].
    pub fn admit(
        &self,
        now: Timestamp,
        from: PeerId,
        order: &Verified<Order>,
        brief: &Brief,
    ) -> Result<(), JobError> {
        let Brief { input, salt, constraint, .. } = brief;
        let constraint = constraint.as_ref();
        let refuse = |why| Err(JobError::Order { why });
        if order.signer() != from || order.provider != self.key.peer_id() {
            return refuse(OrderFault::Signature);
        }
        if !order.is_fresh(now) {
            return refuse(OrderFault::Expired);
        }
        if self.by_job.contains_key(&(from, order.job)) {
            return refuse(OrderFault::Replayed);
        }
        let same = constraint.map(Constraint::digest) == order.constraint;
        if !same || input.commitment(salt) != order.input {
            return refuse(OrderFault::Commitment);
        }
        order.kind.check(input, constraint)?;
        input.check()?;
        order.limits.check()?;
        order.sampling.check()?;
        if order.continues.is_some() && !order.kind.has_ids(order.model) {
            return Err(JobError::Unsupported { feature: Feature::Continuation });
        }
        // A receipt over the budget would be a fault of ours, so the longest answer must fit before it is begun.
        if worst_cost(order, 0).is_none_or(|cost| cost > order.limits.budget) {
            return Err(JobError::Limit { limit: Limit::Budget });
        }
        Ok(())
    }

    /// Starts work on an order that was let in and whose lease was claimed. Returns the run's name.
    ///
    /// # Errors
    /// [`JobError::Order`]: what others answered already is not what the order says.
    pub fn start(
        &mut self,
        now: Timestamp,
        order: Verified<Order>,
        bid: Verified<Bid>,
        (brief, trace): (Brief, Option<Trace>),
    ) -> Result<RunId, JobError> {
        let Brief { input, constraint, inherited, .. } = brief;
        let answer = self.inherit(&order, &inherited)?;
        let silent = answer.activations.is_empty() && !answer.stretches.is_empty();
        let run = RunId(self.next);
        self.next += 1;
        self.by_job.insert((order.signer(), order.job), run);
        let work = Work {
            transcript: answer.transcript,
            order: order.clone(),
            bid,
            segments: answer.stretches,
            committed: answer.activations.len(),
            silent,
            prompt: None,
            started: now,
            last: answer.output.into_iter().next_back(),
            text_len: answer.text_len,
        };
        self.runs.insert(run, Box::new(work));
        let work = Run { run, order, input, constraint, inherited: inherited.output, trace };
        self.outputs.push_back(Output::Run(Box::new(work)));
        Ok(run)
    }

    fn inherit(&self, order: &Order, inherited: &Inherited) -> Result<Answer, JobError> {
        let fits = codec::encode(inherited).len() <= Inherited::MAX_LEN;
        let answer = fits.then(|| Answer::inherit(&self.network, order, inherited).ok()).flatten();
        answer.ok_or(JobError::Order { why: OrderFault::Commitment })
    }

    /// The agent got on.
    pub fn on_production(
        &mut self,
        now: Timestamp,
        run: RunId,
        production: Production,
        children: Vec<Digest>,
    ) {
        let Some(work) = self.runs.get_mut(&run) else { return };
        let (to, job) = (work.order.signer(), work.order.job);
        match production {
            Production::Failed(error) => self.fail(run, error),
            Production::Finished(finish) => self.finish(now, run, finish, children),
            Production::Progress { done, of } => {
                self.outputs.push_back(Output::Send { to, frame: Frame::Progress { job, done, of } });
            }
            Production::Prompt(rendering) => self.on_prompt(run, rendering),
            Production::Token { token, activations, logprobs } => {
                self.on_token(run, token, activations, logprobs);
            }
        }
    }

    fn on_prompt(&mut self, run: RunId, rendering: Rendering) {
        let Some(work) = self.runs.get_mut(&run) else { return };
        let (to, job) = (work.order.signer(), work.order.job);
        work.prompt = Some(rendering);
        let cost = worst_cost(&work.order, rendering.tokens);
        let refusal = if cost.is_none_or(|cost| cost > work.order.limits.budget) {
            JobError::Limit { limit: Limit::Budget }
        } else if work.order.continues.is_some_and(|continues| continues.rendering != rendering) {
            // An agent that reads the input otherwise (with a system prompt of its own) cannot go on with the answer.
            JobError::Unsupported { feature: Feature::Continuation }
        } else {
            return self.outputs.push_back(Output::Send { to, frame: Frame::Prompt { job, rendering } });
        };
        self.outputs.push_back(Output::Abort { run });
        self.fail(run, refusal);
    }

    /// The requester asks whether we are there. Whoever is asked for a job that it does not have, has lost it.
    pub fn on_probe(&mut self, from: PeerId, job: JobId) {
        let frame = match self.by_job.contains_key(&(from, job)) {
            true => Frame::Progress { job, done: 0, of: 0 },
            false => Frame::Fail { job, error: JobError::ProviderLost },
        };
        self.outputs.push_back(Output::Send { to: from, frame });
    }

    /// The requester took the job back.
    pub fn on_cancel(&mut self, from: PeerId, job: JobId) {
        if let Some(run) = self.by_job.get(&(from, job)).copied() {
            self.outputs.push_back(Output::Abort { run });
            self.close(run);
        }
    }

    /// The requester countersigned.
    pub fn on_acknowledgement(&mut self, from: PeerId, acknowledgement: Signed<Acknowledgement>) {
        let verified = acknowledgement.verify(&self.network).ok().filter(|a| a.signer() == from);
        let Some(acknowledgement) = verified else {
            return self.outputs.push_back(Output::Observe { peer: from, evidence: Evidence::BadSignature });
        };
        let ours = |r: &Verified<Receipt>| r.digest() == acknowledgement.receipt && r.requester == from;
        match self.unacknowledged.iter().position(ours).and_then(|i| self.unacknowledged.remove(i)) {
            Some(receipt) => self.outputs.push_back(Output::Settled { receipt }),
            None => self.outputs.push_back(Output::Observe { peer: from, evidence: Evidence::Replayed }),
        }
    }

    /// The stream to a requester broke: nobody is left to hear the answers.
    pub fn on_lost(&mut self, peer: PeerId) {
        let runs: Vec<_> =
            self.runs.iter().filter(|(_, w)| w.order.signer() == peer).map(|(run, _)| *run).collect();
        for run in runs {
            self.outputs.push_back(Output::Abort { run });
            self.close(run);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let late: Vec<_> =
            self.runs.iter().filter(|(_, w)| w.order.limits.deadline <= now).map(|(run, _)| *run).collect();
        for run in late {
            self.outputs.push_back(Output::Abort { run });
            self.fail(run, JobError::DeadlineExceeded);
        }
    }

    /// When [`Provider::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.runs.values().map(|work| work.order.limits.deadline).min()
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The job that a run works on.
    pub fn job_of(&self, run: RunId) -> Option<JobId> {
        self.runs.get(&run).map(|work| work.order.job)
    }

    fn on_token(
        &mut self,
        run: RunId,
        token: Token,
        activations: Option<Digest>,
        logprobs: Option<Logprobs>,
    ) {
        let Some(work) = self.runs.get_mut(&run) else { return };
        let (to, job, index) = (work.order.signer(), work.order.job, work.transcript.len());
        // One piece more than tokens: text that an engine held back for a stop that never came has no token of its own.
        work.text_len += token.text.len();
        let activations =
            activations.filter(|_| (index + 1).is_multiple_of(receipt::SEGMENT) && !work.silent);
        // What its requester would refuse is not sent.
        let fits = work.may_commit(index + 1, &token, activations)
            && index <= u64::from(work.order.sampling.max_tokens)
            && token.may_follow(work.last.as_slice(), work.order.kind.has_ids(work.order.model))
            && Logprobs::may_come(logprobs.as_ref(), &token, &work.order.sampling)
            && work.text_len <= Token::MAX_ANSWER;
        if !fits {
            self.outputs.push_back(Output::Abort { run });
            return self.fail(run, JobError::Engine);
        }
        let commitment = work.transcript.push(token.id, &token.text);
        work.last = Some(token.clone());
        let frame = Frame::Token { job, index, token, commitment, logprobs };
        self.outputs.push_back(Output::Send { to, frame });
        if work.transcript.len().is_multiple_of(receipt::SEGMENT) {
            let segment = work.sign_segment(&self.network, &self.key, activations);
            self.outputs.push_back(Output::Send { to, frame: Frame::Segment { job, segment } });
        }
    }

    fn finish(&mut self, now: Timestamp, run: RunId, finish: Finish, children: Vec<Digest>) {
        let Some(work) = self.runs.get(&run) else { return };
        let Some(receipt) = work.receipt(&self.network, now, finish, children) else {
            return self.fail(run, JobError::Engine);
        };
        let (to, job) = (work.order.signer(), work.order.job);
        let receipt = Signed::sign(&self.network, &self.key, receipt);
        let frame = Frame::Finish { job, receipt: receipt.signed().clone() };
        self.outputs.push_back(Output::Send { to, frame });
        if self.unacknowledged.len() >= MAX_UNACKNOWLEDGED {
            self.unacknowledged.pop_front();
        }
        self.unacknowledged.push_back(receipt);
        self.close(run);
    }

    fn fail(&mut self, run: RunId, error: JobError) {
        if let Some(work) = self.runs.get(&run) {
            let (to, job) = (work.order.signer(), work.order.job);
            self.outputs.push_back(Output::Send { to, frame: Frame::Fail { job, error } });
            self.close(run);
        }
    }

    fn close(&mut self, run: RunId) {
        let Some(work) = self.runs.remove(&run) else { return };
        let (requester, job) = (work.order.signer(), work.order.job);
        self.by_job.remove(&(requester, job));
        self.outputs.push_back(Output::Close { run, requester, job });
    }
}

/// What the longest answer (with the piece that may follow its last token) to a prompt of so many tokens costs; `None`
/// where that cannot be counted. What others have answered is read, not written.
pub(crate) fn worst_cost(order: &Order, prompt_tokens: u32) -> Option<Credits> {
    let inherited = u32::try_from(order.inherited()).ok()?;
    let completion_tokens = order.sampling.max_tokens.saturating_add(1).saturating_sub(inherited);
    let prompt_tokens = prompt_tokens.saturating_add(inherited);
    order.price.cost(Usage { prompt_tokens, completion_tokens })
}

impl Work {
    /// Whether the answer's `end`th token may come with these activations.
    fn may_commit(&self, end: u64, token: &Token, activations: Option<Digest>) -> bool {
        !end.is_multiple_of(receipt::SEGMENT)
            || Segment::may_commit(activations, token, (self.committed, self.segments.len()))
    }

    fn sign_segment(
        &mut self,
        network: &Network,
        key: &SecretKey,
        activations: Option<Digest>,
    ) -> Signed<Segment> {
        let segment = Segment {
            job: self.order.job,
            order: self.order.digest(),
            end: self.transcript.len(),
            commitment: self.transcript.commitment(),
            activations,
        };
        let signed = Signed::sign(network, key, segment);
        let (provider, order, end) = (key.peer_id(), segment.order, segment.end);
        self.segments.push(SignedStretch { provider, order, end, segment: signed.digest() });
        self.committed += usize::from(activations.is_some());
        signed.into_signed()
    }

    /// `None` only where the cost cannot be counted, which the check of the budget rules out.
    fn receipt(
        &self,
        network: &Network,
        now: Timestamp,
        finish: Finish,
        children: Vec<Digest>,
    ) -> Option<Receipt> {
        let order = self.order.value();
        let inherited = u32::try_from(order.inherited()).ok()?;
        let usage = Usage {
            prompt_tokens: self.prompt.map_or(0, |prompt| prompt.tokens).saturating_add(inherited),
            completion_tokens: u32::try_from(self.transcript.len()).ok()?.checked_sub(inherited)?,
        };
        Some(Receipt {
            network: network.clone(),
            job: order.job,
            parent: order.parent,
            kind: order.kind,
            requester: self.order.signer(),
            order: self.order.digest(),
            agent: order.agent.clone(),
            capability: order.capability.clone(),
            model: order.model,
            engine: self.bid.offer.model.as_ref().map(|model| model.engine.clone()),
            input: order.input,
            prompt: self.prompt.map(|prompt| prompt.prompt),
            template_time: self.prompt.map_or(0, |prompt| prompt.template_time),
            sampling: order.sampling.clone(),
            output: self.transcript.commitment(),
            segments: self.segments.clone(),
            finish,
            usage,
            price: order.price,
            cost: order.price.cost(usage)?,
            started: self.started,
            finished: now,
            constraint: order.constraint,
            continues: order.continues,
            children,
        })
    }
}
