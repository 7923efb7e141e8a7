//! Requests as users write them, and the jobs that they become.

use crypto::{Network, SecretKey, Signed, Verified};
use protocol::profile::Versions;
use protocol::{AgentOffer, Constraint, ModelOffer, Profile, Speed};

use super::*;

/// A peer that offers a model which it calls `name`.
fn offering(seed: u8, name: &str, digest: Digest) -> Verified<Profile> {
    let model =
        ModelOffer { name: name.to_owned(), digest, manifest: false, engine: "e".to_owned(), context: 1 };
    let agent = AgentOffer {
        agent: "a".to_owned(),
        capability: Capability::text_generation(),
        kinds: vec![JobKind::Generate],
        model: Some(model),
        price: Price::default(),
        speed: Speed::default(),
        languages: Vec::new(),
        modalities: Vec::new(),
        tools: Vec::new(),
    };
    let profile = Profile {
        versions: Versions { min: 1, max: 1 },
        agents: vec![agent],
        issued: Timestamp(0),
        expires: Timestamp(1),
    };
    Signed::sign(&Network::default(), &SecretKey::from_seed(&[seed; 32]), profile)
}

#[test]
fn a_stranger_cannot_take_over_a_models_name() {
    let (ours, theirs) = (Digest::of_content(b"ours"), Digest::of_content(b"theirs"));
    let alone = [offering(1, "foo", ours), offering(2, "foo", ours)];
    assert_eq!(resolve_model("foo", &alone), Ok(ours));
    let contested = [offering(1, "foo", ours), offering(2, "foo", theirs)];
    assert!(matches!(resolve_model("foo", &contested), Err(JobError::Invalid { .. })));
    assert_eq!(resolve_model(&ours.to_string(), &contested), Ok(ours), "a digest is nobody's to claim");
    let pinned = models::known::SMOLLM2.digest();
    assert_eq!(resolve_model("smollm2", &[offering(2, "smollm2", theirs)]), Ok(pinned));
}

#[test]
fn a_vector_is_made_of_one_text() {
    let request = |messages: Vec<ChatMessage>, prompt: Option<&str>| JobRequest {
        capability: Some(Capability::text_embedding()),
        messages,
        prompt: prompt.map(str::to_owned),
        ..JobRequest::default()
    };
    let message = |role| ChatMessage::new(role, "x");
    for good in [request(Vec::new(), Some("x")), request(vec![message(Role::User)], None)] {
        let spec = good.spec(Timestamp(5), None).unwrap();
        assert_eq!((spec.kind, spec.input), (JobKind::Embed, Input::Text("x".to_owned())));
    }
    for bad in [vec![message(Role::System), message(Role::User)], vec![message(Role::System)], Vec::new()] {
        assert!(matches!(request(bad, None).spec(Timestamp(5), None), Err(JobError::Invalid { .. })));
    }
}

#[test]
fn a_time_without_end_is_no_overflow() {
    let request =
        JobRequest { prompt: Some("x".to_owned()), timeout_s: Some(u64::MAX), ..JobRequest::default() };
    let spec = request.spec(Timestamp(5), None).unwrap();
    assert_eq!(spec.limits.deadline, Timestamp(u64::MAX));
}

/// The job of a request as JSON.
fn job(request: &str) -> Result<JobSpec, JobError> {
    let request: JobRequest = serde_json::from_str(request).unwrap();
    request.spec(Timestamp(5), Some(Digest::of_content(b"tiny")))
}

