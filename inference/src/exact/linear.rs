//! Linear layers: packed weights, and their product with rows of activations.
//!
//! An output is computed alone and in one order: for each block of 32 columns, from the first to the last, the
//! integer dot product of bytes is exact, becomes a float exactly, is multiplied by `weight scale × activation scale`,
//! and is added; an offset times the activations' sum is added after it. Sixteen outputs are computed side by side and
//! up to [`MOST_ROWS`] rows at once, but no sum ever crosses lanes or rows: so neither the shape of a pass, nor the
//! path, nor the number of threads can change a bit. Weights that are floats are multiplied and added column by column.
//!
//! candle's tensors hold one format in one order and choose kernels by shape, which is what makes their results
//! depend on it; so the products are beneath candle, on packed bytes.

use std::array::from_fn;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use memmap2::Mmap;

use super::activations::{Block, Quantise};
use super::format::{Format, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Unpacked};
use super::kernel::{Kernel, Routine};
use super::lanes::{BLOCK, LANES, Lanes, Scalar};
use super::matrix::{Matrix, Window};
use super::pool::Pool;

/// How a tensor's weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    /// Half floats, column by column.
    Half,
    /// Floats, column by column: also what brain floats become.
    Float,
}

/// Calls `$call` with `$format` standing for the format of a kind, `$floats` for the others.
macro_rules! by_format {
    ($kind:expr, $format:ident => $call:expr, _ => $floats:expr) => {
        match $kind {
            Kind::Q4_0 => {
                type $format = Q4_0;
                $call
            }
            Kind::Q4_1 => {
                type $format = Q4_1;
                $call
            }
            Kind::Q5_0 => {
                type $format = Q5_0;
                $call
            }
            Kind::Q5_1 => {
                type $format = Q5_1;
                $call
            }
            Kind::Q8_0 => {
                type $format = Q8_0;
                $call
            }
            Kind::Q4K => {
                type $format = Q4K;
                $call
            }
            Kind::Q5K => {
                type $format = Q5K;
                $call
            }
            Kind::Q6K => {
                type $format = Q6K;
                $call
            }
            Kind::Half | Kind::Float => $floats,
        }
    };
}

impl Kind {
    /// How weights of a file's type are kept; none if they have no kernel here.
    pub(super) const fn of(file: GgmlDType) -> Option<Self> {
        Some(match file {
            GgmlDType::Q4_0 => Self::Q4_0,
            GgmlDType::Q4_1 => Self::Q4_1,
            GgmlDType::Q5_0 => Self::Q5_0,
            GgmlDType::Q5_1 => Self::Q5_1,
            GgmlDType::Q8_0 => Self::Q8_0,
            GgmlDType::Q4K => Self::Q4K,
            GgmlDType::Q5K => Self::Q5K,
            GgmlDType::Q6K => Self::Q6K,
            GgmlDType::F16 => Self::Half,
            GgmlDType::F32 | GgmlDType::BF16 => Self::Float,
            _ => return None,
        })
    }

    /// Bytes of a tile with so many columns.
    fn tile(self, columns: usize) -> usize {
        by_format!(self, F => columns / BLOCK / F::GROUP * (F::HEAD + F::GROUP * F::BODY), _ => columns * LANES * self.width())
    }

    /// Columns that a row must be a multiple of.
    pub(super) fn granularity(self) -> usize {
        by_format!(self, F => F::GROUP * BLOCK, _ => 1)
    }

    /// Bytes of a weight that is a float.
    const fn width(self) -> usize {
        if matches!(self, Self::Half) { 2 } else { 4 }
    }
}

/// A matrix of weights, packed into tiles of sixteen rows.
#[derive(Clone)]
pub(super) struct Linear {
    kind: Kind,
    rows: usize,
    columns: usize,
    memory: Arc<Mmap>,
    place: Range<usize>,
}

impl Linear {
    /// Weights that lie packed at `place` of `memory`.
    pub(super) fn new(kind: Kind, shape: (usize, usize), memory: &Arc<Mmap>, place: Range<usize>) -> Self {
        let (rows, columns) = shape;
        Self { kind, rows, columns, memory: Arc::clone(memory), place }
    }

    /// How many outputs there are.
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// How many inputs there are.
    pub(super) const fn columns(&self) -> usize {
        self.columns
    }

    fn tile(&self, tile: usize) -> &[u8] {
        let length = self.kind.tile(self.columns);
        &self.memory[self.place.clone()][tile * length..][..length]
    }

