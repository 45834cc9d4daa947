//! The wasm module's own tests, in a browser's worker: the same parity as natively, on both devices.
#![cfg(target_family = "wasm")]

mod common;

use common::{FIXTURES, TINY};
use siglip_web::{Backend, device};
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_dedicated_worker);

#[wasm_bindgen_test]
async fn cpu_is_within_1e_4_of_transformers() {
    let device = device::start(Backend::Cpu).await.unwrap();
    for fixture in &FIXTURES {
        fixture.check_parity(&device, 1e-4).await;
        fixture.check_classify(&device, 1e-4).await;
    }
}

#[cfg(feature = "webgpu")]
#[wasm_bindgen_test]
async fn webgpu_is_within_1e_3_of_transformers() {
    let device = device::start(Backend::WebGpu).await.unwrap();
    for fixture in &FIXTURES {
        fixture.check_parity(&device, 1e-3).await;
        fixture.check_classify(&device, 1e-3).await;
    }
    // The device is started once per page and then shared.
    let again = device::start(Backend::WebGpu).await.unwrap();
    TINY.check_classify(&again, 1e-3).await;
}
