//! Everybody keeps the rules.

use protocol::event::{Production, Side};
use protocol::ledger::Direction;
use protocol::{Credits, Evidence, Finish, Frame, JobError, JobEvent, Output};

use crate::values::*;
use crate::world::World;

/// A requester (1) and two providers (2 is cheaper than 3).
fn mesh() -> World {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(2000)]);
    world.offer(peer(3), vec![text_offer(3000)]);
    world
}

fn is_prompt_in(bytes: &[u8]) -> bool {
    bytes.windows(PROMPT.len()).any(|window| window == PROMPT.as_bytes())
}

#[test]
fn a_direct_job_is_done_by_the_cheapest_and_leaves_a_receipt_that_opens() {
    let mut world = mesh();
    world.script(peer(2), answer(70));
    world.submit(peer(1), job_id(1), spec());
    let JobEvent::Done(completion) = world.finish(job_id(1)) else { panic!("done") };

    let receipt = completion.receipt.value();
    assert_eq!(completion.receipt.signer(), peer(2));
    assert_eq!(receipt.check_opening(&completion.opening), Ok(()));
    assert_eq!((receipt.usage.prompt_tokens, receipt.usage.completion_tokens), (5, 70));
    assert_eq!(receipt.cost, Credits(140));
    assert_eq!(receipt.finish, Finish::EndOfText);
    assert_eq!(receipt.segments.iter().map(|s| s.end).collect::<Vec<_>>(), [32, 64]);
    assert_eq!(world.tokens(job_id(1)), 70);
    assert!(completion.acknowledgement.clone().verify(&world.network).is_ok());
}

#[test]
fn both_ledgers_agree_after_a_job() {
    let mut world = mesh();
    world.submit(peer(1), job_id(1), spec());
    world.finish(job_id(1));
    let (ours, theirs) = (world.peer(peer(1)).ledger(), world.peer(peer(2)).ledger());
    assert_eq!(ours.account(&peer(2)).spent, Credits(16));
    assert_eq!(theirs.account(&peer(1)).earned, Credits(16));
    assert_eq!((ours.accounts().count(), theirs.accounts().count()), (1, 1));
    assert_eq!(world.evidence(peer(1), peer(2)), [(Evidence::Delivered, 1)]);
    assert_eq!(world.evidence(peer(2), peer(1)), []);
}

#[test]
fn a_debt_is_recorded_then_proved_and_only_then_acknowledged() {
    let mut world = mesh();
    world.submit(peer(1), job_id(1), spec());
    world.finish(job_id(1));
    let at =
        |wanted: fn(&Output) -> bool| world.journal.iter().position(|(who, o)| *who == peer(1) && wanted(o));
    let recorded = at(|o| matches!(o, Output::Record(entry) if entry.direction == Direction::Spent)).unwrap();
    let acknowledged = at(|o| matches!(o, Output::Frame { frame: Frame::Acknowledge { .. }, .. })).unwrap();
    let told = at(|o| matches!(o, Output::Notify { event: JobEvent::Done(_), .. })).unwrap();
    assert!(recorded < told, "who knows of an answer has it in the books");
    assert!(told < acknowledged, "and the receipt is kept before the debt is admitted");
}

#[test]
fn the_books_survive_a_restart_and_count_nothing_twice() {
    let mut world = mesh();
    world.submit(peer(1), job_id(1), spec());
    world.finish(job_id(1));
    let mut again = protocol::Peer::new(protocol::peer::Config::default(), world.network.clone(), key(1));
    for _ in 0..2 {
        for (_, output) in world.journal.iter().filter(|(who, _)| *who == peer(1)) {
            if let Output::Record(entry) = output {
                again.restore(entry);
            }
        }
    }
    assert!(again.ledger().accounts().eq(world.peer(peer(1)).ledger().accounts()));
}

