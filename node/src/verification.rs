//! Was it right? The verdict on a receipt file, offline.
//!
//! Signatures and commitments are checked by reading the file ([`crate::receipts`]); that alone gives `signed`. A
//! replay feeds the answer through the model again and asks at every position whether the sampler draws the same
//! token. There is no bare "valid": every verdict says what was checked.
//!
//! | verdict | meaning |
//! |---|---|
//! | `signed` | both parties signed exactly this; nothing was recomputed |
//! | `exact` | every token was drawn again; on an exact profile, from the very states that were committed to |
//! | `consistent` | at most 5 % of the tokens differ, each by at most 0.5 logit: rounding explains it, fraud is unlikely |
//! | | of a vector ([`embedding`]): no number differs by more than 0.001 |
//! | `refuted` | the file was altered, or the answer is not this model's |
//! | `unverifiable` | something that a replay needs is not there |
//!
//! Two rules lead to the words. Where the receipt names an exact profile and the engine at hand has it, nothing is left to
//! rounding: the verdict is `exact`, or `refuted` with the first position that differs, or the first of a segment whose
//! commitment does. Between other profiles the tolerant rule holds, and the verdict tells the margins: by how much each
//! claimed token would have to rise, at most and in the mean of all positions.

pub mod embedding;
pub mod replaying;
mod score;

use std::sync::Arc;

use inference::commitment::SEGMENT;
use inference::replay::Claim;
use inference::tokens::{Detokenizer, StopFilter};
use inference::{Engine, FinishReason, GenerateError, PromptError, Replay, ReplayStep};
use protocol::receipt::prompt_digest;
use protocol::{Finish, JobKind, Opening, Receipt};
use serde::{Deserialize, Serialize};

use crate::agents::model::order;
use crate::failure::Class;
use crate::receipts::ReceiptFile;

/// Share of tokens that may differ in a `consistent` replay: one in this many. Stock kernels differ in 2–3 % between
/// the shapes of prefill and decode.
const CONSISTENT_SHARE: u32 = 20;
/// Margin in logits by which a token may differ in a `consistent` replay; the largest seen between honest ones is 0.28.
const CONSISTENT_MARGIN: f32 = 0.5;

/// How the names of all exact profiles begin.
const EXACT_PROFILES: &str = "exact-";

/// What is known of a receipt after looking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The word.
    pub verdict: Word,
    /// Positions that agree.
    pub agree: u32,
    /// Positions looked at.
    pub of: u32,
    /// The first that differs, or the first of a segment that was committed to with other states.
    pub first: Option<u32>,
    /// What led to the word.
    pub why: String,
}

/// The words for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Rounding explains the differences.
    Consistent,
    /// Every token was drawn again.
    Exact,
    /// Not what it claims to be.
    Refuted,
    /// Signatures and commitments hold; nothing was recomputed.
    Signed,
    /// Something is missing.
    Unverifiable,
}

impl Verdict {
    /// A verdict without positions.
    pub fn new(verdict: Word, why: impl Into<String>) -> Self {
        Self { verdict, agree: 0, of: 0, first: None, why: why.into() }
    }

    /// A file whose signatures and commitments hold.
    pub fn signed(file: &ReceiptFile) -> Self {
        let opened = if file.opening.is_some() {
            "and the opening lifts its commitments"
        } else {
            "without an opening"
        };
        Self::new(
            Word::Signed,
            format!("both signatures hold {opened}; add --replay to recompute the answer"),
        )
    }

    /// The class of failure that a command ends with, if it is one.
    pub fn failure(&self) -> Option<Class> {
        match self.verdict {
            Word::Signed | Word::Exact | Word::Consistent => None,
            Word::Refuted => Some(Class::Refuted),
            Word::Unverifiable => Some(Class::Unverifiable),
        }
    }
}

