//! Packed weights against candle's reading of the same bytes, and products against any other way to compute them.

use std::borrow::Cow;

use candle_core::Device;
use candle_core::quantized::{QStorage, QTensor};
use half::f16;
use memmap2::MmapMut;
use proptest::prelude::*;

use super::super::tests::Noise;
use super::*;

/// A type of weights in files, and where each of its blocks has half floats.
type FileType = (GgmlDType, &'static [usize]);

const FILE_TYPES: [FileType; 11] = [
    (GgmlDType::Q4_0, &[0]),
    (GgmlDType::Q4_1, &[0, 2]),
    (GgmlDType::Q5_0, &[0]),
    (GgmlDType::Q5_1, &[0, 2]),
    (GgmlDType::Q8_0, &[0]),
    (GgmlDType::Q4K, &[0, 2]),
    (GgmlDType::Q5K, &[0, 2]),
    (GgmlDType::Q6K, &[208]),
    (GgmlDType::F16, &[0]),
    (GgmlDType::BF16, &[]),
    (GgmlDType::F32, &[]),
];

/// A layer, and what candle reads from the same bytes.
struct Sample {
    layer: Linear,
    weights: Vec<Vec<f32>>,
}

impl Sample {
    /// Any bits, but that scales and floats are `scale(noise)`.
    fn new(
        (file, halves): FileType,
        (rows, columns): (usize, usize),
        noise: &mut Noise,
        scale: fn(&mut Noise) -> f32,
    ) -> Self {
        let block = file.type_size();
        let mut bytes = noise.bytes(rows * columns / file.block_size() * block);
        for bytes in bytes.chunks_exact_mut(block) {
            match file {
                GgmlDType::F32 => bytes.copy_from_slice(&scale(noise).to_le_bytes()),
                GgmlDType::BF16 => bytes.copy_from_slice(&scale(noise).to_le_bytes()[2..]),
                _ => {
                    for &at in halves {
                        bytes[at..at + 2].copy_from_slice(&f16::from_f32(scale(noise)).to_le_bytes());
                    }
                }
            }
        }
        let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, file).unwrap();
        let weights = QTensor::new(storage, (rows, columns)).unwrap().dequantize(&Device::Cpu).unwrap();
        Self { layer: packed(file, (rows, columns), &bytes), weights: weights.to_vec2().unwrap() }
    }
}

fn packed(file: GgmlDType, (rows, columns): (usize, usize), bytes: &[u8]) -> Linear {
    let kind = Kind::of(file).unwrap();
    let size = packed_size(kind, rows, columns);
    let mut memory = MmapMut::map_anon(size).unwrap();
    let tiles = memory.chunks_exact_mut(kind.tile(columns));
    for (tile, rows) in tiles.zip(bytes.chunks(bytes.len() / rows * LANES)) {
        pack_tile(kind, file, columns, rows, tile);
    }
    Linear::new(kind, (rows, columns), &Arc::new(memory.make_read_only().unwrap()), 0..size)
}

fn input(rows: usize, columns: usize, noise: &mut Noise) -> Input {
    let mut input = Input::new(rows, columns);
    input.each_row_mut().flatten().for_each(|x| *x = noise.float() * 4.0);
    input
}

