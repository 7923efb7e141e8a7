//! Two peers in this process, connected over loopback TCP: one asks, the other answers. Both keep their journal and
//! their receipts on disk, as `llamesh up` does, so that the price of durability is in the numbers.

use std::time::{Duration, Instant};

use crypto::SecretKey;
use node::agents::Agents;
use node::handle::NodeHandle;
use node::journal::Journal;
use node::net::Address;
use node::request::JobRequest;
use node::traces::Traces;
use node::{Node, NodeConfig, clock};
use protocol::Capability;
use protocol::event::JobEvent;
use tempfile::TempDir;

use crate::process::Failed;

/// The peers. The folder is removed with them.
#[derive(Debug)]
pub(crate) struct Pair {
    asker: Node,
    provider: Node,
    folder: TempDir,
}

/// When what happened to one job, counted from its submission.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Course {
    pub(crate) started: Duration,
    pub(crate) first_token: Duration,
    pub(crate) last_token: Duration,
    pub(crate) done: Duration,
    pub(crate) tokens: u32,
}

impl Pair {
    /// Starts both and waits until they know each other.
    pub(crate) async fn meet(agents: Agents) -> Result<Self, Failed> {
        Self::meet_traced(agents, Traces::default()).await
    }

    /// The same, traced.
    pub(crate) async fn meet_traced(agents: Agents, traces: Traces) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let provider = start_traced(&folder, 1, (agents, Vec::new()), traces.clone()).await?;
        let snapshot = provider.handle().snapshot().await?;
        let bootstrap = snapshot.listening.iter().map(|address| address.with_peer(&snapshot.me)).collect();
        let asker = start_traced(&folder, 2, (Agents::default(), bootstrap), traces).await?;
        while asker.handle().find(Some(Capability::text_generation())).await?.is_empty() {}
        Ok(Self { asker, provider, folder })
    }

    /// The one that asks.
    pub(crate) fn asker(&self) -> &NodeHandle {
        self.asker.handle()
    }

    /// Where the asker keeps its receipts.
    pub(crate) fn receipts(&self) -> std::path::PathBuf {
        self.folder.path().join("receipts-2")
    }

    /// One job, from submission to receipt.
    pub(crate) async fn job(&self, request: &JobRequest) -> Result<Course, Failed> {
        let spec = request.spec(clock::now(), None)?;
        let begin = Instant::now();
        let mut course = Course::default();
        let mut stream = self.asker().submit(spec)?;
        while let Some(event) = stream.next().await {
            match event {
                JobEvent::Started { .. } => course.started = begin.elapsed(),
                JobEvent::Token { .. } => course.token(begin),
                JobEvent::Done(_) => course.done = begin.elapsed(),
                JobEvent::Failed(error) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(course)
    }

    /// Ends both in order.
    pub(crate) async fn part(self) -> Result<(), Failed> {
        self.asker.stop().await?;
        Ok(self.provider.stop().await?)
    }
}

impl Course {
    /// A token has arrived.
    pub(crate) fn token(&mut self, begin: Instant) {
        self.last_token = begin.elapsed();
        if self.tokens == 0 {
            self.first_token = self.last_token;
        }
        self.tokens += 1;
    }

    /// When it was started, said its first token, and was done.
    pub(crate) fn stations(&self) -> [Duration; 3] {
        [self.started, self.first_token, self.done]
    }

    /// Tokens after the first, per second.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(self.tokens.saturating_sub(1)) / (self.last_token - self.first_token).as_secs_f64()
    }
}

/// A peer with its own journal and receipts, on free ports of loopback.
pub(crate) async fn start(
    folder: &TempDir,
    seed: u8,
    agents: Agents,
    bootstrap: Vec<Address>,
) -> Result<Node, Failed> {
    start_traced(folder, seed, (agents, bootstrap), Traces::default()).await
}

async fn start_traced(
    folder: &TempDir,
    seed: u8,
    (agents, bootstrap): (Agents, Vec<Address>),
    traces: Traces,
) -> Result<Node, Failed> {
    let (journal, entries) = Journal::open(&folder.path().join(format!("journal-{seed}.redb")))?;
    let receipts = folder.path().join(format!("receipts-{seed}"));
    std::fs::create_dir(&receipts)?;
    let config = NodeConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?, "/ip4/127.0.0.1/udp/0/quic-v1".parse()?],
        bootstrap,
        agents,
        entries,
        receipts: Some(receipts),
        ..NodeConfig::new("bench".parse()?, SecretKey::from_seed(&[seed; 32]), journal)
    };
    Ok(Node::start_traced(config, traces).await?)
}
