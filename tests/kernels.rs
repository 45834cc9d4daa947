//! The fast form of every operation against its plain form, over sizes that tiles and vectors don't divide.
#![cfg(not(target_family = "wasm"))]

#[cfg(feature = "train")]
mod common;

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use siglip_web::kernels::{
    self, Activation, Dtype, Epilogue, Numbers, PackedMatrix, PackedWeight, reference,
};
use siglip_web::{Backend, device};

fn devices() -> Vec<Device> {
    Vec::from([
        device::open(Backend::Cpu).unwrap(),
        #[cfg(feature = "webgpu")]
        device::open(Backend::WebGpu).unwrap(),
    ])
}

/// Calls `test` with each device and, on the GPU, for each form of its kernels.
fn on_each(test: impl Fn(&Device)) {
    let devices = devices();
    test(&devices[0]);
    #[cfg(feature = "webgpu")]
    {
        use kernels::Form;
        // The form is the whole program's.
        static FORM: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _held = FORM.lock().unwrap_or_else(|e| e.into_inner());
        for form in [Form::Registers, Form::Tiles] {
            println!("{form:?}");
            kernels::set_form(form);
            test(&devices[1]);
        }
        kernels::set_form(Form::Registers);
    }
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

/// Activation, and whether there is a residual.
const EPILOGUES: [(Option<Activation>, bool); 4] = [
    (None, false),
    (Some(Activation::GeluTanh), false),
    (Some(Activation::Gelu), false),
    (None, true),
];

fn epilogue(
    activation: Option<Activation>,
    residual: Option<&TensorData>,
    device: &Device,
) -> Epilogue {
    match (activation, residual) {
        (Some(activation), _) => Epilogue::Activation(activation),
        (None, Some(residual)) => Epilogue::add(on::<3>(device, residual)),
        (None, None) => Epilogue::None,
    }
}

#[test]
fn linear_on_odd_sizes() {
    let cpu = Device::flex();
    on_each(|device| {
        for rows in [1, 3, 4, 33] {
            for (input, output) in [(4, 4), (8, 132), (588, 36), (7, 5), (6, 8), (160, 64)] {
                let (x, w, b, r) = (
                    random([2, rows, input]),
                    random([output, input]),
                    random([output]),
                    random([2, rows, output]),
                );
                for (activation, residual) in EPILOGUES {
                    let run = |form: fn(_, Tensor<2>, _, _) -> Tensor<3>, device: &Device| {
                        form(
                            Tensor::<3>::from_data(x.clone(), device),
                            Tensor::<2>::from_data(w.clone(), device),
                            Tensor::<1>::from_data(b.clone(), device),
                            epilogue(activation, residual.then_some(&r), device),
                        )
                    };
                    assert_close(
                        &format!(
                            "{device:?} linear {rows}×{input}→{output} {activation:?} residual {residual}"
                        ),
                        run(kernels::linear, device),
                        run(reference::linear, &cpu),
                    );
                }
            }
        }
    });
}

#[test]
fn packed_linear_equals_the_plain_form_of_what_it_holds() {
    let cpu = Device::flex();
    on_each(|device| {
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
                for (activation, residual) in EPILOGUES {
                    let arguments = |device: &Device| {
                        (
                            Tensor::<3>::from_data(x.clone(), device),
                            Tensor::<1>::from_data(b.clone(), device),
                            epilogue(activation, residual.then_some(&r), device),
                        )
                    };
                    let (x, b, finish) = arguments(device);
                    let held = PackedWeight::new(packed.clone(), device);
                    assert_eq!(held.dims(), [output, input]);
                    let got = kernels::linear(x, &held, b, finish);
                    let (x, b, finish) = arguments(&cpu);
                    let w = Tensor::<2>::from_data(plain.clone(), &cpu);
                    assert_close(
                        &format!(
                            "{device:?} {dtype:?} linear {rows}×{input}→{output} {activation:?} residual {residual}"
                        ),
                        got,
                        reference::linear(x, w, b, finish),
                    );
                }
                let part = PackedWeight::new(packed, device).rows(2..4).unpack();
                let data = part.into_data().try_to_vec::<f32>().unwrap();
                let whole = plain.as_slice::<f32>().unwrap();
                assert_eq!(data, whole[2 * input..4 * input]);
            }
        }
    });
}

#[test]
fn attention_on_odd_sizes() {
    let cpu = Device::flex();
    on_each(|device| {
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
                    run(kernels::attention, device),
                    run(reference::attention, &cpu),
                );
            }
        }
    });
}

