//! Which way up a picture is, as its EXIF or XMP metadata says.

use super::memory::allocate;
use crate::error::Result;

/// Columns turned into rows at a time.
const STRIP: usize = 32;

/// How the stored rows and columns lie, named by where the stored first row and first column belong
/// (the EXIF tag's values 1 to 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orientation {
    /// Rows and columns change places first.
    transpose: bool,
    /// Then left and right change places.
    flip_x: bool,
    /// Then top and bottom change places.
    flip_y: bool,
}

impl Orientation {
    /// The orientation with this EXIF value; what is not 1 to 8 changes nothing.
    fn from_exif_value(value: u32) -> Self {
        let (transpose, flip_x, flip_y) = match value {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, true, false),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => (false, false, false),
        };
        Self {
            transpose,
            flip_x,
            flip_y,
        }
    }

    /// From the metadata blocks of a file: EXIF where it names an orientation, else XMP, as
    /// `PIL.ImageOps.exif_transpose` does. Damaged metadata count as absent.
    pub(super) fn from_metadata(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Self {
        let value = exif
            .and_then(exif_orientation)
            .or_else(|| xmp.and_then(xmp_orientation));
        Self::from_exif_value(value.unwrap_or(1))
    }

    /// Lays out an RGB image (`width` × `height`, row by row) upright; returns it with its new size.
    /// `out-of-memory` if turning it needs a copy that can't be held.
    pub(super) fn apply(
        self,
        width: u32,
        height: u32,
        mut rgb: Vec<u8>,
    ) -> Result<(u32, u32, Vec<u8>)> {
        let (columns, rows) = (width as usize, height as usize);
        if self.transpose {
            let mut upright = allocate(rgb.len() as u64)?;
            upright.resize(rgb.len(), 0);
            // In strips of stored columns, so that reads and writes stay within the cache.
            for strip in (0..columns).step_by(STRIP) {
                for (y, row) in rgb.chunks_exact(columns * 3).enumerate() {
                    let to_x = if self.flip_x { rows - 1 - y } else { y };
                    let strip_end = columns.min(strip + STRIP);
                    for (x, pixel) in (strip..).zip(row[strip * 3..strip_end * 3].chunks_exact(3)) {
                        let to_y = if self.flip_y { columns - 1 - x } else { x };
                        upright[(to_y * rows + to_x) * 3..][..3].copy_from_slice(pixel);
                    }
                }
            }
            return Ok((height, width, upright));
        }
        match (self.flip_x, self.flip_y) {
            (false, false) => {}
            (true, true) => rgb.as_chunks_mut::<3>().0.reverse(),
            (true, false) => {
                for row in rgb.chunks_exact_mut(columns * 3) {
                    row.as_chunks_mut::<3>().0.reverse();
                }
            }
            (false, true) => {
                let (top, bottom) = rgb.split_at_mut(rows / 2 * columns * 3);
                let top = top.chunks_exact_mut(columns * 3);
                let bottom = bottom.chunks_exact_mut(columns * 3).rev();
                top.zip(bottom).for_each(|(a, b)| a.swap_with_slice(b));
            }
        }
        Ok((width, height, rgb))
    }
}

/// The value of tag 0x0112 (Orientation) in the first directory of an EXIF block.
fn exif_orientation(exif: &[u8]) -> Option<u32> {
    // Some writers of PNG and WebP keep JPEG's prefix.
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        })
    };
    let u32_at = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        })
    };
    let directory = u32_at(4)? as usize;
    let count = usize::from(u16_at(directory)?);
    for index in 0..count {
        let entry = directory.checked_add(2 + index * 12)?;
        if u16_at(entry)? != 0x0112 {
            continue;
        }
        if u32_at(entry + 4)? != 1 {
            return None;
        }
        return match u16_at(entry + 2)? {
            1 => tiff.get(entry + 8).map(|&byte| u32::from(byte)),
            3 => u16_at(entry + 8).map(u32::from),
            4 => u32_at(entry + 8),
            _ => None,
        };
    }
    None
}

/// The digit of `tiff:Orientation="…"` or `<tiff:Orientation>…` in an XMP packet.
fn xmp_orientation(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    for at in xmp
        .windows(NAME.len())
        .enumerate()
        .filter(|(_, window)| *window == NAME)
        .map(|(at, _)| at)
    {
        let rest = &xmp[at + NAME.len()..];
        let value = rest
            .strip_prefix(b"=\"")
            .or_else(|| rest.strip_prefix(b">"));
        if let Some(digit @ b'0'..=b'9') = value.and_then(|value| value.first()) {
            return Some(u32::from(digit - b'0'));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_orientation_lays_the_picture_upright() {
        // 3 × 2 pixels a b c / d e f, each pixel three equal bytes.
        let stored: Vec<u8> = b"abcdef".iter().flat_map(|&p| [p; 3]).collect();
        let expected: [(u32, &str); 9] = [
            (3, "abcdef"),
            (3, "abcdef"),
            (3, "cbafed"),
            (3, "fedcba"),
            (3, "defabc"),
            (2, "adbecf"),
            (2, "daebfc"),
            (2, "fcebda"),
            (2, "cfbead"),
        ];
        for (value, (width, pixels)) in (0..).zip(expected) {
            let upright = Orientation::from_exif_value(value).apply(3, 2, stored.clone());
            let rgb: Vec<u8> = pixels.bytes().flat_map(|p| [p; 3]).collect();
            assert_eq!(upright, Ok((width, 6 / width, rgb)), "orientation {value}");
        }
    }

    #[test]
    fn exif_is_read_in_both_byte_orders_and_goes_before_xmp() {
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        let xmp = br#"<x tiff:Orientation="3"/>"#;
        assert_eq!(exif_orientation(little), Some(6));
        assert_eq!(exif_orientation(big), Some(8));
        assert_eq!(exif_orientation(&[b"Exif\0\0", &big[..]].concat()), Some(8));
        assert_eq!(xmp_orientation(xmp), Some(3));
        assert_eq!(
            xmp_orientation(b"<tiff:Orientation>5</tiff:Orientation>"),
            Some(5)
        );
        let from = Orientation::from_metadata;
        assert_eq!(
            from(Some(little), Some(xmp)),
            Orientation::from_exif_value(6)
        );
        assert_eq!(from(None, Some(xmp)), Orientation::from_exif_value(3));
        assert_eq!(from(Some(b"II"), None), Orientation::from_exif_value(1));
    }

    #[test]
    fn damaged_metadata_count_as_absent() {
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        for end in 0..18 {
            assert_eq!(exif_orientation(&little[..end]), None, "{end} bytes");
        }
        assert_eq!(exif_orientation(b"II*\0\xff\xff\xff\xff"), None);
        assert_eq!(xmp_orientation(b"tiff:Orientation"), None);
        assert_eq!(xmp_orientation(b"tiff:Orientation=\"x"), None);
    }
}
