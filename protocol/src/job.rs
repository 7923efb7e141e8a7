//! A job: what is wanted, of whom, from what input, within which limits.
//!
//! Until the first release a part may still change its bytes, together with SPEC, vectors and schemas; after it, a change
//! is a new version of the protocol.

use std::fmt;
use std::str::FromStr;

use crypto::{Digest, Hasher, PeerId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::approval::Rule;
use crate::constraint::is_json_object;
use crate::error::Feature;
use crate::{Capability, Chat, Constraint, Credits, JobError, Logprobs, Price, Timestamp, codec};

/// The name of a job: 16 random bytes chosen by its requester. Prints as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub [u8; 16]);

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// The answer of a tool.
    Call,
    /// The vector of a text.
    Embed,
    /// Tokens that follow an input.
    #[default]
    Generate,
    /// Log-probabilities of given tokens.
    Score,
}

impl JobKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Call, Self::Embed, Self::Generate, Self::Score];

    /// Refuses what makes no sense with this kind.
    ///
    /// # Errors
    /// [`JobError::Unsupported`].
    pub fn check(self, input: &Input, constraint: Option<&Constraint>) -> Result<(), JobError> {
        let refuse = |feature| Err(JobError::Unsupported { feature });
        let fits = match self {
            Self::Call => matches!(input, Input::Json(_)),
            Self::Embed | Self::Generate => !matches!(input, Input::Json(_)),
            Self::Score => matches!(input, Input::Text(_) | Input::Tokens(_)),
        };
        match constraint {
            Some(_) if self != Self::Generate => refuse(Feature::Constraint),
            _ if !fits => refuse(Feature::Input),
            constraint => constraint.map_or(Ok(()), Constraint::check),
        }
    }

    /// Whether an answer of this kind, ordered of `model`, is made of tokens with ids. Vectors, scores and
    /// answers of tools never are.
    pub fn has_ids(self, model: Option<Digest>) -> bool {
        model.is_some() && self == Self::Generate
    }
}

/// What a provider must have to be asked at all. Goes to strangers: holds nothing of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The capability, or an ancestor of it.
    pub capability: Capability,
    /// Exactly this model, by digest of its file or manifest.
    pub model: Option<Digest>,
    /// Tokens of context that the model must have.
    pub context: u32,
    /// The most that may be asked.
    pub ceiling: Option<Price>,
}

/// What the work starts from. Only ever shown to the provider that got the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A conversation; the model's own template renders it.
    Chat(Chat),
    /// Arguments of a tool: the text of a JSON object.
    Json(String),
    /// Raw text, rendered by nothing.
    Text(String),
    /// Token ids of the model named in the requirement.
    Tokens(Vec<u32>),
}

impl Input {
    /// The salted commitment that may be shown before the input is: without the 16 random bytes of `salt`, a short
    /// prompt could be guessed from its digest.
    pub fn commitment(&self, salt: &Salt) -> Digest {
        Hasher::new("request").part(&salt.0).part(&codec::encode(self)).finish()
    }

    /// Refuses what is empty, too long, or not what it should be.
    ///
    /// # Errors
    /// [`JobError::Invalid`] or [`JobError::Unsupported`].
    pub fn check(&self) -> Result<(), JobError> {
        match self {
            Self::Chat(chat) => chat.check()?,
            Self::Json(text) if !is_json_object(text) => {
                return Err(JobError::invalid("input", "must be a JSON object: the arguments of the tool"));
            }
            Self::Json(_) | Self::Text(_) | Self::Tokens(_) => {}
        }
        // Names and the like count, too: what is sent is the encoding.
        if self.is_empty() || codec::encode(self).len() > JobSpec::MAX_INPUT {
            let range = format!("must have between 1 and {} bytes", JobSpec::MAX_INPUT);
            return Err(JobError::invalid("input", &range));
        }
        Ok(())
    }

    /// Size in bytes of what the requester wrote.
    pub fn len(&self) -> usize {
        match self {
            Self::Chat(chat) => chat.len(),
            Self::Json(text) | Self::Text(text) => text.len(),
            Self::Tokens(ids) => 4 * ids.len(),
        }
    }

