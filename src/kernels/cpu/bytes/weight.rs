//! Rows of a packed weight, as panels of bytes.

use std::ops::Range;

use super::{
    BLOCK, BLOCKS, LARGEST_WEIGHT_SIDE, LONGEST, ONES, SEGMENT, SIDES, STEPS, dot, integers,
    side_words,
};
use crate::kernels::cpu::lanes::*;
use crate::kernels::cpu::memory::room;
use crate::kernels::cpu::panel::{PANEL, VECTORS};
use crate::kernels::packed::Dtype;

/// Rows of a packed weight.
pub struct Packed<'a> {
    words: &'a [u32],
    dtype: Dtype,
    input: usize,
    row_words: usize,
    number_words: usize,
    /// The middle of what its numbers can be.
    centre: i32,
    /// Whether that must be taken from them before they fit.
    is_shifted: bool,
}

impl<'a> Packed<'a> {
    /// `[rows, words]`, with so many numbers in a row.
    pub fn new<const SIGNED: bool>(words: &'a [u32], dtype: Dtype, input: usize) -> Self {
        Self {
            words,
            dtype,
            input,
            row_words: dtype.row_words(input),
            number_words: dtype.number_words(input),
            centre: if dtype == Dtype::Q4 { 8 } else { 128 },
            is_shifted: SIGNED && dtype == Dtype::Q8,
        }
    }

    pub fn rows(&self) -> usize {
        self.words.len() / self.row_words
    }

    /// What the sum of a block's integers of `x` is to be multiplied with and added.
    pub fn start_factor(&self) -> i32 {
        if self.is_shifted { 0 } else { -self.centre }
    }

    fn four_rows(&self, first: usize) -> [&'a [u32]; WIDTH] {
        let last = self.rows() - 1;
        std::array::from_fn(|i| {
            &self.words[(first + i).min(last) * self.row_words..][..self.row_words]
        })
    }

    /// Reads a word of each line of the cache that these segments of a panel's rows lie in, one after the other, so that memory is waited for many times
    /// at once: packing them would wait for each by itself.
    #[allow(unsafe_code)]
    fn fetch(&self, first: usize, segments: &Range<usize>) {
        const LINE: usize = 16;
        let word =
            |segment: usize| (segment * self.dtype.number_words(SEGMENT)).min(self.number_words);
        let words = word(segments.start)..word(segments.end);
        let rows = self.words.chunks_exact(self.row_words);
        for row in rows.skip(first).take(PANEL) {
            for word in row[words.clone()].iter().step_by(LINE) {
                // SAFETY: a reference. Compilers would see that the word is of no use yet.
                unsafe { std::ptr::read_volatile(word) };
            }
        }
    }
}

/// [`PANEL`] rows of a weight for some segments. Blocks that the last segment lacks are zero.
pub struct Panel<'a> {
    pub segments: Range<usize>,
    /// `[segments, BLOCKS, STEPS, PANEL]`
    pub numbers: &'a [u32],
    /// `[segments, BLOCKS, PANEL]`
    pub scales: &'a [f32],
    /// Two in a word, filled up with a zero: `[side_words, PANEL]`.
    pub sides: &'a [u32],
    /// What a side's integer stands for; not finite where one of the weight's scales and offsets isn't.
    pub side_scales: [f32; PANEL],
}

/// What a [`Panel`] lies in.
#[derive(Default)]
pub struct Panels {
    numbers: Vec<u32>,
    scales: Vec<f32>,
    sides: Vec<u32>,
    /// Sums of the numbers themselves, of all that was packed since they were zero.
    pub totals: [f32; PANEL],
}

impl Panels {
    /// Takes rows from `first` on; rows that are missing repeat the last one.
    pub fn pack<const SIGNED: bool>(
        &mut self,
        weight: &Packed,
        first: usize,
        segments: Range<usize>,
    ) -> Panel<'_> {
        let count = segments.len();
        let numbers = room(&mut self.numbers, count * BLOCKS * STEPS * PANEL);
        let scales = room(&mut self.scales, count * BLOCKS * PANEL);
        let sides = room(&mut self.sides, side_words(count) * PANEL);
        let mut side_scales = [0.0; PANEL];
        weight.fetch(first, &segments);
        for vector in 0..VECTORS {
            let column = vector * WIDTH;
            let rows = weight.four_rows(first + column);
            let mut floats = [splat(0.0); 2 * side_words(LONGEST)];
            for (i, segment) in segments.clone().enumerate() {
                let mut totals = splat(0.0);
                for b in 0..BLOCKS {
                    let block = segment * BLOCKS + b;
                    let at = i * BLOCKS + b;
                    let numbers = &mut numbers[at * STEPS * PANEL + column..];
                    let (scale, offset, total) = pack_block::<SIGNED>(weight, rows, block, numbers);
                    store(&mut scales[at * PANEL..], column, scale);
                    floats[i * SIDES + b] = offset;
                    totals = add(totals, total);
                }
                floats[i * SIDES + BLOCKS] = multiply(totals, splat(1.0 / BLOCK as f32));
            }
            let total = add(
                load(&self.totals, column),
                total_of(&floats, weight, &segments),
            );
            store(&mut self.totals, column, total);
            let scale = round_sides(&floats[..2 * side_words(count)], &mut sides[column..]);
            store(&mut side_scales, column, scale);
        }
        Panel {
            segments,
            numbers,
            scales,
            sides,
            side_scales,
        }
    }
}

