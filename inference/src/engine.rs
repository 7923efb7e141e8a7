//! What an engine must be able to do, and what follows from it.
//!
//! An engine brings three things: the [`Description`] of its model, the id of its numerics, and [`Sequence`]s that turn
//! tokens into logits. Everything else (prompts, generation, replay, speed) is derived here from those, once, so that
//! two engines can differ in nothing but their numbers.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chat::{Chat, ChatTemplate, TemplateError};
use crate::constraint::{Constraint, ConstraintError};
use crate::generation::Generation;
use crate::model::{Description, ModelCard};
use crate::reading::{Reading, Shape};
use crate::replay::{Claim, Replaying};
use crate::sample::{Sampling, SamplingError};
use crate::scoring::{Scoring, Text};
use crate::tokens::{TokenizerError, Vocabulary};

/// What a model is asked to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Messages, rendered by the model's template.
    Chat(Chat),
    /// A bare text to complete.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

/// A generation to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The tokens to continue, from [`Engine::prompt`].
    pub prompt: Vec<u32>,
    /// What another peer already answered; generation goes on after it, as that peer would have.
    pub answered: Vec<u32>,
    /// Whether each of those tokens must be the one that is drawn here: what an exact engine can demand, and no other.
    pub check: bool,
    /// How to draw tokens.
    pub sampling: Sampling,
    /// What the answer must be.
    pub constraint: Option<Constraint>,
    /// How many of the likeliest tokens are told beside each token, with log-probabilities; none for no numbers.
    pub logprobs: Option<usize>,
}

impl Request {
    /// A generation from the beginning.
    #[must_use]
    pub const fn new(prompt: Vec<u32>, sampling: Sampling) -> Self {
        Self { prompt, answered: Vec::new(), check: false, sampling, constraint: None, logprobs: None }
    }
}

/// A prompt that the model cannot take.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Nothing to continue.
    #[error("the prompt is empty; say something")]
    Empty,
    /// More tokens than fit with at least one of an answer.
    #[error(
        "the prompt has {tokens} tokens, the model's context holds {context}; shorten it or take another model"
    )]
    TooLong {
        /// Tokens of the prompt (and of what is already answered).
        tokens: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// A token that the model does not have.
    #[error("token {id} is not among the model's {vocabulary}; the ids belong to another model")]
    UnknownToken {
        /// The id.
        id: u32,
        /// How many the model has.
        vocabulary: usize,
    },
    /// The chat template refused.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer refused.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A generation or replay that could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The answer cannot be what it must be.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The engine gave up.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// What was answered before is not what this engine draws.
    #[error(
        "token {index} of the answer so far is not the one that is drawn here; whoever gave it used another model or seed"
    )]
    Inherited {
        /// The first that differs.
        index: u32,
    },
    /// The engine panicked; it works on for others.
    #[error(
        "the engine failed inside ({what}); this is a bug worth reporting, other requests are not affected"
    )]
    Panicked {
        /// The panic's message.
        what: String,
    },
    /// The prompt does not fit the model.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The parameters are out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

/// The numbers could not be computed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the model could not be evaluated: {0}; if it recurs, fetch the model file again")]
pub struct ForwardError(pub String);

/// What an engine says after a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    /// A number for each token of the vocabulary: how well it would follow.
    pub logits: Vec<f32>,
    /// The hidden state that the logits were made of, from engines that commit to it.
    pub state: Option<Vec<f32>>,
}

/// One sequence with its own cache of what it has read; dropping it frees the cache.
pub trait Sequence: Any + Send {
    /// Reads `tokens` (never none) after those read before, and gives what follows the last one.
    ///
    /// Unless the engine is exact, the bits of the logits depend on how a sequence was cut into calls. Whoever wants
    /// them again cuts alike.
    fn forward(&mut self, tokens: &[u32]) -> Result<Position, ForwardError>;

    /// Reads `tokens` and gives what follows each, as if they had been read one by one.
    fn forward_all(&mut self, tokens: &[u32]) -> Result<Vec<Position>, ForwardError> {
        tokens.iter().map(|&token| self.forward(&[token])).collect()
    }

