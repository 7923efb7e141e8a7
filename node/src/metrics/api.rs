//! Requests to the local API: how many, by which door, how they ended, how long they took.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::{Room, WAITS};

/// Which paths belong together.
const DOORS: [(&str, &str); 6] = [
    ("/v1/", "openai"),
    ("/control/", "control"),
    ("/metrics", "metrics"),
    ("/mcp", "mcp"),
    ("/a2a", "a2a"),
    ("/tokenize", "openai"),
];

/// Requests to the local API.
pub(crate) struct Api {
    requests: Family<[(&'static str, &'static str); 2], Counter>,
    duration: Histogram,
}

impl Api {
    pub(super) fn new(room: &mut Room<'_>) -> Self {
        let (requests, help) =
            (Family::default(), "Requests, by what their path belongs to and how they ended");
        room.registry.register(format!("{}_requests", room.name), help, requests.clone());
        let help = "From the whole request to the first byte of its answer";
        Self { requests, duration: room.seconds("request_duration", help, &WAITS) }
    }

    /// A request was answered, or refused.
    pub(crate) fn answered(&self, door: &'static str, status: StatusCode, took: Duration) {
        let status = match status.as_u16() {
            0..400 => "ok",
            400..500 => "client_error",
            _ => "server_error",
        };
        self.requests.get_or_create(&[("door", door), ("status", status)]).inc();
        self.duration.observe(took.as_secs_f64());
    }
}

/// What a path belongs to.
pub(crate) fn door(path: &str) -> &'static str {
    DOORS.iter().find(|(prefix, _)| path.starts_with(prefix)).map_or("other", |(_, door)| door)
}
