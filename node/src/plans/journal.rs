//! One run of a plan on disk: `plans/RUN/journal.jsonl`, append-only, so that a run that was cut goes on without asking
//! again what was answered.
//!
//! The first line is the plan and its inputs, every further line the outcome of one job ([`Entry`]). Each line is on the
//! disk before anything follows from it. A line without its end is a write that a power cut tore: nothing followed from
//! it, and it is cut off.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::Plan;
use protocol::plan::Entry;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock;
use crate::datadir::DataDir;

/// Longest file read in bytes: as many jobs as a plan may have, with long answers.
const MAX_FILE: u64 = 1 << 30;

/// The first line: what is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The plan.
    pub plan: Plan,
    /// What whoever ran it gave.
    pub inputs: BTreeMap<String, Value>,
}

/// A run's file, held by this process.
#[derive(Debug)]
pub struct Journal {
    run: String,
    path: PathBuf,
    file: File,
}

/// Why a run cannot be kept, or gone on with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// No such run.
    #[error("no run `{0}` is kept here; look into the folder `plans` of the data directory")]
    Unknown(String),
    /// Another process drives it.
    #[error("the run `{0}` is being driven by another process")]
    Driven(String),
    /// The file is not a journal of a run.
    #[error("{}, line {line}: {problem}; the run cannot go on, begin a new one", path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The system said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl Journal {
    /// A new run.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn create(dir: &DataDir, order: &Order) -> Result<Self, JournalError> {
        let plans = dir.plans();
        let fail = |error| JournalError::Io { path: plans.clone(), error };
        let name = clock::random::<6>().map_err(|error| fail(io::Error::other(error)))?;
        let run: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = plans.join(&run);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(fail)?;
        let path = file_of(&folder);
        let options = OpenOptions::new().create_new(true).append(true).read(true).mode(0o600).open(&path);
        let file = options.map_err(fail)?;
        let mut journal = Self { run, path, file };
        journal.lock()?;
        journal.write(order)?;
        // The file's name, and its folder's, must outlive a power cut as well.
        for folder in [&folder, &plans] {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)?;
        }
        Ok(journal)
    }

    /// A run to go on with: what it runs, and what came of it so far.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn resume(dir: &DataDir, run: &str) -> Result<(Self, Order, Vec<Entry>), JournalError> {
        let unknown = || JournalError::Unknown(run.to_owned());
        // A name, and no way to another folder.
        if run.is_empty() || !run.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let path = file_of(&dir.plans().join(run));
        let file = match OpenOptions::new().append(true).read(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(unknown()),
            file => file.map_err(|error| JournalError::Io { path: path.clone(), error })?,
        };
        let mut journal = Self { run: run.to_owned(), path, file };
        journal.lock()?;
        let text = journal.read()?;
        let mut lines = text.lines().enumerate();
        let first = lines.next().map_or(Err("the plan is missing".to_owned()), |(_, line)| parse(line));
        let order = first.map_err(|problem| journal.damaged(0, problem))?;
        let entries = lines.map(|(at, line)| parse(line).map_err(|problem| journal.damaged(at, problem)));
        let entries = entries.collect::<Result<_, _>>()?;
        Ok((journal, order, entries))
    }

    /// The run's name.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Keeps an outcome: when this returns it is on the disk.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.write(entry)
    }

    fn write<T: Serialize>(&mut self, value: &T) -> Result<(), JournalError> {
        let written = serde_json::to_string(value).map_err(io::Error::other).and_then(|mut line| {
            line.push('\n');
            self.file.write_all(line.as_bytes())?;
            self.file.sync_data()
        });
        written.map_err(|error| self.io(error))
    }

    /// The whole lines; what stands after them is cut off.
    fn read(&mut self) -> Result<String, JournalError> {
        let mut bytes = Vec::new();
        let read = (&self.file).take(MAX_FILE + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.io(error))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(self.damaged(0, format!("more than {MAX_FILE} bytes")));
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            bytes.truncate(whole);
            let cut = self.file.set_len(whole as u64).and_then(|()| self.file.seek(SeekFrom::End(0)));
            cut.map_err(|error| self.io(error))?;
        }
        String::from_utf8(bytes).map_err(|error| self.damaged(0, error.to_string()))
    }

    fn lock(&self) -> Result<(), JournalError> {
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(JournalError::Driven(self.run.clone())),
            Err(TryLockError::Error(error)) => Err(self.io(error)),
        }
    }

    fn io(&self, error: io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), error }
    }

    fn damaged(&self, at: usize, problem: String) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), line: at + 1, problem }
    }
}

