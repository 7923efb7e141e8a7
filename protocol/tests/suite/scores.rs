//! How likely tokens are: beside an answer, where nothing commits to it, and as an answer of its own.

use proptest::prelude::*;
use protocol::event::Production;
use protocol::{
    Alternative, Evidence, Finish, Frame, Input, JobError, JobEvent, JobKind, JobSpec, Logprobs, Sampling,
    Scores, Token, error::Feature,
};

use crate::values::*;
use crate::world::World;
use crate::{any, samples};

fn alternatives(count: u32) -> Vec<Alternative> {
    (0..count).map(|id| Alternative { id, text: format!(" w{id}"), logprob: -0.5 }).collect()
}

fn logprobs(count: u32) -> Option<Logprobs> {
    Some(Logprobs { logprob: -0.5, top: alternatives(count) })
}

/// Peer 2 works for peer 1, and its agent says one token with these.
fn saying(ordered: Option<u8>, said: Option<Logprobs>) -> World {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(1)]);
    let token = Production::Token { token: token(0), activations: None, logprobs: said };
    world.script(peer(2), vec![rendered(), token, Production::Finished(Finish::EndOfText)]);
    let mut spec = for_peer(peer(2));
    spec.sampling.logprobs = ordered;
    world.submit(peer(1), job_id(1), spec);
    world
}

#[test]
fn what_was_ordered_comes_with_each_token_and_is_not_committed_to() {
    let mut plain = saying(None, None);
    let mut world = saying(Some(2), logprobs(2));
    let JobEvent::Done(without) = plain.finish(job_id(1)) else { panic!("done") };
    let JobEvent::Done(with) = world.finish(job_id(1)) else { panic!("done") };
    assert_eq!(with.receipt.output, without.receipt.output);
    assert_eq!(with.receipt.check_opening(&with.opening), Ok(()));
    let told = world.events(job_id(1)).into_iter().find_map(|event| match event {
        JobEvent::Token { logprobs, .. } => Some(logprobs.clone()),
        _ => None,
    });
    assert_eq!(told, Some(logprobs(2)));
}

#[test]
fn what_was_not_ordered_does_not_come_and_what_was_must() {
    let long = Logprobs::MAX_TEXT as u32 / 8;
    let heavy = Alternative { text: "x".repeat(Logprobs::MAX_TEXT / 2 + 1), ..alternatives(1)[0].clone() };
    let odd = Alternative { logprob: f32::NEG_INFINITY, ..alternatives(1)[0].clone() };
    let with = |top| Some(Logprobs { logprob: -0.5, top });
    let bad = [
        (None, logprobs(0)),
        (Some(2), None),
        (Some(2), logprobs(3)),
        (Some(20), logprobs(long)),
        (Some(2), with(vec![heavy.clone(), heavy])),
        (Some(2), with(vec![odd])),
        (Some(2), Some(Logprobs { logprob: f32::NAN, top: Vec::new() })),
    ];
    for (ordered, said) in bad {
        let mut honest = saying(ordered, said.clone());
        let JobEvent::Failed(error) = honest.finish(job_id(1)) else { panic!("{ordered:?}") };
        assert_eq!(error, JobError::Engine, "what its requester would refuse is not sent");
        assert_eq!(honest.evidence(peer(1), peer(2)), []);

        let mut world = World::of(2);
        world.offer(peer(2), vec![text_offer(1)]);
        let right = ordered.and_then(|_| logprobs(1));
        let token = Production::Token { token: token(0), activations: None, logprobs: right };
        world.script(peer(2), vec![rendered(), token, Production::Finished(Finish::EndOfText)]);
        world.bend(peer(2), move |frame| match frame {
            Frame::Token { job, index, token, commitment, .. } => {
                vec![Frame::Token { job, index, token, commitment, logprobs: said.clone() }]
            }
            frame => vec![frame],
        });
        let mut spec = for_peer(peer(2));
        spec.sampling.logprobs = ordered;
        world.submit(peer(1), job_id(1), spec);
        let evidence = Evidence::Unexpected;
        let failed = world.finish(job_id(1));
        assert!(
            matches!(failed, JobEvent::Failed(JobError::Misbehaved { evidence: e }) if e == evidence),
            "{failed:?}"
        );
    }
}

