//! What runs in the browser: our own products on 128-bit SIMD.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};

#[cfg(target_feature = "relaxed-simd")]
use super::bytes;
use super::epilogue::{EpilogueRef, LayerOutput};
use super::laid_out::LaidOut;
use super::lanes::WIDTH;
use super::packed_rows::PackedRows;
use super::panel::MatrixView;
use super::product::WeightView;
use super::{attention, epilogue, functions, halves, parallel, product, tensor};
use crate::kernels::held::Words;
#[cfg(not(feature = "webgpu"))]
use crate::kernels::{Activation, PackedMatrix};
use crate::kernels::{Dtype, Epilogue, HeldWeight, Matrix, plain};

/// A weight's words as the products here read them; none where that takes more memory than rows, which are then packed at each call.
fn lay_out(words: &[u32], dtype: Dtype, input: usize) -> Option<LaidOut> {
    let rows = PackedRows::new(words, dtype, input);
    match (dtype, signed_bytes()) {
        (Dtype::F32, _) => Some(product::lay_out(MatrixView::of(
            bytemuck::cast_slice(words),
            input,
        ))),
        // See `packed_linear`.
        (Dtype::F16, Some(true)) => None,
        (Dtype::F16, _) => Some(halves::lay_out(&rows)),
        #[cfg(target_feature = "relaxed-simd")]
        (Dtype::Q8, Some(true)) => Some(bytes::lay_out::<true>(&rows)),
        #[cfg(target_feature = "relaxed-simd")]
        (Dtype::Q8, Some(false)) => Some(bytes::lay_out::<false>(&rows)),
        (Dtype::Q8 | Dtype::Q4, _) => None,
    }
}

/// Whether bytes of a weight count as −128…127, where products of bytes are fast.
fn signed_bytes() -> Option<bool> {
    #[cfg(target_feature = "relaxed-simd")]
    return bytes::signed();
    #[cfg(not(target_feature = "relaxed-simd"))]
    None
}

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
        let gelu = EpilogueRef::Activation(Activation::GeluTanh);
        // The loops of packed weights are shorter.
        let times = if dtype == Dtype::F32 { 2 } else { 10 };
        for i in 0..times {
            // Once as rows, once laid out.
            let weight = HeldWeight::new(PackedMatrix::from_words(dtype, INPUT, words.clone()));
            let product = |y: &mut LayerOutput| held_linear(rows, &weight, y);
            let residual = output(gelu, product);
            let epilogue = match i % 4 {
                0 => EpilogueRef::Add(&residual),
                _ => gelu,
            };
            output(epilogue, product);
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
        Matrix::Held(weight) => held_linear(x, &weight, y),
    });
    tensor(y, [rows, bias.len()])
}

/// A linear layer with a weight that is laid out at its second product.
fn held_linear(x: MatrixView, weight: &HeldWeight, y: &mut LayerOutput) {
    let mut words = weight.words();
    if let Words::Rows(rows, true) = &*words
        && let Some(panels) = lay_out(rows, weight.dtype, x.length)
    {
        *words = Words::LaidOut(panels);
    }
    match &mut *words {
        Words::Rows(rows, used) => {
            packed_linear(x, rows, weight.dtype, y);
            *used = true;
        }
        Words::LaidOut(panels) => laid_out_linear(x, panels, weight.dtype, y),
    }
}

/// A linear layer with a weight in words, with the product that is fastest here.
fn packed_linear(x: MatrixView, words: &[u32], dtype: Dtype, y: &mut LayerOutput) {
    if dtype == Dtype::F32 {
        let weight = WeightView::of(bytemuck::cast_slice(words), x.length);
        return product::linear(x, weight, y);
    }
    // What a GPU is checked against rounds nothing else. And Arm, where two products of halves take as long as four of floats.
    if dtype == Dtype::F16 && (cfg!(feature = "webgpu") || signed_bytes() == Some(true)) {
        return product::linear(x, WeightView::of_halves(words, x.length), y);
    }
    let rows = PackedRows::new(words, dtype, x.length);
    #[cfg(target_feature = "relaxed-simd")]
    if dtype != Dtype::F16
        && let Some(signed) = bytes::signed()
    {
        return bytes_linear(x, &bytes::Weight::Rows(rows), signed, y);
    }
    halves::linear(x, &rows, y);
}

/// A linear layer with a weight as [`lay_out`] has it.
fn laid_out_linear(x: MatrixView, panels: &LaidOut, dtype: Dtype, y: &mut LayerOutput) {
    match (dtype, signed_bytes()) {
        (Dtype::F32, _) => product::linear(x, WeightView::LaidOut(panels), y),
        (Dtype::F16, _) => halves::linear_laid_out(x, panels, y),
        #[cfg(target_feature = "relaxed-simd")]
        (_, Some(signed)) => bytes_linear(x, &bytes::Weight::LaidOut(panels, dtype), signed, y),
        _ => unreachable!("rows that halves are made of are not laid out"),
    }
}

/// A linear layer by products of bytes, where they count as [`bytes::signed`] says.
#[cfg(target_feature = "relaxed-simd")]
fn bytes_linear(x: MatrixView, weight: &bytes::Weight, signed: bool, y: &mut LayerOutput) {
    match signed {
        true => bytes::linear::<true>(x, weight, y),
        false => bytes::linear::<false>(x, weight, y),
    }
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
