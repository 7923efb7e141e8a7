//! The task that owns the swarm.
//!
//! Everything that needs the swarm happens here, one thing at a time: commands of the handle, events of libp2p, and
//! what is due. Nothing is awaited but the next of these, so no peer can hold the others up. News for the driver
//! waits in an outbox; when the driver is slow the outbox fills, and the swarm is not polled until there is room.

mod build;
mod news;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crypto::PeerId as Name;
use dht::kademlia::{Finder, Progress, Wish, table_size};
use futures::StreamExt;
use libp2p::kad::store::RecordStore;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, Swarm};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::address::Address;
use super::behaviour::Behaviour;
use super::bootstrap::Bootstraps;
use super::event::{BootstrapFailure, GossipToken, InboundId, NetEvent, RequestError, Verdict};
use super::gossip::{self, Publications};
use super::peers::Peers;
use super::pruner::{self, Candidate};
use super::rpc::{Outbound, Request, Requests};
use super::scope::believable;
use super::session::Sessions;
use super::snapshot::{DialFailure, Snapshot};
use super::{Protocols, foreign, name};
use crate::metrics::Metrics;

pub(super) use build::build;

/// What the handle and the sessions ask for.
pub(super) enum Command {
    Block(Name),
    Dial(Address),
    Find(Wish),
    HangUp(Name),
    Judge(GossipToken, Verdict),
    Provide(Vec<[u8; 32]>),
    Publish {
        topic: String,
        bytes: Vec<u8>,
    },
    /// Connect, if not connected, and say whether it worked.
    Reach {
        peer: PeerId,
        reached: oneshot::Sender<bool>,
    },
    Request {
        id: u64,
        to: Name,
        bytes: Vec<u8>,
    },
    Respond {
        inbound: InboundId,
        bytes: Vec<u8>,
    },
    Shutdown(oneshot::Sender<()>),
    Snapshot(oneshot::Sender<Snapshot>),
    Subscribe(String),
}

/// The state of the task.
pub(super) struct Host {
    swarm: Swarm<Behaviour>,
    me: Name,
    protocols: Protocols,
    policy: Policy,
    metrics: Metrics,
    /// From the handles and the sessions.
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<NetEvent>,
    /// News that the driver has not had room for yet.
    outbox: VecDeque<NetEvent>,
    sessions: Arc<Sessions>,
    finder: Finder,
    peers: Peers,
    bootstraps: Bootstraps,
    requests: Requests,
    publications: Publications,
    /// Sessions that wait for a connection.
    reaching: HashMap<PeerId, Vec<oneshot::Sender<bool>>>,
    /// In the order of blocking.
    blocked: VecDeque<PeerId>,
    /// The last few, the oldest first.
    dial_errors: VecDeque<(Instant, DialFailure)>,
    next_prune: Instant,
}

/// What the configuration decides about a running swarm.
struct Policy {
    /// Only ask, never serve lookups.
    client: bool,
    /// Addresses that somebody configured, because we cannot see them from here.
    external: Vec<Multiaddr>,
    max_gossip: usize,
}

