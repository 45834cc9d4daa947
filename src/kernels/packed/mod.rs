//! How weights are held: as f32, or packed into fewer bits that the matrix products read as they are.
//!
//! # The format
//! A weight `[output, input]` is packed row by row into 32-bit words, `[output, words]`. A row is its numbers, then its
//! scales; both parts are filled up with zeros to whole groups of four words, so that a GPU can read them as vectors.
//!
//! | | numbers | scales | bits per weight |
//! |---|---|---|---|
//! | `f16` | two per word, the first in the low half | none | 16 |
//! | `q8` | four per word, the first in the lowest byte: `w = n · s + o`, `n` in 0…255 | `s` (low half) and `o` (high half) as bf16 for each block of 32 along the input | 9 |
//! | `q4` | eight per word: byte `b` holds number `b` in its low half and number `4 + b` in its high half: `w = n · s + o`, `n` in 0…15 | as `q8` | 5 |
//!
//! The last block of a row may be shorter than the others; zeros fill it up. bf16 has the range of f32, so that no weight
//! is too small or too large, and takes one shift to read. An affine scheme needs 13 % smaller steps than a symmetric one for blocks of 32
//! normal numbers, and stores no more, because a word per block is read either way.
//!
//! # Error bounds
//! With `m` the largest magnitude of a block and `r` the distance between its largest and its smallest number:
//! - `f16`: `|w|/2048`, and 3·10⁻⁸ for the smallest numbers. From ±65520 on they would be infinite: loading and converting refuse them.
//! - `q8`: `o` is the smallest number rounded down and `s` covers the rest, so every number is within `r/500 + m/60000` of the original.
//! - `q4`: the pair `(s, o)` of least squared error among a few that cover the block wholly or nearly. Its squared error over a
//!   block is never more than that of the pair that covers it wholly, which is within `r/29 + m/3500` for every number.
//!
//! A number that is not finite makes its whole block NaN, so that damage is noticed behind any product.
//!
//! # What is packed
//! The weights of the linear layers and the patch convolution, and the token table on the host. Norms, biases, position embeddings,
//! the probe and the two numbers of the logit stay f32: they are a thousandth of a model.
//! [`weight_dtype`](crate::checkpoint::weight_dtype) says which weights are held finer than asked for.
//!
//! # Calibrated q4
//! [`convert`](crate::checkpoint::convert()) rounds `q4` better than a loader can: with [`InputMoments`], the second moments of what goes into a
//! weight, each number makes up for the errors of those before it in its row (GPTQ), and the biases take up the mean of what still differs.
//! The bits are the same ones; for a single number the bound above doesn't hold any more, as the products are what comes nearer.
//! [`calibrate`](crate::checkpoint::calibrate()) sends built-in pictures and words through the model for it.
//!
//! # Accuracy
//! Of two whole ViT-B/16-224 with random weights against transformers in f32: the worse of them, over 100 crops of four photographs × 20
//! labels, as `tests/reference/parity.py --crops 100 --dtype D` measures it (`--reference` for a converted folder):
//!
//! | | largest error of a logit | root mean square | same best label |
//! |---|---|---|---|
//! | `f16` | 0.02 | 0.006 | 98 of 100 |
//! | `q8` | 0.40 | 0.11 | 97 |
//! | `q4`, calibrated | 0.80 | 0.24 | 94 |
//! | `q4`, packed at load | 1.59 | 0.65 | 92 |
//!
//! Random weights are hard: the best of the 20 labels is ahead of the next by 0.9 only (median), and by less than 0.04 in 2 to 5 of the
//! pictures, which is why even `f16` may change it; and errors of early layers grow.

mod calibrated;

use burn::backend::Dispatch;
use burn::backend::ops::IntTensorOps;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use half::{bf16, f16};

use super::cpu::halves_to_f32;
pub use calibrated::InputMoments;

/// How weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit floats, exactly as they are in the checkpoint.
    F32,
    /// 16-bit floats.
    F16,
    /// 8 bits, with a scale and an offset for each block of 32.
    Q8,
    /// 4 bits, with a scale and an offset for each block of 32.
    Q4,
}

