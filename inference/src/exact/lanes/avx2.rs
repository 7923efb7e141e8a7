//! Sixteen lanes in two registers, for processors that have AVX2 and no more.
#![expect(
    unsafe_code,
    reason = "vector instructions; a value of `Avx2` exists only where the processor has them, and loads and stores \
              take references to arrays of the length that they touch"
)]
#![expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all blocks: the reason above")]

use std::arch::x86_64::*;

use super::super::kernel::Routine;
use super::{GROUPS, LANES, Lanes, for_each_row};

/// An operation on both halves. Spelled out, because a closure would be compiled for the least processor.
macro_rules! both {
    ($operation:ident($a:expr $(, $b:expr)?)) => {
        unsafe { [$operation($a[0] $(, $b[0])?), $operation($a[1] $(, $b[1])?)] }
    };
    ($half:ident => $each:expr) => {{
        let first = { const $half: usize = 0; $each };
        let second = { const $half: usize = 1; $each };
        [first, second]
    }};
}

/// Proof that the processor has AVX2 and F16C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Whether this processor has it.
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")).then_some(Self(()))
    }

    /// Runs a routine compiled for these instructions.
    pub(crate) fn run<R: Routine>(self, routine: R) -> R::Output {
        #[target_feature(enable = "avx2,f16c")]
        fn inside<R: Routine>(lanes: Avx2, routine: R) -> R::Output {
            routine.run(lanes)
        }
        unsafe { inside(self, routine) }
    }

    /// Pairs of products are at most `2 · MAX · 127`; so many of them fit a signed 16-bit sum.
    const fn pairs<const MAX: i32>() -> usize {
        (i16::MAX as i32 / (2 * MAX * 127)) as usize
    }

    /// Sums of four products per lane for weights below 64: pairs are summed in 16 bits as long as they fit.
    #[inline(always)]
    fn dots_narrow<const MAX: i32, const ROWS: usize>(
        self,
        weights: &[[__m256i; 2]],
        activations: [&[i8]; ROWS],
    ) -> [[__m256i; 2]; ROWS] {
        let (none, ones) = unsafe { (_mm256_setzero_si256(), _mm256_set1_epi16(1)) };
        let mut dots = [[none; 2]; ROWS];
        let mut pairs = [[none; 2]; ROWS];
        for_each_row!(GROUP < GROUPS => {
            if GROUP < weights.len() {
                for_each_row!(ROW < ROWS => {
                    let four = four_everywhere(activations[ROW], GROUP);
                    let products = both!(HALF => unsafe { _mm256_maddubs_epi16(weights[GROUP][HALF], four) });
                    pairs[ROW] = if GROUP.is_multiple_of(Self::pairs::<MAX>()) {
                        products
                    } else {
                        both!(_mm256_add_epi16(pairs[ROW], products))
                    };
                });
                if (GROUP + 1).is_multiple_of(Self::pairs::<MAX>()) || GROUP + 1 == weights.len() {
                    for_each_row!(ROW < ROWS => {
                        let sums = both!(HALF => unsafe { _mm256_madd_epi16(pairs[ROW][HALF], ones) });
                        dots[ROW] = both!(_mm256_add_epi32(dots[ROW], sums));
                    });
                }
            }
        });
        dots
    }

    /// The same for whole bytes with their zero at 128: magnitudes times activations with the weights' signs.
    #[inline(always)]
    fn dots_wide<const ROWS: usize>(
        self,
        weights: &[[__m256i; 2]],
        activations: [&[i8]; ROWS],
    ) -> [[__m256i; 2]; ROWS] {
        let (none, ones) = unsafe { (_mm256_setzero_si256(), _mm256_set1_epi16(1)) };
        let zero = self.splat_byte(128);
        let mut dots = [[none; 2]; ROWS];
        for_each_row!(GROUP < GROUPS => {
            if GROUP < weights.len() {
                let signed = both!(_mm256_xor_si256(weights[GROUP], zero));
                let magnitudes = both!(_mm256_abs_epi8(signed));
                for_each_row!(ROW < ROWS => {
                    let four = four_everywhere(activations[ROW], GROUP);
                    let sums = both!(HALF => unsafe {
                        let pairs = _mm256_maddubs_epi16(magnitudes[HALF], _mm256_sign_epi8(four, signed[HALF]));
                        _mm256_madd_epi16(pairs, ones)
                    });
                    dots[ROW] = both!(_mm256_add_epi32(dots[ROW], sums));
                });
            }
        });
        dots
    }
}

/// One group of four activations in every lane.
#[inline(always)]
fn four_everywhere(activations: &[i8], group: usize) -> __m256i {
    let four = activations.as_chunks::<4>().0[group];
    unsafe { _mm256_set1_epi32(i32::from_le_bytes(four.map(i8::cast_unsigned))) }
}

