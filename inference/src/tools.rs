//! Tools that a model may call: how a template tells of them, how an answer is made to call one, how calls are read.
//!
//! A model calls a tool by writing a name and arguments in the syntax that it was trained on, so the syntax is the
//! model's and everything else follows from it: what stands in the prompt, the [`grammar()`] that forces a call, and
//! what [`parse`] finds in an answer. Templates that know tools write them themselves, in the shape that Hugging
//! Face's library gives them; for one that does not, messages tell of them in words and in [`CallSyntax::Hermes`].
//!
//! JSON stays text, and is read into values that keep the order of keys: the order is part of the prompt, and the prompt
//! must be the same on every peer.

mod calls;
mod grammar;
mod shape;

pub use calls::parse;
pub use grammar::{grammar, grammar_or};
pub(crate) use shape::{Fallback, messages, tools};

use minijinja::value::{Value, ValueKind};
use serde::{Deserialize, Serialize};

/// A tool that the model may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Letters, digits, `_` and `-`, at most [`MAX_NAME`].
    pub name: String,
    /// What it does, for the model to read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The JSON schema of its arguments, an object; nothing for a tool without any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parameters: String,
}

/// A call of a tool, made by a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// What the tool's result refers to.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments: the text of a JSON object.
    pub arguments: String,
}

/// Whether the model must call a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolChoice {
    /// It must not: the tools are not told.
    None,
    /// It may.
    #[default]
    Auto,
    /// It must call one, or several.
    Required,
    /// It must call this one, once.
    Named(String),
}

/// How a family of models writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallSyntax {
    /// `<tool_call>\n{"name": …, "arguments": …}\n</tool_call>`: Hermes, Qwen, and many after them; several in lines.
    Hermes,
    /// `{"name": …, "parameters": …}`, the whole answer: Llama 3.
    Llama3,
    /// `[TOOL_CALLS] [{"name": …, "arguments": …}]`: Mistral.
    Mistral,
}

