//! The default model, through the mesh: its answers repeat, replay, and stop when they are not wanted any more.
//!
//! It is never fetched for a test: where the cache does not have it, this says so and tests nothing.

#[path = "support/support.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Home, Peer, Request, shown, text};

/// A build for debugging on a loaded machine takes its time to read a hundred megabytes.
const PATIENCE: Duration = Duration::from_secs(240);
/// Cancelling in decode frees the provider within this.
const FREED: Duration = Duration::from_millis(200);

#[test]
fn the_default_model_answers_through_the_mesh() {
    let Some(model) = cached() else {
        eprintln!("SKIPPED: smollm2 is not in the cache; `llamesh demo` puts it there");
        return;
    };
    let provider = Home::patient(PATIENCE).up(&["--model", &model, "--slots", "1"]);
    let requester = Home::patient(PATIENCE).up(&["--model", "-", "--bootstrap", &provider.address()]);

    let ask = || requester.submit(&["Name the planets of the solar system.", "--max-tokens", "24"]);
    let (first, again) = (ask(), ask());
    assert_eq!(first.answer(), again.answer());
    assert!(first.answer().contains("Earth"), "{first:?}");
    assert_eq!(first.done()["provider"], provider.id());
    let file = text(&first.done()["receipt_file"]);
    let replayed = requester.run(&["verify", "--replay", "--model", &model, &file]);
    assert_eq!(replayed.document()["verdict"], "exact", "{replayed:?}");

    freed_when_cancelled(&requester);
}

/// A job that comes right after a cancelled one waits no longer for the only slot than the floor says. The best of
/// several attempts is what the program can do; the others are what the machine was busy with.
fn freed_when_cancelled(requester: &Peer) {
    let idle = (0..3).map(|_| first_token(requester)).min().unwrap();
    let delays: Vec<Duration> = (0..5)
        .map(|_| {
            let body = json!({ "prompt": "Count to one thousand.", "max_tokens": 2000 });
            let mut lines =
                BufReader::new(Request::post(&requester.api(), "/control/jobs", &body).open()).lines();
            let token = |line: &String| line.contains("\"event\":\"token\"");
            assert!(lines.by_ref().map_while(Result::ok).any(|line| token(&line)));
            // The connection ends here, and with it the job.
            drop(lines);
            first_token(requester).saturating_sub(idle)
        })
        .collect();
    eprintln!("first token of an idle provider after {idle:?}; later by {delays:?} after a cancelled job");
    assert!(delays.iter().min().is_some_and(|best| *best <= FREED), "{delays:?}");
}

/// How long a short job takes to its first token.
fn first_token(requester: &Peer) -> Duration {
    let body = json!({ "prompt": "Hi", "max_tokens": 1 });
    let begin = Instant::now();
    let mut lines = BufReader::new(Request::post(&requester.api(), "/control/jobs", &body).open()).lines();
    let found = lines.by_ref().map_while(Result::ok).any(|line| line.contains("\"event\":\"token\""));
    assert!(found, "no token");
    let took = begin.elapsed();
    // To its end, so that nothing of it is left for the next one.
    lines.map_while(Result::ok).for_each(drop);
    took
}

fn cached() -> Option<String> {
    let chosen = std::env::var_os("LLAMESH_CACHE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let usual = || Some(directories::BaseDirs::new()?.cache_dir().join("llamesh"));
    let file = chosen.or_else(usual)?.join("models/smollm2.gguf");
    file.is_file().then(|| shown(&file))
}
