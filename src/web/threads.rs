//! The threads of the module that has some: the worker that holds the model, and web workers of its own.

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
