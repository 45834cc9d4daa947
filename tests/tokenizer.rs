//! Labels → ids, against transformers (`tests/reference/tokenizer.py` made the fixtures).
#![cfg(not(target_family = "wasm"))]

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;

use serde_json::{Value, json};
use siglip_web::tokenizer::Tokenizer;
use siglip_web::{Code, Error};

#[path = "common/synthetic_tokenizer.rs"]
mod synthetic;

use synthetic::{Random, gemma_like, mt5_like, texts, with_merges_as_text};

const V1_VOCABULARY: usize = 32_000;

fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tokenizer")
        .join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if !name.ends_with(".gz") {
        return bytes;
    }
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(bytes.as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    unpacked
}

fn read_json(name: &str) -> Value {
    serde_json::from_slice(&read(name)).unwrap()
}

fn v1(context_length: usize) -> Tokenizer {
    let config = read("v1/tokenizer_config.json");
    let file = read("v1/tokenizer.json.gz");
    Tokenizer::new(&file, Some(&config), context_length, V1_VOCABULARY).unwrap()
}

/// SigLIP 2's tokenizer, its configuration changed by `edit`; a key set to null is as good as absent.
fn siglip2(context_length: usize, edit: Value) -> Result<Tokenizer, Error> {
    let mut config = read_json("siglip2/tokenizer_config.json");
    for (key, value) in edit.as_object().unwrap() {
        config[key] = value.clone();
    }
    let file = read("siglip2/tokenizer.json");
    let config = config.to_string();
    Tokenizer::new(&file, Some(config.as_bytes()), context_length, 256_000)
}

/// A tiny tokenizer of either family, to be damaged.
fn small(family: &str) -> Value {
    match family {
        "v1" => json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true},
            "post_processor": null, "decoder": null,
            "model": {"type": "Unigram", "unk_id": 2, "vocab": [
                ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁", -2.0], ["▁a", -3.0], ["b", -4.0]]}
        }),
        _ => read_json("siglip2/tokenizer.json"),
    }
}

fn load(file: &Value, config: Option<Value>) -> Result<Tokenizer, Error> {
    let config = config.map(|config| config.to_string());
    let config = config.as_ref().map(|config| config.as_bytes());
    Tokenizer::new(file.to_string().as_bytes(), config, 8, 2000)
}

#[track_caller]
fn assert_error(result: Result<Tokenizer, Error>, code: Code, words: &[&str]) {
    let error = result.expect_err("this tokenizer must be refused");
    assert_eq!(error.code(), code, "{error}");
    for word in words {
        assert!(error.message().contains(word), "{error} lacks {word:?}");
    }
}

#[test]
fn published_ids() {
    let tokenizer = v1(64);
    for (text, ids) in [
        ("the real mountain view", &[260, 638, 3293, 870][..]),
        ("Zürich", &[262, 761, 5879, 5345]),
        ("San Francisco", &[262, 264, 452, 20563, 15949]),
    ] {
        let mut expected = ids.to_vec();
        expected.resize(64, 1);
        assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text}");
    }
    assert_eq!((tokenizer.pad_id(), tokenizer.context_length()), (1, 64));
}

#[test]
fn ids_equal_transformers() {
    let tokenizers = [
        ("v1", v1(64)),
        ("v2", siglip2(64, json!({})).unwrap()),
        ("v1_short", v1(16)),
        ("v2_short", siglip2(16, json!({})).unwrap()),
    ];
    let lines = String::from_utf8(read("goldens.jsonl.gz")).unwrap();
    let (mut compared, mut ties) = (0, 0);
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = line["text"].as_str().unwrap();
        for (key, tokenizer) in &tokenizers {
            let Some(ids) = line.get(key) else { continue };
            let mut expected: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
            expected.resize(tokenizer.context_length(), tokenizer.pad_id());
            let got = tokenizer.encode(text).unwrap();
            compared += 1;
            let text: String = text.chars().take(80).collect();
            // Two cuts with the same score: the same pieces in another order.
            if key.starts_with("v1") && line.get("tie").is_some() {
                ties += 1;
                let set = |ids: &[u32]| ids.iter().copied().collect::<BTreeSet<_>>();
                assert_eq!(set(&got), set(&expected), "{key} {text:?}");
            } else {
                assert_eq!(got, expected, "{key} {text:?}");
            }
        }
    }
    assert!(
        compared > 8000 && ties < 5,
        "{compared} compared, {ties} ties"
    );
}

#[test]
fn labels_that_say_nothing_are_only_padding() {
    let tokenizer = v1(64);
    for text in ["", "   ", "?!", "\u{a0}\u{2003}", "\u{200b}", "</s>", "▁"] {
        assert_eq!(tokenizer.encode(text).unwrap(), [1; 64], "{text:?}");
    }
    let siglip2 = siglip2(4, json!({})).unwrap();
    assert_eq!(siglip2.encode("").unwrap(), [1, 0, 0, 0]);
}

#[test]
fn siglip2_is_lower_cased_whatever_its_class_is_called() {
    let named = |class: &str| siglip2(16, json!({"tokenizer_class": class})).unwrap();
    let expected = named("Siglip2Tokenizer")
        .encode("a photo of zürich")
        .unwrap();
    for class in ["Siglip2Tokenizer", "GemmaTokenizer", "GemmaTokenizerFast"] {
        let got = named(class).encode("A Photo of ZÜRICH").unwrap();
        assert_eq!(got, expected, "{class}");
    }
    let kept = siglip2(16, json!({"do_lower_case": false})).unwrap();
    assert_ne!(kept.encode("A Photo of ZÜRICH").unwrap(), expected);
}

