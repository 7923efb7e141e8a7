//! The agent that gives back what it was given: for tests, measurements and first steps without a model.
//!
//! Its pieces are the words of the prompt's last message, repeated up to `max_tokens` when a rate is given (so that a
//! stream of any length can be had), once through otherwise.

use std::sync::Arc;
use std::time::Duration;

use protocol::profile::LatencyClass;
use protocol::{AgentOffer, Capability, Finish, Input, JobError, Price, Speed, Token};
use tokio::time::MissedTickBehavior;

use super::{Agent, Context, Job, Running};

/// An agent that echoes.
#[derive(Clone, Debug)]
pub struct Echo {
    capability: Capability,
    price: Price,
    rate: Option<u32>,
}

impl Echo {
    /// An echo under `capability`. With a `rate` in tokens per second it goes on to `max_tokens`, at that pace; 0 is
    /// as fast as the mesh can carry.
    pub fn new(capability: Capability, price: Price, rate: Option<u32>) -> Self {
        Self { capability, price, rate }
    }

    async fn echo(&self, job: Job, context: Context) -> Result<Finish, JobError> {
        let text = last_text(&job.input)?;
        let words: Vec<&str> = text.split_inclusive(' ').collect();
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
            agent: format!("echo-{}", self.capability),
            capability: self.capability.clone(),
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

fn pace(rate: u32) -> Option<tokio::time::Interval> {
    let period = Duration::from_secs(1).checked_div(rate)?;
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    Some(interval)
}

fn last_text(input: &Input) -> Result<&str, JobError> {
    match input {
        Input::Chat(messages) => Ok(messages.last().map_or("", |message| &message.content)),
        Input::Text(text) => Ok(text),
        Input::Json(_) | Input::Tokens(_) => {
            Err(JobError::invalid("input", "must be text or chat messages for the echo agent"))
        }
    }
}
