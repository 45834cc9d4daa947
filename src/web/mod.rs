//! Everything that JavaScript sees of this crate, and nothing else sees of JavaScript.
//!
//! `www/lib/worker/host.js` is the one caller: it checks arguments for their types, reads files and decides on the backend; here
//! objects of the two worlds are turned into each other.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{
    Array, Error as JsError, Float32Array, Float64Array, Function, Object, Promise, Reflect,
    Uint8Array,
};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::checkpoint::{LoadOptions, Pace, Progress, Reader, Source, Store};
use crate::classifier::{ClassifyOptions, Embedding, LabelScore, Picture, Scores};
use crate::device::{self, Backend};
use crate::error::{Code, Error, Result};
use crate::kernels::Dtype;

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
    #[wasm_bindgen(method, catch)]
    async fn commit(this: &JsStore, manifest: &str) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    async fn manifest(this: &JsStore) -> std::result::Result<JsValue, JsValue>;

    /// Makes the GPU's pipelines before they are needed.
    pub type JsPipelines;
    #[wasm_bindgen(method)]
    fn prepare(this: &JsPipelines, device: &JsValue, texts: Vec<String>) -> Promise;

    type MessageChannel;
    #[wasm_bindgen(constructor)]
    fn new() -> MessageChannel;
    #[wasm_bindgen(method, getter)]
    fn port1(this: &MessageChannel) -> MessagePort;
    #[wasm_bindgen(method, getter)]
    fn port2(this: &MessageChannel) -> MessagePort;
    type MessagePort;
    #[wasm_bindgen(method, setter)]
    fn set_onmessage(this: &MessagePort, handler: &Function);
    #[wasm_bindgen(method, js_name = postMessage)]
    fn post_message(this: &MessagePort, message: &JsValue);
    #[wasm_bindgen(method)]
    fn close(this: &MessagePort);
}

/// Lets the event loop run once, without the delay that timers have.
async fn let_events_in() {
    let channel = MessageChannel::new();
    let port = channel.port2();
    let message = Promise::new(&mut |resolve, _| channel.port1().set_onmessage(&resolve));
    port.post_message(&JsValue::NULL);
    // It resolves or nothing does; there is no rejection to handle.
    let _ = JsFuture::from(message).await;
    channel.port1().close();
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
        Ok((!bytes.is_undefined()).then(|| bytes_of(&bytes)))
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
        Ok(bytes_of(&bytes.map_err(from_js)?))
    }
}

/// A store of the page, or none. What goes wrong in it is its own business: the load goes on without.
#[derive(Clone)]
struct MaybeStore(Option<JsStore>);

impl Store for MaybeStore {
    fn keeps(&self) -> bool {
        self.0.is_some()
    }

    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let bytes = self.0.as_ref()?.get(key).await.ok()?;
        (!bytes.is_undefined()).then(|| bytes_of(&bytes))
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
        if let Some(store) = &self.0 {
            let _ = store.put(key, Uint8Array::from(bytes)).await;
        }
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

/// A `SiglipError` as JavaScript throws it: an `Error` with a `code`.
fn to_js(error: Error) -> JsValue {
    let object = JsError::new(error.message());
    object.set_name("SiglipError");
    set(&object, "code", &error.code().as_str().into());
    object.into()
}

/// An error that the JavaScript side threw to us: ours keep their code, others come from reading files.
fn from_js(value: JsValue) -> Error {
    let text = |key: &str| get(&value, key).as_string();
    let code = match text("code").as_deref() {
        Some("aborted") => Code::Aborted,
        Some("bad-input") => Code::BadInput,
        Some("bad-model") => Code::BadModel,
        Some("unsupported") => Code::Unsupported,
        Some("out-of-memory") => Code::OutOfMemory,
        _ => Code::Network,
    };
    Error::new(
        code,
        text("message").unwrap_or_else(|| format!("{value:?}")),
    )
}

fn get(object: &JsValue, key: &str) -> JsValue {
    Reflect::get(object, &key.into()).unwrap_or(JsValue::UNDEFINED)
}

fn set(object: &JsValue, key: &str, value: &JsValue) {
    // Only fails on frozen objects, and these are our own.
    let _ = Reflect::set(object, &key.into(), value);
}

fn object<const N: usize>(entries: [(&str, JsValue); N]) -> JsValue {
    let object = Object::new();
    for (key, value) in entries {
        set(&object, key, &value);
    }
    object.into()
}

/// The bytes of a `Uint8Array` or `Uint8ClampedArray`, copied once, into wasm memory.
fn bytes_of(array: &JsValue) -> Vec<u8> {
    match array.dyn_ref::<Uint8Array>() {
        Some(bytes) => bytes.to_vec(),
        None => {
            let part = |key| get(array, key);
            let number = |key| part(key).as_f64().unwrap_or(0.0) as u32;
            Uint8Array::new_with_byte_offset_and_length(
                &part("buffer"),
                number("byteOffset"),
                number("byteLength"),
            )
            .to_vec()
        }
    }
}

/// A picture that JavaScript handed over, copied into wasm memory.
enum Input {
    Encoded(Vec<u8>),
    Rgba(u32, u32, Vec<u8>),
}

impl Input {
    fn from_js(image: &JsValue) -> Self {
        let bytes = get(image, "bytes");
        if !bytes.is_undefined() {
            return Self::Encoded(bytes_of(&bytes));
        }
        let side = |key| get(image, key).as_f64().unwrap_or(0.0) as u32;
        Self::Rgba(side("width"), side("height"), bytes_of(&get(image, "rgba")))
    }

