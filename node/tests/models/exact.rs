//! The exact engine as its user meets it: what it commits to reaches the receipt, a replay leaves no doubt, and its digest
//! is the same however it computes.

use std::fs;

use serde_json::Value;

use crate::support::{Home, Outcome, Peer, text, tiny};

/// What `llamesh bench --json` says, in this order.
const KEYS: [&str; 12] = [
    "profile",
    "kernel",
    "threads",
    "decode",
    "prefill128",
    "prefill512",
    "batch8",
    "batch16",
    "serve",
    "verify_share",
    "peak_over_file",
    "digest",
];

/// What it says of many clients at once.
const SERVED: [&str; 9] = [
    "clients",
    "throughput",
    "alone",
    "speedup",
    "gap_p50_ms",
    "gap_p95_ms",
    "gap_p95_over_alone",
    "gap_p95_over_alone_p95",
    "first_token_p50_ms",
];

#[test]
fn what_the_engine_commits_to_reaches_the_receipt_and_is_checked_by_a_replay() {
    let home = Home::new();
    let model = tiny(&home);
    let provider = home.up(&["--model", &model, "--threads", "1"]);
    let requester = Peer::join(&provider, &["--model", "-"]);
    let outcome = requester.submit(&["an otter", "--max-tokens", "70", "--seed", "5"]);
    let file = text(&outcome.done()["receipt_file"]);
    let document: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(document["view"]["engine"], "exact-1");
    let segments = document["view"]["segments"].as_array().unwrap().len();
    assert!(segments > 0, "the answer is long enough: {outcome:?}");
    assert_eq!(document["opening"]["activations"].as_array().unwrap().len(), segments);

    let verdict = requester.run(&["verify", "--replay", "--model", &model, &file]);
    assert_eq!(verdict.document()["verdict"], "exact", "{verdict:?}");
    assert!(text(&verdict.document()["why"]).contains("segments"), "{verdict:?}");

    let other = text(&document["opening"]["activations"][0]).chars().rev().collect::<String>();
    let changed =
        fs::read_to_string(&file).unwrap().replace(&text(&document["opening"]["activations"][0]), &other);
    fs::write(&file, changed).unwrap();
    let verdict = requester.run(&["verify", &file]);
    assert_eq!((verdict.code, &verdict.lines[0]["verdict"]), (7, &Value::from("refuted")), "{verdict:?}");
    assert!(text(&verdict.lines[0]["why"]).contains("segments"), "{verdict:?}");
}

#[test]
fn a_demo_ends_in_an_exact_verdict() {
    let home = Home::new();
    let model = tiny(&home);
    let outcome = home.run(&["demo", "--model", &model]);
    assert_eq!(outcome.document()["verdict"], "exact", "{outcome:?}");
}

/// A bench of a tiny model, in an environment with this variable.
fn bench(home: &Home, variable: Option<(&str, &str)>, args: &[&str]) -> Outcome {
    let mut command = home.command(&[&["bench", "--model", &tiny(home)], args].concat());
    command.envs(variable);
    home.spawn(command).finish()
}

#[test]
fn a_bench_says_how_fast_and_its_digest_is_the_same_however_it_computes() {
    let home = Home::new();
    let (one, two) = (bench(&home, None, &["--threads", "1"]), bench(&home, None, &["--threads", "2"]));
    let scalar = bench(&home, Some(("LLAMESH_KERNEL", "scalar")), &["--engine", "exact"]);
    let said = two.document();
    let keys: Vec<_> = KEYS.iter().map(|key| two.stdout.find(&format!("\"{key}\":")).expect(key)).collect();
    assert!(keys.is_sorted() && said.as_object().unwrap().len() == KEYS.len(), "{two:?}");
    assert_eq!((&said["profile"], &said["threads"]), (&Value::from("exact-1"), &Value::from(2)));
    for rate in ["decode", "prefill128", "prefill512", "batch8", "batch16", "verify_share"] {
        assert!(said[rate].as_f64().is_some_and(|rate| rate > 0.0), "{rate}: {two:?}");
    }
    let served = said["serve"].as_object().unwrap();
    for number in SERVED {
        assert!(served[number].as_f64().is_some_and(|number| number >= 0.0), "{number}: {two:?}");
    }
    assert_eq!(served.len(), SERVED.len(), "{two:?}");
    assert_eq!(said["peak_over_file"].is_number(), cfg!(target_os = "linux"), "{two:?}");
    assert_eq!(scalar.document()["kernel"], "scalar");
    assert_eq!(one.document()["threads"], 1);
    let digests = [&one, &two, &scalar].map(|outcome| text(&outcome.document()["digest"]));
    assert!(digests[0].len() == 64 && digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn a_bench_of_candle_names_its_own_profile_and_takes_no_threads() {
    let home = Home::new();
    // Candle's threads wait for each other, where others have the cores for a minute and more.
    let candle = bench(&home, Some(("RAYON_NUM_THREADS", "1")), &["--engine", "candle"]);
    let said = candle.document();
    assert!(text(&said["profile"]).starts_with("candle-"), "{candle:?}");
    assert!(text(&said["profile"]).contains(&text(&said["kernel"])), "{candle:?}");
    bench(&home, None, &["--engine", "candle", "--threads", "1"]).refused(2, &["RAYON_NUM_THREADS"]);
}

#[test]
fn a_kernel_that_cannot_be_had_is_told_and_nothing_else_is_taken() {
    let home = Home::new();
    bench(&home, Some(("LLAMESH_KERNEL", "abacus")), &[]).refused(2, &["LLAMESH_KERNEL", "abacus", "scalar"]);
    let none = bench(&home, None, &["--threads", "0"]);
    assert_eq!(none.code, 2, "{none:?}");
}