#[test]
fn text_that_was_held_back_has_no_likelihood() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(1)]);
    let token = Production::Token { token: token(0), activations: None, logprobs: logprobs(1) };
    let rest = Production::from(Token { id: None, text: "rest".into() });
    world.script(peer(2), vec![rendered(), token, rest, Production::Finished(Finish::Length)]);
    let mut spec = for_peer(peer(2));
    spec.sampling.logprobs = Some(1);
    world.submit(peer(1), job_id(1), spec);
    assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
}

#[test]
fn the_most_that_may_come_with_a_token_fits_its_frame() {
    let text = |len| "x".repeat(len);
    let count = usize::from(Logprobs::MAX_TOP);
    let each = Alternative { id: u32::MAX, text: text(Logprobs::MAX_TEXT / count), logprob: -1.0 };
    let logprobs = Logprobs { logprob: -1.0, top: vec![each; count] };
    let token = Token { id: Some(u32::MAX), text: text(Token::MAX_TEXT) };
    let sampling = Sampling { logprobs: Some(Logprobs::MAX_TOP), ..Sampling::default() };
    assert!(Logprobs::may_come(Some(&logprobs), &token, &sampling));
    let commitment = samples::beginning();
    let frame = Frame::Token { job: job_id(1), index: u64::MAX, token, commitment, logprobs: Some(logprobs) };
    let bytes = protocol::Message::to_bytes(&frame);
    assert!(<Frame as protocol::Message>::from_bytes(&bytes).is_ok());
}

#[test]
fn sampling_bounds_choices_and_alternatives() {
    let check = |change: fn(&mut Sampling)| {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        sampling.check()
    };
    assert_eq!(check(|s| (s.logprobs, s.choice) = (Some(20), 127)), Ok(()));
    assert!(matches!(check(|s| s.logprobs = Some(21)), Err(JobError::Invalid { .. })));
    assert_eq!(check(|s| s.choice = 128), Err(JobError::Unsupported { feature: Feature::Choices }));
}

#[test]
fn a_score_comes_in_pieces_without_ids() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(1)]);
    let spec = JobSpec { kind: JobKind::Score, ..spec() };
    let pieces = samples::scores().pieces(&spec.sampling).unwrap().into_iter().map(Production::from);
    world.script(peer(2), pieces.chain([Production::Finished(Finish::EndOfText)]).collect());
    world.submit(peer(1), job_id(1), spec);
    let JobEvent::Done(completion) = world.finish(job_id(1)) else { panic!("done") };
    assert_eq!(completion.receipt.check_opening(&completion.opening), Ok(()));
    let text: String = completion.opening.output.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(Scores::parse(&text), Some(samples::scores()));
}

#[test]
fn what_is_scored_is_a_text_or_tokens_of_a_named_model() {
    let score = |input| JobSpec { kind: JobKind::Score, input, ..spec() };
    assert_eq!(score(Input::Text("x".into())).check(), Ok(()));
    let chat = score(samples::input()).check();
    assert_eq!(chat, Err(JobError::Unsupported { feature: Feature::Input }));
    let mut tokens = score(Input::Tokens(vec![1]));
    assert!(matches!(tokens.check(), Err(JobError::Invalid { .. })), "whose ids?");
    tokens.requirement.model = Some(crypto::Digest::of_content(b"tiny"));
    assert_eq!(tokens.check(), Ok(()));
}

