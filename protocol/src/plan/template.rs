//! Jinja templates and expressions of a plan: what they name, and what they make of the values there are.
//!
//! Nothing is loaded, and a template can neither run for long nor grow: all its work is paid from [`FUEL`]. Whatever is
//! undefined is an error, never an empty text: a prompt with a hole in it would cost money.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, Value};

use crate::JobSpec;

/// Work of one rendering, in instructions; a byte of text costs a 64th. About a tenth of a second.
const FUEL: u64 = 1 << 19;
/// Macros and loops that call themselves, how deep.
const MAX_DEPTH: usize = 64;
/// Most elements of any list: all jobs of a plan, twice.
const MAX_ELEMENTS: usize = 1 << 14;
/// Longest text of an error.
const MAX_PROBLEM: usize = 240;

/// Functions that every template has.
const FUNCTIONS: [&str; 3] = ["dict", "namespace", "range"];

/// How a text of a plan is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// One value, as inside of `{{ }}`.
    Expression,
    /// A text with `{{ }}` and `{% %}` in it.
    Template,
}

/// Why a template cannot be read or rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct TemplateError {
    /// Counted from one.
    pub(super) line: usize,
    /// What the reader says.
    pub(super) problem: String,
}

impl From<Error> for TemplateError {
    fn from(error: Error) -> Self {
        let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        Self { line: error.line().unwrap_or(1), problem: bounded(&what) }
    }
}

/// What a template can see, by name.
pub(super) type Context = BTreeMap<&'static str, Value>;

/// The variables that a text names, as dotted paths (`nodes.a.title`), or why it cannot be read.
pub(super) fn names(syntax: Syntax, source: &str) -> Result<BTreeSet<String>, TemplateError> {
    let environment = environment();
    let names = match syntax {
        Syntax::Expression => environment.compile_expression(source)?.undeclared_variables(true),
        Syntax::Template => environment.template_from_str(source)?.undeclared_variables(true),
    };
    Ok(names.into_iter().filter(|name| !FUNCTIONS.contains(&name.as_str())).collect())
}

/// The text that a template makes of its context.
pub(super) fn render(source: &str, context: &Context) -> Result<String, TemplateError> {
    let text = environment().render_str(source, context.clone())?;
    if text.len() <= JobSpec::MAX_INPUT {
        return Ok(text);
    }
    Err(TemplateError { line: 1, problem: format!("makes more than {} bytes", JobSpec::MAX_INPUT) })
}

/// The value that an expression has in its context.
pub(super) fn evaluate(source: &str, context: &Context) -> Result<Value, TemplateError> {
    let value = environment().compile_expression(source)?.eval(context.clone())?;
    if value.is_undefined() {
        return Err(TemplateError { line: 1, problem: "the value is undefined".to_owned() });
    }
    Ok(value)
}

/// The elements of a list; of anything else, why not.
pub(super) fn elements(source: &str, context: &Context) -> Result<Vec<Value>, TemplateError> {
    let value = evaluate(source, context)?;
    let wrong = |problem: String| TemplateError { line: 1, problem };
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {}
        kind => return Err(wrong(format!("must be a list, and is a {kind}"))),
    }
    // One more than allowed is enough to see that there are too many, however long a lazy list is.
    let elements: Vec<_> = value.try_iter()?.take(MAX_ELEMENTS + 1).collect();
    if elements.len() > MAX_ELEMENTS {
        return Err(wrong(format!("must have at most {MAX_ELEMENTS} elements")));
    }
    Ok(elements)
}

/// The value of what was skipped: `none` in templates, `null` in JSON.
pub(super) fn none() -> Value {
    Value::from(())
}

/// A value as text: a text as it is, anything else as JSON.
pub(super) fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => serde_json::to_string(value).unwrap_or_default(),
    }
}

/// The beginning of a text, for an error.
pub(super) fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_PROBLEM)].to_owned()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_DEPTH);
    environment.remove_global("debug");
    environment
}
