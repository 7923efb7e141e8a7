//! The exact engine: the same logits on every peer, bit for bit.
//!
//! # The promise
//!
//! For one file and one sequence of tokens, the logits after every position are a function of those two alone. They
//! do not depend on the number of threads; on whether a prompt is read at once, in chunks or token by token; on
//! whether a token is decoded alone or in one pass with other sequences; or on which of the paths computes them
//! (scalar, AVX2, AVX-512). That function has a name, the profile [`PROFILE`], and never changes under it.
//!
//! # Why it holds
//!
//! A result is computed in one written order that mentions neither shape nor machine: integer dot products are exact
//! in any order, everything else is `+ − × ÷ √` and conversions as IEEE 754 rounds them, per output element, never
//! contracted. Kernels are written once over sixteen lanes (`lanes`); a path is a way to do sixteen-lane operations,
//! and those cannot differ.
//!
//! | module | what it is, from the bottom up |
//! |---|---|
//! | `lanes`, `kernel` | operations on sixteen lanes, for three classes of processors; which is chosen |
//! | `pool`, `matrix` | threads that compute together; rows that they write |
//! | `activations`, `format`, `linear` | numbers as bytes with scales; packed weights; their products |
//! | `float`, `rotation`, `cache`, `attention` | everything between linear layers |
//! | `architecture`, `weights`, `layers` | families of models, a file's tensors, what they are for |
//! | `transformer` | the whole, over rows of any sequences |

mod activations;
mod architecture;
mod attention;
mod cache;
mod float;
mod format;
mod kernel;
mod lanes;
mod layers;
mod linear;
mod matrix;
mod pool;
mod rotation;
mod transformer;
mod weights;

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::quantized::gguf_file::Content;

use crate::engine::{self, CacheUse, Engine, ForwardError, Position, Sequence, SpanResult};
use crate::gguf::LoadError;
use crate::model::Description;
pub(crate) use architecture::{Dimensions, Unfit, names};
use cache::{Cache, Held, PAGE};
pub use kernel::{Kernel, KernelError};
use pool::{Pool, normal_floats};
use transformer::{MOST_ROWS, Span, Transformer};
use weights::Tensors;

/// The name of the function from files and tokens to logits.
pub const PROFILE: &str = "exact-1";

/// The dimensions of a file that is for this engine.
pub(crate) fn fits(content: &Content) -> Result<Result<Dimensions, Unfit>, LoadError> {
    Ok(Dimensions::of(content)?.and_then(|dimensions| layers::covered(content).map(|()| dimensions)))
}

/// A model on the exact engine.
pub struct ExactModel {
    description: Description,
    core: Arc<Core>,
    chunk: usize,
}

/// What sequences share.
struct Core {
    transformer: Transformer,
    kernel: Kernel,
    /// One pass at a time: it takes all threads.
    pool: Mutex<Pool>,
    threads: usize,
    held: Arc<Held>,
}

impl ExactModel {
    /// Loads a file that [`fits`].
    pub(crate) fn load(
        description: Description,
        dimensions: Dimensions,
        (content, file): (&Content, &File),
        (kernel, threads): (Kernel, usize),
    ) -> Result<Self, LoadError> {
        let mut pool = Pool::new(threads);
        let vocabulary = description.card.vocabulary;
        let transformer = Transformer::load(&Tensors::new(content, file), dimensions, vocabulary, &mut pool)?;
        let chunk = chunk(description.card.file_size);
        let threads = pool.threads();
        let core = Core { transformer, kernel, pool: Mutex::new(pool), threads, held: Arc::default() };
        Ok(Self { description, core: Arc::new(core), chunk })
    }

    /// The path that computes.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.core.kernel
    }

    /// An empty sequence.
    #[must_use]
    pub fn start(&self) -> ExactSequence {
        let cache = Cache::new(self.core.transformer.shape(), Arc::clone(&self.core.held));
        ExactSequence { core: Arc::clone(&self.core), cache }
    }
}

impl Engine for ExactModel {
    fn description(&self) -> &Description {
        &self.description
    }

