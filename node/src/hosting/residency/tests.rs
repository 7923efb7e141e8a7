//! The machine under a driver that ends things by chance: the limit, uses, who goes first, and that everybody is answered.

use proptest::prelude::*;

use super::*;

fn name(number: u8) -> Digest {
    Digest::of_content(&[number])
}

/// What a driver would know, with the outputs it has not answered yet.
#[derive(Debug)]
struct World {
    machine: Residency,
    sizes: BTreeMap<Digest, u64>,
    memory: u64,
    now: u64,
    tickets: u64,
    open: Vec<Open>,
    in_memory: BTreeMap<Digest, usize>,
    loading: Vec<Digest>,
    unloading: Vec<Digest>,
    loads: usize,
    granted: Vec<Ticket>,
    refused: Vec<(Ticket, Refusal)>,
}

/// An ask without an answer.
#[derive(Debug)]
struct Open {
    ticket: Ticket,
    model: Digest,
    overtaken: u32,
}

impl World {
    fn new(memory: u64, sizes: &[u64], idle_unload: Option<u64>) -> Self {
        let mut machine = Residency::new(Policy { memory, idle_unload });
        let sizes: BTreeMap<_, _> = (0..).map(name).zip(sizes.iter().copied()).collect();
        for (model, size) in &sizes {
            assert_eq!(machine.enrol(*model, *size), Ok(()));
        }
        Self {
            machine,
            sizes,
            memory,
            now: 0,
            tickets: 0,
            open: Vec::new(),
            in_memory: BTreeMap::new(),
            loading: Vec::new(),
            unloading: Vec::new(),
            loads: 0,
            granted: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn handle(&mut self, input: Input) {
        self.now += 1;
        self.machine.handle(Timestamp(self.now), input);
        self.perform();
    }

    /// Does what the machine wants, and holds every output against what must never be.
    fn perform(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Grant { ticket, model } => self.on_grant(ticket, model),
                Output::Load { model } => {
                    assert!(!self.in_memory.contains_key(&model) && !self.loading.contains(&model));
                    assert!(!self.unloading.contains(&model), "it is still there");
                    self.loading.push(model);
                    self.loads += 1;
                }
                Output::Refuse { ticket, why } => {
                    self.answered(ticket);
                    self.refused.push((ticket, why));
                }
                Output::Unload { model } => {
                    assert_eq!(self.in_memory.remove(&model), Some(0), "a model in use was unloaded");
                    self.unloading.push(model);
                }
            }
            let taken = self.in_memory.keys().chain(&self.loading).chain(&self.unloading);
            let taken: u64 = taken.map(|model| self.sizes[model]).sum();
            assert!(taken <= self.memory, "{taken} of {}", self.memory);
        }
    }

    fn on_grant(&mut self, ticket: Ticket, model: Digest) {
        let at = self.answered(ticket);
        for before in &mut self.open[..at] {
            let there = self.in_memory.contains_key(&before.model) || self.loading.contains(&before.model);
            before.overtaken += u32::from(!there);
            assert!(before.overtaken <= OVERTAKINGS, "{before:?}");
        }
        *self.in_memory.get_mut(&model).expect("a grant of a model in memory") += 1;
        self.granted.push(ticket);
    }

    /// Strikes an ask off the list; where it stood. Panics where it was answered before.
    fn answered(&mut self, ticket: Ticket) -> usize {
        let at = self.open.iter().position(|open| open.ticket == ticket).expect("one answer to each ask");
        self.open.remove(at);
        at
    }

    fn ask(&mut self, number: u8) -> Ticket {
        let (ticket, model) = (Ticket(self.tickets), name(number));
        self.tickets += 1;
        self.open.push(Open { ticket, model, overtaken: 0 });
        self.handle(Input::Asked { ticket, model });
        ticket
    }

    fn end(&mut self, number: u8) {
        let uses = self.in_memory.get_mut(&name(number)).filter(|uses| **uses > 0);
        if let Some(uses) = uses {
            *uses -= 1;
            self.handle(Input::Ended { model: name(number) });
        }
    }

