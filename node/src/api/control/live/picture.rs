//! All that people watch, at one moment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::Timestamp;
use tokio::task::spawn_blocking;

use super::Update;
use super::changes::Changes;
use crate::api::control::models::{Pull, Pulls};
use crate::api::control::plans::{self, RunView, Stamp};
use crate::api::control::{MarketView, PeerView, Status, peer_views, status_of};
use crate::handle::{NodeHandle, Unavailable};
use crate::jobs::JobView;

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    status: Status,
    advice: Vec<String>,
    peers: BTreeMap<String, PeerView>,
    jobs: BTreeMap<String, JobView>,
    market: MarketView,
    plans: BTreeMap<String, RunView>,
    pulls: BTreeMap<String, Pull>,
}

impl Picture {
    /// How it is now.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(super) async fn take(node: &NodeHandle, pulls: &Pulls, runs: &mut Runs) -> Result<Self, Unavailable> {
        let mut status = status_of(node).await?;
        let advice = status.advice().into_iter().map(str::to_owned).collect();
        // They stand among the peers.
        status.connected.clear();
        let board = node.board().await?;
        let named = |view: JobView| (format!("{}.{}", view.job, view.since.0), view);
        Ok(Self {
            status,
            advice,
            peers: peer_views(node).await?.into_iter().map(|view| (view.peer.to_string(), view)).collect(),
            jobs: node.jobs().await?.into_iter().map(named).collect(),
            market: MarketView::of(&board),
            plans: runs.look().await,
            pulls: pulls.views(),
        })
    }

    /// What is other than in `told`.
    pub(super) fn since(&self, now: Timestamp, told: Option<&Self>) -> Update {
        let same = told.is_some_and(|told| aged(&told.status) == aged(&self.status));
        let (status, advice) = (self.status.clone(), self.advice.clone());
        Update {
            now,
            whole: told.is_none(),
            status: (!same).then_some(status),
            advice: (!same).then_some(advice),
            peers: Changes::between(told.map(|told| &told.peers), &self.peers),
            jobs: Changes::between(told.map(|told| &told.jobs), &self.jobs),
            market: told.is_none_or(|told| told.market != self.market).then(|| self.market.clone()),
            plans: Changes::between(told.map(|told| &told.plans), &self.plans),
            pulls: Changes::between(told.map(|told| &told.pulls), &self.pulls),
        }
    }
}

/// The status without what changes by itself.
fn aged(status: &Status) -> Status {
    let mut status = status.clone();
    status.dial_errors.iter_mut().for_each(|error| error.seconds_ago = 0);
    status
}

/// The runs of plans that are kept on disk, read again when their files have changed.
#[derive(Debug)]
pub(super) struct Runs {
    folder: Option<PathBuf>,
    known: BTreeMap<String, (Stamp, RunView)>,
}

impl Runs {
    /// Those beside a folder of receipts.
    pub(super) fn of(receipts: Option<&Path>) -> Self {
        Self { folder: receipts.and_then(plans::folder_beside), known: BTreeMap::new() }
    }

    async fn look(&mut self) -> BTreeMap<String, RunView> {
        if let Some(folder) = self.folder.clone() {
            let known = std::mem::take(&mut self.known);
            // A task that panicked has nothing to show; the next look begins anew.
            self.known = spawn_blocking(move || plans::look(&folder, known)).await.unwrap_or_default();
        }
        self.known.iter().map(|(run, (_, view))| (run.clone(), view.clone())).collect()
    }
}
