//! Writing a checkpoint in fewer bits, for people who host their own.

use std::io::Write;

use half::f16;
use safetensors::tensor::{Dtype as NumberFormat, Metadata, TensorInfo as TensorHeader};

mod calibrate;
#[cfg(not(target_family = "wasm"))]
mod folder;

pub use calibrate::{Calibration, calibrate};
#[cfg(not(target_family = "wasm"))]
pub use folder::{Converted, convert_folder};

use super::format::{self, FixedLabels, KEY, LABEL_EMBEDDINGS, Packing};
use super::load::{
    Assembly, Fault, Fresh, INDEX, Numbers, Part, SINGLE_FILE, Share, Sink, Target, WeightsFile,
    channels_last, check_part, encoding, parts_of, unheld,
};
use super::{Described, Pace, Reader, Source, weight_dtype};
use crate::error::{Error, Result};
use crate::kernels::Dtype;
use crate::model::{ParameterSpec, Role, parameters};

/// How a tensor is written.
struct Written {
    spec: ParameterSpec,
    dtype: Dtype,
    /// Whether it is the matrix that NaFlex has for the patches: rows of pixels with their channels together.
    patches: bool,
}

impl Written {
    fn new(spec: ParameterSpec, dtype: Dtype, naflex: bool) -> Self {
        let packed = spec.is_weight || spec.role == Role::TokenTable;
        let dtype = match packed {
            true => weight_dtype(dtype, &spec),
            false => Dtype::F32,
        };
        Self {
            dtype,
            patches: naflex && spec.role == Role::PatchEmbedding,
            spec,
        }
    }

    fn target(&self) -> Target {
        match self.dtype {
            Dtype::Q8 | Dtype::Q4 => Target::Packed(self.dtype),
            Dtype::F32 | Dtype::F16 => Target::Plain,
        }
    }

    /// The format of its numbers in the file and its shape there.
    fn layout(&self) -> (NumberFormat, Vec<usize>) {
        let shape = || match self.patches {
            true => self.spec.matrix().to_vec(),
            false => self.spec.shape.clone(),
        };
        match self.dtype {
            Dtype::F32 => (NumberFormat::F32, shape()),
            Dtype::F16 => (NumberFormat::F16, shape()),
            Dtype::Q8 | Dtype::Q4 => {
                let [rows, input] = self.spec.matrix();
                (NumberFormat::U32, vec![rows, self.dtype.row_words(input)])
            }
        }
    }
}

/// Writes the weights that `source` holds as one `model.safetensors` into `out`, in the format of [`format`](super::format); one
/// tensor is in memory at a time.
///
/// With `labels`, the embeddings of fixed labels, there is no text tower in it. `calibration` is for [`Dtype::Q4`]; without it the
/// weights are as a loader would hold them.
///
/// # Errors
/// As [`Checkpoint::load_async`](super::Checkpoint::load_async); `bad-input` if `out` can't be written.
pub async fn convert(
    source: &impl Source,
    dtype: Dtype,
    labels: Option<(&FixedLabels, &[Vec<f32>])>,
    calibration: Option<&Calibration>,
    out: &mut impl Write,
    pace: &impl Pace,
) -> Result<()> {
    let Described {
        config,
        fixed,
        hints,
        ..
    } = Described::read(source, pace).await?;
    if fixed.is_some() {
        return Err(Error::unsupported(
            "the checkpoint was converted for fixed labels already; convert the one that it was made from",
        ));
    }
    if labels.is_some() && config.classifier.is_some() {
        return Err(Error::unsupported(
            "the checkpoint was fine-tuned for labels of its own; convert it without others, or convert one with both towers",
        ));
    }
    hints.check_transformers("convert")?;
    let mut files = Vec::new();
    for fresh in Fresh::list(source, &parameters(&config), &hints).await? {
        files.push(fresh.open(source, &()).await?);
    }
    let specs = format::parameters(&config, labels.map(|(fixed, _)| fixed)).into_iter();
    let mut written: Vec<Written> = specs
        .map(|spec| Written::new(spec, dtype, config.vision.naflex))
        .collect();
    // Numbers of two bytes last, so that all are aligned.
    written.sort_by_key(|tensor| tensor.dtype == Dtype::F16);
    let mut write = |bytes: &[u8]| {
        out.write_all(bytes)
            .map_err(|error| Error::bad_input(format!("{SINGLE_FILE} can't be written: {error}")))
    };
    write(&header(dtype, &written)?)?;
    for tensor in &written {
        pace.step().await?;
        let name = tensor.spec.name.as_str();
        let calibrated = calibration.and_then(|calibration| calibration.bytes(name, tensor.dtype));
        let bytes = match (calibrated, labels) {
            (_, Some((_, embeddings))) if name == LABEL_EMBEDDINGS => {
                let values = embeddings.iter().flatten();
                values.flat_map(|value| value.to_le_bytes()).collect()
            }
            (Some(bytes), _) => bytes,
            (None, _) => read(&mut files, tensor).await?,
        };
        write(&bytes)?;
    }
    Ok(())
}

