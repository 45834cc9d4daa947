//! The fast form of every operation against its plain form, over sizes that tiles and vectors don't divide.

#[cfg(feature = "train")]
mod common;

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use siglip_web::kernels::{self, Dtype, PackedMatrix, PackedWeight, reference};
use siglip_web::model::Activation;
use siglip_web::{Backend, device};

fn devices() -> Vec<Device> {
    let mut devices = vec![device::open(Backend::Cpu).unwrap()];
    #[cfg(feature = "webgpu")]
    devices.push(device::open(Backend::WebGpu).unwrap());
    devices
}

/// The same random numbers on any device.
fn random<const D: usize>(shape: [usize; D]) -> TensorData {
    Tensor::<D>::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex()).into_data()
}

fn assert_close<const D: usize>(what: &str, got: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let (got, expected) = (got.into_data(), expected.into_data());
    let pairs = got
        .as_slice::<f32>()
        .unwrap()
        .iter()
        .zip(expected.as_slice::<f32>().unwrap());
    for (i, (g, e)) in pairs.enumerate() {
        assert!(
            (g - e).abs() <= 1e-4 * e.abs().max(10.0),
            "{what}: [{i}] is {g}, expected {e}"
        );
    }
}

#[test]
fn linear_on_odd_sizes() {
    let cpu = Device::flex();
    for device in devices() {
        for rows in [1, 3, 4, 33] {
            for (input, output) in [(4, 4), (8, 132), (588, 36), (7, 5), (6, 8), (160, 64)] {
                let (x, w, b, r) = (
                    random([2, rows, input]),
                    random([output, input]),
                    random([output]),
                    random([2, rows, output]),
                );
                for (activation, residual) in [
                    (None, false),
                    (Some(Activation::GeluTanh), false),
                    (None, true),
                ] {
                    let run = |form: fn(_, _, _, _, _) -> Tensor<3>, device: &Device| {
                        form(
                            Tensor::<3>::from_data(x.clone(), device),
                            Tensor::<2>::from_data(w.clone(), device),
                            Tensor::<1>::from_data(b.clone(), device),
                            activation,
                            residual.then(|| Tensor::<3>::from_data(r.clone(), device)),
                        )
                    };
                    assert_close(
                        &format!(
                            "{device:?} linear {rows}×{input}→{output} {activation:?} residual {residual}"
                        ),
                        run(kernels::linear, &device),
                        run(reference::linear, &cpu),
                    );
                }
            }
        }
    }
}

#[test]
fn packed_linear_equals_the_plain_form_of_what_it_holds() {
    let cpu = Device::flex();
    for device in devices() {
        for (rows, input, output) in [
            (1, 4, 4),
            (3, 8, 132),
            (33, 588, 36),
            (4, 160, 64),
            (2, 4304, 40),
            (7, 100, 3076),
            (2, 7, 5),
        ] {
            let (x, b, r) = (
                random([2, rows, input]),
                random([output]),
                random([2, rows, output]),
            );
            let weight = random([output, input]).try_to_vec::<f32>().unwrap();
            for dtype in [Dtype::F16, Dtype::Q8, Dtype::Q4] {
                let packed = PackedMatrix::pack(dtype, input, &weight);
                let plain = TensorData::new(packed.unpack(), [output, input]);
                for (activation, residual) in [
                    (None, false),
                    (Some(Activation::GeluTanh), false),
                    (None, true),
                ] {
                    let arguments = |device: &Device| {
                        (
                            Tensor::<3>::from_data(x.clone(), device),
                            Tensor::<1>::from_data(b.clone(), device),
                            residual.then(|| Tensor::<3>::from_data(r.clone(), device)),
                        )
                    };
                    let (x, b, r) = arguments(&device);
                    let held = PackedWeight::new(packed.clone(), &device);
                    assert_eq!(held.dims(), [output, input]);
                    let got = kernels::linear_packed(x, &held, b, activation, r);
                    let (x, b, r) = arguments(&cpu);
                    let w = Tensor::<2>::from_data(plain.clone(), &cpu);
                    assert_close(
                        &format!(
                            "{device:?} {dtype:?} linear {rows}×{input}→{output} {activation:?} residual {residual}"
                        ),
                        got,
                        reference::linear(x, w, b, activation, r),
                    );
                }
                let part = PackedWeight::new(packed, &device).rows(2..4).unpack();
                let data = part.into_data().try_to_vec::<f32>().unwrap();
                let whole = plain.as_slice::<f32>().unwrap();
                assert_eq!(data, whole[2 * input..4 * input]);
            }
        }
    }
}

