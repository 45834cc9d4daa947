//! Rows of a packed weight as the products of integers read them: four at a time.

use std::ops::Range;

use super::lanes::*;
use super::memory::LINE_WORDS;
use super::panel::PANEL;
use crate::kernels::packed::Dtype;

/// A block's numbers in `q8` and `q4`.
pub const BLOCK: usize = Dtype::Q8.block();
/// Blocks whose scales are read at once.
pub const BLOCKS: usize = 4;

/// A weight packed as `f16`, `q8` or `q4`, see [`packed`](crate::kernels::packed).
pub struct PackedRows<'a> {
    words: &'a [u32],
    pub dtype: Dtype,
    /// Numbers of a row.
    pub input: usize,
    row_words: usize,
    /// Words of a row's numbers.
    pub number_words: usize,
}

impl<'a> PackedRows<'a> {
    /// `[rows, words]`, with so many numbers in a row.
    pub fn new(words: &'a [u32], dtype: Dtype, input: usize) -> Self {
        Self {
            words,
            dtype,
            input,
            row_words: dtype.row_words(input),
            number_words: dtype.number_words(input),
        }
    }

    pub fn rows(&self) -> usize {
        self.words.len() / self.row_words
    }

    /// Rows from one on; those that are missing are the last one.
    pub fn four(&self, first: usize) -> [&'a [u32]; WIDTH] {
        let last = self.rows() - 1;
        std::array::from_fn(|i| {
            &self.words[(first + i).min(last) * self.row_words..][..self.row_words]
        })
    }

    /// Reads a word of each line of the cache that these blocks of a panel's rows lie in, one after the other, so that memory is waited for many times at
    /// once: packing them would wait for each by itself, which took twice as long.
    #[allow(unsafe_code)]
    pub fn fetch(&self, first: usize, blocks: Range<usize>) {
        let word = |block: usize| (block * self.dtype.number_words(BLOCK)).min(self.number_words);
        let scale = |block: usize| (self.number_words + block).min(self.row_words);
        let numbers = word(blocks.start)..word(blocks.end);
        let scales = scale(blocks.start)..scale(blocks.end);
        let rows = self.words.chunks_exact(self.row_words);
        for row in rows.skip(first).take(PANEL) {
            let both = [&row[numbers.clone()], &row[scales.clone()]];
            for word in both
                .into_iter()
                .flat_map(|words| words.iter().step_by(LINE_WORDS))
            {
                // SAFETY: a reference. Compilers would see that the word is of no use yet.
                unsafe { std::ptr::read_volatile(word) };
            }
        }
    }

    /// Of these blocks those that there are.
    pub fn present(&self, blocks: Range<usize>) -> Range<usize> {
        let all = self.input.div_ceil(BLOCK);
        blocks.start.min(all)..blocks.end.min(all)
    }

    /// Scale and offset of at most four blocks in each of four rows; zeros of blocks that are missing.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub fn affine(&self, rows: [&[u32]; WIDTH], blocks: Range<usize>) -> [[Lanes; 2]; BLOCKS] {
        let both = |pairs: Words| {
            let scale = from_bits(shift_left(pairs, 16));
            let offset = from_bits(and(pairs, constant_word(&[0xffff_0000; WIDTH])));
            [scale, offset]
        };
        let (first, count) = (self.number_words + blocks.start, blocks.len());
        let pairs = match count {
            // SAFETY: there are as many in each row.
            BLOCKS => unsafe { load_rows(rows, first) },
            _ => rows.map(|row| {
                let mut four = [0; BLOCKS];
                four[..count].copy_from_slice(&row[first..][..count]);
                // SAFETY: four words.
                unsafe { load_words(&four, 0) }
            }),
        };
        let [a, b, c, d] = transpose_words(pairs);
        [both(a), both(b), both(c), both(d)]
    }
}

/// Four words of each row, from one on. (Not by `map`, which compilers leave as a call.)
///
/// # Safety
/// Each row must have them.
#[inline(always)]
#[allow(unsafe_code)]
pub unsafe fn load_rows([a, b, c, d]: [&[u32]; WIDTH], at: usize) -> [Words; WIDTH] {
    unsafe {
        [
            load_words(a, at),
            load_words(b, at),
            load_words(c, at),
            load_words(d, at),
        ]
    }
}
