//! `x · weightᵀ` with a packed weight, in products of 16-bit integers, which every browser has an instruction for.
//!
//! Both sides are rounded in segments of 128 numbers along the input ([`rounded`], [`weight`]): `x`, less the mean `m` of its row, to `p · t`, a row of the
//! weight to `q · s`. A segment adds `t · s · Σ p·q` to an output ([`tile`]), whose sum of integers is exact, and `m` times the sum of the weights
//! themselves is added in the end. `t` and `s` are such that no sum overflows 32 bits, whatever the numbers are. That leaves steps some 30 times finer
//! than those of `q8`: what is lost is far below what packing the weight lost.
//!
//! A model's weights in `f16` are laid out once; others, which take less memory as they are, are rounded at each product.
//!
//! Large products with `q8` or `q4` save an eighth of the multiplications with one step of [Strassen's](strassen) algorithm. The weight's quarters have
//! their scales in common, so that sums of them are sums of integers; those of `x` are rounded after adding.

mod rounded;
mod tile;
mod weight;

use std::ops::Range;
use std::sync::Mutex;

use super::epilogue::{LayerOutput, Summing, add_middles};
use super::laid_out::LaidOut;
use super::memory::{LINE_WORDS, room};
use super::packed_rows::{BLOCK, BLOCKS, PackedRows};
use super::panel::{MatrixView, PANEL, chunks, columns, columns_of_halves};
use super::parallel::for_threads;
use super::strassen::{self, Operand, PRODUCTS};
use crate::kernels::packed::Dtype;
use rounded::{Memory, Rounded};
use tile::{Piece, add_product};
use weight::Panels;

/// Numbers that share a scale.
const SEGMENT: usize = 128;
/// Words of a segment, with two numbers each.
const STEPS: usize = SEGMENT / 2;
const _: () = assert!(SEGMENT == BLOCKS * BLOCK);
/// Words of a block.
const BLOCK_STEPS: usize = BLOCK / 2;
/// The largest roots of the sums of a segment's squared integers, for `x` and for a weight. By Cauchy and Schwarz no sum of products is above the
/// product of the two, which with an integer of rounding for each number is still less than 2³¹.
const NORM: f32 = 32_700.0;
const WEIGHT_NORM: f32 = 65_500.0;
/// Scales below this count as zero: inverses and squares must be finite.
const LEAST: f32 = 1e-18;
/// Segments of the longest panel: 48 KiB, which come from the second-level cache as fast as they are used. (With 24, which the first-level cache holds,
/// 64 rows took 1.04 of the time, as sums are written more often.)
const LONGEST: usize = (12 << 10) / (STEPS * PANEL);

/// Memory that one layer after the other uses: of rows, and of what halves leave over.
static ROUNDED: Mutex<[Memory; 2]> = Mutex::new([Memory::new(), Memory::new()]);

/// A linear layer with a weight packed as `f16`, `q8` or `q4`.
pub fn linear(x: MatrixView, weight: &PackedRows, y: &mut LayerOutput) {
    // f16 is so fine that the sums' rounding would show.
    let strassen = weight.dtype != Dtype::F16
        && x.rows >= 96
        && x.length >= 256
        && x.length.is_multiple_of(4)
        && weight.rows() >= 4 * PANEL
        && weight.rows().is_multiple_of(2);
    let [rounded, last] = &mut *ROUNDED.lock().expect("no product panics");
    for x in chunks(x) {
        if strassen {
            by_strassen(x, weight, y, rounded, last);
            continue;
        }
        let blocks = x.length.div_ceil(BLOCK);
        plainly(
            x,
            weight.rows(),
            y,
            rounded,
            Panels::<1>::new,
            |panels, i, sum| {
                panels.totals = [[0.0; PANEL]];
                for segments in pieces(blocks.div_ceil(BLOCKS)) {
                    let ([numbers], scales) =
                        panels.pack(weight, [[i * PANEL, 0]], blocks, segments.clone());
                    sum.add(&Piece::new(numbers, scales, &segments));
                }
                panels.totals[0]
            },
        );
    }
}

