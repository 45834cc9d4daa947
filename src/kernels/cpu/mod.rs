//! The CPU forms: a matrix product with everything that follows it in one pass over the result.
//!
//! The browser has our own product on 128-bit SIMD (`browser`), native programs burn-flex's, whose vectors are wider (`native`).
//! Both are compiled for native tests.

#[cfg(any(target_family = "wasm", test))]
mod attention;
#[cfg(target_family = "wasm")]
mod browser;
#[cfg(any(
    all(test, not(target_family = "wasm")),
    target_feature = "relaxed-simd"
))]
mod bytes;
#[cfg(any(target_family = "wasm", test))]
mod epilogue;
mod functions;
#[cfg(all(feature = "train", not(target_family = "wasm")))]
mod gradients;
#[cfg(any(target_family = "wasm", test))]
mod halves;
// Natively only a part of it is called.
#[cfg_attr(not(any(target_family = "wasm", test)), allow(dead_code))]
mod lanes;
#[cfg(any(target_family = "wasm", test))]
mod memory;
#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(any(target_family = "wasm", test))]
mod packed_rows;
#[cfg(any(target_family = "wasm", test))]
mod panel;
#[cfg(any(target_family = "wasm", test))]
mod parallel;
#[cfg(any(target_family = "wasm", test))]
mod product;
#[cfg(any(target_family = "wasm", test))]
mod strassen;

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;

#[cfg(target_family = "wasm")]
use browser as form;
#[cfg(all(target_family = "wasm", not(feature = "webgpu")))]
pub use browser::warm_up;
pub(super) use functions::halves_to_f32;
#[cfg(not(target_family = "wasm"))]
use native as form;

use super::backend::Kernels;
use super::{Epilogue, Matrix};

#[cfg(all(feature = "train", target_family = "wasm"))]
impl super::gradients::Derivatives for Flex {}

impl Kernels for Flex {
    fn siglip_linear(
        x: FloatTensor<Self>,
        weight: Matrix<Self>,
        bias: FloatTensor<Self>,
        epilogue: Epilogue<Self>,
    ) -> FloatTensor<Self> {
        form::linear(x, weight, bias, epilogue)
    }

    fn siglip_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self> {
        form::attention(query, key, value, heads)
    }

    fn siglip_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        form::layer_norm(x, gamma, beta, epsilon)
    }
}

/// What products with packed weights are tested against.
#[cfg(all(test, not(target_family = "wasm")))]
mod definition {
    use crate::kernels::PackedMatrix;

    /// Rows, input and outputs that no tile, panel or segment divides.
    pub const SHAPES: [(usize, usize, usize); 7] = [
        (1, 4, 1),
        (3, 36, 13),
        (4, 2080, 24),
        (7, 64, 12),
        (5, 37, 7),
        (2, 3, 5),
        (259, 32, 25),
    ];

    /// Numbers for a product of such a shape, `[rows, input]` mostly on one side of zero and `[outputs, input]`.
    pub fn operands(rows: usize, input: usize, outputs: usize) -> [Vec<f32>; 2] {
        let number = |i: usize| ((i * 7919) % 1009) as f32 / 504.5 - 1.0;
        [
            (0..rows * input).map(|i| number(i) * 3.0 + 2.0).collect(),
            (0..outputs * input).map(|i| number(i + 31)).collect(),
        ]
    }

    /// The largest error of `x · weightᵀ` in units of a number's typical contribution.
    pub fn error(x: &[f32], weight: &PackedMatrix, y: impl Iterator<Item = f64>) -> f64 {
        let (input, count) = (weight.input(), weight.rows());
        let values = weight.unpack();
        let mut worst = 0.0_f64;
        for (i, y) in y.enumerate() {
            let x = &x[i / count * input..][..input];
            let weight = &values[i % count * input..][..input];
            let products = x.iter().zip(weight);
            let expected: f64 = products.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            worst = worst.max((y - expected).abs());
        }
        worst / (input as f64).sqrt()
    }
}

/// A contiguous tensor of these values.
fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FloatTensor<Flex> {
    Flex::float_from_data(TensorData::new(values, shape), &Default::default())
}
