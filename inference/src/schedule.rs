//! Who reads what in the next pass: a machine without weights, clock or threads.
//!
//! Many jobs share one engine. Each, at any time, needs some known tokens read before its next step: much of a prompt
//! at first, one token between two draws later. A pass reads for many at once. The rules, in order:
//!
//! 1. **Admission.** A job runs when a slot and memory for its known tokens are free. Of several tenants the one with
//!    the fewest running jobs goes first, then the one whose job waits longest. A job whose prompt is just being read
//!    for a twin waits, because it will find the prompt in the prefix cache.
//! 2. **No token waits for a prompt.** Every running job that needs one token is in every pass. Beside them at most
//!    [`Limits::beside`] tokens of prompts are read, and without them at most [`Limits::chunk`]; so a prompt of any
//!    length delays nobody's next token by more than one chunk. Prompts take turns.
//!    A pass that brings tokens has no more of both than the caller finds comfortable ([`Schedule::comfort`]), so that
//!    serving many stretches nobody's gaps beyond a bound; who would be one too many waits.
//! 3. **Memory.** A pass never needs more pages than there is room. If it would, the caller frees something and asks
//!    again; [`Schedule::preempt`] names the job to be set back: one whose reader is behind, or else the latest of the
//!    tenant that has most. It goes to the front of its tenant's queue, and reads again what it had read.
//! 4. **Nothing lingers.** What was removed needs nothing from the next pass on.

pub mod pace;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crypto::Digest;

/// On whose behalf a job runs; 32 bytes that the caller chooses, as a requester's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(pub [u8; 32]);

/// A job's number, chosen by the caller.
pub type JobNumber = u64;

/// How much there may be of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that run at once.
    pub slots: usize,
    /// Jobs that wait.
    pub queue: usize,
    /// Rows of a pass.
    pub rows: usize,
    /// Tokens of prompts in a pass that nobody else waits for.
    pub chunk: usize,
    /// Tokens of prompts in a pass that brings others their next token.
    pub beside: usize,
    /// Positions of a page of memory.
    pub page: usize,
    /// Whether an engine reads any number of tokens. Otherwise a share is what it reads in a step of its own shape.
    pub divisible: bool,
}

/// What is known of a job when it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// On whose behalf.
    pub tenant: Tenant,
    /// Tokens that are to be read before the first step.
    pub known: usize,
    /// What it has in common with jobs that begin by reading the same.
    pub twins: Option<Digest>,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// When a place is likely to be free.
    pub retry_after: Duration,
}

/// What admission brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// This job runs from now on.
    Job(JobNumber),
    /// Nobody waits who may run now.
    Nobody,
    /// The next job would run if there were more memory.
    Short,
}

/// What fits into a pass that brings tokens without making them late. The unit is the caller's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comfort {
    /// What there is, once the weights have been read.
    pub budget: f64,
    /// What a token of an answer takes of it.
    pub token: f64,
    /// What a token of a prompt takes of it.
    pub row: f64,
}

impl Comfort {
    /// Everything fits.
    pub const UNBOUNDED: Self = Self { budget: f64::INFINITY, token: 1.0, row: 1.0 };

    /// A token, and no prompt beside.
    pub const ONE: Self = Self { budget: 1.0, token: 1.0, row: f64::INFINITY };

    /// How many answers get a token; one always does.
    #[must_use]
    pub fn tokens(&self) -> usize {
        ((self.budget / self.token) as usize).max(1)
    }

    /// How many tokens of prompts fit beside so many of answers.
    #[must_use]
    pub fn rows_beside(&self, tokens: usize) -> usize {
        // Less than nothing becomes nothing, and infinity as many as there are numbers for.
        ((self.budget - self.token * tokens as f64) / self.row) as usize
    }
}

/// What one job reads in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who.
    pub job: JobNumber,
    /// At most so many tokens.
    pub tokens: usize,
}

/// What a pass is to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pass {
    /// This; nothing when nobody needs anything.
    Read(Vec<Share>),
    /// Less than is owed, for want of memory: free some and ask again.
    Short,
}

