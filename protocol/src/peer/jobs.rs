//! Jobs of ours, between the machines: submission → approval, where one is needed → discovery → ask or announcement → award → done.

use std::sync::Arc;

use crypto::{PeerId, Signed, Verified};

use super::{Job, LOOPED, MAX_JOBS, Peer, Question};
use crate::event::{
    Completion, Event, InboundId, JobEvent, Output, QueryId, RequestId, RunId, Side, Submission,
};
use crate::ledger::{Direction, Entry};
use crate::market::Known;
use crate::message::{Announcement, Ask, Bid, Counter, Frame, Request, Response};
use crate::receipt::Order;
use crate::{Constraint, Evidence, JobError, JobId, JobSpec, Profile, Timestamp};

impl Peer {
    pub(super) fn on_submission(&mut self, now: Timestamp, submission: Submission) {
        let Submission { job, salt, mut spec, run, trace } = submission;
        let admitted = self.admit(job, &mut spec, run);
        if let Err(error) = admitted {
            return self.outputs.push_back(Output::Notify { job, event: JobEvent::Failed(error) });
        }
        spec.preference.peer = spec.preference.peer.filter(|peer| !self.is_blocked(peer));
        let depth = run.map_or(0, |run| self.depth_of(run).saturating_add(1));
        let (input, spec) = (spec.input.commitment(&salt), Arc::new(spec));
        let held = self.approvals.hold(job, &spec, depth);
        self.jobs.insert(job, Job { spec, salt, input, run, depth, trace });
        match held {
            Some(rule) => self.notify(job, JobEvent::Awaiting(rule)),
            None => self.open(now, job),
        }
    }

    pub(super) fn on_approval(&mut self, now: Timestamp, job: JobId) {
        if self.approvals.approve(job) {
            self.open(now, job);
        }
    }

    fn open(&mut self, now: Timestamp, job: JobId) {
        if let Some(Job { spec, input, .. }) = self.jobs.get(&job) {
            self.auctions.open(now, job, Arc::clone(spec), *input);
        }
    }

    /// How far the job of a run stands below a user's: what strangers order is taken for one.
    fn depth_of(&self, run: RunId) -> u8 {
        let job = self.provider.job_of(run).and_then(|job| self.jobs.get(&job));
        job.map_or(0, |job| job.depth)
    }

    /// Checks a job, and for a sub-job takes its limits out of its parent's.
    pub(super) fn admit(
        &mut self,
        job: JobId,
        spec: &mut JobSpec,
        run: Option<RunId>,
    ) -> Result<(), JobError> {
        spec.check()?;
        if self.jobs.contains_key(&job) {
            return Err(JobError::invalid("job", "is under way already"));
        }
        if self.jobs.len() >= MAX_JOBS {
            return Err(JobError::Busy { retry_after_ms: 1000 });
        }
        if let Some(run) = run {
            spec.limits = self.mandates.spawn(run, job, spec.limits)?;
            spec.parent = self.provider.job_of(run);
        }
        Ok(())
    }

    pub(super) fn discover(&mut self, job: JobId, sample: bool) {
        let Some(requirement) = self.jobs.get(&job).map(|job| job.spec.requirement.clone()) else { return };
        // Whoever is still silent was asked in an earlier round: its answer would be a second one to whom it is asked again.
        self.asked.retain(|_, question| question.job != job);
        let query = QueryId(self.fresh());
        self.queries.insert(query, (job, sample));
        let requirement = (!sample).then_some(requirement);
        self.outputs.push_back(Output::Discover { query, requirement });
    }

    pub(super) fn on_discovered(
        &mut self,
        now: Timestamp,
        query: QueryId,
        mut profiles: Vec<Verified<Profile>>,
    ) {
        let Some((job, sample)) = self.queries.remove(&query) else { return };
        profiles.retain(|p| p.is_fresh(now) && p.signer() != self.id() && !self.is_blocked(&p.signer()));
        if !self.bidder.offers().is_empty() {
            profiles.push(self.profile(now));
        }
        self.auctions.on_discovered(now, job, sample, &profiles);
    }

    pub(super) fn ask(&mut self, to: PeerId, ask: Ask) {
        let question = Question { job: ask.job, to, counter: false };
        self.request(question, Request::Ask(ask));
    }

    pub(super) fn counter(&mut self, to: PeerId, counter: Counter) {
        let question = Question { job: counter.job, to, counter: true };
        self.request(question, Request::Counter(counter));
    }

    fn request(&mut self, question: Question, request: Request) {
        let (id, to) = (RequestId(self.fresh()), question.to);
        self.asked.insert(id, question);
        if to == self.id() {
            let inbound = InboundId(LOOPED | id.0);
            self.looped.push_back(Event::Request { from: to, inbound, request });
        } else {
            self.outputs.push_back(Output::Request { id, to, request });
        }
    }

