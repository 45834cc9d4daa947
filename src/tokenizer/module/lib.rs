//! The `tokenizers` crate for browsers: `www/lib/worker/tokenizers.js` fetches and starts it.

#[path = "../budget.rs"]
mod budget;
#[path = "../charsmap.rs"]
#[expect(dead_code, reason = "the crate's own encoder uses more of it")]
mod charsmap;
#[path = "../library.rs"]
mod library;

use wasm_bindgen::prelude::*;

/// The steps and the model of a `tokenizer.json`.
#[wasm_bindgen]
pub struct Pipeline(library::Library);

#[wasm_bindgen]
impl Pipeline {
    /// Takes the model from a `tokenizer.json` and all else from `steps`, JSON with the same keys.
    #[wasm_bindgen(constructor)]
    pub fn new(tokenizer_json: &[u8], steps: &str) -> Result<Pipeline, JsError> {
        let library = library::Library::new(tokenizer_json, steps);
        library.map(Self).map_err(|error| JsError::new(&error))
    }

    /// The ids of `text`.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, JsError> {
        self.0.ids(text).map_err(|error| JsError::new(&error))
    }
}
