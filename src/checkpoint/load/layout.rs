//! Which parameter each tensor of a file is, in the layouts in which SigLIP's weights are published.
//!
//! - **transformers**: a tensor for each parameter, under its name.
//! - **MLX** (`mlx-embeddings`): prefixes doubled (`vision_model.vision_model.`), the patch convolution's channels last, and of quantized
//!   parameters three tensors: `weight`, U32 words with the codes `q` of a row as one stream of bits, the first in the lowest; `scales` and
//!   `biases` for each group of a row, so that a number is `scale · q + bias`.
//! - **open_clip**: timm's names for the vision tower (`visual.trunk.`) and open_clip's for the text tower (`text.`); queries, keys and values
//!   of the encoders' attention in one tensor, and the queries of the pooling head apart from its keys and values.

use std::collections::HashSet;

use safetensors::tensor::Dtype as NumberFormat;

use super::sink::{Encoding, Numbers, Sink, Target};
use super::tensors::unheld;
use crate::checkpoint::TensorInfo;
use crate::checkpoint::format::Packing;
use crate::checkpoint::safetensors::{append_f32, size_of_number};
use crate::error::{Error, Result};
use crate::model::ParameterSpec;

/// A tensor of a file, or some rows of one, and the parameter that it is or belongs to.
#[derive(Clone, Debug)]
pub struct Part {
    /// Where it is, as the file has it.
    pub tensor: TensorInfo,
    /// The parameter's name.
    pub parameter: String,
    pub share: Share,
}

/// How the tensor makes up its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// It is the parameter, number for number.
    Whole,
    /// It is so many thirds of its rows, from this one on.
    Thirds { first: usize, count: usize },
    /// It is a convolution's kernels `[out, height, width, in]`, or as rows `[out, height · width · in]`.
    ChannelsLast,
    /// Codes of a quantized parameter.
    Codes,
    /// Scales of its groups.
    Scales,
    /// What is added to each number of a group.
    Biases,
}

const VISION: &str = "vision_model.";
const TEXT: &str = "text_model.";
/// The patch convolution.
const PATCHES: &str = ".patch_embedding.weight";
/// The vision tower in open_clip's layout.
const TRUNK: &str = "visual.trunk.";

/// The parameters that the tensors of a file are, in their order. Names that no layout knows stay as they are.
pub fn parts(tensors: &[TensorInfo], packing: &Packing) -> Vec<Part> {
    if tensors.iter().any(|tensor| tensor.name.starts_with(TRUNK)) {
        return tensors.iter().flat_map(open_clip).collect();
    }
    let quantized: HashSet<&str> = tensors
        .iter()
        .filter_map(|tensor| tensor.name.strip_suffix(".scales"))
        .collect();
    let part = |tensor: &TensorInfo| {
        let (stem, field) = tensor.name.rsplit_once('.').unwrap_or(("", &tensor.name));
        let share = match field {
            "scales" => Share::Scales,
            "biases" => Share::Biases,
            "weight" if quantized.contains(stem) => Share::Codes,
            // The scales may be in another shard.
            "weight" if tensor.dtype == NumberFormat::U32 && packing.of(&tensor.name).is_none() => {
                Share::Codes
            }
            "weight" if is_mlx(&tensor.name) && tensor.shape.len() == 4 => Share::ChannelsLast,
            // NaFlex makes patches of pixels before the model sees them.
            "weight" if tensor.name.ends_with(PATCHES) && tensor.shape.len() == 2 => {
                Share::ChannelsLast
            }
            _ => Share::Whole,
        };
        let parameter = match share {
            Share::Scales | Share::Biases => parameter(&format!("{stem}.weight")),
            _ => parameter(&tensor.name),
        };
        Part {
            tensor: tensor.clone(),
            parameter,
            share,
        }
    };
    tensors.iter().map(part).collect()
}

fn is_mlx(name: &str) -> bool {
    [VISION, TEXT].iter().any(|tower| {
        name.strip_prefix(tower)
            .is_some_and(|rest| rest.starts_with(tower))
    })
}

/// The parameter's name of a tensor in transformers' or MLX's layout.
pub fn parameter(name: &str) -> String {
    if !is_mlx(name) {
        return name.to_owned();
    }
    let (_, rest) = name.split_once('.').expect("it has two prefixes");
    rest.replace(".attention.in_proj.", ".attention.in_proj_")
}

