//! The fast forms' derivatives, so that training runs through the same operations as the page.
//!
//! Each operation is one node of burn's autodiff graph, and keeps what its derivative needs: about half of what the graph
//! of its plain form would. Rows of all batches are one matrix throughout, so that a weight's gradient is one product
//! instead of one per picture and a sum.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::{Shape, TensorData, read_sync};

use super::backend::Kernels;
pub(super) use super::plain::{GELU_CUBE, GELU_SCALE};
use super::{Activation, Dtype, Epilogue, Matrix, PackedMatrix};

/// What derivatives need beside [`Kernels`].
pub(crate) trait Derivatives: Kernels {
    /// `activation(x)`.
    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        plain::activate::<Self>(x, activation)
    }

    /// `gradient · activation′(x)`.
    fn activate_backward(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        plain::activate_backward::<Self>(x, gradient, activation)
    }

    /// The sum over the rows of `[rows, columns]`, `[columns]`.
    fn sum_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::sum_rows::<Self>(x)
    }

    /// The softmax over the last dimension of `scale · scores`.
    fn scaled_softmax(scores: FloatTensor<Self>, scale: f64) -> FloatTensor<Self> {
        plain::scaled_softmax::<Self>(scores, scale)
    }

    /// The gradient of the scores, given `weights = scaled_softmax(scores)` and the gradient of the weights.
    fn scaled_softmax_backward(
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        plain::scaled_softmax_backward::<Self>(weights, gradient, scale)
    }

    /// The gradients of `x [rows, hidden]`, `gamma` and `beta [hidden]`.
    fn layer_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        epsilon: f64,
        gradient: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        plain::layer_norm_backward::<Self>(x, gamma, epsilon, gradient)
    }
}

/// The plain burn form of each derivative, for devices that have no faster one.
pub(super) mod plain {
    use super::*;
    pub use crate::kernels::plain::{activate, scaled_softmax};
    use crate::kernels::plain::{gelu_sigmoid, normal_distribution, scalar};

    pub fn activate_backward<B: Backend>(
        x: FloatTensor<B>,
        gradient: FloatTensor<B>,
        activation: Activation,
    ) -> FloatTensor<B> {
        match activation {
            Activation::GeluTanh => {
                // x·s(v) with v = 2u, so s + x·s·(1 − s)·v′.
                let s = gelu_sigmoid::<B>(x.clone());
                let square = B::float_mul(x.clone(), x.clone());
                let v = B::float_mul_scalar(square, scalar(3.0 * GELU_CUBE * GELU_SCALE));
                let v = B::float_add_scalar(v, scalar(GELU_SCALE));
                let rest = B::float_sub(s.clone(), B::float_mul(s.clone(), s.clone()));
                let slope = B::float_mul(B::float_mul(x, rest), v);
                B::float_mul(gradient, B::float_add(s, slope))
            }
            Activation::Gelu => {
                // Φ(x) + x·φ(x), with the normal distribution and its density e^(−x²/2) / √(2π).
                let distribution = normal_distribution::<B>(x.clone());
                let square = B::float_mul(x.clone(), x.clone());
                let density = B::float_exp(B::float_mul_scalar(square, scalar(-0.5)));
                let density =
                    B::float_mul_scalar(density, scalar(std::f64::consts::TAU.sqrt().recip()));
                let slope = B::float_add(distribution, B::float_mul(x, density));
                B::float_mul(gradient, slope)
            }
        }
    }

    pub fn sum_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
        let [_, columns] = x.shape().dims();
        B::float_reshape(B::float_sum_dim(x, 0), Shape::new([columns]))
    }

    pub fn scaled_softmax_backward<B: Backend>(
        weights: FloatTensor<B>,
        gradient: FloatTensor<B>,
        scale: f64,
    ) -> FloatTensor<B> {
        let last = weights.shape().num_dims() - 1;
        let product = B::float_mul(weights.clone(), gradient);
        let sum = B::float_sum_dim(product.clone(), last);
        let x = B::float_sub(product, B::float_mul(weights, sum));
        B::float_mul_scalar(x, scalar(scale))
    }

    pub fn layer_norm_backward<B: Backend>(
        x: FloatTensor<B>,
        gamma: FloatTensor<B>,
        epsilon: f64,
        gradient: FloatTensor<B>,
    ) -> [FloatTensor<B>; 3] {
        let [_, hidden] = x.shape().dims();
        let mean = |x| B::float_mean_dim(x, 1);
        let centred = B::float_sub(x.clone(), mean(x));
        let variance = mean(B::float_mul(centred.clone(), centred.clone()));
        let deviation = B::float_sqrt(B::float_add_scalar(variance, scalar(epsilon)));
        let normed = B::float_div(centred, deviation.clone());
        let beta = sum_rows::<B>(gradient.clone());
        let product = B::float_mul(gradient.clone(), normed.clone());
        let scale = sum_rows::<B>(product);
        let gamma = B::float_reshape(gamma, Shape::new([1, hidden]));
        let inner = B::float_mul(gradient, gamma);
        let along = mean(B::float_mul(inner.clone(), normed.clone()));
        let rest = B::float_sub(inner.clone(), mean(inner));
        let rest = B::float_sub(rest, B::float_mul(normed, along));
        [B::float_div(rest, deviation), scale, beta]
    }
}

