//! When is a silent provider dead? Its own stream tells.
//!
//! A process that is killed does not always say so: over QUIC nothing comes back, and a connection times out only after many
//! seconds. But tokens come in a rhythm. A pause that is long for *this* stream raises a suspicion, a probe asks, and
//! only who does not even answer that is given up:
//!
//! ```text
//! frames … ──pause──▶ probe ──no answer──▶ dead
//!                       └──answer──▶ alive: ask again later, each time a little later
//! alive, but no token for very long ──▶ stalled
//! ```
//!
//! So a peer that reads a long prompt, or whose queue is long, is left alone, and one that was killed is missed within
//! a few times the time of a token.

use crate::Timestamp;

/// What to do about a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing yet.
    Bearable,
    /// Ask whether anybody is there.
    Suspicious,
    /// Nobody is there.
    Dead,
    /// Somebody is there, but nothing will come.
    Stalled,
}

/// The rhythm of one provider's stream.
#[derive(Clone, Debug)]
pub(super) struct Rhythm {
    /// When the last frame came.
    heard: Timestamp,
    /// When the last one came that brought the answer further.
    moved: Timestamp,
    /// The smoothed time between such frames, once there were two.
    gap: Option<u64>,
    /// The first bearable pause; doubles with each answer that says no more than "alive".
    pause: u64,
    /// When the question went out that has no answer yet.
    probed: Option<Timestamp>,
    /// How long the slowest of the last answers took.
    round_trip: Option<u64>,
    /// How often somebody was given up too soon in this job: each time doubles the patience.
    hasty: u32,
    /// A token has come.
    begun: bool,
    patience: u64,
}

impl Rhythm {
    /// The stream begins now. `patience` bounds every silence, in milliseconds.
    pub(super) fn new(now: Timestamp, patience: u64, hasty: u32) -> Self {
        Self {
            heard: now,
            moved: now,
            gap: None,
            pause: FIRST_PAUSE,
            probed: None,
            round_trip: None,
            hasty,
            begun: false,
            patience,
        }
    }

    /// A frame came; `moves` if it brought a token or its like.
    pub(super) fn heard(&mut self, now: Timestamp, moves: bool) {
        if let Some(probed) = self.probed.take() {
            let took = now.since(probed);
            self.round_trip = Some(self.round_trip.map_or(took, |before| took.max(before * 7 / 8)));
        }
        self.heard = now;
        if !moves {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            return;
        }
        if self.begun {
            let gap = now.since(self.moved);
            self.gap = Some(self.gap.map_or(gap, |before| (before * 7 + gap).div_ceil(8)));
        }
        self.begun = true;
        self.moved = now;
        self.pause = self.gap.map_or(FIRST_PAUSE, |gap| (gap * 4 + 20).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }

    /// When to look again.
    pub(super) fn due(&self) -> Timestamp {
        self.next().min(self.end())
    }

    /// What the silence means by now.
    pub(super) fn silence(&self, now: Timestamp) -> Silence {
        match self.probed {
            _ if self.end() <= now => Silence::Stalled,
            _ if self.next() > now => Silence::Bearable,
            Some(_) => Silence::Dead,
            None => Silence::Suspicious,
        }
    }

    /// The question is going out.
    pub(super) fn probe(&mut self, now: Timestamp) {
        self.probed = Some(now);
    }

    fn next(&self) -> Timestamp {
        match self.probed {
            Some(probed) => probed.after(self.grace()),
            None => self.heard.after(self.pause),
        }
    }

    /// The end of all patience: with silence altogether, and with an answer that has begun and does not go on.
    fn end(&self) -> Timestamp {
        let silent = self.heard.after(self.patience);
        let stalled = self.gap.map_or(self.patience, |gap| (gap * 64).clamp(SHORTEST_STALL, self.patience));
        if self.begun { silent.min(self.moved.after(stalled.max(SHORTEST_STALL))) } else { silent }
    }

    /// How long an answer to the question may take.
    fn grace(&self) -> u64 {
        let gap = self.gap.unwrap_or(0);
        // Nobody reads yet, and a machine that is just given many jobs is slow to answer.
        let least = if self.begun { SHORTEST_GRACE.max(gap * 4) } else { UNREAD_GRACE };
        let usual = self.round_trip.map_or(FIRST_GRACE, |took| (took * 4).max(least));
        (usual << self.hasty.min(4)).min(self.patience)
    }
}

/// The pause before anything is known of a stream, in milliseconds: prompts are read meanwhile.
const FIRST_PAUSE: u64 = 100;
/// Less would ask at every hiccup of a scheduler.
const SHORTEST_PAUSE: u64 = 40;
/// Who lives is asked this seldom, in milliseconds.
const LONGEST_PAUSE: u64 = 2_000;
/// An answer's time before one has been seen, in milliseconds: a round trip of a wide network and a busy machine.
const FIRST_GRACE: u64 = 3_000;
/// A machine whose cores are all at work answers within this, in milliseconds.
const SHORTEST_GRACE: u64 = 100;
/// The same before the first token, when a little patience costs no reader a pause.
const UNREAD_GRACE: u64 = 2_000;
/// An answer that has begun goes on within this, in milliseconds, or somebody else takes it.
const SHORTEST_STALL: u64 = 20_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: u64 = 30_000;

