//! Labels, the sentences they are put into, and what both must be: the same here as in `www/lib/client/arguments.js`.
//! `tests/rules.json` has the cases that both are tested with.

use std::collections::HashSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::Embedding;
use crate::error::{Error, Result};

/// A label or a template longer than this many characters is a mistake: a model reads 16 to 64 tokens.
pub const LONGEST_LABEL: usize = 1000;

/// What a picture is compared with.
#[derive(Clone, Debug)]
pub enum Labels<'a> {
    /// Words, put into the templates of the call.
    Words(Vec<&'a str>),
    /// Words that went through the text tower before.
    Set(&'a LabelSet),
    /// All that the model knows: of a fine-tuned classifier, or of a checkpoint that was converted for fixed labels.
    Own,
}

impl<'a, T: AsRef<str>> From<&'a [T]> for Labels<'a> {
    fn from(labels: &'a [T]) -> Self {
        Self::Words(labels.iter().map(AsRef::as_ref).collect())
    }
}

impl<'a, T: AsRef<str>, const N: usize> From<&'a [T; N]> for Labels<'a> {
    fn from(labels: &'a [T; N]) -> Self {
        labels.as_slice().into()
    }
}

impl<'a, T: AsRef<str>> From<&'a Vec<T>> for Labels<'a> {
    fn from(labels: &'a Vec<T>) -> Self {
        labels.as_slice().into()
    }
}

impl<'a> From<&'a LabelSet> for Labels<'a> {
    fn from(set: &'a LabelSet) -> Self {
        Self::Set(set)
    }
}

/// Labels with the embeddings that one model's text tower gave them: made once, kept, and used for any number of pictures.
///
/// As JSON it is `{"model", "labels", "templates", "embeddings"}`, the last in base64: numbers of 32 bits, lowest byte first, label by
/// label. JavaScript's `LabelSet` has the same form.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use siglip_web::{Backend, Classifier, ClassifyOptions, LabelSet};
///
/// let mut classifier = Classifier::load("siglip-base-patch16-224", Backend::Cpu)?;
/// let labels = classifier.embed_labels(&["a cat", "a dog"], &["a photo of {}.", "a drawing of {}."])?;
/// std::fs::write("animals.json", serde_json::to_vec(&labels)?)?;
///
/// // Another day: the text tower doesn't run.
/// let labels: LabelSet = serde_json::from_slice(&std::fs::read("animals.json")?)?;
/// let results = classifier.classify(&std::fs::read("tom.jpg")?, &labels, &ClassifyOptions::default())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct LabelSet {
    model: String,
    labels: Vec<String>,
    templates: Vec<String>,
    /// One after the other.
    embeddings: Vec<f32>,
}

/// As it is written.
#[derive(Deserialize, Serialize)]
struct Form {
    model: String,
    labels: Vec<String>,
    templates: Vec<String>,
    embeddings: String,
}

impl From<LabelSet> for Form {
    fn from(set: LabelSet) -> Self {
        let bytes: Vec<u8> = set
            .embeddings
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Self {
            model: set.model,
            labels: set.labels,
            templates: set.templates,
            embeddings: BASE64_STANDARD.encode(bytes),
        }
    }
}

impl TryFrom<Form> for LabelSet {
    type Error = Error;

    fn try_from(form: Form) -> Result<Self> {
        let bytes = BASE64_STANDARD.decode(form.embeddings).map_err(|error| {
            Error::bad_input(format!(
                "the label set's embeddings are not base64 ({error})"
            ))
        })?;
        let numbers = bytes.chunks_exact(4);
        if !numbers.remainder().is_empty() {
            return Err(Error::bad_input(format!(
                "the label set's embeddings have {} bytes, which are not numbers of 4: it is cut off",
                bytes.len()
            )));
        }
        let embeddings = numbers
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        Self::new(form.model, form.labels, form.templates, embeddings)
    }
}

