//! Everything that crosses the wire, and nothing but data.
//!
//! Three roads: a [`Request`] gets one [`Response`]; a [`Frame`] travels on the one long-lived stream between a
//! requester and a provider; an [`Announcement`] goes to a topic. Prompts travel in [`Frame::Start`] only.

use crypto::{Commitment, Digest, PeerId, Signed, signed::Malformed};
use serde::{Deserialize, Serialize};

use crate::codec::{self, MAX_MESSAGE, Message};
use crate::job::Salt;
use crate::{
    Acknowledgement, AgentOffer, Constraint, Inherited, Input, JobError, JobId, JobKind, Logprobs, Order,
    Price, Profile, Receipt, Rendering, Requirement, Segment, Timestamp, Token, Trace, Usage,
};

/// What is asked of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Would you do this, and for how much?
    Ask(Ask),
    /// A sealed bid for a job that was announced.
    Bid(Signed<Bid>),
    /// Who are you?
    Profile,
    /// Would you do it for less? The bid stands, whatever the answer.
    Counter(Counter),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Yes, like this.
    Bid(Signed<Bid>),
    /// No.
    Decline(JobError),
    /// This is me.
    Profile(Signed<Profile>),
    /// Noted.
    Received,
}

/// A job as strangers see it: what is required, never the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The job.
    pub job: JobId,
    /// What is to be done.
    pub kind: JobKind,
    /// What the provider must have.
    pub requirement: Requirement,
    /// Salted commitment to the input.
    pub input: Digest,
    /// Size of the input in bytes.
    pub input_len: u32,
    /// Longest answer in tokens.
    pub max_tokens: u32,
    /// When the job must be done.
    pub deadline: Timestamp,
}

/// The one counter-offer to a bid. Like an ask it is not signed: it binds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The job.
    pub job: JobId,
    /// Name of the bid.
    pub bid: Digest,
    /// What the requester would pay: less than the bid asks in one part, in none more.
    pub price: Price,
}

/// A provider's signed offer for one job. It is a promise until it expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bid {
    /// The job.
    pub job: JobId,
    /// To whom it is made.
    pub requester: PeerId,
    /// By which agent, with which model, at which speed. Its price is the bid's price.
    pub offer: AgentOffer,
    /// Jobs that go first.
    pub queue: u32,
    /// When the lease ends.
    pub expires: Timestamp,
}

impl Bid {
    /// The price of this bid.
    pub fn price(&self) -> Price {
        self.offer.price
    }

    /// Milliseconds until so much is read and written at the offered speed, after a queue of jobs that are as long.
    pub fn time(&self, usage: Usage) -> u64 {
        let millis = |tokens: u32, rate: u32| u64::from(tokens) * 1000 / u64::from(rate.max(1));
        let speed = self.offer.speed;
        let one = millis(usage.prompt_tokens, speed.prefill) + millis(usage.completion_tokens, speed.decode);
        one.saturating_mul(u64::from(self.queue) + 1)
    }
}

impl crypto::Payload for Bid {
    const KIND: &'static str = "bid";
    // The longest offer that a profile may hold has 9.7 KiB.
    const MAX_LEN: usize = 12 << 10;

    fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode(bytes).map_err(|_| Malformed)
    }
}

/// A job that is up for auction, on the topic of its capability's root. Its author is whoever gossip says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Announcement {
    /// Bids are wanted.
    Job {
        /// For this.
        ask: Ask,
        /// Until then.
        closes: Timestamp,
    },
}

/// Everything that a provider needs to begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// What was agreed.
    pub order: Signed<Order>,
    /// What it is about.
    pub brief: Brief,
    /// Where the job stands in the requester's trace, if it is traced. Not committed to, and nothing is decided by it.
    pub trace: Option<Trace>,
}

/// What only the provider that got the job is shown; the order commits to each part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    /// What to work on.
    pub input: Input,
    /// What salted its commitment.
    pub salt: Salt,
    /// What form the answer must have.
    pub constraint: Option<Constraint>,
    /// What others have answered already.
    pub inherited: Inherited,
}

