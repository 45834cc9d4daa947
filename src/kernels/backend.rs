//! What a device must be able to do: the operations as an extension of burn's backends, and what they take beside tensors.

use std::ops::Range;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, ExtensionType, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};

use super::held::HeldWeight;
use super::packed::{Dtype, PackedWeight};
use super::{Activation, matrix, plain};

/// A weight `[output, input]`.
#[derive(Clone, Debug, ExtensionType)]
pub enum Matrix<B: Backend = Dispatch> {
    /// f32 `[output, input]`.
    F32(FloatTensor<B>),
    /// In fewer bits, see [`packed`](super::packed).
    Packed {
        /// `[output, words]`.
        words: IntTensor<B>,
        /// How they hold the numbers.
        dtype: Dtype,
        /// Numbers of a row.
        input: usize,
    },
    /// For the browser's CPU alone.
    Held(HeldWeight),
}

impl<B: Backend> Matrix<B> {
    /// `[output, input]`.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::F32(weight) => weight.shape().dims(),
            Self::Packed { words, input, .. } => [words.shape()[0], *input],
            Self::Held(weight) => weight.dims,
        }
    }

    /// How its numbers are held.
    #[cfg(feature = "webgpu")]
    pub(crate) fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::Packed { dtype, .. } => *dtype,
            Self::Held(weight) => weight.dtype,
        }
    }

    /// Some of its rows.
    fn rows(self, rows: Range<usize>) -> Self {
        match self {
            Self::F32(weight) => Self::F32(plain::float_rows::<B>(weight, rows)),
            Self::Packed {
                words,
                dtype,
                input,
            } => Self::Packed {
                words: plain::int_rows::<B>(words, rows),
                dtype,
                input,
            },
            Self::Held(_) => unreachable!("what is read in parts is not held so"),
        }
    }
}

impl From<Tensor<2>> for Matrix {
    fn from(weight: Tensor<2>) -> Self {
        Self::F32(weight.into_dispatch())
    }
}

impl From<&PackedWeight> for Matrix {
    fn from(weight: &PackedWeight) -> Self {
        Self::Packed {
            words: weight.words.clone().into_dispatch(),
            dtype: weight.dtype,
            input: weight.input,
        }
    }
}

impl From<&HeldWeight> for Matrix {
    fn from(weight: &HeldWeight) -> Self {
        Self::Held(weight.clone())
    }
}

/// What a linear layer does to each of its outputs.
#[derive(Clone, Debug, ExtensionType)]
pub enum Epilogue<B: Backend = Dispatch> {
    /// Nothing.
    None,
    /// Applies a function.
    Activation(Activation),
    /// Adds the number of `[rows, output]` at the same place.
    Add(FloatTensor<B>),
}

impl Epilogue {
    /// Adds `residual [.., output]`.
    pub fn add<const D: usize>(residual: Tensor<D>) -> Self {
        Self::Add(matrix(residual).into_dispatch())
    }
}

/// The operations, on contiguous f32 tensors. An operation's tensors are different ones.
#[backend_extension(Flex, Cube: cfg(feature = "webgpu"), Autodiff: cfg(feature = "train"))]
pub(crate) trait Kernels: Backend {
    /// `x [rows, input]`, `weight [output, input]`, `bias [output]` → `[rows, output]`.
    fn siglip_linear(
        x: FloatTensor<Self>,
        #[extension_type] weight: Matrix<Self>,
        bias: FloatTensor<Self>,
        #[extension_type] epilogue: Epilogue<Self>,
    ) -> FloatTensor<Self>;

    /// [`siglip_linear`](Self::siglip_linear) with some rows of the weight and of the bias.
    fn siglip_linear_part(
        x: FloatTensor<Self>,
        #[extension_type] weight: Matrix<Self>,
        bias: FloatTensor<Self>,
        outputs: Range<usize>,
    ) -> FloatTensor<Self> {
        let bias = plain::float_rows::<Self>(bias, outputs.clone());
        Self::siglip_linear(x, weight.rows(outputs), bias, Epilogue::None)
    }

    /// Three [`siglip_linear`](Self::siglip_linear) of the same `x` whose weights have the same shape.
    fn siglip_projections(
        x: FloatTensor<Self>,
        #[extension_type] query: Matrix<Self>,
        query_bias: FloatTensor<Self>,
        #[extension_type] key: Matrix<Self>,
        key_bias: FloatTensor<Self>,
        #[extension_type] value: Matrix<Self>,
        value_bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        (
            Self::siglip_linear(x.clone(), query, query_bias, Epilogue::None),
            Self::siglip_linear(x.clone(), key, key_bias, Epilogue::None),
            Self::siglip_linear(x, value, value_bias, Epilogue::None),
        )
    }

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
