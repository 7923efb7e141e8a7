//! The agent that lends the mesh another server: anything that speaks the OpenAI HTTP API and streams.
//!
//! Its words are passed on and its claims are not: such a server names no digest, so the offer has no model and
//! every receipt replays as `unverifiable`. It is a stranger on the other side, too: what it sends is bounded before
//! it is kept, redirects are not followed (the prompt goes where the operator said, nowhere else), and of its errors
//! only what is wrong with the request reaches the requester.
//!
//! | module | what it answers |
//! |---|---|
//! | `request` | a job as the body of a request |
//! | `answer` | a stream of events as pieces of text and a finish |

pub(super) mod answer;
mod request;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use protocol::error::Feature;
use protocol::{
    AgentOffer, Capability, Constraint, Finish, Input, JobError, JobKind, Price, Speed, Timestamp, Token,
};
use reqwest::header::{AUTHORIZATION, HeaderValue, InvalidHeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Agent, Context, Job, Running};
use crate::clock;
use answer::{Answer, Piece};
use request::{Asked, Body};

/// A key for a server. It is never printed, not even its length.
#[derive(Clone)]
pub struct ApiKey(HeaderValue);

impl ApiKey {
    /// Takes a key as the server's operator gave it.
    ///
    /// # Errors
    /// When it has characters that no HTTP header can carry.
    pub fn new(key: &str) -> Result<Self, UpstreamError> {
        let mut header = HeaderValue::try_from(format!("Bearer {}", key.trim()))?;
        header.set_sensitive(true);
        Ok(Self(header))
    }

    /// What a request carries.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// A text without the key in it, should a server have repeated it.
    pub(super) fn hidden_in(&self, text: &str) -> String {
        let key = self.0.to_str().unwrap_or_default().trim_start_matches("Bearer ");
        if key.is_empty() { text.to_owned() } else { text.replace(key, "(key)") }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// The server behind an [`Upstream`].
#[derive(Clone, Debug)]
pub struct Server {
    /// The part of its address before `/chat/completions`, mostly ending in `/v1`.
    pub base_url: String,
    /// The name of the model there.
    pub model: String,
    /// What it wants to see before it works.
    pub api_key: Option<ApiKey>,
}

/// Why there is no upstream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// No address that could be asked.
    #[error("`{0}` is not an address of an HTTP server; give one like http://127.0.0.1:8080/v1")]
    Address(String),
    /// No HTTP client on this machine.
    #[error("cannot set up an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The address has a password in it, which would end up in logs.
    #[error("the upstream's address has a user or a password in it; give it as the API key")]
    Credentials,
    /// The key is no header value.
    #[error("the API key has characters that cannot be sent; is it complete, and in one line?")]
    Key(#[from] InvalidHeaderValue),
}

/// An agent that asks an OpenAI-compatible server.
#[derive(Clone, Debug)]
pub struct Upstream {
    server: Server,
    name: String,
    capability: Capability,
    price: Price,
    speed: Speed,
    client: Client,
}

impl Upstream {
    /// Lends `server` under `capability` for `price`. Nothing is sent before there is a job.
    ///
    /// # Errors
    /// [`UpstreamError`], when the address could never work.
    pub fn new(server: Server, capability: Capability, price: Price) -> Result<Self, UpstreamError> {
        let client = client(&server.base_url)?;
        let name = format!("upstream-{capability}");
        Ok(Self { server, name, capability, price, speed: Speed::default(), client })
    }

    /// Under another name than that of its capability; a peer with two upstreams for one needs it.
    #[must_use]
    pub fn named(mut self, name: Option<String>) -> Self {
        self.name = name.unwrap_or(self.name);
        self
    }

    /// With a speed that was measured or promised; without, it is offered as unknown.
    #[must_use]
    pub fn with_speed(mut self, speed: Speed) -> Self {
        self.speed = speed;
        self
    }

    async fn serve(&self, job: Job, context: Context) -> Result<Finish, JobError> {
        // Calls come back in a form of their own and likelihoods as the server likes; neither is the mesh's.
        job.check_without(&[Feature::Logprobs, Feature::Tools, Feature::Continuation])?;
        let Job { order, input, constraint, .. } = &job;
        let asked = Asked { input, sampling: &order.sampling, constraint: constraint.as_ref() };
        let mut run = Run::begin(self, &asked, order.limits.deadline).await?;
        loop {
            match run.next().await? {
                Said::Piece(text) => context.token(Token { id: None, text }).await,
                Said::Finished(finish) => return Ok(finish),
            }
        }
    }

    /// Sends the job and waits for the first byte of a good answer.
    async fn ask(&self, asked: &Asked<'_>) -> Result<Response, JobError> {
        let path = match asked.input {
            Input::Chat(_) => "chat/completions",
            Input::Text(_) => "completions",
            // Token ids are those of a model that this agent cannot name.
            Input::Json(_) | Input::Tokens(_) => {
                return Err(JobError::Unsupported { feature: Feature::Input });
            }
        };
        // Of all forms only this one has a name that many servers know, and only in a chat.
        if !matches!(
            (asked.constraint, asked.input),
            (None, _) | (Some(Constraint::JsonSchema(_)), Input::Chat(_))
        ) {
            return Err(JobError::Unsupported { feature: Feature::Constraint });
        }
        let url = format!("{}/{path}", self.server.base_url.trim_end_matches('/'));
        let mut request = self.client.post(url).json(&Body::new(&self.server.model, asked)?);
        if let Some(key) = &self.server.api_key {
            request = request.header(AUTHORIZATION, key.header());
        }
        let response = request.send().await.map_err(|error| failed(&error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            _ => Err(self.refused(response).await),
        }
    }

    /// What a refusal means to the requester. The rest is the operator's business and goes to the log.
    async fn refused(&self, response: Response) -> JobError {
        let status = response.status();
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                JobError::Busy { retry_after_ms: retry_after(&response) }
            }
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                let text = answer::complaint(response).await;
                let text =
                    self.server.api_key.as_ref().map_or_else(|| text.clone(), |key| key.hidden_in(&text));
                JobError::invalid("request", &format!("was refused by the upstream server: {text}"))
            }
            _ => {
                tracing::warn!(%status, upstream = self.server.base_url, "the upstream server refused");
                JobError::Engine
            }
        }
    }
}

