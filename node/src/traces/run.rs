//! A job at its provider: one span from order to end, and below it the wait for its turn, the reading and the writing.

use std::time::{Duration, SystemTime};

use protocol::Trace;
use protocol::event::Run;

use super::Traces;
use super::job::operation;
use super::span::{Kind, Span};

/// The spans of an agent's work.
#[derive(Debug)]
pub(crate) struct RunSpans {
    traces: Traces,
    run: Span,
    since: SystemTime,
    decode: Option<Span>,
}

impl RunSpans {
    /// An agent begins, below the span that its order came with.
    pub(crate) fn begin(traces: &Traces, run: &Run) -> Self {
        let (order, name) = (&run.order, operation(run.order.kind, &run.input));
        let mut span = traces.begin(name, Kind::Server, run.trace);
        if span.is_recorded() {
            span.rename(format!("{name} {}", order.agent));
            span.say("gen_ai.operation.name", name);
            span.say("gen_ai.provider.name", "llamesh");
            span.say("gen_ai.agent.name", order.agent.clone());
            if name == "execute_tool" {
                span.say("gen_ai.tool.name", order.agent.clone());
            }
            if let Some(model) = order.model {
                span.say("gen_ai.request.model", model.to_string());
            }
            span.say("llamesh.job.id", order.job.to_string());
            span.say("llamesh.peer.id", order.provider.to_string());
            span.say("llamesh.requester.id", order.signer().to_string());
            span.say("llamesh.tokens.inherited", i64::try_from(order.inherited()).unwrap_or(i64::MAX));
        }
        Self { traces: traces.clone(), run: span, since: SystemTime::now(), decode: None }
    }

    /// What its sub-jobs are told of it.
    pub(crate) fn trace(&self) -> Option<Trace> {
        self.run.trace()
    }

    /// What lines of the log say of it.
    pub(crate) fn log(&self) -> tracing::Span {
        self.run.log()
    }

    /// Its prompt has been read.
    pub(crate) fn read(&mut self, tokens: u32) {
        self.run.say("gen_ai.usage.input_tokens", i64::from(tokens));
    }

    /// Its first token is there, after it waited for its turn for so long.
    pub(crate) fn first_token(&mut self, queue: Duration) {
        if self.run.is_recorded() {
            self.before(queue);
            self.decode = Some(self.part("decode", SystemTime::now()));
        }
    }

    /// It has ended.
    pub(crate) fn over(mut self, outcome: &'static str, tokens: u64, queue: Duration) {
        if !self.run.is_recorded() {
            return;
        }
        if self.decode.is_none() {
            self.before(queue);
        }
        self.run.say("gen_ai.usage.output_tokens", i64::try_from(tokens).unwrap_or(i64::MAX));
        if outcome != "done" {
            self.run.fail(outcome);
        }
    }

    /// What came before the first token.
    fn before(&self, queue: Duration) {
        let turn = self.since + queue;
        self.part("queue", self.since).end_at(turn);
        self.part("prefill", turn).end_at(SystemTime::now().max(turn));
    }

    fn part(&self, name: &'static str, since: SystemTime) -> Span {
        self.traces.begun(name, Kind::Internal, self.run.trace(), Some(since))
    }
}
