//! `tokenizer.json` and `tokenizer_config.json`, read in one pass: the 34 MB of SigLIP 2's go straight into the arrays that are kept.

use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;

use super::Model;
use super::bpe::{Bpe, Merges};
use super::charsmap::Charsmap;
use super::pieces::Pieces;
use super::steps::{Behavior, Normalize, Pattern, PreTokenize, UnicodeForm};
use super::unigram::Unigram;
use crate::error::{Error, Result};

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

/// `tokenizer.json`.
#[derive(Deserialize)]
pub(super) struct File {
    #[serde(default)]
    pub added_tokens: Vec<AddedToken>,
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
    pub model: RawModel,
}

/// A token of `added_tokens`.
#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub id: u32,
    pub content: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    /// Whether it is looked for in the normalized text, itself normalized.
    pub normalized: bool,
    pub special: bool,
}

impl AddedToken {
    /// A special token that is found as written.
    pub(super) fn special(content: String, id: u32) -> Self {
        Self {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: true,
        }
    }
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

/// `model` as it is written, for either algorithm.
#[derive(Default, Deserialize)]
pub(super) struct RawModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Vocabulary,
    merges: Option<MergeList>,
    unk_id: Option<u64>,
    unk_token: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

impl RawModel {
    /// The largest id, sentinels left out.
    pub(super) fn max_id(&self) -> u32 {
        let pieces = self.vocab.pieces.iter();
        let ids = pieces.filter(|(piece, _)| !is_sentinel(piece));
        ids.map(|(_, id)| id).max().unwrap_or(0)
    }

