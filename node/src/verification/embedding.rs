//! Was this the vector? A receipt of an embedder, computed again.
//!
//! Two honest machines agree on a vector but for its last digits, so the verdict is by the largest difference between
//! two numbers: `consistent` up to 0.001, else `refuted`. It is not `exact` where every number is equal: that would promise
//! what another machine cannot keep. Only between two exact engines of one profile every bit has to be the same, and the
//! verdict is `exact` or `refuted`. The form of the answer is checked, too, so that no padding can be put on the bill.

use inference::embedding::Embedding;
use protocol::receipt::prompt_digest;
use protocol::{Finish, Input, JobError, Opening, Receipt, Token};

use super::{Verdict, Word, replayable};
use crate::agents::embedder::{Source, pieces};
use crate::receipts::ReceiptFile;

/// How far two numbers at one place of two vectors may be apart. Between kernels of single precision a millionth is
/// usual; vectors of different texts are apart by some hundredths.
const TOLERANCE: f32 = 1e-3;
/// Most bytes for a number and its comma: the shortest text of any `f32` fits.
const NUMBER: usize = 16;

/// Computes the vector again.
pub fn replay(file: &ReceiptFile, source: Source<'_>) -> Verdict {
    let (receipt, opening, model) = match replayable(file) {
        Ok(parts) => parts,
        Err(verdict) => return verdict,
    };
    if source.digest() != model {
        return Verdict::new(Word::Unverifiable, format!("the model at hand is not {model}"));
    }
    if !matches!(&opening.input, Input::Text(_) | Input::Tokens(_)) {
        return refuted("an embedder takes texts and token ids only, and the input is neither");
    }
    let ours = match source.embed(&opening.input) {
        Ok(embedding) => embedding,
        Err(error @ JobError::Invalid { .. }) => return refuted(&error.to_string()),
        Err(error) => return Verdict::new(Word::Unverifiable, format!("the replay failed: {error}")),
    };
    match checked(receipt, opening, &ours) {
        Ok(theirs) if source.is_exact() && receipt.engine.as_deref() == Some(source.profile()) => {
            equal(&theirs, &read_back(&ours.vector), source.profile())
        }
        Ok(theirs) => compared(receipt, &theirs, (&ours.vector, source.profile())),
        Err(why) => refuted(why),
    }
}

/// The vector that was delivered, if everything about it but its numbers is right.
fn checked(receipt: &Receipt, opening: &Opening, ours: &Embedding) -> Result<Vec<f32>, &'static str> {
    let read = (Some(prompt_digest(&ours.tokens)), ours.tokens.len() as u64);
    if read != (receipt.prompt, u64::from(receipt.usage.prompt_tokens)) || receipt.template_time != 0 {
        return Err("the provider read other tokens than the text has");
    }
    let answer: String = opening.output.iter().map(|token| token.text.as_str()).collect();
    let plain = |bytes: &str| bytes.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain(&answer) || answer.len() > 2 + NUMBER * ours.vector.len() {
        return Err("the answer is no vector as it has to be written");
    }
    let cut = pieces(&answer).into_iter().map(|text| Token { id: None, text });
    if !cut.eq(opening.output.iter().cloned()) || receipt.finish != Finish::EndOfText {
        return Err("the answer does not come in the pieces in which it has to");
    }
    let theirs: Vec<f32> = serde_json::from_str(&answer).map_err(|_| "the answer is no list of numbers")?;
    if theirs.len() != ours.vector.len() {
        return Err("the vector has another length than the model's");
    }
    Ok(theirs)
}

