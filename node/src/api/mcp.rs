//! `/mcp`: the Model Context Protocol, for programs that let models use tools. Translation only: a call becomes a job or a
//! plan, a receipt becomes a resource.
//!
//! Two ways lead here: streamable HTTP behind the gate like everything else, and [`stdio`] for programs that start
//! `llamesh mcp`. Over HTTP the newest revision (2026-07-28) has no sessions; for the one before (`sessions`) they are
//! bounded, and belong to the key that began them.
//!
//! ```text
//!   request ─▶ gate ─▶ sessions ─▶ rmcp ─▶ translator ─▶ find · submit · plan · receipt · resources ─▶ mesh
//!                                              └── catalog: are these the arguments that the tool takes?
//! ```
//!
//! | module | concern |
//! |---|---|
//! | `translator` | which method is whose, how much at once, and that a call ends when it is cancelled |
//! | [`guest`] | who asks, and what there is for them |
//! | `catalog` | the tools, as `tools/*.json` declare them, and whether arguments are what they take |
//! | `find`, `submit`, `plan`, `receipt` | what each tool does |
//! | `resources` | receipts and profiles as resources |
//! | `answer` | results, for programs and for people |
//! | `progress` | how far a call is |
//!
//! Everything that a client sends is hostile: arguments are checked against the schema that the tool declares, and what a
//! tool cannot do is a result that says so with a next step (`isError`), as the model has to read it.

mod answer;
mod catalog;
mod find;
pub mod guest;
mod plan;
mod progress;
mod receipt;
mod resources;
mod sessions;
pub mod stdio;
mod submit;
mod translator;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::tower::StreamableHttpServerConfig;
use tokio_util::sync::CancellationToken;

use super::gate::{Entrance, Waiting};
use super::refusal::Refusal;
use sessions::Sessions;
use translator::Translator;

/// The header that names a session.
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// The longest that one call may take. Whoever wants more of it gives it in parts.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The path.
pub(super) fn router(shutdown: &CancellationToken) -> Router {
    Router::new().route("/mcp", any(serve)).with_state(Arc::new(Endpoint::new(shutdown)))
}

/// Where HTTP becomes calls.
struct Endpoint {
    service: StreamableHttpService<Translator, LocalSessionManager>,
    sessions: Sessions,
}

impl Endpoint {
    fn new(shutdown: &CancellationToken) -> Self {
        let sessions = Sessions::default();
        // The gate has looked at host and page, and has read and bounded the body.
        let config = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_max_request_body_bytes(usize::MAX)
            .with_json_response(true)
            .with_cancellation_token(shutdown.child_token());
        let translator = Translator::for_everybody();
        let service = StreamableHttpService::new(move || Ok(translator.clone()), sessions.manager(), config);
        Self { service, sessions }
    }
}

/// One request. A session of somebody else is as unknown as one that never was.
async fn serve(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
    let Some(Entrance { caller, .. }) = request.extensions().get().copied() else {
        return Refusal::NoToken.into_response();
    };
    let named = request.headers().get(&SESSION).map(name);
    let method = request.method().clone();
    if let Some(session) = &named
        && !endpoint.sessions.use_by(session, caller)
    {
        return (StatusCode::NOT_FOUND, "no such session; begin a new one with `initialize`").into_response();
    }
    let waiting = match (&named, &method) {
        (Some(session), &Method::GET) => match endpoint.sessions.listen(session) {
            Some(place) => Some(Waiting::at(place)),
            None => return (StatusCode::CONFLICT, "this session is listened to already").into_response(),
        },
        _ => None,
    };
    let mut response = endpoint.service.handle(request).await.map(axum::body::Body::new);
    if named.is_none()
        && let Some(session) = response.headers().get(&SESSION).map(name)
        && !endpoint.sessions.keep(&session, caller).await
    {
        return Refusal::Overloaded.into_response();
    }
    if let (Some(session), Method::DELETE, StatusCode::ACCEPTED) = (&named, method, response.status()) {
        endpoint.sessions.forget(session);
        // There is nothing left to wait for, as "accepted" would say.
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    if let Some(waiting) = waiting {
        response.extensions_mut().insert(waiting);
    }
    response
}

/// The name of a session in a header.
fn name(value: &HeaderValue) -> Arc<str> {
    value.to_str().unwrap_or_default().into()
}
