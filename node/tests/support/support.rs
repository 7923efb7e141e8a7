//! The program as a stranger meets it: real processes, their output read line by line.
//!
//! Nothing here sleeps or picks a port: a peer is ready when it says so, and every wait ends when the process it
//! waits for speaks, ends, or has had [`LIMIT`]. A process that is dropped is killed, and its talk is shown when the
//! test fails.

#![expect(dead_code, reason = "every test binary uses a part of it")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "this is test code, and speaks when a test fails"
)]

pub(crate) mod http;
mod process;
pub(crate) mod within;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub(crate) use process::{Outcome, Process};
use serde_json::Value;
use tempfile::TempDir;

/// What any process may take, even on a loaded machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Loopback, on a free port.
pub(crate) const ANYWHERE: &str = "/ip4/127.0.0.1/tcp/0";

/// A folder in which a peer lives, or from which commands are given.
#[derive(Debug)]
pub(crate) struct Home {
    root: TempDir,
    limit: Duration,
}

impl Home {
    /// An empty one, without models and without a way to fetch any.
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), limit: LIMIT }
    }

    /// The same with more patience, for real models.
    pub(crate) fn patient(limit: Duration) -> Self {
        Self { limit, ..Self::new() }
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A file beside the data directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The program with nothing but `args`, in an environment that says nothing of this machine.
    pub(crate) fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamesh"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LLAMESH_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.args(args).env("LLAMESH_OFFLINE", "1").env("LLAMESH_CACHE", self.file("cache"));
        command
    }

    /// The program as tests mostly want it: this data directory, JSON.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare(args);
        command.arg("--json").arg("--data-dir").arg(self.data());
        command
    }

    /// Starts it.
    pub(crate) fn start(&self, args: &[&str]) -> Process {
        self.spawn(self.command(args))
    }

    /// Starts a command within this home's patience.
    pub(crate) fn spawn(&self, command: Command) -> Process {
        Process::start(command, self.limit)
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        self.start(args).finish()
    }

    /// Starts a peer here.
    pub(crate) fn up(self, args: &[&str]) -> Peer {
        let command = self.command(&[&["up", "--listen", ANYWHERE, "--api", "127.0.0.1:0"], args].concat());
        Peer::of(self, command)
    }
}

/// The same command at a terminal that is none: `script` of util-linux keeps one for it.
pub(crate) fn at_a_terminal(command: &Command) -> Command {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script
}

/// A running peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) home: Home,
    pub(crate) process: Process,
    pub(crate) ready: Value,
}

impl Peer {
    /// A peer of its own.
    pub(crate) fn up(args: &[&str]) -> Self {
        Home::new().up(args)
    }

    /// A peer that joins at another.
    pub(crate) fn join(other: &Self, args: &[&str]) -> Self {
        Self::up(&[&["--bootstrap", &other.address()], args].concat())
    }

    /// The peer that a command starts.
    pub(crate) fn of(home: Home, command: Command) -> Self {
        let mut process = home.spawn(command);
        let ready = process.line();
        assert_eq!(ready["event"], "ready", "{ready}");
        Self { home, process, ready }
    }

    /// Its id.
    pub(crate) fn id(&self) -> String {
        text(&self.ready["peer"])
    }

    /// Where others find it, with its id.
    pub(crate) fn address(&self) -> String {
        text(&self.ready["listen"][0])
    }

    /// Its API.
    pub(crate) fn api(&self) -> String {
        text(&self.ready["api"])
    }

    /// A command given at its folder.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        self.home.run(args)
    }

    /// A job submitted through it.
    pub(crate) fn submit(&self, args: &[&str]) -> Outcome {
        self.home.run(&[&["submit"], args].concat())
    }

    /// Ends it in order and leaves its folder.
    pub(crate) fn stop(self) -> Home {
        self.process.signal("TERM");
        let outcome = self.process.finish();
        assert_eq!(outcome.code, 0, "{outcome:?}");
        self.home
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }
}

/// A tiny model without meaning, at `path`.
pub(crate) fn tiny(home: &Home) -> String {
    let path = home.file("tiny.gguf");
    inference::tiny::write_tiny(&path, 7).unwrap();
    shown(&path)
}

/// A path as an argument.
pub(crate) fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A JSON string.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no string: {value}")).to_owned()
}