#[test]
fn siglip2_pads_at_the_side_the_configuration_names() {
    let right = siglip2(16, json!({})).unwrap().encode("two cats").unwrap();
    let left = siglip2(16, json!({"padding_side": "left"})).unwrap();
    let left = left.encode("two cats").unwrap();
    let used = right.iter().position(|&id| id == 0).unwrap();
    assert_eq!(right[used - 1], 1, "the end token is the last");
    assert_eq!(left[16 - used..], right[..used]);
    assert!(left[..16 - used].iter().all(|&id| id == 0));
    // As transformers' classes, which pad on the left unless told otherwise.
    let unnamed = siglip2(16, json!({"padding_side": null})).unwrap();
    assert_eq!(unnamed.encode("two cats").unwrap(), left);
}

#[test]
fn siglip2_adds_the_special_tokens_that_transformers_adds() {
    let plain = siglip2(8, json!({})).unwrap().encode("cat").unwrap();
    let cat: Vec<u32> = plain.into_iter().take_while(|&id| id != 1).collect();
    let padded = |ids: &[&[u32]]| {
        let mut ids = ids.concat();
        ids.resize(8, 0);
        ids
    };
    // tokenizer.json is believed, whatever the flags of tokenizer_config.json say.
    let token = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let template = |single: &[Value]| json!({"type": "TemplateProcessing", "single": single});
    let (bos, eos) = (token("<bos>"), token("<eos>"));
    for (post_processor, expected) in [
        (template(&[text.clone(), eos.clone()]), [&[][..], &[1][..]]),
        (template(&[bos, text.clone(), eos]), [&[2], &[1]]),
        (template(&[text]), [&[], &[]]),
        (Value::Null, [&[], &[]]),
    ] {
        let mut file = read_json("siglip2/tokenizer.json");
        file["post_processor"] = post_processor;
        for (bos, eos) in [
            (Value::Null, Value::Null),
            (json!(true), json!(false)),
            (json!(false), json!(true)),
        ] {
            let mut config = read_json("siglip2/tokenizer_config.json");
            (config["add_bos_token"], config["add_eos_token"]) = (bos, eos);
            let got = load(&file, Some(config)).unwrap().encode("cat").unwrap();
            assert_eq!(got, padded(&[expected[0], &cat, expected[1]]));
        }
    }
    // SentencePiece's file has nothing to say of it.
    let pieces = read("siglip2/tokenizer.model");
    let flags = |bos: Value, eos: Value| {
        let config = json!({"tokenizer_class": "GemmaTokenizer", "padding_side": "right",
            "add_bos_token": bos, "add_eos_token": eos});
        let config = config.to_string();
        let config = Some(config.as_bytes());
        let read = Tokenizer::from_sentencepiece("tokenizer.model", &pieces, config, 8, 2000);
        read.unwrap().encode("cat").unwrap()
    };
    let plain = flags(Value::Null, Value::Null);
    let cat: Vec<u32> = plain.iter().copied().take_while(|&id| id != 1).collect();
    assert_eq!(plain, padded(&[&cat, &[1]]));
    assert_eq!(flags(json!(true), json!(true)), padded(&[&[2], &cat, &[1]]));
    assert_eq!(flags(json!(true), Value::Null), padded(&[&[2], &cat]));
}

/// The ids of labels with tokens that were added when a model was fine-tuned, from transformers 5.23.
const ADDED: [(&str, [&[u32]; 3]); 4] = [
    (
        "a photo of a zorgle",
        [
            &[262, 266, 1304, 267, 262, 266, 32000],
            &[1129, 357, 319, 304, 1127, 1500],
            &[307, 748, 709, 694, 596, 1500],
        ],
    ),
    (
        "Zorgle cat",
        [&[262, 761, 436, 5056, 2783], &[1500, 393], &[1500, 784]],
    ),
    (
        "a FooBar dog",
        [
            &[262, 266, 262, 411, 298, 298, 3008, 1571],
            &[1129, 1127, 1501, 363],
            &[307, 596, 1501, 754],
        ],
    ),
    (
        "cat<brand>dog",
        [
            &[2783, 32002, 9309],
            &[1138, 412, 1502, 1140, 330],
            &[309, 804, 1502, 310, 720],
        ],
    ),
];

