//! A GGUF file becomes an engine.
//!
//! The file is looked at ([`gguf`]), hashed, and described: what it is, its tokens, its chat template. Then the engine
//! that fits is chosen: the exact one where it knows the family, candle's models where it does not.

mod outline;

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};
use crypto::Digest;
use serde::{Deserialize, Serialize};

use crate::candle_engine::{self, CandleModel};
use crate::chat::ChatTemplate;
use crate::constraint::{Constraint, ConstraintError, Guide, Guides};
use crate::embedding::pooled::Pooling;
use crate::engine::Engine;
use crate::exact::{self, Dimensions, ExactModel, Kernel, Unfit};
use crate::gguf::{self, LoadError};
use crate::tokens::Vocabulary;

pub use outline::Outline;

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

/// What every engine has of its model.
#[derive(Debug)]
pub struct Description {
    /// What it is.
    pub card: ModelCard,
    /// Its tokens.
    pub vocabulary: Arc<Vocabulary>,
    /// Its chat template.
    pub template: ChatTemplate,
    /// How it makes vectors.
    pub pooling: Pooling,
    /// Its vocabulary as constraints need it; made when the first one comes.
    guides: OnceLock<Guides>,
}

impl Description {
    /// A guide for an answer under a constraint, of at most so many tokens.
    pub fn guide(&self, constraint: &Constraint, budget: usize) -> Result<Guide, ConstraintError> {
        let guides = match self.guides.get() {
            Some(guides) => guides,
            None => {
                let guides = Guides::new(&self.vocabulary)?;
                self.guides.get_or_init(|| guides)
            }
        };
        guides.guide(constraint, budget)
    }
}

/// How to load a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loading {
    /// Threads of the exact engine; as many as the machine has cores by default. Candle's are its own
    /// ([`threads`](crate::kernels::threads)).
    pub threads: Option<usize>,
    /// The exact engine's path; by default the fastest, or what `LLAMESH_KERNEL` says.
    pub kernel: Option<Kernel>,
    /// Which engine.
    pub engine: EngineChoice,
}

/// Which engine runs a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The exact one if it can, otherwise candle's.
    #[default]
    Best,
    /// candle's models.
    Candle,
    /// The exact one.
    Exact,
}

/// Loads a GGUF file for the engine that suits it best.
pub fn load(path: &Path) -> Result<Arc<dyn Engine>, LoadError> {
    load_with(path, Loading::default())
}

/// Loads a GGUF file as asked.
pub fn load_with(path: &Path, loading: Loading) -> Result<Arc<dyn Engine>, LoadError> {
    open(path, |content, file, described| {
        let exact = match loading.engine {
            EngineChoice::Candle => Err(Unfit("choice".to_owned())),
            EngineChoice::Best | EngineChoice::Exact => exact::fits(&content)?,
        };
        let engine: Arc<dyn Engine> = match (exact, loading.engine) {
            (Ok(dimensions), _) => Arc::new(load_exact(dimensions, &described, (&content, &file), loading)?),
            (Err(Unfit(what)), EngineChoice::Exact) => return Err(LoadError::NotExact { what }),
            (Err(Unfit(what)), _) => {
                tracing::info!(what, "not for the exact engine: candle's models take the file");
                let context = candle_engine::context(&content).map_err(|error| beyond_both(error, &what))?;
                let description = described.describe(context)?;
                Arc::new(CandleModel::load(description, content, file)?)
            }
        };
        try_out(engine.as_ref())?;
        let (name, digest) = (&engine.card().name, engine.card().digest);
        tracing::info!(name, %digest, profile = engine.profile(), "model loaded");
        Ok(engine)
    })
}

/// A family that only the exact engine has fails for what that engine lacks, not for its name.
fn beyond_both(error: LoadError, what: &str) -> LoadError {
    match error {
        LoadError::UnsupportedArchitecture { name, .. } if exact::names().any(|known| known == name) => {
            LoadError::NotExact { what: what.to_owned() }
        }
        other => other,
    }
}

/// Loads a GGUF file for the exact engine, for those who need what only it has.
pub fn load_exactly(path: &Path, loading: Loading) -> Result<ExactModel, LoadError> {
    open(path, |content, file, described| {
        let dimensions = exact::fits(&content)?.map_err(|Unfit(what)| LoadError::NotExact { what })?;
        load_exact(dimensions, &described, (&content, &file), loading)
    })
}

