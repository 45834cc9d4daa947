//! Labels → token ids, as transformers gives them for SigLIP and SigLIP 2.
//!
//! | | SigLIP (`SiglipTokenizer`) | SigLIP 2 (`Siglip2Tokenizer`, `GemmaTokenizer`) |
//! |---|---|---|
//! | before the pieces | lower case, no ASCII punctuation, single spaces, `▁` in front | lower case |
//! | pieces | Unigram | BPE with byte fallback |
//! | end, padding | `</s>`, `</s>` | `<eos>`, `<pad>` |
//!
//! Which of the two a checkpoint has is read from `tokenizer_config.json` (`tokenizer_class`) and
//! from `tokenizer.json` itself: Google's fixed-resolution SigLIP 2 checkpoints call themselves
//! `siglip` in `config.json`.
//!
//! The reference for SigLIP is the Python class in
//! `transformers/models/siglip/tokenization_siglip.py`. `tokenizer.json` neither lower-cases nor
//! strips, so its own pipeline gives other ids than the model was trained with; its pieces, its
//! character map and its treatment of unknown characters are used as they are. For SigLIP 2 labels are
//! lower-cased always, as in training and in `Siglip2Tokenizer`, also where `tokenizer_class` is
//! `GemmaTokenizer`, which alone would not.

mod canonical;
mod charsmap;
mod files;

use std::fmt;

use tokenizers::normalizers::{Lowercase, Sequence};
use tokenizers::{AddedToken, NormalizedString, Normalizer};

use self::canonical::{Part, UNDERLINE, canonicalize, split_special};
use self::files::{Algorithm, CONFIG, Config, FILE, File, Model, Normalize, Side, Token};
use crate::error::{Error, Result};
use crate::json;

/// Turns a label into the ids that the text tower reads.
pub struct Tokenizer {
    pieces: tokenizers::Tokenizer,
    steps: Steps,
    /// Ids before and after those of the text.
    before: Vec<u32>,
    after: Vec<u32>,
    pad_id: u32,
    padding_side: Side,
    truncation_side: Side,
    context_length: usize,
    vocab_size: usize,
}

/// What is done to a label before its pieces are looked up.
enum Steps {
    Siglip {
        lower_case: bool,
        /// Tokens that are recognised in a label as written.
        special: Vec<(String, u32)>,
        normalizer: Vec<Normalize>,
    },
    /// The normalizer and the special tokens are part of `pieces`.
    Siglip2,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("context_length", &self.context_length)
            .field("vocab_size", &self.vocab_size)
            .field("pad_id", &self.pad_id)
            .field("padding_side", &self.padding_side)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where the checkpoint has one, `tokenizer_config.json`.
    ///
    /// `model_type`, `context_length` (`text_config.max_position_embeddings`) and `vocab_size`
    /// (`text_config.vocab_size`) are those of `config.json`.
    ///
    /// # Errors
    /// `bad-model` if a file is damaged, is not what its name says, lacks a special token, or has ids
    /// past `vocab_size`; `unsupported` for a tokenizer that is neither SigLIP's nor SigLIP 2's.
    pub fn new(
        tokenizer_json: &[u8],
        tokenizer_config_json: Option<&[u8]>,
        model_type: &str,
        context_length: usize,
        vocab_size: usize,
    ) -> Result<Self> {
        let config: Config = match tokenizer_config_json {
            Some(json) => json::parse(CONFIG, json)?,
            None => Config::default(),
        };
        let file: File = json::parse(FILE, tokenizer_json)?;
        let model = Model::from_json(tokenizer_json)?;
        check_range(model.max_id, &file, vocab_size)?;
        let pieces = tokenizers::Tokenizer::new(model.wrapper);
        let family = family(&config, model.algorithm, &pieces)?;
        let mut tokenizer = match family {
            Algorithm::Unigram => Self::siglip(&config, file, pieces, vocab_size)?,
            Algorithm::Bpe => Self::siglip2(&config, file, pieces, model_type)?,
        };
        if context_length < tokenizer.before.len() + tokenizer.after.len() {
            return Err(Error::bad_model(format!(
                "config.json: a text context of {context_length} leaves no room for the special tokens"
            )));
        }
        tokenizer.context_length = context_length;
        tokenizer.vocab_size = vocab_size;
        Ok(tokenizer)
    }

