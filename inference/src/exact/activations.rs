//! What a linear layer reads: rows of activations, as they are and as bytes with a scale for every 32.
//!
//! A block's scale is its greatest magnitude over 127; its bytes are the activations over the scale, to nearest
//! even. That is the only place where the engine gives up precision by choice, and it depends on nothing but the
//! 32 numbers themselves: not on the layer's width, the number of rows, or the instruction set.

use super::kernel::Routine;
use super::lanes::{BLOCK, LANES, Lanes};
use super::matrix::Matrix;

/// Thirty-two activations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(super) struct Block {
    /// Activations over the scale, within ±127.
    pub(super) bytes: [i8; BLOCK],
    /// What a byte is worth.
    pub(super) scale: f32,
    /// The sum of the bytes times the scale.
    pub(super) scaled_sum: f32,
    /// The sums of the first and of the second half of the bytes.
    pub(super) sums: [i32; 2],
}

/// Quantises one block of all rows. A block with a number that is not finite becomes no numbers.
pub(super) struct Quantise<'a> {
    /// The rows.
    pub(super) values: &'a Matrix,
    /// Where the block begins.
    pub(super) column: usize,
    /// A block for each row.
    pub(super) to: &'a mut [Block],
}

impl Routine for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        for (row, to) in self.to.iter_mut().enumerate() {
            let halves = self.values.row(row)[self.column..].as_chunks::<LANES>().0;
            let (low, high) = (lanes.load(&halves[0]), lanes.load(&halves[1]));
            let magnitude = lanes.splat_int(0x7fff_ffff);
            let (a, b) =
                (lanes.and_int(lanes.bits(low), magnitude), lanes.and_int(lanes.bits(high), magnitude));
            // Compared as integers: the order of non-negative floats, with no numbers above all.
            let greatest = f32::from_bits(lanes.greatest(lanes.max_int(a, b)) as u32);
            *to = match scaling(greatest) {
                Scaling::By { inverse, scale } => {
                    let inverse = lanes.splat(inverse);
                    let mut ints = [0; BLOCK];
                    let halves = ints.as_chunks_mut::<LANES>().0;
                    lanes.store_int(lanes.to_ints(lanes.mul(low, inverse)), &mut halves[0]);
                    lanes.store_int(lanes.to_ints(lanes.mul(high, inverse)), &mut halves[1]);
                    filled(&ints, scale)
                }
                Scaling::Zero => Block::default(),
                Scaling::Undefined => Block { scale: f32::NAN, scaled_sum: f32::NAN, ..Block::default() },
            };
        }
    }
}

enum Scaling {
    By { inverse: f32, scale: f32 },
    Undefined,
    Zero,
}

#[inline(always)]
fn scaling(greatest: f32) -> Scaling {
    if !greatest.is_finite() {
        Scaling::Undefined
    } else if greatest < SMALLEST {
        Scaling::Zero
    } else {
        Scaling::By { inverse: LARGEST_BYTE / greatest, scale: greatest / LARGEST_BYTE }
    }
}

#[inline(always)]
fn filled(ints: &[i32; BLOCK], scale: f32) -> Block {
    let mut bytes = [0; BLOCK];
    let mut sums = [0; 2];
    for at in 0..BLOCK {
        bytes[at] = ints[at] as i8;
    }
    for at in 0..LANES {
        sums[0] += ints[at];
        sums[1] += ints[at + LANES];
    }
    Block { bytes, scale, scaled_sum: (sums[0] + sums[1]) as f32 * scale, sums }
}

const LARGEST_BYTE: f32 = 127.0;
/// Below it a block counts as zeros: far under what a model computes with, far above where an inverse overflows.
const SMALLEST: f32 = 1e-30;
