//! An embedder of some kilobytes that means nothing, for tests that need no meaning.
//!
//! The weights come from a seed, so its digest is the same on every machine.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::{CONFIG, SENTENCES, TOKENIZER, WEIGHTS};

/// Writes the files of a tiny embedder into a new folder.
///
/// # Errors
/// When they cannot be written.
pub fn write_tiny(folder: &Path, seed: u64) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(CONFIG), config().to_string())?;
    fs::write(folder.join(SENTENCES), json!({ "max_seq_length": CONTEXT }).to_string())?;
    fs::write(folder.join(TOKENIZER), tokenizer().to_string())?;
    let tensors = tensors(seed).map_err(io::Error::other)?;
    candle_core::safetensors::save(&tensors, folder.join(WEIGHTS)).map_err(io::Error::other)
}

fn config() -> Value {
    json!({
        "model_type": "bert", "vocab_size": words().len(), "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "intermediate_size": 2 * WIDTH, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0, "max_position_embeddings": 2 * CONTEXT, "type_vocab_size": 1,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    })
}

/// Every letter alone and as the rest of a word.
fn words() -> Vec<String> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned);
    let letters = ('a'..='z').flat_map(|letter| [letter.to_string(), format!("##{letter}")]);
    special.into_iter().chain(letters).collect()
}

fn tokenizer() -> Value {
    let words: serde_json::Map<_, _> = (0..).zip(words()).map(|(id, word)| (word, json!(id))).collect();
    let special = |id: u32, name: &str| json!({ "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    let around = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let named = |id: u32, name: &str| json!({ "id": name, "ids": [id], "tokens": [name] });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "decoder": null,
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [around("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, around("[SEP]")],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": { "[CLS]": named(2, "[CLS]"), "[SEP]": named(3, "[SEP]") },
        },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": words },
    })
}

fn tensors(seed: u64) -> candle_core::Result<HashMap<String, Tensor>> {
    let mut state = seed;
    let mut made = HashMap::new();
    for (name, shape) in shapes() {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| next(&mut state)).collect();
        made.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Ok(made)
}

fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    let mut add = |name: String, shape: &[usize]| shapes.push((name, shape.to_vec()));
    for (name, rows) in [("word", words().len()), ("position", 2 * CONTEXT), ("token_type", 1)] {
        add(format!("embeddings.{name}_embeddings.weight"), &[rows, WIDTH]);
    }
    let norm = |of: &str| [format!("{of}.weight"), format!("{of}.bias")];
    for name in norm("embeddings.LayerNorm") {
        add(name, &[WIDTH]);
    }
    for layer in (0..LAYERS).map(|layer| format!("encoder.layer.{layer}")) {
        for (part, rows, columns) in [
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", 2 * WIDTH, WIDTH),
            ("output.dense", WIDTH, 2 * WIDTH),
        ] {
            add(format!("{layer}.{part}.weight"), &[rows, columns]);
            add(format!("{layer}.{part}.bias"), &[rows]);
        }
        for part in ["attention.output", "output"] {
            for name in norm(&format!("{layer}.{part}.LayerNorm")) {
                add(name, &[WIDTH]);
            }
        }
    }
    shapes
}

/// Between -1 and 1, from a linear congruence: this needs no quality.
fn next(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}

const CONTEXT: usize = 16;
const LAYERS: usize = 2;
const WIDTH: usize = 16;
