//! A program on this machine as a tool: started for each call, with arguments on stdin and an answer on stdout.
//!
//! A program that ends with 0 has answered with what it wrote. One that ends with another code has refused its arguments, and
//! what it wrote says why. It works in an empty folder that is gone afterwards, and may take as much time, memory and
//! output as its operator said; what is over is killed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use crypto::Digest;
use protocol::{JobError, call};
use rustix::process::Resource;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};

use super::process::{self, Pipes, Process};
use super::{failed, refused};
use crate::config::tool::{Limits, ProgramSettings};

/// A program with its arguments and limits.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    limits: Limits,
    digest: Digest,
}

/// What comes of a program that ends within its limits.
struct Ended {
    /// Whether its code was 0; `None` when a signal ended it.
    done: Option<bool>,
    output: Vec<u8>,
}

/// Why a program was ended.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("it has changed since the peer started")]
    Changed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("its answer is too long")]
    Output,
    #[error("it takes too long")]
    Time,
}

impl Program {
    /// Looks at a program; nothing is started before there is a job.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn open(settings: ProgramSettings) -> io::Result<Self> {
        let (limits, ProgramSettings { path, args, .. }) = (settings.limits(), settings);
        let digest = call::program(content(&path)?, &args);
        Ok(Self { path, arguments: args, limits, digest })
    }

    /// What it is called: the name of its file.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_else(|| self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// What names it in receipts.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Runs it once. Dropping the future kills it.
    pub(super) async fn call(&self, arguments: &str) -> Result<String, JobError> {
        let ended = tokio::time::timeout(self.limits.time, self.run(arguments)).await;
        let name = self.name();
        let Ended { done, output } =
            ended.unwrap_or(Err(Stopped::Time)).map_err(|stopped| failed(&name, &stopped))?;
        match done {
            Some(true) => String::from_utf8(output).map_err(|error| failed(&name, &error)),
            Some(false) => Err(refused(&String::from_utf8_lossy(&output))),
            None => Err(failed(&name, &"a signal ended it")),
        }
    }

    async fn run(&self, arguments: &str) -> Result<Ended, Stopped> {
        self.check_unchanged().await?;
        let folder = tempfile::Builder::new().prefix("llamesh-tool-").tempdir()?;
        let (mut process, pipes) = self.start(&folder)?;
        let Pipes { stdin, stdout, stderr } = pipes;
        let name = self.name();
        let (status, output, (), ()) = tokio::try_join!(
            async { process.wait().await.map_err(Stopped::from) },
            read(stdout, self.limits.output),
            async {
                feed(stdin, arguments).await;
                Ok(())
            },
            async {
                process::log(&name, stderr).await;
                Ok(())
            },
        )?;
        let done = if status.signal().is_some() { None } else { Some(status.success()) };
        Ok(Ended { done, output })
    }

    fn start(&self, folder: &TempDir) -> io::Result<(Process, Pipes)> {
        let mut command = process::command(OsStr::new(&self.path), &self.arguments, &[]);
        command.current_dir(folder.path());
        // Whole seconds of a processor: never less than what the clock on the wall allows.
        let seconds = self.limits.time.as_secs().saturating_add(1);
        let limits = [
            (Resource::As, self.limits.memory),
            (Resource::Core, 0),
            (Resource::Cpu, seconds),
            (Resource::Fsize, self.limits.memory),
        ];
        process::limit(&mut command, limits);
        Process::start(command)
    }

    /// A receipt must not name a file that is not there any more.
    async fn check_unchanged(&self) -> Result<(), Stopped> {
        let path = self.path.clone();
        let content =
            tokio::task::spawn_blocking(move || content(&path)).await.map_err(io::Error::other)??;
        let same = call::program(content, &self.arguments) == self.digest;
        same.then_some(()).ok_or(Stopped::Changed)
    }
}

/// Gives it all of its stdin, and closes that.
async fn feed(mut stdin: ChildStdin, arguments: &str) {
    // It may know enough already and be gone.
    let _ = stdin.write_all(arguments.as_bytes()).await;
}

/// All that it writes, or nothing if that is too much.
async fn read(stdout: ChildStdout, most: usize) -> Result<Vec<u8>, Stopped> {
    let mut output = Vec::new();
    stdout.take(most as u64 + 1).read_to_end(&mut output).await?;
    if output.len() > most { Err(Stopped::Output) } else { Ok(output) }
}

fn content(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}
