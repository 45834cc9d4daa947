//! Whole runs on a tiny model and pictures painted here.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Parser;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use siglip_web::checkpoint::{Checkpoint, StoredDtype};
use siglip_web::kernels::to_vec;
use siglip_web::model::{ParameterSpec, SiglipConfig, parameters};
use siglip_web::tokenizer::Tokenizer;
use siglip_web::{Classifier, ClassifyOptions, Code, Dtype, LoadOptions};
use tempfile::TempDir;

use crate::data::DataSet;
use crate::parameters::loaded;
use crate::training::{Prompts, Summary, random, run};
use crate::{Options, initial, state};
use common::{Memory, TINY, folder};

const COLOURS: [(&str, [u8; 3]); 4] = [
    ("red", [220, 30, 30]),
    ("green", [30, 180, 40]),
    ("blue", [30, 40, 220]),
    ("yellow", [230, 220, 40]),
];

/// A folder with a model and data, gone at the end of the test.
struct Place(TempDir);

impl Place {
    /// TINY and `each` pictures of every colour.
    fn new(each: usize) -> Self {
        let place = Self(TempDir::new().unwrap());
        for folder in ["model", "data"] {
            std::fs::create_dir(place.path(folder)).unwrap();
        }
        place.model(TINY.source());
        let mut captions = String::from("file,caption\n");
        for (index, (colour, rgb)) in COLOURS.iter().enumerate() {
            for i in 0..each {
                let file = format!("{colour}-{i}.png");
                place.paint(&file, *rgb, (index * 7 + i * 5) as u32);
                captions += &format!("{file},a {colour} thing\n");
                if i % 2 == 0 {
                    captions += &format!("{file},\"something {colour}, painted\"\n");
                }
            }
        }
        place.write("captions.csv", &captions);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Trains this model instead.
    fn model(&self, source: Memory) {
        let model = self.path("model");
        let _ = std::fs::remove_dir_all(&model);
        std::fs::create_dir(&model).unwrap();
        for (name, bytes) in source.files {
            std::fs::write(model.join(name), bytes).unwrap();
        }
    }

    /// Puts a file into the data folder.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("data").join(name), text).unwrap();
    }

    /// A rectangle of this colour somewhere.
    fn paint(&self, file: &str, rgb: [u8; 3], seed: u32) {
        let (left, top) = (seed % 11, seed * 3 % 13);
        let picture = image::RgbaImage::from_fn(40, 36, |x, y| {
            let inside = (left..left + 24).contains(&x) && (top..top + 20).contains(&y);
            image::Rgba(match inside {
                true => [rgb[0], rgb[1], rgb[2], 255],
                false => [0, 0, 0, (seed % 3) as u8 * 60],
            })
        });
        picture.save(self.path("data").join(file)).unwrap();
    }

    fn options(&self, out: &str, flags: &[&str]) -> Options {
        let [model, data, out] =
            ["model", "data", out].map(|name| self.path(name).to_str().unwrap().to_owned());
        let fixed = ["train", "--model", &model, "--data", &data, "--out", &out];
        Options::parse_from(fixed.iter().chain(flags))
    }

    fn run(&self, out: &str, flags: &[&str]) -> siglip_web::Result<Summary> {
        run(&self.options(out, flags))
    }

    fn bytes(&self, out: &str, file: &str) -> Vec<u8> {
        std::fs::read(self.path(out).join(file)).unwrap()
    }

    fn fails(&self, flags: &[&str], code: Code, words: &[&str]) {
        let error = self.run("fails", flags).expect_err("the run fails");
        assert_eq!(error.code(), code, "{error}");
        for word in words {
            assert!(
                error.message().contains(word),
                "{word:?} is not in: {error}"
            );
        }
    }
}

/// Flags of a short run that uses everything random there is.
const SHORT: [&str; 17] = [
    "--init",
    "--beta-2",
    "0.999",
    "--logit-bias=-12.9",
    "--steps",
    "8",
    "--batch",
    "6",
    "--extra-captions",
    "2",
    "--save-every",
    "3",
    "--augment",
    "crop,flip,colour,background",
    "--template",
    "a picture of {}",
    "--template",
];