fn load_exact(
    dimensions: Dimensions,
    described: &Described,
    source: (&Content, &File),
    loading: Loading,
) -> Result<ExactModel, LoadError> {
    let kernel = loading.kernel.map_or_else(Kernel::choose, Ok)?;
    let threads =
        loading.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let description = described.describe(dimensions.context)?;
    ExactModel::load(description, dimensions, source, (kernel, threads))
}

/// Looks at a file and hands it on. Whatever its numbers make somebody do is the file's fault.
fn open<T>(
    path: &Path,
    load: impl FnOnce(Content, File, Described) -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    let mut file = BufReader::new(File::open(path).map_err(LoadError::Io)?);
    let size = file.get_ref().metadata().map_err(LoadError::Io)?.len();
    gguf::check(&mut file, size)?;
    file.rewind().map_err(LoadError::Io)?;
    let fallback = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    catch_unwind(AssertUnwindSafe(|| {
        let mut content = Content::read(&mut file).map_err(broken)?;
        let described = Described::of(&mut content, &mut file, (size, fallback))?;
        load(content, file.into_inner(), described)
    }))
    .unwrap_or_else(|panic| Err(LoadError::Broken { what: panic_message(&*panic) }))
}

/// A description that still lacks what the engine decides: the context.
struct Described {
    card: ModelCard,
    vocabulary: Arc<Vocabulary>,
    template: Option<String>,
    pooling: Pooling,
}

impl Described {
    /// Takes what it needs from the metadata, and the large part of it away: nobody reads it again.
    fn of(
        content: &mut Content,
        file: &mut BufReader<File>,
        (size, fallback): (u64, String),
    ) -> Result<Self, LoadError> {
        let shape = content.tensor_infos.get("token_embd.weight").map(|info| info.shape.dims());
        let Some(&[embeddings, _]) = shape else {
            return Err(LoadError::Broken { what: "the embeddings are missing or no matrix".to_owned() });
        };
        if embeddings > MAX_EMBEDDINGS {
            let what = format!("{embeddings} embeddings, more than {MAX_EMBEDDINGS}");
            return Err(LoadError::Hostile { what });
        }
        let vocabulary = Vocabulary::from_gguf(content)?;
        content.metadata.retain(|_, value| !matches!(value, Value::Array(_)));
        if vocabulary.is_empty() || vocabulary.len() > embeddings {
            let what = format!("{} tokens for {embeddings} embeddings", vocabulary.len());
            return Err(LoadError::Broken { what });
        }
        let name = text(content, "general.name");
        let card = ModelCard {
            digest: digest(file)?,
            name: name.map_or(fallback, |name| name.chars().take(MAX_NAME).collect()),
            architecture: text(content, "general.architecture").unwrap_or_default().to_owned(),
            context: 0,
            vocabulary: embeddings,
            file_size: size,
            quantisation: quantisation(content),
        };
        let template = text(content, "tokenizer.chat_template").map(str::to_owned);
        let pooling = Pooling::of(content, &card.architecture);
        Ok(Self { card, vocabulary: Arc::new(vocabulary), template, pooling })
    }

    fn describe(&self, context: usize) -> Result<Description, LoadError> {
        let vocabulary = Arc::clone(&self.vocabulary);
        let template = ChatTemplate::new(self.template.as_deref(), vocabulary.bos(), vocabulary.eos());
        Ok(Description {
            card: ModelCard { context, ..self.card.clone() },
            template: template.map_err(broken)?,
            vocabulary,
            pooling: self.pooling,
            guides: OnceLock::new(),
        })
    }
}

/// One token through all layers: shapes that do not fit show now and not in front of a user.
fn try_out(engine: &dyn Engine) -> Result<(), LoadError> {
    let (logits, tokens) =
        (engine.sequence().forward(&[0]).map_err(broken)?.logits.len(), engine.card().vocabulary);
    if logits == tokens {
        return Ok(());
    }
    Err(LoadError::Broken { what: format!("{logits} logits for {tokens} tokens") })
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

fn text<'a>(content: &'a Content, key: &str) -> Option<&'a str> {
    match content.metadata.get(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

pub(crate) fn broken(error: impl fmt::Display) -> LoadError {
    LoadError::Broken { what: error.to_string() }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// The largest vocabularies have 262 144 tokens; a replay holds some numbers for each at many positions.
const MAX_EMBEDDINGS: usize = 1 << 20;
/// Names are for people.
const MAX_NAME: usize = 200;

#[cfg(test)]
mod tests;
