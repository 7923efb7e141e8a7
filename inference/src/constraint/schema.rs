//! What a schema may not ask for, because the library would take it and not keep to it.

use serde_json::{Map, Number, Value, json};

use super::ConstraintError;

/// Reads and checks a schema, and adds how its JSON is to be written.
pub(super) fn read(text: &str) -> Result<Value, ConstraintError> {
    let schema: Value =
        serde_json::from_str(text).map_err(|error| ConstraintError::NotJson { why: error.to_string() })?;
    let mut root = match schema {
        Value::Object(root) => root,
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => return Err(unsupported("`false`, which no answer satisfies")),
        _ => return Err(unsupported("something that is neither an object nor a boolean as its root")),
    };
    if root.contains_key(OPTIONS) {
        return Err(unsupported("`x-guidance`, which is not for schemas from outside"));
    }
    root.values().try_for_each(|value| check(value, false))?;
    check_object(&root, true)?;
    root.insert(OPTIONS.to_owned(), options());
    Ok(Value::Object(root))
}

/// Compact, and without `\u`: a key that can be spelled in two ways could come twice, once unchecked.
fn options() -> Value {
    json!({ "whitespace_flexible": false, "json_allowed_escapes": "nrbtf\\\"" })
}

fn check(value: &Value, root: bool) -> Result<(), ConstraintError> {
    match value {
        Value::Object(object) => {
            check_object(object, root)?;
            object.values().try_for_each(|value| check(value, false))
        }
        Value::Array(values) => values.iter().try_for_each(|value| check(value, false)),
        Value::Number(number) if beyond(number) => {
            Err(unsupported(&format!("the number {number}, which is beyond {LARGEST_NUMBER}")))
        }
        _ => Ok(()),
    }
}

/// Looks at every object as if it were a schema, wherever a `$ref` may lead: the keywords' kinds of value tell
/// them from properties of the same names.
fn check_object(object: &Map<String, Value>, root: bool) -> Result<(), ConstraintError> {
    let required = object.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    if object.get("minProperties").and_then(Value::as_u64).is_some_and(|least| least > required + 1) {
        // The library counts keys that it has not named, and would count one that comes twice as two.
        return Err(unsupported("`minProperties` beyond one more than `required` names"));
    }
    if !root && object.get("$id").is_some_and(Value::is_string) {
        return Err(unsupported("`$id` inside, which changes where a `$ref` leads"));
    }
    if object.get("$ref").and_then(Value::as_str).is_some_and(|path| path.contains(['~', '%'])) {
        return Err(unsupported("`$ref` with an escaped path"));
    }
    Ok(())
}

fn beyond(number: &Number) -> bool {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(number), _, _) => number.unsigned_abs() > LARGEST_NUMBER,
        (_, Some(_), _) => true,
        (_, _, Some(number)) => number.abs() > LARGEST_NUMBER as f64,
        _ => true,
    }
}

fn unsupported(what: &str) -> ConstraintError {
    ConstraintError::Unsupported { what: what.to_owned() }
}

const OPTIONS: &str = "x-guidance";
/// Beyond 2⁵³ a float, as which the library reads numbers, skips some.
const LARGEST_NUMBER: u64 = 1 << 53;
