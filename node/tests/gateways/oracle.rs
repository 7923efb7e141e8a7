//! A peer whose agents have no model: they say what was ordered of them.

use std::sync::Arc;

use crypto::Digest;
use node::Node;
use node::agents::{Agent, Agents, Context, Job, Running};
use node::api::Server;
use protocol::{
    AgentOffer, Alternative, Capability, Chat, Constraint, Finish, Input, JobError, JobKind, Logprobs,
    ModelOffer, Role, Scores, Token, ToolChoice,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::support::http::{Request, Response};
use crate::support::within::{Counted, alone, free, serve};

/// Says what it was asked; counts the runs that wait with it.
#[derive(Debug)]
pub(crate) struct Oracle {
    name: &'static str,
    capability: &'static str,
    waiting: watch::Sender<usize>,
}

/// An agent with a model of its name.
fn offer(name: &str, capability: Capability, kinds: Vec<JobKind>) -> AgentOffer {
    let model = ModelOffer {
        name: name.to_owned(),
        digest: Digest::of_content(name.as_bytes()),
        manifest: false,
        engine: format!("{name}/1"),
        context: 1000,
    };
    AgentOffer { model: Some(model), ..free(name, capability, kinds) }
}

impl Agent for Oracle {
    fn offer(&self) -> AgentOffer {
        let kinds = vec![JobKind::Generate, JobKind::Score];
        offer(self.name, self.capability.parse().expect("a capability"), kinds)
    }

    fn run(self: Arc<Self>, job: Job, context: Context) -> Running {
        Box::pin(async move { self.answer(job, context).await })
    }
}

impl Oracle {
    async fn answer(&self, job: Job, context: Context) -> Result<Finish, JobError> {
        if job.order.kind == JobKind::Score {
            return score(&job, &context).await;
        }
        let words = match (&job.input, &job.constraint) {
            (_, Some(Constraint::JsonSchema(schema))) => vec![schema.clone()],
            (Input::Chat(chat), _) => said(chat, job.order.sampling.choice),
            (Input::Text(text), _) => vec![format!("{text}?"), "!".to_owned()],
            (Input::Tokens(ids), _) => vec![format!("{} ids", ids.len())],
            (Input::Json(_), _) => return Err(JobError::Engine),
        };
        if words[0] == "busy" {
            return Err(JobError::Busy { retry_after_ms: 1500 });
        }
        let most = job.order.sampling.max_tokens as usize;
        for (id, text) in (0..).zip(&words).take(most) {
            let logprobs = job.order.sampling.logprobs.map(|top| likelihood(id, top));
            context.token_with(Token { id: Some(id), text: text.clone() }, None, logprobs).await;
        }
        if words[0] == "half" {
            return Err(JobError::Engine);
        }
        if words[0] == "wait" {
            let _waiting = Counted::by(&self.waiting);
            std::future::pending::<()>().await;
        }
        Ok(if words.len() < most { Finish::EndOfText } else { Finish::Length })
    }
}

/// The last message, or a call of the first tool, or the result of one.
fn said(chat: &Chat, choice: u32) -> Vec<String> {
    let last = chat.messages.last().expect("a message");
    let may_call = last.role != Role::Tool && chat.tool_choice != ToolChoice::None;
    match (last.role, chat.tools.first()) {
        (_, Some(tool)) if may_call => {
            let call = json!({ "name": tool.name, "arguments": { "choice": chat.tool_choice } });
            vec![format!("<tool_call>{call}</tool_call>"), format!("<tool_call>{call}</tool_call>")]
        }
        (Role::Tool, _) => {
            let asked = chat.messages.iter().flat_map(|message| &message.tool_calls).next();
            let asked = asked.map(|call| call.arguments.clone()).unwrap_or_default();
            vec![format!("{asked} gave {}", last.content)]
        }
        _ => vec![last.content.clone(), format!(" {choice}")],
    }
}

fn likelihood(id: u32, top: u8) -> Logprobs {
    let other = |n: u8| Alternative { id: n.into(), text: format!("alt{n}"), logprob: -f32::from(n) - 0.5 };
    Logprobs { logprob: -(id as f32) - 1.0, top: (0..top).map(other).collect() }
}

/// Every word is a token, and so is every id.
async fn score(job: &Job, context: &Context) -> Result<Finish, JobError> {
    let sampling = &job.order.sampling;
    let texts: Vec<String> = match &job.input {
        Input::Text(text) => text.split_inclusive(' ').map(str::to_owned).collect(),
        Input::Tokens(ids) => ids.iter().map(|id| format!("<{id}>")).collect(),
        Input::Chat(_) | Input::Json(_) => return Err(JobError::Engine),
    };
    Scores::check_size(texts.len(), sampling)?;
    let likely = |at: usize| likelihood(at as u32, sampling.logprobs.unwrap_or(0));
    let scores = Scores {
        tokens: (0..texts.len() as u32).collect(),
        logprobs: (0..texts.len()).map(|at| (at > 0).then(|| likely(at).logprob)).collect(),
        top: (0..texts.len()).map(|at| (at > 0).then(|| likely(at).top)).collect(),
        texts,
    };
    for piece in scores.pieces(sampling)? {
        context.token(piece).await;
    }
    Ok(Finish::EndOfText)
}

/// Measures texts: how often they say `code` and `text`, and how long they are.
#[derive(Debug)]
struct Ruler;

impl Agent for Ruler {
    fn offer(&self) -> AgentOffer {
        offer("ruler", Capability::text_embedding(), vec![JobKind::Embed])
    }

    fn run(self: Arc<Self>, job: Job, context: Context) -> Running {
        Box::pin(async move {
            let vector = match &job.input {
                Input::Text(text) => {
                    let count = |word: &str| text.matches(word).count() as f32;
                    [count("code"), count("text"), text.len() as f32 / 1000.0]
                }
                Input::Tokens(ids) => [0.0, 0.0, ids.len() as f32],
                Input::Chat(_) | Input::Json(_) => return Err(JobError::Engine),
            };
            let text = serde_json::to_string(&vector).map_err(|_| JobError::Engine)?;
            context.token(Token { id: None, text }).await;
            Ok(Finish::EndOfText)
        })
    }
}

/// A peer with agents, and its API.
pub(crate) struct Gateway {
    pub(crate) node: Node,
    pub(crate) url: String,
    pub(crate) waiting: watch::Receiver<usize>,
}

impl Gateway {
    /// One with an oracle.
    pub(crate) async fn up() -> Self {
        Self::hosting(&[("oracle", "text.generation")], false).await
    }

    /// One with oracles of these names and capabilities, and maybe with something that makes vectors.
    pub(crate) async fn hosting(oracles: &[(&'static str, &'static str)], ruler: bool) -> Self {
        let (waiting, watched) = watch::channel(0);
        let mut agents = Agents::default();
        for &(name, capability) in oracles {
            agents.host(Arc::new(Oracle { name, capability, waiting: waiting.clone() }));
        }
        if ruler {
            agents.host(Arc::new(Ruler));
        }
        let node = Node::start(alone(agents)).await.expect("a peer");
        let server = Server::bind("127.0.0.1:0").await.expect("a free port");
        let url = serve(&node, server);
        Self { node, url, waiting: watched }
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        block_in_place(|| Request::post(&self.url, path, body).send())
    }

    /// The answer to a chat of one message.
    pub(crate) fn chat(&self, prompt: &str, more: &Value) -> Response {
        self.post("/v1/chat/completions", &with(chat_body(prompt), more))
    }

    pub(crate) fn complete(&self, prompt: &Value, more: &Value) -> Response {
        self.post("/v1/completions", &with(json!({ "model": "oracle", "prompt": prompt, "seed": 1 }), more))
    }
}

pub(crate) fn chat_body(prompt: &str) -> Value {
    json!({ "model": "auto", "messages": [{ "role": "user", "content": prompt }], "seed": 1 })
}

pub(crate) fn with(mut body: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// The chunks of a stream that ended well.
pub(crate) fn chunks(response: &Response) -> Vec<Value> {
    let events = response.events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{response:?}");
    events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
}

/// What a stream says in one choice, joined; `read` finds it in the choice.
pub(crate) fn joined(chunks: &[Value], index: usize, read: fn(&Value) -> &Value) -> String {
    let choices = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
    choices.filter_map(|choice| read(choice).as_str()).collect()
}
