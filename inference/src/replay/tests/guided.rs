//! Answers under a constraint: valid in any budget, exact in a replay, refuted when altered.

use serde_json::Value;

use super::{sampling, tiny};
use crate::constraint::Constraint;
use crate::engine::{Engine, GenerateError, Request};
use crate::generation::{FinishReason, Step};
use crate::replay::Claim;

const SCHEMA: &str = r#"{"type":"object","properties":{"a":{"type":"integer","minimum":10},"b":{"enum":["x","yy"]}},
    "required":["a","b"],"additionalProperties":false}"#;

/// A guided answer: its text, and the claim that it makes.
fn answer(engine: &dyn Engine, constraint: &Constraint, seed: u64, budget: u32) -> (String, Claim) {
    let request = Request {
        constraint: Some(constraint.clone()),
        ..Request::new(vec![40, 41, 42, 43], sampling(seed, budget))
    };
    let mut claim = Claim {
        prompt: request.prompt.clone(),
        sampling: request.sampling.clone(),
        constraint: request.constraint.clone(),
        ..Claim::default()
    };
    let mut text = String::new();
    for step in engine.generate(&request).unwrap() {
        match step.unwrap() {
            Step::Token { id, text: piece, activations, .. } => {
                text += &piece;
                claim.answer.push(id);
                claim.activations.extend(activations);
            }
            Step::Finished { reason, rest, .. } => {
                text += &rest;
                claim.finish = Some(reason);
            }
            Step::Prefilled { .. } => {}
        }
    }
    (text, claim)
}

#[test]
fn guided_answers_are_whole_and_replay_exactly() {
    let engine = tiny();
    let schema = Constraint::JsonSchema(SCHEMA.to_owned());
    for seed in 0..20 {
        let (text, claim) = answer(engine.as_ref(), &schema, seed, 40);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["a"].as_f64().unwrap() >= 10.0 && value["b"].is_string(), "{text}");
        assert_eq!(claim.finish, Some(FinishReason::EndOfText), "{text}");
        let found = engine.replay(&claim).unwrap().complete().unwrap();
        assert!(found.exact() && found.finish_agrees == Some(true), "{text}: {found:?}");
    }
    for constraint in [
        Constraint::Regex("[ab]{3}c".to_owned()),
        Constraint::Choices(vec!["yes".to_owned(), "no".to_owned()]),
    ] {
        let (text, claim) = answer(engine.as_ref(), &constraint, 1, 16);
        assert!(text.len() == 4 || ["yes", "no"].contains(&&*text), "{text}");
        assert!(engine.replay(&claim).unwrap().complete().unwrap().exact());
    }
}

#[test]
fn what_was_not_made_under_the_constraint_is_refuted() {
    let engine = tiny();
    let schema = Constraint::JsonSchema(SCHEMA.to_owned());
    let (_, honest) = answer(engine.as_ref(), &schema, 3, 40);
    let refuted = |claim: Claim| {
        let found = engine.replay(&claim).unwrap().complete().unwrap();
        !found.exact() && found.worst_margin > 1.0
    };
    assert!(refuted(Claim { constraint: Some(Constraint::Regex("[a-z]+".to_owned())), ..honest.clone() }));
    let mut cut = honest.clone();
    cut.answer.pop();
    assert!(refuted(cut), "an answer that is not whole cannot end");
    let mut other = honest.clone();
    other.answer[1] = 0;
    assert!(refuted(other));
    assert!(refuted(Claim { finish: Some(FinishReason::Length), ..honest }));
}

#[test]
fn an_inherited_answer_goes_on_under_its_constraint() {
    let engine = tiny();
    let schema = Constraint::JsonSchema(SCHEMA.to_owned());
    let (_, whole) = answer(engine.as_ref(), &schema, 5, 40);
    let rest = |answered: Vec<u32>, check| {
        let request = Request {
            answered,
            check,
            constraint: Some(schema.clone()),
            ..Request::new(whole.prompt.clone(), whole.sampling.clone())
        };
        let steps = engine.generate(&request)?.collect::<Result<Vec<_>, _>>()?;
        let id = |step: &Step| if let Step::Token { id, .. } = step { Some(*id) } else { None };
        Ok::<_, GenerateError>(steps.iter().filter_map(id).collect::<Vec<_>>())
    };
    for cut in 0..whole.answer.len() {
        for check in [false, true] {
            assert_eq!(rest(whole.answer[..cut].to_vec(), check).unwrap(), whole.answer[cut..], "from {cut}");
        }
    }
    assert!(matches!(rest(vec![0], false), Err(GenerateError::Constraint(_))));
    assert!(matches!(rest(vec![0], true), Err(GenerateError::Inherited { index: 0 })));
}

#[test]
fn a_budget_that_no_answer_fits_is_refused_before_anything_is_computed() {
    let engine = tiny();
    let request = Request {
        constraint: Some(Constraint::JsonSchema(SCHEMA.to_owned())),
        ..Request::new(vec![40], sampling(1, 3))
    };
    let error = engine.generate(&request).unwrap_err().to_string();
    assert!(error.contains("max_tokens"), "{error}");
}
