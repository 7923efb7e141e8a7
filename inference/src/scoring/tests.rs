//! Scores are those of the positions, however they are computed.

use std::sync::Arc;

use super::*;
use crate::engine::Engine;
use crate::tiny::write_tiny;

fn tiny() -> Arc<dyn Engine> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write_tiny(&path, 3).unwrap();
    crate::load(&path).unwrap()
}

#[test]
fn each_token_is_scored_by_what_was_before_it() {
    let engine = tiny();
    let tokens: Vec<u32> = (0..100).map(|at| at * 13 % 250).collect();
    let found = engine.score(&Text { tokens: tokens.clone(), top: 3 }).unwrap().complete().unwrap();
    let mut sequence = engine.sequence();
    for (at, found) in found.iter().enumerate() {
        let position = sequence.forward(&tokens[at..=at]).unwrap();
        assert_eq!(found, &logprobs(&position.logits, tokens[at + 1], 3), "token {at}");
        assert_eq!(found.top.len(), 3);
    }
    assert_eq!(found.len(), 99);
}

#[test]
fn a_text_may_fill_the_context_and_one_token_has_no_number() {
    let engine = tiny();
    let score = |length| engine.score(&Text { tokens: vec![7; length], top: 0 });
    let context = engine.card().context;
    assert_eq!(score(context).unwrap().complete().unwrap().len(), context - 1);
    assert!(score(context + 1).is_err());
    assert!(score(1).unwrap().complete().unwrap().is_empty());
    assert!(score(0).unwrap().complete().unwrap().is_empty());
    assert!(engine.score(&Text { tokens: vec![1, 9_999], top: 0 }).is_err());
}
