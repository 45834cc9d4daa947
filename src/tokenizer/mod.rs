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

mod added;
mod bpe;
mod canonical;
mod charsmap;
mod compact;
mod files;
mod pieces;
mod steps;
mod unigram;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use self::added::{AddedToken, AddedTokens, Part};
use self::bpe::Bpe;
use self::canonical::{UNDERLINE, canonicalize};
use self::files::{Algorithm, CONFIG, Config, FILE, File, Side, Token, excerpt};
use self::pieces::Pieces;
use self::steps::{Normalize, PreTokenize};
use self::unigram::Unigram;
use crate::error::{Error, Result};
use crate::json;

/// Turns a label into the ids that the text tower reads.
pub struct Tokenizer {
    steps: Steps,
    /// Tokens that are recognised in a label as written.
    added: AddedTokens,
    normalizer: Vec<Normalize>,
    /// Tokens that are recognised in what the normalizer makes of a label.
    normalized_added: AddedTokens,
    pre_tokenizer: Vec<PreTokenize>,
    model: Model,
    /// Ids before and after those of the text.
    before: Vec<u32>,
    after: Vec<u32>,
    pad_id: u32,
    padding_side: Side,
    truncation_side: Side,
    context_length: usize,
    vocab_size: usize,
}

/// What is done to a label beyond what `tokenizer.json` says.
enum Steps {
    Siglip { lower_case: bool },
    Siglip2,
}

/// What cuts a word into pieces.
enum Model {
    Unigram(Unigram),
    Bpe(Bpe),
}

impl Model {
    fn algorithm(&self) -> Algorithm {
        match self {
            Model::Unigram(_) => Algorithm::Unigram,
            Model::Bpe(_) => Algorithm::Bpe,
        }
    }

    fn pieces(&self) -> &Pieces {
        match self {
            Model::Unigram(model) => &model.pieces,
            Model::Bpe(model) => &model.pieces,
        }
    }

