//! The JSON Schemas know every field of the real values, and refuse everything else.

use jsonschema::Validator;
use protocol::error::Report;
use protocol::{Constraint, Input, JobError, JobSpec, Plan};
use serde_json::{Value, json};

use crate::{any, plans, samples, values};

fn schema(name: &str) -> Validator {
    let path = format!("{}/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
    jsonschema::validator_for(&schema).unwrap()
}

fn accepts(schema: &Validator, value: &Value) {
    let errors: Vec<_> =
        schema.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?} in {value}");
}

/// The value with one thing bent, for every object and every leaf in it, with the path of what was bent.
fn bent(value: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    bend_at(value, value, String::new(), &mut all);
    all
}

fn bend_at(root: &Value, here: &Value, path: String, all: &mut Vec<(String, Value)>) {
    let mut with = |what: &str, change: &dyn Fn(&mut Value)| {
        let mut copy = root.clone();
        change(copy.pointer_mut(&path).unwrap());
        all.push((format!("{path} {what}"), copy));
    };
    match here {
        Value::Object(fields) => {
            with("with a surplus", &|v| v["surplus"] = json!(1));
            for name in fields.keys() {
                with(&format!("without {name}"), &|v| drop(v.as_object_mut().unwrap().remove(name)));
            }
            for (name, field) in fields {
                bend_at(root, field, format!("{path}/{name}"), all);
            }
        }
        Value::Array(items) => {
            with("as a number", &|v| *v = json!(1));
            for (at, item) in items.iter().enumerate() {
                bend_at(root, item, format!("{path}/{at}"), all);
            }
        }
        Value::Number(_) => {
            with("as a text", &|v| *v = json!("1"));
            with("below all", &|v| *v = json!(-1000));
        }
        Value::String(_) => with("as a number", &|v| *v = json!(1)),
        Value::Bool(_) | Value::Null => with("as a number", &|v| *v = json!(1)),
    }
}

/// Accepts the value, and nothing that was bent, but for what is optional by intent.
fn knows(name: &str, value: &Value, optional: &[&str]) {
    let schema = schema(name);
    accepts(&schema, value);
    for (what, wrong) in bent(value) {
        assert_eq!(schema.is_valid(&wrong), optional.contains(&what.as_str()), "{name}{what}: {wrong}");
    }
}

#[test]
fn a_profile_is_described() {
    knows("profile", &serde_json::to_value(samples::profile().value()).unwrap(), &[]);
}

#[test]
fn a_job_is_described() {
    let optional = [
        "/input/chat without tools",
        "/input/chat without tool_choice",
        "/input/chat/messages/2 without tool_calls",
        "/input/chat/messages/3 without tool_call_id",
    ];
    knows("job", &serde_json::to_value(samples::spec()).unwrap(), &optional);
}

#[test]
fn a_job_with_any_input_and_without_anything_optional_is_described() {
    let schema = schema("job");
    for input in [Input::Json("{}".into()), Input::Text("x".into()), Input::Tokens(vec![1])] {
        accepts(&schema, &serde_json::to_value(JobSpec { input, ..values::spec() }).unwrap());
    }
    for constraint in
        [Constraint::Grammar("x".into()), Constraint::JsonSchema("{}".into()), Constraint::Regex("x".into())]
    {
        accepts(
            &schema,
            &serde_json::to_value(JobSpec { constraint: Some(constraint), ..values::spec() }).unwrap(),
        );
    }
    let mut job = serde_json::to_value(values::spec()).unwrap();
    job["input"] = json!({ "text": "x", "json": "{}" });
    assert!(!schema.is_valid(&job), "one input, not two");
    job["input"] = json!({ "image": "x" });
    assert!(!schema.is_valid(&job));
}

#[test]
fn a_score_is_described() {
    let value = serde_json::to_value(samples::scores()).unwrap();
    let unbounded = ["/logprobs/1 below all", "/top/1/0/logprob below all", "/top/1/1/logprob below all"];
    knows("score", &value, &unbounded);
    let mut first = value;
    first["logprobs"][0] = json!(-1.0);
    assert!(!schema("score").is_valid(&first), "nothing comes before the first token");
}

#[test]
fn a_receipt_is_described() {
    knows("receipt", &serde_json::to_value(samples::receipt().value()).unwrap(), &[]);
}

