//! Jobs that a person is asked about: nobody hears of them before they are approved, and they end like any other.

use protocol::approval::Rule;
use protocol::event::{Command, Production};
use protocol::peer::Config;
use protocol::{Credits, Event, JobError, JobEvent, JobSpec, Limits, Output};

use crate::values::*;
use crate::world::World;

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn asked(texts: &[&str]) -> JobSpec {
    JobSpec { approval: rules(texts), ..spec() }
}

fn world() -> World {
    let mut world = World::of(2);
    world.offer(peer(2), vec![text_offer(1000)]);
    world
}

fn approve(world: &mut World, seed: u8, job: u8) {
    world.deliver(peer(seed), Event::Command(Command::Approve { job: job_id(job) }));
}

fn is_held(world: &World, job: u8) -> bool {
    matches!(world.events(job_id(job)).as_slice(), [JobEvent::Awaiting(_)])
}

#[test]
fn nobody_hears_of_a_job_before_it_is_approved() {
    let mut world = world();
    let wanted = spec();
    let most = wanted.limits.budget.0 - 1;
    world.submit(peer(1), job_id(1), JobSpec { approval: rules(&[&format!("cost:{most}")]), ..wanted });
    assert!(is_held(&world, 1) && world.wire.is_empty());
    assert!(!world.journal.iter().any(|(who, o)| *who == peer(1) && matches!(o, Output::Discover { .. })));
    approve(&mut world, 1, 1);
    assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
    approve(&mut world, 1, 1);
    assert_eq!(world.started(job_id(1)).len(), 1, "a second approval starts nothing");
}

#[test]
fn a_job_that_no_rule_names_is_not_held() {
    let mut world = world();
    let most = spec().limits.budget.0;
    world.submit(peer(1), job_id(1), asked(&[&format!("cost:{most}"), "depth:1", "tool"]));
    assert!(matches!(world.finish(job_id(1)), JobEvent::Done(_)));
}

#[test]
fn a_job_that_is_not_approved_ends_at_its_deadline_or_when_it_is_cancelled() {
    let mut world = world();
    world.submit(peer(1), job_id(1), asked(&["depth:0"]));
    world.submit(peer(1), job_id(2), asked(&["depth:0"]));
    world.deliver(peer(1), Event::Command(Command::Cancel { job: job_id(2) }));
    assert!(matches!(world.outcome(job_id(2)), Some(JobEvent::Failed(JobError::Cancelled))));
    assert!(matches!(world.finish(job_id(1)), JobEvent::Failed(JobError::DeadlineExceeded)));
    for job in [1, 2] {
        approve(&mut world, 1, job);
    }
    assert!(world.wire.is_empty(), "what is over does not begin");
}

#[test]
fn an_owner_is_asked_about_what_the_agents_of_a_peer_delegate() {
    let config = Config { approval: rules(&["depth:1"]), ..Config::default() };
    let mut world = World::with(3, config);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.offer(peer(3), vec![offer(&capability("code.review"), 1000)]);
    world.script(peer(2), Vec::new());
    let limits = Limits { budget: Credits(1000), depth: 2, children: 4, deadline: START.after(100_000) };
    world.submit(peer(1), job_id(1), JobSpec { limits, ..spec() });
    let run = world.runs(peer(2))[0].run;

    let mut part = JobSpec { limits: Limits { budget: Credits(200), ..spec().limits }, ..spec() };
    part.requirement.capability = capability("code.review");
    world.submit_for(peer(2), job_id(11), part.clone(), Some(run));
    world.submit_for(peer(2), job_id(12), part, Some(run));
    assert!(is_held(&world, 11) && is_held(&world, 12) && world.runs(peer(3)).is_empty());
    approve(&mut world, 2, 11);
    assert!(matches!(world.finish(job_id(11)), JobEvent::Done(_)));
    // What is held goes with what it is a part of.
    world.produce(peer(2), run, Production::Failed(JobError::Engine));
    assert!(matches!(world.outcome(job_id(12)), Some(JobEvent::Failed(JobError::Cancelled))));
}

#[test]
fn a_tool_is_named_by_what_may_answer_a_call() {
    let call = |wanted: &str| {
        let mut call = JobSpec { kind: protocol::JobKind::Call, ..spec() };
        call.requirement.capability = capability(wanted);
        call
    };
    let names = |rule: &str, spec: &JobSpec| rule.parse::<Rule>().unwrap().names(spec, 0);
    for (rule, wanted, is_named) in [
        ("tool", "tool.search", true),
        ("tool:tool.shell", "tool.shell", true),
        ("tool:tool.shell", "tool", true),
        ("tool:tool.shell", "tool.search", false),
        ("tool:tool", "tool.search", true),
    ] {
        assert_eq!(names(rule, &call(wanted)), is_named, "{rule} {wanted}");
        let generate = JobSpec { kind: protocol::JobKind::Generate, ..call(wanted) };
        assert!(!names(rule, &generate));
    }
}

#[test]
fn a_job_has_a_bounded_number_of_rules() {
    let wordy = JobSpec { approval: vec![Rule::Tool(None); Rule::MAX + 1], ..spec() };
    assert!(matches!(wordy.check(), Err(JobError::Invalid { .. })));
}
