//! Missing, damaged and mismatched checkpoint files: a stable code and a message that names the file.

mod common;

use burn::tensor::Device;
use common::{Memory, ODD, TINY};
use siglip_web::checkpoint::{Checkpoint, Stage};
use siglip_web::{Code, Error};

fn load(source: &Memory) -> Result<Checkpoint, Error> {
    pollster::block_on(Checkpoint::load(source, &Device::flex(), &(), &mut |_| {}))
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
    pollster::block_on(Checkpoint::load(
        &source,
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
