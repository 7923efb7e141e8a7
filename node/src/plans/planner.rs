//! Who writes a plan for a goal, and what is asked of it.
//!
//! An agent that offers `plan` says itself that it can. Otherwise a model has to be large enough, and an offer tells its
//! model's digest and name only: known digests are small, and of all others the name is believed (`…-1.5B-…`).

use crypto::Digest;
use protocol::{Capability, ChatMessage, JobError, Profile, Role};
use serde_json::value::RawValue;

use crate::models::known;
use crate::request::JobRequest;
use crate::request::form::Form;

/// The form of a plan.
const SCHEMA: &str = include_str!("../../../protocol/schemas/plan.json");
/// Parameters that a model needs to write plans that are worth running; smaller ones repeat the schema's words.
const LEAST: u64 = 1_500_000_000;
/// Longest plan in tokens.
const MAX_TOKENS: u32 = 2048;

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planner {
    /// An agent that offers `plan`.
    Agent,
    /// A model that is large enough.
    Model(Digest),
}

/// The best planner of what is on offer.
///
/// # Errors
/// What was seen instead, for people.
pub fn choose<'a>(profiles: impl IntoIterator<Item = &'a Profile>) -> Result<Planner, String> {
    let offers: Vec<_> = profiles.into_iter().flat_map(|profile| &profile.agents).collect();
    if offers.iter().any(|offer| capability().covers(&offer.capability)) {
        return Ok(Planner::Agent);
    }
    let text = Capability::text_generation();
    let models = offers.iter().filter(|offer| text.covers(&offer.capability));
    let models: Vec<_> = models.filter_map(|offer| offer.model.as_ref()).collect();
    let size = |model: &protocol::ModelOffer| size(model.digest, &model.name).unwrap_or(0);
    let best = models.iter().max_by_key(|model| size(model)).filter(|model| size(model) >= LEAST);
    best.map(|model| Planner::Model(model.digest)).ok_or_else(|| {
        let mut names: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(8);
        if names.is_empty() { "no model".to_owned() } else { names.join(", ") }
    })
}

/// The question for a plan.
///
/// # Errors
/// [`JobError::Invalid`], where the goal is too long.
pub fn question(goal: &str, planner: &Planner, offered: &[Capability]) -> Result<JobRequest, JobError> {
    let unread = |error: serde_json::Error| JobError::invalid("schema", &error.to_string());
    let schema = RawValue::from_string(SCHEMA.to_owned()).map_err(unread)?;
    let names: Vec<_> = offered.iter().map(Capability::as_str).collect();
    let system = format!("{INSTRUCTIONS}\nCapabilities on offer: {}.", names.join(", "));
    let messages = vec![ChatMessage::new(Role::System, &system), ChatMessage::new(Role::User, goal)];
    let request = JobRequest {
        messages,
        max_tokens: Some(MAX_TOKENS),
        constraint: Some(Form::JsonSchema(schema)),
        ..JobRequest::default()
    };
    Ok(match planner {
        Planner::Agent => JobRequest { capability: Some(capability()), ..request },
        Planner::Model(digest) => JobRequest { model: Some(digest.to_string()), ..request },
    })
}

/// What a planner is told.
const INSTRUCTIONS: &str = "\
You write plans as JSON. A plan is a graph of nodes; each does one thing and has a value, `nodes.NAME` in the templates of others.
`generate` asks a model: `prompt` is a Jinja template, as in {{ nodes.outline }}. `for_each` repeats it for each item of a list.
`concatenate` joins the texts of a list, as in [nodes.intro] + nodes.sections. `vote` takes the most frequent of a list.
`reduce` joins a list by a prompt over {{ items }}. Nodes that need nothing from each other run at the same time.
Use few nodes, let independent parts be nodes of their own, and end with one node that joins them. Declare no inputs.";

/// What an agent offers that writes plans.
pub fn capability() -> Capability {
    "plan".parse().unwrap_or_else(|_| Capability::text_generation())
}

/// How many parameters a model has, as far as can be told.
fn size(digest: Digest, name: &str) -> Option<u64> {
    if known::ALL.iter().any(|known| known.digest() == digest) {
        // None of them has more than this.
        return Some(135_000_000);
    }
    name.split(['-', '_', '/', ' ', ':']).find_map(parameters)
}

/// `1.5B` is one and a half billion, `135M` 135 million.
fn parameters(part: &str) -> Option<u64> {
    let (number, unit) = part.split_at(part.find(|c: char| !c.is_ascii_digit() && c != '.')?);
    let mut unit = unit.chars();
    let scale = match unit.next()? {
        'b' | 'B' => 1e9,
        'm' | 'M' => 1e6,
        _ => return None,
    };
    let number: f64 = number.parse().ok().filter(|number| *number < 10_000.0)?;
    unit.next().is_none_or(|next| !next.is_alphanumeric()).then_some((number * scale) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_how_large_a_model_is() {
        let of = |name| size(Digest::from_bytes([0; 32]), name);
        assert_eq!(of("Qwen2.5-1.5B-Instruct.Q4_0"), Some(1_500_000_000));
        assert_eq!(of("smollm2-135M"), Some(135_000_000));
        assert_eq!(of("llama-3-70b"), Some(70_000_000_000));
        assert_eq!(of("Qwen3-0.6B"), Some(600_000_000));
        for silent in ["tiny", "b", "mamba", "99999999999b", "model-v2"] {
            assert_eq!(of(silent), None, "{silent}");
        }
        assert_eq!(size(known::SMOLLM2.digest(), "huge-700B"), Some(135_000_000), "a digest does not lie");
    }

    #[test]
    fn a_question_has_the_form_of_a_plan() {
        let request = question("g", &Planner::Agent, &[]).unwrap();
        let spec = request.spec(protocol::Timestamp(0), None).unwrap();
        assert_eq!(spec.requirement.capability, capability());
        assert!(spec.constraint.is_some());
    }
}
