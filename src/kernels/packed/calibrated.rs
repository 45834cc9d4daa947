//! Packing in q4 with the inputs in mind: each number is rounded so that it makes up for what rounding the numbers before it in its row did to
//! the *products*, not to be near its weight. It is GPTQ (Frantar et al., 2022), with a scale and an offset for each block as the format has them.

#[cfg(not(target_family = "wasm"))]
use rayon::prelude::*;

use super::{Affine, Dtype, PackedMatrix, put_q4};

/// Added to the diagonal of the moments, as a share of its mean: a direction that no sample has is still not free.
const DAMPING: f64 = 0.1;

/// Columns that are factored together.
const PANEL: usize = 64;

/// Rows that go through the factor together, as it is larger than a cache.
const BUNDLE: usize = 16;

const BLOCK: usize = Dtype::Q4.block();

/// The second moments of a matrix product's inputs, in the form that [`pack`](Self::pack) uses.
#[derive(Debug)]
pub struct InputMoments {
    input: usize,
    /// `R [input, input]`, upper triangular with `R · Rᵀ` the damped moments. So the squared error of a row's products is that of
    /// `(weights − numbers) · R`, whose element `k` depends on the first `k` numbers only.
    factor: Vec<f32>,
}

impl InputMoments {
    /// Of `moments [input, input]`: the mean of `x · xᵀ` over samples `x`.
    ///
    /// None if they are not finite.
    pub fn new(input: usize, moments: &[f32]) -> Option<Self> {
        let n = input;
        assert_eq!(moments.len(), n * n, "a square");
        let mut r: Vec<f64> = moments.iter().copied().map(f64::from).collect();
        let mean = (0..n).map(|i| r[i * n + i]).sum::<f64>() / n as f64;
        // Where all inputs are zero, any numbers will do.
        let damping = if mean > 0.0 { DAMPING * mean } else { 1.0 };
        (0..n).for_each(|i| r[i * n + i] += damping);
        let mut panel = Vec::new();
        for end in (1..=n).rev().step_by(PANEL) {
            let start = end.saturating_sub(PANEL);
            for j in (start..end).rev() {
                let (above, rest) = r.split_at_mut(j * n);
                let row = &mut rest[..n];
                let squares: f64 = row[j + 1..end].iter().map(|v| v * v).sum();
                row[j] = (row[j] - squares).sqrt();
                for other in above.chunks_exact_mut(n) {
                    other[j] = (other[j] - dot(&other[j + 1..end], &row[j + 1..end])) / row[j];
                }
            }
            let width = end - start;
            panel.clear();
            for row in r.chunks_exact(n).take(start) {
                panel.extend_from_slice(&row[start..end]);
            }
            let panel = &panel;
            in_parallel(&mut r[..start * n], n, |i, row| {
                let own = &panel[i * width..][..width];
                for (value, other) in row[i..start]
                    .iter_mut()
                    .zip(panel[i * width..].chunks_exact(width))
                {
                    *value -= dot(own, other);
                }
            });
        }
        let factor: Vec<f32> = r.into_iter().map(|v| v as f32).collect();
        let diagonal = (0..n).map(|i| factor[i * n + i]);
        diagonal
            .into_iter()
            .all(|v| v.is_finite() && v > 0.0)
            .then_some(Self { input, factor })
    }

    /// Packs `values [rows, input]` in q4, with little error in their products with such inputs.
    pub fn pack(&self, values: &[f32]) -> PackedMatrix {
        if !values.iter().all(|v| v.is_finite()) {
            return PackedMatrix::pack(Dtype::Q4, self.input, values);
        }
        let row_words = Dtype::Q4.row_words(self.input);
        let mut words = vec![0; values.len() / self.input * row_words];
        in_parallel(&mut words, BUNDLE * row_words, |i, words| {
            let bundle = &values[i * BUNDLE * self.input..];
            let rows = words.len() / row_words;
            self.pack_rows(&bundle[..rows * self.input], words);
        });
        PackedMatrix::from_words(Dtype::Q4, self.input, words)
    }

