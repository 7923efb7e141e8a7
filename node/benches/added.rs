//! What OpenAI's endpoint costs over the control API: the same short conversation by `/control/jobs` and by
//! `/v1/chat/completions`, in turn, answered at once by another peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventsource_stream::Eventsource;
use futures::StreamExt;
use node::agents::Agents;
use node::agents::echo::Echo;
use node::request::JobRequest;
use protocol::{Capability, ChatMessage, JobKind, Price, Role};
use serde_json::json;

use crate::gateway::{chat, says};
use crate::pair::{Course, Pair};
use crate::plain::{LocalApi, client};
use crate::process::Failed;
use crate::stats::{Series, micros, quantile};

/// Rounds of the comparison.
const ROUNDS: usize = 20;
/// Jobs by each way in a round.
const EACH: usize = 20;
/// Tokens of a job.
const TOKENS: u32 = 16;
/// Before everything that is timed, as in `overhead`.
const PAUSE: Duration = Duration::from_millis(3);

/// Measures and reports.
pub(crate) async fn run(as_json: bool) -> Result<(), Failed> {
    let mut agents = Agents::default();
    agents.host(Arc::new(Echo::new(Capability::text_generation(), Price::default(), Some(0))));
    let pair = Pair::meet(agents).await?;
    let api = LocalApi::start(pair.asker().clone(), pair.receipts()).await?;
    let mut times = Times::default();
    times.take(&api).await?;
    pair.part().await?;
    let [control, gateway] = [&times.control, &times.gateway].map(|series| series.quantile(0.5));
    let added = times.between.quantile(0.5);
    if as_json {
        println!(
            "{}",
            json!({ "bench": "added", "control_us": control, "gateway_us": gateway, "added_us": added })
        );
        return Ok(());
    }
    println!("one job to its first token: control API {control:.0} us, gateway {gateway:.0} us");
    println!("the gateway adds {added:.0} us (median of rounds)");
    Ok(())
}

/// Microseconds to the first token.
#[derive(Default)]
struct Times {
    control: Series,
    gateway: Series,
    /// What lies between the medians of a round.
    between: Series,
}

impl Times {
    async fn take(&mut self, api: &LocalApi) -> Result<(), Failed> {
        let (client, url) = (client()?, format!("{}/v1/chat/completions", api.base));
        let request = same();
        // Round 0 opens connections, finds the provider and is forgotten.
        for round in 0..=ROUNDS {
            let (mut by_control, mut by_gateway) = (Vec::new(), Vec::new());
            for _ in 0..EACH {
                tokio::time::sleep(PAUSE).await;
                by_control.push(micros(api.job(&request).await?.stations()[1]));
                tokio::time::sleep(PAUSE).await;
                by_gateway.push(micros(by_chat(&client, &url).await?.stations()[1]));
            }
            if round > 0 {
                self.between.add(quantile(by_gateway.clone(), 0.5) - quantile(by_control.clone(), 0.5));
                by_control.into_iter().for_each(|time| self.control.add(time));
                by_gateway.into_iter().for_each(|time| self.gateway.add(time));
            }
        }
        Ok(())
    }
}

/// The job that the gateway makes of [`chat`], but for its seed, which an echo does not ask for.
fn same() -> JobRequest {
    JobRequest {
        kind: Some(JobKind::Generate),
        messages: vec![ChatMessage::new(Role::User, "word ")],
        max_tokens: Some(TOKENS),
        temperature: Some(1.0),
        seed: Some(1),
        ..JobRequest::default()
    }
}

async fn by_chat(client: &reqwest::Client, url: &str) -> Result<Course, Failed> {
    let (begin, mut course) = (Instant::now(), Course::default());
    let response = client.post(url).json(&chat(TOKENS as usize)).send().await?.error_for_status()?;
    let mut events = response.bytes_stream().eventsource();
    while let Some(event) = events.next().await {
        if says(&event?.data) {
            course.token(begin);
        }
        course.done = begin.elapsed();
    }
    if course.tokens != TOKENS {
        return Err(format!("a chat ended after {} tokens of {TOKENS}", course.tokens).into());
    }
    Ok(course)
}
