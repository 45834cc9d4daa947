//! Labels and a picture → how probable each label is.

mod cache;
mod options;

use std::collections::HashMap;
use std::pin::Pin;

use burn::tensor::{Device, Tensor};

pub use options::{ClassifyOptions, DEFAULT_TEMPLATE, Scores};

use crate::checkpoint::format::FixedLabels;
use crate::checkpoint::{Checkpoint, LoadOptions, Pace, Progress, Source, Stage, Store};
use crate::device;
use crate::error::{Error, Result};
use crate::kernels::{begin_to_vec, from_ids, from_vec, to_vec};
use crate::model::{EncoderLayer, SiglipConfig};
use crate::preprocess::{self, Image};
use crate::tokenizer::Tokenizer;
use cache::Cache;

/// How probable one label is.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelScore {
    /// As it was given.
    pub label: String,
    /// `sigmoid(logit)`, or its share of the softmax over all labels.
    pub score: f32,
    /// `exp(logit_scale) · cos(image, text) + logit_bias`.
    pub logit: f32,
}

/// A unit-length vector.
pub type Embedding = Vec<f32>;

/// Text embeddings kept: some hundred labels with a few templates.
const TEXTS_KEPT: usize = 2048;
/// Image embeddings kept.
const IMAGES_KEPT: usize = 32;
/// Texts that run through the text tower together.
const TEXT_BATCH: usize = 16;
/// Pictures that run through the vision tower together.
const IMAGE_BATCH: usize = 4;

/// Embeddings that a device may still be working on.
type Begun = Pin<Box<dyn Future<Output = Result<Vec<Embedding>>>>>;

/// A loaded SigLIP model with its caches.
///
/// The methods ending in `_with` are asynchronous and stop where their [`Pace`] says so; the others block, and are for
/// native programs.
pub struct Classifier {
    checkpoint: Checkpoint,
    device: Device,
    logit_scale: f32,
    logit_bias: f32,
    images: Cache<Embedding>,
    texts: Cache<Embedding>,
    image_runs: usize,
    text_runs: usize,
}

