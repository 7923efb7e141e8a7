//! JSON-RPC: one path, methods by name (A2A §9). What goes wrong is told in the body, with a status of 200, but for the
//! gate's refusals.

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::error::{CallId, Error, Kind};
use super::follow::Follower;
use super::{Desk, check_version, rest, stream};

/// What comes back.
enum Answer {
    Events(Follower),
    Value(Value),
}

pub(super) async fn answer(desk: Desk, headers: HeaderMap, body: Bytes) -> Response {
    let (id, request) = read(&headers, &body);
    let checked = request.and_then(|request| check_version(&headers).map(|()| request));
    let answered = match checked {
        Ok(request) => desk.call(&request.method, request.params).await,
        Err(error) => Err(error),
    };
    let named = Extension(CallId(id.clone()));
    let response = match answered {
        Ok(Answer::Value(result)) => Json(wrapped(&id, result)).into_response(),
        Ok(Answer::Events(follower)) => stream(follower, move |event| wrapped(&id, event)),
        Err(error) => refusal(&id, &error),
    };
    (named, response).into_response()
}

/// A call.
#[derive(Debug)]
struct Request {
    method: String,
    params: Value,
}

/// The name of a call, as far as it has one, and the call or what is wrong with it.
fn read(headers: &HeaderMap, body: &[u8]) -> (Value, Result<Request, Error>) {
    let body = rest::check_media(headers).and_then(|()| document(body));
    let mut call = match body {
        Ok(Value::Object(call)) => call,
        Ok(_) => return (Value::Null, Err(invalid("the body must be one JSON-RPC request"))),
        Err(error) => return (Value::Null, Err(error)),
    };
    match call.remove("id").unwrap_or_default() {
        id @ (Value::Null | Value::String(_) | Value::Number(_)) => (id, request(call)),
        _ => (Value::Null, Err(invalid("`id` must be a text or a number"))),
    }
}

/// A body as JSON.
pub(super) fn document(body: &[u8]) -> Result<Value, Error> {
    let wrong = |error| Error::new(Kind::Parse, format!("the body is no JSON: {error}"));
    serde_json::from_slice(body).map_err(wrong)
}

fn request(mut call: Map<String, Value>) -> Result<Request, Error> {
    if call.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(invalid("`jsonrpc` must be \"2.0\""));
    }
    let Some(Value::String(method)) = call.remove("method") else {
        return Err(invalid("`method` must name a method, like SendMessage"));
    };
    let params = call.remove("params").filter(|params| !params.is_null()).unwrap_or_else(|| json!({}));
    if !params.is_object() {
        return Err(Error::new(Kind::InvalidParams, "`params` must be an object"));
    }
    Ok(Request { method, params })
}

fn invalid(message: &str) -> Error {
    Error::new(Kind::InvalidRequest, message)
}

impl Desk {
    async fn call(&self, method: &str, params: Value) -> Result<Answer, Error> {
        let value = match method {
            "SendMessage" => self.send(parse(params)?).await?,
            "SendStreamingMessage" => {
                return Ok(Answer::Events(self.send_streaming(parse(params)?).await?));
            }
            "SubscribeToTask" => return Ok(Answer::Events(self.subscribe(&parse(params)?)?)),
            "GetTask" => self.get(&parse(params)?)?,
            "ListTasks" => self.list(&parse(params)?)?,
            "CancelTask" => self.cancel(&parse(params)?)?,
            "CreateTaskPushNotificationConfig" => self.create_webhook(parse(params)?).await?,
            "GetTaskPushNotificationConfig" => self.webhook(&parse(params)?)?,
            "ListTaskPushNotificationConfigs" => self.webhooks(&parse(params)?)?,
            "DeleteTaskPushNotificationConfig" => self.delete_webhook(&parse(params)?)?,
            "GetExtendedAgentCard" => return Err(self.extended_card()),
            _ => {
                let message = format!("there is no method `{method:.64}` in A2A 1.0; SendMessage is one");
                return Err(Error::new(Kind::MethodNotFound, message));
            }
        };
        Ok(Answer::Value(value))
    }
}

/// Parameters of a method; an error names the one that does not fit.
pub(super) fn parse<T: DeserializeOwned>(params: Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(params).map_err(|error| {
        let (path, what) = (error.path().to_string(), error.inner().to_string());
        Error::new(Kind::InvalidParams, format!("the parameters are not what is expected: {what}"))
            .with("field", &path)
    })
}

fn wrapped(id: &Value, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

fn refusal(id: &Value, error: &Error) -> Response {
    Json(json!({ "jsonrpc": "2.0", "id": id, "error": error.rpc() })).into_response()
}