impl Dtype {
    /// All, from the largest to the smallest.
    pub const ALL: [Dtype; 4] = [Dtype::F32, Dtype::F16, Dtype::Q8, Dtype::Q4];

    /// The word of the JavaScript API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Q8 => "q8",
            Dtype::Q4 => "q4",
        }
    }

    /// The one that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.as_str() == word)
    }

    /// Numbers that share a scale. In f16 none do; the number is what four words hold.
    pub(crate) const fn block(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 => 8,
            Dtype::Q8 | Dtype::Q4 => 32,
        }
    }

    /// Numbers in a word.
    const fn per_word(self) -> usize {
        match self {
            Dtype::F32 => 1,
            Dtype::F16 => 2,
            Dtype::Q8 => 4,
            Dtype::Q4 => 8,
        }
    }

    /// Words of a row's numbers.
    pub(crate) const fn number_words(self, input: usize) -> usize {
        input.div_ceil(self.block()) * self.block() / self.per_word()
    }

    /// Words of a row.
    pub(crate) const fn row_words(self, input: usize) -> usize {
        let scales = match self {
            Dtype::F32 | Dtype::F16 => 0,
            Dtype::Q8 | Dtype::Q4 => input.div_ceil(self.block()).next_multiple_of(4),
        };
        self.number_words(input) + scales
    }
}

/// A packed matrix in the host's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedMatrix {
    dtype: Dtype,
    input: usize,
    words: Vec<u32>,
}

impl PackedMatrix {
    /// Packs `values [rows, input]`.
    pub fn pack(dtype: Dtype, input: usize, values: &[f32]) -> Self {
        let mut packer = Packer::new(dtype, values.len() / input, input);
        packer.push(values);
        packer.finish()
    }

    /// The matrix of which `words` are the rows, one after the other.
    pub(crate) fn from_words(dtype: Dtype, input: usize, words: Vec<u32>) -> Self {
        debug_assert!(words.len().is_multiple_of(dtype.row_words(input)));
        Self {
            dtype,
            input,
            words,
        }
    }

    /// How its numbers are held.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its length along the summed dimension.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.words.len() / self.dtype.row_words(self.input)
    }

    /// The words, row by row.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The same, alone.
    pub(crate) fn into_words(self) -> Vec<u32> {
        self.words
    }

    /// Row `row`'s numbers.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let words = self.dtype.row_words(self.input);
        let mut values = vec![0.0; self.input];
        unpack_row(self.dtype, &self.words[row * words..][..words], &mut values);
        values
    }

    /// The first number, counted over all rows, that is infinite or none; of a block with such a scale or offset, its first.
    pub(crate) fn first_not_finite(&self) -> Option<usize> {
        let (numbers, block) = (self.dtype.number_words(self.input), self.dtype.block());
        let half = |bits: u32| bits & 0x7c00 == 0x7c00;
        let column = |row: &[u32]| match self.dtype {
            Dtype::F32 => row
                .iter()
                .position(|word| !f32::from_bits(*word).is_finite()),
            Dtype::F16 => (0..self.input).find(|i| half(row[i / 2] >> (16 * (i % 2)))),
            Dtype::Q8 | Dtype::Q4 => {
                let levels = if self.dtype == Dtype::Q8 { 255.0 } else { 15.0 };
                let pairs = &row[numbers..][..self.input.div_ceil(block)];
                let bad = pairs.iter().position(|word| {
                    let Affine { scale, offset, .. } = Affine::<255>::from_word(*word);
                    !(offset.is_finite() && (scale * levels + offset).is_finite())
                });
                bad.map(|at| at * block)
            }
        };
        let rows = self.words.chunks_exact(self.dtype.row_words(self.input));
        rows.enumerate()
            .find_map(|(i, row)| Some(i * self.input + column(row)?))
    }

    /// All numbers, `[rows, input]`.
    pub fn unpack(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows() * self.input];
        unpack_rows(self.dtype, self.input, &self.words, &mut values);
        values
    }
}

/// Packs a matrix while its numbers arrive, in pieces of any length.
#[derive(Debug)]
pub struct Packer {
    dtype: Dtype,
    input: usize,
    /// The row that has begun to arrive.
    row: Vec<f32>,
    words: Vec<u32>,
}

