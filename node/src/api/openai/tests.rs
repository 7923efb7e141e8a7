//! Translation both ways, without a mesh: what requests become, and what replies are made of.

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use protocol::{Alternative, Constraint, JobError, Logprobs, Token, ToolChoice};
use serde_json::{Value, json};

use super::likely::Likely;
use super::messages::{Calling, Message, ResponseFormat, Tool};
use super::{Error, likely, reads};

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    // As text, because a schema stays the text that it was.
    serde_json::from_str(&value.to_string()).unwrap()
}

#[test]
fn a_client_is_told_when_not_to_come_back() {
    let told = |error: JobError| {
        let response = Error::from(error).into_response();
        response.headers().get("x-should-retry").map(|told| told.to_str().unwrap().to_owned())
    };
    assert_eq!(told(JobError::Cancelled).as_deref(), Some("false"));
    assert_eq!(told(JobError::DeadlineExceeded).as_deref(), Some("false"));
    assert_eq!(told(JobError::Busy { retry_after_ms: 1 }), None);
    let full = Error::from(JobError::ContextExceeded { tokens: 9, context: 8 });
    assert_eq!(full.code(), "context_length_exceeded", "by which clients know what to shorten");
}

#[test]
fn who_is_busy_says_when_to_come_back() {
    for (retry_after_ms, seconds) in [(0, "0"), (1, "1"), (1000, "1"), (1500, "2")] {
        let response = Error::from(JobError::Busy { retry_after_ms }).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
    }
    let nobody = Error::from(JobError::NoTaker { asked: 1 }).into_response();
    assert_eq!(nobody.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(nobody.headers().contains_key(header::RETRY_AFTER));
    let response = Error::from(JobError::Engine).into_response();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(!response.headers().contains_key(header::RETRY_AFTER));
}

#[test]
fn messages_bring_calls_and_their_results() {
    let message = |value: Value| read::<Message>(&value).message();
    let call = json!({ "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{}" } });
    // No content, a content of null, parts: all are seen in the wild.
    let said = message(json!({ "role": "assistant", "tool_calls": [call] })).unwrap();
    assert_eq!((said.content.as_str(), said.tool_calls.len()), ("", 1));
    assert_eq!((said.tool_calls[0].id.as_str(), said.tool_calls[0].arguments.as_str()), ("c1", "{}"));
    let told = message(
        json!({ "role": "tool", "tool_call_id": "c1", "content": [{ "type": "text", "text": "noon" }] }),
    );
    let told = told.unwrap();
    assert_eq!((told.tool_call_id.as_deref(), told.content.as_str()), (Some("c1"), "noon"));
    let plain =
        message(json!({ "role": "assistant", "content": null, "tool_calls": null, "tool_call_id": null }));
    assert!(plain.unwrap().tool_calls.is_empty());
    assert!(message(json!({ "role": "cat", "content": "x" })).is_err());
    assert!(message(json!({ "role": "user", "content": [{ "type": "image_url" }] })).is_err());
}

