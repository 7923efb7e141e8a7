//! Properties of every plan: graphs, outcomes and orders of events from a generator.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;
use protocol::plan::{Checked, Entry, Fault, Output, Plan, Task, TaskId};
use protocol::{Credits, JobError};
use serde_json::json;

use crate::plans::{Story, plan, prompt};

const BUDGET: u64 = 10_000;

/// A node of a random plan.
#[derive(Clone, Debug)]
struct Shape {
    /// Which of the nodes before it are used.
    uses: Vec<Index>,
    work: Work,
    rule: Rule,
    retries: u8,
    budget: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Generate { choices: u8 },
    Map { items: u8 },
    Reduce { elements: u8, arity: u8 },
    Concatenate,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Fail,
    Skip,
    Substitute,
}

fn shape() -> impl Strategy<Value = Shape> {
    let work = prop_oneof![
        (1..4u8).prop_map(|choices| Work::Generate { choices }),
        (0..4u8).prop_map(|items| Work::Map { items }),
        (0..9u8, 2..4u8).prop_map(|(elements, arity)| Work::Reduce { elements, arity }),
        Just(Work::Concatenate),
    ];
    let rule = prop_oneof![1 => Just(Rule::Fail), 3 => Just(Rule::Skip), 3 => Just(Rule::Substitute)];
    let uses = prop::collection::vec(any::<Index>(), 0..3);
    let budget = prop::option::weighted(0.3, 0..1_000u64);
    (uses, work, rule, 0..3u8, budget).prop_map(|(uses, work, rule, retries, budget)| Shape {
        uses,
        work,
        rule,
        retries,
        budget,
    })
}

/// The plan of some shapes: each node uses some of those before it.
fn checked(shapes: &[Shape], parallel: u16) -> Checked {
    let spelled = shapes.iter().enumerate().map(|(at, shape)| (format!("n{at}"), spell(at, shape)));
    let nodes: serde_json::Map<_, _> = spelled.collect();
    let (output, limits) = ("n0", json!({ "budget": BUDGET, "parallel": parallel }));
    let plan = json!({ "goal": "any", "output": output, "limits": limits, "nodes": nodes });
    let plan: Plan = serde_json::from_value(plan).unwrap();
    plan.check().unwrap_or_else(|error| panic!("{error}"))
}

fn spell(at: usize, shape: &Shape) -> serde_json::Value {
    let uses: BTreeSet<_> = shape.uses.iter().filter(|_| at > 0).map(|index| index.index(at)).collect();
    let named: Vec<_> = uses.iter().map(|used| format!("nodes.n{used}")).collect();
    // Who asks what is in every prompt, so that no two nodes ask the same.
    let says = format!("n{at} {{{{ [{}] | tojson }}}}", named.join(", "));
    let list = |length: u8| format!("range({length}) | list");
    let mut node = match shape.work {
        Work::Generate { choices } => {
            json!({ "generate": { "prompt": says, "choices": choices, "temperature": 1.0 } })
        }
        Work::Map { items } => json!({
            "for_each": list(items),
            "generate": { "prompt": says + " {{ item }}" },
        }),
        Work::Reduce { elements, arity } => json!({
            "reduce": { "of": list(elements), "arity": arity, "by": { "prompt": says + " {{ items }}" } },
        }),
        Work::Concatenate => json!({ "concatenate": { "of": format!("[{}]", named.join(", ")) } }),
    };
    node["retries"] = json!(shape.retries);
    node["on_failure"] = match shape.rule {
        Rule::Fail => json!("fail"),
        Rule::Skip => json!("skip"),
        Rule::Substitute => json!({ "substitute": "good enough" }),
    };
    if let Some(budget) = shape.budget {
        node["budget"] = json!(budget);
    }
    if matches!(shape.work, Work::Generate { .. } | Work::Map { .. }) {
        node["expect"] = json!({ "regex": "good.*" });
    }
    node
}

/// How the world answers: a function of the question, so that a second life hears the same.
fn oracle(seed: u64, task: &Task) -> Result<String, JobError> {
    let mut bytes = format!("{seed} {} {}", task.id.attempt, task.sampling.choice).into_bytes();
    bytes.extend(prompt(task).bytes());
    let digest = crypto::Digest::of("test", &bytes);
    match digest.as_bytes()[0] {
        0..40 => Err(JobError::ProviderLost),
        40..50 => Err(JobError::DeadlineExceeded),
        50..80 => Ok("bad".to_owned()),
        _ => Ok(format!("good {}", digest.short())),
    }
}

/// A driver that is honest, and checks that the plan is.
struct Driver {
    story: Story,
    seed: u64,
    open: Vec<Task>,
    spent: u64,
    waits: BTreeMap<String, BTreeSet<String>>,
    parallel: usize,
    most: usize,
}

