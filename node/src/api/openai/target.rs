//! `model`: which model, or which capability, a request goes to.
//!
//! | `model` | |
//! |---|---|
//! | a name | a name that this build knows, or one on offer in the mesh |
//! | a digest | exactly that file |
//! | `cap:code.generation.python` | whatever model offers this capability, or a more special one |
//! | `auto` | what fits the prompt best: see [`choice`] |

use crypto::{Digest, Verified};
use protocol::{AgentOffer, Capability, JobError, JobKind, JobSpec, Profile};
use serde_json::{Value, json};

use super::{Error, Gateway, Options, choice};
use crate::clock;
use crate::models::known;
use crate::request::{JobRequest, resolve_model};

/// What a capability is told from a model's name by.
const CAPABILITY: &str = "cap:";
/// The model's name that lets this peer choose.
const AUTO: &str = "auto";

/// A request on its way to somebody.
pub(super) struct Aimed {
    pub(super) spec: JobSpec,
    /// What the client called the model.
    pub(super) model: String,
    /// What this peer chose, and why, where it did.
    pub(super) chosen: Option<Value>,
    /// Whether the client named a model.
    named: bool,
}

impl Aimed {
    /// An error of the job, as the client has to understand it.
    pub(super) fn error(&self, error: impl Into<Error>) -> Error {
        if self.named { error.into().for_model() } else { error.into() }
    }

    /// Lets so many jobs share what the reply may cost.
    pub(super) fn shared(mut self, jobs: usize) -> Self {
        let jobs = u64::try_from(jobs).unwrap_or(u64::MAX).max(1);
        self.spec.limits.budget.0 /= jobs;
        self
    }
}

/// The job of a request that goes to `model`. The request has its input, its kind and the usual capability.
///
/// # Errors
/// `model_not_found` where nobody offers the model, and what [`protocol::JobSpec::check`] finds.
pub(super) async fn aim(
    gateway: &Gateway,
    model: &str,
    options: &Options,
    request: JobRequest,
) -> Result<Aimed, Error> {
    let kind = request.kind.unwrap_or_default();
    let request = options.on(request);
    let (request, digest, chosen) = if let Some(path) = model.strip_prefix(CAPABILITY) {
        (capable(request, options, path)?, None, None)
    } else if model == AUTO {
        let (request, chosen) = choice::choose(gateway, options, request).await?;
        (request, None, chosen)
    } else {
        let (digest, offered) = resolved(gateway, model, kind).await?;
        // A model is used under whatever it is offered for, unless the client says for what.
        let capability = offered.filter(|_| options.capability().is_none()).or(request.capability);
        (JobRequest { capability, ..request }, Some(digest), None)
    };
    let spec = request.spec(clock::now(), digest)?;
    Ok(Aimed { spec, model: model.to_owned(), chosen, named: digest.is_some() })
}

fn capable(request: JobRequest, options: &Options, path: &str) -> Result<JobRequest, Error> {
    let capability: Capability =
        path.parse().map_err(|error| Error::invalid(format!("{error}")).about("model"))?;
    if options.capability().is_some_and(|other| *other != capability) {
        let message = "`model` and the option `capability` name two capabilities: give one of them";
        return Err(Error::invalid(message).about("model"));
    }
    Ok(JobRequest { capability: Some(capability), ..request })
}

/// The model that a name means, and what it is offered for where that is not the usual.
pub(super) async fn resolved(
    gateway: &Gateway,
    name: &str,
    kind: JobKind,
) -> Result<(Digest, Option<Capability>), Error> {
    if let Some(known) = known::ALL.iter().find(|known| known.name == name) {
        return Ok((known.digest(), None));
    }
    let profiles = on_offer(gateway).await?;
    let digest = resolve_model(name, &profiles).map_err(|error| {
        let contested = offers(&profiles).any(|offer| offer.model.as_ref().is_some_and(|m| m.name == name));
        if contested { Error::from(error) } else { Error::unknown_model(name) }
    })?;
    Ok((digest, unusual(&profiles, digest, kind)))
}

/// What a model is offered for, unless that is what is asked for anyway.
fn unusual(profiles: &[Verified<Profile>], digest: Digest, kind: JobKind) -> Option<Capability> {
    let usual = match kind {
        JobKind::Embed => Capability::text_embedding(),
        _ => Capability::text_generation(),
    };
    let fits = |offer: &&AgentOffer| {
        offer.takes(kind) && offer.model.as_ref().is_some_and(|model| model.digest == digest)
    };
    let mut found: Vec<_> = offers(profiles).filter(fits).map(|offer| &offer.capability).collect();
    found.sort_unstable();
    if found.iter().any(|capability| usual.covers(capability)) {
        None
    } else {
        found.first().copied().cloned()
    }
}

pub(super) async fn on_offer(gateway: &Gateway) -> Result<Vec<Verified<Profile>>, Error> {
    Ok(gateway.node.find(None).await.map_err(|_| JobError::Busy { retry_after_ms: 1000 })?)
}

pub(super) fn offers(profiles: &[Verified<Profile>]) -> impl Iterator<Item = &AgentOffer> {
    profiles.iter().flat_map(|profile| &profile.agents)
}

/// What the extension `llamesh` says of a choice.
pub(super) fn chosen(capability: &Capability, why: &str) -> Value {
    json!({ "capability": capability, "why": why })
}
