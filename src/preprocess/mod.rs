//! Picture files to the vision tower's input.
//!
//! [`decode`] turns the bytes of a file into an upright 8-bit RGB [`Image`]; a [`Preprocessor`], made from the
//! checkpoint's `preprocessor_config.json`, resizes it to exactly the model's size, or for a NaFlex model to whole
//! patches in the picture's own shape, and normalises it. The reference is transformers' `SiglipImageProcessorPil` or
//! `Siglip2ImageProcessorPil` over Pillow: from the same 8-bit RGB pixels, the same `f32` values come out, bit for bit.

mod bmp;
mod decode;
mod gif;
mod image;
mod jpeg;
mod kind;
mod memory;
mod orientation;
mod pixels;
mod png;
mod resize;
mod webp;

use serde::Deserialize;

pub use self::decode::{decode, decode_over};
pub use self::image::{Image, MAX_PIXELS};
use self::resize::{Filter, resize};
use crate::error::{Error, Result};
use crate::json;

/// Most pixels along one side of a model's input.
const MAX_MODEL_SIDE: u64 = 4096;

/// The most patches that a NaFlex model may be asked to see of a picture: four times as many as it was trained with.
pub const MAX_PATCHES: usize = 1024;

/// What `preprocessor_config.json` says, read as `SiglipImageProcessor` reads it: a key that is absent or null
/// has the class's default.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<serde_json::Value>,
    patch_size: Option<u64>,
    max_num_patches: Option<u64>,
    resample: Option<i64>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<PerChannel>,
    image_std: Option<PerChannel>,
    do_center_crop: Option<bool>,
    do_pad: Option<bool>,
    /// Where the file is a `processor_config.json`, which holds the tokenizer's options too.
    image_processor: Option<Box<Config>>,
}

/// One number for all channels, or one for each.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum PerChannel {
    All(f64),
    Each([f64; 3]),
}

impl PerChannel {
    /// In the precision that numpy computes with.
    fn to_f32(self) -> [f32; 3] {
        match self {
            Self::All(value) => [value as f32; 3],
            Self::Each(values) => values.map(|value| value as f32),
        }
    }
}

/// What pictures are resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// All to the same size, in pixels.
    Fixed {
        /// From top to bottom.
        height: usize,
        /// From left to right.
        width: usize,
    },
    /// Each to whole patches, in nearly its own shape (NaFlex).
    Patches {
        /// Height and width of a patch, in pixels.
        size: usize,
        /// How many there are at most.
        max: usize,
    },
}

impl Input {
    /// Height and width that a picture of `width × height` pixels is resized to.
    fn of(self, width: usize, height: usize) -> (usize, usize) {
        match self {
            Self::Fixed { height, width } => (height, width),
            Self::Patches { size, max } => {
                let side = |length: usize, scale: f64| {
                    let patches = (length as f64 * scale / size as f64).ceil();
                    (patches.max(1.0)) as usize * size
                };
                // As transformers searches for it, with its bounds and its precision.
                let precision = 1e-5;
                let (mut fits, mut too_large) = (precision / 10.0, 100.0);
                while too_large - fits >= precision {
                    let scale = (fits + too_large) / 2.0;
                    let patches = side(height, scale) / size * (side(width, scale) / size);
                    match patches <= max {
                        true => fits = scale,
                        false => too_large = scale,
                    }
                }
                (side(height, fits), side(width, fits))
            }
        }
    }
}

/// Makes a checkpoint's input of pictures: resizing, rescaling and normalising.
///
/// ```
/// # fn main() -> siglip_web::Result<()> {
/// use siglip_web::preprocess::{Image, Preprocessor};
///
/// let preprocessor = Preprocessor::from_json(br#"{"size": {"height": 224, "width": 224}}"#)?;
/// let white = Image::from_rgb(2, 1, vec![255; 6])?;
/// let pixels = preprocessor.pixel_values(&white);
/// assert_eq!(pixels.len(), 3 * 224 * 224); // [channels, height, width]
/// assert_eq!(pixels[0], 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Preprocessor {
    input: Input,
    filter: Filter,
    /// What each of the 256 levels of each channel becomes.
    levels: [[f32; 256]; 3],
}

