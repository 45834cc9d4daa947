//! What a caller may ask for, and what becomes of logits.

use serde::{Deserialize, Serialize};

use super::LabelScore;
use super::labels::check_templates;
use crate::error::{Error, Result};

/// The sentence that SigLIP's labels are put into unless the caller says otherwise.
pub const DEFAULT_TEMPLATE: &str = "This is a photo of {}.";

/// How logits become scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scores {
    /// Each label by itself, as SigLIP was trained: `1 / (1 + exp(−logit))`.
    #[default]
    Sigmoid,
    /// All labels share 1, as in CLIP: one always wins, even when none fits.
    Softmax,
}

/// Options of a classification.
///
/// ```
/// use siglip_web::{ClassifyOptions, Scores};
///
/// let options = ClassifyOptions::default()
///     .with_templates(["a photo of {}.", "a drawing of {}."])
///     .with_scores(Scores::Softmax)
///     .with_top_k(3);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClassifyOptions {
    /// Sentences with `{}` where the label goes; the embeddings of several are averaged.
    pub templates: Vec<String>,
    /// How logits become scores. None: as the model was trained, which is `Sigmoid` unless it is a fine-tuned classifier whose labels
    /// exclude each other.
    pub scores: Option<Scores>,
    /// Only the best so many, or all.
    pub top_k: Option<usize>,
}

impl Default for ClassifyOptions {
    fn default() -> Self {
        Self {
            templates: vec![DEFAULT_TEMPLATE.into()],
            scores: None,
            top_k: None,
        }
    }
}

impl ClassifyOptions {
    /// These options with other templates.
    pub fn with_templates(mut self, templates: impl IntoIterator<Item: Into<String>>) -> Self {
        self.templates = templates.into_iter().map(Into::into).collect();
        self
    }

    /// These options with scores of this kind.
    pub fn with_scores(mut self, scores: Scores) -> Self {
        self.scores = Some(scores);
        self
    }

    /// These options for only the best `count` labels.
    pub fn with_top_k(mut self, count: usize) -> Self {
        self.top_k = Some(count);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        check_templates(&self.templates)?;
        if self.top_k == Some(0) {
            return Err(Error::bad_input("topK is 0; ask for at least one label"));
        }
        Ok(())
    }

    /// Scores for all logits, sorted with the highest first (equal ones as given), cut to the best `top_k`. `default` is the model's.
    pub(super) fn rank(&self, labels: &[&str], logits: &[f32], default: Scores) -> Vec<LabelScore> {
        let scores = match self.scores.unwrap_or(default) {
            Scores::Sigmoid => logits.iter().map(|logit| sigmoid(*logit)).collect(),
            Scores::Softmax => softmax(logits),
        };
        let mut results: Vec<LabelScore> = labels
            .iter()
            .zip(logits)
            .zip(scores)
            .map(|((label, logit), score)| LabelScore {
                label: (*label).into(),
                score,
                logit: *logit,
            })
            .collect();
        // By logit: scores of very sure labels round to the same number.
        results.sort_by(|a, b| b.logit.total_cmp(&a.logit));
        results.truncate(self.top_k.unwrap_or(usize::MAX));
        results
    }
}

/// The probability that a logit stands for.
pub(super) fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = logits
        .iter()
        .map(|logit| f64::from(logit - largest).exp())
        .collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| (e / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn sigmoid_scores_stand_alone_and_softmax_scores_sum_to_one() {
        let options = ClassifyOptions::default();
        let ranked = options.rank(
            &["low", "high", "none"],
            &[-3.0, 2.0, -200.0],
            Scores::Sigmoid,
        );
        let labels: Vec<&str> = ranked.iter().map(|r| r.label.as_str()).collect();
        assert_eq!(labels, ["high", "low", "none"]);
        assert!((ranked[0].score - 0.880_797).abs() < 1e-6);
        assert!((ranked[1].score - 0.047_426).abs() < 1e-6);
        assert_eq!(ranked[2].logit, -200.0);

        let chosen = options.clone().with_scores(Scores::Softmax);
        for (options, default) in [(chosen, Scores::Sigmoid), (options, Scores::Softmax)] {
            let ranked = options.rank(&["a", "b"], &[-30.0, -28.0], default);
            assert!((ranked.iter().map(|r| r.score).sum::<f32>() - 1.0).abs() < 1e-6);
            assert!((ranked[0].score - 0.880_797).abs() < 1e-6);
        }
    }

    #[test]
    fn top_k_keeps_the_best() {
        let options = ClassifyOptions {
            top_k: Some(1),
            ..ClassifyOptions::default()
        };
        let ranked = options.rank(&["a", "b", "c"], &[1.0, 3.0, 2.0], Scores::Sigmoid);
        assert_eq!(ranked.len(), 1);
        assert_eq!(ranked[0].label, "b");
    }

    #[test]
    fn unusable_options_are_named() {
        let options = ClassifyOptions::default;
        let none: [&str; 0] = [];
        for options in [
            options().with_templates(none),
            options().with_templates(["a {}", "a photo"]),
            options().with_top_k(0),
        ] {
            assert_eq!(options.check().unwrap_err().code(), Code::BadInput);
        }
        options()
            .with_templates(["{}", "a {}"])
            .with_top_k(1)
            .check()
            .unwrap();
    }
}
