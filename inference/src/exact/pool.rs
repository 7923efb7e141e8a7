//! Threads that compute together: one fork and join, cheap enough to happen a hundred times a token.
//!
//! A region of work is some tens of microseconds long, so a helper that sleeps between regions costs as much as it
//! saves. Helpers watch for the next region for a moment and sleep only when none comes. Tasks are claimed one by
//! one, and nobody waits for a helper that claimed none: one that the system has put aside holds nothing up.
//!
//! Who computes a task changes nothing about its result, so the number of threads does not either.
#![expect(unsafe_code, reason = "a region lends its closure and its items to threads that outlive it")]

use std::any::Any;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

/// A caller and its helpers.
pub(super) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// As many threads as asked for, the caller being one of them. Threads that the system refuses are missing.
    pub(super) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let mut helpers = Vec::new();
        for number in 1..threads.clamp(1, MAX_THREADS) {
            let shared = Arc::clone(&shared);
            let helper = thread::Builder::new().name(format!("kernel-{number}"));
            let Ok(helper) = helper.spawn(move || shared.help()) else { break };
            helpers.push(helper);
        }
        Self { shared, helpers }
    }

    /// How many threads compute.
    pub(super) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work` once with each item, on all threads, and returns when all calls have. A panic in one is a panic
    /// here.
    pub(super) fn each<T: Send>(&mut self, items: Vec<T>, work: impl Fn(T) + Sync) {
        if self.helpers.is_empty() || items.len() < 2 {
            normal_floats();
            return items.into_iter().for_each(work);
        }
        let items: Vec<_> = items.into_iter().map(Slot::new).collect();
        // SAFETY: `region` calls with each index once, so each slot is emptied once and by one thread.
        self.region(items.len(), &|at: usize| work(unsafe { items[at].take() }));
    }

    fn region(&mut self, tasks: usize, call: &(dyn Fn(usize) + Sync)) {
        assert!(tasks < MOST_TASKS, "more tasks than a claim can count");
        let shared = &*self.shared;
        // SAFETY: the pointer is read only by a thread that has claimed a task of this region, and this function
        // does not return before all claimed tasks have been counted as completed. No region is running now, because
        // `self` is borrowed exclusively.
        let lent: *const (dyn Fn(usize) + Sync) = call;
        unsafe {
            *shared.call.get() = Some(std::mem::transmute::<
                *const (dyn Fn(usize) + Sync),
                *const (dyn Fn(usize) + Sync + 'static),
            >(lent));
        }
        shared.completed.store(0, Ordering::Relaxed);
        let epoch = Claim(shared.claim.load(Ordering::Relaxed)).epoch().wrapping_add(1);
        shared.claim.store(Claim::new(epoch, tasks).0, Ordering::SeqCst);
        self.wake();
        normal_floats();
        shared.work();
        let mut spins = 0;
        while shared.completed.load(Ordering::Acquire) < tasks {
            pause(&mut spins);
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn wake(&self) {
        if self.shared.asleep.load(Ordering::SeqCst) > 0 {
            self.helpers.iter().map(JoinHandle::thread).for_each(Thread::unpark);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper's panics were caught; there is nothing to hear from it.
            drop(helper.join());
        }
    }
}

#[derive(Default)]
struct Shared {
    /// The region and what is left to claim of it.
    claim: AtomicU64,
    completed: AtomicUsize,
    call: UnsafeCell<Option<*const (dyn Fn(usize) + Sync)>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    asleep: AtomicUsize,
    stop: AtomicBool,
}

// SAFETY: `call` is written while no region runs and read by threads that hold a claim on the region it was written
// for; the claim's store and exchange order the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `call` is used only as above.
unsafe impl Send for Shared {}

impl Shared {
    /// A helper's life.
    fn help(&self) {
        normal_floats();
        while !self.stop.load(Ordering::Relaxed) {
            self.work();
            self.await_region();
        }
    }

    /// Claims tasks and does them until none is left.
    fn work(&self) {
        while let Some(task) = self.claim() {
            let done = catch_unwind(AssertUnwindSafe(|| {
                // SAFETY: the claim makes the pointer valid until the task is counted, see `region`.
                if let Some(call) = unsafe { *self.call.get() } {
                    unsafe { (*call)(task) }
                }
            }));
            if let Err(panic) = done {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                // Whatever another panic brought is left alone: dropping it here could panic again.
                if let Some(other) = first.replace(panic) {
                    std::mem::forget(other);
                }
            }
            self.completed.fetch_add(1, Ordering::Release);
        }
    }

    fn claim(&self) -> Option<usize> {
        let mut now = Claim(self.claim.load(Ordering::Acquire));
        loop {
            let (task, next) = now.next()?;
            match self.claim.compare_exchange_weak(now.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(task),
                Err(other) => now = Claim(other),
            }
        }
    }

    /// Watches for a moment, then sleeps, until there is something to claim.
    fn await_region(&self) {
        for _ in 0..WATCH {
            if Claim(self.claim.load(Ordering::Acquire)).next().is_some() {
                return;
            }
            std::hint::spin_loop();
        }
        self.asleep.fetch_add(1, Ordering::SeqCst);
        while !self.stop.load(Ordering::SeqCst) && Claim(self.claim.load(Ordering::SeqCst)).next().is_none() {
            thread::park();
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An epoch (24 bits), a number of tasks and the next of them (20 bits each), in one word that is exchanged as one.
#[derive(Clone, Copy)]
struct Claim(u64);

impl Claim {
    const fn new(epoch: u64, tasks: usize) -> Self {
        Self((epoch & 0xff_ffff) << 40 | (tasks as u64) << 20)
    }

    const fn epoch(self) -> u64 {
        self.0 >> 40
    }

    fn next(self) -> Option<(usize, Self)> {
        let (tasks, next) = (self.0 >> 20 & 0xf_ffff, self.0 & 0xf_ffff);
        (next < tasks).then_some((next as usize, Self(self.0 + 1)))
    }
}

/// An item that waits for the thread that claims it.
struct Slot<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: a slot is emptied by one thread, see `take`.
unsafe impl<T: Send> Sync for Slot<T> {}

impl<T> Slot<T> {
    const fn new(item: T) -> Self {
        Self(UnsafeCell::new(MaybeUninit::new(item)))
    }

    /// # Safety
    /// Called at most once for a slot.
    unsafe fn take(&self) -> T {
        // SAFETY: the slot was filled when it was made and nobody else reads it.
        unsafe { (*self.0.get()).assume_init_read() }
    }
}

/// Sets how this thread rounds and treats tiny numbers to what IEEE 754 says and Rust assumes. A library that was
/// compiled for fast mathematics may have set it otherwise, and results would differ.
pub(super) fn normal_floats() {
    #[cfg(target_arch = "x86_64")]
    {
        let mut state = 0_u32;
        // SAFETY: reads the control register of the vector unit into a local, and restores the state that the
        // language requires anyway.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut state, options(nostack));
            if state & MXCSR_CONTROL != MXCSR_DEFAULT {
                state = state & !MXCSR_CONTROL | MXCSR_DEFAULT;
                std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const state, options(nostack, readonly));
            }
        }
    }
}

/// Waits a little, and after many times lets other threads have the core.
fn pause(spins: &mut u32) {
    *spins = spins.saturating_add(1);
    if *spins < PATIENCE { std::hint::spin_loop() } else { thread::yield_now() }
}

/// More cores than any machine that this engine is for.
const MAX_THREADS: usize = 256;
/// One more than a claim counts.
const MOST_TASKS: usize = 1 << 20;
/// How often a helper looks for the next region before it sleeps: some fifty microseconds.
const WATCH: u32 = 2_000;
/// How often the caller looks for the last tasks before it yields.
const PATIENCE: u32 = 2_000;
/// Everything in MXCSR but the sticky flags.
#[cfg(target_arch = "x86_64")]
const MXCSR_CONTROL: u32 = 0xffc0;
/// All exceptions masked, round to nearest, denormals kept.
#[cfg(target_arch = "x86_64")]
const MXCSR_DEFAULT: u32 = 0x1f80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once() {
        for threads in 1..5 {
            let mut pool = Pool::new(threads);
            for count in [0, 1, 2, 7, 100] {
                let hits: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool.each((0..count).collect(), |at: usize| {
                    hits[at].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1),
                    "{threads} threads, {count}"
                );
            }
        }
    }

    #[test]
    fn many_regions_in_a_row_lose_nothing() {
        let mut pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        for region in 0..20_000 {
            pool.each(vec![region; 5], |value| {
                sum.fetch_add(value, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 5 * (0..20_000).sum::<usize>());
    }

    #[test]
    fn a_panic_in_a_task_is_a_panic_of_the_caller_and_the_pool_works_on() {
        let mut pool = Pool::new(2);
        let failed = catch_unwind(AssertUnwindSafe(|| {
            pool.each(vec![0, 1, 2, 3], |at| assert_ne!(at, 2, "the third"));
        }));
        assert!(failed.is_err());
        let sum = AtomicUsize::new(0);
        pool.each(vec![1, 2, 3], |value| {
            sum.fetch_add(value, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 6);
    }
}