fn short(seed: &'static str) -> Vec<&'static str> {
    [&SHORT[..], &["{}", "--seed", seed]].concat()
}

#[test]
fn a_run_that_was_killed_ends_like_one_that_was_not_and_a_seed_repeats() {
    let place = Place::new(4);
    let whole = place.run("whole", &short("7")).unwrap();
    for (out, killed_after) in [("once", &[5][..]), ("often", &[2, 4, 7])] {
        for kill in killed_after {
            let mut options = place.options(out, &[&short("7")[..], &["--resume"]].concat());
            options.killed_after = Some(*kill);
            run(&options).unwrap();
            // What a kill in the middle of a save leaves.
            let half = place.path(out).join(format!("{}.tmp", state::STATE));
            std::fs::write(half, b"half").unwrap();
        }
        let rest = place.run(out, &[&short("7")[..], &["--resume"]].concat());
        let losses = rest.unwrap().losses;
        assert!(losses.len() < 8, "it begins where it was saved");
        assert_eq!(losses, whole.losses[8 - losses.len()..]);
        for file in [state::STATE, "model.safetensors"] {
            assert!(
                place.bytes(out, file) == place.bytes("whole", file),
                "{file} of the run that was killed differs"
            );
        }
    }
    let again = place.run("again", &short("7")).unwrap();
    assert_eq!(again.losses, whole.losses);
    assert!(place.bytes("again", "model.safetensors") == place.bytes("whole", "model.safetensors"));
    let other = place.run("other", &short("8")).unwrap();
    assert_ne!(other.losses, whole.losses);
}

#[test]
fn a_run_is_resumed_only_as_itself() {
    let place = Place::new(4);
    place.run("fails", &short("7")).unwrap();
    place.fails(&short("7"), Code::BadInput, &["--resume"]);
    let other_rate = [&short("7")[..], &["--resume", "--lr", "0.5"]].concat();
    place.fails(&other_rate, Code::BadInput, &["--lr", "0.001", "0.5"]);
    let captions = std::fs::read_to_string(place.path("data").join("captions.csv")).unwrap();
    place.write(
        "captions.csv",
        &captions.replace("a red thing", "a ruddy thing"),
    );
    let resumed = [&short("7")[..], &["--resume"]].concat();
    place.fails(&resumed, Code::BadInput, &["captions"]);
    std::fs::write(place.path("fails").join(state::STATE), b"nonsense").unwrap();
    place.fails(&resumed, Code::BadInput, &[state::STATE]);

    let frozen = ["--freeze", "vision", "--steps", "2", "--resume"];
    place.run("frozen", &frozen).unwrap();
    let weights = place.path("model").join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 1] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let error = place.run("frozen", &frozen).unwrap_err();
    assert!(error.message().contains("--model"), "{error}");
}

#[test]
fn it_learns_and_the_checkpoint_is_one_that_the_classifier_loads() {
    let place = Place::new(12);
    let flags = [
        "--init",
        "--steps",
        "60",
        "--batch",
        "16",
        "--lr",
        "3e-3",
        "--held-out",
        "0.25",
        "--logit-bias=-3",
        "--dtype",
        "f16",
    ];
    let summary = place.run("out", &flags).unwrap();
    let after = summary.held_out[1].unwrap();
    assert!(after.accuracy >= 0.8, "{summary:?}");
    assert!(after.loss < summary.held_out[0].unwrap().loss);

    let mut classifier = Classifier::load(place.path("out"), Device::flex()).unwrap();
    let picture = std::fs::read(place.path("data").join("blue-3.png")).unwrap();
    let labels = [
        "a red thing",
        "a green thing",
        "a blue thing",
        "a yellow thing",
    ];
    let options = ClassifyOptions::default().with_templates(["{}"]);
    let best = classifier.classify(&picture, &labels, &options).unwrap();
    assert_eq!(best[0].label, "a blue thing", "{best:?}");
    let config: serde_json::Value =
        serde_json::from_slice(&place.bytes("out", "config.json")).unwrap();
    assert_eq!(config["dtype"], StoredDtype::F16.as_str());
    let header = place.bytes("out", "model.safetensors");
    let (_, header) = SafeTensors::read_metadata(&header).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
}

