//! Where in a picture a label's logit comes from.
//!
//! For each patch: how much lower the logit is when the pooling head looks away from the patch: it isn't seen at all, and those around it the less, the
//! nearer they are. The encoder runs as ever; only the head's attention is masked and scaled up again, so that a map costs one more head per patch.
//! `tools/demo-model/pointing.py` compares this with other forms on pictures where the place is known.

use std::ops::Range;

use super::labels::check_templates;
use super::{Classifier, Embedding, Picture, Tokens, embedding, nobody_listens, unknown};
use crate::checkpoint::Pace;
use crate::error::Result;
use crate::kernels::{Receipt, to_vec};
use crate::model::{Head, Pooled};

/// How much each place of a picture adds to a label's logit.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Patches from top to bottom.
    pub rows: usize,
    /// Patches from left to right.
    pub columns: usize,
    /// Row by row, in units of the logit: what it loses where the model doesn't look at this patch, and less at those around it. Below zero where they speak
    /// against the label.
    pub values: Vec<f32>,
}

impl HeatMap {
    /// Of rows and columns of places, and what each adds.
    fn of([rows, columns]: [usize; 2], value: impl FnMut(usize) -> f32) -> Self {
        Self {
            rows,
            columns,
            values: (0..rows * columns).map(value).collect(),
        }
    }
}

/// How far it is looked away from: the standard deviation of a Gaussian, in patches. From 0.5 to 1.1 it hardly matters: docs/decisions.md.
const SPREAD: f32 = 0.8;

/// Patches on each side of one beyond which less than a thousandth is left out.
const REACH: usize = 2;

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
        if let Head::Classifier(_) = self.checkpoint.model.vision.head {
            return self.explain_own(picture, label, templates, pace).await;
        }
        self.check_words(&[label], templates)?;
        let text = self
            .embed_words(&[label], templates, pace, &mut nobody_listens)
            .await?
            .remove(0);
        let Tokens {
            values: tokens,
            grid,
        } = self.tokens(&picture, pace).await?;
        let places = grid[0] * grid[1];
        let vision = &self.checkpoint.model.vision;
        let Head::Pooling(head) = &vision.head else {
            unreachable!("returned above");
        };
        let size = self.config().vision.encoder.hidden_size;

        let Pooled { query, key, value } = head.project(vision.post_layernorm.forward(tokens));
        let query = to_vec(query).await?;
        let (key, value) = (to_vec(key).await?, to_vec(value).await?);
        let attention = Attention::new(&query, &key, &value, head.heads);
        let mut attended = attention.without(&[]);
        for place in 0..places {
            attended.extend(attention.without(&left_out(place, grid)));
        }
        pace.step().await?;
        let shape = [1, 1 + places, size];
        let (attended, receipt) = Receipt::with_floats(attended, shape, &self.device);
        let results = head.finish(head.out_proj.forward(attended));
        let results = self.or_fault(receipt.read(results).await)?;
        let logits = results.chunks_exact(size).map(|row| {
            let row: Embedding = embedding(row, &self.device)?;
            Ok(self.similarity(&row, &text).logit)
        });
        let logits = logits.collect::<Result<Vec<f32>>>()?;
        let lost = |place: usize| logits[0] - logits[1 + place];
        Ok(HeatMap::of(grid, lost))
    }

    /// The same for a label of a fine-tuned classifier, whose head looks at all patches alike.
    async fn explain_own(
        &mut self,
        picture: Picture<'_>,
        label: &str,
        templates: &[String],
        pace: &impl Pace,
    ) -> Result<HeatMap> {
        self.check_own(templates)?;
        let labels = self.labels().unwrap_or_default();
        // Two classes may share a name: cranes that fly, and cranes that lift.
        let named = labels
            .iter()
            .enumerate()
            .filter(|(_, known)| *known == label);
        let named: Vec<usize> = named.map(|(row, _)| row).collect();
        if named.is_empty() {
            return Err(unknown(label, labels));
        }
        let count = labels.len();
        let Tokens {
            values: tokens,
            grid,
        } = self.tokens(&picture, pace).await?;
        let vision = &self.checkpoint.model.vision;
        let Head::Classifier(head) = &vision.head else {
            unreachable!("asked for above");
        };
        // The layer is linear: of the mean it makes the mean of what it makes of each patch.
        let logits = head
            .classifier
            .forward(vision.post_layernorm.forward(tokens));
        let bias = head.classifier.bias.val();
        let (logits, bias) = (to_vec(logits).await, to_vec(bias).await);
        let (logits, bias) = (self.or_fault(logits)?, self.or_fault(bias)?);
        let of_row = |row: usize| {
            let logits = logits.chunks_exact(count);
            let logits: Vec<f64> = logits.map(|logits| f64::from(logits[row])).collect();
            (row, logits.iter().sum::<f64>(), logits)
        };
        let rows = named.into_iter().map(of_row);
        let best = rows.max_by(|(_, one, _), (_, other, _)| one.total_cmp(other));
        let (row, total, logits) = best.expect("one has the name");
        let mean = total / logits.len() as f64;
        let lost = |place: usize| {
            let (mut rest, mut left) = (total, logits.len() as f64);
            for (patch, share) in left_out(place, grid) {
                rest -= f64::from(share) * logits[patch];
                left -= f64::from(share);
            }
            // Of nothing the layer makes its bias.
            let without = match logits.len() {
                1 => f64::from(bias[row]),
                _ => rest / left,
            };
            (mean - without) as f32
        };
        Ok(HeatMap::of(grid, lost))
    }
}

