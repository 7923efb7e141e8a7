//! The agent behind an embedder on this machine: a text or its token ids in, its vector out.
//!
//! The embedder is a model made for it, or a language model whose states are pooled: a [`Source`] is either.
//!
//! The answer is the vector as a JSON array, in pieces without token ids (SPEC §8.7). What was read is bound by the
//! prompt's digest, so a replay knows that both read the same tokens, and the vector itself is compared number by number.

use std::sync::Arc;

use crypto::Digest;
use inference::embedding::{EmbedError, Embedding, pooled};
use inference::{Embedder, Engine};
use protocol::error::Feature;
use protocol::profile::LatencyClass;
use protocol::receipt::{Rendering, prompt_digest};
use protocol::{AgentOffer, Capability, Finish, Input, JobError, JobKind, Price, Speed, Token};
use tokio::sync::Semaphore;

use super::{Agent, Context, Job, Running, offer_with};
use crate::hosting::library::Hosted;
use crate::hosting::volume::Resident;

/// Texts that are read at once. Each keeps all cores busy, so more would only need more memory; the market bounds how many
/// wait.
const AT_ONCE: usize = 2;

/// An agent that makes vectors.
#[derive(Clone, Debug)]
pub struct EmbedderAgent {
    offer: AgentOffer,
    model: Hosted,
    working: Arc<Semaphore>,
}

impl EmbedderAgent {
    /// An agent that embeds with this model under `capability`.
    pub fn new(model: Hosted, capability: Capability, price: Price) -> Self {
        let offer = offer_with(model.volume().offer(), (capability, &[JobKind::Embed]), price, model.speed());
        Self { offer, model, working: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: Option<String>) -> Self {
        self.offer.agent = name.unwrap_or(self.offer.agent);
        self
    }

    async fn answer(&self, job: Job, context: Context) -> Result<Finish, JobError> {
        job.check_without(&[Feature::Logprobs])?;
        if !matches!(job.input, Input::Text(_) | Input::Tokens(_)) {
            return Err(JobError::Unsupported { feature: Feature::Input });
        }
        let lease = self.model.lease().await?;
        // Permit and lease go with the work, which goes on when the job is cancelled: jobs that come and go cannot pile it up.
        let permit = Arc::clone(&self.working).acquire_owned().await.map_err(|_| JobError::Engine)?;
        let most = job.order.sampling.max_tokens as usize;
        let embedded = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            match lease.resident() {
                Resident::Embedder(embedder) => Source::Encoder(embedder).embed(&job.input),
                Resident::Language(worker) => Source::Language(worker.engine().as_ref()).embed(&job.input),
            }
        });
        let embedding = embedded.await.map_err(|_| JobError::Engine)??;
        let read = u32::try_from(embedding.tokens.len()).unwrap_or(u32::MAX);
        let prompt = prompt_digest(&embedding.tokens);
        context.prompt(Rendering { prompt, tokens: read, template_time: 0 }).await;

        let answer = serde_json::to_string(&embedding.vector).map_err(|_| JobError::Engine)?;
        let pieces = pieces(&answer);
        if pieces.len() > most {
            return Err(JobError::invalid("max_tokens", &format!("must be {} at least", pieces.len())));
        }
        for text in pieces {
            context.token(Token { id: None, text }).await;
        }
        Ok(Finish::EndOfText)
    }
}

impl Agent for EmbedderAgent {
    fn offer(&self) -> AgentOffer {
        AgentOffer { speed: self.model.speed(), ..self.offer.clone() }
    }

    fn model(&self) -> Option<&Hosted> {
        Some(&self.model)
    }

    fn run(self: Arc<Self>, job: Job, context: Context) -> Running {
        Box::pin(async move { self.answer(job, context).await })
    }
}

/// Where vectors come from. A replay uses the same, so that both read the same.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A model made for it.
    Encoder(&'a Embedder),
    /// A model that generates.
    Language(&'a dyn Engine),
}

impl Source<'_> {
    /// The model.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Encoder(embedder) => embedder.card().digest,
            Self::Language(engine) => engine.card().digest,
        }
    }

    /// The id of its numerics.
    pub fn profile(&self) -> &str {
        match self {
            Self::Encoder(embedder) => embedder.profile(),
            Self::Language(engine) => engine.profile(),
        }
    }

    /// Whether a vector has the same bits wherever it is computed on this profile.
    pub fn is_exact(&self) -> bool {
        matches!(self, Self::Language(engine) if engine.is_exact())
    }

    /// The vector of an input.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn embed(&self, input: &Input) -> Result<Embedding, JobError> {
        let embedded = match (self, input) {
            (Self::Encoder(embedder), Input::Text(text)) => {
                embedder.embed(&[text]).and_then(|mut all| all.pop().ok_or(EmbedError::NoDirection))
            }
            (Self::Encoder(embedder), Input::Tokens(ids)) => embedder.embed_ids(ids),
            (Self::Language(engine), Input::Text(text)) => pooled::embed(*engine, text),
            (Self::Language(engine), Input::Tokens(ids)) => pooled::embed_ids(*engine, ids.clone()),
            (_, Input::Chat(_) | Input::Json(_)) => {
                return Err(JobError::Unsupported { feature: Feature::Input });
            }
        };
        embedded.map_err(|error| match error {
            EmbedError::Ids { .. } => JobError::invalid("input", &error.to_string()),
            _ => JobError::Engine,
        })
    }
}

/// What an embedder achieves, as a profile says it. Its answer is there when the text has been read, so both rates are
/// that of reading.
pub fn measure(embedder: &Embedder) -> Speed {
    let Ok(rate) = embedder.measure() else { return Speed::default() };
    let whole = embedder.card().context as f64 / rate.max(0.001);
    let latency = match whole {
        whole if whole <= 0.1 => LatencyClass::Interactive,
        whole if whole <= 2.0 => LatencyClass::Moderate,
        _ => LatencyClass::Batch,
    };
    Speed { prefill: rate as u32, decode: rate as u32, latency }
}

/// A vector's text as it is sent; it has no character of more than one byte.
pub fn pieces(answer: &str) -> Vec<String> {
    let parts = answer.as_bytes().chunks(Token::MAX_TEXT);
    parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}
