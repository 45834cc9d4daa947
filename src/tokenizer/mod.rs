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
mod budget;
mod build;
mod canonical;
mod charsmap;
mod files;
pub(crate) mod general;
#[cfg(not(target_family = "wasm"))]
mod library;
mod own;
mod pieces;
mod sentencepiece;
mod steps;
mod unigram;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde_json::{Value, json};

use self::added::{AddedToken, AddedTokens, Part};
use self::canonical::{UNDERLINE, canonicalize, canonicalize_for_open_clip};
use self::files::{
    ADDED_TOKENS, Algorithm, Side, SpecialToken, TOKENIZER_CONFIG, TOKENIZER_JSON, TokenizerConfig,
    TokenizerJson, excerpt, is_sentinel,
};
use self::own::{Model, Own};
use self::steps::Normalize;
use crate::error::{Error, Result};
use crate::json;
use crate::model::TextConfig;

/// Turns a label into the ids that the text tower reads.
///
/// ```no_run
/// # fn main() -> siglip_web::Result<()> {
/// use siglip_web::tokenizer::Tokenizer;
///
/// let read = |file: &str| std::fs::read(format!("siglip-base-patch16-224/{file}"));
/// let tokenizer = read("tokenizer.json").expect("a checkpoint has one");
/// let config = read("tokenizer_config.json").ok();
/// // 64 ids a label, of a vocabulary of 32 000: `text_config` in config.json.
/// let tokenizer = Tokenizer::new(&tokenizer, config.as_deref(), 64, 32_000)?;
/// assert_eq!(tokenizer.encode("San Francisco")?[..6], [262, 264, 452, 20563, 15949, 1]);
/// # Ok(())
/// # }
/// ```
pub struct Tokenizer {
    /// What it was read from.
    file: String,
    cleaning: Cleaning,
    family: Family,
    /// Tokens that are recognised in a label as written.
    added: AddedTokens,
    pipeline: AnyPipeline,
    /// Ids before and after those of the text.
    before: Vec<u32>,
    after: Vec<u32>,
    pad_id: u32,
    padding_side: Side,
    truncation_side: Side,
    context_length: usize,
    vocab_size: usize,
}

/// What is done to a label before all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cleaning {
    /// What the tokenizer's class in transformers does.
    Class,
    /// What open_clip does, whatever the tokenizer's class: `"clean": "canonicalize"`.
    OpenClip,
}

/// What is done to a label beyond what `tokenizer.json` says.
enum Family {
    Siglip { lower_case: bool },
    Siglip2,
}

/// The steps and the model of a `tokenizer.json`.
pub(crate) trait Pipeline {
    /// The ids of `text`.
    ///
    /// # Errors
    /// `bad-model` if the file asks for too much.
    fn ids(&self, text: &str) -> Result<Vec<u32>>;
}

/// A tokenizer's pipeline. Natively a tokenizer may be used by several threads.
#[cfg(not(target_family = "wasm"))]
pub(crate) type AnyPipeline = Box<dyn Pipeline + Send + Sync>;
#[cfg(target_family = "wasm")]
pub(crate) type AnyPipeline = Box<dyn Pipeline>;

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

/// A tokenizer whose pipeline may have to be opened first.
struct Draft {
    tokenizer: Tokenizer,
    /// What the `tokenizers` crate has to do before the model of `tokenizer.json`, if our own encoder can't: see [`general`].
    steps: Option<Value>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where the checkpoint has one, `tokenizer_config.json`.
    ///
    /// `context_length` (`text_config.max_position_embeddings`) and `vocab_size` (`text_config.vocab_size`) are those of `config.json`.
    /// A file of another form than SigLIP's own is run by the `tokenizers` crate. Browsers have it in a module of its own, which only
    /// loading a checkpoint fetches: there, such a file is `unsupported` here.
    ///
    /// # Errors
    /// `bad-model` if a file is damaged, is not what its name says, lacks a special token, or has ids
    /// past `vocab_size`; `unsupported` for a tokenizer that is neither SigLIP's nor SigLIP 2's.
    pub fn new(
        tokenizer_json: &[u8],
        tokenizer_config_json: Option<&[u8]>,
        context_length: usize,
        vocab_size: usize,
    ) -> Result<Self> {
        let settings = Settings::read(
            tokenizer_config_json,
            Cleaning::Class,
            context_length,
            vocab_size,
        )?;
        Self::from_json(tokenizer_json, settings)
    }

