//! `config.json` as the Hub has it, against what transformers resolves (`reference/model.py`).
#![cfg(not(target_family = "wasm"))]

use std::path::PathBuf;

use serde_json::Value;
use siglip_web::Code;
use siglip_web::kernels::Activation;
use siglip_web::model::{EncoderConfig, SiglipConfig, parameters};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/configs")
}

fn assert_encoder(name: &str, got: &EncoderConfig, expected: &Value) {
    let sizes = [
        ("hidden_size", got.hidden_size),
        ("intermediate_size", got.intermediate_size),
        ("num_hidden_layers", got.num_hidden_layers),
        ("num_attention_heads", got.num_attention_heads),
    ];
    for (key, value) in sizes {
        assert_eq!(expected[key], value, "{name} {key}");
    }
    assert_eq!(
        expected["layer_norm_eps"], got.layer_norm_eps,
        "{name} layer_norm_eps"
    );
    let activation = match got.hidden_act {
        Activation::GeluTanh => "gelu_pytorch_tanh",
        Activation::Gelu => "gelu",
    };
    assert_eq!(expected["hidden_act"], activation, "{name}");
}

#[test]
fn every_published_checkpoint_is_understood() {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap();
    let expected = expected.as_object().unwrap();
    assert!(expected.len() >= 20);
    for (name, expected) in expected {
        let json = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
        let config = SiglipConfig::from_json(&json).unwrap();
        assert_encoder(name, &config.text.encoder, &expected["text"]);
        assert_encoder(name, &config.vision.encoder, &expected["vision"]);
        assert_eq!(
            expected["text"]["vocab_size"], config.text.vocab_size,
            "{name}"
        );
        assert_eq!(
            expected["text"]["max_position_embeddings"], config.text.max_position_embeddings,
            "{name}"
        );
        assert_eq!(
            expected["text"]["projection_size"],
            config.text.projection_size(),
            "{name}"
        );
        assert_eq!(
            expected["vision"]["image_size"], config.vision.image_size,
            "{name}"
        );
        assert_eq!(
            expected["vision"]["patch_size"], config.vision.patch_size,
            "{name}"
        );
        let count: usize = parameters(&config)
            .iter()
            .map(|spec| spec.shape.iter().product::<usize>())
            .sum();
        assert_eq!(
            expected["parameters"], count,
            "{name}: number of parameters"
        );
    }
}

#[test]
fn other_architectures_are_named() {
    for entry in std::fs::read_dir(folder().join("unsupported")).unwrap() {
        let path = entry.unwrap().path();
        let error = SiglipConfig::from_json(&std::fs::read(&path).unwrap()).unwrap_err();
        assert_eq!(error.code(), Code::Unsupported, "{path:?}");
        assert!(error.message().contains("config.json"), "{error}");
    }
}

