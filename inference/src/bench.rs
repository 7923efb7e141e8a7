//! How fast an engine is on this machine, in the manner of llama-bench, and a digest that shows that it is right.
//!
//! Rates are medians over a few runs. The digest covers all logits of a fixed prompt and of its greedy continuation:
//! peers with one profile and one model print the same, whatever machine they run on.

mod batch;
mod serve;

use std::sync::Arc;
use std::time::Instant;

use crypto::Digest;
use serde::Serialize;

use crate::engine::{Engine, GenerateError, Position, Request};
use crate::generation::{FinishReason, Step};
use crate::replay::Claim;
use crate::sample::Sampling;
use batch::batch;
pub use serve::{CLIENTS, Served, serve};

/// What was measured; rates are tokens per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Tokens of an answer, one after the other, after a short prompt.
    pub decode: f64,
    /// Tokens of a prompt of 128.
    pub prefill128: f64,
    /// Tokens of a prompt of 512.
    pub prefill512: f64,
    /// What replaying an answer of 256 tokens to a prompt of 256 takes, as a share of what making it took.
    pub verify_share: f64,
    /// The most bytes that the process has held, before several contexts are in memory at once; none where the system
    /// does not say.
    pub peak_memory: Option<u64>,
    /// Tokens of eight answers, decoded together after prompts of 128.
    pub batch8: f64,
    /// Tokens of sixteen.
    pub batch16: f64,
    /// What sixteen clients get.
    pub serve: Served,
    /// BLAKE3 of the logits of a fixed prompt and its greedy continuation.
    pub digest: Digest,
}

/// Measures an engine; takes some seconds. Lengths shrink to what the model's context holds.
pub fn measure(engine: &Arc<dyn Engine>) -> Result<Measured, GenerateError> {
    let (shared, engine) = (engine, engine.as_ref());
    let digest = digest(engine)?;
    Ok(Measured {
        decode: median(RUNS, || decode(engine))?,
        prefill128: median(RUNS, || prefill(engine, 128))?,
        prefill512: median(RUNS, || prefill(engine, 512))?,
        verify_share: verify_share(engine)?,
        peak_memory: peak_memory(),
        batch8: median(RUNS, || batch(engine, 8))?,
        batch16: median(RUNS, || batch(engine, 16))?,
        serve: serve(shared)?,
        digest,
    })
}

/// BLAKE3 of the logits after each of [`DIGEST_PROMPT`] prompt tokens and [`DIGEST_ANSWER`] greedy ones.
pub fn digest(engine: &dyn Engine) -> Result<Digest, GenerateError> {
    let mut hasher = blake3::Hasher::new();
    let mut hash = |position: &Position| {
        let bytes: Vec<u8> = position.logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        hasher.update(&bytes);
    };
    let mut sequence = engine.sequence();
    let mut last = Position::default();
    for position in sequence.forward_all(&prompt(engine, DIGEST_PROMPT))? {
        hash(&position);
        last = position;
    }
    for _ in 0..DIGEST_ANSWER {
        last = sequence.forward(&[likeliest(&last)])?;
        hash(&last);
    }
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}

fn decode(engine: &dyn Engine) -> Result<f64, GenerateError> {
    let mut sequence = engine.sequence();
    let mut position = sequence.forward(&prompt(engine, 16))?;
    let start = Instant::now();
    for _ in 0..DECODED {
        position = sequence.forward(&[likeliest(&position)])?;
    }
    Ok(DECODED as f64 / start.elapsed().as_secs_f64())
}

fn prefill(engine: &dyn Engine, length: usize) -> Result<f64, GenerateError> {
    let prompt = prompt(engine, length);
    let mut sequence = engine.sequence();
    let start = Instant::now();
    for chunk in prompt.chunks(engine.chunk()) {
        sequence.forward(chunk)?;
    }
    Ok(prompt.len() as f64 / start.elapsed().as_secs_f64())
}

/// An answer is made, then replayed.
fn verify_share(engine: &dyn Engine) -> Result<f64, GenerateError> {
    let prompt = prompt(engine, 256);
    let room = engine.card().context.saturating_sub(prompt.len()).min(256) as u32;
    let sampling = Sampling { max_tokens: room.max(1), temperature: 0.8, top_p: 1.0, ..Sampling::default() };
    let start = Instant::now();
    let mut claim = Claim { prompt, answer: Vec::new(), sampling, ..Claim::default() };
    for step in engine.generate(&Request::new(claim.prompt.clone(), claim.sampling.clone()))? {
        match step? {
            Step::Token { id, activations, .. } => {
                claim.answer.push(id);
                claim.activations.extend(activations);
            }
            Step::Finished { reason, .. } => claim.finish = Some(reason),
            Step::Prefilled { .. } => {}
        }
    }
    let making = start.elapsed();
    let start = Instant::now();
    let replay = engine.replay(&claim)?.complete()?;
    let checking = start.elapsed();
    tracing::debug!(agree = replay.agree, of = replay.of, ended = ?claim.finish.unwrap_or(FinishReason::Length), "replayed");
    Ok(checking.as_secs_f64() / making.as_secs_f64())
}

/// The most memory that this process ever held, in bytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Token ids without meaning, all over the vocabulary.
fn prompt(engine: &dyn Engine, length: usize) -> Vec<u32> {
    let card = engine.card();
    let length = length.min(card.context.saturating_sub(DECODED + 1)).max(1);
    (0..length).map(|at| ((at * 7_919 + 13) % card.vocabulary.max(1)) as u32).collect()
}

fn likeliest(position: &Position) -> u32 {
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    greedy.choose(&position.logits, &[], &[])
}

fn median(runs: usize, mut run: impl FnMut() -> Result<f64, GenerateError>) -> Result<f64, GenerateError> {
    let mut rates = (0..runs).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
    rates.sort_by(f64::total_cmp);
    Ok(rates[runs / 2])
}

/// Odd, so that one is in the middle.
const RUNS: usize = 3;
/// Tokens that are decoded to measure.
const DECODED: usize = 64;
/// Prompt tokens under the digest.
pub const DIGEST_PROMPT: usize = 48;
/// Answer tokens under the digest.
pub const DIGEST_ANSWER: usize = 16;
