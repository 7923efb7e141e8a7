//! The worker's thread: does what the schedule decides, with engine, sinks and memory.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crypto::{Digest, Hasher};

use super::job::{Job, Read};
use super::{Arrival, Cancel, Desk, Event, Flow, Serving, Sink, Submission, Tally};
use crate::engine::{CacheUse, Engine, ForwardError, GenerateError};
use crate::model::panic_message;
use crate::prefix::{BLOCK, Prefixes, Scope};
use crate::schedule::pace::Pace;
use crate::schedule::{Admission, Demand, JobNumber, Limits, Pass, Schedule, Share, Tenant};

pub(super) struct Driver {
    engine: Arc<dyn Engine>,
    desk: Arc<Desk>,
    schedule: Schedule,
    pace: Pace,
    seats: BTreeMap<JobNumber, Seat>,
    prefixes: Prefixes,
    /// Pages that may be held.
    pages: usize,
    stretch: f64,
    tally: Tally,
    /// Whether the last turn did anything.
    moved: bool,
}

/// A job at the worker.
struct Seat {
    job: Job,
    tenant: Tenant,
    public: usize,
    cancel: Cancel,
    sink: Sink,
    /// What the sink has not taken yet.
    pending: VecDeque<Event>,
    /// When it ran for the first time.
    begun: Option<Instant>,
    /// Whether what was read of its prompt is kept for others.
    kept: bool,
    /// It was in a pass that panicked: it reads without company, so that the guilty one is found.
    suspect: bool,
}

impl Driver {
    pub(super) fn new(engine: Arc<dyn Engine>, desk: Arc<Desk>, serving: Serving) -> Self {
        let cache = engine.cache();
        let page = cache.map_or(1, |cache| cache.page);
        let chunk = engine.chunk().max(1);
        let limits = Limits {
            slots: serving.slots,
            queue: serving.queue,
            rows: chunk.max(serving.slots + BESIDE),
            chunk,
            beside: if engine.is_exact() { BESIDE.min(chunk) } else { chunk },
            page,
            divisible: engine.is_exact(),
        };
        let one_context = engine.card().context.div_ceil(page) + serving.slots;
        let pages =
            cache.map_or(NO_LIMIT, |cache| (serving.memory / cache.page_bytes.max(1) as u64) as usize);
        let (mut schedule, pace) = (Schedule::new(limits), Pace::default());
        if engine.is_exact() {
            schedule.comfort(pace.comfort(serving.stretch));
        }
        Self {
            engine,
            desk,
            schedule,
            pace,
            seats: BTreeMap::new(),
            prefixes: Prefixes::default(),
            pages: pages.clamp(one_context, NO_LIMIT),
            stretch: serving.stretch,
            tally: Tally::default(),
            moved: true,
        }
    }

    pub(super) fn run(mut self) {
        while self.receive() {
            self.moved = false;
            self.drop_cancelled();
            self.deliver();
            self.admit();
            self.publish();
            self.deliver();
            self.pass();
            self.deliver();
        }
    }

    /// Takes in what came; waits while there is nothing to do. False when all handles are gone.
    fn receive(&mut self) -> bool {
        let desk = Arc::clone(&self.desk);
        let mut state = desk.lock();
        while state.arrivals.is_empty() && !state.closed && !self.moved {
            if self.seats.is_empty() {
                state = desk.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (waited, timeout) =
                desk.news.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner);
            state = waited;
            if timeout.timed_out() {
                break;
            }
        }
        let arrivals = std::mem::take(&mut state.arrivals);
        arrivals.into_iter().for_each(|arrival| self.seat(arrival));
        !state.closed
    }

    /// Tells the desk how things stand.
    fn publish(&self) {
        let mut state = self.desk.lock();
        state.waiting = self.schedule.waiting() + state.arrivals.len();
        state.running = self.schedule.running();
        state.retry_after = self.schedule.retry_after();
        state.tally = self.tally;
    }

