//! From a checkpoint's files to a model on a device.
//!
//! A checkpoint is a folder as the Hugging Face Hub has it (`config.json`, `preprocessor_config.json`, `tokenizer.json`,
//! `tokenizer_config.json`, `model.safetensors` or shards with `model.safetensors.index.json`). Where the folder is — a
//! disk, a server, a browser's file picker — is the [`Source`]'s business.

mod convert;
mod folder;
pub mod format;
mod load;
mod safetensors;
#[cfg(all(feature = "train", not(target_family = "wasm")))]
mod write;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use twox_hash::XxHash3_128;

pub use convert::{Calibration, calibrate, convert};
pub use folder::{Folder, FolderReader};
pub use load::TokenRows;
pub use safetensors::{FileHeader, HeldTensor};
#[cfg(all(feature = "train", not(target_family = "wasm")))]
pub use write::{StoredDtype, write_file, write_safetensors};

use crate::error::{Error, Result};
use crate::json;
use crate::kernels::{Dtype, takes_packed};
use crate::model::{ParameterSpec, Siglip, SiglipConfig, parameters, vision_parameters};
use crate::preprocess::Preprocessor;
use crate::tokenizer::Tokenizer;
use format::{FixedLabels, Packing};
use load::entry::{Entry, Kind, seal};
#[cfg(feature = "webgpu")]
use load::outline;
use load::tensors::{Failure, File, LABEL_EMBEDDINGS, Loader, TOKEN_TABLE};

/// Where a checkpoint's files are.
#[allow(async_fn_in_trait)] // One thread: the browser's, or a native caller that blocks.
pub trait Source: Clone + 'static {
    /// An open safetensors file.
    type Reader: Reader + 'static;

    /// The whole of a small file, or `None` if there is no such file.
    ///
    /// # Errors
    /// `network` if the file may be there but can't be read.
    async fn read_all(&self, file: &str) -> Result<Option<Vec<u8>>>;

    /// Opens a large file, or `None` if there is no such file.
    ///
    /// # Errors
    /// `network` if the file may be there but can't be read.
    async fn open(&self, file: &str) -> Result<Option<Self::Reader>>;
}

/// A file that is read by ranges. Retries, resuming and consistency between ranges are its own business: it gives the bytes or
/// one final error.
#[allow(async_fn_in_trait)]
pub trait Reader {
    /// Size of the whole file in bytes, where it is known.
    fn size(&self) -> Option<u64>;

    /// Whether any range can be read at any time. Otherwise reads must ascend, and bytes between two of them are read too and
    /// dropped.
    fn random_access(&self) -> bool;

    /// The SHA-256 of the whole file that its publisher states, in lower-case hexadecimal, where it is known.
    fn sha256(&self) -> Option<String>;

    /// The reads to come, `(offset, length)` each, in order; a reader may fetch ahead.
    fn plan(&mut self, reads: &[(u64, u64)]);

    /// The bytes from `offset` on: `length` of them, fewer only where the file ends.
    ///
    /// # Errors
    /// `network` if the reading fails.
    async fn read_at(&mut self, offset: u64, length: usize) -> Result<Vec<u8>>;
}

/// Where converted tensors are kept from one load to the next.
///
/// Entries are as they were put or absent, or else found to be damaged when they are read: each carries a checksum.
#[allow(async_fn_in_trait)]
pub trait Store: 'static {
    /// Whether it keeps anything at all; if not, nothing is prepared for it.
    fn keeps(&self) -> bool {
        true
    }

    /// What was put under `key`, if it is still there.
    async fn get(&self, key: &str) -> Option<Vec<u8>>;

    /// The same, read as little-endian words; nothing if it is not whole ones.
    ///
    /// Weights are read by this, and stay in what it gives: a store that can fill the words without other memory of that size should.
    async fn get_words(&self, key: &str) -> Option<Vec<u32>> {
        words_of(&self.get(key).await?)
    }

    /// Keeps `bytes` under `key`. A store that can't goes on without; it never fails a load.
    async fn put(&self, key: &str, bytes: &[u8]);

    /// The last step of a load: everything that `manifest` (JSON) speaks of was put.
    async fn commit(&self, manifest: &str);

    /// What was last committed.
    async fn manifest(&self) -> Option<String>;
}

/// Little-endian words, if `bytes` are whole ones.
fn words_of(bytes: &[u8]) -> Option<Vec<u32>> {
    let (words, rest) = bytes.as_chunks();
    rest.is_empty()
        .then(|| words.iter().copied().map(u32::from_le_bytes).collect())
}

