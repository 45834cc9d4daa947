//! What a caller may ask for, checked before anything runs.

use std::collections::HashSet;

use super::LabelScore;
use crate::error::{Error, Result};

/// The sentence that SigLIP's labels are put into unless the caller says otherwise.
pub const DEFAULT_TEMPLATE: &str = "This is a photo of {}.";

/// A label longer than this many characters is a mistake: the model reads 16 to 64 tokens.
const LONGEST_LABEL: usize = 1000;

/// How logits become scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scores {
    /// Each label by itself, as SigLIP was trained: `1 / (1 + exp(−logit))`.
    #[default]
    Sigmoid,
    /// All labels share 1, as in CLIP: one always wins, even when none fits.
    Softmax,
}

/// Options of a classification.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassifyOptions {
    /// Sentences with `{}` where the label goes; the embeddings of several are averaged.
    pub templates: Vec<String>,
    /// How logits become scores.
    pub scores: Scores,
    /// Only the best so many, or all.
    pub top_k: Option<usize>,
}

impl Default for ClassifyOptions {
    fn default() -> Self {
        Self {
            templates: vec![DEFAULT_TEMPLATE.into()],
            scores: Scores::default(),
            top_k: None,
        }
    }
}

impl ClassifyOptions {
    pub(super) fn check(&self) -> Result<()> {
        if self.templates.is_empty() {
            return Err(Error::bad_input(
                "there is no template; give at least one, for example \"This is a photo of {}.\"",
            ));
        }
        if let Some(template) = self.templates.iter().find(|t| !t.contains("{}")) {
            return Err(Error::bad_input(format!(
                "the template {template:?} has no {{}} where the label goes, so all labels would be the same"
            )));
        }
        if self.top_k == Some(0) {
            return Err(Error::bad_input("topK is 0; ask for at least one label"));
        }
        Ok(())
    }

    /// Scores for all logits, sorted with the highest first (equal ones as given), cut to the best `top_k`.
    pub(super) fn rank(&self, labels: &[&str], logits: &[f32]) -> Vec<LabelScore> {
        let scores = match self.scores {
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

pub(super) fn check_labels(labels: &[&str]) -> Result<()> {
    if labels.is_empty() {
        return Err(Error::bad_input("there are no labels; give at least one"));
    }
    let mut seen = HashSet::new();
    for (i, label) in labels.iter().enumerate() {
        let number = i + 1;
        if label.trim().is_empty() {
            return Err(Error::bad_input(format!(
                "label {number} is blank; remove it"
            )));
        }
        let length = label.chars().count();
        if length > LONGEST_LABEL {
            let start: String = label.chars().take(40).collect();
            return Err(Error::bad_input(format!(
                "label {number} ({start:?}…) has {length} characters; {LONGEST_LABEL} are allowed, and the model reads only the first few dozen words"
            )));
        }
        if !seen.insert(label.trim()) {
            return Err(Error::bad_input(format!(
                "the label {:?} is given twice; remove one",
                label.trim()
            )));
        }
    }
    Ok(())
}

fn sigmoid(logit: f32) -> f32 {
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
        let ranked = options.rank(&["low", "high", "none"], &[-3.0, 2.0, -200.0]);
        let labels: Vec<&str> = ranked.iter().map(|r| r.label.as_str()).collect();
        assert_eq!(labels, ["high", "low", "none"]);
        assert!((ranked[0].score - 0.880_797).abs() < 1e-6);
        assert!((ranked[1].score - 0.047_426).abs() < 1e-6);
        assert_eq!(ranked[2].logit, -200.0);

        let softmax = ClassifyOptions {
            scores: Scores::Softmax,
            ..options
        };
        let ranked = softmax.rank(&["a", "b"], &[-30.0, -28.0]);
        assert!((ranked.iter().map(|r| r.score).sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((ranked[0].score - 0.880_797).abs() < 1e-6);
    }

    #[test]
    fn top_k_keeps_the_best() {
        let options = ClassifyOptions {
            top_k: Some(1),
            ..ClassifyOptions::default()
        };
        let ranked = options.rank(&["a", "b", "c"], &[1.0, 3.0, 2.0]);
        assert_eq!(ranked.len(), 1);
        assert_eq!(ranked[0].label, "b");
    }

    #[test]
    fn unusable_labels_are_named() {
        let long = "x".repeat(1001);
        for (labels, word) in [
            (vec![], "no labels"),
            (vec!["cat", " \t"], "label 2 is blank"),
            (vec!["cat", "dog", "cat "], "twice"),
            (vec![long.as_str()], "1001 characters"),
        ] {
            let error = check_labels(&labels).unwrap_err();
            assert_eq!(error.code(), Code::BadInput);
            assert!(error.message().contains(word), "{error}");
        }
        check_labels(&["<b>cat</b>", "$&", "cat, dog"]).unwrap();
    }

    #[test]
    fn unusable_options_are_named() {
        let with = |templates: &[&str], top_k| ClassifyOptions {
            templates: templates.iter().map(|t| (*t).into()).collect(),
            top_k,
            ..ClassifyOptions::default()
        };
        for options in [
            with(&[], None),
            with(&["a {}", "a photo"], None),
            with(&["{}"], Some(0)),
        ] {
            assert_eq!(options.check().unwrap_err().code(), Code::BadInput);
        }
        with(&["{}", "{} {}"], Some(1)).check().unwrap();
    }
}
