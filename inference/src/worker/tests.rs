//! Fairness, back-pressure, cancelling and panics, driven by hand.

mod serving;

use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError, sync_channel};

use super::*;
use crate::FinishReason;
use crate::constraint::Constraint;
use crate::engine::{ForwardError, Position, Request, Sequence};
use crate::model::Description;
use crate::replay::Claim;
use crate::sample::Sampling;
use crate::scoring::Text;
use crate::tiny::write_tiny;

fn tiny() -> Arc<dyn Engine> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write_tiny(&path, 3).unwrap();
    crate::load(&path).unwrap()
}

fn start(engine: Arc<dyn Engine>, slots: usize, queue: usize) -> Worker {
    Worker::start(engine, Serving { slots, queue, ..Serving::default() }).unwrap()
}

/// An engine that computes a step only when the test lets it, and panics on token 13.
#[derive(Debug)]
struct Gated {
    model: Arc<dyn Engine>,
    gate: Arc<Mutex<Receiver<()>>>,
}

impl Engine for Gated {
    fn description(&self) -> &Description {
        self.model.description()
    }

    fn profile(&self) -> &str {
        "gated"
    }

    fn chunk(&self) -> usize {
        4
    }

    fn sequence(&self) -> Box<dyn Sequence> {
        Box::new(GatedSequence { gate: Arc::clone(&self.gate) })
    }
}

struct GatedSequence {
    gate: Arc<Mutex<Receiver<()>>>,
}

impl Sequence for GatedSequence {
    fn forward(&mut self, tokens: &[u32]) -> Result<Position, ForwardError> {
        assert!(!tokens.contains(&13), "token 13 came");
        let open = self.gate.lock().unwrap().recv();
        open.map_err(|_| ForwardError("the gate is gone".to_owned()))?;
        let mut logits = vec![0.0; 267];
        logits[70] = 1.0;
        Ok(Position { logits, state: None })
    }
}

/// A worker whose engine does one step for each unit sent.
fn gated(slots: usize, queue: usize) -> (Worker, SyncSender<()>) {
    let (open, gate) = sync_channel(10_000);
    let engine = Gated { model: tiny(), gate: Arc::new(Mutex::new(gate)) };
    (start(Arc::new(engine), slots, queue), open)
}

fn open(gate: &SyncSender<()>, steps: usize) {
    (0..steps).for_each(|_| gate.send(()).unwrap());
}

fn greedy(worker: &Worker, prompt: Vec<u32>, max_tokens: u32) -> Job {
    let sampling = Sampling { max_tokens, temperature: 0.0, ..Sampling::default() };
    worker.engine().generate(&Request::new(prompt, sampling)).unwrap().into()
}

/// A sink into a bounded channel.
fn sink(events: SyncSender<Event>) -> Sink {
    Box::new(move |event| match events.try_send(event) {
        Ok(()) => Flow::Continue,
        Err(TrySendError::Full(event)) => Flow::Full(event),
        Err(TrySendError::Disconnected(_)) => Flow::Cancel,
    })
}

fn submit(
    worker: &Worker,
    job: impl Into<Submission>,
    room: usize,
) -> Result<mpsc::Receiver<Event>, SubmitError> {
    let (sender, receiver) = sync_channel(room);
    worker.try_submit(job, sink(sender)).map(|()| receiver)
}

#[test]
fn a_job_is_started_stepped_and_finished() {
    let worker = start(tiny(), 2, 2);
    let events: Vec<_> = submit(&worker, greedy(&worker, vec![60; 40], 5), 64).unwrap().into_iter().collect();
    assert!(matches!(events[0], Event::Started));
    assert!(matches!(events[1], Event::Step(Step::Prefilled { done: 40, of: 40 })));
    assert!(matches!(events.last(), Some(Event::Step(Step::Finished { .. }))));
}

#[test]
fn a_replay_is_a_job_too() {
    let worker = start(tiny(), 1, 1);
    let sampling = Sampling { max_tokens: 4, ..Sampling::default() };
    let claim = Claim { prompt: vec![60; 40], answer: vec![70, 71], sampling, ..Claim::default() };
    let events: Vec<_> =
        submit(&worker, worker.engine().replay(&claim).unwrap(), 64).unwrap().into_iter().collect();
    assert!(matches!(events.last(), Some(Event::Replayed(replay)) if replay.of == 2));
}

