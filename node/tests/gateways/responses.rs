//! `/v1/responses` before an agent that says what it was asked: items in, items out, events in order, and a memory.

use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::oracle::{Gateway, with};
use crate::support::http::{Request, Response};
use crate::support::text;

fn send(request: Request) -> Response {
    block_in_place(|| request.send())
}

fn ask(gateway: &Gateway, more: &Value) -> Response {
    gateway.post("/v1/responses", &with(json!({ "model": "oracle", "input": "hello" }), more))
}

/// The events of a stream, numbered from 0 without a gap.
fn events(response: &Response) -> Vec<Value> {
    let events: Vec<Value> =
        response.events().iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    assert!(events.iter().enumerate().all(|(at, event)| event["sequence_number"] == at), "{response:?}");
    events
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().expect("a type")).collect()
}

fn tools() -> Value {
    json!([{ "type": "function", "name": "clock", "parameters": { "type": "object" }, "strict": true }])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_whole_or_a_stream_of_events() {
    let gateway = Gateway::up().await;
    let response =
        ask(&gateway, &json!({ "metadata": { "k": "v" }, "include": [], "instructions": "Be brief." }));
    let whole = response.json();
    assert_eq!(whole["id"], format!("resp_{}", response.header("x-request-id").expect("a job")));
    assert_eq!((&whole["object"], &whole["status"]), (&json!("response"), &json!("completed")));
    let item = &whole["output"][0];
    assert_eq!((&item["type"], &item["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(
        (&item["content"][0]["type"], &item["content"][0]["text"]),
        (&json!("output_text"), &json!("hello 0"))
    );
    assert_eq!((&whole["metadata"], &whole["instructions"]), (&json!({ "k": "v" }), &json!("Be brief.")));
    assert_eq!(whole["usage"]["output_tokens"], 2);
    assert_eq!(whole["llamesh"]["receipt"], response.header("x-llamesh-receipt").expect("a receipt"));

    let streamed = ask(&gateway, &json!({ "stream": true }));
    let told = events(&streamed);
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(kinds(&told), expected);
    assert!(streamed.body.contains("event: response.completed\n"), "{streamed:?}");
    let deltas: String = told.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!((deltas.as_str(), &told[6]["text"]), ("hello 0", &json!("hello 0")));
    assert_eq!(told[9]["response"]["output"], json!([told[8]["item"]]));

    let cut = ask(&gateway, &json!({ "max_output_tokens": 1 })).json();
    assert_eq!(cut["output"][0]["content"][0]["text"], "hello");
    let format = json!({ "format": { "type": "json_schema", "name": "n", "schema": { "type": "array" } } });
    assert_eq!(
        ask(&gateway, &json!({ "text": format })).json()["output"][0]["content"][0]["text"],
        r#"{"type":"array"}"#
    );
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_are_called_and_the_next_turn_knows_of_it() {
    let gateway = Gateway::up().await;
    let asked = json!({ "tools": tools(), "tool_choice": { "type": "function", "name": "clock" },
                        "parallel_tool_calls": false });
    let called = ask(&gateway, &asked).json();
    let call = &called["output"][0];
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("clock")));
    assert_eq!(call["arguments"], r#"{"choice":{"named":"clock"}}"#);
    let result = json!([{ "type": "function_call_output", "call_id": call["call_id"], "output": "noon" }]);
    let next = json!({ "input": result, "previous_response_id": called["id"], "tools": tools() });
    let told = ask(&gateway, &next).json();
    let said = text(&told["output"][0]["content"][0]["text"]);
    assert_eq!(said, format!("{} gave noon", text(&call["arguments"])));
    assert_eq!(told["previous_response_id"], called["id"]);

    let streamed = events(&ask(&gateway, &with(asked, &json!({ "stream": true }))));
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(kinds(&streamed), expected);
    assert_eq!(
        (&streamed[2]["item"]["arguments"], &streamed[4]["arguments"]),
        (&json!(""), &call["arguments"])
    );
    let next = json!({ "input": result, "previous_response_id": streamed[6]["response"]["id"] });
    assert_eq!(
        ask(&gateway, &next).json()["output"][0]["content"][0]["text"],
        said,
        "a stream is remembered, too"
    );
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_are_remembered_until_they_are_deleted() {
    let gateway = Gateway::up().await;
    let whole = ask(&gateway, &json!({})).json();
    let path = format!("/v1/responses/{}", text(&whole["id"]));
    assert_eq!(send(Request::get(&gateway.url, &path)).json(), whole);
    let deleted = send(Request::of("DELETE", &gateway.url, &path));
    assert_eq!((deleted.status, &deleted.json()["deleted"]), (200, &json!(true)));
    for method in ["GET", "DELETE"] {
        let gone = send(Request::of(method, &gateway.url, &path));
        assert_eq!((gone.status, &gone.json()["error"]["code"]), (404, &json!("response_not_found")));
    }
    let after = ask(&gateway, &json!({ "previous_response_id": whole["id"] }));
    let error = &after.json()["error"];
    assert_eq!((after.status, &error["code"]), (400, &json!("previous_response_not_found")));
    assert_eq!(error["param"], "previous_response_id");
    let unkept = ask(&gateway, &json!({ "store": false })).json();
    let unkept = format!("/v1/responses/{}", text(&unkept["id"]));
    assert_eq!(send(Request::get(&gateway.url, &unkept)).status, 404);
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_says_so_in_the_stream_and_beside_it() {
    let gateway = Gateway::up().await;
    let busy = ask(&gateway, &json!({ "input": "busy" }));
    assert_eq!((busy.status, &busy.json()["error"]["code"]), (429, &json!("busy")));
    assert_eq!(ask(&gateway, &json!({ "input": "busy", "stream": true })).status, 429, "no stream begins");
    let streamed = events(&ask(&gateway, &json!({ "input": "half", "stream": true })));
    let last = streamed.last().expect("an event");
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    assert_eq!(last["response"]["error"]["code"], "engine");
    for wrong in [
        json!({ "background": true }),
        json!({ "conversation": "conv_1" }),
        json!({ "prompt": { "id": "pmpt_1" } }),
        json!({ "n": 2 }),
        json!({ "input": [{ "type": "computer_call" }] }),
        json!({ "tools": [{ "type": "web_search" }] }),
    ] {
        let response = ask(&gateway, &wrong);
        assert_eq!(
            (response.status, &response.json()["error"]["code"]),
            (400, &json!("unsupported")),
            "{wrong}"
        );
    }
    gateway.node.stop().await.expect("an end in order");
}
