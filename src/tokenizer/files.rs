//! `tokenizer.json` and `tokenizer_config.json`, read and checked before the `tokenizers` crate sees
//! them: that crate may panic on a file that is well-formed JSON but makes no sense.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use tokenizers::models::{ModelWrapper, bpe::BPE, unigram::Unigram};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use super::charsmap::Charsmap;
use crate::error::{Error, Result};
use crate::json;

pub(super) const FILE: &str = "tokenizer.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";

/// What is read from `tokenizer_config.json`; everything may be missing.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Config {
    pub tokenizer_class: Option<String>,
    pub do_lower_case: Option<bool>,
    pub padding_side: Option<Side>,
    pub truncation_side: Option<Side>,
    pub add_bos_token: Option<bool>,
    pub add_eos_token: Option<bool>,
    pub bos_token: Option<Token>,
    pub eos_token: Option<Token>,
    pub pad_token: Option<Token>,
    pub unk_token: Option<Token>,
}

/// The end of the sequence at which padding is put or tokens are cut.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) enum Side {
    #[serde(rename = "left", alias = "Left")]
    Left,
    #[serde(rename = "right", alias = "Right")]
    Right,
}

/// A special token, as a string or as a serialised `AddedToken`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Token {
    Plain(String),
    Added { content: String },
}

impl Token {
    pub(super) fn content(&self) -> &str {
        match self {
            Token::Plain(content) | Token::Added { content } => content,
        }
    }
}

/// `tokenizer.json` without the model, which is large and goes straight into its own type.
#[derive(Deserialize)]
pub(super) struct File {
    #[serde(default)]
    pub added_tokens: Vec<AddedTokenWithId>,
    #[serde(default)]
    pub normalizer: Value,
    #[serde(default)]
    pub pre_tokenizer: Value,
    #[serde(default)]
    pub post_processor: Value,
    #[serde(default)]
    pub padding: Option<Padding>,
    #[serde(default)]
    pub truncation: Option<Truncation>,
}

/// `tokenizer.json` with nothing but the model, read as `T`.
#[derive(Deserialize)]
struct WithModel<T> {
    model: T,
}

#[derive(Deserialize)]
pub(super) struct AddedTokenWithId {
    pub id: u32,
    #[serde(flatten)]
    pub token: AddedToken,
}

#[derive(Deserialize)]
pub(super) struct Padding {
    pub direction: Option<Side>,
    pub pad_token: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Truncation {
    pub direction: Option<Side>,
}

/// Which algorithm cuts text into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    Bpe,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::Unigram => "Unigram",
            Algorithm::Bpe => "BPE",
        })
    }
}

/// The pieces, the algorithm and the largest id, sentinels left out.
pub(super) struct Model {
    pub algorithm: Algorithm,
    pub max_id: u64,
    pub wrapper: ModelWrapper,
}

/// The model's small fields; the vocabulary is only measured.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: VocabularyRange,
    merges: Option<IgnoredAny>,
    unk_id: Option<u64>,
    dropout: Option<Value>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

impl Model {
    /// Reads the model from the bytes of `tokenizer.json`.
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self> {
        let head: Head = model(bytes)?;
        let algorithm = match (head.kind.as_deref(), &head.merges) {
            (Some("Unigram"), _) => Algorithm::Unigram,
            (Some("BPE"), _) | (None, Some(_)) => Algorithm::Bpe,
            (Some(other), _) => {
                return Err(Error::unsupported(format!(
                    "{FILE} holds a {other:?} model; SigLIP uses Unigram and SigLIP 2 uses BPE"
                )));
            }
            (None, None) => {
                return Err(Error::bad_model(format!(
                    "{FILE} does not say which model it holds (`model.type` is missing)"
                )));
            }
        };
        let wrapper = match algorithm {
            Algorithm::Unigram => {
                if head.unk_id.is_none() {
                    return Err(Error::bad_model(format!(
                        "{FILE} has no token for unknown characters (`model.unk_id`)"
                    )));
                }
                ModelWrapper::Unigram(model::<Unigram>(bytes)?)
            }
            Algorithm::Bpe => {
                let affixes = [&head.continuing_subword_prefix, &head.end_of_word_suffix];
                if affixes.into_iter().flatten().any(|affix| !affix.is_empty()) {
                    return Err(Error::unsupported(format!(
                        "{FILE} marks word parts with a prefix or suffix, which SigLIP 2's tokenizer does not"
                    )));
                }
                if head
                    .dropout
                    .is_some_and(|dropout| dropout.as_f64() != Some(0.0))
                {
                    return Err(Error::unsupported(format!(
                        "{FILE} asks for BPE dropout, which would give a label other ids each time"
                    )));
                }
                ModelWrapper::BPE(model::<BPE>(bytes)?)
            }
        };
        Ok(Model {
            algorithm,
            max_id: head.vocab.max_id,
            wrapper,
        })
    }
}

/// Reads the model of `tokenizer.json` as `T`, passing over everything else.
fn model<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let with_model: WithModel<T> =
        serde_json::from_slice(json::without_mark(bytes)).map_err(|e| part_error("model", e))?;
    Ok(with_model.model)
}

fn part_error(name: &str, e: impl fmt::Display) -> Error {
    Error::bad_model(format!("{FILE}: `{name}` is damaged: {e}"))
}

/// One step of `normalizer`.
pub(super) enum Normalize {
    Charsmap(Charsmap),
    Library(NormalizerWrapper),
}

