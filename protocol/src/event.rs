//! The vocabulary of a driver: what it tells a [`crate::Peer`], and what the peer tells it to do.
//!
//! `node` turns [`Output`]s into packets, tokens and rows on disk; `simulations` turns the same outputs into entries
//! of an event queue. Both must perform outputs **in order and without skipping**: an [`Output::Record`] precedes
//! everything that depends on it, so a driver that journals before it sends can crash anywhere and owe nothing.

use crypto::{Digest, PeerId, Signed, Verified};

use crate::approval::Rule;
use crate::ledger::Entry;
use crate::message::{Announcement, Bid, Frame, Request, Response};
use crate::receipt::{Acknowledgement, Finish, Opening, Order, Receipt, Rendering, Token};
use crate::{
    AgentOffer, Capability, Constraint, Evidence, Input, JobError, JobId, JobSpec, Logprobs, Profile,
    Requirement, Trace, job::Salt,
};

/// Names a request of ours; its answer repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names a stranger's request in the driver; our answer repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboundId(pub u64);

/// Names a search for providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// Names one execution of an agent at this peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// On which end of a stream this peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// We work for them.
    Provider,
    /// They work for us.
    Requester,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Provider => Self::Requester,
            Self::Requester => Self::Provider,
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// An answer to our request, or why there is none.
    Answer {
        /// Our request.
        id: RequestId,
        /// Who was asked.
        from: PeerId,
        /// `None`: unreachable, or no answer in time.
        answer: Option<Response>,
    },
    /// Gossip whose author the transport has verified.
    Announced {
        /// Its author.
        from: PeerId,
        /// What was announced.
        announcement: Announcement,
    },
    /// The user, or an agent of ours, wants something.
    Command(Command),
    /// A search came back, with everything that was found and whose signature held.
    Discovered {
        /// Our search.
        query: QueryId,
        /// Fresh profiles.
        profiles: Vec<Verified<Profile>>,
    },
    /// A frame on a stream.
    Frame {
        /// Who sent it.
        from: PeerId,
        /// Which end of that stream we are.
        side: Side,
        /// What it says.
        frame: Frame,
    },
    /// A stream ended, or could not be opened.
    Lost {
        /// With whom.
        peer: PeerId,
        /// Which end we were.
        side: Side,
    },
    /// Translation met bytes that no honest peer sends.
    Misbehaved {
        /// Who.
        peer: PeerId,
        /// What.
        evidence: Evidence,
    },
    /// An agent of ours got on with a run.
    Produced {
        /// Which.
        run: RunId,
        /// With what.
        production: Production,
    },
    /// A stranger asks.
    Request {
        /// Who.
        from: PeerId,
        /// To be repeated with the answer.
        inbound: InboundId,
        /// What.
        request: Request,
    },
}

/// What the user, or an agent of ours, wants.
#[derive(Clone, Debug)]
pub enum Command {
    /// A person approves a job that is held.
    Approve {
        /// Which.
        job: JobId,
    },
    /// Give up a job.
    Cancel {
        /// Which.
        job: JobId,
    },
    /// Host these agents from now on.
    Offer(Vec<AgentOffer>),
    /// Get a job done.
    Submit(Box<Submission>),
}

/// A job and the chance that it needs: its name and salt are random bytes drawn by the driver.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The job's name.
    pub job: JobId,
    /// What salts the commitment to its input.
    pub salt: Salt,
    /// The job.
    pub spec: JobSpec,
    /// The run of ours on whose behalf, if it is a sub-job.
    pub run: Option<RunId>,
    /// Where it stands in somebody's trace: told to whoever works on it.
    pub trace: Option<Trace>,
}

/// What an agent of ours produced.
#[derive(Clone, Debug)]
pub enum Production {
    /// It failed.
    Failed(JobError),
    /// It is done.
    Finished(Finish),
    /// So much of the prompt has been read.
    Progress {
        /// Tokens read.
        done: u32,
        /// Tokens in the prompt.
        of: u32,
    },
    /// The prompt has been rendered. Comes first, and only from engines with token ids.
    Prompt(Rendering),
    /// The next token.
    Token {
        /// What it is.
        token: Token,
        /// With the last token of each segment ([`crate::receipt::SEGMENT`]), what an exact engine commits to
        /// ([`crate::receipt::Segment::activations`]). With other tokens it is passed over.
        activations: Option<Digest>,
        /// How likely it was, if that was ordered ([`Logprobs::may_come`]).
        logprobs: Option<Logprobs>,
    },
}

