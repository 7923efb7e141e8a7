//! What the gateway remembers between requests, in memory only and bounded: vectors of what is on offer, and responses.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crypto::Digest;

use super::responses::Store;

/// Vectors remembered: some for each capability of a large mesh; when they are too many all are made again.
const MAX_VECTORS: usize = 512;

/// Of which text by which model.
pub(super) type Key = (Option<Digest>, String);

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    vectors: Mutex<BTreeMap<Key, Vec<f32>>>,
    /// Responses that can be gone on with.
    responses: Mutex<Store>,
}

impl Memory {
    pub(super) fn vector(&self, key: &Key) -> Option<Vec<f32>> {
        self.vectors.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(super) fn keep_vector(&self, key: Key, vector: Vec<f32>) {
        let mut vectors = self.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        if vectors.len() >= MAX_VECTORS {
            vectors.clear();
        }
        vectors.insert(key, vector);
    }

    /// The responses, for as long as one look takes.
    pub(super) fn responses(&self) -> std::sync::MutexGuard<'_, Store> {
        self.responses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
