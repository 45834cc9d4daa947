//! Encoded bytes to 8-bit RGB, upright.

use std::fmt;
use std::hint::black_box;
use std::io::{Cursor, ErrorKind};

use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::orientation::Orientation;
use super::{Image, check_size};
use crate::error::{Error, Result};

/// The level of gray that transparent pixels show.
pub(super) const WHITE: u8 = 255;
/// Most bytes that decoding may hold beside the file: what a 32-bit heap can give next to a model.
const MAX_DECODE_BYTES: u64 = 768 << 20;
/// Most bytes that a decoder may spend on metadata and rows.
const MAX_DECODER_BYTES: u64 = 512 << 20;

/// What the first bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    /// A picture in a format that this crate doesn't read: its name.
    Foreign(&'static str),
    /// Not a picture: what it looks like.
    Other(&'static str),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Foreign(name) | Self::Other(name) => name,
        })
    }
}

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
    Ok(Image { width, height, rgb })
}

/// An empty vector that has room for `bytes` bytes.
pub(super) fn allocate(bytes: u64) -> Result<Vec<u8>> {
    let mut vec = Vec::new();
    usize::try_from(bytes)
        .ok()
        .and_then(|bytes| vec.try_reserve_exact(bytes).ok())
        .ok_or_else(|| {
            Error::out_of_memory(format!(
                "no {} MiB of memory left to decode the picture; make it smaller",
                bytes >> 20
            ))
        })?;
    Ok(vec)
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

/// What a file is, by its first bytes.
fn sniff(bytes: &[u8]) -> Kind {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    if starts(b"\xff\xd8\xff") {
        return Kind::Jpeg;
    }
    if starts(b"\x89PNG\r\n\x1a\n") {
        return Kind::Png;
    }
    if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Kind::WebP;
    }
    if starts(b"GIF87a") || starts(b"GIF89a") {
        return Kind::Gif;
    }
    if starts(b"BM") && bytes.get(6..10) == Some(&[0; 4]) {
        return Kind::Bmp;
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return match bytes.get(8..12) {
            Some(b"avif" | b"avis") => Kind::Foreign("AVIF"),
            Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1") => {
                // The generic brands are shared by AVIF, which then comes among the compatible ones.
                let brands = &bytes[..bytes.len().min(64)];
                if brands.windows(4).any(|brand| brand == b"avif") {
                    Kind::Foreign("AVIF")
                } else {
                    Kind::Foreign("HEIC")
                }
            }
            Some(b"crx ") => Kind::Foreign("raw camera"),
            _ => Kind::Other("a video"),
        };
    }
    const FOREIGN: [(&[u8], &str); 17] = [
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"\0\0\x01\0", "ICO"),
        (b"\0\0\x02\0", "CUR"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"II\xbc", "JPEG XR"),
        (b"8BPS", "Photoshop"),
        (b"qoif", "QOI"),
        (b"DDS ", "DDS"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
        (b"gimp xcf", "GIMP"),
        (b"#?RADIANCE", "Radiance HDR"),
    ];
    for (magic, name) in FOREIGN {
        if starts(magic) {
            return Kind::Foreign(name);
        }
    }
    if let [b'P', b'1'..=b'7', space, ..] = bytes
        && space.is_ascii_whitespace()
    {
        return Kind::Foreign("PNM");
    }
    const OTHER: [(&[u8], &str); 6] = [
        (b"%PDF", "a PDF document"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "gzip-compressed data"),
        (b"\x1a\x45\xdf\xa3", "a video"),
        (b"ID3", "a sound"),
        (b"RIFF", "a video or sound"),
    ];
    for (magic, name) in OTHER {
        if starts(magic) {
            return Kind::Other(name);
        }
    }
    sniff_text(bytes)
}

/// What a file is that has no known magic number: SVG and HTML are known by their tags.
fn sniff_text(bytes: &[u8]) -> Kind {
    if bytes.is_empty() {
        return Kind::Other("an empty file");
    }
    let head = &bytes[..bytes.len().min(4096)];
    // UTF-16 as Latin letters, near enough to look for tags.
    let text: Vec<u8> = if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        head[2..]
            .iter()
            .copied()
            .filter(|&byte| byte != 0)
            .collect()
    } else {
        head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).to_vec()
    };
    if text
        .iter()
        .any(|&byte| byte < b' ' && !byte.is_ascii_whitespace())
    {
        return Kind::Other("unknown data");
    }
    let text = text.trim_ascii_start().to_ascii_lowercase();
    let find = |tag: &[u8]| text.windows(tag.len()).position(|window| window == tag);
    let svg = find(b"<svg").or_else(|| find(b":svg"));
    let html = find(b"<html").or_else(|| find(b"<!doctype html"));
    match (svg, html) {
        _ if !text.starts_with(b"<") => Kind::Other("text"),
        (Some(svg), html) if html.is_none_or(|html| svg < html) => Kind::Foreign("SVG"),
        (_, Some(_)) => Kind::Other("an HTML page"),
        _ => Kind::Other("text"),
    }
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

