//! Events from somebody who wishes us ill: valid statements of the wrong kind at the wrong time, and garbage.

use crypto::{Network, Payload, Signed};
use proptest::prelude::*;
use protocol::event::{Command, InboundId, Production, QueryId, RequestId, RunId, Side, Submission};
use protocol::message::{Brief, Start};
use protocol::peer::Config;
use protocol::{
    Event, Evidence, Frame, Inherited, JobEvent, JobKind, Message, Output, Peer, Request, Response, Timestamp,
};

use crate::any;
use crate::values::*;
use crate::world::World;

/// One thing that happens, and how much later.
#[derive(Clone, Debug)]
struct Happening {
    after: u64,
    /// `None`: only time passes.
    event: Option<Event>,
}

/// A statement with a signature that holds, mostly: of this network and the claimed signer.
fn said<T: Payload>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Signed<T>> {
    (value, 1u8..5, 0u8..8).prop_map(|(value, seed, luck)| {
        let network: Network = if luck == 0 { "other".parse().unwrap() } else { Network::default() };
        Signed::sign(&network, &key(seed), value).into_signed()
    })
}

/// A bid that could win: for one of our jobs, made to us.
fn fair_bid() -> impl Strategy<Value = protocol::Bid> {
    (any::some_job(), 0u64..3000, 0u64..9000).prop_map(|(job, price, lease)| protocol::Bid {
        job,
        requester: peer(1),
        offer: text_offer(price),
        queue: 0,
        expires: START.after(lease),
    })
}

fn bid() -> BoxedStrategy<Signed<protocol::Bid>> {
    prop_oneof![said(fair_bid()), said(any::bid())].boxed()
}

fn fair_start() -> BoxedStrategy<Frame> {
    (any::order(), any::<bool>(), 1u8..5)
        .prop_map(|(mut order, honest, seed)| {
            let input = protocol::Input::Text(PROMPT.into());
            if honest {
                (order.provider, order.input, order.issued) = (peer(1), input.commitment(&SALT), START);
                (order.kind, order.constraint, order.sampling) = (spec().kind, None, spec().sampling);
                order.limits = spec().limits;
            }
            let order = Signed::sign(&Network::default(), &key(seed), order).into_signed();
            let brief = Brief { input, salt: SALT, constraint: None, inherited: Inherited::default() };
            Frame::Start(Box::new(Start { order, brief, trace: None }))
        })
        .boxed()
}

fn frame() -> BoxedStrategy<Frame> {
    prop_oneof![
        any::frame(),
        fair_start(),
        (any::some_job(), said(any::acknowledgement()))
            .prop_map(|(job, acknowledgement)| Frame::Acknowledge { job, acknowledgement }),
        (any::some_job(), said(any::segment())).prop_map(|(job, segment)| Frame::Segment { job, segment }),
        (any::some_job(), said(any::receipt())).prop_map(|(job, receipt)| Frame::Finish { job, receipt }),
    ]
    .boxed()
}

fn side() -> impl Strategy<Value = Side> {
    prop::sample::select(vec![Side::Provider, Side::Requester])
}

fn production() -> BoxedStrategy<Production> {
    prop_oneof![
        any::error().prop_map(Production::Failed),
        Just(Production::Finished(protocol::Finish::Length)),
        Just(rendered()),
        any::<[u32; 2]>().prop_map(|[done, of]| Production::Progress { done, of }),
        (0u32..9).prop_map(|index| Production::from(token(index))),
    ]
    .boxed()
}

fn command() -> BoxedStrategy<Command> {
    let submission = (
        any::some_job(),
        any::input(),
        prop::option::weighted(0.3, any::some_peer()),
        (any::<bool>(), prop::option::weighted(0.3, 0u64..3000)),
        0u64..9,
    );
    prop_oneof![
        any::some_job().prop_map(|job| Command::Cancel { job }),
        prop::collection::vec(any::offer(), 0..3).prop_map(Command::Offer),
        Just(Command::Offer(vec![text_offer(5)])),
        submission.prop_map(|(job, input, provider, (sealed, target), run)| {
            let input = if input.check().is_ok() { input } else { spec().input };
            let choosing = if sealed { auction().choosing } else { spec().choosing };
            let target = target.map(|completion| price(0, completion));
            let preference = protocol::Preference { target, ..spec().preference };
            let spec = protocol::JobSpec { input, provider, choosing, preference, ..spec() };
            let run = (run < 3).then_some(RunId(run));
            Command::Submit(Box::new(Submission { job, salt: SALT, spec, run, trace: None }))
        }),
    ]
    .boxed()
}

