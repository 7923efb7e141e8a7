//! The shelf for other peers' provider records.
//!
//! libp2p's own store forgets an expired record only when somebody asks for it, counts keys but not who filled them,
//! and would also keep values. Here values are refused, every bound is per key, per provider and in total, and a full
//! shelf is swept of what has expired. A key that has its twenty providers ignores new ones until one expires: who was
//! there first stays, so that a flood of fresh identities cannot push out honest peers.

use std::borrow::Cow;
use std::collections::{HashMap, hash_map};
use std::iter;
use std::time::{Duration, Instant};

use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{K_VALUE, ProviderRecord, Record, RecordKey};
use libp2p::{Multiaddr, PeerId};

/// Bounded provider records in memory.
#[derive(Debug)]
pub struct ProviderStore {
    me: PeerId,
    /// What we provide ourselves: never refused, never swept.
    mine: HashMap<RecordKey, ProviderRecord>,
    others: HashMap<RecordKey, Vec<ProviderRecord>>,
    /// How many records of `others` each provider has.
    per_provider: HashMap<PeerId, usize>,
    /// Records in `others`.
    total: usize,
    next_sweep: Option<Instant>,
}

impl ProviderStore {
    /// An empty shelf of `me`.
    pub fn new(me: PeerId) -> Self {
        let (mine, others, per_provider) = Default::default();
        Self { me, mine, others, per_provider, total: 0, next_sweep: None }
    }

    pub(super) fn is_me(&self, peer: &PeerId) -> bool {
        *peer == self.me
    }

    #[cfg(test)]
    pub(super) fn me(&self) -> PeerId {
        self.me
    }

    #[cfg(test)]
    pub(super) fn own_keys(&self) -> Vec<RecordKey> {
        self.mine.keys().cloned().collect()
    }

    /// Where the provider said it was when it announced the key.
    pub(super) fn addresses(&self, key: &RecordKey, provider: &PeerId) -> Vec<Multiaddr> {
        let records = self.others.get(key).into_iter().flatten();
        records
            .filter(|record| record.provider == *provider)
            .flat_map(|record| record.addresses.clone())
            .collect()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if *self.next_sweep.get_or_insert(now + SWEEP_INTERVAL) <= now {
            self.sweep(now);
        }
    }

    /// Visits everything: once a minute, a few milliseconds when full.
    fn sweep(&mut self, now: Instant) {
        self.next_sweep = Some(now + SWEEP_INTERVAL);
        let Self { others, per_provider, total, .. } = self;
        others.retain(|_, records| {
            records.retain(|record| {
                let alive = !record.is_expired(now);
                if !alive {
                    *total -= 1;
                    release(per_provider, &record.provider);
                }
                alive
            });
            !records.is_empty()
        });
    }

    /// A record that replaces an older one of the same provider always fits.
    fn add_other(&mut self, record: ProviderRecord) -> Result<()> {
        let known = self.others.get_mut(&record.key);
        if let Some(older) =
            known.and_then(|known| known.iter_mut().find(|known| known.provider == record.provider))
        {
            *older = record;
            return Ok(());
        }
        let new_key = !self.others.contains_key(&record.key);
        if self.total >= MAX_RECORDS || (new_key && self.others.len() >= MAX_KEYS) {
            return Err(Error::MaxProvidedKeys);
        }
        let records = self.others.entry(record.key.clone()).or_default();
        let count = self.per_provider.entry(record.provider).or_default();
        if records.len() < MAX_PROVIDERS && *count < MAX_KEYS_PER_PROVIDER {
            *count += 1;
            self.total += 1;
            records.push(record);
            return Ok(());
        }
        if *count == 0 {
            self.per_provider.remove(&record.provider);
        }
        if records.is_empty() {
            self.others.remove(&record.key);
            return Err(Error::MaxProvidedKeys);
        }
        Ok(())
    }
}