#[test]
fn an_auction_shows_the_prompt_to_its_winner_and_to_nobody_else() {
    let mut world = mesh();
    world.submit(peer(1), job_id(1), auction());
    let JobEvent::Done(_) = world.finish(job_id(1)) else { panic!("done") };
    assert_eq!(world.started(job_id(1)), [peer(2)]);
    assert_eq!(world.events(job_id(1)).iter().filter(|e| matches!(e, JobEvent::Bid(..))).count(), 2);
    assert!(world.wire.iter().any(|packet| packet.to.is_none()), "an announcement went out");
    for packet in &world.wire {
        let to_winner = packet.starts && packet.to == Some(peer(2));
        assert_eq!(is_prompt_in(&packet.bytes), to_winner);
    }
}

#[test]
fn a_direct_question_does_not_hold_the_prompt_either() {
    let mut world = mesh();
    world.submit(peer(1), job_id(1), spec());
    world.finish(job_id(1));
    assert_eq!(world.wire.iter().filter(|packet| is_prompt_in(&packet.bytes)).count(), 1);
}

#[test]
fn sealed_bids_are_not_opened_before_gossip_had_its_time() {
    let mut world = mesh();
    world.submit(peer(1), job_id(1), auction());
    world.elapse(39);
    assert_eq!(world.started(job_id(1)), []);
    world.elapse(1);
    assert_eq!(world.started(job_id(1)), [peer(2)]);
}

#[test]
fn a_peer_works_for_itself_without_a_packet() {
    for (n, spec) in [(1, spec()), (2, auction()), (3, for_peer(peer(1)))] {
        let mut world = World::of(1);
        world.offer(peer(1), vec![text_offer(1000)]);
        world.submit(peer(1), job_id(n), spec);
        let JobEvent::Done(completion) = world.finish(job_id(n)) else { panic!("done") };
        assert_eq!(completion.receipt.check_opening(&completion.opening), Ok(()));
        assert_eq!(completion.receipt.requester, completion.receipt.signer());
        let account = world.peer(peer(1)).ledger().account(&peer(1));
        assert_eq!((account.earned, account.spent), (Credits(8), Credits(8)));
        assert!(world.wire.iter().all(|packet| packet.to.is_none()));
    }
}

#[test]
fn who_asks_for_what_nobody_offers_learns_what_is_on_offer() {
    let mut world = mesh();
    let mut wanted = spec();
    wanted.requirement.capability = capability("image.generation");
    world.submit(peer(1), job_id(1), wanted);
    let JobEvent::Failed(error) = world.finish(job_id(1)) else { panic!("failed") };
    let sample = vec![capability("text.generation")];
    assert_eq!(error, JobError::NothingOffered { capability: capability("image.generation"), sample });
    assert!(!error.retryable());
}

#[test]
fn in_an_empty_mesh_the_sample_is_empty() {
    let mut world = World::of(1);
    world.submit(peer(1), job_id(1), spec());
    let JobEvent::Failed(JobError::NothingOffered { sample, .. }) = world.finish(job_id(1)) else {
        panic!("failed")
    };
    assert_eq!(sample, []);
}

#[test]
fn a_seeker_of_a_prefix_gets_the_special_agent() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![offer(&capability("code.generation.python"), 0)]);
    let mut wanted = spec();
    wanted.requirement.capability = capability("code");
    world.submit(peer(1), job_id(1), wanted);
    let JobEvent::Done(completion) = world.finish(job_id(1)) else { panic!("done") };
    assert_eq!(completion.receipt.capability, capability("code"));
}

#[test]
fn progress_reaches_the_user_and_keeps_a_slow_provider_alive() {
    let mut world = mesh();
    world.script(peer(2), Vec::new());
    world.submit(peer(1), job_id(1), spec());
    let run = world.runs(peer(2))[0].run;
    for done in 1..=4 {
        world.elapse(29_000);
        world.produce(peer(2), run, Production::Progress { done, of: 4 });
    }
    for production in answer(3) {
        world.produce(peer(2), run, production);
    }
    assert!(matches!(world.outcome(job_id(1)), Some(JobEvent::Done(_))));
    assert_eq!(world.evidence(peer(1), peer(2)), [(Evidence::Delivered, 1)]);
}

