//! PNG files as their chunks say: the metadata in them, and mended where Pillow reads what the decoder refuses.

use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::kind::Kind;
use super::memory::allocate;
use super::orientation::Metadata;
use crate::error::Result;

const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";
/// Most bytes of a text chunk's text, as in Pillow.
const MAX_TEXT: usize = 1 << 20;
/// Colour type of a picture with a palette.
const PALETTE: u8 = 3;

/// A chunk as the file has it. The data of the last may be cut short.
struct Chunk<'a> {
    name: [u8; 4],
    data: &'a [u8],
    /// `None` where the file ends before it.
    checksum: Option<u32>,
}

impl Chunk<'_> {
    fn is_damaged(&self) -> bool {
        self.checksum
            .is_some_and(|checksum| checksum != checksum_of(self.name, self.data))
    }
}

fn checksum_of(name: [u8; 4], data: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&name);
    checksum.update(data);
    checksum.finalize()
}

/// The chunks up to the end.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = bytes.get(SIGNATURE.len()..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (&name, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (data, after) = after.split_at(length.min(after.len()));
        let checksum = after.first_chunk().map(|&word| u32::from_be_bytes(word));
        rest = if &name == b"IEND" {
            &[]
        } else {
            after.get(4..).unwrap_or(&[])
        };
        Some(Chunk {
            name,
            data,
            checksum,
        })
    })
}

/// The chunks before the pixels.
fn header(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    chunks(bytes).take_while(|chunk| &chunk.name != b"IDAT")
}

/// The chunks of the pixels: Pillow reads on as long as they follow each other.
fn pixels(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    chunks(bytes)
        .skip_while(|chunk| &chunk.name != b"IDAT")
        .take_while(|chunk| &chunk.name == b"IDAT")
}

/// Refuses what Pillow does: a wrong checksum before the pixels. Whatever the chunk calls itself: it may have been the palette.
pub(super) fn check_header(bytes: &[u8]) -> Result<()> {
    match header(bytes).find(Chunk::is_damaged) {
        Some(Chunk { name, .. }) => Err(Kind::Png.damaged(format_args!(
            "the checksum of its chunk {} is wrong",
            name.escape_ascii()
        ))),
        None => Ok(()),
    }
}

/// Width and height, if the header is there.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = chunks(bytes).next()?.data;
    let side = |at: usize| Some(u32::from_be_bytes(*header.get(at..)?.first_chunk()?));
    Some((side(0)?, side(4)?))
}

/// EXIF and XMP in any of the chunks where writers put them, before and after the picture.
pub(super) fn metadata(bytes: &[u8]) -> Metadata {
    let (mut exif, mut profile, mut xmp) = (None, None, None);
    for Chunk { name, data, .. } in chunks(bytes) {
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
    for Chunk { name, data, .. } in chunks(bytes) {
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
/// pixels' chunks don't count if the pixels have their own, and the end goes without saying.
pub(super) fn mend(bytes: &[u8]) -> Result<Vec<u8>> {
    if pixels(bytes).any(|chunk| chunk.is_damaged()) && !pixels_are_whole(bytes) {
        return Err(Kind::Png.damaged("the checksum of its pixels is wrong"));
    }
    let mut mended = allocate(bytes.len() as u64 + 1024)?;
    mended.extend_from_slice(SIGNATURE);
    let mut add = |name: &[u8; 4], data: &[u8]| {
        mended.extend((data.len() as u32).to_be_bytes());
        mended.extend_from_slice(name);
        mended.extend_from_slice(data);
        mended.extend(checksum_of(*name, data).to_be_bytes());
    };
    let (mut paletted, mut palette, mut alphas) = (false, None, None);
    for Chunk { name, data, .. } in header(bytes) {
        match &name {
            b"IHDR" => {
                paletted = data.get(9) == Some(&PALETTE);
                add(&name, data);
            }
            b"PLTE" => palette = Some(data),
            b"tRNS" => alphas = Some(data),
            _ => {}
        }
    }
    if paletted {
        let mut colors = palette.unwrap_or(&[]).to_vec();
        colors.resize(256 * 3, 0);
        add(b"PLTE", &colors);
    }
    if let Some(alphas) = alphas {
        add(b"tRNS", &alphas[..alphas.len().min(256)]);
    }
    for chunk in pixels(bytes) {
        add(&chunk.name, chunk.data);
    }
    add(b"IEND", b"");
    Ok(mended)
}

/// Whether the pixels' own checksum, Adler-32 at the end of their stream, is there and right.
fn pixels_are_whole(bytes: &[u8]) -> bool {
    let (width, height) = size(bytes).unwrap_or((0, 0));
    // 64 bits a pixel and, interlaced, two rows with their filter for one.
    let mut room = (u64::from(width) * 8 + 2).saturating_mul(u64::from(height)) + 16;
    let mut state = InflateState::new_boxed(DataFormat::Zlib);
    let mut inflated = vec![0; 32 << 10];
    for chunk in pixels(bytes) {
        let mut data = chunk.data;
        loop {
            let step = inflate(&mut state, data, &mut inflated, MZFlush::None);
            data = &data[step.bytes_consumed..];
            let Some(left) = room.checked_sub(step.bytes_written as u64) else {
                return false;
            };
            room = left;
            match step.status {
                Ok(MZStatus::StreamEnd) => return true,
                Ok(_) => {}
                // All that the chunk has is used up.
                Err(MZError::Buf) => break,
                Err(_) => return false,
            }
        }
    }
    false
}