/// What the derivative of a linear layer needs.
#[derive(Clone, Debug)]
struct LinearState<T> {
    x: T,
    weight: T,
    /// With its input.
    activation: Option<(Activation, T)>,
}

impl<T: Clone> LinearState<T> {
    /// The gradients of `x`, `weight` and `bias`, as far as they are wanted.
    fn gradients<B: Derivatives<FloatTensorPrimitive = T>>(
        self,
        gradient: T,
        wanted: [bool; 3],
    ) -> [Option<T>; 3] {
        let gradient = match self.activation {
            None => gradient,
            Some((activation, input)) => B::activate_backward(input, gradient, activation),
        };
        let [x, weight, bias] = wanted;
        [
            x.then(|| B::float_matmul(gradient.clone(), self.weight)),
            weight.then(|| B::float_matmul(B::float_transpose(gradient.clone()), self.x)),
            bias.then(|| B::sum_rows(gradient)),
        ]
    }
}

#[derive(Debug)]
struct LinearBackward;

impl<B: Derivatives> Backward<B, 3> for LinearBackward {
    type State = LinearState<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let parts = ops.state.gradients::<B>(gradient, wanted);
        for (parent, part) in ops.parents.into_iter().zip(parts) {
            if let (Some(parent), Some(part)) = (parent, part) {
                gradients.register::<B>(parent.id, part);
            }
        }
    }
}

/// The same with the residual as the fourth input.
#[derive(Debug)]
struct LinearResidualBackward;

impl<B: Derivatives> Backward<B, 4> for LinearResidualBackward {
    type State = LinearState<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [x, weight, bias, residual] = ops.parents;
        let wanted = [&x, &weight, &bias].map(Option::is_some);
        let [dx, dw, db] = ops.state.gradients::<B>(gradient.clone(), wanted);
        let parts = [dx, dw, db, Some(gradient)];
        for (parent, part) in [x, weight, bias, residual].into_iter().zip(parts) {
            if let (Some(parent), Some(part)) = (parent, part) {
                gradients.register::<B>(parent.id, part);
            }
        }
    }
}

/// What the derivative of attention needs: its inputs. The weights are computed again, as they are larger than all of them.
#[derive(Clone, Debug)]
struct AttentionState<T> {
    query: T,
    key: T,
    value: T,
    heads: usize,
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: Derivatives> Backward<B, 3> for AttentionBackward {
    type State = AttentionState<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let AttentionState {
            query,
            key,
            value,
            heads,
        } = ops.state;
        let [_, _, hidden] = query.shape().dims();
        let scale = ((hidden / heads) as f64).powf(-0.5);
        let split = |x: FloatTensor<B>| {
            let [batch, tokens, hidden] = x.shape().dims();
            let shape = Shape::new([batch, tokens, heads, hidden / heads]);
            B::float_swap_dims(B::float_reshape(x, shape), 1, 2)
        };
        let merge = |x: FloatTensor<B>| {
            let [batch, heads, tokens, size] = x.shape().dims();
            let shape = Shape::new([batch, tokens, heads * size]);
            B::float_reshape(B::float_swap_dims(x, 1, 2), shape)
        };
        let transpose = |x: FloatTensor<B>| B::float_swap_dims(x, 2, 3);
        let [q, k, v, g] = [query, key, value, gradient].map(split);
        let scores = B::float_matmul(q.clone(), transpose(k.clone()));
        let weights = B::scaled_softmax(scores, scale);
        let of_weights = B::float_matmul(g.clone(), transpose(v));
        let of_value = B::float_matmul(transpose(weights.clone()), g);
        let of_scores = B::scaled_softmax_backward(weights, of_weights, scale);
        let of_query = B::float_matmul(of_scores.clone(), k);
        let of_key = B::float_matmul(transpose(of_scores), q);
        let parts = [of_query, of_key, of_value];
        for (parent, part) in ops.parents.into_iter().zip(parts) {
            if let Some(parent) = parent {
                gradients.register::<B>(parent.id, merge(part));
            }
        }
    }
}

