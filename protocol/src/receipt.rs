//! What a job leaves behind: the order that asked, the segments on the way, the receipt that answers for it.
//!
//! ```text
//! requester: Order ──▶ provider: Segment, Segment, … Receipt ──▶ requester: Acknowledgement
//! ```
//!
//! Each is signed by the one who speaks and names the one before by digest, so that nobody can later claim another
//! question, another answer or another price. The receipt holds commitments only; the [`Opening`] that lifts them
//! (input, salt, tokens) stays with the requester, who may show it or not.

use crypto::signed::Malformed;
use crypto::{Commitment, Digest, Hasher, Network, Payload, PeerId, Signed, Transcript};
use serde::{Deserialize, Serialize};

use crate::job::Salt;
use crate::{
    Capability, Constraint, Credits, Input, JobError, JobId, JobKind, Limits, Price, Sampling, Timestamp,
    Usage, codec,
};

/// Tokens that one segment signature speaks for: what a provider that dies leaves behind is never older.
pub const SEGMENT: u64 = 32;

/// The requester's signed word: do this, for this price.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The job.
    pub job: JobId,
    /// The job that this one is a part of.
    pub parent: Option<JobId>,
    /// What is to be done.
    pub kind: JobKind,
    /// By whom: an order shown to anybody else is void.
    pub provider: PeerId,
    /// The provider's agent, as its bid named it.
    pub agent: String,
    /// The capability that was asked for.
    pub capability: Capability,
    /// The model that the bid named.
    pub model: Option<Digest>,
    /// Salted commitment to the input ([`Input::commitment`]).
    pub input: Digest,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What the job may cost and spawn, and until when.
    pub limits: Limits,
    /// The price that the bid named.
    pub price: Price,
    /// The accepted bid.
    pub bid: Digest,
    /// Digest of the form that the answer must have ([`Constraint::digest`]).
    pub constraint: Option<Digest>,
    /// What other providers have answered already.
    pub continues: Option<Continuation>,
    /// When it was given.
    pub issued: Timestamp,
}

/// Where another provider's answer broke off, and what its successor needs to go on as it would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    /// Tokens of the answer so far.
    pub tokens: u64,
    /// The running commitment after them.
    pub commitment: Commitment,
    /// How the input was rendered.
    pub rendering: Rendering,
}

/// How a provider rendered the input for its model: whoever goes on with the answer must have read the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendering {
    /// Digest of the prompt's token ids ([`prompt_digest`]).
    pub prompt: Digest,
    /// How many there are.
    pub tokens: u32,
    /// The Unix time that the chat template was told, in seconds.
    pub template_time: u64,
}

/// What a successor is shown of an answer that it is to go on with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    /// The tokens so far.
    pub output: Vec<Token>,
    /// What its providers signed on the way: one for each full segment.
    pub segments: Vec<Signed<Segment>>,
}

impl Inherited {
    /// Longest encoding in bytes. An answer that is longer is not continued.
    pub const MAX_LEN: usize = 1 << 20;
}

impl Order {
    /// How old an order may be when it arrives, in milliseconds; older ones are replays.
    pub const LIFETIME: u64 = 60 * 1000;

    /// True while a provider may accept it.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now.since(self.issued) <= Self::LIFETIME && self.issued.since(now) <= Self::LIFETIME
    }

    /// An empty transcript for the answer: bound to the job, and so to nothing that ran before.
    pub fn transcript(&self) -> Transcript {
        Transcript::new(&self.job.0)
    }

    /// Tokens of the answer that others have given.
    pub fn inherited(&self) -> u64 {
        self.continues.map_or(0, |continues| continues.tokens)
    }
}

/// The provider's signed word for everything up to some token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The job.
    pub job: JobId,
    /// The order it answers.
    pub order: Digest,
    /// How many tokens are covered.
    pub end: u64,
    /// The running commitment after them.
    pub commitment: Commitment,
    /// Digest of the hidden states that an exact engine drew the segment's tokens from. All full segments of an answer
    /// have one, or none has ([`Segment::may_commit`]).
    pub activations: Option<Digest>,
}

