//! Keys: who is let in from where, what a key may do and at whose cost, and that nothing of it is forgotten.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::http::{Request, Response};
use crate::support::{ANYWHERE, Home, Peer, text};

const CHAT: &str = "/v1/chat/completions";

fn question(max_tokens: u32) -> Value {
    json!({ "model": "auto", "messages": [{ "role": "user", "content": "one two three" }],
            "max_tokens": max_tokens })
}

/// A key's id and token.
fn create(peer: &Peer, args: &[&str]) -> (String, String) {
    let made = peer.run(&[&["keys", "create", "somebody"], args].concat());
    let made = made.document();
    (text(&made["id"]), text(&made["token"]))
}

fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, &response.json()["error"]["code"]), (status, &json!(code)), "{response:?}");
    assert!(!text(&response.json()["error"]["message"]).is_empty());
}

#[test]
fn on_loopback_nobody_needs_a_key_until_there_is_one() {
    let peer = Peer::up(&["--engine", "echo"]);
    let models = || Request::get(&peer.api(), "/v1/models");
    assert_eq!(models().send().status, 200);
    assert_eq!(models().by("sk-whatever").send().status, 200, "clients send what they have");
    let (id, token) = create(&peer, &[]);
    refused(&models().send(), 401, "invalid_api_key");
    assert_eq!(models().send().header("www-authenticate"), Some("Bearer"));
    refused(&models().by("sk-whatever").send(), 401, "invalid_api_key");
    refused(&models().by(&token[..token.len() - 1]).send(), 401, "invalid_api_key");
    refused(&Request::get(&peer.api(), "/nowhere").send(), 401, "invalid_api_key");
    assert_eq!(models().by(&token).send().status, 200);
    let health = Request::get(&peer.api(), "/health").with("host", "whatever").send();
    assert_eq!((health.status, health.json()), (200, json!({ "status": "ok" })));

    // The owner's own commands go on as before; a key is not the owner.
    assert_eq!(peer.submit(&["x"]).answer(), "x");
    refused(&Request::get(&peer.api(), "/control/jobs").by(&token).send(), 403, "owner_only");
    let mut stranger = Home::new().command(&["jobs", "--api", &peer.api()]);
    stranger.env("LLAMESH_TOKEN", &token);
    Home::new().spawn(stranger).finish().refused(3, &["owner"]);

    peer.run(&["keys", "revoke", &id]).document();
    refused(&models().by(&token).send(), 401, "invalid_api_key");
    let peer = peer.stop().up(&["--engine", "echo"]);
    let after = Request::get(&peer.api(), "/v1/models");
    refused(&after.send(), 401, "invalid_api_key");
}

#[test]
fn elsewhere_everybody_needs_a_token_from_the_start() {
    let home = Home::new();
    let command = home.command(&[
        "up",
        "--listen",
        ANYWHERE,
        "--engine",
        "echo",
        "--api",
        "0.0.0.0:0",
        "--api-name",
        "mesh.example",
    ]);
    let peer = Peer::of(home, command);
    let file = peer.home.data().join("token");
    let token = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(peer.process.stderr().contains(&token), "shown once");
    let status = || Request::get(&peer.api(), "/control/status");
    refused(&status().send(), 401, "invalid_api_key");
    assert_eq!(status().by(&token).send().status, 200);
    assert_eq!(status().by(&token).with("host", "mesh.example").send().status, 200);
    refused(&status().by(&token).with("host", "evil.example").send(), 403, "forbidden");
    refused(&status().by(&token).with("origin", "http://evil.example").send(), 403, "forbidden");
    assert_eq!(peer.submit(&["x"]).answer(), "x");

    let home = peer.stop();
    let command = home.command(&["up", "--listen", ANYWHERE, "--engine", "echo", "--api", "0.0.0.0:0"]);
    let peer = Peer::of(home, command);
    assert!(!peer.process.stderr().contains(&token), "but once only");
}

#[test]
fn a_key_spends_what_it_may_and_no_kill_gives_it_back() {
    let provider = Peer::up(&["--engine", "echo", "--price-completion", "1000000"]);
    let mut gateway = Peer::join(&provider, &["--model", "-"]);
    let (_, free) = create(&gateway, &[]);
    let (_, rich) = create(&gateway, &["--spend", "5000", "--per-job", "4000"]);
    let ask =
        |gateway: &Peer, token: &str| Request::post(&gateway.api(), CHAT, &question(3)).by(token).send();
    refused(&ask(&gateway, &free), 400, "limit");
    // Three tokens cost 3000.
    assert_eq!(ask(&gateway, &rich).status, 200);
    let spent = |gateway: &Peer| gateway.run(&["keys", "list"]).document()["keys"][1]["spent"].clone();
    assert_eq!(spent(&gateway), 3000);
    gateway.kill();
    let gateway = gateway.home.up(&["--model", "-", "--bootstrap", &provider.address()]);
    assert_eq!(spent(&gateway), 3000);
    // What is left holds no answer of three tokens at its longest, but one of a single token.
    refused(&ask(&gateway, &rich), 400, "limit");
    let mut body = question(1);
    body["stream"] = json!(true);
    let streamed = Request::post(&gateway.api(), CHAT, &body).by(&rich).send();
    assert_eq!(streamed.events().last().map(String::as_str), Some("[DONE]"));
    assert_eq!(spent(&gateway), 4000);
    let (_, poor) = create(&gateway, &["--spend", "0"]);
    refused(&ask(&gateway, &poor), 429, "insufficient_quota");
}

#[test]
fn a_key_asks_as_often_and_for_what_it_may() {
    let peer = Peer::up(&["--engine", "echo"]);
    let ask = |token: &str| Request::post(&peer.api(), CHAT, &question(3)).by(token).send();
    let (_, vectors) = create(&peer, &["--capability", "text.embedding"]);
    refused(&ask(&vectors), 403, "capability_not_allowed");
    let (_, slow) = create(&peer, &["--requests-per-minute", "1"]);
    assert_eq!(ask(&slow).status, 200);
    let second = ask(&slow);
    refused(&second, 429, "rate_limit_exceeded");
    let retry: u64 = second.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry), "{retry}");
    let (_, over) = create(&peer, &["--expires-in", "0s"]);
    refused(&ask(&over), 401, "invalid_api_key");
}

#[test]
fn keys_are_made_where_no_peer_runs_too() {
    let home = Home::new();
    let made = home.run(&["keys", "create", "early", "--spend-per-day", "7"]);
    let (id, token) = (text(&made.document()["id"]), text(&made.document()["token"]));
    let list = home.run(&["keys", "list"]);
    let key = &list.document()["keys"][0];
    assert_eq!((&key["id"], &key["limits"]["spend_per_day"]), (&json!(id), &json!(7)));
    assert!(!list.stdout.contains(&token));
    let peer = home.up(&["--engine", "echo"]);
    assert_eq!(Request::get(&peer.api(), "/v1/models").by(&token).send().status, 200);
    refused(&Request::get(&peer.api(), "/v1/models").send(), 401, "invalid_api_key");
    peer.run(&["keys", "revoke", "00000000"]).refused(3, &["00000000", "keys list"]);
    peer.run(&["keys", "create", ""]).refused(3, &["name"]);
}
