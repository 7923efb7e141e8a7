//! A GGUF file becomes an engine.
//!
//! The file is looked at ([`gguf`]), hashed, and given to candle, which keeps the weights as they are
//! quantised. Weights are shared: a sequence is a clone of the model that owns nothing but its cache.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen3};
use crypto::Digest;
use serde::{Deserialize, Serialize};

use crate::chat::ChatTemplate;
use crate::engine::{Engine, ForwardError, Sequence};
use crate::gguf::{self, LoadError};
use crate::kernels::isa_class;
use crate::tokens::Vocabulary;

/// The families of models that have an engine here. Others are missing on purpose: candle's Gemma 3
/// cannot read a prompt in chunks, its Phi 3 ignores the file's rotation base, and its Qwen 2 cannot be shared by two
/// sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    Llama,
    /// Every sequence sets 4096 positions aside: some hundred megabytes for the 0.6 B model and more for larger ones.
    Qwen3,
}

impl Architecture {
    const ALL: [Self; 2] = [Self::Llama, Self::Qwen3];

    /// The name in files.
    const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The longest sequence. candle's Llama has a rotation table of fixed length; for the others the table and
    /// the masks grow with it, and longer ones are no use on machines that this engine is for.
    const fn longest(self) -> usize {
        match self {
            Self::Llama => quantized_llama::MAX_SEQ_LEN,
            Self::Qwen3 => 32_768,
        }
    }

    fn of(content: &Content) -> Result<Self, LoadError> {
        let name = match content.metadata.get("general.architecture") {
            Some(Value::String(name)) => name.clone(),
            _ => String::new(),
        };
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
            let supported = Self::ALL.map(Self::name).join(", ");
            LoadError::UnsupportedArchitecture { name, supported }
        })
    }

    fn weights(self, content: Content, file: &mut BufReader<File>) -> candle_core::Result<Weights> {
        let cpu = &Device::Cpu;
        Ok(match self {
            Self::Llama => Weights::Llama(quantized_llama::ModelWeights::from_gguf(content, file, cpu)?),
            Self::Qwen3 => Weights::Qwen3(quantized_qwen3::ModelWeights::from_gguf(content, file, cpu)?),
        })
    }
}

/// What a model is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    /// BLAKE3 of the file: what the model is called on the wire.
    pub digest: Digest,
    /// What people call it.
    pub name: String,
    /// Its family.
    pub architecture: String,
    /// The longest sequence, in tokens: the lesser of what the file and the engine allow.
    pub context: usize,
    /// How many tokens it knows.
    pub vocabulary: usize,
    /// Bytes of the file.
    pub file_size: u64,
    /// The format of most of its weights.
    pub quantisation: String,
}

/// A loaded model: the engine that runs on candle's kernels.
pub struct Model {
    card: ModelCard,
    profile: String,
    vocabulary: Arc<Vocabulary>,
    template: ChatTemplate,
    weights: Weights,
}

impl Model {
    /// Loads a GGUF file.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let mut file = BufReader::new(File::open(path).map_err(LoadError::Io)?);
        let size = file.get_ref().metadata().map_err(LoadError::Io)?.len();
        gguf::check(&mut file, size)?;
        file.rewind().map_err(LoadError::Io)?;
        let fallback = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        // candle meets the file's numbers here; whatever they make it do, it is the file's fault.
        catch_unwind(AssertUnwindSafe(|| Self::read(file, size, fallback)))
            .unwrap_or_else(|panic| Err(LoadError::Broken { what: panic_message(&*panic) }))
    }

    fn read(mut file: BufReader<File>, size: u64, fallback: String) -> Result<Self, LoadError> {
        let mut content = Content::read(&mut file).map_err(broken)?;
        let architecture = Architecture::of(&content)?;
        let (context, vocabulary) = dimensions(&mut content, architecture)?;
        let tokens = Vocabulary::from_gguf(&content)?;
        if tokens.is_empty() || tokens.len() > vocabulary {
            return Err(LoadError::Broken {
                what: format!("{} tokens for {vocabulary} embeddings", tokens.len()),
            });
        }
        let template =
            ChatTemplate::new(text(&content, "tokenizer.chat_template"), tokens.bos(), tokens.eos())
                .map_err(broken)?;
        let name =
            text(&content, "general.name").map_or(fallback, |name| name.chars().take(MAX_NAME).collect());
        let card = ModelCard {
            digest: digest(&mut file)?,
            name,
            architecture: architecture.name().to_owned(),
            context,
            vocabulary,
            file_size: size,
            quantisation: quantisation(&content),
        };
        let weights = architecture.weights(content, &mut file).map_err(broken)?;
        let model = Self { card, profile: profile(), vocabulary: Arc::new(tokens), template, weights };
        model.try_out()?;
        tracing::info!(name = model.card.name, digest = %model.card.digest, profile = model.profile, "model loaded");
        Ok(model)
    }

    /// One token through all layers: shapes that do not fit show now and not in front of a user.
    fn try_out(&self) -> Result<(), LoadError> {
        let logits = self.sequence().forward(&[0]).map_err(broken)?;
        if logits.len() == self.card.vocabulary {
            return Ok(());
        }
        Err(LoadError::Broken {
            what: format!("{} logits for {} tokens", logits.len(), self.card.vocabulary),
        })
    }
}

impl Engine for Model {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn profile(&self) -> &str {
        &self.profile
    }

    fn chunk(&self) -> usize {
        CHUNK
    }

    fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    fn template(&self) -> &ChatTemplate {
        &self.template
    }

