//! A plan while it runs: which jobs may start, what follows from their ends, and when it is over.
//!
//! ```text
//!   waits are settled ─▶ begin ─┬─ join: value at once ─────────────────────────────────────────┐
//!                               └─ jobs: ready ─▶ restored? known answer? ─▶ submit ─▶ outcome ─┤
//!                                    ▲                                          │               ▼
//!                                    └─────────────── retry, elsewhere ◀────────┘     settled ─▶ the next nodes
//! ```
//!
//! Every outcome is an [`Output::Record`] before anything follows from it. An execution that is begun again with these
//! entries asks nothing that was answered, and comes to the same end. Equal questions are asked once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crypto::Digest;
use minijinja::Value;

use super::check::Checked;
use super::error::PlanError;
use super::estimate::weights;
use super::event::{Answer, Event, NodeState, Output};
use super::expectation::Expectation;
use super::purse::Purse;
use super::run::{Origin, Run, Tally};
use super::start::{Begun, begin, inputs, instead};
use super::task::{Entry, Outcome, Question, TaskId};
use super::template::{Context, text};
use super::{Plan, Work};
use crate::{Credits, JobError, Timestamp};

/// Longest wait for a peer that is busy, in milliseconds. Whoever needs longer is not waited for.
const MAX_PAUSE: u64 = 60_000;
/// Wait in milliseconds where nobody took the job and nobody said when to come back.
const PAUSE: u64 = 1_000;
/// Waits of one try. Being busy is no failure, so none of them is a try; a mesh that is busy for ever is one.
const MAX_WAITS: u16 = 256;

/// One execution of a plan.
#[derive(Clone, Debug)]
pub struct Execution {
    checked: Checked,
    inputs: Value,
    deadline: Option<Timestamp>,
    /// Nodes whose jobs run.
    runs: BTreeMap<String, Run>,
    /// Nodes that are settled.
    values: BTreeMap<String, Value>,
    /// Tasks that may start, each not before a time.
    ready: BTreeMap<TaskId, Timestamp>,
    running: BTreeMap<TaskId, Running>,
    /// How often a task has waited because all were busy.
    waited: BTreeMap<TaskId, u16>,
    /// Tasks whose question is being asked for another one.
    following: BTreeMap<Digest, BTreeSet<TaskId>>,
    /// Answers by question.
    answers: BTreeMap<Digest, String>,
    /// What an earlier life recorded and this one has not come to yet. A task stands here for each question that it was.
    restored: BTreeMap<(TaskId, Digest), Entry>,
    purse: Purse,
    /// How much of a pot a job of each node takes, in proportion to others.
    weights: BTreeMap<String, u64>,
    /// Jobs that were planned, and those that were submitted.
    jobs: (u64, u32),
    receipts: Vec<Digest>,
    over: bool,
    outputs: VecDeque<Output>,
}

/// A job that was submitted.
#[derive(Clone, Copy, Debug)]
struct Running {
    digest: Digest,
    share: Credits,
}

impl Execution {
    /// Begins, or goes on: `journal` is what an earlier life of this execution recorded, in any order. The plan's timeout
    /// counts from here either way.
    ///
    /// # Errors
    /// Inputs that are missing or that the plan does not know.
    pub fn begin(
        now: Timestamp,
        checked: Checked,
        given: BTreeMap<String, serde_json::Value>,
        journal: Vec<Entry>,
    ) -> Result<Self, PlanError> {
        let plan = checked.plan();
        let inputs = inputs(plan, given)?;
        let own = plan.nodes.iter().filter_map(|(name, node)| Some((name.clone(), node.budget?)));
        let purse = Purse::new(plan.limits.budget, own.collect());
        let deadline = plan.limits.timeout.map(|timeout| now.after(timeout));
        let mut execution = Self {
            inputs,
            deadline,
            purse,
            weights: weights(&checked),
            checked,
            runs: BTreeMap::new(),
            values: BTreeMap::new(),
            ready: BTreeMap::new(),
            running: BTreeMap::new(),
            waited: BTreeMap::new(),
            following: BTreeMap::new(),
            answers: BTreeMap::new(),
            restored: BTreeMap::new(),
            jobs: (0, 0),
            receipts: Vec::new(),
            over: false,
            outputs: VecDeque::new(),
        };
        journal.into_iter().for_each(|entry| execution.restore(entry));
        execution.advance(now);
        Ok(execution)
    }

