//! What a caller of the classifier notices: scores, caches, and errors that leave it usable.
#![cfg(not(target_family = "wasm"))]

mod common;

use burn::tensor::Device;
use common::{Memory, MemoryStore, ODD, PICTURE, StopAfter, TINY, folder};
use siglip_web::classifier::{CallProgress, CallStage};
use siglip_web::{
    Backend, Classifier, ClassifyOptions, Code, Dtype, Error, LabelScore, LabelSet, Labels,
    LoadOptions, Picture, Scores,
};

fn load_as(source: &Memory, device: &Device, options: &LoadOptions) -> Result<Classifier, Error> {
    pollster::block_on(Classifier::load_async(
        source,
        (),
        options,
        device,
        &(),
        &mut |_| {},
    ))
}

fn load_on(source: &Memory, device: &Device) -> Result<Classifier, Error> {
    load_as(source, device, &LoadOptions::exact())
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
        (siglip_web::device::open(Backend::WebGpu).unwrap(), 1e-5),
    ]
}

fn with_templates(templates: &[&str]) -> ClassifyOptions {
    ClassifyOptions::default().with_templates(templates.iter().copied())
}

#[test]
fn unusable_input_gets_a_code_and_the_classifier_stays_usable() {
    let mut classifier = tiny();
    let long = "cat ".repeat(2500);
    let options = ClassifyOptions::default();
    let no_labels: [&str; 0] = [];
    let cases: [(&[&str], &ClassifyOptions, &str); 7] = [
        (&no_labels, &options, "no labels"),
        (&["cat", ""], &options, "label 2 of 2 is blank"),
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
        pollster::block_on(classifier.embed_image_async(picture, &())).unwrap();
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
    let softmax = ClassifyOptions::default()
        .with_scores(Scores::Softmax)
        .with_top_k(2);
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
        let together = pollster::block_on(classifier.embed_images_async(&all, &())).unwrap();
        assert_eq!(together.len(), 10);
        // One of them comes twice.
        assert_eq!(classifier.runs().0, before + 9);
        let mut one = load();
        for (picture, together) in pictures().zip(&together) {
            let alone = pollster::block_on(one.embed_image_async(picture, &())).unwrap();
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
        let error = pollster::block_on(classifier.embed_images_async(&broken, &()));
        assert_eq!(error.unwrap_err().code(), Code::BadImage);
        let again = pollster::block_on(classifier.embed_images_async(&all, &())).unwrap();
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
        let stopped = pollster::block_on(classifier.classify_async(
            Picture::Encoded(PICTURE),
            &["cat"],
            &options,
            &stop,
            &mut |_| {},
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
    let error = Classifier::load("/no/such/folder", Device::flex())
        .err()
        .unwrap();
    assert_eq!(error.code(), Code::BadModel);
    assert!(error.message().contains("/no/such/folder"));
}

#[test]
fn a_backend_is_as_good_as_a_device() {
    let error = Classifier::load("/no/such/folder", Backend::Cpu)
        .err()
        .unwrap();
    assert_eq!(error.code(), Code::BadModel);
}

/// A server keeps it in a `Mutex`.
#[test]
fn a_classifier_can_be_sent_to_another_thread() {
    let classifier = std::sync::Mutex::new(tiny());
    let results = std::thread::scope(|scope| {
        let classify = || {
            classifier
                .lock()
                .unwrap()
                .classify(PICTURE, &["cat"], &ClassifyOptions::default())
        };
        scope.spawn(classify).join().unwrap()
    });
    assert_eq!(results.unwrap().len(), 1);
}

const SENTENCES: [&str; 3] = ["a photo of {}.", "a drawing of {}.", "{}"];

#[test]
fn a_label_set_gives_the_scores_of_its_labels_and_runs_no_text_tower() {
    let labels = ["a cat", "two dogs", "the sky"];
    let options = with_templates(&SENTENCES);
    let mut first = tiny();
    let expected = first.classify(PICTURE, &labels, &options).unwrap();
    let set = first.embed_labels(&labels, &SENTENCES).unwrap();
    assert_eq!(
        (
            set.labels().len(),
            set.templates().len(),
            set.embedding_size()
        ),
        (3, 3, 64)
    );

    // It is kept as JSON, and used by another program that loads the same model, with its weights held otherwise.
    let text = serde_json::to_string(&set).unwrap();
    let set: LabelSet = serde_json::from_str(&text).unwrap();
    let mut second = tiny();
    assert_eq!(
        second
            .classify(PICTURE, &set, &ClassifyOptions::default())
            .unwrap(),
        expected
    );
    assert_eq!(
        second
            .classify(PICTURE, &set, &options.clone().with_top_k(1))
            .unwrap(),
        expected[..1]
    );
    assert_eq!(second.runs(), (1, 0));
    let half = LoadOptions::default().with_dtype(siglip_web::Dtype::F16);
    let mut half = load_as(&TINY.source(), &Device::flex(), &half).unwrap();
    for result in half
        .classify(PICTURE, &set, &ClassifyOptions::default())
        .unwrap()
    {
        let exact = expected
            .iter()
            .find(|other| other.label == result.label)
            .unwrap();
        assert!((result.logit - exact.logit).abs() < 0.05);
    }

    // Another model's is refused, and so are other templates than its own.
    let error = load(&ODD.source())
        .unwrap()
        .classify(PICTURE, &set, &ClassifyOptions::default())
        .unwrap_err();
    assert_eq!(error.code(), Code::BadInput);
    assert!(error.message().contains(set.model()), "{error}");
    let error = second
        .classify(PICTURE, &set, &with_templates(&["a painting of {}"]))
        .unwrap_err();
    assert_eq!(error.code(), Code::BadInput);
    assert!(error.message().contains("a drawing of {}."), "{error}");
}

#[test]
fn many_labels_in_many_templates_run_through_the_text_tower_once_and_tell_how_far_they_are() {
    let labels: Vec<String> = (0..50).map(|i| format!("thing {i}")).collect();
    let mut classifier = tiny();
    let mut heard = Vec::new();
    let ask = |classifier: &mut Classifier, heard: &mut Vec<CallProgress>, pace: &StopAfter| {
        let mut hear = |step| heard.push(step);
        pollster::block_on(classifier.embed_labels_async(&labels, &SENTENCES, pace, &mut hear))
    };
    let for_ever = || StopAfter(std::cell::Cell::new(usize::MAX));
    let set = ask(&mut classifier, &mut heard, &for_ever()).unwrap();
    let batches = classifier.runs().1;
    assert!(
        heard
            .iter()
            .all(|step| step.stage == CallStage::Labels && step.total == 50)
    );
    assert!(heard.windows(2).all(|pair| pair[0].done <= pair[1].done) && heard.len() > 10);
    assert_eq!((heard[0].done, heard.last().unwrap().done), (0, 50));
    // All of it is remembered, the averages too.
    assert_eq!(ask(&mut classifier, &mut heard, &for_ever()).unwrap(), set);
    let options = with_templates(&SENTENCES);
    classifier.classify(PICTURE, &labels, &options).unwrap();
    assert_eq!(classifier.runs().1, batches);

    // Stopped half way, it goes on from there.
    let mut classifier = tiny();
    let stopped = ask(
        &mut classifier,
        &mut heard,
        &StopAfter(std::cell::Cell::new(15)),
    );
    assert_eq!(stopped.unwrap_err().code(), Code::Aborted);
    heard.clear();
    assert_eq!(
        ask(&mut classifier, &mut heard, &for_ever())
            .unwrap()
            .labels(),
        set.labels()
    );
    assert!(heard[0].done > 0);
    assert!(
        classifier.runs().1 <= batches + 1,
        "{} batches, of {batches}",
        classifier.runs().1
    );
}

#[test]
fn several_pictures_have_the_results_of_each_alone() {
    let pixels: Vec<u8> = (0..4 * 60).map(|i| (i * 7919 % 251) as u8).collect();
    let other = Picture::Rgba {
        width: 6,
        height: 10,
        pixels: &pixels,
    };
    let mut classifier = tiny();
    let labels = ["a cat", "two dogs"];
    let set = classifier.embed_labels(&labels, &["{}"]).unwrap();
    let options = ClassifyOptions::default();
    let both = pollster::block_on(classifier.classify_images_async(
        &[Picture::Encoded(PICTURE), other],
        &set,
        &options,
        &(),
        &mut |_| {},
    ))
    .unwrap();
    let alone = tiny()
        .classify(PICTURE, &labels, &with_templates(&["{}"]))
        .unwrap();
    assert_eq!(both.len(), 2);
    assert_close(
        &[both[0][0].logit, both[0][1].logit],
        &[alone[0].logit, alone[1].logit],
        1e-4,
    );
    assert_ne!(both[0], both[1]);
}

#[test]
fn similarity_is_what_a_classification_gives() {
    let mut classifier = tiny();
    let result = classifier
        .classify(PICTURE, &["a cat"], &with_templates(&["{}"]))
        .unwrap()
        .remove(0);
    let (image, text) = (
        classifier.embed_image(PICTURE).unwrap(),
        classifier.embed_text(&["a cat"]).unwrap(),
    );
    let similarity = classifier.similarity(&image, &text[0]);
    assert_eq!(
        (similarity.logit, similarity.score),
        (result.logit, result.score)
    );
    let logit = classifier.logit_scale().exp() * similarity.cosine + classifier.logit_bias();
    assert!((logit - result.logit).abs() < 1e-4);
}

#[test]
fn a_heat_map_is_what_transformers_head_gives_with_the_places_masked() {
    let explained: [(_, &str); 2] = [
        (TINY, include_str!("fixtures/model/tiny/explain.json")),
        (ODD, include_str!("fixtures/model/odd/explain.json")),
    ];
    for (device, tolerance) in devices() {
        for (fixture, expected) in &explained {
            let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
            let label = expected["label"].as_str().unwrap();
            let templates = ClassifyOptions::default().templates;
            let mut classifier = load_on(&fixture.source(), &device).unwrap();
            let results = classifier
                .classify(PICTURE, &[label], &ClassifyOptions::default())
                .unwrap();
            let runs = classifier.runs();
            let map = classifier.explain(PICTURE, label, &templates).unwrap();
            assert_eq!(
                classifier.runs(),
                runs,
                "the picture and the label are known"
            );
            assert_eq!(
                (map.rows, map.columns),
                (
                    expected["rows"].as_u64().unwrap() as usize,
                    expected["columns"].as_u64().unwrap() as usize
                )
            );
            let values = expected["values"].as_array().unwrap();
            assert_eq!(map.values.len(), values.len());
            // Logits are the scale times a cosine, with the error of an embedding.
            let scale = classifier.logit_scale().exp();
            for (got, expected) in map.values.iter().zip(values) {
                let expected = expected.as_f64().unwrap() as f32;
                assert!(
                    (got - expected).abs() <= 10.0 * tolerance * scale,
                    "{}: {got} and {expected}",
                    fixture.name
                );
            }
            // Also for a picture that isn't the last one, and one that never ran.
            let other = include_bytes!("../www/samples/penguin.png");
            classifier.explain(other, label, &templates).unwrap();
            assert_eq!(classifier.explain(PICTURE, label, &templates).unwrap(), map);
            let again = classifier
                .classify(PICTURE, &[label], &ClassifyOptions::default())
                .unwrap();
            assert_eq!(again[0].label, results[0].label);
        }
    }
    let mut classifier = tiny();
    let templates = ClassifyOptions::default().templates;
    for (label, templates) in [(" ", &templates), ("a cat", &vec!["no place".to_owned()])] {
        let error = classifier.explain(PICTURE, label, templates).unwrap_err();
        assert_eq!(error.code(), Code::BadInput, "{error}");
    }
}

const FINE_TUNED: [&str; 4] = [
    "classifier-single",
    "classifier-one",
    "classifier-multi",
    "classifier-naflex",
];

#[test]
fn a_fine_tuned_classifier_answers_as_transformers_pipeline_does() {
    // Bounds of a logit that spreads over about 1.
    let held = [
        (Dtype::F32, 1e-5),
        (Dtype::F16, 2e-3),
        (Dtype::Q8, 0.03),
        (Dtype::Q4, 0.2),
    ];
    let cases = FINE_TUNED
        .iter()
        .flat_map(|name| held.map(|held| (name, held)));
    for ((device, _), (name, (dtype, bound))) in devices()
        .into_iter()
        .flat_map(|device| cases.clone().map(move |case| (device.clone(), case)))
    {
        let source = folder(name);
        let golden: serde_json::Value =
            serde_json::from_slice(&source.files["classify.json"]).unwrap();
        let numbers = |list: &serde_json::Value| -> Vec<f32> {
            let list = list.as_array().unwrap().iter();
            list.map(|value| value.as_f64().unwrap() as f32).collect()
        };
        let options = LoadOptions::exact().with_dtype(dtype);
        let mut classifier = load_as(&source, &device, &options).unwrap();
        let labels = classifier.labels().unwrap().to_vec();
        assert_eq!(serde_json::json!(labels), golden["labels"]);
        let results = classifier
            .classify(PICTURE, Labels::Own, &ClassifyOptions::default())
            .unwrap();
        assert!(
            results
                .windows(2)
                .all(|pair| pair[0].score >= pair[1].score)
        );
        let mut expected: Vec<_> = labels
            .iter()
            .zip(numbers(&golden["logits"]))
            .zip(numbers(&golden["scores"]))
            .collect();
        expected.sort_by(|((_, a), _), ((_, b), _)| b.total_cmp(a));
        assert_eq!(results.len(), expected.len());
        // In the order of the reference: rounding exchanges only those that are as good as equal.
        for (
            LabelScore {
                label,
                logit,
                score,
            },
            ((same, expected_logit), expected_score),
        ) in results.iter().zip(expected)
        {
            assert!(
                (logit - expected_logit).abs() < bound
                    && (score - expected_score).abs() < bound
                    && (label == same || dtype != Dtype::F32),
                "{name} {dtype:?}: {label} has {logit} and {score}, in transformers {same} has {expected_logit} and {expected_score}"
            );
        }
        let again = classifier.classify(PICTURE, Labels::Own, &ClassifyOptions::default());
        assert_eq!((again.unwrap(), classifier.runs()), (results, (1, 0)));
        if dtype == Dtype::F32 {
            let templates = ClassifyOptions::default().templates;
            let map = classifier.explain(PICTURE, &labels[0], &templates).unwrap();
            let golden = &golden["explained"];
            assert_eq!(
                serde_json::json!([map.rows, map.columns]),
                serde_json::json!([golden["rows"], golden["columns"]])
            );
            assert_close(&map.values, &numbers(&golden["values"]), 1e-5);
            assert_eq!(classifier.runs(), (1, 0));
        }
    }
}

/// As in ImageNet's names: cranes that fly, and cranes that lift.
#[test]
fn of_two_classes_with_one_name_the_map_is_that_of_the_better() {
    let mut source = folder("classifier-single");
    let mut classifier = load(&source).unwrap();
    let options = ClassifyOptions::default();
    let results = classifier.classify(PICTURE, Labels::Own, &options).unwrap();
    let (best, worst) = (&results[0].label, &results[results.len() - 1].label);
    let expected = classifier
        .explain(PICTURE, best, &options.templates)
        .unwrap();
    let mut config: serde_json::Value =
        serde_json::from_slice(&source.files["config.json"]).unwrap();
    for name in config["id2label"].as_object_mut().unwrap().values_mut() {
        if [best, worst].contains(&&name.as_str().unwrap().to_string()) {
            *name = "crane".into();
        }
    }
    let config = config.to_string().into_bytes();
    source.files.insert("config.json".into(), config);
    let mut classifier = load(&source).unwrap();
    let map = classifier.explain(PICTURE, "crane", &options.templates);
    assert_eq!(map.unwrap(), expected);
}

#[test]
fn a_fine_tuned_classifier_takes_the_options_that_concern_it_and_refuses_words() {
    let mut classifier = load(&folder("classifier-single")).unwrap();
    let options = ClassifyOptions::default;
    let all = classifier
        .classify(PICTURE, Labels::Own, &options())
        .unwrap();
    let total: f32 = all.iter().map(|result| result.score).sum();
    assert!(all.len() == 3 && (total - 1.0).abs() < 1e-6);
    let best = classifier
        .classify(PICTURE, Labels::Own, &options().with_top_k(1))
        .unwrap();
    assert_eq!(best, all[..1]);
    let alone = options().with_scores(Scores::Sigmoid);
    for result in classifier.classify(PICTURE, Labels::Own, &alone).unwrap() {
        assert!((result.score - 1.0 / (1.0 + (-result.logit).exp())).abs() < 1e-6);
    }
    // The same for several pictures, one of them again.
    let other = include_bytes!("../www/samples/penguin.png");
    let several = classifier
        .classify_images(&[other, PICTURE], Labels::Own, &options())
        .unwrap();
    assert_eq!(several[1], all);
    assert_ne!(several[0], all);
    assert_eq!(classifier.runs(), (2, 0));

    let words = classifier
        .classify(PICTURE, &["a cat"], &options())
        .unwrap_err();
    let set = tiny().embed_labels(&["a cat"], &["{}"]).unwrap();
    let set = classifier.classify(PICTURE, &set, &options()).unwrap_err();
    let errors = [
        words,
        set,
        classifier.embed_text(&["a cat"]).unwrap_err(),
        classifier.embed_labels(&["a cat"], &["{}"]).unwrap_err(),
        classifier.embed_image(PICTURE).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), Code::Unsupported, "{error}");
        assert!(
            error.message().contains("Cat, dog, a green bird, flying"),
            "{error}"
        );
    }
    let error = classifier
        .classify(PICTURE, Labels::Own, &with_templates(&["a {}"]))
        .unwrap_err();
    assert_eq!(error.code(), Code::BadInput);
    assert!(error.message().contains("template"), "{error}");
    let templates = options().templates;
    let error = classifier
        .explain(PICTURE, "a horse", &templates)
        .unwrap_err();
    assert_eq!(error.code(), Code::BadInput);
    assert!(error.message().contains("\"a horse\""), "{error}");
    assert_eq!(classifier.runs(), (2, 0));

    let error = tiny()
        .classify(PICTURE, Labels::Own, &options())
        .unwrap_err();
    assert_eq!(error.code(), Code::BadInput);
    assert!(error.message().contains("none of its own"), "{error}");
}

/// The logits of a golden's labels for a picture, in their order.
fn logits_of(classifier: &mut Classifier, picture: &[u8], labels: &[String]) -> Vec<f32> {
    let results = classifier
        .classify(picture, labels, &ClassifyOptions::default())
        .unwrap();
    let logit = |label: &String| {
        results
            .iter()
            .find(|result| result.label == *label)
            .unwrap()
            .logit
    };
    labels.iter().map(logit).collect()
}

#[test]
fn pictures_of_every_shape_keep_it_in_naflex_as_in_transformers() {
    let source = folder("naflex");
    let golden: serde_json::Value = serde_json::from_slice(&source.files["classify.json"]).unwrap();
    let texts =
        |list: &serde_json::Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap() };
    let (labels, pictures) = (texts(&golden["labels"]), texts(&golden["pictures"]));
    let tensors =
        safetensors::SafeTensors::deserialize(&source.files["goldens.safetensors"]).unwrap();
    // Logits reach 46.
    let held = [(Dtype::F32, 5e-4), (Dtype::F16, 0.5), (Dtype::Q8, 2.0)];
    for ((device, _), (dtype, bound)) in devices()
        .into_iter()
        .flat_map(|device| held.map(|held| (device.clone(), held)))
    {
        for result in golden["results"].as_array().unwrap() {
            let patches = result["patches"].as_u64().unwrap() as usize;
            let options = LoadOptions::exact()
                .with_dtype(dtype)
                .with_max_patches(patches);
            let mut classifier = load_as(&source, &device, &options).unwrap();
            let expected: Vec<Vec<f32>> = serde_json::from_value(result["logits"].clone()).unwrap();
            for (i, (name, expected)) in pictures.iter().zip(&expected).enumerate() {
                let bytes = &source.files[name];
                let preprocessor = &classifier.checkpoint().preprocessor;
                let image = siglip_web::preprocess::decode(bytes).unwrap();
                let (height, width) = preprocessor.size(&image);
                assert_eq!(
                    serde_json::json!([height / 8, width / 8]),
                    result["shapes"][i],
                    "{name}"
                );
                if let (20, Ok(pixels)) = (patches, tensors.tensor(&format!("pixel_values.{i}"))) {
                    let ours = as_patches(&preprocessor.pixel_values(&image), [height, width]);
                    let bits: Vec<u8> = ours.iter().flat_map(|value| value.to_le_bytes()).collect();
                    assert_eq!(bits, pixels.data(), "{name}");
                }
                let got = logits_of(&mut classifier, bytes, &labels);
                for (got, expected) in got.iter().zip(expected) {
                    assert!(
                        (got - expected).abs() < bound,
                        "{name} {dtype:?}: {got}, transformers has {expected}"
                    );
                }
                let templates = ClassifyOptions::default().templates;
                let map = classifier.explain(bytes, &labels[0], &templates).unwrap();
                assert_eq!([map.rows, map.columns], [height / 8, width / 8]);
                assert!(
                    map.values.len() == map.rows * map.columns
                        && map.values.iter().all(|value| value.is_finite())
                );
            }
            // All at once, and out of the cache.
            let all: Vec<&[u8]> = pictures
                .iter()
                .map(|name| source.files[name].as_slice())
                .collect();
            let runs = classifier.runs();
            let several = classifier
                .classify_images(&all, &labels, &ClassifyOptions::default())
                .unwrap();
            assert_eq!((several.len(), classifier.runs()), (all.len(), runs));
        }
    }
}

/// `[3, height, width]` as rows of patches of 8 × 8, each pixel by pixel with its channels together.
fn as_patches(pixels: &[f32], [height, width]: [usize; 2]) -> Vec<f32> {
    let mut patches = Vec::with_capacity(pixels.len());
    for patch in 0..height / 8 * (width / 8) {
        let (top, left) = (patch / (width / 8) * 8, patch % (width / 8) * 8);
        for pixel in 0..64 {
            let at = (top + pixel / 8) * width + left + pixel % 8;
            patches.extend([0, 1, 2].map(|channel| pixels[channel * height * width + at]));
        }
    }
    patches
}

#[test]
fn the_number_of_patches_is_for_naflex_and_has_bounds() {
    let load = |source: &Memory, count| {
        let options = LoadOptions::exact().with_max_patches(count);
        load_as(source, &Device::flex(), &options).err().unwrap()
    };
    for (error, word) in [
        (load(&folder("naflex"), 0), "maxPatches is 0"),
        (load(&folder("naflex"), 1025), "1 to 1024"),
        (load(&TINY.source(), 256), "leave it out"),
    ] {
        assert_eq!(error.code(), Code::BadInput);
        assert!(error.message().contains(word), "{error}");
    }
}

/// The tiny model by way of a store.
fn load_through(store: &MemoryStore, dtype: Dtype) -> Classifier {
    load_source(TINY.source(), store, dtype)
}

fn load_source(source: Memory, store: &MemoryStore, dtype: Dtype) -> Classifier {
    let (options, device) = (LoadOptions::exact().with_dtype(dtype), Device::flex());
    pollster::block_on(async {
        let store = store.clone();
        Classifier::load_async(&source, store, &options, &device, &(), &mut |_| {}).await
    })
    .unwrap()
}

#[test]
fn a_returning_visitors_labels_run_no_text_tower() {
    let store = MemoryStore {
        keeps_texts: true,
        ..MemoryStore::default()
    };
    let open = |dtype| load_through(&store, dtype);
    let texts = |classifier: &mut Classifier, texts: &[&str]| {
        let embeddings = classifier.embed_text(texts).unwrap();
        let bits = embeddings.concat().into_iter().map(f32::to_bits);
        (bits.collect::<Vec<_>>(), classifier.runs().1)
    };
    let kept = || {
        let entries = store.entries.lock().unwrap();
        entries
            .keys()
            .filter(|key| key.starts_with("texts/"))
            .count()
    };
    let words = ["a cat", "a dog", "a house"];
    let (first, runs) = texts(&mut open(Dtype::F32), &words);
    assert_eq!((runs, kept()), (1, 1));
    let written: Vec<u8> = store.entries.lock().unwrap()["texts/0"].clone();
    assert!(
        !written.windows(3).any(|bytes| bytes == b"cat"),
        "hashes alone"
    );

    // Known ones, then one that isn't, in a label as well as alone.
    let mut again = open(Dtype::F32);
    assert_eq!(texts(&mut again, &words), (first.clone(), 0));
    let options = with_templates(&["{}", "a photo of {}"]);
    let scores = again
        .classify(PICTURE, &["a cat", "fish"], &options)
        .unwrap();
    assert_eq!((again.runs().1, kept()), (1, 1));
    let mut third = open(Dtype::F32);
    assert_eq!(
        third
            .classify(PICTURE, &["a cat", "fish"], &options)
            .unwrap(),
        scores
    );
    assert_eq!(texts(&mut third, &words), (first.clone(), 0));

    // Damaged, of another dtype, of other weights: computed, and kept in their place.
    for at in [0, 100, written.len() - 1] {
        store.entries.lock().unwrap().get_mut("texts/0").unwrap()[at] ^= 1;
        assert_eq!(texts(&mut open(Dtype::F32), &words), (first.clone(), 1));
        assert_eq!(texts(&mut open(Dtype::F32), &words), (first.clone(), 0));
    }
    let (other, runs) = texts(&mut open(Dtype::Q8), &words);
    assert_eq!(runs, 1);
    assert_ne!(other, first);
    assert_eq!(texts(&mut open(Dtype::Q8), &words), (other, 0));
    // A tokenizer or a configuration that was corrected beside the same weights.
    texts(&mut open(Dtype::F32), &words);
    for (file, key, value) in [
        (
            "tokenizer_config.json",
            "do_lower_case",
            serde_json::json!(false),
        ),
        ("config.json", "note", serde_json::json!("another")),
    ] {
        let mut source = TINY.source();
        let mut json: serde_json::Value = serde_json::from_slice(&source.files[file]).unwrap();
        json[key] = value;
        let json = json.to_string().into_bytes();
        source.files.insert(file.into(), json);
        let mut corrected = load_source(source, &store, Dtype::F32);
        assert_eq!(texts(&mut corrected, &words).1, 1, "{file}");
    }
    *store.manifest.lock().unwrap() = None;
    assert_eq!(texts(&mut open(Dtype::F32), &words), (first, 1));
}

#[test]
fn of_kept_texts_the_oldest_go_first() {
    let store = MemoryStore {
        keeps_texts: true,
        ..MemoryStore::default()
    };
    let open = || load_through(&store, Dtype::F32);
    let all: Vec<String> = (0..2200).map(|i| format!("{i} red cats")).collect();
    let mut runs = 0;
    for (i, part) in all.chunks(700).enumerate() {
        let mut classifier = open();
        classifier.embed_text(part).unwrap();
        runs += classifier.runs().1;
        assert_eq!(runs, 44 * (i + 1).min(3) + if i == 3 { 7 } else { 0 });
    }
    let entries = store.entries.lock().unwrap().clone();
    let blocks = entries.iter().filter(|(key, _)| key.starts_with("texts/"));
    assert_eq!(blocks.count(), 8);
    let mut classifier = open();
    classifier.embed_text(&all[256..]).unwrap();
    assert_eq!(classifier.runs().1, 0);
    classifier.embed_text(&all[255..256]).unwrap();
    assert_eq!(classifier.runs().1, 1);
}
