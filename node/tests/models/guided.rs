//! Forms, likelihoods and choices through the mesh, computed by a model: what was ordered holds, and a replay knows it.

use std::fs;

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::{Home, Peer, shown, text, tiny};

const SCHEMA: &str = r#"{"type":"object","properties":{"ok":{"type":"boolean"},"n":{"type":"integer","maximum":99}},"required":["ok","n"],"additionalProperties":false}"#;

/// A peer with the tiny model, one without any, and where the model's file is.
fn mesh() -> (Peer, Peer, String) {
    let home = Home::new();
    let model = tiny(&home);
    let provider = home.up(&["--model", &model]);
    let requester = Peer::join(&provider, &["--model", "-"]);
    (provider, requester, model)
}

#[test]
fn an_answer_keeps_to_its_schema_and_the_receipt_says_so() {
    let (_provider, requester, model) = mesh();
    let order = ["go on", "--schema", SCHEMA, "--max-tokens", "60", "--temperature", "1", "--seed", "3"];
    let outcome = requester.submit(&order);
    let answer: Value = serde_json::from_str(&outcome.answer()).unwrap();
    assert!(answer["ok"].is_boolean() && answer["n"].is_i64(), "{outcome:?}");
    assert_eq!(outcome.done()["finish"], "end_of_text");

    let file = text(&outcome.done()["receipt_file"]);
    let replayed = requester.run(&["verify", "--replay", "--model", &model, &file]);
    assert_eq!(replayed.document()["verdict"], "exact", "{replayed:?}");
    let document = fs::read_to_string(&file).unwrap();
    assert!(serde_json::from_str::<Value>(&document).unwrap()["view"]["constraint"].is_string());
    fs::write(&file, document.replace("boolean", "integer")).unwrap();
    let bent = requester.run(&["verify", &file]);
    assert_ne!(bent.code, 0, "another schema is not the one that was ordered: {bent:?}");

    let refused = requester.submit(&["go on", "--schema", SCHEMA, "--max-tokens", "3"]);
    refused.refused(3, &["max_tokens"]);
}

#[test]
fn who_may_call_a_tool_calls_it_or_keeps_to_the_schema() {
    let (_provider, requester, model) = mesh();
    let schema = json!({ "name": "n", "schema": serde_json::from_str::<Value>(SCHEMA).unwrap() });
    let function = json!({ "name": "clock", "parameters": { "type": "object", "properties": {}, "additionalProperties": false } });
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..8 {
        let body = json!({ "model": "auto", "messages": [{ "role": "user", "content": "go on" }], "seed": seed, "max_tokens": 120,
                           "tools": [{ "type": "function", "function": function }],
                           "response_format": { "type": "json_schema", "json_schema": schema } });
        let reply = Request::post(&requester.api(), "/v1/chat/completions", &body).send().json();
        let message = &reply["choices"][0]["message"];
        let calls = message["tool_calls"].as_array();
        let called = calls.is_some_and(|calls| calls.iter().all(|call| call["function"]["name"] == "clock"));
        let said = message["content"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        assert!(called != said.is_some_and(|said| said["ok"].is_boolean() && said["n"].is_i64()), "{reply}");
        seen.insert(called);
    }
    assert!(seen.contains(&false), "a model that means nothing does not only call");
    let receipts = fs::read_dir(requester.home.data().join("receipts")).unwrap();
    for file in receipts.map(|file| shown(&file.unwrap().path())) {
        let replayed = requester.run(&["verify", "--replay", "--model", &model, &file]);
        assert_eq!(replayed.document()["verdict"], "exact", "{replayed:?}");
    }
}

#[test]
fn a_text_is_scored_and_the_scores_are_computed_again() {
    let (_provider, requester, model) = mesh();
    let body = json!({ "model": "auto", "prompt": "an otter", "max_tokens": 1, "echo": true, "logprobs": 2, "temperature": 0 });
    let reply = Request::post(&requester.api(), "/v1/completions", &body).send().json();
    let likely = &reply["choices"][0]["logprobs"];
    let numbers = likely["token_logprobs"].as_array().unwrap();
    assert!(numbers.len() > 3 && numbers[0].is_null(), "{reply}");
    assert!(numbers[1..].iter().all(|number| number.as_f64().is_some_and(|number| number < 0.0)), "{reply}");
    assert!(text(&reply["choices"][0]["text"]).starts_with("an otter"), "{reply}");
    // One token has nothing before it, so there is nothing to read and no number; it is a score all the same.
    let body = json!({ "model": "auto", "prompt": "a", "max_tokens": 0, "echo": true, "logprobs": 1 });
    let reply = Request::post(&requester.api(), "/v1/completions", &body).send().json();
    assert_eq!(reply["choices"][0]["logprobs"]["token_logprobs"], json!([null]), "{reply}");

    let receipts = requester.home.data().join("receipts");
    let verdicts: Vec<_> = fs::read_dir(receipts)
        .unwrap()
        .map(|file| shown(&file.unwrap().path()))
        .map(|file| requester.run(&["verify", "--replay", "--model", &model, &file]))
        .map(|outcome| text(&outcome.document()["verdict"]))
        .collect();
    assert!(!verdicts.is_empty() && verdicts.iter().all(|verdict| verdict == "exact"), "{verdicts:?}");
}

#[test]
fn choices_differ_and_bring_log_probabilities() {
    let (_provider, requester, _) = mesh();
    let body = json!({ "model": "auto", "messages": [{ "role": "user", "content": "hello" }], "n": 3, "seed": 1,
                       "max_tokens": 8, "temperature": 1.0, "logprobs": true, "top_logprobs": 2 });
    let reply = Request::post(&requester.api(), "/v1/chat/completions", &body).send().json();
    let choices = reply["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3, "{reply}");
    let said: std::collections::BTreeSet<_> =
        choices.iter().map(|choice| text(&choice["message"]["content"])).collect();
    assert!(said.len() > 1, "{reply}");
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], index);
        for token in choice["logprobs"]["content"].as_array().unwrap() {
            assert!(token["logprob"].as_f64().unwrap() <= 0.0);
            assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
        }
    }
}