#[test]
fn attention_on_odd_sizes() {
    let cpu = Device::flex();
    for device in devices() {
        for (batch, queries, keys) in [(1, 1, 1), (2, 1, 37), (1, 33, 33), (3, 5, 64)] {
            for (heads, head_size) in [(1, 4), (3, 20), (2, 72), (2, 5), (1, 64)] {
                let hidden = heads * head_size;
                let (q, k, v) = (
                    random([batch, queries, hidden]),
                    random([batch, keys, hidden]),
                    random([batch, keys, hidden]),
                );
                let run = |form: fn(_, _, _, _) -> Tensor<3>, device: &Device| {
                    let [q, k, v] = [&q, &k, &v].map(|t| Tensor::<3>::from_data(t.clone(), device));
                    // Peaked scores, where an unstable softmax would overflow.
                    form(q * 30.0, k, v, heads)
                };
                assert_close(
                    &format!(
                        "{device:?} attention {batch}×{queries}×{keys}, {heads} heads of {head_size}"
                    ),
                    run(kernels::attention, &device),
                    run(reference::attention, &cpu),
                );
            }
        }
    }
}

#[test]
fn layer_norm_on_odd_sizes_and_large_offsets() {
    let cpu = Device::flex();
    for device in devices() {
        for (rows, hidden) in [(1, 1), (1, 64), (5, 63), (3, 768), (1030, 4)] {
            let (x, gamma, beta) = (
                random([1, rows, hidden]),
                random([hidden]),
                random([hidden]),
            );
            let run = |form: fn(_, _, _, f64) -> Tensor<3>, device: &Device| {
                let x = Tensor::<3>::from_data(x.clone(), device) + 20.0;
                let [gamma, beta] =
                    [&gamma, &beta].map(|t| Tensor::<1>::from_data(t.clone(), device));
                form(x, gamma, beta, 1e-6)
            };
            assert_close(
                &format!("{device:?} layer norm {rows}×{hidden}"),
                run(kernels::layer_norm, &device),
                run(reference::layer_norm, &cpu),
            );
        }
    }
}

#[cfg(feature = "train")]
mod gradients {
    use burn::tensor::{DType, Gradients, Int};
    use siglip_web::checkpoint::Checkpoint;
    use siglip_web::loss::sigmoid_loss;
    use siglip_web::model::{ParameterSpec, Siglip, SiglipConfig, Weights, parameters, values};

    use super::*;
    use crate::common::{Fixture, ODD, TINY};

    type Leaf = Box<dyn Fn(&Gradients) -> Vec<f32>>;

