//! What it costs to be watched: jobs per second with traces and without, and a scrape of the metrics.
//!
//! Two pairs of peers run side by side, one traced and one not, and take turns within each round, in changing order. Both
//! peers of the traced pair send every span to a collector, which reads and forgets them on a thread of this process: its
//! share is in the numbers. A job is the shortest that there is, so nothing hides the spans.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use futures::future::try_join_all;
use node::agents::Agents;
use node::agents::echo::Echo;
use node::request::JobRequest;
use node::traces::Traces;
use protocol::{Capability, Price};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::pair::Pair;
use crate::plain::{LocalApi, client};
use crate::process::{Failed, processor_time};
use crate::stats::Series;

/// Rounds, of which each pair does its jobs once.
const ROUNDS: usize = 40;
/// Jobs that run at once.
const AT_ONCE: usize = 8;
/// Jobs of each of these in a round, one after the other.
const EACH: usize = 25;
/// Scrapes.
const SCRAPES: usize = 500;

/// Measures and reports.
pub(crate) async fn run(as_json: bool) -> Result<(), Failed> {
    let url = collector()?;
    let traces = spawn_blocking(move || Traces::to(&url)).await??;
    let (plain, traced) = (Pair::meet(echo()).await?, Pair::meet_traced(echo(), traces.clone()).await?);
    let (mut off, mut on) = (Series::default(), Series::default());
    for round in 0..=ROUNDS {
        let mut turns = [(&plain, &mut off), (&traced, &mut on)];
        if round % 2 == 1 {
            turns.reverse();
        }
        for (pair, series) in turns {
            let rate = rate(pair).await?;
            // The first round only wakes everything up.
            if round > 0 {
                series.round();
                series.add(rate);
            }
        }
    }
    let (scrape, processor) = scrapes(&traced).await?;
    let loss = (1.0 - on.ratio(&off)) * 100.0;
    let [off, on] = [off, on].map(|series| series.quantile(0.5));
    let [half, most] = [0.5, 0.99].map(|share| scrape.quantile(share));
    plain.part().await?;
    traced.part().await?;
    spawn_blocking(move || drop(traces)).await?;
    if as_json {
        println!(
            "{}",
            json!({ "bench": "observe", "jobs_per_second": off, "traced": on, "loss_percent": loss,
                "scrape_us": [half, most], "scrape_processor_us": processor })
        );
        return Ok(());
    }
    println!(
        "jobs per second, {AT_ONCE} at once: {off:.0}; traced {on:.0}: {loss:.1} % less (median of rounds)"
    );
    println!("a scrape: p50 {half:.0} us, p99 {most:.0} us, of processors {processor:.0} us with who asks");
    Ok(())
}

fn echo() -> Agents {
    let mut agents = Agents::default();
    agents.host(Arc::new(Echo::new(Capability::text_generation(), Price::default(), None)));
    agents
}

/// Jobs per second.
async fn rate(pair: &Pair) -> Result<f64, Failed> {
    let request = JobRequest { prompt: Some("one two three four".to_owned()), ..JobRequest::default() };
    let begin = Instant::now();
    let lanes = (0..AT_ONCE).map(|_| async {
        for _ in 0..EACH {
            pair.job(&request).await?;
        }
        Ok::<(), Failed>(())
    });
    try_join_all(lanes).await?;
    Ok((AT_ONCE * EACH) as f64 / begin.elapsed().as_secs_f64())
}

/// How long scrapes take, and what one takes of processors, in microseconds.
async fn scrapes(pair: &Pair) -> Result<(Series, f64), Failed> {
    let api = LocalApi::start(pair.asker().clone(), pair.receipts()).await?;
    let (client, url) = (client()?, format!("{}/metrics", api.base));
    let mut times = Series::default();
    let before = processor_time()?;
    for _ in 0..SCRAPES {
        let begin = Instant::now();
        client.get(&url).send().await?.error_for_status()?.bytes().await?;
        times.add(crate::stats::micros(begin.elapsed()));
    }
    let used = processor_time()?.saturating_sub(before);
    Ok((times, crate::stats::micros(used) / SCRAPES as f64))
}

/// A collector that forgets. It lives as long as the process.
fn collector() -> Result<String, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || forget(stream));
        }
    });
    Ok(url)
}

/// Reads requests to the end of the connection. Whatever is wrong with one ends it.
fn forget(mut stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(told) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = told.trim().parse().ok()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}