/// What a replay needs of a receipt; otherwise why there can be none.
///
/// # Errors
/// [`Word::Unverifiable`] and the reason.
pub fn replayable(file: &ReceiptFile) -> Result<(&Receipt, &Opening, crypto::Digest), Verdict> {
    let unverifiable = |why: &str| Verdict::new(Word::Unverifiable, why);
    let receipt = file.receipt.value();
    if receipt.kind == JobKind::Call {
        return Err(unverifiable(
            "a tool was called: nothing of its answer can be computed again, only who gave it is known",
        ));
    }
    let Some(model) = receipt.model else {
        return Err(unverifiable("the agent named no model (an echo or an upstream): it cannot be replayed"));
    };
    match &file.opening {
        Some(opening) => Ok((receipt, opening, model)),
        None => Err(unverifiable("the file has no opening: only the requester's copy can be replayed")),
    }
}

/// Runs the answer through the model again. `progress` hears of tokens done and to do.
pub fn replay(file: &ReceiptFile, engine: &Arc<dyn Engine>, mut progress: impl FnMut(u32, u32)) -> Verdict {
    let checked = replayable(file).and_then(|(receipt, opening, model)| {
        if engine.card().digest != model {
            return Err(Verdict::new(Word::Unverifiable, format!("the model at hand is not {model}")));
        }
        let prompt = prompt(receipt, opening, engine.as_ref())?;
        if receipt.kind == JobKind::Score {
            return Err(score::replay(receipt, opening, engine.as_ref(), prompt));
        }
        let claim = claim(receipt, opening, engine.as_ref(), prompt)?;
        check_text(receipt, opening, engine)?;
        Ok((receipt, claim))
    });
    let (receipt, claim) = match checked {
        Ok(checked) => checked,
        Err(verdict) => return verdict,
    };
    match run(engine.as_ref(), &claim, &mut progress) {
        Ok(replay) if is_exact(receipt, engine.as_ref()) => judge_exactly(engine.profile(), &replay, &claim),
        Ok(replay) => judge_tolerantly(receipt, engine.profile(), &replay),
        Err(GenerateError::Prompt(error @ PromptError::UnknownToken { .. })) => Verdict::new(
            Word::Refuted,
            format!("the answer has tokens that the model does not have: {error}"),
        ),
        Err(error) => Verdict::new(Word::Unverifiable, format!("the replay failed: {error}")),
    }
}

/// The tokens that the provider read, if it read what the opening renders to.
fn prompt(receipt: &Receipt, opening: &Opening, engine: &dyn Engine) -> Result<Vec<u32>, Verdict> {
    let unverifiable = |why: String| Verdict::new(Word::Unverifiable, why);
    let input =
        order::prompt(&opening.input, receipt.template_time).map_err(|e| unverifiable(e.to_string()))?;
    let prompt =
        engine.prompt(&input).map_err(|e| unverifiable(format!("the prompt cannot be rendered: {e}")))?;
    if receipt.prompt != Some(prompt_digest(&prompt)) {
        let why = "the provider read another prompt than the opening renders to (an agent with a system prompt of its own?)";
        return Err(unverifiable(why.to_owned()));
    }
    if prompt.len() as u64 != u64::from(receipt.prompt_tokens()) {
        return Err(Verdict::new(
            Word::Refuted,
            "the receipt counts another number of prompt tokens than there are",
        ));
    }
    Ok(prompt)
}

fn claim(
    receipt: &Receipt,
    opening: &Opening,
    engine: &dyn Engine,
    prompt: Vec<u32>,
) -> Result<Claim, Verdict> {
    let answer = opening.output.iter().filter_map(|token| token.id).collect();
    let finish = Some(match receipt.finish {
        Finish::EndOfText => FinishReason::EndOfText,
        Finish::Length => FinishReason::Length,
        Finish::Stop => FinishReason::Stop,
    });
    // Other engines have other states, or none.
    let exact = is_exact(receipt, engine);
    let theirs = receipt.engine.as_deref().unwrap_or_default();
    if !theirs.starts_with(EXACT_PROFILES) && !opening.activations.is_empty() {
        let why =
            "only exact engines commit to states, and the receipt names another to be judged with tolerance";
        return Err(Verdict::new(Word::Refuted, why));
    }
    let activations = if exact { opening.activations.clone() } else { Vec::new() };
    let constraint = order::constraint(engine, &opening.input, opening.constraint.as_ref())
        .map_err(|error| Verdict::new(Word::Unverifiable, error.to_string()))?;
    let sampling = order::sampling(&receipt.sampling);
    Ok(Claim { prompt, answer, sampling, finish, activations, constraint })
}

