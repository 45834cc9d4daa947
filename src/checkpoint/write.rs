//! Writing checkpoints: safetensors files that are there whole or not at all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use burn::tensor::Tensor;
use half::f16;
use safetensors::View;
use safetensors::tensor::Dtype;

use crate::error::{Error, Result};
use crate::model::ParameterSpec;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredDtype {
    /// 4 bytes, exact.
    F32,
    /// 2 bytes; at most 65504.
    F16,
}

impl StoredDtype {
    /// The word that `config.json` has for it, for example `"float32"`.
    pub fn as_str(self) -> &'static str {
        match self {
            StoredDtype::F32 => "float32",
            StoredDtype::F16 => "float16",
        }
    }
}

/// Writes parameters as a safetensors file under `path`, with `metadata` in its header.
///
/// Each parameter is its name and shape with its values, flat, on any device. A program that is killed meanwhile leaves the
/// old file of that name, or none.
///
/// # Errors
/// `bad-model` for values that are not finite or, in f16, too large, naming the parameter; `bad-input` if the file can't be
/// written; `device-lost` if the device doesn't return its values.
pub fn write_safetensors(
    path: &Path,
    parameters: &[(ParameterSpec, Tensor<1>)],
    dtype: StoredDtype,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let mut views = Vec::with_capacity(parameters.len());
    for (spec, values) in parameters {
        let values = pollster::block_on(crate::kernels::to_vec(values.clone()))?;
        views.push((spec.name.as_str(), Stored::new(spec, &values, dtype)?));
    }
    replace(path, |new| {
        safetensors::serialize_to_file(views, Some(metadata), new).map_err(std::io::Error::other)
    })
}

/// Writes `bytes` under `path`, whole or not at all.
///
/// # Errors
/// `bad-input` if the file can't be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |new| std::fs::write(new, bytes))
}

/// Lets `write` make a new file, which then takes the place of the one at `path`.
fn replace(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let new = path.with_file_name(name);
    let done = write(&new)
        // On the disk before the name points to it, or a power cut leaves an empty file.
        .and_then(|()| File::options().write(true).open(&new)?.sync_all())
        .and_then(|()| std::fs::rename(&new, path));
    done.map_err(|error| Error::bad_input(format!("{} can't be written: {error}", path.display())))
}

/// One tensor, as the file has it.
struct Stored<'a> {
    shape: &'a [usize],
    bytes: Vec<u8>,
    dtype: Dtype,
}

impl<'a> Stored<'a> {
    fn new(spec: &'a ParameterSpec, values: &[f32], dtype: StoredDtype) -> Result<Self> {
        let fits = |value: &f32| match dtype {
            StoredDtype::F32 => value.is_finite(),
            StoredDtype::F16 => f16::from_f32(*value).is_finite(),
        };
        if let Some(value) = values.iter().find(|value| !fits(value)) {
            return Err(Error::bad_model(format!(
                "{} has the value {value}, which {} can't hold{}",
                spec.name,
                dtype.as_str(),
                match value.is_finite() {
                    true => "; write it as f32",
                    false => ": the training has diverged; use a lower learning rate",
                }
            )));
        }
        let (bytes, dtype) = match dtype {
            StoredDtype::F32 => (
                values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                Dtype::F32,
            ),
            StoredDtype::F16 => (
                values
                    .iter()
                    .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                    .collect(),
                Dtype::F16,
            ),
        };
        Ok(Self {
            shape: &spec.shape,
            bytes,
            dtype,
        })
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