impl Segment {
    /// True when a segment that ends with `last` may have these activations, after so many segments of which so many
    /// had some. A segment is full when all its tokens have ids; with a last piece that has none, it is the answer's
    /// last and has no activations.
    pub fn may_commit(
        activations: Option<Digest>,
        last: &Token,
        (committed, segments): (usize, usize),
    ) -> bool {
        match activations {
            Some(_) => last.id.is_some() && committed == segments,
            None => last.id.is_none() || committed == 0,
        }
    }

    /// The name that this statement has if `provider` signs it ([`Signed::digest`], which no signature enters).
    pub fn name(&self, provider: PeerId) -> Digest {
        Signed::<Self>::from_parts(provider, self.encode(), [0; 64]).digest()
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model said so.
    EndOfText,
    /// `max_tokens`, or the end of the context.
    Length,
    /// A stop text.
    Stop,
}

/// The provider's signed statement: *this* model, given *this* input and *these* parameters, gave *this* output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The mesh it happened in.
    pub network: Network,
    /// The job.
    pub job: JobId,
    /// The job that this one is a part of.
    pub parent: Option<JobId>,
    /// What was done.
    pub kind: JobKind,
    /// For whom.
    pub requester: PeerId,
    /// The requester's order.
    pub order: Digest,
    /// By which agent of the provider.
    pub agent: String,
    /// Under which capability.
    pub capability: Capability,
    /// With which model; `None` cannot be replayed.
    pub model: Option<Digest>,
    /// On which engine profile.
    pub engine: Option<String>,
    /// Salted commitment to the input.
    pub input: Digest,
    /// Digest of the rendered prompt's token ids.
    pub prompt: Option<Digest>,
    /// The Unix time that the chat template was told, in seconds.
    pub template_time: u64,
    /// How tokens were chosen.
    pub sampling: Sampling,
    /// Commitment to every token's index, id and text.
    pub output: Commitment,
    /// Signed stretches of the answer and who signed each.
    pub segments: Vec<SignedStretch>,
    /// Why the answer ended.
    pub finish: Finish,
    /// What was read and written.
    pub usage: Usage,
    /// Price by 1000 tokens.
    pub price: Price,
    /// What is owed.
    pub cost: Credits,
    /// When the provider began.
    pub started: Timestamp,
    /// When it was done.
    pub finished: Timestamp,
    /// Digest of the form that the answer must have ([`Constraint::digest`]).
    pub constraint: Option<Digest>,
    /// What other providers had answered before. The signer of this receipt answers for it, too.
    pub continues: Option<Continuation>,
    /// Receipts of sub-jobs whose outputs went in.
    pub children: Vec<Digest>,
}

/// A stretch of the answer that one provider signed while it streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedStretch {
    /// Who.
    pub provider: PeerId,
    /// The order that it answered; after a failover, not the receipt's.
    pub order: Digest,
    /// How many tokens it covers, from the first.
    pub end: u64,
    /// The segment statement.
    pub segment: Digest,
}

/// The requester's countersignature: I got this, and owe what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The receipt.
    pub receipt: Digest,
}

/// One token of an answer, as it travels and as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The model's id; engines without ids commit to bytes.
    pub id: Option<u32>,
    /// Its text; empty while a character is incomplete.
    pub text: String,
}

impl Token {
    /// Longest text of one token in bytes; a frame holds it with room to spare.
    pub const MAX_TEXT: usize = 8 << 10;
    /// Longest text of a whole answer in bytes: what a requester has to keep of one job.
    pub const MAX_ANSWER: usize = 4 << 20;

