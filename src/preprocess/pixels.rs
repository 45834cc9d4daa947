//! Decoded samples of any layout to 8-bit RGB.

use image::ColorType;

use super::memory::{allocate, reserve};
use crate::error::Result;

/// The level of gray that transparent pixels show.
pub(super) const WHITE: u8 = 255;
/// Decoded samples to RGB, in place where that is possible.
pub(super) fn into_rgb(mut samples: Vec<u8>, color: ColorType, background: u8) -> Result<Vec<u8>> {
    if matches!(
        color,
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16
    ) {
        halve_depth(&mut samples);
    }
    match color.channel_count() {
        1 => gray_into_rgb(&mut samples)?,
        2 => {
            let mut rgb = allocate(samples.len() as u64 / 2 * 3)?;
            let pixels = samples.as_chunks::<2>().0;
            rgb.extend(
                pixels
                    .iter()
                    .flat_map(|&[gray, alpha]| [over(gray, alpha, background); 3]),
            );
            return Ok(rgb);
        }
        3 => {}
        _ => rgba_into_rgb(&mut samples, background),
    }
    Ok(samples)
}

/// Gray to RGB.
pub(super) fn gray_into_rgb(samples: &mut Vec<u8>) -> Result<()> {
    let count = samples.len();
    reserve(samples, count as u64 * 3)?;
    samples.resize(count * 3, 0);
    // From the end, so that no sample is written over before it is read.
    for index in (0..count).rev() {
        let gray = samples[index];
        samples[3 * index..][..3].fill(gray);
    }
    Ok(())
}

/// CMYK as JPEG files store it, upside down, to RGB as Pillow does it (`cmyk2rgb` in `src/libImaging/Convert.c`).
pub(super) fn cmyk_into_rgb(samples: &mut Vec<u8>) {
    let count = samples.len() / 4;
    for index in 0..count {
        let [cyan, magenta, yellow, black] =
            [0, 1, 2, 3].map(|channel| u32::from(samples[4 * index + channel]));
        let rgb = [cyan, magenta, yellow].map(|ink| {
            let product = (255 - ink) * black + 128;
            (black - (((product >> 8) + product) >> 8)) as u8
        });
        samples[3 * index..][..3].copy_from_slice(&rgb);
    }
    samples.truncate(count * 3);
    samples.shrink_to_fit();
}

/// 16-bit samples in the machine's byte order to 8 bits: `value / 257`, rounded.
fn halve_depth(samples: &mut Vec<u8>) {
    let count = samples.len() / 2;
    for index in 0..count {
        let value = u16::from_ne_bytes([samples[2 * index], samples[2 * index + 1]]);
        samples[index] = ((u32::from(value) + 128) / 257) as u8;
    }
    samples.truncate(count);
}

/// RGBA with straight alpha to RGB over a gray background.
pub(super) fn rgba_into_rgb(samples: &mut Vec<u8>, background: u8) {
    let count = samples.len() / 4;
    for index in 0..count {
        let [red, green, blue, alpha] = [0, 1, 2, 3].map(|channel| samples[4 * index + channel]);
        let rgb = [red, green, blue].map(|sample| over(sample, alpha, background));
        samples[3 * index..][..3].copy_from_slice(&rgb);
    }
    samples.truncate(count * 3);
    samples.shrink_to_fit();
}

/// A sample with this alpha over an opaque background, rounded as `PIL.Image.alpha_composite` does
/// (`src/libImaging/AlphaComposite.c`: 7 fraction bits, division by 255 by shifts).
fn over(sample: u8, alpha: u8, background: u8) -> u8 {
    let [sample, alpha, background] = [sample, alpha, background].map(u32::from);
    let sum = (sample * alpha + background * (255 - alpha) + 128) << 7;
    (((sum >> 8) + sum) >> 8 >> 7) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_over_a_background_is_the_rounded_blend() {
        for background in [WHITE, 0, 93] {
            for alpha in 0..=255 {
                for sample in 0..=255 {
                    let [s, a, b] = [sample, alpha, background].map(f64::from);
                    let exact = (s * a + b * (255.0 - a)) / 255.0;
                    let error = (f64::from(over(sample, alpha, background)) - exact).abs();
                    assert!(error <= 0.5, "{sample} {alpha} {background}");
                }
                assert_eq!(over(background, alpha, background), background);
            }
        }
    }

    #[test]
    fn sixteen_bits_scale_to_eight() {
        for value in 0..=u16::MAX {
            let mut samples = value.to_ne_bytes().to_vec();
            halve_depth(&mut samples);
            assert_eq!(samples, [(f64::from(value) / 257.0).round() as u8]);
        }
    }
}