fn event() -> BoxedStrategy<Event> {
    let response = prop_oneof![any::response(), bid().prop_map(Response::Bid)];
    let request = prop_oneof![
        any::request(),
        bid().prop_map(Request::Bid),
        Just(Request::Profile),
        any::counter().prop_map(Request::Counter)
    ];
    let found = said(any::profile()).prop_map(|p| p.verify(&Network::default()).ok());
    let evidence =
        prop::sample::select(vec![Evidence::Malformed, Evidence::OverCap, Evidence::UnknownVersion]);
    prop_oneof![
        4 => ((0u64..20).prop_map(RequestId), any::some_peer(), prop::option::of(response))
            .prop_map(|(id, from, answer)| Event::Answer { id, from, answer }),
        2 => (any::some_peer(), any::announcement())
            .prop_map(|(from, announcement)| Event::Announced { from, announcement }),
        4 => command().prop_map(Event::Command),
        2 => ((0u64..20).prop_map(QueryId), prop::collection::vec(found, 0..4)).prop_map(|(query, found)| {
            Event::Discovered { query, profiles: found.into_iter().flatten().collect() }
        }),
        8 => (any::some_peer(), side(), frame())
            .prop_map(|(from, side, frame)| Event::Frame { from, side, frame }),
        1 => (any::some_peer(), side()).prop_map(|(peer, side)| Event::Lost { peer, side }),
        1 => (any::some_peer(), evidence).prop_map(|(peer, evidence)| Event::Misbehaved { peer, evidence }),
        4 => ((0u64..4).prop_map(RunId), production()).prop_map(|(run, production)| Event::Produced { run, production }),
        4 => (any::some_peer(), (0u64..20).prop_map(InboundId), request)
            .prop_map(|(from, inbound, request)| Event::Request { from, inbound, request }),
    ].boxed()
}

fn happenings() -> BoxedStrategy<Vec<Happening>> {
    let happening = (prop_oneof![3 => Just(0u64), 1 => 0u64..4000], prop::option::weighted(0.9, event()))
        .prop_map(|(after, event)| Happening { after, event });
    prop::collection::vec(happening, 0..60).boxed()
}

