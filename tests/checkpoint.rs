//! Missing, damaged and mismatched checkpoint files: a stable code and a message that names the file.
#![cfg(not(target_family = "wasm"))]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use common::{FIXTURES, Memory, MemoryStore, ODD, PICTURE, StopAfter, TINY, folder};
use siglip_web::checkpoint::format::{FixedLabels, config_with_labels};
use siglip_web::checkpoint::{
    Calibration, Checkpoint, Converted, FileHeader, Folder, Pace, Progress, Source, Stage, Store,
    calibrate, convert, convert_folder, shard_names, weight_dtype,
};
use siglip_web::classifier::Picture;
use siglip_web::kernels::Numbers;
use siglip_web::model::{SiglipConfig, parameters};
use siglip_web::{
    Backend, Classifier, ClassifyOptions, Code, Dtype, Error, LabelScore, LabelSet, Labels,
    LoadOptions, device,
};

fn load(source: &Memory) -> Result<Checkpoint, Error> {
    Checkpoint::load(source, &LoadOptions::exact(), &Device::flex())
}

fn fails(source: &Memory, code: Code, words: &[&str]) {
    let error = load(source).err().expect("the load fails");
    assert_eq!(error.code(), code, "{error}");
    for word in words {
        assert!(
            error.message().contains(word),
            "{word:?} is not in: {error}"
        );
    }
}

/// A safetensors file with this header and data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [
        &(header.len() as u64).to_le_bytes(),
        header.as_bytes(),
        data,
    ]
    .concat()
}

/// The header of a safetensors file, and its data.
fn parts(file: &[u8]) -> (serde_json::Value, Vec<u8>) {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header = serde_json::from_slice(&file[8..8 + length]).unwrap();
    (header, file[8 + length..].to_vec())
}

/// TINY with its weights' header changed.
fn with_header(change: impl FnOnce(&mut serde_json::Value)) -> Memory {
    let mut source = TINY.source();
    let (mut header, data) = parts(&source.files["model.safetensors"]);
    change(&mut header);
    let file = safetensors(&header.to_string(), &data);
    source.files.insert("model.safetensors".into(), file);
    source
}

fn with_file(name: &str, bytes: impl Into<Vec<u8>>) -> Memory {
    let mut source = TINY.source();
    source.files.insert(name.into(), bytes.into());
    source
}

#[test]
fn missing_files_are_named() {
    for file in [
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "model.safetensors",
    ] {
        let mut source = TINY.source();
        source.files.remove(file);
        fails(&source, Code::BadModel, &[file, "missing"]);
    }
    let mut source = ODD.source();
    source.files.remove("model-00002-of-00003.safetensors");
    fails(
        &source,
        Code::BadModel,
        &["model-00002-of-00003.safetensors"],
    );
}

#[test]
fn web_pages_placeholders_and_cut_files_are_recognised() {
    for file in [
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "model.safetensors",
    ] {
        fails(
            &with_file(file, "<!DOCTYPE html><html><body>Sign in</body></html>"),
            Code::BadModel,
            &[file, "web page"],
        );
        let whole = TINY.source().files[file].clone();
        fails(
            &with_file(file, &whole[..whole.len() / 2]),
            Code::BadModel,
            &[file],
        );
        fails(&with_file(file, ""), Code::BadModel, &[file]);
    }
    fails(
        &with_file(
            "model.safetensors",
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        ),
        Code::BadModel,
        &["model.safetensors", "git lfs pull"],
    );
}

/// A header's length is a number; its first byte may be one that is a "<" in a text.
#[test]
fn a_header_of_any_length_is_no_web_page() {
    let mut source = TINY.source();
    let (header, data) = parts(&source.files["model.safetensors"]);
    let mut header = header.to_string();
    while header.len() % 256 != usize::from(b'<') {
        header.push(' ');
    }
    let file = safetensors(&header, &data);
    source.files.insert("model.safetensors".into(), file);
    load(&source).unwrap();
}

#[test]
fn vision_weights_alone_make_another_model() {
    let source = TINY.source();
    let mut tuned = source.clone();
    let place = place_of(&source, "vision_model.post_layernorm.weight");
    let file = tuned.files.get_mut("model.safetensors").unwrap();
    file[place..place + 4].copy_from_slice(&0.5_f32.to_le_bytes());
    let fingerprint = |source: &Memory, dtype| {
        let classifier = load_stored(source, (), &held_as(dtype), &()).unwrap();
        classifier.fingerprint().to_owned()
    };
    let own = fingerprint(&source, Dtype::F32);
    assert_eq!(fingerprint(&source, Dtype::Q8), own);
    assert_ne!(fingerprint(&tuned, Dtype::F32), own);
}

#[test]
fn truncation_is_found_at_any_length_even_when_sizes_are_unknown() {
    let whole = TINY.source().files["model.safetensors"].clone();
    for length in [1, 7, 8, 9, 500, whole.len() / 2, whole.len() - 1] {
        for hides_sizes in [false, true] {
            let mut source = with_file("model.safetensors", &whole[..length]);
            source.hides_sizes = hides_sizes;
            fails(&source, Code::BadModel, &["model.safetensors"]);
        }
    }
    let mut source = with_file("model.safetensors", [&whole[..], &[0]].concat());
    fails(&source, Code::BadModel, &["model.safetensors"]);
    source.hides_sizes = true;
    fails(&source, Code::BadModel, &["after its last tensor"]);
}

#[test]
fn unknown_sizes_are_no_obstacle() {
    let mut source = ODD.source();
    source.hides_sizes = true;
    load(&source).unwrap();
}

#[test]
fn tensors_that_are_missing_unknown_or_misshapen_are_named_with_both_shapes() {
    fails(
        &with_header(|header| {
            let bias = header["logit_bias"].take();
            header.as_object_mut().unwrap().remove("logit_bias");
            header["logit_bais"] = bias;
        }),
        Code::BadModel,
        &["logit_bais"],
    );
    fails(
        &with_header(|header| {
            header["vision_model.head.probe"]["shape"] = serde_json::json!([1, 64, 1])
        }),
        Code::BadModel,
        &["vision_model.head.probe", "[1, 64, 1]", "[1, 1, 64]"],
    );
    // A header with one tensor less and the data of the others.
    let mut source = TINY.source();
    let (header, data) = parts(&source.files["model.safetensors"]);
    let mut tensors: Vec<_> = header
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .collect();
    tensors.sort_by_key(|(_, info)| info["data_offsets"][0].as_u64());
    let (last, info) = tensors.pop().unwrap();
    let end = info["data_offsets"][0].as_u64().unwrap() as usize;
    let rest: serde_json::Map<_, _> = tensors
        .iter()
        .map(|(n, i)| ((*n).clone(), (*i).clone()))
        .collect();
    let file = safetensors(&serde_json::Value::from(rest).to_string(), &data[..end]);
    source.files.insert("model.safetensors".into(), file);
    fails(&source, Code::BadModel, &[last, "doesn't have"]);
}

#[test]
fn headers_that_lie_are_refused() {
    let huge = safetensors("{}", &[]);
    let lie = |length: u64| [&length.to_le_bytes(), &huge[8..]].concat();
    for length in [3, 1 << 20, 1 << 40, u64::MAX] {
        fails(
            &with_file("model.safetensors", lie(length)),
            Code::BadModel,
            &["model.safetensors"],
        );
    }
    // Overlap, hole, end before start, beyond the file, shape that overflows.
    let offsets = |offsets: [u64; 2]| {
        with_header(|h| h["text_model.head.bias"]["data_offsets"] = serde_json::json!(offsets))
    };
    for range in [
        [0, 256],
        [4, 0],
        [1 << 50, (1 << 50) + 4],
        [u64::MAX - 4, u64::MAX],
    ] {
        fails(&offsets(range), Code::BadModel, &["model.safetensors"]);
    }
    for shape in [
        "[1,4294967296,4294967296,4294967296]",
        "[18446744073709551615]",
        "[-1]",
        "[2]",
    ] {
        let shape: serde_json::Value = serde_json::from_str(shape).unwrap();
        fails(
            &with_header(|h| h["logit_bias"]["shape"] = shape),
            Code::BadModel,
            &["model.safetensors"],
        );
    }
    for header in [
        "",
        "[]",
        "{\"a\":1}",
        "nonsense",
        "{\"a\":{\"dtype\":\"F99\",\"shape\":[],\"data_offsets\":[0,0]}}",
    ] {
        fails(
            &with_file("model.safetensors", safetensors(header, &[])),
            Code::BadModel,
            &["model.safetensors"],
        );
    }
}

#[test]
fn number_formats_that_cannot_be_read_are_named() {
    fails(
        &with_header(|header| header["logit_bias"]["dtype"] = "I32".into()),
        Code::Unsupported,
        &["logit_bias", "I32"],
    );
}

#[test]
fn files_of_different_checkpoints_are_not_mixed() {
    let odd = ODD.source();
    for file in ["config.json", "preprocessor_config.json"] {
        fails(
            &with_file(file, odd.files[file].clone()),
            Code::BadModel,
            &["json"],
        );
    }
    let mut source = TINY.source();
    source
        .files
        .insert("tokenizer.json".into(), large_tokenizer());
    fails(&source, Code::BadModel, &["256"]);
}

/// TINY's tokenizer with more pieces than its model has rows.
fn large_tokenizer() -> Vec<u8> {
    let mut json: serde_json::Value =
        serde_json::from_slice(&TINY.source().files["tokenizer.json"]).unwrap();
    let pieces = json["model"]["vocab"].as_array_mut().unwrap();
    while pieces.len() < 300 {
        let piece = serde_json::json!([format!("piece{}", pieces.len()), -9.0]);
        pieces.push(piece);
    }
    json.to_string().into_bytes()
}

#[test]
fn shard_names_can_not_leave_the_folder() {
    let mut source = ODD.source();
    let index = String::from_utf8(source.files["model.safetensors.index.json"].clone()).unwrap();
    let index = index.replace("model-00001-of-00003.safetensors", "../model.safetensors");
    source
        .files
        .insert("model.safetensors.index.json".into(), index.into_bytes());
    fails(&source, Code::BadModel, &["../model.safetensors"]);
}

