//! The text tower: tokens, encoder, last position through the head (`SiglipTextModel`).

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, module::embedding};

use super::{Encoder, LayerNorm, Linear, TextConfig, Weights};

/// A text transformer without a mask: padding is attended like any token, as in training.
#[derive(Module, Debug)]
pub struct TextTower {
    /// `[vocabulary, hidden]`. May live on another device than the rest: a table too large for one GPU binding stays with
    /// the CPU, which gathers the few rows that a label needs.
    pub token_embedding: Param<Tensor<2>>,
    /// `[context, hidden]`.
    pub position_embedding: Param<Tensor<2>>,
    /// The layers.
    pub encoder: Encoder,
    /// After the last layer.
    pub final_layer_norm: LayerNorm,
    /// To the size that both towers share.
    pub head: Linear,
}

impl TextTower {
    /// Takes every `text_model.*` parameter.
    pub fn new(config: &TextConfig, weights: &mut impl Weights) -> Self {
        let encoder = &config.encoder;
        let hidden = encoder.hidden_size;
        let name = "text_model";
        Self {
            token_embedding: Param::from_tensor(weights.tensor(
                &format!("{name}.embeddings.token_embedding.weight"),
                [config.vocab_size, hidden],
            )),
            position_embedding: Param::from_tensor(weights.tensor(
                &format!("{name}.embeddings.position_embedding.weight"),
                [config.max_position_embeddings, hidden],
            )),
            encoder: Encoder::new(&format!("{name}.encoder"), encoder, weights),
            final_layer_norm: LayerNorm::new(
                &format!("{name}.final_layer_norm"),
                hidden,
                encoder.layer_norm_eps,
                weights,
            ),
            head: Linear::new(
                &format!("{name}.head"),
                hidden,
                config.projection_size(),
                weights,
            ),
        }
    }

    /// `input_ids [batch, tokens]` → token + position embeddings `[batch, tokens, hidden]`.
    pub fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, tokens] = input_ids.dims();
        let table = self.token_embedding.val();
        let positions = self.position_embedding.val();
        let rows = embedding(table.clone(), input_ids.to_device(&table.device()));
        let [_, hidden] = positions.dims();
        rows.to_device(&positions.device()) + positions.slice([0..tokens, 0..hidden]).unsqueeze()
    }

    /// The encoder's result `[batch, tokens, hidden]` → one vector per text `[batch, projection]`, not normalised.
    pub fn pool(&self, x: Tensor<3>) -> Tensor<2> {
        let [batch, tokens, hidden] = x.dims();
        // Only the last position is used, and the norm works on each position by itself.
        let last = x
            .slice([0..batch, tokens - 1..tokens, 0..hidden])
            .reshape([batch, hidden]);
        self.head.forward(self.final_layer_norm.forward(last))
    }

    /// `input_ids [batch, tokens]` → `[batch, projection]`, not normalised.
    pub fn forward(&self, input_ids: Tensor<2, Int>) -> Tensor<2> {
        self.pool(self.encoder.forward(self.embed(input_ids)))
    }
}
