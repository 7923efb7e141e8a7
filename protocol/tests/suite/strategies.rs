//! What providers ask: each rule alone, all of them in any order, and their form in a configuration.

use std::collections::BTreeSet;

use crypto::PeerId;
use proptest::prelude::*;
use protocol::error::Limit;
use protocol::market::{self, Rule, bidder};
use protocol::message::Ask;
use protocol::peer::Config;
use protocol::{Credits, JobError, Output, Price, Request, Response};

use crate::any;
use crate::values::*;
use crate::world::World;

/// Peer 2 asks 1000 by its profile, and lives by these rules.
fn provider(rules: &[Rule]) -> World {
    let strategy = market::Strategy(rules.to_vec());
    let bidder = bidder::Config { strategy, ..bidder::Config::default() };
    let mut world = World::with(2, Config { bidder, ..Config::default() });
    world.offer(peer(2), vec![text_offer(1000)]);
    world
}

fn wanted(job: u8, ceiling: Option<Price>) -> Ask {
    let mut ask = ask(job_id(job));
    ask.requirement.ceiling = ceiling;
    ask
}

/// What peer 2 asks of `from`.
fn quote(world: &mut World, from: PeerId, ask: Ask) -> Result<Price, JobError> {
    world.request(peer(2), from, Request::Ask(ask));
    let Some((_, Output::Respond { response, .. })) = world.journal.last() else { panic!("an answer") };
    match response {
        Response::Bid(bid) => Ok(bid.clone().verify(&world.network).unwrap().price()),
        Response::Decline(error) => Err(error.clone()),
        _ => panic!("neither a bid nor a refusal"),
    }
}

fn alone(rule: Rule) -> Result<Price, JobError> {
    quote(&mut provider(&[rule]), peer(1), wanted(1, None))
}

const TOO_LITTLE: JobError = JobError::Limit { limit: Limit::Budget };

#[test]
fn without_rules_a_bid_asks_what_the_profile_says() {
    assert_eq!(quote(&mut provider(&[]), peer(1), wanted(1, None)), Ok(price(0, 1000)));
}

#[test]
fn a_floor_raises_and_never_lowers() {
    assert_eq!(alone(Rule::Floor { price: price(7, 10) }), Ok(price(7, 1000)));
    assert_eq!(alone(Rule::Floor { price: price(0, 1001) }), Ok(price(0, 1001)));
}

#[test]
fn whoever_is_not_allowed_learns_nothing_of_what_is_on_offer() {
    let peers = BTreeSet::from([peer(3)]);
    let mut world = provider(&[Rule::Allow { peers }]);
    let refused = quote(&mut world, peer(1), wanted(1, None));
    let Err(JobError::NothingOffered { sample, .. }) = refused else { panic!("refused") };
    assert_eq!(sample, []);
    assert!(quote(&mut world, peer(3), wanted(1, None)).is_ok());
}

#[test]
fn the_price_grows_with_the_places_that_are_held() {
    let mut world = provider(&[Rule::Load { percent: 10 }]);
    let prices = (1..=4).map(|job| quote(&mut world, peer(job), wanted(job, None)).unwrap().completion.0);
    assert_eq!(prices.collect::<Vec<_>>(), [1000, 1100, 1200, 1300]);
    assert_eq!(
        quote(&mut world, peer(4), wanted(4, None)),
        Ok(price(0, 1300)),
        "a second ask holds no place against itself"
    );
    world.elapse(5_000);
    assert_eq!(quote(&mut world, peer(1), wanted(5, None)), Ok(price(0, 1000)), "leases have ended");
}

#[test]
fn a_requester_gets_no_more_places_than_its_share() {
    let mut world = provider(&[Rule::Places { per_requester: 2 }]);
    assert!((1..=2).all(|job| quote(&mut world, peer(1), wanted(job, None)).is_ok()));
    assert_eq!(quote(&mut world, peer(1), wanted(3, None)), Err(JobError::Busy { retry_after_ms: 5_000 }));
    assert!(quote(&mut world, peer(3), wanted(3, None)).is_ok(), "others have theirs");
    assert!(quote(&mut world, peer(1), wanted(2, None)).is_ok(), "the same job again is no further place");
}

