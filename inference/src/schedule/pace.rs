//! What a pass takes, learnt from passes: a fixed part for the weights, and a part for each row.
//!
//! The more rows share a pass, the more is done in a second, and the longer each waits for its next token. How many are
//! still comfortable depends on machine and model, so it is measured: a line through rows and time, by least squares
//! over the last passes.

use std::time::Duration;

/// Passes and what they took; older ones weigh less.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    count: f64,
    rows: f64,
    time: f64,
    rows_squared: f64,
    rows_time: f64,
}

impl Pace {
    /// A pass of so many rows took so long.
    pub fn observe(&mut self, rows: usize, took: Duration) {
        let (rows, time) = (rows as f64, took.as_secs_f64());
        let sums =
            [&mut self.count, &mut self.rows, &mut self.time, &mut self.rows_squared, &mut self.rows_time];
        for (sum, term) in sums.into_iter().zip([1.0, rows, time, rows * rows, rows * time]) {
            *sum = *sum * MEMORY + term;
        }
    }

    /// The most rows of a pass that takes at most `stretch` times what one row takes; none before that is known.
    #[must_use]
    pub fn rows_within(&self, stretch: f64) -> Option<usize> {
        let spread = self.count * self.rows_squared - self.rows * self.rows;
        if self.count < ENOUGH || spread <= self.count * self.count * SPREAD {
            return None;
        }
        let each = (self.count * self.rows_time - self.rows * self.time) / spread;
        let fixed = ((self.time - each * self.rows) / self.count).max(0.0);
        if each <= 0.0 {
            return None;
        }
        let rows = (stretch * (fixed + each) - fixed) / each;
        // An infinite stretch becomes as many as there are numbers for.
        Some((rows as usize).max(1))
    }
}

/// A pass a hundred passes ago weighs a third.
const MEMORY: f64 = 0.99;
/// Passes before anything is said.
const ENOUGH: f64 = 4.0;
/// Variance of rows below which no slope can be told.
const SPREAD: f64 = 0.25;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// On a machine that keeps to the line, the answer is that of the line, also after the machine has changed.
        #[test]
        fn a_line_is_found(fixed in 1u64..50, each in 1u64..50, before in 1u64..50, stretch in 1.5f64..6.0) {
            let mut pace = Pace::default();
            let mut pass = |fixed: u64, each: u64, rows: usize| {
                pace.observe(rows, Duration::from_micros(100 * (fixed + each * rows as u64)));
            };
            (0..20).for_each(|at| pass(before, 50 - before, 1 + at % 7));
            (0..2_000).for_each(|at| pass(fixed, each, 1 + at % 17));
            let (fixed, each) = (fixed as f64, each as f64);
            let rows = ((stretch * (fixed + each) - fixed) / each) as usize;
            let found = pace.rows_within(stretch).unwrap();
            prop_assert!(found.abs_diff(rows) <= 1, "{found}, {rows} are right");
        }
    }

    #[test]
    fn passes_of_one_kind_say_nothing() {
        let mut pace = Pace::default();
        (0..50).for_each(|_| pace.observe(4, Duration::from_millis(5)));
        assert_eq!(pace.rows_within(3.0), None);
        pace.observe(1, Duration::from_secs(1));
        assert_eq!(pace.rows_within(3.0), None, "more rows take no less");
    }
}
