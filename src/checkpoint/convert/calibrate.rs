//! Calibration of a checkpoint's 4-bit weights, when it is converted.
//!
//! Two models stand side by side, one exact and one in `q4`. The same pictures and texts go through both, layer by layer. Each MLP's weights
//! are quantized anew for the activations that reach them in the quantized model, with [`InputMoments`]. Its biases then take up the mean of
//! what still differs, so that a layer also makes up for the layers before it. The pictures are smooth noise and the texts common words,
//! built in and the same each time: they have to show how the model's own channels go together, which hardly depends on what is in a picture.

use std::collections::HashMap;

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::checkpoint::{Checkpoint, LoadOptions, Pace, Source};
use crate::error::{Error, Result};
use crate::kernels::packed::InputMoments;
use crate::kernels::{self, Dtype, PackedMatrix, PackedWeight};
use crate::model::{Encoder, Head, Linear, Mlp, Weight};

/// Patches that the pictures have together, at least: as many as the widest input of a base model has numbers.
const PATCHES: usize = 3072;

/// Fewest and most pictures.
const PICTURES: [usize; 2] = [8, 64];

/// What the texts speak of.
const WORDS: &str = "person bicycle car motorcycle airplane bus train truck boat bench bird horse sheep cow elephant bear zebra giraffe \
    backpack umbrella handbag tie suitcase skis kite skateboard surfboard bottle cup fork knife spoon bowl banana apple sandwich orange \
    carrot chair couch bed table toilet laptop keyboard oven sink book";

/// Parameters of a checkpoint as [`convert`](super::convert()) writes them instead of the checkpoint's own.
#[derive(Debug, Default)]
pub struct Calibration {
    weights: HashMap<String, PackedMatrix>,
    biases: HashMap<String, Vec<f32>>,
}

impl Calibration {
    /// The bytes of the tensor `name` as a file has them, if it is one of these.
    pub(super) fn bytes(&self, name: &str, dtype: Dtype) -> Option<Vec<u8>> {
        if let Some(weight) = self.weights.get(name) {
            let words = weight.words().iter().flat_map(|word| word.to_le_bytes());
            return (weight.dtype() == dtype).then(|| words.collect());
        }
        let bias = self.biases.get(name).filter(|_| dtype == Dtype::F32)?;
        Some(bias.iter().flat_map(|v| v.to_le_bytes()).collect())
    }
}

/// Calibrates the checkpoint that `source` holds for [`Dtype::Q4`], on the CPU; `text` says whether its text tower too.
///
/// The whole model is in memory in f32 meanwhile. `progress` is told of the layers that are done and of all.
///
/// # Errors
/// As [`Checkpoint::load_async`]; `bad-model` for weights that don't give finite numbers.
pub async fn calibrate(
    source: &impl Source,
    text: bool,
    pace: &impl Pace,
    progress: &mut impl FnMut(usize, usize),
) -> Result<Calibration> {
    let device = Device::flex();
    let load = async |dtype| {
        let options = LoadOptions::exact().with_dtype(dtype);
        Checkpoint::load_async(source, (), &options, &device, pace, &mut |_| {}).await
    };
    let mut exact = load(Dtype::F32).await?;
    let mut packed = load(Dtype::Q4).await?;
    let (vision, text_config) = (&exact.config.vision, &exact.config.text);
    let text = text && exact.model.text.is_some();
    let layers = |text: bool| match text {
        true => text_config.encoder.num_hidden_layers,
        false => 0,
    };
    let total = vision.encoder.num_hidden_layers + 1 + layers(text);
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done, total);
    };
    let mut run = Run::default();

    let pixels = {
        let count = PATCHES.div_ceil(vision.num_patches());
        let count = count.clamp(PICTURES[0], PICTURES[1]);
        let (channels, side) = (vision.num_channels, vision.image_size);
        let values = pictures(count, channels, side);
        Tensor::<4>::from_data(
            TensorData::new(values, [count, channels, side, side]),
            &device,
        )
    };
    let towers = (&mut packed.model.vision, &exact.model.vision);
    let mut x = Both {
        packed: towers.0.embed(pixels.clone()),
        exact: towers.1.embed(pixels),
    };
    let name = "vision_model.encoder";
    x = run
        .encoder(
            name,
            &mut towers.0.encoder,
            &towers.1.encoder,
            x,
            pace,
            &mut step,
        )
        .await?;
    // A classifier's head has no MLP.
    if let (Head::Pooling(head), Head::Pooling(exact_head)) = (&mut towers.0.head, &towers.1.head) {
        let attended = Both {
            packed: head.attend(towers.0.post_layernorm.forward(x.packed)),
            exact: exact_head.attend(towers.1.post_layernorm.forward(x.exact)),
        };
        let normed = Both {
            packed: head.layernorm.forward(attended.packed.clone()),
            exact: exact_head.layernorm.forward(attended.exact.clone()),
        };
        let (mlp, exact_mlp) = (&mut head.mlp, &exact_head.mlp);
        run.mlp("vision_model.head.mlp", mlp, exact_mlp, normed, attended)
            .await?;
    }
    step();

    if text {
        let tokenizer = exact.tokenizer.as_ref();
        let tokenizer = tokenizer.expect("a checkpoint with a text tower has one");
        let ids = WORDS
            .split_whitespace()
            .map(|word| tokenizer.encode(&format!("This is a photo of a {word}.")))
            .collect::<Result<Vec<_>>>()?;
        let x = Both {
            packed: embed(&mut packed, &ids, &device).await?,
            exact: embed(&mut exact, &ids, &device).await?,
        };
        let tower = packed.model.text.as_mut().expect("as above");
        let exact_tower = exact.model.text.as_ref().expect("as above");
        let name = "text_model.encoder";
        run.encoder(
            name,
            &mut tower.encoder,
            &exact_tower.encoder,
            x,
            pace,
            &mut step,
        )
        .await?;
    }
    Ok(run.calibration)
}

