//! `/control/keys`: the owner makes keys for others, looks at what they have spent, and ends them.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use protocol::JobError;
use serde::{Deserialize, Serialize};

use crate::api::keys::limits::Limits;
use crate::api::keys::token::KeyId;
use crate::api::keys::{KeyView, Keys, KeysError};
use crate::clock;
use crate::request::JobUpdate;

/// The paths.
pub(super) fn router() -> Router {
    Router::new().route("/control/keys", get(list).post(create)).route("/control/keys/{id}", delete(revoke))
}

/// A key that is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What it is called.
    pub name: String,
    /// What it may do.
    #[serde(default)]
    pub limits: Limits,
}

/// A key that was made, with the only sight of its token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Made {
    /// Its name in commands.
    pub id: KeyId,
    /// What a client sends.
    pub token: String,
}

/// Makes a key.
///
/// # Errors
/// [`KeysError`].
pub fn make(keys: &Keys, new: NewKey) -> Result<Made, KeysError> {
    let (id, token) = keys.create(clock::now(), &new.name, new.limits)?;
    Ok(Made { id, token: token.text().to_owned() })
}

async fn create(keys: Keys, Json(new): Json<NewKey>) -> Result<Json<Made>, KeysError> {
    make(&keys, new).map(Json)
}

async fn list(keys: Keys) -> Json<Vec<KeyView>> {
    Json(keys.list(clock::now()))
}

async fn revoke(keys: Keys, Path(id): Path<KeyId>) -> Result<StatusCode, KeysError> {
    keys.revoke(id).map(|()| StatusCode::NO_CONTENT)
}

impl IntoResponse for KeysError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Full | Self::Name => StatusCode::BAD_REQUEST,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Entropy(_) | Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(JobUpdate::from(JobError::invalid("key", &self.to_string())))).into_response()
    }
}