/// A linear layer with a weight as [`lay_out`] has it.
pub fn linear_laid_out(x: MatrixView, weight: &LaidOut, y: &mut LayerOutput) {
    let segments = x.length.div_ceil(SEGMENT);
    let [rounded, _] = &mut *ROUNDED.lock().expect("no product panics");
    for x in chunks(x) {
        plainly(
            x,
            weight.rows,
            y,
            rounded,
            || (),
            |(), i, sum| {
                let mut left = weight.panel(i);
                for segments in pieces(segments) {
                    let [numbers, scales] = piece_parts(segments.len())
                        .map(|words| left.split_off(..words).expect("all pieces are there"));
                    sum.add(&Piece::new(
                        numbers,
                        bytemuck::cast_slice(scales),
                        &segments,
                    ));
                }
                std::array::from_fn(|column| f32::from_bits(left[column]))
            },
        );
    }
}

/// Words of a piece's numbers and scales in [`lay_out`], which begin with a line of the cache.
fn piece_parts(segments: usize) -> [usize; 2] {
    [
        segments * STEPS * PANEL,
        (segments * PANEL).next_multiple_of(LINE_WORDS),
    ]
}

/// The panels of a weight packed as `f16`: its pieces, then the sums of the numbers themselves.
pub fn lay_out(weight: &PackedRows) -> LaidOut {
    let blocks = weight.input.div_ceil(BLOCK);
    let segments = blocks.div_ceil(BLOCKS);
    let words = pieces(segments).map(|piece| piece_parts(piece.len()).iter().sum::<usize>());
    let size = words.sum::<usize>() + PANEL;
    let panels = weight.rows().div_ceil(PANEL);
    LaidOut::new(
        weight.rows(),
        panels,
        size,
        Panels::<1>::new,
        |panels, i, mut left| {
            panels.totals = [[0.0; PANEL]];
            for segments in pieces(segments) {
                let ([numbers], scales) =
                    panels.pack(weight, [[i * PANEL, 0]], blocks, segments.clone());
                let parts = [numbers, bytemuck::cast_slice(scales)];
                for (part, words) in parts.into_iter().zip(piece_parts(segments.len())) {
                    let place = left
                        .split_off_mut(..words)
                        .expect("all pieces have a place");
                    place[..part.len()].copy_from_slice(part);
                }
            }
            left.copy_from_slice(bytemuck::cast_slice(&panels.totals[0]));
        },
    )
}

/// What a panel's pieces are added to.
struct Sum<'a, 'x> {
    x: &'a Rounded<'x>,
    sums: &'a mut [f32],
}

impl Sum<'_, '_> {
    fn add(&mut self, piece: &Piece) {
        add_product(self.x, piece, &mut [&mut *self.sums], &[(0, 1.0)]);
    }
}

/// The product with so many rows of a weight, whose panels `add` adds, each with a thread's memory. → the sums of a panel's numbers.
fn plainly<S: Send>(
    x: MatrixView,
    outputs: usize,
    y: &mut LayerOutput,
    rounded: &mut Memory,
    mut memory: impl FnMut() -> S,
    add: impl Fn(&mut S, usize, &mut Sum) -> [f32; PANEL] + Sync,
) {
    let blocks = x.length.div_ceil(BLOCK);
    let ([x], middles) = Rounded::all(x, x.rows, blocks, [Operand::Quarter(0)], rounded);
    let mut threads = for_threads(|| Summing::new(memory()));
    y.write(
        x.rows(),
        &columns(0..outputs),
        &mut threads,
        |memory, i, sums| {
            sums.fill(0.0);
            let totals = add(memory, i, &mut Sum { x: &x, sums });
            add_middles(middles.iter().map(|[middle, _]| middle), &totals, sums);
        },
    );
}

