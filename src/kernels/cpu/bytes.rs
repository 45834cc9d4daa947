//! `x · weightᵀ` with a weight of 8 or 4 bits, in products of bytes: relaxed SIMD's instruction.
//!
//! A weight is `n · s + o` for a block of 32 along the input ([`packed`](crate::kernels::packed)). `x` is rounded to `q · t + m` with an
//! integer `q` of 8 bits; each row has a factor `t` and a middle `m` for each segment of four blocks. With `c` the middle of what `n` can be, a segment adds
//!
//! `t · Σ s · Σ (n − c)·q + Σ (o + c·s) · Σ x + m · Σ s · Σ (n − c)`
//!
//! to an output, where the outer sums are those of its blocks. The sums of integers are exact, `Σ x` is that of the numbers themselves, and the smaller
//! `n − c` and `q`, the less the rounding of `x` matters. What is not a sum of integers is a product of floats with five numbers for each segment: its
//! [sides](Rounded::sides).
//! Panels and tiles are those of [`product`](super::product).
//!
//! Only for machines that add four products of bytes exactly: see [`signed`]. Elsewhere [`halves`](super::halves) is faster, and finer.

use std::ops::Range;
use std::sync::Mutex;

use super::epilogue::{LayerOutput, Sums};
use super::functions::MIDDLE;
use super::lanes::*;
use super::memory::room;
use super::panel::{MatrixView, PANEL, VECTORS, columns};
use super::parallel::{for_parts, for_threads};
use super::product::{ROWS, add_product};
use crate::kernels::packed::Dtype;

/// Numbers of a weight that share a scale, and words of as many numbers of `x`.
const BLOCK: usize = Dtype::Q8.block();
const STEPS: usize = BLOCK / 4;
/// Blocks whose numbers share a scale in `x`. (With a scale for each block, whose middle was the row's, products took 1.2 of the time and embeddings of
/// ViT-B/16-224 were no nearer: 9.3e-4 and 9.5e-4, see tests/reference/rounding.py.)
const BLOCKS: usize = 4;
const SEGMENT: usize = BLOCKS * BLOCK;
/// Floats beside a segment's integers.
const SIDES: usize = BLOCKS + 1;
/// Segments of the longest panel: 24 KiB with all that belongs to it, which leaves the first-level cache room for the rows of `x`.
const LONGEST: usize = (6 << 10) / ((BLOCKS * (STEPS + 1) + SIDES) * PANEL);
/// Rows of `x` that pass by a panel.
const CHUNK: usize = 256;
/// Rows of `x` that a thread rounds at a time.
const SHARE: usize = 16;

/// The largest integer that stands for a number of `x`.
const LARGEST: f32 = 127.0;
/// Ranges below this count as zero: their inverses must be finite.
const LEAST: f32 = 1e-30;
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
struct Workspace {
    sums: Vec<f32>,
    rounded: Memory,
}

static WORKSPACE: Mutex<Workspace> = Mutex::new(Workspace {
    sums: Vec::new(),
    rounded: Memory {
        words: Vec::new(),
        starts: Vec::new(),
        scales: Vec::new(),
        sides: Vec::new(),
    },
});

/// A linear layer with a weight packed as `q8` or `q4`.
pub fn linear<const SIGNED: bool>(x: MatrixView, words: &[u32], dtype: Dtype, y: &mut LayerOutput) {
    let weight = Packed::new::<SIGNED>(words, dtype, x.length);
    let mut workspace = WORKSPACE.lock().expect("no product panics");
    let Workspace { sums, rounded } = &mut *workspace;
    let mut panels = for_threads(PanelMemory::default);
    for first in (0..x.rows).step_by(CHUNK) {
        let x = x.rows(first, CHUNK.min(x.rows - first));
        let x = Rounded::new::<SIGNED>(x, weight.start_factor(), rounded);
        let sums = Sums::new(sums, x.rows, columns(0..weight.rows()).collect());
        for_parts(
            sums.values,
            x.rows * PANEL,
            &mut panels,
            |memory, i, sums| {
                sums.fill(0.0);
                for segments in pieces(x.segments) {
                    let panel = &memory.pack::<SIGNED>(&weight, i * PANEL, segments.clone());
                    add_product(
                        x.sides(&segments),
                        panel.sides,
                        &mut [&mut *sums],
                        &[(0, 1.0)],
                    );
                    let mut row = 0;
                    while row + ROWS <= x.rows {
                        tile::<SIGNED, ROWS>(&x, row, panel, segments.clone(), sums);
                        row += ROWS;
                    }
                    for row in row..x.rows {
                        tile::<SIGNED, 1>(&x, row, panel, segments.clone(), sums);
                    }
                }
            },
        );
        y.write(first, &sums);
    }
}