/// The fuzz targets of `tests/fuzz` do this for longer.
#[test]
fn changed_bytes_of_small_files_never_panic() {
    let (tiny, odd) = (TINY.source(), ODD.source());
    let weights = &tiny.files["model.safetensors"];
    let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let mut numbers = Numbers(1);
    let mut random = |below: usize| numbers.bits() as usize % below;
    let mut change = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] = b"0123456789-{}[]\",:e."[random(20)],
                2 => drop(bytes.drain(at..(at + 1 + random(8)).min(bytes.len()))),
                _ => bytes.insert(at, b'9'),
            }
            if bytes.is_empty() {
                break;
            }
        }
        bytes
    };
    for _ in 0..3000 {
        let _ = FileHeader::parse("file", &change(&weights[..8 + length]), None);
        let config = change(&odd.files["config.json"]);
        let _ = (
            SiglipConfig::from_json(&config),
            FixedLabels::from_config(&config),
        );
        if let Ok(names) = shard_names(&change(&odd.files["model.safetensors.index.json"]), &[]) {
            assert!(names.iter().all(|name| !name.contains(['/', '\\'])));
        }
    }
}

#[test]
fn old_position_ids_are_skipped() {
    let mut source = TINY.source();
    let (mut header, mut data) = parts(&source.files["model.safetensors"]);
    let start = data.len();
    data.extend([0; 16 * 8]);
    header["text_model.embeddings.position_ids"] =
        serde_json::json!({"dtype": "I64", "shape": [1, 16], "data_offsets": [start, data.len()]});
    source.files.insert(
        "model.safetensors".into(),
        safetensors(&header.to_string(), &data),
    );
    load(&source).unwrap();
}

#[test]
fn progress_counts_every_byte_of_every_file() {
    let source = ODD.source();
    let mut events = vec![];
    let mut progress = |p: siglip_web::checkpoint::Progress| {
        events.push((p.stage, p.file.map(str::to_owned), p.loaded, p.total));
    };
    pollster::block_on(Checkpoint::load_async(
        &source,
        (),
        &LoadOptions::exact(),
        &Device::flex(),
        &(),
        &mut progress,
    ))
    .unwrap();
    for (name, bytes) in source
        .files
        .iter()
        .filter(|(name, _)| name.ends_with(".safetensors"))
    {
        let of_file: Vec<_> = events
            .iter()
            .filter(|e| e.1.as_ref() == Some(name))
            .collect();
        assert!(
            of_file.windows(2).all(|pair| pair[0].2 <= pair[1].2),
            "{name} never goes back"
        );
        let last = of_file.last().unwrap();
        assert_eq!(
            (last.0, last.2, last.3),
            (Stage::Download, bytes.len() as u64, bytes.len() as u64)
        );
    }
    assert!(events.iter().any(|e| e.0 == Stage::Load));
}

fn load_stored(
    source: &impl Source,
    store: impl Store + Clone,
    options: &LoadOptions,
    pace: &impl Pace,
) -> Result<Classifier, Error> {
    pollster::block_on(Classifier::load_async(
        source,
        store,
        options,
        &Device::flex(),
        pace,
        &mut |_| {},
    ))
}

/// As it is, on any device.
fn load_on(device: &Device, source: &impl Source) -> Result<Classifier, Error> {
    let options = LoadOptions::exact();
    let progress = &mut |_: Progress| {};
    let load = Classifier::load_async(source, (), &options, device, &(), progress);
    pollster::block_on(load)
}

fn held_as(dtype: Dtype) -> LoadOptions {
    LoadOptions::default().with_dtype(dtype)
}

/// The embeddings of a set, as [`convert`] takes them.
fn vectors(set: &LabelSet) -> Vec<Vec<f32>> {
    set.embeddings().map(<[f32]>::to_vec).collect()
}

const LABELS: [&str; 4] = ["a cat", "two dogs", "the sky", "water"];

/// The logits of [`LABELS`] for the fixtures' picture.
fn logits(classifier: &mut Classifier) -> Vec<f32> {
    let results = classifier
        .classify(PICTURE, &LABELS, &ClassifyOptions::default())
        .unwrap();
    let logit = |label: &&str| results.iter().find(|r| r.label == *label).unwrap().logit;
    LABELS.iter().map(logit).collect()
}

#[test]
fn weights_in_fewer_bits_take_less_memory_and_give_nearly_the_same_logits() {
    for fixture in &FIXTURES {
        let source = fixture.source();
        let mut exact = load_stored(&source, (), &held_as(Dtype::F32), &()).unwrap();
        let (expected, mut bytes) = (logits(&mut exact), exact.checkpoint().bytes);
        assert_eq!(bytes, 4 * exact.checkpoint().parameters);
        for (dtype, bound) in [(Dtype::F16, 0.05), (Dtype::Q8, 0.7), (Dtype::Q4, 8.0)] {
            let mut classifier = load_stored(&source, (), &held_as(dtype), &()).unwrap();
            assert_eq!(classifier.checkpoint().dtype, dtype);
            let now = classifier.checkpoint().bytes;
            // Where sizes are no multiples of 4, q8 packs hardly more than f16 does.
            assert!(
                now < bytes || fixture.name == "odd" && now == bytes,
                "{}: {dtype:?} takes {now} of {bytes} bytes",
                fixture.name
            );
            bytes = now;
            for (got, expected) in logits(&mut classifier).iter().zip(&expected) {
                assert!(
                    (got - expected).abs() < bound,
                    "{} {dtype:?}: {got}, exactly {expected}",
                    fixture.name
                );
            }
        }
    }
}

#[test]
fn small_models_are_held_as_they_are() {
    let classifier = load_stored(&TINY.source(), (), &LoadOptions::default(), &()).unwrap();
    assert_eq!(classifier.checkpoint().dtype, Dtype::F32);
}

#[test]
fn a_complete_store_is_enough() {
    for dtype in [Dtype::F32, Dtype::Q8] {
        for fixture in [&TINY, &ODD] {
            let (source, store) = (fixture.source(), MemoryStore::default());
            let mut first = load_stored(&source, store.clone(), &held_as(dtype), &()).unwrap();
            assert!(store.manifest.lock().unwrap().is_some());
            source.opened.store(0, Ordering::Relaxed);
            let mut second = load_stored(&source, store.clone(), &held_as(dtype), &()).unwrap();
            assert_eq!(
                source.opened.load(Ordering::Relaxed),
                0,
                "no file was opened"
            );
            assert_eq!(logits(&mut second), logits(&mut first));
            // Another dtype is another matter.
            load_stored(&source, store, &held_as(Dtype::F16), &()).unwrap();
            assert!(source.opened.load(Ordering::Relaxed) > 0);
        }
    }
}

#[test]
fn only_damaged_entries_are_read_again() {
    let (source, store) = (TINY.source(), MemoryStore::default());
    let mut whole = load_stored(&source, store.clone(), &held_as(Dtype::Q8), &()).unwrap();
    let expected = logits(&mut whole);
    let keys: Vec<String> = store.entries.lock().unwrap().keys().cloned().collect();
    let file = &source.files["model.safetensors"];
    for (i, key) in keys
        .iter()
        .enumerate()
        .filter(|(_, key)| !key.starts_with("header") && !key.starts_with("tokenizer"))
    {
        let entry = store.entries.lock().unwrap()[key].clone();
        let damaged = match i % 3 {
            0 => entry[..entry.len() / 2].to_vec(),
            1 => Vec::new(),
            _ => {
                let mut bytes = entry.clone();
                *bytes.last_mut().unwrap() ^= 1;
                bytes
            }
        };
        store.entries.lock().unwrap().insert(key.clone(), damaged);
        source.reads.lock().unwrap().clear();
        let mut again = load_stored(&source, store.clone(), &held_as(Dtype::Q8), &()).unwrap();
        let name = key.split_once('/').unwrap().1;
        let (header, _) = parts(file);
        let offsets = &header[name]["data_offsets"];
        let length = offsets[1].as_u64().unwrap() - offsets[0].as_u64().unwrap();
        assert_eq!(source.bytes_read() as u64, length, "{name} alone");
        assert_eq!(
            store.entries.lock().unwrap()[key],
            entry,
            "{name} is whole again"
        );
        if i % 8 == 0 {
            assert_eq!(logits(&mut again), expected);
        }
    }
}

#[test]
fn a_load_that_was_stopped_goes_on_where_it_was() {
    use sha2::{Digest, Sha256};
    let mut source = TINY.source();
    let file = &source.files["model.safetensors"];
    let size = file.len();
    source.sha256 = Some(
        Sha256::digest(file)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect(),
    );
    let reference = MemoryStore::default();
    load_stored(&source, reference.clone(), &held_as(Dtype::Q8), &()).unwrap();
    let whole = reference.entries.lock().unwrap().clone();
    // Killed before any one entry is written: what came before is there, the manifest is not.
    let names: Vec<&String> = whole.keys().collect();
    for kept in (0..names.len()).step_by(7) {
        let store = MemoryStore::default();
        for name in &names[..kept] {
            store
                .entries
                .lock()
                .unwrap()
                .insert((*name).clone(), whole[*name].clone());
        }
        source.reads.lock().unwrap().clear();
        load_stored(&source, store.clone(), &held_as(Dtype::Q8), &()).unwrap();
        assert_eq!(*store.entries.lock().unwrap(), whole, "bit-equal");
        assert!(kept < 8 || source.bytes_read() < size);
    }
    for steps in 0..6 {
        let store = MemoryStore::default();
        let stop = StopAfter(steps.into());
        match load_stored(&source, store.clone(), &held_as(Dtype::Q8), &stop) {
            Err(error) => assert_eq!(error.code(), Code::Aborted),
            Ok(_) => break,
        }
        load_stored(&source, store.clone(), &held_as(Dtype::Q8), &()).unwrap();
        assert_eq!(*store.entries.lock().unwrap(), whole);
    }
}

#[test]
fn a_file_with_another_hash_than_stated_is_refused_and_not_kept() {
    let mut source = TINY.source();
    source.sha256 = Some("0".repeat(64));
    let store = MemoryStore::default();
    for _ in 0..2 {
        let error = load_stored(&source, store.clone(), &held_as(Dtype::F16), &())
            .err()
            .unwrap();
        assert_eq!(error.code(), Code::BadModel);
        assert!(error.message().contains("SHA-256"), "{error}");
        assert!(store.manifest.lock().unwrap().is_none());
    }
    // Nor is what a store has of another version of the file.
    let (old, store) = (TINY.source(), MemoryStore::default());
    load_stored(&old, store.clone(), &held_as(Dtype::F16), &()).unwrap();
    let mut new = old.clone();
    let bytes = new.files.get_mut("model.safetensors").unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    new.sha256 = Some("1".repeat(64));
    store.entries.lock().unwrap().remove("f16/logit_bias");
    let error = load_stored(&new, store, &held_as(Dtype::F16), &())
        .err()
        .unwrap();
    assert!(error.message().contains("SHA-256"), "{error}");
}

