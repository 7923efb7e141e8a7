//! From plans to agents: models are fetched, loaded once each, measured, and put to work.

use std::collections::BTreeMap;
use std::sync::Arc;

use inference::Worker;
use protocol::{AgentOffer, Profile};

use crate::agents::echo::Echo;
use crate::agents::model::{self, Loaded, ModelAgent};
use crate::agents::upstream::{ApiKey, Server, Upstream};
use crate::agents::{Agent, Agents};
use crate::config::{AgentPlan, Backend, UpstreamSettings};
use crate::failure::{Class, Failure};
use crate::models::{Models, Progress};

/// Jobs that wait for a model beyond those that run: as many as the market promises places for.
pub const QUEUE: usize = 64;

/// Loads what agents need; a model that several agents share is loaded once.
#[derive(Debug)]
pub struct Host<'a> {
    models: &'a Models,
    progress: &'a dyn Progress,
    slots: usize,
    loaded: BTreeMap<String, Loaded>,
}

impl<'a> Host<'a> {
    /// A host whose models run `slots` jobs at once each.
    pub fn new(models: &'a Models, progress: &'a dyn Progress, slots: usize) -> Self {
        Self { models, progress, slots, loaded: BTreeMap::new() }
    }

    /// All agents of a peer.
    ///
    /// # Errors
    /// [`Failure`] of the class `Model` or `Usage`.
    pub async fn host(&mut self, plans: Vec<AgentPlan>) -> Result<Agents, Failure> {
        let mut agents = Agents::default();
        for plan in plans {
            let agent = self.agent(plan).await?;
            let name = agent.offer().agent;
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
            Backend::Echo(rate) => Arc::new(Echo::new(capability, price, rate).named(name)),
            Backend::Model(selector) => {
                let model = self.model(&selector).await?;
                Arc::new(ModelAgent::new(model, capability, price).named(name).with_system(system))
            }
            Backend::Upstream(settings) => {
                let server = server(settings)?;
                let upstream = Upstream::new(server, capability, price).map_err(Failure::of(Class::Usage))?;
                Arc::new(upstream.named(name))
            }
        })
    }

    /// A model: fetched, loaded, measured.
    ///
    /// # Errors
    /// [`Failure`] of the class `Model`.
    pub async fn model(&mut self, selector: &str) -> Result<Loaded, Failure> {
        if let Some(loaded) = self.loaded.get(selector) {
            return Ok(loaded.clone());
        }
        let file = self.models.obtain(selector, self.progress).await.map_err(Failure::of(Class::Model))?;
        let path = file.path.clone();
        let loaded = tokio::task::spawn_blocking(move || {
            let engine = model::load(&path)?;
            let speed = model::measure(engine.as_ref());
            Ok::<_, inference::LoadError>((engine, speed))
        });
        let loaded = loaded.await.map_err(Failure::of(Class::Internal))?;
        let (engine, speed) = loaded
            .map_err(|error| Failure::new(Class::Model, format!("{}: {error}", file.path.display())))?;
        let worker = Worker::start(engine, self.slots, QUEUE).map_err(Failure::of(Class::Internal))?;
        let loaded = Loaded { name: file.name, worker, speed };
        self.loaded.insert(selector.to_owned(), loaded.clone());
        Ok(loaded)
    }
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