/// Segments whose panel fits the cache.
fn pieces(segments: usize) -> impl Iterator<Item = Range<usize>> {
    let piece = segments.div_ceil(segments.div_ceil(LONGEST));
    (0..segments)
        .step_by(piece)
        .map(move |start| start..segments.min(start + piece))
}

/// Rows of numbers, rounded to integers. Blocks and numbers that the last segment lacks are zero.
struct Rounded<'a> {
    rows: usize,
    segments: usize,
    /// `[rows, segments, BLOCKS, STEPS]`
    words: &'a [u32],
    /// What is taken from a block's sum of products because the weight's numbers are not about zero, `[rows, segments, BLOCKS]`.
    starts: &'a [u32],
    /// What an integer stands for, `[rows, segments]`.
    scales: &'a [f32],
    /// Each block's sum of the numbers themselves, and the segment's middle, `[rows, segments, SIDES]`.
    sides: &'a [f32],
}

/// What [`Rounded`] lies in.
struct Memory {
    words: Vec<u32>,
    starts: Vec<u32>,
    scales: Vec<f32>,
    sides: Vec<f32>,
}

/// One of its rows.
struct Row<'a> {
    words: &'a mut [u32],
    starts: &'a mut [u32],
    scales: &'a mut [f32],
    sides: &'a mut [f32],
}

impl<'a> Rounded<'a> {
    fn new<const SIGNED: bool>(x: MatrixView, start_factor: i32, memory: &'a mut Memory) -> Self {
        let segments = x.length.div_ceil(SEGMENT);
        let count = x.rows * segments;
        let words = room(&mut memory.words, count * BLOCKS * STEPS);
        let starts = room(&mut memory.starts, count * BLOCKS);
        let scales = room(&mut memory.scales, count);
        let sides = room(&mut memory.sides, count * SIDES);
        let mut rows: Vec<Row> = (words.chunks_exact_mut(segments * BLOCKS * STEPS))
            .zip(starts.chunks_exact_mut(segments * BLOCKS))
            .zip(scales.chunks_exact_mut(segments))
            .zip(sides.chunks_exact_mut(segments * SIDES))
            .map(|(((words, starts), scales), sides)| Row {
                words,
                starts,
                scales,
                sides,
            })
            .collect();
        for_parts(
            &mut rows,
            SHARE,
            &mut for_threads(|| [0.0; SEGMENT]),
            |last, i, rows| {
                for (j, row) in rows.iter_mut().enumerate() {
                    row.round::<SIGNED>(x.row(i * SHARE + j), start_factor, last);
                }
            },
        );
        drop(rows);
        Self {
            rows: x.rows,
            segments,
            words,
            starts,
            scales,
            sides,
        }
    }

    fn sides(&self, segments: &Range<usize>) -> MatrixView<'_> {
        let all = MatrixView::of(self.sides, self.segments * SIDES);
        all.columns(segments.start * SIDES, segments.len() * SIDES)
    }
}

impl Row<'_> {
    fn round<const SIGNED: bool>(
        &mut self,
        x: &[f32],
        start_factor: i32,
        last: &mut [f32; SEGMENT],
    ) {
        for (segment, numbers) in x.chunks(SEGMENT).enumerate() {
            let (low, high) = range(numbers);
            let middle = (low + high) / 2.0;
            // Whatever is not finite shows in its block's sum; here it would spoil the others in silence.
            let middle = if middle.is_finite() { middle } else { 0.0 };
            let largest = (high - middle).max(middle - low);
            let (scale, inverse) = match largest >= LEAST {
                true => (largest / LARGEST, LARGEST / largest),
                false => (0.0, 0.0),
            };
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
            let sides = &mut self.sides[segment * SIDES..][..SIDES];
            store(sides, 0, sums);
            sides[BLOCKS] = middle;
            if missing > 0 {
                for (b, sum) in sides[..BLOCKS].iter_mut().rev().enumerate() {
                    *sum -= middle * missing.saturating_sub(b * BLOCK).min(BLOCK) as f32;
                }
            }
        }
    }

    /// Writes a segment's integers. → the sums of each block's integers and of its numbers.
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
                let integers: [Words; 4] = std::array::from_fn(|i| {
                    let v = load(block, (half * 4 + i) * WIDTH);
                    sums[b] = add(sums[b], v);
                    // The lowest bits are the nearest integer.
                    let bits = to_bits(multiply_add(
                        subtract(v, middle),
                        inverse,
                        constant(&[MIDDLE; WIDTH]),
                    ));
                    sum_words(
                        bits,
                        constant_word(const { &[MIDDLE.to_bits().wrapping_neg(); WIDTH] }),
                    )
                });
                let [first, second, third, fourth] = integers;
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

