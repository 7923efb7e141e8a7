//! What is held of an answer: enough to prove it, and to let another provider go on with it.
//!
//! Each token extends the transcript, every 32nd is signed for. An answer outlives the session that it came in: when its
//! provider is lost, the next one inherits it, goes on with the next index, and answers for the whole.

use crypto::{Commitment, Digest, Network, Signed, Transcript};

use crate::codec;
use crate::receipt::{Continuation, Inherited, Order, Rendering, SEGMENT, Segment, SignedStretch, Token};
use crate::{Evidence, Logprobs};

/// An answer as far as it is known.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) transcript: Transcript,
    pub(super) output: Vec<Token>,
    /// Bytes of text in it.
    pub(super) text_len: usize,
    /// What was signed for it, in the signers' words and by name.
    pub(super) segments: Vec<Signed<Segment>>,
    pub(super) stretches: Vec<SignedStretch>,
    /// What was committed to with the full segments.
    pub(super) activations: Vec<Digest>,
    /// How its first provider read the input.
    pub(super) rendering: Option<Rendering>,
}

impl Answer {
    /// Nothing yet.
    pub(super) fn new(order: &Order) -> Self {
        Self {
            transcript: order.transcript(),
            output: Vec::new(),
            text_len: 0,
            segments: Vec::new(),
            stretches: Vec::new(),
            activations: Vec::new(),
            rendering: None,
        }
    }

    /// Puts together what a successor was shown.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn inherit(network: &Network, order: &Order, inherited: &Inherited) -> Result<Self, Evidence> {
        let mut answer = Self::new(order);
        answer.rendering = order.continues.map(|continues| continues.rendering);
        let mut segments = inherited.segments.iter();
        for token in &inherited.output {
            let Some(_) = token.id else { return Err(Evidence::Unexpected) };
            answer.push(order, token, answer.extended(token))?;
            if answer.transcript.len().is_multiple_of(SEGMENT) {
                let segment = segments.next().ok_or(Evidence::BadCommitment)?;
                answer.sign((network, order), segment.clone(), |_| true)?;
            }
        }
        let told = order.continues.map(|continues| (continues.tokens, continues.commitment));
        let found = (answer.transcript.len(), answer.transcript.commitment());
        let as_told = told.map_or(inherited.output.is_empty(), |told| told == found);
        let same = segments.next().is_none() && as_told;
        if same { Ok(answer) } else { Err(Evidence::BadCommitment) }
    }

    /// What a successor needs to go on from here; none where nobody can: there is no answer yet, its pieces have no
    /// ids, or a word for them is due.
    pub(super) fn continuation(&self) -> Option<Continuation> {
        // Without its provider's word for the last stretch a successor would not believe whoever shows it.
        let whole = self.output.last().is_some_and(|token| token.id.is_some()) && self.is_signed();
        let rendering = self.rendering.filter(|_| whole)?;
        let fits = codec::encode(&self.inherited()).len() <= Inherited::MAX_LEN;
        let (tokens, commitment) = (self.transcript.len(), self.transcript.commitment());
        fits.then_some(Continuation { tokens, commitment, rendering })
    }

    /// What a successor is shown.
    pub(super) fn inherited(&self) -> Inherited {
        Inherited { output: self.output.clone(), segments: self.segments.clone() }
    }

    /// Takes the next token as it came in a frame.
    ///
    /// # Errors
    /// What its provider did wrong.
    pub(super) fn accept(
        &mut self,
        order: &Order,
        (index, commitment): (u64, Commitment),
        token: &Token,
        logprobs: Option<&Logprobs>,
    ) -> Result<(), Evidence> {
        if index != self.transcript.len() || index > u64::from(order.sampling.max_tokens) {
            return Err(Evidence::SkippedIndex);
        }
        if !self.is_signed() {
            return Err(Evidence::BadCommitment);
        }
        let next = self.extended(token);
        if next.commitment() != commitment {
            return Err(Evidence::BadCommitment);
        }
        if !Logprobs::may_come(logprobs, token, &order.sampling) {
            return Err(Evidence::Unexpected);
        }
        self.push(order, token, next)
    }

    /// Whether there is a word for every full stretch.
    fn is_signed(&self) -> bool {
        self.stretches.len() as u64 == self.transcript.len() / SEGMENT
    }

    /// The transcript with one more token.
    fn extended(&self, token: &Token) -> Transcript {
        let mut transcript = self.transcript.clone();
        transcript.push(token.id, &token.text);
        transcript
    }

    /// Takes a token, and the transcript with it.
    fn push(&mut self, order: &Order, token: &Token, transcript: Transcript) -> Result<(), Evidence> {
        if self.transcript.len() > u64::from(order.sampling.max_tokens) {
            return Err(Evidence::SkippedIndex);
        }
        if !token.may_follow(&self.output, order.kind.has_ids(order.model)) {
            return Err(Evidence::Unexpected);
        }
        if self.text_len + token.text.len() > Token::MAX_ANSWER {
            return Err(Evidence::OverCap);
        }
        self.text_len += token.text.len();
        self.transcript = transcript;
        self.output.push(token.clone());
        Ok(())
    }

    /// Takes a word for the tokens since the last one. There is one after every 32nd token, and no other. `may` says which
    /// orders' words count.
    ///
    /// # Errors
    /// What its signer did wrong.
    pub(super) fn sign(
        &mut self,
        (network, order): (&Network, &Order),
        signed: Signed<Segment>,
        may: impl Fn(Digest) -> bool,
    ) -> Result<(), Evidence> {
        let segment = signed.clone().verify(network).map_err(|_| Evidence::BadSignature)?;
        let ours = (order.job, self.transcript.len(), self.transcript.commitment());
        let after = (self.stretches.len() as u64 + 1) * SEGMENT;
        if ours != (segment.job, segment.end, segment.commitment) || segment.end != after {
            return Err(Evidence::BadCommitment);
        }
        if !may(segment.order) {
            return Err(Evidence::BadCommitment);
        }
        let before = (self.activations.len(), self.stretches.len());
        if !self.output.last().is_some_and(|last| Segment::may_commit(segment.activations, last, before)) {
            return Err(Evidence::BadCommitment);
        }
        self.activations.extend(segment.activations);
        let (provider, order, end) = (segment.signer(), segment.order, segment.end);
        self.stretches.push(SignedStretch { provider, order, end, segment: segment.digest() });
        self.segments.push(signed);
        Ok(())
    }
}
