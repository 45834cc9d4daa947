//! The first run of a model on a GPU.
//!
//! Both towers run once on fixed numbers, with one layer of each kind, so that shaders are compiled before the first picture. Others of a kind
//! would run the same shaders on the same sizes; where a program imitates a GPU they would take most of the time of loading. The results of each
//! layer, and of what comes before and behind them, are read back and compared with what the CPU's kernels make of the same weights and
//! the same input. [`check`](crate::kernels::check) has tried every kernel on small cases before; here they are those of the model, with
//! its sizes.
//!
//! Of a layer the CPU computes [`ROWS`] positions only, which attend to all others.

use burn::module::Param;
use burn::tensor::{Device, Tensor};

use crate::checkpoint::Pace;
use crate::error::{Error, Result};
use crate::kernels::check::{largest_difference, wrong};
use crate::kernels::{self, Dtype, Numbers, PackedMatrix, PackedWeight, Receipt};
use crate::kernels::{begin, from_vec, to_vec, to_words};
use crate::model::{
    Attention, AttentionPooling, ClassifierHead, Encoder, EncoderLayer, Head, LayerNorm, Linear,
    Mlp, TextConfig, TextTower, VisionConfig, VisionTower, Weight,
};

/// Positions of a layer that the CPU computes too.
const ROWS: usize = 8;
/// The largest difference that rounding explains, in parts of the results' root mean square.
const TOLERANCE: f32 = 2e-3;
/// The same for weights of 8 and 4 bits: the browser's CPU multiplies them in integers.
const TOLERANCE_IN_INTEGERS: f32 = 2e-2;

/// Runs the vision tower on a picture of noise.
///
/// # Errors
/// `device-lost` if `device` computes something else than the CPU, `bad-model` if that is not finite; what `pace` reports.
pub async fn run_vision(
    tower: &VisionTower,
    config: &VisionConfig,
    device: &Device,
    pace: &impl Pace,
) -> Result<()> {
    let name = "vision tower";
    let side = config.image_size;
    let shape = [1, config.num_channels, side, side];
    let pixels = Numbers(3).values(shape.iter().product());
    let (x, receipt) = Receipt::with_floats(pixels.clone(), shape, device);
    let x = tower.embed(x);
    let run = run(&tower.encoder.layers, x, receipt, pace, |x| tower.pool(x)).await?;

    let host = on_cpu::vision(tower).await?;
    let embedded = host.embed(from_vec(pixels, shape, &Device::flex()));
    let first = Expected {
        values: to_vec(embedded).await?,
        tolerance: tolerance([&host.patch_embedding_weight]),
    };
    check_layers(name, run.layers, Some(first), pace).await?;
    let tolerance = match &host.head {
        Head::Pooling(head) => tolerance([
            &head.in_proj_weight,
            &head.out_proj.weight,
            &head.mlp.fc1.weight,
            &head.mlp.fc2.weight,
        ]),
        Head::Classifier(head) => tolerance([&head.classifier.weight]),
    };
    let (results, hidden) = ([run.last, run.pooled], config.encoder.hidden_size);
    check_pooled(name, results, hidden, |x| host.pool(x), tolerance).await
}

/// Runs the text tower on words without a meaning.
///
/// # Errors
/// As [`run_vision`].
pub async fn run_text(
    tower: &TextTower,
    config: &TextConfig,
    device: &Device,
    pace: &impl Pace,
) -> Result<()> {
    let name = "text tower";
    let (context, hidden) = (config.max_position_embeddings, config.encoder.hidden_size);
    let host = on_cpu::text(tower).await?;
    let (x, receipt, first) = match &tower.token_embedding {
        Some(_) => {
            let ids = (0..context).map(|i| (i * 97 % config.vocab_size) as i32);
            let (ids, receipt) = Receipt::with_ids(ids.collect(), [1, context], device);
            (tower.embed(ids), receipt, None)
        }
        None => {
            let (values, shape) = (Numbers(5).values(context * hidden), [1, context, hidden]);
            let (rows, receipt) = Receipt::with_floats(values.clone(), shape, device);
            let embedded = host.embed_rows(from_vec(values, shape, &Device::flex()));
            let first = Expected {
                values: to_vec(embedded).await?,
                tolerance: TOLERANCE,
            };
            (tower.embed_rows(rows), receipt, Some(first))
        }
    };
    let run = run(tower.body(), x, receipt, pace, |x| tower.pool(x)).await?;
    if let (Some(first), []) = (&first, &run.layers[..]) {
        first.check(&format!("input of the {name}'s layer"), &run.last)?;
    }
    check_layers(name, run.layers, first, pace).await?;
    let weights = weights(host.last_layer())
        .into_iter()
        .chain([&host.head.weight]);
    let tolerance = tolerance(weights);
    let results = [run.last, run.pooled];
    check_pooled(name, results, hidden, |x| host.pool(x), tolerance).await
}

