//! Text to token ids and back, as the model file says.
//!
//! Byte-level tokens cut through characters, so text is decoded from bytes, and a token's text is given out only
//! once its characters are whole. The concatenation of what a [`Detokenizer`] gives out is always the decoding of
//! all its tokens, and nothing given out is ever taken back. The same holds for [`StopFilter`], which keeps back
//! what may become a stop text.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::tokenizer::TokenizerFromGguf;
use tokenizers::Tokenizer;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

/// A tokenizer could not be made from a file, or refused a text.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A kind of tokenizer this crate has no code for.
    #[error("the file's tokenizer is `{model}`; only byte-level BPE (`gpt2`) works, so take another model")]
    Unsupported {
        /// What the file names.
        model: String,
    },
    /// The tables in the file contradict each other, or the text cannot be cut.
    #[error("the tokenizer says: {why}; fetch the file again or take another model")]
    Refused {
        /// The library's words.
        why: String,
    },
}

/// The tokens a model knows: their texts, which of them end an answer, and how text is cut into them.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    bytes: Vec<Box<[u8]>>,
    ends: BTreeSet<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    names: Vec<String>,
}

impl Vocabulary {
    /// Reads the tables of a model file.
    pub(crate) fn from_gguf(content: &Content) -> Result<Self, TokenizerError> {
        let model = text(content, "tokenizer.ggml.model").unwrap_or_default();
        if model != "gpt2" {
            return Err(TokenizerError::Unsupported { model: model.to_owned() });
        }
        let mut tokenizer = Tokenizer::from_gguf(content).map_err(refused)?;
        cut_as_trained(&mut tokenizer, content)?;
        let names = strings(content, "tokenizer.ggml.tokens");
        let kinds = kinds(content);
        let id = |key: &str| content.metadata.get(key).and_then(|v| v.to_u32().ok());
        let bytes =
            names.iter().enumerate().map(|(id, name)| printed(name, kinds.get(id).copied())).collect();
        let mut ends: BTreeSet<_> = END_KEYS.iter().filter_map(|key| id(key)).collect();
        ends.extend(
            (0..).zip(&names).filter(|(_, name)| END_NAMES.contains(&name.as_str())).map(|(id, _)| id),
        );
        let (bos, eos) = (id("tokenizer.ggml.bos_token_id"), id("tokenizer.ggml.eos_token_id"));
        Ok(Self { tokenizer, bytes, ends, bos, eos, names })
    }

    /// Cuts a text. The names of special tokens in it become those tokens. With `framed`, what the model expects
    /// around a bare text (such as a first token) is added; a rendered chat already has it.
    pub fn encode(&self, text: &str, framed: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.tokenizer.encode_fast(text, framed).map_err(refused)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of a whole sequence; bytes that are no character become U+FFFD, control tokens nothing.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes_of(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether a token ends an answer.
    #[must_use]
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The tokens that end an answer: those the file names as end of sequence, turn or message, and those
    /// whose name is one that chat models end with.
    pub fn ends(&self) -> impl Iterator<Item = u32> + '_ {
        self.ends.iter().copied()
    }

    /// How many tokens have a text.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The name of the token that begins a text; empty where there is none.
    #[must_use]
    pub fn bos(&self) -> &str {
        self.name(self.bos)
    }

    /// The name of the token that ends a text; empty where there is none.
    #[must_use]
    pub fn eos(&self) -> &str {
        self.name(self.eos)
    }

    fn name(&self, id: Option<u32>) -> &str {
        id.and_then(|id| self.names.get(id as usize)).map_or("", String::as_str)
    }

    pub(crate) fn bytes_of(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary")
            .field("len", &self.len())
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// Turns a growing sequence of tokens into growing text.
#[derive(Debug)]
pub struct Detokenizer {
    vocabulary: Arc<Vocabulary>,
    /// The beginning of a character whose end has not come yet.
    partial: Vec<u8>,
}

impl Detokenizer {
    /// At the beginning of an answer.
    #[must_use]
    pub fn new(vocabulary: Arc<Vocabulary>) -> Self {
        Self { vocabulary, partial: Vec::new() }
    }

    /// The text that a token completes; empty while a character is still incomplete.
    pub fn push(&mut self, id: u32) -> String {
        self.partial.extend_from_slice(self.vocabulary.bytes_of(id));
        let whole = self.partial.len() - incomplete(&self.partial);
        let rest = self.partial.split_off(whole);
        let text = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial = rest;
        text
    }

    /// What is left when no token follows: U+FFFD for a character that never became whole.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned()
    }
}

/// Finds stop texts in growing text, wherever its pieces are cut.
#[derive(Clone, Debug)]
pub struct StopFilter {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop text.
    held: String,
    stopped: bool,
}

impl StopFilter {
    /// Watches for any of `stops`.
    #[must_use]
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), held: String::new(), stopped: false }
    }

    /// What may be given out now. After a stop text is complete, nothing more is.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        if let Some(start) = self.first_stop() {
            self.stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let free = self.held.len() - self.possible_beginning();
        let kept = self.held.split_off(free);
        std::mem::replace(&mut self.held, kept)
    }

    /// What was kept back and turned out to be ordinary text.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether a stop text has come.
    #[must_use]
    pub const fn stopped(&self) -> bool {
        self.stopped
    }

    /// Where the stop text that is complete first begins, so that the cutting into tokens does not matter.
    fn first_stop(&self) -> Option<usize> {
        let found = |stop: &String| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start));
        self.stops.iter().filter_map(found).min().map(|(_, start)| start)
    }

    fn possible_beginning(&self) -> usize {
        let longest = |stop: &String| {
            let ends = stop.char_indices().map(|(end, _)| end).rev();
            ends.into_iter().find(|&end| self.held.ends_with(&stop[..end])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}

/// How many bytes at the end may still become a character.
fn incomplete(bytes: &[u8]) -> usize {
    let Some(chunk) = bytes.utf8_chunks().last() else { return 0 };
    let invalid = chunk.invalid();
    let awaited = std::str::from_utf8(invalid).err().is_some_and(|e| e.error_len().is_none());
    if awaited { invalid.len() } else { 0 }
}

/// The bytes that a token prints: its name through the byte-level alphabet, or as it stands when it is not in
/// that alphabet; nothing for tokens that only steer.
fn printed(name: &str, kind: Option<u32>) -> Box<[u8]> {
    if matches!(kind, Some(KIND_UNKNOWN | KIND_CONTROL | KIND_UNUSED)) {
        return Box::default();
    }
    let alphabet = alphabet();
    let mapped: Option<Vec<u8>> = name.chars().map(|c| alphabet.get(&c).copied()).collect();
    mapped.map_or_else(|| name.as_bytes().into(), Vec::into_boxed_slice)
}

fn alphabet() -> &'static HashMap<char, u8> {
    static ALPHABET: std::sync::OnceLock<HashMap<char, u8>> = std::sync::OnceLock::new();
    ALPHABET.get_or_init(|| byte_characters().zip(0..=u8::MAX).collect())
}

/// The byte-level alphabet in the order of bytes: printable bytes stand for themselves, the others for the
/// characters from U+0100 on.
pub(crate) fn byte_characters() -> impl Iterator<Item = char> {
    let mut next = 0x100..;
    (0..=u8::MAX).map(move |byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => next.next().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER),
    })
}

