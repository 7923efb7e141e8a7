//! Attention: what each row takes from what its sequence has read.
//!
//! A row's result depends on its own query and on the positions that it may see, in their order, and on nothing else:
//! a score is a sum over channels in order, the weights are a softmax over exactly the visible positions, and the
//! result is a sum over positions in order. Some rows and heads are computed together because they share the
//! keys, never because they share a sum; positions that one of them may not see weigh exactly zero for it.

use std::array::from_fn;
use std::ops::Range;

use super::cache::{HALF, Head, PAGE};
use super::float::softmax;
use super::kernel::Routine;
use super::lanes::{LANES, LINE, Lanes, for_each_row};
use super::matrix::{Matrix, Window};

/// Heads of queries that share a head of keys, for neighbouring rows of one sequence.
pub(super) struct Attend<'a> {
    /// Rows of queries, head after head.
    pub(super) queries: &'a Matrix,
    /// The keys and values.
    pub(super) head: Head<'a>,
    /// The position of row zero of `queries`, were it a row of this sequence.
    pub(super) origin: isize,
    /// How many positions back a row sees, itself included.
    pub(super) reach: usize,
    /// What scores are multiplied with.
    pub(super) scale: f32,
    /// Rows and columns to compute.
    pub(super) to: Window<'a>,
}

/// A query: its row, its first column, and the positions that it sees.
#[derive(Clone, Copy)]
struct Query<'a> {
    row: usize,
    tile: usize,
    channels: &'a [f32],
    from: usize,
    to: usize,
}

impl Routine for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        let queries = self.to.rows().len() * self.heads();
        let mut scores = Vec::new();
        let mut first = 0;
        while first < queries {
            first += match queries - first {
                8.. if L::MANY => self.some_queries::<L, 8>(lanes, first, &mut scores),
                4.. if L::MANY => self.some_queries::<L, 4>(lanes, first, &mut scores),
                3.. => self.some_queries::<L, 3>(lanes, first, &mut scores),
                2.. => self.some_queries::<L, 2>(lanes, first, &mut scores),
                _ => self.some_queries::<L, 1>(lanes, first, &mut scores),
            };
        }
    }
}

impl<'a> Attend<'a> {
    #[inline(always)]
    fn some_queries<L: Lanes, const ROWS: usize>(
        &mut self,
        lanes: L,
        first: usize,
        scores: &mut Vec<f32>,
    ) -> usize {
        let queries: [Query<'a>; ROWS] = from_fn(|at| self.query(first + at));
        let pages = seen(&queries);
        let length = pages.len() * PAGE;
        scores.clear();
        scores.resize(length * ROWS, 0.0);
        self.score(lanes, &queries, scores);
        let mut factors = [0.0; ROWS];
        for ((query, scores), factor) in queries.iter().zip(scores.chunks_exact_mut(length)).zip(&mut factors)
        {
            let first = pages.start * PAGE;
            *factor = softmax(lanes, scores, query.from - first, query.to - first);
        }
        for quarter in (0..self.head.width()).step_by(WIDTH * LANES) {
            self.mix(lanes, &queries, (scores, &factors), quarter);
        }
        ROWS
    }

    /// How many heads of queries there are.
    fn heads(&self) -> usize {
        self.to.tiles().len() * LANES / self.head.width()
    }

    /// Queries row by row, so that each sees at least as far as the one before it.
    fn query(&self, number: usize) -> Query<'a> {
        let (row, head) = (number / self.heads(), number % self.heads());
        let (row, tile) =
            (self.to.rows().start + row, self.to.tiles().start + head * self.head.width() / LANES);
        let to = (row as isize + self.origin) as usize + 1;
        let channels = &self.queries.row(row)[tile * LANES..][..self.head.width()];
        Query { row, tile, channels, from: to.saturating_sub(self.reach), to }
    }

