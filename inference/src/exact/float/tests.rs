//! The float operations: near what they are named after, and the same bits on all paths whatever goes in.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::kernel::{Kernel, Routine};
use super::super::tests::{agreed, canonical};
use super::*;

/// Channels of a row.
const WIDTH: usize = 4 * LANES;

#[derive(Clone)]
struct Exp(Vec<f32>);

impl Routine for Exp {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) -> Vec<f32> {
        for x in self.0.as_chunks_mut::<LANES>().0 {
            lanes.store(exp(lanes, lanes.load(x)), x);
        }
        self.0
    }
}

#[derive(Clone)]
struct Gating(Gate, Vec<f32>, Vec<f32>);

impl Routine for Gating {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Vec<f32> {
        let mut to = vec![0.0; self.1.len()];
        gated(lanes, self.0, &self.1, &self.2, &mut to);
        to
    }
}

/// Weights that sum to one.
#[derive(Clone)]
struct Softmax {
    scores: Vec<f32>,
    from: usize,
    to: usize,
}

impl Routine for Softmax {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) -> Vec<f32> {
        let factor = softmax(lanes, &mut self.scores, self.from, self.to);
        self.scores.iter().map(|score| score * factor).collect()
    }
}

#[derive(Clone)]
struct Norm {
    x: Vec<f32>,
    weight: Vec<f32>,
    epsilon: f32,
}

impl Routine for Norm {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) -> Vec<f32> {
        let mut to = vec![0.0; self.x.len()];
        rms_norm(lanes, &self.x, &self.weight, self.epsilon, &mut to);
        rms_norm_in_place(lanes, &mut self.x, &self.weight, self.epsilon);
        assert!(to.iter().zip(&self.x).all(|(a, b)| canonical(*a) == canonical(*b)), "in place is the same");
        to
    }
}

#[derive(Clone)]
struct Rotate {
    head: Vec<f32>,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Routine for Rotate {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) -> Vec<f32> {
        rotate(lanes, &mut self.head, &self.cosines, &self.sines);
        self.head
    }
}

/// Everything in a row, on any numbers.
#[derive(Clone)]
struct Everything {
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Routine for Everything {
    type Output = Vec<u32>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Vec<u32> {
        let Self { a, b } = self;
        let mut all = Exp(a.clone()).run(lanes);
        all.extend(Gating(Gate::Silu, a.clone(), b.clone()).run(lanes));
        all.extend(Gating(Gate::Gelu, a.clone(), b.clone()).run(lanes));
        all.extend(Softmax { scores: a.clone(), from: 3, to: WIDTH - 5 }.run(lanes));
        all.extend(Norm { x: a.clone(), weight: b.clone(), epsilon: 1e-5 }.run(lanes));
        let (cosines, sines) = b.split_at(WIDTH / 2);
        all.extend(Rotate { head: a.clone(), cosines: cosines.to_vec(), sines: sines.to_vec() }.run(lanes));
        let mut sum = a.clone();
        add(lanes, &mut sum, &b);
        all.extend(sum);
        let mut halves = [0; 2 * LANES];
        store_half(lanes, &a.as_chunks::<LANES>().0[0], &mut halves);
        all.into_iter().map(canonical).chain(halves.map(u32::from)).collect()
    }
}

/// By how many units in the last place of the true value.
fn units(found: f32, truth: f64) -> f64 {
    let nearest = truth as f32;
    let unit = f64::from(nearest.next_up()) - f64::from(nearest);
    (f64::from(found) - truth).abs() / unit
}

#[test]
fn the_exponential_is_within_two_units() {
    let xs: Vec<f32> = (0..1 << 20).map(|k| -87.0 + k as f32 * (175.0 / (1 << 20) as f32)).collect();
    let found = Kernel::fastest().run(Exp(xs.clone()));
    let worst = xs.iter().zip(found).map(|(&x, found)| units(found, f64::from(x).exp())).fold(0.0, f64::max);
    assert!(worst <= 2.0, "{worst} units");
}

#[test]
fn the_exponential_ends_where_it_says() {
    let ends = agreed(Exp([[-87.0, 88.0]; LANES / 2].concat()));
    let beyond = [[-1e30, 1e30], [f32::NEG_INFINITY, f32::INFINITY]];
    for beyond in beyond {
        assert_eq!(agreed(Exp([beyond; LANES / 2].concat())), ends);
    }
    assert_eq!(agreed(Exp(vec![0.0; LANES])), [1.0; LANES]);
}

#[test]
fn gates_are_near_their_formulas() {
    let xs: Vec<f32> = (0..1 << 14).map(|k| (k - (1 << 13)) as f32 / 64.0).collect();
    let ups: Vec<f32> = xs.iter().map(|x| x / 3.0 - 1.0).collect();
    for gate in [Gate::Silu, Gate::Gelu] {
        for ((&x, &up), found) in xs.iter().zip(&ups).zip(agreed(Gating(gate, xs.clone(), ups.clone()))) {
            let (x, up) = (f64::from(x), f64::from(up));
            let opened = match gate {
                Gate::Silu => x / (1.0 + (-x).exp()),
                Gate::Gelu => {
                    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                    0.5 * x * (1.0 + inner.tanh())
                }
            };
            let error = (f64::from(found) - opened * up).abs();
            assert!(error <= 1e-6 * (x * up).abs(), "{gate:?}({x}) · {up} = {found}, off by {error}");
        }
    }
}

/// Numbers as they occur in a model.
fn usual(count: usize) -> impl Strategy<Value = Vec<f32>> {
    vec(-30.0f32..30.0, count)
}

fn any_float() -> impl Strategy<Value = f32> {
    let special =
        prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-45, f32::MAX]);
    prop_oneof![6 => -100.0f32..100.0, 2 => any::<u32>().prop_map(f32::from_bits), 1 => special]
}

