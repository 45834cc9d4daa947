//! The values that cross between the two worlds, each way.

use js_sys::{Array, Error as JsError, Float32Array, Reflect, Uint8Array};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use crate::classifier::{ClassifyOptions, Embedding, HeatMap, LabelSet, Labels, Picture, Scores};
use crate::device::Backend;
use crate::error::{Code, Error, Result};

/// What `Engine.load` is asked for, beside the files.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadRequest {
    pub name: String,
    pub backend: Backend,
    pub backend_reason: String,
    pub adapter: String,
    /// `"auto"`, or a word of [`Dtype`](crate::Dtype).
    pub dtype: String,
    pub whole_table: bool,
    pub max_patches: Option<usize>,
}

/// The options of `Engine.classify`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassifyRequest {
    template: Option<Templates>,
    scores: Option<Scores>,
    top_k: Option<usize>,
}

/// One sentence or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of strings")]
pub enum Templates {
    One(String),
    Several(Vec<String>),
}

impl From<ClassifyRequest> for ClassifyOptions {
    fn from(request: ClassifyRequest) -> Self {
        let default = Self::default();
        Self {
            templates: match request.template {
                Some(Templates::One(template)) => vec![template],
                Some(Templates::Several(templates)) => templates,
                None => default.templates,
            },
            scores: request.scores,
            top_k: request.top_k,
        }
    }
}

/// The `ModelInfo` of the JavaScript API, but for what the store tells.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelInfo {
    pub name: String,
    pub backend: Backend,
    pub backend_reason: String,
    pub adapter: String,
    pub dtype: &'static str,
    pub image_size: usize,
    pub patch_size: usize,
    pub naflex: bool,
    pub max_patches: usize,
    /// As the Hub calls it.
    pub task: &'static str,
    pub scores: Scores,
    pub embedding_size: usize,
    pub context_length: usize,
    pub parameters: usize,
    pub resample: u8,
    pub logit_scale: f32,
    pub logit_bias: f32,
    pub bytes: usize,
    pub fingerprint: String,
    /// Tensors of the files that the model has no use for.
    pub unused: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

/// How often each tower ran.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub image_runs: usize,
    pub text_runs: usize,
}

/// A value of JavaScript as a `T`; `what` is its name in messages.
///
/// # Errors
/// `bad-input`, naming the part that is missing or of another type.
pub fn read<T: DeserializeOwned>(what: &str, value: JsValue) -> Result<T> {
    let value = serde_wasm_bindgen::Deserializer::from(value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let part = if path == "." { "" } else { &format!(".{path}") };
        Error::bad_input(format!(
            "{what}{part} is not what it must be: {}",
            error.inner()
        ))
    })
}

/// A value of ours for JavaScript.
pub fn write(value: &impl Serialize) -> Result<JsValue> {
    serde_wasm_bindgen::to_value(value).map_err(|error| from_js(error.into()))
}

/// A `SiglipError` as JavaScript throws it: an `Error` with a `code`, and with `beyondRepair` where [`Error::is_beyond_repair`].
pub fn to_js(error: Error) -> JsValue {
    let object = JsError::new(error.message());
    object.set_name("SiglipError");
    // Only fails on frozen objects, and this is our own.
    let _ = Reflect::set(&object, &"code".into(), &error.code().as_str().into());
    if error.is_beyond_repair() {
        let _ = Reflect::set(&object, &"beyondRepair".into(), &true.into());
    }
    object.into()
}

/// An error that the JavaScript side threw to us: ours keep their code, others come from reading files.
pub fn from_js(value: JsValue) -> Error {
    let text = |key: &str| get(&value, key).as_string();
    let code = text("code").and_then(|word| Code::from_word(&word));
    Error::new(
        code.unwrap_or(Code::Network),
        text("message").unwrap_or_else(|| format!("{value:?}")),
    )
}

fn get(object: &JsValue, key: &str) -> JsValue {
    Reflect::get(object, &key.into()).unwrap_or(JsValue::UNDEFINED)
}

/// The bytes of any view of a buffer (`Uint8Array`, `Uint8ClampedArray` …), copied once, into wasm memory; nothing for another value.
fn bytes_in(value: &JsValue) -> Option<Vec<u8>> {
    if let Some(bytes) = value.dyn_ref::<Uint8Array>() {
        return Some(bytes.to_vec());
    }
    let (offset, length) = (get(value, "byteOffset"), get(value, "byteLength"));
    let bytes = Uint8Array::new_with_byte_offset_and_length(
        &get(value, "buffer"),
        offset.as_f64()? as u32,
        length.as_f64()? as u32,
    );
    Some(bytes.to_vec())
}

/// The bytes that a port of JavaScript's gave.
///
/// # Errors
/// `network` for anything else.
pub fn bytes_of(value: &JsValue) -> Result<Vec<u8>> {
    bytes_in(value).ok_or_else(|| Error::network(format!("a file gave {value:?} instead of bytes")))
}

