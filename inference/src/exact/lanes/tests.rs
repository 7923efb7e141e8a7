//! Every operation of every path against the reference, on any bits: what a kernel is made of cannot differ.

use std::array::from_fn;

use proptest::array::uniform16;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::kernel::{Kernel, Routine};
use super::super::tests::{agreed, canonical};
use super::*;

const BYTES: usize = 4 * LANES;

/// Any float, and often one at which something ends.
fn float() -> impl Strategy<Value = f32> {
    let edges =
        [0.0, 1.0, 0.5, 1.5, 2.5, 65_504.0, f32::MIN_POSITIVE, 1e-45, f32::MAX, f32::INFINITY, f32::NAN];
    let edge = (prop::sample::select(edges.to_vec()), any::<bool>());
    prop_oneof![
        3 => any::<u32>().prop_map(f32::from_bits),
        2 => -1_000.0f32..1_000.0,
        1 => edge.prop_map(|(edge, negative)| if negative { -edge } else { edge }),
    ]
}

fn stored<L: Lanes>(lanes: L, value: L::Floats) -> [u32; LANES] {
    let mut to = [0.0; LANES];
    lanes.store(value, &mut to);
    to.map(canonical)
}

fn stored_int<L: Lanes>(lanes: L, value: L::Ints) -> [u32; LANES] {
    let mut to = [0; LANES];
    lanes.store_int(value, &mut to);
    to.map(i32::cast_unsigned)
}

/// Bytes have no way to memory: each is seen through a dot product with a one in its place.
fn stored_bytes<L: Lanes>(lanes: L, value: L::Bytes) -> [[u32; LANES]; 4] {
    from_fn(|place| {
        let mut one = [0; 4];
        one[place] = 1;
        let [dot] = lanes.dots::<255, 128, 1>(&[value], [&one], [1]);
        stored_int(lanes, dot)
    })
}

#[derive(Clone)]
struct FloatOperations {
    a: [f32; LANES],
    b: [f32; LANES],
}

impl Routine for FloatOperations {
    type Output = [[u32; LANES]; 8];

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let (a, b) = (lanes.load(&self.a), lanes.load(&self.b));
        [
            stored(lanes, lanes.add(a, b)),
            stored(lanes, lanes.sub(a, b)),
            stored(lanes, lanes.mul(a, b)),
            stored(lanes, lanes.div(a, b)),
            stored(lanes, lanes.max(a, b)),
            stored(lanes, lanes.min(a, b)),
            stored(lanes, lanes.splat(self.a[3])),
            [canonical(lanes.sum(a)); LANES],
        ]
    }
}

#[derive(Clone)]
struct IntOperations {
    a: [i32; LANES],
    b: [i32; LANES],
}

impl Routine for IntOperations {
    type Output = [[u32; LANES]; 9];

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let float = |int: i32| f32::from_bits(int.cast_unsigned());
        let (a, b) = (lanes.bits(lanes.load(&self.a.map(float))), lanes.bits(lanes.load(&self.b.map(float))));
        let signed: [i8; LANES] = self.a.map(|int| int as i8);
        [
            stored_int(lanes, lanes.add_int(a, b)),
            stored_int(lanes, lanes.and_int(a, b)),
            stored_int(lanes, lanes.max_int(a, b)),
            stored_int(lanes, lanes.shift_left::<23>(a)),
            stored_int(lanes, lanes.bits(lanes.floats(a))),
            stored(lanes, lanes.to_floats(a)),
            stored_int(lanes, lanes.load_signed_bytes(&signed)),
            stored_int(lanes, lanes.load_unsigned_bytes(&signed.map(i8::cast_unsigned))),
            stored_int(lanes, lanes.splat_int(lanes.greatest(a))),
        ]
    }
}

#[derive(Clone)]
struct ByteOperations {
    a: [u8; BYTES],
    b: [u8; BYTES],
    mask: u64,
    value: u8,
}

