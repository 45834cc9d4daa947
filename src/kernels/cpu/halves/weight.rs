//! Rows of a packed weight, rounded to 16-bit integers in panels.
//!
//! Panels are those of [`product`](crate::kernels::cpu::product) in two parts, because a tile of 3 × 12 outputs is what fits a browser's fifteen vector
//! registers where products can't be added in one instruction.

use std::ops::Range;

use super::{BLOCK_STEPS, LEAST, SEGMENT, STEPS, WEIGHT_NORM};
use crate::kernels::cpu::functions::{MIDDLE, magnitude};
use crate::kernels::cpu::lanes::*;
use crate::kernels::cpu::memory::room;
use crate::kernels::cpu::packed_rows::{BLOCK, BLOCKS, PackedRows, load_rows};
use crate::kernels::cpu::panel::PANEL;
use crate::kernels::packed::Dtype;

/// Vectors of a tile's row.
pub const VECTORS: usize = 3;
/// Columns of a tile.
pub const COLUMNS: usize = VECTORS * WIDTH;
/// Tiles beside each other in a panel.
pub const PARTS: usize = PANEL / COLUMNS;
/// What the bits of an f16, in the place of those of an f32, are to be multiplied with: the exponent's bias differs by 112.
const HALF: f32 = f32::from_bits((127 + 112) << 23);

/// [`PANEL`] rows of a weight for some segments, or as many of each quarter of it, rounded to integers with scales in common.
pub struct Panels<const N: usize> {
    numbers: [Vec<u32>; N],
    scales: Vec<f32>,
    /// Sums of the numbers themselves, of all that was packed since they were zero.
    pub totals: [[f32; PANEL]; N],
}

impl<const N: usize> Panels<N> {
    pub fn new() -> Self {
        Self {
            numbers: std::array::from_fn(|_| Vec::new()),
            scales: Vec::new(),
            totals: [[0.0; PANEL]; N],
        }
    }

    /// Takes the weight's rows and blocks from these on, of which there are so many: the segments that are asked for. Rows that are missing repeat the
    /// last one; blocks that are missing are zero. → `N` times `[PARTS, segments, STEPS, COLUMNS]`, and what an integer stands for,
    /// `[PARTS, segments, COLUMNS]`.
    pub fn pack(
        &mut self,
        weight: &PackedRows,
        quarters: [[usize; 2]; N],
        blocks: usize,
        segments: Range<usize>,
    ) -> ([&[u32]; N], &[f32]) {
        let count = segments.len();
        let mut panels =
            (self.numbers.each_mut()).map(|memory| room(memory, count * STEPS * PANEL));
        let scales = room(&mut self.scales, count * PANEL);
        for [row, block] in quarters {
            let end = blocks.min(segments.end * BLOCKS);
            weight.fetch(row, block + segments.start * BLOCKS..block + end);
        }
        // A segment of all of a tile's columns at a time: their numbers share lines of the cache.
        for part in 0..PARTS {
            for (i, segment) in segments.clone().enumerate() {
                let end = blocks.min((segment + 1) * BLOCKS);
                for vector in 0..VECTORS {
                    let within = vector * WIDTH;
                    let quarters = quarters.map(|[row, block]| Segment {
                        rows: weight.four(row + part * COLUMNS + within),
                        blocks: weight.present(block + segment * BLOCKS..block + end),
                    });
                    let at = part * count + i;
                    let numbers = at * STEPS * COLUMNS + within;
                    let (scale, totals) = weight.round(quarters, &mut panels, numbers);
                    store(scales, at * COLUMNS + within, scale);
                    for (all, total) in self.totals.iter_mut().zip(totals) {
                        let column = part * COLUMNS + within;
                        let total = add(load(all, column), total);
                        store(all, column, total);
                    }
                }
            }
        }
        (panels.map(|panel| &*panel), scales)
    }
}

/// How words hold numbers that are integers with a scale and an offset.
trait Unpack<const PAIRS: usize> {
    const UNIT: f32;

