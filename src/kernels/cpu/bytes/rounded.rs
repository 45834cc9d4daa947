//! Rows of `x`, rounded to bytes.

use super::{LARGEST_SIDE, ONES, SEGMENT, SIDES, STEPS, dot, integers, side_words};
use crate::kernels::cpu::lanes::*;
use crate::kernels::cpu::memory::room;
use crate::kernels::cpu::packed_rows::{BLOCK, BLOCKS};
use crate::kernels::cpu::panel::MatrixView;
use crate::kernels::cpu::parallel::{for_parts, for_threads};

/// Rows that a thread rounds at a time.
const SHARE: usize = 16;
/// The largest integer that stands for a number.
const LARGEST: f32 = 127.0;
/// Numbers below this count as zero: inverses must be finite.
const LEAST: f32 = 1e-30;

/// Rows of numbers, rounded. Blocks and numbers that the last segment lacks are zero.
pub struct Rounded<'a> {
    pub rows: usize,
    pub segments: usize,
    /// `[rows, segments, BLOCKS, STEPS]`
    pub words: &'a [u32],
    /// What is taken from a block's sum of products because the weight's numbers are not about zero, `[rows, segments, BLOCKS]`.
    pub starts: &'a [u32],
    /// What an integer stands for, `[rows, segments]`.
    pub scales: &'a [f32],
    /// Sides, two in a word, filled up with zeros: `[rows, side_stride]`.
    pub sides: &'a [u32],
    pub side_stride: usize,
    /// What a side's integer stands for, `[rows]`; not finite where one of the row's numbers isn't.
    pub side_scales: &'a [f32],
    /// What all of a row's numbers have in common, which its sides are without: `[rows]`.
    pub middles: &'a [f32],
}

/// What [`Rounded`] lies in.
pub struct Memory {
    words: Vec<u32>,
    starts: Vec<u32>,
    scales: Vec<f32>,
    sides: Vec<u32>,
    side_scales: Vec<f32>,
    middles: Vec<f32>,
}

impl Memory {
    pub const fn new() -> Self {
        Self {
            words: Vec::new(),
            starts: Vec::new(),
            scales: Vec::new(),
            sides: Vec::new(),
            side_scales: Vec::new(),
            middles: Vec::new(),
        }
    }
}

/// One of the rows.
struct Row<'a> {
    words: &'a mut [u32],
    starts: &'a mut [u32],
    scales: &'a mut [f32],
    sides: &'a mut [u32],
    side_scale: &'a mut f32,
    middle: &'a mut f32,
}

/// A thread's memory.
struct Workspace {
    /// The last segment, filled up.
    last: [f32; SEGMENT],
    /// A row's sides before they are rounded.
    sides: Vec<f32>,
}

impl<'a> Rounded<'a> {
    /// `start_factor` times the sum of a block's integers is its start.
    pub fn new<const SIGNED: bool>(
        x: MatrixView,
        start_factor: i32,
        memory: &'a mut Memory,
    ) -> Self {
        let segments = x.length.div_ceil(SEGMENT);
        let side_stride = side_words(segments).next_multiple_of(WIDTH);
        let count = x.rows * segments;
        let words = room(&mut memory.words, count * BLOCKS * STEPS);
        let starts = room(&mut memory.starts, count * BLOCKS);
        let scales = room(&mut memory.scales, count);
        let sides = room(&mut memory.sides, x.rows * side_stride);
        let side_scales = room(&mut memory.side_scales, x.rows);
        let middles = room(&mut memory.middles, x.rows);
        let mut rows: Vec<Row> = (words.chunks_exact_mut(segments * BLOCKS * STEPS))
            .zip(starts.chunks_exact_mut(segments * BLOCKS))
            .zip(scales.chunks_exact_mut(segments))
            .zip(sides.chunks_exact_mut(side_stride))
            .zip(side_scales.iter_mut().zip(middles.iter_mut()))
            .map(
                |((((words, starts), scales), sides), (side_scale, middle))| Row {
                    words,
                    starts,
                    scales,
                    sides,
                    side_scale,
                    middle,
                },
            )
            .collect();
        let mut workspaces = for_threads(|| Workspace {
            last: [0.0; SEGMENT],
            sides: vec![0.0; 2 * side_stride],
        });
        for_parts(&mut rows, SHARE, &mut workspaces, |workspace, i, rows| {
            for (j, row) in rows.iter_mut().enumerate() {
                row.round::<SIGNED>(x.row(i * SHARE + j), start_factor, workspace);
            }
        });
        drop(rows);
        Self {
            rows: x.rows,
            segments,
            words,
            starts,
            scales,
            sides,
            side_stride,
            side_scales,
            middles,
        }
    }
}

