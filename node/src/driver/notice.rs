//! What a job's submitter is told, and what is kept and paid before that.

use protocol::event::{self, JobEvent};
use protocol::{Event, JobId, Timestamp};
use tokio::sync::mpsc;

use super::{Driver, on_disk};
use crate::handle::Subscriber;
use crate::receipts::ReceiptFile;

/// Events of a job that may wait for its submitter before reports of progress are left out.
const PROGRESS_BACKLOG: usize = 64;

impl Driver {
    pub(super) fn notify(&mut self, now: Timestamp, job: JobId, event: JobEvent) {
        self.state.jobs.on_event(now, job, &event);
        if let JobEvent::Done(completion) = &event {
            self.keep(completion);
            let answer = completion.opening.output.iter().map(|token| token.text.as_str()).collect();
            self.state.affinity.served(&completion.opening.input, answer, completion.receipt.signer());
        }
        let last = matches!(event, JobEvent::Done(_) | JobEvent::Failed(_));
        let Some(Subscriber { events: subscriber, hold }) = self.state.subscribers.get_mut(&job) else {
            return;
        };
        if let JobEvent::Done(completion) = &event
            && let Some(hold) = hold.take()
        {
            on_disk(|| hold.settle(completion.receipt.cost));
        }
        // The queue holds a whole answer and what must be told around it. Progress has no bound, so it is told only to
        // who keeps up.
        let waiting = subscriber.max_capacity() - subscriber.capacity();
        if matches!(event, JobEvent::Progress { .. }) && waiting >= PROGRESS_BACKLOG {
            return;
        }
        let gone = matches!(subscriber.try_send(event), Err(mpsc::error::TrySendError::Closed(_)));
        if last || gone {
            self.state.subscribers.remove(&job);
        }
        if gone && !last {
            self.peer.handle(now, Event::Command(event::Command::Cancel { job }));
        }
    }

    /// Keeps the receipt before anybody hears of it.
    fn keep(&self, completion: &event::Completion) {
        let Some(folder) = &self.receipts else { return };
        let saved = on_disk(|| ReceiptFile::of(&self.network, completion)?.save(folder));
        self.state.witness.receipt(saved.is_ok());
        if let Err(error) = saved {
            tracing::error!(%error, "a receipt could not be kept");
        }
    }
}
