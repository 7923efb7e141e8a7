//! How a command reaches a peer: the one that runs here, through its API, or one of its own for a moment.
//!
//! `--bootstrap` starts an ephemeral peer: a new key, no folder held, Kademlia client mode. Otherwise the API of the
//! running peer is found through its folder, or given by `--api`. The environment of a peer (`LLAMESH_BOOTSTRAP`) also
//! holds for commands given beside it, so there it is only the last resort: the peer that runs comes first.

use std::future::ready;
use std::sync::Arc;

use clap::Args;
use eventsource_stream::Eventsource;
use futures::stream::once;
use futures::{FutureExt, Stream, StreamExt};
use protocol::{Capability, JobError};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;

use super::Common;
use crate::api::control::{Found, found};
use crate::clock;
use crate::config;
use crate::datadir::DataDir;
use crate::failure::{Class, Failure};
use crate::handle::{NodeHandle, Unavailable};
use crate::journal::Journal;
use crate::net::Address;
use crate::plans::{Jobs, Updates};
use crate::request::{JobRequest, JobUpdate};
use crate::traces::Traces;
use crate::{Node, NodeConfig};

/// Which peer to ask.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Through {
    /// Join the mesh at this address with a peer that lives as long as the command (repeatable) [default, where no
    /// peer runs in the data directory: LLAMESH_BOOTSTRAP]
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub(super) bootstrap: Vec<String>,
    /// The local API of a running peer [default: the one in the data directory]
    #[arg(long, value_name = "URL", conflicts_with = "bootstrap")]
    pub(super) api: Option<String>,
}

/// A way to a peer.
#[derive(Debug)]
pub(super) enum Peer {
    /// The API of a running one.
    Api(Client),
    /// One of our own.
    Own(Node),
}

impl Through {
    /// Reaches a peer.
    pub(super) async fn reach(&self, common: &Common) -> Result<Peer, Failure> {
        let dir = common.data_dir()?;
        let bootstrap = match self.api.clone().or_else(|| dir.api()) {
            Some(url) if self.bootstrap.is_empty() => {
                let token = token(&dir, &url);
                return Ok(Peer::Api(Client::new(&url, token)?));
            }
            None if self.bootstrap.is_empty() => environment(),
            _ => self.bootstrap.clone(),
        };
        if bootstrap.is_empty() {
            let (folder, next) =
                (dir.path().display(), "start one with `llamesh up`, or reach a mesh with --bootstrap ADDR");
            return Err(Failure::new(Class::Network, format!("no peer is running in {folder}: {next}")));
        }
        let bootstrap = config::addresses("bootstrap", &bootstrap)?;
        Ok(Peer::Own(ephemeral(common, bootstrap).await?))
    }
}

/// The token for an API: the one in the environment, or the owner's where this folder's peer serves it. Nobody else
/// is told that one.
fn token(dir: &DataDir, url: &str) -> Option<String> {
    let named = std::env::var("LLAMESH_TOKEN").ok().filter(|token| !token.is_empty());
    let ours = || dir.api().filter(|api| api == &base(url)).and_then(|_| dir.token());
    named.or_else(ours)
}

/// `up` takes the same place as HOST:PORT.
fn base(url: &str) -> String {
    let scheme = if url.contains("://") { "" } else { "http://" };
    format!("{scheme}{}", url.trim_end_matches('/'))
}

fn environment() -> Vec<String> {
    let text = std::env::var("LLAMESH_BOOTSTRAP").unwrap_or_default();
    text.split(',').filter(|address| !address.is_empty()).map(str::to_owned).collect()
}

/// A peer for one command: it joins before this returns.
async fn ephemeral(common: &Common, bootstrap: Vec<Address>) -> Result<Node, Failure> {
    let dir = common.data_dir()?;
    dir.create()?;
    let addresses = bootstrap.len();
    let seed = clock::random().map_err(Failure::of(Class::Internal))?;
    let key = crypto::SecretKey::from_seed(&seed);
    let config = NodeConfig {
        bootstrap,
        client: true,
        receipts: Some(dir.receipts()),
        ..NodeConfig::new(common.network()?, key, Journal::in_memory()?)
    };
    let node = Node::start_traced(config, common.traces()?).await?;
    match node.handle().join(addresses).await {
        Ok(()) => Ok(node),
        Err(failures) => {
            // Nothing has begun yet that would have to end in order.
            let _ = node.stop().await;
            Err(unreachable(&failures))
        }
    }
}

/// Why no bootstrap address led into the mesh, and what to do.
pub(super) fn unreachable(failures: &[(Address, crate::net::BootstrapFailure)]) -> Failure {
    let each: Vec<_> = failures.iter().map(|(address, reason)| format!("\n  {address}: {reason}")).collect();
    let next = "check the address (the first line of `llamesh up` prints it) and that the peer is running";
    Failure::new(Class::Network, format!("no bootstrap peer could be reached: {next}{}", each.concat()))
}

impl Peer {
    /// Ends an own peer in order.
    pub(super) async fn leave(self) -> Result<(), Failure> {
        match self {
            Self::Api(_) => Ok(()),
            Self::Own(node) => node.stop().await,
        }
    }
}