/// Keeps nothing.
impl Store for () {
    fn keeps(&self) -> bool {
        false
    }

    async fn get(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    async fn put(&self, _: &str, _: &[u8]) {}

    async fn commit(&self, _: &str) {}

    async fn manifest(&self) -> Option<String> {
        None
    }
}

/// Called between pieces of work that are too short to be worth stopping in: a tensor's arrival, an encoder layer.
///
/// In the browser it lets the event loop run and stops if the caller has cancelled.
#[allow(async_fn_in_trait)]
pub trait Pace {
    /// Goes on, or stops with the error.
    ///
    /// # Errors
    /// `aborted`.
    async fn step(&self) -> Result<()>;
}

/// Never stops.
impl Pace for () {
    async fn step(&self) -> Result<()> {
        Ok(())
    }
}

/// What a load is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Files are arriving; counted in bytes.
    Download,
    /// The model is put together; counted in bytes.
    Load,
    /// The device runs for the first time.
    Warmup,
    /// Done.
    Ready,
}

impl Stage {
    /// The word of the JavaScript API.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Download => "download",
            Stage::Load => "load",
            Stage::Warmup => "warmup",
            Stage::Ready => "ready",
        }
    }
}

/// One step of a load: `loaded` of `total`, which is 0 where the size isn't known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// What is going on.
    pub stage: Stage,
    /// With which file.
    pub file: Option<&'a str>,
    /// Done so far.
    pub loaded: u64,
    /// When finished.
    pub total: u64,
    /// Whether what came last was in the store.
    pub from_store: bool,
}

/// How a checkpoint is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// How the weights are held. None: a converted checkpoint as it was made; others as f32 up to 64 MB, and beyond as q8 on the CPU
    /// and as f16 on a GPU.
    pub dtype: Option<Dtype>,
    /// Loads the token table whole. Otherwise, where the source reads any range and the table has 16 MiB or more, only the rows of the texts
    /// that are embedded are ever read, when they are needed first.
    pub whole_table: bool,
}

/// Weights up to this many bytes are held as f32 unless the caller says otherwise.
const SMALL: usize = 64 << 20;

/// A checkpoint in memory, ready to run.
pub struct Checkpoint {
    /// `config.json`.
    pub config: SiglipConfig,
    /// `preprocessor_config.json`.
    pub preprocessor: Preprocessor,
    /// `tokenizer.json` with `tokenizer_config.json`; none where the labels are fixed.
    pub tokenizer: Option<Tokenizer>,
    /// The weights.
    pub model: Siglip,
    /// The token table, where the model doesn't have it.
    pub rows: Option<TokenRows>,
    /// The fixed labels, where there is no text tower, with their unit-length embeddings.
    pub labels: Option<(FixedLabels, Vec<Vec<f32>>)>,
    /// Number of parameters.
    pub parameters: usize,
    /// How the weights are held.
    pub dtype: Dtype,
    /// Bytes that the weights take.
    pub bytes: usize,
}

/// What the store has of a whole checkpoint.
#[derive(Deserialize, Serialize)]
struct Manifest {
    version: u32,
    dtype: String,
    files: Vec<ManifestFile>,
}

#[derive(Deserialize, Serialize)]
struct ManifestFile {
    name: String,
    sha256: Option<String>,
    random_access: bool,
}

const MANIFEST_VERSION: u32 = 1;

