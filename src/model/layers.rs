//! The weight of a matrix product, and the two layers that everything else is made of.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{Activation, Role, Scope, Weights};
use crate::kernels::{self, Epilogue, HeldWeight, Matrix, PackedWeight};

/// A matrix `[output, input]`, as PyTorch and the checkpoints have it.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A few hundred in a model, each beside megabytes.
pub enum Weight {
    /// f32: exact, and what training differentiates.
    Plain(Param<Tensor<2>>),
    /// In fewer bits, for inference.
    Packed(PackedWeight),
    /// In any bits, for inference on the browser's CPU.
    Held(HeldWeight),
}

impl Weight {
    /// `[output, input]`.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Weight::Plain(weight) => weight.dims(),
            Weight::Packed(weight) => weight.dims(),
            Weight::Held(weight) => weight.dims,
        }
    }

    /// `x · weightᵀ + bias` with some of the outputs only.
    pub fn part<const D: usize>(
        &self,
        outputs: Range<usize>,
        x: Tensor<D>,
        bias: Tensor<1>,
    ) -> Tensor<D> {
        kernels::linear_part(x, self, bias, outputs)
    }
}

impl From<&Weight> for Matrix {
    fn from(weight: &Weight) -> Self {
        match weight {
            Weight::Plain(weight) => weight.val().into(),
            Weight::Packed(weight) => weight.into(),
            Weight::Held(weight) => weight.into(),
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
    /// Takes `weight` and `bias`.
    pub fn new(role: Role, input: usize, output: usize, mut weights: Scope<impl Weights>) -> Self {
        Self {
            weight: weights.weight("weight", role, [output, input]),
            bias: weights.tensor("bias", [output]),
        }
    }

    /// `[.., input]` → `[.., output]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.with_epilogue(x, Epilogue::None)
    }

    /// `[.., input]` → `[.., output]`, each value through `activation`.
    pub fn forward_activated<const D: usize>(
        &self,
        x: Tensor<D>,
        activation: Activation,
    ) -> Tensor<D> {
        self.with_epilogue(x, Epilogue::Activation(activation))
    }

    /// `residual + forward(x)`: the end of both halves of an encoder layer.
    pub fn forward_residual<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        self.with_epilogue(x, Epilogue::add(residual))
    }

    fn with_epilogue<const D: usize>(&self, x: Tensor<D>, epilogue: Epilogue) -> Tensor<D> {
        kernels::linear(x, &self.weight, self.bias.val(), epilogue)
    }
}

/// The results of three layers of the same shape for the same `x`: on the GPU in one go.
pub fn projections<const D: usize>(layers: [&Linear; 3], x: Tensor<D>) -> [Tensor<D>; 3] {
    let weights = layers.map(|layer| &layer.weight);
    kernels::projections(x, weights, layers.map(|layer| layer.bias.val()))
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
    /// Takes `weight` and `bias`.
    pub fn new(hidden: usize, epsilon: f64, mut weights: Scope<impl Weights>) -> Self {
        Self {
            gamma: weights.tensor("weight", [hidden]),
            beta: weights.tensor("bias", [hidden]),
            epsilon,
        }
    }

    /// `[.., hidden]` → `[.., hidden]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::layer_norm(x, self.gamma.val(), self.beta.val(), self.epsilon)
    }
}
