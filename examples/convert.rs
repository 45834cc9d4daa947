//! Writes a checkpoint in fewer bits, for people who host their own: a smaller download, held as it is.
//!
//! ```text
//! cargo run --release --example convert -- IN OUT --dtype f16|q8|q4 [--labels FILE] [--template T]... [--shard 95MB]
//! ```
//!
//! IN is a checkpoint folder as the Hugging Face Hub has it; OUT gets the same files. `f16` weights are as transformers
//! has them; the words of `q8` and `q4` are described in the file's metadata and in `src/kernels/packed.rs`. For `q4` the weights are
//! rounded with a look at what goes through them (see `calibrate` in `src/checkpoint`), which halves the error that a page makes when it packs
//! them itself; it takes some minutes and the whole model's memory in f32.
//!
//! `--labels FILE`, with one label per line, makes a classifier of these labels only: their embeddings are written instead of the text
//! tower and the tokenizer, which is half the download. The labels are put into `--template` (default
//! "This is a photo of {}."); of several the embeddings are averaged.
//!
//! `--shard 95MB` splits the weights into files of at most that size, for hosts with a limit.
#![cfg_attr(target_family = "wasm", no_main)] // a native program; wasm-pack compiles all there is
#![cfg(not(target_family = "wasm"))]

mod common;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use common::{bad_input, dtype, finish, print};
use siglip_web::checkpoint::format::FixedLabels;
use siglip_web::checkpoint::{Converted, convert_folder};
use siglip_web::classifier::DEFAULT_TEMPLATE;
use siglip_web::{Backend, Classifier, Dtype, Result};

/// Writes a checkpoint in fewer bits, for people who host their own.
#[derive(Parser)]
#[command(name = "convert")]
struct Arguments {
    /// Checkpoint folder
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Folder for the converted checkpoint
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// How the weights are held: f16, q8 or q4
    #[arg(long, value_parser = fewer_bits)]
    dtype: Dtype,
    /// File of labels, one per line: makes a classifier of these alone, without a text tower
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Sentence with {} where such a label goes; several are averaged
    #[arg(long = "template", requires = "labels", default_values = [DEFAULT_TEMPLATE])]
    templates: Vec<String>,
    /// Splits the weights into files of at most this size, as in 95MB
    #[arg(long, value_name = "SIZE", value_parser = file_size)]
    shard: Option<u64>,
}

fn file_size(word: &str) -> std::result::Result<u64, String> {
    let bytes = match word.strip_suffix("MB") {
        Some(megabytes) => megabytes
            .parse()
            .ok()
            .and_then(|n: u64| n.checked_mul(1_000_000)),
        None => word.parse().ok(),
    };
    let size = bytes.filter(|bytes| *bytes > 0);
    size.ok_or_else(|| "give a size, as in 95MB or 95000000".into())
}

fn fewer_bits(word: &str) -> std::result::Result<Dtype, String> {
    let known = dtype(word).ok().filter(|dtype| *dtype != Dtype::F32);
    known.ok_or_else(|| "use f16, q8 or q4".into())
}

fn main() -> ExitCode {
    finish(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let fixed = match &arguments.labels {
        Some(file) => Some(embed(arguments, file)?),
        None => None,
    };
    let mut progress = |done, all| {
        eprint!("\rcalibrated {done} of {all} layers");
        if done == all {
            eprintln!();
        }
    };
    let labels = fixed
        .as_ref()
        .map(|(fixed, embeddings)| (fixed, embeddings.as_slice()));
    let out = &arguments.output;
    let Converted { bytes, files } = convert_folder(
        &arguments.input,
        out,
        arguments.dtype,
        labels,
        arguments.shard,
        &mut progress,
    )?;
    let split = match files {
        1 => String::new(),
        _ => format!(", in {files} files"),
    };
    print(format_args!(
        "{}: {:.1} MB{split}",
        out.join("model.safetensors").display(),
        bytes as f64 / 1e6
    ))
}

/// The labels of a file, one per line, and their embeddings.
fn embed(arguments: &Arguments, file: &Path) -> Result<(FixedLabels, Vec<Vec<f32>>)> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| bad_input(format!("{} can't be read: {error}", file.display())))?;
    // Editors of some systems begin a text with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let fixed = FixedLabels {
        labels: lines.map(str::to_owned).collect(),
        templates: arguments.templates.clone(),
    };
    let mut classifier = Classifier::load(&arguments.input, Backend::Cpu)?;
    let set = classifier.embed_labels(&fixed.labels, &fixed.templates)?;
    Ok((fixed, set.embeddings().map(<[f32]>::to_vec).collect()))
}
