//! Who is connected, how, and since when.
//!
//! libp2p counts connections; the driver wants peers. A peer counts as a member once it has said that it belongs to
//! this network. Whoever does not say so in time is disconnected.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::core::ConnectedPoint;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, identify};

use super::address::Address;
use super::scope::{Reach, Scope};
use super::snapshot::{Direction, PeerInfo};

/// Every connected peer, member or not.
#[derive(Debug, Default)]
pub(super) struct Peers {
    table: HashMap<PeerId, Peer>,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: crypto::PeerId,
    pub(super) since: Instant,
    links: Vec<Link>,
    /// Where we meet it.
    reach: Reach,
    /// It has said that it belongs to this network.
    member: bool,
    agent: Option<String>,
    rtt: Option<Duration>,
}

/// One connection.
#[derive(Debug)]
struct Link {
    id: ConnectionId,
    address: Multiaddr,
    direction: Direction,
}

/// What the end of a connection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// Other connections to the peer remain.
    OneOfSeveral,
    /// The peer is gone, and never was a member.
    Stranger,
    /// A member is gone.
    Member,
}

impl Peers {
    /// A connection is there. Of too many to one peer the oldest is returned, to be closed: a machine that went down without
    /// a word leaves connections that look alive for a while, and must not be locked out by them when it is back.
    #[must_use]
    pub(super) fn opened(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
        now: Instant,
    ) -> Option<ConnectionId> {
        let name = super::name(&peer)?;
        let address = endpoint.get_remote_address().clone();
        let direction = if endpoint.is_dialer() { Direction::Outbound } else { Direction::Inbound };
        let reach = Reach::over(Scope::of(&address));
        let new =
            || Peer { name, since: now, links: Vec::new(), reach, member: false, agent: None, rtt: None };
        let entry = self.table.entry(peer).or_insert_with(new);
        entry.reach = entry.reach.and(reach);
        entry.links.push(Link { id, address, direction });
        (entry.links.len() > MAX_LINKS).then(|| entry.links[0].id)
    }

    pub(super) fn closed(&mut self, peer: &PeerId, id: ConnectionId) -> Closed {
        let Some(entry) = self.table.get_mut(peer) else { return Closed::Stranger };
        entry.links.retain(|link| link.id != id);
        if !entry.links.is_empty() {
            return Closed::OneOfSeveral;
        }
        let member = self.table.remove(peer).is_some_and(|peer| peer.member);
        if member { Closed::Member } else { Closed::Stranger }
    }

    /// The peer has said that it belongs to this network. True the first time.
    pub(super) fn identified(&mut self, peer: &PeerId, info: &identify::Info) -> bool {
        let Some(entry) = self.table.get_mut(peer) else { return false };
        let agent = info.agent_version.chars().filter(|char| !char.is_control());
        entry.agent = Some(agent.take(MAX_AGENT).collect());
        if entry.links.iter().all(|link| Scope::of(&link.address) == Scope::Named) {
            // Dialled by name: how it sees us tells where we meet.
            entry.reach = entry.reach.and(Reach::over(Scope::of(&info.observed_addr)));
        }
        !std::mem::replace(&mut entry.member, true)
    }

    /// Whether we made this connection, and not the peer.
    pub(super) fn is_dialled(&self, peer: &PeerId, id: ConnectionId) -> bool {
        let outbound = |link: &Link| link.id == id && link.direction == Direction::Outbound;
        self.table.get(peer).is_some_and(|peer| peer.links.iter().any(outbound))
    }

    pub(super) fn measured(&mut self, peer: &PeerId, rtt: Duration) {
        if let Some(entry) = self.table.get_mut(peer) {
            entry.rtt = Some(rtt);
        }
    }

    /// Where we meet this peer.
    pub(super) fn reach(&self, peer: &PeerId) -> Reach {
        self.table.get(peer).map(|peer| peer.reach).unwrap_or_default()
    }

    /// Where we meet anybody.
    pub(super) fn widest_reach(&self) -> Reach {
        self.table.values().map(|peer| peer.reach).fold(Reach::default(), Reach::and)
    }

    pub(super) fn is_member(&self, peer: &PeerId) -> bool {
        self.table.get(peer).is_some_and(|peer| peer.member)
    }

    pub(super) fn members(&self) -> usize {
        self.table.values().filter(|peer| peer.member).count()
    }

    /// Who has been silent about its network for too long.
    pub(super) fn silent(&self, now: Instant) -> Vec<PeerId> {
        let late = |peer: &Peer| !peer.member && now.duration_since(peer.since) >= INTRODUCTION;
        self.table.iter().filter(|(_, peer)| late(peer)).map(|(id, _)| *id).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.table.iter()
    }

    pub(super) fn snapshot(&self, now: Instant) -> Vec<PeerInfo> {
        let info = |peer: &Peer| {
            let link = peer.links.first()?;
            let address = Address::from(link.address.clone());
            Some(PeerInfo {
                peer: peer.name,
                transport: address.transport(),
                address,
                direction: link.direction,
                rtt: peer.rtt,
                agent: peer.agent.clone(),
                connected_for: now.duration_since(peer.since),
            })
        };
        self.table.values().filter_map(info).collect()
    }
}

/// Connections to a peer: two that dial each other at the same moment need two for an instant.
pub(super) const MAX_LINKS: usize = 2;
/// To say to which network one belongs: two round trips, on the slowest links.
const INTRODUCTION: Duration = Duration::from_secs(15);
/// Characters of a remote's own description of itself.
const MAX_AGENT: usize = 64;