/// Tools or calls that no model can be told of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// More tools, or more calls in one message, than any model copes with.
    #[error("{count} {what}; give at most {most}")]
    TooMany {
        /// Tools or calls.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A name that no tool can have.
    #[error("`{name}` is no tool's name; use 1 to {MAX_NAME} letters, digits, `_` and `-`")]
    Name {
        /// Its beginning.
        name: String,
    },
    /// Two tools with one name.
    #[error("two tools are called `{name}`; rename one")]
    Twice {
        /// The name.
        name: String,
    },
    /// A text that is too long to be read with every prompt.
    #[error("{what} of `{name}` has {bytes} bytes; shorten it to {most}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// The tool.
        name: String,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// Something that is to be a JSON object is not.
    #[error("{what} of `{name}` must be a JSON object: {why}")]
    NoObject {
        /// What it is.
        what: &'static str,
        /// The tool.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A tool is to be called that is not there.
    #[error("no tool is called `{name}`; choose one of the tools that the request gives")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A call is required and there is no tool.
    #[error("a call is required, and there are no tools; give some or do not require a call")]
    NoTools,
}

impl CallSyntax {
    /// The syntax that a template writes. [`Hermes`](Self::Hermes) is also what a model is told that has none, or one
    /// that is not known here.
    #[must_use]
    pub fn of(template: Option<&str>) -> Self {
        let template = template.filter(|source| knows_tools(source)).unwrap_or_default();
        if template.contains("<tool_call>") {
            Self::Hermes
        } else if template.contains(MISTRAL) {
            Self::Mistral
        } else if template.contains("ipython") || template.contains(PYTHON) {
            Self::Llama3
        } else {
            Self::Hermes
        }
    }

    /// Calls as a model of this syntax writes them.
    #[must_use]
    pub fn write(self, calls: &[ToolCall]) -> String {
        let Pieces { begin, open, middle, close, separator, end } = self.pieces();
        let call = |call: &ToolCall| {
            let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
            [open, &call.name, middle, arguments, close].concat()
        };
        let calls: Vec<String> = calls.iter().map(call).collect();
        [begin, &calls.join(separator), end].concat()
    }

    const fn pieces(self) -> Pieces {
        match self {
            Self::Hermes => Pieces {
                begin: "",
                open: "<tool_call>\n{\"name\": \"",
                middle: "\", \"arguments\": ",
                close: "}\n</tool_call>",
                separator: "\n",
                end: "",
            },
            Self::Llama3 => Pieces {
                begin: "",
                open: "{\"name\": \"",
                middle: "\", \"parameters\": ",
                close: "}",
                separator: "; ",
                end: "",
            },
            Self::Mistral => Pieces {
                begin: "[TOOL_CALLS] [",
                open: "{\"name\": \"",
                middle: "\", \"arguments\": ",
                close: "}",
                separator: ", ",
                end: "]",
            },
        }
    }
}

/// What stands around names and arguments.
struct Pieces {
    begin: &'static str,
    open: &'static str,
    middle: &'static str,
    close: &'static str,
    separator: &'static str,
    end: &'static str,
}

/// Whether a template does something with tools.
pub(crate) fn knows_tools(template: &str) -> bool {
    template.contains("tools")
}

/// Checks tools against their bounds.
pub fn check(tools: &[Tool]) -> Result<(), ToolError> {
    if tools.len() > MAX_TOOLS {
        return Err(ToolError::TooMany { what: "tools", count: tools.len(), most: MAX_TOOLS });
    }
    for (at, tool) in tools.iter().enumerate() {
        if !is_name(&tool.name) {
            return Err(ToolError::Name { name: tool.name.chars().take(MAX_NAME).collect() });
        }
        if tools[..at].iter().any(|earlier| earlier.name == tool.name) {
            return Err(ToolError::Twice { name: tool.name.clone() });
        }
        within("the description", tool, &tool.description, MAX_DESCRIPTION)?;
        within("the parameters", tool, &tool.parameters, MAX_PARAMETERS)?;
        tool.schema()?;
    }
    Ok(())
}

fn within(what: &'static str, tool: &Tool, text: &str, most: usize) -> Result<(), ToolError> {
    if text.len() <= most {
        return Ok(());
    }
    Err(ToolError::TooLong { what, name: tool.name.clone(), bytes: text.len(), most })
}

/// A name that needs no quoting in JSON, a grammar or a template.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain)
}

impl Tool {
    /// The schema of the arguments.
    fn schema(&self) -> Result<Value, ToolError> {
        let text = if self.parameters.trim().is_empty() { NO_PARAMETERS } else { &self.parameters };
        object(text).map_err(|why| ToolError::NoObject {
            what: "the schema of the parameters",
            name: self.name.clone(),
            why,
        })
    }
}

impl ToolCall {
    /// The arguments as a value; nothing counts as no arguments.
    fn values(&self) -> Result<Value, ToolError> {
        let text = if self.arguments.trim().is_empty() { "{}" } else { &self.arguments };
        let name = || self.name.chars().take(MAX_NAME).collect();
        object(text).map_err(|why| ToolError::NoObject { what: "the arguments", name: name(), why })
    }
}

/// A JSON object with its keys in their order.
fn object(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if value.kind() == ValueKind::Map { Ok(value) } else { Err(format!("it is a {}", value.kind())) }
}

const MISTRAL: &str = "[TOOL_CALLS]";
/// What Llama 3 may begin a call with.
const PYTHON: &str = "<|python_tag|>";
const NO_PARAMETERS: &str = "{\"type\": \"object\", \"properties\": {}}";
/// As many as OpenAI's interface takes; they stand in every prompt.
pub const MAX_TOOLS: usize = 128;
/// As long as OpenAI's interface lets names be.
pub const MAX_NAME: usize = 64;
/// Two pages of text, in bytes.
pub const MAX_DESCRIPTION: usize = 8 << 10;
/// The largest schemas in use have some ten thousand bytes.
pub const MAX_PARAMETERS: usize = 64 << 10;
/// More calls than any model makes in one answer.
pub const MAX_CALLS: usize = 128;

#[cfg(test)]
mod tests;
