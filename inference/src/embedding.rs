//! Texts to vectors: a BERT of several files as an embedder, on candle's kernels.
//!
//! Texts that mean similar things get vectors that point the same way. Of a text, [`MAX_TEXT`] bytes are cut into
//! tokens, and of these the model reads as many as it takes ([`EmbedderCard::context`], its own first and last token
//! included). The mean of their states, brought to length 1, is the vector. Each text is read alone and without padding,
//! so a vector depends on its text only, and never on what else was asked for at the same time.
//!
//! Floating-point sums of stock kernels differ from machine to machine in their last digits. So a vector that is
//! computed again can be *consistent* with one that was delivered, never exact.

pub mod pooled;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use crypto::manifest::Item;
use crypto::{Digest, Manifest};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::{Tokenizer, TruncationParams};

use crate::gguf::LoadError;
use crate::kernels::isa_class;
use crate::model::Outline;

/// What an embedder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedderCard {
    /// Of the manifest of [`FILES`]: what the model is called on the wire.
    pub digest: Digest,
    /// Numbers in a vector.
    pub dimensions: usize,
    /// Tokens of a text that are read; the rest of a longer text is not.
    pub context: usize,
}

/// The vector of a text, and what was read for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// [`EmbedderCard::dimensions`] numbers, of length 1 together.
    pub vector: Vec<f32>,
    /// The tokens that were read, at most [`EmbedderCard::context`].
    pub tokens: Vec<u32>,
}

/// Why there are no vectors.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The engine gave up.
    #[error("the engine failed: {0}")]
    Forward(String),
    /// Ids that are none of this model's, or no ids at all.
    #[error("token ids of this model are numbers below {known}, and at least one is needed")]
    Ids {
        /// How many it knows.
        known: usize,
    },
    /// The weights lead to no direction for this text.
    #[error("the text has no vector in this model: its numbers are not finite, or all zero")]
    NoDirection,
    /// The tokenizer gave up.
    #[error("the text cannot be cut into tokens: {0}")]
    Tokenizer(String),
    /// More texts than may be asked for at once.
    #[error("{count} texts are too many at once; ask for {MAX_TEXTS} at most")]
    TooMany {
        /// How many there were.
        count: usize,
    },
}

/// A loaded embedder.
pub struct Embedder {
    card: EmbedderCard,
    profile: String,
    tokenizer: Tokenizer,
    model: BertModel,
}

