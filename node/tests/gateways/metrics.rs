//! Metrics: what two peers count of what they do, to the number; the text by the letter; and that nobody else reads it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node::agents::Agent;
use node::agents::echo::Echo;
use node::request::JobRequest;
use node::traces::Traces;
use node::{Node, clock};
use protocol::event::JobEvent;
use protocol::{JobError, Price};
use serde_json::json;
use tokio::task::block_in_place;

use crate::observe::mesh::Seen;
use crate::observe::page::Page;
use crate::support::http::Request;
use crate::support::{Home, LIMIT, text, tiny};

fn scrape(url: &str) -> Page {
    let response = block_in_place(|| Request::get(url, "/metrics").send());
    assert_eq!(response.status, 200);
    assert!(response.header("content-type").expect("a type").starts_with("application/openmetrics-text"));
    Page::read(&response.body)
}

/// A page as soon as it says something.
async fn until(url: &str, says: impl Fn(&Page) -> bool) -> Page {
    let since = Instant::now();
    loop {
        let page = scrape(url);
        if says(&page) {
            return page;
        }
        assert!(since.elapsed() < LIMIT, "{page:?}");
        tokio::task::yield_now().await;
    }
}

fn echo(capability: &str, rate: Option<u32>) -> Arc<dyn Agent> {
    Arc::new(Echo::new(capability.parse().expect("a capability"), Price::default(), rate))
}

