//! The mesh for Rust programs: join it, ask it, read answers as they come, offer what the program itself can do.
//!
//! ```no_run
//! # async fn program() -> Result<(), Box<dyn std::error::Error>> {
//! use node::sdk::Mesh;
//!
//! let mesh = Mesh::join("/ip4/192.0.2.7/tcp/5263/p2p/12D3…").await?;
//! let mut answer = mesh.ask("Why is the sky blue?").await?;
//! while let Some(piece) = answer.next().await {
//!     print!("{}", piece?);
//! }
//! mesh.leave().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Mesh`] is a whole peer within the program. Everything that it does can be done with a [`Node`], which this is a
//! short way to.
//!
//! | module | concern |
//! |---|---|
//! | `answer` | an answer, piece by piece |
//! | `skill` | what a program offers: one trait of one function |

mod answer;
mod skill;

use std::path::PathBuf;
use std::sync::Arc;

use crypto::{Network, PeerId, SecretKey};
use protocol::{Capability, Credits, Price};

pub use self::answer::Answer;
use self::skill::Skilled;
pub use self::skill::{Question, Say, Skill};
use crate::agents::Agents;
use crate::api::control;
use crate::config;
use crate::datadir::{DataDir, Held};
use crate::failure::{Class, Failure};
use crate::handle::NodeHandle;
use crate::journal::Journal;
use crate::net::Address;
use crate::request::JobRequest;
use crate::{Node, NodeConfig, clock};

/// A peer within this program. Dropping it leaves it running until the runtime ends; [`Mesh::leave`] ends it in order.
#[derive(Debug)]
pub struct Mesh {
    node: Node,
    /// The folder is this peer's for as long as it lives.
    _folder: Option<Held>,
}

/// A peer that is to be.
#[derive(Debug, Default)]
pub struct Builder {
    network: Option<String>,
    bootstrap: Vec<String>,
    listen: Vec<String>,
    lan: bool,
    folder: Option<PathBuf>,
    price: Price,
    agents: Agents,
}

impl Mesh {
    /// A peer that only asks, with a new key, joined at an address as `llamesh up` prints it.
    ///
    /// # Errors
    /// [`Failure`]: no such address, or nobody there.
    pub async fn join(address: &str) -> Result<Self, Failure> {
        Self::builder().bootstrap(address).start().await
    }

    /// A peer with more to be said of it.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Asks anybody who generates text.
    ///
    /// # Errors
    /// As [`Mesh::submit`].
    pub async fn ask(&self, prompt: &str) -> Result<Answer, Failure> {
        self.submit(&JobRequest { prompt: Some(prompt.to_owned()), ..JobRequest::default() }).await
    }

    /// Submits a job: a model, a capability, a budget and whatever else a job may say. Its answer's [`Answer::next`] is
    /// where it fails on the way.
    ///
    /// # Errors
    /// [`Failure`] of the class `Request` or `NoProvider`.
    pub async fn submit(&self, request: &JobRequest) -> Result<Answer, Failure> {
        let node = self.node.handle();
        let spec = control::spec(node, request).await?;
        Ok(Answer::of(node.submit(spec)?))
    }

    /// Who this is.
    pub fn id(&self) -> PeerId {
        self.node.handle().id()
    }

    /// Where others find it: what they pass to [`Mesh::join`] or `--bootstrap`.
    ///
    /// # Errors
    /// [`Failure`] when the peer is overloaded.
    pub async fn addresses(&self) -> Result<Vec<String>, Failure> {
        let snapshot = self.node.handle().snapshot().await.map_err(Failure::of(Class::Network))?;
        Ok(snapshot.listening.iter().map(|address| address.with_peer(&snapshot.me).to_string()).collect())
    }

    /// Everything else that can be asked of a peer.
    pub fn handle(&self) -> &NodeHandle {
        self.node.handle()
    }

    /// Ends when the peer does: never, unless its disk or its network fails. For programs that only offer.
    ///
    /// # Errors
    /// [`Failure`] of the class `Data` or `Network`.
    pub async fn run(&mut self) -> Result<(), Failure> {
        self.node.wait().await
    }

