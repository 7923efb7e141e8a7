//! The agent that lends the mesh an agent elsewhere which speaks A2A 1.0.
//!
//! As with an upstream server, its words are passed on and its claims are not: the offer has no model, and every receipt
//! replays as `unverifiable`. What it sends is bounded before it is kept. Its card may name any address; only one at the
//! host that the operator gave is asked, because that is where the prompts and the key are to go.
//!
//! | module | what it answers |
//! |---|---|
//! | `card` | how is it asked? |
//! | `course` | what it says, as pieces of text and an end |

mod card;
mod course;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use protocol::error::Feature;
use protocol::{AgentOffer, Capability, Chat, Finish, Input, JobError, JobId, JobKind, Price, Speed, Token};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use self::card::{Binding, Interface};
use self::course::{Course, Event, Task};
use super::upstream::answer::{broken, complaint, events};
use super::upstream::{ApiKey, IDLE, UpstreamError, client, failed, in_time, retry_after};
use super::{Agent, Context, Job, Running};
use crate::clock;

/// Bytes of an answer in one piece, and of one event: an answer of the longest kind as JSON, with every character escaped.
const MAX_BODY: usize = 8 << 20;
/// The number of an error that is the agent's own, and not the message's.
const INTERNAL: i64 = -32603;
/// Between two looks at a task whose agent does not stream.
const LOOK: Duration = Duration::from_secs(1);
/// How long taking a task back may take.
const TAKE_BACK: Duration = Duration::from_secs(10);

/// Why an agent cannot be lent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// No address that could be asked.
    #[error(transparent)]
    Address(#[from] UpstreamError),
    /// It has no card, or one that makes no sense.
    #[error("its card cannot be had: {0}")]
    Card(String),
    /// It is asked in other ways only.
    #[error("its card names no interface for A2A 1.0 over JSON-RPC or HTTP+JSON at the same host")]
    Interface,
    /// It does not answer.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
}

/// An agent that asks an agent elsewhere.
#[derive(Clone, Debug)]
pub struct Remote {
    name: String,
    capability: Capability,
    price: Price,
    client: Client,
    key: Option<ApiKey>,
    interface: Interface,
}

impl Remote {
    /// Looks at the card below `url`, and lends its agent under a capability for a price.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn connect(
        url: &str,
        key: Option<ApiKey>,
        (capability, price): (Capability, Price),
    ) -> Result<Self, RemoteError> {
        let client = client(url)?;
        let interface = card::fetch(&client, url, key.as_ref()).await?;
        Ok(Self { name: format!("a2a-{capability}"), capability, price, client, key, interface })
    }

    /// Under another name than that of its capability; a peer with two agents elsewhere for one needs it.
    #[must_use]
    pub fn named(mut self, name: Option<String>) -> Self {
        self.name = name.unwrap_or(self.name);
        self
    }

    fn is_tool(&self) -> bool {
        Capability::tool().covers(&self.capability)
    }

    async fn serve(self: Arc<Self>, job: Job, context: Context) -> Result<Finish, JobError> {
        job.check_without(&[Feature::Constraint, Feature::Logprobs, Feature::Tools, Feature::Continuation])?;
        let deadline = clock::instant(job.order.limits.deadline);
        let mut run =
            Run { remote: Arc::clone(&self), course: Course::default(), left: job.order.sampling.max_tokens };
        in_time(deadline, run.run(&job, &context)).await
    }

    /// A call of a method, which HTTP+JSON has paths for.
    fn call(&self, method: &str, params: &Value) -> Result<RequestBuilder, JobError> {
        let id = params["id"].as_str().unwrap_or_default();
        let rest =
            |segments: &[&str]| self.interface.below(segments).ok_or_else(|| broken(&"its address is odd"));
        let request = match (self.interface.binding, method) {
            (Binding::Rpc, _) => {
                let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
                self.client.post(self.interface.url.clone()).json(&call)
            }
            (Binding::Rest, "GetTask") => self.client.get(rest(&["tasks", id])?),
            (Binding::Rest, "CancelTask") => {
                self.client.post(rest(&["tasks", &format!("{id}:cancel")])?).json(params)
            }
            (Binding::Rest, "SendStreamingMessage") => {
                self.client.post(rest(&["message:stream"])?).json(params)
            }
            (Binding::Rest, _) => self.client.post(rest(&["message:send"])?).json(params),
        };
        let request =
            request.header("A2A-Version", "1.0").header(ACCEPT, "application/json, text/event-stream");
        Ok(match &self.key {
            Some(key) => request.header(AUTHORIZATION, key.header()),
            None => request,
        })
    }

    /// Sends a call and waits for the first byte of a good answer.
    async fn send(&self, method: &str, params: &Value) -> Result<Response, JobError> {
        let response = self.call(method, params)?.send().await.map_err(|error| failed(&error))?;
        let status = response.status();
        match status {
            StatusCode::OK => Ok(response),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(JobError::Busy { retry_after_ms: retry_after(&response) })
            }
            StatusCode::BAD_REQUEST => Err(refused(self.key.as_ref(), &complaint(response).await)),
            _ => Err(broken(&format!("the agent at {} answers {status}", self.interface.url))),
        }
    }

    /// What a body or an event says, out of what JSON-RPC puts around it.
    fn read<T: DeserializeOwned>(&self, text: &str) -> Result<T, JobError> {
        let mut body: Value = serde_json::from_str(text).map_err(|error| broken(&error))?;
        if self.interface.binding == Binding::Rpc {
            if let Some(message) = body["error"]["message"].as_str() {
                let theirs = body["error"]["code"] == INTERNAL;
                return Err(if theirs { broken(&message) } else { refused(self.key.as_ref(), message) });
            }
            body = body["result"].take();
        }
        serde_json::from_value(body).map_err(|error| broken(&error))
    }
}

