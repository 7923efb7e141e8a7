//! `auto`: the capability on offer that the prompt reads most like.
//!
//! Where this peer hosts an embedder, the prompt and what is known of each capability (its words, the names of its agents and
//! tools) become vectors here, and the closest wins; so the prompt leaves this peer for the winner only. Without an embedder
//! any model that generates text will do.
//!
//! Capabilities and names are what peers say of themselves. Who must know where a prompt goes says so, by `model` or options.

use std::collections::BTreeMap;

use crypto::Verified;
use protocol::{AgentOffer, Capability, ChatMessage, JobKind, Profile, Role};
use serde_json::Value;

use super::target::{chosen, offers, on_offer};
use super::{Error, Gateway, Options, embeddings};
use crate::request::JobRequest;

/// Capabilities that are compared; each costs a vector when it is first seen.
const MAX_CAPABILITIES: usize = 64;
/// Bytes of the prompt's end that are compared: what is asked stands there, and an embedder reads some hundred words.
const MAX_PROMPT: usize = 1024;
/// How much closer than plain text a more special capability must be: chance makes smaller differences.
const MARGIN: f32 = 0.05;
/// How close it must be at least. With the default embedder, a prompt about Rust is at 0.57 to `code.generation.rust`, one that
/// has nothing to do with it below 0.11.
const LEAST: f32 = 0.15;

/// The request with the capability that fits best, and what to tell of the choice.
pub(super) async fn choose(
    gateway: &Gateway,
    options: &Options,
    request: JobRequest,
) -> Result<(JobRequest, Option<Value>), Error> {
    if request.kind != Some(JobKind::Generate) || options.name_somebody() {
        return Ok((request, None));
    }
    let usual = Capability::text_generation();
    let Some(embedder) = gateway.node.agents().offers().into_iter().find(|offer| offer.takes(JobKind::Embed))
    else {
        return Ok((request, Some(chosen(&usual, "no embedder on this peer: any text generation"))));
    };
    let described = described(&on_offer(gateway).await?);
    if let [(only, _)] = described.as_slice() {
        let told = chosen(only, "nothing else is on offer");
        return Ok((JobRequest { capability: Some(only.clone()), ..request }, Some(told)));
    }
    let texts = described.iter().map(|(_, text)| text.clone()).chain([asked(&request)]).collect();
    // A choice is a service: without vectors the prompt still finds somebody.
    let vectors = embeddings::here(gateway, &embedder, texts).await.unwrap_or_default();
    let Some((prompt, others)) = vectors.split_last() else {
        return Ok((
            request,
            Some(chosen(&usual, "the embedder of this peer is at its limits: any text generation")),
        ));
    };
    let closeness: Vec<f32> = others.iter().map(|vector| dot(vector, prompt)).collect();
    let best = best(&described, &closeness);
    let (capability, closeness) = best.unwrap_or((&usual, 0.0));
    let mut told = chosen(capability, "closest to the prompt");
    told["closeness"] = closeness.into();
    told["of"] = described.len().into();
    Ok((JobRequest { capability: Some(capability.clone()), ..request }, Some(told)))
}

/// Each capability that generates, with what is known of it.
fn described(profiles: &[Verified<Profile>]) -> Vec<(Capability, String)> {
    let mut words: BTreeMap<Capability, Vec<&str>> = BTreeMap::new();
    for offer in offers(profiles).filter(|offer| offer.takes(JobKind::Generate)) {
        let AgentOffer { agent, capability, tools, .. } = offer;
        if words.len() < MAX_CAPABILITIES || words.contains_key(capability) {
            let known = words.entry(capability.clone()).or_default();
            known.extend([agent.as_str()].into_iter().chain(tools.iter().map(String::as_str)));
        }
    }
    let text = |capability: &Capability, mut names: Vec<&str>| {
        names.sort_unstable();
        names.dedup();
        // What is special stands last in a path, and first in a sentence.
        let path: Vec<&str> = capability.as_str().rsplit('.').collect();
        format!("{} ({})", path.join(" "), names.join(", ")).replace(['-', '_', '.'], " ")
    };
    words.into_iter().map(|(capability, names)| (capability.clone(), text(&capability, names))).collect()
}

/// What the prompt asks: the end of what was said last.
fn asked(request: &JobRequest) -> String {
    let said = |message: &&ChatMessage| message.role == Role::User;
    let message = request.messages.iter().rev().find(said).map(|message| message.content.as_str());
    let text = message.or(request.prompt.as_deref()).or(request.text.as_deref()).unwrap_or_default();
    text[text.ceil_char_boundary(text.len().saturating_sub(MAX_PROMPT))..].to_owned()
}

/// The closest; plain text unless another one is clearly closer.
fn best<'a>(described: &'a [(Capability, String)], closeness: &[f32]) -> Option<(&'a Capability, f32)> {
    let usual = Capability::text_generation();
    let fair = |(capability, closeness): (&'a Capability, &f32)| {
        let plain = *capability == usual;
        (capability, *closeness, if plain { (closeness + MARGIN).max(LEAST) } else { *closeness })
    };
    let all = described.iter().map(|(capability, _)| capability).zip(closeness).map(fair);
    all.max_by(|a, b| a.2.total_cmp(&b.2)).map(|(capability, closeness, _)| (capability, closeness))
}

/// The cosine, as vectors of embedders have length one.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(text: &str) -> (Capability, String) {
        (text.parse().unwrap(), String::new())
    }

    #[test]
    fn the_closest_wins_and_plain_text_wins_by_default() {
        let described = [capability("code.generation"), capability("text.generation")];
        let best = |closeness: [f32; 2]| best(&described, &closeness).unwrap().0.to_string();
        assert_eq!(best([0.5, 0.2]), "code.generation");
        assert_eq!(best([0.24, 0.2]), "text.generation");
        assert_eq!(best([0.14, 0.0]), "text.generation", "nothing is close");
        assert_eq!(best([0.1, 0.2]), "text.generation");
    }

    #[test]
    fn the_end_of_what_the_user_said_last_is_compared() {
        let message = |role, text: &str| ChatMessage::new(role, text);
        let messages =
            vec![message(Role::User, "first"), message(Role::User, "é".repeat(MAX_PROMPT).as_str())];
        let messages = messages.into_iter().chain([message(Role::Assistant, "no")]).collect();
        let text = asked(&JobRequest { messages, ..JobRequest::default() });
        assert!(text.len() <= MAX_PROMPT && text.chars().all(|c| c == 'é') && text.len() > MAX_PROMPT - 4);
        assert_eq!(asked(&JobRequest::default()), "");
    }
}
