//! What is in the cache, by the names that a user can say; and how it gets out again.
//!
//! Nothing is hashed for a list: it says what is there by name and size, and what it is known or remembered to be. Whether
//! it is that is checked when it is used. Only what the list names can be deleted, so nothing outside of the cache can.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crypto::Digest;
use serde::Serialize;

use super::hub::{self, HubFile};
use super::place::{Place, try_lock};
use super::{Form, Known, Models, RemoveError, Shelf, is_named_gguf};

/// A model that is known by name, in the cache, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What `--model` takes.
    pub name: String,
    /// What it is made of.
    pub form: Form,
    /// Bytes in all of it; of what is not here and has no pin, those that have arrived.
    pub size: u64,
    /// What it is called on the wire, where that is pinned or remembered.
    pub digest: Option<Digest>,
    /// Where it can be had, in the order in which it is tried.
    pub from: Vec<String>,
    /// Whether all of it is here.
    pub present: bool,
    /// Where it belongs.
    pub path: PathBuf,
}

impl Models {
    /// The known models, and then what else is in the cache.
    pub fn list(&self) -> Vec<Entry> {
        let known = self.known.iter().map(|known| self.known_entry(known));
        let others = self.others().into_iter().map(|file| self.other_entry(file));
        known.chain(others).collect()
    }

    /// Deletes a model from the cache, with everything that was begun or kept beside it. Returns the bytes that were
    /// there.
    ///
    /// # Errors
    /// [`RemoveError`].
    pub fn remove(&self, name: &str) -> Result<u64, RemoveError> {
        let (places, whole) = match self.named(name) {
            Some(known) => {
                let Shelf { root, places, .. } = self.shelf(known);
                (places, root)
            }
            None => self.other_place(name).map(|place| (vec![place.clone()], place.file))?,
        };
        let io = |(path, source)| RemoveError::Io { path, source };
        let lock = try_lock(&Place::companion(&whole, "lock"));
        if matches!(lock, Err(fs::TryLockError::WouldBlock)) {
            return Err(RemoveError::Busy(name.to_owned()));
        }
        let mut freed = None;
        for place in places {
            if let Some(bytes) = place.clear().map_err(io)? {
                freed = Some(freed.unwrap_or(0) + bytes);
            }
        }
        // What a process that was killed left of a wheel, and the folder if nothing of others is in it.
        let _ = fs::remove_dir_all(Place::companion(&whole, "wheel"));
        let _ = fs::remove_dir(&whole);
        freed.ok_or_else(|| RemoveError::Absent(name.to_owned()))
    }

    /// Every file of the cache that is named as a model of one file, known or put there by somebody.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let known = self.known.iter().map(|known| self.shelf(known).root).filter(|root| is_named_gguf(root));
        known.chain(self.others()).filter(|path| path.is_file()).collect()
    }

    fn known_entry(&self, known: &Known) -> Entry {
        let Shelf { form, root, places, .. } = self.shelf(known);
        let there = |place: &Place| fs::metadata(&place.file).is_ok_and(|m| Some(m.len()) == place.size);
        let file = known.pieces().first().filter(|_| form == Form::Gguf).map_or("", |piece| piece.name);
        let hub = known.hub.map(|hub| format!("hub {}@{}/{file}", hub.repository, hub.revision));
        let wheel = format!("wheel {}=={}", known.wheel.package, known.wheel.version);
        Entry {
            name: known.name.to_owned(),
            form,
            size: known.size(),
            digest: Some(known.digest()),
            from: hub.into_iter().chain([wheel]).collect(),
            present: places.iter().all(there),
            path: root,
        }
    }

    fn other_entry(&self, file: PathBuf) -> Entry {
        let size = |path: &Path| fs::metadata(path).map(|found| found.len());
        let present = file.is_file();
        let arrived = || size(&Place::companion(&file, "part")).unwrap_or(0);
        let name = self.name_of(&file);
        let from = if name.contains('/') { vec![format!("hub {name}")] } else { Vec::new() };
        Entry {
            size: size(&file).unwrap_or_else(|_| arrived()),
            digest: hub::remembered(&file),
            name,
            form: Form::Gguf,
            from,
            present,
            path: file,
        }
    }

    /// What `rm` calls a file that has no known name: as the hub does, or by its name in the cache.
    fn name_of(&self, file: &Path) -> String {
        let root = self.folder.join(hub::FOLDER);
        let named = file.strip_prefix(&root).or_else(|_| file.strip_prefix(&self.folder));
        named.unwrap_or(file).to_string_lossy().into_owned()
    }

    fn other_place(&self, name: &str) -> Result<Place, RemoveError> {
        let found = self.others().into_iter().find(|file| self.name_of(file) == name);
        let absent = |_: HubFile| RemoveError::Absent(name.to_owned());
        let unknown = |_| RemoveError::Unknown(name.to_owned());
        let file = found.ok_or_else(|| name.parse().map_or_else(unknown, absent))?;
        Ok(Place { file, size: None, digest: None })
    }

    /// Files of one file each, whole or begun, that belong to no known model.
    fn others(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let here = || fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        found.extend(here().map(|entry| entry.path()).filter(|path| is_named_gguf(path) && path.is_file()));
        // An unreadable folder holds nothing that could be used.
        let _ = walk(&self.folder.join(hub::FOLDER), hub::MAX_SEGMENTS, &mut found);
        for known in &self.known {
            found.remove(&self.shelf(known).root);
        }
        found
    }
}

/// Collects what lies under the mirror of the hub. Links are not followed: they lead out of the cache.
fn walk(folder: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.filter_map(Result::ok) {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && depth > 0 {
            walk(&path, depth - 1, found)?;
        } else if kind.is_file() && found.len() < MAX_FILES {
            found.extend(model_of(&path));
        }
    }
    Ok(())
}

/// The model that a file is, or is the beginning or the remembered digest of.
fn model_of(path: &Path) -> Option<PathBuf> {
    let whole = is_named_gguf(path).then(|| path.to_owned());
    let beside = || {
        let kept = path.extension().is_some_and(|suffix| suffix == "part" || suffix == "b3");
        kept.then(|| path.with_extension("")).filter(|model| is_named_gguf(model))
    };
    whole.or_else(beside)
}

/// More models are not listed: nobody has so many.
const MAX_FILES: usize = 10_000;