    /// Reads SentencePiece's own file (`spiece.model`, `tokenizer.model`) instead of a `tokenizer.json`; `file` is its name, for messages.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_sentencepiece(
        file: &str,
        bytes: &[u8],
        tokenizer_config_json: Option<&[u8]>,
        context_length: usize,
        vocab_size: usize,
    ) -> Result<Self> {
        let settings = Settings::read(
            tokenizer_config_json,
            Cleaning::Class,
            context_length,
            vocab_size,
        )?;
        Self::from_pieces(file, bytes, settings)
    }

    fn from_pieces(file: &str, bytes: &[u8], settings: Settings) -> Result<Self> {
        let mut read = sentencepiece::read(file, bytes)?;
        read.post_processor = settings.post_processor();
        let draft = Draft::new(read, settings).map_err(|error| of_file(&error, file))?;
        debug_assert!(draft.steps.is_none(), "our own encoder has its steps");
        Ok(Self {
            file: file.into(),
            ..draft.tokenizer
        })
    }

    fn from_json(tokenizer_json: &[u8], settings: Settings) -> Result<Self> {
        let draft = Draft::new(json::parse(TOKENIZER_JSON, tokenizer_json)?, settings)?;
        let mut tokenizer = draft.tokenizer;
        if let Some(steps) = draft.steps {
            tokenizer.pipeline = general::open(tokenizer_json, &steps)?;
        }
        Ok(tokenizer)
    }

    /// Reads what a checkpoint has of a tokenizer; `read` gives the bytes of a file, or none if it isn't there. `text` is that of `config.json`.
    ///
    /// # Errors
    /// As [`new`](Self::new), and what `read` reports.
    pub(crate) async fn from_files(
        read: impl AsyncFn(&'static str) -> Result<Option<Vec<u8>>>,
        text: &TextConfig,
        cleaning: Cleaning,
    ) -> Result<Self> {
        let settings = async || -> Result<Settings> {
            Settings::read(
                read(TOKENIZER_CONFIG).await?.as_deref(),
                cleaning,
                text.max_position_embeddings,
                text.vocab_size,
            )
        };
        if let Some(json) = read(TOKENIZER_JSON).await? {
            let read = json::parse(TOKENIZER_JSON, &json)?;
            let draft = Draft::new(read, settings().await?)?;
            let mut tokenizer = draft.tokenizer;
            if let Some(steps) = draft.steps {
                tokenizer.pipeline = general::open_async(&json, &steps).await?;
            }
            return Ok(tokenizer);
        }
        for file in sentencepiece::FILES {
            if let Some(bytes) = read(file).await? {
                let mut settings = settings().await?;
                if settings.config.added_tokens_decoder.is_none()
                    && let Some(added) = read(ADDED_TOKENS).await?
                {
                    settings.config.add(json::parse(ADDED_TOKENS, &added)?);
                }
                return Self::from_pieces(file, &bytes, settings);
            }
        }
        let [v1, v2] = sentencepiece::FILES;
        Err(Error::bad_model(format!(
            "{TOKENIZER_JSON} is missing (and so are {v1} and {v2}); \
             a checkpoint folder has config.json, preprocessor_config.json, tokenizer.json and model.safetensors"
        )))
    }

    /// The ids of `text`: exactly [`context_length`](Self::context_length) of them, cut or padded, the
    /// end token kept.
    ///
    /// # Errors
    /// `bad-model` if the tokenizer can't express `text`, makes too much of it, or gives an id past the embedding table.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.text_ids(text);
        let mut ids = ids.map_err(|error| of_file(&error, &self.file))?;

        let room = self.context_length - self.before.len() - self.after.len();
        let excess = ids.len().saturating_sub(room);
        match self.truncation_side {
            Side::Right => ids.truncate(room),
            Side::Left => drop(ids.drain(..excess)),
        }
        // SiglipTokenizer does not put `</s>` after a label that ends in one.
        let ended = matches!(self.family, Family::Siglip { .. }) && ids.last() == self.after.last();
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
                "{} gives the label {:?} the id {id}, but config.json says vocab_size {}",
                self.file,
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

    /// The ids of `text` alone.
    fn text_ids(&self, text: &str) -> Result<Vec<u32>> {
        let cleaned;
        let text = match self.cleaning {
            Cleaning::Class => text,
            Cleaning::OpenClip => {
                cleaned = canonicalize_for_open_clip(text);
                cleaned.as_str()
            }
        };
        let mut ids = Vec::new();
        match self.family {
            // `SiglipTokenizer.tokenize`.
            Family::Siglip { lower_case } => {
                let text = format!("{UNDERLINE}{}", text.replace(UNDERLINE, " "));
                for part in self.added.split(&text) {
                    match part {
                        Part::Token(id) => ids.push(id),
                        Part::Text(text) => {
                            let text = canonicalize(text, lower_case);
                            let text = text.trim_end_matches([' ', UNDERLINE]);
                            ids.extend(self.pipeline.ids(text)?);
                        }
                    }
                }
            }
            // What `tokenizer.json` itself asks for.
            Family::Siglip2 => {
                for part in self.added.split(text) {
                    match part {
                        Part::Token(id) => ids.push(id),
                        Part::Text(text) => ids.extend(self.pipeline.ids(text)?),
                    }
                }
            }
        }
        Ok(ids)
    }
}