#[track_caller]
fn assert_added(tokenizer: &Tokenizer, column: usize) {
    for (text, expected) in &ADDED {
        let mut expected = expected[column].to_vec();
        expected.push(1);
        expected.resize(tokenizer.context_length(), tokenizer.pad_id());
        assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn tokens_that_only_the_configuration_names_are_found() {
    let named = |first: u32, foobar: &str| {
        json!({
            first.to_string(): {"content": "zorgle", "normalized": true},
            (first + 1).to_string(): {"content": foobar, "normalized": true},
            (first + 2).to_string(): {"content": "<brand>", "normalized": false, "special": true},
        })
    };
    let with = |config: &str, added: Value| {
        let mut config = read_json(config);
        config["added_tokens_decoder"] = added;
        config.to_string()
    };
    // transformers adds them to SigLIP's in lower case.
    let config = with("v1/tokenizer_config.json", named(32_000, "foobar"));
    let (file, config) = (read("v1/tokenizer.json.gz"), Some(config.as_bytes()));
    let v1 = |size| Tokenizer::new(&file, config, 12, size);
    assert_added(&v1(32_003).unwrap(), 0);
    // The model's table must have their rows.
    assert_error(v1(32_000), Code::BadModel, &["32003 tokens", "32000"]);

    let config = with("siglip2/tokenizer_config.json", named(1500, "FooBar"));
    let config = Some(config.as_bytes());
    let pieces = read("siglip2/tokenizer.model");
    let v2 = Tokenizer::from_sentencepiece("tokenizer.model", &pieces, config, 12, 2000);
    assert_added(&v2.unwrap(), 1);
    let v2 = Tokenizer::new(&read("siglip2/tokenizer.json"), config, 12, 2000);
    assert_added(&v2.unwrap(), 2);

    let other = with(
        "siglip2/tokenizer_config.json",
        json!({"7": {"content": "<eos>"}}),
    );
    let other = Tokenizer::new(
        &read("siglip2/tokenizer.json"),
        Some(other.as_bytes()),
        12,
        2000,
    );
    assert_error(other, Code::BadModel, &["\"<eos>\"", "7", "1"]);
    let word = with(
        "v1/tokenizer_config.json",
        json!({"32000": {"content": "zorgle", "single_word": true}}),
    );
    let word = Tokenizer::new(&file, Some(word.as_bytes()), 12, 32_001);
    assert_error(word, Code::Unsupported, &["\"zorgle\"", "single_word"]);
}

#[test]
fn without_a_configuration_tokenizer_json_tells_the_family() {
    let v1_file = read("v1/tokenizer.json.gz");
    let tokenizer = Tokenizer::new(&v1_file, None, 64, V1_VOCABULARY).unwrap();
    let text = "It's “Zürich”, <unk> & </s>…";
    assert_eq!(
        tokenizer.encode(text).unwrap(),
        v1(64).encode(text).unwrap()
    );

    let file = read("siglip2/tokenizer.json");
    let tokenizer = Tokenizer::new(&file, None, 64, 256_000).unwrap();
    let named = siglip2(64, json!({})).unwrap();
    assert_eq!(tokenizer.encode(text).unwrap(), named.encode(text).unwrap());
    assert_eq!(tokenizer.pad_id(), 0);
}

#[test]
fn padding_and_truncation_in_tokenizer_json_do_not_get_in_the_way() {
    for family in ["v1", "siglip2"] {
        let plain = small(family);
        let mut file = plain.clone();
        file["padding"] = json!({"strategy": {"Fixed": 5}, "direction": "Right", "pad_to_multiple_of": 3,
            "pad_id": 3, "pad_type_id": 0, "pad_token": if family == "v1" { "</s>" } else { "<pad>" }});
        file["truncation"] =
            json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        let (plain, file) = (load(&plain, None).unwrap(), load(&file, None).unwrap());
        for text in ["a", "a a a a a a a a a a"] {
            let ids = file.encode(text).unwrap();
            assert_eq!(ids.len(), 8);
            assert_eq!(ids, plain.encode(text).unwrap());
        }
    }
}

#[test]
fn files_that_are_no_json_say_what_they_are() {
    let v1_file = read("v1/tokenizer.json.gz");
    let html = b"<!DOCTYPE html><html><body>404</body></html>";
    let cases: [(&[u8], &[&str]); 6] = [
        (b"", &["tokenizer.json", "empty"]),
        (b"\xef\xbb\xbf \n", &["tokenizer.json", "empty"]),
        (html, &["tokenizer.json", "looks like a web page"]),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            &["Git LFS"],
        ),
        (
            &v1_file[..v1_file.len() / 2],
            &["tokenizer.json", "cut off"],
        ),
        (b"\x89PNG\r\n\x1a\n", &["tokenizer.json", "can't be read"]),
    ];
    for (bytes, words) in cases {
        assert_error(
            Tokenizer::new(bytes, None, 64, 32_000),
            Code::BadModel,
            words,
        );
    }
    let config = Tokenizer::new(&v1_file, Some(html), 64, 32_000);
    let words = ["tokenizer_config.json", "looks like a web page"];
    assert_error(config, Code::BadModel, &words);
    assert_error(load(&json!({"a": 1}), None), Code::BadModel, &["model"]);
    assert_error(load(&json!([1]), None), Code::BadModel, &["tokenizer.json"]);
}

#[test]
fn files_of_different_checkpoints_are_refused() {
    let v1_file = read("v1/tokenizer.json.gz");
    let result = Tokenizer::new(&v1_file, None, 64, 512);
    assert_error(result, Code::BadModel, &["32000", "512"]);

    let mut file = small("siglip2");
    file["added_tokens"][0]["id"] = json!(5000);
    assert_error(load(&file, None), Code::BadModel, &["5001", "2000"]);

    let siglip = Some(json!({"tokenizer_class": "SiglipTokenizer"}));
    let words = ["SiglipTokenizer", "BPE", "different checkpoints"];
    assert_error(load(&small("siglip2"), siglip), Code::BadModel, &words);

    let clip = Some(json!({"tokenizer_class": "CLIPTokenizer"}));
    assert_error(
        load(&small("siglip2"), clip),
        Code::Unsupported,
        &["CLIPTokenizer"],
    );

    let eos = Some(json!({"tokenizer_class": "GemmaTokenizer", "eos_token": "<end>"}));
    assert_error(
        load(&small("siglip2"), eos),
        Code::BadModel,
        &["<end>", "eos_token"],
    );
}

#[test]
fn other_tokenizers_are_unsupported() {
    let mut file = small("v1");
    file["model"]["vocab"][1][0] = json!("[SEP]");
    assert_error(load(&file, None), Code::Unsupported, &["Unigram", "</s>"]);
    let mut file = small("v1");
    file["model"] = json!({"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a"});
    assert_error(load(&file, None), Code::Unsupported, &["WordPiece"]);
    let mut file = small("siglip2");
    file["model"]["dropout"] = json!(0.1);
    assert_error(load(&file, None), Code::Unsupported, &["dropout"]);
}

#[test]
fn damaged_models_are_refused_with_what_is_wrong() {
    let refused = |family: &str, edit: &dyn Fn(&mut Value), words: &[&str]| {
        let mut file = small(family);
        edit(&mut file["model"]);
        assert_error(
            load(&file, None),
            Code::BadModel,
            &[words, &["tokenizer.json"]].concat(),
        );
    };
    let merge = |merge: Value| move |model: &mut Value| model["merges"][7] = merge.clone();
    refused(
        "siglip2",
        &merge(json!(["i", "zz"])),
        &["merges", "\"zz\" is no piece"],
    );
    refused(
        "siglip2",
        &merge(json!("zz i")),
        &["merges", "\"zz\" is no piece"],
    );
    refused(
        "siglip2",
        &merge(json!(["<eos>", "i"])),
        &["\"<eos>i\" is no piece"],
    );
    refused(
        "siglip2",
        &merge(json!("in")),
        &["merge \"in\"", "two pieces"],
    );
    refused(
        "siglip2",
        &merge(json!("i n g")),
        &["merge \"i n g\"", "two pieces"],
    );
    refused("siglip2", &merge(json!(["i"])), &["merge"]);
    refused("siglip2", &merge(json!(["i", "n", "g"])), &["merge"]);
    refused("siglip2", &merge(json!(7)), &["a merge"]);
    let id = |id: Value| move |model: &mut Value| model["vocab"]["in"] = id.clone();
    refused("siglip2", &id(json!(-1)), &["\"in\"", "-1"]);
    refused(
        "siglip2",
        &id(json!(1u64 << 40)),
        &["\"in\"", "1099511627776"],
    );
    refused("siglip2", &id(json!(1.5)), &["\"in\"", "1.5"]);
    refused("siglip2", &id(json!(2000)), &["2001", "vocab_size 2000"]);
    refused(
        "siglip2",
        &id(json!(3)),
        &["\"<unk>\"", "\"in\"", "same id 3"],
    );
    refused(
        "siglip2",
        &|model| model["unk_token"] = json!("<none>"),
        &["unk_token", "<none>"],
    );
    refused(
        "siglip2",
        &|model| model["vocab"] = json!([["a", 0.0]]),
        &["vocab"],
    );
    refused("siglip2", &|model| *model = json!([]), &["model"]);

    let piece = |piece: Value| move |model: &mut Value| model["vocab"][4] = piece.clone();
    refused("v1", &piece(json!(["b", -1.0])), &["\"b\" twice"]);
    refused("v1", &piece(json!(["c", null])), &["null"]);
    refused("v1", &piece(json!(["c", "-1"])), &["-1"]);
    refused("v1", &piece(json!(["c"])), &["a piece and its score"]);
    refused("v1", &piece(json!(["c", 0, 0])), &["a piece and its score"]);
    refused("v1", &piece(json!("c")), &["a piece and its score"]);
    refused("v1", &piece(json!(["c".repeat(5000), 0])), &["5000 bytes"]);
    refused("v1", &|model| model["unk_id"] = json!(6), &["unk_id", "6"]);
    refused("v1", &|model| model["unk_id"] = json!(-1), &["-1"]);
    refused("v1", &|model| model["unk_id"] = Value::Null, &["unk_id"]);
    refused("v1", &|model| model["vocab"] = json!({"a": 1}), &["vocab"]);

    for (from, to, words) in [
        // What JSON can't say, programs write all the same.
        ("-2.0", "NaN", "can't be read"),
        ("-2.0", "-Infinity", "can't be read"),
        ("-2.0", "-1e999", "number out of range"),
        (
            "\"unk_id\":",
            "\"vocab\":[],\"unk_id\":",
            "duplicate field `vocab`",
        ),
    ] {
        let json = small("v1").to_string();
        let damaged = json.replacen(from, to, 1);
        assert_ne!(json, damaged);
        let result = Tokenizer::new(damaged.as_bytes(), None, 8, 2000);
        assert_error(result, Code::BadModel, &["tokenizer.json", words]);
    }
    let twice = small("siglip2").to_string();
    let twice = twice.replacen("\"vocab\":{", "\"vocab\":{\"in\":1999,", 1);
    let result = Tokenizer::new(twice.as_bytes(), None, 8, 2000);
    assert_error(result, Code::BadModel, &["\"in\" twice"]);
}

#[test]
fn steps_that_nobody_knows_are_named() {
    for (key, step, code, word) in [
        (
            "normalizer",
            json!({"type": "Leet"}),
            Code::BadModel,
            "Leet",
        ),
        ("normalizer", json!({}), Code::BadModel, "`type`"),
        (
            "normalizer",
            json!({"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}]}),
            Code::Unsupported,
            "character map",
        ),
        (
            "normalizer",
            json!({"type": "Replace", "pattern": {"Regex": "(a"}, "content": ""}),
            Code::BadModel,
            "damaged",
        ),
        (
            "pre_tokenizer",
            json!({"type": "Cut"}),
            Code::BadModel,
            "Cut",
        ),
        (
            "post_processor",
            json!({"type": "BertProcessing"}),
            Code::Unsupported,
            "BertProcessing",
        ),
    ] {
        let mut file = small("siglip2");
        file[key] = step;
        assert_error(load(&file, None), code, &["tokenizer.json", word]);
    }
}

/// A step that changes nothing, and that our own encoder hasn't.
fn read_by_the_crate(file: &Value) -> Value {
    let nothing = json!({"type": "Strip", "strip_left": false, "strip_right": false});
    let mut file = file.clone();
    file["normalizer"] = json!({"type": "Sequence", "normalizers": [file["normalizer"], nothing]});
    file
}

#[test]
fn both_encoders_give_the_same_ids() {
    let real: Value = serde_json::from_slice(&read("v1/tokenizer.json.gz")).unwrap();
    let demo = include_bytes!("../www/lib/models/demo/tokenizer.json");
    for (name, file) in [
        ("v1", real),
        ("demo", serde_json::from_slice(demo).unwrap()),
        ("siglip2", small("siglip2")),
        ("gemma", gemma_like(&mut Random(1), 4000)),
        ("mt5", mt5_like(&mut Random(2), 3000)),
    ] {
        let tokenizer =
            |file: &Value| Tokenizer::new(file.to_string().as_bytes(), None, 64, 256_000).unwrap();
        let (own, theirs) = (tokenizer(&file), tokenizer(&read_by_the_crate(&file)));
        let mut texts = texts(
            &mut Random(9),
            1500,
            &["</s>", "<eos>", "<unk>", "<table>", "\n\n", "▁▁"],
        );
        texts.extend(["e\u{301}\u{323} ½ ﷺ \u{301}x", "A Photo of Zürich…"].map(String::from));
        for text in &texts {
            let (ours, theirs) = (own.encode(text).unwrap(), theirs.encode(text).unwrap());
            assert_eq!(ours, theirs, "{name}: {text:?}");
        }
    }
}

/// Compared with each other, or looked for one by one, so many would take minutes.
#[test]
fn a_hundred_thousand_added_tokens_are_found() {
    let mut file = small("siglip2");
    let added = file["added_tokens"].as_array_mut().unwrap();
    for number in 0..100_000 {
        added.push(json!({"id": 1500 + number, "content": format!("<added {number}>"), "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": number % 2 > 0, "special": false}));
    }
    let file = file.to_string();
    let tokenizer = Tokenizer::new(file.as_bytes(), None, 4, 200_000).unwrap();
    let ids = tokenizer.encode("<added 7><added 77778><added 99999>");
    assert_eq!(ids.unwrap(), [1507, 79_278, 101_499, 1]);
}

/// Forty lines that each double a text: refused at once, by our own encoder and by the crate's.
#[test]
fn normalizers_that_blow_a_text_up_are_refused() {
    let repeated = |step: Value| json!({"type": "Sequence", "normalizers": vec![step; 40]});
    let strip = json!({"type": "Strip", "strip_left": true, "strip_right": true});
    let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    for step in [
        double.clone(),
        json!({"type": "Sequence", "normalizers": [strip, double]}),
        json!({"type": "Replace", "pattern": {"Regex": "[a-z]"}, "content": "aa"}),
        json!({"type": "Prepend", "prepend": "a".repeat(1 << 19)}),
    ] {
        for family in ["v1", "siglip2"] {
            let mut file = small(family);
            file["normalizer"] = repeated(step.clone());
            let refused = match load(&file, None) {
                Ok(tokenizer) => tokenizer.encode("a label").expect_err(&step.to_string()),
                Err(error) => error,
            };
            assert_eq!(refused.code(), Code::BadModel, "{refused}");
            assert!(refused.message().contains("normalizer"), "{refused}");
        }
    }
}

/// The multilingual SigLIP has 100 sentinels past its embedding table; a label can't name them.
#[test]
fn sentinels_past_the_embedding_table_are_ignored() {
    let mut file = small("v1");
    let vocabulary = file["model"]["vocab"].as_array_mut().unwrap();
    vocabulary.push(json!(["▁<extra_id_0>", 0.0]));
    let tokenizer = Tokenizer::new(file.to_string().as_bytes(), None, 4, 6).unwrap();
    let ids = tokenizer.encode("A <extra_id_0>").unwrap();
    assert!(ids.iter().all(|&id| id < 6), "{ids:?}");
}

/// Damage that leaves well-formed JSON, or not: an error or ids of the right length, never a panic.
#[test]
fn damaged_files_never_panic() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let mut charsmap = small("v1");
    charsmap["normalizer"] = {
        let real: Value = serde_json::from_slice(&read("v1/tokenizer.json.gz")).unwrap();
        real["normalizer"].clone()
    };
    let labels = [
        "",
        "a b A",
        "e\u{301}\u{323} ½ 日本 ﷺ \u{200b}</s> <eos> \n\n ▁▁ x",
        "\u{301}",
    ];
    let try_file = |bytes: &[u8]| {
        if let Ok(tokenizer) = Tokenizer::new(bytes, None, 8, 2000) {
            for label in labels {
                if let Ok(ids) = tokenizer.encode(label) {
                    assert_eq!(ids.len(), 8);
                }
            }
        }
    };
    for (file, rounds) in [(small("v1"), 1500), (charsmap, 60), (small("siglip2"), 150)] {
        let text = file.to_string().into_bytes();
        for _ in 0..rounds {
            try_file(&text[..random(text.len())]);
            let mut damaged = text.clone();
            for _ in 0..=random(3) {
                let at = random(damaged.len());
                damaged[at] = b"\"{}[],:0123456789-eAa<> \\x"[random(26)];
            }
            try_file(&damaged);
            try_file(&mutate(&file, &mut random).to_string().into_bytes());
        }
    }
}

/// `file` with one value anywhere in it replaced by another value.
fn mutate(file: &Value, random: &mut impl FnMut(usize) -> usize) -> Value {
    let mut file = file.clone();
    let mut at = &mut file;
    loop {
        let inner = match &*at {
            Value::Object(map) if !map.is_empty() && random(8) > 0 => map.len(),
            Value::Array(list) if !list.is_empty() && random(8) > 0 => list.len(),
            _ => break,
        };
        let which = random(inner);
        at = match at {
            Value::Object(map) => map.values_mut().nth(which).unwrap(),
            Value::Array(list) => &mut list[which],
            _ => unreachable!("only containers have inner values"),
        };
    }
    *at = match random(12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(1e308),
        5 => json!(7),
        6 => json!(""),
        7 => json!("▁"),
        8 => json!("(a|b"),
        9 => json!([]),
        10 => json!({}),
        _ => json!("<unk>"),
    };
    file
}

/// The ids that the `tokenizers` library gives for `text`.
fn library_ids(library: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    let encoding = library.encode_fast(text, false);
    encoding
        .unwrap_or_else(|e| panic!("{text:?}: {e}"))
        .get_ids()
        .to_vec()
}

/// `SiglipTokenizer` around the `tokenizers` library: what is done to a label, and the cuts at special tokens, in Rust.
fn library_siglip_ids(
    library: &tokenizers::Tokenizer,
    special: &[(&str, u32)],
    text: &str,
) -> Vec<u32> {
    let label = format!("▁{}", text.replace('▁', " "));
    let mut ids = Vec::new();
    let mut rest = label.as_str();
    loop {
        let found = special
            .iter()
            .filter_map(|&(token, id)| Some((rest.find(token)?, token, id)))
            .min_by_key(|(at, ..)| *at);
        let text = &rest[..found.map_or(rest.len(), |(at, ..)| at)];
        let text: String = text.to_lowercase();
        let text: String = text.chars().filter(|c| !c.is_ascii_punctuation()).collect();
        let is_space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
        let words: Vec<_> = text
            .split(is_space)
            .filter(|word| !word.is_empty())
            .collect();
        let text = words.join(" ");
        ids.extend(library_ids(library, text.trim_end_matches([' ', '▁'])));
        let Some((at, token, id)) = found else {
            return ids;
        };
        ids.push(id);
        rest = &rest[at + token.len()..];
    }
}

/// Compares with the library on `texts`, all ids of each.
#[track_caller]
fn assert_same_ids(
    name: &str,
    file: &Value,
    end: u32,
    texts: &[String],
    library: impl Fn(&str) -> Vec<u32>,
) {
    const ROOM: usize = 13_000;
    let config = json!({"padding_side": "right", "add_eos_token": true});
    let (json, config) = (file.to_string(), config.to_string());
    let tokenizer = Tokenizer::new(json.as_bytes(), Some(config.as_bytes()), ROOM, 256_000);
    let tokenizer = tokenizer.unwrap_or_else(|e| panic!("{name}: {e}"));
    for text in texts {
        let mut expected = library(text);
        if expected.last() != Some(&end) || tokenizer.pad_id() != end {
            expected.push(end);
        }
        expected.resize(ROOM, tokenizer.pad_id());
        let excerpt: String = text.chars().take(80).collect();
        let ids = tokenizer.encode(text).unwrap();
        let used = |ids: &[u32]| ids.iter().rposition(|&id| id != tokenizer.pad_id());
        let (ours, theirs) = (
            used(&ids).map_or(0, |n| n + 1),
            used(&expected).map_or(0, |n| n + 1),
        );
        assert_eq!(ids[..ours], expected[..theirs], "{name}: {excerpt:?}");
    }
}

#[test]
fn unigram_ids_equal_the_library() {
    let special = [("</s>", 1), ("<unk>", 2), ("<pad>", 0)];
    let tokens = [
        "</s>",
        "<unk>",
        "<pad>",
        "<0x41>",
        "</S>",
        "<extra_id_0>",
        "<unk></s>",
        "ab",
        "日本",
    ];
    let mut real: Value = serde_json::from_slice(&read("v1/tokenizer.json.gz")).unwrap();
    // The library's way with the character map is another one; transformers' goldens have it.
    real["normalizer"] = real["normalizer"]["normalizers"][1].clone();
    let mut fallback = mt5_like(&mut Random(3), 3000);
    fallback["model"]["byte_fallback"] = json!(true);
    // With one of the bytes missing only text without it is spelt.
    fallback["model"]["vocab"][3 + 0xa9][0] = json!("<no byte>");
    let mut odd = mt5_like(&mut Random(4), 900);
    odd["model"]["vocab"][2][1] = json!(-40.0);
    odd["model"]["byte_fallback"] = json!(true);
    odd["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    // Two unknown characters that are a piece together, and score higher apart: the library gives the piece.
    let mut high = small("v1");
    high["model"]["vocab"] = json!([
        ["<pad>", 30],
        ["</s>", 30],
        ["<unk>", 30],
        ["▁", 30],
        ["ab", 30],
        ["é", 31],
        ["日本", 30]
    ]);
    let form = |form: &str| {
        let mut file = mt5_like(&mut Random(2), 3000);
        file["normalizer"] = json!({"type": form});
        file
    };
    for (name, file, count) in [
        ("high", high, 1000),
        ("v1", real, 3000),
        ("mt5", mt5_like(&mut Random(2), 3000), 2000),
        ("fallback", fallback, 1500),
        ("odd", odd, 1000),
        ("NFC", form("NFC"), 300),
        ("NFD", form("NFD"), 300),
        ("NFKC", form("NFKC"), 300),
        ("NFKD", form("NFKD"), 300),
    ] {
        let mut library_file = file.clone();
        library_file["added_tokens"] = json!([]);
        without_prefix_space(&mut library_file["pre_tokenizer"]);
        let library: tokenizers::Tokenizer = library_file.to_string().parse().unwrap();
        // The end and the unknown token are always recognised, others if the file lists them.
        let added = file["added_tokens"].to_string();
        let special: Vec<_> = special
            .into_iter()
            .filter(|&(token, id)| id > 0 || added.contains(token))
            .collect();
        let texts = texts(&mut Random(7), count, &tokens);
        assert_same_ids(name, &file, 1, &texts, |text| {
            library_siglip_ids(&library, &special, text)
        });
    }
}

/// `SiglipTokenizer` puts a space before a label itself.
fn without_prefix_space(step: &mut Value) {
    if step["type"] == "Metaspace" {
        step["prepend_scheme"] = json!("never");
        step.as_object_mut().unwrap().remove("add_prefix_space");
    }
    for step in step["pretokenizers"].as_array_mut().into_iter().flatten() {
        without_prefix_space(step);
    }
}

#[test]
fn bpe_ids_equal_the_library() {
    let tokens = [
        "<eos>",
        "<pad>",
        "<bos>",
        "<unk>",
        "<EOS>",
        "<unused7>",
        "\n\n",
        "▁▁▁▁",
        "<table>",
        "<l>",
        "<r>",
        "<b>",
        "Norm",
        "x y",
        "<0xE9>",
    ];
    let plain = gemma_like(&mut Random(1), 4000);
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut file = plain.clone();
        edit(&mut file);
        file
    };
    let mut cases = vec![
        ("fixture".to_string(), small("siglip2"), 1500),
        ("pairs".to_string(), plain.clone(), 3000),
        ("text".to_string(), with_merges_as_text(plain.clone()), 300),
    ];
    for flags in 0..8 {
        let file = edited(&|file| {
            let model = &mut file["model"];
            model["fuse_unk"] = json!(flags & 1 > 0);
            model["byte_fallback"] = json!(flags & 2 > 0);
            model["ignore_merges"] = json!(flags & 4 > 0);
        });
        cases.push((format!("flags {flags}"), file, 300));
    }
    // A byte without a piece; a pair that is merged twice.
    cases.push((
        "gaps".to_string(),
        edited(&|file| {
            let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
            vocabulary.remove("<0xA9>").unwrap();
            let merges = file["model"]["merges"].as_array_mut().unwrap();
            let first: Vec<_> = merges.iter().step_by(9).cloned().collect();
            merges.extend(first);
        }),
        500,
    ));
    cases.push((
        "added".to_string(),
        edited(&|file| {
            let added = file["added_tokens"].as_array_mut().unwrap();
            for (id, content, lstrip, rstrip, normalized) in [
                (4000, "<l>", true, false, false),
                (4001, "<r>", false, true, false),
                (4002, "<b>", true, true, true),
                (4003, "Norm", false, false, true),
                (4004, "x y", false, true, true),
                (4005, " ", false, false, false),
            ] {
                added.push(json!({"id": id, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": rstrip,
                    "normalized": normalized, "special": false}));
            }
        }),
        1500,
    ));
    let split = |behavior: &str, invert: bool, pattern: Value| json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert});
    for (number, steps) in [
        json!({"type": "WhitespaceSplit"}),
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
        json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": "never", "split": false}),
        json!([{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true}]),
        split("Removed", false, json!({"String": " "})),
        split("Removed", true, json!({"Regex": "[a \\s]+"})),
        split("Isolated", false, json!({"Regex": "\\s+"})),
        split("MergedWithPrevious", true, json!({"String": " "})),
        split("MergedWithNext", false, json!({"String": " "})),
        split("MergedWithNext", true, json!({"String": "a"})),
        split("Contiguous", false, json!({"Regex": " "})),
        split("Contiguous", true, json!({"Regex": " {2,}"})),
    ]
    .into_iter()
    .enumerate()
    {
        let file = edited(&|file| {
            // Spaces are left for the pre-tokenizer.
            file["normalizer"] = json!({"type": "Sequence", "normalizers": [
                {"type": "Strip", "strip_left": number % 2 > 0, "strip_right": number % 3 > 0},
                {"type": "Prepend", "prepend": " "},
                {"type": "Replace", "pattern": {"Regex": "\\s{3,}"}, "content": "  "},
                {"type": "Lowercase"},
                {"type": "Replace", "pattern": {"String": "aa"}, "content": "éé"},
            ]});
            file["pre_tokenizer"] = match &steps {
                Value::Array(steps) => json!({"type": "Sequence", "pretokenizers": steps}),
                step => step.clone(),
            };
        });
        cases.push((format!("steps {number}"), file, 300));
    }
    for (name, file, count) in cases {
        let mut library_file = file.clone();
        library_file["normalizer"] =
            json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}, file["normalizer"]]});
        library_file["post_processor"] = Value::Null;
        let library: tokenizers::Tokenizer = library_file.to_string().parse().unwrap();
        let texts = texts(&mut Random(8), count, &tokens);
        assert_same_ids(&name, &file, 1, &texts, |text| library_ids(&library, text));
    }
}

