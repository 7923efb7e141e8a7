//! How far a call is, for clients that asked to be told.

use std::time::{Duration, Instant};

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};

/// Between two reports, unless something ends: people read no faster, and a model may make hundreds of tokens a second.
const PAUSE: Duration = Duration::from_millis(100);

/// Where reports go.
#[derive(Debug)]
pub(super) struct Progress {
    to: Option<(Peer<RoleServer>, ProgressToken)>,
    told: Option<(f64, Instant)>,
}

impl Progress {
    /// To whoever sent the request, if they want to hear it.
    pub(super) fn of(context: &RequestContext<RoleServer>) -> Self {
        let token = context.meta.get_progress_token();
        Self { to: token.map(|token| (context.peer.clone(), token)), told: None }
    }

    /// So much is done, of so much where that is known. Told now and then, and only where it is more than before.
    pub(super) async fn tell(&mut self, done: f64, of: Option<f64>, message: String) {
        if self.told.is_none_or(|(_, when)| when.elapsed() >= PAUSE) {
            self.tell_now(done, of, message).await;
        }
    }

    /// The same at once.
    pub(super) async fn tell_now(&mut self, done: f64, of: Option<f64>, message: String) {
        let Some((peer, token)) = self.to.as_ref().filter(|_| self.told.is_none_or(|(last, _)| done > last))
        else {
            return;
        };
        let report = ProgressNotificationParam::new(token.clone(), done).with_message(message);
        let report = of.into_iter().fold(report, ProgressNotificationParam::with_total);
        // Whoever has left hears nothing, and is cancelled elsewhere.
        let _ = peer.notify_progress(report).await;
        self.told = Some((done, Instant::now()));
    }
}
