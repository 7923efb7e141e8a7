//! What a peer is told: flags, environment and `llamesh.toml`, resolved once.
//!
//! A flag beats its environment variable (clap sees to that), both beat the file, the file beats the default. Agents
//! that need more than a flag can say (system prompts, several models, upstreams) are declared in the file:
//!
//! ```toml
//! bootstrap = ["/dns4/seed.example/tcp/5263"]
//! api_name = ["mesh.example"] # by which others reach the API, beside its address
//! push_private = true      # A2A clients may name addresses of this machine and its network to be told of their tasks at
//! memory = "8GiB"          # for all models with their caches; three quarters of the machine's or container's by default
//! idle_unload_s = 3600     # a model without a job for so long leaves memory; by default when another needs the room
//! otlp = "http://127.0.0.1:4318"   # send traces to this OpenTelemetry collector
//! log_format = "json"      # or text: how it speaks on stderr
//! approve = ["depth:1", "cost:50000", "tool:tool.shell"]   # ask before such jobs begin; `llamesh approve JOB` lets them
//!
//! [market]
//! rules = [                # applied in order to what an offer asks; see `protocol::market::strategy`
//!     { rule = "floor", price = { prompt = 10, completion = 50 } },
//!     { rule = "load", percent = 5 },
//!     { rule = "margin", percent = 20 },
//!     { rule = "places", per_requester = 8 },
//! ]
//!
//! [[agent]]
//! capability = "code.generation"
//! model = "smollm2"
//! system = "You write short programs."
//! public_system = true     # it is no secret: what was computed of it is reused among requesters
//!
//! [[agent]]
//! capability = "text.embedding"
//! model = "minilm"
//!
//! [[agent]]
//! capability = "text.generation"
//! upstream = { url = "https://api.example/v1", model = "big-one", key_env = "BIG_ONE_KEY" }
//!
//! # An agent elsewhere that speaks A2A, with or without `key_env`.
//! [[agent]]
//! capability = "text.translation"
//! a2a = { url = "https://agent.example", key_env = "AGENT_KEY" }
//!
//! # A program: arguments as JSON on its stdin, its answer on stdout. Without a shell, in an empty folder and environment.
//! [[agent]]
//! capability = "tool.calculator"
//! program = { path = "calculator", args = ["--json"], timeout_s = 30, memory_mib = 512, output_kib = 64 }
//!
//! # A tool of a server that speaks the Model Context Protocol: `command`, or `url` with or without `key_env`.
//! [[agent]]
//! capability = "tool.weather"
//! mcp = { command = ["weather-server", "--stdio"], env = ["WEATHER_KEY"], tool = "forecast" }
//! ```

pub mod memory;
pub mod tool;

use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use crypto::Network;
use protocol::approval::Rule;
use protocol::market::Strategy;
use protocol::{Capability, Credits, Price};
use serde::Deserialize;

pub use self::memory::Memory;
use self::tool::{McpSettings, ProgramSettings};
use crate::failure::{Class, Failure};
use crate::net::Address;

/// Where a peer listens unless told otherwise: on all addresses, TCP and QUIC.
pub const PORT: u16 = 5263;
/// Where the local API listens unless told otherwise.
pub const API: &str = "127.0.0.1:5264";

/// The settings of `llamesh up`, from wherever.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which mesh.
    pub network: Option<Network>,
    /// Where it finds the mesh.
    pub bootstrap: Vec<String>,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Addresses at which others reach it although it does not see them itself.
    pub external: Vec<String>,
    /// Where the local API listens.
    pub api: Option<String>,
    /// Names by which others reach it, beside its address.
    pub api_name: Vec<String>,
    /// Whether A2A's push notifications may go to this machine and its network.
    pub push_private: bool,
    /// Whether to look for peers on the local network.
    pub lan: bool,
    /// The default agent's model: a name, a file of the hub, a path, or `-` for none.
    pub model: Option<String>,
    /// The default agent's capabilities.
    pub capability: Vec<Capability>,
    /// `echo[:RATE]` instead of a model.
    pub engine: Option<String>,
    /// For 1000 tokens of the prompt, in micro-credits.
    pub price_prompt: Option<u64>,
    /// For 1000 tokens of the answer, in micro-credits.
    pub price_completion: Option<u64>,
    /// Jobs that run at once.
    pub slots: Option<usize>,
    /// Threads of the exact engine, for each model; one for each core unless told otherwise.
    pub threads: Option<NonZeroUsize>,
    /// What all models in memory may take together, with their caches; [`Memory::of_machine`] unless told otherwise.
    pub memory: Option<Memory>,
    /// Seconds without a job after which a model leaves memory; never unless told otherwise, but for others.
    pub idle_unload_s: Option<u64>,
    /// Of which jobs of its own somebody is asked before they begin.
    pub approve: Vec<Rule>,
    /// The collector that traces are sent to.
    pub otlp: Option<String>,
    /// How the log is written.
    pub log_format: Option<LogFormat>,
    /// How this peer bids.
    pub market: MarketSettings,
    /// Agents.
    pub agent: Vec<AgentSettings>,
}

