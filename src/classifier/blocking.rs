//! The same, for native programs, which may wait.

use std::path::Path;

use super::{
    Classifier, ClassifyOptions, Embedding, HeatMap, LabelScore, LabelSet, Labels, Picture,
    nobody_listens,
};
use crate::checkpoint::{Folder, LoadOptions};
use crate::device::IntoDevice;
use crate::error::Result;

impl Classifier {
    /// Loads the checkpoint folder `dir`, with weights held as f32, exactly as they are in the checkpoint. `on` is a
    /// [`Backend`](crate::Backend), which is started, or a device from [`device::open`](crate::device::open).
    ///
    /// # Errors
    /// As [`load_async`](Self::load_async), and [`device::start`](crate::device::start).
    pub fn load(dir: impl AsRef<Path>, on: impl IntoDevice) -> Result<Self> {
        Self::load_with(dir, on, &LoadOptions::exact())
    }

    /// [`load`](Self::load) with options: weights held in fewer bits, for less memory.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(
        dir: impl AsRef<Path>,
        on: impl IntoDevice,
        options: &LoadOptions,
    ) -> Result<Self> {
        let source = Folder::new(dir)?;
        let device = on.into_device()?;
        pollster::block_on(Self::load_async(
            &source,
            (),
            options,
            &device,
            &(),
            &mut |_| {},
        ))
    }

    /// Scores `labels` for an encoded picture (the bytes of a file), highest first. Labels are words, or a [`LabelSet`].
    ///
    /// # Errors
    /// As [`classify_async`](Self::classify_async).
    pub fn classify<'a>(
        &mut self,
        image: &[u8],
        labels: impl Into<Labels<'a>>,
        options: &ClassifyOptions,
    ) -> Result<Vec<LabelScore>> {
        let picture = Picture::Encoded(image);
        pollster::block_on(self.classify_async(picture, labels, options, &(), &mut nobody_listens))
    }

    /// The same for several encoded pictures, a few at a time.
    ///
    /// # Errors
    /// As [`classify_images_async`](Self::classify_images_async).
    pub fn classify_images<'a>(
        &mut self,
        images: &[&[u8]],
        labels: impl Into<Labels<'a>>,
        options: &ClassifyOptions,
    ) -> Result<Vec<Vec<LabelScore>>> {
        let pictures: Vec<_> = images.iter().map(|bytes| Picture::Encoded(bytes)).collect();
        pollster::block_on(self.classify_images_async(
            &pictures,
            labels,
            options,
            &(),
            &mut nobody_listens,
        ))
    }

    /// An encoded picture's unit-length embedding.
    ///
    /// # Errors
    /// As [`embed_image_async`](Self::embed_image_async).
    pub fn embed_image(&mut self, image: &[u8]) -> Result<Embedding> {
        pollster::block_on(self.embed_image_async(Picture::Encoded(image), &()))
    }

    /// The unit-length embeddings of encoded pictures, a few at a time.
    ///
    /// # Errors
    /// As [`embed_images_async`](Self::embed_images_async).
    pub fn embed_images(&mut self, images: &[&[u8]]) -> Result<Vec<Embedding>> {
        let pictures: Vec<_> = images.iter().map(|bytes| Picture::Encoded(bytes)).collect();
        pollster::block_on(self.embed_images_async(&pictures, &()))
    }

    /// The unit-length embeddings of `labels`: each put into every one of `templates`, and the results averaged.
    ///
    /// # Errors
    /// As [`embed_labels_async`](Self::embed_labels_async).
    pub fn embed_labels(
        &mut self,
        labels: &[impl AsRef<str>],
        templates: &[impl AsRef<str>],
    ) -> Result<LabelSet> {
        pollster::block_on(self.embed_labels_async(labels, templates, &(), &mut nobody_listens))
    }

    /// The unit-length embeddings of `texts`, each as it is, without a template.
    ///
    /// # Errors
    /// As [`embed_text_async`](Self::embed_text_async).
    pub fn embed_text(&mut self, texts: &[impl AsRef<str>]) -> Result<Vec<Embedding>> {
        pollster::block_on(self.embed_text_async(texts, &()))
    }

    /// What moved a label's logit for an encoded picture, place by place.
    ///
    /// # Errors
    /// As [`explain_async`](Self::explain_async).
    pub fn explain(&mut self, image: &[u8], label: &str, templates: &[String]) -> Result<HeatMap> {
        pollster::block_on(self.explain_async(Picture::Encoded(image), label, templates, &()))
    }
}
