//! HTTP as it stands on the wire, so that a test can say what no well-behaved client would.
//!
//! Requests are of version 1.0: the answer is not cut into chunks, and ends with the connection.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::LIMIT;

/// A request to a local API.
#[derive(Debug)]
pub(crate) struct Request {
    authority: String,
    headers: Vec<(String, String)>,
    line: String,
    body: String,
}

/// Its answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    /// Of a path below `base`.
    pub(crate) fn get(base: &str, path: &str) -> Self {
        Self::of("GET", base, path)
    }

    /// The same with another method.
    pub(crate) fn of(method: &str, base: &str, path: &str) -> Self {
        let authority = base.strip_prefix("http://").unwrap().to_owned();
        let host = ("host".to_owned(), authority.clone());
        Self { authority, headers: vec![host], line: format!("{method} {path}"), body: String::new() }
    }

    /// With a token.
    pub(crate) fn by(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// With a JSON body.
    pub(crate) fn post(base: &str, path: &str, body: &Value) -> Self {
        let mut request = Self::get(base, path).with("content-type", "application/json");
        (request.line, request.body) = (format!("POST {path}"), body.to_string());
        request
    }

    /// With another body.
    pub(crate) fn body(self, body: &str) -> Self {
        Self { body: body.to_owned(), ..self }
    }

    /// With a header instead of what it says of that name.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends it and reads the answer to its end.
    pub(crate) fn send(self) -> Response {
        let mut stream = self.open();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let answer = String::from_utf8(bytes).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        };
        Response { status, headers: head.lines().filter_map(header).collect(), body: body.to_owned() }
    }

    /// Sends it and leaves the answer unread.
    pub(crate) fn open(self) -> TcpStream {
        let mut stream = TcpStream::connect(&self.authority).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = self.body.len();
        let text =
            format!("{} HTTP/1.0\r\n{headers}content-length: {length}\r\n\r\n{}", self.line, self.body);
        // Who refuses a request by its head does not read the rest, and says why all the same.
        let _ = stream.write_all(text.as_bytes());
        stream
    }
}

impl Response {
    /// The body as a document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What a header says; its name in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The data of server-sent events.
    pub(crate) fn events(&self) -> Vec<String> {
        self.body.lines().filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned())).collect()
    }
}
