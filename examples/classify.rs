//! Classifies pictures with any labels.
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

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use safetensors::tensor::{Dtype as Stored, TensorView};
use serde_json::json;
use siglip_web::classifier::DEFAULT_TEMPLATE;
use siglip_web::{
    Backend, Classifier, ClassifyOptions, Code, Dtype, Error, LoadOptions, Result, Scores, device,
    preprocess,
};

const USAGE: &str = "usage: classify --model DIR --image FILE... --labels \"a cat, a dog\" [--backend cpu|wgpu] \
[--dtype f32|f16|q8|q4|auto] [--template T]... [--scores sigmoid|softmax] [--top-k N] [--json] [--dump DIR]";

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            if error.code() == Code::BadInput {
                eprintln!("{USAGE}");
            }
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    model: PathBuf,
    images: Vec<PathBuf>,
    labels: Vec<String>,
    backend: Backend,
    dtype: Option<Dtype>,
    options: ClassifyOptions,
    json: bool,
    dump: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let (mut model, mut images, mut labels, mut dump) = (None, vec![], vec![], None);
        let (mut templates, mut scores, mut top_k) = (vec![], Scores::Sigmoid, None);
        let (mut backend, mut json) = (Backend::Cpu, false);
        let mut dtype = Some(Dtype::F32);
        // `--image a.png b.png`: words after the first file belong to it until the next flag.
        let mut in_images = false;
        while let Some(word) = words.next() {
            if !word.starts_with("--") && in_images {
                images.push(PathBuf::from(word));
                continue;
            }
            in_images = false;
            if word == "--json" {
                json = true;
                continue;
            }
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| bad_input(format!("{word} needs a value")))
            };
            match word.as_str() {
                "--model" => model = Some(PathBuf::from(value()?)),
                "--image" => {
                    images.push(PathBuf::from(value()?));
                    in_images = true;
                }
                "--labels" => labels.extend(
                    value()?
                        .split([',', '\n'])
                        .map(|label| label.trim().to_owned())
                        .filter(|label| !label.is_empty()),
                ),
                "--backend" => {
                    backend = match value()?.as_str() {
                        "cpu" => Backend::Cpu,
                        "wgpu" | "webgpu" => Backend::WebGpu,
                        other => {
                            return Err(bad_input(format!("--backend {other}: use cpu or wgpu")));
                        }
                    }
                }
                "--dtype" => {
                    dtype = match value()?.as_str() {
                        "auto" => None,
                        word => Some(Dtype::from_word(word).ok_or_else(|| {
                            bad_input(format!("--dtype {word}: use f32, f16, q8, q4 or auto"))
                        })?),
                    }
                }
                "--template" => templates.push(value()?),
                "--scores" => {
                    scores = match value()?.as_str() {
                        "sigmoid" => Scores::Sigmoid,
                        "softmax" => Scores::Softmax,
                        other => {
                            return Err(bad_input(format!(
                                "--scores {other}: use sigmoid or softmax"
                            )));
                        }
                    }
                }
                "--top-k" => {
                    let value = value()?;
                    top_k = Some(
                        value
                            .parse()
                            .map_err(|_| bad_input(format!("--top-k {value}: not a number")))?,
                    );
                }
                "--dump" => dump = Some(PathBuf::from(value()?)),
                other => return Err(bad_input(format!("{other} is not a flag"))),
            }
        }
        if templates.is_empty() {
            templates.push(DEFAULT_TEMPLATE.to_owned());
        }
        if images.is_empty() {
            return Err(bad_input("--image is missing"));
        }
        Ok(Self {
            model: model.ok_or_else(|| bad_input("--model is missing"))?,
            images,
            labels,
            backend,
            dtype,
            options: ClassifyOptions {
                templates,
                scores,
                top_k,
            },
            json,
            dump,
        })
    }
}

fn bad_input(message: impl Into<String>) -> Error {
    Error::new(Code::BadInput, message)
}

fn run(arguments: &Arguments) -> Result<()> {
    let device = device::open(arguments.backend)?;
    let mut options = LoadOptions::default();
    options.dtype = arguments.dtype;
    let mut classifier = Classifier::load_with_options(&arguments.model, &device, &options)?;
    for path in &arguments.images {
        let bytes = read(path)?;
        let results = classifier
            .classify(&bytes, &arguments.labels, &arguments.options)
            .map_err(|error| {
                Error::new(
                    error.code(),
                    format!("{}: {}", path.display(), error.message()),
                )
            })?;
        if arguments.json {
            let results: Vec<_> = results
                .iter()
                .map(|r| json!({"label": r.label, "score": r.score, "logit": r.logit}))
                .collect();
            println!("{}", json!({"image": path, "results": results}));
        } else {
            println!("{}", path.display());
            for result in results {
                println!("  {:6.2} %  {}", 100.0 * result.score, result.label);
            }
        }
    }
    match &arguments.dump {
        Some(directory) => dump(arguments, &mut classifier, directory),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Error::new(
            Code::BadImage,
            format!("{} can't be read: {error}", path.display()),
        )
    })
}

/// Writes what every stage computed, for comparison with another implementation.
fn dump(arguments: &Arguments, classifier: &mut Classifier, directory: &Path) -> Result<()> {
    let (mut pixels, mut image_embeds) = (vec![], vec![]);
    for path in &arguments.images {
        let bytes = read(path)?;
        let image = preprocess::decode(&bytes)?;
        pixels.extend(classifier.checkpoint().preprocessor.pixel_values(&image));
        image_embeds.extend(classifier.embed_image(&bytes)?);
    }
    let prompts: Vec<String> = arguments
        .labels
        .iter()
        .flat_map(|label| {
            arguments
                .options
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
