//! Serving many changes no bit: whatever shares a pass, waits, is set back, or was read before.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, TrySendError, sync_channel};

use super::*;
use crate::engine::Request;
use crate::sample::Sampling;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// All that an answer is: its tokens with what is committed to, and how it ends.
type Answer = Vec<Step>;

fn steps(events: impl IntoIterator<Item = Event>) -> Answer {
    let step = |event| match event {
        Event::Step(step @ (Step::Token { .. } | Step::Finished { .. })) => Some(step),
        Event::Failed(error) => panic!("{error}"),
        _ => None,
    };
    events.into_iter().filter_map(step).collect()
}

/// The answer as a generation alone gives it.
fn alone(engine: &dyn Engine, request: &Request) -> Answer {
    let steps = engine.generate(request).unwrap().map(Result::unwrap);
    steps.filter(|step| !matches!(step, Step::Prefilled { .. })).collect()
}

/// One job of a schedule.
#[derive(Clone, Debug)]
struct Plan {
    tenant: u8,
    request: Request,
    /// It is called off when so many jobs after it have been submitted.
    called_off: Option<usize>,
    /// How much of its prompt is public.
    public: usize,
    /// How many events its reader takes at once; it is slow.
    room: usize,
}

/// Prompts that begin alike: conversations of one of two kinds, cut anywhere.
fn plan() -> impl Strategy<Value = Plan> {
    let prompt = (0u32..2, 1usize..150, vec(0u32..250, 0..12)).prop_map(|(kind, length, end)| {
        (0..length as u32).map(|at| (at * 7 + kind * 3) % 250).chain(end).collect::<Vec<_>>()
    });
    let sampling = (1u32..24, prop_oneof![Just(0.0f32), Just(0.9)], 0u64..4).prop_map(
        |(max_tokens, temperature, seed)| Sampling { max_tokens, temperature, seed, ..Sampling::default() },
    );
    let given = prop_oneof![4 => Just(Vec::new()), 1 => vec(0u32..250, 1..40)];
    let called_off = prop_oneof![6 => Just(None), 1 => (0usize..4).prop_map(Some)];
    (0u8..3, prompt, given, sampling, called_off, 1usize..40).prop_map(
        |(tenant, prompt, answered, sampling, called_off, room)| Plan {
            tenant,
            public: if tenant == 0 { prompt.len().min(64) } else { 0 },
            request: Request { answered, ..Request::new(prompt, sampling) },
            called_off,
            room,
        },
    )
}

/// Runs a schedule; what each job that was not called off got.
fn serve(worker: &Worker, plans: &[Plan]) -> BTreeMap<usize, Answer> {
    let mut readers: BTreeMap<usize, (Receiver<Event>, Cancel)> = BTreeMap::new();
    for (number, plan) in plans.iter().enumerate() {
        let (events, reader) = sync_channel(plan.room);
        let sink = Box::new(move |event| match events.try_send(event) {
            Ok(()) => Flow::Continue,
            Err(TrySendError::Full(event)) => Flow::Full(event),
            Err(TrySendError::Disconnected(_)) => Flow::Cancel,
        });
        let generation = worker.engine().generate(&plan.request).unwrap();
        let submission = Submission {
            tenant: Tenant([plan.tenant; 32]),
            public: plan.public,
            ..Submission::from(generation)
        };
        readers.insert(number, (reader, submission.cancel.clone()));
        worker.try_submit(submission, sink).unwrap();
        for (_, (_, cancel)) in readers.iter().filter(|(n, _)| plans[**n].called_off == Some(number - **n)) {
            cancel.cancel();
        }
    }
    let wanted = readers.into_iter().filter(|(number, _)| plans[*number].called_off.is_none());
    wanted.map(|(number, (reader, _))| (number, steps(reader))).collect()
}

/// One thousand random schedules on workers of all sizes, each answer against the one that it is alone.
#[test]
fn no_schedule_changes_a_bit() {
    let reference = tiny();
    // A context is 16 pages, and no less memory is taken. Each has a model of its own, whose memory it counts.
    let worker = |slots| {
        Worker::start(tiny(), Serving { slots, memory: 0, stretch: f64::INFINITY, ..Serving::default() })
            .unwrap()
    };
    let workers = [worker(1), worker(3), worker(16)];
    let mut runner = TestRunner::new(Config { cases: 1_000, failure_persistence: None, ..Config::default() });
    let known = std::cell::RefCell::new(BTreeMap::<String, Answer>::new());
    runner
        .run(&(vec(plan(), 1..14), 0usize..3), |(plans, which)| {
            for (number, answer) in serve(&workers[which], &plans) {
                let request = &plans[number].request;
                let mut known = known.borrow_mut();
                let truth =
                    known.entry(format!("{request:?}")).or_insert_with(|| alone(reference.as_ref(), request));
                prop_assert_eq!(&answer, &*truth, "job {} of {:?}", number, plans);
            }
            Ok(())
        })
        .unwrap();
    let [one, _, many] = workers.map(|worker| worker.tally());
    let Tally { passes, rows, reused, evicted, .. } = many;
    assert!(passes < rows / 2, "passes are shared: {many:?}");
    assert!(reused > 0 && one.reused > 0 && evicted > 0, "all of it happened: {many:?}");
}

/// Sixteen jobs that fit the memory when they begin, and outgrow it: some are set back, and nobody can tell.
#[test]
fn who_is_set_back_goes_on_as_if_nothing_had_been() {
    let serving = Serving { memory: 0, stretch: f64::INFINITY, ..Serving::default() };
    let worker = Worker::start(tiny(), serving).unwrap();
    for round in 0..4 {
        let plan = |number: u32| {
            let prompt = (0..30).map(|at| (at * 7 + number * 31 + round * 3) % 250).collect();
            let sampling =
                Sampling { max_tokens: 180, temperature: 1.2, seed: number.into(), ..Sampling::default() };
            Plan {
                tenant: (number % 3) as u8,
                request: Request::new(prompt, sampling),
                called_off: None,
                public: 0,
                room: 512,
            }
        };
        let plans: Vec<_> = (0..16).map(plan).collect();
        for (number, answer) in serve(&worker, &plans) {
            assert_eq!(answer, alone(worker.engine().as_ref(), &plans[number].request), "job {number}");
        }
    }
    let tally = worker.tally();
    assert!(tally.preempted > 0, "{tally:?}");
}

/// Choices of one prompt are read for once, but for the token that each draws from.
#[test]
fn many_choices_begin_with_one_prefill() {
    let worker = Worker::start(tiny(), Serving { slots: 8, ..Serving::default() }).unwrap();
    let prompt: Vec<u32> = (0..200).map(|at| at * 11 % 250).collect();
    let request = |choice| {
        let sampling = Sampling { max_tokens: 4, temperature: 1.0, choice, ..Sampling::default() };
        Request::new(prompt.clone(), sampling)
    };
    let plan = |choice| Plan { tenant: 1, request: request(choice), called_off: None, public: 0, room: 64 };
    let plans: Vec<_> = (0..8).map(plan).collect();
    let answers = serve(&worker, &plans);
    assert!(
        (0..8).all(|choice| answers[&(choice as usize)] == alone(worker.engine().as_ref(), &request(choice)))
    );
    assert_eq!(worker.tally().reused, 7 * 199);
    assert!(worker.tally().rows < 200 + 8 * 5, "{:?}", worker.tally());
}
