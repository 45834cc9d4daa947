//! `tokenizer.json` as anyone may write it: an error, or a tokenizer whose ids are of the right number and range.
//!
//! From the folder of the crate, with a nightly toolchain or `RUSTC_BOOTSTRAP=1`; the last folder holds the first inputs:
//!
//! ```sh
//! mkdir -p tests/fuzz/corpus/tokenizer
//! cargo fuzz run --fuzz-dir tests/fuzz tokenizer tests/fuzz/corpus/tokenizer tests/fixtures/tokenizer/siglip2 -- -max_len=40000
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use siglip_web::tokenizer::Tokenizer;

const LABELS: [&str; 5] = [
    "",
    "a photo of 2 cats",
    "e\u{301}\u{323} ½ 日本 ﷺ \u{200b}</s> <eos> \n\n ▁▁ x",
    "aaaaaaaaaaaaaaaa b  c",
    "\u{301}\u{10ffff}\t",
];
const VOCABULARY: usize = 2000;

fuzz_target!(|json: &[u8]| {
    for context_length in [1, 16] {
        let Ok(tokenizer) = Tokenizer::new(json, None, context_length, VOCABULARY) else {
            continue;
        };
        for label in LABELS {
            let ids = tokenizer.encode(label);
            if let Ok(ids) = &ids {
                assert_eq!(ids.len(), context_length);
                assert!(ids.iter().all(|&id| (id as usize) < VOCABULARY));
            }
        }
    }
});
