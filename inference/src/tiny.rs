//! A language model of a few hundred kilobytes that means nothing, for tests that need no meaning.
//!
//! It has everything a real file has: quantised weights, a byte-level tokenizer with merges, special tokens, a
//! chat template. The weights come from a seed, so the file's digest is the same on every machine.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::tokens::byte_characters;

/// Families that a tiny model can belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TinyArchitecture {
    /// Gemma 3.
    Gemma3,
    /// Llama.
    Llama,
    /// Qwen 2.
    Qwen2,
    /// Qwen 3.
    Qwen3,
}

/// Writes a tiny Llama whose weights follow from `seed`.
pub fn write_tiny(path: &Path, seed: u64) -> io::Result<()> {
    write_tiny_as(path, seed, TinyArchitecture::Llama)
}

/// Writes a tiny model of a given family.
pub fn write_tiny_as(path: &Path, seed: u64, architecture: TinyArchitecture) -> io::Result<()> {
    let mut file = io::BufWriter::new(File::create(path)?);
    let metadata = metadata(architecture);
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors = tensors(seed, architecture).map_err(io::Error::other)?;
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut file, &metadata, &tensors).map_err(io::Error::other)?;
    file.flush()
}

fn metadata(architecture: TinyArchitecture) -> Vec<(String, Value)> {
    let family = match architecture {
        TinyArchitecture::Gemma3 => "gemma3",
        TinyArchitecture::Llama => "llama",
        TinyArchitecture::Qwen2 => "qwen2",
        TinyArchitecture::Qwen3 => "qwen3",
    };
    let text = |value: &str| Value::String(value.to_owned());
    let number = |value: usize| Value::U32(value as u32);
    let of_family = [
        ("block_count", number(LAYERS)),
        ("context_length", number(CONTEXT)),
        ("embedding_length", number(WIDTH)),
        ("feed_forward_length", number(HIDDEN)),
        ("attention.head_count", number(HEADS)),
        ("attention.head_count_kv", number(SHARED_HEADS)),
        ("attention.key_length", number(WIDTH / HEADS)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("rope.dimension_count", number(WIDTH / HEADS)),
        ("rope.freq_base", Value::F32(10_000.0)),
        ("attention.sliding_window", number(WINDOW)),
    ];
    let general = [
        ("general.architecture", text(family)),
        ("general.name", text("Tiny")),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", Value::Array(tokens().iter().map(|token| text(token)).collect())),
        ("tokenizer.ggml.token_type", Value::Array(kinds())),
        (
            "tokenizer.ggml.merges",
            Value::Array(MERGES.iter().map(|(a, b)| text(&format!("{a} {b}"))).collect()),
        ),
        ("tokenizer.ggml.bos_token_id", number(1)),
        ("tokenizer.ggml.eos_token_id", number(2)),
        ("tokenizer.chat_template", text(crate::chat::CHATML)),
    ];
    let of_family = of_family.map(|(key, value)| (format!("{family}.{key}"), value));
    general.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(of_family).collect()
}

fn tokens() -> Vec<String> {
    let special = SPECIAL.iter().map(|name| (*name).to_owned());
    let bytes = byte_characters().map(String::from);
    let merged = MERGES.iter().map(|(a, b)| format!("{a}{b}"));
    special.chain(bytes).chain(merged).collect()
}

fn kinds() -> Vec<Value> {
    (0..tokens().len()).map(|id| Value::I32(if id < SPECIAL.len() { 3 } else { 1 })).collect()
}

fn tensors(seed: u64, architecture: TinyArchitecture) -> candle_core::Result<Vec<(String, QTensor)>> {
    let mut weights = Weights { stream: stream(seed), tensors: Vec::new() };
    // Logits of a spread of two or three make sampling interesting.
    weights.add("token_embd.weight", &[tokens().len(), WIDTH], 1.0)?;
    weights.add("output_norm.weight", &[WIDTH], 0.5)?;
    for layer in 0..LAYERS {
        weights.layer(&format!("blk.{layer}"), architecture)?;
    }
    Ok(weights.tensors)
}

struct Weights {
    stream: blake3::OutputReader,
    tensors: Vec<(String, QTensor)>,
}

impl Weights {
    fn layer(&mut self, layer: &str, architecture: TinyArchitecture) -> candle_core::Result<()> {
        let narrow = WIDTH / HEADS * SHARED_HEADS;
        for (name, rows, columns) in [
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", narrow, WIDTH),
            ("attn_v", narrow, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", HIDDEN, WIDTH),
            ("ffn_up", HIDDEN, WIDTH),
            ("ffn_down", WIDTH, HIDDEN),
        ] {
            self.add(&format!("{layer}.{name}.weight"), &[rows, columns], 0.3)?;
        }
        for name in ["attn_norm", "ffn_norm"] {
            self.add(&format!("{layer}.{name}.weight"), &[WIDTH], 0.5)?;
        }
        let norms = matches!(architecture, TinyArchitecture::Qwen3 | TinyArchitecture::Gemma3);
        for name in ["attn_q_norm", "attn_k_norm"].iter().filter(|_| norms) {
            self.add(&format!("{layer}.{name}.weight"), &[WIDTH / HEADS], 0.5)?;
        }
        let biases = architecture == TinyArchitecture::Qwen2;
        for (name, width) in
            [("attn_q", WIDTH), ("attn_k", narrow), ("attn_v", narrow)].iter().filter(|_| biases)
        {
            self.add(&format!("{layer}.{name}.bias"), &[*width], 0.5)?;
        }
        let norms_after = architecture == TinyArchitecture::Gemma3;
        for name in ["post_attention_norm", "post_ffw_norm"].iter().filter(|_| norms_after) {
            self.add(&format!("{layer}.{name}.weight"), &[WIDTH], 0.5)?;
        }
        Ok(())
    }

    /// Matrices are uniform around zero and quantised, vectors around one and left alone.
    fn add(&mut self, name: &str, shape: &[usize], spread: f32) -> candle_core::Result<()> {
        let vector = shape.len() == 1;
        let centre = if vector { 1.0 } else { 0.0 };
        let count: usize = shape.iter().product();
        let values: Vec<_> = (0..count).map(|_| centre + spread * self.uniform()).collect();
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
        let kind = if vector { GgmlDType::F32 } else { GgmlDType::Q8_0 };
        self.tensors.push((name.to_owned(), QTensor::quantize(&tensor, kind)?));
        Ok(())
    }

    /// Between −1 and 1.
    fn uniform(&mut self) -> f32 {
        let mut bytes = [0; 2];
        self.stream.fill(&mut bytes);
        f32::from(i16::from_le_bytes(bytes)) / 32_768.0
    }
}

fn stream(seed: u64) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new_derive_key("llamesh inference 1 tiny model");
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof()
}

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const MERGES: [(&str, &str); 8] =
    [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("a", "n"), ("Ġ", "a"), ("e", "r"), ("o", "u")];
const CONTEXT: usize = 512;
/// Positions that a local layer of Gemma 3 sees; other families have none.
const WINDOW: usize = 20;
const WIDTH: usize = 64;
const HIDDEN: usize = 128;
const LAYERS: usize = 2;
const HEADS: usize = 2;
const SHARED_HEADS: usize = 1;
