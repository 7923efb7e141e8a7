//! The local HTTP API: what programs that know OpenAI find there, and who is turned away.

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::{Home, Peer, text, tiny};

#[test]
fn models_are_listed_as_openai_does() {
    let home = Home::new();
    let model = tiny(&home);
    let provider = home.up(&["--model", &model]);
    let gateway = Peer::join(&provider, &["--model", "-"]);
    let models = Request::get(&gateway.api(), "/v1/models").send();
    assert_eq!(models.status, 200);
    let models = models.json();
    assert_eq!((&models["object"], &models["data"][0]["object"]), (&json!("list"), &json!("model")));
    let name = text(&models["data"][0]["id"]);
    let one = Request::get(&gateway.api(), &format!("/v1/models/{name}")).send();
    assert_eq!((one.status, &one.json()["id"]), (200, &json!(name)));
    let none = Request::get(&gateway.api(), "/v1/models/none").send();
    assert_eq!((none.status, &none.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[test]
fn chat_completions_are_answered_by_the_mesh() {
    let home = Home::new();
    let model = tiny(&home);
    let provider = home.up(&["--model", &model]);
    let gateway = Peer::join(&provider, &["--model", "-"]);
    let mut body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "Hello" }],
        "max_tokens": 12, "temperature": 0.9, "seed": 5 });
    let whole = Request::post(&gateway.api(), "/v1/chat/completions", &body).send();
    assert_eq!(whole.status, 200, "{whole:?}");
    let whole = whole.json();
    assert_eq!((&whole["object"], &whole["model"]), (&json!("chat.completion"), &json!("tiny")));
    assert_eq!(whole["choices"][0]["message"]["role"], "assistant");
    assert_eq!(whole["llamesh"]["provider"], provider.id());
    let usage = &whole["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(count("prompt_tokens") + count("completion_tokens"), count("total_tokens"));
    let receipt =
        gateway.run(&["verify", "--replay", "--model", &model, &text(&whole["llamesh"]["receipt"])]);
    assert_eq!(receipt.document()["verdict"], "exact");

    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let events = Request::post(&gateway.api(), "/v1/chat/completions", &body).send().events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let streamed: String =
        chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(whole["choices"][0]["message"]["content"], streamed, "the seed makes the answer");
    let finishes: Vec<_> = chunks.iter().filter_map(|c| c["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(finishes, [whole["choices"][0]["finish_reason"].as_str().unwrap()]);
    assert_eq!(&chunks.last().unwrap()["usage"], usage);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["object"] == "chat.completion.chunk")
    );
}

#[test]
fn a_model_s_tokens_are_told_by_its_host_and_through_the_mesh() {
    let home = Home::new();
    let model = tiny(&home);
    let provider = home.up(&["--model", &model]);
    let gateway = Peer::join(&provider, &["--model", "-"]);
    let ask = |peer: &Peer, path: &str, body: &Value| Request::post(&peer.api(), path, body).send();
    let text = "Hello otter";
    let here = ask(&provider, "/tokenize", &json!({ "prompt": text, "add_special_tokens": false })).json();
    let tokens = here["tokens"].clone();
    assert_eq!(here["count"], tokens.as_array().unwrap().len());
    let named = json!({ "model": "tiny", "prompt": text, "add_special_tokens": false });
    assert_eq!(ask(&gateway, "/tokenize", &named).json()["tokens"], tokens, "a provider tells the same");
    for peer in [&provider, &gateway] {
        let told = ask(peer, "/detokenize", &json!({ "model": "tiny", "tokens": tokens })).json();
        assert_eq!(told["prompt"], text);
    }
    let info = Request::get(&provider.api(), "/tokenizer_info?model=tiny").send();
    assert!(info.status == 200 && info.json()["chat_template"].is_string(), "{info:?}");
    assert_eq!(Request::get(&gateway.api(), "/tokenizer_info").send().status, 400);
}

#[test]
fn openai_errors_have_openai_s_shape() {
    let peer = Peer::up(&["--engine", "echo"]);
    let messages = json!([{ "role": "user", "content": "x" }]);
    let chat = |body: &Value| Request::post(&peer.api(), "/v1/chat/completions", body);
    let cases = [
        (chat(&json!({ "model": "auto" })), 400, "invalid_request"),
        (chat(&json!(null)).body("{"), 400, "invalid_request"),
        (chat(&json!({ "model": "auto", "messages": [] })), 400, "invalid"),
        (chat(&json!({ "model": "nonsense", "messages": messages })), 404, "model_not_found"),
        (chat(&json!({ "model": "auto", "messages": messages, "n": 17 })), 400, "invalid_request"),
        (chat(&json!({ "model": "auto", "messages": messages, "logprobs": true })), 400, "unsupported"),
        (
            chat(
                &json!({ "model": "auto", "messages": messages, "response_format": { "type": "json_object" } }),
            ),
            400,
            "unsupported",
        ),
        (
            chat(&json!({ "model": "auto", "messages": messages,
                "tools": [{ "type": "function", "function": { "name": "f" } }] })),
            400,
            "unsupported",
        ),
        (chat(&json!({ "model": "auto", "messages": messages, "temperature": -1 })), 400, "invalid"),
        (
            chat(&json!({ "model": "auto", "messages": [{ "role": "cat", "content": "x" }] })),
            400,
            "invalid_request",
        ),
        (Request::get(&peer.api(), "/v1/embeddings"), 405, "method_not_allowed"),
        (Request::get(&peer.api(), "/v1/nothing"), 404, "not_found"),
    ];
    for (request, status, code) in cases {
        let what = format!("{request:?}");
        let response = request.send();
        assert_eq!(response.status, status, "{what}: {response:?}");
        let error = &response.json()["error"];
        assert_eq!(
            (&error["code"], &error["type"]),
            (&json!(code), &json!("invalid_request_error")),
            "{what}"
        );
        assert!(!text(&error["message"]).is_empty() && error.as_object().unwrap().contains_key("param"));
    }
    let lone = Peer::up(&["--model", "-"]);
    let response =
        Request::post(&lone.api(), "/v1/chat/completions", &json!({ "model": "auto", "messages": messages }));
    let response = response.send();
    assert_eq!((response.status, &response.json()["error"]["code"]), (503, &json!("nothing_offered")));
}

#[test]
fn the_api_is_for_this_machine_and_its_own_pages() {
    let peer = Peer::up(&["--engine", "echo"]);
    let ask = || Request::get(&peer.api(), "/control/status");
    let port = peer.api().rsplit(':').next().unwrap().to_owned();
    assert_eq!(ask().send().status, 200);
    assert_eq!(ask().with("host", &format!("localhost:{port}")).send().status, 200);
    assert_eq!(ask().with("origin", &peer.api()).send().status, 200);
    for (name, value) in [
        ("host", format!("rebound.example:{port}")),
        ("host", "127.0.0.1:1".to_owned()),
        ("origin", "https://page.example".to_owned()),
        ("origin", "null".to_owned()),
    ] {
        assert_eq!(ask().with(name, &value).send().status, 403, "{name}: {value}");
    }
    let page =
        Request::post(&peer.api(), "/v1/chat/completions", &json!({})).with("origin", "http://page.example");
    assert_eq!(page.send().status, 403);
}
