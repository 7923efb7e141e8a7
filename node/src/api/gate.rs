//! What every request passes: does it mean this peer, who asks, is there room, and is all of it here?
//!
//! A browser can be made to talk to any address by any page that it shows, under any name. So a request has to name this
//! machine in `Host` (as the address to which it came, or by a name that the owner gave), and one that comes from a page
//! has to come from one of ours (`Origin`). No other page may read an answer: nothing here speaks of CORS.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::Api;
use super::a2a::{self, CallId};
use super::bounds::Bounds;
use super::connections::Local;
use super::keys::{Caller, Keys, Visit};
use super::refusal::Refusal;
use crate::clock;
use crate::metrics::api::door;
use crate::traces::Traces;
use crate::traces::span::{Kind, Span};

/// Bodies are counted in pieces of so many bytes.
const PIECE: usize = 1024;
/// Milliseconds for which a request waits for its key to have less at work, time after time: about a second in all.
const PAUSES: [u64; 5] = [10, 40, 150, 300, 500];
/// What whoever looks for this peer may read without a token. It is signed in the name that `Host` says, so it passes the gate
/// all the same.
const PUBLIC: &str = "/.well-known/";
/// Paths that begin jobs, by which the spans of requests are called.
const TRACED: [&str; 7] = [
    "/control/jobs",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/mcp",
    "/a2a",
];

/// Where a key's refusal of a job is told within an answer, which may have begun before it; elsewhere the refusal is the answer.
const WITHIN: &str = "/mcp";

/// What all requests pass.
#[derive(Debug)]
pub(super) struct Gate {
    api: Api,
    keys: Keys,
    names: Vec<String>,
    loopback: bool,
    bounds: Bounds,
    requests: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

/// Who asks, for handlers that keep something for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entrance {
    pub(super) caller: Caller,
    /// Whether everybody needs a token.
    pub(super) locked: bool,
}

/// What a request takes up until its answer has left, or nobody waits for it any more.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    visit: Option<Arc<Visit>>,
    span: Span,
    _waiting: Option<Waiting>,
}

/// Whoever answers with this among a response's extensions says that the rest of it only waits for news: it keeps its
/// place, but is no work that counts for its key. What is in it bounds how many there are, and is kept as long.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    _place: Arc<OwnedSemaphorePermit>,
}

impl Waiting {
    pub(super) fn at(place: OwnedSemaphorePermit) -> Self {
        Self { _place: Arc::new(place) }
    }
}

impl Gate {
    pub(super) fn new(api: Api, keys: Keys, names: Vec<String>, loopback: bool, bounds: Bounds) -> Self {
        let pieces = bounds.bodies.div_ceil(PIECE).min(Semaphore::MAX_PERMITS);
        Self {
            api,
            keys,
            names,
            loopback,
            bounds,
            requests: Arc::new(Semaphore::new(bounds.requests)),
            bodies: Arc::new(Semaphore::new(pieces)),
        }
    }

    /// Lets a request in, or says why not.
    fn admit(&self, request: &mut Request) -> Result<Place, Refusal> {
        let local = request.extensions().get::<Local>().ok_or(Refusal::ForeignHost)?.0;
        let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
        means_us(local, &self.names, text(header::HOST), text(header::ORIGIN))?;
        let public = request.uri().path().starts_with(PUBLIC);
        let caller = if public { Caller::Owner } else { self.caller(request.headers())? };
        let visit = match caller {
            Caller::Owner => None,
            Caller::Key(_) if is_owners(request.uri().path()) => {
                return Err(Refusal::OwnerOnly);
            }
            Caller::Key(id) => Some(self.keys.begin(clock::now(), id)?),
        };
        let permit = Arc::clone(&self.requests).try_acquire_owned().map_err(|_| Refusal::Overloaded)?;
        let api = match &visit {
            Some(visit) => Api { node: self.api.node.paid_by(Arc::clone(visit) as _), ..self.api.clone() },
            None => self.api.clone(),
        };
        let span = span(self.api.node.traces(), request);
        let api = Api { node: api.node.traced(span.trace()), ..api };
        let extensions = request.extensions_mut();
        extensions.insert(api);
        extensions.insert(Entrance { caller, locked: self.locked() });
        match &visit {
            Some(visit) => drop(extensions.insert(Arc::clone(visit))),
            None if public => {}
            None => drop(extensions.insert(self.keys.clone())),
        }
        Ok(Place { _permit: permit, visit, _waiting: None, span })
    }

