//! Addresses as people write them.
//!
//! An [`Address`] is a libp2p multiaddr that this build can dial or listen on: TCP or QUIC on an IP address or a DNS
//! name, with or without the id of the peer that is expected there. Whatever else a multiaddr can say is refused
//! here, with words, and not later by a dial that fails.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crypto::PeerId;
use crypto::key::KeyError;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Where a peer is, such as `/ip4/192.0.2.7/tcp/5263/p2p/12D3Koo…` or `/dns4/seed.example/udp/5263/quic-v1`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(Multiaddr);

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// QUIC version 1 over UDP.
    Quic,
    /// TCP with Noise and Yamux.
    Tcp,
}

impl Address {
    /// Who is expected there. Without it any peer that answers is accepted.
    pub fn peer(&self) -> Option<PeerId> {
        match self.0.iter().last() {
            Some(Protocol::P2p(peer)) => super::name(&peer),
            _ => None,
        }
    }

    /// The same place, with the peer that is expected there.
    #[must_use]
    pub fn with_peer(&self, peer: &PeerId) -> Self {
        let place = without_peer(&self.0);
        Self(
            super::foreign(peer)
                .map_or_else(|| place.clone(), |peer| place.clone().with(Protocol::P2p(peer))),
        )
    }

    /// What carries the bytes there.
    pub fn transport(&self) -> Transport {
        transport(&self.0).unwrap_or(Transport::Tcp)
    }

    /// The socket, unless the place is a name.
    pub(super) fn socket(&self) -> Option<SocketAddr> {
        let mut parts = self.0.iter();
        let ip = match parts.next()? {
            Protocol::Ip4(ip) => IpAddr::V4(ip),
            Protocol::Ip6(ip) => IpAddr::V6(ip),
            _ => return None,
        };
        match parts.next()? {
            Protocol::Tcp(port) | Protocol::Udp(port) => Some(SocketAddr::new(ip, port)),
            _ => None,
        }
    }

    pub(super) fn multiaddr(&self) -> &Multiaddr {
        &self.0
    }
}

/// Takes what libp2p reports. It has been dialled or listened on, so it needs no check.
impl From<Multiaddr> for Address {
    fn from(address: Multiaddr) -> Self {
        Self(address)
    }
}

/// What is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseAddressError {
    /// No multiaddr at all.
    #[error(
        "`{0}` is not an address: write it like /ip4/192.0.2.7/tcp/5263/p2p/12D3Koo… or /dns4/NAME/tcp/5263"
    )]
    Malformed(String),
    /// The part after `/p2p/` cannot be a peer of the mesh.
    #[error("`{text}` names an impossible peer: {why}")]
    Peer {
        /// The address.
        text: String,
        /// What is wrong with its peer.
        why: KeyError,
    },
    /// A multiaddr for something that this build does not speak.
    #[error("`{0}` is not reachable from here: the mesh speaks /tcp/PORT and /udp/PORT/quic-v1")]
    Unsupported(String),
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(MAX_TEXT).collect::<String>();
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(ParseAddressError::Malformed(shown()));
        }
        check_peer(text).map_err(|why| ParseAddressError::Peer { text: shown(), why })?;
        let address: Multiaddr = text.parse().map_err(|_| ParseAddressError::Malformed(shown()))?;
        transport(&address).ok_or_else(|| ParseAddressError::Unsupported(shown()))?;
        Ok(Self(address))
    }
}

/// Says what is wrong with the peer before the multiaddr parser calls the whole text invalid.
fn check_peer(text: &str) -> Result<(), KeyError> {
    let Some((_, peer)) = text.split_once("/p2p/") else { return Ok(()) };
    peer.parse::<PeerId>().map(|_| ())
}

/// What `address` is dialled with; `None` when it is not exactly a place, a transport and perhaps a peer.
pub(super) fn transport(address: &Multiaddr) -> Option<Transport> {
    let mut parts = address.iter();
    match parts.next()? {
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Ip4(_) | Protocol::Ip6(_) => {}
        _ => return None,
    }
    let transport = match parts.next()? {
        Protocol::Tcp(_) => Transport::Tcp,
        Protocol::Udp(_) if matches!(parts.next()?, Protocol::QuicV1) => Transport::Quic,
        _ => return None,
    };
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some(transport),
        _ => None,
    }
}

/// The place alone.
pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.0)
    }
}

/// A DNS name has at most 253 characters; the rest of an address fits beside it.
const MAX_TEXT: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo";

    #[test]
    fn what_can_be_dialled_parses_and_prints_back() {
        for text in [
            "/ip4/127.0.0.1/tcp/5263",
            "/ip6/::1/udp/5263/quic-v1",
            "/dns4/node-0/tcp/5263",
            &format!("/dns/seed.example/udp/1/quic-v1/p2p/{PEER}"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_expected_peer_is_known_when_it_is_written() {
        let address: Address = format!("/ip4/10.0.0.1/tcp/1/p2p/{PEER}").parse().unwrap();
        assert_eq!(address.peer().unwrap().to_string(), PEER);
        let bare: Address = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        assert_eq!(bare.peer(), None);
        assert_eq!(bare.with_peer(&address.peer().unwrap()), address);
        assert_eq!(address.with_peer(&address.peer().unwrap()), address);
    }

    #[test]
    fn every_refusal_says_which_kind_it_is() {
        let refusal = |text: &str| text.parse::<Address>().unwrap_err();
        for text in
            ["", "localhost:5263", "/ip4/300.0.0.1/tcp/1", "/ip4/1.2.3.4/tcp/70000", &"/".repeat(1000)]
        {
            assert!(matches!(refusal(text), ParseAddressError::Malformed(_)), "{text}");
        }
        for text in ["/ip4/1.2.3.4", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/1/ws", "/memory/7", "/tcp/1"] {
            assert!(matches!(refusal(text), ParseAddressError::Unsupported(_)), "{text}");
        }
        for peer in ["", "nobody", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"] {
            assert!(matches!(
                refusal(&format!("/ip4/1.2.3.4/tcp/1/p2p/{peer}")),
                ParseAddressError::Peer { .. }
            ));
        }
    }
}
