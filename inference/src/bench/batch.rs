//! Many sequences decoded together, in the manner of llama-batched-bench.

use std::time::Instant;

use super::prompt;
use crate::engine::{Engine, GenerateError, Sequence, Span};

/// Tokens per second of all sequences together: each has a prompt of [`PROMPT`] tokens, which is not timed, and then
/// reads [`DECODED`] more, one in each pass. Nothing is drawn, as there.
pub(super) fn batch(engine: &dyn Engine, sequences: usize) -> Result<f64, GenerateError> {
    let prompt = prompt(engine, PROMPT);
    let mut batch: Vec<_> = (0..sequences).map(|_| engine.sequence()).collect();
    for sequence in &mut batch {
        for chunk in prompt.chunks(engine.chunk()) {
            sequence.read(chunk, 0)?;
        }
    }
    let start = Instant::now();
    for step in 0..DECODED {
        pass(engine, &mut batch, step)?;
    }
    Ok((sequences * DECODED) as f64 / start.elapsed().as_secs_f64())
}

/// One token for each; every sequence reads others.
fn pass(engine: &dyn Engine, batch: &mut [Box<dyn Sequence>], step: usize) -> Result<(), GenerateError> {
    let vocabulary = engine.card().vocabulary.max(1);
    let tokens: Vec<_> =
        (0..batch.len()).map(|at| [((step * 131 + at * 7_919) % vocabulary) as u32]).collect();
    let spans = batch.iter_mut().zip(&tokens);
    let mut spans: Vec<_> =
        spans.map(|(sequence, tokens)| Span { sequence: &mut **sequence, tokens, wanted: 1 }).collect();
    for result in engine.pass(&mut spans) {
        result?;
    }
    Ok(())
}

/// Tokens of each prompt.
const PROMPT: usize = 128;
/// Tokens that each sequence reads after it.
const DECODED: usize = 32;
