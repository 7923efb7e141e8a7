//! Keys: who may use this peer's API from elsewhere, for what, how often and at whose cost.
//!
//! The owner has a token of their own, kept in the data directory; it may do everything. Keys are for others. As long as
//! the API listens on loopback and there has never been a key, nobody needs one.
//!
//! | module | concern |
//! |---|---|
//! | [`token`] | what is shown once, and what is kept of it |
//! | [`limits`] | what a key may do: pure |
//! | [`store`] | keys and what they have spent, on disk |

pub mod limits;
pub mod store;
pub mod token;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blake3::Hash;
use protocol::{Credits, JobError, JobSpec, Price, Timestamp};
use serde::{Deserialize, Serialize};

use self::limits::{Limits, Live, Spent};
use self::store::{Key, Store, StoreError};
use self::token::{KeyId, Token};
use super::refusal::Refusal;
use crate::clock::{self, NoEntropy};
use crate::patron::{Hold, Patron};

/// Keys that there may be, revoked ones included: each is a person or a program that somebody gave it to.
const MAX_KEYS: usize = 1024;
/// Longest name.
const MAX_NAME: usize = 64;

/// All keys of a peer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Keys(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    book: Mutex<Book>,
    /// Nowhere for peers without a folder.
    store: Option<Store>,
}

/// What is known of tokens.
#[derive(Debug, Default)]
struct Book {
    owner: Option<Hash>,
    keys: BTreeMap<KeyId, Entry>,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    spent: Spent,
    live: Live,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// The peer's owner, or anybody on this machine where no key is needed.
    Owner,
    /// Whoever was given this key.
    Key(KeyId),
}

/// A key as `llamesh keys list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Its name in commands.
    pub id: KeyId,
    /// What it is called.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// What it may do.
    pub limits: Limits,
    /// Whether it was revoked.
    pub revoked: bool,
    /// What its jobs have cost, ever.
    pub spent: Credits,
    /// And today (UTC).
    pub spent_today: Credits,
}

