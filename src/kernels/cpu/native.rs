//! What native programs run: burn-flex's products, and one pass over their results.

use burn::backend::ops::{AttentionModuleOptions, FloatTensorOps, ModuleOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, Shape};

use super::{functions, tensor};
use crate::kernels::packed::unpack_rows;
use crate::kernels::{Activation, Dtype, Epilogue, Matrix, plain};

/// `x [rows, input] · weightᵀ + bias`, then `epilogue`.
pub fn linear(
    x: FloatTensor<Flex>,
    weight: Matrix<Flex>,
    bias: FloatTensor<Flex>,
    epilogue: Epilogue<Flex>,
) -> FloatTensor<Flex> {
    let mut y = match weight {
        Matrix::F32(weight) if x.dtype() != DType::F32 => {
            return plain::linear::<Flex>(x, weight, bias, epilogue);
        }
        Matrix::F32(weight) => matrix_product(x, weight),
        Matrix::Packed {
            words,
            dtype,
            input,
        } => packed_product(x, words, dtype, input),
        Matrix::Held(_) => unreachable!("only the browser's CPU holds its weights so"),
    };
    let bias = bias.to_contiguous();
    let bias: &[f32] = bias.storage();
    let rows = y.storage_mut::<f32>().chunks_exact_mut(bias.len());
    match epilogue {
        Epilogue::None => rows.for_each(|row| add(row, bias)),
        Epilogue::Activation(Activation::GeluTanh) => rows.for_each(|row| {
            add(row, bias);
            functions::map(row, functions::gelu_tanh);
        }),
        Epilogue::Activation(Activation::Gelu) => rows.for_each(|row| {
            add(row, bias);
            functions::map(row, functions::gelu);
        }),
        Epilogue::Add(residual) => {
            let residual = residual.to_contiguous();
            let residual: &[f32] = residual.storage();
            for (row, residual) in rows.zip(residual.chunks_exact(bias.len())) {
                for ((y, b), r) in row.iter_mut().zip(bias).zip(residual) {
                    *y += b + r;
                }
            }
        }
    }
    y
}

/// `x [rows, input] · weightᵀ` with the weight as words `[output, words]`.
fn packed_product(
    x: FloatTensor<Flex>,
    words: IntTensor<Flex>,
    dtype: Dtype,
    input: usize,
) -> FloatTensor<Flex> {
    let x = x.to_contiguous();
    let (rows, output) = (x.shape()[0], words.shape()[0]);
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

/// Numbers of a packed weight that are unpacked at a time: 1 MiB of f32, which the second-level cache holds while all rows of
/// `x` pass by.
const UNPACKED: usize = 1 << 18;
/// What a chunk of weight rows is a multiple of: whole blocks of the product.
const CHUNK: usize = 24;

/// Calls `each` for a chunk of the weight's rows after the other as f32, and the first one's number.
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
fn matrix_product(x: FloatTensor<Flex>, weight: FloatTensor<Flex>) -> FloatTensor<Flex> {
    Flex::float_matmul(x, Flex::float_transpose(weight))
}

/// `query [batch, queries, hidden]`, `key` and `value [batch, keys, hidden]` → `[batch, queries, hidden]`.
pub fn attention(
    query: FloatTensor<Flex>,
    key: FloatTensor<Flex>,
    value: FloatTensor<Flex>,
    heads: usize,
) -> FloatTensor<Flex> {
    if query.dtype() != DType::F32 {
        return plain::attention::<Flex>(query, key, value, heads);
    }
    let shape = query.shape();
    // burn-flex takes scores that are no numbers for those of masked keys, and gives an answer without them.
    if [&query, &key].into_iter().any(may_overflow) {
        return tensor::<3>(vec![f32::NAN; shape.num_elements()], shape.dims());
    }
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

/// Whether there are numbers whose products may not be finite. Queries and keys that make sense are far from it.
fn may_overflow(x: &FloatTensor<Flex>) -> bool {
    const LARGEST: f32 = 1e18;
    let x = x.to_contiguous();
    let values: &[f32] = x.storage();
    // Without branches, so that it goes in lanes; the bits of what is infinite or none are larger than any number's.
    let magnitudes = values.iter().map(|value| value.to_bits() & 0x7fff_ffff);
    magnitudes.fold(0, u32::max) > LARGEST.to_bits()
}

/// `x [rows, hidden]`, `gamma` and `beta [hidden]` → `[rows, hidden]`.
pub fn layer_norm(
    x: FloatTensor<Flex>,
    gamma: FloatTensor<Flex>,
    beta: FloatTensor<Flex>,
    epsilon: f64,
) -> FloatTensor<Flex> {
    if x.dtype() != DType::F32 {
        return plain::layer_norm::<Flex>(x, gamma, beta, epsilon);
    }
    Flex::layer_norm(x, gamma, Some(beta), epsilon)
}

/// Adds `other` to `row`.
pub fn add(row: &mut [f32], other: &[f32]) {
    for (y, other) in row.iter_mut().zip(other) {
        *y += other;
    }
}