impl Routine for ByteOperations {
    type Output = [[[u32; LANES]; 4]; 9];

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let (a, b) = (lanes.load_bytes(&self.a), lanes.load_bytes(&self.b));
        [
            stored_bytes(lanes, a),
            stored_bytes(lanes, lanes.splat_byte(self.value)),
            stored_bytes(lanes, lanes.and_bytes(a, b)),
            stored_bytes(lanes, lanes.or_bytes(a, b)),
            stored_bytes(lanes, lanes.shift_bytes_left::<2>(a)),
            stored_bytes(lanes, lanes.shift_bytes_left::<4>(a)),
            stored_bytes(lanes, lanes.shift_bytes_right::<2>(a)),
            stored_bytes(lanes, lanes.shift_bytes_right::<4>(a)),
            stored_bytes(lanes, lanes.set_where(a, self.mask, self.value)),
        ]
    }
}

/// Floats that become integers: numbers below 2^31.
#[derive(Clone)]
struct ToInts([f32; LANES]);

impl Routine for ToInts {
    type Output = [u32; LANES];

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        stored_int(lanes, lanes.to_ints(lanes.load(&self.0)))
    }
}

#[derive(Clone)]
struct LoadHalf([u16; LANES]);

impl Routine for LoadHalf {
    type Output = [u32; LANES];

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let mut bytes = [0; 2 * LANES];
        bytes.as_chunks_mut::<2>().0.iter_mut().zip(self.0).for_each(|(to, half)| *to = half.to_le_bytes());
        stored(lanes, lanes.load_half(&bytes))
    }
}

/// Numbers within the range of half floats.
#[derive(Clone)]
struct StoreHalf([f32; LANES]);

impl Routine for StoreHalf {
    type Output = [u8; 2 * LANES];

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let mut to = [0; 2 * LANES];
        lanes.store_half(lanes.load(&self.0), &mut to);
        to
    }
}

/// Dot products of some rows with the same weights.
#[derive(Clone)]
struct Dots<const MAX: i32, const ZERO: i32, const ROWS: usize> {
    weights: Vec<[u8; BYTES]>,
    activations: [Vec<i8>; ROWS],
}

impl<const MAX: i32, const ZERO: i32, const ROWS: usize> Routine for Dots<MAX, ZERO, ROWS> {
    type Output = [[u32; LANES]; ROWS];

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let weights: Vec<_> = self.weights.iter().map(|group| lanes.load_bytes(group)).collect();
        let activations = self.activations.each_ref().map(Vec::as_slice);
        let sums = activations.map(|row| row.iter().copied().map(i32::from).sum());
        lanes.dots::<MAX, ZERO, ROWS>(&weights, activations, sums).map(|dot| stored_int(lanes, dot))
    }
}

impl<const MAX: i32, const ZERO: i32, const ROWS: usize> Dots<MAX, ZERO, ROWS> {
    /// Of a block, or of its first half; the rows have the activations shifted by one column each.
    fn new(weights: &[u8], activations: &[i8], groups: usize) -> Self {
        let weights = weights.as_chunks::<BYTES>().0[..groups].iter();
        let within =
            |byte: u8| if byte > 250 { MAX as u8 } else { (u32::from(byte) % (MAX as u32 + 1)) as u8 };
        Self {
            weights: weights.map(|group| group.map(within)).collect(),
            activations: from_fn(|row| {
                activations.iter().cycle().skip(row).take(4 * groups).copied().collect()
            }),
        }
    }

    fn assert_sums_of_products(self) {
        for (row, lanes) in agreed(self.clone()).into_iter().enumerate() {
            for (lane, dot) in lanes.into_iter().enumerate() {
                let products = self.activations[row].iter().enumerate().map(|(column, &activation)| {
                    let weight = self.weights[column / 4][4 * lane + column % 4];
                    (i32::from(weight) - ZERO) * i32::from(activation)
                });
                assert_eq!(dot.cast_signed(), products.sum::<i32>(), "{row}, lane {lane} of {MAX}, {ZERO}");
            }
        }
    }
}

