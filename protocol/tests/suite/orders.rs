//! Requesters that break the rules: what a provider refuses, and what it remembers.

use crypto::{Network, Signed};
use protocol::event::{Event, Production, Side};
use protocol::message::{Brief, Start};
use protocol::{
    Acknowledgement, Credits, Evidence, Finish, Frame, Input, JobError, JobEvent, JobKind, Message, Order,
    Output, error::Feature, error::Limit, error::OrderFault,
};

use crate::values::*;
use crate::world::{World, forge, resign};

/// Peer 2 works for peer 3 (job 9, unfinished) when peer 1's order, rewritten by `bend`, arrives.
fn order_bent(bend: impl FnMut(Start) -> Start + 'static) -> World {
    order_bent_at(0, bend)
}

fn order_bent_at(delay: u64, mut bend: impl FnMut(Start) -> Start + 'static) -> World {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(0)]);
    world.script(peer(2), Vec::new());
    world.submit(peer(3), job_id(9), for_peer(peer(2)));
    world.bend(peer(1), move |frame| match frame {
        Frame::Start(start) => vec![Frame::Start(Box::new(bend(*start)))],
        frame => vec![frame],
    });
    world.now = world.now.after(delay);
    world.submit(peer(1), job_id(1), for_peer(peer(2)));
    world
}

/// Peer 3's job ends well whatever peer 1 did.
fn the_other_is_unharmed(world: &mut World) {
    for production in answer(3) {
        let run = world.runs(peer(2))[0].run;
        world.produce(peer(2), run, production);
    }
    assert!(matches!(world.outcome(job_id(9)), Some(JobEvent::Done(_))), "another session is unharmed");
    assert_eq!(world.evidence(peer(2), peer(3)), []);
}

fn refuses(mut world: World, why: OrderFault, evidence: Evidence, blocks: bool) {
    assert_eq!(world.runs(peer(2)).len(), 1, "nothing ran for the bent order");
    let said = |o: &Output| matches!(o, Output::Frame { frame: Frame::Fail { error: JobError::Order { why: w }, .. }, .. } if *w == why);
    assert!(world.journal.iter().any(|(_, o)| said(o)));
    assert_eq!(world.evidence(peer(2), peer(1)), [(evidence, 1)]);
    assert_eq!(world.blocked(peer(2), peer(1)), blocks);
    the_other_is_unharmed(&mut world);
}

#[test]
fn an_order_with_a_wrong_signature_blocks_its_sender() {
    let world = order_bent(|start| Start { order: forge(&start.order), ..start });
    refuses(world, OrderFault::Signature, Evidence::BadSignature, true);
}

#[test]
fn an_order_signed_by_somebody_else_blocks_its_sender() {
    let world = order_bent(|start| Start { order: resign(&start.order, 3, |_| ()), ..start });
    refuses(world, OrderFault::Signature, Evidence::BadSignature, true);
}

#[test]
fn an_order_for_another_network_blocks_its_sender() {
    let world = order_bent(|start| {
        let value = start.order.clone().verify(&Network::default()).unwrap().value().clone();
        let other: Network = "test".parse().unwrap();
        Start { order: Signed::sign(&other, &key(1), value).into_signed(), ..start }
    });
    refuses(world, OrderFault::Signature, Evidence::BadSignature, true);
}

#[test]
fn an_order_addressed_to_another_provider_blocks_its_sender() {
    let world =
        order_bent(|start| Start { order: resign(&start.order, 1, |o| o.provider = peer(3)), ..start });
    refuses(world, OrderFault::Signature, Evidence::BadSignature, true);
}

#[test]
fn an_input_that_is_not_the_committed_one_blocks_its_sender() {
    let world = order_bent(|start| Start {
        brief: Brief { input: Input::Text("something else".into()), ..start.brief },
        ..start
    });
    refuses(world, OrderFault::Commitment, Evidence::BadCommitment, true);
}

#[test]
fn an_order_from_the_past_or_the_future_is_refused() {
    let old = order_bent(|start| Start {
        order: resign(&start.order, 1, |o| o.issued.0 -= Order::LIFETIME + 1),
        ..start
    });
    refuses(old, OrderFault::Expired, Evidence::Expired, false);
    let early = order_bent(|start| Start {
        order: resign(&start.order, 1, |o| o.issued.0 += Order::LIFETIME + 1),
        ..start
    });
    refuses(early, OrderFault::Expired, Evidence::Expired, false);
}