/// Texts as the first layer gets them, `[texts, tokens, hidden]`.
async fn embed(
    checkpoint: &mut Checkpoint,
    ids: &[Vec<u32>],
    device: &Device,
) -> Result<Tensor<3>> {
    let (texts, tokens) = (ids.len(), ids[0].len());
    let tower = checkpoint.model.text.as_ref().expect("a text tower");
    match &mut checkpoint.rows {
        Some(rows) => {
            let rows = rows.rows(&ids.concat()).await?;
            let hidden = rows.len() / (texts * tokens);
            let rows = TensorData::new(rows, [texts, tokens, hidden]);
            Ok(tower.embed_rows(Tensor::from_data(rows, device)))
        }
        None => {
            let ids: Vec<i32> = ids.iter().flatten().map(|id| *id as i32).collect();
            let ids = TensorData::new(ids, [texts, tokens]);
            Ok(tower.embed(Tensor::<2, Int>::from_data(ids, device)))
        }
    }
}

/// The same place in both models.
#[derive(Clone)]
struct Both<T> {
    packed: T,
    exact: T,
}

#[derive(Default)]
struct Run {
    calibration: Calibration,
}

impl Run {
    async fn encoder(
        &mut self,
        name: &str,
        packed: &mut Encoder,
        exact: &Encoder,
        mut x: Both<Tensor<3>>,
        pace: &impl Pace,
        step: &mut impl FnMut(),
    ) -> Result<Both<Tensor<3>>> {
        for (i, (packed, exact)) in packed.layers.iter_mut().zip(&exact.layers).enumerate() {
            pace.step().await?;
            let attend = |layer: &crate::model::EncoderLayer, x: Tensor<3>| {
                let x = layer
                    .self_attn
                    .forward(layer.layer_norm1.forward(x.clone()), x);
                (layer.layer_norm2.forward(x.clone()), x)
            };
            let (packed_normed, packed_x) = attend(packed, x.packed);
            let (exact_normed, exact_x) = attend(exact, x.exact);
            let normed = Both {
                packed: packed_normed,
                exact: exact_normed,
            };
            x = Both {
                packed: packed_x,
                exact: exact_x,
            };
            let name = format!("{name}.layers.{i}.mlp");
            x = self
                .mlp(&name, &mut packed.mlp, &exact.mlp, normed, x)
                .await?;
            step();
        }
        Ok(x)
    }

    /// Calibrates an MLP and goes through it: `residual + mlp(x)`.
    async fn mlp(
        &mut self,
        name: &str,
        packed: &mut Mlp,
        exact: &Mlp,
        x: Both<Tensor<3>>,
        residual: Both<Tensor<3>>,
    ) -> Result<Both<Tensor<3>>> {
        let hidden = self
            .linear(&format!("{name}.fc1"), &mut packed.fc1, &exact.fc1, x, None)
            .await?;
        let activate = |x| kernels::reference::activate(x, exact.activation);
        let hidden = Both {
            packed: activate(hidden.packed),
            exact: activate(hidden.exact),
        };
        let (fc2, exact_fc2) = (&mut packed.fc2, &exact.fc2);
        self.linear(
            &format!("{name}.fc2"),
            fc2,
            exact_fc2,
            hidden,
            Some(residual),
        )
        .await
    }

