//! A peer's folder: its key, its journal, its receipts, and the lock that keeps two peers from being one.
//!
//! ```text
//! key            the 32-byte seed as 64 hexadecimal digits, mode 0600
//! lock           held by the running peer
//! api            the address of the running peer's local API
//! journal.redb   what is owed ([`crate::journal`])
//! keys.redb      who else may use the local API ([`crate::api::keys`])
//! plans/         one folder per run of a plan ([`crate::plans::journal`])
//! receipts/      one file per receipt, mode 0600 ([`crate::receipts`])
//! sessions/      one file per conversation, mode 0600
//! token          the owner's token for the local API, mode 0600
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crypto::SecretKey;

use crate::api::keys::token::Token;
use crate::clock::{self, NoEntropy};

/// A peer's folder, not necessarily held.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

/// The folder is held by this process until dropped.
#[derive(Debug)]
pub struct Held {
    dir: DataDir,
    _lock: File,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// The key file does not hold a key.
    #[error("{} does not hold a key (64 hexadecimal digits): restore it from a backup, or move it away to become a new peer", .0.display())]
    CorruptKey(PathBuf),
    /// No random bytes for a new key.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    /// The system said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// Another process is this peer.
    #[error("a peer is running in {} already: talk to it without --bootstrap, or give this one another --data-dir", .0.display())]
    Locked(PathBuf),
    /// Neither a flag nor a home.
    #[error("no home folder is known: pass --data-dir DIR")]
    NoHome,
}

impl DataDir {
    /// The folder that was asked for, or the platform's usual place.
    ///
    /// # Errors
    /// [`DataDirError::NoHome`].
    pub fn locate(chosen: Option<PathBuf>) -> Result<Self, DataDirError> {
        let usual =
            || directories::ProjectDirs::from("", "", "llamesh").map(|dirs| dirs.data_dir().to_owned());
        chosen.or_else(usual).map(Self).ok_or(DataDirError::NoHome)
    }

    /// Makes the folder if need be, and holds it.
    ///
    /// # Errors
    /// [`DataDirError::Locked`] when another process does.
    pub fn hold(self) -> Result<Held, DataDirError> {
        self.create()?;
        let path = self.0.join("lock");
        let lock = private(&path, OpenOptions::new().create(true).truncate(false).write(true))?;
        match lock.try_lock() {
            Ok(()) => Ok(Held { dir: self, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Locked(self.0)),
            Err(TryLockError::Error(error)) => Err(DataDirError::Io { path, error }),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where receipts are kept.
    pub fn receipts(&self) -> PathBuf {
        self.0.join("receipts")
    }

    /// Where conversations are kept.
    pub fn sessions(&self) -> PathBuf {
        self.0.join("sessions")
    }

    /// Where runs of plans are kept.
    pub fn plans(&self) -> PathBuf {
        self.0.join("plans")
    }

    /// Where the local API's keys are kept.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys.redb")
    }

    /// The owner's token for the local API, if a peer has ever run here.
    pub fn token(&self) -> Option<String> {
        let text = fs::read_to_string(self.0.join("token")).ok()?;
        Some(text.trim().to_owned()).filter(|token| !token.is_empty())
    }

    /// The base address of the running peer's local API, if one runs here.
    pub fn api(&self) -> Option<String> {
        fs::read_to_string(self.0.join("api")).ok().map(|address| address.trim().to_owned())
    }

    /// Makes the folders, readable by their owner only.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn create(&self) -> Result<(), DataDirError> {
        let receipts = self.receipts();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&receipts);
        made.map_err(|error| DataDirError::Io { path: receipts, error })
    }
}

impl Held {
    /// The folder.
    pub fn dir(&self) -> &DataDir {
        &self.dir
    }

