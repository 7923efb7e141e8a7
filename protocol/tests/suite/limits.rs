//! Sub-jobs: an agent that submits work of its own can give away no more than it was given.

use protocol::error::Limit;
use protocol::event::{Command, Production, RunId};
use protocol::{Credits, Event, Finish, JobError, JobEvent, JobSpec, Limits};

use crate::values::*;
use crate::world::World;

/// Peer 1's job 1 runs at peer 2 (an agent that we play); peer 3 does sub-jobs for it.
fn tree(limits: Limits) -> (World, RunId) {
    let mut world = World::of(3);
    world.offer(peer(2), vec![text_offer(1000)]);
    world.offer(peer(3), vec![offer(&capability("code.review"), 1000)]);
    world.script(peer(2), Vec::new());
    world.submit(peer(1), job_id(1), JobSpec { limits, ..spec() });
    let run = world.runs(peer(2))[0].run;
    (world, run)
}

fn limits(budget: u64, depth: u8, children: u16) -> Limits {
    Limits { budget: Credits(budget), depth, children, deadline: START.after(100_000) }
}

fn part(budget: u64) -> JobSpec {
    let mut part = JobSpec { limits: Limits { budget: Credits(budget), ..spec().limits }, ..spec() };
    part.requirement.capability = capability("code.review");
    part
}

fn refused(world: &World, job: u8) -> Option<JobError> {
    match world.outcome(job_id(job)) {
        Some(JobEvent::Failed(error)) => Some(error),
        _ => None,
    }
}

#[test]
fn a_sub_job_is_done_under_the_limits_of_its_parent_and_stands_in_its_receipt() {
    let (mut world, run) = tree(limits(1000, 2, 4));
    world.submit_for(peer(2), job_id(11), part(200), Some(run));
    let Some(JobEvent::Done(child)) = world.outcome(job_id(11)) else { panic!("done") };
    assert_eq!(child.receipt.parent, Some(job_id(1)));
    let order = &world.runs(peer(3))[0].order;
    assert_eq!(order.limits.depth, 1);
    assert_eq!(order.limits.deadline, START.after(100_000), "no later than the parent's");

    world.produce(peer(2), run, Production::from(token(0)));
    world.produce(peer(2), run, Production::Finished(Finish::EndOfText));
    let Some(JobEvent::Done(parent)) = world.outcome(job_id(1)) else { panic!("done") };
    assert_eq!(parent.receipt.children, [child.receipt.digest()]);
    assert_eq!(child.receipt.children, []);
}

#[test]
fn sub_jobs_nest_no_deeper_than_allowed() {
    let (mut world, run) = tree(limits(1000, 0, 4));
    world.submit_for(peer(2), job_id(11), part(1), Some(run));
    assert_eq!(refused(&world, 11), Some(JobError::Limit { limit: Limit::Depth }));
    assert_eq!(world.runs(peer(3)).len(), 0);
}

#[test]
fn there_are_no_more_sub_jobs_than_allowed() {
    let (mut world, run) = tree(limits(1000, 1, 2));
    for job in 11..=13 {
        world.submit_for(peer(2), job_id(job), part(200), Some(run));
    }
    assert!(refused(&world, 11).is_none() && refused(&world, 12).is_none());
    assert_eq!(refused(&world, 13), Some(JobError::Limit { limit: Limit::Children }));
}

#[test]
fn sub_jobs_together_and_the_job_itself_cost_no_more_than_its_budget() {
    // A hundred tokens and one piece, each for one micro-credit: the job itself may cost 101 of its 500.
    let (mut world, run) = tree(limits(500, 1, 9));
    world.submit_for(peer(2), job_id(11), part(200), Some(run));
    world.submit_for(peer(2), job_id(12), part(200), Some(run));
    assert_eq!(refused(&world, 12), Some(JobError::Limit { limit: Limit::Budget }));
    world.submit_for(peer(2), job_id(13), part(199), Some(run));
    assert!(refused(&world, 13).is_none());
    world.submit_for(peer(2), job_id(14), part(1), Some(run));
    assert_eq!(refused(&world, 14), Some(JobError::Limit { limit: Limit::Budget }));
}

