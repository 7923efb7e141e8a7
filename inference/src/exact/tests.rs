//! The promise, on tiny models of every family: one function from tokens to logits, however it is computed.

use std::fmt::Debug;
use std::sync::OnceLock;

use proptest::collection::vec;
use proptest::prelude::*;

use super::kernel::Routine;
use super::*;
use crate::bench;
use crate::model::{Loading, load_exactly};
use crate::tiny::{TinyArchitecture, write_tiny_as};

/// Runs a routine on all paths, which must agree, and gives what came out.
pub(super) fn agreed<R: Routine<Output: PartialEq + Debug> + Clone>(routine: R) -> R::Output {
    let mut kernels = Kernel::available().into_iter();
    let reference = kernels.next().unwrap().run(routine.clone());
    for kernel in kernels {
        assert_eq!(kernel.run(routine.clone()), reference, "{kernel}");
    }
    reference
}

/// The bits of a number, those of one NaN for all: processors differ in them.
pub(super) fn canonical(x: f32) -> u32 {
    if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
}

/// Numbers that follow from a seed (Steele, Lea and Flood's SplitMix).
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Between −1 and 1.
    pub(super) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

const FAMILIES: [TinyArchitecture; 4] =
    [TinyArchitecture::Llama, TinyArchitecture::Qwen2, TinyArchitecture::Qwen3, TinyArchitecture::Gemma3];

/// The tiny model of a family for each path and number of threads; the first is the reference.
fn models(family: usize) -> &'static [ExactModel] {
    static MODELS: [OnceLock<Vec<ExactModel>>; 4] = [const { OnceLock::new() }; 4];
    MODELS[family].get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        write_tiny_as(&path, 7, FAMILIES[family]).unwrap();
        let kernels = Kernel::available().into_iter();
        let ways = kernels.flat_map(|kernel| [1, 2, 4].map(|threads| (kernel, threads)));
        let load = |(kernel, threads)| {
            let loading = Loading { threads: Some(threads), kernel: Some(kernel), ..Loading::default() };
            load_exactly(&path, loading).unwrap()
        };
        ways.map(load).collect()
    })
}

/// The bits of logits and states.
fn bits(position: &Position) -> Vec<u32> {
    position.logits.iter().chain(position.state.as_ref().unwrap()).map(|x| x.to_bits()).collect()
}

fn all_bits(positions: &[Position]) -> Vec<Vec<u32>> {
    positions.iter().map(bits).collect()
}

/// What follows each of some tokens, read from nothing by the reference.
fn truth(family: usize, tokens: &[u32]) -> Vec<Vec<u32>> {
    all_bits(&models(family)[0].start().forward_all(tokens).unwrap())
}

fn tokens(most: usize) -> impl Strategy<Value = Vec<u32>> {
    vec(0u32..267, 1..most)
}

/// Cuts tokens into pieces of the given lengths, over and over.
fn pieces<'a>(mut tokens: &'a [u32], lengths: &[usize]) -> Vec<&'a [u32]> {
    let mut pieces = Vec::new();
    for &length in lengths.iter().cycle() {
        if tokens.is_empty() {
            break;
        }
        let (piece, rest) = tokens.split_at(length.min(tokens.len()));
        pieces.push(piece);
        tokens = rest;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn neither_path_nor_threads_nor_pieces_change_a_bit(
        family in 0usize..4,
        tokens in tokens(160),
        lengths in vec(1usize..50, 1..4),
    ) {
        let truth = truth(family, &tokens);
        for model in models(family) {
            let name = format!("{} on {} threads", model.kernel(), model.threads());
            prop_assert_eq!(&all_bits(&model.start().forward_all(&tokens).unwrap()), &truth, "whole, {}", name);
            let mut sequence = model.start();
            for lengths in [&lengths[..], &[1]] {
                let mut end = 0;
                for piece in pieces(&tokens, lengths) {
                    end += piece.len();
                    prop_assert_eq!(&bits(&sequence.forward(piece).unwrap()), &truth[end - 1], "{}, {}", end, name);
                }
                sequence = model.start();
            }
        }
    }

    #[test]
    fn others_in_a_pass_change_no_bit(
        family in 0usize..4,
        batch in vec((tokens(90), vec(1usize..20, 1..3)), 1..6),
        model in 0usize..9,
    ) {
        let models = models(family);
        let model = &models[model % models.len()];
        let truths: Vec<_> = batch.iter().map(|(tokens, _)| truth(family, tokens)).collect();
        let pieces: Vec<_> = batch.iter().map(|(tokens, lengths)| pieces(tokens, lengths)).collect();
        let mut sequences: Vec<_> = batch.iter().map(|_| (model.start(), 0)).collect();
        for step in 0..pieces.iter().map(Vec::len).max().unwrap_or(0) {
            let (mut pass, mut expected) = (Vec::new(), Vec::new());
            for (at, (sequence, end)) in sequences.iter_mut().enumerate() {
                if let Some(piece) = pieces[at].get(step) {
                    *end += piece.len();
                    expected.push(&truths[at][*end - 1]);
                    pass.push((sequence, *piece));
                }
            }
            for (found, expected) in ExactSequence::forward_together(&mut pass).iter().zip(&expected) {
                prop_assert_eq!(&bits(found), *expected, "step {} on {}", step, model.kernel());
            }
        }
    }

    #[test]
    fn clones_go_their_own_way(
        family in 0usize..4,
        common in tokens(70),
        ways in vec(tokens(40), 2..4),
    ) {
        let mut origin = models(family)[0].start();
        origin.forward(&common).unwrap();
        let mut clones: Vec<_> = ways.iter().map(|_| origin.clone()).collect();
        let truths: Vec<_> = ways.iter().map(|way| truth(family, &[&common[..], way].concat())).collect();
        // In turns, so that one that wrote into another's pages would be caught.
        for step in 0..40 {
            for ((clone, way), truth) in clones.iter_mut().zip(&ways).zip(&truths) {
                if let Some(&token) = way.get(step) {
                    let found = bits(&clone.forward(&[token]).unwrap());
                    prop_assert_eq!(&found, &truth[common.len() + step]);
                }
            }
        }
    }
}