impl Packer {
    /// For a matrix `[rows, input]`.
    pub fn new(dtype: Dtype, rows: usize, input: usize) -> Self {
        Self {
            dtype,
            input,
            row: Vec::with_capacity(input),
            words: Vec::with_capacity(rows * dtype.row_words(input)),
        }
    }

    /// Takes the next numbers.
    pub fn push(&mut self, mut values: &[f32]) {
        while !values.is_empty() {
            let now = values.len().min(self.input - self.row.len());
            let (part, rest) = values.split_at(now);
            values = rest;
            if self.row.is_empty() && now == self.input {
                pack_row(self.dtype, part, &mut self.words);
                continue;
            }
            self.row.extend_from_slice(part);
            if self.row.len() == self.input {
                pack_row(self.dtype, &self.row, &mut self.words);
                self.row.clear();
            }
        }
    }

    /// The matrix, after its last number.
    pub fn finish(self) -> PackedMatrix {
        debug_assert!(self.row.is_empty(), "the last row is whole");
        PackedMatrix::from_words(self.dtype, self.input, self.words)
    }
}

fn pack_row(dtype: Dtype, row: &[f32], words: &mut Vec<u32>) {
    let start = words.len();
    let scales = start + dtype.number_words(row.len());
    let end = start + dtype.row_words(row.len());
    match dtype {
        Dtype::F32 => words.extend(row.iter().map(|v| v.to_bits())),
        Dtype::F16 => words.extend(row.chunks(2).map(|pair| {
            // Infinities are NaN, as in the other forms.
            let value = |v: f32| if v.is_finite() { v } else { f32::NAN };
            let half = |v: f32| u32::from(f16::from_f32(value(v)).to_bits());
            half(pair[0]) | half(pair.get(1).copied().unwrap_or(0.0)) << 16
        })),
        Dtype::Q8 => {
            words.resize(end, 0);
            for (b, block) in row.chunks(dtype.block()).enumerate() {
                let pair = Affine::<255>::covering(block);
                words[scales + b] = pair.to_word();
                let numbers = &mut words[start + b * 8..];
                for (word, four) in numbers.iter_mut().zip(block.chunks(4)) {
                    for (i, v) in four.iter().enumerate() {
                        *word |= (pair.number(*v) as u32) << (8 * i);
                    }
                }
            }
        }
        Dtype::Q4 => {
            words.resize(end, 0);
            for (b, block) in row.chunks(dtype.block()).enumerate() {
                let pair = Affine::<15>::fit(block);
                words[scales + b] = pair.to_word();
                for (i, v) in block.iter().enumerate() {
                    put_q4(&mut words[start + b * 4..], i, pair.number(*v));
                }
            }
        }
    }
    words.resize(end, 0);
}

/// Puts the `i`th number of a block into its words, which were zero.
#[inline(always)]
fn put_q4(block: &mut [u32], i: usize, number: f32) {
    block[i / 8] |= (number as u32) << (8 * (i % 4) + 4 * (i % 8 / 4));
}

/// Scale and offset of a block with numbers from 0 to `LARGEST`.
#[derive(Clone, Copy)]
struct Affine<const LARGEST: u32> {
    scale: f32,
    /// 0 for a scale of 0.
    inverse: f32,
    offset: f32,
}

impl<const LARGEST: u32> Affine<LARGEST> {
    const LEVELS: f32 = LARGEST as f32;

    /// The pair that reaches every number of the block.
    fn covering(block: &[f32]) -> Self {
        if !block.iter().all(|v| v.is_finite()) {
            return Self::new(f32::NAN, f32::NAN);
        }
        let low = block.iter().copied().fold(f32::INFINITY, f32::min);
        let high = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let offset = bf16_below(low);
        // Two divisions: the range of finite numbers may not be finite.
        let scale = -bf16_below(offset / Self::LEVELS - high / Self::LEVELS);
        Self::new(scale, offset)
    }