/// A vector as it comes out of the text in which it travels: reading decimals may round, so both are read alike.
fn read_back(vector: &[f32]) -> Vec<f32> {
    let text = serde_json::to_string(vector).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Between exact engines there is no rounding to allow for.
fn equal(theirs: &[f32], ours: &[f32], profile: &str) -> Verdict {
    let differs = |(theirs, ours): (&f32, &f32)| theirs.to_bits() != ours.to_bits();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let first = theirs.iter().zip(ours).position(differs).map(count);
    let differ = theirs.iter().zip(ours).filter(|pair| differs(*pair)).count();
    let (verdict, why) = match first {
        None => (Word::Exact, format!("every number of the vector was computed again, on {profile}")),
        Some(at) => (
            Word::Refuted,
            format!(
                "{differ} numbers of the vector differ, the first at {at}; {profile} leaves no room for it"
            ),
        ),
    };
    Verdict { verdict, agree: count(ours.len() - differ), of: count(ours.len()), first, why }
}

fn compared(receipt: &Receipt, theirs: &[f32], (ours, profile): (&[f32], &str)) -> Verdict {
    let apart: Vec<f32> = ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs()).collect();
    // What is no number is not close to anything.
    let far = |apart: &f32| apart.is_nan() || *apart > TOLERANCE;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let first = apart.iter().position(far).map(count);
    let differ = apart.iter().filter(|apart| far(apart)).count();
    let most = apart.iter().copied().fold(0.0, f32::max);
    let engine = receipt.engine.as_deref().unwrap_or("unknown");
    let why = format!(
        "the vector was computed again: its numbers differ by {most:.1e} at most (allowed is {TOLERANCE:.0e}), the cosine is {:.6}, {engine} replayed on {profile}",
        cosine(ours, theirs)
    );
    let verdict = if first.is_none() { Word::Consistent } else { Word::Refuted };
    Verdict { verdict, agree: count(apart.len() - differ), of: count(apart.len()), first, why }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn refuted(why: &str) -> Verdict {
    Verdict::new(Word::Refuted, why)
}

#[cfg(test)]
mod tests {
    use crypto::{Digest, Network, SecretKey, Signed, Transcript};
    use protocol::job::Salt;
    use protocol::{Acknowledgement, Capability, Credits, JobId, JobKind, Price, Sampling, Timestamp, Usage};
    use tempfile::TempDir;

    use inference::Embedder;

    use super::*;

    const TEXT: &str = "an otter";

    fn embedder() -> (TempDir, Embedder) {
        let folder = tempfile::tempdir().unwrap();
        inference::embedding::tiny::write_tiny(folder.path(), 7).unwrap();
        let embedder = Embedder::load(folder.path()).unwrap();
        (folder, embedder)
    }

    /// The receipt of an honest provider, bent.
    fn file(embedder: &Embedder, bend: impl Fn(&mut Receipt, &mut Opening)) -> ReceiptFile {
        let embedding = embedder.embed(&[TEXT]).unwrap().remove(0);
        let answer = serde_json::to_string(&embedding.vector).unwrap();
        let output = pieces(&answer).into_iter().map(|text| Token { id: None, text }).collect();
        let (network, key, nothing) =
            (Network::default(), SecretKey::from_seed(&[2; 32]), Digest::of("t", b""));
        let input = Input::Text(TEXT.to_owned());
        let mut opening =
            Opening { input, salt: Salt([0; 16]), output, activations: Vec::new(), constraint: None };
        let usage = Usage { prompt_tokens: embedding.tokens.len() as u32, completion_tokens: 1 };
        let mut receipt = Receipt {
            network: network.clone(),
            job: JobId([1; 16]),
            parent: None,
            kind: JobKind::Embed,
            requester: key.peer_id(),
            order: nothing,
            agent: "a".to_owned(),
            capability: Capability::text_embedding(),
            model: Some(embedder.card().digest),
            engine: Some("theirs".to_owned()),
            input: nothing,
            prompt: Some(prompt_digest(&embedding.tokens)),
            template_time: 0,
            sampling: Sampling::default(),
            output: Transcript::new(b"").commitment(),
            segments: Vec::new(),
            finish: Finish::EndOfText,
            usage,
            price: Price::default(),
            cost: Credits::ZERO,
            started: Timestamp(0),
            finished: Timestamp(0),
            constraint: None,
            continues: None,
            children: Vec::new(),
        };
        bend(&mut receipt, &mut opening);
        let receipt = Signed::sign(&network, &key, receipt);
        let acknowledgement = Signed::sign(&network, &key, Acknowledgement { receipt: receipt.digest() });
        ReceiptFile { network, receipt, acknowledgement, opening: Some(opening) }
    }

    /// Writes the answer anew, from its numbers.
    fn with_numbers(opening: &mut Opening, change: impl Fn(&mut Vec<f32>)) {
        let mut numbers: Vec<f32> = serde_json::from_str(&opening.output[0].text).unwrap();
        change(&mut numbers);
        opening.output[0].text = serde_json::to_string(&numbers).unwrap();
    }

    #[test]
    fn an_honest_vector_is_consistent_and_never_exact() {
        let (_folder, embedder) = embedder();
        let verdict = replay(&file(&embedder, |_, _| {}), Source::Encoder(&embedder));
        assert_eq!(
            (verdict.verdict, verdict.agree, verdict.of, verdict.first),
            (Word::Consistent, 16, 16, None)
        );
        assert!(verdict.why.contains("cosine is 1.000000"), "{}", verdict.why);
        let rounded = |_: &mut Receipt, opening: &mut Opening| {
            with_numbers(opening, |numbers| numbers.iter_mut().for_each(|x| *x += 0.9 * TOLERANCE));
        };
        assert_eq!(replay(&file(&embedder, rounded), Source::Encoder(&embedder)).verdict, Word::Consistent);
    }

    #[test]
    fn another_vector_is_refuted_where_it_differs() {
        let (_folder, embedder) = embedder();
        let off = |at: usize, by: f32| {
            let bend = move |_: &mut Receipt, opening: &mut Opening| with_numbers(opening, |x| x[at] += by);
            replay(&file(&embedder, bend), Source::Encoder(&embedder))
        };
        let verdict = off(5, 2.0 * TOLERANCE);
        assert_eq!((verdict.verdict, verdict.agree, verdict.first), (Word::Refuted, 15, Some(5)));
        assert_eq!(off(0, -1.0).verdict, Word::Refuted);
        let doubled = |_: &mut Receipt, opening: &mut Opening| {
            with_numbers(opening, |numbers| numbers.iter_mut().for_each(|x| *x *= 2.0));
        };
        assert_eq!(
            replay(&file(&embedder, doubled), Source::Encoder(&embedder)).verdict,
            Word::Refuted,
            "of cosine 1"
        );
    }

    #[test]
    fn an_answer_of_another_form_is_refuted() {
        let (_folder, embedder) = embedder();
        let bends: [fn(&mut Receipt, &mut Opening); 9] = [
            |_, opening| with_numbers(opening, |numbers| numbers.truncate(15)),
            |_, opening| opening.output[0].text += " ",
            |_, opening| {
                opening.output[0].text = opening.output[0].text.replace(',', &format!("{},", "0".repeat(99)))
            },
            |_, opening| opening.output[0].text = "[\"x\"]".to_owned(),
            |_, opening| opening.output[0].id = Some(1),
            |_, opening| opening.output.push(Token { id: None, text: String::new() }),
            |_, opening| opening.input = Input::Tokens(vec![1]),
            |receipt, _| receipt.usage.prompt_tokens += 1,
            |receipt, _| receipt.prompt = Some(prompt_digest(&[2, 3])),
        ];
        for (number, bend) in bends.into_iter().enumerate() {
            let verdict = replay(&file(&embedder, bend), Source::Encoder(&embedder));
            assert_eq!(verdict.verdict, Word::Refuted, "{number}: {}", verdict.why);
        }
    }

    #[test]
    fn what_cannot_be_computed_again_is_unverifiable() {
        let (_folder, embedder) = embedder();
        let other = |receipt: &mut Receipt, _: &mut Opening| receipt.model = Some(Digest::of("t", b"other"));
        assert_eq!(replay(&file(&embedder, other), Source::Encoder(&embedder)).verdict, Word::Unverifiable);
        let closed = ReceiptFile { opening: None, ..file(&embedder, |_, _| {}) };
        assert_eq!(replay(&closed, Source::Encoder(&embedder)).verdict, Word::Unverifiable);
    }
}
