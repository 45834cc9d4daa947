// What all forms of the linear layer share: y [rows, output] = x [rows, input] · weightᵀ + bias, then the epilogue.
// The form's own text follows. Everything is four numbers at a time; where a size is not a multiple of four, the functions
// that read and write do so one by one and know where a row ends.

// rows; the weight's first row; what lies between the results of two weights, in elements of y.
@group(0) @binding({{ sizes_binding }}) var<uniform> sizes: vec4<u32>;

const INPUT = {{ input }}u;
const OUTPUT = {{ output }}u;
// Vectors of a row.
const INPUTS = (INPUT + 3u) / 4u;
const OUTPUTS = (OUTPUT + 3u) / 4u;
// A row of a packed weight is its numbers, then a word for each block (src/kernels/packed.rs).
const ROW = {{ row_words }}u;
const SCALES = {{ number_words }}u;
// In vectors.
const BLOCK = {{ block }};

fn x4(row: u32, k: u32) -> vec4<f32> {
    {{ x4 }}
}

fn gelu_tanh(x: vec4<f32>) -> vec4<f32> {
    let u = 0.7978845608 * (x + 0.044715 * x * x * x);
    // tanh is 1 to the last bit beyond 10; some drivers overflow on the way to it.
    return 0.5 * x * (1.0 + tanh(clamp(u, vec4<f32>(-10.0), vec4<f32>(10.0))));
}

// erf is an odd polynomial by an even one, as in src/kernels/cpu/functions.rs.
fn gelu(x: vec4<f32>) -> vec4<f32> {
    let z = clamp(0.7071067812 * x, vec4<f32>(-4.0), vec4<f32>(4.0));
    let s = z * z;
    let numerator = ((((((-2.7261423e-10 * s + 2.7706815e-8) * s - 2.101024e-6) * s - 5.6925065e-5) * s - 7.3499064e-4) * s
        - 2.9546e-3) * s - 1.6096033e-2) * z;
    let denominator = (((-1.45660715e-5 * s - 2.1337405e-4) * s - 1.682827e-3) * s - 7.3733293e-3) * s - 1.4264739e-2;
    return 0.5 * x * (1.0 + numerator / denominator);
}

// Four results of a row, from column 4 · column on.
fn store(part: u32, row: u32, column: u32, sum: vec4<f32>) {
    if row < sizes.x && column < OUTPUTS {
        {{ store }}
    }
}
