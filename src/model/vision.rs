//! The vision tower: patches, encoder, and a head: attention pooling (`SiglipVisionModel`), or a fine-tuned classifier's
//! (`SiglipForImageClassification`).

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{
    AttentionPooling, Encoder, EncoderConfig, LayerNorm, Linear, Role, Scope, VisionConfig, Weight,
    Weights,
};
use crate::kernels::{self, Epilogue};

/// A fine-tuned classifier's head: a logit for each label, from the mean of all patches.
#[derive(Module, Debug)]
pub struct ClassifierHead {
    /// `hidden → labels`.
    pub classifier: Linear,
    /// Number of the encoder's attention heads.
    pub heads: usize,
}

impl ClassifierHead {
    /// Takes `classifier`.
    pub fn new(config: &EncoderConfig, labels: usize, mut weights: Scope<impl Weights>) -> Self {
        let scope = weights.at("classifier");
        Self {
            classifier: Linear::new(Role::Classifier, config.hidden_size, labels, scope),
            heads: config.num_attention_heads,
        }
    }

    /// `[batch, patches, hidden]` → `[batch, labels]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        self.classifier.forward(self.mean(x))
    }

    /// Of all patches: `[batch, patches, hidden]` → `[batch, hidden]`.
    fn mean(&self, x: Tensor<3>) -> Tensor<2> {
        let [batch, patches, hidden] = x.dims();
        if patches == 1 {
            return kernels::reshape(x, [batch, hidden]);
        }
        let rows = kernels::reshape(x.clone(), [batch * patches, hidden]);
        let repeated = |row: usize, count: usize| {
            let rows = kernels::take_rows(rows.clone(), row, 0, batch * count);
            kernels::reshape(rows, [batch, count, hidden])
        };
        // Attention to keys that are all the same sees every value alike, whatever the query.
        let (query, key) = (repeated(1, 1), repeated(0, patches));
        let mean = kernels::attention(query, key, x, self.heads);
        kernels::reshape(mean, [batch, hidden])
    }
}

/// What makes one vector of a picture's patches.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // One in a model.
pub enum Head {
    /// An embedding.
    Pooling(AttentionPooling),
    /// The logits of a fine-tuned classifier.
    Classifier(ClassifierHead),
}

impl Head {
    /// `[batch, patches, hidden]` → `[batch, hidden]`, or `[batch, labels]` of a classifier.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        match self {
            Head::Pooling(head) => head.forward(x),
            Head::Classifier(head) => head.forward(x),
        }
    }
}

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
    pub head: Head,
    /// Height and width of a patch in pixels.
    pub patch_size: usize,
}

impl VisionTower {
    /// Takes `embeddings`, `encoder`, `post_layernorm` and `head`; with a number of labels, the whole model's `classifier` in the place of the
    /// last.
    pub fn new(
        config: &VisionConfig,
        labels: Option<usize>,
        mut weights: Scope<impl Weights>,
    ) -> Self {
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
            head: match labels {
                None => Head::Pooling(AttentionPooling::new(encoder, weights.at("head"))),
                Some(labels) => {
                    Head::Classifier(ClassifierHead::new(encoder, labels, weights.whole()))
                }
            },
            patch_size: patch,
        }
    }

    /// `pixel_values [batch, channels, height, width]` → patch + position embeddings `[batch, patches, hidden]`.
    ///
    /// Pixels to the right and below that don't fill a patch are not seen, as in a convolution without padding.
    pub fn embed(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        self.embed_at(pixel_values, self.position_embedding.val())
    }

    /// The same with a position table for these pictures, `[patches, hidden]`; see [`positions`](super::positions).
    pub fn embed_at(&self, pixel_values: Tensor<4>, positions: Tensor<2>) -> Tensor<3> {
        // A convolution whose stride is its kernel size is a matrix product over the unfolded patches.
        let patches = kernels::patches(pixel_values, self.patch_size);
        let (weight, bias) = (
            &self.patch_embedding_weight,
            self.patch_embedding_bias.val(),
        );
        let embedded = kernels::linear(patches, weight, bias, Epilogue::None);
        kernels::add_rows(embedded, positions)
    }

    /// The encoder's result `[batch, patches, hidden]` → one vector per picture: `[batch, hidden]`, not normalised, or a classifier's logits
    /// `[batch, labels]`.
    pub fn pool(&self, x: Tensor<3>) -> Tensor<2> {
        self.head.forward(self.post_layernorm.forward(x))
    }

    /// `pixel_values [batch, channels, height, width]` → as [`pool`](Self::pool).
    pub fn forward(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        self.pool(self.encoder.forward(self.embed(pixel_values)))
    }
}
