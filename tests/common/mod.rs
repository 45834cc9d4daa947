//! The small checkpoints of `fixtures/model` and what transformers computed from them (`reference/model.py`), compiled into
//! the test so that it runs in a browser too.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::SafeTensors;
use siglip_web::checkpoint::{Checkpoint, Pace, Reader, Source, Store, too_large};
use siglip_web::kernels::to_vec;
use siglip_web::{Classifier, ClassifyOptions, Code, Error, LoadOptions, Picture, Result};

/// Files in memory.
#[derive(Clone, Default)]
pub struct Memory {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Whether readers tell no size, as servers without a content-length do.
    pub hides_sizes: bool,
    /// Whether files can only be read in order, as from servers without ranges.
    pub in_order: bool,
    /// The hash that files are said to have.
    pub sha256: Option<String>,
    /// What tells these files from others of the same names.
    pub validator: Option<String>,
    /// What was read of which file, and how many files were opened.
    pub reads: Arc<Mutex<Vec<(String, u64, usize)>>>,
    pub opened: Arc<AtomicUsize>,
}

impl Memory {
    /// Bytes that were read.
    pub fn bytes_read(&self) -> usize {
        self.reads
            .lock()
            .unwrap()
            .iter()
            .map(|(_, _, length)| length)
            .sum()
    }
}

pub struct MemoryReader {
    name: String,
    bytes: Vec<u8>,
    size: Option<u64>,
    in_order: bool,
    at: u64,
    sha256: Option<String>,
    validator: Option<String>,
    reads: Arc<Mutex<Vec<(String, u64, usize)>>>,
}

/// Keeps what is put into it, for any number of loads; embeddings of texts only where a test is about these: other tests see what the
/// weights compute.
#[derive(Clone, Default)]
pub struct MemoryStore {
    pub keeps_texts: bool,
    pub entries: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    pub manifest: Arc<Mutex<Option<String>>>,
}

impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries.lock().unwrap().get(key).cloned()
    }

    async fn put(&self, key: &str, bytes: &[u8]) {
        if key.starts_with("texts/") && !self.keeps_texts {
            return;
        }
        self.entries
            .lock()
            .unwrap()
            .insert(key.into(), bytes.to_vec());
    }

    async fn commit(&self, manifest: &str) {
        *self.manifest.lock().unwrap() = Some(manifest.into());
    }

    async fn manifest(&self) -> Option<String> {
        self.manifest.lock().unwrap().clone()
    }
}

impl Source for Memory {
    type Reader = MemoryReader;

    async fn read_all(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.files.get(file) {
            Some(bytes) if bytes.len() as u64 > limit => {
                Err(too_large(file, bytes.len() as u64, limit))
            }
            bytes => Ok(bytes.cloned()),
        }
    }

    async fn open(&self, file: &str) -> Result<Option<MemoryReader>> {
        Ok(self.files.get(file).map(|bytes| {
            self.opened.fetch_add(1, Ordering::Relaxed);
            MemoryReader {
                name: file.into(),
                bytes: bytes.clone(),
                size: (!self.hides_sizes).then_some(bytes.len() as u64),
                in_order: self.in_order,
                at: 0,
                sha256: self.sha256.clone(),
                validator: self.validator.clone(),
                reads: self.reads.clone(),
            }
        }))
    }
}

impl Reader for MemoryReader {
    fn size(&self) -> Option<u64> {
        self.size
    }

    fn random_access(&self) -> bool {
        !self.in_order
    }

    fn sha256(&self) -> Option<String> {
        self.sha256.clone()
    }

    fn validator(&self) -> Option<String> {
        self.validator.clone()
    }

    fn plan(&mut self, _: &[(u64, u64)]) {}

    async fn read_at(&mut self, offset: u64, length: usize) -> Result<Vec<u8>> {
        assert!(!self.in_order || offset >= self.at, "reads ascend");
        self.at = offset + length as u64;
        let start = self.bytes.len().min(offset as usize);
        let end = self.bytes.len().min(start + length);
        let read = (self.name.clone(), offset, end - start);
        self.reads.lock().unwrap().push(read);
        Ok(self.bytes[start..end].to_vec())
    }
}