impl Row<'_> {
    fn round<const SIGNED: bool>(
        &mut self,
        x: &[f32],
        start_factor: i32,
        workspace: &mut Workspace,
    ) {
        let Workspace { last, sides } = workspace;
        for (segment, numbers) in x.chunks(SEGMENT).enumerate() {
            let (low, high) = range(numbers);
            let middle = (low + high) / 2.0;
            // Whatever is not finite shows in the sides; here it would spoil other numbers in silence.
            let middle = if middle.is_finite() { middle } else { 0.0 };
            let (scale, inverse) = scale_of((high - middle).max(middle - low), LARGEST);
            self.scales[segment] = scale;
            let (whole, missing) = match numbers.first_chunk() {
                Some(whole) => (whole, 0),
                None => {
                    // What fills the segment up is the integer 0.
                    last[..numbers.len()].copy_from_slice(numbers);
                    last[numbers.len()..].fill(middle);
                    (&*last, SEGMENT - numbers.len())
                }
            };
            let (totals, sums) = self.put::<SIGNED>(segment, whole, middle, inverse);
            let starts = multiply_words(totals, splat_word(start_factor as u32));
            let places = &mut self.starts[segment * BLOCKS..][..BLOCKS];
            // SAFETY: `BLOCKS` words.
            #[allow(unsafe_code)]
            unsafe {
                store_words(places, 0, starts);
            }
            let sides = &mut sides[segment * SIDES..][..SIDES];
            store(sides, 0, sums);
            sides[BLOCKS] = middle * BLOCK as f32;
            if missing > 0 {
                for (b, sum) in sides[..BLOCKS].iter_mut().rev().enumerate() {
                    *sum -= middle * missing.saturating_sub(b * BLOCK).min(BLOCK) as f32;
                }
            }
        }
        *self.middle = take_middle(sides, x.len());
        *self.side_scale = round_sides(sides, self.sides);
    }

    /// Writes a segment's integers. → the sums of each block's integers, and of its numbers.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn put<const SIGNED: bool>(
        &mut self,
        segment: usize,
        numbers: &[f32; SEGMENT],
        middle: f32,
        inverse: f32,
    ) -> (Words, Lanes) {
        let words = &mut self.words[segment * BLOCKS * STEPS..][..BLOCKS * STEPS];
        let (middle, inverse) = (splat(middle), splat(inverse));
        let mut totals = [splat_word(0); BLOCKS];
        let mut sums = [splat(0.0); BLOCKS];
        for (b, block) in numbers.chunks_exact(BLOCK).enumerate() {
            for half in 0..2 {
                let [first, second, third, fourth] = std::array::from_fn(|i| {
                    let v = load(block, (half * 4 + i) * WIDTH);
                    sums[b] = add(sums[b], v);
                    integers(subtract(v, middle), inverse)
                });
                let bytes = narrow_halves(narrow(first, second), narrow(third, fourth));
                // SAFETY: there are `STEPS` words for each block.
                unsafe { store_words(words, b * STEPS + half * WIDTH, bytes) };
                totals[b] = dot::<SIGNED>(bytes, splat_word(ONES), totals[b]);
            }
        }
        let [a, b, c, d] = transpose_words(totals);
        let totals = sum_words(sum_words(a, b), sum_words(c, d));
        let [a, b, c, d] = transpose(sums);
        (totals, add(add(a, b), add(c, d)))
    }
}

/// What an integer stands for if the largest number is to become the largest integer, and the inverse.
fn scale_of(number: f32, integer: f32) -> (f32, f32) {
    match number >= LEAST {
        true => (number / integer, integer / number),
        false => (0.0, 0.0),
    }
}

/// Takes the mean of a row's numbers from its sides. Without it sides of numbers that are all alike would be far larger than what tells them apart.
fn take_middle(sides: &mut [f32], numbers: usize) -> f32 {
    let segments = sides.chunks_exact_mut(SIDES);
    let sum: f32 = (segments.map(|sides| sides[..BLOCKS].iter().sum::<f32>())).sum();
    let mean = sum / numbers as f32;
    if !mean.is_finite() {
        return 0.0;
    }
    for (segment, sides) in sides.chunks_exact_mut(SIDES).enumerate() {
        let left = numbers.saturating_sub(segment * SEGMENT);
        for (b, sum) in sides[..BLOCKS].iter_mut().enumerate() {
            *sum -= mean * left.saturating_sub(b * BLOCK).min(BLOCK) as f32;
        }
        sides[BLOCKS] -= mean * BLOCK as f32;
    }
    mean
}

/// Twice as many sides as words. → what an integer stands for; not finite where one of the sides isn't.
#[allow(unsafe_code)]
fn round_sides(sides: &[f32], words: &mut [u32]) -> f32 {
    let (low, high) = range(sides);
    let (scale, inverse) = scale_of(high.max(-low), LARGEST_SIDE);
    let mut nothing = splat(0.0);
    let (eights, _) = sides.as_chunks::<{ 2 * WIDTH }>();
    for (i, eight) in eights.iter().enumerate() {
        let [a, b] = [load(eight, 0), load(eight, WIDTH)];
        // Nothing times infinity is NaN.
        nothing = multiply_add(add(a, b), splat(0.0), nothing);
        let [a, b] = [a, b].map(|v| integers(v, splat(inverse)));
        assert!(words.len() >= (i + 1) * WIDTH);
        // SAFETY: just checked.
        unsafe { store_words(words, i * WIDTH, narrow(a, b)) };
    }
    scale + to_array(nothing).iter().sum::<f32>()
}

/// The smallest and the largest number, NaN left out.
#[inline(always)]
fn range(numbers: &[f32]) -> (f32, f32) {
    let (fours, rest) = numbers.as_chunks::<WIDTH>();
    // Of the negated numbers the smallest, so that both are found alike in the end.
    let nothing = [splat(f32::INFINITY); 2];
    let [low, high] = fours.iter().fold(nothing, |[low, high], four| {
        let v = load(four, 0);
        [lesser(low, v), lesser(high, subtract(splat(0.0), v))]
    });
    let [a, b] = regroup(to_bits(low), to_bits(high));
    let [a, b, c, d] = to_array(lesser(from_bits(a), from_bits(b)));
    // `f32::min` and `max` would be calls.
    let least = |a: f32, b: f32| if b < a { b } else { a };
    let (low, high) = (least(a, b), least(c, d));
    let low = rest.iter().fold(low, |low, v| least(low, *v));
    let high = rest.iter().fold(high, |high, v| least(high, -*v));
    (low, -high)
}