fn dots_of<const ROWS: usize>(weights: &[u8], activations: &[i8]) {
    for groups in [GROUPS / 2, GROUPS] {
        Dots::<15, 0, ROWS>::new(weights, activations, groups).assert_sums_of_products();
        Dots::<15, 8, ROWS>::new(weights, activations, groups).assert_sums_of_products();
        Dots::<31, 0, ROWS>::new(weights, activations, groups).assert_sums_of_products();
        Dots::<31, 16, ROWS>::new(weights, activations, groups).assert_sums_of_products();
        Dots::<63, 32, ROWS>::new(weights, activations, groups).assert_sums_of_products();
        Dots::<255, 128, ROWS>::new(weights, activations, groups).assert_sums_of_products();
    }
}

fn dots(weights: &[u8], activations: &[i8]) {
    dots_of::<1>(weights, activations);
    dots_of::<4>(weights, activations);
}

/// Where sums of products in too few bits would overflow.
#[test]
fn the_greatest_dot_products_are_exact() {
    for weight in [0, u8::MAX] {
        for signs in [[127, 127], [-127, -127], [127, -127]] {
            let activations: [i8; BLOCK] = from_fn(|column| signs[column % 2]);
            dots(&[weight; BYTES * GROUPS], &activations);
        }
    }
}

#[test]
fn every_half_float_is_loaded_exactly() {
    for first in (0..=u16::MAX).step_by(LANES) {
        let halves = from_fn(|lane| first + lane as u16);
        let expected = halves.map(|half| canonical(half::f16::from_bits(half).to_f32()));
        assert_eq!(agreed(LoadHalf(halves)), expected);
    }
}

#[test]
fn ties_go_to_even() {
    let ties: [f32; LANES] = from_fn(|lane| lane as f32 - 7.5);
    let even = ties.map(|tie| (tie.round_ties_even() as i32).cast_unsigned());
    assert_eq!(agreed(ToInts(ties)), even);
    assert_eq!(even[..4], [-8, -6, -6, -4].map(i32::cast_unsigned));
    // Halfway between neighbouring half floats: of one, of the least subnormal, of the greatest.
    let halves = [1.000_488_3, 1.001_464_8, 2.980_232_2e-8, 8.940_697e-8, 65_488.0, -1.000_488_3];
    let stored = agreed(StoreHalf(from_fn(|lane| halves[lane % halves.len()])));
    let stored: Vec<_> = stored.as_chunks::<2>().0.iter().map(|&half| u16::from_le_bytes(half)).collect();
    assert_eq!(stored[..6], [0x3c00, 0x3c02, 0, 2, 0x7bfe, 0xbc00]);
}

#[test]
fn the_sum_is_a_tree_of_halves() {
    // Added in order, or by neighbours, small ones would be lost to the great.
    let mut lanes = [0.75; LANES];
    (lanes[0], lanes[8]) = (1e8, -1e8);
    struct Sum([f32; LANES]);
    impl Routine for Sum {
        type Output = f32;

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> f32 {
            lanes.sum(lanes.load(&self.0))
        }
    }
    for kernel in Kernel::available() {
        assert_eq!(kernel.run(Sum(lanes)), 10.5, "{kernel}");
    }
}

proptest! {
    #[test]
    fn floats_agree(a in uniform16(float()), b in uniform16(float())) {
        agreed(FloatOperations { a, b });
    }

    #[test]
    fn integers_agree(a in uniform16(any::<i32>()), b in uniform16(any::<i32>())) {
        agreed(IntOperations { a, b });
    }

    #[test]
    fn conversions_agree(values in uniform16(float())) {
        let within = |most: f32| values.map(|x| if x.is_nan() { most } else { x.clamp(-most, most) });
        agreed(ToInts(within(2_147_483_520.0)));
        agreed(StoreHalf(within(65_504.0)));
    }

    #[test]
    fn bytes_agree(a in vec(any::<u8>(), BYTES), b in vec(any::<u8>(), BYTES), mask: u64, value: u8) {
        let (a, b) = (from_fn(|at| a[at]), from_fn(|at| b[at]));
        agreed(ByteOperations { a, b, mask, value });
    }

    #[test]
    fn dot_products_agree(
        weights in vec(any::<u8>(), BYTES * GROUPS),
        activations in vec(prop_oneof![3 => -127i8..=127, 1 => Just(127i8), 1 => Just(-127i8)], BLOCK),
    ) {
        dots(&weights, &activations);
    }
}
