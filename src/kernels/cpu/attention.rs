//! Attention on 128-bit SIMD: both of its matrix products in panels as those of [`product`](super::product) are, a few queries of one
//! head after the other, so that their scores stay in the first-level cache.

use super::functions::exponentials;
use super::lanes::{WIDTH, load, multiply, splat, store};
use super::panel::{MatrixView, pack};
use super::parallel::{Target, for_each, for_threads};
use super::product::for_tiles;

/// Rows of a tile: as many as the registers hold, where a product that is added in a second instruction needs one.
const ROWS: usize = if cfg!(target_feature = "relaxed-simd") {
    6
} else {
    5
};
/// Vectors of a row of a tile: few, because a panel is as wide, and the keys and a head's size fill panels of 8 with little left over.
const VECTORS: usize = 2;
/// Columns of a panel.
const PANEL: usize = VECTORS * WIDTH;
/// Queries whose scores exist at a time.
const QUERIES: usize = 5 * ROWS;

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
#[allow(unsafe_code)]
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
    let mut y = vec![0.0; batch * queries * hidden];
    let target = Target::new(&mut y, hidden);
    let mut memories = for_threads(|| Memory {
        key_panels: vec![0.0; wide * size],
        value_panels: vec![0.0; size.next_multiple_of(PANEL) * keys],
        scores: vec![0.0; QUERIES * wide],
    });
    for_each(batch * heads, &mut memories, |memory, i| {
        let (b, h) = (i / heads, i % heads);
        let head = |x: &'_ [f32], tokens: usize| -> usize {
            debug_assert_eq!(x.len(), batch * tokens * hidden);
            b * tokens * hidden + h * size
        };
        let rows_of = |values, rows| MatrixView {
            values,
            stride: hidden,
            rows,
            length: size,
        };
        let keys_of_head = rows_of(&key[head(key, keys)..], keys);
        for (i, panel) in memory.key_panels.chunks_exact_mut(size * PANEL).enumerate() {
            let first = i * PANEL;
            pack::<VECTORS, f32>(keys_of_head.rows(first, PANEL.min(keys - first)), panel);
        }
        let values_of_head = rows_of(&value[head(value, keys)..], keys);
        for (i, panel) in memory
            .value_panels
            .chunks_exact_mut(keys * PANEL)
            .enumerate()
        {
            for (j, row) in panel.chunks_exact_mut(PANEL).enumerate() {
                // A head's size is a multiple of a vector, not of a panel.
                let values = &values_of_head.row(j)[i * PANEL..];
                for v in 0..VECTORS.min(values.len() / WIDTH) {
                    store(row, v * WIDTH, load(values, v * WIDTH));
                }
            }
        }
        let queries_of_head = rows_of(&query[head(query, queries)..], queries);
        let y = target.from(b * queries, h * size);
        for first in (0..queries).step_by(QUERIES) {
            let rows = QUERIES.min(queries - first);
            for (i, panel) in memory.key_panels.chunks_exact(size * PANEL).enumerate() {
                let queries = queries_of_head.rows(first, rows);
                for_tiles::<ROWS, VECTORS>(queries, panel, |row, v, lanes| {
                    let at = row * wide + i * PANEL + v * WIDTH;
                    store(&mut memory.scores, at, lanes);
                });
            }
            // The softmax's weights but for a factor, which fewer numbers need if it comes last.
            let mut factors = [0.0; QUERIES];
            let scores = memory.scores.chunks_exact_mut(wide).take(rows);
            for (factor, scores) in factors.iter_mut().zip(scores) {
                *factor = exponentials(&mut scores[..keys], scale).recip();
            }
            let weights = MatrixView {
                values: &memory.scores,
                stride: wide,
                rows,
                length: keys,
            };
            for (i, panel) in memory.value_panels.chunks_exact(keys * PANEL).enumerate() {
                for_tiles::<ROWS, VECTORS>(weights, panel, |row, v, lanes| {
                    let column = i * PANEL + v * WIDTH;
                    if column < size {
                        let lanes = multiply(lanes, splat(factors[row]));
                        // SAFETY: these columns are this head's.
                        unsafe { y.store(first + row, column, lanes) };
                    }
                });
            }
        }
    });
    y
}

/// What a thread needs for a head.
struct Memory {
    key_panels: Vec<f32>,
    value_panels: Vec<f32>,
    scores: Vec<f32>,
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
