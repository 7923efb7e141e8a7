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
use super::lanes::{BLOCK, GROUPS, LANES, LINE, Lanes, MOST_ROWS, Scalar, for_each_row};
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
    for (group, to) in to.chunks_exact_mut(F::HEAD + F::GROUP * F::BODY).enumerate() {
        let rows = rows.map(|row| &row[group * F::FILE..][..F::FILE]);
        let (head, bodies) = to.split_at_mut(F::HEAD);
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
    for (block, to) in to.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let group = F::HEAD + F::GROUP * F::BODY;
        let (head, bodies) = tile[block / F::GROUP * group..][..group].split_at(F::HEAD);
        let at = block % F::GROUP;
        let bytes = F::unpack(Scalar, &bodies[at * F::BODY..][..F::BODY]);
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
    /// Block by block all rows: a kernel reads one block of some rows at a time.
    blocks: Vec<Block>,
}

impl Input {
    /// Room for rows of so many activations, a whole number of blocks.
    pub(super) fn new(rows: usize, columns: usize) -> Self {
        Self { values: Matrix::new(rows, columns), blocks: vec![Block::default(); rows * columns / BLOCK] }
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.values.rows()
    }

    /// The rows, to be filled before [`quantise`](Self::quantise).
    pub(super) fn each_row_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.each_row_mut()
    }

    /// Windows of the rows; see [`Matrix::windows`].
    pub(super) fn windows(
        &mut self,
        rows: impl IntoIterator<Item = Range<usize>>,
        tiles: usize,
    ) -> Vec<Window<'_>> {
        self.values.windows(rows, tiles)
    }

    /// Makes blocks of all rows.
    pub(super) fn quantise(&mut self, kernel: Kernel, pool: &mut Pool) {
        let (values, rows) = (&self.values, self.values.rows().max(1));
        let least = LEAST_BLOCKS.div_ceil(rows);
        let share = (self.blocks.len() / rows).div_ceil(pool.threads() * TASKS_PER_THREAD).max(least);
        let tasks = self.blocks.chunks_mut(share * rows).enumerate().collect();
        pool.each(tasks, |(task, blocks)| {
            for (at, to) in blocks.chunks_exact_mut(rows).enumerate() {
                kernel.run(Quantise { values, column: (task * share + at) * BLOCK, to });
            }
        });
    }

    /// Some of the rows.
    pub(super) fn select(&self, rows: &[usize]) -> Self {
        let mut selected = Self::new(rows.len(), self.values.columns());
        for (&row, to) in rows.iter().zip(selected.values.each_row_mut()) {
            to.copy_from_slice(self.values.row(row));
        }
        selected
    }

    /// The rows as they are.
    pub(super) fn into_values(self) -> Matrix {
        self.values
    }

    /// One block of some rows.
    #[inline(always)]
    fn block<const ROWS: usize>(&self, block: usize, row: usize) -> &[Block; ROWS] {
        let rows = self.blocks[block * self.values.rows() + row..].first_chunk();
        rows.expect("rows that a caller has counted")
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
        let windows = output.windows(std::iter::once(0..input.rows()), share).into_iter();
        tasks.extend(windows.map(|to| Product { layer, input, to }));
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

impl<'a> Product<'a> {
    #[inline(always)]
    fn compute<L: Lanes, W: Weights>(&mut self, lanes: L) {
        for tile in self.to.tiles() {
            let mut row = 0;
            while row < self.input.rows() {
                let ahead = if row == 0 { self.ahead(tile) } else { &[] };
                row += match self.input.rows() - row {
                    MOST_ROWS.. => self.some_rows::<L, W, MOST_ROWS>(lanes, tile, row, ahead),
                    8.. => self.some_rows::<L, W, 8>(lanes, tile, row, ahead),
                    4.. => self.some_rows::<L, W, 4>(lanes, tile, row, ahead),
                    2.. => self.some_rows::<L, W, 2>(lanes, tile, row, ahead),
                    _ => self.some_rows::<L, W, 1>(lanes, tile, row, ahead),
                };
            }
        }
    }

    /// The next tile, to be fetched meanwhile; nothing where so few rows use it that the processor is ahead by itself.
    fn ahead(&self, tile: usize) -> &'a [u8] {
        let next = (tile + 1..self.to.tiles().end).next().filter(|_| self.input.rows() >= LEAST_FETCHED);
        next.map_or(&[], |tile| self.layer.tile(tile))
    }

    #[inline(always)]
    fn some_rows<L: Lanes, W: Weights, const ROWS: usize>(
        &mut self,
        lanes: L,
        tile: usize,
        row: usize,
        ahead: &[u8],
    ) -> usize {
        let sums = W::products::<L, ROWS>(lanes, (self.layer.tile(tile), ahead), self.input, row);
        for_each_row!(ROW < ROWS => {
            lanes.store(sums[ROW], self.to.lanes(row + ROW, tile));
        });
        ROWS
    }
}

