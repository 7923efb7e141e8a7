//! Honest answers agree everywhere; every kind of forgery shows where it is.

mod guided;

use super::*;
use crate::engine::{Engine, Request};
use crate::generation::Step;
use crate::tiny::write_tiny;

fn tiny() -> Arc<dyn Engine> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write_tiny(&path, 3).unwrap();
    crate::load(&path).unwrap()
}

/// An honest claim.
fn claim(model: &Arc<dyn Engine>, sampling: Sampling) -> Claim {
    let prompt = vec![40, 41, 42, 43];
    let mut claim = Claim {
        prompt: prompt.clone(),
        answer: Vec::new(),
        sampling: sampling.clone(),
        finish: None,
        activations: Vec::new(),
        constraint: None,
    };
    for step in model.generate(&Request::new(prompt, sampling)).unwrap() {
        match step.unwrap() {
            Step::Token { id, activations, .. } => {
                claim.answer.push(id);
                claim.activations.extend(activations);
            }
            Step::Finished { reason, .. } => claim.finish = Some(reason),
            Step::Prefilled { .. } => {}
        }
    }
    claim
}

fn sampling(seed: u64, max_tokens: u32) -> Sampling {
    Sampling { seed, max_tokens, temperature: 1.0, top_p: 1.0, ..Sampling::default() }
}

fn replay(model: &Arc<dyn Engine>, claim: &Claim) -> Replay {
    model.replay(claim).unwrap().complete().unwrap()
}

/// The first honest claim that ends as asked for.
fn ending(model: &Arc<dyn Engine>, reason: FinishReason, stop: &[&str]) -> Claim {
    let stop: Vec<_> = stop.iter().map(|text| (*text).to_owned()).collect();
    let claims = (0..2_000).map(|seed| claim(model, Sampling { stop: stop.clone(), ..sampling(seed, 24) }));
    let mut fit = claims.filter(|claim| claim.finish == Some(reason) && claim.answer.len() > 2);
    fit.next().expect("one of two thousand seeds ends like this")
}

#[test]
fn every_honest_ending_is_exact() {
    let model = tiny();
    for (reason, stop) in [
        (FinishReason::EndOfText, &[][..]),
        (FinishReason::Length, &[]),
        (FinishReason::Stop, &["a", "b", "th"]),
    ] {
        let claim = ending(&model, reason, stop);
        let found = replay(&model, &claim);
        assert!(found.exact() && found.worst_margin == 0.0, "{reason:?}: {found:?}");
        assert_eq!(found.finish_agrees, Some(true));
    }
}

#[test]
fn who_is_set_back_does_not_judge_twice() {
    let model = tiny();
    let claim = claim(&model, sampling(5, 24));
    let mut replaying = model.replay(&claim).unwrap();
    let read = replaying.next().unwrap().unwrap();
    assert!(matches!(read, ReplayStep::Checked { done, .. } if done > 4), "a token was judged: {read:?}");
    replaying.reading_mut().adopt(model.sequence(), 0);
    assert!(replaying.complete().unwrap().exact());
}

#[test]
fn penalties_and_filters_replay_exactly() {
    let model = tiny();
    let sampling = Sampling {
        temperature: 0.8,
        top_p: 0.9,
        top_k: 50,
        min_p: 0.01,
        repeat_penalty: 1.2,
        frequency_penalty: 0.3,
        presence_penalty: 0.3,
        choice: 2,
        ..sampling(4, 20)
    };
    assert!(replay(&model, &claim(&model, sampling)).exact());
}

#[test]
fn one_changed_token_is_found_where_it_is() {
    let model = tiny();
    let mut claim = ending(&model, FinishReason::Length, &[]);
    claim.answer[5] = (claim.answer[5] + 1).max(3) % 260;
    let found = replay(&model, &claim);
    assert_eq!(found.first, Some(5));
    assert!(found.agree < found.of && found.worst_margin > 0.0);
    assert_eq!(found.differences[0].claimed, claim.answer[5]);
}

