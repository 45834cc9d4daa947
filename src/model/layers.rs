//! The two layers that everything else is made of.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{Activation, Weights};
use crate::kernels;

/// `y = x · weightᵀ + bias`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[output, input]`, as PyTorch and the checkpoints have it.
    pub weight: Param<Tensor<2>>,
    /// `[output]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// Takes `{name}.weight` and `{name}.bias`.
    pub fn new(name: &str, input: usize, output: usize, weights: &mut impl Weights) -> Self {
        Self {
            weight: Param::from_tensor(weights.tensor(&format!("{name}.weight"), [output, input])),
            bias: Param::from_tensor(weights.tensor(&format!("{name}.bias"), [output])),
        }
    }

    /// `[.., input]` → `[.., output]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::linear(x, self.weight.val(), self.bias.val(), None, None)
    }

    /// `[.., input]` → `[.., output]`, each value through `activation`.
    pub fn forward_activated<const D: usize>(
        &self,
        x: Tensor<D>,
        activation: Activation,
    ) -> Tensor<D> {
        kernels::linear(
            x,
            self.weight.val(),
            self.bias.val(),
            Some(activation),
            None,
        )
    }

    /// `residual + forward(x)`: the end of both halves of an encoder layer.
    pub fn forward_residual<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        kernels::linear(x, self.weight.val(), self.bias.val(), None, Some(residual))
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
