//! The behaviours of a peer, put together.
//!
//! The order matters in one place: those that refuse connections stand first, so that nobody else sees a connection
//! that will not exist.

use std::time::Duration;

use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, gossipsub, identify, mdns, ping};

use super::book::Book;
use super::rpc::{self, Codec, Rpc};
use super::{NetConfig, NetError, Protocols, gossip};

/// Everything that this peer speaks.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// Refuses peers that the driver has blocked.
    pub(super) blocked: allow_block_list::Behaviour<BlockedPeers>,
    /// The backstop: the pruner normally keeps us far below.
    pub(super) limits: connection_limits::Behaviour,
    /// Knows where peers are; refuses keys that are no names.
    pub(super) book: Book,
    /// Exchanges addresses, protocols and versions on every new connection.
    pub(super) identify: identify::Behaviour,
    /// Finds who offers what.
    pub(super) kad: dht::kademlia::Kademlia,
    /// Broadcasts announcements.
    pub(super) gossip: gossipsub::Behaviour,
    /// Short questions and answers.
    pub(super) rpc: Rpc,
    /// Long-lived streams.
    pub(super) session: libp2p_stream::Behaviour,
    /// Notices dead connections and measures the living.
    pub(super) ping: ping::Behaviour,
    /// Finds peers on the local network, when asked to.
    pub(super) lan: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(key: &Keypair, config: &NetConfig, protocols: &Protocols) -> Result<Self, NetError> {
        let me = key.public().to_peer_id();
        let limits = &config.limits;
        let codec = Codec { max_request: limits.request, max_response: limits.response };
        Ok(Self {
            blocked: allow_block_list::Behaviour::default(),
            limits: connection_limits::Behaviour::new(connection_caps()),
            book: Book::default(),
            identify: identify::Behaviour::new(identity(key, protocols)),
            kad: dht::kademlia::kademlia(me, protocols.kad.clone()),
            gossip: gossip::behaviour(key, &config.network, limits.gossip).map_err(NetError::Gossip)?,
            rpc: rpc::behaviour(protocols.rpc.clone(), codec),
            session: libp2p_stream::Behaviour::new(),
            ping: ping::Behaviour::new(
                ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
            ),
            lan: lan(me, config.lan)?.into(),
        })
    }
}

/// Tells only the addresses that we confirm ourselves (`scope`), and keeps no cache of others': the book does.
fn identity(key: &Keypair, protocols: &Protocols) -> identify::Config {
    identify::Config::new(protocols.id.clone(), key.public())
        .with_agent_version(format!("llamesh/{}", env!("CARGO_PKG_VERSION")))
        .with_hide_listen_addrs(true)
        .with_cache_size(0)
}

fn lan(me: PeerId, wanted: bool) -> Result<Option<mdns::tokio::Behaviour>, NetError> {
    if !wanted {
        return Ok(None);
    }
    mdns::tokio::Behaviour::new(mdns::Config::default(), me).map(Some).map_err(NetError::Lan)
}

fn connection_caps() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established(Some(MAX_CONNECTIONS))
        .with_max_established_incoming(Some(MAX_INCOMING))
        .with_max_established_per_peer(Some(MAX_PER_PEER))
}

/// Handshakes at once in each direction: they cost signatures.
const MAX_PENDING: u32 = 64;
/// Connections in all, at some 80 KiB each.
const MAX_CONNECTIONS: u32 = 256;
/// Of these, how many others may begin: strangers cannot keep us from dialling.
const MAX_INCOMING: u32 = 192;
/// The backstop: of more than [`super::peers::MAX_LINKS`] to a peer the oldest is closed, which takes a moment.
const MAX_PER_PEER: u32 = 8;
/// Also how soon a peer that vanished without a word is noticed, together with the timeout.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
