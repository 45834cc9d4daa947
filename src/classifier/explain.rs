//! Where in a picture a label's logit comes from.
//!
//! For each patch: how much lower the logit is when the pooling head doesn't look at the patch and its neighbours. The encoder runs as ever; only the
//! head's attention is masked and scaled up again, so that a map costs one more head per patch. `tools/demo-model/pointing.py` compares this with other
//! forms on pictures where the place is known.

use std::ops::Range;

use super::labels::check_templates;
use super::{Classifier, Embedding, Picture, embedding, nobody_listens};
use crate::checkpoint::Pace;
use crate::error::Result;
use crate::kernels::{Receipt, to_vec};
use crate::model::Pooled;

/// How much each place of a picture adds to a label's logit.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Patches from top to bottom.
    pub rows: usize,
    /// Patches from left to right.
    pub columns: usize,
    /// Row by row, in units of the logit: what it loses where the model doesn't look at this patch and its neighbours. Below zero where they speak against
    /// the label.
    pub values: Vec<f32>,
}

/// Patches on each side of one that are left out with it.
const REACH: usize = 1;

impl Classifier {
    /// What moved a label's logit for a picture, place by place: see [`HeatMap`]. `templates` are those of [`classify_async`](Self::classify_async).
    ///
    /// After `classify_async` of the same picture the vision tower's encoder needn't run again.
    ///
    /// # Errors
    /// As [`classify_async`](Self::classify_async).
    pub async fn explain_async(
        &mut self,
        picture: Picture<'_>,
        label: &str,
        templates: &[String],
        pace: &impl Pace,
    ) -> Result<HeatMap> {
        check_templates(templates)?;
        self.check_words(&[label], templates)?;
        let text = self
            .embed_words(&[label], templates, pace, &mut nobody_listens)
            .await?
            .remove(0);
        let tokens = self.tokens(&picture, pace).await?;
        let vision = &self.checkpoint.model.vision;
        let size = self.config().vision.encoder.hidden_size;
        let side = self.config().vision.image_size / self.config().vision.patch_size;

        let Pooled { query, key, value } = vision.pooling(tokens);
        let query = to_vec(query).await?;
        let (key, value) = (to_vec(key).await?, to_vec(value).await?);
        let attention = Attention::new(&query, &key, &value, vision.head.heads);
        let mut attended = attention.without(&[]);
        for place in 0..side * side {
            let columns = around(place % side, side);
            let masked = around(place / side, side)
                .flat_map(|row| columns.clone().map(move |column| row * side + column));
            attended.extend(attention.without(&masked.collect::<Vec<_>>()));
        }
        pace.step().await?;
        let shape = [1, 1 + side * side, size];
        let (attended, receipt) = Receipt::with_floats(attended, shape, &self.device);
        let head = &vision.head;
        let results = head.finish(head.out_proj.forward(attended));
        let results = self.or_fault(receipt.read(results).await)?;
        let logits = results.chunks_exact(size).map(|row| {
            let row: Embedding = embedding(row, &self.device)?;
            Ok(self.similarity(&row, &text).logit)
        });
        let logits = logits.collect::<Result<Vec<f32>>>()?;
        Ok(HeatMap {
            rows: side,
            columns: side,
            values: logits[1..].iter().map(|logit| logits[0] - logit).collect(),
        })
    }
}

/// A place and its neighbours, as far as there are any.
fn around(place: usize, side: usize) -> Range<usize> {
    place.saturating_sub(REACH)..(place + REACH + 1).min(side)
}

/// The head's attention, to be masked.
struct Attention<'a> {
    /// Weights `[patches, heads]`, not divided by their sum.
    weights: Vec<f32>,
    /// `[patches, hidden]`.
    value: &'a [f32],
    heads: usize,
    /// Of all patches.
    whole: Sums,
}

/// Of some patches: weights `[heads]`, and weighted values `[hidden]`.
struct Sums {
    weights: Vec<f32>,
    values: Vec<f32>,
}

/// Of a head's weights: where less than this is left, what is left is summed up anew, since a difference would be rounding alone.
const SMALL: f32 = 0.01;

impl<'a> Attention<'a> {
    /// From the probe's query `[hidden]` and the patches' keys and values `[patches, hidden]`.
    fn new(query: &[f32], key: &[f32], value: &'a [f32], heads: usize) -> Self {
        let channels = query.len() / heads;
        let scale = 1.0 / (channels as f32).sqrt();
        let products = key
            .chunks_exact(channels)
            .zip(query.chunks_exact(channels).cycle());
        let mut weights: Vec<f32> = products
            .map(|(key, query)| scale * key.iter().zip(query).map(|(k, q)| k * q).sum::<f32>())
            .collect();
        for head in 0..heads {
            let of_head = weights.iter().skip(head).step_by(heads);
            let largest = of_head.copied().fold(f32::NEG_INFINITY, f32::max);
            let of_head = weights.iter_mut().skip(head).step_by(heads);
            of_head.for_each(|weight| *weight = (*weight - largest).exp());
        }
        let whole = Sums {
            weights: vec![],
            values: vec![],
        };
        let mut attention = Self {
            weights,
            value,
            heads,
            whole,
        };
        attention.whole = attention.sums(0..key.len() / query.len());
        attention
    }

    fn sums(&self, patches: impl Iterator<Item = usize>) -> Sums {
        let hidden = self.value.len() / (self.weights.len() / self.heads);
        let channels = hidden / self.heads;
        let mut sums = Sums {
            weights: vec![0.0; self.heads],
            values: vec![0.0; hidden],
        };
        for patch in patches {
            let values = self.value[patch * hidden..][..hidden].chunks_exact(channels);
            let heads = sums.values.chunks_exact_mut(channels).zip(values);
            let weights = self.weights[patch * self.heads..]
                .iter()
                .zip(&mut sums.weights);
            for ((sums, values), (weight, total)) in heads.zip(weights) {
                *total += weight;
                let sums = sums.iter_mut().zip(values);
                sums.for_each(|(sum, value)| *sum += weight * value);
            }
        }
        sums
    }

    /// What the probe finds in all patches but those that are `masked`, `[hidden]`; zeros where none is left.
    fn without(&self, masked: &[usize]) -> Vec<f32> {
        let left_out = self.sums(masked.iter().copied());
        let of_heads = self.whole.weights.iter().zip(&left_out.weights);
        let mut left = Sums {
            weights: of_heads.map(|(all, out)| all - out).collect(),
            values: (self.whole.values.iter().zip(&left_out.values))
                .map(|(all, out)| all - out)
                .collect(),
        };
        let of_heads = left.weights.iter().zip(&self.whole.weights);
        if of_heads.into_iter().any(|(left, all)| *left < SMALL * all) {
            let patches = self.weights.len() / self.heads;
            left = self.sums((0..patches).filter(|patch| !masked.contains(patch)));
        }
        let channels = left.values.len() / self.heads;
        for (values, weight) in left.values.chunks_exact_mut(channels).zip(left.weights) {
            let weight = weight.max(f32::MIN_POSITIVE);
            values.iter_mut().for_each(|value| *value /= weight);
        }
        left.values
    }
}
