//! `/v1/models`: what is on offer in the mesh, by the names that providers give.

use axum::Json;
use axum::extract::Path;
use protocol::JobKind;
use serde_json::{Value, json};

use super::{Error, Gateway, target};

pub(super) async fn list(gateway: Gateway) -> Result<Json<Value>, Error> {
    Ok(Json(json!({ "object": "list", "data": on_offer(&gateway).await? })))
}

pub(super) async fn one(gateway: Gateway, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    let named = |model: &Value| model["id"] == id.as_str() || model["digest"] == id.as_str();
    let found = on_offer(&gateway).await?.into_iter().find(named);
    found.map(Json).ok_or_else(|| Error::unknown_model(&id))
}

async fn on_offer(gateway: &Gateway) -> Result<Vec<Value>, Error> {
    let profiles = target::on_offer(gateway).await?;
    // A tool has a name and a digest, too, but nobody can chat with it.
    let agents = target::offers(&profiles).filter(|agent| !agent.takes(JobKind::Call));
    let mut models: Vec<_> = agents.filter_map(|agent| agent.model.as_ref()).collect();
    models.sort_by(|a, b| (&a.name, a.digest).cmp(&(&b.name, b.digest)));
    models.dedup_by(|a, b| (a.digest, &a.name) == (b.digest, &b.name));
    Ok(models
        .into_iter()
        .map(|model| json!({ "id": model.name, "object": "model", "created": 0, "owned_by": "llamesh", "digest": model.digest }))
        .collect())
}