#[test]
fn an_order_for_something_else_than_was_offered_is_refused() {
    type Change = fn(&mut Order);
    let changes: [Change; 6] = [
        |o| o.agent = "other".into(),
        |o| o.price = price(1, 1),
        |o| o.capability = capability("code"),
        |o| o.model = None,
        |o| o.bid = crypto::Digest::of("test", b"bid"),
        |o| o.job = job_id(7),
    ];
    for change in changes {
        let world = order_bent(move |start| Start { order: resign(&start.order, 1, change), ..start });
        refuses(world, OrderFault::Lease, Evidence::Expired, false);
    }
}

#[test]
fn an_order_that_is_sent_twice_runs_once() {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(0)]);
    world.script(peer(2), Vec::new());
    world.submit(peer(3), job_id(9), for_peer(peer(2)));
    world.bend(peer(1), |frame| match frame {
        Frame::Start(start) => vec![Frame::Start(start.clone()), Frame::Start(start)],
        frame => vec![frame],
    });
    world.submit(peer(1), job_id(1), for_peer(peer(2)));
    assert_eq!(world.runs(peer(2)).len(), 2);
    assert_eq!(world.evidence(peer(2), peer(1)), [(Evidence::Replayed, 1)]);
    the_other_is_unharmed(&mut world);
}

#[test]
fn an_order_that_was_done_cannot_be_replayed() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(0)]);
    world.submit(peer(1), job_id(1), for_peer(peer(2)));
    assert!(matches!(world.outcome(job_id(1)), Some(JobEvent::Done(_))));
    let bytes = world.wire.iter().find(|packet| packet.starts).unwrap().bytes.clone();
    world.deliver_bytes(peer(2), peer(1), Side::Provider, &bytes);
    assert_eq!(world.runs(peer(2)).len(), 1);
    assert_eq!(world.evidence(peer(2), peer(1)), [(Evidence::Expired, 1)], "its lease is used up");

    world.deliver_bytes(peer(2), peer(9), Side::Provider, &bytes);
    assert_eq!(
        world.evidence(peer(2), peer(9)),
        [(Evidence::BadSignature, 1)],
        "and nobody else can present it"
    );
}

#[test]
fn what_nobody_offers_or_is_reserved_is_answered_with_unsupported() {
    type Change = fn(&mut Order);
    let call: Change = |o| o.kind = JobKind::Call;
    // Nobody bids for this kind here, so only a bent order can ask for it.
    let embed: Change = |o| o.kind = JobKind::Embed;
    let choice: Change = |o| o.sampling.choice = 128;
    for (change, expected) in [(call, Feature::Input), (embed, Feature::JobKind), (choice, Feature::Choices)]
    {
        let mut world = order_bent(move |start| Start { order: resign(&start.order, 1, change), ..start });
        assert_eq!(world.runs(peer(2)).len(), 1);
        let refused = |o: &Output| matches!(o, Output::Frame { frame: Frame::Fail { error: JobError::Unsupported { feature }, .. }, .. } if *feature == expected);
        assert!(world.journal.iter().any(|(_, o)| refused(o)), "{expected:?}");
        the_other_is_unharmed(&mut world);
    }
    let mut world = order_bent(|start| {
        let input = Input::Json("{}".into());
        let commitment = input.commitment(&start.brief.salt);
        Start {
            order: resign(&start.order, 1, |o| o.input = commitment),
            brief: Brief { input, ..start.brief },
            trace: None,
        }
    });
    assert_eq!(world.runs(peer(2)).len(), 1);
    the_other_is_unharmed(&mut world);
}

#[test]
fn an_order_whose_longest_answer_is_over_its_budget_is_refused_before_any_work() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.script(
        peer(2),
        (0..=100).map(|n| Production::from(token(n))).chain([Production::Finished(Finish::Length)]).collect(),
    );
    let with_budget = |budget| {
        let mut spec = for_peer(peer(2));
        spec.limits.budget = Credits(budget);
        spec
    };
    world.submit(peer(1), job_id(2), with_budget(101));
    let JobEvent::Done(completion) = world.finish(job_id(2)) else { panic!("done") };
    assert_eq!(completion.receipt.cost, Credits(101), "a hundred tokens and the piece that was held back");

    world.submit(peer(1), job_id(1), with_budget(100));
    let JobEvent::Failed(error) = world.finish(job_id(1)) else { panic!("failed") };
    assert_eq!(error, JobError::Limit { limit: Limit::Budget });
    assert_eq!(world.runs(peer(2)).len(), 1);
    assert_eq!(
        world.evidence(peer(1), peer(2)),
        [(Evidence::Delivered, 1)],
        "the provider did nothing wrong"
    );
}

