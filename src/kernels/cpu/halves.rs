//! `x · weightᵀ` with a packed weight, in products of 16-bit integers, which every browser has an instruction for.
//!
//! Both sides are rounded in segments of 64 numbers along the input: `x`, less the mean `m` of its row, to `p · t`, a row of the weight to `q · s`. A
//! segment adds `t · s · Σ p·q` to an output, whose sum of integers is exact, and `m` times the sum of the weights themselves is added in the end. `t` and
//! `s` are such that no sum overflows 32 bits, whatever the numbers are. That leaves steps some 50 times finer than those of `q8`: what is lost is
//! far below what packing the weight lost.
//!
//! Panels are those of [`product`](super::product) in two parts, because a tile of 3 × 12 outputs is what fits a browser's fifteen vector
//! registers where products can't be added in one instruction.

use std::ops::Range;
use std::sync::Mutex;

use super::epilogue::{LayerOutput, Sums};
use super::functions::{MIDDLE, sum};
use super::lanes::*;
use super::panel::{MatrixView, PANEL, columns};
use super::parallel::{for_chunks, for_parts, for_threads};
use crate::kernels::packed::Dtype;

/// Numbers that share a scale.
const SEGMENT: usize = 64;
/// Words of a segment, with two numbers each.
const STEPS: usize = SEGMENT / 2;
/// Rows of a tile.
const ROWS: usize = 3;
/// Vectors of a tile's row.
const VECTORS: usize = 3;
/// Columns of a tile.
const COLUMNS: usize = VECTORS * WIDTH;
/// Tiles beside each other in a panel.
const PARTS: usize = PANEL / COLUMNS;
/// Segments of the longest panel: 24 KiB, which leaves the first-level cache room for the rows of `x`.
const LONGEST: usize = (6 << 10) / (STEPS * PANEL);
/// Rows of `x` that pass by a panel.
const CHUNK: usize = 256;
/// Rows of `x` that a thread rounds at a time, a multiple of `ROWS`.
const SHARE: usize = 18;
/// What the bits of an f16, in the place of those of an f32, are to be multiplied with: the exponent's bias differs by 112.
const HALF: f32 = f32::from_bits((127 + 112) << 23);
/// A block's numbers in `q8` and `q4`.
const BLOCK: usize = Dtype::Q8.block();
/// The largest roots of the sums of a segment's squared integers, for `x` and for a weight. By Cauchy and Schwarz no sum of products is above the
/// product of the two, which with half an integer of rounding for each number is still less than 2³¹.
const NORM: f32 = 35_300.0;
const WEIGHT_NORM: f32 = 60_800.0;
/// Scales below this count as zero: inverses and squares must be finite.
const LEAST: f32 = 1e-18;

/// Memory that one layer after the other uses.
static SUMS: Mutex<Vec<f32>> = Mutex::new(Vec::new());

