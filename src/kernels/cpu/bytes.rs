//! `x · weightᵀ` with a weight of 8 or 4 bits, in products of bytes: relaxed SIMD's instruction.
//!
//! A weight is `n · s + o` for a block of 32 along the input ([`packed`](crate::kernels::packed)). `x` is rounded to `q · t + m` with an
//! integer `q` of 8 bits, a factor `t` for each row and block, and the row's middle `m`, which makes use of the whole range where numbers lie on one side of
//! zero, as they do behind a GELU. With `c` the middle of what `n` can be, a block adds
//! `s · t · Σ (n − c)·q + m · s · Σ (n − c) + (o + c·s) · Σ x` to an output: the sums of integers are exact, `Σ x` is that of the numbers themselves, and
//! the smaller `n − c` and `q`, the less the rounding of `x` matters.
//! Panels and tiles are those of [`product`](super::product).
//!
//! Only for machines that add four products of bytes exactly: see [`signed`]. Elsewhere [`halves`](super::halves) is faster, and finer.

use std::sync::Mutex;

use super::epilogue::{LayerOutput, Sums};
use super::functions::MIDDLE;
use super::lanes::*;
use super::panel::{MatrixView, PANEL, VECTORS, columns};
use super::parallel::{for_chunks, for_parts, for_threads};
use super::product::ROWS;
use crate::kernels::packed::Dtype;

/// Numbers that share a scale.
const BLOCK: usize = Dtype::Q8.block();
/// Words of the longest panel: 24 KiB, which leaves the first-level cache room for the rows of `x`.
const PANEL_WORDS: usize = 6 << 10;
/// Rows of `x` that pass by a panel.
const CHUNK: usize = 256;

/// Rows of `x` that a thread rounds at a time.
const SHARE: usize = 16;

/// The largest integer that stands for a number of `x`.
const LARGEST: f32 = 127.0;
/// Words of a block, with four numbers each.
const STEPS: usize = BLOCK / 4;
/// Where a block's sum of products starts: it is at most 32 · 127 · 255, less than 2²⁰, and the middle takes at most as much.
const START: u32 = MIDDLE.to_bits();
/// A word of ones.
const ONES: u32 = 0x0101_0101;

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
static SUMS: Mutex<Vec<f32>> = Mutex::new(Vec::new());

/// A linear layer with a weight packed as `q8` or `q4`.
pub fn linear<const SIGNED: bool>(x: MatrixView, words: &[u32], dtype: Dtype, y: &mut LayerOutput) {
    let input = x.length;
    let weight = Packed {
        words,
        dtype,
        input,
        row_words: dtype.row_words(input),
        number_words: dtype.number_words(input),
    };
    let output = words.len() / weight.row_words;
    let centre = match dtype {
        Dtype::Q4 => 8,
        _ => 128,
    };
    let blocks = input.div_ceil(BLOCK);
    let longest = PANEL_WORDS / ((STEPS + 2) * PANEL);
    let piece = blocks.div_ceil(blocks.div_ceil(longest));
    let mut panels = for_threads(|| Panel {
        numbers: vec![0; piece * STEPS * PANEL],
        scales: vec![0.0; piece * 2 * PANEL],
        totals: [0.0; PANEL],
    });
    let mut sums = SUMS.lock().expect("no product panics");
    for first in (0..x.rows).step_by(CHUNK) {
        let x = x.rows(first, CHUNK.min(x.rows - first));
        let x = Quantized::new::<SIGNED>(
            x,
            if weight.is_shifted::<SIGNED>() {
                0
            } else {
                centre
            },
        );
        let sums = Sums::new(&mut sums, x.rows, columns(0..output).collect());
        for_parts(
            sums.values,
            x.rows * PANEL,
            &mut panels,
            |panel, i, sums| {
                sums.fill(0.0);
                panel.totals.fill(0.0);
                for start in (0..blocks).step_by(piece) {
                    let piece = start..blocks.min(start + piece);
                    panel.pack::<SIGNED>(&weight, centre, i * PANEL, piece.clone());
                    let mut row = 0;
                    while row + ROWS <= x.rows {
                        tile::<SIGNED, ROWS>(&x, row, panel, piece.clone(), sums);
                        row += ROWS;
                    }
                    for row in row..x.rows {
                        tile::<SIGNED, 1>(&x, row, panel, piece.clone(), sums);
                    }
                }
                for (sums, middle) in sums.chunks_exact_mut(PANEL).zip(&x.middles) {
                    for (sum, total) in sums.iter_mut().zip(panel.totals) {
                        *sum += middle * total;
                    }
                }
            },
        );
        y.write(first, &sums);
    }
}

