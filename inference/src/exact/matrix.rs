//! Rows of numbers, and a way for several threads to write different parts of them.
//!
//! Every pass needs the same matrices again, and the system takes large ones back and gives them out again page by
//! page, each a fault: with sixteen answers in a pass a tenth of its time. So a thread keeps what its last matrices were
//! made of.
#![expect(unsafe_code, reason = "disjoint rectangles of one buffer, which slices cannot express")]

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::take;
use std::ops::Range;

use super::lanes::LANES;

/// A matrix in row order. Rows are padded to a whole number of lanes.
#[derive(Clone, Debug, Default)]
pub(super) struct Matrix {
    columns: usize,
    stride: usize,
    data: Vec<f32>,
}

impl Matrix {
    /// Zeros.
    pub(super) fn new(rows: usize, columns: usize) -> Self {
        let stride = columns.next_multiple_of(LANES);
        Self { columns, stride, data: zeros(rows * stride) }
    }

    pub(super) fn rows(&self) -> usize {
        self.data.len() / self.stride.max(1)
    }

    pub(super) const fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.stride..][..self.columns]
    }

    /// The rows, one after the other.
    pub(super) fn each_row_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.data.chunks_exact_mut(self.stride.max(1)).map(|row| &mut row[..self.columns])
    }

    /// Cuts rows into windows of all columns, `tiles` lanes-wide tiles each, the last of a row maybe shorter. The
    /// ranges of rows must follow each other.
    pub(super) fn windows(
        &mut self,
        rows: impl IntoIterator<Item = Range<usize>>,
        tiles: usize,
    ) -> Vec<Window<'_>> {
        let (all, whole, stride) = (self.stride / LANES, self.rows(), self.stride);
        let data = self.data.as_mut_ptr();
        let mut windows = Vec::new();
        let mut free = 0;
        for rows in rows {
            let follow = free <= rows.start && rows.start <= rows.end && rows.end <= whole;
            assert!(follow, "rows that overlap or are not there");
            free = rows.end;
            windows.extend((0..all).step_by(tiles.max(1)).map(|first| Window {
                data,
                stride,
                rows: rows.clone(),
                tiles: first..(first + tiles).min(all),
                whole: PhantomData,
            }));
        }
        windows
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        let data = take(&mut self.data);
        if data.capacity() < SMALLEST_KEPT {
            return;
        }
        // A thread that ends has nothing to keep it in.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            let kept: usize = spare.iter().map(Vec::capacity).sum();
            if kept + data.capacity() <= MOST_KEPT {
                spare.push(data);
            }
        });
    }
}

/// Zeros, in memory that another matrix of this thread had, if there is enough of it in one piece.
fn zeros(count: usize) -> Vec<f32> {
    let kept = if count < SMALLEST_KEPT {
        None
    } else {
        SPARE.with(|spare| fitting(&mut spare.borrow_mut(), count))
    };
    let Some(mut data) = kept else { return vec![0.0; count] };
    data.clear();
    data.resize(count, 0.0);
    data
}

/// Takes out the smallest that is large enough.
fn fitting(spare: &mut Vec<Vec<f32>>, count: usize) -> Option<Vec<f32>> {
    let large = spare.iter().enumerate().filter(|(_, data)| data.capacity() >= count);
    let (at, _) = large.min_by_key(|(_, data)| data.capacity())?;
    Some(spare.swap_remove(at))
}

thread_local! {
    /// What matrices of this thread were made of.
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Some rows and columns of a matrix, to be written by one thread.
#[derive(Debug)]
pub(super) struct Window<'a> {
    data: *mut f32,
    stride: usize,
    rows: Range<usize>,
    tiles: Range<usize>,
    whole: PhantomData<&'a mut Matrix>,
}

// SAFETY: a `Window` is an exclusive reference to its own cells; no two share one (see `Matrix::windows`).
unsafe impl Send for Window<'_> {}

impl Window<'_> {
    /// Which rows of the matrix these are.
    pub(super) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Which tiles of the matrix these are.
    pub(super) fn tiles(&self) -> Range<usize> {
        self.tiles.clone()
    }

    /// Where the lanes of one row and tile are written.
    #[inline(always)]
    pub(super) fn lanes(&mut self, row: usize, tile: usize) -> &mut [f32; LANES] {
        assert!(self.rows.contains(&row) && self.tiles.contains(&tile), "outside of this window");
        // SAFETY: within the matrix (just asserted, and a stride is a whole number of tiles), borrowed exclusively
        // through `self`, and initialised.
        unsafe { &mut *self.data.add(row * self.stride + tile * LANES).cast::<[f32; LANES]>() }
    }
}

/// Numbers in a matrix that is worth keeping, 64 KiB: smaller ones stay with the allocator.
const SMALLEST_KEPT: usize = 1 << 14;
/// Numbers that a thread keeps, 8 MiB: all matrices of a pass of 128 rows, or the logits of forty answers.
const MOST_KEPT: usize = 1 << 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_made_of_another_is_zeros() {
        let mut first = Matrix::new(40, 1_000);
        first.each_row_mut().flatten().for_each(|x| *x = 1.0);
        let place = first.data.as_ptr();
        drop(first);
        let second = Matrix::new(30, 1_000);
        assert_eq!(second.data.as_ptr(), place, "the memory is kept");
        assert!(second.rows() == 30 && (0..30).all(|row| second.row(row).iter().all(|&x| x == 0.0)));
        let third = Matrix::new(30, 1_000);
        assert_ne!(third.data.as_ptr(), place, "and given out once");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: Vec<_> = (0..9).map(|_| Matrix::new(256, 1 << 10)).collect();
        drop(many);
        let kept: usize = SPARE.with(|spare| spare.borrow().iter().map(Vec::capacity).sum());
        assert!(kept > MOST_KEPT / 2 && kept <= MOST_KEPT, "{kept}");
    }

    #[test]
    fn windows_cover_the_matrix_once() {
        let mut matrix = Matrix::new(3, 5 * LANES - 3);
        for mut window in matrix.windows([0..1, 1..3], 2) {
            for tile in window.tiles() {
                for row in window.rows() {
                    for cell in window.lanes(row, tile) {
                        *cell += (100 * row + tile) as f32 + 1.0;
                    }
                }
            }
        }
        for row in 0..3 {
            for (column, &cell) in matrix.row(row).iter().enumerate() {
                assert_eq!(cell, (100 * row + column / LANES) as f32 + 1.0);
            }
        }
    }

    #[test]
    #[should_panic(expected = "outside of this window")]
    fn other_cells_are_out_of_reach() {
        let mut matrix = Matrix::new(1, 4 * LANES);
        matrix.windows(std::iter::once(0..1), 2)[0].lanes(0, 2);
    }
}
