//! What a key may do, and how much of it is used up. Pure: the time is an argument, and nothing is stored here.

use std::num::NonZeroU32;

use protocol::{Capability, Credits, Timestamp};
use serde::{Deserialize, Serialize};

use crate::api::refusal::Refusal;

/// What a key may do. Without any limit it may ask as often as it likes for what is free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Micro-credits that its jobs may cost, all together; where neither this nor the next one is said, none.
    pub spend: Option<Credits>,
    /// Micro-credits that its jobs may cost in a day (UTC).
    pub spend_per_day: Option<Credits>,
    /// Micro-credits that one job may cost; [`Limits::SHARE`] of the spend by default.
    pub per_job: Option<Credits>,
    /// What it may ask for, with everything below; all of it where the list is empty.
    pub capabilities: Vec<Capability>,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// Requests in a minute.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Requests at work at once; [`Limits::CONCURRENT`] by default.
    pub concurrent: Option<NonZeroU32>,
}

/// What a key's jobs have cost. It is on disk before anybody is told that the job is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Ever.
    pub total: Credits,
    /// On the day below.
    pub today: Credits,
    /// Days since 1970.
    pub day: u64,
}

/// What a key has under way. It ends with the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Set aside for jobs at work.
    pub held: Credits,
    /// Requests at work.
    pub running: u32,
    /// When all that the rate allows would be used up evenly, in microseconds (the virtual scheduling of GCRA).
    pub even_us: u64,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const MINUTE_US: u64 = 60_000_000;

impl Limits {
    /// Jobs among which the spend is shared out unless it is said what one may cost: as many as a request has choices.
    pub const SHARE: u64 = 16;
    /// Requests at work at once unless it is said how many: well below what the peer takes, so that no key takes all of it.
    pub const CONCURRENT: u32 = 256;

    /// Whether one more request may begin; if so, it has.
    pub fn begin(&self, now: Timestamp, live: &mut Live) -> Result<(), Refusal> {
        if self.expires.is_some_and(|end| now >= end) {
            return Err(Refusal::Expired);
        }
        if live.running >= self.concurrent.map_or(Self::CONCURRENT, NonZeroU32::get) {
            return Err(Refusal::Concurrent);
        }
        if let Some(rate) = self.requests_per_minute {
            let now_us = now.0.saturating_mul(1000);
            let even = live.even_us.max(now_us);
            let next = even.saturating_add(MINUTE_US / u64::from(rate.get()));
            let early = next.saturating_sub(now_us.saturating_add(MINUTE_US));
            if early > 0 {
                return Err(Refusal::Rate { retry_after: early.div_ceil(1_000_000) });
            }
            live.even_us = next;
        }
        live.running += 1;
        Ok(())
    }

    /// Whether the key may ask for a capability.
    pub fn allow(&self, capability: &Capability) -> Result<(), Refusal> {
        let allowed =
            self.capabilities.is_empty() || self.capabilities.iter().any(|one| one.covers(capability));
        if allowed { Ok(()) } else { Err(Refusal::Capability(capability.clone())) }
    }

    /// Sets aside what a job may cost, at most `wanted` where it says so; zero where only what is free may be had.
    pub fn hold(
        &self,
        now: Timestamp,
        spent: &Spent,
        live: &mut Live,
        wanted: Credits,
    ) -> Result<Credits, Refusal> {
        let Some(most) = [self.spend, self.spend_per_day].into_iter().flatten().min() else {
            return Ok(Credits::ZERO);
        };
        let left = self.left(now, spent)?;
        let free = Credits(left.0.saturating_sub(live.held.0));
        if free == Credits::ZERO {
            return Err(Refusal::Held);
        }
        let per_job = self.per_job.unwrap_or_else(|| Credits(most.0.div_ceil(Self::SHARE)));
        let asked = if wanted == Credits::ZERO { per_job } else { wanted.min(per_job) };
        let granted = asked.min(free);
        live.held = Credits(live.held.0.saturating_add(granted.0));
        Ok(granted)
    }

    /// What of the spend is left.
    fn left(&self, now: Timestamp, spent: &Spent) -> Result<Credits, Refusal> {
        let over = |limit: Option<Credits>, used: Credits| {
            limit.map_or(Credits(u64::MAX), |limit| Credits(limit.0.saturating_sub(used.0)))
        };
        let ever = over(self.spend, spent.total);
        let today = over(self.spend_per_day, spent.on(now));
        if ever == Credits::ZERO {
            return Err(Refusal::Spent { retry_after: None });
        }
        if today == Credits::ZERO {
            let rest = DAY_MS - now.0 % DAY_MS;
            return Err(Refusal::Spent { retry_after: Some(rest.div_ceil(1000)) });
        }
        Ok(ever.min(today))
    }

    /// Whether anything may be spent at all; asked before a request is read.
    pub fn check_spend(&self, now: Timestamp, spent: &Spent) -> Result<(), Refusal> {
        self.left(now, spent).map(drop)
    }
}

