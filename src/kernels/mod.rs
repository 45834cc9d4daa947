//! The handful of operations that the towers are made of, each with a fast form per device.
//!
//! [`reference`] has the plain burn form of each: it is what the fast forms are tested against. The fast forms are a burn backend
//! extension: hand-written WGSL on the GPU (`wgsl`), fused loops on the CPU (`cpu`), and their derivatives for training
//! (`gradients`). The towers call nothing else: an operation of burn's that a GPU tensor can reach brings burn's own kernels for
//! it, and their compiler's library, into a page's module.
//!
//! Tensors are f32. Natively other types go through the plain forms, so that derivatives can be tested in f64, and so do sizes that
//! the CPU's fast forms don't take.

#[cfg(feature = "webgpu")]
pub mod ahead;
pub mod check;
pub(crate) mod cpu;
#[cfg(feature = "train")]
mod gradients;
pub mod packed;
mod plain;
pub mod reference;
#[cfg(feature = "webgpu")]
mod wgsl;

use std::future::ready;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

#[cfg(feature = "webgpu")]
use burn::backend::Cube;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorData};

pub use packed::{Dtype, PackedMatrix, PackedWeight};
#[cfg(feature = "webgpu")]
pub use wgsl::{Form, dispatches, set_form};

use crate::error::{Error, Result};
use crate::model::Activation;

/// Puts numbers on a device.
pub fn from_vec<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    let data = TensorData::new(values, shape);
    // Past Tensor::from_data, which comes with the conversions between all of burn's types.
    Tensor::from_dispatch(Dispatch::float_from_data(data, device.as_dispatch()))
}

/// Puts token ids on a device.
pub fn from_ids<const D: usize>(
    ids: Vec<i32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    let data = TensorData::new(ids, shape);
    Tensor::from_dispatch(Dispatch::int_from_data(data, device.as_dispatch()))
}

/// Reads a tensor back from its device.
///
/// # Errors
/// `device-lost` if the device can't answer any more.
pub async fn to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    if is_f32(&tensor) {
        #[cfg(feature = "webgpu")]
        if let Ok(primitive) = tensor.clone().try_into_primitive::<Cube>() {
            drop(tensor);
            return wgsl::read(primitive).await.map_err(|e| lost(&e));
        }
        if let Ok(primitive) = tensor.clone().try_into_primitive::<Flex>() {
            return Ok(primitive.to_contiguous().storage().to_vec());
        }
    }
    other_to_vec(tensor).await
}

/// [`to_vec`] that tells the device at once: other work can be done before the future is waited for.
pub fn begin_to_vec<const D: usize>(
    tensor: Tensor<D>,
) -> Pin<Box<dyn Future<Output = Result<Vec<f32>>>>> {
    let mut values = Box::pin(to_vec(tensor));
    // Up to where it waits; whoever waits for it asks again.
    match values
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(values) => Box::pin(ready(values)),
        Poll::Pending => values,
    }
}

fn lost(error: &dyn std::fmt::Debug) -> Error {
    Error::device_lost(format!(
        "the device did not return its results ({error:?}); load the model again, with backend \"cpu\" if it happens again"
    ))
}

/// Of another type than f32, or with gradients.
#[cfg(not(target_family = "wasm"))]
async fn other_to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(|e| lost(&e))?;
    data.convert::<f32>().try_to_vec().map_err(|e| lost(&e))
}

#[cfg(target_family = "wasm")]
async fn other_to_vec<const D: usize>(_: Tensor<D>) -> Result<Vec<f32>> {
    Err(lost(&"not an f32 tensor of a known device"))
}

