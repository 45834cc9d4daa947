//! What a WebP file's chunks say, and mended where the decoder goes by a flag that libwebp, and so Pillow, doesn't believe.

use std::ops::Range;

use super::kind::Kind;
use super::memory::allocate;
use super::orientation::Metadata;
use crate::error::Result;

/// Flags of the extended header that announce metadata. libwebp goes by them.
const EXIF: u8 = 0x08;
const XMP: u8 = 0x04;
/// Flags of the extended header that say what the picture is.
const ALPHA: u8 = 0x10;
const ANIMATED: u8 = 0x02;
/// The extended header's flags, if the first chunk is one.
const FLAGS_AT: usize = 20;
/// The flag of an animation's frame that replaces what is below it.
const NO_BLENDING: u8 = 0x02;

/// The chunks up to the end: name and where the data are; an error if the file ends before it says, or a chunk ends
/// after the file.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Result<([u8; 4], Range<usize>)>> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let end = u32_at(4)
        .and_then(|size| size.checked_add(8))
        .filter(|&end| end <= bytes.len());
    let mut at = Some(12);
    std::iter::from_fn(move || {
        let start = at.take()?;
        let Some(end) = end else {
            return Some(Err(Kind::WebP.cut_short()));
        };
        let data = start + 8;
        if data > end {
            return None;
        }
        let name = *bytes.get(start..)?.first_chunk()?;
        let length = u32_at(start + 4)?;
        if length > end - data {
            return Some(Err(Kind::WebP.cut_short()));
        }
        at = Some(data + length + length % 2);
        Some(Ok((name, data..data + length)))
    })
}

/// The metadata of a file; an error as of [`chunks`].
pub(super) fn metadata(bytes: &[u8]) -> Result<Metadata> {
    let mut metadata = Metadata::default();
    let mut flags = 0;
    for chunk in chunks(bytes) {
        let (name, range) = chunk?;
        let data = &bytes[range];
        match &name {
            b"VP8X" => flags = data.first().copied().unwrap_or(0),
            b"EXIF" if flags & EXIF != 0 && metadata.exif.is_none() => {
                metadata.exif = Some(data.to_vec())
            }
            b"XMP " if flags & XMP != 0 && metadata.xmp.is_none() => {
                metadata.xmp = Some(data.to_vec())
            }
            _ => {}
        }
    }
    Ok(metadata)
}

/// The file with flags that say what its first picture is; `None` if they do, or there are none.
pub(super) fn mend(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some((at, flags)) = mended_flags(bytes) else {
        return Ok(None);
    };
    if bytes[at] == flags {
        return Ok(None);
    }
    let mut mended = allocate(bytes.len() as u64)?;
    mended.extend_from_slice(bytes);
    mended[at] = flags;
    Ok(Some(mended))
}

/// Where the flags are that decide how the first picture is shown, and what they should be.
fn mended_flags(bytes: &[u8]) -> Option<(usize, u8)> {
    let mut chunks = chunks(bytes).map_while(Result::ok);
    let (header, range) = chunks.next()?;
    if &header != b"VP8X" || range.is_empty() {
        return None;
    }
    let flags = bytes[FLAGS_AT];
    if flags & ANIMATED != 0 {
        // Below the first frame there is nothing: it isn't blended, which would round even what is opaque.
        let (_, frame) = chunks.find(|(name, _)| name == b"ANMF")?;
        let at = frame.start + 15;
        return frame.contains(&at).then(|| (at, bytes[at] | NO_BLENDING));
    }
    let mut has_plane = false;
    for (name, range) in chunks {
        let alpha = match &name {
            b"ALPH" => {
                has_plane = true;
                continue;
            }
            // A plane that isn't announced is none.
            b"VP8 " => flags & ALPHA != 0 && has_plane,
            b"VP8L" => bytes[range].get(4)? & 0x10 != 0,
            _ => continue,
        };
        let others = flags & !ALPHA;
        return Some((FLAGS_AT, if alpha { others | ALPHA } else { others }));
    }
    None
}
