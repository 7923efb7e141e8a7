//! One thread that computes, so that nothing else ever waits for a model.
//!
//! The worker owns the engine's time. It takes jobs from a bounded queue, runs up to `slots` of them at once, and
//! gives each in turn one step (a chunk of prompt, a token, a replayed position), so that a short answer does not
//! wait for a long one. What a step brings goes to the job's sink *on the worker's thread*: a sink must not block.
//! When its reader is behind, it hands the event back as [`Flow::Full`]; the worker keeps it, serves the others
//! and offers it again. A job is cancelled by its sink, within one step; an engine that panics fails its job only.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::engine::{Engine, GenerateError, Request};
use crate::generation::{Generation, Step};
use crate::model::panic_message;
use crate::replay::{Claim, Replay, ReplayStep, Replaying};

/// What a worker can be asked to do.
#[derive(Clone, Debug)]
pub enum Job {
    /// Answer a request.
    Generate(Request),
    /// Check a claimed answer.
    Replay(Claim),
}

/// What a job's sink hears, in this order: `Started`, then steps, and at last one of `Failed`, `Replayed` or a
/// finished step.
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
    /// The job left the queue.
    Started,
    /// A step of a generation.
    Step(Step),
}

impl Event {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Replayed(_) | Self::Step(Step::Finished { .. }))
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

/// A job that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full.
    #[error("all slots and the queue are full; try again later or ask another peer")]
    Busy,
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

/// A handle to a worker. Handles are cheap to clone; when the last is dropped, the worker stops after the step it
/// is at, and the jobs it has end without a last event.
#[derive(Clone, Debug)]
pub struct Worker {
    engine: Arc<dyn Engine>,
    orders: SyncSender<Order>,
    counters: Arc<Counters>,
    slots: usize,
}

impl Worker {
    /// Starts a thread that runs at most `slots` jobs at once and lets at most `queue` wait (each at least one).
    pub fn start(engine: Arc<dyn Engine>, slots: usize, queue: usize) -> std::io::Result<Self> {
        let (orders, queue) = sync_channel(queue.max(1));
        let counters = Arc::new(Counters::default());
        let slots = slots.max(1);
        let bench = Bench {
            engine: Arc::clone(&engine),
            queue,
            counters: Arc::clone(&counters),
            slots,
            active: Vec::new(),
        };
        thread::Builder::new().name("inference".to_owned()).spawn(move || bench.run())?;
        Ok(Self { engine, orders, counters, slots })
    }

    /// The engine, for cards, prompts and tokens.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Puts a job into the queue, or says at once that there is no room.
    pub fn try_submit(&self, job: Job, sink: Sink) -> Result<(), SubmitError> {
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        self.orders.try_send(Order { job, sink }).map_err(|refused| {
            self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
            match refused {
                TrySendError::Disconnected(_) => SubmitError::Stopped,
                TrySendError::Full(_) => SubmitError::Busy,
            }
        })
    }

    /// How much there is to do.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            running: self.counters.running.load(Ordering::Relaxed),
            waiting: self.counters.waiting.load(Ordering::Relaxed),
            slots: self.slots,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    running: AtomicUsize,
    waiting: AtomicUsize,
}

struct Order {
    job: Job,
    sink: Sink,
}

/// The worker's side: the queue, and the jobs on the bench.
struct Bench {
    engine: Arc<dyn Engine>,
    queue: Receiver<Order>,
    counters: Arc<Counters>,
    slots: usize,
    active: Vec<Active>,
}

impl Bench {
    fn run(mut self) {
        let mut moved = true;
        while self.admit(moved) {
            let turns = self.active.iter_mut().map(Active::turn).collect::<Vec<_>>();
            moved = turns.iter().any(|turn| !matches!(turn, Turn::Stuck));
            let mut turns = turns.into_iter();
            self.active.retain(|_| !matches!(turns.next(), Some(Turn::Over)));
            self.counters.running.store(self.active.len(), Ordering::Relaxed);
        }
    }

    /// Fills free slots from the queue; false when all handles are gone. When every sink is full it waits a moment,
    /// or until there is another job.
    fn admit(&mut self, moved: bool) -> bool {
        let mut idle = !moved;
        while self.active.len() < self.slots {
            match self.next_order(idle) {
                Ok(order) => self.begin(order),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
            idle = false;
        }
        if idle {
            thread::sleep(RETRY);
        }
        Arc::strong_count(&self.counters) > 1
    }

    fn next_order(&self, idle: bool) -> Result<Order, RecvTimeoutError> {
        if self.active.is_empty() {
            return self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        self.queue.recv_timeout(if idle { RETRY } else { Duration::ZERO })
    }

    fn begin(&mut self, Order { job, sink }: Order) {
        self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
        let work = Work::Accepted(Arc::clone(&self.engine), job);
        self.active.push(Active { work, sink, pending: Some(Event::Started) });
        self.counters.running.store(self.active.len(), Ordering::Relaxed);
    }
}

/// A job on the bench.
struct Active {
    work: Work,
    sink: Sink,
    /// What the sink has not taken yet.
    pending: Option<Event>,
}

enum Turn {
    Moved,
    Over,
    Stuck,
}

impl Active {
    fn turn(&mut self) -> Turn {
        let event = match self.pending.take() {
            Some(event) => event,
            None => self.work.step(),
        };
        let last = event.is_last();
        // A sink that panics has nobody behind it any more.
        match catch_unwind(AssertUnwindSafe(|| (self.sink)(event))).unwrap_or(Flow::Cancel) {
            Flow::Continue if !last => Turn::Moved,
            Flow::Cancel | Flow::Continue => Turn::Over,
            Flow::Full(event) => {
                self.pending = Some(event);
                Turn::Stuck
            }
        }
    }
}

/// What is left to compute of a job.
enum Work {
    Accepted(Arc<dyn Engine>, Job),
    Generation(Generation),
    Replaying(Replaying),
}

impl Work {
    fn step(&mut self) -> Event {
        let step = catch_unwind(AssertUnwindSafe(|| self.try_step()));
        step.unwrap_or_else(|panic| {
            let what = panic_message(&*panic);
            tracing::error!(what, "the engine panicked; the job fails, the worker goes on");
            Err(GenerateError::Panicked { what })
        })
        .unwrap_or_else(Event::Failed)
    }

    fn try_step(&mut self) -> Result<Event, GenerateError> {
        if let Self::Accepted(engine, job) = self {
            *self = match job {
                Job::Generate(request) => Self::Generation(engine.generate(request)?),
                Job::Replay(claim) => Self::Replaying(engine.replay(claim)?),
            };
        }
        match self {
            Self::Generation(generation) => next(generation).map(Event::Step),
            Self::Replaying(replaying) => Ok(match next(replaying)? {
                ReplayStep::Checked { done, of } => Event::Replaying { done, of },
                ReplayStep::Finished(replay) => Event::Replayed(replay),
            }),
            Self::Accepted(..) => Err(ended()),
        }
    }
}

/// The next step of something whose last step has not come yet.
fn next<T>(steps: &mut impl Iterator<Item = Result<T, GenerateError>>) -> Result<T, GenerateError> {
    steps.next().unwrap_or_else(|| Err(ended()))
}

fn ended() -> GenerateError {
    GenerateError::Panicked { what: "a job had no last step".to_owned() }
}

/// How soon a full sink is offered its event again: well below the time of a token.
const RETRY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