/// The smallest and the largest number, NaN left out.
#[inline(always)]
fn range(numbers: &[f32]) -> (f32, f32) {
    let (fours, rest) = numbers.as_chunks::<WIDTH>();
    let nothing = (splat(f32::INFINITY), splat(f32::NEG_INFINITY));
    let (low, high) = fours.iter().fold(nothing, |(low, high), four| {
        let v = load(four, 0);
        (lesser(low, v), greater(high, v))
    });
    let (low, high) = (to_array(low), to_array(high));
    // `f32::min` and `max` would be calls.
    (
        (low.iter().chain(rest)).fold(f32::INFINITY, |a, b| if *b < a { *b } else { a }),
        (high.iter().chain(rest)).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a }),
    )
}

/// Rows of a packed weight.
struct Packed<'a> {
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
    fn new<const SIGNED: bool>(words: &'a [u32], dtype: Dtype, input: usize) -> Self {
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

    fn rows(&self) -> usize {
        self.words.len() / self.row_words
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

    /// What the sum of a block's integers of `x` is to be multiplied with and added.
    fn start_factor(&self) -> i32 {
        if self.is_shifted { 0 } else { -self.centre }
    }
}

/// [`PANEL`] rows of a weight for some segments. Blocks that the last segment lacks are zero.
struct Panel<'a> {
    /// `[segments, BLOCKS, STEPS, PANEL]`
    numbers: &'a [u32],
    /// `[segments, BLOCKS, PANEL]`
    scales: &'a [f32],
    /// Each block's offset, and the segment's `Σ s · (n − c)`, `[segments, SIDES, PANEL]`.
    sides: &'a [f32],
}

/// What a [`Panel`] lies in.
#[derive(Default)]
struct PanelMemory {
    numbers: Vec<u32>,
    scales: Vec<f32>,
    sides: Vec<f32>,
}

impl PanelMemory {
    /// Takes rows from `first` on; rows that are missing repeat the last one.
    #[allow(unsafe_code)]
    fn pack<const SIGNED: bool>(
        &mut self,
        weight: &Packed,
        first: usize,
        segments: Range<usize>,
    ) -> Panel<'_> {
        let count = segments.len();
        let all_numbers = room(&mut self.numbers, count * BLOCKS * STEPS * PANEL);
        let all_scales = room(&mut self.scales, count * BLOCKS * PANEL);
        let sides = room(&mut self.sides, count * SIDES * PANEL);
        weight.fetch(first, &segments);
        let block_words = weight.dtype.number_words(BLOCK);
        let flipped = splat_word(if weight.is_shifted { 0x8080_8080 } else { 0 });
        let (centre, ones) = (weight.centre as f32, splat_word(ONES));
        let low = splat_word(0x0f0f_0f0f);
        let blocks = weight.input.div_ceil(BLOCK);
        let last = weight.rows() - 1;
        for vector in 0..VECTORS {
            let rows: [&[u32]; WIDTH] = std::array::from_fn(|i| {
                let row = (first + vector * WIDTH + i).min(last);
                &weight.words[row * weight.row_words..][..weight.row_words]
            });
            for (i, segment) in segments.clone().enumerate() {
                let mut totals = splat(0.0);
                for b in 0..BLOCKS {
                    let block = segment * BLOCKS + b;
                    let place = i * BLOCKS + b;
                    let numbers = &mut all_numbers[place * STEPS * PANEL..][..STEPS * PANEL];
                    let scales = &mut all_scales[place * PANEL..][..PANEL];
                    let offsets = &mut sides[(i * SIDES + b) * PANEL..][..PANEL];
                    if block >= blocks {
                        store(scales, vector * WIDTH, splat(0.0));
                        store(offsets, vector * WIDTH, splat(0.0));
                        continue;
                    }
                    let mut at = vector * WIDTH;
                    let mut integers = splat_word(0);
                    for word in (block * block_words..(block + 1) * block_words).step_by(WIDTH) {
                        // SAFETY: rows have `blocks` blocks.
                        let columns = transpose_words(unsafe { load_rows(rows, word) });
                        for words in columns {
                            let (bytes, parts) = match weight.dtype {
                                Dtype::Q4 => {
                                    ([and(words, low), and(shift_right(words, 4), low)], 2)
                                }
                                _ => ([xor(words, flipped); 2], 1),
                            };
                            for bytes in &bytes[..parts] {
                                assert!(at + WIDTH <= numbers.len());
                                // SAFETY: just checked.
                                unsafe { store_words(numbers, at, *bytes) };
                                integers = dot::<SIGNED>(ones, *bytes, integers);
                                at += PANEL;
                            }
                        }
                    }
                    let pairs: [u32; WIDTH] =
                        std::array::from_fn(|i| rows[i][weight.number_words + block]);
                    // SAFETY: four words.
                    let pairs = unsafe { load_words(&pairs, 0) };
                    let scale = from_bits(shift_left(pairs, 16));
                    let offset = from_bits(and(pairs, splat_word(0xffff_0000)));
                    store(scales, vector * WIDTH, scale);
                    store(
                        offsets,
                        vector * WIDTH,
                        multiply_add(splat(centre), scale, offset),
                    );
                    // What fills a block up is 0, or was flipped to −c.
                    let present = BLOCK.min(weight.input - block * BLOCK);
                    let fill = match weight.is_shifted {
                        true => centre * (BLOCK - present) as f32,
                        false => -centre * present as f32,
                    };
                    totals = multiply_add(scale, add(to_f32(integers), splat(fill)), totals);
                }
                let middles = &mut sides[(i * SIDES + BLOCKS) * PANEL..][..PANEL];
                store(middles, vector * WIDTH, totals);
            }
        }
        Panel {
            numbers: all_numbers,
            scales: all_scales,
            sides,
        }
    }
}