#[test]
fn frozen_parts_stay_bit_for_bit_and_the_rest_moves() {
    let place = Place::new(6);
    let before = place.bytes("model", "model.safetensors");
    for (out, freeze, augment) in [
        ("vision", "vision", "none"),
        ("varied", "vision", "crop"),
        ("text", "text", "none"),
        ("towers", "vision,text", "none"),
        ("scale", "scale", "none"),
    ] {
        let flags = [
            "--freeze",
            freeze,
            "--augment",
            augment,
            "--steps",
            "2",
            "--batch",
            "8",
        ];
        place.run(out, &flags).unwrap();
        let after = place.bytes(out, "model.safetensors");
        let [before, after] = [&before, &after].map(|b| SafeTensors::deserialize(b).unwrap());
        for name in before.names() {
            let part = match name.split('.').next().unwrap() {
                "vision_model" => "vision",
                "text_model" => "text",
                _ => "scale",
            };
            let same = before.tensor(name).unwrap().data() == after.tensor(name).unwrap().data();
            // A key's bias is without effect, and its gradient is only rounding.
            assert!(
                same == freeze.split(',').any(|f| f == part) || name.ends_with("k_proj.bias"),
                "{out}: {name}"
            );
        }
    }
}

#[test]
fn frozen_embeddings_that_are_kept_give_what_fresh_ones_do() {
    let place = Place::new(5);
    let flags = |augment| {
        [
            "--freeze",
            "vision",
            "--augment",
            augment,
            "--steps",
            "4",
            "--batch",
            "8",
        ]
    };
    let kept = place.run("kept", &flags("none")).unwrap();
    // Nothing is transparent behind these pictures' windows, so this way changes nothing and yet forbids keeping.
    for entry in std::fs::read_dir(place.path("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "png") {
            let flat = siglip_web::preprocess::decode(&std::fs::read(&path).unwrap()).unwrap();
            let size = (flat.width(), flat.height());
            let flat = image::RgbImage::from_raw(size.0, size.1, flat.rgb().to_vec()).unwrap();
            flat.save(&path).unwrap();
        }
    }
    let fresh = place.run("fresh", &flags("background")).unwrap();
    for (a, b) in kept.losses.iter().zip(&fresh.losses) {
        assert!((a - b).abs() < 1e-4 * a, "{kept:?} {fresh:?}");
    }
}

#[test]
fn bad_data_is_named_with_its_line() {
    let place = Place::new(2);
    let data = |name: &str, text: &str| {
        for file in ["captions.csv", "captions.jsonl"] {
            let _ = std::fs::remove_file(place.path("data").join(file));
        }
        place.write(name, text);
    };
    let bad = |words: &[&str]| place.fails(&["--steps", "1"], Code::BadInput, words);

    data("nothing.txt", "");
    bad(&["captions.csv", "captions.jsonl"]);
    data(
        "captions.csv",
        "file,caption\nred-0.png,red\nnowhere.png,blue\n",
    );
    bad(&["captions.csv, line 3", "nowhere.png"]);
    data("captions.csv", "file,caption\nred-0.png,\"  \"\n");
    bad(&["captions.csv, line 2", "empty caption"]);
    data("captions.csv", "file,caption\n,red\n");
    bad(&["captions.csv, line 2", "empty"]);
    data("captions.csv", "file,caption\nred-0.png,red,train\n");
    bad(&["captions.csv, line 2"]);
    data("captions.csv", "picture,words\nred-0.png,red\n");
    bad(&["captions.csv, line 1", "file"]);
    data("captions.csv", "file,caption\n");
    bad(&["no pictures"]);
    data("captions.csv", "file,caption,split\nred-0.png,red,test\n");
    bad(&["captions.csv, line 2", "test", "held-out"]);
    data(
        "captions.csv",
        "file,caption,split\nred-0.png,red,held-out\n",
    );
    bad(&["none is left"]);
    data(
        "captions.csv",
        "file,caption\nred-0.png,\u{3002}?!\nred-1.png,red\n",
    );
    place.write("captions.jsonl", "{}");
    bad(&["one of"]);
    data(
        "captions.jsonl",
        "{\"file\": \"red-0.png\", \"captions\": []}\n",
    );
    bad(&["captions.jsonl, line 1", "no caption"]);
    data(
        "captions.jsonl",
        "\n{\"file\": \"red-0.png\", \"caption\": 3}\n",
    );
    bad(&["captions.jsonl, line 2"]);

    place.write("broken.png", "no picture");
    data(
        "captions.csv",
        "file,caption\nred-0.png,red\nbroken.png,green\n",
    );
    place.fails(
        &["--steps", "1"],
        Code::BadImage,
        &["captions.csv, line 3", "broken.png"],
    );
}

