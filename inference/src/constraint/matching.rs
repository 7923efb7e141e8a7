//! The library's parser as this crate sees it: bytes go forward and back, and nothing that it does panics beyond here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::derivre::StateID;
use llguidance::earley::{BiasComputer, Parser, ParserRecognizer};
use llguidance::toktrie::{Recognizer, SimpleVob, TokTrie};

use super::ConstraintError;
use super::words::Words;
use crate::model::panic_message;

/// A text so far, in a grammar.
pub(super) struct Matching {
    parser: Parser,
    words: Arc<Words>,
}

/// A step of one byte to where others of its kind lead too.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) byte: u8,
    pub(super) to: StateID,
    /// Which lexemes the step may have ended; none where it goes on inside one.
    pub(super) ended: Option<Vec<usize>>,
}

impl Matching {
    pub(super) fn new(parser: Parser, words: &Arc<Words>) -> Result<Self, ConstraintError> {
        let rollback = parser.grammar().lexer_spec().check_rollback();
        rollback.map_err(|error| ConstraintError::Refused { why: error.to_string() })?;
        Ok(Self { parser, words: Arc::clone(words) })
    }

    /// Whether the text may end here.
    pub(super) fn accepts(&mut self) -> bool {
        self.parser.is_accepting()
    }

    /// Which tokens may follow.
    pub(super) fn mask(&mut self) -> Result<SimpleVob, ConstraintError> {
        let slicer = self.words.factory().slicer();
        let mask = self.parser.compute_bias(&*slicer, &[]);
        self.sound().map(|()| mask)
    }

    /// The library keeps a mask by its place, and takes two places for one after going back: so it must forget.
    pub(super) fn forget_mask(&mut self) {
        self.parser.invalidate_bias_cache();
    }

    /// Grants the effort of one token anew.
    pub(super) fn refuel(&mut self) {
        let words = Arc::clone(&self.words);
        // A beginning that is not empty keeps the answer out of the library's cache of masks.
        self.parser.compute_bias(&Refuelling(&words), b" ");
    }

    /// Whether no bound was reached.
    pub(super) fn sound(&self) -> Result<(), ConstraintError> {
        match self.parser.get_error() {
            Some(error) => Err(ConstraintError::TooComplex { why: error.message() }),
            None => Ok(()),
        }
    }

    /// Whether `bytes` may follow.
    pub(super) fn fits(&mut self, bytes: &[u8]) -> bool {
        self.parser.with_recognizer(|recognizer| {
            recognizer.trie_started("fits");
            let fits = bytes.iter().all(|&byte| recognizer.try_push_byte(byte));
            recognizer.trie_finished();
            fits
        })
    }

    /// Takes `bytes`, or nothing when they may not follow.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        if !self.fits(bytes) {
            return false;
        }
        let before = self.parser.get_bytes().len();
        if matches!(self.parser.apply_token(bytes, 0), Ok(0)) {
            return true;
        }
        let taken = self.parser.get_bytes().len().saturating_sub(before);
        self.retreat(taken);
        false
    }

    /// Gives the last bytes back. A failure shows in [`Matching::sound`] or as a panic, which is caught.
    pub(super) fn retreat(&mut self, bytes: usize) {
        if bytes > 0 {
            let _ = self.parser.rollback(bytes);
        }
    }

    /// Takes the bytes to which there is no alternative.
    pub(super) fn forced(&mut self) -> Vec<u8> {
        let forced = self.parser.force_bytes().to_vec();
        if !forced.is_empty() && self.parser.apply_token(&forced, 0).is_err() {
            return Vec::new();
        }
        forced
    }

    /// Where the lexer is, and how many lexemes have ended: while both stay, nothing has changed that matters.
    pub(super) fn place(&mut self) -> (StateID, usize) {
        let state = self.parser.with_recognizer(|recognizer| recognizer.lexer_state());
        (state, rows(self.parser.stats()))
    }

    /// The different ways on, each by its most preferred byte.
    pub(super) fn steps(&mut self) -> Vec<Step> {
        let words = Arc::clone(&self.words);
        self.parser.with_recognizer(|recognizer| {
            recognizer.trie_started("steps");
            let steps = steps(recognizer, words.preferred());
            recognizer.trie_finished();
            steps
        })
    }
}

fn steps(recognizer: &mut ParserRecognizer<'_>, bytes: &[u8]) -> Vec<Step> {
    let from = recognizer.lexer_state();
    let possible: Vec<usize> =
        recognizer.lexer().possible_lexemes(from).iter().map(|lexeme| lexeme.as_usize()).collect();
    let mut steps: Vec<Step> = Vec::new();
    for &byte in bytes {
        let before = rows(recognizer.stats_mut());
        if byte == TokTrie::SPECIAL_TOKEN_MARKER || !recognizer.try_push_byte(byte) {
            continue;
        }
        let ended = (rows(recognizer.stats_mut()) > before).then(|| possible.clone());
        let to = recognizer.lexer_state();
        recognizer.pop_bytes(1);
        // Inside a lexeme the state says everything. Beyond its end it does not, so the byte is compared too.
        let known =
            |step: &Step| step.to == to && step.ended == ended && (ended.is_none() || step.byte == byte);
        if !steps.iter().any(known) {
            steps.push(Step { byte, to, ended });
        }
    }
    steps
}

const fn rows(stats: &llguidance::earley::ParserStats) -> usize {
    stats.rows + stats.cached_rows
}

/// Asks for no token at all, for the sake of what asking brings.
struct Refuelling<'a>(&'a Words);

impl BiasComputer for Refuelling<'_> {
    fn compute_bias(&self, _: &mut ParserRecognizer<'_>, _: &[u8]) -> SimpleVob {
        SimpleVob::new()
    }

    fn trie(&self) -> &TokTrie {
        self.0.trie()
    }
}

/// Runs what may panic inside the library.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, ConstraintError>) -> Result<T, ConstraintError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let what = panic_message(&*panic);
        tracing::error!(what, "the constraint's engine panicked; the answer fails, others go on");
        Err(ConstraintError::Broken { what })
    })
}