impl Lanes for Avx2 {
    type Floats = [__m256; 2];
    type Ints = [__m256i; 2];
    type Bytes = [__m256i; 2];
    const MANY: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> [__m256; 2] {
        [unsafe { _mm256_set1_ps(value) }; 2]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> [__m256; 2] {
        let halves = from.as_chunks::<8>().0;
        both!(HALF => unsafe { _mm256_loadu_ps(halves[HALF].as_ptr()) })
    }

    #[inline(always)]
    fn store(self, value: [__m256; 2], to: &mut [f32; LANES]) {
        for (half, value) in to.as_chunks_mut::<8>().0.iter_mut().zip(value) {
            unsafe { _mm256_storeu_ps(half.as_mut_ptr(), value) }
        }
    }

    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn load_half(self, from: &[u8; 2 * LANES]) -> [__m256; 2] {
        let halves = from.as_chunks::<16>().0;
        both!(HALF => unsafe { _mm256_cvtph_ps(_mm_loadu_si128(halves[HALF].as_ptr().cast())) })
    }

    #[inline(always)]
    fn store_half(self, value: [__m256; 2], to: &mut [u8; 2 * LANES]) {
        for (half, value) in to.as_chunks_mut::<16>().0.iter_mut().zip(value) {
            unsafe {
                let value = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value);
                _mm_storeu_si128(half.as_mut_ptr().cast(), value);
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, line: &[u8]) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> [__m256i; 2] {
        [unsafe { _mm256_set1_epi32(value) }; 2]
    }

    #[inline(always)]
    fn load_signed_bytes(self, from: &[i8; LANES]) -> [__m256i; 2] {
        let halves = from.as_chunks::<8>().0;
        both!(HALF => unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(halves[HALF].as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_unsigned_bytes(self, from: &[u8; LANES]) -> [__m256i; 2] {
        let halves = from.as_chunks::<8>().0;
        both!(HALF => unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(halves[HALF].as_ptr().cast())) })
    }

    #[inline(always)]
    fn store_int(self, value: [__m256i; 2], to: &mut [i32; LANES]) {
        for (half, value) in to.as_chunks_mut::<8>().0.iter_mut().zip(value) {
            unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), value) }
        }
    }

    #[inline(always)]
    fn add_int(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(_mm256_add_epi32(a, b))
    }

    #[inline(always)]
    fn and_int(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(_mm256_and_si256(a, b))
    }

    #[inline(always)]
    fn max_int(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(_mm256_max_epi32(a, b))
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: [__m256i; 2]) -> [__m256i; 2] {
        both!(HALF => unsafe { _mm256_slli_epi32::<BITS>(a[HALF]) })
    }

    #[inline(always)]
    fn to_floats(self, a: [__m256i; 2]) -> [__m256; 2] {
        both!(_mm256_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn to_ints(self, a: [__m256; 2]) -> [__m256i; 2] {
        both!(HALF => unsafe {
            let rounded = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[HALF]);
            _mm256_cvttps_epi32(rounded)
        })
    }

    #[inline(always)]
    fn bits(self, a: [__m256; 2]) -> [__m256i; 2] {
        both!(_mm256_castps_si256(a))
    }

    #[inline(always)]
    fn floats(self, a: [__m256i; 2]) -> [__m256; 2] {
        both!(_mm256_castsi256_ps(a))
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> [__m256i; 2] {
        let halves = from.as_chunks::<32>().0;
        both!(HALF => unsafe { _mm256_loadu_si256(halves[HALF].as_ptr().cast()) })
    }

    #[inline(always)]
    fn splat_byte(self, value: u8) -> [__m256i; 2] {
        [unsafe { _mm256_set1_epi8(value.cast_signed()) }; 2]
    }

    #[inline(always)]
    fn and_bytes(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(_mm256_and_si256(a, b))
    }

    #[inline(always)]
    fn or_bytes(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn shift_bytes_left<const BITS: i32>(self, a: [__m256i; 2]) -> [__m256i; 2] {
        self.shift_left::<BITS>(a)
    }

    #[inline(always)]
    fn shift_bytes_right<const BITS: i32>(self, a: [__m256i; 2]) -> [__m256i; 2] {
        both!(HALF => unsafe { _mm256_srli_epi32::<BITS>(a[HALF]) })
    }

    #[inline(always)]
    fn set_where(self, a: [__m256i; 2], mask: u64, value: u8) -> [__m256i; 2] {
        let bits = [mask as u32, (mask >> 32) as u32];
        both!(HALF => unsafe {
            // Byte i of the vector looks at byte i / 8 of the mask, and there at bit i % 8.
            let spread = _mm256_set_epi64x(0x0303_0303_0303_0303, 0x0202_0202_0202_0202, 0x0101_0101_0101_0101, 0);
            let of_byte = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
            let copies = _mm256_shuffle_epi8(_mm256_set1_epi32(bits[HALF].cast_signed()), spread);
            let chosen = _mm256_cmpeq_epi8(_mm256_and_si256(copies, of_byte), of_byte);
            _mm256_or_si256(a[HALF], _mm256_and_si256(chosen, _mm256_set1_epi8(value.cast_signed())))
        })
    }

    #[inline(always)]
    fn dots<const MAX: i32, const ZERO: i32, const ROWS: usize>(
        self,
        weights: &[[__m256i; 2]],
        activations: [&[i8]; ROWS],
        sums: [i32; ROWS],
    ) -> [[__m256i; 2]; ROWS] {
        if MAX == 255 && ZERO == 128 {
            return self.dots_wide(weights, activations);
        }
        let mut dots = self.dots_narrow::<MAX, ROWS>(weights, activations);
        for_each_row!(ROW < ROWS => {
            dots[ROW] = self.add_int(dots[ROW], self.splat_int(-ZERO * sums[ROW]));
        });
        dots
    }
}
