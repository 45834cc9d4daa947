//! How a model gets its parameters: it asks for each by name and shape.

use burn::tensor::{Device, Tensor};

use super::{Siglip, SiglipConfig};

/// Where a model's parameters come from: a checkpoint, an initialiser, a recorder.
pub trait Weights {
    /// The parameter `name`, of exactly `shape`.
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D>;
}

/// A parameter's name in a Hub checkpoint and its shape there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// For example `vision_model.encoder.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// In elements; linear weights are `[output, input]`.
    pub shape: Vec<usize>,
}

/// Every parameter that a model of this configuration has, in the order of the data flow.
///
/// It is found by building the model from empty tensors, so it can't disagree with the model.
pub fn parameters(config: &SiglipConfig) -> Vec<ParameterSpec> {
    let mut recorder = Recorder::default();
    Siglip::new(config, &mut recorder);
    recorder.0
}

#[derive(Default)]
struct Recorder(Vec<ParameterSpec>);

impl Weights for Recorder {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D> {
        self.0.push(ParameterSpec {
            name: name.into(),
            shape: shape.to_vec(),
        });
        Tensor::empty([1; D], &Device::flex())
    }
}
