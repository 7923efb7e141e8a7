//! What has changed in a list whose entries have names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// From one list to the next: what is new or other than before, and what is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes<T> {
    /// Entries to put in the place of what has their name.
    #[serde(default = "BTreeMap::new")]
    pub set: BTreeMap<String, T>,
    /// Names to forget.
    #[serde(default)]
    pub gone: Vec<String>,
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Self { set: BTreeMap::new(), gone: Vec::new() }
    }
}

impl<T: Clone + PartialEq> Changes<T> {
    /// What leads from `old` to `new`.
    pub fn between(old: Option<&BTreeMap<String, T>>, new: &BTreeMap<String, T>) -> Self {
        let Some(old) = old else { return Self { set: new.clone(), gone: Vec::new() } };
        let other = new.iter().filter(|(name, entry)| old.get(*name) != Some(*entry));
        Self {
            set: other.map(|(name, entry)| (name.clone(), entry.clone())).collect(),
            gone: old.keys().filter(|name| !new.contains_key(*name)).cloned().collect(),
        }
    }
}

impl<T> Changes<T> {
    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.gone.is_empty()
    }

    /// Does to a list what they say.
    pub fn apply(self, list: &mut BTreeMap<String, T>) {
        self.gone.iter().for_each(|name| {
            list.remove(name);
        });
        list.extend(self.set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, u8)]) -> BTreeMap<String, u8> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn whoever_applies_every_change_has_the_list() {
        let lists = [list(&[]), list(&[("a", 1), ("b", 2)]), list(&[("b", 3), ("c", 4)]), list(&[])];
        let (mut told, mut followed) = (None, BTreeMap::new());
        for new in &lists {
            Changes::between(told, new).apply(&mut followed);
            assert_eq!(&followed, new);
            told = Some(new);
        }
    }

    #[test]
    fn what_is_as_before_is_not_told() {
        let (old, new) = (list(&[("a", 1), ("b", 2)]), list(&[("a", 1), ("b", 3)]));
        let changes = Changes::between(Some(&old), &new);
        assert_eq!((changes.set, changes.gone), (list(&[("b", 3)]), Vec::new()));
        assert!(Changes::between(Some(&old), &old).is_empty());
    }
}
