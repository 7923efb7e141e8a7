//! `/control/models`: what is in the cache of this machine, and what is on its way there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use protocol::{JobError, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{Api, Overloaded};
use crate::clock;
use crate::handle::Unavailable;
use crate::models::inventory::Entry;
use crate::models::{Models, Progress};
use crate::request::JobUpdate;

/// Models fetched at once: more would only share the line.
const MAX_FETCHED: usize = 2;
/// Pulls that are remembered with how they ended.
const MAX_KEPT: usize = 16;
/// Longest name of a model in bytes: what the hub allows for a repository and a file, and more.
const MAX_NAME: usize = 512;

/// The paths.
pub(super) fn router(pulls: Pulls) -> Router {
    Router::new()
        .route("/control/models", get(list))
        .route("/control/models/pull", post(pull))
        .with_state(pulls)
}

/// A model on its way here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// What was asked for.
    pub model: String,
    /// What is being done.
    pub what: String,
    /// Bytes that have arrived of what is being done.
    pub done: u64,
    /// All its bytes, where that is known.
    pub of: Option<u64>,
    /// How it ended; absent while it goes on.
    pub ended: Option<Ending>,
    /// When it began.
    pub since: Timestamp,
}

/// How a pull ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It is here, and checked.
    Here,
    /// It is not; why.
    Failed(String),
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulls(Arc<Mutex<BTreeMap<String, Pull>>>);

impl Pulls {
    /// By the model's name.
    pub(super) fn views(&self) -> BTreeMap<String, Pull> {
        self.entries().clone()
    }

    /// What a thread that panicked left behind is still good enough to be looked at.
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Pull>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a pull; `false` where it is on its way already, or too many are.
    fn begin(&self, now: Timestamp, model: &str) -> bool {
        let mut entries = self.entries();
        let on_their_way = entries.values().filter(|pull| pull.ended.is_none()).count();
        let again = entries.get(model).is_some_and(|pull| pull.ended.is_none());
        if again || on_their_way >= MAX_FETCHED {
            return false;
        }
        while entries.len() >= MAX_KEPT {
            let ended = entries.iter().filter(|(_, pull)| pull.ended.is_some());
            let Some(oldest) = ended.min_by_key(|(_, pull)| pull.since).map(|(name, _)| name.clone()) else {
                return false;
            };
            entries.remove(&oldest);
        }
        let what = "looking for it".to_owned();
        let pull = Pull { model: model.to_owned(), what, done: 0, of: None, ended: None, since: now };
        entries.insert(model.to_owned(), pull);
        true
    }

    fn change(&self, model: &str, change: impl FnOnce(&mut Pull)) {
        if let Some(pull) = self.entries().get_mut(model) {
            change(pull);
        }
    }
}

/// Tells of one of them.
#[derive(Debug)]
struct Told {
    pulls: Pulls,
    model: String,
}

impl Progress for Told {
    fn begin(&self, what: &str, total: Option<u64>) {
        self.pulls.change(&self.model, |pull| {
            (pull.what, pull.done, pull.of) = (what.to_owned(), 0, total);
        });
    }

    fn advance(&self, bytes: u64) {
        self.pulls.change(&self.model, |pull| pull.done = pull.done.saturating_add(bytes));
    }

    fn done(&self) {}
}

async fn list(_: Api) -> Result<Json<Vec<Entry>>, Overloaded> {
    let listed = spawn_blocking(|| Models::from_env().map(|models| models.list())).await;
    Ok(Json(listed.map_err(|_| Unavailable)?.unwrap_or_default()))
}

/// A model that is wanted here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// A known name, or a file of the hub.
    model: String,
}

/// Begins a pull; how it goes is told by `/control/live`.
async fn pull(_: Api, State(pulls): State<Pulls>, Json(wanted): Json<Wanted>) -> Response {
    let model = wanted.model;
    let refuse = |problem: &str| {
        (StatusCode::BAD_REQUEST, Json(JobUpdate::from(JobError::invalid("model", problem)))).into_response()
    };
    if model.is_empty() || model.len() > MAX_NAME {
        return refuse("is no model's name: a known one, or owner/repository/file.gguf");
    }
    let models = match Models::from_env() {
        Ok(models) => models,
        Err(error) => return refuse(&error.to_string()),
    };
    if !pulls.begin(clock::now(), &model) {
        return refuse("is on its way already, or too many others are: wait for one to end");
    }
    tokio::spawn(async move {
        let told = Told { pulls: pulls.clone(), model: model.clone() };
        let ending = match models.obtain(&model, &told).await {
            Ok(_) => Ending::Here,
            Err(error) => Ending::Failed(error.to_string()),
        };
        pulls.change(&model, |pull| pull.ended = Some(ending));
    });
    StatusCode::ACCEPTED.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_fetched_at_once_and_few_are_remembered() {
        let pulls = Pulls::default();
        assert!(pulls.begin(Timestamp(0), "a") && !pulls.begin(Timestamp(0), "a"));
        assert!(pulls.begin(Timestamp(1), "b") && !pulls.begin(Timestamp(1), "c"));
        for number in 2..40 {
            let name = format!("m{number}");
            pulls.change("a", |pull| pull.ended = Some(Ending::Here));
            assert!(pulls.begin(Timestamp(number), &name));
            pulls.change(&name, |pull| pull.ended = Some(Ending::Failed("no".to_owned())));
        }
        let views = pulls.views();
        assert_eq!((views.len(), views["b"].ended.is_none()), (MAX_KEPT, true));
        assert!(views.contains_key("m39") && !views.contains_key("m2"));
    }

    #[test]
    fn progress_is_told_of_the_model_that_was_asked_for() {
        let pulls = Pulls::default();
        pulls.begin(Timestamp(0), "a");
        let told = Told { pulls: pulls.clone(), model: "a".to_owned() };
        told.begin("a from the hub", Some(10));
        told.advance(4);
        let pull = &pulls.views()["a"];
        assert_eq!((pull.what.as_str(), pull.done, pull.of), ("a from the hub", 4, Some(10)));
    }
}
