//! The GPU forms, in WGSL that needs no optional feature, so that they run on every WebGPU adapter and, the same text,
//! natively over Vulkan, Metal and DX12. Subgroups, which wgpu can't ask a browser for, could only help the norms, 4 % of a
//! layer's time on an H100; weights in f16 are as fast without `shader-f16` as those in f32, and sums in f16 would not be the
//! reference's numbers.
//!
//! Sizes that a model fixes are constants of the shader; those that a call fixes (rows, tokens) come in a uniform of four
//! numbers, so that another number of labels needs no new pipeline. Everything stays within the limits that WebGPU guarantees.

mod shader;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::wgpu::{CubeDim, CubeTensor, KernelSource, SourceKernel};
use burn::backend::{Cube, TensorMetadata};
use burn::cubecl::prelude::CubeCount;
use burn::cubecl::server::{Handle, KernelArguments, MetadataBindingInfo, ServerError};
use burn::tensor::{DType, Shape};

use super::backend::Kernels;
use super::{Activation, Epilogue, Matrix};
use shader::{Attention, EpilogueKind, LayerNorm, Linear, LinearForm, Map, Shader, Value};

/// How the kernels divide their work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Each invocation for itself: what software adapters, which pay for barriers, run best.
    Registers,
    /// Workgroups that share what they read: what GPUs run best.
    Tiles,
}

static TILES: AtomicBool = AtomicBool::new(true);

/// Sets the form that kernels take from now on. [`device::start`](crate::device::start) chooses it by the kind of adapter; tests
/// and benchmarks run both.
pub fn set_form(form: Form) {
    TILES.store(form == Form::Tiles, Ordering::Relaxed);
}

fn form() -> Form {
    match TILES.load(Ordering::Relaxed) {
        true => Form::Tiles,
        false => Form::Registers,
    }
}

thread_local! {
    static DISPATCHES: Cell<usize> = const { Cell::new(0) };
}

/// How many kernels this thread has started.
pub fn dispatches() -> usize {
    DISPATCHES.get()
}

thread_local! {
    /// What would have been started, while kernels are only noted.
    static NOTED: RefCell<Option<Vec<Shader>>> = const { RefCell::new(None) };
}

/// The texts of the kernels that `work` starts, each once. None of them runs, and nothing is allocated for their results, so
/// that only the shapes of tensors count meanwhile.
pub fn texts(work: impl FnOnce()) -> Vec<String> {
    NOTED.set(Some(Vec::new()));
    work();
    let shaders = NOTED.take().expect("set above, and nothing else takes it");
    let source = |shader: Shader| shader.source().complete();
    shaders.into_iter().map(source).collect()
}

/// Whether `shader` was noted, and is not to run.
fn noted(shader: Shader) -> bool {
    NOTED.with_borrow_mut(|noted| match noted {
        Some(shaders) => {
            if !shaders.contains(&shader) {
                shaders.push(shader);
            }
            true
        }
        None => false,
    })
}

/// The memory of `like` as a tensor of this shape and type, whether it fits or, while kernels are only noted, not.
pub fn of_shape(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    CubeTensor::new_contiguous(client, device, shape, like.handle.clone(), dtype)
}

/// Some of the words that a tensor holds; they must begin at a multiple of [`ALIGNMENT`].
pub fn part(whole: &CubeTensor, words: Range<usize>) -> CubeTensor {
    let count = whole.shape().num_elements();
    let bytes = |words: usize| (words * size_of::<u32>()) as u64;
    let (before, behind) = (bytes(words.start), bytes(count - words.end));
    let handle = whole.handle.clone();
    let handle = handle.offset_start(before).offset_end(behind);
    let (client, device) = (whole.client.clone(), whole.device.clone());
    CubeTensor::new_contiguous(
        client,
        device,
        Shape::new([words.len()]),
        handle,
        whole.dtype,
    )
}