    /// The pair of least squared error among those tried: one that reaches every number, ranges slightly smaller, and the
    /// least-squares fit to the numbers that each of them gives.
    fn fit(block: &[f32]) -> Self {
        let whole = Self::covering(block);
        let (mut best, mut least) = (whole, whole.squared_error(block));
        let half = whole.scale * Self::LEVELS / 2.0;
        for shrink in [1.0_f32, 0.94, 0.88, 0.82] {
            let first = Self::new(
                nearest_bf16(whole.scale * shrink),
                nearest_bf16(whole.offset + half * (1.0 - shrink)),
            );
            for pair in [Some(first), first.refit(block)].into_iter().flatten() {
                let error = pair.squared_error(block);
                if error < least {
                    (best, least) = (pair, error);
                }
            }
        }
        best
    }

    fn new(scale: f32, offset: f32) -> Self {
        Self {
            scale,
            inverse: if scale > 0.0 { scale.recip() } else { 0.0 },
            offset,
        }
    }

    /// The number that stands for `v`.
    #[inline(always)]
    fn number(self, v: f32) -> f32 {
        ((v - self.offset) * self.inverse + 0.5)
            .floor()
            .clamp(0.0, Self::LEVELS)
    }

    fn squared_error(self, block: &[f32]) -> f32 {
        // In lanes, which the compiler may not do to a plain sum.
        let mut sums = [0.0; 8];
        for eight in block.chunks(8) {
            for (sum, v) in sums.iter_mut().zip(eight) {
                let error = self.number(*v) * self.scale + self.offset - v;
                *sum += error * error;
            }
        }
        sums.iter().sum()
    }

    /// The pair of least squared error for the numbers that this pair gives; none if they are all the same.
    fn refit(self, block: &[f32]) -> Option<Self> {
        let (mut n1, mut n2, mut v1, mut nv) = ([0.0; 8], [0.0; 8], [0.0; 8], [0.0; 8]);
        for eight in block.chunks(8) {
            for (i, v) in eight.iter().enumerate() {
                let n = self.number(*v);
                n1[i] += n;
                n2[i] += n * n;
                v1[i] += v;
                nv[i] += n * v;
            }
        }
        let [n1, n2, v1, nv] = [n1, n2, v1, nv].map(|sums| sums.iter().sum::<f32>());
        let count = block.len() as f32;
        let scale = (nv - n1 * v1 / count) / (n2 - n1 * n1 / count);
        let pair = Self::new(nearest_bf16(scale), nearest_bf16((v1 - scale * n1) / count));
        // Neither NaN nor a mirrored block.
        (pair.scale > 0.0 && pair.offset.is_finite()).then_some(pair)
    }

    fn to_word(self) -> u32 {
        self.scale.to_bits() >> 16 | (self.offset.to_bits() & 0xffff_0000)
    }

    fn from_word(word: u32) -> Self {
        Self::new(
            f32::from_bits(word << 16),
            f32::from_bits(word & 0xffff_0000),
        )
    }
}

fn nearest_bf16(v: f32) -> f32 {
    bf16::from_f32(v).to_f32()
}

/// The largest bf16 that is not above `v`, for finite `v`.
fn bf16_below(v: f32) -> f32 {
    let bits = v.to_bits();
    // Cutting bits off goes towards zero.
    let cut = f32::from_bits(bits & 0xffff_0000);
    if cut <= v {
        cut
    } else {
        f32::from_bits((bits & 0xffff_0000).saturating_add(0x1_0000))
    }
}

/// Unpacks whole rows of a matrix; `values` says how many.
pub(crate) fn unpack_rows(dtype: Dtype, input: usize, words: &[u32], values: &mut [f32]) {
    let rows = words.chunks_exact(dtype.row_words(input));
    for (row, values) in rows.zip(values.chunks_exact_mut(input)) {
        unpack_row(dtype, row, values);
    }
}

