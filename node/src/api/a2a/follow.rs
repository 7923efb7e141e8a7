//! Following a task to its end: what has changed since the last look, as the events of a stream.
//!
//! Nothing is queued for whoever follows. A reader that is slow finds more text in one piece, and states that came and went
//! meanwhile are not told.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::Office;
use super::store::Kept;

/// How the answer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// As it comes.
    Piecewise,
    /// In one piece, at its end.
    Whole,
}

/// Somebody who wants to hear of a task.
#[derive(Debug)]
pub(super) struct Follower {
    office: Arc<Office>,
    id: String,
    news: watch::Receiver<()>,
    telling: Telling,
    /// Bytes of the answer that were told.
    told: usize,
    /// The turn that was told.
    turn: u64,
    over: bool,
    ready: VecDeque<Value>,
}

impl Follower {
    /// From a task as it is now; what it is now is known.
    pub(super) fn new(office: &Arc<Office>, kept: &Kept, telling: Telling) -> Self {
        let told = if telling == Telling::Whole { 0 } else { kept.task.answer.len() };
        Self {
            office: Arc::clone(office),
            id: kept.task.id.clone(),
            news: kept.news(),
            telling,
            told,
            turn: kept.task.turn,
            over: kept.task.state.is_over(),
            ready: VecDeque::new(),
        }
    }

    /// The same with the task itself as its first event.
    pub(super) fn beginning_with(mut self, task: &Value) -> Self {
        self.ready.push_back(json!({ "task": task }));
        self
    }

    /// What is next; nothing after the end.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            self.look();
            if self.ready.is_empty() && !self.over && self.news.changed().await.is_err() {
                // Forgotten: nothing that is at work ever is.
                return None;
            }
        }
    }

    /// Waits for the end.
    pub(super) async fn end(&mut self) {
        while self.next().await.is_some() {}
    }

    fn look(&mut self) {
        self.news.mark_unchanged();
        let store = self.office.tasks();
        let Some(Kept { task, .. }) = store.followed(&self.id) else {
            self.over = true;
            return;
        };
        self.over = task.state.is_over();
        let more = task.answer.len() > self.told;
        let tells = match self.telling {
            Telling::Piecewise => more,
            Telling::Whole => more && self.over,
        };
        if self.turn != task.turn && !self.over {
            self.ready.push_back(task.status_update());
        }
        if tells || task.proof.is_some() {
            self.ready.push_back(task.artifact_update(self.told));
            self.told = task.answer.len();
        }
        if self.over {
            self.ready.push_back(task.status_update());
        }
        self.turn = task.turn;
    }
}
