//! `/v1/chat/completions`: a conversation goes on, whole or streamed, once or several times at once.
//!
//! Text is passed on as it comes. Where tools may be called, an answer is held back until it is whole, because only then
//! it is known what of it is text and what is a call.

use std::collections::VecDeque;

use axum::response::Response;
use futures::Stream;
use futures::stream::unfold;
use protocol::event::Completion;
use protocol::{ChatMessage, Logprobs, Token};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::course::{Course, News, Told};
use super::messages::{Calling, Message, ResponseFormat, Tool};
use super::reply::{Bill, Reply};
use super::target::Aimed;
use super::turn::{Begun, Called, Calls, Said, Turn};
use super::{Choosing, Error, Gateway, likely};
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

pub(super) async fn answer(gateway: Gateway, body: Body<ChatRequest>) -> Result<Response, Error> {
    let limit = body.request.max_completion_tokens.map_or("max_tokens", |_| "max_completion_tokens");
    let answer = answered(gateway, body).await;
    answer.map_err(|error| error.called(&PARAMETERS).called(&[("max_tokens", limit)]))
}

/// What a chat calls the parts of a job.
const PARAMETERS: [(&str, &str); 4] = [
    ("constraint", "response_format"),
    ("input", "messages"),
    ("logprobs", "top_logprobs"),
    ("prompt", "messages"),
];

async fn answered(
    gateway: Gateway,
    Body { request, options, .. }: Body<ChatRequest>,
) -> Result<Response, Error> {
    let (turn, choosing) = (request.turn()?, &request.choosing);
    let Begun { course, aimed, calling } = turn.begin(&gateway, choosing, &options).await?;
    let reply = Reply::chat(course.job(0), &aimed, choosing.counts());
    if choosing.streams() {
        let course = course.begun().await.map_err(|error| aimed.error(error))?;
        return Ok(reply.stream(chunks(course, reply.clone(), aimed, calling)));
    }
    let told = course.all().await.map_err(|error| aimed.error(error))?;
    Ok(whole(&told, &reply, calling))
}

impl ChatRequest {
    /// The job of one choice.
    pub(super) fn job(&self) -> Result<JobRequest, Error> {
        self.choosing.choices()?;
        Ok(self.turn()?.job(&self.choosing))
    }

    fn messages(&self) -> Result<Vec<ChatMessage>, Error> {
        let message = |(at, message): (usize, &Message)| {
            message.message().map_err(|error| error.within(&format!("messages[{at}]")))
        };
        self.messages.iter().enumerate().map(message).collect()
    }

    fn turn(&self) -> Result<Turn, Error> {
        let logprobs = match (self.logprobs, self.top_logprobs) {
            (Some(true), top) => Some(top.unwrap_or(0)),
            (_, None) => None,
            (_, Some(_)) => {
                return Err(Error::invalid("top_logprobs needs logprobs to be true").about("top_logprobs"));
            }
        };
        Ok(Turn {
            messages: self.messages()?,
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            logprobs,
            form: self.response_format.as_ref().map_or(Ok(None), ResponseFormat::form)?,
            tools: self.tools.iter().flatten().map(Tool::offer).collect::<Result<_, _>>()?,
            tool_choice: self.tool_choice.as_ref().map(Calling::choice).transpose()?,
            one_call: self.parallel_tool_calls == Some(false),
        })
    }
}

fn message(said: Said) -> Value {
    let silent = said.text.is_empty() && !said.calls.is_empty();
    let content = if silent { Value::Null } else { said.text.into() };
    let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
    if !said.calls.is_empty() {
        message["tool_calls"] = said.calls.iter().map(Called::value).collect();
    }
    message
}

fn logprobs_of(tokens: &[(Token, Option<Logprobs>)]) -> Value {
    likely::of_chat(tokens.iter().map(|(token, logprobs)| (token, logprobs.as_ref())))
}

fn whole(told: &[Told], reply: &Reply, calling: Calls) -> Response {
    let (mut choices, mut bill) = (Vec::new(), Bill::default());
    for (index, told) in told.iter().enumerate() {
        bill.add(&told.completion);
        let said = Said::of(told, calling);
        let finish = said.finish;
        choices.push(json!({ "index": index, "logprobs": logprobs_of(&told.tokens), "finish_reason": finish,
                             "message": message(said) }));
    }
    reply.whole(choices, &bill)
}

/// A reply that is being streamed.
struct Streamed {
    course: Course,
    reply: Reply,
    aimed: Aimed,
    calling: Calls,
    bill: Bill,
    /// Of each choice, what is held back.
    held: Vec<Vec<(Token, Option<Logprobs>)>>,
    queue: VecDeque<String>,
}

/// Everything that events become; the stream ends after `[DONE]`, or after an error.
fn chunks(course: Course, reply: Reply, aimed: Aimed, calling: Calls) -> impl Stream<Item = String> {
    let count = course.len();
    let mut streamed = Streamed {
        course,
        reply,
        aimed,
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
                Err(error) => streamed.queue.push_back(streamed.aimed.error(error).body().to_string()),
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
        if self.calling != Calls::Never && !said.text.is_empty() {
            self.say(index, &json!({ "content": said.text }), logprobs_of(&told.tokens));
        }
        for (at, call) in said.calls.iter().enumerate() {
            let mut call = call.value();
            call["index"] = at.into();
            self.say(index, &json!({ "tool_calls": [call] }), Value::Null);
        }
        let choice = json!({ "index": index, "delta": {}, "logprobs": null, "finish_reason": finish });
        self.queue.push_back(self.reply.last_chunk(choice, &told.completion).to_string());
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
