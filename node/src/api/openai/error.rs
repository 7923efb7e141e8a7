//! Errors in OpenAI's shape: a status that clients know how to deal with, the mesh's own code, and which parameter is
//! wrong where one is.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::{JobError, JobId};
use serde_json::{Value, json};

use super::reply::REQUEST_ID;

/// By which OpenAI's own clients know whether to try again, whatever the status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Seconds after which a mesh that had nobody may have somebody.
const SOON: u64 = 2;

/// Why a response is not there.
const FORGOTTEN: &str = "responses are kept in memory, for a day at most and while there is room";

/// An error in OpenAI's shape.
#[derive(Debug)]
pub struct Error {
    status: StatusCode,
    code: String,
    message: String,
    /// Which parameter is wrong.
    param: Option<String>,
    /// Seconds after which to come back.
    retry_after: Option<u64>,
    /// Whether it would be the same again, although its status does not say so.
    hopeless: bool,
    /// The job that failed.
    job: Option<JobId>,
}

impl Error {
    /// For paths that are not there.
    pub fn unknown_path() -> Self {
        let message = "no such path; this peer serves /v1/models, /v1/chat/completions, /v1/completions, \
                       /v1/embeddings, /v1/responses, /tokenize, /detokenize, /tokenizer_info, /mcp, /a2a, /.well-known/agent-card.json and /health";
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn wrong_method() -> Self {
        let message = "this path does not know that method; see the header `allow`";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub(super) fn not_json() -> Self {
        let message = "the body must be JSON, and the header `content-type` application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// A body that did not arrive whole.
    pub(super) fn unread(status: StatusCode, message: String) -> Self {
        let too_large = status == StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(status, if too_large { "too_large" } else { "invalid_request" }, message)
    }

    pub(super) fn unknown_model(id: &str) -> Self {
        let message = format!("no peer offers the model `{id}`; see /v1/models");
        Self::new(StatusCode::NOT_FOUND, "model_not_found", message).about("model")
    }

    pub(super) fn unknown_response(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "response_not_found",
            format!("this peer has no response `{id}`; {FORGOTTEN}"),
        )
    }

    pub(super) fn unknown_previous(id: &str) -> Self {
        let message = format!("this peer has no response `{id}` to go on with; {FORGOTTEN}");
        Self::new(StatusCode::BAD_REQUEST, "previous_response_not_found", message)
            .about("previous_response_id")
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// What this build does not do.
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unsupported", message)
    }

    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        Self { status, code, message, param: None, retry_after: None, hopeless: false, job: None }
    }

    /// The same with the parameter that it is about.
    #[must_use]
    pub(super) fn about(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// The same where what it is about is called otherwise.
    #[must_use]
    pub(super) fn called(mut self, names: &[(&str, &str)]) -> Self {
        let name = names.iter().find(|(ours, _)| self.param.as_deref() == Some(*ours));
        if let Some((_, theirs)) = name {
            self.param = Some((*theirs).to_owned());
        }
        self
    }

    /// The same of a part of something.
    #[must_use]
    pub(super) fn within(mut self, whole: &str) -> Self {
        self.param = self.param.map(|part| format!("{whole}.{part}"));
        self
    }

    /// The same with the job that failed.
    #[must_use]
    pub(super) fn of(self, job: JobId) -> Self {
        Self { job: Some(job), ..self }
    }

    /// The same of a job that asked for a model by name: where nobody could take it, the model is not there.
    #[must_use]
    pub(super) fn for_model(self) -> Self {
        match self.code.as_str() {
            "nothing_offered" => {
                let message = "no peer offers this model for what is asked of it; see /v1/models";
                let error = Self::new(StatusCode::NOT_FOUND, "model_not_found", message).about("model");
                Self { job: self.job, ..error }
            }
            _ => self,
        }
    }

    /// Which parameter is wrong.
    pub(in crate::api) fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    pub(in crate::api) fn code(&self) -> &str {
        &self.code
    }

    pub(in crate::api) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Self {
        let status = match error.code() {
            "context_exceeded" | "invalid" | "limit" | "unsupported" => StatusCode::BAD_REQUEST,
            "busy" => StatusCode::TOO_MANY_REQUESTS,
            "deadline_exceeded" => StatusCode::GATEWAY_TIMEOUT,
            "no_taker" | "nothing_offered" | "order" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        let retry_after = match error {
            // The header knows whole seconds only; half of one is not yet.
            JobError::Busy { retry_after_ms } => Some(retry_after_ms.div_ceil(1000)),
            _ => (status == StatusCode::SERVICE_UNAVAILABLE).then_some(SOON),
        };
        // What a client of OpenAI's reads of a code.
        let code = match error.code() {
            "context_exceeded" => "context_length_exceeded",
            code => code,
        };
        let hopeless = matches!(error, JobError::Cancelled | JobError::DeadlineExceeded);
        let param = match &error {
            JobError::Invalid { field, .. } => Some(field.to_string()),
            _ => None,
        };
        Self { param, retry_after, hopeless, ..Self::new(status, code, error.to_string()) }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.hopeless {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(job) = self.job.and_then(|job| HeaderValue::try_from(job.to_string()).ok()) {
            response.headers_mut().insert(REQUEST_ID, job);
        }
        response
    }
}
