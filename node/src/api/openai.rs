//! `/v1`: OpenAI's shape, answered by the mesh. Translation only: a request becomes a [`JobRequest`], events become
//! chunks. Fields that this build does not know are ignored, as OpenAI's own clients expect.
//!
//! `model` is a name on offer, a known name, a digest, or `auto` (any model). The reply's id is the job's name, and
//! the final chunk carries the receipt's digest in the extension object `llamesh`.

use std::convert::Infallible;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::Stream;
use futures::stream::unfold;
use protocol::error::Feature;
use protocol::{ChatMessage, Finish, JobError, Role, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use crate::clock;
use crate::handle::JobStream;
use crate::request::{JobRequest, JobUpdate};

/// The paths.
pub fn router() -> Router<Api> {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{id}", get(model))
        .route("/v1/chat/completions", post(chat))
}

/// An error in OpenAI's shape.
#[derive(Debug)]
pub struct Error {
    status: StatusCode,
    code: String,
    message: String,
}

impl Error {
    /// For paths that are not there.
    pub fn unknown_path() -> Self {
        let message = "no such path; this peer serves /v1/models and /v1/chat/completions".to_owned();
        Self { status: StatusCode::NOT_FOUND, code: "not_found".to_owned(), message }
    }

    fn invalid(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "invalid_request".to_owned(), message }
    }

    fn of(code: &str, message: String) -> Self {
        let status = match code {
            "context_exceeded" | "invalid" | "limit" | "unsupported" => StatusCode::BAD_REQUEST,
            "busy" => StatusCode::TOO_MANY_REQUESTS,
            "nothing_offered" => StatusCode::NOT_FOUND,
            "no_taker" | "order" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self { status, code: code.to_owned(), message }
    }

    fn body(&self) -> Value {
        let kind = if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        json!({ "error": { "message": self.message, "type": kind, "param": null, "code": self.code } })
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Self {
        Self::of(error.code(), error.to_string())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}

async fn models(State(api): State<Api>) -> Result<Json<Value>, Error> {
    Ok(Json(json!({ "object": "list", "data": on_offer(&api).await? })))
}

async fn model(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    let found = on_offer(&api).await?.into_iter().find(|model| model["id"] == id.as_str());
    found.map(Json).ok_or_else(|| Error {
        status: StatusCode::NOT_FOUND,
        code: "model_not_found".to_owned(),
        message: format!("no peer offers the model `{id}`; see /v1/models"),
    })
}

async fn on_offer(api: &Api) -> Result<Vec<Value>, Error> {
    let busy = |_| Error::from(JobError::Busy { retry_after_ms: 1000 });
    let profiles = api.node.find(None).await.map_err(busy)?;
    let mut models: Vec<_> =
        profiles.iter().flat_map(|p| p.agents.iter().filter_map(|a| a.model.as_ref())).collect();
    models.sort_by(|a, b| (&a.name, a.digest).cmp(&(&b.name, b.digest)));
    models.dedup_by_key(|model| model.digest);
    Ok(models
        .into_iter()
        .map(|model| json!({ "id": model.name, "object": "model", "created": 0, "owned_by": "llamesh", "digest": model.digest }))
        .collect())
}

/// What this build understands of a request.
#[derive(Debug, Deserialize)]
struct ChatRequest {
    model: String,
    messages: Vec<IncomingMessage>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<Stop>,
    n: Option<u32>,
    #[serde(default)]
    tools: Option<Vec<serde::de::IgnoredAny>>,
    #[serde(default)]
    response_format: Option<ResponseFormat>,
}

#[derive(Debug, Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct IncomingMessage {
    role: String,
    content: Option<Content>,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Parts(Vec<Part>),
    Text(String),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

async fn chat(
    State(api): State<Api>,
    body: Result<Json<ChatRequest>, JsonRejection>,
) -> Result<Response, Error> {
    let Json(request) = body.map_err(|rejection| Error::invalid(rejection.body_text()))?;
    let job = request.job()?;
    let spec = super::control::spec(&api.node, &job).await?;
    let stream = api.node.submit(spec)?;
    let reply = Reply {
        id: format!("chatcmpl-{}", stream.job()),
        created: clock::now().0 / 1000,
        model: request.model,
    };
    if request.stream == Some(true) {
        let usage = request.stream_options.is_some_and(|options| options.include_usage == Some(true));
        return Ok(Sse::new(chunks(stream, api, reply, usage))
            .keep_alive(KeepAlive::default())
            .into_response());
    }
    Ok(Json(whole(stream, &api, &reply).await?).into_response())
}

impl ChatRequest {
    fn job(&self) -> Result<JobRequest, Error> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(JobError::Unsupported { feature: Feature::Choices }.into());
        }
        if self.tools.as_ref().is_some_and(|tools| !tools.is_empty()) {
            return Err(JobError::Unsupported { feature: Feature::JobKind }.into());
        }
        if self.response_format.as_ref().is_some_and(|format| format.kind != "text") {
            return Err(JobError::Unsupported { feature: Feature::Constraint }.into());
        }
        Ok(JobRequest {
            messages: self.messages.iter().map(IncomingMessage::message).collect::<Result<_, _>>()?,
            model: Some(self.model.clone()).filter(|model| model != "auto"),
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            temperature: Some(self.temperature.unwrap_or(1.0)),
            top_p: self.top_p,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            seed: Some(self.seed.map_or_else(fresh_seed, i64::cast_unsigned)),
            stop: match &self.stop {
                Some(Stop::One(text)) => vec![text.clone()],
                Some(Stop::Many(texts)) => texts.clone(),
                None => Vec::new(),
            },
            ..JobRequest::default()
        })
    }
}

/// A request without a seed asks for chance; the receipt tells which it was.
fn fresh_seed() -> u64 {
    clock::random().map_or(0, u64::from_le_bytes)
}

impl IncomingMessage {
    fn message(&self) -> Result<ChatMessage, Error> {
        let role = match self.role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" | "function" => Role::Tool,
            other => {
                return Err(Error::invalid(format!(
                    "`{other}` is no role: system, developer, user, assistant or tool"
                )));
            }
        };
        let content = match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => join(parts)?,
        };
        Ok(ChatMessage { role, content, name: self.name.clone() })
    }
}

