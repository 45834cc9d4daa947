//! What a caller of the classifier notices: scores, caches, and errors that leave it usable.
#![cfg(not(target_family = "wasm"))]

mod common;

use burn::tensor::Device;
use common::{Memory, PICTURE, StopAfter, TINY};
#[cfg(feature = "webgpu")]
use siglip_web::{Backend, device};
use siglip_web::{Classifier, ClassifyOptions, Code, Error, Picture, Scores};

fn load_on(source: &Memory, device: &Device) -> Result<Classifier, Error> {
    pollster::block_on(Classifier::load_with(source, device, &(), &mut |_| {}))
}

fn load(source: &Memory) -> Result<Classifier, Error> {
    load_on(source, &Device::flex())
}

fn tiny() -> Classifier {
    load(&TINY.source()).unwrap()
}

/// Each device with how much an embedding's components may differ on it between two batches.
fn devices() -> Vec<(Device, f32)> {
    vec![
        (Device::flex(), 1e-6),
        #[cfg(feature = "webgpu")]
        (device::open(Backend::WebGpu).unwrap(), 1e-5),
    ]
}

fn with_templates(templates: &[&str]) -> ClassifyOptions {
    ClassifyOptions {
        templates: templates.iter().map(|t| (*t).to_owned()).collect(),
        ..ClassifyOptions::default()
    }
}

#[test]
fn unusable_input_gets_a_code_and_the_classifier_stays_usable() {
    let mut classifier = tiny();
    let long = "cat ".repeat(2500);
    let options = ClassifyOptions::default();
    let no_labels: [&str; 0] = [];
    let cases: [(&[&str], &ClassifyOptions, &str); 7] = [
        (&no_labels, &options, "no labels"),
        (&["cat", ""], &options, "label 2 is blank"),
        (&["cat", "dog", "cat"], &options, "\"cat\""),
        (&[&long], &options, "10000 characters"),
        (&["cat", "?!"], &options, "\"?!\""),
        (&["cat"], &with_templates(&["a photo"]), "{}"),
        (&["cat"], &with_templates(&[]), "template"),
    ];
    for (labels, options, word) in cases {
        let error = classifier.classify(PICTURE, labels, options).unwrap_err();
        assert_eq!(error.code(), Code::BadInput, "{error}");
        assert!(error.message().contains(word), "{error}");
    }
    for picture in [&b""[..], b"not a picture", &PICTURE[..PICTURE.len() / 2]] {
        let error = classifier
            .classify(picture, &["cat"], &options)
            .unwrap_err();
        assert_eq!(error.code(), Code::BadImage, "{error}");
    }
    assert_eq!(
        classifier.runs(),
        (0, 0),
        "nothing ran for input that can't be used"
    );
    let results = classifier
        .classify(
            PICTURE,
            &["cat", "<b>dog</b>", "$& tree", "a {} bird"],
            &options,
        )
        .unwrap();
    assert_eq!(results.len(), 4);
}

#[test]
fn each_tower_runs_once_for_the_same_input() {
    let mut classifier = tiny();
    let options = ClassifyOptions::default();
    classifier
        .classify(PICTURE, &["cat", "dog"], &options)
        .unwrap();
    assert_eq!(classifier.runs(), (1, 1));
    classifier
        .classify(PICTURE, &["dog", "cat"], &options)
        .unwrap();
    assert_eq!(classifier.runs(), (1, 1), "order doesn't matter");
    classifier
        .classify(PICTURE, &["dog", "cat", "bird"], &options)
        .unwrap();
    assert_eq!(classifier.runs(), (1, 2), "only the new label");
    let pixels = [255; 4 * 6];
    let rgba = |width, height| Picture::Rgba {
        width,
        height,
        pixels: &pixels,
    };
    for (picture, runs) in [(rgba(2, 3), 2), (rgba(2, 3), 2), (rgba(3, 2), 3)] {
        pollster::block_on(classifier.embed_image_with(picture, &())).unwrap();
        assert_eq!(classifier.runs().0, runs);
    }
}

#[test]
fn a_labels_score_depends_neither_on_the_others_nor_on_the_batch() {
    let mut classifier = tiny();
    let options = ClassifyOptions::default();
    let alone = classifier.classify(PICTURE, &["cat"], &options).unwrap()[0].clone();
    let many: Vec<String> = (0..40)
        .map(|i| format!("thing {i}"))
        .chain(["cat".into()])
        .collect();
    let mut classifier = tiny();
    let among = classifier.classify(PICTURE, &many, &options).unwrap();
    assert_eq!(among.len(), 41);
    let cat = among.iter().find(|r| r.label == "cat").unwrap();
    assert!(
        (cat.logit - alone.logit).abs() < 1e-4,
        "{} and {}",
        cat.logit,
        alone.logit
    );
}

#[test]
fn softmax_top_k_and_several_templates() {
    let mut classifier = tiny();
    let labels = ["cat", "dog", "bird"];
    let softmax = ClassifyOptions {
        scores: Scores::Softmax,
        top_k: Some(2),
        ..ClassifyOptions::default()
    };
    let all = classifier
        .classify(PICTURE, &labels, &ClassifyOptions::default())
        .unwrap();
    let best = classifier.classify(PICTURE, &labels, &softmax).unwrap();
    assert_eq!(best.len(), 2);
    let total: f64 = all
        .iter()
        .map(|r| f64::from(r.logit - all[0].logit).exp())
        .sum();
    assert!((f64::from(best[0].score) - 1.0 / total).abs() < 1e-6);

    // The average of two templates' embeddings, of unit length again.
    let image = classifier.embed_image(PICTURE).unwrap();
    let texts = classifier.embed_text(&["a cat", "the cat"]).unwrap();
    let sum: Vec<f32> = texts[0].iter().zip(&texts[1]).map(|(a, b)| a + b).collect();
    let length = sum.iter().map(|v| v * v).sum::<f32>().sqrt();
    let cosine: f32 = image.iter().zip(&sum).map(|(a, b)| a * b / length).sum();
    let expected = classifier.logit_scale().exp() * cosine + classifier.logit_bias();
    let got = classifier
        .classify(PICTURE, &["cat"], &with_templates(&["a {}", "the {}"]))
        .unwrap();
    assert!(
        (got[0].logit - expected).abs() < 1e-3,
        "{} and {expected}",
        got[0].logit
    );
}

