//! `llamesh up`: a peer, until it is told to stop.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use protocol::{Capability, peer};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::approval::Approval;
use super::stop::Stop;
use super::{Common, print};
use crate::agents::Agents;
use crate::api::keys::Keys;
use crate::api::{Api, Server};
use crate::config::{self, LogFormat, MarketSettings, Memory, Settings};
use crate::datadir::Held;
use crate::failure::{Class, Failure};
use crate::handle::NodeHandle;
use crate::hosting::{Host, Resources};
use crate::journal::Journal;
use crate::models::{Bar, Models};
use crate::net::Address;
use crate::traces::Traces;
use crate::{Node, NodeConfig};

/// Jobs of a model that run at once: they share its passes, so one more costs the others little, up to about here.
const SLOTS: usize = 16;
/// Jobs beyond the slots that may be promised a place.
const WAITING: usize = 32;

/// Run a peer.
#[derive(Debug, Args)]
pub(super) struct Up {
    /// Find the mesh at this address (repeatable)
    #[arg(long, env = "LLAMESH_BOOTSTRAP", value_name = "ADDR", value_delimiter = ',')]
    bootstrap: Vec<String>,
    /// Listen here; port 0 takes a free one (repeatable)
    #[arg(long, env = "LLAMESH_LISTEN", value_name = "MULTIADDR", value_delimiter = ',')]
    listen: Vec<String>,
    /// Tell others this address, where a port is forwarded to this peer (repeatable)
    #[arg(long, env = "LLAMESH_EXTERNAL", value_name = "MULTIADDR", value_delimiter = ',')]
    external: Vec<String>,
    /// Serve the API here; where that is not loopback, everybody needs a token [default: 127.0.0.1:5264]
    #[arg(long, env = "LLAMESH_API", value_name = "HOST:PORT")]
    api: Option<String>,
    /// A name by which others reach the API, beside its address (repeatable)
    #[arg(long, env = "LLAMESH_API_NAME", value_name = "NAME", value_delimiter = ',')]
    api_name: Vec<String>,
    /// Tell A2A clients of their tasks at whatever address they name, this machine's and its network's included
    #[arg(long, env = "LLAMESH_PUSH_PRIVATE", value_parser = FalseyValueParser::new())]
    push_private: bool,
    /// Find peers on the local network
    #[arg(long, env = "LLAMESH_LAN", value_parser = FalseyValueParser::new())]
    lan: bool,
    /// The model: a name, a GGUF file, one of the Hugging Face hub (owner/repository/file.gguf), or `-` for none
    /// [default: smollm2]
    #[arg(long, env = "LLAMESH_MODEL", value_name = "NAME|FILE|-")]
    model: Option<String>,
    /// What the model is offered for (repeatable) [default: text.generation, of an embedder text.embedding]
    #[arg(long, env = "LLAMESH_CAPABILITY", value_name = "C", value_delimiter = ',')]
    capability: Vec<Capability>,
    /// Echo prompts instead of running a model: echo, or echo:TOKENS_PER_SECOND
    #[arg(long, env = "LLAMESH_ENGINE", value_name = "ENGINE")]
    engine: Option<String>,
    /// Micro-credits for 1000 tokens of the prompt
    #[arg(long, env = "LLAMESH_PRICE_PROMPT", value_name = "N")]
    price_prompt: Option<u64>,
    /// Micro-credits for 1000 tokens of the answer
    #[arg(long, env = "LLAMESH_PRICE_COMPLETION", value_name = "N")]
    price_completion: Option<u64>,
    /// Jobs that run at once, of each model [default: 16]
    #[arg(long, env = "LLAMESH_SLOTS", value_name = "N")]
    slots: Option<usize>,
    /// Threads of the exact engine, for each model [default: one for each core]
    #[arg(long, env = "LLAMESH_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// What all models in memory may take with their caches, like 8GiB; models that do not fit together are loaded and
    /// unloaded as jobs come [default: three quarters of the machine's, or of its container's]
    #[arg(long, env = "LLAMESH_MEMORY", value_name = "BYTES")]
    memory: Option<Memory>,
    /// Unload a model that had no job for so long [default: only when another one needs the room]
    #[arg(long, env = "LLAMESH_IDLE_UNLOAD_S", value_name = "SECONDS")]
    idle_unload_s: Option<u64>,
    #[command(flatten)]
    approval: Approval,
    /// Settings and agents [default: llamesh.toml in the data directory]
    #[arg(long, env = "LLAMESH_CONFIG", value_name = "FILE")]
    config: Option<std::path::PathBuf>,
}

