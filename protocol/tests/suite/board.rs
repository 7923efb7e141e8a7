//! What a peer can show of the market around it.

use protocol::market::board::MAX_ENTRIES;
use protocol::message::Ask;
use protocol::{Announcement, Event, JobEvent, JobId, Request};

use crate::values::*;
use crate::world::World;

fn numbered(job: u16) -> Ask {
    let mut name = [0; 16];
    name[..2].copy_from_slice(&job.to_le_bytes());
    ask(JobId(name))
}

#[test]
fn a_job_and_its_bids_are_seen_from_both_sides() {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.submit(peer(1), job_id(1), auction());
    assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
    for seed in [2, 3] {
        let asked: Vec<_> = world.peer(peer(seed)).board().asked().cloned().collect();
        assert_eq!((asked.len(), asked[0].requester, asked[0].job), (1, peer(1), job_id(1)));
        assert!(asked[0].announced);
    }
    for seed in [1, 2] {
        let offered: Vec<_> = world.peer(peer(seed)).board().offered().cloned().collect();
        assert_eq!((offered.len(), offered[0].provider, offered[0].price), (1, peer(2), price(0, 1000)));
    }
    assert_eq!(world.peer(peer(3)).board().offered().count(), 0, "sealed bids are for their requester");
    let shown = serde_json::to_value(world.peer(peer(2)).board().asked().next().unwrap()).unwrap();
    assert_eq!(shown["capability"], "text.generation");
}

#[test]
fn what_is_repeated_is_shown_once_and_the_memory_is_bounded() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(1000)]);
    for _ in 0..3 {
        world.request(peer(2), peer(1), Request::Ask(numbered(0)));
    }
    let board = world.peer(peer(2)).board();
    assert_eq!((board.asked().count(), board.offered().count()), (1, 1));
    for (from, job) in [(1, 1), (3, 0), (1, 0)] {
        world.request(peer(2), peer(from), Request::Ask(numbered(job)));
    }
    let asked = world.peer(peer(2)).board().asked();
    let asked: Vec<_> = asked.map(|asked| (asked.requester, asked.job)).collect();
    let expected = [(1, 1), (3, 0), (1, 0)].map(|(from, job)| (peer(from), numbered(job).job));
    assert_eq!(asked, expected, "another requester's is another one, and what is repeated is the latest");
    for job in 1..=200 {
        world.elapse(5_000);
        world.request(peer(2), peer(1), Request::Ask(Ask { deadline: world.now.after(1), ..numbered(job) }));
    }
    let board = world.peer(peer(2)).board();
    assert_eq!((board.asked().count(), board.offered().count()), (MAX_ENTRIES, MAX_ENTRIES));
    assert_eq!(board.asked().last().unwrap().job, numbered(200).job, "the latest are kept");
    let oldest = board.asked().next().unwrap().job;
    world.request(peer(2), peer(1), Request::Ask(numbered(200)));
    let board = world.peer(peer(2)).board();
    assert_eq!((board.asked().count(), board.asked().next().unwrap().job), (MAX_ENTRIES, oldest));
}

#[test]
fn what_has_closed_or_comes_from_a_blocked_peer_is_not_shown() {
    let mut world = World::of(1);
    let announced = |closes| Announcement::Job { ask: numbered(1), closes };
    let told = |world: &mut World, announcement| {
        world.deliver(peer(1), Event::Announced { from: peer(9), announcement });
        world.peer(peer(1)).board().asked().count()
    };
    assert_eq!(told(&mut world, announced(protocol::Timestamp(START.0 - 60_000))), 0);
    let evidence = protocol::Evidence::BadReceipt;
    world.deliver(peer(1), Event::Misbehaved { peer: peer(9), evidence });
    assert_eq!(told(&mut world, announced(START.after(800))), 0);
}
