//! Vectors through the mesh, with an embedder that means nothing: hosted, asked, replayed, and refused where it does not
//! fit.

use std::fs;

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::{ANYWHERE, Home, Peer, shown, text, tiny};

/// A tiny embedder without meaning, in a folder.
fn tiny_embedder(home: &Home) -> String {
    let folder = home.file("tiny-embedder");
    inference::embedding::tiny::write_tiny(&folder, 7).expect("a folder that can be written");
    shown(&folder)
}

#[test]
fn a_text_becomes_a_vector_whose_receipt_replays() {
    let home = Home::new();
    let model = tiny_embedder(&home);
    let provider = home.up(&["--model", &model]);
    let requester = Peer::join(&provider, &["--model", "-"]);
    let embed = |words: &str| requester.submit(&[words, "--capability", "text.embedding"]);

    let outcome = embed("an otter");
    let done = outcome.done();
    let vector: Vec<f64> = serde_json::from_str(&text(&done["text"])).unwrap();
    assert_eq!(vector.len(), 16);
    assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5, "{vector:?}");
    assert_eq!(done["finish"], "end_of_text");
    // One token for each letter, and two of the model's own.
    assert_eq!(done["usage"], json!({ "prompt_tokens": 9, "completion_tokens": 1 }));
    assert_eq!(outcome.one("token")["id"], Value::Null);
    assert_eq!(embed("an otter").done()["text"], done["text"]);
    assert_ne!(embed("a stone").done()["text"], done["text"]);

    let file = text(&done["receipt_file"]);
    assert_eq!(requester.run(&["verify", &file]).document()["verdict"], "signed");
    let verdict = requester.run(&["verify", "--replay", "--model", &model, &file]);
    assert_eq!(verdict.document()["verdict"], "consistent", "{verdict:?}");
    let unknown = requester.run(&["verify", "--replay", &file]);
    assert_eq!((unknown.code, &unknown.lines[0]["verdict"]), (8, &json!("unverifiable")), "{unknown:?}");

    let found = requester.run(&["find", "text.embedding"]);
    let offered = &found.document()["providers"][0]["profile"]["agents"][0];
    assert_eq!(offered["capability"], "text.embedding");
    assert_eq!(
        (&offered["model"]["name"], &offered["model"]["manifest"]),
        (&json!("tiny-embedder"), &json!(true))
    );
    requester.submit(&["x", "--capability", "text.embedding", "--system", "y"]).refused(3, &["one text"]);
}

/// What only exact inference can do: prove a vector.
#[test]
fn a_language_model_s_vector_replays_exactly() {
    let home = Home::new();
    let model = tiny(&home);
    let provider = home.up(&["--model", &model, "--capability", "text.embedding.english"]);
    let requester = Peer::join(&provider, &["--model", "-"]);
    let outcome = requester.submit(&["an otter", "--capability", "text.embedding"]);
    let done = outcome.done();
    let vector: Vec<f64> = serde_json::from_str(&text(&done["text"])).unwrap();
    assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5, "{vector:?}");
    let file = text(&done["receipt_file"]);
    let replayed = requester.run(&["verify", "--replay", "--model", &model, &file]);
    let verdict = replayed.document();
    assert_eq!((&verdict["verdict"], &verdict["of"]), (&json!("exact"), &json!(vector.len())), "{verdict}");
    provider.submit(&["an otter"]).refused(4, &["text.embedding"]);
}