    /// The same where a key has too much at work, a moment later: the end of an answer reaches its client before its place
    /// is free, and whoever asks one thing after the other has only one at work.
    async fn admit_soon(&self, request: &mut Request) -> Result<Place, Refusal> {
        for pause in PAUSES {
            match self.admit(request) {
                Err(Refusal::Concurrent) => sleep(Duration::from_millis(pause)).await,
                admitted => return admitted,
            }
        }
        self.admit(request)
    }

    /// Whether everybody needs a token.
    fn locked(&self) -> bool {
        !self.loopback || self.keys.exist()
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        if !self.locked() {
            // Clients of OpenAI always send a key; here it means nothing.
            return Ok(Caller::Owner);
        }
        self.keys.authenticate(bearer(headers))
    }

    /// The same request with all of its body.
    async fn whole(&self, request: Request) -> Result<(Request, Option<OwnedSemaphorePermit>), Refusal> {
        let (parts, body) = request.into_parts();
        if body.is_end_stream() {
            return Ok((Request::from_parts(parts, body), None));
        }
        let most = self.bounds.body;
        let size = match body.size_hint().exact() {
            Some(exact) => usize::try_from(exact).ok().filter(|exact| *exact <= most),
            None => Some(most),
        };
        let pieces = size.ok_or(Refusal::BodyTooLarge)?.div_ceil(PIECE);
        let pieces = u32::try_from(pieces).map_err(|_| Refusal::BodyTooLarge)?;
        let room = Arc::clone(&self.bodies).try_acquire_many_owned(pieces);
        let room = room.map_err(|_| Refusal::Overloaded)?;
        let read = timeout(self.bounds.body_time, to_bytes(body, most)).await;
        let bytes = read.map_err(|_| Refusal::BodyTooSlow)?.map_err(|_| Refusal::BodyTooLarge)?;
        Ok((Request::from_parts(parts, Body::from(bytes)), Some(room)))
    }

    /// Keeps a request's place until the answer has left.
    async fn let_pass(&self, mut request: Request, next: Next) -> Response {
        let uri = request.uri().clone();
        let admitted = match self.admit_soon(&mut request).await {
            Ok(place) => self.whole(request).await.map(|whole| (place, whole)),
            Err(refusal) => Err(refusal),
        };
        let (mut place, (request, room)) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return refuse(uri.path(), &CallId::default(), refusal),
        };
        let mut response = next.run(request).instrument(place.span.log()).await;
        drop(room);
        place.span.say("http.response.status_code", i64::from(response.status().as_u16()));
        let visit = place.visit.as_ref().filter(|_| uri.path() != WITHIN);
        if let Some(refusal) = visit.and_then(|visit| visit.refused()) {
            let call = response.extensions_mut().remove().unwrap_or_default();
            return refuse(uri.path(), &call, refusal);
        }
        if let Some(waiting) = response.extensions_mut().remove() {
            (place.visit, place._waiting) = (None, Some(waiting));
        }
        response.map(|body| Body::new(Kept { body, _place: place }))
    }
}

/// A refusal as the clients of a path know it.
fn refuse(path: &str, call: &CallId, refusal: Refusal) -> Response {
    match a2a::told_at(path, call, &refusal) {
        Some(body) => refusal.told(body),
        None => refusal.into_response(),
    }
}

/// What may begin jobs stands below the caller's `traceparent`, or in a trace of its own.
fn span(traces: &Traces, request: &Request) -> Span {
    if request.method() != Method::POST {
        return Span::default();
    }
    let parent = request.headers().get("traceparent");
    let parent = parent.and_then(|text| text.to_str().ok()?.trim().parse().ok());
    let mut span = traces.begin("POST", Kind::Server, parent);
    if span.is_recorded() {
        // Only paths that there are: the name of a span is no place for what anybody may write.
        if let Some(route) = TRACED.into_iter().find(|route| *route == request.uri().path()) {
            span.rename(format!("POST {route}"));
            span.say("http.route", route);
        }
        span.say("http.request.method", "POST");
    }
    span
}

/// What is the owner's alone: his peer, and what can be read of everybody who uses it.
fn is_owners(path: &str) -> bool {
    path.starts_with("/control/") || path == "/metrics"
}

