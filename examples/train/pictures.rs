//! Pictures as the vision tower wants them, decoded once where memory allows.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use rand::rngs::ChaCha8Rng;
use rayon::prelude::*;
use siglip_web::preprocess::{self, Input, Preprocessor};
use siglip_web::{Code, Error, Result};

use crate::augment::{Augmentation, Source};
use crate::data::Example;

/// Longest side of a picture that is kept for variation, in sides of the model's input.
const DETAIL: usize = 2;

/// The pictures of one set of examples.
pub struct Pictures<'a> {
    examples: &'a [Example],
    preprocessor: &'a Preprocessor,
    /// Empty: pictures as they are.
    ways: Vec<Augmentation>,
    kept: Vec<OnceLock<Kept>>,
    /// Bytes that may still be kept.
    budget: &'a AtomicI64,
}

enum Kept {
    /// To be varied.
    Source(Source),
    /// `pixel_values [3, height, width]`.
    Pixels(Vec<f32>),
}

impl<'a> Pictures<'a> {
    /// Decodes every picture of `examples`, calling `progress` after each.
    ///
    /// # Errors
    /// What is wrong with the first picture in the order of the captions that can't be read, naming its line.
    pub fn read(
        examples: &'a [Example],
        preprocessor: &'a Preprocessor,
        ways: &[Augmentation],
        budget: &'a AtomicI64,
        progress: impl Fn() + Sync,
    ) -> Result<Self> {
        let pictures = Self {
            examples,
            preprocessor,
            ways: ways
                .iter()
                .copied()
                .filter(|way| *way != Augmentation::None)
                .collect(),
            kept: examples.iter().map(|_| OnceLock::new()).collect(),
            budget,
        };
        let errors: Vec<Option<Error>> = (0..examples.len())
            .into_par_iter()
            .map(|index| {
                let error = pictures.keep(index).err();
                progress();
                error
            })
            .collect();
        match errors.into_iter().flatten().next() {
            None => Ok(pictures),
            Some(error) => Err(error),
        }
    }

    /// Whether a picture is the same each time.
    pub fn fixed(&self) -> bool {
        self.ways.is_empty()
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// `pixel_values [3, height, width]` of a picture, in a variation that `random` draws.
    pub fn pixel_values(&self, index: usize, random: &mut ChaCha8Rng) -> Result<Vec<f32>> {
        let fresh;
        let kept = match self.kept[index].get() {
            Some(kept) => kept,
            None => {
                fresh = self.decode(index)?;
                &fresh
            }
        };
        match kept {
            Kept::Pixels(pixels) => Ok(pixels.clone()),
            Kept::Source(source) => {
                let varied = source.vary(&self.ways, random)?;
                Ok(self.preprocessor.pixel_values(&varied))
            }
        }
    }

    fn keep(&self, index: usize) -> Result<()> {
        let kept = self.decode(index)?;
        let bytes = match &kept {
            Kept::Source(source) => source.bytes(),
            Kept::Pixels(pixels) => size_of_val(&pixels[..]),
        } as i64;
        if self.budget.fetch_sub(bytes, Ordering::Relaxed) >= bytes {
            // Each index is visited once.
            let _ = self.kept[index].set(kept);
        }
        Ok(())
    }

    fn decode(&self, index: usize) -> Result<Kept> {
        let Example { file, place, .. } = &self.examples[index];
        let named = |code, message: &dyn std::fmt::Display| {
            Error::new(code, format!("{place}: {}: {message}", file.display()))
        };
        let bytes = std::fs::read(file).map_err(|error| named(Code::BadImage, &error))?;
        let kept = if self.fixed() {
            preprocess::decode(&bytes)
                .map(|image| Kept::Pixels(self.preprocessor.pixel_values(&image)))
        } else {
            let Input::Fixed { height, width } = self.preprocessor.input() else {
                unreachable!("NaFlex isn't trained");
            };
            Source::decode(&bytes, (DETAIL * height.max(width)) as u32).map(Kept::Source)
        };
        kept.map_err(|error| named(error.code(), &error.message()))
    }
}
