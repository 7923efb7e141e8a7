//! What is asked and offered around here, for people: a bounded memory of the market that decides nothing.

use std::collections::VecDeque;

use crypto::PeerId;
use serde::{Deserialize, Serialize};

use crate::message::{Ask, Bid};
use crate::{AgentOffer, Capability, JobId, JobKind, Price, Speed, Timestamp};

/// Entries kept of each sort. A stranger that floods one pushes out what is older, and harms nothing else.
pub const MAX_ENTRIES: usize = 64;

/// The latest of both sorts.
#[derive(Clone, Debug, Default)]
pub struct Board {
    asked: VecDeque<Asked>,
    offered: VecDeque<Offered>,
}

/// Somebody wants a job done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Who wants it.
    pub requester: PeerId,
    /// The job.
    pub job: JobId,
    /// What is to be done.
    pub kind: JobKind,
    /// What it takes.
    pub capability: Capability,
    /// The most that may be asked.
    pub ceiling: Option<Price>,
    /// Size of the input in bytes.
    pub input_len: u32,
    /// Longest answer in tokens.
    pub max_tokens: u32,
    /// Announced to all; else asked of this peer by name.
    pub announced: bool,
    /// When this peer heard of it.
    pub at: Timestamp,
}

/// Somebody would do a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Who would do it.
    pub provider: PeerId,
    /// For whom.
    pub requester: PeerId,
    /// The job.
    pub job: JobId,
    /// By which capability.
    pub capability: Capability,
    /// With which model, for people.
    pub model: Option<String>,
    /// What 1000 tokens would cost.
    pub price: Price,
    /// How fast.
    pub speed: Speed,
    /// Jobs that go first.
    pub queue: u32,
    /// When this peer made it, or took it.
    pub at: Timestamp,
}

impl Board {
    /// What was asked lately, the oldest first.
    pub fn asked(&self) -> impl Iterator<Item = &Asked> {
        self.asked.iter()
    }

    /// What was offered lately, by and to this peer, the oldest first.
    pub fn offered(&self) -> impl Iterator<Item = &Offered> {
        self.offered.iter()
    }

    /// A job was asked for.
    pub fn on_ask(&mut self, now: Timestamp, requester: PeerId, ask: &Ask, announced: bool) {
        let Ask { job, kind, ref requirement, input_len, max_tokens, .. } = *ask;
        let (capability, ceiling) = (requirement.capability.clone(), requirement.ceiling);
        let asked =
            Asked { requester, job, kind, capability, ceiling, input_len, max_tokens, announced, at: now };
        // Gossip and asks may repeat; the latest says it all.
        keep(&mut self.asked, asked, |o| (o.job, o.requester) == (job, requester));
    }

    /// A bid was made or taken.
    pub fn on_bid(&mut self, now: Timestamp, provider: PeerId, bid: &Bid) {
        let Bid { job, requester, ref offer, queue, .. } = *bid;
        let AgentOffer { capability, model, price, speed, .. } = offer;
        let offered = Offered {
            provider,
            requester,
            job,
            capability: capability.clone(),
            model: model.as_ref().map(|model| model.name.clone()),
            price: *price,
            speed: *speed,
            queue,
            at: now,
        };
        keep(&mut self.offered, offered, |o| (o.job, o.provider, o.requester) == (job, provider, requester));
    }
}

/// Adds an entry as the latest. The one that says the same goes, or else the oldest where there is no room. `same` looks at the
/// job first, and the search begins at the end: nearly all differ in it, and what is repeated is late.
fn keep<T>(ring: &mut VecDeque<T>, entry: T, same: impl Fn(&T) -> bool) {
    if let Some(at) = ring.iter().rposition(same) {
        ring.remove(at);
    } else if ring.len() >= MAX_ENTRIES {
        ring.pop_front();
    }
    ring.push_back(entry);
}