    /// One row of weights as numbers: what an embedding is.
    pub(super) fn row(&self, row: usize, to: &mut [f32]) {
        let (tile, lane) = (self.tile(row / LANES), row % LANES);
        by_format!(self.kind, F => quantised_row::<F>(tile, lane, to), _ => {
            for (column, to) in to.iter_mut().enumerate() {
                *to = if self.kind == Kind::Half {
                    Plain::<true>::lanes(Scalar, tile, column)[lane]
                } else {
                    Plain::<false>::lanes(Scalar, tile, column)[lane]
                };
            }
        });
    }
}

impl std::fmt::Debug for Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}[{}, {}]", self.kind, self.rows, self.columns)
    }
}

/// Bytes that a packed tensor takes.
pub(super) fn packed_size(kind: Kind, rows: usize, columns: usize) -> usize {
    rows.div_ceil(LANES) * kind.tile(columns)
}

/// Packs one tile: up to sixteen rows of a file, missing ones being zeros. `to` has the tile's length and is zeros.
pub(super) fn pack_tile(kind: Kind, file: GgmlDType, columns: usize, rows: &[u8], to: &mut [u8]) {
    by_format!(kind, F => pack_blocks::<F>(columns, rows, to), _ => pack_floats(kind, file, columns, rows, to));
}

fn pack_blocks<F: Format>(columns: usize, rows: &[u8], to: &mut [u8]) {
    let groups = columns / BLOCK / F::GROUP;
    let nothing = vec![0; groups * F::FILE];
    let rows: [&[u8]; LANES] =
        from_fn(|lane| rows.get(lane * groups * F::FILE..(lane + 1) * groups * F::FILE).unwrap_or(&nothing));
    let (heads, bodies) = to.split_at_mut(groups * F::HEAD);
    let bodies = bodies.chunks_exact_mut(F::GROUP * F::BODY);
    for (group, (head, bodies)) in heads.chunks_exact_mut(F::HEAD).zip(bodies).enumerate() {
        let rows = rows.map(|row| &row[group * F::FILE..][..F::FILE]);
        F::pack(&rows, head, bodies);
    }
}

fn pack_floats(kind: Kind, file: GgmlDType, columns: usize, rows: &[u8], to: &mut [u8]) {
    let stored = if file == GgmlDType::F32 { 4 } else { 2 };
    for (lane, row) in rows.chunks_exact(columns * stored).enumerate() {
        for (column, bytes) in row.chunks_exact(stored).enumerate() {
            let to = &mut to[(column * LANES + lane) * kind.width()..][..kind.width()];
            // A brain float is the upper half of a float.
            let upper = to.len() - bytes.len();
            to[upper..].copy_from_slice(bytes);
        }
    }
}

fn quantised_row<F: Format>(tile: &[u8], lane: usize, to: &mut [f32]) {
    let (heads, bodies) = tile.split_at(to.len() / BLOCK / F::GROUP * F::HEAD);
    for (block, to) in to.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let (head, at) = (&heads[block / F::GROUP * F::HEAD..][..F::HEAD], block % F::GROUP);
        let bytes = F::unpack(Scalar, &bodies[block * F::BODY..][..F::BODY]);
        let offset = F::offset(Scalar, head, at)[lane];
        for (column, to) in to.iter_mut().enumerate() {
            let scale = F::scale(Scalar, head, at, if F::HALVES { column / LANES } else { 0 })[lane];
            let byte = bytes[column / 4][lane].to_le_bytes()[column % 4];
            *to = scale * (i32::from(byte) - F::ZERO) as f32 + offset;
        }
    }
}

/// Rows of activations that linear layers read.
#[derive(Debug, Default)]
pub(super) struct Input {
    values: Matrix,
    blocks: Vec<Block>,
}

impl Input {
    /// Room for rows of so many activations, a whole number of blocks.
    pub(super) fn new(rows: usize, columns: usize) -> Self {
        Self { values: Matrix::new(rows, columns), blocks: vec![Block::default(); rows * columns / BLOCK] }
    }