/// The file's beginning: the length of its header, and the header.
fn header(dtype: Dtype, written: &[Written]) -> Result<Vec<u8>> {
    let packed = written.iter();
    let packed = packed.filter(|tensor| matches!(tensor.dtype, Dtype::Q8 | Dtype::Q4));
    let packed: Vec<(String, Dtype)> = packed
        .map(|tensor| (tensor.spec.name.clone(), tensor.dtype))
        .collect();
    let metadata = [
        ("format", "pt".into()),
        (KEY, Packing::to_json(dtype, &packed)),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    let mut end = 0;
    let tensors = written.iter().map(|tensor| {
        let (dtype, shape) = tensor.layout();
        let start = end;
        end += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let data_offsets = (start, end);
        let header = TensorHeader {
            dtype,
            shape,
            data_offsets,
        };
        (tensor.spec.name.clone(), header)
    });
    let metadata = Metadata::new(Some(metadata.into_iter().collect()), tensors.collect())
        .map_err(|error| Error::bad_model(format!("the tensors make no file ({error})")))?;
    let mut json = serde_json::to_vec(&metadata).expect("strings and numbers");
    json.resize(json.len().next_multiple_of(8), b' ');
    let length = json.len() as u64;
    Ok([&length.to_le_bytes(), json.as_slice()].concat())
}

/// The bytes of a tensor as they are written, from the file that has it.
async fn read<R: Reader>(files: &mut [WeightsFile<R>], tensor: &Written) -> Result<Vec<u8>> {
    let name = &tensor.spec.name;
    let mut assembly = Assembly::default();
    let mut numbers = None;
    for file in files {
        let parts: Vec<Part> = parts_of(file, &tensor.spec).cloned().collect();
        for part in parts {
            check_part(file, &part, &tensor.spec)?;
            let info = &part.tensor;
            let reader = file.reader.as_mut().expect("a file that was just opened");
            let bytes = reader.read_at(info.offset, info.bytes as usize).await?;
            if (bytes.len() as u64) < info.bytes {
                return Err(Error::bad_model(format!(
                    "{} ends in the middle of {name}; it was cut off: get it again",
                    file.name()
                )));
            }
            let target = match part.share {
                Share::Whole => tensor.target(),
                _ => Target::Part,
            };
            let mut sink = Sink::new(encoding(file, info), target, tensor.spec.matrix());
            sink.push(&bytes);
            let fault = |fault| unheld(file.name(), name, fault);
            match sink.finish().map_err(fault)? {
                Numbers::Part(words) => {
                    if assembly.add(part, words) {
                        let whole = std::mem::take(&mut assembly);
                        numbers =
                            Some(whole.numbers(file.name(), &tensor.spec, tensor.target())?);
                    }
                }
                whole => numbers = Some(whole),
            }
        }
    }
    let numbers = numbers.ok_or_else(|| {
        Error::bad_model(format!(
            "{SINGLE_FILE} or {INDEX} doesn't have the tensor {name}"
        ))
    })?;
    let numbers = match numbers {
        Numbers::Plain(values) if tensor.patches => {
            let [_, input] = tensor.spec.matrix();
            let rows = values.chunks_exact(input);
            Numbers::Plain(
                rows.flat_map(|row| channels_last(row, tensor.spec.shape[1]))
                    .collect(),
            )
        }
        other => other,
    };
    Ok(match numbers {
        Numbers::None | Numbers::Part(_) => Vec::new(),
        Numbers::Plain(values) if tensor.dtype == Dtype::F16 => {
            let bad = |(_, value): &(usize, &f32)| !f16::from_f32(**value).is_finite();
            if let Some((index, value)) = values.iter().enumerate().find(bad) {
                let value = *value;
                return Err(unheld(SINGLE_FILE, name, Fault { index, value }));
            }
            let halves = values.iter().map(|value| f16::from_f32(*value));
            halves.flat_map(|half| half.to_le_bytes()).collect()
        }
        Numbers::Plain(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Numbers::Packed(matrix) => {
            let words = matrix.words().iter();
            words.flat_map(|word| word.to_le_bytes()).collect()
        }
    })
}