impl Up {
    /// Runs the peer.
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let dir = common.data_dir()?;
        let file = self.config.clone().unwrap_or_else(|| config::default_file(dir.path()));
        let from_file = Settings::read(&file, self.config.is_some())?;
        let settings = self.settings(&common).over(from_file);
        // Whatever is wrong with what was typed is said before anything is fetched.
        let (addresses, plans) = (Addresses::of(&settings)?, settings.agents()?);
        let traces = Traces::named(settings.otlp.as_deref())?;
        let held = dir.hold()?;
        let key = held.key()?;
        let (journal, entries) = Journal::open(&held.dir().path().join("journal.redb"))?;
        let server = api(&settings, &held).await?;
        let mut peer = peer::Config::default();
        peer.bidder.slots = settings.slots.unwrap_or(SLOTS);
        peer.approval = settings.approve.clone();
        // As many as the slots and half of a model's queue hold; one requester gets half of them, as by default.
        peer.bidder.places = peer.bidder.places.max(peer.bidder.slots + WAITING);
        peer.bidder.places_per_requester = peer.bidder.places / 2;
        peer.bidder.strategy = settings.market.rules.clone();
        let models = Models::from_env().map_err(Failure::of(Class::Model))?;
        let bar = Bar::new();
        let resources = Resources {
            slots: peer.bidder.slots,
            threads: settings.threads,
            memory: settings.memory.unwrap_or_else(Memory::of_machine),
            idle_unload: settings.idle_unload_s.map(Duration::from_secs),
        };
        let speeds = held.dir().path().join("speeds.json");
        let mut host = Host::new(&models, &bar, resources).with_speeds(speeds);
        let agents = host.host(plans).await?;
        let (hosted, loads) = (agents.clone(), host.library().loads());
        let Addresses { listen, external, bootstrap } = addresses;
        let config = NodeConfig {
            network: settings.network.clone().unwrap_or_default(),
            key,
            listen,
            external,
            bootstrap,
            lan: settings.lan,
            client: false,
            agents,
            journal,
            entries,
            receipts: Some(held.dir().receipts()),
            peer,
        };
        let node = Node::start_traced(config, traces).await?;
        tokio::spawn(tell_changes(node.handle().clone(), hosted, loads));
        // Before anybody is told of the peer: whoever reads the ready line may stop it at once.
        let stop = Stop::listen()?;
        held.publish_api(&server.url())?;
        announce(&node, &server.url(), &common, &settings).await?;
        serve(node, server, held, stop).await
    }

    /// How the log is written, as far as the file says it. What is wrong with the file is told when it is read in earnest.
    pub(super) fn log_format(&self, common: &Common) -> Option<LogFormat> {
        let file =
            self.config.clone().or_else(|| Some(config::default_file(common.data_dir().ok()?.path())))?;
        Settings::read(&file, self.config.is_some()).ok()?.log_format
    }

    fn settings(self, common: &Common) -> Settings {
        Settings {
            network: common.network.clone(),
            bootstrap: self.bootstrap,
            listen: self.listen,
            external: self.external,
            api: self.api,
            api_name: self.api_name,
            push_private: self.push_private,
            lan: self.lan,
            model: self.model,
            capability: self.capability,
            engine: self.engine,
            price_prompt: self.price_prompt,
            price_completion: self.price_completion,
            slots: self.slots,
            threads: self.threads,
            memory: self.memory,
            idle_unload_s: self.idle_unload_s,
            approve: self.approval.rules,
            otlp: common.otlp.clone(),
            log_format: common.log_format,
            market: MarketSettings::default(),
            agent: Vec::new(),
        }
    }
}