macro_rules! fixture {
    ($model:literal, $($file:literal),*) => {
        Fixture {
            name: $model,
            files: &[$(($file, include_bytes!(concat!("../fixtures/model/", $model, "/", $file)))),*],
            goldens: include_bytes!(concat!("../fixtures/model/", $model, "/goldens.safetensors")),
            classify: include_str!(concat!("../fixtures/model/", $model, "/classify.json")),
        }
    };
}

/// A checkpoint and its goldens.
pub struct Fixture {
    pub name: &'static str,
    files: &'static [(&'static str, &'static [u8])],
    goldens: &'static [u8],
    classify: &'static str,
}

/// f32 in one file.
pub const TINY: Fixture = fixture!(
    "tiny",
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors"
);
/// f16 in one file.
pub const TINY_F16: Fixture = fixture!(
    "tiny-f16",
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors"
);
/// bf16 in shards; sizes that nothing divides, towers that differ.
pub const ODD: Fixture = fixture!(
    "odd",
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors"
);
/// All of them.
pub const FIXTURES: [Fixture; 3] = [TINY, TINY_F16, ODD];

/// The picture that `classify.json` is about.
pub const PICTURE: &[u8] = include_bytes!("../fixtures/model/picture.png");

impl Fixture {
    pub fn source(&self) -> Memory {
        Memory {
            files: self
                .files
                .iter()
                .map(|(name, bytes)| ((*name).into(), bytes.to_vec()))
                .collect(),
            ..Memory::default()
        }
    }

