//! From a checkpoint's files to a model on a device.
//!
//! A checkpoint is a folder as the Hugging Face Hub has it (`config.json`, `preprocessor_config.json`, `tokenizer.json`,
//! `tokenizer_config.json`, `model.safetensors` or shards with `model.safetensors.index.json`). Where the folder is — a
//! disk, a server, a browser's file picker, memory — is the [`Source`]'s business.

mod convert;
mod folder;
pub mod format;
mod load;
mod memory;
mod open_clip;
mod ports;
mod precision;
mod safetensors;
#[cfg(not(target_family = "wasm"))]
mod shards;
#[cfg(all(feature = "train", not(target_family = "wasm")))]
mod small;
#[cfg(all(feature = "train", not(target_family = "wasm")))]
mod write;

use burn::tensor::Device;

pub use convert::{Calibration, calibrate, convert};
#[cfg(not(target_family = "wasm"))]
pub use convert::{Converted, convert_folder};
pub use folder::{Folder, FolderReader};
pub(crate) use load::{Entry, Kind, seal};
pub use load::{TokenRows, shard_names};
pub use memory::{Memory, MemoryReader};
pub use ports::{MaybeSend, Pace, Progress, Reader, Source, Stage, Store, too_large};
pub use precision::weight_dtype;
pub use safetensors::{FileHeader, TensorInfo};
#[cfg(not(target_family = "wasm"))]
pub use shards::shard;
#[cfg(all(feature = "train", not(target_family = "wasm")))]
pub use small::SmallFiles;
#[cfg(all(feature = "train", not(target_family = "wasm")))]
pub use write::{StoredDtype, write_file, write_safetensors};

use crate::error::{Code, Error, Result};
use crate::kernels::Dtype;
use crate::model::{ParameterSpec, Siglip, SiglipConfig};
use crate::preprocess::{Input, Preprocessor};
use crate::tokenizer::{Cleaning, Tokenizer};
use format::FixedLabels;
use load::{
    Hashed, Hints, Loaded, Manifest, Ports, Wish, load_weights, optional, parsed, required,
};
use precision::auto_dtype;

/// How a checkpoint is loaded.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// How the weights are held. None: a converted checkpoint as it was made; others as f32 up to 64 MB, and beyond as q8 on the CPU
    /// and as f16 on a GPU.
    pub dtype: Option<Dtype>,
    /// Loads the token table whole. Otherwise, where the source reads any range and the table has 16 MiB or more, only the rows of the texts
    /// that are embedded are ever read, when they are needed first.
    pub whole_table: bool,
    /// Patches that a picture has at most, in a NaFlex model: 1 to [`MAX_PATCHES`](crate::preprocess::MAX_PATCHES). None: as many as the
    /// checkpoint says, which is 256.
    pub max_patches: Option<usize>,
}

impl LoadOptions {
    /// Everything in memory, exactly as the checkpoint has it: weights as f32, the token table whole.
    pub fn exact() -> Self {
        Self {
            dtype: Some(Dtype::F32),
            whole_table: true,
            max_patches: None,
        }
    }

    /// With weights held as `dtype`.
    pub fn with_dtype(mut self, dtype: Dtype) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// With at most so many patches of a picture, in a NaFlex model.
    pub fn with_max_patches(mut self, count: usize) -> Self {
        self.max_patches = Some(count);
        self
    }

    /// With the token table loaded whole.
    pub fn with_whole_table(mut self) -> Self {
        self.whole_table = true;
        self
    }
}

/// A checkpoint in memory, ready to run.
pub struct Checkpoint {
    /// `config.json`.
    pub config: SiglipConfig,
    /// `preprocessor_config.json`.
    pub preprocessor: Preprocessor,
    /// `tokenizer.json` with `tokenizer_config.json`; none where the labels are fixed, nor in a fine-tuned classifier.
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
    /// Tensors of its files that the model has no use for.
    pub unused: Vec<String>,
    /// Hash of the small files that say all this.
    pub(crate) described: u128,
}

#[cfg(not(target_family = "wasm"))]
impl Checkpoint {
    /// Reads everything that `options` ask for, and returns when it is done.
    ///
    /// # Errors
    /// As [`load_async`](Self::load_async).
    pub fn load(source: &impl Source, options: &LoadOptions, device: &Device) -> Result<Self> {
        let progress = &mut |_: Progress| {};
        pollster::block_on(Self::load_async(source, (), options, device, &(), progress))
    }
}

