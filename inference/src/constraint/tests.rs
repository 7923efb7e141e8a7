//! Whole answers against every wish of the model, and constraints that nobody should be able to hurt with.

use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::engine::Engine;
use crate::tiny::write_tiny;

fn model() -> Arc<dyn Engine> {
    static MODEL: std::sync::OnceLock<Arc<dyn Engine>> = std::sync::OnceLock::new();
    let model = MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        write_tiny(&path, 1).unwrap();
        crate::load(&path).unwrap()
    });
    Arc::clone(model)
}

fn guides() -> &'static Guides {
    static GUIDES: std::sync::OnceLock<Guides> = std::sync::OnceLock::new();
    GUIDES.get_or_init(|| Guides::new(model().vocabulary()).unwrap())
}

fn schema(text: &str) -> Constraint {
    Constraint::JsonSchema(text.to_owned())
}

fn regex(text: &str) -> Constraint {
    Constraint::Regex(text.to_owned())
}

fn choices(texts: &[&str]) -> Constraint {
    Constraint::Choices(texts.iter().map(|&text| text.to_owned()).collect())
}

fn needs(constraint: &Constraint) -> usize {
    guides().guide(constraint, usize::MAX).unwrap().needs()
}

/// What a model would like that hates to come to an end: noise, and the lower the nearer a token is to closing.
fn reluctant(seed: u64, step: usize) -> Vec<f32> {
    let vocabulary = model().vocabulary().clone();
    let mut noise = blake3::Hasher::new();
    noise.update(&seed.to_le_bytes()).update(&step.to_le_bytes());
    let mut noise = noise.finalize_xof();
    let logit = |id: u32| {
        let mut bytes = [0; 2];
        noise.fill(&mut bytes);
        let wish = f32::from(u16::from_le_bytes(bytes)) / 8_192.0;
        let text = vocabulary.decode(&[id]);
        let closing = text.contains(['"', '}', ']']) || vocabulary.is_end(id);
        let opening = text.contains(['{', '[', ',']);
        wish - if closing { 30.0 } else { 0.0 } + if opening { 6.0 } else { 0.0 }
    };
    (0..vocabulary.len() as u32).map(logit).collect()
}

fn highest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|(a, x), (b, y)| x.total_cmp(y).then(b.cmp(a)));
    best.unwrap().0 as u32
}

/// An answer of at most `budget` tokens, and its text.
fn answer(constraint: &Constraint, budget: usize, seed: u64) -> (Vec<u32>, String) {
    try_answer(constraint, budget, seed).unwrap()
}

fn try_answer(
    constraint: &Constraint,
    budget: usize,
    seed: u64,
) -> Result<(Vec<u32>, String), ConstraintError> {
    let mut guide = guides().guide(constraint, budget)?;
    let mut ids = Vec::new();
    while ids.len() < budget && !guide.is_over() {
        let mut logits = reluctant(seed, ids.len());
        let id = guide.settle(&mut logits, budget - ids.len(), highest)?;
        assert_eq!(highest(&logits), id, "the logits that are left say what was drawn");
        if model().vocabulary().is_end(id) {
            break;
        }
        guide.push(id)?;
        ids.push(id);
    }
    let text = model().vocabulary().decode(&ids);
    assert!(guide.is_complete(), "{constraint:?}: {text:?}");
    Ok((ids, text))
}

#[derive(Deserialize)]
struct Case {
    schema: Value,
    shortest: String,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../../tests/schemas.json")).unwrap()
}

