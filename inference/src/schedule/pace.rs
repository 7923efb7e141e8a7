//! What a pass takes, learnt from passes: how much longer its reader waits for each row that shares it.
//!
//! The more rows share a pass, the more is done in a second, and the longer each waits for its next token. How many are
//! still comfortable depends on machine and model, so it is measured. A token of an answer costs more than one of a
//! prompt, since the next must be found and drawn; so there are two slopes, by least squares over the last passes, and
//! both begin at what a token takes alone, which is what comfort is measured by. Passes that bring no token say
//! nothing: nobody waits for them, and in their many rows the weights come cheap.

use std::time::Duration;

use super::Comfort;

/// Passes and what they took; older ones weigh less.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Seconds of a pass that brings one token and reads nothing else, and how many there were.
    alone: f64,
    lone: u32,
    /// Sums over passes of products of: other tokens `t`, rows of prompts `r`, added time `a` as a multiple of `alone`.
    tt: f64,
    tr: f64,
    rr: f64,
    ta: f64,
    ra: f64,
}

impl Pace {
    /// A pass that brought so many tokens of answers, and read so many rows of prompts beside, took so long: until the
    /// next could begin.
    pub fn observe(&mut self, tokens: usize, rows: usize, took: Duration) {
        if tokens == 0 {
            return;
        }
        let (others, rows, took) = ((tokens - 1) as f64, rows as f64, took.as_secs_f64());
        let (token, row) = self.slopes();
        let expected = 1.0 + token * others + row * rows;
        if others + rows == 0.0 {
            self.observe_alone(took);
            return;
        }
        if self.lone == 0 {
            return;
        }
        // Whatever else the machine did meanwhile is not the pass's.
        let added = (took / self.alone).min(expected * SURPRISE) - 1.0;
        let sums = [&mut self.tt, &mut self.tr, &mut self.rr, &mut self.ta, &mut self.ra];
        for (sum, term) in
            sums.into_iter().zip([others * others, others * rows, rows * rows, others * added, rows * added])
        {
            *sum = *sum * MEMORY + term;
        }
    }

    /// The mean of the first passes, in which the newest then has a fixed share.
    fn observe_alone(&mut self, took: f64) {
        let took = if self.lone == 0 { took } else { took.min(SURPRISE * self.alone) };
        self.lone = self.lone.saturating_add(1);
        self.alone += (took - self.alone) * NEWS.max(1.0 / f64::from(self.lone));
    }

    /// What fits into a pass that takes at most `stretch` times as long as one for a single token. Until it is known how long
    /// that is, nothing else does.
    #[must_use]
    pub fn comfort(&self, stretch: f64) -> Comfort {
        if self.lone < ENOUGH && stretch.is_finite() {
            return Comfort::ONE;
        }
        let (token, row) = self.slopes();
        Comfort { budget: stretch - 1.0 + token, token, row }
    }

    /// What another token adds to a pass, and what a row of a prompt does, as shares of `alone`.
    fn slopes(&self) -> (f64, f64) {
        // The first guess counts as a pass of each kind, so that there always is an answer.
        let (tt, rr) = (self.tt + PRIOR, self.rr + PRIOR);
        let (ta, ra) = (self.ta + PRIOR * FIRST_TOKEN, self.ra + PRIOR * FIRST_ROW);
        let determinant = tt * rr - self.tr * self.tr;
        let token = (ta * rr - ra * self.tr) / determinant;
        let row = (ra * tt - ta * self.tr) / determinant;
        (token.max(LEAST), row.max(LEAST))
    }
}

/// A pass a hundred passes ago weighs a third.
const MEMORY: f64 = 0.99;
/// Passes of one token before others join.
const ENOUGH: u32 = 4;
/// How much of what a token takes alone is due to the last one.
const NEWS: f64 = 0.1;
/// A pass that takes more than so many times what was expected was held up by something else.
const SURPRISE: f64 = 2.0;
/// What another token is thought to add before any pass had one.
const FIRST_TOKEN: f64 = 0.25;
/// The same of a row of a prompt.
const FIRST_ROW: f64 = 0.125;
/// Weight of these guesses, in squares of rows.
const PRIOR: f64 = 1.0;
/// Nothing is free.
const LEAST: f64 = 0.01;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Passes of all mixtures on a machine that keeps to the plane.
    fn learn(pace: &mut Pace, passes: usize, took: impl Fn(usize, usize) -> u64) {
        for at in 0..passes {
            let (tokens, rows) = (at % 7, at * 5 % 11);
            let rows = if at % 10 == 1 { 0 } else { rows };
            pace.observe(tokens, rows, Duration::from_micros(took(tokens, rows)));
        }
    }

    proptest! {
        /// What is called comfortable takes what was allowed, also after the machine has changed, and whatever else
        /// holds some passes up.
        #[test]
        fn a_plane_is_found(
            (before, alone) in (1u64..100, 20u64..100),
            (token, row) in (2u64..60, 2u64..60),
            stretch in 1.5f64..6.0,
        ) {
            let mut pace = Pace::default();
            learn(&mut pace, 200, |tokens, rows| 100 * (before * (1 + tokens as u64) + 3 * rows as u64));
            let plane = |tokens: usize, rows: usize| {
                100 * (alone + token * tokens.saturating_sub(1) as u64 + row * rows as u64)
            };
            learn(&mut pace, 4_000, plane);
            let comfort = pace.comfort(stretch);
            for tokens in 1..=comfort.tokens() {
                let time = plane(tokens, 0) as f64 / 100.0 + comfort.rows_beside(tokens) as f64 * row as f64;
                let (allowed, off) = (stretch * alone as f64, 0.05 * stretch * alone as f64);
                prop_assert!(time <= allowed + off, "{time} of {allowed}: {pace:?}");
                prop_assert!(time >= allowed - off - row as f64, "{time} of {allowed}: {pace:?}");
            }
        }
    }

    #[test]
    fn passes_that_bring_nothing_and_one_that_was_held_up_say_little() {
        let mut pace = Pace::default();
        learn(&mut pace, 500, |tokens, rows| 1_000 + 300 * tokens as u64 + 100 * rows as u64);
        let before = pace.comfort(3.0);
        pace.observe(0, 128, Duration::from_secs(9));
        assert_eq!(pace.comfort(3.0), before);
        pace.observe(4, 4, Duration::from_secs(9));
        let after = pace.comfort(3.0);
        assert!(after.token < 1.1 * before.token && after.row < 1.1 * before.row, "{before:?} {after:?}");
    }

    #[test]
    fn one_at_a_time_until_it_is_known_what_a_token_takes() {
        let mut pace = Pace::default();
        assert_eq!((pace.comfort(3.0).tokens(), pace.comfort(3.0).rows_beside(1)), (1, 0));
        assert_eq!(pace.comfort(f64::INFINITY).tokens(), usize::MAX);
        [3, 90, 2, 3].into_iter().for_each(|took| pace.observe(1, 0, Duration::from_millis(took)));
        assert_eq!((pace.comfort(3.0).tokens(), pace.comfort(3.0).rows_beside(1)), (9, 16));
        // Of passes that are all alike nothing but their own cost can be told.
        (0..5_000).for_each(|_| pace.observe(8, 0, Duration::from_millis(24)));
        assert_eq!(pace.comfort(7.0).tokens(), 8);
    }
}
