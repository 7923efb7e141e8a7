//! Were these the numbers? A receipt of a scoring, computed again.
//!
//! On an exact profile the whole answer is one text that every peer writes alike, piece for piece: it is that, or
//! `refuted`. Elsewhere the tokens must be the same, and the log-probabilities near: `consistent` up to
//! [`TOLERANCE`].

use inference::{Engine, GenerateError, Text};
use protocol::{Finish, Opening, Receipt, Scores, Token};

use super::{Verdict, Word, is_exact};
use crate::agents::model::order;

/// How far two log-probabilities of one token may be apart; the largest seen between honest machines is 0.33.
const TOLERANCE: f32 = 0.5;

/// Compares with what this machine computes of the prompt's tokens.
pub(super) fn replay(receipt: &Receipt, opening: &Opening, engine: &dyn Engine, tokens: Vec<u32>) -> Verdict {
    let refuted = |why: &str| Verdict::new(Word::Refuted, why);
    if receipt.finish != Finish::EndOfText || opening.output.iter().any(|token| token.id.is_some()) {
        return refuted("a scoring ends by itself and has no tokens of its own");
    }
    let ours = match scores(engine, tokens, receipt) {
        Ok(ours) => ours,
        Err(error) => return Verdict::new(Word::Unverifiable, format!("the replay failed: {error}")),
    };
    let of = count(ours.tokens.len());
    if ours.pieces(&receipt.sampling).is_ok_and(|pieces| pieces == opening.output) {
        let why = format!("every number was computed again, on {}", engine.profile());
        return Verdict { verdict: Word::Exact, agree: of, of, first: None, why };
    }
    let text: String = opening.output.iter().map(|Token { text, .. }| text.as_str()).collect();
    let Some(theirs) = Scores::parse(&text) else { return refuted("the answer is no list of scores") };
    if theirs.tokens != ours.tokens || theirs.texts != ours.texts {
        return refuted("the scores are of other tokens than the input has");
    }
    compared(&theirs, &ours, is_exact(receipt, engine))
}

fn scores(engine: &dyn Engine, tokens: Vec<u32>, receipt: &Receipt) -> Result<Scores, GenerateError> {
    let text = Text { tokens, top: usize::from(receipt.sampling.logprobs.unwrap_or(0)) };
    let found = engine.score(&text)?.complete()?;
    Ok(order::scores(engine.vocabulary(), &text.tokens, &found))
}

fn compared(theirs: &Scores, ours: &Scores, exact: bool) -> Verdict {
    let apart = theirs.logprobs.iter().zip(&ours.logprobs).map(|(theirs, ours)| match (theirs, ours) {
        (Some(theirs), Some(ours)) => (theirs - ours).abs(),
        (None, None) => 0.0,
        _ => f32::INFINITY,
    });
    let apart: Vec<f32> = apart.collect();
    let allowed = if exact { 0.0 } else { TOLERANCE };
    let far = |apart: &f32| apart.is_nan() || *apart > allowed;
    let differ = apart.iter().filter(|apart| far(apart)).count();
    let most = apart.iter().copied().fold(0.0, f32::max);
    let why = format!("{differ} of {} numbers differ by more than {allowed}, {most} at most", apart.len());
    let verdict = if exact || differ > 0 { Word::Refuted } else { Word::Consistent };
    let first = apart.iter().position(far).map(count);
    Verdict { verdict, agree: count(apart.len() - differ), of: count(apart.len()), first, why }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
