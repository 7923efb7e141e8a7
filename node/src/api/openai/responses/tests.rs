//! Translation both ways, without a mesh.

use protocol::{ChatMessage, Role};
use serde_json::{Value, json};

use super::items::{FunctionTool, Items};
use super::*;
use crate::api::openai::body::parse;

fn said(input: &Value) -> Result<Vec<ChatMessage>, Error> {
    let mut said = Vec::new();
    serde_json::from_str::<Items>(&input.to_string()).unwrap().append(&mut said)?;
    Ok(said)
}

#[test]
fn items_are_messages_with_or_without_a_type() {
    let items = json!([
        { "role": "developer", "content": "Be brief." },
        { "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "what time?" }] },
        { "type": "reasoning", "id": "r", "summary": [] },
        { "type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
          "content": [{ "type": "output_text", "text": "Let me see.", "annotations": [] }] },
        { "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "clock", "arguments": "{}" },
        { "type": "function_call", "call_id": "c2", "name": "date", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "c1", "output": "noon" },
        { "type": "function_call_output", "call_id": "c2", "output": [{ "type": "input_text", "text": "May" }] },
    ]);
    let said = said(&items).unwrap();
    let told: Vec<_> = said.iter().map(|message| (message.role, message.content.as_str())).collect();
    let expected = [
        (Role::System, "Be brief."),
        (Role::User, "what time?"),
        (Role::Assistant, "Let me see."),
        (Role::Tool, "noon"),
        (Role::Tool, "May"),
    ];
    assert_eq!(told, expected);
    let calls: Vec<_> =
        said[2].tool_calls.iter().map(|call| (call.id.as_str(), call.name.as_str())).collect();
    assert_eq!(calls, [("c1", "clock"), ("c2", "date")]);
    assert_eq!(said[4].tool_call_id.as_deref(), Some("c2"));
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    for wrong in [json!([{ "type": "computer_call" }]), json!([{ "role": "cat", "content": "x" }])] {
        assert_eq!(said(&wrong).unwrap_err().param(), Some("input"), "{wrong}");
    }
    let tool = |tool: Value| serde_json::from_str::<FunctionTool>(&tool.to_string()).unwrap().offer();
    assert_eq!(tool(json!({ "type": "function", "name": "f", "strict": true })).unwrap().name, "f");
    assert!(tool(json!({ "type": "function" })).is_err() && tool(json!({ "type": "web_search" })).is_err());
    let request = |body: Value| parse::<ResponseRequest>(body.to_string().as_bytes());
    let format = json!({ "format": { "type": "json_schema", "name": "n", "schema": { "b": 1, "a": 2 } } });
    let asked = request(json!({ "model": "m", "input": "x", "text": format, "include": ["y"] })).unwrap();
    let turn = asked.turn(&[]).unwrap();
    let form = turn.form.map(protocol::Constraint::from);
    assert!(matches!(form, Some(protocol::Constraint::JsonSchema(schema)) if schema.contains(r#""a":2"#)));
    assert_eq!(request(json!({ "model": "m" })).unwrap_err().param(), Some("input"));
    let many = request(json!({ "model": "m", "input": "x", "n": 2 })).unwrap();
    assert_eq!(many.turn(&[]).unwrap_err().param(), Some("n"));
}