/// Why a key is not made or revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    /// Too many.
    #[error("there are {MAX_KEYS} keys, as many as there may be; move keys.redb away to begin anew")]
    Full,
    /// A name that is none.
    #[error("a key's name has 1 to {MAX_NAME} characters, none of them a control character")]
    Name,
    /// No such key.
    #[error("there is no key {0}; `llamesh keys list` shows those that there are")]
    Unknown(KeyId),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Keys {
    /// Those that are kept in a file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (store, found) = Store::open(path)?;
        let entry = |(id, key, spent)| (id, Entry { key, spent, live: Live::default() });
        let book = Book { owner: None, keys: found.into_iter().map(entry).collect() };
        Ok(Self(Arc::new(Inner { book: Mutex::new(book), store: Some(store) })))
    }

    /// Lets in whoever has this token as the owner.
    pub fn set_owner(&self, token: &str) {
        self.book().owner = Some(Token::digest(token));
    }

    /// Whether there is a key, or has ever been one: then everybody needs one.
    pub fn exist(&self) -> bool {
        !self.book().keys.is_empty()
    }

    /// Who has this token.
    ///
    /// # Errors
    /// The [`Refusal`] of whoever has none that is known.
    pub fn authenticate(&self, token: Option<&str>) -> Result<Caller, Refusal> {
        let token = token.ok_or(Refusal::NoToken)?;
        let (digest, book) = (Token::digest(token), self.book());
        if book.owner == Some(digest) {
            return Ok(Caller::Owner);
        }
        let id = Token::key(token).ok_or(Refusal::UnknownToken)?;
        let known = book.keys.get(&id).filter(|entry| entry.key.digest == digest);
        match known.ok_or(Refusal::UnknownToken)? {
            entry if entry.key.revoked => Err(Refusal::Revoked),
            _ => Ok(Caller::Key(id)),
        }
    }

    /// Begins a request of a key; it is over when the visit is dropped.
    ///
    /// # Errors
    /// The limit that does not allow it.
    pub fn begin(&self, now: Timestamp, id: KeyId) -> Result<Arc<Visit>, Refusal> {
        let mut book = self.book();
        let entry = book.keys.get_mut(&id).ok_or(Refusal::UnknownToken)?;
        entry.key.limits.check_spend(now, &entry.spent)?;
        entry.key.limits.begin(now, &mut entry.live)?;
        drop(book);
        Ok(Arc::new(Visit { keys: self.clone(), id, refused: Mutex::default() }))
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn create(&self, now: Timestamp, name: &str, limits: Limits) -> Result<(KeyId, Token), KeysError> {
        let length = name.chars().count();
        if length == 0 || length > MAX_NAME || name.chars().any(char::is_control) {
            return Err(KeysError::Name);
        }
        let mut book = self.book();
        if book.keys.len() >= MAX_KEYS {
            return Err(KeysError::Full);
        }
        let id = loop {
            let id = KeyId::new()?;
            if !book.keys.contains_key(&id) {
                break id;
            }
        };
        let token = Token::of_key(id)?;
        let digest = Token::digest(token.text());
        let key = Key { name: name.to_owned(), digest, created: now, limits, revoked: false };
        self.keep(id, &key)?;
        book.keys.insert(id, Entry { key, spent: Spent::default(), live: Live::default() });
        Ok((id, token))
    }

    /// Ends a key at once.
    ///
    /// # Errors
    /// [`KeysError::Unknown`], [`KeysError::Store`].
    pub fn revoke(&self, id: KeyId) -> Result<(), KeysError> {
        let mut book = self.book();
        let entry = book.keys.get_mut(&id).ok_or(KeysError::Unknown(id))?;
        let key = Key { revoked: true, ..entry.key.clone() };
        self.keep(id, &key)?;
        entry.key = key;
        Ok(())
    }

    /// All of them, the oldest first.
    pub fn list(&self, now: Timestamp) -> Vec<KeyView> {
        let view = |(id, entry): (&KeyId, &Entry)| KeyView {
            id: *id,
            name: entry.key.name.clone(),
            created: entry.key.created,
            limits: entry.key.limits.clone(),
            revoked: entry.key.revoked,
            spent: entry.spent.total,
            spent_today: entry.spent.on(now),
        };
        let mut views: Vec<_> = self.book().keys.iter().map(view).collect();
        views.sort_by_key(|view| (view.created, view.id));
        views
    }

    fn keep(&self, id: KeyId, key: &Key) -> Result<(), StoreError> {
        self.0.store.as_ref().map_or(Ok(()), |store| store.put(id, key))
    }

    /// A panic elsewhere leaves whole entries behind: each is changed in one step.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request of a key, and the patron of the jobs that it leads to.
#[derive(Debug)]
pub struct Visit {
    keys: Keys,
    id: KeyId,
    refused: Mutex<Option<Refusal>>,
}

impl Visit {
    /// Why a job of it was not to be, where one was not. A job's error cannot say it as clients know it.
    pub fn refused(&self) -> Option<Refusal> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn hold(&self, spec: &mut JobSpec) -> Result<Credits, Refusal> {
        let mut book = self.keys.book();
        let Entry { key, spent, live } = book.keys.get_mut(&self.id).ok_or(Refusal::UnknownToken)?;
        key.limits.allow(&spec.requirement.capability)?;
        let held = key.limits.hold(clock::now(), spent, live, spec.limits.budget)?;
        drop(book);
        let free = Some(Price::default());
        spec.limits.budget = held;
        if held == Credits::ZERO {
            spec.requirement.ceiling = free;
        } else if spec.requirement.ceiling == free {
            // Asked for because the request had no budget. Now it has.
            spec.requirement.ceiling = None;
        }
        Ok(held)
    }
}

impl Patron for Visit {
    fn admit(&self, spec: &mut JobSpec) -> Result<Box<dyn Hold>, JobError> {
        match self.hold(spec) {
            Ok(held) => Ok(Box::new(Held { keys: self.keys.clone(), id: self.id, held })),
            Err(refusal) => {
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
                Err(JobError::invalid("authorization", "allows no such job"))
            }
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(entry) = self.keys.book().keys.get_mut(&self.id) {
            entry.live.end();
        }
    }
}

/// What is set aside for a job of a key.
#[derive(Debug)]
struct Held {
    keys: Keys,
    id: KeyId,
    held: Credits,
}

impl Hold for Held {
    fn settle(self: Box<Self>, cost: Credits) {
        if cost == Credits::ZERO {
            return;
        }
        let mut book = self.keys.book();
        let Some(entry) = book.keys.get_mut(&self.id) else { return };
        entry.spent = entry.spent.after(clock::now(), cost);
        let written = self.keys.0.store.as_ref().map_or(Ok(()), |store| store.charge(self.id, &entry.spent));
        drop(book);
        if let Err(error) = written {
            tracing::error!(%error, key = %self.id, "a charge could not be kept; it counts until the peer stops");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(entry) = self.keys.book().keys.get_mut(&self.id) {
            entry.live.release(self.held);
        }
    }
}

#[cfg(test)]
mod tests;
