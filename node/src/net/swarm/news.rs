//! What libp2p reports, and what follows from it.

use std::error::Error;
use std::time::Instant;

use libp2p::core::transport::TransportError;
use libp2p::gossipsub::MessageAcceptance;
use libp2p::request_response::{self, Message, OutboundRequestId};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, gossipsub, identify, kad, mdns, ping};

use super::{BootstrapFailure, DialFailure, Host, MAX_DIAL_ERRORS, RequestError, name};
use crate::net::address::Address;
use crate::net::behaviour::BehaviourEvent;
use crate::net::event::{GossipToken, InboundId, Misconduct, NetEvent, WrongPeer};
use crate::net::peers::Closed;
use crate::net::rpc::{self, Request};
use crate::net::scope::{Reach, Scope, advertised, believable};
use crate::net::snapshot::Direction;

impl Host {
    /// One event of the swarm: connections, dials and listeners here, protocols in [`on_behaviour`](Self::on_behaviour).
    pub(super) fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let now = Instant::now();
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event, now),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let direction = if endpoint.is_dialer() { Direction::Outbound } else { Direction::Inbound };
                let address = Address::from(endpoint.get_remote_address().clone());
                self.metrics.network.opened(direction, address.transport());
                if let Some(oldest) = self.peers.opened(peer_id, connection_id, &endpoint, now) {
                    self.swarm.close_connection(oldest);
                }
                self.tell_reaching(&peer_id, true);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.metrics.network.closed();
                self.on_closed(peer_id, connection_id, now);
            }
            SwarmEvent::IncomingConnectionError { .. } => self.metrics.network.refused(),
            SwarmEvent::OutgoingConnectionError { peer_id, connection_id, error } => {
                self.on_dial_error(peer_id, &error);
                if let Some(address) = self.bootstraps.address(connection_id) {
                    self.on_bootstrap_error(connection_id, &address, &error);
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                let told = Address::from(address).with_peer(&self.me);
                self.outbox.push_back(NetEvent::Listening(told));
                self.addresses_changed(now);
            }
            SwarmEvent::ExpiredListenAddr { .. } => self.addresses_changed(now),
            SwarmEvent::ListenerClosed { reason: Err(error), .. }
            | SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener failed");
            }
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent, now: Instant) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { connection_id, peer_id, info }) => {
                self.on_identified(peer_id, connection_id, &info);
            }
            BehaviourEvent::Kad(event) => self.on_kad(event, now),
            BehaviourEvent::Gossip(event) => self.on_gossip(event, now),
            BehaviourEvent::Rpc(event) => self.on_rpc(event),
            BehaviourEvent::Ping(ping::Event { peer, connection, result }) => match result {
                Ok(rtt) => {
                    self.metrics.network.measured(rtt);
                    self.peers.measured(&peer, rtt);
                }
                Err(ping::Failure::Unsupported) => {}
                // A connection that does not answer is dead, whatever the socket says.
                Err(_) => _ = self.swarm.close_connection(connection),
            },
            BehaviourEvent::Lan(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    let addresses = believable([address], Reach::over(Scope::Private));
                    self.swarm.behaviour_mut().book.remember(peer, addresses);
                    let _ = self.swarm.dial(peer);
                }
            }
            _ => {}
        }
    }

    /// The remote has said who it is: it is one of us, or it goes.
    fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        if info.protocol_version != self.protocols.id {
            let theirs = info.protocol_version.chars().filter(|char| !char.is_control()).take(64).collect();
            let reason = BootstrapFailure::OtherNetwork { theirs };
            self.outbox.extend(self.bootstraps.failed(connection, reason, Instant::now()));
            // The caller hangs up: it must have heard our name, too, to know why. One that stays is never a member and
            // goes when the time for introductions is over.
            if self.peers.is_dialled(&peer, connection) {
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            return;
        }
        let is_new = self.peers.identified(&peer, info);
        // Identify tells, and nothing more: what we believe of it goes into the book and the routing table here.
        let addresses = believable(info.listen_addrs.iter().cloned(), self.peers.reach(&peer));
        let behaviour = self.swarm.behaviour_mut();
        behaviour.book.remember(peer, addresses.clone());
        // A client does not offer Kademlia: in the table it would only cost dials.
        if info.protocols.contains(&self.protocols.kad) {
            for address in addresses {
                behaviour.kad.add_address(&peer, address);
            }
        }
        if is_new {
            self.outbox.extend(name(&peer).map(NetEvent::Connected));
        }
        self.outbox.extend(self.bootstraps.reached(peer, Some(connection)));
    }

    /// A peer may have two connections; the driver hears of the last one.
    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        let closed = self.peers.closed(&peer, connection);
        if closed == Closed::Member {
            self.outbox.extend(name(&peer).map(NetEvent::Disconnected));
        }
        if closed != Closed::OneOfSeveral {
            self.bootstraps.lost(peer, now);
        }
        let reason =
            BootstrapFailure::Unreachable("the connection was closed before the peer said who it is".into());
        self.outbox.extend(self.bootstraps.failed(connection, reason, now));
    }

    fn on_kad(&mut self, event: kad::Event, now: Instant) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        self.finder.handle(kad, event, now);
    }

    fn on_gossip(&mut self, event: gossipsub::Event, now: Instant) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let token = GossipToken { message: message_id, forwarder: propagation_source };
                self.on_broadcast(token, message);
            }
            // Somebody listens now: what waited for a listener may go.
            gossipsub::Event::Subscribed { .. } => {
                self.publications.retry(&mut self.swarm.behaviour_mut().gossip, now);
            }
            _ => {}
        }
    }

    /// Hands a broadcast to the driver under its author's name. Without a name nobody could answer for it.
    fn on_broadcast(&mut self, token: GossipToken, message: gossipsub::Message) {
        let over_cap = message.data.len() > self.policy.max_gossip;
        let author = message.source.as_ref().and_then(name).filter(|_| !over_cap);
        if let Some(from) = author {
            let topic = message.topic.into_string();
            self.outbox.push_back(NetEvent::Gossip { from, topic, bytes: message.data, token });
            return;
        }
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(&token.message, &token.forwarder, MessageAcceptance::Reject);
        if over_cap {
            self.misconduct(&token.forwarder, Misconduct::GossipOverCap);
        }
    }

    fn on_rpc(&mut self, event: request_response::Event<Request, Vec<u8>>) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                Message::Request { request: Request::OverCap, .. } => {
                    self.misconduct(&peer, Misconduct::RequestOverCap);
                }
                Message::Request { request_id, request: Request::Bytes(bytes), channel } => {
                    // When too many answers are owed the channel is dropped, and the remote sees its stream end.
                    let inbound = InboundId(request_id);
                    if let Some(from) = name(&peer)
                        && self.requests.arrived(inbound, channel)
                    {
                        self.outbox.push_back(NetEvent::Request { from, inbound, bytes });
                    }
                }
                Message::Response { request_id, response } => self.answered(request_id, Ok(response)),
            },
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                let reason = rpc::reason(&error);
                if reason == RequestError::ResponseOverCap {
                    self.misconduct(&peer, Misconduct::ResponseOverCap);
                }
                self.answered(request_id, Err(reason));
            }
            request_response::Event::InboundFailure { request_id, .. } => {
                let _too_late = self.requests.answer(InboundId(request_id));
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn answered(&mut self, request: OutboundRequestId, result: Result<Vec<u8>, RequestError>) {
        if let Some(outbound) = self.requests.ended(request) {
            self.outbox.push_back(NetEvent::Response { id: outbound.id, from: outbound.to, result });
        }
    }

    /// The driver counts and scores; here nobody is punished.
    fn misconduct(&mut self, peer: &PeerId, what: Misconduct) {
        self.outbox.extend(name(peer).map(|peer| NetEvent::BadPeer { peer, what }));
    }

    /// Confirms what others may hear of, and serves lookups as soon as there is something to be reached at.
    pub(super) fn addresses_changed(&mut self, now: Instant) {
        let mut wanted = advertised(self.swarm.listeners().cloned());
        wanted.extend(self.policy.external.iter().cloned());
        let known: Vec<_> = self.swarm.external_addresses().cloned().collect();
        for gone in known.iter().filter(|address| !wanted.contains(address)) {
            self.swarm.remove_external_address(gone);
        }
        for new in wanted.iter().filter(|address| !known.contains(address)) {
            self.swarm.add_external_address(new.clone());
        }
        let serves = !self.policy.client && !wanted.is_empty();
        let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
        let behaviour = self.swarm.behaviour_mut();
        behaviour.kad.set_mode(Some(if serves { kad::Mode::Server } else { kad::Mode::Client }));
        // Identify pushes by itself when a listener appears, but then this address is not confirmed yet.
        behaviour.identify.push(connected);
        self.finder.addresses_changed(now);
    }

    fn tell_reaching(&mut self, peer: &PeerId, reached: bool) {
        for waiting in self.reaching.remove(peer).into_iter().flatten() {
            let _ = waiting.send(reached);
        }
    }

    /// Remembers a failed dial for `doctor`, and tells the sessions that waited for it.
    pub(super) fn on_dial_error(&mut self, peer: Option<PeerId>, error: &DialError) {
        // Not an error: we are connected to the peer, or about to be.
        if matches!(error, DialError::DialPeerConditionFalse(_)) {
            return;
        }
        // A second dial to a connected peer may fail without harm.
        if let Some(peer) = peer
            && !self.swarm.is_connected(&peer)
        {
            self.tell_reaching(&peer, false);
        }
        self.metrics.network.dial_failed(kind(error));
        let (address, error) = explain(error);
        let failure = DialFailure {
            peer: peer.as_ref().and_then(name),
            address: address.map(Address::from),
            error,
            age: std::time::Duration::ZERO,
        };
        tracing::debug!(?failure, "a dial failed");
        if self.dial_errors.len() == MAX_DIAL_ERRORS {
            self.dial_errors.pop_front();
        }
        self.dial_errors.push_back((Instant::now(), failure));
    }

    /// Says in our words why an address did not lead into the mesh.
    pub(super) fn on_bootstrap_error(
        &mut self,
        connection: ConnectionId,
        address: &Address,
        error: &DialError,
    ) {
        let reason = match (error, address.peer()) {
            (DialError::LocalPeerId { .. }, _) => BootstrapFailure::Itself,
            (DialError::WrongPeerId { obtained, .. }, Some(expected)) => {
                Box::new(WrongPeer { expected, found: name(obtained) }).into()
            }
            (DialError::Denied { .. }, _) => BootstrapFailure::Refused(explain(error).1),
            _ => BootstrapFailure::Unreachable(explain(error).1),
        };
        self.outbox.extend(self.bootstraps.failed(connection, reason, Instant::now()));
    }
}

