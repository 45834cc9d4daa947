//! The parameters that are trained, by their names in a Hub checkpoint, and their optimiser.
//!
//! A [`Siglip`] is built from them for each step, which copies nothing: it asks for each parameter by name, as it does when
//! a checkpoint is loaded.

use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use siglip_web::checkpoint::Checkpoint;
use siglip_web::kernels::to_vec;
use siglip_web::model::{
    self, ParameterSpec, Role, Siglip, SiglipConfig, Weights, parameters, values,
};
use siglip_web::{Code, Error, Result};
use twox_hash::XxHash3_128;

use crate::training::random;
use crate::{Options, Part, initial};

/// One parameter.
pub struct Parameter {
    /// Its name and shape.
    pub spec: ParameterSpec,
    /// Flat, without gradient.
    pub value: Tensor<1>,
    /// Whether training changes it.
    pub trained: bool,
    /// First and second moments of its gradient, once there was one.
    pub moments: Option<[Tensor<1>; 2]>,
}

/// All of them, in the order of [`parameters`].
pub struct Parameters {
    config: SiglipConfig,
    /// In order.
    pub list: Vec<Parameter>,
    /// For matrices, and for everything else.
    optimizers: [AdamW; 2],
    clip: f64,
}

impl Parameters {
    /// Of these values, in the order of [`parameters`], or without them random ones.
    ///
    /// # Panics
    /// If these are not as many as the model has, or not of its sizes.
    pub fn new(
        config: &SiglipConfig,
        values: Option<Vec<Tensor<1>>>,
        device: &Device,
        options: &Options,
    ) -> Self {
        let specs = parameters(config);
        let values = values.unwrap_or_else(|| {
            let mut random = random(options.seed, "initial", 0, 0);
            specs
                .iter()
                .map(|spec| flat(initial::values(spec, &mut random), device))
                .collect()
        });
        // Or each would get the values of its neighbour.
        assert_eq!(values.len(), specs.len(), "values for every parameter");
        for (spec, value) in specs.iter().zip(&values) {
            let elements = spec.shape.iter().product::<usize>();
            assert_eq!(value.dims(), [elements], "{}", spec.name);
        }
        let frozen = |name: &str| {
            let part = match name {
                _ if name.starts_with("vision_model.") => Part::Vision,
                _ if name.starts_with("text_model.") => Part::Text,
                _ => Part::Scale,
            };
            options.freeze.contains(&part)
        };
        let list = specs.into_iter().zip(values).map(|(spec, value)| {
            let value = match (spec.name.as_str(), options.logit_bias) {
                ("logit_bias", Some(bias)) => flat(vec![bias], device),
                _ => value,
            };
            Parameter {
                trained: !frozen(&spec.name),
                spec,
                value,
                moments: None,
            }
        });
        let optimizer = |weight_decay| {
            AdamWConfig::new()
                .with_beta_2(options.beta_2)
                .with_epsilon(1e-8)
                .with_weight_decay(weight_decay)
                .build()
        };
        Self {
            config: config.clone(),
            list: list.collect(),
            optimizers: [optimizer(options.weight_decay), optimizer(0.0)],
            clip: options.clip,
        }
    }

    /// Changes if any value does.
    ///
    /// # Errors
    /// `unsupported` if the device doesn't have one of them: GPUs set limits to what is in one piece.
    pub fn fingerprint(&self) -> Result<String> {
        let mut sums = Vec::new();
        for Parameter { spec, value, .. } in &self.list {
            let values = pollster::block_on(to_vec(value.clone())).map_err(|error| {
                let megabytes = (4 * spec.shape.iter().product::<usize>()).div_ceil(1 << 20);
                Error::new(
                    Code::Unsupported,
                    format!(
                        "the GPU can't hold {}, {megabytes} MiB in one piece; train on the CPU (--backend cpu) or with a smaller checkpoint: {}",
                        spec.name,
                        error.message()
                    ),
                )
            })?;
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            sums.extend(XxHash3_128::oneshot(&bytes).to_le_bytes());
        }
        Ok(format!("{:032x}", XxHash3_128::oneshot(&sums)))
    }

    /// The model of these parameters, and how to get at their gradients.
    pub fn model(&self) -> (Siglip, Leaves) {
        let mut view = View {
            parameters: self.list.iter(),
            leaves: Vec::with_capacity(self.list.len()),
            gradients: true,
        };
        let model = Siglip::new(&self.config, &mut view);
        (model, Leaves(view.leaves))
    }

