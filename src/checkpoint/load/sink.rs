//! The bytes of one tensor, as they arrive, to numbers as they are held.

use safetensors::tensor::Dtype as NumberFormat;

use crate::checkpoint::safetensors::{append_f32, size_of_number};
use crate::kernels::packed::{Packer, unpack_row};
use crate::kernels::{Dtype, PackedMatrix};

/// Numbers are converted so many bytes at a time, so that what lies between two forms stays small.
const STEP: usize = 64 << 10;

/// How a file has the numbers of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One after the other.
    Numbers(NumberFormat),
    /// Rows of packed words.
    Packed(Dtype),
}

/// What a tensor becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: it is read for the file's hash only.
    Nothing,
    /// f32 on the device.
    Plain,
    /// A packed weight on the device.
    Packed(Dtype),
    /// The token table in the host's memory.
    Table(Dtype),
    /// The token table, left where it is.
    Remote,
    /// The label embeddings, in the host's memory.
    Labels,
    /// A part of a parameter, which is put together when the others are here too.
    Part,
}

/// A tensor's numbers as they are held.
pub enum Numbers {
    None,
    Plain(Vec<f32>),
    Packed(PackedMatrix),
    /// A part's bytes as the file has them, filled up to whole words.
    Part(Vec<u32>),
}

/// Converts bytes to numbers as they are held.
pub struct Sink {
    encoding: Encoding,
    /// Bytes of the smallest part that can be converted.
    unit: usize,
    /// The beginning of such a part.
    carry: Vec<u8>,
    out: Out,
    scratch: Vec<f32>,
    limit: Limit,
}

/// A number that can't be held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Which one of the tensor.
    pub index: usize,
    pub value: f32,
}

/// Watches for numbers that are infinite or none, or beyond what they are held as.
struct Limit {
    /// The least magnitude that is too much.
    least: f32,
    /// Numbers so far.
    count: usize,
    fault: Option<Fault>,
}

impl Limit {
    fn of(target: Target) -> Self {
        // Magnitudes from here on round to infinity.
        const F16: f32 = 65520.0;
        let least = match target {
            Target::Packed(Dtype::F16) | Target::Table(Dtype::F16) => F16,
            _ => f32::INFINITY,
        };
        Self {
            least,
            count: 0,
            fault: None,
        }
    }

    fn check(&mut self, values: &[f32]) {
        // Without branches, so that it goes in lanes. What is not a number is above all in its bits.
        let magnitude = |value: &f32| value.to_bits() & 0x7fff_ffff;
        let largest = values.iter().map(magnitude).fold(0, u32::max);
        if largest >= self.least.to_bits() && self.fault.is_none() {
            let bad = |value: &&f32| magnitude(value) >= self.least.to_bits();
            let found = values.iter().enumerate().find(|(_, value)| bad(value));
            self.fault = found.map(|(index, value)| Fault {
                index: self.count + index,
                value: *value,
            });
        }
        self.count += values.len();
    }
}

enum Out {
    Nothing,
    Part(Vec<u8>),
    Plain(Vec<f32>),
    Packer(Packer),
    /// The file has the words as they are held.
    Words(Dtype, usize, Vec<u32>),
}

impl Sink {
    pub fn new(encoding: Encoding, target: Target, [rows, input]: [usize; 2]) -> Self {
        let out = match target {
            Target::Nothing | Target::Remote => Out::Nothing,
            Target::Part => Out::Part(Vec::new()),
            Target::Plain | Target::Labels => Out::Plain(Vec::with_capacity(rows * input)),
            Target::Packed(dtype) | Target::Table(dtype) => match encoding {
                Encoding::Packed(same) if same == dtype => Out::Words(
                    dtype,
                    input,
                    Vec::with_capacity(rows * dtype.row_words(input)),
                ),
                _ => Out::Packer(Packer::new(dtype, rows, input)),
            },
        };
        let unit = match (encoding, &out) {
            (_, Out::Nothing | Out::Part(_)) => 1,
            (_, Out::Words(..)) => 4,
            (Encoding::Packed(dtype), _) => 4 * dtype.row_words(input),
            (Encoding::Numbers(format), _) => size_of_number(format),
        };
        let scratch = match encoding {
            Encoding::Packed(_) => vec![0.0; input],
            Encoding::Numbers(_) => Vec::new(),
        };
        Self {
            encoding,
            unit,
            carry: Vec::new(),
            out,
            scratch,
            limit: Limit::of(target),
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if !self.carry.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(self.unit - self.carry.len()));
            self.carry.extend_from_slice(now);
            bytes = rest;
            if self.carry.len() < self.unit {
                return;
            }
            let whole = std::mem::take(&mut self.carry);
            self.convert(&whole);
        }
        let (whole, rest) = bytes.split_at(bytes.len() / self.unit * self.unit);
        for step in whole.chunks(STEP.max(self.unit) / self.unit * self.unit) {
            self.convert(step);
        }
        self.carry.extend_from_slice(rest);
    }

    /// Takes whole units.
    fn convert(&mut self, bytes: &[u8]) {
        match (&mut self.out, self.encoding) {
            (Out::Nothing, _) => {}
            (Out::Part(out), _) => out.extend_from_slice(bytes),
            (Out::Words(_, _, out), _) => out.extend(words(bytes)),
            (Out::Plain(out), Encoding::Numbers(format)) => {
                let before = out.len();
                append_f32(format, bytes, out);
                self.limit.check(&out[before..]);
            }
            (Out::Packer(_), Encoding::Numbers(format)) => {
                let mut values = std::mem::take(&mut self.scratch);
                values.clear();
                append_f32(format, bytes, &mut values);
                self.push_numbers(&values);
                self.scratch = values;
            }
            (Out::Plain(_) | Out::Packer(_), Encoding::Packed(dtype)) => {
                let mut values = std::mem::take(&mut self.scratch);
                let mut row_words = Vec::new();
                for row in bytes.chunks_exact(self.unit) {
                    row_words.clear();
                    row_words.extend(words(row));
                    unpack_row(dtype, &row_words, &mut values);
                    self.push_numbers(&values);
                }
                self.scratch = values;
            }
        }
    }

    /// Takes the next numbers, where they are known as such.
    pub fn push_numbers(&mut self, values: &[f32]) {
        self.limit.check(values);
        match &mut self.out {
            Out::Plain(out) => out.extend_from_slice(values),
            Out::Packer(packer) => packer.push(values),
            Out::Nothing | Out::Part(_) | Out::Words(..) => {}
        }
    }

    /// The numbers, after the last byte, or the first that can't be held.
    pub fn finish(self) -> Result<Numbers, Fault> {
        let numbers = match self.out {
            Out::Nothing => Numbers::None,
            Out::Part(mut bytes) => {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
                Numbers::Part(words(&bytes).collect())
            }
            Out::Plain(values) => Numbers::Plain(values),
            Out::Packer(packer) => Numbers::Packed(packer.finish()),
            Out::Words(dtype, input, words) => {
                let matrix = PackedMatrix::from_words(dtype, input, words);
                if let Some(index) = matrix.first_not_finite() {
                    let value = f32::NAN;
                    return Err(Fault { index, value });
                }
                Numbers::Packed(matrix)
            }
        };
        match self.limit.fault {
            Some(fault) => Err(fault),
            None => Ok(numbers),
        }
    }
}

/// Little-endian words.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let (words, _) = bytes.as_chunks();
    words.iter().copied().map(u32::from_le_bytes)
}