/// A tensor in open_clip's layout: several parts, where it holds several parameters.
fn open_clip(tensor: &TensorInfo) -> Vec<Part> {
    let name = tensor.name.as_str();
    let whole = |parameter: String| {
        vec![Part {
            tensor: tensor.clone(),
            parameter,
            share: Share::Whole,
        }]
    };
    let Some((stem, field)) = name.rsplit_once('.') else {
        // logit_scale and logit_bias have no dimension.
        let mut one = tensor.clone();
        one.shape = vec![1; usize::from(tensor.shape.is_empty())];
        one.shape.extend(&tensor.shape);
        return vec![Part {
            tensor: one,
            parameter: name.into(),
            share: Share::Whole,
        }];
    };
    let layer = |rest: &str, tower: &str| {
        let (index, rest) = rest.split_once('.')?;
        index.parse::<usize>().ok()?;
        Some((format!("{tower}encoder.layers.{index}."), rest.to_owned()))
    };
    if let Some(stem) = stem.strip_prefix("text.transformer.resblocks.") {
        let Some((prefix, rest)) = layer(&format!("{stem}."), TEXT) else {
            return whole(name.into());
        };
        let rest = rest.trim_end_matches('.');
        if let (Some(kind), "attn") = (field.strip_prefix("in_proj_"), rest) {
            return thirds(tensor, &format!("{prefix}self_attn."), kind);
        }
        let module = match rest {
            "ln_1" => "layer_norm1",
            "ln_2" => "layer_norm2",
            "attn.out_proj" => "self_attn.out_proj",
            "mlp.c_fc" => "mlp.fc1",
            "mlp.c_proj" => "mlp.fc2",
            _ => return whole(name.into()),
        };
        return whole(format!("{prefix}{module}.{field}"));
    }
    if let Some(stem) = stem.strip_prefix("visual.trunk.blocks.") {
        let Some((prefix, rest)) = layer(stem, VISION) else {
            return whole(name.into());
        };
        let module = match rest.as_str() {
            "attn.qkv" => return thirds(tensor, &format!("{prefix}self_attn."), field),
            "attn.proj" => "self_attn.out_proj",
            "norm1" => "layer_norm1",
            "norm2" => "layer_norm2",
            other => other,
        };
        return whole(format!("{prefix}{module}.{field}"));
    }
    let rows = |first: usize, count: usize| {
        vec![Part {
            tensor: tensor.clone(),
            parameter: format!("{VISION}head.attention.in_proj_{field}"),
            share: Share::Thirds { first, count },
        }]
    };
    let module = match stem {
        "visual.trunk" if field == "pos_embed" && tensor.shape.first() == Some(&1) => {
            let mut table = tensor.clone();
            // [1, patches, hidden]
            table.shape = tensor.shape.iter().skip(1).copied().collect();
            return vec![Part {
                tensor: table,
                parameter: format!("{VISION}embeddings.position_embedding.weight"),
                share: Share::Whole,
            }];
        }
        "visual.trunk.attn_pool" if field == "latent" => {
            return whole(format!("{VISION}head.probe"));
        }
        // Queries, then keys and values.
        "visual.trunk.attn_pool.q" => return rows(0, 1),
        "visual.trunk.attn_pool.kv" => return rows(1, 2),
        "visual.trunk.patch_embed.proj" => "vision_model.embeddings.patch_embedding",
        "visual.trunk.norm" => "vision_model.post_layernorm",
        "visual.trunk.attn_pool.proj" => "vision_model.head.attention.out_proj",
        "visual.trunk.attn_pool.norm" => "vision_model.head.layernorm",
        "visual.trunk.attn_pool.mlp.fc1" => "vision_model.head.mlp.fc1",
        "visual.trunk.attn_pool.mlp.fc2" => "vision_model.head.mlp.fc2",
        "text.token_embedding" => "text_model.embeddings.token_embedding",
        "text.ln_final" => "text_model.final_layer_norm",
        "text.text_projection" => "text_model.head",
        "text" if field == "positional_embedding" => {
            return whole(format!("{TEXT}embeddings.position_embedding.weight"));
        }
        _ => return whole(name.into()),
    };
    whole(format!("{module}.{field}"))
}

