//! `/v1`: OpenAI's shape, answered by the mesh. Translation only: a request becomes [`JobRequest`]s, events become chunks.
//! Fields that this build does not know are ignored, as OpenAI's own clients expect, and explicit nulls are absent.
//!
//! `model` is a name on offer, a known name, a digest, or `auto` (any model). The reply's id is the name of its first job,
//! and the extension object `llamesh` tells which receipt answers for it; where a reply has several choices, each is a job
//! of its own and `llamesh.choices` names the receipts of all.
//!
//! | module | what it answers |
//! |---|---|
//! | `models` | `/v1/models` |
//! | `chat` | `/v1/chat/completions`, whole or streamed |
//! | `messages` | what a chat's request says, in the mesh's words |
//! | `completions` | `/v1/completions`: raw text and token ids, and how likely they are |
//! | `course` | several jobs at work for one reply |
//! | `reply` | what replies of all kinds share |
//! | `likely` | log-probabilities as both kinds of reply have them |
//! | `tools` | calls of tools in an answer's text |
//! | `error` | errors in OpenAI's shape |

mod chat;
mod completions;
mod course;
mod error;
mod likely;
mod messages;
mod models;
mod reply;
#[cfg(test)]
mod tests;
mod tools;

use axum::Router;
use axum::routing::{get, post};
use serde::Deserialize;

use super::Api;
use crate::clock;
use crate::request::JobRequest;
pub use error::Error;

/// The paths.
pub fn router() -> Router<Api> {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .route("/v1/chat/completions", post(chat::answer))
        .route("/v1/completions", post(completions::answer))
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
        Err(Error::invalid(format!("n must be between 1 and {}", Self::MAX_CHOICES)))
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
            model: Some(self.model.clone()).filter(|model| model != "auto"),
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
