//! What people watch, as programs see it: the live stream, receipts and their verdicts, runs of plans, models; and the terminal.

#![expect(clippy::unwrap_used, reason = "a test that cannot read what it asked for has failed")]

use std::io::{BufRead, BufReader};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::{Home, LIMIT, Peer, Process, at_a_terminal, shown, text};

/// A reader of the live stream.
struct Live(BufReader<TcpStream>);

impl Live {
    fn of(peer: &Peer) -> Self {
        Self(BufReader::new(Request::get(&peer.api(), "/control/live").open()))
    }

    fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    /// The next update in which something holds.
    fn until(&mut self, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let update = self.next();
            if holds(&update) {
                return update;
            }
        }
    }
}

fn job<'a>(update: &'a Value, state: &str) -> Option<&'a Value> {
    update["jobs"]["set"].as_object()?.values().find(|job| job["state"] == state)
}

#[test]
fn the_live_stream_is_whole_at_first_and_tells_what_changes_then() {
    let provider = Peer::up(&["--engine", "echo:50"]);
    let requester = Peer::join(&provider, &["--model", "-"]);
    let mut live = Live::of(&requester);
    let whole = live.next();
    assert_eq!((&whole["whole"], &whole["status"]["peer"]), (&json!(true), &json!(requester.id())));
    let met = |update: &Value| update["peers"]["set"][provider.id()]["connected"] == true;
    if !met(&whole) {
        live.until(met);
    }
    let submitting = requester.home.start(&["submit", "word ", "--max-tokens", "50"]);
    let running = live.until(|update| job(update, "running").is_some());
    assert!(running["whole"] == false && running.get("plans").is_none(), "only what has changed: {running}");
    let counts = |update: &Value| job(update, "running").is_some_and(|job| job["tokens"].as_u64() > Some(5));
    live.until(counts);
    live.until(|update| job(update, "done").is_some());
    submitting.finish().done();

    let plan = requester.home.file("plan.toml");
    std::fs::write(&plan, "goal = 'greet'\n[nodes.a.generate]\nprompt = 'good morning '\nmax_tokens = 2")
        .unwrap();
    requester.run(&["plan", "run", &shown(&plan)]).done();
    let named = |update: &Value| {
        let runs = update["plans"]["set"].as_object()?;
        runs.values().find(|run| run["state"] == "done").cloned()
    };
    let run = named(&live.until(|update| named(update).is_some())).unwrap();
    assert_eq!((&run["goal"], &run["outcomes"]), (&json!("greet"), &json!(1)));
    assert_eq!((&run["output"], &run["nodes"]["a"]["settled"]), (&json!("good morning "), &json!(true)));
    let listed = Request::get(&requester.api(), "/control/plans").send().json();
    assert_eq!(listed[0], run);
}

#[test]
fn receipts_are_listed_checked_and_replayed() {
    let peer = Peer::up(&["--engine", "echo"]);
    let receipts = || Request::get(&peer.api(), "/control/receipts").send().json();
    assert_eq!(receipts(), json!({ "receipts": [], "of": 0 }));
    let receipt = text(&peer.submit(&["hello"]).done()["receipt"]);
    let listed = receipts();
    assert_eq!((&listed["of"], &listed["receipts"][0]["receipt"]), (&json!(1), &json!(receipt)));
    assert_eq!(listed["receipts"][0]["view"]["provider"], peer.id());

    let verify = |how: &str| {
        let path = format!("/control/receipts/{receipt}/verify{how}");
        Request::post(&peer.api(), &path, &json!(null)).send().json()["verdict"].clone()
    };
    assert_eq!((verify(""), verify("?replay=true")), (json!("signed"), json!("unverifiable")));
    let file = peer.home.data().join("receipts").join(format!("{receipt}.json"));
    let kept = Request::get(&peer.api(), &format!("/control/receipts/{receipt}")).send();
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(kept.body, written);
    std::fs::write(&file, written.replace("hello", "jello")).unwrap();
    assert_eq!(verify(""), "refuted");
    assert!(receipts()["receipts"][0]["problem"].is_string());
    for none in ["00", "..%2Fkey", &"0".repeat(64)] {
        let missing = Request::get(&peer.api(), &format!("/control/receipts/{none}")).send();
        assert_eq!(missing.status, 404, "{none}");
    }
}

#[test]
fn a_pull_is_told_of_to_its_end() {
    // Without a network and without models nothing can be had.
    let peer = Peer::up(&["--engine", "echo"]);
    let models = Request::get(&peer.api(), "/control/models").send().json();
    let known = models.as_array().unwrap().iter().find(|model| model["name"] == "smollm2").unwrap();
    assert_eq!(known["present"], false);
    let mut live = Live::of(&peer);
    live.next();
    let pull =
        |model: &str| Request::post(&peer.api(), "/control/models/pull", &json!({ "model": model })).send();
    assert_eq!(pull("smollm2").status, 202);
    let failed = live.until(|update| !update["pulls"]["set"]["smollm2"]["ended"].is_null());
    assert!(text(&failed["pulls"]["set"]["smollm2"]["ended"]["failed"]).contains("smollm2"), "{failed}");
    assert_eq!(pull("").status, 400);
}

#[test]
fn the_page_is_there_without_a_token_and_nothing_else_is() {
    let peer = Peer::up(&["--engine", "echo"]);
    peer.run(&["keys", "create", "somebody"]).document();
    let page = Request::get(&peer.api(), "/").send();
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    let tag = page.header("etag").unwrap().to_owned();
    assert_eq!(Request::get(&peer.api(), "/").with("if-none-match", &tag).send().status, 304);
    assert_eq!(Request::get(&peer.api(), "/console/app.js").send().status, 200);
    for path in ["/control/live", "/control/receipts", "/control/models", "/control/plans"] {
        assert_eq!(Request::get(&peer.api(), path).send().status, 401, "{path}");
    }
}

#[test]
fn top_takes_a_terminal_and_gives_it_back() {
    let peer = Peer::up(&["--engine", "echo"]);
    peer.run(&["top"]).refused(2, &["terminal", "llamesh jobs --json"]);
    let mut command = at_a_terminal(&peer.home.bare(&["top", "--data-dir", &shown(&peer.home.data())]));
    command.env("TERM", "xterm");
    let mut process = Process::start(command, LIMIT);
    process.feed("\tq");
    let outcome = process.finish();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let (taken, given) = (outcome.stdout.find("\x1b[?1049h"), outcome.stdout.rfind("\x1b[?1049l"));
    assert!(taken.is_some() && given > taken, "{:?}", outcome.stdout);
}

#[test]
fn what_a_peer_of_the_moment_cannot_show_is_said() {
    let home = Home::new();
    home.run(&["top"]).refused(2, &["terminal"]);
}
