//! What the mesh costs beyond a network: the stations of a job with the echo agent, beside a round trip over a raw
//! TCP connection and one over kept-alive HTTP; then how many tokens per second one stream carries.

use std::sync::Arc;
use std::time::Duration;

use node::agents::Agents;
use node::agents::echo::Echo;
use node::request::JobRequest;
use protocol::{Capability, Price};
use serde_json::{Value, json};

use crate::pair::Pair;
use crate::plain::{Http, LocalApi, Raw};
use crate::process::{Failed, processor_time};
use crate::stats::{Series, micros};

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
/// Before everything that is timed. A job that has its receipt leaves the provider's journal to be written, and what
/// comes next must not pay for it.
const PAUSE: Duration = Duration::from_millis(3);
/// Bytes of a question.
const QUESTION: usize = 1024;

/// Measures and reports.
pub(crate) async fn run(as_json: bool) -> Result<(), Failed> {
    let mut agents = Agents::default();
    agents.host(Arc::new(Echo::new(Capability::text_generation(), Price::default(), Some(0))));
    let pair = Pair::meet(agents).await?;
    let latency = Latency::measure(&pair).await?;
    let stream = Stream::measure(&pair).await?;
    pair.part().await?;
    if as_json {
        println!("{}", json!({ "bench": "overhead", "latency_us": latency.json(), "stream": stream.json() }));
    } else {
        latency.print();
        stream.print();
    }
    Ok(())
}

/// What is timed, as JSON and as people call it. The first two are what the others are compared with.
const STATIONS: [(&str, &str); 8] = [
    ("raw_tcp", "raw TCP, 1 KiB there and back"),
    ("http", "HTTP keep-alive, the same"),
    ("started", "job: started"),
    ("first_token", "job: first token"),
    ("done", "job: receipt"),
    ("api_started", "local API: started"),
    ("api_first_token", "local API: first token"),
    ("api_done", "local API: receipt"),
];

/// Microseconds from the question to each station.
struct Latency([Series; STATIONS.len()]);

impl Latency {
    async fn measure(pair: &Pair) -> Result<Self, Failed> {
        let (mut raw, http) = (Raw::connect().await?, Http::start().await?);
        let api = LocalApi::start(pair.asker().clone(), pair.receipts()).await?;
        let (request, question) = (asking(SHORT), vec![b'q'; QUESTION]);
        let mut series: [Series; STATIONS.len()] = Default::default();
        // Round 0 opens connections, finds the provider and is forgotten.
        for round in 0..=ROUNDS {
            if round <= 1 {
                series = Default::default();
            }
            series.iter_mut().for_each(Series::round);
            for _ in 0..EACH {
                let plain = settled(raw.round_trip(&question)).await?;
                let served = settled(http.round_trip(&question)).await?;
                let job = settled(pair.job(&request)).await?;
                let by_api = settled(api.job(&request)).await?;
                let [started, first, done] = job.stations();
                let [api_started, api_first, api_done] = by_api.stations();
                let times = [plain, served, started, first, done, api_started, api_first, api_done];
                series.iter_mut().zip(times).for_each(|(series, time)| series.add(micros(time)));
            }
        }
        Ok(Self(series))
    }

    fn json(&self) -> Value {
        let [raw, http, ..] = &self.0;
        let station = |(key, series): (&str, &Series)| {
            let (to_raw, to_http) = (series.ratio(raw), series.ratio(http));
            let json = json!({
                "p50": series.quantile(0.5), "p99": series.quantile(0.99), "to_raw": to_raw, "to_http": to_http,
            });
            (key.to_owned(), json)
        };
        STATIONS
            .iter()
            .map(|(key, _)| *key)
            .zip(&self.0)
            .map(station)
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn print(&self) {
        let [raw, http, ..] = &self.0;
        println!("{:<30} {:>10} {:>10} {:>8} {:>8}", "microseconds", "p50", "p99", "x raw", "x HTTP");
        for ((_, label), series) in STATIONS.iter().zip(&self.0) {
            let (p50, p99) = (series.quantile(0.5), series.quantile(0.99));
            let (to_raw, to_http) = (series.ratio(raw), series.ratio(http));
            println!("{label:<30} {p50:>10.1} {p99:>10.1} {to_raw:>8.1} {to_http:>8.1}");
        }
    }
}

/// The same, once the dust of what was before has settled.
async fn settled<T>(measurement: impl Future<Output = T>) -> T {
    tokio::time::sleep(PAUSE).await;
    measurement.await
}

/// Long answers, one at a time.
#[derive(Default)]
struct Stream {
    /// Tokens per second.
    rate: Series,
    /// Processor microseconds per token, of both peers together.
    processor: Series,
}

impl Stream {
    async fn measure(pair: &Pair) -> Result<Self, Failed> {
        let mut stream = Self::default();
        for number in 0..STREAMS {
            let before = processor_time()?;
            let course = pair.job(&asking(LONG)).await?;
            if number > 0 {
                stream.rate.add(course.rate());
                stream.processor.add(micros(processor_time()? - before) / f64::from(course.tokens));
            }
        }
        Ok(stream)
    }

    fn json(&self) -> Value {
        json!({ "tokens_per_second": self.rate.quantile(0.5), "processor_us_per_token": self.processor.quantile(0.5) })
    }

    fn print(&self) {
        let [low, middle, high] = [0.0, 0.5, 1.0].map(|share| self.rate.quantile(share));
        println!("\none stream of {LONG} tokens: {middle:.0} tokens/s (from {low:.0} to {high:.0})");
        println!("processor time of both peers: {:.2} us per token", self.processor.quantile(0.5));
    }
}

/// A question of [`QUESTION`] bytes, in words.
fn asking(max_tokens: u32) -> JobRequest {
    let prompt = "word ".repeat(QUESTION / 5);
    JobRequest { prompt: Some(prompt), max_tokens: Some(max_tokens), ..JobRequest::default() }
}
