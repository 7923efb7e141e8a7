//! Labels for the variants of the protocol's and the network's enums: words of this program, and a bounded number of them.

use protocol::{Evidence, JobKind, Request};

use crate::net::{Direction, Misconduct, RequestError, SessionEnd, Transport, Verdict};

/// How a job ends: done, given up by its requester, or a [`protocol::JobError::code`].
pub(crate) const OUTCOMES: [&str; 16] = [
    "done",
    "aborted",
    "busy",
    "cancelled",
    "context_exceeded",
    "deadline_exceeded",
    "engine",
    "inherited",
    "invalid",
    "limit",
    "misbehaved",
    "no_taker",
    "nothing_offered",
    "order",
    "provider_lost",
    "unsupported",
];
pub(crate) const KINDS: [&str; 4] = ["call", "embed", "generate", "score"];
pub(crate) const REQUESTS: [&str; 4] = ["ask", "bid", "counter", "profile"];
pub(crate) const VERDICTS: [&str; 3] = ["accept", "ignore", "reject"];
pub(crate) const SESSION_ENDS: [&str; 5] = ["closed", "lost", "misconduct", "replaced", "unreachable"];
pub(crate) const REQUEST_FAILURES: [&str; 6] =
    ["busy", "lost", "response_over_cap", "timeout", "unreachable", "unsupported"];
pub(crate) const MISCONDUCT: [&str; 6] = [
    "empty_frame",
    "frame_over_cap",
    "gossip_over_cap",
    "request_over_cap",
    "response_over_cap",
    "truncated_frame",
];
/// Why a dial fails.
pub(crate) const DIAL_FAILURES: [&str; 6] =
    ["denied", "itself", "no_addresses", "other", "transport", "wrong_peer"];

pub(crate) const fn kind(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Call => "call",
        JobKind::Embed => "embed",
        JobKind::Generate => "generate",
        JobKind::Score => "score",
    }
}

pub(crate) const fn request(request: &Request) -> &'static str {
    match request {
        Request::Ask(_) => "ask",
        Request::Bid(_) => "bid",
        Request::Counter(_) => "counter",
        Request::Profile => "profile",
    }
}

pub(crate) const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

pub(crate) const fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Quic => "quic",
        Transport::Tcp => "tcp",
    }
}

pub(crate) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accept => "accept",
        Verdict::Ignore => "ignore",
        Verdict::Reject => "reject",
    }
}

pub(crate) const fn session_end(end: SessionEnd) -> &'static str {
    match end {
        SessionEnd::Closed => "closed",
        SessionEnd::Lost => "lost",
        SessionEnd::Misconduct => "misconduct",
        SessionEnd::Replaced => "replaced",
        SessionEnd::Unreachable => "unreachable",
    }
}

pub(crate) const fn request_failure(error: RequestError) -> &'static str {
    match error {
        RequestError::Busy => "busy",
        RequestError::Lost => "lost",
        RequestError::ResponseOverCap => "response_over_cap",
        RequestError::Timeout => "timeout",
        RequestError::Unreachable => "unreachable",
        RequestError::Unsupported => "unsupported",
    }
}

pub(crate) const fn misconduct(what: Misconduct) -> &'static str {
    match what {
        Misconduct::EmptyFrame => "empty_frame",
        Misconduct::FrameOverCap => "frame_over_cap",
        Misconduct::GossipOverCap => "gossip_over_cap",
        Misconduct::RequestOverCap => "request_over_cap",
        Misconduct::ResponseOverCap => "response_over_cap",
        Misconduct::TruncatedFrame => "truncated_frame",
    }
}

pub(crate) const fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::BadCommitment => "bad_commitment",
        Evidence::BadReceipt => "bad_receipt",
        Evidence::BadSignature => "bad_signature",
        Evidence::BrokenLease => "broken_lease",
        Evidence::Delivered => "delivered",
        Evidence::Expired => "expired",
        Evidence::Malformed => "malformed",
        Evidence::OverCap => "over_cap",
        Evidence::Replayed => "replayed",
        Evidence::SkippedIndex => "skipped_index",
        Evidence::Stalled => "stalled",
        Evidence::Unexpected => "unexpected",
        Evidence::UnknownVersion => "unknown_version",
        Evidence::Unreachable => "unreachable",
        Evidence::Vanished => "vanished",
        // Evidence of a later build.
        _ => "other",
    }
}