    /// Each row with its blocks, to be filled.
    pub(super) fn each_row_mut(&mut self) -> impl Iterator<Item = Filling<'_>> {
        let blocks = self.blocks.len() / self.values.rows().max(1);
        let blocks = self.blocks.chunks_exact_mut(blocks.max(1));
        self.values.each_row_mut().zip(blocks).map(|(values, blocks)| Filling { values, blocks })
    }

    /// Windows of the values; see [`Matrix::windows`]. What is written becomes blocks by [`Filling::quantise`].
    pub(super) fn windows(
        &mut self,
        rows: impl IntoIterator<Item = Range<usize>>,
        tiles: usize,
    ) -> Vec<Window<'_>> {
        self.values.windows(rows, tiles)
    }

    /// Some of the rows.
    pub(super) fn select(&self, rows: &[usize]) -> Self {
        let mut selected = Self::new(rows.len(), self.values.columns());
        for (&row, to) in rows.iter().zip(selected.each_row_mut()) {
            to.values.copy_from_slice(self.values.row(row));
            to.blocks.copy_from_slice(self.row(row));
        }
        selected
    }

    /// The rows as they are.
    pub(super) fn into_values(self) -> Matrix {
        self.values
    }

    fn row(&self, row: usize) -> &[Block] {
        let blocks = self.blocks.len() / self.values.rows().max(1);
        &self.blocks[row * blocks..][..blocks]
    }
}

/// One row of an input on its way.
#[derive(Debug)]
pub(super) struct Filling<'a> {
    /// The activations.
    pub(super) values: &'a mut [f32],
    blocks: &'a mut [Block],
}

impl Filling<'_> {
    /// Ends the filling: `values` become blocks.
    #[inline(always)]
    pub(super) fn quantise<L: Lanes>(self, lanes: L) {
        Quantise { row: self.values, to: self.blocks }.run(lanes);
    }
}

/// Multiplies one input with several layers: `output[row][n] = Σ weight[n][k] · input[row][k]`.
pub(super) fn multiply(
    kernel: Kernel,
    pool: &mut Pool,
    input: &Input,
    layers: &mut [(&Linear, &mut Matrix)],
) {
    let tiles: usize = layers.iter().map(|(layer, _)| layer.rows.div_ceil(LANES)).sum();
    let share = tiles.div_ceil(pool.threads() * TASKS_PER_THREAD).max(1);
    let mut tasks = Vec::new();
    for (layer, output) in layers {
        let layer: &Linear = layer;
        let rows = 0..input.values.rows();
        tasks.extend(output.windows([rows], share).into_iter().map(|to| Product { layer, input, to }));
    }
    pool.each(tasks, |task| kernel.run(task));
}

/// Some outputs of a layer, for all rows.
struct Product<'a> {
    layer: &'a Linear,
    input: &'a Input,
    to: Window<'a>,
}

impl Routine for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        by_format!(self.layer.kind, F => self.compute::<L, Quantised<F>>(lanes), _ => {
            if self.layer.kind == Kind::Half {
                self.compute::<L, Plain<true>>(lanes);
            } else {
                self.compute::<L, Plain<false>>(lanes);
            }
        });
    }
}

impl Product<'_> {
    #[inline(always)]
    fn compute<L: Lanes, W: Weights>(&mut self, lanes: L) {
        for tile in self.to.tiles() {
            let mut row = 0;
            while row < self.input.values.rows() {
                row += match self.input.values.rows() - row {
                    MOST_ROWS.. => self.some_rows::<L, W, MOST_ROWS>(lanes, tile, row),
                    4.. => self.some_rows::<L, W, 4>(lanes, tile, row),
                    2.. => self.some_rows::<L, W, 2>(lanes, tile, row),
                    _ => self.some_rows::<L, W, 1>(lanes, tile, row),
                };
            }
        }
    }

    #[inline(always)]
    fn some_rows<L: Lanes, W: Weights, const ROWS: usize>(
        &mut self,
        lanes: L,
        tile: usize,
        row: usize,
    ) -> usize {
        let sums = W::products::<L, ROWS>(lanes, self.layer.tile(tile), self.input, row);
        for (at, sum) in sums.into_iter().enumerate() {
            lanes.store(sum, self.to.lanes(row + at, tile));
        }
        ROWS
    }
}

/// How a tile of weights is multiplied with some rows of an input, from `row` on.
trait Weights {
    fn products<L: Lanes, const ROWS: usize>(
        lanes: L,
        tile: &[u8],
        input: &Input,
        row: usize,
    ) -> [L::Floats; ROWS];
}

/// Weights in blocks.
struct Quantised<F>(PhantomData<F>);

