//! Every stage of the model against transformers, on each native device.
#![cfg(not(target_family = "wasm"))]

mod common;

use burn::tensor::Device;
use common::FIXTURES;
use siglip_web::{Backend, device};

fn check(device: &Device, tolerance: f32) {
    pollster::block_on(async {
        for fixture in &FIXTURES {
            fixture.check_parity(device, tolerance).await;
            fixture.check_classify(device, tolerance).await;
        }
    });
}

#[test]
fn cpu_is_within_1e_4_of_transformers() {
    check(&device::open(Backend::Cpu).unwrap(), 1e-4);
}

/// Needs a Vulkan driver; Debian's mesa-vulkan-drivers has one that runs on the CPU.
#[cfg(feature = "webgpu")]
#[test]
fn gpu_is_within_1e_3_of_transformers() {
    check(&device::open(Backend::WebGpu).unwrap(), 1e-3);
}
