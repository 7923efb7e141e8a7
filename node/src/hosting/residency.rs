//! Which models are in memory: a pure machine, as those of `protocol` are.
//!
//! A model is loaded when somebody asks for it, and stays. When another needs the room, models without a use are
//! unloaded, the one that was used longest ago first; a model in use never is. All who ask for a model that is being
//! loaded wait for the one load. What is loaded, being loaded or being unloaded fits the limit together.
//!
//! # Who goes first
//! Asks wait in the order in which they came, and room is made for the first that needs any; nobody behind it takes room
//! before it. Asks for models that are in memory need none and are granted at once, past those that wait, or one
//! model too many would make everybody load in turns. But an ask that waits for room is overtaken [`OVERTAKINGS`] times
//! at most: then nothing is granted behind it, uses end, and it has its room. So as long as uses, loads and unloads end,
//! every ask is answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crypto::Digest;
use protocol::Timestamp;

/// Asks that may wait, for all models together. Each is a job that somebody waits for, and the market promises no more
/// places than this (`Config::queue` of its bidder); beyond it there is only a mistake or an attack.
pub const WAITING: usize = 64;
/// How often an ask that waits for room may be overtaken: a few short answers of a model that is there are worth more than
/// one change of models, which takes seconds.
pub const OVERTAKINGS: u32 = 8;
/// How long a model that could not be loaded is not tried again, in milliseconds: nobody mends a file faster, and
/// meanwhile its jobs cost nothing.
pub const PAUSE: u64 = 30_000;
/// What a load is believed to take before one was seen, in milliseconds.
const USUAL_LOAD: u64 = 2_000;
/// Bounds of what somebody is told who is to come back, in milliseconds.
const RETRY: std::ops::RangeInclusive<u64> = 1_000..=60_000;

/// How much may be in memory, and for how long without use.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Bytes of all models together; [`u64::MAX`] where there is no limit.
    pub memory: u64,
    /// Milliseconds without use after which a model is unloaded although nobody needs the room; `None` for never.
    pub idle_unload: Option<u64>,
}

/// The name of an ask, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Somebody wants to use a model.
    Asked {
        /// Who.
        ticket: Ticket,
        /// Which.
        model: Digest,
    },
    /// A use that was granted is over.
    Ended {
        /// Of which model.
        model: Digest,
    },
    /// Whoever asked waits no longer. Ignored where the ask was answered.
    GaveUp {
        /// Who.
        ticket: Ticket,
    },
    /// A model could not be loaded, and takes no memory.
    LoadFailed {
        /// Which.
        model: Digest,
    },
    /// A model is in memory.
    Loaded {
        /// Which.
        model: Digest,
        /// Bytes that it really takes, where that is known.
        size: Option<u64>,
    },
    /// A model takes no memory any more.
    Unloaded {
        /// Which.
        model: Digest,
    },
}

/// What to do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The model is in memory and stays there until [`Input::Ended`].
    Grant {
        /// Who may use it.
        ticket: Ticket,
        /// Which.
        model: Digest,
    },
    /// To be answered by [`Input::Loaded`] or [`Input::LoadFailed`].
    Load {
        /// Which.
        model: Digest,
    },
    /// There is no use of the model.
    Refuse {
        /// Who.
        ticket: Ticket,
        /// Why.
        why: Refusal,
    },
    /// To be answered by [`Input::Unloaded`].
    Unload {
        /// Which.
        model: Digest,
    },
}

/// Why an ask is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many wait.
    Busy {
        /// Milliseconds until there may be a place.
        retry_after: u64,
    },
    /// The model cannot be loaded.
    Failed,
    /// Nobody enrolled this model.
    Unknown,
}

/// A model that needs more memory than all models together may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// The machine.
#[derive(Debug)]
pub struct Residency {
    policy: Policy,
    models: BTreeMap<Digest, Model>,
    queue: VecDeque<Ask>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Model {
    /// Bytes in memory; believed until it was loaded.
    size: u64,
    /// Milliseconds that the last load took.
    load: u64,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Not in memory, and after a failure not tried before `retry`.
    Absent { retry: Timestamp },
    /// On its way since then.
    Loading { since: Timestamp },
    /// In memory, with so many uses, the last of which began or ended then.
    Loaded { uses: usize, used: Timestamp },
    /// On its way out.
    Unloading,
}

#[derive(Debug)]
struct Ask {
    ticket: Ticket,
    model: Digest,
    overtaken: u32,
}

impl Residency {
    /// A machine without models.
    pub fn new(policy: Policy) -> Self {
        Self { policy, models: BTreeMap::new(), queue: VecDeque::new(), outputs: VecDeque::new() }
    }

