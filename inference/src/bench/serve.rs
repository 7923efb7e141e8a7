//! Many clients at once, as a server sees them: arrivals by chance, requests of all lengths.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::prompt;
use crate::engine::{Engine, GenerateError, Request};
use crate::generation::Step;
use crate::math::ln;
use crate::sample::Sampling;
use crate::schedule::Tenant;
use crate::worker::{Event, Flow, Serving, Submission, Worker};

/// What [`CLIENTS`] clients got, against the same requests one at a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Served {
    /// How many clients there were.
    pub clients: usize,
    /// Tokens of answers per second, from the first request to the last answer.
    pub throughput: f64,
    /// The same with one job at a time.
    pub alone: f64,
    /// The first divided by the second.
    pub speedup: f64,
    /// Milliseconds between two tokens of an answer: the median.
    pub gap_p50_ms: f64,
    /// Milliseconds that 95 of 100 gaps do not exceed.
    pub gap_p95_ms: f64,
    /// That, as a multiple of the median gap with one job at a time.
    pub gap_p95_over_alone: f64,
    /// That, as a multiple of what 95 of 100 gaps do not exceed with one job at a time.
    pub gap_p95_over_alone_p95: f64,
    /// Milliseconds from a request to its first token: the median.
    pub first_token_p50_ms: f64,
}

/// One request.
#[derive(Clone, Debug)]
struct Call {
    client: u8,
    after: Duration,
    request: Request,
}

/// When things happened to a request.
#[derive(Debug)]
struct Course {
    asked: Instant,
    tokens: Vec<Instant>,
}

/// Serves [`CLIENTS`] clients, some requests each, at several times the rate that one at a time could bear.
pub fn serve(engine: &Arc<dyn Engine>) -> Result<Served, GenerateError> {
    let alone = run(engine, calls(engine.as_ref(), Duration::ZERO), 1)?;
    let seconds = |courses: &[Course]| elapsed(courses).as_secs_f64();
    let tokens = |courses: &[Course]| courses.iter().map(|course| course.tokens.len()).sum::<usize>() as f64;
    let between = elapsed(&alone) / (PRESSURE * CLIENTS * CALLS) as u32;
    let together = run(engine, calls(engine.as_ref(), between), CLIENTS)?;
    let (throughput, one) = (tokens(&together) / seconds(&together), tokens(&alone) / seconds(&alone));
    let (gaps, gaps_alone) = (gaps(&together), gaps(&alone));
    let firsts = together.iter().filter_map(|c| Some(milliseconds(*c.tokens.first()? - c.asked))).collect();
    Ok(Served {
        clients: CLIENTS,
        throughput,
        alone: one,
        speedup: throughput / one,
        gap_p50_ms: quantile(&gaps, 0.5),
        gap_p95_ms: quantile(&gaps, 0.95),
        gap_p95_over_alone: quantile(&gaps, 0.95) / quantile(&gaps_alone, 0.5),
        gap_p95_over_alone_p95: quantile(&gaps, 0.95) / quantile(&gaps_alone, 0.95),
        first_token_p50_ms: quantile(&sorted(firsts), 0.5),
    })
}

/// Requests of all lengths; they come with gaps that are exponential with this mean.
fn calls(engine: &dyn Engine, between: Duration) -> Vec<Call> {
    let mut chance = Chance(1);
    let mut after = Duration::ZERO;
    (0..CLIENTS * CALLS)
        .map(|number| {
            after += between.mul_f64(-ln(1.0 - chance.next()));
            let length = 16 + (chance.next() * 112.0) as usize;
            let answer = 32 + (chance.next() * 64.0) as u32;
            // Each begins otherwise, so that none finds what another read.
            let mut tokens = prompt(engine, length);
            tokens[0] = number as u32 % engine.card().vocabulary.max(1) as u32;
            let sampling = Sampling { max_tokens: answer, seed: number as u64, ..Sampling::default() };
            Call { client: (number % CLIENTS) as u8, after, request: Request::new(tokens, sampling) }
        })
        .collect()
}

fn run(engine: &Arc<dyn Engine>, calls: Vec<Call>, slots: usize) -> Result<Vec<Course>, GenerateError> {
    let serving = Serving { slots, queue: CLIENTS * CALLS, ..Serving::default() };
    let stopped = |what: String| GenerateError::Panicked { what };
    let worker = Worker::start(Arc::clone(engine), serving).map_err(|error| stopped(error.to_string()))?;
    let start = Instant::now();
    let mut courses = Vec::new();
    for Call { client, after, request } in calls {
        thread::sleep((start + after).saturating_duration_since(Instant::now()));
        let generation = engine.generate(&request)?;
        let submission = Submission { tenant: Tenant([client; 32]), ..Submission::from(generation) };
        let (events, heard) = sync_channel(MOST_EVENTS);
        let sink = Box::new(move |event: Event| match events.try_send((Instant::now(), event)) {
            Ok(()) => Flow::Continue,
            Err(TrySendError::Full((_, event))) => Flow::Full(event),
            Err(TrySendError::Disconnected(_)) => Flow::Cancel,
        });
        worker.try_submit(submission, sink).map_err(|error| stopped(error.to_string()))?;
        courses.push((Instant::now(), heard));
    }
    courses.into_iter().map(|(asked, heard)| course(asked, &heard)).collect()
}

fn course(asked: Instant, heard: &Receiver<(Instant, Event)>) -> Result<Course, GenerateError> {
    let mut tokens = Vec::new();
    for (at, event) in heard {
        match event {
            Event::Step(Step::Token { .. }) => tokens.push(at),
            Event::Failed(error) => return Err(error),
            _ => {}
        }
    }
    Ok(Course { asked, tokens })
}

fn elapsed(courses: &[Course]) -> Duration {
    let first = courses.iter().map(|course| course.asked).min();
    let last = courses.iter().filter_map(|course| course.tokens.last()).max();
    first.zip(last).map_or(Duration::ZERO, |(first, last)| *last - first)
}

/// Milliseconds between tokens, the shortest first.
fn gaps(courses: &[Course]) -> Vec<f64> {
    let of = |course: &Course| {
        course.tokens.windows(2).map(|two| milliseconds(two[1] - two[0])).collect::<Vec<_>>()
    };
    sorted(courses.iter().flat_map(of).collect())
}

fn sorted(mut numbers: Vec<f64>) -> Vec<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The same chance at every run (Steele, Lea and Flood's SplitMix).
struct Chance(u64);

impl Chance {
    /// From zero to below one.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Clients at once.
pub const CLIENTS: usize = 16;
/// More than a job brings: they are read when all are done.
const MOST_EVENTS: usize = 1024;
/// Requests of each: enough that beginning and end, when few are at work, weigh little.
const CALLS: usize = 4;
/// How much more is asked for than one at a time could serve.
const PRESSURE: usize = 8;
