//! The CPU forms: a matrix product with everything that follows it in one pass over the result.

#[cfg(any(target_family = "wasm", test))]
mod attention;
mod functions;
#[cfg(all(feature = "train", not(target_family = "wasm")))]
mod gradients;
#[cfg(any(target_family = "wasm", test))]
mod integer;
#[cfg(any(target_family = "wasm", test))]
mod layer;
// Natively only a part of it is called.
#[cfg_attr(not(any(target_family = "wasm", test)), allow(dead_code))]
mod lanes;
#[cfg(any(target_family = "wasm", test))]
mod parallel;
#[cfg(any(target_family = "wasm", test))]
mod product;

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
#[cfg(not(target_family = "wasm"))]
use burn::backend::ops::{AttentionModuleOptions, ModuleOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
#[cfg(not(target_family = "wasm"))]
use burn::tensor::Shape;

#[cfg(target_family = "wasm")]
use self::{
    layer::Layer,
    product::{Rows, Weight},
};
use super::Kernels;
use super::packed::Dtype;
#[cfg(not(target_family = "wasm"))]
use super::packed::unpack_rows;
use crate::model::Activation;

#[cfg(all(feature = "train", target_family = "wasm"))]
impl super::gradients::Derivatives for Flex {}

impl Kernels for Flex {
    fn siglip_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        activation: Option<Activation>,
    ) -> FloatTensor<Self> {
        linear(x, Held::Plain(weight), bias, None, activation)
    }

    fn siglip_linear_residual(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        linear(x, Held::Plain(weight), bias, Some(residual), None)
    }

    fn siglip_linear_packed(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        bias: FloatTensor<Self>,
        dtype: Dtype,
        activation: Option<Activation>,
    ) -> FloatTensor<Self> {
        linear(x, Held::Packed(words, dtype), bias, None, activation)
    }

    fn siglip_linear_packed_residual(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        dtype: Dtype,
    ) -> FloatTensor<Self> {
        linear(x, Held::Packed(words, dtype), bias, Some(residual), None)
    }

    fn siglip_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self> {
        attend(query, key, value, heads)
    }

    fn siglip_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        normalise(x, gamma, beta, epsilon)
    }
}

/// Calls each kernel until the browser thinks it worth compiling well, which it does on another thread while the model loads: a
/// call that has begun in quickly compiled code stays in it, and the first picture would take three times as long as the next.
#[cfg(target_family = "wasm")]
pub fn warm_up() {
    const ROWS: usize = 48;
    const INPUT: usize = 512;
    const OUTPUT: usize = 96;
    let x = vec![0.0; ROWS * INPUT];
    let weight = vec![0.0; OUTPUT * INPUT];
    let (rows, weight) = (Rows::of(&x, INPUT), Weight::of(&weight, INPUT));
    let output = |residual: Option<&[f32]>, activation, sum: &dyn Fn(&mut Layer)| {
        layer::output(ROWS, &[0.0; OUTPUT], residual, activation, sum)
    };
    for _ in 0..4 {
        let residual = output(None, Some(Activation::GeluTanh), &|layer| {
            product::linear(rows, weight, layer)
        });
        output(Some(&residual), None, &|layer| {
            product::linear(rows, weight, layer)
        });
        // Their loops are shorter.
        for dtype in [Dtype::Q8, Dtype::Q4].repeat(4) {
            let words = vec![0; OUTPUT * dtype.row_words(INPUT)];
            output(None, None, &|layer| {
                integer::linear(rows, &words, dtype, layer)
            });
        }
        let halves = vec![0; OUTPUT * Dtype::F16.row_words(INPUT)];
        output(None, None, &|layer| {
            product::linear(rows, Weight::of_halves(&halves, INPUT), layer)
        });
        let sizes = attention::Sizes {
            batch: 1,
            queries: ROWS,
            keys: ROWS,
            hidden: INPUT,
            heads: 8,
        };
        attention::attention(&x, &x, &x, sizes);
    }
}

/// A weight `[output, input]`.
enum Held {
    Plain(FloatTensor<Flex>),
    /// Words `[output, words]`.
    Packed(IntTensor<Flex>, Dtype),
}

/// `x [rows, input] · weightᵀ + bias`, added to `residual` or through `activation`.
#[cfg(target_family = "wasm")]
fn linear(
    x: FloatTensor<Flex>,
    weight: Held,
    bias: FloatTensor<Flex>,
    residual: Option<FloatTensor<Flex>>,
    activation: Option<Activation>,
) -> FloatTensor<Flex> {
    let (x, bias) = (x.to_contiguous(), bias.to_contiguous());
    let residual = residual.map(|residual| residual.to_contiguous());
    let residual: Option<&[f32]> = residual.as_ref().map(|residual| residual.storage());
    let bias: &[f32] = bias.storage();
    let [rows, input] = x.shape().dims();
    let x = Rows::of(x.storage(), input);
    let y = layer::output(rows, bias, residual, activation, |layer| match weight {
        Held::Plain(weight) => {
            let weight = weight.to_contiguous();
            product::linear(x, Weight::of(weight.storage(), input), layer);
        }
        Held::Packed(words, dtype @ (Dtype::Q8 | Dtype::Q4)) => {
            integer::linear(x, words.to_contiguous().storage(), dtype, layer);
        }
        Held::Packed(words, Dtype::F16) => {
            let words = words.to_contiguous();
            product::linear(x, Weight::of_halves(words.storage(), input), layer);
        }
        Held::Packed(_, Dtype::F32) => unreachable!("what is held as f32 is plain"),
    });
    tensor(y, [rows, bias.len()])
}

