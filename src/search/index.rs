//! An index as a file, which programs and the page share.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::{MARGIN, PIPELINE, Question, Rows};
use crate::Classifier;
use crate::classifier::is_unit;
use crate::error::{Error, Result};

/// What the file's metadata says.
const FORMAT: &str = "siglip-web index 1";

/// What a picture in an index is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is known by: its path.
    pub id: String,
    /// Bytes of its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// When its file was changed last, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<f64>,
}

/// A picture that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit<'a> {
    /// Which it is.
    pub entry: &'a Entry,
    /// See [`Found`](super::Found).
    pub score: f64,
    /// See [`Found`](super::Found).
    pub logit: f64,
    /// See [`Found`](super::Found).
    pub cosine: f64,
}

/// Pictures and their embeddings by one model.
///
/// As a file it is safetensors: `embeddings` (F32, `[pictures, numbers]`), `entries` (U8, the JSON of an array of [`Entry`] in the same order), and in the
/// metadata `format`, `model`, `dtype`, `fingerprint` and `pipeline`. `SiglipIndex` in the browser exports and imports the same.
pub struct Index {
    metadata: HashMap<String, String>,
    entries: Vec<Entry>,
    places: HashMap<String, usize>,
    rows: Rows,
    embeddings: Vec<f32>,
}

impl Index {
    /// An empty one for what `classifier` embeds; `model` is what messages call it.
    pub fn new(classifier: &Classifier, model: &str) -> Self {
        let metadata = [
            ("format", FORMAT.to_owned()),
            ("model", model.to_owned()),
            ("dtype", classifier.checkpoint().dtype.as_str().to_owned()),
            ("fingerprint", classifier.fingerprint().to_owned()),
            ("pipeline", PIPELINE.to_string()),
        ];
        Self {
            metadata: metadata.map(|(key, word)| (key.to_owned(), word)).into(),
            entries: Vec::new(),
            places: HashMap::new(),
            rows: Rows::new(classifier.config().vision.encoder.hidden_size),
            embeddings: Vec::new(),
        }
    }

