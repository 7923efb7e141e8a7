//! Plans that wish us ill: they end with an error, and soon.

use protocol::JobError;
use protocol::plan::{Expectation, Output, Plan};
use serde_json::{Value, json};

use crate::plans::{Story, nodes, plan};

/// Why a plan of one join cannot be had.
fn fails(of: &str) -> String {
    let text = format!("[nodes.a]\nconcatenate.of = '''{of}'''");
    ends(&text, json!({}))
}

fn ends(text: &str, inputs: Value) -> String {
    let story = Story::begin(nodes(text), inputs, Vec::new()).run(&|_| Err(JobError::Engine));
    match story.end {
        Some(Output::Failed { why, .. }) => why,
        other => panic!("{other:?} is no failure"),
    }
}

#[test]
fn work_without_end_runs_out_of_fuel() {
    for prompt in [
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' * 999999999 }}",
        "{% set n = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        "{{ range(999999999) | list }}",
    ] {
        let why = ends(&format!("[nodes.a.generate]\nprompt = \"{prompt}\""), json!({}));
        assert!(why.starts_with("`prompt`, line 1: "), "{prompt}: {why}");
    }
}

#[test]
fn lists_are_bounded() {
    assert!(fails("range(99999)").contains("at most 16384 elements"));
    assert!(fails("'text'").contains("must be a list, and is a string"));
    let text = "inputs.list = {}\n[nodes.a]\nfor_each = 'inputs.list'\nmax_items = 1024\ngenerate.prompt = '{{ item }}'";
    let list: Vec<_> = (0..1025).collect();
    assert!(ends(text, json!({ "list": list })).contains("has 1025 items; allow them with `max_items`"));
}

#[test]
fn a_prompt_larger_than_any_input_is_not_sent() {
    let text = "inputs.x = {}\n[nodes.a.generate]\nprompt = '{{ inputs.x }}{{ inputs.x }}'";
    let why = ends(text, json!({ "x": "y".repeat(600_000) }));
    assert!(why.contains("makes more than 1048576 bytes"), "{why}");
}

#[test]
fn jobs_are_bounded_over_all_nodes() {
    let choices = "generate = { prompt = '{{ index }}', choices = 128, temperature = 1.0 }";
    let text = format!("[nodes.a]\nfor_each = 'range(65)'\nmax_items = 65\n{choices}");
    assert!(ends(&text, json!({})).contains("more than 8192 jobs"));
    let node = |i: u32| format!("[nodes.n{i}]\n{}\n", choices.replace("{{ index }}", "x"));
    let many: String = (0..65).map(node).collect();
    let error = plan(&format!("goal = 'x'\noutput = 'n0'\n{many}")).check().unwrap_err().to_string();
    assert!(error.contains("`number of jobs` is 8320"), "{error}");
}

#[test]
fn too_many_nodes_and_too_deep_templates_are_refused() {
    let many: String = (0..257).map(|i| format!("[nodes.n{i}.vote]\nof = '[1]'\n")).collect();
    let error = plan(&format!("goal = 'x'\noutput = 'n0'\n{many}")).check().unwrap_err().to_string();
    assert!(error.contains("is 257; it must be between 1 and 256"), "{error}");
    for deep in [format!("{{{{ {}1{} }}}}", "(".repeat(9999), ")".repeat(9999)), "{% if 1 %}".repeat(5000)] {
        let text = format!("goal = 'x'\n[nodes.a.generate]\nprompt = '{deep}'");
        assert!(plan(&text).check().unwrap_err().to_string().contains("`generate.prompt`, line 1: "));
    }
    let long = format!("goal = 'x'\n[nodes.a.generate]\nprompt = '{}'", "x".repeat(65_537));
    assert!(plan(&long).check().unwrap_err().to_string().contains("it must be between 1 and 65536"));
}

#[test]
fn a_template_sees_nothing_but_what_it_waits_for() {
    // The reader does not look into arguments of `filter` blocks; rendering does not find there what was not found before.
    let text = "
        output = 'b'
        [nodes.a.vote]
        of = \"['secret']\"
        [nodes.b.generate]
        prompt = \"{% filter replace('x', nodes.a) %}x{% endfilter %}\"";
    assert!(ends(text, json!({})).contains("`prompt`, line 1: "));
    for prompt in ["{% include 'x' %}", "{{ debug() }}", "{% extends 'x' %}"] {
        let text = format!("goal = 'x'\n[nodes.a.generate]\nprompt = \"{prompt}\"");
        if let Ok(checked) = plan(&text).check() {
            let story = Story::begin(checked, json!({}), Vec::new());
            assert!(matches!(story.end, Some(Output::Failed { .. })), "{prompt}");
        }
    }
}

#[test]
fn expressions_and_schemas_are_bounded() {
    let refused = |expectation: Expectation| expectation.check().unwrap_err().to_string();
    assert!(refused(Expectation::Regex(r"(\w{1000}){1000}".to_owned())).contains("exceeds size limit"));
    for (schema, expected) in [
        (json!({ "$ref": "#" }), "refers to itself"),
        (json!({ "$ref": "https://example.invalid/schema" }), "which is not in it"),
        (json!({ "$ref": "file:///etc/passwd" }), "which is not in it"),
        (json!({ "$dynamicRef": "#" }), "dynamic references"),
        (doubling(40), "too large, or refers to itself"),
        (json!({ "type": "string", "pattern": r"(\w{1000}){1000}" }), "is no JSON schema"),
        (json!({ "description": "x".repeat(70_000) }), "must have at most 65536 bytes"),
        (json!(true), "must be an object"),
    ] {
        let found = refused(Expectation::Schema(schema));
        assert!(found.contains(expected), "{found}\nshould say: {expected}");
    }
    assert_eq!(Expectation::Schema(doubling(8)).check(), Ok(()));
}

/// Each definition twice the next one: few bytes, much work.
fn doubling(definitions: usize) -> Value {
    let twice = |i: usize| json!({ "anyOf": [{ "$ref": format!("#/$defs/d{}", i + 1) }, { "$ref": format!("#/$defs/d{}", i + 1) }] });
    let mut all: serde_json::Map<_, _> = (0..definitions).map(|i| (format!("d{i}"), twice(i))).collect();
    all.insert(format!("d{definitions}"), json!({ "type": "string" }));
    json!({ "$ref": "#/$defs/d0", "$defs": all })
}

#[test]
fn a_budget_is_bounded_by_what_money_can_count() {
    let most = u64::MAX;
    let node = |name: &str| format!(r#""{name}": {{ "budget": {most}, "vote": {{ "of": "[1]" }} }}"#);
    let text = format!(
        r#"{{ "goal": "x", "output": "a", "limits": {{ "budget": {most} }}, "nodes": {{ {}, {} }} }}"#,
        node("a"),
        node("b")
    );
    let plan: Plan = serde_json::from_str(&text).unwrap();
    assert!(plan.check().is_err(), "twice the most is more than the most");
}