/// `x [rows, input] · weightᵀ + bias`, added to `residual` or through `activation`.
#[cfg(not(target_family = "wasm"))]
fn linear(
    x: FloatTensor<Flex>,
    weight: Held,
    bias: FloatTensor<Flex>,
    residual: Option<FloatTensor<Flex>>,
    activation: Option<Activation>,
) -> FloatTensor<Flex> {
    let bias = bias.to_contiguous();
    let bias: &[f32] = bias.storage();
    let output = bias.len();
    let mut y = match weight {
        Held::Plain(weight) => matrix_product(x, weight),
        Held::Packed(words, dtype) => {
            let x = x.to_contiguous();
            let [rows, input] = x.shape().dims();
            let mut y = vec![0.0; rows * output];
            unpacked_chunks(words, dtype, input, |first, weight| {
                let columns = weight.len() / input;
                let part = matrix_product(x.clone(), tensor(weight.to_vec(), [columns, input]));
                let part = part.to_contiguous();
                let part: &[f32] = part.storage();
                for (y, part) in y.chunks_exact_mut(output).zip(part.chunks_exact(columns)) {
                    y[first..][..columns].copy_from_slice(part);
                }
            });
            tensor(y, [rows, output])
        }
    };
    let residual = residual.map(|residual| residual.to_contiguous());
    let residual: Option<&[f32]> = residual.as_ref().map(|residual| residual.storage());
    for (i, row) in y.storage_mut::<f32>().chunks_exact_mut(output).enumerate() {
        match (residual, activation) {
            (Some(residual), _) => {
                for ((y, b), r) in row.iter_mut().zip(bias).zip(&residual[i * output..]) {
                    *y += b + r;
                }
            }
            (None, None) => add(row, bias),
            (None, Some(Activation::GeluTanh)) => {
                add(row, bias);
                functions::map(row, functions::gelu_tanh);
            }
        }
    }
    y
}

#[cfg(not(target_family = "wasm"))]
fn normalise(
    x: FloatTensor<Flex>,
    gamma: FloatTensor<Flex>,
    beta: FloatTensor<Flex>,
    epsilon: f64,
) -> FloatTensor<Flex> {
    Flex::layer_norm(x, gamma, Some(beta), epsilon)
}

/// `x [rows, hidden]`, `gamma` and `beta [hidden]` → `[rows, hidden]`.
#[cfg(target_family = "wasm")]
fn normalise(
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

/// Numbers of a packed weight that are unpacked at a time: 1 MiB of f32, which the second-level cache holds while all rows of
/// `x` pass by.
#[cfg(not(target_family = "wasm"))]
const UNPACKED: usize = 1 << 18;
/// What a chunk of weight rows is a multiple of: whole blocks of the product.
#[cfg(not(target_family = "wasm"))]
const CHUNK: usize = 24;

/// Calls `each` for a chunk of the weight's rows after the other as f32, and the first one's number.
#[cfg(not(target_family = "wasm"))]
fn unpacked_chunks(
    words: IntTensor<Flex>,
    dtype: Dtype,
    input: usize,
    mut each: impl FnMut(usize, &[f32]),
) {
    let words = words.to_contiguous();
    let words: &[u32] = words.storage();
    let row_words = dtype.row_words(input);
    let chunk = (UNPACKED / input).next_multiple_of(CHUNK).max(CHUNK);
    let mut weight = vec![0.0; chunk.min(words.len() / row_words) * input];
    for (i, words) in words.chunks(chunk * row_words).enumerate() {
        let weight = &mut weight[..words.len() / row_words * input];
        unpack_rows(dtype, input, words, weight);
        each(i * chunk, weight);
    }
}

/// `x [rows, input] · weightᵀ [output, input]`.
#[cfg(not(target_family = "wasm"))]
fn matrix_product(x: FloatTensor<Flex>, weight: FloatTensor<Flex>) -> FloatTensor<Flex> {
    Flex::float_matmul(x, Flex::float_transpose(weight))
}

/// `query [batch, queries, hidden]`, `key` and `value [batch, keys, hidden]` → `[batch, queries, hidden]`.
#[cfg(not(target_family = "wasm"))]
fn attend(
    query: FloatTensor<Flex>,
    key: FloatTensor<Flex>,
    value: FloatTensor<Flex>,
    heads: usize,
) -> FloatTensor<Flex> {
    let shape = query.shape();
    let split = |x: FloatTensor<Flex>| {
        let [batch, tokens, hidden] = x.shape().dims();
        let heads_last = Flex::float_reshape(x, Shape::new([batch, tokens, heads, hidden / heads]));
        Flex::float_swap_dims(heads_last, 1, 2)
    };
    // Writes the scores of one head at a time, and for long sequences not even those.
    let y = Flex::attention(
        split(query),
        split(key),
        split(value),
        None,
        None,
        AttentionModuleOptions::default(),
    );
    Flex::float_reshape(Flex::float_swap_dims(y, 1, 2), shape)
}

/// `query [batch, queries, hidden]`, `key` and `value [batch, keys, hidden]` → `[batch, queries, hidden]`.
#[cfg(target_family = "wasm")]
fn attend(
    query: FloatTensor<Flex>,
    key: FloatTensor<Flex>,
    value: FloatTensor<Flex>,
    heads: usize,
) -> FloatTensor<Flex> {
    let [batch, queries, hidden] = query.shape().dims();
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

/// A contiguous tensor of these values.
fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FloatTensor<Flex> {
    Flex::float_from_data(
        burn::tensor::TensorData::new(values, shape),
        &Default::default(),
    )
}

#[cfg(not(target_family = "wasm"))]
fn add(row: &mut [f32], other: &[f32]) {
    for (y, other) in row.iter_mut().zip(other) {
        *y += other;
    }
}