/// Unpacks one row.
pub(crate) fn unpack_row(dtype: Dtype, row: &[u32], values: &mut [f32]) {
    let (numbers, scales) = row.split_at(dtype.number_words(values.len()));
    let blocks = values.chunks_mut(dtype.block());
    match dtype {
        Dtype::F32 => {
            for (value, word) in values.iter_mut().zip(numbers) {
                *value = f32::from_bits(*word);
            }
        }
        Dtype::F16 => {
            // Rows are filled up to whole vectors.
            let (fours, _) = bytemuck::cast_slice::<u32, u16>(numbers).as_chunks();
            for (values, halves) in values.chunks_mut(4).zip(fours) {
                values.copy_from_slice(&halves_to_f32(halves)[..values.len()]);
            }
        }
        Dtype::Q8 => {
            for ((block, words), pair) in blocks.zip(numbers.chunks_exact(8)).zip(scales) {
                let Affine { scale, offset, .. } = Affine::<255>::from_word(*pair);
                for (four, word) in block.chunks_mut(4).zip(words) {
                    for (value, byte) in four.iter_mut().zip(word.to_le_bytes()) {
                        *value = f32::from(byte) * scale + offset;
                    }
                }
            }
        }
        Dtype::Q4 => {
            for ((block, words), pair) in blocks.zip(numbers.chunks_exact(4)).zip(scales) {
                let Affine { scale, offset, .. } = Affine::<15>::from_word(*pair);
                for (eight, word) in block.chunks_mut(8).zip(words) {
                    let halves = [word & 0x0f0f_0f0f, (word >> 4) & 0x0f0f_0f0f];
                    for (four, bytes) in eight.chunks_mut(4).zip(halves) {
                        for (value, byte) in four.iter_mut().zip(bytes.to_le_bytes()) {
                            *value = f32::from(byte) * scale + offset;
                        }
                    }
                }
            }
        }
    }
}

/// Whether loaders pack a weight `[output, input]`: the GPU reads sizes that are no multiples of four one number at a time, and no
/// published checkpoint has such.
pub fn takes_packed(dims: [usize; 2]) -> bool {
    dims.iter().all(|size| size.is_multiple_of(4))
}

/// A packed weight on its device.
#[derive(Module, Debug)]
pub struct PackedWeight {
    /// `[output, words]`, see the [module](self).
    pub words: Tensor<2, Int>,
    /// How its numbers are held.
    #[module(skip)]
    pub dtype: Dtype,
    /// Its length along the summed dimension.
    pub input: usize,
}

impl PackedWeight {
    /// Puts `matrix` on `device`.
    pub fn new(matrix: PackedMatrix, device: &Device) -> Self {
        let shape = [matrix.rows(), matrix.dtype.row_words(matrix.input)];
        let (dtype, input) = (matrix.dtype, matrix.input);
        let data = TensorData::new(matrix.words, shape);
        let words = Dispatch::int_from_data(data, device.as_dispatch());
        Self {
            words: Tensor::from_dispatch(words),
            dtype,
            input,
        }
    }

    /// `[output, input]`.
    pub fn dims(&self) -> [usize; 2] {
        [self.words.dims()[0], self.input]
    }

    /// Some of its rows.
    #[cfg(not(target_family = "wasm"))]
    pub fn rows(&self, rows: std::ops::Range<usize>) -> Self {
        let [_, words] = self.words.dims();
        Self {
            words: self.words.clone().slice([rows, 0..words]),
            ..*self
        }
    }