    /// The model of these parameters, to be run only.
    pub fn frozen_model(&self) -> Siglip {
        let mut view = View {
            parameters: self.list.iter(),
            leaves: Vec::new(),
            gradients: false,
        };
        Siglip::new(&self.config, &mut view)
    }

    /// One step of AdamW, the `time`th (from 1), with the gradient clipped. Returns the gradient's norm.
    ///
    /// # Errors
    /// `bad-input` if the gradient is not finite; `device-lost` if the device doesn't answer.
    pub fn step(
        &mut self,
        leaves: &Leaves,
        mut gradients: Gradients,
        rate: f64,
        time: usize,
    ) -> Result<f64> {
        let gradients: Vec<Option<Tensor<1>>> = leaves
            .0
            .iter()
            .map(|leaf| leaf.as_ref().and_then(|leaf| leaf(&mut gradients)))
            .collect();
        let squares = gradients.iter().flatten();
        let squares: Vec<Tensor<1>> = squares.map(|g| g.clone().square().sum()).collect();
        let norm = match squares.is_empty() {
            true => 0.0,
            false => f64::from(scalar(Tensor::cat(squares, 0).sum())?).sqrt(),
        };
        if !norm.is_finite() {
            return Err(Error::new(
                Code::BadInput,
                "the gradient is not finite: the training has diverged; use a lower --lr or a longer --warmup",
            ));
        }
        let factor = (self.clip / norm.max(1e-30)).min(1.0);
        for (parameter, gradient) in self.list.iter_mut().zip(gradients) {
            let Some(gradient) = gradient else { continue };
            let gradient = match factor < 1.0 {
                true => gradient * factor,
                false => gradient,
            };
            let state = parameter.moments.take().map(|[first, second]| AdamWState {
                momentum: AdaptiveMomentumState::new(time - 1, first, second),
            });
            let matrix = parameter.spec.shape.len() > 1;
            let optimizer = &self.optimizers[usize::from(!matrix)];
            let (value, state) = optimizer.step(rate, parameter.value.clone(), gradient, state);
            parameter.value = value;
            parameter.moments =
                state.map(|AdamWState { momentum }| [momentum.moment_1, momentum.moment_2]);
        }
        Ok(norm)
    }
}

/// The values of a checkpoint that was loaded exactly, in the order of [`parameters`].
pub fn loaded(checkpoint: Checkpoint, device: &Device) -> Result<Vec<Tensor<1>>> {
    let mut all = values(&checkpoint.model);
    // On a GPU the host holds a large token table, of which a text takes few rows; what is trained must be there whole.
    if let Some(mut rows) = checkpoint.rows {
        let ids: Vec<u32> = (0..checkpoint.config.text.vocab_size as u32).collect();
        let table = pollster::block_on(rows.rows(&ids))?;
        let specs = parameters(&checkpoint.config);
        let place = specs.iter().position(|spec| spec.role == Role::TokenTable);
        all.insert(place.expect("a text tower has one"), flat(table, device));
    }
    Ok(all)
}

/// A flat tensor.
pub fn flat(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let shape = [values.len()];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The one number of a tensor.
pub fn scalar(tensor: Tensor<1>) -> Result<f32> {
    Ok(pollster::block_on(to_vec(tensor))?[0])
}

type Leaf = Box<dyn Fn(&mut Gradients) -> Option<Tensor<1>>>;

/// Takes the flat gradient of each parameter; `None` for those that are not trained.
pub struct Leaves(Vec<Option<Leaf>>);

/// Hands the parameters to a model that is being built.
struct View<'a> {
    parameters: std::slice::Iter<'a, Parameter>,
    leaves: Vec<Option<Leaf>>,
    gradients: bool,
}

impl Weights for View<'_> {
    fn tensor<const D: usize>(&mut self, asked: model::Parameter, shape: [usize; D]) -> Tensor<D> {
        let parameter = self.parameters.next().expect("as many as it has names");
        assert_eq!(
            parameter.spec.name, asked.name,
            "the order of the parameters"
        );
        let value = parameter.value.clone().reshape(shape);
        if !(self.gradients && parameter.trained) {
            self.leaves.push(None);
            return value;
        }
        let leaf = value.autodiff().require_grad();
        let kept = leaf.clone();
        let elements = shape.iter().product::<usize>();
        self.leaves.push(Some(Box::new(move |gradients| {
            let gradient = kept.grad_remove(gradients)?;
            Some(gradient.reshape([elements]))
        })));
        leaf
    }
}