/// SentencePiece's own file with the pieces of a `tokenizer.json`, as `sentencepiece_model.proto` has it.
fn spiece_model(file: &Value, byte_fallback: bool) -> Vec<u8> {
    fn number(mut number: u64, out: &mut Vec<u8>) {
        while number > 0x7f {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }
    fn bytes(field: u64, bytes: &[u8], out: &mut Vec<u8>) {
        number(field << 3 | 2, out);
        number(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
    let mut out = Vec::new();
    let unknown = file["model"]["unk_id"].as_u64().unwrap() as usize;
    for (i, piece) in file["model"]["vocab"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let text = piece[0].as_str().unwrap();
        let kind = match i {
            i if i == unknown => 2,
            0..3 => 3,
            _ if byte_fallback && text.starts_with("<0x") => 6,
            _ => 1,
        };
        let mut one = Vec::new();
        bytes(1, text.as_bytes(), &mut one);
        one.push(2 << 3 | 5);
        one.extend((piece[1].as_f64().unwrap() as f32).to_le_bytes());
        one.extend([3 << 3, kind]);
        bytes(1, &one, &mut out);
    }
    let mut trainer = vec![3 << 3, 1];
    number(35 << 3, &mut trainer);
    trainer.push(u8::from(byte_fallback));
    bytes(2, &trainer, &mut out);
    let steps = file["normalizer"]["normalizers"].as_array().unwrap();
    let map = steps
        .iter()
        .find_map(|step| step["precompiled_charsmap"].as_str());
    let map = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        map.unwrap_or_default(),
    );
    let mut normalizer = Vec::new();
    bytes(2, &map.unwrap(), &mut normalizer);
    bytes(3, &normalizer, &mut out);
    out
}

#[test]
fn sentencepieces_own_files_give_the_ids_that_transformers_gives_with_them() {
    let file: Value = serde_json::from_slice(&read("v1/tokenizer.json.gz")).unwrap();
    let config = read("v1/tokenizer_config.json");
    let v1 = |byte_fallback| {
        let model = spiece_model(&file, byte_fallback);
        let name = "spiece.model";
        Tokenizer::from_sentencepiece(name, &model, Some(&config), 64, V1_VOCABULARY).unwrap()
    };
    let v2 = Tokenizer::from_sentencepiece(
        "tokenizer.model",
        &read("siglip2/tokenizer.model"),
        Some(&read("siglip2/tokenizer_config.json")),
        64,
        256_000,
    );
    let (unknown, spelling, v2) = (v1(false), v1(true), v2.unwrap());
    let lines = String::from_utf8(read("goldens.jsonl.gz")).unwrap();
    let mut spelt = 0;
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = line["text"].as_str().unwrap();
        spelt += usize::from(line.get("v1_bytes").is_some());
        for (tokenizer, ids) in [
            (&unknown, &line["v1"]),
            (&spelling, line.get("v1_bytes").unwrap_or(&line["v1"])),
            (&v2, &line["v2_model"]),
        ] {
            let mut expected: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
            expected.resize(64, tokenizer.pad_id());
            let mut got = tokenizer.encode(text).unwrap();
            let text: String = text.chars().take(80).collect();
            // Two cuts with the same score: the same pieces in another order.
            if line.get("tie").is_some() {
                got.sort_unstable();
                expected.sort_unstable();
            }
            assert_eq!(got, expected, "{text:?}");
        }
    }
    assert!(spelt > 1000, "{spelt}");
}

#[test]
fn a_trained_spiece_model_says_what_its_tokenizer_json_says() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("www/lib/models/demo");
    let read_demo = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let config = read_demo("tokenizer_config.json");
    let json = Tokenizer::new(&read_demo("tokenizer.json"), Some(&config), 16, 2560).unwrap();
    let model = read_demo("spiece.model");
    let model =
        Tokenizer::from_sentencepiece("spiece.model", &model, Some(&config), 16, 2560).unwrap();
    let lines = String::from_utf8(read("goldens.jsonl.gz")).unwrap();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = line["text"].as_str().unwrap();
        let ids = json.encode(text).unwrap();
        assert_eq!(model.encode(text).unwrap(), ids, "{text:?}");
    }
}

