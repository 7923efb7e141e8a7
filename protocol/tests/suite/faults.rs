//! Providers that break the rules: what the requester throws away, and whom it blocks.

use crypto::{Commitment, Digest, Network};
use protocol::error::{Feature, Limit};
use protocol::event::{Production, Side};
use protocol::{
    Continuation, Credits, Event, Evidence, Finish, Frame, JobError, JobEvent, JobKind, Output, Receipt,
    Request, Usage,
};

use crate::values::*;
use crate::world::{World, forge, resign};

/// Peer 1 has a job with the honest peer 3 (job 9, unfinished) and one with peer 2 (job 1), whose frames are bent.
fn provider_bent(tokens: u32, bend: impl FnMut(Frame) -> Vec<Frame> + 'static) -> World {
    let mut world = World::of(3);
    for seed in [2, 3] {
        world.offer(peer(seed), vec![text_offer(1000)]);
    }
    world.script(peer(3), Vec::new());
    world.submit(peer(1), job_id(9), for_peer(peer(3)));
    world.script(peer(2), answer(tokens));
    world.bend(peer(2), bend);
    world.submit(peer(1), job_id(1), for_peer(peer(2)));
    world
}

fn the_other_is_unharmed(world: &mut World) {
    let run = world.runs(peer(3))[0].run;
    for production in answer(40) {
        world.produce(peer(3), run, production);
    }
    assert!(matches!(world.outcome(job_id(9)), Some(JobEvent::Done(_))), "another session is unharmed");
    assert_eq!(world.evidence(peer(1), peer(3)), [(Evidence::Delivered, 1)]);
}

/// The job failed by the provider's fault, which blocks it; nothing is owed.
fn convicts(mut world: World, evidence: Evidence) -> World {
    let Some(JobEvent::Failed(error)) = world.outcome(job_id(1)) else { panic!("failed at once") };
    assert_eq!(error, JobError::Misbehaved { evidence });
    assert_eq!(world.evidence(peer(1), peer(2)), [(evidence, 1)]);
    assert!(world.blocked(peer(1), peer(2)));
    assert_eq!(world.peer(peer(1)).ledger().account(&peer(2)).spent, Credits::ZERO);
    the_other_is_unharmed(&mut world);
    world
}

/// Rewrites the token frame with this index.
fn at(index: u64, mut bend: impl FnMut(Frame) -> Vec<Frame> + 'static) -> impl FnMut(Frame) -> Vec<Frame> {
    move |frame| match frame {
        Frame::Token { index: i, .. } if i == index => bend(frame),
        frame => vec![frame],
    }
}

/// Rewrites the receipt and signs it again.
fn receipt(change: fn(&mut Receipt)) -> impl FnMut(Frame) -> Vec<Frame> {
    move |frame| match frame {
        Frame::Finish { job, receipt } => vec![Frame::Finish { job, receipt: resign(&receipt, 2, change) }],
        frame => vec![frame],
    }
}

#[test]
fn a_provider_that_skips_an_index_is_blocked_at_that_token() {
    let world = convicts(provider_bent(8, at(3, |_| vec![])), Evidence::SkippedIndex);
    assert_eq!(world.tokens(job_id(1)), 3, "and nothing after the gap reached the user");
}

#[test]
fn a_provider_that_repeats_an_index_is_blocked() {
    convicts(provider_bent(8, at(3, |frame| vec![frame.clone(), frame])), Evidence::SkippedIndex);
}

#[test]
fn a_provider_that_answers_longer_than_ordered_is_blocked() {
    let mut world = provider_bent(0, |frame| vec![frame]);
    world.script(peer(2), Vec::new());
    let mut short = for_peer(peer(2));
    short.sampling.max_tokens = 1;
    world.submit(peer(1), job_id(2), short);
    let mut transcript = crypto::Transcript::new(&job_id(2).0);
    for index in 0..3 {
        let (token, commitment) = (token(index), transcript.push(Some(index), &token(index).text));
        let frame = Frame::Token { job: job_id(2), index: index.into(), token, commitment, logprobs: None };
        world.deliver(peer(1), Event::Frame { from: peer(2), side: Side::Requester, frame });
    }
    assert!(world.blocked(peer(1), peer(2)));
    assert_eq!(world.tokens(job_id(2)), 2, "the token, and the piece that may be held back");
}

#[test]
fn a_token_whose_text_or_id_was_changed_is_caught_at_that_token() {
    for changed in [
        protocol::Token { id: Some(3), text: " lie".into() },
        protocol::Token { id: None, text: " w3".into() },
    ] {
        let bend = at(3, move |frame| match frame {
            Frame::Token { job, index, commitment, logprobs, .. } => {
                vec![Frame::Token { job, index, token: changed.clone(), commitment, logprobs }]
            }
            frame => vec![frame],
        });
        let world = convicts(provider_bent(8, bend), Evidence::BadCommitment);
        assert_eq!(world.tokens(job_id(1)), 3);
    }
}

