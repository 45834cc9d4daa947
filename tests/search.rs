//! Search is exact: what it finds is what comparing everything in f64 finds.
#![cfg(not(target_family = "wasm"))]

use siglip_web::search::{Entry, Index, Question, Rows, checksum};
use siglip_web::{Backend, Classifier, Code};

/// Numbers as a normal distribution has them, the same everywhere.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (a, b) = (self.uniform().max(f64::MIN_POSITIVE), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    fn unit(&mut self, size: usize) -> Vec<f32> {
        let vector: Vec<f64> = (0..size).map(|_| self.normal()).collect();
        let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
        vector.iter().map(|v| (v / length) as f32).collect()
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

fn filled(vectors: &[Vec<f32>]) -> Rows {
    let mut rows = Rows::new(vectors[0].len());
    rows.resize(vectors.len());
    for (row, vector) in vectors.iter().enumerate() {
        rows.set(row, vector);
    }
    rows
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// The best `limit` by `value`, as numpy's stable `argsort` of its negative gives them.
fn best(count: usize, limit: usize, value: impl Fn(usize) -> f64) -> Vec<(usize, f64)> {
    let mut all: Vec<_> = (0..count).map(|row| (row, value(row))).collect();
    all.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    all.truncate(limit);
    all
}

const SCALE: f64 = 117.3;
const BIAS: f64 = -12.9;

fn question(words: Vec<(Vec<f32>, bool)>, pictures: Option<Vec<f32>>) -> Question {
    Question {
        words,
        pictures,
        scale: SCALE,
        bias: BIAS,
    }
}

#[test]
fn among_twenty_thousand_embeddings_the_order_and_the_values_are_those_of_f64() {
    let mut random = Random(7);
    let vectors: Vec<_> = (0..20_000).map(|_| random.unit(768)).collect();
    let rows = filled(&vectors);
    for _ in 0..5 {
        let query = random.unit(768);
        let expected = best(vectors.len(), 100, |row| cosine(&query, &vectors[row]));
        for (question, is_words) in [
            (question(vec![(query.clone(), false)], None), true),
            (question(vec![], Some(query.clone())), false),
        ] {
            let candidates = question.candidates(&rows, 300);
            let found = question.rank(&candidates, |row| Some(vectors[row].as_slice()));
            assert_eq!(found.len(), 300);
            for (found, (row, cosine)) in found.iter().zip(&expected) {
                assert_eq!(found.row, *row);
                assert!((found.cosine - cosine).abs() < 1e-12);
                let logit = SCALE * cosine + BIAS;
                assert!((found.logit - logit).abs() < 1e-9);
                let score = if is_words {
                    sigmoid(logit)
                } else {
                    cosine.max(0.0)
                };
                assert!((found.score - score).abs() < 1e-9);
            }
        }
    }
}

#[test]
fn several_terms_are_met_together_and_minus_terms_are_not() {
    let mut random = Random(11);
    for size in [16, 50, 160] {
        let vectors: Vec<_> = (0..3000).map(|_| random.unit(size)).collect();
        let rows = filled(&vectors);
        let words = vec![
            (random.unit(size), false),
            (random.unit(size), false),
            (random.unit(size), true),
        ];
        // In logarithms: of what is all but certain, products tell no order.
        let chance = |row: usize| -> f64 {
            let each = words.iter().map(|(word, minus)| {
                let logit = SCALE * cosine(word, &vectors[row]) + BIAS;
                let logit = if *minus { -logit } else { logit };
                logit.min(0.0) - (-logit.abs()).exp().ln_1p()
            });
            each.sum()
        };
        let several = question(words.clone(), None);
        let candidates = several.candidates(&rows, 240);
        let found = several.rank(&candidates, |row| Some(vectors[row].as_slice()));
        for (found, (row, chance)) in found.iter().zip(best(3000, 40, chance)) {
            assert_eq!(found.row, row, "{size} numbers");
            assert!((found.score - chance.exp()).abs() < 1e-12);
            assert!((sigmoid(found.logit) - chance.exp()).abs() < 1e-12);
        }

        // With a picture, each part counts in its standard deviations.
        let like = random.unit(size);
        let parts: Vec<[f64; 2]> = (0..3000)
            .map(|row| [chance(row), cosine(&like, &vectors[row])])
            .collect();
        let spread = |part: usize| {
            let mean = parts.iter().map(|p| p[part]).sum::<f64>() / 3000.0;
            let squares: f64 = parts.iter().map(|p| (p[part] - mean).powi(2)).sum();
            (mean, (squares / 3000.0).sqrt())
        };
        let spreads = [spread(0), spread(1)];
        let order = |row: usize| -> f64 {
            (0..2)
                .map(|part| (parts[row][part] - spreads[part].0) / spreads[part].1)
                .sum()
        };
        let mixed = question(words.clone(), Some(like.clone()));
        let candidates = mixed.candidates(&rows, 240);
        let found = mixed.rank(&candidates, |row| Some(vectors[row].as_slice()));
        // Means and deviations are those of 8 bits: what is nearer than that may change places.
        for (found, (_, expected)) in found.iter().zip(best(3000, 40, order)) {
            assert!((order(found.row) - expected).abs() < 0.02, "{size} numbers");
        }
    }
}

#[test]
fn free_rows_are_not_found_and_rows_are_used_again() {
    let mut random = Random(3);
    let vectors: Vec<_> = (0..5000).map(|_| random.unit(24)).collect();
    let mut rows = filled(&vectors);
    let ask = |rows: &Rows, vector: &[f32]| {
        let question = question(vec![], Some(vector.to_vec()));
        question.candidates(rows, 10).rows
    };
    assert_eq!(ask(&rows, &vectors[4321])[0], 4321);
    rows.free(4321);
    assert!(!ask(&rows, &vectors[4321]).contains(&4321));
    rows.set(4321, &vectors[0]);
    assert!(ask(&rows, &vectors[0])[..2].contains(&4321));
    rows.resize(4000);
    rows.resize(5000);
    assert!(ask(&rows, &vectors[0]).iter().all(|row| *row < 4000));
    assert_eq!(ask(&Rows::new(24), &vectors[0]), Vec::<usize>::new());
}

#[test]
fn a_row_with_a_bit_that_flipped_has_no_checksum() {
    let mut rows = Rows::new(20);
    rows.resize(1);
    let vector = Random(5).unit(20);
    let sum = rows.set(0, &vector);
    let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(sum, checksum(&bytes));
    assert_eq!(rows.sum(0), Some(sum));
    for bit in 0..8 * rows.stride() {
        rows.chunk(0)[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(rows.sum(0), None, "bit {bit}");
        rows.chunk(0)[bit / 8] ^= 1 << (bit % 8);
    }
    rows.free(0);
    assert_eq!(rows.sum(0), None);
}

#[test]
fn an_index_is_written_and_read_and_refused_where_it_is_of_another_model() {
    let classifier = Classifier::load("www/lib/models/demo", Backend::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pictures.safetensors");
    let mut random = Random(9);
    let mut index = Index::new(&classifier, "demo");
    let vectors: Vec<_> = (0..50).map(|_| random.unit(160)).collect();
    for (i, vector) in vectors.iter().enumerate() {
        let entry = Entry {
            id: format!("folder/ü {i}.jpg"),
            size: (i % 2 == 0).then_some(1 << 40),
            modified: (i % 3 == 0).then_some(1.5),
        };
        index.insert(entry, vector);
    }
    assert_eq!(index.retain(|entry| entry.id != "folder/ü 7.jpg"), 1);
    index.save(&path).unwrap();
    let read = Index::open(&path, &classifier, "demo").unwrap();
    assert_eq!(read.entries(), index.entries());
    assert!(read.get("folder/ü 7.jpg").is_none());
    let (_, embedding) = read.get("folder/ü 8.jpg").unwrap();
    assert_eq!(embedding, vectors[8]);
    let like = question(vec![], Some(vectors[8].clone()));
    assert_eq!(read.search(&like, 3), index.search(&like, 3));
    assert_eq!(read.search(&like, 3)[0].entry.id, "folder/ü 8.jpg");

    let other = Classifier::load("tests/fixtures/model/tiny", Backend::Cpu).unwrap();
    let error = Index::open(&path, &other, "tiny").err().unwrap();
    assert_eq!(error.code(), Code::BadInput);
    assert!(error.message().contains("made by demo"), "{error}");
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = Index::open(&path, &classifier, "demo").err().unwrap();
        assert_eq!(error.code(), Code::BadInput);
        assert!(error.message().contains("make it again"), "{error}");
    }
    // A number of which a bit is another one: the embedding has another length.
    let first = vectors[0][0].to_le_bytes();
    let place = bytes.windows(4).position(|four| four == first).unwrap();
    let mut damaged = bytes.clone();
    damaged[place + 3] ^= 0x40;
    std::fs::write(&path, damaged).unwrap();
    let error = Index::open(&path, &classifier, "demo").err().unwrap();
    assert!(error.message().contains("length 1"), "{error}");
    let shipped = Index::open("tests/fixtures/index.safetensors", &classifier, "demo").unwrap();
    assert!(shipped.get("samples/penguin.png").is_some());
    let missing = Index::open(folder.path().join("none"), &classifier, "demo");
    assert_eq!(missing.err().unwrap().code(), Code::Network);
}
