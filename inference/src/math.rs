//! Natural logarithm, exponential, sine and cosine from `+ − × ÷` alone.
//!
//! Every peer must draw the same token from the same logits, but `ln`, `exp` and `sin` of the platform differ in
//! the last bit between libraries and compilers. The functions here use IEEE operations that are exactly
//! specified, in a written order, and never a fused multiply-add, so that they give the same bits everywhere.
//! Their relative error is below 1e-14, tested against the standard library.

/// The natural logarithm: `−∞` at zero, NaN below zero, accurate close to one.
#[must_use]
pub fn ln(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x == f64::INFINITY {
        return x;
    }
    let (exponent, mantissa) = split(x);
    let f = mantissa - 1.0;
    let s = f / (2.0 + f);
    let log = 2.0 * s * atanh_series(s * s);
    // The low half of ln 2 goes in first: it is what the high half cannot hold.
    exponent * LN2_HIGH + (exponent * LN2_LOW + log)
}

/// The exponential: zero below `−745`, infinite above `709.78`.
#[must_use]
pub fn exp(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > EXP_LARGEST {
        return f64::INFINITY;
    }
    if x < EXP_SMALLEST {
        return 0.0;
    }
    let n = nearest(x * LOG2_E);
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    scale(exp_series(r), n as i64)
}

/// The exponential of each of many numbers, with the bits of [`exp`]: its operations in its order, with choices in
/// place of branches, so that the compiler does several at once.
pub fn exp_each(values: &mut [f64]) {
    for value in values {
        *value = exp_without_branches(*value);
    }
}

#[inline(always)]
fn exp_without_branches(x: f64) -> f64 {
    let v = x * LOG2_E;
    let magnitude = floor(v.abs() + 0.5);
    let n = if v < 0.0 { -magnitude } else { magnitude };
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // Powers of two that leave the normal range are two factors, as in `scale`.
    let (first, second) = if n < -1022.0 { (n + 54.0, 1.0 / TWO_54) } else { (n, 1.0) };
    let (first, second) = if n > 1023.0 { (n - 1.0, 2.0) } else { (first, second) };
    let power = f64::from_bits((first + (TWO_52 + 1023.0)).to_bits() << 52);
    let result = exp_series(r) * power * second;
    let result = if x > EXP_LARGEST { f64::INFINITY } else { result };
    let result = if x < EXP_SMALLEST { 0.0 } else { result };
    if x.is_nan() { x } else { result }
}

/// The greatest integer that is not above a number from zero to `2^51`.
#[inline(always)]
fn floor(x: f64) -> f64 {
    let nearest = (x + TWO_52) - TWO_52;
    if nearest > x { nearest - 1.0 } else { nearest }
}

