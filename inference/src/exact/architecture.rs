//! The families of models that the exact engine knows: what differs between them, and the numbers of one file.
//!
//! All are decoders of the Llama kind; a family is a row of the table. What a file says by having a tensor (biases,
//! norms of heads, an output of its own) is not in the table. A file that needs more than this, say experts or
//! another scaling of positions, is [`Unfit`], and left to candle's models.

use candle_core::quantized::gguf_file::{Content, Value};

use super::float::Gate;
use super::rotation::{Scaling, Yarn};
use crate::gguf::LoadError;

/// What a family does its own way.
#[derive(Debug)]
pub(super) struct Family {
    /// Its name in files.
    pub(super) name: &'static str,
    /// Whether a rotation turns neighbouring channels; otherwise it turns `i` with `i + half`.
    pub(super) interleaved: bool,
    /// What the feed-forward gate does.
    pub(super) gate: Gate,
    /// Whether embeddings are multiplied by the root of their width.
    pub(super) scaled_embeddings: bool,
    /// How many layers of a file see a window only before one sees everything; zero where all see everything.
    pub(super) local_layers: usize,
}

const FAMILIES: [Family; 4] = [
    Family { name: "llama", interleaved: true, gate: Gate::Silu, scaled_embeddings: false, local_layers: 0 },
    Family { name: "qwen2", interleaved: false, gate: Gate::Silu, scaled_embeddings: false, local_layers: 0 },
    Family { name: "qwen3", interleaved: false, gate: Gate::Silu, scaled_embeddings: false, local_layers: 0 },
    Family { name: "gemma3", interleaved: false, gate: Gate::Gelu, scaled_embeddings: true, local_layers: 5 },
];

/// The names of all families, for messages.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.name)
}

/// Why a file is not for the exact engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit(pub(crate) String);

/// The numbers of one file, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dimensions {
    pub(super) family: &'static Family,
    pub(super) layers: usize,
    /// Channels between layers.
    pub(super) width: usize,
    /// Channels inside a feed-forward layer.
    pub(super) hidden: usize,
    /// Heads of queries.
    pub(super) heads: usize,
    /// Heads of keys and values.
    pub(super) shared_heads: usize,
    /// Channels of a head.
    pub(super) head_width: usize,
    /// Added to mean squares.
    pub(super) epsilon: f32,
    /// Base of the rotations' frequencies.
    pub(super) base: f64,
    /// How positions beyond those of training are read.
    pub(super) scaling: Scaling,
    /// How many positions a local layer sees.
    pub(super) window: usize,
    /// Longest sequence.
    pub(crate) context: usize,
}

impl Dimensions {
    /// Reads the numbers of a file.
    ///
    /// # Errors
    /// `Ok(Err(_))` for an honest file that this engine does not cover.
    pub(super) fn of(content: &Content) -> Result<Result<Self, Unfit>, LoadError> {
        let header = Header { content, family: text(content, "general.architecture").unwrap_or_default() };
        let Some(family) = FAMILIES.iter().find(|family| family.name == header.family) else {
            return unfit(format!("architecture `{}`", header.family));
        };
        let width = header.count("embedding_length", MAX_WIDTH)?;
        let heads = header.count("attention.head_count", MAX_HEADS)?;
        let dimensions = Self {
            family,
            layers: header.count("block_count", MAX_LAYERS)?,
            width,
            hidden: header.count("feed_forward_length", MAX_WIDTH)?,
            heads,
            shared_heads: header.count_or("attention.head_count_kv", heads, heads)?,
            head_width: header.count_or("attention.key_length", MAX_HEAD, width / heads)?,
            epsilon: header.number("attention.layer_norm_rms_epsilon", 1e-5) as f32,
            base: header.number("rope.freq_base", 10_000.0),
            scaling: header.scaling()?,
            window: match family.local_layers {
                0 => MAX_CONTEXT,
                _ => header.count("attention.sliding_window", u32::MAX as usize)?.min(MAX_CONTEXT),
            },
            context: header.count("context_length", u32::MAX as usize)?.min(MAX_CONTEXT),
        };
        if let Some(why) = dimensions.beyond(&header)? {
            return unfit(why);
        }
        Ok(Ok(dimensions))
    }

    /// What of the file is beyond this engine.
    fn beyond(&self, header: &Header<'_>) -> Result<Option<String>, LoadError> {
        if !self.heads.is_multiple_of(self.shared_heads) {
            let what = format!("{} heads share {}", self.heads, self.shared_heads);
            return Err(LoadError::Hostile { what });
        }
        let (queries, shared) = (self.heads * self.head_width, self.shared_heads * self.head_width);
        if self.head_width == 0 || queries > MAX_WIDTH || self.layers * shared > MAX_CACHED {
            let what =
                format!("{} layers of {} heads of {} channels", self.layers, self.heads, self.head_width);
            return Err(LoadError::Hostile { what });
        }
        let scaling = header.get("rope.scaling.type").and_then(|value| value.to_string().ok());
        Ok(if header.get("expert_count").is_some_and(|count| count.to_u32().is_ok_and(|n| n > 0)) {
            Some("experts".to_owned())
        } else if let Some(kind) = scaling.filter(|kind| !["none", "linear", "yarn"].contains(&kind.as_str()))
        {
            Some(format!("positions scaled by `{kind}`"))
        } else if !self.width.is_multiple_of(32) || !self.hidden.is_multiple_of(32) {
            Some(format!("{} and {} channels, no multiples of 32", self.width, self.hidden))
        } else if !self.head_width.is_multiple_of(32) {
            Some(format!("heads of {} channels, no multiple of 32", self.head_width))
        } else if header.count_or("rope.dimension_count", MAX_HEAD, self.head_width)? != self.head_width {
            Some("rotations of a part of a head".to_owned())
        } else if header.count_or("attention.value_length", MAX_HEAD, self.head_width)? != self.head_width {
            Some("values of another width than keys".to_owned())
        } else {
            None
        })
    }