#[test]
fn tools_and_forms_are_read_as_openai_writes_them() {
    let function =
        json!({ "name": "f", "description": null, "strict": true, "parameters": { "z": 1, "a": 2 } });
    let offer = read::<Tool>(&json!({ "type": "function", "function": function })).offer().unwrap();
    assert_eq!((offer.name.as_str(), offer.description.as_str()), ("f", ""));
    assert!(read::<Tool>(&json!({ "type": "web_search" })).offer().is_err());
    let choice = |value: Value| read::<Calling>(&value).choice();
    assert_eq!(choice(json!("required")).unwrap(), ToolChoice::Required);
    let named = json!({ "type": "function", "function": { "name": "f" } });
    assert_eq!(choice(named).unwrap(), ToolChoice::Named("f".to_owned()));
    assert!(choice(json!("sometimes")).is_err());
    let form = |value: Value| read::<ResponseFormat>(&value).form().map(|form| form.map(Constraint::from));
    assert_eq!(form(json!({ "type": "text" })).unwrap(), None);
    let object = Constraint::JsonSchema(r#"{"type":"object"}"#.to_owned());
    assert_eq!(form(json!({ "type": "json_object" })).unwrap(), Some(object));
    let schema = json!({ "name": "n", "schema": { "type": "array" }, "strict": false });
    let array = Constraint::JsonSchema(r#"{"type":"array"}"#.to_owned());
    assert_eq!(form(json!({ "type": "json_schema", "json_schema": schema })).unwrap(), Some(array));
    for bad in [json!({ "type": "json_schema" }), json!({ "type": "xml" })] {
        assert!(form(bad).is_err());
    }
}

fn alternative(text: &str, logprob: f32) -> Alternative {
    Alternative { id: 1, text: text.to_owned(), logprob }
}

#[test]
fn a_chat_tells_how_likely_its_tokens_are() {
    let token = Token { id: Some(1), text: "é".to_owned() };
    let told = Logprobs { logprob: -1.5, top: vec![alternative("e", -0.5), alternative("é", -1.5)] };
    let value = likely::of_chat([(&token, Some(&told))]);
    let e = json!({ "token": "e", "logprob": -0.5, "bytes": [101] });
    let accented = json!({ "token": "é", "logprob": -1.5, "bytes": [195, 169] });
    let mut content = accented.clone();
    content["top_logprobs"] = json!([e, accented]);
    assert_eq!(value, json!({ "content": [content], "refusal": null }));
    assert_eq!(likely::of_chat([(&token, None)]), Value::Null);
}

#[test]
fn a_completion_tells_it_in_parallel_lists() {
    let mut lists = Likely::after(2);
    lists.push("né", None);
    // Two parts of one character read the same; the likelier one counts, and the token is always there.
    let top = [alternative("\u{fffd}", -0.5), alternative("\u{fffd}", -2.0)];
    lists.push("x", Some((-3.0, &top)));
    let expected = json!({
        "tokens": ["né", "x"],
        "token_logprobs": [null, -3.0],
        "top_logprobs": [null, { "\u{fffd}": -0.5, "x": -3.0 }],
        "text_offset": [2, 4],
    });
    assert_eq!(lists.value(), expected);
}

proptest::proptest! {
    /// Whatever a client sends is read or refused, and nothing of it is believed before that.
    #[test]
    fn no_body_makes_a_parser_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
        every_parser(&bytes);
    }

    /// The same for what almost is a request.
    #[test]
    fn no_document_makes_a_parser_panic(document in document()) {
        every_parser(document.to_string().as_bytes());
    }
}

/// Requests with some of their fields, each of any kind.
fn document() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z_]{0,8}".prop_map(Value::from),
        Just(json!([[1, 2]])),
        Just(json!([{ "role": "user", "content": [{ "type": "text", "text": "x" }] }])),
        Just(json!([{ "type": "function_call_output", "call_id": "c", "output": "x" }])),
        Just(json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }])),
        Just(json!({ "type": "json_schema", "json_schema": { "schema": {} } })),
        Just(json!({ "capability": "code", "max_price": -1 })),
    ];
    let fields =
        ["model", "messages", "input", "prompt", "tools", "tool_choice", "stop", "n", "stream", "llamesh"];
    let more =
        ["response_format", "text", "encoding_format", "dimensions", "max_tokens", "temperature", "tokens"];
    let names: Vec<_> = fields.into_iter().chain(more).map(str::to_owned).collect();
    proptest::collection::btree_map(proptest::sample::select(names), leaf, 0..8)
        .prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

fn every_parser(bytes: &[u8]) {
    let paths = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/tokenize",
        "/detokenize",
    ];
    for path in paths {
        let _ = reads(path, bytes);
    }
    let own = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let _ = super::Options::read(&axum::http::HeaderMap::new(), own["llamesh"].as_object());
}