    fn sequence(&self) -> Box<dyn Sequence> {
        Box::new(CandleSequence { weights: self.weights.clone(), length: 0 })
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("card", &self.card)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// candle's models; cloning one shares its weights and copies its (empty) cache.
#[derive(Clone)]
enum Weights {
    Llama(quantized_llama::ModelWeights),
    Qwen3(quantized_qwen3::ModelWeights),
}

struct CandleSequence {
    weights: Weights,
    length: usize,
}

impl CandleSequence {
    fn logits(&mut self, tokens: &[u32]) -> candle_core::Result<Vec<f32>> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let output = match &mut self.weights {
            Weights::Llama(weights) => weights.forward(&input, self.length)?,
            Weights::Qwen3(weights) => weights.forward(&input, self.length)?,
        };
        output.flatten_all()?.to_vec1()
    }
}

impl Sequence for CandleSequence {
    fn forward(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ForwardError> {
        let logits = self.logits(tokens).map_err(|error| ForwardError(error.to_string()))?;
        self.length += tokens.len();
        Ok(logits)
    }
}

/// Checks the numbers that candle multiplies, divides by and allocates for, and shortens the context to what the
/// engine supports. Returns the context and the number of embeddings.
fn dimensions(content: &mut Content, architecture: Architecture) -> Result<(usize, usize), LoadError> {
    let name = architecture.name();
    let number = |key: &str, high: usize| ranged(content, &format!("{name}.{key}"), high);
    let width = number("embedding_length", MAX_WIDTH)?;
    let heads = number("attention.head_count", MAX_HEADS)?;
    let shared = number("attention.head_count_kv", heads)?;
    number("block_count", content.tensor_infos.len().min(MAX_LAYERS))?;
    if !width.is_multiple_of(heads) || !heads.is_multiple_of(shared) {
        return Err(LoadError::Hostile { what: format!("{width} channels, {heads} heads, {shared} shared") });
    }
    for (key, high) in [("rope.dimension_count", width / heads), ("attention.key_length", MAX_WIDTH)] {
        let key = format!("{name}.{key}");
        if content.metadata.contains_key(&key) && !ranged(content, &key, high)?.is_multiple_of(2) {
            return Err(LoadError::Hostile { what: format!("`{key}` is odd") });
        }
    }
    if content
        .metadata
        .get(&format!("{name}.expert_count"))
        .is_some_and(|count| count.to_u32().is_ok_and(|n| n > 1))
    {
        let (name, supported) =
            (format!("{name} with experts"), Architecture::ALL.map(Architecture::name).join(", "));
        return Err(LoadError::UnsupportedArchitecture { name, supported });
    }
    let embeddings = match content.tensor_infos.get("token_embd.weight").map(|info| info.shape.dims()) {
        Some(&[embeddings, columns]) if columns == width => embeddings,
        _ => {
            return Err(LoadError::Broken {
                what: "the embeddings are missing or of another width".to_owned(),
            });
        }
    };
    Ok((shorten_context(content, architecture)?, embeddings))
}

/// candle makes tables as long as the context, so it must see the shortened one.
fn shorten_context(content: &mut Content, architecture: Architecture) -> Result<usize, LoadError> {
    let key = format!("{}.context_length", architecture.name());
    let context = ranged(content, &key, u32::MAX as usize)?.min(architecture.longest());
    content.metadata.insert(key, Value::U32(context as u32));
    Ok(context)
}

fn ranged(content: &Content, key: &str, high: usize) -> Result<usize, LoadError> {
    let value = content.metadata.get(key).and_then(|value| value.to_u32().ok());
    let value =
        value.ok_or_else(|| LoadError::Broken { what: format!("`{key}` is missing or no number") })? as usize;
    if value == 0 || value > high {
        return Err(LoadError::Hostile { what: format!("`{key}` is {value}, not between 1 and {high}") });
    }
    Ok(value)
}

fn digest(file: &mut BufReader<File>) -> Result<Digest, LoadError> {
    file.rewind().map_err(LoadError::Io)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(LoadError::Io)?;
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}

/// The type that holds most of the weights.
fn quantisation(content: &Content) -> String {
    let mut counts: Vec<(GgmlDType, usize)> = Vec::new();
    for info in content.tensor_infos.iter().filter(|(name, _)| name.starts_with("blk.")).map(|(_, info)| info)
    {
        let elements = info.shape.elem_count();
        match counts.iter_mut().find(|(kind, _)| *kind == info.ggml_dtype) {
            Some((_, count)) => *count += elements,
            None => counts.push((info.ggml_dtype, elements)),
        }
    }
    let most = counts.into_iter().max_by_key(|&(kind, count)| (count, format!("{kind:?}")));
    most.map_or_else(String::new, |(kind, _)| format!("{kind:?}"))
}

fn profile() -> String {
    format!("candle-{CANDLE}/{}/prefill-{CHUNK}", isa_class())
}

fn text<'a>(content: &'a Content, key: &str) -> Option<&'a str> {
    match content.metadata.get(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn broken(error: impl fmt::Display) -> LoadError {
    LoadError::Broken { what: error.to_string() }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Prompt tokens in a step: a cancelled job must end within a second on slow machines, and longer chunks are
/// hardly faster.
const CHUNK: usize = 32;
/// The version whose kernels make the numbers; a test holds it against the lock file.
const CANDLE: &str = "0.11.1";
/// Names are for people.
const MAX_NAME: usize = 200;
/// The widest open models have 18 432 channels.
const MAX_WIDTH: usize = 1 << 16;
/// The widest open models have 128 heads.
const MAX_HEADS: usize = 1 << 10;
/// The deepest open models have 126 layers.
const MAX_LAYERS: usize = 1 << 10;

#[cfg(test)]
mod tests;
