//! A `tokenizer.json` of any form, run by the `tokenizers` crate. `module/` compiles this file for the browser.

use std::cell::Cell;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizedString, Normalizer, PostProcessorWrapper,
    PreTokenizerWrapper, TokenizerImpl,
};

use super::budget;
use super::charsmap::Charsmap;

/// A tokenizer of the `tokenizers` crate, whose normalizer keeps within the budget.
pub struct Library(
    TokenizerImpl<ModelWrapper, Bounded, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>,
);

/// What of a `tokenizer.json` is taken as it is.
#[derive(Deserialize)]
struct Vocabulary {
    model: ModelWrapper,
}

/// What is done before the model.
#[derive(Deserialize)]
struct Steps {
    normalizer: Option<Bounded>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    added_tokens: Vec<AddedToken>,
}

impl Library {
    /// Takes the model from a `tokenizer.json` and all else from `steps`, which has the same keys. The error says what is wrong with them.
    pub fn new(tokenizer_json: &[u8], steps: &str) -> Result<Self, String> {
        let steps: Steps = serde_json::from_str(steps).map_err(|e| e.to_string())?;
        let file: Vocabulary = serde_json::from_slice(tokenizer_json).map_err(|e| e.to_string())?;
        let mut tokenizer = TokenizerImpl::new(file.model);
        tokenizer
            .with_normalizer(steps.normalizer)
            .map_err(|e| e.to_string())?;
        tokenizer.with_pre_tokenizer(steps.pre_tokenizer);
        FAULT.take();
        tokenizer
            .add_tokens(steps.added_tokens)
            .map_err(|e| e.to_string())?;
        match FAULT.take() {
            Some(fault) => Err(fault),
            None => Ok(Self(tokenizer)),
        }
    }

    /// The ids of `text`.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, String> {
        FAULT.take();
        let encoding = self.0.encode_fast(text, false);
        match FAULT.take() {
            Some(fault) => Err(fault),
            None => Ok(encoding.map_err(|e| e.to_string())?.get_ids().to_vec()),
        }
    }
}

thread_local! {
    /// Why a normalizer of this thread stopped: the crate goes on with what it has so far.
    static FAULT: Cell<Option<String>> = const { Cell::new(None) };
}

/// The steps of a normalizer.
struct Bounded(Vec<Step>);

enum Step {
    /// By our own reading of sentencepiece's map, see [`Charsmap`].
    Charsmap(Charsmap),
    /// With the most bytes that it may put in the place of one.
    Other(NormalizerWrapper, usize),
}

/// Bytes that a step without a text of its own makes of one: NFKD makes 33 of 3.
const EXPANSION: usize = 18;

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut steps = Vec::new();
        flatten(Value::deserialize(deserializer)?, &mut steps);
        if steps.len() > budget::STEPS {
            let error = format!("a normalizer of {} steps", steps.len());
            return Err(D::Error::custom(error));
        }
        let steps = steps.into_iter().map(|step| {
            if let Some(map) = step["precompiled_charsmap"].as_str() {
                let map = Charsmap::from_base64(map).map_err(D::Error::custom)?;
                return Ok(Step::Charsmap(map));
            }
            let text = |key: &str| step[key].as_str().map_or(0, str::len);
            let most = EXPANSION.max(text("content")).max(text("prepend"));
            let step = serde_json::from_value(step).map_err(D::Error::custom)?;
            Ok(Step::Other(step, most))
        });
        steps.collect::<Result<_, _>>().map(Self)
    }
}

impl Normalizer for Bounded {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        self.apply(text)
            .inspect_err(|error| FAULT.set(Some(error.to_string())))
    }
}

impl Bounded {
    fn apply(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let original = text.get().len();
        for step in &self.0 {
            let length = text.get().len();
            match step {
                Step::Charsmap(map) => {
                    budget::check(length.saturating_mul(map.longest()), original)?;
                    replace(text, map);
                }
                Step::Other(step, most) => {
                    budget::check(budget::replaced(length, *most), original)?;
                    step.normalize(text)?;
                }
            }
        }
        Ok(())
    }
}

/// Applies `map`. Each character of what it makes says what became of those before it: 0 took the place of one, 1 was put in, and less than 0
/// took the place of one and of so many after it.
fn replace(text: &mut NormalizedString, map: &Charsmap) {
    let mut changes: Vec<(char, isize)> = Vec::with_capacity(text.get().len());
    let mut removed_first = 0;
    for (old, new) in map.replacements(text.get()) {
        let old = old.chars().count();
        for (number, c) in new.chars().enumerate() {
            changes.push((c, isize::from(number >= old)));
        }
        let removed = old.saturating_sub(new.chars().count());
        match changes.last_mut() {
            Some((_, change)) => *change -= removed as isize,
            None => removed_first += removed,
        }
    }
    text.transform(changes, removed_first);
}

/// Appends the steps of a normalizer that may be a sequence of others.
fn flatten(step: Value, steps: &mut Vec<Value>) {
    match step {
        Value::Object(mut step) if step.get("type").is_some_and(|kind| kind == "Sequence") => {
            let inner = step.remove("normalizers");
            let inner = inner.and_then(|inner| match inner {
                Value::Array(inner) => Some(inner),
                _ => None,
            });
            for step in inner.unwrap_or_default() {
                flatten(step, steps);
            }
        }
        Value::Null => {}
        step => steps.push(step),
    }
}
