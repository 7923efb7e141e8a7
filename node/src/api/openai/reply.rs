//! What replies of all kinds share: who answers, what it took, and which receipts answer for it.

use std::convert::Infallible;

use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use protocol::event::Completion;
use protocol::{Finish, JobId};
use serde_json::{Value, json};

use super::target::Aimed;
use crate::clock;

/// The header that names a reply's first job.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header that names a reply's receipts.
const RECEIPT: HeaderName = HeaderName::from_static("x-llamesh-receipt");
/// Receipts in that header: clients bound what they read of it. The body names all.
const MAX_HEADED: usize = 16;

/// What all chunks of a reply share.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    job: JobId,
    id: String,
    created: u64,
    model: String,
    /// What it is called, whole and in part.
    objects: (&'static str, &'static str),
    /// Whether a stream tells what was read and written.
    counts: bool,
    /// What this peer chose, and why.
    chosen: Option<Value>,
}

impl Reply {
    pub(super) fn chat(job: JobId, aimed: &Aimed, counts: bool) -> Self {
        let objects = ("chat.completion", "chat.completion.chunk");
        Self::new((job, "chatcmpl"), aimed, objects, counts)
    }

    pub(super) fn text(job: JobId, aimed: &Aimed, counts: bool) -> Self {
        Self::new((job, "cmpl"), aimed, ("text_completion", "text_completion"), counts)
    }

    fn new(
        (job, kind): (JobId, &str),
        aimed: &Aimed,
        objects: (&'static str, &'static str),
        counts: bool,
    ) -> Self {
        let (model, chosen) = (aimed.model.clone(), aimed.chosen.clone());
        Self {
            job,
            id: format!("{kind}-{job}"),
            created: clock::now().0 / 1000,
            model,
            objects,
            counts,
            chosen,
        }
    }

    /// A reply in one piece.
    pub(super) fn whole(&self, choices: Vec<Value>, bill: &Bill) -> Response {
        let mut whole = self.value(self.objects.0, choices.into());
        whole["usage"] = bill.usage();
        whole["llamesh"] = self.proven(bill.receipts());
        stamped(Some(self.job), bill, Json(whole))
    }

    /// A part of a stream, of one choice.
    pub(super) fn chunk(&self, choice: Value) -> Value {
        let mut chunk = self.value(self.objects.1, json!([choice]));
        if self.counts {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The last part of one choice.
    pub(super) fn last_chunk(&self, choice: Value, completion: &Completion) -> Value {
        let mut chunk = self.chunk(choice);
        chunk["llamesh"] = self.proven(receipt(completion));
        chunk
    }

    /// What comes after the last choice's end.
    pub(super) fn end(&self, bill: &Bill) -> Vec<String> {
        let counted = self.counts.then(|| {
            let mut chunk = self.value(self.objects.1, json!([]));
            chunk["usage"] = bill.usage();
            chunk["llamesh"] = self.proven(bill.receipts());
            chunk.to_string()
        });
        counted.into_iter().chain(["[DONE]".to_owned()]).collect()
    }

    /// A stream of these lines; whoever leaves it drops it, and with it the jobs.
    pub(super) fn stream(&self, lines: impl Stream<Item = String> + Send + 'static) -> Response {
        use futures::StreamExt;
        stream(self.job, lines.map(|line| Event::default().data(line)))
    }

    /// What answers for it, with what was chosen.
    fn proven(&self, mut receipts: Value) -> Value {
        if let Some(chosen) = &self.chosen {
            receipts["chosen"] = chosen.clone();
        }
        receipts
    }

    fn value(&self, object: &str, choices: Value) -> Value {
        json!({ "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices })
    }
}

/// What a reply took: the sum over its jobs, and their receipts.
#[derive(Debug, Default)]
pub(super) struct Bill {
    prompt: u64,
    completion: u64,
    job: Option<JobId>,
    receipts: Vec<Value>,
}

impl Bill {
    /// Puts a job on it.
    pub(super) fn add(&mut self, completion: &Completion) {
        // Whoever wrote them: the client asked once, and got one answer.
        self.prompt += u64::from(completion.receipt.prompt_tokens());
        self.completion += u64::from(completion.receipt.answer_tokens());
        self.keep(completion);
    }

    /// Puts a job on it whose answer is not text.
    pub(super) fn add_read(&mut self, completion: &Completion) {
        self.prompt += u64::from(completion.receipt.usage.prompt_tokens);
        self.keep(completion);
    }

    /// Puts a job on it whose tokens do not count.
    pub(super) fn keep(&mut self, completion: &Completion) {
        self.job.get_or_insert(completion.receipt.job);
        self.receipts.push(receipt(completion));
    }

    pub(super) fn usage(&self) -> Value {
        json!({ "prompt_tokens": self.prompt, "completion_tokens": self.completion,
                "total_tokens": self.prompt + self.completion })
    }

    /// What was only read.
    pub(super) fn read(&self) -> Value {
        json!({ "prompt_tokens": self.prompt, "total_tokens": self.prompt })
    }

    /// Tokens read and written.
    pub(super) fn tokens(&self) -> (u64, u64) {
        (self.prompt, self.completion)
    }

    /// Its first job.
    pub(super) fn job(&self) -> Option<JobId> {
        self.job
    }

    pub(super) fn receipts(&self) -> Value {
        let mut first = self.receipts.first().cloned().unwrap_or_else(|| json!({}));
        if self.receipts.len() > 1 {
            first["choices"] = self.receipts.clone().into();
        }
        first
    }
}

/// Which receipt answers for a job.
fn receipt(completion: &Completion) -> Value {
    json!({ "receipt": completion.receipt.digest(), "provider": completion.receipt.signer() })
}

/// A reply in one piece with the headers that name its first job and its receipts.
pub(super) fn stamped(job: Option<JobId>, bill: &Bill, reply: impl IntoResponse) -> Response {
    let mut response = reply.into_response();
    let receipts: Vec<&str> =
        bill.receipts.iter().take(MAX_HEADED).filter_map(|receipt| receipt["receipt"].as_str()).collect();
    let headers = [(REQUEST_ID, job.map(|job| job.to_string())), (RECEIPT, Some(receipts.join(", ")))];
    for (name, value) in headers {
        if let Some(value) =
            value.and_then(|value| HeaderValue::try_from(value).ok()).filter(|v| !v.is_empty())
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A stream of events that names its first job.
pub(super) fn stream(job: JobId, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    use futures::StreamExt;
    let events = events.map(Ok::<_, Infallible>);
    let stream = Sse::new(events).keep_alive(KeepAlive::default());
    stamped(Some(job), &Bill::default(), stream)
}

pub(super) fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::EndOfText | Finish::Stop => "stop",
        Finish::Length => "length",
    }
}