#[test]
fn every_answer_to_fifty_schemas_is_valid_however_reluctant() {
    let wrong: Vec<_> = cases().iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first answer to a schema that is not what it must be.
fn wrong(case: &Case) -> Option<String> {
    let validator = jsonschema::validator_for(&case.schema).unwrap();
    let constraint = schema(&case.schema.to_string());
    let guide = match guides().guide(&constraint, usize::MAX) {
        Ok(guide) => guide,
        Err(error) => return Some(format!("{}: {error}", case.schema)),
    };
    let needs = guide.needs();
    [(1, needs), (2, needs + 1), (3, needs + 7), (4, needs + 40)].into_iter().find_map(|(seed, budget)| {
        let (ids, text) = match try_answer(&constraint, budget, seed) {
            Ok(answer) => answer,
            Err(error) => return Some(format!("{}: {budget} tokens, {error}", case.schema)),
        };
        let valid = serde_json::from_str(&text).is_ok_and(|value| validator.is_valid(&value));
        (!valid || ids.len() > budget).then(|| format!("{}: {budget} tokens, {text}", case.schema))
    })
}

#[test]
fn the_first_completion_is_nearly_the_shortest() {
    let (mut found, mut shortest, mut longer) = (0, 0, Vec::new());
    for case in cases() {
        let validator = jsonschema::validator_for(&case.schema).unwrap();
        assert!(validator.is_valid(&serde_json::from_str(&case.shortest).unwrap()), "{}", case.shortest);
        let Ok(guide) = guides().guide(&schema(&case.schema.to_string()), usize::MAX) else { continue };
        let least = guides().words.spell(case.shortest.as_bytes()).unwrap().len();
        if guide.needs() > least {
            longer.push(format!("{} for {}: {guide:?}", guide.needs(), case.shortest));
        }
        found += guide.needs();
        shortest += least;
    }
    assert!(
        longer.len() <= 5 && found <= shortest + shortest / 50,
        "{found} tokens found, {shortest} known\n{}",
        longer.join("\n")
    );
}

#[test]
fn a_budget_below_the_shortest_answer_is_refused_with_what_it_takes() {
    let constraint = schema(r#"{"const":"abcdef"}"#);
    let refusal = guides().guide(&constraint, 7).unwrap_err();
    assert_eq!(refusal, ConstraintError::Budget { needs: 8, budget: 7 });
    assert!(refusal.to_string().contains("raise max_tokens to 8"));
    assert_eq!(answer(&constraint, 8, 1).1, r#""abcdef""#);
}

#[test]
fn expressions_and_choices_are_kept_within_any_budget() {
    for (expression, least) in [
        ("(a|b)*c", 1),
        ("^[A-Z]{3}-\\d{4}$", 8),
        ("x+y{2,5}", 3),
        ("[0-9]+(\\.[0-9]{2})?", 1),
        ("a/b\"c\\.d", 7),
        ("(yes|no), .{10,}!", 15),
        ("🦙+", 4),
        ("a*", 0),
    ] {
        let constraint = regex(expression);
        assert_eq!(needs(&constraint), least, "{expression}");
        let judge = judge(expression);
        for budget in [least.max(1), least + 1, least + 5, least + 30] {
            let (_, text) = answer(&constraint, budget, budget as u64);
            assert!(judge.is_valid(&Value::String(text.clone())), "{expression}: {text}");
        }
    }
    let texts = ["yes", "yes, of course", "no", "maybe/\"so\"", "vielleicht\n", "🦙 (a.b)*"];
    for seed in 0..8 {
        let (_, text) = answer(&choices(&texts), 2 + seed as usize * 4, seed);
        assert!(texts.contains(&&*text), "{text}");
    }
}

/// An expression's own judge: JSON Schema's `pattern`.
fn judge(expression: &str) -> jsonschema::Validator {
    let whole = format!("^({})$", expression.trim_start_matches('^').trim_end_matches('$'));
    jsonschema::validator_for(&serde_json::json!({ "pattern": whole })).unwrap()
}

#[test]
fn a_grammar_is_kept() {
    let constraint = Constraint::Grammar(
        "start: sum\nsum: term (\"+\" term)*\nterm: NUMBER | \"(\" sum \")\"\nNUMBER: /[0-9]+/\n".to_owned(),
    );
    assert_eq!(needs(&constraint), 1);
    for budget in [1, 2, 9, 40] {
        let (_, text) = answer(&constraint, budget, 3);
        let depth = |text: &str| text.matches('(').count() - text.matches(')').count();
        assert_eq!(depth(&text), 0, "{text}");
        assert!(text.ends_with(|c: char| c.is_ascii_digit() || c == ')'), "{text}");
    }
}

#[test]
fn who_may_call_a_tool_calls_it_or_answers_in_its_form() {
    let tool =
        crate::Tool { name: "clock".to_owned(), description: String::new(), parameters: String::new() };
    let schema =
        Constraint::schema(r#"{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"]}"#);
    let grammar = crate::tools::grammar_or(&[tool], &schema.unwrap(), crate::CallSyntax::Hermes).unwrap();
    let constraint = Constraint::Grammar(grammar);
    let follows = |text: &str| {
        let mut guide = guides().guide(&constraint, 200).unwrap();
        let ids = model().vocabulary().encode(text, false).unwrap();
        ids.iter().all(|&id| guide.push(id).is_ok()) && guide.is_complete()
    };
    let call = "<tool_call>\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_call>";
    assert!(follows(call) && follows(r#"{"ok":true}"#));
    for wrong in [r#"{"ok":1}"#, r#"{"name": "clock"}"#, "no", &format!("{call}{{\"ok\":true}}")] {
        assert!(!follows(wrong), "{wrong}");
    }
}

#[test]
fn an_answer_is_followed_as_it_was_made_and_nothing_else_is_taken() {
    let constraint = schema(r#"{"type":"array","items":{"enum":["ab","cd"]},"minItems":2}"#);
    let (ids, _) = answer(&constraint, 30, 5);
    let mut guide = guides().guide(&constraint, 30).unwrap();
    for (at, &id) in ids.iter().enumerate() {
        for hostile in [1, 999, u32::MAX, 3 + u32::from(b'~')] {
            assert_eq!(guide.push(hostile), Err(ConstraintError::NotAllowed { id: hostile }));
        }
        // A peer that takes over in the middle goes on as the first would have.
        let mut heir = guides().guide(&constraint, 30).unwrap();
        ids[..at].iter().for_each(|&id| heir.push(id).unwrap());
        assert_eq!(heir.settle(&mut reluctant(5, at), 30 - at, highest), Ok(id));
        guide.push(id).unwrap();
    }
    assert!(guide.is_complete());
}

#[test]
fn the_end_is_allowed_exactly_when_the_answer_is_complete() {
    let constraint = regex("ab*");
    let mut guide = guides().guide(&constraint, 9).unwrap();
    let wish = |id: u32| {
        let mut logits = vec![0.0; model().vocabulary().len()];
        logits[id as usize] = 9.0;
        logits
    };
    assert!(!guide.is_complete());
    assert_ne!(guide.settle(&mut wish(2), 9, highest).unwrap(), 2);
    assert_eq!(guide.push(2), Err(ConstraintError::NotAllowed { id: 2 }));
    let a = model().vocabulary().encode("a", false).unwrap()[0];
    guide.push(a).unwrap();
    assert!(guide.is_complete() && !guide.is_over());
    assert_eq!(guide.settle(&mut wish(2), 8, highest), Ok(2));
    assert_eq!(guide.settle(&mut wish(0), 8, highest), Ok(0), "any end will do");
    let exhausted = guide.settle(&mut wish(a), 0, highest).unwrap();
    assert!(model().vocabulary().is_end(exhausted), "nothing is left but to end");
    guide.push(2).unwrap();
    assert!(guide.is_over());
}

#[test]
fn control_tokens_are_never_allowed() {
    let guide = |text: &str| guides().guide(&Constraint::Grammar(text.to_owned()), 99);
    let mut free = guide("start: /(.|\\n)*/").unwrap();
    let mut logits = vec![0.0; model().vocabulary().len()];
    let _ = free.settle(&mut logits, 9, highest).unwrap();
    assert_eq!(logits[1], BARRED);
    assert!(guide("start: <|im_start|> \"a\"").is_err());
    assert!(guide("start: <[1]> \"a\"").is_err());
}

#[test]
fn logits_that_are_no_numbers_are_no_way_around() {
    let constraint = regex("[a-c]{4}");
    for value in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, f32::MIN] {
        let mut guide = guides().guide(&constraint, 4).unwrap();
        for left in (1..=4).rev() {
            let mut logits = vec![value; model().vocabulary().len()];
            let greedy = crate::Sampling { temperature: 0.0, ..crate::Sampling::default() };
            let id = guide.settle(&mut logits, left, |logits| greedy.choose(logits, &[], &[])).unwrap();
            guide.push(id).unwrap();
        }
        assert!(guide.is_over());
    }
}

#[test]
fn what_would_not_be_enforced_is_refused_by_name() {
    for (text, named) in [
        (r#"{"type":"array","uniqueItems":true}"#, "uniqueItems"),
        (r#"{"not":{"type":"null"}}"#, "not"),
        (r#"{"if":{"type":"null"},"then":true}"#, "if"),
        (r#"{"type":"array","contains":{"const":1}}"#, "contains"),
        (r#"{"type":"object","propertyNames":{"maxLength":2}}"#, "propertyNames"),
        (r#"{"type":"object","dependentRequired":{"a":["b"]}}"#, "dependentRequired"),
        (r#"{"oneOf":[{"type":"integer","minimum":1},{"type":"integer","maximum":5}]}"#, "oneOf"),
        (r#"{"type":"string","format":"iri"}"#, "format"),
        (r#"{"type":"object","minProperties":2}"#, "minProperties"),
        (r#"{"$ref":"https://example.org/schema.json"}"#, "$ref"),
        (r##"{"$ref":"#there","$defs":{"a":{"$anchor":"there"}}}"##, "$ref"),
        (r##"{"$ref":"#/$defs/a","$defs":{"a":{"$id":"urn:a","type":"null"}}}"##, "$id"),
        (r#"{"const":9007199254740993}"#, "9007199254740993"),
        (r#"{"x-guidance":{"lenient":true},"uniqueItems":true}"#, "x-guidance"),
    ] {
        let refusal = guides().guide(&schema(text), 999).expect_err(text);
        assert!(matches!(refusal, ConstraintError::Unsupported { .. }), "{text}: {refusal:?}");
        assert!(refusal.to_string().contains(named), "{text}: {refusal}");
    }
}

#[test]
fn sizes_are_checked_without_a_model() {
    assert!(matches!(regex(&"a".repeat(70_000)).validate(), Err(ConstraintError::TooLong { .. })));
    assert!(matches!(
        Constraint::Choices(vec!["a".to_owned(); 1_025]).validate(),
        Err(ConstraintError::TooManyChoices { count: 1_025 })
    ));
    for empty in [choices(&[]), choices(&["a", ""]), regex(" "), Constraint::Grammar(String::new())] {
        assert_eq!(empty.validate(), Err(ConstraintError::Empty));
    }
    assert!(matches!(schema("{").validate(), Err(ConstraintError::NotJson { .. })));
    assert_eq!(schema(r#"{"type":"object"}"#).validate(), Ok(()));
}

#[test]
fn hostile_constraints_are_errors_or_work_and_never_more() {
    let chain = |links: usize| {
        let link = |at| format!(r##""{at}":{{"$ref":"#/$defs/{}"}}"##, at + 1);
        let links: Vec<_> = (0..links).map(link).collect();
        format!(
            r##"{{"$ref":"#/$defs/0","$defs":{{{},"{}":{{"type":"null"}}}}}}"##,
            links.join(","),
            links.len()
        )
    };
    let rules: String = (0..3_000).map(|at| format!("a{at}: a{}\n", at + 1)).collect();
    let constraints = [
        schema(&chain(1_900)),
        schema(r##"{"$ref":"#"}"##),
        schema(r##"{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}"##),
        schema(r#"{"type":"string","minLength":100000000}"#),
        schema(r#"{"type":"string","pattern":"(((a{1,100}){1,100}){1,100}){1,100}"}"#),
        schema(r#"{"type":"array","minItems":100000000}"#),
        schema(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))[..60_000]),
        schema(r#"{"type":"string","minLength":5,"maxLength":4}"#),
        schema(r#"{"enum":[]}"#),
        regex("((((a{0,1000}){0,1000}){0,1000}){0,1000}){5}"),
        regex(&format!("{}a{}", "(".repeat(20_000), ")".repeat(20_000))),
        regex(&"(a|b|ab)*".repeat(2_000)),
        regex("(?=a)b"),
        regex("[[:nonsense"),
        regex("(.*a){40}"),
        Constraint::Grammar(format!("start: a0\n{rules}a3000: \"x\"\n")),
        Constraint::Grammar(format!("start: {}\"x\"{}\n", "(".repeat(20_000), ")".repeat(20_000))),
        Constraint::Grammar("start: start start | \"a\"\n".to_owned()),
        Constraint::Grammar("start: start\n".to_owned()),
        Constraint::Grammar("start: TEXT\nTEXT[stop=\"x\"]: /.*/\n".to_owned()),
    ];
    for constraint in constraints {
        if let Err(error) = try_answer(&constraint, 64, 1) {
            assert!(!error.to_string().contains("backtrace"), "{error}");
        }
    }
}
