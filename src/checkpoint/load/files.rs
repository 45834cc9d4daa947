//! Which files a checkpoint's weights are in, and their headers: from the source, or as the store remembers them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use twox_hash::XxHash3_128;

use super::Hints;
use super::entry::{Entry, Kind, seal};
use super::layout::{Part, parameter, parts};
use crate::checkpoint::format::Packing;
use crate::checkpoint::{FileHeader, Reader, Source, Store};
use crate::error::{Code, Error, Result};
use crate::json;
use crate::model::ParameterSpec;

/// The weights, where they are in one file.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The weights in open_clip's layout.
const OPEN_CLIP_FILE: &str = "open_clip_model.safetensors";
/// The list of the files that the weights are in, where they are in several.
pub const INDEX: &str = "model.safetensors.index.json";

/// Version of [`Manifest`]; raise it when a field changes its meaning.
const MANIFEST_VERSION: u32 = 2;

/// What a store says of a whole checkpoint that it has, as JSON.
#[derive(Deserialize, Serialize)]
pub struct Manifest {
    version: u32,
    /// The dtype that the weights were loaded as.
    pub dtype: String,
    /// In the order in which they are loaded.
    pub files: Vec<ManifestFile>,
}

/// What a [`Manifest`] says of one file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ManifestFile {
    pub name: String,
    pub sha256: Option<String>,
    /// See [`Reader::validator`].
    pub validator: Option<String>,
    pub random_access: bool,
}

impl Manifest {
    pub fn new(dtype: &str, files: Vec<ManifestFile>) -> Self {
        Self {
            version: MANIFEST_VERSION,
            dtype: dtype.into(),
            files,
        }
    }

    /// What `store` has of an earlier load, if that came to its end.
    pub async fn recall(store: &impl Store) -> Option<Self> {
        let manifest: Self = serde_json::from_str(&store.manifest().await?).ok()?;
        (manifest.version == MANIFEST_VERSION && !manifest.files.is_empty()).then_some(manifest)
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers")
    }
}

/// Why weights weren't loaded.
pub enum Failure {
    /// What the store has belongs to another version of the file.
    Stale,
    /// Anything else.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// See [`WeightsFile::identity`].
pub type Identity = [u8; 16];

/// A file with its header, opened where something must be read from it.
pub struct WeightsFile<R> {
    pub about: ManifestFile,
    pub header_bytes: Vec<u8>,
    pub header: FileHeader,
    /// Which parameters its tensors are, in the order of the file.
    pub parts: Vec<Part>,
    pub packing: Packing,
    pub reader: Option<R>,
}

impl<R: Reader> WeightsFile<R> {
    /// Reads the header of a file that has just been opened, and puts it into `store`.
    pub async fn read(name: &str, mut reader: R, store: &impl Store) -> Result<Self> {
        let header_bytes = FileHeader::read_bytes(name, &mut reader).await?;
        let header = FileHeader::parse(name, &header_bytes, reader.size())?;
        if store.keeps() {
            // Whole words, the last filled up.
            let words: Vec<u32> = bytemuck::pod_collect_to_vec(&header_bytes);
            let key = header_key(name);
            let entry = seal(&key, Kind::Bytes, 0, &[], &[], &words);
            store.put_parts(&key, &entry.parts()).await;
        }
        let packing = Packing::from_metadata(name, &header.metadata)?;
        Ok(Self {
            about: ManifestFile {
                name: name.into(),
                sha256: reader.sha256(),
                validator: reader.validator(),
                random_access: reader.random_access(),
            },
            header_bytes,
            parts: parts(&header.tensors, &packing),
            packing,
            header,
            reader: Some(reader),
        })
    }

    /// The file as `store` knows it, not opened.
    pub async fn recall(about: ManifestFile, store: &impl Store) -> Result<Self, Failure> {
        let key = header_key(&about.name);
        let entry = (store.get_words(&key).await)
            .and_then(|words| Entry::open(&key, words, Kind::Bytes, 0))
            .ok_or(Failure::Stale)?;
        // Its own length stands before it; what fills the last word up is left out.
        let bytes: &[u8] = bytemuck::cast_slice(&entry.words);
        let length = bytes
            .first_chunk()
            .map_or(0, |length| 8 + u64::from_le_bytes(*length) as usize);
        let header_bytes = bytes.get(..length).ok_or(Failure::Stale)?.to_vec();
        let header = FileHeader::parse(&about.name, &header_bytes, None)?;
        let packing = Packing::from_metadata(&about.name, &header.metadata)?;
        Ok(Self {
            about,
            header_bytes,
            parts: parts(&header.tensors, &packing),
            packing,
            header,
            reader: None,
        })
    }
}

impl<R> WeightsFile<R> {
    /// Which file it is, beyond its name: what is kept of its tensors and rows is bound to this.
    pub fn identity(&self) -> Identity {
        let mut hash = XxHash3_128::new();
        hash.write(&self.header_bytes);
        for known in [&self.about.sha256, &self.about.validator] {
            // None and an empty text differ.
            hash.write(&[u8::from(known.is_some())]);
            hash.write(known.as_deref().unwrap_or_default().as_bytes());
        }
        hash.finish_128().to_le_bytes()
    }

