//! The local API: what programs on this machine use the mesh by.
//!
//! It listens on loopback only. A browser can be made to talk to loopback by any page that it shows, so a request has
//! to name this machine in `Host`, and a request that comes from a page has to come from one of ours (`Origin`).
//!
//! | room | paths |
//! |---|---|
//! | [`control`] | `/control/…`: what the command line asks |
//! | [`openai`] | `/v1/…`: what OpenAI's clients ask |

pub mod control;
pub mod openai;

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::failure::{Class, Failure};
use crate::handle::NodeHandle;

/// Largest request body: the largest input as JSON, with every character escaped.
const MAX_BODY: usize = 8 << 20;

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct Api {
    /// The peer.
    pub node: NodeHandle,
    /// Where its receipts are kept.
    pub receipts: Option<PathBuf>,
}

/// The API's socket, bound before the peer is announced to be ready.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// [`Failure`]: not a loopback address, or taken.
    pub async fn bind(address: &str) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::new(Class::Usage, format!("--api {address}: {why}"));
        let socket: SocketAddr =
            address.parse().map_err(|_| wrong("HOST:PORT is expected, like 127.0.0.1:5264".into()))?;
        if !socket.ip().is_loopback() {
            return Err(wrong(
                "the local API has no keys yet, so it listens on loopback addresses only".into(),
            ));
        }
        let taken = |error| {
            Failure::new(
                Class::Network,
                format!("the API cannot listen on {address} ({error}): pass --api 127.0.0.1:0"),
            )
        };
        let listener = TcpListener::bind(socket).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        Ok(Self { listener, address })
    }

    /// The base of every path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves until shut down.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(self, api: Api, shutdown: CancellationToken) -> std::io::Result<()> {
        let router = router(api, self.address);
        // A stream's first events are small; held back for an acknowledgement they would be 40 ms late.
        let prompt = self.listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "a connection of the local API will be slow");
            }
        });
        axum::serve(prompt, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
    }
}

fn router(api: Api, address: SocketAddr) -> Router {
    Router::new()
        .merge(control::router())
        .merge(openai::router())
        .fallback(|| async { openai::Error::unknown_path() })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(address, guard))
        .with_state(api)
}

/// Refuses what was meant for another machine, or comes from a page that is not ours.
async fn guard(State(address): State<SocketAddr>, request: Request, next: Next) -> Response {
    match admits(address, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(why) => (StatusCode::FORBIDDEN, why).into_response(),
    }
}

fn admits(address: SocketAddr, headers: &HeaderMap) -> Result<(), &'static str> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let ours = |authority: &str| {
        let names = ["localhost", "127.0.0.1", "[::1]"];
        authority == address.to_string()
            || names.iter().any(|name| authority == format!("{name}:{}", address.port()))
    };
    if !text(header::HOST).is_some_and(ours) {
        return Err("this request names another host; use the address that the peer printed\n");
    }
    match text(header::ORIGIN) {
        Some(origin) if !origin.strip_prefix("http://").is_some_and(ours) => {
            Err("this request comes from a web page that is not this peer's\n")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(headers: &[(&str, &str)]) -> bool {
        let headers: Vec<(header::HeaderName, header::HeaderValue)> =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        admits("127.0.0.1:5264".parse().unwrap(), &headers.into_iter().collect()).is_ok()
    }

    #[test]
    fn only_this_machine_and_its_own_pages_may_ask() {
        assert!(verdict(&[("host", "127.0.0.1:5264")]));
        assert!(verdict(&[("host", "localhost:5264"), ("origin", "http://localhost:5264")]));
        assert!(!verdict(&[]), "no host");
        assert!(!verdict(&[("host", "evil.example:5264")]), "a name that an attacker points to loopback");
        assert!(!verdict(&[("host", "127.0.0.1:80")]), "another port");
        assert!(!verdict(&[("host", "127.0.0.1:5264"), ("origin", "https://evil.example")]));
        assert!(!verdict(&[("host", "127.0.0.1:5264"), ("origin", "null")]));
    }
}