/// TINY with a token table of so many rows.
fn with_table(rows: usize) -> Memory {
    let mut source = TINY.source();
    let config = String::from_utf8(source.files["config.json"].clone()).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["text_config"]["vocab_size"] = rows.into();
    source
        .files
        .insert("config.json".into(), config.to_string().into_bytes());
    let (header, data) = parts(&source.files["model.safetensors"]);
    let mut tensors: Vec<(String, serde_json::Value)> = header
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, info)| (name.clone(), info.clone()))
        .collect();
    tensors.sort_by_key(|(_, info)| info["data_offsets"][0].as_u64());
    let (mut new_header, mut new_data) = (serde_json::Map::new(), Vec::new());
    for (name, mut info) in tensors {
        let offset = |i: usize| info["data_offsets"][i].as_u64().unwrap() as usize;
        let (start, end) = (new_data.len(), offset(1));
        new_data.extend_from_slice(&data[offset(0)..end]);
        if name.ends_with("token_embedding.weight") {
            new_data.resize(start + rows * 64 * 4, 7);
            info["shape"] = serde_json::json!([rows, 64]);
        }
        info["data_offsets"] = serde_json::json!([start, new_data.len()]);
        new_header.insert(name, info);
    }
    let header = serde_json::Value::from(new_header).to_string();
    let file = safetensors(&header, &new_data);
    source.files.insert("model.safetensors".into(), file);
    source
}

#[test]
fn of_a_large_token_table_only_the_rows_of_the_texts_are_read() {
    const TABLE: usize = 16 << 20;
    let source = with_table(TABLE / 256);
    let whole_table = held_as(Dtype::F32).with_whole_table();
    let expected = logits(&mut load_stored(&source, (), &whole_table, &()).unwrap());
    assert!(source.bytes_read() > TABLE);

    let store = MemoryStore::default();
    source.reads.lock().unwrap().clear();
    let mut classifier = load_stored(&source, store.clone(), &held_as(Dtype::F32), &()).unwrap();
    assert!(source.bytes_read() < 2 << 20, "{}", source.bytes_read());
    source.reads.lock().unwrap().clear();
    assert_eq!(logits(&mut classifier), expected);
    assert!(!source.reads.lock().unwrap().is_empty() && source.bytes_read() < 256 << 10);

    // Once read they are kept, so that the same labels need nothing of the source later.
    source.opened.store(0, Ordering::Relaxed);
    let mut classifier = load_stored(&source, store, &held_as(Dtype::F32), &()).unwrap();
    assert_eq!(logits(&mut classifier), expected);
    assert_eq!(source.opened.load(Ordering::Relaxed), 0);

    // A server without ranges sends the table anyway.
    let mut in_order = source.clone();
    in_order.in_order = true;
    let mut classifier = load_stored(&in_order, (), &held_as(Dtype::Q8), &()).unwrap();
    assert!(
        classifier.checkpoint().rows.is_some(),
        "the host gathers from the packed table"
    );
    for (got, expected) in logits(&mut classifier).iter().zip(&expected) {
        assert!((got - expected).abs() < 0.7, "{got}, exactly {expected}");
    }
}

/// `source` as [`convert`] writes it, with its small files.
fn converted(
    source: &Memory,
    dtype: Dtype,
    labels: Option<(&FixedLabels, &[Vec<f32>])>,
    calibration: Option<&Calibration>,
) -> Memory {
    let mut weights = Vec::new();
    pollster::block_on(convert(
        source,
        dtype,
        labels,
        calibration,
        &mut weights,
        &(),
    ))
    .unwrap();
    let mut folder = Memory::default();
    for (name, bytes) in source
        .files
        .iter()
        .filter(|(name, _)| !name.contains("safetensors"))
    {
        folder.files.insert(name.clone(), bytes.clone());
    }
    folder.files.insert("model.safetensors".into(), weights);
    folder
}

#[test]
fn a_converted_folder_is_what_it_would_be_after_loading() {
    for fixture in &FIXTURES {
        let source = fixture.source();
        let mut size = usize::MAX;
        for dtype in [Dtype::F16, Dtype::Q8, Dtype::Q4] {
            let expected = logits(&mut load_stored(&source, (), &held_as(dtype), &()).unwrap());
            let folder = converted(&source, dtype, None, None);
            let file = &folder.files["model.safetensors"];
            assert!(
                file.len() < size || fixture.name == "odd",
                "{}: {dtype:?} is no smaller",
                fixture.name
            );
            size = file.len();
            safetensors::SafeTensors::deserialize(file).expect("any reader can open it");
            // As it was made, without being told.
            let mut direct = load_stored(&folder, (), &LoadOptions::default(), &()).unwrap();
            assert_eq!(direct.checkpoint().dtype, dtype);
            assert_eq!(logits(&mut direct), expected, "{} {dtype:?}", fixture.name);
            // Unpacked, it is the same again up to rounding.
            let mut plain = load_stored(&folder, (), &held_as(Dtype::F32), &()).unwrap();
            for (got, expected) in logits(&mut plain).iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-2, "{got} and {expected}");
            }
        }
    }
}

/// Embeddings of 60 texts and of 40 pictures.
fn many_embeddings(folder: &Memory, options: &LoadOptions) -> [Vec<f32>; 2] {
    let mut classifier = load_stored(folder, (), options, &()).unwrap();
    let (colours, things) = (
        ["red", "blue", "big", "small"],
        ["cat", "dog", "house", "tree", "fish"],
    );
    let places = ["the sea", "a car", "water"];
    let texts: Vec<String> = (0..60)
        .map(|i| {
            format!(
                "a {} {} in {}",
                colours[i % 4],
                things[i / 4 % 5],
                places[i / 20]
            )
        })
        .collect();
    let texts = classifier.embed_text(&texts).unwrap().concat();
    let pictures = (0..40).map(|i| {
        let mut pixels = Vec::new();
        for (y, x) in (0..32).flat_map(|y| (0..32).map(move |x| (y, x))) {
            for channel in 0..3 {
                let phase = (x * (1 + i % 7) + y * (i % 5) + channel * i) as f32 / 7.0;
                pixels.push((128.0 + 120.0 * phase.sin()) as u8);
            }
            pixels.push(255);
        }
        let picture = Picture::Rgba {
            width: 32,
            height: 32,
            pixels: &pixels,
        };
        pollster::block_on(classifier.embed_image_async(picture, &())).unwrap()
    });
    let pictures = pictures.collect::<Vec<_>>().concat();
    [texts, pictures]
}