fn by_strassen(
    x: MatrixView,
    weight: &PackedRows,
    y: &mut LayerOutput,
    memory: &mut Memory,
    last_memory: &mut Memory,
) {
    let (rows, outputs) = (x.rows / 2, weight.rows() / 2);
    let blocks = x.length.div_ceil(BLOCK).div_ceil(2);
    let lefts = PRODUCTS.each_ref().map(|product| product.left);
    let (lefts, middles) = Rounded::all(x.rows(0, 2 * rows), rows, blocks, lefts, memory);
    // What halves leave over.
    let last = x.rows(2 * rows, x.rows - 2 * rows);
    let halves = [Operand::Quarter(0), Operand::Quarter(1)];
    let (last, last_middles) = Rounded::all(last, last.rows, blocks, halves, last_memory);
    let segments = blocks.div_ceil(BLOCKS);
    let mut threads = for_threads(|| Summing::new((Panels::<4>::new(), Vec::new())));
    y.write(
        x.rows,
        &columns_of_halves(weight.rows()),
        &mut threads,
        |(panels, sum), i, sums| {
            panels.totals = [[0.0; PANEL]; 4];
            sums.fill(0.0);
            let (mut sums, mut last_sums) = strassen::quarters(sums, rows);
            for segments in pieces(segments) {
                let (left, right) = (i * PANEL, outputs + i * PANEL);
                let quarters = [[left, 0], [right, 0], [left, blocks], [right, blocks]];
                let (quarters, scales) = panels.pack(weight, quarters, blocks, segments.clone());
                let sum = room(sum, quarters[0].len());
                for (product, x) in PRODUCTS.iter().zip(&lefts) {
                    let numbers = match product.right {
                        Operand::Quarter(quarter) => quarters[quarter],
                        // One after the other in the same memory, which the cache then holds for the product.
                        Operand::Sum(a, sign, b) => {
                            weight::add_halves(quarters[a], sign, quarters[b], sum);
                            &*sum
                        }
                    };
                    let piece = Piece::new(numbers, scales, &segments);
                    add_product(x, &piece, &mut sums, product.outputs);
                }
                for (x, quarters) in last.iter().zip(quarters.chunks_exact(2)) {
                    for (column, numbers) in quarters.iter().enumerate() {
                        let piece = Piece::new(numbers, scales, &segments);
                        add_product(x, &piece, &mut last_sums, &[(column, 1.0)]);
                    }
                }
            }
            let [left, right, lower_left, lower_right] = panels.totals;
            let totals = [[left, lower_left], [right, lower_right]]
                .map(|[a, b]| std::array::from_fn(|column| a[column] + b[column]));
            for (q, sums) in sums.into_iter().enumerate() {
                add_middles(middles.iter().map(|row| &row[q / 2]), &totals[q % 2], sums);
            }
            for (sums, totals) in last_sums.into_iter().zip(&totals) {
                add_middles(last_middles.iter().map(|[middle, _]| middle), totals, sums);
            }
        },
    );
}