    pub(super) fn on_answer(
        &mut self,
        now: Timestamp,
        id: RequestId,
        from: PeerId,
        answer: Option<Response>,
    ) {
        let Some(question) = self.asked.remove(&id).filter(|question| question.to == from) else { return };
        let Question { job, to, counter } = question;
        // Whoever was blocked after it was asked is as good as silent.
        match answer.filter(|_| !self.is_blocked(&to)) {
            Some(Response::Bid(bid)) if counter => self.on_lower_bid(now, to, job, bid),
            Some(Response::Bid(bid)) => self.on_bid(now, to, job, bid),
            Some(Response::Decline(_)) | None if counter => self.auctions.on_countered(now, job, to, None),
            Some(Response::Decline(error)) => self.auctions.on_refusal(now, job, to, Some(error)),
            Some(_) => {
                self.observe(to, Evidence::Unexpected);
                match counter {
                    true => self.auctions.on_countered(now, job, to, None),
                    false => self.auctions.on_refusal(now, job, to, Some(JobError::Engine)),
                }
            }
            None => self.auctions.on_refusal(now, job, to, None),
        }
    }

    /// The answer to a counter-offer. Whatever is wrong with it, the first bid stands, unless its author is blocked for it.
    fn on_lower_bid(&mut self, now: Timestamp, from: PeerId, job: JobId, bid: Signed<Bid>) {
        let verified = bid.verify(&self.network).ok().filter(|bid| bid.signer() == from);
        if verified.is_none() {
            self.observe(from, Evidence::BadSignature);
        }
        self.auctions.on_countered(now, job, from, verified);
    }

    pub(super) fn on_bid(&mut self, now: Timestamp, from: PeerId, job: JobId, bid: Signed<Bid>) {
        let verified = bid.verify(&self.network).ok();
        self.on_verified_bid(now, from, job, verified);
    }

    /// `None` stands for a bid whose signature does not hold.
    pub(super) fn on_verified_bid(
        &mut self,
        now: Timestamp,
        from: PeerId,
        job: JobId,
        bid: Option<Verified<Bid>>,
    ) {
        let addressed = bid.filter(|bid| bid.signer() == from && bid.requester == self.id());
        let evidence = match addressed {
            Some(bid) if bid.job == job => {
                let known = self.known(from);
                return self.auctions.on_bid(now, from, bid, known);
            }
            Some(_) => Evidence::Unexpected,
            None => Evidence::BadSignature,
        };
        self.observe(from, evidence);
        self.auctions.on_refusal(now, job, from, Some(JobError::Engine));
    }

    fn known(&self, peer: PeerId) -> Known {
        let delivered = self.reputation.counts(&peer).find(|(evidence, _)| *evidence == Evidence::Delivered);
        Known { delivered: delivered.map_or(0, |(_, n)| n), faults: self.reputation.faults(&peer) }
    }

    pub(super) fn announce(&mut self, announcement: Announcement) {
        let Announcement::Job { ask, .. } = &announcement;
        let root = ask.requirement.capability.root();
        if !self.bidder.offers().is_empty() {
            // Gossip does not return to its author; our own agents hear of it this way.
            self.looped.push_back(Event::Announced { from: self.id(), announcement: announcement.clone() });
        }
        self.outputs.push_back(Output::Announce { root, announcement });
    }

    pub(super) fn order(&mut self, now: Timestamp, job: JobId, bid: &Verified<Bid>) {
        let Some(Job { spec, salt, input, trace, .. }) = self.jobs.get(&job) else { return };
        let continues = self.requester.continuation(job);
        let order = Order {
            job,
            parent: spec.parent,
            kind: spec.kind,
            provider: bid.signer(),
            agent: bid.offer.agent.clone(),
            capability: spec.requirement.capability.clone(),
            model: bid.offer.model.as_ref().map(|model| model.digest),
            input: *input,
            sampling: spec.sampling.clone(),
            limits: spec.limits,
            price: bid.price(),
            bid: bid.digest(),
            constraint: spec.constraint.as_ref().map(Constraint::digest),
            continues,
            issued: now,
        };
        let shown = (Arc::clone(spec), *salt);
        let trace = *trace;
        let offer = Box::new(bid.offer.clone());
        let tokens = order.inherited();
        self.notify(job, JobEvent::Started { provider: bid.signer(), offer, tokens });
        self.requester.open(now, order, shown, trace);
    }

    /// Booked before it is acknowledged: a crash in between loses no debt.
    pub(super) fn deliver(&mut self, job: JobId, provider: PeerId, completion: Box<Completion>) {
        let (receipt, cost) = (completion.receipt.digest(), completion.receipt.cost);
        let booked = self.book(Entry { receipt, peer: provider, direction: Direction::Spent, amount: cost });
        let acknowledgement = completion.acknowledgement.clone();
        self.observe(provider, Evidence::Delivered);
        self.close(job, Some(receipt));
        // The driver keeps the receipt when it tells of it: the proof is there before the debt is admitted.
        self.notify(job, JobEvent::Done(completion));
        if booked {
            self.send(provider, Side::Requester, Frame::Acknowledge { job, acknowledgement });
        }
    }

    /// Ends a job without an answer.
    pub(super) fn end(&mut self, job: JobId, error: JobError) {
        self.requester.cancel(job);
        if self.close(job, None) {
            self.outputs.push_back(Output::Notify { job, event: JobEvent::Failed(error) });
        }
    }

    pub(super) fn close(&mut self, job: JobId, receipt: Option<crypto::Digest>) -> bool {
        self.approvals.close(job);
        self.auctions.close(job);
        self.asked.retain(|_, question| question.job != job);
        self.queries.retain(|_, (queried, _)| *queried != job);
        let Some(closed) = self.jobs.remove(&job) else { return false };
        if let Some(run) = closed.run {
            self.mandates.close(run, job, receipt);
        }
        true
    }
}
