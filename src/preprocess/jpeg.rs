//! JPEG through `libjpeg-turbo-rs`, which decodes to libjpeg-turbo's very samples, as Pillow and browsers do.
//!
//! The crate is young. So sizes, memory and work are bounded from the headers before it sees a file, what it could
//! not decode as Pillow does is `unsupported`, and natively a panic of it becomes an error.

use libjpeg_turbo_rs::{DecodeLimits, DecodeWarning, Decoder, JpegError, PixelFormat};

use super::image::check_size;
use super::kind::Kind;
use super::memory::{allocate, check_memory, no_memory};
use super::orientation::Metadata;
use super::pixels::{cmyk_into_rgb, gray_into_rgb};
use crate::error::{Error, Result};

/// Most scans of a file. Encoders write ten or so.
const MAX_SCANS: usize = 1000;
/// Most times that the scans may come to a block of 8 × 8 samples: a decoder needs some 10 ns for each, whatever the
/// file's size. The largest picture without subsampling has 5 million blocks.
const MAX_VISITS: u64 = 100_000_000;
/// Bytes after the last scan's data that Pillow's decoder wants to see before it believes in their end.
const LOOK_AHEAD: usize = 4;

/// A component of the frame, as its header declares it.
#[derive(Clone, Copy)]
struct Component {
    id: u8,
    /// Horizontal and vertical sampling factor.
    sampling: (u64, u64),
}

/// What the markers of a file say.
#[derive(Default)]
struct Headers {
    /// Marker code of the frame header.
    frame: u8,
    precision: u8,
    width: u32,
    height: u32,
    components: Vec<Component>,
    scans: usize,
    /// How often the scans come to a block of 8 × 8 samples, all scans together.
    visits: u64,
    /// Whether the first scan holds all components.
    interleaved: bool,
    /// Whether an end-of-image marker follows the scans.
    ended: bool,
    /// What stands before the first scan: EXIF segments joined, the last XMP packet.
    metadata: Metadata,
}

