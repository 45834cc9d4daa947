//! Encoded bytes to 8-bit RGB, upright.

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};

use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::image::{Image, check_size};
use super::kind::{Kind, sniff};
use super::memory::{allocate, check_memory};
use super::orientation::{Metadata, Orientation};
use super::pixels::{WHITE, into_rgb};
use super::{bmp, gif, jpeg, png, webp};
use crate::error::{Error, Result};

/// Most bytes that a decoder may spend on metadata and rows.
const MAX_DECODER_BYTES: u64 = 512 << 20;

/// Decodes a JPEG, PNG, WebP, GIF or BMP file to an upright 8-bit RGB [`Image`].
///
/// Pixels are those of Pillow: EXIF (else XMP) orientation is applied; gray, palette, bilevel and CMYK are
/// converted as `convert("RGB")` does; alpha and transparent colours are laid over white with the rounding of
/// `alpha_composite`; 16-bit samples are scaled to 8 bits with rounding; of an animation, the first frame
/// on its canvas is taken. Colour profiles are ignored. All formats decode to the very same pixels.
///
/// # Errors
/// - `unsupported`: a picture in a format, or with a feature, that this crate doesn't read, such as AVIF, HEIC,
///   SVG, TIFF or arithmetic-coded JPEG. A browser may know it.
/// - `bad-image`: not a picture, damaged, cut short, or too large: over 100 megapixels, a side over a million
///   pixels, or more than 768 MiB to decode. Sizes are checked before pixels are decoded.
/// - `out-of-memory`: the memory that decoding needs can't be had.
pub fn decode(bytes: &[u8]) -> Result<Image> {
    decode_over(bytes, WHITE)
}

/// [`decode`] with another background than white: alpha is laid over this level of gray.
///
/// # Errors
/// As [`decode`].
pub fn decode_over(bytes: &[u8], background: u8) -> Result<Image> {
    let kind = sniff(bytes);
    let format = match kind {
        Kind::Jpeg => {
            let (width, height, rgb, metadata) = jpeg::decode(bytes)?;
            return upright(width, height, rgb, &metadata);
        }
        Kind::Png => ImageFormat::Png,
        Kind::WebP => ImageFormat::WebP,
        Kind::Gif => ImageFormat::Gif,
        Kind::Bmp => ImageFormat::Bmp,
        Kind::Foreign(name) => {
            return Err(Error::unsupported(format!(
                "{name} pictures can't be decoded here; save it as JPEG, PNG, WebP, GIF or BMP"
            )));
        }
        Kind::Other(name) => {
            return Err(Error::bad_image(format!(
                "not a picture but {name}; choose a JPEG, PNG, WebP, GIF or BMP file"
            )));
        }
    };
    let mut metadata = Metadata::default();
    let mut file = Cow::Borrowed(bytes);
    match kind {
        Kind::Png => {
            // Before the decoder reserves its rows.
            if let Some((width, height)) = png::size(bytes) {
                check_size(width, height)?;
            }
            png::check_header(bytes)?;
            metadata = png::metadata(bytes);
            if png::needs_mending(bytes) {
                file = Cow::Owned(png::mend(bytes)?);
            }
        }
        Kind::WebP => {
            metadata = webp::metadata(bytes)?;
            if let Some(mended) = webp::mend(bytes)? {
                file = Cow::Owned(mended);
            }
        }
        Kind::Gif => {
            if let Some(mended) = gif::mend(bytes)? {
                file = Cow::Owned(mended);
            }
        }
        _ => {
            if let Some(mended) = bmp::mend(bytes)? {
                file = Cow::Owned(mended);
            }
        }
    }
    let mut decoded = samples(kind, format, &file);
    if kind == Kind::Png
        && matches!(decoded, Err(Failure::Decoder(ImageError::Decoding(_))))
        && matches!(file, Cow::Borrowed(_))
    {
        file = Cow::Owned(png::mend(bytes)?);
        decoded = samples(kind, format, &file);
    }
    let (width, height, mut samples, color) =
        decoded.map_err(|failure| failure.into_error(kind))?;
    if kind == Kind::Gif
        && let Some(color) = gif::canvas_color(&file)
    {
        for pixel in samples.as_chunks_mut::<4>().0 {
            if pixel[3] == 0 {
                *pixel = [color[0], color[1], color[2], 255];
            }
        }
    }
    if kind == Kind::Bmp && color == ColorType::Rgb8 {
        bmp::cut_levels(bytes, &mut samples);
    }
    let rgb = into_rgb(samples, color, background)?;
    upright(width, height, rgb, &metadata)
}

/// The picture with its first row at the top.
fn upright(width: u32, height: u32, rgb: Vec<u8>, metadata: &Metadata) -> Result<Image> {
    let (width, height, rgb) = Orientation::from_metadata(metadata).apply(width, height, rgb)?;
    Image::from_rgb(width, height, rgb)
}

/// Width, height, samples and their layout, as the `image` crate decodes a file.
fn samples(
    kind: Kind,
    format: ImageFormat,
    file: &[u8],
) -> Result<(u32, u32, Vec<u8>, ColorType), Failure> {
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let pixels = u64::from(width) * u64::from(height);
    let size = decoder.total_bytes();
    // WebP is made from planes or ARGB words.
    let beside = if kind == Kind::WebP { pixels * 4 } else { 0 };
    check_memory(kind, (width, height), size.max(pixels * 3) + beside)?;
    let color = decoder.color_type();
    let mut samples = allocate(size)?;
    samples.resize(size as usize, 0);
    decoder.read_image(&mut samples)?;
    Ok((width, height, samples, color))
}

/// Why there are no samples.
enum Failure {
    Decoder(ImageError),
    Ours(Error),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::Decoder(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl Failure {
    fn into_error(self, kind: Kind) -> Error {
        match self {
            Self::Ours(error) => error,
            Self::Decoder(ImageError::Unsupported(error)) => Error::unsupported(format!(
                "this kind of {kind} picture can't be decoded here ({error}); save it again as JPEG or PNG"
            )),
            Self::Decoder(ImageError::Limits(_)) => Error::bad_image(format!(
                "the {kind} picture needs too much memory to decode; make it smaller"
            )),
            Self::Decoder(ImageError::IoError(error))
                if error.kind() == ErrorKind::UnexpectedEof =>
            {
                kind.cut_short()
            }
            Self::Decoder(error) => kind.damaged(error),
        }
    }
}
