//! Keys and what they have spent, on disk. A key is durable when it is made, a charge before anybody hears that its job
//! is done: neither a restart nor a kill gives anybody their spend back.

use std::panic::catch_unwind;
use std::path::Path;

use blake3::Hash;
use protocol::Timestamp;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::limits::{Limits, Spent};
use super::token::KeyId;

const KEYS: TableDefinition<'_, [u8; 4], &[u8]> = TableDefinition::new("keys");
const SPENT: TableDefinition<'_, [u8; 4], &[u8]> = TableDefinition::new("spent");
/// Enough for all keys that there may be.
const CACHE: usize = 1 << 20;

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// What it is called; for people.
    pub name: String,
    /// The digest of its token.
    #[serde(with = "hex")]
    pub digest: Hash,
    /// When it was made.
    pub created: Timestamp,
    /// What it may do.
    pub limits: Limits,
    /// Whether it was revoked. It stays in the list: a peer that ever had keys does not open again by itself.
    pub revoked: bool,
}

/// A key, and what its jobs have cost.
pub type Row = (KeyId, Key, Spent);

/// Why keys cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Not what was written.
    #[error("keys.redb is damaged: restore it from a backup, or move it away and make new keys")]
    Damaged,
    /// The store refused.
    #[error("the keys cannot be used ({0}): free the disk, or restore keys.redb from a backup")]
    Store(#[source] Box<redb::Error>),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Store(Box::new(error.into()))
    }
}

/// The file.
#[derive(Debug)]
pub struct Store(Database);

impl Store {
    /// Opens it, or begins one, and returns every key in it.
    ///
    /// # Errors
    /// [`StoreError`]; a damaged file is left as it is.
    pub fn open(path: &Path) -> Result<(Self, Vec<Row>), StoreError> {
        // The store trusts its pages, and panics where a damaged one points out of the file.
        catch_unwind(|| Self::begin(path)).unwrap_or(Err(StoreError::Damaged))
    }

    fn begin(path: &Path) -> Result<(Self, Vec<Row>), StoreError> {
        let store = Builder::new().set_cache_size(CACHE).create(path)?;
        let begin = store.begin_write()?;
        begin.open_table(KEYS)?;
        begin.open_table(SPENT)?;
        begin.commit()?;
        let read = store.begin_read()?;
        let (keys, spent) = (read.open_table(KEYS)?, read.open_table(SPENT)?);
        let mut found = Vec::new();
        for row in keys.iter()? {
            let (id, key) = row?;
            let charged = spent.get(id.value())?.map(|bytes| parse(bytes.value())).transpose()?;
            found.push((KeyId(id.value()), parse(key.value())?, charged.unwrap_or_default()));
        }
        Ok((Self(store), found))
    }

    /// Makes a key durable, or a change of it.
    ///
    /// # Errors
    /// [`StoreError::Store`]; then nothing was written.
    pub fn put(&self, id: KeyId, key: &Key) -> Result<(), StoreError> {
        self.write(KEYS, id, key)
    }

    /// Makes a charge durable.
    ///
    /// # Errors
    /// [`StoreError::Store`]; then nothing was written.
    pub fn charge(&self, id: KeyId, spent: &Spent) -> Result<(), StoreError> {
        self.write(SPENT, id, spent)
    }

    fn write<T: Serialize>(
        &self,
        table: TableDefinition<'_, [u8; 4], &[u8]>,
        id: KeyId,
        value: &T,
    ) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value).map_err(|_| StoreError::Damaged)?;
        let write = self.0.begin_write()?;
        write.open_table(table)?.insert(id.0, bytes.as_slice())?;
        Ok(write.commit()?)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Damaged)
}

/// A digest as text.
mod hex {
    use blake3::Hash;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hash.to_hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        Hash::from_hex(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use protocol::Credits;

    use super::*;

    #[test]
    fn keys_and_charges_outlive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.redb");
        let (store, none) = Store::open(&path).unwrap();
        assert!(none.is_empty());
        let id = KeyId([1, 2, 3, 4]);
        let key = Key {
            name: "one".to_owned(),
            digest: blake3::hash(b"x"),
            created: Timestamp(5),
            limits: Limits { spend: Some(Credits(7)), ..Limits::default() },
            revoked: false,
        };
        store.put(id, &key).unwrap();
        let spent = Spent::default().after(Timestamp(9), Credits(3));
        store.charge(id, &spent).unwrap();
        drop(store);
        assert_eq!(Store::open(&path).unwrap().1, [(id, key, spent)]);
    }

    #[test]
    fn a_damaged_file_is_reported_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.redb");
        std::fs::write(&path, [7; 4096]).unwrap();
        Store::open(&path).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), [7; 4096]);
    }
}