/// The local API of a running peer.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    fn new(url: &str, token: Option<String>) -> Result<Self, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let wrong =
                |_| Failure::new(Class::Usage, "LLAMESH_TOKEN is no token: it has letters and digits only");
            let mut value = value.map_err(wrong)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // It never leaves this machine, and so needs neither a proxy nor the system's certificates, which a container
        // may not have.
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).default_headers(headers).build();
        Ok(Self { http: http.map_err(Failure::of(Class::Internal))?, base: base(url) })
    }

    /// A document.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response =
            self.http.get(format!("{}{path}", self.base)).send().await.map_err(|e| self.gone(&e))?;
        if response.status().is_success() {
            return response.json().await.map_err(Failure::of(Class::Internal));
        }
        Err(refusal(response).await)
    }

    /// Who offers a capability, or an ancestor of it; everybody with an agent where there is none.
    pub(super) async fn found(&self, capability: Option<&Capability>) -> Result<Vec<Found>, Failure> {
        let query = capability.map(|c| format!("?capability={c}")).unwrap_or_default();
        self.get(&format!("/control/find{query}")).await
    }

    /// A stream of documents that goes on for as long as the peer runs.
    pub(super) async fn follow<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = T> + use<T>, Failure> {
        let request = self.http.get(format!("{}{path}", self.base));
        let response = request.send().await.map_err(|error| self.gone(&error))?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let events = response.bytes_stream().eventsource();
        // One that cannot be read says that the stream has broken.
        let read = events.map(|event| serde_json::from_str(&event.ok()?.data).ok());
        Ok(read.take_while(|read| ready(read.is_some())).filter_map(ready))
    }

    /// Does away with something.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        let request = self.http.delete(format!("{}{path}", self.base));
        let response = request.send().await.map_err(|error| self.gone(&error))?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(response).await) }
    }

    /// Has something done that answers nothing.
    pub(super) async fn act(&self, path: &str) -> Result<(), Failure> {
        let request = self.http.post(format!("{}{path}", self.base));
        let response = request.send().await.map_err(|error| self.gone(&error))?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(response).await) }
    }

    /// A job's stream of server-sent events.
    pub(super) async fn post<T: serde::Serialize>(
        &self,
        path: &str,
        body: &T,
    ) -> Result<reqwest::Response, Failure> {
        let response = self.send(path, body).await?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    /// Makes something, and reads what was made.
    pub(super) async fn make<T: serde::Serialize, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &T,
    ) -> Result<R, Failure> {
        self.post(path, body).await?.json().await.map_err(Failure::of(Class::Internal))
    }

    /// Whatever the peer answers.
    async fn send<T: serde::Serialize>(&self, path: &str, body: &T) -> Result<reqwest::Response, Failure> {
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        request.send().await.map_err(|error| self.gone(&error))
    }

    /// The same, of a job that may stand in a trace.
    async fn submit(&self, job: &JobRequest) -> Result<reqwest::Response, Failure> {
        let mut request = self.http.post(format!("{}/control/jobs", self.base)).json(job);
        if let Some(trace) = job.trace {
            request = request.header("traceparent", trace.to_string());
        }
        request.send().await.map_err(|error| self.gone(&error))
    }

    fn gone(&self, error: &reqwest::Error) -> Failure {
        let what = format!(
            "the peer at {} does not answer ({error}): is it running? start one with `llamesh up`",
            self.base
        );
        Failure::new(Class::Network, what)
    }
}

impl Jobs for Client {
    fn stream(&self, request: JobRequest) -> Updates {
        let client = self.clone();
        let sent = async move { client.submit(&request).await };
        let updates = once(sent).flat_map(|response| match response {
            Ok(response) if response.status().is_success() => {
                response.bytes_stream().eventsource().map(update_of).boxed()
            }
            Ok(refused) => once(refused.json().map(|update| update.unwrap_or_else(|_| lost()))).boxed(),
            // Without a peer here another try would find none either.
            Err(failure) => once(async move { JobError::invalid("peer", &failure.message).into() }).boxed(),
        });
        updates.boxed()
    }
}

/// What the running peer said of a job; a stream that breaks says that the peer is gone.
fn update_of<E>(event: Result<eventsource_stream::Event, E>) -> JobUpdate {
    let update = event.ok().and_then(|event| serde_json::from_str(&event.data).ok());
    update.unwrap_or_else(lost)
}

fn lost() -> JobUpdate {
    JobError::ProviderLost.into()
}

async fn refusal(response: reqwest::Response) -> Failure {
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    if let Ok(JobUpdate::Failed { code, message, .. }) = serde_json::from_slice(&body) {
        return Failure::new(Class::of_job(&code), message);
    }
    // What the door says has OpenAI's shape.
    let said = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
    match said["error"]["message"].as_str() {
        Some(message) => Failure::new(Class::Request, message),
        None => Failure::new(Class::Network, format!("the peer answered {status}")),
    }
}

/// For commands that only look.
pub(super) fn busy(_: Unavailable) -> Failure {
    Failure::new(Class::Network, Unavailable)
}

impl Peer {
    /// Who offers a capability, or an ancestor of it; everybody with an agent where there is none.
    pub(super) async fn find(&self, capability: Option<&Capability>) -> Result<Vec<Found>, Failure> {
        match self {
            Self::Api(client) => client.found(capability).await,
            Self::Own(node) => found(node.handle(), capability.cloned()).await.map_err(busy),
        }
    }

    /// Where a plan's jobs go.
    pub(super) fn jobs(&self) -> Arc<dyn Jobs> {
        match self {
            Self::Api(client) => Arc::new(client.clone()),
            Self::Own(node) => Arc::new(node.handle().clone()),
        }
    }

    /// Where traces of what this command drives go: an own peer has an exporter already.
    pub(super) fn traces(&self, common: &Common) -> Result<Traces, Failure> {
        match self {
            Self::Api(_) => common.traces(),
            Self::Own(node) => Ok(node.handle().traces().clone()),
        }
    }

    /// The handle of an own peer.
    pub(super) fn own(&self) -> Option<&NodeHandle> {
        match self {
            Self::Api(_) => None,
            Self::Own(node) => Some(node.handle()),
        }
    }
}