    fn siglip(
        config: &Config,
        mut file: File,
        mut pieces: tokenizers::Tokenizer,
        vocab_size: usize,
    ) -> Result<Self> {
        files::without_prefix_space(&mut file.pre_tokenizer);
        pieces.with_pre_tokenizer(files::pre_tokenizer(file.pre_tokenizer)?);
        let normalizer = files::normalizer(file.normalizer)?;

        let eos = token(&pieces, named(&config.eos_token), "eos_token", "</s>")?;
        let unk = token(&pieces, named(&config.unk_token), "unk_token", "<unk>")?;
        let pad = token(&pieces, named(&config.pad_token), "pad_token", "</s>")?;
        let mut special = vec![eos.clone(), unk, pad.clone()];
        for added in file.added_tokens {
            let (content, id) = (added.token.content, added.id);
            if let Some(other) = pieces.token_to_id(&content).filter(|&other| other != id) {
                return Err(two_ids(&content, id, other));
            }
            if !content.is_empty() && (id as usize) < vocab_size {
                special.push((content, id));
            }
        }
        Ok(Self {
            pieces,
            steps: Steps::Siglip {
                lower_case: config.do_lower_case.unwrap_or(true),
                special,
                normalizer,
            },
            before: Vec::new(),
            after: vec![eos.1],
            pad_id: pad.1,
            padding_side: config.padding_side.unwrap_or(Side::Right),
            truncation_side: config.truncation_side.unwrap_or(Side::Right),
            context_length: 0,
            vocab_size: 0,
        })
    }

    fn siglip2(
        config: &Config,
        file: File,
        mut pieces: tokenizers::Tokenizer,
        model_type: &str,
    ) -> Result<Self> {
        let class = class(config);
        // Siglip2Tokenizer, which transformers takes for every `siglip2` model, has no such switch.
        let lower_case = config.do_lower_case != Some(false)
            || class == Some("Siglip2Tokenizer")
            || model_type == "siglip2";
        let mut normalizer = Vec::new();
        if lower_case {
            normalizer.push(Lowercase.into());
        }
        for step in files::normalizer(file.normalizer)? {
            match step {
                Normalize::Library(step) => normalizer.push(step),
                Normalize::Charsmap(_) => {
                    return Err(Error::unsupported(format!(
                        "{FILE} has a character map, which SigLIP 2's tokenizer has not"
                    )));
                }
            }
        }
        pieces
            .with_normalizer(Some(Sequence::new(normalizer)))
            .map_err(|e| Error::bad_model(format!("{FILE}: `normalizer` is damaged: {e}")))?;
        pieces.with_pre_tokenizer(files::pre_tokenizer(file.pre_tokenizer)?);

        let mut added = file.added_tokens;
        added.sort_by_key(|added| added.id);
        let ids: Vec<_> = (added.iter().map(|a| (a.token.content.clone(), a.id))).collect();
        let add = |pieces: &mut tokenizers::Tokenizer, tokens: Vec<AddedToken>| {
            pieces
                .add_tokens(tokens)
                .map_err(|e| Error::bad_model(format!("{FILE}: `added_tokens` is damaged: {e}")))
        };
        add(&mut pieces, added.into_iter().map(|a| a.token).collect())?;
        for (content, id) in ids {
            if let Some(other) = pieces.token_to_id(&content).filter(|&other| other != id) {
                return Err(two_ids(&content, id, other));
            }
        }

        let pad_token =
            named(&config.pad_token).or_else(|| file.padding.as_ref()?.pad_token.as_deref());
        let bos = token(&pieces, named(&config.bos_token), "bos_token", "<bos>")?;
        let eos = token(&pieces, named(&config.eos_token), "eos_token", "<eos>")?;
        let pad = token(&pieces, pad_token, "pad_token", "<pad>")?;
        let unk = token(&pieces, named(&config.unk_token), "unk_token", "<unk>")?;
        let special = [&bos, &eos, &pad, &unk]
            .into_iter()
            .filter(|(content, _)| !pieces.get_added_vocabulary().is_special_token(content))
            .map(|(content, _)| AddedToken::from(content.clone(), true))
            .collect();
        add(&mut pieces, special)?;

        let (before, after) = if config.add_bos_token.is_some() || config.add_eos_token.is_some() {
            let only = |id, add: Option<bool>| if add == Some(true) { vec![id] } else { vec![] };
            (
                only(bos.1, config.add_bos_token),
                only(eos.1, config.add_eos_token),
            )
        } else if let Some((before, after)) = files::template(&file.post_processor)? {
            let id = |content: &String| {
                pieces
                    .token_to_id(content)
                    .ok_or_else(|| missing(content, "post_processor"))
            };
            let ids = |tokens: Vec<String>| tokens.iter().map(id).collect::<Result<_>>();
            (ids(before)?, ids(after)?)
        } else {
            (vec![], vec![eos.1])
        };

        // The class has its own side; without a class, and in the published checkpoints, it is right.
        let default_side = match class {
            Some("GemmaTokenizer" | "Siglip2Tokenizer") => Side::Left,
            _ => Side::Right,
        };
        let side = |named: Option<Side>, in_file: Option<Side>, default| {
            named.or(in_file).unwrap_or(default)
        };
        Ok(Self {
            pieces,
            steps: Steps::Siglip2,
            before,
            after,
            pad_id: pad.1,
            padding_side: side(
                config.padding_side,
                file.padding.and_then(|p| p.direction),
                default_side,
            ),
            truncation_side: side(
                config.truncation_side,
                file.truncation.and_then(|t| t.direction),
                Side::Right,
            ),
            context_length: 0,
            vocab_size: 0,
        })
    }