/// The sum of four rows' numbers, by their sides.
fn total_of(sides: &[Lanes], weight: &Packed, segments: &Range<usize>) -> Lanes {
    let mut total = splat(0.0);
    for (segment, sides) in segments.clone().zip(sides.chunks_exact(SIDES)) {
        let left = weight.input - segment * SEGMENT;
        for (b, offset) in sides[..BLOCKS].iter().enumerate() {
            let present = left.saturating_sub(b * BLOCK).min(BLOCK) as f32;
            total = multiply_add(*offset, splat(present), total);
        }
        total = multiply_add(sides[BLOCKS], splat(BLOCK as f32), total);
    }
    total
}

/// A block of four rows: a vector in each `PANEL` of its numbers. → `s`, `o + c·s` and `s · Σ (n − c)`.
#[inline(always)]
#[allow(unsafe_code)]
fn pack_block<const SIGNED: bool>(
    weight: &Packed,
    rows: [&[u32]; WIDTH],
    block: usize,
    numbers: &mut [u32],
) -> (Lanes, Lanes, Lanes) {
    if block * BLOCK >= weight.input {
        // Whatever the numbers are, `x` is zero there.
        return (splat(0.0), splat(0.0), splat(0.0));
    }
    let flipped = splat_word(if weight.is_shifted { 0x8080_8080 } else { 0 });
    let low = splat_word(0x0f0f_0f0f);
    let block_words = weight.dtype.number_words(BLOCK);
    let mut at = 0;
    let mut integers = splat_word(0);
    for word in (block * block_words..(block + 1) * block_words).step_by(WIDTH) {
        // SAFETY: rows have whole blocks.
        let columns = transpose_words(unsafe { load_rows(rows, word) });
        for words in columns {
            let (bytes, parts) = match weight.dtype {
                Dtype::Q4 => ([and(words, low), and(shift_right(words, 4), low)], 2),
                _ => ([xor(words, flipped); 2], 1),
            };
            for bytes in &bytes[..parts] {
                assert!(at + WIDTH <= numbers.len());
                // SAFETY: just checked.
                unsafe { store_words(numbers, at, *bytes) };
                integers = dot::<SIGNED>(splat_word(ONES), *bytes, integers);
                at += PANEL;
            }
        }
    }
    let pairs: [u32; WIDTH] = std::array::from_fn(|i| rows[i][weight.number_words + block]);
    // SAFETY: four words.
    let pairs = unsafe { load_words(&pairs, 0) };
    let scale = from_bits(shift_left(pairs, 16));
    let offset = from_bits(and(pairs, splat_word(0xffff_0000)));
    let centre = weight.centre as f32;
    // What fills a block up is 0, or was flipped to −c.
    let present = BLOCK.min(weight.input - block * BLOCK);
    let fill = match weight.is_shifted {
        true => centre * (BLOCK - present) as f32,
        false => -centre * present as f32,
    };
    let total = multiply(scale, add(to_f32(integers), splat(fill)));
    (scale, multiply_add(splat(centre), scale, offset), total)
}

/// The sides of four rows, two words' for each `PANEL` of words. → what an integer stands for; not finite where one of the sides isn't.
#[inline(always)]
#[allow(unsafe_code)]
fn round_sides(sides: &[Lanes], words: &mut [u32]) -> Lanes {
    /// Scales below this count as zero: inverses must be finite.
    const LEAST: f32 = 1e-30;
    let (mut largest, mut nothing) = (splat(0.0), splat(0.0));
    for side in sides {
        largest = greater(
            largest,
            from_bits(and(to_bits(*side), splat_word(0x7fff_ffff))),
        );
        // Nothing times infinity is NaN.
        nothing = multiply_add(*side, splat(0.0), nothing);
    }
    let scale = multiply(largest, splat(1.0 / LARGEST_WEIGHT_SIDE));
    let inverse = and(
        to_bits(divide(splat(1.0), scale)),
        at_least(scale, splat(LEAST)),
    );
    let (pairs, _) = sides.as_chunks::<2>();
    for (i, pair) in pairs.iter().enumerate() {
        let [low, high] = pair.map(|side| integers(side, from_bits(inverse)));
        let word = or(and(low, splat_word(0xffff)), shift_left(high, 16));
        assert!(words.len() >= i * PANEL + WIDTH);
        // SAFETY: just checked.
        unsafe { store_words(words, i * PANEL, word) };
    }
    add(scale, nothing)
}

/// Four words of each row, from one on. (Not by `map`, which compilers leave as a call.)
///
/// # Safety
/// Each row must have them.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn load_rows([a, b, c, d]: [&[u32]; WIDTH], at: usize) -> [Words; WIDTH] {
    unsafe {
        [
            load_words(a, at),
            load_words(b, at),
            load_words(c, at),
            load_words(d, at),
        ]
    }
}