/// What a tower computed on the device.
struct Run<'a> {
    /// The first layer of each kind.
    layers: Vec<Observed<'a>>,
    /// What was pooled: the last of these layers' output.
    last: Vec<f32>,
    pooled: Vec<f32>,
}

/// What a layer computed on the device.
struct Observed<'a> {
    index: usize,
    layer: &'a EncoderLayer,
    /// Its input, what its heads found, and its output.
    values: [Vec<f32>; 3],
}

async fn run<'a>(
    layers: &'a [EncoderLayer],
    mut x: Tensor<3>,
    mut receipt: Receipt,
    pace: &impl Pace,
    pool: impl FnOnce(Tensor<3>) -> Tensor<2>,
) -> Result<Run<'a>> {
    let mut first_of: Vec<([Dtype; 6], usize, [Tensor<3>; 3])> = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let kind = weights(layer).map(dtype);
        if first_of.iter().any(|(known, ..)| *known == kind) {
            continue;
        }
        receipt.count();
        pace.step().await?;
        let attended = layer.attend(x.clone());
        let y = layer.finish(attended.clone(), x.clone());
        first_of.push((kind, index, [x, attended, y.clone()]));
        x = y;
    }
    receipt.count();
    pace.step().await?;
    // All are begun before the first is waited for, and all are waited for: results that nobody takes keep their buffer from being used
    // again.
    let last = begin(to_vec(x.clone()));
    let pooled = begin(receipt.read(pool(x)));
    let read = |tensors: [Tensor<3>; 3]| tensors.map(|tensor| begin(to_vec(tensor)));
    let first_of: Vec<_> = (first_of.into_iter())
        .map(|(_, index, tensors)| (index, read(tensors)))
        .collect();
    let (last, pooled) = (last.await, pooled.await);
    let mut observed = Vec::new();
    for (index, [x, attended, y]) in first_of {
        observed.push((index, [x.await, attended.await, y.await]));
    }
    let observed = observed.into_iter().map(|(index, [x, attended, y])| {
        Ok(Observed {
            index,
            layer: &layers[index],
            values: [x?, attended?, y?],
        })
    });
    Ok(Run {
        layers: observed.collect::<Result<_>>()?,
        last: last?,
        pooled: pooled?,
    })
}

fn weights(layer: &EncoderLayer) -> [&Weight; 6] {
    let (heads, mlp) = (&layer.self_attn, &layer.mlp);
    let layers = [
        &heads.q_proj,
        &heads.k_proj,
        &heads.v_proj,
        &heads.out_proj,
        &mlp.fc1,
        &mlp.fc2,
    ];
    layers.map(|layer| &layer.weight)
}

fn dtype(weight: &Weight) -> Dtype {
    match weight {
        Weight::Plain(_) => Dtype::F32,
        Weight::Packed(weight) => weight.dtype,
        Weight::Held(weight) => weight.dtype,
    }
}

/// How far results of these weights may be apart.
fn tolerance<'a>(weights: impl IntoIterator<Item = &'a Weight>) -> f32 {
    match (weights.into_iter())
        .map(dtype)
        .any(|dtype| matches!(dtype, Dtype::Q8 | Dtype::Q4))
    {
        true => TOLERANCE_IN_INTEGERS,
        false => TOLERANCE,
    }
}

/// What the CPU computed.
struct Expected {
    values: Vec<f32>,
    tolerance: f32,
}

impl Expected {
    /// Fails unless `got` is the same but for rounding.
    fn check(&self, what: &str, got: &[f32]) -> Result<()> {
        let squares: f64 = self.values.iter().map(|v| f64::from(*v).powi(2)).sum();
        let size = (squares / self.values.len() as f64).sqrt() as f32;
        if !size.is_finite() {
            return Err(Error::bad_model(format!(
                "the {what} comes out infinite or not a number; the weights are damaged: get them again"
            )));
        }
        let difference = largest_difference(&self.values, got) / size.max(f32::MIN_POSITIVE);
        match difference <= self.tolerance {
            true => Ok(()),
            false => Err(wrong(what, difference, self.tolerance)),
        }
    }
}

