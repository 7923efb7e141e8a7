//! Calls of tools in OpenAI's shape. What an answer's text calls, [`inference::tools`] finds out, whatever the model's
//! notation is.

use inference::ToolCall;
pub(super) use inference::tools::parse;
use serde_json::{Value, json};

/// A call as a reply has it. `id` is unlike that of any other call.
pub(super) fn value(call: &ToolCall, id: &str) -> Value {
    let function = json!({ "name": call.name, "arguments": call.arguments });
    json!({ "id": id, "type": "function", "function": function })
}
