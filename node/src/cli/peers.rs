//! `llamesh peers`: who is connected or known, and what is known of them.

use clap::Args;
use serde_json::json;

use super::session::{Peer, Through, busy};
use super::{Common, print};
use crate::api::control::{PeerView, peer_views};
use crate::failure::Failure;

/// Show which peers are connected or known.
#[derive(Debug, Args)]
pub(super) struct Peers {
    #[command(flatten)]
    through: Through,
}

impl Peers {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let peer = self.through.reach(&common).await?;
        let peers = match (&peer, peer.own()) {
            (Peer::Api(client), _) => client.get("/control/peers").await?,
            (_, Some(node)) => peer_views(node).await.map_err(busy)?,
            (Peer::Own(_), None) => Vec::new(),
        };
        peer.leave().await?;
        if common.json {
            return print::json(&json!({ "peers": peers }));
        }
        if peers.is_empty() {
            print::say("no peer is connected or known; `llamesh doctor` says more");
        }
        peers.iter().try_for_each(|peer| print::line(&row(peer)))
    }
}

fn row(view: &PeerView) -> String {
    let capabilities: Vec<_> = view.capabilities.iter().map(|capability| capability.as_str()).collect();
    let rtt = view.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms"));
    let state = view.address.as_deref().unwrap_or("not connected");
    format!("{}  {rtt:>9}  {state}  {}", view.peer, capabilities.join(" "))
}