#[test]
fn bad_options_are_named() {
    let place = Place::new(2);
    for (flags, words) in [
        (&["--batch", "0"][..], &["--batch"][..]),
        (&["--template", "a photo"], &["--template", "a photo"]),
        (&["--freeze", "vision,text,scale"], &["--freeze"]),
        (&["--lr", "-1"], &["--lr"]),
    ] {
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        let joined = format!("{}={}", flags[0], flags[1]);
        place.fails(&[&joined], Code::BadInput, words);
    }
    let same = place.options("model", &[]);
    assert_eq!(run(&same).unwrap_err().code(), Code::BadInput);
    // Weights that are no numbers aren't trained; what has no finite gradient is neither trained further nor saved.
    let weights = place.path("model").join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 4;
    for (value, code, words) in [
        (
            f32::NAN,
            Code::BadModel,
            &["post_layernorm", "not a number"][..],
        ),
        (f32::MAX, Code::BadInput, &["step 1", "diverged"]),
    ] {
        bytes[last..].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&weights, &bytes).unwrap();
        place.fails(&["--steps", "2"], code, words);
        assert!(!place.path("fails").join("model.safetensors").exists());
    }
    std::fs::remove_file(weights).unwrap();
    place.fails(&["--steps", "1"], Code::BadModel, &["model.safetensors"]);
}

#[test]
fn captions_come_in_either_form_and_are_split_as_they_say() {
    let place = Place::new(3);
    place.write(
        "captions.csv",
        "\u{feff}file,caption,split\nred-0.png,\"red, large\",train\nred-0.png,warm,train\nblue-1.png,blue,held-out\n\
         red-1.png,warm,\n",
    );
    let csv = DataSet::read(&place.path("data"), None, 0).unwrap();
    assert_eq!(csv.captions, ["red, large", "warm", "blue"]);
    let captions: Vec<_> = csv.train.iter().map(|e| e.captions.clone()).collect();
    assert_eq!(captions, [vec![0, 1], vec![1]]);
    assert_eq!(csv.held_out.len(), 1);

    std::fs::remove_file(place.path("data").join("captions.csv")).unwrap();
    place.write(
        "captions.jsonl",
        "{\"file\": \"red-0.png\", \"captions\": [\"red\", \"warm\"], \"unknown\": [\"large\"]}\n\
         {\"file\": \"blue-0.png\", \"caption\": \"blue\"}\n",
    );
    let json = DataSet::read(&place.path("data"), Some(&"0".parse().unwrap()), 0).unwrap();
    let red = json
        .train
        .iter()
        .find(|e| e.file.ends_with("red-0.png"))
        .unwrap();
    let z = |text: &str| red.target(json.captions.iter().position(|c| c == text).unwrap());
    assert_eq!(
        ["red", "warm", "large", "blue"].map(z),
        [1.0, 1.0, 0.0, -1.0]
    );
    assert!(json.held_out.is_empty());
    let half = DataSet::read(&place.path("data"), Some(&"0.5".parse().unwrap()), 0).unwrap();
    assert_eq!((half.train.len(), half.held_out.len()), (1, 1));
    let other = place.path("data").to_str().unwrap().parse().unwrap();
    let other = DataSet::read(&place.path("data"), Some(&other), 0).unwrap();
    assert_eq!((other.train.len(), other.held_out.len()), (2, 2));
    assert_ne!(half.fingerprint(), other.fingerprint());
}

#[test]
fn pictures_that_memory_has_no_room_for_are_decoded_again() {
    let place = Place::new(4);
    let kept = place.run("kept", &short("3")).unwrap();
    let again = place.run("again", &[&short("3")[..], &["--cache", "0"]].concat());
    assert_eq!(kept.losses, again.unwrap().losses);
}

