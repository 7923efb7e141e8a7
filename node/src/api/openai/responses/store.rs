//! Responses that can be gone on with: bounded in number, bytes and age; the oldest go first.
//!
//! A pure table: time is an input.

use std::collections::{BTreeMap, VecDeque};

use protocol::{ChatMessage, Timestamp};
use serde_json::Value;

use crate::api::keys::Caller;

/// How long a response can be gone on with, in milliseconds.
const LIFETIME: u64 = 24 * 60 * 60 * 1000;
/// Responses kept: some conversations of some programs.
const MAX_RESPONSES: usize = 1024;
/// Bytes of all of them, as text. One has the conversation before it, too, which a job bounds to a megabyte.
const MAX_BYTES: usize = 64 << 20;

/// One response.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Whose it is: to others it is not there.
    pub(super) owner: Caller,
    /// The conversation with its answer, without instructions.
    pub(super) messages: Vec<ChatMessage>,
    /// What its client was told.
    pub(super) body: Value,
}

/// All of them.
#[derive(Debug, Default)]
pub(in crate::api::openai) struct Store {
    kept: BTreeMap<String, Kept>,
    /// Their names, the oldest first; those that were deleted may still be among them.
    order: VecDeque<String>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    stored: Stored,
    until: Timestamp,
    bytes: usize,
}

impl Store {
    /// Keeps one, and lets the oldest go that are too old or do not fit beside it.
    pub(super) fn keep(&mut self, now: Timestamp, id: String, stored: Stored) {
        let bytes = size(&stored);
        if bytes > MAX_BYTES {
            return;
        }
        self.forget_old(now);
        while self.kept.len() >= MAX_RESPONSES || self.bytes + bytes > MAX_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.take(&oldest);
        }
        self.bytes += bytes;
        self.order.push_back(id.clone());
        self.kept.insert(id, Kept { stored, until: now.after(LIFETIME), bytes });
    }

    /// One of the caller's.
    pub(super) fn get(&mut self, now: Timestamp, caller: Caller, id: &str) -> Option<&Stored> {
        self.forget_old(now);
        self.kept.get(id).map(|kept| &kept.stored).filter(|stored| stored.owner == caller)
    }

    /// Deletes one of the caller's; false where there was none.
    pub(super) fn remove(&mut self, now: Timestamp, caller: Caller, id: &str) -> bool {
        if self.get(now, caller, id).is_none() {
            return false;
        }
        self.order.retain(|known| known != id);
        self.take(id)
    }

    fn forget_old(&mut self, now: Timestamp) {
        while let Some(oldest) = self.order.front() {
            if self.kept.get(oldest).is_some_and(|kept| kept.until > now) {
                return;
            }
            if let Some(oldest) = self.order.pop_front() {
                self.take(&oldest);
            }
        }
    }

    fn take(&mut self, id: &str) -> bool {
        let taken = self.kept.remove(id);
        self.bytes -= taken.as_ref().map_or(0, |kept| kept.bytes);
        taken.is_some()
    }
}

/// About what one takes.
fn size(stored: &Stored) -> usize {
    let message = |message: &ChatMessage| {
        let calls: usize =
            message.tool_calls.iter().map(|call| call.name.len() + call.arguments.len() + 64).sum();
        message.content.len() + calls + 64
    };
    stored.messages.iter().map(message).sum::<usize>() + stored.body.to_string().len()
}

#[cfg(test)]
mod tests {
    use protocol::Role;
    use serde_json::json;

    use super::*;
    use crate::api::keys::token::KeyId;

    const OWNER: Caller = Caller::Owner;

    fn stored(bytes: usize) -> Stored {
        let messages = vec![ChatMessage::new(Role::User, "x".repeat(bytes))];
        Stored { owner: OWNER, messages, body: json!({}) }
    }

    #[test]
    fn the_oldest_go_first() {
        let mut store = Store::default();
        let now = Timestamp(5);
        for number in 0..=MAX_RESPONSES {
            store.keep(now, number.to_string(), stored(1));
        }
        assert!(store.get(now, OWNER, "0").is_none() && store.get(now, OWNER, "1").is_some());
        assert!(
            store.remove(now, OWNER, "1")
                && !store.remove(now, OWNER, "1")
                && store.get(now, OWNER, "1").is_none()
        );
        store.keep(now, "large".to_owned(), stored(MAX_BYTES - 1024));
        assert!(store.get(now, OWNER, "2").is_none() && store.get(now, OWNER, "large").is_some());
        store.keep(now, "too large".to_owned(), stored(MAX_BYTES));
        assert!(store.get(now, OWNER, "too large").is_none() && store.get(now, OWNER, "large").is_some());
    }

    #[test]
    fn one_is_there_for_its_owner_only() {
        let (mut store, now) = (Store::default(), Timestamp(5));
        let [mine, other] = [0, 1].map(|_| Caller::Key(KeyId::new().unwrap()));
        store.keep(now, "a".to_owned(), Stored { owner: mine, ..stored(1) });
        assert!(store.get(now, other, "a").is_none() && store.get(now, OWNER, "a").is_none());
        assert!(!store.remove(now, other, "a") && store.get(now, mine, "a").is_some());
        assert!(store.remove(now, mine, "a"));
    }

    #[test]
    fn none_is_kept_longer_than_a_day() {
        let mut store = Store::default();
        store.keep(Timestamp(0), "a".to_owned(), stored(1));
        store.keep(Timestamp(1000), "b".to_owned(), stored(1));
        assert!(store.get(Timestamp(LIFETIME - 1), OWNER, "a").is_some());
        assert!(
            store.get(Timestamp(LIFETIME), OWNER, "a").is_none()
                && store.get(Timestamp(LIFETIME), OWNER, "b").is_some()
        );
        assert!(!store.remove(Timestamp(LIFETIME + 1000), OWNER, "b"));
        assert_eq!((store.bytes, store.order.len()), (0, 0));
    }
}
