//! A child process that ends with whoever started it, and its own children with it.
//!
//! It leads a process group of its own, which is killed as a whole when the [`Process`] is dropped: so a job that is
//! cancelled, a time limit and a peer that stops need no code of their own. Its environment is empty but for what is named
//! here, it has no shell, and its limits hold before its first instruction.

use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// What every child sees of this peer's environment.
const INHERITED: [&str; 1] = ["PATH"];
/// So much of what it says on stderr is kept for the log.
const STDERR: usize = 8 << 10;

/// Limits of a process: which, and how much in the resource's own unit.
pub(super) type Rlimits = [(Resource, u64); 4];

/// A running child.
#[derive(Debug)]
pub(super) struct Process {
    /// Ended first: while the child is not waited for, its number is nobody else's.
    group: Group,
    child: Child,
}

/// The process group of a child, for as long as there may be somebody in it.
#[derive(Debug)]
struct Group(Option<Pid>);

/// A child's ends of the pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

/// A command that inherits nothing but the search path and the variables named.
pub(super) fn command(program: &OsStr, arguments: &[String], variables: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("LANG", "C.UTF-8");
    for name in INHERITED.iter().chain(variables) {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Lets what `command` starts have no more than this.
pub(super) fn limit(command: &mut Command, limits: Rlimits) {
    // Nobody but root may have more than the peer itself.
    let limits = limits.map(|(resource, most)| {
        let most = getrlimit(resource).maximum.map_or(most, |own| own.min(most));
        (resource, Rlimit { current: Some(most), maximum: Some(most) })
    });
    let set = move || limits.iter().try_for_each(|(resource, limit)| Ok(setrlimit(*resource, *limit)?));
    #[expect(unsafe_code, reason = "a limit that is set later does not hold for what was started before")]
    // SAFETY: `set` runs between fork and exec, where only what is async-signal-safe may be called. It makes system calls on
    // values that it owns; it allocates nothing, takes no lock, and does not panic.
    unsafe {
        command.pre_exec(set);
    }
}

impl Process {
    /// Starts a command.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub(super) fn start(mut command: Command) -> io::Result<(Self, Pipes)> {
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = Group(leader);
        match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(stdin), Some(stdout), Some(stderr)) => {
                Ok((Self { group, child }, Pipes { stdin, stdout, stderr }))
            }
            _ => Err(io::Error::other("a child without pipes")),
        }
    }

    /// Waits for its end, and ends all that it left behind.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.group.kill();
        Ok(status)
    }
}

impl Group {
    /// Once only: later the number may be somebody else's.
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // It may be empty already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads what a child says on stderr to its end and logs the beginning of it. A child that is not read would stop.
pub(super) async fn log(tool: &str, mut stderr: impl AsyncRead + Unpin) {
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(len @ 1..) = stderr.read(&mut buffer).await {
        let room = STDERR.saturating_sub(said.len());
        said.extend_from_slice(&buffer[..len.min(room)]);
    }
    if !said.is_empty() {
        tracing::debug!(tool, stderr = %String::from_utf8_lossy(&said), "a tool said");
    }
}
