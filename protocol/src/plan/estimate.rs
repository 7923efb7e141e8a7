//! What a plan can cost, before it runs: from prices, the lengths that its texts have, and those that its limits allow.
//!
//! A budget must hold an answer at its longest before the job can be ordered, so answers count at their longest here,
//! too. The least is one item a map and no second try; the most is every item and every try.

use std::collections::{BTreeMap, BTreeSet};

use super::check::{Checked, sources};
use super::error::{Fault, PlanError};
use super::run::groups;
use super::template::names;
use super::{Node, Reduce, Work};
use crate::{Capability, Credits, Price, Sampling, Usage};

/// What a plan can cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// One item a map, no second try.
    pub least: Totals,
    /// Every item, every try.
    pub most: Totals,
    /// Capabilities that have no price: nobody is known to offer them, and their jobs count for no cost.
    pub unpriced: BTreeSet<Capability>,
}

/// Sums over all jobs; they stop at the highest number instead of overflowing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Jobs.
    pub jobs: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
    /// Money.
    pub cost: Credits,
}

/// Bytes of a token: the usual rule of thumb.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens of an input whose text is not known yet.
const INPUT_TOKENS: u64 = 256;
/// Tokens of a chat's template around a prompt.
const FRAME_TOKENS: u64 = 32;

/// How much is assumed where a plan leaves it open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Least,
    Most,
}

/// The size of a node's value.
#[derive(Clone, Copy, Default)]
struct Size {
    elements: u64,
    /// Of all elements together.
    tokens: u64,
}

/// The jobs of a node, all alike.
#[derive(Clone, Copy, Default)]
struct Jobs {
    count: u64,
    prompt: u64,
    completion: u64,
}

type Sizes<'a> = BTreeMap<&'a str, Size>;

impl Checked {
    /// What the plan can cost at these prices.
    pub fn estimate(&self, price_of: impl Fn(&Capability) -> Option<Price>) -> Estimate {
        let mut unpriced = BTreeSet::new();
        let mut total = |case| {
            let (mut total, mut sizes) = (Totals::default(), Sizes::new());
            for name in self.order() {
                let Some(node) = self.node(name) else { continue };
                let (size, jobs) = assess(node, case, &sizes);
                sizes.insert(name, size);
                if let Some(capability) = node.work.capability().filter(|_| jobs.count > 0) {
                    let price = price_of(capability);
                    if price.is_none() {
                        unpriced.insert(capability.clone());
                    }
                    total.add(jobs, price.unwrap_or_default());
                }
            }
            total
        };
        let (least, most) = (total(Case::Least), total(Case::Most));
        Estimate { least, most, unpriced }
    }

    /// Refuses a plan that its budget cannot pay at these prices, or a part of which nobody offers.
    ///
    /// # Errors
    /// [`Fault::Unaffordable`] or [`Fault::Unpriced`].
    pub fn afford(&self, estimate: &Estimate) -> Result<(), PlanError> {
        if let Some(capability) = estimate.unpriced.first() {
            return Err(PlanError::of(Fault::Unpriced { capability: capability.clone() }));
        }
        let (least, budget) = (estimate.least.cost, self.plan().limits.budget);
        match least <= budget {
            true => Ok(()),
            false => Err(PlanError::of(Fault::Unaffordable { least, budget })),
        }
    }
}

/// The tokens that one job of each node may take, prompt and answer together: how the budget is divided.
pub(super) fn weights(checked: &Checked) -> BTreeMap<String, u64> {
    let (mut weights, mut sizes) = (BTreeMap::new(), Sizes::new());
    for name in checked.order() {
        let Some(node) = checked.node(name) else { continue };
        let (size, jobs) = assess(node, Case::Least, &sizes);
        sizes.insert(name, size);
        weights.insert(name.clone(), jobs.prompt.saturating_add(jobs.completion));
    }
    weights
}

impl Totals {
    fn add(&mut self, jobs: Jobs, price: Price) {
        let tokens = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
        let usage = Usage { prompt_tokens: tokens(jobs.prompt), completion_tokens: tokens(jobs.completion) };
        let one = price.cost(usage).unwrap_or(Credits(u64::MAX));
        let sum = |so_far: u64, each: u64| so_far.saturating_add(each.saturating_mul(jobs.count));
        self.jobs = self.jobs.saturating_add(jobs.count);
        self.prompt_tokens = sum(self.prompt_tokens, jobs.prompt);
        self.completion_tokens = sum(self.completion_tokens, jobs.completion);
        self.cost = Credits(sum(self.cost.0, one.0));
    }
}

