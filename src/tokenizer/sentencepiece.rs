//! SentencePiece's own files (`spiece.model` of SigLIP, `tokenizer.model` of SigLIP 2), read as the `tokenizer.json` that says the same.
//!
//! The format is that of `sentencepiece_model.proto`; a reader of protobuf's wire format is all that it takes.

use base64::Engine as _;
use serde_json::{Value, json};

use super::files::{
    AddedToken, Merging, RawModel, TokenizerJson, Vocabulary, excerpt, is_sentinel,
};
use super::pieces::Pieces;
use crate::error::{Error, Result};

/// Where a checkpoint without `tokenizer.json` has its pieces: SigLIP's name first.
pub(super) const FILES: [&str; 2] = ["spiece.model", "tokenizer.model"];

/// Longer pieces are refused, as merges are looked for at each place in each. Gemma's longest has 93 bytes.
const LONGEST: usize = 512;

/// Reads one of [`FILES`], called `file`.
///
/// # Errors
/// `bad-model` if it is damaged or something else; `unsupported`, naming the field, for settings that no SigLIP has.
pub(super) fn read(file: &str, bytes: &[u8]) -> Result<TokenizerJson> {
    let damaged = |what: String| {
        Error::bad_model(format!(
            "{file} is no SentencePiece model or damaged: {what}"
        ))
    };
    let model = Model::parse(bytes).map_err(|what| damaged(what.into()))?;
    let unsupported = |field: &str, value: &dyn std::fmt::Debug| {
        Error::unsupported(format!(
            "{file}: {field} is {value:?}, as in no tokenizer of SigLIP's"
        ))
    };
    let unigram = match model.algorithm {
        1 => true,
        2 => false,
        other => return Err(unsupported("trainer_spec.model_type", &other)),
    };
    // SigLIP's cuts spaces and begins with one, SigLIP 2's takes a text as it is.
    for (field, value, needed) in [
        (
            "normalizer_spec.add_dummy_prefix",
            model.dummy_prefix,
            unigram,
        ),
        (
            "normalizer_spec.remove_extra_whitespaces",
            model.trims,
            unigram,
        ),
        ("normalizer_spec.escape_whitespaces", model.escapes, true),
        (
            "trainer_spec.treat_whitespace_as_suffix",
            model.suffix,
            false,
        ),
    ] {
        if value != needed {
            return Err(unsupported(field, &value));
        }
    }
    if !unigram && !model.charsmap.is_empty() {
        return Err(unsupported(
            "normalizer_spec.precompiled_charsmap",
            &"there",
        ));
    }

    let (mut pieces, mut scores) = (Pieces::default(), Vec::with_capacity(model.pieces.len()));
    let (mut added_tokens, mut unknown) = (Vec::new(), None);
    for (piece, id) in model.pieces.iter().zip(0..) {
        let name = || format!("the piece {:?}", excerpt(piece.text));
        if piece.text.is_empty() || piece.text.len() > LONGEST {
            let length = piece.text.len();
            return Err(damaged(format!("{} has {length} bytes", name())));
        }
        if !piece.score.is_finite() {
            return Err(damaged(format!("{} has the score {}", name(), piece.score)));
        }
        match piece.kind {
            Kind::NORMAL | Kind::BYTE => {}
            Kind::UNKNOWN if unknown.is_none() => unknown = Some(id),
            Kind::UNKNOWN => return Err(damaged("two pieces are for unknown text".into())),
            // Found in no text after punctuation is gone.
            Kind::CONTROL if unigram => {}
            Kind::USER_DEFINED if unigram && is_sentinel(piece.text) => {}
            Kind::CONTROL | Kind::USER_DEFINED if !unigram => {
                let mut token = AddedToken::special(piece.text.into(), id);
                token.special = piece.kind == Kind::CONTROL;
                added_tokens.push(token);
            }
            other => return Err(unsupported(&format!("the type of {}", name()), &other)),
        }
        let pushed = pieces.push(piece.text, id);
        pushed.ok_or_else(|| damaged("more than 4 GiB of pieces".into()))?;
        scores.push(f64::from(piece.score));
    }
    let unknown = unknown.ok_or_else(|| damaged("no piece is for unknown text".into()))?;

    let unknown_piece = model.pieces[unknown as usize].text;
    let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let (normalizer, pre_tokenizer) = match unigram {
        true => {
            let charsmap = base64::engine::general_purpose::STANDARD.encode(model.charsmap);
            let charsmap = (!charsmap.is_empty())
                .then(|| json!({"type": "Precompiled", "precompiled_charsmap": charsmap}));
            let spaces = replace(json!({"Regex": " {2,}"}), " ");
            let steps: Vec<Value> = charsmap.into_iter().chain([spaces]).collect();
            (
                json!({"type": "Sequence", "normalizers": steps}),
                json!({"type": "Metaspace", "replacement": "▁", "split": true}),
            )
        }
        false => (
            replace(json!({"String": " "}), "▁"),
            json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}),
        ),
    };
    Ok(TokenizerJson {
        added_tokens,
        normalizer,
        pre_tokenizer,
        post_processor: Value::Null,
        padding: None,
        truncation: None,
        model: RawModel {
            kind: Some(if unigram { "Unigram" } else { "BPE" }.into()),
            vocab: Vocabulary {
                pieces,
                scores: unigram.then_some(scores),
            },
            merges: (!unigram).then_some(Merging::Pieces),
            unk_id: Some(u64::from(unknown)),
            unk_token: Some(unknown_piece.into()),
            fuse_unk: Some(true),
            byte_fallback: Some(model.byte_fallback),
            ..RawModel::default()
        },
    })
}

