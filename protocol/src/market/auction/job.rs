//! One job that looks for a provider: whom to ask, which bids count, which is the best, why there is none.

use std::collections::BTreeSet;
use std::sync::Arc;

use crypto::{Digest, Hasher, PeerId, Verified};

use crate::error::{Feature, Limit};
use crate::job::Choosing;
use crate::message::{Ask, Bid, Counter};
use crate::{
    AgentOffer, Capability, Evidence, JobError, JobId, JobSpec, Limits, ModelOffer, Profile, Requirement,
    Timestamp,
};

use super::super::award::{self, Candidate, Load};
use super::super::collecting::Collecting;
use super::{Config, MAX_BIDS, MAX_ROUNDS, MAX_ROUNDS_FOR_THE_LOST, QUOTES};

/// An auction is worth its time where more could do the job than are asked at once,
const FEW: usize = QUOTES;
/// where its answer is longer than this, in tokens: a short one is there sooner than bids are,
const SMALL: u32 = 32;
/// and where it has more time than this left, in milliseconds.
const URGENT: u64 = 10_000;
/// Names in the sample of what is on offer.
const SAMPLE: usize = 8;

#[derive(Debug)]
pub(super) struct Auction {
    pub(super) spec: Arc<JobSpec>,
    /// What strangers see of it. Its requirement is the one that counts.
    pub(super) ask: Ask,
    pub(super) stage: Stage,
    pub(super) rounds: u32,
    /// Whether this round collects sealed bids, and not quotes.
    pub(super) sealed: bool,
    /// Whether the one counter-offer of this job has been made.
    pub(super) countered: bool,
    /// Everybody who was ever asked or bid.
    pub(super) asked: BTreeSet<PeerId>,
    /// Those who declined, kept silent or broke a promise: not asked again for this job, and no bid of theirs counts.
    pub(super) excluded: BTreeSet<PeerId>,
    /// Those whose bid was taken in this round; nobody bids twice.
    pub(super) spoke: BTreeSet<PeerId>,
    /// Those asked in this round, and silent so far.
    pub(super) silent: BTreeSet<PeerId>,
    /// Who holds the award.
    pub(super) winner: Option<Verified<Bid>>,
    /// Part of an answer is there: only this engine, with the model that the requirement then names, can go on with it.
    pub(super) engine: Option<String>,
    /// Who could do it when somebody last looked: asked again without a search when a provider is lost.
    pub(super) able: Vec<PeerId>,
    pub(super) bids: Vec<Candidate>,
    /// The best refusal so far, to be shown when nobody takes the job.
    pub(super) refusal: Option<JobError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Awarded,
    Bargaining {
        with: PeerId,
        until: Timestamp,
    },
    Collecting(Collecting),
    Discovering {
        until: Timestamp,
    },
    /// Nobody is there at the moment.
    Pausing {
        until: Timestamp,
    },
    Sampling {
        until: Timestamp,
    },
}

impl Auction {
    /// `input` is the salted commitment to the job's input.
    pub(super) fn new(job: JobId, spec: Arc<JobSpec>, input: Digest) -> Self {
        let ask = Ask {
            job,
            kind: spec.kind,
            requirement: spec.requirement.clone(),
            input,
            input_len: u32::try_from(spec.input.len()).unwrap_or(u32::MAX),
            max_tokens: spec.sampling.max_tokens,
            deadline: spec.limits.deadline,
        };
        Self {
            stage: Stage::Awarded,
            rounds: 0,
            sealed: false,
            countered: false,
            asked: BTreeSet::new(),
            excluded: spec.preference.avoid.iter().copied().collect(),
            winner: None,
            engine: None,
            able: Vec::new(),
            spoke: BTreeSet::new(),
            silent: BTreeSet::new(),
            bids: Vec::new(),
            refusal: None,
            spec,
            ask,
        }
    }

    /// When something is to be done: the stage's end, or the job's if that is sooner. A job that is awarded is watched by
    /// its session.
    pub(super) fn due(&self, config: &Config) -> Option<Timestamp> {
        self.stage.due(config).map(|due| due.min(self.spec.limits.deadline))
    }

    /// The first round of an auction collects sealed bids; every other round asks for quotes.
    pub(super) fn is_worth_announcing(&self, now: Timestamp, able: usize) -> bool {
        let worth = match self.spec.choosing {
            Choosing::Auction => true,
            Choosing::Auto => {
                let Limits { deadline, .. } = self.spec.limits;
                // A preferred peer is asked by name: what it has ahead of others is worth more than a lower price.
                self.spec.preference.peer.is_none()
                    && able > FEW
                    && self.ask.max_tokens > SMALL
                    && deadline.since(now) > URGENT
            }
            Choosing::Direct => false,
        };
        worth && self.rounds == 1
    }

    /// Whom to ask: those who could do it and did not fail this job yet, first who has least to do for this peer, and
    /// of equals in an order that differs from job to job. A preferred peer comes before all, whether the search has
    /// found it or not.
    pub(super) fn candidates(&self, profiles: &[Verified<Profile>], load: &Load) -> Vec<PeerId> {
        let able = |p: &&Verified<Profile>| {
            p.matching(&self.ask.requirement).any(|offer| offer.takes(self.spec.kind) && self.goes_on(offer))
        };
        let new = |p: &&Verified<Profile>| !self.excluded.contains(&p.signer());
        let draw = |peer: PeerId| {
            let own = load.get(&peer).copied().unwrap_or(0);
            ((own, Hasher::new("draw").part(&self.ask.job.0).part(peer.as_bytes()).finish()), peer)
        };
        let drawn: BTreeSet<_> = profiles.iter().filter(able).filter(new).map(|p| draw(p.signer())).collect();
        let preferred = self.spec.preference.peer.filter(|peer| !self.excluded.contains(peer));
        let others = drawn.into_iter().map(|(_, peer)| peer).filter(|peer| Some(*peer) != preferred);
        preferred.into_iter().chain(others).collect()
    }

