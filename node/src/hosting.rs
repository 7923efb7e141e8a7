//! From plans to agents: models are fetched, loaded once each, measured, and put to work.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use inference::{Embedder, LoadError, Worker};
use protocol::{AgentOffer, Capability, Profile};

use crate::agents::echo::Echo;
use crate::agents::embedder::{self, EmbedderAgent};
use crate::agents::model::{self, Loaded, ModelAgent};
use crate::agents::upstream::{ApiKey, Server, Upstream};
use crate::agents::{Agent, Agents};
use crate::config::{AgentPlan, Backend, UpstreamSettings};
use crate::failure::{Class, Failure};
use crate::models::{Form, ModelFile, Models, Progress};
use crate::request::kind_of;

/// Jobs that wait for a model beyond those that run: as many as the market promises places for.
pub const QUEUE: usize = 64;

/// Loads what agents need; a model that several agents share is loaded once.
#[derive(Debug)]
pub struct Host<'a> {
    models: &'a Models,
    progress: &'a dyn Progress,
    slots: usize,
    threads: Option<NonZeroUsize>,
    loaded: BTreeMap<String, Engine>,
}

/// A model that was loaded.
#[derive(Clone, Debug)]
enum Engine {
    Embedder(embedder::Loaded),
    Language(Loaded),
}

impl<'a> Host<'a> {
    /// A host whose models run `slots` jobs at once each.
    pub fn new(models: &'a Models, progress: &'a dyn Progress, slots: usize) -> Self {
        Self { models, progress, slots, threads: None, loaded: BTreeMap::new() }
    }

    /// The same with so many threads for each language model instead of one for each core.
    #[must_use]
    pub fn with_threads(self, threads: Option<NonZeroUsize>) -> Self {
        Self { threads, ..self }
    }

    /// All agents of a peer.
    ///
    /// # Errors
    /// [`Failure`] of the class `Model` or `Usage`.
    pub async fn host(&mut self, plans: Vec<AgentPlan>) -> Result<Agents, Failure> {
        let mut agents = Agents::default();
        for plan in plans {
            let agent = self.agent(plan).await?;
            let AgentOffer { agent: name, capability, .. } = agent.offer();
            if !agent.takes(kind_of(&capability)) {
                let what = format!("the agent `{name}` would get jobs that it cannot do");
                let next = "what makes vectors goes under text.embedding, and nothing else does";
                return Err(Failure::new(Class::Usage, format!("{what}: {next}")));
            }
            if agents.named(&name).is_some() {
                let what =
                    format!("two agents are called `{name}`: give one of them another name in llamesh.toml");
                return Err(Failure::new(Class::Usage, what));
            }
            agents.host(agent);
        }
        if !Profile::fits(&agents.offers()) {
            let what = format!(
                "a profile holds {} agents with names of {} bytes",
                Profile::MAX_AGENTS,
                AgentOffer::MAX_NAME
            );
            return Err(Failure::new(
                Class::Usage,
                format!("these agents do not fit a profile: {what} at most"),
            ));
        }
        Ok(agents)
    }

    async fn agent(&mut self, plan: AgentPlan) -> Result<Arc<dyn Agent>, Failure> {
        let AgentPlan { name, capability, backend, system, price } = plan;
        Ok(match backend {
            Backend::Echo(rate) => {
                let capability = capability.unwrap_or_else(Capability::text_generation);
                Arc::new(Echo::new(capability, price, rate).named(name))
            }
            Backend::Model(selector) => match self.engine(&selector).await? {
                Engine::Embedder(_) if system.is_some() => {
                    let what =
                        format!("`{selector}` makes vectors, which need no system prompt: leave it out");
                    return Err(Failure::new(Class::Usage, what));
                }
                Engine::Embedder(loaded) => {
                    let capability = capability.unwrap_or_else(Capability::text_embedding);
                    Arc::new(EmbedderAgent::new(loaded, capability, price).named(name))
                }
                Engine::Language(loaded) => {
                    let capability = capability.unwrap_or_else(Capability::text_generation);
                    Arc::new(ModelAgent::new(loaded, capability, price).named(name).with_system(system))
                }
            },
            Backend::Upstream(settings) => {
                let capability = capability.unwrap_or_else(Capability::text_generation);
                let server = server(settings)?;
                let upstream = Upstream::new(server, capability, price).map_err(Failure::of(Class::Usage))?;
                Arc::new(upstream.named(name))
            }
        })
    }

    /// A model that generates: fetched, loaded, measured.
    ///
    /// # Errors
    /// [`Failure`] of the class `Model`.
    pub async fn model(&mut self, selector: &str) -> Result<Loaded, Failure> {
        match self.engine(selector).await? {
            Engine::Language(loaded) => Ok(loaded),
            Engine::Embedder(_) => {
                let what = format!("`{selector}` makes vectors and no text: take a model that generates");
                Err(Failure::new(Class::Model, what))
            }
        }
    }

    async fn engine(&mut self, selector: &str) -> Result<Engine, Failure> {
        if let Some(loaded) = self.loaded.get(selector) {
            return Ok(loaded.clone());
        }
        let file = self.models.obtain(selector, self.progress).await.map_err(Failure::of(Class::Model))?;
        let (path, slots, threads) = (file.path.clone(), self.slots, self.threads);
        let loaded = tokio::task::spawn_blocking(move || match file.form {
            Form::Folder => load_embedder(file),
            Form::Gguf => load_language(file, slots, threads),
        });
        let loaded = loaded.await.map_err(Failure::of(Class::Internal))?;
        let loaded = loaded.map_err(|error| Failure::of_load(&path, &error))?;
        self.loaded.insert(selector.to_owned(), loaded.clone());
        Ok(loaded)
    }
}

fn load_embedder(file: ModelFile) -> Result<Engine, LoadError> {
    let embedder = Arc::new(Embedder::load(&file.path)?);
    let speed = embedder::measure(&embedder);
    Ok(Engine::Embedder(embedder::Loaded { name: file.name, embedder, speed }))
}

fn load_language(file: ModelFile, slots: usize, threads: Option<NonZeroUsize>) -> Result<Engine, LoadError> {
    let engine = model::load(&file.path, threads)?;
    let speed = model::measure(engine.as_ref());
    let worker = Worker::start(engine, slots, QUEUE).map_err(LoadError::Io)?;
    Ok(Engine::Language(Loaded { name: file.name, worker, speed }))
}

fn server(settings: UpstreamSettings) -> Result<Server, Failure> {
    let UpstreamSettings { url, model, key_env } = settings;
    let key = |variable: String| {
        let missing =
            |_| Failure::new(Class::Usage, format!("the environment has no {variable}, the key of {url}"));
        ApiKey::new(&std::env::var(&variable).map_err(missing)?).map_err(Failure::of(Class::Usage))
    };
    Ok(Server { api_key: key_env.map(key).transpose()?, base_url: url.clone(), model })
}
