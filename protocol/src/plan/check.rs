//! From a plan as somebody wrote it to one that may run: every mistake is found before the first job costs anything.
//!
//! Which node waits for which is read from the templates: `nodes.NAME` in any of them is a dependency, and at run time
//! a template sees no other nodes than those that were found here.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{Fault, Mistake, PlanError};
use super::template::{Syntax, names};
use super::{Expectation, Node, OnFailure, Plan, Work};
use crate::{Credits, Sampling};

/// A plan without mistakes, and what follows from its texts.
#[derive(Clone, Debug)]
pub struct Checked {
    plan: Plan,
    /// Which nodes each one waits for.
    waits: BTreeMap<String, BTreeSet<String>>,
    order: Vec<String>,
    output: String,
}

/// A text of a node that names values.
pub(super) struct Source<'a> {
    pub(super) field: &'static str,
    pub(super) syntax: Syntax,
    pub(super) text: &'a str,
    /// What it sees besides `inputs` and `nodes`.
    locals: &'static [&'static str],
}

const ITEM: &[&str] = &["index", "item"];
const ITEMS: &[&str] = &["items"];

impl Checked {
    /// The plan itself.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The nodes, each after all that it waits for; else by name.
    pub fn order(&self) -> &[String] {
        &self.order
    }

    /// The node whose value is the plan's answer.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// What a node waits for.
    pub fn waits(&self, node: &str) -> impl Iterator<Item = &str> {
        self.waits.get(node).into_iter().flatten().map(String::as_str)
    }

    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        self.plan.nodes.get(name)
    }
}

impl Plan {
    /// Finds every mistake.
    ///
    /// # Errors
    /// All of them, each with its node and a next step.
    pub fn check(self) -> Result<Checked, PlanError> {
        let mut mistakes = Mistakes::default();
        mistakes.within(None, self.check_whole());
        let mut waits = BTreeMap::new();
        // A plan of too many nodes is refused without a look at each of them.
        for (name, node) in self.nodes.iter().take(Self::MAX_NODES) {
            mistakes.within(Some(name), check_node(name, node));
            let (uses, faults) = self.uses(node);
            mistakes.within(Some(name), faults);
            waits.insert(name.clone(), uses);
        }
        let order = match order(&waits) {
            Ok(order) => order,
            Err(cycle) => {
                let first = cycle.first().cloned();
                mistakes.within(first.as_ref(), vec![Fault::Cycle { cycle }]);
                Vec::new()
            }
        };
        let output = self.answer(&waits).unwrap_or_else(|fault| {
            mistakes.within(None, vec![fault]);
            String::new()
        });
        match mistakes.0 {
            found if found.is_empty() => Ok(Checked { plan: self, waits, order, output }),
            mistakes => Err(PlanError { mistakes }),
        }
    }

    fn check_whole(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut within = |field: &str, value: usize, low: usize, high: usize| {
            if !(low..=high).contains(&value) {
                faults
                    .push(Fault::invalid(field, format!("is {value}; it must be between {low} and {high}")));
            }
        };
        within("bytes of `goal`", self.goal.len(), 0, Self::MAX_GOAL);
        within("number of `nodes`", self.nodes.len(), 1, Self::MAX_NODES);
        within("number of `inputs`", self.inputs.len(), 0, Self::MAX_INPUTS);
        within("limits.parallel", self.limits.parallel.into(), 1, Self::MAX_PARALLEL.into());
        let jobs: u64 = self.nodes.values().map(|node| node.work.least_jobs()).sum();
        within("number of jobs", usize::try_from(jobs).unwrap_or(usize::MAX), 0, Self::MAX_JOBS as usize);
        faults.extend(self.inputs.keys().filter_map(|name| check_name("inputs", name)));
        let own: u128 = self.nodes.values().filter_map(|node| node.budget).map(|own| u128::from(own.0)).sum();
        let budget = self.limits.budget;
        if own > u128::from(budget.0) {
            faults.push(Fault::Budget { sum: Credits(u64::try_from(own).unwrap_or(u64::MAX)), budget });
        }
        faults
    }

    /// The nodes that a node waits for, as far as they are there, and what is wrong with its texts.
    fn uses(&self, node: &Node) -> (BTreeSet<String>, Vec<Fault>) {
        let (mut uses, mut faults) = (BTreeSet::new(), Vec::new());
        for source in sources(node) {
            let known = known(source.locals);
            match names(source.syntax, source.text) {
                Ok(names) => {
                    for name in names {
                        match self.resolve(&name, source.locals, &known) {
                            Ok(used) => uses.extend(used),
                            Err(fault) => faults.push(fault),
                        }
                    }
                }
                Err(error) => {
                    let field = source.field.to_owned();
                    faults.push(Fault::Template { field, line: error.line, problem: error.problem });
                }
            }
        }
        for name in &node.after {
            match self.nodes.contains_key(name) {
                true => drop(uses.insert(name.clone())),
                false => faults.push(Fault::UnknownNode { name: name.clone() }),
            }
        }
        (uses, faults)
    }