#[test]
fn a_schema_travels_as_the_text_that_was_written() {
    let spec =
        job(r#"{"prompt":"x","constraint":{"json_schema":{"z": 1,  "a": 2}},"logprobs":3,"choice":7}"#)
            .unwrap();
    assert_eq!(spec.constraint, Some(Constraint::JsonSchema(r#"{"z": 1,  "a": 2}"#.to_owned())));
    assert_eq!((spec.sampling.logprobs, spec.sampling.choice), (Some(3), 7));
    let forms = [
        (r#"{"regex":"a+"}"#, Constraint::Regex("a+".to_owned())),
        (r#"{"choices":["a","b"]}"#, Constraint::Choices(vec!["a".to_owned(), "b".to_owned()])),
        (r#"{"grammar":"g"}"#, Constraint::Grammar("g".to_owned())),
    ];
    for (form, constraint) in forms {
        let request = format!(r#"{{"prompt":"x","constraint":{form}}}"#);
        assert_eq!(job(&request).unwrap().constraint, Some(constraint));
        let again: JobRequest = serde_json::from_str(&request).unwrap();
        let again = serde_json::to_string(&again).unwrap();
        assert_eq!(job(&again).unwrap(), job(&request).unwrap(), "a request reads as it was written");
    }
}

#[test]
fn tools_are_given_with_their_parameters_as_json() {
    let tools = r#"[{"name":"clock"},{"name":"f","description":"d","parameters":{"type": "object"}}]"#;
    let spec = job(&format!(r#"{{"prompt":"x","tools":{tools},"tool_choice":{{"named":"f"}}}}"#)).unwrap();
    let Input::Chat(chat) = spec.input else { panic!("a chat") };
    assert_eq!(chat.tool_choice, ToolChoice::Named("f".to_owned()));
    assert_eq!(chat.tools[1].parameters, r#"{"type": "object"}"#);
    assert!(chat.tools[0].parameters.starts_with('{'));
    let refused = job(&format!(r#"{{"text":"x","tools":{tools}}}"#));
    assert!(matches!(refused, Err(JobError::Invalid { .. })), "raw text is no chat");
}

#[test]
fn a_text_or_tokens_are_scored_as_they_are() {
    let spec = job(r#"{"kind":"score","tokens":[1,2],"logprobs":0}"#).unwrap();
    assert_eq!((spec.kind, spec.input), (JobKind::Score, Input::Tokens(vec![1, 2])));
    assert_eq!(spec.sampling.max_tokens, Scores::MAX_PIECES);
    for text in [r#"{"kind":"score","text":"x"}"#, r#"{"kind":"score","prompt":"x"}"#] {
        assert_eq!(job(text).unwrap().input, Input::Text("x".to_owned()));
    }
    assert_eq!(job(r#"{"text":"x"}"#).unwrap().input, Input::Text("x".to_owned()));
}

#[test]
fn one_input_is_given_and_not_two() {
    for both in [
        r#"{"prompt":"x","text":"x"}"#,
        r#"{"text":"x","tokens":[1]}"#,
        r#"{"prompt":"x","tokens":[1]}"#,
        "{}",
    ] {
        assert!(matches!(job(both), Err(JobError::Invalid { .. })), "{both}");
    }
}

#[test]
fn a_call_has_arguments_as_they_were_written_and_nothing_beside_them() {
    let request = |json: &str| serde_json::from_str::<JobRequest>(json).unwrap().spec(Timestamp(5), None);
    let spec = request(r#"{"call": {"z": 1,  "a": 2}}"#).unwrap();
    assert_eq!((spec.kind, spec.input), (JobKind::Call, Input::Json(r#"{"z": 1,  "a": 2}"#.to_owned())));
    assert_eq!(spec.requirement.capability, Capability::tool());
    for wrong in [
        r#"{"call": [1]}"#,
        r#"{"call": "{}"}"#,
        r#"{"call": {}, "prompt": "x"}"#,
        r#"{"call": {}, "tokens": [1]}"#,
        r#"{"kind": "call", "prompt": "x"}"#,
    ] {
        let refused = request(wrong).unwrap_err();
        assert!(
            matches!(refused, JobError::Invalid { .. } | JobError::Unsupported { .. }),
            "{wrong}: {refused}"
        );
    }
}
