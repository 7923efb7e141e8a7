//! The rules, on random histories of jobs that weigh nothing.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const PAGE: usize = 4;

fn limits(slots: usize) -> Limits {
    Limits { slots, queue: 64, rows: 24, chunk: 16, beside: 6, page: PAGE, divisible: true }
}

fn demand(tenant: u8, known: usize) -> Demand {
    Demand { tenant: Tenant([tenant; 32]), known, twins: None }
}

/// A job of the tests: what it has read, and what it is going to.
#[derive(Clone, Debug)]
struct Work {
    known: usize,
    answer: usize,
    read: usize,
    runs: bool,
}

impl Work {
    fn needs(&self) -> usize {
        if self.read < self.known { self.known - self.read } else { 1 }
    }

    fn over(&self) -> bool {
        self.read >= self.known + self.answer
    }
}

/// Jobs, a schedule, and a memory of so many pages.
struct World {
    schedule: Schedule,
    works: BTreeMap<JobNumber, Work>,
    pages: usize,
    preempted: usize,
}

impl World {
    fn new(slots: usize, pages: usize, works: &[(u8, usize, usize)]) -> Self {
        let mut schedule = Schedule::new(limits(slots));
        let mut of_number = BTreeMap::new();
        for (number, &(tenant, known, answer)) in (1..).zip(works) {
            schedule.submit(number, demand(tenant, known)).unwrap();
            of_number.insert(number, Work { known, answer, read: 0, runs: false });
        }
        Self { schedule, works: of_number, pages, preempted: 0 }
    }

    fn room(&self) -> usize {
        let held = self.works.values().filter(|work| work.runs).map(|work| work.read.div_ceil(PAGE));
        self.pages.checked_sub(held.sum()).expect("the memory's limit holds")
    }

    /// One turn; the shares that were read.
    fn turn(&mut self) -> Vec<Share> {
        while let Admission::Job(number) = self.schedule.admit(self.room()) {
            let work = self.works.get_mut(&number).unwrap();
            work.runs = true;
            self.schedule.needs(number, work.needs(), 0);
        }
        let shares = loop {
            match self.schedule.pass(self.room()) {
                Pass::Read(shares) => break shares,
                Pass::Short => {
                    let number = self.schedule.preempt().expect("one alone always fits");
                    self.preempted += 1;
                    let work = self.works.get_mut(&number).unwrap();
                    (work.runs, work.known, work.answer) = (
                        false,
                        work.known.max(work.read),
                        work.answer - work.read.saturating_sub(work.known),
                    );
                    work.read = 0;
                }
            }
        };
        for share in &shares {
            let work = self.works.get_mut(&share.job).unwrap();
            work.read += share.tokens;
            if work.over() {
                self.works.remove(&share.job);
                self.schedule.remove(share.job);
            } else {
                self.schedule.needs(share.job, work.needs(), work.read);
            }
        }
        self.room();
        shares
    }
}

fn works() -> impl Strategy<Value = Vec<(u8, usize, usize)>> {
    vec((0u8..4, 1usize..60, 1usize..30), 1..24)
}

proptest! {
    /// Everything is done in the end, in bounded passes within the memory, and no token waits for a prompt.
    #[test]
    fn every_job_ends_and_no_token_waits(works in works(), slots in 1usize..9, spare in 0usize..20) {
        let mut world = World::new(slots, 90usize.div_ceil(PAGE) + spare, &works);
        let mut turns = 0;
        while !world.works.is_empty() {
            let ones: BTreeSet<_> =
                world.works.iter().filter(|(_, work)| work.runs && work.needs() == 1).map(|(&n, _)| n).collect();
            let before = world.preempted;
            let shares = world.turn();
            let of = |number: &JobNumber| shares.iter().filter(|share| share.job == *number).count();
            prop_assert!(!shares.is_empty(), "something moves");
            prop_assert!(shares.iter().all(|share| of(&share.job) == 1 && share.tokens > 0));
            prop_assert!(world.preempted > before || ones.iter().all(|number| of(number) == 1), "each has its token");
            let many: usize = shares.iter().filter(|share| !ones.contains(&share.job)).map(|share| share.tokens).sum();
            prop_assert!(many <= 16 && (ones.is_empty() || many <= 6 + slots), "{many} beside {}", ones.len());
            prop_assert!(shares.iter().map(|share| share.tokens).sum::<usize>() <= 24);
            turns += 1;
            prop_assert!(turns < 20_000, "it ends");
        }
        prop_assert_eq!(world.schedule.running() + world.schedule.waiting(), 0);
    }

    /// A crowd of one tenant does not keep another out: it is the next to run.
    #[test]
    fn a_tenant_with_fewer_jobs_goes_first(crowd in 4usize..20, slots in 2usize..4) {
        let mut schedule = Schedule::new(limits(slots));
        for number in 0..crowd as u64 {
            schedule.submit(number, demand(1, 5)).unwrap();
        }
        while let Admission::Job(_) = schedule.admit(1_000) {}
        schedule.submit(99, demand(2, 5)).unwrap();
        prop_assert_eq!(schedule.admit(1_000), Admission::Nobody);
        schedule.remove(0);
        prop_assert_eq!(schedule.admit(1_000), Admission::Job(99));
    }

    /// Prompts take turns: none gets two chunks while another gets none.
    #[test]
    fn prompts_take_turns(count in 2usize..6) {
        let mut schedule = Schedule::new(limits(8));
        for number in 1..=count as u64 {
            schedule.submit(number, demand(number as u8, 1_000)).unwrap();
            prop_assert_eq!(schedule.admit(10_000), Admission::Job(number));
        }
        let mut served = Vec::new();
        for _ in 0..count {
            let Pass::Read(shares) = schedule.pass(10_000) else { panic!("there is room") };
            prop_assert_eq!(shares.len(), 1);
            served.push(shares[0].job);
        }
        served.sort_unstable();
        prop_assert!(served.into_iter().eq(1..=count as u64));
    }
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let mut schedule = Schedule::new(Limits { slots: 2, queue: 3, ..limits(2) });
    for number in 0..3 {
        schedule.submit(number, demand(0, 1)).unwrap();
    }
    let Full { retry_after: early } = schedule.submit(9, demand(0, 1)).unwrap_err();
    (0..64).for_each(|_| schedule.observe(Duration::from_secs(10)));
    let Full { retry_after: late } = schedule.submit(9, demand(0, 1)).unwrap_err();
    assert!(
        early < late && late > Duration::from_secs(15) && late <= Duration::from_secs(20),
        "{early:?} {late:?}"
    );
    schedule.remove(1);
    schedule.submit(9, demand(0, 1)).unwrap();
}

