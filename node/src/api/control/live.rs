//! `/control/live`: all that people watch, as one stream of server-sent events.
//!
//! The first [`Update`] is whole; each further one tells what has changed since the one before it, at most every
//! [`TICK`], and nothing is sent while nothing changes. What is next is looked up when the last update has been taken,
//! so that a slow reader skips what is between and nothing waits for it.
//!
//! | room | concern |
//! |---|---|
//! | [`changes`] | what of a list is new, and what is gone |
//! | `picture` | all of it at one moment |

pub mod changes;
mod picture;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::Stream;
use futures::stream::unfold;
use protocol::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::models::{Pull, Pulls};
use super::plans::RunView;
use super::{Api, MarketView, Overloaded, PeerView, Status};
use crate::clock;
use crate::handle::Unavailable;
use crate::jobs::JobView;
use changes::Changes;
use picture::{Picture, Runs};

/// How often it is looked for changes: often enough to look alive, seldom enough to cost nothing.
pub const TICK: Duration = Duration::from_millis(250);
/// Streams at once. Each looks at the whole peer a few times a second, and an owner has only so many screens.
const STREAMS: usize = 32;

/// The paths. `pulls` are told of, too.
pub(super) fn router(pulls: Pulls) -> Router {
    let streams = Arc::new(Semaphore::new(STREAMS));
    Router::new().route("/control/live", get(live)).with_state(Live { streams, pulls })
}

#[derive(Clone, Debug)]
struct Live {
    streams: Arc<Semaphore>,
    pulls: Pulls,
}

/// What has changed: one event of the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Update {
    /// The peer's clock.
    pub now: Timestamp,
    /// True of the first one: what was known before does not hold any more.
    pub whole: bool,
    /// The peer itself, without who is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// What to do about its reachability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<Vec<String>>,
    /// Everybody who is connected or known.
    #[serde(skip_serializing_if = "Changes::is_empty")]
    pub peers: Changes<PeerView>,
    /// Jobs. One that comes here again is another one, so the keys name the time, too.
    #[serde(skip_serializing_if = "Changes::is_empty")]
    pub jobs: Changes<JobView>,
    /// What is asked and offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub market: Option<MarketView>,
    /// Runs of plans.
    #[serde(skip_serializing_if = "Changes::is_empty")]
    pub plans: Changes<RunView>,
    /// Models on their way here.
    #[serde(skip_serializing_if = "Changes::is_empty")]
    pub pulls: Changes<Pull>,
}

impl Update {
    fn says_something(&self) -> bool {
        let silent = Self { now: self.now, ..Self::default() };
        *self != silent
    }
}

/// One reader's stream.
struct Watch {
    api: Api,
    pulls: Pulls,
    tick: Interval,
    runs: Runs,
    told: Option<Picture>,
    _place: OwnedSemaphorePermit,
}

async fn live(api: Api, State(live): State<Live>) -> Response {
    let Ok(place) = live.streams.try_acquire_owned() else {
        return Overloaded::from(Unavailable).into_response();
    };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let runs = Runs::of(api.receipts.as_deref());
    let watch = Watch { api, pulls: live.pulls, tick, runs, told: None, _place: place };
    Sse::new(events(watch)).keep_alive(KeepAlive::default()).into_response()
}

/// Ends when the peer stops.
fn events(watch: Watch) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(watch, |mut watch| async move {
        let update = watch.next().await.ok()?;
        Some((Ok(Event::default().json_data(&update).unwrap_or_default()), watch))
    })
}

impl Watch {
    /// The next update that says something.
    async fn next(&mut self) -> Result<Update, Unavailable> {
        loop {
            self.tick.tick().await;
            let picture = Picture::take(&self.api.node, &self.pulls, &mut self.runs).await?;
            let update = picture.since(clock::now(), self.told.as_ref());
            self.told = Some(picture);
            if update.says_something() {
                return Ok(update);
            }
        }
    }
}