/// A linear layer with a weight packed as `f16`, `q8` or `q4`.
pub fn linear(x: MatrixView, words: &[u32], dtype: Dtype, y: &mut LayerOutput) {
    let input = x.length;
    let weight = Packed {
        words,
        dtype,
        input,
        row_words: dtype.row_words(input),
        number_words: dtype.number_words(input),
    };
    let output = words.len() / weight.row_words;
    let segments = input.div_ceil(SEGMENT);
    let piece = segments.div_ceil(segments.div_ceil(LONGEST));
    let mut panels = for_threads(|| Panel {
        numbers: vec![0; piece * STEPS * PANEL],
        scales: vec![0.0; piece * PANEL],
        totals: [0.0; PANEL],
    });
    let mut sums = SUMS.lock().expect("no product panics");
    for first in (0..x.rows).step_by(CHUNK) {
        let x = Rounded::new(x.rows(first, CHUNK.min(x.rows - first)));
        let sums = Sums::new(&mut sums, x.middles.len(), columns(0..output).collect());
        for_parts(
            sums.values,
            x.middles.len() * PANEL,
            &mut panels,
            |panel, i, sums| {
                sums.fill(0.0);
                panel.totals.fill(0.0);
                for start in (0..segments).step_by(piece) {
                    let piece = start..segments.min(start + piece);
                    panel.pack(&weight, i * PANEL, piece.clone());
                    add_product(&x, panel, piece, sums);
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
struct Rounded {
    segments: usize,
    /// `[rows / ROWS, segments, STEPS, ROWS]`; of the last group as many rows as are left.
    words: Vec<u32>,
    /// What an integer stands for, `[rows / ROWS, segments, ROWS]`.
    scales: Vec<f32>,
    /// What the integer 0 stands for, `[rows]`.
    middles: Vec<f32>,
}

/// As many rows of [`Rounded`] as a tile has.
struct Group<'a> {
    words: &'a mut [u32],
    scales: &'a mut [f32],
    middles: &'a mut [f32],
}

impl Rounded {
    fn new(x: MatrixView) -> Self {
        let segments = x.length.div_ceil(SEGMENT);
        let mut rounded = Self {
            segments,
            words: vec![0; x.rows * segments * STEPS],
            scales: vec![0.0; x.rows * segments],
            middles: vec![0.0; x.rows],
        };
        let parts = (rounded.words.chunks_mut(ROWS * segments * STEPS))
            .zip(rounded.scales.chunks_mut(ROWS * segments))
            .zip(rounded.middles.chunks_mut(ROWS));
        let mut groups: Vec<Group> = parts
            .map(|((words, scales), middles)| Group {
                words,
                scales,
                middles,
            })
            .collect();
        for_chunks(&mut groups, SHARE / ROWS, |i, groups| {
            for (j, group) in groups.iter_mut().enumerate() {
                for row in 0..group.middles.len() {
                    group.round(row, x.row(i * SHARE + j * ROWS + row));
                }
            }
        });
        rounded
    }
}

impl Group<'_> {
    #[allow(unsafe_code)]
    fn round(&mut self, row: usize, x: &[f32]) {
        let rows = self.middles.len();
        let middle = sum(x) / x.len() as f32;
        // Whatever is not finite shows in its segment's scale; here it would spoil the row's other segments in silence.
        let middle = if middle.is_finite() { middle } else { 0.0 };
        self.middles[row] = middle;
        let parts =
            (self.words.chunks_exact_mut(STEPS * rows)).zip(self.scales.chunks_exact_mut(rows));
        for (numbers, (steps, scales)) in x.chunks(SEGMENT).zip(parts) {
            // What fills the last segment up is the integer 0.
            let eights = || {
                let eights = numbers
                    .chunks(2 * WIDTH)
                    .map(|eight| eight_of(eight, middle));
                eights.map(|eight| eight.map(|v| subtract(v, splat(middle))))
            };
            let (mut largest, mut squares) = (splat(0.0), splat(0.0));
            for v in eights().flatten() {
                largest = greater(largest, magnitude(v));
                squares = multiply_add(v, v, squares);
            }
            let largest =
                (to_array(largest).into_iter()).fold(0.0, |a, b| if b > a { b } else { a });
            // Not finite where one of the numbers isn't.
            let norm = to_array(squares).iter().sum::<f32>().sqrt();
            let scale = (norm / NORM).max(largest / 32767.0);
            let inverse = splat(if scale >= LEAST { 1.0 / scale } else { 0.0 });
            let mut words = [0; STEPS];
            for (i, eight) in eights().enumerate() {
                let [low, high] = eight.map(|v| nearest(multiply_add(v, inverse, splat(MIDDLE))));
                let words = &mut words[i * WIDTH..][..WIDTH];
                // SAFETY: there are four.
                unsafe { store_words(words, 0, interleave_halves(narrow(low, high))) };
            }
            for (step, word) in steps.chunks_exact_mut(rows).zip(words) {
                step[row] = word;
            }
            // Nothing times infinity is NaN.
            scales[row] = scale + 0.0 * norm;
        }
    }
}

/// The integer nearest to what [`MIDDLE`] was added to.
#[inline(always)]
fn nearest(v: Lanes) -> Words {
    sum_words(to_bits(v), splat_word(MIDDLE.to_bits().wrapping_neg()))
}

#[inline(always)]
fn magnitude(v: Lanes) -> Lanes {
    from_bits(and(to_bits(v), splat_word(0x7fff_ffff)))
}

/// At most eight numbers, filled up with `fill`.
#[inline(always)]
fn eight_of(numbers: &[f32], fill: f32) -> [Lanes; 2] {
    let of = |eight: &[f32; 2 * WIDTH]| [load(eight, 0), load(eight, WIDTH)];
    match numbers.first_chunk() {
        Some(eight) => of(eight),
        None => {
            let mut eight = [fill; 2 * WIDTH];
            eight[..numbers.len()].copy_from_slice(numbers);
            of(&eight)
        }
    }
}

/// Rows of a packed weight.
struct Packed<'a> {
    words: &'a [u32],
    dtype: Dtype,
    input: usize,
    row_words: usize,
    number_words: usize,
}

/// [`PANEL`] rows of a weight for some segments, rounded to integers.
struct Panel {
    /// `[PARTS, segments, STEPS, COLUMNS]`
    numbers: Vec<u32>,
    /// What an integer stands for, `[PARTS, segments, COLUMNS]`.
    scales: Vec<f32>,
    /// `Σ s·q` over all segments so far.
    totals: [f32; PANEL],
}

impl Panel {
    /// Takes rows from `first` on; rows that are missing repeat the last one.
    fn pack(&mut self, weight: &Packed, first: usize, segments: Range<usize>) {
        let last = weight.words.len() / weight.row_words - 1;
        let count = segments.len();
        for vector in 0..PANEL / WIDTH {
            let (part, within) = (vector / VECTORS, vector % VECTORS * WIDTH);
            let rows: [&[u32]; WIDTH] = std::array::from_fn(|i| {
                let row = (first + vector * WIDTH + i).min(last);
                &weight.words[row * weight.row_words..][..weight.row_words]
            });
            let numbers = &mut self.numbers[part * count * STEPS * COLUMNS + within..];
            let scales = &mut self.scales[part * count * COLUMNS + within..];
            let mut totals = load(&self.totals, vector * WIDTH);
            for (i, segment) in segments.clone().enumerate() {
                let numbers = &mut numbers[i * STEPS * COLUMNS..];
                let [scale, total] = weight.pack(rows, segment, numbers);
                store(scales, i * COLUMNS, scale);
                totals = add(totals, total);
            }
            store(&mut self.totals, vector * WIDTH, totals);
        }
    }
}

impl Packed<'_> {
    /// Rounds a segment of four rows to integers, a vector in each `COLUMNS` of `numbers`. → what an integer stands for, and the sums of the
    /// numbers themselves.
    #[inline(always)]
    fn pack(&self, rows: [&[u32]; WIDTH], segment: usize, numbers: &mut [u32]) -> [Lanes; 2] {
        let range = segment * SEGMENT..self.input.min((segment + 1) * SEGMENT);
        let scale = self.scale(rows, range.clone());
        let is_some = at_least(scale, splat(LEAST));
        let inverse = from_bits(and(to_bits(divide(splat(1.0), scale)), is_some));
        let put = Put { numbers, at: 0 };
        let total = match self.dtype {
            Dtype::Q4 => self.round_blocks(rows, range, inverse, 4096.0, put, |words, put| {
                let high = splat_word(0xf000_f000);
                put(shift_halves_left(words, 12));
                put(and(shift_halves_left(words, 4), high));
                put(and(shift_halves_left(words, 8), high));
                put(and(words, high));
            }),
            Dtype::Q8 => self.round_blocks(rows, range, inverse, 256.0, put, |words, put| {
                put(shift_halves_left(words, 8));
                put(and(words, splat_word(0xff00_ff00)));
            }),
            _ => self.round_halves(rows, range, inverse, put),
        };
        [scale, total]
    }

    /// Numbers with a scale and an offset for each block: `pairs` gets four words of each row, and hands on two of their numbers, times `unit`.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn round_blocks(
        &self,
        rows: [&[u32]; WIDTH],
        range: Range<usize>,
        inverse: Lanes,
        unit: f32,
        mut put: Put,
        pairs: impl Fn(Words, &mut dyn FnMut(Words)),
    ) -> Lanes {
        // The products are rounded to half an integer, as the offset is, and their sum once more.
        const PARTS: f32 = 2.0;
        let block_words = self.dtype.number_words(1);
        // Less the middle of what a number can be, it is a signed half.
        let (sign, centre) = (splat_word(0x8000_8000), 32768.0 / unit);
        let both = |v: Lanes| {
            let half = nearest(add(v, splat(MIDDLE)));
            or(and(half, splat_word(0xffff)), shift_left(half, 16))
        };
        let mut total = splat(0.0);
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            let [scale, offset] = self.affine(rows, block);
            let offset = multiply_add(scale, splat(centre), offset);
            let parts = multiply(inverse, splat(PARTS));
            let factor = both(multiply(multiply(scale, parts), splat(32768.0 / unit)));
            let added = both(multiply_add(offset, parts, splat(PARTS / 2.0)));
            let mut integers = splat_word(0);
            for word in (block * block_words..(block + 1) * block_words).step_by(WIDTH) {
                // SAFETY: a row's words are filled up to whole blocks.
                let columns =
                    rows.map(|row| unsafe { load_words(&row[..self.number_words], word) });
                for words in transpose_words(columns) {
                    pairs(words, &mut |two| {
                        let two = xor(two, sign);
                        integers = dot_halves(two, splat_word(0x0001_0001), integers);
                        let sum = sum_halves(multiply_halves(two, factor), added);
                        put.next(shift_halves_right(sum, 1));
                    });
                }
            }
            // What fills the last block up are zeros, less the middle.
            let present = BLOCK.min(self.input - block * BLOCK);
            let filled = splat(centre * (BLOCK - present) as f32);
            let numbers = multiply_add(to_f32(integers), splat(1.0 / unit), filled);
            total = multiply_add(numbers, scale, total);
            total = multiply_add(splat(present as f32), offset, total);
        }
        total
    }

    /// Numbers in f16.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn round_halves(
        &self,
        rows: [&[u32]; WIDTH],
        range: Range<usize>,
        inverse: Lanes,
        mut put: Put,
    ) -> Lanes {
        let low_half = splat_word(0xffff);
        let mut total = splat(0.0);
        let mut integer = |high_half: Words| {
            let bits = and(shift_right_signed(high_half, 3), splat_word(0x8fff_e000));
            let value = multiply(from_bits(bits), splat(HALF));
            total = add(total, value);
            to_bits(multiply_add(value, inverse, splat(MIDDLE)))
        };
        for word in (range.start / 2..range.end.div_ceil(8) * 4).step_by(WIDTH) {
            // SAFETY: a row's words are filled up to whole vectors.
            let columns = rows.map(|row| unsafe { load_words(&row[..self.number_words], word) });
            let [a, b, c, d] = transpose_words(columns);
            for two in [[a, b], [c, d]] {
                let evens = two.map(|words| integer(shift_left(words, 16)));
                let odds = two.map(&mut integer);
                for [low, high] in [evens, odds] {
                    put.next(or(and(low, low_half), shift_left(high, 16)));
                }
            }
        }
        total
    }

    /// What an integer stands for in each row's segment; not finite where one of its numbers isn't.
    #[allow(unsafe_code)]
    fn scale(&self, rows: [&[u32]; WIDTH], range: Range<usize>) -> Lanes {
        if self.dtype == Dtype::F16 {
            let words = range.start / 2..range.end.div_ceil(8) * 4;
            let sums = rows.map(|row| {
                let row = &row[..self.number_words];
                let (mut squares, mut largest) = (splat(0.0), splat(0.0));
                for word in words.clone().step_by(WIDTH) {
                    // SAFETY: a row's words are filled up to whole vectors.
                    let words = unsafe { load_words(row, word) };
                    for bits in [shift_left(words, 13), shift_right(words, 3)] {
                        let v =
                            multiply(from_bits(and(bits, splat_word(0x0fff_e000))), splat(HALF));
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
            return from_bits(or(to_bits(scale), infinite));
        }
        let levels = if self.dtype == Dtype::Q8 { 255.0 } else { 15.0 };
        let mut largest = splat(0.0);
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            let [scale, offset] = self.affine(rows, block);
            let end = multiply_add(scale, splat(levels), offset);
            largest = greater(greater(largest, magnitude(offset)), magnitude(end));
            // NaN where one of them is not finite.
            largest = multiply_add(add(offset, end), splat(0.0), largest);
        }
        // The norm if all numbers are the largest. Of the shortest rows there are 32 at most: no fewer, as twice an integer is a half, and so is the
        // factor that makes it of a number.
        let root = if self.input <= BLOCK { 5.68 } else { 8.0 };
        multiply(largest, splat(root / WEIGHT_NORM))
    }

    /// Scale and offset of a block of each row.
    #[allow(unsafe_code)]
    fn affine(&self, rows: [&[u32]; WIDTH], block: usize) -> [Lanes; 2] {
        let pairs = rows.map(|row| row[self.number_words + block]);
        // SAFETY: four words.
        let pairs = unsafe { load_words(&pairs, 0) };
        let scale = from_bits(shift_left(pairs, 16));
        let offset = from_bits(and(pairs, splat_word(0xffff_0000)));
        [scale, offset]
    }
}

/// Where a segment's integers go, in the order in which [`Group::round`] pairs them: the numbers 0 and 2 of four, then 1 and 3. What is left of
/// a segment that ends early keeps what was there: `x` has zeros for it.
struct Put<'a> {
    numbers: &'a mut [u32],
    at: usize,
}

impl Put<'_> {
    #[inline(always)]
    #[allow(unsafe_code)]
    fn next(&mut self, pairs: Words) {
        assert!(self.at + WIDTH <= self.numbers.len());
        // SAFETY: just checked.
        unsafe { store_words(self.numbers, self.at, pairs) };
        self.at += COLUMNS;
    }
}