#[test]
fn calibrated_weights_give_embeddings_that_are_nearer() {
    let source = TINY.source();
    let mut told = Vec::new();
    let mut progress = |done, all| told.push((done, all));
    let calibration = pollster::block_on(calibrate(&source, true, &(), &mut progress)).unwrap();
    assert_eq!(told, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
    let plain = converted(&source, Dtype::Q4, None, None);
    let calibrated = converted(&source, Dtype::Q4, None, Some(&calibration));
    let size = |folder: &Memory| folder.files["model.safetensors"].len();
    assert_eq!(size(&plain), size(&calibrated));
    let exact = many_embeddings(&source, &held_as(Dtype::F32));
    let errors = [&plain, &calibrated].map(|folder| {
        let got = many_embeddings(folder, &LoadOptions::default());
        [0, 1].map(|i| {
            let pairs = got[i].iter().zip(&exact[i]);
            pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
        })
    });
    // In a model as small as this, the weights that have 8 bits make a good part of the error.
    let [plain, calibrated] = errors;
    assert!(
        calibrated[0] < 0.8 * plain[0],
        "texts: {calibrated:?} {plain:?}"
    );
    assert!(
        calibrated[1] < 0.9 * plain[1],
        "pictures: {calibrated:?} {plain:?}"
    );
}

#[test]
fn any_model_can_be_calibrated_and_the_vision_tower_alone() {
    for fixture in &FIXTURES {
        let source = fixture.source();
        let mut steps = 0;
        let mut progress = |done, all| {
            steps += 1;
            assert!(done == steps && done <= all);
        };
        let fixed = FixedLabels {
            labels: vec!["a cat".into(), "the sky".into()],
            templates: vec!["a photo of {}".into()],
        };
        let labels: Vec<&str> = fixed.labels.iter().map(String::as_str).collect();
        let mut whole = load_stored(&source, (), &held_as(Dtype::F32), &()).unwrap();
        let embeddings = vectors(&whole.embed_labels(&labels, &fixed.templates).unwrap());
        let calibration =
            pollster::block_on(calibrate(&source, false, &(), &mut progress)).unwrap();
        assert_eq!(steps, whole.config().vision.encoder.num_hidden_layers + 1);
        let labelled = Some((&fixed, embeddings.as_slice()));
        let mut folder = converted(&source, Dtype::Q4, labelled, Some(&calibration));
        let config = config_with_labels(&source.files["config.json"], &fixed).unwrap();
        folder.files.insert("config.json".into(), config);
        let mut classifier = load_stored(&folder, (), &LoadOptions::default(), &()).unwrap();
        let [got, expected] = [&mut classifier, &mut whole].map(|classifier| {
            let options = ClassifyOptions::default().with_templates(&fixed.templates);
            let results = classifier.classify(PICTURE, &labels, &options).unwrap();
            let logit = |label| results.iter().find(|r| r.label == label).unwrap().logit;
            logit("a cat") - logit("the sky")
        });
        assert!(
            (got - expected).abs() < 8.0,
            "{}: {got}, exactly {expected}",
            fixture.name
        );
    }
}

#[test]
fn four_bits_are_for_the_later_mlps_only() {
    let sizes = r#"{"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 7}"#;
    let json =
        format!(r#"{{"model_type": "siglip", "text_config": {sizes}, "vision_config": {sizes}}}"#);
    let config = SiglipConfig::from_json(json.as_bytes()).unwrap();
    let specs = parameters(&config);
    let q4 = specs
        .iter()
        .filter(|spec| spec.is_weight && weight_dtype(Dtype::Q4, spec) == Dtype::Q4);
    let names: Vec<&str> = q4.map(|spec| spec.name.as_str()).collect();
    let mut expected = Vec::new();
    for tower in ["vision", "text"] {
        for layer in 2..7 {
            for part in ["fc1", "fc2"] {
                expected.push(format!(
                    "{tower}_model.encoder.layers.{layer}.mlp.{part}.weight"
                ));
            }
        }
    }
    assert_eq!(names, expected);
}

#[test]
fn rows_of_a_packed_table_are_read_one_by_one_too() {
    // 80 bytes a row, 16 MiB and more.
    let folder = converted(&with_table(210_000), Dtype::Q8, None, None);
    let whole_table = held_as(Dtype::Q8).with_whole_table();
    let expected = logits(&mut load_stored(&folder, (), &whole_table, &()).unwrap());
    assert!(folder.bytes_read() > 16 << 20);
    folder.reads.lock().unwrap().clear();
    let got = logits(&mut load_stored(&folder, (), &held_as(Dtype::Q8), &()).unwrap());
    assert_eq!(got, expected);
    assert!(folder.bytes_read() < 1 << 20, "{}", folder.bytes_read());
}

#[test]
fn a_folder_for_fixed_labels_needs_no_text_tower_and_knows_no_others() {
    let source = TINY.source();
    let mut whole = load_stored(&source, (), &held_as(Dtype::F32), &()).unwrap();
    let expected = logits(&mut whole);
    let fixed = FixedLabels {
        labels: LABELS.map(str::to_owned).to_vec(),
        templates: ClassifyOptions::default().templates,
    };
    let embeddings = vectors(&whole.embed_labels(&LABELS, &fixed.templates).unwrap());
    let mut folder = converted(&source, Dtype::F16, Some((&fixed, &embeddings)), None);
    let config = config_with_labels(&source.files["config.json"], &fixed).unwrap();
    folder.files.insert("config.json".into(), config);
    folder.files.retain(|name, _| !name.contains("tokenizer"));
    assert!(folder.files["model.safetensors"].len() < source.files["model.safetensors"].len() / 3);

    let store = MemoryStore::default();
    for _ in 0..2 {
        let mut classifier =
            load_stored(&folder, store.clone(), &LoadOptions::default(), &()).unwrap();
        for (got, expected) in logits(&mut classifier).iter().zip(&expected) {
            assert!(
                (got - expected).abs() < 0.05,
                "{got}, with the text tower {expected}"
            );
        }
        let options = ClassifyOptions::default();
        let all = classifier.classify(PICTURE, &LABELS, &options).unwrap();
        let own = classifier.classify(PICTURE, Labels::Own, &options);
        assert_eq!(own.unwrap(), all);
        let error = classifier
            .classify(PICTURE, &["a cat", "a zebra"], &options)
            .unwrap_err();
        assert_eq!(error.code(), Code::BadInput);
        assert!(
            error.message().contains("a zebra") && error.message().contains("the sky"),
            "{error}"
        );
        let other = options.with_templates(["a drawing of {}"]);
        let error = classifier
            .classify(PICTURE, &["a cat"], &other)
            .unwrap_err();
        assert_eq!(error.code(), Code::BadInput);
        let error = classifier.embed_text(&["a cat"]).unwrap_err();
        assert_eq!(error.code(), Code::Unsupported);
    }
}

/// The same file with other numbers in its token table.
fn with_other_table(source: &Memory) -> Memory {
    let mut other = source.clone();
    let file = other.files.get_mut("model.safetensors").unwrap();
    let (header, data) = parts(file);
    let offsets = &header["text_model.embeddings.token_embedding.weight"]["data_offsets"];
    let offset = |i: usize| offsets[i].as_u64().unwrap() as usize + file.len() - data.len();
    let (start, end) = (offset(0), offset(1));
    for value in file[start..end].chunks_exact_mut(4) {
        // Its sign.
        value[3] ^= 0x80;
    }
    other
}

const OTHER_LABELS: [&str; 2] = ["a red fish", "a green house"];

fn other_logits(classifier: &mut Classifier) -> Result<Vec<f32>, Error> {
    let options = ClassifyOptions::default();
    let results = classifier.classify(PICTURE, &OTHER_LABELS, &options)?;
    let logit = |label: &&str| results.iter().find(|r| r.label == *label).unwrap().logit;
    Ok(OTHER_LABELS.iter().map(logit).collect())
}

#[test]
fn rows_are_never_of_another_file_than_the_weights() {
    let versions: [fn(&mut Memory, &str); 2] = [
        |source, version| source.validator = Some(version.into()),
        |source, version| source.sha256 = Some(version.into()),
    ];
    for set in versions {
        let mut old = with_table((16 << 20) / 256);
        let mut new = with_other_table(&old);
        set(&mut old, "old");
        set(&mut new, "new");
        let expected = |source: &Memory| {
            let mut classifier = load_stored(source, (), &held_as(Dtype::F32), &()).unwrap();
            other_logits(&mut classifier).unwrap()
        };
        let (of_old, of_new) = (expected(&old), expected(&new));
        assert!((of_old[0] - of_new[0]).abs() > 0.1, "{of_old:?} {of_new:?}");

        // The folder is replaced after a load: new words have no rows any more, and the next load is of the new files.
        let store = MemoryStore::default();
        load_stored(&old, store.clone(), &held_as(Dtype::F32), &()).unwrap();
        let mut stale = load_stored(&new, store.clone(), &held_as(Dtype::F32), &()).unwrap();
        let error = other_logits(&mut stale).unwrap_err();
        assert_eq!(error.code(), Code::Network);
        assert!(error.message().contains("load the model again"), "{error}");
        let mut again = load_stored(&new, store.clone(), &held_as(Dtype::F32), &()).unwrap();
        assert_eq!(other_logits(&mut again).unwrap(), of_new);

        // Another tab has loaded the new files into the store that an old tab still writes to.
        let store = MemoryStore::default();
        let mut old_tab = load_stored(&old, store.clone(), &held_as(Dtype::F32), &()).unwrap();
        *store.manifest.lock().unwrap() = None;
        load_stored(&new, store.clone(), &held_as(Dtype::F32), &()).unwrap();
        assert_eq!(other_logits(&mut old_tab).unwrap(), of_old);
        let mut new_tab = load_stored(&new, store, &held_as(Dtype::F32), &()).unwrap();
        assert_eq!(other_logits(&mut new_tab).unwrap(), of_new);
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_anew_or_refused() {
    let mut old = TINY.source();
    old.validator = Some("old".into());
    let (mut new, store) = (with_other_table(&old), MemoryStore::default());
    new.validator = Some("new".into());
    load_stored(&old, store.clone(), &held_as(Dtype::F32), &()).unwrap();
    // Something of the old file must be read again, and only the new one is there.
    store.entries.lock().unwrap().remove("f32/logit_bias");
    let mut loaded = load_stored(&new, store.clone(), &held_as(Dtype::F32), &()).unwrap();
    let mut fresh = load_stored(&new, (), &held_as(Dtype::F32), &()).unwrap();
    assert_eq!(logits(&mut loaded), logits(&mut fresh));
}

/// Where a tensor's numbers are in TINY's weights.
fn place_of(source: &Memory, tensor: &str) -> usize {
    let file = &source.files["model.safetensors"];
    let (header, data) = parts(file);
    let start = header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    file.len() - data.len() + start
}

#[test]
fn weights_that_are_not_finite_are_named_in_every_dtype() {
    let tensors = [
        "vision_model.head.probe",
        "vision_model.head.attention.in_proj_weight",
        "vision_model.encoder.layers.0.self_attn.q_proj.weight",
        "text_model.encoder.layers.1.self_attn.k_proj.weight",
        "text_model.encoder.layers.1.mlp.fc1.weight",
        "text_model.embeddings.token_embedding.weight",
    ];
    for tensor in tensors {
        for (value, index) in [(f32::NAN, 0), (f32::INFINITY, 17), (f32::NEG_INFINITY, 63)] {
            let mut source = TINY.source();
            let at = place_of(&source, tensor) + 4 * index;
            source.files.get_mut("model.safetensors").unwrap()[at..at + 4]
                .copy_from_slice(&value.to_le_bytes());
            for dtype in Dtype::ALL {
                let error = load_stored(&source, (), &held_as(dtype), &()).err();
                let error = error.expect("the load fails");
                assert_eq!(error.code(), Code::BadModel);
                let named = format!("number {index} of the tensor {tensor}");
                assert!(error.message().contains(&named), "{dtype:?}: {error}");
            }
        }
    }
}

#[test]
fn weights_beyond_what_f16_reaches_are_named_where_it_would_hold_them() {
    let held_in_f16 = |dtype, tensor: &str| match dtype {
        Dtype::F32 => false,
        Dtype::F16 => true,
        // The token table, queries and keys are held finer.
        Dtype::Q8 => !tensor.contains("fc1"),
        Dtype::Q4 => false,
    };
    for tensor in [
        "text_model.encoder.layers.1.self_attn.k_proj.weight",
        "text_model.encoder.layers.1.mlp.fc1.weight",
        "text_model.embeddings.token_embedding.weight",
    ] {
        for value in [65536.0_f32, -1e30] {
            let mut source = TINY.source();
            let at = place_of(&source, tensor) + 4 * 21;
            source.files.get_mut("model.safetensors").unwrap()[at..at + 4]
                .copy_from_slice(&value.to_le_bytes());
            for dtype in Dtype::ALL {
                let loaded = load_stored(&source, (), &held_as(dtype), &());
                let Err(error) = loaded else {
                    assert!(!held_in_f16(dtype, tensor), "{tensor} as {dtype:?}");
                    continue;
                };
                assert!(held_in_f16(dtype, tensor), "{dtype:?}: {error}");
                assert_eq!(error.code(), Code::BadModel);
                let named = format!("number 21 of the tensor {tensor} is {value}");
                for word in [&named, "65504", "f32"] {
                    assert!(error.message().contains(word), "{dtype:?}: {error}");
                }
            }
        }
    }
    // What rounds to the last number of f16 is held.
    let mut source = TINY.source();
    let at = place_of(&source, "text_model.encoder.layers.1.mlp.fc1.weight");
    source.files.get_mut("model.safetensors").unwrap()[at..at + 4]
        .copy_from_slice(&65519.0_f32.to_le_bytes());
    load_stored(&source, (), &held_as(Dtype::F16), &()).unwrap();
}

#[test]
fn packed_weights_that_are_not_finite_are_named_too() {
    // The last block of the third row, by its scale and offset or its own number.
    let tensor = "text_model.encoder.layers.1.mlp.fc1.weight";
    for (dtype, word, bits, index) in [
        (Dtype::F16, 2 * 32 + 31, 0x7c00_0000_u32, 2 * 64 + 63),
        (Dtype::Q8, 2 * 20 + 17, 0x7f80_0000, 2 * 64 + 32),
        (Dtype::Q8, 2 * 20 + 17, 0x0000_7fc0, 2 * 64 + 32),
        (Dtype::Q4, 2 * 12 + 9, 0x0000_7f80, 2 * 64 + 32),
    ] {
        let mut folder = converted(&TINY.source(), dtype, None, None);
        let at = place_of(&folder, tensor) + 4 * word;
        folder.files.get_mut("model.safetensors").unwrap()[at..at + 4]
            .copy_from_slice(&bits.to_le_bytes());
        for held in Dtype::ALL {
            let error = load_stored(&folder, (), &held_as(held), &()).err();
            let error = error.expect("the load fails");
            assert_eq!(error.code(), Code::BadModel);
            let named = format!("number {index} of the tensor {tensor}");
            assert!(
                error.message().contains(&named),
                "{dtype:?} as {held:?}: {error}"
            );
        }
    }
}

/// The weights are finite, what comes of them is not.
#[test]
fn sums_that_overflow_are_an_error_on_both_devices_and_never_an_answer() {
    let devices = [
        Device::flex(),
        #[cfg(feature = "webgpu")]
        device::open(Backend::WebGpu).unwrap(),
    ];
    let (header, _) = parts(&TINY.source().files["model.safetensors"]);
    let tensors = header.as_object().unwrap();
    for (tensor, info) in tensors.iter().filter(|(name, _)| name.contains('.')) {
        let mut source = TINY.source();
        let start = place_of(&source, tensor);
        let offsets = &info["data_offsets"];
        let length = offsets[1].as_u64().unwrap() - offsets[0].as_u64().unwrap();
        let file = source.files.get_mut("model.safetensors").unwrap();
        for number in file[start..start + length as usize].chunks_exact_mut(4) {
            // 1.7e38, with the sign that it had.
            let sign = number[3] & 0x80;
            number.copy_from_slice(&1.7e38_f32.to_le_bytes());
            number[3] |= sign;
        }
        for device in &devices {
            let classified = load_on(device, &source).and_then(|mut classifier| {
                classifier.classify(PICTURE, &LABELS, &ClassifyOptions::default())
            });
            let error = classified.expect_err(tensor);
            let codes = match *device == Device::flex() {
                true => &[Code::BadModel][..],
                // What overflows on a GPU alone is not the model's fault for sure.
                false => &[Code::BadModel, Code::DeviceLost],
            };
            assert!(
                codes.contains(&error.code()),
                "{device:?}, {tensor}: {error}"
            );
        }
    }
}

/// A source that keeps small files, of which some copies are damaged.
#[derive(Clone)]
struct Keeping {
    files: Memory,
    copies: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    read: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Source for Keeping {
    type Reader = <Memory as Source>::Reader;

    async fn read_all(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        if let Some(copy) = self.copies.lock().unwrap().get(file) {
            return Ok(Some(copy.clone()));
        }
        let bytes = self.files.read_all(file, limit).await?;
        if let Some(bytes) = &bytes {
            self.read.lock().unwrap().insert(file.into(), bytes.clone());
        }
        Ok(bytes)
    }

    async fn open(&self, file: &str) -> Result<Option<Self::Reader>, Error> {
        self.files.open(file).await
    }

    async fn keep(&self) {
        let mut read = self.read.lock().unwrap();
        self.copies.lock().unwrap().append(&mut read);
    }

    async fn forget(&self) -> bool {
        self.read.lock().unwrap().clear();
        let mut copies = self.copies.lock().unwrap();
        let any = !copies.is_empty();
        copies.clear();
        any
    }
}

impl Keeping {
    fn new(files: Memory) -> Self {
        Self {
            files,
            copies: Arc::default(),
            read: Arc::default(),
        }
    }

    fn load(&self) -> Result<Classifier, Error> {
        load_stored(self, (), &held_as(Dtype::F32), &())
    }
}

#[test]
fn small_files_are_kept_when_they_can_be_parsed_and_dropped_when_not() {
    for fixture in &FIXTURES {
        let whole = fixture.source();
        let small: Vec<&String> = whole
            .files
            .keys()
            .filter(|name| name.ends_with(".json"))
            .collect();
        for name in small {
            let mut damaged = whole.clone();
            let bytes = damaged.files.get_mut(name).unwrap();
            bytes.truncate(bytes.len() / 2);
            // Damaged on its way: not kept, and a load from a healthy server is right.
            let mut source = Keeping::new(damaged);
            let error = source.load().err().expect("the load fails");
            assert_eq!(error.code(), Code::BadModel, "{name}: {error}");
            assert!(!source.copies.lock().unwrap().contains_key(name), "{name}");
            source.files = whole.clone();
            let expected = logits(&mut source.load().unwrap());
            assert!(
                source.copies.lock().unwrap().contains_key(name),
                "{name} is kept"
            );
            // Damaged where it is kept: fetched once more.
            let copy = whole.files[name][..7].to_vec();
            source.copies.lock().unwrap().insert(name.clone(), copy);
            assert_eq!(logits(&mut source.load().unwrap()), expected);
            assert_eq!(source.copies.lock().unwrap()[name], whole.files[name]);
        }
    }
}

/// The header of SigLIP 2 So400m/16-512 in one file of f32: 4.5 GB, the token table last but for a few.
fn header_beyond_4_gib() -> (SiglipConfig, Vec<u8>) {
    let sizes = r#""hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27"#;
    let json = format!(
        r#"{{"model_type": "siglip", "text_config": {{{sizes}, "vocab_size": 256000}}, "vision_config": {{{sizes}, "image_size": 512, "patch_size": 16}}}}"#
    );
    let config = SiglipConfig::from_json(json.as_bytes()).unwrap();
    let (mut header, mut end) = (serde_json::Map::new(), 0_u64);
    let mut specs = parameters(&config);
    // As transformers writes it, the vision tower comes last; here the table does, so that its rows lie beyond 4 GiB.
    specs.sort_by_key(|spec| spec.name == "text_model.embeddings.token_embedding.weight");
    for spec in specs {
        let start = end;
        end += 4 * spec.shape.iter().map(|side| *side as u64).product::<u64>();
        let info =
            serde_json::json!({"dtype": "F32", "shape": spec.shape, "data_offsets": [start, end]});
        header.insert(spec.name, info);
    }
    (
        config,
        safetensors(&serde_json::Value::from(header).to_string(), &[]),
    )
}

#[test]
fn a_file_of_more_than_4_gib_is_read_from_end_to_end() {
    let (_, bytes) = header_beyond_4_gib();
    let header = FileHeader::parse("model.safetensors", &bytes, None).unwrap();
    let last = header.tensors.last().unwrap();
    assert_eq!(last.bytes, 256_000 * 1152 * 4);
    assert!(header.file_size() > 4_500_000_000, "{}", header.file_size());
    assert_eq!(last.offset + last.bytes, header.file_size());
    assert_eq!(
        FileHeader::parse("model.safetensors", &bytes, Some(header.file_size()))
            .unwrap()
            .tensors
            .len(),
        header.tensors.len()
    );
    fails_to_parse(&bytes, Some(header.file_size() - (1 << 32)));
}

fn fails_to_parse(bytes: &[u8], size: Option<u64>) {
    let error = FileHeader::parse("model.safetensors", bytes, size).unwrap_err();
    assert_eq!(error.code(), Code::BadModel);
}

#[test]
fn limits_are_named_before_anything_large_is_read() {
    // A sparse file of 200 MB.
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("config.json")).unwrap();
    file.set_len(200_000_000).unwrap();
    let source = Folder::new(folder.path()).unwrap();
    let error = Checkpoint::load(&source, &LoadOptions::exact(), &Device::flex())
        .err()
        .unwrap();
    assert_eq!(error.code(), Code::BadModel);
    assert!(
        error.message().contains("config.json has 200000000 bytes"),
        "{error}"
    );

    let many = |count: usize| {
        let mut source = TINY.source();
        let (mut header, data) = parts(&source.files["model.safetensors"]);
        for i in 0..count {
            header[format!("{i}")] = serde_json::json!({"dtype": "F32", "shape": [0], "data_offsets": [data.len(), data.len()]});
        }
        let file = safetensors(&header.to_string(), &data);
        source.files.insert("model.safetensors".into(), file);
        source
    };
    fails(&many(30_000), Code::Unsupported, &["tensors", "20000"]);
    fails(
        &many(200_000),
        Code::BadModel,
        &["header", "any SigLIP needs"],
    );
    // Empty tensors that nobody asks for take no entry of the store each.
    let store = MemoryStore::default();
    let loaded = load_stored(&many(8000), store.clone(), &held_as(Dtype::F32), &()).unwrap();
    assert_eq!(loaded.checkpoint().unused.len(), 8000);
    assert!(store.entries.lock().unwrap().len() < 200);
}

#[test]
fn tensors_of_no_use_are_told_and_skipped_unless_one_is_missing() {
    let mut source = TINY.source();
    let (mut header, mut data) = parts(&source.files["model.safetensors"]);
    let start = data.len();
    data.extend([7; 12]);
    header["vision_model.head.extra"] =
        serde_json::json!({"dtype": "I32", "shape": [3], "data_offsets": [start, data.len()]});
    source.files.insert(
        "model.safetensors".into(),
        safetensors(&header.to_string(), &data),
    );
    let (mut loaded, mut plain) = (
        load_stored(&source, (), &held_as(Dtype::F32), &()).unwrap(),
        load_stored(&TINY.source(), (), &held_as(Dtype::F32), &()).unwrap(),
    );
    assert_eq!(loaded.checkpoint().unused, ["vision_model.head.extra"]);
    assert_eq!(logits(&mut loaded), logits(&mut plain));
}

#[test]
fn a_classifier_moves_between_threads() {
    fn check<T: Send>(_: &T) {}
    let source = siglip_web::checkpoint::Memory::new(TINY.source().files);
    let mut classifier = load_stored(&source, (), &LoadOptions::default(), &()).unwrap();
    check(&classifier);
    let expected = logits(&mut classifier);
    let got = std::thread::spawn(move || logits(&mut classifier))
        .join()
        .unwrap();
    assert_eq!(got, expected);
}

/// Tensors of a file by name: format, shape and bytes.
fn tensors(file: &[u8]) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let (header, data) = parts(file);
    let tensors = header.as_object().unwrap().iter();
    let tensors = tensors.filter(|(name, _)| *name != "__metadata__");
    let tensors = tensors.map(|(name, info)| {
        let offset = |i: usize| info["data_offsets"][i].as_u64().unwrap() as usize;
        let shape = info["shape"].as_array().unwrap().iter();
        let shape = shape.map(|side| side.as_u64().unwrap() as usize).collect();
        let bytes = data[offset(0)..offset(1)].to_vec();
        let dtype = info["dtype"].as_str().unwrap().to_owned();
        (name.clone(), (dtype, shape, bytes))
    });
    tensors.collect()
}

/// The file of these tensors.
fn file_of(tensors: &BTreeMap<String, (String, Vec<usize>, Vec<u8>)>) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        let info = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), info);
    }
    safetensors(&serde_json::Value::from(header).to_string(), &data)
}