    /// The index in a file, which must be of the same model, held in the same dtype.
    ///
    /// # Errors
    /// `network` if the file can't be read; `bad-input` if it is no index, damaged, or of another model: the message says of which.
    pub fn open(path: impl AsRef<Path>, classifier: &Classifier, model: &str) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| {
            Error::network(format!("{} can't be read: {error}", path.display()))
        })?;
        Self::parse(&bytes, classifier, model)
            .map_err(|error| Error::bad_input(format!("{} {}", path.display(), error.message())))
    }

    fn parse(bytes: &[u8], classifier: &Classifier, model: &str) -> Result<Self> {
        let damaged = |why: String| {
            Error::bad_input(format!(
                "is no index, or it is damaged: {why}; make it again"
            ))
        };
        let (_, header) =
            SafeTensors::read_metadata(bytes).map_err(|error| damaged(error.to_string()))?;
        let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(error.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let mut index = Self::new(classifier, model);
        let word =
            |all: &HashMap<String, String>, key: &str| all.get(key).cloned().unwrap_or_default();
        if word(&metadata, "format") != FORMAT {
            return Err(damaged(format!(
                "its metadata has format {:?}, not {FORMAT:?}",
                word(&metadata, "format")
            )));
        }
        let other = ["fingerprint", "dtype", "pipeline"]
            .iter()
            .any(|key| metadata.get(*key) != index.metadata.get(*key));
        if other {
            let of = |all| {
                format!(
                    "{} ({}, fingerprint {}, pipeline {})",
                    word(all, "model"),
                    word(all, "dtype"),
                    word(all, "fingerprint"),
                    word(all, "pipeline")
                )
            };
            return Err(Error::bad_input(format!(
                "was made by {}, and this is {}: their embeddings don't compare. Load that model, or give another file to index the pictures again",
                of(&metadata),
                of(&index.metadata)
            )));
        }
        let tensor = |name: &str, dtype: Dtype| {
            let tensor = file.tensor(name).ok();
            let tensor = tensor.filter(|tensor| tensor.dtype() == dtype);
            tensor.ok_or_else(|| damaged(format!("it has no {name} of {dtype:?}")))
        };
        let embeddings = tensor("embeddings", Dtype::F32)?;
        let entries: Vec<Entry> = serde_json::from_slice(tensor("entries", Dtype::U8)?.data())
            .map_err(|error| damaged(format!("entries: {error}")))?;
        let size = index.rows.size();
        if embeddings.shape() != [entries.len(), size] {
            return Err(damaged(format!(
                "embeddings are {:?}, and {:?} are needed",
                embeddings.shape(),
                [entries.len(), size]
            )));
        }
        let numbers = embeddings.data().as_chunks::<4>().0;
        let numbers: Vec<f32> = numbers
            .iter()
            .map(|four| f32::from_le_bytes(*four))
            .collect();
        let mut rows = numbers.chunks_exact(size);
        if let Some(row) = rows.position(|row| !is_unit(row)) {
            return Err(damaged(format!(
                "embedding {} has not the length 1",
                row + 1
            )));
        }
        index.rows.resize(entries.len());
        for (entry, embedding) in entries.into_iter().zip(numbers.chunks_exact(size)) {
            index.insert(entry, embedding);
        }
        Ok(index)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// `bad-input` if it can't be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let failed = |error: &dyn std::fmt::Display| {
            Error::bad_input(format!("{} can't be written: {error}", path.display()))
        };
        let entries = serde_json::to_vec(&self.entries).map_err(|error| failed(&error))?;
        let numbers: Vec<u8> = (self.embeddings.iter().flat_map(|v| v.to_le_bytes())).collect();
        let shape = vec![self.len(), self.rows.size()];
        let view = |dtype, shape, bytes| {
            TensorView::new(dtype, shape, bytes).expect("as many bytes as numbers")
        };
        let tensors = [
            ("embeddings", view(Dtype::F32, shape, &numbers)),
            ("entries", view(Dtype::U8, vec![entries.len()], &entries)),
        ];
        let bytes = safetensors::serialize(tensors, Some(self.metadata.clone()))
            .map_err(|error| failed(&error))?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        let new = path.with_file_name(name);
        std::fs::write(&new, bytes)
            // On the disk before the name points to it, or a power cut leaves an empty file.
            .and_then(|()| File::options().write(true).open(&new)?.sync_all())
            .and_then(|()| std::fs::rename(&new, path))
            .map_err(|error| failed(&error))
    }

    /// Pictures in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the pictures are.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The picture with this id, and its embedding.
    pub fn get(&self, id: &str) -> Option<(&Entry, &[f32])> {
        let place = *self.places.get(id)?;
        Some((&self.entries[place], self.embedding(place)))
    }

    fn embedding(&self, place: usize) -> &[f32] {
        let size = self.rows.size();
        &self.embeddings[place * size..][..size]
    }

    /// Adds a picture, or puts it in the place of the one with its id.
    ///
    /// # Panics
    /// For an embedding of another model's length.
    pub fn insert(&mut self, entry: Entry, embedding: &[f32]) {
        let size = self.rows.size();
        let place = match self.places.get(&entry.id) {
            Some(place) => *place,
            None => {
                let place = self.len();
                self.places.insert(entry.id.clone(), place);
                self.entries.push(entry.clone());
                self.embeddings.resize((place + 1) * size, 0.0);
                if self.rows.len() <= place {
                    self.rows.resize(place + 1);
                }
                place
            }
        };
        self.entries[place] = entry;
        self.embeddings[place * size..][..size].copy_from_slice(embedding);
        self.rows.set(place, embedding);
    }

    /// Drops the pictures for which `keep` says no. Gives how many.
    pub fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) -> usize {
        let kept: Vec<usize> = (0..self.len())
            .filter(|i| keep(&self.entries[*i]))
            .collect();
        let gone = self.len() - kept.len();
        if gone > 0 {
            let all = std::mem::take(&mut self.entries);
            let size = self.rows.size();
            let embeddings = std::mem::take(&mut self.embeddings);
            self.places.clear();
            self.rows = Rows::new(size);
            self.rows.resize(kept.len());
            let kept: HashSet<usize> = kept.into_iter().collect();
            for (i, entry) in all.into_iter().enumerate() {
                if kept.contains(&i) {
                    self.insert(entry, &embeddings[i * size..][..size]);
                }
            }
        }
        gone
    }

    /// The best pictures, at most `limit` of them.
    pub fn search(&self, question: &Question, limit: usize) -> Vec<Hit<'_>> {
        let candidates = question.candidates(&self.rows, limit.saturating_add(MARGIN));
        let found = question.rank(&candidates, |place| Some(self.embedding(place)));
        let hits = found.into_iter().take(limit).map(|found| Hit {
            entry: &self.entries[found.row],
            score: found.score,
            logit: found.logit,
            cosine: found.cosine,
        });
        hits.collect()
    }
}
