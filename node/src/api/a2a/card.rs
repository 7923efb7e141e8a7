//! The agent card: what this peer is for whoever finds it (A2A §4.4, §8), signed by the key that is the peer.
//!
//! It is read by strangers without a token, so it tells capabilities of the mesh, and not who offers them, with which models
//! or at what price. It is signed in the name that the request said, which the gate has found to be this peer's.
//!
//! The signature is a JWS over the card without it, in canonical form (RFC 8785). Readers may drop fields that have their
//! default value before they check it, so nothing of that kind is in the card.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crypto::Digest;
use protocol::{AgentOffer, Capability, JobKind, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::error::{Error, Kind};
use super::{Desk, EXTENSION, VERSION, moment};
use crate::clock;
use crate::handle::NodeHandle;

/// How long what is on offer is believed, in milliseconds: looking asks the mesh, and anybody may read a card.
const FRESH: u64 = 30_000;
/// How long a reader may keep the card.
const CACHE: &str = "public, max-age=60";
/// Skills on a card; each is a capability of the mesh.
const MAX_SKILLS: usize = 64;
/// What a proxy with TLS before this peer says of the request.
const SCHEME: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What was on offer when somebody looked last.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Option<Seen>>);

#[derive(Clone, Debug)]
struct Seen {
    skills: Arc<Vec<Value>>,
    at: Timestamp,
    /// Since when it is the same.
    since: Timestamp,
}

pub(super) async fn card(desk: Desk, headers: HeaderMap) -> Result<Response, Error> {
    let seen = desk.office.shelf.look(&desk.node).await?;
    let base = base(&headers);
    let mut card = described(&desk, &base, &seen.skills);
    let canonical = canonical(&card)?;
    let tag = format!("\"{}\"", Digest::of_content(&canonical));
    let told = [
        (header::CACHE_CONTROL, CACHE.to_owned()),
        (header::ETAG, tag.clone()),
        (header::LAST_MODIFIED, moment::http(seen.since)),
        (header::VARY, SCHEME.as_str().to_owned()),
    ];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let same = |known: &str| known == "*" || known.trim_start_matches("W/") == tag;
    if known.split(',').map(str::trim).any(same) {
        return Ok((StatusCode::NOT_MODIFIED, told).into_response());
    }
    let (did, keys) = (desk.node.id().did_key(), format!("{base}/.well-known/jwks.json"));
    let protected = json!({ "alg": "EdDSA", "jku": keys, "kid": did, "typ": "JOSE" });
    let jws = desk.node.jws(&protected.to_string(), &canonical);
    card["signatures"] = json!([{ "protected": jws.protected, "signature": jws.signature }]);
    Ok((told, Json(card)).into_response())
}

/// The key that signs, as other programs read keys (RFC 8037).
pub(super) async fn keys(desk: Desk) -> Response {
    let peer = desk.node.id();
    let key = json!({
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": peer.did_key(),
        "x": URL_SAFE_NO_PAD.encode(peer.as_bytes()),
    });
    ([(header::CACHE_CONTROL, CACHE)], Json(json!({ "keys": [key] }))).into_response()
}

/// Where this peer is, as the request said it.
fn base(headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scheme = if text(SCHEME) == "https" { "https" } else { "http" };
    format!("{scheme}://{}", text(header::HOST))
}

