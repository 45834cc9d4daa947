//! BMP headers that Pillow reads and the decoder refuses, written as it wants them.

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
