//! Conversations, and the jobs of a peer as people see them: `chat`, `jobs`, `cancel`, `market`.

use std::fs;

use serde_json::Value;

use crate::support::{Home, Peer, text};

/// Two peers that answer with what was said last, and one that asks.
fn mesh() -> (Peer, [Peer; 2]) {
    let requester = Peer::up(&["--model", "-"]);
    let echo = || Peer::join(&requester, &["--engine", "echo"]);
    let providers = [echo(), echo()];
    for provider in &providers {
        requester.submit(&["x", "--provider", &provider.id()]).done();
    }
    (requester, providers)
}

/// Says these lines in a conversation; the last event of each turn.
fn chat(home: &Home, lines: &str, more: &[&str]) -> Vec<Value> {
    let mut process = home.start(&[&["chat"], more].concat());
    process.feed(lines);
    let outcome = process.finish();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    outcome.lines.into_iter().filter(|line| line["event"] == "done" || line["event"] == "error").collect()
}

#[test]
fn a_conversation_stays_with_whoever_read_it_and_survives_that() {
    let (requester, mut providers) = mesh();
    let first = chat(&requester.home, "one\ntwo\n/cost\nthree\n", &[]);
    let said: Vec<_> = first.iter().map(|turn| turn["text"].as_str().expect("an answer")).collect();
    assert_eq!(said, ["one", "two", "three"]);
    let by = first[0]["provider"].clone();
    assert!(first.iter().all(|turn| turn["provider"] == by), "{first:?}");

    // The next day, and the other one is gone.
    let gone = providers.iter().position(|provider| by == provider.id()).expect("one of the two");
    providers[gone].kill();
    let rest = chat(&requester.home, "four\n", &[]);
    assert_eq!((&rest[0]["text"], &rest[0]["provider"]), (&"four".into(), &providers[1 - gone].id().into()));

    let file = requester.home.data().join("sessions/default.jsonl");
    let kept = fs::read_to_string(&file).expect("kept");
    assert_eq!(kept.lines().count(), 5, "a beginning and four turns");
    // What was said cannot be changed unseen.
    fs::write(&file, kept.replace("\"two\"", "\"too\"")).expect("written");
    let refused = requester.run(&["chat"]);
    refused.refused(3, &["default.jsonl", "line 4", "does not follow"]);
}

#[test]
fn other_sessions_are_other_files_and_bad_names_are_refused() {
    let (requester, _providers) = mesh();
    chat(&requester.home, "hello\n", &["--session", "work", "--system", "Be brief."]);
    assert!(requester.home.data().join("sessions/work.jsonl").exists());
    requester
        .run(&["chat", "--session", "work", "--system", "Be long."])
        .refused(3, &["another system prompt"]);
    requester.run(&["chat", "--session", "../escape"]).refused(2, &["1 to 64 letters"]);
}

#[test]
fn a_turn_that_fails_ends_no_conversation() {
    let requester = Peer::up(&["--model", "-"]);
    let turns = chat(&requester.home, "anybody?\n/nonsense\n", &[]);
    assert_eq!(turns.len(), 1);
    assert_eq!(turns[0]["event"], "error");
    let kept = fs::read_to_string(requester.home.data().join("sessions/default.jsonl")).expect("kept");
    assert_eq!(kept.lines().count(), 1, "nothing was answered");
}

/// The jobs that a peer shows.
fn jobs(peer: &Peer, more: &[&str]) -> Vec<Value> {
    let shown = peer.run(&[&["jobs"], more].concat()).document().clone();
    shown["jobs"].as_array().expect("a list").clone()
}

#[test]
fn a_job_is_seen_on_both_sides_and_cancelled_from_the_side() {
    let requester = Peer::up(&["--model", "-"]);
    let provider = Peer::join(&requester, &["--engine", "echo:20", "--slots", "1"]);
    assert!(jobs(&requester, &[]).is_empty());
    let mut process = requester.home.start(&["submit", "on and on ", "--max-tokens", "3000"]);
    let job = text(&process.until("started")["job"]);
    process.until("token");

    let own = jobs(&requester, &[]);
    assert_eq!((&own[0]["job"], &own[0]["state"]), (&job.as_str().into(), &"running".into()));
    assert_eq!((&own[0]["provider"], own.len()), (&provider.id().into(), 1));
    let theirs = jobs(&provider, &[]);
    assert_eq!((&theirs[0]["job"], &theirs[0]["requester"]), (&own[0]["job"], &requester.id().into()));

    requester.run(&["cancel", "ffff"]).refused(2, &["no job under way"]);
    assert_eq!(requester.run(&["cancel", &job[..8]]).document()["cancelled"], job.as_str());
    process.finish().refused(6, &["cancelled"]);
    assert!(jobs(&requester, &[]).is_empty());
    let over = jobs(&requester, &["--all"]);
    assert_eq!(over[0]["state"]["failed"], "cancelled");
    // The only slot is free again.
    assert_eq!(requester.submit(&["x ", "--max-tokens", "2"]).answer(), "x x ");
    assert!(jobs(&provider, &[]).is_empty());
}

#[test]
fn what_is_asked_and_offered_can_be_looked_at() {
    let (requester, providers) = mesh();
    requester.submit(&["for all", "--auction"]).done();
    let market = providers[0].run(&["market"]).document().clone();
    let asked = market["asked"].as_array().expect("a list");
    assert!(asked.iter().any(|asked| asked["announced"] == true && asked["requester"] == requester.id()));
    assert!(!market.to_string().contains("for all"), "never what it is about");
    let offered = requester.run(&["market"]).document().clone();
    assert!(!offered["offered"].as_array().expect("a list").is_empty());
}
