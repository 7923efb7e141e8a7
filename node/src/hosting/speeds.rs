//! How fast models were on this machine when they were first loaded, kept on disk: a model that is not in memory yet is
//! offered with its speed all the same.
//!
//! A file of a few lines in the data directory. It holds nothing that could not be measured again, so one that cannot be
//! read, or not be written, is a warning and no failure.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crypto::Digest;
use protocol::Speed;
use serde::{Deserialize, Serialize};

/// More models than anybody tries on one machine; the file stays a page long.
const MAX_MODELS: usize = 256;
/// Bytes of the file that are read: far more than [`MAX_MODELS`] take.
const MAX_FILE: u64 = 256 << 10;

/// The measured speeds.
#[derive(Debug, Default)]
pub struct Speeds {
    /// Nowhere for peers without a folder.
    file: Option<PathBuf>,
    measured: Mutex<BTreeMap<Digest, Measured>>,
}

/// One measurement, and what it depends on besides model and machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Measured {
    engine: String,
    threads: usize,
    speed: Speed,
}

impl Speeds {
    /// Those in a file, if there is one.
    pub fn open(file: PathBuf) -> Self {
        let measured = read(&file).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                let file = file.display();
                tracing::warn!(%file, %error, "speeds of models cannot be read and will be measured again");
            }
            BTreeMap::new()
        });
        Self { file: Some(file), measured: Mutex::new(measured) }
    }

    /// How fast a model was on this engine with so many threads.
    pub fn of(&self, model: &Digest, engine: &str, threads: usize) -> Option<Speed> {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let known = measured.get(model).filter(|known| known.engine == engine && known.threads == threads);
        known.map(|known| known.speed)
    }

    /// Forgets a model's speed, so that it is measured at its next load.
    pub fn forget(&self, model: &Digest) {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).remove(model);
    }

    /// Keeps what was measured. Writes a file: not for an async thread.
    pub fn keep(&self, model: Digest, engine: &str, threads: usize, speed: Speed) {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if measured.len() >= MAX_MODELS && !measured.contains_key(&model) {
            measured.pop_first();
        }
        measured.insert(model, Measured { engine: engine.to_owned(), threads, speed });
        let Some(file) = &self.file else { return };
        if let Err(error) = write(file, &measured) {
            tracing::warn!(file = %file.display(), %error, "a model's speed cannot be kept and will be measured again");
        }
    }
}

fn read(file: &Path) -> io::Result<BTreeMap<Digest, Measured>> {
    let mut text = String::new();
    File::open(file)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// Whole or not at all.
fn write(file: &Path, measured: &BTreeMap<Digest, Measured>) -> io::Result<()> {
    let draft = file.with_extension("part");
    fs::write(&draft, serde_json::to_string_pretty(measured)?)?;
    fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Speed = Speed { prefill: 90, decode: 30, latency: protocol::profile::LatencyClass::Moderate };

    #[test]
    fn what_was_measured_is_known_at_the_next_start_under_the_same_conditions() {
        let folder = tempfile::tempdir().unwrap();
        let (file, model) = (folder.path().join("speeds.json"), Digest::of_content(b"a model"));
        Speeds::open(file.clone()).keep(model, "exact-1", 2, FAST);
        let again = Speeds::open(file);
        assert_eq!(again.of(&model, "exact-1", 2), Some(FAST));
        assert_eq!(again.of(&model, "exact-2", 2), None);
        assert_eq!(again.of(&model, "exact-1", 4), None);
        assert_eq!(again.of(&Digest::of_content(b"another"), "exact-1", 2), None);
    }

    #[test]
    fn a_damaged_file_is_measured_anew_and_not_too_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("speeds.json");
        fs::write(&file, "{ half").unwrap();
        let speeds = Speeds::open(file.clone());
        for number in 0..=MAX_MODELS {
            speeds.keep(Digest::of_content(&number.to_le_bytes()), "exact-1", 2, FAST);
        }
        let kept = read(&file).unwrap();
        assert_eq!(kept.len(), MAX_MODELS);
        assert!(kept.contains_key(&Digest::of_content(&MAX_MODELS.to_le_bytes())), "the latest is kept");
    }

    #[test]
    fn a_peer_without_a_folder_remembers_as_long_as_it_runs() {
        let (speeds, model) = (Speeds::default(), Digest::of_content(b"a model"));
        speeds.keep(model, "exact-1", 2, FAST);
        assert_eq!(speeds.of(&model, "exact-1", 2), Some(FAST));
    }
}
