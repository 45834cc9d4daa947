//! Self-attention of the encoder, and the attention pooling at the end of the vision tower.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::encoder::last;
use super::layers::projections;
use super::{EncoderConfig, LayerNorm, Linear, Mlp, Role, Scope, Weight, Weights};
use crate::kernels;

/// Multi-head self-attention (`SiglipAttention`): every position sees every position, no mask.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries.
    pub q_proj: Linear,
    /// Keys.
    pub k_proj: Linear,
    /// Values.
    pub v_proj: Linear,
    /// The heads' results back to the hidden size.
    pub out_proj: Linear,
    /// Number of heads.
    pub heads: usize,
}

impl Attention {
    /// Takes `q_proj`, `k_proj`, `v_proj` and `out_proj`.
    pub fn new(config: &EncoderConfig, mut weights: Scope<impl Weights>) -> Self {
        let h = config.hidden_size;
        Self {
            q_proj: Linear::new(Role::Query, h, h, weights.at("q_proj")),
            k_proj: Linear::new(Role::Key, h, h, weights.at("k_proj")),
            v_proj: Linear::new(Role::Value, h, h, weights.at("v_proj")),
            out_proj: Linear::new(Role::OutProjection, h, h, weights.at("out_proj")),
            heads: config.num_attention_heads,
        }
    }

    /// What the heads find, before it is projected: `[batch, tokens, hidden]` → the same.
    pub fn attend(&self, x: Tensor<3>) -> Tensor<3> {
        let [query, key, value] = projections([&self.q_proj, &self.k_proj, &self.v_proj], x);
        kernels::attention(query, key, value, self.heads)
    }

    /// What the heads find for the last position alone: `[batch, tokens, hidden]` → `[batch, 1, hidden]`.
    pub fn attend_last(&self, x: Tensor<3>) -> Tensor<3> {
        let query = self.q_proj.forward(last(x.clone()));
        let (key, value) = (self.k_proj.forward(x.clone()), self.v_proj.forward(x));
        kernels::attention(query, key, value, self.heads)
    }

    /// `residual + attention(x)`, all `[batch, tokens, hidden]`.
    pub fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.out_proj.forward_residual(self.attend(x), residual)
    }
}

/// The vision tower's head (`SiglipMultiheadAttentionPoolingHead`): one learned query, the probe, attends over all
/// patches; then norm, MLP and residual.
#[derive(Module, Debug)]
pub struct AttentionPooling {
    /// The learned query, `[1, 1, hidden]`.
    pub probe: Param<Tensor<3>>,
    /// Query, key and value projections in one matrix, `[3 · hidden, hidden]`.
    pub in_proj_weight: Weight,
    /// Their biases, `[3 · hidden]`.
    pub in_proj_bias: Param<Tensor<1>>,
    /// The heads' results back to the hidden size.
    pub out_proj: Linear,
    /// Before the MLP.
    pub layernorm: LayerNorm,
    /// Added to its own input.
    pub mlp: Mlp,
    /// Number of heads.
    pub heads: usize,
}

impl AttentionPooling {
    /// Takes `probe`, `attention`, `layernorm` and `mlp`.
    pub fn new(config: &EncoderConfig, mut weights: Scope<impl Weights>) -> Self {
        let (h, eps) = (config.hidden_size, config.layer_norm_eps);
        let probe = weights.tensor("probe", [1, 1, h]);
        let mut attention = weights.at("attention");
        Self {
            probe,
            in_proj_weight: attention.weight("in_proj_weight", Role::InProjection, [3 * h, h]),
            in_proj_bias: attention.tensor("in_proj_bias", [3 * h]),
            out_proj: Linear::new(Role::OutProjection, h, h, attention.at("out_proj")),
            layernorm: LayerNorm::new(h, eps, weights.at("layernorm")),
            mlp: Mlp::new(config, weights.at("mlp")),
            heads: config.num_attention_heads,
        }
    }

    /// Of `x [batch, patches, hidden]`.
    pub fn project(&self, x: Tensor<3>) -> Pooled {
        let hidden = self.probe.dims()[2];
        let part = |input: Tensor<3>, part: usize| {
            let rows = part * hidden..(part + 1) * hidden;
            let bias = self.in_proj_bias.val();
            self.in_proj_weight.part(rows, input, bias)
        };
        Pooled {
            query: part(self.probe.val(), 0),
            key: part(x.clone(), 1),
            value: part(x, 2),
        }
    }

    /// What the probe finds: `[batch, patches, hidden]` → `[batch, 1, hidden]`.
    pub fn attend(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, _, hidden] = x.dims();
        let Pooled { query, key, value } = self.project(x);
        let query = kernels::reshape(query, [1, hidden]);
        // One probe for every picture.
        let query = match batch {
            1 => query,
            _ => kernels::take_rows(query, 0, 0, batch),
        };
        let query = kernels::reshape(query, [batch, 1, hidden]);
        let attended = kernels::attention(query, key, value, self.heads);
        self.out_proj.forward(attended)
    }

    /// What comes after [`attend`](Self::attend): `[batch, n, hidden]` → the same shape.
    pub fn finish(&self, attended: Tensor<3>) -> Tensor<3> {
        let normalized = self.layernorm.forward(attended.clone());
        self.mlp.forward(normalized, attended)
    }

    /// `[batch, patches, hidden]` → `[batch, hidden]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let [batch, _, hidden] = x.dims();
        kernels::reshape(self.finish(self.attend(x)), [batch, hidden])
    }
}

/// What the pooling head's attention works on.
pub struct Pooled {
    /// The probe's, `[1, 1, hidden]`.
    pub query: Tensor<3>,
    /// `[batch, patches, hidden]`.
    pub key: Tensor<3>,
    /// `[batch, patches, hidden]`.
    pub value: Tensor<3>,
}
