//! What OpenAI's clients rely on beside answers: vectors, errors by name, headers, whom a request goes to, tokens, and
//! what happens when they leave.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::oracle::{Gateway, chat_body, chunks, with};
use crate::support::http::{Request, Response};
use crate::support::text;

fn send(request: Request) -> Response {
    block_in_place(|| request.send())
}

fn error(response: &Response) -> (u16, String, Value) {
    let error = &response.json()["error"];
    assert!(!text(&error["message"]).is_empty() && error["type"].is_string(), "{response:?}");
    (response.status, text(&error["code"]), error["param"].clone())
}

/// The status, code and parameter of an error.
fn wrong(status: u16, code: &str, param: &str) -> (u16, String, Value) {
    (status, code.to_owned(), if param.is_empty() { Value::Null } else { json!(param) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_and_ids_become_vectors_in_order() {
    let gateway = Gateway::hosting(&[], true).await;
    let embed = |input: Value, more: Value| {
        gateway.post("/v1/embeddings", &with(json!({ "model": "ruler", "input": input }), &more))
    };
    let texts: Vec<String> = (0..20).map(|number| "code ".repeat(number + 1)).collect();
    let response = embed(json!(texts), json!({}));
    let whole = response.json();
    assert_eq!((&whole["object"], &whole["model"]), (&json!("list"), &json!("ruler")));
    for (index, one) in whole["data"].as_array().expect("a list").iter().enumerate() {
        assert_eq!((&one["object"], &one["index"]), (&json!("embedding"), &json!(index)));
        assert_eq!(one["embedding"][0], json!(index as f32 + 1.0));
    }
    assert_eq!(whole["usage"]["prompt_tokens"], whole["usage"]["total_tokens"]);
    let receipts = whole["llamesh"]["choices"].as_array().expect("receipts");
    assert_eq!(receipts.len(), 20);
    assert!(
        response.header("x-llamesh-receipt").expect("a header").starts_with(&text(&receipts[0]["receipt"]))
    );

    let base64 = embed(json!("code text"), json!({ "encoding_format": "base64" })).json();
    let bytes = BASE64.decode(text(&base64["data"][0]["embedding"])).expect("base64");
    let numbers: Vec<f32> =
        bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().expect("four"))).collect();
    assert_eq!(numbers, [1.0, 1.0, 0.009]);
    let ids = embed(json!([[1, 2], [3]]), json!({ "encoding_format": "float", "dimensions": 3 })).json();
    let lengths: Vec<_> = (0..2).map(|at| ids["data"][at]["embedding"][2].clone()).collect();
    assert_eq!(lengths, [2.0, 1.0]);
    assert_eq!(embed(json!([1, 2, 3]), json!({})).json()["data"][0]["embedding"][2], 3.0);
    let any = embed(json!("x"), json!({ "model": "auto" })).json();
    assert_eq!(any["data"][0]["embedding"][2], 0.001);

    assert_eq!(
        error(&embed(json!("x"), json!({ "dimensions": 2 }))),
        wrong(400, "unsupported", "dimensions")
    );
    for input in [json!([]), json!(""), json!(["a", ""])] {
        assert_eq!(error(&embed(input, json!({}))), wrong(400, "invalid_request", "input"));
    }
    let format = embed(json!("x"), json!({ "encoding_format": "hex" }));
    assert_eq!(error(&format), wrong(400, "invalid_request", "encoding_format"));
    assert_eq!(
        error(&gateway.chat("x", &json!({ "model": "ruler" }))),
        wrong(404, "model_not_found", "model")
    );
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_has_a_shape_and_names_its_parameter() {
    let gateway = Gateway::up().await;
    let chat = "/v1/chat/completions";
    let post = |body: &Value| gateway.post(chat, body);
    let raw = |body: &str| send(Request::post(&gateway.url, chat, &Value::Null).body(body));
    let cases = [
        (raw("{"), wrong(400, "invalid_request", "")),
        (post(&json!({ "model": "auto" })), wrong(400, "invalid_request", "messages")),
        (post(&json!({ "messages": [] })), wrong(400, "invalid_request", "model")),
        (
            gateway.chat("x", &json!({ "messages": [{ "role": "user", "content": 7 }] })),
            wrong(400, "invalid_request", "messages[0].content"),
        ),
        (gateway.chat("x", &json!({ "temperature": "hot" })), wrong(400, "invalid_request", "temperature")),
        (gateway.chat("x", &json!({ "temperature": -1 })), wrong(400, "invalid", "temperature")),
        (gateway.chat("x", &json!({ "n": 17 })), wrong(400, "invalid_request", "n")),
        (gateway.chat("x", &json!({ "model": "no-such-model" })), wrong(404, "model_not_found", "model")),
        (gateway.chat("x", &json!({ "model": "smollm2" })), wrong(404, "model_not_found", "model")),
        (gateway.chat("x", &json!({ "model": "cap:No!" })), wrong(400, "invalid_request", "model")),
        (gateway.chat("x", &json!({ "model": "cap:code" })), wrong(503, "nothing_offered", "")),
        (
            gateway.chat("x", &json!({ "llamesh": { "trust": 1 } })),
            wrong(400, "unsupported", "llamesh.trust"),
        ),
        (send(Request::get(&gateway.url, chat)), wrong(405, "method_not_allowed", "")),
        (send(Request::get(&gateway.url, "/v1/nothing")), wrong(404, "not_found", "")),
        (
            send(Request::post(&gateway.url, chat, &chat_body("x")).with("content-type", "text/plain")),
            wrong(415, "unsupported_media_type", ""),
        ),
        (raw(&" ".repeat((8 << 20) + 1)), wrong(413, "request_too_large", "")),
        (
            send(Request::post(&gateway.url, chat, &chat_body("x")).with("x-llamesh-trust", "1")),
            wrong(400, "unsupported", "x-llamesh-trust"),
        ),
    ];
    for (response, expected) in cases {
        assert_eq!(error(&response), expected, "{response:?}");
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(response.header("retry-after").is_some(), response.status == 503);
    }
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_name_their_job_and_receipt() {
    let gateway = Gateway::up().await;
    let response = gateway.chat("hello", &json!({}));
    let whole = response.json();
    let job = response.header("x-request-id").expect("a job").to_owned();
    assert_eq!(whole["id"], format!("chatcmpl-{job}"));
    assert_eq!(whole["llamesh"]["receipt"], response.header("x-llamesh-receipt").expect("a receipt"));
    let message = whole["choices"][0]["message"].as_object().expect("a message");
    assert!(message["refusal"].is_null() && message.contains_key("refusal"), "{whole}");
    assert!(whole["choices"][0].as_object().expect("a choice").contains_key("logprobs"));
    let streamed =
        gateway.chat("hello", &json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let chunks = chunks(&streamed);
    assert_eq!(chunks[0]["id"], format!("chatcmpl-{}", streamed.header("x-request-id").expect("a job")));
    let last = chunks.last().expect("a chunk");
    assert!(last["usage"].is_object() && last["llamesh"]["receipt"].is_string(), "{last}");
    let failed = gateway.chat("busy", &json!({}));
    assert_eq!((failed.status, failed.header("retry-after")), (429, Some("2")));
    assert_eq!(failed.json()["error"]["type"], "rate_limit_error");
    assert!(failed.header("x-request-id").is_some_and(|job| job.len() == 32), "{failed:?}");
    let text = gateway.complete(&json!("a"), &json!({}));
    assert_eq!(text.json()["id"], format!("cmpl-{}", text.header("x-request-id").expect("a job")));
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_before_the_reply_cancels_its_jobs() {
    let mut gateway = Gateway::up().await;
    let paths = [
        ("/v1/chat/completions", with(chat_body("wait"), &json!({ "n": 2 }))),
        ("/v1/responses", json!({ "model": "auto", "input": "wait" })),
    ];
    for (path, body) in paths {
        let jobs = body["n"].as_u64().unwrap_or(1) as usize;
        let asked = block_in_place(|| Request::post(&gateway.url, path, &body).open());
        gateway.waiting.wait_for(|count| *count == jobs).await.expect("an agent");
        drop(asked);
        gateway.waiting.wait_for(|count| *count == 0).await.expect("an agent");
    }
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_to_a_model_or_to_a_capability() {
    let oracles = [("talker", "text.generation"), ("coder", "code.generation.python")];
    let gateway = Gateway::hosting(&oracles, false).await;
    let answered = |model: &str, more: Value| {
        let response = gateway.chat("x", &with(json!({ "model": model }), &more));
        assert_eq!(response.status, 200, "{response:?}");
        provided(&gateway, &response)
    };
    assert_eq!(answered("talker", json!({})), "text.generation");
    assert_eq!(
        answered("coder", json!({})),
        "code.generation.python",
        "a model goes with what it is offered for"
    );
    let digest = crypto::Digest::of_content(b"coder").to_string();
    assert_eq!(answered(&digest, json!({})), "code.generation.python");
    assert_eq!(answered("cap:code.generation", json!({})), "code.generation");
    assert_eq!(answered("auto", json!({})), "text.generation", "without an embedder");
    assert_eq!(answered("auto", json!({ "llamesh": { "capability": "code" } })), "code");
    let options =
        json!({ "provider": gateway.node.handle().id(), "deadline": 30, "max_price": 5, "auction": false });
    assert_eq!(answered("auto", json!({ "llamesh": options })), "text.generation");
    let elsewhere = crypto::SecretKey::from_seed(&[9; 32]).peer_id();
    let headed = Request::post(&gateway.url, "/v1/chat/completions", &chat_body("x"));
    let headed = headed.with("x-llamesh-provider", &elsewhere.to_string()).with("x-llamesh-deadline", "2");
    assert!(send(headed).status >= 500);
    let both = json!({ "model": "cap:code", "llamesh": { "capability": "text" } });
    assert_eq!(error(&gateway.chat("x", &both)), wrong(400, "invalid_request", "model"));
    gateway.node.stop().await.expect("an end in order");
}

/// Which capability the reply's job was for.
fn provided(gateway: &Gateway, response: &Response) -> String {
    let job = response.header("x-request-id").expect("a job").to_owned();
    let jobs = send(Request::get(&gateway.url, "/control/jobs")).json();
    let view =
        jobs.as_array().expect("jobs").iter().find(|view| view["job"] == job).expect("the job").clone();
    text(&view["capability"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_capability_closest_to_the_prompt_is_chosen_here() {
    let oracles = [("talker", "text.generation"), ("coder", "code.generation.python")];
    let gateway = Gateway::hosting(&oracles, true).await;
    let chosen = |prompt: &str| {
        let response = gateway.chat(prompt, &json!({}));
        let chosen = response.json()["llamesh"]["chosen"].clone();
        assert!(chosen["why"].is_string() && chosen["closeness"].is_number(), "{response:?}");
        assert_eq!(provided(&gateway, &response), text(&chosen["capability"]));
        text(&chosen["capability"])
    };
    assert_eq!(chosen("some code that sorts"), "code.generation.python");
    assert_eq!(chosen("a text about otters"), "text.generation");
    let streamed = gateway.chat("code", &json!({ "stream": true }));
    let last = chunks(&streamed).pop().expect("a chunk");
    assert_eq!(last["llamesh"]["chosen"]["capability"], "code.generation.python");
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mesh_tells_a_model_s_tokens() {
    let gateway = Gateway::up().await;
    let cut = gateway.post("/tokenize", &json!({ "model": "oracle", "prompt": "to be or" })).json();
    assert_eq!((&cut["tokens"], &cut["count"]), (&json!([0, 1, 2]), &json!(3)));
    let unnamed =
        gateway.post("/tokenize", &json!({ "prompt": "to be", "add_special_tokens": false })).json();
    assert_eq!(unnamed["tokens"], json!([0, 1]));
    assert_eq!(gateway.post("/detokenize", &json!({ "tokens": [7, 8] })).json()["prompt"], "<7><8>");
    assert_eq!(gateway.post("/detokenize", &json!({ "tokens": [] })).json()["prompt"], "");
    let info = send(Request::get(&gateway.url, "/tokenizer_info"));
    assert_eq!(error(&info), wrong(400, "unsupported", "model"));
    let unknown = gateway.post("/tokenize", &json!({ "model": "none", "prompt": "x" }));
    assert_eq!(error(&unknown), wrong(404, "model_not_found", "model"));
    let health = send(Request::get(&gateway.url, "/health"));
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("ok")));
    gateway.node.stop().await.expect("an end in order");
}