    /// The peer's key; a new one where there is none yet.
    ///
    /// # Errors
    /// [`DataDirError::CorruptKey`]: a damaged key is never replaced, it may be worth something.
    pub fn key(&self) -> Result<SecretKey, DataDirError> {
        let path = self.dir.0.join("key");
        match fs::read_to_string(&path) {
            Ok(text) => parse_seed(text.trim())
                .map(|seed| SecretKey::from_seed(&seed))
                .ok_or(DataDirError::CorruptKey(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.new_key(&path),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(DataDirError::CorruptKey(path)),
            Err(error) => Err(DataDirError::Io { path, error }),
        }
    }

    /// Tells others on this machine where the local API is.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn publish_api(&self, address: &str) -> Result<(), DataDirError> {
        let path = self.dir.0.join("api");
        fs::write(&path, format!("{address}\n")).map_err(|error| DataDirError::Io { path, error })
    }

    fn new_key(&self, path: &Path) -> Result<SecretKey, DataDirError> {
        let seed = clock::random::<32>()?;
        let text: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(path, &text)?;
        Ok(SecretKey::from_seed(&seed))
    }

    /// The owner's token for the local API; a new one where there is none yet, and whether it is new.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn token(&self) -> Result<(String, bool), DataDirError> {
        if let Some(token) = self.dir.token() {
            return Ok((token, false));
        }
        let token = Token::of_owner()?.text().to_owned();
        write_private(&self.dir.0.join("token"), &token)?;
        Ok((token, true))
    }
}

/// Written whole or not at all: half a secret would be damage that nobody can mend.
fn write_private(path: &Path, text: &str) -> Result<(), DataDirError> {
    let draft = path.with_extension("part");
    let mut file = private(&draft, OpenOptions::new().create(true).truncate(true).write(true))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| fs::rename(&draft, path));
    renamed.map_err(|error| DataDirError::Io { path: path.to_owned(), error })
}

impl Drop for Held {
    fn drop(&mut self) {
        // Nobody answers there any more. If it cannot be removed, the next caller gets "connection refused".
        let _ = fs::remove_file(self.dir.0.join("api"));
    }
}

fn private(path: &Path, options: &mut OpenOptions) -> Result<File, DataDirError> {
    options.mode(0o600).open(path).map_err(|error| DataDirError::Io { path: path.to_owned(), error })
}

fn parse_seed(text: &str) -> Option<[u8; 32]> {
    text.parse::<crypto::Digest>().ok().map(|bytes| *bytes.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn dir() -> (tempfile::TempDir, DataDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::locate(Some(root.path().join("peer"))).unwrap();
        (root, dir)
    }

    #[test]
    fn the_key_is_private_and_stays() {
        let (_root, dir) = dir();
        let held = dir.clone().hold().unwrap();
        let peer = held.key().unwrap().peer_id();
        let mode = fs::metadata(dir.path().join("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(held);
        assert_eq!(dir.hold().unwrap().key().unwrap().peer_id(), peer);
    }

    #[test]
    fn the_owner_s_token_is_private_and_stays() {
        let (_root, dir) = dir();
        assert_eq!(dir.token(), None);
        let held = dir.clone().hold().unwrap();
        let (token, fresh) = held.token().unwrap();
        assert!(fresh && held.token().unwrap() == (token.clone(), false));
        let mode = fs::metadata(dir.path().join("token")).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, dir.token()), (0o600, Some(token)));
    }

    #[test]
    fn two_processes_are_not_one_peer() {
        let (_root, dir) = dir();
        let _held = dir.clone().hold().unwrap();
        assert!(matches!(dir.hold(), Err(DataDirError::Locked(_))));
    }

    #[test]
    fn a_corrupt_key_is_reported_and_kept() {
        let (_root, dir) = dir();
        let held = dir.clone().hold().unwrap();
        for damaged in [b"".as_slice(), b"xyz", &[0xff; 32]] {
            fs::write(dir.path().join("key"), damaged).unwrap();
            assert!(matches!(held.key(), Err(DataDirError::CorruptKey(_))));
            assert_eq!(fs::read(dir.path().join("key")).unwrap(), damaged);
        }
    }
}
