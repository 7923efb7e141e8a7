//! The signed, expiring description of a peer: what its agents do, with which models, how fast, for how much.
//!
//! Profiles are fetched from their author and never stored in the DHT, so they are as fresh as the connection.
//! What changes by the second (load, the price of the moment) is not in here; that is what a bid is for.

use crypto::Digest;
use crypto::signed::Malformed;
use serde::{Deserialize, Serialize};

use crate::{Capability, JobKind, Price, Requirement, Timestamp, codec};

/// What a peer says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Which versions of the protocol it speaks.
    pub versions: Versions,
    /// What it hosts.
    pub agents: Vec<AgentOffer>,
    /// When it was written; of two profiles of one peer the later counts.
    pub issued: Timestamp,
    /// Until when it may be believed.
    pub expires: Timestamp,
}

/// An inclusive range of protocol versions. Two builds speak the highest that both know; without one, none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Oldest.
    pub min: u8,
    /// Newest.
    pub max: u8,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentOffer {
    /// Its name at its peer.
    pub agent: String,
    /// What it does.
    pub capability: Capability,
    /// Which kinds of jobs it takes.
    pub kinds: Vec<JobKind>,
    /// With which model; `None` for what cannot be replayed (an upstream, a program).
    pub model: Option<ModelOffer>,
    /// What it asks at least; in a bid, what it asks for this job.
    pub price: Price,
    /// Measured when the peer started.
    pub speed: Speed,
    /// ISO 639-1 codes, where known.
    pub languages: Vec<String>,
    /// `text`, and what may come later.
    pub modalities: Vec<String>,
    /// Names of tools it can call.
    pub tools: Vec<String>,
}

/// A model on offer. On the wire it is its digest; the name is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOffer {
    /// For people.
    pub name: String,
    /// BLAKE3 of the file, or of the manifest where there are several files.
    pub digest: Digest,
    /// True when `digest` is a manifest's ([`crypto::Manifest`]).
    pub manifest: bool,
    /// Id of the engine profile: what must be equal for a replay to be exact.
    pub engine: String,
    /// Context window in tokens.
    pub context: u32,
}

/// What an agent achieved when its peer started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speed {
    /// Tokens of prompt per second.
    pub prefill: u32,
    /// Tokens of answer per second of one stream.
    pub decode: u32,
    /// How soon an answer begins.
    pub latency: LatencyClass,
}

/// How soon the first token of a short prompt comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatencyClass {
    /// Within a tenth of a second.
    Interactive,
    /// Within two seconds.
    Moderate,
    /// Later, or unknown.
    #[default]
    Batch,
}

impl Profile {
    /// Most agents of one peer; each is up to five DHT keys.
    pub const MAX_AGENTS: usize = 16;
    /// How long a profile may be believed, in milliseconds.
    pub const LIFETIME: u64 = 10 * 60 * 1000;
    /// Clocks of two honest peers may differ by this many milliseconds.
    pub const CLOCK_SKEW: u64 = 60 * 1000;

    /// True while it may be believed. A profile from the future, or one that wants to live too long, may not.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.expires > now
            && self.issued <= now.after(Self::CLOCK_SKEW)
            && self.expires.since(self.issued) <= Self::LIFETIME
    }

    /// The agents that `requirement` could be met by.
    pub fn matching<'a>(&'a self, requirement: &'a Requirement) -> impl Iterator<Item = &'a AgentOffer> {
        self.agents.iter().filter(|agent| agent.meets(requirement))
    }

    /// True when a profile of these agents is one that others accept.
    pub fn fits(agents: &[AgentOffer]) -> bool {
        let (versions, never) = (Versions { min: 0, max: 0 }, Timestamp(u64::MAX));
        let profile = Self { versions, agents: agents.to_vec(), issued: never, expires: never };
        profile.is_bounded() && crypto::Payload::encode(&profile).len() <= <Self as crypto::Payload>::MAX_LEN
    }

    fn is_bounded(&self) -> bool {
        self.agents.len() <= Self::MAX_AGENTS && self.agents.iter().all(AgentOffer::is_bounded)
    }
}

impl AgentOffer {
    /// Longest name of an agent, a model, an engine, a language or a tool, in bytes.
    pub const MAX_NAME: usize = 96;
    /// Most languages, modalities and tools.
    pub const MAX_LIST: usize = 32;

    /// True when this agent could take a job with `requirement`.
    pub fn meets(&self, requirement: &Requirement) -> bool {
        let Requirement { capability, model, context, ceiling } = requirement;
        let digest = self.model.as_ref().map(|m| m.digest);
        capability.covers(&self.capability)
            && model.is_none_or(|wanted| digest == Some(wanted))
            && self.model.as_ref().is_none_or(|m| m.context >= *context)
            && ceiling.as_ref().is_none_or(|ceiling| self.price.within(ceiling))
    }

    /// True when this agent takes jobs of a kind.
    pub fn takes(&self, kind: JobKind) -> bool {
        self.kinds.contains(&kind)
    }

    fn is_bounded(&self) -> bool {
        let lists = [&self.languages, &self.modalities, &self.tools];
        let model = self.model.iter().flat_map(|m| [&m.name, &m.engine]);
        self.kinds.len() <= JobKind::ALL.len()
            && lists.iter().all(|list| list.len() <= Self::MAX_LIST)
            && lists
                .into_iter()
                .flatten()
                .chain(model)
                .chain([&self.agent])
                .all(|n| n.len() <= Self::MAX_NAME)
    }
}

impl crypto::Payload for Profile {
    const KIND: &'static str = "profile";
    const MAX_LEN: usize = 32 << 10;

    fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode(bytes).ok().filter(Self::is_bounded).ok_or(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Capability;

    fn agent(name_len: usize) -> AgentOffer {
        AgentOffer {
            agent: "a".repeat(name_len),
            capability: Capability::text_generation(),
            kinds: vec![JobKind::Generate],
            model: None,
            price: Price::default(),
            speed: Speed::default(),
            languages: Vec::new(),
            modalities: Vec::new(),
            tools: Vec::new(),
        }
    }

    #[test]
    fn what_fits_a_profile_is_what_others_accept() {
        assert!(Profile::fits(&vec![agent(AgentOffer::MAX_NAME); Profile::MAX_AGENTS]));
        assert!(!Profile::fits(&vec![agent(1); Profile::MAX_AGENTS + 1]));
        assert!(!Profile::fits(&[agent(AgentOffer::MAX_NAME + 1)]));
        let tools = vec!["t".repeat(AgentOffer::MAX_NAME); AgentOffer::MAX_LIST];
        let wordy =
            AgentOffer { tools: tools.clone(), languages: tools.clone(), modalities: tools, ..agent(1) };
        assert!(!Profile::fits(&vec![wordy; Profile::MAX_AGENTS]), "each is bounded, all are too many bytes");
    }
}