    /// Builds a model of these values.
    struct Given<'a> {
        values: std::slice::Iter<'a, Vec<f64>>,
        device: &'a Device,
        dtype: DType,
        leaves: Vec<Leaf>,
    }

    impl Weights for Given<'_> {
        fn tensor<const D: usize>(&mut self, _: &str, shape: [usize; D]) -> Tensor<D> {
            let values = self.values.next().unwrap().clone();
            let data = TensorData::new(values, shape);
            let tensor = Tensor::from_data(data, (self.device, self.dtype));
            if !self.device.is_autodiff() {
                return tensor;
            }
            let leaf = tensor.require_grad();
            let kept = leaf.clone();
            self.leaves.push(Box::new(move |gradients| {
                let gradient = kept
                    .grad(gradients)
                    .expect("every parameter has a gradient");
                gradient.into_data().try_to_vec().unwrap()
            }));
            leaf
        }
    }

    struct Case {
        config: SiglipConfig,
        specs: Vec<ParameterSpec>,
        values: Vec<Vec<f64>>,
        pixels: TensorData,
        ids: TensorData,
    }

    impl Case {
        fn new(fixture: &Fixture) -> Self {
            let source = fixture.source();
            let loaded = pollster::block_on(async {
                Checkpoint::load(&source, &Device::flex(), &(), &mut |_| {}).await
            });
            let loaded = loaded.unwrap();
            let side = loaded.config.vision.image_size;
            let tokenizer = loaded.tokenizer.as_ref().unwrap();
            let ids = ["two red cars", "a cat", "a house by the sea"]
                .iter()
                .flat_map(|text| tokenizer.encode(text).unwrap());
            let ids: Vec<i32> = ids.map(|id| id as i32).collect();
            let context = ids.len() / 3;
            Self {
                specs: parameters(&loaded.config),
                values: values(&loaded.model)
                    .into_iter()
                    .map(|value| {
                        let value = value.into_data().try_to_vec::<f32>().unwrap();
                        value.into_iter().map(f64::from).collect()
                    })
                    .collect(),
                config: loaded.config,
                pixels: random([2, 3, side, side]),
                ids: TensorData::new(ids, [3, context]),
            }
        }

        /// The loss of two pictures and three texts.
        fn loss(
            &self,
            values: &[Vec<f64>],
            device: &Device,
            dtype: DType,
        ) -> (Tensor<1>, Vec<Leaf>) {
            let mut given = Given {
                values: values.iter(),
                device,
                dtype,
                leaves: vec![],
            };
            let model = Siglip::new(&self.config, &mut given);
            let images =
                model.embed_images(Tensor::from_data(self.pixels.clone(), (device, dtype)));
            let texts = model.embed_texts(Tensor::<2, Int>::from_data(self.ids.clone(), device));
            let targets = TensorData::from([[1.0, -1.0, 0.0], [-1.0, 1.0, -1.0]]);
            let targets = Tensor::from_data(targets, (device, dtype));
            let loss = sigmoid_loss(model.logits(images, texts), targets);
            (loss, given.leaves)
        }

        /// The derivative along a direction in one parameter, from two runs of the plain forms in f64.
        fn derivative(&self, parameter: usize, direction: &[f64]) -> f64 {
            let at = |step: f64| {
                let mut values = self.values.clone();
                for (value, along) in values[parameter].iter_mut().zip(direction) {
                    *value += step * along;
                }
                let (loss, _) = self.loss(&values, &Device::flex(), DType::F64);
                loss.into_data().as_slice::<f64>().unwrap()[0]
            };
            let step = 1e-4;
            (at(step) - at(-step)) / (2.0 * step)
        }
    }

    /// TINY goes through the fast forms, ODD's sizes through the plain ones.
    #[test]
    fn gradients_of_the_whole_model_are_finite_differences() {
        for fixture in [TINY, ODD] {
            let case = Case::new(&fixture);
            let directions: Vec<Vec<f64>> = case
                .values
                .iter()
                .map(|values| {
                    let along = random([values.len()]).try_to_vec::<f32>().unwrap();
                    along.into_iter().map(f64::from).collect()
                })
                .collect();
            let expected: Vec<f64> = directions
                .iter()
                .enumerate()
                .map(|(i, direction)| case.derivative(i, direction))
                .collect();
            let largest = expected.iter().fold(0.0_f64, |m, e| m.max(e.abs()));
            for device in devices() {
                let (loss, leaves) =
                    case.loss(&case.values, &device.clone().autodiff(), DType::F32);
                let gradients = loss.backward();
                assert_eq!(leaves.len(), case.specs.len());
                for (i, leaf) in leaves.iter().enumerate() {
                    let gradient = leaf(&gradients);
                    let terms = gradient.iter().zip(&directions[i]);
                    let terms: Vec<f64> = terms.map(|(g, d)| f64::from(*g) * d).collect();
                    let got: f64 = terms.iter().sum();
                    let size = terms.iter().map(|t| t * t).sum::<f64>().sqrt();
                    // Key biases have no effect, as softmax takes away what all keys share: there only rounding is left.
                    let tolerance = 1e-3 * size.max(expected[i].abs()) + 1e-6 * largest;
                    assert!(
                        (got - expected[i]).abs() < tolerance,
                        "{} on {device:?}, {}: {got:e}, not {:e}",
                        fixture.name,
                        case.specs[i].name,
                        expected[i]
                    );
                }
            }
        }
    }
}
