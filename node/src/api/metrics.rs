//! `/metrics`: the peer in numbers, as Prometheus reads them.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Api;
use crate::metrics::reading::Reading;

/// OpenMetrics text, which Prometheus has read since its version 2.5.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The path.
pub(super) fn router() -> Router {
    Router::new().route("/metrics", get(scrape))
}

async fn scrape(api: Api) -> Response {
    let text = match Reading::of(&api.node).await {
        Ok(reading) => api.node.metrics().text(reading).ok(),
        Err(_) => None,
    };
    match text {
        Some(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the peer is stopping or overloaded; try again\n")
            .into_response(),
    }
}
