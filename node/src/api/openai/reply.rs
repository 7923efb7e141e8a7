//! What replies of all kinds share: who answers, what it took, and which receipts answer for it.

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use protocol::event::Completion;
use protocol::{Finish, JobId};
use serde_json::{Value, json};

use crate::clock;

/// What all chunks of a reply share.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    id: String,
    created: u64,
    model: String,
    /// What it is called, whole and in part.
    objects: (&'static str, &'static str),
    /// Whether a stream tells what was read and written.
    counts: bool,
}

impl Reply {
    pub(super) fn chat(job: JobId, model: &str, counts: bool) -> Self {
        let objects = ("chat.completion", "chat.completion.chunk");
        Self::new(format!("chatcmpl-{job}"), model, objects, counts)
    }

    pub(super) fn text(job: JobId, model: &str, counts: bool) -> Self {
        Self::new(format!("cmpl-{job}"), model, ("text_completion", "text_completion"), counts)
    }

    fn new(id: String, model: &str, objects: (&'static str, &'static str), counts: bool) -> Self {
        Self { id, created: clock::now().0 / 1000, model: model.to_owned(), objects, counts }
    }

    /// A reply in one piece.
    pub(super) fn whole(&self, choices: Vec<Value>, bill: &Bill) -> Value {
        let mut whole = self.value(self.objects.0, choices.into());
        whole["usage"] = bill.usage();
        whole["llamesh"] = bill.receipts();
        whole
    }

    /// A part of a stream, of one choice.
    pub(super) fn chunk(&self, choice: Value) -> Value {
        let mut chunk = self.value(self.objects.1, json!([choice]));
        if self.counts {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// What comes after the last choice's end.
    pub(super) fn end(&self, bill: &Bill) -> Vec<String> {
        let counted = self.counts.then(|| {
            let mut chunk = self.value(self.objects.1, json!([]));
            chunk["usage"] = bill.usage();
            chunk.to_string()
        });
        counted.into_iter().chain(["[DONE]".to_owned()]).collect()
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
    receipts: Vec<Value>,
}

impl Bill {
    /// Puts a job on it.
    pub(super) fn add(&mut self, completion: &Completion) {
        // Whoever wrote them: the client asked once, and got one answer.
        self.prompt += u64::from(completion.receipt.prompt_tokens());
        self.completion += u64::from(completion.receipt.answer_tokens());
        self.receipts.push(receipt(completion));
    }

    /// Puts a job on it whose answer is not text.
    pub(super) fn add_read(&mut self, completion: &Completion) {
        self.prompt += u64::from(completion.receipt.usage.prompt_tokens);
        self.receipts.push(receipt(completion));
    }

    pub(super) fn usage(&self) -> Value {
        json!({ "prompt_tokens": self.prompt, "completion_tokens": self.completion,
                "total_tokens": self.prompt + self.completion })
    }

    fn receipts(&self) -> Value {
        let mut first = self.receipts.first().cloned().unwrap_or(Value::Null);
        if self.receipts.len() > 1 {
            first["choices"] = self.receipts.clone().into();
        }
        first
    }
}

/// Which receipt answers for a job.
pub(super) fn receipt(completion: &Completion) -> Value {
    json!({ "receipt": completion.receipt.digest(), "provider": completion.receipt.signer() })
}

pub(super) fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::EndOfText | Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

/// A stream of events; whoever leaves it drops it, and with it the jobs.
pub(super) fn events(lines: impl Stream<Item = String> + Send + 'static) -> Response {
    use futures::StreamExt;
    let events = lines.map(|line| Ok::<_, Infallible>(Event::default().data(line)));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