#[test]
fn a_false_ending_is_found() {
    let model = tiny();
    let honest = ending(&model, FinishReason::EndOfText, &[]);
    for reason in [FinishReason::Length, FinishReason::Stop] {
        let found = replay(&model, &Claim { finish: Some(reason), ..honest.clone() });
        assert_eq!((found.finish_agrees, found.worst_margin), (Some(false), f32::INFINITY));
    }
    // Broken off, and sold as complete.
    let mut short = ending(&model, FinishReason::Length, &[]);
    short.answer.truncate(10);
    assert_eq!(replay(&model, &short).finish_agrees, Some(false));
    let early = Claim { finish: Some(FinishReason::EndOfText), ..short.clone() };
    let found = replay(&model, &early);
    assert!(found.finish_agrees == Some(false) && found.worst_margin > 0.0);
    assert!(replay(&model, &Claim { finish: None, ..short }).exact(), "nothing was claimed about its end");
}

#[test]
fn an_answer_past_its_stop_text_is_found() {
    let model = tiny();
    let stopped = ending(&model, FinishReason::Stop, &["a", "b", "th"]);
    let unstopped = claim(&model, Sampling { stop: Vec::new(), ..stopped.sampling.clone() });
    assert!(unstopped.answer.len() > stopped.answer.len());
    let longer = Claim { sampling: stopped.sampling, ..unstopped };
    assert_eq!(replay(&model, &longer).finish_agrees, Some(false));
}

#[test]
fn an_answer_past_its_end_is_found() {
    let model = tiny();
    let mut honest = ending(&model, FinishReason::EndOfText, &[]);
    honest.answer.push(2);
    let found = replay(&model, &honest);
    assert_eq!(found.worst_margin, f32::INFINITY);
    assert!(!found.exact());
}

#[test]
fn what_no_model_can_check_is_refused() {
    let model = tiny();
    let unknown = Claim {
        prompt: vec![5],
        answer: vec![9_999],
        sampling: sampling(1, 4),
        finish: None,
        activations: Vec::new(),
        constraint: None,
    };
    assert!(matches!(model.replay(&unknown), Err(GenerateError::Prompt(_))));
    let empty = Claim { prompt: Vec::new(), answer: vec![5], ..unknown.clone() };
    assert!(matches!(model.replay(&empty), Err(GenerateError::Prompt(_))));
    let nothing = Claim { answer: Vec::new(), ..unknown };
    assert!(replay(&model, &nothing).exact());
}

#[test]
fn progress_reaches_its_end() {
    let model = tiny();
    let claim = claim(&model, sampling(1, 6));
    let mut last = (0, 1);
    for step in model.replay(&claim).unwrap() {
        if let ReplayStep::Checked { done, of } = step.unwrap() {
            assert!(done > last.0);
            last = (done, of);
        }
    }
    assert_eq!(last.0, last.1);
}

#[test]
fn commitments_are_checked_segment_by_segment() {
    let model = tiny();
    let seeds = (0..500).map(|seed| claim(&model, sampling(seed, 100)));
    let honest = seeds.into_iter().find(|claim| claim.answer.len() > 80).expect("some answer is long");
    assert_eq!(honest.activations.len(), honest.answer.len() / 32);
    assert!(replay(&model, &honest).exact());

    let mut forged = honest.clone();
    forged.activations[1] = honest.activations[0];
    let found = replay(&model, &forged);
    assert!(!found.exact() && found.agree == found.of, "the tokens are right, the states are not");
    assert_eq!(found.first_segment, Some(1));

    let mut more = honest.clone();
    more.activations.push(honest.activations[0]);
    assert_eq!(replay(&model, &more).first_segment, Some(honest.activations.len() as u32));
    let mut fewer = honest.clone();
    fewer.activations.pop();
    assert_eq!(replay(&model, &fewer).first_segment, Some(fewer.activations.len() as u32));
    assert!(replay(&model, &Claim { activations: Vec::new(), ..honest }).exact(), "nothing was claimed");
}