/// The tensors' numbers as words on the host, all copied by the same submission.
pub async fn read<const N: usize>(tensors: [CubeTensor; N]) -> Result<[Vec<u32>; N], ServerError> {
    let tensors = tensors.map(contiguous);
    let client = tensors[0].client.clone();
    let counts = tensors
        .each_ref()
        .map(|tensor| tensor.shape().num_elements());
    let handles = tensors.into_iter().map(|tensor| tensor.handle).collect();
    let bytes = client.read_async(handles).await?;
    Ok(std::array::from_fn(|i| {
        let (words, _) = bytes[i].as_chunks();
        let words = words.iter().take(counts[i]);
        words.copied().map(u32::from_le_bytes).collect()
    }))
}

/// Natively tensors may come from any of burn's operations.
#[cfg(not(target_family = "wasm"))]
fn contiguous(tensor: CubeTensor) -> CubeTensor {
    burn::backend::wgpu::into_contiguous(tensor)
}

/// In a page all come from here, and making others contiguous would take a library of kernels.
#[cfg(target_family = "wasm")]
fn contiguous(tensor: CubeTensor) -> CubeTensor {
    assert!(tensor.is_contiguous(), "only what these kernels wrote");
    tensor
}

/// The distance that bindings into one buffer keep: what WebGPU may ask for.
pub const ALIGNMENT: usize = 256;

/// `bytes` of memory like that of `like`.
fn allocate(like: &CubeTensor, bytes: usize) -> Handle {
    match NOTED.with_borrow(Option::is_some) {
        true => like.handle.clone(),
        false => like.client.empty(bytes),
    }
}

fn tensor(like: &CubeTensor, handle: Handle, shape: Shape) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    CubeTensor::new_contiguous(client, device, shape, handle, DType::F32)
}

/// Runs `shader` over `inputs` (contiguous), `output` and the call's sizes, bound in this order.
fn launch(
    shader: Shader,
    workgroups: [usize; 3],
    inputs: &[&CubeTensor],
    output: &Handle,
    sizes: [usize; 4],
) {
    if noted(shader) {
        return;
    }
    DISPATCHES.set(DISPATCHES.get() + 1);
    let buffers = inputs.iter().map(|tensor| tensor.handle.clone().binding());
    let buffers: Vec<_> = buffers.chain([output.clone().binding()]).collect();
    // All are declared writable, because the runtime's tensors share buffers, and WebGPU refuses those that are bound twice.
    for (i, a) in buffers.iter().enumerate() {
        for b in &buffers[..i] {
            let meet = a.range().start < b.range().end && b.range().start < a.range().end;
            let same = a.memory.id() == b.memory.id() && meet;
            assert!(!same, "the same tensor twice in one operation");
        }
    }
    // Kept by the runtime: the same sizes are written once.
    let [a, b, c, d] = sizes.map(|size| size as u64);
    let info = MetadataBindingInfo::custom(vec![a | b << 32, c | d << 32]);
    let [x, y, z] = workgroups.map(|count| count as u32);
    let [wx, wy, wz] = shader.workgroup();
    inputs[0].client.launch(
        Box::new(SourceKernel::new(shader, CubeDim::new_3d(wx, wy, wz))),
        CubeCount::Static(x, y, z),
        KernelArguments::new().with_buffers(buffers).with_info(info),
    );
}

/// A grid of at least `count` workgroups.
fn grid(count: usize) -> [usize; 3] {
    const MOST: usize = 65_535;
    let height = count.div_ceil(MOST);
    [count.div_ceil(height), height, 1]
}

/// One weight of a linear layer with its bias.
struct Operand {
    weight: CubeTensor,
    bias: CubeTensor,
}

impl Operand {
    fn new(weight: Matrix<Cube>, bias: CubeTensor) -> Self {
        let weight = match weight {
            Matrix::F32(weight) => weight,
            Matrix::Packed { words, .. } => words,
            Matrix::Held(_) => unreachable!("only the CPU holds its weights so"),
        };
        Self {
            weight: contiguous(weight),
            bias: contiguous(bias),
        }
    }
}

