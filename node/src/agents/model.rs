//! The agent behind a language model on this machine: a system prompt, a model, and the worker that computes.
//!
//! The work itself is done by [`inference::Worker`] on its own thread; here prompts are rendered, what binds them is
//! told, and steps become tokens. The worker's sink never blocks: a full channel hands the step back, and the worker
//! offers it again.

pub mod order;
pub mod public;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use inference::{
    Cancel, Engine, Event as Work, Flow, LoadError, Loading, Prompt, Request, Step, Submission, SubmitError,
    Tenant, Text,
};
use protocol::error::Feature;
use protocol::profile::LatencyClass;
use protocol::receipt::prompt_digest;
use protocol::{
    AgentOffer, Capability, ChatMessage, Constraint, Finish, Input, JobError, JobKind, Order, Price,
    Rendering, Role, Scores, Speed, Token,
};
use tokio::sync::{Semaphore, mpsc};

use super::{Agent, Context, Job, Running, offer_with};
use crate::clock;
use crate::hosting::library::{Hosted, Lease};
use order::{failure, finish, prompt, refusal, sampling};

/// Steps between the worker and the agent's task. The worker is slowed down beyond it, not the other jobs.
const STEPS: usize = 16;
/// Prompts prepared at once; each may keep a core busy for a second.
const PREPARATIONS: usize = 2;

/// What a language model does.
const KINDS: [JobKind; 2] = [JobKind::Generate, JobKind::Score];

/// A model with a system prompt.
#[derive(Clone, Debug)]
pub struct ModelAgent {
    offer: AgentOffer,
    model: Hosted,
    system: Option<String>,
    public_system: bool,
    preparing: Arc<Semaphore>,
}

impl ModelAgent {
    /// An agent that answers with this model under `capability`.
    pub fn new(model: Hosted, capability: Capability, price: Price) -> Self {
        let offer = offer_with(model.volume().offer(), (capability, &KINDS), price, model.speed());
        let preparing = Arc::new(Semaphore::new(PREPARATIONS));
        Self { offer, model, system: None, public_system: false, preparing }
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
        // Who goes on with an answer reads what its predecessor read.
        let told = job.order.continues.map(|continues| continues.rendering.template_time);
        let template_time = told.unwrap_or_else(|| clock::now().0 / 1000);
        let (input, own_system) = with_system(job.input, self.system.as_deref());
        // What no model of this kind could read is no reason to load one.
        prompt(&input, template_time)?;
        let lease = self.model.lease().await?;
        let public = self.system.clone().filter(|_| own_system && self.public_system);
        let asked = Asked {
            order: job.order.value().clone(),
            input,
            constraint: job.constraint,
            inherited: job.inherited,
            template_time,
        };
        let Prepared { tokens, public, work } = self.prepare(&lease, asked, public).await?;
        let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        context.prompt(Rendering { prompt: prompt_digest(&tokens), tokens: count, template_time }).await;

        let (steps, mut taken) = mpsc::channel(STEPS);
        let withdrawal = Withdrawal(Cancel::default());
        let tenant = Tenant(*job.order.signer().as_bytes());
        let submission = Submission { job: work, tenant, public, cancel: withdrawal.0.clone() };
        // The worker has the sink as long as it works for this job, which may be a step longer than anybody waits.
        let hold = lease.hold();
        let sink = Box::new(move |event| {
            let _in_memory = &hold;
            forward(&steps, event)
        });
        lease.worker()?.try_submit(submission, sink).map_err(refused)?;
        let vocabulary = lease.worker()?.engine().vocabulary();
        while let Some(event) = taken.recv().await {
            match event {
                Work::Step(Step::Prefilled { done, of }) | Work::Scoring { done, of } => {
                    context.progress(done, of).await;
                }
                Work::Step(Step::Token { id, text, activations, logprobs, .. }) => {
                    let logprobs = logprobs.map(|found| order::logprobs(vocabulary, &found));
                    context.token_with(Token { id: Some(id), text }, activations, logprobs).await;
                }
                Work::Step(Step::Finished { reason, rest, .. }) => {
                    if !rest.is_empty() {
                        context.token(Token { id: None, text: rest }).await;
                    }
                    return Ok(finish(reason));
                }
                Work::Scored(found) => {
                    for piece in order::scores(vocabulary, &tokens, &found).pieces(&job.order.sampling)? {
                        context.token(piece).await;
                    }
                    return Ok(Finish::EndOfText);
                }
                Work::Failed(error) => return Err(failure(error)),
                Work::Started => context.begin(),
                Work::Replaying { .. } | Work::Replayed(_) => {}
            }
        }
        Err(JobError::Engine)
    }

