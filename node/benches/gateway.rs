//! OpenAI's endpoint under load.
//!
//! The load: 500 streams of 100 tokens, each at the 20 tokens per second at which people read, arriving evenly within
//! five seconds, so that nearly all of them run at once. The peer is a process of its own; its clients are here. Time to
//! the first byte is the time to the first piece of the answer's body. Waves follow each other, so that memory that is
//! not given back shows as growth from one to the next.

use std::time::{Duration, Instant};

use eventsource_stream::Eventsource;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::plain::client;
use crate::process::{Failed, Peer};
use crate::stats::quantile;

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
    let [first, first99] = [0.5, 0.99].map(|share| quantile(load.first_byte.clone(), share));
    let [token, token99] = [0.5, 0.99].map(|share| quantile(load.first_token.clone(), share));
    if as_json {
        println!(
            "{}",
            json!({ "bench": "gateway", "streams": STREAMS, "errors": load.errors, "first_byte_ms": [first, first99],
                "first_token_ms": [token, token99], "memory_mib": load.memory })
        );
        return Ok(());
    }
    println!("{WAVES} waves of {STREAMS} streams of {TOKENS} tokens: {} errors", load.errors);
    println!("first byte   p50 {first:>7.1} ms  p99 {first99:>7.1} ms");
    println!("first token  p50 {token:>7.1} ms  p99 {token99:>7.1} ms");
    println!("resident before, and after each wave: {:.1?} MiB", load.memory);
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

/// A chat that an echo answers with so many tokens.
pub(crate) fn chat(tokens: usize) -> Value {
    json!({ "model": "auto", "messages": [{ "role": "user", "content": "word " }], "stream": true,
            "max_tokens": tokens })
}

/// One stream to its end: when its first byte came, and when its first token.
async fn stream(client: &reqwest::Client, url: &str) -> Result<(Duration, Duration), Failed> {
    let begin = Instant::now();
    let response = client.post(url).json(&chat(TOKENS)).send().await?;
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
pub(crate) fn says(event: &str) -> bool {
    event.contains("\"content\":\"word")
}