/// A new value here is a new profile: peers with the old one would call honest answers wrong.
#[test]
fn the_profile_is_what_it_was() {
    let ways = models(0).len();
    for way in 0..ways {
        let digests = [0, 1, 2, 3].map(|family| bench::digest(&models(family)[way]).unwrap().to_string());
        assert_eq!(digests, GOLDEN, "{FAMILIES:?} on {}", models(0)[way].kernel());
    }
}

#[test]
fn tokens_that_are_missing_are_an_error() {
    assert!(models(0)[0].start().forward(&[]).is_err());
    assert!(models(0)[0].start().forward_all(&[]).unwrap().is_empty());
    assert!(ExactSequence::forward_together(&mut []).is_empty());
}

#[test]
fn kernels_are_found_by_name() {
    for kernel in Kernel::available() {
        assert_eq!(Kernel::named(kernel.name()).unwrap().name(), kernel.name());
    }
    for name in ["scalar", "avx2", "avx512", "amx"] {
        assert!(
            matches!(Kernel::named(name), Ok(_) | Err(KernelError::Missing { .. })),
            "{name} is a kernel"
        );
    }
    assert!(matches!(Kernel::named("abacus"), Err(KernelError::Unknown { .. })));
}

/// Why a tiny Llama with other bytes, `after` bytes behind the name of a tensor, is not loaded.
fn refusal(name: &str, after: usize, bytes: &[u8]) -> LoadError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write_tiny_as(&path, 7, TinyArchitecture::Llama).unwrap();
    let mut file = std::fs::read(&path).unwrap();
    let at =
        file.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() + name.len() + after;
    file[at..at + bytes.len()].copy_from_slice(bytes);
    std::fs::write(&path, file).unwrap();
    load_exactly(&path, Loading::default()).unwrap_err()
}

/// In a file a name is followed by the number of dimensions, the dimensions from the inner to the outer, the type
/// and the place.
#[test]
fn what_does_not_fit_is_named() {
    let shape = |columns: u64, rows: u64| [columns.to_le_bytes(), rows.to_le_bytes()].concat();
    let (down, norm) = ("blk.1.ffn_down.weight", "blk.0.attn_norm.weight");
    for (name, after, bytes, complaint) in [
        (down, 4, shape(64, 128), "tensor `blk.1.ffn_down.weight` is [128, 64] and should be [64, 128]"),
        (down, 4, shape(128, 32), "tensor `blk.1.ffn_down.weight` is [32, 128] and should be [64, 128]"),
        (
            down,
            4,
            shape(1 << 32, 1 << 32),
            "tensor `blk.1.ffn_down.weight` has 18446744073709551615 elements",
        ),
        (down, 4, shape(129, 64), "tensor `blk.1.ffn_down.weight` is not aligned to its blocks"),
        (down, 20, 99_u32.to_le_bytes().to_vec(), "`blk.1.ffn_down.weight`"),
        (
            down,
            24,
            1_u64.to_le_bytes().to_vec(),
            "tensor `blk.1.ffn_down.weight` is not aligned to its blocks",
        ),
        (
            down,
            24,
            (1_u64 << 40).to_le_bytes().to_vec(),
            "ends in the middle of tensor `blk.1.ffn_down.weight`",
        ),
        (
            norm,
            4,
            32_u64.to_le_bytes().to_vec(),
            "tensor `blk.0.attn_norm.weight` is [32] and should be [64]",
        ),
        (norm, 12, 8_u32.to_le_bytes().to_vec(), "`blk.0.attn_norm.weight`"),
    ] {
        let message = refusal(name, after, &bytes).to_string();
        assert!(message.contains(complaint), "{message}");
    }
    for stem in ["blk.1.ffn_u", "blk.0.attn_n", "output_"] {
        let message = refusal(stem, 0, b"?").to_string();
        assert!(message.contains(&format!("tensor `{stem}?")), "{message}");
    }
}

/// Digests of the tiny models of [`FAMILIES`].
const GOLDEN: [&str; 4] = [
    "188075ad1b68af917f29f45813c75fb06a6bfe6b78de7f20bd9fdcc76674b21a",
    "f7a1fd6d609d341f00b38b0c7fc5f419a8da33dc42ba12f67df4a44080e6503f",
    "2d888c0c1cfc9c8258c50dc6b2f617d02de6e36407ca15f955d2dbf04a5ba604",
    "249fec61d306424285677cb6aca1dc5d1d4401b33996843d8f681c4597d47d57",
];
