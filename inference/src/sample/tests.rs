//! The pipeline against golden draws, and its chance against the softmax.

use super::*;
use proptest::prelude::*;

fn plain() -> Sampling {
    Sampling { temperature: 1.0, top_p: 1.0, ..Sampling::default() }
}

fn greedy() -> Sampling {
    Sampling { temperature: 0.0, ..plain() }
}

/// Steps 1 to 3.
fn candidates(sampling: &Sampling, logits: &[f32], prompt: &[u32], answer: &[u32]) -> Vec<Candidate> {
    let scores = sampling.scores(logits, prompt, answer);
    scores.into_iter().zip(0..).map(|(score, id)| Candidate { id, score }).collect()
}

/// The tokens that survive the filters, by ascending id.
fn survivors(sampling: &Sampling, logits: &[f32]) -> Vec<u32> {
    let mut kept = candidates(sampling, logits, &[], &[]);
    sampling.filter(&mut kept);
    let mut ids: Vec<_> = kept.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    ids
}

/// Step 7 without the short cut.
fn best_by_hand(sampling: &Sampling, logits: &[f32], answer: &[u32]) -> u32 {
    let mut kept = candidates(sampling, logits, &[], answer);
    sampling.filter(&mut kept);
    let mut noise = sampling.noise(answer);
    let noised = kept.iter().map(|c| Candidate { id: c.id, score: c.score + noise.gumbel(c.id) });
    noised.min_by(likelier).map_or(0, |c| c.id)
}

#[test]
fn a_small_pipeline_is_pinned() {
    let logits: Vec<f32> = (0..100).map(|v: u32| (v * 37 % 101) as f32 / 10.0).collect();
    let sampling = Sampling {
        temperature: 1.5,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.01,
        repeat_penalty: 1.3,
        frequency_penalty: 0.5,
        presence_penalty: 0.25,
        seed: 42,
        ..Sampling::default()
    };
    let mut answer = Vec::new();
    for _ in 0..12 {
        answer.push(sampling.choose(&logits, &[30, 60], &answer));
    }
    assert_eq!(answer, [30, 8, 49, 79, 27, 19, 57, 24, 49, 38, 68, 19]);
}

#[test]
fn greedy_takes_the_highest_and_of_equals_the_lowest_id() {
    assert_eq!(greedy().choose(&[1.0, 3.0, 3.0, 2.0], &[], &[]), 1);
    assert_eq!(greedy().choose(&[f32::NEG_INFINITY; 4], &[], &[]), 0);
}

#[test]
fn broken_logits_do_no_harm() {
    for sampling in [greedy(), plain(), Sampling { top_k: 2, top_p: 0.5, min_p: 0.5, ..plain() }] {
        for logits in [
            vec![],
            vec![f32::NAN; 5],
            vec![f32::NEG_INFINITY; 5],
            vec![f32::INFINITY; 5],
            vec![f32::NAN, 1.0, f32::INFINITY, f32::NEG_INFINITY],
        ] {
            let chosen = sampling.choose(&logits, &[9], &[1]);
            assert!((chosen as usize) < logits.len().max(1));
            assert_eq!(sampling.judge(&logits, &[9], &[1], chosen).chosen, chosen);
        }
    }
    assert_eq!(greedy().choose(&[f32::NAN, 1.0], &[], &[]), 1);
}

#[test]
fn filters_keep_what_they_say() {
    // Probabilities 0.4, 0.3, 0.2, 0.1.
    let logits: Vec<f32> = [0.2f32, 0.4, 0.1, 0.3].iter().map(|p| p.ln()).collect();
    assert_eq!(survivors(&plain(), &logits), [0, 1, 2, 3]);
    assert_eq!(survivors(&Sampling { top_k: 2, ..plain() }, &logits), [1, 3]);
    assert_eq!(survivors(&Sampling { top_p: 0.65, ..plain() }, &logits), [1, 3]);
    assert_eq!(survivors(&Sampling { top_p: 0.75, ..plain() }, &logits), [0, 1, 3]);
    assert_eq!(survivors(&Sampling { top_p: 0.0, ..plain() }, &logits), [1]);
    assert_eq!(survivors(&Sampling { min_p: 0.45, ..plain() }, &logits), [0, 1, 3]);
    assert_eq!(survivors(&Sampling { min_p: 1.0, ..plain() }, &logits), [1]);
    // Top-k comes first: of the two it leaves, the likelier has 4/7 of the probability.
    assert_eq!(survivors(&Sampling { top_k: 2, top_p: 0.55, ..plain() }, &logits), [1]);
    // Ties at the edge go to the lower ids.
    assert_eq!(survivors(&Sampling { top_k: 3, ..plain() }, &[0.0; 9]), [0, 1, 2]);
    assert_eq!(survivors(&Sampling { top_p: 0.25, ..plain() }, &[0.0; 10]), [0, 1, 2]);
}

#[test]
fn penalties_do_what_they_say() {
    let scores = |sampling: &Sampling, prompt: &[u32], answer: &[u32]| -> Vec<f64> {
        candidates(sampling, &[2.0, -2.0, 1.0], prompt, answer).iter().map(|c| c.score).collect()
    };
    let repeat = Sampling { repeat_penalty: 2.0, ..plain() };
    assert_eq!(scores(&repeat, &[0], &[1, 1]), [1.0, -4.0, 1.0]);
    let mut long = vec![2];
    long.extend([0; REPEAT_WINDOW]);
    assert_eq!(scores(&repeat, &long, &[]), [1.0, -2.0, 1.0], "beyond the window nothing is remembered");
    let frequency = Sampling { frequency_penalty: 0.5, ..plain() };
    assert_eq!(scores(&frequency, &[0, 0], &[2, 2, 77]), [2.0, -2.0, 0.0]);
    let presence = Sampling { presence_penalty: 0.5, ..plain() };
    assert_eq!(scores(&presence, &[0], &[2, 2]), [2.0, -2.0, 0.5]);
}

