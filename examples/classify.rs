//! Classifies pictures with any labels, or with those of a fine-tuned classifier, which takes no `--labels`.
//!
//! ```text
//! cargo run --release --example classify -- --model DIR --image FILE... --labels "a cat, a dog" \
//!     [--backend cpu|wgpu] [--dtype f32|f16|q8|q4|auto] [--template T]... [--scores sigmoid|softmax] [--top-k N] [--json] [--dump DIR]
//! ```
//!
//! `--json` prints one line per picture; `--dump DIR` writes `DIR/siglip.safetensors` with `pixel_values`
//! `[images, 3, height, width]`, `input_ids` `[texts, context]`, `image_embeds` and `text_embeds` `[.., hidden]`.
#![cfg_attr(target_family = "wasm", no_main)] // a native program; wasm-pack compiles all there is
#![cfg(not(target_family = "wasm"))]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use common::{backend, bad_input, dtype, finish, named, print, unreadable};
use safetensors::tensor::{Dtype as Stored, TensorView};
use serde_json::json;
use siglip_web::classifier::DEFAULT_TEMPLATE;
use siglip_web::{
    Backend, Classifier, ClassifyOptions, Code, Dtype, Labels, LoadOptions, Result, Scores,
    preprocess,
};

/// Classifies pictures with any labels.
#[derive(Parser)]
#[command(name = "classify")]
struct Arguments {
    /// Checkpoint folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Pictures: JPEG, PNG, WebP, GIF or BMP
    #[arg(long = "image", value_name = "FILE", required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    /// Labels, separated by commas or new lines; left out for a model with labels of its own
    #[arg(long)]
    labels: Vec<String>,
    /// What to compute on: cpu or wgpu
    #[arg(long, value_parser = backend, default_value = "cpu")]
    backend: Backend,
    /// How weights are held: f32, f16, q8, q4, or auto, which takes what suits the size
    #[arg(long, value_parser = dtype_or_auto, default_value = "f32")]
    dtype: Auto,
    /// Patches that a NaFlex model sees of a picture at most: 1 to 1024
    #[arg(long, value_name = "N")]
    max_patches: Option<usize>,
    /// Sentence with {} where the label goes; several are averaged
    #[arg(long = "template", default_values = [DEFAULT_TEMPLATE])]
    templates: Vec<String>,
    /// Each label by itself (sigmoid), or all competing (softmax); by default as the model was trained
    #[arg(long, value_parser = scores)]
    scores: Option<Scores>,
    /// Only the best so many labels
    #[arg(long)]
    top_k: Option<usize>,
    /// Print a line of JSON for each picture
    #[arg(long)]
    json: bool,
    /// Folder for a safetensors file with what every stage computed
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
}

/// None: the library decides.
type Auto = Option<Dtype>;

fn dtype_or_auto(word: &str) -> std::result::Result<Auto, String> {
    match word {
        "auto" => Ok(None),
        _ => dtype(word)
            .map(Some)
            .map_err(|what| format!("{what}, or auto")),
    }
}

fn scores(word: &str) -> std::result::Result<Scores, String> {
    match word {
        "sigmoid" => Ok(Scores::Sigmoid),
        "softmax" => Ok(Scores::Softmax),
        _ => Err("use sigmoid or softmax".into()),
    }
}

fn main() -> ExitCode {
    finish(run(&Arguments::parse()))
}

impl Arguments {
    fn labels(&self) -> Vec<&str> {
        let parts = self.labels.iter().flat_map(|list| list.split([',', '\n']));
        parts
            .map(str::trim)
            .filter(|label| !label.is_empty())
            .collect()
    }

    fn options(&self) -> ClassifyOptions {
        let mut options = ClassifyOptions::default().with_templates(&self.templates);
        options.scores = self.scores;
        options.top_k = self.top_k;
        options
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut options = LoadOptions::default();
    options.dtype = arguments.dtype;
    options.max_patches = arguments.max_patches;
    let mut classifier = Classifier::load_with(&arguments.model, arguments.backend, &options)?;
    let labels = arguments.labels();
    let options = arguments.options();
    for path in &arguments.images {
        let labels = match labels.is_empty() {
            true => Labels::Own,
            false => Labels::from(&labels),
        };
        let results = classifier
            .classify(&read(path)?, labels, &options)
            .map_err(|error| named(path, &error))?;
        if arguments.json {
            print(json!({"image": path.to_string_lossy(), "results": results}))?;
        } else {
            print(path.display())?;
            for result in results {
                print(format_args!(
                    "  {:6.2} %  {}",
                    100.0 * result.score,
                    result.label
                ))?;
            }
        }
    }
    match &arguments.dump {
        Some(directory) => dump(arguments, &mut classifier, directory),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| unreadable(Code::BadImage, path, &error))
}

/// Writes what every stage computed, for comparison with another implementation.
fn dump(arguments: &Arguments, classifier: &mut Classifier, directory: &Path) -> Result<()> {
    if let preprocess::Input::Patches { .. } = classifier.checkpoint().preprocessor.input() {
        return Err(bad_input(
            "--dump writes the pixel values of all pictures as one tensor, and this model takes each picture in its own size; use --json",
        ));
    }
    let (mut pixels, mut image_embeds) = (vec![], vec![]);
    for path in &arguments.images {
        let bytes = read(path)?;
        let image = preprocess::decode(&bytes)?;
        pixels.extend(classifier.checkpoint().preprocessor.pixel_values(&image));
        image_embeds.extend(classifier.embed_image(&bytes)?);
    }
    let prompts: Vec<String> = arguments
        .labels()
        .iter()
        .flat_map(|label| {
            arguments
                .templates
                .iter()
                .map(move |t| t.replace("{}", label))
        })
        .collect();
    let mut ids: Vec<i64> = vec![];
    for prompt in &prompts {
        ids.extend(
            classifier
                .checkpoint()
                .tokenizer
                .as_ref()
                .ok_or_else(|| bad_input("--dump needs a model with a text tower"))?
                .encode(prompt)?
                .into_iter()
                .map(i64::from),
        );
    }
    let text_embeds = classifier.embed_text(&prompts)?.concat();

    let (images, texts) = (arguments.images.len(), prompts.len());
    let side = classifier.config().vision.image_size;
    let floats = |values: &[f32]| {
        values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let parts: BTreeMap<&str, (Stored, Vec<usize>, Vec<u8>)> = BTreeMap::from([
        (
            "pixel_values",
            (Stored::F32, vec![images, 3, side, side], floats(&pixels)),
        ),
        (
            "input_ids",
            (
                Stored::I64,
                vec![texts, ids.len() / texts],
                ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
            ),
        ),
        (
            "image_embeds",
            (
                Stored::F32,
                vec![images, image_embeds.len() / images],
                floats(&image_embeds),
            ),
        ),
        (
            "text_embeds",
            (
                Stored::F32,
                vec![texts, text_embeds.len() / texts],
                floats(&text_embeds),
            ),
        ),
    ]);
    let views = parts.iter().map(|(name, (dtype, shape, bytes))| {
        let view =
            TensorView::new(*dtype, shape.clone(), bytes).expect("sizes follow from the shapes");
        (*name, view)
    });
    let file = directory.join("siglip.safetensors");
    let unwritable = |error: &dyn std::fmt::Display| {
        bad_input(format!("{} can't be written: {error}", file.display()))
    };
    std::fs::create_dir_all(directory).map_err(|error| unwritable(&error))?;
    let bytes = safetensors::serialize(views, None).map_err(|error| unwritable(&error))?;
    std::fs::write(&file, bytes).map_err(|error| unwritable(&error))
}
