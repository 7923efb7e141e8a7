//! Providers that are lost in the middle of an answer: the next one goes on, and the reader cannot tell.

use std::cell::Cell;
use std::rc::Rc;

use crypto::Digest;
use proptest::prelude::*;
use protocol::event::{Production, Side};
use protocol::message::{Brief, Start};
use protocol::session::requester::MAX_TAKEOVERS;
use protocol::{
    AgentOffer, Event, Evidence, Finish, Frame, Inherited, JobError, JobEvent, JobSpec, Message, ModelOffer,
    Output, Price, Receipt, Sampling, Token,
};

use crate::values::*;
use crate::world::{World, resign};

/// Peers 2, 3, … have the same model; 2 is the cheapest. Peer 1 has ordered an answer, and nothing has come yet.
fn begun(peers: u8, spec: JobSpec) -> World {
    let mut world = World::of(peers);
    for seed in 2..=peers {
        world.offer(peer(seed), vec![text_offer(1000 * u64::from(seed))]);
        world.script(peer(seed), Vec::new());
    }
    world.submit(peer(1), job_id(1), spec);
    world
}

/// The agent of `seed` reads the prompt and gives the tokens from where its predecessor stopped up to `end`.
fn write(world: &mut World, seed: u8, end: u32) {
    let run = world.runs(peer(seed)).last().map(|run| (run.run, run.inherited.len() as u32));
    let (run, first) = run.expect("an agent at work");
    world.produce(peer(seed), run, rendered());
    go_on(world, seed, first, end);
}

fn go_on(world: &mut World, seed: u8, first: u32, end: u32) {
    let run = world.runs(peer(seed)).last().unwrap().run;
    for index in first..end {
        let activations = Some(Digest::of_content(&index.to_le_bytes()));
        world.produce(
            peer(seed),
            run,
            Production::Token { token: token(index), activations, logprobs: None },
        );
    }
}

fn end(world: &mut World, seed: u8) {
    let run = world.runs(peer(seed)).last().unwrap().run;
    world.produce(peer(seed), run, Production::Finished(Finish::EndOfText));
}

/// What the reader saw, in order.
fn read(world: &World) -> Vec<(u64, Token)> {
    let token = |event: &&JobEvent| match event {
        JobEvent::Token { index, token, .. } => Some((*index, token.clone())),
        _ => None,
    };
    world.events(job_id(1)).iter().filter_map(token).collect()
}

fn done(world: &mut World) -> Box<protocol::event::Completion> {
    match world.finish(job_id(1)) {
        JobEvent::Done(done) => done,
        other => panic!("{other:?}"),
    }
}

proptest! {
    /// However often and wherever providers die: every token comes once, in order, and the receipt answers for all.
    #[test]
    fn no_token_is_lost_or_doubled_wherever_providers_die(cuts in prop::collection::vec(1u32..50, 0..4), rest in 0u32..50) {
        let count = cuts.len() as u8;
        let mut world = begun(2 + count, spec());
        let mut length = 0;
        for (seed, cut) in (2..).zip(&cuts) {
            length = (length + cut).min(99);
            write(&mut world, seed, length);
            world.unplug(peer(seed));
        }
        let last = 2 + count;
        let whole = (length + rest).min(100);
        write(&mut world, last, whole);
        end(&mut world, last);
        let done = done(&mut world);
        let expected: Vec<_> = (0..whole).map(|index| (u64::from(index), token(index))).collect();
        prop_assert_eq!(read(&world), expected);
        prop_assert_eq!(done.receipt.signer(), peer(last));
        prop_assert_eq!(done.receipt.check_opening(&done.opening), Ok(()));
        prop_assert_eq!(done.receipt.answer_tokens(), whole);
        prop_assert_eq!(done.receipt.prompt_tokens(), 5);
        prop_assert_eq!(done.receipt.segments.len() as u32, whole / 32);
        prop_assert_eq!(world.peer(peer(1)).takeovers().total, u64::from(count));
        // Who streamed a whole segment has signed it, whoever finished the answer.
        let mut first = 0;
        for (seed, cut) in (2..).zip(&cuts) {
            let signed = first / 32..((first + cut).min(99) / 32);
            for stretch in signed {
                prop_assert_eq!(done.receipt.segments[stretch as usize].provider, peer(seed));
            }
            first = (first + cut).min(99);
        }
        prop_assert_eq!(world.peer(peer(1)).ledger().account(&peer(last)).spent, done.receipt.cost);
    }
}

