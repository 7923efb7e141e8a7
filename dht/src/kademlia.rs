//! Kademlia as Llamesh uses it: provider records under 32-byte keys, and nothing else.
//!
//! Who offers a capability is found here; what it costs and how busy it is, is asked of the peer itself. libp2p's
//! behaviour does the walking. This module adds what it leaves open: a lookup that stops when enough is known and
//! survives an empty start, announcements that are repeated while the table still grows, the addresses of providers
//! before they vanish with the query, and a store that strangers cannot fill ([`ProviderStore`]).
//!
//! The swarm task owns the behaviour and hands every event of it to [`Finder::handle`]; what comes out of
//! [`Finder::poll`] is all it has to know.

mod announcer;
mod store;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::kad::{self, GetProvidersOk, InboundRequest, ProviderRecord, QueryId, QueryResult, RecordKey};
use libp2p::swarm::{ConnectionId, NetworkBehaviour};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use announcer::Announcer;
pub use store::ProviderStore;

/// The behaviour, with our store.
pub type Kademlia = kad::Behaviour<ProviderStore>;

/// Something that the swarm task must act on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress {
    /// A lookup is over: these peers announced the key, ourselves excepted. Comes exactly once per accepted lookup.
    Found {
        /// The caller's number for the lookup.
        id: u64,
        /// In the order in which they were heard of, without repetition.
        peers: Vec<PeerId>,
    },
    /// Addresses of a provider, which the behaviour forgets with the query.
    Learned {
        /// The provider.
        peer: PeerId,
        /// Told by strangers: filter before use.
        addresses: Vec<Multiaddr>,
    },
    /// A connected peer asks us to keep its record: filter its addresses, then hand it to the store.
    Offered(ProviderRecord),
}

/// More lookups are running than [`MAX_FINDS`]: try again when one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many lookups at once: wait until one has ended")]
pub struct TooManyFinds;

/// The lookups that run and the keys that we announce.
#[derive(Debug, Default)]
pub struct Finder {
    finds: Vec<Find>,
    announcer: Announcer,
    progress: VecDeque<Progress>,
}

#[derive(Debug)]
struct Find {
    id: u64,
    key: RecordKey,
    want: usize,
    peers: Vec<PeerId>,
    /// `None` while there is nobody to ask.
    query: Option<QueryId>,
    retried: bool,
    deadline: Instant,
}

impl Finder {
    /// Looks for up to `want` peers that announce `key`. Waits for a first acquaintance when there is none yet.
    ///
    /// # Errors
    /// [`TooManyFinds`]; then there will be no [`Progress::Found`].
    pub fn find(&mut self, kad: &mut Kademlia, wish: Wish, now: Instant) -> Result<(), TooManyFinds> {
        if self.finds.len() >= MAX_FINDS {
            return Err(TooManyFinds);
        }
        let key = RecordKey::new(&wish.key);
        let query = has_peers(kad).then(|| kad.get_providers(key.clone()));
        let deadline = now + FIND_DEADLINE;
        let peers = Vec::new();
        self.finds.push(Find { id: wish.id, key, want: wish.want, peers, query, retried: false, deadline });
        Ok(())
    }

    /// Announces exactly these keys from now on, again and again, until the next call.
    pub fn provide(&mut self, kad: &mut Kademlia, keys: Vec<[u8; 32]>) {
        self.announcer.set(kad, keys);
    }

    /// Announces again soon, because our addresses changed.
    pub fn addresses_changed(&mut self, now: Instant) {
        self.announcer.again(now);
    }

