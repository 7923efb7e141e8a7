//! The jobs of one node while they run: where each one stands, and what their answers make together.

use std::collections::BTreeMap;

use crypto::PeerId;
use minijinja::Value;

use super::task::{Place, TaskId};
use super::template::none;

/// All jobs of a node, or of one level of its reduce tree.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// What the tasks' `item` counts from: later levels of a tree go on where the one before stopped.
    base: u32,
    places: Vec<Place>,
    choices: u16,
    /// Whether the value is a list over the places.
    maps: bool,
    /// One value for each place and each choice of it.
    values: Vec<Option<Value>>,
    avoid: BTreeMap<usize, Vec<PeerId>>,
    tally: Tally,
}

/// How the jobs of a node ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) skipped: u32,
    pub(super) substituted: u32,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Answer,
    Skip,
    Substitute,
}

impl Tally {
    pub(super) fn count(&mut self, origin: Origin) {
        match origin {
            Origin::Answer => {}
            Origin::Skip => self.skipped += 1,
            Origin::Substitute => self.substituted += 1,
        }
    }
}

impl Run {
    /// A job for each place and choice.
    pub(super) fn new(places: Vec<Place>, choices: u16, maps: bool) -> Self {
        let values = vec![None; places.len() * usize::from(choices)];
        Self { base: 0, places, choices, maps, values, avoid: BTreeMap::new(), tally: Tally::default() }
    }

    /// The lowest level of a tree.
    pub(super) fn tree(elements: Vec<Value>, arity: u16) -> Self {
        Self::level(0, elements, arity, Tally::default())
    }

    /// A level of a tree: an element that is alone in its group goes up as it is.
    fn level(base: u32, elements: Vec<Value>, arity: u16, tally: Tally) -> Self {
        let groups: Vec<_> = elements.chunks(arity.max(2).into()).map(<[Value]>::to_vec).collect();
        let alone =
            |group: &Vec<Value>| if let [only] = group.as_slice() { Some(only.clone()) } else { None };
        let values = groups.iter().map(alone).collect();
        let places = groups.into_iter().map(Place::Group).collect();
        Self { base, places, choices: 1, maps: false, values, avoid: BTreeMap::new(), tally }
    }

    /// The next level of a tree, or the value that is left of it.
    pub(super) fn up(self, arity: u16) -> Result<Self, (Value, Tally)> {
        let base = self.base + u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let mut elements: Vec<_> =
            self.values.into_iter().flatten().filter(|value| !value.is_none()).collect();
        match elements.len() {
            0 | 1 => Err((elements.pop().unwrap_or_else(none), self.tally)),
            _ => Ok(Self::level(base, elements, arity, self.tally)),
        }
    }

    /// The first tries of all jobs.
    pub(super) fn tasks(&self, node: &str) -> Vec<TaskId> {
        let open = self.values.iter().enumerate().filter(|(_, value)| value.is_none());
        let task = |slot: usize| {
            let (item, choice) = (slot / usize::from(self.choices), slot % usize::from(self.choices));
            let item = self.base + u32::try_from(item).unwrap_or(u32::MAX);
            let choice = u16::try_from(choice).unwrap_or(u16::MAX);
            TaskId { node: node.to_owned(), item, choice, attempt: 0 }
        };
        open.map(|(slot, _)| task(slot)).collect()
    }

    /// Where a task's templates stand.
    pub(super) fn place(&self, task: &TaskId) -> Option<&Place> {
        self.places.get(task.item.checked_sub(self.base)? as usize)
    }

    /// Peers that failed at this job.
    pub(super) fn avoid(&self, task: &TaskId) -> Vec<PeerId> {
        self.slot(task).and_then(|slot| self.avoid.get(&slot)).cloned().unwrap_or_default()
    }

    /// A peer failed at this job.
    pub(super) fn shun(&mut self, task: &TaskId, peer: PeerId) {
        let Some(slot) = self.slot(task) else { return };
        let shunned = self.avoid.entry(slot).or_default();
        if !shunned.contains(&peer) {
            shunned.push(peer);
        }
    }

    /// A job has its value.
    pub(super) fn fill(&mut self, task: &TaskId, value: Value, origin: Origin) {
        let slot = self.slot(task).and_then(|slot| self.values.get_mut(slot)).filter(|slot| slot.is_none());
        if let Some(slot) = slot {
            *slot = Some(value);
            self.tally.count(origin);
        }
    }

    /// Jobs without a value so far, and all of them.
    pub(super) fn left(&self) -> (usize, usize) {
        (self.values.iter().filter(|value| value.is_none()).count(), self.values.len())
    }

    /// Jobs of the later levels of a tree.
    pub(super) fn later(&self, arity: u16) -> u64 {
        groups(self.values.len() as u64, arity.into())
    }

    /// What all jobs make together: one value, or lists over places and choices.
    pub(super) fn value(self) -> (Value, Tally) {
        let values: Vec<_> = self.values.into_iter().map(|value| value.unwrap_or_else(none)).collect();
        let one = |chunk: &[Value]| match chunk {
            [only] if self.choices == 1 => only.clone(),
            several => Value::from(several.to_vec()),
        };
        let mut items: Vec<_> = values.chunks(self.choices.max(1).into()).map(one).collect();
        let value = if self.maps { Value::from(items) } else { items.pop().unwrap_or_else(none) };
        (value, self.tally)
    }

    fn slot(&self, task: &TaskId) -> Option<usize> {
        let item = task.item.checked_sub(self.base)? as usize;
        Some(item * usize::from(self.choices) + usize::from(task.choice))
    }
}

/// How many groups of two or more a reduce tree over `elements` has.
pub(super) fn groups(mut elements: u64, arity: u64) -> u64 {
    let (mut groups, arity) = (0, arity.max(2));
    while elements > 1 {
        let alone = u64::from(elements % arity == 1);
        elements = elements.div_ceil(arity);
        groups += elements - alone;
    }
    groups
}
