//! Weights split over several files: the same model.
#![cfg(not(target_family = "wasm"))]

use std::path::{Path, PathBuf};

use siglip_web::checkpoint::shard;
use siglip_web::{Backend, Classifier, ClassifyOptions, Code, device};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/model/tiny")
}

/// A copy of the fixture that may be changed.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(fixture()).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn logits(folder: &Path) -> Vec<f32> {
    let device = device::open(Backend::Cpu).unwrap();
    let mut classifier = Classifier::load(folder, &device).unwrap();
    let picture = std::fs::read(fixture().with_file_name("picture.png")).unwrap();
    let results = classifier.classify(&picture, &["a cat", "a dog"], &ClassifyOptions::default());
    results
        .unwrap()
        .into_iter()
        .map(|result| result.logit)
        .collect()
}

fn safetensors(folder: &Path) -> Vec<u64> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    files
        .filter(|file| {
            let name = file.file_name().into_string().unwrap();
            name.starts_with("model") && name.ends_with(".safetensors")
        })
        .map(|file| file.metadata().unwrap().len())
        .collect()
}

#[test]
fn shards_are_within_the_limit_and_the_same_model() {
    let folder = copy();
    let before = logits(folder.path());
    let [whole] = safetensors(folder.path())[..] else {
        panic!("one file")
    };
    let limit = whole / 3;
    let count = shard(folder.path(), limit).unwrap();
    let files = safetensors(folder.path());
    assert!(count > 2 && files.len() == count, "{files:?}");
    assert!(
        files.iter().all(|size| *size <= limit),
        "{files:?} > {limit}"
    );
    assert_eq!(logits(folder.path()), before);
}

#[test]
fn a_file_within_the_limit_stays_as_it_is() {
    let folder = copy();
    let [whole] = safetensors(folder.path())[..] else {
        panic!("one file")
    };
    assert_eq!(shard(folder.path(), whole).unwrap(), 1);
    assert_eq!(safetensors(folder.path()), [whole]);
}

#[test]
fn a_tensor_that_is_too_large_is_named_and_nothing_is_lost() {
    let folder = copy();
    let [whole] = safetensors(folder.path())[..] else {
        panic!("one file")
    };
    let before = logits(folder.path());
    // Room for the header and the small tensors, not for the largest.
    let error = (1..100).find_map(|percent| {
        let error = shard(folder.path(), whole * percent / 100).err()?;
        error.to_string().contains("by itself").then_some(error)
    });
    let error = error.expect("some limit is too small for a tensor");
    assert_eq!(error.code(), Code::BadInput);
    assert_eq!(safetensors(folder.path()), [whole]);
    assert_eq!(logits(folder.path()), before);
}
