//! The texts of the kernels. Each is written for four numbers at a time, and for one at a time where a size is not a multiple
//! of four.

use burn::backend::wgpu::{KernelSource, SourceTemplate};
use burn::cubecl::prelude::{ExecutionMode, KernelId};

use super::Form;
use crate::kernels::packed::Dtype;

/// A kernel: everything that its text depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shader {
    Linear(Linear),
    Attention(Attention),
    LayerNorm(LayerNorm),
    Map(Map),
}

impl Shader {
    /// Invocations of a workgroup along each dimension, as its text says.
    pub fn workgroup(&self) -> [u32; 3] {
        match self {
            Shader::Linear(linear) if linear.form == LinearForm::Registers => [8, 8, 1],
            Shader::Linear(_) => [128, 1, 1],
            Shader::Attention(attention) if attention.form == Form::Registers => [32, 1, 1],
            Shader::LayerNorm(norm) if norm.form == Form::Registers => [32, 1, 1],
            _ => [64, 1, 1],
        }
    }
}

impl KernelSource for Shader {
    fn source(&self) -> SourceTemplate {
        let text = match self {
            Shader::Linear(linear) => linear.text(),
            Shader::Attention(attention) => attention.text(),
            Shader::LayerNorm(norm) => norm.text(),
            Shader::Map(map) => map.text(),
        };
        SourceTemplate::new(text)
    }

    fn id(&self) -> KernelId {
        // Natively, checked kernels count the turns of every loop, which takes half as long again; these loops all end.
        KernelId::new::<Self>()
            .info(*self)
            .mode(ExecutionMode::Unchecked)
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// `text` with each `{{ name }}` replaced.
fn fill<T: AsRef<str>>(text: &str, values: &[(&str, T)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{ {name} }}}}"), value.as_ref())
    })
}

/// `text` with each line that ends with `mark` as many times as `count` says, `{{ i }}` being 0, 1 … in them.
fn repeat(text: &str, mark: &str, count: usize) -> String {
    let lines = text.lines().flat_map(|line| {
        let pattern = line.strip_suffix(mark);
        let times = if pattern.is_some() { count } else { 1 };
        (0..times).map(move |i| match pattern {
            Some(pattern) => pattern.replace("{{ i }}", &i.to_string()) + "\n",
            None => line.to_owned() + "\n",
        })
    });
    lines.collect()
}

/// The element type of buffers whose rows hold a multiple of `numbers`, and what adds up one of its elements, `v`.
fn vector(numbers: usize) -> [(&'static str, &'static str); 2] {
    match numbers {
        4 => [("vector", "vec4<f32>"), ("sum", "v.x + v.y + v.z + v.w")],
        _ => [("vector", "f32"), ("sum", "v")],
    }
}

/// As many numbers at a time as `size` allows.
fn width(size: usize) -> usize {
    if size.is_multiple_of(4) { 4 } else { 1 }
}

fn buffer(binding: usize, name: &str, element: &str) -> String {
    format!("@group(0) @binding({binding}) var<storage, read_write> {name}: array<{element}>;\n")
}

/// Which [`Epilogue`](crate::kernels::Epilogue) a linear layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EpilogueKind {
    None,
    GeluTanh,
    Gelu,
    /// Adds a buffer that is bound behind the biases.
    Add,
}

/// How a linear layer is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinearForm {
    Registers,
    Tiles,
    /// For few rows: each with its own workgroups.
    Rows,
}

impl LinearForm {
    /// The form for as many rows. What a tower's head works on, a row for each of a batch's pictures or texts, is few rows; no published
    /// tower has so few tokens. So one picture and one label need all the pipelines that others do, but for the head of 16 texts.
    pub fn new(form: Form, rows: usize) -> Self {
        const FEW: usize = 15;
        match form {
            Form::Registers => LinearForm::Registers,
            Form::Tiles if rows <= FEW => LinearForm::Rows,
            Form::Tiles => LinearForm::Tiles,
        }
    }