/// Does a folder give the logits that its `classify.json` has, from its files and from what is kept of them?
fn assert_golden(name: &str) {
    let source = folder(name);
    let golden: serde_json::Value = serde_json::from_slice(&source.files["classify.json"]).unwrap();
    let list = |key: &str| golden[key].as_array().unwrap().clone();
    let labels = list("labels");
    let labels: Vec<&str> = labels.iter().map(|label| label.as_str().unwrap()).collect();
    let devices = [
        Device::flex(),
        #[cfg(feature = "webgpu")]
        device::open(Backend::WebGpu).unwrap(),
    ];
    let held = [
        (Dtype::F32, 1e-4),
        (Dtype::F16, 0.05),
        (Dtype::Q8, 0.7),
        // Four bits of a small random model; see below for more.
        (Dtype::Q4, 5.0),
    ];
    for (device, (dtype, bound)) in devices.iter().flat_map(|d| held.map(|held| (d, held))) {
        let store = MemoryStore::default();
        // The second time from the store.
        for _ in 0..2 {
            let options = held_as(dtype);
            let progress = &mut |_: Progress| {};
            let load =
                Classifier::load_async(&source, store.clone(), &options, device, &(), progress);
            let mut classifier = pollster::block_on(load).unwrap();
            assert_eq!(classifier.checkpoint().unused, [""; 0], "{name}");
            let options = ClassifyOptions::default();
            let results = classifier.classify(PICTURE, &labels, &options).unwrap();
            for (label, expected) in labels.iter().zip(list("logits")) {
                let got = results.iter().find(|r| r.label == *label).unwrap().logit;
                let error = (f64::from(got) - expected.as_f64().unwrap()).abs();
                assert!(
                    error < bound,
                    "{name} {dtype:?} on {device:?}, {label}: {got}, the reference has {expected}"
                );
            }
        }
    }
}