impl Embedder {
    /// Loads the files of a model, which are called as [`FILES`] says, from a folder. What is hashed for the card's
    /// digest is what is loaded.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(folder: &Path) -> Result<Self, LoadError> {
        let files = Files::read(folder)?;
        // Foreign code meets the files' numbers here; whatever they make it do, it is the files' fault.
        let loaded = catch_unwind(AssertUnwindSafe(|| Self::build(files)));
        loaded.unwrap_or_else(|_| Err(broken("the tokenizer or the weights made the loader panic")))
    }

    /// What the files in a folder say of a model before its weights are read.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn outline(folder: &Path) -> Result<Outline, LoadError> {
        let config = checked(&bytes_of(&folder.join(CONFIG), MAX_TABLE)?)?;
        let context = context(&config, &bytes_of(&folder.join(SENTENCES), MAX_TABLE)?)?;
        let size = std::fs::metadata(folder.join(WEIGHTS)).map_err(LoadError::Io)?.len();
        Ok(Outline { context, profile: profile(), size })
    }

    fn build(files: Files) -> Result<Self, LoadError> {
        let Files { manifest, config, weights, sentences, tokenizer } = files;
        let config = checked(&config)?;
        let context = context(&config, &sentences)?;
        let tokenizer = cutter(&tokenizer, context)?;
        if tokenizer.get_vocab_size(true) > config.vocab_size {
            return Err(broken("there are more tokens than embeddings"));
        }
        let weights =
            VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu).map_err(broken)?;
        let model = BertModel::load(weights, &config).map_err(broken)?;
        let card = EmbedderCard { digest: manifest.digest(), dimensions: config.hidden_size, context };
        let embedder = Self { card, profile: profile(), tokenizer, model };
        // Shapes that do not fit show now and not in front of a user.
        embedder.embed_one("a").map_err(broken)?;
        tracing::info!(digest = %embedder.card.digest, profile = embedder.profile, "embedder loaded");
        Ok(embedder)
    }

    /// What it is.
    #[must_use]
    pub const fn card(&self) -> &EmbedderCard {
        &self.card
    }

    /// The id of everything that must be equal for vectors to be equal to the last bit, on one machine.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// The vectors of at most [`MAX_TEXTS`] texts, in their order. Computes on the calling thread and candle's.
    ///
    /// # Errors
    /// [`EmbedError`]; then for none of them.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        if texts.len() > MAX_TEXTS {
            return Err(EmbedError::TooMany { count: texts.len() });
        }
        texts.iter().map(|text| self.embed_one(text)).collect()
    }

    /// The vector of token ids as they stand; of more than the model takes the first are read.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub fn embed_ids(&self, ids: &[u32]) -> Result<Embedding, EmbedError> {
        let read = &ids[..ids.len().min(self.card.context)];
        let known = self.tokenizer.get_vocab_size(true);
        if read.is_empty() || read.iter().any(|&id| id as usize >= known) {
            return Err(EmbedError::Ids { known });
        }
        self.embed_read(read.to_vec())
    }

    /// Tokens of text read in a second, by a text as long as the model takes.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub fn measure(&self) -> Result<f64, EmbedError> {
        let text = "a ".repeat(self.card.context);
        let begin = Instant::now();
        let read = self.embed_one(&text)?.tokens.len();
        Ok(read as f64 / begin.elapsed().as_secs_f64().max(f64::EPSILON))
    }

    fn embed_one(&self, text: &str) -> Result<Embedding, EmbedError> {
        let begin = &text[..text.floor_char_boundary(MAX_TEXT)];
        let encoding = self.tokenizer.encode_fast(begin, true);
        let encoding = encoding.map_err(|error| EmbedError::Tokenizer(error.to_string()))?;
        self.embed_read(encoding.get_ids().to_vec())
    }

    fn embed_read(&self, tokens: Vec<u32>) -> Result<Embedding, EmbedError> {
        let mean = self.mean_state(&tokens).map_err(|error| EmbedError::Forward(error.to_string()))?;
        Ok(Embedding { vector: unit(&mean).ok_or(EmbedError::NoDirection)?, tokens })
    }

    /// The mean of the last layer's states. Without padding every token is one that the attention mask keeps.
    fn mean_state(&self, tokens: &[u32]) -> candle_core::Result<Vec<f32>> {
        let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let states = self.model.forward(&tokens, &tokens.zeros_like()?, None)?;
        states.mean(1)?.squeeze(0)?.to_vec1()
    }
}

impl fmt::Debug for Embedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedder")
            .field("card", &self.card)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// The bytes of a model's files and the list of them.
struct Files {
    manifest: Manifest,
    config: Vec<u8>,
    weights: Vec<u8>,
    sentences: Vec<u8>,
    tokenizer: Vec<u8>,
}

impl Files {
    fn read(folder: &Path) -> Result<Self, LoadError> {
        let config = bytes_of(&folder.join(CONFIG), MAX_TABLE)?;
        let weights = bytes_of(&folder.join(WEIGHTS), MAX_WEIGHTS)?;
        let sentences = bytes_of(&folder.join(SENTENCES), MAX_TABLE)?;
        let tokenizer = bytes_of(&folder.join(TOKENIZER), MAX_TABLE)?;
        let all = [(CONFIG, &config), (WEIGHTS, &weights), (SENTENCES, &sentences), (TOKENIZER, &tokenizer)];
        let manifest = Manifest::new(all.map(|(name, bytes)| Item {
            name: name.to_owned(),
            size: bytes.len() as u64,
            digest: Digest::of_content(bytes),
        }));
        Ok(Self { manifest, config, weights, sentences, tokenizer })
    }
}

/// How many tokens of a text are read.
fn context(config: &Config, sentences: &[u8]) -> Result<usize, LoadError> {
    let context = parsed::<Sentences>(SENTENCES, sentences)?.max_seq_length;
    let context = context.min(config.max_position_embeddings);
    if !(MIN_CONTEXT..=MAX_CONTEXT).contains(&context) {
        return Err(hostile(format!("`max_seq_length` is {context}")));
    }
    Ok(context)
}

/// The id of all embedders' numerics on this machine.
fn profile() -> String {
    format!("candle-{CANDLE}/{}/bert-mean-l2", isa_class())
}

