//! The default model, through the mesh: its answers repeat, replay, and stop when they are not wanted any more.
//!
//! Where it is neither in the cache nor to be had, this says so and tests nothing.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use node::models::{Models, Silent};
use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::{Home, Peer, shown, text};

/// A loaded machine takes its time to read a hundred megabytes.
const PATIENCE: Duration = Duration::from_secs(240);
/// Cancelling in decode frees the provider within this.
const FREED: Duration = Duration::from_millis(200);

#[test]
fn the_default_model_answers_through_the_mesh() {
    let model = match obtained() {
        Ok(model) => model,
        Err(why) => return eprintln!("SKIPPED: smollm2 cannot be had here: {why}"),
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

#[test]
fn an_answer_outlives_its_provider_to_the_byte() {
    let model = match obtained() {
        Ok(model) => model,
        Err(why) => return eprintln!("SKIPPED: smollm2 cannot be had here: {why}"),
    };
    let requester = Home::patient(PATIENCE).up(&["--model", "-"]);
    let provider = || Home::patient(PATIENCE).up(&["--model", &model, "--bootstrap", &requester.address()]);
    let mut providers = [provider(), provider()];
    let ask = [
        "submit",
        "Tell me a story about the sea.",
        "--max-tokens",
        "96",
        "--temperature",
        "0.8",
        "--seed",
        "3",
    ];
    let undisturbed = requester.run(&ask);

    let mut process = requester.home.start(&ask);
    let first = process.until("started")["provider"].clone();
    process.until("token");
    let dying = providers.iter().position(|provider| first == provider.id()).expect("one of the two");
    providers[dying].kill();
    let second = process.until("started");
    assert_ne!(second["provider"], first);
    let outcome = process.finish();
    assert_eq!(outcome.answer(), undisturbed.answer());
    assert_eq!(outcome.done()["usage"], undisturbed.done()["usage"]);
    let inherited = second["tokens"].as_u64().expect("in the middle of the answer");
    assert!((1..96).contains(&inherited), "{inherited}");
    // The successor answers for the whole, and whoever signed a part of it is named.
    let file = text(&outcome.done()["receipt_file"]);
    let replayed = requester.run(&["verify", "--replay", "--model", &model, &file]);
    assert_eq!(replayed.document()["verdict"], "exact", "{replayed:?}");
    let view = &requester.run(&["receipts"]).lines;
    let view = view.iter().find(|line| line["receipt"] == outcome.done()["receipt"]).expect("kept");
    assert_eq!(view["view"]["continues"]["tokens"], inherited);
    let signers: Vec<_> = (0..).map_while(|at| view["view"]["segments"][at]["provider"].as_str()).collect();
    let expected: Vec<_> = (0..signers.len() as u64)
        .map(|segment| if (segment + 1) * 32 <= inherited { &first } else { &second["provider"] })
        .collect();
    assert_eq!(signers, expected);
}

/// A job that comes right after a cancelled one waits no longer for the only slot than the floor says, beyond the step
/// that is being computed. The best of several attempts is what the program can do; the others are what the machine
/// was busy with.
#[expect(clippy::print_stderr, reason = "a measurement is worth telling")]
fn freed_when_cancelled(requester: &Peer) {
    let idle = (0..3).map(|_| first_token(requester)).min().expect("three");
    let attempts: Vec<(Duration, Duration)> = (0..5)
        .map(|_| {
            let mut tokens = tokens(requester, "Count to one thousand.", 2000);
            assert!(tokens.next().is_some());
            let begin = Instant::now();
            assert!(tokens.nth(1).is_some());
            let step = begin.elapsed() / 2;
            // The connection ends here, and with it the job.
            drop(tokens);
            (first_token(requester).saturating_sub(idle), step)
        })
        .collect();
    eprintln!(
        "first token of an idle provider after {idle:?}; after a cancelled job later by (step): {attempts:?}"
    );
    assert!(attempts.iter().any(|(later, step)| *later <= FREED + *step), "{attempts:?}");
}

/// How long a short job takes to its first token.
fn first_token(requester: &Peer) -> Duration {
    let begin = Instant::now();
    let mut tokens = tokens(requester, "Hi", 1);
    assert!(tokens.next().is_some());
    let took = begin.elapsed();
    // To its end, so that nothing of it is left for the next one.
    assert_eq!(tokens.count(), 0);
    took
}

/// A job's tokens as they come; dropping them hangs up.
fn tokens(requester: &Peer, prompt: &str, max_tokens: u32) -> impl Iterator<Item = String> {
    let body = json!({ "prompt": prompt, "max_tokens": max_tokens });
    let stream = Request::post(&requester.api(), "/control/jobs", &body).open();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.filter(|line| line.contains("\"event\":\"token\""))
}

/// The model's file, from the cache or fetched like `llamesh up` does.
fn obtained() -> Result<String, String> {
    let models = Models::from_env().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let file = runtime.block_on(models.obtain("smollm2", &Silent)).map_err(|error| error.to_string())?;
    Ok(shown(&file.path))
}

/// What a client may count on although the model is a small one: a forced call is a call, a schema is kept.
#[test]
fn forced_calls_and_schemas_are_kept_in_two_hundred_of_two_hundred() {
    let model = match obtained() {
        Ok(model) => model,
        Err(why) => return eprintln!("SKIPPED: smollm2 cannot be had here: {why}"),
    };
    let provider = Home::patient(PATIENCE).up(&["--model", &model]);
    let requester = Home::patient(PATIENCE).up(&["--model", "-", "--bootstrap", &provider.address()]);
    let api = requester.api();
    let broken: Vec<String> = std::thread::scope(|scope| {
        let clients = (0..CLIENTS).map(|client| {
            let api = &api;
            scope.spawn(move || (client..RUNS).step_by(CLIENTS).filter_map(|run| broken(api, run)).collect())
        });
        // All of them begin before the first is waited for.
        let clients: Vec<_> = clients.collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap_or_else(|_| vec!["a panic".to_owned()]))
            .collect()
    });
    assert!(broken.is_empty(), "{} of {RUNS}, the first: {}", broken.len(), broken[0]);
}

/// Requests, half of them calls and half of them schemas, and how many are at work at once.
const RUNS: usize = 200;
const CLIENTS: usize = 8;

/// The reply to one request, if it is not what was forced.
fn broken(api: &str, run: usize) -> Option<String> {
    let city = ["Paris", "Oslo", "a town whose name is \"quoted\"", "東京", "nowhere"][run % 5];
    let schema = json!({
        "type": "object",
        "properties": {
            "city": { "type": "string", "maxLength": 40 },
            "unit": { "enum": ["celsius", "fahrenheit"] },
            "days": { "type": "integer", "minimum": 1, "maximum": 14 },
        },
        "required": ["city", "unit"],
        "additionalProperties": false,
    });
    let mut body = json!({
        "model": "smollm2", "seed": run, "temperature": 1.0, "max_tokens": 96,
        "messages": [{ "role": "user", "content": format!("What is the weather in {city}?") }],
    });
    let is_call = run.is_multiple_of(2);
    if is_call {
        let function =
            json!({ "name": "get_weather", "description": "The weather of a city", "parameters": schema });
        body["tools"] = json!([{ "type": "function", "function": function }]);
        body["tool_choice"] = match run % 4 {
            0 => json!("required"),
            _ => json!({ "type": "function", "function": { "name": "get_weather" } }),
        };
    } else {
        body["response_format"] = json!({ "type": "json_schema", "json_schema": { "name": "weather", "strict": true, "schema": schema } });
    }
    let reply = Request::post(api, "/v1/chat/completions", &body).send().json();
    let message = &reply["choices"][0]["message"];
    let said = match is_call {
        true => &message["tool_calls"][0]["function"]["arguments"],
        false => &message["content"],
    };
    let named = !is_call || message["tool_calls"][0]["function"]["name"] == "get_weather";
    let value = said.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let fits = value.is_some_and(|value| jsonschema::is_valid(&schema, &value));
    (!named || !fits).then(|| format!("run {run}: {reply}"))
}
