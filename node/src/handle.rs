//! The handle of a running peer: what the command line, the local API, agents and tests hold.
//!
//! A handle only queues commands for the driver; answers come back through channels that are bounded by what can be
//! in them. A [`JobStream`] that is dropped cancels its job.

use std::sync::Arc;

use crypto::{Network, PeerId, SecretKey, Verified};
use protocol::event::{JobEvent, RunId, Submission};
use protocol::job::Salt;
use protocol::ledger::Account;
use protocol::market::board::Board;
use protocol::{Capability, Evidence, JobError, JobId, JobSpec, Profile, Trace};
use tokio::sync::{mpsc, oneshot, watch};

use crate::agents::Agents;
use crate::clock;
use crate::jobs::JobView;
use crate::jws::Jws;
use crate::metrics::Metrics;
use crate::metrics::reading::Books;
use crate::net::{self, Net};
use crate::patron::{Hold, Patron};
use crate::traces::Traces;

/// A running peer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) net: Net,
    pub(crate) network: Network,
    pub(crate) agents: Agents,
    pub(crate) key: SecretKey,
    pub(crate) joined: watch::Receiver<Joining>,
    pub(crate) patron: Option<Arc<dyn Patron>>,
    pub(crate) metrics: Metrics,
    pub(crate) traces: Traces,
    /// Below which jobs stand in a trace.
    pub(crate) trace: Option<Trace>,
}

/// How joining the mesh goes.
#[derive(Clone, Debug, Default)]
pub struct Joining {
    /// True once a bootstrap address, or any other peer, has answered.
    pub joined: bool,
    /// Bootstrap addresses that have not, and why.
    pub failures: Vec<(net::Address, net::BootstrapFailure)>,
}

/// What the driver is asked.
#[derive(Debug)]
pub(crate) enum Command {
    Approve(JobId),
    Board(oneshot::Sender<Board>),
    Books(oneshot::Sender<Books>),
    Cancel(JobId),
    Jobs(oneshot::Sender<Vec<JobView>>),
    Find(Option<Capability>, oneshot::Sender<Vec<Verified<Profile>>>),
    Known(oneshot::Sender<Vec<KnownPeer>>),
    Offer,
    Submit(Box<Submission>, Subscriber),
}

/// Whoever hears of a job, and pays for it.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) events: mpsc::Sender<JobEvent>,
    pub(crate) hold: Option<Box<dyn Hold>>,
}

/// What this peer knows of another one.
#[derive(Clone, Debug)]
pub struct KnownPeer {
    /// Who.
    pub peer: PeerId,
    /// What it says of itself, while fresh.
    pub profile: Option<Verified<Profile>>,
    /// Facts about it.
    pub evidence: Vec<(Evidence, u32)>,
    /// What is owed in either direction.
    pub account: Account,
}

/// The peer has stopped, or has more commands waiting than it can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer is stopping or overloaded; try again")]
pub struct Unavailable;

impl NodeHandle {
    /// Who this is.
    pub fn id(&self) -> PeerId {
        self.net.me()
    }

    /// Which mesh it is part of.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Signs something for programs that do not speak the mesh's protocol: `header` is the text of a JSON object.
    pub fn jws(&self, header: &str, payload: &[u8]) -> Jws {
        Jws::sign(&self.key, header, payload)
    }

    /// The same peer, for jobs that somebody else pays for.
    #[must_use]
    pub fn paid_by(&self, patron: Arc<dyn Patron>) -> Self {
        Self { patron: Some(patron), ..self.clone() }
    }

    /// The same peer, for jobs that stand below a span of a trace.
    #[must_use]
    pub fn traced(&self, trace: Option<Trace>) -> Self {
        Self { trace: trace.or(self.trace), ..self.clone() }
    }

    /// Below which span of a trace its jobs stand.
    pub(crate) fn trace(&self) -> Option<Trace> {
        self.trace
    }

    /// Where its traces go.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// What this peer hosts.
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Submits a job. Everything that happens to it comes through the stream.
    ///
    /// # Errors
    /// [`JobError::Busy`] when the peer is overloaded, what [`JobSpec::check`] finds, and what its patron says.
    pub fn submit(&self, spec: JobSpec) -> Result<JobStream, JobError> {
        self.submit_for(None, spec)
    }

