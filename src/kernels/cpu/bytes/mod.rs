//! `x · weightᵀ` with a weight of 8 or 4 bits, in products of bytes: relaxed SIMD's instruction.
//!
//! A weight is `n · s + o` for a block of 32 along the input ([`packed`](crate::kernels::packed)). `x` is rounded to `q · t + m` with an
//! integer `q` of 8 bits; each row has a factor `t` and a middle `m` for each segment of four blocks ([`rounded`]). With `c` the middle of what `n` can be,
//! a segment adds
//!
//! `t · Σ s · Σ (n − c)·q + Σ (o + c·s) · Σ x + m · Σ s · Σ (n − c)`
//!
//! to an output, where the outer sums are those of its blocks. The sums of bytes are exact, `Σ x` is that of the numbers themselves, and the smaller
//! `n − c` and `q`, the less the rounding of `x` matters. What is no sum of bytes is a product of five numbers for each segment, its *sides*, which are
//! rounded to 16-bit integers after the mean of `x` was taken out of them.
//!
//! A model's weights in `q8` are laid out once; others are packed at each product.
//!
//! Only for machines that add four products of bytes exactly: see [`signed`]. Elsewhere [`halves`](super::halves) is faster, and finer.

mod rounded;
mod tile;
mod weight;

use std::ops::Range;
use std::sync::Mutex;

use super::epilogue::{LayerOutput, Summing, add_middles};
use super::functions::MIDDLE;
use super::laid_out::LaidOut;
use super::lanes::*;
use super::memory::room;
use super::packed_rows::{BLOCK, BLOCKS, PackedRows};
use super::panel::{MatrixView, PANEL, chunks, columns};
use super::parallel::for_threads;
use crate::kernels::packed::Dtype;
use rounded::{Memory, Rounded};
use weight::{Panel, panel_words, piece_words};

/// Words of a block.
const STEPS: usize = BLOCK / 4;
/// Numbers of `x` that share a middle, and mostly a scale.
const SEGMENT: usize = BLOCKS * BLOCK;
/// Sides of a segment: of `x` the sum of each block and the middle times `BLOCK`, of a weight's row each block's `o + c·s` and `Σ s · Σ (n − c)` divided
/// by `BLOCK`, so that they are of about the same size.
const SIDES: usize = BLOCKS + 1;
/// The largest integers of sides: no sum of a piece's products overflows.
const LARGEST_SIDE: f32 = 32_767.0;
const LARGEST_WEIGHT_SIDE: f32 = 2_047.0;
const _: () = assert!(
    side_words(LONGEST) as f32 * 2.0 * LARGEST_SIDE * LARGEST_WEIGHT_SIDE < 2_147_483_648.0
);
/// Segments of the longest panel: 24 KiB with all that belongs to it, which leaves the first-level cache room for the rows of `x`.
const LONGEST: usize = 6;
const _: () = assert!(LONGEST * (BLOCKS * (STEPS + 1) + SIDES) * PANEL <= 6 << 10);
/// A word of ones.
const ONES: u32 = 0x0101_0101;

/// Words of the sides of so many segments, with two of them each.
const fn side_words(segments: usize) -> usize {
    (segments * SIDES).div_ceil(2)
}

/// How many numbers a segment's block has where so many are left from the segment on.
fn present(left: usize, block: usize) -> f32 {
    left.saturating_sub(block * BLOCK).min(BLOCK) as f32
}

/// Adds the products of the bytes of `x` and `weight`, of which those of the latter count as −128…127 where `SIGNED`, as 0…255 elsewhere.
#[inline(always)]
fn dot<const SIGNED: bool>(x: Words, weight: Words, c: Words) -> Words {
    #[cfg(target_feature = "relaxed-simd")]
    return dot_bytes(x, weight, c);
    #[cfg(not(target_feature = "relaxed-simd"))]
    return tests::dot_bytes(x, weight, c, SIGNED);
}

