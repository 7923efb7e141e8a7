//! How long to wait for another bid: as long as the bids so far make it worth while, and never past a fixed end.
//!
//! Nobody knows how many will bid. The bids themselves tell how fast this mesh is: whoever is much slower than those
//! before would be slow to work, too.

use crate::Timestamp;

use super::auction::Config;

/// One round of collecting bids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Collecting {
    /// Announced to all, or asked of a few.
    sealed: bool,
    opened: Timestamp,
    /// When it is over, whoever has spoken.
    pub(super) closes: Timestamp,
    pace: Option<Pace>,
}

/// How bids came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    /// Milliseconds until the first.
    first: u64,
    last: Timestamp,
    /// Most milliseconds between two.
    gap: u64,
}

impl Collecting {
    pub(super) fn open(now: Timestamp, sealed: bool, config: &Config) -> Self {
        let closes = now.after(if sealed { config.bids } else { config.quotes });
        Self { sealed, opened: now, closes, pace: None }
    }

    /// A bid that counts came in over the wire; the requester's own tells nothing of the wire.
    pub(super) fn on_bid(&mut self, now: Timestamp) {
        let pace = match self.pace {
            None => Pace { first: now.since(self.opened), last: now, gap: 0 },
            Some(pace) => Pace { gap: pace.gap.max(now.since(pace.last)), last: now, ..pace },
        };
        self.pace = Some(pace);
    }

    /// When to take the best, if nothing comes until then.
    pub(super) fn due(&self, config: &Config) -> Timestamp {
        let Some(Pace { first, last, gap }) = self.pace else { return self.closes };
        let quiet = match self.sealed {
            // Of those who were asked by name each is worth waiting for, once.
            false => self.opened.after(first).after(config.pause.max(first.saturating_mul(2))),
            true => {
                let pause = config.pause.max(first).max(gap.saturating_mul(3));
                last.after(pause).max(self.opened.after(config.least))
            }
        };
        quiet.min(self.closes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config {
        discovery: 0,
        quotes: 2_500,
        bids: 800,
        pause: 20,
        least: 40,
        counter: 500,
        pause_for_the_lost: 0,
    };

    /// When a collection is due after each of the bids, in milliseconds from its beginning.
    fn due(sealed: bool, bids: &[u64]) -> Vec<u64> {
        let mut collecting = Collecting::open(Timestamp(1000), sealed, &CONFIG);
        let mut dues = vec![collecting.due(&CONFIG).0 - 1000];
        for bid in bids {
            collecting.on_bid(Timestamp(1000 + bid));
            dues.push(collecting.due(&CONFIG).0 - 1000);
        }
        dues
    }

    #[test]
    fn quotes_wait_once_for_twice_the_time_of_the_first() {
        assert_eq!(due(false, &[3, 20]), [2_500, 23, 23]);
        assert_eq!(due(false, &[100, 250]), [2_500, 300, 300]);
        assert_eq!(due(false, &[2_000]), [2_500, 2_500]);
    }

    #[test]
    fn sealed_bids_are_over_when_they_stop_coming() {
        assert_eq!(due(true, &[2, 5, 9, 45, 50]), [800, 40, 40, 40, 153, 158]);
        assert_eq!(due(true, &[100, 110]), [800, 200, 210], "a slow mesh is waited for");
        assert_eq!(due(true, &[10, 700]), [800, 40, 800], "but never past the end");
    }
}
