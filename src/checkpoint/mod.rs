//! From a checkpoint's files to a model on a device.
//!
//! A checkpoint is a folder as the Hugging Face Hub has it (`config.json`, `preprocessor_config.json`, `tokenizer.json`,
//! `tokenizer_config.json`, `model.safetensors` or shards with `model.safetensors.index.json`). Where the folder is — a
//! disk, a server, a browser's file picker — is the [`Source`]'s business.

mod folder;
mod safetensors;

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

pub use folder::{Folder, FolderReader};
pub use safetensors::{FileHeader, HeldTensor};

use crate::error::{Error, Result};
use crate::json;
use crate::model::{ParameterSpec, Siglip, SiglipConfig, Weights, parameters};
use crate::preprocess::Preprocessor;
use crate::tokenizer::Tokenizer;

/// Where a checkpoint's files are.
#[allow(async_fn_in_trait)] // One thread: the browser's, or a native caller that blocks.
pub trait Source {
    /// An open safetensors file.
    type Reader: Reader;

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
pub trait Store {
    /// What was put under `key`, if it is still there.
    async fn get(&self, key: &str) -> Option<Vec<u8>>;

    /// Keeps `bytes` under `key`. A store that can't goes on without; it never fails a load.
    async fn put(&self, key: &str, bytes: &[u8]);

    /// The last step of a load: everything that `manifest` (JSON) speaks of was put.
    async fn commit(&self, manifest: &str);

