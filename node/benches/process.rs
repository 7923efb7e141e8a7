//! Processes: this one's processor time, a peer's memory, the demo's last word. Linux only, like `/proc`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// What a bench fails with.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// The program under test, built with the bench.
const PROGRAM: &str = env!("CARGO_BIN_EXE_llamesh");
/// Ticks per second in `/proc/*/stat`: the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// Processor time that this process has used so far.
pub(crate) fn processor_time() -> Result<Duration, Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold spaces; the fields after it do not.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks / TICKS))
}

/// Runs `llamesh demo --json` and returns its last line.
pub(crate) fn demo() -> Result<Value, Failed> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(PROGRAM).args(["demo", "--json", "--data-dir"]).arg(folder.path()).output()?;
    let line = output.stdout.lines().last().ok_or("the demo said nothing")??;
    Ok(serde_json::from_str(&line)?)
}

/// A running `llamesh up` with the default model on one thread. It ends with the value.
#[derive(Debug)]
pub(crate) struct Provider {
    /// Who it is.
    pub(crate) id: String,
    child: Child,
}

impl Provider {
    /// Starts one in `folder` that listens on `transport` alone and joins at `bootstrap`, and waits until it is ready.
    pub(crate) fn up(folder: &std::path::Path, transport: &str, bootstrap: &str) -> Result<Self, Failed> {
        let port = if transport == "tcp" { "/ip4/127.0.0.1/tcp/0" } else { "/ip4/127.0.0.1/udp/0/quic-v1" };
        let mut command = Command::new(PROGRAM);
        command.args(["up", "--json", "--network", "bench", "--threads", "1", "--api", "127.0.0.1:0"]);
        command.args(["--listen", port, "--bootstrap", bootstrap, "--data-dir"]).arg(folder);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let ready = BufReader::new(stdout).lines().next().ok_or("the peer said nothing")??;
        let id = serde_json::from_str::<Value>(&ready)?["peer"].as_str().ok_or(ready)?.to_owned();
        Ok(Self { id, child })
    }

    /// Ends it on the spot.
    pub(crate) fn kill(&mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // One that is dead needs no end.
        let _ = self.kill();
    }
}

/// A running `llamesh up`. It ends with the value.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its API.
    pub(crate) api: String,
    child: Child,
    _folder: TempDir,
}

impl Peer {
    /// Starts one without a model on free ports and waits until it is ready.
    pub(crate) fn up() -> Result<Self, Failed> {
        Self::with(&["--model", "-"])
    }

    /// Starts one on free ports with more to be said of it, and waits until it is ready.
    pub(crate) fn with(args: &[&str]) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let ports = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
        let mut command = Command::new(PROGRAM);
        command
            .args(["up", "--json", "--api", "127.0.0.1:0"])
            .args(args)
            .arg("--data-dir")
            .arg(folder.path());
        ports.iter().for_each(|port| _ = command.args(["--listen", port]));
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut peer = Self { api: String::new(), child, _folder: folder };
        let ready = BufReader::new(stdout).lines().next().ok_or("the peer said nothing")??;
        let ready: Value = serde_json::from_str(&ready)?;
        peer.api = ready["api"].as_str().ok_or("the peer is not ready")?.to_owned();
        Ok(peer)
    }

    /// Resident memory.
    pub(crate) fn resident_mib(&self) -> Result<f64, Failed> {
        Ok(self.status("VmRSS")? / 1024.0)
    }

    /// Threads.
    pub(crate) fn threads(&self) -> Result<f64, Failed> {
        self.status("Threads")
    }

    fn status(&self, field: &str) -> Result<f64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field")?;
        Ok(line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A peer that has ended by itself needs no end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
