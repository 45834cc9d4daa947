//! Writing a checkpoint in fewer bits, for people who host their own.

use std::io::Write;

use half::f16;
use serde_json::{Map, Value, json};

mod calibrate;

pub use calibrate::{Calibration, calibrate};

use super::format::{FixedLabels, KEY, Packing};
use super::load::tensors::{LABEL_EMBEDDINGS, Loader, Numbers, Sink, TOKEN_TABLE, Target};
use super::{INDEX, Pace, SINGLE_FILE, Source, held, open, opened, required, shards, specs};
use crate::error::{Code, Error, Result};
use crate::kernels::Dtype;
use crate::model::{ParameterSpec, SiglipConfig, parameters};

/// How a tensor is written.
struct Written {
    spec: ParameterSpec,
    dtype: Dtype,
}

impl Written {
    /// The format's name for its numbers, its shape there and its length in bytes.
    fn layout(&self) -> (&'static str, Vec<usize>, usize) {
        let [rows, input] = self.spec.matrix();
        match self.dtype {
            Dtype::F32 => ("F32", self.spec.shape.clone(), 4 * rows * input),
            Dtype::F16 => ("F16", self.spec.shape.clone(), 2 * rows * input),
            Dtype::Q8 | Dtype::Q4 => {
                let words = self.dtype.row_words(input);
                ("U32", vec![rows, words], 4 * rows * words)
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
/// As [`Checkpoint::load_with`](super::Checkpoint::load_with); `bad-input` if `out` can't be written.
pub async fn convert(
    source: &impl Source,
    dtype: Dtype,
    labels: Option<(&FixedLabels, &[Vec<f32>])>,
    calibration: Option<&Calibration>,
    out: &mut impl Write,
    pace: &impl Pace,
) -> Result<()> {
    let config = required(source, "config.json").await?;
    if FixedLabels::from_config(&config)?.is_some() {
        return Err(Error::unsupported(
            "the checkpoint was converted for fixed labels already; convert the one that it was made from",
        ));
    }
    let config = SiglipConfig::from_json(&config)?;
    let all = parameters(&config);
    let mut files = Vec::new();
    let names = match source.open(SINGLE_FILE).await? {
        Some(reader) => {
            files.push(opened(SINGLE_FILE.into(), reader, &()).await?);
            Vec::new()
        }
        None => shards(source, &all).await?,
    };
    for name in names {
        let reader = open(source, &name).await?;
        files.push(opened(name, reader, &()).await?);
    }

    let mut written: Vec<Written> = specs(&config, labels.map(|(fixed, _)| fixed))
        .into_iter()
        .map(|spec| {
            let packed = spec.is_weight || spec.name == TOKEN_TABLE;
            let dtype = match packed {
                true => held(dtype, &spec),
                false => Dtype::F32,
            };
            Written { spec, dtype }
        })
        .collect();
    // Numbers of two bytes last, so that all are aligned.
    written.sort_by_key(|tensor| tensor.dtype == Dtype::F16);
    let mut header = Map::new();
    let packed: Vec<(String, Dtype)> = written
        .iter()
        .filter(|tensor| matches!(tensor.dtype, Dtype::Q8 | Dtype::Q4))
        .map(|tensor| (tensor.spec.name.clone(), tensor.dtype))
        .collect();
    header.insert(
        "__metadata__".into(),
        json!({"format": "pt", KEY: Packing::to_json(dtype, &packed)}),
    );
    let mut end = 0;
    for tensor in &written {
        let (format, shape, length) = tensor.layout();
        let offsets = [end, end + length];
        header.insert(
            tensor.spec.name.clone(),
            json!({"dtype": format, "shape": shape, "data_offsets": offsets}),
        );
        end += length;
    }
    let mut header = Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut write = |bytes: &[u8]| {
        out.write_all(bytes).map_err(|error| {
            Error::new(
                Code::BadInput,
                format!("{SINGLE_FILE} can't be written: {error}"),
            )
        })
    };
    write(&(header.len() as u64).to_le_bytes())?;
    write(&header)?;
    for tensor in &written {
        pace.step().await?;
        let name = &tensor.spec.name;
        if let (LABEL_EMBEDDINGS, Some((_, embeddings))) = (name.as_str(), labels) {
            let values = embeddings.iter().flatten();
            write(&values.flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
            continue;
        }
        let calibrated = calibration.and_then(|calibration| calibration.bytes(name, tensor.dtype));
        if let Some(bytes) = calibrated {
            write(&bytes)?;
            continue;
        }
        let found = files.iter_mut().find_map(|file| {
            let held = file
                .header
                .tensors
                .iter()
                .find(|t| t.name == *name)?
                .clone();
            Some((file, held))
        });
        let (file, held) = found.ok_or_else(|| {
            Error::bad_model(format!(
                "{SINGLE_FILE} or {INDEX} doesn't have the tensor {name}"
            ))
        })?;
        Loader::check_one(file, &held, &tensor.spec)?;
        let target = match tensor.dtype {
            Dtype::Q8 | Dtype::Q4 => Target::Packed(tensor.dtype),
            Dtype::F32 | Dtype::F16 => Target::Plain,
        };
        let mut sink = Sink::new(Loader::encoding(file, &held), target, tensor.spec.matrix());
        let reader = file.reader.as_mut().expect("opened above");
        let bytes = super::Reader::read_at(reader, held.offset, held.bytes).await?;
        if bytes.len() < held.bytes {
            return Err(Error::bad_model(format!(
                "{} ends in the middle of {name}; it was cut off: get it again",
                file.name
            )));
        }
        sink.push(&bytes);
        match sink.finish() {
            Numbers::None => {}
            Numbers::Plain(values) if tensor.dtype == Dtype::F16 => {
                let halves = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes());
                write(&halves.collect::<Vec<u8>>())?;
            }
            Numbers::Plain(values) => {
                write(
                    &values
                        .iter()
                        .flat_map(|v| v.to_le_bytes())
                        .collect::<Vec<u8>>(),
                )?;
            }
            Numbers::Packed(matrix) => {
                let words = matrix.words().iter();
                write(
                    &words
                        .flat_map(|word| word.to_le_bytes())
                        .collect::<Vec<u8>>(),
                )?;
            }
        }
    }
    Ok(())
}