/// How the log is written on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON document a line, with times; with the trace that a line belongs to, where there is one
    Json,
    /// For people
    Text,
}

/// How a peer bids: rules that apply to the price of each offer, in order ([`Strategy`]).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MarketSettings {
    /// The rules.
    pub rules: Strategy,
}

/// One agent of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSettings {
    /// Its name; model and capability by default.
    pub name: Option<String>,
    /// What it does.
    pub capability: Capability,
    /// With which model; of this and the next five there is exactly one.
    pub model: Option<String>,
    /// `echo[:RATE]`.
    pub engine: Option<String>,
    /// With which server.
    pub upstream: Option<UpstreamSettings>,
    /// With which agent elsewhere.
    pub a2a: Option<RemoteSettings>,
    /// With which program.
    pub program: Option<ProgramSettings>,
    /// With which tool of an MCP server.
    pub mcp: Option<McpSettings>,
    /// Put before chats that bring no system prompt.
    pub system: Option<String>,
    /// Whether `system` is no secret. Then what was computed of it for one requester serves the next one too, who could
    /// learn from the time that saves what it begins with.
    #[serde(default)]
    pub public_system: bool,
    /// For 1000 tokens of the prompt, in micro-credits.
    #[serde(default)]
    pub price_prompt: u64,
    /// For 1000 tokens of the answer, in micro-credits.
    #[serde(default)]
    pub price_completion: u64,
}

/// An agent elsewhere that speaks A2A.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteSettings {
    /// Where its card is: the address before `/.well-known/agent-card.json`.
    pub url: String,
    /// The environment variable that holds the key for it; a key itself never stands in a file.
    pub key_env: Option<String>,
}

/// An OpenAI-compatible server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// Its base, up to `/v1`.
    pub url: String,
    /// Its name for the model.
    pub model: String,
    /// The environment variable that holds its key; a key itself never stands in a file.
    pub key_env: Option<String>,
}

