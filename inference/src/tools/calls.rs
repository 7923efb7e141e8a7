//! Calls found in an answer, whatever syntax it has.
//!
//! An answer is whatever a model wrote, so nothing in it is believed: what does not read as a whole call stays text.

use minijinja::value::{Value, ValueKind};

use super::{MAX_CALLS, MISTRAL, PYTHON, ToolCall, is_name};

/// The text and the calls of an answer. Without calls the text is the answer as it is; with calls it is trimmed.
///
/// Ids follow from a call's content and its position, so every peer gives a call the same.
#[must_use]
pub fn parse(answer: &str) -> (String, Vec<ToolCall>) {
    if let Some(found) = bare(answer) {
        return (String::new(), numbered(found));
    }
    let (text, found) = marked(answer);
    if found.is_empty() {
        return (answer.to_owned(), Vec::new());
    }
    (text.trim().to_owned(), numbered(found))
}

/// A name and the JSON text of arguments.
type Found = (String, String);

/// An answer that is calls and nothing else: Llama 3's, and Mistral's where its mark was not made text.
fn bare(answer: &str) -> Option<Vec<Found>> {
    let answer = answer.trim();
    let mut rest = answer.strip_prefix(PYTHON).unwrap_or(answer);
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (calls, after) = read(rest)?;
        found.extend(calls);
        rest = after.trim_start().trim_start_matches(';').trim_start();
        if found.len() > MAX_CALLS {
            return None;
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Calls behind marks, and the text around them.
fn marked(answer: &str) -> (String, Vec<Found>) {
    let (mut text, mut found, mut rest) = (String::new(), Vec::new(), answer);
    // A mark that begins no call costs a look at all that follows, so looks are counted too.
    for _ in 0..MAX_CALLS {
        let marks = [OPEN, MISTRAL].into_iter().filter_map(|mark| Some((rest.find(mark)?, mark)));
        let Some((at, mark)) = marks.min() else { break };
        let (before, from) = rest.split_at(at);
        text += before;
        match behind(mark, &from[mark.len()..]).filter(|(calls, _)| found.len() + calls.len() <= MAX_CALLS) {
            Some((calls, after)) => {
                found.extend(calls);
                rest = after;
            }
            None => {
                text += mark;
                rest = &from[mark.len()..];
            }
        }
    }
    (text + rest, found)
}

/// The calls behind a mark, and what follows them.
fn behind<'a>(mark: &str, rest: &'a str) -> Option<(Vec<Found>, &'a str)> {
    let (calls, after) = read(rest)?;
    if mark != OPEN {
        return Some((calls, after));
    }
    let after = after.trim_start();
    // Whoever stops at the closing mark does not write it.
    match after.strip_prefix(CLOSE) {
        Some(after) => Some((calls, after)),
        None => after.is_empty().then_some((calls, after)),
    }
}

/// One call or a list of them, and what follows.
fn read(text: &str) -> Option<(Vec<Found>, &str)> {
    let text = text.trim_start();
    if !text.starts_with(['{', '[']) {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    let found = match value.kind() {
        ValueKind::Seq => value.try_iter().ok()?.map(|value| call(&value)).collect::<Option<Vec<_>>>()?,
        _ => vec![call(&value)?],
    };
    Some((found, text.get(values.byte_offset()..)?))
}

fn call(value: &Value) -> Option<Found> {
    let part = |name| value.get_attr(name).ok().filter(|part| !part.is_undefined());
    let parts = (part("name")?, part("arguments"), part("parameters"));
    let ((name, Some(arguments), None) | (name, None, Some(arguments))) = parts else { return None };
    // Some models write the arguments as a text that holds JSON, as OpenAI's interface does.
    let arguments = match arguments.as_str() {
        Some(text) => serde_json::from_str(text).ok()?,
        None => arguments,
    };
    let name = name.as_str().filter(|name| is_name(name))?;
    if arguments.kind() != ValueKind::Map {
        return None;
    }
    Some((name.to_owned(), serde_json::to_string(&arguments).ok()?))
}

fn numbered(found: Vec<Found>) -> Vec<ToolCall> {
    let numbered = found.into_iter().zip(0u64..);
    numbered
        .map(|((name, arguments), at)| ToolCall { id: id(at, &name, &arguments), name, arguments })
        .collect()
}

fn id(at: u64, name: &str, arguments: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&at.to_le_bytes());
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(arguments.as_bytes());
    format!("call_{}", &hasher.finalize().to_hex()[..ID_DIGITS])
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const CONTEXT: &str = "llamesh inference 1 tool call";
/// Of the digest, as many hexadecimal digits as make a collision within one chat unthinkable.
const ID_DIGITS: usize = 24;