    /// True when there is nothing to work on.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Chat(chat) => chat.is_empty(),
            Self::Json(_) | Self::Text(_) | Self::Tokens(_) => self.len() == 0,
        }
    }
}

/// 16 random bytes that keep a commitment from being guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salt(pub [u8; 16]);

/// How the next token is chosen; the order in which these apply is the engine profile's (SPEC §7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Longest answer in tokens.
    pub max_tokens: u32,
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus; 1 is off.
    pub top_p: f32,
    /// How many candidates; 0 is off.
    pub top_k: u32,
    /// Floor relative to the best candidate; 0 is off.
    pub min_p: f32,
    /// Divides logits of tokens already seen; 1 is off.
    pub repeat_penalty: f32,
    /// Per occurrence in the answer so far; 0 is off.
    pub frequency_penalty: f32,
    /// Once for any occurrence in the answer so far; 0 is off.
    pub presence_penalty: f32,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// The requester's seed: the noise of every choice follows from it and from nothing of the provider's.
    pub seed: u64,
    /// Which of several answers to one prompt this is.
    pub choice: u32,
    /// How likely each token was, and this many of the likeliest in its place; `None` asks for neither. Part of no
    /// commitment, and without influence on the answer.
    pub logprobs: Option<u8>,
}

impl Sampling {
    /// Longest answer anybody may order; bounds every queue that holds one.
    pub const MAX_TOKENS: u32 = 32_768;
    /// Most stop texts, and the most bytes in one of them.
    pub const MAX_STOPS: (usize, usize) = (16, 256);
    /// The last of several answers to one prompt: each is a job of its own and costs as much, so more are no need.
    pub const MAX_CHOICE: u32 = 127;

    /// Refuses what no engine could do.
    ///
    /// # Errors
    /// [`JobError::Invalid`] naming the field.
    pub fn check(&self) -> Result<(), JobError> {
        let within = |name: &str, value: f32, low: f32, high: f32| {
            let fits = value.is_finite() && value >= low && value <= high;
            fits.then_some(())
                .ok_or_else(|| JobError::invalid(name, &format!("must be between {low} and {high}")))
        };
        within("temperature", self.temperature, 0.0, 10.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("repeat_penalty", self.repeat_penalty, 0.1, 10.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        if !(1..=Self::MAX_TOKENS).contains(&self.max_tokens) {
            let range = format!("must be between 1 and {}", Self::MAX_TOKENS);
            return Err(JobError::invalid("max_tokens", &range));
        }
        let (count, len) = Self::MAX_STOPS;
        if self.stop.len() > count || self.stop.iter().any(|s| s.is_empty() || s.len() > len) {
            return Err(JobError::invalid("stop", &format!("takes up to {count} texts of 1 to {len} bytes")));
        }
        if self.logprobs.is_some_and(|top| top > Logprobs::MAX_TOP) {
            return Err(JobError::invalid("logprobs", &format!("must be at most {}", Logprobs::MAX_TOP)));
        }
        if self.choice > Self::MAX_CHOICE {
            return Err(JobError::Unsupported { feature: Feature::Choices });
        }
        Ok(())
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            stop: Vec::new(),
            seed: 0,
            choice: 0,
            logprobs: None,
        }
    }
}

/// The right to spend and to spawn. It only shrinks on the way down (see [`crate::mandate`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Everything that the job and all its descendants may cost.
    pub budget: Credits,
    /// How deep sub-jobs may nest; 0 allows none.
    pub depth: u8,
    /// How many sub-jobs the job itself may submit.
    pub children: u16,
    /// When it must be done.
    pub deadline: Timestamp,
}

impl Limits {
    /// Most sub-jobs of one job: the receipt lists each of them.
    pub const MAX_CHILDREN: u16 = 1024;