impl Settings {
    /// Reads `path`, or nothing where there is no such file and none was asked for.
    ///
    /// # Errors
    /// [`Class::Usage`], naming the line.
    pub fn read(path: &Path, asked_for: bool) -> Result<Self, Failure> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let wrong = |error: &dyn std::fmt::Display| {
                    Failure::new(Class::Usage, format!("{}: {error}", path.display()))
                };
                let settings: Self = toml::from_str(&text).map_err(|error| wrong(&error))?;
                let file = std::path::absolute(path).map_err(|error| wrong(&error))?;
                Ok(settings.beside(file.parent().unwrap_or(path)))
            }
            // A data directory that is no folder is told by whoever needs it.
            Err(error)
                if !asked_for && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(Self::default())
            }
            Err(error) => Err(Failure::new(Class::Usage, format!("{}: {error}", path.display()))),
        }
    }

    /// What is said of files beside these settings, whoever reads them from wherever.
    fn beside(mut self, folder: &Path) -> Self {
        for agent in &mut self.agent {
            agent.program = agent.program.take().map(|program| program.beside(folder));
        }
        self
    }

    /// These settings where they say something, `file`'s where not.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        fn list<T>(ours: Vec<T>, file: Vec<T>) -> Vec<T> {
            if ours.is_empty() { file } else { ours }
        }
        Self {
            network: self.network.or(file.network),
            bootstrap: list(self.bootstrap, file.bootstrap),
            listen: list(self.listen, file.listen),
            external: list(self.external, file.external),
            api: self.api.or(file.api),
            api_name: list(self.api_name, file.api_name),
            push_private: self.push_private || file.push_private,
            lan: self.lan || file.lan,
            model: self.model.or(file.model),
            capability: list(self.capability, file.capability),
            engine: self.engine.or(file.engine),
            price_prompt: self.price_prompt.or(file.price_prompt),
            price_completion: self.price_completion.or(file.price_completion),
            slots: self.slots.or(file.slots),
            threads: self.threads.or(file.threads),
            memory: self.memory.or(file.memory),
            idle_unload_s: self.idle_unload_s.or(file.idle_unload_s),
            approve: list(self.approve, file.approve),
            otlp: self.otlp.or(file.otlp),
            log_format: self.log_format.or(file.log_format),
            market: if self.market.rules.0.is_empty() { file.market } else { self.market },
            agent: list(self.agent, file.agent),
        }
    }

    /// The agents: those declared, or the default one of the flags.
    ///
    /// # Errors
    /// [`Class::Usage`] where an agent is none or several things at once.
    pub fn agents(&self) -> Result<Vec<AgentPlan>, Failure> {
        if self.agent.is_empty() {
            return self.default_agents();
        }
        let prices = self.price_prompt.or(self.price_completion);
        if self.model.is_some() || self.engine.is_some() || !self.capability.is_empty() || prices.is_some() {
            let what = "the settings declare agents: model, engine, capability and prices belong to each [[agent]] then";
            return Err(Failure::new(Class::Usage, format!("{what}; leave out the flags, or the agents")));
        }
        self.agent.iter().map(AgentSettings::plan).collect()
    }

    fn default_agents(&self) -> Result<Vec<AgentPlan>, Failure> {
        let backend = match (&self.engine, self.model.as_deref()) {
            (Some(engine), None | Some("-")) => parse_engine(engine)?,
            (Some(_), Some(_)) => {
                return Err(Failure::new(Class::Usage, "--engine and --model exclude each other"));
            }
            (None, Some("-")) => return Ok(Vec::new()),
            (None, model) => Backend::Model(model.unwrap_or(DEFAULT_MODEL).to_owned()),
        };
        let price = Price {
            prompt: Credits(self.price_prompt.unwrap_or(0)),
            completion: Credits(self.price_completion.unwrap_or(0)),
        };
        let chosen: Vec<_> = self.capability.iter().cloned().map(Some).collect();
        let capabilities = if chosen.is_empty() { vec![None] } else { chosen };
        let plan = |capability: Option<Capability>| AgentPlan {
            name: None,
            capability,
            backend: backend.clone(),
            system: None,
            public_system: false,
            price,
        };
        Ok(capabilities.into_iter().map(plan).collect())
    }
}

/// The model of a peer that is told nothing.
pub const DEFAULT_MODEL: &str = "smollm2";

/// An agent to be hosted.
#[derive(Clone, Debug)]
pub struct AgentPlan {
    /// Its name, where it has one of its own.
    pub name: Option<String>,
    /// What it does; where nobody said it, what its model is for.
    pub capability: Option<Capability>,
    /// With what.
    pub backend: Backend,
    /// Its system prompt.
    pub system: Option<String>,
    /// Whether that is no secret.
    pub public_system: bool,
    /// What it asks.
    pub price: Price,
}

/// What is behind an agent.
#[derive(Clone, Debug)]
pub enum Backend {
    /// The prompt itself, at a rate.
    Echo(Option<u32>),
    /// A tool of an MCP server.
    Mcp(McpSettings),
    /// A model, by name or file.
    Model(String),
    /// An agent elsewhere.
    Remote(RemoteSettings),
    /// A program.
    Program(ProgramSettings),
    /// A server.
    Upstream(UpstreamSettings),
}

