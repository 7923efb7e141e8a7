//! Numbers that survive a busy machine: quantiles of many, and ratios within a round.
//!
//! A ratio of two medians from two minutes of a shared machine says more about the minutes than about the code. So
//! whatever is compared is measured in turn, round by round, and what is reported is the median of the rounds' ratios.

use std::time::Duration;

/// Repeated measurements of one thing, round by round, in one unit.
#[derive(Debug, Default)]
pub(crate) struct Series {
    rounds: Vec<Vec<f64>>,
}

impl Series {
    /// Begins a round.
    pub(crate) fn round(&mut self) {
        self.rounds.push(Vec::new());
    }

    /// Adds a measurement to the round.
    pub(crate) fn add(&mut self, value: f64) {
        if self.rounds.is_empty() {
            self.round();
        }
        if let Some(round) = self.rounds.last_mut() {
            round.push(value);
        }
    }

    /// The value below which `share` (0 to 1) of all measurements lie.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        quantile(self.rounds.iter().flatten().copied().collect(), share)
    }

    /// The median, over the rounds, of this one's median divided by the other's.
    pub(crate) fn ratio(&self, to: &Self) -> f64 {
        let medians =
            |series: &Self| series.rounds.iter().map(|round| quantile(round.clone(), 0.5)).collect();
        let (own, others): (Vec<f64>, Vec<f64>) = (medians(self), medians(to));
        quantile(own.iter().zip(&others).map(|(own, other)| own / other).collect(), 0.5)
    }
}

/// Microseconds.
pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}