#[test]
fn pictures_embedded_together_have_the_embeddings_of_each_alone() {
    let pixels: Vec<u8> = (0..4 * 60).map(|i| (i * 7919 % 251) as u8).collect();
    let rgba = |width| Picture::Rgba {
        width,
        height: 60 / width,
        pixels: &pixels,
    };
    let pictures = || {
        let widths = [1, 2, 3, 4, 5, 6, 3, 10, 12];
        let drawn = widths.into_iter().map(rgba);
        [Picture::Encoded(PICTURE)].into_iter().chain(drawn)
    };
    let all: Vec<Picture> = pictures().collect();
    for (device, tolerance) in devices() {
        let load = || load_on(&TINY.source(), &device).unwrap();
        let mut classifier = load();
        let before = classifier.runs().0;
        let together = pollster::block_on(classifier.embed_images_with(&all, &())).unwrap();
        assert_eq!(together.len(), 10);
        // One of them comes twice.
        assert_eq!(classifier.runs().0, before + 9);
        let mut one = load();
        for (picture, together) in pictures().zip(&together) {
            let alone = pollster::block_on(one.embed_image_with(picture, &())).unwrap();
            assert_close(&alone, together, tolerance);
        }
        // All are in the cache now.
        classifier.embed_images(&[PICTURE]).unwrap();
        assert_eq!(classifier.runs().0, before + 9);
        // What is not a picture comes in the third batch, while the second is worked on.
        let mut classifier = load();
        let broken: Vec<Picture> = all[..9]
            .iter()
            .copied()
            .chain([Picture::Encoded(b"no picture")])
            .collect();
        let error = pollster::block_on(classifier.embed_images_with(&broken, &()));
        assert_eq!(error.unwrap_err().code(), Code::BadImage);
        let again = pollster::block_on(classifier.embed_images_with(&all, &())).unwrap();
        for (again, together) in again.iter().zip(&together) {
            assert_close(again, together, tolerance);
        }
        assert!(classifier.embed_images(&[]).unwrap().is_empty());
    }
}

#[test]
fn texts_embedded_together_have_the_embeddings_of_each_alone() {
    let texts: Vec<String> = (0..40).map(|i| format!("thing {i}")).collect();
    for (device, tolerance) in devices() {
        let mut classifier = load_on(&TINY.source(), &device).unwrap();
        let together = classifier.embed_text(&texts).unwrap();
        let mut one = load_on(&TINY.source(), &device).unwrap();
        for (text, together) in texts.iter().zip(&together) {
            assert_close(&one.embed_text(&[text]).unwrap()[0], together, tolerance);
        }
    }
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < tolerance, "{a}, {b}");
    }
}

#[test]
fn embeddings_have_unit_length_and_texts_are_taken_as_they_are() {
    let mut classifier = tiny();
    let image = classifier.embed_image(PICTURE).unwrap();
    let mut all = classifier
        .embed_text(&["cat", "This is a photo of cat.", ""])
        .unwrap();
    assert_ne!(all[0], all[1]);
    all.push(image);
    for embedding in all {
        assert_eq!(embedding.len(), 64);
        let length = embedding.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 1e-5);
    }
    assert!(classifier.embed_text(&[] as &[&str]).unwrap().is_empty());
}

#[test]
fn damaged_weights_show_an_error_not_a_number() {
    let source = TINY.source();
    let file = &source.files["model.safetensors"];
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize + 8;
    for value in [f32::NAN, f32::INFINITY, 1e30] {
        let mut damaged = source.clone();
        let bytes = damaged.files.get_mut("model.safetensors").unwrap();
        for chunk in bytes[header..].chunks_exact_mut(4) {
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        let error = load(&damaged)
            .and_then(|mut c| c.embed_image(PICTURE))
            .unwrap_err();
        assert_eq!(error.code(), Code::BadModel, "{error}");
    }
}

#[test]
fn stopping_at_any_step_leaves_nothing_half_done() {
    let mut classifier = tiny();
    let expected = classifier
        .classify(PICTURE, &["cat"], &ClassifyOptions::default())
        .unwrap();
    for steps in 0.. {
        let mut classifier = tiny();
        let stop = StopAfter(steps.into());
        let options = ClassifyOptions::default();
        let stopped = pollster::block_on(classifier.classify_with(
            Picture::Encoded(PICTURE),
            &["cat"],
            &options,
            &stop,
        ));
        match stopped {
            Ok(results) => {
                assert!(
                    steps >= 4,
                    "there is a step before every layer of both towers"
                );
                assert_eq!(results, expected);
                break;
            }
            Err(error) => assert_eq!(error.code(), Code::Aborted),
        }
        assert_eq!(
            classifier.classify(PICTURE, &["cat"], &options).unwrap(),
            expected
        );
    }
}

#[test]
fn a_missing_folder_is_a_clear_error() {
    let error = Classifier::load("/no/such/folder", &Device::flex())
        .err()
        .unwrap();
    assert_eq!(error.code(), Code::BadModel);
    assert!(error.message().contains("/no/such/folder"));
}
