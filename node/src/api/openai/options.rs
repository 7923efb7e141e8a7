//! What a request may say of the mesh: an object `llamesh` in its body, or headers `x-llamesh-…`, where the body counts.
//!
//! What is not known is refused: who asks for a limit must not get an answer without it.
//!
//! | option | |
//! |---|---|
//! | `capability` | what the provider must offer |
//! | `max_price` | the most that the whole reply may cost, in micro-credits; 0 by default |
//! | `deadline` | seconds until the job is given up |
//! | `provider` | only this peer |
//! | `auction` | whether sealed bids are collected instead of a few quotes |

use axum::http::HeaderMap;
use crypto::PeerId;
use protocol::Capability;
use serde_json::{Map, Value};

use super::Error;
use crate::request::JobRequest;

/// What all our headers begin with.
const PREFIX: &str = "x-llamesh-";

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    capability: Option<Capability>,
    max_price: Option<u64>,
    deadline: Option<u64>,
    provider: Option<PeerId>,
    auction: bool,
}

impl Options {
    pub(super) fn read(headers: &HeaderMap, body: Option<&Map<String, Value>>) -> Result<Self, Error> {
        let mut options = Self::default();
        for (header, value) in headers {
            let Some(name) = header.as_str().strip_prefix(PREFIX) else { continue };
            options.set(&name.replace('-', "_"), value.to_str().unwrap_or("?"), header.as_str())?;
        }
        for (name, value) in body.into_iter().flatten() {
            let param = format!("llamesh.{name}");
            match value {
                Value::Null => {}
                Value::String(text) => options.set(name, text, &param)?,
                other => options.set(name, &other.to_string(), &param)?,
            }
        }
        Ok(options)
    }

    /// Takes one option; `param` is what the client called it.
    fn set(&mut self, name: &str, value: &str, param: &str) -> Result<(), Error> {
        let wrong = |expected: &str| {
            Error::invalid(format!("`{param}` must be {expected}, and is `{value:.80}`")).about(param)
        };
        match name {
            "capability" => {
                let capability = value.parse().map_err(|_| wrong("a capability, like code.generation"))?;
                self.capability = Some(capability);
            }
            "max_price" => {
                self.max_price = Some(value.parse().map_err(|_| wrong("a number of micro-credits"))?);
            }
            "deadline" => self.deadline = Some(value.parse().map_err(|_| wrong("a number of seconds"))?),
            "provider" => self.provider = Some(value.parse().map_err(|_| wrong("the id of a peer"))?),
            "auction" => self.auction = value.parse().map_err(|_| wrong("true or false"))?,
            _ => {
                let known = "capability, max_price, deadline, provider and auction";
                return Err(Error::unsupported(format!("`{param}` is not known; {known} are")).about(param));
            }
        }
        Ok(())
    }

    /// A request with these options; what it says itself of the capability is a default.
    pub(super) fn on(&self, request: JobRequest) -> JobRequest {
        JobRequest {
            capability: self.capability.clone().or(request.capability),
            budget: self.max_price.or(request.budget),
            timeout_s: self.deadline.or(request.timeout_s),
            provider: self.provider.or(request.provider),
            auction: self.auction,
            ..request
        }
    }

    /// What the provider must offer, where that was said.
    pub(super) fn capability(&self) -> Option<&Capability> {
        self.capability.as_ref()
    }

    /// True where the client has said who is to answer, in whatever way.
    pub(super) fn name_somebody(&self) -> bool {
        self.capability.is_some() || self.provider.is_some()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    fn read(headers: &[(&'static str, &'static str)], body: &Value) -> Result<Options, Error> {
        let pairs = headers.iter();
        let pairs =
            pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Options::read(&pairs.collect(), body.as_object())
    }

    #[test]
    fn headers_and_body_say_the_same_and_the_body_counts() {
        let peer = crypto::SecretKey::from_seed(&[1; 32]).peer_id();
        let body = json!({ "capability": "code.generation", "max_price": 7, "deadline": 9, "auction": true,
                           "provider": peer.to_string() });
        let said = read(&[], &body).unwrap();
        let headers = [
            ("x-llamesh-capability", "code.generation"),
            ("x-llamesh-max-price", "7"),
            ("x-llamesh-deadline", "9"),
            ("x-llamesh-auction", "true"),
            ("accept", "*/*"),
        ];
        let by_header = read(&headers, &json!({ "provider": peer.to_string() })).unwrap();
        assert_eq!(by_header, said);
        let job = said.on(JobRequest::default());
        assert_eq!(
            (job.budget, job.timeout_s, job.provider, job.auction),
            (Some(7), Some(9), Some(peer), true)
        );
        let both =
            read(&[("x-llamesh-deadline", "1")], &json!({ "deadline": 2, "max_price": null })).unwrap();
        assert_eq!((both.deadline, both.max_price), (Some(2), None));
    }

    #[test]
    fn what_is_not_known_or_not_right_is_refused_by_name() {
        let error = |headers: &[(&'static str, &'static str)], body: Value| {
            let error = read(headers, &body).unwrap_err();
            (error.code().to_owned(), error.param().unwrap().to_owned())
        };
        let found = |code: &str, param: &str| (code.to_owned(), param.to_owned());
        assert_eq!(error(&[], json!({ "trust": 1 })), found("unsupported", "llamesh.trust"));
        assert_eq!(error(&[("x-llamesh-trust", "1")], json!({})), found("unsupported", "x-llamesh-trust"));
        for (name, value) in [
            ("capability", "No!"),
            ("max_price", "-1"),
            ("deadline", "soon"),
            ("provider", "me"),
            ("auction", "yes"),
        ] {
            let param = format!("llamesh.{name}");
            assert_eq!(error(&[], json!({ name: value })), found("invalid_request", &param));
        }
    }
}
