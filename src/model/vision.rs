//! The vision tower: patches, encoder, attention pooling (`SiglipVisionModel`).

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{
    AttentionPooling, Encoder, LayerNorm, Pooled, Role, Scope, VisionConfig, Weight, Weights,
};
use crate::kernels::{self, Epilogue};

/// A vision transformer that sees the picture as a grid of square patches.
#[derive(Module, Debug)]
pub struct VisionTower {
    /// The patch convolution's kernels, `[hidden, channels · patch · patch]`; its stride is its size.
    pub patch_embedding_weight: Weight,
    /// `[hidden]`.
    pub patch_embedding_bias: Param<Tensor<1>>,
    /// `[patches, hidden]`.
    pub position_embedding: Param<Tensor<2>>,
    /// The layers.
    pub encoder: Encoder,
    /// After the last layer.
    pub post_layernorm: LayerNorm,
    /// All patches to one vector.
    pub head: AttentionPooling,
    /// Height and width of a patch in pixels.
    pub patch_size: usize,
}

impl VisionTower {
    /// Takes `embeddings`, `encoder`, `post_layernorm` and `head`.
    pub fn new(config: &VisionConfig, mut weights: Scope<impl Weights>) -> Self {
        let (encoder, patch) = (&config.encoder, config.patch_size);
        let (hidden, eps) = (encoder.hidden_size, encoder.layer_norm_eps);
        let convolution = [hidden, config.num_channels, patch, patch];
        let positions = [config.num_patches(), hidden];
        let mut embeddings = weights.at("embeddings");
        let mut patches = embeddings.at("patch_embedding");
        Self {
            patch_embedding_weight: patches.weight("weight", Role::PatchEmbedding, convolution),
            patch_embedding_bias: patches.tensor("bias", [hidden]),
            position_embedding: embeddings.tensor("position_embedding.weight", positions),
            encoder: Encoder::new(encoder, weights.at("encoder")),
            post_layernorm: LayerNorm::new(hidden, eps, weights.at("post_layernorm")),
            head: AttentionPooling::new(encoder, weights.at("head")),
            patch_size: patch,
        }
    }

    /// `pixel_values [batch, channels, height, width]` → patch + position embeddings `[batch, patches, hidden]`.
    ///
    /// Pixels to the right and below that don't fill a patch are not seen, as in a convolution without padding.
    pub fn embed(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        // A convolution whose stride is its kernel size is a matrix product over the unfolded patches.
        let patches = kernels::patches(pixel_values, self.patch_size);
        let (weight, bias) = (
            &self.patch_embedding_weight,
            self.patch_embedding_bias.val(),
        );
        let embedded = kernels::linear(patches, weight, bias, Epilogue::None);
        kernels::add_rows(embedded, self.position_embedding.val())
    }

    /// The encoder's result `[batch, patches, hidden]` → one vector per picture `[batch, hidden]`, not normalised.
    pub fn pool(&self, x: Tensor<3>) -> Tensor<2> {
        self.head.forward(self.post_layernorm.forward(x))
    }

    /// The encoder's result `[batch, patches, hidden]` → what the pooling head's attention works on.
    pub fn pooling(&self, x: Tensor<3>) -> Pooled {
        self.head.project(self.post_layernorm.forward(x))
    }

    /// `pixel_values [batch, channels, height, width]` → `[batch, hidden]`, not normalised.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        self.pool(self.encoder.forward(self.embed(pixel_values)))
    }
}