    fn picture(&self) -> Picture<'_> {
        match self {
            Self::Encoded(bytes) => Picture::Encoded(bytes),
            Self::Rgba(width, height, pixels) => Picture::Rgba {
                width: *width,
                height: *height,
                pixels,
            },
        }
    }
}

fn options_from_js(options: &JsValue) -> Result<ClassifyOptions> {
    let mut result = ClassifyOptions::default();
    let template = get(options, "template");
    if let Some(one) = template.as_string() {
        result.templates = vec![one];
    } else if Array::is_array(&template) {
        result.templates = Array::from(&template)
            .iter()
            .map(|t| {
                t.as_string()
                    .ok_or_else(|| Error::bad_input("a template is not a string"))
            })
            .collect::<Result<_>>()?;
    }
    let scores = get(options, "scores");
    if !scores.is_undefined() {
        result.scores = match scores.as_string().as_deref() {
            Some("sigmoid") => Scores::Sigmoid,
            Some("softmax") => Scores::Softmax,
            _ => {
                return Err(Error::bad_input(
                    "scores is neither \"sigmoid\" nor \"softmax\"",
                ));
            }
        };
    }
    result.top_k = get(options, "topK").as_f64().map(|k| k as usize);
    Ok(result)
}

fn score_to_js(result: &LabelScore) -> JsValue {
    object([
        ("label", result.label.as_str().into()),
        ("score", result.score.into()),
        ("logit", result.logit.into()),
    ])
}

/// The threads of the module that has some: the worker that holds the model, and web workers of its own.
#[cfg(target_feature = "atomics")]
mod threads {
    use std::sync::Mutex;

    use rayon::{ThreadBuilder, ThreadPoolBuilder};
    use wasm_bindgen::prelude::*;

    /// Threads that no web worker runs yet.
    static WAITING: Mutex<Vec<ThreadBuilder>> = Mutex::new(Vec::new());

    /// Shares the kernels' work between the calling thread and `others` more, each of which must call [`run`].
    #[wasm_bindgen(js_name = startThreads)]
    pub fn start(others: usize) -> Result<(), JsError> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(others + 1)
            .use_current_thread()
            .spawn_handler(|thread| {
                WAITING.lock().expect("nothing panics here").push(thread);
                Ok(())
            })
            .build()?;
        // It lives as long as the module.
        std::mem::forget(pool);
        Ok(())
    }

    /// Works for the others until the worker ends.
    #[wasm_bindgen(js_name = runThread)]
    pub fn run() {
        let thread = WAITING.lock().expect("nothing panics here").pop();
        if let Some(thread) = thread {
            thread.run();
        }
    }
}

#[wasm_bindgen(start)]
fn start() {
    // A panic is a bug of ours; without this the console would only say "unreachable".
    console_error_panic_hook::set_once();
}

