//! How a model gets its parameters: it asks for each by name and shape.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use super::{Siglip, SiglipConfig, Weight};

/// Where a model's parameters come from: a checkpoint, an initialiser, a recorder.
pub trait Weights {
    /// A parameter of exactly `shape`.
    fn tensor<const D: usize>(&mut self, parameter: Parameter, shape: [usize; D]) -> Tensor<D>;

    /// The weight of a matrix product, of `shape`: `[output, ..]`, whose dimensions after the first are summed over together.
    fn weight<const D: usize>(&mut self, parameter: Parameter, shape: [usize; D]) -> Weight {
        let matrix = [shape[0], shape[1..].iter().product()];
        // Asked for as a matrix, since a parameter that is trained must be a leaf of the graph, not a reshaped one.
        Weight::Plain(Param::from_tensor(self.tensor(parameter, matrix)))
    }

    /// The token table, or none if its rows will come from elsewhere (see [`TextTower::embed_rows`](super::TextTower::embed_rows)).
    fn table(&mut self, parameter: Parameter, shape: [usize; 2]) -> Option<Tensor<2>> {
        Some(self.tensor(parameter, shape))
    }

    /// Whether there are parameters for a text tower: a model for labels that were embedded before has none.
    fn has_text(&self) -> bool {
        true
    }
}

/// What a parameter does, as far as it matters to whoever stores it: how finely a weight is held depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The embeddings of all tokens, one a row.
    TokenTable,
    /// The patch convolution, which all that the model sees goes through.
    PatchEmbedding,
    /// An encoder layer's projection of queries.
    Query,
    /// An encoder layer's projection of keys.
    Key,
    /// An encoder layer's projection of values.
    Value,
    /// The projections of queries, keys and values in one matrix, as the pooling head has them.
    InProjection,
    /// The projection of what was attended to.
    OutProjection,
    /// One of an MLP's two layers.
    Mlp,
    /// The text tower's last layer.
    Head,
    /// The head of a fine-tuned classifier.
    Classifier,
    /// Anything that is no matrix of a product and never packed: norms, biases, positions, the probe, scale and bias of the logits.
    Other,
}

/// A parameter that a model asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Its name in a Hub checkpoint, for example `vision_model.encoder.layers.0.self_attn.q_proj.weight`.
    pub name: &'a str,
    /// What it does.
    pub role: Role,
    /// Which layer of its encoder it belongs to, from 0, and how many there are; none outside of the encoders.
    pub layer: Option<(usize, usize)>,
}

/// The parameters whose names begin alike, as a layer asks for them: `weights.at("q_proj")`.
pub struct Scope<'a, W> {
    weights: &'a mut W,
    /// Empty for the whole model.
    name: String,
    layer: Option<(usize, usize)>,
}

impl<'a, W: Weights> Scope<'a, W> {
    /// All of them.
    pub fn new(weights: &'a mut W) -> Self {
        Self {
            weights,
            name: String::new(),
            layer: None,
        }
    }

    fn full(&self, name: &str) -> String {
        match self.name.as_str() {
            "" => name.to_owned(),
            scope => format!("{scope}.{name}"),
        }
    }

    /// All of the model's again.
    pub fn whole(&mut self) -> Scope<'_, W> {
        Scope::new(self.weights)
    }

    /// Those whose names go on with `name`.
    pub fn at(&mut self, name: &str) -> Scope<'_, W> {
        Scope {
            name: self.full(name),
            layer: self.layer,
            weights: self.weights,
        }
    }

    /// Those of an encoder's layer `index` of `count`.
    pub fn layer(&mut self, index: usize, count: usize) -> Scope<'_, W> {
        Scope {
            layer: Some((index, count)),
            ..self.at(&format!("layers.{index}"))
        }
    }

    /// A parameter that is never packed.
    pub fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Param<Tensor<D>> {
        let name = self.full(name);
        let parameter = self.parameter(&name, Role::Other);
        Param::from_tensor(self.weights.tensor(parameter, shape))
    }

    /// The weight of a matrix product, see [`Weights::weight`].
    pub fn weight<const D: usize>(&mut self, name: &str, role: Role, shape: [usize; D]) -> Weight {
        let name = self.full(name);
        let parameter = self.parameter(&name, role);
        self.weights.weight(parameter, shape)
    }

    /// The token table, see [`Weights::table`].
    pub fn table(&mut self, name: &str, shape: [usize; 2]) -> Option<Param<Tensor<2>>> {
        let name = self.full(name);
        let parameter = self.parameter(&name, Role::TokenTable);
        self.weights.table(parameter, shape).map(Param::from_tensor)
    }

    fn parameter<'n>(&self, name: &'n str, role: Role) -> Parameter<'n> {
        Parameter {
            name,
            role,
            layer: self.layer,
        }
    }
}

/// A parameter's name in a Hub checkpoint and its shape there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// For example `vision_model.encoder.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// In elements; linear weights are `[output, input]`.
    pub shape: Vec<usize>,
    /// What it does.
    pub role: Role,
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
    Recorder::record(config, true)
}

/// [`parameters`] without those of the text tower.
pub fn vision_parameters(config: &SiglipConfig) -> Vec<ParameterSpec> {
    Recorder::record(config, false)
}

struct Recorder {
    text: bool,
    specs: Vec<ParameterSpec>,
}

impl Recorder {
    fn record(config: &SiglipConfig, text: bool) -> Vec<ParameterSpec> {
        let specs = Vec::new();
        let mut recorder = Self { text, specs };
        Siglip::new(config, &mut recorder);
        recorder.specs
    }

    fn push(&mut self, parameter: Parameter, shape: &[usize], is_weight: bool) {
        self.specs.push(ParameterSpec {
            name: parameter.name.into(),
            shape: shape.to_vec(),
            role: parameter.role,
            is_weight,
            layer: parameter.layer,
        });
    }
}

impl Weights for Recorder {
    fn tensor<const D: usize>(&mut self, parameter: Parameter, shape: [usize; D]) -> Tensor<D> {
        self.push(parameter, &shape, false);
        Tensor::empty([1; D], &Device::flex())
    }

    fn weight<const D: usize>(&mut self, parameter: Parameter, shape: [usize; D]) -> Weight {
        self.push(parameter, &shape, true);
        Weight::Plain(Param::from_tensor(Tensor::empty([1; 2], &Device::flex())))
    }

    fn has_text(&self) -> bool {
        self.text
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
            fn tensor<const D: usize>(&mut self, _: Parameter, shape: [usize; D]) -> Tensor<D> {
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
