//! Work for others, between the machines: ask or announcement → bid → order → run → receipt → acknowledgement.

use crypto::{PeerId, Signed, Verified};

use super::{LOOPED, Peer};
use crate::error::OrderFault;
use crate::event::{Event, InboundId, Output, RequestId, RunId, Side};
use crate::ledger::{Direction, Entry};
use crate::market::bidder::Quoted;
use crate::message::{Announcement, Ask, Bid, Brief, Counter, Frame, Request, Response, Start};
use crate::receipt::{Order, Receipt};
use crate::session::provider::worst_cost;
use crate::{AgentOffer, Capability, Evidence, JobError, JobId, Profile, Timestamp, Trace};

impl Peer {
    pub(super) fn on_offers(&mut self, offers: Vec<AgentOffer>) {
        let capabilities: Vec<Capability> = offers.iter().map(|offer| offer.capability.clone()).collect();
        self.bidder.offer(offers);
        self.outputs.push_back(Output::Provide { capabilities });
    }

    pub(super) fn on_request(&mut self, now: Timestamp, from: PeerId, inbound: InboundId, request: Request) {
        let response = match request {
            Request::Ask(ask) => {
                self.board.on_ask(now, from, &ask, false);
                answer(self.bid(now, from, &ask))
            }
            Request::Bid(bid) => {
                self.on_sealed_bid(now, from, bid);
                Response::Received
            }
            Request::Counter(counter) => answer(self.lower(now, from, &counter)),
            Request::Profile => Response::Profile(self.profile(now).into_signed()),
        };
        if inbound.0 & LOOPED == 0 {
            self.outputs.push_back(Output::Respond { inbound, response });
        } else {
            let id = RequestId(inbound.0 & !LOOPED);
            self.looped.push_back(Event::Answer { id, from, answer: Some(response) });
        }
    }

    /// A bid that nobody asked for by name says itself which job it is for: after its signature was looked at.
    pub(super) fn on_sealed_bid(&mut self, now: Timestamp, from: PeerId, bid: Signed<Bid>) {
        match bid.verify(&self.network) {
            Ok(bid) if self.auctions.is_sealed(bid.job) => {
                self.on_verified_bid(now, from, bid.job, Some(bid));
            }
            // An honest bid can come late: the job may be awarded by now, or in a round of quotes.
            Ok(_) => {}
            Err(_) => self.observe(from, Evidence::BadSignature),
        }
    }

    pub(super) fn on_announcement(&mut self, now: Timestamp, from: PeerId, announcement: &Announcement) {
        let Announcement::Job { ask, closes } = announcement;
        if closes.after(Profile::CLOCK_SKEW) <= now || self.is_blocked(&from) {
            return;
        }
        self.board.on_ask(now, from, ask, true);
        let Ok(bid) = self.bid(now, from, ask) else { return };
        if from == self.id() {
            return self.on_verified_bid(now, from, ask.job, Some(bid));
        }
        let id = RequestId(self.fresh());
        self.outputs.push_back(Output::Request { id, to: from, request: Request::Bid(bid.into_signed()) });
    }

    pub(super) fn bid(&mut self, now: Timestamp, from: PeerId, ask: &Ask) -> Result<Verified<Bid>, JobError> {
        let Quoted { bid, floor } = self.bidder.bid(now, from, ask)?;
        let bid = Signed::sign(&self.network, &self.key, bid);
        self.bidder.promise(bid.clone(), floor);
        self.board.on_bid(now, self.id(), &bid);
        Ok(bid)
    }

    /// Answers a counter-offer; one that no honest requester makes is held against it.
    pub(super) fn lower(
        &mut self,
        now: Timestamp,
        from: PeerId,
        counter: &Counter,
    ) -> Result<Verified<Bid>, JobError> {
        let lower = self.bidder.counter(now, from, counter).inspect_err(|error| {
            self.blame(from, error);
            if matches!(error, JobError::Invalid { .. }) {
                self.observe(from, Evidence::Unexpected);
            }
        })?;
        let bid = Signed::sign(&self.network, &self.key, lower);
        self.bidder.lower(bid.clone());
        self.board.on_bid(now, self.id(), &bid);
        Ok(bid)
    }

    pub(super) fn on_order(&mut self, now: Timestamp, from: PeerId, frame: Frame) {
        match frame {
            Frame::Start(start) => {
                if let Err((job, error)) = self.start(now, from, *start) {
                    self.send(from, Side::Provider, Frame::Fail { job, error });
                }
            }
            Frame::Cancel { job } => {
                self.provider.on_cancel(from, job);
                self.bidder.release(from, job);
            }
            Frame::Acknowledge { acknowledgement, .. } => {
                self.provider.on_acknowledgement(from, acknowledgement)
            }
            Frame::Probe { job } => self.provider.on_probe(from, job),
            _ => self.observe(from, Evidence::Unexpected),
        }
    }

    pub(super) fn start(
        &mut self,
        now: Timestamp,
        from: PeerId,
        start: Start,
    ) -> Result<(), (JobId, JobError)> {
        let Start { order, brief, trace } = start;
        let order = order.verify(&self.network).map_err(|_| {
            let error = JobError::Order { why: OrderFault::Signature };
            self.blame(from, &error);
            // An order that does not even verify names no job that could be answered for; the zero id says so.
            (JobId([0; 16]), error)
        })?;
        let job = order.job;
        let begun = self.begin(now, from, order, (brief, trace));
        begun.map_err(|error| {
            self.blame(from, &error);
            (job, error)
        })
    }

    fn begin(
        &mut self,
        now: Timestamp,
        from: PeerId,
        order: Verified<Order>,
        (brief, trace): (Brief, Option<Trace>),
    ) -> Result<(), JobError> {
        self.provider.admit(now, from, &order, &brief)?;
        let bid = self.bidder.claim(now, from, &order)?;
        let (job, limits) = (order.job, order.limits);
        let own = worst_cost(&order, 0).unwrap_or(limits.budget);
        let begun = self.provider.start(now, order, bid, (brief, trace));
        let run = begun.inspect_err(|_| self.bidder.release(from, job))?;
        self.mandates.grant(run, limits, own);
        Ok(())
    }

    /// What a refused order says of its sender.
    pub(super) fn blame(&mut self, from: PeerId, error: &JobError) {
        let JobError::Order { why } = error else { return };
        let evidence = match why {
            OrderFault::Commitment => Evidence::BadCommitment,
            OrderFault::Expired | OrderFault::Lease => Evidence::Expired,
            OrderFault::Replayed => Evidence::Replayed,
            OrderFault::Signature => Evidence::BadSignature,
        };
        self.observe(from, evidence);
    }

    pub(super) fn on_closed(&mut self, run: RunId, requester: PeerId, job: JobId) {
        self.bidder.release(requester, job);
        for child in self.mandates.revoke(run) {
            self.end(child, JobError::Cancelled);
        }
    }

    pub(super) fn settle(&mut self, receipt: &Verified<Receipt>) {
        let (digest, peer, amount) = (receipt.digest(), receipt.requester, receipt.cost);
        self.book(Entry { receipt: digest, peer, direction: Direction::Earned, amount });
    }
}

fn answer(bid: Result<Verified<Bid>, JobError>) -> Response {
    match bid {
        Ok(bid) => Response::Bid(bid.into_signed()),
        Err(error) => Response::Decline(error),
    }
}