    /// The id of a piece.
    fn id(&self, piece: &str) -> Option<u32> {
        let pieces = self.pieces();
        pieces.get(piece).map(|number| pieces.id(number))
    }
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
        let mut file: File = json::parse(FILE, tokenizer_json)?;
        check_range(&file, vocab_size)?;
        let model = std::mem::take(&mut file.model).build()?;
        let mut tokenizer = Self {
            steps: Steps::Siglip2,
            added: AddedTokens::new(vec![]),
            normalizer: files::normalizer(&file.normalizer)?,
            normalized_added: AddedTokens::new(vec![]),
            pre_tokenizer: vec![],
            model,
            before: vec![],
            after: vec![],
            pad_id: 0,
            padding_side: Side::Right,
            truncation_side: Side::Right,
            context_length,
            vocab_size,
        };
        match family(&config, &tokenizer.model)? {
            Algorithm::Unigram => tokenizer.siglip(&config, file)?,
            Algorithm::Bpe => tokenizer.siglip2(&config, file, model_type)?,
        }
        if context_length < tokenizer.before.len() + tokenizer.after.len() {
            return Err(Error::bad_model(format!(
                "config.json: a text context of {context_length} leaves no room for the special tokens"
            )));
        }
        Ok(tokenizer)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made.
    ///
    /// # Errors
    /// `bad-model` if `bytes` are cut off, changed, or of another version of this crate: then `tokenizer.json` must be
    /// read again.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        compact::read(bytes)
    }

    /// The tokenizer, with all that [`new`](Self::new) was told, in a compact form to be kept in a cache: a third of the size
    /// of `tokenizer.json` or less, read in half the time.
    pub fn to_bytes(&self) -> Vec<u8> {
        compact::write(self)
    }

    /// Takes from the files what `SiglipTokenizer` takes.
    fn siglip(&mut self, config: &Config, file: File) -> Result<()> {
        self.pre_tokenizer = files::pre_tokenizer(&file.pre_tokenizer, false)?;
        let token = |named: &Option<Token>, key, default| {
            let content = named.as_ref().map_or(default, Token::content);
            let id = self
                .model
                .id(content)
                .ok_or_else(|| missing(content, key))?;
            Ok((content.to_string(), id))
        };
        let eos = token(&config.eos_token, "eos_token", "</s>")?;
        let unk = token(&config.unk_token, "unk_token", "<unk>")?;
        let pad = token(&config.pad_token, "pad_token", "</s>")?;
        self.after = vec![eos.1];
        self.pad_id = pad.1;
        let mut special = vec![eos, unk, pad];
        for added in file.added_tokens {
            if let Some(other) = self.model.id(&added.content).filter(|&id| id != added.id) {
                return Err(two_ids(&added.content, added.id, other));
            }
            if (added.id as usize) < self.vocab_size {
                special.push((added.content, added.id));
            }
        }
        self.added = AddedTokens::new(
            special
                .into_iter()
                .map(|(content, id)| AddedToken {
                    content,
                    id,
                    // The Python class has no such thing, whatever the files say.
                    lstrip: false,
                    rstrip: false,
                })
                .collect(),
        );
        self.steps = Steps::Siglip {
            lower_case: config.do_lower_case.unwrap_or(true),
        };
        self.padding_side = config.padding_side.unwrap_or(Side::Right);
        self.truncation_side = config.truncation_side.unwrap_or(Side::Right);
        Ok(())
    }

    /// Takes from the files what `Siglip2Tokenizer` takes.
    fn siglip2(&mut self, config: &Config, mut file: File, model_type: &str) -> Result<()> {
        let class = class(config);
        self.pre_tokenizer = files::pre_tokenizer(&file.pre_tokenizer, true)?;
        if (self.normalizer.iter()).any(|step| matches!(step, Normalize::Charsmap(_))) {
            return Err(Error::unsupported(format!(
                "{FILE} has a character map, which SigLIP 2's tokenizer has not"
            )));
        }
        // Siglip2Tokenizer, which transformers takes for every `siglip2` model, has no such switch.
        let lower_case = config.do_lower_case != Some(false)
            || class == Some("Siglip2Tokenizer")
            || model_type == "siglip2";
        if lower_case {
            self.normalizer.insert(0, Normalize::Lowercase);
        }

        let mut added = added_by_id(std::mem::take(&mut file.added_tokens), &self.model)?;
        let id = |content: &str| {
            let added = added.values().find(|added| added.content == content);
            added.map_or_else(|| self.model.id(content), |added| Some(added.id))
        };
        let token = |named: Option<&str>, key, default| {
            let content = named.unwrap_or(default);
            let id = id(content).ok_or_else(|| missing(content, key))?;
            Ok((content.to_string(), id))
        };
        let named = |token: &'_ Option<Token>| token.as_ref().map(|t| t.content().to_string());
        let pad = named(&config.pad_token).or_else(|| file.padding.as_ref()?.pad_token.clone());
        let bos = token(named(&config.bos_token).as_deref(), "bos_token", "<bos>")?;
        let eos = token(named(&config.eos_token).as_deref(), "eos_token", "<eos>")?;
        let pad = token(pad.as_deref(), "pad_token", "<pad>")?;
        let unk = token(named(&config.unk_token).as_deref(), "unk_token", "<unk>")?;

        (self.before, self.after) = if config.add_bos_token.is_some()
            || config.add_eos_token.is_some()
        {
            let only = |id, add: Option<bool>| (add == Some(true)).then_some(id);
            (
                Vec::from_iter(only(bos.1, config.add_bos_token)),
                Vec::from_iter(only(eos.1, config.add_eos_token)),
            )
        } else if let Some((before, after)) = files::template(&file.post_processor)? {
            let id =
                |content: &String| id(content).ok_or_else(|| missing(content, "post_processor"));
            let ids = |tokens: Vec<String>| tokens.iter().map(id).collect::<Result<_>>();
            (ids(before)?, ids(after)?)
        } else {
            (vec![], vec![eos.1])
        };
        self.pad_id = pad.1;

        for (content, id) in [bos, eos, pad, unk] {
            let special = files::AddedToken::special(content, id);
            let known = added.get(&id).is_some_and(|token| token.special);
            if !known {
                added.insert(id, special);
            }
        }
        self.find_added(added)?;

        // The class has its own side; without a class, and in the published checkpoints, it is right.
        let default_side = match class {
            Some("GemmaTokenizer" | "Siglip2Tokenizer") => Side::Left,
            _ => Side::Right,
        };
        let in_file = file.padding.and_then(|padding| padding.direction);
        self.padding_side = config.padding_side.or(in_file).unwrap_or(default_side);
        let in_file = file.truncation.and_then(|truncation| truncation.direction);
        self.truncation_side = config.truncation_side.or(in_file).unwrap_or(Side::Right);
        Ok(())
    }

    /// Makes the tokens be found, those that ask for it in the normalized text.
    fn find_added(&mut self, tokens: BTreeMap<u32, files::AddedToken>) -> Result<()> {
        let (mut as_written, mut normalized) = (Vec::new(), Vec::<AddedToken>::new());
        for token in tokens.into_values() {
            if token.single_word {
                return Err(Error::unsupported(format!(
                    "{FILE} wants the token {:?} to be found as a whole word only, which SigLIP 2's tokenizer does not",
                    excerpt(&token.content)
                )));
            }
            let mut found = AddedToken {
                content: token.content,
                id: token.id,
                lstrip: token.lstrip,
                rstrip: token.rstrip,
            };
            if !token.normalized {
                as_written.push(found);
                continue;
            }
            let content = self.normalize(found.content.clone());
            if content.is_empty() || normalized.iter().any(|other| other.content == content) {
                return Err(Error::bad_model(format!(
                    "{FILE}: `added_tokens` is damaged: normalized, {:?} is nothing or another token",
                    excerpt(&found.content)
                )));
            }
            found.content = content;
            normalized.push(found);
        }
        self.added = AddedTokens::new(as_written);
        self.normalized_added = AddedTokens::new(normalized);
        Ok(())
    }

    /// The ids of `text`: exactly [`context_length`](Self::context_length) of them, cut or padded, the
    /// end token kept.
    ///
    /// # Errors
    /// `bad-model` if the tokenizer can't express `text`, or gives an id past the embedding table.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = match self.steps {
            Steps::Siglip { lower_case } => self.siglip_ids(text, lower_case),
            Steps::Siglip2 => self.siglip2_ids(text),
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
    fn siglip_ids(&self, text: &str, lower_case: bool) -> Vec<u32> {
        let text = format!("{UNDERLINE}{}", text.replace(UNDERLINE, " "));
        let mut ids = Vec::new();
        for part in self.added.split(&text) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => {
                    let text = self.normalize(canonicalize(text, lower_case));
                    // As sentencepiece's `remove_extra_whitespaces`.
                    self.piece_ids(text.trim_end_matches([' ', UNDERLINE]), &mut ids);
                }
            }
        }
        ids
    }

    /// What `tokenizer.json` itself asks for.
    fn siglip2_ids(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for part in self.added.split(text) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => {
                    let text = self.normalize(text.to_string());
                    for part in self.normalized_added.split(&text) {
                        match part {
                            Part::Token(id) => ids.push(id),
                            Part::Text(text) => self.piece_ids(text, &mut ids),
                        }
                    }
                }
            }
        }
        ids
    }

    fn normalize(&self, text: String) -> String {
        let steps = self.normalizer.iter();
        steps.fold(text, |text, step| step.apply(text))
    }

    /// Appends the ids of the pieces of `text`.
    fn piece_ids(&self, text: &str, ids: &mut Vec<u32>) {
        let mut words = vec![text.to_string()];
        words.retain(|word| !word.is_empty());
        for step in &self.pre_tokenizer {
            let mut cut = Vec::with_capacity(words.len());
            for word in words {
                step.apply(word, &mut cut);
            }
            words = cut;
        }
        let mut pieces = Vec::new();
        for word in &words {
            match &self.model {
                Model::Unigram(model) => model.encode(word, &mut pieces),
                Model::Bpe(model) => model.encode(word, &mut pieces),
            }
        }
        let vocabulary = self.model.pieces();
        ids.extend(pieces.into_iter().map(|piece| vocabulary.id(piece)));
    }
}

