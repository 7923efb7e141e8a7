//! The model: embeddings, layers of attention and feed-forward, and the output, over rows of any sequences.
//!
//! A pass takes spans, each some tokens of one sequence, and computes all their rows together: a prompt's chunk, one
//! token each of many answers, or an answer to be checked are the same to it. A row meets the others only in what
//! they share, the weights; so the row's results do not depend on who else is in the pass.

use super::architecture::Dimensions;
use super::attention::Attend;
use super::cache::{Cache, Shape};
use super::float::{self, Gate};
use super::kernel::{Kernel, Routine};
use super::lanes::{LANES, Lanes};
use super::layers::{EMBEDDINGS, LOCAL_BASE, Layer, OUTPUT, Packed, Projection, ROTATION_FACTORS, wanted};
use super::linear::{Input, Linear, multiply};
use super::matrix::Matrix;
use super::pool::Pool;
use super::rotation::{Rotation, Scaling};
use super::weights::Tensors;
use crate::gguf::LoadError;

/// Some tokens of one sequence.
pub(super) struct Span<'a> {
    /// What was read before; the tokens are added to it.
    pub(super) cache: &'a mut Cache,
    /// What to read.
    pub(super) tokens: &'a [u32],
    /// After how many of them, from the end, results are wanted.
    pub(super) wanted: usize,
}

/// The results of a pass: a row for each wanted position, span after span.
pub(super) struct Results {
    /// Hidden states after the last norm.
    pub(super) states: Matrix,
    /// Logits.
    pub(super) logits: Matrix,
}

/// All weights, and how to use them.
pub(super) struct Transformer {
    dimensions: Dimensions,
    embeddings: Linear,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    /// None where the embeddings are used again.
    output: Option<Linear>,
    rotations: [Rotation; 2],
}

/// Where the rows of a pass belong.
struct Row {
    span: usize,
    token: u32,
    position: usize,
}

impl Transformer {
    /// Takes a model's tensors out of a file.
    pub(super) fn load(
        tensors: &Tensors<'_>,
        dimensions: Dimensions,
        vocabulary: usize,
        pool: &mut Pool,
    ) -> Result<Self, LoadError> {
        let output = tensors.has(OUTPUT);
        let mut packed = Packed(tensors.pack(pool, &wanted(&dimensions, vocabulary, output))?);
        let layers =
            (0..dimensions.layers).map(|layer| Layer::load(tensors, &dimensions, layer, &mut packed));
        let layers = layers.collect::<Result<_, _>>()?;
        let half = dimensions.head_width / 2;
        let factors =
            tensors.has(ROTATION_FACTORS).then(|| tensors.vector(ROTATION_FACTORS, half)).transpose()?;
        let Dimensions { base, scaling, head_width, .. } = dimensions;
        Ok(Self {
            embeddings: packed.take(EMBEDDINGS)?,
            layers,
            norm: tensors.vector("output_norm.weight", dimensions.width)?,
            output: output.then(|| packed.take(OUTPUT)).transpose()?,
            rotations: [
                Rotation::new(base, scaling, head_width, factors.as_deref()),
                Rotation::new(LOCAL_BASE, Scaling::Linear(1.0), head_width, None),
            ],
            dimensions,
        })
    }

    /// What the caches of sequences depend on.
    pub(super) const fn shape(&self) -> Shape {
        let Dimensions { layers, shared_heads, head_width, .. } = self.dimensions;
        Shape { layers, heads: shared_heads, width: head_width }
    }

    /// Reads all spans. At most [`MOST_ROWS`] tokens together, or memory grows.
    pub(super) fn pass(&self, kernel: Kernel, pool: &mut Pool, spans: &mut [Span<'_>]) -> Results {
        let rows = begin(spans);
        let mut pass = Pass::new(self, kernel, pool, rows);
        pass.embed();
        for (number, layer) in self.layers.iter().enumerate() {
            pass.attention(number, layer, spans);
            pass.feed_forward(layer);
        }
        pass.finish(spans)
    }
}

/// Makes room in the caches and lists the rows.
fn begin(spans: &mut [Span<'_>]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (span, Span { cache, tokens, .. }) in spans.iter_mut().enumerate() {
        let first = cache.length();
        cache.extend(tokens.len());
        rows.extend(tokens.iter().zip(first..).map(|(&token, position)| Row { span, token, position }));
    }
    rows
}

/// A pass on its way: the stream of rows, and room for what is computed from it.
struct Pass<'a> {
    model: &'a Transformer,
    kernel: Kernel,
    pool: &'a mut Pool,
    rows: Vec<Row>,
    /// Cosines and sines of each row, for each rotation.
    angles: [Matrix; 2],
    /// What flows from layer to layer.
    stream: Matrix,
    /// What the last part of a layer gave, to be added to the stream.
    pending: Matrix,
    input: Input,
    queries: Matrix,
    keys: Matrix,
    values: Matrix,
    attended: Input,
    gates: Matrix,
    ups: Matrix,
    gated: Input,
}

