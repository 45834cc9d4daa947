//! Rows of a packed weight, as panels of bytes.

use std::ops::Range;

use super::rounded::LEAST;
use super::{
    LARGEST_WEIGHT_SIDE, LONGEST, ONES, SEGMENT, SIDES, STEPS, dot, integers, pieces, present,
    side_words,
};
use crate::kernels::cpu::functions::magnitude;
use crate::kernels::cpu::lanes::*;
use crate::kernels::cpu::memory::LINE_WORDS;
use crate::kernels::cpu::packed_rows::{BLOCK, BLOCKS, PackedRows, load_rows};
use crate::kernels::cpu::panel::{PANEL, VECTORS};
use crate::kernels::packed::Dtype;

/// The middle of what a weight's numbers can be.
const fn centre(q4: bool) -> i32 {
    if q4 { 8 } else { 128 }
}

/// Whether that must be taken from them before they fit bytes that count as −128…127.
const fn is_shifted(signed: bool, q4: bool) -> bool {
    signed && !q4
}

/// What the sum of a block's integers of `x` is to be multiplied with and added.
pub fn start_factor<const SIGNED: bool>(dtype: Dtype) -> i32 {
    let q4 = dtype == Dtype::Q4;
    if is_shifted(SIGNED, q4) {
        0
    } else {
        -centre(q4)
    }
}

/// [`PANEL`] rows of a weight for some segments. Scales and sides of blocks that the last segment lacks are zero, their numbers any.
pub struct Panel<'a> {
    pub segments: Range<usize>,
    /// `[segments, BLOCKS, STEPS, PANEL]`
    pub numbers: &'a [u32],
    /// `[segments, BLOCKS, PANEL]`
    pub scales: &'a [f32],
    /// Two in a word, filled up with a zero: `[side_words, PANEL]`.
    pub sides: &'a [u32],
    /// What a side's integer stands for, `[PANEL]`; not finite where one of the weight's scales and offsets isn't.
    pub side_scales: &'a [f32],
    /// Sums of the numbers themselves, `[PANEL]`.
    pub totals: &'a [f32],
}

/// Words of a [`Panel`] of so many segments; another one begins with a line of the cache.
pub fn piece_words(segments: usize) -> usize {
    piece_parts(segments)
        .iter()
        .sum::<usize>()
        .next_multiple_of(LINE_WORDS)
}

/// Words of all pieces of a panel.
pub fn panel_words(segments: usize) -> usize {
    pieces(segments).map(|piece| piece_words(piece.len())).sum()
}

/// Words of numbers, scales, sides, their scales, and totals.
fn piece_parts(segments: usize) -> [usize; 5] {
    [
        segments * BLOCKS * STEPS,
        segments * BLOCKS,
        side_words(segments),
        1,
        1,
    ]
    .map(|rows| rows * PANEL)
}

impl<'a> Panel<'a> {
    /// What [`pack`] has put into these words.
    pub fn of(words: &'a [u32], segments: Range<usize>) -> Self {
        let mut left = words;
        let [numbers, scales, sides, side_scales, totals] = piece_parts(segments.len())
            .map(|count| left.split_off(..count).expect("a piece has all parts"));
        Self {
            segments,
            numbers,
            scales: bytemuck::cast_slice(scales),
            sides,
            side_scales: bytemuck::cast_slice(side_scales),
            totals: bytemuck::cast_slice(totals),
        }
    }
}

/// Puts rows from `first` on into `piece`, as [`Panel`] has them; rows that are missing repeat the last one.
pub fn pack<const SIGNED: bool>(
    weight: &PackedRows,
    first: usize,
    segments: Range<usize>,
    piece: &mut [u32],
) {
    match weight.dtype {
        Dtype::Q4 => pack_as::<SIGNED, true>(weight, first, segments, piece),
        _ => pack_as::<SIGNED, false>(weight, first, segments, piece),
    }
}

