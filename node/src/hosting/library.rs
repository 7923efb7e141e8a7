//! The library: models come into memory when somebody asks for them, and go when others need the room.
//!
//! What is to be loaded and unloaded is decided by [`Residency`]; here it is done. One task holds the machine and what is
//! in memory. Models are loaded on blocking threads. A [`Lease`] says that a model is in memory; it stays there until the
//! lease and all [`Hold`]s of it are dropped, on whatever thread that happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crypto::Digest;
use inference::{LoadError, Worker};
use protocol::{JobError, Speed};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, sleep_until};

use super::residency::{Input, Output, Policy, Refusal, Residency, Ticket, TooLarge};
use super::volume::{Resident, Volume};
use crate::clock;

/// How often somebody looks whether a model that was given up is gone: its worker ends within one step.
const LOOK: Duration = Duration::from_millis(5);

/// The models of a peer. Cheap to clone; when the last clone, [`Hosted`] and [`Lease`] is dropped, all are unloaded.
#[derive(Clone, Debug)]
pub struct Library {
    // Unbounded, as the end of a lease may neither wait nor be lost: asks are bounded by the machine, and ends by asks.
    orders: mpsc::UnboundedSender<Order>,
    tickets: Arc<AtomicU64>,
    loads: watch::Receiver<u64>,
}

/// A model of the library, as agents have it.
#[derive(Clone, Debug)]
pub struct Hosted {
    library: Library,
    volume: Arc<Volume>,
}

/// A model in memory, to be used.
#[derive(Debug)]
pub struct Lease {
    resident: Resident,
    hold: Hold,
}

/// Keeps a model in memory. It goes with work that outlives the task which began it.
#[derive(Clone, Debug)]
pub struct Hold {
    _use: Arc<Use>,
}

/// Why there is no lease.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaseError {
    /// Too many jobs wait for models.
    #[error("too many jobs wait for models; try again in {} s", retry_after.as_secs())]
    Busy {
        /// When there may be a place.
        retry_after: Duration,
    },
    /// The model could not be loaded.
    #[error(transparent)]
    Load(Arc<LoadError>),
    /// The library is closed, or does not know the model.
    #[error("the peer is stopping")]
    Closed,
}

impl From<LeaseError> for JobError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Busy { retry_after } => {
                Self::Busy { retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX) }
            }
            LeaseError::Load(_) | LeaseError::Closed => Self::Engine,
        }
    }
}

impl Library {
    /// An empty library; its task runs on the current runtime.
    pub fn open(policy: Policy) -> Self {
        #[expect(clippy::disallowed_methods, reason = "asks are bounded by the machine, and ends by asks")]
        let (orders, received) = mpsc::unbounded_channel();
        let (counter, loads) = watch::channel(0);
        let desk = Desk {
            machine: Residency::new(policy),
            volumes: BTreeMap::new(),
            residents: BTreeMap::new(),
            faults: BTreeMap::new(),
            waiting: BTreeMap::new(),
            tasks: JoinSet::new(),
            orders: orders.downgrade(),
            loads: counter,
        };
        tokio::spawn(desk.run(received));
        Self { orders, tickets: Arc::default(), loads }
    }

    /// Adds a model. One that is there already is the same model under another name: the weights are shared.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub async fn enrol(&self, volume: Volume) -> Result<Hosted, TooLarge> {
        let (reply, answer) = oneshot::channel();
        let volume = Arc::new(volume);
        let _ = self.orders.send(Order::Enrol { volume: Arc::clone(&volume), reply });
        // A library that is closed refuses when it is asked for the model.
        answer.await.unwrap_or(Ok(()))?;
        Ok(Hosted { library: self.clone(), volume })
    }

    /// How many models were loaded so far, one that was loaded again counted again. Changes when it does.
    pub fn loads(&self) -> watch::Receiver<u64> {
        self.loads.clone()
    }

    async fn lease(&self, model: Digest) -> Result<Lease, LeaseError> {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Ask { ticket, model, reply }).map_err(|_| LeaseError::Closed)?;
        let waiting = Waiting { ticket, orders: &self.orders };
        let lease = answer.await.unwrap_or(Err(LeaseError::Closed));
        drop(waiting);
        lease
    }
}

