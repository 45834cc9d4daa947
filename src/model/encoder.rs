//! The encoder that both towers share.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{Activation, Attention, EncoderConfig, LayerNorm, Linear, Weights};

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
    /// Takes `{name}.fc1` and `{name}.fc2`.
    pub fn new(name: &str, config: &EncoderConfig, weights: &mut impl Weights) -> Self {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        Self {
            fc1: Linear::new(&format!("{name}.fc1"), hidden, intermediate, weights),
            fc2: Linear::new(&format!("{name}.fc2"), intermediate, hidden, weights),
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
    /// Takes `{name}.layer_norm1` … `{name}.mlp`.
    pub fn new(name: &str, config: &EncoderConfig, weights: &mut impl Weights) -> Self {
        let (hidden, eps) = (config.hidden_size, config.layer_norm_eps);
        Self {
            layer_norm1: LayerNorm::new(&format!("{name}.layer_norm1"), hidden, eps, weights),
            self_attn: Attention::new(&format!("{name}.self_attn"), config, weights),
            layer_norm2: LayerNorm::new(&format!("{name}.layer_norm2"), hidden, eps, weights),
            mlp: Mlp::new(&format!("{name}.mlp"), config, weights),
        }
    }

    /// `[batch, tokens, hidden]` → the same.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self
            .self_attn
            .forward(self.layer_norm1.forward(x.clone()), x);
        self.mlp.forward(self.layer_norm2.forward(x.clone()), x)
    }
}

/// The stack of layers (`SiglipEncoder`).
#[derive(Module, Debug)]
pub struct Encoder {
    /// In order.
    pub layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// Takes `{name}.layers.0` … as many as the configuration says.
    pub fn new(name: &str, config: &EncoderConfig, weights: &mut impl Weights) -> Self {
        let layer = |i| EncoderLayer::new(&format!("{name}.layers.{i}"), config, weights);
        Self {
            layers: (0..config.num_hidden_layers).map(layer).collect(),
        }
    }

    /// `[batch, tokens, hidden]` → the same, through all layers.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x))
    }
}
