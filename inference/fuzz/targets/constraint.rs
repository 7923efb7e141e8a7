//! Forms that strangers want answers to have: schemas, expressions, texts, grammars. Each is refused, or every answer that
//! is led by it is whole within its budget, and what came of a schema is JSON that the schema accepts.
#![no_main]

use std::sync::{Arc, OnceLock};

use inference::constraint::{BARRED, Guides};
use inference::tokens::Vocabulary;
use inference::{Constraint, ConstraintError, tiny};
use libfuzzer_sys::fuzz_target;

/// Tokens of an answer.
const BUDGET: usize = 48;

fuzz_target!(
    // libFuzzer's hook ends the process at a panic; those of the grammars' library are caught, and answers like others.
    init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))),
    |input: &str| {
        let Some(constraint) = constraint(input) else { return };
        let (vocabulary, guides) = model();
        let Ok(mut guide) = guides.guide(&constraint, BUDGET) else { return };
        let mut ids = Vec::new();
        while ids.len() < BUDGET && !guide.is_over() {
            let mut logits = wishes(vocabulary.len(), input, ids.len());
            let settled = guide.settle(&mut logits, BUDGET - ids.len(), highest);
            let Some(id) = unless_too_complex(settled) else { return };
            assert!(logits[id as usize] > BARRED, "a token that is barred");
            if vocabulary.is_end(id) {
                break;
            }
            let Some(()) = unless_too_complex(guide.push(id)) else { return };
            ids.push(id);
        }
        assert!(guide.is_complete(), "an answer that is not whole");
        if let Constraint::JsonSchema(schema) = &constraint {
            accepts(schema, &vocabulary.decode(&ids));
        }
    }
);

/// Once there is a guide there is an answer, unless the library finds its bounds on the way.
fn unless_too_complex<T>(result: Result<T, ConstraintError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(ConstraintError::TooComplex { .. } | ConstraintError::Broken { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The form whose letter comes first, of what comes after it.
fn constraint(input: &str) -> Option<Constraint> {
    let mut rest = input.chars();
    match (rest.next()?, rest.as_str().to_owned()) {
        ('s', text) => Some(Constraint::JsonSchema(text)),
        ('r', text) => Some(Constraint::Regex(text)),
        ('c', text) => Some(Constraint::Choices(text.split('|').map(str::to_owned).collect())),
        ('g', text) => Some(Constraint::Grammar(text)),
        _ => None,
    }
}

fn model() -> &'static (Arc<Vocabulary>, Guides) {
    static MODEL: OnceLock<(Arc<Vocabulary>, Guides)> = OnceLock::new();
    MODEL.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        tiny::write_tiny(file.path(), 1).expect("room for it");
        let engine = inference::load(file.path()).expect("a tiny model");
        let vocabulary = Arc::clone(engine.vocabulary());
        let guides = Guides::new(&vocabulary).expect("a vocabulary that guides can use");
        (vocabulary, guides)
    })
}

/// What a model would like to say: anything, but the same for the same input.
fn wishes(tokens: usize, input: &str, step: usize) -> Vec<f32> {
    let mut state =
        input.bytes().fold(step as u64 + 1, |state, byte| (state ^ u64::from(byte)).wrapping_mul(PRIME));
    let mut wish = || {
        state = (state ^ (state >> 29)).wrapping_mul(PRIME);
        (state >> 40) as f32
    };
    (0..tokens).map(|_| wish()).collect()
}

fn highest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|(a, x), (b, y)| x.total_cmp(y).then(b.cmp(a)));
    best.map_or(0, |(id, _)| id as u32)
}

/// Whoever wrote the schema may read it as this library does; what it cannot read at all is not its business.
fn accepts(schema: &str, answer: &str) {
    let value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{answer}: {error}"));
    let schema = serde_json::from_str(schema).expect("a guide has read it");
    if let Ok(validator) = jsonschema::validator_for(&schema) {
        assert!(validator.is_valid(&value), "{schema} does not accept {answer}");
    }
}

/// FNV's.
const PRIME: u64 = 0x0100_0000_01b3;