    /// Checks the model and makes it ready to encode.
    pub(super) fn build(self) -> Result<Model> {
        let algorithm = match (self.kind.as_deref(), &self.merges) {
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
        match algorithm {
            Algorithm::Unigram => self.unigram().map(Model::Unigram),
            Algorithm::Bpe => self.bpe().map(Model::Bpe),
        }
    }

    fn unigram(self) -> Result<Unigram> {
        let Some(scores) = self.vocab.scores else {
            return Err(damaged("`model.vocab` is no list of pieces and scores"));
        };
        let Some(unknown) = self.unk_id else {
            return Err(Error::bad_model(format!(
                "{FILE} has no token for unknown characters (`model.unk_id`)"
            )));
        };
        let pieces = index(self.vocab.pieces)?;
        if unknown >= pieces.len() as u64 {
            return Err(damaged(format!(
                "`model.unk_id` is {unknown}, but there are {} pieces",
                pieces.len()
            )));
        }
        // Every stretch of a label up to this length is looked up.
        const LONGEST: usize = 4096;
        if pieces.longest() > LONGEST {
            return Err(damaged(format!(
                "a piece has {} bytes; more than {LONGEST} can be no word",
                pieces.longest()
            )));
        }
        Ok(Unigram::new(
            pieces,
            scores,
            unknown as u32,
            self.byte_fallback == Some(true),
        ))
    }

    fn bpe(self) -> Result<Bpe> {
        if self.vocab.scores.is_some() {
            return Err(damaged("`model.vocab` is no table of pieces and ids"));
        }
        let affixes = [&self.continuing_subword_prefix, &self.end_of_word_suffix];
        if affixes.into_iter().flatten().any(|affix| !affix.is_empty()) {
            return Err(Error::unsupported(format!(
                "{FILE} marks word parts with a prefix or suffix, which SigLIP 2's tokenizer does not"
            )));
        }
        if self.dropout.is_some_and(|dropout| dropout != 0.0) {
            return Err(Error::unsupported(format!(
                "{FILE} asks for BPE dropout, which would give a label other ids each time"
            )));
        }
        let pieces = index(self.vocab.pieces)?;
        check_unique_ids(&pieces)?;
        let merges = match &self.merges {
            Some(merges) => merges.resolve(&pieces)?,
            None => Merges::default(),
        };
        let unknown = match &self.unk_token {
            Some(token) => Some(pieces.get(token).ok_or_else(|| {
                damaged(format!("`model.unk_token` is {token:?}, which is no piece"))
            })?),
            None => None,
        };
        Ok(Bpe::new(
            pieces,
            merges,
            unknown,
            self.fuse_unk == Some(true),
            self.byte_fallback == Some(true),
            self.ignore_merges == Some(true),
        ))
    }
}

fn damaged(what: impl fmt::Display) -> Error {
    Error::bad_model(format!("{FILE} is damaged: {what}"))
}

fn part_error(name: &str, e: impl fmt::Display) -> Error {
    Error::bad_model(format!("{FILE}: `{name}` is damaged: {e}"))
}

fn index(mut pieces: Pieces) -> Result<Pieces> {
    match pieces.index() {
        Ok(()) => Ok(pieces),
        Err(twice) => Err(damaged(format!(
            "`model.vocab` has the piece {:?} twice",
            excerpt(pieces.piece(twice))
        ))),
    }
}

fn check_unique_ids(pieces: &Pieces) -> Result<()> {
    let mut ids: Vec<u32> = pieces.iter().map(|(_, id)| id).collect();
    ids.sort_unstable();
    let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) else {
        return Ok(());
    };
    let mut both = pieces.iter().filter(|(_, id)| *id == twice[0]);
    let mut name = || excerpt(both.next().unwrap_or_default().0);
    Err(damaged(format!(
        "`model.vocab` gives the pieces {:?} and {:?} the same id {}",
        name(),
        name(),
        twice[0]
    )))
}

/// `{piece: id}` or `[[piece, score]]`.
#[derive(Default)]
struct Vocabulary {
    pieces: Pieces,
    scores: Option<Vec<f64>>,
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary: {piece: id} or [[piece, score]]")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut pieces, mut piece) = (Pieces::default(), String::new());
                while map.next_key_seed(Over(&mut piece))?.is_some() {
                    let id = map.next_value().map_err(|e| {
                        A::Error::custom(format_args!("the piece {:?}: {e}", excerpt(&piece)))
                    })?;
                    pieces.push(&piece, id).ok_or_else(too_large)?;
                }
                Ok(Vocabulary {
                    pieces,
                    scores: None,
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let (mut pieces, mut piece) = (Pieces::default(), String::new());
                let mut scores = Vec::new();
                while let Some(score) = seq.next_element_seed(PieceAndScore(&mut piece))? {
                    let id = u32::try_from(scores.len()).map_err(A::Error::custom)?;
                    pieces.push(&piece, id).ok_or_else(too_large)?;
                    scores.push(score);
                }
                scores.shrink_to_fit();
                Ok(Vocabulary {
                    pieces,
                    scores: Some(scores),
                })
            }
        }
        deserializer.deserialize_any(Read)
    }
}

fn too_large<E: serde::de::Error>() -> E {
    E::custom("more than 4 GiB of pieces")
}

/// Reads a string over another one.
struct Over<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for Over<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Over<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a piece")
    }

    fn visit_str<E: serde::de::Error>(self, piece: &str) -> Result<(), E> {
        self.0.clear();
        self.0.push_str(piece);
        Ok(())
    }
}

/// Reads `[piece, score]`, the piece over another one.
struct PieceAndScore<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for PieceAndScore<'_> {
    type Value = f64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PieceAndScore<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a piece and its score")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<f64, A::Error> {
        let missing = |n| A::Error::invalid_length(n, &"a piece and its score");
        seq.next_element_seed(Over(self.0))?
            .ok_or_else(|| missing(0))?;
        let score: f64 = seq.next_element()?.ok_or_else(|| missing(1))?;
        if seq.next_element::<IgnoredAny>()?.is_some() {
            return Err(missing(3));
        }
        if !score.is_finite() {
            return Err(A::Error::custom(format_args!(
                "the piece {:?} has the score {score}",
                excerpt(self.0)
            )));
        }
        Ok(score)
    }
}

