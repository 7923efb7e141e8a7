//! `llamesh top`: the running peer as it lives, in the terminal.
//!
//! | room | concern |
//! |---|---|
//! | [`screen`] | the terminal: taken, read, and given back whatever happens |
//! | [`state`] | what is known, and what keys do |
//! | [`view`] | how it looks: a function of the state |

mod screen;
mod state;
mod view;

use std::time::Duration;

use clap::Args;
use futures::{Stream, StreamExt};
use protocol::JobId;

use super::Common;
use super::jobs::running;
use super::session::{Client, Through};
use super::stop::Stop;
use crate::api::control::live::Update;
use crate::clock;
use crate::failure::{Class, Failure};
use screen::Screen;
use state::{State, Wish};

/// How often ages are drawn again while nothing happens.
const AGING: Duration = Duration::from_secs(1);

/// Watch the running peer: its jobs, peers, market and balances
#[derive(Debug, Args)]
pub(super) struct Top {
    #[command(flatten)]
    through: Through,
}

impl Top {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        if common.json || !screen::is_there() {
            let next = "`llamesh jobs --json` and `llamesh peers --json` tell programs the same";
            return Err(Failure::new(Class::Usage, format!("top is for a terminal: {next}")));
        }
        let client = running(&self.through, &common).await?;
        let updates = client.follow("/control/live").await?;
        let stop = Stop::listen()?;
        let screen = Screen::take()?;
        watch(screen, client, Box::pin(updates), stop).await
    }
}

async fn watch(
    mut screen: Screen,
    client: Client,
    mut updates: impl Stream<Item = Update> + Unpin,
    mut stop: Stop,
) -> Result<(), Failure> {
    let mut state = State::default();
    let mut aging = tokio::time::interval(AGING);
    loop {
        screen.draw(|frame| view::draw(frame, &state, clock::now()))?;
        tokio::select! {
            () = stop.heard() => return Ok(()),
            update = updates.next() => match update {
                Some(update) => state.apply(update),
                None => return Err(Failure::new(Class::Network, "the peer has stopped")),
            },
            key = screen.key() => match state.on_key(key?) {
                Wish::Leave => return Ok(()),
                Wish::Approve(job) => state.say(approved(&client, job).await),
                Wish::Cancel(job) => state.say(cancelled(&client, job).await),
                Wish::Nothing => {}
            },
            _ = aging.tick() => {}
        }
    }
}

async fn approved(client: &Client, job: JobId) -> String {
    match client.act(&format!("/control/jobs/{job}/approve")).await {
        Ok(()) => format!("approved {job}"),
        Err(failure) => failure.message,
    }
}

async fn cancelled(client: &Client, job: JobId) -> String {
    match client.delete(&format!("/control/jobs/{job}")).await {
        Ok(()) => format!("cancelled {job}, with everything on its behalf"),
        Err(failure) => failure.message,
    }
}
