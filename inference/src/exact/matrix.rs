//! Rows of numbers, and a way for several threads to write different parts of them.
#![expect(unsafe_code, reason = "disjoint rectangles of one buffer, which slices cannot express")]

use std::marker::PhantomData;
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
        Self { columns, stride, data: vec![0.0; rows * stride] }
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

#[cfg(test)]
mod tests {
    use super::*;

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