impl Host {
    /// Runs until the last handle, the events, or patience with [`Command::Shutdown`] is gone.
    pub(super) async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stopped = loop {
            // A driver that is slow holds up the network; one that only commands holds up itself.
            let (has_room, takes_orders) = (self.outbox.len() < OUTBOX, self.outbox.len() < 2 * OUTBOX);
            tokio::select! {
                () = deliver(&self.events, &mut self.outbox), if !self.outbox.is_empty() => {}
                () = self.events.closed() => break None,
                event = self.swarm.select_next_some(), if has_room => self.on_swarm_event(event),
                command = self.commands.recv(), if takes_orders => match command {
                    None => break None,
                    Some(Command::Shutdown(done)) => break Some(done),
                    Some(command) => self.on_command(command),
                },
                _ = tick.tick() => self.on_tick(Instant::now()),
            }
            self.on_progress();
        };
        self.leave().await;
        if let Some(stopped) = stopped {
            let _ = stopped.send(());
        }
    }

    fn on_command(&mut self, command: Command) {
        let behaviour = self.swarm.behaviour_mut();
        match command {
            Command::Block(peer) => self.block(peer),
            Command::Dial(address) => self.dial(&address),
            Command::Find(wish) => self.find(wish),
            Command::HangUp(peer) => self.hang_up(&peer),
            Command::Judge(token, verdict) => {
                let (message, acceptance) = (&token.message, gossip::acceptance(verdict));
                behaviour.gossip.report_message_validation_result(message, &token.forwarder, acceptance);
            }
            Command::Provide(keys) => self.finder.provide(&mut behaviour.kad, keys),
            Command::Publish { topic, bytes } => {
                self.publications.publish(&mut behaviour.gossip, topic, bytes, Instant::now());
            }
            Command::Reach { peer, reached } => self.reach(peer, reached),
            Command::Request { id, to, bytes } => self.request(Outbound { id, to }, bytes),
            Command::Respond { inbound, bytes } => {
                // Too late, or gone: the remote has been told by its stream.
                let channel = self.requests.answer(inbound);
                let _ = channel.map(|channel| behaviour.rpc.send_response(channel, bytes));
            }
            // The loop ends before it gets here.
            Command::Shutdown(_) => {}
            Command::Snapshot(reply) => _ = reply.send(self.snapshot(Instant::now())),
            Command::Subscribe(topic) => {
                if !gossip::subscribe(&mut behaviour.gossip, &topic) {
                    tracing::warn!(topic, "the topic cannot be listened to");
                }
            }
        }
    }

    fn on_tick(&mut self, now: Instant) {
        let behaviour = self.swarm.behaviour_mut();
        self.finder.handle_timeout(&mut behaviour.kad, now);
        self.publications.retry(&mut behaviour.gossip, now);
        self.bootstrap(now);
        for peer in self.peers.silent(now) {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        if self.next_prune <= now {
            self.next_prune = now + PRUNE_INTERVAL;
            self.prune(now);
        }
    }

    /// Acts on what the lookups have learnt. Addresses told by strangers pass through `scope` first.
    fn on_progress(&mut self) {
        while let Some(progress) = self.finder.poll() {
            let behaviour = self.swarm.behaviour_mut();
            match progress {
                Progress::Found { id, peers } => {
                    let peers = peers.iter().filter_map(name).collect();
                    self.outbox.push_back(NetEvent::Found { id, peers });
                }
                Progress::Learned { peer, addresses } => {
                    behaviour.book.remember(peer, believable(addresses, self.peers.widest_reach()));
                }
                Progress::Offered(mut record) => {
                    record.addresses = believable(record.addresses, self.peers.reach(&record.provider));
                    let _ = behaviour.kad.store_mut().add_provider(record);
                }
                _ => {}
            }
        }
    }

    /// A lookup that is one too many is answered at once, as empty: every lookup has exactly one answer.
    fn find(&mut self, wish: Wish) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        if self.finder.find(kad, wish, Instant::now()).is_err() {
            self.outbox.push_back(NetEvent::Found { id: wish.id, peers: Vec::new() });
        }
    }

    /// libp2p dials if need be, with addresses from the book.
    fn request(&mut self, outbound: Outbound, bytes: Vec<u8>) {
        let peer = foreign(&outbound.to).filter(|_| self.requests.has_room_for(&outbound.to));
        match peer {
            Some(peer) => {
                let request = self.swarm.behaviour_mut().rpc.send_request(&peer, Request::Bytes(bytes));
                self.requests.sent(request, outbound);
            }
            None => self.outbox.push_back(NetEvent::Response {
                id: outbound.id,
                from: outbound.to,
                result: Err(RequestError::Busy),
            }),
        }
    }

    /// Answers when a connection is there or has failed; dials share one answer.
    fn reach(&mut self, peer: PeerId, reached: oneshot::Sender<bool>) {
        if self.swarm.is_connected(&peer) {
            let _ = reached.send(true);
            return;
        }
        self.reaching.entry(peer).or_default().push(reached);
        match self.swarm.dial(peer) {
            // A dial that is already on its way will answer.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.on_dial_error(Some(peer), &error),
        }
    }

    fn dial(&mut self, address: &Address) {
        let options = dial_options(address);
        let peer = options.get_peer_id();
        if let Err(error) = self.swarm.dial(options) {
            self.on_dial_error(peer, &error);
        }
    }

    /// Dials the bootstrap addresses that are due.
    fn bootstrap(&mut self, now: Instant) {
        while let Some((index, address)) = self.bootstraps.due(self.peers.members(), now) {
            let options = dial_options(&address);
            let (peer, connection) = (options.get_peer_id(), options.connection_id());
            self.bootstraps.dialling(index, connection);
            match self.swarm.dial(options) {
                Ok(()) => {}
                // Connected or about to be: the introduction will settle it, or the next attempt.
                Err(DialError::DialPeerConditionFalse(_)) => {
                    let settled = peer.filter(|peer| self.peers.is_member(peer));
                    match settled {
                        Some(peer) => self.outbox.extend(self.bootstraps.reached(peer, None)),
                        None => self.bootstraps.postpone(index, now),
                    }
                }
                Err(error) => {
                    self.on_dial_error(peer, &error);
                    self.on_bootstrap_error(connection, &address, &error);
                }
            }
        }
    }

    /// Whoever is not connected has nothing to be closed.
    fn hang_up(&mut self, peer: &Name) {
        if let Some(peer) = foreign(peer) {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// The behaviour closes the connections; the queue keeps the list from growing for ever.
    fn block(&mut self, peer: Name) {
        let Some(peer) = foreign(&peer) else { return };
        let list = &mut self.swarm.behaviour_mut().blocked;
        if self.blocked.len() >= MAX_BLOCKED
            && let Some(oldest) = self.blocked.pop_front()
        {
            list.unblock_peer(oldest);
        }
        if list.block_peer(peer) {
            self.blocked.push_back(peer);
        }
    }

    fn prune(&mut self, now: Instant) {
        for peer in pruner::surplus(self.candidates(now)) {
            tracing::debug!(%peer, "a connection is given up: there are enough");
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Everybody connected, and whether something needs them.
    fn candidates(&mut self, now: Instant) -> Vec<Candidate> {
        let me = (*self.swarm.local_peer_id()).into();
        let behaviour = self.swarm.behaviour_mut();
        let neighbours: Vec<_> = behaviour.kad.get_closest_local_peers(&me).take(NEIGHBOURS).collect();
        let mesh: Vec<_> = behaviour.gossip.all_mesh_peers().collect();
        let candidate = |(id, peer): (&PeerId, &super::peers::Peer)| Candidate {
            peer: *id,
            connected_for: now.duration_since(peer.since),
            needed: self.sessions.serves(peer.name)
                || self.requests.with(&peer.name) > 0
                || self.bootstraps.contains(id)
                || mesh.contains(&id)
                || neighbours.iter().any(|neighbour| neighbour.preimage() == id),
        };
        self.peers.iter().map(candidate).collect()
    }

    fn snapshot(&mut self, now: Instant) -> Snapshot {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let (routing_table, serves_lookups) = (table_size(kad), kad.mode() == libp2p::kad::Mode::Server);
        let ours = |address: &Multiaddr| Address::from(address.clone()).with_peer(&self.me);
        let aged = |(at, failure): &(Instant, DialFailure)| DialFailure {
            age: now.duration_since(*at),
            ..failure.clone()
        };
        Snapshot {
            me: self.me,
            listening: self.swarm.listeners().map(ours).collect(),
            advertised: self.swarm.external_addresses().map(ours).collect(),
            serves_lookups,
            routing_table,
            sessions: self.sessions.len(),
            peers: self.peers.snapshot(now),
            dial_errors: self.dial_errors.iter().rev().map(aged).collect(),
        }
    }

    /// Lets sessions send what they have, then closes every connection.
    async fn leave(&mut self) {
        let sessions = Arc::clone(&self.sessions);
        let mut closing = std::pin::pin!(sessions.close_all());
        let _ = timeout(FAREWELL, async {
            loop {
                tokio::select! {
                    () = &mut closing => break,
                    _ = self.swarm.select_next_some() => {}
                }
            }
        })
        .await;
        let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let _ = timeout(FAREWELL, async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        })
        .await;
    }
}

/// Hands over the oldest news as soon as the driver has room. Cancel-safe.
async fn deliver(events: &mpsc::Sender<NetEvent>, outbox: &mut VecDeque<NetEvent>) {
    if let Ok(permit) = events.reserve().await
        && let Some(event) = outbox.pop_front()
    {
        permit.send(event);
    }
}

/// A dial to whoever is expected at the address, if not connected to it already.
fn dial_options(address: &Address) -> DialOpts {
    let place = address.multiaddr().clone();
    match place.iter().last() {
        Some(Protocol::P2p(peer)) => DialOpts::peer_id(peer).addresses(vec![place]).build(),
        _ => place.into(),
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Command")
    }
}

/// How late a deadline may be noticed.
const TICK: Duration = Duration::from_millis(250);
/// News that wait for the driver before the swarm has to wait too.
const OUTBOX: usize = 256;
const PRUNE_INTERVAL: Duration = Duration::from_secs(5);
/// The nearest peers in the routing table, which answer for the keys around us: as many as a key is replicated.
const NEIGHBOURS: usize = 20;
/// Peers that stay refused; the oldest is forgiven first.
const MAX_BLOCKED: usize = 4096;
/// Each half of a farewell.
const FAREWELL: Duration = Duration::from_millis(500);
/// Failed dials that a person can look back on.
const MAX_DIAL_ERRORS: usize = 16;
