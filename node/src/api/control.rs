//! `/control`: what the command line asks of the peer that runs here. Jobs stream as server-sent events, one
//! [`JobUpdate`] each; everything else is a JSON document.
//!
//! | room | concern |
//! |---|---|
//! | [`keys`] | who may ask from elsewhere |
//! | [`live`] | all that people watch, as one stream |
//! | [`models`] | what is in the cache, and what is on its way there |
//! | [`plans`] | runs of plans |
//! | [`receipts`] | what was done, and whether it was right |

pub mod keys;
pub mod live;
pub mod models;
pub mod plans;
pub mod receipts;

use std::convert::Infallible;

use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use crypto::{Digest, PeerId};
use futures::Stream;
use futures::stream::unfold;
use protocol::ledger::Account;
use protocol::market::board::{Asked, Board, Offered};
use protocol::{Capability, Evidence, JobError, JobId, JobSpec, Profile};
use serde::{Deserialize, Serialize};

use super::Api;
use crate::clock;
use crate::handle::{JobStream, KnownPeer, NodeHandle, Unavailable};
use crate::jobs::JobView;
use crate::net;
use crate::request::{JobRequest, JobUpdate, resolve_model};

/// The paths.
pub fn router() -> Router {
    let pulls = models::Pulls::default();
    Router::new()
        .route("/control/jobs", post(submit).get(jobs))
        .route("/control/jobs/{job}", delete(cancel))
        .route("/control/jobs/{job}/approve", post(approve))
        .route("/control/market", get(market))
        .route("/control/find", get(find))
        .route("/control/peers", get(peers))
        .route("/control/status", get(status))
        .merge(keys::router())
        .merge(plans::router())
        .merge(receipts::router())
        .merge(models::router(pulls.clone()))
        .merge(live::router(pulls))
}

/// A peer with what it offers, as `find` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Who.
    pub peer: PeerId,
    /// What it says of itself.
    pub profile: Profile,
}

/// A peer, as `peers` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Who.
    pub peer: PeerId,
    /// Whether it is connected.
    pub connected: bool,
    /// Where, while connected.
    pub address: Option<String>,
    /// `inbound` or `outbound`, while connected.
    pub direction: Option<String>,
    /// The last round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// What it runs, in its own words.
    pub agent_version: Option<String>,
    /// What it offers.
    pub capabilities: Vec<Capability>,
    /// Facts about it.
    pub evidence: Vec<(Evidence, u32)>,
    /// What is owed.
    pub account: Account,
}

/// What is asked and offered, as `market` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MarketView {
    /// Jobs that somebody wants done, the oldest first.
    pub asked: Vec<Asked>,
    /// Bids, the oldest first.
    pub offered: Vec<Offered>,
}

/// The peer itself, as `doctor` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who it is.
    pub peer: PeerId,
    /// Its did.
    pub did: String,
    /// Which mesh.
    pub network: String,
    /// What it listens on.
    pub listening: Vec<String>,
    /// What it tells others.
    pub advertised: Vec<String>,
    /// Whether it keeps records for others.
    pub serves_lookups: bool,
    /// Peers in its routing table.
    pub routing_table: usize,
    /// Who is connected.
    pub connected: Vec<PeerView>,
    /// The last failed dials, the newest first.
    pub dial_errors: Vec<DialError>,
}

impl Status {
    /// What to do about how others reach it.
    pub fn advice(&self) -> Vec<&'static str> {
        let mut advice = Vec::new();
        if self.connected.is_empty() {
            advice
                .push("nobody is connected: start with --bootstrap ADDR of a peer that runs, or with --lan");
        }
        if self.advertised.is_empty() && !self.listening.is_empty() {
            advice.push(
                "no address is told to others: behind a router, forward port 5263 and pass --external MULTIADDR",
            );
        }
        if !self.dial_errors.is_empty() {
            advice.push("some addresses did not answer: they may be stale, or a firewall is between");
        }
        advice
    }
}

/// A dial that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DialError {
    /// Where.
    pub address: Option<String>,
    /// Whom.
    pub peer: Option<PeerId>,
    /// What went wrong.
    pub error: String,
    /// How long ago, in seconds.
    pub seconds_ago: u64,
}

async fn submit(api: Api, Json(request): Json<JobRequest>) -> Response {
    let submitted = async {
        let spec = spec(&api.node, &request).await?;
        api.node.submit(spec)
    };
    match submitted.await {
        Ok(stream) => Sse::new(events(stream, api)).keep_alive(KeepAlive::default()).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, Json(JobUpdate::from(error))).into_response(),
    }
}

/// The job of a request, with its model's name resolved.
///
/// # Errors
/// [`JobError::Invalid`].
pub async fn spec(node: &NodeHandle, request: &JobRequest) -> Result<JobSpec, JobError> {
    let model = match &request.model {
        Some(name) => Some(resolve(node, name).await?),
        None => None,
    };
    request.spec(clock::now(), model)
}

async fn resolve(node: &NodeHandle, name: &str) -> Result<Digest, JobError> {
    if let Ok(digest) = resolve_model(name, &[]) {
        return Ok(digest);
    }
    let profiles = node.find(None).await.map_err(|Unavailable| JobError::Busy { retry_after_ms: 1000 })?;
    resolve_model(name, &profiles)
}

fn events(stream: JobStream, api: Api) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold((stream, api), |(mut stream, api)| async move {
        let update = JobUpdate::of(stream.job(), stream.next().await?, api.receipts.as_deref());
        let event = Event::default().json_data(&update).unwrap_or_default();
        Some((Ok(event), (stream, api)))
    })
}