/// Whether this machine's bytes of a weight count as −128…127 or as 0…255; none where sums are cut to 16 bits on the way.
#[cfg(target_feature = "relaxed-simd")]
pub fn signed() -> Option<bool> {
    // Hidden from compilers, which may have a view of their own.
    let (x, weight) = std::hint::black_box((0x7f7f_7f7f, 0xc8c8_c8c8));
    let sum = dot_bytes(splat_word(x), splat_word(weight), splat_word(0));
    match std::arch::wasm32::i32x4_extract_lane::<0>(sum) {
        sum if sum == 4 * 127 * 200 => Some(false),
        sum if sum == 4 * 127 * -56 => Some(true),
        _ => None,
    }
}

/// Memory that one layer after the other uses.
static ROUNDED: Mutex<Memory> = Mutex::new(Memory::new());

/// The weight of a linear layer.
pub enum Weight<'a> {
    /// Packed as `q8` or `q4`.
    Rows(PackedRows<'a>),
    /// As [`lay_out`] has it, packed as such.
    LaidOut(&'a LaidOut, Dtype),
}

impl Weight<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Rows(rows) => rows.dtype,
            Self::LaidOut(_, dtype) => *dtype,
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.rows(),
            Self::LaidOut(weight, _) => weight.rows,
        }
    }
}

/// The panels of a weight packed as `q8`; as `q4` it would take twice the memory.
pub fn lay_out<const SIGNED: bool>(weight: &PackedRows) -> LaidOut {
    let (panels, segments) = (
        weight.rows().div_ceil(PANEL),
        weight.input.div_ceil(SEGMENT),
    );
    LaidOut::new(
        weight.rows(),
        panels,
        panel_words(segments),
        || (),
        |(), i, mut panel| {
            for segments in pieces(segments) {
                let (piece, rest) = panel.split_at_mut(piece_words(segments.len()));
                weight::pack::<SIGNED>(weight, i * PANEL, segments, piece);
                panel = rest;
            }
        },
    )
}

/// A linear layer.
pub fn linear<const SIGNED: bool>(x: MatrixView, weight: &Weight, y: &mut LayerOutput) {
    let mut rounded = ROUNDED.lock().expect("no product panics");
    let mut threads = for_threads(|| Summing::new(Vec::new()));
    let parts = columns(0..weight.rows());
    let start_factor = weight::start_factor::<SIGNED>(weight.dtype());
    for x in chunks(x) {
        let x = Rounded::new::<SIGNED>(x, start_factor, &mut rounded);
        y.write(x.rows, &parts, &mut threads, |memory, i, sums| {
            let mut left: &[u32] = match weight {
                Weight::Rows(_) => &[],
                Weight::LaidOut(weight, _) => weight.panel(i),
            };
            let mut totals = [0.0; PANEL];
            sums.fill(0.0);
            for segments in pieces(x.segments) {
                let words = piece_words(segments.len());
                let piece = match weight {
                    Weight::Rows(rows) => {
                        let piece = room(memory, words);
                        weight::pack::<SIGNED>(rows, i * PANEL, segments.clone(), piece);
                        piece
                    }
                    Weight::LaidOut(..) => left.split_off(..words).expect("all pieces are there"),
                };
                let panel = Panel::of(piece, segments);
                tile::add_sides(&x, &panel, sums);
                tile::add_product::<SIGNED>(&x, &panel, sums);
                for (total, piece) in totals.iter_mut().zip(panel.totals) {
                    *total += piece;
                }
            }
            add_middles(x.middles.iter(), &totals, sums);
        });
    }
}

/// Segments whose panel fits the cache. Each piece's sides begin with a whole word.
fn pieces(segments: usize) -> impl Iterator<Item = Range<usize>> {
    let piece = match segments {
        ..=LONGEST => segments,
        _ => segments
            .div_ceil(segments.div_ceil(LONGEST))
            .next_multiple_of(2),
    };
    const { assert!(LONGEST.is_multiple_of(2)) };
    (0..segments)
        .step_by(piece)
        .map(move |start| start..segments.min(start + piece))
}

