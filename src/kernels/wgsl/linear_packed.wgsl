// linear.wgsl with a packed weight (src/kernels/packed.rs): each row of `weight` is its numbers, then a scale for each block.

@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> weight: array<u32>;
@group(0) @binding(2) var<storage, read_write> bias: array<vec4<f32>>;
{{ residual_binding }}
@group(0) @binding({{ output_binding }}) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding({{ sizes_binding }}) var<storage, read_write> sizes: array<u32>;

const INPUT = {{ input_vectors }}u;
const OUTPUT = {{ output_vectors }}u;
const ROW = {{ row_words }}u;
const SCALES = {{ number_words }}u;
const BLOCK = {{ block_vectors }}u;

// The factor and the offset of a block's numbers.
fn scale(word: u32) -> vec2<f32> {
    return {{ scale }};
}

// Four neighbouring numbers of the row that starts at word `start`.
fn numbers(start: u32, k: u32) -> vec4<f32> {
    return {{ numbers }};
}

fn gelu_tanh(x: vec4<f32>) -> vec4<f32> {
    let u = 0.7978845608 * (x + 0.044715 * x * x * x);
    // tanh is 1 to the last bit beyond 10; some drivers overflow on the way to it.
    return 0.5 * x * (1.0 + tanh(clamp(u, vec4<f32>(-10.0), vec4<f32>(10.0))));
}

fn store(row: u32, rows: u32, column: u32, sum: vec4<f32>) {
    if row < rows {
        let index = row * OUTPUT + column;
        y[index] = {{ finish }};
    }
}

@compute @workgroup_size(8, 8, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let rows = sizes[0];
    let row = id.y * 4u;
    let column = id.x;
    if row >= rows || column >= OUTPUT {
        return;
    }
    // Rows past the end compute the last row again and are not stored.
    let x0 = row * INPUT;
    let x1 = min(row + 1u, rows - 1u) * INPUT;
    let x2 = min(row + 2u, rows - 1u) * INPUT;
    let x3 = min(row + 3u, rows - 1u) * INPUT;
    let w0 = (column * 4u) * ROW;
    let w1 = w0 + ROW;
    let w2 = w1 + ROW;
    let w3 = w2 + ROW;
    var s0 = bias[column];
    var s1 = s0;
    var s2 = s0;
    var s3 = s0;
    for (var block = 0u; block * BLOCK < INPUT; block++) {
        let c0 = scale(w0 + SCALES + block);
        let c1 = scale(w1 + SCALES + block);
        let c2 = scale(w2 + SCALES + block);
        let c3 = scale(w3 + SCALES + block);
        let end = min((block + 1u) * BLOCK, INPUT);
        for (var k = block * BLOCK; k < end; k++) {
            let a0 = x[x0 + k];
            let a1 = x[x1 + k];
            let a2 = x[x2 + k];
            let a3 = x[x3 + k];
            // Transposed, so that the sums grow by whole vectors.
            let b = transpose(mat4x4<f32>(
                numbers(w0, k) * c0.x + c0.y,
                numbers(w1, k) * c1.x + c1.y,
                numbers(w2, k) * c2.x + c2.y,
                numbers(w3, k) * c3.x + c3.y,
            ));
            s0 += b * a0;
            s1 += b * a1;
            s2 += b * a2;
            s3 += b * a3;
        }
    }
    store(row, rows, column, s0);
    store(row + 1u, rows, column, s1);
    store(row + 2u, rows, column, s2);
    store(row + 3u, rows, column, s3);
}