#[test]
fn what_was_inherited_is_read_and_not_written() {
    let mut world = begun(3, spec());
    write(&mut world, 2, 40);
    world.unplug(peer(2));
    write(&mut world, 3, 50);
    end(&mut world, 3);
    let done = done(&mut world);
    assert_eq!((done.receipt.usage.prompt_tokens, done.receipt.usage.completion_tokens), (45, 10));
    assert_eq!(done.receipt.continues.map(|continues| continues.tokens), Some(40));
    assert_eq!(world.evidence(peer(1), peer(2)), [(Evidence::Vanished, 1)]);
}

#[test]
fn a_provider_that_does_not_even_answer_is_missed_within_a_few_tokens() {
    let mut world = begun(3, spec());
    write(&mut world, 2, 1);
    for index in 1..20 {
        world.elapse(5);
        go_on(&mut world, 2, index, index + 1);
    }
    // Killed, over a transport that does not tell: nothing of it comes any more.
    world.bend(peer(2), |_| vec![]);
    let before = world.now;
    world.elapse(139);
    assert_eq!(world.started(job_id(1)), [peer(2)]);
    world.elapse(1);
    assert_eq!(world.started(job_id(1)), [peer(2), peer(3)]);
    assert_eq!(world.now.since(before), 140);
    let hung_up =
        |(who, o): &(_, Output)| *who == peer(1) && matches!(o, Output::HangUp { peer: p } if *p == peer(2));
    assert!(world.journal.iter().any(hung_up), "nothing leads to it any more");
    write(&mut world, 3, 30);
    end(&mut world, 3);
    assert_eq!(read(&world).len(), 30);
    assert_eq!(done(&mut world).receipt.signer(), peer(3));
    assert_eq!(world.evidence(peer(1), peer(2)), [(Evidence::Stalled, 1)]);
    assert!(!world.blocked(peer(1), peer(2)));
}

#[test]
fn a_provider_that_is_only_slow_keeps_its_job() {
    let mut world = begun(3, spec());
    write(&mut world, 2, 1);
    for index in 1..10 {
        world.elapse(5);
        go_on(&mut world, 2, index, index + 1);
    }
    world.elapse(15_000);
    assert_eq!(world.started(job_id(1)), [peer(2)], "it answers when it is asked");
    go_on(&mut world, 2, 10, 11);
    world.elapse(30_000);
    assert_eq!(world.started(job_id(1)), [peer(2), peer(3)], "but an answer that has begun goes on");
    assert!(!world.journal.iter().any(|(_, o)| matches!(o, Output::HangUp { .. })), "and it is there");
}

#[test]
fn who_was_given_up_too_soon_is_stopped_and_counted() {
    let mut world = begun(3, spec());
    write(&mut world, 2, 20);
    let held = Rc::new(Cell::new(true));
    let holds = Rc::clone(&held);
    world.bend(peer(2), move |frame| if holds.get() { vec![] } else { vec![frame] });
    world.elapse(4_000);
    assert_eq!(world.started(job_id(1)), [peer(2), peer(3)]);
    assert!(world.aborted(peer(2), world.runs(peer(2))[0].run), "the old stream is cancelled");
    held.set(false);
    // A token that was under way.
    let (token, commitment) = (token(20), crypto::Commitment(Digest::of_content(b"")));
    let late = Frame::Token { job: job_id(1), index: 20, token, commitment, logprobs: None };
    for _ in 0..2 {
        world.deliver(peer(1), Event::Frame { from: peer(2), side: Side::Requester, frame: late.clone() });
    }
    let takeovers = world.peer(peer(1)).takeovers();
    assert_eq!((takeovers.total, takeovers.hasty), (1, 1), "once each");
    write(&mut world, 3, 21);
    end(&mut world, 3);
    assert_eq!(read(&world).len(), 21);
    assert_eq!(world.evidence(peer(1), peer(2)), [(Evidence::Stalled, 1)]);
}