/// Has the GPU's pipelines made by `pipelines`.
fn prepare_with(pipelines: JsPipelines) {
    #[cfg(feature = "webgpu")]
    crate::kernels::ahead::set_compiler(Rc::new(move |texts| {
        let device = device::handle();
        let device = device.as_ref().and_then(|device| device.as_webgpu());
        let begun = device.map(|device| JsFuture::from(pipelines.prepare(device.as_ref(), texts)));
        Box::pin(async {
            if let Some(begun) = begun {
                // What could not be made is made by the runtime, which reports what is wrong with it.
                let _ = begun.await;
            }
        })
    }));
    #[cfg(not(feature = "webgpu"))]
    drop(pipelines);
}

/// A loaded model. One call at a time: `www/lib/worker/host.js` queues them.
#[wasm_bindgen]
pub struct Engine {
    classifier: Rc<RefCell<Option<crate::Classifier>>>,
    info: JsValue,
}

/// The classifier while a call uses it; it goes back when the call ends, unless it was disposed of meanwhile.
struct Borrowed {
    home: Rc<RefCell<Option<crate::Classifier>>>,
    classifier: Option<crate::Classifier>,
}

impl Borrowed {
    fn get(&mut self) -> &mut crate::Classifier {
        self.classifier.as_mut().expect("present until dropped")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // The Engine holds the other reference; without it the classifier is freed here.
        if Rc::strong_count(&self.home) > 1 {
            *self.home.borrow_mut() = self.classifier.take();
        }
    }
}

#[wasm_bindgen]
impl Engine {
    /// Starts the device, checks it and loads the checkpoint that `source` holds.
    ///
    /// `store` keeps converted tensors, or is undefined; `pipelines` makes the GPU's. `options` has `backend`, `backendReason`,
    /// `adapter`, `dtype`, `wholeTable` and `name`; `progress` is called with stage, file, loaded, total and whether what came last was
    /// in the store.
    pub async fn load(
        source: JsSource,
        store: JsValue,
        options: JsValue,
        pipelines: JsPipelines,
        progress: Function,
        cancel: Cancel,
    ) -> std::result::Result<Engine, JsValue> {
        prepare_with(pipelines);
        Self::try_load(source, store, options, progress, cancel)
            .await
            .map_err(to_js)
    }

    async fn try_load(
        source: JsSource,
        store: JsValue,
        options: JsValue,
        progress: Function,
        cancel: Cancel,
    ) -> Result<Engine> {
        let text = |key: &str| get(&options, key).as_string().unwrap_or_default();
        let backend = match text("backend").as_str() {
            "webgpu" => Backend::WebGpu,
            _ => Backend::Cpu,
        };
        let dtype = match text("dtype").as_str() {
            "" | "auto" => None,
            word => Some(Dtype::from_word(word).ok_or_else(|| {
                Error::bad_input(format!(
                    "dtype {word:?} is none of \"auto\", \"f32\", \"f16\", \"q8\" and \"q4\""
                ))
            })?),
        };
        let load_options = LoadOptions {
            dtype,
            whole_table: get(&options, "wholeTable").is_truthy(),
        };
        let store = MaybeStore((!store.is_undefined()).then(|| store.unchecked_into()));
        let device = device::start(backend).await?;
        cancel.step().await?;
        let mut report = |step: Progress| {
            let arguments = Array::of5(
                &step.stage.as_str().into(),
                &step.file.map_or(JsValue::UNDEFINED, Into::into),
                &(step.loaded as f64).into(),
                &(step.total as f64).into(),
                &step.from_store.into(),
            );
            // What the page's listener throws is the page's.
            let _ = progress.apply(&JsValue::UNDEFINED, &arguments);
        };
        let classifier = crate::Classifier::load_stored(
            &source,
            store,
            &load_options,
            &device,
            &cancel,
            &mut report,
        )
        .await?;
        let (config, checkpoint) = (classifier.config(), classifier.checkpoint());
        let number = |value: usize| JsValue::from(value as f64);
        let info = object([
            ("name", text("name").into()),
            ("backend", backend.as_str().into()),
            ("backendReason", text("backendReason").into()),
            ("adapter", text("adapter").into()),
            ("dtype", checkpoint.dtype.as_str().into()),
            ("imageSize", number(config.vision.image_size)),
            ("patchSize", number(config.vision.patch_size)),
            ("embeddingSize", number(config.vision.encoder.hidden_size)),
            ("contextLength", number(config.text.max_position_embeddings)),
            ("parameters", number(checkpoint.parameters)),
            ("logitScale", classifier.logit_scale().into()),
            ("logitBias", classifier.logit_bias().into()),
            ("bytes", number(checkpoint.bytes)),
        ]);
        if let Some((fixed, _)) = &checkpoint.labels {
            let labels = fixed
                .labels
                .iter()
                .map(|label| JsValue::from(label.as_str()));
            set(&info, "labels", &labels.collect::<Array>());
        }
        Ok(Engine {
            classifier: Rc::new(RefCell::new(Some(classifier))),
            info,
        })
    }