    /// Reads `tokens` and gives what follows each of the last `wanted` of them.
    fn read(&mut self, tokens: &[u32], wanted: usize) -> Result<Vec<Position>, ForwardError> {
        match wanted {
            0 | 1 => self.forward(tokens).map(|position| vec![position].split_off(1 - wanted)),
            _ => self.forward_all(tokens).map(|mut all| all.split_off(tokens.len().saturating_sub(wanted))),
        }
    }

    /// Another sequence that has read the first `length` of the same tokens, where the engine can share what was read.
    fn fork(&self, length: usize) -> Option<Box<dyn Sequence>> {
        let _ = length;
        None
    }
}

/// Some tokens that a sequence is to read in a pass.
pub struct Span<'a> {
    /// Who reads.
    pub sequence: &'a mut dyn Sequence,
    /// What; never nothing.
    pub tokens: &'a [u32],
    /// After how many of them, from the end, positions are wanted.
    pub wanted: usize,
}

impl fmt::Debug for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

/// What a span brought: the wanted positions.
pub type SpanResult = Result<Vec<Position>, ForwardError>;

/// A model that can be asked. Shared as `Arc<dyn Engine>`.
pub trait Engine: Send + Sync + fmt::Debug {
    /// What model this is, and how text becomes its tokens.
    fn description(&self) -> &Description;

    /// The id of this engine's numerics: two engines with one id give the same tokens for the same request.
    fn profile(&self) -> &str;

    /// Whether logits depend on nothing but the tokens before them, on every machine with this profile.
    fn is_exact(&self) -> bool {
        false
    }

    /// How many tokens of a known answer are read in one step.
    fn stride(&self) -> usize {
        1
    }

    /// Reads some tokens of several sequences of this engine; a result for each. Where rows of different sequences
    /// share the weights that are read for them, this is much faster than one after the other, and never different.
    fn pass(&self, spans: &mut [Span<'_>]) -> Vec<SpanResult> {
        spans.iter_mut().map(|span| span.sequence.read(span.tokens, span.wanted)).collect()
    }

    /// What reading costs in memory; none where it is not known.
    fn cache(&self) -> Option<CacheUse> {
        None
    }

    /// How many threads it computes with.
    fn threads(&self) -> usize {
        1
    }

    /// A new, empty sequence.
    fn sequence(&self) -> Box<dyn Sequence>;

    /// How many prompt tokens are read in one step; part of the profile unless the engine is exact.
    fn chunk(&self) -> usize;

    /// What model this is.
    fn card(&self) -> &ModelCard {
        &self.description().card
    }

    /// The model's tokens.
    fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.description().vocabulary
    }

    /// The model's chat template.
    fn template(&self) -> &ChatTemplate {
        &self.description().template
    }

    /// The text of a chat, as the model reads it.
    fn render(&self, chat: &Chat) -> Result<String, PromptError> {
        Ok(self.template().render(chat)?)
    }

    /// The tokens of a text, as it stands.
    fn tokenize(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        Ok(self.vocabulary().encode(text, false)?)
    }

    /// The tokens of a prompt, checked against the model's context and vocabulary.
    fn prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, PromptError> {
        let tokens = match prompt {
            Prompt::Chat(chat) => self.tokenize(&self.render(chat)?)?,
            Prompt::Text(text) => self.vocabulary().encode(text, true)?,
            Prompt::Tokens(tokens) => tokens.clone(),
        };
        self.fits(&tokens, &[])?;
        Ok(tokens)
    }

    /// Checks that a prompt and the beginning of its answer leave room for one more token.
    fn fits(&self, prompt: &[u32], answered: &[u32]) -> Result<(), PromptError> {
        let (tokens, card) = (prompt.len() + answered.len(), self.card());
        if prompt.is_empty() {
            return Err(PromptError::Empty);
        }
        if tokens >= card.context {
            return Err(PromptError::TooLong { tokens, context: card.context });
        }
        known(prompt, card.vocabulary)?;
        known(answered, card.vocabulary)
    }

