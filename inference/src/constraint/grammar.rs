//! From a constraint to a parser.

use std::fmt::Write;
use std::sync::Arc;
use std::thread;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::earley::Parser;
use llguidance::regex_to_lark;

use super::matching::{Matching, guarded};
use super::words::Words;
use super::{Constraint, ConstraintError, schema};

/// Compiles on a thread of its own, whose stack holds what a constraint of the greatest size can nest.
pub(super) fn compile(words: &Arc<Words>, constraint: &Constraint) -> Result<Matching, ConstraintError> {
    let grammar = TopLevelGrammar::from_grammar(grammar(constraint)?);
    let parser = thread::scope(|scope| {
        let compiling = thread::Builder::new()
            .name("constraint".to_owned())
            .stack_size(COMPILING_STACK)
            .spawn_scoped(scope, || guarded(|| parser(words, grammar)))
            .map_err(|error| ConstraintError::Broken { what: format!("no thread to compile on: {error}") })?;
        compiling
            .join()
            .unwrap_or_else(|_| Err(ConstraintError::Broken { what: "compiling failed".to_owned() }))
    })?;
    Matching::new(parser, words)
}

fn parser(words: &Words, grammar: TopLevelGrammar) -> Result<Parser, ConstraintError> {
    words
        .factory()
        .create_parser(grammar)
        .map(|made| made.parser)
        .map_err(|error| refused(&error.to_string()))
}

fn grammar(constraint: &Constraint) -> Result<GrammarWithLexer, ConstraintError> {
    Ok(match constraint {
        Constraint::JsonSchema(text) => GrammarWithLexer::from_json_schema(schema::read(text)?),
        Constraint::Regex(expression) => by_expression(expression),
        Constraint::Choices(choices) => {
            let choices: Vec<_> = choices.iter().map(|choice| literally(choice)).collect();
            by_expression(&choices.join("|"))
        }
        Constraint::Grammar(text) => GrammarWithLexer::from_lark(text.clone()),
    })
}

/// As in JSON Schema's patterns, `\d` and `\w` are of ASCII.
fn by_expression(expression: &str) -> GrammarWithLexer {
    GrammarWithLexer::from_lark(format!("start: /{}/", regex_to_lark(expression, "dw")))
}

/// A regular expression for one text: everything but letters and digits by its number.
fn literally(text: &str) -> String {
    let mut expression = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            expression.push(character);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(expression, "\\x{{{:x}}}", u32::from(character));
        }
    }
    expression
}

/// The library's words, with what they mean to whoever wrote the constraint.
fn refused(why: &str) -> ConstraintError {
    let why = why.trim_end().trim_end_matches("<non-verbose/>").trim_end();
    if let Some(panic) = why.strip_prefix("panic: ") {
        let what = panic.lines().next().unwrap_or_default().to_owned();
        return ConstraintError::Broken { what };
    }
    if let Some((_, keys)) = why.split_once("Unimplemented keys: ") {
        return ConstraintError::Unsupported { what: format!("{keys}, which would not be enforced") };
    }
    if why.contains("oneOf constraints are not supported") {
        let what = "`oneOf` with alternatives that are not plainly disjoint (`anyOf` works)".to_owned();
        return ConstraintError::Unsupported { what };
    }
    if let Some((_, format)) = why.split_once("Unknown format: ") {
        return ConstraintError::Unsupported { what: format!("`format` {format}, which is not known here") };
    }
    if why.contains("Only absolute $ref's") {
        let what = format!("a `$ref` that is not a path into its own document, like `#/$defs/name` ({why})");
        return ConstraintError::Unsupported { what };
    }
    ConstraintError::Refused { why: why.to_owned() }
}

/// A chain of references or of groups takes a few kilobytes of stack a level, and 64 KiB hold some thousands of levels.
const COMPILING_STACK: usize = 256 << 20;