    /// `scores[row][position] = scale · Σ query[channel] · key[position][channel]`, channels in order.
    #[inline(always)]
    fn score<L: Lanes, const ROWS: usize>(&self, lanes: L, queries: &[Query<'a>; ROWS], scores: &mut [f32]) {
        let pages = seen(queries);
        let (length, scale, width) = (pages.len() * PAGE, lanes.splat(self.scale), self.head.width());
        let channels: [&[f32]; ROWS] = from_fn(|row| &queries[row].channels[..width]);
        for (at, page) in pages.clone().enumerate() {
            let [first, second] = self.head.keys(page);
            // A page's keys and values are as many lines as there are channels, and pages lie apart.
            let values = self.head.values(page).as_chunks::<LINE>().0;
            let next = self.head.key_lines((page + 1).min(pages.end - 1));
            let mut sums = [[lanes.splat(0.0); 2]; ROWS];
            for (channel, (first, second)) in first.iter().zip(second).take(width).enumerate() {
                let keys = [lanes.load_half(first), lanes.load_half(second)];
                lanes.prefetch(&values[channel]);
                lanes.prefetch(&next[channel]);
                for_each_row!(ROW < ROWS => {
                    let query = lanes.splat(channels[ROW][channel]);
                    sums[ROW][0] = lanes.add(sums[ROW][0], lanes.mul(keys[0], query));
                    sums[ROW][1] = lanes.add(sums[ROW][1], lanes.mul(keys[1], query));
                });
            }
            for_each_row!(ROW < ROWS => {
                let to = scores[ROW * length + at * PAGE..].as_chunks_mut::<LANES>().0;
                lanes.store(lanes.mul(sums[ROW][0], scale), &mut to[0]);
                lanes.store(lanes.mul(sums[ROW][1], scale), &mut to[1]);
            });
        }
    }

    /// `result[channel] = factor · Σ weight[position] · value[position][channel]` for some channels, positions in order.
    #[inline(always)]
    fn mix<L: Lanes, const ROWS: usize>(
        &mut self,
        lanes: L,
        queries: &[Query<'a>; ROWS],
        (weights, factors): (&[f32], &[f32; ROWS]),
        from: usize,
    ) {
        let pages = seen(queries);
        let (length, width) = (pages.len() * PAGE, self.head.width());
        let weights: [&[f32]; ROWS] = from_fn(|row| &weights[row * length..][..length]);
        let (first, last) = (pages.start * PAGE, queries[ROWS - 1].to);
        let mut sums = [[lanes.splat(0.0); WIDTH]; ROWS];
        for page in pages {
            let values = self.head.values(page);
            for position in 0..PAGE.min(last - page * PAGE) {
                let values = values[(position * width + from) * HALF..].as_chunks::<{ HALF * LANES }>().0;
                let values = [lanes.load_half(&values[0]), lanes.load_half(&values[1])];
                let at = page * PAGE - first + position;
                for_each_row!(ROW < ROWS => {
                    let weight = lanes.splat(weights[ROW][at]);
                    sums[ROW][0] = lanes.add(sums[ROW][0], lanes.mul(values[0], weight));
                    sums[ROW][1] = lanes.add(sums[ROW][1], lanes.mul(values[1], weight));
                });
            }
        }
        for_each_row!(ROW < ROWS => {
            let (query, factor) = (queries[ROW], lanes.splat(factors[ROW]));
            for (part, sum) in sums[ROW].into_iter().enumerate() {
                let to = self.to.lanes(query.row, query.tile + from / LANES + part);
                lanes.store(lanes.mul(sum, factor), to);
            }
        });
    }
}

/// From the page of the first position that the first query sees to that of the last that the last sees.
fn seen<const ROWS: usize>(queries: &[Query<'_>; ROWS]) -> Range<usize> {
    queries[0].from / PAGE..queries[ROWS - 1].to.div_ceil(PAGE)
}

/// Vectors of channels that are mixed at once; heads are a multiple of 32 channels wide.
const WIDTH: usize = 2;
