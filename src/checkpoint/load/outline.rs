//! Which kernels a model will run, before its weights are here.

use std::collections::HashMap;

use burn::module::Param;
use burn::tensor::{Device, Tensor};

use crate::checkpoint::weight_dtype;
use crate::kernels::Dtype;
use crate::kernels::pipelines::{Compiling, MetaTensors, begin};
use crate::model::{Parameter, ParameterSpec, Role, Siglip, SiglipConfig, Weight, Weights};

/// How many pictures and texts at once: one, and as many as take kernels that one doesn't.
const PICTURES: [usize; 2] = [1, 2];
const TEXTS: [usize; 2] = [1, 16];

/// Begins to make the pipelines of a model with these parameters, which will be loaded as `dtype` on `device`.
pub fn prepare(
    config: &SiglipConfig,
    specs: &[ParameterSpec],
    dtype: Dtype,
    device: &Device,
) -> Compiling {
    begin(device, || {
        let outlines = MetaTensors::new(device);
        let mut weights = Outline {
            outlines: &outlines,
            specs: specs.iter().map(|s| (s.name.as_str(), s)).collect(),
            dtype,
        };
        let model = Siglip::new(config, &mut weights);
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
    outlines: &'a MetaTensors,
    specs: HashMap<&'a str, &'a ParameterSpec>,
    dtype: Dtype,
}

impl Weights for Outline<'_> {
    fn tensor<const D: usize>(&mut self, _: Parameter, shape: [usize; D]) -> Tensor<D> {
        self.outlines.float(shape)
    }

    fn weight<const D: usize>(&mut self, parameter: Parameter, _: [usize; D]) -> Weight {
        let spec = self.specs[parameter.name];
        match weight_dtype(self.dtype, spec) {
            Dtype::F32 => Weight::Plain(Param::from_tensor(self.outlines.float(spec.matrix()))),
            dtype => Weight::Packed(self.outlines.packed(dtype, spec.matrix())),
        }
    }

    fn has_text(&self) -> bool {
        (self.specs.values()).any(|spec| spec.role == Role::TokenTable)
    }
}
