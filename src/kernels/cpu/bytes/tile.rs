//! The sums of a few rows of `x` with a panel of a weight.

use super::rounded::Rounded;
use super::weight::Panel;
use super::{SIDES, STEPS, dot, side_words};
use crate::kernels::cpu::lanes::*;
use crate::kernels::cpu::packed_rows::BLOCKS;
use crate::kernels::cpu::panel::{PANEL, VECTORS};

/// Rows of a tile: its sums and operands fill the fifteen vector registers that browsers have for them on x86.
const ROWS: usize = 2;
/// Rows and vectors of a tile of sides, as in [`halves`](crate::kernels::cpu::halves).
const SIDE_ROWS: usize = 3;
const SIDE_VECTORS: usize = 3;

/// Adds the products of bytes to `sums [rows, PANEL]`.
pub fn add_product<const SIGNED: bool>(x: &Rounded, panel: &Panel, sums: &mut [f32]) {
    let mut row = 0;
    while row + ROWS <= x.rows {
        add_rows::<SIGNED, ROWS>(x, row, panel, sums);
        row += ROWS;
    }
    for row in row..x.rows {
        add_rows::<SIGNED, 1>(x, row, panel, sums);
    }
}

/// Adds the products of sides to `sums [rows, PANEL]`.
pub fn add_sides(x: &Rounded, panel: &Panel, sums: &mut [f32]) {
    let mut row = 0;
    while row + SIDE_ROWS <= x.rows {
        add_sides_of::<SIDE_ROWS>(x, row, panel, sums);
        row += SIDE_ROWS;
    }
    for row in row..x.rows {
        add_sides_of::<1>(x, row, panel, sums);
    }
}

/// By itself: within a larger function its loops would have to share the registers.
#[inline(never)]
#[allow(unsafe_code)]
fn add_sides_of<const R: usize>(x: &Rounded, first: usize, panel: &Panel, sums: &mut [f32]) {
    let steps = side_words(panel.segments.len());
    // A whole word, see `pieces`.
    let start = panel.segments.start * SIDES / 2;
    let words: [&[u32]; R] =
        std::array::from_fn(|r| &x.sides[(first + r) * x.side_stride + start..][..steps]);
    let sums = &mut sums[first * PANEL..][..R * PANEL];
    assert!(panel.sides.len() >= steps * PANEL);
    for column in (0..PANEL).step_by(SIDE_VECTORS * WIDTH) {
        let mut integers = [[splat_word(0); SIDE_VECTORS]; R];
        for step in 0..steps {
            // SAFETY: `step` is below `steps`, for which all slices were checked above.
            let weights: [Words; SIDE_VECTORS] = std::array::from_fn(|v| unsafe {
                load_words(panel.sides, step * PANEL + column + v * WIDTH)
            });
            for (words, integers) in words.iter().zip(&mut integers) {
                // SAFETY: the same.
                let word = splat_word(unsafe { *words.get_unchecked(step) });
                for (sum, weight) in integers.iter_mut().zip(weights) {
                    *sum = dot_halves(word, weight, *sum);
                }
            }
        }
        for (r, integers) in integers.into_iter().enumerate() {
            let scale = splat(x.side_scales[first + r]);
            for (v, integers) in integers.into_iter().enumerate() {
                let at = column + v * WIDTH;
                let part = multiply(to_f32(integers), load(panel.side_scales, at));
                let sum = multiply_add(part, scale, load(sums, r * PANEL + at));
                store(sums, r * PANEL + at, sum);
            }
        }
    }
}