#[test]
fn damaged_sentencepiece_files_are_refused_by_name() {
    let (file, config) = (small("v1"), json!({"tokenizer_class": "SiglipTokenizer"}));
    let load = |bytes: &[u8]| {
        let config = config.to_string();
        Tokenizer::from_sentencepiece("spiece.model", bytes, Some(config.as_bytes()), 8, 2000)
    };
    let refused = |bytes: &[u8], code: Code, words: &[&str]| {
        assert_error(load(bytes), code, &["spiece.model"]);
        assert_error(load(bytes), code, words);
    };
    let whole = {
        let mut file = file.clone();
        file["normalizer"] = json!({"normalizers": []});
        spiece_model(&file, false)
    };
    load(&whole).unwrap();
    for length in 0..whole.len() {
        // Shorter by a whole field it may still be one.
        if let Err(error) = load(&whole[..length]) {
            assert_eq!(error.code(), Code::BadModel, "{error}");
        }
    }
    refused(b"", Code::BadModel, &["no pieces"]);
    refused(
        b"<!doctype html>",
        Code::BadModel,
        &["no SentencePiece model"],
    );
    let with = |section: u8, field: &[u8]| {
        let length = field.len() as u8;
        [&whole[..], &[section << 3 | 2, length], field].concat()
    };
    let words = "trainer_spec.model_type";
    refused(&with(2, &[3 << 3, 3]), Code::Unsupported, &[words, "3"]);
    for (field, name) in [(3, "dummy_prefix"), (4, "extra_whitespaces"), (5, "escape")] {
        refused(&with(3, &[field << 3, 0]), Code::Unsupported, &[name]);
    }
    // A second piece for unknown text, one without text, one of a type that is left out, one without a score.
    for (piece, code) in [
        (&[10, 1, b'x', 24, 2][..], Code::BadModel),
        (&[24, 1], Code::BadModel),
        (&[10, 1, b'x', 24, 5], Code::Unsupported),
        (&[10, 1, b'x', 21, 0, 0, 0xc0, 0x7f], Code::BadModel),
        (&[10, 1, 0xff], Code::BadModel),
    ] {
        refused(&with(1, piece), code, &[]);
    }
    let error = Tokenizer::from_sentencepiece("spiece.model", &whole, None, 8, 3).unwrap_err();
    assert!(
        error.message().starts_with("spiece.model has 6 tokens"),
        "{error}"
    );
}
