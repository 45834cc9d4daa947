//! What Pillow makes of a GIF's first frame where the file leaves it open.

use super::memory::allocate;
use crate::error::Result;

/// Where things stand in a file, up to its first frame.
struct Outline {
    /// The global palette, without entries if there is none.
    palette: std::ops::Range<usize>,
    /// Whether the frame has a transparent colour.
    transparent: bool,
    /// The frame's descriptor: left, top, width, height, flags.
    frame: usize,
}

impl Outline {
    fn of(bytes: &[u8]) -> Option<Self> {
        let palette = palette_at(bytes, 13, *bytes.get(10)?)?;
        let mut at = palette.end;
        let mut transparent = false;
        loop {
            match *bytes.get(at)? {
                b'!' => {
                    let graphic_control = *bytes.get(at + 1)? == 0xf9;
                    transparent |=
                        graphic_control && *bytes.get(at + 2)? >= 4 && *bytes.get(at + 3)? & 1 != 0;
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
                    return Some(Self {
                        palette,
                        transparent,
                        frame: at + 1,
                    });
                }
                _ => return None,
            }
        }
    }

    /// The frame's own palette.
    fn local_palette(&self, bytes: &[u8]) -> Option<std::ops::Range<usize>> {
        palette_at(bytes, self.frame + 9, *bytes.get(self.frame + 8)?)
    }
}

/// The palette that begins at `at`, if `flags` say that there is one.
fn palette_at(bytes: &[u8], at: usize, flags: u8) -> Option<std::ops::Range<usize>> {
    let palette = at..at
        + if flags & 0x80 == 0 {
            0
        } else {
            6 << (flags & 7)
        };
    bytes.get(palette.clone()).map(|_| palette)
}

/// The colour of the canvas where the first frame doesn't cover it: the first of the frame's palette, or `None`
/// (transparent) where the frame has a transparent colour.
pub(super) fn canvas_color(bytes: &[u8]) -> Option<[u8; 3]> {
    let outline = Outline::of(bytes)?;
    let palette = outline
        .local_palette(bytes)
        .filter(|palette| !palette.is_empty());
    let palette = palette.unwrap_or(outline.palette.clone());
    if outline.transparent {
        return None;
    }
    bytes[palette].first_chunk().copied()
}

/// The file with a screen that holds its first frame and with a palette that has a colour for every pixel; `None` if it
/// needs neither. Colours that are missing are black, or gray where the others, if any, are the grays in their order:
/// such a palette is none to Pillow.
pub(super) fn mend(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some(outline) = Outline::of(bytes) else {
        return Ok(None);
    };
    let u16_at = |at: usize| {
        bytes
            .get(at..)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |word| u16::from_le_bytes(*word))
    };
    let [left, top, width, height] = [0, 2, 4, 6].map(|at| u16_at(outline.frame + at));
    let sides = [
        u16_at(6).max(left.saturating_add(width)),
        u16_at(8).max(top.saturating_add(height)),
    ];
    let Some(local) = outline.local_palette(bytes) else {
        return Ok(None);
    };
    // Pixels have as many bits as the first codes, which the palette may have fewer colours for.
    let pixels = bytes.get(local.end).map_or(0, |&bits| 1 << bits.min(8));
    let (flags, palette) = if local.is_empty() {
        (10, outline.palette)
    } else {
        (outline.frame + 8, local)
    };
    let missing = palette.len() / 3..256;
    let fill = pixels > missing.start;
    if sides == [u16_at(6), u16_at(8)] && !fill {
        return Ok(None);
    }
    let mut mended = allocate(bytes.len() as u64 + 768)?;
    mended.extend_from_slice(&bytes[..palette.end]);
    mended[6..10].copy_from_slice(sides.map(u16::to_le_bytes).as_flattened());
    if fill {
        let mut colors = bytes[palette.clone()].as_chunks().0.iter().zip(0..);
        let grays = colors.all(|(color, level)| *color == [level; 3]);
        mended.extend(missing.flat_map(|index| [if grays { index as u8 } else { 0 }; 3]));
        mended[flags] |= 0x87;
    }
    mended.extend_from_slice(&bytes[palette.end..]);
    Ok(Some(mended))
}
