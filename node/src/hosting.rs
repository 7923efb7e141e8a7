//! From plans to agents: models are fetched and looked at, those that fit are loaded, and all are put to work.
//!
//! | module | what it answers |
//! |---|---|
//! | [`residency`] | which models are in memory: a pure machine |
//! | [`library`] | the same, done: leases, loads, unloads |
//! | [`volume`] | one model: its size, what it offers, how it is loaded |
//! | [`speeds`] | how fast models were here, across starts |

pub mod library;
pub mod residency;
pub mod speeds;
pub mod volume;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use inference::exact::PROFILE;
use protocol::{AgentOffer, Capability, JobError, JobKind, Price, Profile};

use self::library::{Hosted, LeaseError, Library};
use self::residency::Policy;
use self::speeds::Speeds;
use self::volume::Volume;
use crate::agents::echo::Echo;
use crate::agents::embedder::EmbedderAgent;
use crate::agents::model::ModelAgent;
use crate::agents::remote::{Remote, RemoteError};
use crate::agents::tool::mcp::{McpError, McpTool};
use crate::agents::tool::program::Program;
use crate::agents::tool::{Tool, ToolAgent};
use crate::agents::upstream::{ApiKey, Server, Upstream};
use crate::agents::{Agent, Agents};
use crate::config::{AgentPlan, Backend, Memory, UpstreamSettings};
use crate::failure::{Class, Failure};
use crate::models::{Form, Models, Progress};
use crate::request::kind_of;

/// Jobs that wait for a model beyond those that run: as many as the market promises places for.
pub const QUEUE: usize = 64;

/// What models may have of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    /// Jobs that each model runs at once.
    pub slots: usize,
    /// Threads of each model on the exact engine; one for each core where nobody said.
    pub threads: Option<NonZeroUsize>,
    /// What all models in memory take together at most, with their caches.
    pub memory: Memory,
    /// How long a model stays in memory without a job although nobody needs the room; for ever where nobody said.
    pub idle_unload: Option<Duration>,
}

impl Default for Resources {
    fn default() -> Self {
        Self { slots: 1, threads: None, memory: Memory::UNLIMITED, idle_unload: None }
    }
}

impl Resources {
    /// How many threads each model has.
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(cores, NonZeroUsize::get)
    }

    fn policy(&self) -> Policy {
        let millis = |idle: Duration| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        Policy { memory: self.memory.bytes(), idle_unload: self.idle_unload.map(millis) }
    }
}

/// Brings models to agents. Those that fit the memory together are loaded at once, in the order in which they are asked for,
/// so that the first job finds its model ready; the others with their first job.
#[derive(Debug)]
pub struct Host<'a> {
    models: &'a Models,
    progress: &'a dyn Progress,
    resources: Resources,
    speeds: Arc<Speeds>,
    library: Library,
    hosted: BTreeMap<String, Hosted>,
    /// Bytes that are not promised to a model that was loaded at once.
    left: u64,
}

impl<'a> Host<'a> {
    /// A host with an empty library, whose task runs on the current runtime.
    pub fn new(models: &'a Models, progress: &'a dyn Progress, resources: Resources) -> Self {
        let (library, left) = (Library::open(resources.policy()), resources.memory.bytes());
        let (speeds, hosted) = (Arc::default(), BTreeMap::new());
        Self { models, progress, resources, speeds, library, hosted, left }
    }

    /// The same with the speeds of earlier starts in a file.
    #[must_use]
    pub fn with_speeds(self, file: PathBuf) -> Self {
        Self { speeds: Arc::new(Speeds::open(file)), ..self }
    }

