//! An engine on a model file: `cargo bench -p llamesh-inference --bench engine -- FILE [THREADS] [PART]`, the part one
//! of `exact` (all of `llamesh bench`), `candle`, `batch`, `mixed`, `serve`, `draws`.
//!
//! `batch` is total decoding of several sequences in one pass, as `llama-batched-bench -npp 128 -ntg 32` has it; `mixed`
//! is what a pass takes in which a prompt's chunk rides along with them; `serve` is many clients; `draws` is what drawing
//! a token takes, in the ways that requests ask for it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench tells its numbers, or why there are none"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use inference::exact::{ExactModel, ExactSequence};
use inference::sample::Sampling;
use inference::{Engine, EngineChoice, Loading, Sequence, bench, load_exactly, load_with};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(path) = arguments.next() else { return println!("no model file was given: nothing measured") };
    let (path, threads) = (Path::new(&path), arguments.next().map(|threads| threads.parse().unwrap()));
    let loading = |engine| Loading { threads, engine, kernel: None };
    match arguments.next().as_deref() {
        Some("batch") => batch(&load_exactly(path, loading(EngineChoice::Exact)).unwrap()),
        Some("mixed") => mixed(&load_exactly(path, loading(EngineChoice::Exact)).unwrap()),
        Some("serve") => serve(load_exactly(path, loading(EngineChoice::Exact)).unwrap()),
        Some("draws") => draws(&load_exactly(path, loading(EngineChoice::Exact)).unwrap()),
        Some("candle") => whole(path, loading(EngineChoice::Candle)),
        _ => whole(path, loading(EngineChoice::Exact)),
    }
}

fn whole(path: &Path, loading: Loading) {
    let start = Instant::now();
    let engine = load_with(path, loading).unwrap();
    println!("loaded in {:?}: {}", start.elapsed(), engine.profile());
    println!("{:#?}", bench::measure(&engine).unwrap());
}

/// Tokens per second of all sequences together, a median of rounds.
fn batch(model: &ExactModel) {
    for count in [1, 4, 8, 16] {
        let rates = median(|| {
            let mut sequences = read(model, count);
            let start = Instant::now();
            for step in 0..DECODED {
                pass(model, &mut sequences, step, &mut []);
            }
            (count * DECODED) as f64 / start.elapsed().as_secs_f64()
        });
        println!("{count:2} sequences: {rates:.1} tokens/s");
    }
}

/// Milliseconds of a pass, a median of rounds: rows of decoding against rows of a prompt's chunk.
fn mixed(model: &ExactModel) {
    println!("decoding   chunk 0      16      32      64     128");
    for count in [1, 4, 8, 16] {
        let mut sequences = read(model, count);
        let times = [0, 16, 32, 64, 128].map(|rows| {
            let chunk = prompt(model, 0, rows);
            median(|| {
                let mut reader = read(model, 1);
                let riders: &mut [_] = if rows == 0 { &mut [] } else { &mut [(&mut reader[0], &chunk[..])] };
                let start = Instant::now();
                pass(model, &mut sequences, 0, riders);
                start.elapsed().as_secs_f64() * 1e3
            })
        });
        println!("{count:8} {}", times.map(|time| format!("{time:8.1}")).concat());
    }
}

/// Rounds of what sixteen clients get.
fn serve(model: ExactModel) {
    let engine: Arc<dyn Engine> = Arc::new(model);
    for _ in 0..ROUNDS {
        println!("{:?}", bench::serve(&engine).unwrap());
    }
}

/// Microseconds of a draw, a median of many, from what the model says after prompts.
fn draws(model: &ExactModel) {
    let logits: Vec<_> = (0..64)
        .map(|number| model.start().forward(&prompt(model, 1_000 * number, 8)).unwrap().logits)
        .collect();
    let answer = prompt(model, 0, 400);
    let default = Sampling::default;
    let ways = [
        ("greedy", Sampling { temperature: 0.0, ..default() }),
        ("temperature 0.7, top-p 0.95", default()),
        ("temperature 1, top-p 0.95", Sampling { temperature: 1.0, ..default() }),
        ("with penalties", Sampling { repeat_penalty: 1.1, frequency_penalty: 0.2, ..default() }),
        ("top-k 40, top-p 0.95", Sampling { top_k: 40, ..default() }),
        ("min-p 0.05", Sampling { min_p: 0.05, top_p: 1.0, ..default() }),
        ("temperature 0.7, no filters", Sampling { top_p: 1.0, ..default() }),
        ("temperature 1, no filters", Sampling { temperature: 1.0, top_p: 1.0, ..default() }),
    ];
    for (name, sampling) in ways {
        let time = |logits: &Vec<f32>| {
            let start = Instant::now();
            std::hint::black_box(sampling.choose(logits, &[1, 2], &answer));
            start.elapsed()
        };
        let mut times: Vec<_> = logits.iter().cycle().take(192).map(time).collect();
        times.sort();
        println!("{name:28} {:6.1}", times[times.len() / 2].as_secs_f64() * 1e6);
    }
}

/// One token each of some sequences, with whatever rides along.
fn pass(
    model: &ExactModel,
    sequences: &mut [ExactSequence],
    step: usize,
    riders: &mut [(&mut ExactSequence, &[u32])],
) {
    let tokens: Vec<_> =
        (0..sequences.len()).map(|sequence| prompt(model, 77 * sequence + step, 1)).collect();
    let mut rows: Vec<_> =
        sequences.iter_mut().zip(&tokens).map(|(sequence, token)| (sequence, &token[..])).collect();
    rows.extend(riders.iter_mut().map(|(sequence, tokens)| (&mut **sequence, *tokens)));
    std::hint::black_box(ExactSequence::forward_together(&mut rows));
}

/// Sequences that have read a prompt each.
fn read(model: &ExactModel, count: usize) -> Vec<ExactSequence> {
    let sequence = |number: usize| {
        let mut sequence = model.start();
        sequence.forward(&prompt(model, 1_000 * number, PROMPT)).unwrap();
        sequence
    };
    (0..count).map(sequence).collect()
}

/// Token ids without meaning, all over the vocabulary.
fn prompt(model: &ExactModel, first: usize, length: usize) -> Vec<u32> {
    let vocabulary = model.card().vocabulary;
    (first..first + length).map(|at| ((at * 7_919 + 13) % vocabulary) as u32).collect()
}

fn median(mut round: impl FnMut() -> f64) -> f64 {
    let mut rounds: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// Tokens of a prompt, and of each answer.
const PROMPT: usize = 128;
const DECODED: usize = 32;
/// Odd, so that one is in the middle.
const ROUNDS: usize = 5;
