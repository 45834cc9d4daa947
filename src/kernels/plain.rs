//! Operations in burn's own ones, on a backend's primitives: what a backend gets that has no form of its own, and what goes through
//! them that the CPU's vectors don't take. The GPU has a form of each, so that a page's module holds none of burn's for it.

use burn::backend::Backend;
use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{Scalar, Shape, Slice};

#[cfg(any(feature = "train", not(target_family = "wasm")))]
use super::Activation;
#[cfg(not(target_family = "wasm"))]
use super::Epilogue;

/// `2·√(2/π)`: GELU in its tanh form is `x · sigmoid(GELU_SCALE · (x + GELU_CUBE · x³))`.
pub(super) const GELU_SCALE: f64 = 1.595_769_121_605_730_7;
pub(super) const GELU_CUBE: f64 = 0.044_715;

#[cfg(not(target_family = "wasm"))]
pub fn linear<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    epilogue: Epilogue<B>,
) -> FloatTensor<B> {
    let y = B::float_matmul(x, B::float_transpose(weight));
    let bias = B::float_reshape(bias.clone(), Shape::new([1, bias.shape()[0]]));
    let y = add_rows::<B>(y, bias);
    match epilogue {
        Epilogue::None => y,
        Epilogue::Add(residual) => B::float_add(y, residual),
        Epilogue::Activation(Activation::GeluTanh) => {
            let cube = B::float_mul(B::float_mul(y.clone(), y.clone()), y.clone());
            let inner = B::float_add(y.clone(), B::float_mul_scalar(cube, scalar(GELU_CUBE)));
            let tanh = B::float_tanh(B::float_mul_scalar(inner, scalar(GELU_SCALE / 2.0)));
            let product = B::float_mul(y, B::float_add_scalar(tanh, scalar(1.0)));
            B::float_mul_scalar(product, scalar(0.5))
        }
        Epilogue::Activation(Activation::Gelu) => {
            let doubled = normal_distribution_twice::<B>(y.clone());
            B::float_mul_scalar(B::float_mul(y, doubled), scalar(0.5))
        }
    }
}

/// `1 + erf(x / √2)`
#[cfg(any(not(target_family = "wasm"), feature = "train"))]
fn normal_distribution_twice<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let scaled = B::float_mul_scalar(x, scalar(std::f64::consts::FRAC_1_SQRT_2));
    B::float_add_scalar(B::float_erf(scaled), scalar(1.0))
}

/// `(1 + erf(x / √2)) / 2`
#[cfg(feature = "train")]
pub(super) fn normal_distribution<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_mul_scalar(normal_distribution_twice::<B>(x), scalar(0.5))
}

#[cfg(feature = "train")]
pub fn activate<B: Backend>(x: FloatTensor<B>, activation: Activation) -> FloatTensor<B> {
    match activation {
        Activation::GeluTanh => {
            let sigmoid = gelu_sigmoid::<B>(x.clone());
            B::float_mul(x, sigmoid)
        }
        Activation::Gelu => {
            let distribution = normal_distribution::<B>(x.clone());
            B::float_mul(x, distribution)
        }
    }
}

#[cfg(feature = "train")]
pub(super) fn gelu_sigmoid<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let square = B::float_mul(x.clone(), x.clone());
    let factor = B::float_mul_scalar(square, scalar(GELU_CUBE * GELU_SCALE));
    let factor = B::float_add_scalar(factor, scalar(GELU_SCALE));
    B::sigmoid(B::float_mul(x, factor))
}

pub(super) fn scalar(value: f64) -> Scalar {
    Scalar::Float(value)
}

