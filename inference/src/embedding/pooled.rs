//! Texts to vectors by a model that generates: what it has in mind after reading is where the text points.
//!
//! Models that were trained for it (Qwen3-Embedding, E5-Mistral and their like) take the state behind the last layer's norm
//! after the last token, or the mean of all tokens' states; the file says which, and whether a text ends with a token
//! of its own. On an exact engine the vector is a function of file and tokens to the last bit, so it can be *proved*, as no other
//! embedder's can.

use candle_core::quantized::gguf_file::Content;

use super::{EmbedError, Embedding, MAX_TEXT, unit};
use crate::engine::Engine;

/// How a file says that vectors are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Of which states.
    pub states: States,
    /// The token that is added to a text.
    pub end: Option<u32>,
}

/// Which states make the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum States {
    /// That after the last token, which alone has read everything. Also where the file is silent.
    Last,
    /// The mean of all.
    Mean,
}

impl Pooling {
    /// What a file says (`FAMILY.pooling_type` as llama.cpp numbers it: 1 is the mean; `tokenizer.ggml.add_eos_token`).
    pub(crate) fn of(content: &Content, family: &str) -> Self {
        let number = |key: &str| content.metadata.get(key).and_then(|value| value.to_u32().ok());
        let states = match number(&format!("{family}.pooling_type")) {
            Some(1) => States::Mean,
            _ => States::Last,
        };
        let ended =
            content.metadata.get("tokenizer.ggml.add_eos_token").and_then(|value| value.to_bool().ok());
        let end = number("tokenizer.ggml.eos_token_id").filter(|_| ended == Some(true));
        Self { states, end }
    }
}

/// The vector of a text. [`MAX_TEXT`] bytes of it are looked at, and of more tokens than the model takes the first are read.
///
/// # Errors
/// [`EmbedError`].
pub fn embed(engine: &dyn Engine, text: &str) -> Result<Embedding, EmbedError> {
    let tokenizer = |error: crate::tokens::TokenizerError| EmbedError::Tokenizer(error.to_string());
    let begin = &text[..text.floor_char_boundary(MAX_TEXT)];
    let mut tokens = engine.vocabulary().encode(begin, true).map_err(tokenizer)?;
    let end = engine.description().pooling.end;
    tokens.truncate(engine.card().context.saturating_sub(end.map_or(0, |_| 1)));
    tokens.extend(end);
    embed_ids(engine, tokens)
}

/// The vector of token ids as they stand.
///
/// # Errors
/// [`EmbedError`].
pub fn embed_ids(engine: &dyn Engine, mut tokens: Vec<u32>) -> Result<Embedding, EmbedError> {
    let known = engine.card().vocabulary;
    tokens.truncate(engine.card().context);
    if tokens.is_empty() || tokens.iter().any(|&id| id as usize >= known) {
        return Err(EmbedError::Ids { known });
    }
    let sum = pool(engine, engine.description().pooling.states, &tokens)?;
    Ok(Embedding { vector: unit(&sum).ok_or(EmbedError::NoDirection)?, tokens })
}

/// The last state, or the sum of all: both point where the vector points.
fn pool(engine: &dyn Engine, states: States, tokens: &[u32]) -> Result<Vec<f32>, EmbedError> {
    let forward = |error: crate::engine::ForwardError| EmbedError::Forward(error.to_string());
    let stateless = || EmbedError::Forward("this engine does not tell its states".to_owned());
    // What is wanted of many positions comes with the logits of each, so those are read in shorter pieces.
    let (piece, all) = match states {
        States::Last => (engine.chunk(), false),
        States::Mean => (engine.stride(), true),
    };
    let mut sequence = engine.sequence();
    let mut sum = Vec::new();
    for piece in tokens.chunks(piece.max(1)) {
        for position in sequence.read(piece, if all { piece.len() } else { 1 }).map_err(forward)? {
            let state = position.state.ok_or_else(stateless)?;
            if !all || sum.is_empty() {
                sum = state;
            } else {
                sum.iter_mut().zip(&state).for_each(|(sum, x)| *sum += x);
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Loading, load_with};
    use crate::tiny::write_tiny;

    fn engine(threads: usize) -> Arc<dyn Engine> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        write_tiny(&path, 7).unwrap();
        load_with(&path, Loading { threads: Some(threads), ..Loading::default() }).unwrap()
    }

    fn tokens(engine: &dyn Engine) -> Vec<u32> {
        (0..100).map(|at| at * 31 % engine.card().vocabulary as u32).collect()
    }

    #[test]
    fn a_vector_is_made_of_the_states_that_the_file_names() {
        let engine = engine(1);
        let tokens = tokens(engine.as_ref());
        let positions = engine.sequence().forward_all(&tokens).unwrap();
        let states: Vec<_> = positions.into_iter().map(|position| position.state.unwrap()).collect();
        assert_eq!(&pool(engine.as_ref(), States::Last, &tokens).unwrap(), states.last().unwrap());
        let sum = |channel: usize| states.iter().map(|state| state[channel]).fold(0.0, |sum, x| sum + x);
        let all = pool(engine.as_ref(), States::Mean, &tokens).unwrap();
        assert_eq!(all, (0..all.len()).map(sum).collect::<Vec<_>>());
    }

    #[test]
    fn a_vector_has_length_one_and_the_same_bits_on_any_number_of_threads() {
        let (one, two) = (engine(1), engine(2));
        let vector = embed(one.as_ref(), "an otter in a river").unwrap();
        let length: f32 = vector.vector.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
        assert_eq!(embed(two.as_ref(), "an otter in a river").unwrap(), vector);
        assert_ne!(embed(one.as_ref(), "a stone").unwrap().vector, vector.vector);
        assert_eq!(embed_ids(two.as_ref(), vector.tokens.clone()).unwrap(), vector);
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_is_unknown_refused() {
        let engine = engine(1);
        let context = engine.card().context;
        assert_eq!(embed_ids(engine.as_ref(), vec![1; context + 9]).unwrap().tokens.len(), context);
        for ids in [vec![], vec![u32::MAX]] {
            assert!(matches!(embed_ids(engine.as_ref(), ids), Err(EmbedError::Ids { .. })));
        }
    }
}