/// The card without its signature.
fn described(desk: &Desk, base: &str, skills: &[Value]) -> Value {
    let url = format!("{base}/a2a");
    let interface =
        |binding: &str| json!({ "url": url, "protocolBinding": binding, "protocolVersion": VERSION });
    let network = desk.node.network();
    let mut card = json!({
        "name": format!("Llamesh peer {}", desk.node.id().short()),
        "description": format!(
            "A peer of the mesh `{network}`: a message goes to whichever agent of the mesh fits it, and the answer \
             comes with a receipt that can be checked."
        ),
        "version": env!("CARGO_PKG_VERSION"),
        "supportedInterfaces": [interface("JSONRPC"), interface("HTTP+JSON")],
        "capabilities": {
            "streaming": true, "pushNotifications": true, "extendedAgentCard": false,
            "extensions": [{
                "uri": EXTENSION,
                "description": "What a message wants of the mesh, in its metadata: model, capability, max_price \
                                (micro-credits), deadline (seconds), provider, auction, max_tokens, temperature, seed. \
                                An artifact says under the same name which receipt answers for it.",
            }],
        },
        "defaultInputModes": ["text/plain", "application/json"],
        "defaultOutputModes": ["text/plain"],
        "skills": skills,
    });
    if desk.locked {
        card["securitySchemes"] = json!({ "key": { "httpAuthSecurityScheme": {
            "scheme": "Bearer", "description": "A key that the peer's owner has made for you.",
        } } });
        // The role is said because an empty list is dropped by some readers.
        card["securityRequirements"] = json!([{ "schemes": { "key": { "list": ["key"] } } }]);
    }
    card
}

fn canonical(card: &Value) -> Result<Vec<u8>, Error> {
    serde_json_canonicalizer::to_vec(card).map_err(|error| Error::new(Kind::Internal, error.to_string()))
}

impl Shelf {
    /// What is on offer, looked for at most as often as [`FRESH`] says, and by one reader at a time.
    async fn look(&self, node: &NodeHandle) -> Result<Seen, Error> {
        let mut seen = self.0.lock().await;
        let now = clock::now();
        if let Some(seen) = seen.as_ref().filter(|seen| seen.at.after(FRESH) > now) {
            return Ok(seen.clone());
        }
        let busy = |_| Error::new(Kind::Overloaded, "the peer has too much to do; try again in a second");
        let profiles = node.find(None).await.map_err(busy)?;
        let skills = skills(profiles.iter().flat_map(|profile| &profile.agents));
        let since = seen.as_ref().filter(|seen| *seen.skills == skills).map_or(now, |seen| seen.since);
        Ok(seen.insert(Seen { skills: Arc::new(skills), at: now, since }).clone())
    }
}

/// Capabilities that a message can be for.
fn skills<'a>(offers: impl Iterator<Item = &'a AgentOffer>) -> Vec<Value> {
    let mut found: BTreeMap<&Capability, bool> = BTreeMap::new();
    for offer in offers {
        let tool = offer.takes(JobKind::Call);
        if tool || offer.takes(JobKind::Generate) {
            *found.entry(&offer.capability).or_default() |= tool;
        }
    }
    if found.is_empty() {
        // A card without skills is none.
        let description = "Nothing is on offer at this moment; what comes will be.";
        return vec![json!({ "id": "mesh", "name": "mesh", "description": description, "tags": ["mesh"] })];
    }
    found.into_iter().take(MAX_SKILLS).map(|(capability, tool)| skill(capability, tool)).collect()
}

fn skill(capability: &Capability, tool: bool) -> Value {
    let path = capability.as_str();
    let words: Vec<&str> = path.split('.').collect();
    let description = if tool {
        format!(
            "A tool: send its arguments as one data part, with `{EXTENSION}`: {{\"capability\": \"{path}\"}}"
        )
    } else {
        format!("Answers messages; to have exactly this, say `{EXTENSION}`: {{\"capability\": \"{path}\"}}")
    };
    let input = if tool { json!(["application/json"]) } else { json!(["text/plain", "application/json"]) };
    json!({ "id": path, "name": words.join(" "), "description": description, "tags": words, "inputModes": input })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_s_address_is_what_the_request_said() {
        let headers = |pairs: &[(HeaderName, &str)]| {
            pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        assert_eq!(base(&headers(&[(header::HOST, "127.0.0.1:5264")])), "http://127.0.0.1:5264");
        assert_eq!(
            base(&headers(&[(header::HOST, "mesh.example"), (SCHEME, "https")])),
            "https://mesh.example"
        );
        assert_eq!(base(&headers(&[(header::HOST, "a"), (SCHEME, "javascript")])), "http://a");
    }

    #[test]
    fn a_card_without_offers_still_has_a_skill() {
        assert_eq!(skills(std::iter::empty()).len(), 1);
    }
}