#[test]
fn a_child_never_may_more_than_its_parent() {
    let (mut world, run) = tree(limits(1000, 2, 2));
    let mut greedy = part(200);
    greedy.limits = Limits { depth: 200, children: 1000, ..greedy.limits };
    world.submit_for(peer(2), job_id(11), greedy, Some(run));
    let given = world.runs(peer(3))[0].order.limits;
    assert_eq!((given.depth, given.children), (1, 2));
}

#[test]
fn a_sub_job_ends_at_its_parents_deadline() {
    let (mut world, run) = tree(limits(1000, 1, 1));
    world.script(peer(3), Vec::new());
    world.submit_for(peer(2), job_id(11), part(200), Some(run));
    for _ in 0..4 {
        let child = world.runs(peer(3))[0].run;
        world.produce(peer(3), child, Production::Progress { done: 0, of: 1 });
        world.produce(peer(2), run, Production::Progress { done: 0, of: 1 });
        world.elapse(25_000);
    }
    assert!(world.aborted(peer(3), world.runs(peer(3))[0].run));
    assert!(refused(&world, 11).is_some());
    assert_eq!(refused(&world, 1), Some(JobError::DeadlineExceeded));
}

#[test]
fn the_end_of_a_job_is_the_end_of_its_sub_jobs() {
    let (mut world, run) = tree(limits(1000, 1, 1));
    world.script(peer(3), Vec::new());
    world.submit_for(peer(2), job_id(11), part(200), Some(run));
    let child = world.runs(peer(3))[0].run;
    world.deliver(peer(1), Event::Command(Command::Cancel { job: job_id(1) }));
    assert!(world.aborted(peer(2), run) && world.aborted(peer(3), child));
    assert_eq!(refused(&world, 11), Some(JobError::Cancelled));
}

/// Peer 1's job runs at peer 2, whose agent had a part done by peer 3, whose agent had a part of that done by peer 4.
fn chain() -> (World, [RunId; 3]) {
    let mut world = World::of(4);
    for (seed, name) in [(2, "text.generation"), (3, "code.review"), (4, "code.test")] {
        world.offer(peer(seed), vec![offer(&capability(name), 1000)]);
        world.script(peer(seed), Vec::new());
    }
    world.submit(peer(1), job_id(1), JobSpec { limits: limits(1000, 3, 4), ..spec() });
    let first = world.runs(peer(2))[0].run;
    world.submit_for(peer(2), job_id(11), part(500), Some(first));
    let second = world.runs(peer(3))[0].run;
    let mut last = part(200);
    last.requirement.capability = capability("code.test");
    world.submit_for(peer(3), job_id(111), last, Some(second));
    let third = world.runs(peer(4))[0].run;
    (world, [first, second, third])
}

#[test]
fn a_tree_is_cancelled_to_its_leaves_at_once() {
    let (mut world, runs) = chain();
    world.deliver(peer(1), Event::Command(Command::Cancel { job: job_id(1) }));
    for (seed, run) in (2..).zip(runs) {
        assert!(world.aborted(peer(seed), run), "peer {seed}");
    }
    let (mut world, [first, second, third]) = chain();
    world.deliver(peer(2), Event::Command(Command::Cancel { job: job_id(11) }));
    assert!(!world.aborted(peer(2), first), "a part is cancelled without the whole");
    assert!(world.aborted(peer(3), second) && world.aborted(peer(4), third));
}

#[test]
fn a_tree_whose_requester_is_gone_ends_at_once() {
    let (mut world, runs) = chain();
    world.unplug(peer(1));
    for (seed, run) in (2..).zip(runs) {
        assert!(world.aborted(peer(seed), run), "peer {seed}");
    }
}

#[test]
fn a_run_that_is_over_spawns_nothing() {
    let (mut world, run) = tree(limits(1000, 1, 1));
    world.produce(peer(2), run, Production::Finished(Finish::EndOfText));
    world.submit_for(peer(2), job_id(11), part(200), Some(run));
    assert_eq!(refused(&world, 11), Some(JobError::Cancelled));
}

#[test]
fn more_children_than_a_receipt_can_list_are_refused() {
    let mut world = World::of(1);
    let mut many = spec();
    many.limits.children = u16::MAX;
    world.submit(peer(1), job_id(1), many);
    assert!(matches!(refused(&world, 1), Some(JobError::Invalid { .. })));
}