#[derive(Clone, Debug)]
struct LayerNormState<T> {
    x: T,
    gamma: T,
    epsilon: f64,
}

#[derive(Debug)]
struct LayerNormBackward;

impl<B: Derivatives> Backward<B, 3> for LayerNormBackward {
    type State = LayerNormState<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let LayerNormState { x, gamma, epsilon } = ops.state;
        let parts = B::layer_norm_backward(x, gamma, epsilon, gradient);
        for (parent, part) in ops.parents.into_iter().zip(parts) {
            if let Some(parent) = parent {
                gradients.register::<B>(parent.id, part);
            }
        }
    }
}

/// A node of the graph with this derivative and state.
macro_rules! finish {
    ($backward:expr, $guards:expr, $state:expr, $output:expr) => {
        match $backward.prepare::<C>($guards).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish($state, $output),
            OpsKind::UnTracked(prepared) => prepared.finish($output),
        }
    };
}

/// The numbers of a packed weight `[output, input]`, through the host's memory.
fn unpacked<B: Backend>(words: IntTensor<B>, dtype: Dtype, input: usize) -> FloatTensor<B> {
    let (device, output) = (words.device(), words.shape()[0]);
    let words = read_sync(B::int_into_data(words)).expect("the device answers");
    let words = words.try_to_vec::<u32>().expect("words are u32");
    let weight = PackedMatrix::from_words(dtype, input, words).unpack();
    B::float_from_data(TensorData::new(weight, [output, input]), &device)
}

impl<B: Derivatives, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn siglip_linear(
        x: FloatTensor<Self>,
        weight: Matrix<Self>,
        bias: FloatTensor<Self>,
        epilogue: Epilogue<Self>,
    ) -> FloatTensor<Self> {
        let weight = match weight {
            Matrix::F32(weight) => weight,
            // A constant: training holds its weights in f32.
            Matrix::Packed {
                words,
                dtype,
                input,
            } => Self::from_inner(unpacked::<B>(words, dtype, input)),
            Matrix::Held(_) => unreachable!("only the browser's CPU holds its weights so"),
        };
        let (x, x_guard) = x.into_parts();
        let (weight, weight_guard) = weight.into_parts();
        let (bias, bias_guard) = bias.into_parts();
        let product = |epilogue| {
            let weight = Matrix::F32(weight.clone());
            B::siglip_linear(x.clone(), weight, bias.clone(), epilogue)
        };
        let guards: [NodeGuard; 3] = [x_guard, weight_guard, bias_guard];
        let state = |activation| LinearState {
            x: x.clone(),
            weight: weight.clone(),
            activation,
        };
        match epilogue {
            Epilogue::None => {
                finish!(LinearBackward, guards, state(None), product(Epilogue::None))
            }
            Epilogue::Activation(activation) => {
                let input = product(Epilogue::None);
                let output = B::activate(input.clone(), activation);
                let state = state(Some((activation, input)));
                finish!(LinearBackward, guards, state, output)
            }
            Epilogue::Add(residual) => {
                let (residual, residual_guard) = residual.into_parts();
                let [x_guard, weight_guard, bias_guard] = guards;
                let guards: [NodeGuard; 4] = [x_guard, weight_guard, bias_guard, residual_guard];
                let output = product(Epilogue::Add(residual));
                finish!(LinearResidualBackward, guards, state(None), output)
            }
        }
    }

    fn siglip_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self> {
        let (query, query_guard) = query.into_parts();
        let (key, key_guard) = key.into_parts();
        let (value, value_guard) = value.into_parts();
        let guards: [NodeGuard; 3] = [query_guard, key_guard, value_guard];
        let output = B::siglip_attention(query.clone(), key.clone(), value.clone(), heads);
        let state = AttentionState {
            query,
            key,
            value,
            heads,
        };
        finish!(AttentionBackward, guards, state, output)
    }

    fn siglip_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let (x, x_guard) = x.into_parts();
        let (gamma, gamma_guard) = gamma.into_parts();
        let (beta, beta_guard) = beta.into_parts();
        let guards: [NodeGuard; 3] = [x_guard, gamma_guard, beta_guard];
        let output = B::siglip_layer_norm(x.clone(), gamma.clone(), beta, epsilon);
        let state = LayerNormState { x, gamma, epsilon };
        finish!(LayerNormBackward, guards, state, output)
    }
}