    /// Adds a model, which is believed to take `size` bytes in memory. One that is known already stays as it is.
    ///
    /// # Errors
    /// [`TooLarge`] where it could never be loaded.
    pub fn enrol(&mut self, model: Digest, size: u64) -> Result<(), TooLarge> {
        if size > self.policy.memory {
            return Err(TooLarge);
        }
        let state = State::Absent { retry: Timestamp::default() };
        self.models.entry(model).or_insert(Model { size, load: USUAL_LOAD, state });
        Ok(())
    }

    /// Takes note of what happened.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        match input {
            Input::Asked { ticket, model } => self.on_ask(now, ticket, model),
            Input::Ended { model } => self.on_end(now, model),
            Input::GaveUp { ticket } => self.queue.retain(|ask| ask.ticket != ticket),
            Input::LoadFailed { model } => {
                self.change(model, State::Absent { retry: now.after(PAUSE) });
                self.refuse_all(model, Refusal::Failed);
            }
            Input::Loaded { model, size } => self.on_loaded(now, model, size),
            Input::Unloaded { model } => self.change(model, State::Absent { retry: Timestamp::default() }),
        }
        self.advance(now);
    }

    /// Unloads what was not used for too long.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let late = |model: &Model| self.idle_until(model).is_some_and(|until| until <= now);
        let due: Vec<_> =
            self.models.iter().filter(|(_, model)| late(model)).map(|(name, _)| *name).collect();
        due.into_iter().for_each(|model| self.unload(model));
    }

    /// When [`Residency::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.models.values().filter_map(|model| self.idle_until(model)).min()
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn on_ask(&mut self, now: Timestamp, ticket: Ticket, model: Digest) {
        let why = match self.models.get(&model) {
            None => Some(Refusal::Unknown),
            Some(Model { state: State::Absent { retry }, .. }) if *retry > now => Some(Refusal::Failed),
            Some(_) => None,
        };
        if let Some(why) = why {
            return self.outputs.push_back(Output::Refuse { ticket, why });
        }
        self.queue.push_back(Ask { ticket, model, overtaken: 0 });
        // One that can be granted at once needs no place.
        self.advance(now);
        if self.queue.len() > WAITING {
            self.queue.pop_back();
            let why = Refusal::Busy { retry_after: self.retry_after() };
            self.outputs.push_back(Output::Refuse { ticket, why });
        }
    }

    fn on_end(&mut self, now: Timestamp, model: Digest) {
        if let Some(Model { state: State::Loaded { uses, used }, .. }) = self.models.get_mut(&model) {
            *uses = uses.saturating_sub(1);
            *used = now;
        }
    }

    fn on_loaded(&mut self, now: Timestamp, model: Digest, size: Option<u64>) {
        let Some(model) = self.models.get_mut(&model) else { return };
        if let State::Loading { since } = model.state {
            model.load = now.since(since);
        }
        // One that turns out to be larger than the limit is there already: it has everything for itself.
        model.size = size.unwrap_or(model.size).min(self.policy.memory);
        model.state = State::Loaded { uses: 0, used: now };
    }

    /// Everything that can be done for those who wait, the first of them first.
    fn advance(&mut self, now: Timestamp) {
        self.relieve();
        // One waits for room: nobody behind it takes any.
        let mut claimed = false;
        let mut at = 0;
        while let Some(&Ask { model, .. }) = self.queue.get(at) {
            match self.models.get(&model).map(|model| model.state) {
                Some(State::Loaded { .. }) if self.may_be_granted(at) => {
                    self.grant(now, at);
                    continue;
                }
                Some(State::Absent { .. }) if !claimed => claimed = !self.load(now, model),
                _ => {}
            }
            at += 1;
        }
    }

    /// Whether all asks before this one, if they wait for room, can be overtaken once more.
    fn may_be_granted(&self, at: usize) -> bool {
        self.queue.iter().take(at).all(|ask| ask.overtaken < OVERTAKINGS || !self.waits_for_room(ask))
    }

    fn waits_for_room(&self, ask: &Ask) -> bool {
        let state = self.models.get(&ask.model).map(|model| model.state);
        matches!(state, Some(State::Absent { .. } | State::Unloading))
    }

    fn grant(&mut self, now: Timestamp, at: usize) {
        for before in 0..at {
            if self.waits_for_room(&self.queue[before]) {
                self.queue[before].overtaken += 1;
            }
        }
        let Some(Ask { ticket, model, .. }) = self.queue.remove(at) else { return };
        if let Some(Model { state: State::Loaded { uses, used }, .. }) = self.models.get_mut(&model) {
            *uses += 1;
            *used = now;
        }
        self.outputs.push_back(Output::Grant { ticket, model });
    }

    /// Begins to load a model, or else to make room for it; true when it is being loaded.
    fn load(&mut self, now: Timestamp, model: Digest) -> bool {
        let size = self.models.get(&model).map_or(0, |model| model.size);
        if self.taken(|_| true).saturating_add(size) <= self.policy.memory {
            self.change(model, State::Loading { since: now });
            self.outputs.push_back(Output::Load { model });
            return true;
        }
        self.make_room(size);
        false
    }

    /// Unloads what is without use, the least recently used first, if that is enough for `size` bytes.
    fn make_room(&mut self, size: u64) {
        let mut stays = self.taken(|state| !matches!(state, State::Unloading)).saturating_add(size);
        let mut leaving = Vec::new();
        for (model, size) in self.idle() {
            if stays <= self.policy.memory {
                break;
            }
            stays -= size;
            leaving.push(model);
        }
        if stays <= self.policy.memory {
            leaving.into_iter().for_each(|model| self.unload(model));
        }
    }

    /// A model may turn out to be larger than was believed: as much as is without use goes then.
    fn relieve(&mut self) {
        while self.taken(|state| !matches!(state, State::Unloading)) > self.policy.memory {
            let Some((model, _)) = self.idle().into_iter().next() else { return };
            self.unload(model);
        }
    }

    /// Models without use and their sizes: first those that nobody waits for, and of these the least recently used.
    fn idle(&self) -> Vec<(Digest, u64)> {
        let wanted: BTreeSet<_> = self.queue.iter().map(|ask| ask.model).collect();
        let idle = |(name, model): (&Digest, &Model)| match model.state {
            State::Loaded { uses: 0, used } => Some(((wanted.contains(name), used, *name), model.size)),
            _ => None,
        };
        let mut found: Vec<_> = self.models.iter().filter_map(idle).collect();
        found.sort_unstable();
        found.into_iter().map(|((.., name), size)| (name, size)).collect()
    }

    /// Bytes of the models in some states of all in which a model takes any.
    fn taken(&self, counts: impl Fn(&State) -> bool) -> u64 {
        let takes = |model: &&Model| !matches!(model.state, State::Absent { .. }) && counts(&model.state);
        self.models.values().filter(takes).fold(0, |sum, model| sum.saturating_add(model.size))
    }

    fn unload(&mut self, model: Digest) {
        self.change(model, State::Unloading);
        self.outputs.push_back(Output::Unload { model });
    }

    fn change(&mut self, model: Digest, state: State) {
        if let Some(model) = self.models.get_mut(&model) {
            model.state = state;
        }
    }

    fn refuse_all(&mut self, model: Digest, why: Refusal) {
        let refused = self.queue.iter().filter(|ask| ask.model == model);
        self.outputs.extend(refused.map(|ask| Output::Refuse { ticket: ask.ticket, why }));
        self.queue.retain(|ask| ask.model != model);
    }

    /// As long as it takes to load once all that is waited for.
    fn retry_after(&self) -> u64 {
        let wanted: BTreeSet<_> = self.queue.iter().map(|ask| ask.model).collect();
        let load = |name| self.models.get(name).map_or(USUAL_LOAD, |model| model.load);
        let all = wanted.iter().map(load).fold(0, u64::saturating_add);
        all.clamp(*RETRY.start(), *RETRY.end())
    }

    fn idle_until(&self, model: &Model) -> Option<Timestamp> {
        match model.state {
            State::Loaded { uses: 0, used } => Some(used.after(self.policy.idle_unload?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
