//! The network: bytes to peers, bytes from peers, and who they are.
//!
//! This folder is the only place that knows libp2p. It knows no message of the protocol: the driver gives it bytes
//! and gets bytes. Its promises:
//!
//! 1. No call waits for a peer. Commands are queued or refused at once; answers are [`NetEvent`]s.
//! 2. Everything is bounded, and a slow driver slows the remotes down instead of filling memory.
//! 3. A peer has one name, its key. Whoever has no valid key, or belongs to another network, is disconnected.
//!
//! | module | concern |
//! |---|---|
//! | `swarm` | the task that owns the swarm: commands, libp2p's events, what is due |
//! | `behaviour` | the protocols of a peer, put together |
//! | `session` | long-lived streams of frames, past the swarm's task |
//! | `rpc`, `gossip` | questions and answers; broadcasts |
//! | `address`, `scope`, `book`, `bootstrap` | addresses: as written, as believed, as remembered, as given |
//! | `peers`, `pruner`, `snapshot` | who is connected, who must go, what `doctor` shows |

mod address;
mod behaviour;
mod book;
mod bootstrap;
mod event;
mod gossip;
mod peers;
mod pruner;
mod rpc;
mod scope;
mod session;
mod snapshot;
mod swarm;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crypto::{Network, PeerId, SecretKey};
use dht::kademlia::Wish;
use libp2p::StreamProtocol;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::metrics::Metrics;

pub use address::{Address, ParseAddressError, Transport};
pub use event::{
    BootstrapFailure, Events, GossipToken, InboundId, Misconduct, NetEvent, RequestError, Role, SessionEnd,
    Verdict, WrongPeer,
};
pub use session::FrameError;
use session::Sessions;
pub use snapshot::{DialFailure, Direction, PeerInfo, Snapshot};
use swarm::Command;

/// What the network needs to know.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Which mesh. It is part of every protocol id.
    pub network: Network,
    /// Who we are.
    pub key: SecretKey,
    /// Where to listen; nowhere is allowed for a peer that only asks.
    pub listen: Vec<Address>,
    /// Addresses under which others reach us although we do not see them here (a port forwarded, a public name).
    pub external: Vec<Address>,
    /// Where to find the mesh.
    pub bootstrap: Vec<Address>,
    /// Find and be found on the local network.
    pub lan: bool,
    /// Only ask: keep no records for others. For peers that live as long as one command.
    pub client: bool,
    /// What a message may weigh.
    pub limits: Limits,
}

/// Caps in bytes, checked before anything is allocated.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A request.
    pub request: usize,
    /// A response.
    pub response: usize,
    /// A frame of a session.
    pub frame: usize,
    /// A broadcast message.
    pub gossip: usize,
}

impl Default for Limits {
    /// Generous for what the protocol sends: profiles and bids by request, prompts by frame, announcements by
    /// broadcast.
    fn default() -> Self {
        Self { request: 64 * 1024, response: 256 * 1024, frame: 1024 * 1024, gossip: 8 * 1024 }
    }
}

/// The handle of a running network. Cheap to clone; the network stops when the last handle is gone, when its
/// [`Events`] are dropped, or at [`shutdown`](Self::shutdown).
#[derive(Clone, Debug)]
pub struct Net {
    me: PeerId,
    commands: mpsc::Sender<Command>,
    sessions: Arc<Sessions>,
}

/// Why the network did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Somebody listens there already.
    #[error("{address} is in use: stop the other process, or listen elsewhere (port 0 takes a free one)")]
    AddressInUse {
        /// The address.
        address: Address,
    },
    /// Broadcasts cannot be set up.
    #[error("broadcasts cannot be set up: {0}")]
    Gossip(String),
    /// The key is no key for the transport.
    #[error("the key cannot be used for the network: {0}")]
    Key(String),
    /// The local network cannot be searched.
    #[error("the local network cannot be searched for peers: {0}; start without `--lan`")]
    Lan(std::io::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        error: String,
    },
    /// The system took the addresses but did not confirm them.
    #[error("the system did not confirm the addresses to listen on in time")]
    ListenTimeout,
    /// The transport cannot be set up.
    #[error("the transport cannot be set up: {0}")]
    Transport(String),
}

/// The network takes no command: too many wait already, or it has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network takes no more commands: it is overloaded or has stopped")]
pub struct Unavailable;

impl Net {
    /// Starts the network and listens. When this returns, every address in [`NetConfig::listen`] is bound, and
    /// [`NetEvent::Listening`] tells what it became.
    ///
    /// # Errors
    /// [`NetError`]; then nothing is left running.
    pub async fn start(config: NetConfig) -> Result<(Self, Events), NetError> {
        Self::start_counted(config, Metrics::default()).await
    }

    /// The same, counted in `metrics`.
    pub(crate) async fn start_counted(
        config: NetConfig,
        metrics: Metrics,
    ) -> Result<(Self, Events), NetError> {
        let me = config.key.peer_id();
        let built = swarm::build(config, metrics).await?;
        let sessions = Arc::clone(&built.events.sessions);
        tokio::spawn(built.host.run());
        Ok((Self { me, commands: built.commands, sessions }, built.events))
    }

