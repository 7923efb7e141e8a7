//! A file's place in the cache: what is known of its bytes, what lies beside it, and who may fetch it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crypto::Digest;
use tokio::task::spawn_blocking;

use super::Failure;
use super::progress::{Progress, Shown};

/// Where a file belongs, and what it must be.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its path.
    pub(super) file: PathBuf,
    /// Its size, where that is pinned.
    pub(super) size: Option<u64>,
    /// Its digest, where that is pinned or remembered.
    pub(super) digest: Option<Digest>,
}

impl Place {
    /// A companion of a file, in the same folder so that a rename is atomic.
    pub(super) fn companion(file: &Path, suffix: &str) -> PathBuf {
        let mut name = OsString::from(file);
        name.push(".");
        name.push(suffix);
        PathBuf::from(name)
    }

    /// A companion of the file here.
    pub(super) fn named(&self, suffix: &str) -> PathBuf {
        Self::companion(&self.file, suffix)
    }

    /// The digest of the bytes at `path`, if they are those that belong here. The size is looked at first, because it
    /// costs nothing.
    pub(super) async fn check(&self, path: &Path) -> io::Result<Option<Digest>> {
        if self.size.is_some_and(|size| fs::metadata(path).is_ok_and(|found| found.len() != size)) {
            return Ok(None);
        }
        let found = digest_of(path.to_owned()).await?;
        Ok(self.digest.is_none_or(|digest| digest == found).then_some(found))
    }

    /// Gives a file its name when it has the right bytes, and puts it out of the way when not.
    pub(super) async fn admit(&self, path: &Path) -> Result<Digest, Failure> {
        let Some(digest) = self.check(path).await? else {
            let aside = self.named("wrong");
            fs::rename(path, &aside)?;
            return Err(Failure::Wrong { aside });
        };
        fs::rename(path, &self.file)?;
        // What another source had begun is of no use any more.
        for begun in BEGUN {
            let _ = fs::remove_file(self.named(begun));
        }
        Ok(digest)
    }

    /// Deletes the file and everything beside it. Returns the bytes that were there, and `None` where nothing was.
    pub(super) fn clear(&self) -> Result<Option<u64>, (PathBuf, io::Error)> {
        let beside = BEGUN.into_iter().chain(KEPT).map(|suffix| self.named(suffix));
        let mut freed = None;
        for path in [self.file.clone()].into_iter().chain(beside) {
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            fs::remove_file(&path).map_err(|error| (path, error))?;
            freed = Some(freed.unwrap_or(0) + found.len());
        }
        Ok(freed)
    }
}

/// Keeps other processes from fetching the same. Asked again and again, not waited for in a thread: such a thread
/// could not be stopped.
pub(super) async fn lock(path: &Path, progress: &dyn Progress) -> io::Result<File> {
    let mut waiting = None;
    loop {
        match try_lock(path) {
            Ok(file) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {
                waiting.get_or_insert_with(|| Shown::begin(progress, WAITING, None));
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// The same without waiting.
pub(super) fn try_lock(path: &Path) -> Result<File, TryLockError> {
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(TryLockError::Error)?;
    file.try_lock()?;
    Ok(file)
}

/// The digest of a file, off the runtime's threads.
pub(super) async fn digest_of(path: PathBuf) -> io::Result<Digest> {
    spawn_blocking(move || read_digest(&path)).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

/// The digest of a file.
pub(super) fn read_digest(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}

/// True when a file begins as a model of one file does.
pub(super) fn is_gguf(path: &Path) -> io::Result<bool> {
    let mut magic = Vec::with_capacity(MAGIC.len());
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    Ok(magic == MAGIC)
}

/// How a GGUF file begins.
pub(super) const MAGIC: &[u8] = b"GGUF";

/// What may lie beside a file: what was begun, and what is kept.
const BEGUN: [&str; 3] = ["part", "told", "unpacked"];
const KEPT: [&str; 2] = ["b3", "wrong"];

const WAITING: &str = "another process is fetching the model";

/// How often a lock is asked for; short beside any download that could hold it.
const POLL: Duration = Duration::from_millis(100);