#[test]
fn nobody_who_only_generates_is_asked_to_score() {
    let mut writer = text_offer(1);
    writer.kinds = vec![JobKind::Generate];
    let score = JobSpec { kind: JobKind::Score, ..spec() };
    for spec in [score.clone(), JobSpec { provider: Some(peer(2)), ..score.clone() }] {
        let mut world = World::of(3);
        world.offer(peer(2), vec![writer.clone()]);
        world.submit(peer(1), job_id(1), spec);
        let JobEvent::Failed(error) = world.finish(job_id(1)) else { panic!("failed") };
        assert_eq!(error, JobError::Unsupported { feature: Feature::JobKind });
        assert!(world.runs(peer(2)).is_empty());
    }
    let mut world = World::of(3);
    world.offer(peer(2), vec![writer]);
    world.offer(peer(3), vec![text_offer(9)]);
    world.script(peer(3), vec![Production::Finished(Finish::EndOfText)]);
    world.submit(peer(1), job_id(1), score);
    world.finish(job_id(1));
    assert_eq!(world.started(job_id(1)), [peer(3)]);
}

#[test]
fn a_score_that_would_be_too_long_is_refused_with_a_way_out() {
    let sampling = |logprobs, max_tokens| Sampling { logprobs, max_tokens, ..Sampling::default() };
    assert_eq!(Scores::check_size(Scores::MAX_ENTRIES, &sampling(None, 1)), Ok(()));
    assert_eq!(Scores::check_size(Scores::MAX_ENTRIES / 21, &sampling(Some(20), 1)), Ok(()));
    let refused = Scores::check_size(Scores::MAX_ENTRIES / 21 + 1, &sampling(Some(20), 1));
    assert!(refused.is_err_and(|error| error.to_string().contains("in parts")));

    let some = |count: usize, text: &str| Scores {
        tokens: vec![u32::MAX; count],
        texts: vec![text.into(); count],
        logprobs: [None].into_iter().chain(vec![Some(-1.0); count - 1]).collect(),
        top: [None].into_iter().chain(vec![Some(Vec::new()); count - 1]).collect(),
    };
    let long = some(1000, &"é\u{1}".repeat(20));
    let pieces = long.pieces(&sampling(Some(0), 100)).unwrap();
    assert!(pieces.len() > 1 && pieces.iter().all(|p| p.id.is_none() && p.text.len() <= Token::MAX_TEXT));
    let text: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
    assert_eq!(Scores::parse(&text), Some(long.clone()));
    let short = u32::try_from(pieces.len()).unwrap() - 1;
    assert!(matches!(long.pieces(&sampling(Some(0), short)), Err(JobError::Invalid { .. })));
    let endless = some(2, &"x".repeat(Token::MAX_ANSWER / 2));
    assert!(matches!(endless.pieces(&sampling(Some(0), 9999)), Err(JobError::Invalid { .. })));
}

#[test]
fn lists_that_do_not_belong_together_are_no_answer() {
    let bends: [fn(&mut Scores); 6] = [
        |s| drop(s.texts.pop()),
        |s| s.logprobs.truncate(s.logprobs.len() - 1),
        |s| drop(s.top.pop()),
        |s| s.logprobs[0] = Some(-1.0),
        |s| s.logprobs[1] = None,
        |s| s.top[1] = None,
    ];
    for bend in bends {
        let mut scores = samples::scores();
        bend(&mut scores);
        assert_eq!(scores.pieces(&Sampling::default()), Err(JobError::Engine));
        assert_eq!(Scores::parse(&serde_json::to_string(&scores).unwrap()), None);
    }
    assert_eq!(Scores::parse("[0.6,0.8]"), None);
}

proptest! {
    #[test]
    fn every_score_is_read_as_it_was_written(
        rows in prop::collection::vec((any::<u32>(), ".{0,9}", -90.0_f32..0.0, any::alternatives()), 1..9)
    ) {
        let mut scores = Scores::default();
        for (at, (id, text, logprob, top)) in rows.into_iter().enumerate() {
            scores.tokens.push(id);
            scores.texts.push(text);
            scores.logprobs.push((at > 0).then_some(logprob));
            scores.top.push((at > 0).then_some(top));
        }
        let pieces = scores.pieces(&Sampling::default()).unwrap();
        let text: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
        prop_assert_eq!(Scores::parse(&text), Some(scores));
    }
}
