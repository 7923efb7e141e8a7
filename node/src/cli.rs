//! The command line: what can be typed, and how it is answered.
//!
//! stdout is data (`--json` everywhere: one JSON document a line), stderr is talk. Failures end with a next step and
//! an exit code by class ([`crate::failure`]). A reader that closes the pipe early is no failure.

mod approval;
mod bench;
mod chat;
mod demo;
mod doctor;
mod find;
mod jobs;
mod keys;
mod log;
mod market;
mod mcp;
mod models;
mod peers;
mod plan;
mod print;
mod receipts;
mod session;
mod stop;
mod submit;
mod top;
mod up;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use crypto::Network;

use crate::config::{self, LogFormat, Settings};
use crate::datadir::DataDir;
use crate::failure::{Class, Failure};
use crate::traces::Traces;

/// A mesh in which any peer can put its model to work for any other, and prove what it did.
#[derive(Debug, Parser)]
#[command(name = "llamesh", version, about, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
struct Common {
    /// The peer's folder: key, journal, receipts
    #[arg(long, global = true, env = "LLAMESH_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON, one document a line
    #[arg(long, global = true, env = "LLAMESH_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    /// The mesh's name [default: as llamesh.toml in the data directory has it, else the public one]
    #[arg(long, global = true, env = "LLAMESH_NETWORK", value_name = "NAME")]
    network: Option<Network>,
    /// Say more on stderr (RUST_LOG says what in detail)
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How to write the log on stderr [default: text, with --json json]
    #[arg(long, global = true, env = "LLAMESH_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Send traces to this OpenTelemetry collector (OTLP over HTTP), like http://127.0.0.1:4318
    #[arg(long, global = true, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a peer
    Up(up::Up),
    /// Submit a job and stream its answer
    Submit(submit::Submit),
    /// Talk with a model of the mesh, line by line
    Chat(chat::Chat),
    /// Check a plan of many jobs, run it, or have one written for a goal
    Plan(plan::Plan),
    /// Show who offers a capability
    Find(find::Find),
    /// Show which peers are connected or known
    Peers(peers::Peers),
    /// Show the jobs of the running peer: its own and those it does for others
    Jobs(jobs::Jobs),
    /// Watch the running peer: jobs, peers, market, balances
    Top(top::Top),
    /// Cancel a job, and everything that is done on its behalf
    Cancel(jobs::Cancel),
    /// Let a job begin that waits for approval
    Approve(jobs::Approve),
    /// Show what is asked and offered around the running peer
    Market(market::Market),
    /// Make keys for others to use this peer's API, list or revoke them
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Serve the Model Context Protocol on standard input and output
    Mcp(mcp::Mcp),
    /// List, fetch or delete models
    Models(models::Models),
    /// Measure a model on this machine
    Bench(bench::Bench),
    /// List receipts, or export one
    Receipts(receipts::Receipts),
    /// Check a receipt file
    Verify(verify::Verify),
    /// Say how this peer is connected, and what to do about it
    Doctor(doctor::Doctor),
    /// Three peers on this machine, one job, one audit
    Demo(demo::Demo),
}

/// What was typed. What cannot be read is said on stderr, and where JSON was asked for as data, too, like any other failure.
///
/// # Errors
/// The exit code; success after `--help` and `--version`.
pub fn typed() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        // With a stderr that is gone nobody is left to be told.
        let _ = error.print();
        if !error.use_stderr() {
            return ExitCode::SUCCESS;
        }
        if std::env::args_os().any(|arg| arg == "--json") {
            print::failure_as_data(&Failure::new(Class::Usage, error.to_string().trim_end()));
        }
        ExitCode::from(Class::Usage as u8)
    })
}

/// Runs a command to its exit code.
pub fn main(cli: Cli) -> ExitCode {
    let json = cli.common.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print::failure(&failure, json);
            ExitCode::from(failure.class as u8)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    log::start(&cli.common, cli.log_format());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::of(Class::Internal))?;
    let common = cli.common;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Up(up) => up.run(common).await,
            Command::Submit(submit) => submit.run(common).await,
            Command::Chat(chat) => chat.run(common).await,
            Command::Plan(plan) => plan.run(common).await,
            Command::Find(find) => find.run(common).await,
            Command::Peers(peers) => peers.run(common).await,
            Command::Jobs(jobs) => jobs.run(common).await,
            Command::Top(top) => top.run(common).await,
            Command::Cancel(cancel) => cancel.run(common).await,
            Command::Approve(approve) => approve.run(common).await,
            Command::Market(market) => market.run(common).await,
            Command::Keys(keys) => keys.run(common).await,
            Command::Mcp(mcp) => mcp.run(common).await,
            Command::Models(models) => models.run(common).await,
            Command::Bench(bench) => bench.run(common).await,
            Command::Receipts(receipts) => receipts.run(&common),
            Command::Verify(verify) => verify.run(common).await,
            Command::Doctor(doctor) => doctor.run(common).await,
            Command::Demo(demo) => demo.run(common).await,
        }
    });
    // Blocking work that nobody waits for any more (a model being read) must not hold up the exit.
    runtime.shutdown_background();
    result
}

impl Cli {
    /// How the log is written: as typed, else as the file of a peer says, else as the answers are.
    fn log_format(&self) -> LogFormat {
        let usual = if self.common.json { LogFormat::Json } else { LogFormat::Text };
        let file = || match &self.command {
            Command::Up(up) => up.log_format(&self.common),
            _ => None,
        };
        self.common.log_format.or_else(file).unwrap_or(usual)
    }
}

impl Common {
    fn data_dir(&self) -> Result<DataDir, Failure> {
        Ok(DataDir::locate(self.data_dir.clone())?)
    }

    /// Which mesh: as `up` in this folder would have it.
    fn network(&self) -> Result<Network, Failure> {
        if let Some(network) = &self.network {
            return Ok(network.clone());
        }
        let settings = Settings::read(&config::default_file(self.data_dir()?.path()), false)?;
        Ok(settings.network.unwrap_or_default())
    }

    /// Where traces go: nowhere unless somebody said.
    fn traces(&self) -> Result<Traces, Failure> {
        Traces::named(self.otlp.as_deref())
    }
}
