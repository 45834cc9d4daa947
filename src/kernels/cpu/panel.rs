//! Matrices as products read them: views, and weight rows side by side in panels.

use std::ops::Range;

use super::functions::halves;
use super::lanes::{
    Lanes, WIDTH, load_halves, load_unchecked, store_unchecked, to_array, transpose,
};

/// Vectors of a row of a tile.
pub const VECTORS: usize = 6;
/// Columns of a panel, which are rows of the weight.
pub const PANEL: usize = VECTORS * WIDTH;

/// Rows of a matrix within a larger one, of f32 or of what [`Number`] says.
#[derive(Clone, Copy)]
pub struct MatrixView<'a, T = f32> {
    /// From the first number of the first row on.
    pub values: &'a [T],
    /// From a row to the next.
    pub stride: usize,
    pub rows: usize,
    /// Numbers of each row.
    pub length: usize,
}

impl<'a> MatrixView<'a> {
    /// All of a matrix `[rows, length]`.
    pub fn of(values: &'a [f32], length: usize) -> Self {
        Self {
            values,
            stride: length,
            rows: values.len() / length,
            length,
        }
    }
}

impl<'a, T: Copy> MatrixView<'a, T> {
    pub fn row(self, row: usize) -> &'a [T] {
        debug_assert!(row < self.rows);
        &self.values[row * self.stride..][..self.length]
    }

    /// Some of its rows.
    pub fn rows(self, first: usize, rows: usize) -> Self {
        debug_assert!(first + rows <= self.rows);
        let values = &self.values[(first * self.stride).min(self.values.len())..];
        Self {
            values,
            rows,
            ..self
        }
    }

    /// Some of its columns.
    pub fn columns(self, first: usize, length: usize) -> Self {
        debug_assert!(first + length <= self.length);
        let values = &self.values[first.min(self.values.len())..];
        Self {
            values,
            length,
            ..self
        }
    }
}

/// What a matrix holds.
pub trait Number: Copy {
    /// Four of them.
    ///
    /// # Safety
    /// There must be four from `i` on.
    #[allow(unsafe_code)]
    unsafe fn four(numbers: &[Self], i: usize) -> Lanes;
}

impl Number for f32 {
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn four(numbers: &[Self], i: usize) -> Lanes {
        // SAFETY: promised.
        unsafe { load_unchecked(numbers, i) }
    }
}

/// The bits of an f16.
impl Number for u16 {
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn four(numbers: &[Self], i: usize) -> Lanes {
        // SAFETY: promised.
        halves(unsafe { load_halves(numbers, i) })
    }
}

/// Some weight rows as panels, one in each part.
pub fn columns(rows: Range<usize>) -> Vec<Vec<Range<usize>>> {
    panels(rows).map(|panel| vec![panel]).collect()
}

/// A weight's rows as panels: one of each half in a part, then the row that is left over.
pub fn columns_of_halves(rows: usize) -> Vec<Vec<Range<usize>>> {
    let half = rows / 2;
    let both = panels(0..half).zip(panels(half..2 * half));
    both.map(|(left, right)| vec![left, right])
        .chain(columns(2 * half..rows))
        .collect()
}

fn panels(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let firsts = rows.clone().step_by(PANEL);
    firsts.map(move |first| first..rows.end.min(first + PANEL))
}

/// Rows that pass by panels of packed weights, which are packed anew for each of these chunks. (1024 rows of 768 numbers took 1.04 of the time in chunks
/// of 256, and 1024 rows of 3072 numbers 1.13 in chunks of 512.)
pub fn chunks(x: MatrixView) -> impl Iterator<Item = MatrixView> {
    /// Numbers of a chunk, and the fewest and the most rows that these are.
    const NUMBERS: usize = 768 << 10;
    const ROWS: Range<usize> = 256..1024;
    let count = x
        .rows
        .div_ceil((NUMBERS / x.length).clamp(ROWS.start, ROWS.end));
    let rows = x.rows.div_ceil(count.max(1)).next_multiple_of(2).max(2);
    (0..x.rows)
        .step_by(rows)
        .map(move |first| x.rows(first, rows.min(x.rows - first)))
}

/// Rows of a weight, at most as many as some vectors have numbers, as a panel `[length, vectors · WIDTH]`; where rows are missing,
/// the last one is repeated.
#[allow(unsafe_code)]
pub fn pack<const VECTORS: usize, T: Number>(weight: MatrixView<T>, panel: &mut [f32]) {
    let width = VECTORS * WIDTH;
    assert!(panel.len() >= weight.length * width);
    let whole = weight.length / WIDTH * WIDTH;
    for vector in 0..VECTORS {
        let first = vector * WIDTH;
        let rows: [&[T]; WIDTH] =
            std::array::from_fn(|i| weight.row((first + i).min(weight.rows - 1)));
        assert!(rows.iter().all(|row| row.len() == weight.length));
        for k in (0..whole).step_by(WIDTH) {
            // SAFETY: `whole` is a multiple of `WIDTH` within the rows and, times `width`, within the panel.
            unsafe {
                let columns = transpose(rows.map(|row| T::four(row, k)));
                for (i, lanes) in columns.into_iter().enumerate() {
                    store_unchecked(panel, (k + i) * width + first, lanes);
                }
            }
        }
        for k in whole..weight.length {
            for (i, row) in rows.iter().enumerate() {
                // SAFETY: four copies.
                let lanes = unsafe { T::four(&[row[k]; WIDTH], 0) };
                panel[k * width + first + i] = to_array(lanes)[0];
            }
        }
    }
}
