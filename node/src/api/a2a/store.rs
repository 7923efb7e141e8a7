//! Tasks that this peer remembers, each for whoever sent it: bounded in number, bytes and age; of those that are over, the
//! oldest go first.
//!
//! A pure table: time is an input. Whoever follows a task reads it here when the table says that it has changed, so a slow
//! reader costs nothing but its place.

use std::collections::BTreeMap;

use protocol::{ChatMessage, Role, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::{Error, Kind};
use super::message::Message;
use super::push::Webhook;
use super::task::{State, Task};
use crate::api::keys::Caller;

/// How long a task is kept after its end, in milliseconds.
const LIFETIME: u64 = 24 * 60 * 60 * 1000;
/// Tasks kept: some conversations of some programs.
const MAX_TASKS: usize = 1024;
/// Tasks kept for one key, so that none pushes out those of all others.
const MAX_EACH: usize = 512;
/// Tasks at work, which outlive the requests that they came with.
const MAX_AT_WORK: usize = 256;
/// Tasks of one key at work.
const MAX_AT_WORK_EACH: usize = 128;
/// Bytes of all of them; a job's input has a megabyte at most, its answer four.
const MAX_BYTES: usize = 64 << 20;
/// Webhooks of one task.
const MAX_WEBHOOKS: usize = 4;
/// Turns of a context that its next task is given.
const MAX_TURNS: usize = 32;
/// Bytes of them: a quarter of what a job's input may have.
const MAX_CARRIED: usize = 256 << 10;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Store {
    kept: BTreeMap<String, Kept>,
    bytes: usize,
    /// Of the latest change of any task.
    change: u64,
}

/// A task with what belongs to it.
#[derive(Debug)]
pub(super) struct Kept {
    owner: Caller,
    pub(super) task: Task,
    /// When it changed, in the order of changes.
    changed: u64,
    bytes: usize,
    webhooks: BTreeMap<String, Webhook>,
    stop: CancellationToken,
    news: watch::Sender<()>,
}

/// Which tasks somebody wants to see.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) context: Option<String>,
    /// By the name of its state.
    pub(super) state: Option<&'static str>,
    pub(super) since: Option<Timestamp>,
    /// Only what changed before this.
    pub(super) before: Option<u64>,
    pub(super) most: usize,
}

/// Some of them, the latest first.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) tasks: Vec<&'a Task>,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<u64>,
    /// How many there are on all pages.
    pub(super) total: usize,
}

impl Store {
    /// Refuses a task for which there is no room.
    pub(super) fn check_room(&self, owner: Caller) -> Result<(), Error> {
        let at_work = || self.kept.values().filter(|kept| !kept.task.state.is_over());
        if at_work().filter(|kept| kept.owner == owner).count() >= MAX_AT_WORK_EACH {
            let message = format!(
                "{MAX_AT_WORK_EACH} tasks of yours are at work, as many as may be; wait for one to end"
            );
            return Err(Error::new(Kind::Overloaded, message));
        }
        if at_work().count() >= MAX_AT_WORK {
            let message = "as many tasks are at work as this peer takes; try again in a second";
            return Err(Error::new(Kind::Overloaded, message));
        }
        Ok(())
    }

    /// Keeps a new task, and lets others go that are over and too old or too many.
    pub(super) fn begin(
        &mut self,
        now: Timestamp,
        owner: Caller,
        task: Task,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        self.check_room(owner)?;
        self.forget_old(now);
        let theirs = |store: &Self| store.kept.values().filter(|kept| kept.owner == owner).count();
        while theirs(self) >= MAX_EACH && self.forget_one(|kept| kept.owner == owner) {}
        while self.kept.len() >= MAX_TASKS && self.forget_one(|_| true) {}
        let bytes = task.size();
        if !self.make_room(bytes) {
            return Err(Error::new(
                Kind::Overloaded,
                "this peer's tasks take all the room there is; try again later",
            ));
        }
        let (id, changed) = (task.id.clone(), self.tick());
        let kept =
            Kept { owner, task, changed, bytes, webhooks: BTreeMap::new(), stop, news: watch::channel(()).0 };
        self.bytes += bytes;
        self.kept.insert(id, kept);
        Ok(())
    }

    /// A task, for its owner.
    pub(super) fn get(&self, now: Timestamp, owner: Caller, id: &str) -> Result<&Kept, Error> {
        let theirs = |kept: &&Kept| kept.owner == owner && !kept.is_old(now);
        self.kept.get(id).filter(theirs).ok_or_else(|| Error::not_found(id))
    }

    /// A task, for whoever follows it.
    pub(super) fn followed(&self, id: &str) -> Option<&Kept> {
        self.kept.get(id)
    }