    /// What a dotted path stands for: a node, or nothing that must be waited for.
    fn resolve(&self, path: &str, locals: &[&str], known: &str) -> Result<Option<String>, Fault> {
        let mut parts = path.split('.');
        match (parts.next().unwrap_or_default(), parts.next(), parts.next()) {
            ("inputs", Some(name), _) if self.inputs.contains_key(name) => Ok(None),
            ("inputs", Some(name), _) => Err(Fault::UnknownInput { name: name.to_owned() }),
            ("nodes", Some(name), part) => {
                let missing = || Fault::UnknownNode { name: name.to_owned() };
                let node = self.nodes.get(name).ok_or_else(missing)?;
                match part.and_then(|part| part_problem(node, part)) {
                    Some(problem) => Err(Fault::invalid(path, problem)),
                    None => Ok(Some(name.to_owned())),
                }
            }
            (local, _, _) if locals.contains(&local) => Ok(None),
            _ => Err(Fault::Unknown { name: path.to_owned(), known: known.to_owned() }),
        }
    }

    fn answer(&self, waits: &BTreeMap<String, BTreeSet<String>>) -> Result<String, Fault> {
        match &self.output {
            Some(name) if self.nodes.contains_key(name) => Ok(name.clone()),
            Some(name) => Err(Fault::UnknownNode { name: name.clone() }),
            None => {
                let used: BTreeSet<_> = waits.values().flatten().collect();
                let sinks: Vec<_> = waits.keys().filter(|name| !used.contains(name)).cloned().collect();
                match <[String; 1]>::try_from(sinks) {
                    Ok([only]) => Ok(only),
                    // Without any, there is a cycle, which is a mistake of its own.
                    Err(sinks) if sinks.is_empty() => Ok(String::new()),
                    Err(sinks) => Err(Fault::Output { sinks }),
                }
            }
        }
    }
}

/// Mistakes so far.
#[derive(Default)]
struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn within(&mut self, node: Option<&String>, faults: Vec<Fault>) {
        self.0.extend(faults.into_iter().map(|fault| Mistake { node: node.cloned(), fault }));
    }
}

/// All texts of a node that name values.
pub(super) fn sources(node: &Node) -> Vec<Source<'_>> {
    let own = if node.for_each.is_some() { ITEM } else { &[] };
    let expression = |field, text, locals| Source { field, syntax: Syntax::Expression, text, locals };
    let template = |field, text, locals| Source { field, syntax: Syntax::Template, text, locals };
    let mut sources: Vec<_> = node.for_each.iter().map(|text| expression("for_each", text, &[])).collect();
    match &node.work {
        Work::Generate(work) => {
            sources.extend(work.system.iter().map(|text| template("generate.system", text, own)));
            sources.push(template("generate.prompt", &work.prompt, own));
        }
        Work::Call(work) => sources.push(template("call.arguments", &work.arguments, own)),
        Work::Concatenate(work) => sources.push(expression("concatenate.of", &work.of, own)),
        Work::Vote(work) => sources.push(expression("vote.of", &work.of, own)),
        Work::Pick(work) => {
            sources.push(expression("pick.of", &work.of, own));
            sources.push(expression("pick.score", &work.score, ITEM));
        }
        Work::Reduce(work) => {
            sources.push(expression("reduce.of", &work.of, &[]));
            sources.extend(work.by.system.iter().map(|text| template("reduce.by.system", text, ITEMS)));
            sources.push(template("reduce.by.prompt", &work.by.prompt, ITEMS));
        }
    }
    if let OnFailure::Substitute(text) = &node.on_failure {
        sources.push(template("on_failure.substitute", text, own));
    }
    sources
}

fn known(locals: &[&str]) -> String {
    let mut known = vec!["inputs.NAME", "nodes.NAME"];
    known.extend(locals);
    known.join(", ")
}

