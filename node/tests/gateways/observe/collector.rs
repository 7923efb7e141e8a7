//! A collector of traces, as small as one can be: it takes what is posted, and remembers it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::support::LIMIT;

/// A collector that listens until the test ends.
#[derive(Clone)]
pub(crate) struct Collector {
    pub(crate) url: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    pub(crate) fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let bodies = Arc::<Mutex<Vec<_>>>::default();
        let taken = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let taken = Arc::clone(&taken);
                std::thread::spawn(move || serve(stream, &taken));
            }
        });
        Self { url, bodies }
    }

    /// Every byte that came.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bodies.lock().expect("the bodies").concat()
    }

    /// Every span that came, by when it began.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().expect("the bodies");
        let requests = bodies.iter().map(|body| ExportTraceServiceRequest::decode(&body[..]).expect("OTLP"));
        let resources = requests.flat_map(|request| request.resource_spans);
        let mut spans: Vec<Span> = resources
            .flat_map(|one| {
                let resource = one.resource.expect("who sends");
                assert_eq!(said(&resource.attributes, "service.name").as_deref(), Some("llamesh"));
                one.scope_spans.into_iter().flat_map(|scope| scope.spans)
            })
            .collect();
        spans.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
        spans
    }

    /// The spans as soon as they are what is awaited; `flush` sends what has ended.
    pub(crate) fn until(&self, flush: impl Fn(), are: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let since = Instant::now();
        loop {
            flush();
            let spans = self.spans();
            if are(&spans) {
                return spans;
            }
            let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
            assert!(since.elapsed() < LIMIT, "{names:?}");
            std::thread::yield_now();
        }
    }
}

/// Requests of one connection, until it ends.
fn serve(stream: TcpStream, taken: &Mutex<Vec<Vec<u8>>>) {
    let Ok(mut answer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let head = line.trim().to_ascii_lowercase();
            if let Some(told) = head.strip_prefix("content-length:") {
                length = told.trim().parse().expect("a length");
            }
            if head.starts_with("post ") {
                assert!(head.starts_with("post /v1/traces "), "{head}");
            }
            if head.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        taken.lock().expect("the bodies").push(body);
        let _ = answer.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n",
        );
    }
}

/// What an attribute says, as text.
pub(crate) fn said(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref().map(text)
}

fn text(value: &AnyValue) -> String {
    match value.value.as_ref().expect("a value") {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(yes) => yes.to_string(),
        Value::ArrayValue(list) => list.values.iter().map(text).collect::<Vec<_>>().join(","),
        other => panic!("{other:?}"),
    }
}
