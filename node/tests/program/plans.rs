//! Plans through the program: many jobs on several peers, what becomes of failures, money and power cuts.

#![expect(clippy::unwrap_used, reason = "a test that cannot write its files has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

use crate::support::{Home, Outcome, Peer, shown, text, tiny};

/// A peer without a model, and so many that echo.
fn mesh(providers: &[&[&str]]) -> (Peer, Vec<Peer>) {
    let requester = Peer::up(&["--model", "-"]);
    let providers = providers.iter().map(|args| Peer::join(&requester, args)).collect();
    (requester, providers)
}

/// A plan in a file of the requester's.
fn file(home: &Home, plan: &str) -> String {
    let path = home.file("plan.toml");
    fs::write(&path, plan).unwrap();
    shown(&path)
}

/// The values of a field in all lines of an event.
fn all(outcome: &Outcome, event: &str, field: &str) -> Vec<Value> {
    outcome.lines.iter().filter(|line| line["event"] == event).map(|line| line[field].clone()).collect()
}

#[test]
fn the_plan_of_the_readme_runs_on_several_peers() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Plans\n").unwrap();
    let plan = section.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let echo: &[&str] = &["--engine", "echo", "--slots", "1"];
    let (requester, providers) = mesh(&[echo, echo, echo]);
    let plan = file(&requester.home, plan);
    let nodes = requester.run(&["plan", "check", &plan]);
    assert_eq!(nodes.document()["nodes"], json!(["views", "votes", "winner", "answer"]));
    let dry = requester.run(&["plan", "run", &plan, "--dry-run"]);
    assert_eq!((&dry.document()["least"]["jobs"], &dry.document()["least"]["cost"]), (&json!(4), &json!(0)));

    let says =
        "Describe a bridge in one sentence.\nMost say: Name the best of [\"a bridge\"]. Only the name.";
    let outcome = requester.run(&["plan", "run", &plan, "--input", "places=[\"a bridge\"]"]);
    assert_eq!(outcome.done()["output"], says);
    let outcome = requester.run(&["plan", "run", &plan]);
    let output = text(&outcome.done()["output"]);
    assert!(output.starts_with("Describe the harbour in one sentence.\nDescribe the market "), "{output}");
    let who: BTreeSet<_> = all(&outcome, "job_started", "provider").iter().map(text).collect();
    let ids: BTreeSet<_> = providers.iter().map(Peer::id).collect();
    assert!(who.len() > 1 && who.is_subset(&ids), "{who:?}");
    let receipts: BTreeSet<_> = outcome.done()["receipts"].as_array().unwrap().iter().map(text).collect();
    assert_eq!(receipts.len(), 6, "three places and three votes");
    for receipt in receipts {
        assert_eq!(requester.run(&["verify", &receipt]).document()["verdict"], "signed");
    }

    // The same from a machine that runs no peer.
    let stranger = Home::new();
    let outcome = stranger.run(&["plan", "run", &plan, "--bootstrap", &requester.address()]);
    assert_eq!(outcome.done()["output"], output);
    assert_eq!(stranger.run(&["receipts"]).lines.len(), 6);
}

#[test]
fn a_failure_is_substituted_or_named() {
    let (requester, _providers) = mesh(&[&["--engine", "echo"], &["--engine", "echo"]]);
    // Nobody here can keep to a form.
    let plan = "goal = 'count'
        [nodes.number]
        expect = { regex = '[0-9]+' }
        on_failure = { substitute = '{{ 6 * 7 }}' }
        generate.prompt = 'how many?'
        [nodes.answer.generate]
        prompt = 'it is {{ nodes.number }}'";
    let outcome = requester.run(&["plan", "run", &file(&requester.home, plan)]);
    assert_eq!(outcome.done()["output"], "it is 42");
    let settled = outcome.lines.iter().find(|line| line["node"] == "number" && line["settled"] == true);
    assert_eq!(settled.unwrap()["substituted"], 1, "{outcome:?}");
    assert_eq!(outcome.done()["receipts"].as_array().unwrap().len(), 1);

    let plan = plan.replace("on_failure", "# on_failure");
    let outcome = requester.run(&["plan", "run", &file(&requester.home, &plan)]);
    outcome.refused(6, &["node `number`", "unsupported", "--resume"]);
}