impl LabelSet {
    /// The parts of a set that was kept in another form: `model` is the [`fingerprint`](super::Classifier::fingerprint) of the one that
    /// made it, `embeddings` are the labels' unit vectors, one after the other.
    ///
    /// # Errors
    /// `bad-input` for labels or templates that can't be used, and for embeddings that are not as many, or not of unit length.
    pub fn new(
        model: String,
        labels: Vec<String>,
        templates: Vec<String>,
        embeddings: Vec<f32>,
    ) -> Result<Self> {
        let words: Vec<&str> = labels.iter().map(String::as_str).collect();
        check_labels(&words)?;
        check_templates(&templates)?;
        let (count, size) = (labels.len(), embeddings.len() / labels.len());
        if size == 0 || size * count != embeddings.len() {
            return Err(Error::bad_input(format!(
                "the label set has {count} labels, but {} numbers of embeddings, which is no multiple: it is damaged",
                embeddings.len()
            )));
        }
        for (label, embedding) in labels.iter().zip(embeddings.chunks_exact(size)) {
            if !is_unit(embedding) {
                let length = length(embedding);
                return Err(Error::bad_input(format!(
                    "the label set's embedding of {label:?} has length {length} instead of 1: it is damaged"
                )));
            }
        }
        Ok(Self {
            model,
            labels,
            templates,
            embeddings,
        })
    }

    /// The [`fingerprint`](super::Classifier::fingerprint) of the model that made it.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// As they were given.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The sentences that they were put into.
    pub fn templates(&self) -> &[String] {
        &self.templates
    }

    /// Numbers in an embedding.
    pub fn embedding_size(&self) -> usize {
        self.embeddings.len() / self.labels.len()
    }

    /// The labels' unit vectors, averaged over the templates, in the order of the labels.
    pub fn embeddings(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.embeddings.chunks_exact(self.embedding_size())
    }

    /// The same, one after the other: `[labels, embedding_size]`.
    pub fn as_slice(&self) -> &[f32] {
        &self.embeddings
    }
}

/// Whether a written embedding has the length 1. It is as exact as a computed one; 1e-3 leaves room for one that was kept as f16.
pub(crate) fn is_unit(embedding: &[f32]) -> bool {
    (length(embedding) - 1.0).abs() < 1e-3
}

/// White space, and the byte order mark, which JavaScript counts as such.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// The first characters of a text that is too long for a message.
fn start(text: &str) -> String {
    text.chars().take(40).collect()
}

fn check_length(what: &str, text: &str) -> Result<()> {
    let length = text.chars().count();
    match length > LONGEST_LABEL {
        true => Err(Error::bad_input(format!(
            "{what} ({:?}…) has {length} characters; {LONGEST_LABEL} are allowed, and a model reads only the first few dozen words",
            start(text)
        ))),
        false => Ok(()),
    }
}

pub(super) fn check_labels(labels: &[&str]) -> Result<()> {
    if labels.is_empty() {
        return Err(Error::bad_input("there are no labels; give at least one"));
    }
    let mut seen = HashSet::new();
    for (i, label) in labels.iter().enumerate() {
        let what = format!("label {} of {}", i + 1, labels.len());
        if trim(label).is_empty() {
            return Err(Error::bad_input(format!("{what} is blank; leave it out")));
        }
        check_length(&what, label)?;
        if !seen.insert(trim(label)) {
            return Err(Error::bad_input(format!(
                "the label {:?} is given twice; leave one out",
                trim(label)
            )));
        }
    }
    Ok(())
}

pub(super) fn check_templates(templates: &[String]) -> Result<()> {
    if templates.is_empty() {
        return Err(Error::bad_input(
            "there is no template; give at least one, for example \"This is a photo of {}.\"",
        ));
    }
    for template in templates {
        check_length("the template", template)?;
        let places = template.matches("{}").count();
        if places != 1 {
            let many = if places == 0 {
                "no {}".into()
            } else {
                format!("{places} times {{}}")
            };
            return Err(Error::bad_input(format!(
                "the template {template:?} has {many}; it must have {{}} once, where the label goes"
            )));
        }
    }
    Ok(())
}

