//! Embeddings in 8 bits a number.

use twox_hash::XxHash3_128;

/// Rows whose memory lies together: large enough to be read from a file at once, small enough that growing never copies.
pub const CHUNK: usize = 4096;

/// Bytes of a row behind its codes: scale, checksum of the embedding, seal.
const TAIL: usize = 16;

/// A checksum that JavaScript's numbers hold: 52 bits of XXH3.
pub fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_128::oneshot(bytes) as u64 & ((1 << 52) - 1)
}

/// Embeddings of one length, each in a row: a code of 8 bits for each number, and what they are to be multiplied by.
///
/// A row's bytes, in memory and in files: its codes, filled up with zeros to a multiple of 16; the scale (f32); the [`checksum`] of the
/// embedding as f32 (u64); the lower half of the checksum of all that (u32). All of them lowest byte first. A row of zeros is free.
pub struct Rows {
    size: usize,
    count: usize,
    /// Each of [`CHUNK`] rows.
    chunks: Vec<Vec<u8>>,
}

impl Rows {
    /// No rows yet, of embeddings with `size` numbers.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            count: 0,
            chunks: Vec::new(),
        }
    }

    /// Numbers in an embedding.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of a row.
    pub fn stride(&self) -> usize {
        self.codes() + TAIL
    }

    /// Rows, free ones among them.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn codes(&self) -> usize {
        self.size.next_multiple_of(16)
    }

    /// Free rows up to `count` in all, or fewer than there were.
    pub fn resize(&mut self, count: usize) {
        let bytes = CHUNK * self.stride();
        self.chunks
            .resize_with(count.div_ceil(CHUNK), || vec![0; bytes]);
        for row in count..self.count.min(self.chunks.len() * CHUNK) {
            self.free(row);
        }
        self.count = count;
    }

    /// The memory of the rows from `CHUNK · i` on.
    pub fn chunk(&mut self, i: usize) -> &mut [u8] {
        &mut self.chunks[i]
    }

    /// A row's bytes.
    pub fn row(&self, row: usize) -> &[u8] {
        let stride = self.stride();
        &self.chunks[row / CHUNK][row % CHUNK * stride..][..stride]
    }

    fn row_mut(&mut self, row: usize) -> &mut [u8] {
        let stride = self.stride();
        &mut self.chunks[row / CHUNK][row % CHUNK * stride..][..stride]
    }

    /// Rounds an embedding into a row, and gives its checksum.
    pub fn set(&mut self, row: usize, embedding: &[f32]) -> u64 {
        assert_eq!(embedding.len(), self.size, "an embedding of this index");
        let codes = self.codes();
        let sum = checksum(bytemuck::cast_slice(embedding));
        let bytes = self.row_mut(row);
        let largest = embedding.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
        let scale = largest / 127.0;
        bytes.fill(0);
        for (code, value) in bytes.iter_mut().zip(embedding) {
            *code = (value / scale).round() as i8 as u8;
        }
        bytes[codes..codes + 4].copy_from_slice(&scale.to_le_bytes());
        bytes[codes + 4..codes + 12].copy_from_slice(&sum.to_le_bytes());
        let seal = seal(&bytes[..codes + 12]);
        bytes[codes + 12..].copy_from_slice(&seal.to_le_bytes());
        sum
    }

    /// Makes a row free.
    pub fn free(&mut self, row: usize) {
        self.row_mut(row).fill(0);
    }

    /// The checksum of a row's embedding; none if the row is free or a bit of it is another one.
    pub fn sum(&self, row: usize) -> Option<u64> {
        let (bytes, codes) = (self.row(row), self.codes());
        let word = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().expect("4"));
        let sound = word(codes) != 0 && seal(&bytes[..codes + 12]) == word(codes + 12);
        sound.then(|| u64::from(word(codes + 8)) << 32 | u64::from(word(codes + 4)))
    }

    /// The cosine with each row, as near as 8 bits tell; less than any cosine for a free one.
    ///
    /// # Panics
    /// For a vector of another length.
    pub fn estimates(&self, vector: &[f32]) -> Vec<f32> {
        assert_eq!(vector.len(), self.size, "a vector of this index");
        // As fine as sums of 32 bits allow.
        let finest = (i32::MAX as usize / (127 * self.size)).min(i16::MAX as usize) as f32;
        let largest = vector.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
        let step = (largest / finest).max(f32::MIN_POSITIVE);
        let mut query = vec![0; self.codes()];
        for (rounded, value) in query.iter_mut().zip(vector) {
            *rounded = (value / step).round() as i16;
        }
        let mut estimates = vec![0.0; self.count];
        let of_chunk = |(bytes, estimates): (&Vec<u8>, &mut [f32])| {
            for (row, estimate) in bytes.chunks_exact(self.stride()).zip(estimates) {
                let (codes, tail) = row.split_at(query.len());
                let scale = f32::from_le_bytes(tail[..4].try_into().expect("4 bytes"));
                *estimate = match scale > 0.0 {
                    true => dot(codes, &query) as f32 * (scale * step),
                    false => f32::NEG_INFINITY,
                };
            }
        };
        #[cfg(target_family = "wasm")]
        self.chunks
            .iter()
            .zip(estimates.chunks_mut(CHUNK))
            .for_each(of_chunk);
        #[cfg(not(target_family = "wasm"))]
        {
            use rayon::prelude::*;
            let chunks = self.chunks.par_iter();
            chunks
                .zip(estimates.par_chunks_mut(CHUNK))
                .for_each(of_chunk);
        }
        estimates
    }
}

/// The sum of products, in 32 bits. Compilers make the widest vectors of it that the machine has, in the browser and natively; memory is slower than
/// even the narrowest.
fn dot(codes: &[u8], query: &[i16]) -> i32 {
    codes
        .iter()
        .zip(query)
        .map(|(code, value)| i32::from(*code as i8) * i32::from(*value))
        .sum()
}

fn seal(bytes: &[u8]) -> u32 {
    checksum(bytes) as u32
}