    fn borrow(&self) -> Result<Borrowed> {
        let classifier = self.classifier.borrow_mut().take();
        match classifier {
            Some(classifier) => Ok(Borrowed {
                home: self.classifier.clone(),
                classifier: Some(classifier),
            }),
            None => Err(Error::new(
                Code::Disposed,
                "the classifier was disposed of; load the model again",
            )),
        }
    }

    /// The `ModelInfo` of the JavaScript API.
    #[wasm_bindgen(getter)]
    pub fn info(&self) -> JsValue {
        self.info.clone()
    }

    /// `{imageRuns, textRuns}`: how often each tower ran.
    #[wasm_bindgen(getter)]
    pub fn stats(&self) -> JsValue {
        let (images, texts) = self
            .classifier
            .borrow()
            .as_ref()
            .map_or((0, 0), crate::Classifier::runs);
        object([
            ("imageRuns", (images as f64).into()),
            ("textRuns", (texts as f64).into()),
        ])
    }

    /// A picture (`{bytes}` or `{rgba, width, height}`) and labels to an array of `{label, score, logit}`.
    pub fn classify(
        &self,
        image: JsValue,
        labels: Vec<String>,
        options: JsValue,
        cancel: Cancel,
    ) -> Promise {
        let borrowed = self.borrow();
        promise(async move {
            let mut borrowed = borrowed?;
            let options = options_from_js(&options)?;
            let input = Input::from_js(&image);
            let results = borrowed
                .get()
                .classify_with(input.picture(), &labels, &options, &cancel)
                .await?;
            Ok(results.iter().map(score_to_js).collect::<Array>().into())
        })
    }

    /// A picture to its embedding, a `Float32Array`.
    #[wasm_bindgen(js_name = embedImage)]
    pub fn embed_image(&self, image: JsValue, cancel: Cancel) -> Promise {
        let borrowed = self.borrow();
        promise(async move {
            let mut borrowed = borrowed?;
            let input = Input::from_js(&image);
            let embedding = borrowed
                .get()
                .embed_image_with(input.picture(), &cancel)
                .await?;
            Ok(Float32Array::from(embedding.as_slice()).into())
        })
    }

    /// An array of pictures to their embeddings, an array of `Float32Array`.
    #[wasm_bindgen(js_name = embedImages)]
    pub fn embed_images(&self, images: Array, cancel: Cancel) -> Promise {
        let borrowed = self.borrow();
        promise(async move {
            let mut borrowed = borrowed?;
            let inputs: Vec<Input> = images.iter().map(|image| Input::from_js(&image)).collect();
            let pictures: Vec<Picture> = inputs.iter().map(Input::picture).collect();
            let embeddings = borrowed.get().embed_images_with(&pictures, &cancel).await?;
            Ok(embeddings_to_js(&embeddings))
        })
    }

    /// Texts to their embeddings, an array of `Float32Array`.
    #[wasm_bindgen(js_name = embedText)]
    pub fn embed_text(&self, texts: Vec<String>, cancel: Cancel) -> Promise {
        let borrowed = self.borrow();
        promise(async move {
            let mut borrowed = borrowed?;
            let embeddings = borrowed.get().embed_text_with(&texts, &cancel).await?;
            Ok(embeddings_to_js(&embeddings))
        })
    }

    /// Frees the model; a running call ends first, later ones fail with `disposed`.
    pub fn dispose(&mut self) {
        self.classifier = Rc::new(RefCell::new(None));
    }
}

fn embeddings_to_js(embeddings: &[Embedding]) -> JsValue {
    let arrays = embeddings
        .iter()
        .map(|e| JsValue::from(Float32Array::from(e.as_slice())));
    arrays.collect::<Array>().into()
}

fn promise(work: impl Future<Output = Result<JsValue>> + 'static) -> Promise {
    wasm_bindgen_futures::future_to_promise(async move { work.await.map_err(to_js) })
}
