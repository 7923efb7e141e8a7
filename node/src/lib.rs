//! A Llamesh peer: the machines of `protocol`, driven by a network, models and a disk.
//!
//! ```text
//!   cli ──▶ api ──▶ handle ──▶ driver ──▶ protocol::Peer
//!                               │  ▲
//!                 net ◀─────────┤  ├───────── agents (model, embedder, echo, upstream)
//!                 journal ◀─────┤  └───────── discovery (directory, DHT)
//!                 receipts ◀────┘
//! ```
//!
//! | module | concern |
//! |---|---|
//! | [`driver`](crate) | the event loop; the only owner of the peer machine |
//! | [`handle`], [`patron`] | what everybody else holds of a running peer; who pays for its jobs |
//! | [`agents`] | what a peer can do |
//! | [`net`] | bytes to peers and from peers; the only room that knows libp2p |
//! | [`datadir`], [`journal`], [`receipts`] | what is kept |
//! | [`plans`] | plans of many jobs, and what is kept of their runs |
//! | [`jws`] | signatures for programs that do not speak the mesh's protocol |
//! | [`metrics`](crate) | what is counted of a peer, for whoever watches it |
//! | [`models`] | how a model gets onto this machine |
//! | [`api`] | the local HTTP API, OpenAI's shape included |
//! | [`config`], [`hosting`] | flags, environment and `llamesh.toml` → a peer's agents |
//! | [`sdk`] | the mesh for Rust programs, in ten lines |
//! | [`traces`] | what happened to a job, for whoever watches several peers |
//! | [`cli`] | the program |

mod affinity;
pub mod agents;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod conversation;
pub mod datadir;
mod discovery;
mod driver;
pub mod failure;
pub mod handle;
pub mod hosting;
pub mod jobs;
pub mod journal;
pub mod jws;
mod metrics;
pub mod models;
pub mod net;
pub mod patron;
pub mod plans;
pub mod receipts;
pub mod request;
pub mod sdk;
pub mod traces;
mod translate;
pub mod verification;

use std::path::PathBuf;

use crypto::{Network, SecretKey};
use protocol::{Entry, Event, Peer, event, peer};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agents::Agents;
use crate::driver::Driver;
use crate::failure::{Class, Failure};
use crate::handle::NodeHandle;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::net::{Address, Net, NetConfig};
use crate::traces::Traces;

/// Commands that wait for the driver. Each is one click or one request of a local program.
const COMMANDS: usize = 256;
/// Productions that wait for the driver; agents wait beyond it, each within its own window.
const PRODUCTIONS: usize = 1024;

/// What a peer is made of.
#[derive(Debug)]
pub struct NodeConfig {
    /// Which mesh.
    pub network: Network,
    /// Who it is.
    pub key: SecretKey,
    /// Where it listens.
    pub listen: Vec<Address>,
    /// Addresses at which others reach it although it does not see them itself.
    pub external: Vec<Address>,
    /// Where it finds the mesh.
    pub bootstrap: Vec<Address>,
    /// Whether it looks for peers on the local network.
    pub lan: bool,
    /// True for a peer that lives as long as one command: it keeps no records for others.
    pub client: bool,
    /// What it hosts.
    pub agents: Agents,
    /// What it remembers.
    pub journal: Journal,
    /// The entries that were in the journal.
    pub entries: Vec<Entry>,
    /// Where it keeps receipts.
    pub receipts: Option<PathBuf>,
    /// How much work it takes on, and how patient it is.
    pub peer: peer::Config,
}

impl NodeConfig {
    /// A peer of this mesh that hosts nothing, keeps no receipts, listens nowhere and knows nobody.
    pub fn new(network: Network, key: SecretKey, journal: Journal) -> Self {
        Self {
            network,
            key,
            listen: Vec::new(),
            external: Vec::new(),
            bootstrap: Vec::new(),
            lan: false,
            client: false,
            agents: Agents::default(),
            journal,
            entries: Vec::new(),
            receipts: None,
            peer: peer::Config::default(),
        }
    }
}

/// A running peer. Dropping it leaves the peer running until the runtime ends; [`Node::stop`] ends it in order.
#[derive(Debug)]
pub struct Node {
    handle: NodeHandle,
    receipts: Option<PathBuf>,
    shutdown: CancellationToken,
    driver: JoinHandle<Result<(), Failure>>,
}

impl Node {
    /// Starts a peer: when this returns it listens, and joins the mesh behind the caller's back.
    ///
    /// # Errors
    /// [`Failure`] of the class `Network` when an address cannot be listened on.
    pub async fn start(config: NodeConfig) -> Result<Self, Failure> {
        Self::start_traced(config, Traces::default()).await
    }

    /// The same, with its jobs traced.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_traced(config: NodeConfig, traces: Traces) -> Result<Self, Failure> {
        let metrics = Metrics::default();
        let (net, events) = Net::start_counted(net_config(&config), metrics.clone()).await?;
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (productions, produced) = mpsc::channel(PRODUCTIONS);
        let (joining, joined) = watch::channel(handle::Joining::default());
        let handle = NodeHandle {
            commands: sender,
            net: net.clone(),
            network: config.network.clone(),
            agents: config.agents.clone(),
            key: config.key.clone(),
            joined,
            patron: None,
            metrics: metrics.clone(),
            traces: traces.clone(),
            trace: None,
        };
        let shutdown = CancellationToken::new();

        let mut peer = Peer::new(config.peer, config.network.clone(), config.key);
        config.entries.iter().for_each(|entry| peer.restore(entry));
        peer.handle(clock::now(), Event::Command(event::Command::Offer(config.agents.offers())));
        let driver = Driver {
            peer,
            network: config.network.clone(),
            net,
            events,
            discovery: discovery::Discovery::new(config.network),
            agents: config.agents,
            journal: config.journal,
            receipts: config.receipts.clone(),
            handle: handle.clone(),
            commands,
            produced,
            productions,
            joining,
            shutdown: shutdown.clone(),
            state: driver::State::watched(metrics, traces),
        };
        Ok(Self { handle, receipts: config.receipts, shutdown, driver: tokio::spawn(driver.run()) })
    }

    /// The handle.
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// Where it keeps receipts.
    pub fn receipts(&self) -> Option<&std::path::Path> {
        self.receipts.as_deref()
    }

    /// Ends when the peer does: never, unless it is stopped, or its disk or its network fails.
    ///
    /// # Errors
    /// [`Failure`] of the class `Data` or `Network`.
    pub async fn wait(&mut self) -> Result<(), Failure> {
        match (&mut self.driver).await {
            Ok(ended) => ended,
            Err(error) => Err(Failure::new(Class::Internal, format!("the peer's loop failed: {error}"))),
        }
    }

    /// Stops the peer: no new work, running agents are dropped, connections are closed.
    ///
    /// # Errors
    /// What [`Node::wait`] finds.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.shutdown.cancel();
        self.wait().await
    }
}

fn net_config(config: &NodeConfig) -> NetConfig {
    NetConfig {
        network: config.network.clone(),
        key: config.key.clone(),
        listen: config.listen.clone(),
        external: config.external.clone(),
        bootstrap: config.bootstrap.clone(),
        lan: config.lan,
        client: config.client,
        limits: net::Limits {
            request: 16 << 10,
            response: 40 << 10,
            frame: protocol::codec::MAX_MESSAGE,
            gossip: 4 << 10,
        },
    }
}
