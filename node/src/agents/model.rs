//! The agent behind a language model on this machine: a system prompt, a model, and the worker that computes.
//!
//! The work itself is done by [`inference::Worker`] on its own thread; here prompts are rendered, what binds them is
//! told, and steps become tokens. The worker's sink never blocks: a full channel hands the step back, and the worker
//! offers it again.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use inference::{
    Chat, FinishReason, Flow, LoadError, Loading, Prompt, PromptError, Request, Step, SubmitError, Worker,
};
use inference::{Event as Work, GenerateError};
use protocol::profile::LatencyClass;
use protocol::receipt::prompt_digest;
use protocol::{
    AgentOffer, Capability, ChatMessage, Finish, Input, JobError, ModelOffer, Price, Role, Speed, Token,
};
use tokio::sync::{Semaphore, mpsc};

use super::{Agent, Context, Job, Running, offer_with};
use crate::clock;

/// Steps between the worker and the agent's task. The worker is slowed down beyond it, not the other jobs.
const STEPS: usize = 16;
/// Prompts rendered at once; each may keep a core busy for a second.
const RENDERINGS: usize = 2;
/// A busy worker has a place again after about this long.
const RETRY_AFTER_MS: u64 = 2_000;

/// A model at work.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For people.
    pub name: String,
    /// The thread that computes.
    pub worker: Worker,
    /// What it measured when it started.
    pub speed: Speed,
}

/// A model with a system prompt.
#[derive(Clone, Debug)]
pub struct ModelAgent {
    offer: AgentOffer,
    worker: Worker,
    system: Option<String>,
    rendering: Arc<Semaphore>,
}

impl ModelAgent {
    /// An agent that answers with the worker's model under `capability`.
    pub fn new(loaded: Loaded, capability: Capability, price: Price) -> Self {
        let Loaded { name, worker, speed } = loaded;
        let engine = worker.engine();
        let card = engine.card();
        let model = ModelOffer {
            name,
            digest: card.digest,
            manifest: false,
            engine: engine.profile().to_owned(),
            context: u32::try_from(card.context).unwrap_or(u32::MAX),
        };
        let offer = offer_with(model, capability, price, speed);
        Self { offer, worker, system: None, rendering: Arc::new(Semaphore::new(RENDERINGS)) }
    }

    /// The same with a system prompt, put before chats that bring none.
    #[must_use]
    pub fn with_system(self, system: Option<String>) -> Self {
        Self { system, ..self }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: Option<String>) -> Self {
        self.offer.agent = name.unwrap_or(self.offer.agent);
        self
    }

    async fn answer(&self, job: Job, context: Context) -> Result<Finish, JobError> {
        let template_time = clock::now().0 / 1000;
        let input = with_system(job.input, self.system.as_deref());
        let tokens = self.render(&input, template_time).await?;
        let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        context.prompt(count, prompt_digest(&tokens), template_time).await;

        let (steps, mut taken) = mpsc::channel(STEPS);
        let sampling = sampling(&job.order.sampling);
        let request = inference::Job::Generate(Request::new(tokens, sampling));
        self.worker.try_submit(request, Box::new(move |event| forward(&steps, event))).map_err(|error| {
            match error {
                SubmitError::Busy => JobError::Busy { retry_after_ms: RETRY_AFTER_MS },
                SubmitError::Stopped => JobError::Engine,
            }
        })?;
        while let Some(event) = taken.recv().await {
            match event {
                Work::Step(Step::Prefilled { done, of }) => context.progress(done, of).await,
                Work::Step(Step::Token { id, text, activations, .. }) => {
                    context.token_with(Token { id: Some(id), text }, activations).await;
                }
                Work::Step(Step::Finished { reason, rest, .. }) => {
                    if !rest.is_empty() {
                        context.token(Token { id: None, text: rest }).await;
                    }
                    return Ok(finish(reason));
                }
                Work::Failed(error) => return Err(failure(error)),
                Work::Started | Work::Replaying { .. } | Work::Replayed(_) => {}
            }
        }
        Err(JobError::Engine)
    }

    /// Renders and tokenises off the runtime's threads: a megabyte of prompt takes a while.
    async fn render(&self, input: &Input, template_time: u64) -> Result<Vec<u32>, JobError> {
        let (engine, prompt) = (Arc::clone(self.worker.engine()), prompt(input, template_time)?);
        // The permit goes with the work, which goes on when the job is cancelled: jobs that come and go cannot pile it up.
        let permit = Arc::clone(&self.rendering).acquire_owned().await.map_err(|_| JobError::Engine)?;
        let rendered = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            engine.prompt(&prompt)
        })
        .await;
        rendered.map_err(|_| JobError::Engine)?.map_err(|error| refusal(&error))
    }
}

