//! How well a model foretells a text: `cargo bench -p llamesh-inference --bench perplexity -- MODEL TEXT [THREADS]`.
//!
//! The quantity is that of `llama-perplexity -c 512`, so that the two can be compared on one file: the text's tokens
//! are cut into windows of 512, each is read from nothing, and what the tokens of its second half were given is
//! scored. Perplexity is `e^(−mean ln p)`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench tells its numbers, or why there are none"
)]

use inference::{Engine, Loading, load_with, math};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(model), Some(text)) = (arguments.next(), arguments.next()) else {
        return println!("no model file and text file were given: nothing measured");
    };
    let threads = arguments.next().map(|threads| threads.parse().unwrap());
    let engine = load_with(model.as_ref(), Loading { threads, ..Loading::default() }).unwrap();
    let text = std::fs::read_to_string(text).unwrap();
    let tokens = engine.vocabulary().encode(&text, true).unwrap();
    // A token that begins every text begins every window.
    let begin = engine.vocabulary().encode("", true).unwrap().first().copied();
    println!("{}: {} tokens, {}", engine.card().name, tokens.len(), engine.profile());
    let (mut surprise, mut scored) = (0.0, 0);
    for (number, window) in tokens.chunks_exact(WINDOW).enumerate() {
        surprise += surprise_of(engine.as_ref(), window, begin);
        scored += WINDOW - WINDOW / 2 - 1;
        println!("[{}] {:.4}", number + 1, math::exp(surprise / f64::from(scored as u32)));
    }
}

/// `Σ −ln p` over the tokens of a window's second half, but for its first.
fn surprise_of(engine: &dyn Engine, window: &[u32], begin: Option<u32>) -> f64 {
    let mut read = window.to_vec();
    read[0] = begin.unwrap_or(read[0]);
    let (context, rest) = read[..WINDOW - 1].split_at(WINDOW / 2);
    let mut sequence = engine.sequence();
    sequence.forward(context).unwrap();
    let mut surprise = 0.0;
    for (rest, next) in rest.chunks(STEP).zip(window[WINDOW / 2 + 1..].chunks(STEP)) {
        for (position, &next) in sequence.forward_all(rest).unwrap().iter().zip(next) {
            surprise -= log_probability(&position.logits, next);
        }
    }
    surprise
}

/// `ln p` of a token by the softmax of all logits.
fn log_probability(logits: &[f32], token: u32) -> f64 {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| math::exp(f64::from(logit) - f64::from(greatest))).sum();
    f64::from(logits[token as usize]) - f64::from(greatest) - math::ln(sum)
}

/// Tokens that are read together, as `llama-perplexity -c` has it.
const WINDOW: usize = 512;
/// Logits of so many positions are held at once.
const STEP: usize = 64;
