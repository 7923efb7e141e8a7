//! The address book: where peers were last known to be.
//!
//! Kademlia forgets the addresses of providers with the query that found them, and identify only tells. Whoever dials
//! (a request, a session, a retry) finds here what was learnt. The book is a behaviour, because the swarm asks its
//! behaviours for addresses before every dial. It also stands at the door: a connection whose key could be signed
//! for by anybody is refused before it can say a word.

use std::collections::HashMap;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::address::without_peer;
use super::scope::MAX_PER_PEER;

#[derive(Debug, Default)]
pub(super) struct Book {
    pages: HashMap<PeerId, Page>,
    /// Counts uses; the page with the oldest one makes room.
    clock: u64,
}

#[derive(Debug, Default)]
struct Page {
    addresses: Vec<Multiaddr>,
    used: u64,
}

/// Why a connection was refused at the door.
#[derive(Debug, thiserror::Error)]
#[error("the remote has no valid ed25519 key")]
struct NoName;

impl Book {
    /// Adds addresses, the best first. They must have passed [`believable`](super::scope::believable).
    pub(super) fn remember(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        for address in addresses.into_iter().rev() {
            self.prefer(peer, address);
        }
    }

    /// Puts an address first: it has just worked, or was just told.
    fn prefer(&mut self, peer: PeerId, address: Multiaddr) {
        self.make_room(&peer);
        self.clock += 1;
        let page = self.pages.entry(peer).or_default();
        page.used = self.clock;
        page.addresses.retain(|known| *known != address);
        page.addresses.insert(0, address);
        page.addresses.truncate(MAX_PER_PEER);
    }

    /// Looks at every page, but only when the book is full and the peer is new.
    fn make_room(&mut self, newcomer: &PeerId) {
        if self.pages.len() < MAX_PEERS || self.pages.contains_key(newcomer) {
            return;
        }
        if let Some(oldest) = self.pages.iter().min_by_key(|(_, page)| page.used).map(|(peer, _)| *peer) {
            self.pages.remove(&oldest);
        }
    }

    /// A peer that moved must not cost a timeout at every dial. Identify tells the new address when it is back.
    fn strike(&mut self, peer: &PeerId, address: &Multiaddr) {
        let address = without_peer(address);
        if let Some(page) = self.pages.get_mut(peer) {
            page.addresses.retain(|known| *known != address);
            if page.addresses.is_empty() {
                self.pages.remove(peer);
            }
        }
    }

    /// Only failures that the address is to blame for.
    fn strike_failed(&mut self, peer: &PeerId, error: &DialError) {
        match error {
            DialError::Transport(failures) => {
                failures.iter().for_each(|(address, _)| self.strike(peer, address))
            }
            DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address } => {
                self.strike(peer, address)
            }
            _ => {}
        }
    }

    /// A weak key signs for everybody, so it names nobody.
    fn admit(peer: &PeerId) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        super::name(peer).map(|_| dummy::ConnectionHandler).ok_or_else(|| ConnectionDenied::new(NoName))
    }
}

impl NetworkBehaviour for Book {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let Some(page) = peer.and_then(|peer| self.pages.get_mut(&peer)) else { return Ok(Vec::new()) };
        self.clock += 1;
        page.used = self.clock;
        Ok(page.addresses.clone())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Self::admit(&peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Self::admit(&peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, endpoint, .. })
                if endpoint.is_dialer() =>
            {
                self.prefer(peer_id, without_peer(endpoint.get_remote_address()));
            }
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, .. }) => {
                self.strike_failed(&peer, error)
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Peers in the book: a few KiB each at most, and far more than one peer talks to in an hour.
const MAX_PEERS: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    fn dialled(book: &mut Book, peer: PeerId) -> Vec<Multiaddr> {
        let dial = ConnectionId::new_unchecked(0);
        book.handle_pending_outbound_connection(dial, Some(peer), &[], Endpoint::Dialer).unwrap()
    }

    #[test]
    fn the_best_address_is_dialled_first() {
        let (mut book, peer) = (Book::default(), PeerId::random());
        book.remember(peer, vec![address(1), address(2)]);
        book.remember(peer, vec![address(2)]);
        assert_eq!(dialled(&mut book, peer), [address(2), address(1)]);
    }

    #[test]
    fn an_address_that_failed_is_struck_out() {
        let (mut book, peer) = (Book::default(), PeerId::random());
        book.remember(peer, vec![address(1), address(2)]);
        book.strike_failed(
            &peer,
            &DialError::WrongPeerId { obtained: PeerId::random(), address: address(1) },
        );
        assert_eq!(dialled(&mut book, peer), [address(2)]);
    }

    #[test]
    fn a_key_that_is_no_name_does_not_get_in() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        let weak = libp2p::identity::ed25519::PublicKey::try_from_bytes(&identity_point).unwrap();
        let weak = libp2p::identity::PublicKey::from(weak).to_peer_id();
        assert!(Book::admit(&weak).is_err());
        assert!(Book::admit(&PeerId::random()).is_err());
        assert!(Book::admit(&libp2p::identity::Keypair::generate_ed25519().public().to_peer_id()).is_ok());
    }

    #[test]
    fn the_peer_that_was_used_longest_ago_makes_room() {
        let mut book = Book::default();
        let peers: Vec<_> = (0..MAX_PEERS).map(|_| PeerId::random()).collect();
        peers.iter().for_each(|peer| book.remember(*peer, vec![address(1)]));
        dialled(&mut book, peers[0]);
        book.remember(PeerId::random(), vec![address(1)]);
        assert_eq!(book.pages.len(), MAX_PEERS);
        assert_eq!(dialled(&mut book, peers[0]).len(), 1);
        assert!(dialled(&mut book, peers[1]).is_empty());
    }
}
