//! What strangers' files and programs bring to a peer: two thousand broken inputs each. Every one is answered, nothing
//! breaks, and the peer serves the next one.

#[path = "../../../protocol/tests/suite/mutation.rs"]
mod mutation;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use mutation::Mutator;
use node::api::openai;
use node::receipts::ReceiptFile;
use node::request::JobRequest;
use protocol::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::support::{Home, LIMIT, Peer, text, tiny};

/// Inputs for each parser.
const INPUTS: usize = 2000;

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
#[derive(Deserialize)]
struct Honest {
    path: String,
    body: Value,
}

fn requests() -> BTreeMap<String, Vec<Vec<u8>>> {
    let requests: Vec<Honest> = serde_json::from_str(include_str!("requests.json")).expect("requests");
    let mut by_path: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for Honest { path, body } in requests {
        by_path.entry(path).or_default().push(body.to_string().into_bytes());
    }
    by_path
}

/// Whether a body says what a path is for. Then a job would follow, which is not what is tried here.
fn reads(path: &str, body: &[u8]) -> bool {
    match path {
        "/control/jobs" => {
            serde_json::from_slice::<JobRequest>(body).is_ok_and(|job| job.spec(Timestamp(1), None).is_ok())
        }
        _ => openai::reads(path, body),
    }
}

#[test]
fn bodies_of_requests() {
    let peer = Peer::up(&["--model", "-"]);
    let mut connection = Connection::to(&peer.api());
    let mut mutator = Mutator::new(1);
    for (path, honest) in requests() {
        assert!(honest.iter().all(|body| reads(&path, body)), "{path}: what is honest is read");
        let mut refused = 0;
        for number in 0..INPUTS {
            let body = if number % 8 == 0 { mutator.noise(300) } else { mutator.mutated(&honest) };
            if reads(&path, &body) {
                continue;
            }
            let (status, answer) = connection.post(&path, &body);
            let shown = || format!("{path}: {} gave {status} {}", body.escape_ascii(), answer.escape_ascii());
            assert!((400..500).contains(&status), "{}", shown());
            refused += 1;
            if path != "/control/jobs" {
                let answer: Value = serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{}", shown()));
                assert!(answer["error"]["message"].is_string(), "{}", shown());
            }
        }
        assert!(refused > INPUTS / 8, "{path}: noise is no request");
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
