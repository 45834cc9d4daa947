//! A tokenizer in few bytes, to be kept in a cache.
//!
//! `SLTK`, the version, the xxh3 of what follows; then numbers as LEB128 and texts after their lengths. What can be made
//! from the rest quickly (the tables to find pieces and merges) is not kept.

use twox_hash::XxHash3_128;

use super::added::{AddedToken, AddedTokens};
use super::bpe::{Bpe, Merges};
use super::charsmap::Charsmap;
use super::files::Side;
use super::pieces::Pieces;
use super::steps::{Behavior, Normalize, Pattern, PreTokenize, UnicodeForm};
use super::unigram::Unigram;
use super::{Model, Steps, Tokenizer};
use crate::error::{Error, Result};

const MAGIC: &[u8; 4] = b"SLTK";
const VERSION: u32 = 1;
const HEAD: usize = 24;

/// The tokenizer as bytes.
pub(super) fn write(tokenizer: &Tokenizer) -> Vec<u8> {
    let mut w = Writer(vec![0; HEAD]);
    w.number(tokenizer.context_length as u64);
    w.number(tokenizer.vocab_size as u64);
    w.number(tokenizer.pad_id.into());
    w.flag(tokenizer.padding_side == Side::Left);
    w.flag(tokenizer.truncation_side == Side::Left);
    w.list(&tokenizer.before, |w, &id| w.number(id.into()));
    w.list(&tokenizer.after, |w, &id| w.number(id.into()));
    match tokenizer.steps {
        Steps::Siglip { lower_case } => w.number(u64::from(lower_case)),
        Steps::Siglip2 => w.number(2),
    }
    for added in [&tokenizer.added, &tokenizer.normalized_added] {
        w.list(added.tokens(), |w, token| {
            w.text(&token.content);
            w.number(token.id.into());
            w.flag(token.lstrip);
            w.flag(token.rstrip);
        });
    }
    w.list(&tokenizer.normalizer, Writer::normalize);
    w.list(&tokenizer.pre_tokenizer, Writer::pre_tokenize);
    match &tokenizer.model {
        Model::Unigram(model) => {
            w.number(0);
            w.pieces(&model.pieces);
            for score in &model.scores {
                w.0.extend(score.to_le_bytes());
            }
            w.number(model.unknown.into());
            w.flag(model.bytes.is_some());
        }
        Model::Bpe(model) => {
            w.number(1);
            w.pieces(&model.pieces);
            w.number(model.merges().len() as u64);
            for (left, right) in model.merges().in_order() {
                w.number(left.into());
                w.number(right.into());
            }
            w.number(model.unknown.map_or(0, |unknown| u64::from(unknown) + 1));
            w.flag(model.fuse_unknown);
            w.flag(model.bytes.is_some());
            w.flag(model.ignore_merges);
        }
    }
    let hash = XxHash3_128::oneshot(&w.0[HEAD..]);
    w.0[..4].copy_from_slice(MAGIC);
    w.0[4..8].copy_from_slice(&VERSION.to_le_bytes());
    w.0[8..HEAD].copy_from_slice(&hash.to_le_bytes());
    w.0
}

/// The tokenizer that [`write`] made `bytes` of.
pub(super) fn read(bytes: &[u8]) -> Result<Tokenizer> {
    let refused = |why: &str| {
        Error::bad_model(format!(
            "the kept tokenizer {why}: read tokenizer.json again"
        ))
    };
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return Err(refused("is cut off"));
    };
    if !head.starts_with(MAGIC) || head[4..8] != VERSION.to_le_bytes() {
        return Err(refused("is of another version"));
    }
    if head[8..] != XxHash3_128::oneshot(rest).to_le_bytes() {
        return Err(refused("is damaged"));
    }
    Reader(rest)
        .tokenizer()
        .ok_or_else(|| refused("is damaged"))
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn flag(&mut self, flag: bool) {
        self.0.push(flag.into());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn list<T>(&mut self, list: &[T], write: impl Fn(&mut Self, &T)) {
        self.number(list.len() as u64);
        for item in list {
            write(self, item);
        }
    }

    fn pieces(&mut self, pieces: &Pieces) {
        self.number(pieces.len() as u64);
        let mut expected = 0;
        for (piece, id) in pieces.iter() {
            self.text(piece);
            // Ids mostly count up by one.
            self.number(id.wrapping_sub(expected).into());
            expected = id.wrapping_add(1);
        }
    }

    fn pattern(&mut self, pattern: &Pattern) {
        match pattern {
            Pattern::Text(text) => {
                self.number(0);
                self.text(text);
            }
            Pattern::Run {
                characters,
                white_space,
                at_least,
            } => {
                self.number((*at_least).into());
                self.text(characters);
                self.flag(*white_space);
            }
        }
    }

    fn normalize(&mut self, step: &Normalize) {
        match step {
            Normalize::Charsmap(map) => {
                self.number(0);
                self.bytes(&map.to_bytes());
            }
            Normalize::Lowercase => self.number(1),
            Normalize::Replace { pattern, content } => {
                self.number(2);
                self.pattern(pattern);
                self.text(content);
            }
            Normalize::Strip { left, right } => {
                self.number(3);
                self.flag(*left);
                self.flag(*right);
            }
            Normalize::Prepend(prefix) => {
                self.number(4);
                self.text(prefix);
            }
            Normalize::Unicode(form) => self.number(match form {
                UnicodeForm::Nfc => 5,
                UnicodeForm::Nfd => 6,
                UnicodeForm::Nfkc => 7,
                UnicodeForm::Nfkd => 8,
            }),
        }
    }

    fn pre_tokenize(&mut self, step: &PreTokenize) {
        match step {
            PreTokenize::WhitespaceSplit => self.number(0),
            PreTokenize::Metaspace {
                replacement,
                prepend,
                split,
            } => {
                self.number(1);
                self.number(u32::from(*replacement).into());
                self.flag(*prepend);
                self.flag(*split);
            }
            PreTokenize::Split {
                pattern,
                behavior,
                invert,
            } => {
                self.number(2);
                self.pattern(pattern);
                self.number(*behavior as u64);
                self.flag(*invert);
            }
        }
    }
}

