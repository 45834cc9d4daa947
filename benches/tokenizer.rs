//! Tokenizers of the sizes that checkpoints have: how long they take to load, how much memory that needs at most beside the file,
//! and how long labels take; ours beside the `tokenizers` crate. Made-up ones with the structure of the real ones.
//!
//! `cargo bench --no-default-features --bench tokenizer`

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use serde_json::Value;
use siglip_web::tokenizer::Tokenizer;

#[path = "../tests/common/synthetic_tokenizer.rs"]
#[allow(dead_code)]
mod synthetic;

use synthetic::{Random, gemma_like, mt5_like, with_merges_as_text};

/// The system's allocator, which counts.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The result of `work`, its milliseconds, the MB held after it and at its peak, both beyond what was held before.
fn measured<T>(work: impl FnOnce() -> T) -> (T, f64, f64, f64) {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let start = Instant::now();
    let result = work();
    let time = 1e3 * start.elapsed().as_secs_f64();
    let beyond = |bytes: usize| bytes.saturating_sub(before) as f64 / 1e6;
    (
        result,
        time,
        beyond(HELD.load(Relaxed)),
        beyond(PEAK.load(Relaxed)),
    )
}

fn main() {
    let labels = [
        "a cat",
        "two dogs on a sofa",
        "a red bicycle in the rain",
        "eine Katze auf dem Fensterbrett",
        "猫の写真です",
        "고양이 사진",
        "кошка на окне",
        "a space shuttle taking off",
        "pizza with olives",
        "an old house near the river",
    ];
    let templates = [
        "This is a photo of {}.",
        "a blurry picture showing {} at night",
    ];
    let labels = labels.map(|label| templates.map(|template| template.replace("{}", label)));
    println!(
        "| tokenizer | encoder | pieces | json MB | load ms | held MB | peak MB | {} labels ms |\n|---|---|---|---|---|---|---|---|",
        labels.as_flattened().len()
    );
    let gemma = gemma_like(&mut Random(1), 256_000);
    let text = with_merges_as_text(gemma.clone());
    let mt5 = mt5_like(&mut Random(2), 250_000);
    for (name, file) in [
        ("Gemma-like, merges as pairs", gemma),
        ("Gemma-like, merges as text", text),
        ("mT5-like", mt5),
    ] {
        let pieces = match &file["model"]["vocab"] {
            Value::Object(pieces) => pieces.len(),
            pieces => pieces.as_array().unwrap().len(),
        };
        // As the Hub has it: indented.
        let json = serde_json::to_vec_pretty(&file).unwrap();
        drop(file);
        let mb = json.len() as f64 / 1e6;
        let load = || Tokenizer::new(&json, None, 64, 256_000).unwrap();
        let (ours, time, held, peak) = measured(load);
        let encode = || {
            labels
                .as_flattened()
                .iter()
                .map(|label| ours.encode(label).unwrap())
                .collect::<Vec<_>>()
        };
        let (_, text, ..) = measured(encode);
        println!(
            "| {name} | ours | {pieces} | {mb:.1} | {time:.0} | {held:.1} | {peak:.1} | {text:.2} |"
        );
        drop(ours);
        let load = || tokenizers::Tokenizer::from_bytes(&json).unwrap();
        let (theirs, time, held, peak) = measured(load);
        let encode = || {
            labels
                .as_flattened()
                .iter()
                .map(|label| theirs.encode_fast(label.as_str(), true).unwrap())
                .collect::<Vec<_>>()
        };
        let (_, text, ..) = measured(encode);
        println!(
            "| {name} | tokenizers | {pieces} | {mb:.1} | {time:.0} | {held:.1} | {peak:.1} | {text:.2} |"
        );
    }
}
