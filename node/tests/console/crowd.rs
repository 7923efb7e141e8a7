//! A peer that is none: it serves the console's files, and tells of a mesh that is larger than any test could start.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

const PEERS: usize = 200;
const JOBS: usize = 1000;
/// Jobs under way: each has new tokens in every update.
const RUNNING: usize = 300;
/// As often as a peer tells its news.
const TICK: Duration = node::api::control::live::TICK;
const NOW: u64 = 1_800_000_000_000;

/// Serves for as long as the test lives; returns the base address.
pub(crate) fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Whoever asked may have gone.
            thread::spawn(move || drop(answer(&stream)));
        }
    });
    base
}

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let path = first.split(' ').nth(1).unwrap_or("/");
    match path {
        "/control/live" => live(stream),
        "/" => file(stream, "index.html"),
        _ => match path.strip_prefix("/console/") {
            Some(name) => file(stream, name),
            None => send(stream, "application/json", b"[]"),
        },
    }
}

fn file(stream: &TcpStream, name: &str) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/console");
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript",
    };
    send(stream, kind, &std::fs::read(folder.join(name))?)
}

fn send(mut stream: &TcpStream, kind: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// The whole, and then news without end.
fn live(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")?;
    let status = json!({ "peer": peer(0), "did": "did:key:z", "network": "crowd", "listening": [], "advertised": [],
        "serves_lookups": true, "routing_table": PEERS, "connected": [], "dial_errors": [] });
    let mut update = json!({ "now": NOW, "whole": true, "status": status, "advice": [],
        "peers": { "set": set(1..=PEERS, |at| (peer(at), known(at, 0))), "gone": [] },
        "jobs": { "set": set(0..JOBS, |at| (format!("{}.{}", job(at), since(at)), view(at, 0))), "gone": [] } });
    for round in 1.. {
        stream.write_all(format!("data: {update}\n\n").as_bytes())?;
        thread::sleep(TICK);
        let some = (1..=PEERS).filter(|at| at % 4 == round % 4);
        update = json!({ "now": NOW + round as u64 * 250, "whole": false,
            "peers": { "set": set(some, |at| (peer(at), known(at, round))), "gone": [] },
            "jobs": { "set": set(0..RUNNING, |at| (format!("{}.{}", job(at), since(at)), view(at, round))), "gone": [] } });
    }
    Ok(())
}

fn set(of: impl Iterator<Item = usize>, entry: impl Fn(usize) -> (String, Value)) -> Map<String, Value> {
    of.map(entry).collect()
}

fn peer(at: usize) -> String {
    format!("12D3KooW{:038}{at:06}", 0)
}

fn job(at: usize) -> String {
    format!("{:032x}", at * 7919 + 1)
}

fn since(at: usize) -> u64 {
    NOW - 1000 * at as u64
}

fn known(at: usize, round: usize) -> Value {
    json!({ "peer": peer(at), "connected": true, "address": format!("/ip4/192.0.2.{}/tcp/5263", at % 250),
        "direction": "outbound", "rtt_ms": 1.0 + (at * 13 % 170) as f64 + (round % 7) as f64 / 10.0,
        "agent_version": "crowd", "capabilities": ["text.generation", "code.generation.python"],
        "evidence": [], "account": { "earned": at * 10, "spent": at } })
}

fn view(at: usize, round: usize) -> Value {
    let runs = at < RUNNING;
    json!({ "job": job(at), "parent": (at % 3 == 1).then(|| job(at - 1)), "requester": peer(0), "provider": peer(1 + at % PEERS),
        "capability": "text.generation", "state": if runs { "running" } else { "done" }, "tokens": if runs { round * 3 } else { 64 },
        "takeovers": 0, "budget": 5000, "cost": if runs { 0 } else { 120 }, "since": since(at),
        "ended": (!runs).then(|| since(at) + 800) })
}
