//! Sixteen lanes: the only arithmetic that the engine uses, and what makes its paths agree.
//!
//! Kernels are written once, over [`Lanes`]. An implementation brings sixteen-lane vectors of floats, integers and
//! bytes for one class of instruction set; every operation is either exact (integers, bits) or correctly rounded
//! by IEEE 754 (`+ − × ÷ √`, conversions to nearest even), so an operation cannot differ between implementations,
//! and neither can a kernel. There is no fused multiply-add, no reciprocal estimate and no horizontal float sum
//! except [`Lanes::sum`], whose tree is written down. [`Scalar`] is the reference; tests hold the others against it.
//!
//! A byte vector is sixteen lanes of four bytes: lane `r` belongs to weight row `r` of a tile, its bytes to four
//! neighbouring columns. That is the shape that one dot-product instruction takes.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
mod scalar;

pub(super) use scalar::Scalar;

/// How many lanes there are, on every machine.
pub(super) const LANES: usize = 16;

/// Bytes of a line of memory.
pub(super) const LINE: usize = 64;

/// Weights or activations that share a scale.
pub(super) const BLOCK: usize = 32;

/// Four-byte groups in a block.
pub(super) const GROUPS: usize = BLOCK / 4;

/// One class of instruction set. A value of the type is the proof that the processor has it.
pub(super) trait Lanes: Copy {
    /// Sixteen `f32`.
    type Floats: Copy;
    /// Sixteen `i32`.
    type Ints: Copy;
    /// Sixteen times four bytes.
    type Bytes: Copy;

    /// Whether registers hold many vectors of sixteen lanes, thirty-two of them, or few.
    const MANY: bool;

    /// One number in every lane.
    fn splat(self, value: f32) -> Self::Floats;
    /// Sixteen numbers from memory.
    fn load(self, from: &[f32; LANES]) -> Self::Floats;
    /// Sixteen numbers to memory.
    fn store(self, value: Self::Floats, to: &mut [f32; LANES]);
    /// `a + b`
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a − b`
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a × b`
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a ÷ b`
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a > b ? a : b`, so `b` where either is no number.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a < b ? a : b`, so `b` where either is no number.
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// Half floats from memory, exactly.
    fn load_half(self, from: &[u8; 2 * LANES]) -> Self::Floats;
    /// Half floats to memory, to nearest even. The value must be a number within the range of half floats.
    fn store_half(self, value: Self::Floats, to: &mut [u8; 2 * LANES]);

    /// The line of memory where these bytes begin is going to be read soon: a hint that changes nothing but time.
    #[inline(always)]
    fn prefetch(self, line: &[u8]) {
        let _ = line;
    }

    /// One integer in every lane.
    fn splat_int(self, value: i32) -> Self::Ints;
    /// Sixteen signed bytes from memory, widened.
    fn load_signed_bytes(self, from: &[i8; LANES]) -> Self::Ints;
    /// Sixteen unsigned bytes from memory, widened.
    fn load_unsigned_bytes(self, from: &[u8; LANES]) -> Self::Ints;
    /// Sixteen integers to memory.
    fn store_int(self, value: Self::Ints, to: &mut [i32; LANES]);
    /// `a + b`, wrapping.
    fn add_int(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `a & b`
    fn and_int(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// The greater, as signed integers.
    fn max_int(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `a << BITS`
    fn shift_left<const BITS: i32>(self, a: Self::Ints) -> Self::Ints;
    /// Integers to floats, to nearest even.
    fn to_floats(self, a: Self::Ints) -> Self::Floats;
    /// Floats to integers, to nearest even. The value must be a number below `2^31`.
    fn to_ints(self, a: Self::Floats) -> Self::Ints;
    /// The bits of floats.
    fn bits(self, a: Self::Floats) -> Self::Ints;
    /// Floats of bits.
    fn floats(self, a: Self::Ints) -> Self::Floats;

    /// Sixty-four bytes from memory.
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Self::Bytes;
    /// One value in every byte.
    fn splat_byte(self, value: u8) -> Self::Bytes;
    /// `a & b`
    fn and_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `a | b`
    fn or_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `lane << BITS` in each lane as a 32-bit number.
    fn shift_bytes_left<const BITS: i32>(self, a: Self::Bytes) -> Self::Bytes;
    /// `lane >> BITS` in each lane as a 32-bit number.
    fn shift_bytes_right<const BITS: i32>(self, a: Self::Bytes) -> Self::Bytes;
    /// Sets the bits of `value` in those bytes whose bit in `mask` is set.
    fn set_where(self, a: Self::Bytes, mask: u64, value: u8) -> Self::Bytes;

    /// For each row of activations `Σ (weight − ZERO) · activation` per lane over the groups of `weights`, of which
    /// there are at most [`GROUPS`]; a row has four activations for each group, and `sums` has the sum of each row.
    /// Weights are at most `MAX`, activations within ±127.
    fn dots<const MAX: i32, const ZERO: i32, const ROWS: usize>(
        self,
        weights: &[Self::Bytes],
        activations: [&[i8]; ROWS],
        sums: [i32; ROWS],
    ) -> [Self::Ints; ROWS];

    /// The sum of all lanes: halves are added lane by lane until one is left.
    #[inline(always)]
    fn sum(self, a: Self::Floats) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(a, &mut lanes);
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// The greatest lane, as signed integers.
    #[inline(always)]
    fn greatest(self, a: Self::Ints) -> i32 {
        let mut lanes = [0; LANES];
        self.store_int(a, &mut lanes);
        lanes.into_iter().fold(i32::MIN, i32::max)
    }
}

/// Repeats a statement for each row below a constant number of at most [`MOST_ROWS`]. A loop would be left a loop:
/// the compiler unrolls before it sees what vector instructions are, and sums would go through memory.
macro_rules! for_each_row {
    ($at:ident < $rows:expr => $each:block) => {
        for_each_row!(@ $at, $rows, $each, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    };
    (@ $at:ident, $rows:expr, $each:block, $($row:literal),*) => {
        $(if $row < $rows {
            const $at: usize = $row;
            $each
        })*
    };
}

pub(super) use for_each_row;

/// Rows that share one unpacking of weights: as many sums as stay in registers.
pub(super) const MOST_ROWS: usize = 12;

#[cfg(test)]
mod tests;
