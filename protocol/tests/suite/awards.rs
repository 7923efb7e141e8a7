//! Which bid wins, and whether bids are called for at all: the requester's wishes against what it is offered.

use crypto::{Network, PeerId, Signed};
use proptest::prelude::*;
use protocol::message::Bid;
use protocol::{
    Choosing, Event, Evidence, JobEvent, JobSpec, Output, Preference, Request, Response, Weights,
};

use crate::values::*;
use crate::world::World;

const NOTHING: Weights = Weights { price: 0, latency: 0, evidence: 0, locality: 0 };

/// What a puppet asks, and how many tokens it writes in a second.
fn bid(price: u64, decode: u32) -> Bid {
    let mut offer = text_offer(price);
    offer.speed.decode = decode;
    Bid { job: job_id(1), requester: peer(1), offer, queue: 0, expires: START.after(5_000) }
}

/// In which order puppets get peer 1's job: none of them can be reached, so each has its turn.
fn ranking(world: &mut World, bids: &[(u8, Bid)], preference: Preference) -> Vec<PeerId> {
    world.offer(peer(2), vec![bid(1_000_000, 1).offer]);
    world.submit(peer(1), job_id(1), JobSpec { preference, ..auction() });
    for (seed, bid) in bids {
        let signed = Signed::sign(&Network::default(), &key(*seed), bid.clone()).into_signed();
        world.request(peer(1), peer(*seed), Request::Bid(signed));
    }
    assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
    let mut turns = world.started(job_id(1));
    assert_eq!(turns.pop(), Some(peer(2)), "the hopeless bid is the last");
    turns
}

fn first(bids: &[(u8, Bid)], preference: Preference) -> PeerId {
    ranking(&mut World::of(2), bids, preference)[0]
}

#[test]
fn who_is_to_be_avoided_is_neither_asked_nor_heard() {
    for choosing in [Choosing::Direct, Choosing::Auction] {
        let mut world = World::of(3);
        world.offer(peer(2), vec![text_offer(1000)]);
        world.offer(peer(3), vec![text_offer(9000)]);
        let preference = Preference { avoid: vec![peer(2)], ..Preference::default() };
        world.submit(peer(1), job_id(1), JobSpec { preference, choosing, ..spec() });
        assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
        assert_eq!(world.started(job_id(1)), [peer(3)]);
    }
}

#[test]
fn the_weights_of_the_job_decide() {
    let bids = [(8, bid(1000, 10)), (9, bid(1500, 40))];
    let with = |weights| first(&bids, Preference { weights, ..Preference::default() });
    assert_eq!(with(Weights::default()), peer(8), "the cheaper");
    assert_eq!(with(Weights { latency: 1, ..NOTHING }), peer(9), "the faster");
    // Half as dear again is a loss of 500, a quarter of the speed one of 3000.
    assert_eq!(with(Weights { price: 5, latency: 1, ..NOTHING }), peer(9));
    assert_eq!(with(Weights { price: 7, latency: 1, ..NOTHING }), peer(8));
    assert_eq!(with(NOTHING), peer(8), "what weighs nothing breaks ties, the price first");
}

#[test]
fn a_preferred_peer_may_cost_almost_twice_as_much() {
    let preference = Preference { peer: Some(peer(9)), ..Preference::default() };
    assert_eq!(first(&[(8, bid(1000, 50)), (9, bid(1990, 50))], preference.clone()), peer(9));
    assert_eq!(first(&[(8, bid(1000, 50)), (9, bid(2000, 50))], preference), peer(8));
}

#[test]
fn evidence_weighs_if_the_job_says_so_and_a_stranger_stands_in_the_middle() {
    let judged = |seed: u8, evidence: Evidence, weight: u8| {
        let mut world = World::of(2);
        for _ in 0..7 {
            world.deliver(peer(1), Event::Misbehaved { peer: peer(seed), evidence });
        }
        let weights = Weights { price: 1, evidence: weight, ..NOTHING };
        let bids = [(8, bid(1000, 50)), (9, bid(1100, 50))];
        ranking(&mut world, &bids, Preference { weights, ..Preference::default() })[0]
    };
    assert_eq!(judged(8, Evidence::Stalled, 0), peer(8), "a tenth cheaper");
    assert_eq!(judged(8, Evidence::Stalled, 1), peer(9), "but it failed seven times");
    assert_eq!(judged(9, Evidence::Delivered, 1), peer(9), "and who delivered is worth more than a stranger");
    assert_eq!(judged(8, Evidence::Delivered, 1), peer(8));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// With the default weights the order is that of price, time and key, however the bids came in.
    #[test]
    fn by_default_the_cheapest_wins_and_of_equals_the_fastest(
        asked in prop::collection::vec((0u64..4, 1u32..4), 2..6), back in any::<bool>()
    ) {
        let mut bids: Vec<_> = asked
            .iter()
            .zip(9u8..)
            .map(|((price, decode), seed)| (seed, bid(1000 + price, *decode)))
            .collect();
        let mut expected = bids.clone();
        expected.sort_by_key(|(seed, bid)| {
            // 100 tokens: the cost is rounded up to a tenth of the price, and decides before anything else does.
            let cost = bid.offer.price.completion.0.div_ceil(10);
            (cost, 100_000 / bid.offer.speed.decode, peer(*seed))
        });
        if back {
            bids.reverse();
        }
        let expected: Vec<_> = expected.iter().map(|(seed, _)| peer(*seed)).collect();
        prop_assert_eq!(ranking(&mut World::of(2), &bids, Preference::default()), expected);
    }
}

