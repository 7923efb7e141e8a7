//! Bidders: who wins, who waits, and who breaks the market's rules.

use crypto::{Network, PeerId, Signed};
use protocol::event::{Command, InboundId, Production, RequestId, Side, Submission};
use protocol::market::bidder;
use protocol::message::{Ask, Bid};
use protocol::{
    Announcement, Capability, Credits, Event, Evidence, Frame, JobError, JobEvent, JobKind, JobSpec, Output,
    Peer, Profile, Request, Response, Timestamp, peer::Config,
};

use crate::values::*;
use crate::world::{World, forge};

/// A provider with room for a single job.
pub(crate) fn one_place() -> Config {
    let bidder = bidder::Config { places: 1, places_per_requester: 1, slots: 1, ..bidder::Config::default() };
    Config { bidder, ..Config::default() }
}

/// A bid to peer 1, as a puppet makes it by hand.
fn bid(job: u8, completion: u64) -> Bid {
    let expires = START.after(5_000);
    Bid { job: job_id(job), requester: peer(1), offer: text_offer(completion), queue: 0, expires }
}

fn sealed(seed: u8, bid: Bid) -> Request {
    Request::Bid(Signed::sign(&Network::default(), &key(seed), bid).into_signed())
}

/// A job of peer 1 is being auctioned; peer 2 is honest and asks 2000, everybody from 9 on is a puppet.
fn open_auction() -> World {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(2000)]);
    world.submit(peer(1), job_id(1), auction());
    world
}

fn wins_the_honest(mut world: World) -> World {
    assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)), "the auction is unharmed");
    assert_eq!(world.started(job_id(1)), [peer(2)]);
    world
}

#[test]
fn a_second_bid_of_one_bidder_does_not_count() {
    let mut world = World::of(1);
    world.deliver(peer(1), Event::Command(Command::Offer(vec![text_offer(9000)])));
    world.submit(peer(1), job_id(1), auction());
    world.request(peer(1), peer(9), sealed(9, bid(1, 500)));
    world.request(peer(1), peer(9), sealed(9, bid(1, 400)));
    assert_eq!(world.evidence(peer(1), peer(9)), [(Evidence::Replayed, 1)]);
    world.elapse(800);
    assert_eq!(world.started(job_id(1)), [peer(9), peer(1)], "the puppet cannot be reached");
    let starts = world.events(job_id(1)).into_iter();
    let prices: Vec<_> = starts
        .filter_map(
            |e| if let JobEvent::Started { offer, .. } = e { Some(offer.price.completion) } else { None },
        )
        .collect();
    assert_eq!(prices, [Credits(500), Credits(9000)], "the first word counts");
}

#[test]
fn a_late_bid_is_ignored_and_held_against_nobody() {
    let mut world = open_auction();
    world.elapse(800);
    world.request(peer(1), peer(9), sealed(9, bid(1, 0)));
    assert_eq!(world.evidence(peer(1), peer(9)), []);
    wins_the_honest(world);

    let mut world = open_auction();
    world.script(peer(2), Vec::new());
    world.elapse(800);
    world.request(peer(1), peer(9), sealed(9, bid(1, 0)));
    assert_eq!(world.evidence(peer(1), peer(9)), [], "gossip may have been slow");
    assert_eq!(world.started(job_id(1)), [peer(2)]);
}

#[test]
fn a_bid_that_has_expired_does_not_count() {
    let mut world = open_auction();
    let expired = Bid { expires: Timestamp(START.0 - 60_000), ..bid(1, 0) };
    world.request(peer(1), peer(9), sealed(9, expired));
    assert_eq!(wins_the_honest(world).evidence(peer(1), peer(9)), [(Evidence::Expired, 1)]);
}

#[test]
fn a_bidder_whose_clock_is_a_minute_slow_is_let_in() {
    let mut world = open_auction();
    let slow = Bid { expires: Timestamp(START.0 - 59_999), ..bid(1, 0) };
    world.request(peer(1), peer(9), sealed(9, slow));
    world.elapse(800);
    assert_eq!(world.started(job_id(1)), [peer(9), peer(2)], "it wins; but the puppet is not there");
    assert_eq!(world.evidence(peer(1), peer(9)), [(Evidence::Vanished, 1)]);
}

