//! `/control/receipts`: what was done for this peer, and whether it was right.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path as InPath, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use crypto::{Digest, PeerId};
use protocol::{Capability, Credits, JobError, JobId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::{Api, Overloaded};
use crate::failure::Failure;
use crate::handle::Unavailable;
use crate::models::{Models, Silent};
use crate::receipts::{ReceiptError, ReceiptFile, path_of};
use crate::request::JobUpdate;
use crate::verification::replaying::with_model;
use crate::verification::{self, Verdict, Word};

/// Receipts in a list, the latest. Each is checked when it is listed.
const MAX_LISTED: usize = 200;
/// Replays at once: each reads a model and keeps every core busy.
const REPLAYS: usize = 1;

/// The paths.
pub(super) fn router() -> Router {
    Router::new()
        .route("/control/receipts", get(list))
        .route("/control/receipts/{receipt}", get(one))
        .route("/control/receipts/{receipt}/verify", post(verify))
        .with_state(Arc::new(Semaphore::new(REPLAYS)))
}

/// The latest receipts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Listed {
    /// The newest first.
    pub receipts: Vec<ReceiptView>,
    /// How many there are in all.
    pub of: usize,
}

/// A receipt in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReceiptView {
    /// Its name, as the file says.
    pub receipt: String,
    /// What it says, where it is one.
    pub view: Option<Summary>,
    /// Why it is none.
    pub problem: Option<String>,
}

/// What a receipt says, in short.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The job.
    pub job: JobId,
    /// The job that it is a part of.
    pub parent: Option<JobId>,
    /// Who did it.
    pub provider: PeerId,
    /// Under which capability.
    pub capability: Capability,
    /// With which model.
    pub model: Option<Digest>,
    /// On which engine.
    pub engine: Option<String>,
    /// Tokens read.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub answer_tokens: u32,
    /// What is owed.
    pub cost: Credits,
    /// When it was done.
    pub finished: Timestamp,
}

impl From<&ReceiptFile> for Summary {
    fn from(file: &ReceiptFile) -> Self {
        let receipt = file.receipt.value();
        Self {
            job: receipt.job,
            parent: receipt.parent,
            provider: file.receipt.signer(),
            capability: receipt.capability.clone(),
            model: receipt.model,
            engine: receipt.engine.clone(),
            prompt_tokens: receipt.prompt_tokens(),
            answer_tokens: receipt.answer_tokens(),
            cost: receipt.cost,
            finished: receipt.finished,
        }
    }
}

async fn list(api: Api) -> Response {
    let Some(folder) = api.receipts else { return Json(Listed::default()).into_response() };
    match spawn_blocking(move || latest(&folder)).await {
        Ok(listed) => Json(listed).into_response(),
        Err(_) => Overloaded::from(Unavailable).into_response(),
    }
}

fn latest(folder: &Path) -> Listed {
    // A folder that cannot be read holds nothing that could be shown.
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let json = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"));
    let at = |entry: &std::fs::DirEntry| entry.metadata().and_then(|found| found.modified());
    let mut files: Vec<_> =
        json.map(|entry| (at(&entry).unwrap_or(SystemTime::UNIX_EPOCH), entry.path())).collect();
    let of = files.len();
    files.sort_unstable_by(|a, b| b.cmp(a));
    files.truncate(MAX_LISTED);
    Listed { receipts: files.iter().map(|(_, path)| view(path)).collect(), of }
}

fn view(path: &Path) -> ReceiptView {
    let receipt = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match ReceiptFile::read(path) {
        Ok(file) => ReceiptView { receipt, view: Some(Summary::from(&file)), problem: None },
        Err(error) => ReceiptView { receipt, view: None, problem: Some(error.to_string()) },
    }
}

/// The file as it is kept.
async fn one(api: Api, InPath(receipt): InPath<String>) -> Result<Response, Missing> {
    let path = place(&api, &receipt)?;
    let text = spawn_blocking(move || std::fs::read(path)).await.ok().and_then(Result::ok).ok_or(Missing)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

#[derive(Deserialize)]
struct How {
    /// Whether the answer is to be computed again.
    #[serde(default)]
    replay: bool,
}

async fn verify(
    api: Api,
    State(replays): State<Arc<Semaphore>>,
    InPath(receipt): InPath<String>,
    Query(how): Query<How>,
) -> Result<Response, Missing> {
    let path = place(&api, &receipt)?;
    let place = match how.replay {
        true => match replays.try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => return Ok(Overloaded::from(Unavailable).into_response()),
        },
        false => None,
    };
    let judged = spawn_blocking(move || judge(&path, place)).await;
    Ok(match judged.map_err(|_| Missing)? {
        Ok(verdict) => Json(verdict).into_response(),
        Err(failure) => {
            let error = JobError::invalid("receipt", &failure.message);
            (StatusCode::BAD_REQUEST, Json(JobUpdate::from(error))).into_response()
        }
    })
}

/// The verdict on a file; with a place for a replay, what a replay finds. It keeps its place to its end, whether anybody
/// still waits or not.
fn judge(path: &Path, place: Option<OwnedSemaphorePermit>) -> Result<Verdict, Failure> {
    let file = match ReceiptFile::read(path) {
        Ok(file) => file,
        Err(error @ ReceiptError::Io { .. }) => {
            return Err(Failure::new(crate::failure::Class::Request, error));
        }
        Err(error) => return Ok(Verdict::new(Word::Refuted, error.to_string())),
    };
    if place.is_none() {
        return Ok(Verdict::signed(&file));
    }
    let wanted = match verification::replayable(&file) {
        Ok((_, _, digest)) => digest,
        Err(verdict) => return Ok(verdict),
    };
    let cached = Models::from_env().ok().and_then(|models| models.by_digest(&wanted));
    match cached {
        Some(model) => with_model(&file, &model, &Silent),
        None => {
            let why = format!("the model {wanted} is not in the cache of this machine");
            Ok(Verdict::new(Word::Unverifiable, why))
        }
    }
}

/// Where a receipt is kept. Its name is a digest, and no way to another folder.
fn place(api: &Api, receipt: &str) -> Result<PathBuf, Missing> {
    let digest: Digest = receipt.parse().map_err(|_| Missing)?;
    let path = path_of(api.receipts.as_deref().ok_or(Missing)?, digest);
    path.is_file().then_some(path).ok_or(Missing)
}

/// No such receipt.
struct Missing;

impl IntoResponse for Missing {
    fn into_response(self) -> Response {
        let error =
            JobError::invalid("receipt", "is not kept here: GET /control/receipts lists those that are");
        (StatusCode::NOT_FOUND, Json(JobUpdate::from(error))).into_response()
    }
}
