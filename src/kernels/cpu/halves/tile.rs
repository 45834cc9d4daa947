//! The sums of a few rows of `x` with a few rows of a weight.

use std::ops::Range;

use super::STEPS;
use super::rounded::{ROWS, Rounded};
use super::weight::{COLUMNS, PARTS, VECTORS};
use crate::kernels::cpu::lanes::*;
use crate::kernels::cpu::panel::PANEL;

/// [`PANEL`] rows of a weight for some segments.
pub struct Piece<'a> {
    /// `[PARTS, segments, STEPS, COLUMNS]`
    numbers: &'a [u32],
    /// `[PARTS, segments, COLUMNS]`
    scales: &'a [f32],
    segments: Range<usize>,
}

impl<'a> Piece<'a> {
    pub fn new(numbers: &'a [u32], scales: &'a [f32], segments: &Range<usize>) -> Self {
        Self {
            numbers,
            scales,
            segments: segments.clone(),
        }
    }
}

/// Adds a product to some of `blocks`, `[rows, PANEL]` each, times 1 or −1.
///
/// By itself: within a larger function its loops would have to share the registers.
#[inline(never)]
pub fn add_product(
    x: &Rounded,
    piece: &Piece,
    blocks: &mut [&mut [f32]],
    outputs: &[(usize, f32)],
) {
    let count = piece.segments.len();
    let steps = x.steps(piece.segments.end - 1);
    for group in 0..x.rows().div_ceil(ROWS) {
        let (words, scales, rows) = x.group(group, piece.segments.start);
        for part in 0..PARTS {
            let tile = Tile {
                words,
                scales,
                numbers: &piece.numbers[part * count * STEPS * COLUMNS..],
                number_scales: &piece.scales[part * count * COLUMNS..],
                segments: count,
                steps,
            };
            let at = group * ROWS * PANEL + part * COLUMNS;
            const { assert!(ROWS == 3) };
            match rows {
                1 => tile.add::<1>(blocks, outputs, at),
                2 => tile.add::<2>(blocks, outputs, at),
                _ => tile.add::<ROWS>(blocks, outputs, at),
            }
        }
    }
}

/// Some rows of `x`, from their first segment on, and some columns of a panel.
struct Tile<'a> {
    words: &'a [u32],
    scales: &'a [f32],
    numbers: &'a [u32],
    number_scales: &'a [f32],
    segments: usize,
    /// Words of the last segment that may be other than zero.
    steps: usize,
}

impl Tile<'_> {
    /// Adds the product of `R` rows to `R` rows of blocks, from a number on.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn add<const R: usize>(&self, blocks: &mut [&mut [f32]], outputs: &[(usize, f32)], at: usize) {
        let count = self.segments;
        let (words, scales) = (&self.words[..count * STEPS * R], &self.scales[..count * R]);
        assert!(self.numbers.len() >= count * STEPS * COLUMNS);
        assert!(self.number_scales.len() >= count * COLUMNS && self.steps <= STEPS);
        let mut sums = [[0.0; COLUMNS]; R];
        for s in 0..count {
            let words = &words[s * STEPS * R..][..STEPS * R];
            let numbers = &self.numbers[s * STEPS * COLUMNS..][..STEPS * COLUMNS];
            let steps = if s + 1 < count { STEPS } else { self.steps };
            let mut integers = [[splat_word(0); VECTORS]; R];
            for step in 0..steps {
                // SAFETY: there are `STEPS` times `VECTORS` vectors.
                let weights: [Words; VECTORS] = std::array::from_fn(|v| unsafe {
                    load_words(numbers, step * COLUMNS + v * WIDTH)
                });
                for (r, integers) in integers.iter_mut().enumerate() {
                    // SAFETY: there are `STEPS` words of each row.
                    let word = splat_word(unsafe { *words.get_unchecked(r * STEPS + step) });
                    for (sum, weight) in integers.iter_mut().zip(weights) {
                        *sum = dot_halves(word, weight, *sum);
                    }
                }
            }
            for (r, (integers, sums)) in integers.into_iter().zip(&mut sums).enumerate() {
                for (v, integers) in integers.into_iter().enumerate() {
                    let part = multiply(to_f32(integers), splat(scales[s * R + r]));
                    // SAFETY: `s` is below `count`, as was checked, and a row has `VECTORS` vectors.
                    unsafe {
                        let scale = load_unchecked(self.number_scales, s * COLUMNS + v * WIDTH);
                        let sum = multiply_add(part, scale, load_anew(sums, v * WIDTH));
                        store_unchecked(sums, v * WIDTH, sum);
                    }
                }
            }
        }
        for (output, sign) in outputs {
            let block = &mut blocks[*output][at..][..(R - 1) * PANEL + COLUMNS];
            for (r, sums) in sums.iter().enumerate() {
                for v in (0..COLUMNS).step_by(WIDTH) {
                    let at = r * PANEL + v;
                    store(
                        block,
                        at,
                        multiply_add(splat(*sign), load(sums, v), load(block, at)),
                    );
                }
            }
        }
    }
}