#[test]
fn a_token_that_does_not_follow_is_another_providers_chance() {
    let mut world = begun(3, spec());
    write(&mut world, 2, 7);
    world.bend(peer(2), |frame| match frame {
        Frame::Token { job, index, token, logprobs, .. } => {
            let commitment = crypto::Commitment(Digest::of_content(b"wrong"));
            vec![Frame::Token { job, index, token, commitment, logprobs }]
        }
        frame => vec![frame],
    });
    go_on(&mut world, 2, 7, 8);
    assert!(world.blocked(peer(1), peer(2)));
    write(&mut world, 3, 9);
    end(&mut world, 3);
    done(&mut world);
    assert_eq!(read(&world).len(), 9);
}

/// Peer 2 dies after 40 tokens, and nobody is there who can go on.
fn nobody_goes_on(offer: AgentOffer) -> JobError {
    let mut world = begun(2, spec());
    world.offer(peer(1), vec![offer]);
    world.script(peer(1), Vec::new());
    write(&mut world, 2, 40);
    world.unplug(peer(2));
    let JobEvent::Failed(error) = world.finish(job_id(1)) else { panic!("failed") };
    assert_eq!(read(&world).len(), 40);
    assert_eq!(world.started(job_id(1)), [peer(2)]);
    error
}

#[test]
fn only_the_same_model_on_the_same_engine_goes_on() {
    let dear = text_offer(9000);
    let bend = |change: fn(&mut ModelOffer)| {
        let mut model = dear.model.clone();
        model.iter_mut().for_each(change);
        AgentOffer { model, ..dear.clone() }
    };
    for offer in [
        bend(|model| model.digest = Digest::of_content(b"other")),
        bend(|model| model.engine = "candle-f32/2".into()),
        AgentOffer { model: None, ..dear.clone() },
    ] {
        assert_eq!(nobody_goes_on(offer), JobError::ProviderLost);
    }
}

#[test]
fn the_only_provider_may_come_back_and_go_on() {
    for (away, comes_back) in [(500, true), (3_500, true), (5_000, false)] {
        let mut world = begun(2, spec());
        write(&mut world, 2, 3);
        world.unplug(peer(2));
        assert!(world.outcome(job_id(1)).is_none(), "it may only have been slow");
        world.elapse(away);
        world.plug_in(peer(2));
        world.elapse(1_000);
        assert_eq!(world.started(job_id(1)).len(), if comes_back { 2 } else { 1 });
        assert_eq!(world.outcome(job_id(1)).is_none(), comes_back);
    }
}

#[test]
fn a_job_that_names_its_provider_dies_with_it() {
    let mut world = begun(3, for_peer(peer(2)));
    write(&mut world, 2, 3);
    world.unplug(peer(2));
    assert!(matches!(world.finish(job_id(1)), JobEvent::Failed(JobError::ProviderLost)));
    assert_eq!(world.started(job_id(1)), [peer(2)]);
}

#[test]
fn an_answer_without_ids_cannot_be_continued() {
    let mut world = World::of(3);
    for seed in [2, 3] {
        world.offer(peer(seed), vec![AgentOffer { model: None, ..text_offer(1000 * u64::from(seed)) }]);
        world.script(peer(seed), Vec::new());
    }
    world.submit(peer(1), job_id(1), spec());
    let run = world.runs(peer(2))[0].run;
    world.produce(peer(2), run, Production::from(Token { id: None, text: "piece".into() }));
    world.unplug(peer(2));
    assert!(matches!(world.outcome(job_id(1)), Some(JobEvent::Failed(JobError::ProviderLost))));
}

