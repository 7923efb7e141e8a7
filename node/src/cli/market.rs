//! `llamesh market`: what is asked and offered around the running peer.

use clap::Args;
use protocol::market::board::{Asked, Offered};

use super::session::{Peer, Through};
use super::{Common, print};
use crate::api::control::MarketView;
use crate::clock;
use crate::failure::{Class, Failure};

/// Show what is asked and offered around the running peer
#[derive(Debug, Args)]
pub(super) struct Market {
    #[command(flatten)]
    through: Through,
}

impl Market {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let view: MarketView = match self.through.reach(&common).await? {
            Peer::Api(client) => client.get("/control/market").await?,
            own @ Peer::Own(_) => {
                own.leave().await?;
                let why =
                    "a peer of the moment has heard nothing yet: ask one that runs (without --bootstrap)";
                return Err(Failure::new(Class::Usage, why));
            }
        };
        if common.json {
            return print::json(&view);
        }
        if view.asked.is_empty() && view.offered.is_empty() {
            print::say("nothing was asked or offered lately");
        }
        view.asked.iter().try_for_each(|asked| print::line(&asked_row(asked)))?;
        view.offered.iter().try_for_each(|offered| print::line(&offered_row(offered)))
    }
}

fn asked_row(asked: &Asked) -> String {
    let way = if asked.announced { "announced" } else { "asked us" };
    let ceiling = asked.ceiling.map_or_else(
        || "any price".to_owned(),
        |price| format!("≤ {} + {} µcr/1k", price.prompt.0, price.completion.0),
    );
    format!(
        "asked    {:>4} s ago  {}  {:<24} {way:<9} {} bytes, {} tokens, {ceiling}",
        clock::now().since(asked.at) / 1000,
        asked.requester.short(),
        asked.capability.as_str(),
        asked.input_len,
        asked.max_tokens,
    )
}

fn offered_row(offered: &Offered) -> String {
    let model = offered.model.as_deref().map_or_else(|| "-".to_owned(), print::plain);
    format!(
        "offered  {:>4} s ago  {}  {:<24} {model} at {} tokens/s, {} first, {} + {} µcr/1k",
        clock::now().since(offered.at) / 1000,
        offered.provider.short(),
        offered.capability.as_str(),
        offered.speed.decode,
        offered.queue,
        offered.price.prompt.0,
        offered.price.completion.0,
    )
}