/// Whether a job is announced, in a mesh of so many providers besides its requester.
fn announced(providers: u8, change: impl FnOnce(&mut JobSpec)) -> bool {
    let mut world = World::of(1 + providers);
    for seed in 2..2 + providers {
        world.offer(peer(seed), vec![text_offer(1000)]);
    }
    let mut wanted = JobSpec { choosing: Choosing::Auto, ..spec() };
    change(&mut wanted);
    world.submit(peer(1), job_id(1), wanted);
    assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
    world.journal.iter().any(|(_, o)| matches!(o, Output::Announce { .. }))
}

#[test]
fn the_peer_announces_what_is_worth_it_and_asks_otherwise() {
    assert!(announced(4, |_| {}));
    assert!(!announced(3, |_| {}), "all of them can be asked");
    assert!(!announced(4, |job| job.sampling.max_tokens = 32), "a short answer");
    assert!(announced(4, |job| job.sampling.max_tokens = 33));
    assert!(!announced(4, |job| job.limits.deadline = START.after(10_000)), "no time to lose");
    assert!(announced(4, |job| job.limits.deadline = START.after(10_001)));
    assert!(!announced(4, |job| job.preference.peer = Some(peer(3))), "somebody is preferred");
    assert!(!announced(4, |job| job.provider = Some(peer(3))), "or demanded");
    assert!(!announced(4, |job| job.choosing = Choosing::Direct));
    assert!(announced(1, |job| job.choosing = Choosing::Auction));
}

#[test]
fn a_preferred_peer_is_always_among_those_who_are_asked_unless_it_is_blocked() {
    for seed in 2..=6 {
        let mut world = World::of(6);
        (2..=6).for_each(|seed| world.offer(peer(seed), vec![text_offer(1000)]));
        let preference = Preference { peer: Some(peer(seed)), ..Preference::default() };
        world.submit(peer(1), job_id(1), JobSpec { preference: preference.clone(), ..spec() });
        let asked = |world: &World| -> Vec<_> {
            let all = world.journal.iter().filter(|(from, _)| *from == peer(1));
            all.filter_map(|(_, o)| if let Output::Request { to, .. } = o { Some(*to) } else { None })
                .collect()
        };
        let to = asked(&world);
        assert_eq!((to.len(), to[0]), (3, peer(seed)));
        assert_eq!(world.started(job_id(1))[0], peer(seed), "of equals the preferred one");
        let wires = world.wire.iter().filter(|packet| packet.to == Some(peer(seed)) && !packet.starts);
        assert!(wires.count() > 0);

        world.deliver(peer(1), Event::Misbehaved { peer: peer(seed), evidence: Evidence::BadReceipt });
        world.submit(peer(1), job_id(2), JobSpec { preference, ..spec() });
        assert!(!asked(&world)[3..].contains(&peer(seed)));
    }
}

#[test]
fn a_preferred_peer_that_is_gone_costs_the_job_nothing() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(1000)]);
    let preference = Preference { peer: Some(peer(9)), ..Preference::default() };
    world.submit(peer(1), job_id(1), JobSpec { preference: preference.clone(), ..spec() });
    assert!(matches!(world.outcome(job_id(1)), Some(JobEvent::Done(_))), "without any waiting");
    assert_eq!(world.evidence(peer(1), peer(9)), [(Evidence::Unreachable, 1)]);
}

#[test]
fn nothing_of_what_the_requester_likes_is_sent() {
    let sent = |preference: Preference| {
        let mut world = World::of(3);
        (2..=3).for_each(|seed| world.offer(peer(seed), vec![text_offer(1000)]));
        world.submit(peer(1), job_id(1), JobSpec { preference, ..auction() });
        world.elapse(1000);
        let bytes: Vec<_> = world.wire.into_iter().map(|packet| (packet.to, packet.bytes)).collect();
        (
            world
                .journal
                .iter()
                .any(|(_, o)| matches!(o, Output::Respond { response: Response::Received, .. })),
            bytes,
        )
    };
    let winner = if peer(2) < peer(3) { 2 } else { 3 };
    let weights = Weights { price: 9, latency: 8, evidence: 7, locality: 6 };
    let fussy = Preference {
        peer: Some(peer(winner)),
        target: Some(price(0, 1000)),
        weights,
        ..Preference::default()
    };
    assert_eq!(sent(Preference::default()), sent(fussy), "the same winner, and the same bytes");
}

#[test]
fn jobs_of_one_peer_spread_evenly_over_those_who_ask_the_same() {
    for choosing in [Choosing::Direct, Choosing::Auction] {
        let mut world = World::of(5);
        for seed in 2..=5 {
            world.offer(peer(seed), vec![text_offer(0)]);
            world.script(peer(seed), Vec::new());
        }
        for job in 1..=16 {
            world.submit(peer(1), job_id(job), JobSpec { choosing, ..spec() });
            while world.started(job_id(job)).is_empty() {
                world.elapse(10);
            }
            let held: Vec<_> = (2..=5).map(|seed| world.runs(peer(seed)).len()).collect();
            let (least, most) = (held.iter().min(), held.iter().max());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{choosing:?}: {held:?}");
        }
    }
}