impl Case {
    /// How often each job is tried.
    fn tries(self, node: &Node) -> u64 {
        if self == Self::Most { u64::from(node.retries) + 1 } else { 1 }
    }
}

impl Size {
    /// Of one element.
    fn each(self) -> u64 {
        self.tokens / self.elements.max(1)
    }
}

/// The size of a node's value, and its jobs.
fn assess(node: &Node, case: Case, sizes: &Sizes<'_>) -> (Size, Jobs) {
    let items = match (&node.for_each, case) {
        (Some(_), Case::Most) => u64::from(node.max_items),
        _ => 1,
    };
    let tries = case.tries(node);
    match &node.work {
        Work::Generate(work) => {
            let (answers, length) = (items * u64::from(work.choices), u64::from(work.max_tokens));
            let jobs = Jobs { count: answers * tries, prompt: prompt(node, sizes), completion: length };
            (Size { elements: answers, tokens: answers * length }, jobs)
        }
        Work::Call(_) => {
            let length = u64::from(Sampling::default().max_tokens);
            let jobs = Jobs { count: items * tries, prompt: prompt(node, sizes), completion: length };
            (Size { elements: items, tokens: items * length }, jobs)
        }
        Work::Concatenate(_) => {
            let all: u64 = seen(node, "concatenate.of", sizes).map(|size| size.tokens).sum();
            (Size { elements: items, tokens: items.saturating_mul(all) }, Jobs::default())
        }
        Work::Vote(_) | Work::Pick(_) => {
            let of = seen(node, "vote.of", sizes).chain(seen(node, "pick.of", sizes));
            let longest = of.map(Size::each).max().unwrap_or_default();
            (Size { elements: items, tokens: items.saturating_mul(longest) }, Jobs::default())
        }
        Work::Reduce(work) => reduce(node, work, case, sizes),
    }
}

/// A tree over as many elements as are known, or as the node allows.
fn reduce(node: &Node, work: &Reduce, case: Case, sizes: &Sizes<'_>) -> (Size, Jobs) {
    let of: Vec<_> = seen(node, "reduce.of", sizes).collect();
    let known = of.iter().map(|size| size.elements).sum::<u64>().min(node.max_items.into());
    let open = known <= 1 && case == Case::Most;
    let elements = if open { node.max_items.into() } else { known };
    let longest = of.iter().map(|size| size.each()).max().unwrap_or_default();
    let completion = u64::from(work.by.max_tokens);
    let group = u64::from(work.arity).saturating_mul(longest.max(completion));
    let count = groups(elements, work.arity.into()) * case.tries(node);
    let jobs = Jobs { count, prompt: prompt(node, sizes).saturating_add(group), completion };
    (Size { elements: 1, tokens: completion.max(longest) }, jobs)
}

/// Tokens of one prompt of a node: its own texts, and all that they name.
fn prompt(node: &Node, sizes: &Sizes<'_>) -> u64 {
    let mut tokens = FRAME_TOKENS;
    let asks =
        |field: &str| field.ends_with("system") || field.ends_with("prompt") || field.ends_with("arguments");
    for source in sources(node).into_iter().filter(|source| asks(source.field)) {
        let named = names(source.syntax, source.text).unwrap_or_default();
        let inputs = named.iter().filter(|name| name.starts_with("inputs.")).count() as u64;
        tokens += source.text.len() as u64 / BYTES_PER_TOKEN + inputs * INPUT_TOKENS;
        tokens = seen(node, source.field, sizes).fold(tokens, |sum, size| sum.saturating_add(size.tokens));
    }
    seen(node, "for_each", sizes).fold(tokens, |sum, size| sum.saturating_add(size.each()))
}

/// The sizes of the nodes that one text of a node names.
fn seen<'a>(node: &Node, field: &str, sizes: &'a Sizes<'_>) -> impl Iterator<Item = Size> + use<'a> {
    let source = sources(node).into_iter().find(|source| source.field == field);
    let named = source.and_then(|source| names(source.syntax, source.text).ok()).unwrap_or_default();
    let mut nodes: Vec<_> = named.iter().filter_map(|name| name.strip_prefix("nodes.")).collect();
    nodes.iter_mut().for_each(|name| *name = name.split('.').next().unwrap_or_default());
    nodes.dedup();
    nodes.into_iter().filter_map(|name| sizes.get(name).copied()).collect::<Vec<_>>().into_iter()
}
