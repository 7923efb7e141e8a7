//! OpenAI's endpoint under load, and what it costs over the control API.
//!
//! The load: 500 streams of 100 tokens, each at the 20 tokens per second at which people read, arriving evenly within
//! five seconds, so that nearly all of them run at once. The peer is a process of its own; its clients are here. Time to
//! the first byte is the time to the first piece of the answer's body. Waves follow each other, so that memory that is
//! not given back shows as growth from one to the next.
//!
//! The cost: the same short job by `/control/jobs` and by `/v1/chat/completions`, in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventsource_stream::Eventsource;
use futures::StreamExt;
use node::agents::Agents;
use node::agents::echo::Echo;
use node::request::JobRequest;
use protocol::{Capability, Price};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::pair::{Course, Pair};
use crate::plain::{LocalApi, client};
use crate::process::{Failed, Peer};
use crate::stats::{Series, micros, quantile};

/// Streams of a wave.
const STREAMS: u32 = 500;
/// Tokens of each.
const TOKENS: usize = 100;
/// Within which they arrive.
const ARRIVALS: Duration = Duration::from_secs(5);
/// Waves, one after the other: what is kept of jobs has a bound, which the first few only fill.
const WAVES: usize = 7;
/// Of which one requester gets half: the peer itself is one.
const SLOTS: &str = "1024";
/// Rounds of the comparison.
const ROUNDS: usize = 20;
/// Jobs by each way in a round.
const EACH: usize = 20;
/// Before everything that is timed, as in `overhead`.
const PAUSE: Duration = Duration::from_millis(3);

/// Measures and reports.
pub(crate) async fn run(as_json: bool) -> Result<(), Failed> {
    let mut load = Load::default();
    let peer = Peer::with(&["--engine", "echo:20", "--slots", SLOTS])?;
    load.memory.push(peer.resident_mib()?);
    for _ in 0..WAVES {
        load.wave(&peer.api).await?;
        load.memory.push(peer.resident_mib()?);
    }
    drop(peer);
    let added = added().await?;
    let [first, first99] = [0.5, 0.99].map(|share| quantile(load.first_byte.clone(), share));
    let [token, token99] = [0.5, 0.99].map(|share| quantile(load.first_token.clone(), share));
    let [control, gateway] = [&added.0, &added.1].map(|series| series.quantile(0.5));
    if as_json {
        println!(
            "{}",
            json!({ "bench": "gateway", "streams": STREAMS, "errors": load.errors, "first_byte_ms": [first, first99],
                "first_token_ms": [token, token99], "memory_mib": load.memory,
                "control_us": control, "gateway_us": gateway, "added_us": added.2.quantile(0.5) })
        );
        return Ok(());
    }
    println!("{WAVES} waves of {STREAMS} streams of {TOKENS} tokens: {} errors", load.errors);
    println!("first byte   p50 {first:>7.1} ms  p99 {first99:>7.1} ms");
    println!("first token  p50 {token:>7.1} ms  p99 {token99:>7.1} ms");
    println!("resident before, and after each wave: {:.1?} MiB", load.memory);
    println!("one job to its first token: control API {control:.0} us, gateway {gateway:.0} us");
    println!("the gateway adds {:.0} us (median of rounds)", added.2.quantile(0.5));
    Ok(())
}

#[derive(Default)]
struct Load {
    errors: usize,
    /// Milliseconds.
    first_byte: Vec<f64>,
    first_token: Vec<f64>,
    /// MiB.
    memory: Vec<f64>,
}

impl Load {
    async fn wave(&mut self, api: &str) -> Result<(), Failed> {
        let client = client()?;
        let mut streams = JoinSet::new();
        let begin = tokio::time::Instant::now();
        for number in 0..STREAMS {
            let (client, url) = (client.clone(), format!("{api}/v1/chat/completions"));
            streams.spawn(async move {
                tokio::time::sleep_until(begin + ARRIVALS * number / STREAMS).await;
                stream(&client, &url).await
            });
        }
        while let Some(ended) = streams.join_next().await {
            match ended? {
                Ok((first_byte, first_token)) => {
                    self.first_byte.push(first_byte.as_secs_f64() * 1e3);
                    self.first_token.push(first_token.as_secs_f64() * 1e3);
                }
                Err(error) => {
                    self.errors += 1;
                    eprintln!("{error}");
                }
            }
        }
        Ok(())
    }
}

