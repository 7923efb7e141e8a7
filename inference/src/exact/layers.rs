//! The weights of a model, layer by layer, and what goes with them: biases, norms, rotations.

use std::collections::BTreeMap;

use candle_core::quantized::gguf_file::Content;

use super::architecture::{Dimensions, Unfit};
use super::linear::{Kind, Linear};
use super::weights::{Tensors, Wanted, unpaired};
use crate::gguf::LoadError;

/// The weights of one layer.
pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) queries: Projection,
    pub(super) keys: Projection,
    pub(super) values: Projection,
    pub(super) attention_output: Linear,
    /// After attention, before it is added.
    pub(super) attention_post_norm: Option<Vec<f32>>,
    pub(super) feed_norm: Vec<f32>,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
    /// After the feed-forward layer, before it is added.
    pub(super) feed_post_norm: Option<Vec<f32>>,
    /// Which of the rotations is used, and how far back a row sees.
    pub(super) rotation: usize,
    pub(super) reach: usize,
}

/// A linear layer with what may follow it.
pub(super) struct Projection {
    pub(super) weights: Linear,
    pub(super) bias: Option<Vec<f32>>,
    /// Of each head.
    pub(super) norm: Option<Vec<f32>>,
}

impl Layer {
    pub(super) fn load(
        tensors: &Tensors<'_>,
        dimensions: &Dimensions,
        layer: usize,
        packed: &mut Packed,
    ) -> Result<Self, LoadError> {
        let Dimensions { width, heads, shared_heads, head_width, .. } = *dimensions;
        let name = |part: &str| format!("blk.{layer}.{part}");
        let norm = |part: &str| tensors.vector(&name(part), width);
        let optional = |part: &str, length: usize| {
            let name = name(part);
            tensors.has(&name).then(|| tensors.vector(&name, length)).transpose()
        };
        let mut projection = |part: &str, heads: usize| -> Result<Projection, LoadError> {
            // What belongs to rows that are sorted into halves is sorted with them.
            let sorted = |values: Vec<f32>| match dimensions.family.interleaved && part != "v" {
                true => (0..values.len()).map(|row| values[unpaired(row, head_width)]).collect(),
                false => values,
            };
            Ok(Projection {
                weights: packed.take(&name(&format!("attn_{part}.weight")))?,
                bias: optional(&format!("attn_{part}.bias"), heads * head_width)?.map(sorted),
                norm: optional(&format!("attn_{part}_norm.weight"), head_width)?.map(sorted),
            })
        };
        let local = dimensions.is_local(layer);
        Ok(Self {
            attention_norm: norm("attn_norm.weight")?,
            queries: projection("q", heads)?,
            keys: projection("k", shared_heads)?,
            values: projection("v", shared_heads)?,
            attention_output: packed.take(&name("attn_output.weight"))?,
            attention_post_norm: optional("post_attention_norm.weight", width)?,
            feed_norm: norm("ffn_norm.weight")?,
            gate: packed.take(&name("ffn_gate.weight"))?,
            up: packed.take(&name("ffn_up.weight"))?,
            down: packed.take(&name("ffn_down.weight"))?,
            feed_post_norm: optional("post_ffw_norm.weight", width)?,
            rotation: usize::from(local),
            reach: if local { dimensions.window } else { usize::MAX },
        })
    }
}

/// Packed tensors that wait for their place in the model.
pub(super) struct Packed(pub(super) BTreeMap<String, Linear>);

impl Packed {
    pub(super) fn take(&mut self, name: &str) -> Result<Linear, LoadError> {
        let missing = || LoadError::Broken { what: format!("tensor `{name}` is missing") };
        self.0.remove(name).ok_or_else(missing)
    }
}

/// Whether this engine knows all tensors of a file, and has kernels for their types.
pub(super) fn covered(content: &Content) -> Result<(), Unfit> {
    for (name, info) in &content.tensor_infos {
        let part = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map(|(_, part)| part);
        if !part.map_or_else(|| OUTSIDE.contains(&name.as_str()), |part| INSIDE.contains(&part)) {
            return Err(Unfit(format!("tensor `{name}`")));
        }
        let columns = info.shape.dims().last().copied().unwrap_or_default();
        let kind = Kind::of(info.ggml_dtype).filter(|kind| columns.is_multiple_of(kind.granularity()));
        if kind.is_none() {
            return Err(Unfit(format!("weights of type {:?} in `{name}`", info.ggml_dtype)));
        }
    }
    Ok(())
}

/// All matrices of a model, by the shapes that its dimensions give them.
pub(super) fn wanted(dimensions: &Dimensions, vocabulary: usize, output: bool) -> Vec<Wanted> {
    let Dimensions { width, hidden, heads, shared_heads, head_width, .. } = *dimensions;
    let (queries, shared) = (heads * head_width, shared_heads * head_width);
    let pairs = if dimensions.family.interleaved { head_width } else { 0 };
    let matrix = |name: String, rows, columns| Wanted { name, rows, columns, pairs: 0 };
    let mut wanted = vec![matrix(EMBEDDINGS.to_owned(), vocabulary, width)];
    wanted.extend(output.then(|| matrix(OUTPUT.to_owned(), vocabulary, width)));
    for layer in 0..dimensions.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        wanted.extend([
            Wanted { pairs, ..matrix(name("attn_q"), queries, width) },
            Wanted { pairs, ..matrix(name("attn_k"), shared, width) },
            matrix(name("attn_v"), shared, width),
            matrix(name("attn_output"), width, queries),
            matrix(name("ffn_gate"), hidden, width),
            matrix(name("ffn_up"), hidden, width),
            matrix(name("ffn_down"), width, hidden),
        ]);
    }
    wanted
}

pub(super) const EMBEDDINGS: &str = "token_embd.weight";
pub(super) const OUTPUT: &str = "output.weight";
pub(super) const ROTATION_FACTORS: &str = "rope_freqs.weight";
/// The rotations' base of layers that see a window only (Gemma 3's report).
pub(super) const LOCAL_BASE: f64 = 10_000.0;
/// Tensors outside of layers.
const OUTSIDE: [&str; 4] = [EMBEDDINGS, "output_norm.weight", OUTPUT, ROTATION_FACTORS];
/// Tensors of a layer.
const INSIDE: [&str; 16] = [
    "attn_norm.weight",
    "attn_q.weight",
    "attn_q.bias",
    "attn_q_norm.weight",
    "attn_k.weight",
    "attn_k.bias",
    "attn_k_norm.weight",
    "attn_v.weight",
    "attn_v.bias",
    "attn_output.weight",
    "post_attention_norm.weight",
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
    "post_ffw_norm.weight",
];
