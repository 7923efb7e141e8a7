//! `/v1`: OpenAI's shape, answered by the mesh. Translation only: a request becomes [`JobRequest`]s, events become chunks.
//! Fields that this build does not know are ignored, as OpenAI's own clients expect, and explicit nulls are absent; what
//! a request says of the mesh (`options`) must be known.
//!
//! The reply's id is the name of its first job, which the header `x-request-id` tells, too. The extension object `llamesh`
//! tells which receipt answers for it, and so does the header `x-llamesh-receipt` of a reply in one piece; where a reply has
//! several choices, each is a job of its own and `llamesh.choices` names the receipts of all. Whoever leaves before the end
//! cancels the jobs.
//!
//! | module | what it answers |
//! |---|---|
//! | `models` | `/v1/models` |
//! | `chat` | `/v1/chat/completions`, whole or streamed |
//! | `messages` | what a chat's request says, in the mesh's words |
//! | `completions` | `/v1/completions`: raw text and token ids, and how likely they are |
//! | `embeddings` | `/v1/embeddings`: vectors |
//! | `responses` | `/v1/responses`: chats in other words, which this peer remembers |
//! | `tokens` | `/tokenize`, `/detokenize`, `/tokenizer_info`: a model's tokens |
//! | `target` | `model`: a name, a digest, `cap:` and a capability, or `auto` |
//! | `choice` | what `auto` chooses |
//! | `options` | what a request says of the mesh |
//! | `body` | JSON in, or what is wrong with it |
//! | `prompts` | texts or token ids, one or many |
//! | `course` | several jobs at work for one reply |
//! | `reply` | what replies of all kinds share |
//! | `likely` | log-probabilities as both kinds of reply have them |
//! | `turn` | a conversation goes on, and what of its answer is a call of a tool |
//! | `memory` | what is remembered between requests |
//! | `error` | errors in OpenAI's shape |

mod body;
mod chat;
mod choice;
mod completions;
mod course;
mod embeddings;
mod error;
mod likely;
mod memory;
mod messages;
mod models;
mod options;
mod prompts;
mod reply;
mod responses;
mod target;
#[cfg(test)]
mod tests;
mod tokens;
mod turn;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::routing::{get, post};
use axum::{Extension, Router};
use crypto::Digest;
use protocol::JobSpec;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Api;
use super::gate::Entrance;
use super::keys::Caller;
use super::refusal::Refusal;
use crate::clock;
use crate::handle::NodeHandle;
use crate::request::JobRequest;
use body::Body;
pub use error::Error;
use memory::Memory;
use options::Options;

/// The paths.
pub fn router() -> Router {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/chat/completions", post(chat::answer))
        .route("/v1/completions", post(completions::answer))
        .route("/v1/embeddings", post(embeddings::answer))
        .route("/v1/responses", post(responses::answer))
        .route("/v1/responses/{id}", get(responses::one).delete(responses::delete))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .method_not_allowed_fallback(|| async { Error::wrong_method() })
        .layer(Extension(Arc::<Memory>::default()))
}

/// What the handlers have: the peer, and what is remembered between requests.
#[derive(Clone, Debug)]
struct Gateway {
    node: NodeHandle,
    /// Who asks.
    caller: Caller,
    memory: Arc<Memory>,
}

impl<S: Sync> FromRequestParts<S> for Gateway {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Api { node, .. } = Api::from_request_parts(parts, state).await?;
        let Entrance { caller, .. } = parts.extensions.get().copied().ok_or(Refusal::NoToken)?;
        let memory = parts.extensions.get::<Arc<Memory>>().cloned().unwrap_or_default();
        Ok(Self { node, caller, memory })
    }
}

/// What other gateways aim their jobs by, so that models, options and `auto` mean the same everywhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight(Arc<Memory>);

impl Sight {
    /// The job of a request to `model`, with what is said of the mesh beside it.
    pub(super) async fn aim(
        &self,
        node: &NodeHandle,
        model: &str,
        said: &Map<String, Value>,
        request: JobRequest,
    ) -> Result<JobSpec, Error> {
        let gateway = Gateway { node: node.clone(), caller: Caller::Owner, memory: Arc::clone(&self.0) };
        let options = Options::read(&HeaderMap::new(), Some(said))?;
        Ok(target::aim(&gateway, model, &options, request).await?.spec)
    }
}

/// Whether a body is a request of this path, as far as that can be told without a mesh, whose models it may name; for whoever
/// tries all bodies.
pub fn reads(path: &str, body: &[u8]) -> bool {
    match path {
        "/v1/chat/completions" => job(body, chat::ChatRequest::job).is_ok(),
        "/v1/completions" => job(body, completions::CompletionRequest::job).is_ok(),
        "/v1/embeddings" => job(body, embeddings::EmbeddingRequest::job).is_ok(),
        "/v1/responses" => job(body, responses::ResponseRequest::job).is_ok(),
        "/tokenize" => read::<tokens::TokenizeRequest>(body).is_ok(),
        "/detokenize" => read::<tokens::DetokenizeRequest>(body).is_ok(),
        _ => false,
    }
}

fn job<T: DeserializeOwned>(
    body: &[u8],
    of: impl Fn(&T) -> Result<JobRequest, Error>,
) -> Result<JobSpec, Error> {
    let Body { request, options, .. } = read(body)?;
    let named = Some(Digest::from_bytes([0; Digest::LEN]));
    Ok(options.on(of(&request)?).spec(clock::now(), named)?)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<Body<T>, Error> {
    Body::read(&HeaderMap::new(), Bytes::copy_from_slice(body))
}

/// What requests of both kinds say of how to choose tokens.
#[derive(Debug, Deserialize)]
struct Choosing {
    model: String,
    temperature: Option<f32>,
    top_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<Stop>,
    n: Option<u32>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    Many(Vec<String>),
    One(String),
}

impl Choosing {
    /// Most answers to one prompt: each is a job and costs as much as one.
    const MAX_CHOICES: u32 = 16;

    /// How many answers there are to be.
    fn choices(&self) -> Result<u32, Error> {
        let n = self.n.unwrap_or(1);
        if (1..=Self::MAX_CHOICES).contains(&n) {
            return Ok(n);
        }
        Err(Error::invalid(format!("n must be between 1 and {}", Self::MAX_CHOICES)).about("n"))
    }

    fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// Whether a stream is to end with what was read and written.
    fn counts(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true))
    }

    /// A request without its input.
    fn job(&self) -> JobRequest {
        JobRequest {
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
        }
    }
}

/// A request without a seed asks for chance; the receipt tells which it was.
fn fresh_seed() -> u64 {
    clock::random().map_or(0, u64::from_le_bytes)
}