    /// A word's integers, less the middle of what they can be, times `UNIT`: two by two in the order of [`rounded`](super::rounded).
    fn pairs(words: Words) -> [Words; PAIRS];

    /// Bytes with the same sum as the integers.
    fn bytes(words: Words) -> Words;
}

/// `q8`
struct Bytes;
/// `q4`
struct Nibbles;

impl Unpack<2> for Bytes {
    const UNIT: f32 = 256.0;

    #[inline(always)]
    fn pairs(words: Words) -> [Words; 2] {
        let words = xor(words, constant_word(&[0x8080_8080; WIDTH]));
        let high = constant_word(&[0xff00_ff00; WIDTH]);
        [shift_halves_left(words, 8), and(words, high)]
    }

    #[inline(always)]
    fn bytes(words: Words) -> Words {
        words
    }
}

impl Unpack<4> for Nibbles {
    const UNIT: f32 = 4096.0;

    #[inline(always)]
    fn pairs(words: Words) -> [Words; 4] {
        let words = xor(words, constant_word(&[0x8888_8888; WIDTH]));
        let high = constant_word(&[0xf000_f000; WIDTH]);
        [
            shift_halves_left(words, 12),
            and(shift_halves_left(words, 4), high),
            and(shift_halves_left(words, 8), high),
            and(words, high),
        ]
    }

    #[inline(always)]
    fn bytes(words: Words) -> Words {
        let low = constant_word(&[0x0f0f_0f0f; WIDTH]);
        sum_words(and(words, low), and(shift_right(words, 4), low))
    }
}

/// Some neighbouring blocks of four rows, at most a segment's.
struct Segment<'a> {
    rows: [&'a [u32]; WIDTH],
    blocks: Range<usize>,
}