#[test]
fn a_job_for_which_nothing_is_read_is_over_at_once() {
    let worker = start(tiny(), 1, 1);
    let all = |job: Job| submit(&worker, job, 64).unwrap().into_iter().collect::<Vec<_>>();
    let score = worker.engine().score(&Text { tokens: vec![7], top: 0 }).unwrap();
    assert!(
        matches!(all(score.into()).as_slice(), [Event::Started, Event::Scored(found)] if found.is_empty())
    );
    let nothing = Some(Constraint::Regex("a{0}".to_owned()));
    let request = Request { constraint: nothing, ..Request::new(vec![60; 4], Sampling::default()) };
    let answer = all(worker.engine().generate(&request).unwrap().into());
    assert!(matches!(answer.last(), Some(Event::Step(Step::Finished { .. }))), "{answer:?}");
}

#[test]
fn an_answer_that_fills_the_context_can_be_taken_over() {
    let worker = start(tiny(), 1, 1);
    let context = worker.engine().card().context;
    let sampling = Sampling { max_tokens: context as u32, temperature: 0.0, ..Sampling::default() };
    let request = Request { answered: vec![60; context - 4], ..Request::new(vec![60; 4], sampling) };
    let generation = worker.engine().generate(&request).unwrap();
    let events: Vec<_> = submit(&worker, Job::from(generation), 64).unwrap().into_iter().collect();
    assert!(!events.iter().any(|event| matches!(event, Event::Step(Step::Token { .. }))), "{events:?}");
    assert!(matches!(events.last(), Some(Event::Step(Step::Finished { reason: FinishReason::Length, .. }))));
}

/// Who makes a vector reads outside of the worker, in the same memory.
#[test]
fn who_finds_no_memory_because_of_others_waits_for_them() {
    let serving = Serving { slots: 1, queue: 1, memory: 0, ..Serving::default() };
    let worker = Worker::start(tiny(), serving).unwrap();
    let engine = Arc::clone(worker.engine());
    let mut other = engine.sequence();
    other.read(&vec![60; engine.card().context - 1], 0).unwrap();
    let events = submit(&worker, greedy(&worker, vec![60; 200], 5), 64).unwrap();
    let soon = || events.recv_timeout(std::time::Duration::from_millis(50)).ok();
    assert!(std::iter::from_fn(soon).all(|event| !event.is_last()), "it reads as much as it can, and waits");
    drop(other);
    assert!(matches!(events.into_iter().last(), Some(Event::Step(Step::Finished { .. }))));
}

#[test]
fn a_full_queue_says_busy_at_once() {
    let (worker, gate) = gated(1, 1);
    let running = submit(&worker, greedy(&worker, vec![5], 3), 16).unwrap();
    assert!(matches!(running.recv().unwrap(), Event::Started), "it has left the queue");
    let waiting = submit(&worker, greedy(&worker, vec![5], 3), 16).unwrap();
    let refused = submit(&worker, greedy(&worker, vec![5], 3), 16).unwrap_err();
    assert!(matches!(refused, SubmitError::Busy { retry_after } if !retry_after.is_zero()));
    assert_eq!(worker.load(), Load { running: 1, waiting: 1, slots: 1 });
    open(&gate, 6);
    assert_eq!((running.iter().count(), waiting.iter().count()), (5, 6));
}

#[test]
fn slots_take_turns() {
    let (worker, gate) = gated(2, 2);
    let order = Arc::new(Mutex::new(Vec::new()));
    let (done, finished) = sync_channel(2);
    let (ready, both) = sync_channel(0);
    for name in ['a', 'b'] {
        let (order, done, ready) = (Arc::clone(&order), done.clone(), ready.clone());
        let sink: Sink = Box::new(move |event| {
            match &event {
                // The first job waits here until the second is in the queue too.
                Event::Started if name == 'a' => ready.send(()).unwrap(),
                Event::Step(Step::Token { .. }) => order.lock().unwrap().push(name),
                Event::Step(Step::Finished { .. }) => done.send(()).unwrap(),
                _ => {}
            }
            Flow::Continue
        });
        worker.try_submit(greedy(&worker, vec![5], 20), sink).unwrap();
    }
    both.recv().unwrap();
    open(&gate, 40);
    finished.recv().unwrap();
    finished.recv().unwrap();
    let order = order.lock().unwrap();
    let ahead = |upto: usize| order[..upto].iter().map(|&c| if c == 'a' { 1i32 } else { -1 }).sum::<i32>();
    assert!((1..order.len()).all(|upto| ahead(upto).abs() <= 2), "{order:?}");
}

