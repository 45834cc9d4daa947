//! Derivatives on the CPU: one pass over each operand, on all cores.
//!
//! Rows are shared out in blocks of a fixed size and sums over blocks are added in their order, so that results don't depend
//! on the number of cores.

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Shape, TensorData};
use rayon::prelude::*;

use super::functions::{self, exponentials, gelu, gelu_slope, gelu_tanh, gelu_tanh_slope};
use super::native::add;
use crate::kernels::Activation;
use crate::kernels::gradients::Derivatives;

/// Rows that one core works on at a time.
const BLOCK: usize = 64;
/// The same where rows don't matter, in numbers.
const PIECE: usize = 16 << 10;

impl Derivatives for Flex {
    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        map([&x], |[x], y| match activation {
            Activation::GeluTanh => {
                y.copy_from_slice(x);
                functions::map(y, gelu_tanh);
            }
            Activation::Gelu => {
                y.copy_from_slice(x);
                functions::map(y, gelu);
            }
        })
    }

    fn activate_backward(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let [x, gradient] = [x, gradient].map(|t| t.to_contiguous());
        map([&x, &gradient], |[x, gradient], y| {
            y.copy_from_slice(x);
            match activation {
                Activation::GeluTanh => functions::map(y, gelu_tanh_slope),
                Activation::Gelu => functions::map(y, gelu_slope),
            }
            for (y, g) in y.iter_mut().zip(gradient) {
                *y *= g;
            }
        })
    }

    fn sum_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [_, columns] = x.shape().dims();
        let x = x.to_contiguous();
        let x: &[f32] = x.storage();
        let blocks = x.par_chunks(BLOCK * columns).map(|block| {
            let mut sums = vec![0.0; columns];
            for row in block.chunks_exact(columns) {
                add(&mut sums, row);
            }
            sums
        });
        tensor(total(blocks.collect(), columns), Shape::new([columns]))
    }

    fn scaled_softmax(scores: FloatTensor<Self>, scale: f64) -> FloatTensor<Self> {
        let scores = scores.to_contiguous();
        let keys = last(&scores);
        let scale = scale as f32;
        map_rows([&scores], keys, |[scores], weights| {
            weights.copy_from_slice(scores);
            let factor = exponentials(weights, scale).recip();
            weights.iter_mut().for_each(|weight| *weight *= factor);
        })
    }

    fn scaled_softmax_backward(
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        let [weights, gradient] = [weights, gradient].map(|t| t.to_contiguous());
        let keys = last(&weights);
        let scale = scale as f32;
        map_rows([&weights, &gradient], keys, |[weights, gradient], y| {
            let along = sum_terms(weights, |i, w| w * gradient[i]);
            for ((y, w), g) in y.iter_mut().zip(weights).zip(gradient) {
                *y = w * (g - along) * scale;
            }
        })
    }

    fn layer_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        epsilon: f64,
        gradient: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        let shape = x.shape();
        let [_, hidden] = shape.dims();
        let [x, gamma, gradient] = [x, gamma, gradient].map(|t| t.to_contiguous());
        let (x, gamma, gradient): (&[f32], &[f32], &[f32]) =
            (x.storage(), gamma.storage(), gradient.storage());
        let mut of_x = vec![0.0; x.len()];
        let count = hidden as f32;
        let blocks = of_x
            .par_chunks_mut(BLOCK * hidden)
            .zip(x.par_chunks(BLOCK * hidden))
            .zip(gradient.par_chunks(BLOCK * hidden))
            .map(|((of_x, x), gradient)| {
                // Of gamma, then of beta.
                let mut sums = vec![0.0; 2 * hidden];
                let (of_gamma, of_beta) = sums.split_at_mut(hidden);
                let mut normed = vec![0.0; hidden];
                let rows = x.chunks_exact(hidden).zip(gradient.chunks_exact(hidden));
                for (of_x, (x, gradient)) in of_x.chunks_exact_mut(hidden).zip(rows) {
                    let mean = sum_terms(x, |_, v| v) / count;
                    let variance = sum_terms(x, |_, v| (v - mean) * (v - mean)) / count;
                    let factor = (variance + epsilon as f32).sqrt().recip();
                    for (normed, x) in normed.iter_mut().zip(x) {
                        *normed = (x - mean) * factor;
                    }
                    for ((sum, g), n) in of_gamma.iter_mut().zip(gradient).zip(&normed) {
                        *sum += g * n;
                    }
                    add(of_beta, gradient);
                    for ((y, g), gamma) in of_x.iter_mut().zip(gradient).zip(gamma) {
                        *y = g * gamma;
                    }
                    let level = sum_terms(of_x, |_, v| v) / count;
                    let along = sum_terms(of_x, |i, v| v * normed[i]) / count;
                    for (y, n) in of_x.iter_mut().zip(&normed) {
                        *y = (*y - level - n * along) * factor;
                    }
                }
                sums
            })
            .collect();
        let mut of_gamma = total(blocks, 2 * hidden);
        let of_beta = of_gamma.split_off(hidden);
        [
            tensor(of_x, shape),
            tensor(of_gamma, Shape::new([hidden])),
            tensor(of_beta, Shape::new([hidden])),
        ]
    }
}