/// `ModelProto`, as far as it is read.
struct Model<'a> {
    pieces: Vec<Piece<'a>>,
    algorithm: u64,
    suffix: bool,
    byte_fallback: bool,
    charsmap: &'a [u8],
    dummy_prefix: bool,
    trims: bool,
    escapes: bool,
}

struct Piece<'a> {
    text: &'a str,
    score: f32,
    kind: Kind,
}

/// `SentencePiece.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind(u64);

impl Kind {
    const NORMAL: Self = Self(1);
    const UNKNOWN: Self = Self(2);
    const CONTROL: Self = Self(3);
    const USER_DEFINED: Self = Self(4);
    const BYTE: Self = Self(6);
}

impl<'a> Model<'a> {
    /// Absent fields have the defaults of the format.
    fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let mut model = Self {
            pieces: Vec::new(),
            algorithm: 1,
            suffix: false,
            byte_fallback: false,
            charsmap: &[],
            dummy_prefix: true,
            trims: true,
            escapes: true,
        };
        for field in Fields(bytes) {
            match field? {
                (1, Wire::Bytes(piece)) => model.pieces.push(Piece::parse(piece)?),
                (2, Wire::Bytes(trainer)) => {
                    for field in Fields(trainer) {
                        match field? {
                            (3, Wire::Number(algorithm)) => model.algorithm = algorithm,
                            (24, Wire::Number(yes)) => model.suffix = yes != 0,
                            (35, Wire::Number(yes)) => model.byte_fallback = yes != 0,
                            _ => {}
                        }
                    }
                }
                (3, Wire::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        match field? {
                            (2, Wire::Bytes(charsmap)) => model.charsmap = charsmap,
                            (3, Wire::Number(yes)) => model.dummy_prefix = yes != 0,
                            (4, Wire::Number(yes)) => model.trims = yes != 0,
                            (5, Wire::Number(yes)) => model.escapes = yes != 0,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        match model.pieces.is_empty() {
            true => Err("it has no pieces"),
            false => Ok(model),
        }
    }
}

impl<'a> Piece<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let mut piece = Self {
            text: "",
            score: 0.0,
            kind: Kind::NORMAL,
        };
        for field in Fields(bytes) {
            match field? {
                (1, Wire::Bytes(text)) => {
                    piece.text = std::str::from_utf8(text).map_err(|_| "a piece is not UTF-8")?;
                }
                (2, Wire::Four(score)) => piece.score = f32::from_le_bytes(score),
                (3, Wire::Number(kind)) => piece.kind = Kind(kind),
                _ => {}
            }
        }
        Ok(piece)
    }
}

/// The fields of a message: their numbers and values.
struct Fields<'a>(&'a [u8]);

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Four([u8; 4]),
    Eight,
}

impl<'a> Fields<'a> {
    /// A number in groups of seven bits, the lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let key = self.number()?;
        let wire = match key & 7 {
            0 => Wire::Number(self.number()?),
            1 => {
                self.0 = self.0.split_first_chunk::<8>()?.1;
                Wire::Eight
            }
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            5 => {
                let (four, rest) = self.0.split_first_chunk::<4>()?;
                self.0 = rest;
                Wire::Four(*four)
            }
            _ => return None,
        };
        Some((key >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self
            .field()
            .ok_or("it ends within a field, or is no protobuf");
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}
