//! What a WebP file's chunks say.

use super::kind::Kind;
use super::orientation::Metadata;
use crate::error::Result;

/// Flags of the extended header that announce metadata. libwebp, and so Pillow, goes by them.
const EXIF: u8 = 0x08;
const XMP: u8 = 0x04;

/// The metadata of a file; an error if it ends before it says, or a chunk ends after the file.
pub(super) fn metadata(bytes: &[u8]) -> Result<Metadata> {
    let cut_short = || Kind::WebP.cut_short();
    let u32_at = |at: usize| {
        bytes
            .get(at..)
            .and_then(|bytes| bytes.first_chunk())
            .map(|word| u32::from_le_bytes(*word) as usize)
    };
    let end = u32_at(4)
        .and_then(|size| size.checked_add(8))
        .filter(|&end| end <= bytes.len())
        .ok_or_else(cut_short)?;
    let mut metadata = Metadata::default();
    let mut flags = 0;
    let mut at = 12;
    while at + 8 <= end {
        let length = u32_at(at + 4).ok_or_else(cut_short)?;
        let data = bytes[..end]
            .get(at + 8..)
            .and_then(|data| data.get(..length))
            .ok_or_else(cut_short)?;
        match &bytes[at..at + 4] {
            b"VP8X" => flags = data.first().copied().unwrap_or(0),
            b"EXIF" if flags & EXIF != 0 && metadata.exif.is_none() => {
                metadata.exif = Some(data.to_vec())
            }
            b"XMP " if flags & XMP != 0 && metadata.xmp.is_none() => {
                metadata.xmp = Some(data.to_vec())
            }
            _ => {}
        }
        at += 8 + length + length % 2;
    }
    Ok(metadata)
}
