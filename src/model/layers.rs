//! The weight of a matrix product, and the two layers that everything else is made of.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{Activation, Weights};
use crate::kernels::{self, PackedWeight};

/// A matrix `[output, input]`, as PyTorch and the checkpoints have it.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A few hundred in a model, each beside megabytes.
pub enum Weight {
    /// f32: exact, and what training differentiates.
    Plain(Param<Tensor<2>>),
    /// In fewer bits, for inference.
    Packed(PackedWeight),
}

impl Weight {
    /// `[output, input]`.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Weight::Plain(weight) => weight.dims(),
            Weight::Packed(weight) => weight.dims(),
        }
    }

    /// `x · weightᵀ + bias`, then `activation`, or added to `residual`; see [`kernels::linear`].
    pub fn product<const D: usize>(
        &self,
        x: Tensor<D>,
        bias: Tensor<1>,
        activation: Option<Activation>,
        residual: Option<Tensor<D>>,
    ) -> Tensor<D> {
        match self {
            Weight::Plain(weight) => kernels::linear(x, weight.val(), bias, activation, residual),
            Weight::Packed(weight) => kernels::linear_packed(x, weight, bias, activation, residual),
        }
    }

    /// `x · weightᵀ + bias` with some of the outputs only.
    pub fn part<const D: usize>(
        &self,
        outputs: Range<usize>,
        x: Tensor<D>,
        bias: Tensor<1>,
    ) -> Tensor<D> {
        match self {
            Weight::Plain(weight) => kernels::linear_part(x, weight.val(), bias, outputs),
            Weight::Packed(weight) => kernels::linear_packed_part(x, weight, bias, outputs),
        }
    }
}

/// `y = x · weightᵀ + bias`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[output, input]`.
    pub weight: Weight,
    /// `[output]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// Takes `{name}.weight` and `{name}.bias`.
    pub fn new(name: &str, input: usize, output: usize, weights: &mut impl Weights) -> Self {
        Self {
            weight: weights.weight(&format!("{name}.weight"), [output, input]),
            bias: Param::from_tensor(weights.tensor(&format!("{name}.bias"), [output])),
        }
    }

    /// `[.., input]` → `[.., output]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.weight.product(x, self.bias.val(), None, None)
    }

    /// `[.., input]` → `[.., output]`, each value through `activation`.
    pub fn forward_activated<const D: usize>(
        &self,
        x: Tensor<D>,
        activation: Activation,
    ) -> Tensor<D> {
        self.weight
            .product(x, self.bias.val(), Some(activation), None)
    }

    /// `residual + forward(x)`: the end of both halves of an encoder layer.
    pub fn forward_residual<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        self.weight
            .product(x, self.bias.val(), None, Some(residual))
    }
}

/// The results of three layers of the same shape for the same `x`: on the GPU in one go.
pub fn projections<const D: usize>(layers: [&Linear; 3], x: Tensor<D>) -> [Tensor<D>; 3] {
    let biases = layers.map(|layer| layer.bias.val());
    match layers.map(|layer| &layer.weight) {
        [Weight::Plain(q), Weight::Plain(k), Weight::Plain(v)] => {
            kernels::projections(x, [q.val(), k.val(), v.val()], biases)
        }
        [Weight::Packed(q), Weight::Packed(k), Weight::Packed(v)]
            if q.dtype == k.dtype && k.dtype == v.dtype =>
        {
            kernels::projections_packed(x, [q, k, v], biases)
        }
        _ => layers.map(|layer| layer.forward(x.clone())),
    }
}

/// Normalisation over the last dimension with a learned scale and offset.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[hidden]`.
    pub gamma: Param<Tensor<1>>,
    /// `[hidden]`.
    pub beta: Param<Tensor<1>>,
    /// Added to the variance; from the configuration.
    pub epsilon: f64,
}

impl LayerNorm {
    /// Takes `{name}.weight` and `{name}.bias`.
    pub fn new(name: &str, hidden: usize, epsilon: f64, weights: &mut impl Weights) -> Self {
        Self {
            gamma: Param::from_tensor(weights.tensor(&format!("{name}.weight"), [hidden])),
            beta: Param::from_tensor(weights.tensor(&format!("{name}.bias"), [hidden])),
            epsilon,
        }
    }

    /// `[.., hidden]` → `[.., hidden]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::layer_norm(x, self.gamma.val(), self.beta.val(), self.epsilon)
    }
}