impl Hosted {
    /// The model, as soon as it is in memory. Dropping the future takes the ask back.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn lease(&self) -> Result<Lease, LeaseError> {
        self.library.lease(self.volume.digest()).await
    }

    /// The model, if it is in memory: to be looked at, and let go at once.
    pub(crate) async fn resident(&self) -> Option<Resident> {
        let (reply, answer) = oneshot::channel();
        self.library.orders.send(Order::Look { model: self.volume.digest(), reply }).ok()?;
        answer.await.ok()?
    }

    /// What is known of it whether it is in memory or not.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// What it measured, at the latest when it was first loaded.
    pub fn speed(&self) -> Speed {
        self.volume.speed()
    }
}

impl Lease {
    /// The worker of a model that generates.
    ///
    /// # Errors
    /// [`JobError::Engine`] for an embedder.
    pub fn worker(&self) -> Result<&Worker, JobError> {
        match &self.resident {
            Resident::Language(worker) => Ok(worker),
            Resident::Embedder(_) => Err(JobError::Engine),
        }
    }

    /// The model.
    pub fn resident(&self) -> &Resident {
        &self.resident
    }

    /// Something that keeps the model in memory as the lease does.
    pub fn hold(&self) -> Hold {
        self.hold.clone()
    }
}

#[derive(Debug)]
enum Order {
    Ask { ticket: Ticket, model: Digest, reply: Reply },
    End { model: Digest },
    Enrol { volume: Arc<Volume>, reply: oneshot::Sender<Result<(), TooLarge>> },
    GiveUp { ticket: Ticket },
    Look { model: Digest, reply: oneshot::Sender<Option<Resident>> },
}

type Reply = oneshot::Sender<Result<Lease, LeaseError>>;

/// One use that was granted.
#[derive(Debug)]
struct Use {
    model: Digest,
    orders: mpsc::UnboundedSender<Order>,
}

impl Drop for Use {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::End { model: self.model });
    }
}

/// Somebody who waits for a lease, and says so when he goes.
struct Waiting<'a> {
    ticket: Ticket,
    orders: &'a mpsc::UnboundedSender<Order>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::GiveUp { ticket: self.ticket });
    }
}

/// The task behind the library.
struct Desk {
    machine: Residency,
    volumes: BTreeMap<Digest, Arc<Volume>>,
    residents: BTreeMap<Digest, Resident>,
    /// Why models were not loaded the last time.
    faults: BTreeMap<Digest, Arc<LoadError>>,
    waiting: BTreeMap<Ticket, (Digest, Reply)>,
    tasks: JoinSet<Done>,
    /// For leases; weak, so that the desk closes when nobody is left.
    orders: mpsc::WeakUnboundedSender<Order>,
    loads: watch::Sender<u64>,
}

/// What a task of the desk brought.
enum Done {
    Loaded(Digest, Result<Resident, LoadError>),
    Unloaded(Digest),
}