#[test]
fn draws_follow_the_softmax() {
    let probabilities = [0.5, 0.25, 0.15, 0.07, 0.03];
    let logits: Vec<f32> = probabilities.iter().map(|p: &f64| p.ln() as f32).collect();
    let draws = 20_000;
    let mut counts = [0.0; 5];
    for seed in 0..draws {
        counts[Sampling { seed, ..plain() }.choose(&logits, &[], &[]) as usize] += 1.0;
    }
    let chi_squared: f64 = probabilities
        .iter()
        .zip(counts)
        .map(|(p, found)| (found - p * draws as f64).powi(2) / (p * draws as f64))
        .sum();
    assert!(chi_squared < 18.5, "0.1 % of honest samplers exceed 18.5 with 4 degrees: {chi_squared}");
}

#[test]
fn a_margin_is_what_the_claim_lacks() {
    let logits = [5.0, 4.25, 1.0];
    assert_eq!(greedy().judge(&logits, &[], &[], 0), Judgement { chosen: 0, margin: 0.0 });
    assert_eq!(greedy().judge(&logits, &[], &[], 1), Judgement { chosen: 0, margin: 0.75 });
    assert_eq!(greedy().judge(&logits, &[], &[], 3).margin, f64::INFINITY);
    // Raised by its margin, and a trifle, the claimed token is drawn.
    let sampling = Sampling { temperature: 0.7, seed: 3, ..plain() };
    let chosen = sampling.choose(&logits, &[], &[]);
    for claimed in (0..3).filter(|&id| id != chosen) {
        let margin = sampling.judge(&logits, &[], &[], claimed).margin;
        let mut raised = logits;
        raised[claimed as usize] += margin as f32 + 1e-4;
        assert_eq!(sampling.choose(&raised, &[], &[]), claimed);
        raised[claimed as usize] -= 2e-4;
        assert_eq!(sampling.choose(&raised, &[], &[]), chosen);
    }
}

#[test]
fn a_token_that_a_filter_removed_lacks_at_least_its_way_back() {
    let sampling = Sampling { top_k: 1, ..plain() };
    for seed in 0..200 {
        let judgement = Sampling { seed, ..sampling.clone() }.judge(&[1.0, 0.0], &[], &[], 1);
        assert!(judgement.chosen == 0 && judgement.margin >= 1.0, "{judgement:?}");
    }
}

#[test]
fn parameters_out_of_range_are_named() {
    let bad = |change: fn(&mut Sampling)| {
        let mut sampling = plain();
        change(&mut sampling);
        sampling.validate().unwrap_err()
    };
    assert_eq!(bad(|s| s.max_tokens = 0), SamplingError::NoTokens);
    assert!(matches!(
        bad(|s| s.temperature = f32::NAN),
        SamplingError::OutOfRange { name: "temperature", .. }
    ));
    assert!(matches!(bad(|s| s.top_p = 1.5), SamplingError::OutOfRange { name: "top_p", .. }));
    assert!(matches!(bad(|s| s.repeat_penalty = 0.0), SamplingError::OutOfRange { .. }));
    assert!(matches!(bad(|s| s.stop = vec![String::new()]), SamplingError::StopLength { bytes: 0 }));
    assert!(matches!(bad(|s| s.stop = vec!["x".into(); 17]), SamplingError::TooManyStops { count: 17 }));
    assert_eq!(Sampling::default().validate(), Ok(()));
}

proptest! {
    #[test]
    fn the_short_cut_changes_nothing(
        logits in prop::collection::vec(-20.0f32..20.0, 1..400),
        seed: u64,
        temperature in 0.05f32..5.0,
    ) {
        let sampling = Sampling { seed, temperature, ..plain() };
        prop_assert_eq!(sampling.choose(&logits, &[], &[]), best_by_hand(&sampling, &logits, &[]));
    }

    #[test]
    fn the_nucleus_is_what_a_full_sort_gives(
        logits in prop::collection::vec((-60i8..60).prop_map(|l| f32::from(l) / 8.0), 1..600),
        top_p in 0.0f32..1.0,
    ) {
        let sampling = Sampling { top_p, ..plain() };
        let mut sorted = candidates(&sampling, &logits, &[], &[]);
        let top = logits.iter().copied().fold(f32::MIN, f32::max);
        let total: f64 = sorted.iter().map(|c| exp(c.score - f64::from(top))).sum();
        sorted.sort_by(likelier);
        let mut sum = 0.0;
        let mut expected: Vec<u32> = Vec::new();
        for c in &sorted {
            expected.push(c.id);
            sum += exp(c.score - f64::from(top));
            if sum >= f64::from(top_p) * total {
                break;
            }
        }
        expected.sort_unstable();
        prop_assert_eq!(survivors(&sampling, &logits), expected);
    }

    #[test]
    fn the_drawn_token_is_judged_as_drawn(
        logits in prop::collection::vec(-9.0f32..9.0, 1..100),
        seed: u64,
        top_k in 0u32..50,
        temperature in prop_oneof![Just(0.0f32), 0.1f32..3.0],
    ) {
        let sampling = Sampling { seed, top_k, temperature, top_p: 0.9, ..plain() };
        let chosen = sampling.choose(&logits, &[1, 2], &[3]);
        prop_assert_eq!(sampling.judge(&logits, &[1, 2], &[3], chosen), Judgement { chosen, margin: 0.0 });
    }
}