/// The mean of unit vectors, of unit length again: how several templates become one label.
pub(super) fn mean(embeddings: &[Embedding]) -> Embedding {
    if let [one] = embeddings {
        return one.clone();
    }
    let mut sum = vec![0.0; embeddings[0].len()];
    for embedding in embeddings {
        for (total, value) in sum.iter_mut().zip(embedding) {
            *total += value;
        }
    }
    let length = length(&sum);
    sum.iter().map(|v| v / length).collect()
}

/// The Euclidean length, summed in f64.
pub(super) fn length(values: &[f32]) -> f32 {
    let squares = values.iter().map(|v| f64::from(*v) * f64::from(*v));
    squares.sum::<f64>().sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[derive(Deserialize)]
    struct Rules {
        labels: Vec<Case>,
        templates: Vec<Case>,
    }

    /// Texts, and what the error must say; null for those that are good.
    #[derive(Deserialize)]
    struct Case {
        texts: Vec<Text>,
        error: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        Plain(String),
        Repeated { repeat: String, times: usize },
    }

    impl Case {
        fn texts(&self) -> Vec<String> {
            let text = |text: &Text| match text {
                Text::Plain(text) => text.clone(),
                Text::Repeated { repeat, times } => repeat.repeat(*times),
            };
            self.texts.iter().map(text).collect()
        }

        fn holds(&self, texts: &[String], result: Result<()>) {
            match (&self.error, result) {
                (None, result) => result.unwrap_or_else(|error| panic!("{texts:?}: {error}")),
                (Some(words), Ok(())) => panic!("{texts:?} passed; it must fail with {words:?}"),
                (Some(words), Err(error)) => {
                    assert_eq!(error.code(), Code::BadInput);
                    assert!(
                        error.message().contains(words),
                        "{error} doesn't say {words:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn labels_and_templates_are_judged_as_javascript_judges_them() {
        let rules: Rules = serde_json::from_str(include_str!("../../tests/rules.json")).unwrap();
        for case in &rules.labels {
            let texts = case.texts();
            let words: Vec<&str> = texts.iter().map(String::as_str).collect();
            case.holds(&texts, check_labels(&words));
        }
        for case in &rules.templates {
            let texts = case.texts();
            case.holds(&texts, check_templates(&texts));
        }
    }

    fn set(embeddings: Vec<f32>) -> Result<LabelSet> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        LabelSet::new(
            "m".into(),
            texts(&["a cat", "a dog"]),
            texts(&["{}"]),
            embeddings,
        )
    }

    #[test]
    fn a_set_comes_back_from_json_bit_by_bit() {
        let set = set(vec![0.6, 0.8, -1.0, 0.0]).unwrap();
        let text = serde_json::to_string(&set).unwrap();
        assert_eq!(
            text,
            r#"{"model":"m","labels":["a cat","a dog"],"templates":["{}"],"embeddings":"mpkZP83MTD8AAIC/AAAAAA=="}"#
        );
        assert_eq!(serde_json::from_str::<LabelSet>(&text).unwrap(), set);
        assert_eq!(
            set.embeddings().collect::<Vec<_>>(),
            [[0.6, 0.8], [-1.0, 0.0]]
        );
    }

    #[test]
    fn damaged_sets_are_refused() {
        for (numbers, word) in [
            (vec![], "multiple"),
            (vec![0.6, 0.8, 1.0], "multiple"),
            (vec![0.6, 0.8, 0.5, 0.0], "\"a dog\" has length 0.5"),
            (vec![0.6, 0.8, f32::NAN, 0.0], "NaN"),
        ] {
            let error = set(numbers).unwrap_err();
            assert_eq!(error.code(), Code::BadInput);
            assert!(error.message().contains(word), "{error}");
        }
        for (from, to) in [
            ("AAAAAA==", "AAAAA==="),
            ("mpkZ", "mpk!"),
            ("{}", "x"),
            ("AAAAAA==", "AAAA"),
        ] {
            let text = serde_json::to_string(&set(vec![0.6, 0.8, -1.0, 0.0]).unwrap()).unwrap();
            assert!(
                serde_json::from_str::<LabelSet>(&text.replace(from, to)).is_err(),
                "{from} to {to}"
            );
        }
    }
}
