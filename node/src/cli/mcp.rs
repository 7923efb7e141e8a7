//! `llamesh mcp`: the mesh as tools, for programs that start their servers.
//!
//! stdout is the protocol's alone. Jobs go through the peer that runs here, or one of its own, as with `llamesh submit`.

use std::sync::Arc;

use clap::Args;
use futures::FutureExt;
use futures::future::BoxFuture;
use protocol::Capability;
use tokio_util::sync::CancellationToken;

use super::Common;
use super::session::{Client, Peer, Through};
use super::stop::Stop;
use crate::api::control::Found;
use crate::api::mcp::guest::{Guest, Mesh};
use crate::api::mcp::stdio;
use crate::failure::Failure;

/// Serve the Model Context Protocol on standard input and output
#[derive(Debug, Args)]
pub(super) struct Mcp {
    #[command(flatten)]
    through: Through,
}

impl Mcp {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let peer = self.through.reach(&common).await?;
        let mesh: Arc<dyn Mesh> = match &peer {
            Peer::Api(client) => Arc::new(client.clone()),
            Peer::Own(node) => Arc::new(node.handle().clone()),
        };
        let guest = Guest::owner(mesh, common.data_dir()?.receipts(), peer.traces(&common)?);
        let (mut signals, stop) = (Stop::listen()?, CancellationToken::new());
        let serving = stdio::serve(guest, stop.clone());
        let mut serving = std::pin::pin!(serving);
        let outcome = tokio::select! {
            outcome = &mut serving => outcome,
            () = signals.heard() => {
                stop.cancel();
                serving.await
            }
        };
        let left = peer.leave().await;
        outcome.and(left)
    }
}

impl Mesh for Client {
    fn find(&self, capability: Option<Capability>) -> BoxFuture<'_, Result<Vec<Found>, Failure>> {
        async move { self.found(capability.as_ref()).await }.boxed()
    }
}