    /// Begins a generation; nothing is computed until it is asked for its first step.
    fn generate(&self, request: &Request) -> Result<Generation, GenerateError> {
        request.sampling.validate()?;
        // Of an answer that is there already the last token may be the last that fits: then nothing is read after it.
        self.fits(&request.prompt, request.answered.split_last().map_or(&[], |(_, read)| read))?;
        known(&request.answered, self.card().vocabulary)?;
        Generation::new(self.reading(&request.prompt), request, self.description())
    }

    /// Begins a check of a claimed answer; nothing is computed until it is asked for its first step.
    fn replay(&self, claim: &Claim) -> Result<Replaying, GenerateError> {
        claim.sampling.validate()?;
        // The last token of an answer is judged, never read, so an answer may fill the context.
        self.fits(&claim.prompt, claim.answer.split_last().map_or(&[], |(_, read)| read))?;
        known(&claim.answer, self.card().vocabulary)?;
        Replaying::new(self.reading(&claim.prompt), claim, self.description())
    }

    /// Begins to score a text; nothing is computed until it is asked for its first step.
    fn score(&self, text: &Text) -> Result<Scoring, GenerateError> {
        // The last token is scored, never read, so a text may fill the context.
        let read = text.tokens.split_last().map_or(&[][..], |(_, read)| read);
        if !read.is_empty() {
            self.fits(read, &[])?;
        }
        known(&text.tokens, self.card().vocabulary)?;
        Ok(Scoring::new(self.reading(read), text.clone()))
    }

    /// A sequence about to read a prompt, in the shapes that this engine's bits depend on.
    fn reading(&self, prompt: &[u32]) -> Reading {
        let shape =
            Shape { exact: self.is_exact(), chunk: self.chunk().max(1), stride: self.stride().max(1) };
        Reading::new(self.sequence(), prompt, shape, self.threads().max(1))
    }

    /// Measures this machine with a short greedy run: one full chunk of prompt, a few tokens of answer.
    fn measure(&self) -> Result<Speed, GenerateError> {
        let length = self.chunk().clamp(1, self.card().context.saturating_sub(MEASURED_TOKENS + 1).max(1));
        let vocabulary = self.card().vocabulary.max(1);
        let prompt: Vec<_> = (0..length).map(|at| (at * 31 % vocabulary) as u32).collect();
        let mut sequence = self.sequence();
        let start = Instant::now();
        let mut logits = sequence.forward(&prompt)?.logits;
        let prefill = start.elapsed();
        let start = Instant::now();
        for _ in 0..MEASURED_TOKENS {
            logits = sequence.forward(&[greedy().choose(&logits, &prompt, &[])])?.logits;
        }
        Ok(Speed { prefill: rate(length, prefill), decode: rate(MEASURED_TOKENS, start.elapsed()) })
    }
}

/// The memory of an engine's sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheUse {
    /// Positions that are given out at once: the memory of a sequence grows by so many.
    pub page: usize,
    /// Bytes of such a page.
    pub page_bytes: usize,
    /// Pages that are held now, those that several sequences share counted once.
    pub pages: usize,
}

/// Tokens per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Of a prompt.
    pub prefill: f64,
    /// Of an answer.
    pub decode: f64,
}

fn known(ids: &[u32], vocabulary: usize) -> Result<(), PromptError> {
    match ids.iter().find(|&&id| id as usize >= vocabulary) {
        Some(&id) => Err(PromptError::UnknownToken { id, vocabulary }),
        None => Ok(()),
    }
}

fn rate(tokens: usize, elapsed: Duration) -> f64 {
    tokens as f64 / elapsed.as_secs_f64().max(1e-9)
}

fn greedy() -> Sampling {
    Sampling { temperature: 0.0, ..Sampling::default() }
}

/// Enough to see the rate, few enough that a start stays quick.
const MEASURED_TOKENS: usize = 8;