/// `["a b"]` or `[["a", "b"]]`: all texts, one after the other, and where the left and the right of each merge end.
#[derive(Default)]
struct MergeList {
    text: String,
    ends: Vec<[u32; 2]>,
}

impl MergeList {
    fn push(&mut self, left: &str, right: &str) -> Option<()> {
        self.text.push_str(left);
        let middle = u32::try_from(self.text.len()).ok()?;
        self.text.push_str(right);
        let end = u32::try_from(self.text.len()).ok()?;
        self.ends.push([middle, end]);
        Some(())
    }

    /// The merges by the numbers of their pieces.
    fn resolve(&self, pieces: &Pieces) -> Result<Merges> {
        let mut merges = Vec::with_capacity(self.ends.len());
        let mut start = 0;
        for &[middle, end] in &self.ends {
            let left = &self.text[start..middle as usize];
            let right = &self.text[middle as usize..end as usize];
            start = end as usize;
            let no_piece = |text: &str| {
                damaged(format!(
                    "`model.merges` joins {:?} and {:?}, but {:?} is no piece",
                    excerpt(left),
                    excerpt(right),
                    excerpt(text)
                ))
            };
            merges.push([
                pieces.get(left).ok_or_else(|| no_piece(left))?,
                pieces.get(right).ok_or_else(|| no_piece(right))?,
                pieces
                    .get_joined(left, right)
                    .ok_or_else(|| no_piece(&format!("{left}{right}")))?,
            ]);
        }
        Ok(Merges::new(merges))
    }
}

impl<'de> Deserialize<'de> for MergeList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = MergeList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = MergeList::default();
                let mut texts = [String::new(), String::new()];
                while seq
                    .next_element_seed(OneMerge(&mut list, &mut texts))?
                    .is_some()
                {}
                Ok(list)
            }
        }
        deserializer.deserialize_seq(Read)
    }
}

/// Reads one merge into the list, by way of two strings.
struct OneMerge<'a>(&'a mut MergeList, &'a mut [String; 2]);

impl<'de> DeserializeSeed<'de> for OneMerge<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneMerge<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a merge: \"left right\" or [left, right]")
    }

    fn visit_str<E: serde::de::Error>(self, merge: &str) -> Result<(), E> {
        // The first line of the file that such lists were copied from.
        if merge.starts_with("#version") {
            return Ok(());
        }
        match merge.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => {
                self.0.push(left, right).ok_or_else(too_large)
            }
            _ => Err(E::custom(format_args!(
                "the merge {:?} is not two pieces with a space between them",
                excerpt(merge)
            ))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let OneMerge(list, [left, right]) = self;
        let missing = |n| A::Error::invalid_length(n, &"the two pieces of a merge");
        seq.next_element_seed(Over(left))?
            .ok_or_else(|| missing(0))?;
        seq.next_element_seed(Over(right))?
            .ok_or_else(|| missing(1))?;
        if seq.next_element::<IgnoredAny>()?.is_some() {
            return Err(missing(3));
        }
        list.push(left, right).ok_or_else(too_large)
    }
}

/// Reads `normalizer` as the list of its steps.
pub(super) fn normalizer(value: &Value) -> Result<Vec<Normalize>> {
    const NAME: &str = "normalizer";
    let step = match step_type(NAME, value)? {
        None => return Ok(vec![]),
        Some("Sequence") => return sequence(NAME, "normalizers", value, normalizer),
        Some("Precompiled") => {
            let map = value.get("precompiled_charsmap").and_then(Value::as_str);
            let map = Charsmap::from_base64(map.unwrap_or_default());
            Normalize::Charsmap(map.map_err(|e| part_error(NAME, e))?)
        }
        Some("NFC") => Normalize::Unicode(UnicodeForm::Nfc),
        Some("NFD") => Normalize::Unicode(UnicodeForm::Nfd),
        Some("NFKC") => Normalize::Unicode(UnicodeForm::Nfkc),
        Some("NFKD") => Normalize::Unicode(UnicodeForm::Nfkd),
        Some("Lowercase") => Normalize::Lowercase,
        Some("Replace") => Normalize::Replace {
            pattern: pattern(NAME, value)?,
            content: field(NAME, value, "content")?,
        },
        Some("Strip") => Normalize::Strip {
            left: field(NAME, value, "strip_left")?,
            right: field(NAME, value, "strip_right")?,
        },
        Some("Prepend") => Normalize::Prepend(field(NAME, value, "prepend")?),
        Some(kind) => return Err(unknown_step(NAME, kind)),
    };
    Ok(vec![step])
}