    /// Calibrates a layer and goes through it.
    async fn linear(
        &mut self,
        name: &str,
        packed: &mut Linear,
        exact: &Linear,
        x: Both<Tensor<3>>,
        residual: Option<Both<Tensor<3>>>,
    ) -> Result<Both<Tensor<3>>> {
        let damaged = || {
            Error::bad_model(format!(
                "{name} gets or gives numbers that are not finite; the weights are damaged: get them again"
            ))
        };
        if let (Weight::Packed(weight), Weight::Plain(values)) = (&packed.weight, &exact.weight)
            && weight.dtype == Dtype::Q4
        {
            let [batch, tokens, input] = x.packed.dims();
            let rows = x.packed.clone().reshape([batch * tokens, input]);
            let moments = rows.clone().transpose().matmul(rows) / (batch * tokens) as f32;
            let moments = kernels::to_vec(moments).await?;
            let moments = InputMoments::new(input, &moments).ok_or_else(damaged)?;
            let matrix = moments.pack(&kernels::to_vec(values.val()).await?);
            packed.weight = Weight::Packed(PackedWeight::new(matrix.clone(), &x.packed.device()));
            self.calibration
                .weights
                .insert(format!("{name}.weight"), matrix);
        }
        let forward = |linear: &Linear, x, residual| match residual {
            Some(residual) => linear.forward_residual(x, residual),
            None => linear.forward(x),
        };
        let (packed_residual, exact_residual) = match residual {
            Some(residual) => (Some(residual.packed), Some(residual.exact)),
            None => (None, None),
        };
        let exact_y = forward(exact, x.exact, exact_residual);
        let packed_y = forward(packed, x.packed, packed_residual);
        let [batch, tokens, output] = exact_y.dims();
        let differs = (exact_y.clone() - packed_y.clone()).reshape([batch * tokens, output]);
        let differs = differs.mean_dim(0);
        let bias = packed.bias.val() + differs.clone().reshape([output]);
        packed.bias = Param::from_tensor(bias.clone());
        let bias = kernels::to_vec(bias).await?;
        if !bias.iter().all(|v| v.is_finite()) {
            return Err(damaged());
        }
        self.calibration.biases.insert(format!("{name}.bias"), bias);
        Ok(Both {
            packed: packed_y + differs.reshape([1, 1, output]),
            exact: exact_y,
        })
    }
}

/// Pixel values `[count, channels, side, side]` in −1…1: noise in octaves, from one colour over the whole picture down to single pixels. How
/// strong the fine ones are, how colourful it is and how much contrast it has differs from picture to picture.
fn pictures(count: usize, channels: usize, side: usize) -> Vec<f32> {
    let mut state = 0x5eed_u64;
    let mut next = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut values = Vec::with_capacity(count * channels * side * side);
    for _ in 0..count {
        let falloff = 1.0 + 0.5 * next();
        let gray = 0.5 + 0.5 * next();
        let contrast = 0.45 + 0.25 * next();
        let mut planes = vec![vec![0.0_f32; side * side]; channels + 1];
        for plane in &mut planes {
            let mut cells = 2;
            while cells <= side {
                let grid: Vec<f32> = (0..(cells + 1) * (cells + 1)).map(|_| next()).collect();
                let strength = (cells as f32).powf(-falloff);
                for (y, row) in plane.chunks_exact_mut(side).enumerate() {
                    let (top, down) = place(y, side, cells);
                    for (x, value) in row.iter_mut().enumerate() {
                        let (left, across) = place(x, side, cells);
                        let at = |dy, dx| grid[(top + dy) * (cells + 1) + left + dx];
                        let upper = at(0, 0) * (1.0 - across) + at(0, 1) * across;
                        let lower = at(1, 0) * (1.0 - across) + at(1, 1) * across;
                        *value += strength * (upper * (1.0 - down) + lower * down);
                    }
                }
                cells *= 2;
            }
            let mean_square = plane.iter().map(|v| v * v).sum::<f32>() / plane.len() as f32;
            let scale = contrast / mean_square.sqrt().max(1e-6);
            plane.iter_mut().for_each(|v| *v *= scale);
        }
        let common = planes.pop().expect("one more than channels");
        for plane in planes {
            let shift = 0.5 * next();
            let mixed = plane.iter().zip(&common);
            values.extend(
                mixed.map(|(own, common)| (gray * common + (1.0 - gray) * own + shift).tanh()),
            );
        }
    }
    values
}

/// In which of `cells` cells a pixel's centre is, and how far into it.
fn place(pixel: usize, side: usize, cells: usize) -> (usize, f32) {
    let at = (pixel as f32 + 0.5) / side as f32 * cells as f32;
    let cell = (at as usize).min(cells - 1);
    (cell, at - cell as f32)
}
