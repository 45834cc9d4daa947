//! The GPU forms, in WGSL that needs no optional feature, so that they run on every WebGPU adapter and, the same text,
//! natively over Vulkan, Metal and DX12.
//!
//! Sizes that a model fixes are constants of the shader; those that a call fixes (rows, tokens) are read from a small
//! buffer, so that another number of labels needs no new pipeline.

use burn::backend::wgpu::{
    CubeDim, CubeTensor, KernelSource, SourceKernel, SourceTemplate, into_contiguous,
};
use burn::backend::{Cube, TensorMetadata};
use burn::cubecl::prelude::{CubeCount, KernelId};
use burn::cubecl::server::KernelArguments;
use burn::tensor::Shape;

use super::Kernels;
use super::packed::Dtype;
use crate::model::Activation;

/// A WGSL text with the constants that stand in for its `{{names}}`.
struct Shader {
    text: &'static str,
    constants: Vec<(&'static str, String)>,
}

impl KernelSource for Shader {
    fn source(&self) -> SourceTemplate {
        self.constants
            .iter()
            .fold(SourceTemplate::new(self.text), |source, (name, value)| {
                source.register(*name, value.clone())
            })
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info((self.text, self.constants.clone()))
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// Runs `shader` over `inputs` (contiguous, f32), an output of `shape` and the call's `sizes`, bound in this order.
fn run(
    shader: Shader,
    workgroup: [u32; 3],
    workgroups: [usize; 3],
    inputs: &[&CubeTensor],
    shape: Shape,
    sizes: &[u32],
) -> CubeTensor {
    let first = inputs[0];
    let client = first.client.clone();
    let output = CubeTensor::new_contiguous(
        client.clone(),
        first.device.clone(),
        shape.clone(),
        client.empty(shape.num_elements() * size_of::<f32>()),
        first.dtype,
    );
    let bytes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
    let sizes = client.create_from_slice(&bytes);
    let buffers = inputs
        .iter()
        .map(|tensor| tensor.handle.clone().binding())
        .chain([output.handle.clone().binding(), sizes.binding()])
        .collect();
    let [x, y, z] = workgroups.map(|count| count as u32);
    let [wx, wy, wz] = workgroup;
    client.launch(
        Box::new(SourceKernel::new(shader, CubeDim::new_3d(wx, wy, wz))),
        CubeCount::Static(x, y, z),
        KernelArguments::new().with_buffers(buffers),
    );
    output
}

/// Output rows and columns of one invocation of `linear.wgsl` and `linear_packed.wgsl`.
const TILE: usize = 4;
/// Invocations of one of its workgroups along each side.
const SIDE: usize = 8;

/// `dtype`: what the weight is held as; `F32` for one that is not packed.
fn linear(
    dtype: Dtype,
    x: CubeTensor,
    weight: CubeTensor,
    bias: CubeTensor,
    residual: Option<CubeTensor>,
    activation: Option<Activation>,
) -> CubeTensor {
    let [rows, input] = x.shape().dims();
    let [output, _] = weight.shape().dims();
    let (x, weight, bias) = (
        into_contiguous(x),
        into_contiguous(weight),
        into_contiguous(bias),
    );
    let residual = residual.map(into_contiguous);
    let (residual_binding, finish) = match (&residual, activation) {
        (None, None) => ("", "sum"),
        (None, Some(Activation::GeluTanh)) => ("", "gelu_tanh(sum)"),
        (Some(_), _) => (
            "@group(0) @binding(3) var<storage, read_write> residual: array<vec4<f32>>;",
            "residual[index] + sum",
        ),
    };
    let mut inputs = vec![&x, &weight, &bias];
    inputs.extend(&residual);
    let mut constants = vec![
        ("input_vectors", (input / 4).to_string()),
        ("output_vectors", (output / 4).to_string()),
        ("residual_binding", residual_binding.into()),
        ("output_binding", inputs.len().to_string()),
        ("sizes_binding", (inputs.len() + 1).to_string()),
        ("finish", finish.into()),
    ];
    let text = match dtype {
        Dtype::F32 => include_str!("linear.wgsl"),
        _ => {
            let (scale, numbers) = packed_forms(dtype);
            constants.extend([
                ("row_words", dtype.row_words(input).to_string()),
                ("number_words", dtype.number_words(input).to_string()),
                ("block_vectors", (dtype.block() / 4).to_string()),
                ("scale", scale.into()),
                ("numbers", numbers.into()),
            ]);
            include_str!("linear_packed.wgsl")
        }
    };
    let shader = Shader { text, constants };
    run(
        shader,
        [SIDE as u32, SIDE as u32, 1],
        [output.div_ceil(TILE * SIDE), rows.div_ceil(TILE * SIDE), 1],
        &inputs,
        Shape::new([rows, output]),
        &[rows as u32],
    )
}

/// How a shader reads the factor and the offset of a block whose word is number `word`, and the four numbers `k` of the row
/// that begins at word `start`.
fn packed_forms(dtype: Dtype) -> (&'static str, &'static str) {
    // Bytes are read as parts of 255.
    let affine = "vec2<f32>(bitcast<f32>(weight[word] << 16u) * 255.0, bitcast<f32>(weight[word] & 0xffff0000u))";
    match dtype {
        Dtype::F32 => unreachable!("f32 has a shader of its own"),
        Dtype::F16 => (
            "vec2<f32>(1.0, 0.0)",
            "vec4<f32>(unpack2x16float(weight[start + 2u * k]), unpack2x16float(weight[start + 2u * k + 1u]))",
        ),
        Dtype::Q8 => (affine, "unpack4x8unorm(weight[start + k])"),
        Dtype::Q4 => (
            affine,
            "unpack4x8unorm((weight[start + (k >> 1u)] >> ((k & 1u) * 4u)) & 0x0f0f0f0fu)",
        ),
    }
}

impl Kernels for Cube {
    fn siglip_linear(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        activation: Option<Activation>,
    ) -> CubeTensor {
        linear(Dtype::F32, x, weight, bias, None, activation)
    }

    fn siglip_linear_residual(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        residual: CubeTensor,
    ) -> CubeTensor {
        linear(Dtype::F32, x, weight, bias, Some(residual), None)
    }

    fn siglip_linear_packed(
        x: CubeTensor,
        words: CubeTensor,
        bias: CubeTensor,
        dtype: Dtype,
        activation: Option<Activation>,
    ) -> CubeTensor {
        linear(dtype, x, words, bias, None, activation)
    }

    fn siglip_linear_packed_residual(
        x: CubeTensor,
        words: CubeTensor,
        bias: CubeTensor,
        residual: CubeTensor,
        dtype: Dtype,
    ) -> CubeTensor {
        linear(dtype, x, words, bias, Some(residual), None)
    }

    fn siglip_attention(
        query: CubeTensor,
        key: CubeTensor,
        value: CubeTensor,
        heads: usize,
    ) -> CubeTensor {
        const WORKGROUP: usize = 32;
        let [batch, queries, hidden] = query.shape().dims();
        let keys = key.shape()[1];
        let (query, key, value) = (
            into_contiguous(query),
            into_contiguous(key),
            into_contiguous(value),
        );
        let shader = Shader {
            text: include_str!("attention.wgsl"),
            constants: vec![
                ("heads", heads.to_string()),
                ("head_vectors", (hidden / heads / 4).to_string()),
            ],
        };
        run(
            shader,
            [WORKGROUP as u32, 1, 1],
            [queries.div_ceil(WORKGROUP), heads, batch],
            &[&query, &key, &value],
            Shape::new([batch, queries, hidden]),
            &[queries as u32, keys as u32],
        )
    }

    fn siglip_layer_norm(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        epsilon: f64,
    ) -> CubeTensor {
        const WORKGROUP: usize = 32;
        let [rows, hidden] = x.shape().dims();
        let (x, gamma, beta) = (
            into_contiguous(x),
            into_contiguous(gamma),
            into_contiguous(beta),
        );
        let shader = Shader {
            text: include_str!("layer_norm.wgsl"),
            constants: vec![
                ("hidden_vectors", (hidden / 4).to_string()),
                ("epsilon", format!("{epsilon:e}")),
            ],
        };
        run(
            shader,
            [WORKGROUP as u32, 1, 1],
            [rows.div_ceil(WORKGROUP), 1, 1],
            &[&x, &gamma, &beta],
            Shape::new([rows, hidden]),
            &[rows as u32],
        )
    }
}