#[test]
fn bytes_that_no_honest_peer_sends_are_counted_and_forgiven_a_little() {
    let mut over = Frame::Cancel { job: job_id(1) }.to_bytes();
    over.resize(65, 0);
    let mut version = Frame::Cancel { job: job_id(1) }.to_bytes();
    version[0] = 9;
    let garbage = vec![1, 250, 3];
    for (bytes, evidence) in
        [(over, Evidence::OverCap), (version, Evidence::UnknownVersion), (garbage, Evidence::Malformed)]
    {
        let mut world = order_bent(|start| start);
        for _ in 0..7 {
            world.deliver_bytes(peer(2), peer(1), Side::Provider, &bytes);
        }
        assert_eq!(world.evidence(peer(2), peer(1)), [(evidence, 7)]);
        assert!(!world.blocked(peer(2), peer(1)));
        world.deliver_bytes(peer(2), peer(1), Side::Provider, &bytes);
        assert!(world.blocked(peer(2), peer(1)), "{evidence:?}");
        the_other_is_unharmed(&mut world);
    }
}

#[test]
fn a_frame_that_only_a_provider_sends_is_no_order() {
    let mut world = order_bent(|start| start);
    let frame = Frame::Progress { job: job_id(9), done: 1, of: 1 };
    world.deliver(peer(2), Event::Frame { from: peer(1), side: Side::Provider, frame });
    assert_eq!(world.evidence(peer(2), peer(1)), [(Evidence::Unexpected, 1)]);
    the_other_is_unharmed(&mut world);
}

#[test]
fn nobody_cancels_the_job_of_another() {
    let mut world = order_bent(|start| start);
    let frame = Frame::Cancel { job: job_id(9) };
    world.deliver(peer(2), Event::Frame { from: peer(1), side: Side::Provider, frame });
    the_other_is_unharmed(&mut world);
}

fn acknowledge(world: &mut World, from: u8, receipt: crypto::Digest) {
    let signed = Signed::sign(&world.network, &key(from), Acknowledgement { receipt }).into_signed();
    let frame = Frame::Acknowledge { job: job_id(1), acknowledgement: signed };
    world.deliver(peer(2), Event::Frame { from: peer(from), side: Side::Provider, frame });
}

#[test]
fn a_receipt_that_is_foreign_or_settled_cannot_be_acknowledged() {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.submit(peer(1), job_id(1), for_peer(peer(2)));
    let Some(JobEvent::Done(completion)) = world.outcome(job_id(1)) else { panic!("done") };
    let earned = world.peer(peer(2)).ledger().account(&peer(1)).earned;
    assert_eq!(earned, Credits(8));

    acknowledge(&mut world, 1, completion.receipt.digest());
    assert_eq!(world.evidence(peer(2), peer(1)), [(Evidence::Replayed, 1)]);
    acknowledge(&mut world, 3, completion.receipt.digest());
    assert_eq!(world.evidence(peer(2), peer(3)), [(Evidence::Replayed, 1)]);
    assert_eq!(world.peer(peer(2)).ledger().account(&peer(1)).earned, earned, "nothing is booked twice");
    assert_eq!(world.peer(peer(2)).ledger().account(&peer(3)).earned, Credits::ZERO);
}

#[test]
fn a_forged_acknowledgement_blocks_its_sender_and_books_nothing() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.bend(peer(1), |frame| match frame {
        Frame::Acknowledge { job, acknowledgement } => {
            vec![Frame::Acknowledge { job, acknowledgement: forge(&acknowledgement) }]
        }
        frame => vec![frame],
    });
    world.submit(peer(1), job_id(1), for_peer(peer(2)));
    assert_eq!(world.evidence(peer(2), peer(1)), [(Evidence::BadSignature, 1)]);
    assert!(world.blocked(peer(2), peer(1)));
    assert_eq!(world.peer(peer(2)).ledger().account(&peer(1)).earned, Credits::ZERO);
}
