//! The tokenizers that SigLIP and SigLIP 2 are published with, by our own encoder: docs/decisions.md has its reasons.

use super::added::{AddedToken, AddedTokens, Part};
use super::bpe::Bpe;
use super::canonical::UNDERLINE;
use super::files::{Algorithm, TOKENIZER_JSON};
use super::pieces::Pieces;
use super::steps::{Normalize, PreTokenize};
use super::unigram::Unigram;
use super::{Pipeline, files};
use crate::error::{Error, Result};

/// A normalizer, a pre-tokenizer and a model.
pub(super) struct Own {
    pub normalizer: Vec<Normalize>,
    /// Tokens that are recognised in what the normalizer makes of a text.
    pub added: AddedTokens,
    pub pre_tokenizer: Vec<PreTokenize>,
    /// Whether spaces at the end go, as with sentencepiece's `remove_extra_whitespaces`.
    pub trim_end: bool,
    pub model: Model,
}

/// What cuts a word into pieces.
pub(super) enum Model {
    Unigram(Unigram),
    Bpe(Bpe),
}

impl Model {
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Model::Unigram(_) => Algorithm::Unigram,
            Model::Bpe(_) => Algorithm::Bpe,
        }
    }

    pub(super) fn pieces(&self) -> &Pieces {
        match self {
            Model::Unigram(model) => &model.pieces,
            Model::Bpe(model) => &model.pieces,
        }
    }

    /// The id of a piece.
    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        let pieces = self.pieces();
        pieces.get(piece).map(|number| pieces.id(number))
    }
}

impl Own {
    /// Has `tokens` found in normalized text, themselves normalized.
    pub(super) fn find(&mut self, tokens: Vec<files::AddedToken>) -> Result<()> {
        let tokens = tokens.into_iter().map(|token| {
            let content = self.normalize(&token.content)?;
            if content.is_empty() {
                return Err(Error::bad_model(format!(
                    "{TOKENIZER_JSON}: `added_tokens` is damaged: normalized, {:?} is nothing",
                    files::excerpt(&token.content)
                )));
            }
            Ok(AddedToken::new(token, content))
        });
        let tokens = tokens.collect::<Result<_>>()?;
        self.added = AddedTokens::new(tokens).map_err(|error| {
            Error::bad_model(format!(
                "{TOKENIZER_JSON}: `added_tokens` is damaged: normalized, {error}"
            ))
        })?;
        Ok(())
    }

    fn normalize(&self, text: &str) -> Result<String> {
        let mut normal = text.to_string();
        for step in &self.normalizer {
            normal = step
                .apply(&normal, text.len())
                .map_err(|error| Error::bad_model(format!("{TOKENIZER_JSON}: {error}")))?;
        }
        Ok(normal)
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

impl Pipeline for Own {
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let mut text = self.normalize(text)?;
        if self.trim_end {
            text.truncate(text.trim_end_matches([' ', UNDERLINE]).len());
        }
        let mut ids = Vec::new();
        for part in self.added.split(&text) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => self.piece_ids(text, &mut ids),
            }
        }
        Ok(ids)
    }
}
