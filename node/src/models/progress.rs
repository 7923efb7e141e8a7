//! How long work is shown, without the work knowing to whom.
//!
//! Only [`Bar`] knows of terminals. It draws on stderr, because stdout is data, and draws nothing where stderr is no
//! terminal, because a log does not want a thousand half-drawn bars.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Somebody who watches a piece of work. One piece at a time: a new `begin` replaces what was shown before.
pub trait Progress: fmt::Debug + Send + Sync {
    /// Work begins; `total` is in bytes, `None` where nobody can tell.
    fn begin(&self, what: &str, total: Option<u64>);

    /// So many more bytes are done.
    fn advance(&self, bytes: u64);

    /// The work has ended, well or not.
    fn done(&self);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total: Option<u64>) {}

    fn advance(&self, _bytes: u64) {}

    fn done(&self) {}
}

/// A bar on stderr, or a spinner where the total is unknown.
#[derive(Debug)]
pub struct Bar(Mutex<ProgressBar>);

impl Bar {
    /// Nothing is drawn before the first `begin`.
    pub fn new() -> Self {
        Self(Mutex::new(ProgressBar::hidden()))
    }

    /// A bar is only looked at: one that a panicking thread left behind is still good enough.
    fn shown(&self) -> MutexGuard<'_, ProgressBar> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total: Option<u64>) {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        bar.set_style(style(total.is_some()));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        *self.shown() = bar;
    }

    fn advance(&self, bytes: u64) {
        self.shown().inc(bytes);
    }

    fn done(&self) {
        self.shown().finish_and_clear();
    }
}

/// A piece of work that is being shown: it ends with this value, also when a future is dropped or `?` leaves early.
#[derive(Debug)]
pub(super) struct Shown<'a>(&'a dyn Progress);

impl<'a> Shown<'a> {
    pub(super) fn begin(progress: &'a dyn Progress, what: &str, total: Option<u64>) -> Self {
        progress.begin(what, total);
        Self(progress)
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.0.advance(bytes);
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.done();
    }
}

fn style(measured: bool) -> ProgressStyle {
    let template = if measured { MEASURED } else { UNMEASURED };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// How often a bar is redrawn, also when nothing arrives: a spinner that stands still looks like a crash.
const TICK: Duration = Duration::from_millis(120);

const MEASURED: &str = "{msg} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
const UNMEASURED: &str = "{spinner} {msg} {elapsed}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_well_formed() {
        for template in [MEASURED, UNMEASURED] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_bar_counts_and_ends_with_its_work() {
        let bar = Bar::new();
        let shown = Shown::begin(&bar, "reading", Some(10));
        shown.advance(4);
        assert_eq!(bar.shown().position(), 4);
        drop(shown);
        assert!(bar.shown().is_finished());
    }
}