impl AgentSettings {
    fn plan(&self) -> Result<AgentPlan, Failure> {
        let backend = self.backend()?;
        if self.system.is_some() && !matches!(backend, Backend::Model(_)) {
            let what = format!("agent `{}`: a system prompt goes with a model only", self.capability);
            return Err(Failure::new(Class::Usage, what));
        }
        if self.public_system && self.system.is_none() {
            let what = format!(
                "agent `{}`: public_system is about a system prompt: write one, or leave it out",
                self.capability
            );
            return Err(Failure::new(Class::Usage, what));
        }
        Ok(AgentPlan {
            name: self.name.clone(),
            capability: Some(self.capability.clone()),
            backend,
            system: self.system.clone(),
            public_system: self.public_system,
            price: Price { prompt: Credits(self.price_prompt), completion: Credits(self.price_completion) },
        })
    }
}

impl AgentSettings {
    /// The one thing that is behind it.
    fn backend(&self) -> Result<Backend, Failure> {
        let wrong = |what: String| Failure::new(Class::Usage, format!("agent `{}`: {what}", self.capability));
        let backends = [
            self.model.clone().map(Backend::Model).map(Ok),
            self.engine.as_deref().map(parse_engine),
            self.upstream.clone().map(Backend::Upstream).map(Ok),
            self.a2a.clone().map(Backend::Remote).map(Ok),
            self.program
                .clone()
                .map(|program| program.check().map(|()| Backend::Program(program)).map_err(wrong)),
            self.mcp.clone().map(|mcp| mcp.check().map(|()| Backend::Mcp(mcp)).map_err(wrong)),
        ];
        let mut backends = backends.into_iter().flatten();
        match (backends.next(), backends.next()) {
            (Some(backend), None) => backend,
            _ => Err(wrong("needs exactly one of model, engine, upstream, a2a, program and mcp".to_owned())),
        }
    }
}

fn parse_engine(text: &str) -> Result<Backend, Failure> {
    let rate = match text.split_once(':') {
        None if text == "echo" => return Ok(Backend::Echo(None)),
        Some(("echo", rate)) => rate.parse().ok(),
        _ => None,
    };
    rate.map(|rate| Backend::Echo(Some(rate))).ok_or_else(|| {
        Failure::new(Class::Usage, format!("`{text}` is no engine: echo, or echo:TOKENS_PER_SECOND"))
    })
}

/// Parses addresses, naming the flag that they came by.
///
/// # Errors
/// [`Class::Usage`].
pub fn addresses(flag: &str, texts: &[String]) -> Result<Vec<Address>, Failure> {
    let parse = |text: &String| {
        text.parse().map_err(|error| Failure::new(Class::Usage, format!("--{flag} {text}: {error}")))
    };
    texts.iter().map(parse).collect()
}

