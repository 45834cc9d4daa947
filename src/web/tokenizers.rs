//! The `tokenizers` crate, which is a module of its own in browsers: `www/lib/worker/tokenizers.js` starts it.

use std::rc::Rc;

use js_sys::Error as JsError;
use wasm_bindgen::prelude::*;

use super::values::from_js;
use crate::tokenizer::general::{Opened, set_opener};

#[wasm_bindgen]
extern "C" {
    /// Starts the module.
    pub type JsTokenizers;
    #[wasm_bindgen(method, catch)]
    async fn start(this: &JsTokenizers) -> Result<JsTokenizerModule, JsValue>;

    pub type JsTokenizerModule;
    /// Throws what the crate says of the file.
    #[wasm_bindgen(method, catch)]
    fn open(this: &JsTokenizerModule, json: &[u8], steps: &str) -> Result<JsPipeline, JsValue>;

    pub type JsPipeline;
    /// Throws what the crate says.
    #[wasm_bindgen(method, catch)]
    fn ids(this: &JsPipeline, text: &str) -> Result<Vec<u32>, JsValue>;
    #[wasm_bindgen(method)]
    fn free(this: &JsPipeline);
}

/// Ends with the tokenizer that has it.
struct Owned(JsPipeline);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.free();
    }
}

/// Has each `tokenizer.json` that isn't of SigLIP's own form run by what `tokenizers` starts.
pub fn open_with(tokenizers: JsTokenizers) {
    let tokenizers = Rc::new(tokenizers);
    set_opener(move |json, steps| {
        let (tokenizers, json) = (tokenizers.clone(), json.to_vec());
        Box::pin(async move {
            let module = tokenizers.start().await.map_err(from_js)?;
            let pipeline = module.open(&json, &steps).map(Owned).map_err(said);
            Ok(pipeline.map(|pipeline| -> Opened {
                Box::new(move |text| pipeline.0.ids(text).map_err(said))
            }))
        })
    });
}

/// What the module said.
fn said(thrown: JsValue) -> String {
    match thrown.dyn_into::<JsError>() {
        Ok(error) => error.message().into(),
        Err(value) => format!("{value:?}"),
    }
}