#[test]
fn a_wrong_commitment_is_caught_at_that_token() {
    let bend = at(0, |frame| match frame {
        Frame::Token { job, index, token, logprobs, .. } => {
            let commitment = Commitment(Digest::of("test", b"wrong"));
            vec![Frame::Token { job, index, token, commitment, logprobs }]
        }
        frame => vec![frame],
    });
    let world = convicts(provider_bent(8, bend), Evidence::BadCommitment);
    assert_eq!(world.tokens(job_id(1)), 0);
}

fn segment(
    bend: impl Fn(crypto::Signed<protocol::Segment>) -> Vec<crypto::Signed<protocol::Segment>> + 'static,
) -> impl FnMut(Frame) -> Vec<Frame> {
    move |frame| match frame {
        Frame::Segment { job, segment } => {
            bend(segment).into_iter().map(|segment| Frame::Segment { job, segment }).collect()
        }
        frame => vec![frame],
    }
}

#[test]
fn a_segment_that_says_something_else_than_the_stream_blocks_its_provider() {
    let changes: [fn(&mut protocol::Segment); 4] = [
        |s| s.end = 31,
        |s| s.commitment = Commitment(Digest::of("test", b"wrong")),
        |s| s.order = Digest::of("test", b"order"),
        |s| s.job = job_id(3),
    ];
    for change in changes {
        convicts(provider_bent(40, segment(move |s| vec![resign(&s, 2, change)])), Evidence::BadCommitment);
    }
    convicts(provider_bent(40, segment(|s| vec![forge(&s)])), Evidence::BadSignature);
    convicts(provider_bent(40, segment(|s| vec![resign(&s, 3, |_| ())])), Evidence::BadSignature);
    convicts(provider_bent(40, segment(|s| vec![s.clone(), s])), Evidence::BadCommitment);
}

#[test]
fn a_provider_that_does_not_sign_its_segments_gets_no_acknowledgement() {
    convicts(provider_bent(40, segment(|_| vec![])), Evidence::BadCommitment);
}

#[test]
fn a_receipt_with_any_bent_field_that_the_requester_knows_is_refused() {
    type Change = fn(&mut Receipt);
    let changes: [(&str, Change); 25] = [
        ("network", |r| r.network = "test".parse().unwrap()),
        ("job", |r| r.job = job_id(5)),
        ("parent", |r| r.parent = Some(job_id(5))),
        ("kind", |r| r.kind = JobKind::Score),
        ("requester", |r| r.requester = peer(3)),
        ("order", |r| r.order = Digest::of("test", b"x")),
        ("agent", |r| r.agent = "other".into()),
        ("capability", |r| r.capability = capability("text")),
        ("model", |r| r.model = None),
        ("input", |r| r.input = Digest::of("test", b"x")),
        ("sampling", |r| r.sampling.seed = 1),
        ("output", |r| r.output = Commitment(Digest::of("test", b"x"))),
        ("segments", |r| r.segments.clear()),
        ("segments", |r| r.segments[0].segment = Digest::of("test", b"x")),
        ("usage", |r| r.usage = Usage { completion_tokens: 41, ..r.usage }),
        ("price", |r| r.price = price(0, 2000)),
        ("cost", |r| r.cost = Credits(41)),
        ("cost", |r| r.cost = Credits(39)),
        ("cost", |r| (r.price, r.cost) = (price(0, 0), Credits(0))),
        ("constraint", |r| r.constraint = Some(Digest::of("test", b"x"))),
        ("prompt", |r| r.prompt = Some(Digest::of("test", b"x"))),
        ("prompt", |r| r.usage.prompt_tokens = 4),
        ("template_time", |r| r.template_time = 1),
        ("segments", |r| r.segments[0].order = Digest::of("test", b"x")),
        ("continues", |r| {
            let commitment = Commitment(Digest::of("test", b"x"));
            r.continues = Some(Continuation { tokens: 0, commitment, rendering: rendering() });
        }),
    ];
    for (field, change) in changes {
        let world = provider_bent(40, receipt(change));
        assert!(world.outcome(job_id(1)).is_some(), "{field}");
        convicts(world, Evidence::BadReceipt);
    }
}

#[test]
fn a_receipt_claims_some_things_that_only_a_replay_can_judge() {
    let claims: [fn(&mut Receipt); 4] = [
        |r| r.engine = Some("other/1".into()),
        |r| r.finish = Finish::Stop,
        |r| r.started.0 -= 1,
        |r| r.children.push(Digest::of("test", b"x")),
    ];
    for claim in claims {
        let mut world = provider_bent(40, receipt(claim));
        assert!(matches!(world.outcome(job_id(1)), Some(JobEvent::Done(_))));
        the_other_is_unharmed(&mut world);
    }
}