    fn goldens(&self) -> SafeTensors<'static> {
        SafeTensors::deserialize(self.goldens).expect("goldens are valid")
    }

    fn golden(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let goldens = self.goldens();
        let view = goldens.tensor(name).expect("a golden of this name");
        let values = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")))
            .collect();
        (view.shape().to_vec(), values)
    }

    fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let (shape, values) = self.golden(name);
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn input_ids(&self, device: &Device) -> Tensor<2, Int> {
        let goldens = self.goldens();
        let view = goldens.tensor("input_ids").expect("input_ids");
        let ids: Vec<i32> = view
            .data()
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as i32)
            .collect();
        Tensor::from_data(TensorData::new(ids, view.shape().to_vec()), device)
    }

    /// Fails unless `got` is the golden `name` (its first rows, where the golden keeps fewer), within `tolerance` relative to
    /// the golden's largest value, or to 1 where that is smaller.
    async fn compare<const D: usize>(&self, name: &str, got: Tensor<D>, tolerance: f32) {
        let (shape, expected) = self.golden(name);
        let dims = got.dims();
        assert_eq!(dims[1..], shape[1..], "{}: shape of {name}", self.name);
        let got = to_vec(got).await.expect("the device answers");
        let scale = expected.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
        for (i, (e, g)) in expected.iter().zip(&got).enumerate() {
            assert!(
                (e - g).abs() <= tolerance * scale,
                "{}: {name}[{i}] is {g}, transformers has {e} (tolerance {tolerance} × {scale})",
                self.name
            );
        }
    }

    /// Compares every stage of both towers with transformers; logits within `tolerance`, absolutely.
    pub async fn check_parity(&self, device: &Device, tolerance: f32) {
        let (source, options) = (self.source(), LoadOptions::exact());
        let checkpoint =
            Checkpoint::load_async(&source, (), &options, device, &(), &mut |_| {}).await;
        let checkpoint = checkpoint.expect("the fixture loads");
        let model = checkpoint.model;
        let text = model.text.as_ref().expect("a text tower");

        let pixel_values = self.tensor::<4>("pixel_values", device);
        let mut x = model.vision.embed(pixel_values.clone());
        self.compare("vision.hidden.0", x.clone(), tolerance).await;
        for (i, layer) in model.vision.encoder.layers.iter().enumerate() {
            x = layer.forward(x);
            self.compare(&format!("vision.hidden.{}", i + 1), x.clone(), tolerance)
                .await;
        }
        let normed = model.vision.post_layernorm.forward(x.clone());
        self.compare("vision.last_hidden_state", normed, tolerance)
            .await;
        self.compare("vision.pooler_output", model.vision.pool(x), tolerance)
            .await;
        let images = model.embed_images(pixel_values);
        self.compare("image_embeds", images.clone(), tolerance)
            .await;

        let ids = self.input_ids(device);
        let mut x = text.embed(ids.clone());
        self.compare("text.hidden.0", x.clone(), tolerance).await;
        let mut before_last = x.clone();
        for (i, layer) in text.encoder.layers.iter().enumerate() {
            before_last = x.clone();
            x = layer.forward(x);
            self.compare(&format!("text.hidden.{}", i + 1), x.clone(), tolerance)
                .await;
        }
        let normed = text.final_layer_norm.forward(x);
        self.compare("text.last_hidden_state", normed, tolerance)
            .await;
        let pooled = text.pool(before_last);
        self.compare("text.pooler_output", pooled, tolerance).await;
        let texts = model.embed_texts(ids);
        self.compare("text_embeds", texts.clone(), tolerance).await;

        let logits = to_vec(model.logits(images, texts))
            .await
            .expect("the device answers");
        let (_, expected) = self.golden("logits_per_image");
        for (e, g) in expected.iter().zip(&logits) {
            assert!(
                (e - g).abs() <= tolerance,
                "{}: logit {g}, transformers has {e}",
                self.name
            );
        }
    }

    /// From the bytes of a picture and the labels as typed to the numbers of transformers' pipeline.
    pub async fn check_classify(&self, device: &Device, tolerance: f32) {
        let expected: serde_json::Value = serde_json::from_str(self.classify).expect("valid JSON");
        let mut classifier = self.classifier(device).await.expect("the fixture loads");
        let labels: Vec<&str> = list(&expected, "labels")
            .map(|l| l.as_str().expect("label"))
            .collect();
        let logits: Vec<f32> = list(&expected, "logits").map(number).collect();
        let scores: Vec<f32> = list(&expected, "scores").map(number).collect();
        let options = ClassifyOptions::default();
        let got = classifier
            .classify_async(
                Picture::Encoded(PICTURE),
                &labels,
                &options,
                &(),
                &mut |_| {},
            )
            .await
            .expect("it classifies");
        assert_eq!(got.len(), labels.len());
        for pair in got.windows(2) {
            assert!(pair[0].score >= pair[1].score, "sorted by score");
        }
        for (i, label) in labels.iter().enumerate() {
            let ours = got
                .iter()
                .find(|r| r.label == *label)
                .expect("every label is scored");
            let (logit, score) = (logits[i], scores[i]);
            assert!(
                (ours.logit - logit).abs() <= tolerance,
                "{label}: logit {}, transformers has {logit}",
                ours.logit
            );
            assert!(
                (ours.score - score).abs() <= tolerance,
                "{label}: score {}, transformers has {score}",
                ours.score
            );
        }
        // The same again comes from the caches.
        let runs = classifier.runs();
        let again = classifier
            .classify_async(
                Picture::Encoded(PICTURE),
                &labels,
                &options,
                &(),
                &mut |_| {},
            )
            .await
            .expect("it classifies again");
        assert_eq!(again, got);
        assert_eq!(classifier.runs(), runs);
    }

    pub async fn classifier(&self, device: &Device) -> std::result::Result<Classifier, Error> {
        Classifier::load_async(
            &self.source(),
            (),
            &LoadOptions::exact(),
            device,
            &(),
            &mut |_| {},
        )
        .await
    }
}

/// A folder of the fixtures, in memory.
#[cfg(not(target_family = "wasm"))]
pub fn folder(name: &str) -> Memory {
    let path = format!("{}/tests/fixtures/model/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut source = Memory::default();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        source.files.insert(name, std::fs::read(path).unwrap());
    }
    source
}

fn list<'a>(
    value: &'a serde_json::Value,
    key: &str,
) -> impl Iterator<Item = &'a serde_json::Value> {
    value[key].as_array().expect("a list").iter()
}

fn number(value: &serde_json::Value) -> f32 {
    value.as_f64().expect("a number") as f32
}

/// Stops after a number of steps.
pub struct StopAfter(pub Cell<usize>);

impl Pace for StopAfter {
    async fn step(&self) -> Result<()> {
        match self.0.get() {
            0 => Err(Error::new(Code::Aborted, "stopped")),
            left => {
                self.0.set(left - 1);
                Ok(())
            }
        }
    }
}
