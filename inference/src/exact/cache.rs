//! What a sequence has read: keys and values of every layer, in pages.
//!
//! They are half floats, rounded once, when they are written; so they are the same whoever wrote them and in
//! whatever pass. Keys lie in tiles of sixteen positions side by side, so that sixteen scores are computed at once
//! without a sum across lanes. A page holds [`PAGE`] positions of all layers and is shared when a sequence is
//! cloned; whoever writes to a shared page gets a copy of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::float::store_half;
use super::kernel::Routine;
use super::lanes::{LANES, LINE, Lanes};

/// Positions in a page: as many as in a segment of an answer.
pub(super) const PAGE: usize = 32;

/// Bytes of a half float.
pub(super) const HALF: usize = 2;

/// The part of a model's dimensions that a cache depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) layers: usize,
    /// Heads of keys and values.
    pub(super) heads: usize,
    /// Channels of a head.
    pub(super) width: usize,
}

impl Shape {
    /// Bytes of a page.
    pub(super) const fn page_bytes(&self) -> usize {
        self.layers * 2 * self.heads * self.width * PAGE * HALF
    }
}

/// Keys and values of one sequence.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    shape: Shape,
    pages: Vec<Arc<Page>>,
    length: usize,
    held: Arc<Held>,
}

/// How many pages all caches of a model hold, shared ones counted once.
#[derive(Debug, Default)]
pub(super) struct Held(AtomicUsize);

impl Held {
    pub(super) fn pages(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Page {
    bytes: Vec<u8>,
    held: Arc<Held>,
}

impl Page {
    fn new(bytes: Vec<u8>, held: &Arc<Held>) -> Self {
        held.0.fetch_add(1, Ordering::Relaxed);
        Self { bytes, held: Arc::clone(held) }
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Self::new(self.bytes.clone(), &self.held)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.held.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cache {
    pub(super) const fn new(shape: Shape, held: Arc<Held>) -> Self {
        Self { shape, pages: Vec::new(), length: 0, held }
    }

    /// How many positions have been read.
    pub(super) const fn length(&self) -> usize {
        self.length
    }

    /// Makes room for more positions, which are then to be written in every layer.
    pub(super) fn extend(&mut self, positions: usize) {
        self.length += positions;
        let (size, held) = (self.shape.page_bytes(), &self.held);
        self.pages.resize_with(self.length.div_ceil(PAGE), || Arc::new(Page::new(vec![0; size], held)));
    }

    /// Forgets all positions from `length` on.
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
        self.pages.truncate(self.length.div_ceil(PAGE));
    }

    /// Where keys and values of one position and layer are written.
    pub(super) fn write<'a>(
        &'a mut self,
        layer: usize,
        position: usize,
        keys: &'a [f32],
        values: &'a [f32],
    ) -> impl Routine<Output = ()> + 'a {
        let (shape, page) = (self.shape, Arc::make_mut(&mut self.pages[position / PAGE]));
        let size = 2 * shape.heads * shape.width * PAGE * HALF;
        let to = &mut page.bytes[layer * size..][..size];
        Write { shape, position: position % PAGE, keys, values, to }
    }

    /// The pages that hold positions up to `to`, from the one that holds `from` on, as one head of one layer sees them.
    pub(super) fn head(&self, layer: usize, head: usize) -> Head<'_> {
        Head { cache: self, layer, head }
    }
}

/// One head of one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    cache: &'a Cache,
    layer: usize,
    head: usize,
}

impl<'a> Head<'a> {
    /// Channels.
    pub(super) const fn width(&self) -> usize {
        self.cache.shape.width
    }

    /// Keys of a page: two tiles after each other, in each channel by channel sixteen positions.
    #[inline(always)]
    pub(super) fn keys(&self, page: usize) -> [&'a [[u8; HALF * LANES]]; 2] {
        let (first, second) = self.part(page, 0).split_at(self.width() * LANES * HALF);
        [first.as_chunks().0, second.as_chunks().0]
    }

    /// The same keys as lines of memory, one for each channel.
    #[inline(always)]
    pub(super) fn key_lines(&self, page: usize) -> &'a [[u8; LINE]] {
        self.part(page, 0).as_chunks().0
    }

    /// Values of a page: position by position all channels.
    #[inline(always)]
    pub(super) fn values(&self, page: usize) -> &'a [u8] {
        self.part(page, 1)
    }

    #[inline(always)]
    fn part(&self, page: usize, which: usize) -> &'a [u8] {
        let Shape { heads, width, .. } = self.cache.shape;
        let part = (2 * self.layer + which) * heads + self.head;
        &self.cache.pages[page].bytes[part * width * PAGE * HALF..][..width * PAGE * HALF]
    }
}

struct Write<'a> {
    shape: Shape,
    position: usize,
    keys: &'a [f32],
    values: &'a [f32],
    to: &'a mut [u8],
}

impl Routine for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let (keys, values) = self.to.split_at_mut(self.to.len() / 2);
        let (tile, lane) = (self.position / LANES, self.position % LANES);
        let (row, head) = (self.shape.width * HALF, self.shape.width * PAGE * HALF);
        for (head, from) in keys.chunks_exact_mut(head).zip(self.keys.chunks_exact(self.shape.width)) {
            let columns = head[tile * LANES * row..].as_chunks_mut::<{ HALF * LANES }>().0;
            for (channels, columns) in from.as_chunks().0.iter().zip(columns.chunks_exact_mut(LANES)) {
                let mut halves = [0; HALF * LANES];
                store_half(lanes, channels, &mut halves);
                for (half, column) in halves.as_chunks::<HALF>().0.iter().zip(columns) {
                    column.as_chunks_mut::<HALF>().0[lane] = *half;
                }
            }
        }
        for (head, from) in values.chunks_exact_mut(head).zip(self.values.chunks_exact(self.shape.width)) {
            let to = head[self.position * row..].as_chunks_mut().0;
            for (channels, to) in from.as_chunks().0.iter().zip(to) {
                store_half(lanes, channels, to);
            }
        }
    }
}
