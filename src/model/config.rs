//! A checkpoint's `config.json`, read as the Hub has it.
//!
//! Keys that are left out take the defaults of `SiglipTextConfig` and `SiglipVisionConfig` in transformers'
//! `models/siglip/configuration_siglip.py`.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::json;
use crate::kernels::Activation;

/// What the encoders of both towers are described by.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Width of each position's vector.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides the hidden size.
    pub num_attention_heads: usize,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// The MLPs' non-linearity.
    pub hidden_act: Activation,
}

/// The text tower.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Its encoder.
    pub encoder: EncoderConfig,
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Context length in tokens: every label is cut or padded to it.
    pub max_position_embeddings: usize,
    projection_size: Option<usize>,
}

impl TextConfig {
    /// Size of a text embedding; the text hidden size unless the configuration says otherwise.
    pub fn projection_size(&self) -> usize {
        self.projection_size.unwrap_or(self.encoder.hidden_size)
    }
}

/// The vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Its encoder.
    pub encoder: EncoderConfig,
    /// Always 3: red, green, blue.
    pub num_channels: usize,
    /// Height and width of the input in pixels; of NaFlex, of a square picture that its position table is for.
    pub image_size: usize,
    /// Height and width of a patch in pixels.
    pub patch_size: usize,
    /// Whether pictures keep their shape (SigLIP 2 NaFlex): the position table is resized for each.
    pub naflex: bool,
}

impl VisionConfig {
    /// Number of whole patches in a picture: the sequence length of the vision tower.
    pub fn num_patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }
}

/// The head of a fine-tuned classifier (`SiglipForImageClassification`), in the place of the pooling head and of the text tower.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassifierConfig {
    /// What each of its outputs stands for: `id2label`.
    pub labels: Vec<String>,
    /// Whether each label has a probability of its own (`sigmoid`), or all share 1 (`softmax`): what transformers' pipeline makes of
    /// `problem_type`.
    pub multi_label: bool,
}

/// A whole SigLIP model.
#[derive(Clone, Debug, PartialEq)]
pub struct SiglipConfig {
    /// The text tower; not that of a classifier, which has none.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// The labels of a fine-tuned classifier; none in a model with both towers.
    pub classifier: Option<ClassifierConfig>,
}

impl SiglipConfig {
    /// Parses a `config.json`.
    ///
    /// # Errors
    /// `bad-model` for text that is not such a file or sizes that don't fit together; `unsupported`, naming it, for another
    /// architecture, `model_type` or activation.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let value: Value = json::parse("config.json", bytes)?;
        let model_type = value.get("model_type").and_then(Value::as_str);
        let naflex = match model_type {
            Some("siglip") => false,
            Some("siglip2") => true,
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "config.json: model_type {other:?} is not SigLIP; use a checkpoint whose model_type is \"siglip\" or \"siglip2\""
                )));
            }
            None => {
                return Err(Error::bad_model(
                    "config.json has no model_type; it is not the configuration of a Hugging Face model",
                ));
            }
        };
        let [model, for_classification] = match naflex {
            false => ["SiglipModel", CLASSIFIER],
            true => ["Siglip2Model", "Siglip2ForImageClassification"],
        };
        let names = value.get("architectures").and_then(Value::as_array);
        let classifier = match names.map(Vec::as_slice) {
            // Whoever left it out has labels only where there is a head for them.
            None | Some([]) => value.get("id2label").is_some(),
            Some(names) if names.iter().any(|name| name == model) => false,
            Some(names) if names.iter().any(|name| name == for_classification) => true,
            Some([first, ..]) => {
                return Err(Error::unsupported(format!(
                    "config.json: architecture {first} is neither {model}, the one with both towers, nor {for_classification}"
                )));
            }
        };
        let classifier = match classifier {
            true => Some(ClassifierConfig::from_json(&value)?),
            false => None,
        };
        let raw: RawConfig = serde_json::from_value(value)
            .map_err(|error| Error::bad_model(format!("config.json: {error}")))?;
        raw.check(classifier, naflex)
    }
}

/// transformers' class of a fine-tuned classifier.
const CLASSIFIER: &str = "SiglipForImageClassification";

impl ClassifierConfig {
    /// `id2label` as a list.
    fn labels(names: &Value) -> Result<Vec<String>> {
        let names = names.as_object().filter(|names| !names.is_empty());
        let names = names.ok_or_else(|| {
            Error::bad_model(format!(
                "config.json: id2label has no labels, which a {CLASSIFIER} needs: it names what each row of classifier.weight stands for"
            ))
        })?;
        let label = |index: usize| match names.get(&index.to_string()) {
            Some(Value::String(label)) => Ok(label.clone()),
            Some(Value::Number(label)) => Ok(label.to_string()),
            found => Err(Error::bad_model(format!(
                "config.json: id2label has {} labels, of which {index} is {}; each from 0 on must be a text",
                names.len(),
                found.map_or("missing".into(), Value::to_string)
            ))),
        };
        (0..names.len()).map(label).collect()
    }

