//! What [`convert`](super::convert()) writes into a checkpoint beyond the Hub's format, and a loader finds there.
//!
//! - `model.safetensors` has in its `__metadata__` the key `siglip_web`: JSON `{"version": 1, "dtype": "q8", "packed": {NAME: DTYPE}}`.
//!   `dtype` is what `"auto"` takes. The tensors that `packed` names hold the words of [`packed`](crate::kernels::packed)
//!   as U32 `[rows, words]`; all others are as the Hub has them.
//! - `config.json` has the key `siglip_web` where the labels are fixed: `{"labels": […], "templates": […]}`. Then the tensor
//!   `label_embeddings [labels, hidden]` holds their unit-length embeddings, and there is no text tower and no tokenizer.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::json;
use crate::kernels::Dtype;
use crate::model::{self, ParameterSpec, Role, SiglipConfig};

/// The key of both.
pub const KEY: &str = "siglip_web";

/// Version of the format that this crate reads and writes. Raise it when a file of the old version would be read wrongly: the packed
/// words change, or the meaning of a key.
const VERSION: u32 = 1;

/// The token table's parameter.
pub const TOKEN_TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// The parameter with the embeddings of [`FixedLabels`].
pub const LABEL_EMBEDDINGS: &str = "label_embeddings";

/// How the tensors of a file are packed.
#[derive(Clone, Debug, Default)]
pub struct Packing {
    /// What the file was made for.
    pub dtype: Option<Dtype>,
    packed: HashMap<String, Dtype>,
}

#[derive(Deserialize, Serialize)]
struct RawPacking {
    version: u32,
    dtype: String,
    packed: HashMap<String, String>,
}

impl Packing {
    /// What the `__metadata__` of `file` says; nothing for a file of the Hub.
    ///
    /// # Errors
    /// `bad-model` if it can't be read; `unsupported` for another version.
    pub fn from_metadata(file: &str, metadata: &HashMap<String, String>) -> Result<Self> {
        let Some(text) = metadata.get(KEY) else {
            return Ok(Self::default());
        };
        let raw: RawPacking = json::parse(&format!("{file}'s {KEY}"), text.as_bytes())?;
        if raw.version != VERSION {
            return Err(Error::unsupported(format!(
                "{file} was converted in version {} of the format, this is version {VERSION}; convert the checkpoint again",
                raw.version
            )));
        }
        let dtype = |word: &str| {
            Dtype::from_word(word).ok_or_else(|| {
                Error::unsupported(format!(
                    "{file} is packed as {word:?}, which this version doesn't know"
                ))
            })
        };
        Ok(Self {
            dtype: Some(dtype(&raw.dtype)?),
            packed: raw
                .packed
                .into_iter()
                .map(|(name, word)| Ok((name, dtype(&word)?)))
                .collect::<Result<_>>()?,
        })
    }

    /// The `__metadata__` entry for this.
    pub fn to_json(dtype: Dtype, packed: &[(String, Dtype)]) -> String {
        let words = packed.iter();
        let raw = RawPacking {
            version: VERSION,
            dtype: dtype.as_str().into(),
            packed: words.map(|(n, d)| (n.clone(), d.as_str().into())).collect(),
        };
        serde_json::to_string(&raw).expect("strings and numbers")
    }

    /// How the tensor `name` is packed, if it is.
    pub fn of(&self, name: &str) -> Option<Dtype> {
        self.packed.get(name).copied()
    }
}

/// The parameters of a checkpoint's files: those of both towers, or the vision tower's and the embeddings of fixed labels.
pub(super) fn parameters(config: &SiglipConfig, fixed: Option<&FixedLabels>) -> Vec<ParameterSpec> {
    let Some(fixed) = fixed else {
        return model::parameters(config);
    };
    let mut specs = model::vision_parameters(config);
    specs.push(ParameterSpec {
        name: LABEL_EMBEDDINGS.into(),
        shape: vec![fixed.labels.len(), config.vision.encoder.hidden_size],
        role: Role::Other,
        is_weight: false,
        layer: None,
    });
    specs
}

/// `config.json` with the labels that [`FixedLabels::from_config`] reads.
///
/// # Errors
/// `bad-model` if it is not a JSON object.
pub fn config_with_labels(config: &[u8], fixed: &FixedLabels) -> Result<Vec<u8>> {
    let mut config: serde_json::Map<String, serde_json::Value> =
        json::parse("config.json", config)?;
    config.insert(KEY.into(), serde_json::json!(fixed));
    let mut text = serde_json::to_vec_pretty(&config).expect("it was JSON");
    text.push(b'\n');
    Ok(text)
}

/// The labels of a checkpoint without a text tower.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FixedLabels {
    /// As they were given.
    pub labels: Vec<String>,
    /// The sentences that they were put into; the embeddings of several were averaged.
    pub templates: Vec<String>,
}

impl FixedLabels {
    /// What `config.json` says; none for a checkpoint with a text tower.
    ///
    /// # Errors
    /// `bad-model` if it can't be read.
    pub fn from_config(config: &[u8]) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Config {
            siglip_web: Option<FixedLabels>,
        }
        let config: Config = json::parse("config.json", config)?;
        match config.siglip_web {
            Some(fixed) if fixed.labels.is_empty() || fixed.templates.is_empty() => {
                Err(Error::bad_model(format!(
                    "config.json: {KEY} has no labels or no templates; convert the checkpoint again"
                )))
            }
            fixed => Ok(fixed),
        }
    }
}

/// Whether a `config.json` says that weights are quantized with scales and biases, as MLX writes it.
///
/// # Errors
/// `unsupported` for another scheme, naming it.
pub(super) fn is_quantized(config: &[u8]) -> Result<bool> {
    #[derive(Deserialize)]
    struct Config {
        quantization: Option<Quantization>,
    }
    #[derive(Deserialize)]
    struct Quantization {
        mode: Option<String>,
    }
    let config: Config = json::parse("config.json", config)?;
    match config.quantization.map(|quantization| quantization.mode) {
        None => Ok(false),
        Some(None) => Ok(true),
        Some(Some(mode)) if mode == "affine" => Ok(true),
        Some(Some(mode)) => Err(Error::unsupported(format!(
            "config.json: the quantization mode {mode:?} can't be read, only \"affine\""
        ))),
    }
}

/// Takes out of a `config.json` what it says of quantized weights, for weights that aren't: transformers would look for a scheme of its own.
/// False if it says nothing.
#[cfg(not(target_family = "wasm"))]
pub(super) fn remove_quantization(config: &mut serde_json::Map<String, serde_json::Value>) -> bool {
    // MLX writes both, the second in the place where transformers has its own.
    let keys = ["quantization", "quantization_config"];
    let removed = keys.map(|key| config.remove(key));
    removed.iter().any(Option::is_some)
}

/// Whether a `processor_config.json` says how pictures are prepared; older ones don't.
///
/// # Errors
/// `bad-model` if it can't be read.
pub(super) fn has_image_processor(processor: &[u8]) -> Result<bool> {
    let processor: serde_json::Map<String, serde_json::Value> =
        json::parse("processor_config.json", processor)?;
    Ok(processor.contains_key("image_processor"))
}