impl Driver {
    fn begin(checked: &Checked, seed: u64, journal: Vec<Entry>) -> Self {
        let wait = |name: &String| (name.clone(), checked.waits(name).map(str::to_owned).collect());
        let waits = checked.order().iter().map(wait).collect();
        let spent = journal.iter().map(|entry| entry.cost.0).sum();
        let parallel = checked.plan().limits.parallel.into();
        let story = Story::begin(checked.clone(), json!({}), journal);
        let open = story.tasks.clone();
        let mut driver = Self { story, seed, open: Vec::new(), spent, waits, parallel, most: 0 };
        driver.take(open);
        driver
    }

    fn take(&mut self, tasks: Vec<Task>) {
        for task in &tasks {
            let waits = &self.waits[&task.id.node];
            assert!(
                waits.iter().all(|wait| self.story.settled.contains_key(wait)),
                "{:?} came early",
                task.id
            );
        }
        self.open.extend(tasks);
        self.most = self.most.max(self.open.len());
        let reserved: u64 = self.open.iter().map(|task| task.budget.0).sum();
        assert!(self.spent + reserved <= BUDGET, "{} spent, {reserved} set aside", self.spent);
        assert!(self.open.len() <= self.parallel);
    }

    /// Ends one of the open tasks. `cost` in 256ths of its budget.
    fn step(&mut self, which: Index, cost: u8) {
        let task = self.open.remove(which.index(self.open.len()));
        let cost = Credits(task.budget.0 * (u64::from(cost) + 1) / 256);
        let result = oracle(self.seed, &task);
        if result.is_ok() {
            self.spent += cost.0;
        }
        let next = self.story.tell(&task, cost, result);
        assert_eq!(self.story.execution.spent(), Credits(self.spent));
        match self.story.end {
            None => self.take(next),
            Some(_) => {
                assert_eq!(next, []);
                let ids = |tasks: &[Task]| tasks.iter().map(|task| task.id.clone()).collect::<BTreeSet<_>>();
                let cancelled: BTreeSet<TaskId> = self.story.cancelled.iter().cloned().collect();
                assert_eq!(ids(&self.open), cancelled, "what still runs is taken back");
                self.open.clear();
            }
        }
    }

    fn over(&self) -> bool {
        assert!(self.story.end.is_some() || !self.open.is_empty(), "a plan never waits for nothing");
        self.story.end.is_some()
    }

    /// The end without what depends on chance: the answer, or which node failed and why.
    fn end(&self) -> Result<String, (Option<String>, String)> {
        match &self.story.end {
            Some(Output::Done(answer)) => {
                assert_eq!(answer.cost, Credits(self.spent));
                Ok(answer.output.clone())
            }
            Some(Output::Failed { node, why }) => Err((node.clone(), why.clone())),
            other => panic!("{other:?} is no end of its own"),
        }
    }
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    prop::collection::vec(shape(), 1..9)
}

/// Which open task ends next, and what it costs; repeated as long as needed.
fn orders() -> impl Strategy<Value = Vec<(Index, u8)>> {
    prop::collection::vec((any::<Index>(), any::<u8>()), 1..40)
}