/// Rows of numbers, rounded to integers.
struct Quantized {
    rows: usize,
    blocks: usize,
    /// `[rows, blocks, STEPS]`
    words: Vec<u32>,
    /// `[rows, blocks]`
    notes: Vec<BlockInfo>,
    /// What the integer 0 stands for, `[rows]`.
    middles: Vec<f32>,
}

/// What is known of a block.
#[derive(Clone, Copy, Default)]
struct BlockInfo {
    /// [`START`], less what is taken from the sum of products because the weight's numbers are not about zero.
    start: u32,
    /// What an integer stands for.
    scale: f32,
    /// What its start stands for, negated.
    shift: f32,
    /// Sum of the numbers themselves.
    sum: f32,
}

/// One of [`Quantized`]'s rows.
struct Row<'a> {
    words: &'a mut [u32],
    notes: &'a mut [BlockInfo],
    middle: &'a mut f32,
}

impl Quantized {
    fn new<const SIGNED: bool>(x: MatrixView, centre: i32) -> Self {
        let blocks = x.length.div_ceil(BLOCK);
        let mut rounded = Self {
            rows: x.rows,
            blocks,
            words: vec![0; x.rows * blocks * STEPS],
            notes: vec![BlockInfo::default(); x.rows * blocks],
            middles: vec![0.0; x.rows],
        };
        let parts = (rounded.words.chunks_exact_mut(blocks * STEPS))
            .zip(rounded.notes.chunks_exact_mut(blocks))
            .zip(&mut rounded.middles);
        let mut rows: Vec<Row> = parts
            .map(|((words, notes), middle)| Row {
                words,
                notes,
                middle,
            })
            .collect();
        for_chunks(&mut rows, SHARE, |i, rows| {
            for (j, row) in rows.iter_mut().enumerate() {
                row.round::<SIGNED>(x.row(i * SHARE + j), centre);
            }
        });
        rounded
    }
}

impl Row<'_> {
    #[allow(unsafe_code)]
    fn round<const SIGNED: bool>(&mut self, x: &[f32], centre: i32) {
        // Each block's lowest and highest number wait in the places of its scale and its sum.
        let mut middle = 0.0;
        for (b, numbers) in x.chunks(BLOCK).enumerate() {
            let (low, high) = range(block(numbers, numbers[0]));
            middle += (low + high) / 2.0;
            (self.notes[b].scale, self.notes[b].sum) = (low, high);
        }
        let middle = middle / self.notes.len() as f32;
        // Whatever is not finite shows in the sums; here it would spoil the row's other blocks in silence.
        let middle = if middle.is_finite() { middle } else { 0.0 };
        *self.middle = middle;
        for (b, numbers) in x.chunks(BLOCK).enumerate() {
            let words = &mut self.words[b * STEPS..][..STEPS];
            let note = &mut self.notes[b];
            let largest = (note.sum - middle).max(middle - note.scale);
            let inverse = match largest > 0.0 {
                true => LARGEST / largest,
                false => 0.0,
            };
            // What fills the last block up is the integer 0.
            let integers = block(numbers, middle)
                .map(|v| to_integers(multiply(subtract(v, splat(middle)), splat(inverse))));
            pack(integers, words);
            let mut integers = splat_word(0);
            for i in (0..STEPS).step_by(WIDTH) {
                // SAFETY: there are `STEPS` words, a multiple of four.
                let four = unsafe { load_words(words, i) };
                integers = dot::<SIGNED>(four, splat_word(ONES), integers);
            }
            note.start = START.wrapping_add((-centre * total(integers)) as u32);
            // Without the last two bits, so that the shift, three times a power of two of it, is exact.
            note.scale = f32::from_bits((largest / LARGEST).to_bits() & !3);
            note.shift = -MIDDLE * note.scale;
            // A number that is not finite is not lost: the sum shows it.
            let sum = block(numbers, 0.0).into_iter().fold(splat(0.0), add);
            note.sum = to_array(sum).iter().sum();
        }
    }
}

/// A block's integers, four in each of `words` → its words.
#[inline(always)]
#[allow(unsafe_code)]
fn pack(words: [Words; BLOCK / WIDTH], steps: &mut [u32]) {
    assert!(steps.len() >= STEPS);
    for (i, four) in words.chunks_exact(4).enumerate() {
        let [low, high] = [narrow(four[0], four[1]), narrow(four[2], four[3])];
        // SAFETY: there are `STEPS` words, four times as many as groups of four.
        unsafe { store_words(steps, i * WIDTH, narrow_halves(low, high)) };
    }
}

