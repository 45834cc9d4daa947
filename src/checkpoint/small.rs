//! What a checkpoint says of its model beside the weights, for programs that make weights of their own.

use serde_json::{Map, Value};

use super::format::remove_quantization;
use super::load::required;
use super::{Described, Source};
use crate::error::Result;
use crate::json;
use crate::model::SiglipConfig;
use crate::preprocess::Preprocessor;
use crate::tokenizer::Tokenizer;

/// The small files of a checkpoint in the form of transformers, understood as [`Checkpoint::load`](super::Checkpoint::load) understands them.
#[non_exhaustive]
pub struct SmallFiles {
    /// `config.json`.
    pub config: SiglipConfig,
    /// How pictures are prepared.
    pub preprocessor: Preprocessor,
    /// None where the labels are fixed, nor in a fine-tuned classifier.
    pub tokenizer: Option<Tokenizer>,
    /// `config.json` to be written beside other weights: all of its keys but those of quantization. What Python writes for numbers that are
    /// none is null.
    pub json: Map<String, Value>,
}

impl SmallFiles {
    /// Reads them.
    ///
    /// # Errors
    /// As [`Checkpoint::load`](super::Checkpoint::load); `unsupported` for a folder of open_clip's, which has no such `config.json`.
    pub fn read(source: &impl Source) -> Result<Self> {
        pollster::block_on(async {
            let described = Described::read(source, &()).await?;
            described.hints.check_transformers("train")?;
            let config = required(source, "config.json").await?;
            let mut json = json::parse("config.json", &config)?;
            remove_quantization(&mut json);
            Ok(Self {
                tokenizer: described.tokenizer(source).await?,
                json,
                config: described.config,
                preprocessor: described.preprocessor,
            })
        })
    }
}