fn pack_as<const SIGNED: bool, const Q4: bool>(
    weight: &PackedRows,
    first: usize,
    segments: Range<usize>,
    piece: &mut [u32],
) {
    let count = segments.len();
    let mut left = piece;
    let [numbers, scales, sides, side_scales, totals] =
        piece_parts(count).map(|count| left.split_off_mut(..count).expect("a piece has all parts"));
    let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
    let side_scales: &mut [f32] = bytemuck::cast_slice_mut(side_scales);
    let piece_totals: &mut [f32] = bytemuck::cast_slice_mut(totals);
    weight.fetch(first, segments.start * BLOCKS..segments.end * BLOCKS);
    for vector in 0..VECTORS {
        let column = vector * WIDTH;
        let rows = weight.four(first + column);
        let mut floats = [splat(0.0); 2 * side_words(LONGEST)];
        for (i, segment) in segments.clone().enumerate() {
            let blocks = segment * BLOCKS..(segment + 1) * BLOCKS;
            let blocks = weight.present(blocks);
            let affine = weight.affine(rows, blocks.clone());
            let mut totals = splat(0.0);
            for (b, [scale, offset]) in affine.into_iter().enumerate() {
                let at = i * BLOCKS + b;
                store(&mut scales[at * PANEL..], column, scale);
                if b >= blocks.len() {
                    // Whatever the numbers are, `x` is zero there.
                    continue;
                }
                let numbers = &mut numbers[at * STEPS * PANEL + column..];
                let sum = pack_block::<SIGNED, Q4>(weight, rows, blocks.start + b, numbers);
                totals = multiply_add(scale, sum, totals);
                floats[i * SIDES + b] = multiply_add(splat(centre(Q4) as f32), scale, offset);
            }
            floats[i * SIDES + BLOCKS] = multiply(totals, splat(1.0 / BLOCK as f32));
        }
        let total = total_of(&floats, weight.input, &segments);
        store(piece_totals, column, total);
        let scale = round_sides(&floats[..2 * side_words(count)], &mut sides[column..]);
        store(side_scales, column, scale);
    }
}

/// The sum of four rows' numbers, by their sides.
fn total_of(sides: &[Lanes], input: usize, segments: &Range<usize>) -> Lanes {
    let mut total = splat(0.0);
    for (segment, sides) in segments.clone().zip(sides.chunks_exact(SIDES)) {
        let left = input - segment * SEGMENT;
        for (b, offset) in sides[..BLOCKS].iter().enumerate() {
            total = multiply_add(*offset, splat(present(left, b)), total);
        }
        total = multiply_add(sides[BLOCKS], splat(BLOCK as f32), total);
    }
    total
}

/// A block of four rows: a vector in each `PANEL` of its numbers. → the sum of `n − c`.
#[inline(always)]
#[allow(unsafe_code)]
fn pack_block<const SIGNED: bool, const Q4: bool>(
    weight: &PackedRows,
    rows: [&[u32]; WIDTH],
    block: usize,
    numbers: &mut [u32],
) -> Lanes {
    assert!(numbers.len() >= (STEPS - 1) * PANEL + WIDTH);
    let block_words = if Q4 { STEPS / 2 } else { STEPS };
    let ones = constant_word(&[ONES; WIDTH]);
    let mut integers = splat_word(0);
    let mut put = |step: usize, bytes: Words| {
        // SAFETY: there are `STEPS`, as was checked.
        unsafe { store_words(numbers, step * PANEL, bytes) };
        integers = dot::<SIGNED>(ones, bytes, integers);
    };
    for word in (0..block_words).step_by(WIDTH) {
        // SAFETY: rows have whole blocks.
        let columns = transpose_words(unsafe { load_rows(rows, block * block_words + word) });
        for (i, words) in columns.into_iter().enumerate() {
            if Q4 {
                let low = constant_word(&[0x0f0f_0f0f; WIDTH]);
                put(2 * (word + i), and(words, low));
                put(2 * (word + i) + 1, and(shift_right(words, 4), low));
            } else if is_shifted(SIGNED, Q4) {
                put(word + i, xor(words, constant_word(&[0x8080_8080; WIDTH])));
            } else {
                put(word + i, words);
            }
        }
    }
    // What fills a block up is 0, or was flipped to −c.
    let present = BLOCK.min(weight.input - block * BLOCK);
    let fill = match is_shifted(SIGNED, Q4) {
        true => centre(Q4) * (BLOCK - present) as i32,
        false => -centre(Q4) * present as i32,
    };
    to_f32(sum_words(integers, splat_word(fill as u32)))
}

/// The sides of four rows, two words' for each `PANEL` of words. → what an integer stands for; not finite where one of the sides isn't.
#[inline(always)]
#[allow(unsafe_code)]
fn round_sides(sides: &[Lanes], words: &mut [u32]) -> Lanes {
    let (mut largest, mut nothing) = (splat(0.0), splat(0.0));
    for side in sides {
        largest = greater(largest, magnitude(*side));
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
        let word = or(
            and(low, constant_word(&[0xffff; WIDTH])),
            shift_left(high, 16),
        );
        assert!(words.len() >= i * PANEL + WIDTH);
        // SAFETY: just checked.
        unsafe { store_words(words, i * PANEL, word) };
    }
    add(scale, nothing)
}
