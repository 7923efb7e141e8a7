//! Jobs: those of this peer, and the work of its agents, for others and for itself.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use protocol::event::Completion;
use protocol::{JobError, JobKind};

use super::{By, Room, WAITS, words};

/// What becomes of jobs.
pub(crate) struct Jobs {
    submitted: By,
    ended: By,
    takeovers: By,
    first_token: Histogram,
    duration: Histogram,
    tokens: By,
    spent: Counter,
    receipts: By,
    entries: Counter,
    runs: By,
    runs_ended: By,
    run_queue: Histogram,
    run_first_token: Histogram,
    run_duration: Histogram,
    run_tokens: By,
}

impl Jobs {
    pub(super) fn new(room: &mut Room<'_>) -> Self {
        let tokens = ["input", "output"];
        Self {
            submitted: room.by("submitted", "Jobs of this peer", "kind", &words::KINDS),
            ended: room.by(
                "ended",
                "Jobs of this peer that are over: done, or why not",
                "outcome",
                &words::OUTCOMES,
            ),
            takeovers: room.by(
                "takeovers",
                "Jobs of this peer that another provider took over",
                "at",
                &["beginning", "middle"],
            ),
            first_token: room.seconds("time_to_first_token", "From submission to the first token", &WAITS),
            duration: room.seconds(
                "duration",
                "From submission to the receipt, of jobs that were done",
                &WAITS,
            ),
            tokens: room.by(
                "tokens",
                "Tokens that others read and wrote for this peer",
                "direction",
                &tokens,
            ),
            spent: room.counter("spent_microcredits", "What the jobs of this peer cost"),
            receipts: room.by("receipts", "Receipts, by whether they could be kept", "kept", &["no", "yes"]),
            entries: room.counter("ledger_entries", "Entries of the books that were written to the journal"),
            runs: room.by("runs", "Jobs that agents of this peer began", "kind", &words::KINDS),
            runs_ended: room.by(
                "runs_ended",
                "Jobs that agents of this peer are done with: done, or why not",
                "outcome",
                &words::OUTCOMES,
            ),
            run_queue: room.seconds("run_queue", "From an agent's order to the start of its work", &WAITS),
            run_first_token: room.seconds(
                "run_time_to_first_token",
                "From an agent's order to its first token",
                &WAITS,
            ),
            run_duration: room.seconds("run_duration", "From an agent's order to its end", &WAITS),
            run_tokens: room.by(
                "run_tokens",
                "Tokens that agents of this peer read and wrote",
                "direction",
                &tokens,
            ),
        }
    }

    /// A job of this peer.
    pub(crate) fn submitted(&self, kind: JobKind) {
        self.submitted.one(words::kind(kind));
    }

    /// Another provider took over, with an answer to go on with or without.
    pub(crate) fn taken_over(&self, tokens: u64) {
        self.takeovers.one(if tokens > 0 { "middle" } else { "beginning" });
    }

    /// The first token is there.
    pub(crate) fn first_token(&self, took: Duration) {
        self.first_token.observe(took.as_secs_f64());
    }

    /// A job was done.
    pub(crate) fn done(&self, took: Duration, completion: &Completion) {
        self.ended.one("done");
        self.duration.observe(took.as_secs_f64());
        self.tokens.add("input", completion.receipt.prompt_tokens().into());
        self.tokens.add("output", completion.receipt.answer_tokens().into());
        self.spent.inc_by(completion.receipt.cost.0);
    }

    /// A job was not done.
    pub(crate) fn failed(&self, error: &JobError) {
        self.ended.one(error.code());
    }

    /// A receipt was to be kept.
    pub(crate) fn receipt(&self, kept: bool) {
        self.receipts.one(if kept { "yes" } else { "no" });
    }

    /// Something was written into the journal.
    pub(crate) fn booked(&self) {
        self.entries.inc();
    }

    /// An agent begins.
    pub(crate) fn run(&self, kind: JobKind) {
        self.runs.one(words::kind(kind));
    }

    /// An agent has read its prompt.
    pub(crate) fn run_read(&self, tokens: u32) {
        self.run_tokens.add("input", tokens.into());
    }

    /// An agent's first token came; `queue` is how long its work did not begin.
    pub(crate) fn run_first_token(&self, queue: Duration, took: Duration) {
        self.run_queue.observe(queue.as_secs_f64());
        self.run_first_token.observe(took.as_secs_f64());
    }

    /// An agent has ended.
    pub(crate) fn run_over(&self, outcome: &'static str, took: Duration, tokens: u64) {
        self.runs_ended.one(outcome);
        self.run_duration.observe(took.as_secs_f64());
        self.run_tokens.add("output", tokens);
    }
}
