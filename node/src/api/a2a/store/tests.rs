//! What the table of tasks keeps, for whom, and what goes first.

use serde_json::json;

use super::*;
use crate::api::keys::token::KeyId;

const OWNER: Caller = Caller::Owner;
const OTHER: Caller = Caller::Key(KeyId([1; 4]));

fn task(id: &str, context: &str, text: &str) -> Task {
    let asked = json!({ "messageId": "m", "role": "ROLE_USER", "parts": [{ "text": text }] });
    Task {
        id: id.to_owned(),
        context: context.to_owned(),
        state: State::Submitted,
        note: None,
        since: Timestamp(0),
        turn: 0,
        asked: serde_json::from_value(asked).unwrap(),
        answer: String::new(),
        proof: None,
    }
}

fn begin(store: &mut Store, owner: Caller, task: Task) -> Result<(), Error> {
    store.begin(Timestamp(0), owner, task, CancellationToken::new())
}

/// A task that is over at once.
fn done(store: &mut Store, owner: Caller, id: &str) {
    begin(store, owner, task(id, "c", &format!("q{id}"))).unwrap();
    assert!(store.say(id, &format!("a{id}")));
    store.complete(Timestamp(0), id, json!({}));
}

fn wanted(most: usize, before: Option<u64>) -> Wanted {
    Wanted { most, before, ..Wanted::default() }
}

#[test]
fn tasks_are_their_owner_s_alone() {
    let mut store = Store::default();
    done(&mut store, OWNER, "1");
    assert!(store.get(Timestamp(0), OWNER, "1").is_ok());
    assert_eq!(store.get(Timestamp(0), OTHER, "1").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(store.list(Timestamp(0), OTHER, &wanted(9, None)).total, 0);
    assert!(store.conversation(OTHER, "c").is_empty() && store.conversation(OWNER, "c").len() == 2);
}

#[test]
fn the_oldest_go_first_and_nobody_pushes_out_everybody() {
    let mut store = Store::default();
    done(&mut store, OTHER, "theirs");
    for number in 0..=MAX_EACH {
        done(&mut store, OWNER, &number.to_string());
    }
    assert!(store.get(Timestamp(0), OWNER, "0").is_err() && store.get(Timestamp(0), OWNER, "1").is_ok());
    assert!(store.get(Timestamp(0), OTHER, "theirs").is_ok());
    assert!(store.get(Timestamp(LIFETIME), OTHER, "theirs").is_err(), "for a day");
    store.forget_old(Timestamp(LIFETIME));
    assert_eq!((store.kept.len(), store.bytes), (0, 0));
}

#[test]
fn what_is_at_work_stays_and_is_bounded() {
    let mut store = Store::default();
    for number in 0..MAX_AT_WORK_EACH {
        begin(&mut store, OWNER, task(&number.to_string(), "c", "x")).unwrap();
    }
    let refused = begin(&mut store, OWNER, task("more", "c", "x")).unwrap_err();
    assert_eq!(refused.kind(), Kind::Overloaded);
    begin(&mut store, OTHER, task("other", "c", "x")).unwrap();
    let megabyte = "x".repeat(1 << 20);
    let said = (0..).take_while(|_| store.say("other", &megabyte)).take(100).count();
    assert!(said < 64 && store.bytes <= MAX_BYTES, "{said}");
    store.turn(Timestamp(0), "other", State::Failed, None);
    assert!(store.say("0", &megabyte), "what is over makes room");
}

#[test]
fn pages_begin_with_the_latest_and_leave_nothing_out() {
    let mut store = Store::default();
    for id in ["a", "b", "c"] {
        done(&mut store, OWNER, id);
    }
    let ids = |page: &Page<'_>| page.tasks.iter().map(|task| task.id.clone()).collect::<Vec<_>>();
    let first = store.list(Timestamp(0), OWNER, &wanted(2, None));
    assert_eq!((ids(&first), first.total), (vec!["c".to_owned(), "b".to_owned()], 3));
    let second = store.list(Timestamp(0), OWNER, &wanted(2, first.next));
    assert_eq!((ids(&second), second.next), (vec!["a".to_owned()], None));
    let none = Wanted { state: Some(State::Working.name()), ..wanted(2, None) };
    assert_eq!(store.list(Timestamp(0), OWNER, &none).total, 0);
    let late = Wanted { since: Some(Timestamp(1)), ..wanted(2, None) };
    assert_eq!(store.list(Timestamp(0), OWNER, &late).total, 0);
}

#[test]
fn a_context_carries_its_latest_turns() {
    let mut store = Store::default();
    for id in ["1", "2"] {
        done(&mut store, OWNER, id);
    }
    let said: Vec<_> = store.conversation(OWNER, "c").into_iter().map(|message| message.content).collect();
    assert_eq!(said, ["q1", "a1", "q2", "a2"]);
    let long = "x".repeat(MAX_CARRIED);
    begin(&mut store, OWNER, task("3", "c", &long)).unwrap();
    store.complete(Timestamp(0), "3", json!({}));
    done(&mut store, OWNER, "4");
    let said: Vec<_> = store.conversation(OWNER, "c").into_iter().map(|message| message.content).collect();
    assert_eq!(said, ["q4", "a4"], "nothing before what does not fit");
}

#[test]
fn what_is_over_changes_no_more() {
    let mut store = Store::default();
    done(&mut store, OWNER, "1");
    store.turn(Timestamp(9), "1", State::Canceled, None);
    store.say("1", "more");
    let kept = store.get(Timestamp(0), OWNER, "1").unwrap();
    assert_eq!((kept.task.state, kept.task.answer.as_str()), (State::Completed, "a1"));
}
