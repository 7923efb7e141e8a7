//! `run_plan`: many jobs and the rules that join their answers; or what they would cost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use protocol::plan::{Checked, Estimate, Execution, Totals};
use protocol::{Capability, Plan, Price};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::LONGEST;
use super::answer::Answer;
use super::catalog;
use super::guest::Guest;
use super::progress::Progress;
use crate::clock;
use crate::datadir::DataDir;
use crate::failure::{Class, Failure};
use crate::plans::journal::{Journal, Order};
use crate::plans::{Driver, PlanUpdate, lowest_price};

/// The plan, and what it is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    plan: Value,
    #[serde(default)]
    inputs: BTreeMap<String, Value>,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn run(guest: &Guest, asked: Asked, progress: &mut Progress) -> Result<Answer, Failure> {
    let plan: Plan = catalog::read(json!({ "plan": asked.plan })).map(|Inside { plan }| plan)?;
    let checked = plan.check()?;
    let estimate = estimate(guest, &checked).await?;
    let mut value = json!({
        "goal": checked.plan().goal,
        "nodes": checked.order(),
        "output_node": checked.output(),
        "ran": !asked.dry_run,
    });
    if asked.dry_run {
        return Ok(dry(&checked, &estimate, value));
    }
    checked.afford(&estimate)?;
    let (order, nodes) = (checked.plan().clone(), checked.order().len());
    let budget = order.limits.budget;
    // Before anything is written: inputs that are missing are no run.
    let execution = Execution::begin(clock::now(), checked, asked.inputs.clone(), Vec::new())?;
    let journal = journal(guest, Order { plan: order, inputs: asked.inputs })?;
    let run = journal.as_ref().map(|journal| journal.run().to_owned());
    let driver = Driver::new(execution, budget, journal, Arc::clone(&guest.mesh) as _);
    let mut driver = driver.with_traces(&guest.traces, guest.trace);
    let followed = timeout(LONGEST, follow(guest, &mut driver, Course::of(nodes), progress)).await;
    let late = |_| Failure::new(Class::Job, format!("not done within {} minutes", LONGEST.as_secs() / 60));
    let ended = followed.unwrap_or_else(|elapsed| Err(late(elapsed)));
    let Ended { output, cost, receipts, skipped, substituted } =
        ended.map_err(|failure| again(failure, run.as_deref()))?;
    let results = [
        ("output", json!(output)),
        ("cost", json!(cost)),
        ("receipts", json!(receipts)),
        ("skipped", json!(skipped)),
        ("substituted", json!(substituted)),
    ];
    for (name, one) in results {
        value[name] = one;
    }
    if let Some(run) = run {
        value["run"] = json!(run);
    }
    let note = format!("{} jobs have receipts; all together cost {cost}", receipts.len());
    Ok(Answer { value, texts: vec![output, note], receipts })
}

/// So that mistakes are told by their place in the arguments.
#[derive(Deserialize)]
struct Inside {
    plan: Plan,
}

/// What a plan can cost, at the lowest prices that the mesh knows for what it needs.
async fn estimate(guest: &Guest, checked: &Checked) -> Result<Estimate, Failure> {
    let nodes = checked.plan().nodes.values();
    let needed: BTreeSet<&Capability> = nodes.filter_map(|node| node.work.capability()).collect();
    let mut prices: BTreeMap<&Capability, Price> = BTreeMap::new();
    for capability in needed {
        let found = guest.mesh.find(Some(capability.clone())).await?;
        prices.extend(lowest_price(capability, &found).map(|price| (capability, price)));
    }
    Ok(checked.estimate(|capability| prices.get(capability).copied()))
}