    pub(super) fn list(&self, now: Timestamp, owner: Caller, wanted: &Wanted) -> Page<'_> {
        let fits = |kept: &&Kept| {
            kept.owner == owner
                && !kept.is_old(now)
                && wanted.context.as_ref().is_none_or(|context| *context == kept.task.context)
                && wanted.state.is_none_or(|state| state == kept.task.state.name())
                && wanted.since.is_none_or(|since| kept.task.since >= since)
        };
        let mut found: Vec<_> = self.kept.values().filter(fits).collect();
        let total = found.len();
        found.sort_by_key(|kept| std::cmp::Reverse(kept.changed));
        let mut rest =
            found.into_iter().filter(|kept| wanted.before.is_none_or(|before| kept.changed < before));
        let page: Vec<_> = rest.by_ref().take(wanted.most).collect();
        let next = rest.next().and_then(|_| page.last()).map(|last| last.changed);
        Page { tasks: page.into_iter().map(|kept| &kept.task).collect(), next, total }
    }

    /// What was said in a context so far, without what does not fit from the oldest on.
    pub(super) fn conversation(&self, owner: Caller, context: &str) -> Vec<ChatMessage> {
        let said = |kept: &&Kept| {
            kept.owner == owner && kept.task.context == context && kept.task.state == State::Completed
        };
        let mut turns: Vec<_> = self.kept.values().filter(said).collect();
        turns.sort_by_key(|kept| std::cmp::Reverse(kept.changed));
        let (mut left, mut messages) = (MAX_CARRIED, Vec::new());
        for kept in turns.into_iter().take(MAX_TURNS) {
            let (asked, answer) = (kept.task.asked.words(), kept.task.answer.clone());
            let Some(rest) = left.checked_sub(asked.len() + answer.len()) else { break };
            left = rest;
            messages.push(ChatMessage::new(Role::Assistant, answer));
            messages.push(ChatMessage::new(Role::User, asked));
        }
        messages.reverse();
        messages
    }

    /// A task goes on: another state, or a word about it. What is over stays as it is.
    pub(super) fn turn(&mut self, now: Timestamp, id: &str, state: State, note: Option<Message>) {
        let change = self.tick();
        if let Some(kept) = self.kept.get_mut(id).filter(|kept| !kept.task.state.is_over()) {
            kept.changed = change;
            (kept.task.state, kept.task.note, kept.task.since) = (state, note, now);
            kept.task.turn += 1;
            kept.news.send_replace(());
        }
    }

    /// Its answer goes on; false where there is no room for it.
    pub(super) fn say(&mut self, id: &str, text: &str) -> bool {
        if !self.make_room(text.len()) {
            return false;
        }
        if let Some(kept) = self.kept.get_mut(id).filter(|kept| !kept.task.state.is_over()) {
            kept.task.answer.push_str(text);
            kept.bytes += text.len();
            self.bytes += text.len();
            kept.news.send_replace(());
        }
        true
    }

    /// It is done, and this answers for it.
    pub(super) fn complete(&mut self, now: Timestamp, id: &str, proof: serde_json::Value) {
        if let Some(kept) = self.kept.get_mut(id).filter(|kept| !kept.task.state.is_over()) {
            kept.task.proof = Some(proof);
        }
        self.turn(now, id, State::Completed, None);
    }

    /// Keeps a webhook of a task.
    pub(super) fn set_webhook(
        &mut self,
        (now, owner): (Timestamp, Caller),
        id: &str,
        webhook: Webhook,
    ) -> Result<(), Error> {
        self.get(now, owner, id)?;
        let Some(kept) = self.kept.get_mut(id) else { return Err(Error::not_found(id)) };
        if kept.webhooks.len() >= MAX_WEBHOOKS && !kept.webhooks.contains_key(&webhook.id) {
            let problem = format!("would be one too many: a task has {MAX_WEBHOOKS} at most; delete one");
            return Err(Error::invalid("the configuration", &problem));
        }
        kept.webhooks.insert(webhook.id.clone(), webhook);
        Ok(())
    }

    /// Forgets one; nothing happens where there is none.
    pub(super) fn remove_webhook(&mut self, id: &str, webhook: &str) {
        if let Some(kept) = self.kept.get_mut(id) {
            kept.webhooks.remove(webhook);
            kept.news.send_replace(());
        }
    }

    fn tick(&mut self) -> u64 {
        self.change += 1;
        self.change
    }

    fn make_room(&mut self, bytes: usize) -> bool {
        while self.bytes + bytes > MAX_BYTES {
            if !self.forget_one(|_| true) {
                return false;
            }
        }
        true
    }

    /// Forgets the oldest that is over; false where there is none.
    fn forget_one(&mut self, which: impl Fn(&Kept) -> bool) -> bool {
        let over = self.kept.values().filter(|kept| kept.task.state.is_over() && which(kept));
        let oldest = over.min_by_key(|kept| kept.changed).map(|kept| kept.task.id.clone());
        let forgotten = oldest.and_then(|id| self.kept.remove(&id));
        self.bytes -= forgotten.as_ref().map_or(0, |kept| kept.bytes);
        forgotten.is_some()
    }

    fn forget_old(&mut self, now: Timestamp) {
        while self.forget_one(|kept| kept.is_old(now)) {}
    }
}

impl Kept {
    /// Ends its job.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Says when it has changed.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    pub(super) fn webhook(&self, id: &str) -> Option<&Webhook> {
        self.webhooks.get(id)
    }

    pub(super) fn webhooks(&self) -> impl Iterator<Item = &Webhook> {
        self.webhooks.values()
    }

    fn is_old(&self, now: Timestamp) -> bool {
        self.task.state.is_over() && self.task.since.after(LIFETIME) <= now
    }
}

#[cfg(test)]
mod tests;