/// Queries, keys and values that stand one after the other.
fn thirds(tensor: &TensorInfo, module: &str, field: &str) -> Vec<Part> {
    let rows = tensor.shape.first().copied().unwrap_or_default();
    if !rows.is_multiple_of(3) {
        return vec![Part {
            tensor: tensor.clone(),
            parameter: tensor.name.clone(),
            share: Share::Whole,
        }];
    }
    let projections = ["q_proj", "k_proj", "v_proj"].iter().zip(0..);
    projections
        .map(|(projection, i)| {
            let mut third = tensor.clone();
            third.bytes = tensor.bytes / 3;
            third.offset = tensor.offset + i * third.bytes;
            third.shape[0] = rows / 3;
            Part {
                tensor: third,
                parameter: format!("{module}{projection}.{field}"),
                share: Share::Whole,
            }
        })
        .collect()
}

// ---------------------------------------------------------------------------------------------------------------------
// Parameters of several parts

/// How the numbers of a quantized parameter are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    pub bits: usize,
    /// Groups of a row.
    pub groups: usize,
    pub scales: NumberFormat,
}

impl Affine {
    /// Of a parameter `[rows, input]` with these parts.
    ///
    /// # Errors
    /// `bad-model`, naming the tensor and both shapes, if they don't fit together.
    pub fn of(file: &str, parts: &[&Part], spec: &ParameterSpec) -> Result<Self> {
        let [rows, input] = spec.matrix();
        let find = |share: Share| {
            let part = parts.iter().find(|part| part.share == share);
            part.map(|part| &part.tensor).ok_or_else(|| {
                let name = &spec.name;
                Error::bad_model(format!(
                    "{file} has no {share:?} of the quantized parameter {name}"
                ))
            })
        };
        let (codes, scales, biases) = (
            find(Share::Codes)?,
            find(Share::Scales)?,
            find(Share::Biases)?,
        );
        let wrong = |tensor: &TensorInfo, what: String| {
            Error::bad_model(format!(
                "{file}: the tensor {} has the shape {:?} of {:?}; {what} of [{rows}, {input}] numbers",
                tensor.name, tensor.shape, tensor.dtype
            ))
        };
        let columns = |tensor: &TensorInfo| match tensor.shape[..] {
            [r, columns] if r == rows as u64 => Some(columns as usize),
            _ => None,
        };
        let words = columns(codes).filter(|words| codes.dtype == NumberFormat::U32 && *words > 0);
        let bits = words.map(|words| 32 * words / input);
        let bits = bits
            .filter(|bits| [2, 3, 4, 5, 6, 8].contains(bits) && words == Some(bits * input / 32));
        let bits = bits.ok_or_else(|| wrong(codes, "these are no codes of 2 to 8 bits".into()))?;
        scales.check_dtype(file)?;
        biases.check_dtype(file)?;
        let groups = columns(scales).filter(|groups| *groups > 0 && input.is_multiple_of(*groups));
        let groups =
            groups.ok_or_else(|| wrong(scales, "these are no scales for the groups".into()))?;
        if biases.shape != scales.shape || biases.dtype != scales.dtype {
            return Err(wrong(
                biases,
                format!(
                    "they must be as the scales, {:?} of {:?},",
                    scales.shape, scales.dtype
                ),
            ));
        }
        Ok(Self {
            bits,
            groups,
            scales: scales.dtype,
        })
    }

    /// Bytes of a row's codes, scales and biases.
    pub fn row_bytes(&self, input: usize) -> [usize; 3] {
        let scales = self.groups * size_of_number(self.scales);
        [input * self.bits / 8, scales, scales]
    }

    /// A row's numbers.
    pub fn dequantize(&self, [codes, scales, biases]: [&[u8]; 3], row: &mut [f32]) {
        let numbers = |bytes: &[u8]| {
            let mut numbers = Vec::with_capacity(self.groups);
            append_f32(self.scales, bytes, &mut numbers);
            numbers
        };
        let (scales, biases) = (numbers(scales), numbers(biases));
        let group = row.len() / self.groups;
        let mut bits = Bits {
            bytes: codes,
            held: 0,
            count: 0,
        };
        for ((values, scale), bias) in row.chunks_mut(group).zip(scales).zip(biases) {
            for value in values {
                *value = scale * bits.take(self.bits) as f32 + bias;
            }
        }
    }
}

/// A stream of bits, the lowest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    held: u32,
    count: usize,
}

