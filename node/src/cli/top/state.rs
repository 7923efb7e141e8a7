//! What is known of the running peer, which part of it is shown, and what keys do.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use protocol::JobId;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::api::control::live::Update;
use crate::api::control::{MarketView, PeerView, Status};
use crate::cli::jobs::tree;
use crate::jobs::{JobView, State as Standing};

/// All that is shown.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) peers: BTreeMap<String, PeerView>,
    pub(super) jobs: BTreeMap<String, JobView>,
    pub(super) market: MarketView,
    pub(super) status: Option<Status>,
    /// Which part.
    pub(super) tab: Tab,
    /// The row of it that is chosen.
    pub(super) row: usize,
    /// The job that is about to be cancelled, once somebody says yes.
    pub(super) doubt: Option<JobId>,
    /// What happened last.
    pub(super) said: String,
}

/// The parts, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tab {
    #[default]
    Jobs,
    Peers,
    Market,
    Balances,
}

impl Tab {
    pub(super) const ALL: [Self; 4] = [Self::Jobs, Self::Peers, Self::Market, Self::Balances];

    fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|tab| *tab == self).unwrap_or_default();
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// What a key asks of the peer, or of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Approve(JobId),
    Cancel(JobId),
    Leave,
    Nothing,
}

impl State {
    pub(super) fn apply(&mut self, update: Update) {
        if update.whole {
            self.peers.clear();
            self.jobs.clear();
        }
        update.peers.apply(&mut self.peers);
        update.jobs.apply(&mut self.jobs);
        self.status = update.status.or_else(|| self.status.take());
        if let Some(market) = update.market {
            self.market = market;
        }
        self.row = self.row.min(self.rows().saturating_sub(1));
    }

    pub(super) fn say(&mut self, what: String) {
        self.said = what;
    }

    pub(super) fn on_key(&mut self, key: Option<KeyEvent>) -> Wish {
        let Some(key) = key else { return Wish::Nothing };
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Wish::Leave;
        }
        if let Some(job) = self.doubt.take() {
            return if key.code == KeyCode::Char('y') { Wish::Cancel(job) } else { Wish::Nothing };
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Leave,
            KeyCode::Tab | KeyCode::Right => self.show(self.tab.step(1)),
            KeyCode::BackTab | KeyCode::Left => self.show(self.tab.step(Tab::ALL.len() - 1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(self.row.saturating_add(1)),
            KeyCode::Up | KeyCode::Char('k') => self.choose(self.row.saturating_sub(1)),
            KeyCode::PageDown => self.choose(self.row.saturating_add(PAGE)),
            KeyCode::PageUp => self.choose(self.row.saturating_sub(PAGE)),
            KeyCode::Home => self.choose(0),
            KeyCode::End => self.choose(usize::MAX),
            KeyCode::Char('c') => self.doubt = self.chosen(|job| job.ended.is_none()),
            KeyCode::Char('a') => {
                let held = self.chosen(|job| matches!(job.state, Standing::Awaiting(_)));
                return held.map_or(Wish::Nothing, Wish::Approve);
            }
            _ => {}
        }
        Wish::Nothing
    }

    /// Jobs as a tree: what needs an answer first, then what is under way, then the latest.
    pub(super) fn listed(&self) -> Vec<(usize, &JobView)> {
        let mut jobs: Vec<_> = self.jobs.values().collect();
        jobs.sort_by_key(|job| {
            let held = matches!(job.state, Standing::Awaiting(_));
            (!held, job.ended.is_some(), Reverse(job.since))
        });
        tree(jobs)
    }

    /// Peers: who is connected first, the nearest first.
    pub(super) fn met(&self) -> Vec<&PeerView> {
        let mut peers: Vec<_> = self.peers.values().collect();
        peers.sort_by(|a, b| {
            let far = |peer: &PeerView| peer.rtt_ms.unwrap_or(f64::MAX);
            b.connected.cmp(&a.connected).then(far(a).total_cmp(&far(b)))
        });
        peers
    }

    /// Peers with whom something is or was owed.
    pub(super) fn owed(&self) -> Vec<&PeerView> {
        let mut peers: Vec<_> = self.peers.values().collect();
        peers.retain(|peer| peer.account != protocol::ledger::Account::default());
        peers.sort_by_key(|peer| Reverse(peer.account.earned.0.saturating_add(peer.account.spent.0)));
        peers
    }

    fn rows(&self) -> usize {
        match self.tab {
            Tab::Jobs => self.jobs.len(),
            Tab::Peers => self.peers.len(),
            Tab::Market => self.market.asked.len() + self.market.offered.len(),
            Tab::Balances => self.owed().len(),
        }
    }

    fn show(&mut self, tab: Tab) {
        (self.tab, self.row) = (tab, 0);
        self.said.clear();
    }

    fn choose(&mut self, row: usize) {
        self.row = row.min(self.rows().saturating_sub(1));
    }

    /// The chosen job, where it is one of which that holds.
    fn chosen(&self, holds: impl Fn(&JobView) -> bool) -> Option<JobId> {
        let listed = self.listed();
        let (_, job) = listed.get(self.row).filter(|_| self.tab == Tab::Jobs)?;
        holds(job).then_some(job.job)
    }
}

/// Rows of a page, for the keys that turn it.
const PAGE: usize = 10;
