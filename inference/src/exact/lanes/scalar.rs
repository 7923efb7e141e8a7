//! The reference: sixteen lanes as arrays, one operation after the other, in plain Rust.

use std::array::from_fn;

use half::f16;

use super::{LANES, Lanes};

/// Every machine has this.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar;

impl Lanes for Scalar {
    type Floats = [f32; LANES];
    type Ints = [i32; LANES];
    type Bytes = [u32; LANES];
    const MANY: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::Floats {
        *from
    }

    #[inline(always)]
    fn store(self, value: Self::Floats, to: &mut [f32; LANES]) {
        *to = value;
    }

    #[inline(always)]
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane] / b[lane])
    }

    #[inline(always)]
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn load_half(self, from: &[u8; 2 * LANES]) -> Self::Floats {
        from_fn(|lane| f16::from_le_bytes([from[2 * lane], from[2 * lane + 1]]).to_f32_const())
    }

    #[inline(always)]
    fn store_half(self, value: Self::Floats, to: &mut [u8; 2 * LANES]) {
        for (to, value) in to.as_chunks_mut::<2>().0.iter_mut().zip(value) {
            *to = f16::from_f32_const(value).to_le_bytes();
        }
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> Self::Ints {
        [value; LANES]
    }

    #[inline(always)]
    fn load_signed_bytes(self, from: &[i8; LANES]) -> Self::Ints {
        from.map(i32::from)
    }

    #[inline(always)]
    fn load_unsigned_bytes(self, from: &[u8; LANES]) -> Self::Ints {
        from.map(i32::from)
    }

    #[inline(always)]
    fn store_int(self, value: Self::Ints, to: &mut [i32; LANES]) {
        *to = value;
    }

    #[inline(always)]
    fn add_int(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        from_fn(|lane| a[lane].wrapping_add(b[lane]))
    }

    #[inline(always)]
    fn and_int(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        from_fn(|lane| a[lane] & b[lane])
    }

    #[inline(always)]
    fn max_int(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        from_fn(|lane| a[lane].max(b[lane]))
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: Self::Ints) -> Self::Ints {
        a.map(|lane| lane << BITS)
    }

    #[inline(always)]
    fn to_floats(self, a: Self::Ints) -> Self::Floats {
        a.map(|lane| lane as f32)
    }

    #[inline(always)]
    fn to_ints(self, a: Self::Floats) -> Self::Ints {
        a.map(|lane| lane.round_ties_even() as i32)
    }

    #[inline(always)]
    fn bits(self, a: Self::Floats) -> Self::Ints {
        a.map(|lane| lane.to_bits() as i32)
    }

    #[inline(always)]
    fn floats(self, a: Self::Ints) -> Self::Floats {
        a.map(|lane| f32::from_bits(lane as u32))
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Self::Bytes {
        from_fn(|lane| u32::from_le_bytes(from_fn(|byte| from[4 * lane + byte])))
    }

    #[inline(always)]
    fn splat_byte(self, value: u8) -> Self::Bytes {
        [u32::from_le_bytes([value; 4]); LANES]
    }

    #[inline(always)]
    fn and_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        from_fn(|lane| a[lane] & b[lane])
    }

    #[inline(always)]
    fn or_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        from_fn(|lane| a[lane] | b[lane])
    }

    #[inline(always)]
    fn shift_bytes_left<const BITS: i32>(self, a: Self::Bytes) -> Self::Bytes {
        a.map(|lane| lane << BITS)
    }

    #[inline(always)]
    fn shift_bytes_right<const BITS: i32>(self, a: Self::Bytes) -> Self::Bytes {
        a.map(|lane| lane >> BITS)
    }

    #[inline(always)]
    fn set_where(self, a: Self::Bytes, mask: u64, value: u8) -> Self::Bytes {
        from_fn(|lane| {
            let chosen: [u8; 4] = from_fn(|byte| if mask >> (4 * lane + byte) & 1 == 1 { value } else { 0 });
            a[lane] | u32::from_le_bytes(chosen)
        })
    }

    #[inline(always)]
    fn dots<const MAX: i32, const ZERO: i32, const ROWS: usize>(
        self,
        weights: &[Self::Bytes],
        activations: [&[i8]; ROWS],
        _sums: [i32; ROWS],
    ) -> [Self::Ints; ROWS] {
        activations.map(|activations| {
            let mut dots = [0; LANES];
            for (group, four) in weights.iter().zip(activations.chunks_exact(4)) {
                for lane in 0..LANES {
                    let weights = group[lane].to_le_bytes();
                    for (weight, activation) in weights.into_iter().zip(four) {
                        dots[lane] += (i32::from(weight) - ZERO) * i32::from(*activation);
                    }
                }
            }
            dots
        })
    }
}