impl RecordStore for ProviderStore {
    type RecordsIter<'a> = iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = iter::Map<
        hash_map::Values<'a, RecordKey, ProviderRecord>,
        fn(&'a ProviderRecord) -> Cow<'a, ProviderRecord>,
    >;

    /// There are no values.
    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    /// Values are not part of this mesh.
    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        iter::empty()
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> Result<()> {
        if record.key.as_ref().len() != KEY_LEN {
            return Err(Error::ValueTooLarge);
        }
        record.addresses.truncate(MAX_ADDRESSES);
        if self.is_me(&record.provider) {
            self.mine.insert(record.key.clone(), record);
            return Ok(());
        }
        self.add_other(record)
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.others.get(key).into_iter().flatten().chain(self.mine.get(key)).cloned().collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.mine.values().map(Cow::Borrowed)
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if self.is_me(provider) {
            self.mine.remove(key);
            return;
        }
        let Some(records) = self.others.get_mut(key) else { return };
        let before = records.len();
        records.retain(|record| record.provider != *provider);
        if records.len() < before {
            self.total -= 1;
            release(&mut self.per_provider, provider);
        }
        if records.is_empty() {
            self.others.remove(key);
        }
    }
}

/// One record of the provider less.
fn release(counts: &mut HashMap<PeerId, usize>, provider: &PeerId) {
    if let Some(count) = counts.get_mut(provider) {
        *count -= 1;
        if *count == 0 {
            counts.remove(provider);
        }
    }
}

/// Every key is a digest.
const KEY_LEN: usize = 32;
/// Providers per key, as the protocol replicates and answers.
const MAX_PROVIDERS: usize = K_VALUE.get();
/// Distinct keys kept for others. libp2p's 1024 is too few for a mesh with sharded capabilities.
const MAX_KEYS: usize = 65_536;
/// What one peer may occupy: what an honest one with many capabilities and deep shards announces.
const MAX_KEYS_PER_PROVIDER: usize = 2048;
/// All records: about half a KiB each, so this is at most some 64 MiB.
const MAX_RECORDS: usize = 131_072;
/// Addresses kept with a record.
const MAX_ADDRESSES: usize = 8;
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: u32, provider: PeerId) -> ProviderRecord {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&key.to_be_bytes());
        ProviderRecord::new(RecordKey::new(&bytes), provider, Vec::<Multiaddr>::new())
    }

    fn store() -> ProviderStore {
        ProviderStore::new(PeerId::random())
    }

    #[test]
    fn a_full_key_keeps_who_was_there_first() {
        let mut store = store();
        let first: Vec<_> = (0..MAX_PROVIDERS).map(|_| PeerId::random()).collect();
        for peer in first.iter().copied().chain([PeerId::random()]) {
            store.add_provider(record(1, peer)).unwrap();
        }
        let kept: Vec<_> =
            store.providers(&record(1, first[0]).key).iter().map(|record| record.provider).collect();
        assert_eq!(kept, first);
    }

    #[test]
    fn one_peer_cannot_fill_the_shelf() {
        let mut store = store();
        let greedy = PeerId::random();
        let kept = (0..10_000).filter(|key| store.add_provider(record(*key, greedy)).is_ok()).count();
        assert_eq!(kept, MAX_KEYS_PER_PROVIDER);
        assert_eq!(store.others.len(), MAX_KEYS_PER_PROVIDER);
        store.add_provider(record(0, PeerId::random())).unwrap();
    }

    #[test]
    fn what_expired_is_swept_without_being_asked_for() {
        let mut store = store();
        let now = Instant::now();
        let peer = PeerId::random();
        for key in 0..100 {
            store.add_provider(ProviderRecord { expires: Some(now), ..record(key, peer) }).unwrap();
        }
        store
            .add_provider(ProviderRecord { expires: Some(now + SWEEP_INTERVAL * 3), ..record(7, peer) })
            .unwrap();
        store.handle_timeout(now);
        store.handle_timeout(now + SWEEP_INTERVAL);
        assert_eq!((store.total, store.others.len(), store.per_provider[&peer]), (1, 1, 1));
    }

    #[test]
    fn the_counts_follow_every_removal() {
        let mut store = store();
        let peer = PeerId::random();
        let one = record(1, peer);
        store.add_provider(one.clone()).unwrap();
        store.add_provider(one.clone()).unwrap();
        store.remove_provider(&one.key, &peer);
        store.remove_provider(&one.key, &peer);
        assert_eq!((store.total, store.others.len(), store.per_provider.len()), (0, 0, 0));
    }

    #[test]
    fn values_and_odd_keys_are_refused() {
        let mut store = store();
        assert!(store.put(Record::new(vec![1], vec![2])).is_err());
        let odd = ProviderRecord::new(RecordKey::new(b"short"), PeerId::random(), Vec::<Multiaddr>::new());
        assert!(store.add_provider(odd).is_err());
    }

    #[test]
    fn our_own_records_are_what_is_provided() {
        let mut store = store();
        let me = store.me;
        store.add_provider(record(1, me)).unwrap();
        store.add_provider(record(1, PeerId::random())).unwrap();
        assert_eq!(store.provided().count(), 1);
        assert_eq!(store.providers(&record(1, me).key).len(), 2);
    }
}
