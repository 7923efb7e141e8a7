//! Peers within the test's own process.

use crypto::SecretKey;
use node::agents::Agents;
use node::api::{Api, Server};
use node::journal::Journal;
use node::{Node, NodeConfig, clock};
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
