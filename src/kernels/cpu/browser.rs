//! What runs in the browser: our own products on 128-bit SIMD.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};

#[cfg(target_feature = "relaxed-simd")]
use super::bytes;
use super::epilogue::{EpilogueRef, LayerOutput};
use super::lanes::WIDTH;
use super::panel::MatrixView;
use super::product::WeightView;
use super::{attention, epilogue, functions, halves, parallel, product, tensor};
#[cfg(not(feature = "webgpu"))]
use crate::kernels::Activation;
use crate::kernels::{Dtype, Epilogue, Matrix, plain};

/// Runs the kernels of a model with weights in these forms a few times so that the browser tiers them up, on another thread, while
/// weights load: a call that began in baseline code finishes there, and the first picture took three times as long as the next.
/// What a model doesn't use isn't tiered up either, which would keep a core busy.
#[cfg(not(feature = "webgpu"))]
pub fn warm_up(forms: impl Iterator<Item = Dtype>) {
    const ROWS: usize = 48;
    const INPUT: usize = 512;
    const OUTPUT: usize = 96;
    let x = vec![0.0; ROWS * INPUT];
    let rows = MatrixView::of(&x, INPUT);
    fn output(epilogue: EpilogueRef, sum: impl Fn(&mut LayerOutput)) -> Vec<f32> {
        epilogue::output(ROWS, &[0.0; OUTPUT], epilogue, sum)
    }
    for dtype in forms {
        let words = vec![0; OUTPUT * dtype.row_words(INPUT)];
        let product = |y: &mut LayerOutput| packed_linear(rows, &words, dtype, y);
        let gelu = EpilogueRef::Activation(Activation::GeluTanh);
        // The loops of packed weights are shorter.
        let times = if dtype == Dtype::F32 { 4 } else { 16 };
        for i in 0..times {
            let residual = output(gelu, product);
            if i % 4 == 0 {
                output(EpilogueRef::Add(&residual), product);
            }
        }
    }
    let sizes = attention::Sizes {
        batch: 1,
        queries: ROWS,
        keys: ROWS,
        hidden: INPUT,
        heads: 8,
    };
    for _ in 0..4 {
        attention::attention(&x, &x, &x, sizes);
    }
}

/// `x [rows, input] · weightᵀ + bias`, then `epilogue`.
pub fn linear(
    x: FloatTensor<Flex>,
    weight: Matrix<Flex>,
    bias: FloatTensor<Flex>,
    epilogue: Epilogue<Flex>,
) -> FloatTensor<Flex> {
    let (x, bias) = (x.to_contiguous(), bias.to_contiguous());
    let bias: &[f32] = bias.storage();
    let residual;
    let epilogue = match epilogue {
        Epilogue::None => EpilogueRef::None,
        Epilogue::Activation(activation) => EpilogueRef::Activation(activation),
        Epilogue::Add(addend) => {
            residual = addend.to_contiguous();
            EpilogueRef::Add(residual.storage())
        }
    };
    let [rows, input] = x.shape().dims();
    let x = MatrixView::of(x.storage(), input);
    let y = epilogue::output(rows, bias, epilogue, |y| match weight {
        Matrix::F32(weight) => {
            let weight = weight.to_contiguous();
            product::linear(x, WeightView::of(weight.storage(), input), y);
        }
        Matrix::Packed { words, dtype, .. } => {
            let words = words.to_contiguous();
            packed_linear(x, words.storage(), dtype, y);
        }
    });
    tensor(y, [rows, bias.len()])
}

/// A linear layer with a weight in words, with the product that is fastest here.
fn packed_linear(x: MatrixView, words: &[u32], dtype: Dtype, y: &mut LayerOutput) {
    if dtype == Dtype::F32 {
        let weight = WeightView::of(bytemuck::cast_slice(words), x.length);
        return product::linear(x, weight, y);
    }
    // What a GPU is checked against rounds nothing else.
    if cfg!(feature = "webgpu") && dtype == Dtype::F16 {
        return product::linear(x, WeightView::of_halves(words, x.length), y);
    }
    #[cfg(target_feature = "relaxed-simd")]
    match (bytes::signed(), dtype) {
        // Arm, where two products of halves take as long as four of floats.
        (Some(true), Dtype::F16) => {
            return product::linear(x, WeightView::of_halves(words, x.length), y);
        }
        (Some(true), _) => return bytes::linear::<true>(x, words, dtype, y),
        (Some(false), Dtype::Q8 | Dtype::Q4) => return bytes::linear::<false>(x, words, dtype, y),
        _ => {}
    }
    halves::linear(x, words, dtype, y);
}

/// `query [batch, queries, hidden]`, `key` and `value [batch, keys, hidden]` → `[batch, queries, hidden]`.
pub fn attention(
    query: FloatTensor<Flex>,
    key: FloatTensor<Flex>,
    value: FloatTensor<Flex>,
    heads: usize,
) -> FloatTensor<Flex> {
    let [batch, queries, hidden] = query.shape().dims();
    // No published model has such heads.
    if !(hidden / heads).is_multiple_of(WIDTH) {
        return plain::attention::<Flex>(query, key, value, heads);
    }
    let [_, keys, _] = key.shape().dims();
    let [query, key, value] = [query, key, value].map(|x| x.to_contiguous());
    let sizes = attention::Sizes {
        batch,
        queries,
        keys,
        hidden,
        heads,
    };
    let y = attention::attention(query.storage(), key.storage(), value.storage(), sizes);
    tensor(y, [batch, queries, hidden])
}

/// `x [rows, hidden]`, `gamma` and `beta [hidden]` → `[rows, hidden]`.
pub fn layer_norm(
    x: FloatTensor<Flex>,
    gamma: FloatTensor<Flex>,
    beta: FloatTensor<Flex>,
    epsilon: f64,
) -> FloatTensor<Flex> {
    /// Rows that a thread takes at a time.
    const ROWS: usize = 16;
    let [rows, hidden] = x.shape().dims();
    let [x, gamma, beta] = [x, gamma, beta].map(|x| x.to_contiguous());
    let (gamma, beta) = (gamma.storage(), beta.storage());
    let x: &[f32] = x.storage();
    let mut y = vec![0.0; rows * hidden];
    parallel::for_chunks(&mut y, ROWS * hidden, |i, y| {
        let x = x[i * ROWS * hidden..].chunks_exact(hidden);
        for (x, y) in x.zip(y.chunks_exact_mut(hidden)) {
            functions::layer_norm(x, gamma, beta, epsilon as f32, y);
        }
    });
    tensor(y, [rows, hidden])
}
