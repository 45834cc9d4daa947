//! Rows of `x`, rounded to 16-bit integers.

use super::{BLOCK_STEPS, LEAST, NORM, SEGMENT, STEPS};
use crate::kernels::cpu::functions::{MIDDLE, sum, sum_of};
use crate::kernels::cpu::lanes::*;
use crate::kernels::cpu::memory::room;
use crate::kernels::cpu::packed_rows::{BLOCK, BLOCKS};
use crate::kernels::cpu::panel::MatrixView;
use crate::kernels::cpu::parallel::{for_parts, for_threads};
use crate::kernels::cpu::strassen::Operand;

/// Rows of a tile.
pub const ROWS: usize = 3;
/// Groups of rows that a thread rounds at a time.
const SHARE: usize = 6;

/// Rows of numbers less the row's middle, rounded to integers.
pub struct Rounded<'a> {
    rows: usize,
    blocks: usize,
    /// `[rows / ROWS, segments, ROWS, STEPS]`; of the last group as many rows as are left.
    words: &'a mut [u32],
    /// What an integer stands for, `[rows / ROWS, segments, ROWS]`.
    scales: &'a mut [f32],
}

/// Memory that one layer after the other uses.
pub struct Memory {
    words: Vec<u32>,
    scales: Vec<f32>,
    middles: Vec<[f32; 2]>,
}

impl Memory {
    pub const fn new() -> Self {
        Self {
            words: Vec::new(),
            scales: Vec::new(),
            middles: Vec::new(),
        }
    }
}

/// As many rows as a tile has: of all that is rounded.
struct Group<'a, const N: usize> {
    rows: [Rows<'a>; N],
    middles: &'a mut [[f32; 2]],
}

/// Of one.
struct Rows<'a> {
    /// `[segments, rows, STEPS]`
    words: &'a mut [u32],
    /// `[segments, rows]`
    scales: &'a mut [f32],
}

