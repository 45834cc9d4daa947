//! Everything that JavaScript sees of this crate, and nothing else sees of JavaScript.
//!
//! `www/lib/worker/host.js` is the one caller: it reads files, decides on the backend and queues calls. `ports` are what it hands
//! over to be called back, `values` the plain values of both worlds.

mod ports;
mod search;
#[cfg(target_feature = "atomics")]
mod threads;
mod tokenizers;
mod values;

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Array, Function, Promise};
use wasm_bindgen::prelude::*;
#[cfg(feature = "webgpu")]
use wasm_bindgen_futures::JsFuture;

use ports::MaybeStore;
pub use ports::{Cancel, JsPipelines, JsSource, JsStore};
pub use search::{Search, line_sum, shrink, sound_lines};
use tokenizers::{JsTokenizers, open_with};
use values::{
    ClassifyRequest, GivenLabels, Input, Inputs, LoadRequest, ModelInfo, Stats, embedding_to_js,
    embeddings_to_js, heat_map_to_js, label_set_to_js, read, to_js, write,
};

use crate::Classifier;
use crate::checkpoint::{LoadOptions, Pace, Progress};
use crate::classifier::{CallProgress, ClassifyOptions};
use crate::device;
use crate::error::{Code, Error, Result};
use crate::kernels::Dtype;
use crate::preprocess;

#[wasm_bindgen(start)]
fn start() {
    // A panic is a bug of ours; without this the console would only say "unreachable".
    console_error_panic_hook::set_once();
}