    fn pack_rows(&self, values: &[f32], words: &mut [u32]) {
        let n = self.input;
        let scales = Dtype::Q4.number_words(n);
        // What the numbers so far make of each element of the error.
        let mut errors = vec![0.0_f32; values.len()];
        for start in (0..n).step_by(BLOCK) {
            let end = n.min(start + BLOCK);
            let block = end - start;
            let rows = values.chunks_exact(n).zip(errors.chunks_exact_mut(n));
            for ((row, errors), words) in rows.zip(words.chunks_exact_mut(Dtype::Q4.row_words(n))) {
                // What would make no error at all, were it not for the rounding: the pair is made for that.
                let mut ideal = [0.0; BLOCK];
                let mut difference = [0.0; BLOCK];
                let element = |differences: &[f32; BLOCK], errors: &[f32], k: usize| {
                    let within =
                        (0..k).map(|i| differences[i] * self.factor[(start + i) * n + start + k]);
                    (errors[start + k] + within.sum::<f32>()) / self.factor[(start + k) * (n + 1)]
                };
                for k in 0..block {
                    let makes_up = element(&difference, errors, k);
                    difference[k] = -makes_up;
                    ideal[k] = row[start + k] + makes_up;
                }
                let pair = Affine::<15>::fit(&ideal[..block]);
                words[scales + start / BLOCK] = pair.to_word();
                for k in 0..block {
                    let number = pair.number(row[start + k] + element(&difference, errors, k));
                    difference[k] = row[start + k] - (number * pair.scale + pair.offset);
                    put_q4(&mut words[start / BLOCK * 4..], k, number);
                }
                let rest = &mut errors[end..];
                for (k, d) in difference[..block].iter().enumerate() {
                    let factor = &self.factor[(start + k) * n + end..][..n - end];
                    for (error, r) in rest.iter_mut().zip(factor) {
                        *error += d * r;
                    }
                }
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // In lanes, which the compiler may not do to a plain sum.
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// Calls `work` with each part of `length` and its number, on all cores where there are threads.
fn in_parallel<T: Send>(values: &mut [T], length: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    #[cfg(not(target_family = "wasm"))]
    let parts = values.par_chunks_mut(length);
    #[cfg(target_family = "wasm")]
    let parts = values.chunks_mut(length);
    parts.enumerate().for_each(|(i, part)| work(i, part));
}

#[cfg(test)]
mod tests {
    use super::super::tests::numbers;
    use super::*;

    /// Samples of `input` numbers that go together in few ways.
    fn samples(count: usize, input: usize, seed: u32) -> Vec<f32> {
        let ways = input / 4;
        let mixture = numbers(ways * input, 77);
        let mut samples = Vec::new();
        for sample in 0..count {
            let shares = numbers(ways, seed + sample as u32);
            let own = numbers(input, seed + 9999 + sample as u32);
            samples.extend((0..input).map(|i| {
                let together = (0..ways).map(|w| shares[w] * mixture[w * input + i]);
                0.5 + together.sum::<f32>() + 0.2 * own[i]
            }));
        }
        samples
    }

    fn moments(input: usize, samples: &[f32]) -> Vec<f32> {
        let mut moments = vec![0.0; input * input];
        let count = (samples.len() / input) as f32;
        for x in samples.chunks_exact(input) {
            for (row, a) in moments.chunks_exact_mut(input).zip(x) {
                row.iter_mut().zip(x).for_each(|(m, b)| *m += a * b / count);
            }
        }
        moments
    }

    /// Mean squared error of the products with `samples`.
    fn error(values: &[f32], packed: &PackedMatrix, samples: &[f32]) -> f32 {
        let input = packed.input();
        let unpacked = packed.unpack();
        let differences: Vec<f32> = values.iter().zip(&unpacked).map(|(a, b)| a - b).collect();
        let mut sum = 0.0;
        for x in samples.chunks_exact(input) {
            for row in differences.chunks_exact(input) {
                let product: f32 = row.iter().zip(x).map(|(d, x)| d * x).sum();
                sum += product * product;
            }
        }
        sum / (samples.len() / input * values.len() / input) as f32
    }

    #[test]
    fn products_with_other_samples_of_the_kind_are_nearer() {
        for (input, bound) in [(160, 0.3), (100, 0.4)] {
            let values = numbers(37 * input, 5);
            let seen = moments(input, &samples(4 * input, input, 1000));
            let packed = InputMoments::new(input, &seen).unwrap().pack(&values);
            let plain = PackedMatrix::pack(Dtype::Q4, input, &values);
            assert_eq!((packed.rows(), packed.dtype()), (37, Dtype::Q4));
            let others = samples(200, input, 500_000);
            let [packed, plain] = [packed, plain].map(|p| error(&values, &p, &others));
            assert!(
                packed < bound * plain,
                "{input}: {packed} and plainly {plain}"
            );
        }
    }

    #[test]
    fn inputs_that_have_nothing_to_do_with_each_other_change_nothing() {
        let input = 96;
        let mut moments = vec![0.0; input * input];
        (0..input).for_each(|i| moments[i * (input + 1)] = 0.5 + i as f32);
        let values = numbers(20 * input, 6);
        assert_eq!(
            InputMoments::new(input, &moments).unwrap().pack(&values),
            PackedMatrix::pack(Dtype::Q4, input, &values)
        );
        // Nor do inputs that are always zero.
        assert_eq!(
            InputMoments::new(32, &[0.0; 1024]).unwrap().pack(&values),
            PackedMatrix::pack(Dtype::Q4, 32, &values)
        );
    }

    #[test]
    fn the_factor_is_that_of_the_damped_moments() {
        let input = 150;
        let moments = moments(input, &samples(300, input, 3));
        let factor = InputMoments::new(input, &moments).unwrap().factor;
        let mean = (0..input).map(|i| moments[i * (input + 1)]).sum::<f32>() / input as f32;
        for i in 0..input {
            for j in i..input {
                let product: f32 = (j..input)
                    .map(|k| factor[i * input + k] * factor[j * input + k])
                    .sum();
                let damping = if i == j { DAMPING as f32 * mean } else { 0.0 };
                let expected = moments[i * input + j] + damping;
                assert!(
                    (product - expected).abs() < 1e-3 * mean,
                    "{i} {j}: {product} {expected}"
                );
            }
        }
        let broken = vec![f32::NAN; 16];
        assert!(InputMoments::new(4, &broken).is_none());
    }
}