    pub(crate) fn submit_for(&self, run: Option<RunId>, mut spec: JobSpec) -> Result<JobStream, JobError> {
        spec.check()?;
        let hold = self.patron.as_ref().map(|patron| patron.admit(&mut spec)).transpose()?;
        let chance = || Ok((JobId(clock::random()?), Salt(clock::random()?)));
        let (job, salt) = chance().map_err(|_: clock::NoEntropy| JobError::Engine)?;
        let capacity = spec.sampling.max_tokens as usize + OTHER_EVENTS;
        let (events, stream) = mpsc::channel(capacity);
        let submission = Box::new(Submission { job, salt, spec, run, trace: self.trace });
        let busy = |_| JobError::Busy { retry_after_ms: 100 };
        let subscriber = Subscriber { events, hold };
        self.commands.try_send(Command::Submit(submission, subscriber)).map_err(busy)?;
        Ok(JobStream { job, events: stream, commands: self.commands.clone(), over: false })
    }

    /// Tells the mesh again what the peer's agents offer, after one of them has changed.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn offer_again(&self) -> Result<(), Unavailable> {
        self.commands.try_send(Command::Offer).map_err(|_| Unavailable)
    }

    /// Fresh profiles of peers that offer a capability; of all peers with anything on offer where there is none.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn find(&self, capability: Option<Capability>) -> Result<Vec<Verified<Profile>>, Unavailable> {
        self.ask(|reply| Command::Find(capability, reply)).await
    }

    /// The jobs of this peer: those that run, and then the latest that are over.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn jobs(&self) -> Result<Vec<JobView>, Unavailable> {
        self.ask(Command::Jobs).await
    }

    /// Lets a job begin that is held ([`JobEvent::Awaiting`]). One that is not held is left as it is; one that is not to begin
    /// is cancelled.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn approve(&self, job: JobId) -> Result<(), Unavailable> {
        self.commands.try_send(Command::Approve(job)).map_err(|_| Unavailable)
    }

    /// Gives up a job of this peer, and everything that is done on its behalf; whoever submitted it hears that it was
    /// cancelled.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn cancel(&self, job: JobId) -> Result<(), Unavailable> {
        self.commands.try_send(Command::Cancel(job)).map_err(|_| Unavailable)
    }

    /// What was asked and offered around here lately.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn board(&self) -> Result<Board, Unavailable> {
        self.ask(Command::Board).await
    }

    /// Everybody of whom something is known.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn known(&self) -> Result<Vec<KnownPeer>, Unavailable> {
        self.ask(Command::Known).await
    }

    /// The network at this moment.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn snapshot(&self) -> Result<net::Snapshot, Unavailable> {
        self.net.snapshot().await.map_err(|_| Unavailable)
    }

    /// Waits until any peer of the mesh answered, or all of `addresses` bootstrap addresses failed.
    ///
    /// # Errors
    /// The addresses and what is wrong with each.
    pub async fn join(&self, addresses: usize) -> Result<(), Vec<(net::Address, net::BootstrapFailure)>> {
        let mut joined = self.joined.clone();
        let settled = joined.wait_for(|state| state.joined || state.failures.len() >= addresses).await;
        match settled {
            Ok(state) if state.joined => Ok(()),
            Ok(state) => Err(state.failures.clone()),
            Err(_) => Err(Vec::new()),
        }
    }

    /// What is counted of this peer.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) async fn books(&self) -> Result<Books, Unavailable> {
        self.ask(Command::Books).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|_| Unavailable)?;
        answer.await.map_err(|_| Unavailable)
    }
}

/// Bids (at most 64), starts, reports of progress and the last event: everything in a job's stream but its tokens.
const OTHER_EVENTS: usize = 512;

/// The events of one job. Dropping it before the last event cancels the job.
#[derive(Debug)]
pub struct JobStream {
    job: JobId,
    events: mpsc::Receiver<JobEvent>,
    commands: mpsc::Sender<Command>,
    over: bool,
}

impl JobStream {
    /// The job's name.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// The next event; `None` after [`JobEvent::Done`] or [`JobEvent::Failed`]. A peer that stops in between fails
    /// the job. Cancel-safe.
    pub async fn next(&mut self) -> Option<JobEvent> {
        if self.over {
            return None;
        }
        let event = self.events.recv().await.unwrap_or(JobEvent::Failed(JobError::Cancelled));
        self.over = matches!(event, JobEvent::Done(_) | JobEvent::Failed(_));
        Some(event)
    }
}

impl Drop for JobStream {
    fn drop(&mut self) {
        if !self.over {
            // When the queue is full the driver finds the stream closed at the job's next event, and cancels then.
            let _ = self.commands.try_send(Command::Cancel(self.job));
        }
    }
}
