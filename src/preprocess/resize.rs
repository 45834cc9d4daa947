//! Pillow's 8-bit resampling, bit for bit.
//!
//! The reference is `src/libImaging/Resample.c` (and `Geometry.c` for nearest): antialiased filters whose
//! weights are rounded to 22-bit fixed point, a horizontal and a vertical pass, each rounded to `u8`.

use std::f64::consts::PI;

/// Fraction bits of a weight: 32, less 8 for the sample and 2 for a sum that leaves `0..=255`.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// One half in fixed point, where every sum starts so that the final shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);
/// Samples per pixel: RGB.
const CHANNELS: usize = 3;

/// A resampling filter, as `PIL.Image.Resampling` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Nearest,
    Lanczos,
    Bilinear,
    Bicubic,
    Box,
    Hamming,
}

impl Filter {
    /// The filter with this number in `preprocessor_config.json`, if Pillow has one.
    pub(super) fn from_pil(resample: i64) -> Option<Self> {
        Some(match resample {
            0 => Self::Nearest,
            1 => Self::Lanczos,
            2 => Self::Bilinear,
            3 => Self::Bicubic,
            4 => Self::Box,
            5 => Self::Hamming,
            _ => return None,
        })
    }

    /// How far the filter reaches to either side, in output pixels (input pixels when enlarging).
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The weight at distance `x`, in Pillow's order of operations.
    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Nearest | Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming => {
                let x = x.abs();
                if x == 0.0 {
                    1.0
                } else if x >= 1.0 {
                    0.0
                } else {
                    let x = x * PI;
                    x.sin() / x * (f64::from(0.54_f32) + f64::from(0.46_f32) * x.cos())
                }
            }
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * PI;
    x.sin() / x
}

/// For every output position: where its input samples begin, and their weights.
struct Taps {
    /// `(first input sample, first weight)`, with one more entry for the end of the weights.
    starts: Vec<(usize, usize)>,
    weights: Vec<i32>,
}

impl Taps {
    fn new(filter: Filter, input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let inverse = 1.0 / filter_scale;
        let mut starts = Vec::with_capacity(output + 1);
        let mut weights = Vec::new();
        let mut row = Vec::new();
        for index in 0..output {
            let center = (index as f64 + 0.5) * scale;
            // `as` cuts towards zero, as C does; the half makes it round.
            let first = ((center - support + 0.5) as isize).max(0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            row.clear();
            row.extend((first..end).map(|x| filter.weight((x as f64 - center + 0.5) * inverse)));
            let sum: f64 = row.iter().sum();
            starts.push((first, weights.len()));
            weights.extend(row.iter().map(|&weight| {
                let weight = if sum != 0.0 { weight / sum } else { weight };
                let fixed = weight * f64::from(1 << PRECISION_BITS);
                (if fixed < 0.0 {
                    fixed - 0.5
                } else {
                    fixed + 0.5
                }) as i32
            }));
        }
        starts.push((input, weights.len()));
        Self { starts, weights }
    }

    /// The first input sample and the weights of output position `index`.
    fn get(&self, index: usize) -> (usize, &[i32]) {
        let (first, begin) = self.starts[index];
        (first, &self.weights[begin..self.starts[index + 1].1])
    }

    /// The input sample after the last that output position `index` needs.
    fn end(&self, index: usize) -> usize {
        let (first, weights) = self.get(index);
        first + weights.len()
    }
}

/// Fixed point to a sample.
fn clip8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Resamples an RGB image (`[height, width, 3]`, row by row) from `from` to `to`, both `(width, height)` and
/// not zero, over its whole area.
pub(super) fn resize(
    rgb: &[u8],
    from: (usize, usize),
    to: (usize, usize),
    filter: Filter,
) -> Vec<u8> {
    assert_eq!(rgb.len(), from.0 * from.1 * CHANNELS);
    assert!(from.0 > 0 && from.1 > 0 && to.0 > 0 && to.1 > 0);
    if from == to {
        return rgb.to_vec();
    }
    if filter == Filter::Nearest {
        return nearest(rgb, from, to);
    }
    // A pass that would not change the size is left out, as in Pillow.
    let horizontal = (from.0 != to.0).then(|| Taps::new(filter, from.0, to.0));
    let mut out = Vec::with_capacity(to.0 * to.1 * CHANNELS);
    let mut line = vec![0; to.0 * CHANNELS];
    if from.1 == to.1 {
        for row in rgb.chunks_exact(from.0 * CHANNELS) {
            resample_row(row, horizontal.as_ref(), &mut line);
            out.extend_from_slice(&line);
        }
        return out;
    }
    let vertical = Taps::new(filter, from.1, to.1);
    if vertical_first(from, to) {
        let stride = from.0 * CHANNELS;
        let mut sums = vec![0; stride];
        let mut row = vec![0; stride];
        for index in 0..to.1 {
            let (first, weights) = vertical.get(index);
            sums.fill(HALF);
            for (samples, &weight) in rgb[first * stride..].chunks_exact(stride).zip(weights) {
                add_row(&mut sums, samples, weight);
            }
            row.iter_mut()
                .zip(&sums)
                .for_each(|(sample, &sum)| *sample = clip8(sum));
            resample_row(&row, horizontal.as_ref(), &mut line);
            out.extend_from_slice(&line);
        }
        return out;
    }
    // Each row, once narrowed, is added to the output rows that it reaches, so that no image of the
    // input's height and the output's width is ever held. Integer sums don't depend on their order.
    let mut sums = vec![HALF; to.1 * line.len()];
    let mut reached = 0;
    for (y, row) in rgb.chunks_exact(from.0 * CHANNELS).enumerate() {
        resample_row(row, horizontal.as_ref(), &mut line);
        while reached < to.1 && vertical.end(reached) <= y {
            reached += 1;
        }
        for index in reached..to.1 {
            let (first, weights) = vertical.get(index);
            if first > y {
                break;
            }
            if let Some(&weight) = weights.get(y - first) {
                add_row(&mut sums[index * line.len()..][..line.len()], &line, weight);
            }
        }
    }
    out.extend(sums.into_iter().map(clip8));
    out
}

/// Whether Pillow 13 runs the vertical pass first: where the height shrinks by more than twice what the width
/// does. Earlier versions never do, so their pixels of tall pictures may differ by a level.
fn vertical_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let shrinks = |axis: fn((usize, usize)) -> usize| axis(from) as isize - axis(to) as isize;
    let (width, height) = (shrinks(|size| size.0), shrinks(|size| size.1));
    height > 0 && height > 2 * width
}