proptest! {
    #[test]
    fn every_plan_ends_once_within_its_budget(
        shapes in shapes(), parallel in 1..5u16, seed: u64, orders in orders(),
    ) {
        let mut driver = Driver::begin(&checked(&shapes, parallel), seed, Vec::new());
        for (which, cost) in orders.iter().cycle() {
            if driver.over() {
                break;
            }
            driver.step(*which, *cost);
        }
        let ids: BTreeSet<_> = driver.story.tasks.iter().map(|task| task.id.clone()).collect();
        prop_assert_eq!(ids.len(), driver.story.tasks.len(), "no try is made twice");
        let allowed = |id: &TaskId| id.attempt <= shapes[id.node[1..].parse::<usize>().unwrap()].retries;
        prop_assert!(ids.iter().all(allowed));
        prop_assert!(driver.most <= usize::from(parallel));
        if driver.end().is_ok() {
            prop_assert_eq!(driver.story.settled.len(), shapes.len());
        }
    }

    #[test]
    fn a_crash_changes_no_answer_and_repeats_no_work(
        shapes in shapes(), parallel in 1..5u16, seed: u64, orders in orders(), crashes in prop::collection::vec(0..12usize, 1..4),
    ) {
        // A node that fails the plan may do so before or after another one does; without such there is one answer.
        let rule = |shape: Shape| Shape { rule: if let Rule::Fail = shape.rule { Rule::Skip } else { shape.rule }, ..shape };
        let shapes: Vec<_> = shapes.into_iter().map(rule).collect();
        let checked = checked(&shapes, parallel);
        let mut orders = orders.iter().cycle();
        let mut whole = Driver::begin(&checked, seed, Vec::new());
        while !whole.over() {
            let (which, cost) = orders.next().unwrap();
            whole.step(*which, *cost);
        }
        let mut journal: Vec<Entry> = Vec::new();
        for steps in crashes.into_iter().chain([usize::MAX]) {
            let mut life = Driver::begin(&checked, seed, journal.clone());
            for (which, cost) in orders.by_ref().take(steps) {
                if life.over() {
                    break;
                }
                life.step(*which, *cost);
            }
            let known: BTreeSet<_> = journal.iter().map(|entry| &entry.task).collect();
            prop_assert!(life.story.tasks.iter().all(|task| !known.contains(&task.id)), "what is recorded is not done again");
            if life.story.end.is_some() {
                prop_assert_eq!(life.end(), whole.end());
            }
            journal.extend(life.story.journal);
            // In any order: it is a set of facts.
            journal.reverse();
        }
        let spent: u64 = journal.iter().map(|entry| entry.cost.0).sum();
        prop_assert!(spent <= BUDGET);
    }

    #[test]
    fn a_journal_survives_being_written(shapes in shapes(), seed: u64, orders in orders()) {
        let mut driver = Driver::begin(&checked(&shapes, 4), seed, Vec::new());
        for (which, cost) in orders {
            if driver.over() {
                break;
            }
            driver.step(which, cost);
        }
        for entry in driver.story.journal {
            let text = serde_json::to_string(&entry).unwrap();
            prop_assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
        }
    }

    #[test]
    fn a_cancelled_plan_takes_everything_back_and_stays_cancelled(
        shapes in shapes(), seed: u64, steps in 0..10usize, orders in orders(),
    ) {
        let mut driver = Driver::begin(&checked(&shapes, 4), seed, Vec::new());
        for (which, cost) in orders.iter().take(steps) {
            if driver.over() {
                return Ok(());
            }
            driver.step(*which, *cost);
        }
        if driver.over() {
            return Ok(());
        }
        let cancel = || protocol::plan::Event::Cancel;
        driver.story.execution.handle(crate::values::START, cancel());
        driver.story.drain();
        prop_assert!(matches!(driver.story.end, Some(Output::Cancelled)));
        prop_assert_eq!(driver.story.cancelled.len(), driver.open.len());
        driver.story.execution.handle(crate::values::START, cancel());
        let late = driver.open[0].clone();
        prop_assert_eq!(driver.story.tell(&late, Credits(1), Ok("late".to_owned())), vec![]);
    }

    #[test]
    fn cycles_are_found_and_named(edges in prop::collection::btree_set((0..8usize, 0..8usize), 0..14)) {
        let list = |at: usize| edges.iter().filter(move |(from, _)| *from == at).map(|(_, to)| format!("nodes.n{to}"));
        let node = |at: usize| format!("[nodes.n{at}.concatenate]\nof = '[{}]'\n", list(at).collect::<Vec<_>>().join(", "));
        let text: String = (0..8).map(node).collect();
        let found = plan(&format!("goal = 'any'\noutput = 'n0'\n{text}")).check();
        match found {
            Ok(checked) => {
                prop_assert!(!reaches_itself(&edges));
                let at = |name: &str| checked.order().iter().position(|node| node == name).unwrap();
                for (from, to) in &edges {
                    let (before, after) = (format!("n{to}"), format!("n{from}"));
                    prop_assert!(at(&before) < at(&after), "{} before {}", before, after);
                }
            }
            Err(error) => {
                prop_assert!(reaches_itself(&edges), "{}", error);
                let Fault::Cycle { cycle } = &error.mistakes[0].fault else { panic!("{error}") };
                prop_assert_eq!(cycle.first(), cycle.last());
                let number = |name: &str| name[1..].parse::<usize>().unwrap();
                let real = |pair: &[String]| edges.contains(&(number(&pair[0]), number(&pair[1])));
                prop_assert!(cycle.len() > 1 && cycle.windows(2).all(real), "{:?}", cycle);
            }
        }
    }
}

/// The reference: the transitive closure has a node that reaches itself.
fn reaches_itself(edges: &BTreeSet<(usize, usize)>) -> bool {
    let mut reach = [[false; 8]; 8];
    edges.iter().for_each(|(from, to)| reach[*from][*to] = true);
    for by in 0..8 {
        for from in 0..8 {
            for to in 0..8 {
                reach[from][to] |= reach[from][by] && reach[by][to];
            }
        }
    }
    (0..8).any(|at| reach[at][at])
}
