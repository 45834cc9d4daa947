//! The encoder that both towers share.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{Activation, Attention, EncoderConfig, LayerNorm, Linear, Role, Scope, Weights};
use crate::kernels;

/// Two linear layers with the activation between (`SiglipMLP`).
#[derive(Module, Debug)]
pub struct Mlp {
    /// `hidden → intermediate`.
    pub fc1: Linear,
    /// `intermediate → hidden`.
    pub fc2: Linear,
    /// Between the two.
    #[module(skip)]
    pub activation: Activation,
}

impl Mlp {
    /// Takes `fc1` and `fc2`.
    pub fn new(config: &EncoderConfig, mut weights: Scope<impl Weights>) -> Self {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        Self {
            fc1: Linear::new(Role::Mlp, hidden, intermediate, weights.at("fc1")),
            fc2: Linear::new(Role::Mlp, intermediate, hidden, weights.at("fc2")),
            activation: config.hidden_act,
        }
    }

    /// `residual + mlp(x)`, all `[batch, tokens, hidden]`.
    pub fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.fc2
            .forward_residual(self.fc1.forward_activated(x, self.activation), residual)
    }
}

/// One pre-norm transformer layer (`SiglipEncoderLayer`).
#[derive(Module, Debug)]
pub struct EncoderLayer {
    /// Before the attention.
    pub layer_norm1: LayerNorm,
    /// Mixes the positions.
    pub self_attn: Attention,
    /// Before the MLP.
    pub layer_norm2: LayerNorm,
    /// Works on each position by itself.
    pub mlp: Mlp,
}

impl EncoderLayer {
    /// Takes `layer_norm1`, `self_attn`, `layer_norm2` and `mlp`.
    pub fn new(config: &EncoderConfig, mut weights: Scope<impl Weights>) -> Self {
        let (hidden, eps) = (config.hidden_size, config.layer_norm_eps);
        Self {
            layer_norm1: LayerNorm::new(hidden, eps, weights.at("layer_norm1")),
            self_attn: Attention::new(config, weights.at("self_attn")),
            layer_norm2: LayerNorm::new(hidden, eps, weights.at("layer_norm2")),
            mlp: Mlp::new(config, weights.at("mlp")),
        }
    }

    /// `[batch, tokens, hidden]` → the same.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.finish(self.attend(x.clone()), x)
    }

    /// What [`forward`](Self::forward) gives at the last position, all that pooling takes of a text, with nothing computed for the others but their
    /// keys and values: `[batch, tokens, hidden]` → `[batch, 1, hidden]`.
    pub fn forward_last(&self, x: Tensor<3>) -> Tensor<3> {
        let attended = self
            .self_attn
            .attend_last(self.layer_norm1.forward(x.clone()));
        self.finish(attended, last(x))
    }

    /// What the heads find in `x`; see [`Attention::attend`].
    pub fn attend(&self, x: Tensor<3>) -> Tensor<3> {
        self.self_attn.attend(self.layer_norm1.forward(x))
    }

    /// What the layer makes of `x` with what its heads found: each position by itself.
    pub fn finish(&self, attended: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
        let x = self.self_attn.out_proj.forward_residual(attended, x);
        self.mlp.forward(self.layer_norm2.forward(x.clone()), x)
    }
}

/// The last position of `x [batch, tokens, hidden]`: `[batch, 1, hidden]`.
pub(super) fn last(x: Tensor<3>) -> Tensor<3> {
    let [batch, tokens, hidden] = x.dims();
    let rows = kernels::reshape(x, [batch * tokens, hidden]);
    let last = kernels::take_rows(rows, tokens - 1, tokens, batch);
    kernels::reshape(last, [batch, 1, hidden])
}

/// The stack of layers (`SiglipEncoder`).
#[derive(Module, Debug)]
pub struct Encoder {
    /// In order.
    pub layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// Takes `layers.0` … as many as the configuration says.
    pub fn new(config: &EncoderConfig, mut weights: Scope<impl Weights>) -> Self {
        let count = config.num_hidden_layers;
        let layer = |i| EncoderLayer::new(config, weights.layer(i, count));
        Self {
            layers: (0..count).map(layer).collect(),
        }
    }

    /// `[batch, tokens, hidden]` → the same, through all layers.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x))
    }
}
