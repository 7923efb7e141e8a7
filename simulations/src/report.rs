//! What a history amounts to: how jobs ended, how long they took, what they cost the wires, and what went against
//! the rules. As a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt;

use protocol::Timestamp;
use serde::Serialize;

use crate::history::{History, Traffic};
use crate::invariant::Violation;
use crate::job::{End, Job, Jobs};
use crate::scenario::{Expectation, Scenario};

/// One history, measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of which scenario.
    pub scenario: String,
    /// Of which seed.
    pub seed: u64,
    /// How many hosts.
    pub peers: usize,
    /// Jobs submitted.
    pub jobs: usize,
    /// Jobs done.
    pub done: usize,
    /// Jobs failed, by code.
    pub failed: BTreeMap<&'static str, usize>,
    /// Jobs whose submitter died.
    pub orphaned: usize,
    /// Jobs that more than one provider was started on.
    pub moved: usize,
    /// Debts that their creditor never learnt of: the countersignature was lost and nobody sends it again.
    pub unsettled: usize,
    /// Milliseconds from submission to the first token, of jobs done.
    pub first_token: Spread,
    /// Milliseconds from submission to the receipt, of jobs done.
    pub whole: Spread,
    /// Everything that was sent.
    pub traffic: Traffic,
    /// The same by kind of message.
    pub kinds: BTreeMap<&'static str, Traffic>,
    /// Virtual milliseconds.
    pub lasted: u64,
    /// Entries of the queue.
    pub happened: u64,
    /// The digest of everything that was sent.
    pub history: String,
    /// What went against the rules, and expectations that were not met. Empty is good.
    pub violations: Vec<String>,
}

/// How a quantity is spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Half are not above this.
    pub p50: u64,
    /// Nineteen of twenty are not above this.
    pub p95: u64,
    /// None is above this.
    pub max: u64,
}

/// What a world hands over when it has come to rest.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// Its seed.
    pub seed: u64,
    /// How many hosts it had.
    pub peers: usize,
    /// How much happened.
    pub happened: u64,
    /// When it began.
    pub beginning: Timestamp,
    /// When it came to rest.
    pub end: Timestamp,
    /// Its jobs.
    pub jobs: &'a Jobs,
    /// What was said.
    pub history: &'a History,
    /// What was found.
    pub found: &'a [(Timestamp, Violation)],
    /// Debts that their creditor never learnt of.
    pub unsettled: usize,
}

impl Report {
    /// Measures a history and holds it against the scenario's expectations.
    #[must_use]
    pub fn new(scenario: &Scenario, measured: &Measured<'_>) -> Self {
        let Measured { seed, peers, happened, beginning, end, jobs, history, found, unsettled } = *measured;
        let ends = |end: End| jobs.values().filter(|job| job.end.is_some_and(|(_, e)| e == end)).count();
        let traffic = history.kinds().values().fold(Traffic::default(), |sum, kind| Traffic {
            messages: sum.messages + kind.messages,
            bytes: sum.bytes + kind.bytes,
        });
        let say = |(at, what): &(Timestamp, Violation)| format!("at {} ms: {what}", at.since(beginning));
        let mut report = Self {
            scenario: scenario.name.clone(),
            seed,
            peers,
            jobs: jobs.len(),
            done: ends(End::Done),
            failed: failures(jobs),
            orphaned: ends(End::Orphaned),
            moved: jobs.values().filter(|job| job.started > 1).count(),
            unsettled,
            first_token: Spread::of(
                done(jobs).filter_map(|(job, _)| Some(job.first_token?.since(job.submitted))),
            ),
            whole: Spread::of(done(jobs).map(|(job, end)| end.since(job.submitted))),
            traffic,
            kinds: history.kinds().clone(),
            lasted: end.since(beginning),
            happened,
            history: history.digest().to_string(),
            violations: found.iter().map(say).collect(),
        };
        report.expect(&scenario.expect);
        report
    }

    /// True when every rule held and every expectation was met.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    fn expect(&mut self, expected: &Expectation) {
        let failed: usize = self.failed.values().sum();
        if self.done < expected.done {
            self.violations.push(format!("{} jobs are done, {} were expected", self.done, expected.done));
        }
        if let Some(most) = expected.failed.filter(|most| failed > *most) {
            self.violations.push(format!("{failed} jobs failed, at most {most} were expected"));
        }
    }

    /// So much for each job, rounded down.
    fn per_job(&self, amount: u64) -> u64 {
        amount / (self.jobs as u64).max(1)
    }
}

impl Spread {
    fn of(values: impl Iterator<Item = u64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_unstable();
        let rank = |percent: usize| (values.len() * percent).div_ceil(100).saturating_sub(1);
        let at = |percent| values.get(rank(percent)).copied().unwrap_or_default();
        Self { p50: at(50), p95: at(95), max: at(100) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { jobs, done, orphaned, moved, unsettled, .. } = self;
        writeln!(
            f,
            "{} · seed {} · {} peers · {} s",
            self.scenario,
            self.seed,
            self.peers,
            self.lasted / 1000
        )?;
        writeln!(
            f,
            "  jobs          {jobs}: {done} done, {orphaned} orphaned, {moved} moved, {unsettled} unsettled{}",
            named(&self.failed)
        )?;
        writeln!(f, "  first token   {}", self.first_token)?;
        writeln!(f, "  whole job     {}", self.whole)?;
        let Traffic { messages, bytes } = self.traffic;
        let (each, size) = (self.per_job(messages), self.per_job(bytes));
        writeln!(f, "  traffic       {messages} messages, {bytes} bytes; per job {each} and {size}")?;
        for (kind, Traffic { messages, bytes }) in &self.kinds {
            writeln!(f, "    {kind:<14}{messages:>9} × {:>6} bytes", bytes / messages.max(&1))?;
        }
        writeln!(f, "  history       {}", self.history)?;
        for violation in &self.violations {
            writeln!(f, "  VIOLATION     {violation}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {} ms, p95 {} ms, max {} ms", self.p50, self.p95, self.max)
    }
}

fn done(jobs: &Jobs) -> impl Iterator<Item = (&Job, Timestamp)> {
    jobs.values().filter_map(|job| match job.end {
        Some((at, End::Done)) => Some((job, at)),
        _ => None,
    })
}

fn failures(jobs: &Jobs) -> BTreeMap<&'static str, usize> {
    let mut failures = BTreeMap::new();
    for job in jobs.values() {
        if let Some((_, End::Failed(code))) = job.end {
            *failures.entry(code).or_default() += 1;
        }
    }
    failures
}

fn named(failures: &BTreeMap<&'static str, usize>) -> String {
    failures.iter().map(|(code, count)| format!(", {count} {code}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_by_rank() {
        let spread = Spread::of(1..=100);
        assert_eq!((spread.p50, spread.p95, spread.max), (50, 95, 100));
        assert_eq!(Spread::of([7].into_iter()), Spread { p50: 7, p95: 7, max: 7 });
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }
}
