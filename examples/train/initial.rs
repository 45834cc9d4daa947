//! Random weights, drawn as big_vision and transformers' `SiglipPreTrainedModel._init_weights` do.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use siglip_web::loss::{INITIAL_LOGIT_BIAS, INITIAL_LOGIT_SCALE};
use siglip_web::model::ParameterSpec;

/// Standard deviation of a normal distribution cut at two of its own, which big_vision and transformers make up for.
const CUT_DEVIATION: f32 = 0.879_626;

/// Values for the parameter, flat.
pub fn values(spec: &ParameterSpec, random: &mut ChaCha8Rng) -> Vec<f32> {
    let shape = &spec.shape;
    let elements = shape.iter().product();
    let is = |end: &str| spec.name.ends_with(end);
    let inputs = shape[1..].iter().product::<usize>() as f32;
    let xavier = |inputs: f32, outputs: f32, random: &mut ChaCha8Rng| {
        let bound = (6.0 / (inputs + outputs)).sqrt();
        (0..elements)
            .map(|_| random.random_range(-bound..bound))
            .collect()
    };
    match shape.len() {
        1 if is("logit_scale") => vec![INITIAL_LOGIT_SCALE],
        1 if is("logit_bias") => vec![INITIAL_LOGIT_BIAS],
        // Norms, the first or last of which has no number in its name: layer_norm1, post_layernorm, final_layer_norm.
        1 if is(".weight") => vec![1.0; elements],
        1 if is(".fc1.bias") || is(".fc2.bias") => normal(elements, 1e-6, random),
        1 => vec![0.0; elements],
        _ if is("_embedding.weight") && shape.len() == 2 => {
            normal(elements, inputs.sqrt().recip(), random)
        }
        _ if is(".probe") => xavier(inputs, inputs, random),
        _ if is("_proj_weight")
            || is(".fc1.weight")
            || is(".fc2.weight")
            || (spec.name.contains(".self_attn.") && is("_proj.weight")) =>
        {
            xavier(inputs, shape[0] as f32, random)
        }
        // The patch convolution and the heads' projections.
        _ => lecun(elements, inputs, random),
    }
}

fn normal(elements: usize, deviation: f32, random: &mut ChaCha8Rng) -> Vec<f32> {
    let normal = Normal::new(0.0, deviation).expect("a positive deviation");
    (0..elements).map(|_| normal.sample(random)).collect()
}

/// A normal distribution of variance 1/inputs, cut at two deviations.
fn lecun(elements: usize, inputs: f32, random: &mut ChaCha8Rng) -> Vec<f32> {
    let normal = Normal::new(0.0_f32, 1.0).expect("a positive deviation");
    let scale = inputs.sqrt().recip() / CUT_DEVIATION;
    let one = |random: &mut ChaCha8Rng| {
        loop {
            let value = normal.sample(random);
            if value.abs() <= 2.0 {
                return value * scale;
            }
        }
    };
    (0..elements).map(|_| one(random)).collect()
}