    fn seat(&mut self, Arrival { number, submission, sink }: Arrival) {
        let Submission { job, tenant, public, cancel } = submission;
        let (known, prompt) = (job.reading().tokens().len(), job.reading().prompt());
        let shares = self.engine.cache().is_some() && prompt.len() >= 2 * BLOCK;
        let twins = (shares && job.shareable() > 0).then(|| twins(tenant, prompt));
        let demand = Demand { tenant, known, twins };
        let seat = Seat {
            job,
            tenant,
            public,
            cancel,
            sink,
            pending: VecDeque::new(),
            begun: None,
            kept: false,
            suspect: false,
        };
        // The desk counted it, so there is room; if ever there is not, it is dropped and its sink with it.
        if self.schedule.submit(number, demand).is_ok() {
            self.seats.insert(number, seat);
            self.moved = true;
        }
    }

    fn drop_cancelled(&mut self) {
        let gone: Vec<_> =
            self.seats.iter().filter(|(_, s)| s.cancel.is_cancelled()).map(|(&n, _)| n).collect();
        if gone.is_empty() {
            return;
        }
        gone.iter().for_each(|&number| self.schedule.remove(number));
        // Who hears that the sink is gone finds its place free.
        self.publish();
        gone.into_iter().for_each(|number| self.remove(number));
    }

    fn remove(&mut self, number: JobNumber) {
        self.schedule.remove(number);
        let Some(seat) = self.seats.remove(&number) else { return };
        self.moved = true;
        if let Some(begun) = seat.begun {
            self.schedule.observe(begun.elapsed());
        }
    }

    /// Offers sinks what they have not taken.
    fn deliver(&mut self) {
        let mut gone = Vec::new();
        for (&number, seat) in &mut self.seats {
            let waited = !seat.pending.is_empty();
            match seat.deliver() {
                Delivery::Over => gone.push(number),
                Delivery::Stuck => self.schedule.block(number, true),
                Delivery::Taken => {
                    self.moved |= waited;
                    self.schedule.block(number, false);
                }
            }
        }
        gone.into_iter().for_each(|number| self.remove(number));
    }

    /// Frees some memory that only might be needed again; false when there is none.
    fn evict(&mut self) -> bool {
        let evicted = self.prefixes.evict();
        self.tally.evicted += u64::from(evicted);
        evicted
    }

    fn room(&self) -> usize {
        self.pages.saturating_sub(self.engine.cache().map_or(0, |CacheUse { pages, .. }| pages))
    }

    fn admit(&mut self) {
        loop {
            match self.schedule.admit(self.room()) {
                Admission::Job(number) => self.begin(number),
                Admission::Short if self.evict() => {}
                Admission::Short | Admission::Nobody => return,
            }
        }
    }

    /// A job runs, for the first time or again.
    fn begin(&mut self, number: JobNumber) {
        let Some(seat) = self.seats.get_mut(&number) else { return };
        self.moved = true;
        if seat.begun.is_none() {
            seat.begun = Some(Instant::now());
            seat.pending.push_back(Event::Started);
        }
        let scopes = [Scope::Private(seat.tenant), Scope::Public];
        let found = self.prefixes.find(&scopes, seat.job.reading().tokens(), seat.job.shareable());
        self.tally.hits += u64::from(found.is_some());
        self.tally.misses += u64::from(found.is_none());
        if let Some((sequence, length)) = found {
            seat.job.reading_mut().adopt(sequence, length);
            self.tally.reused += length as u64;
        }
        if seat.job.needs() == 0 {
            // Nothing is to be read, so no pass will come by: one token is not scored, and a form may be kept by no answer at all.
            seat.advance(Ok(Vec::new()));
        }
        self.settle(number);
    }

