//! Constraints: named by digest to everybody, shown to the winner alone, and bound by the receipt.

use protocol::message::{Brief, Start};
use protocol::receipt::Mismatch;
use protocol::{
    Constraint, Evidence, Frame, JobError, JobEvent, JobKind, JobSpec, Opening, Output, error::Feature,
};

use crate::any;
use crate::values::*;
use crate::world::World;

/// What nobody but the winner may ever read.
const SECRET: &str = "a form that only the winner may see";

fn regex() -> Constraint {
    Constraint::Regex(SECRET.into())
}

fn constrained() -> JobSpec {
    JobSpec { constraint: Some(regex()), ..spec() }
}

fn world() -> World {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(1)]);
    world.offer(peer(3), vec![text_offer(2)]);
    world.script(peer(2), answer(3));
    world
}

#[test]
fn a_constraint_reaches_the_winner_alone_and_its_receipt_binds_it() {
    let mut world = world();
    world.submit(peer(1), job_id(1), constrained());
    let JobEvent::Done(done) = world.finish(job_id(1)) else { panic!("done") };
    assert_eq!(world.runs(peer(2))[0].constraint, Some(regex()));
    let seen = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    let with: Vec<_> = world.wire.iter().filter(|packet| seen(&packet.bytes)).collect();
    assert_eq!((with.len(), with[0].starts, with[0].to), (1, true, Some(peer(2))));

    assert_eq!(done.receipt.constraint, Some(regex().digest()));
    assert_eq!(done.receipt.check_opening(&done.opening), Ok(()));
    for bent in [None, Some(Constraint::Grammar(SECRET.into())), Some(Constraint::Regex("x".into()))] {
        let opening = Opening { constraint: bent, ..done.opening.clone() };
        assert_eq!(done.receipt.check_opening(&opening), Err(Mismatch::Constraint));
    }
    let text = serde_json::to_string(&done.opening).unwrap();
    assert!(text.contains(&format!(r#""constraint":{{"regex":"{SECRET}"}}"#)), "{text}");
    assert_eq!(serde_json::from_str::<Opening>(&text).unwrap(), done.opening);
}

#[test]
fn an_opening_of_a_free_answer_says_nothing_of_constraints() {
    let mut world = world();
    world.submit(peer(1), job_id(1), spec());
    let JobEvent::Done(done) = world.finish(job_id(1)) else { panic!("done") };
    assert!(!serde_json::to_string(&done.opening).unwrap().contains("constraint"));
    let opening = Opening { constraint: Some(regex()), ..done.opening.clone() };
    assert_eq!(done.receipt.check_opening(&opening), Err(Mismatch::Constraint));
}

#[test]
fn a_constraint_that_is_not_the_ordered_one_blocks_its_sender() {
    let bends: [fn(Brief) -> Brief; 2] = [
        |brief| Brief { constraint: None, ..brief },
        |brief| Brief { constraint: Some(Constraint::Regex("x".into())), ..brief },
    ];
    for bend in bends {
        let mut world = world();
        world.bend(peer(1), move |frame| match frame {
            Frame::Start(start) => {
                let Start { order, brief, trace } = *start;
                vec![Frame::Start(Box::new(Start { order, brief: bend(brief), trace }))]
            }
            frame => vec![frame],
        });
        world.submit(peer(1), job_id(1), JobSpec { provider: Some(peer(2)), ..constrained() });
        assert!(world.runs(peer(2)).is_empty());
        assert_eq!(world.evidence(peer(2), peer(1)), [(Evidence::BadCommitment, 1)]);
        assert!(world.blocked(peer(2), peer(1)));
    }
}

#[test]
fn only_what_is_generated_takes_a_constraint() {
    for kind in [JobKind::Call, JobKind::Embed, JobKind::Score] {
        let refused = JobSpec { kind, ..constrained() }.check();
        assert_eq!(refused, Err(JobError::Unsupported { feature: Feature::Constraint }));
    }
    assert_eq!(constrained().check(), Ok(()));
}

#[test]
fn a_constraint_is_bounded_and_makes_sense() {
    let choices = |count, text: &str| Constraint::Choices(vec![text.into(); count]);
    let good = [
        choices(1, "x"),
        choices(Constraint::MAX_CHOICES, "x"),
        Constraint::JsonSchema(r#"{"type":"object"}"#.into()),
        Constraint::JsonSchema("true".into()),
        Constraint::Grammar("root ::= \"x\"".into()),
        // One byte says which kind, and five how long.
        Constraint::Regex("x".repeat(Constraint::MAX_LEN - 6)),
    ];
    for constraint in good {
        assert_eq!(constraint.check(), Ok(()), "{constraint:.80?}");
    }
    let bad = [
        choices(0, "x"),
        choices(Constraint::MAX_CHOICES + 1, "x"),
        Constraint::Choices(vec!["x".into(), String::new()]),
        choices(2, &"x".repeat(Constraint::MAX_LEN / 2)),
        Constraint::JsonSchema(String::new()),
        Constraint::JsonSchema(r#"{"type":"object""#.into()),
        Constraint::JsonSchema("{} {}".into()),
        Constraint::JsonSchema("[".repeat(1000)),
        Constraint::Grammar(String::new()),
        Constraint::Regex(String::new()),
        Constraint::Regex("x".repeat(Constraint::MAX_LEN)),
    ];
    for constraint in bad {
        let error = JobSpec { constraint: Some(constraint.clone()), ..spec() }.check();
        assert!(matches!(error, Err(JobError::Invalid { .. })), "{constraint:.80?}: {error:?}");
    }
}

#[test]
fn a_provider_refuses_what_no_requester_should_have_sent() {
    let mut world = world();
    let broken = Constraint::JsonSchema("{".into());
    world.bend(peer(1), move |frame| match frame {
        Frame::Start(start) => {
            let broken = Constraint::JsonSchema("{".into());
            let order = crate::world::resign(&start.order, 1, |o| o.constraint = Some(broken.digest()));
            let brief = Brief { constraint: Some(broken), ..start.brief };
            vec![Frame::Start(Box::new(Start { order, brief, trace: None }))]
        }
        frame => vec![frame],
    });
    world.submit(peer(1), job_id(1), for_peer(peer(2)));
    assert!(broken.check().is_err() && world.runs(peer(2)).is_empty());
    let refused = |o: &Output| {
        matches!(o, Output::Frame { frame: Frame::Fail { error: JobError::Invalid { .. }, .. }, .. })
    };
    assert!(world.journal.iter().any(|(_, o)| refused(o)));
}

#[test]
fn every_constraint_has_a_name_of_its_own() {
    use proptest::prelude::*;
    proptest!(|(one in any::constraint(), other in any::constraint())| {
        prop_assert_eq!(one == other, one.digest() == other.digest());
    });
}