fn join(parts: &[Part]) -> Result<String, Error> {
    let text = |part: &Part| match part.kind.as_str() {
        "text" => Ok(part.text.clone().unwrap_or_default()),
        other => Err(Error::invalid(format!("content of type `{other}` is not supported: only text is"))),
    };
    parts.iter().map(text).collect()
}

/// What all chunks of a reply share.
struct Reply {
    id: String,
    created: u64,
    model: String,
}

impl Reply {
    fn chunk(&self, choices: &Value) -> Value {
        json!({ "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
                "choices": choices })
    }

    fn delta(&self, delta: &Value, finish: Option<&str>) -> Value {
        self.chunk(&json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }]))
    }
}

/// Everything that an event becomes; the stream ends after `[DONE]`.
fn chunks(
    stream: JobStream,
    api: Api,
    reply: Reply,
    usage: bool,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let first = reply.delta(&json!({ "role": "assistant", "content": "" }), None);
    let queue = std::collections::VecDeque::from([first.to_string()]);
    unfold((stream, api, reply, queue), move |(mut stream, api, reply, mut queue)| async move {
        while queue.is_empty() {
            let update = JobUpdate::of(stream.job(), stream.next().await?, api.receipts.as_deref());
            queue.extend(data(&reply, usage, update));
        }
        let data = queue.pop_front()?;
        Some((Ok(Event::default().data(data)), (stream, api, reply, queue)))
    })
}

fn data(reply: &Reply, usage: bool, update: JobUpdate) -> Vec<String> {
    match update {
        JobUpdate::Token { text, .. } if !text.is_empty() => {
            vec![reply.delta(&json!({ "content": text }), None).to_string()]
        }
        JobUpdate::Done { usage: used, finish, receipt, provider, .. } => {
            let mut last = reply.delta(&json!({}), Some(reason(finish)));
            last["llamesh"] = json!({ "receipt": receipt, "provider": provider });
            let mut lines = vec![last.to_string()];
            if usage {
                let mut chunk = reply.chunk(&json!([]));
                chunk["usage"] = counts(used);
                lines.push(chunk.to_string());
            }
            lines.push("[DONE]".to_owned());
            lines
        }
        JobUpdate::Failed { code, message, .. } => vec![Error::of(&code, message).body().to_string()],
        _ => Vec::new(),
    }
}

async fn whole(mut stream: JobStream, api: &Api, reply: &Reply) -> Result<Value, Error> {
    while let Some(event) = stream.next().await {
        match JobUpdate::of(stream.job(), event, api.receipts.as_deref()) {
            JobUpdate::Done { text, usage, finish, receipt, provider, .. } => {
                let message = json!({ "role": "assistant", "content": text, "refusal": null });
                let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": reason(finish) });
                return Ok(json!({ "id": reply.id, "object": "chat.completion", "created": reply.created,
                    "model": reply.model, "choices": [choice], "usage": counts(usage),
                    "llamesh": { "receipt": receipt, "provider": provider } }));
            }
            JobUpdate::Failed { code, message, .. } => return Err(Error::of(&code, message)),
            _ => {}
        }
    }
    Err(JobError::Cancelled.into())
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::EndOfText | Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

fn counts(usage: Usage) -> Value {
    json!({ "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
            "total_tokens": u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens) })
}
