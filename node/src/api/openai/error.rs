//! Errors in OpenAI's shape: a status that clients know how to deal with, and the mesh's own code.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::JobError;
use serde_json::{Value, json};

/// An error in OpenAI's shape.
#[derive(Debug)]
pub struct Error {
    status: StatusCode,
    code: String,
    message: String,
    /// Seconds after which to come back.
    retry_after: Option<u64>,
}

impl Error {
    /// For paths that are not there.
    pub fn unknown_path() -> Self {
        let message = "no such path; this peer serves /v1/models, /v1/chat/completions and /v1/completions";
        Self::new(StatusCode::NOT_FOUND, "not_found", message.to_owned())
    }

    pub(super) fn unknown_model(id: &str) -> Self {
        let message = format!("no peer offers the model `{id}`; see /v1/models");
        Self::new(StatusCode::NOT_FOUND, "model_not_found", message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message.into())
    }

    fn new(status: StatusCode, code: &str, message: String) -> Self {
        Self { status, code: code.to_owned(), message, retry_after: None }
    }

    pub(super) fn body(&self) -> Value {
        let kind = if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        json!({ "error": { "message": self.message, "type": kind, "param": null, "code": self.code } })
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Self {
        let status = match error.code() {
            "context_exceeded" | "invalid" | "limit" | "unsupported" => StatusCode::BAD_REQUEST,
            "busy" => StatusCode::TOO_MANY_REQUESTS,
            "nothing_offered" => StatusCode::NOT_FOUND,
            "no_taker" | "order" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        let retry_after = match error {
            // The header knows whole seconds only; half of one is not yet.
            JobError::Busy { retry_after_ms } => Some(retry_after_ms.div_ceil(1000)),
            _ => None,
        };
        Self { retry_after, ..Self::new(status, error.code(), error.to_string()) }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