    /// Columns and rows that a workgroup computes.
    pub fn tile(self) -> [usize; 2] {
        match self {
            LinearForm::Registers | LinearForm::Tiles => [32, 64],
            LinearForm::Rows => [4, 1],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Linear {
    pub form: LinearForm,
    pub dtype: Dtype,
    pub input: usize,
    pub output: usize,
    /// Whether all sizes are multiples of four.
    pub aligned: bool,
    /// How many weights there are.
    pub parts: usize,
    pub epilogue: EpilogueKind,
}

impl Linear {
    fn text(&self) -> String {
        let element = if self.aligned { "vec4<f32>" } else { "f32" };
        let words = match self.dtype {
            Dtype::F32 => element,
            // Rows are whole sets of four words.
            Dtype::F16 => "vec2<u32>",
            Dtype::Q8 | Dtype::Q4 => "u32",
        };
        let mut buffers = vec![("x".to_owned(), element)];
        buffers.extend((0..self.parts).map(|part| (format!("weight_{part}"), words)));
        buffers.extend((0..self.parts).map(|part| (format!("bias_{part}"), element)));
        if self.epilogue == EpilogueKind::Add {
            buffers.push(("residual".into(), element));
        }
        buffers.push(("y".into(), element));
        let (shared, product, main, arguments) = match self.form {
            LinearForm::Registers => (
                "",
                include_str!("linear_registers.wgsl"),
                include_str!("linear_registers_main.wgsl"),
                "8u * id.y, id.x",
            ),
            LinearForm::Tiles => (
                include_str!("linear_tiles.wgsl"),
                include_str!("linear_tiles_product.wgsl"),
                include_str!("linear_groups_main.wgsl"),
                "group.xy, index",
            ),
            LinearForm::Rows => (
                include_str!("linear_rows.wgsl"),
                include_str!("linear_rows_product.wgsl"),
                include_str!("linear_groups_main.wgsl"),
                "group.xy, index",
            ),
        };
        let mut text = String::new();
        for (binding, (name, element)) in buffers.iter().enumerate() {
            text += &buffer(binding, name, element);
        }
        text += include_str!("linear.wgsl");
        text += shared;
        for part in 0..self.parts {
            for each in [include_str!("linear_weight.wgsl"), product] {
                text += &fill(each, &self.reads());
                text = fill(&text, &[("part", &part.to_string())]);
            }
        }
        text += main;
        let case = |part: usize| match part + 1 == self.parts {
            true => format!("default: {{ product_{part}({arguments}); }}"),
            false => format!("case {part}u: {{ product_{part}({arguments}); }}\n        "),
        };
        let cases: String = (0..self.parts).map(case).collect();
        let x4 = match self.aligned {
            true => "return x[row * INPUTS + k];".to_owned(),
            false => format!("return {};", each_of_four("x", "row * INPUT", "k", "INPUT")),
        };
        fill::<&str>(
            &text,
            &[
                ("sizes_binding", &buffers.len().to_string()),
                ("input", &self.input.to_string()),
                ("output", &self.output.to_string()),
                ("row_words", &self.dtype.row_words(self.input).to_string()),
                (
                    "number_words",
                    &self.dtype.number_words(self.input).to_string(),
                ),
                ("x4", &x4),
                ("store", self.store()),
                ("cases", &cases),
                (
                    "block",
                    match self.dtype {
                        Dtype::F32 | Dtype::F16 => "INPUTS",
                        Dtype::Q8 | Dtype::Q4 => "8u",
                    },
                ),
                (
                    "epilogue",
                    match self.epilogue {
                        EpilogueKind::GeluTanh => "gelu_tanh(sum)",
                        EpilogueKind::Gelu => "gelu(sum)",
                        EpilogueKind::None | EpilogueKind::Add => "sum",
                    },
                ),
                (
                    "residual",
                    match (self.epilogue, self.aligned) {
                        (EpilogueKind::Add, true) => "residual[row * OUTPUTS + column] + ",
                        (EpilogueKind::Add, false) => "residual[at + i] + ",
                        _ => "",
                    },
                ),
            ],
        )
    }

    fn store(&self) -> &'static str {
        match self.aligned {
            true => "y[part * sizes.z + row * OUTPUTS + column] = {{ residual }}{{ epilogue }};",
            false => {
                "var finished = {{ epilogue }};
        let at = row * OUTPUT + 4u * column;
        for (var i = 0u; i < 4u && 4u * column + i < OUTPUT; i++) {
            y[part * sizes.z + at + i] = {{ residual }}finished[i];
        }"
            }
        }
    }

    /// How a weight and its bias are read.
    fn reads(&self) -> [(&'static str, String); 3] {
        let weight4 = match (self.dtype, self.aligned) {
            (Dtype::F32, true) => "return weight_{{ part }}[row * INPUTS + k];".into(),
            (Dtype::F32, false) => {
                let four = each_of_four("weight_{{ part }}", "row * INPUT", "k", "INPUT");
                format!("return {four};")
            }
            (Dtype::F16, _) => "let four = weight_{{ part }}[row * (ROW / 2u) + k];
    return vec4<f32>(unpack2x16float(four.x), unpack2x16float(four.y));"
                .into(),
            // Bytes are read as parts of 255.
            (Dtype::Q8, _) => {
                "return unpack4x8unorm(weight_{{ part }}[row * ROW + k]) * scale.x + scale.y;"
                    .into()
            }
            (Dtype::Q4, _) => {
                "let word = weight_{{ part }}[row * ROW + (k >> 1u)] >> ((k & 1u) * 4u);
    return unpack4x8unorm(word & 0x0f0f0f0fu) * scale.x + scale.y;"
                    .into()
            }
        };
        let scale = match self.dtype {
            Dtype::F32 | Dtype::F16 => "return vec2<f32>(1.0, 0.0);".into(),
            Dtype::Q8 | Dtype::Q4 => "let word = weight_{{ part }}[row * ROW + SCALES + k / BLOCK];
    return vec2<f32>(bitcast<f32>(word << 16u) * 255.0, bitcast<f32>(word & 0xffff0000u));"
                .into(),
        };
        let bias4 = match self.aligned {
            true => "return bias_{{ part }}[sizes.y / 4u + column];".into(),
            false => {
                let four = each_of_four("bias_{{ part }}", "sizes.y", "column", "OUTPUT");
                format!("return {four};")
            }
        };
        [("weight4", weight4), ("scale", scale), ("bias4", bias4)]
    }
}

/// Numbers `4 · index` to `4 · index + 3` of the `size` that begin at `start` in a buffer; zeros past the end.
fn each_of_four(buffer: &str, start: &str, index: &str, size: &str) -> String {
    let at = |i: usize| {
        let number = format!("4u * {index} + {i}u");
        format!("select(0.0, {buffer}[{start} + min({number}, {size} - 1u)], {number} < {size})")
    };
    format!("vec4<f32>({}, {}, {}, {})", at(0), at(1), at(2), at(3))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attention {
    pub form: Form,
    heads: usize,
    head_size: usize,
}

impl Attention {
    pub fn new(form: Form, heads: usize, head_size: usize) -> Self {
        let mut attention = Self {
            form,
            heads,
            head_size,
        };
        // Larger heads than any published model has don't fit.
        if attention.memory() > 16_384 {
            attention.form = Form::Registers;
        }
        attention
    }

    /// Queries of a workgroup.
    pub fn queries(&self) -> usize {
        match self.form {
            Form::Registers => 32,
            Form::Tiles => 16,
        }
    }

    /// Vectors of a head.
    fn vectors(&self) -> usize {
        self.head_size / width(self.head_size)
    }

    /// Vectors of 16 keys that each of the 64 invocations brings.
    fn brought(&self) -> usize {
        (16 * self.vectors()).div_ceil(64)
    }

    /// Rows of the tile that holds them.
    fn tile_rows(&self) -> usize {
        (64 * self.brought()).div_ceil(self.vectors())
    }

    /// Bytes of workgroup memory, of which WebGPU guarantees 16 KiB.
    fn memory(&self) -> usize {
        let vectors = 16 * self.vectors() + self.tile_rows() * (self.vectors() | 1);
        size_of::<f32>() * (width(self.head_size) * vectors + 16 * 16 + 16 * 8)
    }

    fn text(&self) -> String {
        let form = match self.form {
            Form::Registers => include_str!("attention_registers.wgsl"),
            Form::Tiles => include_str!("attention_tiles.wgsl"),
        };
        let text = [
            include_str!("vector.wgsl"),
            include_str!("attention.wgsl"),
            form,
        ]
        .concat();
        let text = repeat(&text, "// each", self.vectors().div_ceil(8));
        let text = repeat(&text, "// brought", self.brought());
        let text = fill(&text, &vector(width(self.head_size)));
        fill(
            &text,
            &[
                ("heads", self.heads.to_string()),
                ("head_size", self.head_size.to_string()),
                ("head_vectors", self.vectors().to_string()),
                ("tile_rows", self.tile_rows().to_string()),
            ],
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerNorm {
    pub form: Form,
    pub hidden: usize,
    /// Bits of an f32.
    pub epsilon: u32,
}

impl LayerNorm {
    fn text(&self) -> String {
        let form = match self.form {
            Form::Registers => include_str!("layer_norm_registers.wgsl"),
            Form::Tiles => include_str!("layer_norm_tiles.wgsl"),
        };
        let text = [
            include_str!("vector.wgsl"),
            include_str!("layer_norm.wgsl"),
            form,
        ]
        .concat();
        let width = width(self.hidden);
        let text = fill(&text, &vector(width));
        fill(
            &text,
            &[
                ("hidden", self.hidden.to_string()),
                ("hidden_vectors", (self.hidden / width).to_string()),
                ("epsilon", format!("{:e}", f32::from_bits(self.epsilon))),
            ],
        )
    }
}

/// What a [`Map`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Two matrices, of which the second begins anew after as many rows as the second size says.
    Sum,
    /// A row of a matrix: the second size is the first one, the third the step between two.
    Row,
    /// The row of a table that an id says; the second size is the table's.
    Gathered,
    /// A pixel's place in its patch; the other sizes are the picture's height and width.
    Patch { channels: usize, patch: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Map {
    pub value: Value,
    /// Elements of a row of the result.
    pub row: usize,
    /// Numbers of an element.
    pub numbers: usize,
}

impl Map {
    fn text(&self) -> String {
        let element = vector(self.numbers)[0].1;
        let x = ("x", element);
        let (buffers, value) = match self.value {
            Value::Sum => (
                vec![x, ("addend", element)],
                "y[i] = x[i] + addend[row % sizes.y * ROW + column];".to_owned(),
            ),
            Value::Row => (
                vec![x],
                "y[i] = x[(sizes.y + row * sizes.z) * ROW + column];".to_owned(),
            ),
            Value::Gathered => (
                vec![x, ("ids", "i32")],
                "y[i] = x[u32(clamp(ids[row], 0, i32(sizes.y) - 1)) * ROW + column];".to_owned(),
            ),
            Value::Patch { channels, patch } => (
                vec![x],
                format!(
                    "let across = sizes.z / {patch}u;
    let down = sizes.y / {patch}u;
    let picture = row / (across * down);
    let place = row % (across * down);
    let channel = column / {area}u;
    let pixel_row = place / across * {patch}u + column % {area}u / {patch}u;
    let pixel_column = place % across * {patch}u + column % {patch}u;
    y[i] = x[((picture * {channels}u + channel) * sizes.y + pixel_row) * sizes.z + pixel_column];",
                    area = patch * patch,
                ),
            ),
        };
        let bindings: String = (buffers.iter().enumerate())
            .map(|(binding, (name, element))| buffer(binding, name, element))
            .collect();
        fill(
            include_str!("map.wgsl"),
            &[
                ("vector", element),
                ("bindings", &bindings),
                ("output_binding", &buffers.len().to_string()),
                ("sizes_binding", &(buffers.len() + 1).to_string()),
                ("row", &self.row.to_string()),
                ("value", &value),
            ],
        )
    }
}