/// The sum of `term(index, value)`, in eight lanes, which the compiler may not do to a plain sum.
#[inline(always)]
fn sum_terms(values: &[f32], term: impl Fn(usize, f32) -> f32) -> f32 {
    const LANES: usize = 8;
    let mut lanes = [0.0; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for (c, chunk) in whole.iter().enumerate() {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane += term(c * LANES + i, chunk[i]);
        }
    }
    let start = whole.len() * LANES;
    for (i, value) in rest.iter().enumerate() {
        lanes[i] += term(start + i, *value);
    }
    lanes.iter().sum()
}

/// The sum of each block's sums, in their order.
fn total(blocks: Vec<Vec<f32>>, columns: usize) -> Vec<f32> {
    let mut total = vec![0.0; columns];
    for block in blocks {
        add(&mut total, &block);
    }
    total
}

fn last(x: &FloatTensor<Flex>) -> usize {
    x.shape()[x.shape().num_dims() - 1]
}

/// A tensor of the inputs' shape that `write` fills piece by piece; all inputs are contiguous.
fn map<const N: usize>(
    inputs: [&FloatTensor<Flex>; N],
    write: impl Fn([&[f32]; N], &mut [f32]) + Sync,
) -> FloatTensor<Flex> {
    let shape = inputs[0].shape();
    let slices: [&[f32]; N] = inputs.map(|input| input.storage());
    let mut y = vec![0.0; slices[0].len()];
    y.par_chunks_mut(PIECE).enumerate().for_each(|(i, y)| {
        let start = i * PIECE;
        write(slices.map(|s| &s[start..start + y.len()]), y);
    });
    tensor(y, shape)
}

/// The same row by row.
fn map_rows<const N: usize>(
    inputs: [&FloatTensor<Flex>; N],
    columns: usize,
    write: impl Fn([&[f32]; N], &mut [f32]) + Sync,
) -> FloatTensor<Flex> {
    let shape = inputs[0].shape();
    let slices: [&[f32]; N] = inputs.map(|input| input.storage());
    let mut y = vec![0.0; slices[0].len()];
    y.par_chunks_mut(BLOCK * columns)
        .enumerate()
        .for_each(|(block, y)| {
            for (row, y) in y.chunks_exact_mut(columns).enumerate() {
                let start = (block * BLOCK + row) * columns;
                write(slices.map(|s| &s[start..start + columns]), y);
            }
        });
    tensor(y, shape)
}

fn tensor(values: Vec<f32>, shape: Shape) -> FloatTensor<Flex> {
    Flex::float_from_data(TensorData::new(values, shape), &Default::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gradients::plain;

    fn number(i: usize, first: usize) -> f32 {
        (((i + first) * 7919) % 1009) as f32 / 252.25 - 2.0
    }

    fn given(shape: &[usize], first: usize) -> FloatTensor<Flex> {
        let values = (0..shape.iter().product())
            .map(|i| number(i, first))
            .collect();
        tensor(values, Shape::from(shape.to_vec()))
    }

    fn assert_close(what: &str, got: FloatTensor<Flex>, expected: FloatTensor<Flex>) {
        assert_eq!(got.shape(), expected.shape(), "{what}");
        let [got, expected] = [got, expected].map(|t| t.to_contiguous());
        let (got, expected): (&[f32], &[f32]) = (got.storage(), expected.storage());
        for (i, (g, e)) in got.iter().zip(expected).enumerate() {
            assert!(
                (g - e).abs() <= 1e-5 * e.abs().max(10.0),
                "{what}: [{i}] is {g}, expected {e}"
            );
        }
    }

    #[test]
    fn each_equals_its_plain_form_on_sizes_that_no_block_divides() {
        for (rows, columns) in [(1, 4), (3, 7), (200, 64), (333, 100)] {
            let (x, g) = (given(&[rows, columns], 3), given(&[rows, columns], 500));
            let what = |name: &str| format!("{name} of {rows} × {columns}");
            for gelu in [Activation::GeluTanh, Activation::Gelu] {
                assert_close(
                    &what("activate"),
                    Flex::activate(x.clone(), gelu),
                    plain::activate::<Flex>(x.clone(), gelu),
                );
                assert_close(
                    &what("activate_backward"),
                    Flex::activate_backward(x.clone(), g.clone(), gelu),
                    plain::activate_backward::<Flex>(x.clone(), g.clone(), gelu),
                );
            }
            assert_close(
                &what("sum_rows"),
                Flex::sum_rows(x.clone()),
                plain::sum_rows::<Flex>(x.clone()),
            );
            let weights = Flex::scaled_softmax(x.clone(), 3.0);
            assert_close(
                &what("scaled_softmax"),
                weights.clone(),
                plain::scaled_softmax::<Flex>(x.clone(), 3.0),
            );
            assert_close(
                &what("scaled_softmax_backward"),
                Flex::scaled_softmax_backward(weights.clone(), g.clone(), 3.0),
                plain::scaled_softmax_backward::<Flex>(weights, g.clone(), 3.0),
            );
            let gamma = given(&[columns], 77);
            let fast = Flex::layer_norm_backward(x.clone(), gamma.clone(), 1e-6, g.clone());
            let slow = plain::layer_norm_backward::<Flex>(x, gamma, 1e-6, g);
            for (part, (fast, slow)) in fast.into_iter().zip(slow).enumerate() {
                let name = format!("layer_norm_backward {part}");
                assert_close(&what(&name), fast, slow);
            }
        }
    }
}
