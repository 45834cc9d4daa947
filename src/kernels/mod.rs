//! The handful of operations that the towers are made of, each with a fast form per device.
//!
//! [`reference`] has the plain burn form of each: it is what the fast forms are tested against, and what runs where a fast
//! form does not take the shapes. The fast forms are a burn backend extension: hand-written WGSL on the GPU (`wgsl`), fused
//! loops around burn-flex's matrix product on the CPU (`cpu`), and their derivatives for training (`gradients`).

pub mod check;
pub(crate) mod cpu;
#[cfg(feature = "train")]
mod gradients;
pub mod packed;
pub mod reference;
#[cfg(feature = "webgpu")]
mod wgsl;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Tensor};

pub use packed::{Dtype, PackedMatrix, PackedWeight};

use crate::error::{Error, Result};
use crate::model::Activation;

/// Reads a tensor back from its device.
///
/// # Errors
/// `device-lost` if the device can't answer any more.
pub async fn to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let lost = |error: &dyn std::fmt::Debug| {
        Error::device_lost(format!(
            "the device did not return its results ({error:?}); load the model again, with backend \"cpu\" if it happens again"
        ))
    };
    let data = tensor.into_data_async().await.map_err(|e| lost(&e))?;
    data.convert::<f32>().try_to_vec().map_err(|e| lost(&e))
}

/// The fast forms, on contiguous f32 tensors.
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
}

/// Whether the fast forms take this tensor: other dtypes go through the reference.
fn is_plain<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32
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
    // The WGSL form reads four numbers at a time along both dimensions.
    let aligned = weight.dims().iter().all(|size| size.is_multiple_of(4));
    if !is_plain(&x) || !aligned {
        return reference::linear(x, weight, bias, activation, residual);
    }
    let mut shape = x.dims();
    let [output, input] = weight.dims();
    let rows = shape[..D - 1].iter().product();
    shape[D - 1] = output;
    let x = x.reshape([rows, input]).into_dispatch();
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    let y = match residual {
        None => Dispatch::siglip_linear(x, weight, bias, activation),
        Some(residual) => {
            let residual = residual.reshape([rows, output]).into_dispatch();
            Dispatch::siglip_linear_residual(x, weight, bias, residual)
        }
    };
    Tensor::<2>::from_dispatch(y).reshape(shape)
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
    if !is_plain(&x) || x.device().is_autodiff() || !takes_packed(weight.dims()) {
        return reference::linear(x, weight.unpack(), bias, activation, residual);
    }
    let mut shape = x.dims();
    let [output, input] = weight.dims();
    let rows = shape[..D - 1].iter().product();
    shape[D - 1] = output;
    let x = x.reshape([rows, input]).into_dispatch();
    let words = weight.words.clone().into_dispatch();
    let (bias, dtype) = (bias.into_dispatch(), weight.dtype);
    let y = match residual {
        None => Dispatch::siglip_linear_packed(x, words, bias, dtype, activation),
        Some(residual) => {
            let residual = residual.reshape([rows, output]).into_dispatch();
            Dispatch::siglip_linear_packed_residual(x, words, bias, residual, dtype)
        }
    };
    Tensor::<2>::from_dispatch(y).reshape(shape)
}

/// Whether the fast forms take packed weights `[output, input]`: they work on four numbers at a time along both dimensions.
/// No published checkpoint has others; a loader leaves such weights unpacked.
pub fn takes_packed(dims: [usize; 2]) -> bool {
    dims.iter().all(|size| size.is_multiple_of(4))
}

/// Multi-head attention, `softmax(q · kᵀ / √head_size) · v` for each head, without ever writing the scores of all heads.
///
/// `query [batch, queries, hidden]`, `key` and `value [batch, keys, hidden]` → `[batch, queries, hidden]`; each head owns
/// `hidden / heads` neighbouring numbers.
pub fn attention(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, heads: usize) -> Tensor<3> {
    let [_, _, hidden] = query.dims();
    let head_size = hidden / heads;
    // The WGSL form holds a head's query and result in registers, four numbers at a time.
    if !is_plain(&query) || !head_size.is_multiple_of(4) || head_size > 256 {
        return reference::attention(query, key, value, heads);
    }
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
    let hidden = shape[D - 1];
    if !is_plain(&x) || !hidden.is_multiple_of(4) {
        return reference::layer_norm(x, gamma, beta, epsilon);
    }
    let rows: usize = shape[..D - 1].iter().product();
    let y = Dispatch::siglip_layer_norm(
        x.reshape([rows, hidden]).into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    );
    Tensor::<2>::from_dispatch(y).reshape(shape)
}