impl<'a> Rounded<'a> {
    /// Quarters of `x` with so many rows and blocks, where it ends before that with zeros, and sums of quarters; and the middles that were taken from
    /// the rows of the upper and the lower half.
    pub fn all<const N: usize>(
        x: MatrixView,
        rows: usize,
        blocks: usize,
        operands: [Operand; N],
        memory: &'a mut Memory,
    ) -> ([Self; N], &'a [[f32; 2]]) {
        let segments = blocks.div_ceil(BLOCKS);
        let count = rows * segments;
        let Memory {
            words,
            scales,
            middles,
        } = memory;
        let mut words = room(words, N * count * STEPS).chunks_exact_mut((count * STEPS).max(1));
        let mut scales = room(scales, N * count).chunks_exact_mut(count.max(1));
        let middles = room(middles, rows);
        let mut all = operands.map(|_| Self {
            rows,
            blocks,
            words: words.next().unwrap_or_default(),
            scales: scales.next().unwrap_or_default(),
        });
        // The same rows of all one after the other, as long as what they are made of is in the cache.
        let mut parts = all.each_mut().map(|rounded| {
            (rounded.words.chunks_mut(ROWS * segments * STEPS))
                .zip(rounded.scales.chunks_mut(ROWS * segments))
        });
        let mut groups: Vec<Group<N>> = (middles.chunks_mut(ROWS))
            .map(|middles| Group {
                rows: parts.each_mut().map(|parts| {
                    let (words, scales) = parts.next().expect("as many as middles");
                    Rows { words, scales }
                }),
                middles,
            })
            .collect();
        // A row of a sum, before it is rounded.
        let mut sums = for_threads(|| vec![0.0; segments * SEGMENT]);
        for_parts(&mut groups, SHARE, &mut sums, |sum, i, groups| {
            for (j, group) in groups.iter_mut().enumerate() {
                for (r, middles) in group.middles.iter_mut().enumerate() {
                    let row = (i * SHARE + j) * ROWS + r;
                    let halves = [row, rows + row].map(|row| {
                        let numbers: &[f32] = if row < x.rows { x.row(row) } else { &[] };
                        (numbers, middle(numbers))
                    });
                    *middles = halves.map(|(_, middle)| middle);
                    for (rows, operand) in group.rows.iter_mut().zip(operands) {
                        let quarter = |quarter: usize| {
                            let (numbers, middle) = halves[quarter / 2];
                            let column = |half: usize| (half * blocks * BLOCK).min(numbers.len());
                            let half = quarter % 2;
                            (&numbers[column(half)..column(half + 1)], middle)
                        };
                        match operand {
                            Operand::Quarter(a) => put(quarter(a), sum),
                            Operand::Sum(a, sign, b) => put_sum(quarter(a), sign, quarter(b), sum),
                        }
                        rows.round(r, segments, sum);
                    }
                }
            }
        });
        drop(groups);
        (all, middles)
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn segments(&self) -> usize {
        self.blocks.div_ceil(BLOCKS)
    }

    /// Words of a segment that may be other than zero.
    pub fn steps(&self, segment: usize) -> usize {
        STEPS.min((self.blocks - segment * BLOCKS) * BLOCK_STEPS)
    }

    /// At most `ROWS` rows from this segment on, their scales, and how many they are.
    pub fn group(&self, group: usize, segment: usize) -> (&[u32], &[f32], usize) {
        let (segments, first) = (self.segments(), group * ROWS);
        let rows = ROWS.min(self.rows - first);
        let at = first * segments + segment * rows;
        (&self.words[at * STEPS..], &self.scales[at..], rows)
    }
}

/// What is taken from a row's numbers before they are rounded: their mean, as for most of them it is what they have in common.
fn middle(numbers: &[f32]) -> f32 {
    let mean = sum(numbers) / numbers.len() as f32;
    // Whatever is not finite shows in its segment's scale; here it would spoil the row's other segments in silence.
    if mean.is_finite() { mean } else { 0.0 }
}

/// Numbers less their middle, filled up with zeros.
fn put((numbers, middle): (&[f32], f32), sum: &mut [f32]) {
    let (sum, rest) = sum.split_at_mut(numbers.len());
    for (sum, number) in sum.iter_mut().zip(numbers) {
        *sum = number - middle;
    }
    rest.fill(0.0);
}

fn put_sum(a: (&[f32], f32), sign: f32, (numbers, middle): (&[f32], f32), sum: &mut [f32]) {
    put(a, sum);
    for (sum, number) in sum.iter_mut().zip(numbers) {
        *sum += sign * (number - middle);
    }
}

impl Rows<'_> {
    fn round(&mut self, row: usize, segments: usize, numbers: &[f32]) {
        let rows = self.scales.len() / segments;
        let (numbers, _) = numbers.as_chunks::<SEGMENT>();
        let (words, _) = self.words.as_chunks_mut::<STEPS>();
        for (s, numbers) in numbers.iter().enumerate() {
            let at = s * rows + row;
            self.scales[at] = round(numbers, &mut words[at]);
        }
    }
}

/// → what an integer stands for; not finite where one of the numbers isn't. Of four numbers the first and the third share a word, and the others.
#[allow(unsafe_code)]
fn round(numbers: &[f32; SEGMENT], words: &mut [u32; STEPS]) -> f32 {
    // No number is larger than the root of the sum of all squares, which is not finite where one of the numbers isn't.
    let norm = sum_of(numbers, |v| multiply(v, v)).sqrt();
    const { assert!(NORM < 32767.0) };
    let scale = norm / NORM;
    let inverse = splat(if scale >= LEAST { 1.0 / scale } else { 0.0 });
    let low_half = constant_word(&[0xffff; WIDTH]);
    let middle = constant(&[MIDDLE; WIDTH]);
    for i in (0..STEPS).step_by(WIDTH) {
        // The lowest bits are the integer.
        let eight = [2 * i, 2 * i + WIDTH]
            .map(|i| to_bits(multiply_add(load(numbers, i), inverse, middle)));
        let [even, odd] = regroup(eight[0], eight[1]);
        // SAFETY: `STEPS` is a multiple of four.
        unsafe { store_words(words, i, or(and(even, low_half), shift_left(odd, 16))) };
    }
    scale
}