/// Adds one row's share to an output row's sums.
fn add_row(sums: &mut [i32], samples: &[u8], weight: i32) {
    for (sum, &sample) in sums.iter_mut().zip(samples) {
        *sum = sum.wrapping_add(i32::from(sample).wrapping_mul(weight));
    }
}

/// The horizontal pass over one row.
fn resample_row(row: &[u8], taps: Option<&Taps>, out: &mut [u8]) {
    let Some(taps) = taps else {
        out.copy_from_slice(row);
        return;
    };
    for (index, pixel) in out.chunks_exact_mut(CHANNELS).enumerate() {
        let (first, weights) = taps.get(index);
        let samples = &row[first * CHANNELS..][..weights.len() * CHANNELS];
        let mut sums = [HALF; CHANNELS];
        for (sample, &weight) in samples.chunks_exact(CHANNELS).zip(weights) {
            for channel in 0..CHANNELS {
                let product = i32::from(sample[channel]).wrapping_mul(weight);
                sums[channel] = sums[channel].wrapping_add(product);
            }
        }
        pixel.copy_from_slice(&sums.map(clip8));
    }
}

/// Pillow's nearest neighbour: positions are summed up step by step, with that sum's rounding.
fn nearest(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    let positions = |input: usize, output: usize| -> Vec<usize> {
        let step = input as f64 / output as f64;
        let mut position = step * 0.5;
        (0..output)
            .map(|_| {
                let index = (position as usize).min(input - 1);
                position += step;
                index
            })
            .collect()
    };
    let columns = positions(from.0, to.0);
    let mut out = Vec::with_capacity(to.0 * to.1 * CHANNELS);
    for y in positions(from.1, to.1) {
        let row = &rgb[y * from.0 * CHANNELS..][..from.0 * CHANNELS];
        for &x in &columns {
            out.extend_from_slice(&row[x * CHANNELS..][..CHANNELS]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_an_even_reduction_are_symmetric_and_sum_to_one() {
        for filter in [
            Filter::Lanczos,
            Filter::Bilinear,
            Filter::Bicubic,
            Filter::Box,
            Filter::Hamming,
        ] {
            let taps = Taps::new(filter, 100, 25);
            let (_, middle) = taps.get(12);
            let mirrored: Vec<i32> = middle.iter().rev().copied().collect();
            assert_eq!(middle, mirrored, "{filter:?}");
            for index in 0..25 {
                let (first, weights) = taps.get(index);
                let sum: i32 = weights.iter().sum();
                assert!(
                    (sum - (1 << PRECISION_BITS)).abs() <= weights.len() as i32,
                    "{filter:?}"
                );
                assert!(first + weights.len() <= 100 && taps.end(index) <= 100);
            }
        }
    }

    #[test]
    fn a_plain_colour_stays_itself_at_every_size() {
        let color = [3, 128, 255];
        for from in [(1, 1), (1, 700), (700, 1), (5, 7), (333, 222)] {
            let rgb = color.repeat(from.0 * from.1);
            for to in [(1, 1), (16, 16), (17, 3), (224, 224)] {
                for filter in (0..6).filter_map(Filter::from_pil) {
                    let out = resize(&rgb, from, to, filter);
                    assert_eq!(out, color.repeat(to.0 * to.1), "{from:?} {to:?} {filter:?}");
                }
            }
        }
    }
}