#[test]
fn layer_norm_on_odd_sizes_and_large_offsets() {
    let cpu = Device::flex();
    on_each(|device| {
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
                run(kernels::layer_norm, device),
                run(reference::layer_norm, &cpu),
            );
        }
    });
}

/// Numbers in −1…1.
fn data<const D: usize>(numbers: &mut Numbers, shape: [usize; D]) -> TensorData {
    TensorData::new(numbers.values(shape.iter().product()), shape)
}

fn on<const D: usize>(device: &Device, data: &TensorData) -> Tensor<D> {
    Tensor::from_data(data.clone(), device)
}

/// Any sizes, finishes and dtypes, and some at which the GPU takes its largest tiles.
#[test]
fn linear_layers_of_random_shapes() {
    let cpu = Device::flex();
    on_each(|device| {
        let mut numbers = Numbers(7);
        for case in 0..10 {
            let dtype = numbers.one_of(&Dtype::ALL);
            let by = if dtype == Dtype::F32 { 1 } else { 4 };
            let [rows, input, output] = match case {
                0 => [70, 40, 1100],
                _ => [
                    numbers.one_of(&[1, 2, 5, 31, 64, 65, 130]),
                    by * numbers.within(1..=200 / by),
                    by * numbers.within(1..=200 / by),
                ],
            };
            let first = by * numbers.within(0..=2);
            let whole = first + output + by * numbers.within(0..=2);
            let (x, residual) = (
                data(&mut numbers, [1, rows, input]),
                data(&mut numbers, [1, rows, output]),
            );
            let weights = [(); 3].map(|()| data(&mut numbers, [whole, input]));
            let biases = [(); 3].map(|()| data(&mut numbers, [whole]));
            let finish = numbers.within(0..=2);
            let what = format!(
                "{device:?} {dtype:?} {rows}×{input}→{first}+{output} of {whole}, finish {finish}"
            );
            let plain = [0, 1, 2].map(|i| {
                let values = weights[i].clone().try_to_vec::<f32>().unwrap();
                let held = PackedMatrix::pack(dtype, input, &values).unpack();
                TensorData::new(held, [whole, input])
            });
            let part = first..first + output;
            let cut = |i: usize| {
                let weight = on::<2>(&cpu, &plain[i]).slice([part.clone(), 0..input]);
                (weight, on::<1>(&cpu, &biases[i]).slice([part.clone()]))
            };
            let packed = [0, 1, 2].map(|i| {
                let values = weights[i].clone().try_to_vec::<f32>().unwrap();
                PackedWeight::new(PackedMatrix::pack(dtype, input, &values), device)
            });
            let bias = |i: usize| on::<1>(device, &biases[i]);

            // Some of the rows.
            let x_there = on::<3>(device, &x);
            let got = match dtype {
                Dtype::F32 => {
                    let weight = on::<2>(device, &plain[0]);
                    kernels::linear_part(x_there, weight, bias(0), part.clone())
                }
                _ => kernels::linear_part(x_there, &packed[0], bias(0), part.clone()),
            };
            let (weight, cut_bias) = cut(0);
            let expected = reference::linear(on::<3>(&cpu, &x), weight, cut_bias, Epilogue::None);
            assert_close(&format!("part {what}"), got, expected);

            // Three at once.
            let biases = [bias(0), bias(1), bias(2)];
            let got = match dtype {
                Dtype::F32 => {
                    let weights = [0, 1, 2].map(|i| on::<2>(device, &plain[i]));
                    kernels::projections(on::<3>(device, &x), weights, biases)
                }
                _ => {
                    let [a, b, c] = &packed;
                    kernels::projections(on::<3>(device, &x), [a, b, c], biases)
                }
            };
            for (i, got) in got.into_iter().enumerate() {
                let (weight, bias) = (
                    on::<2>(&cpu, &plain[i]),
                    on::<1>(&cpu, &numbers_of(bias(i))),
                );
                let expected = reference::linear(on::<3>(&cpu, &x), weight, bias, Epilogue::None);
                assert_close(&format!("projection {i} {what}"), got, expected);
            }

            // One with a finish, as large as its weight.
            let (weight, cut_bias) = cut(1);
            let (activation, residual) = match finish {
                0 => (None, None),
                1 => (Some(Activation::GeluTanh), None),
                _ => (None, Some(&residual)),
            };
            let values = weight.clone().into_data().try_to_vec::<f32>().unwrap();
            let x_there = on::<3>(device, &x);
            let bias_there = on(device, &cut_bias.clone().into_data());
            let finish_there = epilogue(activation, residual, device);
            let got = match dtype {
                Dtype::F32 => {
                    let weight = on::<2>(device, &TensorData::new(values.clone(), [output, input]));
                    kernels::linear::<3>(x_there, weight, bias_there, finish_there)
                }
                _ => {
                    let weight =
                        PackedWeight::new(PackedMatrix::pack(dtype, input, &values), device);
                    kernels::linear(x_there, &weight, bias_there, finish_there)
                }
            };
            let again = PackedMatrix::pack(dtype, input, &values).unpack();
            let weight = on(&cpu, &TensorData::new(again, [output, input]));
            let finish = epilogue(activation, residual, &cpu);
            let expected = reference::linear(on::<3>(&cpu, &x), weight, cut_bias, finish);
            assert_close(&what, got, expected);
        }
    });
}

