//! Labels and a picture → how probable each label is.

#[cfg(not(target_family = "wasm"))]
mod blocking;
mod cache;
mod explain;
mod kept;
mod labels;
mod options;
mod picture;
#[cfg(feature = "webgpu")]
mod self_test;

use std::collections::{HashMap, HashSet};
use std::pin::Pin;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use explain::HeatMap;
#[cfg(not(target_family = "wasm"))] // for files of indexes
pub(crate) use labels::is_unit;
pub use labels::{LONGEST_LABEL, LabelSet, Labels};
pub use options::{ClassifyOptions, DEFAULT_TEMPLATE, Scores};
pub use picture::Picture;

use crate::checkpoint::format::FixedLabels;
use crate::checkpoint::{Checkpoint, LoadOptions, Pace, Progress, Source, Stage, Store};
use crate::device;
use crate::error::{Error, Result};
use crate::kernels::{Receipt, begin, from_vec, to_vec};
use crate::model::{EncoderLayer, Head, LogitScale, SiglipConfig, positions};
use crate::tokenizer::Tokenizer;
use cache::Cache;
use kept::{Kept, Known};
use labels::{check_labels, check_templates, length, mean};
use options::sigmoid;

/// How probable one label is.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct LabelScore {
    /// As it was given.
    pub label: String,
    /// `sigmoid(logit)`, or its share of the softmax over all labels.
    pub score: f32,
    /// `exp(logit_scale) · cos(image, text) + logit_bias`; of a fine-tuned classifier its head's output.
    pub logit: f32,
}

/// How alike two embeddings are.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Similarity {
    /// Of the angle between them, −1 to 1.
    pub cosine: f32,
    /// `exp(logit_scale) · cosine + logit_bias`.
    pub logit: f32,
    /// `sigmoid(logit)`.
    pub score: f32,
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallProgress {
    /// What is counted.
    pub stage: CallStage,
    /// That are done.
    pub done: usize,
    /// That there are.
    pub total: usize,
}

/// What a call embeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallStage {
    /// Pictures.
    Images,
    /// Labels, in all templates.
    Labels,
}

impl CallStage {
    /// The word of the JavaScript API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Labels => "labels",
        }
    }
}

/// A unit-length vector.
pub type Embedding = Vec<f32>;

/// Labels of a model that a message names.
const NAMED: usize = 10;

/// Bytes of label embeddings that are kept: some ten thousand of the base models'.
const TEXT_CACHE: usize = 32 << 20;
/// Bytes of image embeddings that are kept.
const IMAGE_CACHE: usize = 1 << 20;
/// Texts that run through the text tower together.
const TEXT_BATCH: usize = 16;
/// Pictures that run through the vision tower together.
const IMAGE_BATCH: usize = 4;

/// Embeddings that a device may still be working on.
type Begun = Pin<Box<dyn Future<Output = Result<Vec<Embedding>>>>>;

/// A loaded SigLIP model with its caches.
///
/// The methods ending in `_async` stop where their [`Pace`] says so; the others block, and are for native programs.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use siglip_web::{Backend, Classifier, ClassifyOptions};
///
/// let mut classifier = Classifier::load("siglip-base-patch16-224", Backend::Cpu)?;
/// let picture = std::fs::read("cats.jpg")?;
/// let results = classifier.classify(&picture, &["2 cats", "2 dogs"], &ClassifyOptions::default())?;
/// println!("{}: {:.1} %", results[0].label, 100.0 * results[0].score);
/// # Ok(())
/// # }
/// ```
pub struct Classifier {
    checkpoint: Checkpoint,
    device: Device,
    logit_scale: f32,
    logit_bias: f32,
    fingerprint: String,
    /// Embeddings, or the logits of a fine-tuned classifier.
    images: Cache,
    texts: Cache,
    /// Those of earlier loads, where there is a store.
    kept: Option<Box<dyn Kept>>,
    /// Whether `texts` has them.
    recalled: bool,
    image_runs: usize,
    text_runs: usize,
    /// The encoder's result for the picture that ran last, by the picture's key: what [`explain_async`](Self::explain_async) begins with.
    last_tokens: Option<(u128, Tokens)>,
    /// Of a NaFlex model.
    positions: Option<Positions>,
}

/// What the encoder made of a picture.
#[derive(Clone)]
struct Tokens {
    /// `[1, patches, hidden]`
    values: Tensor<3>,
    /// Patches from top to bottom and from left to right.
    grid: [usize; 2],
}