/// A block's numbers, filled up with `fill`.
#[inline(always)]
fn block(numbers: &[f32], fill: f32) -> [Lanes; BLOCK / WIDTH] {
    match numbers.first_chunk::<BLOCK>() {
        Some(numbers) => std::array::from_fn(|i| load(numbers, i * WIDTH)),
        None => {
            let mut block = [fill; BLOCK];
            block[..numbers.len()].copy_from_slice(numbers);
            std::array::from_fn(|i| load(&block, i * WIDTH))
        }
    }
}

/// The smallest and the largest number, NaN left out.
#[inline(always)]
fn range(block: [Lanes; BLOCK / WIDTH]) -> (f32, f32) {
    let low = block.into_iter().fold(splat(f32::INFINITY), lesser);
    let high = block.into_iter().fold(splat(f32::NEG_INFINITY), greater);
    // `f32::min` and `max` would be calls.
    let lesser = |a, b| if b < a { b } else { a };
    let greater = |a, b| if b > a { b } else { a };
    (
        to_array(low).into_iter().fold(f32::INFINITY, lesser),
        to_array(high).into_iter().fold(f32::NEG_INFINITY, greater),
    )
}

/// Rows of a packed weight.
struct Packed<'a> {
    words: &'a [u32],
    dtype: Dtype,
    input: usize,
    row_words: usize,
    number_words: usize,
}

impl Packed<'_> {
    /// Whether the middle of its numbers must be taken from them before they fit.
    fn is_shifted<const SIGNED: bool>(&self) -> bool {
        SIGNED && self.dtype == Dtype::Q8
    }
}

/// [`PANEL`] rows of a weight for some blocks.
struct Panel {
    /// `[blocks, STEPS, PANEL]`
    numbers: Vec<u32>,
    /// `[blocks, 2, PANEL]`: scales, then offsets.
    scales: Vec<f32>,
    /// `Σ s · (n − c)` over all blocks so far.
    totals: [f32; PANEL],
}

impl Panel {
    /// Takes rows from `first` on; rows that are missing repeat the last one.
    #[allow(unsafe_code)]
    fn pack<const SIGNED: bool>(
        &mut self,
        weight: &Packed,
        centre: i32,
        first: usize,
        blocks: std::ops::Range<usize>,
    ) {
        // Words of a block: eight of four numbers, or four of eight.
        let block_words = match weight.dtype {
            Dtype::Q4 => 4,
            _ => 8,
        };
        let flipped = splat_word(match weight.is_shifted::<SIGNED>() {
            true => 0x8080_8080,
            false => 0,
        });
        let centre = centre as f32;
        let last = weight.words.len() / weight.row_words - 1;
        let count = blocks.len();
        for vector in 0..VECTORS {
            let rows: [&[u32]; WIDTH] = std::array::from_fn(|i| {
                let row = (first + vector * WIDTH + i).min(last);
                &weight.words[row * weight.row_words..][..weight.row_words]
            });
            let numbers = rows.map(|row| &row[blocks.start * block_words..][..count * block_words]);
            let ones = splat_word(ONES);
            let mut totals = load(&self.totals, vector * WIDTH);
            let mut at = vector * WIDTH;
            for b in 0..count {
                let mut integers = splat_word(0);
                for word in (b * block_words..(b + 1) * block_words).step_by(WIDTH) {
                    // SAFETY: the slices are `count * block_words` long.
                    let columns =
                        transpose_words(numbers.map(|row| unsafe { load_words(row, word) }));
                    for words in columns {
                        let low = splat_word(0x0f0f_0f0f);
                        let (bytes, parts) = match weight.dtype {
                            Dtype::Q4 => ([and(words, low), and(shift_right(words, 4), low)], 2),
                            _ => ([xor(words, flipped); 2], 1),
                        };
                        for bytes in &bytes[..parts] {
                            assert!(at + WIDTH <= self.numbers.len());
                            // SAFETY: just checked.
                            unsafe { store_words(&mut self.numbers, at, *bytes) };
                            integers = dot::<SIGNED>(ones, *bytes, integers);
                            at += PANEL;
                        }
                    }
                }
                let pairs =
                    std::array::from_fn(|i| rows[i][weight.number_words + blocks.start + b]);
                // SAFETY: four words.
                let pairs = unsafe { load_words(&pairs as &[u32; WIDTH], 0) };
                let scale = from_bits(shift_left(pairs, 16));
                let offset = from_bits(and(pairs, splat_word(0xffff_0000)));
                let scales = &mut self.scales[b * 2 * PANEL..][..2 * PANEL];
                store(scales, vector * WIDTH, scale);
                store(
                    scales,
                    PANEL + vector * WIDTH,
                    multiply_add(splat(centre), scale, offset),
                );
                // What fills a block up is 0, or was flipped to −c.
                let present = BLOCK.min(weight.input - (blocks.start + b) * BLOCK);
                let fill = match weight.is_shifted::<SIGNED>() {
                    true => centre * (BLOCK - present) as f32,
                    false => -centre * present as f32,
                };
                totals = multiply_add(scale, add(to_f32(integers), splat(fill)), totals);
            }
            store(&mut self.totals, vector * WIDTH, totals);
        }
    }
}