/// The fast forms, on contiguous f32 tensors. An operation's tensors are different ones.
#[backend_extension(Flex, Cube: cfg(feature = "webgpu"), Autodiff: cfg(feature = "train"))]
pub(crate) trait Kernels: Backend {
    /// `x [rows, input]`, `weight [output, input]`, `bias [output]` → `[rows, output]`.
    fn siglip_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        activation: Option<Activation>,
    ) -> FloatTensor<Self>;

    /// The same, added to `residual [rows, output]`.
    fn siglip_linear_residual(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// As [`siglip_linear`](Self::siglip_linear), with the weight as packed words.
    fn siglip_linear_packed(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        bias: FloatTensor<Self>,
        dtype: Dtype,
        activation: Option<Activation>,
    ) -> FloatTensor<Self>;

    /// The same, added to `residual [rows, output]`.
    fn siglip_linear_packed_residual(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        dtype: Dtype,
    ) -> FloatTensor<Self>;

    /// `query [batch, queries, hidden]`, `key` and `value [batch, keys, hidden]` → `[batch, queries, hidden]`.
    fn siglip_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self>;

    /// `x [rows, hidden]`, `gamma` and `beta [hidden]` → `[rows, hidden]`.
    fn siglip_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;

    /// [`siglip_linear`](Self::siglip_linear) with sizes that are not multiples of four.
    fn siglip_linear_odd(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        activation: Option<Activation>,
    ) -> FloatTensor<Self> {
        plain::linear::<Self>(x, weight, bias, activation)
    }

    /// [`siglip_attention`](Self::siglip_attention) with heads whose size is not a multiple of four.
    fn siglip_attention_odd(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self> {
        plain::attention::<Self>(query, key, value, heads)
    }

    /// [`siglip_layer_norm`](Self::siglip_layer_norm) of a size that is not a multiple of four.
    fn siglip_layer_norm_odd(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        plain::layer_norm::<Self>(x, gamma, beta, epsilon)
    }

    /// [`siglip_linear`](Self::siglip_linear) with rows `first` to `first + outputs` of the weight and the bias.
    fn siglip_linear_part(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        first: usize,
        outputs: usize,
    ) -> FloatTensor<Self> {
        let weight = plain::float_rows::<Self>(weight, first..first + outputs);
        let bias = plain::float_rows::<Self>(bias, first..first + outputs);
        match takes_packed(weight.shape().dims()) {
            true => Self::siglip_linear(x, weight, bias, None),
            false => Self::siglip_linear_odd(x, weight, bias, None),
        }
    }

    /// [`siglip_linear_packed`](Self::siglip_linear_packed) with rows `first` to `first + outputs` of the weight and the bias.
    fn siglip_linear_packed_part(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        bias: FloatTensor<Self>,
        dtype: Dtype,
        first: usize,
        outputs: usize,
    ) -> FloatTensor<Self> {
        let words = plain::int_rows::<Self>(words, first..first + outputs);
        let bias = plain::float_rows::<Self>(bias, first..first + outputs);
        Self::siglip_linear_packed(x, words, bias, dtype, None)
    }

    /// Three [`siglip_linear`](Self::siglip_linear) of the same `x` whose weights have the same shape.
    fn siglip_projections(
        x: FloatTensor<Self>,
        query: FloatTensor<Self>,
        query_bias: FloatTensor<Self>,
        key: FloatTensor<Self>,
        key_bias: FloatTensor<Self>,
        value: FloatTensor<Self>,
        value_bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let product = match takes_packed(query.shape().dims()) {
            true => Self::siglip_linear,
            false => Self::siglip_linear_odd,
        };
        (
            product(x.clone(), query, query_bias, None),
            product(x.clone(), key, key_bias, None),
            product(x, value, value_bias, None),
        )
    }

    /// The same with the weights as packed words.
    #[allow(clippy::too_many_arguments)] // Three weights with their biases.
    fn siglip_projections_packed(
        x: FloatTensor<Self>,
        query: IntTensor<Self>,
        query_bias: FloatTensor<Self>,
        key: IntTensor<Self>,
        key_bias: FloatTensor<Self>,
        value: IntTensor<Self>,
        value_bias: FloatTensor<Self>,
        dtype: Dtype,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        (
            Self::siglip_linear_packed(x.clone(), query, query_bias, dtype, None),
            Self::siglip_linear_packed(x.clone(), key, key_bias, dtype, None),
            Self::siglip_linear_packed(x, value, value_bias, dtype, None),
        )
    }

    /// `pixels [batch, channels, height, width]` → `[batch, patches, channels · patch · patch]`.
    fn siglip_patches(pixels: FloatTensor<Self>, patch: usize) -> FloatTensor<Self> {
        plain::patches::<Self>(pixels, patch)
    }

    /// `x [rows, hidden]` with `addend [n, hidden]` added to each `n` rows.
    fn siglip_add_rows(x: FloatTensor<Self>, addend: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::add_rows::<Self>(x, addend)
    }

    /// Rows `first`, `first + step`, … of `x [rows, hidden]` → `[count, hidden]`.
    fn siglip_take_rows(
        x: FloatTensor<Self>,
        first: usize,
        step: usize,
        count: usize,
    ) -> FloatTensor<Self> {
        plain::take_rows::<Self>(x, first, step, count)
    }

    /// The rows of `table [rows, hidden]` that `ids [count]` says → `[count, hidden]`.
    fn siglip_gather(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        Self::float_select(table, 0, ids)
    }

    /// The same numbers in another shape.
    fn siglip_reshape(x: FloatTensor<Self>, shape: Shape) -> FloatTensor<Self> {
        Self::float_reshape(x, shape)
    }

    /// The same ids in another shape.
    fn siglip_reshape_ids(ids: IntTensor<Self>, shape: Shape) -> IntTensor<Self> {
        Self::int_reshape(ids, shape)
    }
}

fn is_f32<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32
}