/// Decoded samples to RGB, in place where that is possible.
fn into_rgb(mut samples: Vec<u8>, color: ColorType, background: u8) -> Result<Vec<u8>> {
    if matches!(
        color,
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16
    ) {
        halve_depth(&mut samples);
    }
    match color.channel_count() {
        1 => {
            let mut rgb = allocate(samples.len() as u64 * 3)?;
            rgb.extend(samples.iter().flat_map(|&gray| [gray; 3]));
            Ok(rgb)
        }
        2 => {
            let mut rgb = allocate(samples.len() as u64 / 2 * 3)?;
            let pixels = samples.as_chunks::<2>().0;
            rgb.extend(
                pixels
                    .iter()
                    .flat_map(|&[gray, alpha]| [over(gray, alpha, background); 3]),
            );
            Ok(rgb)
        }
        3 => Ok(samples),
        _ => {
            rgba_into_rgb(&mut samples, background);
            Ok(samples)
        }
    }
}

/// 16-bit samples in the machine's byte order to 8 bits: `value / 257`, rounded.
fn halve_depth(samples: &mut Vec<u8>) {
    let count = samples.len() / 2;
    for index in 0..count {
        let value = u16::from_ne_bytes([samples[2 * index], samples[2 * index + 1]]);
        samples[index] = ((u32::from(value) + 128) / 257) as u8;
    }
    samples.truncate(count);
}

/// RGBA with straight alpha to RGB over a gray background.
pub(super) fn rgba_into_rgb(samples: &mut Vec<u8>, background: u8) {
    let count = samples.len() / 4;
    for index in 0..count {
        let [red, green, blue, alpha] = [0, 1, 2, 3].map(|channel| samples[4 * index + channel]);
        let rgb = [red, green, blue].map(|sample| over(sample, alpha, background));
        samples[3 * index..][..3].copy_from_slice(&rgb);
    }
    samples.truncate(count * 3);
    samples.shrink_to_fit();
}

/// A sample with this alpha over an opaque background, rounded as `PIL.Image.alpha_composite` does
/// (`src/libImaging/AlphaComposite.c`: 7 fraction bits, division by 255 by shifts).
fn over(sample: u8, alpha: u8, background: u8) -> u8 {
    let [sample, alpha, background] = [sample, alpha, background].map(u32::from);
    let sum = (sample * alpha + background * (255 - alpha) + 128) << 7;
    (((sum >> 8) + sum) >> 8 >> 7) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_over_a_background_is_the_rounded_blend() {
        for background in [WHITE, 0, 93] {
            for alpha in 0..=255 {
                for sample in 0..=255 {
                    let [s, a, b] = [sample, alpha, background].map(f64::from);
                    let exact = (s * a + b * (255.0 - a)) / 255.0;
                    let error = (f64::from(over(sample, alpha, background)) - exact).abs();
                    assert!(error <= 0.5, "{sample} {alpha} {background}");
                }
                assert_eq!(over(background, alpha, background), background);
            }
        }
    }

    #[test]
    fn sixteen_bits_scale_to_eight() {
        for value in 0..=u16::MAX {
            let mut samples = value.to_ne_bytes().to_vec();
            halve_depth(&mut samples);
            assert_eq!(samples, [(f64::from(value) / 257.0).round() as u8]);
        }
    }

    #[test]
    fn formats_are_told_apart_by_their_first_bytes() {
        let cases: [(&[u8], Kind); 22] = [
            (b"\xff\xd8\xff\xe0", Kind::Jpeg),
            (b"\x89PNG\r\n\x1a\n", Kind::Png),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Kind::WebP),
            (b"RIFF\x10\0\0\0WAVEfmt ", Kind::Other("a video or sound")),
            (b"GIF89a", Kind::Gif),
            (b"BM\x46\0\0\0\0\0\0\0", Kind::Bmp),
            (b"BMW is a car maker", Kind::Other("text")),
            (b"\0\0\0\x20ftypavif\0\0\0\0", Kind::Foreign("AVIF")),
            (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif", Kind::Foreign("AVIF")),
            (b"\0\0\0\x18ftypheic\0\0\0\0", Kind::Foreign("HEIC")),
            (b"\0\0\0\x18ftypmp42\0\0\0\0", Kind::Other("a video")),
            (b"II*\0\x08\0\0\0", Kind::Foreign("TIFF")),
            (b"MM\0*\0\0\0\x08", Kind::Foreign("TIFF")),
            (b"\0\0\x01\0\x01\0", Kind::Foreign("ICO")),
            (b"\xff\x0a\xfa", Kind::Foreign("JPEG XL")),
            (b"P6\n1 1\n255\n", Kind::Foreign("PNM")),
            (
                b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<svg xmlns",
                Kind::Foreign("SVG"),
            ),
            (b"\xff\xfe<\0s\0v\0g\0 \0", Kind::Foreign("SVG")),
            (b"  <!DOCTYPE HTML><html><svg>", Kind::Other("an HTML page")),
            (b"{\"error\": 404}", Kind::Other("text")),
            (b"", Kind::Other("an empty file")),
            (b"\x01\x02\x03\x04", Kind::Other("unknown data")),
        ];
        for (bytes, kind) in cases {
            assert_eq!(sniff(bytes), kind, "{}", bytes.escape_ascii());
        }
    }
}