impl PackedRows<'_> {
    /// Rounds segments to integers, a vector in each `COLUMNS` of each one's numbers from `at` on. → what an integer stands for in each row, which is
    /// not finite where one of its numbers isn't; and the sums of the numbers themselves.
    #[inline(always)]
    fn round<const N: usize>(
        &self,
        segments: [Segment; N],
        numbers: &mut [&mut [u32]; N],
        at: usize,
    ) -> (Lanes, [Lanes; N]) {
        if self.dtype == Dtype::F16 {
            let segment = &segments[0];
            let words = segment.blocks.start * BLOCK / 2
                ..self.number_words.min(segment.blocks.end * BLOCK / 2);
            let scale = self.scale_of_halves(segment.rows, words.clone());
            let numbers = &mut numbers[0][at..];
            let total = self.round_halves(segment.rows, words, inverse(scale), numbers);
            return (scale, [total; N]);
        }
        let levels = if self.dtype == Dtype::Q8 { 255.0 } else { 15.0 };
        let mut affine = [[[splat(0.0); 2]; BLOCKS]; N];
        for (affine, segment) in affine.iter_mut().zip(&segments) {
            *affine = self.affine(segment.rows, segment.blocks.clone());
        }
        let mut largest = splat(0.0);
        for [scale, offset] in affine.into_iter().flatten() {
            let end = multiply_add(scale, splat(levels), offset);
            largest = greater(greater(largest, magnitude(offset)), magnitude(end));
            // NaN where one of them is not finite.
            largest = multiply_add(add(offset, end), splat(0.0), largest);
        }
        // The norm if all numbers are the largest. Of the shortest rows there are 32 at most: no fewer, as twice an integer is a half, and so is the
        // factor that makes it of a number; where there are 128, four times an integer. Quarters are added.
        let count = self.input.clamp(BLOCK, SEGMENT) as f32 * 1.01;
        let norm = if N == 1 {
            WEIGHT_NORM
        } else {
            WEIGHT_NORM / 2.0
        };
        let scale = multiply(largest, splat(count.sqrt() / norm));
        let mut totals = [splat(0.0); N];
        for (i, (segment, affine)) in segments.into_iter().zip(affine).enumerate() {
            let (numbers, inverse) = (&mut numbers[i][at..], inverse(scale));
            totals[i] = match (self.dtype, self.input < SEGMENT) {
                (Dtype::Q4, true) => {
                    self.round_blocks::<Nibbles, 4, 1>(segment, affine, inverse, numbers)
                }
                (Dtype::Q4, false) => {
                    self.round_blocks::<Nibbles, 4, 2>(segment, affine, inverse, numbers)
                }
                (_, true) => self.round_blocks::<Bytes, 2, 1>(segment, affine, inverse, numbers),
                (_, false) => self.round_blocks::<Bytes, 2, 2>(segment, affine, inverse, numbers),
            };
        }
        (scale, totals)
    }

    /// Numbers with a scale and an offset for each block. → the sums of the numbers themselves.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn round_blocks<U: Unpack<PAIRS>, const PAIRS: usize, const BITS: u32>(
        &self,
        segment: Segment,
        affine: [[Lanes; 2]; BLOCKS],
        inverse: Lanes,
        numbers: &mut [u32],
    ) -> Lanes {
        // The products are rounded to such parts of an integer, as the offset is, and their sum once more: down, which half an integer makes up for, and
        // half a part, as that rounds up on the average.
        let whole = (1 << BITS) as f32;
        assert!(numbers.len() >= (STEPS - 1) * COLUMNS + WIDTH);
        let both = |v: Lanes| {
            // The lowest bits are the nearest integer.
            let half = to_bits(add(v, constant(&[MIDDLE; WIDTH])));
            or(
                and(half, constant_word(&[0xffff; WIDTH])),
                shift_left(half, 16),
            )
        };
        let parts = multiply(inverse, splat(whole));
        let block_words = BLOCK_STEPS / PAIRS;
        let count = segment.blocks.len();
        let mut total = splat(0.0);
        for (i, [scale, offset]) in affine.into_iter().enumerate().take(count) {
            let middle = multiply_add(scale, splat(32768.0 / U::UNIT), offset);
            let factor = both(multiply(multiply(scale, parts), splat(32768.0 / U::UNIT)));
            let added = both(multiply_add(middle, parts, splat((whole - 1.0) / 2.0)));
            let first = (segment.blocks.start + i) * block_words;
            let mut sums = splat_word(0);
            for word in (0..block_words).step_by(WIDTH) {
                // SAFETY: a row's words are filled up to whole blocks.
                let columns = unsafe { load_rows(segment.rows, first + word) };
                for (j, words) in transpose_words(columns).into_iter().enumerate() {
                    sums = sum_halves(sums, sum_byte_pairs(U::bytes(words)));
                    for (k, two) in U::pairs(words).into_iter().enumerate() {
                        let sum = sum_halves(multiply_halves(two, factor), added);
                        let step = i * BLOCK_STEPS + (word + j) * PAIRS + k;
                        // SAFETY: there are `STEPS`, as was checked.
                        unsafe {
                            store_words(numbers, step * COLUMNS, shift_halves_right(sum, BITS))
                        };
                    }
                }
            }
            let integers = dot_halves(sums, constant_word(&[0x0001_0001; WIDTH]), splat_word(0));
            // What fills the last block up is 0.
            let present = BLOCK.min(self.input - (segment.blocks.start + i) * BLOCK) as f32;
            total = multiply_add(to_f32(integers), scale, total);
            total = multiply_add(splat(present), offset, total);
        }
        // What is added to another quarter's numbers must be zero where this one has none. Four share two words.
        let end = self.input.min(segment.blocks.end * BLOCK);
        let present = end.saturating_sub(segment.blocks.start * BLOCK).div_ceil(4) * 2;
        for step in present..STEPS {
            // SAFETY: as above.
            unsafe { store_words(numbers, step * COLUMNS, splat_word(0)) };
        }
        total
    }

    /// Numbers in f16. → their sums.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn round_halves(
        &self,
        rows: [&[u32]; WIDTH],
        words: Range<usize>,
        inverse: Lanes,
        numbers: &mut [u32],
    ) -> Lanes {
        assert!(numbers.len() >= (STEPS - 1) * COLUMNS + WIDTH && words.len() <= STEPS);
        let low_half = constant_word(&[0xffff; WIDTH]);
        let mut total = splat(0.0);
        let mut integer = |high_half: Words| {
            let bits = and(
                shift_right_signed(high_half, 3),
                constant_word(&[0x8fff_e000; WIDTH]),
            );
            let value = multiply(from_bits(bits), constant(&[HALF; WIDTH]));
            total = add(total, value);
            to_bits(multiply_add(value, inverse, constant(&[MIDDLE; WIDTH])))
        };
        for word in words.clone().step_by(WIDTH) {
            // SAFETY: a row's words are filled up to whole vectors.
            let columns = unsafe { load_rows(rows, word) };
            let [a, b, c, d] = transpose_words(columns);
            for (i, two) in [[a, b], [c, d]].into_iter().enumerate() {
                let evens = two.map(|words| integer(shift_left(words, 16)));
                let odds = two.map(&mut integer);
                for (j, [low, high]) in [evens, odds].into_iter().enumerate() {
                    let step = word - words.start + 2 * i + j;
                    // SAFETY: there are `STEPS`, as many as words, as was checked.
                    unsafe {
                        store_words(
                            numbers,
                            step * COLUMNS,
                            or(and(low, low_half), shift_left(high, 16)),
                        )
                    };
                }
            }
        }
        total
    }

    #[allow(unsafe_code)]
    fn scale_of_halves(&self, rows: [&[u32]; WIDTH], words: Range<usize>) -> Lanes {
        let sums = rows.map(|row| {
            let row = &row[..self.number_words];
            let (mut squares, mut largest) = (splat(0.0), splat(0.0));
            for word in words.clone().step_by(WIDTH) {
                // SAFETY: a row's words are filled up to whole vectors.
                let words = unsafe { load_words(row, word) };
                for bits in [shift_left(words, 13), shift_right(words, 3)] {
                    let bits = and(bits, constant_word(&[0x0fff_e000; WIDTH]));
                    let v = multiply(from_bits(bits), constant(&[HALF; WIDTH]));
                    squares = multiply_add(v, v, squares);
                    largest = greater(largest, v);
                }
            }
            [squares, largest]
        });
        let [a, b, c, d] = transpose(sums.map(|[squares, _]| squares));
        let squares = to_array(add(add(a, b), add(c, d))).map(f32::sqrt);
        let norm = multiply(load(&squares, 0), splat(1.0 / WEIGHT_NORM));
        let [a, b, c, d] = transpose(sums.map(|[_, largest]| largest));
        let largest = greater(greater(a, b), greater(c, d));
        // From here on halves are infinite or none.
        let infinite = and(
            at_least(largest, splat(65536.0)),
            splat_word(f32::INFINITY.to_bits()),
        );
        let scale = greater(norm, multiply(largest, splat(1.0 / 32767.0)));
        from_bits(or(to_bits(scale), infinite))
    }
}

/// 1 by scales, 0 by those that count as zero.
#[inline(always)]
fn inverse(scale: Lanes) -> Lanes {
    let is_some = at_least(scale, splat(LEAST));
    from_bits(and(to_bits(divide(splat(1.0), scale)), is_some))
}

/// `a + sign · b` in place of `sum`, all of them two halves in a word.
#[allow(unsafe_code)]
pub fn add_halves(a: &[u32], sign: f32, b: &[u32], sum: &mut [u32]) {
    assert!(a.len() == b.len() && a.len() == sum.len() && a.len().is_multiple_of(WIDTH));
    for i in (0..a.len()).step_by(WIDTH) {
        // SAFETY: the lengths are the same multiple of four.
        unsafe {
            let (a, b) = (load_words(a, i), load_words(b, i));
            let both = match sign < 0.0 {
                true => difference_halves(a, b),
                false => sum_halves(a, b),
            };
            store_words(sum, i, both);
        }
    }
}
