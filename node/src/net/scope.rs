//! Which addresses may travel, and to whom.
//!
//! An address means something only where it is reachable: `127.0.0.1` on one machine, `192.168.1.7` in one house. A
//! table full of other people's private addresses costs a dial timeout each. So what a remote says about itself is
//! believed as far as we can tell that we stand in the same place, and what we say of ourselves is never more than
//! others can use. Container networks are private ranges like any other: they work, and come last.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::address::{transport, without_peer};

/// From where an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// This machine.
    Loopback,
    /// A DNS name: who knows.
    Named,
    /// This network: a house, an office, a compose project, a provider's NAT.
    Private,
    /// Everywhere.
    Public,
    /// Nowhere: unspecified, multicast, or not something that we dial.
    Unusable,
}

impl Scope {
    pub(super) fn of(address: &Multiaddr) -> Self {
        if transport(address).is_none() {
            return Self::Unusable;
        }
        match address.iter().next() {
            Some(Protocol::Ip4(ip)) => Self::of_v4(ip),
            Some(Protocol::Ip6(ip)) => Self::of_v6(ip),
            _ => Self::Named,
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
        if ip.is_loopback() {
            Self::Loopback
        } else if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() {
            Self::Unusable
        } else if ip.is_private() || ip.is_link_local() || shared {
            Self::Private
        } else {
            Self::Public
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        if let Some(ip) = ip.to_ipv4_mapped() {
            return Self::of_v4(ip);
        }
        if ip.is_loopback() {
            Self::Loopback
        } else if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() {
            // A link-local address needs the name of an interface, which does not travel.
            Self::Unusable
        } else if ip.is_unique_local() {
            Self::Private
        } else {
            Self::Public
        }
    }
}

/// Where we and a remote demonstrably meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    loopback: bool,
    private: bool,
}

impl Reach {
    /// What a connection over an address of this scope shows. Who shares our machine shares our network.
    pub(super) fn over(scope: Scope) -> Self {
        let loopback = scope == Scope::Loopback;
        Self { loopback, private: loopback || scope == Scope::Private }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { loopback: self.loopback || other.loopback, private: self.private || other.private }
    }

    fn covers(self, scope: Scope) -> bool {
        match scope {
            Scope::Loopback => self.loopback,
            Scope::Named | Scope::Public => true,
            Scope::Private => self.private,
            Scope::Unusable => false,
        }
    }
}

/// Which of the addresses that somebody claims may enter our tables: those that we can reach, the first few of them,
/// without the peer's id.
pub(super) fn believable(claimed: impl IntoIterator<Item = Multiaddr>, reach: Reach) -> Vec<Multiaddr> {
    let usable = claimed.into_iter().filter(|address| reach.covers(Scope::of(address)));
    first_few(usable.map(|address| without_peer(&address)))
}

/// Which of the addresses that we listen on others may hear of: loopback only when there is nothing else, the most
/// widely reachable first.
pub(super) fn advertised(listening: impl IntoIterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let usable = listening.into_iter().filter(|address| Scope::of(address) != Scope::Unusable);
    let (loopback, mut wider): (Vec<_>, Vec<_>) =
        usable.partition(|address| Scope::of(address) == Scope::Loopback);
    wider.sort_by_key(distance);
    first_few(if wider.is_empty() { loopback } else { wider })
}

/// Public before private, and the range that container bridges live in last.
fn distance(address: &Multiaddr) -> u8 {
    let bridge = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 172);
    match (Scope::of(address), address.iter().next()) {
        (Scope::Named | Scope::Public, _) => 0,
        (_, Some(Protocol::Ip4(ip))) if bridge(ip.into()) => 2,
        _ => 1,
    }
}

fn first_few(addresses: impl IntoIterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let mut few: Vec<Multiaddr> = Vec::new();
    for address in addresses {
        if few.len() < MAX_PER_PEER && !few.contains(&address) {
            few.push(address);
        }
    }
    few
}

/// Addresses that are kept of one peer, ourselves included: more would only be tried in vain.
pub(super) const MAX_PER_PEER: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/1";
    const HOUSE: &str = "/ip4/192.168.1.7/tcp/1";
    const BRIDGE: &str = "/ip4/172.17.0.2/udp/1/quic-v1";
    const PUBLIC: &str = "/ip4/8.8.8.8/tcp/1";
    const NAMED: &str = "/dns4/seed.example/tcp/1";

    fn list(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_address_is_reachable_from_its_scope() {
        let cases = [
            (LOOPBACK, Scope::Loopback),
            ("/ip6/::1/udp/1/quic-v1", Scope::Loopback),
            ("/ip6/::ffff:127.0.0.1/tcp/1", Scope::Loopback),
            (HOUSE, Scope::Private),
            (BRIDGE, Scope::Private),
            ("/ip4/100.64.1.1/tcp/1", Scope::Private),
            ("/ip6/fd00::1/tcp/1", Scope::Private),
            (PUBLIC, Scope::Public),
            ("/ip6/2001:db8::1/tcp/1", Scope::Public),
            (NAMED, Scope::Named),
            ("/ip4/0.0.0.0/tcp/1", Scope::Unusable),
            ("/ip4/224.0.0.1/tcp/1", Scope::Unusable),
            ("/ip6/fe80::1/tcp/1", Scope::Unusable),
            ("/ip4/8.8.8.8/udp/1", Scope::Unusable),
        ];
        for (text, scope) in cases {
            assert_eq!(Scope::of(&text.parse().unwrap()), scope, "{text}");
        }
    }

    #[test]
    fn a_claim_is_believed_as_far_as_we_meet() {
        let claimed = list(&[LOOPBACK, HOUSE, BRIDGE, PUBLIC, NAMED]);
        let believed = |scope| believable(claimed.clone(), Reach::over(scope));
        assert_eq!(believed(Scope::Public), list(&[PUBLIC, NAMED]));
        assert_eq!(believed(Scope::Named), list(&[PUBLIC, NAMED]));
        assert_eq!(believed(Scope::Private), list(&[HOUSE, BRIDGE, PUBLIC, NAMED]));
        assert_eq!(believed(Scope::Loopback), claimed);
    }

    #[test]
    fn a_remote_cannot_fill_the_tables() {
        let many = (1..100).map(|port| format!("/ip4/8.8.8.8/tcp/{port}").parse().unwrap());
        assert_eq!(believable(many, Reach::default()).len(), MAX_PER_PEER);
        assert_eq!(believable(list(&[PUBLIC, PUBLIC]), Reach::default()).len(), 1);
    }

    #[test]
    fn loopback_is_advertised_only_when_there_is_nothing_else() {
        assert_eq!(advertised(list(&[LOOPBACK])), list(&[LOOPBACK]));
        assert_eq!(advertised(list(&[LOOPBACK, BRIDGE])), list(&[BRIDGE]));
        assert_eq!(advertised(list(&["/ip4/0.0.0.0/tcp/1"])), list(&[]));
    }

    #[test]
    fn bridges_of_containers_are_advertised_last() {
        assert_eq!(advertised(list(&[BRIDGE, HOUSE, PUBLIC])), list(&[PUBLIC, HOUSE, BRIDGE]));
    }
}
