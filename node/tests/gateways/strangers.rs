//! What strangers' files and programs bring to a peer: some thousand broken inputs each. Every one is answered, nothing
//! breaks, and the peer serves the next one.

#[path = "../../../protocol/tests/suite/mutation.rs"]
mod mutation;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use mutation::Mutator;
use node::api::openai;
use node::receipts::ReceiptFile;
use node::request::JobRequest;
use protocol::Timestamp;
use serde_json::{Value, json};

use crate::support::{Home, LIMIT, Peer, text, tiny};

/// Inputs for each parser.
const INPUTS: usize = 3000;

/// A connection that is kept for many requests, and made anew where the peer ends it.
struct Connection {
    authority: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    fn to(api: &str) -> Self {
        Self { authority: api.trim_start_matches("http://").to_owned(), stream: None }
    }

    fn open(&mut self) -> &mut BufReader<TcpStream> {
        let authority = &self.authority;
        self.stream.get_or_insert_with(|| {
            let stream = TcpStream::connect(authority).expect("the peer is there");
            stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
            BufReader::new(stream)
        })
    }

    /// The status and body of an answer with a length.
    fn ask(&mut self, head: &[u8], body: &[u8]) -> (u16, Vec<u8>) {
        let stream = self.open();
        stream.get_mut().write_all(&[head, body].concat()).expect("room");
        let (mut status, mut length, mut closes, mut line) = (0, 0, false, String::new());
        loop {
            line.clear();
            stream.read_line(&mut line).expect("an answer");
            let lower = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = lower.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status");
            }
            if let Some(value) = lower.strip_prefix("content-length: ") {
                length = value.parse().expect("a length");
            }
            closes |= lower == "connection: close";
            if lower.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).expect("all of it");
        if closes {
            self.stream = None;
        }
        (status, answer)
    }

    fn post(&mut self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n",
            self.authority
        );
        self.ask(head.as_bytes(), body)
    }
}

/// What clients ask.
fn requests() -> Vec<(&'static str, Vec<Value>)> {
    let chat = json!({ "model": "m", "messages": [{ "role": "system", "content": "s" },
        { "role": "user", "content": [{ "type": "text", "text": "é🦙" }], "name": "n" },
        { "role": "assistant", "tool_calls": [{ "id": "1", "type": "function", "function": { "name": "f", "arguments": "{}" } }] },
        { "role": "tool", "tool_call_id": "1", "content": "r" }],
        "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }],
        "tool_choice": { "type": "function", "function": { "name": "f" } }, "temperature": 0.5, "top_p": 1,
        "logprobs": true, "top_logprobs": 2, "n": 2, "seed": -5, "stop": ["a"], "max_completion_tokens": 3,
        "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "object" } } } });
    let text = json!({ "model": "m", "prompt": ["a", "b"], "max_tokens": 0, "echo": true, "logprobs": 1, "stop": "x" });
    let ids = json!({ "model": "m", "prompt": [[1, 2], [3]], "n": 2, "suffix": null });
    let job = json!({ "prompt": "x", "capability": "text.generation", "stop": ["a"], "budget": 5, "timeout_s": 1,
        "tools": [{ "name": "f", "description": "d", "parameters": { "type": "object" } }] });
    vec![
        ("/v1/chat/completions", vec![chat]),
        ("/v1/completions", vec![text, ids]),
        ("/control/jobs", vec![job]),
    ]
}

/// Whether a body says what a path is for. Then a job would follow, which is not what is tried here.
fn reads(path: &str, body: &[u8]) -> bool {
    match path {
        "/v1/chat/completions" => openai::reads(body)[0],
        "/v1/completions" => openai::reads(body)[1],
        _ => serde_json::from_slice::<JobRequest>(body).is_ok_and(|job| job.spec(Timestamp(1), None).is_ok()),
    }
}

#[test]
fn bodies_of_requests() {
    let peer = Peer::up(&["--model", "-"]);
    let mut connection = Connection::to(&peer.api());
    let mut mutator = Mutator::new(1);
    for (path, honest) in requests() {
        let honest: Vec<Vec<u8>> = honest.iter().map(|body| body.to_string().into_bytes()).collect();
        assert!(honest.iter().all(|body| reads(path, body)), "{path}: what is honest is read");
        for number in 0..INPUTS {
            let body = if number % 8 == 0 { mutator.noise(300) } else { mutator.mutated(&honest) };
            if reads(path, &body) {
                continue;
            }
            let (status, answer) = connection.post(path, &body);
            let shown = || format!("{path}: {} gave {status} {}", body.escape_ascii(), answer.escape_ascii());
            assert!((400..500).contains(&status), "{}", shown());
            if path.starts_with("/v1") {
                let answer: Value = serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{}", shown()));
                assert!(answer["error"]["message"].is_string(), "{}", shown());
            }
        }
    }
}

#[test]
fn heads_of_requests() {
    let peer = Peer::up(&["--model", "-"]);
    let mut connection = Connection::to(&peer.api());
    let host = connection.authority.clone();
    let honest = [
        format!(
            "GET /v1/models HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer llamesh_00000000_x\r\norigin: http://{host}"
        ),
        format!("DELETE /control/jobs/00 HTTP/1.1\r\nhost: {host}\r\naccept: */*\r\nx-request-id: 1"),
        "GET /control/find?capability=text HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue".to_owned(),
    ];
    let honest = honest.map(String::into_bytes);
    let mut mutator = Mutator::new(2);
    for _ in 0..INPUTS {
        let mut head = mutator.mutated(&honest);
        head.truncate(4096);
        head.extend(b"\r\nconnection: close\r\n\r\n");
        // A head that promises a body has it here: the end of what is sent.
        let mut stream = TcpStream::connect(&host).expect("the peer is there");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        stream.write_all(&head).expect("room");
        stream.shutdown(std::net::Shutdown::Write).expect("an end");
        // What is no HTTP may be hung up on.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let last = format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\n\r\n");
    assert_eq!(connection.ask(last.as_bytes(), b"").0, 200, "and it serves the next one");
}

#[test]
fn files_of_receipts() {
    let home = Home::new();
    let model = tiny(&home);
    let peer = home.up(&["--model", &model]);
    let done = peer.submit(&["x", "--max-tokens", "3"]).done().clone();
    let file = std::fs::read(text(&done["receipt_file"])).expect("a receipt");
    let parse = |bytes: &[u8]| ReceiptFile::parse(std::str::from_utf8(bytes).ok()?).ok();
    let sound = parse(&file).expect("a sound receipt").receipt.digest();
    let honest = [file];
    let mut mutator = Mutator::new(3);
    for number in 0..INPUTS {
        let bytes = if number % 8 == 0 { mutator.noise(300) } else { mutator.mutated(&honest) };
        // Another space or order of lines may be read; another receipt may not.
        let read = parse(&bytes);
        assert!(read.is_none_or(|read| read.receipt.digest() == sound), "{}", bytes.escape_ascii());
    }
}
