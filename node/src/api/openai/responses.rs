//! `/v1/responses`: the same conversations in other words, with a memory: a response can be gone on with by its name.
//!
//! Responses are kept in memory only, for a day at most and while there is room; a peer that was restarted knows none.
//!
//! | module | what it answers |
//! |---|---|
//! | `items` | what was said, as items, and what is said in return |
//! | `events` | a response as a stream of events |
//! | `store` | responses that can be gone on with |

mod events;
mod items;
mod store;
#[cfg(test)]
mod tests;

use axum::Json;
use axum::extract::Path;
use axum::response::Response;
use protocol::{ChatMessage, JobId, Role};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::body::{Body, parse};
use super::messages::{Calling, ResponseFormat};
use super::reply::{Bill, stamped, stream};
use super::turn::{Begun, Said, Turn};
use super::{Choosing, Error, Gateway};
use crate::clock;
use crate::request::JobRequest;
use items::{FunctionTool, Items};
pub(super) use store::Store;
use store::Stored;

/// What this build understands of a request.
#[derive(Debug, Deserialize)]
pub(super) struct ResponseRequest {
    input: Items,
    instructions: Option<String>,
    tools: Option<Vec<FunctionTool>>,
    tool_choice: Option<Calling>,
    parallel_tool_calls: Option<bool>,
    text: Option<Text>,
    max_output_tokens: Option<u32>,
    previous_response_id: Option<String>,
    store: Option<bool>,
    background: Option<bool>,
    conversation: Option<IgnoredAny>,
    prompt: Option<IgnoredAny>,
    #[serde(flatten)]
    choosing: Choosing,
}

#[derive(Debug, Deserialize)]
struct Text {
    format: Option<ResponseFormat>,
}

/// What of a request a response says again, as it was written.
#[derive(Debug, Deserialize)]
struct Echo {
    instructions: Option<Value>,
    max_output_tokens: Option<Value>,
    metadata: Option<Value>,
    parallel_tool_calls: Option<Value>,
    previous_response_id: Option<Value>,
    temperature: Option<Value>,
    text: Option<Value>,
    tool_choice: Option<Value>,
    tools: Option<Value>,
    top_p: Option<Value>,
    user: Option<Value>,
}

pub(super) async fn answer(gateway: Gateway, body: Body<ResponseRequest>) -> Result<Response, Error> {
    answered(gateway, body).await.map_err(|error| error.called(&PARAMETERS))
}

/// What a response calls the parts of a chat or a job.
const PARAMETERS: [(&str, &str); 7] = [
    ("constraint", "text.format"),
    ("content", "input"),
    ("max_tokens", "max_output_tokens"),
    ("messages", "input"),
    ("prompt", "input"),
    ("response_format", "text.format"),
    ("role", "input"),
];

async fn answered(
    gateway: Gateway,
    Body { request, options, bytes }: Body<ResponseRequest>,
) -> Result<Response, Error> {
    let echo = parse(&bytes)?;
    let said = request.said(&gateway)?;
    let turn = request.turn(&said)?;
    let Begun { course, aimed, calling } = turn.begin(&gateway, &request.choosing, &options).await?;
    let job = course.job(0);
    let record = Record {
        job,
        created: clock::now().0 / 1000,
        model: aimed.model.clone(),
        chosen: aimed.chosen.clone(),
        echo,
        kept: request.store != Some(false),
        said,
    };
    if request.choosing.streams() {
        let course = course.begun().await.map_err(|error| aimed.error(error))?;
        let events = events::events(course, (record, aimed), calling, gateway);
        return Ok(stream(job, events));
    }
    let told = course.all().await.map_err(|error| aimed.error(error))?;
    let told = told.first().ok_or_else(|| Error::from(protocol::JobError::Engine))?;
    let (said, mut bill) = (Said::of(told, calling), Bill::default());
    bill.add(&told.completion);
    let whole = record.whole(&said, &bill);
    record.keep(&gateway, &said, &whole);
    Ok(stamped(Some(job), &bill, Json(whole)))
}

pub(super) async fn one(gateway: Gateway, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    let found =
        gateway.memory.responses().get(clock::now(), gateway.caller, &id).map(|stored| stored.body.clone());
    found.map(Json).ok_or_else(|| Error::unknown_response(&id))
}

pub(super) async fn delete(gateway: Gateway, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    if gateway.memory.responses().remove(clock::now(), gateway.caller, &id) {
        return Ok(Json(json!({ "id": id, "object": "response", "deleted": true })));
    }
    Err(Error::unknown_response(&id))
}

impl ResponseRequest {
    /// The job of a conversation that begins here.
    pub(super) fn job(&self) -> Result<JobRequest, Error> {
        let mut said = Vec::new();
        self.input.append(&mut said)?;
        Ok(self.turn(&said)?.job(&self.choosing))
    }