    fn give_up(&mut self, at: usize) {
        if at < self.open.len() {
            let Open { ticket, .. } = self.open.remove(at);
            self.handle(Input::GaveUp { ticket });
        }
    }

    fn finish_load(&mut self, sound: bool) {
        let Some(model) = self.loading.pop() else { return };
        if sound {
            self.in_memory.insert(model, 0);
            self.handle(Input::Loaded { model, size: None });
        } else {
            self.handle(Input::LoadFailed { model });
        }
    }

    fn finish_unload(&mut self) {
        if let Some(model) = self.unloading.pop() {
            self.handle(Input::Unloaded { model });
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now += millis;
        self.machine.handle_timeout(Timestamp(self.now));
        self.perform();
    }

    /// Lets everything end that was begun, until nothing moves.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let used =
                (0..=u8::MAX).find(|&number| self.in_memory.get(&name(number)).is_some_and(|&n| n > 0));
            match used {
                _ if !self.unloading.is_empty() => self.finish_unload(),
                _ if !self.loading.is_empty() => self.finish_load(true),
                Some(number) => self.end(number),
                None => return,
            }
        }
        panic!("it never settles");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u8),
    End(u8),
    FinishLoad(bool),
    FinishUnload,
    GiveUp(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5_u8).prop_map(Step::Ask),
        4 => (0..5_u8).prop_map(Step::End),
        3 => prop::bool::weighted(0.9).prop_map(Step::FinishLoad),
        3 => Just(Step::FinishUnload),
        1 => (0..8_usize).prop_map(Step::GiveUp),
        1 => (0..PAUSE).prop_map(Step::Wait),
    ]
}

proptest! {
    /// The limit, uses, single loads and the bound of overtakings are held at every output ([`World::perform`]); and in the
    /// end everybody has an answer.
    #[test]
    fn every_ask_is_answered_within_the_limit(
        sizes in prop::collection::vec(1..=6_u64, 5),
        memory in 6..=14_u64,
        idle_unload in prop::option::of(1..20_000_u64),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new(memory, &sizes, idle_unload);
        for step in steps {
            match step {
                Step::Ask(number) => { world.ask(number); }
                Step::End(number) => world.end(number),
                Step::FinishLoad(sound) => world.finish_load(sound),
                Step::FinishUnload => world.finish_unload(),
                Step::GiveUp(at) => world.give_up(at),
                Step::Wait(millis) => world.wait(millis),
            }
            prop_assert!(world.open.len() <= WAITING);
        }
        world.settle();
        prop_assert!(world.open.is_empty(), "{:?}", world.open);
    }
}

#[test]
fn two_who_ask_for_one_model_share_the_load() {
    let mut world = World::new(10, &[4], None);
    let asks = [world.ask(0), world.ask(0)];
    assert!(world.granted.is_empty());
    world.finish_load(true);
    assert_eq!((world.loads, &world.granted[..]), (1, &asks[..]));
    world.ask(0);
    assert_eq!((world.loads, world.granted.len()), (1, 3), "what is there is granted at once");
}

#[test]
fn the_least_recently_used_model_makes_room() {
    let mut world = World::new(10, &[4, 4, 4, 10], None);
    for number in [0, 1] {
        world.ask(number);
        world.finish_load(true);
    }
    world.end(0);
    world.end(1);
    world.ask(0);
    world.end(0);
    world.ask(2);
    assert_eq!(world.unloading, [name(1)], "the other one was used later");
    assert!(world.loading.is_empty(), "its room is not free yet");
    world.finish_unload();
    assert_eq!(world.loading, [name(2)]);
    world.finish_load(true);
    // Nothing goes for one that would still not fit beside a model in use.
    let large = world.ask(3);
    assert!(world.unloading.is_empty());
    world.end(2);
    assert_eq!(world.unloading.len(), 2);
    world.settle();
    assert_eq!(world.granted.last(), Some(&large));
}

