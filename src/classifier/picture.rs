//! A picture as a caller has it.

use super::cache;
use crate::error::Result;
use crate::preprocess::{self, Image};

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
    /// Of its content.
    pub(super) fn key(&self) -> u128 {
        match self {
            Picture::Encoded(bytes) => cache::key(&[bytes]),
            Picture::Rgba {
                width,
                height,
                pixels,
            } => cache::key(&[&width.to_le_bytes(), &height.to_le_bytes(), pixels]),
        }
    }

    pub(super) fn decode(&self) -> Result<Image> {
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