impl<F: Format> Weights for Quantised<F> {
    #[inline(always)]
    fn products<L: Lanes, const ROWS: usize>(
        lanes: L,
        tile: &[u8],
        input: &Input,
        row: usize,
    ) -> [L::Floats; ROWS] {
        let rows: [&[Block]; ROWS] = from_fn(|at| input.row(row + at));
        let blocks = rows[0].len();
        let (heads, bodies) = tile.split_at(blocks / F::GROUP * F::HEAD);
        let mut sums = [lanes.splat(0.0); ROWS];
        for block in 0..blocks {
            let (head, at) = (&heads[block / F::GROUP * F::HEAD..][..F::HEAD], block % F::GROUP);
            let body = &bodies[block * F::BODY..][..F::BODY];
            if ROWS == 1 {
                // A single row reads weights faster than they come.
                for at in (0..F::BODY).step_by(CACHE_LINE) {
                    lanes.prefetch(body, AHEAD + at);
                }
            }
            let weights = F::unpack(lanes, body);
            let scales = [F::scale(lanes, head, at, 0), F::scale(lanes, head, at, 1)];
            let offset = F::offset(lanes, head, at);
            for (sum, row) in sums.iter_mut().zip(&rows) {
                *sum = add_block::<F, L>(lanes, *sum, &weights, scales, &row[block]);
                if F::OFFSET {
                    *sum = lanes.add(*sum, lanes.mul(offset, lanes.splat(row[block].scaled_sum)));
                }
            }
        }
        sums
    }
}

/// The scaled dot products of one block, added to a sum.
#[inline(always)]
fn add_block<F: Format, L: Lanes>(
    lanes: L,
    sum: L::Floats,
    weights: &Unpacked<L>,
    scales: [L::Floats; 2],
    block: &Block,
) -> L::Floats {
    let activation = lanes.splat(block.scale);
    if F::HALVES {
        let (low, high) = weights.split_at(weights.len() / 2);
        let (first, second) = block.bytes.split_at(BLOCK / 2);
        let dot = F::dot(lanes, low, first, block.sums[0]);
        let sum = add_scaled(lanes, sum, dot, lanes.mul(scales[0], activation));
        let dot = F::dot(lanes, high, second, block.sums[1]);
        add_scaled(lanes, sum, dot, lanes.mul(scales[1], activation))
    } else {
        let dot = F::dot(lanes, weights, &block.bytes, block.sums[0] + block.sums[1]);
        add_scaled(lanes, sum, dot, lanes.mul(scales[0], activation))
    }
}

#[inline(always)]
fn add_scaled<L: Lanes>(lanes: L, sum: L::Floats, dot: L::Ints, scale: L::Floats) -> L::Floats {
    lanes.add(sum, lanes.mul(lanes.to_floats(dot), scale))
}

/// Weights that are floats.
struct Plain<const HALF: bool>;

impl<const HALF: bool> Weights for Plain<HALF> {
    #[inline(always)]
    fn products<L: Lanes, const ROWS: usize>(
        lanes: L,
        tile: &[u8],
        input: &Input,
        row: usize,
    ) -> [L::Floats; ROWS] {
        let rows: [&[f32]; ROWS] = from_fn(|at| input.values.row(row + at));
        let mut sums = [lanes.splat(0.0); ROWS];
        for column in 0..rows[0].len() {
            let weights = Self::lanes(lanes, tile, column);
            for (sum, row) in sums.iter_mut().zip(&rows) {
                *sum = lanes.add(*sum, lanes.mul(weights, lanes.splat(row[column])));
            }
        }
        sums
    }
}

impl<const HALF: bool> Plain<HALF> {
    /// One column of sixteen rows.
    #[inline(always)]
    fn lanes<L: Lanes>(lanes: L, tile: &[u8], column: usize) -> L::Floats {
        if HALF {
            lanes.load_half(&tile.as_chunks::<{ 2 * LANES }>().0[column])
        } else {
            let floats = tile[4 * LANES * column..].as_chunks::<4>().0;
            lanes.load(&from_fn(|lane| f32::from_le_bytes(floats[lane])))
        }
    }
}

/// Rows of activations that share one unpacking of weights: as many sums as stay in registers.
const MOST_ROWS: usize = 8;
/// Enough that threads which are slowed down do not hold up the others, few enough to claim.
const TASKS_PER_THREAD: usize = 4;
/// How far ahead of a single row weights are asked for, in bytes.
const AHEAD: usize = 2048;
const CACHE_LINE: usize = 64;

#[cfg(test)]
mod tests;
