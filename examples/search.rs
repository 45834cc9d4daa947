//! Searches a folder of pictures by words.
//!
//! ```text
//! cargo run --release --example search -- --model DIR --index FILE --images DIR "a red car" \
//!     [--minus WORDS]... [--like FILE]... [--limit N] [--min-score P] [--template T]... [--shard I/N] \
//!     [--backend cpu|wgpu] [--dtype f32|f16|q8|q4] [--json]
//! ```
//!
//! Pictures that are new or have changed are embedded first, those that are gone dropped; FILE is a safetensors file, the one that the page exports and
//! imports. Without words it indexes alone, without `--images` it searches alone.
#![cfg_attr(target_family = "wasm", no_main)] // a native program; wasm-pack compiles all there is
#![cfg(not(target_family = "wasm"))]

mod common;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clap::Parser;
use common::{backend, bad_input, dtype, finish, named, print, unreadable};
use rayon::prelude::*;
use serde_json::json;
use siglip_web::classifier::DEFAULT_TEMPLATE;
use siglip_web::preprocess::{self, Image, Input};
use siglip_web::search::{Entry, Index, Question, checksum};
use siglip_web::{Backend, Classifier, Code, Dtype, LoadOptions, Picture, Result};

/// Searches a folder of pictures by words.
#[derive(Parser)]
#[command(name = "search")]
struct Arguments {
    /// Checkpoint folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The index, a safetensors file; made where there is none
    #[arg(long, value_name = "FILE")]
    index: PathBuf,
    /// Folder of pictures to bring into it, folders within it too
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// What to look for; several are to be shown together
    words: Vec<String>,
    /// What pictures should not show
    #[arg(long, value_name = "WORDS")]
    minus: Vec<String>,
    /// Picture to be like; several count as their mean
    #[arg(long, value_name = "FILE")]
    like: Vec<PathBuf>,
    /// At most so many hits
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Only hits with at least this score, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    min_score: f64,
    /// Sentence with {} where the words go; several are averaged
    #[arg(long = "template", default_values = [DEFAULT_TEMPLATE])]
    templates: Vec<String>,
    /// Only part I of N of the pictures, to split them over machines with an index each
    #[arg(long, value_parser = shard, value_name = "I/N")]
    shard: Option<(u64, u64)>,
    /// What to compute on: cpu or wgpu
    #[arg(long, value_parser = backend, default_value = "cpu")]
    backend: Backend,
    /// How weights are held: f32, f16, q8 or q4
    #[arg(long, value_parser = dtype, default_value = "f32")]
    dtype: Dtype,
    /// Print a line of JSON for each hit
    #[arg(long)]
    json: bool,
}

fn shard(word: &str) -> std::result::Result<(u64, u64), String> {
    let parts = word.split_once('/').and_then(|(part, count)| {
        let (part, count): (u64, u64) = (part.parse().ok()?, count.parse().ok()?);
        (1..=count).contains(&part).then_some((part, count))
    });
    parts.ok_or_else(|| "write it as 2/8, the second of eight parts".into())
}