/// Has the GPU's pipelines made by `pipelines`.
fn prepare_with(pipelines: JsPipelines) {
    #[cfg(feature = "webgpu")]
    crate::kernels::pipelines::set_compiler(Rc::new(move |texts| {
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
    classifier: Rc<RefCell<Option<Classifier>>>,
    info: JsValue,
}

/// The classifier while a call uses it; it goes back when the call ends, unless it was disposed of meanwhile.
struct Borrowed {
    home: Rc<RefCell<Option<Classifier>>>,
    classifier: Option<Classifier>,
}

impl Borrowed {
    fn get(&mut self) -> &mut Classifier {
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
    /// `store` keeps converted tensors, or is undefined; `pipelines` makes the GPU's; `tokenizers` starts the module for tokenizers of any
    /// form. `request` is a `LoadRequest`; `progress` is called with stage, file, loaded, total and whether what came last was in the store.
    pub async fn load(
        source: JsSource,
        store: Option<JsStore>,
        request: JsValue,
        pipelines: JsPipelines,
        tokenizers: JsTokenizers,
        progress: Function,
        cancel: Cancel,
    ) -> std::result::Result<Engine, JsValue> {
        prepare_with(pipelines);
        open_with(tokenizers);
        Self::try_load(source, MaybeStore(store), request, progress, cancel)
            .await
            .map_err(to_js)
    }

    async fn try_load(
        source: JsSource,
        store: MaybeStore,
        request: JsValue,
        progress: Function,
        cancel: Cancel,
    ) -> Result<Engine> {
        let request: LoadRequest = read("the load request", request)?;
        let dtype = match request.dtype.as_str() {
            "auto" => None,
            word => Some(Dtype::from_word(word).ok_or_else(|| {
                Error::bad_input(format!(
                    "dtype {word:?} is none of \"auto\", \"f32\", \"f16\", \"q8\" and \"q4\""
                ))
            })?),
        };
        let options = LoadOptions {
            dtype,
            whole_table: request.whole_table,
            max_patches: request.max_patches,
        };
        let device = device::start(request.backend).await?;
        cancel.step().await?;
        let mut told = |step: Progress| {
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
        let classifier =
            Classifier::load_async(&source, store, &options, &device, &cancel, &mut told).await?;
        let (config, checkpoint) = (classifier.config(), classifier.checkpoint());
        let info = write(&ModelInfo {
            name: request.name,
            backend: request.backend,
            backend_reason: request.backend_reason,
            adapter: request.adapter,
            dtype: checkpoint.dtype.as_str(),
            image_size: config.vision.image_size,
            patch_size: config.vision.patch_size,
            naflex: config.vision.naflex,
            max_patches: match checkpoint.preprocessor.input() {
                preprocess::Input::Patches { max, .. } => max,
                preprocess::Input::Fixed { .. } => config.vision.num_patches(),
            },
            task: match config.classifier {
                None => "zero-shot-image-classification",
                Some(_) => "image-classification",
            },
            scores: classifier.scores(),
            embedding_size: match config.classifier {
                None => config.vision.encoder.hidden_size,
                Some(_) => 0,
            },
            context_length: match config.classifier {
                None => config.text.max_position_embeddings,
                Some(_) => 0,
            },
            parameters: checkpoint.parameters,
            resample: checkpoint.preprocessor.resample(),
            logit_scale: classifier.logit_scale(),
            logit_bias: classifier.logit_bias(),
            bytes: checkpoint.bytes,
            fingerprint: classifier.fingerprint().to_owned(),
            unused: checkpoint.unused.clone(),
            labels: classifier.labels().map(<[String]>::to_vec),
        })?;
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
    pub fn stats(&self) -> std::result::Result<JsValue, JsValue> {
        let classifier = self.classifier.borrow();
        let (image_runs, text_runs) = classifier.as_ref().map_or((0, 0), Classifier::runs);
        write(&Stats {
            image_runs,
            text_runs,
        })
        .map_err(to_js)
    }

    /// A picture (`{bytes}` or `{rgba, width, height}`) and labels (texts, the parts of a `LabelSet`, or undefined for the model's own) to an array of `{label, score,
    /// logit}`. `progress` is called with stage, loaded and total.
    pub fn classify(
        &self,
        image: JsValue,
        labels: JsValue,
        options: JsValue,
        progress: Function,
        cancel: Cancel,
    ) -> Promise {
        self.run(async move |classifier| {
            let options: ClassifyRequest = read("options", options)?;
            let (labels, input) = (GivenLabels::from_js(labels)?, Input::from_js(&image)?);
            let results = classifier
                .classify_async(
                    input.picture(),
                    labels.get(),
                    &options.into(),
                    &cancel,
                    &mut report(&progress),
                )
                .await?;
            write(&results)
        })
    }

    /// [`classify`](Self::classify) for an array of pictures, to an array of such arrays.
    #[wasm_bindgen(js_name = classifyImages)]
    pub fn classify_images(
        &self,
        images: Array,
        labels: JsValue,
        options: JsValue,
        progress: Function,
        cancel: Cancel,
    ) -> Promise {
        self.run(async move |classifier| {
            let options: ClassifyRequest = read("options", options)?;
            let (labels, inputs) = (GivenLabels::from_js(labels)?, Inputs::from_js(&images)?);
            let results = classifier
                .classify_images_async(
                    &inputs.pictures(),
                    labels.get(),
                    &options.into(),
                    &cancel,
                    &mut report(&progress),
                )
                .await?;
            write(&results)
        })
    }

    /// What moved a label's logit for a picture: `{rows, columns, values}`.
    pub fn explain(
        &self,
        image: JsValue,
        label: String,
        options: JsValue,
        _progress: Function,
        cancel: Cancel,
    ) -> Promise {
        self.run(async move |classifier| {
            let options: ClassifyRequest = read("options", options)?;
            let input = Input::from_js(&image)?;
            let templates = ClassifyOptions::from(options).templates;
            let map = classifier
                .explain_async(input.picture(), &label, &templates, &cancel)
                .await?;
            heat_map_to_js(&map)
        })
    }

    /// A picture to its embedding, a `Float32Array`.
    #[wasm_bindgen(js_name = embedImage)]
    pub fn embed_image(&self, image: JsValue, _progress: Function, cancel: Cancel) -> Promise {
        self.run(async move |classifier| {
            let input = Input::from_js(&image)?;
            let embedding = classifier
                .embed_image_async(input.picture(), &cancel)
                .await?;
            Ok(embedding_to_js(&embedding))
        })
    }

    /// An array of pictures to their embeddings, an array of `Float32Array`.
    #[wasm_bindgen(js_name = embedImages)]
    pub fn embed_images(&self, images: Array, _progress: Function, cancel: Cancel) -> Promise {
        self.run(async move |classifier| {
            let inputs = Inputs::from_js(&images)?;
            let embeddings = classifier
                .embed_images_async(&inputs.pictures(), &cancel)
                .await?;
            Ok(embeddings_to_js(&embeddings))
        })
    }

    /// Labels to the parts of a `LabelSet`. `options` has the templates.
    #[wasm_bindgen(js_name = embedLabels)]
    pub fn embed_labels(
        &self,
        labels: JsValue,
        options: JsValue,
        progress: Function,
        cancel: Cancel,
    ) -> Promise {
        self.run(async move |classifier| {
            let labels: Vec<String> = read("labels", labels)?;
            let options: ClassifyRequest = read("options", options)?;
            let templates = ClassifyOptions::from(options).templates;
            let set = classifier
                .embed_labels_async(&labels, &templates, &cancel, &mut report(&progress))
                .await?;
            label_set_to_js(&set)
        })
    }

    /// Texts to their embeddings, an array of `Float32Array`.
    #[wasm_bindgen(js_name = embedText)]
    pub fn embed_text(&self, texts: Vec<String>, _progress: Function, cancel: Cancel) -> Promise {
        self.run(async move |classifier| {
            let embeddings = classifier.embed_text_async(&texts, &cancel).await?;
            Ok(embeddings_to_js(&embeddings))
        })
    }

    /// Frees the model; a running call ends first, later ones fail with `disposed`.
    pub fn dispose(&mut self) {
        self.classifier = Rc::new(RefCell::new(None));
    }
}

/// Tells `progress` how far a call has come.
fn report(progress: &Function) -> impl FnMut(CallProgress) {
    |step| {
        let numbers = (step.done as f64, step.total as f64);
        // What the page's listener throws is the page's.
        let _ = progress.call3(
            &JsValue::UNDEFINED,
            &step.stage.as_str().into(),
            &numbers.0.into(),
            &numbers.1.into(),
        );
    }
}

impl Engine {
    /// A call as a promise of JavaScript.
    fn run(&self, work: impl AsyncFnOnce(&mut Classifier) -> Result<JsValue> + 'static) -> Promise {
        let borrowed = self.borrow();
        wasm_bindgen_futures::future_to_promise(async move {
            let mut borrowed = borrowed.map_err(to_js)?;
            work(borrowed.get()).await.map_err(to_js)
        })
    }
}