/// The product with some rows of an input, all of it on one path.
fn product(kernel: Kernel, threads: usize, (input, rows): (&Input, &[usize]), layer: &Linear) -> Matrix {
    let mut pool = Pool::new(threads);
    let mut input = input.select(rows);
    input.quantise(kernel, &mut pool);
    let mut output = Matrix::new(rows.len(), layer.rows());
    multiply(kernel, &mut pool, &input, &mut [(layer, &mut output)]);
    output
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

/// Any half float that is a number.
fn any_scale(noise: &mut Noise) -> f32 {
    let half = f16::from_bits(noise.next() as u16);
    if half.is_finite() { half.to_f32() } else { -1.0 }
}

fn small_scale(noise: &mut Noise) -> f32 {
    noise.float() * 0.1
}

#[test]
fn all_kinds_are_sampled() {
    for kind in [
        Kind::Q4_0,
        Kind::Q4_1,
        Kind::Q5_0,
        Kind::Q5_1,
        Kind::Q8_0,
        Kind::Q4K,
        Kind::Q5K,
        Kind::Q6K,
        Kind::Half,
        Kind::Float,
    ] {
        assert!(FILE_TYPES.iter().any(|(file, _)| Kind::of(*file) == Some(kind)), "{kind:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rows_are_what_candle_reads(kind in 0..FILE_TYPES.len(), rows in 1usize..40, blocks in 1usize..5, seed: u64) {
        let file = FILE_TYPES[kind];
        let columns = blocks * file.0.block_size().max(BLOCK);
        let sample = Sample::new(file, (rows, columns), &mut Noise(seed), any_scale);
        let mut read = vec![0.0; columns];
        for (row, weights) in sample.weights.iter().enumerate() {
            sample.layer.row(row, &mut read);
            prop_assert_eq!(&read, weights, "row {} of {:?}", row, sample.layer);
        }
    }

    /// For each path, number of threads and grouping of rows.
    #[test]
    fn a_product_is_the_same_however_it_is_computed(
        kind in 0..FILE_TYPES.len(),
        (rows, outputs, blocks) in (1usize..=20, 1usize..=70, 1usize..4),
        seed: u64,
    ) {
        let (file, noise) = (FILE_TYPES[kind], &mut Noise(seed));
        let columns = blocks * file.0.block_size().max(BLOCK);
        let Sample { layer, .. } = Sample::new(file, (outputs, columns), noise, any_scale);
        let input = input(rows, columns, noise);
        let all: Vec<_> = (0..rows).collect();
        let reference = product(Kernel::named("scalar").unwrap(), 1, (&input, &all), &layer);
        for kernel in Kernel::available() {
            for threads in 1..=3 {
                let together = product(kernel, threads, (&input, &all), &layer);
                for row in 0..rows {
                    prop_assert_eq!(bits(together.row(row)), bits(reference.row(row)), "{} {:?}", kernel, layer);
                }
            }
            for row in 0..rows {
                let alone = product(kernel, 1, (&input, &[row]), &layer);
                prop_assert_eq!(bits(alone.row(0)), bits(reference.row(row)), "{} {:?}", kernel, layer);
            }
        }
    }

    #[test]
    fn a_product_is_near_the_sum_of_products(
        kind in 0..FILE_TYPES.len(),
        (rows, outputs, blocks) in (1usize..=4, 1usize..=40, 1usize..8),
        seed: u64,
    ) {
        let (file, noise) = (FILE_TYPES[kind], &mut Noise(seed));
        let columns = blocks * file.0.block_size().max(BLOCK);
        let sample = Sample::new(file, (outputs, columns), noise, small_scale);
        let mut input = input(rows, columns, noise);
        input.quantise(Kernel::fastest(), &mut Pool::new(1));
        let all: Vec<_> = (0..rows).collect();
        let found = product(Kernel::fastest(), 2, (&input, &all), &sample.layer);
        let quantised = !matches!(sample.layer.kind, Kind::Half | Kind::Float);
        let greatest = sample.weights.iter().flatten().fold(0.0f32, |a, b| a.max(b.abs()));
        for row in 0..rows {
            let activation = |column: usize| {
                let [block] = input.block(column / BLOCK, row);
                let byte = f64::from(block.bytes[column % BLOCK]) * f64::from(block.scale);
                if quantised { byte } else { f64::from(input.values.row(row)[column]) }
            };
            let activations: Vec<_> = (0..columns).map(activation).collect();
            let bound: f64 = activations.iter().map(|x| x.abs()).sum::<f64>() * f64::from(greatest);
            for (weights, &found) in sample.weights.iter().zip(found.row(row)) {
                let truth: f64 = weights.iter().zip(&activations).map(|(&w, x)| f64::from(w) * x).sum();
                let error = (f64::from(found) - truth).abs();
                prop_assert!(error <= 2e-6 * bound, "{:?}: {} for {}", sample.layer, found, truth);
            }
        }
    }

    /// A byte is within half a scale of its activation, and sums are those of the bytes.
    #[test]
    fn blocks_are_near_their_activations(seed: u64, exponent in -35i32..35) {
        let mut input = input(1, 2 * BLOCK, &mut Noise(seed));
        input.each_row_mut().flatten().for_each(|x| *x *= 10f32.powi(exponent));
        input.quantise(Kernel::fastest(), &mut Pool::new(1));
        for (at, values) in input.values.row(0).as_chunks::<BLOCK>().0.iter().enumerate() {
            let [block] = input.block(at, 0);
            for (&byte, &value) in block.bytes.iter().zip(values) {
                let error = (f64::from(byte) * f64::from(block.scale) - f64::from(value)).abs();
                prop_assert!(error <= 0.501 * f64::from(block.scale).max(2e-30), "{byte} · {} for {value}", block.scale);
            }
            let sum = |bytes: &[i8]| bytes.iter().copied().map(i32::from).sum::<i32>();
            let (first, second) = block.bytes.split_at(BLOCK / 2);
            prop_assert_eq!(block.sums, [sum(first), sum(second)]);
            prop_assert_eq!(block.scaled_sum, sum(&block.bytes) as f32 * block.scale);
        }
    }
}

/// What is no number spoils its own block's outputs, on every path, and no other row's.
#[test]
fn what_is_no_number_stays_in_its_row() {
    for file in FILE_TYPES {
        let noise = &mut Noise(1);
        let columns = 2 * file.0.block_size().max(BLOCK);
        let Sample { layer, .. } = Sample::new(file, (20, columns), noise, small_scale);
        let mut input = input(3, columns, noise);
        let spoilt = input.each_row_mut().nth(1).unwrap();
        (spoilt[5], spoilt[6]) = (f32::INFINITY, f32::NAN);
        for kernel in Kernel::available() {
            let output = product(kernel, 1, (&input, &[0, 1, 2]), &layer);
            for row in 0..3 {
                assert!(output.row(row).iter().all(|x| x.is_nan() == (row == 1)), "{kernel} {layer:?}");
            }
        }
    }
}