/// Which family the checkpoint's tokenizer belongs to, told by its algorithm.
fn family(config: &Config, model: &Model) -> Result<Algorithm> {
    let algorithm = model.algorithm();
    let has = |token: &str| model.id(token).is_some();
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
fn check_range(file: &File, vocab_size: usize) -> Result<()> {
    let added = file
        .added_tokens
        .iter()
        .filter(|added| !files::is_sentinel(&added.content))
        .map(|added| added.id);
    let max_id = u64::from(added.fold(file.model.max_id(), u32::max));
    if max_id < vocab_size as u64 {
        return Ok(());
    }
    Err(Error::bad_model(format!(
        "{FILE} has {} tokens, but config.json says vocab_size {vocab_size}: the two files are from different checkpoints",
        max_id + 1
    )))
}

/// Checks the ids of added tokens: those that are pieces have the piece's, the others follow the vocabulary.
fn added_by_id(
    mut tokens: Vec<files::AddedToken>,
    model: &Model,
) -> Result<BTreeMap<u32, files::AddedToken>> {
    tokens.retain(|token| !token.content.is_empty());
    tokens.sort_by_key(|token| token.id);
    let mut next = model.pieces().len() as u32;
    let mut ids: HashMap<String, u32> = HashMap::with_capacity(tokens.len());
    let mut by_id = BTreeMap::new();
    for token in tokens {
        let known = ids.get(&token.content).copied();
        let id = known.or_else(|| model.id(&token.content)).unwrap_or(next);
        if id != token.id {
            return Err(two_ids(&token.content, token.id, id));
        }
        if known.is_none() && model.id(&token.content).is_none() {
            next += 1;
        }
        ids.insert(token.content.clone(), id);
        by_id.insert(id, token);
    }
    Ok(by_id)
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
