//! Picture files to the vision tower's input.
//!
//! [`decode`] turns the bytes of a file into an upright 8-bit RGB [`Image`]; a [`Preprocessor`], made from the
//! checkpoint's `preprocessor_config.json`, resizes it to exactly the model's size and normalises it. The
//! reference is transformers' `SiglipImageProcessorPil` over Pillow: from the same 8-bit RGB pixels, the same
//! `f32` values come out, bit for bit.

mod decode;
mod orientation;
mod resize;

use serde::Deserialize;

pub use self::decode::{decode, decode_over};
use self::resize::{Filter, resize};
use crate::error::{Error, Result};
use crate::json;

/// Most pixels of a picture. Pillow warns of a decompression bomb a little below.
const MAX_PIXELS: u64 = 100_000_000;
/// Most pixels along one side.
const MAX_SIDE: u32 = 1_000_000;
/// Most pixels along one side of a model's input.
const MAX_MODEL_SIDE: u64 = 4096;

/// An upright picture with 8 bits each of red, green and blue.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Image {
    /// A picture from `width × height` pixels of red, green, blue and straight (not premultiplied) alpha, row by
    /// row from the top, as a canvas's `ImageData` has them. Alpha is laid over white.
    ///
    /// # Errors
    /// `bad-image` if a side is zero, the picture is larger than [`decode`] allows, or `rgba` isn't
    /// `4 * width * height` bytes long; `out-of-memory` if its copy can't be held.
    pub fn from_rgba(width: u32, height: u32, rgba: &[u8]) -> Result<Self> {
        check_size(width, height)?;
        let expected = u64::from(width) * u64::from(height) * 4;
        if rgba.len() as u64 != expected {
            return Err(Error::bad_image(format!(
                "{width} × {height} RGBA pixels take {expected} bytes, but {} were given",
                rgba.len()
            )));
        }
        let mut rgb = decode::allocate(expected)?;
        rgb.extend_from_slice(rgba);
        decode::rgba_into_rgb(&mut rgb, decode::WHITE);
        Ok(Self { width, height, rgb })
    }

    /// A picture from samples `[height, width, 3]`, row by row from the top: red, green, blue.
    ///
    /// # Errors
    /// `bad-image` if a side is zero, the picture is larger than [`decode`] allows, or `rgb` isn't `3 * width * height`
    /// bytes long.
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        check_size(width, height)?;
        let expected = u64::from(width) * u64::from(height) * 3;
        if rgb.len() as u64 != expected {
            return Err(Error::bad_image(format!(
                "{width} × {height} RGB pixels take {expected} bytes, but {} were given",
                rgb.len()
            )));
        }
        Ok(Self { width, height, rgb })
    }

    /// The picture squashed or stretched to another size, with Pillow's bicubic filter.
    ///
    /// # Errors
    /// `bad-image` for a size that [`decode`] doesn't allow.
    pub fn resize(&self, width: u32, height: u32) -> Result<Self> {
        check_size(width, height)?;
        let from = (self.width as usize, self.height as usize);
        let to = (width as usize, height as usize);
        let rgb = resize(&self.rgb, from, to, Filter::Bicubic);
        Ok(Self { width, height, rgb })
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Samples `[height, width, 3]`, row by row from the top: red, green, blue.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} × {})", self.width, self.height)
    }
}

/// Rejects pictures without pixels and those too large to handle safely.
fn check_size(width: u32, height: u32) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::bad_image(format!(
            "a picture of {width} × {height} pixels has nothing to see"
        )));
    }
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(Error::bad_image(format!(
            "the picture has {width} × {height} pixels, and the limit is {MAX_SIDE} along a side; make it smaller"
        )));
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS {
        return Err(Error::bad_image(format!(
            "the picture has {width} × {height} pixels ({} megapixels), and the limit is {} megapixels; \
             make it smaller",
            pixels.div_ceil(1_000_000),
            MAX_PIXELS / 1_000_000,
        )));
    }
    Ok(())
}

/// What `preprocessor_config.json` says, read as `SiglipImageProcessor` reads it: a key that is absent or null
/// has the class's default.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<serde_json::Value>,
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

/// Makes a checkpoint's input of pictures: resizing to a fixed size, rescaling and normalising.
#[derive(Clone)]
pub struct Preprocessor {
    height: usize,
    width: usize,
    filter: Filter,
    /// What each of the 256 levels of each channel becomes.
    levels: [[f32; 256]; 3],
}

impl Preprocessor {
    /// From the bytes of a checkpoint's `preprocessor_config.json` (or of a `processor_config.json` with an
    /// `image_processor` in it).
    ///
    /// Read are `size`, `resample`, `do_rescale`, `rescale_factor`, `do_normalize`, `image_mean` and
    /// `image_std`, with the defaults of transformers' `SiglipImageProcessor`. `do_convert_rgb` makes no
    /// difference: an [`Image`] is RGB.
    ///
    /// # Errors
    /// - `bad-model`: not JSON, a value of the wrong type or out of range, or a `size` that isn't a fixed height and
    ///   width.
    /// - `unsupported`: another image processor than SigLIP's (among them SigLIP 2's NaFlex), an unknown filter, no
    ///   resizing, cropping or padding.
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
        match class.as_deref() {
            None
            | Some(
                "SiglipImageProcessor"
                | "SiglipImageProcessorFast"
                | "SiglipImageProcessorPil"
                | "SiglipFeatureExtractor",
            ) => {}
            Some(
                class @ ("Siglip2ImageProcessor"
                | "Siglip2ImageProcessorFast"
                | "Siglip2ImageProcessorPil"),
            ) => {
                return Err(unsupported(format!(
                    "{class} is for NaFlex checkpoints, whose input has no fixed size; use a checkpoint of a fixed \
                     resolution, such as google/siglip2-base-patch16-224"
                )));
            }
            Some(class) => {
                return Err(unsupported(format!(
                    "the image processor {class} is unknown; SigLIP checkpoints have SiglipImageProcessor"
                )));
            }
        }
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
        let (height, width) = match &config.size {
            None => (224, 224),
            Some(size) => fixed_size(size).ok_or_else(|| {
                bad(format!(
                    "size is {size}, but must be {{\"height\": …, \"width\": …}} with numbers from 1 to {MAX_MODEL_SIDE}"
                ))
            })?,
        };
        let resample = config.resample.unwrap_or(3);
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
            height,
            width,
            filter,
            levels,
        })
    }

    /// Height and width of the model's input, in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// The vision tower's input for one picture: `[3, height, width]`, channel by channel.
    pub fn pixel_values(&self, image: &Image) -> Vec<f32> {
        let from = (image.width as usize, image.height as usize);
        let resized = resize(&image.rgb, from, (self.width, self.height), self.filter);
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
            .field("height", &self.height)
            .field("width", &self.width)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

/// `(height, width)` where `size` fixes both.
fn fixed_size(size: &serde_json::Value) -> Option<(usize, usize)> {
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
    Some((height? as usize, width? as usize))
}