    /// The ids of `text`: exactly [`context_length`](Self::context_length) of them, cut or padded, the
    /// end token kept.
    ///
    /// # Errors
    /// `bad-model` if the tokenizer can't express `text`, or gives an id past the embedding table.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = match &self.steps {
            Steps::Siglip {
                lower_case,
                special,
                normalizer,
            } => self.siglip_ids(text, *lower_case, special, normalizer)?,
            Steps::Siglip2 => self.piece_ids(text)?,
        };

        let room = self.context_length - self.before.len() - self.after.len();
        let excess = ids.len().saturating_sub(room);
        match self.truncation_side {
            Side::Right => ids.truncate(room),
            Side::Left => drop(ids.drain(..excess)),
        }
        // SiglipTokenizer does not put `</s>` after a label that ends in one.
        let ended = matches!(self.steps, Steps::Siglip { .. }) && ids.last() == self.after.last();
        ids.splice(0..0, self.before.iter().copied());
        if !ended {
            ids.extend(&self.after);
        }
        let padding = std::iter::repeat_n(self.pad_id, self.context_length - ids.len());
        match self.padding_side {
            Side::Right => ids.extend(padding),
            Side::Left => drop(ids.splice(0..0, padding)),
        }

        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(Error::bad_model(format!(
                "{FILE} gives the label {:?} the id {id}, but config.json says vocab_size {}",
                excerpt(text),
                self.vocab_size
            )));
        }
        Ok(ids)
    }

    /// The id that fills the sequence up to [`context_length`](Self::context_length).
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// Ids per label.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// `SiglipTokenizer.tokenize` and the ids of its pieces.
    fn siglip_ids(
        &self,
        text: &str,
        lower_case: bool,
        special: &[(String, u32)],
        normalizer: &[Normalize],
    ) -> Result<Vec<u32>> {
        let text = format!("{UNDERLINE}{}", text.replace(UNDERLINE, " "));
        let mut ids = Vec::new();
        for part in split_special(&text, special) {
            match part {
                Part::Special(id) => ids.push(id),
                Part::Text(text) => {
                    let mut text = canonicalize(text, lower_case);
                    for step in normalizer {
                        text = match step {
                            Normalize::Charsmap(map) => map.apply(&text),
                            Normalize::Library(step) => {
                                let mut normalized = NormalizedString::from(text.as_str());
                                step.normalize(&mut normalized)
                                    .map_err(|e| not_encoded(&text, e))?;
                                normalized.get().to_string()
                            }
                        };
                    }
                    // As sentencepiece's `remove_extra_whitespaces`.
                    ids.extend(self.piece_ids(text.trim_end_matches([' ', UNDERLINE]))?);
                }
            }
        }
        Ok(ids)
    }

    fn piece_ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .pieces
            .encode_fast(text, false)
            .map_err(|e| not_encoded(text, e))?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// Which family the checkpoint's tokenizer belongs to, told by its algorithm.