/// By itself, too.
#[inline(never)]
#[allow(unsafe_code)]
fn add_rows<const SIGNED: bool, const R: usize>(
    x: &Rounded,
    first: usize,
    panel: &Panel,
    sums: &mut [f32],
) {
    let count = panel.segments.len();
    let of_row = |r: usize| (first + r) * x.segments + panel.segments.start;
    let tile = Tile::<SIGNED, R> {
        words: std::array::from_fn(|r| {
            &x.words[of_row(r) * BLOCKS * STEPS..][..count * BLOCKS * STEPS]
        }),
        starts: std::array::from_fn(|r| &x.starts[of_row(r) * BLOCKS..][..count * BLOCKS]),
        numbers: &panel.numbers[..count * BLOCKS * STEPS * PANEL],
    };
    let scales: [&[f32]; R] =
        std::array::from_fn(|r| &x.scales[of_row(r) * BLOCKS..][..count * BLOCKS]);
    let uneven: [&[bool]; R] = std::array::from_fn(|r| &x.uneven[of_row(r)..][..count]);
    let sums = &mut sums[first * PANEL..][..R * PANEL];
    assert!(panel.scales.len() >= count * BLOCKS * PANEL);
    // Of a segment. In memory, as registers hold integers.
    let mut parts = [[0.0; PANEL]; R];
    for segment in 0..count {
        // SAFETY, here and below: `segment` is below `count` and `block` below `count · BLOCKS`, for which all slices were checked, and there are `R · PANEL`
        // sums and parts.
        let is_uneven = uneven
            .iter()
            .any(|row| unsafe { *row.get_unchecked(segment) });
        let blocks = segment * BLOCKS..(segment + 1) * BLOCKS;
        if is_uneven {
            for block in blocks {
                let integers = tile.block(block);
                each_vector(|v| {
                    let weight = unsafe { load_unchecked(panel.scales, block * PANEL + v * WIDTH) };
                    for (r, integers) in integers.iter().enumerate() {
                        let scale = splat(unsafe { *scales[r].get_unchecked(block) });
                        let part = multiply(to_f32(integers[v]), scale);
                        let at = r * PANEL + v * WIDTH;
                        unsafe {
                            let sum = load_anew(sums, at);
                            store_unchecked(sums, at, multiply_add(part, weight, sum));
                        }
                    }
                });
            }
            continue;
        }
        for block in blocks {
            let integers = tile.block(block);
            each_vector(|v| {
                let weight = unsafe { load_unchecked(panel.scales, block * PANEL + v * WIDTH) };
                for (integers, parts) in integers.iter().zip(&mut parts) {
                    let part = to_f32(integers[v]);
                    unsafe {
                        let sum = load_anew(parts, v * WIDTH);
                        store_unchecked(parts, v * WIDTH, multiply_add(part, weight, sum));
                    }
                }
            });
        }
        for (r, parts) in parts.iter_mut().enumerate() {
            let scale = splat(unsafe { *scales[r].get_unchecked(segment * BLOCKS) });
            for v in (0..PANEL).step_by(WIDTH) {
                unsafe {
                    let (part, sum) = (load_anew(parts, v), load_anew(sums, r * PANEL + v));
                    store_unchecked(sums, r * PANEL + v, multiply_add(part, scale, sum));
                    store_unchecked(parts, v, splat(0.0));
                }
            }
        }
    }
}

/// Some rows of `x` and a panel's numbers.
struct Tile<'a, const SIGNED: bool, const R: usize> {
    words: [&'a [u32]; R],
    starts: [&'a [u32]; R],
    numbers: &'a [u32],
}

impl<const SIGNED: bool, const R: usize> Tile<'_, SIGNED, R> {
    /// The sums of a block's products, in the order of [`product`](crate::kernels::cpu::product)'s tile.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn block(&self, block: usize) -> [[Words; VECTORS]; R] {
        // SAFETY: whoever made the tile has checked all blocks.
        let start = |r: usize| splat_word(unsafe { *self.starts[r].get_unchecked(block) });
        let mut integers: [[Words; VECTORS]; R] = std::array::from_fn(|r| [start(r); VECTORS]);
        for step in block * STEPS..(block + 1) * STEPS {
            // SAFETY: the same.
            let a: [Words; R] =
                std::array::from_fn(|r| splat_word(unsafe { *self.words[r].get_unchecked(step) }));
            for v in 0..VECTORS {
                // SAFETY: the same.
                let w = unsafe { load_words(self.numbers, step * PANEL + v * WIDTH) };
                for (integers, a) in integers.iter_mut().zip(a) {
                    integers[v] = dot::<SIGNED>(a, w, integers[v]);
                }
            }
        }
        integers
    }
}

/// Not a loop, which the compiler might leave one, with the integers in memory.
#[inline(always)]
fn each_vector(mut each: impl FnMut(usize)) {
    const { assert!(VECTORS == 6) };
    each(0);
    each(1);
    each(2);
    each(3);
    each(4);
    each(5);
}
