//! The agent against servers on loopback that behave well, badly, or not at all.

use protocol::Sampling;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;

/// A server for one request: what it says is given, what it was asked can be looked at.
struct Stub {
    base_url: String,
    asked: oneshot::Receiver<(String, Value)>,
    stream: oneshot::Receiver<TcpStream>,
}

impl Stub {
    /// Says `reply`, then waits with the connection open until the test lets go of it.
    async fn says(reply: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1/", listener.local_addr().unwrap());
        let (ask, asked) = oneshot::channel();
        let (hand_over, stream) = oneshot::channel();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // A test may not care what was asked, or be gone already.
            let _ = ask.send(read_request(&mut stream).await);
            stream.write_all(reply.as_bytes()).await.unwrap();
            let _ = hand_over.send(stream);
        });
        Self { base_url, asked, stream }
    }

    fn upstream(&self) -> Upstream {
        let server = Server {
            base_url: self.base_url.clone(),
            model: "big".to_owned(),
            api_key: Some(ApiKey::new("s3cret").unwrap()),
        };
        Upstream::new(server, Capability::text_generation(), Price::default()).unwrap()
    }

    /// Everything that a job gets; the server hangs up after its reply.
    async fn answers(self, input: &Input, sampling: &Sampling) -> Result<(Vec<String>, Finish), JobError> {
        let upstream = self.upstream();
        tokio::spawn(async move { drop(self.stream.await) });
        let mut run = Run::begin(&upstream, &free(input, sampling), FAR).await?;
        let mut pieces = Vec::new();
        loop {
            match run.next().await? {
                Said::Piece(text) => pieces.push(text),
                Said::Finished(finish) => return Ok((pieces, finish)),
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> (String, Value) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let len =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; len.unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n{body}")
}

fn events(texts: &[&str], end: &str) -> String {
    let event = |text: &&str| {
        format!(
            "data: {}\n\n",
            serde_json::json!({ "choices": [{ "index": 0, "delta": { "content": text } }] })
        )
    };
    let body = texts.iter().map(event).collect::<String>() + end;
    reply("200 OK", "content-type: text/event-stream\r\n", &body)
}

fn chat() -> Input {
    Input::Chat(vec![protocol::ChatMessage::new(protocol::Role::User, "Hello?")].into())
}

/// A job without a form.
fn free<'a>(input: &'a Input, sampling: &'a Sampling) -> Asked<'a> {
    Asked { input, sampling, constraint: None }
}

const FAR: Timestamp = Timestamp(u64::MAX);

const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

#[tokio::test]
async fn a_chat_streams() {
    let stub =
        Stub::says(events(&["", "Hel", "lo", "!"], &format!(": alive\n\n{STOP}data: [DONE]\n\n"))).await;
    let upstream = stub.upstream();
    let mut run = Run::begin(&upstream, &free(&chat(), &Sampling::default()), FAR).await.unwrap();
    for text in ["Hel", "lo", "!"] {
        assert_eq!(run.next().await, Ok(Said::Piece(text.to_owned())));
    }
    assert_eq!(run.next().await, Ok(Said::Finished(Finish::EndOfText)));
    let (head, body) = stub.asked.await.unwrap();
    assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
    assert!(head.contains("authorization: Bearer s3cret"), "{head}");
    assert_eq!((&body["model"], &body["stream"]), (&"big".into(), &true.into()));
    assert_eq!(body["messages"][0]["content"], "Hello?");
}

#[tokio::test]
async fn raw_text_streams_from_the_other_endpoint() {
    let body = "data: {\"choices\":[{\"text\":\" upon\"}]}\n\ndata: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n";
    let stub = Stub::says(reply("200 OK", "", body)).await;
    let upstream = stub.upstream();
    let input = Input::Text("Once".to_owned());
    let mut run = Run::begin(&upstream, &free(&input, &Sampling::default()), FAR).await.unwrap();
    assert_eq!(run.next().await, Ok(Said::Piece(" upon".to_owned())));
    assert_eq!(run.next().await, Ok(Said::Finished(Finish::Length)));
    let (head, body) = stub.asked.await.unwrap();
    assert!(head.starts_with("POST /v1/completions "), "{head}");
    assert_eq!(body["prompt"], "Once");
}

#[tokio::test]
async fn more_than_was_ordered_is_not_passed_on() {
    let stub = Stub::says(events(&["a", "b", "c", "d"], STOP)).await;
    let sampling = Sampling { max_tokens: 2, ..Sampling::default() };
    let answer = stub.answers(&chat(), &sampling).await;
    assert_eq!(answer, Ok((vec!["a".to_owned(), "b".to_owned()], Finish::Length)));
    let stub = Stub::says(events(&["a", "b"], STOP)).await;
    let (_, finish) = stub.answers(&chat(), &sampling).await.unwrap();
    assert_eq!(finish, Finish::EndOfText, "exactly what was ordered ended by itself");
}

#[tokio::test]
async fn a_broken_answer_is_a_failure_and_never_an_answer() {
    let chunked = "transfer-encoding: chunked\r\n";
    let broken = [
        events(&["Hel"], ""),
        events(&["Hel"], "data: {\"choices\":[{\"del"),
        events(&["Hel"], "data: <html>\n\n"),
        events(&["Hel"], "data: {\"error\":{\"message\":\"out of memory\"}}\n\n"),
        reply("200 OK", chunked, &format!("{:x}\r\n{STOP}", 2 * STOP.len())),
        reply("200 OK", "content-type: text/html\r\n", "<html>Welcome</html>"),
        reply("200 OK", "", "\u{0}\u{1}"),
        reply("302 Found", "location: /v1/elsewhere\r\n", ""),
        reply("401 Unauthorized", "", "who?"),
        reply("500 Internal Server Error", "", ""),
        "hello?\r\n\r\n".to_owned(),
        String::new(),
    ];
    // A finish that has arrived counts, although the line broke right after it.
    let finished = 4;
    for (index, said) in broken.into_iter().enumerate() {
        let answer = Stub::says(said.clone()).await.answers(&chat(), &Sampling::default()).await;
        let expected =
            if index == finished { Ok((Vec::new(), Finish::EndOfText)) } else { Err(JobError::Engine) };
        assert_eq!(answer, expected, "{said}");
    }
}

#[tokio::test]
async fn a_busy_server_says_when_to_come_back() {
    let cases = [
        ("429 Too Many Requests", "retry-after: 7\r\n", 7000),
        ("503 Service Unavailable", "", RETRY_AFTER_MS),
        ("429 Too Many Requests", "retry-after: Wed, 21 Oct 2026 07:28:00 GMT\r\n", RETRY_AFTER_MS),
        ("429 Too Many Requests", "retry-after: 18446744073709551615\r\n", MAX_RETRY_AFTER_MS),
    ];
    for (status, headers, retry_after_ms) in cases {
        let answer =
            Stub::says(reply(status, headers, "")).await.answers(&chat(), &Sampling::default()).await;
        assert_eq!(answer, Err(JobError::Busy { retry_after_ms }), "{status} {headers}");
    }
}

#[tokio::test]
async fn a_bad_request_is_explained_briefly_and_without_the_key() {
    let long =
        format!("{{\"error\":{{\"message\":\"temperature\\nis odd, s3cret! {}\"}}}}", "x".repeat(3000));
    for (body, told) in [(long.as_str(), "temperature is odd, (key)! xxx"), ("no JSON", "no JSON")] {
        let stub = Stub::says(reply("400 Bad Request", "", body)).await;
        let error = stub.answers(&chat(), &Sampling::default()).await.unwrap_err();
        let JobError::Invalid { problem, .. } = &error else { panic!("{error:?}") };
        let text = problem.to_string();
        assert!(text.contains(told) && !text.contains("s3cret"), "{text}");
    }
    let endless = format!("content-length: {}\r\n", 1_u64 << 40);
    let stub = Stub::says(reply("400 Bad Request", &endless, &"y".repeat(100_000))).await;
    assert!(matches!(stub.answers(&chat(), &Sampling::default()).await, Err(JobError::Invalid { .. })));
}

#[tokio::test]
async fn what_has_no_model_takes_no_token_ids() {
    let stub = Stub::says(String::new()).await;
    let answer = stub.answers(&Input::Tokens(vec![1]), &Sampling::default()).await;
    assert_eq!(answer, Err(JobError::Unsupported { feature: Feature::Input }));
}

#[tokio::test]
async fn a_form_that_servers_have_no_name_for_is_refused() {
    let schema = Constraint::JsonSchema("{}".to_owned());
    let forms = [Constraint::Regex("x".to_owned()), Constraint::Choices(vec!["x".to_owned()])];
    let chats = forms.iter().map(|form| (chat(), form));
    for (input, constraint) in chats.chain([(Input::Text("x".to_owned()), &schema)]) {
        let upstream = Stub::says(String::new()).await.upstream();
        let sampling = Sampling::default();
        let asked = Asked { constraint: Some(constraint), ..free(&input, &sampling) };
        let refused = Run::begin(&upstream, &asked, FAR).await.map(|_| ());
        assert_eq!(refused, Err(JobError::Unsupported { feature: Feature::Constraint }));
    }
}

#[tokio::test]
async fn the_deadline_ends_the_waiting() {
    let stub = Stub::says(String::new()).await;
    let upstream = stub.upstream();
    let run = Run::begin(&upstream, &free(&chat(), &Sampling::default()), Timestamp(0)).await;
    assert_eq!(run.unwrap_err(), JobError::DeadlineExceeded);
}

#[tokio::test]
async fn dropping_a_run_hangs_up() {
    let stub = Stub::says(events(&["Hel"], "")).await;
    let upstream = stub.upstream();
    let mut run = Run::begin(&upstream, &free(&chat(), &Sampling::default()), FAR).await.unwrap();
    assert_eq!(run.next().await, Ok(Said::Piece("Hel".to_owned())));
    let mut stream = stub.stream.await.unwrap();
    drop(run);
    // Either way of ending a connection will do; waiting for ever would not.
    assert!(matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)));
}

#[test]
fn addresses_are_checked_and_keys_never_printed() {
    let server = |base_url: &str| Server {
        base_url: base_url.to_owned(),
        model: "big".to_owned(),
        api_key: Some(ApiKey::new("s3cret\n").unwrap()),
    };
    let new =
        |base_url: &str| Upstream::new(server(base_url), Capability::text_generation(), Price::default());
    let upstream = new("https://models.example/v1").unwrap();
    assert!(!format!("{upstream:?}").contains("s3cret"));
    assert_eq!(upstream.offer().model, None);
    assert_eq!(upstream.offer().agent, "upstream-text.generation");
    assert_eq!(upstream.named(Some("mine".to_owned())).offer().agent, "mine");
    for address in ["", "models.example", "ftp://models.example/", "file:///etc"] {
        assert!(matches!(new(address), Err(UpstreamError::Address(_))), "{address}");
    }
    assert!(matches!(new("http://me:pass@models.example"), Err(UpstreamError::Credentials)));
    assert!(matches!(ApiKey::new("two\nlines"), Err(UpstreamError::Key(_))));
}