/// What sentence-transformers says of a model in a file of its own.
#[derive(Deserialize)]
struct Sentences {
    max_seq_length: usize,
}

/// A whole file, of at most `limit` bytes.
fn bytes_of(path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| {
        LoadError::Io(std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    })?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(LoadError::Io)?;
    if bytes.len() as u64 > limit {
        return Err(hostile(format!("{} has more than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

/// The numbers of the model, held against what honest models have before anything multiplies or allocates by them.
fn checked(bytes: &[u8]) -> Result<Config, LoadError> {
    let config: Config = parsed(CONFIG, bytes)?;
    let family = config.model_type.as_deref().unwrap_or("bert");
    if family != "bert" {
        let (name, supported) = (family.chars().take(80).collect(), "bert".to_owned());
        return Err(LoadError::UnsupportedArchitecture { name, supported });
    }
    let bounded = [
        ("hidden_size", config.hidden_size, MAX_WIDTH),
        ("intermediate_size", config.intermediate_size, MAX_WIDTH),
        ("num_attention_heads", config.num_attention_heads, MAX_HEADS),
        ("num_hidden_layers", config.num_hidden_layers, MAX_LAYERS),
        ("max_position_embeddings", config.max_position_embeddings, MAX_POSITIONS),
        ("type_vocab_size", config.type_vocab_size, MAX_HEADS),
        ("vocab_size", config.vocab_size, MAX_VOCABULARY),
    ];
    if let Some((name, value, limit)) = bounded.iter().find(|(_, value, limit)| !(1..=*limit).contains(value))
    {
        return Err(hostile(format!("`{name}` is {value}, not between 1 and {limit}")));
    }
    if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
        return Err(hostile(format!(
            "{} channels for {} heads",
            config.hidden_size, config.num_attention_heads
        )));
    }
    Ok(config)
}

/// The tokenizer of a file, told to cut at `context` tokens; what the file says of lengths was for another use.
fn cutter(bytes: &[u8], context: usize) -> Result<Tokenizer, LoadError> {
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(broken)?;
    let truncation = TruncationParams { max_length: context, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(broken)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

fn parsed<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|error| broken(format!("{name}: {error}")))
}

/// The same direction with length 1; `None` where there is no direction.
fn unit(vector: &[f32]) -> Option<Vec<f32>> {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let direction = length.is_finite() && length > 0.0;
    direction.then(|| vector.iter().map(|x| (f64::from(*x) / length) as f32).collect())
}

fn broken(error: impl fmt::Display) -> LoadError {
    LoadError::Broken { what: error.to_string() }
}

fn hostile(what: String) -> LoadError {
    LoadError::Hostile { what }
}

/// The files that a model has, by what they are called in its folder.
pub const FILES: [&str; 4] = [CONFIG, WEIGHTS, SENTENCES, TOKENIZER];

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const SENTENCES: &str = "sentence_bert_config.json";
const TOKENIZER: &str = "tokenizer.json";

/// Most texts at once: what they lead to is held in memory together.
pub const MAX_TEXTS: usize = 256;

/// Bytes of a text that are looked at: the tokenizer holds all tokens before it drops those that are too many, in some
/// 250 bytes for each. A model's context of ordinary words has a tenth of this.
pub const MAX_TEXT: usize = 64 << 10;

/// The version whose kernels make the numbers; a test holds it against the lock file.
const CANDLE: &str = "0.11.1";

/// The longest tables are tokenizers of a quarter of a million words, with some ten megabytes.
const MAX_TABLE: u64 = 64 << 20;
/// The largest BERT has 1.3 GB; weights are held twice while they are loaded.
const MAX_WEIGHTS: u64 = 2 << 30;
/// The widest open encoders have 4096 channels and four times as many within a layer.
const MAX_WIDTH: usize = 1 << 14;
const MAX_HEADS: usize = 128;
const MAX_LAYERS: usize = 128;
/// Positions are a table of the model; texts of its length are read in one piece, and that in turn is square.
const MAX_POSITIONS: usize = 1 << 15;
const MAX_VOCABULARY: usize = 1 << 20;
/// The model's own tokens and a few of the text; and a length whose square still is some megabytes for each head.
const MIN_CONTEXT: usize = 8;
const MAX_CONTEXT: usize = 2048;

pub mod tiny;

#[cfg(test)]
mod tests;
