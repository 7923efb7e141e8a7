//! Messages and tools as templates see them, and for templates that see no tools, messages that tell of them.

use minijinja::value::{Serde, Value};
use serde::Serialize;

use super::{CallSyntax, MAX_CALLS, Tool, ToolCall, ToolError, check};
use crate::chat::Message;

/// Messages in the shape that Hugging Face's templates are written for: keys that a message has no use for are absent.
pub(crate) fn messages(messages: &[Message], syntax: CallSyntax) -> Result<Value, ToolError> {
    let shown = messages.iter().map(|message| Shown::of(message, syntax)).collect::<Result<Vec<_>, _>>()?;
    Ok(Value::from(Serde(shown)))
}

/// Tools in that shape; nothing at all where there are none.
pub(crate) fn tools(tools: &[Tool]) -> Result<Value, ToolError> {
    check(tools)?;
    if tools.is_empty() {
        return Ok(Value::from(()));
    }
    let shown = tools.iter().map(described).collect::<Result<Vec<_>, _>>()?;
    Ok(Value::from(Serde(shown)))
}

#[derive(Serialize)]
struct Shown<'a> {
    role: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ShownCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Serialize)]
struct ShownCall<'a> {
    id: String,
    r#type: &'static str,
    function: Called<'a>,
}

#[derive(Serialize)]
struct Called<'a> {
    name: &'a str,
    arguments: Value,
}

#[derive(Serialize)]
struct Described<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters: Value,
}

impl<'a> Shown<'a> {
    fn of(message: &'a Message, syntax: CallSyntax) -> Result<Self, ToolError> {
        let calls = &message.tool_calls;
        if calls.len() > MAX_CALLS {
            return Err(ToolError::TooMany { what: "calls", count: calls.len(), most: MAX_CALLS });
        }
        let shown = |call: &'a ToolCall| -> Result<_, ToolError> {
            let function = Called { name: &call.name, arguments: call.values()? };
            Ok(ShownCall { id: identity(&call.id, syntax), r#type: FUNCTION, function })
        };
        Ok(Self {
            role: &message.role,
            content: &message.content,
            name: message.name.as_deref(),
            tool_calls: calls.iter().map(shown).collect::<Result<_, _>>()?,
            tool_call_id: message.tool_call_id.as_deref().map(|id| identity(id, syntax)),
        })
    }
}

fn described(tool: &Tool) -> Result<Described<'_>, ToolError> {
    let (name, description) = (tool.name.as_str(), tool.description.as_str());
    Ok(Described { r#type: FUNCTION, function: Function { name, description, parameters: tool.schema()? } })
}

/// The id of a call as a template takes it: Mistral's refuse all but nine letters and digits.
fn identity(id: &str, syntax: CallSyntax) -> String {
    let nine = id.len() == MISTRAL_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if syntax != CallSyntax::Mistral || nine {
        return id.to_owned();
    }
    blake3::hash(id.as_bytes()).to_hex()[..MISTRAL_ID].to_owned()
}

/// What stands in for tools where a template has no place for them: the first system message tells what there is and
/// how it is called, calls are part of what the assistant said, and results come from the user.
pub(crate) struct Fallback;

impl Fallback {
    /// A chat's messages with nothing in them but roles and texts.
    pub(crate) fn messages(messages: &[Message], tools: &[Tool]) -> Result<Vec<Message>, ToolError> {
        let mut told = Vec::with_capacity(messages.len() + 1);
        for (at, message) in messages.iter().enumerate() {
            let after_result = at > 0 && messages[at - 1].role == TOOL;
            match told.last_mut() {
                Some(Message { content, .. }) if message.role == TOOL && after_result => {
                    *content += "\n";
                    *content += &result(message);
                }
                _ => told.push(Self::message(message)),
            }
        }
        if !tools.is_empty() {
            Self::introduce(&mut told, &introduction(tools)?);
        }
        Ok(told)
    }

    fn message(message: &Message) -> Message {
        let (role, content) = match message.role.as_str() {
            TOOL => ("user", result(message)),
            role if message.tool_calls.is_empty() => (role, message.content.clone()),
            role => (role, joined(&message.content, &CallSyntax::Hermes.write(&message.tool_calls), "\n")),
        };
        Message { name: message.name.clone(), ..Message::new(role, content) }
    }

    fn introduce(messages: &mut Vec<Message>, introduction: &str) {
        match messages.first_mut() {
            Some(first) if first.role == SYSTEM => {
                first.content = joined(&first.content, introduction, "\n\n");
            }
            _ => messages.insert(0, Message::new(SYSTEM, introduction)),
        }
    }
}

fn result(message: &Message) -> String {
    format!("<tool_response>\n{}\n</tool_response>", message.content)
}

fn joined(first: &str, second: &str, between: &str) -> String {
    if first.is_empty() { second.to_owned() } else { [first, between, second].concat() }
}

fn introduction(tools: &[Tool]) -> Result<String, ToolError> {
    check(tools)?;
    let mut text = String::from("You can call these tools, each described by a line of JSON:\n<tools>\n");
    for tool in tools {
        let described = serde_json::to_string(&described(tool)?.function);
        text += &described.map_err(|error| ToolError::NoObject {
            what: "the schema of the parameters",
            name: tool.name.clone(),
            why: error.to_string(),
        })?;
        text += "\n";
    }
    text += HOW_TO_CALL;
    Ok(text)
}

const TOOL: &str = "tool";
const SYSTEM: &str = "system";
const FUNCTION: &str = "function";
/// What Mistral's templates demand of an id.
const MISTRAL_ID: usize = 9;
const HOW_TO_CALL: &str = "</tools>\nTo call a tool, answer with its name and its arguments, exactly in this form:\n\
    <tool_call>\n{\"name\": \"the tool's name\", \"arguments\": {\"argument\": \"value\"}}\n</tool_call>";