/// What jobs of a requester move, and what they move at the provider.
const ASKED: [&str; 16] = [
    "llamesh_jobs_submitted_total{kind=\"generate\"}",
    "llamesh_jobs_ended_total{outcome=\"done\"}",
    "llamesh_jobs_ended_total{outcome=\"nothing_offered\"}",
    "llamesh_jobs_ended_total{outcome=\"cancelled\"}",
    "llamesh_jobs_takeovers_total{at=\"beginning\"}",
    "llamesh_jobs_takeovers_total{at=\"middle\"}",
    "llamesh_jobs_time_to_first_token_seconds_count",
    "llamesh_jobs_duration_seconds_count",
    "llamesh_jobs_tokens_total{direction=\"output\"}",
    "llamesh_jobs_ledger_entries_total",
    "llamesh_jobs_runs_total{kind=\"generate\"}",
    "llamesh_market_quotes_total{outcome=\"asked\"}",
    "llamesh_market_bids_total{direction=\"received\"}",
    "llamesh_market_awards_total",
    "llamesh_market_award_seconds_count",
    "llamesh_network_requests_sent_total{kind=\"ask\"}",
];
const DONE: [&str; 12] = [
    "llamesh_jobs_submitted_total{kind=\"generate\"}",
    "llamesh_jobs_runs_total{kind=\"generate\"}",
    "llamesh_jobs_runs_ended_total{outcome=\"done\"}",
    "llamesh_jobs_runs_ended_total{outcome=\"aborted\"}",
    "llamesh_jobs_run_queue_seconds_count",
    "llamesh_jobs_run_time_to_first_token_seconds_count",
    "llamesh_jobs_run_duration_seconds_count",
    "llamesh_jobs_run_tokens_total{direction=\"output\"}",
    "llamesh_market_quotes_total{outcome=\"bid\"}",
    "llamesh_market_bids_total{direction=\"given\"}",
    "llamesh_network_requests_received_total{kind=\"ask\"}",
    "llamesh_network_misconduct_total{kind=\"empty_frame\"}",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_peers_do_is_counted_to_the_number() {
    let provider = Seen::up(vec![echo("echo", None), echo("slow", Some(1))], None, Traces::default()).await;
    let asker = Seen::up(Vec::new(), Some(&provider), Traces::default()).await;
    let before = [scrape(&asker.url), scrape(&provider.url)];
    for _ in 0..3 {
        asker.ask("echo", "one two three").await.expect("an answer");
    }
    let ours = scrape(&asker.url);
    let bytes = |way: &str| format!("llamesh_network_session_bytes_total{{direction=\"{way}\"}}");
    let sent = ours.value(&bytes("sent"));
    assert!(sent > 0.0 && ours.value(&bytes("received")) > 0.0);
    // Until the last acknowledgement has arrived.
    let theirs = until(&provider.url, |page| page.value(&bytes("received")) == sent).await;
    assert_eq!(
        ours.growth(&before[0], &ASKED),
        [
            (ASKED[0], 3.0),
            (ASKED[1], 3.0),
            (ASKED[6], 3.0),
            (ASKED[7], 3.0),
            (ASKED[8], 9.0),
            (ASKED[9], 3.0),
            (ASKED[11], 3.0),
            (ASKED[12], 3.0),
            (ASKED[13], 3.0),
            (ASKED[14], 3.0),
            (ASKED[15], 3.0),
        ]
    );
    assert_eq!(
        theirs.growth(&before[1], &DONE),
        [
            (DONE[1], 3.0),
            (DONE[2], 3.0),
            (DONE[4], 3.0),
            (DONE[5], 3.0),
            (DONE[6], 3.0),
            (DONE[7], 9.0),
            (DONE[8], 3.0),
            (DONE[9], 3.0),
            (DONE[10], 3.0),
        ]
    );
    stop([asker.node, provider.node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_is_shown_and_what_fails_is_named() {
    let provider = Seen::up(vec![echo("slow", Some(1))], None, Traces::default()).await;
    let asker = Seen::up(Vec::new(), Some(&provider), Traces::default()).await;
    let before = [scrape(&asker.url), scrape(&provider.url)];
    assert_eq!(before[0].value("llamesh_network_peers{direction=\"outbound\",transport=\"tcp\"}"), 1.0);
    assert_eq!(before[1].value("llamesh_network_peers{direction=\"inbound\",transport=\"tcp\"}"), 1.0);
    let opened = "llamesh_network_connections_opened_total{direction=\"outbound\",transport=\"tcp\"}";
    assert!(before[0].value(opened) >= 1.0);

    let request = JobRequest {
        capability: Some("slow".parse().expect("a capability")),
        prompt: Some("a b c".to_owned()),
        ..JobRequest::default()
    };
    let mut stream =
        asker.node.handle().submit(request.spec(clock::now(), None).expect("a job")).expect("a place");
    while !matches!(stream.next().await, Some(JobEvent::Token { .. })) {}
    let open = scrape(&asker.url);
    assert_eq!(open.value("llamesh_jobs_open{state=\"running\"}"), 1.0);
    assert_eq!(open.value("llamesh_network_sessions"), 1.0);
    assert_eq!(scrape(&provider.url).value("llamesh_jobs_runs_open"), 1.0);
    drop(stream);
    let refused = asker.ask("nothing.like.it", "x").await.map(|_| ());
    assert!(matches!(refused, Err(JobError::NothingOffered { .. })), "{refused:?}");

    let aborted = |page: &Page| page.value("llamesh_jobs_runs_ended_total{outcome=\"aborted\"}") == 1.0;
    let theirs = until(&provider.url, aborted).await;
    assert_eq!(theirs.value("llamesh_jobs_runs_open"), 0.0);
    let ours = scrape(&asker.url);
    assert_eq!(
        ours.growth(&before[0], &ASKED[..8]),
        [(ASKED[0], 2.0), (ASKED[2], 1.0), (ASKED[3], 1.0), (ASKED[6], 1.0)]
    );
    assert_eq!(ours.value("llamesh_jobs_open{state=\"running\"}"), 0.0);
    stop([asker.node, provider.node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_to_the_api_are_counted_and_a_scrape_takes_little() {
    let peer = Seen::up(vec![echo("text.generation", None)], None, Traces::default()).await;
    let body = json!({ "model": "auto", "messages": [{ "role": "user", "content": "x" }] });
    let post = |body| block_in_place(|| Request::post(&peer.url, "/v1/chat/completions", body).send().status);
    assert_eq!((post(&body), post(&json!({}))), (200, 400));
    let page = scrape(&peer.url);
    let count = |door: &str, status: &str| {
        page.value(&format!("llamesh_api_requests_total{{door=\"{door}\",status=\"{status}\"}}"))
    };
    assert_eq!((count("openai", "ok"), count("openai", "client_error")), (1.0, 1.0));
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            let since = Instant::now();
            scrape(&peer.url);
            since.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[0] < Duration::from_millis(10), "with the reading of it: {times:?}");
    assert_eq!(scrape(&peer.url).value("llamesh_api_requests_total{door=\"metrics\",status=\"ok\"}"), 51.0);
    stop([peer.node]).await;
}

#[test]
fn a_model_s_work_is_counted_and_only_the_owner_reads_of_it() {
    let home = Home::new();
    let model = tiny(&home);
    let peer = home.up(&["--model", &model]);
    let ask = || peer.submit(&["hello there", "--max-tokens", "5"]).answer();
    ask();
    ask();
    let read = |page: &Page, name: &str| page.value(&format!("llamesh_engine_{name}{{model=\"tiny\"}}"));
    // An answer is there a moment before its worker tells that it rests.
    let mut pages = (0..1000).map(|_| Page::read(&Request::get(&peer.api(), "/metrics").send().body));
    let page = pages.find(|page| read(page, "running") == 0.0).expect("the worker rests");
    assert_eq!((read(&page, "model_loaded"), read(&page, "running"), read(&page, "queued")), (1.0, 0.0, 0.0));
    assert!(read(&page, "passes_total") >= 10.0 && read(&page, "tokens_total") > read(&page, "passes_total"));
    assert_eq!(read(&page, "prefix_hits_total") + read(&page, "prefix_misses_total"), 2.0);
    assert!(read(&page, "pass_seconds_total") > 0.0 && read(&page, "slots") == 16.0);
    assert_eq!(page.value("llamesh_jobs_run_tokens_total{direction=\"output\"}"), 10.0);
    assert!(page.value("llamesh_jobs_run_tokens_total{direction=\"input\"}") > 10.0);
    assert_eq!(page.value("llamesh_jobs_receipts_total{kept=\"yes\"}"), 2.0);
    assert!(
        page.value("process_resident_memory_bytes") > 1e6 && page.value("process_cpu_seconds_total") > 0.0
    );
    assert!(page.value("process_open_fds") > 3.0 && page.value("process_start_time_seconds") > 1.7e9);

    let made = peer.run(&["keys", "create", "somebody"]);
    let token = text(&made.document()["token"]);
    let refused = Request::get(&peer.api(), "/metrics").by(&token).send();
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!("owner_only")));
    assert_eq!(Request::get(&peer.api(), "/metrics").send().status, 401);
    let owner = std::fs::read_to_string(peer.home.data().join("token")).expect("the owner's token");
    assert_eq!(Request::get(&peer.api(), "/metrics").by(owner.trim()).send().status, 200);
}

/// The words of a text that are names of metrics.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|char: char| !(char == '_' || char.is_ascii_lowercase()));
    words.filter(|word| word.starts_with("llamesh_") || word.starts_with("process_")).collect()
}

#[test]
fn what_the_dashboard_and_the_rules_show_is_there() {
    let home = Home::new();
    let model = tiny(&home);
    let peer = home.up(&["--model", &model]);
    peer.submit(&["hello", "--max-tokens", "2"]).answer();
    let page = Page::read(&Request::get(&peer.api(), "/metrics").send().body);
    let there: BTreeSet<&str> =
        page.samples.keys().map(|name| name.split('{').next().expect("a name")).collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docker/observe");
    for file in ["dashboard.json", "rules.yaml"] {
        let text = std::fs::read_to_string(format!("{folder}/{file}")).expect("a file");
        let shown = named(&text);
        assert!(!shown.is_empty(), "{file}");
        let missing: Vec<_> = shown.difference(&there).collect();
        assert!(missing.is_empty(), "{file} shows what no peer tells: {missing:?}");
    }
    let dashboard = std::fs::read_to_string(format!("{folder}/dashboard.json")).expect("a file");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert!(ids.len() == panels.len() && panels.len() > 8, "each panel has an id of its own");
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten()) {
        let query = text(&target["expr"]);
        assert!(!named(&query).is_empty(), "{query}");
        let balance = |open, close| query.matches(open).count() == query.matches(close).count();
        assert!(balance('(', ')') && balance('{', '}') && balance('[', ']'), "{query}");
    }
}

async fn stop<const N: usize>(nodes: [Node; N]) {
    for node in nodes {
        node.stop().await.expect("an end in order");
    }
}