/// Adds what some segments give to `sums [rows, PANEL]`, for `R` rows.
///
/// By itself: within a larger function its loops would have to share the registers.
#[inline(never)]
#[allow(unsafe_code)]
fn tile<const SIGNED: bool, const R: usize>(
    x: &Rounded,
    first: usize,
    panel: &Panel,
    segments: Range<usize>,
    sums: &mut [f32],
) {
    let count = segments.len();
    let of_row = |r: usize| (first + r) * x.segments + segments.start;
    let words: [&[u32]; R] =
        std::array::from_fn(|r| &x.words[of_row(r) * BLOCKS * STEPS..][..count * BLOCKS * STEPS]);
    let starts: [&[u32]; R] =
        std::array::from_fn(|r| &x.starts[of_row(r) * BLOCKS..][..count * BLOCKS]);
    let scales: [&[f32]; R] = std::array::from_fn(|r| &x.scales[of_row(r)..][..count]);
    let sums = &mut sums[first * PANEL..][..R * PANEL];
    assert!(panel.numbers.len() >= count * BLOCKS * STEPS * PANEL);
    assert!(panel.scales.len() >= count * BLOCKS * PANEL);
    // Of a segment. In memory, as registers hold integers.
    let mut parts = [[0.0; PANEL]; R];
    for segment in 0..count {
        for block in segment * BLOCKS..(segment + 1) * BLOCKS {
            // SAFETY: `block` is below `count · BLOCKS`, for which all slices were checked above.
            let mut integers: [[Words; VECTORS]; R] = std::array::from_fn(|r| {
                [splat_word(unsafe { *starts[r].get_unchecked(block) }); VECTORS]
            });
            // In the order of `product::tile`.
            for step in block * STEPS..(block + 1) * STEPS {
                // SAFETY: the same.
                let a: [Words; R] =
                    std::array::from_fn(|r| splat_word(unsafe { *words[r].get_unchecked(step) }));
                for v in 0..VECTORS {
                    // SAFETY: the same.
                    let w = unsafe { load_words(panel.numbers, step * PANEL + v * WIDTH) };
                    for (integers, a) in integers.iter_mut().zip(a) {
                        integers[v] = dot::<SIGNED>(a, w, integers[v]);
                    }
                }
            }
            let mut finish = |v: usize| {
                // SAFETY: the same, and there are `PANEL` parts.
                let scale = unsafe { load_unchecked(panel.scales, block * PANEL + v * WIDTH) };
                for (integers, parts) in integers.iter().zip(&mut parts) {
                    unsafe {
                        let part = load_anew(parts, v * WIDTH);
                        store_unchecked(
                            parts,
                            v * WIDTH,
                            multiply_add(to_f32(integers[v]), scale, part),
                        );
                    }
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
        for (r, parts) in parts.iter_mut().enumerate() {
            // SAFETY: `segment` is below `count`, and there are `R · PANEL` sums.
            let scale = splat(unsafe { *scales[r].get_unchecked(segment) });
            for v in (0..PANEL).step_by(WIDTH) {
                unsafe {
                    let (part, sum) = (load_anew(parts, v), load_anew(sums, r * PANEL + v));
                    store_unchecked(sums, r * PANEL + v, multiply_add(part, scale, sum));
                    store_unchecked(parts, v, splat(0.0));
                }
            }
        }
    }
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
