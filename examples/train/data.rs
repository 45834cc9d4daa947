//! The captions file of a data folder: which pictures there are, and what is true of each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rand::seq::SliceRandom;
use serde::Deserialize;
use siglip_web::{Code, Error, Result};
use twox_hash::XxHash3_128;

use crate::bad_input;
use crate::training::random;

/// Where held-out pictures come from.
#[derive(Clone, Debug, PartialEq)]
pub enum HeldOut {
    /// This share of the data.
    Share(f64),
    /// Another folder.
    Folder(PathBuf),
}

impl FromStr for HeldOut {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.parse::<f64>() {
            Ok(share) if (0.0..1.0).contains(&share) => Ok(HeldOut::Share(share)),
            Ok(_) => Err("a share is from 0 to less than 1".into()),
            Err(_) => Ok(HeldOut::Folder(word.into())),
        }
    }
}

/// A picture and what is true of it.
#[derive(Clone, Debug)]
pub struct Example {
    /// The picture.
    pub file: PathBuf,
    /// Where the captions file speaks of it first, for messages.
    pub place: String,
    /// Its captions, as indices into [`DataSet::captions`].
    pub captions: Vec<usize>,
    /// Captions of which nobody knows whether they are true of it: left out of the loss.
    pub unknown: Vec<usize>,
    held_out: Option<bool>,
}

impl Example {
    /// `z` of the loss: 1 if the caption is true of the picture, −1 if not, 0 if unknown.
    pub fn target(&self, caption: usize) -> f32 {
        match () {
            () if self.captions.contains(&caption) => 1.0,
            () if self.unknown.contains(&caption) => 0.0,
            () => -1.0,
        }
    }
}

/// Pictures for training, pictures held out, and the captions of both.
#[derive(Debug, Default)]
pub struct DataSet {
    /// To train on.
    pub train: Vec<Example>,
    /// To measure on.
    pub held_out: Vec<Example>,
    /// Every caption once.
    pub captions: Vec<String>,
}

impl DataSet {
    /// Reads `folder`'s captions and splits them.
    pub fn read(folder: &Path, held_out: Option<&HeldOut>, seed: u64) -> Result<Self> {
        let mut captions = Captions::default();
        let mut examples = read_folder(folder, &mut captions)?;
        let says = examples.iter().any(|example| example.held_out.is_some());
        let mut data = Self::default();
        match held_out {
            None if says => {
                (data.held_out, data.train) = examples
                    .into_iter()
                    .partition(|example| example.held_out == Some(true));
            }
            Some(HeldOut::Folder(other)) => {
                data.train = examples;
                data.held_out = read_folder(other, &mut captions)?;
            }
            share => {
                let share = match share {
                    Some(HeldOut::Share(share)) => *share,
                    _ => 0.1,
                };
                let mut count = (share * examples.len() as f64).round() as usize;
                if share > 0.0 && examples.len() > 1 {
                    count = count.clamp(1, examples.len() - 1);
                }
                examples.shuffle(&mut random(seed, "split", 0, 0));
                data.train = examples.split_off(count);
                data.held_out = examples;
            }
        }
        if data.train.is_empty() {
            return Err(bad_input(format!(
                "{}: all pictures are held out, none is left to train on",
                folder.display()
            )));
        }
        data.captions = captions.texts;
        Ok(data)
    }

    /// Changes if a picture's name or caption does, or the split.
    pub fn fingerprint(&self) -> String {
        let mut bytes = Vec::new();
        for examples in [&self.train, &self.held_out] {
            for example in examples {
                // Only the name: a folder may move between two parts of a run.
                bytes.extend(
                    example
                        .file
                        .file_name()
                        .unwrap_or_default()
                        .as_encoded_bytes(),
                );
                for list in [&example.captions, &example.unknown] {
                    bytes.push(0);
                    for caption in list {
                        bytes.extend(self.captions[*caption].as_bytes());
                        bytes.push(1);
                    }
                }
            }
            bytes.push(2);
        }
        format!("{:032x}", XxHash3_128::oneshot(&bytes))
    }
}

/// Distinct captions, numbered.
#[derive(Default)]
struct Captions {
    texts: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Captions {
    fn number(&mut self, text: &str) -> usize {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), self.texts.len() - 1);
        self.texts.len() - 1
    }
}

/// One line of a captions file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    file: String,
    #[serde(default)]
    caption: Option<String>,
    #[serde(default)]
    captions: Vec<String>,
    #[serde(default)]
    unknown: Vec<String>,
    #[serde(default)]
    split: Option<String>,
}