    /// From now on nobody else counts than who has this model and engine.
    pub(super) fn pin(&mut self, model: Option<&ModelOffer>) {
        let Some(ModelOffer { digest, engine, .. }) = model else { return };
        self.ask.requirement.model = Some(*digest);
        self.engine = Some(engine.clone());
        let mut bids = std::mem::take(&mut self.bids);
        bids.retain(|known| known.bid.offer.meets(&self.ask.requirement) && self.goes_on(&known.bid.offer));
        self.bids = bids;
        // However long the answer took until now, there are as many rounds to find who goes on with it.
        self.rounds = 1;
    }

    /// Whether somebody was lost in the middle of the answer who may be there again: a search in vain is then repeated.
    pub(super) fn may_find_the_lost(&self) -> bool {
        self.is_lost() && self.rounds < self.most_rounds()
    }

    /// How often somebody is looked for.
    pub(super) fn most_rounds(&self) -> u32 {
        if self.is_lost() { MAX_ROUNDS_FOR_THE_LOST } else { MAX_ROUNDS }
    }

    fn is_lost(&self) -> bool {
        let lost = self.engine.is_some() && self.refusal == Some(JobError::ProviderLost);
        lost && self.spec.provider.is_none()
    }

    /// Whether this agent could go on with what is there of the answer.
    fn goes_on(&self, offer: &AgentOffer) -> bool {
        let same = |engine: &String| offer.model.as_ref().is_some_and(|model| model.engine == *engine);
        self.engine.as_ref().is_none_or(same)
    }

    /// Why nobody could be asked: what is wanted costs more than the job may spend, is done by nobody who offers the
    /// capability, or is not on offer at all.
    pub(super) fn nothing_offered(&self, profiles: &[Verified<Profile>]) -> JobError {
        let at_any_price = Requirement { ceiling: None, ..self.ask.requirement.clone() };
        let mut able = profiles.iter().flat_map(|profile| profile.matching(&at_any_price)).peekable();
        if able.peek().is_some() {
            return match able.any(|offer| offer.takes(self.spec.kind)) {
                true => JobError::Limit { limit: Limit::Budget },
                false => JobError::Unsupported { feature: Feature::JobKind },
            };
        }
        let names: BTreeSet<Capability> =
            profiles.iter().flat_map(|p| p.agents.iter().map(|a| a.capability.clone())).collect();
        JobError::NothingOffered {
            capability: self.ask.requirement.capability.clone(),
            sample: names.into_iter().take(SAMPLE).collect(),
        }
    }

    /// Whether a bid counts; if not, what is to be held against its signer, if anything.
    pub(super) fn admits(
        &self,
        now: Timestamp,
        from: PeerId,
        bid: &Verified<Bid>,
    ) -> Result<(), Option<Evidence>> {
        let Stage::Collecting(_) = self.stage else { return Err(None) };
        if bid.signer() != from {
            return Err(Some(Evidence::BadSignature));
        }
        // Expiry is by the bidder's clock, which may differ from ours.
        if bid.expires.after(Profile::CLOCK_SKEW) <= now {
            return Err(Some(Evidence::Expired));
        }
        if self.spoke.contains(&from) {
            return Err(Some(Evidence::Replayed));
        }
        if self.excluded.contains(&from) {
            return Err(None);
        }
        let wrong_peer = self.spec.provider.is_some_and(|provider| provider != from);
        let able = bid.offer.meets(&self.ask.requirement) && bid.offer.takes(self.spec.kind);
        if wrong_peer || !able {
            return Err(Some(Evidence::Unexpected));
        }
        // Nobody was told which engine is wanted.
        if self.bids.len() < MAX_BIDS && self.goes_on(&bid.offer) { Ok(()) } else { Err(None) }
    }

    pub(super) fn take_best(&mut self, load: &Load) -> Option<Verified<Bid>> {
        let best = award::best(&self.bids, &self.spec.preference, load)?;
        Some(self.bids.swap_remove(best).bid)
    }

    /// The counter-offer to the best bid, if it is the first of this job and the bid asks more than is wanted.
    pub(super) fn counter(&self, load: &Load) -> Option<(PeerId, Counter)> {
        let target = self.spec.preference.target.filter(|_| !self.countered)?;
        let best = &self.bids[award::best(&self.bids, &self.spec.preference, load)?].bid;
        let price = best.price().cheaper(target);
        let counter = Counter { job: best.job, bid: best.digest(), price };
        (price != best.price()).then(|| (best.signer(), counter))
    }

    /// Puts a bid for less in the place of the bidder's first. False if it is anything else than that.
    pub(super) fn lower(&mut self, from: PeerId, lower: &Verified<Bid>) -> bool {
        let Some(first) = self.bids.iter_mut().find(|first| first.bid.signer() == from) else { return false };
        let (price, asked) = (lower.price(), first.bid.price());
        let offer = AgentOffer { price, ..first.bid.offer.clone() };
        let same = Bid { offer, ..first.bid.value().clone() } == *lower.value();
        let less = price.within(&asked) && price != asked;
        if same && less {
            *first = first.lowered(&self.ask, lower.clone());
        }
        same && less
    }
}

impl Stage {
    pub(super) fn due(&self, config: &Config) -> Option<Timestamp> {
        match self {
            Self::Awarded => None,
            Self::Bargaining { until, .. } => Some(*until),
            Self::Collecting(collecting) => Some(collecting.due(config)),
            Self::Discovering { until } | Self::Pausing { until } | Self::Sampling { until } => Some(*until),
        }
    }
}
