//! A response as a stream of events, in the order in which clients expect them: the response, an item, its parts, what is
//! in them, and the same back.
//!
//! Where tools may be called, the answer is held back until it is whole, as in a chat.

use std::collections::VecDeque;

use axum::response::sse::Event;
use futures::Stream;
use futures::stream::unfold;
use protocol::event::Completion;
use protocol::{Logprobs, Token};
use serde_json::{Value, json};

use super::{Record, items};
use crate::api::openai::course::{Course, News, Told};
use crate::api::openai::reply::Bill;
use crate::api::openai::target::Aimed;
use crate::api::openai::turn::{Called, Calls, Said};
use crate::api::openai::{Error, Gateway};

/// A response that is being streamed.
struct Streamed {
    course: Course,
    aimed: Aimed,
    gateway: Gateway,
    script: Script,
}

/// Everything that the news of a job becomes; the stream ends after the response is over.
pub(super) fn events(
    course: Course,
    (record, aimed): (Record, Aimed),
    calling: Calls,
    gateway: Gateway,
) -> impl Stream<Item = Event> {
    let streamed = Streamed { course, aimed, gateway, script: Script::new(record, calling) };
    unfold(streamed, |mut streamed| async move {
        while streamed.script.queue.is_empty() {
            match streamed.course.next().await? {
                Ok((_, News::Token(token, logprobs))) => streamed.script.on_token(token, logprobs),
                Ok((_, News::Done(completion))) => {
                    let (said, whole) = streamed.script.on_done(completion);
                    streamed.script.record.keep(&streamed.gateway, &said, &whole);
                }
                Err(error) => {
                    let error = streamed.aimed.error(error);
                    streamed.script.on_failed(&error);
                }
            }
        }
        let event = streamed.script.queue.pop_front()?;
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        Some((Event::default().event(kind).data(event.to_string()), streamed))
    })
}

/// What is told, in order.
pub(super) struct Script {
    pub(super) record: Record,
    calling: Calls,
    tokens: Vec<(Token, Option<Logprobs>)>,
    /// Whether the message's item has been told of.
    begun: bool,
    /// The next event's number.
    number: u64,
    pub(super) queue: VecDeque<Value>,
}

impl Script {
    pub(super) fn new(record: Record, calling: Calls) -> Self {
        let queue = VecDeque::new();
        let mut script = Self { record, calling, tokens: Vec::new(), begun: false, number: 0, queue };
        for kind in ["response.created", "response.in_progress"] {
            let response = script.record.value("in_progress", Vec::new());
            script.push(kind, json!({ "response": response }));
        }
        script
    }

    pub(super) fn on_token(&mut self, token: Token, logprobs: Option<Logprobs>) {
        if self.calling == Calls::Never && !token.text.is_empty() {
            self.say(&token.text);
        }
        self.tokens.push((token, logprobs));
    }

    /// The answer, and the whole response.
    pub(super) fn on_done(&mut self, completion: Box<Completion>) -> (Said, Value) {
        let mut bill = Bill::default();
        bill.add(&completion);
        let told = Told { tokens: std::mem::take(&mut self.tokens), completion };
        let said = Said::of(&told, self.calling);
        if items::speaks(&said) {
            self.finish_message(&said);
        }
        for (at, called) in said.calls.iter().enumerate() {
            self.call(at, at + usize::from(items::speaks(&said)), called);
        }
        let whole = self.record.whole(&said, &bill);
        let kind = if said.finish == "length" { "response.incomplete" } else { "response.completed" };
        self.push(kind, json!({ "response": whole }));
        (said, whole)
    }

    pub(super) fn on_failed(&mut self, error: &Error) {
        let mut response = self.record.value("failed", Vec::new());
        response["error"] = json!({ "code": error.code(), "message": error.message() });
        self.push("response.failed", json!({ "response": response }));
    }

    fn say(&mut self, text: &str) {
        let id = items::message_id(self.record.job);
        if !std::mem::replace(&mut self.begun, true) {
            let item = items::message_item(self.record.job, "in_progress", None);
            self.push("response.output_item.added", json!({ "output_index": 0, "item": item }));
            self.at_part(&id, "response.content_part.added", json!({ "part": items::part("") }));
        }
        if !text.is_empty() {
            self.at_part(&id, "response.output_text.delta", json!({ "delta": text, "logprobs": [] }));
        }
    }

    fn finish_message(&mut self, said: &Said) {
        let text = said.text.as_str();
        if !self.begun {
            self.say(text);
        }
        let id = items::message_id(self.record.job);
        self.at_part(&id, "response.output_text.done", json!({ "text": text, "logprobs": [] }));
        self.at_part(&id, "response.content_part.done", json!({ "part": items::part(text) }));
        let item = items::message_item(self.record.job, items::status(said), Some(text));
        self.push("response.output_item.done", json!({ "output_index": 0, "item": item }));
    }

    /// A call, which is the answer's item of that index.
    fn call(&mut self, at: usize, index: usize, called: &Called) {
        let begun = items::call_item(self.record.job, at, called, false);
        let whole = items::call_item(self.record.job, at, called, true);
        let (id, arguments) = (whole["id"].clone(), &called.call.arguments);
        self.push("response.output_item.added", json!({ "output_index": index, "item": begun }));
        let delta = json!({ "output_index": index, "item_id": id, "delta": arguments });
        self.push("response.function_call_arguments.delta", delta);
        let done =
            json!({ "output_index": index, "item_id": id, "name": called.call.name, "arguments": arguments });
        self.push("response.function_call_arguments.done", done);
        self.push("response.output_item.done", json!({ "output_index": index, "item": whole }));
    }

    /// An event about the only part of the message.
    fn at_part(&mut self, id: &str, kind: &str, mut event: Value) {
        event["item_id"] = id.into();
        event["output_index"] = 0.into();
        event["content_index"] = 0.into();
        self.push(kind, event);
    }

    fn push(&mut self, kind: &str, mut event: Value) {
        event["type"] = kind.into();
        event["sequence_number"] = self.number.into();
        self.number += 1;
        self.queue.push_back(event);
    }
}