    /// Takes an event of the behaviour.
    pub fn handle(&mut self, kad: &mut Kademlia, event: kad::Event, now: Instant) {
        match event {
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                self.progress.push_back(Progress::Offered(record));
            }
            kad::Event::OutboundQueryProgressed {
                id,
                result: QueryResult::GetProviders(result),
                step,
                ..
            } => {
                match result {
                    Ok(GetProvidersOk::FoundProviders { providers, .. }) => {
                        self.found(kad, id, providers.into_iter().collect());
                    }
                    Ok(GetProvidersOk::FinishedWithNoAdditionalRecord { closest_peers }) => {
                        self.exhausted(kad, id, closest_peers.is_empty());
                    }
                    Err(_) => self.exhausted(kad, id, false),
                }
                tracing::trace!(?id, last = step.last, "lookup progressed");
            }
            kad::Event::OutboundQueryProgressed { id, result: QueryResult::StartProviding(_), .. } => {
                self.announcer.finished(kad, id);
            }
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => {
                self.resume(kad);
                self.announcer.table_grew(table_size(kad), now);
            }
            _ => {}
        }
    }

    /// Does what is due: call it a few times a second.
    pub fn handle_timeout(&mut self, kad: &mut Kademlia, now: Instant) {
        while let Some(index) = self.finds.iter().position(|find| find.deadline <= now) {
            self.end(kad, index);
        }
        self.announcer.handle_timeout(kad, now);
        kad.store_mut().handle_timeout(now);
    }

    /// What the swarm task must act on next.
    pub fn poll(&mut self) -> Option<Progress> {
        self.progress.pop_front()
    }

    fn found(&mut self, kad: &mut Kademlia, query: QueryId, providers: Vec<PeerId>) {
        let Some(index) = self.finds.iter().position(|find| find.query == Some(query)) else { return };
        let find = &mut self.finds[index];
        for peer in providers {
            let new = !kad.store_mut().is_me(&peer) && !find.peers.contains(&peer);
            if new && find.peers.len() < find.want {
                find.peers.push(peer);
                let addresses = addresses_of(kad, peer, &find.key);
                self.progress.push_back(Progress::Learned { peer, addresses });
            }
        }
        if find.peers.len() >= find.want {
            self.end(kad, index);
        }
    }

    /// The query is over. An empty one that asked nobody proves nothing: it is repeated once, or waits for a first
    /// acquaintance.
    fn exhausted(&mut self, kad: &mut Kademlia, query: QueryId, asked_nobody: bool) {
        let Some(index) = self.finds.iter().position(|find| find.query == Some(query)) else { return };
        let find = &mut self.finds[index];
        if !find.peers.is_empty() || !asked_nobody || find.retried {
            return self.end(kad, index);
        }
        find.retried = true;
        find.query = has_peers(kad).then(|| kad.get_providers(find.key.clone()));
    }

    /// Starts the lookups that had nobody to ask.
    fn resume(&mut self, kad: &mut Kademlia) {
        for find in self.finds.iter_mut().filter(|find| find.query.is_none()) {
            find.query = Some(kad.get_providers(find.key.clone()));
        }
    }

    fn end(&mut self, kad: &mut Kademlia, index: usize) {
        let find = self.finds.swap_remove(index);
        if let Some(mut query) = find.query.and_then(|id| kad.query_mut(&id)) {
            query.finish();
        }
        self.progress.push_back(Progress::Found { id: find.id, peers: find.peers });
    }
}

/// What a lookup asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The caller's number, which comes back in [`Progress::Found`].
    pub id: u64,
    /// The capability's key.
    pub key: [u8; 32],
    /// Stop as soon as so many peers are known: a full walk costs three to eight times as much.
    pub want: usize,
}

/// The behaviour of `me` in the network that `protocol` names. It starts as a client.
pub fn kademlia(me: PeerId, protocol: StreamProtocol) -> Kademlia {
    let mut config = kad::Config::new(protocol);
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_provider_record_ttl(Some(PROVIDER_TTL))
        .set_provider_publication_interval(Some(PUBLICATION_INTERVAL))
        // Value records are not used: nothing to replicate, nothing to publish.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_parallelism(PARALLELISM)
        .set_max_packet_size(MAX_PACKET);
    let mut kad = Kademlia::with_config(me, ProviderStore::new(me), config);
    kad.set_mode(Some(kad::Mode::Client));
    kad
}

/// How many peers the routing table knows.
pub fn table_size(kad: &mut Kademlia) -> usize {
    kad.kbuckets().map(|bucket| bucket.num_entries()).sum()
}

fn has_peers(kad: &mut Kademlia) -> bool {
    kad.kbuckets().any(|bucket| bucket.num_entries() > 0)
}