    /// Whether a layer sees only the last [`window`](Self::window) positions.
    pub(super) const fn is_local(&self, layer: usize) -> bool {
        self.family.local_layers > 0 && !(layer + 1).is_multiple_of(self.family.local_layers + 1)
    }
}

/// Metadata under a family's prefix.
struct Header<'a> {
    content: &'a Content,
    family: &'a str,
}

impl<'a> Header<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.content.metadata.get(&format!("{}.{key}", self.family))
    }

    fn count(&self, key: &str, most: usize) -> Result<usize, LoadError> {
        let what = || format!("`{}.{key}` is missing or no number", self.family);
        let value = self.get(key).and_then(|value| value.to_u32().ok());
        let value = value.ok_or_else(|| LoadError::Broken { what: what() })? as usize;
        if value == 0 || value > most {
            let what = format!("`{}.{key}` is {value}, not between 1 and {most}", self.family);
            return Err(LoadError::Hostile { what });
        }
        Ok(value)
    }

    fn count_or(&self, key: &str, most: usize, default: usize) -> Result<usize, LoadError> {
        if self.get(key).is_some() { self.count(key, most) } else { Ok(default) }
    }

    fn number(&self, key: &str, default: f64) -> f64 {
        let value = self.get(key).and_then(|value| value.to_f32().ok());
        value.filter(|value| value.is_finite() && *value > 0.0).map_or(default, f64::from)
    }

    fn scaling(&self) -> Result<Scaling, LoadError> {
        let kind = self.get("rope.scaling.type").and_then(|value| value.to_string().ok());
        let number = |key: &str, default| self.number(&format!("rope.scaling.{key}"), default);
        Ok(match kind.map(String::as_str) {
            Some("linear") => Scaling::Linear(number("factor", 1.0)),
            Some("yarn") => {
                let most = u32::MAX as usize;
                let context = self.count("context_length", most)?;
                Scaling::Yarn(Yarn {
                    factor: number("factor", 1.0),
                    original: self.count_or("rope.scaling.original_context_length", most, context)? as f64,
                    fast: number("yarn_beta_fast", 32.0),
                    slow: number("yarn_beta_slow", 1.0),
                    attention: number("attn_factor", 1.0),
                })
            }
            _ => Scaling::Linear(self.number("rope.scale_linear", 1.0)),
        })
    }
}

fn text<'a>(content: &'a Content, key: &str) -> Option<&'a str> {
    match content.metadata.get(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

const fn unfit<T>(why: String) -> Result<Result<T, Unfit>, LoadError> {
    Ok(Err(Unfit(why)))
}

/// The widest open models have 18 432 channels, and feed-forward layers four times as wide.
const MAX_WIDTH: usize = 1 << 18;
/// The widest open models have 128 heads.
const MAX_HEADS: usize = 1 << 10;
/// Heads have 64 to 256 channels.
const MAX_HEAD: usize = 1 << 10;
/// Channels of keys that a position leaves in all layers together; the largest open models have some 130 000.
const MAX_CACHED: usize = 1 << 21;
/// The deepest open models have 126 layers.
const MAX_LAYERS: usize = 1 << 10;
/// Longer sequences are no use on machines that this engine is for.
const MAX_CONTEXT: usize = 1 << 17;

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use candle_core::quantized::gguf_file;

    use super::*;

    /// A small Llama's numbers with some more.
    fn dimensions(more: &[(&str, Value)]) -> Result<Dimensions, Unfit> {
        let text = |text: &str| Value::String(text.to_owned());
        let mut all = vec![
            ("general.architecture", text("llama")),
            ("llama.block_count", Value::U32(2)),
            ("llama.context_length", Value::U32(1024)),
            ("llama.embedding_length", Value::U32(64)),
            ("llama.feed_forward_length", Value::U32(128)),
            ("llama.attention.head_count", Value::U32(2)),
        ];
        all.extend(more.iter().cloned());
        let all: Vec<_> = all.iter().map(|(key, value)| (*key, value)).collect();
        let mut file = Cursor::new(Vec::new());
        gguf_file::write(&mut file, &all, &[]).unwrap();
        file.set_position(0);
        Dimensions::of(&Content::read(&mut file).unwrap()).unwrap()
    }

    #[test]
    fn files_say_how_positions_are_scaled() {
        let kind = |kind: &str| ("llama.rope.scaling.type", Value::String(kind.to_owned()));
        let factor = ("llama.rope.scaling.factor", Value::F32(4.0));
        let original = ("llama.rope.scaling.original_context_length", Value::U32(256));
        let yarn = Yarn { factor: 4.0, original: 256.0, fast: 32.0, slow: 1.0, attention: 1.0 };
        for (more, scaling) in [
            (vec![], Scaling::Linear(1.0)),
            (vec![kind("none"), factor.clone()], Scaling::Linear(1.0)),
            (vec![kind("linear"), factor.clone()], Scaling::Linear(4.0)),
            (vec![kind("yarn"), factor.clone(), original], Scaling::Yarn(yarn)),
            (vec![kind("yarn"), factor], Scaling::Yarn(Yarn { original: 1024.0, ..yarn })),
        ] {
            assert_eq!(dimensions(&more).unwrap().scaling, scaling, "{more:?}");
        }
        assert_eq!(
            dimensions(&[kind("longrope")]).unwrap_err(),
            Unfit("positions scaled by `longrope`".to_owned())
        );
    }
}
