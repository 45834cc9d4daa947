//! The two towers of SigLIP in burn, and nothing about files or browsers.
//!
//! The paper is Zhai et al., *Sigmoid Loss for Language Image Pre-Training* (2023); the reference for names, shapes and
//! numbers is `models/siglip/modeling_siglip.py` of Hugging Face transformers. A forward pass is a few named steps so
//! that a caller can stop between two of them: `embed`, each of [`layers`](Encoder::layers), `pool`.

mod attention;
mod config;
mod encoder;
mod layers;
pub mod positions;
mod text;
mod vision;
mod weights;

pub use crate::kernels::Activation;
pub use attention::{Attention, AttentionPooling, Pooled};
pub use config::{ClassifierConfig, EncoderConfig, SiglipConfig, TextConfig, VisionConfig};
pub use encoder::{Encoder, EncoderLayer, Mlp};
pub use layers::{LayerNorm, Linear, Weight};
pub use text::TextTower;
pub use vision::{ClassifierHead, Head, VisionTower};
pub use weights::{
    Parameter, ParameterSpec, Role, Scope, Weights, parameters, values, vision_parameters,
};

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

/// Both towers and the two learned numbers that turn a cosine into a logit.
#[derive(Module, Debug)]
pub struct Siglip {
    /// Pictures to embeddings; in a fine-tuned classifier, to logits.
    pub vision: VisionTower,
    /// Labels to embeddings; none in a model for labels that were embedded before, nor in a fine-tuned classifier.
    pub text: Option<TextTower>,
    /// What makes a logit of a cosine; none in a fine-tuned classifier.
    pub scale: Option<LogitScale>,
}

/// The learned numbers between a cosine and a logit.
#[derive(Module, Debug)]
pub struct LogitScale {
    /// Logarithm of the factor on the cosine, `[1]`; about `ln 117` after training.
    pub logit_scale: Param<Tensor<1>>,
    /// Added to every logit, `[1]`; about −12.9 after training.
    pub logit_bias: Param<Tensor<1>>,
}

impl Siglip {
    /// Builds the model, asking `weights` for every parameter by its name in a Hub checkpoint, and whether there are any of a text
    /// tower.
    pub fn new(config: &SiglipConfig, weights: &mut impl Weights) -> Self {
        let labels = config.classifier.as_ref();
        let labels = labels.map(|classifier| classifier.labels.len());
        let has_text = labels.is_none() && weights.has_text();
        let mut weights = Scope::new(weights);
        Self {
            vision: VisionTower::new(&config.vision, labels, weights.at("vision_model")),
            text: has_text.then(|| TextTower::new(&config.text, weights.at("text_model"))),
            scale: labels.is_none().then(|| LogitScale {
                logit_scale: weights.tensor("logit_scale", [1]),
                logit_bias: weights.tensor("logit_bias", [1]),
            }),
        }
    }

    /// `pixel_values [batch, 3, height, width]` → unit-length embeddings `[batch, hidden]`.
    pub fn embed_images(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        normalize(self.vision.forward(pixel_values))
    }

    /// `input_ids [batch, context]` → unit-length embeddings `[batch, hidden]`.
    ///
    /// # Panics
    /// If the model has no text tower.
    pub fn embed_texts(&self, input_ids: Tensor<2, Int>) -> Tensor<2> {
        let text = self.text.as_ref().expect("a model with a text tower");
        normalize(text.forward(input_ids))
    }

    /// Logits `[images, texts]` of unit-length embeddings: `exp(logit_scale) · cos + logit_bias`.
    ///
    /// # Panics
    /// If the model is a fine-tuned classifier.
    pub fn logits(&self, images: Tensor<2>, texts: Tensor<2>) -> Tensor<2> {
        let scale = self.scale.as_ref().expect("a model with both towers");
        images.matmul(texts.transpose()) * scale.logit_scale.val().exp().unsqueeze()
            + scale.logit_bias.val().unsqueeze()
    }
}

/// Each row of `[rows, hidden]` divided by its Euclidean length.
pub fn normalize(rows: Tensor<2>) -> Tensor<2> {
    let length = rows.clone().square().sum_dim(1).sqrt();
    rows / length
}
