//! Who asks, and what there is for them.

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::request::Parts;
use futures::FutureExt;
use futures::future::BoxFuture;
use protocol::{Capability, JobError, Trace};
use rmcp::model::Extensions;

use crate::api::Api;
use crate::api::control::{self, Found};
use crate::api::keys::Visit;
use crate::failure::{Class, Failure};
use crate::handle::NodeHandle;
use crate::plans::Jobs;
use crate::traces::Traces;

/// A way to the mesh: a peer in this process, or the API of one that runs.
pub trait Mesh: Jobs {
    /// Who offers a capability, or anything.
    fn find(&self, capability: Option<Capability>) -> BoxFuture<'_, Result<Vec<Found>, Failure>>;
}

impl Mesh for NodeHandle {
    fn find(&self, capability: Option<Capability>) -> BoxFuture<'_, Result<Vec<Found>, Failure>> {
        control::found(self, capability).map(|found| found.map_err(Failure::of(Class::Network))).boxed()
    }
}

/// Whoever asks.
#[derive(Clone)]
pub struct Guest {
    pub(super) mesh: Arc<dyn Mesh>,
    receipts: Option<PathBuf>,
    /// Of whoever comes with a key; the owner has none.
    visit: Option<Arc<Visit>>,
    pub(super) traces: Traces,
    /// Below which span the request stands.
    pub(super) trace: Option<Trace>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("receipts", &self.receipts).finish_non_exhaustive()
    }
}

impl Guest {
    /// The owner of a folder with receipts, who may do everything.
    pub fn owner(mesh: Arc<dyn Mesh>, receipts: PathBuf, traces: Traces) -> Self {
        Self { mesh, receipts: Some(receipts), visit: None, traces, trace: None }
    }

    /// Whoever sent a request that the gate has let in.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        let extensions = &extensions.get::<Parts>()?.extensions;
        let api = extensions.get::<Api>()?;
        let visit = extensions.get::<Arc<Visit>>().cloned();
        let (traces, trace) = (api.node.traces().clone(), api.node.trace());
        Some(Self { mesh: Arc::new(api.node.clone()), receipts: api.receipts.clone(), visit, traces, trace })
    }

    /// True for the peer's owner. Others see no receipts but those that they name, and nothing of what is private in them.
    pub(super) fn is_owner(&self) -> bool {
        self.visit.is_none()
    }

    /// Where receipts are kept.
    ///
    /// # Errors
    /// Where the peer keeps none.
    pub(super) fn receipts(&self) -> Result<&PathBuf, Failure> {
        let none = || Failure::new(Class::Data, "this peer keeps no receipts: it has no data directory");
        self.receipts.as_ref().ok_or_else(none)
    }

    /// The failure of a job, in the words of whoever refused it.
    pub(super) fn failure(&self, code: &str, message: String) -> Failure {
        let refused = self.visit.as_ref().and_then(|visit| visit.refused());
        let message = refused.map_or(message, |refusal| refusal.message());
        let next = match code {
            "nothing_offered" | "no_taker" => "; find_agents shows who offers what at which price",
            "limit" => "; a higher budget or another key may allow it",
            "deadline_exceeded" => "; a later deadline_s or fewer max_tokens may do",
            "busy" | "engine" | "misbehaved" | "order" | "provider_lost" => "; try again",
            _ => "",
        };
        Failure::new(Class::of_job(code), format!("{message}{next}"))
    }
}

/// Before anything was asked for it.
pub(super) fn refuse(field: &str, problem: &str) -> Failure {
    JobError::invalid(field, problem).into()
}
