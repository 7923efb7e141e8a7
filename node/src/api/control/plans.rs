//! `/control/plans`: the runs of plans as their journals tell them. Whoever runs a plan drives it; here it is only watched.
//!
//! A journal is read without holding it, so nobody who drives it is disturbed. What a run has come to follows from its
//! outcomes alone ([`Execution`] is begun with them, and asked what it would do next).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::routing::get;
use axum::{Json, Router};
use crypto::Digest;
use protocol::plan::{Entry, Execution, NodeState, Outcome, Output};
use protocol::{Credits, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::Api;
use crate::clock;
use crate::plans::journal::{self, Order};

/// Runs that are shown, the latest: as many as a person looks through.
const MAX_RUNS: usize = 32;
/// Longest journal that is read, in bytes. A longer one is named, and no more.
const MAX_FILE: u64 = 16 << 20;
/// Receipts and answers are shown up to so many and so long: a page is no archive.
const MAX_OUTPUT: usize = 4 << 10;

/// When and how long a file was.
pub(super) type Stamp = (u64, u64);

/// The paths.
pub(super) fn router() -> Router {
    Router::new().route("/control/plans", get(list))
}

/// A run of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Its name.
    pub run: String,
    /// What it is for.
    pub goal: String,
    /// Where it stands.
    pub state: RunState,
    /// Its nodes, by name.
    pub nodes: BTreeMap<String, NodeView>,
    /// Jobs with an outcome.
    pub outcomes: u32,
    /// Of these, failed ones.
    pub failed: u32,
    /// What they cost.
    pub spent: Credits,
    /// What all may cost.
    pub budget: Credits,
    /// The beginning of its answer, or why there is none.
    pub output: Option<String>,
    /// Receipts of its jobs.
    pub receipts: Vec<Digest>,
    /// When it last got on.
    pub touched: Timestamp,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It has its answer.
    Done,
    /// It cannot get one.
    Failed,
    /// It is under way, or was left there.
    #[default]
    Open,
    /// Its file cannot be read.
    Unreadable,
}

/// A node of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Jobs that have a value.
    pub done: u32,
    /// All its jobs; of a reduce tree those of one level. Zero before it begins, and where it has none.
    pub of: u32,
    /// Whether it has its value.
    pub settled: bool,
}

async fn list(api: Api) -> Json<Vec<RunView>> {
    let folder = api.receipts.as_deref().and_then(folder_beside);
    let read = spawn_blocking(move || folder.map(|folder| look(&folder, BTreeMap::new())));
    let runs = read.await.ok().flatten().unwrap_or_default();
    let mut views: Vec<_> = runs.into_values().map(|(_, view)| view).collect();
    views.sort_by_key(|view| Reverse(view.touched));
    Json(views)
}

/// Where a peer with this folder of receipts keeps the runs of plans.
pub(super) fn folder_beside(receipts: &Path) -> Option<PathBuf> {
    receipts.parent().map(|folder| folder.join("plans"))
}

/// The latest runs of a folder. Those that are as they were `known` to be are not read again.
pub(super) fn look(
    folder: &Path,
    mut known: BTreeMap<String, (Stamp, RunView)>,
) -> BTreeMap<String, (Stamp, RunView)> {
    // A folder that is not there holds none.
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let path = journal::file_of(&entry.path());
            Some((stamp(&path)?, entry.file_name().into_string().ok()?, path))
        })
        .collect();
    files.sort_unstable_by_key(|(stamp, ..)| Reverse(*stamp));
    files.truncate(MAX_RUNS);
    let read = |(stamp, run, path): (Stamp, String, PathBuf)| {
        let view = match known.remove(&run) {
            Some((then, view)) if then == stamp => view,
            _ => view(&run, &path, stamp),
        };
        (run, (stamp, view))
    };
    files.into_iter().map(read).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    let at = found.modified().unwrap_or(SystemTime::UNIX_EPOCH).duration_since(UNIX_EPOCH);
    Some((u64::try_from(at.unwrap_or_default().as_millis()).unwrap_or(u64::MAX), found.len()))
}

fn view(run: &str, path: &Path, (touched, length): Stamp) -> RunView {
    let empty = RunView { run: run.to_owned(), touched: Timestamp(touched), ..RunView::default() };
    let unread = |why: String| RunView { state: RunState::Unreadable, output: Some(why), ..empty.clone() };
    if length > MAX_FILE {
        return unread(format!("its journal of {length} bytes is too long to be shown"));
    }
    match journal::peek(path) {
        Ok((order, entries)) => of(empty.clone(), order, entries),
        Err(error) => unread(error.to_string()),
    }
}

/// What a plan and its outcomes come to.
fn of(empty: RunView, order: Order, entries: Vec<Entry>) -> RunView {
    let failed = entries.iter().filter(|entry| matches!(entry.outcome, Outcome::Failed { .. })).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut view = RunView {
        goal: cut(&order.plan.goal),
        nodes: order.plan.nodes.keys().map(|name| (name.clone(), NodeView::default())).collect(),
        outcomes: count(entries.len()),
        failed: count(failed),
        budget: order.plan.limits.budget,
        receipts: entries.iter().filter_map(|entry| entry.receipt).take(MAX_OUTPUT).collect(),
        ..empty
    };
    let begun = order.plan.check().map_err(|error| error.to_string()).and_then(|checked| {
        Execution::begin(clock::now(), checked, order.inputs, entries).map_err(|error| error.to_string())
    });
    match begun {
        Ok(execution) => follow(&mut view, execution),
        Err(why) => (view.state, view.output) = (RunState::Unreadable, Some(cut(&why))),
    }
    view
}

/// What it would do next tells how far it is.
fn follow(view: &mut RunView, mut execution: Execution) {
    view.spent = execution.spent();
    while let Some(output) = execution.poll_output() {
        match output {
            Output::Changed { node, state } => {
                let node = view.nodes.entry(node).or_default();
                match state {
                    NodeState::Running { done, of } => (node.done, node.of) = (done, of),
                    NodeState::Settled { .. } => (node.done, node.settled) = (node.of, true),
                }
            }
            Output::Done(answer) => (view.state, view.output) = (RunState::Done, Some(cut(&answer.output))),
            Output::Failed { why, .. } => (view.state, view.output) = (RunState::Failed, Some(cut(&why))),
            Output::Cancel { .. } | Output::Cancelled | Output::Record(_) | Output::Submit(_) => {}
        }
    }
}

fn cut(text: &str) -> String {
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= MAX_OUTPUT);
    end.map_or_else(|| text.to_owned(), |end| format!("{}…", &text[..end]))
}
