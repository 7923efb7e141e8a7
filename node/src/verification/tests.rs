//! Receipts of a tiny model, honest and bent, and what a replay makes of them.

use crypto::{Digest, Network, SecretKey, Signed, Transcript};
use inference::{EngineChoice, Loading, Request, Step};
use protocol::job::Salt;
use protocol::receipt::{self, Segment, SignedStretch};
use protocol::{
    Acknowledgement, Capability, Credits, Input, JobId, JobKind, Price, Sampling, Timestamp, Token, Usage,
};

use super::*;

/// Two full segments and a rest.
const TOKENS: u32 = 70;

fn engine(choice: EngineChoice) -> Arc<dyn Engine> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    inference::tiny::write_tiny(&path, 3).unwrap();
    inference::load_with(&path, Loading { engine: choice, ..Loading::default() }).unwrap()
}

/// What a provider says of an answer, before it signs.
struct Answer {
    /// What it says it ran on.
    engine: String,
    output: Vec<Token>,
    activations: Vec<Digest>,
    finish: Finish,
    prompt: Vec<u32>,
}

fn input() -> Input {
    Input::Text("an otter".to_owned())
}

fn order_sampling() -> Sampling {
    Sampling { max_tokens: TOKENS, seed: 5, ..Sampling::default() }
}

/// An honest answer of an engine.
fn answer(engine: &dyn Engine) -> Answer {
    let prompt = engine.prompt(&order::prompt(&input(), 0).unwrap()).unwrap();
    let (mut output, mut activations, mut finish) = (Vec::new(), Vec::new(), Finish::Length);
    let request = Request::new(prompt.clone(), order::sampling(&order_sampling()));
    for step in engine.generate(&request).unwrap() {
        match step.unwrap() {
            Step::Token { id, text, activations: committed, .. } => {
                output.push(Token { id: Some(id), text });
                activations.extend(committed);
            }
            Step::Finished { reason, rest, .. } => {
                finish = order::finish(reason);
                output.extend((!rest.is_empty()).then_some(Token { id: None, text: rest }));
            }
            Step::Prefilled { .. } => {}
        }
    }
    assert!(output.len() > 40, "the seed gives a long answer: {}", output.len());
    Answer { engine: engine.profile().to_owned(), output, activations, finish, prompt }
}

/// The receipt file of an answer: whatever it says, every signature and commitment in it holds.
fn file(engine: &dyn Engine, answer: Answer) -> ReceiptFile {
    let Answer { engine: profile, output, activations, finish, prompt } = answer;
    let (network, key) = (Network::default(), SecretKey::from_seed(&[2; 32]));
    let (job, order, salt) = (JobId([1; 16]), Digest::of("t", b"order"), Salt([0; 16]));
    let mut transcript = Transcript::new(&job.0);
    let (mut segments, mut committed) = (Vec::new(), activations.iter().copied());
    for token in &output {
        let commitment = transcript.push(token.id, &token.text);
        let end = transcript.len();
        if end.is_multiple_of(receipt::SEGMENT) {
            let activations = token.id.and_then(|_| committed.next());
            let segment = Segment { job, order, end, commitment, activations }.name(key.peer_id());
            segments.push(SignedStretch { provider: key.peer_id(), order, end, segment });
        }
    }
    let usage = Usage { prompt_tokens: prompt.len() as u32, completion_tokens: output.len() as u32 };
    let receipt = Receipt {
        network: network.clone(),
        job,
        parent: None,
        kind: JobKind::Generate,
        requester: key.peer_id(),
        order,
        agent: "a".to_owned(),
        capability: Capability::text_generation(),
        model: Some(engine.card().digest),
        engine: Some(profile),
        input: input().commitment(&salt),
        prompt: Some(prompt_digest(&prompt)),
        template_time: 0,
        sampling: order_sampling(),
        output: transcript.commitment(),
        segments,
        finish,
        usage,
        price: Price::default(),
        cost: Credits::ZERO,
        started: Timestamp(0),
        finished: Timestamp(0),
        constraint: None,
        continues: None,
        children: Vec::new(),
    };
    let receipt = Signed::sign(&network, &key, receipt);
    let acknowledgement = Signed::sign(&network, &key, Acknowledgement { receipt: receipt.digest() });
    let opening = Some(Opening { input: input(), salt, output, activations, constraint: None });
    let file = ReceiptFile { network, receipt, acknowledgement, opening };
    // A lie that the file's own checks see is none that a replay must see.
    ReceiptFile::parse(&file.render().unwrap()).unwrap()
}

/// The verdict on an engine's answer after `bend` has had its way with it.
fn verdict(engine: &Arc<dyn Engine>, bend: impl Fn(&mut Answer)) -> Verdict {
    let mut answer = answer(engine.as_ref());
    bend(&mut answer);
    replay(&file(engine.as_ref(), answer), engine, |_, _| ())
}

