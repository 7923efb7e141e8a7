//! `/v1/chat/completions`: a conversation goes on, whole or streamed, once or several times at once.
//!
//! Text is passed on as it comes. Where tools may be called, an answer is held back until it is whole, because only then
//! it is known what of it is text and what is a call.

use std::collections::VecDeque;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use futures::Stream;
use futures::stream::unfold;
use inference::ToolCall;
use protocol::event::Completion;
use protocol::{Logprobs, Token, ToolChoice};
use serde::Deserialize;
use serde_json::{Value, json};

use super::course::{Course, News, Told};
use super::messages::{Calling, Message, ResponseFormat, Tool};
use super::reply::{Bill, Reply, events, reason, receipt};
use super::{Api, Choosing, Error, likely, tools};
use crate::api::control;
use crate::request::JobRequest;

/// What this build understands of a request.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    messages: Vec<Message>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    logprobs: Option<bool>,
    top_logprobs: Option<u8>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<Calling>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<ResponseFormat>,
    #[serde(flatten)]
    choosing: Choosing,
}

pub(super) async fn answer(
    State(api): State<Api>,
    body: Result<Json<ChatRequest>, JsonRejection>,
) -> Result<Response, Error> {
    let Json(request) = body.map_err(|rejection| Error::invalid(rejection.body_text()))?;
    let choices = request.choosing.choices()?;
    let calling = request.calling()?;
    let spec = control::spec(&api.node, &request.job()?).await?;
    let specs = (0..choices).map(|choice| {
        let mut spec = spec.clone();
        spec.sampling.choice = choice;
        spec
    });
    let course = Course::start(&api.node, specs.collect())?;
    let reply = Reply::chat(course.job(0), &request.choosing.model, request.choosing.counts());
    if request.choosing.streams() {
        return Ok(events(chunks(course, reply, calling)));
    }
    Ok(Json(whole(course, &reply, calling).await?).into_response())
}

/// What of an answer is taken for calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calls {
    /// No tool may be called: all of it is text.
    Never,
    /// One at most.
    One,
    /// As many as there are.
    Many,
}

impl ChatRequest {
    fn job(&self) -> Result<JobRequest, Error> {
        let logprobs = match (self.logprobs, self.top_logprobs) {
            (Some(true), top) => Some(top.unwrap_or(0)),
            (_, None) => None,
            (_, Some(_)) => return Err(Error::invalid("top_logprobs needs logprobs to be true")),
        };
        let offers = self.tools.iter().flatten().map(Tool::offer).collect::<Result<Vec<_>, _>>()?;
        Ok(JobRequest {
            messages: self.messages.iter().map(Message::message).collect::<Result<_, _>>()?,
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            logprobs,
            constraint: self.response_format.as_ref().map_or(Ok(None), ResponseFormat::form)?,
            tool_choice: self.tool_choice.as_ref().map(Calling::choice).transpose()?,
            tools: offers,
            ..self.choosing.job()
        })
    }

    fn calling(&self) -> Result<Calls, Error> {
        let choice = self.tool_choice.as_ref().map(Calling::choice).transpose()?;
        Ok(match (self.tools.as_ref().is_none_or(Vec::is_empty), choice, self.parallel_tool_calls) {
            (true, ..) | (_, Some(ToolChoice::None), _) => Calls::Never,
            (_, _, Some(false)) => Calls::One,
            _ => Calls::Many,
        })
    }
}

/// An answer as a message: its text, and what it calls.
struct Said {
    text: String,
    calls: Vec<Value>,
    finish: &'static str,
}

impl Said {
    fn of(told: &Told, calling: Calls) -> Self {
        let receipt = told.completion.receipt.value();
        let most = match calling {
            Calls::Never => 0,
            Calls::One => 1,
            Calls::Many => usize::MAX,
        };
        let text = told.text();
        let (text, calls) = if most == 0 { (text, Vec::new()) } else { tools::parse(&text) };
        let name =
            |(index, call): (usize, &ToolCall)| tools::value(call, &format!("call_{}_{index}", receipt.job));
        let calls: Vec<Value> = calls.iter().take(most).enumerate().map(name).collect();
        let finish = if calls.is_empty() { reason(receipt.finish) } else { "tool_calls" };
        Self { text, calls, finish }
    }