/// Whom peer 1 turns to when its winner fails so long after the bids came in, and how often it searched until then.
fn fallen_back(after: u64) -> (Vec<PeerId>, usize) {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.offer(peer(3), vec![text_offer(2000)]);
    world.script(peer(2), Vec::new());
    world.submit(peer(1), job_id(1), spec());
    world.elapse(after);
    let run = world.runs(peer(2))[0].run;
    world.produce(peer(2), run, Production::Failed(JobError::Engine));
    assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
    let searches = world.journal.iter().filter(|(_, o)| matches!(o, Output::Discover { .. })).count();
    (world.started(job_id(1)), searches)
}

#[test]
fn a_losing_bid_stands_for_four_seconds_by_the_clock_of_who_got_it() {
    assert_eq!(fallen_back(3_999), (vec![peer(2), peer(3)], 1));
    assert_eq!(fallen_back(4_000), (vec![peer(2), peer(3)], 2), "then the loser is asked anew");
}

/// Peer 1's machine alone, whose auction was won by peer 9, who failed late: it asks again, and asks peer 8.
fn second_round() -> Peer {
    let mut alone = Peer::new(Config::default(), Network::default(), key(1));
    let found = |seed: u8, now: Timestamp| {
        let versions = protocol::profile::Versions { min: 1, max: 1 };
        let (issued, expires) = (now, now.after(1000));
        let profile = Profile { versions, agents: vec![text_offer(10)], issued, expires };
        Signed::sign(&Network::default(), &key(seed), profile)
    };
    let submission = Submission { job: job_id(1), salt: SALT, spec: auction(), run: None, trace: None };
    let mut now = START;
    alone.handle(now, Event::Command(Command::Submit(Box::new(submission))));
    for seed in [9, 8] {
        let query = std::iter::from_fn(|| alone.poll_output())
            .find_map(|o| if let Output::Discover { query, .. } = o { Some(query) } else { None });
        let query = query.expect("every round searches");
        alone.handle(now, Event::Discovered { query, profiles: vec![found(seed, now)] });
        if seed == 9 {
            alone.handle(
                now,
                Event::Request { from: peer(9), inbound: InboundId(1), request: sealed(9, bid(1, 9)) },
            );
            now = now.after(800);
            alone.handle_timeout(now);
            now = now.after(10_000);
            let frame = Frame::Fail { job: job_id(1), error: JobError::Engine };
            alone.handle(now, Event::Frame { from: peer(9), side: Side::Requester, frame });
        }
    }
    let asked =
        |o: Output| matches!(o, Output::Request { to, request: Request::Ask(_), .. } if to == peer(8));
    assert!(std::iter::from_fn(|| alone.poll_output()).any(asked));
    alone
}

#[test]
fn sealed_bids_count_only_in_the_first_round_and_later_ones_are_nobodys_fault() {
    let mut alone = second_round();
    for _ in 0..2 {
        let late = Bid { expires: START.after(60_000), ..bid(1, 0) };
        let event = Event::Request { from: peer(7), inbound: InboundId(2), request: sealed(7, late) };
        alone.handle(START.after(10_900), event);
    }
    assert!(!std::iter::from_fn(|| alone.poll_output()).any(|o| matches!(o, Output::Notify { .. })));
    assert_eq!(alone.reputation().counts(&peer(7)).count(), 0);
}

#[test]
fn a_sealed_bid_for_a_job_that_was_not_announced_is_ignored() {
    let mut alone = Peer::new(Config::default(), Network::default(), key(1));
    for (n, provider) in [(1, spec()), (2, JobSpec { provider: Some(peer(8)), ..auction() })] {
        let submission = Submission { job: job_id(n), salt: SALT, spec: provider, run: None, trace: None };
        alone.handle(START, Event::Command(Command::Submit(Box::new(submission))));
        let event = Event::Request { from: peer(9), inbound: InboundId(1), request: sealed(9, bid(n, 0)) };
        alone.handle(START, event);
    }
    assert!(!std::iter::from_fn(|| alone.poll_output()).any(|o| matches!(o, Output::Notify { .. })));
    assert_eq!(alone.reputation().counts(&peer(9)).count(), 0);
}