impl Headers {
    /// Walks the markers; `None` if the file ends before its first scan.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut headers = Self::default();
        let mut at = 2;
        loop {
            // Stuffed zeros, restarts and fill bytes are part of the data between segments.
            let Some(&[0xff, marker]) = bytes.get(at..at + 2) else {
                if at + 2 > bytes.len() {
                    break;
                }
                at += 1;
                continue;
            };
            match marker {
                0xd9 if headers.scans > 0 => {
                    headers.ended = true;
                    break;
                }
                0xd9 => break,
                0xff => at += 1,
                0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
                _ => {
                    let Some(&[high, low]) = bytes.get(at + 2..at + 4) else {
                        break;
                    };
                    let length = usize::from(u16::from_be_bytes([high, low])).max(2);
                    let Some(segment) = bytes.get(at + 4..at + 2 + length) else {
                        break;
                    };
                    headers.segment(marker, segment);
                    at += 2 + length;
                }
            }
        }
        (headers.scans > 0).then_some(headers)
    }

    fn segment(&mut self, marker: u8, segment: &[u8]) {
        match marker {
            0xc4 | 0xc8 | 0xcc => {}
            // A second frame header: the decoder refuses the file.
            0xc0..=0xcf if self.frame != 0 => {}
            0xc0..=0xcf => {
                self.frame = marker;
                let [precision, h0, h1, w0, w1, _, components @ ..] = segment else {
                    return;
                };
                self.precision = *precision;
                self.height = u32::from(u16::from_be_bytes([*h0, *h1]));
                self.width = u32::from(u16::from_be_bytes([*w0, *w1]));
                self.components = components
                    .as_chunks::<3>()
                    .0
                    .iter()
                    .map(|&[id, sampling, _]| Component {
                        id,
                        sampling: (u64::from(sampling >> 4), u64::from(sampling & 15)),
                    })
                    .collect();
            }
            0xda => {
                let count = segment.first().copied().map_or(0, usize::from);
                let selectors = segment.get(1..).unwrap_or(&[]).as_chunks::<2>().0;
                let blocks = selectors.iter().take(count).filter_map(|selector| {
                    let component = self.components.iter().find(|c| c.id == selector[0])?;
                    Some(self.blocks(*component))
                });
                self.visits += blocks.sum::<u64>();
                self.scans += 1;
                if self.scans == 1 {
                    self.interleaved = count == self.components.len();
                }
            }
            0xe1 if self.scans == 0 => {
                if segment.starts_with(b"Exif\0\0") {
                    let joined = self.metadata.exif.get_or_insert_default();
                    joined.extend_from_slice(&segment[if joined.is_empty() { 0 } else { 6 }..]);
                } else if let Some(packet) = segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0")
                {
                    self.metadata.xmp = Some(packet.to_vec());
                }
            }
            _ => {}
        }
    }

    /// The largest horizontal and vertical sampling factor.
    fn largest(&self) -> (u64, u64) {
        let largest = |factor: fn(&Component) -> u64| {
            self.components.iter().map(factor).max().unwrap_or(1).max(1)
        };
        (largest(|c| c.sampling.0), largest(|c| c.sampling.1))
    }

    /// Blocks of one component, with those that fill up the last units of all components.
    fn blocks(&self, component: Component) -> u64 {
        let (horizontal, vertical) = self.largest();
        let columns = u64::from(self.width).div_ceil(8 * horizontal) * component.sampling.0;
        columns * u64::from(self.height).div_ceil(8 * vertical) * component.sampling.1
    }

    fn all_blocks(&self) -> u64 {
        self.components
            .iter()
            .map(|&component| self.blocks(component))
            .sum()
    }

    /// Refuses what is too large, what the decoder is not asked to read, and files without their data.
    fn check(&self, bytes: &[u8]) -> Result<()> {
        check_size(self.width, self.height)?;
        match self.frame {
            0xc0..=0xc2 => {}
            0xc9 | 0xca => return Err(unsupported("it is arithmetic-coded")),
            0xc3 | 0xcb => return Err(unsupported("it is of the lossless kind")),
            _ => return Err(unsupported("it is hierarchical")),
        }
        if self.precision != 8 {
            return Err(unsupported(&format!(
                "it has {} bits per sample",
                self.precision
            )));
        }
        if !matches!(self.components.len(), 1 | 3 | 4) {
            return Err(unsupported(&format!(
                "it has {} components",
                self.components.len()
            )));
        }
        let factors = self
            .components
            .iter()
            .flat_map(|c| [c.sampling.0, c.sampling.1]);
        if !factors.clone().all(|factor| (1..=4).contains(&factor)) {
            return Err(unsupported("its sampling factors are out of range"));
        }
        // Its upsampling of four components is not libjpeg's, and panics where the last one is small.
        let sampling = self.components[0].sampling;
        if self.components.len() == 4 && self.components.iter().any(|c| c.sampling != sampling) {
            return Err(unsupported("it has four components in several resolutions"));
        }
        let progressive = self.frame == 0xc2;
        if !self.ended && (progressive || !self.interleaved) {
            return Err(Kind::Jpeg.cut_short());
        }
        // Every block has a bit of its own at least. Where these can't be there, no time goes into gray.
        if self.all_blocks() / 8 > bytes.len() as u64 {
            return Err(Kind::Jpeg.cut_short());
        }
        if self.scans > MAX_SCANS || self.visits > MAX_VISITS {
            return Err(Error::bad_image(format!(
                "the JPEG picture of {} × {} pixels comes in {} scans, too many to decode; save it again",
                self.width, self.height, self.scans
            )));
        }
        Ok(())
    }

    /// Most bytes held while decoding, where the result takes `output`.
    fn memory(&self, output: u64) -> u64 {
        let samples = 64 * self.all_blocks();
        let coefficients = if self.frame == 0xc2 {
            2 * samples + samples / 64
        } else {
            0
        };
        let pixels = u64::from(self.width) * u64::from(self.height);
        // RGB and CMYK are brought to full size in planes of their own.
        let (horizontal, vertical) = self.largest();
        let smaller = self
            .components
            .iter()
            .filter(|c| c.sampling != (horizontal, vertical))
            .count() as u64;
        output + samples + coefficients + smaller * pixels
    }
}

