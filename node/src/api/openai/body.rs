//! Bodies of requests: JSON of a bounded size, or an error that says what is wrong with it and where.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Choosing, Error, Options};

/// What a client asks, and what it says of the mesh beside it.
pub(super) struct Body<T> {
    pub(super) request: T,
    pub(super) options: Options,
    /// The whole of it, as it was written.
    pub(super) bytes: Bytes,
}

/// Our own part of a body, which no other server knows.
#[derive(Deserialize)]
struct Own {
    llamesh: Option<Map<String, Value>>,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let headers = request.headers().clone();
        if !is_json(&headers) {
            return Err(Error::not_json());
        }
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| Error::unread(error.status(), error.body_text()))?;
        Self::read(&headers, bytes)
    }
}

impl<T: DeserializeOwned> Body<T> {
    pub(super) fn read(headers: &HeaderMap, bytes: Bytes) -> Result<Self, Error> {
        let request = parse(&bytes)?;
        let own: Own = parse(&bytes)?;
        Ok(Self { request, options: Options::read(headers, own.llamesh.as_ref())?, bytes })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Reads a document; an error names the parameter that does not fit.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let error = match whole(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // A part that is flattened into another one does not tell where it failed; by itself it does.
    match (error.param(), whole::<Choosing>(bytes)) {
        (None, Err(found)) if found.param().is_some() => Err(found),
        _ => Err(error),
    }
}

fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, what) = (error.path().to_string(), error.inner().to_string());
        let error = Error::invalid(format!("the body is not what is expected here: {what}"));
        match param(&path, &what) {
            Some(param) => error.about(param),
            None => error,
        }
    })?;
    json.end().map_err(|error| Error::invalid(format!("the body goes on after its end: {error}")))?;
    Ok(value)
}

/// Which parameter an error is about; serde names one that is missing in its words only.
fn param(path: &str, what: &str) -> Option<String> {
    let path = Some(path).filter(|path| *path != "." && !path.contains('?'));
    let missing = what.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    match (path, missing) {
        (Some(path), Some(field)) => Some(format!("{path}.{field}")),
        (None, Some(field)) => Some(field.to_owned()),
        (path, None) => path.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::openai::chat::ChatRequest;

    #[test]
    fn an_error_names_what_is_wrong() {
        let param =
            |body: &str| parse::<ChatRequest>(body.as_bytes()).unwrap_err().param().map(str::to_owned);
        let named = |body: &str| param(body).unwrap();
        assert_eq!(named(r#"{"model":"m"}"#), "messages");
        assert_eq!(named(r#"{"messages":[]}"#), "model");
        assert_eq!(named(r#"{"model":"m","messages":[{"content":"x"}]}"#), "messages[0].role");
        assert_eq!(named(r#"{"model":"m","messages":[],"temperature":"hot"}"#), "temperature");
        assert_eq!(named(r#"{"model":"m","messages":[],"max_tokens":-1}"#), "max_tokens");
        assert_eq!(param("{"), None);
        assert_eq!(param(r#"{"model":"m","messages":[]} {}"#), None);
        assert!(
            parse::<ChatRequest>(br#"{"model":"m","messages":[],"seed":null,"unknown":{"a":[]}}"#).is_ok()
        );
    }
}