/// Reads `pre_tokenizer` as the list of its steps. `prefix_space` is whether a `Metaspace` may ask for a space before the text.
pub(super) fn pre_tokenizer(value: &Value, prefix_space: bool) -> Result<Vec<PreTokenize>> {
    const NAME: &str = "pre_tokenizer";
    let step = match step_type(NAME, value)? {
        None => return Ok(vec![]),
        Some("Sequence") => {
            return sequence(NAME, "pretokenizers", value, |step| {
                pre_tokenizer(step, prefix_space)
            });
        }
        Some("WhitespaceSplit") => PreTokenize::WhitespaceSplit,
        Some("Metaspace") => PreTokenize::Metaspace {
            replacement: field(NAME, value, "replacement")?,
            prepend: prefix_space && prepends(NAME, value)?,
            split: field::<Option<bool>>(NAME, value, "split")?.unwrap_or(true),
        },
        Some("Split") => PreTokenize::Split {
            pattern: pattern(NAME, value)?,
            behavior: field::<Behavior>(NAME, value, "behavior")?,
            invert: field(NAME, value, "invert")?,
        },
        Some(kind) => return Err(unknown_step(NAME, kind)),
    };
    Ok(vec![step])
}

/// Whether a `Metaspace` puts a space before every text.
fn prepends(name: &str, value: &Value) -> Result<bool> {
    let older: Option<bool> = field(name, value, "add_prefix_space")?;
    let scheme: Option<String> = field(name, value, "prepend_scheme")?;
    match (older, scheme.as_deref()) {
        (_, Some("never")) => Ok(false),
        (None | Some(true), None | Some("always")) => Ok(true),
        (Some(false), _) => Err(part_error(
            name,
            "`add_prefix_space` contradicts `prepend_scheme`",
        )),
        (_, Some(scheme)) => Err(unknown_step(name, &format!("Metaspace, {scheme}"))),
    }
}

fn sequence<T>(
    name: &str,
    key: &str,
    value: &Value,
    read: impl Fn(&Value) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let Some(steps) = value.get(key).and_then(Value::as_array) else {
        return Err(part_error(name, format_args!("a sequence without `{key}`")));
    };
    let steps: Vec<_> = steps.iter().map(read).collect::<Result<_>>()?;
    Ok(steps.into_iter().flatten().collect())
}

/// A field of a step.
fn field<'a, T: Deserialize<'a>>(name: &str, value: &'a Value, key: &str) -> Result<T> {
    T::deserialize(value.get(key).unwrap_or(&Value::Null))
        .map_err(|e| part_error(name, format_args!("`{key}`: {e}")))
}

/// The `pattern` of a step.
fn pattern(name: &str, value: &Value) -> Result<Pattern> {
    #[derive(Deserialize)]
    enum Written {
        String(String),
        Regex(String),
    }
    match field(name, value, "pattern")? {
        Written::String(text) if text.is_empty() => {
            Err(part_error(name, "`pattern` is an empty text"))
        }
        Written::String(text) => Ok(Pattern::Text(text)),
        Written::Regex(regex) => Pattern::from_regex(&regex).ok_or_else(|| {
            Error::unsupported(format!(
                "{FILE}: the regular expression {:?} in {name} is not one that SigLIP's tokenizers use",
                excerpt(&regex)
            ))
        }),
    }
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

/// The start of a text, for a message.
pub(super) fn excerpt(text: &str) -> &str {
    match text.char_indices().nth(60) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
