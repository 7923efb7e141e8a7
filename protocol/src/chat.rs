//! A conversation as a job's input: what was said, which tools there are, and whether one must be called.
//!
//! A tool call travels as text of the answer, in the model's own notation: which tools were offered is part of the
//! input and so of the commitment, and a replay needs nothing more. Whoever reads the answer takes the calls out of it.

use std::collections::BTreeSet;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::JobError;
use crate::constraint::is_json_object;

/// Who speaks in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The model.
    Assistant,
    /// Instructions.
    System,
    /// A tool's result.
    Tool,
    /// The person or program that asks.
    User,
}

/// One turn of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// The speaker's name, where several share a role.
    pub name: Option<String>,
    /// What the assistant called in this turn.
    #[serde(default)]
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool's result: the call that it answers.
    #[serde(default)]
    pub tool_call_id: Option<String>,
}

/// A call that a model made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Its name in this chat; a result repeats it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments as the model wrote them: JSON text, if the model did well.
    pub arguments: String,
}

/// A tool that the model may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// By which it is called.
    pub name: String,
    /// What it does, for the model to read.
    pub description: String,
    /// JSON schema of its arguments: the text of a JSON object.
    pub parameters: String,
}

/// Whether tools are to be called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// This one.
    Named(String),
    /// None.
    None,
    /// At least one, whichever.
    Required,
}

/// A conversation and what the model may use in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Chat {
    /// What was said, the earliest first.
    pub messages: Vec<ChatMessage>,
    /// What may be called.
    #[serde(default)]
    pub tools: Vec<Tool>,
    /// Whether it is to be.
    #[serde(default)]
    pub tool_choice: ToolChoice,
}

impl ChatMessage {
    /// Most calls in one turn: as many as there may be tools.
    pub const MAX_CALLS: usize = Chat::MAX_TOOLS;

    /// A turn of nothing but text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), name: None, tool_calls: Vec::new(), tool_call_id: None }
    }

    /// Size in bytes of what is said and called.
    fn len(&self) -> usize {
        let calls = self.tool_calls.iter().map(|call| call.name.len() + call.arguments.len());
        self.content.len() + calls.sum::<usize>()
    }

    fn check(&self) -> Result<(), JobError> {
        let refuse = |problem: &str| Err(JobError::invalid("messages", problem));
        if self.role != Role::Assistant && !self.tool_calls.is_empty() {
            return refuse("have tool calls that the assistant did not make");
        }
        if self.role != Role::Tool && self.tool_call_id.is_some() {
            return refuse("have a tool_call_id in a message that is not of a tool");
        }
        if self.tool_calls.len() > Self::MAX_CALLS {
            return refuse(&format!("must have at most {} tool calls each", Self::MAX_CALLS));
        }
        self.tool_calls.iter().try_for_each(|call| check_name("messages", &call.name))
    }
}

impl Tool {
    /// Longest name in bytes, as others have it, so that any client's tools can be named here.
    pub const MAX_NAME: usize = 64;

    fn check(&self) -> Result<(), JobError> {
        check_name("tools", &self.name)?;
        if is_json_object(&self.parameters) {
            return Ok(());
        }
        let problem =
            format!("must have a JSON schema as parameters, those of `{}` are no object", self.name);
        Err(JobError::invalid("tools", &problem))
    }
}

impl Chat {
    /// Most tools in one chat, as others have it; what they say of themselves is bounded by the input's size.
    pub const MAX_TOOLS: usize = 128;

    /// Size in bytes of what the requester wrote.
    pub fn len(&self) -> usize {
        let tools =
            self.tools.iter().map(|tool| tool.name.len() + tool.description.len() + tool.parameters.len());
        self.messages.iter().map(ChatMessage::len).chain(tools).sum()
    }

    /// True when nothing was said, whatever tools there are.
    pub fn is_empty(&self) -> bool {
        self.messages.iter().all(|message| message.len() == 0)
    }

    /// Refuses tools, calls and results that make no sense together.
    ///
    /// # Errors
    /// [`JobError::Invalid`].
    pub fn check(&self) -> Result<(), JobError> {
        if self.tools.len() > Self::MAX_TOOLS {
            return Err(JobError::invalid("tools", &format!("must be at most {}", Self::MAX_TOOLS)));
        }
        self.tools.iter().try_for_each(Tool::check)?;
        let names: BTreeSet<&str> = self.tools.iter().map(|tool| tool.name.as_str()).collect();
        if names.len() < self.tools.len() {
            return Err(JobError::invalid("tools", "must have different names"));
        }
        let callable = match &self.tool_choice {
            ToolChoice::Auto | ToolChoice::None => true,
            ToolChoice::Named(name) => names.contains(name.as_str()),
            ToolChoice::Required => !names.is_empty(),
        };
        if !callable {
            return Err(JobError::invalid("tool_choice", "asks for a tool that is not among the tools"));
        }
        self.messages.iter().try_for_each(ChatMessage::check)
    }
}

impl From<Vec<ChatMessage>> for Chat {
    /// A chat without tools.
    fn from(messages: Vec<ChatMessage>) -> Self {
        Self { messages, ..Self::default() }
    }
}

fn check_name(field: &str, name: &str) -> Result<(), JobError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=Tool::MAX_NAME).contains(&name.len()) && name.bytes().all(known) {
        return Ok(());
    }
    let problem = format!("must name tools by 1 to {} of A-Z, a-z, 0-9, _ and -", Tool::MAX_NAME);
    Err(JobError::invalid(field, &problem))
}

// JSON leaves out what most chats do not have; the wire has every field, as its form tells no names.

impl Serialize for ChatMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = !serializer.is_human_readable();
        let (calls, answers) = (all || !self.tool_calls.is_empty(), all || self.tool_call_id.is_some());
        let len = 3 + usize::from(calls) + usize::from(answers);
        let mut message = serializer.serialize_struct("ChatMessage", len)?;
        message.serialize_field("role", &self.role)?;
        message.serialize_field("content", &self.content)?;
        message.serialize_field("name", &self.name)?;
        if calls {
            message.serialize_field("tool_calls", &self.tool_calls)?;
        }
        if answers {
            message.serialize_field("tool_call_id", &self.tool_call_id)?;
        }
        message.end()
    }
}

impl Serialize for Chat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = !serializer.is_human_readable();
        let (tools, choice) = (all || !self.tools.is_empty(), all || self.tool_choice != ToolChoice::Auto);
        let len = 1 + usize::from(tools) + usize::from(choice);
        let mut chat = serializer.serialize_struct("Chat", len)?;
        chat.serialize_field("messages", &self.messages)?;
        if tools {
            chat.serialize_field("tools", &self.tools)?;
        }
        if choice {
            chat.serialize_field("tool_choice", &self.tool_choice)?;
        }
        chat.end()
    }
}