/// Adds what some segments give to `sums [rows, PANEL]`.
///
/// By itself: within a larger function its loops would have to share the registers.
#[inline(never)]
fn add_product(x: &Rounded, panel: &Panel, segments: Range<usize>, sums: &mut [f32]) {
    let count = segments.len();
    for (group, sums) in sums.chunks_mut(ROWS * PANEL).enumerate() {
        for part in 0..PARTS {
            let tile = Tile {
                words: &x.words[group * ROWS * x.segments * STEPS..],
                scales: &x.scales[group * ROWS * x.segments..],
                numbers: &panel.numbers[part * count * STEPS * COLUMNS..],
                number_scales: &panel.scales[part * count * COLUMNS..],
                segments: segments.clone(),
            };
            let sums = &mut sums[part * COLUMNS..];
            const { assert!(ROWS == 3) };
            match sums.len().div_ceil(PANEL) {
                1 => tile.add::<1>(sums),
                2 => tile.add::<2>(sums),
                _ => tile.add::<ROWS>(sums),
            }
        }
    }
}

/// Some rows of `x`, from their first segment on, and some columns of a panel.
struct Tile<'a> {
    words: &'a [u32],
    scales: &'a [f32],
    numbers: &'a [u32],
    number_scales: &'a [f32],
    segments: Range<usize>,
}

