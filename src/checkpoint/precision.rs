//! In how many bits each parameter lives.

use burn::tensor::Device;

use crate::kernels::{Dtype, takes_packed};
use crate::model::{ParameterSpec, Role};

/// Weights up to this many bytes stay in f32 unless the caller says otherwise.
const SMALL: u64 = 64 << 20;

/// The dtype of a model with so many parameters on `device`, where neither the caller nor the checkpoint names one.
pub(super) fn auto_dtype(parameters: usize, device: &Device) -> Dtype {
    // In 64 bits, also in a browser: the largest models have more than 4 GiB in f32.
    match parameters as u64 * size_of::<f32>() as u64 <= SMALL {
        true => Dtype::F32,
        false if *device == Device::flex() => Dtype::Q8,
        false => Dtype::F16,
    }
}

/// The dtype of one parameter's weights in a model that is loaded as `dtype`.
///
/// Some are finer than `dtype`, by their share in the error of the logits:
/// - The patch convolution: everything that the model sees goes through it.
/// - The token table: its rows are the input of every layer.
/// - The projections of queries and keys: a softmax magnifies their error.
/// - In `q4`, all but the MLPs, which are two thirds of an encoder.
/// - In `q4`, the MLPs of the first third of an encoder: their error grows on its way through the later layers (in a ViT-B, that of the
///   first layer counts three times as much as that of the fourth).
/// - In `q4`, the MLP of the vision tower's head: nothing comes after it that could average its error.
/// - The head of a fine-tuned classifier, for the same reason.
pub fn weight_dtype(dtype: Dtype, spec: &ParameterSpec) -> Dtype {
    match (dtype, spec.role) {
        // The host gathers the table's rows, whatever their length.
        (_, role) if role != Role::TokenTable && !takes_packed(spec.matrix()) => Dtype::F32,
        (Dtype::Q8, Role::Query | Role::Key | Role::TokenTable) => Dtype::F16,
        (Dtype::Q8 | Dtype::Q4, Role::PatchEmbedding | Role::Classifier) => Dtype::F16,
        (Dtype::Q4, Role::Mlp) if spec.layer.is_some_and(|(layer, of)| layer >= of / 3) => {
            Dtype::Q4
        }
        (Dtype::Q4, _) => Dtype::Q8,
        (other, _) => other,
    }
}
