//! Jobs that somebody is asked about, through the program: held until approved, from whichever side, or cancelled. And a plan
//! that mixes a model with real tools, held at each of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot write its files has failed")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::{Home, Peer, at_a_terminal, shown, text};

fn jobs(peer: &Peer) -> Vec<Value> {
    peer.run(&["jobs"]).document()["jobs"].as_array().unwrap().clone()
}

#[test]
fn a_dear_job_waits_until_it_is_approved_and_is_seen_to_wait() {
    let requester = Peer::up(&["--model", "-"]);
    let _provider = Peer::join(&requester, &["--engine", "echo"]);
    let submit = ["submit", "x ", "--max-tokens", "2", "--approve", "cost:4"];
    requester.submit(&[&submit[1..], &["--budget", "4"]].concat()).done();

    let mut held = requester.home.start(&[&submit[..], &["--budget", "5"]].concat());
    let waits = held.until("awaiting");
    assert_eq!(waits["rule"], "cost:4");
    assert_eq!(jobs(&requester)[0]["state"], json!({ "awaiting": "cost:4" }));
    let job = text(&waits["job"]);
    assert_eq!(requester.run(&["approve", &job[..8]]).document()["approved"], job.as_str());
    assert_eq!(held.finish().answer(), "x ");

    let mut held = requester.home.start(&[&submit[..], &["--budget", "5"]].concat());
    let job = text(&held.until("awaiting")["job"]);
    requester.run(&["cancel", &job]);
    held.finish().refused(6, &["cancelled"]);
    requester.run(&["approve", &job]).refused(2, &["no job under way"]);
    requester.submit(&["x", "--weigh", "luck=1"]).refused(2, &["latency=N"]);
    requester.submit(&["x", "--approve", "often"]).refused(2, &["often", "cost:MICRO-CREDITS"]);
}

#[test]
fn a_peer_has_rules_of_its_own_which_hold_for_every_client() {
    let requester = Peer::up(&["--model", "-", "--approve", "cost:10,depth:3"]);
    let _provider = Peer::join(&requester, &["--engine", "echo"]);
    requester.submit(&["x", "--budget", "10"]).done();
    let held = requester.home.start(&["submit", "x ", "--max-tokens", "1", "--budget", "11"]);
    let job = loop {
        if let Some(job) = jobs(&requester).first() {
            assert_eq!(job["state"], json!({ "awaiting": "cost:10" }));
            break text(&job["job"]);
        }
    };
    let approve =
        |job: &str| Request::post(&requester.api(), &format!("/control/jobs/{job}/approve"), &json!(null));
    assert_eq!(approve("none").send().status, 400);
    assert_eq!(approve(&job).send().status, 204);
    assert_eq!(held.finish().answer(), "x ");
    assert_eq!(approve(&job).send().status, 204, "what is over is left as it is");
}

/// A peer of the moment has no API: without a terminal nobody could ever say yes.
#[test]
fn without_a_terminal_a_peer_of_the_moment_does_not_begin_what_needs_approval() {
    let provider = Peer::up(&["--engine", "echo"]);
    let home = Home::new();
    let submit = ["submit", "x", "--approve", "depth:0", "--bootstrap", &provider.address()];
    home.run(&submit).refused(6, &["cancelled"]);
}

#[test]
fn whoever_sits_at_the_terminal_is_asked() {
    let provider = Peer::up(&["--engine", "echo"]);
    let address = provider.address();
    let submit = ["submit", "x ", "--max-tokens", "1", "--approve", "depth:0", "--bootstrap", &address];
    for (answer, code) in [("y\n", 0), ("n\n", 6), ("\n", 6)] {
        let home = Home::new();
        let mut asked = home.spawn(at_a_terminal(&home.command(&submit)));
        asked.feed(answer);
        let outcome = asked.finish();
        assert!(outcome.stdout.contains("needs approval (depth:0). May it begin? [y/N]"), "{outcome:?}");
        assert_eq!(outcome.code, code, "{answer:?}: {outcome:?}");
    }
}

#[test]
fn a_plan_asks_a_model_and_real_tools_and_each_tool_is_approved() {
    let home = Home::new();
    fs::create_dir(home.data()).unwrap();
    let script = home.data().join("count.sh");
    // Counts what it is given, and answers as JSON.
    fs::write(&script, "#!/bin/sh\nprintf '{\"bytes\": %s}' \"$(wc -c)\"\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let agents = "[[agent]]\ncapability = \"tool.count\"\nprogram = { path = \"count.sh\" }\n\
                  [[agent]]\ncapability = \"text.generation\"\nengine = \"echo\"\n";
    fs::write(home.data().join("llamesh.toml"), agents).unwrap();
    let provider = home.up(&[]);
    let requester = Peer::join(&provider, &["--model", "-"]);
    let plan = requester.home.file("plan.toml");
    let text_of_plan = r#"
goal = "How long are the answers?"
[nodes.says]
for_each = "['a', 'bcd']"
[nodes.says.generate]
prompt = "{{ item }}"
max_tokens = 1
[nodes.counts]
for_each = "nodes.says"
[nodes.counts.expect]
schema = { type = "object", required = ["bytes"] }
[nodes.counts.call]
capability = "tool.count"
arguments = '{"text": {{ item | tojson }}}'
[nodes.longest.pick]
of = "nodes.counts"
score = "item.bytes"
"#;
    fs::write(&plan, text_of_plan).unwrap();
    let mut run = requester.home.start(&["plan", "run", &shown(&plan), "--approve", "tool:tool.count"]);
    for _ in 0..2 {
        let waits = run.until("job_awaiting");
        assert_eq!((&waits["task"]["node"], &waits["rule"]), (&json!("counts"), &json!("tool:tool.count")));
        requester.run(&["approve", &text(&waits["job"])]).document();
    }
    let outcome = run.finish();
    let output: Value = serde_json::from_str(&text(&outcome.done()["output"])).unwrap();
    assert_eq!(output["bytes"], r#"{"text":"bcd"}"#.len(), "{outcome:?}");
}