/// Compares layers with the CPU's; what goes into the first of them is `first`.
async fn check_layers(
    tower: &str,
    layers: Vec<Observed<'_>>,
    first: Option<Expected>,
    pace: &impl Pace,
) -> Result<()> {
    for Observed {
        index,
        layer,
        values: [x, attended, y],
    } in layers
    {
        let what = format!("{tower}'s layer {index}");
        let (x, attended, y) = (finite(&what, x)?, attended, y);
        if let Some(first) = first.as_ref().filter(|_| index == 0) {
            first.check(&format!("input of the {what}"), &x)?;
        }
        let host = on_cpu::layer(layer).await?;
        pace.step().await?;
        check_layer(&what, &host, [x, attended, y]).await?;
        pace.step().await?;
    }
    Ok(())
}

/// Compares what a device made of `x [tokens, hidden]` with what `layer` makes of it on the CPU.
async fn check_layer(
    what: &str,
    layer: &EncoderLayer,
    [x, attended, y]: [Vec<f32>; 3],
) -> Result<()> {
    let [hidden] = layer.layer_norm1.gamma.dims();
    let tokens = x.len() / hidden;
    let count = ROWS.min(tokens);
    let rows: Vec<usize> = (0..count)
        .map(|i| i * (tokens - 1) / (count - 1).max(1))
        .collect();
    let some = |values: &[f32]| -> Vec<f32> {
        let row = |row: &usize| &values[row * hidden..][..hidden];
        rows.iter().flat_map(row).copied().collect()
    };
    let on_cpu = |values: Vec<f32>| {
        let shape = [1, values.len() / hidden, hidden];
        from_vec(values, shape, &Device::flex())
    };
    let (heads, mlp) = (&layer.self_attn, &layer.mlp);
    let queries = layer.layer_norm1.forward(on_cpu(some(&x)));
    let normed = layer.layer_norm1.forward(on_cpu(x.clone()));
    let query = heads.q_proj.forward(queries);
    let key = heads.k_proj.forward(normed.clone());
    let value = heads.v_proj.forward(normed);
    let attention = kernels::attention(query, key, value, heads.heads);
    let into = [&heads.q_proj, &heads.k_proj, &heads.v_proj].map(|layer| &layer.weight);
    let expected = Expected {
        values: to_vec(attention).await?,
        tolerance: tolerance(into),
    };
    expected.check(&format!("attention in the {what}"), &some(&attended))?;
    let output = layer.finish(on_cpu(some(&attended)), on_cpu(some(&x)));
    let out_of = [&heads.out_proj, &mlp.fc1, &mlp.fc2].map(|layer| &layer.weight);
    let expected = Expected {
        values: to_vec(output).await?,
        tolerance: tolerance(out_of),
    };
    expected.check(what, &some(&y))
}

/// Compares what comes behind the layers with what `pool` makes of the last one's results on the CPU.
async fn check_pooled(
    tower: &str,
    [last, pooled]: [Vec<f32>; 2],
    hidden: usize,
    pool: impl FnOnce(Tensor<3>) -> Tensor<2>,
    tolerance: f32,
) -> Result<()> {
    let last = finite(&format!("{tower}'s last layer"), last)?;
    let shape = [1, last.len() / hidden, hidden];
    let expected = pool(from_vec(last, shape, &Device::flex()));
    let expected = Expected {
        values: to_vec(expected).await?,
        tolerance,
    };
    expected.check(&format!("{tower}'s head"), &pooled)
}

/// Results that are numbers. The device alone is not believed that the weights are to blame.
fn finite(what: &str, values: Vec<f32>) -> Result<Vec<f32>> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err(Error::device_lost(format!(
            "the {what} gets or gives numbers that are infinite or none; load the model again on the CPU (backend \"cpu\")"
        ))),
    }
}

/// Copies of a GPU's weights on the CPU. All that belong together are asked for before the first is waited for.
mod on_cpu {
    use super::*;

