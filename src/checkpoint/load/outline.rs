//! Which kernels a model will run, before its weights are here.

use std::collections::HashMap;

use burn::module::Param;
use burn::tensor::{Device, Tensor};

use crate::checkpoint::weight_dtype;
use crate::kernels::Dtype;
use crate::kernels::ahead::{Begun, Outlines, begin};
use crate::model::{ParameterSpec, Siglip, SiglipConfig, Weight, Weights};

/// How many pictures and texts at once: one, and as many as take kernels that one doesn't.
const PICTURES: [usize; 2] = [1, 2];
const TEXTS: [usize; 2] = [1, 16];

/// Begins to make the pipelines of a model with these parameters, which will be loaded as `dtype` on `device`.
pub fn prepare(
    config: &SiglipConfig,
    specs: &[ParameterSpec],
    dtype: Dtype,
    device: &Device,
) -> Begun {
    begin(device, || {
        let outlines = Outlines::new(device);
        let mut weights = Outline {
            outlines: &outlines,
            specs: specs.iter().map(|s| (s.name.as_str(), s)).collect(),
            dtype,
        };
        let texts = specs
            .iter()
            .any(|spec| spec.name.starts_with("text_model."));
        let model = match texts {
            true => Siglip::new(config, &mut weights),
            false => Siglip::without_text(config, &mut weights),
        };
        let (channels, side) = (config.vision.num_channels, config.vision.image_size);
        for count in PICTURES {
            let pixels = outlines.float([count, channels, side, side]);
            model.vision.forward(pixels);
        }
        let Some(tower) = &model.text else {
            return;
        };
        for count in TEXTS {
            tower.forward(outlines.ids([count, config.text.max_position_embeddings]));
        }
    })
}

/// Weights that have only shapes.
struct Outline<'a> {
    outlines: &'a Outlines,
    specs: HashMap<&'a str, &'a ParameterSpec>,
    dtype: Dtype,
}

impl Weights for Outline<'_> {
    fn tensor<const D: usize>(&mut self, _: &str, shape: [usize; D]) -> Tensor<D> {
        self.outlines.float(shape)
    }

    fn weight<const D: usize>(&mut self, name: &str, _: [usize; D]) -> Weight {
        let spec = self.specs[name];
        match weight_dtype(self.dtype, spec) {
            Dtype::F32 => Weight::Plain(Param::from_tensor(self.outlines.float(spec.matrix()))),
            dtype => Weight::Packed(self.outlines.packed(dtype, spec.matrix())),
        }
    }
}