/// The pictures of one folder, in the order in which its captions file names them.
fn read_folder(folder: &Path, captions: &mut Captions) -> Result<Vec<Example>> {
    let (name, bytes) = captions_file(folder)?;
    let lines = match name {
        "captions.csv" => csv_lines(&bytes)?,
        _ => json_lines(&bytes)?,
    };
    let mut examples: Vec<Example> = Vec::new();
    let mut numbers: HashMap<PathBuf, usize> = HashMap::new();
    for (number, line) in lines {
        let place = format!("{name}, line {number}");
        let file = line.file.trim();
        if file.is_empty() {
            return Err(bad_input(format!("{place}: the file's name is empty")));
        }
        let path = folder.join(file);
        if !path.is_file() {
            return Err(bad_input(format!(
                "{place}: {file} is not in {}",
                folder.display()
            )));
        }
        let mut texts: Vec<&str> = line.captions.iter().map(String::as_str).collect();
        texts.extend(line.caption.as_deref());
        if texts.is_empty() {
            return Err(bad_input(format!("{place}: {file} has no caption")));
        }
        let held_out = match line.split.as_deref().map(str::trim) {
            None | Some("") => None,
            Some("train") => Some(false),
            Some("held-out") => Some(true),
            Some(other) => {
                return Err(bad_input(format!(
                    "{place}: the split {other:?} is unknown; use \"train\" or \"held-out\""
                )));
            }
        };
        let index = *numbers.entry(path.clone()).or_insert_with(|| {
            examples.push(Example {
                file: path,
                place: place.clone(),
                captions: Vec::new(),
                unknown: Vec::new(),
                held_out,
            });
            examples.len() - 1
        });
        let example = &mut examples[index];
        if example.held_out != held_out {
            return Err(bad_input(format!(
                "{place}: {file} is in another split than in {}",
                example.place
            )));
        }
        let mut add = |texts: &[&str], unknown: bool| {
            for text in texts {
                let text = text.trim();
                if text.is_empty() {
                    return Err(bad_input(format!("{place}: {file} has an empty caption")));
                }
                let list = match unknown {
                    false => &mut example.captions,
                    true => &mut example.unknown,
                };
                let number = captions.number(text);
                if !list.contains(&number) {
                    list.push(number);
                }
            }
            Ok(())
        };
        add(&texts, false)?;
        let unknown: Vec<&str> = line.unknown.iter().map(String::as_str).collect();
        add(&unknown, true)?;
    }
    if examples.is_empty() {
        return Err(bad_input(format!(
            "{} names no pictures",
            folder.join(name).display()
        )));
    }
    Ok(examples)
}

/// The name and bytes of the captions file that `folder` has.
fn captions_file(folder: &Path) -> Result<(&'static str, Vec<u8>)> {
    let names = ["captions.csv", "captions.jsonl"];
    let mut there = names.into_iter().filter(|name| folder.join(name).is_file());
    let (Some(name), None) = (there.next(), there.next()) else {
        return Err(bad_input(format!(
            "{} must have one of captions.csv and captions.jsonl, which say what its pictures show",
            folder.display()
        )));
    };
    let bytes = std::fs::read(folder.join(name)).map_err(|error| {
        Error::new(
            Code::BadInput,
            format!("{} can't be read: {error}", folder.join(name).display()),
        )
    })?;
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    Ok((name, bytes))
}

fn csv_lines(bytes: &[u8]) -> Result<Vec<(u64, Line)>> {
    let mut reader = csv::Reader::from_reader(bytes);
    let bad = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        bad_input(format!("captions.csv, line {line}: {error}"))
    };
    let headers = reader.headers().map_err(bad)?.clone();
    for wanted in ["file", "caption"] {
        if !headers.iter().any(|header| header == wanted) {
            return Err(bad_input(format!(
                "captions.csv, line 1: there is no column {wanted:?}; the first line names the columns: file,caption \
                 and, if wanted, split"
            )));
        }
    }
    let mut lines = Vec::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        let number = record.position().map_or(0, csv::Position::line);
        let line = record.deserialize(Some(&headers)).map_err(bad)?;
        lines.push((number, line));
    }
    Ok(lines)
}

fn json_lines(bytes: &[u8]) -> Result<Vec<(u64, Line)>> {
    let text = str::from_utf8(bytes)
        .map_err(|error| bad_input(format!("captions.jsonl is not UTF-8: {error}")))?;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let line = serde_json::from_str(line).map_err(|error| {
            bad_input(format!(
                "captions.jsonl, line {number}: {error}; a line is {{\"file\": …, \"captions\": [\"…\"]}}"
            ))
        })?;
        lines.push((number, line));
    }
    Ok(lines)
}