/// `x` with each of the weights and biases, which have the same shape and hold their numbers alike. With one of them it may be some
/// of its rows only, and there may be an epilogue.
fn linear<const N: usize>(
    x: CubeTensor,
    operands: [(Matrix<Cube>, CubeTensor); N],
    outputs: Range<usize>,
    epilogue: Epilogue<Cube>,
) -> [CubeTensor; N] {
    let (kind, residual) = match epilogue {
        Epilogue::None => (EpilogueKind::None, None),
        Epilogue::Activation(Activation::GeluTanh) => (EpilogueKind::GeluTanh, None),
        Epilogue::Activation(Activation::Gelu) => (EpilogueKind::Gelu, None),
        Epilogue::Add(residual) => (EpilogueKind::Add, Some(contiguous(residual))),
    };
    let dtype = operands[0].0.dtype();
    let operands = operands.map(|(weight, bias)| Operand::new(weight, bias));
    let x = contiguous(x);
    let [rows, input] = x.shape().dims();
    let (first, outputs) = (outputs.start, outputs.len());
    let aligned = [input, outputs, first].iter().all(|n| n.is_multiple_of(4));
    let shader = Linear {
        form: LinearForm::new(form(), rows),
        dtype,
        input,
        output: outputs,
        aligned,
        parts: N,
        epilogue: kind,
    };
    let bytes = rows * outputs * size_of::<f32>();
    let stride = bytes.next_multiple_of(ALIGNMENT);
    let whole = allocate(&x, stride * (N - 1) + bytes);
    let mut inputs = vec![&x];
    inputs.extend(operands.iter().map(|operand| &operand.weight));
    inputs.extend(operands.iter().map(|operand| &operand.bias));
    inputs.extend(&residual);
    let numbers = if aligned { 4 } else { 1 };
    let apart = stride / size_of::<f32>() / numbers;
    let [width, height] = shader.form.tile();
    launch(
        Shader::Linear(shader),
        [outputs.div_ceil(width), rows.div_ceil(height), N],
        &inputs,
        &whole,
        [rows, first, apart, 0],
    );
    std::array::from_fn(|i| {
        let (before, behind) = (stride * i, stride * (N - 1 - i));
        let part = whole.clone();
        let part = part.offset_start(before as u64).offset_end(behind as u64);
        tensor(&x, part, Shape::new([rows, outputs]))
    })
}

/// A result of which each number is found by itself; the other sizes are what `value` makes of them.
fn map(value: Value, inputs: &[&CubeTensor], shape: Shape, sizes: [usize; 3]) -> CubeTensor {
    let row = shape[shape.num_dims() - 1];
    let numbers = match value {
        Value::Patch { .. } => 1,
        _ if row.is_multiple_of(4) => 4,
        _ => 1,
    };
    let count = shape.num_elements() / numbers;
    let shader = Map {
        value,
        row: row / numbers,
        numbers,
    };
    let y = allocate(inputs[0], shape.num_elements() * size_of::<f32>());
    let [a, b, c] = sizes;
    launch(
        Shader::Map(shader),
        grid(count.div_ceil(64)),
        inputs,
        &y,
        [count, a, b, c],
    );
    tensor(inputs[0], y, shape)
}

#[cfg(feature = "train")]
impl super::gradients::Derivatives for Cube {}

impl Kernels for Cube {
    fn siglip_linear(
        x: CubeTensor,
        weight: Matrix<Self>,
        bias: CubeTensor,
        epilogue: Epilogue<Self>,
    ) -> CubeTensor {
        let [outputs, _] = weight.dims();
        let [y] = linear(x, [(weight, bias)], 0..outputs, epilogue);
        y
    }

    fn siglip_linear_part(
        x: CubeTensor,
        weight: Matrix<Self>,
        bias: CubeTensor,
        outputs: Range<usize>,
    ) -> CubeTensor {
        let [y] = linear(x, [(weight, bias)], outputs, Epilogue::None);
        y
    }

    fn siglip_projections(
        x: CubeTensor,
        query: Matrix<Self>,
        query_bias: CubeTensor,
        key: Matrix<Self>,
        key_bias: CubeTensor,
        value: Matrix<Self>,
        value_bias: CubeTensor,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let ([outputs, _], dtype) = (query.dims(), query.dtype());
        let alike = key.dtype() == dtype && value.dtype() == dtype;
        let operands = [(query, query_bias), (key, key_bias), (value, value_bias)];
        let [query, key, value] = match alike {
            true => linear(x, operands, 0..outputs, Epilogue::None),
            false => operands
                .map(|(weight, bias)| Self::siglip_linear(x.clone(), weight, bias, Epilogue::None)),
        };
        (query, key, value)
    }