/// A picture that JavaScript handed over, copied into wasm memory.
pub enum Input {
    Encoded(Vec<u8>),
    Rgba(u32, u32, Vec<u8>),
}

impl Input {
    /// `{bytes}`, or `{rgba, width, height}`.
    ///
    /// # Errors
    /// `bad-input` naming the part that is missing or of another type.
    pub fn from_js(image: &JsValue) -> Result<Self> {
        let wrong = |part: &str, value: &JsValue| {
            Error::bad_input(format!("image.{part} is not what it must be: {value:?}"))
        };
        let encoded = get(image, "bytes");
        if !encoded.is_undefined() {
            let bytes = bytes_in(&encoded).ok_or_else(|| wrong("bytes", &encoded))?;
            return Ok(Self::Encoded(bytes));
        }
        let side = |part| {
            let value = get(image, part);
            let number = value
                .as_f64()
                .filter(|n| n.fract() == 0.0 && (0.0..=4294967295.0).contains(n));
            number.map(|n| n as u32).ok_or_else(|| wrong(part, &value))
        };
        let pixels = get(image, "rgba");
        let bytes = bytes_in(&pixels).ok_or_else(|| wrong("rgba", &pixels))?;
        Ok(Self::Rgba(side("width")?, side("height")?, bytes))
    }

    pub fn picture(&self) -> Picture<'_> {
        match self {
            Self::Encoded(bytes) => Picture::Encoded(bytes),
            Self::Rgba(width, height, pixels) => Picture::Rgba {
                width: *width,
                height: *height,
                pixels,
            },
        }
    }
}

pub fn embedding_to_js(embedding: &Embedding) -> JsValue {
    Float32Array::from(embedding.as_slice()).into()
}

pub fn embeddings_to_js(embeddings: &[Embedding]) -> JsValue {
    embeddings
        .iter()
        .map(embedding_to_js)
        .collect::<Array>()
        .into()
}

/// Several pictures.
pub struct Inputs(Vec<Input>);

impl Inputs {
    /// # Errors
    /// As [`Input::from_js`].
    pub fn from_js(images: &Array) -> Result<Self> {
        images
            .iter()
            .map(|image| Input::from_js(&image))
            .collect::<Result<_>>()
            .map(Self)
    }

    pub fn pictures(&self) -> Vec<Picture<'_>> {
        self.0.iter().map(Input::picture).collect()
    }
}

/// What pictures are compared with.
pub enum GivenLabels {
    Words(Vec<String>),
    Set(LabelSet),
    Own,
}

/// The parts of a `LabelSet` but its numbers, which come as they are.
#[derive(Deserialize, Serialize)]
struct LabelSetWords {
    model: String,
    labels: Vec<String>,
    templates: Vec<String>,
}

impl GivenLabels {
    /// An array of texts, the parts of a `LabelSet`, or undefined.
    ///
    /// # Errors
    /// `bad-input` naming the part that is missing, damaged or of another type.
    pub fn from_js(labels: JsValue) -> Result<Self> {
        if labels.is_undefined() {
            return Ok(Self::Own);
        }
        if Array::is_array(&labels) {
            return read("labels", labels).map(Self::Words);
        }
        let embeddings = get(&labels, "embeddings");
        let embeddings = embeddings.dyn_ref::<Float32Array>().ok_or_else(|| {
            Error::bad_input(format!(
                "labels.embeddings is not what it must be: {embeddings:?}"
            ))
        })?;
        let embeddings = embeddings.to_vec();
        let words: LabelSetWords = read("labels", labels)?;
        LabelSet::new(words.model, words.labels, words.templates, embeddings).map(Self::Set)
    }

    pub fn get(&self) -> Labels<'_> {
        match self {
            Self::Words(words) => words.into(),
            Self::Set(set) => set.into(),
            Self::Own => Labels::Own,
        }
    }
}

/// The parts of a `LabelSet`.
pub fn label_set_to_js(set: &LabelSet) -> Result<JsValue> {
    let object = write(&LabelSetWords {
        model: set.model().to_owned(),
        labels: set.labels().to_vec(),
        templates: set.templates().to_vec(),
    })?;
    Ok(with_numbers(object, "embeddings", set.as_slice()))
}

/// How a `HeatMap` is laid out.
#[derive(Serialize)]
struct Grid {
    rows: usize,
    columns: usize,
}

/// A `HeatMap`.
pub fn heat_map_to_js(map: &HeatMap) -> Result<JsValue> {
    let HeatMap {
        rows,
        columns,
        ref values,
    } = *map;
    Ok(with_numbers(
        write(&Grid { rows, columns })?,
        "values",
        values,
    ))
}

/// The object with a `Float32Array` more.
fn with_numbers(object: JsValue, key: &str, numbers: &[f32]) -> JsValue {
    // Only fails on frozen objects, and this is our own.
    let _ = Reflect::set(&object, &key.into(), &Float32Array::from(numbers).into());
    object
}
