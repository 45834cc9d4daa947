//! Made-up tokenizers with the structure of SigLIP 2's (Gemma's BPE) and of the multilingual SigLIP's (mT5's Unigram), and texts to try them on.

use std::collections::HashMap;

use serde_json::{Value, json};

/// xorshift64*, the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let product = u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * below as u128;
        (product >> 64) as usize
    }

    pub fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Ranges of characters that pieces and texts are made of, several as different scripts are used differently often.
const SCRIPTS: &[(u32, u32)] = &[
    (0x61, 0x7a),
    (0x61, 0x7a),
    (0x61, 0x7a),
    (0x30, 0x39),
    (0x21, 0x2f),
    (0x41, 0x5a),
    (0xe0, 0xff),
    (0x100, 0x17f),
    (0x3b1, 0x3c9),
    (0x430, 0x44f),
    (0x5d0, 0x5ea),
    (0x627, 0x64a),
    (0x905, 0x94d),
    (0xe01, 0xe3a),
    (0x3041, 0x3096),
    (0x4e00, 0x4fff),
    (0xac00, 0xaeff),
];

/// Texts without pieces of their own as well: marks, jamo, emoji and their joiners, controls, odd spaces.
const RARE: &[(u32, u32)] = &[
    (0x300, 0x36f),
    (0x1100, 0x11ff),
    (0x0, 0x1f),
    (0x7f, 0xa0),
    (0x1f300, 0x1f6ff),
    (0x1f3fb, 0x1f3ff),
    (0x200b, 0x200f),
    (0x2000, 0x200a),
    (0xfe00, 0xfe0f),
    (0x1f1e6, 0x1f1ff),
    (0x2028, 0x202f),
    (0xe000, 0xe010),
    (0x1e00, 0x1eff),
    (0x130, 0x131),
    (0x0, 0x10ffff),
];

fn character(random: &mut Random, ranges: &[(u32, u32)]) -> char {
    loop {
        let (low, high) = *random.of(ranges);
        let c = low + random.below((high - low + 1) as usize) as u32;
        if let Some(c) = char::from_u32(c) {
            return c;
        }
    }
}

/// `count` pieces after `head`: characters, and then words, with the ends and beginnings of each.
fn pieces(random: &mut Random, head: &[String], count: usize) -> Vec<String> {
    let mut pieces = head.to_vec();
    let mut known: std::collections::HashSet<String> = head.iter().cloned().collect();
    let mut add = |piece: &str, pieces: &mut Vec<String>| {
        if pieces.len() < count && known.insert(piece.to_string()) {
            pieces.push(piece.to_string());
        }
    };
    add("▁", &mut pieces);
    // In a small vocabulary not every character has a piece.
    for &(low, high) in SCRIPTS {
        for c in (low..=high).filter_map(char::from_u32) {
            if count > 20_000 || random.below(8) > 0 {
                add(&c.to_string(), &mut pieces);
            }
        }
    }
    let mut roots: Vec<Vec<String>> = vec![vec![]; SCRIPTS.len()];
    while pieces.len() < count {
        let script = random.below(SCRIPTS.len());
        let range = &SCRIPTS[script..=script];
        let part = |random: &mut Random| {
            if roots[script].is_empty() || random.below(3) == 0 {
                let c = character(random, range);
                format!("{c}{}", character(random, range))
            } else {
                random.of(&roots[script]).clone()
            }
        };
        let (left, right) = (part(random), part(random));
        let word: Vec<char> = format!("{left}{right}").chars().take(14).collect();
        let word = if random.below(3) == 0 {
            [&['▁'], word.as_slice()].concat()
        } else {
            word
        };
        for cut in 1..word.len() {
            for part in [&word[..cut], &word[cut..]] {
                if part.len() > 1 && random.below(2) == 0 {
                    add(&String::from_iter(part), &mut pieces);
                }
            }
        }
        let word = String::from_iter(word);
        add(&word, &mut pieces);
        if word.chars().count() < 10 && !word.starts_with('▁') {
            roots[script].push(word);
        }
    }
    pieces
}

fn added(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special})
}

