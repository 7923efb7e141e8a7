//! What the mesh costs beyond a network: the stations of a job with the echo agent, beside a round trip over a raw
//! TCP connection and one over kept-alive HTTP; then how many tokens per second one stream carries.
//!
//! `cargo bench -p llamesh-node --bench overhead [-- --json]`

#![expect(clippy::print_stdout, reason = "a bench prints its result")]

mod pair;
mod plain;
mod stats;

use std::sync::Arc;
use std::time::{Duration, Instant};

use node::agents::Agents;
use node::agents::echo::Echo;
use node::request::JobRequest;
use pair::{Failed, Pair};
use plain::{Http, LocalApi, Raw};
use protocol::{Capability, Price};
use serde_json::json;
use stats::{Series, micros, wants_json};

/// Everything is measured in every round, so that a busy minute hits everything.
const ROUNDS: usize = 20;
/// Measurements of each thing per round.
const EACH: usize = 40;
/// Tokens of the answer of a short job.
const SHORT: u32 = 16;
/// Tokens of a long one: the most that an order may ask for.
const LONG: u32 = 32_768;
/// Long jobs; the first is not counted.
const STREAMS: usize = 13;
/// Bytes of a question.
const QUESTION: usize = 1024;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut agents = Agents::default();
    agents.host(Arc::new(Echo::new(Capability::text_generation(), Price::default(), Some(0))));
    let pair = Pair::meet(agents).await?;
    let latency = Latency::measure(&pair).await?;
    let stream = Stream::measure(&pair).await?;
    pair.part().await?;
    if wants_json() {
        println!("{}", json!({ "bench": "overhead", "latency_us": latency.json(), "stream": stream.json() }));
    } else {
        latency.print();
        stream.print();
    }
    Ok(())
}

/// Microseconds from the question to each station.
#[derive(Default)]
struct Latency {
    raw: Series,
    http: Series,
    started: Series,
    first_token: Series,
    done: Series,
    api_started: Series,
    api_first_token: Series,
    api_done: Series,
}

impl Latency {
    async fn measure(pair: &Pair) -> Result<Self, Failed> {
        let (mut raw, http) = (Raw::connect().await?, Http::start().await?);
        let api = LocalApi::start(pair.asker().clone(), pair.receipts()).await?;
        let request = asking(SHORT);
        let question = vec![b'q'; QUESTION];
        let mut latency = Self::default();
        // The first round opens connections, finds providers and warms the branch predictors.
        for round in 0..=ROUNDS {
            if round == 1 {
                latency = Self::default();
            }
            latency.rows_mut().into_iter().for_each(|(_, series)| series.round());
            for _ in 0..EACH {
                latency.raw.add(micros(raw.round_trip(&question).await?));
                latency.http.add(micros(http.round_trip(&question).await?));
                let course = pair.job(&request).await?;
                latency.started.add(micros(course.started));
                latency.first_token.add(micros(course.first_token));
                latency.done.add(micros(course.done));
                let course = api.job(&request).await?;
                latency.api_started.add(micros(course.started));
                latency.api_first_token.add(micros(course.first_token));
                latency.api_done.add(micros(course.done));
            }
        }
        Ok(latency)
    }

    fn rows_mut(&mut self) -> [(&'static str, &mut Series); 8] {
        [
            ("raw TCP, 1 KiB there and back", &mut self.raw),
            ("HTTP keep-alive, the same", &mut self.http),
            ("job: started", &mut self.started),
            ("job: first token", &mut self.first_token),
            ("job: receipt", &mut self.done),
            ("job by local API: started", &mut self.api_started),
            ("job by local API: first token", &mut self.api_first_token),
            ("job by local API: receipt", &mut self.api_done),
        ]
    }

    fn rows(&self) -> [(&'static str, &'static str, &Series); 8] {
        [
            ("raw_tcp", "raw TCP, 1 KiB there and back", &self.raw),
            ("http", "HTTP keep-alive, the same", &self.http),
            ("started", "job: started", &self.started),
            ("first_token", "job: first token", &self.first_token),
            ("done", "job: receipt", &self.done),
            ("api_started", "job by local API: started", &self.api_started),
            ("api_first_token", "job by local API: first token", &self.api_first_token),
            ("api_done", "job by local API: receipt", &self.api_done),
        ]
    }
}
