//! HTTP+JSON: a path for each thing, errors as `google.rpc.Status` (A2A §11).

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Query, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::desk::{Hooked, Listing, Named, Sending};
use super::error::{Error, Kind};
use super::push::Webhook;
use super::{Desk, MEDIA, check_version, rpc, stream};

/// The paths.
pub(super) fn router() -> Router {
    Router::new()
        .route("/a2a/message:send", post(send))
        .route("/a2a/message:stream", post(send_streaming))
        .route("/a2a/tasks", get(list))
        .route("/a2a/tasks/{task}", get(one).post(act))
        .route("/a2a/tasks/{task}/pushNotificationConfigs", get(webhooks).post(create_webhook))
        .route("/a2a/tasks/{task}/pushNotificationConfigs/{id}", get(webhook).delete(delete_webhook))
        .route("/a2a/extendedAgentCard", get(extended_card))
        .route("/a2a/{*path}", any(nowhere))
}

/// A request in the version that is spoken here, with whatever body.
struct Spoken(Bytes);

impl<S: Send + Sync> FromRequest<S> for Spoken {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        check_version(request.headers())?;
        let unread = |error: axum::extract::rejection::BytesRejection| {
            Error::new(Kind::InvalidRequest, error.body_text())
        };
        Ok(Self(Bytes::from_request(request, state).await.map_err(unread)?))
    }
}

/// The same with a body in JSON.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        check_media(request.headers())?;
        let Spoken(bytes) = Spoken::from_request(request, state).await?;
        let body = rpc::document(&bytes)?;
        Ok(Self(rpc::parse(body)?))
    }
}

/// Refuses a body that says it is something else than JSON.
pub(super) fn check_media(headers: &HeaderMap) -> Result<(), Error> {
    let said = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    let kind = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" || kind == MEDIA {
        return Ok(());
    }
    let message = format!("the body must be JSON, and the header `content-type` application/json or {MEDIA}");
    Err(Error::new(Kind::ContentType, message).with("mediaType", &kind))
}

/// An answer as HTTP+JSON calls it.
fn told(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA))], value.to_string()).into_response()
}

/// What stands after the question mark; what cannot be read there is wrong.
type Asked<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

fn asked<T>(query: Asked<T>) -> Result<T, Error> {
    let wrong =
        |error: axum::extract::rejection::QueryRejection| Error::new(Kind::InvalidParams, error.body_text());
    query.map(|Query(asked)| asked).map_err(wrong)
}

async fn send(desk: Desk, Body(sending): Body<Sending>) -> Result<Response, Error> {
    Ok(told(&desk.send(sending).await?))
}

async fn send_streaming(desk: Desk, Body(sending): Body<Sending>) -> Result<Response, Error> {
    Ok(stream(desk.send_streaming(sending).await?, |event| event))
}

async fn list(desk: Desk, query: Asked<Listing>, _: Spoken) -> Result<Response, Error> {
    Ok(told(&desk.list(&asked(query)?)?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct History {
    history_length: Option<i64>,
}

/// A task, or its stream: what is to be done stands behind a colon.
async fn one(
    desk: Desk,
    Path(task): Path<String>,
    query: Asked<History>,
    _: Spoken,
) -> Result<Response, Error> {
    let history_length = asked(query)?.history_length;
    match task.rsplit_once(':') {
        None => Ok(told(&desk.get(&Named { id: task, history_length })?)),
        Some((id, "subscribe")) => subscribe(&desk, id),
        Some((_, verb)) => Err(unknown(verb)),
    }
}

async fn act(desk: Desk, Path(task): Path<String>, _: Spoken) -> Result<Response, Error> {
    match task.rsplit_once(':') {
        Some((id, "cancel")) => Ok(told(&desk.cancel(&Named { id: id.to_owned(), ..Named::default() })?)),
        // The specification gets it; its own client posts.
        Some((id, "subscribe")) => subscribe(&desk, id),
        verb => Err(unknown(verb.map_or("", |(_, verb)| verb))),
    }
}

fn subscribe(desk: &Desk, id: &str) -> Result<Response, Error> {
    let follower = desk.subscribe(&Named { id: id.to_owned(), ..Named::default() })?;
    Ok(stream(follower, |event| event))
}

async fn nowhere() -> Error {
    Error::new(Kind::MethodNotFound, "there is no such path in A2A 1.0; /a2a/message:send is one")
}

fn unknown(verb: &str) -> Error {
    Error::new(
        Kind::MethodNotFound,
        format!("nothing is done by `:{verb:.32}`; :cancel and :subscribe there are"),
    )
}

async fn create_webhook(
    desk: Desk,
    Path(task_id): Path<String>,
    Body(webhook): Body<Webhook>,
) -> Result<Response, Error> {
    Ok(told(&desk.create_webhook(webhook.of(task_id)).await?))
}

async fn webhooks(desk: Desk, Path(task_id): Path<String>, _: Spoken) -> Result<Response, Error> {
    Ok(told(&desk.webhooks(&Hooked { task_id, ..Hooked::default() })?))
}

async fn webhook(
    desk: Desk,
    Path((task_id, id)): Path<(String, String)>,
    _: Spoken,
) -> Result<Response, Error> {
    Ok(told(&desk.webhook(&Hooked { task_id, id })?))
}

async fn delete_webhook(
    desk: Desk,
    Path((task_id, id)): Path<(String, String)>,
    _: Spoken,
) -> Result<Response, Error> {
    Ok(told(&desk.delete_webhook(&Hooked { task_id, id })?))
}

async fn extended_card(desk: Desk, _: Spoken) -> Error {
    desk.extended_card()
}
