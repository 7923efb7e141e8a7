//! Counter-offers: who may make one, what it gets, and what becomes of the bid.

use crypto::{Network, PeerId, Signed};
use protocol::event::{Command, QueryId, RequestId, Submission};
use protocol::market::{Rule, Strategy, bidder};
use protocol::message::{Bid, Counter};
use protocol::peer::Config;
use protocol::{
    Credits, Event, Evidence, JobError, JobEvent, JobSpec, Output, Peer, Preference, Price, Request, Response,
};

use crate::values::*;
use crate::world::{World, forge, resign};

/// Everybody asks half as much again as it needs.
fn haggling(peers: u8) -> World {
    let strategy = Strategy(vec![Rule::Margin { percent: 50 }]);
    let bidder = bidder::Config { strategy, ..bidder::Config::default() };
    World::with(peers, Config { bidder, ..Config::default() })
}

fn wanting(target: Price, spec: JobSpec) -> JobSpec {
    JobSpec { preference: Preference { target: Some(target), ..Preference::default() }, ..spec }
}

/// For what peer 1's job 1 was done, and how many counter-offers were made.
fn bargain(target: u64, spec: JobSpec) -> (Price, usize) {
    let mut world = haggling(3);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.offer(peer(3), vec![text_offer(2000)]);
    world.submit(peer(1), job_id(1), wanting(price(0, target), spec));
    let JobEvent::Done(completion) = world.finish(job_id(1)) else { panic!("done") };
    assert_eq!(world.started(job_id(1)), [peer(2)], "the cheapest at first");
    assert_eq!(completion.receipt.cost, completion.receipt.price.cost(completion.receipt.usage).unwrap());
    let counters = |o: &Output| matches!(o, Output::Request { request: Request::Counter(_), .. });
    (completion.receipt.price, world.journal.iter().filter(|(_, o)| counters(o)).count())
}

#[test]
fn one_counter_offer_brings_the_price_down_to_the_target_or_the_floor() {
    for spec in [spec(), auction()] {
        assert_eq!(bargain(1500, spec.clone()), (price(0, 1500), 0), "there is nothing to bargain for");
        assert_eq!(bargain(1200, spec.clone()), (price(0, 1200), 1));
        assert_eq!(bargain(10, spec), (price(0, 1000), 1), "nothing under the floor");
    }
}

#[test]
fn a_peer_bargains_with_itself_without_a_packet() {
    let mut world = haggling(1);
    world.offer(peer(1), vec![text_offer(1000)]);
    world.submit(peer(1), job_id(1), wanting(price(0, 1100), spec()));
    let Some(JobEvent::Done(completion)) = world.outcome(job_id(1)) else { panic!("done") };
    assert_eq!(completion.receipt.price, price(0, 1100));
    assert!(world.wire.is_empty());
}

#[test]
fn whoever_asks_no_margin_declines_and_its_bid_stands() {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.submit(peer(1), job_id(1), wanting(price(0, 900), spec()));
    let Some(JobEvent::Done(completion)) = world.outcome(job_id(1)) else { panic!("done") };
    assert_eq!(completion.receipt.price, price(0, 1000));
    assert_eq!(world.evidence(peer(1), peer(2)), [(Evidence::Delivered, 1)], "to decline is no fault");
    assert_eq!(world.evidence(peer(2), peer(1)), []);
}

/// A bid of peer 2's to peer 1, that asks 1500 and would do it for 1000.
fn bid(world: &mut World) -> Signed<Bid> {
    world.offer(peer(2), vec![text_offer(1000)]);
    let Response::Bid(bid) = say(world, peer(1), Request::Ask(ask(job_id(1)))) else { panic!("a bid") };
    bid
}

/// What peer 2 answers.
fn say(world: &mut World, from: PeerId, request: Request) -> Response {
    world.request(peer(2), from, request);
    match world.journal.iter().rev().find(|(_, o)| matches!(o, Output::Respond { .. })) {
        Some((_, Output::Respond { response, .. })) => response.clone(),
        _ => panic!("every request is answered"),
    }
}

fn counter(bid: &Signed<Bid>, completion: u64) -> Request {
    Request::Counter(Counter { job: job_id(1), bid: bid.digest(), price: price(0, completion) })
}

#[test]
fn a_counter_offer_binds_its_bidder_once_and_lengthens_no_lease() {
    let mut world = haggling(2);
    let first = bid(&mut world);
    world.elapse(4_000);
    let Response::Bid(second) = say(&mut world, peer(1), counter(&first, 1100)) else { panic!("a bid") };
    let (first_bid, second_bid) =
        [&first, &second].map(|b| b.clone().verify(&world.network).unwrap().value().clone()).into();
    assert_eq!(second_bid.price(), price(0, 1100));
    assert_eq!(
        Bid { offer: second_bid.offer.clone(), ..first_bid },
        second_bid,
        "all but the offer is the same"
    );
    for again in [&first, &second] {
        assert!(matches!(
            say(&mut world, peer(1), counter(again, 1050)),
            Response::Decline(JobError::Order { .. })
        ));
    }
    assert_eq!(world.evidence(peer(2), peer(1)), [(Evidence::Replayed, 2)]);
}

