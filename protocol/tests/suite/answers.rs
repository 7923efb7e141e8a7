//! What may be an answer: tokens with ids, at the most one piece without, and no more text than a requester can keep.
//!
//! Whoever pays by the token must not be sent tokens that are none. The same rules hold three times: a provider does not
//! send what breaks them, a requester does not take it, and no opening of it is believed.

use crypto::Transcript;
use protocol::event::{Production, Side};
use protocol::receipt::{Mismatch, SEGMENT, Segment, SignedStretch};
use protocol::{
    AgentOffer, Event, Evidence, Finish, Frame, JobError, JobEvent, JobKind, JobSpec, Opening, Token,
};

use crate::values::*;
use crate::world::World;

fn piece(id: Option<u32>, text: &str) -> Token {
    Token { id, text: text.into() }
}

/// Peer 1 has a job at peer 2, whose agent, or whose frames, we play.
fn ordered(max_tokens: u32) -> World {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(1)]);
    world.script(peer(2), Vec::new());
    let mut spec = for_peer(peer(2));
    spec.sampling.max_tokens = max_tokens;
    world.submit(peer(1), job_id(1), spec);
    world
}

/// The agent of an honest provider answers so; the provider passes on what it may.
fn produced(world: &mut World, tokens: &[Token]) {
    let run = world.runs(peer(2))[0].run;
    for token in tokens {
        world.produce(peer(2), run, Production::from(token.clone()));
    }
    world.produce(peer(2), run, Production::Finished(Finish::Stop));
}

/// A provider whose program was changed sends all of this; after the first `signed`, which its agent produced.
fn sent(world: &mut World, tokens: &[Token], signed: usize) {
    let run = world.runs(peer(2))[0].run;
    let mut transcript = Transcript::new(&job_id(1).0);
    for (index, token) in tokens.iter().cloned().enumerate() {
        let commitment = transcript.push(token.id, &token.text);
        if index < signed {
            world.produce(peer(2), run, Production::from(token));
        } else {
            let frame =
                Frame::Token { job: job_id(1), index: index as u64, token, commitment, logprobs: None };
            world.deliver(peer(1), Event::Frame { from: peer(2), side: Side::Requester, frame });
        }
    }
}

fn failed_with(world: &World) -> JobError {
    let Some(JobEvent::Failed(error)) = world.outcome(job_id(1)) else { panic!("failed") };
    error
}

#[test]
fn an_answer_cannot_be_padded_with_pieces_that_no_replay_sees() {
    let long = "x".repeat(Token::MAX_TEXT + 1);
    let padded: [(usize, &[Token]); 6] = [
        (0, &[piece(None, "w")]),
        (0, &[piece(None, "")]),
        (1, &[piece(Some(0), "w"), piece(None, "")]),
        (2, &[piece(Some(0), "w"), piece(None, "w"), piece(None, "w")]),
        (2, &[piece(Some(0), "w"), piece(None, "w"), piece(Some(1), "w")]),
        (1, &[piece(Some(0), "w"), piece(Some(1), &long)]),
    ];
    for (good, tokens) in padded {
        let mut puppet = ordered(100);
        sent(&mut puppet, tokens, 0);
        let error = failed_with(&puppet);
        assert_eq!(error, JobError::Misbehaved { evidence: Evidence::Unexpected }, "piece {good}");
        assert_eq!(puppet.evidence(peer(1), peer(2)), [(Evidence::Unexpected, 1)]);
        assert_eq!(puppet.tokens(job_id(1)), good);

        let mut honest = ordered(100);
        produced(&mut honest, tokens);
        assert_eq!(failed_with(&honest), JobError::Engine, "piece {good} is not even sent");
        assert!(honest.aborted(peer(2), honest.runs(peer(2))[0].run));
        assert_eq!(honest.tokens(job_id(1)), good);
        assert_eq!(honest.evidence(peer(1), peer(2)), []);
    }
}

#[test]
fn a_piece_that_was_held_back_is_the_last_and_may_lack_an_id() {
    let longest = "x".repeat(Token::MAX_TEXT);
    let tokens = [piece(Some(0), ""), piece(Some(1), &longest), piece(None, "w")];
    let mut world = ordered(2);
    produced(&mut world, &tokens);
    let Some(JobEvent::Done(completion)) = world.outcome(job_id(1)) else { panic!("done") };
    assert_eq!(completion.opening.output, tokens);
}

