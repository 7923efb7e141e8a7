//! Language models for Llamesh: a GGUF file in, exactly sampled tokens out.
//!
//! The crate knows models and nothing else: no mesh, no protocol, no network, no async. It reads one file (and writes none, but
//! the small ones without meaning that tests ask for), and
//! turns prompts into tokens in steps that can be stopped, bounded and repeated. What it gives to a mesh of strangers is
//! that an answer can be *checked*: the same model, prompt, parameters and seed lead to the same tokens.
//!
//! | module | what it answers, in the order to read it |
//! |---|---|
//! | [`engine`] | what an engine must do, and what is derived from it |
//! | [`reading`] | known tokens on their way into a sequence |
//! | [`generation`] | an answer pulled step by step: the unit of work and of cancelling |
//! | [`sample`] | logits to a token: the pipeline and its order; [`sample::noise`], the chance in it |
//! | [`constraint`] | answers that keep a form: a schema, a regex, choices, a grammar; always finished in time |
//! | [`math`] | `ln` and `exp` with the same bits everywhere |
//! | [`replay`] | was this answer drawn from this model? |
//! | [`schedule`] | who reads what in the next pass: the pure half of serving many |
//! | [`prefix`] | what was read before and may be read again |
//! | [`worker`] | one thread that computes for many jobs: the other half |
//! | [`scoring`] | how likely a model holds a text |
//! | [`commitment`] | what an exact engine commits to, 32 bytes a segment |
//! | [`model`] | a GGUF file as an engine; [`gguf`], the look at a file that nobody trusts yet |
//! | [`exact`] | the engine whose logits are the same everywhere: kernels, cache, families |
//! | [`candle_engine`] | candle's own models, for families that the exact engine does not know |
//! | [`tokens`] | text to tokens and back, characters whole, stop texts found |
//! | [`mod@bench`] | how fast an engine is here, and a digest of its logits |
//! | [`tools`] | what a model may call, and how it says so |
//! | [`mod@logprobs`] | logits to log-probabilities |
//! | [`chat`] | messages to one text, by the model's template |
//! | [`embedding`] | texts to vectors, by a BERT |
//! | [`kernels`] | which arithmetic this machine has: a word in the profile |
//! | [`tiny`] | a small model without meaning, for tests |
//!
//! # What is promised
//!
//! Sampling is exact: the same logits give the same token on every machine. Logits of the exact engine
//! ([`exact`], profile `exact-1`) are too: whatever the machine, the number of threads, the instruction set, the
//! shape of a pass. So an answer can be computed again, anywhere, and is equal or not this model's. For other families
//! candle computes; there logits are the same *within one profile* only (version of candle, class of instruction set,
//! size of a prompt chunk), and across profiles a replay reports by what margin it differs.
//!
//! # Invariants
//!
//! 1. A step is at most one chunk of a prompt or one token. Dropping a [`Generation`] cancels it.
//! 2. Generation and replay read through the same [`reading::Reading`], so where shapes matter they are equal.
//! 3. The noise of a token is a function of seed, choice, output index and token id only, so an answer that one
//!    peer began another continues.
//! 4. The concatenation of the texts of an answer's steps is the answer: what was given out is never taken back.
//! 5. Nothing in a file or a request is believed before it is checked: no allocation follows a stranger's number.
//!
//! # From a file to text
//!
//! ```no_run
//! use inference::{Chat, Message, Prompt, Request, Sampling, Step};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = inference::load("model.gguf".as_ref())?;
//! let chat = Chat { messages: vec![Message::new("user", "Why is the sky blue?")], ..Chat::default() };
//! let prompt = model.prompt(&Prompt::Chat(chat))?;
//! let mut answer = String::new();
//! for step in model.generate(&Request::new(prompt, Sampling::default()))? {
//!     match step? {
//!         Step::Token { text, .. } => answer += &text,
//!         Step::Finished { rest, .. } => answer += &rest,
//!         Step::Prefilled { .. } => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

pub mod bench;
pub mod candle_engine;
pub mod chat;
pub mod commitment;
pub mod constraint;
pub mod embedding;
pub mod engine;
pub mod exact;
pub mod generation;
pub mod gguf;
pub mod kernels;
pub mod logprobs;
pub mod math;
pub mod model;
pub mod prefix;
pub mod reading;
pub mod replay;
pub mod sample;
pub mod schedule;
pub mod scoring;
pub mod tiny;
pub mod tokens;
pub mod tools;
pub mod worker;

pub use chat::{Chat, Message, TemplateError};
pub use constraint::{Constraint, ConstraintError};
pub use embedding::Embedder;
pub use engine::{
    CacheUse, Engine, ForwardError, GenerateError, Position, Prompt, PromptError, Request, Sequence, Span,
    SpanResult, Speed,
};
pub use generation::{FinishReason, Generation, Step, texts};
pub use gguf::LoadError;
pub use logprobs::{Logprobs, logprobs};
pub use model::{Description, EngineChoice, Loading, ModelCard, Outline, load, load_exactly, load_with};
pub use replay::{Claim, Replay, ReplayStep, Replaying};
pub use sample::{Sampling, SamplingError};
pub use schedule::Tenant;
pub use scoring::{ScoreStep, Scoring, Text};
pub use tools::{CallSyntax, Tool, ToolCall, ToolChoice, ToolError};
pub use worker::{Cancel, Event, Flow, Job, Load, Serving, Submission, SubmitError, Tally, Worker};