/// Lets a request pass, and counts it.
pub(super) async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let (came, door) = (Instant::now(), door(request.uri().path()));
    let response = gate.let_pass(request, next).await;
    gate.api.node.metrics().api.answered(door, response.status(), came.elapsed());
    response
}

/// An answer that takes up a place while it is on its way.
#[derive(Debug)]
struct Kept {
    body: Body,
    _place: Place,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a request that came to the address `local` names this machine or one of `names`, and comes from no page but ours.
///
/// # Errors
/// [`Refusal::ForeignHost`], [`Refusal::ForeignPage`].
pub fn means_us(
    local: SocketAddr,
    names: &[String],
    host: Option<&str>,
    origin: Option<&str>,
) -> Result<(), Refusal> {
    if !host.is_some_and(|host| is_ours(local, names, host)) {
        return Err(Refusal::ForeignHost);
    }
    let page = |origin: &str| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| is_ours(local, names, authority))
    };
    match origin {
        Some(origin) if !page(origin) => Err(Refusal::ForeignPage),
        _ => Ok(()),
    }
}

fn is_ours(local: SocketAddr, names: &[String], authority: &str) -> bool {
    let (ip, port) = (local.ip().to_canonical(), local.port());
    let address = SocketAddr::new(ip, port).to_string();
    // Port 80 goes without saying.
    let named = |host: &str| authority == format!("{host}:{port}") || (port == 80 && authority == host);
    let host = address.strip_suffix(&format!(":{port}")).unwrap_or_default();
    let loopback = ip.is_loopback() && ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| named(host));
    // A name that the owner gave says who is meant; behind a proxy the port is another one.
    let bare = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    named(host) || loopback || names.iter().any(|name| name.eq_ignore_ascii_case(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(local: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let text = |name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        means_us(local.parse().unwrap(), &["mesh.example".to_owned()], text("host"), text("origin"))
    }

    #[test]
    fn only_this_machine_and_its_own_pages_may_ask() {
        let verdict = |headers: &[(&str, &str)]| verdict("127.0.0.1:5264", headers).is_ok();
        assert!(verdict(&[("host", "127.0.0.1:5264")]));
        assert!(verdict(&[("host", "localhost:5264"), ("origin", "http://localhost:5264")]));
        assert!(!verdict(&[]), "no host");
        assert!(!verdict(&[("host", "evil.example:5264")]), "a name that an attacker points to loopback");
        assert!(!verdict(&[("host", "127.0.0.1:80")]), "another port");
        assert!(!verdict(&[("host", "127.0.0.1:5264"), ("origin", "https://evil.example")]));
        assert!(!verdict(&[("host", "127.0.0.1:5264"), ("origin", "null")]));
    }

    #[test]
    fn from_elsewhere_the_address_that_was_reached_or_a_given_name_is_meant() {
        let verdict = |host: &str| verdict("192.0.2.7:5264", &[("host", host)]);
        for ours in ["192.0.2.7:5264", "mesh.example", "mesh.example:443", "Mesh.Example:5264"] {
            assert_eq!(verdict(ours), Ok(()), "{ours}");
        }
        for foreign in
            ["localhost:5264", "127.0.0.1:5264", "192.0.2.8:5264", "evil.example", "", ":", "x:y:z"]
        {
            assert_eq!(verdict(foreign), Err(Refusal::ForeignHost), "{foreign}");
        }
    }

    #[test]
    fn port_80_and_mapped_addresses_go_without_saying() {
        assert!(verdict("127.0.0.1:80", &[("host", "localhost")]).is_ok());
        assert!(verdict("[::ffff:192.0.2.7]:5264", &[("host", "192.0.2.7:5264")]).is_ok());
        assert!(verdict("[2001:db8::1]:5264", &[("host", "[2001:db8::1]:5264")]).is_ok());
        assert!(verdict("[2001:db8::1]:80", &[("host", "[2001:db8::1]")]).is_ok());
    }

    #[test]
    fn a_token_comes_as_a_bearer_s() {
        let token = |value: &str| {
            let headers = [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(token("Bearer x"), Some("x".to_owned()));
        assert_eq!(token("bearer  x "), Some("x".to_owned()));
        assert_eq!((token("Basic x"), token("x"), token("")), (None, None, None));
    }
}
