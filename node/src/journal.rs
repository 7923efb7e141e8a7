//! What must outlive a restart: the ledger's entries, appended and never changed.
//!
//! An entry is durable when [`Journal::append`] returns, and only then does the driver send what depends on it. Every
//! entry carries a checksum over its number and bytes: the store checks its own pages only after a crash, and a flipped
//! bit must not become another balance.

use std::panic::catch_unwind;
use std::path::Path;

use crypto::Digest;
use protocol::Entry;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
/// Enough for the last pages of an append-only table.
const CACHE: usize = 1 << 20;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    store: Database,
    next: u64,
}

/// Bytes of checksum after each entry: against accidents, not against whoever can write the file.
const CHECKSUM: usize = 8;

/// Why the journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// An entry is missing, or not what was written.
    #[error(
        "entry {0} of the journal is damaged: restore journal.redb from a backup, or move it away and lose the balances"
    )]
    Entry(u64),
    /// The store refused.
    #[error("the journal cannot be used ({0}): free the disk, or restore journal.redb from a backup")]
    Store(#[source] Box<redb::Error>),
    /// The store is damaged beyond what it can tell in order.
    #[error(
        "the journal is damaged: restore journal.redb from a backup, or move it away and lose the balances"
    )]
    Structure,
}

impl<E: Into<redb::Error>> From<E> for JournalError {
    fn from(error: E) -> Self {
        Self::Store(Box::new(error.into()))
    }
}

impl Journal {
    /// Opens the journal, or begins one, and returns every entry in it.
    ///
    /// # Errors
    /// [`JournalError`]; a damaged journal is left as it is.
    pub fn open(path: &Path) -> Result<(Self, Vec<Entry>), JournalError> {
        // The store trusts its pages, and panics where a damaged one points out of the file.
        catch_unwind(|| Self::begin(path)).unwrap_or(Err(JournalError::Structure))
    }

    fn begin(path: &Path) -> Result<(Self, Vec<Entry>), JournalError> {
        let store = Builder::new().set_cache_size(CACHE).create(path)?;
        let begin = store.begin_write()?;
        begin.open_table(ENTRIES)?;
        begin.commit()?;
        Self::read(store)
    }

    /// A journal that ends with the process, for peers that live as long as one command.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn in_memory() -> Result<Self, JournalError> {
        let backend = redb::backends::InMemoryBackend::new();
        let store = Builder::new().set_cache_size(CACHE).create_with_backend(backend)?;
        Ok(Self { store, next: 0 })
    }

    /// Makes an entry durable.
    ///
    /// # Errors
    /// [`JournalError::Store`]; then nothing was written.
    pub fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let write = self.store.begin_write()?;
        let bytes = entry.to_bytes();
        let sealed = [&bytes[..], &checksum(self.next, &bytes)].concat();
        write.open_table(ENTRIES)?.insert(self.next, sealed.as_slice())?;
        write.commit()?;
        self.next += 1;
        Ok(())
    }

    fn read(store: Database) -> Result<(Self, Vec<Entry>), JournalError> {
        let mut entries = Vec::new();
        let mut next = 0;
        for row in store.begin_read()?.open_table(ENTRIES)?.iter()? {
            let (number, sealed) = row?;
            let entry = unseal(next, sealed.value()).filter(|_| number.value() == next);
            entries.push(entry.ok_or(JournalError::Entry(next))?);
            next += 1;
        }
        Ok((Self { store, next }, entries))
    }
}

fn unseal(number: u64, sealed: &[u8]) -> Option<Entry> {
    let (bytes, sum) = sealed.split_last_chunk()?;
    if *sum == checksum(number, bytes) { Entry::from_bytes(bytes).ok() } else { None }
}

fn checksum(number: u64, bytes: &[u8]) -> [u8; CHECKSUM] {
    let digest = Digest::of("journal entry", &[&number.to_le_bytes()[..], bytes].concat());
    std::array::from_fn(|index| digest.as_bytes()[index])
}

#[cfg(test)]
mod tests {
    use crypto::SecretKey;
    use protocol::Credits;
    use protocol::ledger::Direction;

    use super::*;

    fn entry(n: u8) -> Entry {
        Entry {
            receipt: Digest::of("test", &[n]),
            peer: SecretKey::from_seed(&[n; 32]).peer_id(),
            direction: Direction::Spent,
            amount: Credits(u64::from(n)),
        }
    }

    #[test]
    fn entries_outlive_a_restart_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        for round in 0..3 {
            let (mut journal, entries) = Journal::open(&path).unwrap();
            assert_eq!(entries, (0..round).map(entry).collect::<Vec<_>>());
            journal.append(&entry(round)).unwrap();
        }
    }

    #[test]
    fn a_damaged_journal_is_reported_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        std::fs::write(&path, [7; 4096]).unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Store(_))));
        assert_eq!(std::fs::read(&path).unwrap(), [7; 4096]);
    }
}