    /// A text in pieces without ids, characters whole, as many as `sampling` allows.
    ///
    /// # Errors
    /// [`JobError::Invalid`] when they are too many.
    pub fn pieces(mut text: &str, sampling: &Sampling) -> Result<Vec<Self>, JobError> {
        let mut pieces = Vec::new();
        while !text.is_empty() {
            let (piece, rest) = text.split_at(text.floor_char_boundary(Self::MAX_TEXT));
            pieces.push(Self { id: None, text: piece.to_owned() });
            text = rest;
        }
        if pieces.len() > sampling.max_tokens as usize {
            return Err(JobError::invalid("max_tokens", &format!("must be {} at least", pieces.len())));
        }
        Ok(pieces)
    }

    /// True when this may come after `before` in an answer whose tokens have ids ([`JobKind::has_ids`]), or have not.
    ///
    /// Every token of a model that generates has an id. Only the last piece may have none: text that was held back for a stop that never
    /// came. Otherwise empty pieces, which no replay sees, could be put on the bill.
    pub fn may_follow(&self, before: &[Self], has_ids: bool) -> bool {
        let last = before.last().is_some_and(|token| token.id.is_some());
        self.text.len() <= Self::MAX_TEXT
            && match (has_ids, self.id) {
                (false, _) => true,
                (true, Some(_)) => last || before.is_empty(),
                (true, None) => last && !self.text.is_empty(),
            }
    }
}

/// What lifts a receipt's commitments. Private to the requester.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The input.
    pub input: Input,
    /// What salted its commitment.
    pub salt: Salt,
    /// The answer, token by token.
    pub output: Vec<Token>,
    /// What the provider committed to with each full segment, in order; empty when it committed to nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub activations: Vec<Digest>,
    /// What form the answer must have, where one was ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Constraint>,
}

/// How a receipt and an opening, or a receipt and what was seen, can disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// The input is not the one that was committed to.
    #[error("the input is not the one that the receipt commits to")]
    Input,
    /// The constraint is not the one that was ordered.
    #[error("the constraint is not the one that the receipt names")]
    Constraint,
    /// The tokens are not the ones that were committed to.
    #[error("the output is not the one that the receipt commits to")]
    Output,
    /// The segments are not the ones that were signed.
    #[error("the segments are not the ones that the receipt names")]
    Segments,
    /// Price, cost or counts do not add up.
    #[error("the receipt's counts and cost do not add up")]
    Sum,
    /// It answers another order.
    #[error("the receipt answers another order")]
    Order,
}

impl Receipt {
    /// Tokens of the answer that other providers have given. They are counted among the tokens that were read.
    pub fn inherited(&self) -> u64 {
        self.continues.map_or(0, |continues| continues.tokens)
    }

    /// Tokens of the prompt, without those of the answer that were read.
    pub fn prompt_tokens(&self) -> u32 {
        self.usage.prompt_tokens.saturating_sub(u32::try_from(self.inherited()).unwrap_or(u32::MAX))
    }

    /// Tokens of the answer, whoever gave them.
    pub fn answer_tokens(&self) -> u32 {
        self.usage.completion_tokens.saturating_add(u32::try_from(self.inherited()).unwrap_or(u32::MAX))
    }

    /// Checks a receipt against its opening.
    ///
    /// # Errors
    /// [`Mismatch::Input`], [`Mismatch::Constraint`], [`Mismatch::Output`], [`Mismatch::Segments`] or [`Mismatch::Sum`].
    pub fn check_opening(&self, opening: &Opening) -> Result<(), Mismatch> {
        if opening.input.commitment(&opening.salt) != self.input {
            return Err(Mismatch::Input);
        }
        if opening.constraint.as_ref().map(Constraint::digest) != self.constraint {
            return Err(Mismatch::Constraint);
        }
        let mut transcript = Transcript::new(&self.job.0);
        let mut commitments = Vec::new();
        for (index, token) in opening.output.iter().enumerate() {
            if !token.may_follow(&opening.output[..index], self.kind.has_ids(self.model)) {
                return Err(Mismatch::Output);
            }
            transcript.push(token.id, &token.text);
            if transcript.len().is_multiple_of(SEGMENT) {
                commitments.push(transcript.commitment());
            }
        }
        if opening.output.iter().map(|token| token.text.len()).sum::<usize>() > Token::MAX_ANSWER {
            return Err(Mismatch::Output);
        }
        self.check_output(&transcript)?;
        self.check_segments(opening, &commitments)
    }