    fn steady(gap: u64, tokens: u64) -> (Rhythm, Timestamp) {
        let mut rhythm = Rhythm::new(Timestamp(0), PATIENCE, 0);
        rhythm.probe(Timestamp(0));
        (0..tokens).for_each(|token| rhythm.heard(Timestamp(token * gap + 1), true));
        (rhythm, Timestamp((tokens - 1) * gap + 1))
    }

    /// Follows the rhythm's own advice without an answer; the time until somebody is given up.
    fn given_up(mut rhythm: Rhythm, from: Timestamp) -> u64 {
        loop {
            let now = rhythm.due();
            match rhythm.silence(now) {
                Silence::Dead | Silence::Stalled => return now.since(from),
                Silence::Suspicious => rhythm.probe(now),
                Silence::Bearable => panic!("due and nothing to do"),
            }
        }
    }

    #[test]
    fn a_dead_peer_is_missed_within_a_few_tokens() {
        let (rhythm, last) = steady(5, 40);
        assert_eq!(given_up(rhythm, last), SHORTEST_PAUSE + SHORTEST_GRACE);
        let (rhythm, last) = steady(100, 40);
        assert_eq!(given_up(rhythm, last), 420 + 400, "slow streams have slow machines");
    }

    #[test]
    fn whoever_answers_is_alive_but_not_for_ever() {
        let (mut rhythm, last) = steady(5, 40);
        let mut now = last;
        let mut questions = 0;
        while rhythm.silence(now) != Silence::Stalled {
            now = rhythm.due();
            if rhythm.silence(now) == Silence::Suspicious {
                rhythm.probe(now);
                rhythm.heard(now, false);
                questions += 1;
            }
        }
        assert_eq!(now.since(last), SHORTEST_STALL);
        assert!(questions < 20, "{questions}");
    }

    #[test]
    fn before_its_first_token_a_peer_that_answers_may_take_as_long_as_it_likes() {
        let mut rhythm = Rhythm::new(Timestamp(0), PATIENCE, 0);
        let mut now = Timestamp(0);
        while now < Timestamp(10 * PATIENCE) {
            now = rhythm.due();
            assert!(matches!(rhythm.silence(now), Silence::Bearable | Silence::Suspicious));
            rhythm.probe(now);
            rhythm.heard(now.after(3), false);
        }
    }

    #[test]
    fn who_was_too_hasty_waits_longer() {
        let (mut rhythm, last) = steady(5, 40);
        rhythm.hasty = 2;
        assert_eq!(given_up(rhythm, last), SHORTEST_PAUSE + 4 * SHORTEST_GRACE);
    }

    proptest! {
        /// Whatever comes when: no panic, always something due within the patience, and advice that leads somewhere.
        #[test]
        fn silence_always_ends(steps in prop::collection::vec((0u64..5_000, 0u8..3), 0..60), hasty in 0u32..40) {
            let mut rhythm = Rhythm::new(Timestamp(0), PATIENCE, hasty);
            let mut now = Timestamp(0);
            for (after, what) in steps {
                now = now.after(after);
                match what {
                    0 => rhythm.probe(now),
                    other => rhythm.heard(now, other == 1),
                }
            }
            prop_assert!(rhythm.due() <= now.after(PATIENCE));
            prop_assert!(given_up(rhythm, now) <= 2 * PATIENCE);
        }
    }
}