#[test]
fn a_bid_over_the_ceiling_does_not_count() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(2000)]);
    let mut wanted = auction();
    wanted.requirement.ceiling = Some(price(0, 2000));
    world.submit(peer(1), job_id(1), wanted);
    let dear = Bid { offer: text_offer(2001), ..bid(1, 0) };
    world.request(peer(1), peer(9), sealed(9, dear));
    assert_eq!(wins_the_honest(world).evidence(peer(1), peer(9)), [(Evidence::Unexpected, 1)]);
}

#[test]
fn a_bid_with_another_capability_or_model_does_not_count() {
    let mut world = open_auction();
    let other = Bid { offer: offer(&capability("text.embedding"), 0), ..bid(1, 0) };
    world.request(peer(1), peer(9), sealed(9, other));
    assert_eq!(wins_the_honest(world).evidence(peer(1), peer(9)), [(Evidence::Unexpected, 1)]);
}

#[test]
fn a_forged_bid_blocks_who_presents_it() {
    let forged = |n: u8| {
        let signed = Signed::sign(&Network::default(), &key(9), bid(1, 0)).into_signed();
        let other: Network = "test".parse().unwrap();
        match n {
            0 => forge(&signed),
            1 => Signed::sign(&other, &key(9), bid(1, 0)).into_signed(),
            2 => Signed::sign(&Network::default(), &key(8), bid(1, 0)).into_signed(),
            3 => Signed::sign(&Network::default(), &key(9), Bid { requester: peer(2), ..bid(1, 0) })
                .into_signed(),
            _ => Signed::from_parts(peer(9), vec![0; 100_000], *signed.signature()),
        }
    };
    for n in 0..5 {
        let mut world = open_auction();
        world.request(peer(1), peer(9), Request::Bid(forged(n)));
        let world = wins_the_honest(world);
        assert_eq!(world.evidence(peer(1), peer(9)), [(Evidence::BadSignature, 1)], "{n}");
        assert!(world.blocked(peer(1), peer(9)), "{n}");
    }
}

#[test]
fn a_quote_for_another_job_is_no_answer() {
    let mut peer_alone = Peer::new(Config::default(), Network::default(), key(1));
    let mut tell = |event| {
        peer_alone.handle(START, event);
        std::iter::from_fn(|| peer_alone.poll_output()).collect::<Vec<_>>()
    };
    let submission =
        Submission { job: job_id(1), salt: SALT, spec: for_peer(peer(9)), run: None, trace: None };
    let asked = tell(Event::Command(Command::Submit(Box::new(submission))));
    let id = asked.iter().find_map(|o| if let Output::Request { id, .. } = o { Some(*id) } else { None });
    let other = Signed::sign(&Network::default(), &key(9), bid(2, 0)).into_signed();
    let answer = Event::Answer { id: id.unwrap(), from: peer(9), answer: Some(Response::Bid(other)) };
    // There is nobody else to ask, so the job is over at once and not at the deadline for quotes.
    let failed = |o: &Output| matches!(o, Output::Notify { event: JobEvent::Failed(JobError::Engine), .. });
    assert!(tell(answer).iter().any(failed));
    assert_eq!(peer_alone.reputation().counts(&peer(9)).collect::<Vec<_>>(), [(Evidence::Unexpected, 1)]);
}