    /// Puts the segments together again, given the commitment after each: that is how the provider's signature under
    /// the receipt binds what it committed to on the way.
    fn check_segments(&self, opening: &Opening, commitments: &[Commitment]) -> Result<(), Mismatch> {
        let mut committed = 0;
        let lasts = opening.output.iter().skip(SEGMENT as usize - 1).step_by(SEGMENT as usize);
        for (index, ((last, &commitment), stretch)) in lasts.zip(commitments).zip(&self.segments).enumerate()
        {
            let end = (index as u64 + 1) * SEGMENT;
            let activations = last.id.and_then(|_| opening.activations.get(committed)).copied();
            let segment = Segment { job: self.job, order: stretch.order, end, commitment, activations };
            let signed = stretch.end == end && stretch.segment == segment.name(stretch.provider);
            if !signed || !Segment::may_commit(activations, last, (committed, index)) {
                return Err(Mismatch::Segments);
            }
            committed += usize::from(activations.is_some());
        }
        let all = (commitments.len(), committed) == (self.segments.len(), opening.activations.len());
        if all { Ok(()) } else { Err(Mismatch::Segments) }
    }

    /// Checks the receipt's sums, and its output against what was seen.
    ///
    /// # Errors
    /// [`Mismatch::Output`] or [`Mismatch::Sum`].
    pub fn check_output(&self, seen: &Transcript) -> Result<(), Mismatch> {
        if self.output != seen.commitment() {
            return Err(Mismatch::Output);
        }
        let counted = u64::from(self.usage.completion_tokens) + self.inherited() == seen.len();
        let priced = self.price.cost(self.usage) == Some(self.cost);
        if counted && priced { Ok(()) } else { Err(Mismatch::Sum) }
    }

    /// Checks that the receipt answers `order` and nothing else.
    ///
    /// # Errors
    /// [`Mismatch::Order`] or [`Mismatch::Sum`].
    pub fn check_order(&self, digest: Digest, order: &Order) -> Result<(), Mismatch> {
        let same = self.order == digest
            && (self.job, self.parent, self.kind) == (order.job, order.parent, order.kind)
            && (&self.agent, &self.capability) == (&order.agent, &order.capability)
            && (self.model, self.input, self.constraint) == (order.model, order.input, order.constraint)
            && (&self.sampling, self.price) == (&order.sampling, order.price)
            && self.continues == order.continues;
        match same {
            true if self.cost <= order.limits.budget => Ok(()),
            true => Err(Mismatch::Sum),
            false => Err(Mismatch::Order),
        }
    }
}

/// The digest that binds a rendered prompt: over its token ids, little endian.
pub fn prompt_digest(ids: &[u32]) -> Digest {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Hasher::new("prompt").part(&bytes).finish()
}

/// The four statements encode alike; they differ in name and size.
macro_rules! payload {
    ($type:ty, $kind:literal, $cap:expr) => {
        impl Payload for $type {
            const KIND: &'static str = $kind;
            const MAX_LEN: usize = $cap;

            fn encode(&self) -> Vec<u8> {
                codec::encode(self)
            }

            fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
                codec::decode(bytes).map_err(|_| Malformed)
            }
        }
    };
}

payload!(Order, "order", 16 << 10);
payload!(Segment, "segment", 256);
payload!(Receipt, "receipt", 256 << 10);
payload!(Acknowledgement, "acknowledgement", 64);