#[test]
fn a_receipt_that_is_not_signed_by_the_provider_for_this_network_blocks_it() {
    let finish = |bend: fn(crypto::Signed<Receipt>) -> crypto::Signed<Receipt>| {
        move |frame| match frame {
            Frame::Finish { job, receipt } => vec![Frame::Finish { job, receipt: bend(receipt) }],
            frame => vec![frame],
        }
    };
    convicts(provider_bent(8, finish(|r| forge(&r))), Evidence::BadSignature);
    convicts(provider_bent(8, finish(|r| resign(&r, 3, |_| ()))), Evidence::BadReceipt);
    let other = finish(|r| {
        let value = r.verify(&Network::default()).unwrap().value().clone();
        crypto::Signed::sign(&"test".parse().unwrap(), &key(2), value).into_signed()
    });
    convicts(provider_bent(8, other), Evidence::BadSignature);
}

#[test]
fn a_receipt_for_an_answer_that_was_cut_short_on_the_way_is_refused() {
    convicts(provider_bent(8, at(7, |_| vec![])), Evidence::BadReceipt);
}

#[test]
fn a_provider_that_falls_silent_is_given_up_and_not_blocked() {
    let mut world = provider_bent(8, at(3, |_| vec![]));
    assert!(world.outcome(job_id(1)).is_some());
    world = provider_bent(8, |frame| match frame {
        Frame::Token { index: 0, .. } => vec![frame],
        _ => vec![],
    });
    world.elapse(199);
    assert!(world.outcome(job_id(1)).is_none(), "it is asked after 100 ms, and has another 100 to answer");
    world.elapse(1);
    assert!(matches!(world.outcome(job_id(1)), Some(JobEvent::Failed(JobError::ProviderLost))));
    assert_eq!(world.evidence(peer(1), peer(2)), [(Evidence::Stalled, 1)]);
    assert!(!world.blocked(peer(1), peer(2)));
    the_other_is_unharmed(&mut world);
}

#[test]
fn a_frame_that_only_a_requester_sends_ends_the_session() {
    let bend = |frame| match frame {
        Frame::Progress { .. } | Frame::Token { .. } => vec![Frame::Cancel { job: job_id(1) }],
        _ => vec![],
    };
    let mut world = provider_bent(1, bend);
    assert_eq!(world.evidence(peer(1), peer(2)), [(Evidence::Unexpected, 1)]);
    assert!(!world.blocked(peer(1), peer(2)), "a little sloppiness is forgiven");
    the_other_is_unharmed(&mut world);
}

#[test]
fn nobody_speaks_for_another_provider() {
    let mut world = provider_bent(8, |_| vec![]);
    let error = JobError::Engine;
    for job in [1, 9] {
        let frame = Frame::Fail { job: job_id(job), error: error.clone() };
        world.deliver(peer(1), Event::Frame { from: peer(8), side: Side::Requester, frame });
    }
    assert!(world.outcome(job_id(1)).is_none() && world.outcome(job_id(9)).is_none());
    the_other_is_unharmed(&mut world);
}

/// Two providers for one job of peer 1: first the cheap 2, then 3.
fn two_for_one(productions: Vec<Production>) -> World {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.offer(peer(3), vec![text_offer(2000)]);
    world.script(peer(2), productions);
    world.submit(peer(1), job_id(1), spec());
    world
}

#[test]
fn when_a_provider_is_lost_before_its_first_token_another_takes_over() {
    let mut world = two_for_one(vec![rendered()]);
    world.unplug(peer(2));
    let JobEvent::Done(completion) = world.finish(job_id(1)) else { panic!("done") };
    assert_eq!(world.started(job_id(1)), [peer(2), peer(3)]);
    assert_eq!(completion.receipt.signer(), peer(3));
    assert_eq!(world.evidence(peer(1), peer(2)), [(Evidence::Vanished, 1)]);
    assert!(!world.blocked(peer(1), peer(2)), "it may be the network's fault");
}

#[test]
fn when_a_provider_misbehaves_before_its_first_token_another_takes_over() {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.offer(peer(3), vec![text_offer(2000)]);
    world.bend(peer(2), at(0, |_| vec![]));
    world.submit(peer(1), job_id(1), spec());
    assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
    assert_eq!(world.started(job_id(1)), [peer(2), peer(3)]);
    assert!(world.blocked(peer(1), peer(2)));
}

