//! The agent that gives back what it was given: for tests, measurements and first steps without a model.
//!
//! Its pieces are the words of the prompt's last message, repeated up to `max_tokens` when a rate is given (so that a
//! stream of any length can be had), once through otherwise.

use std::sync::Arc;
use std::time::Duration;

use protocol::error::Feature;
use protocol::profile::LatencyClass;
use protocol::{AgentOffer, Capability, Finish, Input, JobError, JobKind, Price, Speed, Token};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use super::{Agent, Context, Job, Running};

/// An agent that echoes.
#[derive(Clone, Debug)]
pub struct Echo {
    name: String,
    capability: Capability,
    price: Price,
    rate: Option<u32>,
    slots: Arc<Semaphore>,
}

impl Echo {
    /// An echo under `capability`. With a `rate` in tokens per second it goes on to `max_tokens`, at that pace; 0 is
    /// as fast as the mesh can carry.
    pub fn new(capability: Capability, price: Price, rate: Option<u32>) -> Self {
        Self {
            name: format!("echo-{capability}"),
            capability,
            price,
            rate,
            slots: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    /// The same for so many jobs at once; others wait in their order.
    #[must_use]
    pub fn with_slots(self, slots: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))), ..self }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(self, name: Option<String>) -> Self {
        Self { name: name.unwrap_or(self.name), ..self }
    }

    async fn echo(&self, job: Job, context: Context) -> Result<Finish, JobError> {
        // It says what it heard: in no other form, with no tool, and without any notion of what is likely.
        job.check_without(&[Feature::Constraint, Feature::Logprobs, Feature::Tools, Feature::Continuation])?;
        let text = last_text(&job.input)?;
        // Never closed, so always had in the end.
        let _slot = self.slots.acquire().await.map_err(|_| JobError::Engine)?;
        context.begin();
        let words: Vec<&str> = text.split_inclusive(' ').flat_map(pieces).collect();
        let limit = job.order.sampling.max_tokens as usize;
        let mut pace = self.rate.and_then(pace);
        let count = if self.rate.is_some() { limit } else { words.len().min(limit) };
        for word in words.iter().cycle().take(count) {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            context.token(Token { id: None, text: (*word).to_owned() }).await;
        }
        Ok(if count < words.len() || self.rate.is_some() { Finish::Length } else { Finish::EndOfText })
    }
}

impl Agent for Echo {
    fn offer(&self) -> AgentOffer {
        let decode = self.rate.filter(|rate| *rate > 0).unwrap_or(100_000);
        AgentOffer {
            agent: self.name.clone(),
            capability: self.capability.clone(),
            kinds: vec![JobKind::Generate],
            model: None,
            price: self.price,
            speed: Speed { prefill: 1_000_000, decode, latency: LatencyClass::Interactive },
            languages: Vec::new(),
            modalities: vec!["text".to_owned()],
            tools: Vec::new(),
        }
    }

    fn run(self: Arc<Self>, job: Job, context: Context) -> Running {
        Box::pin(async move { self.echo(job, context).await })
    }
}

/// A word in pieces that frames can hold.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let (piece, left) = rest.split_at(rest.floor_char_boundary(Token::MAX_TEXT));
        rest = left;
        (!piece.is_empty()).then_some(piece)
    })
}

/// No interval for a rate of 0, and for one that no clock can keep.
fn pace(rate: u32) -> Option<tokio::time::Interval> {
    let period = Duration::from_secs(1).checked_div(rate).filter(|period| !period.is_zero())?;
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    Some(interval)
}

fn last_text(input: &Input) -> Result<&str, JobError> {
    match input {
        Input::Chat(chat) => Ok(chat.messages.last().map_or("", |message| &message.content)),
        Input::Text(text) => Ok(text),
        Input::Json(_) | Input::Tokens(_) => {
            Err(JobError::invalid("input", "must be text or chat messages for the echo agent"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_any_length_fits_its_frames_and_comes_back_whole() {
        let word = "é".repeat(Token::MAX_TEXT);
        let parts: Vec<&str> = pieces(&word).collect();
        assert!(
            parts.len() > 1 && parts.iter().all(|part| !part.is_empty() && part.len() <= Token::MAX_TEXT)
        );
        assert_eq!(parts.concat(), word);
        assert_eq!(pieces("").count(), 0);
    }

    #[tokio::test]
    async fn a_rate_that_no_clock_can_keep_is_no_panic() {
        assert!(pace(0).is_none());
        assert!(pace(u32::MAX).is_none());
        assert!(pace(100).is_some());
    }
}