    fn from_json(config: &Value) -> Result<Self> {
        let labels = match config.get("id2label") {
            // What transformers leaves out is its default.
            None | Some(Value::Null) => {
                let count = config.get("num_labels").and_then(Value::as_u64);
                let count = count.unwrap_or(2);
                check_size("num_labels", count)?;
                (0..count).map(|index| format!("LABEL_{index}")).collect()
            }
            Some(names) => Self::labels(names)?,
        };
        let multi_label = match config.get("problem_type") {
            // As with one label alone: a softmax over it would always be 1.
            None | Some(Value::Null) => labels.len() == 1,
            Some(kind) if kind == "single_label_classification" => labels.len() == 1,
            Some(kind) if kind == "multi_label_classification" => true,
            Some(kind) if kind == "regression" => {
                return Err(Error::unsupported(
                    "config.json: problem_type is \"regression\": the model's outputs are no probabilities of labels",
                ));
            }
            Some(kind) => {
                return Err(Error::bad_model(format!(
                    "config.json: problem_type is {kind}; transformers knows \"single_label_classification\", \
                     \"multi_label_classification\" and \"regression\""
                )));
            }
        };
        Ok(Self {
            labels,
            multi_label,
        })
    }
}

/// What Google published under `google/` on the Hub in this form.
const PUBLISHED: [&str; 27] = [
    "google/siglip-base-patch16-224",
    "google/siglip-base-patch16-256",
    "google/siglip-base-patch16-256-multilingual",
    "google/siglip-base-patch16-384",
    "google/siglip-base-patch16-512",
    "google/siglip-large-patch16-256",
    "google/siglip-large-patch16-384",
    "google/siglip-so400m-patch14-224",
    "google/siglip-so400m-patch14-384",
    "google/siglip-so400m-patch16-256-i18n",
    "google/siglip2-base-patch16-224",
    "google/siglip2-base-patch16-256",
    "google/siglip2-base-patch16-384",
    "google/siglip2-base-patch16-512",
    "google/siglip2-base-patch16-naflex",
    "google/siglip2-base-patch32-256",
    "google/siglip2-giant-opt-patch16-256",
    "google/siglip2-giant-opt-patch16-384",
    "google/siglip2-large-patch16-256",
    "google/siglip2-large-patch16-384",
    "google/siglip2-large-patch16-512",
    "google/siglip2-so400m-patch14-224",
    "google/siglip2-so400m-patch14-384",
    "google/siglip2-so400m-patch16-256",
    "google/siglip2-so400m-patch16-384",
    "google/siglip2-so400m-patch16-512",
    "google/siglip2-so400m-patch16-naflex",
];

impl SiglipConfig {
    /// The checkpoint of this architecture that Google published on the Hub, if there is one.
    pub fn published(&self) -> Option<&'static str> {
        if self.classifier.is_some() {
            return None;
        }
        let (vision, vocabulary) = (&self.vision, self.text.vocab_size);
        let size = match vision.encoder.hidden_size {
            768 => "base",
            1024 => "large",
            1152 => "so400m",
            1536 => "giant-opt",
            _ => return None,
        };
        let (family, languages) = match (vocabulary, size) {
            (32_000, _) => ("siglip", ""),
            (250_000, "base") => ("siglip", "-multilingual"),
            (250_000, _) => ("siglip", "-i18n"),
            (256_000, _) => ("siglip2", ""),
            _ => return None,
        };
        let patch = vision.patch_size;
        let image = match vision.naflex {
            true => "naflex".into(),
            false => vision.image_size.to_string(),
        };
        let name = format!("google/{family}-{size}-patch{patch}-{image}{languages}");
        PUBLISHED.into_iter().find(|published| *published == name)
    }
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    text_config: RawText,
    #[serde(default)]
    vision_config: RawVision,
}

/// The keys that both towers have.
#[derive(Deserialize)]
#[serde(default)]
struct RawEncoder {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    layer_norm_eps: f64,
    hidden_act: String,
}