fn body(prompt: &str, tokens: usize) -> Value {
    json!({ "model": "auto", "messages": [{ "role": "user", "content": prompt }], "stream": true,
            "max_tokens": tokens })
}

/// One stream to its end: when its first byte came, and when its first token.
async fn stream(client: &reqwest::Client, url: &str) -> Result<(Duration, Duration), Failed> {
    let begin = Instant::now();
    let response = client.post(url).json(&body("word ", TOKENS)).send().await?;
    if !response.status().is_success() {
        return Err(response.text().await?.into());
    }
    let (mut first_byte, mut first_token, mut tokens, mut last) = (None, None, 0, String::new());
    let bytes = response.bytes_stream().inspect(|_| {
        first_byte.get_or_insert_with(|| begin.elapsed());
    });
    let mut events = Box::pin(bytes.eventsource());
    while let Some(event) = events.next().await {
        let data = event?.data;
        if says(&data) {
            first_token.get_or_insert_with(|| begin.elapsed());
            tokens += 1;
        }
        last = data;
    }
    drop(events);
    match (first_byte, first_token) {
        (Some(byte), Some(token)) if last == "[DONE]" && tokens == TOKENS => Ok((byte, token)),
        _ => Err(format!("a stream ended after {tokens} tokens with {last}").into()),
    }
}

/// Whether an event brings text. Looked for rather than parsed: what is measured is the server.
fn says(event: &str) -> bool {
    event.contains("\"content\":\"word")
}

/// Microseconds to the first token by the control API, by the gateway, and what lies between their medians, by round.
async fn added() -> Result<(Series, Series, Series), Failed> {
    let mut agents = Agents::default();
    agents.host(Arc::new(Echo::new(Capability::text_generation(), Price::default(), Some(0))));
    let pair = Pair::meet(agents).await?;
    let api = LocalApi::start(pair.asker().clone(), pair.receipts()).await?;
    let (client, url) = (client()?, format!("{}/v1/chat/completions", api.base));
    let (mut control, mut gateway, mut between) = (Series::default(), Series::default(), Series::default());
    let request =
        JobRequest { prompt: Some("word ".to_owned()), max_tokens: Some(16), ..JobRequest::default() };
    // Round 0 opens connections, finds the provider and is forgotten.
    for round in 0..=ROUNDS {
        let (mut by_control, mut by_gateway) = (Vec::new(), Vec::new());
        for _ in 0..EACH {
            tokio::time::sleep(PAUSE).await;
            by_control.push(micros(api.job(&request).await?.stations()[1]));
            tokio::time::sleep(PAUSE).await;
            by_gateway.push(micros(chat(&client, &url).await?.stations()[1]));
        }
        if round > 0 {
            between.add(quantile(by_gateway.clone(), 0.5) - quantile(by_control.clone(), 0.5));
            by_control.into_iter().for_each(|time| control.add(time));
            by_gateway.into_iter().for_each(|time| gateway.add(time));
        }
    }
    pair.part().await?;
    Ok((control, gateway, between))
}

/// The same short job by the gateway.
async fn chat(client: &reqwest::Client, url: &str) -> Result<Course, Failed> {
    let (begin, mut course) = (Instant::now(), Course::default());
    let response = client.post(url).json(&body("word ", 16)).send().await?;
    let mut events = response.bytes_stream().eventsource();
    while let Some(event) = events.next().await {
        let data = event?.data;
        if says(&data) {
            course.token(begin);
        }
        course.done = begin.elapsed();
    }
    Ok(course)
}
