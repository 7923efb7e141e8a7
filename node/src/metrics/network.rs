//! What the network does and hears. Bytes are those of the protocol's messages, without what the transport adds.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::{By, Room, words};
use crate::net::{Direction, Misconduct, NetEvent, RequestError, SessionEnd, Transport, Verdict};

/// From a neighbour on the same machine to one behind a satellite, in seconds.
const ROUND_TRIPS: [f64; 13] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// Bytes and messages, connections and what became of them.
pub(crate) struct Network {
    opened: Family<[(&'static str, &'static str); 2], Counter>,
    closed: Counter,
    refused: Counter,
    dial_failures: By,
    round_trip: Histogram,
    bytes: By,
    frames: By,
    published: Counter,
    broadcasts: By,
    asked: By,
    answered: By,
    unanswered: By,
    ended: By,
    misconduct: By,
    blocked: Counter,
    hung_up: Counter,
}

impl Network {
    pub(super) fn new(room: &mut Room<'_>) -> Self {
        let opened = Family::default();
        let help = "Connections that came about, by who dialled and by what carries them";
        room.registry.register(format!("{}_connections_opened", room.name), help, opened.clone());
        let ways = ["received", "sent"];
        Self {
            opened,
            closed: room.counter("connections_closed", "Connections that ended"),
            refused: room.counter("inbound_failures", "Connections of others that did not come about"),
            dial_failures: room.by("dial_failures", "Attempts that failed", "kind", &words::DIAL_FAILURES),
            round_trip: room.seconds("round_trip", "There and back, as pings measure it", &ROUND_TRIPS),
            bytes: room.bytes_by("session", "Frames of sessions", "direction", &ways),
            frames: room.by("session_frames", "Frames of sessions", "direction", &ways),
            published: room.counter("gossip_published", "Broadcasts of this peer"),
            broadcasts: room.by(
                "gossip_received",
                "Broadcasts of others, by what became of them",
                "verdict",
                &words::VERDICTS,
            ),
            asked: room.by("requests_sent", "Questions to peers", "kind", &words::REQUESTS),
            answered: room.by("requests_received", "Questions of peers", "kind", &words::REQUESTS),
            unanswered: room.by(
                "request_failures",
                "Questions to peers that got no answer",
                "kind",
                &words::REQUEST_FAILURES,
            ),
            ended: room.by("sessions_ended", "Sessions that are over", "end", &words::SESSION_ENDS),
            misconduct: room.by("misconduct", "Broken rules of the wire", "kind", &words::MISCONDUCT),
            blocked: room.counter("peers_blocked", "Peers that were blocked for breaking the protocol"),
            hung_up: room.counter("peers_hung_up", "Peers that were given up because they fell silent"),
        }
    }

    /// A connection is there.
    pub(crate) fn opened(&self, direction: Direction, transport: Transport) {
        let labels = [("direction", words::direction(direction)), ("transport", words::transport(transport))];
        self.opened.get_or_create(&labels).inc();
    }

    /// A connection is gone.
    pub(crate) fn closed(&self) {
        self.closed.inc();
    }

    /// Somebody else's connection failed before it was one.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    /// We could not; `kind` is one of [`words::DIAL_FAILURES`].
    pub(crate) fn dial_failed(&self, kind: &'static str) {
        self.dial_failures.one(kind);
    }

    /// A ping came back.
    pub(crate) fn measured(&self, rtt: Duration) {
        self.round_trip.observe(rtt.as_secs_f64());
    }

    /// Something came from the network.
    pub(crate) fn heard(&self, event: &NetEvent) {
        match event {
            NetEvent::BadPeer { what, .. } => self.broken(*what),
            NetEvent::Frames { frames, .. } => {
                self.frames.add("received", frames.len() as u64);
                self.bytes.add("received", frames.iter().map(|frame| frame.len() as u64).sum());
            }
            NetEvent::Response { result: Err(error), .. } => self.unanswered(*error),
            NetEvent::SessionClosed { end, .. } => self.session_ended(*end),
            _ => {}
        }
    }

    /// A frame was handed to a session.
    pub(crate) fn sent(&self, bytes: usize) {
        self.frames.one("sent");
        self.bytes.add("sent", bytes as u64);
    }

    /// We broadcast.
    pub(crate) fn published(&self) {
        self.published.inc();
    }

    /// A broadcast was judged.
    pub(crate) fn judged(&self, verdict: Verdict) {
        self.broadcasts.one(words::verdict(verdict));
    }

    /// A peer is asked.
    pub(crate) fn asks(&self, request: &protocol::Request) {
        self.asked.one(words::request(request));
    }

    /// A peer asks.
    pub(crate) fn is_asked(&self, request: &protocol::Request) {
        self.answered.one(words::request(request));
    }

    /// A peer was blocked.
    pub(crate) fn blocked(&self) {
        self.blocked.inc();
    }

    /// A peer was given up.
    pub(crate) fn hung_up(&self) {
        self.hung_up.inc();
    }

    fn broken(&self, what: Misconduct) {
        self.misconduct.one(words::misconduct(what));
    }

    fn unanswered(&self, error: RequestError) {
        self.unanswered.one(words::request_failure(error));
    }

    fn session_ended(&self, end: SessionEnd) {
        self.ended.one(words::session_end(end));
    }
}
