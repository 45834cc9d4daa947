//! A decoded picture, and how large it may be.

use super::memory::allocate;
use super::pixels::{WHITE, rgba_into_rgb};
use super::resize::{Filter, resize};
use crate::error::{Error, Result};

/// Most pixels of a picture. Pillow warns of a decompression bomb a little below.
pub const MAX_PIXELS: u64 = 100_000_000;
/// Most pixels along one side.
const MAX_SIDE: u32 = 1_000_000;

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
    /// `bad-image` if a side is zero, the picture is larger than [`decode`](super::decode()) allows, or `rgba` isn't
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
        let mut rgb = allocate(expected)?;
        rgb.extend_from_slice(rgba);
        rgba_into_rgb(&mut rgb, WHITE);
        Ok(Self { width, height, rgb })
    }

    /// A picture from samples `[height, width, 3]`, row by row from the top: red, green, blue.
    ///
    /// # Errors
    /// `bad-image` if a side is zero, the picture is larger than [`decode`](super::decode()) allows, or `rgb` isn't `3 * width * height`
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
    /// `bad-image` for a size that [`decode`](super::decode()) doesn't allow.
    pub fn resize(&self, width: u32, height: u32) -> Result<Self> {
        self.resized(Filter::Bicubic, width, height)
    }

    /// The same with another of Pillow's filters, by its number ([`Preprocessor::resample`](super::Preprocessor::resample)). A preprocessor of that filter and size has
    /// nothing left to resize.
    ///
    /// # Errors
    /// As [`resize`](Self::resize); `bad-input` for a number that Pillow doesn't have.
    pub fn resize_with(&self, resample: u8, width: u32, height: u32) -> Result<Self> {
        let filter = Filter::from_pil(i64::from(resample))
            .ok_or_else(|| Error::bad_input(format!("resample is {resample}; known are 0 to 5")))?;
        self.resized(filter, width, height)
    }

    fn resized(&self, filter: Filter, width: u32, height: u32) -> Result<Self> {
        check_size(width, height)?;
        let from = (self.width as usize, self.height as usize);
        let to = (width as usize, height as usize);
        let rgb = resize(&self.rgb, from, to, filter);
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

    /// The same with an opaque alpha: `width · height` times red, green, blue, 255.
    pub fn to_rgba(&self) -> Vec<u8> {
        let pixels = self.rgb.as_chunks::<3>().0;
        pixels
            .iter()
            .flat_map(|[r, g, b]| [*r, *g, *b, 255])
            .collect()
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} × {})", self.width, self.height)
    }
}

/// Rejects pictures without pixels and those too large to handle safely.
pub(super) fn check_size(width: u32, height: u32) -> Result<()> {
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
