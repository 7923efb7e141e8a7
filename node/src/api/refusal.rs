//! Why a request gets no further than the door: in OpenAI's shape, whose clients know how to tell it and when to come back,
//! where no gateway has another one.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::Capability;
use serde_json::{Value, json};

/// A request that is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The body is larger than any job's input.
    BodyTooLarge,
    /// The body did not come in time.
    BodyTooSlow,
    /// What the key may ask for is something else.
    Capability(Capability),
    /// As many requests of this key as may be are at work.
    Concurrent,
    /// The key's time is over.
    Expired,
    /// A page that is not this peer's asks.
    ForeignPage,
    /// Another host is named.
    ForeignHost,
    /// What is left of the key's spend is held by jobs at work.
    Held,
    /// No token came with it.
    NoToken,
    /// Only the peer's owner may ask this.
    OwnerOnly,
    /// More requests are at work than the peer takes at once.
    Overloaded,
    /// More requests of this key in a minute than may be.
    Rate {
        /// Seconds until the next one may come.
        retry_after: u64,
    },
    /// The key was revoked.
    Revoked,
    /// The key's spend is used up.
    Spent {
        /// Seconds until there is more, where there will be.
        retry_after: Option<u64>,
    },
    /// No such token.
    UnknownToken,
}

impl Refusal {
    /// The answer, in whatever shape.
    pub(super) fn told(&self, body: Value) -> Response {
        let status = self.status();
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// HTTP's word for it, which is the same in all shapes.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Expired | Self::NoToken | Self::Revoked | Self::UnknownToken => StatusCode::UNAUTHORIZED,
            Self::Capability(_) | Self::ForeignPage | Self::ForeignHost | Self::OwnerOnly => {
                StatusCode::FORBIDDEN
            }
            Self::Concurrent | Self::Held | Self::Rate { .. } | Self::Spent { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A name for programs.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Expired | Self::NoToken | Self::Revoked | Self::UnknownToken => "invalid_api_key",
            Self::Capability(_) => "capability_not_allowed",
            Self::ForeignPage | Self::ForeignHost => "forbidden",
            Self::OwnerOnly => "owner_only",
            Self::Concurrent | Self::Rate { .. } => "rate_limit_exceeded",
            Self::Held | Self::Spent { .. } => "insufficient_quota",
            Self::BodyTooLarge => "request_too_large",
            Self::BodyTooSlow => "request_timeout",
            Self::Overloaded => "overloaded",
        }
    }

    /// What is wrong and what to do.
    pub fn message(&self) -> String {
        let text = match self {
            Self::BodyTooLarge => "the body is larger than any input may be, or broke off; shorten it",
            Self::BodyTooSlow => "the body did not come in time; send it again",
            Self::Capability(capability) => {
                return format!(
                    "this key may not ask for `{capability}`; the peer's owner can make one that may"
                );
            }
            Self::Concurrent => "this key has as many requests at work as it may; wait for one to end",
            Self::Expired => "this key has expired; ask the peer's owner for another one",
            Self::ForeignPage => "this request comes from a web page that is not this peer's",
            Self::ForeignHost => {
                "this request names another host; use the address that the peer printed, or start it with --api-name NAME"
            }
            Self::Held => "what is left of this key's spend is held by jobs at work; wait for one to end",
            Self::NoToken => {
                "a key is needed: send `Authorization: Bearer KEY` (`llamesh keys create` makes one)"
            }
            Self::OwnerOnly => {
                "only the peer's owner may ask this: send the token that `llamesh up` printed (LLAMESH_TOKEN for the command line)"
            }
            Self::Overloaded => "the peer has as many requests at work as it takes; try again in a second",
            Self::Rate { .. } => "this key has sent as many requests in a minute as it may; try again later",
            Self::Revoked => "this key was revoked; ask the peer's owner for another one",
            Self::Spent { .. } => "this key's spend is used up; ask the peer's owner for more",
            Self::UnknownToken => {
                "this peer knows no such key; `llamesh keys list` shows those that it knows"
            }
        };
        text.to_owned()
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Concurrent | Self::Held | Self::Overloaded => Some(1),
            Self::Rate { retry_after } => Some(*retry_after),
            Self::Spent { retry_after } => *retry_after,
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = match self.status() {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let error = json!({ "message": self.message(), "type": kind, "param": null, "code": self.code() });
        self.told(json!({ "error": error }))
    }
}