impl Agent for Remote {
    fn offer(&self) -> AgentOffer {
        AgentOffer {
            agent: self.name.clone(),
            capability: self.capability.clone(),
            kinds: vec![if self.is_tool() { JobKind::Call } else { JobKind::Generate }],
            model: None,
            price: self.price,
            speed: Speed::default(),
            languages: Vec::new(),
            modalities: vec!["text".to_owned()],
            tools: Vec::new(),
        }
    }

    fn run(self: Arc<Self>, job: Job, context: Context) -> Running {
        Box::pin(self.serve(job, context))
    }
}

/// One job at the agent. Dropped before its end, it takes the task back.
struct Run {
    remote: Arc<Remote>,
    course: Course,
    /// Pieces that the requester ordered.
    left: u32,
}

impl Run {
    async fn run(&mut self, job: &Job, context: &Context) -> Result<Finish, JobError> {
        let streams = self.remote.interface.streams;
        let params = sending(job.order.job, &job.input, streams)?;
        let method = if streams { "SendStreamingMessage" } else { "SendMessage" };
        let response = self.remote.send(method, &params).await?;
        let kind =
            response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("text/event-stream") {
            let mut events = Box::pin(events(response.bytes_stream(), MAX_BODY));
            loop {
                let next = timeout(IDLE, events.next()).await.map_err(|_| broken(&"it is silent"))?;
                let event = next.ok_or_else(|| broken(&"its stream ended before the task"))??;
                if let Some(finish) = self.on_event(self.remote.read(&event)?, context).await? {
                    return Ok(finish);
                }
            }
        }
        let mut event: Event = self.remote.read(&whole(response, MAX_BODY).await?)?;
        loop {
            if let Some(finish) = self.on_event(event, context).await? {
                return Ok(finish);
            }
            sleep(LOOK).await;
            let named = json!({ "id": self.course.task(), "historyLength": 0 });
            let looked = self.remote.send("GetTask", &named).await?;
            let task: Task = self.remote.read(&whole(looked, MAX_BODY).await?)?;
            event = Event::of(task);
        }
    }

    /// More pieces than the requester ordered tokens are never passed on.
    async fn on_event(&mut self, event: Event, context: &Context) -> Result<Option<Finish>, JobError> {
        let finish = self.course.on_event(event, self.remote.key.as_ref())?;
        while let Some(text) = self.course.next_piece() {
            if self.left == 0 {
                return Ok(Some(Finish::Length));
            }
            self.left -= 1;
            context.token(Token { id: None, text }).await;
        }
        Ok(finish)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let (Some(task), Ok(runtime)) = (self.course.at_work(), Handle::try_current()) else { return };
        let (remote, named) = (Arc::clone(&self.remote), json!({ "id": task }));
        runtime.spawn(async move {
            // It may be over by now; then there is nothing to take back.
            let _ = timeout(TAKE_BACK, remote.send("CancelTask", &named)).await;
        });
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("left", &self.left).finish_non_exhaustive()
    }
}

/// What the agent said against a job, without the key in it, should it have repeated that.
fn refused(key: Option<&ApiKey>, words: &str) -> JobError {
    let words = key.map_or_else(|| words.to_owned(), |key| key.hidden_in(words));
    JobError::invalid("request", &format!("was refused by the agent elsewhere: {words}"))
}

/// What is sent for a job: one message. Where nothing streams, the task is named at once, so that it can be taken back.
fn sending(job: JobId, input: &Input, streams: bool) -> Result<Value, JobError> {
    let parts = match input {
        Input::Chat(chat) => said(chat),
        Input::Text(text) => vec![json!({ "text": text })],
        Input::Json(text) => {
            let data: Value = serde_json::from_str(text).map_err(|_| JobError::Engine)?;
            vec![json!({ "data": data, "mediaType": "application/json" })]
        }
        Input::Tokens(_) => return Err(JobError::Unsupported { feature: Feature::Input }),
    };
    Ok(json!({
        "message": { "messageId": job.to_string(), "role": "ROLE_USER", "parts": parts },
        "configuration": {
            "acceptedOutputModes": ["text/plain"], "historyLength": 0, "returnImmediately": !streams,
        },
    }))
}

/// A conversation in one message: A2A knows no roles within one, so where there are several each part says who speaks.
fn said(chat: &Chat) -> Vec<Value> {
    match chat.messages.as_slice() {
        [only] => vec![json!({ "text": only.content })],
        several => {
            let part = |message: &protocol::ChatMessage| {
                let role = json!(message.role);
                json!({ "text": format!("{}: {}", role.as_str().unwrap_or_default(), message.content) })
            };
            several.iter().map(part).collect()
        }
    }
}

/// All of a body, up to a length.
async fn whole(mut response: Response, most: usize) -> Result<String, JobError> {
    let mut body = Vec::new();
    while let Some(chunk) = timeout(IDLE, response.chunk())
        .await
        .map_err(|_| broken(&"it is silent"))?
        .map_err(|error| failed(&error))?
    {
        if body.len() + chunk.len() > most {
            return Err(broken(&"it says more than an answer may have"));
        }
        body.extend_from_slice(&chunk);
    }
    String::from_utf8(body).map_err(|error| broken(&error))
}