impl Preprocessor {
    /// From the bytes of a checkpoint's `preprocessor_config.json` (or of a `processor_config.json` with an
    /// `image_processor` in it).
    ///
    /// Read are `size` (of NaFlex `patch_size` and `max_num_patches`), `resample`, `do_rescale`, `rescale_factor`, `do_normalize`, `image_mean` and
    /// `image_std`, with the defaults of transformers' `SiglipImageProcessor`. `do_convert_rgb` makes no
    /// difference: an [`Image`] is RGB.
    ///
    /// # Errors
    /// - `bad-model`: not JSON, a value of the wrong type or out of range, or a `size` that isn't a fixed height and
    ///   width.
    /// - `unsupported`: another image processor than SigLIP's, an unknown filter, no resizing, cropping or padding.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        const FILE: &str = "preprocessor_config.json";
        let bad = |what: String| Error::bad_model(format!("{FILE}: {what}"));
        let unsupported = |what: String| Error::unsupported(format!("{FILE}: {what}"));

        // An object first: serde would take an array's elements for the fields in order.
        let object: serde_json::Map<String, serde_json::Value> = json::parse(FILE, bytes)?;
        let mut config = Config::deserialize(serde_json::Value::Object(object))
            .map_err(|error| bad(error.to_string()))?;
        if let Some(inner) = config.image_processor.take() {
            config = *inner;
        }
        let class = config
            .image_processor_type
            .or(config.feature_extractor_type);
        let naflex = match class.as_deref() {
            None
            | Some(
                "SiglipImageProcessor"
                | "SiglipImageProcessorFast"
                | "SiglipImageProcessorPil"
                | "SiglipFeatureExtractor",
            ) => false,
            Some(
                "Siglip2ImageProcessor" | "Siglip2ImageProcessorFast" | "Siglip2ImageProcessorPil",
            ) => true,
            Some(class) => {
                return Err(unsupported(format!(
                    "the image processor {class} is unknown; SigLIP checkpoints have SiglipImageProcessor"
                )));
            }
        };
        if config.do_resize == Some(false) {
            return Err(unsupported(
                "do_resize is false, but pictures must be resized to the model's size".into(),
            ));
        }
        for (key, value) in [
            ("do_center_crop", config.do_center_crop),
            ("do_pad", config.do_pad),
        ] {
            if value == Some(true) {
                return Err(unsupported(format!(
                    "{key} is not something that SigLIP checkpoints ask for"
                )));
            }
        }
        let input = match (naflex, &config.size) {
            (true, _) => {
                let number = |key: &str, value: Option<u64>, default: u64, largest: u64| {
                    let value = value.unwrap_or(default);
                    match (1..=largest).contains(&value) {
                        true => Ok(value as usize),
                        false => Err(bad(format!("{key} is {value}, but must be from 1 to {largest}"))),
                    }
                };
                Input::Patches {
                    size: number("patch_size", config.patch_size, 16, MAX_MODEL_SIDE)?,
                    max: number("max_num_patches", config.max_num_patches, 256, MAX_PATCHES as u64)?,
                }
            }
            (false, None) => Input::Fixed {
                height: 224,
                width: 224,
            },
            (false, Some(size)) => fixed_size(size).ok_or_else(|| {
                bad(format!(
                    "size is {size}, but must be {{\"height\": …, \"width\": …}} with numbers from 1 to {MAX_MODEL_SIDE}"
                ))
            })?,
        };
        let resample = config.resample.unwrap_or(if naflex { 2 } else { 3 });
        let filter = Filter::from_pil(resample).ok_or_else(|| {
            unsupported(format!(
                "resample is {resample}; known are 0 to 5, as in Pillow"
            ))
        })?;
        let rescale = config.do_rescale.unwrap_or(true);
        let factor = config.rescale_factor.unwrap_or(1.0 / 255.0);
        let normalize = config.do_normalize.unwrap_or(true);
        let mean = config.image_mean.map_or([0.5; 3], PerChannel::to_f32);
        let std = config.image_std.map_or([0.5; 3], PerChannel::to_f32);

