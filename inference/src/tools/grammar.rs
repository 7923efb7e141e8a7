//! Grammars that force a call, or leave a choice between calls and an answer in a form, in the dialect of Lark that
//! llguidance reads.
//!
//! The frame of a call is literal text, its arguments are whatever the tool's schema allows. Schemas are written anew
//! from what was read, so that nothing in them can end the schema and go on as grammar; each stands alone, so that
//! its references to its own parts keep their meaning.

use super::{CallSyntax, Pieces, Tool, ToolChoice, ToolError, check};

/// A grammar for answers that call a tool as a choice demands; none where it demands nothing.
///
/// # Errors
/// Where the tools are out of bounds, or the choice cannot be met.
pub fn grammar(tools: &[Tool], choice: &ToolChoice, syntax: CallSyntax) -> Result<Option<String>, ToolError> {
    check(tools)?;
    match choice {
        ToolChoice::None | ToolChoice::Auto => Ok(None),
        ToolChoice::Required if tools.is_empty() => Err(ToolError::NoTools),
        ToolChoice::Required => of_any(tools, syntax, more(syntax), None).map(Some),
        ToolChoice::Named(name) => {
            let named = tools.iter().position(|tool| tool.name == *name);
            let unknown = || ToolError::Unknown { name: name.chars().take(super::MAX_NAME).collect() };
            let at = named.ok_or_else(unknown)?;
            of_any(&tools[at..=at], syntax, 0, None).map(Some)
        }
    }
}

/// A grammar for answers that call tools, or are JSON that a schema accepts ([`Constraint::schema`](crate::Constraint::schema)).
///
/// # Errors
/// Where the tools are out of bounds.
pub fn grammar_or(tools: &[Tool], schema: &str, syntax: CallSyntax) -> Result<String, ToolError> {
    check(tools)?;
    of_any(tools, syntax, more(syntax), Some(schema))
}

/// How many calls may follow the first.
const fn more(syntax: CallSyntax) -> usize {
    match syntax {
        CallSyntax::Llama3 => 0,
        CallSyntax::Hermes | CallSyntax::Mistral => MOST_PARALLEL - 1,
    }
}

fn of_any(
    tools: &[Tool],
    syntax: CallSyntax,
    more: usize,
    answer: Option<&str>,
) -> Result<String, ToolError> {
    let Pieces { begin, open, middle, close, separator, end } = syntax.pieces();
    let mut rules = match answer {
        Some(schema) => format!("start: answer | calls\nanswer: %json {schema}\ncalls:"),
        None => String::from("start:"),
    };
    if !begin.is_empty() {
        rules += &format!(" {}", quoted(begin));
    }
    rules += " call";
    if more > 0 {
        rules += &format!(" ({} call){{0,{more}}}", quoted(separator));
    }
    if !end.is_empty() {
        rules += &format!(" {}", quoted(end));
    }
    let alternatives: Vec<String> = (0..tools.len()).map(|at| format!("call_{at}")).collect();
    rules += &format!("\ncall: {}", alternatives.join(" | "));
    for (at, tool) in tools.iter().enumerate() {
        let before = quoted(&[open, &tool.name, middle].concat());
        rules += &format!("\ncall_{at}: {before} arguments_{at} {}", quoted(close));
        rules += &format!("\narguments_{at}: %json {}", schema(tool)?);
    }
    rules += "\n";
    Ok(rules)
}

/// A literal; Lark's strings are JSON's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A tool's schema: its arguments are an object, written with the spaces that models have seen.
fn schema(tool: &Tool) -> Result<String, ToolError> {
    let value = tool.schema()?;
    let says = |key: &&str| value.get_attr(key).is_ok_and(|value| !value.is_undefined());
    let object = if DECIDING.iter().any(says) { "" } else { "\"type\":\"object\"," };
    let why = |error: serde_json::Error| ToolError::NoObject {
        what: "the schema of the parameters",
        name: tool.name.clone(),
        why: error.to_string(),
    };
    let text = serde_json::to_string(&value).map_err(why)?;
    let rest = text.strip_prefix('{').unwrap_or(&text);
    Ok(match rest {
        "}" => format!("{{{SPACES},\"type\":\"object\"}}"),
        rest => format!("{{{SPACES},{object}{rest}"),
    })
}

/// As Python writes JSON, and so as templates show calls; free spacing would also let a model go on with spaces for ever.
const SPACES: &str =
    "\"x-guidance\":{\"whitespace_flexible\":false,\"item_separator\":\", \",\"key_separator\":\": \"}";
/// A schema with one of these says itself what the arguments are.
const DECIDING: [&str; 8] = ["$ref", "allOf", "anyOf", "const", "enum", "oneOf", "type", "x-guidance"];
/// Calls that an answer is allowed at most; without a bound a model could call without end.
const MOST_PARALLEL: usize = 16;