#[test]
fn nobody_bargains_for_what_was_not_offered_to_it() {
    let mut world = haggling(2);
    let first = bid(&mut world);
    let other = resign(&first, 2, |bid| bid.queue += 1);
    for (from, bid) in [(peer(3), &first), (peer(1), &other)] {
        assert!(matches!(
            say(&mut world, from, counter(bid, 1100)),
            Response::Decline(JobError::Order { .. })
        ));
        assert_eq!(world.evidence(peer(2), from), [(Evidence::Expired, 1)]);
    }
    assert!(
        matches!(say(&mut world, peer(1), counter(&first, 1100)), Response::Bid(_)),
        "the bidder is unmoved"
    );
}

#[test]
fn a_counter_offer_to_a_bid_that_has_expired_gets_nothing() {
    let mut world = haggling(2);
    let first = bid(&mut world);
    world.elapse(5_000);
    assert!(matches!(
        say(&mut world, peer(1), counter(&first, 1100)),
        Response::Decline(JobError::Order { .. })
    ));
    assert_eq!(world.evidence(peer(2), peer(1)), [(Evidence::Expired, 1)]);
}

#[test]
fn a_counter_offer_of_no_less_makes_no_sense() {
    let mut world = haggling(2);
    let first = bid(&mut world);
    for (n, nonsense) in [(1, price(0, 1500)), (2, price(1, 1100)), (3, price(0, 1501))] {
        let counter = Counter { job: job_id(1), bid: first.digest(), price: nonsense };
        let answer = say(&mut world, peer(1), Request::Counter(counter));
        assert!(matches!(answer, Response::Decline(JobError::Invalid { .. })));
        assert_eq!(world.evidence(peer(2), peer(1)), [(Evidence::Unexpected, n)]);
    }
    assert!(matches!(say(&mut world, peer(1), counter(&first, 1100)), Response::Bid(_)));
}

#[test]
fn a_counter_offer_for_a_job_that_runs_is_too_late() {
    let mut world = haggling(2);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.script(peer(2), Vec::new());
    world.submit(peer(1), job_id(1), for_peer(peer(2)));
    let order = world.runs(peer(2))[0].order.bid;
    let late = Request::Counter(Counter { job: job_id(1), bid: order, price: price(0, 1) });
    assert!(matches!(say(&mut world, peer(1), late), Response::Decline(JobError::Order { .. })));
    assert_eq!(world.runs(peer(2))[0].order.price, price(0, 1500));
}

/// Peer 1 alone has countered the bid of peer 9, a puppet, which asked 1500; it wants to pay 1000.
struct Countered {
    peer: Peer,
    first: Signed<Bid>,
    id: RequestId,
}

impl Countered {
    fn new() -> Self {
        let mut peer = Peer::new(Config::default(), Network::default(), key(1));
        let spec = wanting(price(0, 1000), for_peer(crate::values::peer(9)));
        let submission = Submission { job: job_id(1), salt: SALT, spec, run: None, trace: None };
        peer.handle(START, Event::Command(Command::Submit(Box::new(submission))));
        let bid = Bid {
            job: job_id(1),
            requester: crate::values::peer(1),
            offer: text_offer(1500),
            queue: 0,
            expires: START.after(5_000),
        };
        let first = Signed::sign(&Network::default(), &key(9), bid).into_signed();
        let id = request(&mut peer);
        let mut countered = Self { peer, first: first.clone(), id };
        countered.answer(Some(Response::Bid(first)));
        countered.id = request(&mut countered.peer);
        countered
    }

    fn answer(&mut self, answer: Option<Response>) {
        let from = crate::values::peer(9);
        self.peer.handle(START.after(1), Event::Answer { id: self.id, from, answer });
    }

    /// What was ordered, if anything was.
    fn ordered(&mut self) -> Option<Credits> {
        let outputs: Vec<_> = std::iter::from_fn(|| self.peer.poll_output()).collect();
        outputs.iter().find_map(|o| match o {
            Output::Notify { event: JobEvent::Started { offer, .. }, .. } => Some(offer.price.completion),
            _ => None,
        })
    }

    fn evidence(&self) -> Vec<(Evidence, u32)> {
        self.peer.reputation().counts(&crate::values::peer(9)).collect()
    }
}

/// The name of the latest request.
fn request(peer: &mut Peer) -> RequestId {
    let outputs = std::iter::from_fn(|| peer.poll_output());
    outputs
        .filter_map(|o| if let Output::Request { id, .. } = o { Some(id) } else { None })
        .last()
        .expect("a request")
}

