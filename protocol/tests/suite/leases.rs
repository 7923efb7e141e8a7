//! Places that are promised: how long, to whom, and what frees them.

use protocol::event::{Command, Side};
use protocol::message::Ask;
use protocol::{Credits, Event, Evidence, Frame, JobError, JobEvent, Output, Request, Response};

use crate::market::one_place;
use crate::values::*;
use crate::world::World;

#[test]
fn two_quotes_for_one_job_hold_one_place_and_a_running_job_cannot_be_quoted_again() {
    let mut world = World::with(2, one_place());
    world.offer(peer(2), vec![text_offer(0)]);
    world.script(peer(2), Vec::new());
    world.submit(peer(1), job_id(1), spec());
    world.request(peer(2), peer(1), Request::Ask(ask(job_id(1))));
    world.elapse(6_000);
    world.request(peer(2), peer(1), Request::Ask(ask(job_id(2))));
    let answers: Vec<_> = world
        .journal
        .iter()
        .filter_map(|(_, o)| if let Output::Respond { response, .. } = o { Some(response) } else { None })
        .collect();
    assert!(matches!(answers[0], Response::Bid(_)));
    assert!(matches!(answers[1], Response::Decline(_)), "the job runs already");
    assert!(matches!(answers[2], Response::Decline(JobError::Busy { .. })), "and still holds its place");
}

/// A road on which no job begins.
fn held_back(frame: Frame) -> Vec<Frame> {
    match frame {
        Frame::Start(_) | Frame::Probe { .. } => vec![],
        frame => vec![frame],
    }
}

#[test]
fn a_lease_ends_when_its_bid_expires_and_the_late_order_is_refused() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(0)]);
    world.bend(peer(1), held_back);
    world.submit(peer(1), job_id(1), for_peer(peer(2)));
    let start = world.journal.iter().find_map(|(_, o)| match o {
        Output::Frame { frame: frame @ Frame::Start(_), .. } => Some(frame.clone()),
        _ => None,
    });
    world.elapse(5_000);
    world.deliver(peer(2), Event::Frame { from: peer(1), side: Side::Provider, frame: start.unwrap() });
    assert_eq!(world.runs(peer(2)).len(), 0);
    assert_eq!(world.evidence(peer(2), peer(1)), [(Evidence::Expired, 1)]);
    // Nobody has answered the requester's first question either.
    let JobEvent::Failed(JobError::ProviderLost) = world.finish(job_id(1)) else { panic!("failed") };
}

#[test]
fn an_award_that_is_withdrawn_before_the_start_frees_its_lease() {
    let mut world = World::with(2, one_place());
    world.offer(peer(2), vec![text_offer(0)]);
    world.bend(peer(1), held_back);
    world.submit(peer(1), job_id(1), for_peer(peer(2)));
    let start = world.journal.iter().find_map(|(_, o)| match o {
        Output::Frame { frame: frame @ Frame::Start(_), .. } => Some(frame.clone()),
        _ => None,
    });
    let answered = |world: &mut World| {
        world.request(peer(2), peer(9), Request::Ask(ask(job_id(2))));
        world.journal.iter().rev().find_map(|(_, o)| match o {
            Output::Respond { response, .. } => Some(matches!(response, Response::Bid(_))),
            _ => None,
        })
    };
    assert_eq!(answered(&mut world), Some(false), "the only place is promised");
    world.deliver(peer(1), Event::Command(Command::Cancel { job: job_id(1) }));
    assert_eq!(answered(&mut world), Some(true), "and free at once");
    // The order comes after all, by a network that turned the two around.
    let late = Event::Frame { from: peer(1), side: Side::Provider, frame: start.unwrap() };
    world.deliver(peer(2), late);
    assert_eq!(world.runs(peer(2)).len(), 0);
}

#[test]
fn an_award_without_an_order_holds_its_place_until_the_bid_expires_and_no_longer() {
    let mut world = World::with(2, one_place());
    world.offer(peer(2), vec![text_offer(0)]);
    let free = |world: &mut World, job: u8| {
        let deadline = world.now.after(1000);
        world.request(peer(2), peer(9), Request::Ask(Ask { deadline, ..ask(job_id(job)) }));
        let last = world.journal.last().map(|(_, o)| o);
        matches!(last, Some(Output::Respond { response: Response::Bid(_), .. }))
    };
    assert!(free(&mut world, 1));
    world.elapse(4_999);
    assert!(!free(&mut world, 2));
    world.elapse(1);
    assert!(free(&mut world, 2));
}

#[test]
fn of_two_winners_after_a_partition_one_is_listened_to_and_paid() {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.offer(peer(3), vec![text_offer(2000)]);
    world.script(peer(2), Vec::new());
    world.submit(peer(1), job_id(1), auction());
    world.elapse(40);
    let run = world.runs(peer(2))[0].run;
    // The requester loses sight of the winner, which has not noticed yet and goes on.
    world.deliver(peer(1), Event::Lost { peer: peer(2), side: Side::Requester });
    assert_eq!(world.started(job_id(1)), [peer(2), peer(3)]);
    for production in answer(8) {
        world.produce(peer(2), run, production);
    }
    let Some(JobEvent::Done(completion)) = world.outcome(job_id(1)) else { panic!("done") };
    assert_eq!(completion.receipt.signer(), peer(3));
    assert_eq!(world.tokens(job_id(1)), 8, "nothing of the other one's reaches the user");
    let spent = |of| world.peer(peer(1)).ledger().account(&of).spent;
    assert_eq!((spent(peer(2)), spent(peer(3))), (Credits(0), Credits(16)));
    assert_eq!(world.peer(peer(2)).ledger().account(&peer(1)).earned, Credits(0), "nor is it acknowledged");
    assert_eq!(world.evidence(peer(1), peer(2)), [(Evidence::Vanished, 1)]);
}