/// Replaces the pre-tokenizer: the one made from the file puts a space before every text for names it does not
/// know, which the models were not trained with.
fn cut_as_trained(tokenizer: &mut Tokenizer, content: &Content) -> Result<(), TokenizerError> {
    let name = text(content, "tokenizer.ggml.pre").unwrap_or("gpt-2");
    let prefix = matches!(content.metadata.get("tokenizer.ggml.add_space_prefix"), Some(Value::Bool(true)));
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    let mut by_byte_level = false;
    match name {
        "llama-bpe" | "llama3" | "lfm2" | "smaug-bpe" => steps.push(by_pattern(LLAMA3)?),
        "qwen2" => steps.push(by_pattern(QWEN2)?),
        "gpt-2" | "smollm" => by_byte_level = true,
        unknown => {
            tracing::warn!(
                name = unknown,
                "unknown way to cut text; it is cut as for GPT-2, answers may be worse"
            );
            by_byte_level = true;
        }
    }
    if name == "smollm" {
        steps.push(Digits::new(true).into());
    }
    steps.push(ByteLevel::new(prefix, true, by_byte_level).into());
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    Ok(())
}

fn by_pattern(pattern: &str) -> Result<PreTokenizerWrapper, TokenizerError> {
    let pattern = SplitPattern::Regex(pattern.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(refused)?;
    Ok(split.into())
}

fn refused(error: impl fmt::Display) -> TokenizerError {
    TokenizerError::Refused { why: error.to_string() }
}

fn text<'a>(content: &'a Content, key: &str) -> Option<&'a str> {
    match content.metadata.get(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn strings(content: &Content, key: &str) -> Vec<String> {
    let Some(Value::Array(values)) = content.metadata.get(key) else { return Vec::new() };
    values.iter().map(|value| value.to_string().cloned().unwrap_or_default()).collect()
}

fn kinds(content: &Content) -> Vec<u32> {
    let Some(Value::Array(values)) = content.metadata.get("tokenizer.ggml.token_type") else {
        return Vec::new();
    };
    let kind = |value: &Value| match value {
        Value::I32(kind) => u32::try_from(*kind).unwrap_or(0),
        other => other.to_u32().unwrap_or(0),
    };
    values.iter().map(kind).collect()
}

const KIND_UNKNOWN: u32 = 2;
const KIND_CONTROL: u32 = 3;
const KIND_UNUSED: u32 = 5;
const END_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
/// Files often name only one of the tokens that their model ends with.
const END_NAMES: [&str; 6] =
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"];
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

#[cfg(test)]
mod tests;
