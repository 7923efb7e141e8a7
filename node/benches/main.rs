//! What the mesh costs, and what it gives. Eight measurements in one program, each a table, or one JSON line with `--json`:
//!
//! | name | what |
//! |---|---|
//! | `overhead` | the stations of a job beside plain TCP and HTTP; tokens per second of one stream |
//! | `demo` | a real model through the mesh beside the model alone; the demo as a newcomer runs it |
//! | `idle` | memory of a peer without a model |
//! | `failover` | a provider killed at some token of its answer: the same answer, and the reader's wait |
//! | `gateway` | 500 streams at once through OpenAI's endpoint |
//! | `added` | what OpenAI's endpoint adds to the same job by the control API |
//! | `observe` | jobs per second with traces and without; a scrape of the metrics |
//! | `plan` | 64 independent jobs of a plan on four peers, beside one peer |
//!
//! `cargo bench -p llamesh-node --bench mesh -- [overhead|demo|idle|failover|gateway|added|observe|plan …] [--json]`; without a name all of them run.
//! `BENCHMARKS.md` holds the numbers and how they came about.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its result")]

mod added;
mod demo_rate;
mod failover;
mod gateway;
mod idle;
mod observe;
mod overhead;
mod pair;
mod plain;
mod plan;
mod process;
mod stats;

use process::Failed;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    // `cargo bench` adds a flag of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let named: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|name| !name.starts_with('-')).collect();
    let wanted = |name| named.is_empty() || named.contains(&name);
    if wanted("overhead") {
        overhead::run(json).await?;
    }
    if wanted("demo") {
        demo_rate::run(json).await?;
    }
    if wanted("idle") {
        idle::run(json).await?;
    }
    if wanted("failover") {
        failover::run(json).await?;
    }
    if wanted("gateway") {
        gateway::run(json).await?;
    }
    if wanted("added") {
        added::run(json).await?;
    }
    if wanted("observe") {
        observe::run(json).await?;
    }
    if wanted("plan") {
        plan::run(json)?;
    }
    Ok(())
}
