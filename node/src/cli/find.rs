//! `llamesh find`: who offers a capability, as they say themselves.

use clap::Args;
use protocol::{AgentOffer, Capability};
use serde_json::json;

use super::session::Through;
use super::{Common, print};
use crate::api::control::Found;
use crate::failure::{Class, Failure};

/// Show who offers a capability.
#[derive(Debug, Args)]
pub(super) struct Find {
    /// The capability, or an ancestor of it; everything by default
    capability: Option<Capability>,
    #[command(flatten)]
    through: Through,
}

impl Find {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let peer = self.through.reach(&common).await?;
        let providers = peer.find(self.capability.as_ref()).await?;
        peer.leave().await?;
        show(&self.capability, &providers, common.json)
    }
}

fn show(capability: &Option<Capability>, providers: &[Found], as_json: bool) -> Result<(), Failure> {
    if as_json {
        print::json(&json!({ "providers": providers }))?;
    }
    let wanted =
        |offer: &&AgentOffer| capability.as_ref().is_none_or(|wanted| wanted.covers(&offer.capability));
    let mut any = false;
    for provider in providers {
        for offer in provider.profile.agents.iter().filter(wanted) {
            any = true;
            if !as_json {
                print::line(&row(provider, offer))?;
            }
        }
    }
    if any {
        return Ok(());
    }
    let what =
        capability.as_ref().map_or_else(|| "anything".to_owned(), |capability| format!("`{capability}`"));
    let next = "see what is there with `llamesh find`, and how this peer is connected with `llamesh doctor`";
    Err(Failure::new(Class::NoProvider, format!("nobody offers {what}; {next}")))
}

fn row(provider: &Found, offer: &AgentOffer) -> String {
    let model = offer.model.as_ref().map_or_else(|| "-".to_owned(), |model| print::plain(&model.name));
    let (speed, price) = (offer.speed.decode, offer.price.completion.0);
    format!(
        "{}  {:<24} {model:<12} {speed:>6} t/s  {price:>6} µcr/1k",
        provider.peer,
        offer.capability.as_str()
    )
}