impl Checkpoint {
    /// Reads everything, the weights as f32, tensor by tensor to `device`.
    ///
    /// # Errors
    /// As [`load_with`](Self::load_with).
    pub async fn load(
        source: &impl Source,
        device: &Device,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Self> {
        let options = LoadOptions {
            dtype: Some(Dtype::F32),
            whole_table: true,
        };
        Self::load_with(source, (), &options, device, pace, progress).await
    }

    /// Reads what `store` doesn't have, each tensor to where it will live, converting it while it arrives.
    ///
    /// Besides the weights this holds no more than the largest of them, twice if it is put into a store, and a few MB; what the store
    /// has is read to where it will live (see [`Store::get_words`]).
    ///
    /// A file is checked against the SHA-256 that its publisher states, if it states one and the file is read whole; where the token
    /// table is left where it is (see [`LoadOptions::whole_table`]), only the file's size and header are.
    ///
    /// # Errors
    /// `bad-model` for a file that is missing, damaged or doesn't fit the others, naming it; `unsupported` for another
    /// architecture or number format; what the source and `pace` report.
    pub async fn load_with<T: Store>(
        source: &impl Source,
        store: T,
        options: &LoadOptions,
        device: &Device,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Self> {
        let config_json = required(source, "config.json").await?;
        let config = SiglipConfig::from_json(&config_json)?;
        let fixed = FixedLabels::from_config(&config_json)?;
        let preprocessor = required(source, "preprocessor_config.json").await?;
        let preprocessor = Preprocessor::from_json(&preprocessor)?;
        let side = config.vision.image_size;
        let (height, width) = preprocessor.size();
        if (height, width) != (side, side) {
            return Err(Error::bad_model(format!(
                "preprocessor_config.json makes pictures of {width} × {height} pixels, config.json says {side} × {side}: \
                 the two files belong to different checkpoints"
            )));
        }
        pace.step().await?;
        let mut known = manifest(&store).await;
        let tokenizer = match &fixed {
            Some(_) => None,
            None => Some(tokenizer(source, &store, known.is_some(), &config, &config_json).await?),
        };
        pace.step().await?;

        let specs = specs(&config, fixed.as_ref());
        let count = |spec: &ParameterSpec| spec.shape.iter().product::<usize>();
        let parameters = specs.iter().map(count).sum();
        let auto = match parameters * size_of::<f32>() <= SMALL {
            true => Dtype::F32,
            false if *device == Device::flex() => Dtype::Q8,
            false => Dtype::F16,
        };
        let wish = Wish {
            dtype: options.dtype,
            auto,
            whole_table: options.whole_table,
        };
        let (mut loader, reader, files) = loop {
            let trusted = known.take();
            let retry = trusted.is_some();
            match load_weights(
                source, &store, trusted, &wish, &config, &specs, device, pace, progress,
            )
            .await
            {
                Ok(loaded) => break loaded,
                // Once, without what the store says of the files.
                Err(Failure::Stale) if retry => {}
                Err(Failure::Stale) => {
                    return Err(Error::network(
                        "the model's files changed while they were read; load the model again",
                    ));
                }
                Err(Failure::Error(error)) => return Err(error),
            }
        };
        let dtype = loader.dtype();
        if store.keeps() {
            let manifest = Manifest {
                version: MANIFEST_VERSION,
                dtype: dtype.as_str().into(),
                files,
            };
            let manifest = serde_json::to_string(&manifest).expect("strings and numbers");
            store.commit(&manifest).await;
        }

        let bytes = loader.bytes;
        let mut building = |loaded: usize| {
            progress(Progress {
                stage: Stage::Load,
                file: None,
                loaded: loaded as u64,
                total: bytes as u64,
                from_store: false,
            });
        };
        building(0);
        let model = match &fixed {
            Some(_) => Siglip::without_text(&config, &mut loader),
            None => Siglip::new(&config, &mut loader),
        };
        let rows = match (loader.table.take(), loader.remote.take()) {
            (Some(table), _) => Some(TokenRows::held(table)),
            (None, Some(table)) => Some(TokenRows::remote(table, source, reader, store)),
            (None, None) => None,
        };
        let hidden = config.vision.encoder.hidden_size;
        let embeddings = loader.labels.take().unwrap_or_default();
        let embeddings = embeddings.chunks_exact(hidden).map(<[f32]>::to_vec);
        let labels = fixed.map(|fixed| (fixed, embeddings.collect()));
        building(bytes);
        Ok(Self {
            config,
            preprocessor,
            tokenizer,
            model,
            rows,
            labels,
            parameters,
            dtype,
            bytes,
        })
    }
}

/// How a parameter's weights are held in a model that is held as `dtype`.
///
/// Some are held finer than `dtype` says, by their share in the error of the logits: the patch convolution, which everything that the model sees goes
/// through; the token table, whose rows are the input of every layer; the projections of queries and keys, whose error a
/// softmax magnifies. In `q4` only MLPs, two thirds of an encoder, have 4 bits, and not all of them: an error in one of the first layers
/// grows on its way through the others (in a ViT-B, one in the first counts three times as much as one in the fourth), and after the MLP
/// of the vision tower's head nothing comes that could average. So the first third and the head have 8.
pub fn held(dtype: Dtype, spec: &ParameterSpec) -> Dtype {
    let finer = |names: &[&str]| names.iter().any(|part| spec.name.contains(part));
    match dtype {
        // The host gathers the table's rows, whatever their length.
        _ if spec.name != TOKEN_TABLE && !takes_packed(spec.matrix()) => Dtype::F32,
        Dtype::Q8 if finer(&["q_proj", "k_proj", "token_embedding"]) => Dtype::F16,
        Dtype::Q8 | Dtype::Q4 if finer(&["patch_embedding"]) => Dtype::F16,
        Dtype::Q4 if !finer(&[".mlp.fc1.", ".mlp.fc2."]) => Dtype::Q8,
        Dtype::Q4 if spec.layer.is_none_or(|(layer, of)| layer < of / 3) => Dtype::Q8,
        other => other,
    }
}

/// What the caller would like.
struct Wish {
    dtype: Option<Dtype>,
    /// For files of the Hub if there is no wish.
    auto: Dtype,
    whole_table: bool,
}

/// All tensors, the reader of the file that has the token table, and what the manifest says of the files.
/// The pipelines that the model needs are made meanwhile.
#[allow(clippy::too_many_arguments)] // One caller, which has just made each of them.
#[cfg_attr(not(feature = "webgpu"), expect(unused_variables))] // Only pipelines depend on the configuration.
async fn load_weights<'a, S: Source>(
    source: &S,
    store: &impl Store,
    trusted: Option<Manifest>,
    wish: &Wish,
    config: &SiglipConfig,
    specs: &[ParameterSpec],
    device: &'a Device,
    pace: &impl Pace,
    progress: &mut impl FnMut(Progress),
) -> Result<(Loader<'a>, Option<S::Reader>, Vec<ManifestFile>), Failure> {
    let mut first = None;
    let mut files = Vec::new();
    match &trusted {
        Some(manifest) => {
            for file in &manifest.files {
                files.push(file.name.clone());
            }
        }
        None => match source.open(SINGLE_FILE).await? {
            Some(reader) => {
                files.push(SINGLE_FILE.into());
                first = Some(reader);
            }
            None => files = shards(source, specs).await?,
        },
    }
    let alone = files.len() == 1;
    let mut loader: Option<Loader> = None;
    let mut table_reader = None;
    let mut described = Vec::new();
    #[cfg(feature = "webgpu")]
    let mut pipelines = None;
    for (i, name) in files.into_iter().enumerate() {
        let mut file = match &trusted {
            Some(manifest) => recall(store, &manifest.files[i]).await?,
            None => {
                let reader = match first.take() {
                    Some(reader) => reader,
                    None => open(source, &name).await?,
                };
                opened(name, reader, store).await?
            }
        };
        let loader = loader.get_or_insert_with(|| {
            let dtype = wish.dtype.or(file.packing.dtype).unwrap_or(wish.auto);
            Loader::new(device, dtype, wish.whole_table, specs)
        });
        if trusted
            .as_ref()
            .is_some_and(|manifest| manifest.dtype != loader.dtype().as_str())
        {
            return Err(Failure::Stale);
        }
        #[cfg(feature = "webgpu")]
        pipelines.get_or_insert_with(|| outline::prepare(config, specs, loader.dtype(), device));
        let left_before = loader.remote.is_some();
        loader
            .read_file(source, &mut file, alone, store, pace, progress)
            .await?;
        described.push(ManifestFile {
            name: file.name,
            sha256: file.sha256,
            random_access: file.random_access,
        });
        if loader.remote.is_some() && !left_before {
            table_reader = file.reader;
        }
    }
    let Some(loader) = loader else {
        return Err(Failure::Stale);
    };
    loader.check_complete("the files of the checkpoint")?;
    #[cfg(feature = "webgpu")]
    if let Some(pipelines) = pipelines {
        pipelines.await;
    }
    Ok((loader, table_reader, described))
}

const SINGLE_FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The parameters of the checkpoint's files.
fn specs(config: &SiglipConfig, fixed: Option<&FixedLabels>) -> Vec<ParameterSpec> {
    let Some(fixed) = fixed else {
        return parameters(config);
    };
    let mut specs = vision_parameters(config);
    specs.push(ParameterSpec {
        name: LABEL_EMBEDDINGS.into(),
        shape: vec![fixed.labels.len(), config.vision.encoder.hidden_size],
        is_weight: false,
        layer: None,
    });
    specs
}

/// What the store has of an earlier load, if that came to its end.
async fn manifest(store: &impl Store) -> Option<Manifest> {
    let manifest: Manifest = serde_json::from_str(&store.manifest().await?).ok()?;
    (manifest.version == MANIFEST_VERSION && !manifest.files.is_empty()).then_some(manifest)
}

/// Under which name the store has a file's header.
fn header_key(file: &str) -> String {
    format!("header/{file}")
}

/// A file as the store knows it, not opened.
async fn recall<R>(store: &impl Store, file: &ManifestFile) -> Result<File<R>, Failure> {
    let entry = store.get_words(&header_key(&file.name)).await;
    let entry = entry
        .and_then(|words| Entry::open(words, Kind::Bytes, 0))
        .ok_or(Failure::Stale)?;
    // Its own length stands before it; what fills the last word up is left out.
    let bytes: &[u8] = bytemuck::cast_slice(&entry.words);
    let length = bytes
        .first_chunk()
        .map_or(0, |length| 8 + u64::from_le_bytes(*length) as usize);
    let header_bytes = bytes.get(..length).ok_or(Failure::Stale)?.to_vec();
    let header = FileHeader::parse(&file.name, &header_bytes, None)?;
    Ok(File {
        packing: Packing::from_metadata(&file.name, &header.metadata)?,
        name: file.name.clone(),
        header_bytes,
        header,
        reader: None,
        sha256: file.sha256.clone(),
        random_access: file.random_access,
    })
}

/// A file that has just been opened.
async fn opened<R: Reader>(name: String, mut reader: R, store: &impl Store) -> Result<File<R>> {
    let header_bytes = FileHeader::read_bytes(&name, &mut reader).await?;
    let header = FileHeader::parse(&name, &header_bytes, reader.size())?;
    if store.keeps() {
        let words = header_bytes.chunks(4).map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(word)
        });
        let entry = seal(
            Kind::Bytes,
            0,
            &[],
            &[],
            header_bytes.len().div_ceil(4),
            words,
        );
        store.put(&header_key(&name), &entry).await;
    }
    Ok(File {
        packing: Packing::from_metadata(&name, &header.metadata)?,
        sha256: reader.sha256(),
        random_access: reader.random_access(),
        name,
        header_bytes,
        header,
        reader: Some(reader),
    })
}

