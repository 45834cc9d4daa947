//! A whole folder anew: the weights in fewer bits, and what a checkpoint has beside them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use burn::tensor::Device;

use super::{calibrate, convert};
use crate::checkpoint::format::{FixedLabels, config_with_labels, remove_quantization};
use crate::checkpoint::load::SINGLE_FILE;
use crate::checkpoint::{Checkpoint, Folder, LoadOptions, shard};
use crate::error::{Error, Result};
use crate::json;
use crate::kernels::Dtype;

/// What a checkpoint has beside its weights, in any of the forms that are read; transformers 5 writes `processor_config.json`.
const FILES: [&str; 3] = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
];
/// What one with a text tower has; SentencePiece's own files where there is no `tokenizer.json`.
const TEXT_FILES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "spiece.model",
    "tokenizer.model",
];

/// What [`convert_folder`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Of the weights.
    pub bytes: u64,
    /// That the weights are in.
    pub files: usize,
}

/// Writes the checkpoint in the folder `input` in fewer bits into the folder `out`, which is made where it is missing, and loads what was
/// written. The labels are as for [`convert`]; for [`Dtype::Q4`] the weights are calibrated first, of which `progress` is told (see
/// [`calibrate`]). With `limit`, weights of more bytes are split into files of at most so many (see [`shard`]).
///
/// The weights take the place of those that were there when they are whole.
///
/// # Errors
/// As [`convert`]; `bad-input` if `out` is `input`, or a file can't be read or written.
pub fn convert_folder(
    input: &Path,
    out: &Path,
    dtype: Dtype,
    labels: Option<(&FixedLabels, &[Vec<f32>])>,
    limit: Option<u64>,
    progress: &mut impl FnMut(usize, usize),
) -> Result<Converted> {
    let source = Folder::new(input)?;
    std::fs::create_dir_all(out).map_err(|error| unwritable(out, &error))?;
    let place = |path: &Path| std::fs::canonicalize(path).ok();
    if place(out) == place(input) {
        return Err(Error::bad_input(format!(
            "{} is the checkpoint itself; give another folder for what is written",
            out.display()
        )));
    }
    let calibration = match dtype {
        Dtype::Q4 => {
            let text = labels.is_none();
            Some(pollster::block_on(calibrate(&source, text, &(), progress))?)
        }
        _ => None,
    };
    let weights = out.join(SINGLE_FILE);
    let part = out.join(format!("{SINGLE_FILE}.part"));
    let written = File::create(&part)
        .map_err(|error| unwritable(&part, &error))
        .and_then(|file| {
            let mut file = BufWriter::new(file);
            let calibration = calibration.as_ref();
            pollster::block_on(convert(&source, dtype, labels, calibration, &mut file, &()))?;
            file.flush()
                .and_then(|()| std::fs::rename(&part, &weights))
                .map_err(|error| unwritable(&weights, &error))
        });
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written?;

    let text_files: &[&str] = match labels {
        Some(_) => &[],
        None => &TEXT_FILES,
    };
    for name in FILES.iter().chain(text_files) {
        let from = input.join(name);
        let mut bytes = match std::fs::read(&from) {
            Ok(bytes) => bytes,
            // Which ones a checkpoint needs is seen when it is loaded.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(Error::bad_input(format!(
                    "{} can't be read: {error}",
                    from.display()
                )));
            }
        };
        if *name == "config.json" {
            bytes = config(bytes, labels.map(|(fixed, _)| fixed))?;
        }
        let to = out.join(name);
        std::fs::write(&to, bytes).map_err(|error| unwritable(&to, &error))?;
    }
    let bytes = std::fs::metadata(&weights).map_or(0, |metadata| metadata.len());
    let files = limit.map_or(Ok(1), |limit| shard(out, limit))?;
    Checkpoint::load(&Folder::new(out)?, &LoadOptions::default(), &Device::flex())?;
    Ok(Converted { bytes, files })
}

/// `config.json` for what is written: as it was, but for what is other now.
fn config(bytes: Vec<u8>, fixed: Option<&FixedLabels>) -> Result<Vec<u8>> {
    let readable = json::without_constants(bytes.clone());
    let mut config = json::parse("config.json", &readable)?;
    let unquantized = remove_quantization(&mut config)
        .then(|| serde_json::to_vec_pretty(&config).expect("it was JSON"));
    match fixed {
        Some(fixed) => config_with_labels(&unquantized.unwrap_or(readable), fixed),
        None => Ok(unquantized.unwrap_or(bytes)),
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::bad_input(format!("{} can't be written: {error}", path.display()))
}
