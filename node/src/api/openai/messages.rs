//! What a chat's request says, in the mesh's words: messages, tools, and what form the answer is to have.

use protocol::{ChatMessage, Role, ToolCall, ToolChoice};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Error;
use crate::request::form::{Form, ToolOffer};

/// One message.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    role: String,
    content: Option<Content>,
    name: Option<String>,
    tool_calls: Option<Vec<IncomingCall>>,
    tool_call_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Content {
    Parts(Vec<Part>),
    Text(String),
}

#[derive(Debug, Deserialize)]
pub(super) struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
}

#[derive(Debug, Deserialize)]
struct IncomingCall {
    id: Option<String>,
    function: CalledFunction,
}

#[derive(Debug, Deserialize)]
struct CalledFunction {
    name: String,
    arguments: Option<String>,
}

impl Message {
    pub(super) fn message(&self) -> Result<ChatMessage, Error> {
        let calls = self.tool_calls.iter().flatten().map(IncomingCall::call).collect();
        Ok(ChatMessage {
            role: role(&self.role)?,
            content: self.content.as_ref().map_or_else(|| Ok(String::new()), Content::text)?,
            name: self.name.clone(),
            tool_calls: calls,
            tool_call_id: self.tool_call_id.clone(),
        })
    }
}

/// The role that a word names.
pub(super) fn role(word: &str) -> Result<Role, Error> {
    match word {
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" | "function" => Ok(Role::Tool),
        other => {
            let message = format!("`{other}` is no role: system, developer, user, assistant or tool");
            Err(Error::invalid(message).about("role"))
        }
    }
}

impl Content {
    pub(super) fn text(&self) -> Result<String, Error> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Parts(parts) => parts.iter().map(Part::said).collect(),
        }
    }
}

impl Part {
    fn said(&self) -> Result<String, Error> {
        match self.kind.as_str() {
            // A response's words for it, too.
            "text" | "input_text" | "output_text" => Ok(self.text.clone().unwrap_or_default()),
            // What was refused is what was said.
            "refusal" => Ok(self.refusal.clone().unwrap_or_default()),
            other => {
                let message = format!("content of type `{other}` is not supported: only text is");
                Err(Error::unsupported(message).about("content"))
            }
        }
    }
}

impl IncomingCall {
    fn call(&self) -> ToolCall {
        let CalledFunction { name, arguments } = &self.function;
        let text = |said: &Option<String>| said.clone().unwrap_or_default();
        ToolCall { id: text(&self.id), name: name.clone(), arguments: text(arguments) }
    }
}

/// One tool.
#[derive(Debug, Deserialize)]
pub(super) struct Tool {
    #[serde(rename = "type")]
    kind: String,
    function: Option<Function>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) parameters: Option<Box<RawValue>>,
}

impl Tool {
    pub(super) fn offer(&self) -> Result<ToolOffer, Error> {
        match (self.kind.as_str(), &self.function) {
            ("function", Some(function)) => Ok(function.offer()),
            ("function", None) => Err(Error::invalid("a tool lacks its function").about("tools")),
            (other, _) => {
                let message = format!("a tool of type `{other}` is not supported: only functions are");
                Err(Error::unsupported(message).about("tools"))
            }
        }
    }
}

impl Function {
    pub(super) fn offer(&self) -> ToolOffer {
        ToolOffer {
            name: self.name.clone(),
            description: self.description.clone().unwrap_or_default(),
            parameters: self.parameters.clone(),
        }
    }
}

/// Whether tools are to be called.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Calling {
    Named {
        function: NamedFunction,
    },
    /// As a response has it.
    Flat(NamedFunction),
    Word(String),
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedFunction {
    name: String,
}

impl Calling {
    pub(super) fn choice(&self) -> Result<ToolChoice, Error> {
        match self {
            Self::Named { function } | Self::Flat(function) => Ok(ToolChoice::Named(function.name.clone())),
            Self::Word(word) => match word.as_str() {
                "auto" => Ok(ToolChoice::Auto),
                "none" => Ok(ToolChoice::None),
                "required" => Ok(ToolChoice::Required),
                other => {
                    let message =
                        format!("`{other}` is no tool_choice: none, auto, required or a function by name");
                    Err(Error::invalid(message).about("tool_choice"))
                }
            },
        }
    }
}

/// What form the answer is to have.
#[derive(Debug, Deserialize)]
pub(super) struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<JsonSchema>,
    /// As a response has it.
    schema: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct JsonSchema {
    schema: Option<Box<RawValue>>,
}

/// Any JSON object.
const OBJECT: &str = r#"{"type":"object"}"#;

impl ResponseFormat {
    pub(super) fn form(&self) -> Result<Option<Form>, Error> {
        match self.kind.as_str() {
            "text" => Ok(None),
            "json_object" => {
                let object = RawValue::from_string(OBJECT.to_owned());
                object
                    .map(|object| Some(Form::JsonSchema(object)))
                    .map_err(|error| Error::invalid(error.to_string()))
            }
            "json_schema" => {
                let nested = self.json_schema.as_ref().and_then(|format| format.schema.clone());
                let schema = nested.or_else(|| self.schema.clone());
                let missing = || Error::invalid("the format lacks its schema").about("response_format");
                schema.map(|schema| Some(Form::JsonSchema(schema))).ok_or_else(missing)
            }
            other => {
                let message = format!("`{other}` is no response_format: text, json_object or json_schema");
                Err(Error::invalid(message).about("response_format"))
            }
        }
    }
}
