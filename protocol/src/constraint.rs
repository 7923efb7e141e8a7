//! What form an answer must have: a JSON schema, a regular expression, a list of choices or a grammar.
//!
//! The order and the receipt name it by digest; its text travels where the input does, to the winner alone, because a
//! schema tells about as much as a prompt. What the texts mean is the engine's business; here they are only bounded.

use crypto::{Digest, Hasher};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::{JobError, codec};

/// A form that an answer must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// Exactly one of these texts.
    Choices(Vec<String>),
    /// A grammar, in the notation of the engine that takes it.
    Grammar(String),
    /// The text of a JSON schema; the answer is JSON that it describes.
    JsonSchema(String),
    /// A regular expression that matches the whole answer.
    Regex(String),
}

impl Constraint {
    /// Longest encoding in bytes. Real schemas have some kilobytes; an engine has to compile it before the first token.
    pub const MAX_LEN: usize = 64 << 10;
    /// Most choices: each is a path that an engine follows at once.
    pub const MAX_CHOICES: usize = 1024;

    /// The name by which an order and a receipt bind it.
    pub fn digest(&self) -> Digest {
        Hasher::new("constraint").part(&codec::encode(self)).finish()
    }

    /// Refuses what no engine could obey.
    ///
    /// # Errors
    /// [`JobError::Invalid`].
    pub fn check(&self) -> Result<(), JobError> {
        let refuse = |problem: &str| Err(JobError::invalid("constraint", problem));
        if codec::encode(self).len() > Self::MAX_LEN {
            return refuse(&format!("must have at most {} bytes", Self::MAX_LEN));
        }
        match self {
            Self::Choices(texts) if !(1..=Self::MAX_CHOICES).contains(&texts.len()) => {
                refuse(&format!("must have between 1 and {} choices", Self::MAX_CHOICES))
            }
            Self::Choices(texts) if texts.iter().any(String::is_empty) => {
                refuse("has a choice without text; leave it out")
            }
            Self::Grammar(text) | Self::Regex(text) if text.is_empty() => {
                refuse("has no text; leave it out to allow any answer")
            }
            Self::JsonSchema(text) if !is_json(text) => refuse("is a schema that is not valid JSON"),
            Self::Choices(_) | Self::Grammar(_) | Self::JsonSchema(_) | Self::Regex(_) => Ok(()),
        }
    }
}

/// Whether a text is one JSON document; nothing of it is kept, and its depth is bounded by the parser.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The same of a document that is an object.
pub(crate) fn is_json_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && is_json(text)
}
