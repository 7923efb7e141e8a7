//! Providers that die: the next job goes to another one, and a job whose answer has not begun does, too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;
use std::thread;

use crate::support::{Home, LIMIT, Peer};

#[test]
fn the_next_job_goes_to_a_provider_that_lives() {
    let requester = Peer::up(&["--model", "-"]);
    let mut providers =
        [Peer::join(&requester, &["--engine", "echo"]), Peer::join(&requester, &["--engine", "echo"])];
    for provider in &providers {
        requester.submit(&["x", "--provider", &provider.id()]).done();
    }
    providers[0].kill();
    for _ in 0..3 {
        let outcome = requester.submit(&["still here"]);
        assert_eq!(outcome.answer(), "still here");
        assert_eq!(outcome.done()["provider"], providers[1].id());
    }
    // Through a peer of its own as well, which hears of both.
    let outcome = Home::new().run(&["submit", "still here", "--bootstrap", &requester.address()]);
    assert_eq!(outcome.done()["provider"], providers[1].id());
}

#[test]
fn a_job_outlives_its_provider_until_the_answer_begins() {
    // Behind both providers is a server that says nothing to the first who asks, and "done" to the second.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", server.local_addr().unwrap());
    let (asked, questions) = sync_channel(1);
    thread::spawn(move || serve(&server, &asked));
    let home = || {
        let home = Home::new();
        std::fs::create_dir(home.data()).unwrap();
        let agent =
            format!("capability = \"text.generation\"\nupstream = {{ url = \"{address}\", model = \"m\" }}");
        std::fs::write(home.data().join("llamesh.toml"), format!("[[agent]]\n{agent}\n")).unwrap();
        home
    };
    let requester = Peer::up(&["--model", "-"]);
    let place = requester.address();
    let mut providers = [home().up(&["--bootstrap", &place]), home().up(&["--bootstrap", &place])];
    let mut process = requester.home.start(&["submit", "who answers?"]);
    let first = process.until("started")["provider"].clone();
    questions.recv_timeout(LIMIT).unwrap();
    let dying = providers.iter().position(|provider| first == provider.id()).unwrap();
    providers[dying].kill();
    let second = process.until("started")["provider"].clone();
    assert_ne!(first, second);
    let outcome = process.finish();
    assert_eq!((outcome.answer().as_str(), &outcome.done()["provider"]), ("done", &second));
    let file = crate::support::text(&outcome.done()["receipt_file"]);
    assert_eq!(requester.run(&["verify", &file]).document()["verdict"], "signed");
}

/// Takes what comes; answers everybody but the first.
fn serve(server: &TcpListener, asked: &std::sync::mpsc::SyncSender<()>) {
    let mut silent: Vec<TcpStream> = Vec::new();
    for stream in server.incoming().map_while(Result::ok) {
        read_request(&stream);
        if silent.is_empty() {
            silent.push(stream);
            asked.send(()).expect("the test waits for it");
            continue;
        }
        let chunk = r#"{"choices":[{"index":0,"delta":{"content":"done"},"finish_reason":"stop"}]}"#;
        let body = format!("data: {chunk}\n\ndata: [DONE]\n\n");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";
        let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        (&stream).write_all(answer.as_bytes()).expect("the provider reads");
    }
}

/// To its last byte: closing with something unread would take the answer back.
fn read_request(stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    let head: Vec<String> =
        reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let length =
        head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.expect("a request with a body")];
    reader.read_exact(&mut body).expect("the whole body");
}

#[test]
fn an_answer_that_breaks_off_is_a_failure() {
    let requester = Peer::up(&["--model", "-"]);
    let mut provider = Peer::join(&requester, &["--engine", "echo:20"]);
    let _other = Peer::join(&requester, &["--engine", "echo:20"]);
    let id = provider.id();
    let mut process =
        requester.home.start(&["submit", "on and on ", "--max-tokens", "3000", "--provider", &id]);
    process.until("token");
    provider.kill();
    let outcome = process.finish();
    outcome.refused(6, &["the provider was lost in the middle of the answer"]);
    assert!(
        !outcome.lines.iter().any(|line| line["event"] == "started" || line["event"] == "done"),
        "{outcome:?}"
    );
    // What was lost is held against nobody else, and nothing is left of it here.
    assert_eq!(requester.submit(&["x ", "--max-tokens", "2"]).answer(), "x x ");
    assert_eq!(requester.run(&["receipts"]).lines.len(), 1);
}

#[test]
fn a_requester_that_dies_frees_its_provider() {
    let provider = Peer::up(&["--engine", "echo:20", "--slots", "1"]);
    let mut requester = Peer::join(&provider, &["--model", "-"]);
    let mut process = requester.home.start(&["submit", "on and on ", "--max-tokens", "3000"]);
    process.until("token");
    requester.kill();
    process.finish().refused(6, &["stopped"]);
    assert_eq!(provider.submit(&["x ", "--max-tokens", "2"]).answer(), "x x ");
}
