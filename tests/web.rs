//! The wasm module's own tests, in a browser's worker: the same parity as natively, on both devices.
#![cfg(target_family = "wasm")]

mod common;

use common::{FIXTURES, TINY};
#[cfg(feature = "webgpu")]
use siglip_web::device::fault;
#[cfg(feature = "webgpu")]
use siglip_web::kernels::{Form, check::check, set_form};
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
    // The form for other adapters than this one, as this browser's shader compiler takes it too.
    set_form(Form::Tiles);
    check(&again).await.unwrap();
    fault(&again).unwrap();
    for fixture in &FIXTURES {
        fixture.check_parity(&again, 1e-3).await;
    }
    set_form(Form::Registers);
}
