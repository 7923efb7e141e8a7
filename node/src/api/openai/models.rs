//! `/v1/models`: what is on offer in the mesh, by the names that providers give.

use axum::Json;
use axum::extract::{Path, State};
use protocol::{JobError, JobKind};
use serde_json::{Value, json};

use super::{Api, Error};

pub(super) async fn list(State(api): State<Api>) -> Result<Json<Value>, Error> {
    Ok(Json(json!({ "object": "list", "data": on_offer(&api).await? })))
}

pub(super) async fn one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    let found = on_offer(&api).await?.into_iter().find(|model| model["id"] == id.as_str());
    found.map(Json).ok_or_else(|| Error::unknown_model(&id))
}

async fn on_offer(api: &Api) -> Result<Vec<Value>, Error> {
    let busy = |_| Error::from(JobError::Busy { retry_after_ms: 1000 });
    let profiles = api.node.find(None).await.map_err(busy)?;
    // A tool has a name and a digest, too, but nobody can chat with it.
    let agents = profiles.iter().flat_map(|p| &p.agents).filter(|agent| !agent.takes(JobKind::Call));
    let mut models: Vec<_> = agents.filter_map(|agent| agent.model.as_ref()).collect();
    models.sort_by(|a, b| (&a.name, a.digest).cmp(&(&b.name, b.digest)));
    models.dedup_by_key(|model| model.digest);
    Ok(models
        .into_iter()
        .map(|model| json!({ "id": model.name, "object": "model", "created": 0, "owned_by": "llamesh", "digest": model.digest }))
        .collect())
}
