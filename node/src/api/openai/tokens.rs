//! `/tokenize`, `/detokenize` and `/tokenizer_info`: a model's tokens, at the paths and in the words of vLLM, by which
//! evaluations ask for a tokenizer that they do not have.
//!
//! Where this peer hosts the model, its own tokenizer answers. Otherwise a provider does, who scores the text or the ids:
//! scores tell both. What no job tells, its template and the names of its special tokens, only a host knows.

use std::sync::Arc;

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use crypto::Digest;
use inference::Engine;
use protocol::{JobError, JobKind, JobSpec, Scores};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::course::Course;
use super::prompts::Prompt;
use super::target::{aim, offers, on_offer, resolved};
use super::{Error, Gateway, Options};
use crate::hosting::library::Hosted;
use crate::models::Form;
use crate::request::JobRequest;

#[derive(Debug, Deserialize)]
pub(super) struct TokenizeRequest {
    model: Option<String>,
    prompt: String,
    /// Whether what the model expects around a bare text is to be added; so it is by default.
    add_special_tokens: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DetokenizeRequest {
    model: Option<String>,
    tokens: Vec<u32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    model: Option<String>,
}

pub(super) async fn tokenize(
    gateway: Gateway,
    Body { request, options, .. }: Body<TokenizeRequest>,
) -> Result<Json<Value>, Error> {
    let TokenizeRequest { model, prompt, add_special_tokens } = request;
    let framed = add_special_tokens != Some(false);
    let source = Source::of(&gateway, model.as_deref()).await?;
    let tokens = match source {
        _ if prompt.is_empty() && !framed => Vec::new(),
        Source::Here(hosted) => {
            bounded(prompt.len())?;
            let encoded =
                with_engine(&hosted, move |engine| engine.vocabulary().encode(&prompt, framed)).await?;
            encoded.map_err(|error| Error::invalid(error.to_string()).about("prompt"))?
        }
        Source::Mesh(_) if prompt.is_empty() => Vec::new(),
        Source::Mesh(model) => {
            let scores = scored(&gateway, model, &options, Prompt::Text(prompt.clone())).await?;
            if framed { scores.tokens } else { unframed(scores, &prompt) }
        }
    };
    Ok(Json(json!({ "tokens": tokens, "count": tokens.len() })))
}

pub(super) async fn detokenize(
    gateway: Gateway,
    Body { request, options, .. }: Body<DetokenizeRequest>,
) -> Result<Json<Value>, Error> {
    let DetokenizeRequest { model, tokens } = request;
    let source = Source::of(&gateway, model.as_deref()).await?;
    let prompt = match source {
        _ if tokens.is_empty() => String::new(),
        Source::Here(hosted) => {
            bounded(4 * tokens.len())?;
            with_engine(&hosted, move |engine| engine.vocabulary().decode(&tokens)).await?
        }
        Source::Mesh(model) => {
            let text = scored(&gateway, model, &options, Prompt::Tokens(tokens)).await?.texts.concat();
            if text.contains(char::REPLACEMENT_CHARACTER) {
                let message = "some characters of this text are made of several tokens, and other peers tell each token's \
                               text alone: host the model on this peer";
                return Err(Error::unsupported(message).about("tokens"));
            }
            text
        }
    };
    Ok(Json(json!({ "prompt": prompt })))
}

pub(super) async fn info(
    gateway: Gateway,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Error> {
    let Query(asked) = asked.map_err(|error| Error::invalid(error.body_text()))?;
    let Source::Here(hosted) = Source::of(&gateway, asked.model.as_deref()).await? else {
        let message = "no peer tells others its tokenizer: host the model on this peer, or give your client the \
                       model's tokenizer files";
        return Err(Error::unsupported(message).about("model"));
    };
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    let told = with_engine(&hosted, move |engine| {
        let (vocabulary, card) = (engine.vocabulary(), engine.card());
        json!({
            "model": card.name, "model_max_length": card.context, "vocab_size": vocabulary.len(),
            "bos_token": named(vocabulary.bos()), "eos_token": named(vocabulary.eos()), "pad_token": null,
            "chat_template": engine.template().source(),
        })
    });
    Ok(Json(told.await?))
}

/// Who knows a model's tokens.
enum Source {
    /// This peer.
    Here(Hosted),
    /// Whoever hosts the model of that name.
    Mesh(String),
}

impl Source {
    async fn of(gateway: &Gateway, model: Option<&str>) -> Result<Self, Error> {
        let hosted = gateway.node.agents().hosted();
        let mut here: Vec<Hosted> = hosted.into_iter().filter(|h| h.volume().form() == Form::Gguf).collect();
        if let Some(name) = model.filter(|name| *name != "auto") {
            let (digest, _) = resolved(gateway, name, JobKind::Score).await?;
            let found = here.into_iter().find(|hosted| hosted.volume().digest() == digest);
            return Ok(found.map_or_else(|| Self::Mesh(name.to_owned()), Self::Here));
        }
        here.sort_unstable_by_key(|hosted| hosted.volume().digest());
        here.dedup_by_key(|hosted| hosted.volume().digest());
        match here.pop() {
            Some(only) if here.is_empty() => Ok(Self::Here(only)),
            Some(_) => Err(several()),
            None => Self::only_in_mesh(gateway).await,
        }
    }

    async fn only_in_mesh(gateway: &Gateway) -> Result<Self, Error> {
        let profiles = on_offer(gateway).await?;
        let scoring = offers(&profiles).filter(|offer| offer.takes(JobKind::Score));
        let mut models: Vec<Digest> =
            scoring.filter_map(|offer| Some(offer.model.as_ref()?.digest)).collect();
        models.sort_unstable();
        models.dedup();
        match models.as_slice() {
            [only] => Ok(Self::Mesh(only.to_string())),
            [] => {
                let capability = protocol::Capability::text_generation();
                Err(JobError::NothingOffered { capability, sample: Vec::new() }.into())
            }
            _ => Err(several()),
        }
    }
}

fn several() -> Error {
    Error::invalid("several models are on offer, each with its own tokens: name one").about("model")
}

/// A tokenizer takes time by the byte.
fn bounded(bytes: usize) -> Result<(), Error> {
    if bytes <= JobSpec::MAX_INPUT {
        return Ok(());
    }
    Err(Error::invalid(format!("the text must have at most {} bytes", JobSpec::MAX_INPUT)))
}

/// Asks a model of this peer, off the runtime's threads.
async fn with_engine<T: Send + 'static>(
    hosted: &Hosted,
    ask: impl FnOnce(&dyn Engine) -> T + Send + 'static,
) -> Result<T, Error> {
    let lease = hosted.lease().await.map_err(JobError::from)?;
    let engine = Arc::clone(lease.worker()?.engine());
    let asked = tokio::task::spawn_blocking(move || {
        let answer = ask(engine.as_ref());
        // In memory until here.
        drop((engine, lease));
        answer
    });
    Ok(asked.await.map_err(|_| JobError::Engine)?)
}

/// What a provider's model reads of a text or of ids.
async fn scored(
    gateway: &Gateway,
    model: String,
    options: &Options,
    prompt: Prompt,
) -> Result<Scores, Error> {
    let request = JobRequest { kind: Some(JobKind::Score), ..JobRequest::default() };
    let aimed = aim(gateway, &model, options, prompt.on(request)).await?;
    let course = Course::start(&gateway.node, vec![aimed.spec.clone()])?;
    let told = course.all().await.map_err(|error| aimed.error(error))?;
    let scores = told.first().and_then(|told| Scores::parse(&told.text()));
    scores.ok_or_else(|| JobError::Engine.into())
}

/// Without what the model expects around a bare text. Such tokens have no text; one that the text itself names has a name
/// that begins like a tag.
fn unframed(scores: Scores, text: &str) -> Vec<u32> {
    let framed = !text.starts_with('<') && scores.texts.first().is_some_and(String::is_empty);
    scores.tokens.into_iter().skip(usize::from(framed)).collect()
}
