//! What is shown of a plan: its nodes, its estimate, and the course of a run.
//!
//! The answer is data and goes to stdout; everything else is talk. With `--json` each update is a line of data.

use crypto::PeerId;
use protocol::plan::{Checked, Estimate, TaskId, Totals};
use serde_json::json;

use crate::cli::approval::Approver;
use crate::cli::print;
use crate::failure::{Class, Failure};
use crate::plans::PlanUpdate;

/// Where a run is shown.
#[derive(Debug)]
pub(super) struct Screen {
    json: bool,
    run: String,
    approver: Approver,
}

/// A plan without mistakes.
pub(super) fn checked(checked: &Checked, as_json: bool) -> Result<(), Failure> {
    let plan = checked.plan();
    if as_json {
        let (goal, nodes, output) = (&plan.goal, checked.order(), checked.output());
        return print::json(&json!({ "ok": true, "goal": goal, "nodes": nodes, "output": output }));
    }
    for name in checked.order() {
        let waits: Vec<_> = checked.waits(name).collect();
        let after = if waits.is_empty() { String::new() } else { format!("  after {}", waits.join(", ")) };
        print::line(&format!("{name}{after}"))?;
    }
    print::say(&format!("no mistakes; the answer is `{}`", checked.output()));
    Ok(())
}

/// What a plan can cost.
pub(super) fn estimate(checked: &Checked, estimate: &Estimate, as_json: bool) -> Result<(), Failure> {
    let budget = checked.plan().limits.budget;
    if as_json {
        let totals = |totals: &Totals| {
            json!({ "jobs": totals.jobs, "prompt_tokens": totals.prompt_tokens,
                    "completion_tokens": totals.completion_tokens, "cost": totals.cost })
        };
        let (least, most) = (totals(&estimate.least), totals(&estimate.most));
        return print::json(&json!({ "event": "estimate", "least": least, "most": most, "budget": budget,
                                    "unpriced": estimate.unpriced }));
    }
    rows(estimate).iter().try_for_each(|row| print::line(row))?;
    print::line(&format!("budget  {budget}"))
}

/// The same as lines for people.
pub(super) fn rows(estimate: &Estimate) -> [String; 2] {
    [("least", &estimate.least), ("most", &estimate.most)].map(|(name, totals)| {
        let (read, written) = (totals.prompt_tokens, totals.completion_tokens);
        format!("{name:<6}  {} jobs, {read} + {written} tokens, {}", totals.jobs, totals.cost)
    })
}

impl Screen {
    /// Says under which name the run is kept.
    pub(super) fn new(run: &str, approver: Approver, json: bool) -> Result<Self, Failure> {
        if json {
            print::json(&json!({ "event": "run", "run": run }))?;
        } else {
            print::say(&format!("run {run}"));
        }
        Ok(Self { json, run: run.to_owned(), approver })
    }

    /// Shows an update.
    pub(super) fn show(&self, update: PlanUpdate) -> Result<(), Failure> {
        if let PlanUpdate::JobAwaiting { task, job, rule } = &update {
            self.approver.ask(*job, rule, &name(task));
        }
        if self.json {
            return print::json(&update);
        }
        match update {
            PlanUpdate::Done { output, cost, receipts } => {
                print::line(&print::plain(&output))?;
                print::say(&format!("{cost}, {} receipts", receipts.len()));
            }
            PlanUpdate::JobDone { task, provider, problem, spent, left, .. } => {
                let end = problem.map_or_else(|| "done".to_owned(), |why| print::plain(&why));
                let money = format!("{spent} spent, {left} left");
                print::say(&format!("{}: {end}{} ({money})", name(&task), by(provider)));
            }
            PlanUpdate::JobStarted { task, provider, model } => {
                let model = model.map(|model| format!(" with {}", print::plain(&model))).unwrap_or_default();
                print::say(&format!("{}: {} answers{model}", name(&task), provider.short()));
            }
            PlanUpdate::Node { node, done: Some(done), of: Some(of), .. } => {
                print::say(&format!("{node}: {done} of {of}"));
            }
            PlanUpdate::Node { node, skipped, substituted, .. } => {
                let mut said = format!("{node}: settled");
                for (count, what) in [(skipped, "skipped"), (substituted, "substituted")] {
                    if count > 0 {
                        said += &format!(", {count} {what}");
                    }
                }
                print::say(&said);
            }
            PlanUpdate::Cancelled | PlanUpdate::Failed { .. } | PlanUpdate::JobAwaiting { .. } => {}
        }
        Ok(())
    }

    /// The plan has failed.
    pub(super) fn failed(&self, node: Option<String>, why: &str) -> Failure {
        let place = node.map_or_else(|| "the plan".to_owned(), |node| format!("node `{node}`"));
        Failure::new(Class::Job, format!("{place}: {why}; {}", self.next_step()))
    }

    /// The plan was taken back.
    pub(super) fn cancelled(&self) -> Failure {
        Failure::new(Class::Job, format!("cancelled; {}", self.next_step()))
    }

    fn next_step(&self) -> String {
        format!("go on with `llamesh plan run --resume {}`", self.run)
    }
}

/// A job, as people read it.
fn name(task: &TaskId) -> String {
    let TaskId { node, item, choice, attempt } = task;
    let mut name = node.clone();
    if (*item, *choice) != (0, 0) {
        name += &format!("[{item}.{choice}]");
    }
    if *attempt > 0 {
        name += &format!(", try {}", attempt + 1);
    }
    name
}

fn by(provider: Option<PeerId>) -> String {
    provider.map(|provider| format!(" by {}", provider.short())).unwrap_or_default()
}
