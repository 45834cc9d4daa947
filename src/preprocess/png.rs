//! PNG files as their chunks say: the metadata in them, and mended where Pillow reads what the decoder refuses.

use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

use super::memory::allocate;
use super::orientation::Metadata;
use crate::error::Result;

const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";
/// Most bytes of a text chunk's text, as in Pillow.
const MAX_TEXT: usize = 1 << 20;
/// Colour type of a picture with a palette.
const PALETTE: u8 = 3;

/// The chunks up to the end: name and data. The data of the last may be cut short.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = bytes.get(SIGNATURE.len()..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (name, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let data = &after[..length.min(after.len())];
        rest = if name == b"IEND" {
            &[]
        } else {
            after.get(length.saturating_add(4)..).unwrap_or(&[])
        };
        Some((*name, data))
    })
}

/// Width and height, if the header is there.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let (_, header) = chunks(bytes).next()?;
    let side = |at: usize| Some(u32::from_be_bytes(*header.get(at..)?.first_chunk()?));
    Some((side(0)?, side(4)?))
}

/// EXIF and XMP in any of the chunks where writers put them, before and after the picture.
pub(super) fn metadata(bytes: &[u8]) -> Metadata {
    let (mut exif, mut profile, mut xmp) = (None, None, None);
    for (name, data) in chunks(bytes) {
        if &name == b"eXIf" {
            exif = Some(data.to_vec());
            continue;
        }
        let Some((keyword, text)) = text(name, data) else {
            continue;
        };
        match keyword {
            b"exif" => exif = Some(text),
            b"Raw profile type exif" => profile = raw_profile(&text),
            b"XML:com.adobe.xmp" => xmp = Some(text),
            _ => {}
        }
    }
    Metadata {
        exif: exif.or(profile),
        xmp,
    }
}

/// Keyword and text of a text chunk.
fn text(name: [u8; 4], data: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let split = |data: &'_ [u8]| data.iter().position(|&byte| byte == 0);
    let inflate = |data: &[u8]| decompress_to_vec_zlib_with_limit(data, MAX_TEXT).ok();
    if !matches!(&name, b"tEXt" | b"zTXt" | b"iTXt") {
        return None;
    }
    let end = split(data)?;
    let (keyword, rest) = (&data[..end], &data[end + 1..]);
    if !matches!(
        keyword,
        b"exif" | b"Raw profile type exif" | b"XML:com.adobe.xmp"
    ) {
        return None;
    }
    let text = match &name {
        b"tEXt" => rest.to_vec(),
        b"zTXt" => inflate(rest.strip_prefix(b"\0")?)?,
        _ => {
            let [compressed, method, rest @ ..] = rest else {
                return None;
            };
            let rest = &rest[split(rest)? + 1..];
            let rest = &rest[split(rest)? + 1..];
            match (compressed, method) {
                (0, _) => rest.to_vec(),
                (_, 0) => inflate(rest)?,
                _ => return None,
            }
        }
    };
    Some((keyword, text))
}

/// ImageMagick's way: a name and a length in lines of their own, then hexadecimal digits.
fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|&byte| byte == b'\n').skip(3);
    let digits = lines.flatten().filter(|byte| !byte.is_ascii_whitespace());
    let digits: Option<Vec<u8>> = digits
        .map(|&digit| char::from(digit).to_digit(16).map(|digit| digit as u8))
        .collect();
    Some(
        digits?
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[high, low]| high << 4 | low)
            .collect(),
    )
}

/// Whether the file lacks its end or the colours that its palette should have.
pub(super) fn needs_mending(bytes: &[u8]) -> bool {
    let (mut palette, mut alphas, mut ended, mut paletted) = (0, 0, false, false);
    for (name, data) in chunks(bytes) {
        match &name {
            b"IHDR" => paletted = data.get(9) == Some(&PALETTE),
            b"PLTE" => palette = data.len(),
            b"tRNS" => alphas = data.len(),
            b"IEND" => ended = true,
            _ => {}
        }
    }
    !ended || paletted && (palette == 0 || palette % 3 != 0 || alphas > palette / 3)
}

/// The chunks that make the picture, as Pillow takes them: colours that are missing are black, the checksums of the
/// data don't count, and the end goes without saying.
pub(super) fn mend(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut mended = allocate(bytes.len() as u64 + 1024)?;
    mended.extend_from_slice(SIGNATURE);
    let mut add = |name: &[u8; 4], data: &[u8]| {
        mended.extend((data.len() as u32).to_be_bytes());
        mended.extend_from_slice(name);
        mended.extend_from_slice(data);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(name);
        checksum.update(data);
        mended.extend(checksum.finalize().to_be_bytes());
    };
    let (mut paletted, mut palette, mut alphas) = (false, None, None);
    let mut begun = false;
    for (name, data) in chunks(bytes) {
        match &name {
            b"IHDR" => {
                paletted = data.get(9) == Some(&PALETTE);
                add(&name, data);
            }
            b"PLTE" => palette = Some(data),
            b"tRNS" => alphas = Some(data),
            b"IDAT" => {
                if !begun && paletted {
                    let mut colors = palette.unwrap_or(&[]).to_vec();
                    colors.resize(256 * 3, 0);
                    add(b"PLTE", &colors);
                }
                if let Some(alphas) = alphas.filter(|_| !begun) {
                    add(b"tRNS", &alphas[..alphas.len().min(256)]);
                }
                begun = true;
                add(&name, data);
            }
            _ => {}
        }
    }
    add(b"IEND", b"");
    Ok(mended)
}