/// What the page takes for pictures, as far as this crate decodes them.
const PICTURES: [&str; 9] = [
    "jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp", "dib", "jpe",
];
/// Pictures that are decoded together, and then embedded.
const BATCH: usize = 32;
/// How much work a program that is killed may lose.
const SAVED: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    finish(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let options = LoadOptions::default().with_dtype(arguments.dtype);
    let mut classifier = Classifier::load_with(&arguments.model, arguments.backend, &options)?;
    let model = arguments.model.file_name().map_or_else(
        || arguments.model.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    let mut index = match arguments.index.exists() {
        true => Index::open(&arguments.index, &classifier, &model)?,
        false => Index::new(&classifier, &model),
    };
    if let Some(folder) = &arguments.images {
        update(&mut index, &mut classifier, folder, arguments)?;
    } else if !arguments.index.exists() {
        return Err(bad_input(format!(
            "there is no index {}: give --images DIR to make it",
            arguments.index.display()
        )));
    }
    if arguments.words.is_empty() && arguments.minus.is_empty() && arguments.like.is_empty() {
        return Ok(());
    }
    let question = question(&mut classifier, arguments)?;
    let hits = index.search(&question, arguments.limit);
    for hit in hits.iter().filter(|hit| hit.score >= arguments.min_score) {
        let (id, score) = (&hit.entry.id, hit.score);
        match arguments.json {
            true => {
                print(json!({"id": id, "score": score, "logit": hit.logit, "cosine": hit.cosine}))?
            }
            false => print(format_args!("{:6.2} %  {id}", 100.0 * score))?,
        }
    }
    Ok(())
}

fn question(classifier: &mut Classifier, arguments: &Arguments) -> Result<Question> {
    let mut words = Vec::new();
    for (list, minus) in [(&arguments.words, false), (&arguments.minus, true)] {
        if !list.is_empty() {
            let set = classifier.embed_labels(list, &arguments.templates)?;
            words.extend(set.embeddings().map(|vector| (vector.to_vec(), minus)));
        }
    }
    let mut pictures: Option<Vec<f32>> = None;
    for path in &arguments.like {
        let vector = classifier.embed_image(&read(path)?);
        let vector = vector.map_err(|error| named(path, &error))?;
        let sum = pictures.get_or_insert_with(|| vec![0.0; vector.len()]);
        sum.iter_mut().zip(vector).for_each(|(sum, v)| *sum += v);
    }
    if let Some(sum) = &mut pictures {
        let length = sum.iter().map(|v| v * v).sum::<f32>().sqrt();
        sum.iter_mut().for_each(|v| *v /= length);
    }
    Ok(Question {
        words,
        pictures,
        scale: f64::from(classifier.logit_scale()).exp(),
        bias: f64::from(classifier.logit_bias()),
    })
}

/// Brings the index up to the folder.
fn update(
    index: &mut Index,
    classifier: &mut Classifier,
    folder: &Path,
    arguments: &Arguments,
) -> Result<()> {
    let root = folder
        .canonicalize()
        .map_err(|error| unreadable(Code::Network, folder, &error))?;
    let name = root
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut files = Vec::new();
    walk(&root, &name, &mut files)?;
    if let Some((part, count)) = arguments.shard {
        // By the id, so that a picture stays in its part when others come and go.
        files.retain(|(entry, _)| checksum(entry.id.as_bytes()) % count == part - 1);
    }
    let here: HashSet<&str> = files.iter().map(|(entry, _)| entry.id.as_str()).collect();
    let within = format!("{name}/");
    let gone =
        index.retain(|entry| !entry.id.starts_with(&within) || here.contains(entry.id.as_str()));
    let total = files.len();
    let fresh: Vec<_> = files
        .iter()
        .filter(|(entry, _)| index.get(&entry.id).is_none_or(|(known, _)| known != entry))
        .collect();
    eprintln!(
        "{total} pictures in {}, {} of them new or changed; {gone} gone",
        folder.display(),
        fresh.len()
    );
    let input = classifier.checkpoint().preprocessor.input();
    let resample = classifier.checkpoint().preprocessor.resample();
    let (began, mut saved, mut done) = (Instant::now(), Instant::now(), 0);
    std::thread::scope(|scope| -> Result<()> {
        // The next pictures are decoded, on all cores, while the model is at the last ones.
        let (sender, decoded) = sync_channel(1);
        let fresh = &fresh;
        scope.spawn(move || {
            for batch in fresh.chunks(BATCH) {
                let images: Vec<Result<Image>> = batch
                    .par_iter()
                    .map(|(_, path)| {
                        let image = preprocess::decode(&read(path)?)?;
                        match input {
                            Input::Fixed { height, width } => {
                                image.resize_with(resample, width as u32, height as u32)
                            }
                            // Its size decides on its patches.
                            Input::Patches { .. } => Ok(image),
                        }
                    })
                    .collect();
                if sender.send((batch, images)).is_err() {
                    return;
                }
            }
        });
        for (batch, images) in decoded {
            let mut readable = Vec::new();
            for ((entry, path), image) in batch.iter().zip(images) {
                match image {
                    Ok(image) => {
                        readable.push((entry, image.width(), image.height(), image.to_rgba()))
                    }
                    Err(error) => eprintln!("{}: {}", path.display(), error.message()),
                }
            }
            let pictures: Vec<Picture> = readable
                .iter()
                .map(|(_, width, height, pixels)| Picture::Rgba {
                    width: *width,
                    height: *height,
                    pixels,
                })
                .collect();
            let embeddings = pollster::block_on(classifier.embed_images_async(&pictures, &()))?;
            for ((entry, ..), embedding) in readable.iter().zip(&embeddings) {
                index.insert((*entry).clone(), embedding);
            }
            done += batch.len();
            let speed = done as f64 / began.elapsed().as_secs_f64();
            eprint!(
                "\r{done} of {} pictures, {speed:.1} a second, {:.0} s left ",
                fresh.len(),
                (fresh.len() - done) as f64 / speed
            );
            if saved.elapsed() > SAVED {
                index.save(&arguments.index)?;
                saved = Instant::now();
            }
        }
        Ok(())
    })?;
    if done > 0 {
        eprintln!();
    }
    if done > 0 || gone > 0 || !arguments.index.exists() {
        index.save(&arguments.index)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| unreadable(Code::Network, path, &error))
}

/// The pictures in a folder, with their paths below it as ids, in the order of their names.
fn walk(folder: &Path, id: &str, files: &mut Vec<(Entry, PathBuf)>) -> Result<()> {
    let mut children: Vec<_> = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(|error| unreadable(Code::Network, folder, &error))?;
    children.sort_by_key(std::fs::DirEntry::file_name);
    for child in children {
        let name = child.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let (path, id) = (child.path(), format!("{id}/{name}"));
        // Of what a link leads to. One that leads nowhere is no picture.
        let Ok(metadata) = std::fs::metadata(&path) else {
            continue;
        };
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        if metadata.is_dir() {
            // A linked folder may hold the one that it is in.
            if !child.file_type().is_ok_and(|kind| kind.is_symlink()) {
                walk(&path, &id, files)?;
            }
        } else if PICTURES.iter().any(|known| *known == extension) {
            let time = metadata.modified().ok();
            let time = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let entry = Entry {
                id,
                size: Some(metadata.len()),
                modified: time.map(|time| time.as_millis() as f64),
            };
            files.push((entry, path));
        }
    }
    Ok(())
}
