//! An agent elsewhere, lent to the mesh by one peer and asked by another.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

use super::harness::read;
use crate::support::http::Request;
use crate::support::{ANYWHERE, Home, Peer, text};

/// A peer that lends the agent at an address.
fn lender(url: &str) -> Peer {
    let home = Home::new();
    fs::create_dir(home.data()).expect("an empty home");
    let agent = format!(
        "[[agent]]\ncapability = \"text.elsewhere\"\na2a = {{ url = \"{url}\", key_env = \"AGENT_KEY\" }}\n"
    );
    fs::write(home.data().join("llamesh.toml"), agent).expect("a folder that can be written");
    let mut up = home.command(&["up", "--listen", ANYWHERE, "--api", "127.0.0.1:0"]);
    up.env("AGENT_KEY", "key");
    Peer::of(home, up)
}

const ASK: [&str; 3] = ["--capability", "text.elsewhere", "one two three"];

#[test]
fn an_agent_elsewhere_answers_for_the_mesh() {
    let elsewhere = Peer::up(&["--engine", "echo"]);
    let lender = lender(&elsewhere.api());
    let asker = Peer::join(&lender, &["--model", "-"]);
    let outcome = asker.submit(&ASK);
    assert_eq!(outcome.answer(), "one two three");
    assert_eq!(text(&outcome.done()["provider"]), lender.id());
    let file = text(&outcome.done()["receipt_file"]);
    assert_eq!(asker.run(&["verify", "--replay", &file]).code, 8, "unverifiable");
    let cut = asker.submit(&[&ASK[..], &["--max-tokens", "1"]].concat());
    assert!(!cut.answer().is_empty());
}

#[test]
fn a_job_that_is_taken_back_is_taken_back_elsewhere() {
    let elsewhere = Peer::up(&["--engine", "echo:5"]);
    let lender = lender(&elsewhere.api());
    let asker = Peer::join(&lender, &["--model", "-"]);
    let mut asking = asker.home.start(&[&["submit", "--max-tokens", "10000"], &ASK[..]].concat());
    let job = text(&asking.until("started")["job"]);
    asking.until("token");
    asker.run(&["cancel", &job]);
    let tasks = || {
        let list = Request::get(&elsewhere.api(), "/a2a/tasks").with("a2a-version", "1.0").send();
        list.json()["tasks"][0]["status"]["state"].clone()
    };
    // Each look is a request of its own; the task is over within a few.
    let looks = (0..10_000).take_while(|_| tasks() == "TASK_STATE_WORKING").count();
    assert_eq!(tasks(), "TASK_STATE_CANCELED", "after {looks} looks");
}

/// An agent that neither streams nor speaks JSON-RPC: it says it is at work, and is done when somebody looks.
fn slow() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let base = url.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Some((head, body)) = read(&stream) else { continue };
            let (status, answer) = answer(&base, &head, &body);
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/a2a+json\r\ncontent-length: {}\r\nconnection: close",
                answer.len()
            );
            let _ = (&stream).write_all(format!("{head}\r\n\r\n{answer}").as_bytes());
        }
    });
    url
}

fn answer(base: &str, head: &str, body: &Value) -> (&'static str, String) {
    let task = |state: &str, artifacts: Value| json!({ "id": "a/1", "contextId": "c", "status": { "state": state }, "artifacts": artifacts });
    if !head.contains("authorization: bearer key\r\n") {
        return ("401 Unauthorized", String::new());
    }
    let answer = match head.split(' ').nth(1) {
        Some("/.well-known/agent-card.json") => {
            let interface = json!({ "url": format!("{base}/x"), "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0" });
            json!({ "name": "slow", "supportedInterfaces": [interface], "capabilities": {} })
        }
        Some("/x/message:send") => {
            assert_eq!(body["message"]["parts"][0]["text"], "one two three");
            json!({ "task": task("TASK_STATE_WORKING", json!([])) })
        }
        Some("/x/tasks/a%2f1") => {
            task("TASK_STATE_COMPLETED", json!([{ "artifactId": "b", "parts": [{ "text": "at last" }] }]))
        }
        _ => return ("404 Not Found", String::new()),
    };
    ("200 OK", answer.to_string())
}

#[test]
fn an_agent_that_does_not_stream_is_looked_at_until_it_is_done() {
    let lender = lender(&slow());
    assert_eq!(lender.submit(&ASK).answer(), "at last");
}

#[test]
fn an_agent_that_is_not_there_is_said_so() {
    let home = Home::new();
    fs::create_dir(home.data()).expect("an empty home");
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let agent =
        format!("[[agent]]\ncapability = \"text.elsewhere\"\na2a = {{ url = \"http://{nobody}\" }}\n");
    fs::write(home.data().join("llamesh.toml"), agent).expect("a folder that can be written");
    let outcome = home.run(&["up", "--listen", ANYWHERE, "--api", "127.0.0.1:0"]);
    outcome.refused(2, &["the agent at http://", "cannot be reached"]);
}
