//! Answers that keep a form: a JSON Schema, a regular expression, one of some texts, a grammar.
//!
//! A [`Guide`] walks along an answer. Before each token it bars the tokens that the form does not allow, and it
//! always knows one way to finish: a *known completion*, a list of tokens after which the answer is complete. A token
//! is taken only if a completion that fits into what is left of the budget is known after it, so every answer that a
//! guide led is whole, however small the budget and whatever the model would rather say. A budget below the
//! completion known at the start is refused before anything is computed.
//!
//! Which tokens are barred is part of what a replay must find again: everything here is a function of the vocabulary, the
//! constraint, the tokens so far and the budget, never of time or of the machine. [`GUIDE`] names this function.
//!
//! Masks and grammars are `llguidance`'s. Its grammars are read as they are, with three decisions of our own:
//!
//! * JSON is *compact*: no whitespace between its tokens. It is shorter, and a small model cannot babble blanks.
//! * Characters that need no escape are never written as `\u`, so that one key has one spelling; numbers keep to 16 digits
//!   and exponents of two, which every reader holds exactly or nearly so.
//! * A keyword that would not be enforced to the letter is an error, never ignored; formats too. What a draft does not
//!   know is an annotation, as JSON Schema has it. A `$ref` leads into its own document only; nothing is fetched.
//!
//! Schemas, expressions and grammars come from strangers: their size, the effort to compile them, the effort for a
//! token and the search for a completion are bounded, by counts and not by clocks, and a panic in the library is an error.

mod completion;
mod grammar;
mod guide;
mod matching;
mod outline;
mod schema;
mod words;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tokens::Vocabulary;
pub use guide::Guide;
use words::Words;

/// The version of what a guide bars and allows: part of an answer's exactness, like the order of sampling.
pub const GUIDE: &str = "llguidance-1.9.1/2";
/// The logit of a token that may not follow: the lowest that the sampler tells apart.
pub const BARRED: f32 = f32::MIN;
/// The longest constraint, in bytes. Real schemas have a few kilobytes; compiling takes time in proportion.
pub const MAX_CONSTRAINT_BYTES: usize = 64 << 10;
/// The most texts to choose from.
pub const MAX_CHOICES: usize = 1024;

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// A JSON value that this schema, itself JSON, accepts.
    JsonSchema(String),
    /// A text that this regular expression matches from end to end; `\d` and `\w` are of ASCII. Without look-around
    /// and back references.
    Regex(String),
    /// One of these texts.
    Choices(Vec<String>),
    /// A text of this grammar: Lark, in `llguidance`'s dialect, without token limits and stops.
    Grammar(String),
}

impl Constraint {
    /// A schema as a part of a grammar: checked, and with how its JSON is to be written.
    pub fn schema(text: &str) -> Result<String, ConstraintError> {
        Ok(schema::read(text)?.to_string())
    }

    /// Checks what can be checked without a model: sizes, and that a schema is JSON and asks for nothing that is
    /// known not to be enforced.
    pub fn validate(&self) -> Result<(), ConstraintError> {
        let bytes = match self {
            Self::JsonSchema(text) | Self::Regex(text) | Self::Grammar(text) => text.len(),
            Self::Choices(choices) => choices.iter().map(String::len).sum(),
        };
        if bytes > MAX_CONSTRAINT_BYTES {
            return Err(ConstraintError::TooLong { bytes });
        }
        match self {
            Self::Choices(choices) if choices.len() > MAX_CHOICES => {
                Err(ConstraintError::TooManyChoices { count: choices.len() })
            }
            Self::Choices(choices) if choices.is_empty() || choices.iter().any(String::is_empty) => {
                Err(ConstraintError::Empty)
            }
            Self::Regex(text) | Self::Grammar(text) if text.trim().is_empty() => Err(ConstraintError::Empty),
            Self::JsonSchema(text) => schema::read(text).map(drop),
            _ => Ok(()),
        }
    }
}

/// A constraint that cannot be kept, or an answer that does not keep it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Nothing to keep to.
    #[error("the constraint is empty, or one of its choices is; say what the answer must be")]
    Empty,
    /// More than [`MAX_CONSTRAINT_BYTES`].
    #[error("the constraint has {bytes} bytes; give at most {MAX_CONSTRAINT_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More than [`MAX_CHOICES`].
    #[error("{count} choices; give at most {MAX_CHOICES}")]
    TooManyChoices {
        /// How many there are.
        count: usize,
    },
    /// The schema is not JSON.
    #[error("the schema is not JSON: {why}")]
    NotJson {
        /// Where and why.
        why: String,
    },
    /// A part of JSON Schema that would not be enforced.
    #[error("the schema uses {what}; leave it out or say it otherwise")]
    Unsupported {
        /// The keyword, and what of it.
        what: String,
    },
    /// The grammar's compiler refused.
    #[error("the constraint cannot be used: {why}")]
    Refused {
        /// The compiler's words.
        why: String,
    },
    /// The budget is smaller than the shortest completion that was found.
    #[error(
        "no answer that keeps to the constraint fits {budget} tokens; raise max_tokens to {needs} or more"
    )]
    Budget {
        /// Tokens that an answer was found with.
        needs: usize,
        /// Tokens that it may have.
        budget: usize,
    },
    /// No completion was found.
    #[error(
        "no answer that keeps to the constraint was found; it may contradict itself, or be too large: simplify it"
    )]
    Unfinishable,
    /// The effort for one token went beyond its bound.
    #[error("the constraint is too complex to be checked token by token ({why}); simplify it")]
    TooComplex {
        /// The library's words.
        why: String,
    },
    /// A token that may not follow.
    #[error("token {id} breaks the constraint; the answer was not made under it, or not by this model")]
    NotAllowed {
        /// The token.
        id: u32,
    },
    /// Nothing can follow: the answer is complete, and the vocabulary has no token that ends it.
    #[error("the answer is complete and nothing can follow it; stop here")]
    Over,
    /// The library failed inside.
    #[error(
        "the constraint's engine failed inside ({what}); this is a bug worth reporting, simplify the constraint"
    )]
    Broken {
        /// What it said.
        what: String,
    },
}

/// A vocabulary prepared for guides. Made once for a model (it takes some tens of milliseconds) and shared.
pub struct Guides {
    words: Arc<Words>,
}

impl Guides {
    /// Sorts the tokens of a vocabulary.
    pub fn new(vocabulary: &Arc<Vocabulary>) -> Result<Self, ConstraintError> {
        matching::guarded(|| Words::new(vocabulary)).map(|words| Self { words: Arc::new(words) })
    }

    /// A guide for one answer of at most `budget` tokens; the token that ends the text is not counted.
    pub fn guide(&self, constraint: &Constraint, budget: usize) -> Result<Guide, ConstraintError> {
        constraint.validate()?;
        let matching = grammar::compile(&self.words, constraint)?;
        let json = matches!(constraint, Constraint::JsonSchema(_));
        let guide = Guide::new(&self.words, matching, json)?;
        let needs = guide.needs();
        if needs > budget { Err(ConstraintError::Budget { needs, budget }) } else { Ok(guide) }
    }
}

impl fmt::Debug for Guides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guides").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