impl Agent for Upstream {
    fn offer(&self) -> AgentOffer {
        AgentOffer {
            agent: self.name.clone(),
            capability: self.capability.clone(),
            kinds: vec![JobKind::Generate],
            model: None,
            price: self.price,
            speed: self.speed,
            languages: Vec::new(),
            modalities: vec!["text".to_owned()],
            tools: Vec::new(),
        }
    }

    fn run(self: Arc<Self>, job: Job, context: Context) -> Running {
        Box::pin(async move { self.serve(job, context).await })
    }
}

/// What comes out of a run, in order.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// Some text.
    Piece(String),
    /// The end.
    Finished(Finish),
}

/// One job at the server: its answer, and how much of it may still come. Dropping it closes the connection, which
/// is how such servers are told to stop.
#[derive(Debug)]
struct Run {
    answer: Answer,
    left: u32,
    deadline: Instant,
}

impl Run {
    async fn begin(upstream: &Upstream, asked: &Asked<'_>, deadline: Timestamp) -> Result<Self, JobError> {
        let deadline = clock::instant(deadline);
        let response = in_time(deadline, upstream.ask(asked)).await?;
        Ok(Self { answer: Answer::new(response.bytes_stream()), left: asked.sampling.max_tokens, deadline })
    }

    /// The next piece or the end. More pieces than the requester ordered tokens are never passed on, whatever the
    /// server counts.
    async fn next(&mut self) -> Result<Said, JobError> {
        let next = timeout(IDLE, self.answer.next());
        let next = async { next.await.unwrap_or(Err(JobError::Engine)) };
        match in_time(self.deadline, next).await? {
            Piece::Finished(finish) => Ok(Said::Finished(finish)),
            Piece::Text(_) if self.left == 0 => Ok(Said::Finished(Finish::Length)),
            Piece::Text(text) => {
                self.left -= 1;
                Ok(Said::Piece(text))
            }
        }
    }
}

pub(super) async fn in_time<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, JobError>>,
) -> Result<T, JobError> {
    timeout_at(deadline, work).await.unwrap_or(Err(JobError::DeadlineExceeded))
}

/// A client for a server of the operator's, which is asked at its address and nowhere else.
pub(super) fn client(base_url: &str) -> Result<Client, UpstreamError> {
    let address = Url::parse(base_url).ok().filter(Url::has_host);
    let address = address.filter(|url| matches!(url.scheme(), "http" | "https"));
    let address = address.ok_or_else(|| UpstreamError::Address(base_url.to_owned()))?;
    if !address.username().is_empty() || address.password().is_some() {
        return Err(UpstreamError::Credentials);
    }
    let client = Client::builder().connect_timeout(CONNECT).redirect(redirect::Policy::none());
    // Without TLS there is no need for the system's certificates, which a container may not have.
    Ok(if address.scheme() == "http" { client.tls_certs_only([]) } else { client }.build()?)
}

/// A server that cannot be reached or breaks off. Its address is the operator's, so only the log has it.
pub(super) fn failed(error: &reqwest::Error) -> JobError {
    tracing::warn!(%error, "the upstream server failed");
    JobError::Engine
}

pub(super) fn retry_after(response: &Response) -> u64 {
    let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = header.and_then(|text| text.trim().parse::<u64>().ok());
    seconds.map_or(RETRY_AFTER_MS, |seconds| seconds.saturating_mul(1000).min(MAX_RETRY_AFTER_MS))
}

/// An upstream is near or paid for: one that does not pick up in this time is down.
const CONNECT: Duration = Duration::from_secs(5);

/// Silence in the middle of an answer after which a server is given up; before its first byte the deadline counts.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// When to come back to a server that does not say, and the latest that is believed.
const RETRY_AFTER_MS: u64 = 1000;
const MAX_RETRY_AFTER_MS: u64 = 3600 * 1000;