#[test]
fn a_reader_that_is_behind_delays_only_itself() {
    let (worker, gate) = gated(2, 2);
    open(&gate, 1_000);
    let slow = submit(&worker, greedy(&worker, vec![5], 10), 1).unwrap();
    let quick = submit(&worker, greedy(&worker, vec![5], 50), 256).unwrap();
    assert_eq!(quick.iter().count(), 53, "it ends while nobody reads the other");
    let late: Vec<_> = slow.iter().collect();
    assert_eq!(late.len(), 13);
    let indices = late.iter().filter_map(|event| match event {
        Event::Step(Step::Token { index, .. }) => Some(*index),
        _ => None,
    });
    assert!(indices.eq(0..10), "nothing was lost or doubled");
}

#[test]
fn cancelling_frees_the_slot_within_one_step() {
    let (worker, gate) = gated(1, 1);
    let unwanted = submit(&worker, greedy(&worker, vec![5; 400], 90), 256).unwrap();
    assert!(matches!(unwanted.recv().unwrap(), Event::Started));
    drop(unwanted);
    let wanted = submit(&worker, greedy(&worker, vec![5], 1), 16).unwrap();
    // One step for the cancelled job, and one for each token read by the other: not a hundred.
    open(&gate, 2);
    assert!(matches!(wanted.iter().last(), Some(Event::Step(Step::Finished { .. }))));
}

#[test]
fn a_panic_is_an_event_and_the_worker_lives_on() {
    let (worker, gate) = gated(1, 2);
    open(&gate, 10);
    let failing: Vec<_> = submit(&worker, greedy(&worker, vec![13], 3), 16).unwrap().into_iter().collect();
    assert!(
        matches!(&failing[..], [Event::Started, Event::Failed(GenerateError::Panicked { what })] if what.contains("13"))
    );
    let (sender, _receiver) = sync_channel::<Event>(1);
    drop(sender);
    worker.try_submit(greedy(&worker, vec![5], 3), Box::new(|_| panic!("a sink that panics"))).unwrap();
    let next = submit(&worker, greedy(&worker, vec![5], 3), 16).unwrap();
    assert!(matches!(next.iter().last(), Some(Event::Step(Step::Finished { .. }))));
}

#[test]
fn dropping_the_last_handle_stops_the_thread() {
    let (worker, gate) = gated(1, 1);
    let other = worker.clone();
    drop(worker);
    let events = submit(&other, greedy(&other, vec![5], 100), 256).unwrap();
    assert!(matches!(events.recv().unwrap(), Event::Started));
    drop(other);
    open(&gate, 1);
    // The sink is dropped with the worker's thread; at most the step at hand was delivered.
    assert!(events.iter().count() <= 2);
    let (idle, _gate) = gated(1, 1);
    let engine = Arc::downgrade(idle.engine());
    drop(idle);
    while engine.upgrade().is_some() {
        thread::yield_now();
    }
}

#[test]
fn a_job_that_waits_can_be_called_off() {
    let (worker, gate) = gated(1, 1);
    let running = submit(&worker, greedy(&worker, vec![5], 3), 16).unwrap();
    assert!(matches!(running.recv().unwrap(), Event::Started));
    let (sender, waiting) = sync_channel(1);
    let submission = Submission::from(greedy(&worker, vec![5], 3));
    let cancel = submission.cancel.clone();
    worker.try_submit(submission, sink(sender)).unwrap();
    cancel.cancel();
    open(&gate, 1);
    assert!(waiting.recv().is_err(), "it is gone while the other still runs");
    assert_eq!(worker.load().running, 1);
    let next = submit(&worker, greedy(&worker, vec![5], 3), 16).unwrap();
    open(&gate, 5);
    assert!(matches!(next.iter().last(), Some(Event::Step(Step::Finished { .. }))));
}
