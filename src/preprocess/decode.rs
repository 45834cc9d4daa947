//! Encoded bytes to 8-bit RGB, upright.

use std::hint::black_box;
use std::io::{Cursor, ErrorKind};

use image::{ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::image::{Image, check_size};
use super::kind::{Kind, sniff};
use super::memory::allocate;
use super::orientation::Orientation;
use super::pixels::{WHITE, into_rgb};
use crate::error::{Error, Result};

/// Most bytes that decoding may hold beside the file: what a 32-bit heap can give next to a model.
const MAX_DECODE_BYTES: u64 = 768 << 20;
/// Most bytes that a decoder may spend on metadata and rows.
const MAX_DECODER_BYTES: u64 = 512 << 20;

/// Decodes a JPEG, PNG, WebP, GIF or BMP file to an upright 8-bit RGB [`Image`].
///
/// Pixels are those of Pillow: EXIF (else XMP) orientation is applied; gray, palette, bilevel and CMYK are
/// converted as `convert("RGB")` does; alpha and transparent colours are laid over white with the rounding of
/// `alpha_composite`; 16-bit samples are scaled to 8 bits with rounding; of an animation, the first frame
/// on its canvas is taken. Colour profiles are ignored. Lossless formats and WebP decode to the very same
/// pixels (but for the rounding of 16-bit BMP); a JPEG may differ from libjpeg-turbo's by a few levels.
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
        Kind::Jpeg => ImageFormat::Jpeg,
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
    let failed = |error| decode_error(kind, error);

    // Before the PNG decoder reserves its rows.
    if kind == Kind::Png
        && let Some((width, height)) = png_size(bytes)
    {
        check_size(width, height)?;
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let pixels = u64::from(width) * u64::from(height);
    let size = decoder.total_bytes();
    let needed = size.max(pixels * 3) + inspect(kind, bytes, pixels)?;
    if needed > MAX_DECODE_BYTES {
        return Err(Error::bad_image(format!(
            "the {kind} picture of {width} × {height} pixels needs {} MiB to decode, and the limit is {} MiB; \
             make it smaller",
            needed >> 20,
            MAX_DECODE_BYTES >> 20,
        )));
    }
    // Decoders abort when an allocation fails, so ask first.
    drop(black_box(allocate(needed)?));

    let exif = decoder.exif_metadata().unwrap_or(None);
    let xmp = decoder.xmp_metadata().unwrap_or(None);
    let orientation = Orientation::from_metadata(exif.as_deref(), xmp.as_deref());
    let color = decoder.color_type();
    let mut samples = allocate(size)?;
    samples.resize(size as usize, 0);
    decoder.read_image(&mut samples).map_err(failed)?;
    if kind == Kind::Gif
        && let Some(color) = gif_canvas_color(bytes)
    {
        for pixel in samples.as_chunks_mut::<4>().0 {
            if pixel[3] == 0 {
                *pixel = [color[0], color[1], color[2], 255];
            }
        }
    }
    let rgb = into_rgb(samples, color, background)?;
    let (width, height, rgb) = orientation.apply(width, height, rgb)?;
    Image::from_rgb(width, height, rgb)
}

fn decode_error(kind: Kind, error: ImageError) -> Error {
    match error {
        ImageError::Unsupported(error) => Error::unsupported(format!(
            "this kind of {kind} picture can't be decoded here ({error}); save it again as JPEG or PNG"
        )),
        ImageError::Limits(_) => Error::bad_image(format!(
            "the {kind} picture needs too much memory to decode; make it smaller"
        )),
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => cut_short(kind),
        error => Error::bad_image(format!(
            "the {kind} picture is damaged ({error}); save or download it again"
        )),
    }
}

fn cut_short(kind: Kind) -> Error {
    Error::bad_image(format!(
        "the {kind} picture is cut short; save or download it again"
    ))
}

/// Width and height in a PNG's header.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let side = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    Some((side(16)?, side(20)?))
}

/// Rejects files that end too early where the decoder would make up the rest; else says how many bytes the
/// decoder holds beside its output, from above.
fn inspect(kind: Kind, bytes: &[u8], pixels: u64) -> Result<u64> {
    match kind {
        Kind::Jpeg => scan_jpeg(bytes, pixels).ok_or_else(|| cut_short(kind)),
        Kind::WebP => {
            let size = bytes.get(4..8).and_then(|size| size.try_into().ok());
            if size.is_none_or(|size| u32::from_le_bytes(size) as usize > bytes.len() - 8) {
                return Err(cut_short(kind));
            }
            // The planes or the ARGB words that the picture is made from.
            Ok(pixels * 4)
        }
        _ => Ok(0),
    }
}

/// Walks a JPEG's markers. `None` if no end-of-image marker follows its scans; else the bytes of coefficients
/// that are held until the end: none where the picture comes in one scan.
fn scan_jpeg(bytes: &[u8], pixels: u64) -> Option<u64> {
    let mut at = 2;
    let mut components = 0;
    let mut coefficients = 0;
    let mut scanned = false;
    let mut held = false;
    loop {
        // Stuffed zeros, restarts and fill bytes are part of the data between segments.
        let [0xff, marker] = *bytes.get(at..at + 2)? else {
            at += 1;
            continue;
        };
        match marker {
            0xd9 => return scanned.then_some(if held { coefficients } else { 0 }),
            0xff => at += 1,
            0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
            _ => {
                let length = bytes.get(at + 2..at + 4)?;
                let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                let segment = bytes.get(at + 4..at + 2 + length)?;
                match marker {
                    0xc4 | 0xc8 | 0xcc => {}
                    0xc0..=0xcf => {
                        held = marker & 3 == 2;
                        let sampling = segment.get(6..)?.chunks_exact(3);
                        components = sampling.len();
                        let areas = sampling.map(|c| u64::from(c[1] >> 4) * u64::from(c[1] & 15));
                        let largest = areas.clone().max().unwrap_or(0).max(1);
                        coefficients = (2 * pixels * areas.sum::<u64>()).div_ceil(largest);
                    }
                    0xda => {
                        scanned = true;
                        held |= usize::from(*segment.first()?) < components;
                    }
                    _ => {}
                }
                at += 2 + length;
            }
        }
    }
}

/// The colour of a GIF's canvas where its first frame doesn't cover it: as in Pillow, the first of the
/// frame's palette, or `None` (transparent) where the frame has a transparent colour.
fn gif_canvas_color(bytes: &[u8]) -> Option<[u8; 3]> {
    let palette_at = |at: usize, flags: u8| {
        if flags & 0x80 == 0 {
            return Some((None, at));
        }
        let end = at + (6 << (flags & 7));
        let color = bytes.get(at..end)?.first_chunk().copied();
        Some((color, end))
    };
    let (global, mut at) = palette_at(13, *bytes.get(10)?)?;
    loop {
        match *bytes.get(at)? {
            b'!' => {
                let graphic_control = *bytes.get(at + 1)? == 0xf9;
                if graphic_control && *bytes.get(at + 2)? >= 4 && *bytes.get(at + 3)? & 1 != 0 {
                    return None;
                }
                at += 2;
                // Sub-blocks, up to an empty one.
                loop {
                    let length = usize::from(*bytes.get(at)?);
                    at += 1 + length;
                    if length == 0 {
                        break;
                    }
                }
            }
            b',' => {
                let (local, _) = palette_at(at + 10, *bytes.get(at + 9)?)?;
                return local.or(global);
            }
            _ => return None,
        }
    }
}