    fn siglip_attention(
        query: CubeTensor,
        key: CubeTensor,
        value: CubeTensor,
        heads: usize,
    ) -> CubeTensor {
        let [batch, queries, hidden] = query.shape().dims();
        let keys = key.shape()[1];
        let [query, key, value] = [query, key, value].map(contiguous);
        let shader = Attention::new(form(), heads, hidden / heads);
        let shape = Shape::new([batch, queries, hidden]);
        let y = allocate(&query, shape.num_elements() * size_of::<f32>());
        launch(
            Shader::Attention(shader),
            [queries.div_ceil(shader.queries()), heads, batch],
            &[&query, &key, &value],
            &y,
            [queries, keys, 0, 0],
        );
        tensor(&query, y, shape)
    }

    fn siglip_layer_norm(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        epsilon: f64,
    ) -> CubeTensor {
        let [rows, hidden] = x.shape().dims();
        let [x, gamma, beta] = [x, gamma, beta].map(contiguous);
        let shader = LayerNorm {
            form: form(),
            hidden,
            epsilon: (epsilon as f32).to_bits(),
        };
        let workgroups = match shader.form {
            Form::Registers => [rows.div_ceil(32), 1, 1],
            Form::Tiles => grid(rows),
        };
        let y = allocate(&x, rows * hidden * size_of::<f32>());
        launch(
            Shader::LayerNorm(shader),
            workgroups,
            &[&x, &gamma, &beta],
            &y,
            [rows, 0, 0, 0],
        );
        tensor(&x, y, Shape::new([rows, hidden]))
    }

    fn siglip_patches(pixels: CubeTensor, patch: usize) -> CubeTensor {
        let [batch, channels, height, width] = pixels.shape().dims();
        let pixels = contiguous(pixels);
        let (rows, columns) = (height / patch, width / patch);
        let shape = Shape::new([batch, rows * columns, channels * patch * patch]);
        let value = Value::Patch { channels, patch };
        map(value, &[&pixels], shape, [height, width, 0])
    }

    fn siglip_add_rows(x: CubeTensor, addend: CubeTensor) -> CubeTensor {
        let (shape, n) = (x.shape(), addend.shape()[0]);
        let (x, addend) = (contiguous(x), contiguous(addend));
        map(Value::Sum, &[&x, &addend], shape, [n, 0, 0])
    }

    fn siglip_take_rows(x: CubeTensor, first: usize, step: usize, count: usize) -> CubeTensor {
        let [rows, hidden] = x.shape().dims();
        assert!(first + (count - 1) * step < rows, "rows of the matrix");
        let x = contiguous(x);
        if first == 0 && (step == 1 || count == 1) {
            return tensor(&x, x.handle.clone(), Shape::new([count, hidden]));
        }
        let shape = Shape::new([count, hidden]);
        map(Value::Row, &[&x], shape, [first, step, 0])
    }

    fn siglip_gather(table: CubeTensor, ids: CubeTensor) -> CubeTensor {
        let ([rows, hidden], [count]) = (table.shape().dims(), ids.shape().dims());
        assert!(ids.dtype == DType::I32, "ids are 32-bit");
        let (table, ids) = (contiguous(table), contiguous(ids));
        let shape = Shape::new([count, hidden]);
        map(Value::Gathered, &[&table, &ids], shape, [rows, 0, 0])
    }

    fn siglip_reshape(x: CubeTensor, shape: Shape) -> CubeTensor {
        assert_eq!(x.shape().num_elements(), shape.num_elements());
        let x = contiguous(x);
        tensor(&x, x.handle.clone(), shape)
    }

    fn siglip_reshape_ids(ids: CubeTensor, shape: Shape) -> CubeTensor {
        let ids = contiguous(ids);
        of_shape(&ids, shape, ids.dtype)
    }
}
