//! The tools as `tools/*.json` declare them, and whether arguments are what they take.
//!
//! What a client is shown is what its arguments are checked against, but for the plan in `run_plan`: it is shown in full,
//! and read by who finds all of its mistakes and says them better.

use std::sync::{Arc, LazyLock};

use jsonschema::Validator;
use rmcp::model::{JsonObject, Tool};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::{Class, Failure};

/// What is declared.
const DECLARED: [&str; 5] = [
    include_str!("tools/find_agents.json"),
    include_str!("tools/submit_job.json"),
    include_str!("tools/run_plan.json"),
    include_str!("tools/get_receipt.json"),
    include_str!("tools/verify_receipt.json"),
];
/// The form of a plan.
const PLAN: &str = include_str!("../../../../protocol/schemas/plan.json");
/// Mistakes that are told at once, and the length of each in bytes: arguments are a stranger's, and are quoted in them.
const MAX_MISTAKES: usize = 4;
const MAX_MISTAKE: usize = 300;

static CATALOG: LazyLock<Vec<Entry>> =
    LazyLock::new(|| DECLARED.into_iter().filter_map(|text| Entry::read(text).ok()).collect());

/// One tool.
struct Entry {
    tool: Tool,
    arguments: Validator,
}

/// All tools.
pub(super) fn tools() -> Vec<Tool> {
    CATALOG.iter().map(|entry| entry.tool.clone()).collect()
}

/// The tool of a name.
pub(super) fn tool(name: &str) -> Option<Tool> {
    CATALOG.iter().find(|entry| entry.tool.name == name).map(|entry| entry.tool.clone())
}

/// The arguments of a tool, if they are what it takes.
///
/// # Errors
/// What is wrong with them.
pub(super) fn arguments<T: DeserializeOwned>(tool: &str, given: Option<JsonObject>) -> Result<T, Failure> {
    let given = Value::Object(given.unwrap_or_default());
    let entry = CATALOG.iter().find(|entry| entry.tool.name == tool);
    let mistakes: Vec<_> = entry
        .iter()
        .flat_map(|entry| entry.arguments.iter_errors(&given))
        .take(MAX_MISTAKES)
        .map(|mistake| {
            let (place, whole) = (mistake.instance_path().to_string(), mistake.to_string());
            // What is wrong is said after what it is wrong with, and would be cut off behind a long one.
            if whole.len() <= MAX_MISTAKE {
                told(&place, &whole)
            } else {
                told(&place, &mistake.masked().to_string())
            }
        })
        .collect();
    if !mistakes.is_empty() {
        let message = format!(
            "{}; correct the arguments, the schema of {tool} tells what it takes",
            mistakes.join("; ")
        );
        return Err(Failure::new(Class::Request, message));
    }
    read(given)
}

/// Reads what fits a schema into what it means.
///
/// # Errors
/// Where it does not fit.
pub(super) fn read<T: DeserializeOwned>(given: Value) -> Result<T, Failure> {
    serde_path_to_error::deserialize(given).map_err(|error| {
        let message = told(&error.path().to_string(), &error.inner().to_string());
        Failure::new(Class::Request, format!("{message}; correct the arguments"))
    })
}

fn told(place: &str, problem: &str) -> String {
    let problem = match problem.len() {
        0..=MAX_MISTAKE => problem.to_owned(),
        _ => format!("{}…", &problem[..problem.floor_char_boundary(MAX_MISTAKE)]),
    };
    let place = &place[..place.floor_char_boundary(MAX_MISTAKE)];
    if matches!(place, "" | "." | "/") { problem } else { format!("`{place}`: {problem}") }
}

impl Entry {
    fn read(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut tool: Tool = serde_json::from_str(text)?;
        // Patterns that look back can take for ever on the arguments of a stranger.
        let options = jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex());
        let arguments = options.build(&Value::Object(tool.input_schema.as_ref().clone()))?;
        if tool.name == "run_plan" {
            tool.input_schema = Arc::new(with_plan(tool.input_schema.as_ref().clone())?);
        }
        Ok(Self { tool, arguments })
    }
}

/// The same with the form of a plan in it: its definitions move to the root, where its references look for them.
fn with_plan(mut schema: JsonObject) -> Result<JsonObject, serde_json::Error> {
    let mut plan: JsonObject = serde_json::from_str(PLAN)?;
    let definitions = plan.remove("$defs").unwrap_or_default();
    plan.retain(|field, _| !field.starts_with('$'));
    schema.insert("$defs".to_owned(), definitions);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert("plan".to_owned(), Value::Object(plan));
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(tool: &str, given: Value) -> Result<Value, String> {
        arguments(tool, given.as_object().cloned()).map_err(|failure| failure.message)
    }

    #[test]
    fn every_declaration_is_a_tool_with_schemas() {
        assert_eq!(CATALOG.len(), DECLARED.len());
        for tool in tools() {
            let input = Value::Object(tool.input_schema.as_ref().clone());
            assert_eq!(input["type"], "object");
            jsonschema::validator_for(&input).unwrap();
            let output = Value::Object(tool.output_schema.unwrap().as_ref().clone());
            jsonschema::validator_for(&output).unwrap();
            assert!(tool.annotations.unwrap().read_only_hint.is_some());
        }
    }

    #[test]
    fn a_plan_is_shown_in_full() {
        let tool = tool("run_plan").unwrap();
        let schema = Value::Object(tool.input_schema.as_ref().clone());
        let validator = jsonschema::validator_for(&schema).unwrap();
        let plan = |node: Value| json!({ "plan": { "goal": "g", "nodes": { "a": node } } });
        assert!(validator.is_valid(&plan(json!({ "generate": { "prompt": "x" } }))));
        assert!(!validator.is_valid(&plan(json!({ "generate": {} }))));
    }

    #[test]
    fn mistakes_have_a_place_and_an_end() {
        let message = checked("submit_job", json!({ "prompt": "x", "max_tokens": "many" })).unwrap_err();
        assert!(message.contains("`/max_tokens`") && message.contains("submit_job"), "{message}");
        let message = checked("submit_job", json!({ "prompts": "x" })).unwrap_err();
        assert!(message.contains("prompts"), "{message}");
        let message = checked("find_agents", json!({ "capability": "x".repeat(1 << 20) })).unwrap_err();
        assert!(message.len() < 2 * MAX_MISTAKES * MAX_MISTAKE, "{}", message.len());
        assert!(checked("get_receipt", json!({ "receipt": "../../token" })).is_err());
        assert_eq!(checked("find_agents", json!({})), Ok(json!({})));
    }
}
