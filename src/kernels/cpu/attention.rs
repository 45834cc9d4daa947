//! Attention on 128-bit SIMD: both of its matrix products through [`product`], one head after the other, so that only one
//! head's scores exist at a time.

use super::exp;
use super::product::product;

/// Sizes of an attention.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub hidden: usize,
    /// The size of a head, `hidden / heads`, is a multiple of 4.
    pub heads: usize,
}

/// `query [batch, queries, hidden]`, `key` and `value [batch, keys, hidden]` → `[batch, queries, hidden]`.
pub fn attention(query: &[f32], key: &[f32], value: &[f32], sizes: Sizes) -> Vec<f32> {
    let Sizes {
        batch,
        queries,
        keys,
        hidden,
        heads,
    } = sizes;
    let size = hidden / heads;
    let scale = (size as f32).sqrt().recip();
    // Zeros behind each row of weights and of the transposed values, up to whole vectors.
    let padded = keys.next_multiple_of(4);
    let mut weights = vec![0.0; queries * padded];
    let mut transposed = vec![0.0; size * padded];
    let mut y = vec![0.0; batch * queries * hidden];
    for b in 0..batch {
        for h in 0..heads {
            let head = |x: &[f32], tokens: usize| -> Vec<f32> {
                let rows = x[b * tokens * hidden..][..tokens * hidden].chunks_exact(hidden);
                rows.flat_map(|row| &row[h * size..(h + 1) * size])
                    .copied()
                    .collect()
            };
            let scores = product(&head(query, queries), &head(key, keys), size, keys);
            for (weights, scores) in weights
                .chunks_exact_mut(padded)
                .zip(scores.chunks_exact(keys))
            {
                softmax(scores, scale, &mut weights[..keys]);
            }
            for (j, row) in head(value, keys).chunks_exact(size).enumerate() {
                for (d, v) in row.iter().enumerate() {
                    transposed[d * padded + j] = *v;
                }
            }
            let attended = product(&weights, &transposed, padded, size);
            for (i, row) in attended.chunks_exact(size).enumerate() {
                y[(b * queries + i) * hidden + h * size..][..size].copy_from_slice(row);
            }
        }
    }
    y
}

/// The softmax of `scale · scores`.
fn softmax(scores: &[f32], scale: f32, weights: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for (weight, score) in weights.iter_mut().zip(scores) {
        *weight = exp((score - largest) * scale);
    }
    // In four lanes, which the compiler may not do to a plain sum.
    let mut lanes = [0.0; 4];
    for chunk in weights.chunks(4) {
        for (lane, weight) in lanes.iter_mut().zip(chunk) {
            *lane += weight;
        }
    }
    let total: f32 = lanes.iter().sum();
    for weight in weights {
        *weight /= total;
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::kernels::reference;

    #[test]
    fn equals_the_plain_form_with_peaked_scores_and_odd_sizes() {
        for (batch, queries, keys, heads, size) in
            [(1, 1, 1, 1, 4), (2, 5, 37, 3, 8), (1, 33, 33, 2, 72)]
        {
            let hidden = heads * size;
            let number = |i: usize| ((i * 7919) % 1009) as f32 / 504.5 - 1.0;
            let tensor = |tokens: usize, first: usize, factor: f32| -> Vec<f32> {
                (0..batch * tokens * hidden)
                    .map(|i| factor * number(i + first))
                    .collect()
            };
            let (q, k, v) = (
                tensor(queries, 0, 20.0),
                tensor(keys, 3, 1.0),
                tensor(keys, 5, 1.0),
            );
            let sizes = Sizes {
                batch,
                queries,
                keys,
                hidden,
                heads,
            };
            let got = attention(&q, &k, &v, sizes);
            let on_device = |x: Vec<f32>, tokens: usize| {
                Tensor::<3>::from_data(TensorData::new(x, [batch, tokens, hidden]), &Device::flex())
            };
            let expected = reference::attention(
                on_device(q, queries),
                on_device(k, keys),
                on_device(v, keys),
                heads,
            );
            let expected = expected.into_data().try_to_vec::<f32>().unwrap();
            for (g, e) in got.iter().zip(&expected) {
                assert!((g - e).abs() < 1e-5, "{g}, not {e}");
            }
        }
    }
}