/// Opens a file that must be there.
async fn open<S: Source>(source: &S, file: &str) -> Result<S::Reader> {
    source.open(file).await?.ok_or_else(|| {
        Error::bad_model(format!(
            "{file} is missing, though {INDEX} names it or it was there before"
        ))
    })
}

/// The tokenizer: the compact form that the store has of it, if the store is `complete`, else from its files.
async fn tokenizer(
    source: &impl Source,
    store: &impl Store,
    complete: bool,
    config: &SiglipConfig,
    config_json: &[u8],
) -> Result<Tokenizer> {
    // It depends on the configuration too.
    let key = format!("tokenizer/{:032x}", XxHash3_128::oneshot(config_json));
    if complete
        && let Some(bytes) = store.get(&key).await
        && let Ok(tokenizer) = Tokenizer::from_bytes(&bytes)
    {
        return Ok(tokenizer);
    }
    let tokenizer_json = required(source, "tokenizer.json").await?;
    let tokenizer_config = source.read_all("tokenizer_config.json").await?;
    let tokenizer = Tokenizer::new(
        &tokenizer_json,
        tokenizer_config.as_deref(),
        "siglip",
        config.text.max_position_embeddings,
        config.text.vocab_size,
    )?;
    if store.keeps() {
        store.put(&key, &tokenizer.to_bytes()).await;
    }
    Ok(tokenizer)
}

async fn required(source: &impl Source, file: &str) -> Result<Vec<u8>> {
    source.read_all(file).await?.ok_or_else(|| {
        Error::bad_model(format!(
            "{file} is missing; a checkpoint folder has config.json, preprocessor_config.json, tokenizer.json and model.safetensors"
        ))
    })
}

/// The shards that `model.safetensors.index.json` names, in order.
async fn shards(source: &impl Source, specs: &[ParameterSpec]) -> Result<Vec<String>> {
    let index = source.read_all(INDEX).await?.ok_or_else(|| {
        Error::bad_model(format!(
            "{SINGLE_FILE} is missing (and so is {INDEX}); checkpoints in other formats (.bin, .h5, .onnx) can't be read"
        ))
    })?;
    shard_names(&index, specs)
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
    if let Some(spec) = parameters.iter().find(|spec| !map.contains_key(&spec.name)) {
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
