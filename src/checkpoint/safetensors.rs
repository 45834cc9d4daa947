//! The header of a safetensors file, checked before any tensor is read.
//!
//! The `safetensors` crate parses it and checks order, overlaps, holes, overflow and each size against its shape; here are
//! the file around the header, the number formats, and messages that name the file.

use std::collections::HashMap;

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
    pub shape: Vec<usize>,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: usize,
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
        check_not_a_stand_in(file, &bytes)?;
        let Ok(length) = <[u8; 8]>::try_from(bytes.as_slice()) else {
            return Err(damaged(format!("has only {} bytes", bytes.len())));
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
        let metadata: Metadata = serde_json::from_slice(json)
            .map_err(|error| damaged(format!("has a header that can't be read ({error})")))?;
        let data_start = 8 + json.len() as u64;
        let tensors = metadata.offset_keys().into_iter().map(|name| {
            let info = metadata
                .info(&name)
                .expect("a name that the metadata listed");
            let (start, end) = info.data_offsets;
            TensorInfo {
                shape: info.shape.clone(),
                offset: data_start + start as u64,
                bytes: end - start,
                dtype: info.dtype,
                name,
            }
        });
        let header = Self {
            tensors: tensors.collect(),
            data_start,
            metadata: metadata
                .metadata()
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
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
        let data: u64 = self.tensors.iter().map(|tensor| tensor.bytes as u64).sum();
        self.data_start + data
    }
}

impl TensorInfo {
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