/// The nearest integers of numbers below 2²².
#[inline(always)]
fn integers(v: Lanes, factor: Lanes) -> Words {
    // The lowest bits are the integer.
    let bits = to_bits(multiply_add(v, factor, constant(&[MIDDLE; WIDTH])));
    sum_words(
        bits,
        constant_word(const { &[MIDDLE.to_bits().wrapping_neg(); WIDTH] }),
    )
}

// Each instruction of the browsers is stood in for: native.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;
    use crate::kernels::cpu::definition;
    use crate::kernels::{Numbers, PackedMatrix};

    /// Adds the products of bytes, as machines do it in one instruction.
    pub fn dot_bytes(x: Words, weight: Words, c: Words, signed: bool) -> Words {
        let value = |byte: u8| match signed {
            true => i32::from(byte as i8),
            false => i32::from(byte),
        };
        std::array::from_fn(|lane| {
            let (x, weight) = (x[lane].to_le_bytes(), weight[lane].to_le_bytes());
            let products = x.iter().zip(weight);
            let sum: i32 = products.map(|(x, w)| i32::from(*x as i8) * value(w)).sum();
            c[lane].wrapping_add(sum as u32)
        })
    }

    fn by_rows<const SIGNED: bool>(
        x: MatrixView,
        words: &[u32],
        dtype: Dtype,
        y: &mut LayerOutput,
    ) {
        let rows = PackedRows::new(words, dtype, x.length);
        linear::<SIGNED>(x, &Weight::Rows(rows), y);
    }

    fn laid_out<const SIGNED: bool>(
        x: MatrixView,
        words: &[u32],
        dtype: Dtype,
        y: &mut LayerOutput,
    ) {
        let rows = PackedRows::new(words, dtype, x.length);
        let panels = lay_out::<SIGNED>(&rows);
        linear::<SIGNED>(x, &Weight::LaidOut(&panels, dtype), y);
    }

    /// The outputs of both forms of a weight, which are the same.
    fn outputs_of<const SIGNED: bool>(x: &[f32], weight: &PackedMatrix) -> Vec<f32> {
        let y = definition::outputs(by_rows::<SIGNED>, x, weight);
        assert_eq!(definition::outputs(laid_out::<SIGNED>, x, weight), y);
        y
    }

    fn error<const SIGNED: bool>(dtype: Dtype, rows: usize, input: usize, outputs: usize) -> f64 {
        let [x, weight] = definition::operands(rows, input, outputs);
        let packed = PackedMatrix::pack(dtype, input, &weight);
        let y = outputs_of::<SIGNED>(&x, &packed);
        definition::error(&x, &packed, y.into_iter().map(f64::from))
    }

    #[test]
    fn equals_the_definition_as_far_as_the_rounding_of_x_allows() {
        for dtype in [Dtype::Q8, Dtype::Q4] {
            for (rows, input, outputs) in definition::SHAPES {
                let unsigned = error::<false>(dtype, rows, input, outputs);
                assert!(
                    unsigned < 4e-2,
                    "{dtype:?} {rows}×{input}→{outputs}: {unsigned:e}"
                );
                // The same sums.
                let signed = error::<true>(dtype, rows, input, outputs);
                assert!((signed - unsigned).abs() < 1e-6, "{signed:e}, {unsigned:e}");
            }
        }
    }

    #[test]
    fn products_of_random_shapes_and_sizes_of_numbers() {
        let dtypes = [Dtype::Q8, Dtype::Q4];
        // One piece, and several: segments that are whole, and with a block or a number over.
        let inputs = [1, 127, 129, 768, 900, 2561];
        for (x, packed, size) in definition::random_products(53, 60, &dtypes, &inputs, 0.5) {
            for y in [
                outputs_of::<false>(&x, &packed),
                outputs_of::<true>(&x, &packed),
            ] {
                let worst = definition::error(&x, &packed, y.into_iter().map(f64::from));
                let worst = worst / f64::from(size);
                let (dtype, input, outputs) = (packed.dtype(), packed.input(), packed.rows());
                let rows = x.len() / input;
                assert!(
                    worst < 4e-2,
                    "{dtype:?} {rows}×{input}→{outputs}, {size}: {worst:e}"
                );
            }
        }
    }

    #[test]
    fn what_all_numbers_of_a_row_have_in_common_costs_nothing() {
        let mut numbers = Numbers(61);
        // So many segments that sides are filled up with none, and with more than a segment's.
        for input in [200, 588, 900] {
            let x = numbers.values(64 * input);
            let packed = PackedMatrix::pack(Dtype::Q8, input, &numbers.values(30 * input));
            let error = |offset: f32| {
                let x: Vec<f32> = x.iter().map(|v| v + offset).collect();
                let y = outputs_of::<false>(&x, &packed);
                definition::error(&x, &packed, y.into_iter().map(f64::from))
            };
            let (without, with) = (error(0.0), error(100.0));
            assert!(with < 1.2 * without, "{input}: {with:e}, {without:e}");
        }
    }

    #[test]
    fn a_row_of_large_numbers_costs_other_rows_nothing() {
        let input = 2 * SEGMENT;
        let signs: Vec<f32> = (0..input)
            .map(|i| if i < SEGMENT { 1.0 } else { -1.0 })
            .collect();
        let packed = PackedMatrix::pack(Dtype::Q8, input, &signs);
        let x = [vec![1e6; input], signs].concat();
        let y = outputs_of::<false>(&x, &packed);
        assert!((y[1] - input as f32).abs() < 0.01, "{y:?}");
    }

    #[test]
    fn numbers_that_are_far_larger_than_others_cost_their_block_alone() {
        let (mut numbers, input) = (Numbers(67), 768);
        let packed = PackedMatrix::pack(Dtype::Q8, input, &numbers.values(30 * input));
        let mut x = numbers.values(input);
        (x[290], x[300]) = (100.0, -100.0);
        let y = outputs_of::<false>(&x, &packed);
        let worst = definition::error(&x, &packed, y.into_iter().map(f64::from));
        // Twice as much if its step were that of four blocks.
        assert!(worst < 8e-2, "{worst:e}");
    }

    #[test]
    fn the_largest_sides_overflow_nothing() {
        // Numbers and offsets as large as any, with the same signs, in a mean of zero.
        let input = LONGEST * SEGMENT;
        for sign in [1.0, -1.0] {
            let half = |i: usize| if i % input < input / 2 { 1.0 } else { -1.0 };
            let x: Vec<f32> = (0..2 * input).map(|i| 1e6 * half(i)).collect();
            let weight: Vec<f32> = (0..3 * input)
                .map(|i| sign * half(i) * if i % 2 == 0 { 1.0 } else { 1.001 })
                .collect();
            let packed = PackedMatrix::pack(Dtype::Q8, input, &weight);
            let y = outputs_of::<false>(&x, &packed);
            let worst = definition::error(&x, &packed, y.into_iter().map(f64::from));
            assert!(worst < 1e6 * 4e-2, "{worst:e}");
        }
    }

    #[test]
    fn damaged_weights_show_in_their_columns_and_nowhere_else() {
        definition::check_damage(
            by_rows::<false>,
            &[
                (Dtype::Q8, 33, 0x3f80_7f80),
                (Dtype::Q8, 34, 0xff80_3f80),
                (Dtype::Q4, 18, 0x7fc0_3f80),
                (Dtype::Q4, 19, 0x3f80_7fff),
            ],
        );
    }

    #[test]
    fn a_number_that_is_not_finite_shows_in_its_row_and_nowhere_else() {
        definition::check_not_finite(by_rows::<false>, 1e-2);
    }
}