#[test]
fn a_job_that_brings_too_little_is_not_taken() {
    // A hundred tokens at 1000 for a thousand.
    assert!(alone(Rule::Worth { least: Credits(100) }).is_ok());
    assert_eq!(alone(Rule::Worth { least: Credits(101) }), Err(TOO_LITTLE));
    let dear = [Rule::Floor { price: price(0, 2000) }, Rule::Worth { least: Credits(200) }];
    assert!(quote(&mut provider(&dear), peer(1), wanted(1, None)).is_ok(), "rules apply in order");
    let [floor, worth] = dear;
    assert!(quote(&mut provider(&[worth, floor]), peer(1), wanted(1, None)).is_err());
}

#[test]
fn a_margin_gives_way_to_the_ceiling_and_a_floor_does_not() {
    let mut margin = provider(&[Rule::Margin { percent: 50 }]);
    assert_eq!(quote(&mut margin, peer(1), wanted(1, None)), Ok(price(0, 1500)));
    assert_eq!(quote(&mut margin, peer(1), wanted(1, Some(price(9, 1200)))), Ok(price(0, 1200)));
    let mut busy = provider(&[Rule::Load { percent: 50 }]);
    assert!(quote(&mut busy, peer(3), wanted(2, None)).is_ok());
    assert_eq!(quote(&mut busy, peer(1), wanted(1, Some(price(9, 1499)))), Err(TOO_LITTLE));
    assert_eq!(quote(&mut busy, peer(1), wanted(1, Some(price(9, 1500)))), Ok(price(0, 1500)));
}

fn rule() -> BoxedStrategy<Rule> {
    let money = || (0u64..3000, 0u64..3000).prop_map(|(prompt, completion)| price(prompt, completion));
    prop_oneof![
        prop::collection::btree_set(any::some_peer(), 1..4).prop_map(|peers| Rule::Allow { peers }),
        money().prop_map(|price| Rule::Floor { price }),
        any::<u16>().prop_map(|percent| Rule::Load { percent }),
        any::<u16>().prop_map(|percent| Rule::Margin { percent }),
        (0usize..3).prop_map(|per_requester| Rule::Places { per_requester }),
        (0u64..300).prop_map(|least| Rule::Worth { least: Credits(least) }),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the rules and whoever asks: no bid asks less than the profile says, or more than the ceiling; and what
    /// is refused holds no place.
    #[test]
    fn no_strategy_goes_under_the_profile_or_over_the_ceiling(
        rules in prop::collection::vec(rule(), 0..5),
        asks in prop::collection::vec((1u8..4, 1u8..6, prop::option::of((0u64..10, 900u64..3000))), 1..8)
    ) {
        let mut world = provider(&rules);
        for (from, job, ceiling) in asks {
            let ceiling = ceiling.map(|(prompt, completion)| price(prompt, completion));
            if let Ok(asked) = quote(&mut world, peer(from), wanted(job, ceiling)) {
                prop_assert!(price(0, 1000).within(&asked));
                prop_assert!(ceiling.is_none_or(|ceiling| asked.within(&ceiling)));
            }
        }
    }

    /// A configuration comes back as it was written.
    #[test]
    fn every_strategy_can_be_written_down(rules in prop::collection::vec(rule(), 0..5)) {
        let strategy = market::Strategy(rules);
        let text = serde_json::to_string(&strategy).unwrap();
        prop_assert_eq!(serde_json::from_str::<market::Strategy>(&text).unwrap(), strategy);
    }
}

#[test]
fn a_strategy_is_a_list_of_tables_and_a_slip_in_it_is_an_error() {
    let read = |text: &str| serde_json::from_str::<market::Strategy>(text);
    let strategy = read(
        r#"[{"rule":"floor","price":{"prompt":1,"completion":2}},{"rule":"load","percent":10},{"rule":"places","per_requester":4}]"#,
    );
    let expected =
        [Rule::Floor { price: price(1, 2) }, Rule::Load { percent: 10 }, Rule::Places { per_requester: 4 }];
    assert_eq!(strategy.unwrap(), market::Strategy(expected.to_vec()));
    for slip in [
        r#"[{"rule":"load","percent":10,"most":5}]"#,
        r#"[{"rule":"lod","percent":10}]"#,
        r#"[{"rule":"load"}]"#,
    ] {
        assert!(read(slip).is_err(), "{slip}");
    }
}
