//! Tools as `llamesh.toml` declares them: what is run or asked, and how much of everything it may have.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::Token;
use serde::Deserialize;

/// A program on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramSettings {
    /// Its file; a relative one is beside the file of the settings.
    pub path: PathBuf,
    /// What it is always given. Nothing of a job is ever among it.
    #[serde(default)]
    pub args: Vec<String>,
    /// Seconds after which it is killed.
    #[serde(default = "timeout_s")]
    pub timeout_s: u64,
    /// Address space of each of its processes, in MiB.
    #[serde(default = "memory_mib")]
    pub memory_mib: u64,
    /// The longest answer, in KiB.
    #[serde(default = "output_kib")]
    pub output_kib: usize,
}

/// A tool of an MCP server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpSettings {
    /// The server as a program that speaks on stdin and stdout, with its arguments; excludes `url`.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment variables that it inherits, beside `HOME`, `LANG` and `PATH`.
    #[serde(default)]
    pub env: Vec<String>,
    /// The server's address, where it speaks HTTP.
    pub url: Option<String>,
    /// The environment variable that holds the key for it; a key itself never stands in a file.
    pub key_env: Option<String>,
    /// Which of its tools.
    pub tool: String,
    /// Seconds after which a call is given up.
    #[serde(default = "timeout_s")]
    pub timeout_s: u64,
    /// The longest answer, in KiB.
    #[serde(default = "output_kib")]
    pub output_kib: usize,
}

/// What one call may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall time; and as much of a processor's.
    pub time: Duration,
    /// Bytes of address space.
    pub memory: u64,
    /// Bytes of the answer.
    pub output: usize,
}

const fn timeout_s() -> u64 {
    30
}

const fn memory_mib() -> u64 {
    512
}

const fn output_kib() -> usize {
    64
}

impl ProgramSettings {
    /// The same with a path that does not depend on where the peer was started.
    #[must_use]
    pub(super) fn beside(self, folder: &Path) -> Self {
        Self { path: folder.join(&self.path), ..self }
    }

    /// What a call may have.
    pub fn limits(&self) -> Limits {
        Limits {
            time: Duration::from_secs(self.timeout_s),
            memory: self.memory_mib.saturating_mul(1 << 20),
            output: bytes(self.output_kib),
        }
    }

    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        check(self.timeout_s, self.output_kib)?;
        if self.memory_mib == 0 { Err("memory_mib must be 1 at least".to_owned()) } else { Ok(()) }
    }
}

impl McpSettings {
    /// The longest answer in bytes.
    pub fn output(&self) -> usize {
        bytes(self.output_kib)
    }

    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        check(self.timeout_s, self.output_kib)?;
        match (self.command.is_empty(), &self.url) {
            (false, Some(_)) | (true, None) => Err("needs exactly one of command and url".to_owned()),
            (true, Some(_)) if !self.env.is_empty() => Err("env goes with a command".to_owned()),
            (false, None) if self.key_env.is_some() => Err("key_env goes with a url".to_owned()),
            _ => Ok(()),
        }
    }
}

fn bytes(kib: usize) -> usize {
    kib.saturating_mul(1 << 10)
}

fn check(timeout_s: u64, output_kib: usize) -> Result<(), String> {
    let most = Token::MAX_ANSWER >> 10;
    if timeout_s == 0 {
        return Err("timeout_s must be 1 at least".to_owned());
    }
    if !(1..=most).contains(&output_kib) {
        return Err(format!("output_kib must be between 1 and {most}"));
    }
    Ok(())
}
