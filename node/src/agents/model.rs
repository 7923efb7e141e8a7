//! The agent behind a language model on this machine: a system prompt, a model, and the worker that computes.
//!
//! The work itself is done by [`inference::Worker`] on its own thread; here prompts are rendered, what binds them is
//! told, and steps become tokens. The worker's sink never blocks: a full channel hands the step back, and the worker
//! offers it again.

pub mod public;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use inference::{
    Chat, FinishReason, Flow, LoadError, Loading, Prompt, PromptError, Request, Step, SubmitError,
};
use inference::{Event as Work, GenerateError};
use protocol::profile::LatencyClass;
use protocol::receipt::prompt_digest;
use protocol::{AgentOffer, Capability, ChatMessage, Finish, Input, JobError, Price, Role, Speed, Token};
use tokio::sync::{Semaphore, mpsc};

use super::{Agent, Context, Job, Running, offer_with};
use crate::clock;
use crate::hosting::library::{Hosted, Lease};

/// Steps between the worker and the agent's task. The worker is slowed down beyond it, not the other jobs.
const STEPS: usize = 16;
/// Prompts rendered at once; each may keep a core busy for a second.
const RENDERINGS: usize = 2;
/// A busy worker has a place again after about this long.
const RETRY_AFTER_MS: u64 = 2_000;

/// A model with a system prompt.
#[derive(Clone, Debug)]
pub struct ModelAgent {
    offer: AgentOffer,
    model: Hosted,
    system: Option<String>,
    public_system: bool,
    rendering: Arc<Semaphore>,
}

impl ModelAgent {
    /// An agent that answers with this model under `capability`.
    pub fn new(model: Hosted, capability: Capability, price: Price) -> Self {
        let offer = offer_with(model.volume().offer(), capability, price, model.speed());
        let rendering = Arc::new(Semaphore::new(RENDERINGS));
        Self { offer, model, system: None, public_system: false, rendering }
    }

    /// The same with a system prompt, put before chats that bring none.
    #[must_use]
    pub fn with_system(self, system: Option<String>) -> Self {
        Self { system, ..self }
    }

    /// The same, with a system prompt that is no secret: what is computed of it is reused among requesters ([`public`]).
    #[must_use]
    pub fn with_public_system(self, public_system: bool) -> Self {
        Self { public_system, ..self }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: Option<String>) -> Self {
        self.offer.agent = name.unwrap_or(self.offer.agent);
        self
    }

    async fn answer(&self, job: Job, context: Context) -> Result<Finish, JobError> {
        let template_time = clock::now().0 / 1000;
        let (input, own_system) = with_system(job.input, self.system.as_deref());
        // What no model of this kind could read is no reason to load one.
        let prompt = prompt(&input, template_time)?;
        let lease = self.model.lease().await?;
        let public = self.system.clone().filter(|_| own_system && self.public_system);
        let Rendered { tokens, public } = self.render(&lease, prompt, public).await?;
        let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        context.prompt(count, prompt_digest(&tokens), template_time).await;
        tracing::trace!(tokens = count, public, "a prompt was rendered");

        let (steps, mut taken) = mpsc::channel(STEPS);
        let sampling = sampling(&job.order.sampling);
        let request = inference::Job::Generate(Request::new(tokens, sampling));
        // The worker has the sink as long as it works for this job, which may be a step longer than anybody waits.
        let hold = lease.hold();
        let sink = Box::new(move |event| {
            let _in_memory = &hold;
            forward(&steps, event)
        });
        lease.worker()?.try_submit(request, sink).map_err(refused)?;
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

    /// Renders and tokenises off the runtime's threads: a megabyte of prompt takes a while. `public` is the system prompt
    /// that the chat begins with, where that is no secret.
    async fn render(
        &self,
        lease: &Lease,
        prompt: Prompt,
        public: Option<String>,
    ) -> Result<Rendered, JobError> {
        let (engine, hold) = (Arc::clone(lease.worker()?.engine()), lease.hold());
        // Permit and hold go with the work, which goes on when the job is cancelled: jobs that come and go cannot pile it up.
        let permit = Arc::clone(&self.rendering).acquire_owned().await.map_err(|_| JobError::Engine)?;
        let rendered = tokio::task::spawn_blocking(move || {
            let _held = (permit, hold);
            let tokens = engine.prompt(&prompt)?;
            let public = match (&prompt, public) {
                (Prompt::Chat(chat), Some(system)) => {
                    public::prefix(engine.as_ref(), &system, chat.now, &tokens)
                }
                _ => 0,
            };
            Ok(Rendered { tokens, public })
        })
        .await;
        rendered.map_err(|_| JobError::Engine)?.map_err(|error| refusal(&error))
    }
}

/// A prompt as the model reads it.
struct Rendered {
    tokens: Vec<u32>,
    /// How many of the first tokens are nobody's secret.
    public: usize,
}

impl Agent for ModelAgent {
    fn offer(&self) -> AgentOffer {
        AgentOffer { speed: self.model.speed(), ..self.offer.clone() }
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

/// The input with the agent's system prompt, and whether it has it: a chat that brings its own keeps that.
fn with_system(input: Input, system: Option<&str>) -> (Input, bool) {
    match (input, system) {
        (Input::Chat(mut messages), Some(system)) if messages.iter().all(|m| m.role != Role::System) => {
            messages.insert(0, ChatMessage { role: Role::System, content: system.to_owned(), name: None });
            (Input::Chat(messages), true)
        }
        (input, _) => (input, false),
    }
}

fn refused(error: SubmitError) -> JobError {
    match error {
        SubmitError::Busy => JobError::Busy { retry_after_ms: RETRY_AFTER_MS },
        SubmitError::Stopped => JobError::Engine,
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