impl Spent {
    /// What was spent on the day of `now`.
    pub fn on(&self, now: Timestamp) -> Credits {
        if self.day == now.0 / DAY_MS { self.today } else { Credits::ZERO }
    }

    /// The same after a job that has cost so much.
    #[must_use]
    pub fn after(&self, now: Timestamp, cost: Credits) -> Self {
        Self {
            total: Credits(self.total.0.saturating_add(cost.0)),
            today: Credits(self.on(now).0.saturating_add(cost.0)),
            day: now.0 / DAY_MS,
        }
    }
}

impl Live {
    /// A request is over.
    pub fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// A job is over, whatever it has cost.
    pub fn release(&mut self, held: Credits) {
        self.held = Credits(self.held.0.saturating_sub(held.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(20_000 * DAY_MS + DAY_MS / 2);

    fn limits(text: &str) -> Limits {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_rate_allows_a_burst_of_a_minute_and_then_an_even_flow() {
        let (limits, mut live) = (limits(r#"{"requests_per_minute":3}"#), Live::default());
        for _ in 0..3 {
            limits.begin(NOON, &mut live).unwrap();
        }
        assert_eq!(limits.begin(NOON, &mut live), Err(Refusal::Rate { retry_after: 20 }));
        limits.begin(NOON.after(20_000), &mut live).unwrap();
        assert_eq!(limits.begin(NOON.after(20_001), &mut live), Err(Refusal::Rate { retry_after: 20 }));
        for _ in 0..3 {
            limits.begin(NOON.after(600_000), &mut live).unwrap();
        }
        assert!(
            limits.begin(NOON.after(600_000), &mut live).is_err(),
            "a pause saves up no more than a minute"
        );
    }

    #[test]
    fn requests_at_once_are_counted_to_their_end() {
        let (limits, mut live) = (limits(r#"{"concurrent":2}"#), Live::default());
        limits.begin(NOON, &mut live).unwrap();
        limits.begin(NOON, &mut live).unwrap();
        assert_eq!(limits.begin(NOON, &mut live), Err(Refusal::Concurrent));
        live.end();
        limits.begin(NOON, &mut live).unwrap();
    }

    #[test]
    fn jobs_at_work_never_hold_more_than_is_left() {
        let (limits, spent, mut live) =
            (limits(r#"{"spend":100,"per_job":60}"#), Spent::default(), Live::default());
        let mut hold = |spent: &Spent, wanted| limits.hold(NOON, spent, &mut live, Credits(wanted));
        assert_eq!(hold(&spent, 0), Ok(Credits(60)));
        assert_eq!(hold(&spent, 0), Ok(Credits(40)));
        assert_eq!(hold(&spent, 1), Err(Refusal::Held));
        live.release(Credits(60));
        live.release(Credits(40));
        let spent = spent.after(NOON, Credits(95));
        assert_eq!(limits.hold(NOON, &spent, &mut live, Credits(3)), Ok(Credits(3)));
        assert_eq!(limits.hold(NOON, &spent, &mut live, Credits(3)), Ok(Credits(2)));
        let spent = spent.after(NOON, Credits(5));
        assert_eq!(
            limits.hold(NOON, &spent, &mut live, Credits(0)),
            Err(Refusal::Spent { retry_after: None })
        );
    }

    #[test]
    fn a_day_s_spend_is_new_at_midnight() {
        let limits = limits(r#"{"spend_per_day":10}"#);
        let spent = Spent::default().after(NOON, Credits(10));
        let refused = limits.check_spend(NOON, &spent);
        assert_eq!(refused, Err(Refusal::Spent { retry_after: Some(12 * 60 * 60) }));
        let tomorrow = NOON.after(DAY_MS / 2);
        limits.check_spend(tomorrow, &spent).unwrap();
        assert_eq!(spent.after(tomorrow, Credits(1)).today, Credits(1));
        assert_eq!(spent.after(tomorrow, Credits(1)).total, Credits(11));
    }

    #[test]
    fn without_a_spend_only_what_is_free_may_be_had() {
        let hold = limits("{}").hold(NOON, &Spent::default(), &mut Live::default(), Credits(9));
        assert_eq!(hold, Ok(Credits::ZERO));
    }

    #[test]
    fn a_capability_covers_what_is_below_it() {
        let limits = limits(r#"{"capabilities":["text"]}"#);
        limits.allow(&Capability::text_generation()).unwrap();
        let tool = Capability::tool();
        assert_eq!(limits.allow(&tool), Err(Refusal::Capability(tool)));
    }

    #[test]
    fn a_key_ends_when_it_was_to() {
        let limits = Limits { expires: Some(NOON), ..Limits::default() };
        limits.begin(Timestamp(NOON.0 - 1), &mut Live::default()).unwrap();
        assert_eq!(limits.begin(NOON, &mut Live::default()), Err(Refusal::Expired));
    }
}