#[test]
fn an_agent_without_a_model_answers_in_pieces() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![AgentOffer { model: None, ..text_offer(1000) }]);
    let pieces = ["a", "", "b"].map(|text| Production::from(piece(None, text)));
    world.script(peer(2), pieces.into_iter().chain([Production::Finished(Finish::EndOfText)]).collect());
    world.submit(peer(1), job_id(1), spec());
    let JobEvent::Done(completion) = world.finish(job_id(1)) else { panic!("done") };
    assert_eq!(completion.receipt.check_opening(&completion.opening), Ok(()));
}

#[test]
fn a_vector_comes_in_pieces_without_ids_although_a_model_made_it() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![AgentOffer { kinds: vec![JobKind::Embed], ..text_offer(1000) }]);
    let pieces = ["[0.6,", "0.8]"].map(|text| Production::from(piece(None, text)));
    world.script(peer(2), pieces.into_iter().chain([Production::Finished(Finish::EndOfText)]).collect());
    world.submit(peer(1), job_id(1), JobSpec { kind: JobKind::Embed, ..spec() });
    let JobEvent::Done(completion) = world.finish(job_id(1)) else { panic!("done") };
    assert!(completion.receipt.model.is_some());
    assert_eq!(completion.receipt.check_opening(&completion.opening), Ok(()));
}

/// As much text as a whole answer may have, and one byte more.
fn too_much() -> Vec<Token> {
    let block = piece(Some(0), &"x".repeat(Token::MAX_TEXT));
    let mut tokens = vec![block; Token::MAX_ANSWER / Token::MAX_TEXT];
    tokens.push(piece(Some(0), "x"));
    tokens
}

#[test]
fn a_whole_answer_has_a_longest_text() {
    let tokens = too_much();
    let full = tokens.len() - 1;
    let mut world = ordered(1000);
    produced(&mut world, &tokens[..full]);
    assert!(matches!(world.outcome(job_id(1)), Some(JobEvent::Done(_))), "exactly so much is fine");

    let mut world = ordered(1000);
    produced(&mut world, &tokens);
    assert_eq!((failed_with(&world), world.tokens(job_id(1))), (JobError::Engine, full));
    assert_eq!(world.evidence(peer(1), peer(2)), []);

    let mut world = ordered(1000);
    sent(&mut world, &tokens, full);
    assert_eq!(failed_with(&world), JobError::Misbehaved { evidence: Evidence::OverCap });
    assert_eq!(world.tokens(job_id(1)), full);
}

/// Whether a receipt that is right but for its answer, which is this, can be opened.
fn opens(output: Vec<Token>) -> Result<(), Mismatch> {
    let mut world = ordered(100);
    produced(&mut world, &[piece(Some(0), "w")]);
    let Some(JobEvent::Done(completion)) = world.outcome(job_id(1)) else { panic!("done") };
    let mut receipt = completion.receipt.value().clone();
    let mut transcript = Transcript::new(&job_id(1).0);
    for token in &output {
        let commitment = transcript.push(token.id, &token.text);
        let end = transcript.len();
        if end.is_multiple_of(SEGMENT) {
            let segment =
                Segment { job: job_id(1), order: receipt.order, end, commitment, activations: None };
            receipt.segments.push(SignedStretch {
                provider: peer(2),
                order: receipt.order,
                end,
                segment: segment.name(peer(2)),
            });
        }
    }
    receipt.output = transcript.commitment();
    receipt.usage.completion_tokens = output.len() as u32;
    receipt.cost = receipt.price.cost(receipt.usage).unwrap();
    receipt.check_opening(&Opening { output, ..completion.opening })
}

#[test]
fn an_opening_of_what_may_not_be_an_answer_opens_nothing() {
    let long = "x".repeat(Token::MAX_TEXT + 1);
    let held_back = vec![piece(Some(0), "w"), piece(None, "w")];
    assert_eq!(opens(held_back.clone()), Ok(()));
    assert_eq!(opens([held_back, vec![piece(None, "w")]].concat()), Err(Mismatch::Output));
    assert_eq!(opens(vec![piece(Some(0), "w"), piece(None, "")]), Err(Mismatch::Output));
    assert_eq!(opens(vec![piece(None, "w")]), Err(Mismatch::Output));
    assert_eq!(opens(vec![piece(Some(0), &long)]), Err(Mismatch::Output));
    let mut tokens = too_much();
    assert_eq!(opens(tokens.clone()), Err(Mismatch::Output));
    tokens.pop();
    assert_eq!(opens(tokens), Ok(()));
}
