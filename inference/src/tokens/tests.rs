//! Characters that span tokens, stop texts that span pieces, and texts that come back whole.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::engine::Engine;
use crate::tiny::write_tiny;

fn vocabulary() -> Arc<Vocabulary> {
    static MODEL: std::sync::OnceLock<std::sync::Arc<dyn Engine>> = std::sync::OnceLock::new();
    let model = MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        write_tiny(&path, 1).unwrap();
        crate::load(&path).unwrap()
    });
    Arc::clone(model.vocabulary())
}

fn streamed(ids: &[u32]) -> String {
    let mut detokenizer = Detokenizer::new(vocabulary());
    let mut text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
    text += &detokenizer.finish();
    text
}

#[test]
fn text_comes_back() {
    let vocabulary = vocabulary();
    for text in
        ["the other thing", "  two spaces\n\n\ttab", "Grüße, 世界! 🦙🏽", "", "a\u{0}b\u{7f}\u{a0}\u{ad}"]
    {
        let ids = vocabulary.encode(text, false).unwrap();
        assert_eq!(vocabulary.decode(&ids), text);
        assert_eq!(streamed(&ids), text);
    }
    assert_eq!(
        vocabulary.encode("the", false).unwrap().len(),
        1,
        "no space is put before a text, merges work"
    );
}

#[test]
fn special_tokens_are_recognised_silent_and_end_answers() {
    let vocabulary = vocabulary();
    let ids = vocabulary.encode("<|im_start|>a<|im_end|>", false).unwrap();
    assert_eq!((ids.len(), ids[0], ids[2]), (3, 1, 2));
    assert_eq!(vocabulary.decode(&ids), "a");
    assert!(
        vocabulary.is_end(2) && vocabulary.is_end(0) && !vocabulary.is_end(1) && !vocabulary.is_end(9_999)
    );
}

#[test]
fn nothing_is_given_out_before_its_character_is_whole() {
    let vocabulary = vocabulary();
    let ids = vocabulary.encode("é🦙", false).unwrap();
    let mut detokenizer = Detokenizer::new(vocabulary);
    let texts: Vec<_> = ids.iter().map(|&id| detokenizer.push(id)).collect();
    assert_eq!(texts, ["", "é", "", "", "", "🦙"]);
    assert_eq!(detokenizer.finish(), "");
}

#[test]
fn half_a_character_at_the_end_becomes_a_replacement() {
    let ids = vocabulary().encode("🦙", false).unwrap();
    assert_eq!(streamed(&ids[..3]), "\u{fffd}");
}

#[test]
fn a_stop_text_is_found_across_tokens() {
    let stops = ["END".to_owned(), "\n\n".to_owned()];
    let mut filter = StopFilter::new(&stops);
    assert_eq!(filter.push("one E"), "one ");
    assert_eq!(filter.push("N"), "");
    assert_eq!(filter.push("Emy"), "ENEmy", "it was not a stop after all");
    assert_eq!(filter.push("\n"), "");
    assert_eq!(filter.push("\nmore"), "");
    assert!(filter.stopped());
    assert_eq!(filter.push("more") + &filter.finish(), "");
}

#[test]
fn what_was_held_back_comes_at_the_end() {
    let mut filter = StopFilter::new(&["END".to_owned()]);
    assert_eq!(filter.push("the EN"), "the ");
    assert_eq!((filter.finish().as_str(), filter.stopped()), ("EN", false));
}

proptest! {
    #[test]
    fn streaming_any_tokens_is_decoding_them(ids in prop::collection::vec(0u32..300, 0..60)) {
        prop_assert_eq!(streamed(&ids), vocabulary().decode(&ids));
    }

    /// The library's own decoder is the reference for tokens that print.
    #[test]
    fn decoding_is_as_the_library_decodes(ids in prop::collection::vec(3u32..267, 0..60)) {
        let vocabulary = vocabulary();
        let reference = vocabulary.tokenizer.decode(&ids, true).unwrap();
        prop_assert_eq!(vocabulary.decode(&ids), reference);
    }

    #[test]
    fn any_text_comes_back(text in "\\PC{0,40}") {
        let vocabulary = vocabulary();
        let ids = vocabulary.encode(&text, false).unwrap();
        prop_assert_eq!(vocabulary.decode(&ids), text);
    }

    /// However a text is cut, the same is given out and the same stop is found.
    #[test]
    fn cutting_does_not_matter(
        text in "[ab🦙]{0,24}",
        stops in prop::collection::vec("[ab🦙]{1,4}", 0..4),
        cuts in prop::collection::vec(0usize..5, 0..24),
    ) {
        let run = |pieces: &[String]| {
            let mut filter = StopFilter::new(&stops);
            let mut out: String = pieces.iter().map(|piece| filter.push(piece)).collect();
            out += &filter.finish();
            (out, filter.stopped())
        };
        let characters: Vec<char> = text.chars().collect();
        let mut pieces = Vec::new();
        let (mut rest, mut cuts) = (&characters[..], cuts.into_iter());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts.next().unwrap_or(3).clamp(1, rest.len()));
            pieces.push(piece.iter().collect::<String>());
            rest = after;
        }
        let whole = run(std::slice::from_ref(&text));
        prop_assert_eq!(run(&pieces), whole.clone());
        let (out, stopped) = whole;
        prop_assert_eq!(stopped, stops.iter().any(|stop| text.contains(stop.as_str())));
        prop_assert!(text.starts_with(&out) && (stopped || out == text));
        prop_assert!(!stops.iter().any(|stop| out.contains(stop.as_str())));
    }
}