#[test]
fn a_quote_of_a_peer_that_was_blocked_since_it_was_asked_does_not_count() {
    let mut alone = Peer::new(Config::default(), Network::default(), key(1));
    let submission =
        Submission { job: job_id(1), salt: SALT, spec: for_peer(peer(9)), run: None, trace: None };
    alone.handle(START, Event::Command(Command::Submit(Box::new(submission))));
    let id = std::iter::from_fn(|| alone.poll_output())
        .find_map(|o| if let Output::Request { id, .. } = o { Some(id) } else { None });
    alone.handle(START, Event::Misbehaved { peer: peer(9), evidence: Evidence::BadReceipt });
    let quote = Signed::sign(&Network::default(), &key(9), bid(1, 0)).into_signed();
    alone.handle(START, Event::Answer { id: id.unwrap(), from: peer(9), answer: Some(Response::Bid(quote)) });
    let told: Vec<_> = std::iter::from_fn(|| alone.poll_output())
        .filter_map(|o| if let Output::Notify { event, .. } = o { Some(event) } else { None })
        .collect();
    assert!(matches!(told[..], [JobEvent::Failed(JobError::NoTaker { asked: 1 })]), "{told:?}");
}

#[test]
fn an_answer_to_no_question_changes_nothing() {
    let mut world = open_auction();
    let signed = Signed::sign(&world.network, &key(9), bid(1, 0)).into_signed();
    let answer = Some(Response::Bid(signed));
    world.deliver(peer(1), Event::Answer { id: RequestId(77), from: peer(9), answer });
    assert_eq!(wins_the_honest(world).evidence(peer(1), peer(9)), []);
}

#[test]
fn a_bidder_that_is_blocked_before_the_award_never_sees_the_prompt() {
    let mut world = open_auction();
    world.request(peer(1), peer(9), sealed(9, bid(1, 0)));
    world.request(peer(1), peer(9), sealed(8, bid(1, 0)));
    assert!(world.blocked(peer(1), peer(9)));
    world.request(peer(1), peer(9), sealed(9, bid(1, 0)));
    assert_eq!(wins_the_honest(world).evidence(peer(1), peer(9)), [(Evidence::BadSignature, 1)]);
}

#[test]
fn equal_prices_are_decided_by_time_then_faults_then_key() {
    let mut slow = text_offer(1000);
    slow.speed.decode = 10;
    let low = peer(2).min(peer(3));
    let high = peer(2).max(peer(3));

    let mut world = World::of(3);
    world.offer(low, vec![slow]);
    world.offer(high, vec![text_offer(1000)]);
    world.submit(peer(1), job_id(1), auction());
    world.finish(job_id(1));
    assert_eq!(world.started(job_id(1)), [high], "the faster");

    world.offer(low, vec![text_offer(1000)]);
    world.submit(peer(1), job_id(2), auction());
    world.finish(job_id(2));
    assert_eq!(world.started(job_id(2)), [low], "the lower key");

    world.deliver(peer(1), Event::Misbehaved { peer: low, evidence: Evidence::Malformed });
    world.submit(peer(1), job_id(3), auction());
    world.finish(job_id(3));
    assert_eq!(world.started(job_id(3)), [high], "the one with fewer faults");
}

#[test]
fn a_busy_provider_says_so_and_the_next_bid_wins() {
    let mut world = World::with(3, one_place());
    world.offer(peer(2), vec![text_offer(1000)]);
    world.offer(peer(3), vec![text_offer(2000)]);
    world.script(peer(2), Vec::new());
    world.submit(peer(1), job_id(1), spec());
    assert_eq!(world.started(job_id(1)), [peer(2)]);
    world.elapse(6_000);
    world.submit(peer(1), job_id(2), spec());
    assert!(matches!(world.finish(job_id(2)), JobEvent::Done(_)));
    assert_eq!(world.started(job_id(2)), [peer(3)]);
    assert_eq!(world.evidence(peer(1), peer(2)), [], "busy is an answer");
}

#[test]
fn when_everybody_is_busy_the_user_learns_when_to_come_back() {
    let mut world = World::with(2, one_place());
    world.offer(peer(2), vec![text_offer(0)]);
    world.script(peer(2), Vec::new());
    world.submit(peer(1), job_id(1), spec());
    world.submit(peer(1), job_id(2), spec());
    let JobEvent::Failed(error) = world.finish(job_id(2)) else { panic!("failed") };
    assert_eq!(error, JobError::Busy { retry_after_ms: 5_000 });
    assert!(error.retryable());
}

