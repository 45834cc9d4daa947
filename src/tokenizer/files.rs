//! `tokenizer.json` and `tokenizer_config.json`, read in one pass: the 34 MB of SigLIP 2's go straight into the arrays that are kept.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pieces::Pieces;

pub(super) const TOKENIZER_JSON: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// What was added to SentencePiece's pieces, by transformers before 4.34.
pub(super) const ADDED_TOKENS: &str = "added_tokens.json";

/// What is read from `tokenizer_config.json`; everything may be missing.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    pub tokenizer_class: Option<String>,
    pub do_lower_case: Option<bool>,
    pub padding_side: Option<Side>,
    pub truncation_side: Option<Side>,
    pub add_bos_token: Option<bool>,
    pub add_eos_token: Option<bool>,
    pub bos_token: Option<SpecialToken>,
    pub eos_token: Option<SpecialToken>,
    pub pad_token: Option<SpecialToken>,
    pub unk_token: Option<SpecialToken>,
    /// Tokens by their ids: all that SentencePiece's files have of those that were added to them.
    #[serde(default)]
    pub added_tokens_decoder: Option<BTreeMap<u32, NamedToken>>,
}

impl TokenizerConfig {
    /// The special tokens that it names.
    fn special(&self) -> impl Iterator<Item = &str> {
        let named = [
            &self.bos_token,
            &self.eos_token,
            &self.pad_token,
            &self.unk_token,
        ];
        named.into_iter().flatten().map(SpecialToken::content)
    }

    /// Takes what [`ADDED_TOKENS`] says.
    pub(super) fn add(&mut self, tokens: BTreeMap<String, u32>) {
        let tokens = tokens.into_iter().map(|(content, id)| {
            let special = self.special().any(|token| token == content);
            let token = NamedToken {
                content,
                special,
                ..NamedToken::default()
            };
            (id, token)
        });
        self.added_tokens_decoder = Some(tokens.collect());
    }
}

/// A token of `added_tokens_decoder`; what is missing is as in Python's `AddedToken`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NamedToken {
    pub content: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    pub normalized: Option<bool>,
    pub special: bool,
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
pub(super) enum SpecialToken {
    Plain(String),
    Added { content: String },
}

impl SpecialToken {
    pub(super) fn content(&self) -> &str {
        match self {
            SpecialToken::Plain(content) | SpecialToken::Added { content } => content,
        }
    }
}

/// `tokenizer.json`.
#[derive(Deserialize)]
pub(super) struct TokenizerJson {
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
#[derive(Deserialize, Serialize)]
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
    pub(super) fn named(id: u32, token: NamedToken) -> Self {
        Self {
            id,
            content: token.content,
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            normalized: token.normalized.unwrap_or(!token.special),
            special: token.special,
        }
    }

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
    pub kind: Option<String>,
    pub vocab: Vocabulary,
    pub merges: Option<Merging>,
    pub unk_id: Option<u64>,
    pub unk_token: Option<String>,
    pub fuse_unk: Option<bool>,
    pub byte_fallback: Option<bool>,
    pub ignore_merges: Option<bool>,
    pub dropout: Option<f64>,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
}

impl RawModel {
    /// The largest id, sentinels left out.
    pub(super) fn max_id(&self) -> u32 {
        let pieces = self.vocab.pieces.iter();
        let ids = pieces.filter(|(piece, _)| !is_sentinel(piece));
        ids.map(|(_, id)| id).max().unwrap_or(0)
    }
}

/// `{piece: id}` or `[[piece, score]]`.
#[derive(Default)]
pub(super) struct Vocabulary {
    pub pieces: Pieces,
    pub scores: Option<Vec<f64>>,
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

/// Which neighbours are merged.
#[derive(Deserialize)]
#[serde(from = "MergeList")]
pub(super) enum Merging {
    /// Those of a list.
    Listed(MergeList),
    /// Those that are a piece together.
    Pieces,
}

impl From<MergeList> for Merging {
    fn from(list: MergeList) -> Self {
        Self::Listed(list)
    }
}

/// `["a b"]` or `[["a", "b"]]`: all texts, one after the other, and where the left and the right of each merge end.
#[derive(Default)]
pub(super) struct MergeList {
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

    /// The left and the right of each merge.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |&[middle, end]| {
            let (middle, end) = (middle as usize, end as usize);
            let left = &self.text[start..middle];
            start = end;
            (left, &self.text[middle..end])
        })
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