/// How a tile of weights is multiplied with rows of an input, from `row` on, while others (or none) are fetched.
trait Weights {
    fn products<L: Lanes, const ROWS: usize>(
        lanes: L,
        tile: (&[u8], &[u8]),
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
        (tile, ahead): (&[u8], &[u8]),
        input: &Input,
        row: usize,
    ) -> [L::Floats; ROWS] {
        let mut sums = [lanes.splat(0.0); ROWS];
        for (group, bytes) in tile.chunks_exact(F::HEAD + F::GROUP * F::BODY).enumerate() {
            let (head, bodies) = bytes.split_at(F::HEAD);
            if let Some(ahead) = ahead.get(group * bytes.len()..(group + 1) * bytes.len()) {
                ahead.chunks(LINE).for_each(|line| lanes.prefetch(line));
            }
            for (at, body) in bodies.chunks_exact(F::BODY).enumerate() {
                let activations = input.block::<ROWS>(group * F::GROUP + at, row);
                let weights = F::unpack(lanes, body);
                let scales = [F::scale(lanes, head, at, 0), F::scale(lanes, head, at, 1)];
                let offset = F::offset(lanes, head, at);
                let weights = (&weights, scales, offset);
                for_each_row!(QUAD < ROWS.div_ceil(QUAD_ROWS) => {
                    let from = QUAD * QUAD_ROWS;
                    if ROWS.is_multiple_of(QUAD_ROWS) {
                        add_blocks::<F, L, QUAD_ROWS>(lanes, &mut sums[from..], weights, &activations[from..]);
                    } else if ROWS == 2 {
                        add_blocks::<F, L, 2>(lanes, &mut sums, weights, activations);
                    } else {
                        add_blocks::<F, L, 1>(lanes, &mut sums, weights, activations);
                    }
                });
            }
        }
        sums
    }
}

/// The scaled dot products of one block with some rows, added to their sums.
#[inline(always)]
fn add_blocks<F: Format, L: Lanes, const ROWS: usize>(
    lanes: L,
    sums: &mut [L::Floats],
    (weights, scales, offset): (&Unpacked<L>, [L::Floats; 2], L::Floats),
    blocks: &[Block],
) {
    let blocks: [&Block; ROWS] = from_fn(|row| &blocks[row]);
    if F::HALVES {
        let (low, high) = weights.split_at(GROUPS / 2);
        let first = blocks.map(|block| (&block.bytes[..BLOCK / 2], block.sums[0]));
        add_products::<F, L, ROWS>(lanes, sums, (low, scales[0]), &blocks, first);
        let second = blocks.map(|block| (&block.bytes[BLOCK / 2..], block.sums[1]));
        add_products::<F, L, ROWS>(lanes, sums, (high, scales[1]), &blocks, second);
    } else {
        let whole = blocks.map(|block| (&block.bytes[..], block.sums[0] + block.sums[1]));
        add_products::<F, L, ROWS>(lanes, sums, (weights, scales[0]), &blocks, whole);
    }
    if F::OFFSET {
        for_each_row!(ROW < ROWS => {
            sums[ROW] = lanes.add(sums[ROW], lanes.mul(offset, lanes.splat(blocks[ROW].scaled_sum)));
        });
    }
}

/// Dot products of some vectors of weights, scaled and added. `bytes` has what they are multiplied with, and its sum.
#[inline(always)]
fn add_products<F: Format, L: Lanes, const ROWS: usize>(
    lanes: L,
    sums: &mut [L::Floats],
    (weights, scale): (&[L::Bytes], L::Floats),
    blocks: &[&Block; ROWS],
    bytes: [(&[i8], i32); ROWS],
) {
    let dots = F::dots(lanes, weights, bytes.map(|(bytes, _)| bytes), bytes.map(|(_, sum)| sum));
    for_each_row!(ROW < ROWS => {
        let scale = lanes.mul(scale, lanes.splat(blocks[ROW].scale));
        sums[ROW] = lanes.add(sums[ROW], lanes.mul(lanes.to_floats(dots[ROW]), scale));
    });
}

/// Weights that are floats.
struct Plain<const HALF: bool>;

impl<const HALF: bool> Weights for Plain<HALF> {
    #[inline(always)]
    fn products<L: Lanes, const ROWS: usize>(
        lanes: L,
        (tile, ahead): (&[u8], &[u8]),
        input: &Input,
        row: usize,
    ) -> [L::Floats; ROWS] {
        let rows: [&[f32]; ROWS] = from_fn(|at| input.values.row(row + at));
        ahead.chunks(LINE).for_each(|line| lanes.prefetch(line));
        let mut sums = [lanes.splat(0.0); ROWS];
        for (column, weights) in tile.chunks_exact(if HALF { 2 * LANES } else { 4 * LANES }).enumerate() {
            let weights = Self::lanes(lanes, weights, 0);
            for_each_row!(ROW < ROWS => {
                sums[ROW] = lanes.add(sums[ROW], lanes.mul(weights, lanes.splat(rows[ROW][column])));
            });
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

/// Blocks that are quantised in a task: fewer take less time than another thread needs to begin.
const LEAST_BLOCKS: usize = 64;
/// Rows from which on weights are fetched ahead.
const LEAST_FETCHED: usize = 4;
/// Rows whose dot products are computed side by side: as many as AVX2's registers hold.
const QUAD_ROWS: usize = 4;
/// Enough that threads which are slowed down do not hold up the others, few enough to claim.
const TASKS_PER_THREAD: usize = 4;
#[cfg(test)]
mod tests;