/// SigLIP 2's special tokens, unless `tokenizer_config.json` names others.
const BOS: &str = "<bos>";
const EOS: &str = "<eos>";

impl Draft {
    fn new(mut file: TokenizerJson, mut settings: Settings) -> Result<Self> {
        let (context_length, vocab_size) = (settings.context_length, settings.vocab_size);
        let named = settings.config.added_tokens_decoder.take();
        add_named(&mut file, named.unwrap_or_default())?;
        check_range(&file, vocab_size)?;
        if settings.cleaning == Cleaning::OpenClip {
            // Words are one space apart then, so that T5's `Metaspace` alone cuts where both steps do.
            let steps = build::flat("pre_tokenizer", "pretokenizers", &file.pre_tokenizer)?;
            let steps = steps.into_iter();
            let steps = steps.filter(|step| step["type"] != "WhitespaceSplit");
            let steps: Vec<Value> = steps.cloned().collect();
            file.pre_tokenizer = json!({"type": "Sequence", "pretokenizers": steps});
        }
        let model = std::mem::take(&mut file.model);
        let own_model = model.is_own();
        let model = model.build()?;
        let family = family(&settings, &model)?;
        let normalizer = build::normalizer(&file.normalizer)?;
        let pre_tokenizer = build::pre_tokenizer(&file.pre_tokenizer, family == Algorithm::Bpe)?;
        let single_words =
            family == Algorithm::Bpe && file.added_tokens.iter().any(|token| token.single_word);
        // What our own encoder can't do.
        let foreign = !own_model || normalizer.is_none() || pre_tokenizer.is_none() || single_words;
        let own = Own {
            normalizer: normalizer.unwrap_or_default(),
            added: AddedTokens::default(),
            pre_tokenizer: pre_tokenizer.unwrap_or_default(),
            trim_end: family == Algorithm::Unigram,
            model,
        };
        let draft = match family {
            Algorithm::Unigram => settings.siglip(file, own, foreign)?,
            Algorithm::Bpe => settings.siglip2(file, own, foreign)?,
        };
        let tokenizer = &draft.tokenizer;
        if context_length < tokenizer.before.len() + tokenizer.after.len() {
            return Err(Error::bad_model(format!(
                "config.json: a text context of {context_length} leaves no room for the special tokens"
            )));
        }
        Ok(draft)
    }
}

/// What is known beside `tokenizer.json`.
struct Settings {
    config: TokenizerConfig,
    cleaning: Cleaning,
    context_length: usize,
    vocab_size: usize,
}

impl Settings {
    /// With what `tokenizer_config.json` says, where there is one.
    fn read(
        tokenizer_config_json: Option<&[u8]>,
        cleaning: Cleaning,
        context_length: usize,
        vocab_size: usize,
    ) -> Result<Self> {
        let config = match tokenizer_config_json {
            Some(json) => json::parse(TOKENIZER_CONFIG, json)?,
            None => TokenizerConfig::default(),
        };
        Ok(Self {
            config,
            cleaning,
            context_length,
            vocab_size,
        })
    }

    /// What a `tokenizer.json` made of SentencePiece's pieces has for the special tokens of SigLIP 2: without a word of them, the end token.
    fn post_processor(&self) -> Value {
        let config = &self.config;
        let token = |asked: bool, token: &Option<SpecialToken>, default| {
            let id = token.as_ref().map_or(default, SpecialToken::content);
            asked.then(|| json!({"SpecialToken": {"id": id, "type_id": 0}}))
        };
        let (before, after) = (config.add_bos_token, config.add_eos_token);
        let end = after.unwrap_or(before.is_none());
        let text = Some(json!({"Sequence": {"id": "A", "type_id": 0}}));
        let single = [
            token(before == Some(true), &config.bos_token, BOS),
            text,
            token(end, &config.eos_token, EOS),
        ];
        json!({"type": "TemplateProcessing", "single": Vec::from_iter(single.into_iter().flatten())})
    }

