//! How much a client may take: of room, of time, of places. Clients here are as bad as TCP allows.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use node::Node;
use node::agents::{Agent, Agents, Context, Job, Running};
use node::api::Server;
use node::api::bounds::Bounds;
use protocol::{AgentOffer, Capability, Finish, JobKind, Token};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::support::LIMIT;
use crate::support::http::Request;
use crate::support::within::{Counted, alone, free, serve};

/// Moments that a test waits for on purpose.
const SOON: Duration = Duration::from_millis(200);

/// Says much, and then waits for ever; counts the runs that are at work.
#[derive(Debug)]
struct Fountain {
    running: watch::Sender<usize>,
}

impl Agent for Fountain {
    fn offer(&self) -> AgentOffer {
        free("fountain", Capability::text_generation(), vec![JobKind::Generate])
    }

    fn run(self: Arc<Self>, job: Job, context: Context) -> Running {
        Box::pin(async move {
            let _running = Counted::by(&self.running);
            let text = "x".repeat(100);
            for _ in 1..job.order.sampling.max_tokens {
                context.token(Token { id: None, text: text.clone() }).await;
            }
            std::future::pending::<()>().await;
            Ok(Finish::Length)
        })
    }
}

struct Gateway {
    _node: Node,
    url: String,
    running: watch::Receiver<usize>,
}

impl Gateway {
    async fn up(bounds: Bounds) -> Self {
        let (sender, running) = watch::channel(0);
        let mut agents = Agents::default();
        agents.host(Arc::new(Fountain { running: sender }));
        let node = Node::start(alone(agents)).await.expect("a peer");
        let server = Server::bind_within("127.0.0.1:0", bounds).await.expect("a free port");
        let url = serve(&node, server);
        Self { _node: node, url, running }
    }

    fn chat(&self, max_tokens: u32) -> Request {
        let body = json!({ "model": "auto", "messages": [{ "role": "user", "content": "x" }], "stream": true,
            "max_tokens": max_tokens });
        Request::post(&self.url, "/v1/chat/completions", &body)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.url.trim_start_matches("http://")).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        stream
    }

    async fn until(&mut self, count: usize) {
        let reached = self.running.wait_for(|running| *running == count);
        tokio::time::timeout(LIMIT, reached).await.expect("in time").expect("a peer");
    }
}

/// All that a connection says to its end.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // One that is reset has said all that it had to.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn error_code(answer: &str) -> Value {
    let body = answer.split_once("\r\n\r\n").expect("an answer").1;
    serde_json::from_str::<Value>(body).expect("JSON")["error"]["code"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_holds_no_slot() {
    let bounds = Bounds { stall: SOON, send_buffer: 16 << 10, ..Bounds::default() };
    let mut gateway = Gateway::up(bounds).await;
    // 32768 tokens, which no buffer between here and there holds.
    let silent = block_in_place(|| gateway.chat(32_768).open());
    gateway.until(1).await;
    gateway.until(0).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_holds_no_slot() {
    let mut gateway = Gateway::up(Bounds::default()).await;
    let stream = block_in_place(|| gateway.chat(4).open());
    gateway.until(1).await;
    drop(stream);
    gateway.until(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_one_too_many_is_told_when_to_come_back() {
    let mut gateway = Gateway::up(Bounds { requests: 1, ..Bounds::default() }).await;
    let url = gateway.url.clone();
    let models = || block_in_place(|| Request::get(&url, "/v1/models").send());
    let first = block_in_place(|| gateway.chat(4).open());
    gateway.until(1).await;
    let second = models();
    assert_eq!((second.status, &second.json()["error"]["code"]), (503, &json!("overloaded")), "{second:?}");
    assert_eq!(second.header("retry-after"), Some("1"));
    let health = block_in_place(|| Request::get(&url, "/health").send());
    assert_eq!(health.status, 200, "whoever watches the peer is answered");
    drop(first);
    gateway.until(0).await;
    let mut tries = 0..1000;
    assert!(tries.any(|_| models().status == 200), "a place is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_is_not_waited_for() {
    let bounds = Bounds { head_time: SOON, body_time: SOON, connections: 1, ..Bounds::default() };
    let gateway = Gateway::up(bounds).await;
    let host = gateway.url.trim_start_matches("http://").to_owned();
    block_in_place(|| {
        let mut head = gateway.connect();
        head.write_all(b"GET /v1/models HTTP/1.1\r\nhost:").expect("room");
        assert_eq!(rest(head), "");
        let mut idle = gateway.connect();
        idle.write_all(format!("GET /health HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).expect("room");
        assert!(rest(idle).starts_with("HTTP/1.1 200"), "and then it was closed");
        let mut body = gateway.connect();
        let begun =
            format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: 9\r\n\r\n{{");
        body.write_all(begun.as_bytes()).expect("room");
        let answer = rest(body);
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert_eq!(error_code(&answer), "request_timeout");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_brings_too_much_is_told_so() {
    let gateway = Gateway::up(Bounds { body: 1000, bodies: 2000, ..Bounds::default() }).await;
    let host = gateway.url.trim_start_matches("http://").to_owned();
    let post = |headers: &str, body: &str| {
        let mut stream = gateway.connect();
        let text = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n{body}"
        );
        // The answer may come, and the connection end, before all of it is sent.
        let _ = stream.write_all(text.as_bytes());
        rest(stream)
    };
    block_in_place(|| {
        for (headers, body, status) in [
            ("content-length: 1001\r\n", String::new(), "413"),
            ("transfer-encoding: chunked\r\n", format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000)), "413"),
            ("content-length: 2\r\ncontent-type: application/json\r\n", "{}".to_owned(), "400"),
        ] {
            let answer = post(headers, &body);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{headers}: {answer}");
        }
        let many: String = (0..=Bounds::HEADERS).map(|n| format!("x-{n}: 1\r\n")).collect();
        let long = format!("x: {}\r\n", "x".repeat(2 * Bounds::HEAD));
        for headers in [many, long] {
            let answer = post(&headers, "");
            assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_bodies_together_have_a_bound() {
    let gateway = Gateway::up(Bounds { body: 64 << 10, bodies: 64 << 10, ..Bounds::default() }).await;
    let host = gateway.url.trim_start_matches("http://").to_owned();
    let begin = |headers: &str| {
        let mut stream = gateway.connect();
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).expect("room");
        stream
    };
    // A body without a length takes all the room there is, however short it is in the end.
    for held in ["content-length: 65536\r\n", "transfer-encoding: chunked\r\n"] {
        block_in_place(|| {
            let refused = || {
                let mut stream =
                    begin("content-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n");
                stream.write_all(b"{}").expect("room");
                let answer = rest(stream);
                assert!(["503", "400"].contains(&&answer[9..12]), "{answer}");
                answer.starts_with("HTTP/1.1 503").then(|| {
                    assert!(answer.to_lowercase().contains("\r\nretry-after: 1\r\n"), "{answer}");
                    assert_eq!(error_code(&answer), "overloaded");
                })
            };
            // Where it came while another was being answered there was no room for it: then once more.
            let hold = |_| {
                let first = begin(held);
                (0..10).any(|_| refused().is_some()).then_some(first)
            };
            let first = (0..100).find_map(hold);
            assert!(first.is_some(), "{held}: there is no room beside it");
            drop(first);
            assert!((0..1000).any(|_| refused().is_none()), "{held}: and there is again");
        });
    }
}