/// What travels between a requester and a provider, in both directions of one stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Frame {
    /// Requester: begin. The only message that holds an input.
    Start(Box<Start>),
    /// Requester: stop, whatever you are at.
    Cancel {
        /// The job.
        job: JobId,
    },
    /// Requester: received and owed.
    Acknowledge {
        /// The job.
        job: JobId,
        /// The countersignature.
        acknowledgement: Signed<Acknowledgement>,
    },
    /// Requester: are you still there?
    Probe {
        /// The job.
        job: JobId,
    },
    /// Provider: this is how I read your input. Comes first, and only from engines with token ids.
    Prompt {
        /// The job.
        job: JobId,
        /// What was read.
        rendering: Rendering,
    },
    /// Provider: so much of the prompt has been read; 0 of 0 says no more than "I am alive".
    Progress {
        /// The job.
        job: JobId,
        /// Tokens read.
        done: u32,
        /// Tokens in the prompt.
        of: u32,
    },
    /// Provider: the next token.
    Token {
        /// The job.
        job: JobId,
        /// Its position, from 0.
        index: u64,
        /// What it is.
        token: Token,
        /// The running commitment after it.
        commitment: Commitment,
        /// How likely it was, if that was ordered ([`Logprobs::may_come`]); not committed to.
        logprobs: Option<Logprobs>,
    },
    /// Provider: my word for everything so far.
    Segment {
        /// The job.
        job: JobId,
        /// The statement.
        segment: Signed<Segment>,
    },
    /// Provider: done.
    Finish {
        /// The job.
        job: JobId,
        /// The statement.
        receipt: Signed<Receipt>,
    },
    /// Provider: not done, and why.
    Fail {
        /// The job.
        job: JobId,
        /// Why.
        error: JobError,
    },
}

impl Frame {
    /// The job that the frame is about; of a [`Frame::Start`], only its verified order tells.
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Start(_) => None,
            Self::Cancel { job }
            | Self::Acknowledge { job, .. }
            | Self::Probe { job }
            | Self::Prompt { job, .. }
            | Self::Progress { job, .. }
            | Self::Token { job, .. }
            | Self::Segment { job, .. }
            | Self::Finish { job, .. }
            | Self::Fail { job, .. } => Some(*job),
        }
    }
}

/// Room for the fixed parts around a signed payload: signer, signature, ids, lengths.
const ENVELOPE: usize = 256;
/// A token's text is a few characters, an upstream's piece may be a line; the alternatives' texts may be as long together.
const TOKEN: usize = 20 << 10;
/// An error's texts are bounded ([`crate::error::Text`]), its sample of capabilities is short.
const ERROR: usize = 4 << 10;

const fn statement<T: crypto::Payload>() -> Option<usize> {
    Some(T::MAX_LEN + ENVELOPE)
}

impl Message for Request {
    fn cap(variant: u8) -> Option<usize> {
        match variant {
            0 => Some(1 << 10),
            1 => statement::<Bid>(),
            2 => Some(2),
            3 => Some(128),
            _ => None,
        }
    }
}

impl Message for Response {
    fn cap(variant: u8) -> Option<usize> {
        match variant {
            0 => statement::<Bid>(),
            1 => Some(ERROR),
            2 => statement::<Profile>(),
            3 => Some(2),
            _ => None,
        }
    }
}

impl Message for Announcement {
    fn cap(variant: u8) -> Option<usize> {
        (variant == 0).then_some(1 << 10)
    }
}

impl Message for Frame {
    fn cap(variant: u8) -> Option<usize> {
        match variant {
            0 => Some(MAX_MESSAGE),
            1 | 3 | 5 => Some(64),
            2 => statement::<Acknowledgement>(),
            4 => Some(128),
            6 => Some(TOKEN),
            7 => statement::<Segment>(),
            8 => statement::<Receipt>(),
            9 => Some(ERROR),
            _ => None,
        }
    }
}
