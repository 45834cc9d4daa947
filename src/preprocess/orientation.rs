//! Which way up a picture is, as its EXIF or XMP metadata says.

use super::memory::allocate;
use crate::error::Result;

/// Columns turned into rows at a time.
const STRIP: usize = 32;

/// The metadata blocks of a file. EXIF goes before XMP where it names an orientation, as in
/// `PIL.ImageOps.exif_transpose`; damaged metadata count as absent.
#[derive(Default)]
pub(super) struct Metadata {
    pub(super) exif: Option<Vec<u8>>,
    pub(super) xmp: Option<Vec<u8>>,
}

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

    /// What the metadata of a file say.
    pub(super) fn from_metadata(metadata: &Metadata) -> Self {
        let exif = metadata.exif.as_deref().and_then(exif_orientation);
        let value = exif.or_else(|| metadata.xmp.as_deref().and_then(xmp_orientation));
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

/// The value of tag 0x0112 (Orientation) in the first directory of an EXIF block, read as Pillow's
/// `TiffImagePlugin` does: any type of number, the first of several; 0 if it is none.
fn exif_orientation(exif: &[u8]) -> Option<u32> {
    // Some writers keep JPEG's prefix, or write it twice.
    let prefix = b"Exif\0\0";
    let tiff = exif.strip_prefix(prefix).unwrap_or(exif);
    let tiff = tiff.strip_prefix(prefix).unwrap_or(tiff);
    let little = match tiff.get(..4)? {
        b"II*\0" | b"II\0*" => true,
        b"MM\0*" | b"MM*\0" => false,
        _ => return None,
    };
    /// `N` bytes at `at`, the least significant first.
    fn word<const N: usize>(tiff: &[u8], at: usize, little: bool) -> Option<[u8; N]> {
        let mut bytes: [u8; N] = *tiff.get(at..)?.first_chunk()?;
        if !little {
            bytes.reverse();
        }
        Some(bytes)
    }
    let u16_at = |at: usize| word(tiff, at, little).map(u16::from_le_bytes);
    let u32_at = |at: usize| word(tiff, at, little).map(u32::from_le_bytes);
    let directory = u32_at(4)? as usize;
    let entries = usize::from(u16_at(directory)?);
    for index in 0..entries {
        let entry = directory.checked_add(2 + index * 12)?;
        let end = tiff.get(entry + 8..entry + 12).map(|_| entry + 8)?;
        let (tag, kind, count) = (
            u16_at(entry)?,
            u16_at(entry + 2)?,
            u64::from(u32_at(entry + 4)?),
        );
        let size = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16 => 8,
            _ => continue,
        };
        // Four bytes stand in the entry, more elsewhere.
        let at = match count * size {
            0 => continue,
            1..=4 => end,
            bytes if bytes > tiff.len() as u64 => continue,
            bytes => {
                let at = u32_at(end)? as usize;
                tiff.get(at..)?.get(..bytes as usize)?;
                at
            }
        };
        if tag != 0x0112 {
            continue;
        }
        let signed = |value: i64| u32::try_from(value).unwrap_or(0);
        let real = |value: f64| {
            if value.fract() == 0.0 {
                value as u32
            } else {
                0
            }
        };
        return match kind {
            3 => u16_at(at).map(u32::from),
            4 | 13 => u32_at(at),
            6 => tiff.get(at).map(|&byte| signed(i64::from(byte as i8))),
            8 => u16_at(at).map(|value| signed(i64::from(value as i16))),
            9 => u32_at(at).map(|value| signed(i64::from(value as i32))),
            5 | 10 => {
                let (above, below) = (u32_at(at)?, u32_at(at + 4)?);
                Some(if below != 0 && above % below == 0 {
                    above / below
                } else {
                    0
                })
            }
            11 => u32_at(at).map(|bits| real(f64::from(f32::from_bits(bits)))),
            12 => word(tiff, at, little).map(|bytes| real(f64::from_le_bytes(bytes))),
            16 => word(tiff, at, little)
                .map(|bytes| u32::try_from(u64::from_le_bytes(bytes)).unwrap_or(0)),
            _ => Some(0),
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
        let from = |exif: Option<&[u8]>, xmp: Option<&[u8]>| {
            Orientation::from_metadata(&Metadata {
                exif: exif.map(<[u8]>::to_vec),
                xmp: xmp.map(<[u8]>::to_vec),
            })
        };
        assert_eq!(
            from(Some(little), Some(xmp)),
            Orientation::from_exif_value(6)
        );
        assert_eq!(from(None, Some(xmp)), Orientation::from_exif_value(3));
        assert_eq!(from(Some(b"II"), None), Orientation::from_exif_value(1));
    }

    #[test]
    fn exif_is_read_as_pillow_reads_it() {
        // Type, count and value of the tag; whether Pillow turns the picture, for a value of 6.
        let entry = |kind: u8, count: u8, value: &[u8; 4], tail: &[u8]| {
            let head = [0x12, 1, kind, 0, count, 0, 0, 0];
            [
                &b"II*\0\x08\0\0\0\x01\0"[..],
                &head,
                value,
                b"\0\0\0\0",
                tail,
            ]
            .concat()
        };
        let at_tail = &[26, 0, 0, 0];
        for (exif, value) in [
            (entry(1, 1, b"\x06\0\0\0", b""), Some(0)),
            (entry(2, 1, b"6\0\0\0", b""), Some(0)),
            (entry(3, 0, b"\x06\0\0\0", b""), None),
            (entry(3, 1, b"\x06\0\x01\0", b""), Some(6)),
            (entry(3, 2, b"\x06\0\x01\0", b""), Some(6)),
            (entry(3, 3, at_tail, b"\x06\0\x01\0\x01\0"), Some(6)),
            (entry(3, 3, at_tail, b"\x06\0\x01\0\x01"), None),
            (entry(4, 1, b"\x06\0\0\0", b""), Some(6)),
            (entry(4, 1, b"\x06\0\x01\0", b""), Some(0x10006)),
            (entry(5, 1, at_tail, b"\x0c\0\0\0\x02\0\0\0"), Some(6)),
            (entry(6, 1, b"\x06\0\0\0", b""), Some(6)),
            (entry(7, 1, b"\x06\0\0\0", b""), Some(0)),
            (entry(9, 1, b"\x06\0\0\0", b""), Some(6)),
            (entry(11, 1, &6_f32.to_le_bytes(), b""), Some(6)),
            (entry(12, 1, at_tail, &6_f64.to_le_bytes()), Some(6)),
            (entry(77, 1, b"\x06\0\0\0", b""), None),
        ] {
            assert_eq!(exif_orientation(&exif), value, "{}", exif.escape_ascii());
        }
        // Of two entries the first counts, and what comes before an entry that is cut off.
        let two = b"II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0";
        assert_eq!(exif_orientation(two), Some(6));
        assert_eq!(exif_orientation(&two[..30]), Some(6));
        assert_eq!(
            exif_orientation(&[b"Exif\0\0Exif\0\0", &two[..]].concat()),
            Some(6)
        );
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