/// Where the behaviour would dial `peer` now. The question that the swarm asks before a dial is the only door to the
/// addresses that a running query has heard.
fn addresses_of(kad: &mut Kademlia, peer: PeerId, key: &RecordKey) -> Vec<Multiaddr> {
    let dial = ConnectionId::new_unchecked(0);
    let heard = kad.handle_pending_outbound_connection(dial, Some(peer), &[], Endpoint::Dialer);
    let mut addresses = heard.unwrap_or_default();
    addresses.extend(kad.store_mut().addresses(key, &peer));
    addresses
}

/// Lookups at once; a job needs one to four.
pub const MAX_FINDS: usize = 256;
/// A seeker gets what was found by then.
const FIND_DEADLINE: Duration = Duration::from_secs(5);
/// The slowest walk over a wide-area network with some dead peers on the way.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);
/// Fresh enough that most of what is found is alive: a record outlives three missed announcements.
const PROVIDER_TTL: Duration = Duration::from_secs(45 * 60);
const PUBLICATION_INTERVAL: Duration = Duration::from_secs(12 * 60);
const PARALLELISM: NonZeroUsize = kad::ALPHA_VALUE;
/// libp2p's default, written down because it bounds what one answer can make us hold.
const MAX_PACKET: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn lonely() -> (Kademlia, Finder) {
        (kademlia(PeerId::random(), StreamProtocol::new("/llamesh/test/kad/1")), Finder::default())
    }

    fn wish(id: u64) -> Wish {
        Wish { id, key: [7; 32], want: 1 }
    }

    #[test]
    fn a_lookup_without_acquaintances_waits_and_then_answers_empty() {
        let (mut kad, mut finder) = lonely();
        let now = Instant::now();
        finder.find(&mut kad, wish(3), now).unwrap();
        finder.handle_timeout(&mut kad, now + FIND_DEADLINE - Duration::from_millis(1));
        assert!(finder.poll().is_none());
        finder.handle_timeout(&mut kad, now + FIND_DEADLINE);
        assert!(matches!(finder.poll(), Some(Progress::Found { id: 3, peers }) if peers.is_empty()));
        assert!(finder.poll().is_none());
    }

    #[test]
    fn a_waiting_lookup_starts_with_the_first_acquaintance() {
        let (mut kad, mut finder) = lonely();
        finder.find(&mut kad, wish(0), Instant::now()).unwrap();
        assert_eq!(kad.iter_queries().count(), 0);
        kad.add_address(&PeerId::random(), "/ip4/127.0.0.1/tcp/1".parse().unwrap());
        finder.resume(&mut kad);
        assert_eq!(kad.iter_queries().count(), 1);
    }

    #[test]
    fn an_empty_lookup_that_asked_nobody_is_repeated_once() {
        let (mut kad, mut finder) = lonely();
        kad.add_address(&PeerId::random(), "/ip4/127.0.0.1/tcp/1".parse().unwrap());
        finder.find(&mut kad, wish(0), Instant::now()).unwrap();
        let first = finder.finds[0].query.unwrap();
        finder.exhausted(&mut kad, first, true);
        let second = finder.finds[0].query.unwrap();
        assert_ne!(first, second);
        finder.exhausted(&mut kad, second, true);
        assert!(matches!(finder.poll(), Some(Progress::Found { .. })));
    }

    #[test]
    fn enough_is_enough_and_we_are_not_among_them() {
        let (mut kad, mut finder) = lonely();
        kad.add_address(&PeerId::random(), "/ip4/127.0.0.1/tcp/1".parse().unwrap());
        finder.find(&mut kad, wish(9), Instant::now()).unwrap();
        let query = finder.finds[0].query.unwrap();
        let (me, other) = (kad.store_mut().me(), PeerId::random());
        finder.found(&mut kad, query, vec![me, other, PeerId::random()]);
        let progress: Vec<_> = std::iter::from_fn(|| finder.poll()).collect();
        assert!(matches!(&progress[0], Progress::Learned { peer, .. } if *peer == other));
        assert!(matches!(&progress[1], Progress::Found { id: 9, peers } if peers == &[other]));
        assert_eq!(progress.len(), 2);
    }

    #[test]
    fn lookups_are_bounded() {
        let (mut kad, mut finder) = lonely();
        let now = Instant::now();
        for id in 0..MAX_FINDS {
            finder.find(&mut kad, wish(id as u64), now).unwrap();
        }
        assert_eq!(finder.find(&mut kad, wish(1), now), Err(TooManyFinds));
    }
}