#[test]
fn files_that_mlx_wrote_give_what_transformers_computes_with_their_numbers() {
    for name in ["mlx-8bit", "mlx-mixed"] {
        assert_golden(name);
        assert_converted(name, &TINY.source().files["config.json"]);
    }
}

/// Are the numbers of a folder the same when they are written anew in our own format, which has them as transformers' layout does?
fn assert_converted(name: &str, config: &[u8]) {
    let source = folder(name);
    for dtype in [Dtype::F16, Dtype::Q8, Dtype::Q4] {
        let mut direct = load_stored(&source, (), &held_as(dtype), &()).unwrap();
        let mut anew = converted(&source, dtype, None, None);
        anew.files.insert("config.json".into(), config.to_vec());
        let mut anew = load_stored(&anew, (), &LoadOptions::default(), &()).unwrap();
        assert_eq!(logits(&mut anew), logits(&mut direct), "{name} {dtype:?}");
    }
}

/// A fine-tuned classifier's answer.
fn own(source: &Memory, options: &LoadOptions) -> Vec<LabelScore> {
    let mut classifier = load_stored(source, (), options, &()).unwrap();
    let options = ClassifyOptions::default();
    classifier.classify(PICTURE, Labels::Own, &options).unwrap()
}

#[test]
fn a_fine_tuned_classifier_is_converted_as_it_would_be_loaded() {
    for name in ["classifier-single", "classifier-one", "classifier-multi"] {
        let source = folder(name);
        for dtype in [Dtype::F16, Dtype::Q8, Dtype::Q4] {
            let direct = converted(&source, dtype, None, None);
            let file = &direct.files["model.safetensors"];
            let names = safetensors::SafeTensors::deserialize(file).unwrap();
            assert!(
                names
                    .names()
                    .iter()
                    .all(|name| !name.contains("vision_model.head"))
            );
            assert_eq!(
                own(&direct, &LoadOptions::default()),
                own(&source, &held_as(dtype)),
                "{name} {dtype:?}"
            );
        }
        // Calibrated, it stays as near to the exact one.
        let calibration = pollster::block_on(calibrate(&source, true, &(), &mut |_, _| {}));
        let calibrated = converted(&source, Dtype::Q4, None, Some(&calibration.unwrap()));
        let exact = own(&source, &LoadOptions::exact());
        for result in own(&calibrated, &LoadOptions::default()) {
            let near = exact.iter().filter(|other| other.label == result.label);
            let error = near.map(|other| (other.logit - result.logit).abs());
            assert!(
                error.fold(f32::INFINITY, f32::min) < 0.2,
                "{name}: {result:?}, exactly {exact:?}"
            );
        }
    }
    let fixed = FixedLabels {
        labels: vec!["a".into()],
        templates: vec!["{}".into()],
    };
    let embeddings = vec![vec![1.0; 32]];
    let source = folder("classifier-single");
    let error = pollster::block_on(convert(
        &source,
        Dtype::Q8,
        Some((&fixed, &embeddings)),
        None,
        &mut Vec::new(),
        &(),
    ));
    assert_eq!(error.unwrap_err().code(), Code::Unsupported);
}

/// A fixture whose config.json is changed.
fn with_config(name: &str, change: &dyn Fn(&mut serde_json::Value)) -> Memory {
    let mut source = folder(name);
    let mut config = serde_json::from_slice(&source.files["config.json"]).unwrap();
    change(&mut config);
    source
        .files
        .insert("config.json".into(), config.to_string().into_bytes());
    source
}

/// transformers writes no names for two classes that have none, as that is its default.
#[test]
fn a_classifier_of_two_classes_without_names_has_those_of_transformers() {
    for name in ["classifier-single", "classifier-multi"] {
        let mut source = with_config(name, &|config| {
            config["architectures"] = serde_json::json!(["SiglipForImageClassification"]);
            drop(config.as_object_mut().unwrap().remove("id2label"));
        });
        let mut all = tensors(&source.files["model.safetensors"]);
        for key in ["classifier.weight", "classifier.bias"] {
            let (_, shape, bytes) = all.get_mut(key).unwrap();
            bytes.truncate(bytes.len() / shape[0] * 2);
            shape[0] = 2;
        }
        source
            .files
            .insert("model.safetensors".into(), file_of(&all));
        let loaded = Checkpoint::load(&source, &LoadOptions::exact(), &Device::flex()).unwrap();
        let labels = loaded.config.classifier.unwrap().labels;
        assert_eq!(labels, ["LABEL_0", "LABEL_1"]);
    }
}

#[test]
fn a_classifier_whose_files_dont_fit_together_is_told_by_key_and_shapes() {
    let name = "classifier-single";
    let more = with_config(name, &|config| config["id2label"]["3"] = "a horse".into());
    fails(
        &more,
        Code::BadModel,
        &["classifier.", "[3", "[4", "id2label"],
    );
    let fewer = with_config(name, &|config| {
        config["id2label"] = serde_json::json!({"0": "a"})
    });
    fails(
        &fewer,
        Code::BadModel,
        &["classifier.", "[3", "[1", "id2label"],
    );
    // A head and no labels; labels and no head; a head where both towers are promised.
    let nameless = with_config(name, &|config| {
        drop(config.as_object_mut().unwrap().remove("id2label"))
    });
    fails(
        &nameless,
        Code::BadModel,
        &["classifier.", "[3", "[2", "id2label"],
    );
    let mut headless = folder(name);
    let mut all = tensors(&headless.files["model.safetensors"]);
    all.remove("classifier.weight");
    headless
        .files
        .insert("model.safetensors".into(), file_of(&all));
    fails(&headless, Code::BadModel, &["classifier.weight"]);
    let both = with_config("tiny", &|config| {
        config["architectures"] = serde_json::json!(["SiglipForImageClassification"]);
        config["id2label"] = serde_json::json!({"0": "a"});
    });
    fails(&both, Code::BadModel, &["classifier.bias"]);
    let mut towers = with_config(name, &|config| {
        config["architectures"] = serde_json::json!(["SiglipModel"])
    });
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        towers
            .files
            .insert(file.into(), TINY.source().files[file].clone());
    }
    let sizes = |config: &mut serde_json::Value| {
        config["architectures"] = serde_json::json!(["SiglipModel"]);
        config["text_config"]["projection_size"] = config["vision_config"]["hidden_size"].clone();
    };
    let json = with_config(name, &sizes).files["config.json"].clone();
    towers.files.insert("config.json".into(), json);
    fails(&towers, Code::BadModel, &["logit_bias", "classifier.bias"]);
    let twice = with_config(name, &|config| {
        config["siglip_web"] = serde_json::json!({"labels": ["a"], "templates": ["{}"]})
    });
    fails(&twice, Code::BadModel, &["siglip_web"]);
}

#[test]
fn naflex_and_fixed_resolution_are_not_mixed() {
    let put = |source: &mut Memory, from: &str, file: &str| {
        let bytes = folder(from).files[file].clone();
        source.files.insert(file.into(), bytes);
    };
    // The same sizes, and the other's way with pictures.
    let mut fixed_weights = with_config("tiny-f16", &|config| {
        config["model_type"] = "siglip2".into();
        config["architectures"] = serde_json::json!(["Siglip2Model"]);
        config["vision_config"]["num_patches"] = 16.into();
    });
    put(&mut fixed_weights, "naflex", "preprocessor_config.json");
    let word = "patch_embedding.weight has the shape [32, 3, 8, 8], config.json asks for [32, 192], as NaFlex has it";
    fails(&fixed_weights, Code::BadModel, &[word]);
    let mut naflex_weights = with_config("naflex", &|config| {
        config["model_type"] = "siglip".into();
        config["architectures"] = serde_json::json!(["SiglipModel"]);
        config["vision_config"]["image_size"] = 32.into();
    });
    put(&mut naflex_weights, "tiny-f16", "preprocessor_config.json");
    let word = "patch_embedding.weight has the shape [32, 192], config.json asks for [32, 3, 8, 8]";
    fails(&naflex_weights, Code::BadModel, &[word]);
    for (name, other) in [("naflex", "tiny-f16"), ("tiny-f16", "naflex")] {
        let mut source = folder(name);
        put(&mut source, other, "preprocessor_config.json");
        fails(
            &source,
            Code::BadModel,
            &["preprocessor_config.json", "NaFlex"],
        );
    }
    let odd = with_config("naflex", &|config| {
        config["vision_config"]["num_patches"] = 17.into()
    });
    fails(&odd, Code::Unsupported, &["num_patches is 17"]);
}

