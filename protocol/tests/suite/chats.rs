//! Chats with tools: what may be asked of a model, and how it looks as JSON.

use proptest::prelude::*;
use protocol::{Chat, ChatMessage, Input, JobError, Role, Tool, ToolCall, ToolChoice};
use serde_json::json;

use crate::{any, samples};

fn tool(name: &str) -> Tool {
    Tool { name: name.into(), description: String::new(), parameters: "{}".into() }
}

fn call(name: &str) -> ToolCall {
    ToolCall { id: "1".into(), name: name.into(), arguments: "not JSON, as models write".into() }
}

fn user() -> ChatMessage {
    ChatMessage::new(Role::User, "What time is it?")
}

fn with_tools(tools: Vec<Tool>, tool_choice: ToolChoice) -> Chat {
    Chat { messages: vec![user()], tools, tool_choice }
}

#[test]
fn tools_and_calls_that_make_sense_are_taken() {
    let called =
        ChatMessage { tool_calls: vec![call("f"), call("g")], ..ChatMessage::new(Role::Assistant, "") };
    let told = ChatMessage { tool_call_id: Some("1".into()), ..ChatMessage::new(Role::Tool, "noon") };
    let distinct = |count: usize| (0..count).map(|n| tool(&format!("f{n}"))).collect::<Vec<_>>();
    let good = [
        with_tools(Vec::new(), ToolChoice::Auto),
        with_tools(Vec::new(), ToolChoice::None),
        with_tools(distinct(Chat::MAX_TOOLS), ToolChoice::Required),
        with_tools(vec![tool("f"), tool(&"g".repeat(Tool::MAX_NAME))], ToolChoice::Named("f".into())),
        with_tools(vec![tool("a-Z_0")], ToolChoice::Auto),
        Chat { messages: vec![user(), called, told], ..Chat::default() },
    ];
    for chat in good {
        assert_eq!(Input::Chat(chat.clone()).check(), Ok(()), "{chat:?}");
    }
}

#[test]
fn tools_and_calls_that_make_none_are_refused() {
    let parameters = |text: &str| Tool { parameters: text.into(), ..tool("f") };
    let said = |message| Chat { messages: vec![user(), message], ..Chat::default() };
    let calls = |role, name: &str, count| {
        said(ChatMessage { tool_calls: vec![call(name); count], ..ChatMessage::new(role, "x") })
    };
    let too_many = (0..=Chat::MAX_TOOLS).map(|n| tool(&format!("f{n}"))).collect();
    let bad = [
        with_tools(too_many, ToolChoice::Auto),
        with_tools(vec![tool("f"), tool("f")], ToolChoice::Auto),
        with_tools(vec![tool("")], ToolChoice::Auto),
        with_tools(vec![tool("f g")], ToolChoice::Auto),
        with_tools(vec![tool("é")], ToolChoice::Auto),
        with_tools(vec![tool(&"f".repeat(Tool::MAX_NAME + 1))], ToolChoice::Auto),
        with_tools(vec![parameters("")], ToolChoice::Auto),
        with_tools(vec![parameters("[]")], ToolChoice::Auto),
        with_tools(vec![parameters("{")], ToolChoice::Auto),
        with_tools(Vec::new(), ToolChoice::Required),
        with_tools(vec![tool("f")], ToolChoice::Named("g".into())),
        calls(Role::User, "f", 1),
        calls(Role::Assistant, "f g", 1),
        calls(Role::Assistant, "f", ChatMessage::MAX_CALLS + 1),
        said(ChatMessage { tool_call_id: Some("1".into()), ..ChatMessage::new(Role::Assistant, "x") }),
    ];
    for chat in bad {
        let error = Input::Chat(chat.clone()).check();
        assert!(matches!(error, Err(JobError::Invalid { .. })), "{chat:?}");
    }
}

#[test]
fn tools_alone_are_nothing_to_answer() {
    let silent = Chat {
        messages: vec![ChatMessage::new(Role::User, "")],
        ..with_tools(vec![tool("f")], ToolChoice::Auto)
    };
    assert!(Input::Chat(silent).check().is_err());
    let called = ChatMessage { tool_calls: vec![call("f")], ..ChatMessage::new(Role::Assistant, "") };
    assert_eq!(
        Input::Chat(Chat::from(vec![called])).check(),
        Ok(()),
        "a call was said, although without words"
    );
}

#[test]
fn json_leaves_out_what_a_chat_does_not_have() {
    let plain = Input::Chat(Chat::from(vec![user()]));
    let message = json!({ "role": "user", "content": "What time is it?", "name": null });
    let value = json!({ "chat": { "messages": [message] } });
    assert_eq!(serde_json::to_value(&plain).unwrap(), value);
    assert_eq!(serde_json::from_value::<Input>(value).unwrap(), plain);
    let value = serde_json::to_value(samples::input()).unwrap();
    assert_eq!(value["chat"]["tool_choice"], json!({ "named": "clock" }));
    assert_eq!(value["chat"]["messages"][3]["tool_call_id"], "call-1");
}

proptest! {
    #[test]
    fn every_input_comes_back_from_json(input in any::input()) {
        let text = serde_json::to_string(&input).unwrap();
        prop_assert_eq!(serde_json::from_str::<Input>(&text).unwrap(), input);
    }
}
