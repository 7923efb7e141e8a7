//! What the mesh is compared with (bytes over raw TCP, and over HTTP), and the same HTTP client on the local API.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use eventsource_stream::Eventsource;
use futures::StreamExt;
use node::api::{Api, Server};
use node::handle::NodeHandle;
use node::request::{JobRequest, JobUpdate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::pair::Course;
use crate::process::Failed;

/// A TCP connection whose other end gives back what it gets.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) async fn connect() -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let near = TcpStream::connect(listener.local_addr()?).await?;
        let (mut far, _) = listener.accept().await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = far.read(&mut buffer).await {
                far.write_all(&buffer[..read]).await?;
            }
            Ok::<_, std::io::Error>(())
        });
        Ok(Self(near))
    }

    pub(crate) async fn round_trip(&mut self, question: &[u8]) -> Result<Duration, Failed> {
        let mut answer = vec![0; question.len()];
        let begin = Instant::now();
        self.0.write_all(question).await?;
        self.0.read_exact(&mut answer).await?;
        Ok(begin.elapsed())
    }
}

/// An HTTP server that gives back what it gets, and a client that keeps its connection.
pub(crate) struct Http {
    client: reqwest::Client,
    url: String,
}

impl Http {
    pub(crate) async fn start() -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let router = Router::new().route("/", post(async |body: Bytes| body));
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok(Self { client: client()?, url })
    }

    pub(crate) async fn round_trip(&self, question: &[u8]) -> Result<Duration, Failed> {
        let body = question.to_vec();
        let begin = Instant::now();
        self.client.post(&self.url).body(body).send().await?.bytes().await?;
        Ok(begin.elapsed())
    }
}

/// The local API of a peer.
pub(crate) struct LocalApi {
    client: reqwest::Client,
    /// The base of every path.
    pub(crate) base: String,
}

impl LocalApi {
    pub(crate) async fn start(node: NodeHandle, receipts: PathBuf) -> Result<Self, Failed> {
        let server = Server::bind("127.0.0.1:0").await?;
        let base = server.url();
        tokio::spawn(server.serve(Api { node, receipts: Some(receipts) }, CancellationToken::new()));
        Ok(Self { client: client()?, base })
    }

    /// One job, from the request to the last server-sent event.
    pub(crate) async fn job(&self, request: &JobRequest) -> Result<Course, Failed> {
        let begin = Instant::now();
        let mut course = Course::default();
        let response = self
            .client
            .post(format!("{}/control/jobs", self.base))
            .json(request)
            .send()
            .await?
            .error_for_status()?;
        let mut events = response.bytes_stream().eventsource();
        while let Some(event) = events.next().await {
            match serde_json::from_str(&event?.data)? {
                JobUpdate::Started { .. } => course.started = begin.elapsed(),
                JobUpdate::Token { .. } => course.token(begin),
                JobUpdate::Done { .. } => course.done = begin.elapsed(),
                JobUpdate::Failed { message, .. } => return Err(message.into()),
                _ => {}
            }
        }
        Ok(course)
    }
}

/// A client that keeps its connections.
pub(crate) fn client() -> Result<reqwest::Client, Failed> {
    Ok(reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?)
}