/// Why a value of this node has no such part, where that can be told without running it.
fn part_problem(node: &Node, part: &str) -> Option<String> {
    let choices = matches!(&node.work, Work::Generate(work) if work.choices > 1);
    if node.for_each.is_some() || choices {
        return Some("is a part of a list; take one element, or map the list with `for_each`".to_owned());
    }
    match (&node.work, &node.expect) {
        // What they give is what they were given; nothing is known about that here.
        (Work::Vote(_) | Work::Pick(_) | Work::Reduce(_), _) => None,
        (_, Some(Expectation::Schema(schema))) => {
            let closed = schema.get("additionalProperties").is_some_and(|more| more == false);
            let properties = schema.get("properties").and_then(|all| all.as_object());
            let lacks = closed && properties.is_some_and(|all| !all.contains_key(part));
            lacks.then(|| "is not among the properties of that node's schema".to_owned())
        }
        _ => Some("is a part of a text; give that node a schema to `expect`, or use the whole".to_owned()),
    }
}

fn check_node(name: &str, node: &Node) -> Vec<Fault> {
    let mut faults: Vec<_> = check_name("nodes", name).into_iter().collect();
    let mut within = |field: &str, value: usize, low: usize, high: usize| {
        if !(low..=high).contains(&value) {
            faults.push(Fault::invalid(field, format!("is {value}; it must be between {low} and {high}")));
        }
    };
    within("max_items", node.max_items.into(), 1, Plan::MAX_ITEMS.into());
    within("retries", node.retries.into(), 0, Plan::MAX_RETRIES.into());
    within("number of `after`", node.after.len(), 0, Plan::MAX_NODES);
    for source in sources(node) {
        within(&format!("bytes of `{}`", source.field), source.text.len(), 1, Plan::MAX_TEMPLATE);
    }
    faults.extend(node.expect.as_ref().and_then(|expect| expect.check().err()));
    faults.extend(check_work(node));
    faults
}

fn check_work(node: &Node) -> Vec<Fault> {
    let mut faults = Vec::new();
    let generate = match &node.work {
        Work::Generate(work) => Some(work),
        Work::Reduce(work) => {
            if node.for_each.is_some() {
                faults.push(Fault::invalid(
                    "for_each",
                    "cannot repeat a `reduce`; reduce in a node of its own",
                ));
            }
            if !(2..=Plan::MAX_ARITY).contains(&work.arity) {
                let range = format!("must be between 2 and {}", Plan::MAX_ARITY);
                faults.push(Fault::invalid("reduce.arity", range));
            }
            if work.by.choices != 1 {
                faults.push(Fault::invalid("reduce.by.choices", "must be 1: a group has one answer"));
            }
            Some(&work.by)
        }
        Work::Call(_) | Work::Concatenate(_) | Work::Vote(_) | Work::Pick(_) => None,
    };
    let Some(work) = generate else { return faults };
    let most = Sampling::MAX_CHOICE + 1;
    if !(1..=most).contains(&u32::from(work.choices)) {
        faults.push(Fault::invalid("choices", format!("must be between 1 and {most}")));
    }
    if work.choices > 1 && work.temperature == 0.0 {
        faults.push(Fault::invalid("choices", "would all be the same; set a `temperature`"));
    }
    if let Err(error) = work.sampling(0).check() {
        faults.push(Fault::invalid("generate", error.to_string()));
    }
    faults
}

/// Names stand in templates after a dot, and must be read as one name there.
fn check_name(field: &str, name: &str) -> Option<Fault> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let fits = begins && goes_on && name.len() <= Plan::MAX_NAME;
    let rule = format!("names must have 1 to {} letters, digits and `_`, no digit first", Plan::MAX_NAME);
    (!fits).then(|| Fault::invalid(field, rule))
}

/// The nodes in an order in which each comes after what it waits for, or some that wait for each other.
fn order(waits: &BTreeMap<String, BTreeSet<String>>) -> Result<Vec<String>, Vec<String>> {
    let (mut order, mut done) = (Vec::new(), BTreeSet::new());
    loop {
        let ready = |(name, waits): &(&String, &BTreeSet<String>)| {
            !done.contains(*name) && waits.iter().all(|wait| done.contains(wait))
        };
        let next: Vec<_> = waits.iter().filter(ready).map(|(name, _)| name.clone()).collect();
        if next.is_empty() {
            break;
        }
        done.extend(next.iter().cloned());
        order.extend(next);
    }
    if order.len() == waits.len() { Ok(order) } else { Err(cycle(waits, &done)) }
}

/// Follows waits among those that are never ready: each of them waits for another one, so a name comes up twice.
fn cycle(waits: &BTreeMap<String, BTreeSet<String>>, done: &BTreeSet<String>) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let mut next = waits.keys().find(|name| !done.contains(*name));
    while let Some(name) = next {
        if let Some(at) = path.iter().position(|seen| seen == name) {
            path.drain(..at);
            path.push(name.clone());
            return path;
        }
        path.push(name.clone());
        next = waits.get(name).and_then(|waits| waits.iter().find(|wait| !done.contains(*wait)));
    }
    path
}