/// One of [`crate::metrics::words::DIAL_FAILURES`].
const fn kind(error: &DialError) -> &'static str {
    match error {
        DialError::Denied { .. } => "denied",
        DialError::LocalPeerId { .. } => "itself",
        DialError::NoAddresses => "no_addresses",
        DialError::Transport(_) => "transport",
        DialError::WrongPeerId { .. } => "wrong_peer",
        _ => "other",
    }
}

/// Where it failed, and the innermost reason: what the operating system or the remote said.
fn explain(error: &DialError) -> (Option<Multiaddr>, String) {
    match error {
        DialError::Denied { cause } => (None, root(cause)),
        DialError::LocalPeerId { address } => (Some(address.clone()), "this is our own address".into()),
        DialError::NoAddresses => (None, "no address of this peer is known".into()),
        DialError::Transport(failures) => match failures.first() {
            Some((address, TransportError::Other(error))) => (Some(address.clone()), root(error)),
            Some((address, error)) => (Some(address.clone()), error.to_string()),
            None => (None, "no address was tried".into()),
        },
        DialError::WrongPeerId { obtained, address } => {
            (Some(address.clone()), format!("another peer answered there: {obtained}"))
        }
        other => (None, root(other)),
    }
}

/// libp2p wraps an error once per layer, and every layer repeats the one below it.
fn root(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