/// Adds what some blocks give to `sums [rows, PANEL]`, for `R` rows.
#[inline(always)]
#[allow(unsafe_code)]
fn tile<const SIGNED: bool, const R: usize>(
    x: &Quantized,
    first: usize,
    panel: &Panel,
    blocks: std::ops::Range<usize>,
    sums: &mut [f32],
) {
    let count = blocks.len();
    let per_row = x.blocks;
    let words: [&[u32]; R] = std::array::from_fn(|r| {
        &x.words[((first + r) * per_row + blocks.start) * STEPS..][..count * STEPS]
    });
    let notes: [&[BlockInfo]; R] =
        std::array::from_fn(|r| &x.notes[(first + r) * per_row + blocks.start..][..count]);
    let sums = &mut sums[first * PANEL..][..R * PANEL];
    assert!(panel.numbers.len() >= count * STEPS * PANEL);
    assert!(panel.scales.len() >= count * 2 * PANEL);
    for b in 0..count {
        let notes: [&BlockInfo; R] = std::array::from_fn(|r| &notes[r][b]);
        let mut integers: [[Words; VECTORS]; R] =
            std::array::from_fn(|r| [splat_word(notes[r].start); VECTORS]);
        // In the order of `product::tile`.
        for step in b * STEPS..(b + 1) * STEPS {
            // SAFETY: `step` is below `count · STEPS`, for which all slices were checked above.
            let a: [Words; R] =
                std::array::from_fn(|r| splat_word(unsafe { *words[r].get_unchecked(step) }));
            for v in 0..VECTORS {
                // SAFETY: the same.
                let w = unsafe { load_words(&panel.numbers, step * PANEL + v * WIDTH) };
                for (integers, a) in integers.iter_mut().zip(a) {
                    integers[v] = dot::<SIGNED>(a, w, integers[v]);
                }
            }
        }
        let mut finish = |v: usize| {
            let column = b * 2 * PANEL + v * WIDTH;
            // SAFETY: `b` is below `count`, for which the panel was checked above.
            let scale = unsafe { load_unchecked(&panel.scales, column) };
            let offset = unsafe { load_unchecked(&panel.scales, column + PANEL) };
            for (r, note) in notes.iter().enumerate() {
                let at = r * PANEL + v * WIDTH;
                // Of the sum as the lowest bits of a float.
                let sum = from_bits(integers[r][v]);
                let part = multiply_add(sum, splat(note.scale), splat(note.shift));
                // SAFETY: `r` is below `R`, and there are `R · PANEL` sums.
                let sum = unsafe { load_anew(sums, at) };
                let sum = multiply_add(offset, splat(note.sum), sum);
                unsafe { store_unchecked(sums, at, multiply_add(part, scale, sum)) };
            }
        };
        // Not a loop, which the compiler might leave one, with the integers in memory.
        const { assert!(VECTORS == 6) };
        finish(0);
        finish(1);
        finish(2);
        finish(3);
        finish(4);
        finish(5);
    }
}

// Each instruction of the browsers is stood in for: native.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;
    use crate::kernels::PackedMatrix;
    use crate::kernels::cpu::definition;
    use crate::kernels::cpu::epilogue::{self, EpilogueRef};

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

    fn error<const SIGNED: bool>(dtype: Dtype, rows: usize, input: usize, outputs: usize) -> f64 {
        let [x, weight] = definition::operands(rows, input, outputs);
        let packed = PackedMatrix::pack(dtype, input, &weight);
        let y = epilogue::output(rows, &vec![0.5; outputs], EpilogueRef::None, |y| {
            linear::<SIGNED>(MatrixView::of(&x, input), packed.words(), dtype, y);
        });
        definition::error(&x, &packed, y.into_iter().map(|y| f64::from(y) - 0.5))
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
    fn a_number_that_is_not_finite_shows_in_its_row_and_nowhere_else() {
        let packed = PackedMatrix::pack(Dtype::Q8, 64, &[0.25; 64 * 12]);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = [1.0; 128];
            x[70] = bad;
            let y = epilogue::output(2, &[0.0; 12], EpilogueRef::None, |y| {
                linear::<false>(MatrixView::of(&x, 64), packed.words(), Dtype::Q8, y);
            });
            assert!(y[..12].iter().all(|v| (v - 16.0).abs() < 1e-3), "{y:?}");
            assert!(y[12..].iter().all(|v| !v.is_finite()), "{y:?}");
        }
    }
}
