//! Bids and what became of them, on both sides of the market.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use protocol::{Request, Response};

use super::{By, Room, WAITS};

/// What is asked, offered and agreed.
pub(crate) struct Market {
    announcements: By,
    bids: By,
    quotes: By,
    counters: By,
    awards: Counter,
    award: Histogram,
}

impl Market {
    pub(super) fn new(room: &mut Room<'_>) -> Self {
        let help = "From a job's submission, or the approval that it waited for, to its first provider";
        Self {
            announcements: room.by(
                "announcements",
                "Jobs that were announced to the mesh",
                "direction",
                &["received", "sent"],
            ),
            bids: room.by(
                "bids",
                "Offers for jobs: given to others, and received for jobs of this peer, its own agents' included",
                "direction",
                &["given", "received"],
            ),
            quotes: room.by(
                "quotes",
                "Questions for an offer: asked of others, and how those of others were answered",
                "outcome",
                &["asked", "bid", "declined"],
            ),
            counters: room.by(
                "counter_offers",
                "Offers to pay less",
                "direction",
                &["received", "sent"],
            ),
            awards: room.counter("awards", "Jobs of this peer that were given to a provider, each time counted"),
            award: room.seconds("award", help, &WAITS),
        }
    }

    /// A job was announced here.
    pub(crate) fn announced(&self, direction: &'static str) {
        self.announcements.one(direction);
    }

    /// A peer is asked.
    pub(crate) fn asks(&self, request: &Request) {
        match request {
            Request::Ask(_) => self.quotes.one("asked"),
            Request::Bid(_) => self.bids.one("given"),
            Request::Counter(_) => self.counters.one("sent"),
            Request::Profile => {}
        }
    }

    /// A peer asks.
    pub(crate) fn is_asked(&self, request: &Request) {
        if let Request::Counter(_) = request {
            self.counters.one("received");
        }
    }

    /// A peer is answered.
    pub(crate) fn answers(&self, response: &Response) {
        match response {
            Response::Bid(_) => {
                self.quotes.one("bid");
                self.bids.one("given");
            }
            Response::Decline(_) => self.quotes.one("declined"),
            Response::Profile(_) | Response::Received => {}
        }
    }

    /// An offer came for a job of this peer.
    pub(crate) fn bid_received(&self) {
        self.bids.one("received");
    }

    /// A job of this peer has a provider; how long that took, if it is its first one.
    pub(crate) fn awarded(&self, took: Option<Duration>) {
        self.awards.inc();
        if let Some(took) = took {
            self.award.observe(took.as_secs_f64());
        }
    }
}
