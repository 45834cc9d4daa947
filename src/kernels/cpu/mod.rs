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
#[cfg(any(target_family = "wasm", test))]
mod laid_out;
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
#[cfg(target_family = "wasm")]
pub use laid_out::LaidOut;
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
    use super::epilogue::{self, EpilogueRef, LayerOutput};
    use super::panel::MatrixView;
    use crate::kernels::{Dtype, Numbers, PackedMatrix};

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

    /// `x · weightᵀ` by a product that is tested.
    pub fn outputs(
        linear: impl Fn(MatrixView, &[u32], Dtype, &mut LayerOutput),
        x: &[f32],
        weight: &PackedMatrix,
    ) -> Vec<f32> {
        let x = MatrixView::of(x, weight.input());
        let bias = vec![0.0; weight.rows()];
        epilogue::output(x.rows, &bias, EpilogueRef::None, |y| {
            linear(x, weight.words(), weight.dtype(), y);
        })
    }

    /// Random products: `x`, whose numbers are about `middle` times a size, the weight, and the size. The first ones have these inputs.
    pub fn random_products(
        seed: u32,
        count: usize,
        dtypes: &[Dtype],
        inputs: &[usize],
        middle: f32,
    ) -> impl Iterator<Item = (Vec<f32>, PackedMatrix, f32)> {
        let mut numbers = Numbers(seed);
        (0..count).map(move |case| {
            let dtype = numbers.one_of(dtypes);
            let rows = numbers.within(1..=9);
            let input = match inputs.get(case) {
                Some(input) => *input,
                None => numbers.within(1..=300),
            };
            let outputs = numbers.within(1..=60);
            let size = numbers.one_of(&[1.0, 1e-3, 300.0]);
            let x: Vec<f32> = (numbers.values(rows * input).iter())
                .map(|v| (v + middle) * size)
                .collect();
            // Some weights are much larger than the others of their block or segment.
            let large = numbers.within(0..=input - 1);
            let mut weight = numbers.values(outputs * input);
            for row in weight.chunks_exact_mut(input) {
                row[large] *= 8.0;
            }
            (x, PackedMatrix::pack(dtype, input, &weight), size)
        })
    }

    /// That a number that is not finite shows in its row, and nowhere else.
    pub fn check_not_finite(
        linear: impl Fn(MatrixView, &[u32], Dtype, &mut LayerOutput),
        bound: f32,
    ) {
        for input in [64, 130, 37] {
            let weight = PackedMatrix::pack(Dtype::Q8, input, &vec![0.25; input * 12]);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = vec![1.0; 5 * input];
                x[3 * input + input / 2] = bad;
                let expected = input as f32 / 4.0;
                for (i, y) in outputs(&linear, &x, &weight).into_iter().enumerate() {
                    match i / 12 {
                        3 => assert!(!y.is_finite(), "{bad} of {input}: {y}"),
                        _ => assert!((y - expected).abs() < bound, "{bad} of {input}: {y}"),
                    }
                }
            }
        }
    }

    /// That a word of a weight's row that is damaged, at a place and to such bits, shows in its column, and nowhere else.
    pub fn check_damage(
        linear: impl Fn(MatrixView, &[u32], Dtype, &mut LayerOutput),
        damages: &[(Dtype, usize, u32)],
    ) {
        let input = 128;
        for (dtype, at, bits) in damages.iter().copied() {
            let packed = PackedMatrix::pack(dtype, input, &vec![0.25; input * 30]);
            let length = dtype.row_words(input);
            let mut words = packed.words().to_vec();
            words[13 * length + at] = bits;
            let damaged = PackedMatrix::from_words(dtype, input, words);
            let x = [1.0; 4 * 128];
            for (i, y) in outputs(&linear, &x, &damaged).into_iter().enumerate() {
                match i % 30 {
                    13 => assert!(!y.is_finite(), "{dtype:?} {at}: {y}"),
                    _ => assert!((y - 32.0).abs() < 0.05, "{dtype:?} {at}: {y}"),
                }
            }
        }
    }
}

/// A contiguous tensor of these values.
fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FloatTensor<Flex> {
    Flex::float_from_data(TensorData::new(values, shape), &Default::default())
}
