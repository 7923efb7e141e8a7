//! Who owes whom: balances that follow from countersigned receipts, and from nothing else.
//!
//! The ledger is a fold over its journal: [`Ledger::apply`] of the same entries gives the same balances, in any
//! process. The same receipt counts once, however often it is presented.

#![deny(clippy::float_arithmetic)]

use std::collections::{BTreeMap, BTreeSet};

use crypto::{Digest, PeerId};
use serde::{Deserialize, Serialize};

use crate::{Credits, codec};

/// One line of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The receipt that it follows from.
    pub receipt: Digest,
    /// The other side.
    pub peer: PeerId,
    /// In which direction.
    pub direction: Direction,
    /// How much.
    pub amount: Credits,
}

/// Who owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// They owe us.
    Earned,
    /// We owe them.
    Spent,
}

impl Entry {
    /// The journal's bytes for this line.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a line of the journal.
    ///
    /// # Errors
    /// [`crate::DecodeError`] where the journal is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, crate::DecodeError> {
        codec::decode(bytes)
    }
}

/// The account with one peer: totals in both directions, which only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Everything that they ever owed us.
    pub earned: Credits,
    /// Everything that we ever owed them.
    pub spent: Credits,
}

/// Why an entry was not booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// It is in the books already.
    #[error("this receipt is booked already")]
    Known,
    /// The total would be more than money can count.
    #[error("the account would overflow")]
    Overflow,
}

/// All accounts.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<PeerId, Account>,
    // Grows with receipts that this peer itself signed or countersigned, so no stranger can fill it for nothing.
    // When we serve ourselves, both directions of one receipt are booked.
    booked: BTreeSet<(Digest, bool)>,
}

impl Ledger {
    /// Books an entry, or leaves the ledger as it was.
    ///
    /// # Errors
    /// [`BookError`].
    pub fn apply(&mut self, entry: &Entry) -> Result<(), BookError> {
        let key = (entry.receipt, entry.direction == Direction::Earned);
        if self.booked.contains(&key) {
            return Err(BookError::Known);
        }
        let mut account = self.account(&entry.peer);
        let total = match entry.direction {
            Direction::Earned => &mut account.earned,
            Direction::Spent => &mut account.spent,
        };
        *total = total.plus(entry.amount).ok_or(BookError::Overflow)?;
        self.accounts.insert(entry.peer, account);
        self.booked.insert(key);
        Ok(())
    }

    /// The account with `peer`.
    pub fn account(&self, peer: &PeerId) -> Account {
        self.accounts.get(peer).copied().unwrap_or_default()
    }

    /// All accounts.
    pub fn accounts(&self) -> impl Iterator<Item = (PeerId, Account)> {
        self.accounts.iter().map(|(peer, account)| (*peer, *account))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(receipt: u8, seed: u8, earned: bool, amount: u64) -> Entry {
        Entry {
            receipt: Digest::of("test", &[receipt]),
            peer: crypto::SecretKey::from_seed(&[seed; 32]).peer_id(),
            direction: if earned { Direction::Earned } else { Direction::Spent },
            amount: Credits(amount),
        }
    }

    #[test]
    fn an_overflow_changes_nothing() {
        let mut ledger = Ledger::default();
        ledger.apply(&entry(1, 1, true, u64::MAX)).unwrap();
        let before = ledger.account(&entry(1, 1, true, 0).peer);
        assert_eq!(ledger.apply(&entry(2, 1, true, 1)), Err(BookError::Overflow));
        assert_eq!(ledger.account(&entry(1, 1, true, 0).peer), before);
        assert_eq!(ledger.apply(&entry(2, 1, true, 0)), Ok(()), "the refused receipt was not booked");
    }

    proptest! {
        /// Order and repetition of entries do not matter: the journal may be replayed after any crash.
        #[test]
        fn balances_are_a_function_of_the_set_of_receipts(
            entries in prop::collection::vec((0u8..20, 0u8..3, any::<bool>(), 0u64..1000), 0..60),
            rotation in 0usize..60,
        ) {
            let unique: BTreeMap<_, _> = entries.iter().map(|e| ((e.0, e.2), *e)).collect();
            let mut once = Ledger::default();
            for (receipt, seed, earned, amount) in unique.values() {
                once.apply(&entry(*receipt, *seed, *earned, *amount)).unwrap();
            }
            let mut again: Vec<_> = unique.values().chain(unique.values()).collect();
            let len = again.len().max(1);
            again.rotate_left(rotation % len);
            let mut twice = Ledger::default();
            for (receipt, seed, earned, amount) in again {
                let _ = twice.apply(&entry(*receipt, *seed, *earned, *amount));
            }
            prop_assert!(once.accounts().eq(twice.accounts()));
        }
    }
}