#[test]
fn a_naflex_model_is_converted_as_it_would_be_loaded() {
    let source = folder("naflex");
    for dtype in [Dtype::F16, Dtype::Q8, Dtype::Q4] {
        let expected = logits(&mut load_stored(&source, (), &held_as(dtype), &()).unwrap());
        let direct = converted(&source, dtype, None, None);
        let mut direct = load_stored(&direct, (), &LoadOptions::default(), &()).unwrap();
        assert_eq!(logits(&mut direct), expected, "{dtype:?}");
    }
    pollster::block_on(calibrate(&source, true, &(), &mut |_, _| {})).unwrap();
}

#[test]
fn the_patches_of_a_converted_naflex_model_are_the_matrix_that_transformers_has() {
    const PATCHES: &str = "vision_model.embeddings.patch_embedding.weight";
    for name in ["naflex", "classifier-naflex"] {
        let source = folder(name);
        let (_, shape, published) = &tensors(&source.files["model.safetensors"])[PATCHES];
        let mut direct = converted(&source, Dtype::F16, None, None);
        let mut all = tensors(&direct.files["model.safetensors"]);
        let (format, written, halves) = &all[PATCHES];
        assert_eq!((format.as_str(), written), ("F16", shape), "{name}");
        let published = published.as_chunks::<4>().0.iter();
        let rounded = published.map(|bytes| half::f16::from_f32(f32::from_le_bytes(*bytes)));
        let rounded: Vec<u8> = rounded.flat_map(|half| half.to_le_bytes()).collect();
        assert!(*halves == rounded, "{name}: other numbers");

        // Files of before have a convolution there, and are the same model.
        let [hidden, input] = written[..] else {
            panic!("a matrix")
        };
        let pixels = input / 3;
        let pairs = halves.as_chunks::<2>().0;
        let place = |i: usize| {
            let (row, rest) = (i / input, i % input);
            row * input + rest % pixels * 3 + rest / pixels
        };
        let convolution = (0..hidden * input).flat_map(|i| pairs[place(i)]).collect();
        let side = pixels.isqrt();
        let shape = vec![hidden, 3, side, side];
        let before = ("F16".to_owned(), shape, convolution);
        let answer = |folder: &Memory| -> Vec<f32> {
            match name {
                "naflex" => {
                    logits(&mut load_stored(folder, (), &held_as(Dtype::F32), &()).unwrap())
                }
                _ => {
                    let own = own(folder, &held_as(Dtype::F32));
                    own.iter().map(|result| result.logit).collect()
                }
            }
        };
        let expected = answer(&direct);
        all.insert(PATCHES.into(), before);
        let (header, _) = parts(&direct.files["model.safetensors"]);
        let (mut old, data) = parts(&file_of(&all));
        old["__metadata__"] = header["__metadata__"].clone();
        let old = safetensors(&old.to_string(), &data);
        direct.files.insert("model.safetensors".into(), old);
        assert_eq!(answer(&direct), expected, "{name}");
    }
}

#[test]
fn rows_of_a_table_that_mlx_quantized_are_read_one_by_one() {
    const ROWS: usize = 300_000;
    let mut source = folder("mlx-8bit");
    let mut all = tensors(&source.files["model.safetensors"]);
    let stem = "text_model.text_model.embeddings.token_embedding";
    for field in ["weight", "scales", "biases"] {
        let (_, shape, bytes) = all.get_mut(&format!("{stem}.{field}")).unwrap();
        shape[0] = ROWS;
        let row = bytes.len() / 256;
        bytes.resize(ROWS * row, 0);
    }
    source
        .files
        .insert("model.safetensors".into(), file_of(&all));
    let mut config: serde_json::Value =
        serde_json::from_slice(&source.files["config.json"]).unwrap();
    config["text_config"]["vocab_size"] = ROWS.into();
    source
        .files
        .insert("config.json".into(), config.to_string().into_bytes());
    let whole = held_as(Dtype::F32).with_whole_table();
    let expected = logits(&mut load_stored(&source, (), &whole, &()).unwrap());
    source.reads.lock().unwrap().clear();
    let mut classifier = load_stored(&source, (), &held_as(Dtype::F32), &()).unwrap();
    assert_eq!(logits(&mut classifier), expected);
    assert!(source.bytes_read() < 1 << 20, "{}", source.bytes_read());
}

/// A checkpoint's one file as two: `second` says which of its tensors go into the other.
fn split(source: &mut Memory, second: impl Fn(&str) -> bool) {
    let all = tensors(&source.files.remove("model.safetensors").unwrap());
    let (there, here): (BTreeMap<_, _>, _) = all.into_iter().partition(|(name, _)| second(name));
    let mut map = serde_json::Map::new();
    for (file, tensors) in [("a.safetensors", &here), ("b.safetensors", &there)] {
        source.files.insert(file.into(), file_of(tensors));
        map.extend(tensors.keys().map(|name| (name.clone(), file.into())));
    }
    let index = serde_json::json!({ "weight_map": map }).to_string();
    let name = "model.safetensors.index.json";
    source.files.insert(name.into(), index.into_bytes());
}

#[test]
fn scales_of_mlx_may_lie_in_another_shard_than_their_codes() {
    let source = folder("mlx-mixed");
    let expected = logits(&mut load_stored(&source, (), &held_as(Dtype::F32), &()).unwrap());
    for second in ["scales", "biases", "weight"] {
        let mut sharded = source.clone();
        split(&mut sharded, |name| name.ends_with(second));
        let store = MemoryStore::default();
        for _ in 0..2 {
            let options = held_as(Dtype::F32);
            let mut classifier = load_stored(&sharded, store.clone(), &options, &()).unwrap();
            assert_eq!(logits(&mut classifier), expected, "{second} apart");
        }
    }
    let mut torn = source.clone();
    split(&mut torn, |name| name.ends_with("fc1.scales"));
    let nothing = file_of(&BTreeMap::new());
    torn.files.insert("b.safetensors".into(), nothing);
    let words = &["mlp.fc1.weight", "biases", "not the rest"];
    fails(&torn, Code::BadModel, words);
}

#[test]
fn a_naflex_model_that_mlx_quantized_gives_what_transformers_computes_with_its_numbers() {
    let (source, shapes) = (folder("mlx-naflex"), folder("naflex"));
    let golden: serde_json::Value = serde_json::from_slice(&source.files["classify.json"]).unwrap();
    let texts = |key: &str| -> Vec<String> { serde_json::from_value(golden[key].clone()).unwrap() };
    let expected: Vec<Vec<f32>> = serde_json::from_value(golden["logits"].clone()).unwrap();
    // Logits reach 46.
    for (dtype, bound) in [(Dtype::F32, 5e-4), (Dtype::Q8, 2.0)] {
        let mut classifier = load_stored(&source, (), &held_as(dtype), &()).unwrap();
        for (picture, expected) in texts("pictures").iter().zip(&expected) {
            let options = ClassifyOptions::default();
            let labels = texts("labels");
            let results = classifier
                .classify(&shapes.files[picture], &labels, &options)
                .unwrap();
            for (label, expected) in labels.iter().zip(expected) {
                let got = results.iter().find(|r| r.label == *label).unwrap().logit;
                assert!(
                    (got - expected).abs() < bound,
                    "{picture} {dtype:?}: {got}, transformers has {expected}"
                );
            }
        }
    }
    // Patches that are quantized are no convolution's.
    let mut fixed = source.clone();
    let mut config: serde_json::Value =
        serde_json::from_slice(&source.files["config.json"]).unwrap();
    config["model_type"] = "siglip".into();
    config["architectures"] = serde_json::json!(["SiglipModel"]);
    config["vision_config"]["image_size"] = 32.into();
    let mut preprocessor: serde_json::Value =
        serde_json::from_slice(&TINY.source().files["preprocessor_config.json"]).unwrap();
    preprocessor["size"] = serde_json::json!({"height": 32, "width": 32});
    for (file, json) in [
        ("config.json", config),
        ("preprocessor_config.json", preprocessor),
    ] {
        fixed.files.insert(file.into(), json.to_string().into());
    }
    let words = &["patch_embedding", "[32, 6]", "[32, 3, 8, 8]"];
    fails(&fixed, Code::BadModel, words);
}

#[test]
fn quantized_files_that_do_not_fit_are_named_with_both_shapes() {
    let mut source = folder("mlx-8bit");
    source.files.insert(
        "config.json".into(),
        TINY.source().files["config.json"].clone(),
    );
    fails(&source, Code::BadModel, &["quantization", "[", "64"]);
    let name = "vision_model.vision_model.encoder.layers.0.mlp.fc1";
    for field in ["scales", "biases", "weight"] {
        let mut source = folder("mlx-8bit");
        let mut all = tensors(&source.files["model.safetensors"]);
        let (_, shape, bytes) = all.get_mut(&format!("{name}.{field}")).unwrap();
        shape[0] -= 1;
        bytes.truncate(bytes.len() / (shape[0] + 1) * shape[0]);
        source
            .files
            .insert("model.safetensors".into(), file_of(&all));
        fails(&source, Code::BadModel, &[name, "[159", "[160"]);
    }
    let mut source = folder("mlx-8bit");
    let mut config: serde_json::Value =
        serde_json::from_slice(&source.files["config.json"]).unwrap();
    config["quantization"]["mode"] = "mxfp4".into();
    source
        .files
        .insert("config.json".into(), config.to_string().into_bytes());
    fails(&source, Code::Unsupported, &["mxfp4", "affine"]);
}

#[test]
fn weights_that_open_clip_wrote_give_what_open_clip_computes() {
    assert_golden("open-clip");
    assert_converted("open-clip", &folder("open-clip").files["config.json"]);
}