/// The machine.
#[derive(Debug)]
pub struct Schedule {
    limits: Limits,
    waiting: BTreeMap<Tenant, VecDeque<Waiting>>,
    running: Vec<Running>,
    /// Counts arrivals and admissions: what is lower was earlier.
    clock: u64,
    /// The job whose prompt goes first in the next pass is the first after this one.
    served: JobNumber,
    /// What fits into a pass that brings tokens.
    comfort: Comfort,
    /// How long jobs take, on average.
    service: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    job: JobNumber,
    demand: Demand,
    since: u64,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    job: JobNumber,
    demand: Demand,
    admitted: u64,
    /// Tokens to read before its next step.
    needs: usize,
    /// Tokens that it has read.
    holds: usize,
    /// Its reader is behind: it gets nothing until that changes.
    blocked: bool,
}

impl Running {
    /// Pages that reading so many more tokens takes.
    const fn pages(&self, tokens: usize, page: usize) -> usize {
        (self.holds + tokens).div_ceil(page) - self.holds.div_ceil(page)
    }

    const fn wants_one(&self) -> bool {
        self.needs == 1 && !self.blocked
    }

    const fn wants_many(&self) -> bool {
        self.needs > 1 && !self.blocked
    }
}

impl Schedule {
    /// A schedule without jobs.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let at_least_one = |n: usize| n.max(1);
        let limits = Limits {
            slots: at_least_one(limits.slots),
            queue: at_least_one(limits.queue),
            chunk: at_least_one(limits.chunk),
            page: at_least_one(limits.page),
            // A pass must hold a row of each job, and one of a prompt that would never be read otherwise.
            rows: limits.rows.max(limits.slots + 1),
            beside: at_least_one(limits.beside),
            divisible: limits.divisible,
        };
        let (waiting, running) = (BTreeMap::new(), Vec::new());
        let comfort = Comfort::UNBOUNDED;
        Self { limits, waiting, running, clock: 0, served: 0, comfort, service: FIRST_SERVICE }
    }

    /// How many jobs run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether a job runs, rather than waits.
    #[must_use]
    pub fn runs(&self, job: JobNumber) -> bool {
        self.running.iter().any(|running| running.job == job)
    }

    /// How many jobs wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// When somebody who is refused now should ask again.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let ahead = (self.waiting() + 1) as u32;
        (self.service * ahead / self.limits.slots as u32).clamp(SOONEST_RETRY, LATEST_RETRY)
    }

    /// A job comes. What waits after having run does not count: it had its place.
    ///
    /// # Errors
    /// [`Full`].
    pub fn submit(&mut self, job: JobNumber, demand: Demand) -> Result<(), Full> {
        if self.waiting() >= self.limits.queue {
            return Err(Full { retry_after: self.retry_after() });
        }
        let since = self.tick();
        self.waiting.entry(demand.tenant).or_default().push_back(Waiting { job, demand, since });
        Ok(())
    }

    /// A job is done with, however it ended.
    pub fn remove(&mut self, job: JobNumber) {
        self.running.retain(|running| running.job != job);
        self.waiting.retain(|_, queue| {
            queue.retain(|waiting| waiting.job != job);
            !queue.is_empty()
        });
    }

    /// A job took so long from admission to its end.
    pub fn observe(&mut self, took: Duration) {
        self.service = (self.service * (SERVICE_MEMORY - 1) + took) / SERVICE_MEMORY;
    }

    /// So much is comfortable: the next passes that bring tokens have no more, but for jobs that run already.
    pub fn comfort(&mut self, comfort: Comfort) {
        self.comfort = comfort;
    }

    /// The next job that may run, given room for so many pages. To be asked until it says something else.
    pub fn admit(&mut self, room: usize) -> Admission {
        // Whose reader is behind has a slot, but no part in a pass.
        let taking_part = self.running.iter().filter(|running| !running.blocked).count();
        if self.running.len() >= self.limits.slots || taking_part >= self.comfort.tokens() {
            return Admission::Nobody;
        }
        let Some(Waiting { job, demand, .. }) = self.next_waiting() else { return Admission::Nobody };
        let page = self.limits.page;
        let promised: usize = self.running.iter().map(|running| running.pages(running.needs, page)).sum();
        // Alone it gets in anyway: the pass will say what it cannot have.
        if !self.running.is_empty() && promised + (demand.known + 1).div_ceil(page) > room {
            return Admission::Short;
        }
        self.remove(job);
        let admitted = self.tick();
        let running = Running { job, demand, admitted, needs: demand.known, holds: 0, blocked: false };
        self.running.push(running);
        Admission::Job(job)
    }

    /// A running job needs so many tokens read before its next step, and holds so many.
    pub fn needs(&mut self, job: JobNumber, needs: usize, holds: usize) {
        if let Some(running) = self.running.iter_mut().find(|running| running.job == job) {
            (running.needs, running.holds) = (needs, holds);
        }
    }

    /// A running job's reader is behind, or is no more.
    pub fn block(&mut self, job: JobNumber, blocked: bool) {
        if let Some(running) = self.running.iter_mut().find(|running| running.job == job) {
            running.blocked = blocked;
        }
    }

    /// What the next pass reads, given room for so many pages.
    pub fn pass(&mut self, room: usize) -> Pass {
        let Limits { rows, chunk, beside, page, .. } = self.limits;
        let ones: Vec<_> = self.running.iter().filter(|running| running.wants_one()).collect();
        let pages: usize = ones.iter().map(|running| running.pages(1, page)).sum();
        if pages > room {
            return Pass::Short;
        }
        let mut shares: Vec<_> = ones.iter().map(|one| Share { job: one.job, tokens: 1 }).collect();
        let comfortable = self.comfort.rows_beside(shares.len()).max(LEAST_BESIDE).min(beside);
        let budget = if shares.is_empty() { chunk } else { comfortable }.min(rows - shares.len());
        let in_need = self.running.iter().any(Running::wants_many);
        self.prompts(budget, room - pages, &mut shares);
        if shares.is_empty() && in_need { Pass::Short } else { Pass::Read(shares) }
    }

    /// Gives what is left of a pass to those who need more than a token, in turns.
    fn prompts(&mut self, mut budget: usize, mut room: usize, shares: &mut Vec<Share>) {
        let (page, served) = (self.limits.page, self.served);
        let mut many: Vec<_> = self.running.iter().filter(|running| running.wants_many()).collect();
        many.sort_by_key(|running| (running.job <= served, running.job));
        for running in many {
            let fits = room * page + running.holds.next_multiple_of(page) - running.holds;
            let tokens = match self.limits.divisible {
                true => running.needs.min(budget).min(fits),
                false if fits >= running.needs.min(self.limits.chunk) && budget > 0 => running.needs,
                false => 0,
            };
            if tokens == 0 {
                continue;
            }
            self.served = running.job;
            shares.push(Share { job: running.job, tokens });
            room -= running.pages(tokens, page).min(room);
            budget = if self.limits.divisible { budget - tokens } else { 0 };
        }
    }

    /// Sets a running job back, unless it is the only one that needs anything: it waits again, first of its tenant's, and
    /// holds nothing.
    pub fn preempt(&mut self) -> Option<JobNumber> {
        let count = |tenant| self.running.iter().filter(|running| running.demand.tenant == tenant).count();
        let holders = self.running.iter().filter(|running| running.holds > 0);
        let victim = *holders.max_by_key(|r| (r.blocked, count(r.demand.tenant), r.admitted))?;
        let Running { job, mut demand, needs, holds, admitted, .. } = victim;
        if !self.running.iter().any(|other| other.job != job && other.needs > 0) {
            return None;
        }
        demand.known = needs + holds;
        // A twin would wait for it, and it for the twin.
        demand.twins = None;
        self.remove(job);
        self.waiting.entry(demand.tenant).or_default().push_front(Waiting { job, demand, since: admitted });
        Some(job)
    }

    fn next_waiting(&self) -> Option<Waiting> {
        let running = |tenant: &Tenant| self.running.iter().filter(|r| r.demand.tenant == *tenant).count();
        let heads = self.waiting.iter().filter_map(|(tenant, queue)| {
            let head = queue.iter().find(|waiting| !self.twin_reads(waiting.demand.twins))?;
            Some((tenant, head))
        });
        heads.min_by_key(|(tenant, head)| (running(tenant), head.since)).map(|(_, head)| *head)
    }

    /// Whether a running job is reading what these twins begin with.
    fn twin_reads(&self, twins: Option<Digest>) -> bool {
        let reads = |r: &Running| r.demand.twins == twins && r.needs > 0 && r.holds < r.demand.known;
        twins.is_some() && self.running.iter().any(reads)
    }

    const fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// Tokens of prompts beside any number of others: prompts must come to an end, too.
const LEAST_BESIDE: usize = 4;
/// What a job takes before one has been seen.
const FIRST_SERVICE: Duration = Duration::from_secs(2);
/// The average looks back at about so many jobs.
const SERVICE_MEMORY: u32 = 8;
/// Asking again sooner would only be refused again.
const SOONEST_RETRY: Duration = Duration::from_millis(100);
/// Later is no estimate any more.
const LATEST_RETRY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