#[test]
fn a_run_that_was_killed_goes_on_without_asking_again() {
    let (requester, _providers) = mesh(&[&["--engine", "echo:20"]]);
    let plan = "goal = 'three'
        limits.parallel = 1
        [nodes.all]
        for_each = '[1, 2, 3]'
        generate = { prompt = '{{ item }}', max_tokens = 30 }
        [nodes.one.concatenate]
        of = 'nodes.all'
        separator = ' '";
    let mut process = requester.home.start(&["plan", "run", &file(&requester.home, plan)]);
    let run = text(&process.until("run")["run"]);
    let first = process.until("job_done")["receipt"].clone();
    process.kill();
    let driven = requester.run(&["plan", "run", "--resume", &run]);
    let tasks: Vec<_> = all(&driven, "job_started", "task").iter().map(|task| task["item"].clone()).collect();
    assert_eq!(tasks, [1, 2], "{driven:?}");
    assert_eq!(driven.done()["output"], format!("{} {} {}", "1".repeat(30), "2".repeat(30), "3".repeat(30)));
    let receipts = driven.done()["receipts"].as_array().unwrap();
    assert_eq!((receipts.len(), receipts.contains(&first)), (3, true));
    assert_eq!(requester.run(&["receipts"]).lines.len(), 3, "what was cut was cancelled");

    // What is done stays so: nothing runs at all.
    let again = requester.run(&["plan", "run", "--resume", &run]);
    assert_eq!(all(&again, "job_started", "task"), [] as [Value; 0]);
    assert_eq!(again.done()["output"], driven.done()["output"]);
    requester.run(&["plan", "run", "--resume", "0123"]).refused(3, &["no run `0123`"]);
}

#[test]
fn a_signal_takes_the_plan_back_and_says_how_to_go_on() {
    let (requester, providers) = mesh(&[&["--engine", "echo:20", "--slots", "1"]]);
    let plan = "goal = 'long'\n[nodes.a.generate]\nprompt = 'x '\nmax_tokens = 3000";
    let mut process = requester.home.start(&["plan", "run", &file(&requester.home, plan)]);
    process.until("job_started");
    process.signal("TERM");
    process.finish().refused(6, &["cancelled", "llamesh plan run --resume"]);
    assert_eq!(requester.run(&["plan", "runs"]).lines.len(), 1);
    assert_eq!(providers[0].submit(&["x ", "--max-tokens", "2"]).answer(), "x x ", "the slot is free");
}

#[test]
fn what_cannot_be_paid_or_had_does_not_begin() {
    let (requester, _providers) = mesh(&[&["--engine", "echo", "--price-completion", "1000"]]);
    let plan = "goal = 'dear'\nlimits.budget = 100\n[nodes.a.generate]\nprompt = 'x'\nmax_tokens = 200";
    let name = file(&requester.home, plan);
    requester.run(&["plan", "run", &name]).refused(3, &["costs at least 200", "limits.budget"]);
    requester.run(&["plan", "run", &name, "--dry-run"]).refused(3, &["costs at least 200"]);
    let name = file(&requester.home, &plan.replace("budget = 100", "budget = 500"));
    let outcome = requester.run(&["plan", "run", &name]);
    // One word, of the 200 that it might have had.
    assert_eq!(outcome.done()["cost"], 1);
    assert_eq!(all(&outcome, "job_done", "left"), [499]);
    let name = file(&requester.home, &plan.replace("prompt =", "capability = 'code.review'\nprompt ="));
    requester.run(&["plan", "run", &name]).refused(4, &["no price is known for `code.review`"]);
    assert_eq!(requester.run(&["receipts"]).lines.len(), 1);
}

