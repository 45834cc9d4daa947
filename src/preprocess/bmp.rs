//! BMP as Pillow reads it where the decoder does otherwise: headers that it refuses, levels that it rounds.

use super::memory::allocate;
use crate::error::Result;

/// Length of the file header, which the bitmap's header follows.
const FILE_HEADER: usize = 14;

/// The file with its header in order; `None` if it is.
pub(super) fn mend(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some((header, colors)) = header(bytes) else {
        return Ok(None);
    };
    if header == bytes[..header.len()] {
        return Ok(None);
    }
    let mut mended = allocate(bytes.len() as u64)?;
    mended.extend_from_slice(&header);
    mended.extend_from_slice(&bytes[colors..]);
    Ok(Some(mended))
}

/// Both headers in order, and where the colours begin in `bytes`.
fn header(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let size = u32_at(FILE_HEADER)? as usize;
    if !matches!(size, 40 | 52 | 56 | 64 | 108 | 124) {
        return None;
    }
    let colors = FILE_HEADER + size;
    let mut header = bytes.get(..colors)?.to_vec();
    header[6..10].fill(0);
    // Planes mean nothing any more.
    header[26..28].copy_from_slice(&1_u16.to_le_bytes());
    let depth = u16::from_le_bytes([header[28], header[29]]);
    // OS/2's longer header begins as Windows' does.
    if size == 64 {
        header.truncate(FILE_HEADER + 40);
        header[FILE_HEADER..][..4].copy_from_slice(&40_u32.to_le_bytes());
        let offset = u32_at(10)?.saturating_sub(24);
        header[10..14].copy_from_slice(&offset.to_le_bytes());
    }
    if u32_at(10)? == 0 {
        let count = match (u32_at(46)?, depth) {
            (0, 1..=8) => 1 << depth,
            (_, 9..) => 0,
            (count, _) => count,
        };
        let masks = if size == 40 && u32_at(30)? == 3 {
            12
        } else {
            0
        };
        let offset = (header.len() as u64 + masks + 4 * u64::from(count)).min(u64::from(u32::MAX));
        header[10..14].copy_from_slice(&(offset as u32).to_le_bytes());
    }
    Some((header, colors))
}

/// The levels of 16-bit pixels: 5 or 6 bits become 8 by cutting off in Pillow, and by rounding in the decoder.
pub(super) fn cut_levels(bytes: &[u8], rgb: &mut [u8]) {
    let u16_at = |at: usize| {
        bytes
            .get(at..)
            .and_then(|bytes| bytes.first_chunk())
            .map(|word| u16::from_le_bytes(*word))
    };
    let short = u16_at(FILE_HEADER) == Some(12);
    if u16_at(if short { 24 } else { 28 }) != Some(16) {
        return;
    }
    // Of bit fields Pillow knows this one beside the usual 5, 5 and 5.
    let bitfields = !short && u16_at(30) == Some(3);
    let green = if bitfields && u16_at(58) == Some(0x07e0) {
        63
    } else {
        31
    };
    let cut = |highest: usize| -> [u8; 256] {
        std::array::from_fn(|level| ((level * highest + 127) / 255 * 255 / highest) as u8)
    };
    let levels = [cut(31), cut(green), cut(31)];
    for pixel in rgb.as_chunks_mut::<3>().0 {
        for (sample, levels) in pixel.iter_mut().zip(&levels) {
            *sample = levels[usize::from(*sample)];
        }
    }
}