    fn message(self) -> Value {
        let silent = self.text.is_empty() && !self.calls.is_empty();
        let content = if silent { Value::Null } else { self.text.into() };
        let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
        if !self.calls.is_empty() {
            message["tool_calls"] = self.calls.into();
        }
        message
    }
}

fn logprobs_of(tokens: &[(Token, Option<Logprobs>)]) -> Value {
    likely::of_chat(tokens.iter().map(|(token, logprobs)| (token, logprobs.as_ref())))
}

async fn whole(course: Course, reply: &Reply, calling: Calls) -> Result<Value, Error> {
    let (mut choices, mut bill) = (Vec::new(), Bill::default());
    for (index, told) in course.all().await?.iter().enumerate() {
        bill.add(&told.completion);
        let said = Said::of(told, calling);
        let finish = said.finish;
        choices.push(json!({ "index": index, "logprobs": logprobs_of(&told.tokens), "finish_reason": finish,
                             "message": said.message() }));
    }
    Ok(reply.whole(choices, &bill))
}

/// A reply that is being streamed.
struct Streamed {
    course: Course,
    reply: Reply,
    calling: Calls,
    bill: Bill,
    /// Of each choice, what is held back.
    held: Vec<Vec<(Token, Option<Logprobs>)>>,
    queue: VecDeque<String>,
}

/// Everything that events become; the stream ends after `[DONE]`, or after an error.
fn chunks(course: Course, reply: Reply, calling: Calls) -> impl Stream<Item = String> {
    let count = course.len();
    let mut streamed = Streamed {
        course,
        reply,
        calling,
        bill: Bill::default(),
        held: vec![Vec::new(); count],
        queue: VecDeque::new(),
    };
    for index in 0..count {
        streamed.say(index, &json!({ "role": "assistant", "content": "" }), Value::Null);
    }
    unfold(streamed, |mut streamed| async move {
        while streamed.queue.is_empty() {
            match streamed.course.next().await? {
                Ok(news) => streamed.tell(news),
                Err(error) => streamed.queue.push_back(Error::from(error).body().to_string()),
            }
        }
        let line = streamed.queue.pop_front()?;
        Some((line, streamed))
    })
}

impl Streamed {
    fn tell(&mut self, (index, news): (usize, News)) {
        match news {
            News::Token(token, logprobs) if self.calling != Calls::Never => {
                self.held[index].push((token, logprobs));
            }
            News::Token(token, logprobs) => {
                if !token.text.is_empty() || logprobs.is_some() {
                    let likely = likely::of_chat([(&token, logprobs.as_ref())]);
                    self.say(index, &json!({ "content": token.text }), likely);
                }
            }
            News::Done(completion) => self.finish(index, completion),
        }
    }

    fn finish(&mut self, index: usize, completion: Box<Completion>) {
        let told = Told { tokens: std::mem::take(&mut self.held[index]), completion };
        let said = Said::of(&told, self.calling);
        let finish = said.finish;
        if !said.text.is_empty() {
            self.say(index, &json!({ "content": said.text }), logprobs_of(&told.tokens));
        }
        for (at, mut call) in said.calls.into_iter().enumerate() {
            call["index"] = at.into();
            self.say(index, &json!({ "tool_calls": [call] }), Value::Null);
        }
        let choice = json!({ "index": index, "delta": {}, "logprobs": null, "finish_reason": finish });
        let mut last = self.reply.chunk(choice);
        last["llamesh"] = receipt(&told.completion);
        self.queue.push_back(last.to_string());
        self.bill.add(&told.completion);
        if self.course.is_over() {
            self.queue.extend(self.reply.end(&self.bill));
        }
    }

    fn say(&mut self, index: usize, delta: &Value, logprobs: Value) {
        let choice = json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null });
        self.queue.push_back(self.reply.chunk(choice).to_string());
    }
}