#[test]
fn a_mesh_that_is_full_is_waited_for() {
    // More jobs at once than the provider has places for one requester.
    let (requester, _providers) = mesh(&[&["--engine", "echo:400", "--slots", "1"]]);
    let items: Vec<_> = (0..48).collect();
    let plan = format!(
        "goal = 'many'\nlimits.parallel = 48\n[nodes.all]\nretries = 3\nfor_each = '{items:?}'
         generate = {{ prompt = '{{{{ item }}}} ', max_tokens = 20 }}"
    );
    let outcome = requester.run(&["plan", "run", &file(&requester.home, &plan)]);
    assert_eq!(outcome.done()["receipts"].as_array().unwrap().len(), 48);
    // A provider that is slow to answer on a loaded machine may pass for lost; being busy is no failure at all.
    let problems = all(&outcome, "job_done", "problem");
    let lost = |problem: &Value| problem.is_null() || text(problem).contains("the provider was lost");
    assert!(problems.iter().all(lost), "{problems:?}");
}

#[test]
fn every_mistake_of_a_plan_is_named() {
    let home = Home::new();
    let plan = "goal = 'broken'
        [nodes.a.generate]
        prompt = '{{ nodes.b }}'
        [nodes.b.generate]
        prompt = '{{ nodes.a }} {{ inputs.who }}'";
    let name = file(&home, plan);
    home.run(&["plan", "check", &name]).refused(3, &["waits for itself", "the input `who`", "node `b`"]);
    let name = file(&home, "goal = 'x'\n[nodes.a.generate]\nprompts = 'x'");
    home.run(&["plan", "check", &name]).refused(3, &["plan.toml", "prompts"]);
    home.run(&["plan", "check", "nowhere.toml"]).refused(3, &["nowhere.toml"]);
    // Inputs are missed before a run is kept.
    let (requester, _providers) = mesh(&[&["--engine", "echo"]]);
    let name =
        file(&requester.home, "goal = 'x'\n[inputs.who]\n[nodes.a.generate]\nprompt = '{{ inputs.who }}'");
    requester.run(&["plan", "run", &name]).refused(3, &["needs the input `who`"]);
    assert!(!requester.home.data().join("plans").exists());
}

#[test]
fn a_goal_becomes_a_plan_that_is_shown_before_it_runs() {
    let (requester, _providers) = mesh(&[&["--engine", "echo"]]);
    requester.run(&["plan", "greet"]).refused(4, &["nobody offers `plan`", "--planner", "plan run FILE"]);

    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", server.local_addr().unwrap());
    thread::spawn(move || server.incoming().map_while(Result::ok).for_each(|stream| plans(&stream)));
    let home = Home::new();
    fs::create_dir(home.data()).unwrap();
    let agent = format!("capability = \"plan\"\nupstream = {{ url = \"{address}\", model = \"m\" }}");
    fs::write(home.data().join("llamesh.toml"), format!("[[agent]]\n{agent}\n")).unwrap();
    let planner = home.up(&["--bootstrap", &requester.address()]);
    requester.submit(&["x", "--capability", "plan", "--provider", &planner.id()]).done();
    let shown = requester.run(&["plan", "greet"]);
    assert_eq!(shown.one("plan")["plan"]["nodes"]["hello"]["generate"]["prompt"], "good morning");
    assert_eq!((shown.code, all(&shown, "run", "run").len()), (0, 0), "nobody said yes: {shown:?}");
    let outcome = requester.run(&["plan", "greet", "--yes"]);
    assert_eq!(outcome.done()["output"], "good morning");
}

/// An OpenAI-compatible server that plans the same for everybody.
fn plans(stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    let head: Vec<String> =
        reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let length =
        head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.expect("a request with a body")];
    reader.read_exact(&mut body).expect("the whole body");
    let plan = json!({ "goal": "greet", "nodes": { "hello": { "generate": { "prompt": "good morning" } } } });
    let delta = json!({ "choices": [{ "index": 0, "delta": { "content": plan.to_string() }, "finish_reason": "stop" }] });
    let body = format!("data: {delta}\n\ndata: [DONE]\n\n");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";
    let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    // Whoever asked may have gone.
    let _ = { stream }.write_all(answer.as_bytes());
}

#[test]
fn a_model_can_keep_to_the_form_of_a_plan() {
    let home = Home::new();
    let model = tiny(&home);
    let provider = home.up(&["--model", &model]);
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/schemas/plan.json");
    let outcome = provider.submit(&["plan", "--schema", schema, "--max-tokens", "400"]);
    let plan: Value = serde_json::from_str(&outcome.answer()).unwrap();
    assert!(plan["goal"].is_string() && plan["nodes"].is_object(), "{plan}");
}