impl<'a> Pass<'a> {
    fn new(model: &'a Transformer, kernel: Kernel, pool: &'a mut Pool, rows: Vec<Row>) -> Self {
        let Dimensions { width, hidden, heads, shared_heads, head_width, .. } = model.dimensions;
        let count = rows.len();
        let angles = [0, 1].map(|which| {
            let mut angles = Matrix::new(count, head_width);
            let used = which == 0 || model.dimensions.family.local_layers > 0;
            for (row, to) in rows.iter().zip(angles.each_row_mut()).take(if used { count } else { 0 }) {
                model.rotations[which].angles(row.position, to);
            }
            angles
        });
        Self {
            model,
            kernel,
            pool,
            rows,
            angles,
            stream: Matrix::new(count, width),
            pending: Matrix::new(count, width),
            input: Input::new(count, width),
            queries: Matrix::new(count, heads * head_width),
            keys: Matrix::new(count, shared_heads * head_width),
            values: Matrix::new(count, shared_heads * head_width),
            attended: Input::new(count, heads * head_width),
            gates: Matrix::new(count, hidden),
            ups: Matrix::new(count, hidden),
            gated: Input::new(count, hidden),
        }
    }

    fn embed(&mut self) {
        let scale = if self.model.dimensions.family.scaled_embeddings {
            (self.model.dimensions.width as f32).sqrt()
        } else {
            1.0
        };
        for (row, to) in self.rows.iter().zip(self.stream.each_row_mut()) {
            self.model.embeddings.row(row.token as usize, to);
            to.iter_mut().for_each(|x| *x *= scale);
        }
    }