    /// As messages and progress call it.
    pub fn name(&self) -> &str {
        &self.about.name
    }
}

/// Under which name the store has a file's header.
fn header_key(file: &str) -> String {
    format!("header/{file}")
}

/// A file that the source has; it may be open already.
pub struct Fresh<R> {
    name: String,
    reader: Option<R>,
}

impl<R: Reader> Fresh<R> {
    /// The files with a checkpoint's weights.
    pub async fn list<S: Source<Reader = R>>(
        source: &S,
        specs: &[ParameterSpec],
        hints: &Hints,
    ) -> Result<Vec<Self>> {
        let own: &[&str] = match hints.open_clip {
            // Some have the same weights in a form of their own beside it.
            true => &[OPEN_CLIP_FILE, SINGLE_FILE],
            false => &[SINGLE_FILE],
        };
        for name in own {
            if let Some(reader) = source.open(name).await? {
                return Ok(vec![Self {
                    name: (*name).into(),
                    reader: Some(reader),
                }]);
            }
        }
        let index = parsed(source, async || match optional(source, INDEX).await? {
            Some(index) => shard_names(&index, specs).map(Some),
            None => Ok(None),
        });
        match index.await? {
            Some(names) => {
                let names = names.into_iter();
                Ok(names.map(|name| Self { name, reader: None }).collect())
            }
            None => Err(no_weights(source, hints).await),
        }
    }

    /// With its header; what is read of it is put into `store`.
    pub async fn open<S: Source<Reader = R>>(
        self,
        source: &S,
        store: &impl Store,
    ) -> Result<WeightsFile<R>> {
        let reader = match self.reader {
            Some(reader) => reader,
            None => open(source, &self.name).await?,
        };
        WeightsFile::read(&self.name, reader, store).await
    }
}

/// A file whose header is still to be read.
pub enum Listed<R> {
    /// The store has it.
    Stored(ManifestFile),
    /// The source has it.
    Fresh(Fresh<R>),
}

impl<R: Reader> Listed<R> {
    /// The files that `manifest` names, or those of the source.
    pub async fn list<S: Source<Reader = R>>(
        manifest: Option<&Manifest>,
        source: &S,
        specs: &[ParameterSpec],
        hints: &Hints,
    ) -> Result<Vec<Self>> {
        Ok(match manifest {
            Some(manifest) => manifest.files.iter().cloned().map(Self::Stored).collect(),
            None => {
                let fresh = Fresh::list(source, specs, hints).await?.into_iter();
                fresh.map(Self::Fresh).collect()
            }
        })
    }

