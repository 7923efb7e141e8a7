//! Which arithmetic candle will run on this machine, as a word in the engine's profile.
//!
//! candle picks its kernels by what the processor can do, and they differ in more than the last bit: with
//! AVX-512 VNNI, activations are quantised in blocks of 256, elsewhere in blocks of 32. Two peers may expect equal
//! tokens only if this word is equal. The same environment variables that steer candle's choice are read here.

/// The instruction-set class that decides candle's choice of kernels.
#[must_use]
pub fn isa_class() -> String {
    let dequantized = ["CANDLE_DEQUANTIZE_ALL", "CANDLE_DEQUANTIZE_ALL_F16"].into_iter().find(|v| is_set(v));
    let suffix = match dequantized {
        Some("CANDLE_DEQUANTIZE_ALL") => "-f32",
        Some(_) => "-f16",
        None => "",
    };
    format!("{}{suffix}", instructions())
}

/// How many threads candle computes on: `RAYON_NUM_THREADS`, or as many as there are cores.
#[must_use]
pub fn threads() -> usize {
    candle_core::utils::get_num_threads()
}

fn is_set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| !value.is_empty() && value != "0")
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> &'static str {
    use std::arch::is_x86_feature_detected as has;
    let forced = |variable| std::env::var(variable).as_deref() == Ok("1");
    let avx2 = has!("avx2") && has!("fma");
    if forced("MISTRALRS_FORCE_AVX2") {
        return if avx2 { "x86-avx2" } else { "x86-scalar" };
    }
    if !forced("MISTRALRS_FORCE_AVXVNNI") && has!("avx512f") && has!("avx512vnni") {
        return if has_amx() { "x86-amx" } else { "x86-avx512vnni" };
    }
    if has!("avx2") && (has!("avxvnni") || forced("MISTRALRS_FORCE_AVXVNNI")) {
        return "x86-avxvnni";
    }
    if avx2 { "x86-avx2" } else { "x86-scalar" }
}

/// Tile and int8-tile bits; the library's macro for them is not stable.
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    cfg!(target_os = "linux") && leaf.edx & (1 << 25) != 0 && leaf.edx & (1 << 24) != 0
}

#[cfg(target_arch = "aarch64")]
fn instructions() -> &'static str {
    use std::arch::is_aarch64_feature_detected as has;
    match (has!("i8mm"), has!("dotprod")) {
        (true, _) => "arm-i8mm",
        (false, true) => "arm-dotprod",
        (false, false) => "arm-neon",
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instructions() -> &'static str {
    std::env::consts::ARCH
}
