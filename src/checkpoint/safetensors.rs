//! The header of a safetensors file, checked before any tensor is read.
//!
//! The `safetensors` crate's own `Metadata` counts in `usize`, which is 32 bits in a browser, where files of more than 4 GiB are
//! read by ranges. So the header is parsed here, with the crate's number formats, and checked for order, overlaps, holes and sizes that are
//! not those of the shapes, in messages that name the file.

use std::collections::HashMap;

use half::{bf16, f16};
use safetensors::tensor::Dtype;
use serde::Deserialize;

use super::Reader;
use crate::error::{Error, Result};
use crate::json::check_not_a_stand_in;

/// Headers of more bytes are refused: a SigLIP's has a tenth of this, with every name.
const LARGEST_HEADER: u64 = 4 << 20;

/// Files of more tensors are refused: the largest SigLIP has 1100, and 3000 where weights are quantized with scales and offsets beside them.
const MOST_TENSORS: usize = 20_000;

/// Where a file's tensors are.
#[derive(Clone, Debug)]
pub struct FileHeader {
    /// In the order of the file; each begins where the one before ends.
    pub tensors: Vec<TensorInfo>,
    /// Offset of the first tensor's first byte in the file.
    pub data_start: u64,
    /// The file's `__metadata__`.
    pub metadata: HashMap<String, String>,
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// For example `logit_scale`.
    pub name: String,
    /// In elements.
    pub shape: Vec<u64>,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// The numbers' format.
    pub dtype: Dtype,
}

impl FileHeader {
    /// Reads the header's bytes, with the length before it, from the beginning of the file.
    ///
    /// # Errors
    /// `bad-model`, naming `file`, if it is not safetensors or too short.
    pub async fn read_bytes(file: &str, reader: &mut impl Reader) -> Result<Vec<u8>> {
        let damaged =
            |what: String| Error::bad_model(format!("{file} {what}; it is damaged: get it again"));
        let mut bytes = reader.read_at(0, 8).await?;
        let Ok(length) = <[u8; 8]>::try_from(bytes.as_slice()) else {
            check_not_a_stand_in(file, &bytes)?;
            return Err(damaged(format!("has only {} bytes", bytes.len())));
        };
        let length = u64::from_le_bytes(length);
        let rest = reader
            .size()
            .map_or(LARGEST_HEADER, |size| size.saturating_sub(8));
        if length > LARGEST_HEADER.min(rest) {
            // Not asked sooner: the length of a header may begin with a byte that is a "<". Any text's eight bytes are a larger number.
            check_not_a_stand_in(file, &bytes)?;
            return Err(damaged(format!(
                "says that its header has {length} bytes, more than {}",
                match rest < LARGEST_HEADER {
                    true => "the file has",
                    false => "any SigLIP needs",
                }
            )));
        }
        bytes.extend(reader.read_at(8, length as usize).await?);
        if bytes.len() as u64 != 8 + length {
            return Err(damaged("ends within its header".into()));
        }
        Ok(bytes)
    }

    /// Parses what [`read_bytes`](Self::read_bytes) read; `size` is that of the whole file, where it is known.
    ///
    /// # Errors
    /// `bad-model`, naming `file`, if the header is damaged or the file's size is not what it says.
    pub fn parse(file: &str, bytes: &[u8], size: Option<u64>) -> Result<Self> {
        let damaged =
            |what: String| Error::bad_model(format!("{file} {what}; it is damaged: get it again"));
        let json = bytes.get(8..).unwrap_or_default();
        let raw: RawHeader = serde_json::from_slice(json)
            .map_err(|error| damaged(format!("has a header that can't be read ({error})")))?;
        if raw.tensors.len() > MOST_TENSORS {
            return Err(Error::unsupported(format!(
                "{file} has {} tensors, more than the {MOST_TENSORS} that can be read; it is no SigLIP",
                raw.tensors.len()
            )));
        }
        let data_start = bytes.len() as u64;
        let mut tensors: Vec<(String, RawTensor)> = raw.tensors.into_iter().collect();
        tensors.sort_unstable_by(|(a_name, a), (b_name, b)| {
            (a.data_offsets, a_name).cmp(&(b.data_offsets, b_name))
        });
        let mut data_end = 0;
        let mut checked = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            let (start, end) = tensor.data_offsets;
            if start != data_end || end < start || tensor.length() != Some(end - start) {
                return Err(damaged(format!(
                    "has a header that can't be read: the {:?} tensor {name} of shape {:?} is said to be the bytes {start} to {end}, after one that ends at {data_end}",
                    tensor.dtype, tensor.shape
                )));
            }
            data_end = end;
            checked.push(TensorInfo {
                name,
                shape: tensor.shape,
                offset: data_start + start,
                bytes: end - start,
                dtype: tensor.dtype,
            });
        }
        // Numbers of JavaScript are exact up to here, and sums of two stay so in 64 bits.
        if data_end > 1 << 52 {
            return Err(damaged(format!("says that it has {data_end} bytes")));
        }
        let header = Self {
            tensors: checked,
            data_start,
            metadata: raw.metadata.unwrap_or_default(),
        };
        match size {
            Some(size) if size != header.file_size() => Err(damaged(format!(
                "has {size} bytes, its header says {}",
                header.file_size()
            ))),
            _ => Ok(header),
        }
    }

    /// Size of the whole file in bytes.
    pub fn file_size(&self) -> u64 {
        let end = self
            .tensors
            .last()
            .map(|tensor| tensor.offset + tensor.bytes);
        end.unwrap_or(self.data_start)
    }
}

#[derive(Deserialize)]
struct RawHeader {
    #[serde(rename = "__metadata__")]
    metadata: Option<HashMap<String, String>>,
    #[serde(flatten)]
    tensors: HashMap<String, RawTensor>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl RawTensor {
    /// In bytes, if it is a number of whole ones and not beyond all measure.
    fn length(&self) -> Option<u64> {
        let elements = self
            .shape
            .iter()
            .try_fold(1_u64, |n, side| n.checked_mul(*side))?;
        let bits = elements.checked_mul(self.dtype.bitsize() as u64)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl TensorInfo {
    /// # Errors
    /// `unsupported` unless the numbers are f32, f16 or bf16.
    pub(super) fn check_dtype(&self, file: &str) -> Result<()> {
        match self.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(()),
            other => Err(Error::unsupported(format!(
                "{file}: the tensor {} holds {other:?} numbers; F32, F16 and BF16 can be read",
                self.name
            ))),
        }
    }
}

/// Bytes of one number of the formats that can be read.
pub(super) fn size_of_number(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F16 | Dtype::BF16 => 2,
        _ => 4,
    }
}

/// Appends numbers in a format that can be read, as f32.
pub(super) fn append_f32(dtype: Dtype, bytes: &[u8], values: &mut Vec<f32>) {
    let pairs = bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match dtype {
        Dtype::F16 => values.extend(pairs.map(|b| f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => values.extend(pairs.map(|b| bf16::from_le_bytes(b).to_f32())),
        _ => values.extend(
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        ),
    }
}