/// The text that was delivered must be the text of the tokens: ids alone could be right under a forged text.
fn check_text(receipt: &Receipt, opening: &Opening, engine: &Arc<dyn Engine>) -> Result<(), Verdict> {
    let mut detokenizer = Detokenizer::new(Arc::clone(engine.vocabulary()));
    let mut stops = StopFilter::new(&receipt.sampling.stop);
    let mut text = String::new();
    for id in opening.output.iter().filter_map(|token| token.id) {
        text += &stops.push(&detokenizer.push(id));
    }
    if !stops.stopped() {
        text += &stops.push(&detokenizer.finish());
        text += &stops.finish();
    }
    let delivered: String = opening.output.iter().map(|token| token.text.as_str()).collect();
    if text == delivered {
        Ok(())
    } else {
        Err(Verdict::new(Word::Refuted, "the text that was delivered is not the text of the tokens"))
    }
}

fn run(
    engine: &dyn Engine,
    claim: &Claim,
    progress: &mut impl FnMut(u32, u32),
) -> Result<Replay, GenerateError> {
    let mut found = Replay::default();
    for step in engine.replay(claim)? {
        match step? {
            ReplayStep::Checked { done, of } => progress(done, of),
            ReplayStep::Finished(replay) => found = replay,
        }
    }
    Ok(found)
}

/// Whether the answer can be judged bit by bit: it was made on the exact profile that replays it. A receipt says itself
/// what it was made on; whoever lies about that to be judged with tolerance is judged by the margins.
fn is_exact(receipt: &Receipt, engine: &dyn Engine) -> bool {
    engine.is_exact() && receipt.engine.as_deref() == Some(engine.profile())
}

/// Every token, the ending and every commitment are what this machine computes, or the answer is not this model's.
fn judge_exactly(profile: &str, replay: &Replay, claim: &Claim) -> Verdict {
    let Replay { agree, of, .. } = *replay;
    let (segments, differ) = (claim.activations.len(), of - agree);
    let segment = replay.first_segment.map(|segment| segment * SEGMENT as u32);
    let first = replay.first.or(segment);
    let why = match (first, replay.first, replay.finish_agrees) {
        (None, _, Some(false)) => format!("the answer does not end where the model ends it, on {profile}"),
        (None, ..) if segments > 0 => {
            format!("every token and the states behind {segments} segments were computed again, on {profile}")
        }
        (None, ..) => format!("every token was drawn again, on {profile}"),
        (Some(at), Some(_), _) => {
            format!(
                "{differ} of {of} tokens differ, the first at position {at}; {profile} leaves no room for it"
            )
        }
        (Some(at), None, _) => {
            format!(
                "every token was drawn again, but what was committed to from position {at} on is not what {profile} computes"
            )
        }
    };
    let verdict = if replay.exact() { Word::Exact } else { Word::Refuted };
    Verdict { verdict, agree, of, first, why }
}

/// Other arithmetic, other bits: what differs is weighed by the margins.
fn judge_tolerantly(receipt: &Receipt, profile: &str, replay: &Replay) -> Verdict {
    let Replay { agree, of, first, worst_margin: worst, mean_margin: mean, .. } = *replay;
    let differ = of - agree;
    let tolerable = differ * CONSISTENT_SHARE <= of && worst <= CONSISTENT_MARGIN;
    let theirs = receipt.engine.as_deref().unwrap_or("unknown");
    let engines =
        if theirs == profile { format!("on {profile}") } else { format!("{theirs} replayed on {profile}") };
    let margins = || {
        format!(
            "{differ} of {of} tokens differ, by {worst:.3} logit at most and {mean:.4} over all, {engines}"
        )
    };
    let ends = replay.finish_agrees != Some(false);
    let (verdict, why) = match (replay.exact(), tolerable) {
        (true, _) => (Word::Exact, format!("every token was drawn again, {engines}")),
        (false, true) => (Word::Consistent, margins()),
        (false, false) if !ends && differ == 0 => {
            (Word::Refuted, format!("the answer does not end where the model ends it, {engines}"))
        }
        (false, false) => (Word::Refuted, margins()),
    };
    Verdict { verdict, agree, of, first, why }
}

#[cfg(test)]
mod tests;
