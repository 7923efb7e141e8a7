//! Peers within the test's own process.

use crypto::SecretKey;
use node::agents::Agents;
use node::api::{Api, Server};
use node::journal::Journal;
use node::{Node, NodeConfig, clock};
use protocol::{AgentOffer, Capability, JobKind, Price, Speed};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A peer that hosts these agents, keeps nothing, listens nowhere and knows nobody.
pub(crate) fn alone(agents: Agents) -> NodeConfig {
    let key = SecretKey::from_seed(&clock::random().expect("entropy"));
    let journal = Journal::in_memory().expect("a journal");
    NodeConfig { agents, ..NodeConfig::new("within".parse().expect("a network"), key, journal) }
}

/// Serves a peer's local API for as long as the test lasts, and says where.
pub(crate) fn serve(node: &Node, server: Server) -> String {
    let url = server.url();
    let api = Api { node: node.handle().clone(), receipts: None };
    tokio::spawn(server.serve(api, CancellationToken::new()));
    url
}

/// What an agent without a model offers for nothing.
pub(crate) fn free(agent: &str, capability: Capability, kinds: Vec<JobKind>) -> AgentOffer {
    AgentOffer {
        agent: agent.to_owned(),
        capability,
        kinds,
        model: None,
        price: Price::default(),
        speed: Speed::default(),
        languages: Vec::new(),
        modalities: Vec::new(),
        tools: Vec::new(),
    }
}

/// Counts as one for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a watch::Sender<usize>);

impl<'a> Counted<'a> {
    pub(crate) fn by(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
