//! Calls of tools in an answer's text. This is the one place that knows the notation.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A call that a model made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// The tool.
    pub(super) name: String,
    /// JSON text.
    pub(super) arguments: String,
}

#[derive(Deserialize)]
struct Written {
    name: String,
    #[serde(alias = "parameters")]
    arguments: Option<Box<RawValue>>,
}

const BEGIN: &str = "<tool_call>";
const END: &str = "</tool_call>";

/// Takes the calls out of a text: what is left of it, and the calls in order. What looks like a call and is none stays text.
pub(super) fn parse(text: &str) -> (String, Vec<Call>) {
    let (mut left, mut calls, mut rest) = (String::new(), Vec::new(), text);
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (inside, behind) = after.split_once(END).unwrap_or((after, ""));
        match call(inside) {
            Some(call) => {
                left += before;
                calls.push(call);
                rest = behind;
            }
            None => {
                left += before;
                left += BEGIN;
                rest = after;
            }
        }
    }
    left += rest;
    if calls.is_empty() { (text.to_owned(), calls) } else { (left.trim().to_owned(), calls) }
}

fn call(text: &str) -> Option<Call> {
    let Written { name, arguments } = serde_json::from_str(text.trim()).ok()?;
    let arguments = arguments.map_or_else(|| "{}".to_owned(), |arguments| arguments.get().to_owned());
    Some(Call { name, arguments })
}

impl Call {
    /// As a reply has it. `id` is unlike that of any other call.
    pub(super) fn value(&self, id: &str) -> Value {
        let function = json!({ "name": self.name, "arguments": self.arguments });
        json!({ "id": id, "type": "function", "function": function })
    }
}