        // numpy's order and precision: u8 → f64, × factor, → f32, − mean, ÷ std.
        let mut levels = [[0.0; 256]; 3];
        for channel in 0..3 {
            for (level, value) in (0_u8..=255).zip(&mut levels[channel]) {
                *value = if rescale {
                    (f64::from(level) * factor) as f32
                } else {
                    f32::from(level)
                };
                if normalize {
                    *value = (*value - mean[channel]) / std[channel];
                }
            }
        }
        if !levels.as_flattened().iter().all(|value| value.is_finite()) {
            return Err(bad(
                "rescale_factor, image_mean and image_std give values that are not finite".into(),
            ));
        }
        Ok(Self {
            input,
            filter,
            levels,
        })
    }

    /// What pictures are resized to.
    pub fn input(&self) -> Input {
        self.input
    }

    /// Pillow's number of the filter that pictures are resized with: 2 is bilinear, 3 bicubic.
    pub fn resample(&self) -> u8 {
        self.filter as u8
    }

    /// With at most so many patches of a picture.
    ///
    /// # Errors
    /// `bad-input` if there are fewer than 1 or more than [`MAX_PATCHES`], or all pictures are resized to the same size.
    pub fn with_max_patches(mut self, count: usize) -> Result<Self> {
        match &mut self.input {
            Input::Patches { max, .. } if (1..=MAX_PATCHES).contains(&count) => *max = count,
            Input::Patches { .. } => {
                return Err(Error::bad_input(format!(
                    "maxPatches is {count}; a picture may have 1 to {MAX_PATCHES} patches"
                )));
            }
            Input::Fixed { height, width } => {
                return Err(Error::bad_input(format!(
                    "maxPatches is for NaFlex models; this one sees all pictures at {width} × {height} pixels: leave it out"
                )));
            }
        }
        Ok(self)
    }

    /// Height and width of the vision tower's input for this picture, in pixels.
    pub fn size(&self, image: &Image) -> (usize, usize) {
        self.input
            .of(image.width() as usize, image.height() as usize)
    }

    /// The vision tower's input for one picture: `[3, height, width]`, channel by channel, of the [`size`](Self::size) for it.
    pub fn pixel_values(&self, image: &Image) -> Vec<f32> {
        let from = (image.width() as usize, image.height() as usize);
        let (height, width) = self.size(image);
        let resized = resize(image.rgb(), from, (width, height), self.filter);
        let pixels = resized.as_chunks::<3>().0;
        let mut values = Vec::with_capacity(resized.len());
        for (channel, levels) in self.levels.iter().enumerate() {
            values.extend(
                pixels
                    .iter()
                    .map(|pixel| levels[usize::from(pixel[channel])]),
            );
        }
        values
    }
}

impl std::fmt::Debug for Preprocessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preprocessor")
            .field("input", &self.input)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

/// What `size` says, where it fixes both sides.
fn fixed_size(size: &serde_json::Value) -> Option<Input> {
    let sides = match size {
        serde_json::Value::Object(size) if size.len() == 2 => {
            [size.get("height")?, size.get("width")?]
        }
        serde_json::Value::Array(size) if size.len() == 2 => [&size[0], &size[1]],
        _ => return None,
    };
    let [height, width] = sides.map(|side| {
        side.as_u64()
            .filter(|side| (1..=MAX_MODEL_SIDE).contains(side))
    });
    Some(Input::Fixed {
        height: height? as usize,
        width: width? as usize,
    })
}