pub fn attention<B: Backend>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    heads: usize,
) -> FloatTensor<B> {
    let [batch, queries, hidden] = query.shape().dims();
    let size = hidden / heads;
    let split = |x: FloatTensor<B>| {
        let [batch, tokens, _] = x.shape().dims();
        let shape = Shape::new([batch, tokens, heads, size]);
        B::float_swap_dims(B::float_reshape(x, shape), 1, 2)
    };
    let [query, key, value] = [query, key, value].map(split);
    let scores = B::float_matmul(query, B::float_swap_dims(key, 2, 3));
    let scores = B::float_mul_scalar(scores, scalar((size as f64).powf(-0.5)));
    let weights = scaled_softmax::<B>(scores, 1.0);
    let y = B::float_swap_dims(B::float_matmul(weights, value), 1, 2);
    B::float_reshape(y, Shape::new([batch, queries, hidden]))
}

pub fn scaled_softmax<B: Backend>(scores: FloatTensor<B>, scale: f64) -> FloatTensor<B> {
    let last = scores.shape().num_dims() - 1;
    let largest = B::float_max_dim(scores.clone(), last);
    let scaled = B::float_mul_scalar(B::float_sub(scores, largest), scalar(scale));
    let e = B::float_exp(scaled);
    let sum = B::float_sum_dim(e.clone(), last);
    B::float_div(e, sum)
}

#[cfg(not(target_family = "wasm"))]
pub fn layer_norm<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let [_, hidden] = x.shape().dims();
    let row = |x| B::float_reshape(x, Shape::new([1, hidden]));
    let centred = B::float_sub(x.clone(), B::float_mean_dim(x, 1));
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let deviation = B::float_sqrt(B::float_add_scalar(variance, scalar(epsilon)));
    let scaled = B::float_mul(B::float_div(centred, deviation), row(gamma));
    B::float_add(scaled, row(beta))
}

/// `x [rows, hidden]` with `addend [n, hidden]` added to each `n` rows.
pub fn add_rows<B: Backend>(x: FloatTensor<B>, addend: FloatTensor<B>) -> FloatTensor<B> {
    let [rows, hidden] = x.shape().dims();
    let [n, _] = addend.shape().dims();
    let whole = B::float_reshape(x, Shape::new([rows / n, n, hidden]));
    let addend = B::float_reshape(addend, Shape::new([1, n, hidden]));
    B::float_reshape(B::float_add(whole, addend), Shape::new([rows, hidden]))
}

pub fn take_rows<B: Backend>(
    x: FloatTensor<B>,
    first: usize,
    step: usize,
    count: usize,
) -> FloatTensor<B> {
    if step == 0 {
        return B::float_repeat_dim(float_rows::<B>(x, first..first + 1), 0, count);
    }
    let rows = first..first + (count - 1) * step + 1;
    let rows = Slice::from_range_stepped(rows, step as isize);
    B::float_slice(x, &[rows, Slice::full()])
}

pub fn float_rows<B: Backend>(x: FloatTensor<B>, rows: std::ops::Range<usize>) -> FloatTensor<B> {
    match x.shape().num_dims() {
        1 => B::float_slice(x, &[rows.into()]),
        _ => B::float_slice(x, &[rows.into(), Slice::full()]),
    }
}

pub fn int_rows<B: Backend>(x: IntTensor<B>, rows: std::ops::Range<usize>) -> IntTensor<B> {
    B::int_slice(x, &[rows.into(), Slice::full()])
}

pub fn patches<B: Backend>(pixels: FloatTensor<B>, patch: usize) -> FloatTensor<B> {
    let [batch, channels, height, width] = pixels.shape().dims();
    let (rows, columns) = (height / patch, width / patch);
    let seen = [
        Slice::full(),
        Slice::full(),
        (0..rows * patch).into(),
        (0..columns * patch).into(),
    ];
    let x = B::float_slice(pixels, &seen);
    let x = B::float_reshape(
        x,
        Shape::new([batch, channels, rows, patch, columns, patch]),
    );
    let x = B::float_permute(x, &[0, 2, 4, 1, 3, 5]);
    B::float_reshape(
        x,
        Shape::new([batch, rows * columns, channels * patch * patch]),
    )
}
