//! `llamesh doctor`: how this peer is connected, and what to do where it is not.

use clap::Args;

use super::session::{Peer, Through, busy};
use super::{Common, print};
use crate::api::control::{Status, status_of};
use crate::failure::Failure;

/// Say how this peer is connected, and what to do about it.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    through: Through,
}

impl Doctor {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let peer = self.through.reach(&common).await?;
        let status: Option<Status> = match (&peer, peer.own()) {
            (Peer::Api(client), _) => Some(client.get("/control/status").await?),
            (_, Some(node)) => Some(status_of(node).await.map_err(busy)?),
            (Peer::Own(_), None) => None,
        };
        peer.leave().await?;
        let Some(status) = status else { return Ok(()) };
        if common.json { print::json(&status) } else { show(&status) }
    }
}

fn show(status: &Status) -> Result<(), Failure> {
    print::line(&format!("peer       {}", status.peer))?;
    print::line(&format!("did        {}", status.did))?;
    print::line(&format!("network    {}", status.network))?;
    for address in &status.listening {
        print::line(&format!("listening  {address}"))?;
    }
    for address in &status.advertised {
        print::line(&format!("advertised {address}"))?;
    }
    print::line(&format!(
        "lookups    {}",
        if status.serves_lookups { "served for others" } else { "only asked" }
    ))?;
    for peer in &status.connected {
        let (direction, address) =
            (peer.direction.as_deref().unwrap_or("?"), peer.address.as_deref().unwrap_or("?"));
        print::line(&format!("connected  {} {direction} {address}", peer.peer))?;
    }
    for error in &status.dial_errors {
        let whom =
            error.address.clone().or_else(|| error.peer.map(|peer| peer.to_string())).unwrap_or_default();
        print::line(&format!("dial error {}s ago {whom}: {}", error.seconds_ago, error.error))?;
    }
    status.advice().into_iter().try_for_each(|advice| print::line(&format!("advice     {advice}")))
}