/// Sine and cosine of an angle of at most some millions, to about 1e-15.
#[must_use]
pub fn sin_cos(x: f64) -> (f64, f64) {
    let quarter = nearest(x * FRAC_2_PI);
    let r = (x - quarter * HALF_PI_HIGH) - quarter * HALF_PI_LOW;
    let z = r * r;
    let series = |terms: &[f64; 9]| terms.iter().rev().fold(0.0, |sum, term| sum * z + term);
    let (sin, cos) = (r * series(&SIN_TERMS), series(&COS_TERMS));
    match (quarter as i64).rem_euclid(4) {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// `x = 2^exponent · mantissa` with the mantissa in `[√½, √2)`, so that values near one keep exponent zero.
fn split(x: f64) -> (f64, f64) {
    let (x, shift) = if x < f64::MIN_POSITIVE { (x * TWO_54, 54) } else { (x, 0) };
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i64 - 1023 - shift;
    let mantissa = f64::from_bits((bits & MANTISSA_BITS) | ONE_BITS);
    if mantissa > SQRT_2 { ((exponent + 1) as f64, mantissa * 0.5) } else { (exponent as f64, mantissa) }
}

/// `Σ z^k / (2k + 1)`: the series of `atanh(s) / s` in `z = s² ≤ 0.0295`.
fn atanh_series(z: f64) -> f64 {
    ODD_RECIPROCALS.iter().rev().fold(0.0, |sum, term| sum * z + term)
}

/// `Σ r^k / k!` for `|r| ≤ ½ ln 2`.
fn exp_series(r: f64) -> f64 {
    INVERSE_FACTORIALS.iter().rev().fold(0.0, |sum, term| sum * r + term)
}

/// Rounds half away from zero; the values here are far below 2^52.
fn nearest(x: f64) -> f64 {
    if x < 0.0 { -((0.5 - x) as i64 as f64) } else { (x + 0.5) as i64 as f64 }
}

/// `x · 2^n`, in two steps where one would leave the normal range.
fn scale(x: f64, n: i64) -> f64 {
    if n < -1022 {
        return x * power_of_two(n + 54) / TWO_54;
    }
    if n > 1023 {
        return x * power_of_two(n - 1) * 2.0;
    }
    x * power_of_two(n)
}

fn power_of_two(n: i64) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// ln 2 without its last 32 bits: a multiple of it by a small integer is exact.
const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
/// What is missing from `LN2_HIGH`.
const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
const SQRT_2: f64 = std::f64::consts::SQRT_2;
const LOG2_E: f64 = std::f64::consts::LOG2_E;
const TWO_54: f64 = 18_014_398_509_481_984.0;
/// From here on a number has no fraction: adding it leaves an integer in the last bits.
const TWO_52: f64 = 4_503_599_627_370_496.0;
const MANTISSA_BITS: u64 = 0x000f_ffff_ffff_ffff;
const ONE_BITS: u64 = 0x3ff0_0000_0000_0000;
/// `1 / (2k + 1)`; z^12 / 25 is below 1e-19 for every z that occurs.
const ODD_RECIPROCALS: [f64; 12] = {
    let mut terms = [1.0; 12];
    let mut k = 1;
    while k < terms.len() {
        terms[k] = 1.0 / (2 * k + 1) as f64;
        k += 1;
    }
    terms
};
/// `1 / k!`; r^15 / 15! is below 1e-18 for every r that occurs. All factorials here are exact.
const INVERSE_FACTORIALS: [f64; 15] = {
    let mut terms = [1.0; 15];
    let mut factorial = 1.0;
    let mut k = 1;
    while k < terms.len() {
        factorial *= k as f64;
        terms[k] = 1.0 / factorial;
        k += 1;
    }
    terms
};
/// The alternating reciprocals of the factorials of every second number from `first` on.
const fn alternating(first: u64) -> [f64; 9] {
    let mut terms = [1.0; 9];
    let (mut k, mut factorial) = (0, 1.0);
    while k < terms.len() {
        terms[k] = if k % 2 == 0 { 1.0 / factorial } else { -1.0 / factorial };
        let next = first + 2 * k as u64 + 1;
        factorial *= (next * (next + 1)) as f64;
        k += 1;
    }
    terms
}

/// `sin r / r` in `r²`; r^18 / 19! is below 1e-18 for `|r| ≤ π/4`.
const SIN_TERMS: [f64; 9] = alternating(1);
/// `cos r` in `r²`.
const COS_TERMS: [f64; 9] = alternating(0);
const FRAC_2_PI: f64 = std::f64::consts::FRAC_2_PI;
/// π/2 in 33 bits: a multiple of it by an integer of 20 bits is exact.
const HALF_PI_HIGH: f64 = f64::from_bits(0x3ff9_21fb_5440_0000);
/// What is missing from it.
const HALF_PI_LOW: f64 = f64::from_bits(0x3dd0_b461_1a62_6331);
const EXP_LARGEST: f64 = 709.782_712_893_384;
const EXP_SMALLEST: f64 = -745.2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn relative(ours: f64, reference: f64) -> f64 {
        if ours == reference { 0.0 } else { ((ours - reference) / reference).abs() }
    }

    #[test]
    fn the_edges_are_as_in_ieee() {
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan() && exp(f64::NAN).is_nan());
        assert_eq!(ln(f64::INFINITY), f64::INFINITY);
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(exp(800.0), f64::INFINITY);
        assert!(exp(-745.0) > 0.0 && exp(709.78).is_finite());
    }

    #[test]
    fn close_to_one_the_logarithm_keeps_its_digits() {
        for k in 1..=53 {
            let below = 1.0 - 0.5_f64.powi(k);
            assert!(relative(ln(below), below.ln()) < 1e-14, "k = {k}");
        }
    }

    #[test]
    fn the_bits_are_pinned() {
        let bits = |x: f64| format!("{:016x}", x.to_bits());
        assert_eq!(bits(ln(10.0)), "40026bb1bbb55516");
        assert_eq!(bits(exp(1.0)), "4005bf0a8b14576a");
        assert_eq!(bits(ln(0.3)), "bff34378fcbda721");
        assert_eq!(bits(exp(-20.5)), "3e157a3afeed00ac");
    }

    /// Edges of every branch, and their neighbours.
    fn edges() -> Vec<f64> {
        let edges =
            [0.0, EXP_LARGEST, EXP_SMALLEST, -708.0, -744.44, 709.7, 0.5 / LOG2_E, 1.5 / LOG2_E, 1e300];
        let both = edges.into_iter().flat_map(|edge| [edge, -edge]);
        let near = both.flat_map(|edge| [edge, edge.next_up(), edge.next_down()]);
        near.chain([f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN, f64::MIN_POSITIVE, 1e-320])
            .collect()
    }

    #[test]
    fn many_exponentials_have_the_bits_of_one() {
        let halves = (-2200..2200).map(|k| f64::from(k) * 0.5 / LOG2_E);
        let mut values: Vec<f64> = edges().into_iter().chain(halves).collect();
        let one_by_one: Vec<u64> = values.iter().map(|&x| exp(x).to_bits()).collect();
        exp_each(&mut values);
        assert!(values.iter().map(|x| x.to_bits()).eq(one_by_one));
    }

    proptest! {
        #[test]
        fn any_exponentials_have_the_bits_of_one(
            mut values in prop::collection::vec(prop_oneof![any::<f64>(), -800.0f64..800.0, -60.0f64..0.0], 0..100),
        ) {
            let one_by_one: Vec<u64> = values.iter().map(|&x| exp(x).to_bits()).collect();
            exp_each(&mut values);
            prop_assert!(values.iter().map(|x| x.to_bits()).eq(one_by_one));
        }

        #[test]
        fn ln_agrees_with_the_platform(bits in 1u64..0x7ff0_0000_0000_0000) {
            let x = f64::from_bits(bits);
            prop_assert!(relative(ln(x), x.ln()) < 1e-14, "{x:e}");
        }

        #[test]
        fn exp_agrees_with_the_platform(x in -708.0f64..709.7) {
            prop_assert!(relative(exp(x), x.exp()) < 1e-14, "{x:e}");
        }

        #[test]
        fn sine_and_cosine_agree_with_the_platform(x in -1e6f64..1e6) {
            let (sin, cos) = sin_cos(x);
            prop_assert!((sin - x.sin()).abs() < 1e-15 && (cos - x.cos()).abs() < 1e-15, "{x:e}");
        }

        #[test]
        fn exp_undoes_ln(x in 1e-30f64..1e30) {
            prop_assert!(relative(exp(ln(x)), x) < 1e-13);
        }
    }
}