    /// Leaves the mesh in order.
    ///
    /// # Errors
    /// [`Failure`] of the class `Data`.
    pub async fn leave(self) -> Result<(), Failure> {
        self.node.stop().await
    }
}

impl Builder {
    /// Finds the mesh at this address, too.
    #[must_use]
    pub fn bootstrap(mut self, address: &str) -> Self {
        self.bootstrap.push(address.to_owned());
        self
    }

    /// Another mesh than the usual one.
    #[must_use]
    pub fn network(self, name: &str) -> Self {
        Self { network: Some(name.to_owned()), ..self }
    }

    /// Listens here, too; where nothing is said, a peer that offers something listens on free ports, and others nowhere.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        self.listen.push(address.to_owned());
        self
    }

    /// Finds peers on the local network.
    #[must_use]
    pub fn lan(self) -> Self {
        Self { lan: true, ..self }
    }

    /// Keeps key, balances and receipts in a folder. Without one the peer is a new one each time, and keeps nothing.
    #[must_use]
    pub fn folder(self, folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), ..self }
    }

    /// What is offered from here on costs so many micro-credits for 1000 tokens (or pieces) of question and answer.
    #[must_use]
    pub fn price(self, question: u64, answer: u64) -> Self {
        Self { price: Price { prompt: Credits(question), completion: Credits(answer) }, ..self }
    }

    /// Offers a skill of this program under a capability, like `text.translation` or `tool.weather`. Whoever orders what
    /// is below `tool` brings a JSON object.
    #[must_use]
    pub fn offer(mut self, capability: Capability, skill: impl Skill) -> Self {
        self.agents.host(Arc::new(Skilled::new(skill, capability, self.price)));
        self
    }

    /// Starts the peer, and waits until it has joined where it was told an address.
    ///
    /// # Errors
    /// [`Failure`]: what was said makes no sense, an address is taken, or nobody is there.
    pub async fn start(self) -> Result<Mesh, Failure> {
        let network: Network = match &self.network {
            Some(name) => {
                name.parse().map_err(|error| Failure::new(Class::Usage, format!("{name}: {error}")))?
            }
            None => Network::default(),
        };
        let client = self.agents.offers().is_empty();
        let usual = ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"].map(str::to_owned);
        let listen = if self.listen.is_empty() && !client { &usual[..] } else { &self.listen };
        let bootstrap = config::addresses("bootstrap", &self.bootstrap)?;
        let folder = self.folder.map(|folder| DataDir::locate(Some(folder))?.hold()).transpose()?;
        let (key, (journal, entries)) = match &folder {
            Some(held) => (held.key()?, Journal::open(&held.dir().path().join("journal.redb"))?),
            None => (new_key()?, (Journal::in_memory()?, Vec::new())),
        };
        let addresses = bootstrap.len();
        let config = NodeConfig {
            listen: config::addresses("listen", listen)?,
            bootstrap,
            lan: self.lan,
            client,
            agents: self.agents,
            entries,
            receipts: folder.as_ref().map(|held| held.dir().receipts()),
            ..NodeConfig::new(network, key, journal)
        };
        let node = Node::start(config).await?;
        if addresses > 0 {
            node.handle().join(addresses).await.map_err(|failures| nobody(&failures))?;
        }
        Ok(Mesh { node, _folder: folder })
    }
}

fn new_key() -> Result<SecretKey, Failure> {
    let seed = clock::random().map_err(Failure::of(Class::Internal))?;
    Ok(SecretKey::from_seed(&seed))
}

/// Why no address led into the mesh.
fn nobody(failures: &[(Address, crate::net::BootstrapFailure)]) -> Failure {
    let each: Vec<_> = failures.iter().map(|(address, why)| format!("\n  {address}: {why}")).collect();
    Failure::new(Class::Network, format!("no bootstrap peer could be reached{}", each.concat()))
}
