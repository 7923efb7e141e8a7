//! From a configuration to a listening swarm.
//!
//! Everything that can be wrong with an address to listen on shows here, before the task starts: a peer that listens
//! nowhere must not look as if it did.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p::{SwarmBuilder, noise, tcp, yamux};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Command, Host, Policy};
use crate::metrics::Metrics;
use crate::net::address::{Address, Transport, without_peer};
use crate::net::behaviour::Behaviour;
use crate::net::bootstrap::Bootstraps;
use crate::net::session::{Sessions, Surroundings};
use crate::net::{COMMANDS, EVENTS, Events, NetConfig, NetError, Protocols};

/// The ends of the queues that the task's owner keeps.
pub(in crate::net) struct Built {
    pub(in crate::net) host: Host,
    pub(in crate::net) commands: mpsc::Sender<Command>,
    pub(in crate::net) events: Events,
}

/// A swarm that listens on every address of the configuration, and its surroundings.
pub(in crate::net) async fn build(config: NetConfig, metrics: Metrics) -> Result<Built, NetError> {
    let key =
        Keypair::ed25519_from_bytes(config.key.seed()).map_err(|error| NetError::Key(error.to_string()))?;
    let protocols = Protocols::of(&config.network)?;
    let behaviour = Behaviour::new(&key, &config, &protocols)?;
    let swarm = swarm(key, behaviour)?;
    let (command_sender, commands) = mpsc::channel(COMMANDS);
    let (events, queue) = mpsc::channel(EVENTS);
    let sessions = Sessions::new(Surroundings {
        control: swarm.behaviour().session.new_control(),
        protocol: protocols.session.clone(),
        commands: command_sender.downgrade(),
        events: events.downgrade(),
        max_frame: config.limits.frame,
    });
    let incoming = swarm.behaviour().session.new_control().accept(protocols.session.clone());
    let incoming = incoming.map_err(|error| NetError::Transport(error.to_string()))?;
    tokio::spawn(std::sync::Arc::clone(&sessions).accept(incoming));
    let now = Instant::now();
    let mut host = Host {
        swarm,
        me: config.key.peer_id(),
        protocols,
        policy: Policy {
            client: config.client,
            external: config.external.iter().map(|address| without_peer(address.multiaddr())).collect(),
            max_gossip: config.limits.gossip,
        },
        metrics,
        commands,
        events,
        outbox: VecDeque::new(),
        sessions: std::sync::Arc::clone(&sessions),
        finder: dht::kademlia::Finder::default(),
        peers: Default::default(),
        bootstraps: Bootstraps::new(config.bootstrap, now),
        requests: Default::default(),
        publications: Default::default(),
        reaching: Default::default(),
        blocked: VecDeque::new(),
        dial_errors: VecDeque::new(),
        next_prune: now,
    };
    host.listen(&config.listen).await?;
    Ok(Built { host, commands: command_sender, events: Events { queue, sessions } })
}

/// The transports: TCP with Noise and Yamux, QUIC, and names for both. Yamux tunes its windows itself: setting them has
/// broken others.
fn swarm(key: Keypair, behaviour: Behaviour) -> Result<Swarm<Behaviour>, NetError> {
    let transport = |error: &dyn std::fmt::Display| NetError::Transport(error.to_string());
    let builder = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .map_err(|error| transport(&error))?
        .with_quic_config(|mut quic| {
            quic.max_idle_timeout = QUIC_IDLE_MS;
            quic
        })
        .with_dns()
        .map_err(|error| transport(&error))?
        .with_behaviour(|_| behaviour)
        .map_err(|error| transport(&error))?;
    let swarm = builder.with_swarm_config(|config| {
        config
            .with_idle_connection_timeout(IDLE)
            // Saves a round trip per request; sessions do not mind, they wait for a greeting.
            .with_substream_upgrade_protocol_override(Version::V1Lazy)
    });
    Ok(swarm.build())
}

impl Host {
    /// Listens, and waits until every listener has told its first address.
    async fn listen(&mut self, addresses: &[Address]) -> Result<(), NetError> {
        let mut silent = HashSet::new();
        for address in addresses {
            let failed = |error: io::Error| listen_error(address, &error);
            probe(address).map_err(failed)?;
            let listener = self.swarm.listen_on(without_peer(address.multiaddr()));
            silent.insert(listener.map_err(|error| failed(io::Error::other(error)))?);
        }
        timeout(LISTEN_TIMEOUT, self.hear_from(silent)).await.unwrap_or(Err(NetError::ListenTimeout))?;
        self.addresses_changed(Instant::now());
        Ok(())
    }

    /// A listener may still fail after it was accepted, so its first word is awaited.
    async fn hear_from(&mut self, mut silent: HashSet<ListenerId>) -> Result<(), NetError> {
        while !silent.is_empty() {
            let event = self.swarm.select_next_some().await;
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } => _ = silent.remove(listener_id),
                SwarmEvent::ListenerClosed { reason: Err(error), addresses, .. } => {
                    let address = addresses.first().map(|address| address.to_string()).unwrap_or_default();
                    return Err(NetError::Listen { address, error: error.to_string() });
                }
                _ => {}
            }
            self.on_swarm_event(event);
        }
        Ok(())
    }
}

/// Binds once and lets go. libp2p's TCP sets SO_REUSEPORT, so two peers of one user would share a port without an
/// error, and each would get half of the connections.
fn probe(address: &Address) -> io::Result<()> {
    let Some(socket) = address.socket().filter(|socket| socket.port() != 0) else { return Ok(()) };
    match address.transport() {
        Transport::Quic => UdpSocket::bind(socket).map(|_| ()),
        Transport::Tcp => TcpListener::bind(socket).map(|_| ()),
    }
}

/// The one cause that a person can mend without reading further gets an error of its own.
fn listen_error(address: &Address, error: &io::Error) -> NetError {
    if error.kind() == io::ErrorKind::AddrInUse {
        return NetError::AddressInUse { address: address.clone() };
    }
    NetError::Listen { address: address.to_string(), error: error.to_string() }
}

/// A connection without a session, a request or a broadcast is closed after this.
const IDLE: Duration = Duration::from_secs(90);
/// A laptop may sleep for a moment without losing its connections.
const QUIC_IDLE_MS: u32 = 30_000;
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