#[test]
fn who_takes_over_from_one_that_committed_to_nothing_commits_to_nothing() {
    let mut world = begun(3, spec());
    world.bend(peer(2), |frame| match frame {
        Frame::Segment { job, segment } => {
            vec![Frame::Segment { job, segment: resign(&segment, 2, |segment| segment.activations = None) }]
        }
        frame => vec![frame],
    });
    write(&mut world, 2, 40);
    world.unplug(peer(2));
    write(&mut world, 3, 70);
    end(&mut world, 3);
    let done = done(&mut world);
    assert_eq!(done.receipt.check_opening(&done.opening), Ok(()));
    assert_eq!((done.receipt.segments.len(), done.opening.activations.len()), (2, 0));
}

#[test]
fn who_leaves_without_its_word_for_a_stretch_brings_nobody_else_into_disrepute() {
    for end in [32, 33] {
        let mut world = begun(3, spec());
        world.bend(
            peer(2),
            |frame| if matches!(frame, Frame::Segment { .. }) { Vec::new() } else { vec![frame] },
        );
        write(&mut world, 2, end);
        world.unplug(peer(2));
        assert_eq!(world.evidence(peer(3), peer(1)), [], "{end}");
        assert!(matches!(world.finish(job_id(1)), JobEvent::Failed(_)), "{end}");
        let convicted = world.evidence(peer(1), peer(2)).contains(&(Evidence::BadCommitment, 1));
        assert_eq!(convicted, end == 33, "who goes on without its word is convicted, who is lost is not");
        assert_eq!(world.evidence(peer(1), peer(3)), [], "{end}");
    }
}

#[test]
fn a_job_visits_a_bounded_number_of_providers() {
    let peers = MAX_TAKEOVERS as u8 + 4;
    let mut world = begun(peers, spec());
    for round in 0.. {
        let started = world.started(job_id(1));
        let Some(seed) = (2..=peers).find(|seed| started.get(round) == Some(&peer(*seed))) else { break };
        write(&mut world, seed, round as u32 + 1);
        world.unplug(peer(seed));
        if world.outcome(job_id(1)).is_some() {
            break;
        }
        while world.started(job_id(1)).len() == round + 1 && world.outcome(job_id(1)).is_none() {
            world.elapse(1_000);
        }
    }
    assert!(matches!(world.outcome(job_id(1)), Some(JobEvent::Failed(JobError::ProviderLost))));
    assert_eq!(world.started(job_id(1)).len(), MAX_TAKEOVERS as usize + 1);
}

#[test]
fn a_successor_that_reads_the_input_otherwise_is_refused() {
    let mut world = begun(3, spec());
    write(&mut world, 2, 3);
    world.unplug(peer(2));
    let run = world.runs(peer(3))[0].run;
    let other = protocol::Rendering { tokens: 6, ..rendering() };
    world.produce(peer(3), run, Production::Prompt(other));
    let JobEvent::Failed(error) = world.finish(job_id(1)) else { panic!("failed") };
    assert_eq!(error, JobError::Unsupported { feature: protocol::error::Feature::Continuation });
    assert!(world.aborted(peer(3), run));
}

#[test]
fn a_successor_is_shown_exactly_what_was_answered() {
    let bends: [fn(Inherited) -> Inherited; 6] = [
        |inherited| Inherited { output: inherited.output[1..].to_vec(), ..inherited },
        |mut inherited| {
            inherited.output[3].text = " lie".into();
            inherited
        },
        |mut inherited| {
            inherited.output[39].id = None;
            inherited
        },
        |inherited| Inherited { segments: Vec::new(), ..inherited },
        |mut inherited| {
            let segment = resign(&inherited.segments[0], 2, |segment| segment.end = 31);
            inherited.segments = vec![segment];
            inherited
        },
        |_| Inherited::default(),
    ];
    for bend in bends {
        let mut world = begun(3, spec());
        write(&mut world, 2, 40);
        world.bend(peer(1), move |frame| match frame {
            Frame::Start(start) => {
                let Start { order, brief, trace } = *start;
                let inherited = bend(brief.inherited);
                vec![Frame::Start(Box::new(Start { order, brief: Brief { inherited, ..brief }, trace }))]
            }
            frame => vec![frame],
        });
        world.unplug(peer(2));
        assert!(world.runs(peer(3)).is_empty(), "nothing runs");
        assert_eq!(world.evidence(peer(3), peer(1)), [(Evidence::BadCommitment, 1)]);
    }
}

