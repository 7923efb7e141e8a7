//! One thread that computes for many, so that nothing else ever waits for a model.
//!
//! The worker owns the engine's time. Jobs come through a bounded queue; up to `slots` of them run at once and share
//! every pass through the model, as the [`schedule`](crate::schedule) decides. What a step brings goes to the job's
//! sink *on the worker's thread*: a sink must not block. When its reader is behind, it hands the event back as
//! [`Flow::Full`]; the worker keeps it, serves the others and offers it again. A job is cancelled by its sink or by
//! its [`Cancel`], and holds nothing after the pass that is under way; an engine that panics fails its job only.

mod driver;
mod job;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::engine::{Engine, GenerateError};
use crate::generation::Step;
use crate::logprobs::Logprobs;
use crate::replay::Replay;
use crate::schedule::{JobNumber, Tenant};
use driver::Driver;
pub use job::Job;

/// What a job's sink hears, in this order: `Started`, then steps, and at last one of `Failed`, `Replayed`,
/// `Scored` or a finished step.
#[derive(Debug)]
pub enum Event {
    /// The job failed; nothing follows.
    Failed(GenerateError),
    /// So much of a replay is done.
    Replaying {
        /// Tokens done.
        done: u32,
        /// Tokens to do.
        of: u32,
    },
    /// The replay's result; nothing follows.
    Replayed(Replay),
    /// The numbers of a scoring; nothing follows.
    Scored(Vec<Logprobs>),
    /// So much of a text that is scored has been read.
    Scoring {
        /// Tokens read.
        done: u32,
        /// Tokens to read.
        of: u32,
    },
    /// The job left the queue.
    Started,
    /// A step of a generation.
    Step(Step),
}

impl Event {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(
            self,
            Self::Failed(_) | Self::Replayed(_) | Self::Scored(_) | Self::Step(Step::Finished { .. })
        )
    }
}

/// A sink's answer to an event.
#[derive(Debug)]
pub enum Flow {
    /// The job is no longer wanted.
    Cancel,
    /// Taken; go on.
    Continue,
    /// Not now: here it is back.
    Full(Event),
}

/// Where a job's events go. It is called on the worker's thread and must return at once.
pub type Sink = Box<dyn FnMut(Event) -> Flow + Send>;

/// How a job is called off from elsewhere, also one that waits and whose sink hears nothing yet. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Calls the job off.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A job, and for whom.
#[derive(Debug)]
pub struct Submission {
    /// What to do.
    pub job: Job,
    /// On whose behalf: what is read for one tenant is never reused for another.
    pub tenant: Tenant,
    /// How many leading tokens of the prompt are public, so that what was read of them serves everybody.
    pub public: usize,
    /// Calls it off.
    pub cancel: Cancel,
}

impl<J: Into<Job>> From<J> for Submission {
    /// A job of nobody in particular.
    fn from(job: J) -> Self {
        Self { job: job.into(), tenant: Tenant::default(), public: 0, cancel: Cancel::default() }
    }
}

/// How much a worker takes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Serving {
    /// Jobs that run at once; at least one.
    pub slots: usize,
    /// Jobs that wait; at least one.
    pub queue: usize,
    /// Bytes for what sequences have read, also of those kept for later. A single context always fits.
    pub memory: u64,
    /// How many times longer a token may take because others are served, too, as far as the engine shares passes. More
    /// serves more in all; infinity fills every slot.
    pub stretch: f64,
}

impl Default for Serving {
    fn default() -> Self {
        Self { slots: 16, queue: 64, memory: 2 << 30, stretch: STRETCH }
    }
}

/// A job that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full.
    #[error("all slots and the queue are full; try again in {} ms or ask another peer", retry_after.as_millis())]
    Busy {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// The worker's thread has ended.
    #[error("the worker has stopped; restart the peer")]
    Stopped,
}

/// How much a worker has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Jobs that get steps.
    pub running: usize,
    /// Jobs in the queue.
    pub waiting: usize,
    /// Jobs that can run at once.
    pub slots: usize,
}

/// What a worker did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passes through the model.
    pub passes: u64,
    /// Tokens that were read in them.
    pub rows: u64,
    /// Tokens that need not be read, because they had been before.
    pub reused: u64,
    /// Jobs that began with something that had been read before.
    pub hits: u64,
    /// Jobs that began with nothing.
    pub misses: u64,
    /// How long all passes took together.
    pub busy: Duration,
    /// Jobs that were set back for want of memory.
    pub preempted: u64,
    /// Kept sequences that were given up for want of memory.
    pub evicted: u64,
}

/// A handle to a worker. Handles are cheap to clone; when the last is dropped, the worker stops after the pass it
/// is at, and the jobs it has end without a last event.
#[derive(Clone, Debug)]
pub struct Worker {
    engine: Arc<dyn Engine>,
    handles: Arc<Handles>,
    serving: Serving,
}

impl Worker {
    /// Starts the thread.
    pub fn start(engine: Arc<dyn Engine>, serving: Serving) -> std::io::Result<Self> {
        let serving = Serving { slots: serving.slots.max(1), queue: serving.queue.max(1), ..serving };
        let desk = Arc::new(Desk::default());
        let driver = Driver::new(Arc::clone(&engine), Arc::clone(&desk), serving);
        thread::Builder::new().name("inference".to_owned()).spawn(move || driver.run())?;
        Ok(Self { engine, handles: Arc::new(Handles(desk)), serving })
    }

    /// The engine, for cards, prompts and tokens.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Puts a job into the queue, or says at once that there is no room, and when there may be.
    pub fn try_submit(&self, submission: impl Into<Submission>, sink: Sink) -> Result<(), SubmitError> {
        let Handles(desk) = self.handles.as_ref();
        let mut state = desk.lock();
        if state.closed {
            return Err(SubmitError::Stopped);
        }
        if state.waiting >= self.serving.queue {
            return Err(SubmitError::Busy { retry_after: state.retry_after });
        }
        state.waiting += 1;
        state.numbers += 1;
        let number = state.numbers;
        state.arrivals.push(Arrival { number, submission: submission.into(), sink });
        desk.news.notify_one();
        Ok(())
    }

    /// How much there is to do.
    #[must_use]
    pub fn load(&self) -> Load {
        let state = self.handles.0.lock();
        Load { running: state.running, waiting: state.waiting, slots: self.serving.slots }
    }

    /// What was done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.handles.0.lock().tally
    }
}

/// All handles together: the last one closes the desk.
#[derive(Debug)]
struct Handles(Arc<Desk>);

impl Drop for Handles {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Where handles and the thread meet.
#[derive(Debug, Default)]
struct Desk {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    arrivals: Vec<Arrival>,
    /// Jobs that came and do not run: what the queue's bound counts.
    waiting: usize,
    running: usize,
    numbers: JobNumber,
    retry_after: Duration,
    tally: Tally,
    closed: bool,
}

struct Arrival {
    number: JobNumber,
    submission: Submission,
    sink: Sink,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.news.notify_all();
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").field("number", &self.number).finish_non_exhaustive()
    }
}

/// What a reader still takes for fluent.
const STRETCH: f64 = 2.6;

#[cfg(test)]
mod tests;