    /// Without its layers.
    pub async fn vision(tower: &VisionTower) -> Result<VisionTower> {
        let patches = begin(weight(&tower.patch_embedding_weight));
        let bias = begin(tensor(&tower.patch_embedding_bias));
        let positions = begin(tensor(&tower.position_embedding));
        let post_norm = begin(norm(&tower.post_layernorm));
        let head = begin(head(&tower.head));
        Ok(VisionTower {
            patch_embedding_weight: patches.await?,
            patch_embedding_bias: bias.await?,
            position_embedding: positions.await?,
            encoder: Encoder { layers: Vec::new() },
            post_layernorm: post_norm.await?,
            head: head.await?,
            patch_size: tower.patch_size,
        })
    }

    /// With its last layer, which belongs to what is pooled, and without its token table.
    pub async fn text(tower: &TextTower) -> Result<TextTower> {
        let positions = begin(tensor(&tower.position_embedding));
        let final_norm = begin(norm(&tower.final_layer_norm));
        let head = begin(linear(&tower.head));
        let last = begin(layer(tower.last_layer()));
        Ok(TextTower {
            token_embedding: None,
            position_embedding: positions.await?,
            encoder: Encoder {
                layers: vec![last.await?],
            },
            final_layer_norm: final_norm.await?,
            head: head.await?,
        })
    }

    pub async fn layer(layer: &EncoderLayer) -> Result<EncoderLayer> {
        let norms = [&layer.layer_norm1, &layer.layer_norm2].map(|given| begin(norm(given)));
        let heads = begin(attention(&layer.self_attn));
        let mlp = begin(mlp(&layer.mlp));
        let [norm1, norm2] = norms;
        Ok(EncoderLayer {
            layer_norm1: norm1.await?,
            self_attn: heads.await?,
            layer_norm2: norm2.await?,
            mlp: mlp.await?,
        })
    }

    async fn attention(given: &Attention) -> Result<Attention> {
        let layers = [&given.q_proj, &given.k_proj, &given.v_proj, &given.out_proj];
        let [query, key, value, out] = layers.map(|layer| begin(linear(layer)));
        Ok(Attention {
            q_proj: query.await?,
            k_proj: key.await?,
            v_proj: value.await?,
            out_proj: out.await?,
            heads: given.heads,
        })
    }

    async fn head(head: &Head) -> Result<Head> {
        Ok(match head {
            Head::Pooling(head) => Head::Pooling(pooling(head).await?),
            Head::Classifier(head) => Head::Classifier(ClassifierHead {
                classifier: linear(&head.classifier).await?,
                heads: head.heads,
            }),
        })
    }

    async fn pooling(head: &AttentionPooling) -> Result<AttentionPooling> {
        let probe = begin(tensor(&head.probe));
        let in_weight = begin(weight(&head.in_proj_weight));
        let in_bias = begin(tensor(&head.in_proj_bias));
        let out = begin(linear(&head.out_proj));
        let layer_norm = begin(norm(&head.layernorm));
        let mlp = begin(mlp(&head.mlp));
        Ok(AttentionPooling {
            probe: probe.await?,
            in_proj_weight: in_weight.await?,
            in_proj_bias: in_bias.await?,
            out_proj: out.await?,
            layernorm: layer_norm.await?,
            mlp: mlp.await?,
            heads: head.heads,
        })
    }

    async fn mlp(given: &Mlp) -> Result<Mlp> {
        let [fc1, fc2] = [&given.fc1, &given.fc2].map(|layer| begin(linear(layer)));
        Ok(Mlp {
            fc1: fc1.await?,
            fc2: fc2.await?,
            activation: given.activation,
        })
    }

    async fn linear(layer: &Linear) -> Result<Linear> {
        let weight = begin(weight(&layer.weight));
        let bias = begin(tensor(&layer.bias));
        Ok(Linear {
            weight: weight.await?,
            bias: bias.await?,
        })
    }

    async fn norm(given: &LayerNorm) -> Result<LayerNorm> {
        let [gamma, beta] = [&given.gamma, &given.beta].map(|vector| begin(tensor(vector)));
        Ok(LayerNorm {
            gamma: gamma.await?,
            beta: beta.await?,
            epsilon: given.epsilon,
        })
    }