#[test]
fn a_provider_with_nothing_to_say_answers_when_it_is_asked_and_the_user_does_not_see_it() {
    let mut world = mesh();
    world.script(peer(2), Vec::new());
    world.submit(peer(1), job_id(1), spec());
    let alive = |world: &World| {
        let said =
            |o: &Output| matches!(o, Output::Frame { frame: Frame::Progress { done: 0, of: 0, .. }, .. });
        world.journal.iter().filter(|(who, o)| *who == peer(2) && said(o)).count()
    };
    assert_eq!(alive(&world), 1, "the first question measures how long an answer takes");
    world.elapse(120_000);
    assert!((60..70).contains(&alive(&world)), "one for every two seconds of silence, and a few at first");
    assert!(world.outcome(job_id(1)).is_none(), "and the requester waits on");
    assert!(!world.events(job_id(1)).iter().any(|event| matches!(event, JobEvent::Progress { .. })));
}

#[test]
fn cancelling_aborts_the_run_and_frees_its_place() {
    let mut world = World::with(2, crate::market::one_place());
    world.offer(peer(2), vec![text_offer(0)]);
    world.script(peer(2), Vec::new());
    world.submit(peer(1), job_id(1), spec());
    let run = world.runs(peer(2))[0].run;
    world.produce(peer(2), run, Production::from(token(0)));
    world.deliver(peer(1), protocol::Event::Command(protocol::event::Command::Cancel { job: job_id(1) }));
    assert!(world.aborted(peer(2), run));
    assert!(matches!(world.outcome(job_id(1)), Some(JobEvent::Failed(JobError::Cancelled))));

    world.script(peer(2), answer(8));
    world.submit(peer(1), job_id(2), spec());
    assert!(matches!(world.outcome(job_id(2)), Some(JobEvent::Done(_))), "the place is free at once");
    assert_eq!(world.evidence(peer(2), peer(1)), []);
}

#[test]
fn nothing_is_computed_for_a_requester_that_is_gone() {
    let mut world = mesh();
    world.script(peer(2), Vec::new());
    world.submit(peer(1), job_id(1), spec());
    let run = world.runs(peer(2))[0].run;
    world.deliver(peer(2), protocol::Event::Lost { peer: peer(1), side: Side::Provider });
    assert!(world.aborted(peer(2), run));
}

#[test]
fn a_search_ends_at_the_deadline_of_its_job() {
    for (spec, peers) in [(spec(), 1), (auction(), 2)] {
        let mut world = World::of(peers);
        world.offer(peer(peers), vec![text_offer(1000)]);
        let mut late = spec.clone();
        late.limits.deadline = START;
        world.submit(peer(1), job_id(1), late);
        let JobEvent::Failed(error) = world.finish(job_id(1)) else { panic!("failed") };
        assert!(matches!(error, JobError::DeadlineExceeded), "{error:?}");
    }
    let mut world = mesh();
    let mut short = auction();
    short.limits.deadline = START.after(30);
    world.submit(peer(1), job_id(1), short);
    world.elapse(29);
    assert!(world.outcome(job_id(1)).is_none(), "bids are being collected until 40");
    world.elapse(1);
    assert!(matches!(world.outcome(job_id(1)), Some(JobEvent::Failed(JobError::DeadlineExceeded))));
    assert_eq!(world.started(job_id(1)), []);
    world.elapse(10_000);
    assert!(world.outcome(job_id(1)).is_some(), "once");
}

#[test]
fn a_run_ends_at_its_deadline_on_both_sides() {
    let mut world = mesh();
    world.script(peer(2), vec![Production::from(token(0))]);
    let mut wanted = for_peer(peer(2));
    wanted.limits.deadline = START.after(10_000);
    world.submit(peer(1), job_id(1), wanted);
    world.elapse(10_000);
    assert!(world.aborted(peer(2), world.runs(peer(2))[0].run));
    assert!(matches!(world.outcome(job_id(1)), Some(JobEvent::Failed(JobError::DeadlineExceeded))));
}
