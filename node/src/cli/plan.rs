//! `llamesh plan`: many jobs and the rules that join their answers, from a file or for a goal.
//!
//! The command drives the plan itself and submits each job through the peer that runs here, or one of its own, as
//! `llamesh submit` does; so the journal of a run lies in its data directory, and it can go on when it was cut.

mod draft;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use protocol::plan::{Checked, Estimate, Execution};
use protocol::{Capability, Price};
use serde_json::{Value, json};

use self::show::Screen;
use super::approval::{Approval, Approver};
use super::session::{Peer, Through};
use super::stop::Stop;
use super::{Common, print};
use crate::clock;
use crate::failure::{Class, Failure};
use crate::plans::journal::{self, Journal, Order};
use crate::plans::{Driver, PlanUpdate, lowest_price};

/// Longest plan or input read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Check a plan of many jobs, run it, or have one written for a goal.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Plan {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    draft: draft::Draft,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Find every mistake in a plan
    Check(Check),
    /// Run a plan
    Run(Run),
    /// List the runs that are kept, to go on with
    Runs,
}

#[derive(Debug, Args)]
struct Check {
    /// The plan: TOML, or JSON where the name ends with .json
    file: PathBuf,
}

#[derive(Debug, Args)]
struct Run {
    /// The plan: TOML, or JSON where the name ends with .json
    #[arg(required_unless_present = "resume")]
    file: Option<PathBuf>,
    /// An input: a text, JSON in brackets or braces, or @FILE for the text of a file (repeatable)
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = input)]
    inputs: Vec<(String, Value)>,
    /// Say what it would cost, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on with this run; what was answered is not asked again
    #[arg(long, value_name = "RUN", conflicts_with_all = ["file", "inputs", "dry_run"])]
    resume: Option<String>,
    #[command(flatten)]
    approval: Approval,
    #[command(flatten)]
    through: Through,
}

impl Plan {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        match self.action {
            None => self.draft.run(common).await,
            Some(Action::Check(check)) => show::checked(&checked(&check.file)?, common.json),
            Some(Action::Run(run)) => run.run(common).await,
            Some(Action::Runs) => runs(&common),
        }
    }
}

impl Run {
    async fn run(mut self, common: Common) -> Result<(), Failure> {
        if let Some(run) = self.resume.take() {
            return self.go_on(&run, &common).await;
        }
        let checked = checked(self.file.as_deref().unwrap_or_else(|| Path::new("")))?;
        let peer = self.through.reach(&common).await?;
        let estimate = estimate(&peer, &checked).await?;
        if self.dry_run {
            show::estimate(&checked, &estimate, common.json)?;
            peer.leave().await?;
            return Ok(checked.afford(&estimate)?);
        }
        let order = (checked, self.inputs.into_iter().collect());
        begin(peer, order, self.approval, &estimate, &common).await
    }

    async fn go_on(self, run: &str, common: &Common) -> Result<(), Failure> {
        let (journal, Order { plan, inputs }, entries) = Journal::resume(&common.data_dir()?, run)?;
        let budget = plan.limits.budget;
        let execution = Execution::begin(clock::now(), plan.check()?, inputs, entries)?;
        let peer = self.through.reach(common).await?;
        let screen = Screen::new(journal.run(), Approver::of(&peer), common.json)?;
        let driver = Driver::new(execution, budget, journal, peer.jobs()).with_approval(self.approval.rules);
        let driver = driver.with_traces(&peer.traces(common)?, None);
        follow(peer, driver, screen).await
    }
}

