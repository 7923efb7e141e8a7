//! candle's own models as an engine: for families that the exact engine does not know.
//!
//! candle keeps the weights as they are quantised and picks kernels by shape and processor, so its logits are the same
//! only within one profile (version of candle, GPU or class of instruction set, size of a prompt chunk), and receipts
//! from it can be *consistent*, never exact, elsewhere. Weights are shared: a sequence is a clone of the model that
//! owns nothing but its cache.
//!
//! With the features `cuda` or `metal` it computes on the first GPU. They are compiled only where the toolkits are, and
//! serve files that the exact engine, which runs on the processor, does not take or is not to take.

use std::fmt;
use std::fs::File;
use std::io::BufReader;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen3};

use crate::engine::{Engine, ForwardError, Position, Sequence};
use crate::exact;
use crate::gguf::LoadError;
use crate::kernels::isa_class;
use crate::model::{Description, broken};

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
        Self::ALL
            .into_iter()
            .find(|known| known.name() == name)
            .ok_or_else(|| LoadError::UnsupportedArchitecture { name, supported: supported() })
    }

    fn weights(
        self,
        content: Content,
        file: &mut BufReader<File>,
        device: &Device,
    ) -> candle_core::Result<Weights> {
        Ok(match self {
            Self::Llama => Weights::Llama(quantized_llama::ModelWeights::from_gguf(content, file, device)?),
            Self::Qwen3 => Weights::Qwen3(quantized_qwen3::ModelWeights::from_gguf(content, file, device)?),
        })
    }
}

/// A model on candle's kernels.
pub struct CandleModel {
    description: Description,
    profile: String,
    weights: Weights,
    device: Device,
}

impl CandleModel {
    /// Loads a file whose [`context`] is known.
    pub(crate) fn load(
        description: Description,
        mut content: Content,
        file: File,
    ) -> Result<Self, LoadError> {
        let architecture = Architecture::of(&content)?;
        // candle makes tables as long as the context, so it must see the shortened one.
        let key = format!("{}.context_length", architecture.name());
        content.metadata.insert(key, Value::U32(description.card.context as u32));
        let device = device();
        let weights = architecture.weights(content, &mut BufReader::new(file), &device).map_err(broken)?;
        Ok(Self { description, profile: profile(&device), weights, device })
    }
}

impl Engine for CandleModel {
    fn description(&self) -> &Description {
        &self.description
    }

    fn profile(&self) -> &str {
        &self.profile
    }

    fn chunk(&self) -> usize {
        CHUNK
    }

    fn sequence(&self) -> Box<dyn Sequence> {
        Box::new(CandleSequence { weights: self.weights.clone(), device: self.device.clone(), length: 0 })
    }
}

impl fmt::Debug for CandleModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CandleModel")
            .field("card", &self.description.card)
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
    device: Device,
    length: usize,
}

impl CandleSequence {
    fn logits(&mut self, tokens: &[u32]) -> candle_core::Result<Vec<f32>> {
        let input = Tensor::new(tokens, &self.device)?.unsqueeze(0)?;
        let output = match &mut self.weights {
            Weights::Llama(weights) => weights.forward(&input, self.length)?,
            Weights::Qwen3(weights) => weights.forward(&input, self.length)?,
        };
        output.flatten_all()?.to_vec1()
    }
}

impl Sequence for CandleSequence {
    fn forward(&mut self, tokens: &[u32]) -> Result<Position, ForwardError> {
        let logits = self.logits(tokens).map_err(|error| ForwardError(error.to_string()))?;
        self.length += tokens.len();
        Ok(Position { logits, state: None })
    }
}

/// Checks the numbers that candle multiplies, divides by and allocates for. Returns the longest sequence that file and
/// engine allow.
pub(crate) fn context(content: &Content) -> Result<usize, LoadError> {
    let architecture = Architecture::of(content)?;
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
    let experts = content.metadata.get(&format!("{name}.expert_count"));
    if experts.is_some_and(|count| count.to_u32().is_ok_and(|n| n > 1)) {
        let name = format!("{name} with experts");
        return Err(LoadError::UnsupportedArchitecture { name, supported: supported() });
    }
    Ok(number("context_length", u32::MAX as usize)?.min(architecture.longest()))
}

/// The names of all families that one engine or the other knows.
fn supported() -> String {
    let mut names: Vec<_> = exact::names().chain(Architecture::ALL.map(Architecture::name)).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
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

/// The GPU that this build is for, if the machine has one.
fn device() -> Device {
    #[cfg(feature = "cuda")]
    if let Ok(device) = Device::new_cuda(0) {
        return device;
    }
    #[cfg(feature = "metal")]
    if let Ok(device) = Device::new_metal(0) {
        return device;
    }
    Device::Cpu
}

/// The profile that a model would have here.
pub(crate) fn profile_here() -> String {
    profile(&device())
}

fn profile(device: &Device) -> String {
    let arithmetic = match device {
        Device::Cpu => isa_class(),
        Device::Cuda(_) => "cuda".to_owned(),
        Device::Metal(_) => "metal".to_owned(),
    };
    format!("candle-{CANDLE}/{arithmetic}/prefill-{CHUNK}")
}

/// Prompt tokens in a step: a cancelled job must end within a second on slow machines, and longer chunks are
/// hardly faster.
const CHUNK: usize = 32;
/// The version whose kernels make the numbers; a test holds it against the lock file.
const CANDLE: &str = "0.11.1";
/// The widest open models have 18 432 channels.
const MAX_WIDTH: usize = 1 << 16;
/// The widest open models have 128 heads.
const MAX_HEADS: usize = 1 << 10;
/// The deepest open models have 126 layers.
const MAX_LAYERS: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// The profile names the candle that is compiled in.
    #[test]
    fn the_profile_names_the_locked_version() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
        assert!(lock.contains(&format!("name = \"candle-core\"\nversion = \"{CANDLE}\"")));
        let profile = profile(&Device::Cpu);
        assert!(profile.starts_with("candle-") && profile.ends_with("/prefill-32"));
    }
}
