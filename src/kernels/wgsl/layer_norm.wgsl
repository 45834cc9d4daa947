// One invocation normalises one row: mean, then variance about it, then scale and offset. No sum shared by a workgroup, because
// software adapters pay dearly for each barrier.

@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> gamma: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> beta: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> sizes: array<u32>;

const HIDDEN = {{ hidden_vectors }}u;
const EPSILON = {{ epsilon }};

fn sum_of(v: vec4<f32>) -> f32 {
    return v.x + v.y + v.z + v.w;
}

@compute @workgroup_size(32, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= sizes[0] {
        return;
    }
    let start = id.x * HIDDEN;
    var total = vec4<f32>(0.0);
    for (var i = 0u; i < HIDDEN; i++) {
        total += x[start + i];
    }
    let mean = sum_of(total) / f32(HIDDEN * 4u);
    total = vec4<f32>(0.0);
    for (var i = 0u; i < HIDDEN; i++) {
        let centred = x[start + i] - mean;
        total += centred * centred;
    }
    let scale = inverseSqrt(sum_of(total) / f32(HIDDEN * 4u) + EPSILON);
    for (var i = 0u; i < HIDDEN; i++) {
        y[start + i] = (x[start + i] - mean) * scale * gamma[i] + beta[i];
    }
}