    fn profile(&self) -> &str {
        PROFILE
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn chunk(&self) -> usize {
        self.chunk
    }

    fn threads(&self) -> usize {
        self.core.threads
    }

    fn stride(&self) -> usize {
        REPLAYED.min(self.chunk)
    }

    fn sequence(&self) -> Box<dyn Sequence> {
        Box::new(self.start())
    }

    fn pass(&self, spans: &mut [engine::Span<'_>]) -> Vec<SpanResult> {
        let rows: usize = spans.iter().map(|span| span.tokens.len()).sum();
        if rows > MOST_ROWS || spans.iter().any(|span| span.tokens.is_empty()) {
            return spans.iter_mut().map(|span| span.sequence.read(span.tokens, span.wanted)).collect();
        }
        let wanted: Vec<_> = spans.iter().map(|span| span.wanted.min(span.tokens.len())).collect();
        let Some(mut rows) = spans.iter_mut().map(|span| self.rows(span)).collect::<Option<Vec<_>>>() else {
            let stranger = ForwardError("a sequence of another model was put into a pass".to_owned());
            return vec![Err(stranger); spans.len()];
        };
        let mut positions = self.core.pass(&mut rows).into_iter();
        wanted.into_iter().map(|wanted| Ok(positions.by_ref().take(wanted).collect())).collect()
    }

    fn cache(&self) -> Option<CacheUse> {
        let page_bytes = self.core.transformer.shape().page_bytes();
        Some(CacheUse { page: PAGE, page_bytes, pages: self.core.held.pages() })
    }
}

impl ExactModel {
    /// A span as the transformer reads it; none if its sequence is of another model.
    fn rows<'a>(&self, span: &'a mut engine::Span<'_>) -> Option<Span<'a>> {
        let sequence: &mut dyn Any = &mut *span.sequence;
        let sequence = sequence.downcast_mut::<ExactSequence>()?;
        let wanted = span.wanted.min(span.tokens.len());
        let ours = Arc::ptr_eq(&sequence.core, &self.core);
        ours.then_some(Span { cache: &mut sequence.cache, tokens: span.tokens, wanted })
    }
}

impl fmt::Debug for ExactModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (card, kernel) = (&self.description.card, self.core.kernel);
        f.debug_struct("ExactModel").field("card", card).field("kernel", &kernel).finish_non_exhaustive()
    }
}

/// A sequence on the exact engine. A clone shares what was read so far and goes its own way from there.
#[derive(Clone)]
pub struct ExactSequence {
    core: Arc<Core>,
    cache: Cache,
}

impl ExactSequence {
    /// Reads some tokens of each of several sequences of one model in one pass, and gives what follows the last of
    /// each: exactly what reading them alone would give.
    ///
    /// # Panics
    /// If the sequences are of different models, or one gets no token.
    pub fn forward_together(batch: &mut [(&mut Self, &[u32])]) -> Vec<Position> {
        let Some((first, _)) = batch.first() else { return Vec::new() };
        let core = Arc::clone(&first.core);
        let fits = |(sequence, tokens): &(&mut Self, &[u32])| {
            Arc::ptr_eq(&sequence.core, &core) && !tokens.is_empty()
        };
        assert!(batch.iter().all(fits), "sequences of one model, with a token each");
        let mut spans: Vec<_> = batch
            .iter_mut()
            .map(|(sequence, tokens)| Span { cache: &mut sequence.cache, tokens, wanted: 1 })
            .collect();
        core.pass(&mut spans)
    }

    fn positions(&mut self, tokens: &[u32], wanted: usize) -> Vec<Position> {
        let mut positions = Vec::new();
        let mut left = tokens.len();
        for tokens in tokens.chunks(MOST_ROWS) {
            left -= tokens.len();
            let wanted = wanted.saturating_sub(left).min(tokens.len());
            let cache = &mut self.cache;
            positions.extend(self.core.pass(&mut [Span { cache, tokens, wanted }]));
        }
        positions
    }
}

impl Sequence for ExactSequence {
    fn forward(&mut self, tokens: &[u32]) -> Result<Position, ForwardError> {
        let nothing = || ForwardError("no tokens to read".to_owned());
        self.positions(tokens, 1).pop().ok_or_else(nothing)
    }

    fn forward_all(&mut self, tokens: &[u32]) -> Result<Vec<Position>, ForwardError> {
        Ok(self.positions(tokens, tokens.len()))
    }

    fn read(&mut self, tokens: &[u32], wanted: usize) -> Result<Vec<Position>, ForwardError> {
        Ok(self.positions(tokens, wanted))
    }

    fn fork(&self, length: usize) -> Option<Box<dyn Sequence>> {
        let mut fork = self.clone();
        fork.cache.truncate(length);
        Some(Box::new(fork))
    }
}

impl fmt::Debug for ExactSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactSequence").field("length", &self.cache.length()).finish_non_exhaustive()
    }
}

impl Core {
    fn pass(&self, spans: &mut [Span<'_>]) -> Vec<Position> {
        normal_floats();
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let results = self.transformer.pass(self.kernel, &mut pool, spans);
        let position = |row| Position {
            logits: results.logits.row(row).to_vec(),
            state: Some(results.states.row(row).to_vec()),
        };
        (0..results.states.rows()).map(position).collect()
    }
}

/// How much of a prompt is read in a step: a step should end within a tenth of a second or so, and steps of any size
/// give the same bits.
fn chunk(file_size: u64) -> usize {
    let fitting = LIGHT_FILE * MOST_ROWS as u64 / file_size.max(1);
    (fitting as usize).next_power_of_two().clamp(SHORTEST_CHUNK, MOST_ROWS)
}

/// A file of this size allows for the longest chunk.
const LIGHT_FILE: u64 = 150 << 20;
/// Shorter ones would waste the weights that are read for them.
const SHORTEST_CHUNK: usize = 16;
/// How much of an answer is replayed in a step: logits of all of it are held at once.
const REPLAYED: usize = 32;

#[cfg(test)]
mod tests;
