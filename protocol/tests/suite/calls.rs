//! Tools: what they are given, how they answer, and what their receipts name.

use proptest::prelude::*;
use protocol::event::Production;
use protocol::{
    AgentOffer, Capability, Constraint, Finish, Input, JobError, JobEvent, JobKind, JobSpec, ModelOffer,
    Sampling, Token, call, error::Feature,
};

use crate::values::*;
use crate::world::World;

const ARGUMENTS: &str = r#"{"a":1}"#;

fn calculator() -> Capability {
    capability("tool.calculator")
}

fn spec_of(input: Input) -> JobSpec {
    let mut spec = JobSpec { kind: JobKind::Call, input, ..spec() };
    spec.requirement.capability = calculator();
    spec
}

fn call_spec() -> JobSpec {
    spec_of(Input::Json(ARGUMENTS.into()))
}

/// An offer of a tool: its digest is in the place of a model's.
fn tool(completion: u64) -> AgentOffer {
    let digest = call::described("add", "adds", "{}");
    let model =
        ModelOffer { name: "add".into(), digest, manifest: false, engine: call::ENGINE.into(), context: 0 };
    let kinds = vec![JobKind::Call];
    AgentOffer { kinds, model: Some(model), tools: vec!["add".into()], ..offer(&calculator(), completion) }
}

fn pieces(texts: &[&str]) -> Vec<Production> {
    let piece = |text: &&str| Production::from(Token { id: None, text: (*text).into() });
    texts.iter().map(piece).chain([Production::Finished(Finish::EndOfText)]).collect()
}

#[test]
fn a_tool_answers_in_pieces_without_ids_and_its_receipt_names_it() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![tool(1)]);
    world.script(peer(2), pieces(&["{\"sum\":", "3}"]));
    world.submit(peer(1), job_id(1), call_spec());
    let JobEvent::Done(completion) = world.finish(job_id(1)) else { panic!("done") };
    let receipt = &completion.receipt;
    assert_eq!(receipt.check_opening(&completion.opening), Ok(()));
    assert_eq!((receipt.kind, receipt.model), (JobKind::Call, tool(1).model.map(|model| model.digest)));
    assert_eq!(receipt.engine.as_deref(), Some(call::ENGINE));
    assert_eq!(receipt.prompt, None, "there is none that anybody has rendered");
    assert_eq!(completion.opening.input, Input::Json(ARGUMENTS.into()));
}

#[test]
fn only_tools_are_called_and_tools_do_nothing_else() {
    for (offer, spec) in [
        (offer(&calculator(), 1), call_spec()),
        (tool(1), JobSpec { kind: JobKind::Generate, ..spec_of(Input::Text("x".into())) }),
    ] {
        let mut world = World::of(2);
        world.offer(peer(2), vec![offer]);
        world.submit(peer(1), job_id(1), spec);
        let JobEvent::Failed(error) = world.finish(job_id(1)) else { panic!("failed") };
        assert_eq!(error, JobError::Unsupported { feature: Feature::JobKind });
        assert!(world.runs(peer(2)).is_empty());
    }
}

#[test]
fn a_call_has_arguments_and_nothing_else_has() {
    assert_eq!(call_spec().check(), Ok(()));
    let unsupported = |feature| Err(JobError::Unsupported { feature });
    for input in [Input::Text("x".into()), Input::Tokens(vec![1]), crate::samples::input()] {
        assert_eq!(spec_of(input.clone()).check(), unsupported(Feature::Input), "{input:?}");
    }
    for kind in [JobKind::Embed, JobKind::Generate, JobKind::Score] {
        assert_eq!(JobSpec { kind, ..call_spec() }.check(), unsupported(Feature::Input), "{kind:?}");
    }
    let constraint = Some(Constraint::Regex("x".into()));
    assert_eq!(JobSpec { constraint, ..call_spec() }.check(), unsupported(Feature::Constraint));
}

#[test]
fn arguments_are_one_json_object() {
    for good in ["{}", " {\"a\": [1, {\"b\": null}]} \n", "{\"a\":1,\"a\":2}"] {
        assert_eq!(spec_of(Input::Json(good.into())).check(), Ok(()), "{good}");
    }
    let (open, long) = ("{\"a\":".repeat(1000), format!("{{\"a\":\"{}\"}}", "x".repeat(JobSpec::MAX_INPUT)));
    for bad in ["", "[]", "null", "1", "\"{}\"", "{", "{}{}", "{a:1}", "{'a':1}", "\u{feff}{}", &open, &long]
    {
        let refused = spec_of(Input::Json(bad.into())).check();
        assert!(matches!(refused, Err(JobError::Invalid { .. })), "{bad:.40}: {refused:?}");
    }
}

#[test]
fn a_tools_digest_is_of_all_that_it_is_known_by() {
    let described =
        [("add", "adds", "{}"), ("add", "add", "s{}"), ("adda", "dds", "{}"), ("add", "adds", "")];
    let program = [&["a", "b"][..], &["ab"], &["a"], &[]];
    let content = crypto::Digest::of_content(b"#!/bin/sh\n");
    let of_program = |arguments: &&[&str]| {
        call::program(content, &arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    };
    let mut all: Vec<_> = described.iter().map(|(n, d, s)| call::described(n, d, s)).collect();
    all.extend(program.iter().map(of_program));
    all.push(call::program(crypto::Digest::of_content(b"other"), &[]));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

proptest! {
    #[test]
    fn pieces_are_the_text_and_fit_their_frames(text in "[aé☃🦙\\n]{0,9000}") {
        let pieces = Token::pieces(&text, &Sampling::default()).unwrap();
        prop_assert!(pieces.iter().all(|piece| !piece.text.is_empty() && piece.text.len() <= Token::MAX_TEXT));
        prop_assert!(pieces.iter().all(|piece| piece.id.is_none()));
        prop_assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), text.clone());
        let one = Token::pieces(&text, &Sampling { max_tokens: 1, ..Sampling::default() });
        prop_assert_eq!(one.is_ok(), pieces.len() <= 1);
    }
}