impl Checkpoint {
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
    pub async fn load_async<T: Store>(
        source: &impl Source,
        store: T,
        options: &LoadOptions,
        device: &Device,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Self> {
        let manifest = Manifest::recall(&store).await;
        let small = &Hashed::new(source);
        let (described, tokenizer) = parsed(small, async || {
            let described = Described::read(small, pace).await?;
            let tokenizer = described.tokenizer(small).await?;
            pace.step().await?;
            Ok((described, tokenizer))
        })
        .await?;

        let Described { config, fixed, .. } = &described;
        let preprocessor = match options.max_patches {
            Some(count) => described.preprocessor.clone().with_max_patches(count)?,
            None => described.preprocessor.clone(),
        };
        let specs = format::parameters(config, fixed.as_ref());
        let count = |spec: &ParameterSpec| spec.shape.iter().product::<usize>();
        let parameters = specs.iter().map(count).sum();
        let wish = Wish {
            dtype: options.dtype,
            auto: auto_dtype(parameters, device),
            whole_table: options.whole_table,
            hints: described.hints,
        };
        #[cfg(feature = "webgpu")]
        let prepare = |dtype| load::prepare(config, &specs, dtype, device);
        #[cfg(not(feature = "webgpu"))]
        let prepare = |dtype| {
            load::prepare(&specs, dtype);
            std::future::ready(())
        };
        let mut ports = Ports {
            source,
            store: &store,
            pace,
            progress,
        };
        let loaded = load_weights(manifest, &wish, &specs, device, prepare, &mut ports).await?;
        let Loaded {
            mut loader, reader, ..
        } = loaded;

        let (dtype, bytes) = (loader.dtype(), loader.bytes);
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
        let model = Siglip::new(config, &mut loader);
        let rows = match (loader.table.take(), loader.remote.take()) {
            (Some(table), _) => Some(TokenRows::in_memory(table)),
            (None, Some(table)) => Some(TokenRows::remote(table, source, reader, store)),
            (None, None) => None,
        };
        let embeddings = loader.labels.take().unwrap_or_default();
        let embeddings = embeddings.chunks_exact(config.vision.encoder.hidden_size);
        let embeddings = embeddings.map(<[f32]>::to_vec).collect();
        building(bytes);
        Ok(Self {
            unused: std::mem::take(&mut loader.unused),
            described: small.hash(),
            config: described.config,
            preprocessor,
            tokenizer,
            model,
            rows,
            labels: described.fixed.map(|fixed| (fixed, embeddings)),
            parameters,
            dtype,
            bytes,
        })
    }
}

/// What a checkpoint's small files say of it.
struct Described {
    config: SiglipConfig,
    fixed: Option<FixedLabels>,
    preprocessor: Preprocessor,
    hints: Hints,
}

impl Described {
    fn has_text(&self) -> bool {
        self.fixed.is_none() && self.config.classifier.is_none()
    }

    /// None where there is no text tower.
    async fn tokenizer(&self, source: &impl Source) -> Result<Option<Tokenizer>> {
        if !self.has_text() {
            return Ok(None);
        }
        let cleaning = match self.hints.open_clip {
            true => Cleaning::OpenClip,
            false => Cleaning::Class,
        };
        let read = async |file: &'static str| optional(source, file).await;
        Tokenizer::from_files(read, &self.config.text, cleaning)
            .await
            .map(Some)
    }

    async fn read(source: &impl Source, pace: &impl Pace) -> Result<Self> {
        let described = match Self::transformers(source).await {
            // open_clip's files may be beside a config.json for something else.
            Err(error) if matches!(error.code(), Code::BadModel | Code::Unsupported) => {
                match optional(source, open_clip::FILE).await? {
                    Some(json) => Self::open_clip(&json)?,
                    None => return Err(error),
                }
            }
            described => described?,
        };
        let vision = &described.config.vision;
        let (side, patch) = (vision.image_size, vision.patch_size);
        let differs = |made: String, says: String| {
            Err(Error::bad_model(format!(
                "preprocessor_config.json makes {made}, config.json says {says}: the two files belong to different checkpoints"
            )))
        };
        let fixed = format!("{side} × {side}");
        match (vision.naflex, described.preprocessor.input()) {
            (false, Input::Fixed { height, width }) if (height, width) != (side, side) => {
                return differs(format!("pictures of {width} × {height} pixels"), fixed);
            }
            (true, Input::Patches { size, .. }) if size != patch => {
                return differs(
                    format!("patches of {size} × {size} pixels"),
                    format!("{patch} × {patch}"),
                );
            }
            (true, Input::Fixed { height, width }) => {
                return differs(
                    format!("pictures of {width} × {height} pixels"),
                    "\"siglip2\" (NaFlex), whose pictures keep their shape".into(),
                );
            }
            (false, Input::Patches { .. }) => {
                return differs("pictures that keep their shape (NaFlex)".into(), fixed);
            }
            _ => {}
        }
        pace.step().await?;
        Ok(described)
    }

    async fn transformers(source: &impl Source) -> Result<Self> {
        let json = required(source, "config.json").await?;
        let config = SiglipConfig::from_json(&json)?;
        let fixed = FixedLabels::from_config(&json)?;
        if fixed.is_some() && config.classifier.is_some() {
            return Err(Error::bad_model(format!(
                "config.json has the labels of a fine-tuned classifier and those of {}, which is for a model with both towers",
                format::KEY
            )));
        }
        Ok(Self {
            fixed,
            preprocessor: preprocessor(source).await?,
            hints: Hints {
                quantized: format::is_quantized(&json)?,
                open_clip: false,
                naflex: config.vision.naflex,
                published: config.published(),
            },
            config,
        })
    }

    fn open_clip(json: &[u8]) -> Result<Self> {
        let [config, preprocessor] = open_clip::as_transformers(json)?;
        let told = |error: Error| {
            let message = error.message();
            let (file, read) = (open_clip::FILE, "read as transformers' files");
            Error::new(error.code(), format!("{file}, {read}: {message}"))
        };
        let config = SiglipConfig::from_json(&config).map_err(told)?;
        Ok(Self {
            fixed: None,
            preprocessor: Preprocessor::from_json(&preprocessor).map_err(told)?,
            hints: Hints {
                quantized: false,
                open_clip: true,
                naflex: false,
                published: config.published(),
            },
            config,
        })
    }
}

/// How pictures are prepared: from `processor_config.json`, where transformers 5 writes it, or else from `preprocessor_config.json`. Where both
/// are there, transformers believes the former too: the latter is what an older version left.
async fn preprocessor(source: &impl Source) -> Result<Preprocessor> {
    match optional(source, "processor_config.json").await? {
        Some(json) if format::has_image_processor(&json)? => Preprocessor::from_json(&json),
        _ => Preprocessor::from_json(&required(source, "preprocessor_config.json").await?),
    }
}