/// Whether a native program takes the plain form: for types other than f32, and on the CPU for sizes that are no multiples of four.
#[cfg(not(target_family = "wasm"))]
fn is_plain<const D: usize>(x: &Tensor<D>, sizes: &[usize]) -> bool {
    let aligned = sizes.iter().all(|size| size.is_multiple_of(4));
    !is_f32(x) || !aligned && x.device() == Device::flex()
}

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

/// `x · weightᵀ + bias`, then `activation`, or added to `residual`.
///
/// `x [.., input]`, `weight [output, input]`, `bias [output]`, `residual [.., output]` → `[.., output]`.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    activation: Option<Activation>,
    residual: Option<Tensor<D>>,
) -> Tensor<D> {
    debug_assert!(activation.is_none() || residual.is_none());
    #[cfg(not(target_family = "wasm"))]
    if is_plain(&x, &weight.dims()) {
        return reference::linear(x, weight, bias, activation, residual);
    }
    let mut shape = x.dims();
    let [output, _] = weight.dims();
    shape[D - 1] = output;
    let aligned = takes_packed(weight.dims());
    let x = matrix(x).into_dispatch();
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    let residual = residual.map(|residual| matrix(residual).into_dispatch());
    let y = match (aligned, residual) {
        (true, None) => Dispatch::siglip_linear(x, weight, bias, activation),
        (true, Some(residual)) => Dispatch::siglip_linear_residual(x, weight, bias, residual),
        (false, None) => Dispatch::siglip_linear_odd(x, weight, bias, activation),
        (false, Some(residual)) => {
            let y = Dispatch::siglip_linear_odd(x, weight, bias, activation);
            Dispatch::siglip_add_rows(y, residual)
        }
    };
    reshape(Tensor::<2>::from_dispatch(y), shape)
}

/// [`linear`] with a packed weight, which is never unpacked as a whole.
pub fn linear_packed<const D: usize>(
    x: Tensor<D>,
    weight: &PackedWeight,
    bias: Tensor<1>,
    activation: Option<Activation>,
    residual: Option<Tensor<D>>,
) -> Tensor<D> {
    debug_assert!(activation.is_none() || residual.is_none());
    // Training holds plain weights; a packed one within its graph is constant, which the plain form differentiates through.
    #[cfg(not(target_family = "wasm"))]
    if needs_unpacking(&x, weight) {
        return reference::linear(x, weight.unpack(), bias, activation, residual);
    }
    assert!(
        takes_packed(weight.dims()),
        "loaders leave such weights plain"
    );
    let mut shape = x.dims();
    let [output, _] = weight.dims();
    shape[D - 1] = output;
    let x = matrix(x).into_dispatch();
    let words = weight.words.clone().into_dispatch();
    let (bias, dtype) = (bias.into_dispatch(), weight.dtype);
    let y = match residual {
        None => Dispatch::siglip_linear_packed(x, words, bias, dtype, activation),
        Some(residual) => {
            let residual = matrix(residual).into_dispatch();
            Dispatch::siglip_linear_packed_residual(x, words, bias, residual, dtype)
        }
    };
    reshape(Tensor::<2>::from_dispatch(y), shape)
}

/// Whether the fast forms take packed weights `[output, input]`: they work on four numbers at a time along both dimensions.
/// No published checkpoint has others; a loader leaves such weights unpacked.
pub fn takes_packed(dims: [usize; 2]) -> bool {
    dims.iter().all(|size| size.is_multiple_of(4))
}

#[cfg(not(target_family = "wasm"))]
fn needs_unpacking<const D: usize>(x: &Tensor<D>, weight: &PackedWeight) -> bool {
    is_plain(x, &[]) || x.device().is_autodiff() || !takes_packed(weight.dims())
}

/// [`linear`] with some of the weight's and the bias's rows: `[.., input]` → `[.., outputs.len()]`.
pub fn linear_part<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    outputs: Range<usize>,
) -> Tensor<D> {
    #[cfg(not(target_family = "wasm"))]
    if is_plain(&x, &[outputs.len(), weight.dims()[1]]) {
        let [_, input] = weight.dims();
        let weight = weight.slice([outputs.clone(), 0..input]);
        return reference::linear(x, weight, bias.slice([outputs]), None, None);
    }
    let mut shape = x.dims();
    shape[D - 1] = outputs.len();
    let y = Dispatch::siglip_linear_part(
        matrix(x).into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        outputs.start,
        outputs.len(),
    );
    reshape(Tensor::<2>::from_dispatch(y), shape)
}

