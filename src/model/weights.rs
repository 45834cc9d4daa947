//! How a model gets its parameters: it asks for each by name and shape.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use super::{Siglip, SiglipConfig, Weight};

/// Where a model's parameters come from: a checkpoint, an initialiser, a recorder.
pub trait Weights {
    /// The parameter `name`, of exactly `shape`.
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D>;

    /// The weight of a matrix product, of `shape`: `[output, ..]`, whose dimensions after the first are summed over together.
    fn weight<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Weight {
        let matrix = [shape[0], shape[1..].iter().product()];
        // Asked for as a matrix, since a parameter that is trained must be a leaf of the graph, not a reshaped one.
        Weight::Plain(Param::from_tensor(self.tensor(name, matrix)))
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
    /// Which layer of its encoder it belongs to, from 0, and how many there are; none outside of the encoders.
    pub layer: Option<(usize, usize)>,
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
    recorder.finish(config)
}

/// [`parameters`] without those of the text tower.
pub fn vision_parameters(config: &SiglipConfig) -> Vec<ParameterSpec> {
    let mut recorder = Recorder::default();
    Siglip::without_text(config, &mut recorder);
    recorder.finish(config)
}

#[derive(Default)]
struct Recorder(Vec<ParameterSpec>);

impl Recorder {
    fn record(&mut self, name: &str, shape: &[usize], is_weight: bool) {
        self.0.push(ParameterSpec {
            name: name.into(),
            shape: shape.to_vec(),
            is_weight,
            layer: None,
        });
    }

    fn finish(mut self, config: &SiglipConfig) -> Vec<ParameterSpec> {
        for (tower, encoder) in [
            ("text_model", &config.text.encoder),
            ("vision_model", &config.vision.encoder),
        ] {
            let layers = format!("{tower}.encoder.layers.");
            for spec in &mut self.0 {
                let layer = spec.name.strip_prefix(&layers);
                let layer = layer.and_then(|rest| rest.split('.').next()?.parse().ok());
                spec.layer = spec
                    .layer
                    .or(layer.map(|layer| (layer, encoder.num_hidden_layers)));
            }
        }
        self.0
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

/// The values of a model's parameters, each flat, in the order of [`parameters`].
///
/// It relies on structures that declare their fields in the order in which they ask [`Weights`] for them.
pub fn values(model: &Siglip) -> Vec<Tensor<1>> {
    struct Visitor(Vec<Tensor<1>>);
    impl ModuleVisitor for Visitor {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            let value = parameter.val();
            let elements = value.shape().num_elements();
            self.0.push(value.reshape([elements]));
        }
    }
    let mut visitor = Visitor(Vec::new());
    model.visit(&mut visitor);
    visitor.0
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn values_come_in_the_order_of_the_names() {
        /// Fills each parameter with the number of parameters before it.
        struct Counter(f32);
        impl Weights for Counter {
            fn tensor<const D: usize>(&mut self, _: &str, shape: [usize; D]) -> Tensor<D> {
                self.0 += 1.0;
                Tensor::full(shape, self.0 - 1.0, &Device::flex())
            }
        }
        let sizes = r#"{"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_hidden_layers": 2}"#;
        let json = format!(
            r#"{{"model_type": "siglip", "text_config": {sizes}, "vision_config": {sizes}}}"#
        );
        let config = SiglipConfig::from_json(json.as_bytes()).unwrap();
        let values = values(&Siglip::new(&config, &mut Counter(0.0)));
        let specs = parameters(&config);
        assert_eq!(values.len(), specs.len());
        for (i, (value, spec)) in values.into_iter().zip(&specs).enumerate() {
            let value = value.into_data().try_to_vec::<f32>().unwrap();
            assert_eq!(
                value.len(),
                spec.shape.iter().product::<usize>(),
                "{}",
                spec.name
            );
            assert!(value.iter().all(|v| *v == i as f32), "{}", spec.name);
        }
    }
}