    /// One pass through the model, for all whose turn it is.
    fn pass(&mut self) {
        let shares = loop {
            match self.schedule.pass(self.room()) {
                Pass::Read(shares) => break shares,
                Pass::Short if self.evict() => {}
                Pass::Short => match self.schedule.preempt() {
                    Some(number) => {
                        self.tally.preempted += 1;
                        self.set_back(number);
                    }
                    None => return self.give_up(),
                },
            }
        };
        if shares.is_empty() {
            return;
        }
        self.moved = true;
        let (suspects, innocent): (Vec<_>, Vec<_>) = shares.into_iter().partition(|share| {
            !self.engine.is_exact() || self.seats.get(&share.job).is_some_and(|seat| seat.suspect)
        });
        if !innocent.is_empty() {
            self.read(&innocent);
        }
        suspects.iter().for_each(|share| self.read(std::slice::from_ref(share)));
    }

    fn set_back(&mut self, number: JobNumber) {
        let fresh = self.engine.sequence();
        if let Some(seat) = self.seats.get_mut(&number) {
            seat.job.reading_mut().adopt(fresh, 0);
        }
    }

    /// A job alone does not fit: the limit is at least a context, so this is a mistake of this crate's, unless somebody else has
    /// the memory, such as who makes a vector. Then there will be room again.
    fn give_up(&mut self) {
        if self.is_held_elsewhere() {
            return;
        }
        let (schedule, seats) = (&self.schedule, self.seats.iter_mut());
        let running = seats.filter(|(number, seat)| schedule.runs(**number) && seat.pending.is_empty());
        for (_, seat) in running {
            let full = ForwardError("the memory for contexts is too small for this job".to_owned());
            seat.pending.push_back(Event::Failed(GenerateError::Forward(full)));
        }
    }

    /// Whether more pages are held than the jobs here can have.
    fn is_held_elsewhere(&self) -> bool {
        let Some(CacheUse { page, pages, .. }) = self.engine.cache() else { return false };
        let most = |seat: &Seat| seat.job.reading().done().div_ceil(page.max(1)) + 1;
        pages > self.seats.values().map(most).sum()
    }

    /// Reads these shares in one pass and makes the steps that follow.
    fn read(&mut self, shares: &[Share]) {
        let by_job: BTreeMap<_, _> = shares.iter().map(|share| (share.job, share.tokens)).collect();
        let mut seats: Vec<_> =
            self.seats.iter_mut().filter_map(|(number, seat)| Some((*by_job.get(number)?, seat))).collect();
        let engine = self.engine.as_ref();
        self.tally.passes += 1;
        let tokens = seats.iter().filter(|(_, seat)| seat.job.needs() == 1).count();
        let (mut rows, start) = (0, Instant::now());
        let results = catch_unwind(AssertUnwindSafe(|| {
            let mut spans: Vec<_> = seats.iter_mut().map(|(most, seat)| seat.job.span(*most)).collect();
            rows = spans.iter().map(|span| span.tokens.len()).sum::<usize>();
            engine.pass(&mut spans)
        }));
        self.tally.rows += rows as u64;
        self.tally.busy += start.elapsed();
        let results: Vec<Read> = match results {
            Ok(results) => results.into_iter().map(|result| result.map_err(GenerateError::from)).collect(),
            Err(panic) if seats.len() == 1 => {
                vec![Err(GenerateError::Panicked { what: panic_message(&*panic) })]
            }
            Err(panic) => {
                tracing::error!(
                    what = panic_message(&*panic),
                    "a pass panicked; its jobs read alone from here"
                );
                return self.suspect(shares);
            }
        };
        let steps = seats.iter_mut().map(|(_, seat)| &mut **seat).zip(results).collect();
        advance(steps, engine.threads());
        for share in shares {
            self.settle(share.job);
        }
        if self.engine.is_exact() {
            self.pace.observe(tokens, rows.saturating_sub(tokens), start.elapsed());
            self.schedule.comfort(self.pace.comfort(self.stretch));
        }
    }

    /// Nobody knows what the jobs of a broken pass have read: they read again, each without company.
    fn suspect(&mut self, shares: &[Share]) {
        for share in shares {
            self.set_back(share.job);
            if let Some(seat) = self.seats.get_mut(&share.job) {
                seat.suspect = true;
                let needs = seat.job.needs();
                self.schedule.needs(share.job, needs, 0);
            }
        }
    }

