//! `llamesh jobs`: what this peer ordered and what it does for others, as a tree; `llamesh cancel`: the end of one;
//! `llamesh approve`: the beginning of one that is held.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use protocol::JobId;

use super::session::{Client, Peer, Through};
use super::{Common, print};
use crate::failure::{Class, Failure};
use crate::jobs::{JobView, State};

/// How often `--watch` looks again.
const INTERVAL: Duration = Duration::from_millis(500);

/// Show the jobs of the running peer: its own and those it does for others
#[derive(Debug, Args)]
pub(super) struct Jobs {
    /// Show them again and again, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Also those that are over
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    through: Through,
}

/// Cancel a job, and everything that is done on its behalf
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// The job's name, or its beginning
    job: String,
    #[command(flatten)]
    through: Through,
}

/// Let a job begin that waits for approval
#[derive(Debug, Args)]
pub(super) struct Approve {
    /// The job's name, or its beginning
    job: String,
    #[command(flatten)]
    through: Through,
}

impl Jobs {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let client = running(&self.through, &common).await?;
        if !self.watch {
            return self.show(&common, list(&client).await?);
        }
        loop {
            let jobs = list(&client).await?;
            if !common.json && std::io::stdout().is_terminal() {
                // Clears the screen.
                print::write("\x1b[2J\x1b[H")?;
            }
            self.show(&common, jobs)?;
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }

    fn show(&self, common: &Common, mut jobs: Vec<JobView>) -> Result<(), Failure> {
        jobs.retain(|job| self.all || job.ended.is_none());
        if common.json {
            return print::json(&serde_json::json!({ "jobs": jobs }));
        }
        if jobs.is_empty() {
            print::say("no job is under way; --all shows those that are over");
        }
        tree(&jobs).into_iter().try_for_each(|placed| print::line(&line(placed)))
    }
}

impl Cancel {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let client = running(&self.through, &common).await?;
        let job = under_way(&client, &self.job).await?;
        client.delete(&format!("/control/jobs/{job}")).await?;
        if common.json {
            return print::json(&serde_json::json!({ "cancelled": job }));
        }
        print::say(&format!("cancelled {job}, with everything on its behalf"));
        Ok(())
    }
}

impl Approve {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let client = running(&self.through, &common).await?;
        let job = under_way(&client, &self.job).await?;
        client.act(&format!("/control/jobs/{job}/approve")).await?;
        if common.json {
            return print::json(&serde_json::json!({ "approved": job }));
        }
        print::say(&format!("approved {job}"));
        Ok(())
    }
}

/// The job whose name begins so.
async fn under_way(client: &Client, name: &str) -> Result<JobId, Failure> {
    let jobs = list(client).await?;
    let named = |job: &&JobView| job.ended.is_none() && job.job.to_string().starts_with(name);
    let mut found = jobs.iter().filter(named).map(|view| view.job);
    match (found.next(), found.next()) {
        (Some(job), None) => Ok(job),
        _ => {
            let next = "name exactly one that `llamesh jobs` shows";
            Err(Failure::new(Class::Usage, format!("`{name}` is no job under way here: {next}")))
        }
    }
}

/// Only a peer that runs has jobs to be seen.
pub(super) async fn running(through: &Through, common: &Common) -> Result<Client, Failure> {
    match through.reach(common).await? {
        Peer::Api(client) => Ok(client),
        own @ Peer::Own(_) => {
            own.leave().await?;
            let next = "leave out --bootstrap where one runs, or name its --api";
            Err(Failure::new(Class::Usage, format!("jobs are those of a peer that runs: {next}")))
        }
    }
}

async fn list(client: &Client) -> Result<Vec<JobView>, Failure> {
    client.get("/control/jobs").await
}

/// Parts below what they are parts of, each with how far below.
pub(super) fn tree<'a>(jobs: impl IntoIterator<Item = &'a JobView>) -> Vec<(usize, &'a JobView)> {
    let jobs: Vec<&JobView> = jobs.into_iter().collect();
    let known: BTreeSet<JobId> = jobs.iter().map(|job| job.job).collect();
    let (mut roots, mut parts) = (Vec::new(), BTreeMap::<JobId, Vec<&JobView>>::new());
    for job in jobs {
        match job.parent.filter(|parent| known.contains(parent)) {
            None => roots.push(job),
            Some(parent) if parent != job.job => parts.entry(parent).or_default().push(job),
            Some(_) => {}
        }
    }
    let mut placed = Vec::new();
    roots.into_iter().for_each(|root| branch(&mut parts, root, 0, &mut placed));
    placed
}

/// Each part is placed once, so a list in circles ends; a mandate nests at most so deep.
fn branch<'a>(
    parts: &mut BTreeMap<JobId, Vec<&'a JobView>>,
    job: &'a JobView,
    depth: usize,
    placed: &mut Vec<(usize, &'a JobView)>,
) {
    placed.push((depth, job));
    if depth < usize::from(u8::MAX) {
        for part in parts.remove(&job.job).unwrap_or_default() {
            branch(parts, part, depth + 1, placed);
        }
    }
}

fn line((depth, view): (usize, &JobView)) -> String {
    format!("{}{}", "  ".repeat(depth), row(view))
}

/// A job's state in words.
pub(super) fn standing(state: &State) -> String {
    match state {
        State::Awaiting(rule) => format!("needs approval ({rule})"),
        State::Running => "running".to_owned(),
        State::Seeking => "seeking".to_owned(),
        State::Done => "done".to_owned(),
        State::Failed(code) => print::plain(code),
        State::Over => "over".to_owned(),
    }
}

fn row(view: &JobView) -> String {
    let state = standing(&view.state);
    let by = view.provider.map_or_else(|| "nobody yet".to_owned(), |provider| provider.short());
    let takeovers = match view.takeovers {
        0 => String::new(),
        times => format!("  taken over {times}×"),
    };
    format!(
        "{}  {state:<9} {:<24} {:>6} tokens  by {by} for {}  {} of {}{takeovers}",
        &view.job.to_string()[..8],
        view.capability.as_str(),
        view.tokens,
        view.requester.short(),
        view.cost,
        view.budget,
    )
}

#[cfg(test)]
mod tests {
    use protocol::{Capability, Credits, Timestamp};

    use super::*;

    fn view(number: u8, parent: Option<u8>) -> JobView {
        let requester = crypto::SecretKey::from_seed(&[1; 32]).peer_id();
        JobView {
            job: JobId([number; 16]),
            parent: parent.map(|parent| JobId([parent; 16])),
            requester,
            provider: None,
            capability: Capability::text_generation(),
            state: State::Seeking,
            tokens: 0,
            takeovers: 0,
            budget: Credits(5),
            cost: Credits::ZERO,
            since: Timestamp(0),
            ended: None,
        }
    }

    #[test]
    fn parts_stand_below_what_they_are_parts_of() {
        let jobs = [view(3, Some(2)), view(1, None), view(2, Some(1)), view(4, Some(9))];
        let lines: Vec<_> = tree(&jobs).into_iter().map(line).collect();
        let begins: Vec<_> = lines.iter().map(|line| &line[..line.find("  s").unwrap_or(0)]).collect();
        assert_eq!(begins, ["01010101", "  02020202", "    03030303", "04040404"]);
    }

    #[test]
    fn a_list_in_circles_ends() {
        assert!(tree(&[view(1, Some(2)), view(2, Some(1))]).is_empty());
        assert!(tree(&[view(1, None), view(1, Some(1))]).len() < 1000);
    }
}
