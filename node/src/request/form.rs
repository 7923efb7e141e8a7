//! Parts of a request that are JSON in JSON: schemas are written as they are, and travel as the text that was written.

use protocol::{Constraint, Tool};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What form an answer must have.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Exactly one of these texts.
    Choices(Vec<String>),
    /// A sentence of this grammar.
    Grammar(String),
    /// JSON that this schema describes. It stays the text that was written, as the order of its fields may matter.
    JsonSchema(Box<RawValue>),
    /// What this expression matches as a whole.
    Regex(String),
}

impl From<Form> for Constraint {
    fn from(form: Form) -> Self {
        match form {
            Form::Choices(texts) => Self::Choices(texts),
            Form::Grammar(text) => Self::Grammar(text),
            Form::JsonSchema(schema) => Self::JsonSchema(schema.get().to_owned()),
            Form::Regex(text) => Self::Regex(text),
        }
    }
}

impl TryFrom<Constraint> for Form {
    type Error = serde_json::Error;

    /// Fails where a schema is not JSON, which [`Constraint::check`] refuses, too.
    fn try_from(constraint: Constraint) -> Result<Self, serde_json::Error> {
        Ok(match constraint {
            Constraint::Choices(texts) => Self::Choices(texts),
            Constraint::Grammar(text) => Self::Grammar(text),
            Constraint::JsonSchema(text) => Self::JsonSchema(RawValue::from_string(text)?),
            Constraint::Regex(text) => Self::Regex(text),
        })
    }
}

/// What a model may call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolOffer {
    /// By which it is called.
    pub name: String,
    /// What it does, for the model to read.
    #[serde(default)]
    pub description: String,
    /// JSON schema of its arguments; without, it takes none.
    #[serde(default)]
    pub parameters: Option<Box<RawValue>>,
}

/// Parameters of a tool that takes none.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

impl From<&ToolOffer> for Tool {
    fn from(offer: &ToolOffer) -> Self {
        let parameters = offer.parameters.as_ref().map_or(NO_PARAMETERS, |schema| schema.get());
        Self {
            name: offer.name.clone(),
            description: offer.description.clone(),
            parameters: parameters.to_owned(),
        }
    }
}
