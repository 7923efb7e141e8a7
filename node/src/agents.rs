//! Agents: the handlers behind a peer's capabilities.
//!
//! There is one trait. An agent takes a job and its [`Context`], produces tokens into the context, and returns why it
//! stopped. It runs as a task of its own and is cancelled by being dropped, so it needs no stop flag; it is slowed
//! down by the context, which lets all agents together be at most 256 tokens ahead of a requester's stream.
//!
//! | agent | what is behind it | replay |
//! |---|---|---|
//! | [`model`] | a model with a system prompt, on this machine | by the model's digest |
//! | [`embedder`] | a model that makes vectors, on this machine | by the model's digest, `consistent` at best |
//! | [`echo`] | the prompt itself, word by word; for tests and measurements | `unverifiable` |
//! | [`tool`] | a program, or a tool of an MCP server | `unverifiable` |
//! | [`remote`] | an agent elsewhere that speaks A2A | `unverifiable` |
//! | [`upstream`] | an OpenAI-compatible server | `unverifiable` |

pub mod echo;
pub mod embedder;
pub mod model;
pub mod remote;
pub mod tool;
pub mod upstream;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use crypto::{Digest, PeerId, Verified};
use protocol::error::Feature;
use protocol::event::{Production, RunId};
use protocol::{
    AgentOffer, Capability, Constraint, Finish, Input, JobError, JobKind, JobSpec, Logprobs, ModelOffer,
    Order, Price, Rendering, Speed, Token,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::handle::{JobStream, NodeHandle};
use crate::hosting::library::Hosted;

/// Tokens that may be under way to one requester. More would only be thrown away by a cancel; a session's queue of
/// frames is four times as long, so a requester that reads never fills it.
const WINDOW: usize = 256;

/// A handler behind a capability.
pub trait Agent: fmt::Debug + Send + Sync {
    /// What it offers to the mesh.
    fn offer(&self) -> AgentOffer;

    /// Whether it takes jobs of a kind. Orders of other kinds never reach it.
    fn takes(&self, kind: JobKind) -> bool {
        self.offer().takes(kind)
    }

    /// The model behind it, where that is on this machine.
    fn model(&self) -> Option<&Hosted> {
        None
    }

    /// Works on a job; the answer goes token by token to `context`. Dropping the future cancels the work.
    fn run(self: Arc<Self>, job: Job, context: Context) -> Running;
}

/// What an agent offers that has a model on this machine: it reads text, and is called after model and capability.
fn offer_with(
    model: ModelOffer,
    (capability, kinds): (Capability, &[JobKind]),
    price: Price,
    speed: Speed,
) -> AgentOffer {
    AgentOffer {
        agent: format!("{}-{capability}", model.name),
        capability,
        kinds: kinds.to_vec(),
        model: Some(model),
        price,
        speed,
        languages: vec!["en".to_owned()],
        modalities: vec!["text".to_owned()],
        tools: Vec::new(),
    }
}

/// An agent at work.
pub type Running = Pin<Box<dyn Future<Output = Result<Finish, JobError>> + Send>>;

/// What an agent is to work on.
#[derive(Clone, Debug)]
pub struct Job {
    /// The requester's order: sampling, limits, job and requester.
    pub order: Verified<Order>,
    /// The input that it commits to.
    pub input: Input,
    /// What form the answer must have. An agent obeys it or refuses the job.
    pub constraint: Option<Constraint>,
    /// What others have answered already: an agent goes on after it, or refuses the job.
    pub inherited: Vec<Token>,
}

impl Job {
    /// Refuses a job that asks for what its agent cannot do.
    ///
    /// # Errors
    /// [`JobError::Unsupported`] with the first of `features` that it asks for.
    pub fn check_without(&self, features: &[Feature]) -> Result<(), JobError> {
        match features.iter().find(|feature| self.asks_for(**feature)) {
            Some(feature) => Err(JobError::Unsupported { feature: *feature }),
            None => Ok(()),
        }
    }

    fn asks_for(&self, feature: Feature) -> bool {
        match feature {
            Feature::Constraint => self.constraint.is_some(),
            Feature::Logprobs => self.order.sampling.logprobs.is_some(),
            Feature::Continuation => self.order.continues.is_some(),
            Feature::Tools => matches!(&self.input, Input::Chat(chat) if !chat.tools.is_empty()),
            _ => false,
        }
    }
}

/// What one run produced, on its way to the driver.
#[derive(Debug)]
pub struct Produced {
    /// Which run.
    pub run: RunId,
    /// What.
    pub production: Production,
    /// Given back when the frame that tells of it has left.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// A run's connection to its peer: where tokens go, and where sub-jobs come from.
#[derive(Clone, Debug)]
pub struct Context {
    run: RunId,
    productions: mpsc::Sender<Produced>,
    window: Arc<Semaphore>,
    node: NodeHandle,
    begun: Beginning,
}

/// When an agent began to work, after it had waited for its turn. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beginning(Arc<OnceLock<Instant>>);

impl Beginning {
    /// Nothing where the agent does not say, or still waits.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}

/// The windows of the requesters that agents work for: all runs for one requester share its stream, and so its window.
#[derive(Debug, Default)]
pub(crate) struct Windows(BTreeMap<PeerId, Weak<Semaphore>>);

impl Windows {
    /// The window of a requester.
    pub(crate) fn of(&mut self, requester: PeerId) -> Arc<Semaphore> {
        if let Some(window) = self.0.get(&requester).and_then(Weak::upgrade) {
            return window;
        }
        self.0.retain(|_, window| window.strong_count() > 0);
        let window = Arc::new(Semaphore::new(WINDOW));
        self.0.insert(requester, Arc::downgrade(&window));
        window
    }
}

impl Context {
    pub(crate) fn new(
        run: RunId,
        productions: mpsc::Sender<Produced>,
        window: Arc<Semaphore>,
        node: NodeHandle,
    ) -> Self {
        Self { run, productions, window, node, begun: Beginning::default() }
    }

    /// The same, which tells when the work begins.
    pub(crate) fn telling(self, begun: Beginning) -> Self {
        Self { begun, ..self }
    }

    /// The job has its turn: it waits for no other one any more. An agent that never has jobs wait need not say so.
    pub fn begin(&self) {
        self.begun.0.get_or_init(Instant::now);
    }

    /// The prompt has been rendered. To be called first, by engines with token ids only.
    pub async fn prompt(&self, rendering: Rendering) {
        self.produce(Production::Prompt(rendering), None).await;
    }

    /// So much of the prompt has been read.
    pub async fn progress(&self, done: u32, of: u32) {
        self.produce(Production::Progress { done, of }, None).await;
    }

    /// The next token. Waits while the network is behind.
    pub async fn token(&self, token: Token) {
        self.token_with(token, None, None).await;
    }

    /// The next token; if it is the last of a segment, what an exact engine commits to; how likely it was, if the order
    /// asks for that.
    pub async fn token_with(&self, token: Token, activations: Option<Digest>, logprobs: Option<Logprobs>) {
        let permit = Arc::clone(&self.window).acquire_owned().await.ok();
        self.produce(Production::Token { token, activations, logprobs }, permit).await;
    }

    /// Submits a sub-job: within what is left of this job's limits, and cancelled with it.
    pub fn submit(&self, spec: JobSpec) -> Result<JobStream, JobError> {
        self.node.submit_for(Some(self.run), spec)
    }

    pub(crate) async fn finish(&self, outcome: Result<Finish, JobError>) {
        let production = outcome.map_or_else(Production::Failed, Production::Finished);
        self.produce(production, None).await;
    }

    async fn produce(&self, production: Production, permit: Option<OwnedSemaphorePermit>) {
        // Without a driver there is nobody to produce for; the task is dropped with the runtime.
        let _ = self.productions.send(Produced { run: self.run, production, permit }).await;
    }
}

/// The agents of a peer, by name.
#[derive(Clone, Debug, Default)]
pub struct Agents(BTreeMap<String, Arc<dyn Agent>>);

impl Agents {
    /// Adds an agent; one of the same name is replaced.
    pub fn host(&mut self, agent: Arc<dyn Agent>) {
        self.0.insert(agent.offer().agent, agent);
    }

    /// What all of them offer.
    pub fn offers(&self) -> Vec<AgentOffer> {
        self.0.values().map(|agent| agent.offer()).collect()
    }

    /// The models of all that have one on this machine.
    pub fn hosted(&self) -> Vec<Hosted> {
        self.0.values().filter_map(|agent| agent.model().cloned()).collect()
    }

    /// The agent that an order names.
    pub fn named(&self, name: &str) -> Option<Arc<dyn Agent>> {
        self.0.get(name).cloned()
    }
}
