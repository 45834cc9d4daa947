//! How a model gets its parameters: it asks for each by name and shape.

use burn::module::Param;
use burn::tensor::{Device, Tensor};

use super::{Siglip, SiglipConfig, Weight};

/// Where a model's parameters come from: a checkpoint, an initialiser, a recorder.
pub trait Weights {
    /// The parameter `name`, of exactly `shape`.
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D>;

    /// The weight of a matrix product, of `shape`: `[output, ..]`, whose dimensions after the first are summed over together.
    fn weight<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Weight {
        let matrix = [shape[0], shape[1..].iter().product()];
        Weight::Plain(Param::from_tensor(self.tensor(name, shape).reshape(matrix)))
    }

    /// The token table, or none if its rows will come from elsewhere (see [`TextTower::embed_rows`](super::TextTower::embed_rows)).
    fn table(&mut self, name: &str, shape: [usize; 2]) -> Option<Tensor<2>> {
        Some(self.tensor(name, shape))
    }
}

/// A parameter's name in a Hub checkpoint and its shape there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// For example `vision_model.encoder.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// In elements; linear weights are `[output, input]`.
    pub shape: Vec<usize>,
    /// Whether it is the weight of a matrix product, which may be packed.
    pub is_weight: bool,
}

impl ParameterSpec {
    /// Its shape as a matrix: the dimensions after the first taken as one.
    pub fn matrix(&self) -> [usize; 2] {
        match self.shape.split_first() {
            Some((rows, rest)) => [*rows, rest.iter().product()],
            None => [1, 1],
        }
    }
}

/// Every parameter that a model of this configuration has, in the order of the data flow.
///
/// It is found by building the model from empty tensors, so it can't disagree with the model.
pub fn parameters(config: &SiglipConfig) -> Vec<ParameterSpec> {
    let mut recorder = Recorder::default();
    Siglip::new(config, &mut recorder);
    recorder.0
}

/// [`parameters`] without those of the text tower.
pub fn vision_parameters(config: &SiglipConfig) -> Vec<ParameterSpec> {
    let mut recorder = Recorder::default();
    Siglip::without_text(config, &mut recorder);
    recorder.0
}

#[derive(Default)]
struct Recorder(Vec<ParameterSpec>);

impl Recorder {
    fn record(&mut self, name: &str, shape: &[usize], is_weight: bool) {
        self.0.push(ParameterSpec {
            name: name.into(),
            shape: shape.to_vec(),
            is_weight,
        });
    }
}

impl Weights for Recorder {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D> {
        self.record(name, &shape, false);
        Tensor::empty([1; D], &Device::flex())
    }

    fn weight<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Weight {
        self.record(name, &shape, true);
        Weight::Plain(Param::from_tensor(Tensor::empty([1; 2], &Device::flex())))
    }
}