    /// Takes from the files what `SiglipTokenizer` takes. `foreign` is whether the `tokenizers` crate has to run it.
    fn siglip(self, file: TokenizerJson, own: Own, foreign: bool) -> Result<Draft> {
        let Settings {
            config,
            cleaning,
            context_length,
            vocab_size,
        } = self;
        let token = |named: &Option<SpecialToken>, key, default| {
            let content = named.as_ref().map_or(default, SpecialToken::content);
            let id = own.model.id(content).ok_or_else(|| missing(content, key))?;
            Ok((content.to_string(), id))
        };
        let eos = token(&config.eos_token, "eos_token", "</s>")?;
        let unk = token(&config.unk_token, "unk_token", "<unk>")?;
        let pad = token(&config.pad_token, "pad_token", "</s>")?;
        let (after, pad_id) = (vec![eos.1], pad.1);
        let mut special = BTreeMap::from([eos, unk, pad]);
        for added in file.added_tokens {
            if let Some(other) = own.model.id(&added.content).filter(|&id| id != added.id) {
                return Err(two_ids(&added.content, added.id, other));
            }
            if added.single_word && !is_sentinel(&added.content) {
                return Err(Error::unsupported(format!(
                    "the token {:?} was added to be found as a word of its own alone (`single_word`), which is not supported for SigLIP's tokenizer",
                    excerpt(&added.content)
                )));
            }
            if (added.id as usize) < vocab_size {
                special.insert(added.content, added.id);
            }
        }
        let special = special.into_iter().map(|(content, id)| AddedToken {
            content,
            id,
            // The Python class has no such thing, whatever the files say.
            lstrip: false,
            rstrip: false,
        });
        let steps = foreign.then(|| {
            // As sentencepiece's `remove_extra_whitespaces`.
            let strip = json!({"type": "Strip", "strip_left": false, "strip_right": true});
            let normalizers: Vec<_> = [&file.normalizer, &strip]
                .into_iter()
                .filter(|step| !step.is_null())
                .collect();
            json!({
                "normalizer": {"type": "Sequence", "normalizers": normalizers},
                // The class puts a space before a label itself.
                "pre_tokenizer": without_prefix_space(file.pre_tokenizer),
                "added_tokens": [],
            })
        });
        Ok(Draft {
            tokenizer: Tokenizer {
                file: TOKENIZER_JSON.into(),
                cleaning,
                family: Family::Siglip {
                    lower_case: config.do_lower_case.unwrap_or(true),
                },
                added: AddedTokens::new(special.collect()).map_err(build::damaged)?,
                pipeline: Box::new(own),
                before: vec![],
                after,
                pad_id,
                padding_side: config.padding_side.unwrap_or(Side::Right),
                truncation_side: config.truncation_side.unwrap_or(Side::Right),
                context_length,
                vocab_size,
            },
            steps,
        })
    }