#[test]
fn names_and_digests_have_one_spelling() {
    let receipt = serde_json::to_value(samples::receipt().value()).unwrap();
    let schema = schema("receipt");
    for (field, wrong) in [
        ("job", "01"),
        ("order", "AB"),
        ("requester", "did:key:z6Mk"),
        ("capability", "Text"),
        ("capability", "a.b.c.d.e"),
        ("network", "a b"),
        ("finish", "crash"),
    ] {
        let mut copy = receipt.clone();
        copy[field] = json!(wrong);
        assert!(!schema.is_valid(&copy), "{field}: {wrong}");
    }
}

#[test]
fn every_error_is_described() {
    use proptest::prelude::*;
    let schema = schema("error");
    proptest!(|(error in any::error())| {
        let report = Report::from(&error);
        let value = serde_json::to_value(&report).unwrap();
        accepts(&schema, &value);
        prop_assert_eq!(serde_json::from_value::<Report>(value.clone()).unwrap(), report);
        for (what, wrong) in bent(&value) {
            prop_assert!(!schema.is_valid(&wrong) || what.trim() == "without detail", "{}: {}", what, wrong);
        }
        let mut wrong = value;
        wrong["retryable"] = json!(!error.retryable());
        prop_assert!(!schema.is_valid(&wrong), "retryable follows from the code");
    });
}

#[test]
fn an_error_says_what_to_do_and_keeps_its_detail() {
    let report = Report::from(&JobError::Busy { retry_after_ms: 500 });
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["code"], "busy");
    assert_eq!(value["retryable"], true);
    assert_eq!(value["detail"], json!({ "busy": { "retry_after_ms": 500 } }));
    let bare = serde_json::to_value(Report::from(&JobError::Cancelled)).unwrap();
    assert!(bare.get("detail").is_none());
}

/// Written by hand, most of a plan is optional; so what is bent may still be a plan. The schema never says so of what
/// the types refuse, and never refuses what both the types and the check take.
#[test]
fn a_plan_is_described() {
    let schema = schema("plan");
    for name in ["report", "best", "tools"] {
        let plan = plans::file(name);
        let value = serde_json::to_value(&plan).unwrap();
        assert_eq!(serde_json::from_value::<Plan>(value.clone()).unwrap(), plan);
        accepts(&schema, &value);
        for (what, wrong) in bent(&value) {
            let valid = schema.is_valid(&wrong);
            match serde_json::from_value::<Plan>(wrong.clone()) {
                Ok(plan) => assert!(valid || plan.check().is_err(), "{name}{what} is refused: {wrong}"),
                Err(error) => assert!(!valid, "{name}{what} is taken, but: {error}"),
            }
        }
    }
}

#[test]
fn the_schema_of_plans_is_one_that_answers_can_be_constrained_by() {
    fn walk(schema: &Value, path: &str, anys: &mut usize) {
        let Value::Object(fields) = schema else { return };
        if let Some(reference) = fields.get("$ref") {
            assert!(reference.as_str().unwrap().starts_with("#/$defs/"), "{path}");
        }
        if fields.contains_key("properties") || fields.contains_key("patternProperties") {
            assert_eq!(fields.get("additionalProperties"), Some(&json!(false)), "{path}");
        }
        for keyword in ["oneOf", "allOf", "not", "if", "minProperties", "maxProperties", "format"] {
            assert!(!fields.contains_key(keyword), "{path} has {keyword}");
        }
        *anys += usize::from(fields.contains_key("anyOf"));
        for (name, part) in fields {
            match part {
                Value::Array(parts) => {
                    parts.iter().for_each(|part| walk(part, &format!("{path}/{name}"), anys))
                }
                // Names of properties are no keywords.
                Value::Object(parts)
                    if ["properties", "patternProperties", "$defs"].contains(&name.as_str()) =>
                {
                    parts.iter().for_each(|(key, part)| walk(part, &format!("{path}/{name}/{key}"), anys));
                }
                part => walk(part, &format!("{path}/{name}"), anys),
            }
        }
    }
    let path = format!("{}/schemas/plan.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut anys = 0;
    walk(&schema, "", &mut anys);
    assert_eq!(anys, 3, "kinds of nodes, expectations, rules of failure");
}