    async fn weight(given: &Weight) -> Result<Weight> {
        Ok(match given {
            Weight::Plain(matrix) => Weight::Plain(tensor(matrix).await?),
            Weight::Packed(packed) => {
                let words = to_words(packed.words.clone()).await?;
                let matrix = PackedMatrix::from_words(packed.dtype, packed.input, words);
                Weight::Packed(PackedWeight::new(matrix, &Device::flex()))
            }
            Weight::Held(_) => given.clone(),
        })
    }

    async fn tensor<const D: usize>(given: &Param<Tensor<D>>) -> Result<Param<Tensor<D>>> {
        let value = given.val();
        let shape = value.dims();
        let values = to_vec(value).await?;
        Ok(Param::from_tensor(from_vec(values, shape, &Device::flex())))
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::model::{Parameter, Scope, SiglipConfig, Weights};

    /// Parameters of a size that keeps numbers in bounds.
    struct Random(Numbers);

    impl Weights for Random {
        fn tensor<const D: usize>(&mut self, _: Parameter, shape: [usize; D]) -> Tensor<D> {
            let size = (shape[D - 1] as f32).sqrt().recip();
            let values = self.0.values(shape.iter().product());
            let values = values.iter().map(|value| 2.0 * size * value).collect();
            from_vec(values, shape, &Device::flex())
        }
    }

    const TOKENS: usize = 100;

    /// A layer, and what it makes of some input: that, what its heads find, and its output.
    fn observed() -> (EncoderLayer, [Vec<f32>; 3]) {
        let sizes = r#"{"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 3, "num_hidden_layers": 1}"#;
        let json = format!(
            r#"{{"model_type": "siglip", "text_config": {sizes}, "vision_config": {sizes}}}"#
        );
        let config = SiglipConfig::from_json(json.as_bytes()).unwrap();
        let mut random = Random(Numbers(1));
        let layer = EncoderLayer::new(&config.vision.encoder, Scope::new(&mut random));
        let shape = [1, TOKENS, 48];
        let x = from_vec(random.0.values(TOKENS * 48), shape, &Device::flex());
        let attended = layer.attend(x.clone());
        let y = layer.finish(attended.clone(), x.clone());
        let values = [x, attended, y].map(|tensor| pollster::block_on(to_vec(tensor)).unwrap());
        (layer, values)
    }

    fn check(layer: &EncoderLayer, values: [Vec<f32>; 3]) -> Result<()> {
        pollster::block_on(check_layer("layer", layer, values))
    }

    #[test]
    fn a_layer_that_the_cpu_agrees_with_is_right() {
        let (layer, values) = observed();
        check(&layer, values).unwrap();
    }

    #[test]
    fn a_softmax_over_the_first_40_keys_alone_is_found() {
        let (layer, [x, _, y]) = observed();
        let heads = &layer.self_attn;
        let all = from_vec(x.clone(), [1, TOKENS, 48], &Device::flex());
        let normed = layer.layer_norm1.forward(all);
        let [key, value] = [&heads.k_proj, &heads.v_proj]
            .map(|layer| layer.forward(normed.clone()).slice([0..1, 0..40, 0..48]));
        let attended = kernels::attention(heads.q_proj.forward(normed), key, value, heads.heads);
        let attended = pollster::block_on(to_vec(attended)).unwrap();
        let error = check(&layer, [x, attended, y]).unwrap_err();
        assert_eq!(error.code(), Code::DeviceLost);
        assert!(
            error.message().contains("attention in the layer"),
            "{error}"
        );
    }

    #[test]
    fn results_that_are_stale_or_not_finite_are_found() {
        let (layer, [x, attended, y]) = observed();
        let old: Vec<f32> = y.iter().rev().copied().collect();
        let error = check(&layer, [x.clone(), attended.clone(), old]).unwrap_err();
        assert_eq!(error.code(), Code::DeviceLost);
        let nowhere = vec![f32::NAN; y.len()];
        let error = check(&layer, [x, attended, nowhere]).unwrap_err();
        assert_eq!(error.code(), Code::DeviceLost);
        // Where the CPU finds nothing finite either, the weights are to blame.
        let (mut layer, [x, attended, y]) = observed();
        layer.mlp.fc1.bias = Param::from_tensor(layer.mlp.fc1.bias.val() + f32::INFINITY);
        let error = check(&layer, [x, attended, y]).unwrap_err();
        assert_eq!(error.code(), Code::BadModel);
    }
}