#[test]
fn tensors_of_open_clip_that_hold_several_parameters_are_checked_as_a_whole() {
    for (name, rows) in [
        ("visual.trunk.blocks.0.attn.qkv.weight", 3 * 64 + 1),
        ("text.transformer.resblocks.1.attn.in_proj_bias", 3 * 64 - 1),
        ("visual.trunk.attn_pool.q.weight", 3 * 64),
        ("visual.trunk.attn_pool.kv.weight", 64),
        ("visual.trunk.pos_embed", 2),
    ] {
        let mut source = folder("open-clip");
        let mut all = tensors(&source.files["model.safetensors"]);
        let (_, shape, bytes) = all.get_mut(name).unwrap();
        bytes.resize(bytes.len() / shape[0] * rows, 0);
        shape[0] = rows;
        source
            .files
            .insert("model.safetensors".into(), file_of(&all));
        fails(&source, Code::BadModel, &[name]);
    }
}

#[test]
fn open_clip_folders_that_are_no_siglip_are_refused_by_the_key() {
    let path = format!(
        "{}/tests/fixtures/configs/open_clip.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let configs: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut source = folder("open-clip");
    source.files.remove("config.json");
    let weights = source.files.remove("model.safetensors").unwrap();
    source
        .files
        .insert("open_clip_model.safetensors".into(), weights);
    let mut with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut config = configs["ViT-B-16-SigLIP"]["open_clip_config"].clone();
        change(&mut config);
        source.files.insert(
            "open_clip_config.json".into(),
            config.to_string().into_bytes(),
        );
        source.clone()
    };
    // The weights are found, and are too small for a ViT-B.
    let words = &["open_clip_model.safetensors", "[64]", "[768]"];
    fails(&with(&|_| ()), Code::BadModel, words);
    for (section, key, value) in [
        ("vision_cfg", "timm_model_name", "convnext_base".into()),
        (
            "vision_cfg",
            "timm_model_name",
            "vit_base_patch16_siglip_gap_224".into(),
        ),
        ("vision_cfg", "timm_pool", "avg".into()),
        ("vision_cfg", "timm_proj", "linear".into()),
        ("vision_cfg", "image_size", serde_json::json!([224, 256])),
        ("text_cfg", "pool_type", "argmax".into()),
        ("text_cfg", "proj_bias", false.into()),
        ("text_cfg", "qk_norm", true.into()),
        ("text_cfg", "hf_model_name", "roberta-base".into()),
        (
            "text_cfg",
            "act_kwargs",
            serde_json::json!({"approximate": "quick"}),
        ),
        (
            "text_cfg",
            "tokenizer_kwargs",
            serde_json::json!({"clean": "lower"}),
        ),
        ("text_cfg", "tokenizer_kwargs", serde_json::Value::Null),
    ] {
        let broken = with(&|config| config["model_cfg"][section][key] = value.clone());
        fails(
            &broken,
            Code::Unsupported,
            &["open_clip_config.json", section, key],
        );
    }
    for (key, value) in [("resize_mode", "shortest"), ("interpolation", "random")] {
        let broken = with(&|config| config["preprocess_cfg"][key] = value.into());
        fails(
            &broken,
            Code::Unsupported,
            &["open_clip_config.json", "preprocess_cfg", key],
        );
    }
    let broken = with(&|config| config["model_cfg"]["text_cfg"]["width"] = 0.into());
    fails(
        &broken,
        Code::BadModel,
        &["open_clip_config.json", "text_config.hidden_size"],
    );
    // Nothing of open_clip: the usual message.
    let mut bare = source.clone();
    bare.files.remove("open_clip_config.json");
    fails(&bare, Code::BadModel, &["config.json", "missing"]);
}

#[test]
fn a_folder_as_transformers_5_saves_it() {
    let mut source = TINY.source();
    let mut expected = load_stored(&source, (), &held_as(Dtype::F32), &()).unwrap();
    let own = source.files.remove("preprocessor_config.json").unwrap();
    let own: serde_json::Value = serde_json::from_slice(&own).unwrap();
    let shared = serde_json::json!({"image_processor": &own, "processor_class": "SiglipProcessor"});
    source.files.insert(
        "processor_config.json".into(),
        shared.to_string().into_bytes(),
    );
    // A byte order mark, and what Python writes for numbers that are none.
    let config = String::from_utf8(source.files["config.json"].clone()).unwrap();
    let config = format!(
        "\u{feff}{}",
        config.replacen('{', "{\"unread\": [NaN, -Infinity],", 1)
    );
    source
        .files
        .insert("config.json".into(), config.clone().into_bytes());
    let mut loaded = load_stored(&source, (), &held_as(Dtype::F32), &()).unwrap();
    assert_eq!(logits(&mut loaded), logits(&mut expected));
    // Beside it, what an older version left: pictures would be prepared otherwise.
    let mut left = source.clone();
    let mut older = own.clone();
    older["image_mean"] = serde_json::json!([0.1, 0.2, 0.3]);
    left.files.insert(
        "preprocessor_config.json".into(),
        older.to_string().into_bytes(),
    );
    let mut loaded = load_stored(&left, (), &held_as(Dtype::F32), &()).unwrap();
    assert_eq!(logits(&mut loaded), logits(&mut expected));
    // A key that is read must be a number.
    let config = config.replace("\"layer_norm_eps\": 1e-06", "\"layer_norm_eps\": NaN");
    source
        .files
        .insert("config.json".into(), config.into_bytes());
    fails(&source, Code::BadModel, &["config.json"]);
    // An older one doesn't say how pictures are prepared.
    let mut source = TINY.source();
    source.files.remove("preprocessor_config.json");
    source.files.insert(
        "processor_config.json".into(),
        br#"{"processor_class": "SiglipProcessor"}"#.to_vec(),
    );
    fails(
        &source,
        Code::BadModel,
        &["preprocessor_config.json", "missing"],
    );
}

#[test]
fn a_folder_with_onnx_alone_says_what_to_use_instead() {
    let mut source = TINY.source();
    source.files.remove("model.safetensors");
    source.files.insert("onnx/model.onnx".into(), vec![8]);
    fails(
        &source,
        Code::Unsupported,
        &["onnx/model.onnx", "model.safetensors"],
    );
    let config = r#"{"model_type": "siglip", "vision_config": {}, "text_config": {}}"#;
    let config = SiglipConfig::from_json(config.as_bytes()).unwrap();
    assert_eq!(config.published(), Some("google/siglip-base-patch16-224"));
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn a_folder_is_converted_with_what_it_needs_beside_its_weights() {
    let place = tempfile::tempdir().unwrap();
    let [input, out] = ["in", "out"].map(|name| place.path().join(name));
    std::fs::create_dir(&input).unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(input.join(name), bytes).unwrap();
    for (name, bytes) in TINY.source().files {
        put(&name, &bytes);
    }
    put("README.md", b"not of the model");
    put("processor_config.json", b"{}");
    let convert = |dtype, labels, limit| {
        let mut layers = 0;
        let progress = &mut |done, _| layers = done;
        let converted = convert_folder(&input, &out, dtype, labels, limit, progress);
        converted.map(|converted| (converted, layers))
    };
    let config = |folder: &Path| std::fs::read(folder.join("config.json")).unwrap();

    let (Converted { bytes, files }, layers) = convert(Dtype::Q4, None, None).unwrap();
    let size = std::fs::metadata(out.join("model.safetensors"))
        .unwrap()
        .len();
    assert_eq!((bytes, files), (size, 1));
    assert!(layers > 0, "four bits are calibrated");
    let copied = [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names(&out), copied);
    assert_eq!(config(&out), config(&input));

    // Weights that can't be converted leave those that are there.
    let before = std::fs::read(out.join("model.safetensors")).unwrap();
    let weights = std::fs::read(input.join("model.safetensors")).unwrap();
    put("model.safetensors", &weights[..weights.len() - 4]);
    assert_eq!(
        convert(Dtype::Q8, None, None).unwrap_err().code(),
        Code::BadModel
    );
    assert_eq!(names(&out), copied);
    assert!(std::fs::read(out.join("model.safetensors")).unwrap() == before);
    put("model.safetensors", &weights);

    let (Converted { files, .. }, layers) = convert(Dtype::F16, None, Some(100_000)).unwrap();
    assert_eq!(layers, 0);
    let shards = names(&out);
    let shards = shards.iter().filter(|name| name.starts_with("model-"));
    assert!(files > 1 && shards.count() == files);
    Classifier::load(&out, Backend::Cpu).unwrap();

    // The folder itself is never written into.
    let error = convert_folder(&input, &input, Dtype::F16, None, None, &mut |_, _| {});
    assert_eq!(error.unwrap_err().code(), Code::BadInput);
    assert!(std::fs::read(input.join("model.safetensors")).unwrap() == weights);
    // What can't be loaded in the end is told.
    std::fs::remove_file(input.join("tokenizer.json")).unwrap();
    std::fs::remove_dir_all(&out).unwrap();
    let error = convert(Dtype::F16, None, None).unwrap_err();
    assert_eq!(error.code(), Code::BadModel);
    assert!(error.message().contains("tokenizer.json"), "{error}");
}

#[test]
fn a_config_that_python_wrote_for_quantized_weights_is_fit_for_what_is_converted() {
    let place = tempfile::tempdir().unwrap();
    let [input, out] = ["in", "out"].map(|name| place.path().join(name));
    std::fs::create_dir(&input).unwrap();
    let mut source = folder("mlx-8bit");
    let config = String::from_utf8(source.files["config.json"].clone()).unwrap();
    let config = config.replacen('{', "{\"unread\": NaN,", 1);
    source
        .files
        .insert("config.json".into(), config.into_bytes());
    for (name, bytes) in source.files {
        std::fs::write(input.join(name), bytes).unwrap();
    }
    let fixed = FixedLabels {
        labels: vec!["a".into()],
        templates: vec!["{}".into()],
    };
    let embeddings = [vec![0.125; 64]];
    for labels in [None, Some((&fixed, &embeddings[..]))] {
        let none = &mut |_, _| {};
        convert_folder(&input, &out, Dtype::F16, labels, None, none).unwrap();
        let config = std::fs::read(out.join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let keys = config.as_object().unwrap().keys();
        let told: Vec<_> = keys.filter(|key| key.contains("quantization")).collect();
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(config.get("siglip_web").is_some(), labels.is_some());
        let text = names(&out).iter().any(|name| name == "tokenizer.json");
        assert_eq!(text, labels.is_none());
        std::fs::remove_dir_all(&out).unwrap();
    }
}