impl Default for RawEncoder {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            layer_norm_eps: 1e-6,
            hidden_act: "gelu_pytorch_tanh".into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct RawText {
    #[serde(flatten)]
    encoder: RawEncoder,
    vocab_size: usize,
    max_position_embeddings: usize,
    projection_size: Option<usize>,
}

impl Default for RawText {
    fn default() -> Self {
        Self {
            encoder: RawEncoder::default(),
            vocab_size: 32000,
            max_position_embeddings: 64,
            projection_size: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct RawVision {
    #[serde(flatten)]
    encoder: RawEncoder,
    num_channels: usize,
    image_size: Side,
    patch_size: Side,
    /// Of NaFlex, in the place of `image_size`.
    num_patches: usize,
    vision_use_head: bool,
}

impl Default for RawVision {
    fn default() -> Self {
        Self {
            encoder: RawEncoder::default(),
            num_channels: 3,
            image_size: Side::One(224),
            patch_size: Side::One(16),
            num_patches: 256,
            vision_use_head: true,
        }
    }
}

/// A side of a square, or both sides of a rectangle.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Side {
    One(usize),
    Two([usize; 2]),
}

impl Side {
    fn square(self, key: &str) -> Result<usize> {
        match self {
            Side::One(side) => Ok(side),
            Side::Two([height, width]) if height == width => Ok(height),
            Side::Two([height, width]) => Err(Error::unsupported(format!(
                "config.json: vision_config.{key} is {height} × {width}; only squares are supported"
            ))),
        }
    }
}

/// No SigLIP comes near it; a larger number is damage, and multiplying two of them must not overflow 32 bits of memory.
const LARGEST: u64 = 1 << 20;

fn positive(section: &str, key: &str, value: usize) -> Result<usize> {
    check_size(&format!("{section}.{key}"), value as u64)?;
    Ok(value)
}

fn check_size(key: &str, value: u64) -> Result<()> {
    if (1..=LARGEST).contains(&value) {
        return Ok(());
    }
    Err(Error::bad_model(format!(
        "config.json: {key} is {value}; expected 1 to {LARGEST}"
    )))
}

fn activation(section: &str, name: &str) -> Result<Activation> {
    match name {
        "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::Gelu),
        other => Err(Error::unsupported(format!(
            "config.json: {section}.hidden_act {other:?} is not supported; SigLIP uses \"gelu_pytorch_tanh\", or \"gelu\" for the exact form"
        ))),
    }
}

impl RawEncoder {
    fn check(self, section: &str) -> Result<EncoderConfig> {
        let size = |key: &str, value: usize| positive(section, key, value);
        let config = EncoderConfig {
            hidden_size: size("hidden_size", self.hidden_size)?,
            intermediate_size: size("intermediate_size", self.intermediate_size)?,
            num_hidden_layers: size("num_hidden_layers", self.num_hidden_layers)?,
            num_attention_heads: size("num_attention_heads", self.num_attention_heads)?,
            layer_norm_eps: self.layer_norm_eps,
            hidden_act: activation(section, &self.hidden_act)?,
        };
        if config.num_hidden_layers > 1000 {
            return Err(Error::bad_model(format!(
                "config.json: {section}.num_hidden_layers is {}; expected at most 1000",
                config.num_hidden_layers
            )));
        }
        if !config
            .hidden_size
            .is_multiple_of(config.num_attention_heads)
        {
            return Err(Error::bad_model(format!(
                "config.json: {section}.hidden_size {} is not a multiple of num_attention_heads {}",
                config.hidden_size, config.num_attention_heads
            )));
        }
        if !(config.layer_norm_eps > 0.0 && config.layer_norm_eps < 1.0) {
            return Err(Error::bad_model(format!(
                "config.json: {section}.layer_norm_eps is {}; expected a small positive number",
                config.layer_norm_eps
            )));
        }
        Ok(config)
    }
}

impl RawConfig {
    fn check(self, classifier: Option<ClassifierConfig>, naflex: bool) -> Result<SiglipConfig> {
        let (t, v) = (self.text_config, self.vision_config);
        let text = TextConfig {
            encoder: t.encoder.check("text_config")?,
            vocab_size: positive("text_config", "vocab_size", t.vocab_size)?,
            max_position_embeddings: positive(
                "text_config",
                "max_position_embeddings",
                t.max_position_embeddings,
            )?,
            projection_size: match t.projection_size {
                None => None,
                Some(size) => Some(positive("text_config", "projection_size", size)?),
            },
        };
        if v.num_channels != 3 {
            return Err(Error::unsupported(format!(
                "config.json: vision_config.num_channels is {}; only 3 (red, green, blue) is supported",
                v.num_channels
            )));
        }
        if !v.vision_use_head && classifier.is_none() {
            return Err(Error::unsupported(
                "config.json: vision_config.vision_use_head is false; a model without the pooling head has no image embedding",
            ));
        }
        let patch_size = positive(
            "vision_config",
            "patch_size",
            v.patch_size.square("patch_size")?,
        )?;
        let image_size = match naflex {
            false => v.image_size.square("image_size")?,
            true => {
                let patches = positive("vision_config", "num_patches", v.num_patches)?;
                if patches.isqrt().pow(2) != patches {
                    return Err(Error::unsupported(format!(
                        "config.json: vision_config.num_patches is {patches}; only a square's number of patches is supported"
                    )));
                }
                patches.isqrt() * patch_size
            }
        };
        let vision = VisionConfig {
            encoder: v.encoder.check("vision_config")?,
            num_channels: v.num_channels,
            image_size: positive("vision_config", "image_size", image_size)?,
            patch_size,
            naflex,
        };
        if vision.image_size > 16_384 || vision.patch_size > vision.image_size {
            return Err(Error::bad_model(format!(
                "config.json: vision_config has image_size {} and patch_size {}; expected 16384 ≥ image_size ≥ patch_size",
                vision.image_size, vision.patch_size
            )));
        }
        if classifier.is_none() && vision.encoder.hidden_size != text.projection_size() {
            return Err(Error::bad_model(format!(
                "config.json: image embeddings would have {} numbers and text embeddings {}; they must be equal",
                vision.encoder.hidden_size,
                text.projection_size()
            )));
        }
        Ok(SiglipConfig {
            text,
            vision,
            classifier,
        })
    }
}