    /// Keeps what a job read, and tells the schedule where it is.
    fn settle(&mut self, number: JobNumber) {
        let Some(seat) = self.seats.get_mut(&number) else { return };
        let over = seat.pending.back().is_some_and(Event::is_last);
        seat.keep(&mut self.prefixes, over);
        if over {
            // Its last events may have to wait for the reader; its memory need not.
            seat.job.reading_mut().adopt(self.engine.sequence(), 0);
        }
        let (needs, holds) = (seat.job.needs(), seat.job.reading().done());
        self.schedule.needs(number, if over { 0 } else { needs }, holds);
    }
}

/// However the thread ends, nobody waits for it: who comes later is told, and who is waiting hears that nothing will come.
impl Drop for Driver {
    fn drop(&mut self) {
        let arrivals = {
            let mut state = self.desk.lock();
            state.closed = true;
            std::mem::take(&mut state.arrivals)
        };
        drop(arrivals);
    }
}

enum Delivery {
    Over,
    Stuck,
    Taken,
}

impl Seat {
    fn deliver(&mut self) -> Delivery {
        while let Some(event) = self.pending.pop_front() {
            let last = event.is_last();
            // A sink that panics has nobody behind it any more.
            match catch_unwind(AssertUnwindSafe(|| (self.sink)(event))).unwrap_or(Flow::Cancel) {
                Flow::Continue if !last => {}
                Flow::Cancel | Flow::Continue => return Delivery::Over,
                Flow::Full(event) => {
                    self.pending.push_front(event);
                    return Delivery::Stuck;
                }
            }
        }
        Delivery::Taken
    }

    /// Keeps what was read for the same tenant's next prompt, and what is public for everybody's: once when the prompt has
    /// been read, and once at the end.
    fn keep(&mut self, prefixes: &mut Prefixes, over: bool) {
        let reading = self.job.reading();
        if self.job.shareable() == 0 || reading.done() < reading.prompt().len() || self.kept && !over {
            return;
        }
        self.kept = true;
        let read = &reading.tokens()[..reading.done()];
        if let Some(fork) = reading.fork(reading.done()) {
            prefixes.keep(Scope::Private(self.tenant), read, fork);
        }
        let public = self.public.min(reading.prompt().len());
        if let Some(fork) = reading.fork(public).filter(|_| public > 0 && !over) {
            prefixes.keep(Scope::Public, &read[..public], fork);
        }
    }

    fn advance(&mut self, read: Read) {
        self.pending.extend(self.job.advance(read));
    }
}

/// Makes the steps that a pass was read for. Drawing a token looks at the whole vocabulary, and each job's draw is its
/// own affair, so as many threads as the engine has may share them.
fn advance(mut steps: Vec<(&mut Seat, Read)>, threads: usize) {
    let share = steps.len().div_ceil(threads.max(1)).max(1);
    let own = steps.split_off(steps.len().saturating_sub(share));
    let run = |steps: Vec<(&mut Seat, Read)>| {
        steps.into_iter().for_each(|(seat, read)| seat.advance(read));
    };
    thread::scope(|scope| {
        let mut others = Vec::new();
        while !steps.is_empty() {
            let some = steps.split_off(steps.len().saturating_sub(share));
            others.push(scope.spawn(move || run(some)));
        }
        run(own);
        others.into_iter().for_each(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
    });
}

/// What jobs have in common that begin with one prompt of one tenant.
fn twins(tenant: Tenant, prompt: &[u32]) -> Digest {
    let bytes: Vec<u8> = prompt.iter().flat_map(|id| id.to_le_bytes()).collect();
    Hasher::new("twins").part(&tenant.0).part(&bytes).finish()
}

/// How soon a full sink is offered its event again: well below the time of a token.
const RETRY: Duration = Duration::from_millis(1);
/// Tokens of prompts that are read beside others' next tokens.
const BESIDE: usize = 32;
/// More pages than there is memory, and few enough to be multiplied.
const NO_LIMIT: usize = 1 << 32;