    fn attention(&mut self, number: usize, layer: &Layer, spans: &mut [Span<'_>]) {
        self.normalise(
            &layer.attention_norm,
            number.checked_sub(1).and_then(|before| self.model.layers[before].feed_post_norm.as_deref()),
        );
        let mut layers = [
            (&layer.queries.weights, &mut self.queries),
            (&layer.keys.weights, &mut self.keys),
            (&layer.values.weights, &mut self.values),
        ];
        multiply(self.kernel, self.pool, &self.input, &mut layers);
        self.project(layer);
        for (at, row) in self.rows.iter().enumerate() {
            let (keys, values) = (self.keys.row(at), self.values.row(at));
            self.kernel.run(spans[row.span].cache.write(number, row.position, keys, values));
        }
        self.attend(number, layer, spans);
        self.attended.quantise(self.kernel, self.pool);
        let mut layers = [(&layer.attention_output, &mut self.pending)];
        multiply(self.kernel, self.pool, &self.attended, &mut layers);
    }

    /// Adds what is pending to the stream, and makes the next input of it.
    fn normalise(&mut self, norm: &[f32], post: Option<&[f32]>) {
        let (kernel, epsilon) = (self.kernel, self.model.dimensions.epsilon);
        let rows = self.stream.each_row_mut().zip(self.pending.each_row_mut()).zip(self.input.each_row_mut());
        self.pool.each(rows.collect(), |((stream, pending), to)| {
            kernel.run(Normalise { stream, pending, post, norm, epsilon, to });
        });
        self.input.quantise(kernel, self.pool);
    }

    /// Biases, norms of heads and rotations.
    fn project(&mut self, layer: &Layer) {
        let (kernel, epsilon) = (self.kernel, self.model.dimensions.epsilon);
        let width = self.model.dimensions.head_width;
        let angles = &self.angles[layer.rotation];
        let rows = self.queries.each_row_mut().zip(self.keys.each_row_mut()).zip(self.values.each_row_mut());
        self.pool.each(rows.enumerate().collect(), |(at, ((queries, keys), values))| {
            let angles = Some(angles.row(at));
            kernel.run(Project { row: queries, by: &layer.queries, width, epsilon, angles });
            kernel.run(Project { row: keys, by: &layer.keys, width, epsilon, angles });
            kernel.run(Project { row: values, by: &layer.values, width, epsilon, angles: None });
        });
    }

    fn attend(&mut self, number: usize, layer: &Layer, spans: &[Span<'_>]) {
        let Dimensions { heads, shared_heads, head_width, .. } = self.model.dimensions;
        let tiles = head_width / LANES;
        let mut tasks = Vec::new();
        let mut first = 0;
        let mut blocks = Vec::new();
        for (number, span) in spans.iter().enumerate() {
            let end = first + span.tokens.len();
            blocks.extend(
                (first..end).step_by(ATTENTION_ROWS).map(|at| (number, at..(at + ATTENTION_ROWS).min(end))),
            );
            first = end;
        }
        // Heads that share keys attend together, unless threads would go without.
        let sharing = heads / shared_heads;
        let together = if blocks.len() * shared_heads < self.pool.threads() { 1 } else { sharing };
        let windows = self.attended.windows(blocks.iter().map(|(_, rows)| rows.clone()), tiles * together);
        let owners =
            blocks.iter().flat_map(|(span, _)| (0..heads).step_by(together).map(move |head| (*span, head)));
        for (to, (span, head)) in windows.into_iter().zip(owners) {
            let Row { position, .. } = self.rows[to.rows().start];
            tasks.push(Attend {
                queries: &self.queries,
                head: spans[span].cache.head(number, head / sharing),
                origin: position as isize - to.rows().start as isize,
                reach: layer.reach,
                scale: 1.0 / (head_width as f32).sqrt(),
                to,
            });
        }
        let kernel = self.kernel;
        self.pool.each(tasks, |task| kernel.run(task));
    }

    fn feed_forward(&mut self, layer: &Layer) {
        self.normalise(&layer.feed_norm, layer.attention_post_norm.as_deref());
        let mut layers = [(&layer.gate, &mut self.gates), (&layer.up, &mut self.ups)];
        multiply(self.kernel, self.pool, &self.input, &mut layers);
        let (kernel, gate) = (self.kernel, self.model.dimensions.family.gate);
        let rows = self.gates.each_row_mut().zip(self.ups.each_row_mut()).zip(self.gated.each_row_mut());
        self.pool.each(rows.collect(), |((gates, ups), to)| kernel.run(Gated { gate, gates, ups, to }));
        self.gated.quantise(kernel, self.pool);
        multiply(self.kernel, self.pool, &self.gated, &mut [(&layer.down, &mut self.pending)]);
    }

    /// The last norm and the output, for the wanted rows.
    fn finish(mut self, spans: &[Span<'_>]) -> Results {
        let mut wanted = Vec::new();
        let mut end = 0;
        for span in spans {
            end += span.tokens.len();
            wanted.extend(end - span.wanted.min(span.tokens.len())..end);
        }
        let post = self.model.layers.last().and_then(|layer| layer.feed_post_norm.clone());
        self.normalise(&self.model.norm, post.as_deref());
        let output = self.model.output.as_ref().unwrap_or(&self.model.embeddings);
        let mut states = self.input.select(&wanted);
        states.quantise(self.kernel, self.pool);
        let mut logits = Matrix::new(wanted.len(), output.rows());
        multiply(self.kernel, self.pool, &states, &mut [(output, &mut logits)]);
        logits.each_row_mut().for_each(one_kind_of_nan);
        let mut states = states.into_values();
        states.each_row_mut().for_each(one_kind_of_nan);
        Results { states, logits }
    }
}

/// Processors differ in the bits of what is no number.
fn one_kind_of_nan(row: &mut [f32]) {
    row.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = f32::NAN);
}

/// `stream += post-norm(pending)`, then `to = norm(stream)`.
struct Normalise<'a> {
    stream: &'a mut [f32],
    pending: &'a mut [f32],
    post: Option<&'a [f32]>,
    norm: &'a [f32],
    epsilon: f32,
    to: &'a mut [f32],
}

impl Routine for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        if let Some(post) = self.post {
            float::rms_norm_in_place(lanes, self.pending, post, self.epsilon);
        }
        float::add(lanes, self.stream, self.pending);
        float::rms_norm(lanes, self.stream, self.norm, self.epsilon, self.to);
    }
}

/// What follows a projection, for all heads of one row.
struct Project<'a> {
    row: &'a mut [f32],
    by: &'a Projection,
    width: usize,
    epsilon: f32,
    /// Cosines, then sines; none where nothing is rotated.
    angles: Option<&'a [f32]>,
}

impl Routine for Project<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        if let Some(bias) = &self.by.bias {
            float::add(lanes, self.row, bias);
        }
        for head in self.row.chunks_exact_mut(self.width) {
            if let Some(norm) = &self.by.norm {
                float::rms_norm_in_place(lanes, head, norm, self.epsilon);
            }
            if let Some((cosines, sines)) = self.angles.map(|angles| angles.split_at(self.width / 2)) {
                float::rotate(lanes, head, cosines, sines);
            }
        }
    }
}

struct Gated<'a> {
    gate: Gate,
    gates: &'a [f32],
    ups: &'a [f32],
    to: &'a mut [f32],
}

impl Routine for Gated<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        float::gated(lanes, self.gate, self.gates, self.ups, self.to);
    }
}

/// Rows of a sequence that attend in one task.
const ATTENTION_ROWS: usize = 16;
/// Rows of a pass: enough to use every weight many times, few enough that what is computed stays in the cache.
pub(super) const MOST_ROWS: usize = 128;