impl From<Token> for Production {
    /// A token of an engine that commits to nothing and was not asked how likely it is.
    fn from(token: Token) -> Self {
        Self::Token { token, activations: None, logprobs: None }
    }
}

/// What to do, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Stop a run and forget it.
    Abort {
        /// Which.
        run: RunId,
    },
    /// Publish on the topic of the capability's root.
    Announce {
        /// The root.
        root: Capability,
        /// What.
        announcement: Announcement,
    },
    /// Have nothing to do with this peer any more.
    Block {
        /// Whom.
        peer: PeerId,
    },
    /// Search for providers and answer with [`Event::Discovered`].
    Discover {
        /// To be repeated with the answer.
        query: QueryId,
        /// What they must offer; `None` asks for a sample of everything.
        requirement: Option<Requirement>,
    },
    /// Send on the stream to this peer; opens one where there is none and we are the requester.
    Frame {
        /// To whom.
        to: PeerId,
        /// Which end of the stream we are.
        side: Side,
        /// What.
        frame: Frame,
    },
    /// Close all connections to this peer: it does not answer any more, and may be back behind another one.
    HangUp {
        /// Which.
        peer: PeerId,
    },
    /// Tell whoever submitted the job.
    Notify {
        /// The job.
        job: JobId,
        /// What happened to it.
        event: JobEvent,
    },
    /// Be found under these capabilities, their ancestors and the root key.
    Provide {
        /// All that is on offer now.
        capabilities: Vec<Capability>,
    },
    /// Make this durable before performing any later output.
    Record(Entry),
    /// Ask a peer.
    Request {
        /// To be repeated with the answer.
        id: RequestId,
        /// Whom.
        to: PeerId,
        /// What.
        request: Request,
    },
    /// Answer a stranger.
    Respond {
        /// Its request.
        inbound: InboundId,
        /// The answer.
        response: Response,
    },
    /// Start an agent.
    Run(Box<Run>),
}

/// Work for an agent of this peer.
#[derive(Clone, Debug)]
pub struct Run {
    /// To be repeated with everything that it produces.
    pub run: RunId,
    /// What was ordered; names the agent.
    pub order: Verified<Order>,
    /// What to work on.
    pub input: Input,
    /// What form the answer must have; it is the one that the order names.
    pub constraint: Option<Constraint>,
    /// What others have answered already, if the order continues their work: the next token comes after these.
    pub inherited: Vec<Token>,
    /// Where the job stands in its requester's trace, if it is traced. Nothing signs it.
    pub trace: Option<Trace>,
}

/// What its submitter learns of a job.
#[derive(Clone, Debug)]
pub enum JobEvent {
    /// Nobody hears of it until it is approved ([`Command::Approve`]), because this rule names it.
    Awaiting(Rule),
    /// A provider made an offer. Comes again where it answers a counter-offer.
    Bid(Verified<Bid>),
    /// Done. Always the last event.
    Done(Box<Completion>),
    /// Not done. Always the last event.
    Failed(JobError),
    /// The provider has read so much of the prompt.
    Progress {
        /// Tokens read.
        done: u32,
        /// Tokens in the prompt.
        of: u32,
    },
    /// A provider got the job. Comes again if another one takes over, also in the middle of the answer.
    Started {
        /// Who.
        provider: PeerId,
        /// What it offered.
        offer: Box<AgentOffer>,
        /// Tokens of the answer that are there already: it goes on with the next one.
        tokens: u64,
    },
    /// The next token of the answer; it has been checked against the commitment.
    Token {
        /// Its position, from 0.
        index: u64,
        /// What it is.
        token: Token,
        /// How likely it was, if that was ordered: the provider's word, which nothing commits to.
        logprobs: Option<Logprobs>,
    },
}

/// A job that was done: everything that proves it.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The provider's statement.
    pub receipt: Verified<Receipt>,
    /// Our countersignature.
    pub acknowledgement: Signed<Acknowledgement>,
    /// What lifts the receipt's commitments; private.
    pub opening: Opening,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is moved through several queues: what is large and rare is boxed.
    #[test]
    fn events_and_outputs_are_small() {
        assert!(size_of::<Event>() <= 256, "{}", size_of::<Event>());
        assert!(size_of::<Output>() <= 256, "{}", size_of::<Output>());
    }
}
