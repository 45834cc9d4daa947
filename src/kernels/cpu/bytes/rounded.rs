//! Rows of `x`, rounded to bytes.

use super::{LARGEST_SIDE, ONES, SEGMENT, SIDES, STEPS, dot, integers, present, side_words};
use crate::kernels::cpu::functions::magnitude;
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
pub const LEAST: f32 = 1e-30;
/// Blocks have scales of their own where that makes the mean square of their steps less than such a part: numbers that are far larger than all others would
/// else cost four blocks what they cost one. (Of normal numbers it is two thirds: with a scale for each block, whose middle was the row's, products
/// took 1.2 of the time, and components of ViT-B/16-224's embeddings moved by 1.09e-3 of 1.21e-3, pictures of noise, and 0.92e-3 of 0.97e-3, photographs.)
const UNEVEN: f32 = 0.4;

/// Rows of numbers, rounded. Blocks and numbers that the last segment lacks are zero.
pub struct Rounded<'a> {
    pub rows: usize,
    pub segments: usize,
    /// `[rows, segments, BLOCKS, STEPS]`
    pub words: &'a [u32],
    /// Where a block's sum of products starts, because the weight's numbers are not about zero: `[rows, segments, BLOCKS]`.
    pub starts: &'a [u32],
    /// What an integer stands for, `[rows, segments, BLOCKS]`.
    pub scales: &'a [f32],
    /// Whether a segment's blocks have scales of their own, `[rows, segments]`.
    pub uneven: &'a [bool],
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
    uneven: Vec<bool>,
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
            uneven: Vec::new(),
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
    uneven: &'a mut [bool],
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
        let scales = room(&mut memory.scales, count * BLOCKS);
        let uneven = room(&mut memory.uneven, count);
        let sides = room(&mut memory.sides, x.rows * side_stride);
        let side_scales = room(&mut memory.side_scales, x.rows);
        let middles = room(&mut memory.middles, x.rows);
        let mut rows: Vec<Row> = (words.chunks_exact_mut(segments * BLOCKS * STEPS))
            .zip(starts.chunks_exact_mut(segments * BLOCKS))
            .zip(scales.chunks_exact_mut(segments * BLOCKS))
            .zip(uneven.chunks_exact_mut(segments))
            .zip(sides.chunks_exact_mut(side_stride))
            .zip(side_scales.iter_mut().zip(middles.iter_mut()))
            .map(
                |(((((words, starts), scales), uneven), sides), (side_scale, middle))| Row {
                    words,
                    starts,
                    scales,
                    uneven,
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
            uneven,
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
            let missing = SEGMENT - numbers.len();
            if missing > 0 {
                // With one of its numbers, which changes no range.
                last.fill(numbers[0]);
                last[..numbers.len()].copy_from_slice(numbers);
            }
            let steps = Steps::of(numbers.first_chunk().unwrap_or(last));
            if missing > 0 {
                // What fills the segment up is the integer 0.
                last[numbers.len()..].fill(steps.middle);
            }
            let numbers = numbers.first_chunk().unwrap_or(last);
            let (totals, sums) = self.put::<SIGNED>(segment, numbers, &steps);
            let starts = multiply_words(totals, splat_word(start_factor as u32));
            let places = &mut self.starts[segment * BLOCKS..][..BLOCKS];
            // SAFETY: `BLOCKS` words.
            #[allow(unsafe_code)]
            unsafe {
                store_words(places, 0, starts);
            }
            store(&mut self.scales[segment * BLOCKS..], 0, steps.scales);
            self.uneven[segment] = steps.uneven;
            let sides = &mut sides[segment * SIDES..][..SIDES];
            store(sides, 0, sums);
            sides[BLOCKS] = steps.middle * BLOCK as f32;
            for (b, sum) in sides[..BLOCKS].iter_mut().enumerate() {
                let filled = BLOCK as f32 - present(SEGMENT - missing, b);
                *sum -= steps.middle * filled;
            }
        }
        *self.middle = take_middle(&mut sides[..self.uneven.len() * SIDES], x.len());
        *self.side_scale = round_sides(sides, self.sides);
    }

    /// Writes a segment's integers. → the sums of each block's integers, and of its numbers.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn put<const SIGNED: bool>(
        &mut self,
        segment: usize,
        numbers: &[f32; SEGMENT],
        steps: &Steps,
    ) -> (Words, Lanes) {
        let words = &mut self.words[segment * BLOCKS * STEPS..][..BLOCKS * STEPS];
        let (middle, inverses) = (splat(steps.middle), to_array(steps.inverses));
        let mut totals = [splat_word(0); BLOCKS];
        let mut sums = [splat(0.0); BLOCKS];
        for (b, block) in numbers.chunks_exact(BLOCK).enumerate() {
            let inverse = splat(inverses[b]);
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

/// How a segment is rounded.
struct Steps {
    /// What the integer 0 stands for.
    middle: f32,
    /// What an integer stands for, in each block, and the inverse.
    scales: Lanes,
    inverses: Lanes,
    uneven: bool,
}

impl Steps {
    #[inline(always)]
    fn of(numbers: &[f32; SEGMENT]) -> Self {
        // Each block's lowest and highest number, NaN left out.
        let low = of_blocks(numbers, f32::INFINITY, lesser);
        let high = of_blocks(numbers, f32::NEG_INFINITY, greater);
        let reach =
            |middle: f32| greater(subtract(high, splat(middle)), subtract(splat(middle), low));
        // For all of them alike: what is in the middle of all numbers.
        let [lowest, highest] = [extreme(low, lesser), extreme(high, greater)];
        let (middle, half) = ((lowest + highest) / 2.0, (highest - lowest) / 2.0);
        // For each by itself: what is not far from most, of four blocks' middles the mean of the two that lie between.
        let middles = multiply(add(low, high), splat(0.5));
        let outer = extreme(middles, lesser) + extreme(middles, greater);
        let common = (to_array(middles).iter().sum::<f32>() - outer) / 2.0;
        let own = reach(common);
        let squares: f32 = to_array(multiply(own, own)).iter().sum();
        // Not where one of the numbers isn't finite.
        let uneven = squares < UNEVEN * BLOCKS as f32 * half * half;
        let middle = if uneven { common } else { middle };
        // Whatever is not finite shows in the sides; here it would spoil other numbers in silence.
        let middle = if middle.is_finite() { middle } else { 0.0 };
        let reach = match uneven {
            true => own,
            false => splat(extreme(reach(middle), greater)),
        };
        let is_some = at_least(reach, splat(LEAST));
        let of_some = |v: Lanes| from_bits(and(to_bits(v), is_some));
        Self {
            middle,
            scales: of_some(multiply(reach, splat(1.0 / LARGEST))),
            inverses: of_some(divide(splat(LARGEST), reach)),
            uneven,
        }
    }
}

/// The lowest or highest number of each block.
#[inline(always)]
fn of_blocks(numbers: &[f32; SEGMENT], start: f32, which: impl Fn(Lanes, Lanes) -> Lanes) -> Lanes {
    let blocks: [Lanes; BLOCKS] = std::array::from_fn(|b| {
        (b * BLOCK..(b + 1) * BLOCK)
            .step_by(WIDTH)
            .fold(splat(start), |v, i| which(v, load(numbers, i)))
    });
    let [a, b, c, d] = transpose(blocks);
    which(which(a, b), which(c, d))
}

/// The lowest or highest of four. (`f32::min` and `max` would be calls.)
#[inline(always)]
fn extreme(v: Lanes, which: impl Fn(Lanes, Lanes) -> Lanes) -> f32 {
    let [a, b] = regroup(to_bits(v), to_bits(v));
    let two = which(from_bits(a), from_bits(b));
    let [a, b, ..] = to_array(two);
    to_array(which(splat(a), splat(b)))[0]
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
        let left = numbers - segment * SEGMENT;
        for (b, sum) in sides[..BLOCKS].iter_mut().enumerate() {
            *sum -= mean * present(left, b);
        }
        sides[BLOCKS] -= mean * BLOCK as f32;
    }
    mean
}

/// Twice as many sides as words. → what an integer stands for; not finite where one of the sides isn't.
#[allow(unsafe_code)]
fn round_sides(sides: &[f32], words: &mut [u32]) -> f32 {
    let (eights, _) = sides.as_chunks::<{ 2 * WIDTH }>();
    assert!(words.len() >= eights.len() * WIDTH);
    let (mut largest, mut nothing) = (splat(0.0), splat(0.0));
    for eight in eights {
        for v in [load(eight, 0), load(eight, WIDTH)] {
            largest = greater(largest, magnitude(v));
            // Nothing times infinity is NaN.
            nothing = multiply_add(v, splat(0.0), nothing);
        }
    }
    let largest = extreme(largest, greater);
    let (scale, inverse) = match largest >= LEAST {
        true => (largest / LARGEST_SIDE, LARGEST_SIDE / largest),
        false => (0.0, 0.0),
    };
    for (i, eight) in eights.iter().enumerate() {
        let [a, b] = [0, WIDTH].map(|at| integers(load(eight, at), splat(inverse)));
        // SAFETY: there are as many fours as eights, as was checked.
        unsafe { store_words(words, i * WIDTH, narrow(a, b)) };
    }
    scale + to_array(nothing).iter().sum::<f32>()
}
