//! What an answer must be, checked by the requester itself: a provider that obeys no constraint is not believed.
//!
//! Schemas and expressions are a stranger's. Both are bounded in size and in the work that they can cause.

use minijinja::Value;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::error::Fault;
use super::template::bounded;
use crate::Constraint;

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// Anything but white space.
    NonEmpty,
    /// A regular expression matches the whole of it.
    Regex(String),
    /// JSON that this schema describes. Templates see the JSON, not its text.
    Schema(serde_json::Value),
}

/// An answer is not what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// There is nothing in it.
    #[error("the answer is empty")]
    Empty,
    /// It does not match.
    #[error("the answer does not match the regular expression")]
    Mismatch,
    /// No JSON, or not what the schema describes.
    #[error("the answer does not meet the schema: {0}")]
    Schema(String),
    /// The expectation itself cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl Expectation {
    /// Memory of a compiled regular expression in bytes; those that people write need a hundredth.
    const MAX_REGEX: usize = 1 << 20;
    /// Parts of a schema, each `$ref` replaced by what it stands for. Bounds the work of a check, and refuses schemas
    /// that refer to themselves: their work has no bound.
    const MAX_PARTS: usize = 1 << 14;

    /// Refuses what cannot be checked, or not within the bounds.
    ///
    /// # Errors
    /// [`Fault::Invalid`].
    pub fn check(&self) -> Result<(), Fault> {
        let refuse = |field: &str, problem: String| Fault::invalid(field, problem);
        let checked = match self {
            Self::NonEmpty => Ok(()),
            Self::Regex(text) => regex(text).map(drop).map_err(|problem| refuse("expect.regex", problem)),
            Self::Schema(schema) => {
                validator(schema).map(drop).map_err(|problem| refuse("expect.schema", problem))
            }
        };
        let constraint = self.constraint().map_or(Ok(()), |constraint| constraint.check());
        checked.and_then(|()| constraint.map_err(|error| refuse("expect", error.to_string())))
    }

    /// Whether an answer is what was expected.
    ///
    /// # Errors
    /// Why it is not.
    pub fn meets(&self, answer: &str) -> Result<(), Unmet> {
        match self {
            Self::NonEmpty if answer.trim().is_empty() => Err(Unmet::Empty),
            Self::NonEmpty => Ok(()),
            Self::Regex(text) => {
                let matches = regex(text).map_err(Unmet::Unreadable)?.is_match(answer);
                matches.then_some(()).ok_or(Unmet::Mismatch)
            }
            Self::Schema(schema) => {
                let wrong = |problem: &dyn ToString| Unmet::Schema(bounded(&problem.to_string()));
                let answer = serde_json::from_str(answer).map_err(|error| wrong(&error))?;
                let validator = validator(schema).map_err(Unmet::Unreadable)?;
                validator.validate(&answer).map_err(|error| wrong(&error))
            }
        }
    }

    /// What a provider is told, so that its answer need not be thrown away.
    pub fn constraint(&self) -> Option<Constraint> {
        match self {
            Self::NonEmpty => None,
            Self::Regex(text) => Some(Constraint::Regex(text.clone())),
            Self::Schema(schema) => Some(Constraint::JsonSchema(schema.to_string())),
        }
    }

    /// The value that templates see of an answer that is as expected.
    pub(super) fn value(expected: Option<&Self>, answer: &str) -> Result<Value, Unmet> {
        let Some(expectation) = expected else { return Ok(Value::from(answer)) };
        expectation.meets(answer)?;
        match expectation {
            Self::NonEmpty | Self::Regex(_) => Ok(Value::from(answer)),
            Self::Schema(_) => serde_json::from_str(answer).map_err(|error| Unmet::Schema(error.to_string())),
        }
    }
}

fn regex(text: &str) -> Result<Regex, String> {
    let whole = format!(r"\A(?:{text})\z");
    let size = Expectation::MAX_REGEX;
    let regex = RegexBuilder::new(&whole).size_limit(size).dfa_size_limit(size).build();
    // The first of its own parts must be an expression, too: `a)|(b` would be one only within ours.
    let alone = RegexBuilder::new(text).size_limit(size).build();
    alone.and(regex).map_err(|error| bounded(&format!("is no regular expression: {error}")))
}

fn validator(schema: &serde_json::Value) -> Result<jsonschema::Validator, String> {
    if !schema.is_object() {
        return Err("must be an object".to_owned());
    }
    bound(schema)?;
    let size = Expectation::MAX_REGEX;
    let patterns = jsonschema::PatternOptions::regex().size_limit(size).dfa_size_limit(size);
    let options = jsonschema::options().with_pattern_options(patterns);
    options.build(schema).map_err(|error| bounded(&format!("is no JSON schema: {error}")))
}

/// Counts the parts of a schema, each `$ref` replaced by what it stands for.
fn bound(schema: &serde_json::Value) -> Result<(), String> {
    let mut open = vec![schema];
    for _ in 0..Expectation::MAX_PARTS {
        let Some(part) = open.pop() else { return Ok(()) };
        match part {
            serde_json::Value::Array(elements) => open.extend(elements),
            serde_json::Value::Object(fields) => {
                if fields.contains_key("$dynamicRef") || fields.contains_key("$recursiveRef") {
                    return Err("must not have dynamic references; use `$ref`".to_owned());
                }
                open.extend(fields.values());
                if let Some(serde_json::Value::String(reference)) = fields.get("$ref") {
                    let pointer = reference.strip_prefix('#').and_then(|path| schema.pointer(path));
                    let outside = || format!("has a `$ref` to `{}`, which is not in it", bounded(reference));
                    open.push(pointer.ok_or_else(outside)?);
                }
            }
            _ => {}
        }
    }
    Err("is too large, or refers to itself; write out what it needs".to_owned())
}
