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
enum Content {
    Parts(Vec<Part>),
    Text(String),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
struct IncomingCall {
    #[serde(default)]
    id: String,
    function: CalledFunction,
}

#[derive(Debug, Deserialize)]
struct CalledFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

impl Message {
    pub(super) fn message(&self) -> Result<ChatMessage, Error> {
        let role = match self.role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" | "function" => Role::Tool,
            other => {
                return Err(Error::invalid(format!(
                    "`{other}` is no role: system, developer, user, assistant or tool"
                )));
            }
        };
        let content = match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => join(parts)?,
        };
        let calls = self.tool_calls.iter().flatten().map(IncomingCall::call).collect();
        Ok(ChatMessage {
            role,
            content,
            name: self.name.clone(),
            tool_calls: calls,
            tool_call_id: self.tool_call_id.clone(),
        })
    }
}

impl IncomingCall {
    fn call(&self) -> ToolCall {
        let CalledFunction { name, arguments } = &self.function;
        ToolCall { id: self.id.clone(), name: name.clone(), arguments: arguments.clone() }
    }
}

fn join(parts: &[Part]) -> Result<String, Error> {
    let text = |part: &Part| match part.kind.as_str() {
        "text" => Ok(part.text.clone().unwrap_or_default()),
        other => Err(Error::invalid(format!("content of type `{other}` is not supported: only text is"))),
    };
    parts.iter().map(text).collect()
}

/// One tool.
#[derive(Debug, Deserialize)]
pub(super) struct Tool {
    #[serde(rename = "type")]
    kind: String,
    function: Option<Function>,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    description: Option<String>,
    parameters: Option<Box<RawValue>>,
}

impl Tool {
    pub(super) fn offer(&self) -> Result<ToolOffer, Error> {
        match (self.kind.as_str(), &self.function) {
            ("function", Some(Function { name, description, parameters })) => Ok(ToolOffer {
                name: name.clone(),
                description: description.clone().unwrap_or_default(),
                parameters: parameters.clone(),
            }),
            ("function", None) => Err(Error::invalid("a tool lacks its function")),
            (other, _) => {
                Err(Error::invalid(format!("a tool of type `{other}` is not supported: only functions are")))
            }
        }
    }
}

/// Whether tools are to be called.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Calling {
    Named { function: NamedFunction },
    Word(String),
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedFunction {
    name: String,
}

impl Calling {
    pub(super) fn choice(&self) -> Result<ToolChoice, Error> {
        match self {
            Self::Named { function } => Ok(ToolChoice::Named(function.name.clone())),
            Self::Word(word) => match word.as_str() {
                "auto" => Ok(ToolChoice::Auto),
                "none" => Ok(ToolChoice::None),
                "required" => Ok(ToolChoice::Required),
                other => Err(Error::invalid(format!(
                    "`{other}` is no tool_choice: none, auto, required or a function by name"
                ))),
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
                let schema = self.json_schema.as_ref().and_then(|format| format.schema.clone());
                let missing = || Error::invalid("response_format lacks json_schema.schema");
                schema.map(|schema| Some(Form::JsonSchema(schema))).ok_or_else(missing)
            }
            other => Err(Error::invalid(format!(
                "`{other}` is no response_format: text, json_object or json_schema"
            ))),
        }
    }
}