#[test]
fn an_agent_that_fails_before_its_first_token_is_no_evidence_and_another_takes_over() {
    let mut world = two_for_one(vec![rendered(), Production::Failed(JobError::Engine)]);
    assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
    assert_eq!(world.started(job_id(1)), [peer(2), peer(3)]);
    assert_eq!(world.evidence(peer(1), peer(2)), []);
}

#[test]
fn a_refusal_of_one_provider_is_not_the_meshs_whatever_it_says() {
    let refusals = [
        JobError::ContextExceeded { tokens: 9000, context: 2048 },
        JobError::Limit { limit: Limit::Budget },
        JobError::Unsupported { feature: Feature::Input },
        JobError::invalid("stop", "is too long for this engine"),
    ];
    for refusal in refusals {
        assert!(!refusal.retryable());
        let mut world = two_for_one(vec![Production::Failed(refusal)]);
        assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
        assert_eq!(world.started(job_id(1)), [peer(2), peer(3)]);
        assert_eq!(world.evidence(peer(1), peer(2)), [], "to refuse is no fault");
    }
}

#[test]
fn when_nobody_is_left_the_user_sees_the_last_refusal() {
    let refusal = |tokens| JobError::ContextExceeded { tokens, context: 2048 };
    for peers in [2, 3] {
        let mut world = World::of(peers);
        for seed in 2..=peers {
            world.offer(peer(seed), vec![text_offer(1000 * u64::from(seed))]);
            world.script(peer(seed), vec![Production::Failed(refusal(seed.into()))]);
        }
        world.submit(peer(1), job_id(1), spec());
        let JobEvent::Failed(error) = world.finish(job_id(1)) else { panic!("failed") };
        assert_eq!(error, refusal(peers.into()));
    }
}

#[test]
fn the_end_of_the_job_is_the_end_for_every_provider() {
    for end in [JobError::Cancelled, JobError::DeadlineExceeded] {
        let world = two_for_one(vec![Production::Failed(end.clone())]);
        let Some(JobEvent::Failed(error)) = world.outcome(job_id(1)) else { panic!("failed") };
        assert_eq!(error, end);
        assert_eq!(world.started(job_id(1)), [peer(2)]);
    }
}

#[test]
fn what_a_slow_clock_or_a_full_server_also_causes_never_blocks() {
    let mut world = provider_bent(8, |frame| vec![frame]);
    for evidence in [Evidence::BrokenLease, Evidence::Expired] {
        for _ in 0..1000 {
            world.deliver(peer(1), Event::Misbehaved { peer: peer(2), evidence });
        }
    }
    assert!(!world.blocked(peer(1), peer(2)));
    assert!(world.peer(peer(1)).reputation().faults(&peer(2)) >= 2000, "but it ranks behind others");
}

#[test]
fn a_blocked_peer_is_not_heard_and_the_driver_is_told_again() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(0)]);
    world.deliver(peer(2), Event::Misbehaved { peer: peer(1), evidence: Evidence::BadReceipt });
    let blocks =
        |world: &World| world.journal.iter().filter(|(_, o)| matches!(o, Output::Block { .. })).count();
    assert_eq!(blocks(&world), 1);
    world.request(peer(2), peer(1), Request::Profile);
    assert_eq!(blocks(&world), 2);
    let start = Frame::Cancel { job: job_id(1) };
    world.deliver(peer(2), Event::Frame { from: peer(1), side: Side::Provider, frame: start });
    assert_eq!(blocks(&world), 3);
    let answered = |o: &Output| matches!(o, Output::Respond { .. } | Output::Frame { .. } | Output::Run(_));
    assert!(!world.journal.iter().any(|(who, o)| *who == peer(2) && answered(o)));
}

#[test]
fn a_peer_hears_itself_whatever_it_knows_against_itself() {
    let mut world = World::of(1);
    world.offer(peer(1), vec![text_offer(1000)]);
    world.deliver(peer(1), Event::Misbehaved { peer: peer(1), evidence: Evidence::BadReceipt });
    for (n, spec) in [(1, spec()), (2, auction()), (3, for_peer(peer(1)))] {
        world.submit(peer(1), job_id(n), spec);
        assert!(matches!(world.finish(job_id(n)), JobEvent::Done(_)), "{n}");
    }
    assert!(!world.blocked(peer(1), peer(1)));
}

#[test]
fn a_provider_that_is_blocked_is_not_asked_again() {
    let mut world = provider_bent(8, at(0, |_| vec![]));
    world.script(peer(3), answer(8));
    for (n, spec) in [(2, spec()), (3, auction())] {
        world.submit(peer(1), job_id(n), spec);
        assert!(matches!(world.finish(job_id(n)), JobEvent::Done(_)));
        assert_eq!(world.started(job_id(n)), [peer(3)]);
    }
}
