//! What a plan gains by more peers: 64 independent jobs on four providers of one slot each, beside one such provider.
//!
//! Everything is a process of its own, as users have it. The echo agent keeps a pace, so what is compared is how well
//! the mesh spreads work, not how fast this machine is.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Failed;
use crate::stats::quantile;

/// The program under test, built with the bench.
const PROGRAM: &str = env!("CARGO_BIN_EXE_llamesh");
/// Providers of the larger mesh.
const PEERS: usize = 4;
/// Runs of each; the two are taken in turn.
const ROUNDS: usize = 3;
/// 19 pauses of 50 ms a job, but for what the mesh adds. A peer that is slow to answer on a busy machine may pass for lost; its job
/// is tried again, and that time counts.
const PLAN: &str = "goal = 'spread'
limits.parallel = 16
[nodes.all]
retries = 8
for_each = 'range(64)'
generate = { prompt = 'job {{ item }} ', max_tokens = 20 }
";

pub(crate) fn run(json: bool) -> Result<(), Failed> {
    let (one, many) = (Mesh::of(1)?, Mesh::of(PEERS)?);
    let mut ratios = Vec::new();
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (alone, shared) = (one.plan()?, many.plan()?);
        ratios.push(alone.as_secs_f64() / shared.as_secs_f64());
        times.0.push(alone.as_secs_f64());
        times.1.push(shared.as_secs_f64());
    }
    let median = |values: Vec<f64>| quantile(values, 0.5);
    let (alone, shared, speedup) = (median(times.0), median(times.1), median(ratios));
    if json {
        println!("{}", json!({ "bench": "plan", "alone_s": alone, "shared_s": shared, "speedup": speedup }));
    } else {
        println!(
            "plan of 64 jobs: one peer {alone:.1} s, {PEERS} peers {shared:.1} s, {speedup:.2} times as fast"
        );
    }
    Ok(())
}

/// A peer that asks, and providers.
struct Mesh {
    folder: TempDir,
    peers: Vec<Child>,
}

impl Mesh {
    fn of(providers: usize) -> Result<Self, Failed> {
        let mut mesh = Self { folder: tempfile::tempdir()?, peers: Vec::new() };
        let first = mesh.up("asker", &["--model", "-"])?;
        let address = first["listen"][0].as_str().ok_or("no address")?.to_owned();
        for number in 0..providers {
            let name = format!("provider-{number}");
            mesh.up(&name, &["--engine", "echo:20", "--slots", "1", "--bootstrap", &address])?;
        }
        std::fs::write(mesh.folder.path().join("plan.toml"), PLAN)?;
        // Once unmeasured: connections and profiles are there afterwards.
        mesh.plan()?;
        Ok(mesh)
    }

    fn up(&mut self, name: &str, args: &[&str]) -> Result<Value, Failed> {
        let mut command = self.command(name, &["up", "--network", "bench", "--api", "127.0.0.1:0"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        self.peers.push(child);
        let ready = BufReader::new(stdout).lines().next().ok_or("the peer said nothing")??;
        Ok(serde_json::from_str(&ready)?)
    }

    /// Runs the plan and says how long that took.
    fn plan(&self) -> Result<Duration, Failed> {
        let file = self.folder.path().join("plan.toml");
        let begin = Instant::now();
        let output = self.command("asker", &["plan", "run"]).arg(file).output()?;
        let took = begin.elapsed();
        if output.status.success() { Ok(took) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(args).arg("--json").arg("--data-dir").arg(self.folder.path().join(name));
        command
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        for peer in &mut self.peers {
            // One that has ended needs no end.
            let _ = peer.kill();
            let _ = peer.wait();
        }
    }
}
