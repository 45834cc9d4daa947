//! The vision tower: patches, encoder, attention pooling (`SiglipVisionModel`).

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{AttentionPooling, Encoder, LayerNorm, VisionConfig, Weight, Weights};
use crate::kernels;

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
    /// Takes every `vision_model.*` parameter.
    pub fn new(config: &VisionConfig, weights: &mut impl Weights) -> Self {
        let encoder = &config.encoder;
        let (hidden, patch) = (encoder.hidden_size, config.patch_size);
        let name = "vision_model";
        Self {
            patch_embedding_weight: weights.weight(
                &format!("{name}.embeddings.patch_embedding.weight"),
                [hidden, config.num_channels, patch, patch],
            ),
            patch_embedding_bias: Param::from_tensor(
                weights.tensor(&format!("{name}.embeddings.patch_embedding.bias"), [hidden]),
            ),
            position_embedding: Param::from_tensor(weights.tensor(
                &format!("{name}.embeddings.position_embedding.weight"),
                [config.num_patches(), hidden],
            )),
            encoder: Encoder::new(&format!("{name}.encoder"), encoder, weights),
            post_layernorm: LayerNorm::new(
                &format!("{name}.post_layernorm"),
                hidden,
                encoder.layer_norm_eps,
                weights,
            ),
            head: AttentionPooling::new(&format!("{name}.head"), encoder, weights),
            patch_size: patch,
        }
    }

    /// `pixel_values [batch, channels, height, width]` → patch + position embeddings `[batch, patches, hidden]`.
    ///
    /// Pixels to the right and below that don't fill a patch are not seen, as in a convolution without padding.
    pub fn embed(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        // A convolution whose stride is its kernel size is a matrix product over the unfolded patches.
        let patches = kernels::patches(pixel_values, self.patch_size);
        let bias = self.patch_embedding_bias.val();
        let embedded = self
            .patch_embedding_weight
            .product(patches, bias, None, None);
        kernels::add_rows(embedded, self.position_embedding.val())
    }

    /// The encoder's result `[batch, patches, hidden]` → one vector per picture `[batch, hidden]`, not normalised.
    pub fn pool(&self, x: Tensor<3>) -> Tensor<2> {
        self.head.forward(self.post_layernorm.forward(x))
    }

    /// `pixel_values [batch, channels, height, width]` → `[batch, hidden]`, not normalised.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        self.pool(self.encoder.forward(self.embed(pixel_values)))
    }
}