#[test]
fn an_answer_for_less_is_taken_and_an_old_bid_stands_without_one() {
    let mut taken = Countered::new();
    let second = resign(&taken.first, 9, |bid| bid.offer.price = price(0, 1200));
    taken.answer(Some(Response::Bid(second)));
    assert_eq!(taken.ordered(), Some(Credits(1200)));
    for answer in [None, Some(Response::Decline(JobError::Engine))] {
        let mut refused = Countered::new();
        refused.answer(answer);
        assert_eq!((refused.ordered(), refused.evidence()), (Some(Credits(1500)), vec![]));
    }
    let mut silent = Countered::new();
    silent.peer.handle_timeout(START.after(500));
    assert_eq!(silent.ordered(), None);
    silent.peer.handle_timeout(START.after(501));
    assert_eq!(silent.ordered(), Some(Credits(1500)));
    let late = resign(&silent.first, 9, |bid| bid.offer.price = price(0, 1));
    silent.answer(Some(Response::Bid(late)));
    assert_eq!((silent.ordered(), silent.evidence()), (None, vec![]), "what comes later changes nothing");
}

#[test]
fn an_answer_that_is_more_than_a_lower_price_is_held_against_the_bidder_and_its_bid_stands() {
    let bends: [fn(&mut Bid); 7] = [
        |_| {},
        |bid| bid.offer.price = price(0, 1501),
        |bid| bid.offer.price = price(1, 1000),
        |bid| (bid.offer.price, bid.queue) = (price(0, 1000), 1),
        |bid| (bid.offer.price, bid.job) = (price(0, 1000), job_id(2)),
        |bid| (bid.offer.price, bid.expires) = (price(0, 1000), START.after(60_000)),
        |bid| (bid.offer.price, bid.offer.model) = (price(0, 1000), None),
    ];
    for (n, bend) in bends.into_iter().enumerate() {
        let mut countered = Countered::new();
        let bent = resign(&countered.first, 9, bend);
        countered.answer(Some(Response::Bid(bent)));
        assert_eq!(countered.ordered(), Some(Credits(1500)), "{n}");
        assert_eq!(countered.evidence(), [(Evidence::Unexpected, 1)], "{n}");
    }
    let mut countered = Countered::new();
    countered.answer(Some(Response::Received));
    assert_eq!(countered.ordered(), Some(Credits(1500)));
    assert_eq!(countered.evidence(), [(Evidence::Unexpected, 1)]);
}

#[test]
fn a_forged_answer_loses_the_bidder_its_first_bid_too() {
    let lower = |first: &Signed<Bid>, seed| resign(first, seed, |bid| bid.offer.price = price(0, 1000));
    for n in 0..2 {
        let mut countered = Countered::new();
        let forged = if n == 0 { forge(&lower(&countered.first, 9)) } else { lower(&countered.first, 8) };
        countered.answer(Some(Response::Bid(forged)));
        assert_eq!(countered.ordered(), None, "{n}");
        assert_eq!(countered.evidence(), [(Evidence::BadSignature, 1)], "{n}");
    }
}

#[test]
fn after_a_counter_offer_either_bid_can_be_ordered_but_not_both() {
    // The answer to the counter-offer is lost, so the requester orders the first bid; the provider honours it.
    let mut world = haggling(2);
    world.offer(peer(2), vec![text_offer(1000)]);
    let mut requester = Peer::new(Config::default(), Network::default(), key(9));
    let spec = wanting(price(0, 1000), for_peer(peer(2)));
    let submission = Submission { job: job_id(1), salt: SALT, spec, run: None, trace: None };
    requester.handle(START, Event::Command(Command::Submit(Box::new(submission))));
    for lost in [false, true] {
        let request = std::iter::from_fn(|| requester.poll_output()).find_map(|o| {
            if let Output::Request { id, request, .. } = o { Some((id, request)) } else { None }
        });
        let (id, request) = request.expect("an ask, then a counter-offer");
        let answer = Some(say(&mut world, peer(9), request)).filter(|_| !lost);
        requester.handle(START, Event::Answer { id, from: peer(2), answer });
    }
    let start = std::iter::from_fn(|| requester.poll_output())
        .find_map(|o| if let Output::Frame { frame, .. } = o { Some(frame) } else { None });
    let side = protocol::event::Side::Provider;
    world.deliver(peer(2), Event::Frame { from: peer(9), side, frame: start.clone().expect("an order") });
    assert_eq!(world.runs(peer(2))[0].order.price, price(0, 1500));
    world.deliver(peer(2), Event::Frame { from: peer(9), side, frame: start.expect("an order") });
    assert_eq!(world.runs(peer(2)).len(), 1);
}

#[test]
fn a_search_that_answers_twice_starts_no_second_bargain() {
    let mut countered = Countered::new();
    for query in 0..9 {
        countered.peer.handle(START, Event::Discovered { query: QueryId(query), profiles: Vec::new() });
    }
    assert_eq!(countered.ordered(), None);
    assert_eq!(countered.peer.poll_timeout(), Some(START.after(501)));
}
