//! One name for a model of several files.
//!
//! A file is named by plain BLAKE3 of its bytes. A model that comes as several files is named by its manifest: the list
//! of what each file is called, how long it is, and what its own name is. The list has a domain of its own, so that no
//! single file, whatever is in it, can pass for a model of several.

use crate::{Digest, Hasher};

/// The files of a model, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest(Vec<Item>);

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// What it is called within the model.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Plain BLAKE3 of it.
    pub digest: Digest,
}

impl Manifest {
    /// The manifest of these files, in whatever order they come.
    pub fn new(items: impl IntoIterator<Item = Item>) -> Self {
        let mut items: Vec<_> = items.into_iter().collect();
        items.sort();
        Self(items)
    }

    /// The model's name on the wire.
    pub fn digest(&self) -> Digest {
        let add = |hasher: Hasher, item: &Item| {
            let sized = hasher.part(item.name.as_bytes()).part(&item.size.to_le_bytes());
            sized.part(item.digest.as_bytes())
        };
        self.0.iter().fold(Hasher::new("manifest"), add).finish()
    }
}