/// A `tokenizer.json` like SigLIP 2's with `count` pieces, merges as pairs.
pub fn gemma_like(random: &mut Random, count: usize) -> Value {
    let special = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        "<start_of_turn>",
        "<end_of_turn>",
    ];
    let special: Vec<String> = special.map(String::from).into();
    let unused = (0..99).map(|i| format!("<unused{i}>"));
    let special: Vec<String> = special.into_iter().chain(unused).collect();
    let plain = [
        "\n",
        "\n\n",
        "\n\n\n",
        "▁▁",
        "▁▁▁",
        "▁▁▁▁",
        "<table>",
        "</table>",
        "<h1>",
    ];
    let plain = plain.map(String::from);
    let bytes = (0..256).map(|byte| match byte {
        9 => "\t".to_string(),
        byte => format!("<0x{byte:02X}>"),
    });
    let head: Vec<String> = special.iter().chain(&plain).cloned().chain(bytes).collect();
    let pieces = pieces(random, &head, count);
    let ids: HashMap<&str, usize> = pieces.iter().map(String::as_str).zip(0..).collect();
    let mut merges = Vec::new();
    for piece in &pieces[head.len()..] {
        let cuts = piece
            .char_indices()
            .skip(1)
            .map(|(at, _)| piece.split_at(at));
        let mut cuts: Vec<_> = cuts
            .filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right))
            .collect();
        cuts.sort_by_key(|(left, right)| (ids[left], ids[right]));
        merges.extend(cuts.into_iter().map(|(left, right)| json!([left, right])));
    }
    let added_tokens: Vec<_> = (special.iter().map(|token| (token, true)))
        .chain(plain.iter().map(|token| (token, false)))
        .map(|(token, special)| added(ids[token.as_str()], token, special))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<eos>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<eos>": {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": ids, "merges": merges}
    })
}

/// The merges of a BPE file as older files have them, `"left right"`.
pub fn with_merges_as_text(mut file: Value) -> Value {
    for merge in file["model"]["merges"].as_array_mut().unwrap() {
        *merge = json!(format!(
            "{} {}",
            merge[0].as_str().unwrap(),
            merge[1].as_str().unwrap()
        ));
    }
    file
}

/// A `tokenizer.json` like the multilingual SigLIP's, without a character map, with `count` pieces and 100 sentinels.
pub fn mt5_like(random: &mut Random, count: usize) -> Value {
    let head = ["<pad>", "</s>", "<unk>"].map(String::from).into_iter();
    let head: Vec<String> = head
        .chain((0..256).map(|byte| format!("<0x{byte:02X}>")))
        .collect();
    let pieces = pieces(random, &head, count);
    let score = |number: usize, random: &mut Random| match number {
        number if number < head.len() => 0.0,
        // As 32-bit floats, which sentencepiece has; some are equal.
        number => f64::from(-2.0 - (number as f32 / 20.0).sqrt() - random.below(64) as f32 / 64.0),
    };
    let mut vocab = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        vocab.push(json!([piece, score(number, random)]));
    }
    vocab.extend(
        (0..100)
            .rev()
            .map(|i| json!([format!("▁<extra_id_{i}>"), 0.0])),
    );
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<pad>", true), added(1, "</s>", true), added(2, "<unk>", true)],
        "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true},
        "post_processor": null, "decoder": null,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false}
    })
}

/// `count` texts: made of the characters that pieces are made of, of rarer ones, of `tokens` and of spaces; an empty and an
/// over-long one.
pub fn texts(random: &mut Random, count: usize, tokens: &[&str]) -> Vec<String> {
    let mut texts = vec![String::new(), " ".to_string()];
    for length in [1000, 3000] {
        let script = random.below(SCRIPTS.len());
        let range = &SCRIPTS[script..=script];
        texts.push((0..length).map(|_| character(random, range)).collect());
        texts.push("ab c".repeat(length / 4));
    }
    let mut words: Vec<String> = Vec::new();
    while texts.len() < count {
        let mut text = String::new();
        for _ in 0..=random.below(9) {
            match random.below(12) {
                0..6 => {
                    if words.is_empty() || random.below(2) == 0 {
                        let script = random.below(SCRIPTS.len());
                        let range = &SCRIPTS[script..=script];
                        let length = 1 + random.below(9);
                        words.push((0..length).map(|_| character(random, range)).collect());
                    }
                    text.push_str(random.of::<String>(&words));
                }
                6..8 => text.push(' '),
                8 => text.push_str(
                    random.of::<&str>(&["  ", "▁", "▁▁", "\n", "\t", "\u{3000}", "\u{a0}"]),
                ),
                9..11 => text.push(character(random, RARE)),
                _ => text.push_str(random.of::<&str>(tokens)),
            }
        }
        texts.push(text);
    }
    texts
}
