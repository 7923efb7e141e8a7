//! Keys as the API uses them: who is who, what a job may cost, and what is remembered.

use protocol::{Capability, Credits, JobSpec, Price, Timestamp};

use super::limits::Limits;
use super::*;
use crate::request::JobRequest;

const NOW: Timestamp = Timestamp(1_000_000);

fn spec() -> JobSpec {
    let request = JobRequest { prompt: Some("x".to_owned()), ..JobRequest::default() };
    request.spec(NOW, None).unwrap()
}

fn spending(credits: u64) -> Limits {
    Limits { spend: Some(Credits(credits)), per_job: Some(Credits(credits)), ..Limits::default() }
}

#[test]
fn who_has_a_token_is_known_by_it_and_nobody_else_is() {
    let keys = Keys::default();
    keys.set_owner("owner's");
    assert!(!keys.exist(), "the owner's token is no key");
    let (id, token) = keys.create(NOW, "one", Limits::default()).unwrap();
    assert!(keys.exist());
    assert_eq!(keys.authenticate(Some("owner's")), Ok(Caller::Owner));
    assert_eq!(keys.authenticate(Some(token.text())), Ok(Caller::Key(id)));
    let forged = format!("llamesh_{id}_AAAA");
    for unknown in ["", "sk-1", "llamesh_", "llamesh_00000000_x", &forged] {
        assert_eq!(keys.authenticate(Some(unknown)), Err(Refusal::UnknownToken), "{unknown}");
    }
    assert_eq!(keys.authenticate(None), Err(Refusal::NoToken));
    keys.revoke(id).unwrap();
    assert_eq!(keys.authenticate(Some(token.text())), Err(Refusal::Revoked));
    assert!(keys.exist(), "a peer that had keys does not open again");
}

#[test]
fn without_an_owner_nobody_is_the_owner() {
    assert_eq!(Keys::default().authenticate(Some("")), Err(Refusal::UnknownToken));
}

#[test]
fn a_job_of_a_key_gets_its_budget_and_what_it_cost_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.redb");
    let keys = Keys::open(&path).unwrap();
    let (id, _) = keys.create(NOW, "one", spending(10)).unwrap();
    let visit = keys.begin(NOW, id).unwrap();
    let mut job = spec();
    assert_eq!(job.requirement.ceiling, Some(Price::default()));
    let hold = visit.admit(&mut job).unwrap();
    assert_eq!((job.limits.budget, job.requirement.ceiling), (Credits(10), None));
    visit.admit(&mut spec()).unwrap_err();
    assert_eq!(visit.refused(), Some(Refusal::Held));
    hold.settle(Credits(4));
    let hold = visit.admit(&mut job).unwrap();
    assert_eq!(job.limits.budget, Credits(6), "what is left");
    drop(hold);
    let hold = visit.admit(&mut spec()).unwrap();
    hold.settle(Credits(6));
    drop(visit);
    drop(keys);
    let keys = Keys::open(&path).unwrap();
    assert_eq!(keys.begin(NOW, id).unwrap_err(), Refusal::Spent { retry_after: None });
    assert_eq!(keys.list(NOW)[0].spent, Credits(10));
}

#[test]
fn a_key_asks_for_what_it_may_and_ends_where_it_must() {
    let keys = Keys::default();
    let limits = Limits { capabilities: vec!["text.embedding".parse().unwrap()], ..Limits::default() };
    let (id, _) = keys.create(NOW, "one", limits).unwrap();
    let visit = keys.begin(NOW, id).unwrap();
    visit.admit(&mut spec()).unwrap_err();
    assert_eq!(visit.refused(), Some(Refusal::Capability(Capability::text_generation())));
    let once = Limits { concurrent: std::num::NonZeroU32::new(1), ..Limits::default() };
    let (id, _) = keys.create(NOW, "two", once).unwrap();
    let visit = keys.begin(NOW, id).unwrap();
    assert_eq!(keys.begin(NOW, id).unwrap_err(), Refusal::Concurrent);
    drop(visit);
    keys.begin(NOW, id).unwrap();
}

#[test]
fn names_are_for_people() {
    let keys = Keys::default();
    let long = "x".repeat(MAX_NAME + 1);
    for name in ["", "a\nb", &long] {
        assert!(matches!(keys.create(NOW, name, Limits::default()), Err(KeysError::Name)), "{name}");
    }
}