fn numbers_of<const D: usize>(tensor: Tensor<D>) -> TensorData {
    tensor.into_data()
}

#[test]
fn attention_and_norms_of_random_shapes() {
    let cpu = Device::flex();
    on_each(|device| {
        let mut numbers = Numbers(11);
        for _ in 0..12 {
            let [batch, heads] = [numbers.within(1..=3), numbers.within(1..=3)];
            let hidden = heads * numbers.one_of(&[1, 3, 4, 18, 32, 64, 72, 80, 128, 260]);
            let [queries, keys] =
                [(); 2].map(|()| numbers.one_of(&[1, 2, 15, 16, 17, 33, 100, 196]));
            let query = data(&mut numbers, [batch, queries, hidden]);
            let [key, value] = [(); 2].map(|()| data(&mut numbers, [batch, keys, hidden]));
            let run = |form: fn(_, _, _, _) -> Tensor<3>, device: &Device| {
                // Peaked scores.
                let key = on::<3>(device, &key) * 5.0;
                form(on(device, &query), key, on(device, &value), heads)
            };
            assert_close(
                &format!(
                    "{device:?} attention {batch}×{queries}×{keys}, {heads} heads of {hidden}"
                ),
                run(kernels::attention, device),
                run(reference::attention, &cpu),
            );

            let x = data(&mut numbers, [batch, queries, hidden]);
            let [gamma, beta] = [(); 2].map(|()| data(&mut numbers, [hidden]));
            let run = |form: fn(_, _, _, f64) -> Tensor<3>, device: &Device| {
                form(on(device, &x), on(device, &gamma), on(device, &beta), 1e-6)
            };
            assert_close(
                &format!("{device:?} layer norm {batch}×{queries}×{hidden}"),
                run(kernels::layer_norm, device),
                run(reference::layer_norm, &cpu),
            );
        }
    });
}

#[test]
fn copies_of_random_shapes() {
    let cpu = Device::flex();
    on_each(|device| {
        let mut numbers = Numbers(13);
        for _ in 0..12 {
            let [batch, tokens, hidden] = [(); 3].map(|()| numbers.within(1..=20));
            let x = data(&mut numbers, [batch, tokens, hidden]);
            let rows = data(&mut numbers, [tokens, hidden]);
            let shapes = format!("{device:?} {batch}×{tokens}×{hidden}");
            let got = kernels::add_rows(on(device, &x), on(device, &rows));
            let expected = on::<3>(&cpu, &x) + on::<2>(&cpu, &rows).unsqueeze();
            assert_close(&format!("sum {shapes}"), got, expected);

            let table = on::<3>(device, &x).reshape([batch * tokens, hidden]);
            let got = kernels::take_rows(table.clone(), tokens - 1, tokens, batch);
            let expected = on::<3>(&cpu, &x).slice([0..batch, tokens - 1..tokens, 0..hidden]);
            assert_close(
                &format!("last rows {shapes}"),
                got,
                expected.reshape([batch, hidden]),
            );
            let got = kernels::take_rows(on(device, &rows), tokens - 1, 0, 3);
            let expected = on::<2>(&cpu, &rows).slice([tokens - 1..tokens, 0..hidden]);
            assert_close(&format!("one row {shapes}"), got, expected.repeat_dim(0, 3));

            let ids: Vec<i32> = (0..6)
                .map(|_| numbers.within(0..=batch * tokens - 1) as i32)
                .collect();
            let given = TensorData::new(ids.clone(), [2, 3]);
            let got = kernels::gather(table, Tensor::<2, Int>::from_data(given, device));
            let all = on::<3>(&cpu, &x).reshape([batch * tokens, hidden]);
            let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [6]), &cpu);
            assert_close(
                &format!("gather {shapes}"),
                got,
                all.select(0, ids).reshape([2, 3, hidden]),
            );

            // Pictures whose edges a patch doesn't reach.
            let [channels, patch] = [numbers.within(1..=3), numbers.within(1..=5)];
            let [height, width] = [(); 2].map(|()| numbers.within(patch..=17));
            let pixels = data(&mut numbers, [batch, channels, height, width]);
            let got = kernels::patches(on(device, &pixels), patch);
            let (down, across) = (height / patch, width / patch);
            let expected = on::<4>(&cpu, &pixels)
                .slice([0..batch, 0..channels, 0..down * patch, 0..across * patch])
                .reshape([batch, channels, down, patch, across, patch])
                .permute([0, 2, 4, 1, 3, 5])
                .reshape([batch, down * across, channels * patch * patch]);
            assert_close(
                &format!("patches {batch}×{channels}×{height}×{width} by {patch}"),
                got,
                expected,
            );
        }
    });
}