#[test]
fn a_blocked_job_gets_nothing_and_a_removed_one_needs_nothing() {
    let mut schedule = Schedule::new(limits(4));
    for number in 1..=3 {
        schedule.submit(number, demand(0, 1)).unwrap();
        assert_eq!(schedule.admit(100), Admission::Job(number));
    }
    schedule.block(1, true);
    schedule.remove(2);
    assert_eq!(schedule.pass(100), Pass::Read(vec![Share { job: 3, tokens: 1 }]));
    schedule.block(1, false);
    let Pass::Read(shares) = schedule.pass(100) else { panic!("there is room") };
    assert_eq!(shares.len(), 2);
}

#[test]
fn twins_wait_for_the_first_of_them() {
    let mut schedule = Schedule::new(limits(4));
    let twins = Some(Digest::of_content(b"one prompt"));
    for number in 1..=3 {
        schedule.submit(number, Demand { twins, ..demand(0, 40) }).unwrap();
    }
    schedule.submit(4, demand(0, 40)).unwrap();
    assert_eq!(schedule.admit(100), Admission::Job(1));
    assert_eq!(schedule.admit(100), Admission::Job(4), "who is no twin does not wait");
    assert_eq!(schedule.admit(100), Admission::Nobody);
    schedule.needs(1, 1, 40);
    assert_eq!(schedule.admit(100), Admission::Job(2));
    // This one found the prompt in the cache.
    schedule.needs(2, 1, 39);
    assert_eq!(schedule.admit(100), Admission::Nobody);
    schedule.needs(2, 1, 40);
    assert_eq!(schedule.admit(100), Admission::Job(3));
}

#[test]
fn who_is_set_back_is_the_latest_of_the_tenant_that_has_most() {
    let mut schedule = Schedule::new(limits(4));
    for (number, tenant) in [(1, 1), (2, 2), (3, 2), (4, 3)] {
        schedule.submit(number, demand(tenant, 8)).unwrap();
        assert_eq!(schedule.admit(100), Admission::Job(number));
        schedule.needs(number, 1, 8);
    }
    assert_eq!(schedule.preempt(), Some(3));
    assert_eq!((schedule.running(), schedule.waiting()), (3, 1));
    assert_eq!(schedule.preempt(), Some(4));
    schedule.remove(1);
    assert_eq!(schedule.preempt(), None, "the last one is left to run");
    for number in [5, 6] {
        schedule.submit(number, demand(5, 8)).unwrap();
    }
    while let Admission::Job(number) = schedule.admit(100) {
        schedule.needs(number, 1, 8);
    }
    schedule.block(2, true);
    assert_eq!(schedule.preempt(), Some(2), "whose reader is behind loses least");
}

#[test]
fn an_engine_with_shapes_of_its_own_reads_one_prompt_at_a_time() {
    let mut schedule = Schedule::new(Limits { divisible: false, ..limits(4) });
    for number in 1..=2 {
        schedule.submit(number, demand(0, 40)).unwrap();
        assert_eq!(schedule.admit(100), Admission::Job(number));
    }
    assert_eq!(schedule.pass(100), Pass::Read(vec![Share { job: 1, tokens: 40 }]));
    assert_eq!(schedule.pass(100), Pass::Read(vec![Share { job: 2, tokens: 40 }]));
}

#[test]
fn comfort_bounds_a_pass_that_brings_tokens_and_no_other() {
    let mut schedule = Schedule::new(limits(8));
    schedule.comfort(Comfort { budget: 7.0, token: 2.0, row: 1.0 });
    for number in 1..=5 {
        schedule.submit(number, demand(number as u8, 100)).unwrap();
    }
    let admitted: Vec<_> = (0..5).map(|_| schedule.admit(1_000)).collect();
    assert_eq!(admitted.iter().filter(|a| **a != Admission::Nobody).count(), 3);
    let tokens = |schedule: &mut Schedule| match schedule.pass(1_000) {
        Pass::Read(shares) => shares.iter().map(|share| share.tokens).collect::<Vec<_>>(),
        Pass::Short => panic!("there is room"),
    };
    assert_eq!(tokens(&mut schedule), [16], "nobody waits for a token");
    schedule.needs(1, 1, 100);
    schedule.needs(2, 1, 100);
    assert_eq!(tokens(&mut schedule), [1, 1, 4]);
    assert_eq!(schedule.admit(1_000), Admission::Nobody);
    schedule.block(1, true);
    assert_eq!(schedule.admit(1_000), Admission::Job(4), "whose reader is behind keeps nobody out");
}
