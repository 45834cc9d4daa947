//! The CPU forms: a matrix product with everything that follows it in one pass over the result.

#[cfg(any(target_family = "wasm", test))]
mod attention;
#[cfg(all(feature = "train", not(target_family = "wasm")))]
mod gradients;
#[cfg(any(target_family = "wasm", test))]
mod integer;
#[cfg(any(target_family = "wasm", test))]
mod lanes;
#[cfg(any(target_family = "wasm", test))]
mod product;

use burn::backend::Flex;
use burn::backend::TensorMetadata;
#[cfg(not(target_family = "wasm"))]
use burn::backend::ops::AttentionModuleOptions;
use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
#[cfg(not(target_family = "wasm"))]
use burn::tensor::Shape;

use super::Kernels;
use super::packed::{Dtype, unpack_rows};
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
        Flex::layer_norm(x, gamma, Some(beta), epsilon)
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
    let mut y = vec![0.0; ROWS * OUTPUT];
    for _ in 0..4 {
        product::product_into(&x, &x, INPUT, &mut y[..ROWS * ROWS], ROWS, 0);
        product::product_into(&x, &vec![0.0; OUTPUT * INPUT], INPUT, &mut y, OUTPUT, 0);
        // Their loops are shorter.
        for dtype in [Dtype::Q8, Dtype::Q4].repeat(4) {
            let words = vec![0; OUTPUT * dtype.row_words(INPUT)];
            integer::product_into(&x, &words, dtype, INPUT, &mut y, OUTPUT);
        }
        unpack_rows(
            Dtype::F16,
            INPUT,
            &vec![0; ROWS * Dtype::F16.row_words(INPUT)],
            &mut vec![0.0; ROWS * INPUT],
        );
        let sizes = attention::Sizes {
            batch: 1,
            queries: ROWS,
            keys: ROWS,
            hidden: INPUT,
            heads: 8,
        };
        attention::attention(&x, &x, &x, sizes);
        y.iter_mut().for_each(|y| *y = gelu_tanh(*y));
    }
}

/// A weight `[output, input]`.
enum Held {
    Plain(FloatTensor<Flex>),
    /// Words `[output, words]`.
    Packed(IntTensor<Flex>, Dtype),
}

/// `x [rows, input] · weightᵀ + bias`, added to `residual` or through `activation`. What is added is where the sums begin, so that
/// no further pass is needed for it.
#[cfg(target_family = "wasm")]
fn linear(
    x: FloatTensor<Flex>,
    weight: Held,
    bias: FloatTensor<Flex>,
    residual: Option<FloatTensor<Flex>>,
    activation: Option<Activation>,
) -> FloatTensor<Flex> {
    let (x, bias) = (x.to_contiguous(), bias.to_contiguous());
    let [rows, input] = x.shape().dims();
    let bias: &[f32] = bias.storage();
    let output = bias.len();
    let mut y = match residual {
        None => bias.repeat(rows),
        Some(residual) => {
            let mut y = residual.to_contiguous().storage::<f32>().to_vec();
            y.chunks_exact_mut(output).for_each(|row| add(row, bias));
            y
        }
    };
    match weight {
        Held::Plain(weight) => {
            let weight = weight.to_contiguous();
            product::product_into(x.storage(), weight.storage(), input, &mut y, output, 0);
        }
        Held::Packed(words, dtype @ (Dtype::Q8 | Dtype::Q4)) => {
            let words = words.to_contiguous();
            integer::product_into(x.storage(), words.storage(), dtype, input, &mut y, output);
        }
        Held::Packed(words, dtype) => unpacked_product(&x, words, dtype, &mut y, output),
    }
    match activation {
        None => {}
        Some(Activation::GeluTanh) => y.iter_mut().for_each(|y| *y = gelu_tanh(*y)),
    }
    tensor(y, [rows, output])
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
            let [rows, _] = x.shape().dims();
            let mut y = vec![0.0; rows * output];
            unpacked_product(&x, words, dtype, &mut y, output);
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
                for (y, b) in row.iter_mut().zip(bias) {
                    *y = gelu_tanh(*y + b);
                }
            }
        }
    }
    y
}

/// Numbers of a packed weight that are unpacked at a time: 1 MiB of f32, which the second-level cache holds while all rows of
/// `x` pass by.
const UNPACKED: usize = 1 << 18;
/// What a chunk of weight rows is a multiple of: two panels, whole blocks of either product.
const CHUNK: usize = 24;

/// `x · weightᵀ`, a chunk of the weight's rows after the other as f32, added to `y [rows, output]`.
fn unpacked_product(
    x: &FloatTensor<Flex>,
    words: IntTensor<Flex>,
    dtype: Dtype,
    y: &mut [f32],
    output: usize,
) {
    let [_, input] = x.shape().dims();
    let words = words.to_contiguous();
    let words: &[u32] = words.storage();
    let row_words = dtype.row_words(input);
    let chunk = (UNPACKED / input).next_multiple_of(CHUNK).max(CHUNK);
    let mut weight = vec![0.0; chunk.min(output) * input];
    for (i, words) in words.chunks(chunk * row_words).enumerate() {
        let weight = &mut weight[..words.len() / row_words * input];
        unpack_rows(dtype, input, words, weight);
        #[cfg(target_family = "wasm")]
        product::product_into(x.storage(), weight, input, y, output, i * chunk);
        #[cfg(not(target_family = "wasm"))]
        {
            let columns = weight.len() / input;
            let weight = tensor(weight.to_vec(), [columns, input]);
            let part = matrix_product(x.clone(), weight).to_contiguous();
            let part: &[f32] = part.storage();
            for (y, part) in y.chunks_exact_mut(output).zip(part.chunks_exact(columns)) {
                add(&mut y[i * chunk..][..columns], part);
            }
        }
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

fn add(row: &mut [f32], other: &[f32]) {
    for (y, other) in row.iter_mut().zip(other) {
        *y += other;
    }
}

/// `x/2 · (1 + tanh(u))` with `u = √(2/π) · (x + 0.044715 x³)`, which is `x / (1 + exp(−2u))`.
///
/// Written without branches or calls so that the compiler turns the loop around it into SIMD; within 2 ulp of libm's.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const MINUS_TWO_SQRT_2_OVER_PI: f32 = -1.595_769;
    let exponent = MINUS_TWO_SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(exponent))
}

/// eˣ after Cephes' `expf`: x = n·ln 2 + r, a polynomial for eʳ, 2ⁿ written into the exponent bits.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding and taking away 1.5·2²³ rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let polynomial =
        ((((1.987_569_1e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r
            + 1.666_666_5e-1)
            * r
            + 0.5;
    let exp_r = polynomial * r * r + r + 1.0;
    exp_r * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in -8_700..=8_800 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            let relative = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(relative < 3e-7, "exp({x}): relative error {relative:e}");
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn gelu_tanh_follows_its_definition_and_saturates() {
        for i in -1_200..=1_200 {
            let x = f64::from(i) / 100.0;
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            let expected = x / 2.0 * (1.0 + u.tanh());
            let got = f64::from(gelu_tanh(x as f32));
            assert!(
                (got - expected).abs() < 1e-6 * x.abs().max(1.0),
                "gelu({x}) = {got}, not {expected}"
            );
        }
        assert_eq!(gelu_tanh(1e4), 1e4);
        assert!(gelu_tanh(-1e4).abs() < 1e-30);
        assert!(gelu_tanh(f32::NAN).is_nan());
    }
}