impl Classifier {
    /// Loads the checkpoint that `source` holds on a device from [`device::start`], whole and as f32.
    ///
    /// # Errors
    /// As [`load_stored`](Self::load_stored).
    pub async fn load_with(
        source: &impl Source,
        device: &Device,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Self> {
        let options = LoadOptions::exact();
        let checkpoint =
            Checkpoint::load_async(source, (), &options, device, pace, progress).await?;
        Self::new(checkpoint, device, pace, progress).await
    }

    /// Loads what `store` doesn't have of the checkpoint that `source` holds on a device from [`device::start`].
    ///
    /// # Errors
    /// As [`Checkpoint::load_async`]; `bad-model` if its embeddings are not finite.
    pub async fn load_stored(
        source: &impl Source,
        store: impl Store,
        options: &LoadOptions,
        device: &Device,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Self> {
        let checkpoint =
            Checkpoint::load_async(source, store, options, device, pace, progress).await?;
        Self::new(checkpoint, device, pace, progress).await
    }

    async fn new(
        checkpoint: Checkpoint,
        device: &Device,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Self> {
        let scalar = |t: &Tensor<1>| to_vec(t.clone());
        let logit_scale = scalar(&checkpoint.model.logit_scale.val()).await?[0];
        let logit_bias = scalar(&checkpoint.model.logit_bias.val()).await?[0];
        device::fault(device)?;
        let scale = logit_scale.exp();
        if !(scale.is_finite() && scale > 0.0 && logit_bias.is_finite()) {
            return Err(Error::bad_model(format!(
                "logit_scale {logit_scale} and logit_bias {logit_bias} make no probabilities; the weights are damaged"
            )));
        }
        let mut classifier = Self {
            checkpoint,
            device: device.clone(),
            logit_scale,
            logit_bias,
            images: Cache::new(IMAGES_KEPT),
            texts: Cache::new(TEXTS_KEPT),
            image_runs: 0,
            text_runs: 0,
        };
        classifier.warm_up(pace, progress).await?;
        Ok(classifier)
    }

    /// Runs both towers once, so that shaders are compiled and damaged weights are found before the first picture.
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
        // The CPU's kernels were called when it was started, and a large model's picture takes seconds there.
        if self.device != Device::flex() {
            let side = self.config().vision.image_size;
            self.begin_vision(vec![0.0; 3 * side * side], pace)
                .await?
                .await?;
            report(Stage::Warmup, 1);
            if self.checkpoint.tokenizer.is_some() {
                self.begin_texts(&[&""], pace).await?.await?;
            }
        }
        report(Stage::Warmup, 2);
        report(Stage::Ready, 2);
        Ok(())
    }

    /// Scores `labels` for the picture in `bytes` (an encoded file), highest first.
    ///
    /// # Errors
    /// `bad-input` for labels or options that can't be used; `bad-image`, or `unsupported` for a picture format that this
    /// crate doesn't decode; `device-lost` and `out-of-memory`; what `pace` reports.
    pub async fn classify_with(
        &mut self,
        picture: Picture<'_>,
        labels: &[impl AsRef<str>],
        options: &ClassifyOptions,
        pace: &impl Pace,
    ) -> Result<Vec<LabelScore>> {
        let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        options.check()?;
        options::check_labels(&labels)?;
        self.check_readable(&labels, options)?;
        let image = self.embed_image_with(picture, pace).await?;
        let texts = self
            .embed_labels_with(&labels, &options.templates, pace)
            .await?;
        let logits: Vec<f32> = texts.iter().map(|text| self.logit(&image, text)).collect();
        Ok(options.rank(&labels, &logits))
    }

    /// The unit-length embeddings of `labels`: each put into every one of `templates`, and the results averaged.
    ///
    /// # Errors
    /// As [`embed_text_with`](Self::embed_text_with); `bad-input` for a label that a fixed-label model doesn't have.
    pub async fn embed_labels_with(
        &mut self,
        labels: &[&str],
        templates: &[String],
        pace: &impl Pace,
    ) -> Result<Vec<Embedding>> {
        options::check_labels(labels)?;
        if let Some((fixed, embeddings)) = &self.checkpoint.labels {
            let known = labels
                .iter()
                .map(|label| Ok(embeddings[position(fixed, label)?].clone()));
            return known.collect();
        }
        let mut prompts = Vec::with_capacity(labels.len() * templates.len());
        for label in labels {
            prompts.extend(
                templates
                    .iter()
                    .map(|template| template.replace("{}", label)),
            );
        }
        let texts = self.embed_text_with(&prompts, pace).await?;
        Ok(texts.chunks_exact(templates.len()).map(mean).collect())
    }

    /// Fails for labels that the model can't tell from nothing, and for those that a fixed-label model doesn't have.
    fn check_readable(&self, labels: &[&str], options: &ClassifyOptions) -> Result<()> {
        if let Some((fixed, _)) = &self.checkpoint.labels {
            // Left out, the template is the one that the labels were put into.
            let default = ClassifyOptions::default();
            if options.templates != fixed.templates && options.templates != default.templates {
                return Err(Error::bad_input(format!(
                    "this model has no text tower, and its labels were put into {:?}; leave the template out",
                    fixed.templates
                )));
            }
            return labels
                .iter()
                .try_for_each(|label| position(fixed, label).map(drop));
        }
        let tokenizer = self.tokenizer()?;
        let blank = tokenizer.encode("")?;
        for label in labels {
            if tokenizer.encode(label)? == blank {
                return Err(Error::bad_input(format!(
                    "the label {label:?} has nothing that the model reads; use words"
                )));
            }
        }
        Ok(())
    }

    fn tokenizer(&self) -> Result<&Tokenizer> {
        self.checkpoint.tokenizer.as_ref().ok_or_else(|| {
            let fixed = self.checkpoint.labels.as_ref();
            let labels = fixed.map_or(String::new(), |(fixed, _)| fixed.labels.join(", "));
            Error::unsupported(format!(
                "this model has no text tower and can't embed texts; it was made for the labels: {labels}. Load the checkpoint that it was made from"
            ))
        })
    }

    /// A picture's unit-length embedding `[hidden]`.
    ///
    /// # Errors
    /// As [`classify_with`](Self::classify_with).
    pub async fn embed_image_with(
        &mut self,
        picture: Picture<'_>,
        pace: &impl Pace,
    ) -> Result<Embedding> {
        let mut embeddings = self.embed_images_with(&[picture], pace).await?;
        Ok(embeddings.remove(0))
    }

    /// The unit-length embeddings of pictures, which run through the vision tower a few at a time.
    ///
    /// # Errors
    /// As [`classify_with`](Self::classify_with), for the first picture that has one.
    pub async fn embed_images_with(
        &mut self,
        pictures: &[Picture<'_>],
        pace: &impl Pace,
    ) -> Result<Vec<Embedding>> {
        let keys: Vec<u128> = pictures.iter().map(|picture| picture.key()).collect();
        let begin =
            async |this: &mut Self, batch: &[&Picture]| this.begin_pictures(batch, pace).await;
        self.embed(pictures, keys, |this| &mut this.images, IMAGE_BATCH, begin)
            .await
    }

    /// The unit-length embeddings of `texts`, each as it is, without a template.
    ///
    /// # Errors
    /// As [`classify_with`](Self::classify_with); `unsupported` for a model without a text tower; `network` if rows of the token
    /// table must be read and can't be.
    pub async fn embed_text_with(
        &mut self,
        texts: &[impl AsRef<str>],
        pace: &impl Pace,
    ) -> Result<Vec<Embedding>> {
        let keys: Vec<u128> = texts
            .iter()
            .map(|t| cache::key(&[t.as_ref().as_bytes()]))
            .collect();
        self.tokenizer()?;
        let begin = async |this: &mut Self, batch: &[&_]| this.begin_texts(batch, pace).await;
        self.embed(texts, keys, |this| &mut this.texts, TEXT_BATCH, begin)
            .await
    }

    /// The embeddings of `inputs` with these keys: from the cache, or else from a tower, which `begin` starts on at most `size` of them.
    async fn embed<T>(
        &mut self,
        inputs: &[T],
        keys: Vec<u128>,
        cache: fn(&mut Self) -> &mut Cache<Embedding>,
        size: usize,
        begin: impl AsyncFn(&mut Self, &[&T]) -> Result<Begun>,
    ) -> Result<Vec<Embedding>> {
        // Kept apart from the cache, which may be smaller than the number of inputs.
        let mut found: HashMap<u128, Embedding> = HashMap::new();
        let (mut missing, mut missing_keys) = (Vec::new(), Vec::new());
        for (key, input) in keys.iter().zip(inputs) {
            match cache(self).get(*key) {
                Some(embedding) => drop(found.insert(*key, embedding.clone())),
                None if missing_keys.contains(key) => {}
                None => {
                    missing_keys.push(*key);
                    missing.push(input);
                }
            }
        }
        let batches = missing.chunks(size).zip(missing_keys.chunks(size));
        let mut running: Option<(&[u128], Begun)> = None;
        // A GPU works on one batch while the next is made ready here; the last turn only waits.
        for batch in batches.map(Some).chain([None]) {
            let next = match batch {
                Some((batch, keys)) => Some((keys, begin(self, batch).await)),
                None => None,
            };
            // Also if the next has an error: results that nobody takes keep their buffer from being used again.
            if let Some((keys, embeddings)) = running.take() {
                for (key, embedding) in keys.iter().zip(embeddings.await?) {
                    cache(self).put(*key, embedding.clone());
                    found.insert(*key, embedding);
                }
            }
            if let Some((keys, begun)) = next {
                running = Some((keys, begun?));
            }
        }
        Ok(keys.iter().map(|key| found[key].clone()).collect())
    }

    /// Decodes pictures and starts the vision tower on them.
    async fn begin_pictures(
        &mut self,
        pictures: &[&Picture<'_>],
        pace: &impl Pace,
    ) -> Result<Begun> {
        let mut pixels = Vec::new();
        for picture in pictures {
            let image = picture.decode()?;
            pace.step().await?;
            pixels.extend(self.checkpoint.preprocessor.pixel_values(&image));
        }
        let begun = self.begin_vision(pixels, pace).await?;
        self.image_runs += pictures.len();
        Ok(begun)
    }

    /// `pixel_values [batch, 3, height, width]` → checked embeddings.
    async fn begin_vision(&self, pixels: Vec<f32>, pace: &impl Pace) -> Result<Begun> {
        let side = self.config().vision.image_size;
        let shape = [pixels.len() / (3 * side * side), 3, side, side];
        let tower = &self.checkpoint.model.vision;
        let x = from_vec(pixels, shape, &self.device);
        let x = through(&tower.encoder.layers, tower.embed(x), pace).await?;
        Ok(self.read_embeddings(tower.pool(x)))
    }

    /// Starts the text tower on texts.
    async fn begin_texts(&mut self, texts: &[&impl AsRef<str>], pace: &impl Pace) -> Result<Begun> {
        let tokenizer = self.tokenizer()?;
        let ids: Vec<_> = texts
            .iter()
            .map(|text| tokenizer.encode(text.as_ref()))
            .collect::<Result<_>>()?;
        let shape = [ids.len(), ids[0].len()];
        let rows = match &mut self.checkpoint.rows {
            Some(rows) => Some(rows.rows(&ids.concat()).await?),
            None => None,
        };
        let tower = self.checkpoint.model.text.as_ref();
        let tower = tower.expect("a tokenizer comes with a text tower");
        let x = match rows {
            Some(rows) => {
                let shape = [shape[0], shape[1], rows.len() / (shape[0] * shape[1])];
                tower.embed_rows(from_vec(rows, shape, &self.device))
            }
            None => {
                let flat: Vec<i32> = ids.iter().flatten().map(|id| *id as i32).collect();
                tower.embed(from_ids(flat, shape, &self.device))
            }
        };
        let x = through(&tower.encoder.layers, x, pace).await?;
        let begun = self.read_embeddings(tower.pool(x));
        self.text_runs += 1;
        Ok(begun)
    }

    /// Tower results `[batch, hidden]`, read back, checked and normalised: nothing wrong is ever shown.
    fn read_embeddings(&self, pooled: Tensor<2>) -> Begun {
        let [_, hidden] = pooled.dims();
        let device = self.device.clone();
        let values = begin_to_vec(pooled);
        Box::pin(async move {
            let values = values.await;
            // What the device reported says more than the read that failed for it.
            device::fault(&device)?;
            let rows = values?;
            let rows = rows.chunks_exact(hidden);
            rows.map(|row| embedding(row, &device)).collect()
        })
    }

    fn logit(&self, image: &[f32], text: &[f32]) -> f32 {
        // f64, so that the scale of 117 doesn't magnify rounding.
        let cosine: f64 = image
            .iter()
            .zip(text)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum();
        (f64::from(self.logit_scale).exp() * cosine + f64::from(self.logit_bias)) as f32
    }

    /// The model's configuration.
    pub fn config(&self) -> &SiglipConfig {
        &self.checkpoint.config
    }

    /// The checkpoint's parts.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Logarithm of the factor on the cosine.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// Added to every logit.
    pub fn logit_bias(&self) -> f32 {
        self.logit_bias
    }

    /// How often the vision tower and the text tower ran: fewer times than they were asked, thanks to the caches.
    pub fn runs(&self) -> (usize, usize) {
        (self.image_runs, self.text_runs)
    }
}

#[cfg(not(target_family = "wasm"))]
impl Classifier {
    /// Loads the checkpoint folder `dir` on a device from [`device::start`], or on any burn device: with weights held as f32, exactly as
    /// they are in the checkpoint.
    ///
    /// # Errors
    /// As [`load_with`](Self::load_with).
    pub fn load(dir: impl AsRef<std::path::Path>, device: &Device) -> Result<Self> {
        let options = LoadOptions {
            dtype: Some(crate::Dtype::F32),
            ..LoadOptions::default()
        };
        Self::load_with_options(dir, device, &options)
    }

    /// [`load`](Self::load) with weights held in fewer bits, for less memory.
    ///
    /// # Errors
    /// As [`load_stored`](Self::load_stored).
    pub fn load_with_options(
        dir: impl AsRef<std::path::Path>,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<Self> {
        let source = crate::checkpoint::Folder::new(dir)?;
        pollster::block_on(Self::load_stored(
            &source,
            (),
            options,
            device,
            &(),
            &mut |_| {},
        ))
    }

    /// Scores `labels` for an encoded picture (the bytes of a file), highest first.
    ///
    /// # Errors
    /// As [`classify_with`](Self::classify_with).
    pub fn classify(
        &mut self,
        image: &[u8],
        labels: &[impl AsRef<str>],
        options: &ClassifyOptions,
    ) -> Result<Vec<LabelScore>> {
        pollster::block_on(self.classify_with(Picture::Encoded(image), labels, options, &()))
    }

    /// An encoded picture's unit-length embedding.
    ///
    /// # Errors
    /// As [`embed_image_with`](Self::embed_image_with).
    pub fn embed_image(&mut self, image: &[u8]) -> Result<Embedding> {
        pollster::block_on(self.embed_image_with(Picture::Encoded(image), &()))
    }

    /// The unit-length embeddings of encoded pictures, a few at a time.
    ///
    /// # Errors
    /// As [`embed_images_with`](Self::embed_images_with).
    pub fn embed_images(&mut self, images: &[&[u8]]) -> Result<Vec<Embedding>> {
        let pictures: Vec<_> = images.iter().map(|bytes| Picture::Encoded(bytes)).collect();
        pollster::block_on(self.embed_images_with(&pictures, &()))
    }

    /// The unit-length embeddings of `labels`: each put into every one of `templates`, and the results averaged.
    ///
    /// # Errors
    /// As [`embed_labels_with`](Self::embed_labels_with).
    pub fn embed_labels(
        &mut self,
        labels: &[&str],
        templates: &[String],
    ) -> Result<Vec<Embedding>> {
        pollster::block_on(self.embed_labels_with(labels, templates, &()))
    }

    /// The unit-length embeddings of `texts`, each as it is, without a template.
    ///
    /// # Errors
    /// As [`embed_text_with`](Self::embed_text_with).
    pub fn embed_text(&mut self, texts: &[impl AsRef<str>]) -> Result<Vec<Embedding>> {
        pollster::block_on(self.embed_text_with(texts, &()))
    }
}

/// A picture as a caller has it.
#[derive(Clone, Copy, Debug)]
pub enum Picture<'a> {
    /// The bytes of a JPEG, PNG, WebP, GIF or BMP file.
    Encoded(&'a [u8]),
    /// Pixels, 4 bytes each: red, green, blue, straight alpha.
    Rgba {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// `height · width · 4` bytes, row by row.
        pixels: &'a [u8],
    },
}

impl Picture<'_> {
    fn key(&self) -> u128 {
        match self {
            Picture::Encoded(bytes) => cache::key(&[bytes]),
            Picture::Rgba {
                width,
                height,
                pixels,
            } => cache::key(&[&width.to_le_bytes(), &height.to_le_bytes(), pixels]),
        }
    }

    fn decode(&self) -> Result<Image> {
        match *self {
            Picture::Encoded(bytes) => preprocess::decode(bytes),
            Picture::Rgba {
                width,
                height,
                pixels,
            } => Image::from_rgba(width, height, pixels),
        }
    }
}

/// Which of the fixed labels this is.
fn position(fixed: &FixedLabels, label: &str) -> Result<usize> {
    let found = fixed.labels.iter().position(|known| known == label);
    found.ok_or_else(|| {
        Error::bad_input(format!(
            "this model has no text tower and doesn't know the label {label:?}; it was made for: {}",
            fixed.labels.join(", ")
        ))
    })
}

/// Runs the layers one by one, so that a caller can stop between two.
async fn through(layers: &[EncoderLayer], mut x: Tensor<3>, pace: &impl Pace) -> Result<Tensor<3>> {
    for layer in layers {
        pace.step().await?;
        x = layer.forward(x);
    }
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
    let what = format!("an embedding came out with length {length}");
    Err(match *device == Device::flex() {
        true => Error::bad_model(format!("{what}; the weights are damaged: get them again")),
        false => Error::device_lost(format!(
            "{what}; load the model again on the CPU (backend \"cpu\")"
        )),
    })
}

/// The mean of unit vectors, of unit length again: how several templates become one label.
fn mean(embeddings: &[Embedding]) -> Embedding {
    if let [one] = embeddings {
        return one.clone();
    }
    let mut sum = vec![0.0; embeddings[0].len()];
    for embedding in embeddings {
        for (total, value) in sum.iter_mut().zip(embedding) {
            *total += value;
        }
    }
    let length = length(&sum);
    sum.iter().map(|v| v / length).collect()
}

/// The Euclidean length, summed in f64.
fn length(values: &[f32]) -> f32 {
    let squares = values.iter().map(|v| f64::from(*v) * f64::from(*v));
    squares.sum::<f64>().sqrt() as f32
}
