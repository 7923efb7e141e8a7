//! A job at its requester: one span from submission to receipt, and below it the search for a provider and the part of
//! each one that had it.

use opentelemetry::KeyValue;
use protocol::event::{Completion, JobEvent, Submission};
use protocol::{Finish, Input, JobError, JobKind, JobSpec, Trace};

use super::Traces;
use super::span::{Kind, Span};

/// The spans of a job.
#[derive(Debug)]
pub(crate) struct JobSpans {
    traces: Traces,
    job: Span,
    operation: &'static str,
    seeking: Option<Span>,
    provider: Option<Span>,
    bids: i64,
    answers: bool,
}

impl JobSpans {
    /// A job begins, below the span that its submission names, or that of the run on whose behalf it is.
    pub(crate) fn begin(traces: &Traces, submission: &Submission, run: Option<Trace>) -> Self {
        let spec = &submission.spec;
        let operation = operation(spec.kind, &spec.input);
        let mut job = traces.begin(operation, Kind::Client, submission.trace.or(run));
        if job.is_recorded() {
            describe(&mut job, spec, operation);
            job.say("llamesh.job.id", submission.job.to_string());
        }
        let seeking = traces.are_on().then(|| traces.begin("auction", Kind::Internal, job.trace()));
        Self { traces: traces.clone(), job, operation, seeking, provider: None, bids: 0, answers: false }
    }

    /// What its provider is told of it.
    pub(crate) fn trace(&self) -> Option<Trace> {
        self.job.trace()
    }

    /// What lines of the log say of it.
    pub(crate) fn log(&self) -> tracing::Span {
        self.job.log()
    }

    /// Its submitter is told something.
    pub(crate) fn told(&mut self, event: &JobEvent) {
        if !self.traces.are_on() {
            return;
        }
        match event {
            JobEvent::Awaiting(rule) => {
                self.job.note("awaiting approval", vec![KeyValue::new("llamesh.rule", rule.to_string())]);
            }
            JobEvent::Bid(..) => self.bids += 1,
            JobEvent::Done(completion) => self.done(completion),
            JobEvent::Failed(error) => self.failed(error),
            JobEvent::Progress { .. } => {}
            JobEvent::Started { provider, offer, tokens } => {
                let model = offer.model.as_ref().map(|model| model.name.clone());
                self.started(provider.to_string(), (offer.agent.clone(), model), *tokens);
            }
            JobEvent::Token { .. } => {
                if !std::mem::replace(&mut self.answers, true) {
                    self.job.note("first token", Vec::new());
                }
            }
        }
    }

    fn started(&mut self, provider: String, (agent, model): (String, Option<String>), tokens: u64) {
        if let Some(mut seeking) = self.seeking.take() {
            seeking.say("llamesh.bids", self.bids);
        }
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        if let Some(mut before) = self.provider.take() {
            before.fail("taken_over");
            let more = vec![
                KeyValue::new("llamesh.tokens", tokens),
                KeyValue::new("llamesh.provider.id", provider.clone()),
            ];
            self.job.note("takeover", more);
        }
        if let Some(model) = model {
            self.job.rename(format!("{} {model}", self.operation));
            self.job.say("gen_ai.request.model", model.clone());
            self.job.say("gen_ai.response.model", model);
        }
        let mut part = self.traces.begin("provider", Kind::Internal, self.job.trace());
        part.say("llamesh.provider.id", provider);
        part.say("gen_ai.agent.name", agent);
        part.say("llamesh.tokens.inherited", tokens);
        self.provider = Some(part);
    }

    fn done(&mut self, completion: &Completion) {
        let receipt = completion.receipt.value();
        self.job.say("gen_ai.usage.input_tokens", i64::from(receipt.prompt_tokens()));
        self.job.say("gen_ai.usage.output_tokens", i64::from(receipt.answer_tokens()));
        self.job.say_all("gen_ai.response.finish_reasons", vec![finish(receipt.finish).into()]);
        self.job.say("gen_ai.response.id", completion.receipt.digest().to_string());
        self.job.say("llamesh.cost.microcredits", i64::try_from(receipt.cost.0).unwrap_or(i64::MAX));
    }

    fn failed(&mut self, error: &JobError) {
        self.job.fail(error.code());
        for span in [&mut self.seeking, &mut self.provider].into_iter().flatten() {
            span.fail(error.code());
        }
    }
}

fn describe(job: &mut Span, spec: &JobSpec, operation: &'static str) {
    job.say("gen_ai.operation.name", operation);
    job.say("gen_ai.provider.name", "llamesh");
    job.say("llamesh.capability", spec.requirement.capability.to_string());
    if let Some(model) = spec.requirement.model {
        job.say("gen_ai.request.model", model.to_string());
    }
    if matches!(spec.kind, JobKind::Generate) {
        job.say("gen_ai.request.max_tokens", i64::from(spec.sampling.max_tokens));
        job.say("gen_ai.request.temperature", f64::from(spec.sampling.temperature));
        job.say("gen_ai.request.seed", spec.sampling.seed.cast_signed());
    }
}

/// What is done, as the conventions call it; they have no word for scores, which are read like a completion.
pub(super) const fn operation(kind: JobKind, input: &Input) -> &'static str {
    match (kind, input) {
        (JobKind::Call, _) => "execute_tool",
        (JobKind::Embed, _) => "embeddings",
        (JobKind::Generate, Input::Chat(_)) => "chat",
        (JobKind::Generate | JobKind::Score, _) => "text_completion",
    }
}

/// Why an answer ended, as OpenAI's clients know it.
const fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::EndOfText | Finish::Stop => "stop",
        Finish::Length => "length",
    }
}
