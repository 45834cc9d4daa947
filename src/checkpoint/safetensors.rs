//! The header of a safetensors file, checked before any tensor is read.
//!
//! The `safetensors` crate parses it and checks order, overlaps, holes, overflow and each size against its shape; here are
//! the file around the header, the number formats, and messages that name the file.

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};

use super::Reader;
use crate::error::{Error, Result};
use crate::json::check_not_a_stand_in;

/// The specification's limit on headers, in bytes.
const LARGEST_HEADER: u64 = 100_000_000;

/// Where a file's tensors are.
#[derive(Clone, Debug)]
pub struct FileHeader {
    /// In the order of the file; each begins where the one before ends.
    pub tensors: Vec<HeldTensor>,
    /// Offset of the first tensor's first byte in the file.
    pub data_start: u64,
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub struct HeldTensor {
    /// For example `logit_scale`.
    pub name: String,
    /// In elements.
    pub shape: Vec<usize>,
    /// Length in bytes.
    pub bytes: usize,
    dtype: Dtype,
}

impl FileHeader {
    /// Reads the header from the beginning of the file.
    ///
    /// # Errors
    /// `bad-model`, naming `file`, if it is not safetensors, is damaged, or its size is not what the header says.
    pub async fn read(file: &str, reader: &mut impl Reader) -> Result<Self> {
        let damaged =
            |what: String| Error::bad_model(format!("{file} {what}; it is damaged: get it again"));
        let start = reader.read_at(0, 8).await?;
        check_not_a_stand_in(file, &start)?;
        let Ok(length) = <[u8; 8]>::try_from(start.as_slice()) else {
            return Err(damaged(format!("has only {} bytes", start.len())));
        };
        let length = u64::from_le_bytes(length);
        let rest = reader
            .size()
            .map_or(LARGEST_HEADER, |size| size.saturating_sub(8));
        if length > LARGEST_HEADER.min(rest) {
            return Err(damaged(format!(
                "says that its header has {length} bytes, more than {}",
                if rest < LARGEST_HEADER {
                    "the file has"
                } else {
                    "the format allows"
                }
            )));
        }
        let json = reader.read_at(8, length as usize).await?;
        if json.len() as u64 != length {
            return Err(damaged("ends within its header".into()));
        }
        let metadata: Metadata = serde_json::from_slice(&json)
            .map_err(|error| damaged(format!("has a header that can't be read ({error})")))?;
        let tensors = metadata.offset_keys().into_iter().map(|name| {
            let info = metadata
                .info(&name)
                .expect("a name that the metadata listed");
            HeldTensor {
                shape: info.shape.clone(),
                bytes: info.data_offsets.1 - info.data_offsets.0,
                dtype: info.dtype,
                name,
            }
        });
        let header = Self {
            tensors: tensors.collect(),
            data_start: 8 + length,
        };
        match reader.size() {
            Some(size) if size != header.file_size() => Err(damaged(format!(
                "has {size} bytes, its header says {}",
                header.file_size()
            ))),
            _ => Ok(header),
        }
    }

    /// Size of the whole file in bytes.
    pub fn file_size(&self) -> u64 {
        let data: u64 = self.tensors.iter().map(|tensor| tensor.bytes as u64).sum();
        self.data_start + data
    }
}

impl HeldTensor {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

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

    /// Appends a piece of the tensor's bytes, a whole number of elements, as f32.
    pub(super) fn append_f32(&self, bytes: &[u8], values: &mut Vec<f32>) {
        let pairs = bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        match self.dtype {
            Dtype::F32 => values.extend(
                bytes
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            ),
            Dtype::F16 => values.extend(pairs.map(|b| f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => values.extend(pairs.map(|b| bf16::from_le_bytes(b).to_f32())),
            // Skipped tensors of other formats.
            _ => {}
        }
    }
}