/// [`linear_part`] with a packed weight.
pub fn linear_packed_part<const D: usize>(
    x: Tensor<D>,
    weight: &PackedWeight,
    bias: Tensor<1>,
    outputs: Range<usize>,
) -> Tensor<D> {
    #[cfg(not(target_family = "wasm"))]
    if needs_unpacking(&x, weight) {
        return linear_part(x, weight.unpack(), bias, outputs);
    }
    assert!(
        takes_packed(weight.dims()),
        "loaders leave such weights plain"
    );
    let mut shape = x.dims();
    shape[D - 1] = outputs.len();
    let y = Dispatch::siglip_linear_packed_part(
        matrix(x).into_dispatch(),
        weight.words.clone().into_dispatch(),
        bias.into_dispatch(),
        weight.dtype,
        outputs.start,
        outputs.len(),
    );
    reshape(Tensor::<2>::from_dispatch(y), shape)
}

/// Three [`linear`] of the same `x` with weights and biases of the same shapes: on the GPU at once.
pub fn projections<const D: usize>(
    x: Tensor<D>,
    weights: [Tensor<2>; 3],
    biases: [Tensor<1>; 3],
) -> [Tensor<D>; 3] {
    #[cfg(not(target_family = "wasm"))]
    if is_plain(&x, &weights[0].dims()) {
        let mut biases = biases.into_iter();
        return weights.map(|weight| {
            let bias = biases.next().expect("as many biases as weights");
            reference::linear(x.clone(), weight, bias, None, None)
        });
    }
    let mut shape = x.dims();
    [shape[D - 1], _] = weights[0].dims();
    let [query, key, value] = weights.map(Tensor::into_dispatch);
    let [query_bias, key_bias, value_bias] = biases.map(Tensor::into_dispatch);
    let x = matrix(x).into_dispatch();
    let (query, key, value) =
        Dispatch::siglip_projections(x, query, query_bias, key, key_bias, value, value_bias);
    [query, key, value].map(|y| reshape(Tensor::<2>::from_dispatch(y), shape))
}

/// [`projections`] with packed weights of one dtype.
pub fn projections_packed<const D: usize>(
    x: Tensor<D>,
    weights: [&PackedWeight; 3],
    biases: [Tensor<1>; 3],
) -> [Tensor<D>; 3] {
    #[cfg(not(target_family = "wasm"))]
    if needs_unpacking(&x, weights[0]) {
        return projections(x, weights.map(PackedWeight::unpack), biases);
    }
    assert!(
        takes_packed(weights[0].dims()),
        "loaders leave such weights plain"
    );
    let mut shape = x.dims();
    [shape[D - 1], _] = weights[0].dims();
    let dtype = weights[0].dtype;
    let [query, key, value] = weights.map(|weight| weight.words.clone().into_dispatch());
    let [query_bias, key_bias, value_bias] = biases.map(Tensor::into_dispatch);
    let x = matrix(x).into_dispatch();
    let (query, key, value) = Dispatch::siglip_projections_packed(
        x, query, query_bias, key, key_bias, value, value_bias, dtype,
    );
    [query, key, value].map(|y| reshape(Tensor::<2>::from_dispatch(y), shape))
}

/// Multi-head attention, `softmax(q · kᵀ / √head_size) · v` for each head, without ever writing the scores of all heads.
///
/// `query [batch, queries, hidden]`, `key` and `value [batch, keys, hidden]` → `[batch, queries, hidden]`; each head owns
/// `hidden / heads` neighbouring numbers.
pub fn attention(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, heads: usize) -> Tensor<3> {
    let [_, _, hidden] = query.dims();
    #[cfg(not(target_family = "wasm"))]
    if is_plain(&query, &[hidden / heads]) {
        return reference::attention(query, key, value, heads);
    }
    let attend = match (hidden / heads).is_multiple_of(4) {
        true => Dispatch::siglip_attention,
        false => Dispatch::siglip_attention_odd,
    };
    Tensor::from_dispatch(attend(
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
    #[cfg(not(target_family = "wasm"))]
    if is_plain(&x, &[shape[D - 1]]) {
        return reference::layer_norm(x, gamma, beta, epsilon);
    }
    let norm = match shape[D - 1].is_multiple_of(4) {
        true => Dispatch::siglip_layer_norm,
        false => Dispatch::siglip_layer_norm_odd,
    };
    let y = norm(
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