    /// As f32 `[output, input]`, on the same device, through the host's memory: for tests.
    #[cfg(not(target_family = "wasm"))]
    pub fn unpack(&self) -> Tensor<2> {
        let device = self.words.device();
        let words = self
            .words
            .to_data()
            .try_to_vec::<u32>()
            .expect("words are u32");
        let matrix = PackedMatrix::from_words(self.dtype, self.input, words);
        Tensor::from_data(TensorData::new(matrix.unpack(), self.dims()), &device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Numbers;

    /// Numbers in −1…1 without a pattern.
    pub fn numbers(count: usize, seed: u32) -> Vec<f32> {
        Numbers(seed).values(count)
    }

    /// Fails unless every number of every block keeps the bound that the module promises.
    fn check_bounds(dtype: Dtype, input: usize, values: &[f32]) {
        let got = PackedMatrix::pack(dtype, input, values).unpack();
        assert_eq!(got.len(), values.len());
        for (row, got) in values.chunks(input).zip(got.chunks(input)) {
            for (block, got) in row.chunks(32).zip(got.chunks(32)) {
                let largest = block.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                let low = block.iter().copied().fold(f32::INFINITY, f32::min);
                let high = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let range = high - low;
                let errors = || block.iter().zip(got).map(|(v, g)| (v - g).abs());
                for ((v, g), error) in block.iter().zip(got).zip(errors()) {
                    let bound = match dtype {
                        Dtype::F32 => 0.0,
                        Dtype::F16 => v.abs() / 2048.0 + 3e-8,
                        Dtype::Q8 => range / 500.0 + largest / 60_000.0,
                        Dtype::Q4 => continue,
                    };
                    assert!(error <= bound, "{dtype:?}: {v} became {g}, bound {bound:e}");
                }
                if dtype == Dtype::Q4 {
                    let bound = (range / 29.0 + largest / 3500.0).powi(2) * block.len() as f32;
                    let squared: f32 = errors().map(|e| e * e).sum();
                    assert!(squared <= bound, "{squared:e}, bound {bound:e}: {block:?}");
                }
            }
        }
    }

    #[test]
    fn errors_stay_within_the_bounds_for_any_length_size_and_offset() {
        for input in [1, 2, 4, 7, 31, 32, 33, 64, 100, 4304] {
            for (scale, offset) in [
                (1.0, 0.0),
                (0.03, 0.0),
                (1e-3, 5.0),
                (40.0, -7.0),
                (0.0, 0.3),
            ] {
                let values = numbers(3 * input, input as u32);
                let values: Vec<f32> = values.iter().map(|v| v * scale + offset).collect();
                for dtype in Dtype::ALL {
                    check_bounds(dtype, input, &values);
                }
            }
        }
        let extreme = [1e-30, -1e-38, 1e38, -1e38, 0.0, 1.0];
        for dtype in [Dtype::Q8, Dtype::Q4] {
            let tiny: Vec<f32> = numbers(64, 3).iter().map(|v| v * 1e-20).collect();
            check_bounds(dtype, 32, &tiny);
            let got = PackedMatrix::pack(dtype, 6, &extreme).unpack();
            assert!(got.iter().all(|v| v.is_finite()), "{dtype:?}: {got:?}");
        }
        // Never cut to what f16 reaches.
        let far = PackedMatrix::pack(Dtype::F16, 4, &[65519.0, -65504.0, 65520.0, 1e9]);
        assert_eq!(far.unpack()[..2], [65504.0, -65504.0]);
        assert_eq!(far.first_not_finite(), Some(2));
    }

    #[test]
    fn q4_fits_blocks_better_than_their_plain_range_does() {
        // With one number far out, giving it up pays.
        let values: Vec<f32> = numbers(320, 9).iter().map(|v| v * v * v).collect();
        let (mut fitted, mut covering) = (0.0, 0.0);
        for block in values.chunks(32) {
            fitted += Affine::<15>::fit(block).squared_error(block);
            covering += Affine::<15>::covering(block).squared_error(block);
        }
        assert!(fitted < 0.9 * covering, "{fitted} and {covering}");
    }

    #[test]
    fn numbers_that_are_not_finite_spoil_their_block() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for dtype in [Dtype::F16, Dtype::Q8, Dtype::Q4] {
                let mut values = numbers(64, 1);
                values[40] = bad;
                let got = PackedMatrix::pack(dtype, 64, &values).unpack();
                assert!(got[40].is_nan() && got[3].is_finite(), "{dtype:?}");
            }
        }
    }

    #[test]
    fn pieces_of_any_length_give_the_same_words() {
        let values = numbers(5 * 37, 2);
        for dtype in Dtype::ALL {
            let whole = PackedMatrix::pack(dtype, 37, &values);
            assert_eq!((whole.rows(), whole.input(), whole.dtype()), (5, 37, dtype));
            assert_eq!(whole.row(3), whole.unpack()[3 * 37..4 * 37]);
            for length in [1, 5, 37, 40, 100] {
                let mut packer = Packer::new(dtype, 5, 37);
                for piece in values.chunks(length) {
                    packer.push(piece);
                }
                assert_eq!(packer.finish(), whole);
            }
        }
    }
}
