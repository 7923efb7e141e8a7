//! What was read before and may be read again: sequences kept under the digests of their tokens.
//!
//! A conversation's next turn begins with all that was said before; many choices begin with one prompt. What an exact
//! engine has read of that is kept as a fork of the sequence, and found by a chain of digests, one for each
//! block of [`BLOCK`] tokens. A digest says where to look and the tokens themselves decide, so what is found is what
//! would have been read, and no bit differs.
//!
//! How soon an answer begins tells whether its prompt was read before. So what one tenant read only serves that tenant
//! ([`Scope::Private`]); for everybody there is only what an agent declared public, as its system prompt
//! ([`Scope::Public`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crypto::{Digest, Hasher};

use crate::engine::Sequence;
use crate::schedule::Tenant;

/// Tokens of a block.
pub const BLOCK: usize = 32;

/// Whom a prefix serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The tenant that read it.
    Private(Tenant),
    /// Everybody.
    Public,
}

/// Kept sequences.
#[derive(Debug, Default)]
pub struct Prefixes {
    entries: BTreeMap<u64, Entry>,
    /// Which entries have read a block and all before it.
    blocks: BTreeMap<Digest, BTreeSet<u64>>,
    clock: u64,
}

struct Entry {
    scope: Scope,
    tokens: Vec<u32>,
    sequence: Box<dyn Sequence>,
    used: u64,
}

impl Prefixes {
    /// The longest kept beginning of `tokens`, at most `most` of them, in one of the scopes: a sequence that has read it,
    /// and its length.
    pub fn find(
        &mut self,
        scopes: &[Scope],
        tokens: &[u32],
        most: usize,
    ) -> Option<(Box<dyn Sequence>, usize)> {
        let (length, id) = scopes.iter().filter_map(|&scope| self.longest(scope, tokens)).max()?;
        let length = length.min(most);
        if length < BLOCK {
            return None;
        }
        self.clock += 1;
        let entry = self.entries.get_mut(&id)?;
        entry.used = self.clock;
        Some((entry.sequence.fork(length)?, length))
    }

    /// Keeps a sequence that has read these tokens. What it makes superfluous in the same scope goes.
    pub fn keep(&mut self, scope: Scope, tokens: &[u32], sequence: Box<dyn Sequence>) {
        if tokens.len() < BLOCK
            || self.longest(scope, tokens).is_some_and(|(length, _)| length == tokens.len())
        {
            return;
        }
        self.superseded(scope, tokens).into_iter().for_each(|id| self.remove(id));
        if self.entries.len() >= MOST_ENTRIES {
            self.evict();
        }
        self.clock += 1;
        let id = self.clock;
        for key in keys(scope, tokens) {
            self.blocks.entry(key).or_default().insert(id);
        }
        self.entries.insert(id, Entry { scope, tokens: tokens.to_vec(), sequence, used: id });
    }

    /// Gives up what was not used for longest; false when nothing is kept.
    pub fn evict(&mut self) -> bool {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(&id, _)| id);
        oldest.map(|id| self.remove(id)).is_some()
    }

    /// How many sequences are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry that begins with most of the tokens, and how many.
    fn longest(&self, scope: Scope, tokens: &[u32]) -> Option<(usize, u64)> {
        let keys = keys(scope, tokens);
        let ids = keys.iter().rev().find_map(|key| self.blocks.get(key))?;
        let common = |id: &u64| self.entries.get(id).map(|entry| (common(&entry.tokens, tokens), *id));
        ids.iter().filter_map(common).max()
    }

    /// Private entries that are a beginning of the tokens.
    fn superseded(&self, scope: Scope, tokens: &[u32]) -> Vec<u64> {
        if scope == Scope::Public {
            return Vec::new();
        }
        let keys = keys(scope, tokens);
        let ids: BTreeSet<_> =
            keys.iter().filter_map(|key| self.blocks.get(key)).flatten().copied().collect();
        ids.into_iter()
            .filter(|id| self.entries.get(id).is_some_and(|e| tokens.starts_with(&e.tokens)))
            .collect()
    }

    fn remove(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        for key in keys(entry.scope, &entry.tokens) {
            if let Some(ids) = self.blocks.get_mut(&key) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.blocks.remove(&key);
                }
            }
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("tokens", &self.tokens.len()).field("used", &self.used).finish()
    }
}

/// The names of all full blocks: each covers what comes before it.
fn keys(scope: Scope, tokens: &[u32]) -> Vec<Digest> {
    let owner = match scope {
        Scope::Private(tenant) => Hasher::new("prefix").part(&tenant.0).finish(),
        Scope::Public => Hasher::new("prefix").finish(),
    };
    let mut before = owner;
    tokens
        .chunks_exact(BLOCK)
        .map(|block| {
            let bytes: Vec<u8> = block.iter().flat_map(|id| id.to_le_bytes()).collect();
            before = Hasher::new("prefix").part(before.as_bytes()).part(&bytes).finish();
            before
        })
        .collect()
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// More than conversations fit into memory; it bounds the time of a search, not the memory.
const MOST_ENTRIES: usize = 4096;

#[cfg(test)]
mod tests;