    /// Takes from the files what `Siglip2Tokenizer` takes. `foreign` is whether the `tokenizers` crate has to run it.
    fn siglip2(self, mut file: TokenizerJson, mut own: Own, foreign: bool) -> Result<Draft> {
        let Settings {
            config,
            cleaning,
            context_length,
            vocab_size,
        } = self;
        let steps = build::flat("normalizer", "normalizers", &file.normalizer)?;
        if steps.iter().any(|step| step["type"] == "Precompiled") {
            return Err(Error::unsupported(format!(
                "{TOKENIZER_JSON} has a character map, which SigLIP 2's tokenizer has not"
            )));
        }
        let class = class(&config);
        // Siglip2Tokenizer has no such switch.
        let lower_case = config.do_lower_case != Some(false) || class == Some("Siglip2Tokenizer");

        let mut added = added_by_id(std::mem::take(&mut file.added_tokens), &own.model)?;
        let id = |content: &str| {
            let added = added.values().find(|added| added.content == content);
            added.map_or_else(|| own.model.id(content), |added| Some(added.id))
        };
        let token = |named: Option<&str>, key, default| {
            let content = named.unwrap_or(default);
            let id = id(content).ok_or_else(|| missing(content, key))?;
            Ok((content.to_string(), id))
        };
        let named =
            |token: &'_ Option<SpecialToken>| token.as_ref().map(|t| t.content().to_string());
        let pad = named(&config.pad_token).or_else(|| file.padding.as_ref()?.pad_token.clone());
        let bos = token(named(&config.bos_token).as_deref(), "bos_token", BOS)?;
        let eos = token(named(&config.eos_token).as_deref(), "eos_token", EOS)?;
        let pad = token(pad.as_deref(), "pad_token", "<pad>")?;
        let unk = token(named(&config.unk_token).as_deref(), "unk_token", "<unk>")?;

        // transformers doesn't ask `add_bos_token` and `add_eos_token` of `tokenizer_config.json` where there is a `tokenizer.json`.
        let (before, after) = build::template(&file.post_processor)?.unwrap_or_default();
        let special = |content: &String| {
            let id = id(content);
            id.ok_or_else(|| missing(content, "post_processor"))
        };
        let ids = |tokens: Vec<String>| tokens.iter().map(special).collect::<Result<Vec<u32>>>();
        let (before, after) = (ids(before)?, ids(after)?);
        let pad_id = pad.1;

        for (content, id) in [bos, eos, pad, unk] {
            let special = files::AddedToken::special(content, id);
            let known = added.get(&id).is_some_and(|token| token.special);
            if !known {
                added.insert(id, special);
            }
        }

        let mut as_written = Vec::new();
        let lower_case = lower_case.then(|| json!({"type": "Lowercase"}));
        let steps = if foreign {
            let normalizers: Vec<_> = lower_case.iter().chain(steps).collect();
            Some(json!({
                "normalizer": {"type": "Sequence", "normalizers": normalizers},
                "pre_tokenizer": file.pre_tokenizer,
                "added_tokens": added.into_values().collect::<Vec<_>>(),
            }))
        } else {
            if lower_case.is_some() {
                own.normalizer.insert(0, Normalize::Lowercase);
            }
            let (normalized, written): (Vec<_>, Vec<_>) =
                added.into_values().partition(|token| token.normalized);
            own.find(normalized)?;
            for token in written {
                let content = token.content.clone();
                as_written.push(AddedToken::new(token, content));
            }
            None
        };

        // The class has its own side; without a class, and in the published checkpoints, it is right.
        let default_side = match class {
            Some("GemmaTokenizer" | "Siglip2Tokenizer") => Side::Left,
            _ => Side::Right,
        };
        let padding_side = file.padding.and_then(|padding| padding.direction);
        let truncation_side = file.truncation.and_then(|truncation| truncation.direction);
        Ok(Draft {
            tokenizer: Tokenizer {
                file: TOKENIZER_JSON.into(),
                cleaning,
                family: Family::Siglip2,
                added: AddedTokens::new(as_written).map_err(build::damaged)?,
                pipeline: Box::new(own),
                before,
                after,
                pad_id,
                padding_side: config.padding_side.or(padding_side).unwrap_or(default_side),
                truncation_side: config
                    .truncation_side
                    .or(truncation_side)
                    .unwrap_or(Side::Right),
                context_length,
                vocab_size,
            },
            steps,
        })
    }
}

/// A pre-tokenizer whose `Metaspace` puts no space before the text.
fn without_prefix_space(mut step: Value) -> Value {
    if step["type"] == "Metaspace" {
        step["prepend_scheme"] = json!("never");
        step.as_object_mut()
            .expect("it has a type")
            .remove("add_prefix_space");
    }
    for step in step
        .get_mut("pretokenizers")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        *step = without_prefix_space(step.take());
    }
    step
}

/// An error about `tokenizer.json` as one about the file that it was made of.
fn of_file(error: &Error, file: &str) -> Error {
    Error::new(error.code(), error.message().replace(TOKENIZER_JSON, file))
}