/// Changes the answer's tokens, and their texts with them: what is delivered is still the text of the tokens.
fn retell(engine: &dyn Engine, answer: &mut Answer, change: impl FnOnce(&mut Vec<u32>)) {
    let mut ids: Vec<u32> = answer.output.iter().filter_map(|token| token.id).collect();
    change(&mut ids);
    let mut characters = Detokenizer::new(Arc::clone(engine.vocabulary()));
    answer.output = ids.into_iter().map(|id| Token { id: Some(id), text: characters.push(id) }).collect();
    let rest = characters.finish();
    answer.output.extend((!rest.is_empty()).then_some(Token { id: None, text: rest }));
}

#[test]
fn a_segment_is_as_long_on_the_wire_as_in_the_engine() {
    assert_eq!(receipt::SEGMENT, SEGMENT as u64);
}

#[test]
fn an_honest_answer_of_the_exact_engine_is_exact_with_its_commitments_and_without() {
    let engine = engine(EngineChoice::Exact);
    let honest = verdict(&engine, |answer| assert!(!answer.activations.is_empty()));
    assert_eq!((honest.verdict, honest.first), (Word::Exact, None), "{honest:?}");
    assert!(honest.why.contains("segments") && honest.agree == honest.of, "{honest:?}");
    let silent = verdict(&engine, |answer| answer.activations.clear());
    assert_eq!(silent.verdict, Word::Exact, "{silent:?}");
    assert!(!silent.why.contains("segments"), "{silent:?}");
}

#[test]
fn a_token_that_was_exchanged_is_refuted_at_its_position_however_near() {
    let engine = engine(EngineChoice::Exact);
    let vocabulary = engine.vocabulary();
    let bent = verdict(&engine, |answer| {
        retell(engine.as_ref(), answer, |ids| {
            let others = (0..vocabulary.len() as u32).filter(|id| !vocabulary.is_end(*id));
            ids[35] = others.into_iter().find(|id| *id != ids[35]).unwrap();
        });
    });
    assert_eq!((bent.verdict, bent.first), (Word::Refuted, Some(35)), "{bent:?}");
    assert!(bent.why.contains("position 35"), "{bent:?}");
}

#[test]
fn a_commitment_to_other_states_is_refuted_at_its_segment() {
    let engine = engine(EngineChoice::Exact);
    let other = |answer: &mut Answer| answer.activations[1] = Digest::of("t", b"other");
    let bent = verdict(&engine, other);
    assert_eq!((bent.verdict, bent.first, bent.agree), (Word::Refuted, Some(32), bent.of), "{bent:?}");
    // On another profile the states say nothing.
    let elsewhere = verdict(&engine, |answer| {
        other(answer);
        answer.engine = "exact-0".to_owned();
    });
    assert_eq!(elsewhere.verdict, Word::Exact, "{elsewhere:?}");
    // Whoever commits and then names an engine that does not contradicts himself.
    let contradicted = verdict(&engine, |answer| answer.engine = "candle-1/x".to_owned());
    assert_eq!(contradicted.verdict, Word::Refuted, "{contradicted:?}");
}

#[test]
fn an_answer_that_is_broken_off_is_refuted() {
    let engine = engine(EngineChoice::Exact);
    let bent = verdict(&engine, |answer| {
        retell(engine.as_ref(), answer, |ids| ids.truncate(40));
        answer.activations.truncate(1);
    });
    assert_eq!((bent.verdict, bent.agree, bent.of), (Word::Refuted, 40, 40), "{bent:?}");
    assert!(bent.why.contains("does not end"), "{bent:?}");
}

#[test]
fn only_the_same_exact_profile_is_judged_without_tolerance() {
    let near = Replay { agree: 39, of: 40, first: Some(7), worst_margin: 0.1, ..Replay::default() };
    let replay = Replay { mean_margin: 0.0025, finish_agrees: Some(true), ..near };
    let (exact, candle) = (engine(EngineChoice::Exact), engine(EngineChoice::Candle));
    let made_on = |profile: &str| {
        let made = Answer { engine: profile.to_owned(), ..answer(exact.as_ref()) };
        file(exact.as_ref(), made).receipt.value().clone()
    };
    let (ours, theirs) = (made_on(exact.profile()), made_on(candle.profile()));
    assert!(is_exact(&ours, exact.as_ref()) && !is_exact(&theirs, exact.as_ref()));
    assert!(!is_exact(&ours, candle.as_ref()) && !is_exact(&theirs, candle.as_ref()));

    let tolerant = judge_tolerantly(&theirs, exact.profile(), &replay);
    assert_eq!((tolerant.verdict, tolerant.first), (Word::Consistent, Some(7)));
    assert!(tolerant.why.contains("0.100 logit") && tolerant.why.contains("0.0025"), "{tolerant:?}");
    let far = judge_tolerantly(&theirs, exact.profile(), &Replay { worst_margin: 0.6, ..replay.clone() });
    assert_eq!(far.verdict, Word::Refuted);
    let claim = Claim {
        prompt: Vec::new(),
        answer: Vec::new(),
        sampling: order::sampling(&order_sampling()),
        finish: None,
        activations: Vec::new(),
        constraint: None,
    };
    let strict = judge_exactly(exact.profile(), &replay, &claim);
    assert_eq!((strict.verdict, strict.first), (Word::Refuted, Some(7)));
}
