//! Pictures against transformers' PIL image processor, and pictures that can't be used.
//!
//! `tests/reference/preprocess.py` makes the fixtures.
#![cfg(not(target_family = "wasm"))]

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use siglip_web::preprocess::{Image, Input, MAX_PIXELS, Preprocessor, decode};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/preprocess");

#[derive(Deserialize)]
struct Goldens {
    pictures: Vec<Picture>,
    resized: Vec<Resized>,
    configs: Vec<Levels>,
}

#[derive(Deserialize)]
struct Picture {
    file: String,
    width: u32,
    height: u32,
    offset: usize,
}

#[derive(Deserialize)]
struct Resized {
    from: (u32, u32),
    to: (usize, usize),
    resample: u32,
    seed: u64,
    resized_crc32: u32,
    pixel_values_crc32: u32,
}

#[derive(Deserialize)]
struct Levels {
    config: serde_json::Value,
    bits: Vec<Vec<u32>>,
}

fn goldens() -> Goldens {
    serde_json::from_slice(&fs::read(format!("{FIXTURES}/goldens.json")).unwrap()).unwrap()
}

/// A picture file, and the reference's pixels with their width and height.
struct Fixture {
    file: String,
    bytes: Vec<u8>,
    size: (u32, u32),
    rgb: Vec<u8>,
}

fn pictures() -> Vec<Fixture> {
    let decoded = fs::read(format!("{FIXTURES}/decoded.bin")).unwrap();
    let pictures = goldens().pictures;
    assert!(pictures.len() > 60);
    pictures
        .into_iter()
        .map(|picture| {
            let bytes = fs::read(format!("{FIXTURES}/pictures/{}", picture.file)).unwrap();
            let size = (picture.width, picture.height);
            let rgb = decoded[picture.offset..][..(size.0 * size.1 * 3) as usize].to_vec();
            Fixture {
                file: picture.file,
                bytes,
                size,
                rgb,
            }
        })
        .collect()
}

/// What Pillow makes of a file of the corpus: size and SHA-256 of the upright RGB samples over white, or its refusal.
#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Pixels {
        rgb_sha256: String,
        size: (u32, u32),
    },
    Refused {
        refused_by_pillow: String,
    },
}

/// Names, bytes and expectations of the corpus of odd files.
fn corpus() -> Vec<(String, Vec<u8>, Expected)> {
    let folder = format!("{FIXTURES}/corpus");
    let expected = fs::read(format!("{folder}/expected.json")).unwrap();
    let expected: BTreeMap<String, Expected> = serde_json::from_slice(&expected).unwrap();
    assert!(expected.len() > 190);
    expected
        .into_iter()
        .map(|(file, expected)| {
            let bytes = fs::read(format!("{folder}/{file}")).unwrap();
            (file, bytes, expected)
        })
        .collect()
}

/// Files of the corpus that are not read as Pillow reads them, and why.
const UNLIKE_PILLOW: [(&str, &str); 15] = [
    ("avif_alpha.avif", "unsupported: a browser's format"),
    ("avif_jpg_name.jpg", "unsupported: a browser's format"),
    ("other.avif", "unsupported: a browser's format"),
    ("other.ico", "unsupported: a browser's format"),
    ("other.qoi", "unsupported: no format of the web"),
    ("other.tga", "unsupported: no format of the web"),
    ("other.tiff", "unsupported: a format of Safari"),
    (
        "cgbi.png",
        "unsupported: a format of Safari, which Pillow takes for PNG",
    ),
    (
        "sample_2x1_1x2_1x1.jpg",
        "unsupported: chroma is finer than luma",
    ),
    (
        "ycc_1x1_2x1_2x1.jpg",
        "unsupported: chroma is finer than luma",
    ),
    (
        "gray2_trns.png",
        "read: Pillow compares the transparent level with levels that it scaled",
    ),
    (
        "gray4_trns.png",
        "read: Pillow compares the transparent level with levels that it scaled",
    ),
    (
        "rle8_gaps.bmp",
        "read: what no run covers is black, not the first colour",
    ),
    (
        "two_bit.bmp",
        "read: Pillow knows no 2 bits per pixel, browsers do",
    ),
    (
        "bad_adler.png",
        "read: the pixels are all there, only their checksum is wrong",
    ),
];