/// Which family the checkpoint's tokenizer belongs to, told by its algorithm.
fn family(settings: &Settings, model: &Model) -> Result<Algorithm> {
    let config = &settings.config;
    let algorithm = model.algorithm();
    let has = |token: &str| model.id(token).is_some();
    let named = match class(config) {
        Some("SiglipTokenizer") => Algorithm::Unigram,
        // Its pieces are cut alike; what else differs is in the cleaning.
        Some("T5Tokenizer") if settings.cleaning == Cleaning::OpenClip => Algorithm::Unigram,
        Some("GemmaTokenizer" | "Siglip2Tokenizer") => Algorithm::Bpe,
        None | Some("PreTrainedTokenizer" | "TokenizersBackend") => {
            return match algorithm {
                Algorithm::Unigram if has("</s>") => Ok(algorithm),
                Algorithm::Bpe if has("<eos>") && has("<pad>") => Ok(algorithm),
                _ => Err(Error::unsupported(format!(
                    "{TOKENIZER_JSON} holds a {algorithm} model without the special tokens of SigLIP (</s>) or SigLIP 2 (<eos>, <pad>)"
                ))),
            };
        }
        Some(other) => {
            return Err(Error::unsupported(format!(
                "{TOKENIZER_CONFIG} names {other:?}; SigLIP has SiglipTokenizer, SigLIP 2 has Siglip2Tokenizer or GemmaTokenizer"
            )));
        }
    };
    if named != algorithm {
        return Err(Error::bad_model(format!(
            "{TOKENIZER_CONFIG} names {:?}, a {named} tokenizer, but {TOKENIZER_JSON} holds a {algorithm} model: the two files are from different checkpoints",
            class(config).unwrap_or_default()
        )));
    }
    Ok(algorithm)
}

/// `tokenizer_class` without the `Fast` of older files.
fn class(config: &TokenizerConfig) -> Option<&str> {
    let class = config.tokenizer_class.as_deref()?;
    Some(class.strip_suffix("Fast").unwrap_or(class))
}

/// Every id must have a row in the model's token embedding.
fn check_range(file: &TokenizerJson, vocab_size: usize) -> Result<()> {
    let added = file
        .added_tokens
        .iter()
        .filter(|added| !is_sentinel(&added.content))
        .map(|added| added.id);
    let max_id = u64::from(added.fold(file.model.max_id(), u32::max));
    if max_id < vocab_size as u64 {
        return Ok(());
    }
    Err(Error::bad_model(format!(
        "{TOKENIZER_JSON} has {} tokens, but config.json says vocab_size {vocab_size}: the two files are from different checkpoints",
        max_id + 1
    )))
}

/// Adds to `file` the tokens that `tokenizer_config.json` or [`ADDED_TOKENS`] name beyond its own.
fn add_named(file: &mut TokenizerJson, named: BTreeMap<u32, files::NamedToken>) -> Result<()> {
    let own = file.added_tokens.iter();
    let own: HashMap<String, u32> = own.map(|own| (own.content.clone(), own.id)).collect();
    for (id, token) in named {
        match own.get(&token.content) {
            Some(&other) if other != id => {
                return Err(Error::bad_model(format!(
                    "{TOKENIZER_CONFIG} gives the token {:?} the id {id}, {TOKENIZER_JSON} {other}: the two files are from different checkpoints",
                    excerpt(&token.content)
                )));
            }
            Some(_) => {}
            None => file.added_tokens.push(files::AddedToken::named(id, token)),
        }
    }
    Ok(())
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
        "{TOKENIZER_JSON} has no token {content:?} ({key}): it is damaged or from another model"
    ))
}

fn two_ids(content: &str, id: u32, other: u32) -> Error {
    Error::bad_model(format!(
        "{TOKENIZER_JSON} gives the token {content:?} two ids, {id} and {other}: it is damaged"
    ))
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_tokenizer_of_t5_gives_open_clips_ids() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/tokenizer/v1/tokenizer.json.gz"
        );
        let mut file = String::new();
        flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
            .read_to_string(&mut file)
            .unwrap();
        let mut file: Value = serde_json::from_str(&file).unwrap();
        // As transformers' T5Tokenizer writes it.
        file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        ]});
        let config = br#"{"tokenizer_class": "T5Tokenizer"}"#;
        let settings = Settings::read(Some(config), Cleaning::OpenClip, 64, 32_000).unwrap();
        let tokenizer = Tokenizer::from_json(file.to_string().as_bytes(), settings).unwrap();
        // From open_clip_torch 3.3.0 (`tests/reference/layouts.py --open-clip`).
        for (label, ids) in [
            (
                "This is a photo of the “real” mountain's view.",
                &[291, 269, 262, 266, 1304, 267, 260, 638, 5486, 870][..],
            ),
            (
                "This is a photo of a_red house.",
                &[291, 269, 262, 266, 1304, 267, 262, 266, 1226, 683],
            ),
            (
                "This is a photo of Zürich.",
                &[291, 269, 262, 266, 1304, 267, 262, 761, 5879, 5345],
            ),
        ] {
            let mut expected = ids.to_vec();
            expected.resize(64, 1);
            assert_eq!(tokenizer.encode(label).unwrap(), expected, "{label}");
        }
    }
}
