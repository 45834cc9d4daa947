//! The crate's ports as JavaScript has them: a checkpoint's files, the store, the event loop, the GPU's pipelines.

use js_sys::{Float64Array, Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{MessageChannel, MessagePort};

use super::values::{bytes_of, from_js};
use crate::checkpoint::{Pace, Reader, Source, Store};
use crate::error::{Code, Error, Result};

#[wasm_bindgen]
extern "C" {
    /// Whether the caller has given up; polled between layers and files.
    pub type Cancel;
    #[wasm_bindgen(method, getter)]
    fn aborted(this: &Cancel) -> bool;

    /// The checkpoint's files, wherever they are.
    #[derive(Clone)]
    pub type JsSource;
    #[wasm_bindgen(method, catch, js_name = readAll)]
    async fn read_all(
        this: &JsSource,
        file: &str,
        limit: f64,
    ) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    async fn open(this: &JsSource, file: &str) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    async fn keep(this: &JsSource) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    async fn forget(this: &JsSource) -> std::result::Result<JsValue, JsValue>;

    /// A file being read by ranges.
    pub type JsReader;
    #[wasm_bindgen(method, getter)]
    fn size(this: &JsReader) -> Option<f64>;
    #[wasm_bindgen(method, getter)]
    fn ranges(this: &JsReader) -> bool;
    #[wasm_bindgen(method, getter)]
    fn sha256(this: &JsReader) -> Option<String>;
    #[wasm_bindgen(method, getter)]
    fn validator(this: &JsReader) -> Option<String>;
    /// `[offset, length, offset, length, …]`
    #[wasm_bindgen(method)]
    fn plan(this: &JsReader, reads: Float64Array);
    #[wasm_bindgen(method, catch, js_name = readAt)]
    async fn read_at(
        this: &JsReader,
        offset: f64,
        length: f64,
    ) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(method)]
    fn close(this: &JsReader);

    /// Where converted tensors are kept.
    #[derive(Clone)]
    pub type JsStore;
    #[wasm_bindgen(method, catch)]
    async fn get(this: &JsStore, key: &str) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    async fn put(
        this: &JsStore,
        key: &str,
        bytes: Uint8Array,
    ) -> std::result::Result<JsValue, JsValue>;
    /// Keeps nothing more, and says why.
    #[wasm_bindgen(method, js_name = giveUp)]
    fn give_up(this: &JsStore, problem: &str);
    #[wasm_bindgen(method, catch)]
    async fn commit(this: &JsStore, manifest: &str) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    async fn manifest(this: &JsStore) -> std::result::Result<JsValue, JsValue>;

    /// A new `Uint8Array`, unless there is no room for it.
    #[wasm_bindgen(extends = Uint8Array, js_name = Uint8Array)]
    type Zeros;
    #[wasm_bindgen(constructor, catch, js_class = "Uint8Array")]
    fn new(length: u32) -> std::result::Result<Zeros, JsValue>;

    /// Makes the GPU's pipelines before they are needed.
    pub type JsPipelines;
    /// Resolves when they are made, or can't be.
    #[wasm_bindgen(method)]
    pub fn prepare(this: &JsPipelines, device: &JsValue, texts: Vec<String>) -> Promise;
}

/// Lets the event loop run once, without the delay that timers have.
async fn let_events_in() {
    // Browsers that run this module at all have it.
    let channel = MessageChannel::new().expect("MessageChannel is part of the platform");
    let (inbox, outbox): (MessagePort, MessagePort) = (channel.port1(), channel.port2());
    let message = Promise::new(&mut |resolve, _| inbox.set_onmessage(Some(&resolve)));
    if outbox.post_message(&JsValue::NULL).is_ok() {
        // It resolves or nothing does; there is no rejection to handle.
        let _ = JsFuture::from(message).await;
    }
    inbox.close();
}

impl Pace for Cancel {
    async fn step(&self) -> Result<()> {
        let_events_in().await;
        match self.aborted() {
            true => Err(Error::new(Code::Aborted, "stopped as asked")),
            false => Ok(()),
        }
    }
}

impl Source for JsSource {
    type Reader = OpenFile;

    async fn read_all(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let bytes = self.read_all(file, limit as f64).await.map_err(from_js)?;
        match bytes.is_undefined() {
            true => Ok(None),
            false => bytes_of(&bytes).map(Some),
        }
    }

    async fn open(&self, file: &str) -> Result<Option<OpenFile>> {
        let reader = self.open(file).await.map_err(from_js)?;
        Ok((!reader.is_undefined()).then(|| OpenFile(reader.unchecked_into())))
    }

    async fn keep(&self) {
        // What can't be kept is fetched again next time.
        let _ = self.keep().await;
    }

    async fn forget(&self) -> bool {
        self.forget().await.is_ok_and(|any| any.is_truthy())
    }
}

/// Closes the file, and with it the download, when it is no longer needed.
pub struct OpenFile(JsReader);

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Reader for OpenFile {
    fn size(&self) -> Option<u64> {
        self.0.size().map(|size| size as u64)
    }

    fn random_access(&self) -> bool {
        self.0.ranges()
    }

    fn sha256(&self) -> Option<String> {
        self.0.sha256()
    }

    fn validator(&self) -> Option<String> {
        self.0.validator()
    }

    fn plan(&mut self, reads: &[(u64, u64)]) {
        let numbers: Vec<f64> = reads
            .iter()
            .flat_map(|(offset, length)| [*offset as f64, *length as f64])
            .collect();
        self.0.plan(Float64Array::from(numbers.as_slice()));
    }

    async fn read_at(&mut self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let bytes = self.0.read_at(offset as f64, length as f64).await;
        bytes_of(&bytes.map_err(from_js)?)
    }
}

/// A store of the page, or none. What goes wrong in it is its own business: the load goes on without.
#[derive(Clone)]
pub struct MaybeStore(pub Option<JsStore>);

impl Store for MaybeStore {
    fn keeps(&self) -> bool {
        self.0.is_some()
    }

    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let bytes = self.0.as_ref()?.get(key).await.ok()?;
        bytes_of(&bytes).ok()
    }

    async fn get_words(&self, key: &str) -> Option<Vec<u32>> {
        let bytes = self.0.as_ref()?.get(key).await.ok()?;
        let bytes = bytes.dyn_ref::<Uint8Array>()?;
        let length = bytes.length() as usize;
        if !length.is_multiple_of(4) {
            return None;
        }
        let mut words = vec![0; length / 4];
        bytes.copy_to(bytemuck::cast_slice_mut(&mut words));
        Some(words)
    }

    async fn put(&self, key: &str, bytes: &[u8]) {
        self.put_parts(key, &[bytes]).await;
    }

    async fn put_parts(&self, key: &str, parts: &[&[u8]]) {
        let Some(store) = &self.0 else { return };
        let length = parts.iter().map(|part| part.len() as u32).sum();
        let Ok(bytes) = Zeros::new(length) else {
            store.give_up("Memory ran out, so the model isn't kept");
            return;
        };
        let mut end = 0;
        for part in parts {
            let start = end;
            end += part.len() as u32;
            bytes.subarray(start, end).copy_from(part);
        }
        let _ = store.put(key, bytes.unchecked_into()).await;
    }

    async fn commit(&self, manifest: &str) {
        if let Some(store) = &self.0 {
            let _ = store.commit(manifest).await;
        }
    }

    async fn manifest(&self) -> Option<String> {
        self.0.as_ref()?.manifest().await.ok()?.as_string()
    }
}