#[test]
fn openai_s_clients_get_the_same_vectors() {
    let home = Home::new();
    let model = tiny_embedder(&home);
    let provider = home.up(&["--model", &model]);
    let gateway = Peer::join(&provider, &["--model", "-"]);
    let embed = |input: Value| {
        let body = json!({ "model": "tiny-embedder", "input": input });
        Request::post(&gateway.api(), "/v1/embeddings", &body).send()
    };
    let submitted = gateway.submit(&["an otter", "--capability", "text.embedding"]);
    let vector: Value = serde_json::from_str(&text(&submitted.done()["text"])).unwrap();
    let response = embed(json!(["a stone", "an otter"]));
    let whole = response.json();
    assert_eq!(whole["data"][1]["embedding"], vector, "{response:?}");
    assert_ne!(whole["data"][0]["embedding"], vector);
    assert_eq!(whole["usage"]["prompt_tokens"], 8 + 9);
    let ids = embed(json!([[2, 5, 6, 3]])).json();
    assert_eq!(ids["usage"]["prompt_tokens"], 4);
    assert_eq!(embed(json!([4_000_000_000_u32])).status, 400);
    // What the headers name, the peer can check.
    let receipts = [response.header("x-llamesh-receipt").unwrap().split(", ").next().unwrap().to_owned()];
    for receipt in receipts.into_iter().chain([text(&ids["llamesh"]["receipt"])]) {
        let verdict = gateway.run(&["verify", "--replay", "--model", &model, &receipt]);
        assert_eq!(verdict.document()["verdict"], "consistent", "{verdict:?}");
    }
}

#[test]
fn who_asks_for_words_gets_no_numbers() {
    let home = Home::new();
    let model = tiny_embedder(&home);
    let provider = home.up(&["--model", &model]);
    // An ancestor finds the embedder, which takes no such job.
    provider.submit(&["x", "--capability", "text"]).refused(3, &["unsupported: JobKind"]);
    provider.submit(&["x"]).refused(4, &["text.embedding"]);
    let body = json!({ "model": "tiny-embedder", "messages": [{ "role": "user", "content": "x" }] });
    let response = Request::post(&provider.api(), "/v1/chat/completions", &body).send();
    assert_eq!(response.json()["error"]["code"], "model_not_found", "{response:?}");
}

#[test]
fn several_agents_of_the_file_may_share_a_peer() {
    let home = Home::new();
    let (embedder, model) = (tiny_embedder(&home), tiny(&home));
    fs::create_dir(home.data()).unwrap();
    let settings = format!(
        "[[agent]]\ncapability = \"text.embedding\"\nmodel = \"{embedder}\"\n\
         [[agent]]\ncapability = \"text.generation\"\nmodel = \"{model}\"\n"
    );
    fs::write(home.data().join("llamesh.toml"), settings).unwrap();
    let peer = home.up(&[]);
    assert!(peer.submit(&["x", "--max-tokens", "2"]).done()["usage"]["completion_tokens"].is_u64());
    let vector = peer.submit(&["x", "--capability", "text.embedding"]);
    assert!(text(&vector.done()["text"]).starts_with('['), "{vector:?}");
}

#[test]
fn an_embedder_that_does_not_fit_is_refused_at_the_start() {
    let home = Home::new();
    let embedder = tiny_embedder(&home);
    let up =
        |args: &[&str]| home.run(&[&["up", "--listen", ANYWHERE, "--api", "127.0.0.1:0"], args].concat());
    up(&["--model", &embedder, "--capability", "text.generation"]).refused(2, &["text.embedding"]);
    up(&["--engine", "echo", "--capability", "text.embedding"]).refused(2, &["text.embedding"]);
    home.run(&["demo", "--model", &embedder]).refused(10, &["makes vectors"]);

    let config = home.file("config.toml");
    let settings = format!(
        "[[agent]]\ncapability = \"text.embedding\"\nmodel = \"{embedder}\"\nsystem = \"Be brief.\"\n"
    );
    fs::write(&config, settings).unwrap();
    up(&["--config", &shown(&config)]).refused(2, &["system prompt"]);
    fs::remove_file(home.file("tiny-embedder").join("tokenizer.json")).unwrap();
    up(&["--model", &embedder]).refused(10, &["tokenizer.json"]);
    fs::write(home.file("tiny-embedder").join("tokenizer.json"), "{}").unwrap();
    up(&["--model", &embedder]).refused(10, &["tiny-embedder", "inconsistent"]);
}