    /// The library that the agents share.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// All agents of a peer. One whose model is damaged is left out and told of, if another one is left.
    ///
    /// # Errors
    /// [`Failure`] of the class `Model` or `Usage`.
    pub async fn host(&mut self, plans: Vec<AgentPlan>) -> Result<Agents, Failure> {
        let mut agents = Agents::default();
        let mut damage = None;
        for plan in plans {
            let agent = match self.agent(plan).await {
                Ok(agent) => agent,
                Err(Unhosted::Damaged(failure)) => {
                    tracing::warn!(%failure, "an agent is left out");
                    damage.get_or_insert(failure);
                    continue;
                }
                Err(Unhosted::Failed(failure)) => return Err(failure),
            };
            let AgentOffer { agent: name, capability, .. } = agent.offer();
            // Whoever wants a tool says so, under whatever capability.
            if !agent.takes(kind_of(&capability)) && !agent.takes(JobKind::Call) {
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
        if let Some(failure) = damage.filter(|_| agents.offers().is_empty()) {
            return Err(failure);
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

    async fn agent(&mut self, plan: AgentPlan) -> Result<Arc<dyn Agent>, Unhosted> {
        let AgentPlan { name, capability, backend, system, public_system, price } = plan;
        Ok(match backend {
            Backend::Echo(rate) => {
                let capability = capability.unwrap_or_else(Capability::text_generation);
                let echo = Echo::new(capability, price, rate).with_slots(self.resources.slots);
                Arc::new(echo.named(name))
            }
            Backend::Model(selector) => {
                let hosted = self.hosted(&selector).await?;
                let wanted = capability.as_ref().is_some_and(|wanted| kind_of(wanted) == JobKind::Embed);
                if hosted.volume().form() == Form::Folder || wanted {
                    makes_vectors(&selector, &hosted, system.as_deref())?;
                    let capability = capability.unwrap_or_else(Capability::text_embedding);
                    Arc::new(EmbedderAgent::new(hosted, capability, price).named(name))
                } else {
                    let capability = capability.unwrap_or_else(Capability::text_generation);
                    let agent = ModelAgent::new(hosted, capability, price).named(name);
                    Arc::new(agent.with_system(system).with_public_system(public_system))
                }
            }
            Backend::Mcp(settings) => {
                let name_of = settings.tool.clone();
                let tool =
                    McpTool::connect(settings).await.map_err(|error| Unhosted::of_mcp(&name_of, error))?;
                self.tool(Tool::Mcp(tool), (name, capability), price)
            }
            Backend::Program(settings) => {
                let path = settings.path.clone();
                let open = tokio::task::spawn_blocking(move || Program::open(settings)).await;
                let unread =
                    |error| Failure::new(Class::Usage, format!("the tool {}: {error}", path.display()));
                let program = open.map_err(Failure::of(Class::Internal))?.map_err(unread)?;
                self.tool(Tool::Program(program), (name, capability), price)
            }
            Backend::Remote(settings) => {
                let capability = capability.unwrap_or_else(Capability::text_generation);
                let key = settings.key_env.map(|variable| key(&variable, &settings.url)).transpose()?;
                let remote = Remote::connect(&settings.url, key, (capability, price)).await;
                Arc::new(remote.map_err(|error| Unhosted::of_remote(&settings.url, &error))?.named(name))
            }
            Backend::Upstream(settings) => {
                let capability = capability.unwrap_or_else(Capability::text_generation);
                let server = server(settings)?;
                let upstream = Upstream::new(server, capability, price).map_err(Failure::of(Class::Usage))?;
                Arc::new(upstream.named(name))
            }
        })
    }

    fn tool(
        &self,
        tool: Tool,
        (name, capability): (Option<String>, Option<Capability>),
        price: Price,
    ) -> Arc<dyn Agent> {
        let capability = capability.unwrap_or_else(Capability::tool);
        Arc::new(ToolAgent::new(tool, (capability, price), self.resources.slots).named(name))
    }

    /// A model that generates: fetched, and loaded if it fits.
    ///
    /// # Errors
    /// [`Failure`] of the class `Model` or `Usage`.
    pub async fn model(&mut self, selector: &str) -> Result<Hosted, Failure> {
        let hosted = self.hosted(selector).await.map_err(Unhosted::into_failure)?;
        if hosted.volume().form() == Form::Folder {
            let what = format!("`{selector}` makes vectors and no text: take a model that generates");
            return Err(Failure::new(Class::Model, what));
        }
        Ok(hosted)
    }

    async fn hosted(&mut self, selector: &str) -> Result<Hosted, Unhosted> {
        if let Some(hosted) = self.hosted.get(selector) {
            return Ok(hosted.clone());
        }
        let volume = self.volume(selector).await?;
        let (digest, memory) = (volume.digest(), volume.memory());
        let shared = self.hosted.values().any(|hosted| hosted.volume().digest() == digest);
        let too_large = Failure::new(Class::Usage, self.too_large(selector, &volume));
        let hosted = self.library.enrol(volume).await.map_err(|_| too_large)?;
        if !shared && memory <= self.left {
            self.left -= memory;
            self.speeds.forget(&digest);
            hosted.lease().await.map_err(|error| Unhosted::of_lease(&hosted, error))?;
        }
        self.hosted.insert(selector.to_owned(), hosted.clone());
        Ok(hosted)
    }

    /// A model's files, looked at but not loaded.
    async fn volume(&self, selector: &str) -> Result<Volume, Unhosted> {
        let file = self.models.obtain(selector, self.progress).await.map_err(Failure::of(Class::Model))?;
        let (path, resources, speeds) = (file.path.clone(), self.resources, Arc::clone(&self.speeds));
        let opened = tokio::task::spawn_blocking(move || Volume::open(file, resources, speeds)).await;
        let opened = opened.map_err(Failure::of(Class::Internal))?;
        opened.map_err(|error| Unhosted::Damaged(Failure::of_load(&path, &error)))
    }

    fn too_large(&self, selector: &str, volume: &Volume) -> String {
        let needs = Memory::of_bytes(volume.memory()).unwrap_or(Memory::UNLIMITED);
        let limit = self.resources.memory;
        format!(
            "`{selector}` takes some {needs} of memory, and all models may have {limit} together: raise --memory if the machine has more, or take a smaller model or quantisation"
        )
    }
}

/// Why there is no agent.
#[derive(Debug)]
enum Unhosted {
    /// Its model is no good; other agents may be.
    Damaged(Failure),
    /// Something that whoever typed it has to mend.
    Failed(Failure),
}

impl Unhosted {
    fn of_lease(hosted: &Hosted, error: LeaseError) -> Self {
        match error {
            LeaseError::Load(error) => match Failure::of_load(hosted.volume().path(), &error) {
                failure if failure.class == Class::Model => Self::Damaged(failure),
                failure => Self::Failed(failure),
            },
            other => Self::Failed(JobError::from(other).into()),
        }
    }

    /// A server that is down is no fault of the settings; a tool that it does not have is.
    fn of_mcp(tool: &str, error: McpError) -> Self {
        let failure = Failure::new(Class::Usage, format!("the tool `{tool}`: {error}"));
        match error {
            McpError::Address(_) | McpError::Key(_) | McpError::Unknown(..) => Self::Failed(failure),
            _ => Self::Damaged(failure),
        }
    }

    /// As with a tool's server: one that is down may be up again.
    fn of_remote(url: &str, error: &RemoteError) -> Self {
        let failure = Failure::new(Class::Usage, format!("the agent at {url}: {error}"));
        match error {
            RemoteError::Address(_) => Self::Failed(failure),
            _ => Self::Damaged(failure),
        }
    }

    fn into_failure(self) -> Failure {
        match self {
            Self::Damaged(failure) | Self::Failed(failure) => failure,
        }
    }
}

impl From<Failure> for Unhosted {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Whether a model can be an embedder.
fn makes_vectors(selector: &str, hosted: &Hosted, system: Option<&str>) -> Result<(), Failure> {
    if system.is_some() {
        let what = format!("`{selector}` makes vectors, which need no system prompt: leave it out");
        return Err(Failure::new(Class::Usage, what));
    }
    if hosted.volume().form() == Form::Gguf && hosted.volume().offer().engine != PROFILE {
        let what = format!("`{selector}` makes no vectors: only the exact engine tells a model's states");
        let next = "and it does not take this file; choose an embedder, like minilm";
        return Err(Failure::new(Class::Model, format!("{what}, {next}")));
    }
    Ok(())
}

fn server(settings: UpstreamSettings) -> Result<Server, Failure> {
    let UpstreamSettings { url, model, key_env } = settings;
    let api_key = key_env.map(|variable| key(&variable, &url)).transpose()?;
    Ok(Server { api_key, base_url: url, model })
}

/// The key for an address, as the environment has it.
fn key(variable: &str, url: &str) -> Result<ApiKey, Failure> {
    let missing =
        |_| Failure::new(Class::Usage, format!("the environment has no {variable}, the key of {url}"));
    ApiKey::new(&std::env::var(variable).map_err(missing)?).map_err(Failure::of(Class::Usage))
}

#[cfg(test)]
mod tests;
