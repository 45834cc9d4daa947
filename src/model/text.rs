//! The text tower: tokens, encoder, last position through the head (`SiglipTextModel`).

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use super::{Encoder, EncoderLayer, LayerNorm, Linear, Role, Scope, TextConfig, Weights};
use crate::kernels;

/// A text transformer without a mask: padding is attended like any token, as in training.
#[derive(Module, Debug)]
pub struct TextTower {
    /// `[vocabulary, hidden]`; none where the rows that a text needs come from elsewhere, because the table is packed, too large
    /// for one GPU binding, or not here at all.
    pub token_embedding: Option<Param<Tensor<2>>>,
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
    /// Takes `embeddings`, `encoder`, `final_layer_norm` and `head`.
    pub fn new(config: &TextConfig, mut weights: Scope<impl Weights>) -> Self {
        let encoder = &config.encoder;
        let (hidden, eps) = (encoder.hidden_size, encoder.layer_norm_eps);
        let (vocabulary, context) = (config.vocab_size, config.max_position_embeddings);
        let mut embeddings = weights.at("embeddings");
        Self {
            token_embedding: embeddings.table("token_embedding.weight", [vocabulary, hidden]),
            position_embedding: embeddings.tensor("position_embedding.weight", [context, hidden]),
            encoder: Encoder::new(encoder, weights.at("encoder")),
            final_layer_norm: LayerNorm::new(hidden, eps, weights.at("final_layer_norm")),
            head: Linear::new(
                Role::Head,
                hidden,
                config.projection_size(),
                weights.at("head"),
            ),
        }
    }

    /// `input_ids [batch, tokens]` → token + position embeddings `[batch, tokens, hidden]`.
    ///
    /// # Panics
    /// If the token table is not here.
    pub fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        let table = self.token_embedding.as_ref().expect("a token table");
        self.embed_rows(kernels::gather(table.val(), input_ids))
    }

    /// Rows of the token table `[batch, tokens, hidden]` → token + position embeddings, of the same shape.
    pub fn embed_rows(&self, rows: Tensor<3>) -> Tensor<3> {
        let [_, tokens, _] = rows.dims();
        let positions = self.position_embedding.val();
        kernels::add_rows(rows, kernels::take_rows(positions, 0, 1, tokens))
    }

    /// The layers that work on all positions.
    pub fn body(&self) -> &[EncoderLayer] {
        self.layers().1
    }

    /// The layer behind them, of which [`pool`](Self::pool) needs a single position.
    pub fn last_layer(&self) -> &EncoderLayer {
        self.layers().0
    }

    fn layers(&self) -> (&EncoderLayer, &[EncoderLayer]) {
        let layers = self.encoder.layers.split_last();
        layers.expect("a configuration has a layer at least")
    }

    /// The result of [`body`](Self::body), `[batch, tokens, hidden]` → one vector per text `[batch, projection]`, not normalised: the last layer's last
    /// position through the head.
    pub fn pool(&self, x: Tensor<3>) -> Tensor<2> {
        let [batch, _, hidden] = x.dims();
        let x = kernels::reshape(self.last_layer().forward_last(x), [batch, hidden]);
        self.head.forward(self.final_layer_norm.forward(x))
    }

    /// `input_ids [batch, tokens]` → `[batch, projection]`, not normalised.
    pub fn forward(&self, input_ids: Tensor<2, Int>) -> Tensor<2> {
        let layers = self.body().iter();
        self.pool(layers.fold(self.embed(input_ids), |x, layer| layer.forward(x)))
    }
}