/// Mostly usual rows, or one strange number would hide all others behind NaNs.
fn any_row() -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![
        vec(any_float(), WIDTH),
        (usual(WIDTH), 0..WIDTH, any_float()).prop_map(|(mut row, at, x)| {
            row[at] = x;
            row
        })
    ]
}

proptest! {
    #[test]
    fn any_numbers_give_the_same_bits(a in any_row(), b in any_row()) {
        agreed(Everything { a, b });
    }

    #[test]
    fn norms_are_near(x in usual(WIDTH), weight in usual(WIDTH), epsilon in 1e-6f32..1e-4) {
        let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
        let factor = 1.0 / (squares / WIDTH as f64 + f64::from(epsilon)).sqrt();
        let found = agreed(Norm { x: x.clone(), weight: weight.clone(), epsilon });
        for ((&x, &weight), found) in x.iter().zip(&weight).zip(found) {
            let truth = f64::from(x) * factor * f64::from(weight);
            prop_assert!((f64::from(found) - truth).abs() <= 1e-6 * truth.abs() + 1e-37, "{found} for {truth}");
        }
    }

    #[test]
    fn rotations_are_near(head in usual(WIDTH), angles in vec(-7.0f64..7.0, WIDTH / 2)) {
        let cosines = angles.iter().map(|angle| angle.cos() as f32).collect();
        let sines = angles.iter().map(|angle| angle.sin() as f32).collect();
        let found = agreed(Rotate { head: head.clone(), cosines, sines });
        for (pair, angle) in angles.iter().enumerate() {
            let (x, y) = (f64::from(head[pair]), f64::from(head[pair + WIDTH / 2]));
            let truth = [x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()];
            for (found, truth) in [found[pair], found[pair + WIDTH / 2]].into_iter().zip(truth) {
                prop_assert!((f64::from(found) - truth).abs() <= 3e-7 * x.hypot(y), "{found} for {truth}");
            }
        }
    }

    #[test]
    fn weights_are_near(scores in usual(WIDTH), from in 0..WIDTH, length in 1..WIDTH) {
        let to = WIDTH.min(from + length);
        let exponentials: Vec<_> = scores.iter().map(|&score| f64::from(score).exp()).collect();
        let sum: f64 = exponentials[from..to].iter().sum();
        let found = agreed(Softmax { scores, from, to });
        for (at, (found, exponential)) in found.into_iter().zip(exponentials).enumerate() {
            let truth = if (from..to).contains(&at) { exponential / sum } else { 0.0 };
            prop_assert!((f64::from(found) - truth).abs() <= 6e-6 * truth, "{found} for {truth}");
        }
    }
}