    /// Takes in what happened. Events about tasks that are not running are late, and mean nothing.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::Cancel => self.end(Output::Cancelled),
            Event::Done { task, provider, output, cost, receipt } => {
                let Some(running) = self.release(&task, cost) else { return };
                let expected = self.checked.node(&task.node).and_then(|node| node.expect.as_ref());
                let outcome = match expected.map_or(Ok(()), |expect| expect.meets(&output)) {
                    Ok(()) => Outcome::Done { output },
                    Err(unmet) => Outcome::Failed { why: unmet.to_string(), retryable: true },
                };
                let (digest, receipt) = (running.digest, Some(receipt));
                self.record(now, Entry { task, digest, outcome, cost, provider, receipt }, 0);
            }
            Event::Failed { task, provider, error } => {
                let Some(running) = self.release(&task, Credits::ZERO) else { return };
                let pause = match error {
                    JobError::Busy { retry_after_ms } => retry_after_ms.min(MAX_PAUSE),
                    JobError::NoTaker { .. } => PAUSE,
                    _ => 0,
                };
                if pause > 0 && self.may_wait(&task) {
                    self.ready.insert(task, now.after(pause));
                    return self.advance(now);
                }
                let (digest, cost, receipt) = (running.digest, Credits::ZERO, None);
                let outcome = Outcome::Failed { why: error.to_string(), retryable: error.retryable() };
                self.record(now, Entry { task, digest, outcome, cost, provider, receipt }, pause);
            }
        }
        self.advance(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            let why = "its time is over; give it more with `limits.timeout`".to_owned();
            self.end(Output::Failed { node: None, why });
        }
        self.advance(now);
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Execution::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let pause = self.ready.values().min().filter(|_| self.has_room()).copied();
        pause.into_iter().chain(self.deadline).min().filter(|_| !self.over)
    }

    /// What was spent so far.
    pub fn spent(&self) -> Credits {
        self.purse.spent()
    }

    /// Takes in what an earlier life recorded. What it cost is spent, whether its answer is still asked for or not.
    fn restore(&mut self, entry: Entry) {
        let name = (entry.task.clone(), entry.digest);
        if self.restored.contains_key(&name) {
            return;
        }
        self.purse.settle(&entry.task.node, Credits::ZERO, entry.cost);
        self.receipts.extend(entry.receipt);
        if let Outcome::Done { output } = &entry.outcome {
            self.answers.insert(entry.digest, output.clone());
        }
        self.restored.insert(name, entry);
    }

    /// Begins nodes and starts tasks until nothing more can be.
    fn advance(&mut self, now: Timestamp) {
        while !self.over {
            if let Some(node) = self.next_node() {
                self.begin_node(now, &node);
            } else if let Some(task) = self.next_task(now) {
                self.start(now, task);
            } else {
                return;
            }
        }
    }

    fn next_node(&self) -> Option<String> {
        let begun = |name: &str| self.values.contains_key(name) || self.runs.contains_key(name);
        let free = |name: &&String| {
            !begun(name) && self.checked.waits(name).all(|wait| self.values.contains_key(wait))
        };
        self.checked.order().iter().find(free).cloned()
    }

    fn next_task(&mut self, now: Timestamp) -> Option<TaskId> {
        let due = self.ready.iter().find(|(_, not_before)| **not_before <= now).filter(|_| self.has_room());
        let task = due.map(|(task, _)| task.clone())?;
        self.ready.remove(&task);
        Some(task)
    }

    fn has_room(&self) -> bool {
        self.running.len() < usize::from(self.checked.plan().limits.parallel)
    }

    fn begin_node(&mut self, now: Timestamp, name: &str) {
        let Some(node) = self.checked.node(name).cloned() else { return };
        let context = self.context(name);
        match begin(&node, &context) {
            Ok(Begun::Jobs(run)) => self.begin_run(now, name, run),
            Ok(Begun::Value(value, tally)) => self.settle(name, value, tally),
            Err(why) => match instead(&node, &context, &why) {
                Ok((value, origin)) => {
                    let mut tally = Tally::default();
                    tally.count(origin);
                    self.settle(name, value, tally);
                }
                Err(why) => self.end(Output::Failed { node: Some(name.to_owned()), why }),
            },
        }
    }

    fn begin_run(&mut self, now: Timestamp, name: &str, run: Run) {
        let tasks = run.tasks(name);
        self.jobs.0 += tasks.len() as u64;
        if self.jobs.0 > u64::from(Plan::MAX_JOBS) {
            return self.fail_jobs(name);
        }
        self.ready.extend(tasks.into_iter().map(|task| (task, now)));
        self.runs.insert(name.to_owned(), run);
        self.tell(name);
        self.complete(now, name);
    }

    /// Starts a task, unless its outcome is known.
    fn start(&mut self, now: Timestamp, task: TaskId) {
        let question = match self.question(&task) {
            Ok(question) => question,
            // The same texts would be rendered again, so it is not tried again either.
            Err(why) => return self.give_up(now, &task, &why),
        };
        let digest = question.digest();
        if let Some(entry) = self.restored.remove(&(task.clone(), digest)) {
            return self.conclude(now, entry, 0);
        }
        if let Some(output) = self.answers.get(&digest).cloned() {
            return self.answer(now, &task, &output);
        }
        if self.running.values().any(|running| running.digest == digest) {
            self.following.entry(digest).or_default().insert(task);
            return;
        }
        if self.jobs.1 >= Plan::MAX_JOBS {
            return self.fail_jobs(&task.node);
        }
        self.jobs.1 += 1;
        let share = self.purse.reserve(&task.node, self.weight(&task.node), self.coming(&task.node));
        let avoid = self.runs.get(&task.node).map(|run| run.avoid(&task)).unwrap_or_default();
        self.running.insert(task.clone(), Running { digest, share });
        let task = question.into_task(task, digest, share, avoid);
        self.outputs.push_back(Output::Submit(Box::new(task)));
    }

    fn weight(&self, node: &str) -> u64 {
        self.weights.get(node).copied().unwrap_or(1)
    }

    /// The weights of all jobs from the same pot that are still to come, as far as that is known.
    fn coming(&self, node: &str) -> u64 {
        let own = self.purse.is_own(node);
        let shares = |other: &str| if own { other == node } else { !self.purse.is_own(other) };
        let nodes = self.checked.plan().nodes.iter();
        let open = nodes.filter(|(name, _)| shares(name) && !self.values.contains_key(*name));
        let weights = open.map(|(name, node)| {
            let jobs = match (self.runs.get(name), &node.work) {
                (Some(run), Work::Reduce(work)) => run.left().0 as u64 + run.later(work.arity),
                (Some(run), _) => run.left().0 as u64,
                (None, work) => work.least_jobs(),
            };
            jobs.saturating_mul(self.weight(name))
        });
        let all = weights.fold(0, u64::saturating_add);
        let running = self.running.keys().filter(|task| shares(&task.node));
        running.fold(all, |left, task| left.saturating_sub(self.weight(&task.node)))
    }

    fn question(&self, task: &TaskId) -> Result<Question, String> {
        let missing = || "the node has no such job".to_owned();
        let node = self.checked.node(&task.node).ok_or_else(missing)?;
        let place = self.runs.get(&task.node).and_then(|run| run.place(task)).ok_or_else(missing)?;
        let context = place.within(self.context(&task.node));
        Question::of(node, task.choice, &context).ok_or_else(missing)?
    }

    /// What templates of a node see: the inputs, and the nodes that it waits for.
    fn context(&self, node: &str) -> Context {
        let waits = self.checked.waits(node);
        let nodes: BTreeMap<_, _> =
            waits.filter_map(|name| Some((name.to_owned(), self.values.get(name)?.clone()))).collect();
        Context::from([("inputs", self.inputs.clone()), ("nodes", Value::from(nodes))])
    }

    /// A job no longer runs: its share is free, less what it cost.
    fn release(&mut self, task: &TaskId, cost: Credits) -> Option<Running> {
        let running = self.running.remove(task)?;
        self.purse.settle(&task.node, running.share, cost);
        Some(running)
    }

    /// Counts a wait, as long as there may be one more.
    fn may_wait(&mut self, task: &TaskId) -> bool {
        let waited = self.waited.entry(task.clone()).or_default();
        *waited += 1;
        *waited <= MAX_WAITS
    }

    fn record(&mut self, now: Timestamp, entry: Entry, pause: u64) {
        self.receipts.extend(entry.receipt);
        self.outputs.push_back(Output::Record(Box::new(entry.clone())));
        self.conclude(now, entry, pause);
    }

    /// What follows from an outcome that is on record.
    fn conclude(&mut self, now: Timestamp, entry: Entry, pause: u64) {
        let Entry { task, digest, outcome, provider, .. } = entry;
        match outcome {
            Outcome::Done { output } => {
                self.answer(now, &task, &output);
                self.answers.insert(digest, output);
            }
            Outcome::Failed { why, retryable } => {
                if let (Some(run), Some(peer)) = (self.runs.get_mut(&task.node), provider) {
                    run.shun(&task, peer);
                }
                let retries = self.checked.node(&task.node).map_or(0, |node| node.retries);
                if retryable && task.attempt < retries {
                    let attempt = task.attempt + 1;
                    self.ready.insert(TaskId { attempt, ..task }, now.after(pause));
                    return;
                }
                self.give_up(now, &task, &why);
            }
        }
        // Those who waited for the answer take it, or ask for themselves.
        let followers = self.following.remove(&digest).unwrap_or_default();
        self.ready.extend(followers.into_iter().map(|task| (task, now)));
    }

    /// A task has its answer.
    fn answer(&mut self, now: Timestamp, task: &TaskId, output: &str) {
        let expect = self.checked.node(&task.node).and_then(|node| node.expect.as_ref());
        match Expectation::value(expect, output) {
            Ok(value) => self.fill(now, task, value, Origin::Answer),
            Err(unmet) => self.give_up(now, task, &unmet.to_string()),
        }
    }

    /// A task has failed for good.
    fn give_up(&mut self, now: Timestamp, task: &TaskId, why: &str) {
        let Some(node) = self.checked.node(&task.node) else { return };
        let context = self.context(&task.node);
        let context = match self.runs.get(&task.node).and_then(|run| run.place(task)) {
            Some(place) => place.within(context),
            None => context,
        };
        match instead(node, &context, why) {
            Ok((value, origin)) => self.fill(now, task, value, origin),
            Err(why) => self.end(Output::Failed { node: Some(task.node.clone()), why }),
        }
    }

    fn fill(&mut self, now: Timestamp, task: &TaskId, value: Value, origin: Origin) {
        if let Some(run) = self.runs.get_mut(&task.node) {
            run.fill(task, value, origin);
            self.tell(&task.node);
            self.complete(now, &task.node);
        }
    }

    /// Settles a node all of whose jobs have a value, or goes on to the next level of its tree.
    fn complete(&mut self, now: Timestamp, name: &str) {
        if self.runs.get(name).is_none_or(|run| run.left().0 > 0) {
            return;
        }
        let Some(run) = self.runs.remove(name) else { return };
        let next = match self.checked.node(name).map(|node| &node.work) {
            Some(Work::Reduce(work)) => run.up(work.arity),
            _ => Err(run.value()),
        };
        match next {
            Ok(run) => self.begin_run(now, name, run),
            Err((value, tally)) => self.settle(name, value, tally),
        }
    }

    fn settle(&mut self, name: &str, value: Value, tally: Tally) {
        let Tally { skipped, substituted } = tally;
        let state = NodeState::Settled { skipped, substituted };
        self.outputs.push_back(Output::Changed { node: name.to_owned(), state });
        self.values.insert(name.to_owned(), value);
        if self.values.len() == self.checked.order().len() {
            let output = self.values.get(self.checked.output()).map(text).unwrap_or_default();
            let answer = Answer { output, cost: self.spent(), receipts: self.receipts.clone() };
            self.end(Output::Done(Box::new(answer)));
        }
    }

    fn tell(&mut self, name: &str) {
        let Some((left, of)) = self.runs.get(name).map(Run::left) else { return };
        let count = |jobs: usize| u32::try_from(jobs).unwrap_or(u32::MAX);
        let state = NodeState::Running { done: count(of - left), of: count(of) };
        self.outputs.push_back(Output::Changed { node: name.to_owned(), state });
    }

    fn fail_jobs(&mut self, name: &str) {
        let why = format!("the plan needs more than {} jobs; give it shorter lists", Plan::MAX_JOBS);
        self.end(Output::Failed { node: Some(name.to_owned()), why });
    }

    /// The end, once.
    fn end(&mut self, last: Output) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.ready.clear();
        self.following.clear();
        let running = std::mem::take(&mut self.running);
        self.outputs.extend(running.into_keys().map(|task| Output::Cancel { task }));
        self.outputs.push_back(last);
    }
}