/// Deviations of transformers' `_init_weights` for these shapes.
#[test]
fn random_weights_have_the_reference_s_distributions() {
    let sizes = r#"{"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 2, "num_hidden_layers": 1}"#;
    let json =
        format!(r#"{{"model_type": "siglip", "text_config": {sizes}, "vision_config": {sizes}}}"#);
    let config = SiglipConfig::from_json(json.as_bytes()).unwrap();
    let mut dice = random(1, "initial", 0, 0);
    let measure = |spec: &ParameterSpec, dice: &mut _| {
        let values = initial::values(spec, dice);
        assert_eq!(values.len(), spec.shape.iter().product::<usize>());
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n;
        let largest = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        (mean, variance.sqrt(), largest)
    };
    // Deviation, and the largest value where the distribution has an end.
    let expected = |name: &str| -> Option<(f32, Option<f32>)> {
        let xavier = |sum: f32| Some(((2.0 / sum).sqrt(), Some((6.0 / sum).sqrt())));
        let lecun = |inputs: f32| {
            let deviation = inputs.powf(-0.5);
            Some((deviation, Some(2.0 * deviation / 0.879_626)))
        };
        match name {
            n if n.ends_with("token_embedding.weight") => Some((0.125, None)),
            n if n.ends_with("position_embedding.weight") => Some((0.125, None)),
            n if n.ends_with("patch_embedding.weight") => lecun(768.0),
            n if n.ends_with("self_attn.q_proj.weight") => xavier(128.0),
            n if n.ends_with("self_attn.out_proj.weight") => xavier(128.0),
            n if n.ends_with("attention.in_proj_weight") => xavier(256.0),
            n if n.ends_with("attention.out_proj.weight") => lecun(64.0),
            n if n.ends_with("text_model.head.weight") => lecun(64.0),
            n if n.ends_with("fc1.weight") => xavier(320.0),
            n if n.ends_with("probe") => xavier(128.0),
            n if n.ends_with("fc1.bias") => Some((1e-6, None)),
            _ => None,
        }
    };
    for spec in parameters(&config) {
        let (mean, deviation, largest) = measure(&spec, &mut dice);
        match expected(&spec.name) {
            Some((wanted, end)) => {
                let few = spec.shape.iter().product::<usize>() < 1000;
                let tolerance = if few { 0.3 } else { 0.06 };
                assert!(
                    (deviation / wanted - 1.0).abs() < tolerance,
                    "{}: {deviation}",
                    spec.name
                );
                assert!(
                    end.is_none_or(|end| largest <= end),
                    "{}: {largest}",
                    spec.name
                );
            }
            None if spec.name.contains("norm") && spec.name.ends_with(".weight") => {
                assert_eq!((mean, deviation), (1.0, 0.0), "{}", spec.name);
            }
            None if spec.name.ends_with("bias")
                && !spec.name.contains(".fc")
                && spec.name != "logit_bias" =>
            {
                assert_eq!(largest, 0.0, "{}", spec.name);
            }
            None => {}
        }
    }
}

#[test]
fn the_rate_rises_and_falls() {
    let rate = crate::training::Rate::new(1.0, 4, 12);
    let at: Vec<f64> = (0..12).map(|step| rate.at(step)).collect();
    assert_eq!(at[..4], [0.25, 0.5, 0.75, 1.0]);
    assert!(at[4..].windows(2).all(|pair| pair[1] < pair[0]));
    assert!((at[8] - 0.5).abs() < 1e-12 && at[11] < 0.05);
}

#[test]
fn a_picture_is_varied_within_bounds_and_keeps_what_shines_through() {
    use crate::augment::{Augmentation, Source};
    let place = Place::new(2);
    let file = |path: &Path| Source::decode(&std::fs::read(path).unwrap(), 1000).unwrap();
    let source = file(&place.path("data").join("red-1.png"));
    let mut dice = random(5, "test", 0, 0);
    for _ in 0..50 {
        let whole = source.vary(&[Augmentation::Background], &mut dice).unwrap();
        assert_eq!((whole.width(), whole.height()), (40, 36));
        let window = source.vary(&[Augmentation::Crop], &mut dice).unwrap();
        assert!((28..=46).contains(&window.width()) && (25..=42).contains(&window.height()));
    }
    let plain = source.vary(&[], &mut dice).unwrap();
    let bytes = std::fs::read(place.path("data").join("red-1.png")).unwrap();
    assert!(plain == siglip_web::preprocess::decode(&bytes).unwrap());
}

/// TINY with a token table of so many rows, the new ones zeros.
fn with_table(rows: usize) -> Memory {
    let mut source = TINY.source();
    let mut config: serde_json::Value =
        serde_json::from_slice(&source.files["config.json"]).unwrap();
    config["text_config"]["vocab_size"] = rows.into();
    let file = source.files.remove("model.safetensors").unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let name = "text_model.embeddings.token_embedding.weight";
    let old = tensors.tensor(name).unwrap();
    let shape = vec![rows, old.shape()[1]];
    let mut table = old.data().to_vec();
    table.resize(shape.iter().product::<usize>() * 4, 0);
    let table = TensorView::new(old.dtype(), shape, &table).unwrap();
    let new = tensors.iter().map(|(other, view)| match other == name {
        true => (other, table.clone()),
        false => (other, view),
    });
    let new = safetensors::serialize(new, None).unwrap();
    source.files.insert("model.safetensors".into(), new);
    let config = config.to_string().into_bytes();
    source.files.insert("config.json".into(), config);
    source
}

#[test]
fn a_token_table_that_the_host_holds_is_trained_like_any_other() {
    let device = Device::flex();
    // Of a table of this size only rows are read, unless it is asked for whole.
    let source = with_table((16 << 20) / 256);
    let load = |options| {
        let checkpoint = Checkpoint::load(&source, &options, &device).unwrap();
        let apart = checkpoint.rows.is_some();
        let values = loaded(checkpoint, &device).unwrap();
        let values = values.into_iter().map(|v| pollster::block_on(to_vec(v)));
        (
            apart,
            values.collect::<siglip_web::Result<Vec<_>>>().unwrap(),
        )
    };
    let (apart, whole) = load(LoadOptions::exact());
    assert!(!apart);
    let (apart, rows) = load(LoadOptions::default().with_dtype(Dtype::F32));
    assert!(apart);
    assert!(rows == whole);
}

#[test]
fn a_gpu_trains_a_large_token_table_or_says_that_it_has_no_room() {
    let place = Place::new(2);
    place.model(with_table((128 << 20) / 256 + 1));
    let flags = ["--steps", "1", "--batch", "4", "--augment", "none"];
    let on_gpu = match place.run("gpu", &[&flags[..], &["--backend", "wgpu"]].concat()) {
        Ok(summary) => summary.losses[0],
        // Mesa's has no room for it.
        Err(error) => {
            assert_eq!(error.code(), Code::Unsupported, "{error}");
            for word in ["token_embedding", "--backend cpu"] {
                assert!(error.message().contains(word), "{error}");
            }
            return;
        }
    };
    let on_cpu = place.run("cpu", &flags).unwrap().losses[0];
    let near = (on_cpu - on_gpu).abs() < 1e-3 * on_cpu;
    assert!(near, "{on_cpu} on the CPU, {on_gpu} on the GPU");
}

#[test]
fn captions_that_are_the_same_to_the_model_are_one() {
    let place = Place::new(3);
    let captions = |spellings: [&str; 3]| {
        let mut text = String::from("file,caption\n");
        for (colour, _) in COLOURS {
            for (i, spelling) in spellings.iter().enumerate() {
                let caption = spelling.replace("red", colour);
                text += &format!("{colour}-{i}.png,{caption}\n");
            }
        }
        text
    };
    let flags = [
        "--steps",
        "4",
        "--batch",
        "8",
        "--seed",
        "3",
        "--held-out",
        "0.4",
    ];
    place.write("captions.csv", &captions(["a red thing"; 3]));
    let same = place.run("same", &flags).unwrap();
    let spellings = ["a red thing", "A red thing!", "a  red  thing."];
    place.write("captions.csv", &captions(spellings));
    let spelt = place.run("spelt", &flags).unwrap();
    assert_eq!(spelt.losses, same.losses);
    assert_eq!(spelt.held_out, same.held_out);
}

#[test]
fn a_prompt_is_true_of_a_picture_if_any_of_its_captions_is() {
    let place = Place::new(2);
    place.write(
        "captions.csv",
        "file,caption\nred-0.png,red\nblue-0.png,a red\nblue-0.png,blue\n",
    );
    let data = DataSet::read(&place.path("data"), Some(&"0".parse().unwrap()), 0).unwrap();
    let [json, settings] = ["tokenizer.json", "tokenizer_config.json"];
    let settings = place.bytes("model", settings);
    let tokenizer = Tokenizer::new(&place.bytes("model", json), Some(&settings), 16, 256).unwrap();
    let templates = ["{}".to_owned(), "a {}".to_owned()];
    let prompts = Prompts::new(&data, &templates, &tokenizer).unwrap();
    let caption = |text: &str| data.captions.iter().position(|c| c == text).unwrap();
    let shared = prompts.of(caption("red"), 1);
    assert_eq!(shared, prompts.of(caption("a red"), 0));
    let target = |prompt: usize| {
        let find = |file: &str| data.train.iter().find(|e| e.file.ends_with(file)).unwrap();
        ["red-0.png", "blue-0.png"].map(|file| prompts.target(find(file), prompt))
    };
    assert_eq!(target(shared), [1.0, 1.0]);
    assert_eq!(target(prompts.of(caption("red"), 0)), [1.0, -1.0]);
    assert_eq!(target(prompts.of(caption("blue"), 0)), [-1.0, 1.0]);
}

#[test]
fn folders_of_open_clip_are_refused_before_anything_is_done() {
    let mut source = folder("open-clip");
    source.files.remove("config.json");
    let models: serde_json::Value = serde_json::from_slice(include_bytes!(
        "../../tests/fixtures/configs/open_clip.json"
    ))
    .unwrap();
    let named = models["ViT-B-16-SigLIP"]["open_clip_config"].to_string();
    source
        .files
        .insert("open_clip_config.json".into(), named.into_bytes());
    let place = Place::new(2);
    std::fs::write(place.path("data").join("red-0.png"), "no picture").unwrap();
    for foreign in [None, Some(&br#"{"model_type": "clip"}"#[..])] {
        let mut source = source.clone();
        if let Some(foreign) = foreign {
            source.files.insert("config.json".into(), foreign.to_vec());
        }
        place.model(source);
        for init in [&[][..], &["--init"]] {
            let words = ["open_clip", "train one in the form of transformers"];
            place.fails(init, Code::Unsupported, &words);
        }
    }
}

#[test]
fn what_is_trained_from_quantized_weights_does_not_say_that_it_is() {
    let place = Place::new(2);
    place.model(folder("mlx-8bit"));
    place.run("out", &["--steps", "1", "--batch", "4"]).unwrap();
    let config: serde_json::Value =
        serde_json::from_slice(&place.bytes("out", "config.json")).unwrap();
    let keys = config.as_object().unwrap().keys();
    let told: Vec<_> = keys.filter(|key| key.contains("quantization")).collect();
    assert!(told.is_empty(), "{told:?}");
    Classifier::load(place.path("out"), Device::flex()).unwrap();
}

#[test]
fn a_folder_that_is_loaded_is_trained_with_or_without_its_weights() {
    let mut source = TINY.source();
    let own = source.files.remove("preprocessor_config.json").unwrap();
    let own: serde_json::Value = serde_json::from_slice(&own).unwrap();
    let shared = serde_json::json!({"image_processor": own});
    let shared = shared.to_string().into_bytes();
    source.files.insert("processor_config.json".into(), shared);
    let config = String::from_utf8(source.files["config.json"].clone()).unwrap();
    let config = format!("\u{feff}{}", config.replacen('{', "{\"unread\": NaN,", 1));
    source
        .files
        .insert("config.json".into(), config.into_bytes());
    let place = Place::new(2);
    place.model(source);
    for (out, init) in [("loaded", &[][..]), ("random", &["--init"])] {
        let flags = [&["--steps", "1", "--batch", "4"][..], init].concat();
        place.run(out, &flags).unwrap();
        Classifier::load(place.path(out), Device::flex()).unwrap();
    }
}