/// Reads what [`Writer`] wrote; `None` where it can't be that.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn tokenizer(mut self) -> Option<Tokenizer> {
        let side = |left| if left { Side::Left } else { Side::Right };
        let tokenizer = Tokenizer {
            context_length: self.number()?.try_into().ok()?,
            vocab_size: self.number()?.try_into().ok()?,
            pad_id: self.small()?,
            padding_side: side(self.flag()?),
            truncation_side: side(self.flag()?),
            before: self.list(Self::small)?,
            after: self.list(Self::small)?,
            steps: match self.number()? {
                lower_case @ (0 | 1) => Steps::Siglip {
                    lower_case: lower_case == 1,
                },
                2 => Steps::Siglip2,
                _ => return None,
            },
            added: AddedTokens::new(self.list(Self::added)?),
            normalized_added: AddedTokens::new(self.list(Self::added)?),
            normalizer: self.list(Self::normalize)?,
            pre_tokenizer: self.list(Self::pre_tokenize)?,
            model: self.model()?,
        };
        let special = tokenizer.before.len() + tokenizer.after.len();
        (self.0.is_empty() && special <= tokenizer.context_length).then_some(tokenizer)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.take(1)?[0] {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?.try_into().ok()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.number()?;
        (0..length).map(|_| read(self)).collect()
    }

    fn added(&mut self) -> Option<AddedToken> {
        Some(AddedToken {
            content: self.text()?.to_string(),
            id: self.small()?,
            lstrip: self.flag()?,
            rstrip: self.flag()?,
        })
    }

    fn pieces(&mut self) -> Option<Pieces> {
        let mut pieces = Pieces::default();
        let mut expected = 0u32;
        for _ in 0..self.number()? {
            let piece = self.text()?;
            let id = expected.wrapping_add(self.small()?);
            pieces.push(piece, id)?;
            expected = id.wrapping_add(1);
        }
        pieces.index().ok()?;
        Some(pieces)
    }

    fn model(&mut self) -> Option<Model> {
        match self.number()? {
            0 => {
                let pieces = self.pieces()?;
                let scores = self.take(pieces.len().checked_mul(8)?)?;
                let scores: Vec<_> = scores
                    .chunks_exact(8)
                    .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
                    .collect();
                let unknown = self.small()?;
                if unknown as usize >= pieces.len() || !scores.iter().all(|s| s.is_finite()) {
                    return None;
                }
                let model = Unigram::new(pieces, scores, unknown, self.flag()?);
                Some(Model::Unigram(model))
            }
            1 => {
                let pieces = self.pieces()?;
                let merges = self.list(|r| {
                    let mut piece = || Some(r.small()?).filter(|&n| (n as usize) < pieces.len());
                    let (left, right) = (piece()?, piece()?);
                    let merged = pieces.get_joined(pieces.piece(left), pieces.piece(right))?;
                    Some([left, right, merged])
                })?;
                let unknown = self.small()?.checked_sub(1);
                if unknown.is_some_and(|unknown| unknown as usize >= pieces.len()) {
                    return None;
                }
                Some(Model::Bpe(Bpe::new(
                    pieces,
                    Merges::new(merges),
                    unknown,
                    self.flag()?,
                    self.flag()?,
                    self.flag()?,
                )))
            }
            _ => None,
        }
    }

    fn pattern(&mut self) -> Option<Pattern> {
        Some(match self.small()? {
            0 => Pattern::Text(Some(self.text()?).filter(|text| !text.is_empty())?.into()),
            at_least => Pattern::Run {
                characters: self.text()?.into(),
                white_space: self.flag()?,
                at_least,
            },
        })
    }

    fn normalize(&mut self) -> Option<Normalize> {
        Some(match self.number()? {
            0 => Normalize::Charsmap(Charsmap::from_bytes(self.bytes()?)?),
            1 => Normalize::Lowercase,
            2 => Normalize::Replace {
                pattern: self.pattern()?,
                content: self.text()?.into(),
            },
            3 => Normalize::Strip {
                left: self.flag()?,
                right: self.flag()?,
            },
            4 => Normalize::Prepend(self.text()?.into()),
            5 => Normalize::Unicode(UnicodeForm::Nfc),
            6 => Normalize::Unicode(UnicodeForm::Nfd),
            7 => Normalize::Unicode(UnicodeForm::Nfkc),
            8 => Normalize::Unicode(UnicodeForm::Nfkd),
            _ => return None,
        })
    }

    fn pre_tokenize(&mut self) -> Option<PreTokenize> {
        Some(match self.number()? {
            0 => PreTokenize::WhitespaceSplit,
            1 => PreTokenize::Metaspace {
                replacement: char::from_u32(self.small()?)?,
                prepend: self.flag()?,
                split: self.flag()?,
            },
            2 => PreTokenize::Split {
                pattern: self.pattern()?,
                behavior: match self.number()? {
                    0 => Behavior::Removed,
                    1 => Behavior::Isolated,
                    2 => Behavior::MergedWithPrevious,
                    3 => Behavior::MergedWithNext,
                    4 => Behavior::Contiguous,
                    _ => return None,
                },
                invert: self.flag()?,
            },
            _ => return None,
        })
    }
}
