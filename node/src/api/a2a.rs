//! `/a2a`: the mesh as one agent, for agents that speak A2A 1.0 (<https://a2a-protocol.org>). Translation only: a message
//! becomes a job, the job's course a task, its answer the task's artifact, with the receipt beside it.
//!
//! Both bindings over HTTP are served at one address: JSON-RPC by `POST /a2a`, HTTP+JSON beneath it. What a message wants of
//! the mesh stands in its metadata under [`EXTENSION`]. A task goes on when its client has left; it ends when its job does, or
//! by `CancelTask`. Tasks are kept in memory, for a day at most and while there is room, each for whoever sent it.
//!
//! | module | what it answers |
//! |---|---|
//! | `card` | `/.well-known/agent-card.json`: who this is and what it can do, signed |
//! | `rpc`, `rest` | the two bindings: what is asked |
//! | `desk` | what is done for it |
//! | `wishes` | what a message says of the mesh |
//! | `message`, `task`, `moment` | A2A's words |
//! | `store` | tasks that are remembered |
//! | `work` | a job as the course of a task |
//! | `follow` | a task as a stream of events |
//! | `push` | the same, posted to an address |
//! | `error` | errors, as both bindings tell them |

mod card;
mod desk;
mod error;
mod follow;
mod message;
mod moment;
mod push;
mod rest;
mod rpc;
mod store;
mod task;
mod wishes;
mod work;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures::stream::unfold;
use serde_json::Value;

use super::Api;
use super::gate::Entrance;
use super::keys::Caller;
use super::openai::Sight;
use super::refusal::Refusal;
use crate::clock;
use crate::handle::NodeHandle;
use card::Shelf;
pub(in crate::api) use error::{CallId, told_at};
use error::{Error, Kind};
use follow::Follower;
use push::Post;
use push::address::Vetting;
use store::Store;

/// The version of A2A that is spoken here.
const VERSION: &str = "1.0";
/// Under which name messages say what they want of the mesh, and artifacts what answers for them.
pub const EXTENSION: &str = "urn:llamesh:job:1";
/// What HTTP+JSON calls its bodies.
const MEDIA: &str = "application/a2a+json";

/// The paths. With `private_webhooks` a task's news go to whatever address a client names.
pub fn router(private_webhooks: bool) -> Router {
    let office = Office {
        tasks: Mutex::default(),
        sight: Sight::default(),
        shelf: Shelf::default(),
        post: Post::new(Vetting::new(private_webhooks)),
    };
    Router::new()
        .route("/.well-known/agent-card.json", get(card::card))
        .route("/.well-known/jwks.json", get(card::keys))
        .route("/a2a", post(rpc::answer))
        .merge(rest::router())
        .method_not_allowed_fallback(|| async {
            Error::new(Kind::MethodNotFound, "this path does not know that method; see the header `allow`")
        })
        .layer(Extension(Arc::new(office)))
}

/// What all requests share.
#[derive(Debug)]
struct Office {
    tasks: Mutex<Store>,
    sight: Sight,
    shelf: Shelf,
    post: Post,
}

impl Office {
    /// The tasks, for as long as one look takes.
    fn tasks(&self) -> MutexGuard<'_, Store> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self) -> &Post {
        &self.post
    }
}

/// What a handler has: the peer as its caller has it, who that is, and what all requests share.
#[derive(Clone, Debug)]
struct Desk {
    node: NodeHandle,
    caller: Caller,
    /// Whether everybody needs a token.
    locked: bool,
    office: Arc<Office>,
}

impl<S: Sync> FromRequestParts<S> for Desk {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Api { node, .. } = Api::from_request_parts(parts, state).await?;
        let Entrance { caller, locked } = *parts.extensions.get().ok_or(Refusal::NoToken)?;
        let office = parts.extensions.get::<Arc<Office>>().cloned().ok_or(Refusal::NoToken)?;
        Ok(Self { node, caller, locked, office })
    }
}

/// Refuses a client that speaks another version. One that says none speaks 0.3.
fn check_version(headers: &HeaderMap) -> Result<(), Error> {
    let said = headers.get("a2a-version").map_or("", |value| value.to_str().unwrap_or("?")).trim();
    let said = if said.is_empty() { "0.3" } else { said };
    if said == VERSION || said.strip_prefix(VERSION).is_some_and(|patch| patch.starts_with('.')) {
        return Ok(());
    }
    let message = format!("A2A {said:.16} is not spoken here; send the header `A2A-Version: {VERSION}`");
    Err(Error::new(Kind::Version, message).with("supported", VERSION))
}

/// A task's events, each told as `tell` says. Whoever leaves it has left the task at work.
fn stream(follower: Follower, tell: impl Fn(Value) -> Value + Send + 'static) -> Response {
    let events = unfold((follower, tell), |(mut follower, tell)| async move {
        let event = follower.next().await?;
        let event = Event::default().data(tell(event).to_string());
        Some((Ok::<_, Infallible>(event), (follower, tell)))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// A name unlike all others.
fn name() -> Result<String, Error> {
    let bytes: [u8; 16] = clock::random().map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