#[test]
fn a_small_model_takes_no_room_before_a_large_one_that_waited_first() {
    let mut world = World::new(10, &[6, 8, 2], None);
    world.ask(0);
    world.finish_load(true);
    world.ask(1);
    world.ask(2);
    assert!(world.loading.is_empty(), "the small one would fit, and another one after it");
    world.end(0);
    world.finish_unload();
    assert_eq!(world.loading, [name(1), name(2)]);
}

#[test]
fn a_model_in_constant_use_starves_nobody() {
    let mut world = World::new(4, &[4, 4], None);
    world.ask(0);
    world.finish_load(true);
    let waiting = world.ask(1);
    let mut before = 0;
    // Somebody always asks before the last use ends.
    while world.in_memory.get(&name(0)).is_some_and(|&uses| uses > 0) {
        world.ask(0);
        world.end(0);
        before += 1;
        assert!(before <= 2 * OVERTAKINGS, "it waits for ever");
    }
    world.finish_unload();
    world.finish_load(true);
    assert!(world.granted.contains(&waiting));
    assert_eq!(world.granted.len() as u32, 1 + OVERTAKINGS + 1);
}

#[test]
fn a_model_that_cannot_be_loaded_fails_its_own_asks_and_is_left_alone_for_a_while() {
    let mut world = World::new(8, &[4, 4], None);
    let (first, other) = (world.ask(0), world.ask(1));
    world.loading.swap(0, 1);
    world.finish_load(false);
    assert_eq!(world.refused, [(first, Refusal::Failed)]);
    world.finish_load(true);
    assert_eq!(world.granted, [other]);
    let again = world.ask(0);
    assert_eq!((world.refused.last(), world.loads), (Some(&(again, Refusal::Failed)), 2));
    world.wait(PAUSE);
    world.ask(0);
    assert_eq!(world.loads, 3);
}

#[test]
fn those_who_wait_are_bounded_and_are_told_when_to_come_back() {
    let mut world = World::new(4, &[4, 4], None);
    world.ask(0);
    for _ in 1..WAITING {
        world.ask(1);
    }
    assert!(world.refused.is_empty());
    let last = world.ask(1);
    assert_eq!(world.refused, [(last, Refusal::Busy { retry_after: 2 * USUAL_LOAD })]);
    world.give_up(3);
    world.ask(1);
    assert_eq!(world.refused.len(), 1, "a place is free again");
}

#[test]
fn a_model_without_use_goes_after_its_time() {
    let mut world = World::new(8, &[4, 4], Some(1_000));
    world.ask(0);
    world.finish_load(true);
    assert_eq!(world.machine.poll_timeout(), None, "it is in use");
    world.end(0);
    assert_eq!(world.machine.poll_timeout(), Some(Timestamp(world.now + 1_000)));
    world.wait(999);
    assert!(world.unloading.is_empty());
    world.wait(1);
    assert_eq!(world.unloading, [name(0)]);
}

#[test]
fn what_could_never_be_loaded_is_not_enrolled() {
    let mut machine = Residency::new(Policy { memory: 4, idle_unload: None });
    assert_eq!(machine.enrol(name(0), 5), Err(TooLarge));
    machine.handle(Timestamp(0), Input::Asked { ticket: Ticket(0), model: name(0) });
    let refused = Output::Refuse { ticket: Ticket(0), why: Refusal::Unknown };
    assert_eq!(machine.poll_output(), Some(refused));
}

#[test]
fn a_model_that_is_larger_than_believed_drives_out_what_is_without_use() {
    let mut machine = Residency::new(Policy { memory: 8, idle_unload: None });
    for number in [0, 1] {
        machine.enrol(name(number), 4).expect("it fits");
        machine.handle(Timestamp(0), Input::Asked { ticket: Ticket(number.into()), model: name(number) });
    }
    machine.handle(Timestamp(1), Input::Loaded { model: name(0), size: None });
    machine.handle(Timestamp(2), Input::Ended { model: name(0) });
    machine.handle(Timestamp(3), Input::Loaded { model: name(1), size: Some(6) });
    let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
    assert!(outputs.contains(&Output::Unload { model: name(0) }), "{outputs:?}");
}
