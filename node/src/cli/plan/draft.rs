//! `llamesh plan "GOAL"`: an agent writes the plan, a person looks at it, and only then it runs.

use clap::Args;
use futures::StreamExt;
use protocol::Capability;
use protocol::plan::{Checked, Estimate};
use serde_json::{Value, json};

use super::{begin, estimate, input, show};
use crate::cli::approval::{Approval, Approver, confirmed};
use crate::cli::session::{Peer, Through};
use crate::cli::{Common, print};
use crate::failure::{Class, Failure};
use crate::plans::planner::{self, Planner};
use crate::request::{JobRequest, JobUpdate};

#[derive(Debug, Args)]
pub(super) struct Draft {
    /// What is to be achieved: a planner writes a plan for it
    #[arg(required = true)]
    goal: Option<String>,
    /// Run the plan without asking
    #[arg(long, short)]
    yes: bool,
    /// Let this model plan: a name or a digest [default: who offers `plan`, or the largest model]
    #[arg(long, value_name = "NAME|DIGEST")]
    planner: Option<String>,
    /// The most that the planning may cost, in micro-credits [default: 0]
    #[arg(long, value_name = "N")]
    planner_budget: Option<u64>,
    /// An input, as for `plan run` (repeatable)
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = input)]
    inputs: Vec<(String, Value)>,
    #[command(flatten)]
    approval: Approval,
    #[command(flatten)]
    through: Through,
}

impl Draft {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let peer = self.through.reach(&common).await?;
        let request = self.question(&peer).await?;
        let plan = ask(&peer, request).await?;
        let checked = parse(&plan)?;
        let estimate = estimate(&peer, &checked).await?;
        present(&checked, &estimate, common.json)?;
        checked.afford(&estimate)?;
        if !self.yes && !confirmed("Run it? [y/N]") {
            return peer.leave().await;
        }
        let order = (checked, self.inputs.into_iter().collect());
        begin(peer, order, self.approval, &estimate, &common).await
    }

    async fn question(&self, peer: &Peer) -> Result<JobRequest, Failure> {
        // By name as well: a search for everything tells only of peers that are known already.
        let mut found = peer.find(Some(&planner::capability())).await?;
        found.extend(peer.find(Some(&Capability::text_generation())).await?);
        found.extend(peer.find(None).await?);
        let offers = found.iter().flat_map(|found| &found.profile.agents);
        let mut offered: Vec<Capability> = offers.map(|offer| offer.capability.clone()).collect();
        offered.sort_unstable();
        offered.dedup();
        let goal = self.goal.as_deref().unwrap_or_default();
        let planner = match &self.planner {
            // Whatever was asked for is named in the request below.
            Some(_) => Planner::Agent,
            None => planner::choose(found.iter().map(|found| &found.profile)).map_err(|seen| none(&seen))?,
        };
        let mut request = planner::question(goal, &planner, &offered)?;
        request.budget = self.planner_budget;
        if let Some(model) = &self.planner {
            (request.capability, request.model) = (None, Some(model.clone()));
        }
        Ok(request)
    }
}

fn none(seen: &str) -> Failure {
    let next = "name a model with --planner MODEL, or write the plan by hand and run it with `llamesh plan run FILE`";
    let why = format!(
        "nobody offers `plan`, and no model is known to have the 1.5 billion parameters that planning needs \
         (on offer: {seen}): {next}"
    );
    Failure::new(Class::NoProvider, why)
}

/// The planner's whole answer.
async fn ask(peer: &Peer, request: JobRequest) -> Result<String, Failure> {
    let mut updates = peer.jobs().stream(request);
    while let Some(update) = updates.next().await {
        match update {
            JobUpdate::Started { provider, model, .. } => {
                let model = model.map(|model| format!(" with {}", print::plain(&model))).unwrap_or_default();
                print::say(&format!("… {} plans{model}", provider.short()));
            }
            JobUpdate::Done { text, .. } => return Ok(text),
            JobUpdate::Failed { code, message, .. } => {
                return Err(Failure::new(Class::of_job(&code), message));
            }
            JobUpdate::Awaiting { job, rule } => Approver::of(peer).ask(job, &rule, "planning"),
            JobUpdate::Bid { .. } | JobUpdate::Progress { .. } | JobUpdate::Token { .. } => {}
        }
    }
    Err(Failure::new(Class::Job, "the planner was lost before the plan was there; try again"))
}

/// A model wrote it, so every mistake is possible.
fn parse(text: &str) -> Result<Checked, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        let next = "ask again in other words, or mend it by hand and run it with `llamesh plan run FILE`";
        Failure::new(Class::Job, format!("the planner's plan cannot run: {why}\n{next}\n{text}"))
    };
    let plan: protocol::Plan = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    plan.check().map_err(|error| wrong(&error))
}

/// Shows a plan as the file that it could be, and what it can cost.
fn present(checked: &Checked, estimate: &Estimate, as_json: bool) -> Result<(), Failure> {
    if as_json {
        print::json(&json!({ "event": "plan", "plan": checked.plan() }))?;
        return show::estimate(checked, estimate, true);
    }
    let text = toml::to_string_pretty(checked.plan()).map_err(Failure::of(Class::Internal))?;
    print::line(&print::plain(&text))?;
    show::rows(estimate).iter().for_each(|row| print::say(row));
    Ok(())
}