    /// With its header.
    pub async fn open<S: Source<Reader = R>>(
        self,
        source: &S,
        store: &impl Store,
    ) -> Result<WeightsFile<R>, Failure> {
        match self {
            Self::Stored(about) => WeightsFile::recall(about, store).await,
            Self::Fresh(fresh) => Ok(fresh.open(source, store).await?),
        }
    }
}

/// What there is to say of a folder without weights.
async fn no_weights(source: &impl Source, hints: &Hints) -> Error {
    for file in ["onnx/model.onnx", "onnx/vision_model.onnx", "model.onnx"] {
        if let Ok(Some(_)) = source.open(file).await {
            let instead = hints
                .published
                .map_or(String::new(), |name| format!(", for example {name}"));
            return Error::unsupported(format!(
                "the folder has its weights as ONNX only ({file}), which can't be read; use a checkpoint with {SINGLE_FILE}{instead}"
            ));
        }
    }
    Error::bad_model(format!(
        "{SINGLE_FILE} is missing (and so is {INDEX}); checkpoints in other formats (.bin, .h5, .onnx) can't be read"
    ))
}

/// Opens a file that must be there.
pub async fn open<S: Source>(source: &S, file: &str) -> Result<S::Reader> {
    source.open(file).await?.ok_or_else(|| {
        Error::bad_model(format!(
            "{file} is missing, though {INDEX} names it or it was there before"
        ))
    })
}

/// The most bytes that a small file may have, by what the largest published one needs: 2 MB for the labels of ImageNet-21k in a
/// `config.json`, 34 MB for SigLIP 2's tokenizer, 1.2 MB for its configuration.
fn limit(file: &str) -> u64 {
    match file {
        "tokenizer.json" => 128 << 20,
        "tokenizer_config.json" | "config.json" | INDEX => 16 << 20,
        // SentencePiece's own files: 4.3 MB for 256 000 pieces.
        "spiece.model" | "tokenizer.model" => 32 << 20,
        _ => 1 << 20,
    }
}

/// Reads a small file, if it is there.
pub async fn optional(source: &impl Source, file: &str) -> Result<Option<Vec<u8>>> {
    let bytes = source.read_all(file, limit(file)).await?;
    Ok(match file {
        // Large, and never written by Python.
        "tokenizer.json" => bytes,
        file if file.ends_with(".json") => bytes.map(json::without_constants),
        _ => bytes,
    })
}

/// Reads a small file that must be there.
pub async fn required(source: &impl Source, file: &str) -> Result<Vec<u8>> {
    optional(source, file).await?.ok_or_else(|| {
        Error::bad_model(format!(
            "{file} is missing; a checkpoint folder has config.json, preprocessor_config.json, tokenizer.json and model.safetensors"
        ))
    })
}

/// A source that hashes the small files that are read of it.
#[derive(Clone)]
pub struct Hashed<S> {
    source: S,
    hash: Arc<Mutex<XxHash3_128>>,
}

impl<S: Source> Hashed<S> {
    pub fn new(source: &S) -> Self {
        Self {
            source: source.clone(),
            hash: Arc::default(),
        }
    }

    /// The hash of what was read, and of its names.
    pub fn hash(&self) -> u128 {
        self.state().finish_128()
    }

    fn state(&self) -> MutexGuard<'_, XxHash3_128> {
        self.hash.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Source> Source for Hashed<S> {
    type Reader = S::Reader;

    async fn read_all(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let bytes = self.source.read_all(file, limit).await?;
        if let Some(bytes) = &bytes {
            let mut hash = self.state();
            for part in [file.as_bytes(), bytes] {
                hash.write(&(part.len() as u64).to_le_bytes());
                hash.write(part);
            }
        }
        Ok(bytes)
    }

    async fn open(&self, file: &str) -> Result<Option<S::Reader>> {
        self.source.open(file).await
    }

    async fn keep(&self) {
        self.source.keep().await;
    }

    async fn forget(&self) -> bool {
        *self.state() = XxHash3_128::new();
        self.source.forget().await
    }
}

/// What `read` makes of small files. If that is `bad-model` and files were kept from an earlier load, these are dropped and it is tried
/// once more; what is good may then be kept.
pub async fn parsed<T>(source: &impl Source, read: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut result = read().await;
    if matches!(&result, Err(error) if error.code() == Code::BadModel) && source.forget().await {
        result = read().await;
    }
    if result.is_ok() {
        source.keep().await;
    }
    result
}

/// The files that a `model.safetensors.index.json` names, in order.
///
/// # Errors
/// `bad-model` if it can't be read, doesn't have one of `parameters`, or names anything but files of its own folder.
pub fn shard_names(index: &[u8], parameters: &[ParameterSpec]) -> Result<Vec<String>> {
    let index: Value = json::parse(INDEX, index)?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::bad_model(format!("{INDEX} has no weight_map")))?;
    let known: HashSet<String> = map.keys().map(|name| parameter(name)).collect();
    if let Some(spec) = parameters.iter().find(|spec| !known.contains(&spec.name)) {
        return Err(Error::bad_model(format!(
            "{INDEX} doesn't have the tensor {}",
            spec.name
        )));
    }
    let mut names = Vec::new();
    for shard in map.values() {
        let shard = shard
            .as_str()
            // The name becomes part of a path or an address.
            .filter(|name| !name.contains(['/', '\\']) && name.ends_with(".safetensors"))
            .ok_or_else(|| {
                Error::bad_model(format!(
                    "{INDEX} names {shard}, which is not a shard's file name"
                ))
            })?;
        names.push(shard.to_owned());
    }
    names.sort();
    names.dedup();
    Ok(names)
}