impl Tile<'_> {
    /// Adds the product of `R` rows to `sums [R, PANEL]`.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn add<const R: usize>(&self, sums: &mut [f32]) {
        let count = self.segments.len();
        let words = &self.words[self.segments.start * STEPS * R..][..count * STEPS * R];
        let scales = &self.scales[self.segments.start * R..][..count * R];
        assert!(self.numbers.len() >= count * STEPS * COLUMNS);
        assert!(self.number_scales.len() >= count * COLUMNS);
        assert!(sums.len() >= (R - 1) * PANEL + COLUMNS);
        let (numbers, _) = self.numbers.as_chunks::<COLUMNS>();
        let (words, _) = words.as_chunks::<R>();
        let segments = words.chunks_exact(STEPS).zip(numbers.chunks_exact(STEPS));
        for (s, ((words, numbers), scales)) in segments.zip(scales.chunks_exact(R)).enumerate() {
            let mut integers = [[splat_word(0); VECTORS]; R];
            for (words, numbers) in words.iter().zip(numbers) {
                // SAFETY: there are `VECTORS` vectors.
                let weights: [Words; VECTORS] =
                    std::array::from_fn(|v| unsafe { load_words(numbers, v * WIDTH) });
                for (word, integers) in words.iter().zip(&mut integers) {
                    let word = splat_word(*word);
                    for (sum, weight) in integers.iter_mut().zip(weights) {
                        *sum = dot_halves(word, weight, *sum);
                    }
                }
            }
            for (r, integers) in integers.into_iter().enumerate() {
                for (v, integers) in integers.into_iter().enumerate() {
                    let at = r * PANEL + v * WIDTH;
                    let part = multiply(to_f32(integers), splat(scales[r]));
                    // SAFETY: `s` is below `count`, and the sums have `R` rows: both were checked above.
                    unsafe {
                        let scale = load_unchecked(self.number_scales, s * COLUMNS + v * WIDTH);
                        let sum = multiply_add(part, scale, load_anew(sums, at));
                        store_unchecked(sums, at, sum);
                    }
                }
            }
        }
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;
    use crate::kernels::cpu::epilogue::{self, EpilogueRef};
    use crate::kernels::{Numbers, PackedMatrix};

    const PACKED: [Dtype; 3] = [Dtype::F16, Dtype::Q8, Dtype::Q4];

    fn outputs(x: &[f32], weight: &PackedMatrix) -> Vec<f32> {
        let x = MatrixView::of(x, weight.input());
        let bias = vec![0.0; weight.rows()];
        epilogue::output(x.rows, &bias, EpilogueRef::None, |y| {
            linear(x, weight.words(), weight.dtype(), y);
        })
    }

    /// The largest error of a product in units of a number's typical contribution.
    fn error(x: &[f32], weight: &PackedMatrix, unit: f64) -> f64 {
        let (input, count) = (weight.input(), weight.rows());
        let values = weight.unpack();
        let mut worst = 0.0_f64;
        for (i, y) in outputs(x, weight).into_iter().enumerate() {
            let x = &x[i / count * input..][..input];
            let weight = &values[i % count * input..][..input];
            let products = x.iter().zip(weight);
            let expected: f64 = products.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            worst = worst.max((f64::from(y) - expected).abs());
        }
        worst / unit / (input as f64).sqrt()
    }

    #[test]
    fn equals_the_definition_as_far_as_rounding_allows() {
        for dtype in PACKED {
            for (rows, input, outputs) in [
                (1, 4, 1),
                (3, 36, 13),
                (4, 2080, 24),
                (7, 64, 12),
                (5, 37, 7),
                (2, 3, 5),
                (259, 32, 25),
            ] {
                let number = |i: usize| ((i * 7919) % 1009) as f32 / 504.5 - 1.0;
                // On one side of zero, mostly.
                let x: Vec<f32> = (0..rows * input).map(|i| number(i) * 3.0 + 2.0).collect();
                let weight: Vec<f32> = (0..outputs * input).map(|i| number(i + 31)).collect();
                let worst = error(&x, &PackedMatrix::pack(dtype, input, &weight), 1.0);
                assert!(
                    worst < 4e-4,
                    "{dtype:?} {rows}×{input}→{outputs}: {worst:e}"
                );
            }
        }
    }

    #[test]
    fn products_of_random_shapes_and_sizes_of_numbers() {
        let mut numbers = Numbers(31);
        for case in 0..80 {
            let dtype = numbers.one_of(&PACKED);
            let rows = numbers.within(1..=9);
            let input = match case {
                0..4 => [1, 63, 64, 1100][case],
                _ => numbers.within(1..=300),
            };
            let outputs = numbers.within(1..=60);
            let size = numbers.one_of(&[1.0, 1e-3, 300.0]);
            let x: Vec<f32> = (numbers.values(rows * input).iter())
                .map(|v| v * size)
                .collect();
            // A segment may have weights that are much larger than the others'.
            let large = numbers.within(0..=input - 1);
            let mut weight = numbers.values(outputs * input);
            for row in weight.chunks_exact_mut(input) {
                row[large] *= 8.0;
            }
            let packed = PackedMatrix::pack(dtype, input, &weight);
            let worst = error(&x, &packed, f64::from(size));
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
                    let worst = error(&x[..input], &packed, 1e10 * (input as f64).sqrt());
                    assert!(worst < 1e-2, "{dtype:?} {input}: {worst:e}");
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_not_finite_show_in_their_rows_and_nowhere_else() {
        for input in [64, 130, 37] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let weight = PackedMatrix::pack(Dtype::Q8, input, &vec![0.25; input * 12]);
                let mut x = vec![1.0; 5 * input];
                x[3 * input + input / 2] = bad;
                let expected = input as f32 / 4.0;
                for (i, y) in outputs(&x, &weight).into_iter().enumerate() {
                    match i / 12 {
                        3 => assert!(!y.is_finite(), "{bad} of {input}: {y}"),
                        _ => assert!((y - expected).abs() < 1e-3, "{bad} of {input}: {y}"),
                    }
                }
            }
        }
    }

    #[test]
    fn damaged_weights_show_in_their_columns_and_nowhere_else() {
        let input = 128;
        for (dtype, at, bits) in [
            (Dtype::F16, 17, 0x7c00_0000),
            (Dtype::F16, 63, 0x0000_fe00),
            (Dtype::F16, 5, 0x7fff_7fff),
            (Dtype::Q8, 33, 0x3f80_7f80),
            (Dtype::Q8, 34, 0xff80_3f80),
            (Dtype::Q4, 18, 0x7fc0_3f80),
            (Dtype::Q4, 19, 0x3f80_7fff),
        ] {
            let packed = PackedMatrix::pack(dtype, input, &vec![0.25; input * 30]);
            let length = dtype.row_words(input);
            let mut words = packed.words().to_vec();
            words[13 * length + at] = bits;
            let damaged = PackedMatrix::from_words(dtype, input, words);
            let x = [1.0; 4 * 128];
            for (i, y) in outputs(&x, &damaged).into_iter().enumerate() {
                match i % 30 {
                    13 => assert!(!y.is_finite(), "{dtype:?} {at}: {y}"),
                    _ => assert!((y - 32.0).abs() < 0.05, "{dtype:?} {at}: {y}"),
                }
            }
        }
    }
}
