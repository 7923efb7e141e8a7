//! From messages to the one text that a model continues, by the template that its file brings.
//!
//! Templates are Jinja programs written for Hugging Face's library, so the environment imitates it: the same
//! whitespace rules, Python's string methods, `raise_exception`, `tojson` without escapes for HTML, and
//! `strftime_now`, whose clock is an input, so that a replay renders the same prompt. A file without a template
//! gets [`CHATML`]. A system prompt is a message like any other: what happens to it, or what stands in for a
//! missing one, is the template's decision. Tools are shown to templates that mention them, and told in messages to
//! all others: [`crate::tools`].
//!
//! Templates come with the model, whose digest somebody chose to trust; even so their steps, their output and
//! their recursion are bounded. The text of a message can contain the name of a special token and is then read
//! as that token, as in every engine that follows the format.

mod date;

use std::io;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, context};
use serde::{Deserialize, Serialize};

use crate::tools::{self, CallSyntax, Fallback, Tool, ToolCall, ToolError};

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
    /// The speaker's name, for templates that use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The tools that an assistant called with this message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call whose result this message is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message without a name and without calls.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }
}

/// A conversation to be continued, and the time at which it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chat {
    /// The messages so far, the earliest first.
    pub messages: Vec<Message>,
    /// What the assistant may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// What the template believes the time is, in seconds since 1970 (UTC).
    pub now: i64,
}

/// A chat could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template stopped, by its own `raise_exception` or by a mistake in it.
    #[error("the model's chat template refuses these messages: {why}; change their roles or order")]
    Refused {
        /// The template's or the library's words.
        why: String,
    },
    /// The template is not valid.
    #[error("the model file's chat template cannot be read: {why}; send a text prompt instead of messages")]
    Syntax {
        /// The library's words.
        why: String,
    },
    /// The chat's tools or calls are out of bounds.
    #[error(transparent)]
    Tools(#[from] ToolError),
    /// The rendered chat is too long.
    #[error("the rendered chat exceeds {MAX_RENDERED} bytes; send fewer or shorter messages")]
    TooLong,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
    knows_tools: bool,
    syntax: CallSyntax,
}

impl ChatTemplate {
    /// Compiles the template of a file, or [`CHATML`] when it has none.
    pub fn new(source: Option<&str>, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let source = source.unwrap_or(CHATML);
        if source.len() > MAX_SOURCE {
            return Err(TemplateError::Syntax { why: format!("it has more than {MAX_SOURCE} bytes") });
        }
        let (knows_tools, calls) = (tools::knows_tools(source), CallSyntax::of(Some(source)));
        let mut environment = environment().map_err(syntax)?;
        environment.add_template_owned(NAME, source.to_owned()).map_err(syntax)?;
        let (source, bos, eos) = (source.to_owned(), bos.to_owned(), eos.to_owned());
        Ok(Self { environment, source, bos, eos, knows_tools, syntax: calls })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How the model of this template writes calls of tools.
    #[must_use]
    pub fn call_syntax(&self) -> CallSyntax {
        self.syntax
    }

    /// The text to continue, up to where the assistant begins to speak.
    pub fn render(&self, chat: &Chat) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(refused)?;
        let now = chat.now;
        let (messages, tools) = self.shown(chat)?;
        let context = context! {
            messages => messages,
            add_generation_prompt => true,
            bos_token => &self.bos,
            eos_token => &self.eos,
            tools => tools,
            documents => (),
            strftime_now => Value::from_function(move |format: String| date::format(now, &format)),
        };
        let mut output = Bounded { bytes: Vec::new(), full: false };
        let rendered = template.render_captured_to(context, &mut output).map(|_| ());
        if output.full {
            return Err(TemplateError::TooLong);
        }
        rendered.map_err(refused)?;
        String::from_utf8(output.bytes).map_err(|error| TemplateError::Refused { why: error.to_string() })
    }

    /// The messages and the tools that the template sees.
    fn shown(&self, chat: &Chat) -> Result<(Value, Value), ToolError> {
        if self.knows_tools {
            return Ok((tools::messages(&chat.messages, self.syntax)?, tools::tools(&chat.tools)?));
        }
        let told = Fallback::messages(&chat.messages, &chat.tools)?;
        Ok((tools::messages(&told, self.syntax)?, Value::from(())))
    }
}

/// Whitespace, methods and functions as Hugging Face's library has them.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = environment.syntax().to_builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", tojson);
    Ok(environment)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Python's `json.dumps` without ASCII escapes: a space after colons and commas, or lines with an indent.
fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut bytes = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(MAX_INDENT));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, pretty);
            value.serialize(&mut serializer).map_err(failed)?;
        }
        None => {
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
            value.serialize(&mut serializer).map_err(failed)?;
        }
    }
    Ok(Value::from(String::from_utf8_lossy(&bytes).into_owned()))
}

/// JSON on one line with Python's spaces.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Output that refuses to grow beyond its bound.
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_RENDERED {
            self.full = true;
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn syntax(error: Error) -> TemplateError {
    TemplateError::Syntax { why: error.to_string() }
}

fn refused(error: Error) -> TemplateError {
    let why = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    TemplateError::Refused { why }
}

/// What a chat becomes when the file brings no template.
pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\\n' }}{% endif %}";
const NAME: &str = "chat";
/// The largest templates in use, with tools, have some 15 KiB.
const MAX_SOURCE: usize = 256 << 10;
/// A hundred steps for each of ten thousand messages.
const MAX_STEPS: u64 = 1_000_000;
/// Macros in templates in use nest three or four deep.
const MAX_RECURSION: usize = 64;
/// Far more text than the longest context holds.
pub const MAX_RENDERED: usize = 4 << 20;
const MAX_INDENT: usize = 16;

#[cfg(test)]
mod tests;
