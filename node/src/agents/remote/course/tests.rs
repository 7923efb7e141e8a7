//! What becomes of an agent's words, honest ones and others.

use serde_json::json;

use super::*;

/// What comes out of these events, and how it ends.
fn told(events: Value) -> (String, Result<Option<Finish>, JobError>) {
    let (mut course, mut text, mut last) = (Course::default(), String::new(), Ok(None));
    for event in events.as_array().unwrap() {
        last = course.on_event(serde_json::from_value(event.clone()).unwrap(), None);
        text.extend(std::iter::from_fn(|| course.next_piece()));
    }
    (text, last)
}

fn task(state: &str, artifacts: Value) -> Value {
    json!({ "task": { "id": "t", "contextId": "c", "status": { "state": state }, "artifacts": artifacts } })
}

fn artifact(id: &str, text: &str) -> Value {
    json!({ "artifactId": id, "parts": [{ "text": text, "mediaType": "text/plain" }] })
}

fn update(id: &str, text: &str, append: bool) -> Value {
    json!({ "artifactUpdate": { "taskId": "t", "artifact": artifact(id, text), "append": append } })
}

fn status(state: &str, note: &str) -> Value {
    let message = json!({ "messageId": "m", "role": "ROLE_AGENT", "parts": [{ "text": note }] });
    json!({ "statusUpdate": { "taskId": "t", "status": { "state": state, "message": message } } })
}

const DONE: Result<Option<Finish>, JobError> = Ok(Some(Finish::EndOfText));

#[test]
fn pieces_come_in_order_and_once() {
    let events = json!([
        task("TASK_STATE_WORKING", json!([])),
        status("TASK_STATE_WORKING", ""),
        update("a", "one ", false),
        update("a", "two", true),
        update("a", "one two three", false),
        update("b", "four", false),
        status("TASK_STATE_COMPLETED", "ignored"),
    ]);
    assert_eq!(told(events), ("one two three\n\nfour".to_owned(), DONE));
    let whole = task("TASK_STATE_COMPLETED", json!([artifact("a", "x"), artifact("b", "y")]));
    assert_eq!(told(json!([whole])), ("x\n\ny".to_owned(), DONE));
    let looked = json!([task("TASK_STATE_WORKING", json!([artifact("a", "x")])), whole]);
    assert_eq!(told(looked), ("x\n\ny".to_owned(), DONE));
}

#[test]
fn words_without_an_artifact_are_an_answer_too() {
    let message =
        json!([{ "message": { "messageId": "m", "role": "ROLE_AGENT", "parts": [{ "data": { "a": 1 } }] } }]);
    assert_eq!(told(message), ("{\"a\":1}".to_owned(), DONE));
    assert_eq!(told(json!([status("TASK_STATE_COMPLETED", "note")])), ("note".to_owned(), DONE));
    assert_eq!(told(json!([status("TASK_STATE_INPUT_REQUIRED", "Which?")])), ("Which?".to_owned(), DONE));
}

#[test]
fn a_stranger_s_tricks_are_failures() {
    for events in [
        json!([update("a", "one", false), update("a", "two", false)]),
        json!([task("TASK_STATE_WORKING", json!([])), { "artifactUpdate": { "taskId": "u", "artifact": artifact("a", "x") } }]),
        json!([status("TASK_STATE_FAILED", "why")]),
        json!([status("TASK_STATE_AUTH_REQUIRED", "")]),
        json!([{}]),
        json!([task(
            "TASK_STATE_WORKING",
            (0..=MAX_ARTIFACTS).map(|id| artifact(&id.to_string(), "")).collect()
        )]),
        json!([update("a", &"x".repeat(Token::MAX_ANSWER + 1), false)]),
    ] {
        assert_eq!(told(events.clone()).1, Err(JobError::Engine), "{:.200}", events.to_string());
    }
    let rejected = told(json!([status("TASK_STATE_REJECTED", "no files")])).1.unwrap_err();
    assert!(rejected.to_string().contains("no files") && rejected.code() == "invalid");
}

#[test]
fn only_what_is_at_work_can_be_taken_back() {
    let mut course = Course::default();
    assert_eq!(course.at_work(), None);
    course.on_event(serde_json::from_value(task("TASK_STATE_WORKING", json!([]))).unwrap(), None).unwrap();
    assert_eq!(course.at_work(), Some("t"));
    course.on_event(serde_json::from_value(status("TASK_STATE_COMPLETED", "")).unwrap(), None).unwrap();
    assert_eq!(course.at_work(), None);
}