/// Segments whose panel fits the cache.
fn pieces(segments: usize) -> impl Iterator<Item = Range<usize>> {
    let piece = segments.div_ceil(segments.div_ceil(LONGEST));
    (0..segments)
        .step_by(piece)
        .map(move |start| start..segments.min(start + piece))
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;
    use crate::kernels::cpu::definition;
    use crate::kernels::{Numbers, PackedMatrix};

    const PACKED: [Dtype; 3] = [Dtype::F16, Dtype::Q8, Dtype::Q4];

    fn by_rows(x: MatrixView, words: &[u32], dtype: Dtype, y: &mut LayerOutput) {
        linear(x, &PackedRows::new(words, dtype, x.length), y);
    }

    fn laid_out(x: MatrixView, words: &[u32], dtype: Dtype, y: &mut LayerOutput) {
        let rows = PackedRows::new(words, dtype, x.length);
        linear_laid_out(x, &lay_out(&rows), y);
    }

    fn error(x: &[f32], weight: &PackedMatrix) -> f64 {
        let y = definition::outputs(by_rows, x, weight);
        if weight.dtype() == Dtype::F16 {
            assert_eq!(definition::outputs(laid_out, x, weight), y);
        }
        definition::error(x, weight, y.into_iter().map(f64::from))
    }

    #[test]
    fn equals_the_definition_as_far_as_rounding_allows() {
        for dtype in PACKED {
            for (rows, input, outputs) in definition::SHAPES {
                let [x, weight] = definition::operands(rows, input, outputs);
                let worst = error(&x, &PackedMatrix::pack(dtype, input, &weight));
                assert!(
                    worst < 4e-4,
                    "{dtype:?} {rows}×{input}→{outputs}: {worst:e}"
                );
            }
        }
    }

    #[test]
    fn large_products_equal_the_definition_where_halves_leave_something_over() {
        let mut numbers = Numbers(47);
        // An odd row, a block that one half lacks, a block of 4 numbers, more than a chunk, and segments in more than one piece.
        for (rows, input, outputs) in [
            (96, 256, 96),
            (97, 288, 100),
            (99, 292, 190),
            (1027, 320, 98),
            (98, 2180, 96),
        ] {
            for dtype in [Dtype::Q8, Dtype::Q4] {
                let x: Vec<f32> = (numbers.values(rows * input).iter())
                    .map(|v| v * 3.0 + 2.0)
                    .collect();
                let weight = PackedMatrix::pack(dtype, input, &numbers.values(outputs * input));
                let worst = error(&x, &weight);
                assert!(
                    worst < 1.5e-3,
                    "{dtype:?} {rows}×{input}→{outputs}: {worst:e}"
                );
            }
        }
    }

    #[test]
    fn products_of_random_shapes_and_sizes_of_numbers() {
        let inputs = [1, 63, 64, 1100];
        for (x, packed, size) in definition::random_products(31, 80, &PACKED, &inputs, 0.0) {
            let worst = error(&x, &packed) / f64::from(size);
            let (dtype, input, outputs) = (packed.dtype(), packed.input(), packed.rows());
            let rows = x.len() / input;
            assert!(
                worst < 1.5e-3,
                "{dtype:?} {rows}×{input}→{outputs}, {size}: {worst:e}"
            );
        }
    }

    #[test]
    fn the_largest_integers_of_all_numbers_overflow_nothing() {
        for input in [1, 7, 64, 640] {
            for sign in [1.0, -1.0] {
                // Half of a row on each side of its mean.
                let x: Vec<f32> = (0..2 * input)
                    .map(|i| if i % 2 == 0 { 1e10 } else { -1e10 })
                    .collect();
                let weight: Vec<f32> = (0..5 * input)
                    .map(|i| if i % 2 == 0 { sign } else { -sign })
                    .collect();
                for dtype in PACKED {
                    let packed = PackedMatrix::pack(dtype, input, &weight);
                    let worst = error(&x[..input], &packed) / (1e10 * (input as f64).sqrt());
                    assert!(worst < 1e-2, "{dtype:?} {input}: {worst:e}");
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_not_finite_show_in_their_rows_and_nowhere_else() {
        definition::check_not_finite(by_rows, 1e-3);
    }

    #[test]
    fn damaged_weights_show_in_their_columns_and_nowhere_else() {
        definition::check_damage(
            by_rows,
            &[
                (Dtype::F16, 17, 0x7c00_0000),
                (Dtype::F16, 63, 0x0000_fe00),
                (Dtype::F16, 5, 0x7fff_7fff),
                (Dtype::Q8, 33, 0x3f80_7f80),
                (Dtype::Q8, 34, 0xff80_3f80),
                (Dtype::Q4, 18, 0x7fc0_3f80),
                (Dtype::Q4, 19, 0x3f80_7fff),
            ],
        );
    }
}
