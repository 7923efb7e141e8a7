//! The local API: what programs use the mesh by.
//!
//! It listens on loopback, where nobody needs a key until there is one. On another address, or once there is a key, every
//! path but `/health`, `/.well-known/…` and the page at `/` needs a token.
//!
//! | room | concern |
//! |---|---|
//! | [`connections`](crate::api), [`bounds`], `patience` | how many, how large, how slow |
//! | [`gate`](crate::api), [`refusal`] | what every request passes, and why one does not |
//! | [`keys`] | who may ask from elsewhere, for what, and at whose cost |
//! | [`control`] | `/control/…`: what the command line and the console ask |
//! | [`console`] | `/`: the page for people |
//! | `metrics` | `/metrics`: what Prometheus asks |
//! | [`openai`] | `/v1/…`: what OpenAI's clients ask |
//! | [`mcp`] | `/mcp`: what programs ask that let models use tools |
//! | [`a2a`] | `/a2a/…`: what other agents ask |

pub mod a2a;
pub mod bounds;
mod connections;
pub mod console;
pub mod control;
mod gate;
pub mod keys;
pub mod mcp;
mod metrics;
pub mod openai;
mod patience;
pub mod refusal;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequestParts};
use axum::http::request::Parts;
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::failure::{Class, Failure};
use crate::handle::NodeHandle;
use bounds::Bounds;
use gate::Gate;
pub use gate::means_us;
use keys::Keys;
use refusal::Refusal;

/// What the handlers work with. A handler takes it as its argument, and gets the one of the request's caller: what is
/// submitted through it counts against the caller's limits.
#[derive(Clone, Debug)]
pub struct Api {
    /// The peer.
    pub node: NodeHandle,
    /// Where its receipts are kept.
    pub receipts: Option<PathBuf>,
}

/// The gate puts it beside every request that it lets in; none that it did not let in gets any further.
impl<S: Sync> FromRequestParts<S> for Api {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get().cloned().ok_or(Refusal::NoToken)
    }
}

/// As with [`Api`], but for the owner only.
impl<S: Sync> FromRequestParts<S> for Keys {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get().cloned().ok_or(Refusal::OwnerOnly)
    }
}

/// The API's socket, bound before the peer is announced to be ready.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    keys: Keys,
    names: Vec<String>,
    private_webhooks: bool,
    bounds: Bounds,
}

impl Server {
    /// Binds the address. On one that is not loopback nobody is let in without a token ([`Server::with_keys`]).
    ///
    /// # Errors
    /// [`Failure`]: no address, or taken.
    pub async fn bind(address: &str) -> Result<Self, Failure> {
        Self::bind_within(address, Bounds::default()).await
    }

    /// The same within other bounds.
    ///
    /// # Errors
    /// As [`Server::bind`].
    #[expect(
        clippy::unused_async,
        reason = "binding needs the runtime that an async function is sure to have"
    )]
    pub async fn bind_within(address: &str, bounds: Bounds) -> Result<Self, Failure> {
        let socket: SocketAddr = address.parse().map_err(|_| {
            let what = "HOST:PORT is expected, like 127.0.0.1:5264";
            Failure::new(Class::Usage, format!("--api {address}: {what}"))
        })?;
        let taken = |error| {
            Failure::new(
                Class::Network,
                format!("the API cannot listen on {address} ({error}): pass --api 127.0.0.1:0"),
            )
        };
        let listener = connections::listen(socket, &bounds).map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        Ok(Self {
            listener,
            address,
            keys: Keys::default(),
            names: Vec::new(),
            private_webhooks: false,
            bounds,
        })
    }

    /// Lets in who has one of these keys, or is their owner.
    #[must_use]
    pub fn with_keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    /// Answers to these names in `Host`, too.
    #[must_use]
    pub fn with_names(self, names: Vec<String>) -> Self {
        Self { names, ..self }
    }

    /// Tells of tasks at any address that a client names, this machine's and this network's own included.
    #[must_use]
    pub fn with_private_webhooks(self, private_webhooks: bool) -> Self {
        Self { private_webhooks, ..self }
    }

    /// Whether only programs on this machine reach it.
    pub fn is_local(&self) -> bool {
        self.address.ip().is_loopback()
    }

    /// The base of every path, as this machine reaches it.
    pub fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// Serves until shut down.
    ///
    /// # Errors
    /// None at present; a socket that fails is tried again.
    pub async fn serve(self, api: Api, shutdown: CancellationToken) -> std::io::Result<()> {
        let local = self.is_local();
        let gate = Gate::new(api, self.keys, self.names, local, self.bounds);
        let router = router(gate, &shutdown, self.private_webhooks);
        connections::serve(self.listener, router, self.bounds, shutdown).await;
        Ok(())
    }
}

fn router(gate: Gate, shutdown: &CancellationToken, private_webhooks: bool) -> Router {
    let guarded = Router::new()
        .merge(control::router())
        .merge(metrics::router())
        .merge(openai::router())
        .merge(mcp::router(shutdown))
        .merge(a2a::router(private_webhooks))
        .fallback(|| async { openai::Error::unknown_path() })
        // The gate has bounded the body.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::new(gate), gate::pass));
    // For whoever watches whether the peer is there: without a key, whatever it is called.
    let health = Router::new().route("/health", get(async || Json(json!({ "status": "ok" }))));
    health.merge(console::router()).merge(guarded)
}