/// A dispatch takes longer to start than a small one to run.
#[cfg(feature = "webgpu")]
#[test]
fn an_encoder_layer_is_seven_dispatches() {
    use siglip_web::model::{Parameter, Siglip, SiglipConfig, Weights};

    struct Random<'a>(&'a Device);
    impl Weights for Random<'_> {
        fn tensor<const D: usize>(&mut self, _: Parameter, shape: [usize; D]) -> Tensor<D> {
            Tensor::from_data(random(shape), self.0)
        }
    }
    let device = device::open(Backend::WebGpu).unwrap();
    let sizes = r#"{"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 3, "num_hidden_layers": 1}"#;
    let json =
        format!(r#"{{"model_type": "siglip", "text_config": {sizes}, "vision_config": {sizes}}}"#);
    let config = SiglipConfig::from_json(json.as_bytes()).unwrap();
    let model = Siglip::new(&config, &mut Random(&device));
    let count = |run: &dyn Fn()| {
        let before = kernels::dispatches();
        run();
        kernels::dispatches() - before
    };
    let x = Tensor::<3>::from_data(random([2, 5, 48]), &device);
    let layer = &model.vision.encoder.layers[0];
    assert_eq!(count(&|| drop(layer.forward(x.clone()))), 7);
    let pixels = Tensor::<4>::from_data(random([2, 3, 224, 224]), &device);
    assert_eq!(count(&|| drop(model.vision.embed(pixels.clone()))), 3);
    assert_eq!(count(&|| drop(model.vision.pool(x.clone()))), 10);
}

#[cfg(feature = "train")]
mod gradients {
    use burn::tensor::{DType, Gradients};
    use siglip_web::LoadOptions;
    use siglip_web::checkpoint::Checkpoint;
    use siglip_web::loss::sigmoid_loss;
    use siglip_web::model::{
        Parameter, ParameterSpec, Siglip, SiglipConfig, Weights, parameters, values,
    };

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
        fn tensor<const D: usize>(&mut self, _: Parameter, shape: [usize; D]) -> Tensor<D> {
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
                Checkpoint::load_async(
                    &source,
                    (),
                    &LoadOptions::exact(),
                    &Device::flex(),
                    &(),
                    &mut |_| {},
                )
                .await
            });
            let loaded = loaded.unwrap();
            let side = loaded.config.vision.image_size;
            let tokenizer = loaded.tokenizer.as_ref().unwrap();
            let ids = ["two red cars", "a cat", "a house by the sea"]
                .iter()
                .flat_map(|text| tokenizer.encode(text).unwrap());
            let ids: Vec<i32> = ids.map(|id| id as i32).collect();
            let context = ids.len() / 3;
            let mut numbers = Numbers(17);
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
                pixels: data(&mut numbers, [2, 3, side, side]),
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
            // The same in every run: differences of two points are only nearly derivatives, for some directions less nearly.
            let mut numbers = Numbers(19);
            let directions: Vec<Vec<f64>> = case
                .values
                .iter()
                .map(|values| {
                    let along = data(&mut numbers, [values.len()])
                        .try_to_vec::<f32>()
                        .unwrap();
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