#[test]
fn bad_configurations_say_what_is_wrong() {
    let cases = [
        ("", Code::BadModel, "empty"),
        ("{\"model_type\": \"siglip\"", Code::BadModel, "cut off"),
        (
            "<!doctype html><title>404</title>",
            Code::BadModel,
            "web page",
        ),
        ("{}", Code::BadModel, "model_type"),
        ("[1]", Code::BadModel, "model_type"),
        (r#"{"model_type":"clip"}"#, Code::Unsupported, "\"clip\""),
        (
            r#"{"model_type":"siglip","architectures":["SiglipVisionModel"]}"#,
            Code::Unsupported,
            "SiglipVisionModel",
        ),
        (
            r#"{"model_type":"siglip","text_config":{"hidden_act":"relu"}}"#,
            Code::Unsupported,
            "\"relu\"",
        ),
        (
            r#"{"model_type":"siglip","text_config":{"hidden_size":"big"}}"#,
            Code::BadModel,
            "big",
        ),
        (
            r#"{"model_type":"siglip","text_config":{"hidden_size":0}}"#,
            Code::BadModel,
            "hidden_size is 0",
        ),
        (
            r#"{"model_type":"siglip","text_config":{"hidden_size":-1}}"#,
            Code::BadModel,
            "-1",
        ),
        (
            r#"{"model_type":"siglip","vision_config":{"num_hidden_layers":999999}}"#,
            Code::BadModel,
            "num_hidden_layers",
        ),
        (
            r#"{"model_type":"siglip","vision_config":{"num_attention_heads":7}}"#,
            Code::BadModel,
            "num_attention_heads",
        ),
        (
            r#"{"model_type":"siglip","vision_config":{"patch_size":500}}"#,
            Code::BadModel,
            "patch_size",
        ),
        (
            r#"{"model_type":"siglip","vision_config":{"image_size":[224,448]}}"#,
            Code::Unsupported,
            "224 × 448",
        ),
        (
            r#"{"model_type":"siglip","vision_config":{"num_channels":1}}"#,
            Code::Unsupported,
            "num_channels",
        ),
        (
            r#"{"model_type":"siglip","vision_config":{"vision_use_head":false}}"#,
            Code::Unsupported,
            "vision_use_head",
        ),
        (
            r#"{"model_type":"siglip","vision_config":{"hidden_size":1152}}"#,
            Code::BadModel,
            "1152",
        ),
        (
            r#"{"model_type":"siglip","vision_config":{"layer_norm_eps":null}}"#,
            Code::BadModel,
            "config.json",
        ),
        (
            r#"{"model_type":"siglip","architectures":["SiglipForImageClassification"],"num_labels":1000000000000}"#,
            Code::BadModel,
            "num_labels is 1000000000000; expected 1 to",
        ),
        (
            r#"{"model_type":"siglip","architectures":["SiglipForImageClassification"],"id2label":{}}"#,
            Code::BadModel,
            "id2label has no labels",
        ),
        (
            r#"{"model_type":"siglip","architectures":["SiglipForImageClassification"],"id2label":{"0":"a","2":"c"}}"#,
            Code::BadModel,
            "2 labels, of which 1 is missing",
        ),
        (
            r#"{"model_type":"siglip","architectures":["SiglipForImageClassification"],"id2label":{"0":null}}"#,
            Code::BadModel,
            "of which 0 is null",
        ),
        (
            r#"{"model_type":"siglip","id2label":{"0":"a"},"problem_type":"regression"}"#,
            Code::Unsupported,
            "regression",
        ),
        (
            r#"{"model_type":"siglip","id2label":{"0":"a"},"problem_type":"guesswork"}"#,
            Code::BadModel,
            "guesswork",
        ),
    ];
    for (json, code, word) in cases {
        let error = SiglipConfig::from_json(json.as_bytes()).unwrap_err();
        assert_eq!(error.code(), code, "{json}: {error}");
        assert!(error.message().contains(word), "{json}: {error}");
    }
}

#[test]
fn a_classifiers_labels_are_in_the_order_of_its_outputs() {
    let classifier = |more: &str| {
        let json = format!(
            r#"{{"model_type":"siglip","id2label":{{"10":"k","0":"a","1":"b","2":3,"3":"d","4":"e","5":"f","6":"g","7":"h","8":"i","9":"j"}}{more}}}"#
        );
        let config = SiglipConfig::from_json(json.as_bytes()).unwrap();
        assert_eq!(config.published(), None);
        config.classifier.unwrap()
    };
    let labels = classifier("").labels;
    assert_eq!(
        labels,
        ["a", "b", "3", "d", "e", "f", "g", "h", "i", "j", "k"]
    );
    for (problem, multi_label) in [
        ("", false),
        (r#","problem_type":null"#, false),
        (r#","problem_type":"single_label_classification""#, false),
        (r#","problem_type":"multi_label_classification""#, true),
    ] {
        assert_eq!(classifier(problem).multi_label, multi_label, "{problem}");
    }
    // With both towers, labels say nothing.
    let both = br#"{"model_type":"siglip","architectures":["SiglipModel"],"id2label":{"0":"a"}}"#;
    assert_eq!(SiglipConfig::from_json(both).unwrap().classifier, None);
}

#[test]
fn an_architecture_names_its_checkpoint_on_the_hub() {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap();
    for name in expected.as_object().unwrap().keys() {
        let json = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
        let config = SiglipConfig::from_json(&json).unwrap();
        let google = format!("google/{name}");
        assert_eq!(config.published(), Some(google.as_str()));
    }
    let own = br#"{"model_type": "siglip", "vision_config": {"image_size": 240}}"#;
    assert_eq!(SiglipConfig::from_json(own).unwrap().published(), None);
}