    /// Refuses more sub-jobs than a receipt can list.
    ///
    /// # Errors
    /// [`JobError::Invalid`].
    pub fn check(&self) -> Result<(), JobError> {
        if self.children <= Self::MAX_CHILDREN {
            return Ok(());
        }
        Err(JobError::invalid("children", &format!("must be at most {}", Self::MAX_CHILDREN)))
    }
}

/// How a provider is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choosing {
    /// Announce to the mesh, wait for sealed bids, take the best when they stop coming.
    Auction,
    /// The peer decides: ask when few could do it or the job has no time to lose, else announce (SPEC §6.2).
    #[default]
    Auto,
    /// Ask a few sampled providers and take the best of their quotes.
    Direct,
}

/// What the requester likes in a provider: its own affair, which no bidder ever learns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Preference {
    /// Whoever has an advantage already, such as the conversation so far: asked first, and near by
    /// [`Weights::locality`].
    pub peer: Option<PeerId>,
    /// Who had a chance already: at most [`Preference::MAX_AVOIDED`] peers that are not asked.
    pub avoid: Vec<PeerId>,
    /// What it wants to pay: a best bid that asks more gets one counter-offer.
    pub target: Option<Price>,
    /// What counts how much when bids are compared.
    pub weights: Weights,
}

impl Preference {
    /// A retry elsewhere names those who failed; nobody has that many.
    pub const MAX_AVOIDED: usize = 64;
}

/// What counts how much when bids are compared (SPEC §6.4). What weighs nothing still breaks ties, but for locality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// Cost of the longest answer, relative to the cheapest.
    pub price: u8,
    /// Time for the longest answer, relative to the soonest.
    pub latency: u8,
    /// How often the bidder has failed, as far as is known here.
    pub evidence: u8,
    /// Being the preferred peer, if one is.
    pub locality: u8,
}

impl Default for Weights {
    /// The cheapest, and of equals the fastest; but a preferred peer may cost almost twice as much.
    fn default() -> Self {
        Self { price: 1, latency: 0, evidence: 0, locality: 1 }
    }
}

/// A job as its requester describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What is to be done.
    pub kind: JobKind,
    /// What the provider must have.
    pub requirement: Requirement,
    /// Only this peer.
    pub provider: Option<PeerId>,
    /// How to choose otherwise.
    pub choosing: Choosing,
    /// Whom to choose then.
    pub preference: Preference,
    /// What the work starts from.
    pub input: Input,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What it may cost and spawn, and until when.
    pub limits: Limits,
    /// What form the answer must have. Only shown to the provider that got the job.
    pub constraint: Option<Constraint>,
    /// When a person is to be asked before it begins, besides what the peer itself asks for.
    pub approval: Vec<Rule>,
    /// The job that this one is a part of.
    pub parent: Option<JobId>,
}

impl JobSpec {
    /// Largest input in bytes. The largest frame holds it.
    pub const MAX_INPUT: usize = 1 << 20;

    /// Refuses what no provider could accept, before anything is sent.
    ///
    /// # Errors
    /// [`JobError::Invalid`] or [`JobError::Unsupported`].
    pub fn check(&self) -> Result<(), JobError> {
        self.kind.check(&self.input, self.constraint.as_ref())?;
        self.input.check()?;
        if matches!(self.input, Input::Tokens(_)) && self.requirement.model.is_none() {
            return Err(JobError::invalid(
                "model",
                "must be named: token ids mean nothing without their model",
            ));
        }
        if self.preference.avoid.len() > Preference::MAX_AVOIDED {
            let most = format!("names at most {} peers", Preference::MAX_AVOIDED);
            return Err(JobError::invalid("avoid", &most));
        }
        if self.approval.len() > Rule::MAX {
            return Err(JobError::invalid("approval", &format!("has at most {} rules", Rule::MAX)));
        }
        self.limits.check()?;
        self.sampling.check()
    }
}

/// What is not a job's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job's name has 32 hexadecimal digits")]
pub struct ParseJobIdError;

impl FromStr for JobId {
    type Err = ParseJobIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| hex).ok_or(ParseJobIdError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self)
        }
    }
}
