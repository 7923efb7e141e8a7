//! Sessions of the revisions that have them: whose each is, how many there may be, and when one is forgotten.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rmcp::transport::streamable_http_server::session::SessionManager as _;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::LONGEST;
use crate::api::keys::Caller;

/// Sessions of all callers: each is a task and some queues. More than the peer serves streams at once makes no sense.
const MAX: usize = 256;
/// Sessions of one caller, so that none takes all of them. One more ends the one that was used least lately.
const MAX_OF_CALLER: usize = 64;
/// Streams on which a session's news are waited for: one that is read, and one that broke and is not known to be gone yet.
const MAX_STREAMS: usize = 2;
/// How long a session may be idle: longer than any call takes, so that none ends in the middle of one.
const IDLE: Duration = Duration::from_secs(LONGEST.as_secs() + 60);

/// All sessions.
pub(super) struct Sessions {
    manager: Arc<LocalSessionManager>,
    known: Mutex<BTreeMap<Arc<str>, Session>>,
}

struct Session {
    caller: Caller,
    used: Instant,
    streams: Arc<Semaphore>,
}

impl Default for Sessions {
    fn default() -> Self {
        let mut manager = LocalSessionManager::default();
        manager.session_config.keep_alive = Some(IDLE);
        Self { manager: Arc::new(manager), known: Mutex::default() }
    }
}

impl Sessions {
    /// Who carries them.
    pub(super) fn manager(&self) -> Arc<LocalSessionManager> {
        Arc::clone(&self.manager)
    }

    /// Whether this session is the caller's; if so, it is in use.
    pub(super) fn use_by(&self, session: &str, caller: Caller) -> bool {
        match self.known().get_mut(session).filter(|known| known.caller == caller) {
            Some(known) => {
                known.used = Instant::now();
                true
            }
            None => false,
        }
    }

    /// A place to wait for news of a session, if one is left.
    pub(super) fn listen(&self, session: &str) -> Option<OwnedSemaphorePermit> {
        let streams = Arc::clone(&self.known().get(session)?.streams);
        streams.try_acquire_owned().ok()
    }

    /// Takes up a session that has just begun; false, and it is over, where there are too many already.
    pub(super) async fn keep(&self, session: &Arc<str>, caller: Caller) -> bool {
        self.forget_ended().await;
        let (kept, over) = self.enter(session, caller);
        if let Some(over) = over {
            // One that has ended by itself is what was wanted.
            let _ = self.manager.close_session(&over).await;
        }
        kept
    }

    /// Enters a session; and which one is to end, it or an old one.
    fn enter(&self, session: &Arc<str>, caller: Caller) -> (bool, Option<Arc<str>>) {
        let mut known = self.known();
        let own = || known.iter().filter(|(_, known)| known.caller == caller);
        let over = match own().count() {
            count if count >= MAX_OF_CALLER => {
                own().min_by_key(|(_, known)| known.used).map(|(name, _)| Arc::clone(name))
            }
            _ if known.len() >= MAX => return (false, Some(Arc::clone(session))),
            _ => None,
        };
        if let Some(over) = &over {
            known.remove(over);
        }
        let streams = Arc::new(Semaphore::new(MAX_STREAMS));
        known.insert(Arc::clone(session), Session { caller, used: Instant::now(), streams });
        (true, over)
    }

    /// A session is over.
    pub(super) fn forget(&self, session: &str) {
        self.known().remove(session);
    }

    /// Those that were idle for too long have ended by themselves.
    async fn forget_ended(&self) {
        let running = self.manager.sessions.read().await;
        self.known().retain(|name, _| running.contains_key(name));
    }

    /// A panic elsewhere leaves whole entries behind: each is changed in one step.
    fn known(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Session>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::keys::token::KeyId;

    fn name(number: usize) -> Arc<str> {
        format!("session-{number}").into()
    }

    #[test]
    fn a_session_is_its_caller_s_only() {
        let (sessions, mine, other) = (Sessions::default(), name(1), Caller::Key(KeyId::new().unwrap()));
        assert_eq!(sessions.enter(&mine, Caller::Owner), (true, None));
        assert!(sessions.use_by(&mine, Caller::Owner));
        assert!(!sessions.use_by(&mine, other));
        assert!(!sessions.use_by("unknown", Caller::Owner));
        sessions.forget(&mine);
        assert!(!sessions.use_by(&mine, Caller::Owner));
    }

    #[test]
    fn one_too_many_ends_the_one_that_was_used_least_lately() {
        let sessions = Sessions::default();
        for number in 0..MAX_OF_CALLER {
            assert_eq!(sessions.enter(&name(number), Caller::Owner), (true, None));
        }
        assert!(sessions.use_by(&name(0), Caller::Owner));
        assert_eq!(sessions.enter(&name(MAX_OF_CALLER), Caller::Owner), (true, Some(name(1))));
        assert!(!sessions.use_by(&name(1), Caller::Owner));
        assert!(sessions.use_by(&name(0), Caller::Owner));
    }

    #[test]
    fn nobody_begins_one_where_all_together_have_too_many() {
        let sessions = Sessions::default();
        for caller in 0..MAX / MAX_OF_CALLER {
            let key = Caller::Key(KeyId::new().unwrap());
            for number in 0..MAX_OF_CALLER {
                assert!(sessions.enter(&name(caller * MAX_OF_CALLER + number), key).0);
            }
        }
        assert_eq!(sessions.enter(&name(MAX), Caller::Owner), (false, Some(name(MAX))));
    }

    #[test]
    fn a_session_is_listened_to_once_and_once_more() {
        let sessions = Sessions::default();
        sessions.enter(&name(1), Caller::Owner);
        let first = sessions.listen("session-1").unwrap();
        let _second = sessions.listen("session-1").unwrap();
        assert!(sessions.listen("session-1").is_none());
        drop(first);
        assert!(sessions.listen("session-1").is_some());
    }
}
