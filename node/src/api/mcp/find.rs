//! `find_agents`: who offers what, the cheapest first.

use std::cmp::Reverse;

use crypto::PeerId;
use protocol::{AgentOffer, Capability, Price};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::guest::Guest;
use crate::api::control::Found;
use crate::failure::Failure;

/// Agents that are shown: more than anybody chooses among.
const MAX_SHOWN: usize = 64;

/// What they must be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    capability: Option<Capability>,
    model: Option<String>,
    language: Option<String>,
    max_price: Option<u64>,
}

impl Wanted {
    fn fits(&self, offer: &AgentOffer) -> bool {
        let Price { prompt, completion } = offer.price;
        let named = |wanted: &String| {
            let model = offer.model.as_ref();
            model.is_some_and(|model| model.name == *wanted || model.digest.to_string() == *wanted)
        };
        self.capability.as_ref().is_none_or(|wanted| wanted.covers(&offer.capability))
            && self.model.as_ref().is_none_or(named)
            && self.language.as_ref().is_none_or(|wanted| offer.languages.contains(wanted))
            && self.max_price.is_none_or(|most| prompt.0.max(completion.0) <= most)
    }
}

pub(super) async fn find(guest: &Guest, wanted: Wanted) -> Result<Answer, Failure> {
    let found = guest.mesh.find(wanted.capability.clone()).await?;
    let offers =
        found.iter().flat_map(|Found { peer, profile }| profile.agents.iter().map(|one| (*peer, one)));
    let mut offers: Vec<_> = offers.filter(|(_, offer)| wanted.fits(offer)).collect();
    offers.sort_by_key(|(peer, offer)| {
        (offer.price.completion, offer.price.prompt, Reverse(offer.speed.decode), *peer)
    });
    let more = offers.len().saturating_sub(MAX_SHOWN);
    offers.truncate(MAX_SHOWN);
    let value = json!({ "agents": offers.iter().map(entry).collect::<Vec<_>>(), "more": more });
    if offers.is_empty() {
        let next = "leave out some of the arguments to see what there is; \
                    `llamesh doctor` says how this peer is connected";
        return Ok(Answer::new(value, format!("nobody offers this; {next}")));
    }
    let mut lines: Vec<_> = offers.iter().map(row).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    Ok(Answer::new(value, lines.join("\n")))
}

fn entry((peer, offer): &(PeerId, &AgentOffer)) -> Value {
    let mut entry = json!({
        "peer": peer,
        "agent": offer.agent,
        "capability": offer.capability,
        "kinds": offer.kinds,
        "price": offer.price,
        "speed": offer.speed,
        "languages": offer.languages,
        "modalities": offer.modalities,
        "tools": offer.tools,
    });
    if let Some(model) = &offer.model {
        let (name, digest) = (&model.name, model.digest);
        entry["model"] =
            json!({ "name": name, "digest": digest, "engine": model.engine, "context": model.context });
    }
    entry
}

fn row((peer, offer): &(PeerId, &AgentOffer)) -> String {
    let model = offer.model.as_ref().map_or("no model", |model| model.name.as_str());
    let (speed, price) = (offer.speed.decode, offer.price);
    format!(
        "{peer}  {}  {model}  {speed} tokens/s  {} + {} for 1000 tokens of prompt and answer",
        offer.capability, price.prompt, price.completion
    )
}