    /// Renders, tokenises and compiles what the answer must be, off the runtime's threads: a megabyte of prompt takes a
    /// while. `public` is the system prompt that the chat begins with, where that is no secret.
    async fn prepare(
        &self,
        lease: &Lease,
        asked: Asked,
        public: Option<String>,
    ) -> Result<Prepared, JobError> {
        let (engine, hold) = (Arc::clone(lease.worker()?.engine()), lease.hold());
        // Permit and hold go with the work, which goes on when the job is cancelled: jobs that come and go cannot pile it up.
        let permit = Arc::clone(&self.preparing).acquire_owned().await.map_err(|_| JobError::Engine)?;
        let prepared = tokio::task::spawn_blocking(move || {
            let _held = (permit, hold);
            asked.prepare(engine.as_ref(), public.as_deref())
        });
        prepared.await.map_err(|_| JobError::Engine)?
    }
}

/// What was ordered.
struct Asked {
    order: Order,
    input: Input,
    constraint: Option<Constraint>,
    inherited: Vec<Token>,
    template_time: u64,
}

/// What the worker is to do.
struct Prepared {
    /// The prompt as the model reads it.
    tokens: Vec<u32>,
    /// How many of the first tokens are nobody's secret.
    public: usize,
    work: inference::Job,
}

impl Asked {
    fn prepare(self, engine: &dyn Engine, public: Option<&str>) -> Result<Prepared, JobError> {
        let prompt = prompt(&self.input, self.template_time)?;
        let tokens = engine.prompt(&prompt).map_err(|error| refusal(&error))?;
        let public = match (&prompt, public) {
            (Prompt::Chat(chat), Some(system)) => public::prefix(engine, system, chat.now, &tokens),
            _ => 0,
        };
        let work = match self.order.kind {
            JobKind::Score => self.score(engine, &tokens)?,
            _ => self.generate(engine, &tokens)?,
        };
        Ok(Prepared { tokens, public, work })
    }

    fn generate(&self, engine: &dyn Engine, tokens: &[u32]) -> Result<inference::Job, JobError> {
        let request = Request {
            answered: self.answered(engine, tokens)?,
            check: engine.is_exact(),
            constraint: order::constraint(engine, &self.input, self.constraint.as_ref())?,
            logprobs: self.order.sampling.logprobs.map(usize::from),
            ..Request::new(tokens.to_vec(), sampling(&self.order.sampling))
        };
        Ok(engine.generate(&request).map_err(failure)?.into())
    }

    /// What another peer has answered already, if it read the same prompt, and its texts are those of its tokens.
    fn answered(&self, engine: &dyn Engine, tokens: &[u32]) -> Result<Vec<u32>, JobError> {
        let Some(continues) = self.order.continues else { return Ok(Vec::new()) };
        if continues.rendering.prompt != prompt_digest(tokens) {
            return Err(JobError::Unsupported { feature: Feature::Continuation });
        }
        let answered: Vec<_> = self.inherited.iter().filter_map(|token| token.id).collect();
        let texts = inference::texts(engine.vocabulary(), &sampling(&self.order.sampling), &answered);
        match texts.iter().zip(&self.inherited).position(|(text, token)| *text != token.text) {
            Some(index) => Err(JobError::Inherited { index: index as u32 }),
            None => Ok(answered),
        }
    }

    fn score(&self, engine: &dyn Engine, tokens: &[u32]) -> Result<inference::Job, JobError> {
        Scores::check_size(tokens.len(), &self.order.sampling)?;
        let top = usize::from(self.order.sampling.logprobs.unwrap_or(0));
        Ok(engine.score(&Text { tokens: tokens.to_vec(), top }).map_err(failure)?.into())
    }
}

/// Takes a job back from the worker when nobody waits for it any more.
struct Withdrawal(Cancel);

impl Drop for Withdrawal {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Agent for ModelAgent {
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
        (Input::Chat(mut chat), Some(system)) if chat.messages.iter().all(|m| m.role != Role::System) => {
            chat.messages.insert(0, ChatMessage::new(Role::System, system));
            (Input::Chat(chat), true)
        }
        (input, _) => (input, false),
    }
}

fn refused(error: SubmitError) -> JobError {
    match error {
        SubmitError::Busy { retry_after } => {
            JobError::Busy { retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX) }
        }
        SubmitError::Stopped => JobError::Engine,
    }
}
