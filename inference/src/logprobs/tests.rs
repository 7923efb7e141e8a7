//! Sums, golden values, ties, and logits that no model should give.

use super::*;
use proptest::prelude::*;

#[test]
fn golden_values() {
    let logits: Vec<f32> = (0..1000u32).map(|id| (id * 7919 % 1009) as f32 / 80.0).collect();
    let found = logprobs(&logits, 5, 3);
    assert_eq!(found, Logprobs { logprob: GOLDEN.0, top: GOLDEN.1.to_vec() });
    assert_eq!(logprobs(&logits, GOLDEN.1[1].0, 0), Logprobs { logprob: GOLDEN.1[1].1, top: Vec::new() });
}

#[test]
fn of_equals_the_lowest_id_comes_first() {
    let found = logprobs(&[0.0, 1.0, -0.0, 1.0, 0.0], 1, 5);
    assert_eq!(found.top.iter().map(|top| top.0).collect::<Vec<_>>(), [1, 3, 0, 2, 4]);
    assert_eq!(found.top[2].1, found.top[3].1);
    assert_eq!(
        logprobs(&[0.5; 4], 3, 2),
        Logprobs { logprob: 0.25f32.ln(), top: vec![(0, 0.25f32.ln()), (1, 0.25f32.ln())] }
    );
}

#[test]
fn hostile_input_has_a_result() {
    assert_eq!(logprobs(&[], 0, 20), Logprobs { logprob: f32::NEG_INFINITY, top: Vec::new() });
    assert_eq!(
        logprobs(&[1.0], u32::MAX, usize::MAX),
        Logprobs { logprob: f32::NEG_INFINITY, top: vec![(0, 0.0)] }
    );
    let broken = logprobs(&[f32::NAN, 3.0, f32::NEG_INFINITY], 1, 3);
    assert_eq!((broken.logprob, broken.top[0]), (0.0, (1, 0.0)));
    assert_eq!(broken.top[1].0, 0, "what is no number is as low as the lowest, and the lower id");
    let all = logprobs(&[f32::NAN; 2], 0, 2);
    assert_eq!(all.top, [(0, 0.5f32.ln()), (1, 0.5f32.ln())]);
    let infinite = logprobs(&[f32::INFINITY, 0.0, f32::INFINITY], 2, 1);
    assert_eq!(infinite, Logprobs { logprob: 0.5f32.ln(), top: vec![(0, 0.5f32.ln())] });
    assert_eq!(logprobs(&[0.0; 100], 0, usize::MAX).top.len(), MAX_TOP);
}

proptest! {
    #[test]
    fn probabilities_sum_to_one_and_are_the_softmaxes(
        logits in prop::collection::vec(-30.0f32..30.0, 1..1500),
        top in 0usize..25,
    ) {
        let all: Vec<f32> = (0..logits.len() as u32).map(|id| logprobs(&logits, id, 0).logprob).collect();
        let sum: f64 = all.iter().map(|&l| f64::from(l).exp()).sum();
        prop_assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        for (&logit, &found) in logits.iter().zip(&all) {
            prop_assert!((f64::from(logit) - total.ln() - f64::from(found)).abs() < 1e-5);
        }
        let mut sorted: Vec<(u32, f32)> = (0..).zip(all).collect();
        sorted.sort_by(|a, b| logits[b.0 as usize].total_cmp(&logits[a.0 as usize]).then(a.0.cmp(&b.0)));
        sorted.truncate(top.min(MAX_TOP));
        prop_assert_eq!(logprobs(&logits, 0, top).top, sorted);
    }
}

/// As computed elsewhere, with another sum and another logarithm.
const GOLDEN: (f32, [(u32, f32); 3]) =
    (-13.933_519, [(765, -4.383_518_7), (521, -4.396_019_5), (277, -4.408_519_3)]);