/// The API, with the keys of this folder. Who needs a token to reach it is told where it is.
async fn api(settings: &Settings, held: &Held) -> Result<Server, Failure> {
    let (server, fallback) = bind_api(settings.api.as_deref()).await?;
    if fallback {
        print::say(&format!("port 5264 is taken: the API is at {}", server.url()));
    }
    let (token, fresh) = held.token()?;
    let keys = Keys::open(&held.dir().keys())?;
    keys.set_owner(&token);
    if !server.is_local() {
        print::say(
            "the API can be reached from other machines, in clear text: put a proxy with TLS before it",
        );
        let file = held.dir().path().join("token");
        let shown = if fresh { format!(" (shown this once): {token}") } else { String::new() };
        print::say(&format!("your token is in {}{shown}", file.display()));
        print::say("make keys for others with: llamesh keys create NAME");
    }
    let server = server.with_private_webhooks(settings.push_private);
    Ok(server.with_keys(keys).with_names(settings.api_name.clone()))
}

/// A default port that is taken is no reason to fail: the user did not ask for it.
async fn bind_api(chosen: Option<&str>) -> Result<(Server, bool), Failure> {
    match chosen {
        Some(address) => Ok((Server::bind(address).await?, false)),
        None => match Server::bind(config::API).await {
            Ok(server) => Ok((server, false)),
            Err(_) => Ok((Server::bind("127.0.0.1:0").await?, true)),
        },
    }
}

/// Where to listen, what to tell others, whom to dial.
struct Addresses {
    listen: Vec<Address>,
    external: Vec<Address>,
    bootstrap: Vec<Address>,
}

impl Addresses {
    fn of(settings: &Settings) -> Result<Self, Failure> {
        let usual = if settings.listen.is_empty() { default_listen() } else { Vec::new() };
        let listen = if settings.listen.is_empty() { &usual } else { &settings.listen };
        Ok(Self {
            listen: config::addresses("listen", listen)?,
            external: config::addresses("external", &settings.external)?,
            bootstrap: config::addresses("bootstrap", &settings.bootstrap)?,
        })
    }
}

/// The project's port; free ones where it is taken, as with a second peer on one machine.
fn default_listen() -> Vec<String> {
    let any = std::net::Ipv4Addr::UNSPECIFIED;
    let free = std::net::TcpListener::bind((any, config::PORT)).is_ok()
        && std::net::UdpSocket::bind((any, config::PORT)).is_ok();
    let port = if free { config::PORT } else { 0 };
    if !free {
        print::say(&format!("port {} is taken: listening on free ports instead", config::PORT));
    }
    vec![format!("/ip4/{any}/tcp/{port}"), format!("/ip4/{any}/udp/{port}/quic-v1")]
}

/// The one line that scripts wait for, or the screen for people.
async fn announce(node: &Node, api: &str, common: &Common, settings: &Settings) -> Result<(), Failure> {
    let snapshot = node.handle().snapshot().await.map_err(super::session::busy)?;
    let with_id = |address: &Address| address.with_peer(&snapshot.me).to_string();
    let listen: Vec<_> = snapshot.listening.iter().map(with_id).collect();
    if common.json {
        return print::json(&json!({ "event": "ready", "peer": snapshot.me, "listen": listen, "api": api }));
    }
    print::line(&format!("peer    {}", snapshot.me))?;
    for address in &listen {
        print::line(&format!("listen  {address}"))?;
    }
    print::line(&format!("api     {api}"))?;
    if settings.bootstrap.is_empty() && !settings.lan {
        let first = listen.first().map_or("ADDR", String::as_str);
        print::say(&format!("\nOthers join with: llamesh up --bootstrap {first}"));
    }
    print::say("Submit a job with: llamesh submit \"Why is the sky blue?\"    (Ctrl-C stops this peer)");
    Ok(())
}

/// A model that is first loaded for a job is measured then, and offered with its speed from then on.
async fn tell_changes(node: NodeHandle, agents: Agents, mut loads: watch::Receiver<u64>) {
    let mut told = agents.offers();
    while loads.changed().await.is_ok() {
        let offers = agents.offers();
        if offers != told && node.offer_again().is_ok() {
            told = offers;
        }
    }
}

async fn serve(mut node: Node, server: Server, held: Held, mut stop: Stop) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    let api = Api { node: node.handle().clone(), receipts: Some(held.dir().receipts()) };
    let serving = tokio::spawn(server.serve(api, shutdown.clone()));
    let ended = tokio::select! {
        () = stop.heard() => None,
        ended = node.wait() => Some(ended),
    };
    shutdown.cancel();
    serving.abort();
    match ended {
        Some(ended) => ended,
        None => node.stop().await,
    }
}