/// Reads `normalizer` as the list of its steps.
pub(super) fn normalizer(value: Value) -> Result<Vec<Normalize>> {
    const NAME: &str = "normalizer";
    match step_type(NAME, &value)? {
        None => Ok(vec![]),
        Some("Sequence") => {
            #[derive(Deserialize)]
            struct Steps {
                normalizers: Vec<Value>,
            }
            let steps: Steps = serde_json::from_value(value).map_err(|e| part_error(NAME, e))?;
            let steps = steps.normalizers.into_iter().map(normalizer);
            Ok(steps
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .flatten()
                .collect())
        }
        Some("Precompiled") => {
            let map = value.get("precompiled_charsmap").and_then(Value::as_str);
            let map =
                Charsmap::from_base64(map.unwrap_or_default()).map_err(|e| part_error(NAME, e))?;
            Ok(vec![Normalize::Charsmap(map)])
        }
        Some(
            "Replace" | "Lowercase" | "NFC" | "NFD" | "NFKC" | "NFKD" | "Strip" | "Prepend" | "Nmt",
        ) => {
            let step = serde_json::from_value(value).map_err(|e| part_error(NAME, e))?;
            Ok(vec![Normalize::Library(step)])
        }
        Some(kind) => Err(unknown_step(NAME, kind)),
    }
}

/// Reads `pre_tokenizer`.
pub(super) fn pre_tokenizer(value: Value) -> Result<Option<PreTokenizerWrapper>> {
    const NAME: &str = "pre_tokenizer";
    fn check(step: &Value) -> Result<()> {
        match step_type(NAME, step)? {
            None | Some("Metaspace" | "Split" | "WhitespaceSplit" | "Whitespace") => Ok(()),
            Some("Sequence") => {
                let steps = step.get("pretokenizers").and_then(Value::as_array);
                steps.into_iter().flatten().try_for_each(check)
            }
            Some(kind) => Err(unknown_step(NAME, kind)),
        }
    }
    check(&value)?;
    serde_json::from_value(value).map_err(|e| part_error(NAME, e))
}

/// The `type` of a step; `None` for `null`.
fn step_type<'a>(name: &str, step: &'a Value) -> Result<Option<&'a str>> {
    match step.get("type").and_then(Value::as_str) {
        Some(kind) => Ok(Some(kind)),
        None if step.is_null() => Ok(None),
        None => Err(part_error(name, "a step without a `type`")),
    }
}

fn unknown_step(name: &str, kind: &str) -> Error {
    Error::unsupported(format!(
        "{FILE}: {kind:?} as {name} is not one that SigLIP's tokenizers use"
    ))
}

/// Makes every `Metaspace` step leave the start of the text alone.
pub(super) fn without_prefix_space(value: &mut Value) {
    if let Some(step) = value.as_object_mut() {
        if step.get("type").and_then(Value::as_str) == Some("Metaspace") {
            step.remove("add_prefix_space");
            step.insert("prepend_scheme".into(), "never".into());
        }
        if let Some(Value::Array(steps)) = step.get_mut("pretokenizers") {
            steps.iter_mut().for_each(without_prefix_space);
        }
    }
}

/// The special tokens that `post_processor` puts before and after a single text, or `None` if it is
/// absent.
pub(super) fn template(value: &Value) -> Result<Option<(Vec<String>, Vec<String>)>> {
    #[derive(Deserialize)]
    struct Template {
        single: Vec<Piece>,
    }
    #[derive(Deserialize)]
    enum Piece {
        Sequence {},
        SpecialToken { id: String },
    }
    let value = match value.get("processors").and_then(Value::as_array) {
        Some(steps) if steps.len() == 1 => &steps[0],
        _ => value,
    };
    if value.is_null() {
        return Ok(None);
    }
    let kind = value.get("type").and_then(Value::as_str).unwrap_or("null");
    if kind != "TemplateProcessing" {
        return Err(Error::unsupported(format!(
            "{FILE}: {kind:?} as post_processor is not the one that SigLIP's tokenizers use"
        )));
    }
    let template: Template =
        serde_json::from_value(value.clone()).map_err(|e| part_error("post_processor", e))?;
    let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
    for piece in template.single {
        match piece {
            Piece::Sequence {} => seen = true,
            Piece::SpecialToken { id } if seen => after.push(id),
            Piece::SpecialToken { id } => before.push(id),
        }
    }
    Ok(Some((before, after)))
}

/// Whether `token` is one of T5's sentinels. They lie past the embedding table of the multilingual
/// SigLIP checkpoint and never come out of a label.
pub(super) fn is_sentinel(token: &str) -> bool {
    let token = token.trim_start_matches(super::canonical::UNDERLINE);
    token.starts_with("<extra_id_") && token.ends_with('>')
}

/// The largest id of a vocabulary, read without keeping its 256 000 strings.
struct VocabularyRange {
    max_id: u64,
}

impl<'de> Deserialize<'de> for VocabularyRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Range;
        impl<'de> Visitor<'de> for Range {
            type Value = VocabularyRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary: {token: id} or [[token, score]]")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut max_id = 0;
                while let Some((token, id)) = map.next_entry::<String, u64>()? {
                    if !is_sentinel(&token) {
                        max_id = max_id.max(id);
                    }
                }
                Ok(VocabularyRange { max_id })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let (mut max_id, mut id) = (0, 0);
                while let Some((token, _)) = seq.next_element::<(String, f64)>()? {
                    if !is_sentinel(&token) {
                        max_id = id;
                    }
                    id += 1;
                }
                Ok(VocabularyRange { max_id })
            }
        }
        deserializer.deserialize_any(Range)
    }
}