/// A position table, and what it became for pictures of other shapes.
struct Positions {
    /// `[side, side, hidden]`
    table: Vec<f32>,
    side: usize,
    /// `[patches, hidden]` each; that of the shape that was asked for last is the last.
    resized: Vec<([usize; 2], Tensor<2>)>,
}

/// Shapes whose position tables are kept: those of photographs are few, and a table takes 3 MB at most.
const SHAPES: usize = 8;

impl Positions {
    fn of(&mut self, grid: [usize; 2], device: &Device) -> Tensor<2> {
        let known = self.resized.iter().position(|(shape, _)| *shape == grid);
        let table = match known {
            Some(index) => self.resized.remove(index).1,
            None => {
                let values = positions::resized(&self.table, self.side, grid);
                let patches = grid[0] * grid[1];
                let shape = [patches, values.len() / patches];
                from_vec(values, shape, device)
            }
        };
        if self.resized.len() == SHAPES {
            self.resized.remove(0);
        }
        self.resized.push((grid, table.clone()));
        table
    }
}

impl Classifier {
    /// Loads what `store` doesn't have of the checkpoint that `source` holds on a device from [`device::start`]. `store` then also keeps
    /// embeddings of texts, by hashes of these: a later load of the same model recalls them.
    ///
    /// # Errors
    /// As [`Checkpoint::load_async`]; `bad-model` if its embeddings are not finite.
    pub async fn load_async(
        source: &impl Source,
        store: impl Store + Clone,
        options: &LoadOptions,
        device: &Device,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Self> {
        let texts = store.clone();
        let checkpoint =
            Checkpoint::load_async(source, store, options, device, pace, progress).await?;
        let mut classifier = Self::new(checkpoint, device, pace, progress).await?;
        if classifier.checkpoint.tokenizer.is_some() {
            let backend = match *device == Device::flex() {
                true => device::Backend::Cpu,
                false => device::Backend::WebGpu,
            };
            let size = classifier.config().vision.encoder.hidden_size;
            let described = classifier.checkpoint.described;
            classifier.kept = kept::open(texts, described, backend, size).await;
        }
        Ok(classifier)
    }

    async fn new(
        checkpoint: Checkpoint,
        device: &Device,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Self> {
        let (logit_scale, logit_bias) = match &checkpoint.model.scale {
            Some(LogitScale {
                logit_scale,
                logit_bias,
            }) => (
                to_vec(logit_scale.val()).await?[0],
                to_vec(logit_bias.val()).await?[0],
            ),
            None => (0.0, 0.0),
        };
        let vision = &checkpoint.config.vision;
        let positions = match vision.naflex {
            true => Some(Positions {
                table: to_vec(checkpoint.model.vision.position_embedding.val()).await?,
                side: vision.image_size / vision.patch_size,
                resized: Vec::new(),
            }),
            false => None,
        };
        device::fault(device)?;
        let scale = logit_scale.exp();
        if !(scale.is_finite() && scale > 0.0 && logit_bias.is_finite()) {
            return Err(Error::bad_model(format!(
                "logit_scale {logit_scale} and logit_bias {logit_bias} make no probabilities; the weights are damaged"
            )));
        }
        let mut classifier = Self {
            fingerprint: fingerprint(&checkpoint).await?,
            checkpoint,
            device: device.clone(),
            logit_scale,
            logit_bias,
            images: Cache::new(IMAGE_CACHE),
            texts: Cache::new(TEXT_CACHE),
            kept: None,
            recalled: false,
            image_runs: 0,
            text_runs: 0,
            last_tokens: None,
            positions,
        };
        classifier.warm_up(pace, progress).await?;
        Ok(classifier)
    }

    /// Has a GPU prove what it computes, and compile its shaders, before the first picture.
    async fn warm_up(
        &mut self,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<()> {
        let mut report = |stage, loaded| {
            progress(Progress {
                stage,
                file: None,
                loaded,
                total: 2,
                from_store: false,
            });
        };
        report(Stage::Warmup, 0);
        pace.step().await?;
        // The CPU's kernels were called while the weights came, and a large model's picture takes seconds there.
        #[cfg(feature = "webgpu")]
        if self.device != Device::flex() {
            let (model, config) = (&self.checkpoint.model, self.config());
            let run = self_test::run_vision(&model.vision, &config.vision, &self.device, pace);
            self.or_fault(run.await)?;
            report(Stage::Warmup, 1);
            if let Some(tower) = &model.text {
                let run = self_test::run_text(tower, &config.text, &self.device, pace);
                self.or_fault(run.await)?;
            }
        }
        report(Stage::Warmup, 2);
        report(Stage::Ready, 2);
        Ok(())
    }

    /// What the device reported says more than the results that are wrong for it.
    fn or_fault<T>(&self, results: Result<T>) -> Result<T> {
        device::fault(&self.device)?;
        results
    }

    /// Scores `labels` for a picture, highest first. `progress` hears of the picture first, then of the labels.
    ///
    /// # Errors
    /// `bad-input` for labels or options that can't be used, for a [`LabelSet`] of another model, and for [`Labels::Own`] where the model has
    /// none; `unsupported` for other labels than these with a fine-tuned classifier; `bad-image`, or `unsupported` for a
    /// picture format that this crate doesn't decode; `device-lost` and `out-of-memory`; what `pace` reports.
    pub async fn classify_async<'a>(
        &mut self,
        picture: Picture<'_>,
        labels: impl Into<Labels<'a>>,
        options: &ClassifyOptions,
        pace: &impl Pace,
        progress: &mut impl FnMut(CallProgress),
    ) -> Result<Vec<LabelScore>> {
        let mut results = self
            .classify_images_async(&[picture], labels, options, pace, progress)
            .await?;
        Ok(results.remove(0))
    }

    /// The same for several pictures, which run through the vision tower a few at a time.
    ///
    /// # Errors
    /// As [`classify_async`](Self::classify_async), for the first picture that has one.
    pub async fn classify_images_async<'a>(
        &mut self,
        pictures: &[Picture<'_>],
        labels: impl Into<Labels<'a>>,
        options: &ClassifyOptions,
        pace: &impl Pace,
        progress: &mut impl FnMut(CallProgress),
    ) -> Result<Vec<Vec<LabelScore>>> {
        let labels = labels.into();
        options.check()?;
        match &labels {
            Labels::Words(words) => self.check_words(words, &options.templates)?,
            Labels::Set(set) => self.check_set(set, &options.templates)?,
            Labels::Own => self.check_own(&options.templates)?,
        }
        let images = self.see(pictures, pace).await?;
        progress(CallProgress {
            stage: CallStage::Images,
            done: images.len(),
            total: images.len(),
        });
        let scores = self.scores();
        if let Some(classifier) = &self.config().classifier {
            let words: Vec<&str> = classifier.labels.iter().map(String::as_str).collect();
            let results = images
                .iter()
                .map(|logits| options.rank(&words, logits, scores));
            return Ok(results.collect());
        }
        let embedded;
        let (words, texts): (Vec<&str>, Vec<&[f32]>) = match labels {
            Labels::Own => {
                let (fixed, embeddings) = self.checkpoint.labels.as_ref().expect("checked above");
                (
                    fixed.labels.iter().map(String::as_str).collect(),
                    embeddings.iter().map(Vec::as_slice).collect(),
                )
            }
            Labels::Words(words) => {
                embedded = self
                    .embed_words(&words, &options.templates, pace, progress)
                    .await?;
                (words, embedded.iter().map(Vec::as_slice).collect())
            }
            Labels::Set(set) => {
                let words = set.labels().iter().map(String::as_str);
                (words.collect(), set.embeddings().collect())
            }
        };
        let results = images.iter().map(|image| {
            let logits: Vec<f32> = texts
                .iter()
                .map(|text| self.similarity(image, text).logit)
                .collect();
            options.rank(&words, &logits, scores)
        });
        Ok(results.collect())
    }

    /// The unit-length embeddings of `labels`: each put into every one of `templates`, and the results averaged.
    ///
    /// # Errors
    /// As [`classify_async`](Self::classify_async); `network` if rows of the token table must be read and can't be.
    pub async fn embed_labels_async(
        &mut self,
        labels: &[impl AsRef<str>],
        templates: &[impl AsRef<str>],
        pace: &impl Pace,
        progress: &mut impl FnMut(CallProgress),
    ) -> Result<LabelSet> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let words: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        let templates: Vec<String> =
            owned(&templates.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        check_templates(&templates)?;
        self.check_words(&words, &templates)?;
        let embeddings = self.embed_words(&words, &templates, pace, progress).await?;
        LabelSet::new(
            self.fingerprint.clone(),
            owned(&words),
            templates,
            embeddings.concat(),
        )
    }

    /// Embeds words that [`check_words`](Self::check_words) let through.
    async fn embed_words(
        &mut self,
        words: &[&str],
        templates: &[String],
        pace: &impl Pace,
        progress: &mut impl FnMut(CallProgress),
    ) -> Result<Vec<Embedding>> {
        let total = words.len();
        let mut report = |done| {
            progress(CallProgress {
                stage: CallStage::Labels,
                done,
                total,
            })
        };
        if let Some((fixed, embeddings)) = &self.checkpoint.labels {
            let known = words
                .iter()
                .map(|label| Ok(embeddings[position(fixed, label)?].clone()));
            let known = known.collect::<Result<_>>()?;
            report(total);
            return Ok(known);
        }
        self.recall().await;
        let keys: Vec<u128> = words
            .iter()
            .map(|word| label_key(word, templates))
            .collect();
        let mut found = self.known(&keys, |this| &mut this.texts);
        let missing: Vec<(u128, &str)> = (keys.iter().copied().zip(words.iter().copied()))
            .filter(|(key, _)| !found.contains_key(key))
            .collect();
        report(found.len());
        let prompts: Vec<String> = missing
            .iter()
            .flat_map(|(_, word)| {
                templates
                    .iter()
                    .map(move |template| template.replace("{}", word))
            })
            .collect();
        let mut keys_left = missing.iter().map(|(key, _)| *key);
        let mut of_one = Vec::with_capacity(templates.len());
        let mut new = Vec::new();
        let begin = async |this: &mut Self, batch: &[String]| this.begin_texts(batch, pace).await;
        let run = self.run(&prompts, TEXT_BATCH, begin, |this, embedding| {
            of_one.push(embedding);
            if of_one.len() == templates.len() {
                let key = keys_left
                    .next()
                    .expect("as many labels as there are prompts for");
                let embedding = mean(&of_one);
                of_one.clear();
                this.texts.put(key, embedding.clone());
                new.push((key, embedding.clone()));
                found.insert(key, embedding);
                report(found.len());
            }
        });
        let result = run.await;
        // Also of a call that was given up.
        self.keep(new).await;
        result?;
        Ok(keys.iter().map(|key| found[key].clone()).collect())
    }

    /// Fails where there are no labels of the model's own, and for templates that are not theirs.
    fn check_own(&self, templates: &[String]) -> Result<()> {
        if self.labels().is_none() {
            return Err(Error::bad_input(
                "there are no labels, and this model has none of its own; give at least one",
            ));
        }
        match self.config().classifier.is_some()
            && *templates != ClassifyOptions::default().templates
        {
            true => Err(Error::bad_input(
                "this model was fine-tuned for labels of its own, which are put into no sentence; leave the template out",
            )),
            false => self.check_fixed_templates(templates),
        }
    }

    /// Fails for templates that are not those of the fixed labels.
    fn check_fixed_templates(&self, templates: &[String]) -> Result<()> {
        match &self.checkpoint.labels {
            // Left out, the template is the one that the labels were put into.
            Some((fixed, _))
                if *templates != fixed.templates
                    && *templates != ClassifyOptions::default().templates =>
            {
                Err(Error::bad_input(format!(
                    "this model has no text tower, and its labels were put into {:?}; leave the template out",
                    fixed.templates
                )))
            }
            _ => Ok(()),
        }
    }

    /// Fails for a fine-tuned classifier, which has labels of its own and no embeddings.
    fn check_zero_shot(&self) -> Result<()> {
        let Some(classifier) = &self.config().classifier else {
            return Ok(());
        };
        Err(Error::unsupported(format!(
            "this model was fine-tuned for labels of its own ({}): it scores these for a picture, and has no embeddings and no text \
             tower. Classify without labels, or load a model with both towers, for example google/siglip2-base-patch16-224",
            listed(&classifier.labels)
        )))
    }

    /// Fails for words and templates that can't be labels of this model, before anything runs.
    fn check_words(&self, words: &[&str], templates: &[String]) -> Result<()> {
        self.check_zero_shot()?;
        check_labels(words)?;
        if let Some((fixed, _)) = &self.checkpoint.labels {
            self.check_fixed_templates(templates)?;
            return words
                .iter()
                .try_for_each(|label| position(fixed, label).map(drop));
        }
        let tokenizer = self.tokenizer()?;
        let blank = tokenizer.encode("")?;
        for word in words {
            // What is known was read before.
            if !self.texts.contains(label_key(word, templates)) && tokenizer.encode(word)? == blank
            {
                return Err(Error::bad_input(format!(
                    "the label {word:?} has nothing that the model reads; use words"
                )));
            }
        }
        Ok(())
    }

    /// Fails for a set of another model, and for templates that are not its own.
    fn check_set(&self, set: &LabelSet, templates: &[String]) -> Result<()> {
        self.check_zero_shot()?;
        let size = self.config().vision.encoder.hidden_size;
        if set.model() != self.fingerprint || set.embedding_size() != size {
            return Err(Error::bad_input(format!(
                "the label set was made by another model (its fingerprint is {}, this one's is {}); make it again with this model",
                set.model(),
                self.fingerprint
            )));
        }
        if *templates != *set.templates() && *templates != ClassifyOptions::default().templates {
            return Err(Error::bad_input(format!(
                "the labels of the set were put into {:?} already; leave the template out",
                set.templates()
            )));
        }
        Ok(())
    }

    fn tokenizer(&self) -> Result<&Tokenizer> {
        self.check_zero_shot()?;
        self.checkpoint.tokenizer.as_ref().ok_or_else(|| {
            let fixed = self.checkpoint.labels.as_ref();
            let labels = fixed.map_or(String::new(), |(fixed, _)| listed(&fixed.labels));
            Error::unsupported(format!(
                "this model has no text tower and can't embed texts; it was made for the labels: {labels}. Load the checkpoint that it was made from"
            ))
        })
    }

    /// A picture's unit-length embedding `[hidden]`.
    ///
    /// # Errors
    /// As [`embed_images_async`](Self::embed_images_async).
    pub async fn embed_image_async(
        &mut self,
        picture: Picture<'_>,
        pace: &impl Pace,
    ) -> Result<Embedding> {
        let mut embeddings = self.embed_images_async(&[picture], pace).await?;
        Ok(embeddings.remove(0))
    }

    /// The unit-length embeddings of pictures, which run through the vision tower a few at a time.
    ///
    /// # Errors
    /// As [`classify_async`](Self::classify_async), for the first picture that has one; `unsupported` for a fine-tuned classifier.
    pub async fn embed_images_async(
        &mut self,
        pictures: &[Picture<'_>],
        pace: &impl Pace,
    ) -> Result<Vec<Embedding>> {
        self.check_zero_shot()?;
        self.see(pictures, pace).await
    }

    /// What the vision tower makes of pictures: their embeddings, or a fine-tuned classifier's logits.
    async fn see(&mut self, pictures: &[Picture<'_>], pace: &impl Pace) -> Result<Vec<Vec<f32>>> {
        let keys: Vec<u128> = pictures.iter().map(Picture::key).collect();
        let begin =
            async |this: &mut Self, batch: &[Picture]| this.begin_pictures(batch, pace).await;
        // Pictures of different shapes have different numbers of patches.
        let size = match self.positions {
            Some(_) => 1,
            None => IMAGE_BATCH,
        };
        self.embed(pictures, keys, |this| &mut this.images, size, begin)
            .await
    }

    /// The unit-length embeddings of `texts`, each as it is, without a template.
    ///
    /// # Errors
    /// As [`classify_async`](Self::classify_async); `unsupported` for a model without a text tower; `network` if rows of the token
    /// table must be read and can't be.
    pub async fn embed_text_async(
        &mut self,
        texts: &[impl AsRef<str>],
        pace: &impl Pace,
    ) -> Result<Vec<Embedding>> {
        self.tokenizer()?;
        let texts: Vec<String> = texts.iter().map(|text| text.as_ref().to_owned()).collect();
        let keys: Vec<u128> = texts.iter().map(|text| text_key(text)).collect();
        self.recall().await;
        let missing: Vec<u128> = (keys.iter().copied())
            .filter(|key| !self.texts.contains(*key))
            .collect();
        let begin = async |this: &mut Self, batch: &[String]| this.begin_texts(batch, pace).await;
        let embed = self.embed(&texts, keys, |this| &mut this.texts, TEXT_BATCH, begin);
        let result = embed.await;
        let mut new = self.known(&missing, |this| &mut this.texts);
        let new = missing.iter().filter_map(|key| new.remove_entry(key));
        self.keep(new.collect()).await;
        result
    }

    /// Takes what earlier loads kept of texts, once.
    async fn recall(&mut self) {
        if let Some(kept) = &mut self.kept
            && !std::mem::replace(&mut self.recalled, true)
        {
            for (key, embedding) in kept.recall().await {
                self.texts.put(key, embedding);
            }
        }
    }

    /// Keeps embeddings of texts for later loads.
    async fn keep(&mut self, new: Vec<Known>) {
        if let Some(kept) = &mut self.kept {
            kept.keep(new).await;
        }
    }

    /// The embeddings of `inputs` with these keys: from the cache, or else from a tower, which `begin` starts on at most `size` of them.
    async fn embed<T: Clone>(
        &mut self,
        inputs: &[T],
        keys: Vec<u128>,
        cache: fn(&mut Self) -> &mut Cache,
        size: usize,
        begin: impl AsyncFn(&mut Self, &[T]) -> Result<Begun>,
    ) -> Result<Vec<Embedding>> {
        let mut found = self.known(&keys, cache);
        let mut asked: HashSet<u128> = found.keys().copied().collect();
        let (missing_keys, missing): (Vec<u128>, Vec<T>) = (keys.iter().zip(inputs))
            .filter(|(key, _)| asked.insert(**key))
            .map(|(key, input)| (*key, input.clone()))
            .unzip();
        let mut missing_keys = missing_keys.into_iter();
        self.run(&missing, size, begin, |this, embedding| {
            let key = missing_keys.next().expect("a key for each input");
            cache(this).put(key, embedding.clone());
            found.insert(key, embedding);
        })
        .await?;
        Ok(keys.iter().map(|key| found[key].clone()).collect())
    }

    /// What the cache has of these keys. Kept apart from it, which may be smaller than a call.
    fn known(
        &mut self,
        keys: &[u128],
        cache: fn(&mut Self) -> &mut Cache,
    ) -> HashMap<u128, Embedding> {
        let cache = cache(self);
        let known = |key: &u128| Some((*key, cache.get(*key)?.clone()));
        keys.iter().filter_map(known).collect()
    }

    /// Runs `inputs` through a tower, `size` at a time, and hands the embeddings to `each` in their order.
    async fn run<T>(
        &mut self,
        inputs: &[T],
        size: usize,
        begin: impl AsyncFn(&mut Self, &[T]) -> Result<Begun>,
        mut each: impl FnMut(&mut Self, Embedding),
    ) -> Result<()> {
        let mut running: Option<Begun> = None;
        // A GPU works on one batch while the next is made ready here; the last turn only waits.
        for batch in inputs.chunks(size).map(Some).chain([None]) {
            let next = match batch {
                Some(batch) => Some(begin(self, batch).await),
                None => None,
            };
            // Also if the next has an error: results that nobody takes keep their buffer from being used again.
            if let Some(embeddings) = running.take() {
                for embedding in self.proven(embeddings.await)? {
                    each(self, embedding);
                }
            }
            running = next.transpose()?;
        }
        Ok(())
    }

    /// What a tower gave. If the device didn't do all that it was told, what the encoder gave on the way is not kept either.
    fn proven<T>(&mut self, embeddings: Result<T>) -> Result<T> {
        if embeddings.is_err() {
            self.last_tokens = None;
        }
        embeddings
    }

    /// Decodes pictures, which come out in the same size, and starts the vision tower on them.
    async fn begin_pictures(
        &mut self,
        pictures: &[Picture<'_>],
        pace: &impl Pace,
    ) -> Result<Begun> {
        let (mut pixels, mut size) = (Vec::new(), (0, 0));
        for picture in pictures {
            let image = picture.decode()?;
            pace.step().await?;
            let preprocessor = &self.checkpoint.preprocessor;
            size = preprocessor.size(&image);
            pixels.extend(preprocessor.pixel_values(&image));
        }
        let patch = self.config().vision.patch_size;
        let grid = [size.0 / patch, size.1 / patch];
        let (tokens, receipt) = self.encode(pixels, size, pace).await?;
        self.image_runs += pictures.len();
        if let [picture] = pictures {
            let values = tokens.clone();
            self.last_tokens = Some((picture.key(), Tokens { values, grid }));
        }
        let tower = &self.checkpoint.model.vision;
        let checked = match &tower.head {
            Head::Pooling(_) => embedding,
            Head::Classifier(_) => logits,
        };
        Ok(self.read_rows(tower.pool(tokens), receipt, checked))
    }

    /// The encoder's result for a picture.
    async fn tokens(&mut self, picture: &Picture<'_>, pace: &impl Pace) -> Result<Tokens> {
        let key = picture.key();
        if let Some((of, tokens)) = &self.last_tokens
            && *of == key
        {
            return Ok(tokens.clone());
        }
        let embeddings = self.begin_pictures(&[*picture], pace).await?.await;
        let embeddings = self.proven(embeddings)?;
        self.images.put(key, embeddings.concat());
        let (_, tokens) = self.last_tokens.as_ref().expect("of one picture");
        Ok(tokens.clone())
    }

    /// `pixel_values [batch, 3, height, width]` → the encoder's result `[batch, patches, hidden]`, and the proof that it is one, to be read with what
    /// comes of it.
    async fn encode(
        &mut self,
        pixels: Vec<f32>,
        (height, width): (usize, usize),
        pace: &impl Pace,
    ) -> Result<(Tensor<3>, Receipt)> {
        let shape = [pixels.len() / (3 * height * width), 3, height, width];
        let tower = &self.checkpoint.model.vision;
        let positions = self.positions.as_mut().map(|positions| {
            let patch = tower.patch_size;
            positions.of([height / patch, width / patch], &self.device)
        });
        let (x, mut receipt) = Receipt::with_floats(pixels, shape, &self.device);
        let x = match positions {
            Some(positions) => tower.embed_at(x, positions),
            None => tower.embed(x),
        };
        let x = through(&tower.encoder.layers, x, pace, &mut receipt).await?;
        Ok((x, receipt))
    }

    /// Starts the text tower on texts.
    async fn begin_texts(&mut self, texts: &[String], pace: &impl Pace) -> Result<Begun> {
        let tokenizer = self.tokenizer()?;
        let ids: Vec<_> = texts
            .iter()
            .map(|text| tokenizer.encode(text))
            .collect::<Result<_>>()?;
        let shape = [ids.len(), ids[0].len()];
        let rows = match &mut self.checkpoint.rows {
            Some(rows) => Some(rows.rows(&ids.concat()).await?),
            None => None,
        };
        let tower = self.checkpoint.model.text.as_ref();
        let tower = tower.expect("a tokenizer comes with a text tower");
        let (x, mut receipt) = match rows {
            Some(rows) => {
                let shape = [shape[0], shape[1], rows.len() / (shape[0] * shape[1])];
                let (rows, receipt) = Receipt::with_floats(rows, shape, &self.device);
                (tower.embed_rows(rows), receipt)
            }
            None => {
                let flat: Vec<i32> = ids.iter().flatten().map(|id| *id as i32).collect();
                let (ids, receipt) = Receipt::with_ids(flat, shape, &self.device);
                (tower.embed(ids), receipt)
            }
        };
        let x = through(tower.body(), x, pace, &mut receipt).await?;
        let begun = self.read_rows(tower.pool(x), receipt, embedding);
        self.text_runs += 1;
        Ok(begun)
    }

    /// Tower results `[batch, numbers]`, read back, each through `checked`: nothing wrong is ever shown.
    fn read_rows(
        &self,
        pooled: Tensor<2>,
        receipt: Receipt,
        checked: fn(&[f32], &Device) -> Result<Vec<f32>>,
    ) -> Begun {
        let [_, numbers] = pooled.dims();
        let device = self.device.clone();
        let values = begin(receipt.read(pooled));
        Box::pin(async move {
            let values = values.await;
            // What the device reported says more than the read that failed for it.
            device::fault(&device)?;
            let rows = values?;
            let rows = rows.chunks_exact(numbers);
            rows.map(|row| checked(row, &device)).collect()
        })
    }

    /// How alike two unit-length embeddings of this model are, usually a picture's and a text's. A fine-tuned classifier has none.
    ///
    /// # Panics
    /// If they have not the same number of components.
    pub fn similarity(&self, a: &[f32], b: &[f32]) -> Similarity {
        assert_eq!(a.len(), b.len(), "embeddings of one model");
        // f64, so that the scale of 117 doesn't magnify rounding.
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        let cosine: f64 = products.sum();
        let logit =
            (f64::from(self.logit_scale).exp() * cosine + f64::from(self.logit_bias)) as f32;
        Similarity {
            cosine: cosine as f32,
            logit,
            score: sigmoid(logit),
        }
    }

    /// What a [`LabelSet`] and an index of pictures are bound to: a hash of vectors of both towers, the same for one checkpoint however
    /// its weights are held.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The model's configuration.
    pub fn config(&self) -> &SiglipConfig {
        &self.checkpoint.config
    }

    /// The checkpoint's parts.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The labels that the model knows, if it takes no others: of a fine-tuned classifier, or of a checkpoint that was converted for fixed
    /// ones.
    pub fn labels(&self) -> Option<&[String]> {
        let fixed = self.checkpoint.labels.as_ref();
        let fine_tuned = self.config().classifier.as_ref();
        let fixed = fixed.map(|(fixed, _)| fixed.labels.as_slice());
        fixed.or(fine_tuned.map(|classifier| classifier.labels.as_slice()))
    }

    /// How logits become scores unless the caller says otherwise.
    pub fn scores(&self) -> Scores {
        match &self.config().classifier {
            Some(classifier) if !classifier.multi_label => Scores::Softmax,
            _ => Scores::Sigmoid,
        }
    }

    /// Logarithm of the factor on the cosine; 0 for a fine-tuned classifier, which has none.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// Added to every logit; 0 for a fine-tuned classifier.
    pub fn logit_bias(&self) -> f32 {
        self.logit_bias
    }

    /// How often the vision tower and the text tower ran: fewer times than they were asked, thanks to the caches.
    pub fn runs(&self) -> (usize, usize) {
        (self.image_runs, self.text_runs)
    }
}

const fn nobody_listens(_: CallProgress) {}

/// Of a text that is embedded as it is.
fn text_key(text: &str) -> u128 {
    cache::key(&[text.as_bytes()])
}

/// Of a label in templates; in one alone it is a text.
fn label_key(label: &str, templates: &[String]) -> u128 {
    if let [template] = templates {
        return text_key(&template.replace("{}", label));
    }
    let parts = [label]
        .into_iter()
        .chain(templates.iter().map(String::as_str));
    cache::key(&parts.map(str::as_bytes).collect::<Vec<_>>())
}

/// See [`Classifier::fingerprint`].
async fn fingerprint(checkpoint: &Checkpoint) -> Result<String> {
    let model = &checkpoint.model;
    if let Head::Classifier(head) = &model.vision.head {
        let bias = to_vec(head.classifier.bias.val()).await?;
        return Ok(key_of(&bias));
    }
    // Vectors, which all forms of a checkpoint hold as f32.
    let norm = &model.vision.post_layernorm;
    let mut vectors = vec![&norm.gamma, &norm.beta];
    if let Head::Pooling(head) = &model.vision.head {
        vectors.push(&head.in_proj_bias);
    }
    if let Some(tower) = &model.text {
        let norm = &tower.final_layer_norm;
        vectors.extend([&norm.gamma, &norm.beta, &tower.head.bias]);
    }
    let mut values = Vec::new();
    for vector in vectors {
        values.extend(to_vec(vector.val()).await?);
    }
    if let Some((_, embeddings)) = &checkpoint.labels {
        values.extend(embeddings.concat());
    }
    Ok(key_of(&values))
}

fn key_of(values: &[f32]) -> String {
    format!("{:032x}", cache::key(&[bytemuck::cast_slice(values)]))
}

/// Which of the fixed labels this is.
fn position(fixed: &FixedLabels, label: &str) -> Result<usize> {
    let found = fixed.labels.iter().position(|known| known == label);
    found.ok_or_else(|| unknown(label, &fixed.labels))
}

/// What there is to say of another label than those that a model has.
fn unknown(label: &str, labels: &[String]) -> Error {
    Error::bad_input(format!(
        "this model has no text tower and doesn't know the label {label:?}; it was made for: {}",
        listed(labels)
    ))
}

/// The first of many labels.
fn listed(labels: &[String]) -> String {
    let more = match labels.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", labels[..labels.len().min(NAMED)].join(", "))
}

/// Runs the layers one by one, so that a caller can stop between two.
async fn through(
    layers: &[EncoderLayer],
    mut x: Tensor<3>,
    pace: &impl Pace,
    receipt: &mut Receipt,
) -> Result<Tensor<3>> {
    for layer in layers {
        // Before the step, in which others may have the device submit what it was told.
        receipt.count();
        pace.step().await?;
        x = layer.forward(x);
    }
    receipt.count();
    pace.step().await?;
    Ok(x)
}

/// A tower's result, of unit length, if it can be one.
fn embedding(row: &[f32], device: &Device) -> Result<Embedding> {
    let length = length(row);
    // Nothing comes out as zeros but what was never written.
    if length.is_finite() && length > 0.0 {
        return Ok(row.iter().map(|v| v / length).collect());
    }
    Err(no_result(
        &format!("an embedding came out with length {length}"),
        device,
    ))
}

/// A classifier's result, if it can be one.
fn logits(row: &[f32], device: &Device) -> Result<Vec<f32>> {
    match row.iter().find(|logit| !logit.is_finite()) {
        None => Ok(row.to_vec()),
        Some(logit) => Err(no_result(&format!("a logit came out as {logit}"), device)),
    }
}

fn no_result(what: &str, device: &Device) -> Error {
    match *device == Device::flex() {
        true => Error::bad_model(format!("{what}; the weights are damaged: get them again")),
        false => Error::device_lost(format!(
            "{what}; load the model again on the CPU (backend \"cpu\")"
        )),
    }
}
