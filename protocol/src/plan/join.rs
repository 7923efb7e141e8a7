//! Joins that need no job: pure functions of values that are there.
//!
//! A skipped element is `none`. It keeps its place, so that lists that belong together stay aligned, but counts for
//! nothing here.

use std::collections::BTreeMap;

use minijinja::Value;

use super::template::{Context, elements, evaluate, text};
use super::{Concatenate, Pick, Vote, Work};

/// The value of a join, or why there is none. Jobs are no joins and have none.
pub(super) fn join(work: &Work, context: &Context) -> Option<Result<Value, String>> {
    match work {
        Work::Generate(_) | Work::Call(_) | Work::Reduce(_) => None,
        Work::Concatenate(Concatenate { of, separator }) => Some(concatenate(of, separator, context)),
        Work::Vote(Vote { of }) => Some(vote(of, context)),
        Work::Pick(pick) => Some(best(pick, context)),
    }
}

/// The elements of a list that were not skipped.
pub(super) fn present(of: &str, context: &Context) -> Result<Vec<Value>, String> {
    let all = elements(of, context).map_err(|error| format!("`of`, {error}"))?;
    Ok(all.into_iter().filter(|value| !value.is_none()).collect())
}

fn concatenate(of: &str, separator: &str, context: &Context) -> Result<Value, String> {
    let texts: Vec<_> = present(of, context)?.iter().map(text).collect();
    Ok(Value::from(texts.join(separator)))
}

fn vote(of: &str, context: &Context) -> Result<Value, String> {
    let candidates = present(of, context)?;
    let mut votes = BTreeMap::<String, usize>::new();
    for candidate in &candidates {
        *votes.entry(text(candidate).trim().to_owned()).or_default() += 1;
    }
    let most = votes.values().max().copied();
    let wins = |candidate: &&Value| votes.get(text(candidate).trim()).copied() == most;
    let winner = candidates.iter().find(wins).ok_or("there is nobody to vote for")?;
    Ok(winner.as_str().map_or_else(|| winner.clone(), |text| Value::from(text.trim())))
}

fn best(pick: &Pick, context: &Context) -> Result<Value, String> {
    let candidates = elements(&pick.of, context).map_err(|error| format!("`of`, {error}"))?;
    let mut best: Option<(f64, Value)> = None;
    let mut problem = "there is nobody to pick".to_owned();
    for (index, candidate) in candidates.into_iter().enumerate().filter(|(_, value)| !value.is_none()) {
        let mut context = context.clone();
        context.extend([("item", candidate.clone()), ("index", Value::from(index))]);
        match score(&pick.score, &context) {
            Ok(score) if best.as_ref().is_none_or(|(highest, _)| score > *highest) => {
                best = Some((score, candidate));
            }
            Ok(_) => {}
            Err(why) => problem = format!("no candidate has a score: {why}"),
        }
    }
    best.map(|(_, value)| value).ok_or(problem)
}

fn score(expression: &str, context: &Context) -> Result<f64, String> {
    let value = evaluate(expression, context).map_err(|error| error.to_string())?;
    let number = match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None => f64::try_from(value).ok(),
    };
    number.filter(|number| number.is_finite()).ok_or_else(|| "it is not a number".to_owned())
}
