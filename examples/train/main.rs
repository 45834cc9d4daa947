//! Trains or fine-tunes a SigLIP checkpoint on a folder of pictures with captions.
//!
//! ```text
//! cargo run --release --example train -- --model DIR --data FOLDER --out DIR [--backend cpu|wgpu] [--init]
//!     [--freeze vision|text|scale]... [--epochs N | --steps N] [--batch N] [--lr R] [--held-out SHARE|FOLDER] [--resume]
//! ```
//!
//! `--model` is a checkpoint folder of any SigLIP, or SigLIP 2 of fixed resolution; with `--init` its weights are not read, only
//! its configuration, preprocessor and tokenizer. `--out` becomes such a folder: transformers and
//! [`Classifier`](siglip_web::Classifier) load it. README.md beside this file has the form of the data, a worked example of
//! fine-tuning on own labels with its figures, and what is saved when.
//!
//! What trains is the model of the crate itself with its preprocessing and tokenizer, on [`siglip_web::loss`].
#![cfg_attr(target_family = "wasm", no_main)] // a native program; wasm-pack compiles all there is
#![cfg(not(target_family = "wasm"))]

mod augment;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod initial;
mod parameters;
mod pictures;
mod state;
#[cfg(test)]
mod tests;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use siglip_web::Backend;
use siglip_web::checkpoint::StoredDtype;

use augment::Augmentation;
use common::{backend, bad_input, finish};
use data::HeldOut;

/// Trains or fine-tunes a SigLIP checkpoint on a folder of pictures with captions.
#[derive(Clone, Debug, Parser)]
#[command(name = "train")]
struct Options {
    /// Checkpoint folder to start from
    #[arg(long)]
    model: PathBuf,
    /// Folder of pictures with captions.csv (columns file, caption) or captions.jsonl beside them
    #[arg(long)]
    data: PathBuf,
    /// Folder for the trained checkpoint and the state to resume from
    #[arg(long)]
    out: PathBuf,
    /// Go on with the run that --out holds; begin where it holds none
    #[arg(long)]
    resume: bool,
    /// Random weights, as big_vision and transformers draw them, instead of the checkpoint's
    #[arg(long)]
    init: bool,
    /// Parts that stay as they are
    #[arg(long, value_enum, value_delimiter = ',')]
    freeze: Vec<Part>,
    /// What to compute on
    #[arg(long, value_parser = backend, default_value = "cpu")]
    backend: Backend,
    /// Held-out pictures: a share of the data drawn with the seed, or another folder with captions
    /// [default: those that the data's "split" says, else 0.1]
    #[arg(long)]
    held_out: Option<HeldOut>,
    /// Times that each picture is seen
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// Steps instead of epochs
    #[arg(long)]
    steps: Option<usize>,
    /// Pictures of one step
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Captions added to each step beside those of its pictures, drawn from all: negatives that need no picture
    #[arg(long, default_value_t = 0)]
    extra_captions: usize,
    /// Highest learning rate [default: 1e-4, or 1e-3 with --init]
    #[arg(long)]
    lr: Option<f64>,
    /// Steps in which the rate rises from 0; it falls to 0 along a cosine afterwards [default: a tenth of all]
    #[arg(long)]
    warmup: Option<usize>,
    /// Decay of weights per step and unit of the rate; norms, biases, scale and bias have none
    #[arg(long, default_value_t = 1e-4)]
    weight_decay: f32,
    /// Decay of AdamW's second moments
    #[arg(long, default_value_t = 0.95)]
    beta_2: f32,
    /// Largest norm of the gradient of all parameters together
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
    /// Start of the logit bias [default: the checkpoint's, or -10 with --init]
    #[arg(long, allow_hyphen_values = true)]
    logit_bias: Option<f32>,
    /// How pictures are varied
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["crop", "colour"])]
    augment: Vec<Augmentation>,
    /// Sentence around captions, with {} in their place; one of several is drawn, and the first is that of held-out captions
    #[arg(long = "template", default_values = ["{}"])]
    templates: Vec<String>,
    /// Decides over all that is random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Steps between two saved states
    #[arg(long, default_value_t = 100)]
    save_every: usize,
    /// Steps between two looks at the held-out pictures
    #[arg(long, default_value_t = 200)]
    eval_every: usize,
    /// Numbers of the trained checkpoint
    #[arg(long, value_parser = dtype, default_value = "f32")]
    dtype: StoredDtype,
    /// Memory for decoded pictures, in MiB; more are decoded again each time
    #[arg(long, default_value_t = 4096)]
    cache: usize,
    /// Stops after this step as a kill would: nothing is saved
    #[arg(skip)]
    killed_after: Option<usize>,
}

/// A part of the model that can be frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The vision tower
    Vision,
    /// The text tower
    Text,
    /// The logit scale and bias
    Scale,
}

fn dtype(word: &str) -> Result<StoredDtype, String> {
    match word {
        "f32" => Ok(StoredDtype::F32),
        "f16" => Ok(StoredDtype::F16),
        _ => Err("use f32 or f16".into()),
    }
}

fn main() -> ExitCode {
    finish(training::run(&Options::parse()).map(drop))
}