impl Desk {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            let due = self.machine.poll_timeout().map(clock::instant);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.on_order(order),
                    None => return,
                },
                Some(Ok(done)) = self.tasks.join_next() => self.on_done(done),
                () = async { if let Some(due) = due { sleep_until(due).await } }, if due.is_some() => {
                    self.machine.handle_timeout(clock::now());
                }
            }
            while let Some(output) = self.machine.poll_output() {
                self.perform(output);
            }
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Ask { ticket, model, reply } => {
                self.waiting.insert(ticket, (model, reply));
                self.handle(Input::Asked { ticket, model });
            }
            Order::End { model } => self.handle(Input::Ended { model }),
            Order::Enrol { volume, reply } => {
                let enrolled = self.machine.enrol(volume.digest(), volume.memory());
                if enrolled.is_ok() {
                    self.volumes.entry(volume.digest()).or_insert(volume);
                }
                let _ = reply.send(enrolled);
            }
            Order::Look { model, reply } => {
                // Whoever is gone needs no answer.
                let _ = reply.send(self.residents.get(&model).cloned());
            }
            Order::GiveUp { ticket } => {
                if self.waiting.remove(&ticket).is_some() {
                    self.handle(Input::GaveUp { ticket });
                }
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Loaded(model, Ok(resident)) => {
                self.residents.insert(model, resident);
                self.loads.send_modify(|loads| *loads += 1);
                // No engine tells yet what it really takes.
                self.handle(Input::Loaded { model, size: None });
            }
            Done::Loaded(model, Err(error)) => {
                let name = self.volumes.get(&model).map(|volume| volume.name().to_owned());
                tracing::warn!(name, %error, "a model cannot be loaded: its jobs fail, those of others go on");
                self.faults.insert(model, Arc::new(error));
                self.handle(Input::LoadFailed { model });
            }
            Done::Unloaded(model) => self.handle(Input::Unloaded { model }),
        }
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(clock::now(), input);
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Grant { ticket, model } => self.grant(ticket, model),
            Output::Load { model } => {
                if let Some(volume) = self.volumes.get(&model).map(Arc::clone) {
                    self.tasks.spawn(load(model, volume));
                }
            }
            Output::Refuse { ticket, why } => {
                let Some((model, reply)) = self.waiting.remove(&ticket) else { return };
                // Whoever is gone needs no answer.
                let _ = reply.send(Err(self.refusal(why, &model)));
            }
            Output::Unload { model } => {
                if let Some(resident) = self.residents.remove(&model) {
                    self.tasks.spawn(unload(model, resident));
                }
            }
        }
    }

    /// A lease whose asker is gone is dropped at once, and ends like any other.
    fn grant(&mut self, ticket: Ticket, model: Digest) {
        let Some(orders) = self.orders.upgrade() else { return };
        let hold = Hold { _use: Arc::new(Use { model, orders }) };
        let reply = self.waiting.remove(&ticket);
        if let (Some((_, reply)), Some(resident)) = (reply, self.residents.get(&model)) {
            let _ = reply.send(Ok(Lease { resident: resident.clone(), hold }));
        }
    }

    fn refusal(&self, why: Refusal, model: &Digest) -> LeaseError {
        match why {
            Refusal::Busy { retry_after } => {
                LeaseError::Busy { retry_after: Duration::from_millis(retry_after) }
            }
            Refusal::Failed => {
                self.faults.get(model).map_or(LeaseError::Closed, |e| LeaseError::Load(Arc::clone(e)))
            }
            Refusal::Unknown => LeaseError::Closed,
        }
    }
}

async fn load(model: Digest, volume: Arc<Volume>) -> Done {
    let loaded = spawn_blocking(move || volume.load()).await;
    let lost = |panic: tokio::task::JoinError| {
        Err(LoadError::Broken { what: format!("the loader failed: {panic}") })
    };
    Done::Loaded(model, loaded.unwrap_or_else(lost))
}

/// Gives a model up, waits until nobody has it any more, and frees it.
async fn unload(model: Digest, resident: Resident) -> Done {
    match resident {
        Resident::Embedder(embedder) => free(embedder).await,
        Resident::Language(worker) => {
            let engine = Arc::clone(worker.engine());
            // The worker's thread ends, and lets go of the engine.
            drop(worker);
            free(engine).await;
        }
    }
    Done::Unloaded(model)
}

/// Frees what others may still have for a moment. Gigabytes take a while: not on an async thread.
async fn free<T: ?Sized + Send + Sync + 'static>(shared: Arc<T>) {
    while Arc::strong_count(&shared) > 1 {
        sleep(LOOK).await;
    }
    let _ = spawn_blocking(move || drop(shared)).await;
}

#[cfg(test)]
mod tests;