/// The script's `noise`.
fn noise(width: u32, height: u32, seed: u64) -> Vec<u8> {
    let mut samples = Vec::with_capacity((width * height * 3) as usize);
    for y in 0..u64::from(height) {
        for x in 0..u64::from(width) {
            for channel in 0..3 {
                let mut key = if (x / 16 + y / 16) % 2 == 1 {
                    ((y / 16) * 65536 + x / 16) * 3 + channel
                } else {
                    (y * u64::from(width) + x) * 3 + channel
                };
                key = key.wrapping_add(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                key = (key ^ (key >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                key = (key ^ (key >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                samples.push((key >> 56) as u8);
            }
        }
    }
    samples
}

fn opaque(width: u32, height: u32, rgb: &[u8]) -> Image {
    let rgba: Vec<u8> = rgb
        .as_chunks::<3>()
        .0
        .iter()
        .flat_map(|&[r, g, b]| [r, g, b, 255])
        .collect();
    Image::from_rgba(width, height, &rgba).unwrap()
}

fn crc32(bytes: &[u8]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|index| {
        (0..8).fold(index as u32, |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 * (crc & 1))
        })
    });
    !bytes.iter().fold(!0, |crc, &byte| {
        table[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    })
}

/// A 24-bit BMP of RGB pixels.
fn bmp(width: u32, height: u32, rgb: &[u8]) -> Vec<u8> {
    let mut file = bmp_header(width, height);
    for row in rgb.chunks_exact(width as usize * 3).rev() {
        let start = file.len();
        file.extend(
            row.as_chunks::<3>()
                .0
                .iter()
                .flat_map(|&[r, g, b]| [b, g, r]),
        );
        file.resize(start + row.len().next_multiple_of(4), 0);
    }
    file
}

fn bmp_header(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    file.extend([width.to_le_bytes(), height.to_le_bytes()].as_flattened());
    file.extend(b"\x01\0\x18\0");
    file.resize(54, 0);
    file
}

/// A PNG's signature, header and an empty IDAT.
fn png_header(width: u32, height: u32, depth: u8, color_type: u8) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    let mut chunk = b"IHDR".to_vec();
    chunk.extend([width.to_be_bytes(), height.to_be_bytes()].as_flattened());
    chunk.extend([depth, color_type, 0, 0, 0]);
    file.extend(&chunk);
    file.extend(crc32(&chunk).to_be_bytes());
    file.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    file
}

/// The code of the error that `bytes` give, after a look at its message.
fn code(bytes: &[u8]) -> &'static str {
    let error = decode(bytes).expect_err("this must not decode");
    assert!(
        error.message().len() > 20 && error.message().len() < 300,
        "{error}"
    );
    error.code().as_str()
}

#[test]
fn pictures_have_the_references_pixels() {
    for Fixture {
        file,
        bytes,
        size,
        rgb,
    } in pictures()
    {
        let image = decode(&bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!((image.width(), image.height()), size, "{file}");
        let different = image.rgb().iter().zip(&rgb).filter(|(a, b)| a != b).count();
        assert_eq!(different, 0, "{file}: samples that differ");
    }
}

#[test]
fn odd_files_have_pillows_pixels_or_are_refused_as_it_does() {
    let mut listed = 0;
    let mut wrong = Vec::new();
    for (file, bytes, expected) in corpus() {
        let result = decode(&bytes);
        let reason = UNLIKE_PILLOW
            .iter()
            .find(|(name, _)| *name == file)
            .map(|(_, reason)| *reason);
        let same = match (&result, &expected) {
            (Ok(image), Expected::Pixels { rgb_sha256, size }) => {
                let digest = Sha256::digest(image.rgb());
                let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                (image.width(), image.height()) == *size && hex == *rgb_sha256
            }
            (Err(_), Expected::Refused { .. }) => true,
            _ => false,
        };
        let good = match (reason, &result) {
            (None, Err(error)) => {
                same && matches!(error.code().as_str(), "bad-image" | "unsupported")
            }
            (None, Ok(_)) => same,
            (Some(reason), Err(error)) => {
                !same && reason.starts_with("unsupported") && error.code().as_str() == "unsupported"
            }
            (Some(reason), Ok(_)) => !same && reason.starts_with("read"),
        };
        listed += usize::from(reason.is_some());
        if !good {
            let expected = match expected {
                Expected::Pixels { size, .. } => format!("{size:?}"),
                Expected::Refused { refused_by_pillow } => refused_by_pillow,
            };
            wrong.push(format!(
                "{file}: {result:?}, expected {expected}; listed as {reason:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        listed,
        UNLIKE_PILLOW.len(),
        "every file of the list is one of the corpus"
    );
}

#[test]
fn the_largest_picture_is_the_same_for_both_languages() {
    // www/lib/client/image.js is compared with the same file.
    let limits = fs::read(format!("{FIXTURES}/limits.json")).unwrap();
    let limits: BTreeMap<String, u64> = serde_json::from_slice(&limits).unwrap();
    assert_eq!(limits["largest_picture_pixels"], MAX_PIXELS);
    let fits = png_header(10_000, (MAX_PIXELS / 10_000) as u32, 8, 0);
    assert!(!decode(&fits).unwrap_err().message().contains("megapixels"));
    let larger = png_header(10_000, (MAX_PIXELS / 10_000) as u32 + 1, 8, 0);
    assert!(
        decode(&larger)
            .unwrap_err()
            .message()
            .contains("the limit is 100 megapixels")
    );
}

#[test]
fn pixel_values_are_the_references_bit_for_bit() {
    for case in goldens().resized {
        let ((width, height), (out_width, out_height)) = (case.from, case.to);
        let image = opaque(width, height, &noise(width, height, case.seed));
        let name = format!(
            "{width} × {height} to {out_width} × {out_height}, filter {}",
            case.resample
        );
        let preprocessor = |normalize: bool| {
            let config = serde_json::json!({
                "size": {"height": out_height, "width": out_width},
                "resample": case.resample,
                "do_rescale": normalize,
                "do_normalize": normalize,
            });
            Preprocessor::from_json(config.to_string().as_bytes()).unwrap()
        };
        let levels = preprocessor(false).pixel_values(&image);
        assert_eq!(levels.len(), 3 * out_height * out_width);
        let area = out_height * out_width;
        let resized: Vec<u8> = (0..area * 3)
            .map(|i| levels[i % 3 * area + i / 3] as u8)
            .collect();
        assert_eq!(crc32(&resized), case.resized_crc32, "{name}");
        let values = preprocessor(true).pixel_values(&image);
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(crc32(&bytes), case.pixel_values_crc32, "{name}");
    }
}

#[test]
fn every_level_is_rescaled_and_normalised_as_numpy_does() {
    let levels: Vec<u8> = (0..=255).flat_map(|level| [level; 3]).collect();
    let image = opaque(16, 16, &levels);
    for case in goldens().configs {
        let preprocessor = Preprocessor::from_json(case.config.to_string().as_bytes()).unwrap();
        let input = Input::Fixed {
            height: 16,
            width: 16,
        };
        assert_eq!(preprocessor.input(), input);
        let values = preprocessor.pixel_values(&image);
        let bits: Vec<u32> = values.into_iter().map(f32::to_bits).collect();
        assert_eq!(bits, case.bits.concat(), "{}", case.config);
    }
}

#[test]
fn the_configuration_has_the_processors_defaults() {
    let size = |json: &str| match Preprocessor::from_json(json.as_bytes()).unwrap().input() {
        Input::Fixed { height, width } => (height, width),
        other => panic!("{other:?}"),
    };
    assert_eq!(size("{}"), (224, 224));
    assert_eq!(
        size(r#"{"size": null, "resample": null, "image_mean": null}"#),
        (224, 224)
    );
    assert_eq!(size(r#"{"size": {"width": 20, "height": 30}}"#), (30, 20));
    assert_eq!(size(r#"{"size": [30, 20]}"#), (30, 20));
    assert_eq!(
        size(r#"{"image_processor": {"size": {"height": 8, "width": 9}}}"#),
        (8, 9)
    );
    let image = opaque(1, 1, &[0, 128, 255]);
    let defaults = Preprocessor::from_json(b"{}").unwrap().pixel_values(&image);
    assert_eq!(defaults.first(), Some(&-1.0));
    assert_eq!(defaults.last(), Some(&1.0));
}

#[test]
fn configurations_that_cannot_be_followed_are_refused() {
    for (json, code) in [
        ("", "bad-model"),
        ("<!doctype html>", "bad-model"),
        ("[]", "bad-model"),
        (r#"{"size": 224}"#, "bad-model"),
        (r#"{"size": {"shortest_edge": 224}}"#, "bad-model"),
        (r#"{"size": {"height": 224}}"#, "bad-model"),
        (r#"{"size": {"height": 0, "width": 224}}"#, "bad-model"),
        (r#"{"size": {"height": -1, "width": 224}}"#, "bad-model"),
        (
            r#"{"size": {"height": 1e9, "width": 1000000000}}"#,
            "bad-model",
        ),
        (r#"{"image_mean": [0.5, 0.5]}"#, "bad-model"),
        (r#"{"image_std": [0.5, 0.0, 0.5]}"#, "bad-model"),
        (r#"{"rescale_factor": "1/255"}"#, "bad-model"),
        (r#"{"resample": 9}"#, "unsupported"),
        (r#"{"do_resize": false}"#, "unsupported"),
        (r#"{"do_center_crop": true}"#, "unsupported"),
        (r#"{"do_pad": true}"#, "unsupported"),
        (
            r#"{"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 0}"#,
            "bad-model",
        ),
        (
            r#"{"image_processor_type": "Siglip2ImageProcessor", "patch_size": "16"}"#,
            "bad-model",
        ),
        (
            r#"{"image_processor_type": "CLIPImageProcessor"}"#,
            "unsupported",
        ),
    ] {
        let error = Preprocessor::from_json(json.as_bytes()).expect_err(json);
        assert_eq!(error.code().as_str(), code, "{json}: {error}");
        assert!(
            error.message().contains("preprocessor_config.json"),
            "{error}"
        );
    }
}

#[test]
fn what_is_not_a_picture_is_a_bad_image() {
    for bytes in [
        &b""[..],
        b"\0",
        b"Hello",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"{\"error\": \"not found\"}",
        b"%PDF-1.7\n",
        b"PK\x03\x04",
        b"\0\0\0\x18ftypmp42\0\0\0\0",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"BMW",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM\0\0\0\0\0\0\0\0",
        b"RIFF\x04\0\0\0WEBP",
    ] {
        assert_eq!(code(bytes), "bad-image", "{}", bytes.escape_ascii());
    }
}

#[test]
fn formats_that_only_a_browser_knows_are_unsupported_by_name() {
    for (bytes, name) in [
        (&b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf"[..], "AVIF"),
        (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmiaf\0\0\0\0MA1Bavif", "AVIF"),
        (b"\0\0\0\x18ftypMA1B\0\0\0\0miafMA1B", "AVIF"),
        (b"\0\0\0\x14ftypmiaf\0\0\0\0mp41", "HEIC"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x04CgBIP\0 \x02", "CgBI"),
        (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "SVG"),
        (b"\n<?xml version=\"1.0\"?><!-- drawn --><svg/>", "SVG"),
        (
            &[
                b"<!-- ",
                &[b'-'; 9000][..],
                b"--><!DOCTYPE svg [<!ENTITY a \"b\">]><s:svg>",
            ]
            .concat(),
            "SVG",
        ),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"\0\0\x01\0\x01\0\x10\x10", "ICO"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"8BPS\0\x01", "Photoshop"),
    ] {
        assert_eq!(code(bytes), "unsupported", "{name}");
        assert!(
            decode(bytes).unwrap_err().message().contains(name),
            "{name}"
        );
    }
}

#[test]
fn files_cut_short_are_bad_images() {
    for Fixture {
        file,
        bytes,
        size,
        rgb,
    } in pictures()
    {
        let cuts = (0..24).chain((24..bytes.len()).step_by(bytes.len() / 40 + 1));
        for end in cuts.chain(bytes.len().saturating_sub(16)..bytes.len()) {
            match decode(&bytes[..end]) {
                Err(error) => {
                    let what = format!("{file} at {end}: {error}");
                    assert_eq!(error.code().as_str(), "bad-image", "{what}");
                    // Before that the format can't be told.
                    assert!(end < 16 || error.is_beyond_repair(), "{what}");
                }
                // All pixels can be there without the last bytes, as Pillow finds too; but not made up.
                Ok(image) => {
                    assert!(
                        !file.ends_with(".jpg") && !file.ends_with(".webp"),
                        "{file} at {end}"
                    );
                    assert_eq!((image.width(), image.height()), size, "{file} at {end}");
                    assert!(image.rgb() == rgb, "{file} at {end}: pixels made up");
                }
            }
        }
    }
}

fn fixture(name: &str) -> Fixture {
    let mut pictures = pictures().into_iter();
    pictures.find(|picture| picture.file == name).unwrap()
}

/// Where the data of a PNG's first chunk of this name are.
fn png_chunk(file: &[u8], name: &[u8; 4]) -> Range<usize> {
    let at = file.windows(4).position(|word| word == name).unwrap();
    let length = u32::from_be_bytes(*file[at - 4..].first_chunk().unwrap());
    at + 4..at + 4 + length as usize
}

#[test]
fn a_flipped_bit_of_a_png_is_noticed_with_and_without_the_end() {
    for name in ["rgb.png", "interlaced_rgba.png", "palette_transparent.png"] {
        let Fixture { bytes, rgb, .. } = fixture(name);
        for file in [&bytes[..], &bytes[..bytes.len() - 12]] {
            assert!(decode(file).unwrap().rgb() == rgb, "{name}");
            let flip = |at: usize, bit: usize| {
                let mut flipped = file.to_vec();
                flipped[at] ^= 1 << bit;
                flipped
            };
            let pixels = png_chunk(file, b"IDAT");
            // The last of them is in the pixels' own checksum.
            for place in 1..=100 {
                let at = pixels.start + pixels.len() * place / 100 - 1;
                match decode(&flip(at, place % 8)) {
                    Ok(image) => assert!(image.rgb() == rgb, "{name} at {at}: pixels made up"),
                    Err(error) => assert_eq!(error.code().as_str(), "bad-image", "{name} at {at}"),
                }
            }
            // Before the pixels: in a name, which makes it another chunk, and in the data.
            for chunk in [b"IHDR", b"PLTE", b"tRNS"] {
                if file.windows(4).any(|word| word == chunk) {
                    let data = png_chunk(file, chunk);
                    for at in [data.start - 1, data.start + 3, data.end - 1] {
                        let code = code(&flip(at, 0));
                        assert_eq!(code, "bad-image", "{name} at {at}");
                    }
                }
            }
        }
    }
}

/// A WebP file of these chunks behind an extended header.
fn extended_webp(flags: u8, size: (u32, u32), chunks: &[u8]) -> Vec<u8> {
    let mut body = b"WEBPVP8X\x0a\0\0\0".to_vec();
    body.extend([flags, 0, 0, 0]);
    for side in [size.0, size.1] {
        body.extend(&(side - 1).to_le_bytes()[..3]);
    }
    body.extend(chunks);
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

#[test]
fn a_webp_picture_says_itself_whether_it_has_alpha() {
    for name in ["lossless_alpha.webp", "lossless.webp", "lossy.webp"] {
        let Fixture {
            bytes, size, rgb, ..
        } = fixture(name);
        for flags in [0, 0x10] {
            let image = decode(&extended_webp(flags, size, &bytes[12..])).unwrap();
            assert!(image.rgb() == rgb, "{name} with {flags:#x}");
        }
    }
}

#[test]
fn the_first_frame_of_a_webp_animation_is_blended_with_nothing() {
    let Fixture {
        bytes, size, rgb, ..
    } = fixture("lossless_alpha.webp");
    let mut frame = Vec::new();
    // Places are counted in twos.
    for number in [1, 2, size.0 - 1, size.1 - 1, 100] {
        frame.extend(&number.to_le_bytes()[..3]);
    }
    let (width, height) = (size.0 as usize, size.1 as usize);
    let canvas = (width + 5, height + 6);
    let mut expected = vec![255; canvas.0 * canvas.1 * 3];
    for (y, row) in rgb.chunks_exact(width * 3).enumerate() {
        expected[((y + 4) * canvas.0 + 2) * 3..][..row.len()].copy_from_slice(row);
    }
    for flags in 0..4 {
        let data = [&frame[..], &[flags], &bytes[12..]].concat();
        let mut chunks = b"ANIM\x06\0\0\0\x10\x20\x30\xff\0\0ANMF".to_vec();
        chunks.extend((data.len() as u32).to_le_bytes());
        chunks.extend(data);
        let file = extended_webp(0x12, (canvas.0 as u32, canvas.1 as u32), &chunks);
        assert!(decode(&file).unwrap().rgb() == expected, "flags {flags}");
    }
}

#[test]
fn pixels_of_a_gif_outside_its_palette_are_black() {
    // One row, in codes of 9 bits.
    let gif = |global: &[[u8; 3]], local: &[[u8; 3]], transparent: Option<u8>, row: &[u8]| {
        let flags = |palette: &[[u8; 3]]| match palette.len() {
            0 => 0,
            colors => 0x80 | (colors.ilog2() as u8 - 1),
        };
        let width = row.len() as u8;
        let mut file = b"GIF89a".to_vec();
        file.extend([width, 0, 1, 0, flags(global), 0, 0]);
        file.extend(global.as_flattened());
        if let Some(index) = transparent {
            file.extend([b'!', 0xf9, 4, 1, 0, 0, index, 0]);
        }
        file.extend([b',', 0, 0, 0, 0, width, 0, 1, 0, flags(local)]);
        file.extend(local.as_flattened());
        let codes = row.iter().map(|&pixel| u128::from(pixel));
        let codes = [256].into_iter().chain(codes).chain([257]);
        let data = codes
            .zip(0..)
            .fold(0, |data, (code, place)| data | code << (9 * place));
        file.extend([8, 16]);
        file.extend(data.to_le_bytes());
        file.extend(b"\0;");
        file
    };
    let colors = [[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]];
    let others = [[1, 2, 3], [4, 5, 6]];
    let grays = [[0; 3], [1; 3]];
    let row = [200, 1, 3, 255];
    for (file, expected) in [
        (
            gif(&colors, &[], None, &row),
            [[0; 3], colors[1], colors[3], [0; 3]],
        ),
        (
            gif(&others, &colors, None, &row),
            [[0; 3], colors[1], colors[3], [0; 3]],
        ),
        (
            gif(&colors, &others, Some(3), &row),
            [[0; 3], others[1], [255; 3], [0; 3]],
        ),
        (
            gif(&colors, &[], Some(200), &row),
            [[255; 3], colors[1], colors[3], [0; 3]],
        ),
        // Grays in their order are no palette to Pillow: pixels are levels.
        (
            gif(&grays, &[], None, &row),
            [[200; 3], [1; 3], [3; 3], [255; 3]],
        ),
        (
            gif(&[], &[], None, &row),
            [[200; 3], [1; 3], [3; 3], [255; 3]],
        ),
    ] {
        assert_eq!(decode(&file).unwrap().rgb(), expected.as_flattened());
    }
}

/// Seeded random numbers below a bound.
fn random_below(mut state: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    }
}

/// Decodes a damaged file; whether it was refused. A panic of the decoder inside would trap in the browser.
fn decode_damaged(file: &str, mutant: &[u8]) -> bool {
    match decode(mutant) {
        Ok(image) => {
            let area = u64::from(image.width()) * u64::from(image.height());
            assert_eq!(image.rgb().len() as u64, area * 3, "{file}");
            false
        }
        Err(error) => {
            let code = error.code().as_str();
            assert!(
                matches!(code, "bad-image" | "unsupported"),
                "{file}: {error}"
            );
            assert!(
                !error.message().contains("its decoder failed"),
                "{file}: {mutant:02x?}"
            );
            true
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut random = random_below(1);
    let mut refused = 0;
    let mut mutants = 0;
    for Fixture { file, bytes, .. } in pictures() {
        for _ in 0..60 {
            let mut mutant = bytes.clone();
            for _ in 0..=random(4) {
                // Headers are hit more often than their share of the file.
                let reach = if random(2) == 0 {
                    mutant.len()
                } else {
                    mutant.len().min(64)
                };
                let at = random(reach);
                match random(4) {
                    0 => mutant[at] ^= 1 << random(8),
                    1 => mutant[at] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
                    2 => mutant[at] = random(256) as u8,
                    _ => {
                        let other = random(mutant.len());
                        mutant.swap(at, other);
                    }
                }
            }
            mutants += 1;
            refused += usize::from(decode_damaged(&file, &mutant));
        }
    }
    println!("{refused} of {mutants} damaged files were refused");
    assert!(refused > mutants / 10);
}

#[test]
fn damaged_jpegs_never_panic() {
    let jpegs: Vec<(String, Vec<u8>)> = pictures()
        .into_iter()
        .map(|fixture| (fixture.file, fixture.bytes))
        .chain(corpus().into_iter().map(|(file, bytes, _)| (file, bytes)))
        .filter(|(_, bytes)| bytes.starts_with(b"\xff\xd8\xff") && bytes.len() < 20_000)
        .collect();
    assert!(jpegs.len() > 120);
    // More of them: JPEG_MUTANTS=1000000 cargo test --release --test preprocess damaged_jpegs
    let count = std::env::var("JPEG_MUTANTS").map_or(20_000, |count| count.parse().unwrap());
    let mut random = random_below(2);
    for _ in 0..count {
        let (file, bytes) = &jpegs[random(jpegs.len())];
        let mut mutant = bytes.clone();
        for _ in 0..=random(6) {
            let scan = mutant
                .windows(2)
                .position(|word| word == b"\xff\xda")
                .unwrap_or(20);
            let reach = [mutant.len(), (scan + 14).min(mutant.len())][random(2)];
            let at = random(reach);
            let from = random(mutant.len());
            match random(8) {
                0 => mutant[at] ^= 1 << random(8),
                1 => mutant[at] = [0, 1, 0x11, 0x22, 0x44, 0x7f, 0x80, 0xd9, 0xff][random(9)],
                2 => mutant[at] = random(256) as u8,
                // A piece is lost, comes twice, or comes from another file.
                3 => drop(mutant.drain(at..(at + random(64)).min(mutant.len() - 1).max(at))),
                4 => {
                    let piece = mutant[from..(from + random(200)).min(mutant.len())].to_vec();
                    mutant.splice(at..at, piece);
                }
                5 => {
                    let other = &jpegs[random(jpegs.len())].1;
                    let from = random(other.len());
                    let piece = &other[from..(from + random(600)).min(other.len())];
                    let end = (at + piece.len()).min(mutant.len());
                    mutant.splice(at..end, piece.iter().copied());
                }
                6 => {
                    let marker = [
                        0xc0, 0xc1, 0xc2, 0xc4, 0xc9, 0xd0, 0xd9, 0xda, 0xdb, 0xdd, 0xe1, 0xee,
                    ][random(12)];
                    mutant.splice(at..at, [0xff, marker]);
                }
                // The frame header.
                _ => {
                    let frame = mutant
                        .windows(2)
                        .position(|word| word[0] == 0xff && (0xc0..=0xc2).contains(&word[1]));
                    let at = frame.unwrap_or(0) + random(20);
                    if at < mutant.len() {
                        mutant[at] = [
                            0, 1, 2, 3, 4, 8, 0x11, 0x12, 0x14, 0x21, 0x22, 0x24, 0x31, 0x41, 0x42,
                            0x44, 0xc2,
                        ][random(17)];
                    }
                }
            }
            if mutant.is_empty() {
                mutant.push(0xff);
            }
        }
        decode_damaged(file, &mutant);
    }
}

#[test]
fn jpegs_are_refused_by_work_before_it_is_done() {
    let jpeg = |name: &str| fs::read(format!("{FIXTURES}/pictures/{name}.jpg")).unwrap();
    // Large, and with less data than it has blocks.
    let mut large = jpeg("progressive");
    let frame = large
        .windows(2)
        .position(|word| word == b"\xff\xc2")
        .unwrap();
    large[frame + 5..frame + 9].copy_from_slice(&[0x25, 0, 0x25, 0]);
    assert_eq!(code(&large), "bad-image");
    assert!(decode(&large).unwrap_err().message().contains("cut short"));
    // Scan upon scan.
    let mut scans = jpeg("progressive");
    let last = scans
        .windows(2)
        .rposition(|word| word == b"\xff\xda")
        .unwrap();
    let scan = scans[last..scans.len() - 2].to_vec();
    for _ in 0..1000 {
        let end = scans.len() - 2;
        scans.splice(end..end, scan.iter().copied());
    }
    assert_eq!(code(&scans), "bad-image");
    assert!(decode(&scans).unwrap_err().message().contains("scans"));
}

#[test]
fn a_jpeg_without_its_end_is_read_if_all_of_its_data_are_there() {
    let whole = fs::read(format!("{FIXTURES}/pictures/420.jpg")).unwrap();
    let rgb = decode(&whole).unwrap();
    let without = &whole[..whole.len() - 2];
    assert_eq!(code(without), "bad-image");
    for trailer in [&[0; 4][..], b"a trailer of text", &[0; 1000]] {
        assert!(decode(&[without, trailer].concat()).unwrap() == rgb);
    }
    assert_eq!(code(&[without, &[0; 2]].concat()), "bad-image");
    assert_eq!(
        code(&[&without[..without.len() - 40], &[0; 40]].concat()),
        "bad-image"
    );
}

#[test]
fn strips_and_panoramas_are_resized_as_the_reference_does() {
    let preprocessor = Preprocessor::from_json(b"{}").unwrap();
    let mut checked = 0;
    for case in goldens().resized {
        let (width, height) = case.from;
        if width.max(height) < 20_000 {
            continue;
        }
        let image = decode(&bmp(width, height, &noise(width, height, case.seed))).unwrap();
        let values = preprocessor.pixel_values(&image);
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(crc32(&bytes), case.pixel_values_crc32, "{width} × {height}");
        checked += 1;
    }
    assert_eq!(checked, 3);
}

#[test]
fn decompression_bombs_are_refused_by_their_header() {
    let jpeg = b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0\
        \xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0\xff\xd9";
    let gif = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;";
    let webp = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\x03\xff\xff\x03";
    for (bytes, size) in [
        (png_header(50_000, 50_000, 8, 2), "50000 × 50000"),
        (png_header(u32::MAX >> 1, 1, 8, 0), "2147483647 × 1"),
        (bmp_header(30_000, 30_000), "30000 × 30000"),
        (jpeg.to_vec(), "65535 × 65535"),
        (gif.to_vec(), "65535 × 65535"),
    ] {
        assert_eq!(code(&bytes), "bad-image", "{size}");
        let message = decode(&bytes).unwrap_err().message().to_string();
        assert!(
            message.contains(size) && message.contains("limit"),
            "{message}"
        );
    }
    assert_eq!(code(webp), "bad-image");
    // Few enough pixels, but of 16 bits and with alpha.
    let deep = png_header(10_000, 9_999 + 1, 16, 6);
    assert_eq!(code(&deep), "bad-image");
    // A frame larger than its canvas.
    let frame =
        b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;";
    assert_eq!(code(frame), "bad-image");
}

#[test]
fn pixels_with_alpha_are_laid_over_white() {
    let rgba = [10, 20, 30, 255, 10, 20, 30, 0, 0, 128, 255, 51];
    let image = Image::from_rgba(3, 1, &rgba).unwrap();
    assert_eq!((image.width(), image.height()), (3, 1));
    assert_eq!(image.rgb(), [10, 20, 30, 255, 255, 255, 204, 230, 255]);
    for (width, height, length) in [
        (0, 1, 0),
        (1, 0, 0),
        (2, 2, 15),
        (2, 2, 17),
        (u32::MAX, u32::MAX, 4),
    ] {
        let error = Image::from_rgba(width, height, &vec![0; length]).unwrap_err();
        assert_eq!(error.code().as_str(), "bad-image");
    }
}

#[test]
fn photographs_in_four_orientations_look_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/exif");
    let Ok(upright) = fs::read(folder.join("landscape_1.jpg")) else {
        println!(
            "no EXIF photographs here: orientation_*.jpg and orientation_*.png stand in for them"
        );
        return;
    };
    let preprocessor = Preprocessor::from_json(b"{}").unwrap();
    let upright = decode(&upright).unwrap();
    let expected = preprocessor.pixel_values(&upright);
    for orientation in [3, 6, 8] {
        let file = folder.join(format!("landscape_{orientation}.jpg"));
        let image = decode(&fs::read(file).unwrap()).unwrap();
        assert_eq!(
            (image.width(), image.height()),
            (upright.width(), upright.height())
        );
        let values = preprocessor.pixel_values(&image);
        let sum: f32 = values
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .sum();
        let mean = sum / values.len() as f32;
        assert!(
            mean < 0.03,
            "orientation {orientation}: mean difference {mean}"
        );
    }
}