/// A place of a grid and those around it, each with the share of it that is left out.
fn left_out(place: usize, [rows, columns]: [usize; 2]) -> Vec<(usize, f32)> {
    let (row, column) = (place / columns, place % columns);
    let near = |one: usize, other: usize| {
        let distance = one.abs_diff(other) as f32 / SPREAD;
        (-0.5 * distance * distance).exp()
    };
    let mut shares = vec![];
    for y in around(row, rows) {
        for x in around(column, columns) {
            shares.push((y * columns + x, near(row, y) * near(column, x)));
        }
    }
    shares
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
        attention.whole = attention.sums((0..key.len() / query.len()).map(|patch| (patch, 1.0)));
        attention
    }

    /// Of patches, each to the share that it counts.
    fn sums(&self, patches: impl Iterator<Item = (usize, f32)>) -> Sums {
        let hidden = self.value.len() / (self.weights.len() / self.heads);
        let channels = hidden / self.heads;
        let mut sums = Sums {
            weights: vec![0.0; self.heads],
            values: vec![0.0; hidden],
        };
        for (patch, share) in patches {
            let values = self.value[patch * hidden..][..hidden].chunks_exact(channels);
            let heads = sums.values.chunks_exact_mut(channels).zip(values);
            let weights = self.weights[patch * self.heads..]
                .iter()
                .zip(&mut sums.weights);
            for ((sums, values), (weight, total)) in heads.zip(weights) {
                let weight = share * weight;
                *total += weight;
                let sums = sums.iter_mut().zip(values);
                sums.for_each(|(sum, value)| *sum += weight * value);
            }
        }
        sums
    }

    /// What the probe finds where these shares of patches are left out, `[hidden]`; zeros where nothing is left.
    fn without(&self, left_out: &[(usize, f32)]) -> Vec<f32> {
        let out = self.sums(left_out.iter().copied());
        let of_heads = self.whole.weights.iter().zip(&out.weights);
        let mut left = Sums {
            weights: of_heads.map(|(all, out)| all - out).collect(),
            values: (self.whole.values.iter().zip(&out.values))
                .map(|(all, out)| all - out)
                .collect(),
        };
        let of_heads = left.weights.iter().zip(&self.whole.weights);
        if of_heads.into_iter().any(|(left, all)| *left < SMALL * all) {
            let patches = self.weights.len() / self.heads;
            let mut kept = vec![1.0; patches];
            for (patch, share) in left_out {
                kept[*patch] -= share;
            }
            left = self.sums(kept.into_iter().enumerate());
        }
        let channels = left.values.len() / self.heads;
        for (values, weight) in left.values.chunks_exact_mut(channels).zip(left.weights) {
            let weight = weight.max(f32::MIN_POSITIVE);
            values.iter_mut().for_each(|value| *value /= weight);
        }
        left.values
    }
}