/// Plays the story to a new peer and returns everything that it wanted done.
fn play(story: &[Happening]) -> (Peer, Vec<Output>) {
    let mut peer = Peer::new(Config::default(), Network::default(), key(1));
    peer.handle(START, Event::Command(Command::Offer(vec![text_offer(1000)])));
    let (mut now, mut outputs) = (START, Vec::new());
    for Happening { after, event } in story {
        now = now.after(*after);
        match event {
            Some(event) => peer.handle(now, event.clone()),
            None => peer.handle_timeout(now),
        }
        while let Some(output) = peer.poll_output() {
            // The search itself is honest, so that stories get beyond it: to this peer's own agents at least.
            if let Output::Discover { query, .. } = output {
                peer.handle(now, Event::Discovered { query, profiles: Vec::new() });
            }
            outputs.push(output);
        }
    }
    (peer, outputs)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_story_panics_and_the_same_story_has_the_same_end(story in happenings()) {
        let ((one, outputs), (other, again)) = (play(&story), play(&story));
        prop_assert_eq!(format!("{outputs:?}"), format!("{again:?}"));
        prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }

    #[test]
    fn when_all_is_over_nothing_is_left_under_way(story in happenings()) {
        let (mut peer, _) = play(&story);
        for seed in 1..5 {
            for side in [Side::Provider, Side::Requester] {
                peer.handle(START, Event::Lost { peer: crate::values::peer(seed), side });
            }
        }
        // Every stage has a deadline, so a bounded number of timeouts ends every job.
        let mut now = START.after(1_000_000);
        for _ in 0..20 {
            now = peer.poll_timeout().unwrap_or(now).max(now);
            peer.handle_timeout(now);
        }
        prop_assert_eq!(peer.poll_timeout(), None);
        let text = format!("{peer:?}");
        prop_assert!(text.contains("jobs: {}, asked: {}, queries: {}"), "{}", text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever bit of a provider's stream changes on the way, the user reads nothing that the provider did not say,
    /// and a receipt is accepted only for the whole.
    #[test]
    fn no_changed_bit_reaches_the_user(at in 0usize..45, bit in any::<prop::sample::Index>()) {
        let mut world = World::of(2);
        world.offer(crate::values::peer(2), vec![text_offer(1000)]);
        world.script(crate::values::peer(2), answer(40));
        let mut sent = 0;
        world.bend(crate::values::peer(2), move |frame| {
            sent += 1;
            let mut bytes = frame.to_bytes();
            if sent - 1 != at {
                return vec![frame];
            }
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            Frame::from_bytes(&bytes).into_iter().collect()
        });
        world.submit(crate::values::peer(1), job_id(1), for_peer(crate::values::peer(2)));
        let end = world.finish(job_id(1));
        let honest = |event: &JobEvent| match event {
            JobEvent::Token { index, token: seen, .. } => *seen == token(*index as u32),
            _ => true,
        };
        prop_assert!(world.events(job_id(1)).into_iter().all(honest));
        if let JobEvent::Done(completion) = end {
            prop_assert_eq!(completion.opening.output.len(), 40);
            prop_assert_eq!(completion.receipt.check_opening(&completion.opening), Ok(()));
        }
    }
}

/// How much a peer remembers, as the length of everything that it knows, written out.
fn weight(peer: &Peer) -> usize {
    format!("{peer:?}").len()
}

#[test]
fn strangers_that_ask_and_never_order_fill_nothing() {
    let mut peer = Peer::new(Config::default(), Network::default(), key(1));
    peer.handle(START, Event::Command(Command::Offer(vec![text_offer(1000)])));
    let ask = |job: u16, at: Timestamp| {
        let mut name = [0; 16];
        name[..2].copy_from_slice(&job.to_le_bytes());
        let requirement = spec().requirement;
        let input = crypto::Digest::of("test", b"input");
        let job = protocol::JobId(name);
        protocol::Ask {
            job,
            kind: JobKind::Generate,
            requirement,
            input,
            input_len: 9,
            max_tokens: 9,
            deadline: at.after(60_000),
        }
    };
    let flood = |peer: &mut Peer| {
        for n in 0..500 {
            let from = crate::values::peer(1 + (n % 200) as u8);
            peer.handle(
                START,
                Event::Request { from, inbound: InboundId(1), request: Request::Ask(ask(n, START)) },
            );
            while peer.poll_output().is_some() {}
        }
        weight(peer)
    };
    // The second time, who has a place already gets a new bid that counts the places of all the others.
    flood(&mut peer);
    let full = flood(&mut peer);
    assert_eq!(flood(&mut peer), full, "64 places, and not one more");
}

#[test]
fn strangers_that_misbehave_fill_a_bounded_memory() {
    let mut peer = Peer::new(Config::default(), Network::default(), key(1));
    for n in 0..5000u16 {
        let mut seed = [8; 32];
        seed[..2].copy_from_slice(&n.to_le_bytes());
        let from = crypto::SecretKey::from_seed(&seed).peer_id();
        peer.handle(START, Event::Misbehaved { peer: from, evidence: Evidence::Malformed });
    }
    assert_eq!(peer.reputation().peers().count(), protocol::Reputation::MAX_PEERS);
}

#[test]
fn bids_for_one_job_are_counted_up_to_a_bound() {
    let mut peer = Peer::new(Config::default(), Network::default(), key(1));
    peer.handle(START, Event::Command(Command::Offer(vec![text_offer(1000)])));
    let submission = Submission { job: job_id(1), salt: SALT, spec: auction(), run: None, trace: None };
    peer.handle(START, Event::Command(Command::Submit(Box::new(submission))));
    let query = std::iter::from_fn(|| peer.poll_output())
        .find_map(|o| if let Output::Discover { query, .. } = o { Some(query) } else { None });
    peer.handle(START, Event::Discovered { query: query.unwrap(), profiles: Vec::new() });
    let mut taken = 0;
    for seed in 2..=200 {
        let bid = protocol::Bid {
            job: job_id(1),
            requester: crate::values::peer(1),
            offer: text_offer(10),
            queue: 0,
            expires: START.after(5000),
        };
        let bid = Signed::sign(&Network::default(), &key(seed), bid).into_signed();
        let from = crate::values::peer(seed);
        peer.handle(START, Event::Request { from, inbound: InboundId(2), request: Request::Bid(bid) });
        let offers = std::iter::from_fn(|| peer.poll_output());
        taken += offers.filter(|o| matches!(o, Output::Notify { event: JobEvent::Bid(..), .. })).count();
    }
    assert_eq!(taken, 64, "one of them our own");
    assert!(peer.reputation().peers().next().is_none(), "to be one too many is no fault");
}