#[test]
fn a_winner_that_refuses_its_own_bid_loses_the_job_to_the_next() {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.offer(peer(3), vec![text_offer(2000)]);
    world.script(peer(2), Vec::new());
    world.bend(peer(1), {
        let first = peer(2);
        move |frame| match frame {
            // The order to the cheaper one is delayed until its lease is over.
            Frame::Start(start)
                if start.order.clone().verify(&Network::default()).unwrap().provider == first =>
            {
                vec![]
            }
            Frame::Probe { .. } => vec![],
            frame => vec![frame],
        }
    });
    world.submit(peer(1), job_id(1), spec());
    let busy = JobError::Busy { retry_after_ms: 1 };
    let refusal = Frame::Fail { job: job_id(1), error: busy };
    world.deliver(
        peer(1),
        Event::Frame { from: peer(2), side: protocol::event::Side::Requester, frame: refusal },
    );
    assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
    assert_eq!(world.started(job_id(1)), [peer(2), peer(3)]);
    assert_eq!(world.evidence(peer(1), peer(2)), [(Evidence::BrokenLease, 1)]);
}

#[test]
fn a_bidder_that_broke_its_promise_cannot_bid_for_that_job_again() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(9000)]);
    world.submit(peer(1), job_id(1), auction());
    world.request(peer(1), peer(9), sealed(9, bid(1, 0)));
    world.script(peer(2), vec![Production::Failed(JobError::Engine)]);
    world.elapse(800);
    assert_eq!(world.started(job_id(1)), [peer(9), peer(2)], "the puppet is not there, then the agent fails");
    world.request(peer(1), peer(9), sealed(9, bid(1, 0)));
    assert_eq!(world.started(job_id(1)).iter().filter(|p| **p == peer(9)).count(), 1);
}

#[test]
fn an_announcement_that_has_closed_gets_no_bid() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(0)]);
    let ask = Ask { deadline: Timestamp(u64::MAX), ..ask(job_id(1)) };
    let closed = Announcement::Job { ask: ask.clone(), closes: Timestamp(START.0 - 60_000) };
    world.deliver(peer(2), Event::Announced { from: peer(1), announcement: closed });
    let bids =
        |world: &World| world.journal.iter().filter(|(_, o)| matches!(o, Output::Request { .. })).count();
    assert_eq!(bids(&world), 0);
    // A minute is what honest clocks may differ by.
    let open = Announcement::Job { ask, closes: Timestamp(START.0 - 59_999) };
    world.deliver(peer(2), Event::Announced { from: peer(1), announcement: open });
    assert_eq!(bids(&world), 1);
}

#[test]
fn the_largest_offer_that_a_profile_may_hold_fits_a_bid() {
    let name = "x".repeat(protocol::AgentOffer::MAX_NAME);
    let list = vec![name.clone(); protocol::AgentOffer::MAX_LIST];
    let mut offer = text_offer(u64::MAX);
    offer.kinds = JobKind::ALL.to_vec();
    offer.capability = capability(&format!("{}.b", "a".repeat(Capability::MAX_LEN - 2)));
    (offer.agent, offer.languages, offer.modalities, offer.tools) =
        (name.clone(), list.clone(), list.clone(), list);
    if let Some(model) = &mut offer.model {
        (model.name, model.engine, model.context) = (name.clone(), name, u32::MAX);
    }
    let bid = Bid { offer, expires: Timestamp(u64::MAX), queue: u32::MAX, ..bid(1, 0) };
    let signed = Signed::sign(&Network::default(), &key(2), bid).into_signed();
    assert!(signed.clone().verify(&Network::default()).is_ok());
    let bytes = protocol::Message::to_bytes(&Response::Bid(signed));
    assert!(<Response as protocol::Message>::from_bytes(&bytes).is_ok());
}