/// Decodes a file that begins as a JPEG: the pixels as they are stored, and what says which way up they are.
pub(super) fn decode(bytes: &[u8]) -> Result<(u32, u32, Vec<u8>, Metadata)> {
    let headers = Headers::read(bytes).ok_or_else(|| Kind::Jpeg.cut_short())?;
    headers.check(bytes)?;
    let (width, height) = (headers.width, headers.height);
    let (format, channels) = match headers.components.len() {
        1 => (PixelFormat::Grayscale, 1),
        3 => (PixelFormat::Rgb, 3),
        _ => (PixelFormat::Cmyk, 4),
    };
    let pixels = u64::from(width) * u64::from(height);
    check_memory(
        Kind::Jpeg,
        (width, height),
        headers.memory(pixels * channels.max(3)),
    )?;
    let mut samples = allocate(pixels * channels.max(3))?;
    samples.resize((pixels * channels) as usize, 0);
    guarded(|| decode_into(bytes, &headers, format, &mut samples))?;
    match channels {
        1 => gray_into_rgb(&mut samples)?,
        3 => {}
        _ => cmyk_into_rgb(&mut samples),
    }
    Ok((width, height, samples, headers.metadata))
}

/// Runs the decoder. A panic of it is an error; in the browser, where it can't be caught, it would trap.
#[cfg(not(target_family = "wasm"))]
fn guarded(decode: impl FnOnce() -> Result<()>) -> Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(unsupported("its decoder failed")))
}

/// Runs the decoder.
#[cfg(target_family = "wasm")]
fn guarded(decode: impl FnOnce() -> Result<()>) -> Result<()> {
    decode()
}

fn decode_into(
    bytes: &[u8],
    headers: &Headers,
    format: PixelFormat,
    samples: &mut [u8],
) -> Result<()> {
    // The data of a single scan may end without a marker, if something follows.
    let bytes = match headers.ended {
        true => bytes,
        false => &bytes[..bytes.len().saturating_sub(LOOK_AHEAD)],
    };
    let limits = DecodeLimits {
        max_scans: MAX_SCANS,
        ..DecodeLimits::default()
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(refused)?;
    let frame = decoder.header();
    let same = u32::from(frame.width) == headers.width
        && u32::from(frame.height) == headers.height
        && frame.components.len() == headers.components.len();
    if !same {
        return Err(unsupported("it has more than one frame"));
    }
    decoder.set_output_format(format);
    // As libjpeg does, damaged data become what they become, if the file has its end.
    decoder.set_lenient(headers.ended);
    decoder.set_block_smoothing(true);
    let info = decoder.decode_image_into(samples).map_err(refused)?;
    let recovered = info
        .warnings
        .iter()
        .any(|warning| matches!(warning, DecodeWarning::UnsupportedRecovered { .. }));
    if recovered || info.bytes_written != samples.len() {
        return Err(unsupported("its sampling factors are unusual"));
    }
    Ok(())
}

fn unsupported(why: &str) -> Error {
    Error::unsupported(format!(
        "this kind of JPEG picture can't be decoded here ({why}); save it again as JPEG or PNG"
    ))
}

fn refused(error: JpegError) -> Error {
    match error {
        JpegError::Unsupported(why) => unsupported(&why),
        JpegError::UnexpectedEof => Kind::Jpeg.cut_short(),
        JpegError::AllocationFailed { bytes, .. } => no_memory(bytes),
        error => Kind::Jpeg.damaged(error),
    }
}