fn family(
    config: &Config,
    algorithm: Algorithm,
    pieces: &tokenizers::Tokenizer,
) -> Result<Algorithm> {
    let has = |token: &str| pieces.token_to_id(token).is_some();
    let named = match class(config) {
        Some("SiglipTokenizer") => Algorithm::Unigram,
        Some("GemmaTokenizer" | "Siglip2Tokenizer") => Algorithm::Bpe,
        None | Some("PreTrainedTokenizer" | "TokenizersBackend") => {
            return match algorithm {
                Algorithm::Unigram if has("</s>") => Ok(algorithm),
                Algorithm::Bpe if has("<eos>") && has("<pad>") => Ok(algorithm),
                _ => Err(Error::unsupported(format!(
                    "{FILE} holds a {algorithm} model without the special tokens of SigLIP (</s>) or SigLIP 2 (<eos>, <pad>)"
                ))),
            };
        }
        Some(other) => {
            return Err(Error::unsupported(format!(
                "{CONFIG} names {other:?}; SigLIP has SiglipTokenizer, SigLIP 2 has Siglip2Tokenizer or GemmaTokenizer"
            )));
        }
    };
    if named != algorithm {
        return Err(Error::bad_model(format!(
            "{CONFIG} names {:?}, a {named} tokenizer, but {FILE} holds a {algorithm} model: the two files are from different checkpoints",
            class(config).unwrap_or_default()
        )));
    }
    Ok(algorithm)
}

/// `tokenizer_class` without the `Fast` of older files.
fn class(config: &Config) -> Option<&str> {
    let class = config.tokenizer_class.as_deref()?;
    Some(class.strip_suffix("Fast").unwrap_or(class))
}

/// Every id must have a row in the model's token embedding.
fn check_range(max_id: u64, file: &File, vocab_size: usize) -> Result<()> {
    let added = file
        .added_tokens
        .iter()
        .filter(|added| !files::is_sentinel(&added.token.content))
        .map(|added| u64::from(added.id));
    let max_id = added.fold(max_id, u64::max);
    if max_id < vocab_size as u64 {
        return Ok(());
    }
    Err(Error::bad_model(format!(
        "{FILE} has {} tokens, but config.json says vocab_size {vocab_size}: the two files are from different checkpoints",
        max_id.saturating_add(1)
    )))
}

/// The special token that `tokenizer_config.json` names.
fn named(token: &Option<Token>) -> Option<&str> {
    token.as_ref().map(Token::content)
}

/// A special token and its id.
fn token(
    pieces: &tokenizers::Tokenizer,
    named: Option<&str>,
    key: &str,
    default: &str,
) -> Result<(String, u32)> {
    let content = named.unwrap_or(default);
    match pieces.token_to_id(content) {
        Some(id) => Ok((content.to_string(), id)),
        None => Err(missing(content, key)),
    }
}

fn missing(content: &str, key: &str) -> Error {
    Error::bad_model(format!(
        "{FILE} has no token {content:?} ({key}): it is damaged or from another model"
    ))
}

fn two_ids(content: &str, id: u32, other: u32) -> Error {
    Error::bad_model(format!(
        "{FILE} gives the token {content:?} two ids, {id} and {other}: it is damaged"
    ))
}

fn not_encoded(text: &str, e: impl fmt::Display) -> Error {
    Error::bad_model(format!(
        "{FILE} can't express the label {:?}: {e}",
        excerpt(text)
    ))
}

/// The start of a label, for a message.
fn excerpt(text: &str) -> &str {
    match text.char_indices().nth(60) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