/// What would be, without its being.
fn dry(checked: &Checked, estimate: &Estimate, mut value: Value) -> Answer {
    let totals = |totals: &Totals| {
        let (read, written) = (totals.prompt_tokens, totals.completion_tokens);
        json!({ "jobs": totals.jobs, "prompt_tokens": read, "completion_tokens": written, "cost": totals.cost })
    };
    let (budget, problem) = (checked.plan().limits.budget, checked.afford(estimate).err());
    value["least"] = totals(&estimate.least);
    value["most"] = totals(&estimate.most);
    value["budget"] = json!(budget);
    value["affordable"] = json!(problem.is_none());
    let mut text = format!(
        "no mistakes; {} to {} jobs, {} to {}, with a budget of {budget}",
        estimate.least.jobs, estimate.most.jobs, estimate.least.cost, estimate.most.cost
    );
    if let Some(problem) = problem {
        text += &format!("; it would not begin: {problem}");
        value["problem"] = json!(problem.to_string());
    }
    Answer::new(value, text)
}

/// Where the run of the peer's owner is kept, so that it can go on when it was cut.
fn journal(guest: &Guest, order: Order) -> Result<Option<Journal>, Failure> {
    let Some(folder) = guest.receipts().ok().filter(|_| guest.is_owner()).and_then(|folder| folder.parent())
    else {
        return Ok(None);
    };
    let dir = DataDir::locate(Some(PathBuf::from(folder)))?;
    // Waits for the disk; other tasks of this thread need not.
    Ok(Some(block_in_place(|| Journal::create(&dir, &order))?))
}

/// A failure, and how the run goes on.
fn again(failure: Failure, run: Option<&str>) -> Failure {
    let next = match run {
        Some(run) => format!("; what was answered is kept: go on with `llamesh plan run --resume {run}`"),
        None => "; mend the plan, or try again".to_owned(),
    };
    Failure { message: failure.message + &next, ..failure }
}

/// A plan that is done.
struct Ended {
    output: String,
    cost: protocol::Credits,
    receipts: Vec<crypto::Digest>,
    skipped: u32,
    substituted: u32,
}

/// How far each node is.
#[derive(Debug)]
struct Course {
    nodes: usize,
    settled: BTreeSet<String>,
    running: BTreeMap<String, f64>,
    skipped: u32,
    substituted: u32,
}

impl Course {
    fn of(nodes: usize) -> Self {
        Self { nodes, settled: BTreeSet::new(), running: BTreeMap::new(), skipped: 0, substituted: 0 }
    }

    /// Nodes that are done, and parts of nodes.
    fn done(&self) -> f64 {
        self.settled.len() as f64 + self.running.values().sum::<f64>()
    }
}

/// Drives a plan to its end. Dropping it cancels the jobs.
async fn follow(
    guest: &Guest,
    driver: &mut Driver,
    mut course: Course,
    progress: &mut Progress,
) -> Result<Ended, Failure> {
    let nodes = course.nodes as f64;
    while let Some(update) = driver.next().await? {
        match update {
            PlanUpdate::Node { node, settled: true, skipped, substituted, .. } => {
                (course.skipped, course.substituted) =
                    (course.skipped + skipped, course.substituted + substituted);
                course.running.remove(&node);
                course.settled.insert(node.clone());
                progress.tell_now(course.done(), Some(nodes), format!("{node}: done")).await;
            }
            PlanUpdate::Node { node, done: Some(done), of: Some(of), .. } => {
                let part = f64::from(done) / f64::from(of.max(1)).max(f64::from(done) + 1.0);
                course.running.insert(node.clone(), part);
                progress.tell(course.done(), Some(nodes), format!("{node}: {done} of {of}")).await;
            }
            PlanUpdate::JobAwaiting { job, rule, .. } => {
                let next = format!("a job needs approval ({rule}): `llamesh approve {job}`");
                progress.tell(course.done(), Some(nodes), next).await;
            }
            PlanUpdate::Done { output, cost, receipts } => {
                let Course { skipped, substituted, .. } = course;
                return Ok(Ended { output, cost, receipts, skipped, substituted });
            }
            PlanUpdate::Failed { node, message } => {
                let place = node.map_or_else(|| "the plan".to_owned(), |node| format!("node `{node}`"));
                let why = guest.failure("", message).message;
                return Err(Failure::new(Class::Job, format!("{place}: {why}")));
            }
            PlanUpdate::Cancelled => break,
            PlanUpdate::JobDone { .. } | PlanUpdate::JobStarted { .. } | PlanUpdate::Node { .. } => {}
        }
    }
    Err(Failure::new(Class::Job, "cancelled"))
}
