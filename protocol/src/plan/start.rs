//! The first step of a node whose waits are settled: the places of its jobs, or its value where it has none.

use std::collections::BTreeMap;

use minijinja::Value;
use minijinja::value::Serde;

use super::error::{Fault, PlanError};
use super::expectation::Expectation;
use super::join::{join, present};
use super::run::{Origin, Run, Tally};
use super::task::Place;
use super::template::{Context, elements, none, render, text};
use super::{Node, OnFailure, Plan, Work};

/// What becomes of a node whose waits are settled.
pub(super) enum Begun {
    Jobs(Run),
    Value(Value, Tally),
}

/// The inputs as templates see them.
pub(super) fn inputs(
    plan: &Plan,
    mut given: BTreeMap<String, serde_json::Value>,
) -> Result<Value, PlanError> {
    let mut inputs = BTreeMap::new();
    for (name, input) in &plan.inputs {
        let value = given.remove(name).or_else(|| input.default.clone());
        let value = value.ok_or_else(|| PlanError::of(Fault::MissingInput { name: name.clone() }))?;
        inputs.insert(name.clone(), Value::from(Serde(&value)));
    }
    match given.into_keys().next() {
        Some(name) => Err(PlanError::of(Fault::UnknownInput { name })),
        None => Ok(Value::from(inputs)),
    }
}

/// The jobs of a node, or its value where it has none.
pub(super) fn begin(node: &Node, context: &Context) -> Result<Begun, String> {
    if let Work::Reduce(work) = &node.work {
        let mut present = present(&work.of, context)?;
        check_items(node, present.len())?;
        return match present.len() {
            0 => Err("there is nothing to reduce".to_owned()),
            1 => Ok(Begun::Value(present.remove(0), Tally::default())),
            _ => Ok(Begun::Jobs(Run::tree(present, work.arity))),
        };
    }
    let places = places(node, context)?;
    match &node.work {
        Work::Generate(work) => Ok(Begun::Jobs(Run::new(places, work.choices, node.for_each.is_some()))),
        Work::Call(_) => Ok(Begun::Jobs(Run::new(places, 1, node.for_each.is_some()))),
        _ => joined(node, &places, context),
    }
}

fn places(node: &Node, context: &Context) -> Result<Vec<Place>, String> {
    let Some(list) = &node.for_each else { return Ok(vec![Place::Whole]) };
    let items = elements(list, context).map_err(|error| format!("`for_each`, {error}"))?;
    check_items(node, items.len())?;
    Ok((0..).zip(items).map(|(index, item)| Place::Item(index, item)).collect())
}

fn check_items(node: &Node, items: usize) -> Result<(), String> {
    match items <= usize::from(node.max_items) {
        true => Ok(()),
        false => Err(format!("its list has {items} items; allow them with `max_items`")),
    }
}

/// The value of a join, at each place.
fn joined(node: &Node, places: &[Place], context: &Context) -> Result<Begun, String> {
    let (mut values, mut tally) = (Vec::new(), Tally::default());
    for place in places {
        let context = place.within(context.clone());
        let value = join(&node.work, &context).unwrap_or_else(|| Err("a job is no join".to_owned()));
        let met = value.and_then(|value| as_expected(node.expect.as_ref(), value));
        values.push(match (met, &node.for_each) {
            (Ok(value), _) => value,
            (Err(why), None) => return Err(why),
            (Err(why), Some(_)) => {
                let (value, origin) = instead(node, &context, &why)?;
                tally.count(origin);
                value
            }
        });
    }
    let value = match &node.for_each {
        Some(_) => Value::from(values),
        None => values.pop().unwrap_or_else(none),
    };
    Ok(Begun::Value(value, tally))
}

/// A joined value, if it is as expected; with a schema the JSON that it spells.
fn as_expected(expect: Option<&Expectation>, value: Value) -> Result<Value, String> {
    let met = match expect {
        None => Ok(value),
        Some(Expectation::Schema(_)) => Expectation::value(expect, &text(&value)),
        Some(expect) => expect.meets(&text(&value)).map(|()| value),
    };
    met.map_err(|unmet| unmet.to_string())
}

/// What stands in for a value that could not be had, by the node's rule.
pub(super) fn instead(node: &Node, context: &Context, why: &str) -> Result<(Value, Origin), String> {
    match &node.on_failure {
        OnFailure::Fail => Err(why.to_owned()),
        OnFailure::Skip => Ok((none(), Origin::Skip)),
        OnFailure::Substitute(template) => {
            let substitute = render(template, context).map_err(|error| error.to_string());
            let value = substitute.and_then(|text| {
                Expectation::value(node.expect.as_ref(), &text).map_err(|unmet| unmet.to_string())
            });
            let value = value.map_err(|problem| format!("{why}; its substitute: {problem}"))?;
            Ok((value, Origin::Substitute))
        }
    }
}