    /// Ourselves.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// Announces exactly these capability keys from now on. They are announced again by themselves; a key that is
    /// left out next time is forgotten by others within 45 minutes.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn provide(&self, keys: Vec<[u8; 32]>) -> Result<(), Unavailable> {
        self.command(Command::Provide(keys))
    }

    /// Looks for up to `want` other peers that announce `key`. [`NetEvent::Found`] comes within five seconds.
    ///
    /// # Errors
    /// [`Unavailable`]; then no event comes.
    pub fn find(&self, id: u64, key: [u8; 32], want: usize) -> Result<(), Unavailable> {
        self.command(Command::Find(Wish { id, key, want }))
    }

    /// Asks a peer, after connecting to it if need be. [`NetEvent::Response`] comes in any case, within seconds.
    ///
    /// # Errors
    /// [`Unavailable`]; then no event comes.
    pub fn request(&self, id: u64, to: PeerId, bytes: Vec<u8>) -> Result<(), Unavailable> {
        self.command(Command::Request { id, to, bytes })
    }

    /// Answers a [`NetEvent::Request`]. An answer that comes too late is dropped.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn respond(&self, inbound: InboundId, bytes: Vec<u8>) -> Result<(), Unavailable> {
        self.command(Command::Respond { inbound, bytes })
    }

    /// Queues a frame on the session with `peer`. As requester the first frame opens the session; as provider it must
    /// have been opened by the peer. The permit is given back when the frame has been handed to the connection, or is
    /// lost: a producer that takes one per frame goes at the remote's pace.
    ///
    /// # Errors
    /// [`FrameError`]; the frame is not sent. [`NetEvent::SessionClosed`] tells of what fails later.
    pub fn frame(
        &self,
        peer: PeerId,
        role: Role,
        bytes: Vec<u8>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<(), FrameError> {
        self.sessions.send(peer, role, bytes, permit)
    }

    /// Ends a session in order, after what is queued. [`NetEvent::SessionClosed`] follows.
    pub fn close_session(&self, peer: PeerId, role: Role) {
        self.sessions.close(peer, role);
    }

    /// Broadcasts a message, now or as soon as anybody listens to the topic, for ten seconds.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn publish(&self, topic: String, bytes: Vec<u8>) -> Result<(), Unavailable> {
        self.command(Command::Publish { topic, bytes })
    }

    /// Listens to a topic.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn subscribe(&self, topic: String) -> Result<(), Unavailable> {
        self.command(Command::Subscribe(topic))
    }

    /// Decides on a [`NetEvent::Gossip`]: only an accepted message travels further.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn judge(&self, token: GossipToken, verdict: Verdict) -> Result<(), Unavailable> {
        self.command(Command::Judge(token, verdict))
    }

    /// Connects to an address, if not connected to its peer already.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn dial(&self, address: Address) -> Result<(), Unavailable> {
        self.command(Command::Dial(address))
    }

    /// Closes all connections to a peer; it may come back.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn hang_up(&self, peer: PeerId) -> Result<(), Unavailable> {
        self.command(Command::HangUp(peer))
    }

    /// Disconnects a peer and refuses it from now on. The list is bounded: the oldest entry is forgiven first.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn block(&self, peer: PeerId) -> Result<(), Unavailable> {
        self.command(Command::Block(peer))
    }

    /// The network at this moment.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        let (reply, snapshot) = oneshot::channel();
        self.command(Command::Snapshot(reply))?;
        snapshot.await.map_err(|_| Unavailable)
    }

    /// Lets sessions send what they have, closes every connection, and returns when that is done (a second at most).
    pub async fn shutdown(self) {
        let (stopped, done) = oneshot::channel();
        if self.commands.send(Command::Shutdown(stopped)).await.is_ok() {
            let _ = done.await;
        }
    }

    fn command(&self, command: Command) -> Result<(), Unavailable> {
        self.commands.try_send(command).map_err(|_| Unavailable)
    }
}

/// The names of our protocols in one network.
#[derive(Clone, Debug)]
struct Protocols {
    id: String,
    kad: StreamProtocol,
    rpc: StreamProtocol,
    session: StreamProtocol,
}

impl Protocols {
    fn of(network: &Network) -> Result<Self, NetError> {
        let protocol = |name: &str| {
            let id = format!("/llamesh/{network}/{name}/1");
            StreamProtocol::try_from_owned(id).map_err(|error| NetError::Transport(error.to_string()))
        };
        Ok(Self {
            id: format!("/llamesh/{network}/id/1"),
            kad: protocol("kad")?,
            rpc: protocol("rpc")?,
            session: protocol("session")?,
        })
    }
}

/// Our name of a libp2p peer; `None` when its key is not a valid ed25519 key.
fn name(peer: &libp2p::PeerId) -> Option<PeerId> {
    PeerId::from_multihash(&peer.to_bytes()).ok()
}

/// libp2p's name of a peer. Every one of our names has one.
fn foreign(peer: &PeerId) -> Option<libp2p::PeerId> {
    libp2p::PeerId::from_bytes(&peer.to_multihash()).ok()
}

/// Commands that wait for the swarm's task. A full queue means that the driver asks faster than a network can.
const COMMANDS: usize = 1024;
/// Events that wait for the driver. One of them holds at most what one read brings in.
const EVENTS: usize = 256;
