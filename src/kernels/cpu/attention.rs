//! Attention on 128-bit SIMD: both of its matrix products in the panels of [`product`](super::product), a few queries of one
//! head after the other, so that their scores stay in the first-level cache.

use super::exp;
use super::lanes::{WIDTH, store};
use super::product::{PANEL, Rows, for_tiles, pack};

/// Queries whose scores exist at a time.
const QUERIES: usize = 24;

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
    let wide = keys.next_multiple_of(PANEL);
    let mut key_panels = vec![0.0; wide * size];
    let mut value_panels = vec![0.0; size.next_multiple_of(PANEL) * keys];
    let mut scores = vec![0.0; QUERIES * wide];
    let mut y = vec![0.0; batch * queries * hidden];
    for b in 0..batch {
        for h in 0..heads {
            let head = |x: &'_ [f32], tokens: usize| -> usize {
                debug_assert_eq!(x.len(), batch * tokens * hidden);
                b * tokens * hidden + h * size
            };
            let rows_of = |values, rows| Rows {
                values,
                stride: hidden,
                rows,
                length: size,
            };
            let keys_of_head = rows_of(&key[head(key, keys)..], keys);
            for (i, panel) in key_panels.chunks_exact_mut(size * PANEL).enumerate() {
                let first = i * PANEL;
                pack(keys_of_head.rows(first, PANEL.min(keys - first)), panel);
            }
            let values_of_head = rows_of(&value[head(value, keys)..], keys);
            for (i, panel) in value_panels.chunks_exact_mut(keys * PANEL).enumerate() {
                let first = i * PANEL;
                let columns = PANEL.min(size - first);
                for (j, row) in panel.chunks_exact_mut(PANEL).enumerate() {
                    row[..columns].copy_from_slice(&values_of_head.row(j)[first..][..columns]);
                }
            }
            let start = head(query, queries);
            let queries_of_head = rows_of(&query[start..], queries);
            for first in (0..queries).step_by(QUERIES) {
                let rows = QUERIES.min(queries - first);
                for (i, panel) in key_panels.chunks_exact(size * PANEL).enumerate() {
                    for_tiles(queries_of_head.rows(first, rows), panel, |row, v, lanes| {
                        store(&mut scores, row * wide + i * PANEL + v * WIDTH, lanes);
                    });
                }
                for scores in scores.chunks_exact_mut(wide).take(rows) {
                    softmax(&mut scores[..keys], scale);
                }
                let weights = Rows {
                    values: &scores,
                    stride: wide,
                    rows,
                    length: keys,
                };
                for (i, panel) in value_panels.chunks_exact(keys * PANEL).enumerate() {
                    for_tiles(weights, panel, |row, v, lanes| {
                        // A head's size is a multiple of a vector, not of a panel.
                        let column = i * PANEL + v * WIDTH;
                        if column < size {
                            store(&mut y, start + (first + row) * hidden + column, lanes);
                        }
                    });
                }
            }
        }
    }
    y
}

/// The softmax of `scale · scores`, in their place.
fn softmax(scores: &mut [f32], scale: f32) {
    // In lanes, which the compiler may not do to plain maxima and sums.
    let mut lanes = [f32::NEG_INFINITY; 8];
    for chunk in scores.chunks(8) {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *lane = if *score > *lane { *score } else { *lane };
        }
    }
    let largest = lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in scores.iter_mut() {
        *score = exp((*score - largest) * scale);
    }
    let mut lanes = [0.0; 8];
    for chunk in scores.chunks(8) {
        for (lane, weight) in lanes.iter_mut().zip(chunk) {
            *lane += weight;
        }
    }
    let share = lanes.iter().sum::<f32>().recip();
    for weight in scores {
        *weight *= share;
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
