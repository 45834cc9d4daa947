//! `open_clip_config.json`, said as the files that transformers has: `config.json` and `preprocessor_config.json`.
//!
//! The vision tower is a model of timm, whose name says its sizes; the text tower is open_clip's own. Both compute what transformers' towers
//! do, but for the MLPs' GELU: that of timm's towers is exact in some and in its tanh form in others, whatever the weights were trained with.
//! A key that would change what is computed and isn't known here is refused.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::json;

pub const FILE: &str = "open_clip_config.json";

/// timm's vision transformers with SigLIP's head, and whether their GELU is in its tanh form (`act_layer` in timm 1.0.31's
/// `models/vision_transformer.py`).
const TRUNKS: [(&str, bool); 16] = [
    ("vit_base_patch32_siglip_256", true),
    ("vit_base_patch16_siglip_224", false),
    ("vit_base_patch16_siglip_256", false),
    ("vit_base_patch16_siglip_384", false),
    ("vit_base_patch16_siglip_512", false),
    ("vit_large_patch16_siglip_256", false),
    ("vit_large_patch16_siglip_384", false),
    ("vit_large_patch16_siglip_512", true),
    ("vit_so400m_patch14_siglip_224", false),
    ("vit_so400m_patch14_siglip_378", false),
    ("vit_so400m_patch14_siglip_384", false),
    ("vit_so400m_patch16_siglip_256", true),
    ("vit_so400m_patch16_siglip_384", true),
    ("vit_so400m_patch16_siglip_512", true),
    ("vit_giantopt_patch16_siglip_256", true),
    ("vit_giantopt_patch16_siglip_384", true),
];

#[derive(Deserialize)]
struct Config {
    model_cfg: Model,
    preprocess_cfg: Preprocess,
}

