//! The tokens of a vocabulary as texts, and how few of them spell a text.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::api::ParserLimits;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie,
};

use super::ConstraintError;
use crate::tokens::Vocabulary;

/// A vocabulary's tokens as texts.
pub(super) struct Words {
    vocabulary: Arc<Vocabulary>,
    environment: TokEnv,
    factory: ParserFactory,
    /// All bytes, those first that a completion had better be made of.
    preferred: Vec<u8>,
    longest: usize,
}

impl Words {
    pub(super) fn new(vocabulary: &Arc<Vocabulary>) -> Result<Self, ConstraintError> {
        let texts: Vec<Vec<u8>> =
            (0..vocabulary.len() as u32).map(|id| text(vocabulary, id).to_vec()).collect();
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        // Tokens that end an answer have no text here, so no grammar allows them: the guide does.
        let trie = TokTrie::from(&TokRxInfo::new(texts.len() as u32, INVALID_TOKEN), &texts);
        let preferred = preferred(&trie);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| ConstraintError::Refused { why: error.to_string() })?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self { vocabulary: Arc::clone(vocabulary), environment, factory, preferred, longest })
    }

    pub(super) const fn factory(&self) -> &ParserFactory {
        &self.factory
    }

    pub(super) fn trie(&self) -> &TokTrie {
        self.environment.tok_trie()
    }

    pub(super) fn ends(&self) -> impl Iterator<Item = u32> + '_ {
        self.vocabulary.ends()
    }

    pub(super) fn is_end(&self, id: u32) -> bool {
        self.vocabulary.is_end(id)
    }

    /// What a token adds to the text; nothing for tokens that end or steer.
    pub(super) fn text(&self, id: u32) -> &[u8] {
        text(&self.vocabulary, id)
    }

    /// All bytes, the better ones first.
    pub(super) fn preferred(&self) -> &[u8] {
        &self.preferred
    }

    /// The fewest tokens that spell `bytes`; among equals, long ones first. None where no tokens do.
    pub(super) fn spell(&self, bytes: &[u8]) -> Option<Vec<u32>> {
        // For each place, how many tokens the rest takes, and the first of them.
        let mut rest: Vec<Option<(usize, u32)>> = vec![None; bytes.len() + 1];
        rest[bytes.len()] = Some((0, 0));
        for at in (0..bytes.len()).rev() {
            let end = bytes.len().min(at + self.longest);
            for id in self.trie().all_prefixes(&bytes[at..end]) {
                let Some((count, _)) = rest[at + self.text(id).len()] else { continue };
                if rest[at].is_none_or(|(least, _)| count < least) {
                    rest[at] = Some((count + 1, id));
                }
            }
        }
        let (mut ids, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let (_, id) = rest[at]?;
            ids.push(id);
            at += self.text(id).len();
        }
        Some(ids)
    }
}

/// The library keeps the byte 0xFF, which is in no text, for itself.
fn text(vocabulary: &Vocabulary, id: u32) -> &[u8] {
    let bytes = vocabulary.bytes_of(id);
    if vocabulary.is_end(id) || bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER) { &[] } else { bytes }
}

/// What closes comes first, then what is short or readable; bytes without a token of their own come last.
fn preferred(trie: &TokTrie) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=u8::MAX).collect();
    let rank = |byte: u8| match byte {
        b'"' => 0,
        b'}' | b']' => 1,
        b'0'..=b'9' => 2,
        b'a'..=b'z' => 3,
        b'A'..=b'Z' => 4,
        b' '..=b'~' => 5,
        0x80.. => 6,
        _ => 7,
    };
    bytes.sort_by_key(|&byte| (trie.token_id(&[byte]).is_none(), rank(byte), byte));
    bytes
}

/// Half of the library's bounds or less, except for one token's lexer: it serves a mask and a search.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2_000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 400_000,
        step_max_items: 50_000,
        max_lexer_states: 20_000,
        max_grammar_size: 100_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}
