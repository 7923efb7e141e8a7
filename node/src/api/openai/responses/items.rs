//! What was said, as items, and what is said in return.

use protocol::{ChatMessage, JobId, Role, ToolCall};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::openai::Error;
use crate::api::openai::messages::{Content, Function, role};
use crate::api::openai::turn::{Called, Said};
use crate::request::form::ToolOffer;

/// What a request says.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Items {
    Text(String),
    Many(Vec<Item>),
}

/// One item: a message, a call of a tool, or what came of one. Without a type it is a message.
#[derive(Debug, Deserialize)]
pub(super) struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
    role: Option<String>,
    content: Option<Content>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    output: Option<Content>,
}

impl Items {
    /// Adds what they say to a conversation.
    pub(super) fn append(&self, said: &mut Vec<ChatMessage>) -> Result<(), Error> {
        match self {
            Self::Text(text) => said.push(ChatMessage::new(Role::User, text)),
            Self::Many(items) => {
                for item in items {
                    item.append(said).map_err(|error| error.about("input"))?;
                }
            }
        }
        Ok(())
    }
}

impl Item {
    fn append(&self, said: &mut Vec<ChatMessage>) -> Result<(), Error> {
        match self.kind.as_deref().unwrap_or("message") {
            "message" => {
                let role = role(self.role.as_deref().unwrap_or("user"))?;
                said.push(ChatMessage::new(role, &text(self.content.as_ref())?));
            }
            "function_call" => {
                let call = ToolCall {
                    id: self.call_id.clone().unwrap_or_default(),
                    name: self.name.clone().unwrap_or_default(),
                    arguments: self.arguments.clone().unwrap_or_default(),
                };
                // Calls that were made together, and what was said with them, are one message.
                match said.last_mut() {
                    Some(last) if last.role == Role::Assistant => last.tool_calls.push(call),
                    _ => {
                        let silent = ChatMessage::new(Role::Assistant, "");
                        said.push(ChatMessage { tool_calls: vec![call], ..silent });
                    }
                }
            }
            "function_call_output" => {
                let result = ChatMessage::new(Role::Tool, &text(self.output.as_ref())?);
                said.push(ChatMessage { tool_call_id: self.call_id.clone(), ..result });
            }
            // What a model thought is its own affair.
            "reasoning" => {}
            other => return Err(Error::unsupported(format!("items of type `{other}` are not supported"))),
        }
        Ok(())
    }
}

fn text(content: Option<&Content>) -> Result<String, Error> {
    content.map_or_else(|| Ok(String::new()), Content::text)
}

/// A tool; unlike a chat's, its function is not an object of its own.
#[derive(Debug, Deserialize)]
pub(super) struct FunctionTool {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    description: Option<String>,
    parameters: Option<Box<serde_json::value::RawValue>>,
}

impl FunctionTool {
    pub(super) fn offer(&self) -> Result<ToolOffer, Error> {
        match (self.kind.as_str(), &self.name) {
            ("function", Some(name)) => {
                let (description, parameters) = (self.description.clone(), self.parameters.clone());
                Ok(Function { name: name.clone(), description, parameters }.offer())
            }
            ("function", None) => Err(Error::invalid("a tool lacks its name").about("tools")),
            (other, _) => {
                let message = format!("a tool of type `{other}` is not supported: only functions are");
                Err(Error::unsupported(message).about("tools"))
            }
        }
    }
}

/// An answer as items.
pub(super) fn output(job: JobId, said: &Said) -> Vec<Value> {
    let message = speaks(said).then(|| message_item(job, status(said), Some(&said.text)));
    let calls = said.calls.iter().enumerate().map(|(at, called)| call_item(job, at, called, true));
    message.into_iter().chain(calls).collect()
}

/// True when an answer says something: it is not nothing but calls.
pub(super) fn speaks(said: &Said) -> bool {
    !said.text.is_empty() || said.calls.is_empty()
}

/// Whether an answer is all that there was to say.
pub(super) fn status(said: &Said) -> &'static str {
    if said.finish == "length" { "incomplete" } else { "completed" }
}

/// The name of the message in an answer.
pub(super) fn message_id(job: JobId) -> String {
    format!("msg_{job}")
}

/// A message with so much of its text.
pub(super) fn message_item(job: JobId, status: &str, text: Option<&str>) -> Value {
    let content: Vec<Value> = text.map(part).into_iter().collect();
    json!({ "type": "message", "id": message_id(job), "status": status, "role": "assistant", "content": content })
}

/// Text in a message.
pub(super) fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// A call; before it is whole it has no arguments.
pub(super) fn call_item(job: JobId, at: usize, called: &Called, whole: bool) -> Value {
    let (status, arguments) =
        if whole { ("completed", called.call.arguments.as_str()) } else { ("in_progress", "") };
    json!({ "type": "function_call", "id": format!("fc_{job}_{at}"), "call_id": called.id, "name": called.call.name,
            "arguments": arguments, "status": status })
}

/// An answer as the next turn reads it.
pub(super) fn message(said: &Said) -> ChatMessage {
    let call = |called: &Called| ToolCall {
        id: called.id.clone(),
        name: called.call.name.clone(),
        arguments: called.call.arguments.clone(),
    };
    ChatMessage {
        tool_calls: said.calls.iter().map(call).collect(),
        ..ChatMessage::new(Role::Assistant, &said.text)
    }
}
