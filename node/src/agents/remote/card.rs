//! An agent's card, and which of the ways to ask it that are named there is taken.

use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use tokio::time::timeout;

use super::{ApiKey, RemoteError, UpstreamError, whole};

/// How long a card may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a card: some hundred skills.
const MAX_CARD: usize = 256 << 10;
/// Where a card is.
const PLACE: &str = "/.well-known/agent-card.json";

/// One way to ask an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) url: Url,
    pub(super) binding: Binding,
    /// Whether it tells its answer as it comes.
    pub(super) streams: bool,
}

/// How calls are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    Rest,
    Rpc,
}

impl Interface {
    /// An address below its own.
    pub(super) fn below(&self, segments: &[&str]) -> Option<Url> {
        let mut url = self.url.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(segments);
        Some(url)
    }
}

/// What of a card matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Card {
    #[serde(default)]
    supported_interfaces: Vec<Named>,
    #[serde(default)]
    capabilities: Capabilities,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    url: String,
    protocol_binding: String,
    protocol_version: String,
}

#[derive(Debug, Default, Deserialize)]
struct Capabilities {
    #[serde(default)]
    streaming: bool,
}

/// Looks at an agent's card.
pub(super) async fn fetch(
    client: &Client,
    base: &str,
    key: Option<&ApiKey>,
) -> Result<Interface, RemoteError> {
    let odd = || UpstreamError::Address(base.to_owned());
    let url = Url::parse(&format!("{}{PLACE}", base.trim_end_matches('/'))).map_err(|_| odd())?;
    let request = client.get(url.clone());
    let request =
        key.map_or_else(|| client.get(url.clone()), |key| request.header(AUTHORIZATION, key.header()));
    let sent = timeout(PATIENCE, request.send()).await;
    let silent = || RemoteError::Unreachable("it does not answer".to_owned());
    let response =
        sent.map_err(|_| silent())?.map_err(|error| RemoteError::Unreachable(error.to_string()))?;
    if response.status() != StatusCode::OK {
        return Err(RemoteError::Card(format!("{url} answers {}", response.status())));
    }
    let read = timeout(PATIENCE, whole(response, MAX_CARD)).await.map_err(|_| silent())?;
    let text =
        read.map_err(|_| RemoteError::Card(format!("it broke off, or has more than {MAX_CARD} bytes")))?;
    let card: Card = serde_json::from_str(&text).map_err(|error| RemoteError::Card(error.to_string()))?;
    choose(&url, card).ok_or(RemoteError::Interface)
}

/// The first interface at the same host that is understood here: the card's author prefers the first.
fn choose(card_at: &Url, card: Card) -> Option<Interface> {
    let streams = card.capabilities.streaming;
    card.supported_interfaces.into_iter().find_map(|named| {
        let binding = match named.protocol_binding.as_str() {
            "JSONRPC" => Binding::Rpc,
            "HTTP+JSON" => Binding::Rest,
            _ => return None,
        };
        let url = Url::parse(&named.url).ok().filter(|url| url.origin() == card_at.origin())?;
        named.protocol_version.starts_with("1.").then_some(Interface { url, binding, streams })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chosen(interfaces: serde_json::Value) -> Option<Interface> {
        let card = json!({ "supportedInterfaces": interfaces, "capabilities": { "streaming": true } });
        choose(
            &Url::parse("https://a.example/.well-known/agent-card.json").unwrap(),
            serde_json::from_value(card).unwrap(),
        )
    }

    fn named(url: &str, binding: &str, version: &str) -> serde_json::Value {
        json!({ "url": url, "protocolBinding": binding, "protocolVersion": version })
    }

    #[test]
    fn the_first_that_is_understood_at_the_same_host_is_taken() {
        let good = named("https://a.example/x/", "HTTP+JSON", "1.0");
        for other in [
            named("https://a.example/g", "GRPC", "1.0"),
            named("https://a.example/old", "JSONRPC", "0.3"),
            named("http://a.example/x", "JSONRPC", "1.0"),
            named("https://169.254.169.254/x", "JSONRPC", "1.0"),
            named("https://a.example:444/x", "JSONRPC", "1.0"),
            named("nonsense", "JSONRPC", "1.0"),
        ] {
            assert_eq!(chosen(json!([other])), None);
            let interface = chosen(json!([other, good])).unwrap();
            assert_eq!((interface.binding, interface.streams), (Binding::Rest, true));
            let below = interface.below(&["tasks", "a/b:cancel"]).unwrap();
            assert_eq!(below.as_str(), "https://a.example/x/tasks/a%2Fb:cancel");
        }
    }
}