impl Agent for ModelAgent {
    fn offer(&self) -> AgentOffer {
        self.offer.clone()
    }

    fn run(self: Arc<Self>, job: Job, context: Context) -> Running {
        Box::pin(async move { self.answer(job, context).await })
    }
}

/// Loads a model, to compute on so many threads; on all cores unless told otherwise.
///
/// # Errors
/// [`LoadError`].
pub fn load(path: &Path, threads: Option<NonZeroUsize>) -> Result<Arc<dyn inference::Engine>, LoadError> {
    inference::load_with(path, Loading { threads: threads.map(NonZeroUsize::get), ..Loading::default() })
}

/// What the engine measures of itself, as a profile says it.
pub fn measure(engine: &dyn inference::Engine) -> Speed {
    let Ok(speed) = engine.measure() else { return Speed::default() };
    // A short prompt of 128 tokens and the first token.
    let first = 128.0 / speed.prefill.max(0.001) + 1.0 / speed.decode.max(0.001);
    let latency = match first {
        first if first <= 0.1 => LatencyClass::Interactive,
        first if first <= 2.0 => LatencyClass::Moderate,
        _ => LatencyClass::Batch,
    };
    Speed { prefill: speed.prefill as u32, decode: speed.decode as u32, latency }
}

/// The prompt of an input, as the engine takes it. Replay uses it too, so that both read the same.
///
/// # Errors
/// [`JobError::Unsupported`] for JSON.
pub fn prompt(input: &Input, template_time: u64) -> Result<Prompt, JobError> {
    Ok(match input {
        Input::Chat(messages) => Prompt::Chat(Chat {
            messages: messages.iter().map(message).collect(),
            now: i64::try_from(template_time).unwrap_or_default(),
            ..Chat::default()
        }),
        Input::Text(text) => Prompt::Text(text.clone()),
        Input::Tokens(ids) => Prompt::Tokens(ids.clone()),
        Input::Json(_) => return Err(JobError::Unsupported { feature: protocol::error::Feature::Input }),
    })
}

/// The engine's sampling of an order's.
pub fn sampling(order: &protocol::Sampling) -> inference::Sampling {
    inference::Sampling {
        max_tokens: order.max_tokens,
        temperature: order.temperature,
        top_p: order.top_p,
        top_k: order.top_k,
        min_p: order.min_p,
        repeat_penalty: order.repeat_penalty,
        frequency_penalty: order.frequency_penalty,
        presence_penalty: order.presence_penalty,
        stop: order.stop.clone(),
        seed: order.seed,
        choice: order.choice,
    }
}

/// Why an answer ended, as a receipt says it.
pub fn finish(reason: FinishReason) -> Finish {
    match reason {
        FinishReason::EndOfText => Finish::EndOfText,
        FinishReason::Length => Finish::Length,
        FinishReason::Stop => Finish::Stop,
    }
}

fn forward(steps: &mpsc::Sender<Work>, event: Work) -> Flow {
    match steps.try_send(event) {
        Ok(()) => Flow::Continue,
        Err(mpsc::error::TrySendError::Closed(_)) => Flow::Cancel,
        Err(mpsc::error::TrySendError::Full(event)) => Flow::Full(event),
    }
}

fn with_system(input: Input, system: Option<&str>) -> Input {
    match (input, system) {
        (Input::Chat(mut messages), Some(system)) if messages.iter().all(|m| m.role != Role::System) => {
            messages.insert(0, ChatMessage { role: Role::System, content: system.to_owned(), name: None });
            Input::Chat(messages)
        }
        (input, _) => input,
    }
}

fn message(message: &ChatMessage) -> inference::Message {
    let role = match message.role {
        Role::Assistant => "assistant",
        Role::System => "system",
        Role::Tool => "tool",
        Role::User => "user",
    };
    inference::Message { name: message.name.clone(), ..inference::Message::new(role, &message.content) }
}

fn refusal(error: &PromptError) -> JobError {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    match error {
        PromptError::TooLong { tokens, context } => {
            JobError::ContextExceeded { tokens: count(*tokens), context: count(*context) }
        }
        other => JobError::invalid("input", &other.to_string()),
    }
}

fn failure(error: GenerateError) -> JobError {
    match error {
        GenerateError::Prompt(error) => refusal(&error),
        GenerateError::Sampling(error) => JobError::invalid("sampling", &error.to_string()),
        GenerateError::Forward(_) | GenerateError::Panicked { .. } => JobError::Engine,
    }
}