/// Where the run of a folder is kept.
pub(crate) fn file_of(folder: &Path) -> PathBuf {
    folder.join("journal.jsonl")
}

/// What a run is and what came of it so far, for whoever only watches: nothing is held, and nothing is cut off.
///
/// # Errors
/// [`JournalError::Damaged`], [`JournalError::Io`].
pub fn peek(path: &Path) -> Result<(Order, Vec<Entry>), JournalError> {
    let bytes = fs::read(path).map_err(|error| JournalError::Io { path: path.to_owned(), error })?;
    let damaged =
        |at: usize, problem: String| JournalError::Damaged { path: path.to_owned(), line: at + 1, problem };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let text = std::str::from_utf8(&bytes[..whole]).map_err(|error| damaged(0, error.to_string()))?;
    let mut lines = text.lines().enumerate();
    let first = lines.next().map_or(Err("the plan is missing".to_owned()), |(_, line)| parse(line));
    let order = first.map_err(|problem| damaged(0, problem))?;
    let entries = lines.map(|(at, line)| parse(line).map_err(|problem| damaged(at, problem)));
    Ok((order, entries.collect::<Result<_, _>>()?))
}

fn parse<T: serde::de::DeserializeOwned>(line: &str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}

/// The runs that are kept, by name.
///
/// # Errors
/// When the folder cannot be read. One that does not exist holds none.
pub fn list(dir: &DataDir) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir.plans()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut runs: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    runs.sort_unstable();
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use crypto::Digest;
    use protocol::Credits;
    use protocol::plan::{Outcome, TaskId};

    use super::*;

    fn entry(item: u32) -> Entry {
        let task = TaskId { node: "a".to_owned(), item, choice: 0, attempt: 0 };
        let outcome = Outcome::Done { output: "two\nlines".to_owned() };
        let (digest, cost) = (Digest::from_bytes([7; 32]), Credits(3));
        Entry { task, digest, outcome, cost, provider: None, receipt: None }
    }

    fn begun() -> (tempfile::TempDir, DataDir, Journal) {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::locate(Some(root.path().join("peer"))).unwrap();
        let plan = serde_json::json!({ "goal": "g", "nodes": { "a": { "generate": { "prompt": "x" } } } });
        let order = Order {
            plan: serde_json::from_value(plan).unwrap(),
            inputs: BTreeMap::from([("n".to_owned(), Value::from(1))]),
        };
        let journal = Journal::create(&dir, &order).unwrap();
        (root, dir, journal)
    }

    #[test]
    fn a_run_comes_back_as_it_was_kept_whatever_a_power_cut_tore() {
        let (_root, dir, mut journal) = begun();
        let run = journal.run().to_owned();
        assert_eq!(list(&dir).unwrap(), std::slice::from_ref(&run));
        journal.append(&entry(0)).unwrap();
        journal.append(&entry(1)).unwrap();
        let path = journal.path.clone();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        let second = whole.len() - serde_json::to_string(&entry(1)).unwrap().len() - 1;
        for torn in second..=whole.len() {
            fs::write(&path, &whole[..torn]).unwrap();
            let seen = peek(&path).unwrap().1;
            let (mut journal, order, entries) = Journal::resume(&dir, &run).unwrap();
            assert_eq!((&order.inputs["n"], seen), (&Value::from(1), entries.clone()));
            let kept = if torn == whole.len() { vec![entry(0), entry(1)] } else { vec![entry(0)] };
            assert_eq!(entries, kept);
            journal.append(&entry(2)).unwrap();
            drop(journal);
            assert_eq!(Journal::resume(&dir, &run).unwrap().2, [kept, vec![entry(2)]].concat());
        }
    }

    #[test]
    fn a_run_has_one_driver_and_no_other_name() {
        let (_root, dir, journal) = begun();
        assert!(matches!(Journal::resume(&dir, journal.run()), Err(JournalError::Driven(_))));
        for name in ["", "..", "../plans", "00"] {
            assert!(matches!(Journal::resume(&dir, name), Err(JournalError::Unknown(_))), "{name}");
        }
        let (run, path) = (journal.run().to_owned(), journal.path.clone());
        drop(journal);
        fs::write(&path, "{}\n").unwrap();
        assert!(matches!(Journal::resume(&dir, &run), Err(JournalError::Damaged { line: 1, .. })));
    }
}