#[derive(Deserialize)]
struct Model {
    embed_dim: usize,
    #[serde(default)]
    custom_text: bool,
    vision_cfg: Vision,
    text_cfg: Text,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct Vision {
    image_size: Value,
    timm_model_name: Option<String>,
    timm_pool: Option<String>,
    timm_proj: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Absent keys are those of open_clip's `CLIPTextCfg`.
#[derive(Deserialize)]
#[serde(default)]
struct Text {
    context_length: usize,
    vocab_size: usize,
    width: usize,
    heads: usize,
    layers: usize,
    mlp_ratio: f64,
    no_causal_mask: bool,
    proj_bias: bool,
    pool_type: String,
    proj_type: String,
    act_kwargs: Option<Activation>,
    norm_kwargs: Option<Norm>,
    tokenizer_kwargs: Option<TokenizerArguments>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            context_length: 77,
            vocab_size: 49_408,
            width: 512,
            heads: 8,
            layers: 12,
            mlp_ratio: 4.0,
            no_causal_mask: false,
            proj_bias: false,
            pool_type: "argmax".into(),
            proj_type: "linear".into(),
            act_kwargs: None,
            norm_kwargs: None,
            tokenizer_kwargs: None,
            rest: Map::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Activation {
    approximate: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Norm {
    eps: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenizerArguments {
    clean: String,
}

#[derive(Deserialize)]
struct Preprocess {
    size: Option<Value>,
    mean: Vec<f64>,
    std: Vec<f64>,
    interpolation: String,
    resize_mode: String,
}

fn unsupported(key: &str, what: impl std::fmt::Display) -> Error {
    Error::unsupported(format!(
        "{FILE}: {key} is {what}; of open_clip's models, SigLIP's own can be read"
    ))
}

/// The side of a square that is given as a number or as two.
fn side(key: &str, value: &Value) -> Result<u64> {
    let sides = match value {
        Value::Array(both) => both.iter().map(Value::as_u64).collect::<Option<Vec<_>>>(),
        one => one.as_u64().map(|side| vec![side]),
    };
    match sides.as_deref() {
        Some([side]) => Ok(*side),
        Some([height, width]) if height == width => Ok(*height),
        _ => Err(unsupported(
            key,
            format!("{value}, not the side of a square"),
        )),
    }
}

/// Are the other keys of a section without an effect on what is computed?
fn check_rest(section: &str, rest: &Map<String, Value>, known: &[&str]) -> Result<()> {
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    };
    let strange = rest
        .iter()
        .find(|(key, value)| !known.contains(&key.as_str()) && !empty(value));
    match strange {
        Some((key, value)) => Err(unsupported(&format!("{section}.{key}"), value)),
        None => Ok(()),
    }
}

/// Both files' JSON, `config.json` first.
///
/// # Errors
/// `bad-model` if it can't be read; `unsupported`, naming the key, for another model than a SigLIP.
pub fn as_transformers(bytes: &[u8]) -> Result<[Vec<u8>; 2]> {
    let Config {
        model_cfg: model,
        preprocess_cfg: preprocess,
    } = json::parse(FILE, bytes)?;
    let (vision, text) = (&model.vision_cfg, &model.text_cfg);
    check_rest(
        "model_cfg",
        &model.rest,
        &["init_logit_bias", "init_logit_scale"],
    )?;
    // What only training reads.
    let training = [
        "timm_model_pretrained",
        "timm_drop",
        "timm_drop_path",
        "patch_dropout",
    ];
    check_rest("vision_cfg", &vision.rest, &training)?;
    // The ids are those of poolings that SigLIP hasn't.
    check_rest(
        "text_cfg",
        &text.rest,
        &["hf_tokenizer_name", "pad_id", "eos_id"],
    )?;
    for (key, given, needed) in [
        ("vision_cfg.timm_pool", vision.timm_pool.as_deref(), "map"),
        ("vision_cfg.timm_proj", vision.timm_proj.as_deref(), "none"),
        ("text_cfg.pool_type", Some(text.pool_type.as_str()), "last"),
        (
            "text_cfg.proj_type",
            Some(text.proj_type.as_str()),
            "linear",
        ),
        (
            "text_cfg.tokenizer_kwargs.clean",
            text.tokenizer_kwargs
                .as_ref()
                .map(|arguments| arguments.clean.as_str()),
            "canonicalize",
        ),
        (
            "preprocess_cfg.resize_mode",
            Some(preprocess.resize_mode.as_str()),
            "squash",
        ),
    ] {
        if given != Some(needed) {
            return Err(unsupported(key, format!("{given:?}, not {needed:?}")));
        }
    }
    for (key, given) in [
        ("custom_text", model.custom_text),
        ("text_cfg.no_causal_mask", text.no_causal_mask),
        ("text_cfg.proj_bias", text.proj_bias),
    ] {
        if !given {
            return Err(unsupported(key, "false"));
        }
    }
    let config = json!({
        "model_type": "siglip",
        "vision_config": vision_config(vision)?,
        "text_config": {
            "hidden_size": text.width,
            "intermediate_size": (text.width as f64 * text.mlp_ratio) as usize,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "layer_norm_eps": text.norm_kwargs.as_ref().map_or(1e-5, |norm| norm.eps),
            "hidden_act": match text.act_kwargs.as_ref().map(|act| act.approximate.as_str()) {
                None | Some("none") => "gelu",
                Some("tanh") => "gelu_pytorch_tanh",
                Some(other) => return Err(unsupported("text_cfg.act_kwargs.approximate", other)),
            },
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "projection_size": model.embed_dim,
        },
    });
    let given = preprocess.size.as_ref().unwrap_or(&vision.image_size);
    let side = side("preprocess_cfg.size", given)?;
    let resample = match preprocess.interpolation.as_str() {
        "bilinear" => 2,
        "bicubic" => 3,
        other => return Err(unsupported("preprocess_cfg.interpolation", other)),
    };
    let preprocessor = json!({
        "size": {"height": side, "width": side},
        "resample": resample,
        "image_mean": preprocess.mean,
        "image_std": preprocess.std,
    });
    Ok([config, preprocessor].map(|file| file.to_string().into_bytes()))
}

/// transformers' `vision_config` for a model of timm.
fn vision_config(vision: &Vision) -> Result<Value> {
    let name = vision.timm_model_name.as_deref().unwrap_or_default();
    let strange = || unsupported("vision_cfg.timm_model_name", format!("{name:?}"));
    let trunk = TRUNKS.iter().find(|(trunk, _)| *trunk == name);
    let (_, tanh) = trunk.ok_or_else(strange)?;
    // vit_SIZE_patchN_siglip_SIDE
    let mut words = name.split('_').skip(1);
    let (hidden, intermediate, layers, heads) = match words.next() {
        Some("base") => (768, 3072, 12, 12),
        Some("large") => (1024, 4096, 24, 16),
        Some("so400m") => (1152, 4304, 27, 16),
        Some("giantopt") => (1536, 6144, 40, 16),
        _ => return Err(strange()),
    };
    let patch = words.next().and_then(|word| word.strip_prefix("patch"));
    let patch: u64 = patch
        .and_then(|side| side.parse().ok())
        .ok_or_else(strange)?;
    Ok(json!({
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": if *tanh { "gelu_pytorch_tanh" } else { "gelu" },
        "image_size": side("vision_cfg.image_size", &vision.image_size)?,
        "patch_size": patch,
    }))
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;
    use crate::Code;
    use crate::kernels::Activation;
    use crate::model::{EncoderConfig, SiglipConfig};
    use crate::preprocess::{Input, Preprocessor};

    /// Are the sizes those of the classes that open_clip makes (`tests/reference/layouts.py`)?
    fn assert_encoder(name: &str, got: &EncoderConfig, expected: &Value) {
        let got = json!({
            "hidden_size": got.hidden_size,
            "intermediate_size": got.intermediate_size,
            "num_hidden_layers": got.num_hidden_layers,
            "num_attention_heads": got.num_attention_heads,
            "layer_norm_eps": got.layer_norm_eps,
            "hidden_act": match got.hidden_act {
                Activation::GeluTanh => "gelu_pytorch_tanh",
                Activation::Gelu => "gelu",
            },
        });
        for (key, value) in got.as_object().unwrap() {
            assert_eq!(*value, expected[key], "{name} {key}");
        }
    }

    #[test]
    fn every_published_model_has_the_towers_that_open_clip_makes() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/configs/open_clip.json"
        );
        let models: Map<String, Value> =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(models.len() >= 26);
        for (name, model) in &models {
            let files = as_transformers(model["open_clip_config"].to_string().as_bytes());
            if name == "ViT-SO400M-16-SigLIP-i18n-256" {
                // Its text tower ends without a projection.
                let error = files.unwrap_err();
                assert_eq!(error.code(), Code::Unsupported);
                assert!(error.message().contains("text_cfg.proj_type"), "{error}");
                continue;
            }
            let [config, preprocessor] = files.unwrap();
            let config = SiglipConfig::from_json(&config).unwrap();
            let (vision, text) = (&config.vision, &config.text);
            assert_encoder(name, &vision.encoder, &model["vision"]);
            assert_encoder(name, &text.encoder, &model["text"]);
            for (got, section, key) in [
                (vision.image_size, "vision", "image_size"),
                (vision.patch_size, "vision", "patch_size"),
                (vision.num_patches(), "vision", "patches"),
                (text.vocab_size, "text", "vocab_size"),
                (
                    text.max_position_embeddings,
                    "text",
                    "max_position_embeddings",
                ),
                (text.projection_size(), "text", "projection_size"),
            ] {
                assert_eq!(model[section][key], got, "{name} {key}");
            }
            let side = vision.image_size;
            let preprocessor = Preprocessor::from_json(&preprocessor).unwrap();
            assert_eq!(
                preprocessor.input(),
                Input::Fixed {
                    height: side,
                    width: side
                },
                "{name}"
            );
        }
    }
}
