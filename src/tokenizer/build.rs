//! What [`files`](super::files) read, checked and made ready to encode: `None` for what only the `tokenizers` crate has.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::bpe::{Bpe, Merges};
use super::budget;
use super::charsmap::Charsmap;
use super::files::{Algorithm, MergeList, Merging, RawModel, TOKENIZER_JSON, excerpt};
use super::own::Model;
use super::pieces::{IndexError, Pieces};
use super::steps::{Normalize, Pattern, PreTokenize};
use super::unigram::Unigram;
use crate::error::{Error, Result};

impl RawModel {
    /// Whether our own encoder has the model, and not only its vocabulary.
    pub(super) fn is_own(&self) -> bool {
        let affixes = [&self.continuing_subword_prefix, &self.end_of_word_suffix];
        affixes.into_iter().flatten().all(String::is_empty)
    }

    /// Checks the model and makes it ready to encode; one that is not [our own](Self::is_own) only to be asked for its pieces.
    pub(super) fn build(self) -> Result<Model> {
        let algorithm = match (self.kind.as_deref(), &self.merges) {
            (Some("Unigram"), _) => Algorithm::Unigram,
            (Some("BPE"), _) | (None, Some(_)) => Algorithm::Bpe,
            (Some(other), _) => {
                return Err(Error::unsupported(format!(
                    "{TOKENIZER_JSON} holds a {other:?} model; SigLIP uses Unigram and SigLIP 2 uses BPE"
                )));
            }
            (None, None) => {
                return Err(Error::bad_model(format!(
                    "{TOKENIZER_JSON} does not say which model it holds (`model.type` is missing)"
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
                "{TOKENIZER_JSON} has no token for unknown characters (`model.unk_id`)"
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
        let byte_fallback = self.byte_fallback == Some(true);
        Ok(Unigram::new(pieces, scores, unknown as u32, byte_fallback))
    }

    fn bpe(self) -> Result<Bpe> {
        if self.vocab.scores.is_some() {
            return Err(damaged("`model.vocab` is no table of pieces and ids"));
        }
        if self.dropout.is_some_and(|dropout| dropout != 0.0) {
            return Err(Error::unsupported(format!(
                "{TOKENIZER_JSON} asks for BPE dropout, which would give a label other ids each time"
            )));
        }
        let own = self.is_own();
        let pieces = index(self.vocab.pieces)?;
        check_unique_ids(&pieces)?;
        let merges = match &self.merges {
            Some(Merging::Listed(merges)) if own => resolve(merges, &pieces)?,
            Some(Merging::Pieces) => merges_of(&pieces),
            _ => Merges::default(),
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

pub(super) fn damaged(what: impl fmt::Display) -> Error {
    Error::bad_model(format!("{TOKENIZER_JSON} is damaged: {what}"))
}

fn part_error(name: &str, e: impl fmt::Display) -> Error {
    Error::bad_model(format!("{TOKENIZER_JSON}: `{name}` is damaged: {e}"))
}

fn index(mut pieces: Pieces) -> Result<Pieces> {
    match pieces.index() {
        Ok(()) => Ok(pieces),
        Err(IndexError::Twice(number)) => Err(damaged(format!(
            "`model.vocab` has the piece {:?} twice",
            excerpt(pieces.piece(number))
        ))),
        Err(IndexError::Collisions) => Err(damaged(
            "the pieces of `model.vocab` are made to be slow to find",
        )),
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

/// The merges that SentencePiece makes: neighbours that are a piece together. As in transformers' `generate_merges`, earlier pieces come
/// first, and of a piece's own those with the shorter left.
fn merges_of(pieces: &Pieces) -> Merges {
    let numbered = pieces.iter().zip(0..);
    let merges = numbered.flat_map(|((piece, _), merged)| {
        pieces.prefixes(piece).filter_map(move |(length, left)| {
            let right = pieces.get(&piece[length..])?;
            Some([left, right, merged])
        })
    });
    Merges::new(merges.collect())
}

/// The merges by the numbers of their pieces.
fn resolve(merges: &MergeList, pieces: &Pieces) -> Result<Merges> {
    let merges = merges.iter().map(|(left, right)| {
        let no_piece = |text: &str| {
            damaged(format!(
                "`model.merges` joins {:?} and {:?}, but {:?} is no piece",
                excerpt(left),
                excerpt(right),
                excerpt(text)
            ))
        };
        Ok([
            pieces.get(left).ok_or_else(|| no_piece(left))?,
            pieces.get(right).ok_or_else(|| no_piece(right))?,
            pieces
                .get_joined(left, right)
                .ok_or_else(|| no_piece(&format!("{left}{right}")))?,
        ])
    });
    merges.collect::<Result<_>>().map(Merges::new)
}

/// Reads `normalizer` as the list of its steps.
pub(super) fn normalizer(value: &Value) -> Result<Option<Vec<Normalize>>> {
    const NAME: &str = "normalizer";
    let mut steps = Vec::new();
    for step in flat(NAME, "normalizers", value)? {
        steps.push(match kind(NAME, step)? {
            "Precompiled" => {
                let map: &str = field(NAME, step, "precompiled_charsmap")?;
                Normalize::Charsmap(Charsmap::from_base64(map).map_err(|e| part_error(NAME, e))?)
            }
            "Lowercase" => Normalize::Lowercase,
            "Replace" => {
                let Some(pattern) = pattern(NAME, step)? else {
                    return Ok(None);
                };
                let content = field(NAME, step, "content")?;
                Normalize::Replace { pattern, content }
            }
            _ => return Ok(None),
        });
    }
    Ok(Some(steps))
}

/// Reads `pre_tokenizer` as the list of its steps. `prefix_space` is whether a space that `Metaspace` puts before a text counts.
pub(super) fn pre_tokenizer(value: &Value, prefix_space: bool) -> Result<Option<Vec<PreTokenize>>> {
    const NAME: &str = "pre_tokenizer";
    let mut steps = Vec::new();
    for step in flat(NAME, "pretokenizers", value)? {
        steps.push(match kind(NAME, step)? {
            "Metaspace" if !prefix_space => PreTokenize::Metaspace {
                replacement: field(NAME, step, "replacement")?,
                split: field::<Option<bool>>(NAME, step, "split")?.unwrap_or(true),
            },
            "Split" => {
                let after_spaces = pattern(NAME, step)? == Some(Pattern::Text(" ".into()))
                    && field::<&str>(NAME, step, "behavior")? == "MergedWithPrevious"
                    && !field::<bool>(NAME, step, "invert")?;
                if !after_spaces {
                    return Ok(None);
                }
                PreTokenize::SplitAfterSpaces
            }
            _ => return Ok(None),
        });
    }
    Ok(Some(steps))
}

/// The steps of `value`, which may be a sequence under `key`, one of others, or null.
pub(super) fn flat<'a>(name: &str, key: &str, value: &'a Value) -> Result<Vec<&'a Value>> {
    let (mut steps, mut left) = (Vec::new(), vec![value]);
    while let Some(step) = left.pop() {
        if step.is_null() {
            continue;
        }
        if kind(name, step)? != "Sequence" {
            steps.push(step);
            continue;
        }
        let Some(inner) = step.get(key).and_then(Value::as_array) else {
            return Err(part_error(name, format_args!("a sequence without `{key}`")));
        };
        left.extend(inner.iter().rev());
    }
    if steps.len() > budget::STEPS {
        let error = format!("it has {} steps, more than {}", steps.len(), budget::STEPS);
        return Err(part_error(name, error));
    }
    Ok(steps)
}

/// The `type` of a step.
fn kind<'a>(name: &str, step: &'a Value) -> Result<&'a str> {
    let kind = step.get("type").and_then(Value::as_str);
    kind.ok_or_else(|| part_error(name, "a step without a `type`"))
}

/// A field of a step.
fn field<'a, T: Deserialize<'a>>(name: &str, value: &'a Value, key: &str) -> Result<T> {
    T::deserialize(value.get(key).unwrap_or(&Value::Null))
        .map_err(|e| part_error(name, format_args!("`{key}`: {e}")))
}

/// The `pattern` of a step; `None` for a regular expression that isn't the one of SigLIP's tokenizers.
fn pattern(name: &str, value: &Value) -> Result<Option<Pattern>> {
    #[derive(Deserialize)]
    enum Written {
        String(String),
        Regex(String),
    }
    match field(name, value, "pattern")? {
        Written::String(text) if text.is_empty() => {
            Err(part_error(name, "`pattern` is an empty text"))
        }
        Written::String(text) => Ok(Some(Pattern::Text(text))),
        Written::Regex(regex) => Ok((regex == " {2,}").then_some(Pattern::Spaces)),
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
            "{TOKENIZER_JSON}: {kind:?} as post_processor is not the one that SigLIP's tokenizers use"
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
