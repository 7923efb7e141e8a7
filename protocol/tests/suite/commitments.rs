//! What an exact engine commits to: from the agent into the signed segments, and out of the opening again.
//!
//! A replay checks these digests years later and from a file alone, so what matters here is that nobody can change one
//! after the fact: neither the provider, who signed each segment and names them in the receipt, nor the requester.

use crypto::Digest;
use protocol::event::{Completion, Production};
use protocol::receipt::Mismatch;
use protocol::{Evidence, Finish, Frame, JobError, JobEvent, Opening, Segment, Token};

use crate::values::*;
use crate::world::{World, resign};

fn committed(n: u8) -> Digest {
    Digest::of("test", &[n])
}

/// A provider whose agent answers with `tokens` tokens, and commits to these after so many of them.
fn answering(tokens: u32, activations: &[(u32, u8)]) -> World {
    let said = (0..tokens).map(|index| Production::Token {
        token: token(index),
        activations: activations.iter().find(|(after, _)| *after == index + 1).map(|(_, n)| committed(*n)),
        logprobs: None,
    });
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(1)]);
    let script = [rendered()].into_iter().chain(said).chain([Production::Finished(Finish::Length)]);
    world.script(peer(2), script.collect());
    world
}

fn outcome(mut world: World) -> (World, JobEvent) {
    world.submit(peer(1), job_id(1), for_peer(peer(2)));
    let event = world.finish(job_id(1));
    (world, event)
}

fn completed(world: World) -> Completion {
    let JobEvent::Done(completion) = outcome(world).1 else { panic!("done") };
    *completion
}

#[test]
fn an_agents_commitments_end_in_the_opening_and_are_bound_by_the_receipt() {
    // Those with tokens that end no segment are nobody's.
    let done = completed(answering(70, &[(3, 9), (32, 1), (64, 2), (70, 9)]));
    assert_eq!(done.opening.activations, [committed(1), committed(2)]);
    assert_eq!(done.receipt.check_opening(&done.opening), Ok(()));
    let bent: [&[u8]; 6] = [&[], &[1], &[2], &[2, 1], &[1, 3], &[1, 2, 3]];
    for bent in bent {
        let activations = bent.iter().map(|n| committed(*n)).collect();
        let opening = Opening { activations, ..done.opening.clone() };
        assert_eq!(done.receipt.check_opening(&opening), Err(Mismatch::Segments), "{bent:?}");
    }
}

#[test]
fn an_opening_keeps_its_commitments_as_json_and_does_without_them() {
    let done = completed(answering(32, &[(32, 1)]));
    let text = serde_json::to_string(&done.opening).unwrap();
    assert!(text.contains(&format!("\"activations\":[\"{}\"]", committed(1))), "{text}");
    assert_eq!(serde_json::from_str::<Opening>(&text).unwrap(), done.opening);
    let plain = completed(answering(32, &[]));
    let text = serde_json::to_string(&plain.opening).unwrap();
    assert!(!text.contains("activations"), "{text}");
    assert_eq!(serde_json::from_str::<Opening>(&text).unwrap(), plain.opening);
    assert_eq!(plain.receipt.check_opening(&plain.opening), Ok(()));
}

#[test]
fn the_segments_of_a_receipt_are_those_of_its_opening() {
    let done = completed(answering(70, &[]));
    let mut receipt = done.receipt.value().clone();
    receipt.segments.pop();
    assert_eq!(receipt.check_opening(&done.opening), Err(Mismatch::Segments));
    receipt.segments = done.receipt.segments.clone();
    receipt.segments.swap(0, 1);
    assert_eq!(receipt.check_opening(&done.opening), Err(Mismatch::Segments));
    let third = receipt.segments[0];
    receipt.segments = [done.receipt.segments.clone(), vec![third]].concat();
    assert_eq!(receipt.check_opening(&done.opening), Err(Mismatch::Segments));
}

#[test]
fn an_agent_that_commits_to_some_segments_only_fails_and_its_peer_takes_no_harm() {
    for some in [[(32, 1)], [(64, 2)]] {
        let (world, event) = outcome(answering(70, &some));
        assert!(matches!(event, JobEvent::Failed(JobError::Engine)), "{some:?}: {event:?}");
        assert_eq!(world.evidence(peer(1), peer(2)), []);
    }
}

#[test]
fn a_provider_that_commits_to_some_segments_only_is_blocked() {
    let bends: [fn(&mut Segment); 2] = [
        |s| s.activations = s.activations.filter(|_| s.end == 32),
        |s| s.activations = s.activations.filter(|_| s.end == 64),
    ];
    for bend in bends {
        let mut world = answering(70, &[(32, 1), (64, 2)]);
        world.bend(peer(2), move |frame| match frame {
            Frame::Segment { job, segment } => {
                vec![Frame::Segment { job, segment: resign(&segment, 2, bend) }]
            }
            frame => vec![frame],
        });
        let (world, event) = outcome(world);
        let evidence = Evidence::BadCommitment;
        assert!(matches!(event, JobEvent::Failed(JobError::Misbehaved { evidence: e }) if e == evidence));
        assert_eq!(world.tokens(job_id(1)), 64);
        assert!(world.blocked(peer(1), peer(2)));
    }
}

#[test]
fn a_segment_that_ends_with_held_back_text_is_not_full_and_has_no_commitment() {
    let mut world = answering(0, &[]);
    let tokens = (0..63).map(|index| Production::Token {
        token: token(index),
        activations: (index == 31).then(|| committed(1)),
        logprobs: None,
    });
    let rest = Production::from(Token { id: None, text: "rest".to_owned() });
    let script = tokens.chain([rest, Production::Finished(Finish::Length)]);
    world.script(peer(2), script.collect());
    let done = completed(world);
    assert_eq!((done.receipt.segments.len(), done.opening.activations.len()), (2, 1));
    assert_eq!(done.receipt.check_opening(&done.opening), Ok(()));
}
