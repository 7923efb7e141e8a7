//! A2A's errors: a number for JSON-RPC, a status for HTTP, and in both a `google.rpc.ErrorInfo` that names the reason.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::JobError;
use serde_json::{Map, Value, json};

use crate::api::openai;
use crate::api::refusal::Refusal;

/// Seconds after which an overloaded peer may have room.
const SOON: u16 = 1;

/// What went wrong, in A2A's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ContentType,
    Internal,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    NotCancelable,
    NotFound,
    Overloaded,
    Parse,
    Unsupported,
    Version,
}

/// How each kind is told: JSON-RPC's number, HTTP's status, gRPC's, the reason.
impl Kind {
    const fn told(self) -> (i32, StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::ContentType => (-32005, S::BAD_REQUEST, "INVALID_ARGUMENT", "CONTENT_TYPE_NOT_SUPPORTED"),
            Self::Internal => (-32603, S::INTERNAL_SERVER_ERROR, "INTERNAL", "INTERNAL_ERROR"),
            Self::InvalidParams => (-32602, S::BAD_REQUEST, "INVALID_ARGUMENT", "INVALID_PARAMS"),
            Self::InvalidRequest => (-32600, S::BAD_REQUEST, "INVALID_ARGUMENT", "INVALID_REQUEST"),
            Self::MethodNotFound => (-32601, S::NOT_FOUND, "NOT_FOUND", "METHOD_NOT_FOUND"),
            Self::NotCancelable => (-32002, S::BAD_REQUEST, "FAILED_PRECONDITION", "TASK_NOT_CANCELABLE"),
            Self::NotFound => (-32001, S::NOT_FOUND, "NOT_FOUND", "TASK_NOT_FOUND"),
            Self::Overloaded => (-32603, S::SERVICE_UNAVAILABLE, "UNAVAILABLE", "INTERNAL_ERROR"),
            Self::Parse => (-32700, S::BAD_REQUEST, "INVALID_ARGUMENT", "INVALID_REQUEST"),
            Self::Unsupported => (-32004, S::BAD_REQUEST, "FAILED_PRECONDITION", "UNSUPPORTED_OPERATION"),
            Self::Version => (-32009, S::BAD_REQUEST, "FAILED_PRECONDITION", "VERSION_NOT_SUPPORTED"),
        }
    }
}

/// An error on its way to a client.
#[derive(Debug)]
pub(super) struct Error {
    kind: Kind,
    message: String,
    metadata: Map<String, Value>,
}

impl Error {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), metadata: Map::new() }
    }

    /// The task is not there, for this client.
    pub(super) fn not_found(task: &str) -> Self {
        let message = format!(
            "this peer has no task `{task:.64}` of yours; tasks are kept for a day, while there is room"
        );
        Self::new(Kind::NotFound, message)
    }

    /// A parameter is wrong.
    pub(super) fn invalid(field: &str, problem: &str) -> Self {
        Self::new(Kind::InvalidParams, format!("{field} {problem}")).with("field", field)
    }

    /// The same with something more for programs; values of this map are texts.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.metadata.insert(name.to_owned(), value.into());
        self
    }

    #[cfg(test)]
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// As JSON-RPC has it.
    pub(super) fn rpc(&self) -> Value {
        let (code, ..) = self.kind.told();
        json!({ "code": code, "message": self.message, "data": [self.info()] })
    }

    fn info(&self) -> Value {
        let (.., reason) = self.kind.told();
        info(reason, "a2a-protocol.org", &self.metadata)
    }
}

fn info(reason: &str, domain: &str, metadata: &Map<String, Value>) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason, "domain": domain, "metadata": metadata,
    })
}

/// JSON-RPC's number for a refusal, for which A2A has none; HTTP's status says which.
const REFUSED: i32 = -32000;

/// The name of a JSON-RPC call, among the extensions of its answer; null where it could not be read.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct CallId(pub(in crate::api) Value);

/// The body of the gate's refusal, as the binding at `path` tells errors; `None` if that is no path of A2A's.
pub(in crate::api) fn told_at(path: &str, CallId(id): &CallId, refusal: &Refusal) -> Option<Value> {
    let (status, message) = (refusal.status(), refusal.message());
    let details = [info(&refusal.code().to_uppercase(), "llamesh", &Map::new())];
    match path.strip_prefix("/a2a")?.bytes().next() {
        None => Some(json!({
            "jsonrpc": "2.0", "id": id,
            "error": { "code": REFUSED, "message": message, "data": details },
        })),
        Some(b'/') => Some(json!({ "error": {
            "code": status.as_u16(), "status": grpc(status), "message": message, "details": details,
        } })),
        Some(_) => None,
    }
}

/// gRPC's word for HTTP's.
fn grpc(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
        StatusCode::FORBIDDEN => "PERMISSION_DENIED",
        StatusCode::TOO_MANY_REQUESTS => "RESOURCE_EXHAUSTED",
        StatusCode::REQUEST_TIMEOUT => "DEADLINE_EXCEEDED",
        StatusCode::SERVICE_UNAVAILABLE => "UNAVAILABLE",
        _ => "INVALID_ARGUMENT",
    }
}

/// As HTTP+JSON has it.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (_, status, name, _) = self.kind.told();
        let error = json!({
            "code": status.as_u16(), "status": name, "message": self.message, "details": [self.info()],
        });
        let mut response = (status, Json(json!({ "error": error }))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(SOON));
        }
        response
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Self {
        let kind = match error.code() {
            "context_exceeded" | "invalid" | "limit" | "unsupported" => Kind::InvalidParams,
            "busy" => Kind::Overloaded,
            _ => Kind::Internal,
        };
        Self::new(kind, error.to_string()).with("code", error.code())
    }
}

/// What aiming a job has found, in the words of the gateway that it is shared with.
impl From<openai::Error> for Error {
    fn from(error: openai::Error) -> Self {
        let kind = if error.code() == "busy" { Kind::Overloaded } else { Kind::InvalidParams };
        let told = Self::new(kind, error.message()).with("code", error.code());
        match error.param() {
            Some(param) => told.with("field", param),
            None => told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_as_the_path_s_binding_tells_errors() {
        let words = [
            (Refusal::BodyTooLarge, "INVALID_ARGUMENT", "REQUEST_TOO_LARGE"),
            (Refusal::BodyTooSlow, "DEADLINE_EXCEEDED", "REQUEST_TIMEOUT"),
            (Refusal::Concurrent, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"),
            (Refusal::NoToken, "UNAUTHENTICATED", "INVALID_API_KEY"),
            (Refusal::OwnerOnly, "PERMISSION_DENIED", "OWNER_ONLY"),
            (Refusal::Overloaded, "UNAVAILABLE", "OVERLOADED"),
        ];
        for (refusal, status, reason) in words {
            let told = |path| told_at(path, &CallId("7".into()), &refusal);
            let details = json!([{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason, "domain": "llamesh", "metadata": {},
            }]);
            let (code, message) = (refusal.status().as_u16(), refusal.message());
            let error = json!({ "code": code, "status": status, "message": message.clone(), "details": details.clone() });
            assert_eq!(told("/a2a/tasks"), Some(json!({ "error": error })));
            let error = json!({ "code": REFUSED, "message": message, "data": details });
            assert_eq!(told("/a2a"), Some(json!({ "jsonrpc": "2.0", "id": "7", "error": error })));
            assert_eq!((told("/a2ax"), told("/v1/models")), (None, None));
        }
    }
}