/// The file that is read unless another one is named.
pub fn default_file(data_dir: &Path) -> PathBuf {
    data_dir.join("llamesh.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    const AGENT: &str = "[[agent]]\ncapability = \"text.echo\"\nengine = \"echo\"\n";

    #[test]
    fn agents_of_the_file_are_never_dropped_for_a_setting_beside_them() {
        assert_eq!(settings(AGENT).agents().unwrap().len(), 1);
        for beside in ["model = \"smollm2\"", "engine = \"echo\"", "capability = [\"a\"]", "price_prompt = 1"]
        {
            let refused = settings(&format!("{beside}\n{AGENT}")).agents().unwrap_err();
            assert_eq!(refused.class, Class::Usage, "{beside}");
        }
    }

    #[test]
    fn threads_of_a_flag_beat_those_of_the_file_and_none_are_refused() {
        let said = |text: &str| settings(text).threads.map(NonZeroUsize::get);
        assert_eq!((said("threads = 3"), said("")), (Some(3), None));
        let over = settings("threads = 1").over(settings("threads = 3"));
        assert_eq!(over.threads, NonZeroUsize::new(1));
        assert_eq!(settings("").over(settings("threads = 3")).threads, NonZeroUsize::new(3));
        assert!(toml::from_str::<Settings>("threads = 0").is_err());
    }

    #[test]
    fn where_traces_go_and_how_the_log_is_written_can_be_said_in_the_file() {
        let file = "otlp = \"http://a\"\nlog_format = \"json\"";
        let over = settings("log_format = \"text\"").over(settings(file));
        assert_eq!((over.otlp.as_deref(), over.log_format), (Some("http://a"), Some(LogFormat::Text)));
        assert!(toml::from_str::<Settings>("log_format = \"xml\"").is_err());
    }

    #[test]
    fn memory_of_a_flag_beats_that_of_the_file_and_none_is_refused() {
        let said = |text: &str| settings(text).memory.map(Memory::bytes);
        assert_eq!(
            (said("memory = \"2GiB\""), said("memory = 4096"), said("")),
            (Some(2 << 30), Some(4096), None)
        );
        let over = settings("memory = 1\nidle_unload_s = 5").over(settings("memory = 2\nidle_unload_s = 6"));
        assert_eq!((over.memory.map(Memory::bytes), over.idle_unload_s), (Some(1), Some(5)));
        let refused = toml::from_str::<Settings>("memory = \"much\"").unwrap_err();
        assert!(refused.to_string().contains("GiB"), "{refused}");
    }

    #[test]
    fn a_tool_is_declared_with_limits_that_make_sense() {
        let tool = |what: &str| settings(&format!("[[agent]]\ncapability = \"tool\"\n{what}")).agents();
        let program = "program = { path = \"add\" }";
        let plans = tool(program).unwrap();
        let Backend::Program(found) = &plans[0].backend else { panic!("{plans:?}") };
        assert_eq!((found.timeout_s, found.memory_mib, found.output_kib), (30, 512, 64));
        let mcp = "mcp = { url = \"http://127.0.0.1:1/mcp\", tool = \"add\" }";
        assert!(matches!(tool(mcp).unwrap()[0].backend, Backend::Mcp(_)));
        for wrong in [
            format!("{program}\n{mcp}"),
            format!("{program}\nengine = \"echo\""),
            "program = { path = \"add\", timeout_s = 0 }".to_owned(),
            "program = { path = \"add\", memory_mib = 0 }".to_owned(),
            "program = { path = \"add\", output_kib = 0 }".to_owned(),
            "program = { path = \"add\", output_kib = 4097 }".to_owned(),
            "mcp = { tool = \"add\" }".to_owned(),
            "mcp = { tool = \"add\", command = [\"x\"], url = \"http://127.0.0.1:1\" }".to_owned(),
            "mcp = { tool = \"add\", command = [\"x\"], key_env = \"K\" }".to_owned(),
            "mcp = { tool = \"add\", url = \"http://127.0.0.1:1\", env = [\"K\"] }".to_owned(),
        ] {
            assert_eq!(tool(&wrong).unwrap_err().class, Class::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_program_is_found_beside_the_settings_wherever_the_peer_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("llamesh.toml");
        for (written, found) in [("bin/add", folder.path().join("bin/add")), ("/bin/add", "/bin/add".into())]
        {
            let agent = format!("[[agent]]\ncapability = \"tool\"\nprogram = {{ path = \"{written}\" }}");
            std::fs::write(&file, agent).unwrap();
            let settings = Settings::read(&file, true).unwrap();
            assert_eq!(settings.agent[0].program.as_ref().unwrap().path, found);
        }
    }

    #[test]
    fn only_a_system_prompt_that_there_is_can_be_public() {
        let model = |more: &str| format!("[[agent]]\ncapability = \"a\"\nmodel = \"smollm2\"\n{more}");
        let plans = |more: &str| settings(&model(more)).agents();
        assert!(plans("system = \"Be brief.\"\npublic_system = true").unwrap()[0].public_system);
        assert!(!plans("system = \"Be brief.\"").unwrap()[0].public_system);
        assert_eq!(plans("public_system = true").unwrap_err().class, Class::Usage);
    }

    #[test]
    fn rules_of_the_market_are_read_and_mistakes_in_them_named() {
        let rules =
            "[market]\nrules = [{ rule = \"load\", percent = 5 }, { rule = \"places\", per_requester = 2 }]";
        assert_eq!(settings("").over(settings(rules)).market.rules.0.len(), 2);
        let wrong = toml::from_str::<Settings>("[market]\nrules = [{ rule = \"cheap\" }]").unwrap_err();
        assert!(wrong.to_string().contains("cheap"), "{wrong}");
    }

    #[test]
    fn a_system_prompt_that_nobody_would_read_is_refused() {
        let refused = settings(&format!("{AGENT}system = \"Be brief.\"\n")).agents().unwrap_err();
        assert_eq!(refused.class, Class::Usage);
    }
}