#[test]
fn nobody_without_a_lease_has_an_inheritance_looked_at() {
    let mut world = begun(3, spec());
    write(&mut world, 2, 40);
    // The lease was for the job; the order comes under another bid's name, and what it shows is a lie.
    world.bend(peer(1), move |frame| match frame {
        Frame::Start(start) => {
            let Start { order, brief, trace } = *start;
            let order = resign(&order, 1, |order| order.bid = Digest::of_content(b"no bid"));
            let inherited = Inherited { segments: Vec::new(), ..brief.inherited };
            vec![Frame::Start(Box::new(Start { order, brief: Brief { inherited, ..brief }, trace }))]
        }
        frame => vec![frame],
    });
    world.unplug(peer(2));
    assert!(world.runs(peer(3)).is_empty(), "nothing runs");
    assert_eq!(world.evidence(peer(3), peer(1)), [(Evidence::Expired, 1)], "the lease is what was missed");
}

#[test]
fn the_budget_of_a_successor_counts_what_it_has_to_read() {
    // 5 + 100 tokens to be read or written, at a price for both.
    let price = Price { prompt: protocol::Credits(1000), completion: protocol::Credits(1000) };
    for (budget, ends_well) in [(106, true), (105, false)] {
        let mut world = World::of(3);
        for seed in [2, 3] {
            world.offer(peer(seed), vec![AgentOffer { price, ..text_offer(0) }]);
            world.script(peer(seed), Vec::new());
        }
        let mut spec = spec();
        spec.limits.budget = protocol::Credits(budget);
        world.submit(peer(1), job_id(1), spec);
        let first = world.started(job_id(1))[0];
        let seeds = if first == peer(2) { [2, 3] } else { [3, 2] };
        write(&mut world, seeds[0], 40);
        if ends_well {
            world.unplug(first);
            write(&mut world, seeds[1], 100);
            end(&mut world, seeds[1]);
            assert!(done(&mut world).receipt.cost.0 <= budget);
        } else {
            assert!(read(&world).is_empty(), "refused as soon as the prompt's length is known");
        }
    }
}

#[test]
fn a_receipt_for_a_continued_answer_names_what_was_inherited() {
    let changes: [fn(&mut Receipt); 4] = [
        |r| r.continues = None,
        |r| r.segments[0].provider = r.segments[1].provider,
        |r| r.usage.completion_tokens += 40,
        |r| r.usage.prompt_tokens -= 40,
    ];
    for change in changes {
        let mut world = begun(3, spec());
        write(&mut world, 2, 40);
        world.bend(peer(3), move |frame| match frame {
            Frame::Finish { job, receipt } => {
                vec![Frame::Finish { job, receipt: resign(&receipt, 3, change) }]
            }
            frame => vec![frame],
        });
        world.unplug(peer(2));
        write(&mut world, 3, 70);
        end(&mut world, 3);
        assert!(world.blocked(peer(1), peer(3)));
        assert_eq!(world.peer(peer(1)).ledger().account(&peer(3)).spent, protocol::Credits::ZERO);
    }
}

#[test]
fn an_answer_that_was_whole_but_for_its_receipt_is_finished_by_another() {
    let sampling = Sampling { max_tokens: 8, ..Sampling::default() };
    let mut world = begun(3, JobSpec { sampling, ..spec() });
    write(&mut world, 2, 8);
    world.unplug(peer(2));
    write(&mut world, 3, 8);
    end(&mut world, 3);
    let done = done(&mut world);
    assert_eq!((read(&world).len(), done.receipt.usage.completion_tokens), (8, 0));
}

#[test]
fn a_provider_that_forgot_its_job_says_so() {
    let mut world = begun(2, spec());
    let probe = Frame::Probe { job: job_id(7) };
    world.deliver(peer(2), Event::Frame { from: peer(1), side: Side::Provider, frame: probe });
    let said = world.wire.iter().filter_map(|packet| Frame::from_bytes(&packet.bytes).ok());
    let forgot = Frame::Fail { job: job_id(7), error: JobError::ProviderLost };
    assert!(said.into_iter().any(|frame| frame == forgot));
}
