//! `llamesh keys`: who else may use this peer's API, for what, and at whose cost.
//!
//! Where a peer runs it is asked, and obeys at once; where none does, the file is changed under the folder's lock.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, Subcommand};
use protocol::{Capability, Credits};
use serde_json::json;

use super::session::{Client, Peer, Through};
use super::{Common, print};
use crate::api::control::keys::{Made, NewKey, make};
use crate::api::keys::limits::Limits;
use crate::api::keys::token::KeyId;
use crate::api::keys::{self, KeyView};
use crate::clock;
use crate::datadir::Held;
use crate::failure::Failure;

/// Make keys for others to use this peer's API, list or revoke them
#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key; its token is shown this once
    Create(Create),
    /// List keys with what they may and what they have spent
    List(At),
    /// End a key at once
    Revoke(Revoke),
}

/// Where the keys are.
#[derive(Debug, Args)]
pub(super) struct At {
    /// The API of a running peer [default: the one in the data directory]
    #[arg(long, value_name = "URL")]
    api: Option<String>,
}

/// Make a key
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Who gets it, or what it is for
    name: String,
    /// Micro-credits that its jobs may cost, all together [default: only what is free]
    #[arg(long, value_name = "N")]
    spend: Option<u64>,
    /// Micro-credits that its jobs may cost in a day (UTC)
    #[arg(long, value_name = "N")]
    spend_per_day: Option<u64>,
    /// Micro-credits that one job may cost [default: a sixteenth of the spend]
    #[arg(long, value_name = "N")]
    per_job: Option<u64>,
    /// What it may ask for, with everything below (repeatable) [default: everything]
    #[arg(long, value_name = "C", value_delimiter = ',')]
    capability: Vec<Capability>,
    /// When it ends: 90s, 30m, 12h or 7d from now [default: never]
    #[arg(long, value_name = "TIME", value_parser = span)]
    expires_in: Option<Duration>,
    /// Requests in a minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<NonZeroU32>,
    /// Requests at work at once [default: 256]
    #[arg(long, value_name = "N")]
    concurrent: Option<NonZeroU32>,
    #[command(flatten)]
    at: At,
}

/// End a key
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// Its id, as `keys list` shows it
    id: KeyId,
    #[command(flatten)]
    at: At,
}

impl Keys {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(&common).await,
            Self::List(at) => list(&Place::of(&at, &common).await?, &common).await,
            Self::Revoke(revoke) => revoke.run(&common).await,
        }
    }
}

/// Who keeps the keys at this moment.
enum Place {
    /// A running peer.
    Peer(Client),
    /// Nobody else: the folder is ours until this is dropped.
    File { keys: keys::Keys, _held: Held },
}

impl Place {
    async fn of(at: &At, common: &Common) -> Result<Self, Failure> {
        let dir = common.data_dir()?;
        if at.api.is_some() || dir.api().is_some() {
            let through = Through { bootstrap: Vec::new(), api: at.api.clone() };
            if let Peer::Api(client) = through.reach(common).await? {
                return Ok(Self::Peer(client));
            }
        }
        let held = dir.hold()?;
        Ok(Self::File { keys: keys::Keys::open(&held.dir().keys())?, _held: held })
    }

    async fn list(&self) -> Result<Vec<KeyView>, Failure> {
        match self {
            Self::Peer(client) => client.get("/control/keys").await,
            Self::File { keys, .. } => Ok(keys.list(clock::now())),
        }
    }
}

impl Create {
    async fn run(self, common: &Common) -> Result<(), Failure> {
        let place = Place::of(&self.at, common).await?;
        let new = NewKey { name: self.name.clone(), limits: self.limits() };
        let made = match &place {
            Place::Peer(client) => client.make("/control/keys", &new).await?,
            Place::File { keys, .. } => make(keys, new)?,
        };
        let Made { id, token } = made;
        if common.json {
            return print::json(&json!({ "id": id, "token": token }));
        }
        print::say(&format!("key {id}; its token is shown this once, give it to whoever is to have it:"));
        print::line(&token)?;
        print::say(
            "from now on everybody who uses this peer's API needs a key, programs on this machine included",
        );
        Ok(())
    }

    fn limits(self) -> Limits {
        let end = |span: Duration| clock::now().after(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        Limits {
            spend: self.spend.map(Credits),
            spend_per_day: self.spend_per_day.map(Credits),
            per_job: self.per_job.map(Credits),
            capabilities: self.capability,
            expires: self.expires_in.map(end),
            requests_per_minute: self.requests_per_minute,
            concurrent: self.concurrent,
        }
    }
}

impl Revoke {
    async fn run(self, common: &Common) -> Result<(), Failure> {
        match Place::of(&self.at, common).await? {
            Place::Peer(client) => client.delete(&format!("/control/keys/{}", self.id)).await?,
            Place::File { keys, .. } => keys.revoke(self.id)?,
        }
        if common.json {
            return print::json(&json!({ "revoked": self.id }));
        }
        print::say(&format!("key {} is revoked", self.id));
        Ok(())
    }
}

async fn list(place: &Place, common: &Common) -> Result<(), Failure> {
    let keys = place.list().await?;
    if common.json {
        return print::json(&json!({ "keys": keys }));
    }
    if keys.is_empty() {
        print::say("there are no keys: programs on this machine need none, others are not let in");
    }
    keys.iter().try_for_each(|key| print::line(&row(key)))
}

fn row(key: &KeyView) -> String {
    let limits = &key.limits;
    let ended = limits.expires.is_some_and(|end| clock::now() >= end);
    let state = match (key.revoked, ended) {
        (true, _) => "revoked",
        (false, true) => "expired",
        (false, false) => "valid",
    };
    let spend = match (limits.spend, limits.spend_per_day) {
        (None, None) => "only what is free".to_owned(),
        (Some(all), None) => format!("spent {} of {all}", key.spent),
        (None, Some(day)) => format!("spent {} of {day} today", key.spent_today),
        (Some(all), Some(day)) => {
            format!("spent {} of {all}, {} of {day} today", key.spent, key.spent_today)
        }
    };
    let names: Vec<_> = limits.capabilities.iter().map(Capability::as_str).collect();
    let what = if names.is_empty() { "everything".to_owned() } else { names.join(", ") };
    format!("{}  {state:<8} {:<20} {spend}; {what}", key.id, print::plain(&key.name))
}

/// `90s`, `30m`, `12h`, `7d`.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "a number with its unit is expected: 90s, 30m, 12h or 7d".to_owned();
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "7", "d", "7é", "-1d", "99999999999999999999d", "9999999999999999999d"] {
            span(wrong).unwrap_err();
        }
    }
}