    /// The conversation so far, with what is said now.
    fn said(&self, gateway: &Gateway) -> Result<Vec<ChatMessage>, Error> {
        let mut said = match &self.previous_response_id {
            Some(id) => {
                let mut store = gateway.memory.responses();
                let stored = store.get(clock::now(), gateway.caller, id);
                let stored = stored.ok_or_else(|| Error::unknown_previous(id))?;
                stored.messages.clone()
            }
            None => Vec::new(),
        };
        self.input.append(&mut said)?;
        Ok(said)
    }

    /// What would be another answer without it is refused rather than ignored.
    fn check(&self) -> Result<(), Error> {
        let unsupported = |param: &str, message: &str| Err(Error::unsupported(message).about(param));
        if self.background == Some(true) {
            let message = "responses in the background are not supported: stream this one, or wait for it";
            return unsupported("background", message);
        }
        if self.conversation.is_some() {
            let message = "conversations are not kept here: go on with `previous_response_id`";
            return unsupported("conversation", message);
        }
        if self.prompt.is_some() {
            return unsupported("prompt", "prompts are not kept here: put their text into `instructions`");
        }
        if self.choosing.choices()? != 1 {
            return unsupported("n", "a response is one answer: n must be 1");
        }
        Ok(())
    }

    fn turn(&self, said: &[ChatMessage]) -> Result<Turn, Error> {
        self.check()?;
        // Instructions hold for one turn, and are no part of what was said.
        let instructions = self.instructions.iter().map(|text| ChatMessage::new(Role::System, text));
        let format = self.text.as_ref().and_then(|text| text.format.as_ref());
        Ok(Turn {
            messages: instructions.chain(said.iter().cloned()).collect(),
            max_tokens: self.max_output_tokens,
            logprobs: None,
            form: format.map_or(Ok(None), ResponseFormat::form)?,
            tools: self.tools.iter().flatten().map(FunctionTool::offer).collect::<Result<_, _>>()?,
            tool_choice: self.tool_choice.as_ref().map(Calling::choice).transpose()?,
            one_call: self.parallel_tool_calls == Some(false),
        })
    }
}

/// A response, but for its answer.
#[derive(Debug)]
struct Record {
    job: JobId,
    created: u64,
    model: String,
    /// What this peer chose, and why.
    chosen: Option<Value>,
    echo: Echo,
    /// Whether it can be gone on with.
    kept: bool,
    /// The conversation up to the answer.
    said: Vec<ChatMessage>,
}

impl Record {
    fn id(&self) -> String {
        format!("resp_{}", self.job)
    }

    /// With what there is of its answer.
    fn value(&self, status: &str, output: Vec<Value>) -> Value {
        let Echo { instructions, max_output_tokens, metadata, parallel_tool_calls, .. } = &self.echo;
        let Echo { previous_response_id, temperature, text, tool_choice, tools, top_p, user, .. } =
            &self.echo;
        json!({
            "id": self.id(), "object": "response", "created_at": self.created, "status": status,
            "background": false, "error": null, "incomplete_details": null, "instructions": instructions,
            "max_output_tokens": max_output_tokens, "max_tool_calls": null,
            "metadata": or(metadata, json!({})), "model": self.model, "output": output,
            "parallel_tool_calls": or(parallel_tool_calls, json!(true)),
            "previous_response_id": previous_response_id, "prompt_cache_key": null,
            "reasoning": { "effort": null, "summary": null }, "safety_identifier": null,
            "service_tier": "default", "store": self.kept, "temperature": or(temperature, json!(1.0)),
            "text": or(text, json!({ "format": { "type": "text" } })),
            "tool_choice": or(tool_choice, json!("auto")), "tools": or(tools, json!([])),
            "top_logprobs": 0, "top_p": or(top_p, json!(1.0)), "truncation": "disabled", "usage": null,
            "user": user,
        })
    }

    /// With its whole answer.
    fn whole(&self, said: &Said, bill: &Bill) -> Value {
        let status = items::status(said);
        let mut whole = self.value(status, items::output(self.job, said));
        if status == "incomplete" {
            whole["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        let (read, written) = bill.tokens();
        whole["usage"] = json!({
            "input_tokens": read, "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": written, "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": read + written,
        });
        whole["llamesh"] = bill.receipts();
        if let Some(chosen) = &self.chosen {
            whole["llamesh"]["chosen"] = chosen.clone();
        }
        whole
    }

    /// Remembers it, unless the client does not want that.
    fn keep(&self, gateway: &Gateway, said: &Said, whole: &Value) {
        if self.kept {
            let messages = self.said.iter().cloned().chain([items::message(said)]).collect();
            let stored = Stored { owner: gateway.caller, messages, body: whole.clone() };
            gateway.memory.responses().keep(clock::now(), self.id(), stored);
        }
    }
}

fn or(said: &Option<Value>, usual: Value) -> Value {
    said.clone().unwrap_or(usual)
}
