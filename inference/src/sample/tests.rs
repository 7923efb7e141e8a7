//! The pipeline against golden draws, and its chance against the softmax.

mod plain;

use super::*;
use proptest::prelude::*;

fn unfiltered() -> Sampling {
    Sampling { temperature: 1.0, top_p: 1.0, ..Sampling::default() }
}

fn greedy() -> Sampling {
    Sampling { temperature: 0.0, ..unfiltered() }
}

/// The tokens that survive the filters, by ascending id.
fn survivors(sampling: &Sampling, logits: &[f32]) -> Vec<u32> {
    let scores = Scores::new(sampling, logits, &[], &[]);
    let kept = Filters::of(sampling).map(|filters| filters.keep(&scores));
    kept.unwrap_or_else(|| scores.at_least(f64::NEG_INFINITY)).iter().map(|c| c.id).collect()
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
    for sampling in [greedy(), unfiltered(), Sampling { top_k: 2, top_p: 0.5, min_p: 0.5, ..unfiltered() }] {
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
    assert_eq!(survivors(&unfiltered(), &logits), [0, 1, 2, 3]);
    assert_eq!(survivors(&Sampling { top_k: 2, ..unfiltered() }, &logits), [1, 3]);
    assert_eq!(survivors(&Sampling { top_p: 0.65, ..unfiltered() }, &logits), [1, 3]);
    assert_eq!(survivors(&Sampling { top_p: 0.75, ..unfiltered() }, &logits), [0, 1, 3]);
    assert_eq!(survivors(&Sampling { top_p: 0.0, ..unfiltered() }, &logits), [1]);
    assert_eq!(survivors(&Sampling { min_p: 0.45, ..unfiltered() }, &logits), [0, 1, 3]);
    assert_eq!(survivors(&Sampling { min_p: 1.0, ..unfiltered() }, &logits), [1]);
    // Top-k comes first: of the two it leaves, the likelier has 4/7 of the probability.
    assert_eq!(survivors(&Sampling { top_k: 2, top_p: 0.55, ..unfiltered() }, &logits), [1]);
    // Ties at the edge go to the lower ids.
    assert_eq!(survivors(&Sampling { top_k: 3, ..unfiltered() }, &[0.0; 9]), [0, 1, 2]);
    assert_eq!(survivors(&Sampling { top_p: 0.25, ..unfiltered() }, &[0.0; 10]), [0, 1, 2]);
}

#[test]
fn penalties_do_what_they_say() {
    let scores = |sampling: &Sampling, prompt: &[u32], answer: &[u32]| -> Vec<f64> {
        let scores = Scores::new(sampling, &[2.0, -2.0, 1.0], prompt, answer);
        (0..3).map(|id| scores.get(id).unwrap()).collect()
    };
    let repeat = Sampling { repeat_penalty: 2.0, ..unfiltered() };
    assert_eq!(scores(&repeat, &[0], &[1, 1]), [1.0, -4.0, 1.0]);
    let mut long = vec![2];
    long.extend([0; REPEAT_WINDOW]);
    assert_eq!(scores(&repeat, &long, &[]), [1.0, -2.0, 1.0], "beyond the window nothing is remembered");
    let frequency = Sampling { frequency_penalty: 0.5, ..unfiltered() };
    assert_eq!(scores(&frequency, &[0, 0], &[2, 2, 77]), [2.0, -2.0, 0.0]);
    let presence = Sampling { presence_penalty: 0.5, ..unfiltered() };
    assert_eq!(scores(&presence, &[0], &[2, 2]), [2.0, -2.0, 0.5]);
}

#[test]
fn draws_follow_the_softmax() {
    let probabilities = [0.5, 0.25, 0.15, 0.07, 0.03];
    let logits: Vec<f32> = probabilities.iter().map(|p: &f64| p.ln() as f32).collect();
    let draws = 20_000;
    let mut counts = [0.0; 5];
    for seed in 0..draws {
        counts[Sampling { seed, ..unfiltered() }.choose(&logits, &[], &[]) as usize] += 1.0;
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
    let sampling = Sampling { temperature: 0.7, seed: 3, ..unfiltered() };
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
    let sampling = Sampling { top_k: 1, ..unfiltered() };
    for seed in 0..200 {
        let judgement = Sampling { seed, ..sampling.clone() }.judge(&[1.0, 0.0], &[], &[], 1);
        assert!(judgement.chosen == 0 && judgement.margin >= 1.0, "{judgement:?}");
    }
}

#[test]
fn parameters_out_of_range_are_named() {
    let bad = |change: fn(&mut Sampling)| {
        let mut sampling = unfiltered();
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

/// Logits as models have them: a bell with a few tokens far above it.
fn lifelike(vocabulary: usize, seed: u64) -> Vec<f32> {
    let mut noise = Noise::new(seed, 0, 0);
    let bell = |noise: &mut Noise, id| (0..4).map(|part| noise.gumbel(id * 4 + part)).sum::<f64>();
    let spread = 1.0 + seed as f64 % 3.0;
    (0..vocabulary as u32)
        .map(|id| (bell(&mut noise, id) * spread + 8.0 * noise.gumbel(id).max(2.0)) as f32)
        .collect()
}

/// Both ways, with whole judgements: of the drawn token and of another.
fn assert_as_defined(sampling: &Sampling, logits: &[f32], (prompt, answer): (&[u32], &[u32]), claimed: u32) {
    let defined = plain::judge(sampling, logits, (prompt, answer), claimed);
    assert_eq!(sampling.judge(logits, prompt, answer, claimed), defined, "{sampling:?}");
    let chosen = sampling.choose(logits, prompt, answer);
    assert_eq!(chosen, plain::choose(sampling, logits, prompt, answer), "{sampling:?}");
    assert_eq!(chosen, defined.chosen);
}

/// Whole vocabularies, where blocks, bounds and floors matter.
#[test]
fn what_is_done_is_what_is_defined_for_large_vocabularies() {
    for seed in 0..48 {
        let mut logits = lifelike(20_000 + 613 * seed as usize, seed);
        if seed % 4 == 3 {
            // As a grammar leaves them.
            (0..logits.len()).filter(|id| id % 700 != 5).for_each(|id| logits[id] = f32::NEG_INFINITY);
        }
        let answer: Vec<u32> = (0..200).map(|at| (at * at * 31) % 20_000).collect();
        for (top_k, top_p, min_p) in [
            (0, 0.95, 0.0),
            (0, 1.0, 0.0),
            (40, 0.9, 0.0),
            (900, 1.0, 0.01),
            (0, 1.0, 0.05),
            (0, 0.999_999_94, 0.0),
        ] {
            let temperature = [0.7, 1.0, 2.5, 0.1][seed as usize / 4 % 4];
            let repeat_penalty = [1.0, 1.1][seed as usize % 2];
            let sampling =
                Sampling { temperature, top_k, top_p, min_p, repeat_penalty, seed, ..Sampling::default() };
            let claimed = plain::choose(&greedy(), &logits, &[], &[]);
            assert_as_defined(&sampling, &logits, (&[1, 2, 3], &answer), claimed);
        }
    }
}

/// Numbers with ties, and what no model should give.
fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => (-60i8..60).prop_map(|l| f32::from(l) / 8.0),
        6 => -20.0f32..20.0,
        1 => prop::sample::select(vec![
            0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-40, 1e6, -1e6, 3e7,
        ]),
    ]
}

prop_compose! {
    fn sampling()(
        temperature in prop_oneof![Just(0.0f32), Just(0.7), Just(1.0), 0.005f32..10.0, Just(1e-40)],
        top_p in prop_oneof![Just(1.0f32), Just(0.95), Just(0.0), 0.0f32..1.0, Just(0.999_999_94)],
        top_k in prop_oneof![Just(0u32), 0u32..20, 0u32..700],
        min_p in prop_oneof![Just(0.0f32), Just(1.0), 0.0f32..0.3, Just(1e-42)],
        repeat_penalty in prop_oneof![Just(1.0f32), 0.1f32..10.0],
        frequency_penalty in prop_oneof![Just(0.0f32), -2.0f32..2.0],
        presence_penalty in prop_oneof![Just(0.0f32), -2.0f32..2.0],
        seed: u64,
    ) -> Sampling {
        Sampling {
            temperature, top_p, top_k, min_p, repeat_penalty, frequency_penalty, presence_penalty, seed,
            ..Sampling::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_done_is_what_is_defined(
        sampling in sampling(),
        logits in prop_oneof![
            prop::collection::vec(logit(), 0..700),
            prop::collection::vec(-20.0f32..20.0, 500..700),
            prop::collection::vec(prop::sample::select(vec![0.0f32, -0.0, 1.0]), 0..300),
        ],
        prompt in prop::collection::vec(0u32..800, 0..80),
        answer in prop::collection::vec(0u32..800, 0..80),
        claimed in 0u32..750,
    ) {
        prop_assert_eq!(sampling.validate(), Ok(()));
        assert_as_defined(&sampling, &logits, (&prompt, &answer), claimed);
    }
}

proptest! {
    #[test]
    fn the_drawn_token_is_judged_as_drawn(
        logits in prop::collection::vec(-9.0f32..9.0, 1..100),
        seed: u64,
        top_k in 0u32..50,
        temperature in prop_oneof![Just(0.0f32), 0.1f32..3.0],
    ) {
        let sampling = Sampling { seed, top_k, temperature, top_p: 0.9, ..unfiltered() };
        let chosen = sampling.choose(&logits, &[1, 2], &[3]);
        prop_assert_eq!(sampling.judge(&logits, &[1, 2], &[3], chosen), Judgement { chosen, margin: 0.0 });
    }
}