    /// What was last committed.
    async fn manifest(&self) -> Option<String>;
}

/// Keeps nothing.
impl Store for () {
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
}

/// A checkpoint in memory, ready to run.
pub struct Checkpoint {
    /// `config.json`.
    pub config: SiglipConfig,
    /// `preprocessor_config.json`.
    pub preprocessor: Preprocessor,
    /// `tokenizer.json` with `tokenizer_config.json`.
    pub tokenizer: Tokenizer,
    /// The weights.
    pub model: Siglip,
    /// Number of parameters.
    pub parameters: usize,
    /// Bytes that the weights take on the device.
    pub bytes: usize,
}

/// Token tables above this stay in the CPU's memory: WebGPU promises bindings of 128 MiB and no more.
const LARGEST_TABLE_ON_GPU: usize = 128 << 20;

/// Tensors are read in pieces of this many bytes, so that a large one is held only once.
const PIECE: usize = 4 << 20;

impl Checkpoint {
    /// Reads everything, the weights tensor by tensor to `device`.
    ///
    /// # Errors
    /// `bad-model` for a file that is missing, damaged or doesn't fit the others, naming it; `unsupported` for another
    /// architecture or number format; what the source and `pace` report.
    pub async fn load(
        source: &impl Source,
        device: &Device,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Self> {
        let config = required(source, "config.json").await?;
        let config = SiglipConfig::from_json(&config)?;
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
        let tokenizer_json = required(source, "tokenizer.json").await?;
        let tokenizer_config = source.read_all("tokenizer_config.json").await?;
        let tokenizer = Tokenizer::new(
            &tokenizer_json,
            tokenizer_config.as_deref(),
            "siglip",
            config.text.max_position_embeddings,
            config.text.vocab_size,
        )?;
        drop((tokenizer_json, tokenizer_config));
        pace.step().await?;

        let specs = parameters(&config);
        let count = |spec: &ParameterSpec| spec.shape.iter().product::<usize>();
        let parameters = specs.iter().map(count).sum();
        let mut loader = Loader::new(device, &specs);
        match source.open("model.safetensors").await? {
            Some(stream) => {
                loader
                    .read_file("model.safetensors", stream, true, pace, progress)
                    .await?;
            }
            None => {
                for shard in shards(source, &loader.expected).await? {
                    let stream = source.open(&shard).await?.ok_or_else(|| {
                        Error::bad_model(format!(
                            "{shard} is missing, though model.safetensors.index.json names it"
                        ))
                    })?;
                    loader
                        .read_file(&shard, stream, false, pace, progress)
                        .await?;
                }
                loader.check_complete("the shards of the checkpoint")?;
            }
        }
        let bytes = parameters * size_of::<f32>();
        let mut building = |loaded: usize| {
            progress(Progress {
                stage: Stage::Load,
                file: None,
                loaded: loaded as u64,
                total: bytes as u64,
            });
        };
        building(0);
        let model = Siglip::new(&config, &mut loader);
        building(bytes);
        Ok(Self {
            config,
            preprocessor,
            tokenizer,
            model,
            parameters,
            bytes,
        })
    }
}

async fn required(source: &impl Source, file: &str) -> Result<Vec<u8>> {
    source.read_all(file).await?.ok_or_else(|| {
        Error::bad_model(format!(
            "{file} is missing; a checkpoint folder has config.json, preprocessor_config.json, tokenizer.json and model.safetensors"
        ))
    })
}

/// The shards that `model.safetensors.index.json` names, in order.
async fn shards(
    source: &impl Source,
    expected: &HashMap<String, Vec<usize>>,
) -> Result<Vec<String>> {
    const INDEX: &str = "model.safetensors.index.json";
    let index = source.read_all(INDEX).await?.ok_or_else(|| {
        Error::bad_model(format!(
            "model.safetensors is missing (and so is {INDEX}); checkpoints in other formats (.bin, .h5, .onnx) can't be read"
        ))
    })?;
    let index: Value = json::parse(INDEX, &index)?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::bad_model(format!("{INDEX} has no weight_map")))?;
    if let Some(name) = expected.keys().find(|name| !map.contains_key(*name)) {
        return Err(Error::bad_model(format!(
            "{INDEX} doesn't have the tensor {name}"
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

/// Tensors that have arrived, until the model takes them.
struct Loader<'a> {
    device: &'a Device,
    expected: HashMap<String, Vec<usize>>,
    arrived: HashMap<String, Flat>,
}

/// A tensor on its device, of any rank: kept flat, reshaped when the model asks.
type Flat = Tensor<1>;

impl<'a> Loader<'a> {
    fn new(device: &'a Device, specs: &[ParameterSpec]) -> Self {
        Self {
            device,
            expected: specs
                .iter()
                .map(|spec| (spec.name.clone(), spec.shape.clone()))
                .collect(),
            arrived: HashMap::new(),
        }
    }

    /// Reads one safetensors file; `alone` if it must hold every parameter.
    async fn read_file(
        &mut self,
        file: &str,
        mut reader: impl Reader,
        alone: bool,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<()> {
        let size = reader.size();
        let mut report = |loaded: u64| {
            progress(Progress {
                stage: Stage::Download,
                file: Some(file),
                loaded,
                total: size.unwrap_or(0),
            });
        };
        report(0);
        let header = FileHeader::read(file, &mut reader).await?;
        for tensor in &header.tensors {
            self.check(file, tensor)?;
        }
        if alone {
            for name in self.expected.keys() {
                if !header.tensors.iter().any(|tensor| &tensor.name == name) {
                    return Err(Error::bad_model(format!(
                        "{file} doesn't have the tensor {name}"
                    )));
                }
            }
        }
        let mut loaded = header.data_start;
        for tensor in &header.tensors {
            let mut values = Vec::with_capacity(tensor.elements());
            let mut left = tensor.bytes;
            while left > 0 {
                let piece = reader.read_at(loaded, left.min(PIECE)).await?;
                if piece.len() < left.min(PIECE) {
                    return Err(Error::bad_model(format!(
                        "{file} ends after {} bytes, in the middle of {}; it should have {}. It was cut off: get it again",
                        loaded + piece.len() as u64,
                        tensor.name,
                        header.file_size(),
                    )));
                }
                tensor.append_f32(&piece, &mut values);
                left -= piece.len();
                loaded += piece.len() as u64;
                report(loaded);
                pace.step().await?;
            }
            if self.expected.contains_key(&tensor.name) {
                let table = tensor.name.ends_with("token_embedding.weight");
                let device = match table && values.len() * size_of::<f32>() > LARGEST_TABLE_ON_GPU {
                    true => &Device::flex(),
                    false => self.device,
                };
                let shape = [values.len()];
                self.arrived.insert(
                    tensor.name.clone(),
                    Tensor::from_data(TensorData::new(values, shape), device),
                );
            }
        }
        if !reader.read_at(loaded, 1).await?.is_empty() {
            return Err(Error::bad_model(format!(
                "{file} goes on after its last tensor; it is damaged: get it again"
            )));
        }
        Ok(())
    }

    /// Is this tensor one of the model's, with the shape it has there?
    fn check(&self, file: &str, tensor: &HeldTensor) -> Result<()> {
        // Position numbers 0, 1, 2… that older versions of transformers saved.
        if tensor.name.ends_with(".embeddings.position_ids") {
            return Ok(());
        }
        let Some(shape) = self.expected.get(&tensor.name) else {
            return Err(Error::bad_model(format!(
                "{file} has the tensor {}, which a model of this config.json doesn't have",
                tensor.name
            )));
        };
        if *shape != tensor.shape {
            return Err(Error::bad_model(format!(
                "{file}: the tensor {} has the shape {:?}, config.json asks for {shape:?}: the two files belong to different checkpoints",
                tensor.name, tensor.shape
            )));
        }
        tensor.check_dtype(file)?;
        if self.arrived.contains_key(&tensor.name) {
            return Err(Error::bad_model(format!(
                "{file} has the tensor {}, which another shard has too",
                tensor.name
            )));
        }
        Ok(())
    }

    fn check_complete(&self, files: &str) -> Result<()> {
        match self
            .expected
            .keys()
            .find(|name| !self.arrived.contains_key(*name))
        {
            None => Ok(()),
            Some(name) => Err(Error::bad_model(format!(
                "{files} don't have the tensor {name}"
            ))),
        }
    }
}

impl Weights for Loader<'_> {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D> {
        self.arrived
            .remove(name)
            .expect("every expected tensor was checked to have arrived")
            .reshape(shape)
    }
}