/// What is kept of runs: which plan, and how many of its jobs have an outcome.
fn runs(common: &Common) -> Result<(), Failure> {
    let dir = common.data_dir()?;
    let kept = journal::list(&dir).map_err(Failure::of(Class::Data))?;
    if kept.is_empty() && !common.json {
        print::say("no run is kept; `llamesh plan run FILE` begins one");
    }
    for run in kept {
        let (goal, outcomes, problem) = match Journal::resume(&dir, &run) {
            Ok((_, Order { plan, .. }, entries)) => (plan.goal, entries.len(), None),
            Err(error) => (String::new(), 0, Some(error.to_string())),
        };
        match (common.json, &problem) {
            (true, _) => {
                print::json(&json!({ "run": run, "goal": goal, "outcomes": outcomes, "problem": problem }))?
            }
            (false, Some(problem)) => print::line(&format!("{run}  ({problem})"))?,
            (false, None) => print::line(&format!("{run}  {outcomes:>5} outcomes  {}", print::plain(&goal)))?,
        }
    }
    Ok(())
}

/// Begins a run, unless its budget cannot pay it.
async fn begin(
    peer: Peer,
    (checked, inputs): (Checked, BTreeMap<String, Value>),
    approval: Approval,
    estimate: &Estimate,
    common: &Common,
) -> Result<(), Failure> {
    checked.afford(estimate)?;
    let plan = checked.plan().clone();
    let budget = plan.limits.budget;
    // Before anything is written: inputs that are missing are no run.
    let execution = Execution::begin(clock::now(), checked, inputs.clone(), Vec::new())?;
    let journal = Journal::create(&common.data_dir()?, &Order { plan, inputs })?;
    let screen = Screen::new(journal.run(), Approver::of(&peer), common.json)?;
    let driver = Driver::new(execution, budget, journal, peer.jobs()).with_approval(approval.rules);
    let driver = driver.with_traces(&peer.traces(common)?, None);
    follow(peer, driver, screen).await
}

/// Drives a run to its end, or until a signal takes it back.
async fn follow(peer: Peer, mut driver: Driver, screen: Screen) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let outcome = loop {
        let update = tokio::select! {
            update = driver.next() => update,
            () = stop.heard() => {
                driver.cancel();
                continue;
            }
        };
        match update {
            Ok(Some(PlanUpdate::Failed { node, message })) => break Err(screen.failed(node, &message)),
            Ok(Some(PlanUpdate::Cancelled)) => break Err(screen.cancelled()),
            Ok(Some(update)) => {
                if let Err(failure) = screen.show(update) {
                    break Err(failure);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    drop(driver);
    let left = peer.leave().await;
    outcome.and(left)
}

/// What a plan can cost, at the lowest prices that the mesh knows for what it needs.
async fn estimate(peer: &Peer, checked: &Checked) -> Result<Estimate, Failure> {
    let nodes = checked.plan().nodes.values();
    let needed: BTreeSet<&Capability> = nodes.filter_map(|node| node.work.capability()).collect();
    let mut prices: BTreeMap<&Capability, Price> = BTreeMap::new();
    for capability in needed {
        if let Some(price) = lowest_price(capability, &peer.find(Some(capability)).await?) {
            prices.insert(capability, price);
        }
    }
    Ok(checked.estimate(|capability| prices.get(capability).copied()))
}

/// The plan of a file, without mistakes.
fn checked(file: &Path) -> Result<Checked, Failure> {
    let wrong =
        |why: &dyn std::fmt::Display| Failure::new(Class::Request, format!("{}: {why}", file.display()));
    let text = read(file).map_err(|error| wrong(&error))?;
    let json = file.extension().is_some_and(|extension| extension == "json");
    let plan: protocol::Plan = match json {
        true => serde_json::from_str(&text).map_err(|error| wrong(&error))?,
        false => toml::from_str(&text).map_err(|error| wrong(&error))?,
    };
    Ok(plan.check()?)
}

/// An input as it is typed.
fn input(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("give it as NAME=VALUE")?;
    let value = if let Some(file) = value.strip_prefix('@') {
        Value::String(read(Path::new(file)).map_err(|error| format!("{file}: {error}"))?)
    } else if value.starts_with(['[', '{']) {
        serde_json::from_str(value).map_err(|error| format!("this is no JSON: {error}"))?
    } else {
        Value::String(value.to_owned())
    };
    Ok((name.to_owned(), value))
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("more than {MAX_FILE} bytes")));
    }
    Ok(text)
}