async fn jobs(api: Api) -> Result<Json<Vec<JobView>>, Overloaded> {
    Ok(Json(api.node.jobs().await?))
}

async fn approve(api: Api, Path(job): Path<String>) -> Response {
    to_job(&job, |job| api.node.approve(job))
}

async fn cancel(api: Api, Path(job): Path<String>) -> Response {
    to_job(&job, |job| api.node.cancel(job))
}

/// Does something to the job of that name.
fn to_job(name: &str, act: impl FnOnce(JobId) -> Result<(), Unavailable>) -> Response {
    let Ok(job) = name.parse() else {
        let error = JobError::invalid("job", "is no job's name: it has 32 hexadecimal digits");
        return (StatusCode::BAD_REQUEST, Json(JobUpdate::from(error))).into_response();
    };
    match act(job) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(unavailable) => Overloaded::from(unavailable).into_response(),
    }
}

async fn market(api: Api) -> Result<Json<MarketView>, Overloaded> {
    Ok(Json(MarketView::of(&api.node.board().await?)))
}

impl MarketView {
    fn of(board: &Board) -> Self {
        Self { asked: board.asked().cloned().collect(), offered: board.offered().cloned().collect() }
    }
}

#[derive(Deserialize)]
struct Wanted {
    capability: Option<Capability>,
}

async fn find(api: Api, Query(wanted): Query<Wanted>) -> Result<Json<Vec<Found>>, Overloaded> {
    Ok(Json(found(&api.node, wanted.capability).await?))
}

async fn peers(api: Api) -> Result<Json<Vec<PeerView>>, Overloaded> {
    Ok(Json(peer_views(&api.node).await?))
}

async fn status(api: Api) -> Result<Json<Status>, Overloaded> {
    Ok(Json(status_of(&api.node).await?))
}

/// Who offers a capability.
///
/// # Errors
/// [`Unavailable`].
pub async fn found(node: &NodeHandle, capability: Option<Capability>) -> Result<Vec<Found>, Unavailable> {
    let profiles = node.find(capability).await?;
    Ok(profiles.into_iter().map(|p| Found { peer: p.signer(), profile: p.value().clone() }).collect())
}

/// Everybody who is connected or known.
///
/// # Errors
/// [`Unavailable`].
pub async fn peer_views(node: &NodeHandle) -> Result<Vec<PeerView>, Unavailable> {
    let (snapshot, mut known) = (node.snapshot().await?, node.known().await?);
    let mut views: Vec<PeerView> = Vec::new();
    for info in &snapshot.peers {
        let at = known.iter().position(|known| known.peer == info.peer);
        views.push(view(info.peer, Some(info), at.map(|at| known.swap_remove(at))));
    }
    views.extend(
        known.into_iter().filter(|k| k.peer != snapshot.me).map(|known| view(known.peer, None, Some(known))),
    );
    views.sort_by_key(|view| (!view.connected, view.peer));
    Ok(views)
}

/// The peer itself.
///
/// # Errors
/// [`Unavailable`].
pub async fn status_of(node: &NodeHandle) -> Result<Status, Unavailable> {
    let (snapshot, peers) = (node.snapshot().await?, peer_views(node).await?);
    let texts = |addresses: &[net::Address]| addresses.iter().map(ToString::to_string).collect();
    let dial_errors = snapshot.dial_errors.iter().map(|failure| DialError {
        address: failure.address.as_ref().map(ToString::to_string),
        peer: failure.peer,
        error: failure.error.clone(),
        seconds_ago: failure.age.as_secs(),
    });
    Ok(Status {
        peer: snapshot.me,
        did: snapshot.me.did_key(),
        network: node.network().to_string(),
        listening: texts(&snapshot.listening),
        advertised: texts(&snapshot.advertised),
        serves_lookups: snapshot.serves_lookups,
        routing_table: snapshot.routing_table,
        connected: peers.into_iter().filter(|peer| peer.connected).collect(),
        dial_errors: dial_errors.collect(),
    })
}

fn view(peer: PeerId, info: Option<&net::PeerInfo>, known: Option<KnownPeer>) -> PeerView {
    let direction = |info: &net::PeerInfo| match info.direction {
        net::Direction::Inbound => "inbound".to_owned(),
        net::Direction::Outbound => "outbound".to_owned(),
    };
    let profile = known.as_ref().and_then(|known| known.profile.as_ref());
    PeerView {
        peer,
        connected: info.is_some(),
        address: info.map(|info| info.address.to_string()),
        direction: info.map(direction),
        rtt_ms: info.and_then(|info| info.rtt).map(|rtt| rtt.as_secs_f64() * 1000.0),
        agent_version: info.and_then(|info| info.agent.clone()),
        capabilities: profile
            .map(|p| p.agents.iter().map(|a| a.capability.clone()).collect())
            .unwrap_or_default(),
        evidence: known.as_ref().map(|known| known.evidence.clone()).unwrap_or_default(),
        account: known.map(|known| known.account).unwrap_or_default(),
    }
}

/// The peer is stopping or overloaded.
struct Overloaded;

impl From<Unavailable> for Overloaded {
    fn from(_: Unavailable) -> Self {
        Self
    }
}

impl IntoResponse for Overloaded {
    fn into_response(self) -> Response {
        let update = JobUpdate::from(JobError::Busy { retry_after_ms: 1000 });
        (StatusCode::SERVICE_UNAVAILABLE, Json(update)).into_response()
    }
}