impl Bits<'_> {
    fn take(&mut self, bits: usize) -> u32 {
        while self.count < bits {
            let (byte, rest) = self.bytes.split_first().unwrap_or((&0, &[]));
            self.bytes = rest;
            self.held |= u32::from(*byte) << self.count;
            self.count += 8;
        }
        let value = self.held & ((1 << bits) - 1);
        self.held >>= bits;
        self.count -= bits;
        value
    }
}

/// A parameter of which the parts arrive one by one, in any order.
#[derive(Default)]
pub struct Assembly {
    arrived: Vec<(Part, Vec<u32>)>,
}

impl Assembly {
    /// Takes a part with its bytes as words. True if it was the last.
    pub fn add(&mut self, part: Part, words: Vec<u32>) -> bool {
        self.arrived.push((part, words));
        let shares = self.arrived.iter().map(|(part, _)| match part.share {
            Share::Whole | Share::ChannelsLast => 3,
            Share::Thirds { count, .. } => count,
            Share::Codes | Share::Scales | Share::Biases => 1,
        });
        shares.sum::<usize>() >= 3
    }

    /// The tensors that have arrived.
    pub fn names(&self) -> Vec<&str> {
        let tensors = self.arrived.iter();
        tensors.map(|(part, _)| part.tensor.name.as_str()).collect()
    }

    /// The parameter's numbers as `target` has them.
    ///
    /// # Errors
    /// `bad-model` if the parts don't fit together, or a number is not finite.
    pub fn numbers(self, file: &str, spec: &ParameterSpec, target: Target) -> Result<Numbers> {
        let mut sink = Sink::new(Encoding::Numbers(NumberFormat::F32), target, spec.matrix());
        self.rows(file, spec, |row| sink.push_numbers(row))?;
        sink.finish()
            .map_err(|fault| unheld(file, &spec.name, fault))
    }

    /// Gives the rows of the parameter, in order, to `push`.
    ///
    /// # Errors
    /// `bad-model` if the parts don't fit together.
    fn rows(
        mut self,
        file: &str,
        spec: &ParameterSpec,
        mut push: impl FnMut(&[f32]),
    ) -> Result<()> {
        let [rows, input] = spec.matrix();
        let mut row = vec![0.0; input];
        self.arrived.sort_by_key(|(part, _)| match part.share {
            Share::Thirds { first, .. } => first,
            Share::Whole | Share::ChannelsLast | Share::Codes => 0,
            Share::Scales => 1,
            Share::Biases => 2,
        });
        if self.arrived[0].0.share == Share::Codes {
            let parts: Vec<&Part> = self.arrived.iter().map(|(part, _)| part).collect();
            let affine = Affine::of(file, &parts, spec)?;
            let bytes = [0, 1, 2].map(|i| bytemuck::cast_slice::<u32, u8>(&self.arrived[i].1));
            let lengths = affine.row_bytes(input);
            for i in 0..rows {
                let part = |k: usize| &bytes[k][i * lengths[k]..][..lengths[k]];
                affine.dequantize([part(0), part(1), part(2)], &mut row);
                // Of patches only NaFlex's are quantized, which are no convolution.
                if let [_, channels, ..] = spec.shape[..] {
                    row = channels_first(&row, channels);
                }
                push(&row);
            }
            return Ok(());
        }
        for (part, words) in &self.arrived {
            let length = input * size_of_number(part.tensor.dtype);
            let bytes = &bytemuck::cast_slice::<u32, u8>(words)[..part.tensor.bytes as usize];
            for bytes in bytes.chunks_exact(length) {
                row.clear();
                append_f32(part.tensor.dtype, bytes, &mut row);
                if part.share == Share::ChannelsLast {
                    row = channels_first(&row, spec.shape[1]);
                }
                push(&row);
            }
        }
        Ok(())
    }
}

/// The numbers of a patch, whose channels are together for each pixel, with the pixels of each channel together.
fn channels_first(row: &[f32], channels: usize) -> Vec<f32> {
    let pixels = row.len() / channels;
    let places = (0..row.len()).map(|i| i % pixels * channels + i / pixels);
    places.map(|place| row[place]).collect()
}

/// The way back from [`channels_first`].
pub fn channels_last(row: &[f32], channels: usize) -> Vec<f32> {
    // The same exchange of two sides, from the other one.
    channels_first(row, row.len() / channels)
}
