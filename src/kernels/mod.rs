//! The handful of operations that the towers are made of, each with a fast form per device.
//!
//! [`mod@reference`] has the plain burn form of each: it is what the fast forms are tested against. The fast forms are a burn backend
//! extension (`backend`): hand-written WGSL on the GPU (`wgsl`), fused loops on the CPU (`cpu`), and their derivatives for training
//! (`gradients`). The towers call nothing else: an operation of burn's that a GPU tensor can reach brings burn's own kernels for
//! it, and their compiler's library, into a page's module.
//!
//! Tensors are f32. On the native CPU other types go through burn's own operations (`plain`), so that derivatives can be tested in f64.

mod activation;
mod backend;
pub mod check;
pub(crate) mod cpu;
#[cfg(feature = "train")]
mod gradients;
mod held;
mod numbers;
pub mod packed;
#[cfg(feature = "webgpu")]
pub mod pipelines;
mod plain;
mod receipt;
pub mod reference;
mod transfer;
#[cfg(feature = "webgpu")]
mod wgsl;

use std::ops::Range;

use burn::backend::Dispatch;
use burn::tensor::{Int, Shape, Tensor};

pub use activation::Activation;
use backend::Kernels;
pub use backend::{Epilogue, Matrix};
pub use held::HeldWeight;
pub use numbers::Numbers;
pub use packed::{Dtype, PackedMatrix, PackedWeight, takes_packed};
pub use receipt::Receipt;
pub use transfer::{begin, from_ids, from_vec, to_vec, to_words};
#[cfg(feature = "webgpu")]
pub use wgsl::{Form, dispatches, set_form};

/// The same numbers in another shape.
pub fn reshape<const D: usize, const E: usize>(x: Tensor<D>, shape: [usize; E]) -> Tensor<E> {
    Tensor::from_dispatch(Dispatch::siglip_reshape(
        x.into_dispatch(),
        Shape::new(shape),
    ))
}

/// `[.., columns]` as `[rows, columns]`.
fn matrix<const D: usize>(x: Tensor<D>) -> Tensor<2> {
    let shape = x.dims();
    reshape(x, [shape[..D - 1].iter().product(), shape[D - 1]])
}

/// `x · weightᵀ + bias`, then `epilogue`.
///
/// `x [.., input]`, `weight [output, input]`, `bias [output]` → `[.., output]`. A packed weight is never unpacked as a whole.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: impl Into<Matrix>,
    bias: Tensor<1>,
    epilogue: Epilogue,
) -> Tensor<D> {
    let weight = weight.into();
    let mut shape = x.dims();
    [shape[D - 1], _] = weight.dims();
    let x = matrix(x).into_dispatch();
    let y = Dispatch::siglip_linear(x, weight, bias.into_dispatch(), epilogue);
    reshape(Tensor::<2>::from_dispatch(y), shape)
}

/// [`linear`] with some of the weight's and the bias's rows: `[.., input]` → `[.., outputs.len()]`.
pub fn linear_part<const D: usize>(
    x: Tensor<D>,
    weight: impl Into<Matrix>,
    bias: Tensor<1>,
    outputs: Range<usize>,
) -> Tensor<D> {
    let mut shape = x.dims();
    shape[D - 1] = outputs.len();
    let x = matrix(x).into_dispatch();
    let y = Dispatch::siglip_linear_part(x, weight.into(), bias.into_dispatch(), outputs);
    reshape(Tensor::<2>::from_dispatch(y), shape)
}

/// Three [`linear`] of the same `x` with weights and biases of the same shapes: on the GPU at once, if the weights are held alike.
pub fn projections<const D: usize>(
    x: Tensor<D>,
    weights: [impl Into<Matrix>; 3],
    biases: [Tensor<1>; 3],
) -> [Tensor<D>; 3] {
    let weights: [Matrix; 3] = weights.map(Into::into);
    let mut shape = x.dims();
    [shape[D - 1], _] = weights[0].dims();
    let [query, key, value] = weights;
    let [query_bias, key_bias, value_bias] = biases.map(Tensor::into_dispatch);
    let x = matrix(x).into_dispatch();
    let (query, key, value) =
        Dispatch::siglip_projections(x, query, query_bias, key, key_bias, value, value_bias);
    [query, key, value].map(|y| reshape(Tensor::<2>::from_dispatch(y), shape))
}

/// Multi-head attention, `softmax(q · kᵀ / √head_size) · v` for each head, without ever writing the scores of all heads.
///
/// `query [batch, queries, hidden]`, `key` and `value [batch, keys, hidden]` → `[batch, queries, hidden]`; each head owns
/// `hidden / heads` neighbouring numbers.
pub fn attention(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, heads: usize) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::siglip_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        heads,
    ))
}

/// `(x − mean) / √(variance + epsilon) · gamma + beta` over the last dimension of `x [.., hidden]`.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let shape = x.dims();
    let y = Dispatch::siglip_layer_norm(
        matrix(x).into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    );
    reshape(Tensor::<2>::from_dispatch(y), shape)
}

/// The square patches of pictures, row by row, each with its numbers in the order of a convolution's kernel.
///
/// `pixels [batch, channels, height, width]` → `[batch, patches, channels · patch · patch]`. Pixels to the right and below that
/// don't fill a patch are left out.
pub fn patches(pixels: Tensor<4>, patch: usize) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::siglip_patches(pixels.into_dispatch(), patch))
}

/// `x [batch, n, hidden]` with `addend [n, hidden]` added to each of the batch.
pub fn add_rows(x: Tensor<3>, addend: Tensor<2>) -> Tensor<3> {
    let shape = x.dims();
    let y = Dispatch::siglip_add_rows(matrix(x).into_dispatch(), addend.into_dispatch());
    reshape(Tensor::<2>::from_dispatch(y), shape)
}

/// Rows `first`, `first + step`, … of `x [rows, hidden]` → `[count, hidden]`; the same row each time for a step of 0.
pub fn take_rows(x: Tensor<2>, first: usize, step: usize, count: usize) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::siglip_take_rows(
        x.into_dispatch(),
        first,
        step,
        count,
    ))
}

/// The rows of `table [rows, hidden]` that `ids [batch, tokens]` says → `[batch, tokens, hidden]`.
pub fn gather(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    let ([_, hidden], [batch, tokens]) = (table.dims(), ids.dims());
    let ids = Dispatch::siglip_reshape_ids(ids.into_dispatch(), Shape::new([batch * tokens]));
    let rows = Dispatch::siglip_gather(table.into_dispatch(), ids);
    reshape(Tensor::<2>::from_dispatch(rows), [batch, tokens, hidden])
}
